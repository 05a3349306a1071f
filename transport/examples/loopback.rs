//! How fast frames are, beside a bare socket loop that does the same hashing.
//!
//!     cargo run --release -p memkv-transport --example loopback [-- --seconds 2]
//!
//! For each payload size it sends payloads over loopback TCP one way, in turn: bare (no hashing), bare with the bulk MAC and the checksum
//! at both ends, and framed (header, control message, MAC, tag, pooled buffers) with the same checksum at both ends. The ratios are
//! framed to bare with the same hashing: throughput, and CPU time for the same bytes (Linux), which other work on the machine disturbs less.
//! Before that it prints what the hashes alone do in memory.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use memkv_transport::buf::{Buf, BufMut, BufPool};
use memkv_transport::session::{ClientTerms, ServerTerms, SetupGate};
use memkv_transport::tcp;
use memkv_wire::checksum;
use memkv_wire::mac::{BulkAlgorithm, BulkKey, Direction, Key, KeyRing, Schedule};
use memkv_wire::{ControlBuf, List, Piece, PieceWhich, Request, RequestWhich, Write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const POOL_SIZE_BYTES: usize = 64 * 1024 * 1024;
/// Payloads in memory at the sender, so that not one single warm buffer is sent over and over.
const DISTINCT_PAYLOADS: usize = 16;

fn main() {
    let seconds = seconds_of_each_run();
    println!("hashes alone, 1 MiB pieces, GB/s:");
    for algorithm in BulkAlgorithm::preference() {
        let key = bulk_key(algorithm);
        println!("  {:<14} {:6.2}", algorithm.name(), hash_rate(|bytes| _ = black_box(key.tag(&[bytes]))));
    }
    println!("  {:<14} {:6.2}", "xxh3-128", hash_rate(|bytes| _ = black_box(checksum::block(bytes))));

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return eprintln!("no runtime: {error}"),
    };
    println!("one way over loopback, GB/s:");
    println!(
        "  {:>9} {:<14} {:>6} {:>8} {:>7} {:>6}",
        "payload", "mac", "bare", "+hashes", "framed", "ratio"
    );
    for size_bytes in [1024 * 1024, 64 * 1024, 4096] {
        for algorithm in BulkAlgorithm::preference() {
            match runtime.block_on(compare(size_bytes, algorithm, seconds)) {
                Ok([bare, hashed, framed]) => println!(
                    "  {size_bytes:>9} {:<14} {:6.2} {:8.2} {:7.2} {:6.2} {:9.2}",
                    algorithm.name(),
                    bare.rate(),
                    hashed.rate(),
                    framed.rate(),
                    framed.rate() / hashed.rate(),
                    framed.cpu_per_byte() / hashed.cpu_per_byte()
                ),
                Err(error) => eprintln!("{size_bytes}: {error}"),
            }
        }
    }
}

/// What was moved, and what it took.
struct Cost {
    size_bytes: usize,
    seconds: f64,
    cpu_seconds: f64,
}

impl Cost {
    /// GB/s.
    fn rate(&self) -> f64 {
        self.size_bytes as f64 / self.seconds / 1e9
    }

    fn cpu_per_byte(&self) -> f64 {
        self.cpu_seconds / self.size_bytes as f64
    }

    async fn add(&mut self, run: impl Future<Output = Result<usize, Failure>>) -> Result<(), Failure> {
        let (begun, cpu_begun) = (Instant::now(), cpu_seconds());
        self.size_bytes += run.await?;
        self.seconds += begun.elapsed().as_secs_f64();
        self.cpu_seconds += cpu_seconds() - cpu_begun;
        Ok(())
    }
}

/// User and system time of this process so far, in ticks of 1/100 s; 0 where there is no /proc.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}

/// Bare, bare with hashing, and framed: a little of each in turn, so that a noisy neighbour hits all alike.
async fn compare(size_bytes: usize, algorithm: BulkAlgorithm, seconds: f64) -> Result<[Cost; 3], Failure> {
    const TURNS: usize = 6;
    let [mut plain, mut hashed, mut frames] =
        [const { Cost { size_bytes: 0, seconds: 0.0, cpu_seconds: 0.0 } }; 3];
    for _ in 0..TURNS {
        let seconds = seconds / TURNS as f64;
        plain.add(bare(size_bytes, None, seconds)).await?;
        hashed.add(bare(size_bytes, Some(algorithm), seconds)).await?;
        frames.add(framed(size_bytes, algorithm, seconds)).await?;
    }
    Ok([plain, hashed, frames])
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn seconds_of_each_run() -> f64 {
    let arguments: Vec<String> = std::env::args().collect();
    let given =
        arguments.windows(2).find(|pair| pair[0] == "--seconds").and_then(|pair| pair[1].parse().ok());
    given.unwrap_or(1.0)
}

fn bulk_key(algorithm: BulkAlgorithm) -> BulkKey {
    Schedule::new(&Key::from_bytes([7; 32]), b"C", b"R", 1).bulk_key(Direction::ClientToServer, algorithm)
}

fn hash_rate(mut hash: impl FnMut(&[u8])) -> f64 {
    let bytes = vec![5u8; 1024 * 1024];
    let begun = Instant::now();
    let mut rounds = 0;
    while begun.elapsed() < Duration::from_millis(300) {
        hash(black_box(&bytes));
        rounds += 1;
    }
    rounds as f64 * bytes.len() as f64 / begun.elapsed().as_secs_f64() / 1e9
}

fn payloads(size_bytes: usize) -> Result<Vec<Buf>, Failure> {
    (0..DISTINCT_PAYLOADS)
        .map(|seed| {
            let mut payload = BufMut::unpooled(size_bytes)?;
            payload.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 31 + seed) as u8);
            Ok(payload.freeze())
        })
        .collect()
}

async fn listener() -> Result<(TcpListener, SocketAddr), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

// ---------------------------------------------------------------- the yardstick

/// Sockets alone: payload and, with hashing, a tag and a checksum behind it.
async fn bare(size_bytes: usize, algorithm: Option<BulkAlgorithm>, seconds: f64) -> Result<usize, Failure> {
    let (listener, address) = listener().await?;
    let sending = tokio::spawn(bare_send(address, size_bytes, algorithm, seconds));
    let (mut socket, _) = listener.accept().await?;
    socket.set_nodelay(true)?;
    let key = algorithm.map(bulk_key);
    let trailer_size_bytes = if key.is_some() { 48 } else { 0 };
    let mut memory = vec![0; size_bytes + trailer_size_bytes];
    let mut received = 0usize;
    'connection: loop {
        let mut hasher = key.as_ref().map(BulkKey::begin);
        let mut filled = 0;
        while filled < memory.len() {
            let count = socket.read(&mut memory[filled..]).await?;
            if count == 0 {
                break 'connection;
            }
            // Hashed as it comes, while it is in cache.
            if let Some(hasher) = &mut hasher {
                hasher.update(&memory[filled.min(size_bytes)..(filled + count).min(size_bytes)]);
            }
            filled += count;
        }
        let (payload, trailer) = memory.split_at(size_bytes);
        if let Some(hasher) = hasher
            && (hasher.finish() != trailer[..32] || checksum::block(payload) != trailer[32..])
        {
            return Err("the bytes changed".into());
        }
        received += size_bytes;
    }
    sending.await??;
    Ok(received)
}

async fn bare_send(
    address: SocketAddr,
    size_bytes: usize,
    algorithm: Option<BulkAlgorithm>,
    seconds: f64,
) -> Result<(), Failure> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let key = algorithm.map(bulk_key);
    let payloads = payloads(size_bytes)?;
    let begun = Instant::now();
    for payload in payloads.iter().cycle() {
        if begun.elapsed().as_secs_f64() > seconds {
            break;
        }
        let mut trailer = [0; 48];
        let mut trailer_size_bytes = 0;
        if let Some(key) = &key {
            trailer[32..].copy_from_slice(&checksum::block(payload));
            trailer[..32].copy_from_slice(&key.tag(&[payload]));
            trailer_size_bytes = 48;
        }
        let trailer = &trailer[..trailer_size_bytes];
        let mut written = 0;
        while written < size_bytes + trailer_size_bytes {
            let slices = [
                std::io::IoSlice::new(&payload[written.min(size_bytes)..]),
                std::io::IoSlice::new(&trailer[written.saturating_sub(size_bytes)..]),
            ];
            written += socket.write_vectored(&slices).await?;
        }
    }
    Ok(())
}

// ---------------------------------------------------------------- frames

async fn framed(size_bytes: usize, algorithm: BulkAlgorithm, seconds: f64) -> Result<usize, Failure> {
    let (listener, address) = listener().await?;
    let sending = tokio::spawn(framed_send(address, size_bytes, algorithm, seconds));
    let (socket, _) = listener.accept().await?;
    let terms = ServerTerms {
        server_id: [0; 16],
        server_name: String::new(),
        local_path: String::new(),
        queue_pairs: false,
        requests_in_flight_max: 256,
        lease_ms: 10_000,
        bulk_macs: vec![algorithm],
    };
    let ring = KeyRing::from(Key::from_bytes([7; 32]));
    let pool = BufPool::new(POOL_SIZE_BYTES);
    let (mut reader, _writer, _) = tcp::accept(socket, &ring, &terms, &SetupGate::default(), pool).await?;
    let mut received = 0usize;
    while let Some(frame) = reader.next().await? {
        let message = memkv_wire::Message::new(frame.control)?;
        let RequestWhich::Write(write) = Request::decode(&message)?.which else {
            return Err("no Write".into());
        };
        let Some(piece) = write.pieces.get(0) else { return Err("no piece".into()) };
        let payload = frame.payload.unwrap_or_default();
        if piece.checksum != Some(&checksum::block(&payload)) {
            return Err("the bytes changed".into());
        }
        received += payload.len();
    }
    sending.await??;
    Ok(received)
}

async fn framed_send(
    address: SocketAddr,
    size_bytes: usize,
    algorithm: BulkAlgorithm,
    seconds: f64,
) -> Result<(), Failure> {
    let mut terms = ClientTerms::new([1; 16], "loopback");
    terms.bulk_macs = vec![algorithm];
    let pool = BufPool::new(POOL_SIZE_BYTES);
    let (_reader, mut writer, _) = tcp::connect(address, &Key::from_bytes([7; 32]), &terms, pool).await?;
    let payloads = payloads(size_bytes)?;
    let begun = Instant::now();
    for (request_id, payload) in payloads.iter().cycle().enumerate() {
        if begun.elapsed().as_secs_f64() > seconds {
            break;
        }
        let mut frame = writer.blank();
        frame.request_id = request_id as u32;
        frame.last = true;
        encode_write(&mut frame.control, payload)?;
        frame.payload.push(payload.clone());
        writer.push(frame)?;
        // Small frames go together; large ones each by itself, while the next is hashed.
        if writer.queued_size_bytes() >= 64 * 1024 {
            writer.flush().await?;
        }
    }
    Ok(writer.shutdown().await?)
}

fn encode_write(control: &mut ControlBuf, payload: &[u8]) -> Result<(), Failure> {
    let sum = checksum::block(payload);
    let pieces = [Piece {
        index: 0,
        offset: 0,
        length: payload.len() as u32,
        checksum: Some(&sum),
        which: PieceWhich::Inline,
    }];
    let write = Write {
        key: b"0123456789abcdef0123456789abcdef",
        length: payload.len() as u64,
        checksum: None,
        allocation: 0,
        pieces: List::from(&pieces[..]),
    };
    Ok(Request { namespace: b"bench", which: RequestWhich::Write(write) }.encode(control)?)
}
