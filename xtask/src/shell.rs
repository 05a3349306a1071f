//! Running other programs from the workspace's root.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The workspace's root: this package's folder's parent, as it was when this program was compiled.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The cargo that runs us.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root());
    command
}

/// What the compiler makes programs for, unless told otherwise.
pub fn host() -> Result<String> {
    let told = output(Command::new("rustc").arg("-vV"))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say for which host it is")?.to_owned())
}

/// Features that replace an implementation instead of adding to it: tests are of what ships, so these stay off.
/// Each with a package and its tests that show that it makes no difference.
pub const FEATURES_APART: &[(&str, &str, &[&str])] = &[
    ("memkv-wire/aegis-pure-rust", "memkv-transport", &["vectors"]),
    ("memkv-server/portable-io", "memkv-server", &["process", "crash", "drive", "damage"]),
];

/// Every other feature of the workspace's packages, or of some of them, as cargo's `--features` takes them.
pub fn features(of_packages: &[String]) -> Result<String> {
    let metadata = output(cargo().args(["metadata", "--format-version=1", "--no-deps", "--locked"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let mut features = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        if !of_packages.is_empty() && of_packages.iter().all(|package| package != name) {
            continue;
        }
        for feature in package["features"].as_object().into_iter().flat_map(|features| features.keys()) {
            features.push(format!("{name}/{feature}"));
        }
    }
    features.retain(|feature| FEATURES_APART.iter().all(|(apart, ..)| feature != apart));
    Ok(features.join(","))
}

/// Runs to the end with its output shown.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

/// Runs to the end and returns what it wrote on stdout; stderr is shown.
pub fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} wrote what is not UTF-8"))
}
