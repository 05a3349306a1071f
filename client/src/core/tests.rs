//! The core under a driver of a few lines: virtual time, connections that come and go at a seed's will, and a server
//! in memory.

use std::collections::{HashMap, VecDeque};

use memkv_transport::receiver::Frame;
use memkv_wire::frame::Kind;
use memkv_wire::{
    Caller, Commit, ControlBuf, List, Lookup, Operation, Piece, PieceWhich, Ping, ReadReply, Request,
    RequestWhich, ResponseWhich, Status, checksum,
};
use proptest::prelude::*;

use super::*;
use crate::error::PeerMisbehaved;
use crate::operation::read::{ReadRange, read};
use crate::operation::write::{BatchWriteReplies, PutItem, batch_write};
use crate::testing::{FakeServer, TestFrame, buf, response};

const OPTIONS: CallOptions = CallOptions { timeout_ms: 1_000, fail_fast: false };

/// Everything around a core.
struct World {
    core: Core,
    server: FakeServer,
    now_ms: u64,
    /// Connections that are asked for, or up; with what came on them.
    up: HashMap<ConnectionId, HashMap<u32, Vec<TestFrame>>>,
    asked: Vec<ConnectionId>,
    closed: Vec<ConnectionId>,
    replies: VecDeque<(ConnectionId, u32, TestFrame)>,
    /// The order in which messages were begun, frame by frame.
    sent: Vec<(u16, u32, Operation)>,
    woken: Vec<CallId>,
}

impl World {
    fn new(settings: Settings) -> Self {
        Self {
            core: Core::new(settings, 7),
            server: FakeServer::new(),
            now_ms: 0,
            up: HashMap::new(),
            asked: Vec::new(),
            closed: Vec::new(),
            replies: VecDeque::new(),
            sent: Vec::new(),
            woken: Vec::new(),
        }
    }

    fn ping(&mut self, options: CallOptions) -> CallId {
        self.submit(RequestWhich::Ping(Ping { echo: 5, ..Ping::default() }), options)
    }

    fn submit(&mut self, which: RequestWhich<'_>, options: CallOptions) -> CallId {
        let mut message = self.core.message();
        message.push(&Request { namespace: b"ns", which }).expect("within bounds");
        let id = self.core.submit(self.now_ms, message, options);
        self.commands();
        id
    }

    fn write(&mut self, key: &[u8], size_bytes: usize) -> CallId {
        let parts = [buf(&vec![7; size_bytes])];
        let mut message = self.core.message();
        batch_write(&mut message, b"ns", &[PutItem::new(key, &parts)]).expect("a batch");
        let id = self.core.submit(self.now_ms, message, OPTIONS);
        self.commands();
        id
    }

    fn commands(&mut self) {
        while let Some(command) = self.core.command() {
            match command {
                Command::Connect(id) => self.asked.push(id),
                Command::Close(id) => {
                    self.asked.retain(|asked| *asked != id);
                    self.up.remove(&id);
                    self.closed.push(id);
                }
                Command::Send(_) => {}
                Command::Wake(id) => self.woken.push(id),
            }
        }
    }

    /// Sets up the connections that are asked for.
    fn connect(&mut self) {
        for id in std::mem::take(&mut self.asked) {
            self.core.connected(self.now_ms, id, 256);
            self.up.insert(id, HashMap::new());
        }
        self.commands();
    }

    fn refuse(&mut self) {
        for id in std::mem::take(&mut self.asked) {
            self.core.closed(self.now_ms, id, ConnectionError::Closed);
        }
        self.commands();
    }

    /// Cuts every connection.
    fn cut(&mut self) {
        for (id, _) in std::mem::take(&mut self.up) {
            self.core.closed(self.now_ms, id, ConnectionError::Closed);
        }
        self.replies.clear();
        self.commands();
    }

    /// Sends one frame of a connection; whether there was one.
    fn send(&mut self, id: ConnectionId) -> bool {
        let (mut control, mut payload) = (ControlBuf::new(), Vec::new());
        let Some(out) = self.core.next_frame(self.now_ms, id, &mut control, &mut payload) else {
            return false;
        };
        self.commands();
        let bytes: Vec<u8> = payload.iter().flat_map(|part| part.iter().copied()).collect();
        assert!(bytes.len() <= 1 << 20);
        let message = control.message().expect("a message");
        let operation = Request::decode(&message).expect("a request").which.operation().expect("known");
        self.sent.push((id.slot, out.request_id, operation));
        let payload = (!bytes.is_empty()).then(|| buf(&bytes));
        let frame = TestFrame { control: control.control().to_vec(), payload, last: out.last };
        let Some(messages) = self.up.get_mut(&id) else { panic!("a frame for a connection that is down") };
        let frames = messages.entry(out.request_id).or_default();
        frames.push(frame);
        if out.last {
            let frames = messages.remove(&out.request_id).expect("just there");
            let replies = self.server.answer(&frames);
            self.replies.extend(replies.into_iter().map(|reply| (id, out.request_id, reply)));
        }
        true
    }

    fn send_all(&mut self) {
        let mut ids: Vec<_> = self.up.keys().copied().collect();
        ids.sort_by_key(|id| id.slot);
        ids.into_iter().for_each(|id| while self.send(id) {});
    }

    fn deliver(&mut self, id: ConnectionId, request_id: u32, reply: &TestFrame) {
        let (control, payload) = (&reply.control[..], reply.payload.clone());
        let frame = Frame { kind: Kind::Response, request_id, last: reply.last, control, payload, sums: &[] };
        self.core.received(self.now_ms, id, frame, 100);
        self.commands();
    }

    /// Hands over the oldest frame; whether there was one.
    fn receive(&mut self) -> bool {
        let Some((id, request_id, reply)) = self.replies.pop_front() else { return false };
        self.deliver(id, request_id, &reply);
        true
    }

    fn settle(&mut self) {
        loop {
            self.connect();
            self.send_all();
            if !self.receive() && self.asked.is_empty() {
                return;
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.core.tick(self.now_ms);
        self.commands();
    }

    /// What a call came to: the frames of its last attempt, if it is over.
    fn end(&mut self, id: CallId) -> Option<Result<usize, Error>> {
        let mut frames = 0;
        loop {
            match self.core.progress(id)? {
                Progress::Frame(reply) => {
                    frames += 1;
                    self.core.give_back(reply);
                }
                Progress::Restarted => frames = 0,
                Progress::Done => return Some(Ok(frames)),
                Progress::Failed(error) => return Some(Err(error)),
            }
        }
    }
}

#[test]
fn a_call_connects_goes_out_and_comes_back() {
    let mut world = World::new(Settings::default());
    let id = world.ping(OPTIONS);
    assert_eq!(world.asked.len(), 1, "a small request opens one connection");
    world.settle();
    assert_eq!(world.woken, [id]);
    assert_eq!(world.end(id), Some(Ok(1)));
    assert_eq!(world.end(id), None, "a call ends once");
    assert_eq!(world.core.counters().round_trips, 1);
}

#[test]
fn the_memory_of_a_message_serves_the_next_one() {
    let mut world = World::new(Settings::default());
    for _ in 0..5 {
        let id = world.write(b"key", 100);
        world.settle();
        assert!(matches!(world.end(id), Some(Ok(_))));
        assert_eq!(world.core.spare.len(), 1, "one message at a time needs the memory of one");
    }
}

/// A read and its reply, again and again: after the first few, the core has all the memory it needs.
#[test]
fn the_core_allocates_nothing_in_steady_state() {
    let mut world = World::new(Settings { connections: 1, ..Settings::default() });
    let value = buf(&[7; 4096]);
    let piece_sum = checksum::block(&value);
    let pieces =
        [Piece { index: 0, offset: 0, length: 4096, checksum: Some(&piece_sum), which: PieceWhich::Inline }];
    let reply = ReadReply { length: 4096, checksum: None, pieces: List::from(&pieces[..]) };
    let reply = response(Status::Ok, 0, ResponseWhich::Read(reply));
    let (mut control, mut payload) = (ControlBuf::new(), Vec::new());
    let first = world.ping(OPTIONS);
    world.settle();
    assert_eq!(world.end(first), Some(Ok(1)));
    let connection = world.core.connection_id(0);
    let mut cycle = |now_ms: u64| {
        let core = &mut world.core;
        let mut message = core.message();
        read(&mut message, b"ns", ReadRange::whole(b"key")).expect("a message");
        let call = core.submit(now_ms, message, OPTIONS);
        payload.clear();
        let out = core.next_frame(now_ms, connection, &mut control, &mut payload).expect("a frame");
        let frame = Frame {
            kind: Kind::Response,
            request_id: out.request_id,
            last: true,
            control: &reply,
            payload: Some(value.clone()),
            sums: &[],
        };
        core.received(now_ms, connection, frame, 100);
        while core.command().is_some() {}
        let Some(Progress::Frame(reply)) = core.progress(call) else { panic!("a frame") };
        core.give_back(reply);
        assert!(matches!(core.progress(call), Some(Progress::Done)));
    };
    (1..20).for_each(&mut cycle);
    let counted = allocation_counter::measure(|| (20..1000).for_each(&mut cycle));
    assert_eq!(counted.count_total, 0);
}

#[test]
fn the_generated_stubs_know_their_replies() {
    let mut world = World::new(Settings::default());
    let ping = Ping { echo: 77, ..Ping::default() };
    let pending = world.core.at(0, OPTIONS).ping(b"ns", ping).expect("within bounds");
    world.commands();
    world.settle();
    let Some(Progress::Frame(reply)) = world.core.progress(pending.id()) else { panic!("a frame") };
    assert_eq!(pending.reply(&reply, |reply| reply.echo), Ok(77));
    let unbounded = Lookup { key: b"", lease_ms: 0 };
    assert!(matches!(world.core.at(0, OPTIONS).lookup(b"ns", unbounded), Err(Error::Misuse(_))));
}

//= MKV-MSG-1 test
#[test]
fn an_id_is_free_again_when_its_reply_is_whole() {
    let settings = Settings { connections: 1, requests_in_flight_max: 2, ..Settings::default() };
    let mut world = World::new(settings);
    let calls: Vec<_> = (0..3).map(|_| world.ping(OPTIONS)).collect();
    world.connect();
    world.send_all();
    let ids = |world: &World| world.sent.iter().map(|(_, id, _)| *id).collect::<Vec<_>>();
    assert_eq!(ids(&world).len(), 2, "the window is full");
    assert_ne!(ids(&world)[0], ids(&world)[1]);
    // A call that is given up keeps its id.
    world.core.cancel(world.now_ms, calls[0]);
    world.send_all();
    assert_eq!(ids(&world).len(), 2, "the id of a call that was given up is not free");
    world.receive();
    world.send_all();
    assert_eq!(ids(&world)[2], ids(&world)[0], "now it is");
    world.settle();
    assert_eq!(world.end(calls[0]), None);
    assert_eq!(world.end(calls[1]), Some(Ok(1)));
    assert_eq!(world.end(calls[2]), Some(Ok(1)));
}

#[test]
fn bulk_never_delays_control() {
    let mut world = World::new(Settings { connections: 2, ..Settings::default() });
    let bulk = world.write(b"large", 5 << 20);
    world.connect();
    world.send_all();
    // The pool is up now: bulk has its own connection, whatever the first message used.
    let more = world.write(b"larger", 9 << 20);
    let ping = world.ping(OPTIONS);
    let bulk_slot = world.core.connections.iter().position(|c| !c.sending.is_empty() && c.in_flight() == 1);
    assert!(bulk_slot.is_some());
    world.sent.clear();
    world.settle();
    let slots =
        |operation| world.sent.iter().filter(move |s| s.2 == operation).map(|s| s.0).collect::<Vec<_>>();
    assert_eq!(slots(Operation::Ping), [0]);
    assert_eq!(slots(Operation::BatchWrite), [1; 9]);
    for id in [bulk, more, ping] {
        assert!(matches!(world.end(id), Some(Ok(_))));
    }
}

#[test]
fn messages_on_one_connection_take_turns() {
    let settings = Settings { connections: 1, requests_interleaved_max: 2, ..Settings::default() };
    let mut world = World::new(settings);
    let first = world.ping(OPTIONS);
    world.settle();
    assert_eq!(world.end(first), Some(Ok(1)));
    world.sent.clear();
    let large = world.write(b"large", 4 << 20);
    let small = world.ping(OPTIONS);
    world.settle();
    let order: Vec<_> = world.sent.iter().map(|s| s.2).collect();
    assert_eq!(order[..2], [Operation::BatchWrite, Operation::Ping], "the short one is second, not last");
    assert!(matches!(world.end(large), Some(Ok(2))));
    assert_eq!(world.end(small), Some(Ok(1)));
}

#[test]
fn a_lost_connection_costs_idempotent_calls_nothing() {
    let mut world = World::new(Settings { connections: 1, ..Settings::default() });
    let ping = world.ping(OPTIONS);
    let commit = world.submit(RequestWhich::Commit(Commit { allocation: 9, checksum: None }), OPTIONS);
    world.connect();
    world.send_all();
    world.cut();
    let lost = Err(Error::Connection(ConnectionError::Closed));
    assert_eq!(world.end(commit), Some(lost), "a commit may have happened: it is not sent again");
    assert_eq!(world.end(ping), None);
    world.pass(100);
    world.settle();
    assert_eq!(world.end(ping), Some(Ok(1)));
    assert!(world.core.counters().retries == 1);
}

#[test]
fn a_call_of_which_nothing_went_out_is_sent_again_whatever_it_does() {
    let mut world = World::new(Settings { connections: 1, ..Settings::default() });
    let commit = world.submit(RequestWhich::Commit(Commit { allocation: 9, checksum: None }), OPTIONS);
    world.connect();
    world.cut();
    world.pass(100);
    world.settle();
    assert_eq!(world.end(commit), Some(Ok(1)));
}

#[test]
fn a_reply_cut_in_the_middle_begins_anew() {
    let mut world = World::new(Settings { connections: 1, ..Settings::default() });
    let write = world.write(b"key", 100);
    world.connect();
    world.send_all();
    assert!(world.receive(), "the first of two frames");
    assert!(matches!(world.core.progress(write), Some(Progress::Frame(_))));
    world.cut();
    assert!(matches!(world.core.progress(write), Some(Progress::Restarted)));
    world.pass(100);
    world.settle();
    assert_eq!(world.end(write), Some(Ok(2)));
}

#[test]
fn a_refusal_is_waited_out_within_the_deadline() {
    let mut world = World::new(Settings { connections: 1, ..Settings::default() });
    world.server.refusals = vec![(Status::OutOfSpace, 900), (Status::Busy, 300)];
    let ping = world.ping(OPTIONS);
    world.settle();
    assert_eq!(world.end(ping), None);
    world.pass(299);
    world.settle();
    assert_eq!(world.end(ping), None, "not before the server said");
    world.pass(1);
    world.settle();
    // The second refusal asks for more time than is left: the caller hears of it at once.
    let ends = world.end(ping);
    assert_eq!(ends, Some(Ok(1)), "the frame with the refusal");
    assert!(world.server.answered.is_empty());
}

//= MKV-STAT-1 test
#[test]
fn an_unknown_status_is_never_tried_again_nor_taken_for_ok() {
    let mut world = World::new(Settings { connections: 1, ..Settings::default() });
    world.server.refusals = vec![(Status::Unknown(999), 10)];
    let id = world.write(b"key", 10);
    world.settle();
    let Some(Progress::Frame(reply)) = world.core.progress(id) else { panic!("a frame") };
    let mut replies = BatchWriteReplies::new(1);
    replies.frame(&reply).expect("a frame that holds");
    let Err(Error::Storage(error)) = replies.finish() else { panic!("never ok") };
    assert_eq!(error.status, Status::Unknown(999));
    assert!(matches!(world.core.progress(id), Some(Progress::Done)));
    assert_eq!(world.core.counters().retries, 0);
}

#[test]
fn a_deadline_ends_a_call_wherever_it_is() {
    // Waiting for a connection.
    let mut world = World::new(Settings { connections: 1, setup_timeout_ms: 300, ..Settings::default() });
    let queued = world.ping(OPTIONS);
    world.pass(300);
    assert_eq!(world.closed.len(), 1, "set-up took too long");
    world.pass(700);
    let last = Some(ConnectionError::SetupTimeout);
    assert_eq!(world.end(queued), Some(Err(Error::Timeout { timeout_ms: 1_000, last })));
    // On a connection that says nothing.
    let mut world = World::new(Settings { connections: 1, ..Settings::default() });
    let sent = world.ping(OPTIONS);
    let other = world.ping(CallOptions { timeout_ms: 5_000, ..OPTIONS });
    world.connect();
    world.pass(1);
    let late = world.ping(OPTIONS);
    world.send_all();
    world.replies.clear();
    world.pass(999);
    assert_eq!(world.end(sent), Some(Err(Error::Timeout { timeout_ms: 1_000, last: None })));
    assert!(
        world.up.contains_key(&ConnectionId { slot: 0, epoch: 0 }),
        "it was heard of when they were sent"
    );
    world.pass(1);
    assert_eq!(world.end(late), Some(Err(Error::Timeout { timeout_ms: 1_000, last: None })));
    assert!(world.up.is_empty(), "silent since the call was sent: given up");
    world.pass(100);
    world.settle();
    assert_eq!(world.end(other), Some(Ok(1)), "the others go to the next connection");
}

#[test]
fn failing_fast_does_not_wait_for_a_server() {
    let mut world = World::new(Settings::default());
    let patient = world.ping(OPTIONS);
    let fast = world.ping(CallOptions { fail_fast: true, ..OPTIONS });
    world.refuse();
    assert_eq!(world.end(fast), Some(Err(Error::Connection(ConnectionError::Closed))));
    assert_eq!(world.end(patient), None);
    world.pass(50);
    world.settle();
    assert_eq!(world.end(patient), Some(Ok(1)));
}

#[test]
fn delays_between_attempts_grow() {
    let mut world = World::new(Settings { connections: 1, ..Settings::default() });
    let _call = world.ping(CallOptions { timeout_ms: 60_000, fail_fast: false });
    let mut delays = Vec::new();
    for _ in 0..10 {
        world.refuse();
        let began = world.now_ms;
        while world.asked.is_empty() {
            let due = world.core.deadline_ms();
            assert!(due > world.now_ms, "a deadline is ahead, or the driver would spin");
            world.pass(due - world.now_ms);
        }
        delays.push(world.now_ms - began);
    }
    assert!(delays[0] <= 20, "{delays:?}");
    assert!(delays[9] >= 500 && delays[9] <= 1_000, "{delays:?}");
}

#[test]
fn a_peer_that_misbehaves_loses_the_connection() {
    type Act = fn(&mut World, ConnectionId);
    let cases: [(&str, Act); 4] = [
        ("another id", |w, id| {
            let ok = response(Status::Ok, 0, Operation::Ping.empty_reply());
            w.deliver(id, 99, &TestFrame { control: ok, payload: None, last: true });
        }),
        ("another operation", |w, id| {
            let (_, request_id, _) = w.replies[0];
            let ok = response(Status::Ok, 0, Operation::Stats.empty_reply());
            w.deliver(id, request_id, &TestFrame { control: ok, payload: None, last: true });
        }),
        ("no message", |w, id| {
            let (_, request_id, _) = w.replies[0];
            w.deliver(id, request_id, &TestFrame { control: vec![0xff; 24], payload: None, last: true });
        }),
        ("a second reply", |w, id| {
            let (_, request_id, reply) = w.replies[0].clone();
            w.deliver(id, request_id, &reply);
            w.deliver(id, request_id, &reply);
        }),
    ];
    for (what, act) in cases {
        let mut world = World::new(Settings { connections: 1, ..Settings::default() });
        let call = world.ping(OPTIONS);
        world.connect();
        world.send_all();
        let id = *world.up.keys().next().expect("one connection");
        act(&mut world, id);
        assert_eq!(world.closed, [id], "{what}");
        assert!(matches!(world.core.last_error, Some(ConnectionError::Peer(_))), "{what}");
        world.replies.clear();
        world.pass(100);
        world.settle();
        assert_eq!(world.end(call), Some(Ok(1)), "{what}");
    }
}

#[test]
fn a_message_that_kills_every_connection_is_not_sent_forever() {
    let settings = Settings { connections: 1, call_retries_max: 3, ..Settings::default() };
    let mut world = World::new(settings);
    let call = world.ping(CallOptions { timeout_ms: 600_000, fail_fast: false });
    for _ in 0..4 {
        world.connect();
        world.send_all();
        world.cut();
        world.pass(2_000);
    }
    assert_eq!(world.end(call), Some(Err(Error::Connection(ConnectionError::Closed))));
}

#[test]
fn an_accused_connection_is_closed() {
    let mut world = World::new(Settings { connections: 1, ..Settings::default() });
    let write = world.write(b"key", 100);
    world.connect();
    world.send_all();
    world.receive();
    world.core.accuse(world.now_ms, write, PeerMisbehaved::Results);
    world.commands();
    assert_eq!(world.closed.len(), 1);
    assert_eq!(world.end(write), None);
    assert_eq!(world.core.earliest_ms(), world.core.deadline_ms());
}

#[test]
fn closing_ends_everything() {
    let mut world = World::new(Settings { connections: 1, requests_in_flight_max: 1, ..Settings::default() });
    let sent = world.ping(OPTIONS);
    world.connect();
    world.send_all();
    let queued = world.ping(OPTIONS);
    world.core.close();
    world.commands();
    let late = world.ping(OPTIONS);
    for call in [sent, queued, late] {
        assert_eq!(world.end(call), Some(Err(Error::Closed)));
    }
    assert!(world.up.is_empty());
}

/// What a seed may do to a world.
#[derive(Debug, Clone)]
enum Act {
    Ping { fail_fast: bool, timeout_ms: u64 },
    Write { size_bytes: usize },
    Commit,
    Cancel(usize),
    Connect,
    Refuse,
    Cut,
    Send(usize),
    SendAll,
    Receive(usize),
    Pass(u64),
    Busy,
    Garbage(usize, Vec<u8>),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (any::<bool>(), 1u64..3_000).prop_map(|(fail_fast, timeout_ms)| Act::Ping { fail_fast, timeout_ms }),
        3 => (1usize..3_000_000).prop_map(|size_bytes| Act::Write { size_bytes }),
        1 => Just(Act::Commit),
        1 => (0usize..8).prop_map(Act::Cancel),
        4 => Just(Act::Connect),
        1 => Just(Act::Refuse),
        1 => Just(Act::Cut),
        4 => (0usize..3).prop_map(Act::Send),
        4 => Just(Act::SendAll),
        6 => (0usize..4).prop_map(Act::Receive),
        3 => (0u64..1_500).prop_map(Act::Pass),
        1 => Just(Act::Busy),
        1 => (0usize..3, proptest::collection::vec(any::<u8>(), 0..64)).prop_map(|(slot, bytes)| Act::Garbage(slot, bytes)),
    ];
    proptest::collection::vec(act, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens: every call ends once, by its deadline; the core goes on; nothing is left behind.
    #[test]
    fn every_call_ends(acts in acts(), connections in 1u16..4, window in 1u16..5) {
        let settings = Settings { connections, requests_in_flight_max: window, ..Settings::default() };
        let mut world = World::new(settings);
        let mut calls = Vec::new();
        let mut keys = 0u32;
        for act in acts {
            match act {
                Act::Ping { fail_fast, timeout_ms } => calls.push(world.ping(CallOptions { timeout_ms, fail_fast })),
                Act::Write { size_bytes } => {
                    keys += 1;
                    calls.push(world.write(&keys.to_le_bytes(), size_bytes));
                }
                Act::Commit => {
                    let commit = Commit { allocation: 1, checksum: None };
                    calls.push(world.submit(RequestWhich::Commit(commit), OPTIONS));
                }
                Act::Cancel(place) => {
                    if place < calls.len() {
                        let id = calls.remove(place);
                        world.core.cancel(world.now_ms, id);
                        world.commands();
                        prop_assert!(world.core.progress(id).is_none());
                    }
                }
                Act::Connect => world.connect(),
                Act::Refuse => world.refuse(),
                Act::Cut => world.cut(),
                Act::Send(place) => {
                    if let Some(&id) = world.up.keys().nth(place) {
                        world.send(id);
                    }
                }
                Act::SendAll => world.send_all(),
                Act::Receive(place) => {
                    // Frames of one reply stay in order; replies do not.
                    let Some(&(id, request_id, _)) = world.replies.get(place) else { continue };
                    let first = world.replies.iter().position(|r| (r.0, r.1) == (id, request_id));
                    let (_, _, reply) = world.replies.remove(first.unwrap_or(place)).expect("just there");
                    world.deliver(id, request_id, &reply);
                }
                Act::Pass(ms) => world.pass(ms),
                Act::Busy => world.server.refusals.push((Status::Busy, 50)),
                Act::Garbage(place, control) => {
                    if let Some(&id) = world.up.keys().nth(place) {
                        world.deliver(id, 0, &TestFrame { control, payload: None, last: false });
                    }
                }
            }
            calls.retain(|&id| world.end(id).is_none());
        }
        // Left alone, every call ends by its deadline at the latest.
        for _ in 0..40 {
            world.settle();
            world.pass(500);
        }
        for id in calls {
            prop_assert!(world.end(id).is_some(), "a call without an end");
        }
        let free = world.core.calls.iter().filter(|call| matches!(call.place, Place::Free)).count();
        prop_assert_eq!(free, world.core.calls.len(), "a slot was left behind");
        for connection in &world.core.connections {
            prop_assert_eq!(connection.payload_outstanding_bytes, 0);
            prop_assert!(connection.sending.is_empty());
        }
    }
}

/// Memory that an unanswered read named is kept from use until whoever drives the core knows that the server let go of it; and a
/// message that names memory goes over no connection that knows nothing of it.
#[test]
#[cfg(target_os = "linux")]
//= MKV-REG-6 test
fn memory_is_not_used_again_while_the_server_may_write_to_it() {
    use crate::operation::read::read_into;
    use memkv_transport::buf::BufPool;
    use memkv_transport::shared::SharedMemory;

    let pool = BufPool::new(16 << 20);
    assert!(pool.share(2, SharedMemory::create(16 << 20).expect("memory")));
    let mut world = World::new(Settings { connections: 1, ..Settings::default() });
    let first = world.ping(OPTIONS);
    let share = |world: &mut World| {
        for id in std::mem::take(&mut world.asked) {
            world.core.connected_sharing(world.now_ms, id, 256, Sharing::Mapped);
            world.up.insert(id, HashMap::new());
        }
        world.commands();
    };
    share(&mut world);
    world.settle();
    assert_eq!(world.end(first), Some(Ok(1)));
    let ask = |world: &mut World| {
        let memory = pool.try_take(1 << 20).expect("memory").freeze();
        let mut message = world.core.message();
        let range = ReadRange { key: b"key", offset: 0, length: 1 << 20 };
        read_into(&mut message, b"ns", range, Some(&memory)).expect("a message");
        world.core.submit(world.now_ms, message, OPTIONS)
    };
    let id = world.core.connection_id(0);
    // One that was sent, and one that was not.
    let sent = ask(&mut world);
    let (mut control, mut payload) = (ControlBuf::new(), Vec::new());
    assert!(world.core.next_frame(0, id, &mut control, &mut payload).is_some() && payload.is_empty());
    let unsent = ask(&mut world);
    world.cut();
    world.core.cancel(world.now_ms, sent);
    world.core.cancel(world.now_ms, unsent);
    let taken = || pool.budget_size_bytes() - pool.available_size_bytes();
    assert_eq!(taken(), 1 << 20, "that of the message that was sent");
    assert!(world.core.take_exposed(world.core.connection_id(0)).is_empty(), "it was another life's");
    assert_eq!(world.core.take_exposed(id).len(), 1);
    assert_eq!(taken(), 0);
    // A call that was begun before its connection was lost finds only one that shares nothing.
    world.now_ms += 2_000;
    world.core.tick(world.now_ms);
    let again = world.ping(OPTIONS);
    share(&mut world);
    let moved = ask(&mut world);
    world.cut();
    world.now_ms += 500;
    world.core.tick(world.now_ms);
    world.commands();
    world.connect();
    world.settle();
    assert_eq!(world.end(again), Some(Ok(1)));
    assert_eq!(world.end(moved), Some(Err(ConnectionError::MemoryGone.into())));
}
