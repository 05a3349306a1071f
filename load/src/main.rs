//! `memkv bench`: measures a server as its users meet it, through the client and through the plugin.
//!
//! Owns no figure: everything it prints was measured in this run. It knows the server only as a program to start and an address to
//! connect to. `memkv bench` runs it; so can you, as `memkv-bench`.

#![forbid(unsafe_code)]

mod chart;
mod cpu;
mod noise;
mod output;
mod report;
mod server;
mod session;
mod size;
mod state;
mod trace;
mod values;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measure a MemKV server: throughput, latency, processor time.
///
/// Without a subcommand: values of several sizes, written and read, one by one and in batches, over TCP and over shared memory.
/// With nothing said it starts a server of its own, in memory, on a free port, for the time of the measurement.
///
/// Every byte is authenticated and checked on the way, as always. Machines are noisy: compare figures of one run, and give
/// each more time (--seconds) before you believe a small difference. Server and client share this machine's
/// processors unless the server is elsewhere.
#[derive(Parser)]
#[command(
    name = "memkv bench",
    bin_name = "memkv bench",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "Exit code: 0 measured, 1 it could not be, 2 the command line is wrong.",
    after_long_help = EXAMPLES
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    values: values::Options,
}

#[derive(Subcommand)]
enum Command {
    /// Save and restore a session through the plugin, beside the same bytes as a local file.
    Session(session::Options),
    /// Replay a trace of an inference service: blocks that are read if they are stored, and written if not.
    Trace(trace::Options),
}

const EXAMPLES: &str = "\
What the columns say:
  GB/s              10^9 bytes of values a second
  op/s              operations a second; a batched one has many values
  p50 .. p99.9 us   latency of an operation as its caller sees it, with `depth` of them under way
  CPU s/GB          seconds of processor time for 10^9 bytes: of this process, and of a server on this host

Examples:
  memkv bench
  memkv bench --sizes 1MiB --operations read --connections 1,2,4,8 --svg connections.svg
  memkv bench --depth 1 --sizes 4KiB                 round trips, not throughput
  memkv bench --mode file --directory /mnt/nvme      with a drive behind it
  memkv bench --transports tcp,rdma                  with an RDMA device; MEMKV_RDMA_DEVICES and the like as for any client
  memkv bench session --tokens 256,4096
  memkv bench trace conversations.jsonl
  MEMKV_AUTH_KEY=... memkv bench --uri memkv://10.0.0.7:9900/bench --transports tcp --json

Exit code: 0 measured, 1 it could not be, 2 the command line is wrong.";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Some(Command::Session(options)) => session::run(options),
        Some(Command::Trace(options)) => trace::run(options),
        None => values::run(&cli.values),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memkv-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
