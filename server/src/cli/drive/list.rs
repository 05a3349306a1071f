//! `memkv drive list`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::table::{size, table};
use super::target::Found;
use super::{Args, DriveError};
use crate::control::{self, Reply, Request, Status};
use crate::probe::{Contents, ReadOnly, Sharing};

/// A drive, as far as it can be looked at.
struct Row {
    path: PathBuf,
    bytes: Option<u64>,
    contents: Result<Contents, String>,
    uses: Vec<String>,
}

pub fn run(args: &Args) -> Result<(), DriveError> {
    let found = if args.target.is_given() { args.target.find()? } else { every_block_device()? };
    let mut rows: Vec<Row> = found.drives.iter().map(|path| look(path)).collect();
    add_uses(&mut rows);
    let status = found.directory.as_deref().and_then(running);
    let mut output = io::stdout().lock();
    if args.json {
        let drives: Vec<Value> = rows.iter().map(json_of).collect();
        writeln!(output, "{:#}", json!({ "drives": drives, "server": status }))?;
        return Ok(());
    }
    let mut cells =
        vec![["PATH", "SIZE", "HOLDS", "STORE", "DRIVE", "GENERATION", "IN USE"].map(str::to_owned).to_vec()];
    cells.extend(rows.iter().map(cells_of));
    output.write_all(table(&cells).as_bytes())?;
    if let Some(status) = status {
        output.write_all(in_words(&status).as_bytes())?;
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn every_block_device() -> Result<Found, DriveError> {
    let devices = crate::probe::block_devices().map_err(DriveError::List)?;
    let drives = devices.into_iter().map(|device| device.path).collect();
    Ok(Found { drives, directory: None, id: None })
}

#[cfg(not(target_os = "linux"))]
fn every_block_device() -> Result<Found, DriveError> {
    Err(DriveError::List(io::ErrorKind::Unsupported.into()))
}

#[cfg(target_os = "linux")]
fn add_uses(rows: &mut [Row]) {
    for row in rows {
        let uses = crate::probe::uses_of(&row.path).unwrap_or_default();
        row.uses = uses.iter().map(ToString::to_string).collect();
    }
}

#[cfg(not(target_os = "linux"))]
fn add_uses(_: &mut [Row]) {}

fn look(path: &Path) -> Row {
    let opened = ReadOnly::open(path, Sharing::Anyone);
    let bytes = opened.as_ref().ok().map(ReadOnly::capacity_bytes);
    let contents = match opened {
        Ok(drive) => drive.contents().map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    Row { path: path.to_owned(), bytes, contents, uses: Vec::new() }
}

/// What the server says that uses this data directory, if there is one.
fn running(directory: &Path) -> Option<Status> {
    match control::ask(directory, Request::Status) {
        Ok(Reply::Status(status)) => Some(status),
        Ok(Reply::Refused(_)) | Err(_) => None,
    }
}

fn cells_of(row: &Row) -> Vec<String> {
    let path = row.path.display().to_string();
    let bytes = row.bytes.map_or("?".to_owned(), size);
    let uses = row.uses.join(", ");
    let none = String::new;
    match &row.contents {
        Ok(Contents::MemKv(label)) => {
            let store = hex::encode(label.server_id);
            let drive = format!("{} of {}", label.index + 1, label.count);
            vec![path, bytes, "memkv".into(), store, drive, label.generation.to_string(), uses]
        }
        Ok(contents) => vec![path, bytes, what(contents).into(), none(), none(), none(), uses],
        Err(error) => vec![path, bytes, format!("cannot be read: {error}"), none(), none(), none(), uses],
    }
}

pub(super) fn what(contents: &Contents) -> &'static str {
    match contents {
        Contents::MemKv(_) => "memkv",
        Contents::Blank => "nothing",
        Contents::Unknown => "something unknown",
        Contents::Foreign { what } => what,
    }
}

fn json_of(row: &Row) -> Value {
    let path = row.path.to_string_lossy();
    let store = match &row.contents {
        Ok(Contents::MemKv(label)) => json!({
            "id": hex::encode(label.server_id),
            "index": label.index,
            "count": label.count,
            "generation": label.generation,
            "clean": label.clean,
        }),
        Ok(_) | Err(_) => Value::Null,
    };
    let (holds, error) = match &row.contents {
        Ok(contents) => (Some(what(contents)), None),
        Err(error) => (None, Some(error)),
    };
    json!({ "path": path, "bytes": row.bytes, "holds": holds, "error": error, "store": store, "in_use": row.uses })
}

/// The drives of a running server, and its scrubbing.
fn in_words(status: &Status) -> String {
    let heads = ["IN THE RUNNING SERVER", "STATE", "FREE", "READ ERRORS", "WRITE ERRORS"];
    let mut cells = vec![heads.map(str::to_owned).to_vec()];
    for drive in &status.drives {
        let state = match (&drive.left_out, drive.failed) {
            (Some(why), _) => format!("left out: {why}"),
            (None, true) => "failed".to_owned(),
            (None, false) => "good".to_owned(),
        };
        let free = format!("{} of {} extents", drive.extents_free, drive.extents);
        let (read, write) = (drive.read_errors.to_string(), drive.write_errors.to_string());
        cells.push(vec![drive.path.clone(), state, free, read, write]);
    }
    format!("\n{}\n{}", table(&cells), super::scrub::in_words(&status.scrub))
}
