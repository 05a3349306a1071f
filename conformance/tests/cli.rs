//! The command line: what it prints, refuses and ends with.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Suite, compile, conformance};

fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_memkv-conformance"))
}

/// The exit code and all output of a run that needs no library.
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = binary().args(arguments).output().expect("the suite runs");
    let told = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(told).expect("the suite writes UTF-8"))
}

fn list_of(lines: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("known");
    std::fs::write(&path, lines).expect("a list");
    (directory, path)
}

#[test]
fn cases_can_be_listed_and_filtered() {
    let (code, all) = run(&["abi", "--list"]);
    assert_eq!(code, Some(0));
    assert_eq!(all.lines().count(), memkv_conformance::abi::cases().len());
    let (code, some) = run(&["abi", "--list", "--filter", "abi-man-1?"]);
    assert_eq!(code, Some(0));
    assert_eq!(some.lines().count(), 5);
    assert!(some.starts_with("ABI-MAN-10     MUST   "), "{some}");
    assert_eq!(run(&["abi", "--list", "--filter", "ABI-NOTHING-*"]).0, Some(2));
    assert_eq!(run(&["abi"]).0, Some(2));
}

#[test]
fn a_library_that_is_none_fails_every_case() {
    let text = conformance().join("Cargo.toml");
    for library in [text.as_path(), Path::new("/nowhere/libkv_store_x.so")] {
        let (code, told) = run(&["abi", support::text(library), "x://y", "--filter", "ABI-TABLE-*"]);
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains("FAIL  ABI-TABLE-1"), "{told}");
        assert!(told.contains("does not conform"), "{told}");
    }
}

#[test]
fn bad_lists_of_known_failures_are_refused() {
    for (lines, complaint) in [("ABI-MAN-1\n", "no reason"), ("ABI-GONE-1 it was\n", "matches no case")] {
        let (_directory, path) = list_of(lines);
        let known = support::text(&path);
        let (code, told) = run(&["abi", "x.so", "x://y", "--known-failing", known]);
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains(complaint), "{told}");
    }
}

#[test]
fn an_unexpected_pass_fails_the_run() {
    let Some(library) = compile("an_unexpected_pass_fails_the_run", "backends/dir.c", "unexpected") else {
        return;
    };
    let (_directory, path) = list_of("# why\nABI-TABLE-*  it was so once\n");
    let arguments = ["--known-failing", support::text(&path), "--filter", "ABI-TABLE-1"];
    let run = Suite::new(&library).run(&arguments);
    assert_eq!(run.code, Some(1), "{}", run.told());
    assert_eq!(run.verdicts()["ABI-TABLE-1"], "unexpected_pass");
}

/// Crashes, hangs and sudden ends are failed cases with a name, and the suite goes on.
#[test]
fn the_end_of_a_case_is_told() {
    let Some(library) = compile("the_end_of_a_case_is_told", "mutants/abi.c", "ends") else { return };
    for (mutant, case, told) in [
        ("static_buffer", "ABI-MEM-1", "killed by SIGABRT"),
        ("prefetch_overflows", "ABI-PRE-5", "killed by SIGSEGV"),
        ("miss_hangs", "ABI-CHUNK-11", "hung: no end after 3000 ms"),
        ("open_exits", "ABI-OPEN-3", "ended with Some(0) in the middle"),
    ] {
        let mut suite = Suite::new(&library);
        suite.mutant = Some(mutant.to_owned());
        let run = suite.run(&["--deadline", "3", "--filter", case, "--filter", "ABI-TABLE-1"]);
        assert_eq!(run.verdicts()[case], "failed", "{mutant}");
        assert_eq!(run.verdicts()["ABI-TABLE-1"], "passed", "{mutant}");
        assert!(run.told().contains(told), "{mutant}: {}", run.told());
    }
}

#[test]
fn the_report_has_the_form_of_its_schema() {
    let Some(library) = compile("the_report_has_the_form_of_its_schema", "backends/dir.c", "report") else {
        return;
    };
    let junit = tempfile::NamedTempFile::new().expect("a temporary file");
    let arguments = ["--seed", "7", "--filter", "ABI-NAME-*", "--junit", support::text(junit.path())];
    let run = Suite::new(&library).run(&arguments);
    // A SHOULD that fails is told, and fails only a strict run.
    assert_eq!(run.code, Some(0), "{}", run.told());
    let text = std::fs::read_to_string(conformance().join("schema/report.schema.json")).expect("the schema");
    let schema: Value = serde_json::from_str(&text).expect("the schema is JSON");
    let report = run.report();
    expect_form(report, &schema);
    for case in report["cases"].as_array().expect("cases") {
        expect_form(case, &schema["$defs"]["case"]);
    }
    expect_form(&report["totals"], &schema["$defs"]["totals"]);
    assert_eq!((&report["seed"], &report["totals"]["failed_should"]), (&Value::from(7), &Value::from(1)));

    let xml = std::fs::read_to_string(junit.path()).expect("the JUnit file");
    assert!(xml.contains("tests=\"6\" failures=\"0\" skipped=\"1\""), "{xml}");
    assert_eq!(xml.matches("<testcase ").count(), 6, "{xml}");
}

/// All required fields are there, no unknown one is, and words are among those listed.
fn expect_form(value: &Value, form: &Value) {
    let object = value.as_object().expect("an object");
    for field in form["required"].as_array().expect("required fields") {
        assert!(object.contains_key(field.as_str().expect("a name")), "{field} is missing in {value}");
    }
    let Some(properties) = form["properties"].as_object() else { return };
    for (field, content) in object {
        let property = properties.get(field).unwrap_or_else(|| panic!("the schema has no {field}"));
        if let Some(words) = property["enum"].as_array() {
            assert!(words.contains(content), "{field} is {content}");
        }
    }
}

/// The generated header compiles by itself.
#[test]
fn the_protocol_header_is_c() {
    let _ = compile("the_protocol_header_is_c", "tests/protocol.c", "protocol");
}
