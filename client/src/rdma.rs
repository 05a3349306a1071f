//! Asking for RDMA, and going on without.
//!
//! Owns the devices, opened once, and what is remembered of a failure: for [`AVOID_MS`] nobody tries again, and the log is told once
//! until it works again. A queue pair counts only after a request went over it and came back, for its set-up says nothing of whether
//! packets pass between the two devices.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use memkv_transport::buf::BufPool;
use memkv_transport::error::TransportError;
use memkv_transport::net::{Reader, Writer};
use memkv_transport::rdma::{self, Device, RdmaError, Selection};
use memkv_transport::session::{ClientTerms, ServerInfo};
use memkv_wire::{Message, Ping, Request, RequestWhich, Response, Status};

use crate::config::Config;
use crate::error::{ConnectionError, PeerMisbehaved};

/// How long RDMA is left alone after it failed, where there is TCP to go on with.
const AVOID_MS: u64 = 30_000;
/// How long the first request may take. A queue pair whose packets get lost fails within a second.
const FIRST_REQUEST_MAX: Duration = Duration::from_secs(3);

/// What a client knows of RDMA on its host.
#[derive(Debug, Default)]
pub(crate) struct Rdma(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    devices: Vec<Arc<Device>>,
    avoid_until_ms: u64,
    told: bool,
}

/// A connection over RDMA, or over TCP when the server has no queue pair to give.
pub(crate) struct Asked {
    pub reader: Reader,
    pub writer: Writer,
    pub server: ServerInfo,
}

impl Rdma {
    /// Whether a failure is too recent to try again.
    pub fn is_avoided(&self, now_ms: u64) -> bool {
        now_ms < self.lock().avoid_until_ms
    }

    /// Remembers a failure, after which the client goes on over TCP.
    pub fn avoid(&self, now_ms: u64, why: &ConnectionError) {
        let mut state = self.lock();
        state.avoid_until_ms = now_ms + AVOID_MS;
        if !std::mem::replace(&mut state.told, true) {
            tracing::warn!(%why, "no RDMA: going on over TCP");
        }
    }

    /// Connects and asks for a queue pair; connections of different places of the pool use different devices.
    pub async fn connect(
        &self,
        config: &Config,
        terms: &ClientTerms,
        pool: &BufPool,
        place: u16,
    ) -> Result<Asked, ConnectionError> {
        let device = self.device(config, place).await?;
        let address = (config.server.host.as_str(), config.server.port);
        let connected = rdma::connect(address, &device, &config.key, terms, pool.clone()).await;
        let (mut reader, mut writer, server) = connected.map_err(|error| why(&error))?;
        if server.queue_pair.is_some() {
            let first = tokio::time::timeout(FIRST_REQUEST_MAX, ping(&mut reader, &mut writer)).await;
            first.map_err(|_| ConnectionError::RdmaLost)??;
            self.lock().told = false;
        }
        Ok(Asked { reader, writer, server })
    }

    async fn device(&self, config: &Config, place: u16) -> Result<Arc<Device>, ConnectionError> {
        let known = self.lock().devices.clone();
        let devices = if known.is_empty() {
            let names = config.rdma_devices.clone();
            let opened = tokio::task::spawn_blocking(move || open(&names)).await;
            let opened = opened.map_err(|_| ConnectionError::Local)?;
            let opened = opened.map_err(|error| {
                tracing::debug!(%error, "no RDMA device");
                ConnectionError::NoRdma
            })?;
            self.lock().devices.clone_from(&opened);
            opened
        } else {
            known
        };
        let turn = usize::from(place) % devices.len().max(1);
        devices.get(turn).cloned().ok_or(ConnectionError::NoRdma)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn why(error: &TransportError) -> ConnectionError {
    tracing::debug!(%error, "no connection over RDMA");
    let TransportError::Io(io) = error else { return ConnectionError::from(error) };
    match io.get_ref().and_then(|inner| inner.downcast_ref::<RdmaError>()) {
        Some(RdmaError::Registration { .. }) => ConnectionError::RdmaMemory,
        Some(_) => ConnectionError::NoRdma,
        None => ConnectionError::from(error),
    }
}

/// The devices of these names, or the first one that can be used.
fn open(names: &[String]) -> Result<Vec<Arc<Device>>, RdmaError> {
    if names.is_empty() {
        return Ok(vec![Device::open(&Selection::default())?]);
    }
    let named = names.iter().map(|name| Selection { device: Some(name.clone()), ..Selection::default() });
    named.map(|selection| Device::open(&selection)).collect()
}

/// Sends a request and takes its answer, before anyone else uses the connection.
async fn ping(reader: &mut Reader, writer: &mut Writer) -> Result<(), ConnectionError> {
    let mut frame = writer.blank();
    (frame.request_id, frame.last) = (0, true);
    let request = Request { namespace: &[], which: RequestWhich::Ping(Ping::default()) };
    request.encode(&mut frame.control).map_err(|_| ConnectionError::Local)?;
    writer.push(frame).map_err(|_| ConnectionError::Local)?;
    // A server that closes grants nothing: only reading shows it.
    let (sent, reply) = tokio::join!(writer.flush(), reader.next());
    let reply = sent.and(reply).map_err(|error| ConnectionError::from(&error))?;
    let reply = reply.ok_or(ConnectionError::Closed)?;
    let message = Message::new(reply.control).map_err(|_| ConnectionError::Peer(PeerMisbehaved::Message))?;
    let response = Response::decode(&message);
    let response = response.map_err(|_| ConnectionError::Peer(PeerMisbehaved::Message))?;
    match response.status {
        Status::Ok => Ok(()),
        _ => Err(ConnectionError::Closed),
    }
}
