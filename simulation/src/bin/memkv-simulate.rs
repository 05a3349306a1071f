//! `cargo xtask simulate`: runs worlds, one or many.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use memkv_simulation::planted::{self, Bug, Found};
use memkv_simulation::{Failure, Report, run, run_whole};
use serde_json::json;

/// Run seeded worlds of clients, servers, faulty links and faulty disks; exit code 1 when one breaks a promise.
#[derive(Parser)]
#[command(name = "cargo xtask simulate")]
struct Cli {
    /// Run the world of this seed alone.
    #[arg(long, value_name = "SEED", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// With --seed, of a world that breaks a promise: print everything that happened, not only what matters.
    #[arg(long, requires = "seed")]
    history: bool,
    /// Run the worlds of these seeds.
    #[arg(long, value_name = "FROM..TO", value_parser = range, default_value = "0..300")]
    seeds: Range<u64>,
    /// Worlds at a time.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    jobs: usize,
    /// Plant this bug ("all": each in turn) and tell the first seed that finds it; exit code 1 when none does.
    #[arg(long, value_name = "BUG", value_parser = bugs)]
    planted: Option<Bugs>,
    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Clone)]
struct Bugs(Vec<Bug>);

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("not FROM..TO")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    Ok(number(from)?..number(to)?)
}

fn bugs(text: &str) -> Result<Bugs, String> {
    if text == "all" {
        return Ok(Bugs(Bug::ALL.to_vec()));
    }
    let names = || Bug::ALL.iter().map(|bug| bug.name()).collect::<Vec<_>>().join(", ");
    planted::named(text).map(|bug| Bugs(vec![bug])).ok_or_else(|| format!("choose among all, {}", names()))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let passed = match (&cli.planted, cli.seed) {
        (Some(Bugs(bugs)), Some(seed)) => find(bugs, seed..seed + 1, &cli),
        (Some(Bugs(bugs)), None) => find(bugs, 0..planted::SEEDS_MAX.max(cli.seeds.end), &cli),
        (None, Some(seed)) => one(seed, &cli),
        (None, None) => many(&cli),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(seed: u64, cli: &Cli) -> bool {
    let outcome = if cli.history { run_whole(seed) } else { run(seed) };
    match outcome {
        Ok(report) => {
            let told = format!("seed {seed}: {report:?}");
            println!("{}", if cli.json { json!({"seed": seed, "passed": true}).to_string() } else { told });
            true
        }
        Err(failure) => {
            tell(&failure, cli);
            false
        }
    }
}

fn tell(failure: &Failure, cli: &Cli) {
    if !cli.json {
        return println!("{failure}");
    }
    let shown = failure.shrunken.as_deref().unwrap_or(failure);
    let object = json!({
        "seed": failure.seed,
        "passed": false,
        "violation": failure.violation,
        "shrunken": {"violation": shown.violation, "history": shown.history},
    });
    println!("{object}");
}

fn many(cli: &Cli) -> bool {
    let began = Instant::now();
    let bar = bar(cli.seeds.end.saturating_sub(cli.seeds.start), cli);
    let next = AtomicU64::new(cli.seeds.start);
    let all = Mutex::new((Report::default(), 0_u64));
    let work = || {
        while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < cli.seeds.end)
        {
            let outcome = run(seed);
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(report) => all.0.add(&report),
                Err(failure) => {
                    all.1 += 1;
                    bar.suspend(|| tell(&failure, cli));
                }
            }
            bar.inc(1);
        }
    };
    std::thread::scope(|scope| (0..cli.jobs.max(1)).for_each(|_| drop(scope.spawn(work))));
    bar.finish_and_clear();
    let (report, failed) = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    let count = cli.seeds.end.saturating_sub(cli.seeds.start);
    let seconds = began.elapsed().as_secs_f64();
    if cli.json {
        let summary = json!({"worlds": count, "failed": failed, "seconds": seconds});
        println!("{summary}");
    } else {
        println!("{report:?}");
        println!("{count} worlds, {failed} failed, {:.1} a second", count as f64 / seconds);
    }
    failed == 0
}

fn find(bugs: &[Bug], seeds: Range<u64>, cli: &Cli) -> bool {
    let bar = bar(bugs.len() as u64, cli);
    let mut missed = 0;
    for bug in bugs {
        let found = planted::find(*bug, seeds.clone());
        missed += u64::from(found.is_none());
        bar.suspend(|| tell_found(*bug, found.as_ref(), cli));
        bar.inc(1);
    }
    bar.finish_and_clear();
    missed == 0
}

fn tell_found(bug: Bug, found: Option<&Found>, cli: &Cli) {
    let seed = found.map(|found| found.seed);
    let violation = found.map(|found| found.violation.as_str());
    if cli.json {
        let object = json!({"bug": bug.name(), "what": bug.what(), "seed": seed, "violation": violation});
        return println!("{object}");
    }
    let seed = seed.map_or_else(|| "none".to_owned(), |seed| seed.to_string());
    println!("{:26} {seed:>5}  {}", bug.name(), violation.unwrap_or("NOT FOUND"));
}

fn bar(count: u64, cli: &Cli) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len}, {per_sec}, {eta} left");
    let bar = if cli.json { ProgressBar::hidden() } else { ProgressBar::new(count) };
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
