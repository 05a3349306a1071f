//! Any stream, in any pieces: the frames do not depend on how their bytes arrive, nothing makes a receiver or set-up panic, and what is changed
//! anywhere stops the connection there.

mod support;

use std::time::Duration;

use memkv_transport::buf::Buf;
use memkv_transport::link::{Arrival, End, Link, LinkOptions};
use memkv_transport::receiver::{Next, Receiver};
use memkv_transport::sealer::Sealer;
use memkv_transport::session::{ConfirmationStep, ConnectStep, ReplyStep};
use memkv_transport::stream::{Outgoing, Reader, Writer};
use memkv_transport::sums::Sum;
use memkv_wire::checksum;
use memkv_wire::mac::BulkAlgorithm;
use proptest::collection::vec;
use proptest::prelude::*;
use support::*;

/// Payload sizes around every boundary the receiver has.
fn payload_size() -> impl Strategy<Value = usize> {
    prop_oneof![
        3 => 0..200usize,
        2 => 4000..4200usize,
        2 => 16_000..16_500usize,
        1 => 60_000..70_000usize,
        1 => 1_048_500..=1_048_576usize,
    ]
}

fn algorithm() -> impl Strategy<Value = BulkAlgorithm> {
    prop::sample::select(ALGORITHMS.as_slice())
}

fn payload(seed: usize, size_bytes: usize) -> Vec<u8> {
    (0..size_bytes).map(|at| (at * 13 + seed * 5 + (at >> 8)) as u8).collect()
}

/// A pipelined stream of requests, its frames' ends, and what should come out of it.
fn stream(sealer: &mut Sealer, sizes: &[usize]) -> (Vec<u8>, Vec<usize>, Vec<Received>) {
    let (mut bytes, mut ends, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    for (at, size_bytes) in sizes.iter().enumerate() {
        let payload = payload(at, *size_bytes);
        let control = request(at as u64);
        let received =
            Received { request_id: at as u32, last: true, control: control.control().to_vec(), payload };
        bytes.extend(seal(sealer, at as u32, control, &received.payload));
        ends.push(bytes.len());
        expected.push(received);
    }
    (bytes, ends, expected)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_do_not_depend_on_the_pieces(
        algorithm in algorithm(),
        sizes in vec(payload_size(), 1..8),
        pieces in vec(prop_oneof![1..100usize, 1000..20_000usize, Just(usize::MAX)], 1..20),
    ) {
        let mut pair = pair(algorithm, 1, 2);
        let (bytes, _, expected) = stream(&mut pair.client.0, &sizes);
        let mut pieces = pieces.into_iter().cycle();
        let (received, end) = receive(&mut pair.server.1, &bytes, || pieces.next().unwrap_or(1));
        prop_assert!(end.is_ok(), "{end:?}");
        prop_assert!(received == expected);
        let pool = pair.server.1.pool();
        prop_assert_eq!(pool.available_size_bytes(), pool.budget_size_bytes());
    }

    #[test]
    fn a_change_anywhere_stops_the_stream_there(
        algorithm in algorithm(),
        sizes in vec(0..5000usize, 1..5),
        place in any::<prop::sample::Index>(),
        removed in 0..200usize,
        inserted in vec(any::<u8>(), 0..200),
    ) {
        let mut pair = pair(algorithm, 1, 2);
        let (bytes, ends, expected) = stream(&mut pair.client.0, &sizes);
        let start = place.index(bytes.len());
        let end = bytes.len().min(start + removed);
        let changed = [&bytes[..start], &inserted, &bytes[end..]].concat();
        let same = changed.iter().zip(&bytes).take_while(|(changed, original)| changed == original).count();
        let intact = ends.iter().filter(|end| **end <= same).count();
        let (received, end) = receive_at_once(&mut pair.server.1, &changed);
        prop_assert!(received == expected[..intact]);
        let unharmed = changed.len() == ends.get(intact.wrapping_sub(1)).copied().unwrap_or(0);
        prop_assert_eq!(end.is_ok(), unharmed);
    }

    #[test]
    fn garbage_after_a_genuine_beginning(
        header in vec(any::<u8>(), 64),
        lengths in (0..100_000u32, 0..2_000_000u32),
        body in vec(any::<u8>(), 0..2000),
    ) {
        let mut pair = pair(BulkAlgorithm::Aegis128X2, 1, 2);
        let mut bytes = header;
        bytes[..4].copy_from_slice(b"MKV1");
        bytes[8..12].copy_from_slice(&lengths.0.to_le_bytes());
        bytes[16..20].copy_from_slice(&lengths.1.to_le_bytes());
        bytes.extend(body);
        let (received, end) = receive_at_once(&mut pair.server.1, &bytes);
        prop_assert!(received.is_empty());
        prop_assert!(end.is_err());
    }

    #[test]
    fn garbage_in_set_up(
        bytes in vec(any::<u8>(), 0..4096),
        magic in any::<bool>(),
        lengths in (0..600u32, prop_oneof![4 => Just(0u32), 1 => any::<u32>()]),
    ) {
        let mut bytes = bytes;
        if magic && bytes.len() >= 20 {
            bytes[..4].copy_from_slice(b"MKV1");
            bytes[8..12].copy_from_slice(&lengths.0.to_le_bytes());
            bytes[16..20].copy_from_slice(&lengths.1.to_le_bytes());
        }
        let server = offer(&bytes, 2);
        prop_assert!(matches!(server, Ok(ConnectStep::NeedBytes(_)) | Err(_)));
        prop_assert!(establish(begin_client(BulkAlgorithm::HmacSha256, 1), &bytes).is_err());
    }

    /// What a holder of the key signs is decoded, and may be anything.
    #[test]
    fn signed_garbage_in_set_up(control in vec(any::<u8>(), 0..500), mutations in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let genuine = begin_client(BulkAlgorithm::HmacSha256, 1);
        let mut mutated = genuine.connect()[64..].to_vec();
        for (place, byte) in mutations {
            let at = place.index(mutated.len());
            mutated[at] = byte;
        }
        let whole_words = control.len() / 8 * 8;
        for control in [&control[..whole_words], &mutated] {
            let mut header = header_of(genuine.connect());
            header.control_words = ((control.len() / 8) as u32).into();
            header.mac = key().connect_mac().tag(&[header.signed_bytes(), control]);
            let bytes = [zerocopy::IntoBytes::as_bytes(&header), control].concat();
            // Any outcome but a panic will do: a mutation may leave a valid Connect.
            let _outcome = offer(&bytes, 2);
        }
    }
}

// ---------------------------------------------------------------- over a simulated link

/// What one run of a seeded world came to.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// Requests that reached the server and replies that reached the client, in order.
    requests: usize,
    replies: usize,
    ended_at: Duration,
}

const REQUESTS: usize = 12;

fn request_payload(at: usize) -> Vec<u8> {
    payload(at, [0, 10, 5000, 70_000][at % 4])
}

/// One side of an established connection that writes what it has and takes what comes.
struct Side {
    end: End,
    sealer: Sealer,
    receiver: Receiver,
    outgoing: Vec<u8>,
    received: usize,
}

impl Side {
    /// Moves bytes both ways; `false` when the connection is over.
    fn work(&mut self, link: &mut Link, now: Duration) -> bool {
        while !self.outgoing.is_empty() {
            match link.write(self.end, now, &self.outgoing) {
                Ok(0) => break,
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(_) => return false,
            }
        }
        loop {
            match self.receiver.next_frame() {
                Ok(Next::Frame(frame)) => {
                    let at = self.received;
                    assert_eq!(frame.request_id as usize, at, "in order, each once");
                    assert_eq!(frame.payload.as_deref().unwrap_or_default(), request_payload(at));
                    self.received += 1;
                    if self.end == End::Server {
                        let reply =
                            seal(&mut self.sealer, at as u32, response(at as u64), &request_payload(at));
                        self.outgoing.extend(reply);
                    }
                }
                Ok(Next::NeedBytes) => match link.read(self.end, now, self.receiver.space()) {
                    Ok(Arrival::Bytes(count)) => self.receiver.advance(count),
                    Ok(Arrival::Nothing) => return true,
                    Ok(Arrival::Closed) | Err(_) => return false,
                },
                Ok(Next::Blocked { .. }) => panic!("the pool is large enough"),
                Err(_) => return false,
            }
        }
    }
}

fn run(seed: u64, options: LinkOptions) -> Outcome {
    let mut link = Link::new(seed, options);
    let algorithm = ALGORITHMS[seed as usize % ALGORITHMS.len()];
    let mut now = NOW;
    let Some((mut client, mut server)) = connect_over(&mut link, algorithm, &mut now) else {
        return Outcome { requests: 0, replies: 0, ended_at: now };
    };
    for at in 0..REQUESTS {
        let frame = seal(&mut client.sealer, at as u32, request(at as u64), &request_payload(at));
        client.outgoing.extend(frame);
    }
    while client.work(&mut link, now) && server.work(&mut link, now) && client.received < REQUESTS {
        let next = [End::Client, End::Server].into_iter().filter_map(|end| link.next_arrival(end, now)).min();
        match next {
            Some(next) => now = next,
            None if client.outgoing.is_empty() && server.outgoing.is_empty() => break,
            None => {}
        }
    }
    Outcome { requests: server.received, replies: client.received, ended_at: now }
}

/// Set-up over the link; `None` if a fault ended it.
fn connect_over(link: &mut Link, algorithm: BulkAlgorithm, now: &mut Duration) -> Option<(Side, Side)> {
    let mut client = begin_client(algorithm, 1);
    let sent = link.write(End::Client, *now, client.connect()).ok()?;
    assert_eq!(sent, client.connect().len());
    let mut server = begin_server();
    let mut answered = loop {
        let count = arrival(link, End::Server, now, server.space())?;
        match server.advance(count, *now, &ring(), &server_terms(), &[2; 32]).ok()? {
            ConnectStep::NeedBytes(waiting) => server = waiting,
            ConnectStep::Answered(answered) => break answered,
            ConnectStep::Refused(_) => return None,
        }
    };
    link.write(End::Server, *now, answered.reply()).ok()?;
    let established = loop {
        let count = arrival(link, End::Client, now, client.space())?;
        match client.advance(count, *now).ok()? {
            ReplyStep::NeedBytes(waiting) => client = waiting,
            ReplyStep::Established(established) => break established,
        }
    };
    link.write(End::Client, *now, &established.confirmation).ok()?;
    let mut count = 0;
    let accepted = loop {
        match answered.advance(count, *now).ok()? {
            ConfirmationStep::NeedBytes(waiting) => answered = waiting,
            ConfirmationStep::Accepted(accepted) => break accepted,
        }
        count = arrival(link, End::Server, now, answered.space())?;
    };
    let side = |end, (sealer, receiver)| Side { end, sealer, receiver, outgoing: Vec::new(), received: 0 };
    let client = side(End::Client, established.channel.split(pool()));
    Some((client, side(End::Server, accepted.channel.split(pool()))))
}

fn arrival(link: &mut Link, end: End, now: &mut Duration, space: &mut [u8]) -> Option<usize> {
    loop {
        match link.read(end, *now, space).ok()? {
            Arrival::Bytes(count) => return Some(count),
            Arrival::Closed => return None,
            Arrival::Nothing => *now = link.next_arrival(end, *now)?,
        }
    }
}

#[test]
fn a_reliable_link_carries_everything() {
    for seed in 0..50 {
        let outcome = run(seed, LinkOptions { segment_size_bytes_max: 3000, ..LinkOptions::reliable() });
        assert_eq!((outcome.requests, outcome.replies), (REQUESTS, REQUESTS), "seed {seed}");
    }
}

/// Faults of every kind: each run ends, and what came out before is what was sent.
#[test]
fn a_faulty_link_carries_a_beginning_of_everything() {
    let options = LinkOptions {
        corrupt_ppm: 3000,
        duplicate_ppm: 3000,
        cut_ppm: 3000,
        segment_size_bytes_max: 20_000,
        ..LinkOptions::reliable()
    };
    let outcomes: Vec<Outcome> = (0..200).map(|seed| run(seed, options)).collect();
    for (seed, outcome) in outcomes.iter().enumerate() {
        assert!(outcome.replies <= outcome.requests && outcome.requests <= REQUESTS, "seed {seed}");
    }
    let whole = outcomes.iter().filter(|outcome| outcome.replies == REQUESTS).count();
    assert!((10..190).contains(&whole), "{whole} of 200 runs met no fault");
    assert_eq!(run(77, options), outcomes[77], "one seed, one run");
}

/// Whoever asks for them gets the checksums of a payload's pieces with it, however its bytes came.
#[test]
fn payloads_come_with_the_checksums_of_their_pieces() {
    const SIZES: [usize; 3] = [30_000, 1, 39_999];
    fn listed(_: &[u8], sizes_bytes: &mut Vec<u32>) {
        sizes_bytes.extend(SIZES.map(|size_bytes| size_bytes as u32));
    }
    let whole = SIZES.iter().sum();
    let bytes = payload(0, whole);
    let sums: Vec<Sum> = SIZES
        .iter()
        .scan(0, |end, size_bytes| {
            *end += size_bytes;
            let checksum = checksum::block(&bytes[*end - size_bytes..*end]);
            Some(Sum { size_bytes: *size_bytes as u32, checksum })
        })
        .collect();
    for step in [1000, 4096, 29_999, 65_536, usize::MAX] {
        let mut pair = pair(ALGORITHMS[1], 1, 2);
        let receiver = &mut pair.server.1;
        receiver.sum(listed);
        // Those of the second are not in the list's sizes, and the third has no payload.
        let (stream, _, _) = stream(&mut pair.client.0, &[whole, whole - 1, 0, whole]);
        let mut stream = &stream[..];
        let mut received = Vec::new();
        while received.len() < 4 {
            match receiver.next_frame().unwrap() {
                Next::Frame(frame) => received.push((frame.payload.is_some(), frame.sums.to_vec())),
                Next::NeedBytes => {
                    let space = receiver.space();
                    let count = space.len().min(stream.len()).min(step);
                    space[..count].copy_from_slice(&stream[..count]);
                    receiver.advance(count);
                    stream = &stream[count..];
                }
                Next::Blocked { .. } => panic!("the pool is large enough"),
            }
        }
        assert_eq!(received[0], (true, sums.clone()), "by {step}");
        assert_eq!(received[1..3], [(true, Vec::new()), (false, Vec::new())], "by {step}");
        assert_eq!(received[3].1.len(), 3, "by {step}");
    }
}

/// A small frame goes before large ones of other messages that were not begun, and never before one of its own.
#[tokio::test]
async fn small_frames_overtake_large_ones() {
    let pair = pair(ALGORITHMS[1], 1, 2);
    let (near, far) = tokio::io::duplex(1 << 16);
    let mut writer = Writer::new(near, pair.server.0);
    let mut reader = Reader::new(far, pair.client.1);
    let large = Buf::copy_of(&vec![7; 1 << 20]).unwrap();
    let push = |writer: &mut Writer<_>, request_id: u32, parts: &[Buf]| {
        let frame = Outgoing {
            request_id,
            last: true,
            control: response(1),
            payload: parts.to_vec(),
            ..Outgoing::default()
        };
        writer.push(frame).unwrap();
    };
    for request_id in [1, 2, 3] {
        push(&mut writer, request_id, std::slice::from_ref(&large));
    }
    push(&mut writer, 10, &[]);
    push(&mut writer, 2, &[]);
    push(&mut writer, 11, &[]);
    let mut order = Vec::new();
    let receive = async {
        while order.len() < 6 {
            order.push(reader.next().await.unwrap().unwrap().request_id);
        }
    };
    let (sent, ()) = tokio::join!(writer.flush(), receive);
    sent.unwrap();
    assert_eq!(order, [10, 11, 1, 2, 2, 3]);
    assert_eq!(writer.take_written().frames, 6);
    // However many small ones come, a large one has its turn.
    push(&mut writer, 1, std::slice::from_ref(&large));
    (0..100).for_each(|at| push(&mut writer, 100 + at, &[]));
    let mut place = 0;
    let receive = async {
        while reader.next().await.unwrap().unwrap().request_id != 1 {
            place += 1;
        }
        for _ in place..100 {
            reader.next().await.unwrap();
        }
    };
    let (sent, ()) = tokio::join!(writer.flush(), receive);
    sent.unwrap();
    assert_eq!(place, 64);
}
