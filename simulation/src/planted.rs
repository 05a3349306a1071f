//! Worlds with a bug in them.
//!
//! A bug is planted for the thread that runs the world; everything else is as in any other world. A world that goes on as if nothing
//! were wrong has not found it.

use std::ops::Range;

pub use memkv_transport::planted::Bug;

/// Every bug has to be found among so many seeds.
pub const SEEDS_MAX: u64 = 500;

/// The world that found a bug.
#[derive(Clone, Debug)]
pub struct Found {
    pub bug: Bug,
    pub seed: u64,
    pub violation: String,
}

/// The bug of this name.
pub fn named(name: &str) -> Option<Bug> {
    Bug::ALL.iter().copied().find(|bug| bug.name() == name)
}

/// The first of these seeds whose world finds a bug.
#[cfg(feature = "planted-bugs")]
pub fn find(bug: Bug, seeds: Range<u64>) -> Option<Found> {
    seeds.into_iter().find_map(|seed| {
        let failure = with(bug, || crate::run_whole(seed)).err()?;
        Some(Found { bug, seed, violation: failure.violation })
    })
}

/// Runs something with a bug planted.
#[cfg(feature = "planted-bugs")]
pub fn with<T>(bug: Bug, run: impl FnOnce() -> T) -> T {
    memkv_transport::planted::plant(Some(bug));
    let result = run();
    memkv_transport::planted::plant(None);
    result
}

/// The first of these seeds whose world finds a bug: this build has none.
#[cfg(not(feature = "planted-bugs"))]
pub fn find(_: Bug, _: Range<u64>) -> Option<Found> {
    None
}
