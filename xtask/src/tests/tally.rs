//! Counting tests in the text that libtest writes.
//!
//! The text holds, in this order: a line for each test, the output of those that passed (with `--show-output`), the
//! output of those that failed, the names of those that failed, and one result line. Tests may themselves print
//! anything, a result line of another test run too: so of one binary's result lines only the last counts.

use std::fmt;

const SKIP: &str = "MEMKV-SKIP ";
const RESULT: &str = "test result: ";

/// A test that said that it cannot run here.
#[derive(Debug, PartialEq)]
pub struct Skip {
    pub test: String,
    pub reason: String,
}

#[derive(Debug, Default, PartialEq)]
pub struct Tally {
    pub passed: usize,
    pub failures: Vec<String>,
    pub skips: Vec<Skip>,
}

/// The counts of one result line.
#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Tally {
    /// The tests of one binary. One with a harness of its own prints no result line and counts as one test.
    pub fn of_binary(name: &str, output: &str, succeeded: bool) -> Self {
        let last = output.lines().rev().find_map(counts);
        let counts = last.unwrap_or(Counts { passed: usize::from(succeeded), ..Counts::default() });
        Self::new(name, output, counts, succeeded)
    }

    /// The documentation's examples: one result line for each package.
    pub fn of_documentation(output: &str, succeeded: bool) -> Self {
        let mut sum = Counts::default();
        for each in output.lines().filter_map(counts) {
            sum.passed += each.passed;
            sum.failed += each.failed;
            sum.ignored += each.ignored;
        }
        Self::new("documentation", output, sum, succeeded)
    }

    fn new(name: &str, output: &str, counts: Counts, succeeded: bool) -> Self {
        let mut failures: Vec<String> = failed_tests(output).map(|test| format!("{name}::{test}")).collect();
        failures.sort();
        failures.dedup();
        // The result line is the judge of how many failed; a name may be missing when the binary died.
        failures.truncate(counts.failed);
        while failures.len() < counts.failed {
            failures.push(format!("{name}::(unnamed)"));
        }
        if failures.is_empty() && !succeeded {
            failures.push(format!("{name} (ended badly, with no test to blame)"));
        }
        let mut skips = skipped_tests(name, output);
        skips.truncate(counts.passed);
        let passed = counts.passed - skips.len();
        let ignored = Skip { test: name.to_owned(), reason: "marked as ignored".to_owned() };
        skips.extend(
            (0..counts.ignored).map(|_| Skip { test: ignored.test.clone(), reason: ignored.reason.clone() }),
        );
        Self { passed, failures, skips }
    }

    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
        self.skips.extend(other.skips);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} passed", self.passed)?;
        if !self.failures.is_empty() {
            write!(out, ", {} FAILED", self.failures.len())?;
        }
        if !self.skips.is_empty() {
            write!(out, ", {} skipped", self.skips.len())?;
        }
        Ok(())
    }
}

/// `test result: ok. 5 passed; 0 failed; 1 ignored; ...`
fn counts(line: &str) -> Option<Counts> {
    let (_, list) = line.strip_prefix(RESULT)?.split_once(". ")?;
    let count_of = |what: &str| {
        let (count, _) =
            list.split("; ").find_map(|part| part.split_once(' ').filter(|(_, name)| *name == what))?;
        count.parse().ok()
    };
    Some(Counts { passed: count_of("passed")?, failed: count_of("failed")?, ignored: count_of("ignored")? })
}

fn failed_tests(output: &str) -> impl Iterator<Item = &str> {
    output.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
}

/// Each test once, with its first reason, and only those that passed.
///
/// A test may have written the line past libtest's capture: then it stands anywhere before the sections, perhaps behind
/// `test x ... `, and names its test itself.
fn skipped_tests(name: &str, output: &str) -> Vec<Skip> {
    let failed: Vec<&str> = failed_tests(output).collect();
    let mut skips: Vec<Skip> = Vec::new();
    let mut section = None;
    for line in output.lines() {
        if let Some(test) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            section = Some(test);
        } else if line == "failures:" {
            // The output of failed tests follows that of passed ones.
            break;
        } else if let Some((said, reason)) = line.split_once(SKIP).and_then(|(_, rest)| rest.split_once(' '))
        {
            let test = section.unwrap_or(said);
            let has_failed =
                failed.iter().any(|failed| failed.rsplit("::").next() == test.rsplit("::").next());
            let test = format!("{name}::{test}");
            if !has_failed && skips.iter().all(|skip| skip.test != test) {
                skips.push(Skip { test, reason: reason.to_owned() });
            }
        }
    }
    skips
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXED: &str = "\nrunning 4 tests\n\
        test a::fine ... ok\n\
        test a::absent ... ok\n\
        test a::wrong ... FAILED\n\
        test a::wrong_too ... FAILED\n\
        \nsuccesses:\n\
        \n---- a::absent stdout ----\n\
        MEMKV-SKIP absent npm is not installed\n\
        MEMKV-SKIP absent and a second reason\n\
        test result: ok. 99 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
        \nsuccesses:\n    a::absent\n    a::fine\n\
        \nfailures:\n\
        \n---- a::wrong stdout ----\n\
        MEMKV-SKIP wrong not a skip, it failed\n\
        \nfailures:\n    a::wrong\n    a::wrong_too\n\
        \ntest result: FAILED. 2 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";

    #[test]
    fn counts_tests_by_the_last_result_line_and_names_skips_by_section() {
        let tally = Tally::of_binary("crate::unit", MIXED, false);
        assert_eq!(tally.passed, 1);
        assert_eq!(tally.failures, ["crate::unit::a::wrong", "crate::unit::a::wrong_too"]);
        let reason = "npm is not installed".to_owned();
        assert_eq!(tally.skips, [Skip { test: "crate::unit::a::absent".to_owned(), reason }]);
    }

    #[test]
    fn a_skip_written_past_the_capture_counts_once_and_only_when_its_test_passed() {
        let output = "test one ... MEMKV-SKIP one no g++\nok\nMEMKV-SKIP two no npm\nMEMKV-SKIP two no npm\n\
            test a::two ... FAILED\nMEMKV-SKIP three no valgrind here\ntest three ... ok\n\
            test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";
        let tally = Tally::of_binary("x", output, false);
        assert_eq!((tally.passed, tally.failures.len()), (0, 1));
        let tests: Vec<&str> = tally.skips.iter().map(|skip| skip.test.as_str()).collect();
        assert_eq!(tests, ["x::one", "x::three"]);
        assert_eq!(tally.skips[1].reason, "no valgrind here");
    }

    #[test]
    fn a_binary_that_died_is_a_failure() {
        let died = "running 2 tests\ntest a ... ok\n";
        assert_eq!(Tally::of_binary("x", died, false).failures.len(), 1);
        let after_the_result = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let tally = Tally::of_binary("x", after_the_result, false);
        assert_eq!((tally.passed, tally.failures.len()), (2, 1));
    }

    #[test]
    fn a_harness_of_its_own_counts_as_one_test() {
        let tally = Tally::of_binary("x", "all well\n", true);
        assert_eq!((tally.passed, tally.failures.len(), tally.skips.len()), (1, 0, 0));
        let tally = Tally::of_binary("x", "MEMKV-SKIP layout g++ is not installed\n", true);
        assert_eq!((tally.passed, tally.skips.len()), (0, 1));
    }

    #[test]
    fn ignored_tests_are_skips_and_documentation_is_summed() {
        let two = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
                   test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s\n";
        let tally = Tally::of_documentation(two, true);
        assert_eq!((tally.passed, tally.failures.len(), tally.skips.len()), (7, 0, 1));
    }
}
