//! `memkv drive scrub`: has a running server reread what it holds, and watches.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::DriveError;
use super::table::size;
use super::target::Target;
use crate::control::{self, Pass, Reply, Request, Scrub, Status};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Begin a pass and do not wait for its end.
    #[arg(long, conflicts_with_all = ["stop", "status"])]
    no_wait: bool,
    /// Stop the pass that is under way.
    #[arg(long, conflicts_with = "status")]
    stop: bool,
    /// Only say how far it is.
    #[arg(long)]
    status: bool,
}

/// How often a pass under way is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Whether nothing damaged was found, as far as was looked.
pub fn run(args: &Args) -> Result<bool, DriveError> {
    let directory = args.target.directory()?;
    let request = match (args.stop, args.status) {
        (true, _) => Request::ScrubStop,
        (false, true) => Request::Status,
        (false, false) => Request::ScrubStart,
    };
    let mut scrub = ask(&directory, request)?.scrub;
    if request == Request::ScrubStart && !args.no_wait {
        scrub = watch(&directory, scrub)?;
    }
    if args.json {
        writeln!(io::stdout(), "{:#}", json!(scrub))?;
    } else {
        writeln!(io::stdout(), "{}", in_words(&scrub))?;
    }
    let asked_for_whole = request == Request::ScrubStart && !args.no_wait;
    match scrub.pass {
        Some(pass) if asked_for_whole && !pass.complete => Err(DriveError::Stopped),
        Some(pass) => Ok(pass.damaged == 0),
        None => Ok(true),
    }
}

fn ask(directory: &Path, request: Request) -> Result<Status, DriveError> {
    match control::ask(directory, request) {
        Ok(Reply::Status(status)) => Ok(status),
        Ok(Reply::Refused(why)) => Err(DriveError::Refused(why)),
        Err(source) => Err(DriveError::NoServer { path: directory.to_owned(), source }),
    }
}

fn watch(directory: &Path, mut scrub: Scrub) -> Result<Scrub, DriveError> {
    let bar = if io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} extents, {eta} left; {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    while scrub.running {
        if let Some(pass) = scrub.pass {
            bar.set_length(pass.extents_expected.max(pass.extents));
            bar.set_position(pass.extents);
            bar.set_message(format!("{} damaged", pass.damaged));
        }
        std::thread::sleep(LOOK);
        scrub = ask(directory, Request::Status).map_err(|_| DriveError::ServerGone)?.scrub;
    }
    bar.finish_and_clear();
    Ok(scrub)
}

pub(super) fn in_words(scrub: &Scrub) -> String {
    let Some(pass) = scrub.pass else {
        return if scrub.running { "a scrub begins" } else { "never scrubbed" }.to_owned();
    };
    let Pass { number, extents, extents_expected, bytes, records, damaged, .. } = pass;
    let state = match (scrub.running, pass.complete) {
        (true, _) => format!("is under way, {extents} of {extents_expected} extents"),
        (false, true) => "is complete".to_owned(),
        (false, false) => "was stopped".to_owned(),
    };
    let found = if damaged == 0 {
        "all hold".to_owned()
    } else {
        format!("{damaged} did not hold and are misses now")
    };
    format!("scrub {number} {state}: {records} records, {} read, {found}", size(bytes))
}
