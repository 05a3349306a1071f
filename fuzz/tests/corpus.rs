//! Every input of the committed corpus, and a few drawn ones, without a fuzzer.

use std::path::{Path, PathBuf};

use memkv_fuzz::{TARGETS, Target};

/// Drawn inputs for each target, beside the corpus.
const DRAWN: u64 = 30;

fn corpus(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    paths
}

fn replay(name: &str) {
    let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).expect("a target");
    let paths = corpus(name);
    assert!(!paths.is_empty(), "{name} has no corpus");
    for path in paths {
        let input = std::fs::read(&path).expect("a readable file");
        // The last line before a panic says which input it was.
        println!("{}", path.display());
        target(&input);
    }
    draw(*target);
}

fn draw(target: Target) {
    for seed in 0..DRAWN {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        let input: Vec<u8> = (0..seed * 17).map(|_| next()).collect();
        println!("drawn from {seed}");
        target(&input);
    }
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            assert_eq!(replayed.to_vec(), TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        }
    };
}

replays!(messages manifest setup frames service world abi config);
