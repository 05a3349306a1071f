//! What a stream and frames cost over the verbs alone, and what MAC and checksum cost over transfers alone: in one process, in one run.
//!
//!     cargo build --release -p memkv-transport --example rdma
//!     tools/rdma/guest target/release/examples/rdma [--json] [--only PART-OF-A-NAME]
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
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => options.json = true,
            "--only" => options.only = arguments.next().ok_or("--only takes a part of a name")?,
            _ => return Err("usage: rdma [--json] [--only PART-OF-A-NAME]".into()),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(table::run(&options))
}
