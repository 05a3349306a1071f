//! Peers that do what no client would.

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
    assert_eq!(world.service.requests_open(), 0);
}

//= MKV-MSG-1 test
#[test]
fn a_request_id_in_use_ends_the_connection() {
    let mut world = World::new();
    let connection = world.connect(1);
    let keys: [&[u8]; 1] = [b"k"];
    let which = RequestWhich::Delete(Delete { keys: List::from(&keys) });
    world.hold = true;
    world.frame(connection, 1, true, &Request { namespace: b"", which }, &[]);
    if world.take(connection, 1).is_empty() {
        world.frame(connection, 1, true, &Request { namespace: b"", which }, &[]);
        assert_eq!(world.closed, [(connection, CloseReason::RequestIdReused)]);
    }
    world.release_held();
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
    assert_eq!(world.service.requests_open(), 0);
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
