//! A server's life: from its settings to its last flush.
//!
//! Start: log, data directory and its lock, keys, the address, the store, then connections. Every step that fails
//! says what to do about it and leaves nothing behind that a later start would stumble over. End: the first SIGTERM or
//! SIGINT stops accepting, lets requests in flight end, makes everything durable and exits; a second one quits at once.

mod local;
#[cfg(target_os = "linux")]
mod rdma;
mod storage;
mod workers;

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use memkv_transport::local::PATH_SIZE_BYTES_MAX;
use memkv_transport::session::{ServerTerms, SetupGate};
use memkv_transport::spin::Spin;
use memkv_wire::limits;
use memkv_wire::mac::{BulkAlgorithm, Key, KeyRing};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use self::local::Local;
use self::storage::Storage;
pub use self::storage::{STORE, StorageError, format_options};
#[cfg(target_os = "linux")]
pub use self::storage::{is_in_use, open_drive};
use self::workers::Workers;
use crate::banner::{Banner, library_directory};
use crate::config::{KeySource, Medium, Settings, StorageSettings};
use crate::data_directory::{DataDirectory, DataDirectoryError};
use crate::keys::{self, KeyError};
use crate::logging::{self, LoggingError};
use crate::service::{Service, ServiceLimits};
use crate::shell::{Control, Controlled, Door, Scrubber, Shell, serve, serve_local};

/// How long requests in flight may take to end when the server stops.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// How long replies may take to reach their peers after that, and how long none may be taken before.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// The pause after a connection could not be accepted: the system is out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Logging(#[from] LoggingError),
    #[error(transparent)]
    DataDirectory(#[from] DataDirectoryError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(
        "{address} is in use: another server may be running; stop it, or choose another address with --listen HOST:PORT"
    )]
    AddressInUse { address: SocketAddr },
    #[error("cannot listen on {address}: {source}; choose another address with --listen HOST:PORT")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(
        "cannot make the local socket {path}: {source}; choose another path with network.local, of at most {PATH_SIZE_BYTES_MAX} bytes"
    )]
    LocalSocket { path: std::path::PathBuf, source: std::io::Error },
    #[cfg(target_os = "linux")]
    #[error(
        "{device} cannot be used: {source}; correct `rdma` in the configuration, or remove it to serve without"
    )]
    Rdma { device: rdma::Named, source: memkv_transport::rdma::RdmaError },
    #[error("the system refused what a server needs: {0}")]
    System(#[from] std::io::Error),
    #[error("stopped, but not everything could be made durable within {} seconds", DRAIN_MAX.as_secs())]
    NotDrained,
    #[error("stopped at once by a second signal; what was not acknowledged may be lost")]
    Quit,
}

/// Runs a server until it is told to stop. `configured`: there is a configuration, so whoever gave a key has it.
pub fn run(settings: Settings, configured: bool) -> Result<(), StartError> {
    logging::init(&settings.log)?;
    let given = keys::from_source(&settings.keys)?;
    let directory = settings.storage.directory.as_deref().map(DataDirectory::open).transpose()?.map(Arc::new);
    let keys = match (given, &directory) {
        (Some(keys), _) => keys,
        (None, Some(directory)) => vec![keys::in_directory(directory.path())?],
        // Settings name a directory whenever they give no key.
        (None, None) => vec![keys::draw()?],
    };
    raise_open_files_max();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    run_to_end(runtime, run_async(&settings, keys, directory, configured))
}

/// Waits for nothing but the future: what still blocks a thread, a drive that does not answer, ends with the process.
fn run_to_end<T>(runtime: Runtime, future: impl Future<Output = T>) -> T {
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}

/// Every connection is an open file, and the usual soft limit is far below what the system allows.
fn raise_open_files_max() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it was");
    }
}

async fn run_async(
    settings: &Settings,
    keys: Vec<Key>,
    directory: Option<Arc<DataDirectory>>,
    configured: bool,
) -> Result<(), StartError> {
    let mut signals = Signals::new()?;
    let listener = listen(&settings.addresses).await?;
    let address = listener.local_addr()?;
    let Some(storage) = open_storage(&settings.storage, directory.clone(), signals.next()).await? else {
        tracing::info!("stopped before the store was open");
        return Ok(());
    };
    let server_id = storage.store.server_id();
    let service = Service::new(storage.store, ServiceLimits::default(), 0);
    let registered_bytes = settings.rdma.as_ref().map(|rdma| rdma.memory.bytes() as usize);
    let shell = Shell::start(service, storage.drives, registered_bytes)?;
    let data_directory = directory.as_deref().map(DataDirectory::path);
    let scrubber = match settings.storage.medium {
        Medium::Memory { .. } => None,
        Medium::File { .. } | Medium::Direct { .. } => {
            let place = data_directory.map(Path::to_owned);
            Some(Scrubber::start(Arc::clone(&shell), settings.storage.scrub, place, &storage.shards)?)
        }
    };
    let left_out = storage.left_out;
    let controlled = Arc::new(Controlled { shell: Arc::clone(&shell), scrubber, left_out });
    // It answers from when the server says that it listens.
    let control = data_directory.and_then(listen_for_control).map(|control| {
        let controlled = Arc::clone(&controlled);
        tokio::spawn(async move { control.serve(&controlled).await })
    });
    let clock = tokio::spawn(Arc::clone(&shell).keep_time());
    let made_here = matches!(settings.keys, KeySource::DataDirectory);
    let banner = Banner {
        address,
        key_hex: (!configured || made_here).then(|| keys[0].to_hex()),
        library_directory: library_directory(),
    };
    let local = Local::open(&settings.local, data_directory, address)?;
    // It may block, and nobody is served yet.
    #[cfg(target_os = "linux")]
    let rdma = settings.rdma.as_ref().map(|rdma| rdma::open(rdma, shell.pools())).transpose()?;
    let door = Arc::new(Door {
        #[cfg(target_os = "linux")]
        rdma,
        rdma_verify: settings.rdma.as_ref().map(|rdma| rdma.verify.into()).unwrap_or_default(),
        keys: KeyRing::new(keys),
        terms: terms(server_id, String::new(), settings.rdma.is_some()),
        terms_here: terms(server_id, local.path(), settings.rdma.is_some()),
        gate: SetupGate::new(limits::SETUP_CONNECTIONS_MAX),
    });
    let workers = Workers::start(settings.spin_us)?;
    tracing::info!(%address, mode = settings.storage.medium.mode().name(), key = ?settings.keys, "serving");
    announce(&banner);
    let mut peers = JoinSet::new();
    let entrance = Entrance { listener, local, workers, connections_max: settings.connections_max };
    entrance.accept(&shell, &door, &mut peers, &mut signals).await;
    let workers = entrance.close();
    if let Some(task) = control {
        task.abort();
    }
    let drained = drain(&shell, controlled, &mut peers, &mut signals).await;
    clock.abort();
    drop((peers, workers));
    if drained.is_ok() {
        tracing::info!("stopped in good order");
    }
    drained
}

/// `None`: a signal came first. The store is left as a kill would leave it: nothing was acknowledged yet, and recovery begins again.
async fn open_storage(
    settings: &StorageSettings,
    directory: Option<Arc<DataDirectory>>,
    signal: impl Future<Output = ()>,
) -> Result<Option<Storage>, StartError> {
    let settings = settings.clone();
    // It holds the directory's lock for as long as it works there.
    let open = move || storage::open(&settings, directory.as_deref());
    Ok(unless(signal, open).await?.transpose()?)
}

/// Does what may block on another thread; `None`: a signal came first, and nobody waits for it any more.
async fn unless<T: Send + 'static>(
    signal: impl Future<Output = ()>,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<Option<T>> {
    tokio::select! {
        () = signal => Ok(None),
        done = tokio::task::spawn_blocking(work) => Ok(Some(done?)),
    }
}

/// A server without a control socket serves all the same.
fn listen_for_control(data_directory: &Path) -> Option<Control> {
    let told = |error: &std::io::Error| {
        let directory = data_directory.display();
        tracing::warn!(%error, %directory, "no control socket: `memkv drive` cannot ask this server");
    };
    Control::listen(data_directory).inspect_err(told).ok()
}

fn terms(server_id: [u8; 16], local_path: String, queue_pairs: bool) -> ServerTerms {
    ServerTerms {
        server_id,
        server_name: concat!("memkv ", env!("CARGO_PKG_VERSION")).to_owned(),
        local_path,
        queue_pairs,
        requests_in_flight_max: limits::REQUESTS_IN_FLIGHT_MAX,
        lease_ms: limits::LEASE_MS_DEFAULT,
        bulk_macs: BulkAlgorithm::preference().to_vec(),
    }
}

async fn listen(addresses: &[SocketAddr]) -> Result<TcpListener, StartError> {
    let mut failed = None;
    for address in addresses {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(source) if source.kind() == std::io::ErrorKind::AddrInUse => {
                failed = Some(StartError::AddressInUse { address: *address });
            }
            Err(source) => failed = Some(StartError::Listen { address: *address, source }),
        }
    }
    let nothing = || StartError::System(std::io::ErrorKind::AddrNotAvailable.into());
    Err(failed.unwrap_or_else(nothing))
}

fn announce(banner: &Banner) {
    let mut output = std::io::stdout().lock();
    if let Err(error) = output.write_all(banner.text().as_bytes()).and_then(|()| output.flush()) {
        tracing::warn!(%error, "nobody reads standard output");
    }
}

/// Where connections come in, and who serves them.
struct Entrance {
    listener: TcpListener,
    local: Local,
    workers: Workers,
    connections_max: u32,
}

impl Entrance {
    /// Accepts connections until a signal comes.
    async fn accept(
        &self,
        shell: &Arc<Shell>,
        door: &Arc<Door>,
        peers: &mut JoinSet<()>,
        signals: &mut Signals,
    ) {
        let connections_max = self.connections_max;
        loop {
            let is_full = peers.len() >= connections_max as usize;
            let (shell, door) = (Arc::clone(shell), Arc::clone(door));
            tokio::select! {
                () = signals.next() => return,
                Some(_) = peers.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((_, peer)) if is_full => {
                        shell.with_service(|service, _| service.counters_mut().connections_refused += 1);
                        tracing::warn!(%peer, connections_max, "refused: network.connections_max is reached");
                    }
                    Ok((stream, peer)) => {
                        self.workers.spawn(peers, |spin| serve_tcp(shell, door, spin, stream, peer));
                    }
                    Err(error) => pause(&error).await,
                },
                accepted = self.local.accept() => match accepted {
                    Ok(_) if is_full => {
                        shell.with_service(|service, _| service.counters_mut().connections_refused += 1);
                        tracing::warn!(connections_max, "refused a local peer: network.connections_max is reached");
                    }
                    Ok(socket) => self.workers.spawn(peers, |spin| serve_local(shell, door, spin, socket)),
                    Err(error) => pause(&error).await,
                },
            }
        }
    }

    /// Accepts no more.
    fn close(self) -> Workers {
        self.workers
    }
}

async fn pause(error: &std::io::Error) {
    tracing::error!(%error, "cannot accept connections");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Serves a peer in the runtime that this is called in, whichever accepted it.
async fn serve_tcp(shell: Arc<Shell>, door: Arc<Door>, spin: Spin, stream: TcpStream, peer: SocketAddr) {
    match stream.into_std().and_then(TcpStream::from_std) {
        Ok(stream) => serve(shell, door, spin, stream, peer).await,
        Err(error) => tracing::error!(%peer, %error, "cannot serve a connection"),
    }
}

async fn drain(
    shell: &Arc<Shell>,
    controlled: Arc<Controlled>,
    peers: &mut JoinSet<()>,
    signals: &mut Signals,
) -> Result<(), StartError> {
    tracing::info!(connections = peers.len(), "stopping");
    let stopping = async {
        // Scrubbing gives the store work of its own: it ends first.
        tokio::task::spawn_blocking(move || controlled.close()).await?;
        shell.stop().await;
        Ok(())
    };
    let begun = Instant::now();
    let stopped = tokio::select! {
        () = signals.next() => return Err(StartError::Quit),
        stopped = in_time(DRAIN_MAX, stopping) => stopped,
    };
    let left = DRAIN_MAX.saturating_sub(begun.elapsed());
    tokio::select! {
        () = signals.next() => return Err(StartError::Quit),
        // Everything is durable: peers that read slowly lose the rest of their replies, and no more.
        _ = tokio::time::timeout(left, shell.finish_requests(FAREWELL_MAX)) => {}
    }
    shell.close_links();
    let farewell = async { while peers.join_next().await.is_some() {} };
    tokio::select! {
        () = signals.next() => return Err(StartError::Quit),
        // Peers that do not read do not hold the server up.
        _ = tokio::time::timeout(FAREWELL_MAX, farewell) => {}
    }
    stopped
}

/// All that ends acknowledged work, a scrub's last read with it, has the same time.
async fn in_time(
    time_max: Duration,
    stopping: impl Future<Output = std::io::Result<()>>,
) -> Result<(), StartError> {
    let stopped = tokio::time::timeout(time_max, stopping).await;
    Ok(stopped.map_err(|_| StartError::NotDrained)??)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::mpsc;

    use super::*;

    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_signal_ends_a_start_whose_store_does_not_open() {
        let (go_on, stuck) = mpsc::channel::<()>();
        let opened = run_to_end(runtime(), unless(ready(()), move || stuck.recv().is_ok()));
        assert!(matches!(opened, Ok(None)));
        // Here, or this test would not have come to its end.
        drop(go_on);
        assert!(matches!(run_to_end(runtime(), unless(pending(), || 7)), Ok(Some(7))));
    }

    #[test]
    fn a_read_that_does_not_return_does_not_keep_a_server_from_ending() {
        let (go_on, stuck) = mpsc::channel::<()>();
        let stopping = async {
            tokio::task::spawn_blocking(move || stuck.recv().is_ok()).await?;
            Ok(())
        };
        let stopped = run_to_end(runtime(), in_time(Duration::from_millis(1), stopping));
        assert!(matches!(stopped, Err(StartError::NotDrained)));
        drop(go_on);
    }
}
