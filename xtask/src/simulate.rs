//! `cargo xtask simulate`: builds the program that runs worlds, with its planted bugs and with optimisations, and runs it.

use std::ffi::OsString;

use anyhow::{Context, Result};
use clap::Args;

use crate::shell;

#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct Options {
    /// Which worlds, and how: `--help` tells.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    arguments: Vec<OsString>,
}

/// Whether every world kept its promises, or every planted bug was found.
pub fn run(options: &Options) -> Result<bool> {
    // Features of one package's build do not reach those of others: no program that serves is built with the bugs.
    let mut cargo = shell::cargo();
    cargo.args(["run", "--release", "--locked", "--quiet", "--package", "memkv-simulation"]);
    cargo.args(["--features", "cli,planted-bugs", "--bin", "memkv-simulate", "--"]);
    let status = cargo.args(&options.arguments).status().context("cargo cannot be run")?;
    Ok(status.success())
}
