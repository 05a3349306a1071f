//! Two hundred worlds. A failure names its seed; `MEMKV_SEED=N cargo test -p memkv-simulation` repeats it alone.

use memkv_simulation::{Report, run};

const SEEDS: u64 = 200;

fn seeds() -> Vec<u64> {
    match std::env::var("MEMKV_SEED") {
        Ok(seed) => vec![seed.parse().expect("MEMKV_SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    }
}

#[test]
fn every_world_keeps_its_promises() {
    let mut all = Report::default();
    let single = seeds().len() == 1;
    for seed in seeds() {
        let report = run(seed).unwrap_or_else(|failure| panic!("{failure}"));
        all.operations += report.operations;
        all.kills += report.kills;
        all.power_losses += report.power_losses;
        all.cuts += report.cuts;
        all.rotten += report.rotten;
        all.virtual_ms += report.virtual_ms;
    }
    println!("{all:?}");
    // A world in which nothing goes wrong proves nothing.
    assert!(single || (all.kills > 50 && all.power_losses > 50 && all.cuts > 50 && all.rotten > 10));
}

#[test]
fn a_seed_repeats_its_run() {
    for seed in seeds().into_iter().take(5) {
        let first = run(seed).unwrap_or_else(|failure| panic!("{failure}"));
        let second = run(seed).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(first, second, "seed {seed}");
    }
}
