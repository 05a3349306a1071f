//! Lists of cases that are known to fail, each with a reason.
//!
//! A line is a pattern over case ids, white space, and the reason; `#` begins a comment line. A known failure still
//! runs. When it passes, the run fails: the entry has to go. A pattern that matches no case of the suite is an error,
//! whatever the filter.

use std::path::{Path, PathBuf};

use crate::case::Entry;
use crate::glob;

/// The entries of one list.
#[derive(Clone, Debug, Default)]
pub struct KnownFailures(Vec<KnownFailure>);

#[derive(Clone, Debug)]
struct KnownFailure {
    pattern: String,
    reason: String,
}

#[derive(Debug, thiserror::Error)]
pub enum KnownError {
    #[error("{path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}:{line}: {pattern} has no reason")]
    NoReason { path: PathBuf, line: usize, pattern: String },
    #[error("{path}:{line}: {pattern} matches no case of the suite")]
    NoMatch { path: PathBuf, line: usize, pattern: String },
}

impl KnownFailures {
    pub fn read(path: &Path, cases: &[Entry]) -> Result<KnownFailures, KnownError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| KnownError::Read { path: path.to_owned(), source })?;
        KnownFailures::parse(path, &text, cases)
    }

    fn parse(path: &Path, text: &str, cases: &[Entry]) -> Result<KnownFailures, KnownError> {
        let mut failures = Vec::new();
        for (line, content) in (1..).zip(text.lines().map(str::trim)) {
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let (pattern, reason) = content.split_once(char::is_whitespace).unwrap_or((content, ""));
            let (path, pattern) = (path.to_owned(), pattern.to_owned());
            if reason.trim().is_empty() {
                return Err(KnownError::NoReason { path, line, pattern });
            }
            if !cases.iter().any(|case| glob::matches(&pattern, case.id)) {
                return Err(KnownError::NoMatch { path, line, pattern });
            }
            failures.push(KnownFailure { pattern, reason: reason.trim().to_owned() });
        }
        Ok(KnownFailures(failures))
    }

    /// Why this case is known to fail, if it is.
    pub fn reason(&self, id: &str) -> Option<&str> {
        self.0.iter().find(|known| glob::matches(&known.pattern, id)).map(|known| known.reason.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Level;

    const CASES: &[Entry] =
        &[Entry { id: "ABI-MAN-1", level: Level::Must, requires: &[], title: "", alone: false }];

    fn parse(text: &str) -> Result<KnownFailures, KnownError> {
        KnownFailures::parse(Path::new("list"), text, CASES)
    }

    #[test]
    fn entries_have_a_pattern_and_a_reason() {
        let known = parse("# why\n\n  ABI-MAN-*\tthe store is small\n").expect("a good list");
        assert_eq!(known.reason("ABI-MAN-7"), Some("the store is small"));
        assert_eq!(known.reason("ABI-CHUNK-1"), None);
    }

    #[test]
    fn lists_that_say_too_little_or_match_nothing_are_refused() {
        assert!(matches!(parse("\nABI-MAN-1 "), Err(KnownError::NoReason { line: 2, .. })));
        assert!(matches!(parse("ABI-MAN-2 gone"), Err(KnownError::NoMatch { line: 1, .. })));
    }
}
