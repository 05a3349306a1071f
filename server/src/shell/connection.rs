//! One peer: set-up, a task that receives, a task that sends.
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
use memkv_transport::session::{ClientInfo, ServerTerms, SetupGate};
use memkv_transport::stream::{Outgoing, PushError, Written};
use memkv_transport::tcp;
use memkv_wire::mac::KeyRing;
use memkv_wire::{DecodeError, Message, Request, RequestWhich};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Shell;
use super::link::Link;
use super::regions::Regions;
use crate::service::{ConnectionId, Frame, payload};

/// A peer that takes no byte of a reply for so long, or does not end a frame that it began, is given up.
pub const STALL_MAX: Duration = Duration::from_secs(60);

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
pub async fn serve(shell: Arc<Shell>, door: Arc<Door>, stream: TcpStream, peer: SocketAddr) {
    match accept(&shell, &door, stream, peer).await {
        Ok((reader, writer, client)) => {
            serve_accepted(shell, Regions::over(None), (reader, writer, client), Peer::Tcp(peer)).await;
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

/// Serves one peer on the local socket until it leaves.
pub async fn serve_local(shell: Arc<Shell>, door: Arc<Door>, socket: Socket) {
    let pool = shell.received.clone();
    match local::accept(socket, &door.keys, &door.terms_here, &door.gate, pool).await {
        Ok((reader, writer, client, files)) => {
            serve_accepted(shell, Regions::over(Some(files)), (reader, writer, client), Peer::Local).await;
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
) {
    let id = shell.with_service(|service, now_ms| service.connected(now_ms, &client.client_id));
    let link = Arc::new(Link::new(regions));
    shell.links.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&link));
    log_begin(&client, &peer);
    let sending = tokio::spawn(send(Arc::clone(&shell), Arc::clone(&link), id, writer));
    let outcome = receive(&shell, &link, id, &mut reader).await;
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
    if let Err(error) = sending.await {
        tracing::error!(%peer, %error, "a sender failed");
    }
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
) -> Result<(), ConnectionError> {
    let mut pieces = Vec::new();
    let mut pending_before = false;
    while link.may_receive().await {
        let next = tokio::select! {
            biased;
            () = link.ended() => return Ok(()),
            next = timeout(STALL_MAX, reader.next()) => next,
        };
        let Ok(next) = next else {
            // A frame may have begun just now; one that was there the last time has had its time.
            let pending = reader.pending_size_bytes() > 0;
            if pending && pending_before {
                return Err(ConnectionError::FrameStalled);
            }
            pending_before = pending;
            continue;
        };
        let Some(frame) = next? else { return Ok(()) };
        pending_before = false;
        //= MKV-MSG-6
        let message = Message::new(frame.control)?;
        let request = Request::decode(&message)?;
        let payload = frame.payload.unwrap_or_default();
        let (cut, copied_bytes) = tokio::select! {
            biased;
            () = link.ended() => return Ok(()),
            cut = cut(shell, link, &request, &payload, &mut pieces) => cut?,
        };
        let registered = match request.which {
            RequestWhich::Ping(ping) if !ping.regions.is_empty() || !ping.released.is_empty() => {
                Some(link.regions.register(&shell.mapped, &ping).await)
            }
            _ => None,
        };
        let input = Frame {
            request_id: frame.request_id,
            last: frame.last,
            request: &request,
            payload_bytes: payload.len(),
            pieces: cut.is_ok().then_some(&mut pieces),
        };
        let received_bytes = (frame.control.len() + payload.len() + copied_bytes) as u64;
        drop(payload);
        shell.with_service(|service, now_ms| {
            service.counters_mut().bytes_received += received_bytes;
            if let Some(status) = registered {
                service.registered(id, status);
            }
            service.frame(now_ms, id, input);
        });
    }
    Ok(())
}

/// Cuts a frame's bytes into pieces, after copying those that the client shares; tells how many these are. While there is no
/// memory for the copy the peer waits.
async fn cut(
    shell: &Shell,
    link: &Link,
    request: &Request<'_>,
    payload: &Buf,
    pieces: &mut Vec<payload::PieceBytes>,
) -> Result<(Result<(), payload::Uneven>, usize), TransportError> {
    let copy = match payload::region_bytes(request, payload) {
        Ok(0) => BufMut::default(),
        Ok(size_bytes) => shell.received.take(size_bytes).await?,
        Err(uneven) => return Ok((Err(uneven), 0)),
    };
    let copied_bytes = copy.len();
    Ok((payload::split_with(request, payload, &link.regions, copy, pieces), copied_bytes))
}

/// Sends what the link has until it ends.
async fn send(shell: Arc<Shell>, link: Arc<Link>, id: ConnectionId, mut writer: Writer) {
    let (mut frames, mut pushed) = (VecDeque::new(), Written::default());
    if let Err(error) = send_all(&shell, &link, id, &mut writer, &mut frames, &mut pushed).await {
        tracing::info!(%error, "a peer cannot be sent to");
        link.close();
    }
    report(&shell, id, pushed, &mut Vec::new());
    for frame in frames {
        forget(&shell, id, &frame);
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
            pushed.payload_size_bytes += frame.payload.iter().map(|part| part.len()).sum::<usize>();
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
            report(shell, id, written, &mut spares);
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
    let payload_bytes = frame.payload.iter().map(|part| part.len()).sum();
    let control_bytes = frame.control.control().len();
    shell.with_service(|service, now_ms| service.sent(now_ms, id, 1, control_bytes, payload_bytes));
}
