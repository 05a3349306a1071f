//! Three hundred worlds. A failure names its seed and prints what of its history matters; `MEMKV_SEED=N cargo test -p
//! memkv-simulation` repeats it alone, `MEMKV_SEEDS=FROM..TO` runs others, and `cargo xtask simulate` runs many.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use memkv_simulation::{Report, run};

const SEEDS: u64 = 300;

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
    let all = Mutex::new(Report::default());
    let seeds = seeds();
    let few = (seeds.len() as u64) < SEEDS;
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let report = run(*seed).unwrap_or_else(|failure| panic!("{failure}"));
            all.lock().expect("no world panics with it").add(&report);
        }
    };
    let jobs = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
    });
    let all = all.into_inner().expect("no world panics with it");
    println!("{all:?}");
    // A world in which nothing goes wrong proves nothing.
    let befell =
        [all.kills, all.power_losses, all.stops, all.clients_killed, all.cuts, all.stalls, all.jumps];
    assert!(few || befell.iter().all(|count| *count > 20), "{all:?}");
    assert!(
        few || all.disk_faults > 20 && all.rotten > 10 && all.evicted > 100 && all.moved > 100,
        "{all:?}"
    );
}

/// Worlds that failed once, and why.
const MENDED: &[(u64, &str)] = &[
    (4724, "an earlier attempt of a put ended after a delete, and brought the manifest back"),
    (18336, "the model expected a value whose acknowledgement was on its way when the power was lost"),
    (19629, "the model expected a chunk whose lease its own client's delete had ended"),
    (21042, "a commit waited for the journal of a device that had failed since its pieces were written"),
];

#[test]
fn mended_worlds_keep_their_promises() {
    for (seed, how) in MENDED {
        run(*seed).unwrap_or_else(|failure| panic!("{how}: {failure}"));
    }
}

#[test]
fn a_seed_repeats_its_run() {
    for seed in seeds().into_iter().take(5) {
        let first = run(seed).unwrap_or_else(|failure| panic!("{failure}"));
        let second = run(seed).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(first, second, "seed {seed}");
    }
}
