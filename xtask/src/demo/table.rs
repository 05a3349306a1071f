//! The figures, for people and for programs.

use std::fmt::Write as _;

use anyhow::Result;

/// One step's medians. The counts are `None` for steps that do not go through the store.
pub struct Row {
    pub name: &'static str,
    pub seconds: f64,
    pub bytes: u64,
    pub chunks: u64,
    pub wire_bytes: Option<i64>,
    pub requests: Option<i64>,
    pub chunks_stored: Option<i64>,
}

const OPEN: &str = "open the store";

impl Row {
    /// Without what opening the store costs every step alike: the connections, and the question for the counters.
    fn net(&self, open: &Row) -> [Option<i64>; 2] {
        let less =
            |mine: Option<i64>, theirs: Option<i64>| mine.zip(theirs).map(|(mine, theirs)| mine - theirs);
        if self.name == OPEN {
            return [self.wire_bytes, self.requests];
        }
        [less(self.wire_bytes, open.wire_bytes), less(self.requests, open.requests)]
    }
}

pub fn text(rows: &[Row], rounds: u32) -> String {
    let mut out = String::new();
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    if let Some(row) = rows.get(1) {
        let _ = writeln!(
            out,
            "\nOne session: {} chunks and a manifest, {} bytes. Medians of {rounds} rounds.\n",
            row.chunks,
            grouped(row.bytes as i64)
        );
    }
    let _ = writeln!(
        out,
        "{:width$} {:>10} {:>16} {:>12} {:>14}",
        "", "time", "bytes on wire", "round trips", "chunks stored"
    );
    for row in rows {
        let [wire_bytes, requests] = row.net(&rows[0]);
        let cell = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), grouped);
        let _ = writeln!(
            out,
            "{:width$} {:>7.2} ms {:>16} {:>12} {:>14}",
            row.name,
            row.seconds * 1e3,
            cell(wire_bytes),
            cell(requests),
            cell(row.chunks_stored),
        );
    }
    let _ = write!(
        out,
        "\nEvery byte restored was compared. A save is durable when it returns, like a file after fdatasync. Bytes and\n\
         requests are the server's counts, both directions; no request was sent before the one before it was\n\
         answered, so each is a round trip. Opening the store is not part of the other rows."
    );
    out
}

/// With the digits in groups of three.
fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut out = if value < 0 { "-".to_owned() } else { String::new() };
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

pub fn json(rows: &[Row]) -> Result<String> {
    let rows: Vec<serde_json::Value> = rows
        .iter()
        .map(|row| {
            let [wire_bytes, requests] = row.net(&rows[0]);
            serde_json::json!({
                "step": row.name,
                "seconds": row.seconds,
                "bytes": row.bytes,
                "chunks": row.chunks,
                "wire_bytes": wire_bytes,
                "round_trips": requests,
                "chunks_stored": row.chunks_stored,
            })
        })
        .collect();
    Ok(serde_json::to_string_pretty(&rows)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_come_in_groups() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (-1234567, "-1,234,567"), (100_000, "100,000")];
        for (value, text) in cases {
            assert_eq!(grouped(value), text);
        }
    }

    #[test]
    fn a_step_is_shown_without_what_opening_costs() {
        let row = |name, wire_bytes, requests| Row {
            name,
            seconds: 0.001,
            bytes: 10,
            chunks: 1,
            wire_bytes,
            requests,
            chunks_stored: None,
        };
        let rows = [row(OPEN, Some(700), Some(2)), row("save", Some(1700), Some(3)), row("file", None, None)];
        assert_eq!(rows[0].net(&rows[0]), [Some(700), Some(2)]);
        assert_eq!(rows[1].net(&rows[0]), [Some(1000), Some(1)]);
        assert_eq!(rows[2].net(&rows[0]), [None, None]);
    }
}
