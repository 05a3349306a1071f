//! `cargo xtask bench`: builds what measures, which is a workspace of its own, and runs it.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

#[derive(Args)]
pub struct Options {
    /// What to measure, and how: `store --help` tells.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "WHAT")]
    arguments: Vec<OsString>,
}

/// Whether every goal was met.
pub fn run(options: &Options) -> Result<bool> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["run", "--release", "--locked", "--quiet", "--manifest-path"])
        .arg(format!("{root}/bench/Cargo.toml"))
        .arg("--target-dir")
        .arg(format!("{root}/target/bench"))
        .arg("--")
        .args(&options.arguments)
        .status()
        .context("cargo cannot be run")?;
    Ok(status.success())
}
