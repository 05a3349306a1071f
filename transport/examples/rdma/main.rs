//! What a stream and frames cost over the verbs alone, and what MAC and checksum cost over transfers alone, in one run.
//!
//!     cargo build --release -p memkv-transport --example rdma
//!     tools/rdma/guest target/release/examples/rdma [--json] [--only PART-OF-A-NAME] [--no-timers]
//!
//! `--no-timers` takes a runtime without timers, which looks at the clock, in that guest a system call, twice for each wait and not three times; and leaves out what
//! is set up as connections are, under a deadline.
//!
//! Both ends are in one process, on one thread, where the name does not say otherwise. Everything is measured several times in turn, so that what
//! else the machine does meets all of it, and the median is told. `bare.rs` has the verbs alone, `own.rs` what is compared with them,
//! `apart.rs` both between two processes.

#[cfg(target_os = "linux")]
mod apart;
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
use memkv_transport::rdma::{Device, Selection};

#[cfg(target_os = "linux")]
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[cfg(target_os = "linux")]
fn main() -> Result<(), Failure> {
    let mut options = table::Options::default();
    let mut other_end = None;
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
            "--other-end" => {
                let named = arguments.next().and_then(|name| apart::OtherEnd::named(&name));
                other_end = Some(named.ok_or("--other-end takes verbs or frames")?);
            }
            _ => return Err("usage: rdma [--json] [--only PART-OF-A-NAME] [--no-timers]".into()),
        }
    }
    let device = Device::open(&Selection::default())?;
    let runtime = runtime.enable_io().build()?;
    match other_end {
        Some(end) => runtime.block_on(end.run(&device)),
        None => runtime.block_on(table::run(&device, &options)),
    }
}
