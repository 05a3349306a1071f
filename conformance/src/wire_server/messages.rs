//! Messages: what they owe whatever they ask for, and what a server does with those that are wrong.

use ::arbitrary::Unstructured;
use memkv_wire::checksum::{self, BLOCK_SIZE_BYTES};
use memkv_wire::control::{ControlBuf, Message};
use memkv_wire::*;

use super::calls::{
    Part, call_parts, expect_absent, expect_status, expect_value, lengths, piece, send_parts, store, write,
};
use super::{Server, ping};
use crate::case::{Case, Outcome};
use crate::peer::session::{Session, encode, last_status};
use crate::random::Random;
use crate::wire_client::driver::unhex;
use crate::{ensure, fail};

pub const CASES: &[Case<Server>] = &[
    Case::must("SRV-MSG-1", &["MKV-MSG-2"], "frames of several messages may interleave", interleaved),
    Case::must(
        "SRV-MSG-2",
        &["MKV-MSG-3"],
        "a message may have many frames, each complete in itself",
        many_frames,
    ),
    Case::must(
        "SRV-MSG-3",
        &["MKV-MSG-3"],
        "a frame that contradicts the first one is invalid",
        contradictions,
    ),
    Case::must(
        "SRV-MSG-4",
        &["MKV-MSG-5"],
        "an unknown operation is told, and the connection goes on",
        unknown,
    ),
    Case::must("SRV-MSG-5", &["MKV-MSG-6"], "a message that cannot be read closes", unreadable),
    Case::must("SRV-MSG-6", &["MKV-MSG-6"], "a field beyond its bounds closes", out_of_bounds),
    Case::must(
        "SRV-MSG-7",
        &["MKV-MSG-6"],
        "thousands of damaged messages: each closes or is answered",
        damaged,
    ),
    Case::must(
        "SRV-MSG-8",
        &["MKV-MSG-7", "MKV-MSG-4"],
        "every drawn message is answered as its operation may be",
        drawn,
    ),
    Case::must("SRV-MSG-9", &["MKV-LIM-2"], "requests in flight are bounded", in_flight),
    Case::must("SRV-MSG-10", &["MKV-MSG-1"], "a request id can be used again after its reply", id_again),
    Case::must(
        "SRV-MSG-11",
        &["MKV-MSG-7"],
        "a failed request leaves the connection as it was",
        failures_pass,
    ),
    Case::must(
        "SRV-MSG-12",
        &["MKV-MSG-1"],
        "no reply ends before its request has ended",
        ends_after_request,
    ),
    Case::must(
        "SRV-MSG-13",
        &["MKV-MSG-6"],
        "every field just outside of its bounds closes the connection",
        just_outside,
    ),
];

/// Generated from the schema.
const VECTORS: &str = include_str!("../../vectors/bounds.txt");

fn interleaved(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, mut random) = (server.namespace(), server.random());
    let values: Vec<Vec<u8>> = (0..3).map(|n| random.bytes(2 * BLOCK_SIZE_BYTES + 1000 + n)).collect();
    let keys: Vec<Vec<u8>> = (0..3).map(|n| format!("key {n}").into_bytes()).collect();
    let ids: Vec<u32> = keys.iter().map(|_| session.new_id()).collect();
    for block in 0..3 {
        for ((id, key), data) in ids.iter().zip(&keys).zip(&values) {
            let bytes = data.chunks(BLOCK_SIZE_BYTES).nth(block).unwrap_or_default();
            let sum = checksum::block(bytes);
            let pieces = [piece(0, block * BLOCK_SIZE_BYTES, bytes, Some(&sum))];
            let which = RequestWhich::Write(Write { pieces: List::from(&pieces), ..write(key, data) });
            let frame = session.frame(*id, block == 2, &Request { namespace: &namespace, which }, bytes);
            session.send(&frame)?;
        }
    }
    let mut open = ids;
    while !open.is_empty() {
        let Some(reply) = session.next_reply()? else { fail!("it closed with {} requests open", open.len()) };
        ensure!(open.contains(&reply.id), "a reply has request id {}, which is not open", reply.id);
        expect_status(reply.status()?, Status::Ok, "a write")?;
        open.retain(|id| !(reply.last && *id == reply.id));
    }
    for (key, data) in keys.iter().zip(&values) {
        expect_value(&mut session, &namespace, key, data)?;
    }
    Ok(())
}

fn many_frames(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, mut random) = (server.namespace(), server.random());
    let keys: Vec<Vec<u8>> = (0..60).map(|_| random.bytes(20)).collect();
    for (length, key) in (1..).zip(&keys).filter(|(length, _)| length % 3 == 0) {
        store(&mut session, &namespace, key, &random.bytes(length))?;
    }
    // One Exists in frames of 1 to 20 keys.
    let asked: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let (first, rest) = asked.split_at(1);
    let (second, third) = rest.split_at(20);
    let parts = [first, second, third]
        .map(|keys| Part { which: RequestWhich::Exists(Exists { keys: List::from(keys) }), payload: &[] });
    let replies = call_parts(&mut session, &namespace, &parts)?;
    let mut told = Vec::new();
    for reply in &replies {
        let response = reply.response()?;
        let ResponseWhich::Exists(exists) = response.which else {
            fail!("exists was answered with another arm")
        };
        told.extend(exists.lengths.iter());
    }
    let expected: Vec<u64> = (1..=60).map(|length| if length % 3 == 0 { length } else { 0 }).collect();
    ensure!(told == expected, "exists in three frames was answered with {told:?}");
    Ok(())
}

fn contradictions(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, data) = (server.namespace(), server.random().bytes(BLOCK_SIZE_BYTES + 10));
    let (first, second) = data.split_at(BLOCK_SIZE_BYTES);
    let pieces = ([piece(0, 0, first, None)], [piece(0, BLOCK_SIZE_BYTES, second, None)]);
    let begin = RequestWhich::Write(Write { pieces: List::from(&pieces.0), ..write(b"key", &data) });
    let right = Write { pieces: List::from(&pieces.1), ..write(b"key", &data) };
    let wrong_sum = [1; 16];
    let contradicting = [
        ("another key", RequestWhich::Write(Write { key: b"other", ..right })),
        ("another length", RequestWhich::Write(Write { length: data.len() as u64 + 1, ..right })),
        ("another checksum", RequestWhich::Write(Write { checksum: Some(&wrong_sum), ..right })),
    ];
    for (what, which) in contradicting {
        let parts = [Part { which: begin, payload: first }, Part { which, payload: second }];
        let status = last_status(&call_parts(&mut session, &namespace, &parts)?)?;
        expect_status(status, Status::Invalid, &format!("a second frame with {what}"))?;
        expect_absent(&mut session, &namespace, b"key")?;
        expect_absent(&mut session, &namespace, b"other")?;
    }
    // Another operation, under the same request id.
    let id = session.new_id();
    send_parts(&mut session, &namespace, id, &[Part { which: begin, payload: first }], false)?;
    let keys = [&b"key"[..]];
    let which = RequestWhich::Exists(Exists { keys: List::from(&keys) });
    let frame = session.frame(id, true, &Request { namespace: &namespace, which }, &[]);
    session.send(&frame)?;
    let status = last_status(&session.replies(id, None)?)?;
    expect_status(status, Status::Invalid, "a second frame of another operation")?;
    ping(&mut session, 1)?;
    expect_absent(&mut session, &namespace, b"key")
}

fn unknown(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    for opcode in [16, 17, 999, u16::MAX] {
        let status = session.status(&[], RequestWhich::Unknown(opcode), &[])?;
        expect_status(status, Status::UnknownOperation, &format!("opcode {opcode}"))?;
        ping(&mut session, u64::from(opcode))?;
    }
    Ok(())
}

/// Sends a control message that is signed and is none, and expects the end of the connection.
fn expect_unreadable(server: &Server, what: &str, control: &[u8]) -> Outcome {
    let mut session = server.connect()?;
    let frame = session.frame_of(5, true, control, &[]);
    session.send_hostile(&frame.bytes());
    session.expect_closed(what)
}

/// The words of a message: a struct pointer, data and pointers.
fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn unreadable(server: &Server) -> Outcome {
    expect_unreadable(server, "a request without a control message", &[])?;
    let structure = |offset: u64, data: u64, pointers: u64| offset << 2 | data << 32 | pointers << 48;
    for (what, control) in [
        ("a root that leads outside", words(&[structure(1000, 1, 1)])),
        ("a root that leads backwards", words(&[structure(0x3fff_fff0, 1, 1), 0, 0])),
        ("a root that is a list", words(&[0x0000_0007_0000_0001, 0, 0])),
        ("a root that is a far pointer", words(&[0x0000_0000_0000_0002, 0, 0])),
        ("a root that is a capability", words(&[0x0000_0000_0000_0003, 0, 0])),
        ("a root larger than the message", words(&[structure(0, 0xffff, 0xffff)])),
        // The namespace is a list of 512 MiB, or of as many elements of no size.
        (
            "a namespace longer than the message",
            words(&[structure(0, 1, 2), 14, 0xffff_ffff_0000_0001 | 2 << 32, 0]),
        ),
        ("random bytes", server.random().bytes(800)),
        ("ones", vec![0xff; 64]),
    ] {
        if Message::new(&control).and_then(|message| Request::decode(&message).map(|_| ())).is_ok() {
            continue;
        }
        expect_unreadable(server, what, &control)?;
    }
    server.expect_alive()
}

/// A message within its bounds, of which a field is then changed to one beyond them.
fn out_of_bounds(server: &Server) -> Outcome {
    let namespace = [b'n'; 255];
    let exists = |key: &[u8]| {
        encode(&Request {
            namespace: &namespace,
            which: RequestWhich::Exists(Exists { keys: List::from(&[key]) }),
        })
    };
    // A list pointer holds its count from bit 35 on: 512 bytes of key, 255 of namespace, as lists of bytes.
    let pointer_of = |length: u64| (length << 35 | 2 << 32 | 1).to_le_bytes();
    let grown = |control: &[u8], from: u64, to: u64| {
        let (from, mut control) = (pointer_of(from), control.to_vec());
        // The offset is in bits 2 to 31; only the upper half tells kind and count.
        let place = control.chunks_exact(8).position(|word| word[4..] == from[4..] && word[0] & 3 == 1);
        if let Some(place) = place {
            control[place * 8 + 4..place * 8 + 8].copy_from_slice(&pointer_of(to)[4..]);
        }
        control.extend_from_slice(&[0; 64]);
        control
    };
    let lengthy = exists(&[b'k'; 512]);
    let messages = [
        ("a key of 513 bytes", grown(&lengthy, 512, 513)),
        ("a key of no bytes", grown(&lengthy, 512, 0)),
        ("a namespace of 256 bytes", grown(&lengthy, 255, 256)),
    ];
    for (what, control) in messages {
        let broken =
            Message::new(&control).and_then(|message| Request::decode(&message).map(|_| ())).is_err();
        ensure!(broken, "this suite made a message that is in bounds: {what}");
        expect_unreadable(server, what, &control)?;
    }
    server.expect_alive()
}

//= MKV-MSG-6 test
fn just_outside(server: &Server) -> Outcome {
    let mut count = 0;
    for line in VECTORS.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let ["Request", field, setting, "refused", hex] = words[..] else { continue };
        let Some(control) = unhex(hex) else { fail!("this suite has a vector that is none: {field}") };
        expect_unreadable(server, &format!("{field} {setting}"), &control)?;
        count += 1;
    }
    ensure!(count > 50, "this suite has only {count} vectors");
    server.expect_alive()
}

/// Draws a request and gives its control message.
fn draw(random: &mut Random) -> Option<Vec<u8>> {
    let seed = random.bytes(2000);
    let mut buffer = ControlBuf::new();
    memkv_wire::arbitrary::request(&mut Unstructured::new(&seed), &mut buffer).ok()?;
    Some(buffer.control().to_vec())
}

/// The server and this suite agree on which messages can be read.
fn damaged(server: &Server) -> Outcome {
    let mut random = server.random();
    let (mut session, mut closed) = (server.connect()?, 0);
    for _ in 0..600 {
        let Some(mut control) = draw(&mut random) else { continue };
        for _ in 0..1 + random.below(3) {
            let at = random.below(control.len());
            control[at] ^= 1 << random.below(8);
        }
        let decoded = Message::new(&control)
            .and_then(|message| Request::decode(&message).map(|request| request.which.opcode()));
        match decoded {
            // A Connect in a request's place is neither: it has no handler.
            Ok(0) => {}
            Ok(_) => expect_answered(&mut session, &control)?,
            Err(error) => {
                let frame = session.frame_of(5, true, &control, &[]);
                session.send_hostile(&frame.bytes());
                session.expect_closed(&format!("a damaged message ({error})"))?;
                session = server.connect()?;
                closed += 1;
            }
        }
    }
    ensure!(closed > 20, "this suite damaged only {closed} messages");
    ping(&mut session, 3)
}

/// Sends a message of one frame and expects an answer that its operation may have.
fn expect_answered(session: &mut Session, control: &[u8]) -> Outcome {
    let operation = match Message::new(control)
        .and_then(|message| Request::decode(&message).map(|request| request.which.operation()))
    {
        Ok(operation) => operation,
        Err(error) => fail!("this suite sent a message that cannot be read: {error}"),
    };
    let id = session.new_id();
    let frame = session.frame_of(id, true, control, &[]);
    session.send(&frame)?;
    session.replies(id, operation).map(drop)
}

fn drawn(server: &Server) -> Outcome {
    let mut random = server.random();
    let mut session = server.connect()?;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..800 {
        let Some(control) = draw(&mut random) else { continue };
        let decoded = Message::new(&control)
            .and_then(|message| Request::decode(&message).map(|request| request.which.opcode()));
        let Ok(opcode) = decoded else { fail!("this suite drew a message that cannot be read") };
        if opcode == 0 {
            continue;
        }
        seen.insert(opcode);
        expect_answered(&mut session, &control)?;
    }
    let missing: Vec<&str> = Operation::ALL
        .iter()
        .filter(|op| !op.setup() && !seen.contains(&op.opcode()))
        .map(|op| op.name())
        .collect();
    ensure!(missing.is_empty(), "this suite drew no {missing:?}");
    ping(&mut session, 3)
}

fn in_flight(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let max = session.answer.requests_in_flight_max.min(limits::REQUESTS_IN_FLIGHT_MAX);
    let keys = [&b"key"[..]];
    let which = RequestWhich::Exists(Exists { keys: List::from(&keys) });
    let request = Request { namespace: &[], which };
    let mut ids = Vec::new();
    for _ in 0..max {
        let id = session.new_id();
        let frame = session.frame(id, false, &request, &[]);
        session.send(&frame)?;
        ids.push(id);
    }
    // As many as it may have: it still takes the end of one, and answers it. Parts of other answers may come before.
    let frame = session.frame(ids[0], true, &request, &[]);
    session.send(&frame)?;
    loop {
        let Some(reply) = session.next_reply()? else {
            fail!("it closed with as many requests as it may have")
        };
        ensure!(ids.contains(&reply.id), "a reply has request id {}, which is not open", reply.id);
        if reply.last {
            ensure!(reply.id == ids[0], "request {} was answered before it ended", reply.id);
            break;
        }
    }
    // One has ended, so that there is room for one; the next is too many.
    for id in [session.new_id(), session.new_id()] {
        let frame = session.frame(id, false, &request, &[]);
        session.send_hostile(&frame.bytes());
        if ids.len() == max as usize {
            ids.push(id);
        }
    }
    // What was asked before may still be answered, what came too much not.
    while let Some(reply) = session.next_reply()? {
        ensure!(ids.contains(&reply.id), "a request beyond {max} in flight was answered");
    }
    server.expect_alive()
}

fn id_again(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    for id in [0, 1, u32::MAX] {
        for echo in 0..3 {
            let which = RequestWhich::Ping(Ping { echo, ..Ping::default() });
            let frame = session.frame(id, true, &Request { namespace: &[], which }, &[]);
            session.send(&frame)?;
            session.replies(id, Some(Operation::Ping))?;
        }
    }
    Ok(())
}

fn failures_pass(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let namespace = server.namespace();
    for round in 0..50 {
        expect_absent(&mut session, &namespace, format!("missing {round}").as_bytes())?;
    }
    ensure!(
        lengths(&mut session, &namespace, &[b"missing"])? == [0],
        "exists tells a length of what is missing"
    );
    store(&mut session, &namespace, b"key", b"value")?;
    expect_value(&mut session, &namespace, b"key", b"value")
}

fn ends_after_request(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, data) = (server.namespace(), server.random().bytes(1000));
    // Invalid from its first frame on: a piece that begins inside a block.
    let pieces = [piece(0, 4096, &data, None)];
    let wrong =
        RequestWhich::Write(Write { length: 9000, pieces: List::from(&pieces), ..write(b"key", &data) });
    let (id, other) = (session.new_id(), session.new_id());
    send_parts(&mut session, &namespace, id, &[Part { which: wrong, payload: &data }], false)?;
    let ping = RequestWhich::Ping(Ping::default());
    let frame = session.frame(other, true, &Request { namespace: &[], which: ping }, &[]);
    session.send(&frame)?;
    loop {
        let Some(reply) = session.next_reply()? else { fail!("it closed after a message that was invalid") };
        ensure!(!(reply.last && reply.id == id), "a message that was invalid was answered before it ended");
        if reply.id == other {
            break;
        }
    }
    let frame = session.frame(id, true, &Request { namespace: &namespace, which: wrong }, &data);
    session.send(&frame)?;
    let status = last_status(&session.replies(id, Some(Operation::Write))?)?;
    expect_status(status, Status::Invalid, "a write with a misplaced piece")?;
    expect_absent(&mut session, &namespace, b"key")
}
