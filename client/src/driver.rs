//! Runs a [`Core`] on sockets and timers of a tokio runtime.
//!
//! Owns the clock, the tasks and the wakers. One mutex guards the core; it is held for bookkeeping only: MACs are made and
//! checked by the tasks of each connection, checksums by whoever asked for the bytes.
//!
//! Tasks: one timer; for each connection a reader, which is also its life, and a writer. All end with
//! [`Shared::close`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use memkv_transport::buf::{Buf, BufPool};
use memkv_transport::receiver::Frame;
use memkv_transport::session::ClientTerms;
use memkv_transport::stream::{Outgoing, PushError};
use memkv_transport::tcp::{self, Reader, Writer};
use memkv_wire::layout::{FRAME_HEADER_SIZE_BYTES, FRAME_TAG_SIZE_BYTES};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::config::Config;
use crate::core::{CallId, CallOptions, Command, ConnectionId, Core, Counters, Message, Progress, Reply};
use crate::error::{ConnectionError, Error, PeerMisbehaved};
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
    /// For what is received.
    pool: BufPool,
    runtime: Handle,
}

struct State {
    core: Core,
    /// By the slots of calls.
    wakers: Vec<Option<Waker>>,
    /// By the places of the pool.
    connections: Vec<Option<AbortHandle>>,
    timer: Option<AbortHandle>,
    /// When the timer's task will look.
    timer_ms: u64,
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
        let shared = Arc::new(Self {
            state: Mutex::new(State {
                core,
                wakers: Vec::new(),
                connections: (0..places).map(|_| None).collect(),
                timer: None,
                timer_ms: u64::MAX,
            }),
            began: Instant::now(),
            writable: (0..places).map(|_| Notify::new()).collect(),
            timer: Notify::new(),
            terms: ClientTerms::new(client_id, config.client_name.as_str()),
            pool: BufPool::new(config.receive_size_bytes_max),
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
        Ok(PendingCall { shared: self, id: Some(id) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The core's own asserts are the only panics under the lock; what they leave is still bookkeeping.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<(Reader, Writer, u32), ConnectionError> {
        let Endpoint { host, port } = &self.config.server;
        let address = (host.as_str(), *port);
        let connected = tcp::connect(address, &self.config.key, &self.terms, self.pool.clone()).await;
        let (reader, writer, server) = connected.map_err(|error| ConnectionError::from(&error))?;
        Ok((reader, writer, server.requests_in_flight_max))
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// Hands the core to `act`, then does what it asks for.
    fn with<R>(self: &Arc<Self>, act: impl FnOnce(&mut Core, u64) -> R) -> R {
        let mut guard = self.lock();
        let state = &mut *guard;
        let result = act(&mut state.core, self.now_ms());
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
                    let task = self.runtime.spawn(run_connection(Arc::clone(self), id));
                    state.connections[usize::from(id.slot())] = Some(task.abort_handle());
                }
                Command::Close(id) => {
                    if let Some(task) = state.connections[usize::from(id.slot())].take() {
                        task.abort();
                    }
                }
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
        let due_ms = shared.with(|core, now_ms| {
            core.tick(now_ms);
            core.deadline_ms()
        });
        shared.lock().timer_ms = due_ms;
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
async fn run_connection(shared: Arc<Shared>, id: ConnectionId) {
    let error = match shared.connect().await {
        Err(error) => error,
        Ok((reader, writer, requests_in_flight_max)) => {
            tracing::debug!(server = %shared.config.server, slot = id.slot(), "connected");
            shared.with(|core, now_ms| core.connected(now_ms, id, requests_in_flight_max));
            let writer = tokio::spawn(run_writer(Arc::clone(&shared), id, writer));
            let _guard = AbortOnDrop(writer.abort_handle());
            tokio::select! {
                error = run_reader(&shared, id, reader) => error,
                ended = writer => ended.unwrap_or(ConnectionError::Closed),
            }
        }
    };
    tracing::debug!(server = %shared.config.server, slot = id.slot(), %error, "connection ended");
    shared.with(|core, now_ms| core.closed(now_ms, id, error));
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run_reader(shared: &Arc<Shared>, id: ConnectionId, mut reader: Reader) -> ConnectionError {
    loop {
        match reader.next().await {
            Ok(Some(frame)) => {
                let size_bytes = frame_size_bytes(&frame);
                shared.with(|core, now_ms| core.received(now_ms, id, frame, size_bytes));
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

async fn run_writer(shared: Arc<Shared>, id: ConnectionId, mut writer: Writer) -> ConnectionError {
    let mut blank = None;
    loop {
        let mut queued = false;
        while writer.queued_size_bytes() < QUEUED_SIZE_BYTES_MAX {
            let mut frame = blank.take().unwrap_or_else(|| writer.blank());
            let Outgoing { control, payload, .. } = &mut frame;
            let next = shared.with(|core, now_ms| core.next_frame(now_ms, id, control, payload));
            let Some(next) = next else {
                blank = Some(frame);
                break;
            };
            (frame.request_id, frame.last) = (next.request_id, next.last);
            if let Err(PushError::Full(_) | PushError::Seal(_)) = writer.push(frame) {
                // The queue had room, and the core's frames are within the limits.
                return ConnectionError::Local;
            }
            queued = true;
        }
        if queued {
            let before_bytes = writer.queued_size_bytes() as u64;
            if let Err(error) = writer.flush().await {
                return ConnectionError::from(&error);
            }
            shared.lock().core.count_sent(before_bytes);
        } else {
            shared.writable[usize::from(id.slot())].notified().await;
        }
    }
}

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
}

impl PendingCall<'_> {
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
    calls: &[PendingCall<'_>],
    mut spent: Option<Reply>,
) -> (usize, CallId, Progress) {
    std::future::poll_fn(|context| {
        let mut state = shared.lock();
        if let Some(reply) = spent.take() {
            state.core.give_back(reply);
        }
        for (place, id) in calls.iter().enumerate().filter_map(|(place, call)| Some((place, call.id?))) {
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
