//! `cargo xtask demo`: a real server, the built plugin, one session saved and restored in several ways, and the figures.
//!
//! Every step is a process of its own (`abi/examples/session`) that loads the plugin as an engine would, does one thing,
//! times it, and compares every byte that came back. Bytes and requests are the server's own counts of what it received and
//! sent (without the tags of payloads, 32 bytes a frame, and what TCP adds); what opening the store costs is measured once and taken off the other steps.

mod server;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use self::server::Server;
use self::table::Row;
use crate::shell;

#[derive(clap::Args)]
pub struct Options {
    /// How often to do everything; the table shows medians.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Print one JSON document instead of the table.
    #[arg(long)]
    json: bool,
    /// Build without optimisations: quicker to start, and the figures mean nothing.
    #[arg(long)]
    debug: bool,
    /// Where to put the temporary data directory; a real drive tells more than memory does.
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

/// Tokens of a session, and those of them that the second session shares: 96 chunks, and 48.
const TOKENS: u32 = 256;
const SHARED: u32 = 128;

/// The programs, as cargo built them.
struct Built {
    server: PathBuf,
    library: PathBuf,
    session: PathBuf,
}

/// One thing that an engine does, and what it is called in the table.
struct Step {
    name: &'static str,
    arguments: Vec<String>,
    /// Goes through the store, and not through a file.
    counted: bool,
}

/// What one run of a step came to.
#[derive(Clone)]
struct Measured {
    seconds: f64,
    chunks: u64,
    bytes: u64,
    /// By what the server's counters rose.
    counters: BTreeMap<String, i64>,
}

pub fn run(options: &Options) -> Result<bool> {
    let built = build(options)?;
    let parent = options.directory.clone().unwrap_or_else(|| shell::root().join("target"));
    let directory =
        tempfile::Builder::new().prefix("demo-").tempdir_in(&parent).context("no temporary directory")?;
    let server = Server::start(&built.server, &directory.path().join("data"))?;
    eprintln!("serving on {} from {}", server.address, directory.path().display());

    let mut runs: Vec<(&'static str, Vec<Measured>)> = Vec::new();
    for round in 0..options.rounds {
        eprint!("\rround {} of {}", round + 1, options.rounds);
        let demo = Demo { built: &built, server: &server, directory: directory.path(), round };
        for (index, step) in demo.steps().into_iter().enumerate() {
            let measured =
                demo.measure(&step).with_context(|| format!("{}, round {}", step.name, round + 1))?;
            match runs.get_mut(index) {
                Some((_, all)) => all.push(measured),
                None => runs.push((step.name, vec![measured])),
            }
        }
    }
    eprintln!();
    server.stop()?;

    let rows: Vec<Row> = runs.iter().map(|(name, all)| row(name, all)).collect();
    println!("{}", if options.json { table::json(&rows)? } else { table::text(&rows, options.rounds) });
    Ok(true)
}

fn build(options: &Options) -> Result<Built> {
    let profile = if options.debug { "dev" } else { "release" };
    eprintln!("building the server, the plugin and the example ({profile})");
    let messages = shell::output(
        shell::cargo()
            .args(["build", "--profile", profile, "--message-format=json-render-diagnostics"])
            .args(["--package", "memkv-server", "--package", "kv-store-memkv"])
            .args(["--bin", "memkv", "--lib", "--example", "session"]),
    )?;
    let mut files = Vec::new();
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).context("cargo wrote a message that is not JSON")?;
        let of = |list: &Value| {
            list.as_array().into_iter().flatten().filter_map(Value::as_str).map(PathBuf::from).collect()
        };
        let mut of_message: Vec<PathBuf> = of(&message["filenames"]);
        files.append(&mut of_message);
    }
    let find = |names: &[&str]| {
        let named = |file: &&PathBuf| file.file_name().is_some_and(|name| names.iter().any(|n| name == *n));
        files.iter().find(named).cloned().with_context(|| format!("cargo built no {names:?}"))
    };
    Ok(Built {
        server: find(&["memkv"])?,
        library: find(&["libkv_store_memkv.so", "libkv_store_memkv.dylib"])?,
        session: find(&["session"])?,
    })
}

/// One round. Its sessions have bytes and a namespace of their own, so that a cold save is cold in every round.
struct Demo<'a> {
    built: &'a Built,
    server: &'a Server,
    directory: &'a Path,
    round: u32,
}

impl Demo<'_> {
    fn steps(&self) -> Vec<Step> {
        let first = self.seeds(1);
        let second = self.seeds(2);
        let store = |name, verb: &str, manifest: &str, seeds: &[String]| Step {
            name,
            arguments: [vec![verb.to_owned()], self.place(manifest), seeds.to_vec()].concat(),
            counted: true,
        };
        let file = |name, arguments: &[&str], stem: &str| {
            let path = self.directory.join(format!("{stem}-{}", self.round)).display().to_string();
            let (verb, flags) = arguments.split_first().unwrap_or((&"", &[]));
            let mut all = vec![(*verb).to_owned(), path];
            all.extend(flags.iter().map(|flag| (*flag).to_owned()));
            all.extend(first.clone());
            Step { name, arguments: all, counted: false }
        };
        vec![
            store("open the store", "open", "first", &first),
            store("save, cold", "save", "first", &first),
            store("save again, warm", "save", "first", &first),
            store("save a second session, half of it shared", "save", "second", &second),
            store("restore the first", "restore", "first", &first),
            store("restore the second", "restore", "second", &second),
            file("file: write", &["file-save"], "plain"),
            file("file: write and fdatasync", &["file-save", "--sync"], "synced"),
            file("file: read back", &["file-restore"], "plain"),
        ]
    }

    fn place(&self, manifest: &str) -> Vec<String> {
        let library = self.built.library.display().to_string();
        let uri = self.uri();
        ["--library", &library, "--uri", &uri, "--name", manifest].map(str::to_owned).to_vec()
    }

    fn uri(&self) -> String {
        format!("memkv://{}/round-{}", self.server.address, self.round)
    }

    fn seeds(&self, session: u32) -> Vec<String> {
        let prefix = 10 * self.round;
        let arguments = [
            ("--tokens", TOKENS),
            ("--shared", SHARED),
            ("--prefix-seed", prefix),
            ("--seed", prefix + session),
        ];
        arguments.iter().flat_map(|(name, value)| [(*name).to_owned(), value.to_string()]).collect()
    }

    fn measure(&self, step: &Step) -> Result<Measured> {
        let before = if step.counted { self.counters()? } else { BTreeMap::new() };
        let result = self.session(&step.arguments)?;
        let mut counters = if step.counted { self.counters()? } else { BTreeMap::new() };
        for (name, value) in &mut counters {
            *value -= before.get(name).copied().unwrap_or(0);
        }
        let number =
            |name: &str| result[name].as_u64().with_context(|| format!("the example reports no {name}"));
        Ok(Measured {
            seconds: result["seconds"].as_f64().context("the example reports no time")?,
            chunks: number("chunks")?,
            bytes: number("bytes")?,
            counters,
        })
    }

    fn counters(&self) -> Result<BTreeMap<String, i64>> {
        let counters = self.session(&["counters".to_owned(), "--uri".to_owned(), self.uri()])?;
        let counters = counters.as_object().context("the example reports no counters")?;
        Ok(counters.iter().filter_map(|(name, value)| Some((name.clone(), value.as_i64()?))).collect())
    }

    fn session(&self, arguments: &[String]) -> Result<Value> {
        let mut command = Command::new(&self.built.session);
        command.args(arguments).env("MEMKV_AUTH_KEY", &self.server.key);
        Ok(serde_json::from_str(&shell::output(&mut command)?)?)
    }
}

/// The server counts control messages and payloads; each frame has a header besides.
const FRAME_HEADER_SIZE_BYTES: i64 = 64;

impl Measured {
    fn wire_bytes(&self) -> Option<i64> {
        let sum = |names: [&str; 2]| names.iter().map(|name| self.counters.get(*name)).sum::<Option<i64>>();
        let headers = FRAME_HEADER_SIZE_BYTES * sum(["frames_received", "frames_sent"])?;
        Some(sum(["bytes_received", "bytes_sent"])? + headers)
    }

    fn counter(&self, name: &str) -> Option<i64> {
        self.counters.get(name).copied()
    }
}

/// Medians of the rounds.
fn row(name: &'static str, all: &[Measured]) -> Row {
    Row {
        name,
        seconds: median_of(all.iter().map(|measured| measured.seconds).collect()),
        bytes: all[0].bytes,
        chunks: all[0].chunks,
        wire_bytes: median(all.iter().filter_map(Measured::wire_bytes).collect()),
        requests: median(all.iter().filter_map(|measured| measured.counter("requests")).collect()),
        chunks_stored: median(all.iter().filter_map(|measured| measured.counter("chunks_stored")).collect()),
    }
}

fn median(mut values: Vec<i64>) -> Option<i64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

fn median_of(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
