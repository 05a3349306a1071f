//! What was measured: lines of a table, for people, scripts and the documentation.

use std::fmt::Write;

use serde::Serialize;

/// One figure, with what it is compared to.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    pub what: String,
    /// Ours, in `unit`.
    pub ours: f64,
    pub peer: Option<Peer>,
    pub unit: &'static str,
    /// What counts: a ratio, a difference, or the figure itself.
    pub figure: f64,
    pub goal: Option<Goal>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Peer {
    pub name: &'static str,
    pub value: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn met(self, figure: f64) -> bool {
        match self {
            Goal::AtLeast(least) => figure >= least,
            Goal::AtMost(most) => figure <= most,
        }
    }
}

impl Line {
    /// A figure by itself.
    pub fn plain(what: impl Into<String>, ours: f64, unit: &'static str, goal: Option<Goal>) -> Line {
        Line { what: what.into(), ours, peer: None, unit, figure: ours, goal }
    }

    /// Rounds of (ours, the peer's): medians of both, and of the rounds' ratios.
    pub fn ratio(
        what: impl Into<String>,
        rounds: &[(f64, f64)],
        unit: &'static str,
        peer: &'static str,
        goal: Option<Goal>,
    ) -> Line {
        let figure = median(rounds.iter().map(|(ours, peer)| ours / peer));
        Line {
            what: what.into(),
            ours: median(rounds.iter().map(|round| round.0)),
            peer: Some(Peer { name: peer, value: median(rounds.iter().map(|round| round.1)) }),
            unit,
            figure,
            goal,
        }
    }

    pub fn met(&self) -> bool {
        self.goal.is_none_or(|goal| goal.met(self.figure))
    }

    fn row(&self) -> String {
        let peer =
            self.peer.as_ref().map_or(String::new(), |peer| format!("{} {:.3}", peer.name, peer.value));
        let goal = match self.goal {
            None => String::new(),
            Some(Goal::AtLeast(least)) => format!(">= {}", rounded(least)),
            Some(Goal::AtMost(most)) => format!("<= {}", rounded(most)),
        };
        let met = match (self.goal, self.met()) {
            (None, _) => "",
            (_, true) => "yes",
            (_, false) => "NO",
        };
        format!(
            "| {} | {:.3} {} | {peer} | {:.3} | {goal} | {met} |",
            self.what, self.ours, self.unit, self.figure
        )
    }
}

/// To two digits behind the point, where it has as many.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

/// A Markdown table.
pub fn table(lines: &[Line]) -> String {
    let mut text =
        String::from("| what | MemKV | beside it | figure | goal | met |\n|---|---|---|---|---|---|\n");
    for line in lines {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", line.row());
    }
    text
}
