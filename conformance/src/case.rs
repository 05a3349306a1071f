//! What a case is, and what may come out of it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How binding a case's requirements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    Must,
    Should,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Level::Must => "MUST",
            Level::Should => "SHOULD",
        })
    }
}

/// One case of a suite whose cases run over a context `C`.
pub struct Case<C: 'static> {
    /// Stable: never given to another case, also after this one is gone.
    pub id: &'static str,
    pub level: Level,
    /// What it tests, by requirement number.
    pub requires: &'static [&'static str],
    /// A sentence that is true of a conforming peer.
    pub title: &'static str,
    /// Disturbs other cases (restarts the service, measures the process), so it runs alone.
    pub alone: bool,
    pub run: fn(&C) -> Outcome,
}

/// A case without what it does: all that lists and reports need.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub id: &'static str,
    pub level: Level,
    pub requires: &'static [&'static str],
    pub title: &'static str,
    pub alone: bool,
}

impl<C> Case<C> {
    pub const fn must(
        id: &'static str,
        requires: &'static [&'static str],
        title: &'static str,
        run: fn(&C) -> Outcome,
    ) -> Case<C> {
        Case { id, level: Level::Must, requires, title, alone: false, run }
    }

    pub const fn should(
        id: &'static str,
        requires: &'static [&'static str],
        title: &'static str,
        run: fn(&C) -> Outcome,
    ) -> Case<C> {
        Case { id, level: Level::Should, requires, title, alone: false, run }
    }

    /// The same case, run while no other one runs.
    pub const fn alone(self) -> Case<C> {
        Case { alone: true, ..self }
    }

    pub fn entry(&self) -> Entry {
        Entry {
            id: self.id,
            level: self.level,
            requires: self.requires,
            title: self.title,
            alone: self.alone,
        }
    }
}

/// Why a case ended before its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stop {
    /// The peer did not do what it owes.
    Failed(String),
    /// The case does not apply here, and why.
    Skipped(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Failed(why) => write!(f, "failed: {why}"),
            Stop::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }
}

pub type Outcome<T = ()> = Result<T, Stop>;

/// Ends the case as failed, with a formatted sentence, unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::case::Stop::Failed(format!($($message)+)));
        }
    };
}

/// Ends the case as failed, with a formatted sentence.
#[macro_export]
macro_rules! fail {
    ($($message:tt)+) => {
        return Err($crate::case::Stop::Failed(format!($($message)+)))
    };
}

/// Ends the case as not applicable, with a formatted reason.
#[macro_export]
macro_rules! skip {
    ($($message:tt)+) => {
        return Err($crate::case::Stop::Skipped(format!($($message)+)))
    };
}
