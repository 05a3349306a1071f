//! The ABI suite against the plain-directory backend, and against broken ones.

mod support;

use std::collections::BTreeSet;

use memkv_conformance::abi;
use memkv_conformance::case::Level;
use support::{Suite, compile, conformance};

/// How long a case may take on a slow machine; the mutants that hang are given less.
const DEADLINE_S: &str = "120";
const HANG_DEADLINE_S: &str = "8";

#[test]
fn the_directory_backend_conforms() {
    let Some(library) = compile("the_directory_backend_conforms", "backends/dir.c", "directory") else {
        return;
    };
    let suite = Suite::new(&library);
    let known = conformance().join("backends/dir.known-failing");
    let run = suite.run(&["--strict", "--deadline", DEADLINE_S, "--known-failing", support::text(&known)]);
    assert!(run.code == Some(0), "{}", run.told());
    let verdicts = run.verdicts();
    assert_eq!(verdicts.len(), abi::cases().len());
    for (case, verdict) in verdicts {
        let expected = if case == "ABI-NAME-5" { "known_failure" } else { "passed" };
        assert_eq!(verdict, expected, "{case}: {}", run.told());
    }
}

/// The broken backends: those written beside the suite, and those written from the specification alone.
const MUTANTS: [&str; 2] = ["abi", "spec"];

/// Every line of abi.txt and spec.txt: the named case fails on the mutant. That it passes on the backend itself is tested
/// above.
#[test]
fn every_mutant_is_caught_by_its_case() {
    let mut all = Vec::new();
    for source in MUTANTS {
        let (file, name) = (format!("mutants/{source}.c"), format!("mutants_{source}"));
        let Some(library) = compile("every_mutant_is_caught_by_its_case", &file, &name) else {
            return;
        };
        let mutants = mutants(source);
        assert!(mutants.len() >= 30, "only {} mutants in {file}", mutants.len());
        all.extend(mutants.into_iter().map(|(mutant, case)| (library.clone(), mutant, case)));
    }
    support::all_caught(all, 2, |(library, mutant, case)| {
        caught(&library, &mutant, &case).map_err(|why| format!("{mutant} by {case}: {why}"))
    });
}

fn caught(library: &std::path::Path, mutant: &str, case: &str) -> Result<(), String> {
    let mut suite = Suite::new(library);
    suite.mutant = Some(mutant.to_owned());
    let deadline =
        if mutant.contains("hangs") || mutant.contains("deadlocks") { HANG_DEADLINE_S } else { DEADLINE_S };
    let run = suite.run(&["--strict", "--deadline", deadline, "--filter", case]);
    if run.fails(case) { Ok(()) } else { Err(run.told()) }
}

/// A mutant that is in one list and not in the other would never run.
#[test]
fn the_lists_of_mutants_agree() {
    for source in MUTANTS {
        let path = conformance().join(format!("mutants/{source}.c"));
        let text = std::fs::read_to_string(path).expect("the mutants");
        let planted: BTreeSet<String> = text
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("X(")?.split_once(','))
            .map(|(name, _)| name.to_owned())
            .collect();
        let listed: BTreeSet<String> = mutants(source).into_iter().map(|(mutant, _)| mutant).collect();
        assert_eq!(planted, listed);
    }
}

fn mutants(source: &str) -> Vec<(String, String)> {
    support::pairs(&conformance().join(format!("mutants/{source}.txt")))
}

/// Every requirement of the contract is tested, every case tests one, and a case is as binding as what it tests.
#[test]
fn cases_and_requirements_match() {
    let contract = std::fs::read_to_string(conformance().join("kv_store_v1.md")).expect("the contract");
    let mut requirements = std::collections::BTreeMap::new();
    for line in contract.lines().filter_map(|line| line.strip_prefix("- [")) {
        let (id, rest) = line.split_once("] ").unwrap_or_else(|| panic!("{line}: no requirement"));
        let level = if rest.starts_with("MUST: ") { Level::Must } else { Level::Should };
        assert!(level == Level::Must || rest.starts_with("SHOULD: "), "{id} is neither MUST nor SHOULD");
        assert!(requirements.insert(id, level).is_none(), "{id} is there twice");
    }
    let (mut ids, mut tested) = (BTreeSet::new(), BTreeSet::new());
    for case in abi::cases() {
        assert!(ids.insert(case.id), "{} is there twice", case.id);
        assert!(!case.requires.is_empty(), "{} tests nothing", case.id);
        for id in case.requires {
            let level = *requirements.get(id).unwrap_or_else(|| panic!("{}: there is no {id}", case.id));
            // A SHOULD case may rest on a MUST as well; a MUST case never on a SHOULD alone.
            assert!(case.level == Level::Should || level == Level::Must, "{} is MUST, {id} is not", case.id);
            tested.insert(*id);
        }
    }
    let untested: Vec<_> = requirements.keys().filter(|id| !tested.contains(**id)).collect();
    assert!(untested.is_empty(), "no case tests {untested:?}");
}
