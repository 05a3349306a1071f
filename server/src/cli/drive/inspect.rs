//! `memkv drive inspect`.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::DriveError;
use super::list::what;
use super::table::{size, table};
use crate::io::{Device, Devices};
use crate::probe::{Contents, ReadOnly, Sharing, is_in_use};
use crate::store::inspect::{Label, Space, space};

pub fn run(path: &Path, json: bool) -> Result<(), DriveError> {
    let failed = |source| DriveError::Open { path: path.to_owned(), source };
    let (drive, in_use) = match ReadOnly::open(path, Sharing::Readers) {
        Ok(drive) => (drive, false),
        Err(error) if is_in_use(&error) => (ReadOnly::open(path, Sharing::Anyone).map_err(failed)?, true),
        Err(error) => return Err(failed(error)),
    };
    let unread = |source| DriveError::Read { path: path.to_owned(), source };
    let contents = drive.contents().map_err(unread)?;
    let bytes = drive.capacity_bytes();
    let device: Arc<dyn Device> = Arc::new(drive);
    let inside = match &contents {
        // What a server writes meanwhile would look like damage.
        Contents::MemKv(label) if !in_use => {
            Some(space(&mut Devices::new(vec![device]), 0, label).map_err(unread)?)
        }
        Contents::MemKv(_) | Contents::Blank | Contents::Foreign { .. } | Contents::Unknown => None,
    };
    let mut output = io::stdout().lock();
    if json {
        let text = json_of(path, bytes, in_use, &contents, inside.as_ref());
        writeln!(output, "{text:#}")?;
    } else {
        output.write_all(in_words(path, bytes, in_use, &contents, inside.as_ref()).as_bytes())?;
    }
    Ok(())
}

fn members(label: &Label) -> Vec<u16> {
    (0..label.count).filter(|index| label.is_member(*index)).collect()
}

fn in_words(path: &Path, bytes: u64, in_use: bool, contents: &Contents, space: Option<&Space>) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, text: String| rows.push(vec![name.to_owned(), text]);
    row("path", path.display().to_string());
    row("size", format!("{} ({bytes} bytes)", size(bytes)));
    row("in use", if in_use { "yes: space is not shown, it changes".into() } else { "no".into() });
    let Contents::MemKv(label) = contents else {
        row("holds", what(contents).to_owned());
        return table(&rows);
    };
    row("holds", format!("drive {} of {} of a MemKV store", label.index + 1, label.count));
    row("store", hex::encode(label.server_id));
    row("format", format!("version {}", label.format_version));
    row("generation", format!("{}, superblock {}", label.generation, label.sequence));
    let members: Vec<_> = members(label).iter().map(|index| (index + 1).to_string()).collect();
    row("members", format!("drives {}", members.join(" ")));
    row("closed", if label.clean { "in good order".into() } else { "no: in use, or cut off".into() });
    row("extents", format!("{} of {}", label.extents, size(label.extent_bytes.into())));
    if label.device_bytes() > bytes {
        row("truncated", format!("{} bytes are missing at the end", label.device_bytes() - bytes));
    }
    if let Some(space) = space {
        let Space { free, journal, open, sealed, .. } = space;
        row("space", format!("{free} free, {sealed} sealed, {open} open, {journal} of the journal"));
        row("records", format!("{} listed, {}", space.records, size(space.record_bytes)));
        row("journal", format!("{} frames, {} entries", space.journal_frames, space.journal_entries));
    }
    table(&rows)
}

fn json_of(path: &Path, bytes: u64, in_use: bool, contents: &Contents, space: Option<&Space>) -> Value {
    let store = match contents {
        Contents::MemKv(label) => json!({
            "id": hex::encode(label.server_id),
            "index": label.index,
            "count": label.count,
            "format_version": label.format_version,
            "generation": label.generation,
            "sequence": label.sequence,
            "members": members(label),
            "clean": label.clean,
            "extents": label.extents,
            "extent_bytes": label.extent_bytes,
            "bytes_missing": label.device_bytes().saturating_sub(bytes),
        }),
        Contents::Blank | Contents::Foreign { .. } | Contents::Unknown => Value::Null,
    };
    let space = space.map(|space| {
        json!({
            "extents_free": space.free,
            "extents_sealed": space.sealed,
            "extents_open": space.open,
            "extents_journal": space.journal,
            "records": space.records,
            "record_bytes": space.record_bytes,
            "journal_frames": space.journal_frames,
            "journal_entries": space.journal_entries,
        })
    });
    let path = path.to_string_lossy();
    json!({ "path": path, "bytes": bytes, "in_use": in_use, "holds": what(contents), "store": store, "space": space })
}
