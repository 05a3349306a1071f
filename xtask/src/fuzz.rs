//! `cargo xtask fuzz`: builds the fuzz targets and runs each for a while.
//!
//! libFuzzer needs no nightly compiler: the coverage it is led by comes from LLVM passes that stable flags turn on. There
//! is no AddressSanitizer; Rust's own checks, debug assertions and overflow checks are on.

mod coverage;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::shell;

/// The compiler's flags, as cargo-fuzz gives them without a sanitizer.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares";
/// An input that takes longer counts as a hang.
const INPUT_SECONDS_MAX: u32 = 20;
const MEMORY_MB_MAX: u32 = 3000;

#[derive(clap::Args)]
pub struct Options {
    /// How long each target runs.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    seconds: u64,
    /// Where chance begins, so that a machine tries the same inputs again; 0 is another place each time.
    #[arg(long, default_value_t = 0)]
    seed: u32,
    /// Run only these targets.
    #[arg(long)]
    target: Vec<String>,
    /// Add what was found to the committed corpus, as few inputs as cover the same.
    #[arg(long)]
    merge: bool,
    /// Run nothing new: tell how much of each source file the inputs reach. Needs nm and addr2line.
    #[arg(long)]
    coverage: bool,
    /// With --coverage: print the functions that no input reaches, of files whose paths begin with this.
    #[arg(long, value_name = "PATH", requires = "coverage")]
    unreached: Option<String>,
}

/// Whether no target found anything.
pub fn run(options: &Options) -> Result<bool> {
    let folder = shell::root().join("fuzz");
    let binaries = build(&folder)?;
    let targets = targets(&folder, &options.target)?;
    if options.coverage {
        coverage::print(&folder, &binaries, &targets, options.unreached.as_deref())?;
        return Ok(true);
    }
    let mut found = Vec::new();
    for target in &targets {
        let started = Instant::now();
        let passed = fuzz(&folder, &binaries, target, options)?;
        println!(
            "{target}: {}, {} s",
            if passed { "nothing found" } else { "FAILED" },
            started.elapsed().as_secs()
        );
        if !passed {
            found.push(target.clone());
        }
    }
    println!("{} targets, {} with finds {found:?}", targets.len(), found.len());
    Ok(found.is_empty())
}

/// Builds everything, and says where the binaries are.
fn build(folder: &Path) -> Result<PathBuf> {
    let host = shell::host()?;
    let mut cargo = shell::cargo();
    // With a target named, build scripts and macros are built without the flags.
    cargo.args(["build", "--release", "--bins", "--target", &host]).current_dir(folder.join("libfuzzer"));
    cargo.env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", folder.join("target"));
    shell::run(&mut cargo)?;
    Ok(folder.join("target").join(host).join("release"))
}

/// The targets that are wanted: all there are, unless some are named.
fn targets(folder: &Path, wanted: &[String]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder.join("libfuzzer/fuzz_targets"))? {
        let path = entry?.path();
        all.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
    }
    all.sort();
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        bail!("there is no target {unknown}: choose among {}", all.join(", "));
    }
    all.retain(|name| wanted.is_empty() || wanted.contains(name));
    Ok(all)
}

/// The end of a log, when something was found; otherwise how far the coverage came and how many inputs were tried.
fn tell(log: &str, passed: bool) {
    let lines: Vec<&str> = log.lines().collect();
    if !passed {
        lines[lines.len().saturating_sub(60)..].iter().for_each(|line| println!("{line}"));
    }
    let coverage = lines.iter().rfind(|line| line.contains(" cov: "));
    let executed = lines.iter().find(|line| line.contains("number_of_executed_units"));
    coverage.into_iter().chain(executed).for_each(|line| println!("    {line}"));
}

fn fuzz(folder: &Path, binaries: &Path, target: &str, options: &Options) -> Result<bool> {
    let corpus = folder.join("corpus").join(target);
    let (found, artifacts) =
        (folder.join("target/corpus").join(target), folder.join("artifacts").join(target));
    for folder in [&corpus, &found, &artifacts] {
        std::fs::create_dir_all(folder)?;
    }
    let mut command = Command::new(binaries.join(target));
    // New inputs go into the first folder.
    command.arg(&found).arg(&corpus).args([
        format!("-max_total_time={}", options.seconds),
        format!("-seed={}", options.seed),
        // Long inputs at once: sequences of operations need them.
        "-len_control=0".to_owned(),
        format!("-timeout={INPUT_SECONDS_MAX}"),
        format!("-rss_limit_mb={MEMORY_MB_MAX}"),
        format!("-artifact_prefix={}/", artifacts.display()),
        "-print_final_stats=1".to_owned(),
    ]);
    let log = artifacts.join("log");
    let file = std::fs::File::create(&log)?;
    command.stdout(file.try_clone()?).stderr(file).current_dir(folder);
    let passed = command.status().with_context(|| format!("{target} cannot be run"))?.success();
    tell(&std::fs::read_to_string(&log)?, passed);
    if passed && options.merge {
        let mut merge = Command::new(binaries.join(target));
        merge.arg("-merge=1").arg("-verbosity=0").arg(&corpus).arg(&found);
        shell::run(&mut merge)?;
    }
    Ok(passed)
}
