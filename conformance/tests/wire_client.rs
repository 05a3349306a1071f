//! The client suite against the reference client, against the real one, and against clients that are wrong.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use memkv_conformance::reference_client::Flaw;
use memkv_conformance::wire_client;
use support::{Run, conformance, text};

const SUITE: &str = env!("CARGO_BIN_EXE_memkv-conformance");

fn suite(driver: &str, arguments: &[&str]) -> Run {
    let mut command = Command::new(SUITE);
    command.args(["wire-client", driver, "--json", "--strict", "--jobs", "6"]).args(arguments);
    Run::of(&mut command)
}

fn expect_all_passed(run: &Run) {
    assert_eq!(run.code, Some(0), "{}", run.told());
    assert_eq!(run.verdicts().len(), wire_client::cases().len());
    for (case, verdict) in run.verdicts() {
        assert_eq!(verdict, "passed", "{case}: {}", run.told());
    }
}

#[test]
fn the_reference_client_conforms() {
    expect_all_passed(&suite(&format!("exec {SUITE} reference-client"), &[]));
}

#[test]
fn the_client_conforms() {
    let driver = support::build_example("memkv-client", "wire_driver");
    expect_all_passed(&suite(&format!("exec {}", text(&driver)), &[]));
}

/// What a driver cannot do is skipped, and said.
#[test]
fn what_is_not_implemented_is_skipped() {
    for driver in ["while read -r line; do echo unimplemented; done", "exit 89"] {
        let run = suite(driver, &["--filter", "CLI-VAL-*"]);
        assert_eq!(run.code, Some(89), "{}", run.told());
        assert!(run.verdicts().values().all(|verdict| verdict == "skipped"), "{}", run.told());
    }
}

/// Every line of wire_client.txt: the named case fails on the flaw. That it passes without is tested above.
#[test]
fn every_flaw_is_caught_by_its_case() {
    support::all_caught(flaws(), 6, |(flaw, case)| {
        let driver = format!("exec {SUITE} reference-client --flaw {flaw}");
        let run = suite(&driver, &["--filter", &case]);
        if run.fails(&case) { Ok(()) } else { Err(format!("{flaw} by {case}: {}", run.told())) }
    });
}

/// A flaw that is in one list and not in the other would never run.
#[test]
fn the_lists_of_flaws_agree() {
    let listed: BTreeSet<String> = flaws().into_iter().map(|(flaw, _)| flaw).collect();
    let there: BTreeSet<String> = Flaw::ALL.iter().map(|flaw| flaw.name().to_owned()).collect();
    assert_eq!(listed, there);
}

fn flaws() -> Vec<(String, String)> {
    support::pairs(&conformance().join("mutants/wire_client.txt"))
}

fn ids_in(path: &Path, prefix: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(path).expect("a page of requirements");
    let ids = text.match_indices(prefix).filter_map(|(at, _)| text[at + 1..].split(']').next());
    ids.map(str::to_owned).collect()
}

/// Every case names requirements that there are, and every requirement on drivers is tested.
#[test]
fn cases_and_requirements_match() {
    let own = ids_in(&conformance().join("wire_client.md"), "[WCD-");
    let mut known = own.clone();
    for file in ["types", "session", "ops", "manifest"] {
        known.extend(ids_in(&conformance().join(format!("../schema/{file}.capnp")), "[MKV-"));
    }
    let (mut ids, mut tested) = (BTreeSet::new(), BTreeSet::new());
    for case in wire_client::cases() {
        assert!(ids.insert(case.id), "{} is there twice", case.id);
        assert!(!case.requires.is_empty(), "{} tests nothing", case.id);
        for id in case.requires {
            assert!(known.contains(*id), "{}: there is no {id}", case.id);
            tested.insert((*id).to_owned());
        }
    }
    let untested: Vec<_> = own.difference(&tested).collect();
    assert!(untested.is_empty(), "no case tests {untested:?}");
    // What the server suite leaves to this one.
    for id in ["MKV-CONN-8", "MKV-STAT-1"] {
        assert!(tested.contains(id), "no case tests {id}");
    }
}
