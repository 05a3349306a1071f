//! One connection of the reference client: set-up, frames out, frames in.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use memkv_wire::control::Message;
use memkv_wire::frame::{HEADER_SIZE_BYTES, Header, Kind, MAGIC, VERSION};
use memkv_wire::mac::{BulkAlgorithm, BulkKey, ControlMac, Direction, Key, Schedule};
use memkv_wire::{
    BulkMac, Connect, ConnectWhich, List, Request, RequestWhich, Response, ResponseWhich, Status,
};

use zerocopy::IntoBytes as _;

use super::flaw::Flaw;
use crate::peer::frame::{Frame, ReadError};
use crate::peer::session::encode;

/// Why a request has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error("the connection was lost")]
    Lost,
    #[error("the time is up")]
    Late,
    #[error("the server broke the protocol: {0}")]
    Broke(&'static str),
    #[error("the server said {}", .0.name())]
    Refused(Status),
    #[error("the request is not within the protocol's bounds")]
    Misuse,
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::from(ReadError::from(error))
    }
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Trouble {
        match error {
            ReadError::Closed => Trouble::Lost,
            ReadError::TimedOut => Trouble::Late,
            ReadError::TooLong => Trouble::Broke("a length beyond its limit"),
        }
    }
}

/// What every connection of a client has in common.
#[derive(Clone)]
pub struct Terms {
    pub address: String,
    pub key: Key,
    pub client_id: [u8; 16],
    pub flaw: Option<Flaw>,
}

/// A frame of a reply.
pub struct Reply {
    pub id: u32,
    pub last: bool,
    pub control: Vec<u8>,
    pub payload: Vec<u8>,
}

struct Way {
    mac: ControlMac,
    bulk: BulkKey,
    sequence: u64,
}

/// An established connection.
pub struct Link {
    stream: TcpStream,
    out: Way,
    back: Way,
    flaw: Option<Flaw>,
    next_id: u32,
    /// How many requests may be open.
    pub requests_max: usize,
    /// Replies to other requests than the one that was waited for.
    waiting: VecDeque<Reply>,
}

impl Link {
    pub fn open(terms: &Terms, deadline: Instant) -> Result<Link, Trouble> {
        let flaw = terms.flaw;
        let link = connect(terms, VERSION, deadline);
        match link {
            //= MKV-CONN-9
            Err(Trouble::Refused(Status::UnsupportedVersion)) if flaw == Some(Flaw::Downgrades) => {
                connect(terms, VERSION - 1, deadline)
            }
            link => link,
        }
    }

    /// A request id that is not in use.
    pub fn new_id(&mut self) -> u32 {
        if self.flaw != Some(Flaw::RequestIdReused) {
            self.next_id += 1;
        }
        match self.flaw {
            Some(Flaw::IdsOfThreeBits) => self.next_id % 8,
            _ => self.next_id,
        }
    }

    /// Sends one frame.
    pub fn send(&mut self, id: u32, last: bool, control: &[u8], payload: &[u8]) -> Result<(), Trouble> {
        let mut frame = Frame::new(Kind::Request, last, id, self.out.sequence, control, payload);
        match self.flaw {
            Some(Flaw::CreditsGranted) => frame.header.credits = 1.into(),
            Some(Flaw::FlagsSet) => frame.header.flags = (frame.header.flags().0 | 2).into(),
            _ => {}
        }
        if self.flaw != Some(Flaw::SequenceStays) {
            self.out.sequence += 1;
        }
        frame.sign(&self.out.mac, &self.out.bulk);
        if self.flaw == Some(Flaw::TagWithoutHeader) {
            frame.tag = self.out.bulk.tag(&[payload]);
        }
        Ok(self.stream.write_all(&frame.bytes())?)
    }

    /// The next frame of the reply to this request. Frames of others are kept for later.
    pub fn receive(&mut self, id: u32, deadline: Instant) -> Result<Reply, Trouble> {
        let any = matches!(self.flaw, Some(Flaw::AnyReplyTaken | Flaw::RepliesInOrder));
        if let Some(at) = self.waiting.iter().position(|reply| reply.id == id || any) {
            return self.waiting.remove(at).ok_or(Trouble::Lost);
        }
        loop {
            let reply = self.next(deadline)?;
            if reply.id == id || any {
                return Ok(reply);
            }
            if reply.id > self.next_id {
                return Err(Trouble::Broke("a reply to no request"));
            }
            self.waiting.push_back(reply);
        }
    }

    fn next(&mut self, deadline: Instant) -> Result<Reply, Trouble> {
        loop {
            wait_until(&self.stream, deadline, self.flaw)?;
            let frame = read(&mut self.stream, self.flaw)?;
            if let Some(reply) = self.check(frame)? {
                return Ok(reply);
            }
        }
    }

    /// `None`: the frame is to be ignored.
    fn check(&mut self, frame: Frame) -> Result<Option<Reply>, Trouble> {
        let (header, flaw) = (&frame.header, self.flaw);
        let must = |holds: bool, unless: Flaw, what| {
            if holds || flaw == Some(unless) { Ok(()) } else { Err(Trouble::Broke(what)) }
        };
        must(header.magic.get() == MAGIC, Flaw::MagicNotChecked, "a frame's magic")?;
        must(self.mac_holds(&frame), Flaw::MacNotChecked, "a frame's MAC")?;
        if header.kind() == Kind::Hello && flaw == Some(Flaw::LaterHelloIgnored) {
            self.back.sequence += 1;
            return Ok(None);
        }
        if header.sequence.get() < self.back.sequence && flaw == Some(Flaw::ReplayIgnored) {
            return Ok(None);
        }
        must(header.version == VERSION, Flaw::VersionNotChecked, "a frame's version")?;
        must(header.kind() == Kind::Response, Flaw::KindNotChecked, "a frame's kind")?;
        must(self.follows(header.sequence.get()), Flaw::SequenceNotChecked, "a frame's sequence")?;
        must(header.credits.get() == 0, Flaw::CreditsNotChecked, "credits on a stream")?;
        let tag_holds = self.tag_holds(&frame) || flaw == Some(Flaw::CutFrameFilled);
        must(tag_holds, Flaw::TagNotChecked, "a payload's tag")?;
        if flaw == Some(Flaw::FlagsRefused) && header.flags().0 & !1 != 0 {
            return Err(Trouble::Broke("a frame's flags"));
        }
        self.back.sequence = header.sequence.get() + 1;
        let readable =
            Message::new(&frame.control).and_then(|message| Response::decode(&message).map(|_| ()));
        if readable.is_err() && flaw == Some(Flaw::DiesOfMalformed) {
            std::process::abort();
        }
        readable.map_err(|_| Trouble::Broke("a message that cannot be read"))?;
        Ok(Some(Reply {
            id: header.id.get(),
            last: match flaw {
                Some(Flaw::AnyFlagIsLast) => frame.header.flags().0 != 0,
                _ => frame.last(),
            },
            control: frame.control,
            payload: frame.payload,
        }))
    }

    fn mac_holds(&self, frame: &Frame) -> bool {
        if self.flaw == Some(Flaw::MacLastByteIgnored) {
            let mac = self.back.mac.tag(&[frame.header.signed_bytes(), &frame.control]);
            return mac[..31] == frame.header.mac[..31];
        }
        frame.mac_holds(&self.back.mac)
    }

    fn tag_holds(&self, frame: &Frame) -> bool {
        if self.flaw == Some(Flaw::TagLastByteIgnored) && !frame.payload.is_empty() {
            let tag = self.back.bulk.tag(&[frame.header.as_bytes(), &frame.payload]);
            return tag[..31] == frame.tag[..31];
        }
        frame.tag_holds(&self.back.bulk)
    }

    fn follows(&self, sequence: u64) -> bool {
        match self.flaw {
            Some(Flaw::SequenceOf32Bits) => sequence as u32 == self.back.sequence as u32,
            Some(Flaw::SequenceMaySkip) => sequence >= self.back.sequence,
            _ => sequence == self.back.sequence,
        }
    }

    /// Whether the server closed the connection since the last reply.
    pub fn is_closed(&self) -> bool {
        let peeked = self.stream.set_nonblocking(true).and_then(|()| self.stream.peek(&mut [0; 1]));
        let open = match peeked {
            Ok(length) => length > 0,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        !(open && self.stream.set_nonblocking(false).is_ok())
    }
}

fn wait_until(stream: &TcpStream, deadline: Instant, flaw: Option<Flaw>) -> Result<(), Trouble> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let time = if flaw == Some(Flaw::WaitsForEver) { None } else { Some(left) };
    stream.set_read_timeout(time).and_then(|()| stream.set_write_timeout(time)).map_err(|_| Trouble::Lost)
}

/// The next frame, its lengths within their limits.
fn read(stream: &mut TcpStream, flaw: Option<Flaw>) -> Result<Frame, Trouble> {
    if !matches!(flaw, Some(Flaw::CutFrameFilled | Flaw::OneReadIsAFrame)) {
        return Ok(Frame::read(stream)?);
    }
    let mut head = [0; HEADER_SIZE_BYTES];
    stream.read_exact(&mut head)?;
    let header = Header::read(&head).ok_or(Trouble::Lost)?;
    let extent = header.extent().map_err(|_| Trouble::Broke("a length beyond its limit"))?;
    let mut rest = vec![0; extent.size_bytes()];
    let mut filled = 0;
    while filled < rest.len() {
        match stream.read(&mut rest[filled..])? {
            0 if flaw == Some(Flaw::CutFrameFilled) => break,
            0 => return Err(Trouble::Lost),
            length => filled += length,
        }
        if flaw == Some(Flaw::OneReadIsAFrame) {
            break;
        }
    }
    let tag_at = extent.control_size_bytes + extent.payload_size_bytes;
    let mut tag = [0; 32];
    tag[..extent.tag_size_bytes()].copy_from_slice(&rest[tag_at..]);
    let frame = Frame {
        header,
        control: rest[..extent.control_size_bytes].to_vec(),
        payload: rest[extent.control_size_bytes..tag_at].to_vec(),
        tag,
    };
    Ok(frame)
}

// ---------------------------------------------------------------- set-up

fn connect(terms: &Terms, version: u8, deadline: Instant) -> Result<Link, Trouble> {
    let mut stream = TcpStream::connect(&terms.address)?;
    stream.set_nodelay(true)?;
    wait_until(&stream, deadline, terms.flaw)?;
    let mut nonce = [5; 32];
    if terms.flaw == Some(Flaw::NonceOfClient) {
        nonce[..16].copy_from_slice(&terms.client_id);
    } else if terms.flaw != Some(Flaw::NonceReused) {
        getrandom::fill(&mut nonce).map_err(|_| Trouble::Misuse)?;
    }
    let offered: &[BulkMac] = match terms.flaw {
        Some(Flaw::HmacNotOffered) => &[BulkMac::Aegis128x2],
        _ => &[BulkMac::Aegis128x2, BulkMac::Aegis128x4, BulkMac::HmacSha256],
    };
    let hello = connect_frame(terms, version, &nonce, offered);
    stream.write_all(&hello.bytes())?;
    let frame = Frame::read(&mut stream)?;
    let schedule = Schedule::new(&terms.key, &hello.control, &frame.control, frame.header.version);
    check_answer(terms, &frame, &schedule)?;
    let message = Message::new(&frame.control).map_err(|_| Trouble::Broke("the reply to Connect"))?;
    let response = Response::decode(&message).map_err(|_| Trouble::Broke("the reply to Connect"))?;
    let ResponseWhich::Connect(reply) = response.which else {
        return Err(Trouble::Broke("the reply to Connect"));
    };
    if response.status != Status::Ok {
        return Err(Trouble::Refused(response.status));
    }
    //= MKV-CONN-8
    if *reply.client_nonce != nonce && terms.flaw != Some(Flaw::NonceNotCompared) {
        return Err(Trouble::Broke("the nonce in the reply to Connect"));
    }
    let chosen =
        BulkAlgorithm::from_code(reply.bulk_mac.code()).filter(|_| offered.contains(&reply.bulk_mac));
    let algorithm = match chosen {
        None if terms.flaw == Some(Flaw::BulkMacNotCompared) => BulkAlgorithm::Aegis128X2,
        chosen => chosen.ok_or(Trouble::Broke("a bulk MAC that was not offered"))?,
    };
    let way = |direction, sequence| Way {
        mac: schedule.control_mac(direction),
        bulk: schedule.bulk_key(direction, algorithm),
        sequence,
    };
    let requests_max = match terms.flaw {
        Some(Flaw::RequestsUnbounded) => 64,
        Some(Flaw::RequestsOneTooMany) => (reply.requests_in_flight_max as usize + 1).min(64),
        _ => (reply.requests_in_flight_max as usize).min(64),
    };
    let mut link = Link {
        stream,
        out: way(Direction::ClientToServer, 2),
        back: way(Direction::ServerToClient, 1),
        flaw: terms.flaw,
        next_id: 1,
        requests_max,
        waiting: VecDeque::new(),
    };
    link.confirm(terms)?;
    Ok(link)
}

impl Link {
    //= MKV-CONN-10
    fn confirm(&mut self, terms: &Terms) -> Result<(), Trouble> {
        if self.flaw == Some(Flaw::NoConfirmation) {
            self.out.sequence = 1;
            return Ok(());
        }
        let mut confirmation = Frame::new(Kind::Hello, true, terms.key.id().0, 1, &[], &[]);
        confirmation.sign_control(&self.out.mac);
        Ok(self.stream.write_all(&confirmation.bytes())?)
    }
}

fn connect_frame(terms: &Terms, version: u8, nonce: &[u8; 32], offered: &[BulkMac]) -> Frame {
    let mut client_id = terms.client_id;
    if terms.flaw == Some(Flaw::ClientIdByConnection) {
        client_id.copy_from_slice(&nonce[..16]);
    }
    let request = Request {
        namespace: &[],
        which: RequestWhich::Connect(Connect {
            nonce,
            client_id: &client_id,
            bulk_macs: List::from(offered),
            client_name: "memkv-conformance reference client",
            which: ConnectWhich::Stream,
        }),
    };
    let mut frame = Frame::new(Kind::Hello, true, terms.key.id().0, 0, &encode(&request), &[]);
    frame.header.version = version;
    frame.sign_control(&terms.key.connect_mac());
    frame
}

//= MKV-CONN-8
fn check_answer(terms: &Terms, frame: &Frame, schedule: &Schedule) -> Result<(), Trouble> {
    let (header, flaw) = (&frame.header, terms.flaw);
    let derived = frame.mac_holds(&schedule.control_mac(Direction::ServerToClient));
    let signed = match flaw {
        Some(Flaw::AnswerMacNotChecked) => true,
        Some(Flaw::AnswerUnderSharedKeyTaken) => derived || frame.mac_holds(&terms.key.connect_mac()),
        _ => derived,
    };
    let plain =
        header.kind() == Kind::Hello && header.sequence.get() == 0 && header.id.get() == terms.key.id().0;
    if !signed || header.magic.get() != MAGIC {
        return Err(Trouble::Broke("the MAC of the reply to Connect"));
    }
    if !plain && flaw != Some(Flaw::AnswerHeaderNotChecked) {
        return Err(Trouble::Broke("the header of the reply to Connect"));
    }
    Ok(())
}
