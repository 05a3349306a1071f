//! The set-up of a connection: Connect, its reply, the confirmation.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use memkv_wire::control::{ControlBuf, Message};
use memkv_wire::frame::{HELLO_SIZE_BYTES_MAX, Kind, MAGIC, VERSION};
use memkv_wire::limits::{LEASE_MS_DEFAULT, REQUESTS_IN_FLIGHT_MAX, SETUP_TIMEOUT_MS};
use memkv_wire::mac::{BulkAlgorithm, Direction, Key, KeyId, Schedule};
use memkv_wire::*;

use super::Shared;
use super::connection::{Connection, Event, Hello, Over, Way};
use super::flaw::Flaw;
use super::quirk::Quirk;
use crate::peer::frame::{Frame, ReadError};
use crate::peer::rdma::Offered;

pub fn set_up(shared: &Shared, number: u64, mut stream: TcpStream) -> Result<Connection<'_>, Over> {
    let broke = |how| {
        shared.record(Event::Broke { connection: number, how });
        Over
    };
    if shared.flaw() != Some(Flaw::SetupForEver) {
        let timeout = Duration::from_millis(u64::from(SETUP_TIMEOUT_MS));
        stream.set_read_timeout(Some(timeout)).map_err(|_| Over)?;
    }
    let frame = match read_hello(&mut stream) {
        Ok(frame) => frame,
        Err(ReadError::Closed) => {
            shared.record(Event::Ended { connection: number });
            return Err(Over);
        }
        Err(ReadError::TimedOut) => return Err(broke("no Connect within the time for set-up")),
        Err(ReadError::TooLong) => return Err(broke("a Connect that is too long")),
    };
    let key = signer(shared, &frame).ok_or_else(|| broke("the MAC of Connect"))?;
    let header = &frame.header;
    let plain = header.kind() == Kind::Hello && header.sequence.get() == 0 && header.credits.get() == 0;
    if !plain || header.magic.get() != MAGIC || !frame.payload.is_empty() {
        return Err(broke("the header of Connect"));
    }
    let message = Message::new(&frame.control).map_err(|_| broke("the message of Connect"))?;
    let request = Request::decode(&message).map_err(|_| broke("the message of Connect"))?;
    let RequestWhich::Connect(connect) = request.which else { return Err(broke("the message of Connect")) };
    if shared.flaw() == Some(Flaw::ConnectIgnored) {
        std::thread::sleep(Duration::from_secs(600));
    }
    shared.record(Event::Connect { connection: number, hello: told(header.version, &connect) });
    let newer = is_newer(shared, header.version);
    if newer && shared.flaw() == Some(Flaw::NewerVersionClosed) {
        return Err(Over);
    }
    let status = if newer { Status::UnsupportedVersion } else { Status::Ok };
    let algorithm = choose(shared, &connect).ok_or_else(|| broke("no bulk MAC in common"))?;
    let offered = offer(shared, &connect).map_err(broke)?;
    let queue_pair = offered.as_ref().map(Offered::told);
    let (reply, schedule) = reply(shared, &key, (&frame.control, &connect), (status, algorithm), queue_pair);
    if shared.flaw().is_some_and(Flaw::spoils_set_up) {
        shared.record(Event::Misbehaved { connection: number });
    }
    stream.write_all(&reply).map_err(|_| Over)?;
    if newer {
        return Err(Over);
    }
    let way = |direction, sequence| Way {
        mac: schedule.control_mac(direction),
        bulk: schedule.bulk_key(direction, algorithm),
        sequence,
    };
    let mut connection = Connection {
        shared,
        number,
        stream,
        key_id: key.id().0,
        client: *connect.client_id,
        back: way(Direction::ClientToServer, 1),
        out: way(Direction::ServerToClient, 1),
        open: HashMap::new(),
        held: Vec::new(),
        first_namespace: None,
    };
    connection.read_confirmation()?;
    match offered {
        Some(offered) => connection.carried(offered),
        None => Ok(connection),
    }
}

/// The queue pair that the client asked for, if this server has any.
fn offer(shared: &Shared, connect: &Connect<'_>) -> Result<Option<Offered>, &'static str> {
    if !shared.queue_pairs.load(Ordering::Relaxed) {
        return Ok(None);
    }
    match connect.which {
        ConnectWhich::QueuePair(theirs) => {
            let offered = Offered::new(&theirs);
            offered.map(Some).map_err(|_| "no queue pair can be made here for one that was asked for")
        }
        ConnectWhich::Stream | ConnectWhich::Unknown(_) => Err("a Connect that asks for no queue pair"),
    }
}

/// Whether the client has to be told that its version is not spoken here.
fn is_newer(shared: &Shared, version: u8) -> bool {
    let older = shared.quirk() == Some(Quirk::OlderVersion);
    older || version != VERSION && shared.flaw() != Some(Flaw::NewerVersionServed)
}

fn told(version: u8, connect: &Connect<'_>) -> Hello {
    Hello {
        nonce: *connect.nonce,
        client_id: *connect.client_id,
        version,
        bulk_macs: connect.bulk_macs.iter().map(BulkMac::code).collect(),
    }
}

/// A hello frame, read only if it announces no more than one may have.
fn read_hello(stream: &mut TcpStream) -> Result<Frame, ReadError> {
    let mut head = [0; 64];
    let mut peeked = 0;
    while peeked < head.len() {
        match stream.peek(&mut head) {
            Ok(0) => return Err(ReadError::Closed),
            Err(error) => return Err(ReadError::from(error)),
            Ok(length) if length == peeked => std::thread::sleep(Duration::from_millis(1)),
            Ok(length) => peeked = length,
        }
    }
    let header = memkv_wire::frame::Header::read(&head).ok_or(ReadError::Closed)?;
    let extent = header.extent().map_err(|_| ReadError::TooLong)?;
    if head.len() + extent.size_bytes() > HELLO_SIZE_BYTES_MAX {
        return Err(ReadError::TooLong);
    }
    Frame::read(stream)
}

//= MKV-CONN-4
fn signer(shared: &Shared, frame: &Frame) -> Option<Key> {
    let mut named = shared.keys.with_id(KeyId(frame.header.id.get()));
    if shared.flaw() == Some(Flaw::ConnectMacNotChecked) {
        return named.next().cloned();
    }
    if shared.flaw() == Some(Flaw::UnknownKeyAnswered) {
        let own = shared.keys.ids().next()?;
        return shared.keys.with_id(own).next().cloned();
    }
    named.find(|key| frame.mac_holds(&key.connect_mac())).cloned()
}

//= MKV-CONN-7
fn choose(shared: &Shared, connect: &Connect<'_>) -> Option<BulkAlgorithm> {
    let first = connect.bulk_macs.iter().next().map(BulkMac::code);
    if shared.flaw() == Some(Flaw::UnknownBulkMacEnds) && first.and_then(BulkAlgorithm::from_code).is_none() {
        return None;
    }
    let mut offered = connect.bulk_macs.iter().filter_map(|mac| BulkAlgorithm::from_code(mac.code()));
    match shared.flaw() {
        Some(Flaw::BulkMacBestNotChosen) => offered.next_back(),
        Some(Flaw::BulkMacNotOffered) => {
            let other = if offered.any(|mac| mac == BulkAlgorithm::Aegis128X2) { 0 } else { 1 };
            BulkAlgorithm::from_code(other)
        }
        _ if shared.quirk() == Some(Quirk::HmacOnly) => offered.find(|mac| *mac == BulkAlgorithm::HmacSha256),
        _ => offered.next(),
    }
}

fn reply(
    shared: &Shared,
    key: &Key,
    (connect_bytes, connect): (&[u8], &Connect<'_>),
    (status, algorithm): (Status, BulkAlgorithm),
    queue_pair: Option<QueuePair<'_>>,
) -> (Vec<u8>, Schedule) {
    let (mut server_nonce, mut client_nonce) = ([0; 32], *connect.nonce);
    if shared.flaw() != Some(Flaw::NonceReused) && getrandom::fill(&mut server_nonce).is_err() {
        server_nonce = *connect.nonce;
    }
    if shared.flaw() == Some(Flaw::ClientNonceChanged) {
        client_nonce[0] ^= 1;
    }
    let code = if shared.flaw() == Some(Flaw::BulkMacNotOffered) { 77 } else { algorithm.code() };
    let response = Response {
        status,
        retry_after_ms: 0,
        detail: "",
        which: ResponseWhich::Connect(ConnectReply {
            client_nonce: &client_nonce,
            server_nonce: &server_nonce,
            server_id: &shared.server_id,
            bulk_mac: BulkMac::from_code(code),
            version_min: VERSION,
            version_max: VERSION,
            requests_in_flight_max: match shared.quirk() {
                Some(Quirk::OneRequest) => 1,
                _ => REQUESTS_IN_FLIGHT_MAX,
            },
            lease_ms: LEASE_MS_DEFAULT,
            server_name: "memkv-conformance",
            local_path: "",
            queue_pairs: shared.queue_pairs.load(Ordering::Relaxed),
            which: queue_pair.map_or(ConnectReplyWhich::Stream, ConnectReplyWhich::QueuePair),
        }),
    };
    let mut buffer = ControlBuf::new();
    // Everything in it is within its bounds.
    let control = response.encode(&mut buffer).map_or(&[][..], |()| buffer.control());
    let malformed = vec![0xff; control.len()];
    let control = if shared.flaw() == Some(Flaw::AnswerMalformed) { &malformed } else { control };
    let version = if shared.quirk() == Some(Quirk::OlderVersion) { VERSION - 1 } else { VERSION };
    let schedule = Schedule::new(key, connect_bytes, control, version);
    let mut frame = Frame::new(Kind::Hello, true, key.id().0, 0, control, &[]);
    frame.header.version = version;
    match shared.flaw() {
        Some(Flaw::AnswerKindWrong) => frame.header.kind = Kind::Response.code(),
        Some(Flaw::AnswerSequenceWrong) => frame.header.sequence = 1.into(),
        Some(Flaw::AnswerTooLong) => frame.header.control_words = (1 << 20).into(),
        Some(Flaw::AnswerIdWrong) => frame.header.id = (key.id().0 ^ 1).into(),
        _ => {}
    }
    match shared.flaw() {
        Some(Flaw::AnswerSignedWithSharedKey) => frame.sign_control(&key.connect_mac()),
        _ => frame.sign_control(&schedule.control_mac(Direction::ServerToClient)),
    }
    if shared.flaw() == Some(Flaw::AnswerMacWrong) {
        frame.header.mac[7] ^= 1;
    }
    (frame.bytes(), schedule)
}

impl Connection<'_> {
    /// Goes on over the queue pair.
    fn carried(self, offered: Offered) -> Result<Self, Over> {
        Ok(Connection { stream: offered.carry(self.stream).map_err(|_| Over)?, ..self })
    }

    //= MKV-CONN-10
    fn read_confirmation(&mut self) -> Result<(), Over> {
        if self.flaw() == Some(Flaw::NoConfirmationNeeded) {
            let mut kind = [0; 6];
            let peeked = self.stream.peek(&mut kind).map_err(|_| Over)?;
            if peeked == kind.len() && kind[5] != Kind::Hello.code() {
                return Ok(());
            }
        }
        let frame = match Frame::read(&mut self.stream) {
            Ok(frame) => frame,
            Err(ReadError::Closed) => {
                self.shared.record(Event::Ended { connection: self.number });
                return Err(Over);
            }
            Err(ReadError::TimedOut) => return Err(self.broke("no confirmation within the time for set-up")),
            Err(ReadError::TooLong) => return Err(self.broke("a confirmation that is too long")),
        };
        let header = &frame.header;
        let plain = header.magic.get() == MAGIC
            && header.kind() == Kind::Hello
            && header.version == VERSION
            && header.sequence.get() == 1
            && (header.id.get() == self.key_id || self.flaw() == Some(Flaw::ConfirmationIdIgnored))
            && header.credits.get() == 0
            && header.flags().0 & !1 == 0
            && frame.control.is_empty()
            && frame.payload.is_empty();
        let signed = frame.mac_holds(&self.back.mac);
        if !(plain && signed) && self.flaw() != Some(Flaw::ConfirmationNotChecked) {
            return Err(self.broke("the confirmation"));
        }
        self.back.sequence = 2;
        self.stream.set_read_timeout(None).map_err(|_| Over)
    }
}
