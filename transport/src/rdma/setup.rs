//! How two sides come to share a queue pair: they set a TCP connection up as always, and `Connect` and its reply say what each
//! has to know of the other's.
//!
//! Order: a client's queue pair has its receives posted before it asks. A server's is empty until the client has proven that it holds the key
//! and is not a replay, with its confirmation; then it posts its receives and grants them, and only then may the client send. So neither
//! meets an empty receive queue, and what a stranger can make a server hold is a queue pair without memory, for at most the time of a set-up, and at
//! most [`SETUP_PAIRS_MAX`] of them.
//!
//! Memory is registered and queue pairs are connected on the runtime's threads for what blocks: to connect one, the kernel looks for the address that
//! the peer named, which takes up to a second where nobody has it.

use std::sync::Arc;

use memkv_wire::mac::{Key, KeyRing};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::RdmaError;
use super::device::{Device, nearness};
use super::endpoint::Prepared;
use super::memory::{Memory, Reach};
use crate::buf::BufPool;
use crate::error::{SetupError, TransportError};
use crate::net::{self, ReadHalf, Reader, WriteHalf, Writer};
use crate::session::{
    ClientInfo, ClientTerms, QueuePairIdentity, SETUP_TIMEOUT, ServerInfo, ServerTerms, SetupGate,
};
use crate::stream;
use crate::tcp;

/// Queue pairs that a server makes ahead of their clients' confirmations, at a time.
pub const SETUP_PAIRS_MAX: usize = 32;

/// Connects to a server and asks for a queue pair. When it answers without one, which [`ServerInfo::queue_pair`] tells, the frames go
/// over TCP.
pub async fn connect(
    address: impl ToSocketAddrs,
    device: &Arc<Device>,
    key: &Key,
    terms: &ClientTerms,
    pool: BufPool,
) -> Result<(Reader, Writer, ServerInfo), TransportError> {
    connect_with(address, Prepared::new(device)?, (key, terms), pool, None).await
}

/// As [`connect`], with memory that the server may reach. It is told of it by whoever wants it to: see [`Memory::registered`].
pub async fn connect_reachable(
    address: impl ToSocketAddrs,
    memory: &Arc<Memory>,
    key: &Key,
    terms: &ClientTerms,
    pool: BufPool,
) -> Result<(Reader, Writer, ServerInfo), TransportError> {
    let prepared = Prepared::reachable(memory.device(), Reach::Peer)?;
    connect_with(address, prepared, (key, terms), pool, Some(Arc::clone(memory))).await
}

async fn connect_with(
    address: impl ToSocketAddrs,
    prepared: Prepared,
    (key, terms): (&Key, &ClientTerms),
    pool: BufPool,
    memory: Option<Arc<Memory>>,
) -> Result<(Reader, Writer, ServerInfo), TransportError> {
    let endpoint = aside(move || prepared.receive()).await?;
    let connecting = timeout(SETUP_TIMEOUT, TcpStream::connect(address));
    let mut socket = connecting.await.map_err(|_| SetupError::TimedOut)??;
    tcp::set_options(&socket)?;
    let own = endpoint.identity();
    let mut connected = None;
    let into = &mut connected;
    let accept = move |theirs: Option<QueuePairIdentity>| async move {
        if let Some(theirs) = theirs {
            let connect = move || endpoint.connect(&theirs, true).map(|()| endpoint);
            *into = Some(aside(connect).await?);
        }
        Ok(())
    };
    let (channel, server) = stream::connect_asking(&mut socket, key, terms, Some(&own), accept).await?;
    let (read, write) = match connected {
        Some(endpoint) => {
            let (read, write) = endpoint.split(socket, memory, None)?;
            (ReadHalf::Rdma(read), WriteHalf::Rdma(write))
        }
        None => {
            let (read, write) = socket.into_split();
            (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
        }
    };
    let (reader, writer) = net::halves(read, write, channel, pool);
    Ok((reader, writer, server))
}

/// Does what blocks. Whoever gives up meanwhile does not end it: what it was given is given up when it is done.
async fn aside<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, RdmaError> + Send + 'static,
) -> Result<T, RdmaError> {
    let done = tokio::task::spawn_blocking(act).await;
    done.map_err(|lost| RdmaError::System { doing: "set up a queue pair", source: lost.into() })?
}

/// What a server has for clients that ask for a queue pair.
#[derive(Debug)]
pub struct Offer {
    devices: Vec<Arc<Device>>,
    /// At most one of each device.
    memory: Vec<Arc<Memory>>,
    /// For all queue pairs, and for those whose clients did not confirm yet.
    places: Arc<Semaphore>,
    setups: Arc<Semaphore>,
}

/// A queue pair for a client that has not confirmed yet.
struct Offered {
    prepared: Prepared,
    theirs: QueuePairIdentity,
    memory: Option<Arc<Memory>>,
    place: OwnedSemaphorePermit,
    setup: OwnedSemaphorePermit,
}

impl Offer {
    /// At most so many queue pairs on these devices.
    pub fn new(devices: Vec<Arc<Device>>, queue_pairs_max: usize) -> Offer {
        Offer {
            devices,
            memory: Vec::new(),
            places: Arc::new(Semaphore::new(queue_pairs_max.min(Semaphore::MAX_PERMITS))),
            setups: Arc::new(Semaphore::new(SETUP_PAIRS_MAX)),
        }
    }

    /// With memory of this side's own, that one-sided transfers on its device move bytes from and to.
    pub fn with_memory(mut self, memory: Memory) -> Offer {
        self.memory.push(Arc::new(memory));
        self
    }

    pub fn devices(&self) -> &[Arc<Device>] {
        &self.devices
    }

    //= MKV-RDMA-5
    /// A queue pair on the device whose address is nearest to the client's, if one more can be had.
    fn prepare(&self, theirs: &QueuePairIdentity) -> Option<Offered> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let setup = Arc::clone(&self.setups).try_acquire_owned().ok()?;
        let device = self.devices.iter().max_by_key(|device| nearness(device.gid(), theirs.gid))?;
        let prepared = Prepared::new(device).ok()?;
        let memory = self.memory.iter().find(|memory| Arc::ptr_eq(memory.device(), device)).cloned();
        Some(Offered { prepared, theirs: *theirs, memory, place, setup })
    }
}

//= MKV-RDMA-4
/// Accepts a client on a socket that a listener gave, over a queue pair if it asks for one and the offer has one.
pub async fn accept(
    mut socket: TcpStream,
    (keys, terms): (&KeyRing, &ServerTerms),
    gate: &SetupGate,
    pool: BufPool,
    offer: &Offer,
) -> Result<(Reader, Writer, ClientInfo), TransportError> {
    let permit = gate.enter()?;
    tcp::set_options(&socket)?;
    let mut offered = None;
    let prepare = |theirs: &QueuePairIdentity| {
        offered = offer.prepare(theirs);
        offered.as_ref().map(|offered| offered.prepared.identity())
    };
    let (channel, client) = stream::accept_offering(&mut socket, (keys, terms), permit, prepare).await?;
    let (read, write) = match offered {
        Some(Offered { prepared, theirs, memory, place, setup }) => {
            // The places go along: they are taken for as long as the queue pair is there.
            let connect = move || {
                let endpoint = prepared.receive()?;
                endpoint.connect(&theirs, false)?;
                Ok((endpoint, place, setup))
            };
            let (endpoint, place, _setup) = aside(connect).await?;
            let (read, write) = endpoint.split(socket, memory, Some(place))?;
            (ReadHalf::Rdma(read), WriteHalf::Rdma(write))
        }
        None => {
            let (read, write) = socket.into_split();
            (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
        }
    };
    let (reader, writer) = net::halves(read, write, channel, pool);
    Ok((reader, writer, client))
}
