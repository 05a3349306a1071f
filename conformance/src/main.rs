//! `memkv-conformance`: the command line.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use memkv_conformance::case::Entry;
use memkv_conformance::known::{KnownError, KnownFailures};
use memkv_conformance::reference::{Behaviour, Flaw, Quirk, Reference};
use memkv_conformance::report::Report;
use memkv_conformance::ticket::{AbiTarget, Target, WireClientTarget, WireServerTarget};
use memkv_conformance::{abi, child, glob, junit, reference_client, runner, wire_client, wire_server};
use memkv_wire::mac::Key;

/// Conformance suites for kv_store_v1 backends, MemKV servers and MemKV clients.
///
/// Ends with 0 when the peer conforms, with 1 when it does not, and with 2 when the suite could not be run.
#[derive(Parser)]
#[command(name = "memkv-conformance", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Test a backend: a library that exports the kv_store_v1 table.
    ///
    /// Stores under names of its own and deletes nothing else; give it a store you can spare all the same.
    Abi(Box<AbiArguments>),
    /// Test a server: whatever speaks the MemKV protocol at ADDRESS.
    ///
    /// The shared key is taken from MEMKV_AUTH_KEY, 64 hexadecimal digits. Writes into namespaces of its own.
    WireServer(Box<WireServerArguments>),
    /// Test a client: a command that does what it is told, line by line, and speaks the protocol to a server.
    ///
    /// The server is the reference server, started for every case anew, and as wrong as the case wants it. What the
    /// command is told and answers is in conformance/wire_client.md.
    WireClient(Box<WireClientArguments>),
    /// Run the reference client: a driver for the client suite, right or with one flaw.
    ReferenceClient(ReferenceClientArguments),
    /// Run the reference server: everything in memory, on one address, right or with one flaw.
    ///
    /// The shared key is taken from MEMKV_AUTH_KEY. Prints `listening on HOST:PORT`. Not for production.
    Reference(ReferenceArguments),
    /// One case, started by the suite itself.
    #[command(name = child::ARGUMENT, hide = true)]
    Child,
}

#[derive(Args)]
struct AbiArguments {
    /// The library, such as ./libkv_store_dir.so.
    #[arg(required_unless_present = "list")]
    library: Option<PathBuf>,
    /// A store it serves, such as dir:///tmp/store.
    #[arg(required_unless_present = "list")]
    uri: Option<String>,
    /// Another namespace, which must share nothing with URI.
    #[arg(long, value_name = "URI")]
    other_uri: Option<String>,
    /// Restarts the service behind the store, and returns when it is up again. Run by sh.
    #[arg(long, value_name = "COMMAND")]
    restart_command: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct WireServerArguments {
    /// Where the server listens: host:port.
    #[arg(required_unless_present = "list")]
    address: Option<String>,
    /// Restarts the server, and returns when it is up again. Run by sh.
    #[arg(long, value_name = "COMMAND")]
    restart_command: Option<String>,
    /// Ask for a queue pair on every connection, on this host's first RDMA device that can be used (Linux).
    #[arg(long)]
    rdma: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct WireClientArguments {
    /// Runs the client's driver. Run by sh, many times over, with what it needs in its environment.
    #[arg(required_unless_present = "list")]
    command: Option<String>,
    /// Give the client queue pairs, for which it has to ask, on this host's first RDMA device that can be used (Linux).
    #[arg(long)]
    rdma: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct ReferenceClientArguments {
    /// Make this one mistake.
    #[arg(long, value_name = "FLAW")]
    flaw: Option<String>,
    /// List the flaws.
    #[arg(long)]
    list_flaws: bool,
}

#[derive(Args)]
struct ReferenceArguments {
    /// Where to listen; port 0 lets the system choose.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    listen: String,
    /// Make this one mistake.
    #[arg(long, value_name = "FLAW")]
    flaw: Option<String>,
    /// Have this one unusual habit, which is allowed.
    #[arg(long, value_name = "QUIRK")]
    quirk: Option<String>,
    /// List the flaws.
    #[arg(long)]
    list_flaws: bool,
    /// List the quirks.
    #[arg(long)]
    list_quirks: bool,
}

#[derive(Args)]
struct Common {
    /// Run only cases whose ids match this pattern of * and ?. May be given more than once.
    #[arg(long, value_name = "GLOB")]
    filter: Vec<String>,
    /// List the cases and run none.
    #[arg(long)]
    list: bool,
    /// Write the report as JSON to standard output, and nothing else.
    #[arg(long)]
    json: bool,
    /// Write the report as JUnit XML to this file.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Cases that are known to fail: a pattern and a reason on each line.
    #[arg(long, value_name = "FILE")]
    known_failing: Option<PathBuf>,
    /// Decides every choice the cases make; drawn when not given.
    #[arg(long)]
    seed: Option<u64>,
    /// How long one case may take before it counts as hung.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    deadline: u64,
    /// How many cases run at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Fail the run when a SHOULD fails.
    #[arg(long)]
    strict: bool,
}

/// Why the suite could not be run.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Known(#[from] KnownError),
    #[error("the pattern {0} matches no case")]
    Filter(String),
    #[error("{path}: {source}")]
    Library { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Junit { path: PathBuf, source: std::io::Error },
    #[error("the report cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    #[error("there is nothing to test: see --help")]
    NoTarget,
    #[error("MEMKV_AUTH_KEY is not set: the shared key, 64 hexadecimal digits")]
    NoKey,
    #[error("MEMKV_AUTH_KEY: {0}")]
    Key(#[from] memkv_wire::mac::KeyError),
    #[error("there is no flaw {0}: see --list-flaws")]
    Flaw(String),
    #[error("there is no flaw {0}: see reference-client --list-flaws")]
    ClientFlaw(String),
    #[error("the driver cannot be run: {0}")]
    Driver(reference_client::DriverError),
    #[error("there is no quirk {0}: see --list-quirks")]
    Quirk(String),
    #[error("cannot listen: {0}")]
    Listen(std::io::Error),
}

/// How a command ended that did what it was asked.
enum Ended {
    Good,
    DoesNotConform,
    /// Every case was skipped.
    NothingTested,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Child => return child::main(),
        Command::Abi(arguments) => run_abi(*arguments),
        Command::WireServer(arguments) => run_wire_server(*arguments),
        Command::WireClient(arguments) => run_wire_client(*arguments),
        Command::Reference(arguments) => run_reference(&arguments),
        Command::ReferenceClient(arguments) => run_reference_client(&arguments),
    };
    match outcome {
        Ok(Ended::Good) => ExitCode::SUCCESS,
        Ok(Ended::DoesNotConform) => ExitCode::FAILURE,
        Ok(Ended::NothingTested) => ExitCode::from(child::EXIT_SKIPPED),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run_abi(arguments: AbiArguments) -> Result<Ended, RunError> {
    let AbiArguments { library, uri, other_uri, restart_command, common } = arguments;
    let cases = abi::cases();
    if common.list {
        return list(&cases, &common);
    }
    let (Some(library), Some(uri)) = (library, uri) else { return Err(RunError::NoTarget) };
    // The loader looks for a bare name elsewhere; the user means the file.
    let library =
        std::path::absolute(&library).map_err(|source| RunError::Library { path: library, source })?;
    run_suite(Target::Abi(AbiTarget { library, uri, other_uri, restart_command }), &cases, &common)
}

fn run_wire_server(arguments: WireServerArguments) -> Result<Ended, RunError> {
    let WireServerArguments { address, restart_command, rdma, common } = arguments;
    let cases = wire_server::cases();
    if common.list {
        return list(&cases, &common);
    }
    let address = address.ok_or(RunError::NoTarget)?;
    let key = shared_key()?.to_hex().to_string();
    let target = WireServerTarget { address, key, restart_command, rdma };
    run_suite(Target::WireServer(target), &cases, &common)
}

fn run_wire_client(arguments: WireClientArguments) -> Result<Ended, RunError> {
    let WireClientArguments { command, rdma, common } = arguments;
    let cases = wire_client::cases();
    if common.list {
        return list(&cases, &common);
    }
    let command = command.ok_or(RunError::NoTarget)?;
    run_suite(Target::WireClient(WireClientTarget { command, rdma }), &cases, &common)
}

fn run_reference_client(arguments: &ReferenceClientArguments) -> Result<Ended, RunError> {
    if arguments.list_flaws {
        reference_client::Flaw::ALL.iter().for_each(|flaw| println!("{}", flaw.name()));
        return Ok(Ended::Good);
    }
    let flaw = match &arguments.flaw {
        Some(name) => {
            Some(reference_client::Flaw::from_name(name).ok_or_else(|| RunError::ClientFlaw(name.clone()))?)
        }
        None => None,
    };
    reference_client::run(flaw).map_err(RunError::Driver)?;
    Ok(Ended::Good)
}

fn run_reference(arguments: &ReferenceArguments) -> Result<Ended, RunError> {
    if arguments.list_flaws {
        Flaw::ALL.iter().for_each(|flaw| println!("{}", flaw.name()));
        return Ok(Ended::Good);
    }
    if arguments.list_quirks {
        Quirk::ALL.iter().for_each(|quirk| println!("{}", quirk.name()));
        return Ok(Ended::Good);
    }
    let flaw = match &arguments.flaw {
        Some(name) => Some(Flaw::from_name(name).ok_or_else(|| RunError::Flaw(name.clone()))?),
        None => None,
    };
    let quirk = match &arguments.quirk {
        Some(name) => Some(Quirk::from_name(name).ok_or_else(|| RunError::Quirk(name.clone()))?),
        None => None,
    };
    let reference = Reference::bind(&arguments.listen, shared_key()?, Behaviour { flaw, quirk })
        .map_err(RunError::Listen)?;
    println!("listening on {}", reference.address().map_err(RunError::Listen)?);
    reference.serve();
    Ok(Ended::Good)
}

fn shared_key() -> Result<Key, RunError> {
    let text = std::env::var("MEMKV_AUTH_KEY").map_err(|_| RunError::NoKey)?;
    Ok(Key::from_hex(&text)?)
}

fn selected(cases: &[Entry], common: &Common) -> Result<Vec<Entry>, RunError> {
    for pattern in &common.filter {
        if !cases.iter().any(|case| glob::matches(pattern, case.id)) {
            return Err(RunError::Filter(pattern.clone()));
        }
    }
    let wanted =
        |case: &&Entry| common.filter.is_empty() || common.filter.iter().any(|p| glob::matches(p, case.id));
    Ok(cases.iter().filter(wanted).copied().collect())
}

fn list(cases: &[Entry], common: &Common) -> Result<Ended, RunError> {
    for case in selected(cases, common)? {
        println!("{:<14} {:<6} {} [{}]", case.id, case.level, case.title, case.requires.join(", "));
    }
    Ok(Ended::Good)
}

fn run_suite(target: Target, cases: &[Entry], common: &Common) -> Result<Ended, RunError> {
    let known = match &common.known_failing {
        Some(path) => KnownFailures::read(path, cases)?,
        None => KnownFailures::default(),
    };
    let options = runner::Options {
        seed: common.seed.map_or_else(getrandom::u64, Ok)?,
        run: format!("{:08x}", getrandom::u32()?),
        deadline: Duration::from_secs(common.deadline),
        jobs: common.jobs,
        strict: common.strict,
        known,
    };
    let cases = selected(cases, common)?;
    let report = runner::run(&target, &cases, &options, &|case| {
        if !common.json {
            println!("{case}");
        }
    });
    write(&report, common)?;
    Ok(match report.conforms {
        false => Ended::DoesNotConform,
        true if report.totals.nothing_tested() => Ended::NothingTested,
        true => Ended::Good,
    })
}

fn write(report: &Report, common: &Common) -> Result<(), RunError> {
    if let Some(path) = &common.junit {
        write_file(path, &junit::document(report))
            .map_err(|source| RunError::Junit { path: path.clone(), source })?;
    }
    if common.json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}

fn write_file(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::write(path, text)
}
