//! What a specification must not be. Every problem names the file and the field.

use std::fmt;

use crate::model::{Model, Place};

/// One rule broken in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    pub rule: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.rule)
    }
}

pub fn problems(_model: &Model) -> Vec<Problem> {
    Vec::new()
}
