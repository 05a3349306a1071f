//! The simulated world, its choices made by the input: the work, the faults of links and disks, crashes.
//!
//! The store and the service are held against the simulation's model in every step.

pub fn run(data: &[u8]) {
    if let Err(failure) = memkv_simulation::run_choices(data) {
        panic!("{failure}");
    }
}
