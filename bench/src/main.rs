//! Measures MemKV beside its peers and beside what the machine can do at all.
//!
//! Machines are noisy, so nothing here is a figure by itself: what is compared runs in turn, round after round, and the
//! median of the rounds' ratios is what counts.
#![forbid(unsafe_code)]

mod peers;
mod report;
mod store;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "memkv-peers", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The store by itself, beside fio, files and foyer.
    Store(store::Options),
    /// A server and its client, beside redis, memcached, Mooncake Store, iperf3, and a bare loop over the same sockets or memory.
    Peers(peers::Options),
    #[command(flatten)]
    Part(peers::Part),
    #[command(flatten)]
    Child(store::Child),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Store(options) => store::run(&options),
        Command::Peers(options) => peers::run(&options),
        Command::Part(part) => peers::run_part(&part).map(|()| true),
        Command::Child(child) => store::run_child(child).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        // Measured, and a goal was missed.
        Ok(false) => ExitCode::from(3),
        Err(error) => {
            eprintln!("memkv-peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}
