//! Asking for RDMA, and going on without.
//!
//! Owns the devices, opened once, and what is remembered of a failure: for [`AVOID_MS`] nobody tries again, and the log is told once
//! until it works again. A queue pair counts only after a request went over it and came back, for its set-up says nothing of whether
//! packets pass between the two devices.
//!
//! The client's buffers are registered once with each device, for the server to reach over its queue pairs: to read those that are sent from, to write
//! those that are received in. The device was opened for this client
//! alone, and all its queue pairs lead to this server: so nobody else has the use of the registration. Where memory cannot be registered,
//! bytes go with the frames.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use memkv_transport::buf::BufPool;
use memkv_transport::error::TransportError;
use memkv_transport::net::{Reader, Writer};
use memkv_transport::rdma::{self, Device, Memory, RdmaError, Reach, Registered, RemotePlace, Selection};
use memkv_transport::session::{ClientTerms, ServerInfo};
use memkv_transport::verify::Checker;
use memkv_wire::{RdmaMemory, RegionDescriptor, RegionDescriptorWhich};

use crate::config::Config;
use crate::core::Sharing;
use crate::error::ConnectionError;
use crate::local;

/// How long RDMA is left alone after it failed, where there is TCP to go on with.
const AVOID_MS: u64 = 30_000;
/// How long the first request may take. A queue pair whose packets get lost fails within a second.
const FIRST_REQUEST_MAX: Duration = Duration::from_secs(3);

/// What a client knows of RDMA on its host.
#[derive(Debug, Default)]
pub(crate) struct Rdma(Arc<Known>);

/// Devices are opened by a thread that whoever waits for it may give up, so that it shares what it found.
#[derive(Debug, Default)]
struct Known {
    state: Mutex<State>,
    /// Held while devices are opened.
    opening: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    devices: Vec<Opened>,
    /// What the server said last.
    offered: bool,
    avoid_until_ms: u64,
    told: bool,
}

/// A device, and the client's memory on it if it could be registered.
#[derive(Debug, Clone)]
struct Opened {
    device: Arc<Device>,
    memory: Option<Arc<Memory>>,
}

/// A connection over RDMA, or over TCP when the server has no queue pair to give.
pub(crate) struct Asked {
    pub reader: Reader,
    pub writer: Writer,
    pub server: ServerInfo,
    pub sharing: Sharing,
}

impl Rdma {
    /// Whether a client that may choose asks for a queue pair now: the server has them, this host has a device or is said to have,
    /// and no failure is too recent to try again.
    pub fn is_worth_asking(&self, config: &Config, now_ms: u64) -> bool {
        let state = self.lock();
        let may = config.rdma && state.offered && now_ms >= state.avoid_until_ms;
        may && !(config.rdma_devices.is_empty() && rdma::device::names().is_empty())
    }

    /// Takes a server's word on whether it has queue pairs. To a user who named devices it matters when it has none.
    pub fn note_offer(&self, config: &Config, server: &ServerInfo, now_ms: u64) {
        self.lock().offered = server.queue_pairs;
        if !server.queue_pairs && config.rdma && !config.rdma_devices.is_empty() {
            self.avoid(now_ms, &ConnectionError::NoRdma);
        }
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
        pools: (&BufPool, &BufPool),
        place: u16,
    ) -> Result<Asked, ConnectionError> {
        let Opened { device, memory } = self.device(config, pools, place).await?;
        let address = (config.server.host.as_str(), config.server.port);
        let pool = pools.1.clone();
        let connected = match &memory {
            Some(memory) => rdma::connect_reachable(address, memory, &config.key, terms, pool).await,
            None => rdma::connect(address, &device, &config.key, terms, pool).await,
        };
        let (mut reader, mut writer, server) = connected.map_err(|error| why(&error))?;
        let mut sharing = Sharing::No;
        if server.queue_pair.is_some() {
            let regions = memory.iter().flat_map(|memory| memory.registered()).filter_map(descriptor);
            let regions: Vec<_> = regions.collect();
            let first = local::register(&mut reader, &mut writer, &regions);
            let first = tokio::time::timeout(FIRST_REQUEST_MAX, first).await;
            let is_taken = first.unwrap_or(Err(ConnectionError::RdmaLost)).map_err(lost)?;
            if is_taken && !regions.is_empty() {
                let checker = Checker::new(reader.bulk_key().clone(), config.verify);
                sharing = Sharing::OneSided(Arc::new(checker));
            }
            self.lock().told = false;
        }
        Ok(Asked { reader, writer, server, sharing })
    }

    async fn device(
        &self,
        config: &Config,
        (send, receive): (&BufPool, &BufPool),
        place: u16,
    ) -> Result<Opened, ConnectionError> {
        let opened = self.lock().devices.clone();
        let devices = if opened.is_empty() {
            let (names, size_bytes) = (config.rdma_devices.clone(), config.rdma_size_bytes);
            let pools = (send.clone(), receive.clone());
            // As a server chooses its own.
            let (gid_type, subnet) = (config.rdma_gid_type, config.rdma_subnet);
            let selection = Selection { gid_type, subnet, ..Selection::default() };
            let known = Arc::clone(&self.0);
            let opening = move || known.devices(|| open(&names, &selection, &pools, size_bytes));
            let opened = tokio::task::spawn_blocking(opening).await;
            let opened = opened.map_err(|_| ConnectionError::Local)?;
            opened.map_err(|error| no_device(&error, &config.rdma_devices))?
        } else {
            opened
        };
        let turn = usize::from(place) % devices.len().max(1);
        devices.get(turn).cloned().ok_or(ConnectionError::NoRdma)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl Known {
    /// The devices, opened by one caller; others wait for it.
    fn devices(
        &self,
        open: impl FnOnce() -> Result<Vec<Opened>, RdmaError>,
    ) -> Result<Vec<Opened>, RdmaError> {
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = self.lock().devices.clone();
        if !opened.is_empty() {
            return Ok(opened);
        }
        let opened = open()?;
        self.lock().devices.clone_from(&opened);
        Ok(opened)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no device to use, in terms of the names in the configuration.
fn no_device(error: &RdmaError, names: &[String]) -> ConnectionError {
    tracing::debug!(%error, "no RDMA device");
    let found = rdma::device::names();
    match names.iter().find(|name| !found.contains(name)) {
        Some(wanted) => ConnectionError::NoRdmaDevice { wanted: wanted.as_str().into(), found },
        None => ConnectionError::NoRdma,
    }
}

/// What an end of the connection means before anything came over its queue pair.
fn lost(error: ConnectionError) -> ConnectionError {
    match error {
        ConnectionError::Io { .. } | ConnectionError::Closed => ConnectionError::RdmaLost,
        error => error,
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

/// The devices of these names, or the first one that can be used, with the memory of both pools.
fn open(
    names: &[String],
    selection: &Selection,
    (send, receive): &(BufPool, BufPool),
    size_bytes: usize,
) -> Result<Vec<Opened>, RdmaError> {
    let any = [None];
    let named: Vec<_> = names.iter().map(|name| Some(name.clone())).collect();
    let wanted = if named.is_empty() { &any[..] } else { &named };
    // Registering makes all of it ready.
    let memory = (size_bytes > 0).then(|| local::provide((send, receive), size_bytes, 0)).flatten();
    let open = |device: &Option<String>| {
        let device = Device::open(&Selection { device: device.clone(), ..selection.clone() })?;
        let memory = memory.and_then(|()| {
            // The server fetches what is sent, and puts what is received.
            let pools = [(send, Reach::PeerReads), (receive, Reach::PeerWrites)];
            let registered = Memory::register(&device, &pools);
            let told = |error: &RdmaError| tracing::warn!(%error, "over RDMA, bytes go with the frames");
            registered.inspect_err(told).ok().map(Arc::new)
        });
        Ok(Opened { device, memory })
    };
    wanted.iter().map(open).collect()
}

/// What a server is told of registered memory.
fn descriptor(registered: Registered) -> Option<RegionDescriptor> {
    let RemotePlace { address, key } = registered.place;
    let which = RegionDescriptorWhich::Rdma(RdmaMemory { address, remote_key: key });
    Some(RegionDescriptor { id: registered.region?, length: registered.size_bytes as u64, which })
}
