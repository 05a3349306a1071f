//! A failure's history without what does not matter: events are left out as long as the world still breaks a promise.
//!
//! First large parts, then smaller ones, at last one by one.

use std::collections::BTreeSet;

/// Worlds tried, at most.
const RUNS_MAX: usize = 400;

/// Tries sets of events to leave out, of so many; `breaks` answers whether the world still breaks. Answers the largest such set found.
pub fn shrink(events: usize, mut breaks: impl FnMut(&BTreeSet<usize>) -> bool) -> BTreeSet<usize> {
    let mut left_out = BTreeSet::new();
    let mut runs = 0;
    let mut size = events.div_ceil(2).max(1);
    loop {
        let mut smaller = false;
        let there: Vec<usize> = (0..events).filter(|number| !left_out.contains(number)).collect();
        // The end first: what comes after the violation goes at once.
        for part in there.rchunks(size) {
            if runs == RUNS_MAX {
                return left_out;
            }
            runs += 1;
            let mut tried = left_out.clone();
            tried.extend(part);
            if breaks(&tried) {
                left_out = tried;
                smaller = true;
            }
        }
        if size == 1 && !smaller {
            return left_out;
        }
        size = size.div_ceil(2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_stays() {
        let matters = BTreeSet::from([3, 40, 77]);
        let left_out = shrink(100, |left_out| left_out.is_disjoint(&matters));
        assert_eq!(left_out.len(), 97);
        assert!(left_out.is_disjoint(&matters));
    }
}
