//! What the tests with consumers in other languages share: the backends they run against, the tools
//! they need, and how a test that cannot run says so.
//!
//! A skipped test writes one line, `MEMKV-SKIP <test> <reason>`, straight to stdout, past the
//! harness's capture, so that a runner can count them.

// Each test binary uses its own part of this module.
#![allow(dead_code)]

pub mod backend;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

pub fn skip(test: &str, reason: &str) {
    writeln!(std::io::stdout(), "MEMKV-SKIP {test} {reason}").expect("stdout is there");
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("abi/ is in the repository")
}

/// The first of the tools that cannot be started.
pub fn missing_tool(tools: &[&'static str]) -> Option<&'static str> {
    tools.iter().copied().find(|tool| {
        let started =
            Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        started.is_err()
    })
}

/// Runs a command that must succeed and returns what it wrote to stdout.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", described(&output));
    String::from_utf8(output.stdout).expect("commands write text")
}

pub fn described(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// A directory for what a test binary builds, kept from run to run.
pub fn scratch(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&directory).expect("the scratch directory can be made");
    directory
}

/// The directory that holds libkv_store_dir.so, the reference backend, built once for each binary.
pub fn dir_backend() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let directory = scratch("dir-backend");
        // Under its own name first: another test binary may be loading the library at this moment.
        let built = directory.join(format!("libkv_store_dir.so.{}", std::process::id()));
        run(Command::new("gcc")
            .args([
                "-std=c11",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-O2",
                "-fPIC",
                "-shared",
                "-fvisibility=hidden",
            ])
            .arg("-I")
            .arg(repository().join("conformance/include"))
            .arg(repository().join("conformance/backends/dir.c"))
            .arg("-o")
            .arg(&built));
        fs::rename(built, directory.join("libkv_store_dir.so")).expect("the library can be renamed");
        directory
    })
}

/// Where MemKV's kv_store_v1.h is, as a compiler's argument.
pub fn header_directory() -> String {
    format!("-I{}", repository().join("abi/include").display())
}

/// The directory that holds `memkv` and libkv_store_memkv.so: `MEMKV_BIN_DIR`, or else where cargo
/// puts them, after it was asked to build them.
pub fn programs() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(directory) = std::env::var_os("MEMKV_BIN_DIR") {
            return directory.into();
        }
        // TARGET/PROFILE/deps/test-binary
        let executable = std::env::current_exe().expect("a test knows its path");
        let directory = executable.ancestors().nth(2).expect("cargo's layout");
        let profile = match directory.file_name().and_then(|name| name.to_str()) {
            Some("debug") => "dev",
            Some(name) => name,
            None => panic!("{} is not cargo's layout", directory.display()),
        };
        run(Command::new(env!("CARGO"))
            .current_dir(repository())
            .args(["build", "--quiet", "--package", "memkv-server", "--package", "kv-store-memkv"])
            .args(["--profile", profile, "--target-dir"])
            .arg(directory.parent().expect("cargo's layout")));
        directory.to_owned()
    })
}
