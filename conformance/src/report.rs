//! What came out of a run: for people, and as JSON in the form of `schema/report.schema.json`.

use std::fmt;

use serde::Serialize;

use crate::case::Level;

/// The version of the report's form.
pub const FORMAT: u32 = 1;

#[derive(Debug, Serialize)]
pub struct Report {
    pub format: u32,
    pub suite: &'static str,
    /// The version of the suite.
    pub version: &'static str,
    pub target: String,
    pub seed: u64,
    pub run: String,
    /// A SHOULD that fails fails the run.
    pub strict: bool,
    pub cases: Vec<CaseReport>,
    pub totals: Totals,
    /// Whether the run as a whole passed.
    pub conforms: bool,
}

#[derive(Debug, Serialize)]
pub struct CaseReport {
    pub id: &'static str,
    pub level: Level,
    pub requirements: &'static [&'static str],
    pub title: &'static str,
    pub verdict: Verdict,
    /// Why it failed or was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Why it is known to fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known: Option<String>,
    /// The end of what the child wrote, when it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    pub duration_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Passed,
    Failed,
    Skipped,
    /// Failed, and is on the list.
    KnownFailure,
    /// Passed, and is on the list: the entry has to go.
    UnexpectedPass,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub passed: usize,
    pub failed_must: usize,
    pub failed_should: usize,
    pub skipped: usize,
    pub known_failures: usize,
    pub unexpected_passes: usize,
}

impl Totals {
    pub fn of(cases: &[CaseReport]) -> Totals {
        let mut totals = Totals::default();
        for case in cases {
            let count = match (case.verdict, case.level) {
                (Verdict::Passed, _) => &mut totals.passed,
                (Verdict::Failed, Level::Must) => &mut totals.failed_must,
                (Verdict::Failed, Level::Should) => &mut totals.failed_should,
                (Verdict::Skipped, _) => &mut totals.skipped,
                (Verdict::KnownFailure, _) => &mut totals.known_failures,
                (Verdict::UnexpectedPass, _) => &mut totals.unexpected_passes,
            };
            *count += 1;
        }
        totals
    }

    /// Whether every case was skipped: nobody should take that for conformance.
    pub fn nothing_tested(&self) -> bool {
        let Totals { passed, failed_must, failed_should, skipped: _, known_failures, unexpected_passes } =
            *self;
        passed + failed_must + failed_should + known_failures + unexpected_passes == 0
    }

    pub fn conforms(&self, strict: bool) -> bool {
        self.failed_must == 0 && self.unexpected_passes == 0 && (!strict || self.failed_should == 0)
    }
}

/// One case as a line or, when it failed, a few.
impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match (self.verdict, self.level) {
            (Verdict::Passed, _) => "pass",
            (Verdict::Failed, Level::Must) => "FAIL",
            (Verdict::Failed, Level::Should) => "weak",
            (Verdict::Skipped, _) => "skip",
            (Verdict::KnownFailure, _) => "known",
            (Verdict::UnexpectedPass, _) => "FIXED",
        };
        write!(f, "{word:<5} {:<14} {} ({} ms)", self.id, self.title, self.duration_ms)?;
        if let Some(message) = &self.message {
            write!(f, "\n        {} {}: {message}", self.level, self.requirements.join(", "))?;
        }
        if let Some(known) = &self.known {
            write!(f, "\n        on the list of known failures: {known}")?;
        }
        for line in self.output.iter().flat_map(|output| output.lines()) {
            write!(f, "\n      | {line}")?;
        }
        Ok(())
    }
}

/// The last lines of a run.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { passed, failed_must, failed_should, skipped, known_failures, unexpected_passes } =
            self.totals;
        writeln!(
            f,
            "{passed} passed, {failed_must} MUST failed, {failed_should} SHOULD failed, {skipped} skipped, \
             {known_failures} known failures, {unexpected_passes} unexpected passes (seed {})",
            self.seed
        )?;
        let verdict = match self.conforms {
            true if self.totals.nothing_tested() => "was not tested: every case was skipped",
            true => "conforms",
            false => "does not conform",
        };
        write!(f, "{} {verdict}", self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(verdict: Verdict, level: Level) -> CaseReport {
        CaseReport {
            id: "X-1",
            level,
            requirements: &["R-1"],
            title: "it works",
            verdict,
            message: None,
            known: None,
            output: None,
            duration_ms: 1,
        }
    }

    #[test]
    fn must_fails_a_run_and_should_only_a_strict_one() {
        let totals = |verdict, level| Totals::of(&[case(verdict, level)]);
        assert!(!totals(Verdict::Failed, Level::Must).conforms(false));
        assert!(totals(Verdict::Failed, Level::Should).conforms(false));
        assert!(!totals(Verdict::Failed, Level::Should).conforms(true));
        assert!(!totals(Verdict::UnexpectedPass, Level::Should).conforms(false));
        for verdict in [Verdict::Passed, Verdict::Skipped, Verdict::KnownFailure] {
            assert!(totals(verdict, Level::Must).conforms(true));
        }
    }
}
