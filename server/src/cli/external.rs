//! Commands that are programs of their own: `memkv NAME ...` runs `memkv-NAME ...`, found beside `memkv` or on PATH.
//!
//! `bench` is one: it uses the client, which this package does not know. The program takes this process's place, so its exit code is
//! what the caller sees.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

pub const HELP: &str = "\
Programs beside this one, or on PATH:
  memkv NAME ...  runs memkv-NAME
  memkv bench     measures a server: throughput, latency, processor time (memkv-bench)";

#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    #[error("no command was given; `memkv --help` lists them")]
    Nameless,
    #[error(
        "there is no memkv-bench beside memkv or on PATH; get it with `cargo build --release -p memkv-bench`"
    )]
    NoBench,
    #[error(
        "there is no command `{0}`, and no program memkv-{0} beside memkv or on PATH; see `memkv --help`"
    )]
    Unknown(String),
    #[error("{program} cannot be run: {source}")]
    Run { program: PathBuf, source: io::Error },
}

/// Ends here only if the program cannot be run.
pub fn run(words: &[OsString]) -> Result<ExitCode, ExternalError> {
    let (name, arguments) = words.split_first().ok_or(ExternalError::Nameless)?;
    let program = find(name).ok_or_else(|| match name.to_str() {
        Some("bench") => ExternalError::NoBench,
        _ => ExternalError::Unknown(name.to_string_lossy().into_owned()),
    })?;
    let source = Command::new(&program).args(arguments).exec();
    Err(ExternalError::Run { program, source })
}

fn find(name: &OsStr) -> Option<PathBuf> {
    // A path would lead to any program at all.
    if name.as_encoded_bytes().contains(&b'/') {
        return None;
    }
    let mut file = OsString::from("memkv-");
    file.push(name);
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.to_owned()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = beside.into_iter().chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join(&file)).find(|program| program.is_file())
}
