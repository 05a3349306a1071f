//! Moving to a server's local socket, and sharing memory with it.
//!
//! Owns what is known of the socket, and the client's buffers as regions: one for what is sent, one for
//! what is received, under the same ids on every connection, whatever its kind. Nothing here is needed to reach a server: whatever fails,
//! TCP remains, unless the configuration pins this transport.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use memkv_transport::buf::{BUFFER_SIZE_BYTES_MAX, BufPool};
use memkv_transport::local;
use memkv_transport::net::{Reader, WriteHalf, Writer};
use memkv_transport::session::ServerInfo;
use memkv_transport::shared::{REGION_SIZE_BYTES_MAX, SharedMemory};
use memkv_wire::{
    List, Message, Ping, RegionDescriptor, RegionDescriptorWhich, Request, RequestWhich, Response, Status,
};

use crate::config::Config;
use crate::core::Sharing;
use crate::error::{ConnectionError, PeerMisbehaved};

/// The region that buffers for sending lie in.
const SEND_REGION: u32 = 1;
/// The region that bytes are received in.
const RECEIVE_REGION: u32 = 2;

/// A connection that is set up.
pub(crate) struct Connected {
    pub reader: Reader,
    pub writer: Writer,
    pub requests_in_flight_max: u32,
    /// How the client's memory is registered on it.
    pub sharing: Sharing,
    pub local: bool,
}

impl Connected {
    /// Bytes go with the frames.
    pub fn without_memory(reader: Reader, writer: Writer, server: &ServerInfo) -> Self {
        let requests_in_flight_max = server.requests_in_flight_max;
        Self { reader, writer, requests_in_flight_max, sharing: Sharing::No, local: false }
    }
}

/// The socket that was used last.
#[derive(Debug, Default)]
pub(crate) struct Socket(Mutex<Option<(String, [u8; 16])>>);

impl Socket {
    pub fn known(&self) -> Option<(String, [u8; 16])> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, socket: Option<(String, [u8; 16])>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = socket;
    }
}

/// Connects to the socket and registers the buffers.
pub(crate) async fn connect(
    config: &Config,
    terms: &memkv_transport::session::ClientTerms,
    (send, receive): (&BufPool, &BufPool),
    (path, server_id): (&str, [u8; 16]),
) -> Result<Connected, ConnectionError> {
    let connected = local::connect(path, &config.key, terms, receive.clone()).await;
    let (mut reader, mut writer, server) = connected.map_err(|error| ConnectionError::from(&error))?;
    // Another server's socket, left under the same name in this process's view of the file system.
    if server.server_id != server_id {
        return Err(ConnectionError::NoLocal);
    }
    let requests_in_flight_max = server.requests_in_flight_max;
    let memory = memory(config, send, receive);
    let registered = match memory {
        Some(memory) => register_files(&mut reader, &mut writer, memory).await?,
        None => false,
    };
    let sharing = if registered { Sharing::Mapped } else { Sharing::No };
    Ok(Connected { reader, writer, requests_in_flight_max, sharing, local: true })
}

/// Descriptors and files of both pools' memory, made at the first call. `None` where no memory can be shared.
fn memory(config: &Config, send: &BufPool, receive: &BufPool) -> Option<[(RegionDescriptor, OwnedFd); 2]> {
    provide((send, receive), usize::MAX, config.warm_size_bytes)?;
    let of = |pool: &BufPool| {
        let shared = pool.with_shared(|id, memory| {
            let which = RegionDescriptorWhich::SharedMemory;
            let descriptor = RegionDescriptor { id, length: memory.size_bytes() as u64, which };
            Some((descriptor, memory.as_fd().try_clone_to_owned().ok()?))
        });
        shared.flatten()
    };
    Some([of(send)?, of(receive)?])
}

/// Gives both pools memory that others can be given access to, if they have none: of at most so many bytes, of which some are made ready.
pub(crate) fn provide(
    (send, receive): (&BufPool, &BufPool),
    size_bytes_max: usize,
    warm_size_bytes: usize,
) -> Option<()> {
    for (region, pool) in [(SEND_REGION, send), (RECEIVE_REGION, receive)] {
        if pool.with_shared(|_, _| ()).is_some() {
            continue;
        }
        let size_bytes = pool.budget_size_bytes().min(REGION_SIZE_BYTES_MAX as usize).min(size_bytes_max);
        let made = SharedMemory::create(size_bytes.next_multiple_of(BUFFER_SIZE_BYTES_MAX));
        let made = made.inspect_err(|error| tracing::debug!(%error, "no memory to share")).ok()?;
        // Memory that is not ready is only slower.
        let _ = made.populate(warm_size_bytes);
        // Another connection may have been quicker.
        pool.share(region, made);
    }
    Some(())
}

/// Registers memory before anything else is sent. False: the server takes none.
async fn register_files(
    reader: &mut Reader,
    writer: &mut Writer,
    memory: [(RegionDescriptor, OwnedFd); 2],
) -> Result<bool, ConnectionError> {
    let (descriptors, files): (Vec<_>, Vec<_>) = memory.into_iter().unzip();
    if let WriteHalf::Local(half) = writer.io_mut() {
        half.attach(files);
    }
    register(reader, writer, &descriptors).await
}

/// Sends a request that registers these regions and takes its answer, before anyone else uses the connection. False: the server takes none of
/// them.
pub(crate) async fn register(
    reader: &mut Reader,
    writer: &mut Writer,
    descriptors: &[RegionDescriptor],
) -> Result<bool, ConnectionError> {
    let mut frame = writer.blank();
    (frame.request_id, frame.last) = (0, true);
    let ping = Ping { echo: 0, regions: List::from(descriptors), ..Ping::default() };
    let request = Request { namespace: &[], which: RequestWhich::Ping(ping) };
    request.encode(&mut frame.control).map_err(|_| ConnectionError::Local)?;
    writer.push(frame).map_err(|_| ConnectionError::Local)?;
    // A server that closes grants no credits over a queue pair: only reading shows it.
    let (sent, reply) = tokio::join!(writer.flush(), reader.next());
    let reply = sent.and(reply).map_err(|error| ConnectionError::from(&error))?;
    let reply = reply.ok_or(ConnectionError::Closed)?;
    let message = Message::new(reply.control).map_err(|_| ConnectionError::Peer(PeerMisbehaved::Message))?;
    let response = Response::decode(&message);
    let response = response.map_err(|_| ConnectionError::Peer(PeerMisbehaved::Message))?;
    if response.status != Status::Ok {
        tracing::debug!(status = response.status.name(), "the server takes no memory");
    }
    Ok(response.status == Status::Ok)
}
