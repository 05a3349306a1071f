//! Saves a session through a `kv_store_v1` library and restores it, as an inference engine would, and times both.
//!
//! Each run is one process that does one thing, so that nothing is in its memory that an engine just started would not
//! have. What it does is timed from the first byte offered to the last byte had; making the state, hashing it and comparing
//! what came back are not. `cargo xtask demo` runs it; so can you, with any library of this interface.

mod state;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};
use kv_store_loader::{Bytes, Store};
use memkv_wire::manifest::ManifestBlob;

use state::State;

/// Save or restore one made-up session; prints one line of JSON.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    session: Session,
}

#[derive(Args)]
struct Session {
    /// The session's length in tokens.
    #[arg(long, default_value_t = 256, global = true)]
    tokens: usize,
    /// How many of them come from the prefix.
    #[arg(long, default_value_t = 0, global = true)]
    shared: usize,
    /// Decides the prefix's bytes.
    #[arg(long, default_value_t = 1, global = true)]
    prefix_seed: u64,
    /// Decides the other bytes.
    #[arg(long, default_value_t = 2, global = true)]
    seed: u64,
}

#[derive(Subcommand)]
enum Command {
    /// Put every chunk and the manifest into a store.
    Save(Place),
    /// Read the manifest and its chunks back and compare every byte.
    Restore(Place),
    /// Write the same bytes into one new file.
    FileSave {
        path: PathBuf,
        /// Make them durable, as a store that acknowledged a manifest has.
        #[arg(long)]
        sync: bool,
    },
    /// Read that file back and compare every byte.
    FileRestore { path: PathBuf },
    /// Open a store and close it.
    Open(Place),
    /// Print the counters of a MemKV server.
    Counters {
        /// The store, such as memkv://127.0.0.1:9900/demo.
        #[arg(long)]
        uri: String,
    },
}

#[derive(Args)]
struct Place {
    /// The library, such as libkv_store_memkv.so.
    #[arg(long)]
    library: PathBuf,
    /// The store, such as memkv://127.0.0.1:9900/demo.
    #[arg(long)]
    uri: String,
    /// The manifest's name.
    #[arg(long, default_value = "session")]
    name: String,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let session = &cli.session;
    let state = State::new(session.tokens, session.shared, session.prefix_seed, session.seed);
    let saved = state.save()?;
    let seconds = match &cli.command {
        Command::Save(place) => save(place, &state, &saved)?,
        Command::Restore(place) => restore(place, &state)?,
        Command::FileSave { path, sync } => save_file(path, &state, &saved.manifest, *sync)?,
        Command::FileRestore { path } => restore_file(path, &state, &saved.manifest)?,
        Command::Open(place) => open(place)?,
        Command::Counters { uri } => return print_counters(uri),
    };
    let (chunks, bytes) = (state.chunks().len(), state.size_bytes() + saved.manifest.len());
    println!(r#"{{"seconds": {seconds:.9}, "chunks": {chunks}, "bytes": {bytes}}}"#);
    Ok(())
}

fn open(place: &Place) -> Result<f64> {
    let started = Instant::now();
    let _store = Store::open(&place.library, &place.uri)?;
    Ok(started.elapsed().as_secs_f64())
}

/// Not through the library: the C interface has no counters.
fn print_counters(uri: &str) -> Result<()> {
    let client = memkv_client::blocking::Client::connect(memkv_client::Config::from_env(uri)?)?;
    let counters: Vec<String> =
        client.stats("")?.iter().map(|(name, value)| format!(r#""{name}": {value}"#)).collect();
    println!("{{{}}}", counters.join(", "));
    Ok(())
}

fn save(place: &Place, state: &State, saved: &state::Saved) -> Result<f64> {
    let store = Store::open(&place.library, &place.uri)?;
    let started = Instant::now();
    for (hash, chunk) in saved.hashes.iter().zip(state.chunks()) {
        store.put_chunk(hash, chunk)?;
    }
    store.put_manifest(&place.name, &saved.manifest)?;
    Ok(started.elapsed().as_secs_f64())
}

fn restore(place: &Place, state: &State) -> Result<f64> {
    let store = Store::open(&place.library, &place.uri)?;
    let started = Instant::now();
    let blob = store.get_manifest(&place.name)?;
    let manifest = ManifestBlob::decode(&blob)?;
    store.prefetch_chunks(manifest.manifest().hashes, manifest.hash_size_bytes())?;
    let chunks: Vec<Bytes> =
        manifest.chunks().map(|(hash, _)| store.get_chunk(hash)).collect::<Result<_, _>>()?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(chunks.len() == state.chunks().len(), "the manifest lists {} chunks", chunks.len());
    for (index, (read, wanted)) in chunks.iter().zip(state.chunks()).enumerate() {
        ensure!(**read == **wanted, "chunk {index} came back changed");
    }
    Ok(seconds)
}

fn save_file(path: &Path, state: &State, manifest: &[u8], sync: bool) -> Result<f64> {
    let started = Instant::now();
    let mut file = File::create_new(path)?;
    for chunk in state.chunks() {
        file.write_all(chunk)?;
    }
    file.write_all(manifest)?;
    if sync {
        file.sync_data()?;
    }
    Ok(started.elapsed().as_secs_f64())
}

fn restore_file(path: &Path, state: &State, manifest: &[u8]) -> Result<f64> {
    let started = Instant::now();
    let bytes = std::fs::read(path)?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(bytes == [state.chunks().concat().as_slice(), manifest].concat(), "the file came back changed");
    Ok(seconds)
}
