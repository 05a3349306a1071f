//! Runs a [`Core`] on sockets and timers of a tokio runtime.
//!
//! Owns the clock, the tasks and the wakers. One mutex guards the core; it is held for bookkeeping only: MACs are made and
//! checked by the tasks of each connection, checksums by whoever asked for the bytes.
//!
//! Tasks: one timer, and two for each connection: one that reads and writes, and one that tells the core should that one panic. All end
//! with [`Shared::close`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use memkv_transport::buf::{Buf, BufPool};
#[cfg(target_os = "linux")]
use memkv_transport::net::ReadHalf;
use memkv_transport::net::{Reader, Writer};
use memkv_transport::receiver::Frame;
use memkv_transport::session::{ClientTerms, ServerInfo};
use memkv_transport::spin::{Spin, Vigil, give_way};
use memkv_transport::stream::{Outgoing, PushError};
use memkv_transport::tcp;
use memkv_wire::layout::{FRAME_HEADER_SIZE_BYTES, FRAME_TAG_SIZE_BYTES};
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle, unconstrained};

use crate::config::{Config, Transport};
use crate::core::{
    CallId, CallOptions, Command, ConnectionId, Core, Counters, Message, Naming, Progress, Reply, Sharing,
};
use crate::error::{ConnectionError, Error, PeerMisbehaved};
use crate::local::{self, Connected};
use crate::operation::read::inline_sizes;
#[cfg(target_os = "linux")]
use crate::rdma::Asked;
use crate::uri::Endpoint;

/// What the tasks and the callers of one client share.
pub(crate) struct Shared {
    state: Mutex<State>,
    began: Instant,
    /// For each place of the pool: there is something to send.
    writable: Vec<Notify>,
    timer: Notify,
    config: Config,
    terms: ClientTerms,
    /// For what is sent.
    send_pool: BufPool,
    /// For what is received.
    pool: BufPool,
    socket: local::Socket,
    #[cfg(target_os = "linux")]
    rdma: crate::rdma::Rdma,
    runtime: Handle,
}

struct State {
    core: Core,
    /// By the slots of calls.
    wakers: Vec<Option<Waker>>,
    /// By the places of the pool.
    connections: Vec<Option<Life>>,
    /// How answers are waited for, by the places of the pool.
    spins: Vec<Spin>,
    timer: Option<AbortHandle>,
    /// When the timer's task will look.
    timer_ms: u64,
}

/// The task of a connection.
struct Life {
    task: AbortHandle,
    /// Set when the connection is to end but the task is not: it has to see to it that the server reaches the client's memory no more.
    leave: Arc<Notify>,
    /// Whether it is such a connection.
    leaves: Arc<AtomicBool>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("server", &self.config.server).finish_non_exhaustive()
    }
}

impl Shared {
    /// Must be called inside a runtime.
    pub fn start(config: Config) -> Result<Arc<Self>, Error> {
        let Ok(runtime) = Handle::try_current() else { return Err(Error::Closed) };
        let mut seed = [0; 8];
        let mut client_id = [0; 16];
        getrandom::fill(&mut seed).map_err(|_| ConnectionError::Local)?;
        getrandom::fill(&mut client_id).map_err(|_| ConnectionError::Local)?;
        let core = Core::new(config.settings, u64::from_le_bytes(seed));
        let places = usize::from(core.connections_max());
        let vigil = Vigil::new(config.spin_us);
        let shared = Arc::new(Self {
            state: Mutex::new(State {
                core,
                wakers: Vec::new(),
                connections: (0..places).map(|_| None).collect(),
                spins: (0..places).map(|_| vigil.spin()).collect(),
                timer: None,
                timer_ms: u64::MAX,
            }),
            began: Instant::now(),
            writable: (0..places).map(|_| Notify::new()).collect(),
            timer: Notify::new(),
            terms: ClientTerms::new(client_id, config.client_name.as_str()),
            send_pool: BufPool::new(config.send_size_bytes_max),
            pool: BufPool::new(config.receive_size_bytes_max),
            socket: local::Socket::default(),
            #[cfg(target_os = "linux")]
            rdma: crate::rdma::Rdma::default(),
            config,
            runtime,
        });
        let timer = shared.runtime.spawn(run_timer(Arc::clone(&shared)));
        shared.lock().timer = Some(timer.abort_handle());
        Ok(shared)
    }

    /// Ends all calls, connections and tasks.
    pub fn close(self: &Arc<Self>) {
        self.with(|core, _| core.close());
        if let Some(timer) = self.lock().timer.take() {
            timer.abort();
        }
    }

    /// The buffers for what is sent.
    pub fn send_pool(&self) -> &BufPool {
        &self.send_pool
    }

    /// Whether a message that is begun now may name the client's memory.
    pub fn shares(&self) -> bool {
        self.lock().core.shares()
    }

    /// What a message that is begun now may say of the client's memory.
    pub fn naming(&self) -> Naming {
        self.lock().core.naming()
    }

    /// The buffers for what is received.
    pub fn pool(&self) -> &BufPool {
        &self.pool
    }

    pub fn counters(&self) -> Counters {
        self.lock().core.counters()
    }

    /// Starts a call with a message that `build` fills.
    pub fn call(
        self: &Arc<Self>,
        options: CallOptions,
        build: impl FnOnce(&mut Message) -> Result<(), Error>,
    ) -> Result<PendingCall<'_>, Error> {
        let mut message = self.lock().core.message();
        build(&mut message)?;
        let id = self.with(|core, now_ms| core.submit(now_ms, message, options));
        Ok(PendingCall { shared: self, id: Some(id), repeated: false })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The core's own asserts are the only panics under the lock; what they leave is still bookkeeping.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects over the best transport there is. Where the local socket is, and whether RDMA is worth asking for, only the server knows; it
    /// is asked over TCP, and asked again when the socket that was used before does not answer.
    async fn connect(&self, place: u16) -> Result<Connected, ConnectionError> {
        if let Some((path, server_id)) = self.socket.known() {
            match self.connect_local(&path, server_id).await {
                Ok(connected) => return Ok(connected),
                Err(_) => self.socket.set(None),
            }
        }
        let (remote, server) = self.connect_remote(place).await?;
        if matches!(self.config.transport, Transport::Tcp | Transport::Rdma) {
            return Ok(remote);
        }
        let moved = match server.local_path.as_str() {
            "" => Err(ConnectionError::NoLocal),
            path => self.connect_local(path, server.server_id).await,
        };
        match moved {
            Ok(connected) => {
                self.socket.set(Some((server.local_path, server.server_id)));
                Ok(connected)
            }
            Err(_) if self.config.transport == Transport::Auto => {
                Ok(self.move_to_rdma(remote, &server, place).await)
            }
            Err(_) => Err(ConnectionError::NoLocal),
        }
    }

    /// Connects as a server on another host is connected to. A client that may choose asks for RDMA when the server said before that it
    /// has it.
    #[cfg(target_os = "linux")]
    async fn connect_remote(&self, place: u16) -> Result<(Connected, ServerInfo), ConnectionError> {
        let failed = match self.config.transport {
            Transport::Rdma => {
                let (connected, server) = self.connect_rdma(place).await?;
                return server.queue_pair.map(|_| (connected, server)).ok_or(ConnectionError::NoRdma);
            }
            Transport::Auto if self.rdma.is_worth_asking(&self.config, self.now_ms()) => {
                match self.connect_rdma(place).await {
                    Ok(connected) => return Ok(connected),
                    Err(failed) => failed,
                }
            }
            Transport::Auto | Transport::Tcp | Transport::Local => return self.connect_tcp().await,
        };
        // Whatever it was: if the server is not there at all, this says so.
        let connected = self.connect_tcp().await?;
        self.rdma.avoid(self.now_ms(), &failed);
        Ok(connected)
    }

    /// A connection that asked for a queue pair, with or without one.
    #[cfg(target_os = "linux")]
    async fn connect_rdma(&self, place: u16) -> Result<(Connected, ServerInfo), ConnectionError> {
        let pools = (&self.send_pool, &self.pool);
        let asking = self.rdma.connect(&self.config, &self.terms, pools, place);
        let asked = match self.config.transport {
            // There is nothing to go on with.
            Transport::Rdma => asking.await?,
            Transport::Auto | Transport::Tcp | Transport::Local => self.within(RDMA_SHARE, asking).await?,
        };
        let Asked { reader, writer, server, sharing } = asked;
        if server.queue_pair.is_none() && self.config.transport == Transport::Auto {
            self.rdma.avoid(self.now_ms(), &ConnectionError::NoRdma);
        }
        Ok((Connected { sharing, ..Connected::without_memory(reader, writer, &server) }, server))
    }

    /// Asks a server for RDMA that was reached over TCP and says that it has it; the connection that there is stays when nothing comes of it.
    #[cfg(target_os = "linux")]
    async fn move_to_rdma(&self, remote: Connected, server: &ServerInfo, place: u16) -> Connected {
        self.rdma.note_offer(&self.config, server, self.now_ms());
        let has_it = server.queue_pair.is_some();
        if has_it || !self.rdma.is_worth_asking(&self.config, self.now_ms()) {
            return remote;
        }
        match self.connect_rdma(place).await {
            Ok((connected, _)) => connected,
            Err(failed) => {
                self.rdma.avoid(self.now_ms(), &failed);
                remote
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    async fn connect_remote(&self, _place: u16) -> Result<(Connected, ServerInfo), ConnectionError> {
        if self.config.transport == Transport::Rdma {
            return Err(ConnectionError::NoRdma);
        }
        self.connect_tcp().await
    }

    #[cfg(not(target_os = "linux"))]
    async fn move_to_rdma(&self, remote: Connected, _server: &ServerInfo, _place: u16) -> Connected {
        remote
    }

    async fn connect_tcp(&self) -> Result<(Connected, ServerInfo), ConnectionError> {
        let Endpoint { host, port } = &self.config.server;
        let address = (host.as_str(), *port);
        let connected = tcp::connect(address, &self.config.key, &self.terms, self.pool.clone()).await;
        let (reader, writer, server) = connected.map_err(|error| ConnectionError::from(&error))?;
        Ok((Connected::without_memory(reader, writer, &server), server))
    }

    async fn connect_local(&self, path: &str, server_id: [u8; 16]) -> Result<Connected, ConnectionError> {
        let pools = (&self.send_pool, &self.pool);
        let connecting = local::connect(&self.config, &self.terms, pools, (path, server_id));
        self.within(LOCAL_SHARE, connecting).await
    }

    /// A way to the server that there is another one beside: it gets a share of the time for set-up, so that one that says nothing leaves time
    /// for the other, and is remembered.
    async fn within<T>(
        &self,
        share: u64,
        way: impl Future<Output = Result<T, ConnectionError>>,
    ) -> Result<T, ConnectionError> {
        let time = Duration::from_millis(self.config.settings.setup_timeout_ms / share);
        tokio::time::timeout(time, way).await.unwrap_or(Err(ConnectionError::SetupTimeout))
    }

    /// Whether to look again for the answer on a connection, rather than sleep until it comes.
    fn stays_awake(&self, id: ConnectionId, gave_way: Duration) -> bool {
        let mut state = self.lock();
        let expects_soon = state.core.expects_soon(id);
        let spin = &mut state.spins[usize::from(id.slot())];
        spin.gave_way(gave_way);
        expects_soon && spin.goes_on(Instant::now())
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// Hands the core to `act`, then does what it asks for.
    fn with<R>(self: &Arc<Self>, act: impl FnOnce(&mut Core, u64) -> R) -> R {
        self.with_state(|state, now_ms| act(&mut state.core, now_ms))
    }

    /// As [`Shared::with`], with what is beside the core.
    fn with_state<R>(self: &Arc<Self>, act: impl FnOnce(&mut State, u64) -> R) -> R {
        let mut guard = self.lock();
        let state = &mut *guard;
        let result = act(state, self.now_ms());
        let mut first = None;
        let mut more = Vec::new();
        while let Some(command) = state.core.command() {
            match command {
                Command::Wake(id) => match state.wakers.get_mut(id.slot()).and_then(Option::take) {
                    Some(waker) if first.is_none() => first = Some(waker),
                    Some(waker) => more.push(waker),
                    None => {}
                },
                Command::Send(id) => self.writable[usize::from(id.slot())].notify_one(),
                Command::Connect(id) => {
                    // The life before may have ended in the middle of a wait.
                    state.spins[usize::from(id.slot())].rest();
                    let (leave, leaves) = (Arc::<Notify>::default(), Arc::<AtomicBool>::default());
                    let run = run_connection(Arc::clone(self), id, Arc::clone(&leave), Arc::clone(&leaves));
                    let running = self.runtime.spawn(run);
                    let task = running.abort_handle();
                    self.runtime.spawn(watch(Arc::clone(self), id, running));
                    state.connections[usize::from(id.slot())] = Some(Life { task, leave, leaves });
                }
                Command::Close(id) => match state.connections[usize::from(id.slot())].take() {
                    Some(life) if life.leaves.load(Ordering::Acquire) => life.leave.notify_one(),
                    Some(life) => life.task.abort(),
                    None => {}
                },
            }
        }
        if state.core.deadline_ms() < state.timer_ms {
            state.timer_ms = state.core.deadline_ms();
            self.timer.notify_one();
        }
        drop(guard);
        // Woken with the lock free, or they would wait for it.
        first.into_iter().chain(more).for_each(Waker::wake);
        result
    }
}

async fn run_timer(shared: Arc<Shared>) {
    loop {
        // Noted under the lock that ticks: whoever comes after it with an earlier deadline has to see this one, or tells nobody.
        let due_ms = shared.with_state(|state, now_ms| {
            state.core.tick(now_ms);
            state.timer_ms = state.core.deadline_ms();
            state.timer_ms
        });
        let due = Duration::from_millis(due_ms.saturating_sub(shared.now_ms()));
        if due_ms == u64::MAX {
            shared.timer.notified().await;
        } else {
            // Woken early, or in time: either way it looks again.
            let _ = tokio::time::timeout(due, shared.timer.notified()).await;
        }
    }
}

/// The life of a connection.
async fn run_connection(shared: Arc<Shared>, id: ConnectionId, leave: Arc<Notify>, leaves: Arc<AtomicBool>) {
    let connected = match shared.connect(id.slot()).await {
        Ok(connected) => connected,
        Err(error) => return end(&shared, id, error),
    };
    let Connected { mut reader, writer, requests_in_flight_max, sharing, local: is_local } = connected;
    reader.sum(inline_sizes);
    tracing::debug!(server = %shared.config.server, slot = id.slot(), is_local, ?sharing, "connected");
    let one_sided = matches!(sharing, Sharing::OneSided(_));
    leaves.store(is_local || one_sided, Ordering::Release);
    shared.with(|core, now_ms| core.connected_sharing(now_ms, id, requests_in_flight_max, sharing));
    // One task for both directions. What is sent goes first and unhindered: it is small, or others wait for it.
    let error = tokio::select! {
        biased;
        error = unconstrained(run_writer(&shared, id, writer)) => error,
        error = run_reader(&shared, id, &mut reader) => error,
        () = leave.notified() => ConnectionError::Closed,
    };
    let unreachable = one_sided && sever(&mut reader);
    end(&shared, id, error);
    let exposed = shared.lock().core.take_exposed(id);
    if !exposed.is_empty() && !unreachable && !closed_by_server(&mut reader).await {
        // Lost for as long as the process lives, rather than written to by two.
        exposed.into_iter().for_each(Buf::leak);
    }
}

/// Ends a connection whose task panicked: its calls would wait for as long as they may, and no other would be opened in its place. Memory that the server
/// may still reach stays with the core.
async fn watch(shared: Arc<Shared>, id: ConnectionId, running: JoinHandle<()>) {
    if running.await.is_err_and(|error| error.is_panic()) {
        end(&shared, id, ConnectionError::Local);
    }
}

fn end(shared: &Arc<Shared>, id: ConnectionId, error: ConnectionError) {
    tracing::debug!(server = %shared.config.server, slot = id.slot(), %error, "connection ended");
    shared.with(|core, now_ms| core.closed(now_ms, id, error));
}

/// Ends a queue pair, before anyone uses the memory again that the server could reach over it.
#[cfg(target_os = "linux")]
fn sever(reader: &mut Reader) -> bool {
    match reader.io_mut() {
        ReadHalf::Rdma(half) => half.fail().is_ok(),
        ReadHalf::Tcp(_) | ReadHalf::Local(_) => false,
    }
}

#[cfg(not(target_os = "linux"))]
fn sever(_: &mut Reader) -> bool {
    false
}

/// Waits until the server has closed its side: it writes to no memory of the connection from then on.
//= MKV-REG-6
async fn closed_by_server(reader: &mut Reader) -> bool {
    let closed = async {
        // What still comes, nobody asks for any more; the rest of a stream that broke is not looked at.
        while let Ok(Some(_)) = reader.next().await {}
        let mut rest = [0; 4096];
        while reader.io_mut().read(&mut rest).await.is_ok_and(|size_bytes| size_bytes > 0) {}
    };
    tokio::time::timeout(CLOSED_TIMEOUT, closed).await.is_ok()
}

/// How long a server may take to close a connection that this side has ended.
const CLOSED_TIMEOUT: Duration = Duration::from_secs(120);

async fn run_reader(shared: &Arc<Shared>, id: ConnectionId, reader: &mut Reader) -> ConnectionError {
    loop {
        match reader.next().await {
            Ok(Some(frame)) => {
                let size_bytes = frame_size_bytes(&frame);
                shared.with_state(|state, now_ms| {
                    state.spins[usize::from(id.slot())].end(Instant::now());
                    state.core.received(now_ms, id, frame, size_bytes);
                });
            }
            Ok(None) => return ConnectionError::Closed,
            Err(error) => return ConnectionError::from(&error),
        }
    }
}

fn frame_size_bytes(frame: &Frame<'_>) -> u64 {
    let tagged = |payload: &Buf| payload.len() + FRAME_TAG_SIZE_BYTES;
    let payload_size_bytes = frame.payload.as_ref().filter(|p| !p.is_empty()).map_or(0, tagged);
    (FRAME_HEADER_SIZE_BYTES + frame.control.len() + payload_size_bytes) as u64
}

async fn run_writer(shared: &Arc<Shared>, id: ConnectionId, mut writer: Writer) -> ConnectionError {
    let mut blank = None;
    loop {
        while writer.queued_size_bytes() < QUEUED_SIZE_BYTES_MAX {
            let mut frame = blank.take().unwrap_or_else(|| writer.blank());
            let Outgoing { control, payload, beside, .. } = &mut frame;
            let next =
                shared.with(|core, now_ms| core.next_frame_beside(now_ms, id, control, payload, beside));
            let Some(next) = next else {
                blank = Some(frame);
                break;
            };
            (frame.request_id, frame.last) = (next.request_id, next.last);
            if let Err(PushError::Full(_) | PushError::Seal(_)) = writer.push(frame) {
                // The queue had room, and the core's frames are within the limits.
                return ConnectionError::Local;
            }
        }
        if writer.is_idle() {
            let mut gave_way = Duration::ZERO;
            while shared.stays_awake(id, gave_way) {
                gave_way = give_way();
                tokio::task::yield_now().await;
            }
            shared.writable[usize::from(id.slot())].notified().await;
            continue;
        }
        // One write at a time: what is small and comes meanwhile goes before what is large and waits.
        let before_bytes = writer.queued_size_bytes();
        if let Err(error) = writer.write().await {
            return ConnectionError::from(&error);
        }
        let sent_bytes = before_bytes - writer.queued_size_bytes();
        let mut state = shared.lock();
        state.core.count_sent(sent_bytes as u64);
        state.spins[usize::from(id.slot())].begin(Instant::now());
    }
}

/// A third of the time for set-up: a local socket is quick, or nobody is there.
const LOCAL_SHARE: u64 = 3;
/// A half of it: a queue pair whose packets get lost says so within a second.
#[cfg(target_os = "linux")]
const RDMA_SHARE: u64 = 2;

/// What is handed to the socket before newer, perhaps more urgent, requests are looked at.
const QUEUED_SIZE_BYTES_MAX: usize = 512 * 1024;

/// What a call's owner is told.
pub(crate) enum Event<'a> {
    /// A frame of the reply.
    Frame(&'a Reply),
    /// What came before was for nothing.
    Restarted,
}

/// A call under way. Dropping it gives it up.
pub(crate) struct PendingCall<'s> {
    shared: &'s Arc<Shared>,
    id: Option<CallId>,
    repeated: bool,
}

impl PendingCall<'_> {
    /// Whether the message was sent again after an attempt that the server may have carried out; known for certain at the end.
    pub fn was_repeated(&self) -> bool {
        self.repeated
    }

    /// Hands every frame of the reply to `see`, to the last one.
    pub async fn run(
        &mut self,
        mut see: impl FnMut(Event<'_>) -> Result<(), PeerMisbehaved>,
    ) -> Result<(), Error> {
        let shared = self.shared;
        run_all(shared, std::slice::from_mut(self), |_, event| see(event)).await
    }
}

/// Hands the frames of several replies to `see`, with the place of their call, as they come: one that is slow holds
/// nothing of the others in memory. Ends at the first failure.
pub(crate) async fn run_all(
    shared: &Arc<Shared>,
    calls: &mut [PendingCall<'_>],
    mut see: impl FnMut(usize, Event<'_>) -> Result<(), PeerMisbehaved>,
) -> Result<(), Error> {
    let mut spent = None;
    while calls.iter().any(|call| call.id.is_some()) {
        let (place, id, progress) = next(shared, calls, spent.take()).await;
        let seen = match progress {
            Progress::Frame(reply) => {
                let seen = see(place, Event::Frame(&reply));
                spent = Some(reply);
                seen
            }
            Progress::Restarted => see(place, Event::Restarted),
            Progress::Done => {
                calls[place].id = None;
                Ok(())
            }
            Progress::Failed(error) => {
                calls[place].id = None;
                return Err(error);
            }
        };
        if let Err(error) = seen {
            calls[place].id = None;
            shared.with(|core, now_ms| core.accuse(now_ms, id, error));
            return Err(error.into());
        }
    }
    Ok(())
}

/// What happens next to any of these calls; takes back the frame handed out before.
async fn next(
    shared: &Arc<Shared>,
    calls: &mut [PendingCall<'_>],
    mut spent: Option<Reply>,
) -> (usize, CallId, Progress) {
    std::future::poll_fn(|context| {
        let mut state = shared.lock();
        if let Some(reply) = spent.take() {
            state.core.give_back(reply);
        }
        for (place, call) in calls.iter_mut().enumerate() {
            let Some(id) = call.id else { continue };
            call.repeated = state.core.was_repeated(id);
            if let Some(progress) = state.core.progress(id) {
                return Poll::Ready((place, id, progress));
            }
            state.wait(id, context.waker());
        }
        Poll::Pending
    })
    .await
}

impl State {
    /// Wakes this waker when there is news of this call.
    fn wait(&mut self, id: CallId, waker: &Waker) {
        let slot = id.slot();
        if self.wakers.len() <= slot {
            self.wakers.resize(slot + 1, None);
        }
        match &mut self.wakers[slot] {
            Some(own) => own.clone_from(waker),
            empty => *empty = Some(waker.clone()),
        }
    }
}

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.shared.with(|core, now_ms| core.cancel(now_ms, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use memkv_wire::mac::Key;
    use memkv_wire::{Ping, Request, RequestWhich};

    use super::*;

    /// A connection that is up, and that nothing serves.
    fn connected(shared: &Arc<Shared>) -> ConnectionId {
        let id = {
            let mut state = shared.lock();
            let mut message = state.core.message();
            let which = RequestWhich::Ping(Ping::default());
            message.push(&Request { namespace: b"test", which }).unwrap();
            state.core.submit(0, message, CallOptions { timeout_ms: 60_000, fail_fast: false });
            let commands = std::iter::from_fn(|| state.core.command());
            let connects = commands
                .filter_map(|command| if let Command::Connect(id) = command { Some(id) } else { None });
            connects.last().unwrap()
        };
        shared.with(|core, now_ms| core.connected(now_ms, id, 1));
        id
    }

    async fn fail() {
        panic!("a bug of the task");
    }

    #[tokio::test]
    async fn a_task_that_panics_ends_its_connection_alone() {
        let config = Config::new("memkv://127.0.0.1:1/test", Key::from_bytes([7; 32])).unwrap();
        let shared = Shared::start(config).unwrap();
        let id = connected(&shared);
        let ended = tokio::spawn(std::future::ready(()));
        watch(Arc::clone(&shared), id, ended).await;
        assert_eq!(shared.counters().connections_lost, 0, "whoever ended told the core itself");
        watch(Arc::clone(&shared), id, tokio::spawn(fail())).await;
        assert_eq!(shared.counters().connections_lost, 1);
        shared.close();
    }
}
