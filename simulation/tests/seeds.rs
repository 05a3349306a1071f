//! Two hundred worlds. A failure names its seed; `MEMKV_SEED=N cargo test -p memkv-simulation` repeats it alone, and
//! `MEMKV_SEEDS=FROM..TO` runs others.

use memkv_simulation::{Report, run};

const SEEDS: u64 = 200;

fn seeds() -> Vec<u64> {
    let number = |text: &str| text.parse::<u64>().expect("a seed is a number");
    if let Ok(seed) = std::env::var("MEMKV_SEED") {
        return vec![number(&seed)];
    }
    match std::env::var("MEMKV_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").expect("MEMKV_SEEDS is FROM..TO");
            (number(from)..number(to)).collect()
        }
        Err(_) => (0..SEEDS).collect(),
    }
}

#[test]
fn every_world_keeps_its_promises() {
    let mut all = Report::default();
    let few = (seeds().len() as u64) < SEEDS;
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
    assert!(few || (all.kills > 50 && all.power_losses > 50 && all.cuts > 50 && all.rotten > 10));
}

#[test]
fn a_seed_repeats_its_run() {
    for seed in seeds().into_iter().take(5) {
        let first = run(seed).unwrap_or_else(|failure| panic!("{failure}"));
        let second = run(seed).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(first, second, "seed {seed}");
    }
}
