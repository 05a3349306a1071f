//! The tests of what is `unsafe`, under AddressSanitizer, which comes with every Rust toolchain for Linux.
//!
//! The switch is not stable yet: `RUSTC_BOOTSTRAP` lets the stable compiler take it. The standard library and the C code of
//! dependencies are as they always are: a wrong access in there is noticed where it goes through what the sanitizer replaces (the
//! allocator, `memcpy`). What is built so lies in `target/sanitized`.
//!
//! The server that the plugin talks to is the ordinary one. Leaks are not looked for: memory that another process may yet write to is
//! given up on purpose. That the plugin leaves none behind is what valgrind and the conformance suite see to.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Options, announced, build_by, conclude, report, succeeded, surround, tally::Tally};
use crate::shell;

/// Packages with `unsafe` in them, and the tests that reach it. Buffers, the frames that are read into them and the memory that
/// processes share; the library that engines load, from the engine's side.
const SANITIZED: &[(&str, &[&str])] =
    &[("memkv-transport", &["attacks", "local", "streams", "tcp"]), ("kv-store-memkv", &["plugin"])];

pub fn run(options: &Options) -> Result<bool> {
    shell::run(shell::cargo().args(["build", "--package", "memkv-server", "--bin", "memkv"]))?;
    let targets = target_directory()?;
    let mut total = Tally::default();
    for (package, tests) in SANITIZED {
        for binary in build_by(cargo(), &arguments(package, tests, &targets)?)? {
            let mut command = std::process::Command::new(&binary.executable);
            surround(&mut command, &binary);
            command.env("ASAN_OPTIONS", "detect_leaks=0").env("MEMKV_SANITIZED", "1");
            command.env("MEMKV_BIN_DIR", targets.join("debug")).args(&options.filter).arg("--show-output");
            let ended = announced(&format!("{} (sanitized)", binary.name), command, options)?;
            let tally = Tally::of_binary(&binary.name, &ended.output, succeeded(&ended));
            total.add(report(tally, &ended, options));
        }
    }
    Ok(conclude(&total))
}

fn cargo() -> std::process::Command {
    let mut cargo = shell::cargo();
    // The library finds the sanitizer in the program that loads it.
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address -Clink-arg=-rdynamic");
    cargo
}

fn arguments(package: &str, tests: &[&str], targets: &Path) -> Result<Vec<String>> {
    // With a target named, build scripts and macros are built without the flags.
    let mut arguments =
        ["--package", package, "--lib", "--target", &shell::host()?].map(str::to_owned).to_vec();
    arguments.extend(tests.iter().flat_map(|test| ["--test", test]).map(str::to_owned));
    arguments.push(format!("--target-dir={}", targets.join("sanitized").display()));
    Ok(arguments)
}

fn target_directory() -> Result<PathBuf> {
    let metadata =
        shell::output(shell::cargo().args(["metadata", "--format-version=1", "--no-deps", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    Ok(metadata["target_directory"].as_str().context("cargo does not say where it builds")?.into())
}
