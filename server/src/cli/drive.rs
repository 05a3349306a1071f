//! `memkv drive`: what is on drives, whether it holds, and how they fare in a running server.

mod check;
mod inspect;
mod list;
mod scrub;
mod table;
mod target;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use self::target::Target;
use crate::config::ConfigError;
use crate::store::{IoError, OpenError};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the machine's block devices, or the drives of one store.
    List(Args),
    /// Show what one drive or shard file says about itself.
    Inspect {
        #[arg(value_name = "PATH")]
        path: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check a store that no server uses: every record, the journals, and whether they agree. Changes nothing.
    ///
    /// Exit code 0: all holds; 1: damage was found; 2: it could not be checked.
    Check(Args),
    /// Have a running server reread everything at its bounded rate, and watch it. What does not hold becomes a miss.
    ///
    /// Exit code 0: all holds; 1: damage was found; 2: there was no whole pass.
    Scrub(scrub::Args),
}

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("in memory mode there are no drives")]
    MemoryMode,
    #[error("there is no store in {}: give its data directory with --data DIR, or its configuration with --config FILE", path.display())]
    NoStore { path: PathBuf },
    #[error("cannot open {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: IoError },
    #[error("{} is in use, by a running server most likely: stop it first; `memkv drive scrub` rereads what a running server holds", path.display())]
    InUse { path: PathBuf },
    #[error("cannot make out the store: {0}")]
    Store(#[from] OpenError),
    #[error("no server answers in {}: {source}; is one running, and may you use its data directory?", path.display())]
    NoServer { path: PathBuf, source: io::Error },
    #[error("the server refused: {0}")]
    Refused(String),
    #[error("the scrub was stopped before its end")]
    Stopped,
    #[error("the server ended before the scrub did")]
    ServerGone,
    #[error("cannot list block devices: {0}")]
    List(io::Error),
    #[error("a reader of {} failed", path.display())]
    Reader { path: PathBuf },
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// What a script is told, where it is asked whether a store is whole.
const FOUND_DAMAGE: u8 = 1;
const NOT_DONE: u8 = 2;

/// An error of its own exit code.
#[derive(Debug)]
pub struct Failed {
    pub error: DriveError,
    pub code: ExitCode,
}

pub fn run(command: Command) -> Result<ExitCode, Failed> {
    let done = |outcome: Result<(), DriveError>| {
        let failed = |error| Failed { error, code: ExitCode::FAILURE };
        outcome.map(|()| ExitCode::SUCCESS).map_err(failed)
    };
    let judged = |outcome: Result<bool, DriveError>| match outcome {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::from(FOUND_DAMAGE)),
        Err(error) => Err(Failed { error, code: ExitCode::from(NOT_DONE) }),
    };
    match command {
        Command::List(args) => done(list::run(&args)),
        Command::Inspect { path, json } => done(inspect::run(&path, json)),
        Command::Check(args) => judged(check::run(&args)),
        Command::Scrub(args) => judged(scrub::run(&args)),
    }
}
