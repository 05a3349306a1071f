//! The project's own commands, run as `cargo xtask COMMAND`.
//!
//! Each works in a fresh clone on a machine with Rust alone; what more a command can use, it says in its help.
#![forbid(unsafe_code)]

mod bench;
mod demo;
mod fuzz;
mod generate;
mod licences;
mod shell;
mod simulate;
mod tests;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every test; end with one line, `N passed, N failed, N skipped`.
    ///
    /// Builds the workspace with all features, runs each test binary and the documentation's examples, and lists what
    /// was skipped with the reason. Tests that need more than Rust (python3 with xxhash, g++, valgrind, npm, capnp)
    /// skip themselves where it is missing; `.ci/run` installs all of it.
    Test(tests::Options),
    /// Save and restore a session through the built plugin and a real server; print the figures.
    ///
    /// Builds the server, the plugin and an example engine, starts the server on a temporary directory and a free port,
    /// and runs the engine: a cold save, a warm one, a second session that shares half of the first, and restores. Beside
    /// them, the same bytes as one local file.
    Demo(demo::Options),
    /// Run every fuzz target for a while.
    ///
    /// Builds fuzz/ with coverage (needs a C++ compiler, no nightly Rust), and gives each target the committed corpus to
    /// begin with. An input that fails is left in fuzz/artifacts/TARGET; `cargo test -p memkv-fuzz` replays it once it
    /// is moved to fuzz/corpus/TARGET.
    Fuzz(fuzz::Options),
    /// Measure beside peers and beside what the machine can do: `cargo xtask bench store`, `cargo xtask bench peers`.
    ///
    /// The store by itself: bulk rates beside fio, files and foyer, group commit, the catalogue's cost and restarts, and (with
    /// --trace) how it spends its space. Needs fio, io_uring and 24 GiB of disk; ends with exit code 1 when a goal was missed.
    ///
    /// Peers: a server and its client beside redis, memcached, Mooncake Store, iperf3 and bare loops over sockets and memory, and
    /// sessions beside files; what is not installed is left out. `--help` behind the name tells all options.
    Bench(bench::Options),
    /// Run seeded worlds of clients, servers, faulty links and faulty disks.
    ///
    /// `--seed S` repeats one (with --history a failure is told in whole), `--seeds A..B` runs many, `--planted all` shows which seed finds
    /// which planted bug. A world that breaks a promise is told with its seed and the shortest history found that still breaks
    /// one. `--help` tells the rest.
    Simulate(simulate::Options),
    /// Write anew what is generated from schema/ and committed.
    ///
    /// That is the CodeGeneratorRequest (needs the `capnp` tool, Debian: capnproto), the golden copy of the generated code and
    /// docs/reference/. The tests fail on any of them that is stale.
    Gen,
    /// Check that every dependency's licence is one that deny.toml allows.
    ///
    /// Reads what `cargo metadata` says of the locked dependencies. Advisories are not checked: that needs the
    /// RustSec database, see deny.toml.
    Licences,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Test(options) => tests::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Gen => generate::run(),
        Command::Simulate(options) => simulate::run(&options),
        Command::Licences => licences::run(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
