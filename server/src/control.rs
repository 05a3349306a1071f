//! What the `memkv` command and a running server say to each other, over a socket in the data directory.
//!
//! One connection is one line of JSON each way. The socket's mode lets its owner alone connect; that is all the protection it has.
//! It is for people on the same machine and their scripts: nothing of the protocol between clients and servers depends on it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

const SOCKET: &str = "control.sock";
/// A line either way, at most.
pub const LINE_BYTES_MAX: u64 = 1 << 20;
/// A server answers from memory.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn socket_path(data_directory: &Path) -> PathBuf {
    data_directory.join(SOCKET)
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    Status,
    /// Answered with the status once the pass has begun.
    ScrubStart,
    ScrubStop,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    Status(Status),
    /// In words.
    Refused(String),
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Status {
    pub server_id: String,
    pub generation: u64,
    pub drives: Vec<Drive>,
    pub scrub: Scrub,
}

/// A drive of the store, or one that was left out of it (without an index).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Drive {
    pub path: String,
    pub index: Option<u16>,
    pub failed: bool,
    /// Why it was left out when the server started.
    pub left_out: Option<String>,
    pub extents: u32,
    pub extents_free: u32,
    pub read_errors: u64,
    pub write_errors: u64,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Scrub {
    pub running: bool,
    /// The pass under way, or the last one.
    pub pass: Option<Pass>,
    /// When the next one begins by itself, if it does; seconds since 1970.
    pub next_unix_s: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Pass {
    pub number: u64,
    pub started_unix_s: u64,
    pub ended_unix_s: Option<u64>,
    /// It came to the end of the store, and was not stopped before.
    pub complete: bool,
    pub extents: u64,
    /// With something in them when the pass began.
    pub extents_expected: u64,
    pub bytes: u64,
    pub records: u64,
    /// Records that did not hold or could not be read: misses now.
    pub damaged: u64,
}

/// Asks the server that uses this data directory.
pub fn ask(data_directory: &Path, request: Request) -> io::Result<Reply> {
    let mut stream = UnixStream::connect(socket_path(data_directory))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_string(&request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_documented() {
        let request = |text: &str| serde_json::from_str::<Request>(text).unwrap();
        assert_eq!(request("\"status\""), Request::Status);
        assert_eq!(request("\"scrub-start\""), Request::ScrubStart);
        assert_eq!(request("\"scrub-stop\""), Request::ScrubStop);
        let refused = Reply::Refused("no".into());
        assert_eq!(serde_json::to_string(&refused).unwrap(), "{\"refused\":\"no\"}");
    }
}
