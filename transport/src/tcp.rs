//! Frames over TCP.
//!
//! Owns the socket options and the splitting of the socket; everything else is [`crate::stream`]. A connection is authenticated before anyone
//! gets a half of it.

use memkv_wire::mac::{Key, KeyRing};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::timeout;

use crate::buf::BufPool;
use crate::error::{SetupError, TransportError};
use crate::net::{self, ReadHalf, WriteHalf};
pub use crate::net::{Reader, Writer};
use crate::session::{Channel, ClientInfo, ClientTerms, SETUP_TIMEOUT, ServerInfo, ServerTerms, SetupGate};
use crate::stream;

/// Connects to a server. Payloads that are received take their memory from `pool`.
pub async fn connect(
    address: impl ToSocketAddrs,
    key: &Key,
    terms: &ClientTerms,
    pool: BufPool,
) -> Result<(Reader, Writer, ServerInfo), TransportError> {
    let connecting = timeout(SETUP_TIMEOUT, TcpStream::connect(address));
    let mut socket = connecting.await.map_err(|_| SetupError::TimedOut)??;
    socket.set_nodelay(true)?;
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
    socket.set_nodelay(true)?;
    let (channel, client) = stream::accept(&mut socket, keys, terms, permit).await?;
    let (reader, writer) = split(socket, channel, pool);
    Ok((reader, writer, client))
}

fn split(socket: TcpStream, channel: Channel, pool: BufPool) -> (Reader, Writer) {
    let (read, write) = socket.into_split();
    net::halves(ReadHalf::Tcp(read), WriteHalf::Tcp(write), channel, pool)
}
