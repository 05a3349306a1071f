//! MemKV's server and client beside those of others, and beside what sockets and memory can do at all.
//!
//! Everyone stores the same values; in each round all of them have their turn, in another order each time.

mod bare;
mod case;
mod machine;
mod memkv;
mod memory;
mod mooncake;
mod pipelined;
mod process;
mod small;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use memkv_client::Transport;

use self::bare::{Bare, Seal};
use self::case::{Act, CASES, Case, Peer, Sample, measure};
use self::machine::Run;
use self::memkv::MemKv;
use self::memory::Memory;
use self::mooncake::Mooncake;
use self::pipelined::{Pipelined, Protocol};
use crate::report::{self, Goal, Line};

#[derive(Args)]
pub struct Options {
    /// Where memkv, memkv-bench and the plugin are.
    #[arg(long, value_name = "DIR", env = "MEMKV_PROGRAMS", default_value = "target/release")]
    programs: PathBuf,
    /// A Python with mooncake-transfer-engine-non-cuda and numpy; without it Mooncake is left out.
    #[arg(long, value_name = "PYTHON")]
    python: Option<PathBuf>,
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,..")]
    only: Vec<Measured>,
    /// Rounds of everything that is compared; the median counts.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of each turn.
    #[arg(long, default_value_t = 0.4)]
    seconds: f64,
    /// Leave redis, memcached and Mooncake out.
    #[arg(long)]
    alone: bool,
    /// Write the page, too; its notes stay.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Options {
    fn measures(&self, part: Measured) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measured {
    /// Values beside every peer.
    Values,
    /// Exists beside a ping-pong.
    RoundTrips,
    /// Idle connections, and many busy ones.
    Connections,
    /// Sessions through the plugin beside files.
    Sessions,
}

impl Measured {
    fn measure(self, options: &Options, program: &Path) -> Result<Vec<Line>> {
        match self {
            Measured::Values => values(options, program),
            Measured::RoundTrips => small::exists(program, options.rounds),
            Measured::Connections => Ok(vec![small::idle(program)?, small::active(program, options.rounds)?]),
            Measured::Sessions => small::sessions(&options.programs, options.rounds),
        }
    }
}

/// The other side of a yardstick, a process of its own.
#[derive(Subcommand)]
pub enum Part {
    /// Serves the bare loop.
    #[command(hide = true)]
    BareServer {
        port: u16,
        value_bytes: usize,
        count: usize,
        #[arg(long)]
        no_mac: bool,
    },
    /// Serves the ping-pong.
    #[command(hide = true)]
    PingServer { port: u16, asked: usize, answered: usize },
}

pub fn run_part(part: &Part) -> Result<()> {
    match *part {
        Part::BareServer { port, value_bytes, count, no_mac } => {
            bare::serve(port, value_bytes, count, if no_mac { Seal::NoMac } else { Seal::Sealed })
        }
        Part::PingServer { port, asked, answered } => small::answer(port, asked, answered),
    }
}

/// Whether every goal was met.
pub fn run(options: &Options) -> Result<bool> {
    let program = options.programs.join("memkv");
    let load = machine::load();
    let mut lines = Vec::new();
    for part in Measured::value_variants() {
        if options.measures(*part) {
            let measured = part.measure(options, &program)?;
            if !options.json {
                println!("{}", report::table(&measured));
            }
            lines.extend(measured);
        }
    }
    if let Some(page) = &options.page {
        let alone = options.alone || !options.measures(Measured::Values);
        let peers = if alone { Vec::new() } else { peer_commands() };
        let run = Run { command: own_command(), peers, load, python: options.python.as_deref() };
        machine::write_page(page, &lines, &run)?;
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&lines)?);
    }
    Ok(lines.iter().all(Line::met))
}

/// How this was called, with all arguments that were given.
fn own_command() -> String {
    let mut command = Command::new("cargo");
    command.args(["xtask", "bench"]).args(std::env::args_os().skip(1));
    let flags = if cfg!(memkv_no_bulk_mac) { "RUSTFLAGS=\"--cfg memkv_no_bulk_mac\" " } else { "" };
    format!("{flags}{}", process::command_line(&command))
}

/// How the peers that are here are started.
fn peer_commands() -> Vec<String> {
    let port = "PORT";
    let commands = [
        Protocol::Redis.server(port),
        Protocol::Memcached.server(port),
        small::iperf_server(port),
        small::iperf_client(port),
    ];
    commands.iter().filter(|command| process::is_here(command)).map(process::command_line).collect()
}

const TCP: &str = "MemKV tcp";
const LOCAL: &str = "MemKV local";
const BARE: &str = "bare loop";
const NO_MAC: &str = "bare loop, no MAC";
const COPY: &str = "bare copy";
const TCP_NO_MAC: &str = "MemKV tcp, without the bulk MAC";

fn start(options: &Options, program: &Path) -> Result<Vec<Box<dyn Peer>>> {
    let mut peers: Vec<Box<dyn Peer>> = vec![
        Box::new(MemKv::start(TCP, program, Transport::Tcp)?),
        Box::new(Bare::new(BARE, Seal::Sealed)),
        Box::new(Bare::new(NO_MAC, Seal::NoMac)),
        Box::new(MemKv::start(LOCAL, program, Transport::Local)?),
        Box::new(Memory::default()),
    ];
    #[cfg(memkv_no_bulk_mac)]
    peers.push(Box::new(MemKv::with(TCP_NO_MAC, program, |server| {
        let mut config = server.config(Transport::Tcp)?;
        config.client_name = memkv_transport::session::UNSIGNED_CLIENT_NAME.to_owned();
        Ok(config)
    })?));
    if options.alone {
        return Ok(peers);
    }
    for protocol in [Protocol::Redis, Protocol::Memcached] {
        match Pipelined::start(protocol) {
            Ok(peer) => peers.push(Box::new(peer)),
            Err(error) => eprintln!("{protocol:?} is left out: {error:#}"),
        }
    }
    match options.python.as_deref().map(Mooncake::start) {
        Some(Ok(peer)) => peers.push(Box::new(peer)),
        Some(Err(error)) => eprintln!("Mooncake is left out: {error:#}"),
        None => eprintln!("Mooncake is left out: no --python was given"),
    }
    Ok(peers)
}

/// By case and act, everyone's sample of each round.
type Samples = BTreeMap<&'static str, Vec<Sample>>;

fn values(options: &Options, program: &Path) -> Result<Vec<Line>> {
    let mut peers = start(options, program)?;
    let mut lines = Vec::new();
    for case in &CASES {
        for peer in &mut peers {
            peer.prepare(case).with_context(|| format!("{}, {}", peer.name(), case.name))?;
        }
        for act in [Act::Write, Act::Read] {
            eprintln!("{} of {} ...", act.name(), case.name);
            let mut samples = Samples::new();
            for round in 0..options.rounds {
                let count = peers.len();
                for turn in 0..count {
                    let peer = &mut peers[(turn + round) % count];
                    let sample = measure(peer.as_mut(), case, act, options.seconds)
                        .with_context(|| format!("{}, {} of {}", peer.name(), act.name(), case.name))?;
                    samples.entry(peer.name()).or_default().push(sample);
                }
            }
            lines.extend(compared(case, act, &samples));
        }
    }
    if !options.alone {
        match small::iperf(3) {
            Ok(rate) => lines.push(Line::plain("iperf3, 2 connections: sockets alone", rate, "GB/s", None)),
            Err(error) => eprintln!("iperf3 is left out: {error:#}"),
        }
    }
    Ok(lines)
}

/// The lines of one case and act.
fn compared(case: &Case, act: Act, samples: &Samples) -> Vec<Line> {
    let beside = |ours: &str, peer: &'static str, goal| {
        let rounds: Vec<(f64, f64)> = samples.get(ours)?.iter().zip(samples.get(peer)?).map(rates).collect();
        Some(Line::ratio(format!("{ours}, {} {}", act.name(), case.name), &rounds, "GB/s", peer, goal))
    };
    let (small, huge) = (case.batch > 1, case.value_bytes > 1 << 20);
    let at_least = |least: f64| Some(Goal::AtLeast(least));
    let bare = if small || huge { None } else { at_least(0.85) };
    // Small values: on par with the best of the peers.
    let (redis, memcached) =
        if small { (at_least(0.95), at_least(0.95)) } else { (at_least(1.0), at_least(0.8)) };
    let mut lines = vec![
        beside(TCP, BARE, bare),
        beside(TCP, "redis", redis),
        beside(TCP, "memcached", memcached),
        beside(TCP, "Mooncake", at_least(1.0)),
        beside(LOCAL, COPY, if small { None } else { at_least(0.8) }),
    ];
    for peer in ["redis", "memcached", "Mooncake", TCP] {
        lines.push(beside(LOCAL, peer, if small { None } else { at_least(1.0) }));
    }
    lines.push(beside(NO_MAC, BARE, None));
    let gains = (case.value_bytes == 1 << 20).then_some(Goal::AtMost(1.15));
    lines.push(beside(TCP_NO_MAC, TCP, gains));
    if !small {
        let least = case.value_bytes == 1 << 20 && act == Act::Read;
        let at_most = |most: f64| least.then_some(Goal::AtMost(most));
        let computed = |ours, peer, goal| computed(case, act, samples, ours, peer, goal);
        lines.push(computed(TCP, "redis", at_most(1.2)));
        lines.push(computed(LOCAL, "redis", at_most(0.8)));
        lines.push(computed(TCP, BARE, None));
        lines.push(computed(NO_MAC, BARE, None));
        lines.push(computed(TCP_NO_MAC, TCP, None));
    }
    lines.into_iter().flatten().collect()
}

fn rates((ours, peer): (&Sample, &Sample)) -> (f64, f64) {
    (ours.gb_per_s(), peer.gb_per_s())
}

/// Processor time of client and server for a gigabyte: what else this machine does changes it little.
fn computed(
    case: &Case,
    act: Act,
    samples: &Samples,
    ours: &str,
    peer: &'static str,
    goal: Option<Goal>,
) -> Option<Line> {
    let rounds = samples.get(ours)?.iter().zip(samples.get(peer)?);
    let rounds: Vec<(f64, f64)> = rounds.map(|(a, b)| (a.cpu_s_per_gb(), b.cpu_s_per_gb())).collect();
    let what = format!("{ours}, {} {}: processor time", act.name(), case.name);
    Some(Line::ratio(what, &rounds, "s/GB", peer, goal))
}
