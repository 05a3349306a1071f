//! `cargo xtask test`: builds and runs every test of the workspace and counts them.
//!
//! Test binaries are run one after another by ourselves, not through `cargo test`, so that one that crashes or hangs is
//! a failure with a name, and so that the count is of tests and not of lines that look like results.
//!
//! A test that cannot run here prints a line `MEMKV-SKIP <name> <reason>` on stdout and returns. It then counts as
//! skipped, not as passed. A test that prints the line and fails is failed.
//!
//! Tests that need an RDMA device have `rdma` in their names and skip where there is none. `--rdma` runs them alone, in guests of
//! `tools/rdma`, where none may skip for that.

mod rdma;
mod sanitized;
mod tally;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use self::tally::Tally;
use crate::shell;

const POLL: Duration = Duration::from_millis(20);

#[derive(clap::Args)]
pub struct Options {
    /// Run only tests whose names contain this.
    filter: Option<String>,
    /// Test only these packages, without the documentation's examples.
    #[arg(short, long)]
    package: Vec<String>,
    /// Build with optimisations.
    #[arg(long)]
    release: bool,
    /// Print every test's output, not only that of failed ones.
    #[arg(short, long)]
    verbose: bool,
    /// Run the tests that need an RDMA device, and no others, in a guest that has one: see tools/rdma/README.md.
    #[arg(long, conflicts_with_all = ["filter", "package"])]
    rdma: bool,
    /// Run the tests of what is `unsafe` under AddressSanitizer, and no others.
    #[arg(long, conflicts_with_all = ["package", "release", "rdma"])]
    sanitize: bool,
    /// End a test binary that runs longer than this; it counts as failed.
    #[arg(long, value_name = "SECONDS", default_value_t = 1200)]
    timeout_s: u64,
}

/// One executable with tests in it, as cargo built it.
struct Binary {
    /// The package's name and the target's: `memkv-client::reconnect`.
    name: String,
    package: String,
    executable: PathBuf,
    package_root: PathBuf,
}

/// What came out of one run.
struct Ended {
    status: Option<ExitStatus>,
    output: String,
    elapsed: Duration,
}

/// Whether no test failed.
pub fn run(options: &Options) -> Result<bool> {
    if options.rdma {
        return rdma::run(options);
    }
    if options.sanitize {
        return sanitized::run(options);
    }
    let mut total = Tally::default();
    // Tests of one package run the programs and libraries of others.
    shell::run(shell::cargo().arg("build").args(selection(&[], options.release)?))?;
    let selection = selection(&options.package, options.release)?;
    for binary in build(&selection)? {
        total.add(run_binary(&binary, options)?);
    }
    if options.package.is_empty() {
        total.add(run_documentation(&selection, options)?);
        for (feature, package, targets) in shell::FEATURES_APART {
            total.add(run_apart(feature, package, targets, options)?);
        }
    }
    Ok(conclude(&total))
}

/// Tells what came out; whether no test failed.
fn conclude(total: &Tally) -> bool {
    for failure in &total.failures {
        println!("failed: {failure}");
    }
    for skip in &total.skips {
        println!("skipped: {}: {}", skip.test, skip.reason);
    }
    println!("{} passed, {} failed, {} skipped", total.passed, total.failures.len(), total.skips.len());
    total.failures.is_empty()
}

/// What cargo is told about packages (none: all of them), features and the profile.
fn selection(packages: &[String], release: bool) -> Result<Vec<String>> {
    let mut arguments = vec!["--features".to_owned(), shell::features(packages)?];
    if packages.is_empty() {
        arguments.push("--workspace".to_owned());
    }
    for package in packages {
        arguments.extend(["--package".to_owned(), package.clone()]);
    }
    if release {
        arguments.push("--release".to_owned());
    }
    Ok(arguments)
}

/// Builds tests, and says which executables hold them.
fn build(arguments: &[String]) -> Result<Vec<Binary>> {
    build_by(shell::cargo(), arguments)
}

fn build_by(mut cargo: Command, arguments: &[String]) -> Result<Vec<Binary>> {
    cargo.args(["test", "--no-run", "--message-format=json-render-diagnostics"]).args(arguments);
    let mut binaries = Vec::new();
    for line in shell::output(&mut cargo)?.lines() {
        let message: Value = serde_json::from_str(line).context("cargo wrote a message that is not JSON")?;
        binaries.extend(test_binary(&message));
    }
    binaries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(binaries)
}

/// The executable that a message of cargo's tells of, if it is one with tests.
fn test_binary(message: &Value) -> Option<Binary> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let executable = PathBuf::from(message["executable"].as_str()?);
    let package_root = Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    let package = package_name(message["package_id"].as_str()?);
    let target = message["target"]["name"].as_str()?;
    Some(Binary { name: format!("{package}::{target}"), package, executable, package_root })
}

/// `path+file:///x/client#memkv-client@0.1.0` and `path+file:///x/xtask#0.0.0` name their packages differently.
fn package_name(id: &str) -> String {
    let (path, fragment) = id.split_once('#').unwrap_or((id, ""));
    match fragment.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => path.rsplit('/').next().unwrap_or(path).to_owned(),
    }
}

fn run_binary(binary: &Binary, options: &Options) -> Result<Tally> {
    let mut command = Command::new(&binary.executable);
    surround(&mut command, binary);
    command.args(&options.filter).arg("--show-output");
    let ended = announced(&binary.name, command, options)?;
    Ok(report(Tally::of_binary(&binary.name, &ended.output, succeeded(&ended)), &ended, options))
}

/// Puts a test where cargo would.
fn surround(command: &mut Command, binary: &Binary) {
    command.current_dir(&binary.package_root);
    // What cargo sets for a test, where it differs from what it set for us.
    command.env("CARGO_MANIFEST_DIR", &binary.package_root).env("CARGO_PKG_NAME", &binary.package);
    // What was built before the tests: without this, tests that need a program of another package build it themselves.
    if let Some(programs) = binary.executable.ancestors().nth(2) {
        command.env("MEMKV_BIN_DIR", programs);
    }
}

/// The documentation's examples: only cargo can run them.
fn run_documentation(arguments: &[String], options: &Options) -> Result<Tally> {
    let mut command = shell::cargo();
    command.args(["test", "--quiet", "--doc", "--no-fail-fast"]).args(arguments);
    command.arg("--").args(&options.filter).arg("--show-output");
    let ended = announced("documentation", command, options)?;
    Ok(report(Tally::of_documentation(&ended.output, succeeded(&ended)), &ended, options))
}

/// Tests with a feature that puts another implementation in the place of the one that ships.
fn run_apart(feature: &str, package: &str, targets: &[&str], options: &Options) -> Result<Tally> {
    let mut arguments = ["--package", package, "--features", feature].map(str::to_owned).to_vec();
    arguments.extend(targets.iter().flat_map(|target| ["--test", target]).map(str::to_owned));
    let mut total = Tally::default();
    for mut binary in build(&arguments)? {
        binary.name = format!("{} ({feature})", binary.name);
        total.add(run_binary(&binary, options)?);
    }
    Ok(total)
}

/// Runs to the end, or to the time limit, with both outputs in one file: no pipe that could fill up.
fn watch(mut command: Command, options: &Options) -> Result<Ended> {
    let started = Instant::now();
    let file = tempfile::NamedTempFile::new()?;
    let output = File::options().append(true).open(file.path())?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
    let status = wait(&mut child, started + Duration::from_secs(options.timeout_s))?;
    let output = String::from_utf8_lossy(&std::fs::read(file.path())?).into_owned();
    Ok(Ended { status, output, elapsed: started.elapsed() })
}

/// `None` when the deadline came first; the child is dead either way.
fn wait(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// Names what runs before it runs, so that a slow one is seen to be slow.
fn announced(name: &str, command: Command, options: &Options) -> Result<Ended> {
    print!("{name} ... ");
    std::io::stdout().flush()?;
    watch(command, options)
}

fn succeeded(ended: &Ended) -> bool {
    ended.status.is_some_and(|status| status.success())
}

fn report(tally: Tally, ended: &Ended, options: &Options) -> Tally {
    println!("{tally} ({:.1} s)", ended.elapsed.as_secs_f64());
    if ended.status.is_none() {
        println!("ended after {} s, its time limit", options.timeout_s);
    }
    if options.verbose || !tally.failures.is_empty() {
        println!("{}", ended.output);
    }
    tally
}
