//! Crash images: every prefix of the write history of seeded histories, and what the store makes of it.
//!
//! A history is a few dozen operations of several clients (put, allocate and commit, delete, manifests put, replaced and deleted, sync,
//! time) on a small store of one to three devices that has lived before, with checkpoints and reclaiming on their way. Everything
//! handed to the devices is logged, with every answer at its place in it.
//!
//! After every event that lets a crash leave something else, or makes the store owe more, images are made: what was flushed, and of
//! every other write all, nothing, or a torn part. Events after which neither is so are skipped; their images are among those of the
//! prefix before. On each image the store is opened and must have kept its word (`check`, `model`). Some images are lived on: their opening's
//! own writes, and a few operations more, are a history whose every prefix is a crash again.
//!
//! `MEMKV_SEED` is the first seed, `MEMKV_SEEDS` how many. A failure prints the whole history with the fewest writes lost that still
//! fail.

mod check;
mod content;
mod disk;
mod history;
mod model;

use std::panic::{AssertUnwindSafe, catch_unwind};

use memkv_server::store::Config;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use check::{Hashes, Opened};
use disk::{Crash, Disks, Fate, Medium, Platter};
use history::{Event, World};
use model::{Fact, Found, Model};

/// The smallest there is, so that extents fill.
const EXTENT: u32 = (1 << 20) + (8 << 10);
const KEYS: usize = 24;
const NAMES: usize = 4;
const REFS: usize = 2;
const NAMESPACE: &[u8] = b"ns";
/// One image in so many is lived on.
const LIVED_ON: u32 = 40;

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    histories: u64,
    prefixes: u64,
    images: u64,
    lived_on: u64,
    images_after: u64,
    checkpoints: u64,
    reclaimed: u64,
    evicted: u64,
    manifests_evicted: u64,
    moved: u64,
}

/// A log to follow, and what it began with.
struct Run {
    start: Platter,
    model: Model,
    log: Vec<Event>,
    config: Config,
    again: bool,
}

struct Follower {
    rng: StdRng,
    tally: Tally,
    hashes: Hashes,
}

/// One crash.
struct Image<'a> {
    platter: &'a Platter,
    model: &'a Model,
    crash: Crash,
    order: Option<u64>,
}

impl Image<'_> {
    fn media(&self, fates: &[Fate]) -> Vec<Medium> {
        self.platter.image(fates, self.order)
    }

    /// What is found, or what is wrong.
    fn check(&self, fates: &[Fate], config: &Config, hashes: &mut Hashes) -> Result<(Opened, Found), String> {
        let hashes = std::mem::take(hashes);
        let checked = catch_unwind(AssertUnwindSafe(|| {
            let mut opened = Opened::open(Disks::new(self.media(fates), 1 << 32), config, hashes)?;
            let found = opened.inspect(self.model, self.crash)?;
            Ok((opened, found))
        }));
        checked.unwrap_or_else(|_| Err("panics".into()))
    }

    /// Fewer lost writes that still fail.
    fn shrink(&self, mut fates: Vec<Fate>, config: &Config) -> Vec<Fate> {
        for index in 0..fates.len() {
            let before = std::mem::replace(&mut fates[index], Fate::Kept);
            if self.check(&fates, config, &mut Hashes::default()).is_ok() {
                fates[index] = before;
            }
        }
        fates
    }
}

impl Follower {
    fn follow(&mut self, run: &Run) -> Result<(), String> {
        let (mut platter, mut model) = (run.start.clone(), run.model.clone());
        for (at, event) in run.log.iter().enumerate() {
            let matters = match event {
                Event::Disk(event) => platter.apply(event),
                Event::Fact(fact) => model.apply(fact),
            };
            if !matters {
                continue;
            }
            self.tally.prefixes += 1;
            for _ in 0..self.rng.random_range(1..3) {
                self.image(run, &platter, &model).map_err(|failure| {
                    let history: String =
                        run.log[..=at].iter().map(|event| format!("  {event:?}\n")).collect();
                    format!("{history}{failure}")
                })?;
            }
        }
        Ok(())
    }

    fn image(&mut self, run: &Run, platter: &Platter, model: &Model) -> Result<(), String> {
        let crash = if self.rng.random_bool(0.25) { Crash::Process } else { Crash::Power };
        let fates = platter.fates(crash, &mut self.rng);
        let order = (crash == Crash::Power).then(|| self.rng.random());
        let image = Image { platter, model, crash, order };
        self.tally.images += 1;
        let explain = |failure: String, fates: &[Fate]| {
            format!("  {crash:?} ends\n{}{failure}", platter.describe(fates))
        };
        match image.check(&fates, &run.config, &mut self.hashes) {
            Ok((opened, _)) if !run.again || self.rng.random_range(0..LIVED_ON) > 0 => {
                self.hashes = opened.into_hashes();
                Ok(())
            }
            Ok((opened, found)) => {
                let start = match crash {
                    Crash::Power => Platter::new(image.media(&fates)),
                    Crash::Process => platter.clone().outlived(&fates),
                };
                let mut model = model.clone();
                model.apply(&Fact::Opened(crash, found));
                self.live_on(start, model, opened, run).map_err(|failure| explain(failure, &fates))
            }
            Err(_) => {
                let fates = image.shrink(fates, &run.config);
                let failure = image.check(&fates, &run.config, &mut Hashes::default()).err();
                Err(explain(failure.unwrap_or_default(), &fates))
            }
        }
    }

    /// The store goes on, and crashes again, at the latest while it recovers.
    fn live_on(&mut self, start: Platter, model: Model, opened: Opened, run: &Run) -> Result<(), String> {
        self.tally.lived_on += 1;
        let (mut world, hashes) = opened.into_world(model.clone(), run.config.clone(), self.rng.random());
        self.hashes = hashes;
        if self.rng.random_bool(0.5) {
            world.drain();
        }
        world.works()?;
        let actions = self.rng.random_range(0..4);
        world.live(actions);
        if self.rng.random_bool(0.3) {
            world.stop();
        }
        world.store.audit().map_err(|error| format!("does not add up later: {error}"))?;
        let log = std::mem::take(&mut world.log);
        let before = self.tally.images;
        let result = self.follow(&Run { start, model, log, config: run.config.clone(), again: false });
        self.tally.images_after += self.tally.images - before;
        result
    }
}

/// One history with all its prefixes.
fn run(seed: u64, tally: Tally) -> Result<Tally, String> {
    let mut world = World::new(seed);
    let (start, model) = (Platter::new(world.disks.media.clone()), world.model.clone());
    let before = world.store.counters();
    world.live(40);
    if seed.is_multiple_of(4) {
        world.stop();
    }
    let mut follower = Follower { rng: StdRng::seed_from_u64(!seed), tally, hashes: Hashes::default() };
    let after = world.store.counters();
    follower.tally.histories += 1;
    follower.tally.checkpoints += after.checkpoints - before.checkpoints;
    follower.tally.reclaimed += after.extents_reclaimed - before.extents_reclaimed;
    follower.tally.evicted += after.values_evicted - before.values_evicted;
    follower.tally.manifests_evicted += after.manifests_evicted - before.manifests_evicted;
    follower.tally.moved += after.records_moved - before.records_moved;
    let log = std::mem::take(&mut world.log);
    follower.follow(&Run { start, model, log, config: world.config.clone(), again: true })?;
    Ok(follower.tally)
}

/// Seeds of histories that the store once did not survive.
const ONCE_FAILED: [u64; 1] = [3001];

#[test]
fn histories_that_were_once_too_much_no_longer_are() {
    for seed in ONCE_FAILED {
        if let Err(failure) = run(seed, Tally::default()) {
            panic!("seed {seed}:\n{failure}");
        }
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn every_prefix_of_a_history_keeps_the_stores_word() {
    let first = from_environment("MEMKV_SEED").unwrap_or(0);
    let count = from_environment("MEMKV_SEEDS").unwrap_or(60);
    let mut tally = Tally::default();
    let mut failed = Vec::new();
    for seed in first..first + count {
        match catch_unwind(|| run(seed, tally)) {
            Ok(Ok(after)) => tally = after,
            Ok(Err(failure)) => {
                println!("seed {seed}:\n{failure}\n");
                failed.push(seed);
            }
            Err(_) => failed.push(seed),
        }
    }
    println!("{tally:?}");
    assert!(failed.is_empty(), "seeds {failed:?}");
    if count >= 50 {
        let seen = [tally.checkpoints, tally.reclaimed, tally.evicted, tally.manifests_evicted, tally.moved];
        assert!(seen.iter().all(|count| *count > 0), "the histories are too quiet: {tally:?}");
    }
}
