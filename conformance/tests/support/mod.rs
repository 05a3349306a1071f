//! What the tests of the suites share: compiled backends, and runs of the binary.
#![allow(dead_code, reason = "every test binary uses a part of it")]

pub mod memkv;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use serde_json::Value;
use tempfile::TempDir;

/// This package.
pub fn conformance() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the build is UTF-8")
}

/// Compiles a backend in C, or says that the test is skipped.
pub fn compile(test: &str, source: &str, name: &str) -> Option<PathBuf> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    if Command::new(&compiler).arg("--version").output().is_err() {
        println!("MEMKV-SKIP {test} there is no C compiler");
        return None;
    }
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("libkv_store_{name}.so"));
    let output = Command::new(&compiler)
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared", "-pthread"])
        .arg("-fvisibility=hidden")
        .arg("-I")
        .arg(conformance().join("include"))
        .arg(conformance().join(source))
        .arg("-o")
        .arg(&library)
        .output()
        .expect("the compiler runs");
    assert!(output.status.success(), "{source}: {}", String::from_utf8_lossy(&output.stderr));
    Some(library)
}

/// The ABI suite on a directory of its own.
pub struct Suite {
    library: PathBuf,
    directory: TempDir,
    pub mutant: Option<String>,
}

/// What a run of the binary came to.
pub struct Run {
    pub code: Option<i32>,
    output: Output,
    report: Value,
}

impl Suite {
    pub fn new(library: &Path) -> Suite {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Suite { library: library.to_owned(), directory, mutant: None }
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        let path = |name: &str| self.directory.path().join(name);
        let uri = |name: &str| format!("dir://{}", text(&path(name)));
        let mut command = Command::new(env!("CARGO_BIN_EXE_memkv-conformance"));
        command
            .arg("abi")
            .arg(&self.library)
            .args([uri("a"), "--other-uri".to_owned(), uri("b")])
            .args(["--restart-command", "rm -rf \"$VOLATILE\"", "--json"])
            .args(arguments)
            .env("VOLATILE", path("volatile"))
            .env_remove("MUTANT");
        if let Some(mutant) = &self.mutant {
            command.env("MUTANT", mutant);
        }
        Run::of(&mut command)
    }
}

impl Run {
    pub fn of(command: &mut Command) -> Run {
        let output = command.output().expect("the suite runs");
        let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        Run { code: output.status.code(), output, report }
    }

    pub fn report(&self) -> &Value {
        &self.report
    }

    /// By case.
    pub fn verdicts(&self) -> BTreeMap<String, String> {
        let word = |case: &Value, field: &str| case[field].as_str().unwrap_or_default().to_owned();
        let cases = self.report["cases"].as_array().into_iter().flatten();
        cases.map(|case| (word(case, "id"), word(case, "verdict"))).collect()
    }

    /// What did not pass, for a failed test's message.
    /// Whether this case failed, and the run with it.
    pub fn fails(&self, case: &str) -> bool {
        self.code == Some(1) && self.verdicts().get(case).is_some_and(|verdict| verdict == "failed")
    }

    pub fn told(&self) -> String {
        let cases = self.report["cases"].as_array().into_iter().flatten();
        let bad: Vec<String> =
            cases.filter(|case| case["verdict"] != "passed").map(ToString::to_string).collect();
        let stderr = String::from_utf8_lossy(&self.output.stderr);
        format!("exit code {:?}; {}\n{stderr}", self.code, bad.join("\n"))
    }
}

/// Builds a package of the workspace that is no dependency of this one, and gives the path of what it makes.
pub fn build(package: &str, product: &str) -> PathBuf {
    cargo_build(&["--package", package]).join(product)
}

/// Builds an example of such a package.
pub fn build_example(package: &str, example: &str) -> PathBuf {
    cargo_build(&["--package", package, "--example", example]).join("examples").join(example)
}

/// The directory in which what was built is: `MEMKV_BIN_DIR`, or else where cargo puts it, after it was asked to build it.
fn cargo_build(arguments: &[&str]) -> PathBuf {
    if let Some(directory) = std::env::var_os("MEMKV_BIN_DIR") {
        return directory.into();
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let binary = Path::new(env!("CARGO_BIN_EXE_memkv-conformance"));
    let directory = binary.parent().expect("a binary is in a directory");
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet"]).args(arguments).current_dir(conformance());
    if directory.ends_with("release") {
        command.arg("--release");
    }
    let status = command.status().expect("cargo runs");
    assert!(status.success(), "{arguments:?} does not build");
    directory.to_owned()
}

/// Runs each of these on `threads` threads; fails with what those came back with that were not caught.
pub fn all_caught<T: Send>(mutants: Vec<T>, threads: usize, run: impl Fn(T) -> Result<(), String> + Sync) {
    let (queue, missed) = (Mutex::new(mutants.into_iter()), Mutex::new(Vec::new()));
    let next = || queue.lock().expect("no thread panics").next();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(mutant) = next() {
                    if let Err(why) = run(mutant) {
                        missed.lock().expect("no thread panics").push(why);
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().expect("no thread panics");
    assert!(missed.is_empty(), "not caught:\n{}", missed.join("\n"));
}

/// The lines of a list of mutants: each with the case that must catch it.
pub fn pairs(list: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(list).expect("the list");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (mutant, case) = line.split_once(' ').unwrap_or_else(|| panic!("{line}: no case"));
            (mutant.to_owned(), case.trim().to_owned())
        })
        .collect()
}
