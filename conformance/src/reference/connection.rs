//! One connection of the reference server: set-up, frames in, frames out.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::sync::PoisonError;
use std::time::Duration;

use memkv_wire::control::{ControlBuf, Message};
use memkv_wire::frame::{HELLO_SIZE_BYTES_MAX, Kind, MAGIC, VERSION};
use memkv_wire::limits::{LEASE_MS_DEFAULT, REQUESTS_IN_FLIGHT_MAX, SETUP_TIMEOUT_MS};
use memkv_wire::mac::{BulkAlgorithm, BulkKey, ControlMac, Direction, Key, KeyId, Schedule};
use memkv_wire::*;

use super::Shared;
use super::flaw::Flaw;
use super::operations::{self, Out, Part};
use crate::peer::frame::Frame;

/// What a client did, for whoever judges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection came.
    Came { connection: u64 },
    /// It was confirmed: the client took the reply to Connect.
    Confirmed { connection: u64 },
    /// A request came, whole.
    Request { connection: u64, operation: Option<Operation> },
    /// The client broke the protocol.
    Broke { connection: u64, how: &'static str },
    /// The client ended the connection.
    Ended { connection: u64 },
}

/// The connection is over; the reason was recorded.
struct Over;

/// One direction's keys and its next sequence number.
struct Way {
    mac: ControlMac,
    bulk: BulkKey,
    sequence: u64,
}

/// A frame of a message that has not ended: its control message and its payload.
type Received = (Vec<u8>, Vec<u8>);

struct Connection<'s> {
    shared: &'s Shared,
    number: u64,
    stream: TcpStream,
    key_id: u32,
    client: [u8; 16],
    back: Way,
    out: Way,
    open: HashMap<u32, Vec<Received>>,
}

/// The whole life of a connection.
pub fn run(shared: &Shared, number: u64, stream: TcpStream) {
    shared.record(Event::Came { connection: number });
    // Without these a peer only waits longer.
    let _ = stream.set_nodelay(true);
    let closing = stream.try_clone();
    if let Ok(mut connection) = set_up(shared, number, stream) {
        shared.record(Event::Confirmed { connection: number });
        while connection.frame().is_ok() {}
    }
    // The peer may have closed it before.
    let _ = closing.map(|stream| stream.shutdown(Shutdown::Both));
}

// ---------------------------------------------------------------- set-up

fn set_up(shared: &Shared, number: u64, mut stream: TcpStream) -> Result<Connection<'_>, Over> {
    let broke = |how| {
        shared.record(Event::Broke { connection: number, how });
        Over
    };
    if shared.flaw != Some(Flaw::SetupForEver) {
        let timeout = Duration::from_millis(u64::from(SETUP_TIMEOUT_MS));
        stream.set_read_timeout(Some(timeout)).map_err(|_| Over)?;
    }
    let frame = read_hello(&mut stream).map_err(|_| broke("no Connect"))?;
    let key = signer(shared, &frame).ok_or_else(|| broke("the MAC of Connect"))?;
    let header = &frame.header;
    let plain = header.kind() == Kind::Hello && header.sequence.get() == 0 && header.credits.get() == 0;
    if !plain || header.magic.get() != MAGIC || !frame.payload.is_empty() {
        return Err(broke("the header of Connect"));
    }
    let message = Message::new(&frame.control).map_err(|_| broke("the message of Connect"))?;
    let request = Request::decode(&message).map_err(|_| broke("the message of Connect"))?;
    let RequestWhich::Connect(connect) = request.which else { return Err(broke("the message of Connect")) };
    if shared.flaw == Some(Flaw::ConnectIgnored) {
        std::thread::sleep(Duration::from_secs(600));
    }
    let newer = header.version != VERSION && shared.flaw != Some(Flaw::NewerVersionServed);
    if newer && shared.flaw == Some(Flaw::NewerVersionClosed) {
        return Err(Over);
    }
    let status = if newer { Status::UnsupportedVersion } else { Status::Ok };
    let algorithm = choose(shared, &connect).ok_or_else(|| broke("no bulk MAC in common"))?;
    let (reply, schedule) = reply(shared, &key, &frame.control, &connect, status, algorithm);
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
    };
    connection.read_confirmation()?;
    Ok(connection)
}

/// A hello frame, read only if it announces no more than one may have.
fn read_hello(stream: &mut TcpStream) -> Result<Frame, Over> {
    let mut head = [0; 64];
    let mut peeked = 0;
    while peeked < head.len() {
        match stream.peek(&mut head) {
            Ok(0) | Err(_) => return Err(Over),
            Ok(length) if length == peeked => std::thread::sleep(Duration::from_millis(1)),
            Ok(length) => peeked = length,
        }
    }
    let header = memkv_wire::frame::Header::read(&head).ok_or(Over)?;
    let extent = header.extent().map_err(|_| Over)?;
    if head.len() + extent.size_bytes() > HELLO_SIZE_BYTES_MAX {
        return Err(Over);
    }
    Frame::read(stream).map_err(|_| Over)
}

//= MKV-CONN-4
fn signer(shared: &Shared, frame: &Frame) -> Option<Key> {
    let mut named = shared.keys.with_id(KeyId(frame.header.id.get()));
    if shared.flaw == Some(Flaw::ConnectMacNotChecked) {
        return named.next().cloned();
    }
    if shared.flaw == Some(Flaw::UnknownKeyAnswered) {
        let own = shared.keys.ids().next()?;
        return shared.keys.with_id(own).next().cloned();
    }
    named.find(|key| frame.mac_holds(&key.connect_mac())).cloned()
}

//= MKV-CONN-7
fn choose(shared: &Shared, connect: &Connect<'_>) -> Option<BulkAlgorithm> {
    let mut offered = connect.bulk_macs.iter().filter_map(|mac| BulkAlgorithm::from_code(mac.code()));
    match shared.flaw {
        Some(Flaw::BulkMacBestNotChosen) => offered.next_back(),
        Some(Flaw::BulkMacNotOffered) => {
            let other = if offered.any(|mac| mac == BulkAlgorithm::Aegis128X2) { 0 } else { 1 };
            BulkAlgorithm::from_code(other)
        }
        _ => offered.next(),
    }
}

fn reply(
    shared: &Shared,
    key: &Key,
    connect_bytes: &[u8],
    connect: &Connect<'_>,
    status: Status,
    algorithm: BulkAlgorithm,
) -> (Vec<u8>, Schedule) {
    let (mut server_nonce, mut client_nonce) = ([0; 32], *connect.nonce);
    if shared.flaw != Some(Flaw::NonceReused) && getrandom::fill(&mut server_nonce).is_err() {
        server_nonce = *connect.nonce;
    }
    if shared.flaw == Some(Flaw::ClientNonceChanged) {
        client_nonce[0] ^= 1;
    }
    let code = if shared.flaw == Some(Flaw::BulkMacNotOffered) { 77 } else { algorithm.code() };
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
            requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX,
            lease_ms: LEASE_MS_DEFAULT,
            server_name: "memkv-conformance",
            local_path: "",
            which: ConnectReplyWhich::Stream,
        }),
    };
    let mut buffer = ControlBuf::new();
    // Everything in it is within its bounds.
    let control = response.encode(&mut buffer).map_or(&[][..], |()| buffer.control());
    let schedule = Schedule::new(key, connect_bytes, control, VERSION);
    let mut frame = Frame::new(Kind::Hello, true, key.id().0, 0, control, &[]);
    match shared.flaw {
        Some(Flaw::AnswerSignedWithSharedKey) => frame.sign_control(&key.connect_mac()),
        _ => frame.sign_control(&schedule.control_mac(Direction::ServerToClient)),
    }
    (frame.bytes(), schedule)
}

impl Connection<'_> {
    //= MKV-CONN-10
    fn read_confirmation(&mut self) -> Result<(), Over> {
        if self.flaw() == Some(Flaw::NoConfirmationNeeded) {
            let mut kind = [0; 6];
            let peeked = self.stream.peek(&mut kind).map_err(|_| Over)?;
            if peeked == kind.len() && kind[5] != Kind::Hello.code() {
                return Ok(());
            }
        }
        let frame = Frame::read(&mut self.stream).map_err(|_| self.broke("no confirmation"))?;
        let header = &frame.header;
        let plain = header.magic.get() == MAGIC
            && header.kind() == Kind::Hello
            && header.version == VERSION
            && header.sequence.get() == 1
            && header.id.get() == self.key_id
            && frame.control.is_empty()
            && frame.payload.is_empty();
        let signed = frame.mac_holds(&self.back.mac);
        if !(plain && signed) && self.flaw() != Some(Flaw::ConfirmationNotChecked) {
            return Err(self.broke("the confirmation"));
        }
        self.back.sequence = 2;
        self.stream.set_read_timeout(None).map_err(|_| Over)
    }

    fn flaw(&self) -> Option<Flaw> {
        self.shared.flaw
    }

    fn broke(&self, how: &'static str) -> Over {
        self.shared.record(Event::Broke { connection: self.number, how });
        Over
    }

    // ---------------------------------------------------------------- frames

    /// Reads one frame and does what it asks for.
    fn frame(&mut self) -> Result<(), Over> {
        if self.flaw() == Some(Flaw::ClosesAtOnce) {
            return Err(Over);
        }
        let frame = match Frame::read(&mut self.stream) {
            Ok(frame) => frame,
            Err(crate::peer::frame::ReadError::TooLong) if self.flaw() == Some(Flaw::LengthNotChecked) => {
                std::thread::sleep(Duration::from_secs(600));
                return Err(Over);
            }
            Err(crate::peer::frame::ReadError::TooLong) => {
                return Err(self.broke("a length beyond its limit"));
            }
            Err(_) => {
                self.shared.record(Event::Ended { connection: self.number });
                return Err(Over);
            }
        };
        if self.check(&frame)? {
            self.take(frame)?;
        }
        Ok(())
    }

    /// False: the frame is to be ignored.
    fn check(&mut self, frame: &Frame) -> Result<bool, Over> {
        let (header, flaw) = (&frame.header, self.flaw());
        let must = |holds: bool, unless: Flaw, how| {
            if holds || flaw == Some(unless) { Ok(()) } else { Err(self.broke(how)) }
        };
        //= MKV-FRAME-2
        must(header.magic.get() == MAGIC, Flaw::MagicNotChecked, "a frame's magic")?;
        //= MKV-FRAME-5
        must(frame.mac_holds(&self.back.mac), Flaw::MacNotChecked, "a frame's MAC")?;
        if header.kind() == Kind::Hello && flaw == Some(Flaw::LaterHelloIgnored) {
            self.back.sequence += 1;
            return Ok(false);
        }
        //= MKV-FRAME-8
        must(header.kind() == Kind::Request, Flaw::KindNotChecked, "a frame's kind")?;
        //= MKV-CONN-3
        must(header.sequence.get() == self.back.sequence, Flaw::SequenceNotChecked, "a frame's sequence")?;
        //= MKV-FRAME-4
        must(header.credits.get() == 0, Flaw::CreditsNotChecked, "credits on a stream")?;
        //= MKV-FRAME-6
        must(frame.tag_holds(&self.back.bulk), Flaw::TagNotChecked, "a payload's tag")?;
        must(header.version == VERSION, Flaw::MagicNotChecked, "a frame's version")?;
        if flaw == Some(Flaw::FlagsRefused) && header.flags().0 & !1 != 0 {
            return Err(self.broke("a frame's flags"));
        }
        self.back.sequence = header.sequence.get() + 1;
        Ok(true)
    }

    fn take(&mut self, frame: Frame) -> Result<(), Over> {
        let id = frame.header.id.get();
        //= MKV-MSG-6
        let readable = Message::new(&frame.control).and_then(|message| Request::decode(&message).map(|_| ()));
        if readable.is_err() {
            if self.flaw() == Some(Flaw::MalformedAnswered) {
                return self.send(id, Out::failed(None, Status::Invalid));
            }
            return Err(self.broke("a message that cannot be read"));
        }
        //= MKV-LIM-2
        let full = self.open.len() >= REQUESTS_IN_FLIGHT_MAX as usize && !self.open.contains_key(&id);
        if full && self.flaw() != Some(Flaw::RequestsUnbounded) {
            return Err(self.broke("too many requests"));
        }
        let (last, early) = (frame.last(), self.flaw() == Some(Flaw::VisibleEarly));
        let frames = self.open.entry(id).or_default();
        frames.push((frame.control, frame.payload));
        if early && !last {
            let frames = frames.clone();
            self.show_early(&frames);
        }
        if !last && self.flaw() == Some(Flaw::AnswersEarly) {
            return self.send(id, Out::failed(Some(Operation::Write), Status::Invalid));
        }
        if !last {
            return Ok(());
        }
        let frames = self.open.remove(&id).unwrap_or_default();
        self.reply(id, &frames)
    }

    fn reply(&mut self, id: u32, frames: &[Received]) -> Result<(), Over> {
        let messages: Vec<Message<'_>> =
            frames.iter().filter_map(|(control, _)| Message::new(control).ok()).collect();
        let decoded = messages.iter().zip(frames).filter_map(|(message, (_, payload))| {
            Request::decode(message).ok().map(|request| Part { request, payload })
        });
        let parts: Vec<Part<'_>> = decoded.collect();
        let operation = parts.first().and_then(|part| part.request.which.operation());
        self.shared.record(Event::Request { connection: self.number, operation });
        match self.flaw() {
            Some(Flaw::UnknownOperationCloses) if operation.is_none() => return Err(Over),
            Some(Flaw::NeverReplies) => return Ok(()),
            Some(Flaw::StatusOfLaterVersion) => {
                return self.send(id, Out::failed(operation, Status::Unknown(999)));
            }
            _ => {}
        }
        let out = {
            let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            operations::answer(&mut state, &parts, self.client, self.flaw())
        };
        self.send(id, out)
    }

    /// Stores what a write has so far, padded with zeros: the mistake of [`Flaw::VisibleEarly`].
    fn show_early(&mut self, frames: &[Received]) {
        let Some((control, payload)) = frames.first() else { return };
        let Ok(message) = Message::new(control) else { return };
        let Ok(request) = Request::decode(&message) else { return };
        let RequestWhich::Write(write) = request.which else { return };
        let mut data = payload.clone();
        data.resize(write.length as usize, 0);
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .namespace(request.namespace, None)
            .values
            .insert(write.key.to_vec(), super::state::Value::new(data));
    }

    // ---------------------------------------------------------------- replies

    fn send(&mut self, id: u32, out: Out) -> Result<(), Over> {
        let count = out.frames.len();
        for (number, (control, payload)) in (1..).zip(out.frames) {
            let last = number == count && self.flaw() != Some(Flaw::ReplyNeverEnds);
            let bytes = self.seal(id, last, control, payload);
            let cut = self.flaw() == Some(Flaw::ReplyCut);
            let sent = if cut { &bytes[..bytes.len() - 5] } else { &bytes[..] };
            self.stream.write_all(sent).map_err(|_| Over)?;
            if cut {
                return Err(Over);
            }
        }
        Ok(())
    }

    fn seal(&mut self, id: u32, last: bool, mut control: Vec<u8>, payload: Vec<u8>) -> Vec<u8> {
        match self.flaw() {
            Some(Flaw::ReplyMalformed) => control.fill(0xff),
            Some(Flaw::ReplyArmWrong) => {
                let out = Out::failed(Some(Operation::ListManifests), Status::Ok);
                control = out.frames.into_iter().next().map(|(control, _)| control).unwrap_or_default();
            }
            _ => {}
        }
        let mut frame = Frame::new(Kind::Response, last, id, self.out.sequence, &control, &payload);
        match self.flaw() {
            Some(Flaw::ReplyIdWrong) => frame.header.id = (id ^ 0x4000).into(),
            Some(Flaw::ReplyKindWrong) => frame.header.kind = Kind::Request.code(),
            Some(Flaw::ReplyVersionWrong) => frame.header.version = VERSION + 1,
            Some(Flaw::ReplyGrantsCredits) => frame.header.credits = 1.into(),
            Some(Flaw::ReplyTooLong) => frame.header.payload_length = (64 << 20).into(),
            Some(Flaw::ReplySequenceSkips) => frame.header.sequence = (self.out.sequence + 1).into(),
            Some(Flaw::ReplySequenceRepeats) => frame.header.sequence = 1.into(),
            _ => {}
        }
        self.out.sequence += 1;
        frame.sign(&self.out.mac, &self.out.bulk);
        match self.flaw() {
            Some(Flaw::ReplyMacWrong) => frame.header.mac[7] ^= 1,
            Some(Flaw::ReplyTagWrong) => frame.tag[7] ^= 1,
            Some(Flaw::ReplyPayloadChanged) => {
                frame.payload.first_mut().into_iter().for_each(|byte| *byte ^= 1)
            }
            _ => {}
        }
        frame.bytes()
    }
}
