//! A session saved and restored through the plugin, beside the same bytes in a local file.
//!
//! In each round the session's bytes are new, so that a cold save is one. Each of the store's steps stands beside its file: a cold save
//! beside creating, writing and flushing a new one, a warm save beside creating and writing one, a restore beside reading one
//! into memory that is allocated chunk by chunk, as the plugin's interface has it. Files are read out of the page cache, as the
//! server reads its own. Hashing, and comparing what came back, are not timed.
//!
//! The plugin takes its key from the environment, which a process cannot safely change for itself: with a server of its own, this
//! program runs itself again.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use kv_store_loader::{Bytes, Store};
use memkv_client::Transport;
use memkv_wire::manifest::ManifestBlob;
use serde::Serialize;

use crate::output::progress;
use crate::report;
use crate::server::{Mode, Target};
use crate::state::State;

#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    target: Target,
    /// The plugin [default: in KV_STORE_LIBRARY_PATH, beside this program, or in the `lib` folder next to it].
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// Lengths of the session. 256 tokens are 96 chunks, 3.15 MB; 4096 are 50 MB.
    #[arg(long, value_delimiter = ',', value_name = "TOKENS,..", default_value = "256,4096", value_parser = clap::value_parser!(u32).range(1..=65536))]
    tokens: Vec<u32>,
    /// Rounds that count; one more goes before them.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Where the files are made and removed again. It should be on the server's drive [default: beside the server's data, else the
    /// system's directory for temporary files].
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// One step at one length.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub tokens: u32,
    pub chunks: usize,
    pub size_bytes: usize,
    pub step: &'static str,
    /// The plugin's times: of the first round in this process, and the median, the fastest and the slowest of the others.
    pub first_ms: f64,
    pub ms: f64,
    pub ms_min: f64,
    pub ms_max: f64,
    /// What it is compared to, and its median.
    pub file: &'static str,
    pub file_ms: f64,
    /// The median of the rounds' ratios.
    pub factor: f64,
}

/// A step's name, and that of what it stands beside.
const STEPS: [(&str, &str); 3] =
    [("cold save", "create, write, fdatasync"), ("warm save", "create, write"), ("restore", "read")];

pub fn run(options: &Options) -> Result<()> {
    if options.target.uri.is_none() {
        return run_beside_own_server(options);
    }
    let server = options.target.server(Mode::File, &[])?;
    let library = options.library.clone().map_or_else(find_library, Ok)?;
    let parent = options.files.clone().unwrap_or_else(std::env::temp_dir);
    let files = tempfile::Builder::new().prefix("memkv-bench-").tempdir_in(&parent);
    let files = files.with_context(|| format!("no directory can be made in {}", parent.display()))?;
    let store = Store::open(&library, server.uri())?;
    let mut figures = Vec::new();
    let bar = progress(options.tokens.len() * (options.rounds as usize + 1));
    for &tokens in &options.tokens {
        bar.set_message(format!("{tokens} tokens"));
        let mut rounds = Vec::new();
        for round in 0..=options.rounds {
            let state = State::new(tokens as usize, getrandom::u64()?)?;
            let round = Round { store: &store, files: files.path(), state: &state, number: round };
            rounds.push(round.run()?);
            bar.inc(1);
        }
        figures.extend(figures_of(tokens, &rounds)?);
    }
    bar.finish_and_clear();
    if options.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        print!("{}", report::sessions(&figures));
    }
    Ok(())
}

fn run_beside_own_server(options: &Options) -> Result<()> {
    let server = options.target.server(Mode::File, &[Transport::from_env()?])?;
    let mut again = Command::new(std::env::current_exe()?);
    again.args(["session", "--uri", server.uri()]).envs(server.environment());
    again.args(["--rounds", &options.rounds.to_string()]);
    let tokens: Vec<String> = options.tokens.iter().map(u32::to_string).collect();
    again.args(["--tokens", &tokens.join(",")]);
    if let Some(library) = &options.library {
        again.arg("--library").arg(library);
    }
    if let Some(files) = options.files.as_deref().or(server.directory()) {
        again.arg("--files").arg(files);
    }
    if options.json {
        again.arg("--json");
    }
    ensure!(again.status()?.success(), "the session was not measured");
    Ok(())
}

fn find_library() -> Result<PathBuf> {
    let name = if cfg!(target_os = "macos") { "libkv_store_memkv.dylib" } else { "libkv_store_memkv.so" };
    let mut folders: Vec<PathBuf> =
        std::env::var_os("KV_STORE_LIBRARY_PATH").map(PathBuf::from).into_iter().collect();
    let own = std::env::current_exe()?;
    if let Some(folder) = own.parent() {
        folders.extend([folder.to_owned(), folder.join("../lib/memkv"), folder.join("../lib")]);
    }
    let found = folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!("there is no {name} beside this program: build it (cargo build --release -p kv-store-memkv), or name it with --library")
    })
}

/// Seconds of the plugin's step and of the file's, in the order of [`STEPS`].
type Times = [(f64, f64); STEPS.len()];

struct Round<'a> {
    store: &'a Store,
    files: &'a Path,
    state: &'a State,
    number: u32,
}

impl Round<'_> {
    /// Who goes first changes from round to round.
    fn run(&self) -> Result<Times> {
        let (flushed, plain) = (self.files.join("flushed"), self.files.join("plain"));
        let turns = |ours: &dyn Fn() -> Result<f64>, file: &dyn Fn() -> Result<f64>| -> Result<(f64, f64)> {
            if self.number.is_multiple_of(2) {
                let ours = ours()?;
                Ok((ours, file()?))
            } else {
                let file = file()?;
                Ok((ours()?, file))
            }
        };
        let times = [
            turns(&|| self.save("cold"), &|| self.write_file(&flushed, true))?,
            turns(&|| self.save("warm"), &|| self.write_file(&plain, false))?,
            turns(&|| self.restore("cold"), &|| self.read_file(&plain))?,
        ];
        for name in ["cold", "warm"] {
            self.store.delete_manifest(name)?;
        }
        for file in [flushed, plain] {
            std::fs::remove_file(file)?;
        }
        Ok(times)
    }

    fn save(&self, name: &str) -> Result<f64> {
        let began = Instant::now();
        for (hash, chunk) in self.state.hashes.iter().zip(&self.state.chunks) {
            self.store.put_chunk(hash, chunk)?;
        }
        self.store.put_manifest(name, &self.state.manifest)?;
        Ok(began.elapsed().as_secs_f64())
    }

    fn restore(&self, name: &str) -> Result<f64> {
        let began = Instant::now();
        let blob = self.store.get_manifest(name)?;
        let manifest = ManifestBlob::decode(&blob)?;
        self.store.prefetch_chunks(manifest.manifest().hashes, manifest.hash_size_bytes())?;
        let chunks: Vec<Bytes> =
            manifest.chunks().map(|(hash, _)| self.store.get_chunk(hash)).collect::<Result<_, _>>()?;
        let seconds = began.elapsed().as_secs_f64();
        ensure!(blob[..] == self.state.manifest[..], "the manifest came back changed");
        ensure!(chunks.len() == self.state.chunks.len(), "the manifest lists {} chunks", chunks.len());
        for (read, wanted) in chunks.iter().zip(&self.state.chunks) {
            ensure!(read[..] == wanted[..], "a chunk came back changed");
        }
        Ok(seconds)
    }

    fn write_file(&self, path: &Path, flush: bool) -> Result<f64> {
        let began = Instant::now();
        let mut file = File::create_new(path)?;
        for chunk in &self.state.chunks {
            file.write_all(chunk)?;
        }
        file.write_all(&self.state.manifest)?;
        if flush {
            file.sync_data()?;
        }
        Ok(began.elapsed().as_secs_f64())
    }

    fn read_file(&self, path: &Path) -> Result<f64> {
        let mut manifest = vec![0; self.state.manifest.len()];
        let began = Instant::now();
        let mut file = File::open(path)?;
        let mut chunks = Vec::with_capacity(self.state.chunks.len());
        for wanted in &self.state.chunks {
            let mut chunk = Vec::with_capacity(wanted.len());
            (&file).take(wanted.len() as u64).read_to_end(&mut chunk)?;
            chunks.push(chunk);
        }
        file.read_exact(&mut manifest)?;
        let seconds = began.elapsed().as_secs_f64();
        ensure!(chunks == self.state.chunks && manifest == self.state.manifest, "the file came back changed");
        Ok(seconds)
    }
}

fn figures_of(tokens: u32, rounds: &[Times]) -> Result<Vec<Figure>> {
    let state = State::new(tokens as usize, 0)?;
    let (first, counted) = rounds.split_first().context("no round was run")?;
    let of = |(place, (step, file)): (usize, &(&'static str, &'static str))| {
        let ms = |see: fn(&(f64, f64)) -> f64| counted.iter().map(move |round| see(&round[place]) * 1e3);
        Figure {
            tokens,
            chunks: state.chunks.len(),
            size_bytes: state.size_bytes(),
            step,
            first_ms: first[place].0 * 1e3,
            ms: report::median(ms(|times| times.0)),
            ms_min: ms(|times| times.0).fold(f64::MAX, f64::min),
            ms_max: ms(|times| times.0).fold(0.0, f64::max),
            file,
            file_ms: report::median(ms(|times| times.1)),
            factor: report::median(counted.iter().map(|round| round[place].0 / round[place].1)),
        }
    };
    Ok(STEPS.iter().enumerate().map(of).collect())
}
