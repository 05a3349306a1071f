//! A queue pair in the place of a stream, once set-up is over.
//!
//! What a suite or the reference server writes and reads stays a socket; behind it the bytes are carried over a queue pair and back, by
//! `memkv-transport`, of which nothing but the verbs is used: keys, frames and checks are the suite's own. So whatever the suites do to a
//! stream they do to a queue pair, and the end of either is the end of both.
//!
//! Owns this host's device, opened once, the tasks that carry, and counts of what came of asking. One-sided transfers are not used.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use memkv_transport::rdma::{Device, Endpoint, Prepared, RdmaError, Selection};
use memkv_transport::session::QueuePairIdentity;
use memkv_wire::QueuePair;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::runtime::Runtime;

/// What is carried at a time.
const CARRIED_SIZE_BYTES: usize = 64 << 10;

static CARRIED: AtomicU32 = AtomicU32::new(0);
static REFUSED: AtomicU32 = AtomicU32::new(0);

/// Whether the peer gave a queue pair whenever it was asked, or at least once: it may have no more to give.
pub fn was_given() -> bool {
    REFUSED.load(Ordering::Relaxed) == 0 || CARRIED.load(Ordering::Relaxed) > 0
}

/// A client's queue pair, before it has the server's.
#[derive(Debug)]
pub struct Asked {
    endpoint: Endpoint,
    identity: QueuePairIdentity,
}

impl Asked {
    pub fn new() -> io::Result<Asked> {
        let endpoint = Prepared::new(&host()?.device).and_then(Prepared::receive).map_err(failed)?;
        Ok(Asked { identity: endpoint.identity(), endpoint })
    }

    /// What the server is told of it.
    pub fn told(&self) -> QueuePair<'_> {
        self.identity.as_wire()
    }

    pub fn connect(&self, theirs: &QueuePair<'_>) -> io::Result<()> {
        self.endpoint.connect(&QueuePairIdentity::from_wire(theirs), true).map_err(failed)
    }

    /// The socket that stands for the queue pair, which was connected.
    pub fn carry(self, stream: TcpStream) -> io::Result<TcpStream> {
        CARRIED.fetch_add(1, Ordering::Relaxed);
        carry(self.endpoint, stream)
    }

    /// The server has none to give.
    pub fn refused(self) {
        REFUSED.fetch_add(1, Ordering::Relaxed);
    }
}

/// A server's queue pair, for a client that did not confirm yet.
#[derive(Debug)]
pub struct Offered {
    prepared: Prepared,
    identity: QueuePairIdentity,
    theirs: QueuePairIdentity,
}

impl Offered {
    pub fn new(theirs: &QueuePair<'_>) -> io::Result<Offered> {
        let prepared = Prepared::new(&host()?.device).map_err(failed)?;
        Ok(Offered { identity: prepared.identity(), prepared, theirs: QueuePairIdentity::from_wire(theirs) })
    }

    /// What the client is told of it.
    pub fn told(&self) -> QueuePair<'_> {
        self.identity.as_wire()
    }

    /// The socket that stands for the queue pair, once the client has confirmed.
    pub fn carry(self, stream: TcpStream) -> io::Result<TcpStream> {
        let endpoint = self.prepared.receive().map_err(failed)?;
        endpoint.connect(&self.theirs, false).map_err(failed)?;
        carry(endpoint, stream)
    }
}

fn failed(error: RdmaError) -> io::Error {
    io::Error::other(error)
}

// ---------------------------------------------------------------- carrying

struct Host {
    runtime: Runtime,
    device: Arc<Device>,
}

fn host() -> io::Result<&'static Host> {
    static HOST: OnceLock<Result<Host, String>> = OnceLock::new();
    let open = || -> io::Result<Host> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Host { runtime, device: Device::open(&Selection::default()).map_err(failed)? })
    };
    let host = HOST.get_or_init(|| open().map_err(|error| error.to_string()));
    host.as_ref().map_err(|why| io::Error::other(why.clone()))
}

/// The queue pair's bytes go through the socket that is answered; `stream` is the one that it was set up over.
fn carry(endpoint: Endpoint, stream: TcpStream) -> io::Result<TcpStream> {
    let (near, far) = sockets()?;
    near.set_read_timeout(stream.read_timeout()?)?;
    near.set_write_timeout(stream.write_timeout()?)?;
    stream.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    let _entered = host()?.runtime.enter();
    let (read, write) = endpoint.split(tokio::net::TcpStream::from_std(stream)?, None, None)?;
    let (from_near, to_near) = tokio::net::TcpStream::from_std(far)?.into_split();
    tokio::spawn(pass(read, to_near));
    tokio::spawn(pass(from_near, write));
    Ok(near)
}

/// Two ends of one connection within this process.
fn sockets() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let own = near.local_addr()?;
    loop {
        let (far, from) = listener.accept()?;
        if from == own {
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            return Ok((near, far));
        }
    }
}

async fn pass(from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut from = BufReader::with_capacity(CARRIED_SIZE_BYTES, from);
    // However it ended, the other side is told of an end, if it is still there.
    let _ = tokio::io::copy_buf(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}
