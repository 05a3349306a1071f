//! A client for the two peers that speak a text protocol: blocking sockets, a thread for each connection, requests pipelined.
//!
//! Nothing is parsed but the first line of a reply, nothing is copied but what the socket copies, and small requests are
//! written many at a time: no library for these peers does less.

use std::io::{BufRead as _, BufReader, IoSlice, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::case::{Act, CONNECTIONS, Case, Peer, Sample, contents};
use super::process::{Process, connect, free_port};

/// How requests look, and replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Redis,
    Memcached,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Protocol::Redis => "redis",
            Protocol::Memcached => "memcached",
        }
    }

    /// What starts a server of that kind.
    pub fn server(self, port: &str) -> Command {
        match self {
            Protocol::Redis => {
                let mut command = Command::new("redis-server");
                command.args(["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
                command
            }
            Protocol::Memcached => {
                let mut command = Command::new("memcached");
                // As root it asks for the user to be.
                command.args([
                    "-p",
                    port,
                    "-l",
                    "127.0.0.1",
                    "-m",
                    "2048",
                    "-I",
                    "32m",
                    "-t",
                    "2",
                    "-u",
                    "nobody",
                ]);
                command
            }
        }
    }

    /// What stands before a value that is written.
    fn write_head(self, into: &mut Vec<u8>, key: &str, length: usize) -> Result<()> {
        match self {
            Protocol::Redis => {
                write!(into, "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${length}\r\n", key.len())?;
            }
            Protocol::Memcached => write!(into, "set {key} 0 0 {length}\r\n")?,
        }
        Ok(())
    }

    fn read_request(self, into: &mut Vec<u8>, key: &str) -> Result<()> {
        match self {
            Protocol::Redis => write!(into, "*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len())?,
            Protocol::Memcached => write!(into, "get {key}\r\n")?,
        }
        Ok(())
    }

    /// The length that a reply's first line announces.
    fn length(self, line: &str) -> Option<usize> {
        match self {
            Protocol::Redis => line.strip_prefix('$')?.trim_end().parse().ok(),
            Protocol::Memcached => line.strip_prefix("VALUE ")?.split_whitespace().nth(2)?.parse().ok(),
        }
    }

    fn stored(self, line: &str) -> bool {
        line.trim_end() == if self == Protocol::Redis { "+OK" } else { "STORED" }
    }

    /// What stands behind a value that is read.
    fn tail(self) -> &'static [u8] {
        if self == Protocol::Redis { b"\r\n" } else { b"\r\nEND\r\n" }
    }
}

/// A server of that kind, and connections to it.
pub struct Pipelined {
    protocol: Protocol,
    process: Process,
    connections: Vec<Connection>,
    contents: Vec<Vec<u8>>,
}

impl Pipelined {
    pub fn start(protocol: Protocol) -> Result<Pipelined> {
        let port = free_port()?;
        let process = Process::quiet(&mut protocol.server(&port.to_string()))?;
        let connection = |_| Connection::new(protocol, connect(port)?);
        let connections = (0..CONNECTIONS).map(connection).collect::<Result<_>>()?;
        Ok(Pipelined { protocol, process, connections, contents: Vec::new() })
    }
}

impl Peer for Pipelined {
    fn name(&self) -> &'static str {
        self.protocol.name()
    }

    fn prepare(&mut self, case: &Case) -> Result<()> {
        self.contents = contents(case);
        let forget = if self.protocol == Protocol::Redis { "FLUSHALL\r\n" } else { "flush_all\r\n" };
        let first = self.connections.first_mut().context("no connection")?;
        first.stream.write_all(forget.as_bytes())?;
        ensure!(first.line()?.contains("OK"), "{}: cannot be emptied", self.protocol.name());
        self.pass(case, Act::Write).map(drop)
    }

    fn pass(&mut self, case: &Case, act: Act) -> Result<Sample> {
        let bytes = (case.count * case.value_bytes) as u64;
        let (connections, contents, process) = (&mut self.connections, &self.contents, &self.process);
        Sample::of(
            bytes,
            || process.cpu_seconds(),
            || {
                let share = case.count / CONNECTIONS;
                std::thread::scope(|scope| {
                    let run = |(place, connection): (usize, _)| {
                        let keys = place * share..(place + 1) * share;
                        scope.spawn(move || Connection::run(connection, case, act, keys, contents))
                    };
                    let running: Vec<_> = connections.iter_mut().enumerate().map(run).collect();
                    running.into_iter().try_for_each(|thread| match thread.join() {
                        Ok(ended) => ended,
                        Err(_) => bail!("a client's thread panicked"),
                    })
                })
            },
        )
    }
}

struct Connection {
    protocol: Protocol,
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    requests: Vec<u8>,
    value: Vec<u8>,
    line: String,
}

/// Values from here on are written past the buffer.
const LARGE: usize = 32 << 10;

impl Connection {
    fn new(protocol: Protocol, stream: TcpStream) -> Result<Connection> {
        let reader = BufReader::with_capacity(64 << 10, stream.try_clone()?);
        let (requests, value, line) = (Vec::new(), Vec::new(), String::new());
        Ok(Connection { protocol, stream, reader, requests, value, line })
    }

    /// Keeps this connection's share of the window full: half of it is sent at a time, so that small requests share a
    /// system call.
    fn run(
        &mut self,
        case: &Case,
        act: Act,
        keys: std::ops::Range<usize>,
        contents: &[Vec<u8>],
    ) -> Result<()> {
        let window = (case.in_flight / CONNECTIONS).max(1);
        let burst = if case.value_bytes < LARGE { (window / 2).max(1) } else { 1 };
        let (mut sent, mut received) = (keys.start, keys.start);
        while received < keys.end {
            while sent < keys.end && sent + burst - received <= window {
                for n in sent..(sent + burst).min(keys.end) {
                    self.request(act, n, &contents[n % contents.len()])?;
                }
                self.flush()?;
                sent = (sent + burst).min(keys.end);
            }
            for _ in received..(received + burst).min(sent) {
                self.reply(act, case.value_bytes)?;
            }
            received = (received + burst).min(sent);
        }
        Ok(())
    }

    fn request(&mut self, act: Act, n: usize, value: &[u8]) -> Result<()> {
        let key = format!("bench-{n:08}");
        if act == Act::Read {
            return self.protocol.read_request(&mut self.requests, &key);
        }
        self.protocol.write_head(&mut self.requests, &key, value.len())?;
        if value.len() < LARGE {
            self.requests.extend_from_slice(value);
        } else {
            let mut slices = [IoSlice::new(&self.requests), IoSlice::new(value)];
            let mut left = &mut slices[..];
            while !left.is_empty() {
                let written = self.stream.write_vectored(left)?;
                ensure!(written > 0, "the connection is closed");
                IoSlice::advance_slices(&mut left, written);
            }
            self.requests.clear();
        }
        self.requests.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.stream.write_all(&self.requests)?;
        self.requests.clear();
        Ok(())
    }

    fn line(&mut self) -> Result<&str> {
        self.line.clear();
        self.reader.read_line(&mut self.line)?;
        Ok(&self.line)
    }

    fn reply(&mut self, act: Act, length: usize) -> Result<()> {
        let protocol = self.protocol;
        let line = self.line()?;
        if act == Act::Write {
            ensure!(protocol.stored(line), "{} answered {line:?}", protocol.name());
            return Ok(());
        }
        ensure!(protocol.length(line) == Some(length), "{} answered {line:?}", protocol.name());
        self.value.resize(length, 0);
        self.reader.read_exact(&mut self.value)?;
        let mut tail = [0; 8];
        let tail = &mut tail[..protocol.tail().len()];
        self.reader.read_exact(tail)?;
        ensure!(tail == protocol.tail(), "{} sent something else behind a value", protocol.name());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_understood() {
        assert_eq!(Protocol::Redis.length("$4096\r\n"), Some(4096));
        assert_eq!(Protocol::Memcached.length("VALUE bench-1 0 4096\r\n"), Some(4096));
        for (protocol, stored) in [(Protocol::Redis, "+OK\r\n"), (Protocol::Memcached, "STORED\r\n")] {
            assert!(protocol.stored(stored) && !protocol.stored("ERROR\r\n"));
            for miss in ["$-1\r\n", "END\r\n", ""] {
                assert_eq!(protocol.length(miss), None, "{miss:?}");
            }
        }
    }

    #[test]
    fn requests_are_whole() {
        let mut bytes = Vec::new();
        Protocol::Redis.write_head(&mut bytes, "key", 5).unwrap();
        assert_eq!(bytes, b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\n");
        bytes.clear();
        Protocol::Memcached.read_request(&mut bytes, "key").unwrap();
        assert_eq!(bytes, b"get key\r\n");
    }
}
