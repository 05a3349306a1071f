//! The driver of the client under test: a process that is told what to do, one line at a time.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::case::Outcome;
use crate::child::EXIT_SKIPPED;
use crate::{ensure, fail, skip};

/// How much longer than it was told a client may take.
const GRACE: Duration = Duration::from_secs(10);

/// What the driver answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done, and what came with it.
    Ok(Vec<String>),
    Miss,
    Missing(Vec<u32>),
    Error(String),
}

/// What the driver finds in its environment.
pub struct Environment<'a> {
    pub address: &'a str,
    pub key: &'a str,
    pub namespace: &'a str,
    pub timeout: Duration,
}

/// A running driver. Ended when dropped.
pub struct Driver {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    timeout: Duration,
}

impl Driver {
    pub fn start(command: &str, environment: &Environment<'_>) -> Outcome<Driver> {
        let started = Command::new("/bin/sh")
            .args(["-c", command])
            .env("MEMKV_ADDRESS", environment.address)
            .env("MEMKV_AUTH_KEY", environment.key)
            .env("MEMKV_NAMESPACE", environment.namespace)
            .env("MEMKV_TIMEOUT_MS", environment.timeout.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) => fail!("the driver cannot be started: {error}"),
        };
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            fail!("the driver has no input or output")
        };
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut all = BufReader::new(output).lines().map_while(Result::ok);
            // Nobody listens any more when the case is over.
            let _ = all.try_for_each(|line| sender.send(line));
        });
        Ok(Driver { child, input: Some(input), lines, timeout: environment.timeout })
    }

    /// Tells it what to do, and waits for its answer.
    pub fn ask(&mut self, request: &str) -> Outcome<Answer> {
        let told = self.input.as_mut().map(|input| {
            input
                .write_all(request.as_bytes())
                .and_then(|()| input.write_all(b"\n"))
                .and_then(|()| input.flush())
        });
        if !matches!(told, Some(Ok(()))) {
            return self.ended(request);
        }
        match self.lines.recv_timeout(self.timeout + GRACE) {
            Ok(line) => understand(request, &line),
            Err(RecvTimeoutError::Timeout) => {
                fail!("{} was not answered within {:?} and {GRACE:?} more", head(request), self.timeout)
            }
            Err(RecvTimeoutError::Disconnected) => self.ended(request),
        }
    }

    fn ended(&mut self, request: &str) -> Outcome<Answer> {
        match self.child.wait() {
            Ok(status) if status.code() == Some(EXIT_SKIPPED.into()) => {
                skip!("the driver does not implement it")
            }
            Ok(status) => fail!("the driver ended with {status} instead of answering {}", head(request)),
            Err(error) => fail!("the driver cannot be waited for: {error}"),
        }
    }

    /// Ends its input, and expects that it ends in good order and says no more.
    pub fn finish(mut self) -> Outcome {
        drop(self.input.take());
        match self.lines.recv_timeout(self.timeout + GRACE) {
            Ok(line) => fail!("the driver wrote a line that nobody asked for: {}", head(&line)),
            Err(RecvTimeoutError::Timeout) => fail!("the driver does not end when its input does"),
            Err(RecvTimeoutError::Disconnected) => {}
        }
        match self.child.wait() {
            Ok(status) => ensure!(status.success(), "the driver ended with {status}"),
            Err(error) => fail!("the driver cannot be waited for: {error}"),
        }
        Ok(())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.input.take());
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn understand(request: &str, line: &str) -> Outcome<Answer> {
    let mut words = line.split(' ');
    match words.next() {
        Some("ok") => Ok(Answer::Ok(words.map(str::to_owned).collect())),
        Some("miss") if words.next().is_none() => Ok(Answer::Miss),
        Some("missing") => {
            let places: Result<Vec<u32>, _> = words.map(str::parse).collect();
            match places {
                Ok(places) => Ok(Answer::Missing(places)),
                Err(_) => fail!("{} was answered with {}", head(request), head(line)),
            }
        }
        Some("error") => Ok(Answer::Error(words.collect::<Vec<_>>().join(" "))),
        Some("unimplemented") => skip!("the driver does not implement {}", head(request)),
        _ => fail!("{} was answered with {}", head(request), head(line)),
    }
}

/// The beginning of a line, for people.
fn head(line: &str) -> String {
    let mut head: String = line.chars().take(60).collect();
    if head.len() < line.len() {
        head.push_str("...");
    }
    format!("`{head}`")
}

/// Bytes as drivers read and write them.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = Vec::with_capacity(bytes.len() * 2 + 1);
    for byte in bytes {
        text.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    if text.is_empty() {
        text.push(b'-');
    }
    String::from_utf8(text).unwrap_or_default()
}

/// `None` for what is not written so.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = match text.as_bytes() {
        b"-" => return Some(Vec::new()),
        digits if digits.is_empty() || digits.len() % 2 != 0 => return None,
        digits => digits,
    };
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    for pair in digits.chunks_exact(2) {
        bytes.push(value(pair[0])? << 4 | value(pair[1])?);
    }
    Some(bytes)
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_being_written() {
        for bytes in [&b""[..], b"\0", b"\x01\xff\x80"] {
            assert_eq!(unhex(&hex(bytes)).as_deref(), Some(bytes));
        }
        for wrong in ["", "0", "0g", "001", " 00"] {
            assert_eq!(unhex(wrong), None);
        }
    }
}
