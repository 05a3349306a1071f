//! Every planted bug is found. The table says which seed finds it first; when the world has changed and that one no longer does, the
//! seeds from 0 on are tried, and the table wants an update (`cargo xtask simulate --planted all`).

use memkv_simulation::planted::{Bug, SEEDS_MAX, find, named, with};
use memkv_simulation::{run, run_whole};

const FIRST: &[(&str, u64)] = &[
    ("sequence-unchecked", 25),
    ("control-mac-unchecked", 4),
    ("payload-tag-unchecked", 4),
    ("buffer-given-back-twice", 0),
    ("deadline-not-armed", 41),
    ("reply-to-another-call", 0),
    ("restart-untold", 1),
    ("reply-buffer-reused", 0),
    ("chunk-flush-skipped", 17),
    ("manifest-flush-skipped", 7),
    ("early-ack", 0),
    ("extent-freed-twice", 2),
    ("journal-entry-lost", 6),
    ("delete-not-logged", 14),
    ("checksum-unchecked", 2),
    ("wrong-block", 5),
    ("lease-ignored", 13),
    ("missing-chunk-published", 0),
    ("stale-generation-accepted", 9),
    ("reference-leaked", 0),
    ("live-record-not-moved", 2),
    ("reuse-before-flush", 13),
    ("torn-record-taken", 1),
    ("request-forgotten", 1),
];

#[test]
fn each_bug_is_found() {
    assert_eq!(FIRST.len(), Bug::ALL.len());
    for (name, first) in FIRST {
        let bug = named(name).unwrap_or_else(|| panic!("there is no bug {name}"));
        let found = find(bug, *first..first + 1).or_else(|| find(bug, 0..SEEDS_MAX));
        let found = found.unwrap_or_else(|| panic!("{name} is not found"));
        println!("{name}: seed {}: {}", found.seed, found.violation);
    }
}

/// The seeds of the table fail for the bugs alone.
#[test]
fn without_a_bug_these_worlds_keep_their_promises() {
    for (_, seed) in FIRST {
        run(*seed).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

#[test]
fn a_failure_is_shrunk_to_what_matters() {
    let bug = Bug::StaleGenerationAccepted;
    let found = find(bug, 0..SEEDS_MAX).expect("the bug is found");
    let whole = with(bug, || run_whole(found.seed)).expect_err("the seed repeats it");
    let failure = with(bug, || run(found.seed)).expect_err("the seed repeats it");
    let shrunken = failure.shrunken.expect("a failure is shrunk");
    assert_eq!(failure.history, whole.history);
    assert!(
        shrunken.history.len() * 3 < failure.history.len(),
        "{} of {}",
        shrunken.history.len(),
        failure.history.len()
    );
}
