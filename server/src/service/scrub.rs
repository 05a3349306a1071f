//! The store's rereading of itself: steps that the shell takes between requests.

use super::Service;
use crate::store::{Damage, ExtentPlan, ScrubCursor};

impl Service {
    /// The next extent to be read and verified; each plan is to be ended with [`Service::scrub_done`]. `None`: all were.
    pub fn scrub_next(&mut self, cursor: &mut ScrubCursor) -> Option<ExtentPlan> {
        if self.stopping { None } else { self.store.scrub_next(cursor) }
    }

    pub fn scrub_done(&mut self, now_ms: u64, plan: &ExtentPlan, damage: &[Damage]) {
        self.now_ms = self.now_ms.max(now_ms);
        self.store.scrub_done(self.now_ms, plan, damage);
        self.settle_store();
    }
}
