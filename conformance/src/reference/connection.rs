//! One connection of the reference server: the frames that come in, and what is done about them.
//!
//! Set-up is in [`super::setup`], what goes out in [`super::replies`].

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use memkv_wire::control::Message;
use memkv_wire::frame::{Kind, MAGIC, VERSION};
use memkv_wire::limits::{CONTROL_SIZE_BYTES_MAX, REQUESTS_IN_FLIGHT_MAX};
use memkv_wire::mac::{BulkKey, ControlMac};
use memkv_wire::*;
use zerocopy::IntoBytes as _;

use super::flaw::Flaw;
use super::manifests::put_reply;
use super::operations::{self, Out, Part};
use super::quirk::Quirk;
use super::state::ClientId;
use super::{Shared, lock, setup};
use crate::peer::frame::{Frame, ReadError};

/// How long the last of several requests may follow the one before, for [`Quirk::LastFirst`].
const MORE_REQUESTS: Duration = Duration::from_millis(100);

/// What happened on a connection, for whoever judges a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A Connect came whose MAC held.
    Connect { connection: u64, hello: Hello },
    /// It was confirmed: the client took the reply to Connect.
    Confirmed { connection: u64 },
    /// A request came, whole.
    Request { connection: u64, operation: Option<Operation> },
    /// The client broke the protocol.
    Broke { connection: u64, how: &'static str },
    /// This server broke the protocol, as it was told to.
    Misbehaved { connection: u64 },
    /// The client ended the connection.
    Ended { connection: u64 },
}

/// What a Connect said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub nonce: [u8; 32],
    pub client_id: [u8; 16],
    pub version: u8,
    pub bulk_macs: Vec<u16>,
}

/// The connection is over; the reason was recorded.
pub struct Over;

/// One direction's keys and its next sequence number.
pub struct Way {
    pub mac: ControlMac,
    pub bulk: BulkKey,
    pub sequence: u64,
}

/// A frame of a message that has not ended: its control message and its payload.
pub type Received = (Vec<u8>, Vec<u8>);

pub struct Connection<'s> {
    pub shared: &'s Shared,
    pub number: u64,
    pub stream: TcpStream,
    pub key_id: u32,
    pub client: [u8; 16],
    pub back: Way,
    pub out: Way,
    pub open: HashMap<u32, Vec<Received>>,
    /// Answers that wait for more requests to come.
    pub held: Vec<(u32, Out)>,
    /// That of the first request, for [`Flaw::NamespaceOfConnection`].
    pub first_namespace: Option<Vec<u8>>,
}

/// The whole life of a connection.
pub fn run(shared: &Shared, number: u64, stream: TcpStream) {
    // Without these a peer only waits longer.
    let _ = stream.set_nodelay(true);
    let closing = stream.try_clone();
    // The peer may have closed it before.
    let _ = match setup::set_up(shared, number, stream) {
        Ok(mut connection) => {
            shared.record(Event::Confirmed { connection: number });
            while connection.frame().is_ok() {}
            connection.end();
            // The stream, or what stands for a queue pair, which still sends what was written.
            connection.stream.shutdown(Shutdown::Both)
        }
        Err(Over) => closing.and_then(|stream| stream.shutdown(Shutdown::Both)),
    };
}

impl Connection<'_> {
    pub fn flaw(&self) -> Option<Flaw> {
        self.shared.flaw()
    }

    pub fn quirk(&self) -> Option<Quirk> {
        self.shared.quirk()
    }

    pub fn broke(&self, how: &'static str) -> Over {
        self.shared.record(Event::Broke { connection: self.number, how });
        Over
    }

    // ---------------------------------------------------------------- frames

    /// Reads one frame and does what it asks for.
    fn frame(&mut self) -> Result<(), Over> {
        if self.flaw() == Some(Flaw::ClosesAtOnce) {
            return Err(Over);
        }
        while !self.held.is_empty() && !self.more_comes(MORE_REQUESTS)? {
            self.send_held()?;
        }
        let frame = match Frame::read(&mut self.stream) {
            Ok(frame) => frame,
            Err(ReadError::TooLong) if self.flaw() == Some(Flaw::LengthNotChecked) => {
                std::thread::sleep(Duration::from_secs(600));
                return Err(Over);
            }
            Err(ReadError::TooLong) => {
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
        must(self.mac_holds(frame), Flaw::MacNotChecked, "a frame's MAC")?;
        if header.kind() == Kind::Hello && flaw == Some(Flaw::LaterHelloIgnored) {
            self.back.sequence += 1;
            return Ok(false);
        }
        //= MKV-FRAME-8
        let reserved = flaw == Some(Flaw::ReservedKindTaken) && header.kind == 0;
        must(header.kind() == Kind::Request || reserved, Flaw::KindNotChecked, "a frame's kind")?;
        //= MKV-CONN-3
        must(self.follows(header.sequence.get()), Flaw::SequenceNotChecked, "a frame's sequence")?;
        //= MKV-FRAME-4
        must(header.credits.get() == 0, Flaw::CreditsNotChecked, "credits on a stream")?;
        //= MKV-FRAME-6
        must(self.tag_holds(frame), Flaw::TagNotChecked, "a payload's tag")?;
        must(header.version == VERSION, Flaw::MagicNotChecked, "a frame's version")?;
        //= MKV-FRAME-7
        if header.flags().0 & !1 != 0 {
            // To be ignored, but nobody may send them.
            let broke = self.broke("a frame's flags");
            if flaw == Some(Flaw::FlagsRefused) {
                return Err(broke);
            }
        }
        self.back.sequence = header.sequence.get() + 1;
        Ok(true)
    }

    fn mac_holds(&self, frame: &Frame) -> bool {
        if self.flaw() == Some(Flaw::MacLastByteIgnored) {
            let mac = self.back.mac.tag(&[frame.header.signed_bytes(), &frame.control]);
            return mac[..31] == frame.header.mac[..31];
        }
        frame.mac_holds(&self.back.mac)
    }

    fn tag_holds(&self, frame: &Frame) -> bool {
        match self.flaw() {
            Some(Flaw::TagLastByteIgnored) if !frame.payload.is_empty() => {
                let tag = self.back.bulk.tag(&[frame.header.as_bytes(), &frame.payload]);
                tag[..31] == frame.tag[..31]
            }
            Some(Flaw::TagOfLastFrameOnly) if !frame.last() => true,
            _ => frame.tag_holds(&self.back.bulk),
        }
    }

    fn follows(&self, sequence: u64) -> bool {
        match self.flaw() {
            Some(Flaw::SequenceOf32Bits) => sequence as u32 == self.back.sequence as u32,
            Some(Flaw::SequenceMaySkip) => sequence >= self.back.sequence,
            _ => sequence == self.back.sequence,
        }
    }

    /// Mistakes about messages as a whole, before they are looked at.
    fn is_refused_by_mistake(&self, frame: &Frame) -> bool {
        let id = frame.header.id.get();
        match self.flaw() {
            Some(Flaw::ControlOfMaxRefused) => frame.control.len() >= CONTROL_SIZE_BYTES_MAX as usize,
            Some(Flaw::IdZeroRefused) => id == 0,
            Some(Flaw::OneMessageAtATime) => !self.open.is_empty() && !self.open.contains_key(&id),
            Some(Flaw::RequestsOneTooFew) => self.open.len() + 1 >= REQUESTS_IN_FLIGHT_MAX as usize,
            _ => false,
        }
    }

    /// What becomes of messages and leases when the connection is over.
    fn end(&mut self) {
        match self.flaw() {
            Some(Flaw::CutWriteKept) => {
                let open = std::mem::take(&mut self.open);
                open.values().for_each(|frames| self.show_early(frames));
            }
            Some(Flaw::LeaseEndsWithConnection) => lock(&self.shared.state).forget_leases(self.client),
            _ => {}
        }
    }

    /// The client, for what is kept by client.
    fn client(&self) -> ClientId {
        let mut client = self.client;
        if self.flaw() == Some(Flaw::ClientByConnection) {
            client[..8].copy_from_slice(&self.number.to_le_bytes());
        }
        client
    }

    fn take(&mut self, frame: Frame) -> Result<(), Over> {
        let id = frame.header.id.get();
        if self.is_refused_by_mistake(&frame) {
            return Err(Over);
        }
        //= MKV-MSG-6
        let readable = Message::new(&frame.control).and_then(|message| Request::decode(&message).map(|_| ()));
        if readable.is_err() {
            if matches!(self.flaw(), Some(Flaw::MalformedAnswered | Flaw::BoundsNotChecked)) {
                return self.send(id, Out::failed(None, Status::Invalid));
            }
            return Err(self.broke("a message that cannot be read"));
        }
        //= MKV-MSG-1
        if self.held.iter().any(|(held, _)| *held == id) {
            return Err(self.broke("a request id that is in use"));
        }
        //= MKV-LIM-2
        let full = self.open.len() >= REQUESTS_IN_FLIGHT_MAX as usize && !self.open.contains_key(&id);
        if full && self.flaw() != Some(Flaw::RequestsUnbounded) {
            return Err(self.broke("too many requests"));
        }
        if self.quirk() == Some(Quirk::OneRequest) && self.open.keys().any(|open| *open != id) {
            return Err(self.broke("more requests than it was told"));
        }
        if self.flaw() == Some(Flaw::UnknownAnsweredEarly) && !frame.last() && is_unknown(&frame.control) {
            return self.send(id, Out::failed(None, Status::UnknownOperation));
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
        let mut parts: Vec<Part<'_>> = decoded.collect();
        let first = parts.first().map(|part| part.request.namespace.to_vec()).unwrap_or_default();
        let kept = self.first_namespace.get_or_insert(first).clone();
        if self.flaw() == Some(Flaw::NamespaceOfConnection) {
            parts.iter_mut().for_each(|part| part.request.namespace = &kept);
        }
        let operation = parts.first().and_then(|part| part.request.which.operation());
        self.shared.record(Event::Request { connection: self.number, operation });
        if self.quirk() == Some(Quirk::OneRequest) && self.more_comes(MORE_REQUESTS / 10)? {
            return Err(self.broke("more requests than it was told"));
        }
        match self.flaw() {
            Some(Flaw::UnknownOperationCloses) if operation.is_none() => return Err(Over),
            Some(Flaw::NeverReplies) => return Ok(()),
            Some(Flaw::StatusOfLaterVersion) => {
                return self.send(id, Out::failed(operation, Status::Unknown(999)));
            }
            _ => {}
        }
        let out = self.refuse(&parts, operation).unwrap_or_else(|| {
            operations::answer(&mut lock(&self.shared.state), &parts, self.client(), self.flaw())
        });
        let out = self.bend(operation, out);
        match self.quirk() {
            Some(Quirk::ClosesOnceUnanswered) if self.shared.is_first(0) => Err(Over),
            Some(Quirk::LastFirst) => {
                self.held.push((id, out));
                Ok(())
            }
            Some(Quirk::ClosesAfterAnswer) if !parts.iter().any(registers) => {
                self.send(id, out)?;
                Err(Over)
            }
            _ => self.send(id, out),
        }
    }

    /// The answer that a quirk gives whatever the request says.
    fn refuse(&self, parts: &[Part<'_>], operation: Option<Operation>) -> Option<Out> {
        let opcode = u32::from(operation?.opcode());
        let put = parts.iter().find_map(|part| match part.request.which {
            RequestWhich::PutManifest(put) => Some(put),
            _ => None,
        });
        match (self.quirk()?, put) {
            (Quirk::BusyOnce, _) if self.shared.is_first(opcode) => {
                Some(Out::failed(operation, Status::Busy))
            }
            (Quirk::AlwaysInvalid, _) => Some(Out::failed(operation, Status::Invalid)),
            (Quirk::AlwaysMissing, Some(put)) if !put.chunks.is_empty() => {
                let places: Vec<u32> = (0..put.chunks.len() as u32).collect();
                Some(put_reply(Status::MissingChunks, 0, &places))
            }
            (Quirk::AlwaysStale, Some(put)) => {
                Some(put_reply(Status::StaleGeneration, put.generation.saturating_add(1), &[]))
            }
            _ => None,
        }
    }

    /// Changes a right answer as the quirk has it.
    fn bend(&self, operation: Option<Operation>, mut out: Out) -> Out {
        let reads = matches!(operation, Some(Operation::Read | Operation::BatchRead));
        match self.quirk() {
            Some(Quirk::PiecesReversed) if reads => out.frames.reverse(),
            Some(Quirk::PiecesTogether) if operation == Some(Operation::Read) => out = out.together(),
            //= MKV-MSG-4
            Some(Quirk::ReadFailsLate) if operation == Some(Operation::Read) && out.frames.len() > 1 => {
                out.frames.truncate(1);
                out.frames.append(&mut Out::failed(operation, Status::ChecksumMismatch).frames);
            }
            _ => {}
        }
        out
    }

    /// Whether anything more comes within this time; the end of the connection does not.
    fn more_comes(&self, time: Duration) -> Result<bool, Over> {
        self.stream.set_read_timeout(Some(time)).map_err(|_| Over)?;
        let more = self.stream.peek(&mut [0; 1]).is_ok_and(|length| length > 0);
        self.stream.set_read_timeout(None).map_err(|_| Over)?;
        Ok(more)
    }

    /// Stores what a write has so far, padded with zeros: the mistake of [`Flaw::VisibleEarly`].
    fn show_early(&mut self, frames: &[Received]) {
        let Some((control, payload)) = frames.first() else { return };
        let Ok(message) = Message::new(control) else { return };
        let Ok(request) = Request::decode(&message) else { return };
        let RequestWhich::Write(write) = request.which else { return };
        let mut data = payload.clone();
        data.resize(write.length as usize, 0);
        let mut state = lock(&self.shared.state);
        state
            .namespace(request.namespace, None)
            .values
            .insert(write.key.to_vec(), super::state::Value::new(data));
    }
}

/// Whether a request tells of a client's memory, which it does before anything that its user asks for.
fn registers(part: &Part<'_>) -> bool {
    matches!(part.request.which, RequestWhich::Ping(ping) if !ping.regions.is_empty())
}

fn is_unknown(control: &[u8]) -> bool {
    let Ok(message) = Message::new(control) else { return false };
    Request::decode(&message).is_ok_and(|request| request.which.operation().is_none())
}
