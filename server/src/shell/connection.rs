//! One peer: set-up, then a task that receives and sends.
//!
//! The receiver verifies each frame's MAC and tag (in the transport), decodes it, and checksums its pieces before it takes
//! the service's lock. A peer that breaks the protocol is closed with a reason in the log; so is one that does not
//! take its replies for [`STALL_MAX`]. Neither costs other peers more than what is in its windows.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use memkv_transport::buf::{Buf, BufMut};
use memkv_transport::error::TransportError;
use memkv_transport::local::{self, Socket};
#[cfg(target_os = "linux")]
use memkv_transport::net::ReadHalf;
use memkv_transport::net::{Reader, Writer};
#[cfg(target_os = "linux")]
use memkv_transport::rdma;
use memkv_transport::receiver::Frame as Received;
use memkv_transport::session::{ClientInfo, ServerTerms, SetupGate};
use memkv_transport::spin::Spin;
use memkv_transport::stream::{Outgoing, PushError, Written};
use memkv_transport::tcp;
#[cfg(target_os = "linux")]
use memkv_transport::verify::Checker;
use memkv_transport::verify::Verify;
use memkv_wire::mac::KeyRing;
use memkv_wire::{DecodeError, Message, Request, RequestWhich, Status};
use tokio::net::TcpStream;
use tokio::task::unconstrained;
#[cfg(target_os = "linux")]
use tokio::time::Instant;
use tokio::time::timeout;

use super::Shell;
use super::link::Link;
#[cfg(target_os = "linux")]
use super::one_sided::{Coming, Fetched, OneSided, Places, Waiting};
use super::regions::{Regions, Way};
use crate::service::payload::{self, Payload};
use crate::service::{ConnectionId, Frame, STALL_MS_MAX};

/// A peer that takes no byte of a reply for so long, or does not end a frame that it began, is given up.
pub const STALL_MAX: Duration = Duration::from_millis(STALL_MS_MAX);
/// So is one from whose memory the bytes of a frame cannot be fetched for so long: they have memory here, which others wait for.
#[cfg(target_os = "linux")]
const FETCH_MAX: Duration = STALL_MAX.saturating_mul(2);

/// Received bytes after which the sender gets its turn, when it has something to send: a peer that keeps many writes under way has
/// answers to go on with while others of them are stored. Without it, both sides worked in turn: 64 KiB writes were a third slower.
const RECEIVED_BYTES_A_TURN: usize = 256 << 10;
/// Bytes of replies after which it does: what was read for the peer is still in cache then. With less, values of 64 KiB took more
/// system calls than that was worth.
const REPLY_BYTES_A_TURN: usize = 1 << 20;
/// Sent bytes after which other connections of the thread get their turn: a peer that takes replies as fast as they are made, or has what
/// they name in its own memory, would have all of it for as long as its requests last.
const SENT_BYTES_A_TURN: usize = 8 << 20;

/// What every connection of a server shares.
pub struct Door {
    pub keys: KeyRing,
    /// For peers on other hosts.
    pub terms: ServerTerms,
    /// For peers on this host: with the path of the local socket, if there is one.
    pub terms_here: ServerTerms,
    pub gate: SetupGate,
    /// For peers that ask for a queue pair.
    #[cfg(target_os = "linux")]
    pub rdma: Option<rdma::Offer>,
    /// What is checked of the bytes that they bring one-sided.
    pub rdma_verify: Verify,
}

impl Door {
    //= MKV-CONN-11
    fn terms_for(&self, stream: &TcpStream, peer: SocketAddr) -> &ServerTerms {
        let ip = peer.ip().to_canonical();
        let own = stream.local_addr().is_ok_and(|own| own.ip().to_canonical() == ip);
        if ip.is_loopback() || own { &self.terms_here } else { &self.terms }
    }
}

/// Why a connection ended, other than by the peer's leave.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("a message that breaks the specification: {0}")]
    Message(#[from] DecodeError),
    #[error("the peer took no byte of its replies for {} seconds", STALL_MAX.as_secs())]
    Stalled,
    #[error("the peer did not end a frame within {} seconds", STALL_MAX.as_secs())]
    FrameStalled,
    #[cfg(target_os = "linux")]
    #[error("the bytes that a frame names did not come from the peer's memory within {} seconds", FETCH_MAX.as_secs())]
    FetchStalled,
}

impl From<PushError> for ConnectionError {
    fn from(error: PushError) -> ConnectionError {
        match error {
            // A full queue is flushed before anything is pushed.
            PushError::Full(_) => ConnectionError::Stalled,
            PushError::Seal(error) => ConnectionError::Transport(error.into()),
        }
    }
}

/// Serves one peer until it leaves.
pub async fn serve(shell: Arc<Shell>, door: Arc<Door>, spin: Spin, stream: TcpStream, peer: SocketAddr) {
    match accept(&shell, &door, stream, peer).await {
        Ok((mut reader, writer, client)) => {
            let regions = Regions::over(way(&door, &mut reader));
            serve_accepted(shell, regions, (reader, writer, client), Peer::Tcp(peer), spin).await;
        }
        Err(error) => refuse(&shell, &Peer::Tcp(peer), &error),
    }
}

async fn accept(
    shell: &Shell,
    door: &Door,
    stream: TcpStream,
    peer: SocketAddr,
) -> Result<(Reader, Writer, ClientInfo), TransportError> {
    let (pool, terms) = (shell.received.clone(), door.terms_for(&stream, peer));
    #[cfg(target_os = "linux")]
    if let Some(offer) = &door.rdma {
        let mut accepted = rdma::accept(stream, (&door.keys, terms), &door.gate, pool, offer).await?;
        if matches!(accepted.0.io_mut(), ReadHalf::Rdma(_)) {
            shell.with_service(|service, _| service.counters_mut().connections_rdma += 1);
        }
        return Ok(accepted);
    }
    tcp::accept(stream, &door.keys, terms, &door.gate, pool).await
}

/// How a client that came over a socket can share memory.
#[cfg(target_os = "linux")]
fn way(door: &Door, reader: &mut Reader) -> Way {
    let ReadHalf::Rdma(half) = reader.io_mut() else { return Way::None };
    let Some(transfers) = half.one_sided() else { return Way::None };
    let checker = Checker::new(reader.bulk_key().clone(), door.rdma_verify);
    Way::OneSided(Box::new(OneSided::new(transfers, checker)))
}

#[cfg(not(target_os = "linux"))]
fn way(_: &Door, _: &mut Reader) -> Way {
    Way::None
}

/// Serves one peer on the local socket until it leaves.
pub async fn serve_local(shell: Arc<Shell>, door: Arc<Door>, spin: Spin, socket: Socket) {
    let pool = shell.received.clone();
    match local::accept(socket, &door.keys, &door.terms_here, &door.gate, pool).await {
        Ok((reader, writer, client, files)) => {
            let regions = Regions::over(Way::Files(files));
            serve_accepted(shell, regions, (reader, writer, client), Peer::Local, spin).await;
        }
        Err(error) => refuse(&shell, &Peer::Local, &error),
    }
}

/// Who is at the other end, for logs.
enum Peer {
    Tcp(SocketAddr),
    Local,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Local => f.write_str("local"),
        }
    }
}

fn refuse(shell: &Shell, peer: &Peer, error: &TransportError) {
    shell.with_service(|service, _| service.counters_mut().connections_refused += 1);
    tracing::info!(%peer, %error, "a connection was not set up");
}

async fn serve_accepted(
    shell: Arc<Shell>,
    regions: Regions,
    (mut reader, writer, client): (Reader, Writer, ClientInfo),
    peer: Peer,
    spin: Spin,
) {
    reader.sum(payload::inline_sizes);
    let id = shell.with_service(|service, now_ms| service.connected(now_ms, &client.client_id));
    let link = Arc::new(Link::new(regions));
    shell.links.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&link));
    log_begin(&client, &peer);
    let receiving = async {
        let outcome = receive(&shell, &link, id, &mut reader, spin).await;
        // Before the peer can see that the connection is closed.
        link.regions.close();
        match &outcome {
            Ok(()) => tracing::debug!(%peer, "a connection ended"),
            Err(error) => tracing::info!(%peer, %error, "a connection ended"),
        }
        if outcome.is_err() {
            link.close();
        } else {
            link.finish();
        }
        shell.with_service(|service, now_ms| service.disconnected(now_ms, id));
        shell.links.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    };
    // One task: what a request brought into the cache is sent before other connections are looked at. A peer that has always more to
    // receive must not use up the turn of what is sent.
    tokio::join!(biased; receiving, unconstrained(send(&shell, &link, id, writer)));
    for frame in link.leftovers() {
        forget(&shell, id, &frame);
    }
}

fn log_begin(client: &ClientInfo, peer: &Peer) {
    tracing::debug!(
        %peer,
        client = %client.client_name,
        key = %client.key_id,
        mac = client.bulk_mac.name(),
        "a connection was set up"
    );
}

async fn receive(
    shell: &Shell,
    link: &Link,
    id: ConnectionId,
    reader: &mut Reader,
    mut spin: Spin,
) -> Result<(), ConnectionError> {
    let mut intake = Intake {
        shell,
        link,
        id,
        pieces: Vec::new(),
        small: false,
        #[cfg(target_os = "linux")]
        coming: Coming::default(),
    };
    let mut pending_before = false;
    let mut since_turn_bytes = 0;
    while link.may_receive().await {
        let small = intake.small;
        let next = tokio::select! {
            biased;
            () = link.ended() => return Ok(()),
            arrived = intake.arrived() => {
                arrived?;
                continue;
            }
            next = timeout(STALL_MAX, spin.wait_if(small, reader.next())), if intake.has_room() => next,
        };
        let Ok(next) = next else {
            // A frame may have begun just now; one that was there the last time has had its time, unless it waits for memory of this side.
            let pending = reader.pending_size_bytes() > 0 && !shell.is_short_of_memory();
            if pending && pending_before {
                return Err(ConnectionError::FrameStalled);
            }
            pending_before = pending;
            continue;
        };
        let Some(frame) = next? else { return Ok(()) };
        pending_before = false;
        tokio::select! {
            biased;
            () = link.ended() => return Ok(()),
            taken = intake.take(frame) => since_turn_bytes += taken?,
        }
        if let Some(waiting_bytes) = link.waiting_bytes()
            && (since_turn_bytes >= RECEIVED_BYTES_A_TURN || waiting_bytes >= REPLY_BYTES_A_TURN)
        {
            since_turn_bytes = 0;
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// Takes a connection's frames to the service, with the bytes that they bring.
struct Intake<'a> {
    shell: &'a Shell,
    link: &'a Link,
    id: ConnectionId,
    pieces: Vec<payload::PieceBytes>,
    /// Whether the last request moves no values, so that the next is as soon here as the peer can send it.
    small: bool,
    /// Frames whose bytes are fetched from the client's memory.
    #[cfg(target_os = "linux")]
    coming: Coming,
}

#[cfg(not(target_os = "linux"))]
impl Intake<'_> {
    fn has_room(&self) -> bool {
        true
    }

    async fn arrived(&mut self) -> Result<(), ConnectionError> {
        std::future::pending().await
    }
}

impl Intake<'_> {
    /// Answers how many bytes it was. While there is no memory for those that a frame names the peer waits.
    async fn take(&mut self, mut frame: Received<'_>) -> Result<usize, ConnectionError> {
        //= MKV-MSG-6
        let message = Message::new(frame.control)?;
        let request = Request::decode(&message)?;
        let payload = frame.payload.take().unwrap_or_default();
        self.small = payload.is_empty() && !moves_values(&request);
        #[cfg(target_os = "linux")]
        if self.link.regions.one_sided().is_some() && self.defer(&frame, &request, &payload).await? {
            return Ok(0);
        }
        let (cut, copied_bytes) = match payload::region_bytes(&request, &payload) {
            Ok(size_bytes) => {
                let copy = match size_bytes {
                    0 => BufMut::default(),
                    _ => self.shell.received.take(size_bytes).await.map_err(TransportError::from)?,
                };
                let regions = &self.link.regions;
                let payload = Payload { bytes: &payload, sums: frame.sums };
                (payload::split_with(&request, payload, regions, copy, &mut self.pieces), size_bytes)
            }
            Err(uneven) => (Err(uneven), 0),
        };
        let registered = match request.which {
            RequestWhich::Ping(ping) if !ping.regions.is_empty() || !ping.released.is_empty() => {
                Some(self.link.regions.register(&self.shell.mapped, &ping).await)
            }
            _ => None,
        };
        let size_bytes = frame.control.len() + payload.len() + copied_bytes;
        let input = Frame {
            request_id: frame.request_id,
            last: frame.last,
            request: &request,
            payload_bytes: payload.len(),
            pieces: cut.is_ok().then_some(&mut self.pieces),
        };
        drop(payload);
        serve_frame((self.shell, self.id), input, size_bytes as u64, registered);
        Ok(size_bytes)
    }
}

#[cfg(target_os = "linux")]
impl Intake<'_> {
    fn has_room(&self) -> bool {
        self.coming.has_room()
    }

    /// Takes the frame whose bytes come next, when they are here. Dropping the future loses nothing.
    async fn arrived(&mut self) -> Result<(), ConnectionError> {
        let arrived = self.coming.next(FETCH_MAX).await.map_err(|_| ConnectionError::FetchStalled)?;
        let (waiting, bytes) = arrived.map_err(TransportError::from)?;
        self.take_arrived(waiting, bytes)
    }

    /// Begins to fetch what a frame names, if it names bytes, or queues it behind others of its message that wait. False: it can be taken at
    /// once.
    async fn defer(
        &mut self,
        frame: &Received<'_>,
        request: &Request<'_>,
        payload: &Buf,
    ) -> Result<bool, ConnectionError> {
        let Some(one_sided) = self.link.regions.one_sided() else { return Ok(false) };
        let (mut fetch, mut places) = (None, Places::default());
        if let (Ok(1..), Some(pieces)) =
            (payload::region_bytes(request, payload), payload::pieces_of(request))
        {
            places = Places::of(pieces.iter(), &self.link.regions);
            let into = self.memory(places.size_bytes()).await?;
            fetch = Some(one_sided.fetch(into, &places).map_err(TransportError::from)?);
        } else if !self.coming.holds(frame.request_id) {
            return Ok(false);
        }
        self.coming.push(Waiting {
            begun: Instant::now(),
            request_id: frame.request_id,
            last: frame.last,
            control: frame.control.to_vec(),
            payload: payload.clone(),
            fetched: places.fetched,
            fetch,
        });
        Ok(true)
    }

    /// Memory to fetch into. Meanwhile frames are taken whose bytes came: what they hold may be what is waited for.
    async fn memory(&mut self, size_bytes: usize) -> Result<BufMut, ConnectionError> {
        let mut memory = std::pin::pin!(self.shell.received.take(size_bytes));
        loop {
            tokio::select! {
                biased;
                memory = &mut memory => return Ok(memory.map_err(TransportError::from)?),
                arrived = self.arrived() => arrived?,
            }
        }
    }

    /// Takes a frame whose bytes are here.
    fn take_arrived(&mut self, waiting: Waiting, bytes: BufMut) -> Result<(), ConnectionError> {
        let Some(one_sided) = self.link.regions.one_sided() else { return Ok(()) };
        let Waiting { request_id, last, control, payload, fetched, .. } = waiting;
        let message = Message::new(&control)?;
        let request = Request::decode(&message)?;
        let size_bytes = (control.len() + payload.len() + bytes.len()) as u64;
        let fetched = Fetched { one_sided, pieces: &fetched };
        let fetched_bytes = bytes.len() as u64;
        self.shell.with_service(|service, _| service.counters_mut().bytes_fetched += fetched_bytes);
        let cut = payload::split_with(&request, Payload::from(&payload), &fetched, bytes, &mut self.pieces);
        let input = Frame {
            request_id,
            last,
            request: &request,
            payload_bytes: payload.len(),
            pieces: cut.is_ok().then_some(&mut self.pieces),
        };
        serve_frame((self.shell, self.id), input, size_bytes, None);
        Ok(())
    }
}

/// Whether values go one way or the other because of a request, in its own payload or not.
fn moves_values(request: &Request<'_>) -> bool {
    matches!(
        request.which,
        RequestWhich::Read(_)
            | RequestWhich::BatchRead(_)
            | RequestWhich::Write(_)
            | RequestWhich::BatchWrite(_)
    )
}

/// Hands a frame to the service.
fn serve_frame(
    (shell, id): (&Shell, ConnectionId),
    input: Frame<'_>,
    size_bytes: u64,
    registered: Option<Status>,
) {
    shell.with_service(|service, now_ms| {
        service.counters_mut().bytes_received += size_bytes;
        if let Some(status) = registered {
            service.registered(id, status);
        }
        service.frame(now_ms, id, input);
    });
}

/// Sends what the link has until it ends.
async fn send(shell: &Shell, link: &Link, id: ConnectionId, mut writer: Writer) {
    let (mut frames, mut pushed) = (VecDeque::new(), Written::default());
    if let Err(error) = send_all(shell, link, id, &mut writer, &mut frames, &mut pushed).await {
        tracing::info!(%error, "a peer cannot be sent to");
        link.close();
    }
    report(shell, id, pushed, &mut Vec::new());
    for frame in frames {
        forget(shell, id, &frame);
    }
    link.regions.close();
    // The peer may be gone already.
    let _ = timeout(Duration::from_secs(1), writer.shutdown()).await;
}

/// Frames that come while others are written are looked at before each write, for small ones go first. `pushed` is what the writer
/// has and did not write.
async fn send_all(
    shell: &Shell,
    link: &Link,
    id: ConnectionId,
    writer: &mut Writer,
    frames: &mut VecDeque<Outgoing>,
    pushed: &mut Written,
) -> Result<(), ConnectionError> {
    let mut spares = Vec::new();
    let mut since_turn_bytes = 0;
    loop {
        if writer.is_idle() && frames.is_empty() {
            if link.take(frames).await.is_none() {
                return Ok(());
            }
        } else if !link.take_more(frames) {
            return Ok(());
        }
        while writer.has_room()
            && let Some(frame) = frames.pop_front()
        {
            spares.push(writer.blank());
            pushed.frames += 1;
            pushed.control_size_bytes += frame.control.control().len();
            pushed.payload_size_bytes += frame.payload_size_bytes();
            #[cfg(target_os = "linux")]
            if let (Some(one_sided), false) = (link.regions.one_sided(), frame.beside.is_empty()) {
                let put_bytes = one_sided.put(&link.regions, &frame.beside).map_err(TransportError::from)?;
                shell.with_service(|service, _| service.counters_mut().bytes_put += put_bytes);
            }
            writer.push(frame)?;
        }
        let before = writer.queued_size_bytes();
        match timeout(STALL_MAX, writer.write()).await {
            Ok(written) => written?,
            Err(_) if writer.queued_size_bytes() == before => return Err(ConnectionError::Stalled),
            Err(_) => {}
        }
        let written = writer.take_written();
        if written.frames > 0 {
            pushed.frames -= written.frames;
            pushed.control_size_bytes -= written.control_size_bytes;
            pushed.payload_size_bytes -= written.payload_size_bytes;
            since_turn_bytes += written.control_size_bytes + written.payload_size_bytes;
            report(shell, id, written, &mut spares);
        }
        if since_turn_bytes >= SENT_BYTES_A_TURN {
            since_turn_bytes = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// These frames were sent, or never will be: they leave their connection's window.
fn report(shell: &Shell, id: ConnectionId, written: Written, spares: &mut Vec<Outgoing>) {
    shell.with_service(|service, now_ms| {
        spares.drain(..).for_each(|spare| service.recycle(spare));
        let Written { frames, control_size_bytes, payload_size_bytes } = written;
        service.sent(now_ms, id, frames, control_size_bytes, payload_size_bytes);
    });
}

/// A frame that will not be sent leaves its connection's window.
fn forget(shell: &Shell, id: ConnectionId, frame: &Outgoing) {
    let payload_bytes = frame.payload_size_bytes();
    let control_bytes = frame.control.control().len();
    shell.with_service(|service, now_ms| service.sent(now_ms, id, 1, control_bytes, payload_bytes));
}
