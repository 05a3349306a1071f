//! The real binary, and a raw client on the transport alone.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use memkv_transport::buf::{Buf, BufPool};
use memkv_transport::local;
use memkv_transport::net::WriteHalf;
use memkv_transport::session::ClientTerms;
use memkv_transport::shared::{Region as Memory, SharedMemory};
use memkv_transport::stream::Outgoing;
use memkv_transport::tcp::{self, Reader, Writer};
use memkv_wire::mac::Key;
use memkv_wire::*;

use self::loops::Loop;

pub mod loops;
#[cfg(target_os = "linux")]
pub mod rdma;
#[cfg(target_os = "linux")]
pub mod residue;

pub const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
pub const BLOCK: usize = 1 << 20;
/// The configuration of a server with RDMA: the first device that can be used.
pub const RDMA: &str = "rdma: {}\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    File,
    Memory,
    /// Past the page cache, on two files in place of drives.
    Direct,
    /// Past the page cache, on two loop devices.
    Block,
}

impl Mode {
    /// A directory in which a server can have its store: for direct I/O not a temporary one, which may not take any.
    pub fn directory(self) -> (tempfile::TempDir, PathBuf) {
        match self {
            Mode::Direct => {
                let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
                let path = directory.path().to_owned();
                (directory, path)
            }
            Mode::File | Mode::Memory | Mode::Block => directory(),
        }
    }
}

/// The drives that stores of tests have in direct mode.
const DRIVES: usize = 2;
const DRIVE_MIB: u64 = 128;

/// How a client and a server are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Tcp,
    /// A Unix socket; values go through shared memory.
    Local,
    /// An RDMA queue pair; values go with the frames.
    Rdma,
    /// An RDMA queue pair; values go from and to the client's memory.
    OneSided,
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    pub address: String,
    /// What it printed after its address.
    pub exports: Vec<String>,
    /// Under its store.
    drives: Vec<Loop>,
}

pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memkv"));
    for name in ["MEMKV_AUTH_KEY", "XDG_DATA_HOME", "RUST_LOG"] {
        command.env_remove(name);
    }
    command
}

impl Server {
    pub fn start(mode: Mode, data: &Path) -> Server {
        Server::start_with(mode, data, KEY, "")
    }

    /// A server for clients of this kind.
    pub fn start_for(wire: Wire, mode: Mode, data: &Path) -> Server {
        let more = if matches!(wire, Wire::Rdma | Wire::OneSided) { RDMA } else { "" };
        Server::start_with(mode, data, KEY, more)
    }

    pub fn start_with(mode: Mode, data: &Path, key: &str, more: &str) -> Server {
        let config = data.join("config.yaml");
        let mut drives = Vec::new();
        let storage = match mode {
            Mode::File => {
                let path = data.join("data");
                format!("storage:\n  mode: file\n  path: {}\n  capacity: 512MiB\n", path.display())
            }
            Mode::Memory => "storage:\n  mode: memory\n  capacity: 256MiB\n".to_owned(),
            Mode::Direct => setup(data, (0..DRIVES).map(|n| file(data, n)).collect()),
            Mode::Block => {
                let attach = |n| Loop::attach(data, &format!("drive-{n}"), DRIVE_MIB).unwrap();
                drives = (0..DRIVES).map(attach).collect();
                setup(data, drives.iter().map(|drive| drive.path.clone()).collect())
            }
        };
        std::fs::write(&config, format!("{more}{storage}")).unwrap();
        let mut command = command();
        command.env("MEMKV_AUTH_KEY", key).arg("start").arg("--config").arg(&config);
        command.arg("--listen").arg("127.0.0.1:0").arg("--log-file").arg(data.join("memkv.log"));
        let mut server = Server::spawn(command);
        server.drives = drives;
        server
    }

    pub fn spawn(mut command: Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut exports = Vec::new();
        let mut address = None;
        for _ in 0..3 {
            let mut line = String::new();
            if stdout.read_line(&mut line).unwrap() == 0 {
                break;
            }
            match line.trim().strip_prefix("listening on ") {
                Some(at) => address = Some(at.to_owned()),
                None => exports.push(line.trim().to_owned()),
            }
            if exports.len() == 1 && exports[0].contains("KV_STORE_LIBRARY_PATH") {
                break;
            }
        }
        let address = address.unwrap_or_else(|| panic!("the server did not start: {:?}", child.wait()));
        Server { child, stdout, address, exports, drives: Vec::new() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    pub fn wait(mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "standard output holds nothing but the announcement");
        status
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        memory_bytes(self.child.id(), "VmRSS")
    }

    /// Memory that devices may reach, in bytes.
    pub fn pinned_bytes(&self) -> u64 {
        memory_bytes(self.child.id(), "VmPin")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file in the place of a drive.
fn file(data: &Path, number: usize) -> PathBuf {
    let path = data.join(format!("drive-{number}"));
    std::fs::File::create(&path).unwrap().set_len(DRIVE_MIB << 20).unwrap();
    path
}

/// Makes drives a store; the configuration that `memkv setup` prints for it.
fn setup(data: &Path, drives: Vec<PathBuf>) -> String {
    let names: Vec<&str> = drives.iter().map(|drive| drive.to_str().unwrap()).collect();
    let mut command = command();
    command.arg("setup").arg("--data").arg(data.join("data")).args(["--drives", &names.join(",")]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What the kernel says of a process's memory.
pub fn memory_bytes(process: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

pub fn log(data: &Path) -> String {
    std::fs::read_to_string(data.join("memkv.log")).unwrap_or_default()
}

/// A reply frame, its control message copied so that it can outlive the next one.
pub struct Got {
    pub request_id: u32,
    pub last: bool,
    control: Vec<u64>,
    pub payload: Vec<u8>,
}

impl Got {
    pub fn with<T>(&self, look: impl FnOnce(&Response<'_>) -> T) -> T {
        let bytes: Vec<u8> = self.control.iter().flat_map(|word| word.to_le_bytes()).collect();
        let message = Message::new(&bytes).unwrap();
        look(&Response::decode(&message).unwrap())
    }

    pub fn status(&self) -> Status {
        self.with(|response| response.status)
    }
}

pub struct Client {
    pub reader: Reader,
    pub writer: Writer,
    pub next_id: u32,
    pub namespace: Vec<u8>,
    /// Registered as region 1: what is written is put at its beginning, what is read at [`READ_OFFSET`].
    pub memory: Option<Memory>,
    /// Pieces there have MACs.
    pub signs: bool,
}

pub const MEMORY_BYTES: usize = 32 << 20;
pub const READ_OFFSET: u64 = 16 << 20;

impl Client {
    pub async fn connect(address: &str, client_id: u8) -> Client {
        Client::try_connect(address, client_id, KEY).await.unwrap()
    }

    pub async fn try_connect(
        address: &str,
        client_id: u8,
        key: &str,
    ) -> Result<Client, memkv_transport::error::TransportError> {
        let key = Key::from_hex(key).unwrap();
        let terms = ClientTerms::new([client_id; 16], "test");
        let (reader, writer, _) = tcp::connect(address, &key, &terms, BufPool::new(64 << 20)).await?;
        Ok(Client { reader, writer, next_id: 0, namespace: b"test".to_vec(), memory: None, signs: false })
    }

    /// A connection over the local socket that the server names, without shared memory.
    pub async fn connect_local(address: &str, client_id: u8) -> Client {
        let (key, pool) = (Key::from_hex(KEY).unwrap(), BufPool::new(64 << 20));
        let terms = ClientTerms::new([client_id; 16], "test");
        let (_reader, _writer, info) = tcp::connect(address, &key, &terms, pool.clone()).await.unwrap();
        let connected = local::connect(&info.local_path, &key, &terms, pool).await;
        let (reader, writer, local_info) = connected.unwrap();
        assert_eq!(local_info, info, "the same server");
        Client { reader, writer, next_id: 0, namespace: b"test".to_vec(), memory: None, signs: false }
    }

    /// A connection of this kind.
    pub async fn connect_over(wire: Wire, address: &str, client_id: u8) -> Client {
        match wire {
            Wire::Tcp => return Client::connect(address, client_id).await,
            #[cfg(target_os = "linux")]
            Wire::Rdma => return rdma::connect(address, client_id).await.unwrap(),
            #[cfg(target_os = "linux")]
            Wire::OneSided => return rdma::connect_one_sided(address, client_id).await.unwrap(),
            #[cfg(not(target_os = "linux"))]
            Wire::Rdma | Wire::OneSided => panic!("there is none"),
            Wire::Local => {}
        }
        let mut client = Client::connect_local(address, client_id).await;
        let memory = SharedMemory::create(MEMORY_BYTES).unwrap();
        let file = || memory.as_fd().try_clone_to_owned().unwrap();
        assert_eq!(client.register(&[(1, MEMORY_BYTES as u64)], vec![file()]).await, Status::Ok);
        client.memory = Some(Memory::open(file(), MEMORY_BYTES as u64).unwrap());
        client
    }

    /// Registers memory: ids and lengths, and the files that are sent.
    pub async fn register(&mut self, regions: &[(u32, u64)], files: Vec<OwnedFd>) -> Status {
        let WriteHalf::Local(half) = self.writer.io_mut() else { panic!("a local connection") };
        half.attach(files);
        let which = RegionDescriptorWhich::SharedMemory;
        let regions: Vec<_> =
            regions.iter().map(|&(id, length)| RegionDescriptor { id, length, which }).collect();
        let ping = Ping { echo: 1, regions: List::from(&regions), ..Default::default() };
        self.call(RequestWhich::Ping(ping), &[]).await[0].status()
    }

    pub fn next_id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }

    /// Sends one frame.
    pub async fn send(&mut self, request_id: u32, last: bool, which: RequestWhich<'_>, payload: &[u8]) {
        let mut frame = Outgoing { request_id, last, ..Outgoing::default() };
        let namespace = self.namespace.clone();
        Request { namespace: &namespace, which }.encode(&mut frame.control).unwrap();
        if !payload.is_empty() {
            frame.payload.push(Buf::copy_of(payload).unwrap());
        }
        self.writer.make_room().await.unwrap();
        self.writer.push(frame).unwrap();
        self.writer.flush().await.unwrap();
    }

    /// The next reply frame; `None` when the server closed the connection.
    pub async fn next(&mut self) -> Option<Got> {
        let frame = self.reader.next().await.ok()??;
        let words = frame.control.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
        Some(Got {
            request_id: frame.request_id,
            last: frame.last,
            control: words.collect(),
            payload: frame.payload.as_deref().unwrap_or_default().to_vec(),
        })
    }

    /// Reply frames up to the last one of this request, which must be the only one in flight.
    pub async fn finish(&mut self, request_id: u32) -> Option<Vec<Got>> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await?;
            assert_eq!(frame.request_id, request_id);
            let last = frame.last;
            frames.push(frame);
            if last {
                return Some(frames);
            }
        }
    }

    pub async fn call(&mut self, which: RequestWhich<'_>, payload: &[u8]) -> Vec<Got> {
        let request_id = self.next_id();
        self.send(request_id, true, which, payload).await;
        self.finish(request_id).await.expect("the connection stays")
    }

    /// As `call`, for requests that a dying server may leave unanswered.
    pub async fn try_call(&mut self, which: RequestWhich<'_>, payload: &[u8]) -> Option<Vec<Got>> {
        let request_id = self.next_id();
        let mut frame = Outgoing { request_id, last: true, ..Outgoing::default() };
        let namespace = self.namespace.clone();
        Request { namespace: &namespace, which }.encode(&mut frame.control).unwrap();
        if !payload.is_empty() {
            frame.payload.push(Buf::copy_of(payload).unwrap());
        }
        self.writer.push(frame).ok()?;
        self.writer.flush().await.ok()?;
        self.finish(request_id).await
    }

    pub async fn write(&mut self, key: &[u8], value: &[u8]) -> Status {
        let request_id = self.next_id();
        let sums = sums(value);
        let checksum = checksum(value);
        let blocks = value.len().div_ceil(BLOCK);
        for (block, bytes) in value.chunks(BLOCK).enumerate() {
            let mut pieces = [piece(0, block, bytes.len(), &sums[block])];
            let mut payload = bytes;
            let mac = self.mac(bytes);
            if let Some(memory) = &self.memory {
                memory.write((block * BLOCK) as u64, bytes).unwrap();
                let offset = (block * BLOCK) as u64;
                pieces[0].which = PieceWhich::Region(Region { id: 1, offset, mac: mac.as_ref() });
                payload = &[];
            }
            let which = RequestWhich::Write(Write {
                key,
                length: value.len() as u64,
                checksum: Some(&checksum),
                allocation: 0,
                pieces: List::from(&pieces),
            });
            self.send(request_id, block + 1 == blocks, which, payload).await;
        }
        let frames = self.finish(request_id).await.expect("the connection stays");
        frames.last().unwrap().status()
    }

    pub async fn read(&mut self, key: &[u8], offset: u64, length: u64) -> Result<Vec<u8>, Status> {
        let mut destination = Destination::default();
        if self.memory.is_some() {
            let region = Region { id: 1, offset: READ_OFFSET, mac: None };
            destination.which = DestinationWhich::Region(region);
        }
        let which = RequestWhich::Read(Read { key, offset, length, destination });
        let frames = self.call(which, &[]).await;
        let mut parts = BTreeMap::new();
        for frame in &frames {
            frame.with(|response| {
                if let (ResponseWhich::Read(reply), Some(memory)) = (response.which, &self.memory) {
                    assert!(frame.payload.is_empty());
                    for piece in reply.pieces.iter() {
                        let PieceWhich::Region(place) = piece.which else { panic!("not in the region") };
                        assert_eq!(place.offset, READ_OFFSET + piece.offset - offset);
                        let mut bytes = vec![0; piece.length as usize];
                        memory.read(place.offset, &mut bytes).unwrap();
                        assert_eq!(piece.checksum, Some(&memkv_wire::checksum::block(&bytes)));
                        let mut hasher = self.reader.bulk_key().begin_region();
                        hasher.update(&bytes);
                        assert_eq!(place.mac, self.signs.then_some(&hasher.finish()));
                        assert!(parts.insert(piece.offset, bytes).is_none());
                    }
                } else if let ResponseWhich::Read(reply) = response.which {
                    collect(reply.pieces, &frame.payload, |_, offset, bytes| {
                        assert!(parts.insert(offset, bytes).is_none());
                    });
                }
            });
        }
        match frames.last().unwrap().status() {
            Status::Ok => Ok(parts.into_values().flatten().collect()),
            status => Err(status),
        }
    }

    /// The MAC of bytes that the server fetches, where there is one.
    pub fn mac(&self, bytes: &[u8]) -> Option<[u8; 32]> {
        let mut hasher = self.writer.bulk_key().begin_region();
        hasher.update(bytes);
        self.signs.then(|| hasher.finish())
    }

    pub async fn exists(&mut self, keys: &[&[u8]]) -> Vec<u64> {
        let frames = self.call(RequestWhich::Exists(Exists { keys: List::from(keys) }), &[]).await;
        frames[0].with(|response| match response.which {
            ResponseWhich::Exists(reply) => reply.lengths.iter().collect(),
            _ => panic!("another arm"),
        })
    }

    pub async fn delete(&mut self, keys: &[&[u8]]) -> Vec<Status> {
        let frames = self.call(RequestWhich::Delete(Delete { keys: List::from(keys) }), &[]).await;
        frames[0].with(|response| match response.which {
            ResponseWhich::Delete(reply) => reply.statuses.iter().collect(),
            _ => panic!("another arm"),
        })
    }

    /// Puts a manifest with a body of at most one block. Answers status, generation and missing places.
    pub async fn put_manifest(
        &mut self,
        name: &[u8],
        generation: u64,
        body: &[u8],
        chunks: &[ChunkReference<'_>],
    ) -> (Status, u64, Vec<u32>) {
        let checksum = checksum(body);
        let which = RequestWhich::PutManifest(put_manifest(name, generation, body, &checksum, chunks));
        let frames = self.call(which, body).await;
        put_outcome(&frames)
    }

    pub async fn get_manifest(&mut self, name: &[u8]) -> Result<(u64, Vec<u8>), Status> {
        let frames = self.call(RequestWhich::GetManifest(GetManifest { name, lease_ms: 0 }), &[]).await;
        let body = frames.iter().flat_map(|frame| frame.payload.clone()).collect();
        let last = frames.last().unwrap();
        last.with(|response| match (response.status, response.which) {
            (Status::Ok, ResponseWhich::GetManifest(reply)) => Ok((reply.generation, body)),
            (status, _) => Err(status),
        })
    }

    pub async fn stat(&mut self, name: &str) -> u64 {
        let frames = self.call(RequestWhich::Stats(Stats { prefix: name }), &[]).await;
        frames[0].with(|response| match response.which {
            ResponseWhich::Stats(reply) => reply
                .counters
                .iter()
                .find(|counter| counter.name == name)
                .map(|counter| counter.value)
                .unwrap(),
            _ => panic!("another arm"),
        })
    }
}

pub fn put_manifest<'a>(
    name: &'a [u8],
    generation: u64,
    body: &[u8],
    checksum: &'a [u8; 16],
    chunks: &'a [ChunkReference<'a>],
) -> PutManifest<'a> {
    PutManifest {
        name,
        generation,
        role: ManifestRole::Both,
        length: body.len() as u64,
        checksum,
        chunks: List::from(chunks),
    }
}

pub fn put_outcome(frames: &[Got]) -> (Status, u64, Vec<u32>) {
    let mut missing = Vec::new();
    let mut generation = 0;
    for frame in frames {
        frame.with(|response| {
            if let ResponseWhich::PutManifest(reply) = response.which {
                generation = reply.generation;
                missing.extend(reply.missing.iter());
            }
        });
    }
    (frames.last().unwrap().status(), generation, missing)
}

/// Splits a payload into its pieces and checks each one's checksum.
pub fn collect(pieces: List<'_, Piece<'_>>, payload: &[u8], mut each: impl FnMut(u32, u64, Vec<u8>)) {
    let mut at = 0;
    for piece in pieces.iter() {
        let bytes = &payload[at..at + piece.length as usize];
        assert_eq!(piece.checksum, Some(&memkv_wire::checksum::block(bytes)));
        each(piece.index, piece.offset, bytes.to_vec());
        at += bytes.len();
    }
    assert_eq!(at, payload.len());
}

pub fn sums(value: &[u8]) -> Vec<[u8; 16]> {
    value.chunks(BLOCK).map(memkv_wire::checksum::block).collect()
}

pub fn checksum(value: &[u8]) -> [u8; 16] {
    memkv_wire::checksum::value(&sums(value))
}

pub fn piece<'a>(index: u32, block: usize, length: usize, sum: &'a [u8; 16]) -> Piece<'a> {
    Piece {
        index,
        offset: (block * BLOCK) as u64,
        length: length as u32,
        checksum: Some(sum),
        which: PieceWhich::Inline,
    }
}

/// Reproducible bytes.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

pub fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    (directory, path)
}
