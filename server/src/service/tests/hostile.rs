//! Peers that do what no client would.

use ::arbitrary::Unstructured;
use memkv_wire::*;

use super::behaviour::{bytes, exists, read, write};
use super::*;

fn ping(echo: u64) -> RequestWhich<'static> {
    RequestWhich::Ping(Ping { echo, ..Default::default() })
}

//= MKV-MSG-5 test
#[test]
fn an_unknown_operation_is_answered_and_the_connection_goes_on() {
    let mut world = World::new();
    let connection = world.connect(1);
    let request = Request { namespace: b"", which: RequestWhich::Unknown(999) };
    world.decoded(connection, 5, true, &request, &[]);
    assert_eq!(world.take(connection, 5)[0].status(), Status::UnknownOperation);
    assert_eq!(world.call(connection, ping(3), &[])[0].status(), Status::Ok);
}

//= MKV-LIM-2 test
#[test]
fn more_requests_than_allowed_end_the_connection() {
    let mut world = World::new();
    let connection = world.connect(1);
    let keys: [&[u8]; 1] = [b"k"];
    let which = RequestWhich::Delete(Delete { keys: List::from(&keys) });
    world.hold = true;
    for request_id in 0..limits::REQUESTS_IN_FLIGHT_MAX {
        world.frame(connection, request_id, false, &Request { namespace: b"", which }, &[]);
    }
    assert!(world.closed.is_empty());
    world.frame(connection, 70_000, true, &Request { namespace: b"", which }, &[]);
    assert_eq!(world.closed, [(connection, CloseReason::TooManyRequests)]);
    world.release_held();
    assert_eq!(world.service.held().requests, 0);
}

//= MKV-MSG-1 test
#[test]
fn a_request_id_in_use_ends_the_connection() {
    let mut world = World::new();
    let connection = world.connect(1);
    let one = [Piece { length: 3, which: PieceWhich::Inline, ..Default::default() }];
    let pieces = List::from(&one);
    let which = RequestWhich::Write(Write { key: b"k", length: 3, pieces, ..Default::default() });
    world.hold = true;
    world.frame(connection, 1, true, &Request { namespace: b"", which }, b"abc");
    assert!(world.take(connection, 1).is_empty() && world.closed.is_empty());
    world.frame(connection, 1, true, &Request { namespace: b"", which }, b"abc");
    assert_eq!(world.closed, [(connection, CloseReason::RequestIdReused)]);
    world.release_held();
    assert_eq!(world.service.held().requests, 0);
}

//= MKV-MSG-3 test
#[test]
fn frames_that_contradict_the_first_end_the_message() {
    let mut world = World::new();
    let connection = world.connect(1);
    let write =
        |key: &'static [u8]| RequestWhich::Write(Write { key, length: 1 << 21, ..Default::default() });
    for second in [write(b"other"), ping(1)] {
        world.frame(connection, 1, false, &Request { namespace: b"", which: write(b"one") }, &[]);
        assert!(world.take(connection, 1).is_empty());
        world.frame(connection, 1, false, &Request { namespace: b"", which: second }, &[]);
        assert!(world.take(connection, 1).is_empty(), "the id is in use until the last frame");
        world.frame(connection, 1, true, &Request { namespace: b"", which: write(b"one") }, &[]);
        let frames = world.take(connection, 1);
        assert_eq!((frames.len(), frames[0].status()), (1, Status::Invalid));
    }
    assert_eq!(exists(&mut world, connection, &[b"one", b"other"]), [0, 0]);
    assert_eq!(world.service.held().requests, 0);
}

/// A peer that takes nothing holds one window; another one is served meanwhile.
#[test]
fn a_stalled_reader_holds_a_window_and_no_more() {
    let mut world = World::new();
    let (slow, quick) = (world.connect(1), world.connect(2));
    let value = bytes(1, 3 * BLOCK);
    assert_eq!(write(&mut world, slow, b"k", &value), Status::Ok);
    let item = ReadItem { key: b"k", offset: 0, length: 0, destination: Destination::default() };
    let items = [item; 12];
    let which = RequestWhich::BatchRead(BatchRead { items: List::from(&items) });
    world.stall = true;
    world.frame(slow, 1, true, &Request { namespace: b"ns", which }, &[]);
    let held = |world: &World| world.unsent.iter().map(|(_, _, payload)| payload).sum::<usize>();
    assert!(held(&world) <= ServiceLimits::default().window_bytes_max + 4 * BLOCK, "{}", held(&world));
    world.stall = false;
    assert_eq!(read(&mut world, quick, b"k", 0, 0), Ok(value));
    world.report_sent();
    let frames = world.take(slow, 1);
    assert!(frames.last().is_some_and(|frame| frame.last));
    let sent: usize = frames.iter().map(|frame| frame.payload.len()).sum();
    assert_eq!(sent, 12 * 3 * BLOCK);
}

/// Many peers that take nothing: once they hold what all of them may hold, each further one costs a block.
#[test]
fn a_reader_beside_many_stalled_ones_holds_a_block() {
    let limits = ServiceLimits { window_bytes_total_max: 2 * BLOCK, ..ServiceLimits::default() };
    let mut world = World::with(96 << 20, limits, Config::default());
    let writer = world.connect(1);
    let value = bytes(1, 9 * BLOCK);
    assert_eq!(write(&mut world, writer, b"k", &value), Status::Ok);
    world.stall = true;
    let readers: Vec<ConnectionId> = (2..6).map(|client| world.connect(client)).collect();
    let wanted = Read { key: b"k", offset: 0, length: 0, destination: Destination::default() };
    let request = Request { namespace: b"ns", which: RequestWhich::Read(wanted) };
    for reader in &readers {
        world.frame(*reader, 1, true, &request, &[]);
    }
    let held = |world: &World, reader| {
        let unsent = world.unsent.iter().filter(|(connection, _, _)| *connection == reader);
        unsent.map(|(_, _, payload)| payload).sum::<usize>()
    };
    for reader in &readers[1..] {
        assert_eq!(held(&world, *reader), BLOCK);
    }
    world.report_sent();
    for reader in readers {
        let frames = world.take(reader, 1);
        assert_eq!(frames.iter().map(|frame| frame.payload.len()).sum::<usize>(), value.len());
    }
}

/// A stalled reader whose bytes land in its own memory, so that no frame carries them: the work for it waits until it was told of what
/// was done.
#[test]
fn a_stalled_reader_of_shared_memory_has_a_window_landed_and_no_more() {
    let mut world = World::new();
    let (slow, quick) = (world.connect(1), world.connect(2));
    let value = bytes(1, 3 * BLOCK);
    assert_eq!(write(&mut world, slow, b"k", &value), Status::Ok);
    let which = DestinationWhich::Region(Region { id: 1, offset: 0, mac: None });
    let item = ReadItem { key: b"k", offset: 0, length: 0, destination: Destination { which } };
    let items = [item; 12];
    let which = RequestWhich::BatchRead(BatchRead { items: List::from(&items) });
    (world.stall, world.lands) = (true, true);
    let sent_before = world.service.counters().bytes_sent;
    world.frame(slow, 1, true, &Request { namespace: b"ns", which }, &[]);
    let window_bytes_max = ServiceLimits::default().window_bytes_max;
    assert!(world.landed_bytes >= window_bytes_max, "{}", world.landed_bytes);
    assert!(world.landed_bytes <= window_bytes_max + 4 * BLOCK, "{}", world.landed_bytes);
    // Who leaves with all that gives it back.
    let gone = world.connect(3);
    world.frame(gone, 1, true, &Request { namespace: b"ns", which }, &[]);
    world.service.disconnected(world.now_ms, gone);
    world.stall = false;
    assert_eq!(read(&mut world, quick, b"k", 0, 0), Ok(value));
    world.landed_bytes = 0;
    world.report_sent();
    let frames = world.take(slow, 1);
    assert!(frames.last().is_some_and(|frame| frame.last));
    assert!(frames.iter().all(|frame| frame.payload.is_empty()));
    let sent = world.service.counters().bytes_sent - sent_before;
    // All of the slow one's, three values of the one that left, one of the quick one's; and some control messages.
    assert_eq!(sent / BLOCK as u64, (12 + 3 + 1) * 3, "each byte counts once");
    assert_eq!(world.service.held().window_bytes, 0);
}

/// Manifests that are begun and never ended hold what all clients share: their peers are closed, and others get it. Who goes on, however
/// slowly, or is made to wait is left alone.
#[test]
fn a_message_that_does_not_go_on_is_given_up() {
    let body_bytes_total_max = 3 * BLOCK;
    let limits = ServiceLimits { body_bytes_total_max, stall_ms_max: 1000, ..ServiceLimits::default() };
    let mut world = World::with(96 << 20, limits, Config::default());
    let (silent, slow, other) = (world.connect(1), world.connect(2), world.connect(3));
    let body = bytes(1, BLOCK);
    let sum = crate::store::Checksum::of_value(&body).0;
    let put = |name: &'static [u8], length| {
        let (generation, role, chunks) = (0, ManifestRole::Both, List::default());
        let which = PutManifest { name, generation, role, length, checksum: &sum, chunks };
        Request { namespace: b"ns", which: RequestWhich::PutManifest(which) }
    };
    world.frame(silent, 1, false, &put(b"silent", 3 << 20), &body);
    world.frame(slow, 1, false, &put(b"slow", 2 << 20), &body[1..]);
    let ended = put(b"other", body.len() as u64);
    assert_eq!(world.call(other, ended.which, &body)[0].status(), Status::Ok);
    world.frame(silent, 1, false, &put(b"silent", 3 << 20), &body);
    assert_eq!(world.call(other, ended.which, &body)[0].status(), Status::Busy);
    for turn in 0..5 {
        let deadline_ms = world.service.next_deadline().expect("what has not ended is looked at");
        world.now_ms = world.now_ms.max(deadline_ms);
        if turn < 3 {
            world.service.receives_nothing();
            assert!(world.closed.is_empty(), "nobody could send more");
        }
        world.service.tick(world.now_ms);
        world.settle();
        world.frame(slow, 1, false, &put(b"slow", 2 << 20), &[]);
    }
    assert_eq!(world.closed, [(silent, CloseReason::MessageStalled)]);
    assert_eq!(world.call(other, ended.which, &body)[0].status(), Status::Ok);
    world.service.disconnected(world.now_ms, slow);
    assert_eq!(world.service.next_look_ms(), None, "nothing that has not ended is left");
}

/// Any sequence of well-formed frames, on several connections, with devices that answer late or badly and peers that come
/// and go: no panic, bounds are kept, and in the end nothing is left over.
fn any_frames(seed: u64) {
    let mut random = Random(seed | 1);
    let limits = ServiceLimits {
        requests_max: 8,
        kept_bytes_max: 64 << 10,
        writing_bytes_max: 64 << 10,
        window_bytes_max: 64 << 10,
        window_bytes_total_max: 128 << 10,
        unsent_bytes_max: 64 << 10,
        body_bytes_max: 64 << 10,
        body_bytes_total_max: 96 << 10,
        stall_ms_max: 2000,
    };
    let mut world = World::with(40 << 20, limits, Config { allocations_max: 32, ..Config::default() });
    let mut connections = vec![world.connect(1)];
    let mut control = ControlBuf::new();
    for _ in 0..120 {
        world.now_ms += random.below(200);
        if random.below(20) == 0 || connections.is_empty() {
            let client = random.below(3) as u8;
            connections.push(world.connect(client));
        }
        let connection = connections[random.below(connections.len() as u64) as usize];
        if random.below(2) == 0 {
            likely_frame(&mut world, &mut random, connection);
            continue;
        }
        let bytes: Vec<u8> = (0..random.below(600)).map(|_| random.next() as u8).collect();
        if memkv_wire::arbitrary::request(&mut Unstructured::new(&bytes), &mut control).is_err() {
            continue;
        }
        let message = control.message().unwrap();
        let request = Request::decode(&message).unwrap();
        let payload_bytes = match random.below(3) {
            0 => 0,
            1 => fitting(&request),
            _ => random.below(5000) as usize,
        };
        let payload: Vec<u8> = (0..payload_bytes.min(1 << 20)).map(|_| 7).collect();
        let request_id = random.below(10) as u32;
        world.decoded(connection, request_id, random.below(3) > 0, &request, &payload);
        disturb(&mut world, &mut random, connection);
        for (closed, _) in std::mem::take(&mut world.closed) {
            connections.retain(|open| *open != closed);
        }
    }
    for connection in connections {
        world.service.disconnected(world.now_ms, connection);
        world.settle();
    }
    world.release_held();
    world.report_sent();
    assert_eq!(world.service.held().requests, 0);
    assert_eq!(world.service.held(), Held::default());
    world.service.stop(world.now_ms);
    world.settle();
    assert!(world.stopped);
}

/// Sometimes something happens beside the frames.
fn disturb(world: &mut World, random: &mut Random, connection: ConnectionId) {
    match random.below(12) {
        0 => world.hold = true,
        1 => world.release_held(),
        2 => world.stall = true,
        3 => world.report_sent(),
        4 => {
            world.service.tick(world.now_ms);
            world.settle();
        }
        5 => {
            world.service.disconnected(world.now_ms, connection);
            world.settle();
        }
        _ => {}
    }
}

/// A frame that mostly does what it should, on a few keys, so that requests meet each other.
fn likely_frame(world: &mut World, random: &mut Random, connection: ConnectionId) {
    const KEYS: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
    let key = KEYS[random.below(4) as usize];
    let length = [1, 3000, 70_000, BLOCK + 9][random.below(4) as usize];
    let value = vec![length as u8; length];
    let parts: Vec<&[u8]> = value.chunks(BLOCK).collect();
    let part = random.below(parts.len() as u64) as usize;
    let one = [Piece {
        offset: (part * BLOCK) as u64,
        length: parts[part].len() as u32,
        which: PieceWhich::Inline,
        ..Default::default()
    }];
    let items = [WriteItem { key, length: length as u64, checksum: None }];
    let wanted = KEYS.map(|key| ReadItem { key, length: random.below(5000), ..Default::default() });
    let chunks = [ChunkReference { key, length: length as u64, checksum: None }];
    let sum = crate::store::Checksum::of_value(&value[..3.min(length)]).0;
    let (which, payload): (RequestWhich<'_>, &[u8]) = match random.below(9) {
        0 | 1 => {
            let pieces = List::from(&one);
            let write = Write { key, length: length as u64, pieces, ..Default::default() };
            (RequestWhich::Write(write), parts[part])
        }
        2 => {
            let batch = BatchWrite { items: List::from(&items), pieces: List::from(&one) };
            (RequestWhich::BatchWrite(batch), parts[part])
        }
        3 => (RequestWhich::Read(Read { key, ..Default::default() }), &[]),
        4 => (RequestWhich::BatchRead(BatchRead { items: List::from(&wanted) }), &[]),
        5 => {
            let put = PutManifest {
                name: key,
                generation: 0,
                role: ManifestRole::Both,
                length: 3.min(length) as u64,
                checksum: &sum,
                chunks: List::from(&chunks),
            };
            (RequestWhich::PutManifest(put), &value[..3.min(length)])
        }
        6 => (RequestWhich::GetManifest(GetManifest { name: key, lease_ms: 10 }), &[]),
        7 => (RequestWhich::DeleteManifest(DeleteManifest { name: key, generation: 0 }), &[]),
        _ => (RequestWhich::Delete(Delete { keys: List::from(&KEYS) }), &[]),
    };
    let request = Request { namespace: b"", which };
    let last = random.below(4) > 0;
    world.frame(connection, random.below(10) as u32, last, &request, payload);
}

/// What the request's inline pieces add up to.
fn fitting(request: &Request<'_>) -> usize {
    let inline = |piece: Piece<'_>| match piece.which {
        PieceWhich::Inline => piece.length as usize,
        PieceWhich::Region(_) | PieceWhich::Unknown(_) => 0,
    };
    match request.which {
        RequestWhich::Write(write) => write.pieces.iter().map(inline).sum(),
        RequestWhich::BatchWrite(batch) => batch.pieces.iter().map(inline).sum(),
        RequestWhich::PutManifest(put) => put.length as usize,
        _ => 0,
    }
}

/// Xorshift: a seed makes a run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 64, ..Default::default() })]

    #[test]
    fn any_sequence_of_frames_leaves_nothing_over(seed: u64) {
        any_frames(seed);
    }
}
