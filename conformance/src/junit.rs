//! The report as JUnit XML, for CI systems that show tests.

use std::fmt::Write as _;

use crate::report::{CaseReport, Report, Verdict};

/// The whole document.
pub fn document(report: &Report) -> String {
    let counts = |verdict: fn(&CaseReport, bool) -> bool| {
        report.cases.iter().filter(|case| verdict(case, report.strict)).count()
    };
    let duration_ms: u64 = report.cases.iter().map(|case| case.duration_ms).sum();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        xml,
        "<testsuite name=\"memkv-conformance {}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\" time=\"{}\">",
        report.suite,
        report.cases.len(),
        counts(fails),
        counts(|case, strict| !fails(case, strict) && case.verdict != Verdict::Passed),
        seconds(duration_ms),
    );
    for case in &report.cases {
        element(&mut xml, case, report);
    }
    xml.push_str("</testsuite>\n");
    xml
}

fn element(xml: &mut String, case: &CaseReport, report: &Report) {
    let _ = write!(
        xml,
        "  <testcase classname=\"{}.{}\" name=\"{} {}\" time=\"{}\">",
        report.suite,
        case.level,
        case.id,
        escaped(case.title),
        seconds(case.duration_ms),
    );
    let message = [case.message.as_deref(), case.known.as_deref()].into_iter().flatten();
    let message = escaped(&message.collect::<Vec<_>>().join("; "));
    let output = escaped(case.output.as_deref().unwrap_or_default());
    if fails(case, report.strict) {
        let why = if case.verdict == Verdict::UnexpectedPass { "passes, but is listed: " } else { "" };
        let _ = write!(xml, "<failure message=\"{why}{message}\">{output}</failure>");
    } else if case.verdict != Verdict::Passed {
        let _ = write!(xml, "<skipped message=\"{message}\"/>");
    }
    xml.push_str("</testcase>\n");
}

fn fails(case: &CaseReport, strict: bool) -> bool {
    match case.verdict {
        Verdict::Failed => strict || case.level == crate::case::Level::Must,
        Verdict::UnexpectedPass => true,
        Verdict::Passed | Verdict::Skipped | Verdict::KnownFailure => false,
    }
}

fn seconds(duration_ms: u64) -> String {
    format!("{}.{:03}", duration_ms / 1000, duration_ms % 1000)
}

/// XML 1.0 has no way at all to write most control characters.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' => safe.push_str("&#10;"),
            '\t' => safe.push('\t'),
            '\u{0}'..='\u{1f}' | '\u{7f}' | '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_message_can_break_the_document() {
        assert_eq!(escaped("a<b>&\"c\"\u{0}\u{1b}\n"), "a&lt;b&gt;&amp;&quot;c&quot;\u{fffd}\u{fffd}&#10;");
    }
}
