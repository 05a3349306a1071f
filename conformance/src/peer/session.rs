//! A client's end of one connection, that checks everything and can be made to send anything.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::time::Duration;

use memkv_wire::control::{ControlBuf, Message};
use memkv_wire::frame::{Kind, MAGIC, VERSION};
use memkv_wire::mac::{BulkAlgorithm, BulkKey, ControlMac, Direction, Key, Schedule};
use memkv_wire::{
    BulkMac, Connect, ConnectReplyWhich, ConnectWhich, List, Operation, QueuePair, Request, RequestWhich,
    Response, ResponseWhich, Status,
};

use super::frame::{Frame, ReadError};
use super::rdma::Asked;
use crate::case::{Outcome, Stop};
use crate::{ensure, fail};

/// How long a peer may take for anything it owes at once.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a client puts into its Connect.
#[derive(Clone, Debug)]
pub struct Terms {
    pub nonce: [u8; 32],
    pub client_id: [u8; 16],
    /// Numbers of bulk MACs, known or not.
    pub bulk_macs: Vec<u16>,
    /// Whether to ask for a queue pair.
    pub rdma: bool,
}

impl Terms {
    pub fn new(nonce: [u8; 32]) -> Terms {
        Terms { nonce, client_id: [7; 16], bulk_macs: vec![1, 0], rdma: false }
    }
}

/// A connection whose client has said nothing yet.
pub fn dial(address: &str) -> Outcome<TcpStream> {
    let cannot = |error: std::io::Error| Stop::Failed(format!("cannot connect to {address}: {error}"));
    let resolved = address.to_socket_addrs().map_err(cannot)?.next();
    let Some(resolved) = resolved else { fail!("{address} has no address") };
    let stream = TcpStream::connect_timeout(&resolved, PATIENCE).map_err(cannot)?;
    stream.set_nodelay(true).map_err(cannot)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(cannot)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(cannot)?;
    Ok(stream)
}

/// The Connect frame of these terms, on a stream.
pub fn connect_frame(key: &Key, terms: &Terms) -> Frame {
    connect_frame_asking(key, terms, None)
}

fn connect_frame_asking(key: &Key, terms: &Terms, queue_pair: Option<QueuePair<'_>>) -> Frame {
    let bulk_macs: Vec<BulkMac> = terms.bulk_macs.iter().map(|code| BulkMac::from_code(*code)).collect();
    let request = Request {
        namespace: &[],
        which: RequestWhich::Connect(Connect {
            nonce: &terms.nonce,
            client_id: &terms.client_id,
            bulk_macs: List::from(&bulk_macs),
            client_name: "memkv-conformance",
            which: queue_pair.map_or(ConnectWhich::Stream, ConnectWhich::QueuePair),
        }),
    };
    let mut frame = Frame::new(Kind::Hello, true, key.id().0, 0, &encode(&request), &[]);
    frame.sign_control(&key.connect_mac());
    frame
}

/// A request's control message; empty when it breaks a bound, which no caller here does.
pub fn encode(request: &Request<'_>) -> Vec<u8> {
    let mut buffer = ControlBuf::new();
    match request.encode(&mut buffer) {
        Ok(()) => buffer.control().to_vec(),
        Err(_) => Vec::new(),
    }
}

// ---------------------------------------------------------------- set-up

/// A connection whose Connect was sent.
pub struct Dialled {
    pub stream: TcpStream,
    key: Key,
    terms: Terms,
    connect: Vec<u8>,
    asked: Option<Asked>,
    /// The reply gave a queue pair, and the one that asked is connected to it.
    given: bool,
}

/// What the reply to Connect said.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: Status,
    pub version: u8,
    pub client_nonce: [u8; 32],
    pub server_nonce: [u8; 32],
    pub server_id: [u8; 16],
    pub bulk_mac: u16,
    pub requests_in_flight_max: u32,
    pub lease_ms: u32,
    pub version_min: u8,
    pub version_max: u8,
}

impl Dialled {
    /// Sends a Connect, the right one unless `change` changes it.
    pub fn send(address: &str, key: &Key, terms: Terms, change: impl FnOnce(&mut Frame)) -> Outcome<Dialled> {
        let mut stream = dial(address)?;
        let asked = terms.rdma.then(Asked::new).transpose().map_err(no_queue_pair)?;
        let mut frame = connect_frame_asking(key, &terms, asked.as_ref().map(Asked::told));
        change(&mut frame);
        write(&mut stream, &frame.bytes())?;
        Ok(Dialled { stream, key: key.clone(), terms, connect: frame.control, asked, given: false })
    }

    /// Reads the reply and checks it as a client must.
    pub fn answer(&mut self) -> Outcome<(Answer, Schedule)> {
        let frame = match Frame::read(&mut self.stream) {
            Ok(frame) => frame,
            Err(error) => fail!("no reply to Connect: {error}"),
        };
        let header = &frame.header;
        ensure!(header.magic.get() == MAGIC, "the reply to Connect begins with {:08x}", header.magic.get());
        let schedule = Schedule::new(&self.key, &self.connect, &frame.control, header.version);
        let mac = schedule.control_mac(Direction::ServerToClient);
        ensure!(frame.mac_holds(&mac), "the MAC of the reply to Connect does not hold");
        ensure!(header.kind() == Kind::Hello, "the reply to Connect is of kind {:?}", header.kind());
        ensure!(header.sequence.get() == 0, "the reply to Connect has sequence {}", header.sequence.get());
        ensure!(header.id.get() == self.key.id().0, "the reply to Connect is not under the key it names");
        ensure!(header.credits.get() == 0, "the reply to Connect grants credits on a stream");
        ensure!(frame.payload.is_empty(), "the reply to Connect has a payload");
        let message = Message::new(&frame.control).map_err(undecodable)?;
        let response = Response::decode(&message).map_err(undecodable)?;
        let ResponseWhich::Connect(reply) = response.which else {
            fail!("the reply to Connect is no such reply")
        };
        let answer = Answer {
            status: response.status,
            version: header.version,
            client_nonce: *reply.client_nonce,
            server_nonce: *reply.server_nonce,
            server_id: *reply.server_id,
            bulk_mac: reply.bulk_mac.code(),
            requests_in_flight_max: reply.requests_in_flight_max,
            lease_ms: reply.lease_ms,
            version_min: reply.version_min,
            version_max: reply.version_max,
        };
        ensure!(answer.client_nonce == self.terms.nonce, "the reply to Connect returns another nonce");
        self.given = self.take_queue_pair(&reply.which)?;
        Ok((answer, schedule))
    }

    /// Connects to the server's queue pair. False: it gives none.
    fn take_queue_pair(&self, which: &ConnectReplyWhich<'_>) -> Outcome<bool> {
        let (theirs, own) = match (which, &self.asked) {
            (ConnectReplyWhich::Stream, _) => return Ok(false),
            (ConnectReplyWhich::QueuePair(theirs), Some(own)) => (theirs, own),
            (ConnectReplyWhich::QueuePair(_) | ConnectReplyWhich::Unknown(_), _) => {
                fail!("the server gives what it was not asked for in place of a stream")
            }
        };
        //= MKV-RDMA-4 test
        ensure!(theirs.receive_credits == 0, "the server grants credits before it has a confirmation");
        //= MKV-REG-8 test
        ensure!(theirs.reads_max == 0, "the server lets its own memory be reached");
        own.connect(theirs).map_err(no_queue_pair)?;
        Ok(true)
    }

    /// Reads the reply, and confirms it. `change` may spoil the confirmation.
    pub fn confirm(mut self, change: impl FnOnce(&mut Frame, &ControlMac)) -> Outcome<Session> {
        let (answer, schedule) = self.answer()?;
        ensure!(answer.status == Status::Ok, "Connect was answered with {}", answer.status.name());
        let offered = self.terms.bulk_macs.contains(&answer.bulk_mac);
        let algorithm = BulkAlgorithm::from_code(answer.bulk_mac).filter(|_| offered);
        let Some(algorithm) = algorithm else {
            fail!("the server chose bulk MAC {}, not offered", answer.bulk_mac)
        };
        let direction = |direction| Way {
            mac: schedule.control_mac(direction),
            bulk: schedule.bulk_key(direction, algorithm),
            sequence: 0,
        };
        let mut session = Session {
            stream: self.stream,
            out: direction(Direction::ClientToServer),
            back: direction(Direction::ServerToClient),
            key: self.key,
            answer,
            next_id: 1,
        };
        session.out.sequence = 1;
        session.back.sequence = 1;
        let mut confirmation = session.confirmation();
        change(&mut confirmation, &session.out.mac);
        session.send(&confirmation)?;
        session.out.sequence = 2;
        match self.asked {
            Some(asked) if self.given => {
                session.stream = asked.carry(session.stream).map_err(no_queue_pair)?
            }
            Some(asked) => asked.refused(),
            None => {}
        }
        Ok(session)
    }
}

fn no_queue_pair(error: std::io::Error) -> Stop {
    Stop::Failed(format!("no queue pair can be had on this host: {error}"))
}

fn undecodable(error: memkv_wire::DecodeError) -> Stop {
    Stop::Failed(format!("a control message of the peer cannot be read: {error}"))
}

fn write(stream: &mut TcpStream, bytes: &[u8]) -> Outcome {
    match stream.write_all(bytes) {
        Ok(()) => Ok(()),
        Err(error) => fail!("the peer does not take what is sent: {error}"),
    }
}

// ---------------------------------------------------------------- established

/// One direction's keys and its next sequence number.
pub struct Way {
    pub mac: ControlMac,
    pub bulk: BulkKey,
    pub sequence: u64,
}

/// An established connection.
pub struct Session {
    pub stream: TcpStream,
    pub out: Way,
    pub back: Way,
    pub key: Key,
    pub answer: Answer,
    next_id: u32,
}

/// One frame of a reply, checked.
#[derive(Clone, Debug)]
pub struct Reply {
    pub id: u32,
    pub last: bool,
    control: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Reply {
    /// What it says. Was decoded once, when it arrived.
    pub fn response(&self) -> Outcome<Response<'_>> {
        let message = Message::new(&self.control).map_err(undecodable)?;
        Response::decode(&message).map_err(undecodable)
    }

    pub fn status(&self) -> Outcome<Status> {
        Ok(self.response()?.status)
    }
}

impl Session {
    /// Connects as a client does that makes no mistakes.
    pub fn open(address: &str, key: &Key, terms: Terms) -> Outcome<Session> {
        Dialled::send(address, key, terms, |_| {})?.confirm(|_, _| {})
    }

    /// The confirmation, signed.
    pub fn confirmation(&self) -> Frame {
        let mut frame = Frame::new(Kind::Hello, true, self.key.id().0, 1, &[], &[]);
        frame.sign_control(&self.out.mac);
        frame
    }

    /// A request id that was not used before.
    pub fn new_id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }

    /// The next frame of a request, signed, not sent; its sequence number counts as used.
    pub fn frame(&mut self, id: u32, last: bool, request: &Request<'_>, payload: &[u8]) -> Frame {
        self.frame_of(id, last, &encode(request), payload)
    }

    pub fn frame_of(&mut self, id: u32, last: bool, control: &[u8], payload: &[u8]) -> Frame {
        let mut frame = Frame::new(Kind::Request, last, id, self.out.sequence, control, payload);
        frame.header.version = VERSION;
        self.out.sequence += 1;
        self.sign(&mut frame);
        frame
    }

    pub fn sign(&self, frame: &mut Frame) {
        frame.sign(&self.out.mac, &self.out.bulk);
    }

    pub fn send(&mut self, frame: &Frame) -> Outcome {
        write(&mut self.stream, &frame.bytes())
    }

    /// Sends bytes that the peer may refuse by closing: it is no failure when it does so before it took all.
    pub fn send_hostile(&mut self, bytes: &[u8]) {
        // Whether it was refused is seen when the connection is read.
        let _ = self.stream.write_all(bytes);
    }

    /// The next frame of any reply, checked as a client must; `None` when the server closed the connection.
    pub fn next_reply(&mut self) -> Outcome<Option<Reply>> {
        let frame = match Frame::read(&mut self.stream) {
            Ok(frame) => frame,
            Err(ReadError::Closed) => return Ok(None),
            Err(error) => fail!("waiting for a reply: {error}"),
        };
        let header = &frame.header;
        ensure!(header.magic.get() == MAGIC, "a frame begins with {:08x}", header.magic.get());
        ensure!(frame.mac_holds(&self.back.mac), "a frame's MAC does not hold");
        ensure!(header.version == VERSION, "a frame is of version {}", header.version);
        ensure!(header.kind() == Kind::Response, "a frame of the server is of kind {:?}", header.kind());
        let (found, expected) = (header.sequence.get(), self.back.sequence);
        ensure!(found == expected, "a frame has sequence {found} instead of {expected}");
        ensure!(header.credits.get() == 0, "a frame grants credits on a stream");
        ensure!(header.flags().0 & !1 == 0, "a frame has unknown flags {:04x}", header.flags().0);
        ensure!(frame.tag_holds(&self.back.bulk), "a payload's tag does not hold");
        self.back.sequence += 1;
        let reply =
            Reply { id: header.id.get(), last: frame.last(), control: frame.control, payload: frame.payload };
        reply.response()?;
        Ok(Some(reply))
    }

    /// All frames of the reply to this request; other replies in between are a failure.
    pub fn replies(&mut self, id: u32, operation: Option<Operation>) -> Outcome<Vec<Reply>> {
        let mut replies = Vec::new();
        loop {
            let Some(reply) = self.next_reply()? else {
                fail!("the server closed the connection instead of answering")
            };
            ensure!(reply.id == id, "a reply has request id {} instead of {id}", reply.id);
            check_reply(&reply, operation)?;
            let last = reply.last;
            replies.push(reply);
            if last {
                return Ok(replies);
            }
        }
    }

    /// Sends a request of one frame and reads its reply.
    pub fn call(&mut self, namespace: &[u8], which: RequestWhich<'_>, payload: &[u8]) -> Outcome<Vec<Reply>> {
        let id = self.new_id();
        let operation = which.operation();
        let frame = self.frame(id, true, &Request { namespace, which }, payload);
        self.send(&frame)?;
        self.replies(id, operation)
    }

    /// The status of a request of one frame: that of its reply's last frame.
    pub fn status(&mut self, namespace: &[u8], which: RequestWhich<'_>, payload: &[u8]) -> Outcome<Status> {
        last_status(&self.call(namespace, which, payload)?)
    }

    /// Expects that the server closes the connection and answers nothing before.
    pub fn expect_closed(mut self, why: &str) -> Outcome {
        match Frame::read(&mut self.stream) {
            Err(ReadError::Closed) => Ok(()),
            Err(error) => fail!("the server did not close the connection after {why}: {error}"),
            Ok(_) => fail!("the server answered after {why}"),
        }
    }

    /// Ends the connection in whatever is going on.
    pub fn cut(self) {
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Whether a frame may be an answer to this operation.
fn check_reply(reply: &Reply, operation: Option<Operation>) -> Outcome {
    let response = reply.response()?;
    let Some(operation) = operation else { return Ok(()) };
    let (name, status) = (operation.name(), response.status);
    ensure!(
        response.which.operation() == Some(operation),
        "the reply to {name} has the arm of opcode {}",
        response.which.opcode()
    );
    ensure!(operation.may_answer(status), "{name} was answered with {}, which it may not be", status.name());
    Ok(())
}

/// The status of the last frame.
pub fn last_status(replies: &[Reply]) -> Outcome<Status> {
    match replies.last() {
        Some(reply) => reply.status(),
        None => fail!("there is no reply"),
    }
}

/// Expects that a stream on which set-up went wrong is closed without an answer.
pub fn expect_closed_in_silence(mut stream: TcpStream, why: &str) -> Outcome {
    match Frame::read(&mut stream) {
        Err(ReadError::Closed) => Ok(()),
        Err(error) => fail!("the server did not close the connection after {why}: {error}"),
        Ok(_) => fail!("the server answered after {why}"),
    }
}
