//! The plans of reads under way, in memory that is used again: who carries a read out shares its plan with the service.

use std::sync::Arc;

use crate::store::ReadPlan;

/// Memory that is kept for plans to come: as much as many reads under way at once need.
const SPARE_MAX: usize = 64;

#[derive(Default)]
pub(super) struct Plans {
    spare: Vec<Arc<ReadPlan>>,
}

impl Plans {
    pub fn share(&mut self, plan: ReadPlan) -> Arc<ReadPlan> {
        let Some(mut spare) = self.spare.pop() else { return Arc::new(plan) };
        match Arc::get_mut(&mut spare) {
            Some(place) => {
                *place = plan;
                spare
            }
            None => Arc::new(plan),
        }
    }

    /// Takes back a plan that nobody else has any more.
    pub fn take_back(&mut self, mut plan: Arc<ReadPlan>) {
        if self.spare.len() < SPARE_MAX && Arc::get_mut(&mut plan).is_some() {
            self.spare.push(plan);
        }
    }
}
