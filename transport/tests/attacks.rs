//! What somebody on the wire can do to a connection: change, repeat, leave out, move, reflect, cut, invent. Nothing of it may ever come out
//! of a receiver as a frame, or out of set-up as a connection.

mod support;

use std::time::Duration;

use memkv_transport::error::{Fault, FrameError, SetupError, TransportError};
use memkv_transport::receiver::Receiver;
use memkv_transport::session::{
    AwaitConnect, ConfirmationStep, ConnectStep, ReplyStep, SETUP_TIMEOUT, SetupGate,
};
use memkv_wire::frame::{Extent, ExtentError, Flags, Header, Kind};
use memkv_wire::mac::{BulkAlgorithm, Direction, Key, KeyRing, Schedule};
use memkv_wire::{
    BulkMac, ConnectReply, ConnectReplyWhich, ControlBuf, Response, ResponseWhich, Status, limits,
};
use support::*;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

fn frame_error(error: TransportError) -> FrameError {
    match error {
        TransportError::Frame(error) => error,
        other => panic!("{other}"),
    }
}

// ---------------------------------------------------------------- every single bit

/// Everything both sides send in one connection, and where each frame begins.
struct Recording {
    up: Vec<Vec<u8>>,
    down: Vec<Vec<u8>>,
}

fn record(algorithm: BulkAlgorithm) -> Recording {
    let mut pair = pair(algorithm, 1, 2);
    let payload: Vec<u8> = (0..77).map(|at| at * 3).collect();
    Recording {
        up: vec![
            pair.connect,
            pair.confirmation,
            seal(&mut pair.client.0, 1, request(3), &payload),
            seal(&mut pair.client.0, 2, request(4), &[]),
        ],
        down: vec![
            pair.reply,
            seal(&mut pair.server.0, 1, response(3), &[]),
            seal(&mut pair.server.0, 2, response(4), &payload),
        ],
    }
}

/// How many frames a server accepts of this stream; the first two are Connect and confirmation. It is given all at once: a recording can
/// hold the confirmation of an answer that is yet to be made, for the nonces are the same.
fn accepted_by_server(stream: &[u8]) -> usize {
    let Ok(ConnectStep::Answered(server)) = offer(stream, 2) else { return 0 };
    let Ok(ConfirmationStep::Accepted(accepted)) = server.advance(0, NOW) else { return 1 };
    let (_, mut receiver) = accepted.channel.split(pool());
    2 + receive_at_once(&mut receiver, &[]).0.len()
}

/// How many frames a client accepts of this stream; the first one is the reply to Connect.
fn accepted_by_client(algorithm: BulkAlgorithm, stream: &[u8]) -> usize {
    let mut client = begin_client(algorithm, 1);
    let size = put(client.space(), stream);
    let Ok(ReplyStep::Established(established)) = client.advance(size, NOW) else { return 0 };
    let (_, mut receiver) = established.channel.split(pool());
    1 + receive_at_once(&mut receiver, &[]).0.len()
}

fn flip_every_bit(frames: &[Vec<u8>], accepted: impl Fn(&[u8]) -> usize) {
    let mut stream = frames.concat();
    assert_eq!(accepted(&stream), frames.len(), "unchanged, all are accepted");
    let mut at = 0;
    for (index, frame) in frames.iter().enumerate() {
        for bit in 0..frame.len() * 8 {
            stream[at + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(accepted(&stream), index, "bit {bit} of frame {index}");
            stream[at + bit / 8] ^= 1 << (bit % 8);
        }
        at += frame.len();
    }
}

//= MKV-FRAME-5 test
//= MKV-FRAME-6 test
//= MKV-CONN-1 test
#[test]
fn every_bit_to_the_server_counts_hmac() {
    flip_every_bit(&record(BulkAlgorithm::HmacSha256).up, accepted_by_server);
}

#[test]
fn every_bit_to_the_server_counts_aegis() {
    for algorithm in [BulkAlgorithm::Aegis128X2, BulkAlgorithm::Aegis128X4] {
        flip_every_bit(&record(algorithm).up, accepted_by_server);
    }
}

#[test]
fn every_bit_to_the_client_counts_hmac() {
    let algorithm = BulkAlgorithm::HmacSha256;
    flip_every_bit(&record(algorithm).down, |stream| accepted_by_client(algorithm, stream));
}

#[test]
fn every_bit_to_the_client_counts_aegis() {
    for algorithm in [BulkAlgorithm::Aegis128X2, BulkAlgorithm::Aegis128X4] {
        flip_every_bit(&record(algorithm).down, |stream| accepted_by_client(algorithm, stream));
    }
}

#[test]
fn a_stream_that_ends_anywhere_yields_only_whole_frames() {
    for algorithm in ALGORITHMS {
        let recording = record(algorithm);
        for (frames, accepted) in [
            (&recording.up, &accepted_by_server as &dyn Fn(&[u8]) -> usize),
            (&recording.down, &|stream: &[u8]| accepted_by_client(algorithm, stream)),
        ] {
            let stream = frames.concat();
            let ends: Vec<usize> = frames
                .iter()
                .scan(0, |end, frame| {
                    *end += frame.len();
                    Some(*end)
                })
                .collect();
            for size in 0..=stream.len() {
                let whole = ends.iter().filter(|end| **end <= size).count();
                assert_eq!(accepted(&stream[..size]), whole, "{size} bytes");
            }
        }
    }
}

// ---------------------------------------------------------------- whole frames, moved about

/// Frames with and without payload from the client, and the receiver they are meant for.
fn three_requests(algorithm: BulkAlgorithm) -> ([Vec<u8>; 3], Pair) {
    let mut pair = pair(algorithm, 1, 2);
    let frames = [1, 2, 3].map(|id| seal(&mut pair.client.0, id, request(id.into()), &[id as u8; 100]));
    (frames, pair)
}

//= MKV-CONN-3 test
#[test]
fn replayed_left_out_and_reordered_frames_are_refused() {
    for algorithm in ALGORITHMS {
        for (order, accepted, found, expected) in [
            (&[0, 0][..], 1, 2, 3),
            (&[0, 1, 0], 2, 2, 4),
            (&[1], 0, 3, 2),
            (&[0, 2], 1, 4, 3),
            (&[1, 0, 2], 0, 3, 2),
        ] {
            let (frames, mut pair) = three_requests(algorithm);
            let stream: Vec<u8> = order.iter().flat_map(|at| frames[*at].clone()).collect();
            let (received, end) = receive_at_once(&mut pair.server.1, &stream);
            assert_eq!(received.len(), accepted, "{order:?}");
            assert_eq!(frame_error(end.unwrap_err()), FrameError::Sequence { found, expected }, "{order:?}");
        }
    }
}

#[test]
fn reflected_frames_are_refused() {
    for algorithm in ALGORITHMS {
        let (frames, mut pair) = three_requests(algorithm);
        let (received, end) = receive_at_once(&mut pair.client.1, &frames[0]);
        assert!(received.is_empty());
        assert_eq!(frame_error(end.unwrap_err()), FrameError::ControlMac);
        // The hello frames too: a client's Connect is no reply, its confirmation no first response.
        let client = begin_client(algorithm, 1);
        let connect = client.connect().to_vec();
        assert!(matches!(establish(client, &connect), Err(SetupError::AnswerMac { .. })));
        let (received, end) = receive_at_once(&mut pair.server.1, &pair.confirmation);
        assert!(received.is_empty());
        assert_eq!(
            frame_error(end.unwrap_err()),
            FrameError::Kind { found: Kind::Hello, expected: Kind::Request },
            "no hello frame comes later"
        );
    }
}

#[test]
fn frames_of_another_connection_are_refused() {
    for algorithm in ALGORITHMS {
        for (client_nonce, server_nonce) in [(9, 2), (1, 9)] {
            let (frames, _) = three_requests(algorithm);
            let mut other = pair(algorithm, client_nonce, server_nonce);
            let (received, end) = receive_at_once(&mut other.server.1, &frames[0]);
            assert!(received.is_empty());
            assert_eq!(frame_error(end.unwrap_err()), FrameError::ControlMac);
        }
    }
}

#[test]
fn a_payload_belongs_to_its_frame() {
    for algorithm in ALGORITHMS {
        let (frames, mut pair) = three_requests(algorithm);
        let head_size = frames[0].len() - 132;
        let mixed = [&frames[0][..head_size], &frames[1][head_size..]].concat();
        let (received, end) = receive_at_once(&mut pair.server.1, &mixed);
        assert!(received.is_empty());
        assert_eq!(frame_error(end.unwrap_err()), FrameError::PayloadTag);
    }
}

#[test]
fn a_replayed_connect_leads_nowhere() {
    let recorded = pair(BulkAlgorithm::HmacSha256, 1, 2);
    // The server answers, for the Connect is genuine, but with another nonce.
    let mut server = answer(&recorded.connect, 3);
    let size = put(server.space(), &recorded.confirmation);
    assert_eq!(server.advance(size, NOW).unwrap_err(), SetupError::Frame(FrameError::ControlMac));
    // And a replayed answer does not fit a client's new nonce.
    let client = begin_client(BulkAlgorithm::HmacSha256, 9);
    assert!(matches!(establish(client, &recorded.reply), Err(SetupError::AnswerMac { .. })));
}

// ---------------------------------------------------------------- keys

//= MKV-CONN-4 test
#[test]
fn unknown_and_wrong_keys_are_told_apart() {
    let other = Key::from_bytes([6; 32]);
    let client = begin_client(BulkAlgorithm::HmacSha256, 1);
    let mut connect = client.connect().to_vec();
    let mut server = begin_server();
    let size = put(server.space(), &connect);
    let step = server.advance(size, NOW, &KeyRing::from(other.clone()), &server_terms(), &[2; 32]);
    let error = step.unwrap_err();
    assert_eq!(error, SetupError::UnknownKey { key_id: key().id() });
    assert_eq!(error.fault(), Fault::Configuration);

    connect[12..16].copy_from_slice(&other.id().0.to_le_bytes());
    let mut server = begin_server();
    let size = put(server.space(), &connect);
    let step = server.advance(size, NOW, &KeyRing::from(other.clone()), &server_terms(), &[2; 32]);
    assert_eq!(step.unwrap_err(), SetupError::ConnectMac { key_id: other.id() });

    assert_eq!(client.close(), SetupError::NoAnswer { key_id: key().id() });
}

// ---------------------------------------------------------------- frames that were signed, and are wrong all the same

/// A frame as only a holder of the keys can make it.
fn forge(schedule: &Schedule, control: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let extent = Extent { control_size_bytes: control.len(), payload_size_bytes: 0 };
    let mut header = Header::new(Kind::Request, Flags::new(true), 1, extent, 2);
    change(&mut header);
    let mac = schedule.control_mac(Direction::ClientToServer);
    header.mac = mac.tag(&[header.signed_bytes(), control]);
    [header.as_bytes(), control].concat()
}

fn refused(change: impl FnOnce(&mut Header)) -> FrameError {
    let mut pair = pair(BulkAlgorithm::HmacSha256, 1, 2);
    let frame = forge(&pair.schedule, request(1).control(), change);
    let (received, end) = receive_at_once(&mut pair.server.1, &frame);
    assert!(received.is_empty());
    frame_error(end.unwrap_err())
}

//= MKV-FRAME-2 test
//= MKV-FRAME-3 test
//= MKV-FRAME-4 test
//= MKV-FRAME-8 test
//= MKV-CONN-10 test
#[test]
fn signed_frames_that_break_the_rules_are_refused() {
    assert_eq!(refused(|header| header.magic = U32::new(1)), FrameError::Magic { found: 1 });
    assert_eq!(refused(|header| header.version = 2), FrameError::Version { found: 2, agreed: 1 });
    assert_eq!(refused(|header| header.credits = U32::new(1)), FrameError::Credits { credits: 1 });
    assert_eq!(
        refused(|header| header.sequence = U64::new(3)),
        FrameError::Sequence { found: 3, expected: 2 }
    );
    for code in (0..=255).filter(|code| *code != Kind::Request.code()) {
        let (found, expected) = (Kind::from_code(code), Kind::Request);
        assert_eq!(refused(|header| header.kind = code), FrameError::Kind { found, expected });
    }
    // The MAC comes before the version: a frame of another version that is not signed is refused for its MAC.
    let mut pair = pair(BulkAlgorithm::HmacSha256, 1, 2);
    let mut unsigned = forge(&pair.schedule, request(1).control(), |_| ());
    unsigned[4] = 2;
    let (_, end) = receive_at_once(&mut pair.server.1, &unsigned);
    assert_eq!(frame_error(end.unwrap_err()), FrameError::ControlMac);
}

//= MKV-FRAME-7 test
#[test]
fn unknown_flags_are_ignored() {
    let mut pair = pair(BulkAlgorithm::HmacSha256, 1, 2);
    let frame = forge(&pair.schedule, request(1).control(), |header| header.flags = 0xfffe.into());
    let (received, end) = receive_at_once(&mut pair.server.1, &frame);
    assert!(!received[0].last);
    assert!(end.is_ok());
}

#[test]
fn a_frame_has_a_control_message() {
    let mut pair = pair(BulkAlgorithm::HmacSha256, 1, 2);
    let frame = forge(&pair.schedule, &[], |_| ());
    let (_, end) = receive_at_once(&mut pair.server.1, &frame);
    assert_eq!(frame_error(end.unwrap_err()), FrameError::NoControl);
}

//= MKV-LIM-1 test
#[test]
fn absurd_lengths_reserve_nothing() {
    for words in [32_769, 1 << 20, u32::MAX] {
        let refused = refused_before_its_body(|header| header.control_words = U32::new(words));
        assert_eq!(refused, FrameError::Extent(ExtentError::ControlTooLong { words }));
    }
    for size_bytes in [1_048_577, 1 << 30, u32::MAX] {
        let refused = refused_before_its_body(|header| header.payload_length = U32::new(size_bytes));
        assert_eq!(refused, FrameError::Extent(ExtentError::PayloadTooLong { size_bytes }));
    }
}

/// The error for a header alone. The receiver's pool must not have been asked for anything.
fn refused_before_its_body(change: impl FnOnce(&mut Header)) -> FrameError {
    let mut pair = pair(BulkAlgorithm::HmacSha256, 1, 2);
    let header = forge(&pair.schedule, request(1).control(), change)[..64].to_vec();
    let receiver: &mut Receiver = &mut pair.server.1;
    let (_, end) = receive_at_once(receiver, &header);
    assert_eq!(receiver.pool().resident_size_bytes(), 0);
    assert!(receiver.space().is_empty(), "nothing is read on");
    frame_error(end.unwrap_err())
}

/// A payload's memory is not taken before the head that announces it was verified.
#[test]
fn an_unsigned_head_gets_no_payload_memory() {
    let mut pair = pair(BulkAlgorithm::Aegis128X2, 1, 2);
    let mut frame = seal(&mut pair.client.0, 1, request(1), &[1; 1000]);
    frame[18] ^= 8;
    let (_, end) = receive_at_once(&mut pair.server.1, &frame);
    assert_eq!(frame_error(end.unwrap_err()), FrameError::ControlMac);
    assert_eq!(pair.server.1.pool().resident_size_bytes(), 0);
}

// ---------------------------------------------------------------- versions and terms

/// A hello frame of any version, signed with the shared key.
fn connect_of_version(version: u8) -> (Vec<u8>, Vec<u8>) {
    let client = begin_client(BulkAlgorithm::HmacSha256, 1);
    let control = client.connect()[64..].to_vec();
    let mut header = header_of(client.connect());
    header.version = version;
    header.mac = key().connect_mac().tag(&[header.signed_bytes(), &control]);
    ([header.as_bytes(), &control].concat(), control)
}

//= MKV-CONN-9 test
#[test]
fn a_newer_client_is_told_so_under_the_key() {
    for version in [0, 2, 255] {
        let (connect, control) = connect_of_version(version);
        let ConnectStep::Refused(refusal) = offer(&connect, 2).unwrap() else { panic!("version {version}") };
        assert_eq!(refusal.error(), SetupError::ClientVersion { client: version, own: 1 });
        let reply = refusal.reply();
        assert_eq!(header_of(reply).version, 1, "the server's own version");
        let schedule = Schedule::new(&key(), &control, &reply[64..], 1);
        let mac = schedule.control_mac(Direction::ServerToClient);
        assert_eq!(mac.verify(&[&reply[..32], &reply[64..]], &header_of(reply).mac), Ok(()));
        let message = memkv_wire::Message::new(&reply[64..]).unwrap();
        let response = Response::decode(&message).unwrap();
        assert_eq!(response.status, Status::UnsupportedVersion);
        let ResponseWhich::Connect(answer) = response.which else { panic!("no reply to Connect") };
        assert_eq!(answer.client_nonce, &[1; 32]);
    }
    let (mut unsigned, _) = connect_of_version(2);
    unsigned[40] ^= 1;
    assert_eq!(offer(&unsigned, 2).unwrap_err(), SetupError::ConnectMac { key_id: key().id() });
}

/// A reply as only a holder of the key can make it.
fn reply_to(connect: &[u8], version: u8, change: impl FnOnce(&mut Response<'_>)) -> Vec<u8> {
    let which = ResponseWhich::Connect(ConnectReply {
        client_nonce: &[1; 32],
        server_nonce: &[2; 32],
        server_id: &[3; 16],
        bulk_mac: BulkMac::HmacSha256,
        version_min: version,
        version_max: version,
        requests_in_flight_max: 1,
        lease_ms: 1,
        server_name: "",
        local_path: "",
        queue_pairs: false,
        which: ConnectReplyWhich::Stream,
    });
    let mut response = Response { status: Status::Ok, retry_after_ms: 0, detail: "", which };
    change(&mut response);
    let mut control = ControlBuf::new();
    response.encode(&mut control).unwrap();
    let control = control.control();
    let extent = Extent { control_size_bytes: control.len(), payload_size_bytes: 0 };
    let mut header = Header::new(Kind::Hello, Flags::new(true), key().id().0, extent, 0);
    header.version = version;
    let schedule = Schedule::new(&key(), &connect[64..], control, version);
    header.mac = schedule.control_mac(Direction::ServerToClient).tag(&[header.signed_bytes(), control]);
    [header.as_bytes(), control].concat()
}

fn client_makes_of(version: u8, change: impl FnOnce(&mut Response<'_>)) -> Option<SetupError> {
    let client = begin_client(BulkAlgorithm::HmacSha256, 1);
    let reply = reply_to(client.connect(), version, change);
    establish(client, &reply).err()
}

fn connect_reply<'a, 'b>(response: &'b mut Response<'a>) -> &'b mut ConnectReply<'a> {
    match &mut response.which {
        ResponseWhich::Connect(reply) => reply,
        other => panic!("{other:?}"),
    }
}

//= MKV-CONN-8 test
//= MKV-CONN-9 test
#[test]
fn a_client_checks_every_term_of_the_reply() {
    assert_eq!(client_makes_of(1, |_| ()), None);
    let newer = Some(SetupError::UnsupportedVersion { own: 1, server_min: 7, server_max: 7 });
    assert_eq!(client_makes_of(7, |response| response.status = Status::UnsupportedVersion), newer);
    assert_eq!(client_makes_of(7, |_| ()), newer);
    let busy = Some(SetupError::Refused { status: Status::Busy });
    assert_eq!(client_makes_of(1, |response| response.status = Status::Busy), busy);
    assert_eq!(
        client_makes_of(1, |response| connect_reply(response).client_nonce = &[8; 32]),
        Some(SetupError::Nonce)
    );
    for (mac, code) in [(BulkMac::Aegis128x2, 1), (BulkMac::Unknown(77), 77)] {
        let made = client_makes_of(1, |response| connect_reply(response).bulk_mac = mac);
        assert_eq!(made, Some(SetupError::BulkMac { code }), "it was not offered");
    }
    let other_arm = client_makes_of(1, |response| response.which = ResponseWhich::Ping(Default::default()));
    assert_eq!(other_arm, Some(SetupError::UnexpectedHello { expected: "reply to Connect" }));
}

//= MKV-CONN-7 test
#[test]
fn the_server_picks_the_first_it_speaks() {
    let choice = |offered: &[BulkAlgorithm], spoken: &[BulkAlgorithm]| {
        let mut terms = client_terms(BulkAlgorithm::HmacSha256);
        terms.bulk_macs = offered.to_vec();
        let client = memkv_transport::session::AwaitReply::begin(&key(), &terms, [1; 32], NOW).unwrap();
        let mut server = begin_server();
        let size = put(server.space(), client.connect());
        let mut terms = server_terms();
        terms.bulk_macs = spoken.to_vec();
        match server.advance(size, NOW, &ring(), &terms, &[2; 32]) {
            Ok(ConnectStep::Answered(server)) => {
                Ok(establish(client, server.reply()).unwrap().server.bulk_mac)
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        }
    };
    let [hmac, aegis, wide] = ALGORITHMS;
    assert_eq!(choice(&[wide, aegis, hmac], &[hmac, aegis, wide]), Ok(wide));
    assert_eq!(choice(&[wide, aegis, hmac], &[hmac, aegis]), Ok(aegis));
    assert_eq!(choice(&[aegis, hmac], &[hmac, aegis]), Ok(aegis));
    assert_eq!(choice(&[hmac, aegis], &[aegis, hmac]), Ok(hmac));
    assert_eq!(choice(&[aegis, hmac], &[hmac]), Ok(hmac));
    assert_eq!(choice(&[aegis], &[hmac]), Err(SetupError::NoCommonBulkMac));
}

// ---------------------------------------------------------------- what a stranger can make a server hold

//= MKV-CONN-5 test
#[test]
fn a_stranger_gets_4_kib_and_no_more() {
    let mut server = begin_server();
    let connect = begin_client(BulkAlgorithm::HmacSha256, 1).connect().to_vec();
    let mut given = 0;
    // The whole room is used up by a Connect that never ends: a genuine one, its length changed.
    let mut long = vec![0; limits::HELLO_SIZE_BYTES_MAX as usize];
    long[..connect.len()].copy_from_slice(&connect);
    long[8..12].copy_from_slice(&((limits::HELLO_SIZE_BYTES_MAX - 64) / 8).to_le_bytes());
    loop {
        let space = server.space();
        assert!(given + space.len() <= limits::HELLO_SIZE_BYTES_MAX as usize);
        let size = space.len().min(100);
        space[..size].copy_from_slice(&long[given..][..size]);
        given += size;
        match server.advance(size, NOW, &ring(), &server_terms(), &[2; 32]) {
            Ok(ConnectStep::NeedBytes(waiting)) => server = waiting,
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert_eq!(error, SetupError::ConnectMac { key_id: key().id() });
                assert_eq!(given, long.len());
                break;
            }
        }
    }
    // One that announces more is refused at its header.
    long[8..12].copy_from_slice(&((limits::HELLO_SIZE_BYTES_MAX - 64) / 8 + 1).to_le_bytes());
    assert_eq!(offer(&long[..64], 2).unwrap_err(), SetupError::HelloTooLong { size_bytes: 4104 });
    let mut with_payload = connect;
    with_payload[16] = 1;
    assert!(matches!(offer(&with_payload[..64], 2).unwrap_err(), SetupError::HelloTooLong { .. }));
}

//= MKV-CONN-5 test
#[test]
fn a_stranger_gets_no_more_than_its_time() {
    let late = NOW + SETUP_TIMEOUT;
    let just_in_time = late - Duration::from_nanos(1);
    let client = begin_client(BulkAlgorithm::HmacSha256, 1);
    let connect = client.connect().to_vec();
    for (now, in_time) in [(just_in_time, true), (late, false)] {
        let mut server = begin_server();
        let size = put(server.space(), &connect);
        let step = server.advance(size, now, &ring(), &server_terms(), &[2; 32]);
        assert_eq!(step.is_ok(), in_time);
        if let Err(error) = step {
            assert_eq!(error, SetupError::TimedOut);
        }
    }
    let mut server = answer(&connect, 2);
    assert_eq!(server.deadline(), late);
    let reply = server.reply().to_vec();
    let size = put(server.space(), &establish(client, &reply).unwrap().confirmation);
    assert_eq!(server.advance(size, late).unwrap_err(), SetupError::TimedOut);
    let mut client = begin_client(BulkAlgorithm::HmacSha256, 1);
    let size = put(client.space(), &reply);
    assert_eq!(client.advance(size, late).unwrap_err(), SetupError::TimedOut);
}

//= MKV-CONN-5 test
#[test]
fn connections_in_set_up_are_counted_until_they_confirm() {
    let gate = SetupGate::new(u32::MAX);
    let permits: Vec<_> = (0..limits::SETUP_CONNECTIONS_MAX).map(|_| gate.enter().unwrap()).collect();
    let connections_max = limits::SETUP_CONNECTIONS_MAX;
    assert_eq!(gate.enter().unwrap_err(), SetupError::TooManyConnections { connections_max });
    drop(permits);
    assert_eq!(gate.connections(), 0);

    let client = begin_client(BulkAlgorithm::HmacSha256, 1);
    let mut server = AwaitConnect::begin(gate.enter().unwrap(), NOW);
    let size = put(server.space(), client.connect());
    let step = server.advance(size, NOW, &ring(), &server_terms(), &[2; 32]).unwrap();
    let ConnectStep::Answered(mut server) = step else { panic!("{step:?}") };
    assert_eq!(gate.connections(), 1, "a Connect may be a replay, so it still counts");
    let client = establish(client, server.reply()).unwrap();
    let size = put(server.space(), &client.confirmation);
    let ConfirmationStep::Accepted(_accepted) = server.advance(size, NOW).unwrap() else {
        panic!("not accepted")
    };
    assert_eq!(gate.connections(), 0);

    drop(AwaitConnect::begin(gate.enter().unwrap(), NOW));
    assert_eq!(gate.connections(), 0, "and one that is given up counts no more");
}

//= MKV-CONN-10 test
#[test]
fn nothing_comes_before_the_confirmation() {
    let client = begin_client(BulkAlgorithm::HmacSha256, 1);
    let mut server = answer(client.connect(), 2);
    let client = establish(client, server.reply()).unwrap();
    let (mut sealer, _) = client.channel.split(pool());
    let size = put(server.space(), &seal(&mut sealer, 1, request(1), &[]));
    assert_eq!(server.advance(size, NOW).unwrap_err(), SetupError::NoConfirmation);

    // A client's confirmation may be followed by requests in the same segment.
    let mut pair = pair(BulkAlgorithm::HmacSha256, 1, 2);
    let mut server = answer(&pair.connect, 2);
    let frames = [pair.confirmation, seal(&mut pair.client.0, 1, request(1), &[5; 300])].concat();
    let size = put(server.space(), &frames);
    let ConfirmationStep::Accepted(accepted) = server.advance(size, NOW).unwrap() else {
        panic!("not accepted")
    };
    let (_, mut receiver) = accepted.channel.split(pool());
    let (received, end) = receive_at_once(&mut receiver, &[]);
    assert!(end.is_ok());
    assert_eq!(received[0].payload, [5; 300]);
}
