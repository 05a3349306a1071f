//! What a stream and frames cost over the verbs alone, and what MAC and checksum cost over transfers alone: in one process, in one run.
//!
//!     cargo build --release -p memkv-transport --example rdma
//!     tools/rdma/guest target/release/examples/rdma [--json] [--only PART-OF-A-NAME] [--no-timers]
//!
//! `--no-timers` takes a runtime that never looks at the clock, which in that guest is a system call, and leaves out what is set up as connections are, under
//! a deadline.
//!
//! Both ends are in one process, on one thread where the name does not say otherwise. Everything is measured several times in turn, so that what
//! else the machine does meets all of it, and the median is told. `bare.rs` has the verbs alone, `own.rs` what is compared with them.

#[cfg(target_os = "linux")]
mod bare;
#[cfg(target_os = "linux")]
mod own;
#[cfg(target_os = "linux")]
mod table;

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("RDMA needs Linux");
}

#[cfg(target_os = "linux")]
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[cfg(target_os = "linux")]
fn main() -> Result<(), Failure> {
    let mut options = table::Options::default();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => options.json = true,
            "--only" => options.only = arguments.next().ok_or("--only takes a part of a name")?,
            "--no-timers" => {
                options.no_timers = true;
                runtime = tokio::runtime::Builder::new_current_thread();
            }
            _ => return Err("usage: rdma [--json] [--only PART-OF-A-NAME] [--no-timers]".into()),
        }
    }
    runtime.enable_io().build()?.block_on(table::run(&options))
}
