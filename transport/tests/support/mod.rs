//! A connection between two sans-io ends, with the keys an attacker never has.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::time::Duration;

use memkv_transport::buf::{BUDGET_SIZE_BYTES_MIN, BufPool};
use memkv_transport::error::{SetupError, TransportError};
use memkv_transport::receiver::{Next, Receiver};
use memkv_transport::sealer::Sealer;
use memkv_transport::session::{
    AwaitConfirmation, AwaitConnect, AwaitReply, ClientTerms, ConfirmationStep, ConnectStep, Established,
    ReplyStep, ServerTerms, SetupGate,
};
use memkv_wire::frame::Header;
use memkv_wire::mac::{BulkAlgorithm, Key, KeyRing, Schedule};
use memkv_wire::{ControlBuf, Ping, PingReply, Request, RequestWhich, Response, ResponseWhich, Status};

pub const NOW: Duration = Duration::from_secs(1);
pub const ALGORITHMS: [BulkAlgorithm; 3] =
    [BulkAlgorithm::HmacSha256, BulkAlgorithm::Aegis128X2, BulkAlgorithm::Aegis128X4];

pub fn key() -> Key {
    Key::from_bytes([0x5a; 32])
}

pub fn ring() -> KeyRing {
    KeyRing::from(key())
}

pub fn pool() -> BufPool {
    BufPool::new(BUDGET_SIZE_BYTES_MIN)
}

pub fn client_terms(algorithm: BulkAlgorithm) -> ClientTerms {
    ClientTerms { client_id: [1; 16], client_name: "client".to_owned(), bulk_macs: vec![algorithm] }
}

pub fn server_terms() -> ServerTerms {
    ServerTerms {
        server_id: [2; 16],
        server_name: "server".to_owned(),
        local_path: String::new(),
        queue_pairs: false,
        requests_in_flight_max: 256,
        lease_ms: 10_000,
        bulk_macs: ALGORITHMS.to_vec(),
    }
}

/// Puts bytes where they belong; panics if they do not fit.
pub fn put(space: &mut [u8], bytes: &[u8]) -> usize {
    space[..bytes.len()].copy_from_slice(bytes);
    bytes.len()
}

pub fn begin_client(algorithm: BulkAlgorithm, nonce: u8) -> AwaitReply {
    AwaitReply::begin(&key(), &client_terms(algorithm), [nonce; 32], NOW).unwrap()
}

pub fn begin_server() -> AwaitConnect {
    AwaitConnect::begin(SetupGate::default().enter().unwrap(), NOW)
}

/// What a server makes of these first bytes.
pub fn offer(connect: &[u8], nonce: u8) -> Result<ConnectStep, SetupError> {
    let mut server = begin_server();
    let size = put(server.space(), connect);
    server.advance(size, NOW, &ring(), &server_terms(), &[nonce; 32])
}

pub fn answer(connect: &[u8], nonce: u8) -> Box<AwaitConfirmation> {
    match offer(connect, nonce).unwrap() {
        ConnectStep::Answered(answered) => answered,
        other => panic!("{other:?}"),
    }
}

pub fn establish(mut client: AwaitReply, reply: &[u8]) -> Result<Box<Established>, SetupError> {
    let size = put(client.space(), reply);
    match client.advance(size, NOW)? {
        ReplyStep::Established(established) => Ok(established),
        ReplyStep::NeedBytes(client) => Err(client.close()),
    }
}

/// Both ends of a connection, what was exchanged to set it up, and its keys.
pub struct Pair {
    pub client: (Sealer, Receiver),
    pub server: (Sealer, Receiver),
    pub connect: Vec<u8>,
    pub reply: Vec<u8>,
    pub confirmation: Vec<u8>,
    pub schedule: Schedule,
}

pub fn pair(algorithm: BulkAlgorithm, client_nonce: u8, server_nonce: u8) -> Pair {
    let client = begin_client(algorithm, client_nonce);
    let connect = client.connect().to_vec();
    let mut server = answer(&connect, server_nonce);
    let reply = server.reply().to_vec();
    let client = establish(client, &reply).unwrap();
    let confirmation = client.confirmation.to_vec();
    let size = put(server.space(), &confirmation);
    let ConfirmationStep::Accepted(server) = server.advance(size, NOW).unwrap() else {
        panic!("not accepted")
    };
    assert_eq!(client.server.bulk_mac, algorithm);
    assert_eq!(server.client.bulk_mac, algorithm);
    let schedule = Schedule::new(&key(), &connect[64..], &reply[64..], 1);
    Pair {
        client: client.channel.split(pool()),
        server: server.channel.split(pool()),
        connect,
        reply,
        confirmation,
        schedule,
    }
}

pub fn request(echo: u64) -> ControlBuf {
    let mut control = ControlBuf::new();
    let ping = Ping { echo, ..Ping::default() };
    Request { namespace: b"tests", which: RequestWhich::Ping(ping) }.encode(&mut control).unwrap();
    control
}

pub fn response(echo: u64) -> ControlBuf {
    let mut control = ControlBuf::new();
    let which = ResponseWhich::Ping(PingReply { echo, uptime_ms: 5 });
    Response { status: Status::Ok, retry_after_ms: 0, detail: "", which }.encode(&mut control).unwrap();
    control
}

/// One sealed frame, as bytes.
pub fn seal(sealer: &mut Sealer, request_id: u32, mut control: ControlBuf, payload: &[u8]) -> Vec<u8> {
    let parts = [payload];
    let frame = sealer.seal(request_id, true, &mut control, &parts).unwrap();
    let bytes = frame.slices().collect::<Vec<_>>().concat();
    assert_eq!(bytes.len(), frame.size_bytes());
    bytes
}

/// A received frame, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub request_id: u32,
    pub last: bool,
    pub control: Vec<u8>,
    pub payload: Vec<u8>,
}

/// Feeds a stream in pieces of at most so many bytes; returns what came out, and how it ended.
pub fn receive(
    receiver: &mut Receiver,
    mut stream: &[u8],
    mut piece: impl FnMut() -> usize,
) -> (Vec<Received>, Result<(), TransportError>) {
    let mut frames = Vec::new();
    loop {
        match receiver.next_frame() {
            Ok(Next::Frame(frame)) => frames.push(Received {
                request_id: frame.request_id,
                last: frame.last,
                control: frame.control.to_vec(),
                payload: frame.payload.map(|payload| payload.to_vec()).unwrap_or_default(),
            }),
            Ok(Next::NeedBytes) if stream.is_empty() => {
                return (frames, receiver.close().map_err(TransportError::from));
            }
            Ok(Next::NeedBytes) => {
                let space = receiver.space();
                assert!(!space.is_empty());
                let count = space.len().min(stream.len()).min(piece().max(1));
                space[..count].copy_from_slice(&stream[..count]);
                receiver.advance(count);
                stream = &stream[count..];
            }
            Ok(Next::Blocked { .. }) => panic!("the pool is large enough"),
            Err(error) => {
                let again = receiver.next_frame().map(|_| ()).unwrap_err();
                assert_eq!(error.to_string(), again.to_string(), "an error stays");
                return (frames, Err(error));
            }
        }
    }
}

pub fn receive_at_once(
    receiver: &mut Receiver,
    stream: &[u8],
) -> (Vec<Received>, Result<(), TransportError>) {
    receive(receiver, stream, || usize::MAX)
}

pub fn header_of(frame: &[u8]) -> Header {
    Header::read(frame).unwrap()
}
