//! Frames over TCP.
//!
//! Owns the socket options and the splitting of the socket; everything else is [`crate::stream`]. A connection is authenticated before anyone
//! gets a half of it.
//!
//! A process that dies is told of by its system, a host that dies by nobody: the kernel asks for it, and ends a connection that was not answered for
//! [`SILENCE_MAX`]. So does an end that only listens lose no place to a peer that is gone.

use std::io;
use std::time::Duration;

use memkv_wire::mac::{Key, KeyRing};
use rustix::net::sockopt;
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::timeout;

use crate::buf::BufPool;
use crate::error::{SetupError, TransportError};
use crate::net::{self, ReadHalf, WriteHalf};
pub use crate::net::{Reader, Writer};
use crate::session::{Channel, ClientInfo, ClientTerms, SETUP_TIMEOUT, ServerInfo, ServerTerms, SetupGate};
use crate::stream;

/// How long a peer's host may say nothing, not even to its kernel's being asked, before the connection ends.
pub const SILENCE_MAX: Duration =
    KEEPALIVE_IDLE.saturating_add(KEEPALIVE_INTERVAL.saturating_mul(KEEPALIVE_PROBES));

/// Silence after which a peer's host is asked, how often, and how many times.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 6;

/// Connects to a server. Payloads that are received take their memory from `pool`.
pub async fn connect(
    address: impl ToSocketAddrs,
    key: &Key,
    terms: &ClientTerms,
    pool: BufPool,
) -> Result<(Reader, Writer, ServerInfo), TransportError> {
    let connecting = timeout(SETUP_TIMEOUT, TcpStream::connect(address));
    let mut socket = connecting.await.map_err(|_| SetupError::TimedOut)??;
    set_options(&socket)?;
    let (channel, server) = stream::connect(&mut socket, key, terms).await?;
    let (reader, writer) = split(socket, channel, pool);
    Ok((reader, writer, server))
}

/// Accepts a client on a socket that a listener gave. With no place in the gate the socket is closed at once.
pub async fn accept(
    mut socket: TcpStream,
    keys: &KeyRing,
    terms: &ServerTerms,
    gate: &SetupGate,
    pool: BufPool,
) -> Result<(Reader, Writer, ClientInfo), TransportError> {
    let permit = gate.enter()?;
    set_options(&socket)?;
    let (channel, client) = stream::accept(&mut socket, keys, terms, permit).await?;
    let (reader, writer) = split(socket, channel, pool);
    Ok((reader, writer, client))
}

/// What every socket has, the one beside a queue pair, too.
pub(crate) fn set_options(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?;
    // While sent bytes wait for their acknowledgement nobody is asked, and they would be sent again for a quarter of an hour. It ends a live peer
    // that takes no byte for as long, too; a server gives that one up after at most this time by itself, and a client's
    // requests have ended by then.
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(socket, SILENCE_MAX.as_millis() as u32)?;
    sockopt::set_socket_keepalive(socket, true)?;
    Ok(())
}

fn split(socket: TcpStream, channel: Channel, pool: BufPool) -> (Reader, Writer) {
    let (read, write) = socket.into_split();
    net::halves(ReadHalf::Tcp(read), WriteHalf::Tcp(write), channel, pool)
}
