//! The store by itself: bulk rates, group commit, the catalogue's cost, restarts, and how it spends its space.

mod catalogue;
mod commit;
mod driver;
mod files;
mod fio;
mod hybrid;
mod throughput;
mod trace;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};

use crate::report::{self, Line};

#[derive(Args)]
pub struct Options {
    /// Where files are made and removed again: a directory on the drive to be measured, with 24 GiB free.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp/memkv-bench")]
    dir: PathBuf,
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,..")]
    only: Vec<Part>,
    /// A trace of block hashes: a JSON object a line, with a list `hash_ids` (the Mooncake conversation trace is one).
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Rounds of everything that is compared; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Bytes moved in each pass, in MiB.
    #[arg(long, default_value_t = 1024)]
    pass_mib: u64,
    /// Values of the largest catalogue.
    #[arg(long, default_value_t = 10_000_000)]
    values: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Throughput,
    Peers,
    Commit,
    Catalogue,
    Trace,
}

/// What the bench runs as a process of its own, to kill it.
#[derive(Subcommand)]
pub enum Child {
    /// Fill a store, say so, and wait to be killed.
    #[command(hide = true)]
    Fill { directory: PathBuf, values: u64 },
    /// Open a store, say how long it took, and close it in good order.
    #[command(hide = true)]
    Open { directory: PathBuf, values: u64 },
}

/// Whether every goal was met.
pub fn run(options: &Options) -> Result<bool> {
    std::fs::create_dir_all(&options.dir)
        .with_context(|| format!("cannot make {}; choose another with --dir", options.dir.display()))?;
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let mut lines: Vec<Line> = Vec::new();
    if wanted(Part::Throughput) {
        eprintln!("bulk rates ...");
        lines.extend(throughput::measure(&options.dir, options.rounds, options.pass_mib << 20)?);
    }
    if wanted(Part::Peers) {
        eprintln!("files and foyer ...");
        lines.extend(throughput::measure_peers(&options.dir, options.rounds, options.pass_mib << 19)?);
    }
    if wanted(Part::Commit) {
        eprintln!("group commit ...");
        lines.extend(commit::measure(&options.dir, options.rounds, 1000)?);
    }
    if wanted(Part::Catalogue) {
        eprintln!("the catalogue of {} values ...", options.values);
        lines.extend(catalogue::measure(&options.dir, options.values)?);
    }
    match &options.trace {
        Some(file) if wanted(Part::Trace) => {
            eprintln!("the trace ...");
            lines.extend(trace::measure(file)?);
        }
        None if options.only.contains(&Part::Trace) => anyhow::bail!("give the trace with --trace FILE"),
        Some(_) | None => {}
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&lines)?);
    } else {
        print!("{}", report::table(&lines));
    }
    Ok(lines.iter().all(Line::met))
}

pub fn run_child(child: Child) -> Result<()> {
    match child {
        Child::Fill { directory, values } => catalogue::fill(&directory, values),
        Child::Open { directory, values } => catalogue::open(&directory, values),
    }
}
