//! A seeded world in virtual time.
//!
//! One process runs the real cores of several clients and several real servers (service and store) over simulated links and
//! simulated disks: no clock, no socket, no thread, no file. A seed decides the work, the delays and the faults, so that it
//! repeats a run to the last byte.
//!
//! What goes wrong: links delay, tear, cut, damage and repeat what they carry, and somebody meddles with whole frames; disks fail, are
//! full, tear, misdirect and forget writes, and rot; processes are killed, stopped, stalled; the power fails; the clock jumps.
//! What must hold all the same is told in `world.rs`, and what an answer may be after all that in `model.rs`.
//!
//! [`run`] drives one world to its end. When it breaks a promise, [`Failure`] has the seed and the shortest history found that
//! still breaks one. `cargo xtask simulate` runs many. With the feature `planted-bugs` worlds run with a bug in them
//! ([`planted`]): each has to be found.
#![forbid(unsafe_code)]

mod content;
mod disk;
mod links;
mod model;
mod operation;
pub mod planted;
mod random;
mod schedule;
mod seat;
mod server;
mod shrink;
mod world;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

use crate::random::Random;
use crate::schedule::Schedule;
use crate::world::{Broken, World};

pub use crate::world::Report;

/// Links that carry a few bytes at a time make a world take minutes: a fuzzer would look for nothing else.
const CHOSEN_SEGMENT_SIZE_BYTES_MIN: usize = 4096;

/// A promise was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    pub violation: String,
    pub at: Duration,
    /// What the clients did and what befell the world.
    pub history: Vec<String>,
    /// The same of a world with as little in it as still breaks a promise, and that promise.
    pub shrunken: Option<Box<Failure>>,
}

impl Failure {
    /// What the violation is about, without numbers: another history with the same kind of violation is as good.
    fn kind(&self) -> String {
        self.violation.chars().filter(|c| c.is_alphabetic() || *c == ' ').take(KIND_CHARS).collect()
    }
}

/// More than that is about this history alone.
const KIND_CHARS: usize = 40;

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.shrunken.as_deref().unwrap_or(self);
        writeln!(f, "seed {} at {:?}: {}", self.seed, self.at, self.violation)?;
        if self.shrunken.is_some() {
            writeln!(f, "shrunken, at {:?}: {}", shown.at, shown.violation)?;
        }
        shown.history.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// Runs the world of a seed; shrinks the history of one that fails.
pub fn run(seed: u64) -> Result<Report, Box<Failure>> {
    let lived = Lived::draw(Random::new(seed), 1, seed);
    lived.run(&BTreeSet::new()).map_err(|failure| lived.shrink(failure))
}

/// Runs the world of a seed; its failure has the whole history.
pub fn run_whole(seed: u64) -> Result<Report, Box<Failure>> {
    Lived::draw(Random::new(seed), 1, seed).run(&BTreeSet::new())
}

/// Runs the world in which these bytes decide what happens, as long as they last. A failure has no seed.
pub fn run_choices(choices: &[u8]) -> Result<Report, Box<Failure>> {
    Lived::draw(Random::choosing(choices), CHOSEN_SEGMENT_SIZE_BYTES_MIN, 0).run(&BTreeSet::new())
}

/// One seed's world, to be run with more and with less in it.
struct Lived {
    seed: u64,
    schedule: Schedule,
    random: Random,
}

impl Lived {
    fn draw(mut random: Random, segment_size_bytes_min: usize, seed: u64) -> Lived {
        let schedule = Schedule::draw(&mut random, segment_size_bytes_min);
        Lived { seed, schedule, random }
    }

    fn run(&self, left_out: &BTreeSet<usize>) -> Result<Report, Box<Failure>> {
        let history = RefCell::new(Vec::new());
        let world = || World::new(&self.schedule, left_out, self.random.clone(), &history).live();
        let Broken { violation, at } = match quietly(world) {
            Ok(Ok(report)) => return Ok(report),
            Ok(Err(broken)) => *broken,
            Err(panic) => Broken { violation: panic, at: Duration::ZERO },
        };
        Err(Box::new(Failure { seed: self.seed, violation, at, history: history.take(), shrunken: None }))
    }

    fn shrink(&self, mut failure: Box<Failure>) -> Box<Failure> {
        let kind = failure.kind();
        let left_out = shrink::shrink(self.schedule.events.len(), |left_out| {
            self.run(left_out).is_err_and(|failure| failure.kind() == kind)
        });
        failure.shrunken = self.run(&left_out).err();
        failure
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs something whose panic is an answer as good as any other, and is not to be printed.
fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    thread_local! {
        static MESSAGE: Cell<String> = const { Cell::new(String::new()) };
    }
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| match QUIET.get() {
            true => MESSAGE.set(panic.to_string()),
            false => loud(panic),
        }));
    });
    QUIET.set(true);
    // Everything it touched is dropped with it.
    let ended = catch_unwind(AssertUnwindSafe(run));
    QUIET.set(false);
    ended.map_err(|_| MESSAGE.take())
}
