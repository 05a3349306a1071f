//! The yardstick over sockets: the same sizes and depth, the same MAC and checksum, no protocol and no store.
//!
//! A server, a process of its own, holds the values of a case in one piece of memory, with their checksums. A request is 64 bytes: act,
//! number and length of a value. Bytes go in frames of at most 1 MiB, each with its checksum before it and its tag behind it; who
//! sends makes the tag, who receives verifies both, as the bytes arrive. A checksum is made where MemKV's is: by who writes.
//! Blocking sockets, a thread for each connection at each side.

use std::io::{IoSlice, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use memkv_wire::checksum::{self, BlockHasher};
use memkv_wire::mac::{BulkAlgorithm, BulkKey, Direction, Key, Schedule};

use super::case::{Act, CONNECTIONS, Case, Peer, Sample, contents};
use super::process::{Process, connect, free_port};

const HEADER: usize = 64;
const TAG: usize = 32;
const FRAME: usize = 1 << 20;
/// Bytes are hashed so many at a time: they are still in cache then.
const PIECE: usize = 256 << 10;

/// What every frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// Tag and checksum.
    Sealed,
    /// A checksum alone.
    NoMac,
}

struct Sealer(Option<BulkKey>);

impl Sealer {
    fn new(seal: Seal) -> Sealer {
        let schedule = Schedule::new(&Key::from_bytes([3; 32]), b"bare", b"loop", 1);
        let key = || schedule.bulk_key(Direction::ClientToServer, BulkAlgorithm::preference()[0]);
        Sealer((seal == Seal::Sealed).then(key))
    }

    /// `checksums` of the value's frames; without them they are made here.
    fn send(&self, stream: &mut TcpStream, value: &[u8], checksums: Option<&[[u8; 16]]>) -> Result<()> {
        for (n, frame) in value.chunks(FRAME).enumerate() {
            let known = checksums.and_then(|all| all.get(n)).copied();
            let mut header = [0; HEADER];
            let mut summer = BlockHasher::new();
            let mut tag = self.0.as_ref().map(BulkKey::begin);
            if known.is_none() {
                // Both read the same bytes: once from memory, once from the cache.
                for piece in frame.chunks(PIECE) {
                    summer.update(piece);
                }
            }
            header[..16].copy_from_slice(&known.unwrap_or_else(|| summer.finish()));
            if let Some(tag) = &mut tag {
                tag.update(&header);
                tag.update(frame);
            }
            let tag = tag.map_or([0; TAG], |tag| tag.finish());
            write_all(stream, &mut [IoSlice::new(&header), IoSlice::new(frame), IoSlice::new(&tag)])?;
        }
        Ok(())
    }

    fn receive(&self, stream: &mut TcpStream, value: &mut [u8]) -> Result<()> {
        for frame in value.chunks_mut(FRAME) {
            let (mut header, mut tag) = ([0; HEADER], [0; TAG]);
            stream.read_exact(&mut header)?;
            let mut summer = BlockHasher::new();
            let mut hasher = self.0.as_ref().map(BulkKey::begin);
            if let Some(hasher) = &mut hasher {
                hasher.update(&header);
            }
            let mut at = 0;
            while at < frame.len() {
                let end = (at + PIECE).min(frame.len());
                let read = stream.read(&mut frame[at..end])?;
                ensure!(read > 0, "the connection is closed");
                if let Some(hasher) = &mut hasher {
                    hasher.update(&frame[at..at + read]);
                }
                summer.update(&frame[at..at + read]);
                at += read;
            }
            stream.read_exact(&mut tag)?;
            if let Some(hasher) = hasher {
                hasher.verify(&tag)?;
            }
            ensure!(summer.finish() == header[..16], "a checksum does not hold");
        }
        Ok(())
    }
}

fn write_all(stream: &mut TcpStream, slices: &mut [IoSlice<'_>]) -> Result<()> {
    let mut left = slices;
    while !left.is_empty() {
        let written = stream.write_vectored(left)?;
        ensure!(written > 0, "the connection is closed");
        IoSlice::advance_slices(&mut left, written);
    }
    Ok(())
}

fn request(act: Act, n: usize, length: usize) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[0] = u8::from(act == Act::Write);
    bytes[8..16].copy_from_slice(&(n as u64).to_le_bytes());
    bytes[16..24].copy_from_slice(&(length as u64).to_le_bytes());
    bytes
}

fn word(bytes: &[u8], at: usize) -> usize {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word) as usize
}

/// The server's process: values of one size, a share of them for each connection.
pub fn serve(port: u16, value_bytes: usize, count: usize, seal: Seal) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("listening");
    let serve =
        |stream| std::thread::spawn(move || serve_one(stream, value_bytes, count / CONNECTIONS, seal));
    let accept = |_| Ok(serve(listener.accept()?.0));
    let threads: Vec<_> = (0..CONNECTIONS).map(accept).collect::<Result<_>>()?;
    threads.into_iter().try_for_each(|thread| match thread.join() {
        Ok(ended) => ended,
        Err(_) => bail!("a server's thread panicked"),
    })
}

fn serve_one(mut stream: TcpStream, value_bytes: usize, count: usize, seal: Seal) -> Result<()> {
    stream.set_nodelay(true)?;
    let sealer = Sealer::new(seal);
    let mut memory = vec![0u8; value_bytes * count];
    let mut checksums: Vec<Vec<[u8; 16]>> = vec![Vec::new(); count];
    let mut asked = [0; HEADER];
    loop {
        match stream.read_exact(&mut asked) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let (n, length) = (word(&asked, 8) % count, word(&asked, 16));
        ensure!(length == value_bytes, "a value of another size");
        let value = &mut memory[n * value_bytes..][..value_bytes];
        if asked[0] == 1 {
            sealer.receive(&mut stream, value)?;
            if checksums[n].is_empty() {
                checksums[n] = value.chunks(FRAME).map(checksum::block).collect();
            }
            stream.write_all(&asked)?;
        } else {
            sealer.send(&mut stream, value, Some(&checksums[n]))?;
        }
    }
}

/// The client's side.
pub struct Bare {
    name: &'static str,
    seal: Seal,
    running: Option<(Process, Vec<TcpStream>)>,
    contents: Vec<Vec<u8>>,
}

impl Bare {
    pub fn new(name: &'static str, seal: Seal) -> Bare {
        Bare { name, seal, running: None, contents: Vec::new() }
    }
}

impl Peer for Bare {
    fn name(&self) -> &'static str {
        self.name
    }

    fn prepare(&mut self, case: &Case) -> Result<()> {
        self.running = None;
        self.contents = contents(case);
        let port = free_port()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bare-server").args([
            port.to_string(),
            case.value_bytes.to_string(),
            case.count.to_string(),
        ]);
        if self.seal == Seal::NoMac {
            command.arg("--no-mac");
        }
        let process = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))?;
        let streams = (0..CONNECTIONS).map(|_| connect(port)).collect::<Result<_>>()?;
        self.running = Some((process, streams));
        self.pass(case, Act::Write)?;
        self.pass(case, Act::Read).map(drop)
    }

    fn pass(&mut self, case: &Case, act: Act) -> Result<Sample> {
        let bytes = (case.count * case.value_bytes) as u64;
        let (process, streams) = self.running.as_mut().context("not prepared")?;
        let (contents, seal) = (&self.contents, self.seal);
        Sample::of(
            bytes,
            || process.cpu_seconds(),
            || {
                std::thread::scope(|scope| {
                    let run = |stream| scope.spawn(move || client(stream, case, act, contents, seal));
                    let running: Vec<_> = streams.iter_mut().map(run).collect();
                    running.into_iter().try_for_each(|thread| match thread.join() {
                        Ok(ended) => ended,
                        Err(_) => bail!("a client's thread panicked"),
                    })
                })
            },
        )
    }
}

/// One connection's share of a pass, with its share of the window under way.
fn client(stream: &mut TcpStream, case: &Case, act: Act, contents: &[Vec<u8>], seal: Seal) -> Result<()> {
    let sealer = Sealer::new(seal);
    let (share, window) = (case.count / CONNECTIONS, (case.in_flight / CONNECTIONS).max(1));
    let mut buffers: Vec<Vec<u8>> = vec![vec![0; case.value_bytes]; window.min(16)];
    let places = buffers.len();
    let (mut sent, mut asked) = (0, Vec::new());
    for received in 0..share {
        // Small requests share a system call, as they do everywhere here.
        let low = if case.value_bytes < FRAME / 16 { window / 2 } else { window - 1 };
        if sent < share && sent - received <= low {
            while sent < share && sent - received < window {
                asked.extend_from_slice(&request(act, sent, case.value_bytes));
                if act == Act::Write {
                    stream.write_all(&asked)?;
                    asked.clear();
                    sealer.send(stream, &contents[sent % contents.len()], None)?;
                }
                sent += 1;
            }
            stream.write_all(&asked)?;
            asked.clear();
        }
        if act == Act::Write {
            let mut answer = [0; HEADER];
            stream.read_exact(&mut answer)?;
        } else {
            sealer.receive(stream, &mut buffers[received % places])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(seal: Seal) {
        let case = Case { name: "test", value_bytes: FRAME + 5000, in_flight: 4, batch: 1, count: 6 };
        let port = free_port().unwrap();
        let server = std::thread::spawn(move || serve(port, case.value_bytes, case.count, seal));
        let contents = contents(&case);
        let mut streams: Vec<_> = (0..CONNECTIONS).map(|_| connect(port).unwrap()).collect();
        for act in [Act::Write, Act::Read] {
            for stream in &mut streams {
                client(stream, &case, act, &contents, seal).unwrap();
            }
        }
        drop(streams);
        server.join().unwrap().unwrap();
    }

    #[test]
    fn values_go_there_and_back() {
        moved(Seal::Sealed);
        moved(Seal::NoMac);
    }

    #[test]
    fn a_wrong_tag_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut other, _) = listener.accept().unwrap();
        Sealer::new(Seal::NoMac).send(&mut stream, &[1; 100], None).unwrap();
        assert!(Sealer::new(Seal::Sealed).receive(&mut other, &mut [0; 100]).is_err());
    }
}
