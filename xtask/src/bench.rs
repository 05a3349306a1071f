//! `cargo xtask bench`: builds what measures, which is a workspace of its own, and runs it.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

#[derive(Args)]
pub struct Options {
    /// What to measure, and how: `store --help` and `peers --help` tell.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "WHAT")]
    arguments: Vec<OsString>,
}

/// Whether every goal was met.
pub fn run(options: &Options) -> Result<bool> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let peers = options.arguments.first().is_some_and(|what| what == "peers");
    if peers && !build(root)? {
        return Ok(false);
    }
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["run", "--release", "--locked", "--quiet", "--manifest-path"])
        .arg(format!("{root}/bench/Cargo.toml"))
        .arg("--target-dir")
        .arg(format!("{root}/target/bench"))
        .arg("--")
        .args(&options.arguments)
        // Unless the arguments name another place.
        .env("MEMKV_PROGRAMS", format!("{root}/target/release"))
        .status()
        .context("cargo cannot be run")?;
    Ok(status.success())
}

/// What is measured beside peers: the server, the plugin, and `memkv bench`.
fn build(root: &str) -> Result<bool> {
    let packages = ["memkv-server", "memkv-bench", "kv-store-memkv"];
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--locked", "--quiet"])
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .current_dir(root)
        .status()
        .context("cargo cannot be run")?;
    Ok(status.success())
}
