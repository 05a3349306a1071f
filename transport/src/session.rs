//! Session set-up: Connect, its reply and the confirmation, without a clock, a socket or a random source.
//!
//! Each side is a chain of states consumed by value: a client goes [`AwaitReply`] -> [`Established`], a server
//! [`AwaitConnect`] -> [`AwaitConfirmation`] -> [`Accepted`]. Bytes are put into a state's `space`, then `advance` says how many,
//! and what time it is. Invariants:
//! - a server holds at most one hello frame's worth of received bytes for a connection that has not confirmed, no
//!   longer than its deadline, and only under a permit of its [`SetupGate`];
//! - the first frame that reaches anyone beyond this module was signed by a peer that holds the shared key and answered this
//!   connection's nonce.
//!
//! It does not check that nonces are fresh: whoever drives it draws them from the system's random source.

mod identity;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use memkv_wire::control::{ControlBuf, Message};
use memkv_wire::frame::{Extent, Flags, HELLO_SIZE_BYTES_MAX, Header, Kind, VERSION};
use memkv_wire::limits::{SETUP_CONNECTIONS_MAX, SETUP_TIMEOUT_MS};
use memkv_wire::mac::{BulkAlgorithm, BulkKey, Direction, Key, KeyId, KeyRing, Schedule};
use memkv_wire::{
    BulkMac, Connect, ConnectReply, ConnectReplyWhich, ConnectWhich, List, Request, RequestWhich, Response,
    ResponseWhich, Status,
};
use zerocopy::IntoBytes;

pub use self::identity::{Gid, QueuePairIdentity};
use crate::buf::BufPool;
use crate::error::{FrameError, SetupError};
use crate::receiver::{Opener, Receiver, extent_of};
use crate::sealer::{Sealer, sign_header};

/// The random bytes that each side adds to a connection's transcript.
pub type Nonce = [u8; 32];

/// How long a connection may be in set-up.
pub const SETUP_TIMEOUT: Duration = Duration::from_millis(SETUP_TIMEOUT_MS as u64);
/// The oldest version this side reads.
pub const VERSION_MIN: u8 = 1;

/// The two halves of a connection after set-up.
#[derive(Debug)]
pub struct Channel {
    sealer: Sealer,
    opener: Opener,
    hello: HelloBytes,
}

impl Channel {
    /// The halves. Payloads that are received take their memory from `pool`.
    pub fn split(self, pool: BufPool) -> (Sealer, Receiver) {
        (self.sealer, Receiver::new(self.opener, pool, self.hello.bytes()))
    }
}

/// The name by which a client in a build with `--cfg memkv_no_bulk_mac` asks for payloads without a MAC. Set-up and control messages have theirs.
#[cfg(memkv_no_bulk_mac)]
pub const UNSIGNED_CLIENT_NAME: &str = "memkv bench without the bulk MAC";

#[cfg(memkv_no_bulk_mac)]
fn bulk_key(schedule: &Schedule, direction: Direction, bulk: BulkAlgorithm, client_name: &str) -> BulkKey {
    match client_name {
        UNSIGNED_CLIENT_NAME => BulkKey::Unsigned(bulk),
        _ => schedule.bulk_key(direction, bulk),
    }
}

#[cfg(not(memkv_no_bulk_mac))]
fn bulk_key(schedule: &Schedule, direction: Direction, bulk: BulkAlgorithm, _client_name: &str) -> BulkKey {
    schedule.bulk_key(direction, bulk)
}

/// The keys of both directions and the MACs they need.
fn channel(
    schedule: &Schedule,
    (bulk, client_name): (BulkAlgorithm, &str),
    side: Side,
    hello: HelloBytes,
) -> Channel {
    let (out, own_kind, peer_kind) = match side {
        Side::Client => (Direction::ClientToServer, Kind::Request, Kind::Response),
        Side::Server => (Direction::ServerToClient, Kind::Response, Kind::Request),
    };
    let back = out.reversed();
    // A client has sent two hello frames by now, Connect and its confirmation; a server one.
    let (own_sequence, peer_sequence) = match side {
        Side::Client => (2, 1),
        Side::Server => (1, 2),
    };
    Channel {
        sealer: Sealer::new(
            schedule.control_mac(out),
            bulk_key(schedule, out, bulk, client_name),
            own_kind,
            own_sequence,
        ),
        opener: Opener::new(
            schedule.control_mac(back),
            bulk_key(schedule, back, bulk, client_name),
            peer_kind,
            peer_sequence,
        ),
        hello,
    }
}

#[derive(Clone, Copy)]
enum Side {
    Client,
    Server,
}

// ---------------------------------------------------------------- client

/// What a client says of itself.
#[derive(Clone, Debug)]
pub struct ClientTerms {
    /// Drawn once by a client and the same on all its connections.
    pub client_id: [u8; 16],
    /// For the server's logs, at most 128 bytes.
    pub client_name: String,
    /// What it offers, the preferred first.
    pub bulk_macs: Vec<BulkAlgorithm>,
}

impl ClientTerms {
    /// Terms that offer every bulk MAC, the one that is fastest here first.
    pub fn new(client_id: [u8; 16], client_name: impl Into<String>) -> ClientTerms {
        ClientTerms {
            client_id,
            client_name: client_name.into(),
            bulk_macs: BulkAlgorithm::preference().to_vec(),
        }
    }
}

/// What a client learnt of its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    pub server_id: [u8; 16],
    pub server_name: String,
    /// The server's Unix socket; empty if there is none.
    pub local_path: String,
    /// Whether it has devices for queue pairs.
    pub queue_pairs: bool,
    pub bulk_mac: BulkAlgorithm,
    pub requests_in_flight_max: u32,
    /// The lease a request gets when it asks for none.
    pub lease_ms: u32,
    pub version_min: u8,
    pub version_max: u8,
    /// Its end of the queue pair that was asked for; without one the frames go over the stream.
    pub queue_pair: Option<QueuePairIdentity>,
}

/// A client that sent its Connect.
#[derive(Debug)]
pub struct AwaitReply {
    key: Key,
    connect: ControlBuf,
    nonce: Nonce,
    offered: Vec<BulkAlgorithm>,
    client_name: String,
    /// Whether a queue pair was asked for.
    asked: bool,
    hello: HelloBytes,
    deadline: Duration,
}

/// What a client has after bytes came.
#[derive(Debug)]
pub enum ReplyStep {
    NeedBytes(AwaitReply),
    Established(Box<Established>),
}

/// A connection, from the client's end.
#[derive(Debug)]
pub struct Established {
    /// To be written before anything else.
    pub confirmation: [u8; size_of::<Header>()],
    pub channel: Channel,
    pub server: ServerInfo,
}

impl AwaitReply {
    /// Begins a connection; [`AwaitReply::connect`] is to be written first.
    pub fn begin(
        key: &Key,
        terms: &ClientTerms,
        nonce: Nonce,
        now: Duration,
    ) -> Result<AwaitReply, SetupError> {
        AwaitReply::begin_asking(key, terms, nonce, now, None)
    }

    /// As [`AwaitReply::begin`], asking for a queue pair beside the stream when this side has one.
    //= MKV-CONN-3
    pub fn begin_asking(
        key: &Key,
        terms: &ClientTerms,
        nonce: Nonce,
        now: Duration,
        own: Option<&QueuePairIdentity>,
    ) -> Result<AwaitReply, SetupError> {
        let offered: Vec<BulkMac> =
            terms.bulk_macs.iter().map(|mac| BulkMac::from_code(mac.code())).collect();
        let request = Request {
            namespace: &[],
            which: RequestWhich::Connect(Connect {
                nonce: &nonce,
                client_id: &terms.client_id,
                bulk_macs: List::from(offered.as_slice()),
                client_name: &terms.client_name,
                which: own.map_or(ConnectWhich::Stream, |own| ConnectWhich::QueuePair(own.as_wire())),
            }),
        };
        let mut connect = ControlBuf::new();
        request.encode(&mut connect)?;
        let mut header = hello_header(connect.control(), key.id(), 0)?;
        sign_header(&key.connect_mac(), &mut header, connect.control());
        connect.head_mut().copy_from_slice(header.as_bytes());
        Ok(AwaitReply {
            key: key.clone(),
            connect,
            nonce,
            offered: terms.bulk_macs.clone(),
            client_name: terms.client_name.clone(),
            asked: own.is_some(),
            hello: HelloBytes::new(),
            deadline: now + SETUP_TIMEOUT,
        })
    }

    /// The Connect frame.
    pub fn connect(&self) -> &[u8] {
        self.connect.frame()
    }

    /// Where to put the bytes that come next.
    pub fn space(&mut self) -> &mut [u8] {
        self.hello.space()
    }

    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Says that so many bytes of [`AwaitReply::space`] are filled.
    pub fn advance(mut self, received_size_bytes: usize, now: Duration) -> Result<ReplyStep, SetupError> {
        self.hello.advance(received_size_bytes);
        if now >= self.deadline {
            return Err(SetupError::TimedOut);
        }
        let Some((header, control)) = self.hello.frame()? else { return Ok(ReplyStep::NeedBytes(self)) };
        let schedule = Schedule::new(&self.key, self.connect.control(), control, header.version);
        let server = self.read_reply(&schedule, &header, control)?;
        let mut confirmation = hello_header(&[], self.key.id(), 1)?;
        sign_header(&schedule.control_mac(Direction::ClientToServer), &mut confirmation, &[]);
        let frame_size_bytes = size_of::<Header>() + control.len();
        self.hello.consume(frame_size_bytes);
        let channel = channel(&schedule, (server.bulk_mac, &self.client_name), Side::Client, self.hello);
        let confirmation = zerocopy::transmute!(confirmation);
        Ok(ReplyStep::Established(Box::new(Established { confirmation, channel, server })))
    }

    /// Says that the stream ended before the reply, and what that most likely means.
    pub fn close(self) -> SetupError {
        match self.hello.bytes().len() {
            0 => SetupError::NoAnswer { key_id: self.key.id() },
            received_size_bytes => FrameError::Truncated { received_size_bytes }.into(),
        }
    }

    //= MKV-CONN-8
    fn read_reply(
        &self,
        schedule: &Schedule,
        header: &Header,
        control: &[u8],
    ) -> Result<ServerInfo, SetupError> {
        let key_id = self.key.id();
        let mac = schedule.control_mac(Direction::ServerToClient);
        let verified = mac.verify(&[header.signed_bytes(), control], &header.mac);
        verified.map_err(|_| SetupError::AnswerMac { key_id })?;
        check_hello(header, key_id, 0)?;
        let message = Message::new(control)?;
        let response = Response::decode(&message)?;
        let ResponseWhich::Connect(reply) = response.which else {
            return Err(SetupError::UnexpectedHello { expected: "reply to Connect" });
        };
        if *reply.client_nonce != self.nonce {
            return Err(SetupError::Nonce);
        }
        if response.status == Status::UnsupportedVersion || header.version != VERSION {
            let (server_min, server_max) = (reply.version_min, reply.version_max);
            return Err(SetupError::UnsupportedVersion { own: VERSION, server_min, server_max });
        }
        if response.status != Status::Ok {
            return Err(SetupError::Refused { status: response.status });
        }
        let queue_pair = match &reply.which {
            ConnectReplyWhich::Stream => None,
            ConnectReplyWhich::QueuePair(theirs) if self.asked => Some(QueuePairIdentity::from_wire(theirs)),
            ConnectReplyWhich::QueuePair(_) | ConnectReplyWhich::Unknown(_) => {
                return Err(SetupError::UnexpectedHello { expected: "reply that takes what was asked for" });
            }
        };
        let code = reply.bulk_mac.code();
        let chosen = BulkAlgorithm::from_code(code).filter(|chosen| self.offered.contains(chosen));
        Ok(ServerInfo {
            server_id: *reply.server_id,
            server_name: reply.server_name.to_owned(),
            local_path: reply.local_path.to_owned(),
            queue_pairs: reply.queue_pairs,
            bulk_mac: chosen.ok_or(SetupError::BulkMac { code })?,
            requests_in_flight_max: reply.requests_in_flight_max,
            lease_ms: reply.lease_ms,
            version_min: reply.version_min,
            version_max: reply.version_max,
            queue_pair,
        })
    }
}

// ---------------------------------------------------------------- server

/// What a server says of itself.
#[derive(Clone, Debug)]
pub struct ServerTerms {
    /// The server's identity; it outlives restarts.
    pub server_id: [u8; 16],
    /// For logs: name and release, at most 128 bytes.
    pub server_name: String,
    /// Its Unix socket, at most 108 bytes; empty if there is none.
    pub local_path: String,
    /// Whether it has devices for queue pairs.
    pub queue_pairs: bool,
    pub requests_in_flight_max: u32,
    /// The lease a request gets when it asks for none.
    pub lease_ms: u32,
    /// What it can speak, in no order: the client's order decides.
    pub bulk_macs: Vec<BulkAlgorithm>,
}

/// What a server learnt of its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    pub client_id: [u8; 16],
    pub client_name: String,
    pub key_id: KeyId,
    pub bulk_mac: BulkAlgorithm,
}

/// Counts the connections in set-up on the whole server. Clones share the count.
//= MKV-CONN-5
#[derive(Clone, Debug)]
pub struct SetupGate(Arc<Gate>);

#[derive(Debug)]
struct Gate {
    connections: AtomicU32,
    connections_max: u32,
}

/// The right to hold one connection in set-up.
#[derive(Debug)]
pub struct SetupPermit(Arc<Gate>);

impl SetupGate {
    /// A gate that lets in as many as the specification allows, or fewer.
    pub fn new(connections_max: u32) -> SetupGate {
        let connections_max = connections_max.min(SETUP_CONNECTIONS_MAX);
        SetupGate(Arc::new(Gate { connections: AtomicU32::new(0), connections_max }))
    }

    /// A permit; the connection must be closed when there is none.
    pub fn enter(&self) -> Result<SetupPermit, SetupError> {
        let connections_max = self.0.connections_max;
        let entered = self.0.connections.fetch_update(Ordering::AcqRel, Ordering::Acquire, |connections| {
            (connections < connections_max).then_some(connections + 1)
        });
        match entered {
            Ok(_) => Ok(SetupPermit(Arc::clone(&self.0))),
            Err(_) => Err(SetupError::TooManyConnections { connections_max }),
        }
    }

    /// The connections in set-up at this moment.
    pub fn connections(&self) -> u32 {
        self.0.connections.load(Ordering::Acquire)
    }
}

impl Default for SetupGate {
    fn default() -> SetupGate {
        SetupGate::new(SETUP_CONNECTIONS_MAX)
    }
}

impl Drop for SetupPermit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A server that waits for a Connect.
#[derive(Debug)]
pub struct AwaitConnect {
    hello: HelloBytes,
    deadline: Duration,
    permit: SetupPermit,
}

/// What a server has after bytes came.
#[derive(Debug)]
pub enum ConnectStep {
    NeedBytes(AwaitConnect),
    /// The reply is to be written, and the confirmation to be waited for.
    Answered(Box<AwaitConfirmation>),
    /// The reply is to be written, and the connection to be closed.
    Refused(Refusal),
}

/// A reply that ends the connection.
#[derive(Debug)]
pub struct Refusal {
    reply: ControlBuf,
    error: SetupError,
}

impl Refusal {
    pub fn reply(&self) -> &[u8] {
        self.reply.frame()
    }

    pub fn error(&self) -> SetupError {
        self.error
    }
}

impl AwaitConnect {
    //= MKV-CONN-5
    pub fn begin(permit: SetupPermit, now: Duration) -> AwaitConnect {
        AwaitConnect { hello: HelloBytes::new(), deadline: now + SETUP_TIMEOUT, permit }
    }

    /// Where to put the bytes that come next.
    pub fn space(&mut self) -> &mut [u8] {
        self.hello.space()
    }

    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Says that so many bytes of [`AwaitConnect::space`] are filled. The nonce is used when the Connect is whole; it must be fresh
    /// for every connection.
    //= MKV-CONN-4
    //= MKV-CONN-5
    pub fn advance(
        self,
        received_size_bytes: usize,
        now: Duration,
        keys: &KeyRing,
        terms: &ServerTerms,
        nonce: &Nonce,
    ) -> Result<ConnectStep, SetupError> {
        self.advance_offering(received_size_bytes, now, (keys, terms), nonce, |_| None)
    }

    /// As [`AwaitConnect::advance`]. `offer` is asked for a queue pair when the client, whose key is known by then, asks for one with its own;
    /// without one the connection is a stream.
    pub fn advance_offering(
        mut self,
        received_size_bytes: usize,
        now: Duration,
        (keys, terms): (&KeyRing, &ServerTerms),
        nonce: &Nonce,
        offer: impl FnOnce(&QueuePairIdentity) -> Option<QueuePairIdentity>,
    ) -> Result<ConnectStep, SetupError> {
        self.hello.advance(received_size_bytes);
        if now >= self.deadline {
            return Err(SetupError::TimedOut);
        }
        let Some((header, control)) = self.hello.frame()? else { return Ok(ConnectStep::NeedBytes(self)) };
        let key = signer(keys, &header, control)?;
        check_hello(&header, key.id(), 0)?;
        let message = Message::new(control)?;
        let request = Request::decode(&message)?;
        let RequestWhich::Connect(connect) = request.which else {
            return Err(SetupError::UnexpectedHello { expected: "Connect" });
        };
        //= MKV-CONN-9
        if header.version != VERSION {
            let (status, bulk) = (Status::UnsupportedVersion, BulkAlgorithm::HmacSha256);
            let (reply, _) = terms.reply(key, control, &connect, (status, bulk, None), nonce)?;
            let error = SetupError::ClientVersion { client: header.version, own: VERSION };
            return Ok(ConnectStep::Refused(Refusal { reply, error }));
        }
        let bulk_mac = terms.choose(&connect).ok_or(SetupError::NoCommonBulkMac)?;
        let own = match &connect.which {
            ConnectWhich::QueuePair(theirs) => offer(&QueuePairIdentity::from_wire(theirs)),
            ConnectWhich::Stream | ConnectWhich::Unknown(_) => None,
        };
        let answer = (Status::Ok, bulk_mac, own.as_ref());
        let (reply, schedule) = terms.reply(key, control, &connect, answer, nonce)?;
        let client = ClientInfo {
            client_id: *connect.client_id,
            client_name: connect.client_name.to_owned(),
            key_id: key.id(),
            bulk_mac,
        };
        let frame_size_bytes = size_of::<Header>() + control.len();
        self.hello.consume(frame_size_bytes);
        let AwaitConnect { hello, deadline, permit } = self;
        Ok(ConnectStep::Answered(Box::new(AwaitConfirmation {
            hello,
            deadline,
            permit,
            reply,
            schedule,
            client,
        })))
    }
}

impl AwaitConnect {
    /// Says that the stream ended before a whole Connect.
    pub fn close(self) -> SetupError {
        FrameError::Truncated { received_size_bytes: self.hello.bytes().len() }.into()
    }
}

/// The key that signed this Connect.
//= MKV-CONN-4
//= MKV-CONN-6
fn signer<'a>(keys: &'a KeyRing, header: &Header, control: &[u8]) -> Result<&'a Key, SetupError> {
    let key_id = KeyId(header.id.get());
    let mut error = SetupError::UnknownKey { key_id };
    for key in keys.with_id(key_id) {
        match key.connect_mac().verify(&[header.signed_bytes(), control], &header.mac) {
            Ok(()) => return Ok(key),
            Err(_) => error = SetupError::ConnectMac { key_id },
        }
    }
    Err(error)
}

impl ServerTerms {
    //= MKV-CONN-7
    fn choose(&self, connect: &Connect<'_>) -> Option<BulkAlgorithm> {
        let mut offered = connect.bulk_macs.iter().filter_map(|mac| BulkAlgorithm::from_code(mac.code()));
        offered.find(|mac| self.bulk_macs.contains(mac))
    }

    /// The signed reply to a Connect, and what the connection's keys are derived from.
    fn reply(
        &self,
        key: &Key,
        connect_bytes: &[u8],
        connect: &Connect<'_>,
        (status, bulk_mac, own): (Status, BulkAlgorithm, Option<&QueuePairIdentity>),
        nonce: &Nonce,
    ) -> Result<(ControlBuf, Schedule), SetupError> {
        let response = Response {
            status,
            retry_after_ms: 0,
            detail: "",
            which: ResponseWhich::Connect(ConnectReply {
                client_nonce: connect.nonce,
                server_nonce: nonce,
                server_id: &self.server_id,
                bulk_mac: BulkMac::from_code(bulk_mac.code()),
                version_min: VERSION_MIN,
                version_max: VERSION,
                requests_in_flight_max: self.requests_in_flight_max,
                lease_ms: self.lease_ms,
                server_name: &self.server_name,
                local_path: &self.local_path,
                queue_pairs: self.queue_pairs,
                which: own
                    .map_or(ConnectReplyWhich::Stream, |own| ConnectReplyWhich::QueuePair(own.as_wire())),
            }),
        };
        let mut reply = ControlBuf::new();
        response.encode(&mut reply)?;
        let schedule = Schedule::new(key, connect_bytes, reply.control(), VERSION);
        let mut header = hello_header(reply.control(), key.id(), 0)?;
        sign_header(&schedule.control_mac(Direction::ServerToClient), &mut header, reply.control());
        reply.head_mut().copy_from_slice(header.as_bytes());
        Ok((reply, schedule))
    }
}

/// A server that answered and waits for the confirmation.
#[derive(Debug)]
pub struct AwaitConfirmation {
    hello: HelloBytes,
    deadline: Duration,
    permit: SetupPermit,
    reply: ControlBuf,
    schedule: Schedule,
    client: ClientInfo,
}

/// What a server has after more bytes came.
#[derive(Debug)]
pub enum ConfirmationStep {
    NeedBytes(Box<AwaitConfirmation>),
    Accepted(Box<Accepted>),
}

/// A connection, from the server's end.
#[derive(Debug)]
pub struct Accepted {
    pub channel: Channel,
    pub client: ClientInfo,
}

impl AwaitConfirmation {
    /// The reply to Connect, to be written first.
    pub fn reply(&self) -> &[u8] {
        self.reply.frame()
    }

    /// Where to put the bytes that come next.
    pub fn space(&mut self) -> &mut [u8] {
        self.hello.space()
    }

    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Says that so many bytes of [`AwaitConfirmation::space`] are filled. Call it once with 0 before the first read:
    /// bytes may have come with the Connect, though no client can make the right ones before it has the reply.
    //= MKV-CONN-5
    //= MKV-CONN-10
    pub fn advance(
        mut self: Box<Self>,
        received_size_bytes: usize,
        now: Duration,
    ) -> Result<ConfirmationStep, SetupError> {
        self.hello.advance(received_size_bytes);
        if now >= self.deadline {
            return Err(SetupError::TimedOut);
        }
        let Some(header) = self.hello.header()? else { return Ok(ConfirmationStep::NeedBytes(self)) };
        if header.control_words.get() != 0 || header.payload_length.get() != 0 {
            return Err(SetupError::NoConfirmation);
        }
        let mac = self.schedule.control_mac(Direction::ClientToServer);
        mac.verify(&[header.signed_bytes()], &header.mac).map_err(|_| FrameError::ControlMac)?;
        if header.version != VERSION {
            return Err(FrameError::Version { found: header.version, agreed: VERSION }.into());
        }
        check_hello(&header, self.client.key_id, 1)?;
        self.hello.consume(size_of::<Header>());
        let AwaitConfirmation { hello, permit, schedule, client, .. } = *self;
        drop(permit);
        let channel = channel(&schedule, (client.bulk_mac, &client.client_name), Side::Server, hello);
        Ok(ConfirmationStep::Accepted(Box::new(Accepted { channel, client })))
    }

    /// Says that the stream ended before the confirmation.
    pub fn close(self) -> SetupError {
        SetupError::NoConfirmation
    }
}

// ---------------------------------------------------------------- hello frames

/// An unsigned header of a hello frame.
fn hello_header(control: &[u8], key_id: KeyId, sequence: u64) -> Result<Header, SetupError> {
    let size_bytes = size_of::<Header>() + control.len();
    if size_bytes > HELLO_SIZE_BYTES_MAX {
        return Err(SetupError::HelloTooLong { size_bytes });
    }
    let extent = Extent { control_size_bytes: control.len(), payload_size_bytes: 0 };
    Ok(Header::new(Kind::Hello, Flags::new(true), key_id.0, extent, sequence))
}

/// What must hold for every hello frame once its MAC did, apart from its version.
fn check_hello(header: &Header, key_id: KeyId, sequence: u64) -> Result<(), SetupError> {
    if header.kind() != Kind::Hello {
        return Err(FrameError::Kind { found: header.kind(), expected: Kind::Hello }.into());
    }
    if header.sequence.get() != sequence {
        return Err(FrameError::Sequence { found: header.sequence.get(), expected: sequence }.into());
    }
    if header.credits.get() != 0 {
        return Err(FrameError::Credits { credits: header.credits.get() }.into());
    }
    if header.id.get() != key_id.0 {
        return Err(SetupError::UnexpectedHello { expected: "frame of this connection's key" });
    }
    Ok(())
}

/// All that is held of a peer that has not shown that it holds the key.
//= MKV-CONN-5
struct HelloBytes {
    /// Words, so that the control message behind the header at the front is aligned.
    words: Box<[u64; HELLO_SIZE_BYTES_MAX / 8]>,
    end: usize,
}

impl HelloBytes {
    fn new() -> HelloBytes {
        HelloBytes { words: Box::new([0; HELLO_SIZE_BYTES_MAX / 8]), end: 0 }
    }

    fn space(&mut self) -> &mut [u8] {
        &mut self.words.as_mut_bytes()[self.end..]
    }

    fn advance(&mut self, received_size_bytes: usize) {
        self.end += received_size_bytes;
        assert!(self.end <= HELLO_SIZE_BYTES_MAX);
    }

    fn bytes(&self) -> &[u8] {
        &self.words.as_bytes()[..self.end]
    }

    /// The header at the front. What cannot be a frame is refused before a whole header is there.
    //= MKV-FRAME-2
    fn header(&self) -> Result<Option<Header>, FrameError> {
        if let Some(magic) = self.bytes().first_chunk() {
            let found = u32::from_le_bytes(*magic);
            if found != memkv_wire::frame::MAGIC {
                return Err(FrameError::Magic { found });
            }
        }
        Ok(Header::read(self.bytes()))
    }

    /// The frame at the front, unverified, once it is whole.
    //= MKV-LIM-1
    fn frame(&self) -> Result<Option<(Header, &[u8])>, SetupError> {
        let Some(header) = self.header()? else { return Ok(None) };
        let extent = extent_of(&header)?;
        let size_bytes = size_of::<Header>() + extent.size_bytes();
        if size_bytes > HELLO_SIZE_BYTES_MAX || extent.payload_size_bytes != 0 {
            return Err(SetupError::HelloTooLong { size_bytes });
        }
        let control = self.bytes().get(size_of::<Header>()..size_bytes);
        Ok(control.map(|control| (header, control)))
    }

    /// Drops a frame at the front.
    fn consume(&mut self, size_bytes: usize) {
        let end = self.end;
        self.words.as_mut_bytes().copy_within(size_bytes..end, 0);
        self.end -= size_bytes;
    }
}

impl std::fmt::Debug for HelloBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HelloBytes({} bytes)", self.end)
    }
}
