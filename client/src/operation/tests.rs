//! Operations against a server in memory: what is written is read back, whatever the sizes; what a server must not say is
//! refused.

use std::sync::Arc;

use memkv_transport::buf::{Buf, BufPool};
use memkv_transport::shared::SharedMemory;
use memkv_transport::verify::{Checker, Verify};
use memkv_wire::mac::{BulkAlgorithm, Direction, Key, Schedule};
use memkv_wire::{
    BatchReadReply, ExistsReply, List, Piece, PieceWhich, PutManifestReply, ReadReply, ReadResult, Region,
    ResponseWhich, WriteResult, checksum, limits,
};
use proptest::prelude::*;

use super::keys::{KeysOperation, KeysReplies, keys};
use super::manifest::{
    GetManifestReplies, Published, PutManifestReplies, Reference, get_manifest, put_manifest,
};
use super::read::{Collected, One, ReadRange, ReadReplies, ReadStatus, Slices, Value, batch_read, read};
use super::write::{BatchWriteReplies, PutItem, WritePlace, batch_write, write};
use super::*;
use crate::batch::Each;
use crate::core::Message;
use crate::error::Error;
use crate::testing::{FakeServer, TestFrame, buf, response};

fn built(build: impl FnOnce(&mut Message) -> Result<(), Error>) -> Message {
    let mut message = Message::empty();
    build(&mut message).expect("a message");
    message
}

fn frames(message: &Message) -> Vec<TestFrame> {
    let count = message.frames().len();
    let frame = |(place, frame): (usize, &crate::core::RequestFrame)| {
        let payload: Vec<u8> = frame.payload.iter().flat_map(|part| part.iter().copied()).collect();
        assert!(payload.len() <= PAYLOAD_SIZE_BYTES_MAX);
        assert!(frame.control.control().len() <= limits::CONTROL_SIZE_BYTES_MAX as usize);
        TestFrame {
            control: frame.control.control().to_vec(),
            payload: (!payload.is_empty()).then(|| buf(&payload)),
            last: place + 1 == count,
        }
    };
    message.frames().iter().enumerate().map(frame).collect()
}

fn ask(server: &mut FakeServer, build: impl FnOnce(&mut Message) -> Result<(), Error>) -> Vec<Reply> {
    let answers = server.answer(&frames(&built(build)));
    answers.into_iter().map(|frame| Reply::new(frame.control, frame.payload)).collect()
}

/// Bytes that tell their place.
fn pattern(size_bytes: usize, seed: u8) -> Vec<u8> {
    (0..size_bytes)
        .map(|i| (i as u8) ^ ((i >> 8) as u8).wrapping_mul(31) ^ ((i >> 16) as u8) ^ seed)
        .collect()
}

/// A value in parts that are cut at these places.
fn parts(value: &[u8], cuts: &[prop::sample::Index]) -> Vec<Buf> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(value.len() + 1)).collect();
    places.extend([0, value.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| buf(&value[pair[0]..pair[1]])).collect()
}

fn write_all(server: &mut FakeServer, items: &[PutItem<'_>]) -> Vec<Result<(), StorageError>> {
    let mut replies = BatchWriteReplies::new(items.len());
    for reply in ask(server, |message| batch_write(message, b"ns", items)) {
        replies.frame(&reply).expect("a reply that holds");
    }
    replies.finish().expect("a whole reply")
}

fn sizes() -> impl Strategy<Value = usize> {
    let mib = 1 << 20;
    prop_oneof![
        6 => 1usize..5_000,
        2 => Just(mib), 1 => Just(mib - 1), 1 => Just(mib + 1), 1 => Just(2 * mib),
        1 => mib..3 * mib,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    //= MKV-BATCH-2 test
    //= MKV-VAL-2 test
    #[test]
    fn batches_come_back_as_they_were_written(
        values in prop::collection::vec((sizes(), prop::collection::vec(any::<prop::sample::Index>(), 0..4)), 1..12),
    ) {
        let mut server = FakeServer::new();
        let keys: Vec<_> = (0..values.len()).map(|i| format!("key {i}").into_bytes()).collect();
        let values: Vec<_> = values.iter().enumerate().map(|(i, (size, cuts))| {
            let bytes = pattern(*size, i as u8);
            let parts = parts(&bytes, cuts);
            (bytes, parts)
        }).collect();
        let items: Vec<_> = keys.iter().zip(&values).map(|(key, (_, parts))| PutItem::new(key, parts)).collect();
        prop_assert!(write_all(&mut server, &items).iter().all(Result::is_ok));
        for (key, (bytes, _)) in keys.iter().zip(&values) {
            prop_assert!(server.values[key] == *bytes);
        }
        let ranges: Vec<_> = keys.iter().map(|key| ReadRange::whole(key)).collect();
        let mut replies = ReadReplies::new(&ranges);
        let mut collected = Collected::new(ranges.len());
        for reply in ask(&mut server, |message| batch_read(message, b"ns", &ranges)) {
            replies.frame(&reply, &mut collected).expect("a reply that holds");
        }
        let statuses = replies.finish().expect("a whole reply");
        for ((status, value), (bytes, _)) in statuses.iter().zip(collected.values).zip(&values) {
            let size_bytes = bytes.len() as u64;
            let checksum = Some(checksum::value_of(bytes));
            prop_assert_eq!(status, &ReadStatus::Read { size_bytes, value_size_bytes: size_bytes, checksum });
            prop_assert!(value.sorted().to_vec() == *bytes);
        }
        // Handed out one by one, early or at the end.
        let mut handed_out: Vec<Option<Vec<u8>>> = vec![None; ranges.len()];
        let mut each = Each::new(ranges.len(), |item: usize, value: Value| {
            assert!(handed_out[item].replace(value.to_vec()).is_none(), "each once");
        });
        let mut replies = ReadReplies::new(&ranges);
        for reply in ask(&mut server, |message| batch_read(message, b"ns", &ranges)) {
            replies.frame(&reply, &mut each).expect("a reply that holds");
        }
        (0..ranges.len()).for_each(|item| each.finish(item));
        drop(each);
        for (value, (bytes, _)) in handed_out.iter().zip(&values) {
            prop_assert!(value.as_ref() == Some(bytes));
        }
    }

    //= MKV-RD-1 test
    #[test]
    fn a_range_is_the_range(size in sizes(), offset in 0u64..4_000_000, length in 0u64..4_000_000) {
        let mut server = FakeServer::new();
        let bytes = pattern(size, 3);
        server.values.insert(b"key".to_vec(), bytes.clone());
        let offset = offset % size as u64;
        let range = ReadRange { key: b"key", offset, length };
        let end = if length == 0 { size } else { size.min((offset + length) as usize) };
        let expected = &bytes[offset as usize..end];
        let mut replies = ReadReplies::new(&[range]);
        let mut buffer = vec![0; expected.len()];
        for reply in ask(&mut server, |message| read(message, b"ns", range)) {
            replies.frame(&reply, &mut Slices { buffers: &mut [&mut buffer] }).expect("a reply that holds");
        }
        let (size_bytes, value_size_bytes) = (expected.len() as u64, size as u64);
        let read =
            ReadStatus::Read { size_bytes, value_size_bytes, checksum: Some(checksum::value_of(&bytes)) };
        prop_assert_eq!(replies.finish().expect("a whole reply").into_vec(), vec![read]);
        prop_assert!(buffer == expected);
    }

    #[test]
    fn manifests_come_back_as_they_were_put(size in prop_oneof![Just(0), sizes()], reply_size in 1_000usize..1 << 20) {
        let mut server = FakeServer::new();
        server.reply_payload_size_bytes = reply_size;
        let body = pattern(size, 9);
        let published = publish(&mut server, &[], &body);
        prop_assert_eq!(published, Published::Committed { generation: 1, lease_ms: 10_000 });
        let mut replies = GetManifestReplies::default();
        for reply in ask(&mut server, |message| get_manifest(message, b"ns", b"name", 0)) {
            replies.frame(&reply).expect("a reply that holds");
        }
        let stored = replies.finish().expect("a whole reply").expect("a manifest");
        prop_assert!(stored.body.to_vec() == body);
    }

    /// However long the keys are, every frame stays within its limits.
    #[test]
    fn frames_fit_for_any_keys(count in 1usize..4096, size in 4usize..=512) {
        let keys_owned: Vec<Vec<u8>> = (0..count).map(|i| {
            let mut key = vec![b'k'; size];
            key[..4].copy_from_slice(&(i as u32).to_le_bytes());
            key
        }).collect();
        let all: Vec<&[u8]> = keys_owned.iter().map(Vec::as_slice).collect();
        let part = [buf(b"x")];
        let items: Vec<_> = all.iter().map(|key| PutItem::new(key, &part)).collect();
        let mut server = FakeServer::new();
        prop_assert!(write_all(&mut server, &items).iter().all(Result::is_ok));
        prop_assert_eq!(server.values.len(), count);
        let ranges: Vec<_> = all.iter().map(|key| ReadRange::whole(key)).collect();
        frames(&built(|message| batch_read(message, b"ns", &ranges)));
        frames(&built(|message| keys(message, b"ns", KeysOperation::Exists, &all)));
        let references: Vec<_> = all.iter().map(|key| Reference { key, length: 1, checksum: Some(&[7; 16]) }).collect();
        let name = [b'n'; 1024];
        frames(&built(|message| put_manifest(message, &[b'n'; 255], &name, 0, &references, &[])));
    }

    /// Replies that no server of ours would send are answered with an error, never with a panic or with wrong bytes.
    #[test]
    fn any_pieces_are_judged(
        pieces in prop::collection::vec((0u32..3, 0u64..20, 0u32..20, any::<bool>()), 0..6),
        results in prop::collection::vec((0u32..3, 0u64..30, any::<bool>()), 0..4),
        extra in 0usize..2,
    ) {
        let payload = pattern(pieces.iter().map(|p| p.2 as usize).sum::<usize>() + extra, 5);
        let mut start = 0;
        let sums: Vec<[u8; 16]> = pieces.iter().map(|(_, _, length, good)| {
            let end = start + *length as usize;
            let mut sum = checksum::block(&payload[start..end]);
            sum[0] ^= u8::from(!good);
            start = end;
            sum
        }).collect();
        let pieces: Vec<_> = pieces.iter().zip(&sums).map(|((index, offset, length, _), sum)| Piece {
            index: *index, offset: *offset, length: *length, checksum: Some(sum), which: PieceWhich::Inline,
        }).collect();
        let results: Vec<_> = results.iter().map(|(index, length, ok)| ReadResult {
            index: *index, status: if *ok { Status::Ok } else { Status::NotFound }, length: *length, checksum: None,
        }).collect();
        let which = BatchReadReply { results: List::from(&results[..]), pieces: List::from(&pieces[..]) };
        let control = response(Status::Ok, 0, ResponseWhich::BatchRead(which));
        let ranges = [ReadRange { key: b"a", offset: 0, length: 8 }, ReadRange::whole(b"b")];
        let mut replies = ReadReplies::new(&ranges);
        let mut collected = Collected::new(2);
        let frame = Reply::new(control, (!payload.is_empty()).then(|| buf(&payload)));
        if replies.frame(&frame, &mut collected).is_err() {
            return Ok(());
        }
        let Ok(statuses) = replies.finish() else { return Ok(()) };
        for (index, (status, value)) in statuses.iter().zip(collected.values).enumerate() {
            if let ReadStatus::Read { size_bytes, .. } = status {
                // Taken for whole: then one result and good pieces say so, one after the other.
                prop_assert_eq!(value.size_bytes(), *size_bytes);
                let result: Vec<_> = results.iter().filter(|r| r.index as usize == index).collect();
                prop_assert_eq!(result.len(), 1);
                let own = pieces.iter().zip(&sums).filter(|(p, _)| p.index as usize == index);
                prop_assert_eq!(own.map(|(p, _)| u64::from(p.length)).sum::<u64>(), *size_bytes);
            }
        }
    }
}

fn publish(server: &mut FakeServer, references: &[Reference<'_>], body: &[u8]) -> Published {
    let body = [buf(body)];
    let mut replies = PutManifestReplies::new(references.len());
    for reply in ask(server, |message| put_manifest(message, b"ns", b"name", 0, references, &body)) {
        replies.frame(&reply).expect("a reply that holds");
    }
    replies.finish().expect("a whole reply")
}

//= MKV-PUT-3 test
#[test]
fn missing_and_conflicting_chunks_are_named() {
    let mut server = FakeServer::new();
    for key in [1u8, 3, 5] {
        server.values.insert(vec![key], vec![key; 10]);
    }
    let keys: Vec<[u8; 1]> = (0..6).map(|key| [key]).collect();
    let reference = |key| Reference { key, length: 10, checksum: None };
    let references: Vec<_> = keys.iter().map(|key| reference(&key[..])).collect();
    let published = publish(&mut server, &references, b"body");
    assert_eq!(published, Published::Missing { chunks: vec![0, 2, 4], lease_ms: 10_000 });
    assert!(server.manifests.is_empty());
    let long = Reference { length: 11, ..reference(&keys[1]) };
    assert_eq!(publish(&mut server, &[long], b"body"), Published::Conflict { chunks: vec![0] });
    let stored = [reference(&keys[1]), reference(&keys[3])];
    assert_eq!(
        publish(&mut server, &stored, b"body"),
        Published::Committed { generation: 1, lease_ms: 10_000 }
    );
}

#[test]
fn a_server_cannot_name_chunks_that_were_not_asked_about() {
    let reply = PutManifestReply { generation: 0, missing: List::from(&[0, 1][..]), lease_ms: 0 };
    let control = response(Status::MissingChunks, 0, ResponseWhich::PutManifest(reply));
    let frame = Reply::new(control, None);
    assert_eq!(PutManifestReplies::new(2).frame(&frame), Ok(()));
    assert_eq!(PutManifestReplies::new(1).frame(&frame), Err(PeerMisbehaved::Missing));
    // Missing chunks, but none named.
    let reply = PutManifestReply { generation: 0, missing: List::empty(), lease_ms: 0 };
    let control = response(Status::MissingChunks, 0, ResponseWhich::PutManifest(reply));
    let mut replies = PutManifestReplies::new(1);
    replies.frame(&Reply::new(control, None)).expect("decided at the end");
    assert_eq!(replies.finish(), Err(Error::Peer(PeerMisbehaved::Missing)));
}

//= MKV-VAL-3 test
#[test]
fn damaged_bytes_never_reach_the_caller() {
    let mut server = FakeServer::new();
    server.values.insert(b"key".to_vec(), pattern(100, 1));
    server.damages = 1;
    let range = ReadRange::whole(b"key");
    let mut replies = ReadReplies::new(&[range]);
    let mut collected = Collected::new(1);
    for reply in ask(&mut server, |message| read(message, b"ns", range)) {
        replies.frame(&reply, &mut collected).expect("the frame itself holds");
    }
    assert_eq!(collected.values[0].size_bytes(), 0);
    assert_eq!(replies.finish().unwrap().as_slice(), [ReadStatus::Damaged]);
}

/// Bytes that were damaged in the server before it made the pieces' checksums.
#[test]
fn the_writers_checksum_is_held_against_what_came() {
    let sum = checksum::block(b"rotten");
    let pieces = [Piece { index: 0, offset: 0, length: 6, checksum: Some(&sum), which: PieceWhich::Inline }];
    let writers = checksum::value([&checksum::block(b"golden")]);
    let result = ReadResult { index: 0, status: Status::Ok, length: 6, checksum: Some(&writers) };
    let results = [result];
    let reply = BatchReadReply { results: List::from(&results[..]), pieces: List::from(&pieces[..]) };
    let control = response(Status::Ok, 0, ResponseWhich::BatchRead(reply));
    let mut replies = ReadReplies::new(&[ReadRange::whole(b"key")]);
    replies
        .frame(&Reply::new(control, Some(buf(b"rotten"))), &mut Collected::new(1))
        .expect("a frame that holds");
    assert_eq!(replies.finish().unwrap().as_slice(), [ReadStatus::Damaged]);
}

//= MKV-BATCH-4 test
#[test]
fn every_item_is_answered_once() {
    let results = |indices: &[u32]| {
        let results: Vec<_> =
            indices.iter().map(|&index| WriteResult { index, status: Status::Ok }).collect();
        let reply = memkv_wire::BatchWriteReply { results: List::from(&results[..]) };
        Reply::new(response(Status::Ok, 0, ResponseWhich::BatchWrite(reply)), None)
    };
    let mut whole = BatchWriteReplies::new(2);
    whole.frame(&results(&[1])).expect("one of two");
    whole.frame(&results(&[0])).expect("the other");
    assert_eq!(whole.finish(), Ok(vec![Ok(()), Ok(())]));
    assert_eq!(BatchWriteReplies::new(2).frame(&results(&[1, 1])), Err(PeerMisbehaved::Results));
    assert_eq!(BatchWriteReplies::new(2).frame(&results(&[2])), Err(PeerMisbehaved::Results));
    let mut short = BatchWriteReplies::new(2);
    short.frame(&results(&[1])).expect("one of two");
    assert_eq!(short.finish(), Err(Error::Peer(PeerMisbehaved::Results)));
}

/// What a reply says of a length is what is asked for, and made room for, next.
#[test]
fn no_value_is_longer_than_values_may_be() {
    let read_one = |length| {
        let reply = ReadReply { length, checksum: None, pieces: List::from(&[][..]) };
        let control = response(Status::Ok, 0, ResponseWhich::Read(reply));
        let mut replies = ReadReplies::new(&[ReadRange::whole(b"key")]);
        replies.frame(&Reply::new(control, None), &mut Collected::new(1))
    };
    let read_many = |length| {
        let results = [ReadResult { index: 0, status: Status::Ok, length, checksum: None }];
        let reply = BatchReadReply { results: List::from(&results[..]), pieces: List::from(&[][..]) };
        let control = response(Status::Ok, 0, ResponseWhich::BatchRead(reply));
        let mut replies = ReadReplies::new(&[ReadRange::whole(b"key")]);
        replies.frame(&Reply::new(control, None), &mut Collected::new(1))
    };
    let exists = |length| {
        let lengths = [length];
        let reply = ExistsReply { lengths: List::from(&lengths[..]) };
        let control = response(Status::Ok, 0, ResponseWhich::Exists(reply));
        KeysReplies::<u64>::new(1).frame(&Reply::new(control, None))
    };
    for frame in [&read_one as &dyn Fn(u64) -> _, &read_many, &exists] {
        assert_eq!(frame(1 << 30), Ok(()));
        assert_eq!(frame((1 << 30) + 1), Err(PeerMisbehaved::Results));
        assert_eq!(frame(1 << 60), Err(PeerMisbehaved::Results));
    }
}

//= MKV-EX-1 test
#[test]
fn answers_about_keys_come_in_order() {
    let mut server = FakeServer::new();
    let owned: Vec<Vec<u8>> =
        (0..3000u32).map(|i| [i.to_le_bytes().as_slice(), &[b'k'; 400]].concat()).collect();
    for key in owned.iter().step_by(3) {
        server.values.insert(key.clone(), vec![1; 1 + key[0] as usize]);
    }
    let all: Vec<&[u8]> = owned.iter().map(Vec::as_slice).collect();
    let mut replies = KeysReplies::<u64>::new(all.len());
    let answers = ask(&mut server, |message| keys(message, b"ns", KeysOperation::Exists, &all));
    assert!(answers.len() > 1, "that many keys need several frames");
    answers.iter().for_each(|reply| replies.frame(reply).expect("a reply that holds"));
    let expected: Vec<u64> =
        all.iter().enumerate().map(|(i, k)| if i % 3 == 0 { 1 + u64::from(k[0]) } else { 0 }).collect();
    assert_eq!(replies.finish(), Ok(expected));
    let mut replies = KeysReplies::<Status>::new(2);
    for reply in ask(&mut server, |message| keys(message, b"ns", KeysOperation::Delete, &all[..2])) {
        replies.frame(&reply).expect("a reply that holds");
    }
    assert_eq!(replies.finish(), Ok(vec![Status::Ok, Status::NotFound]));
}

#[test]
fn misuse_is_named_before_anything_is_sent() {
    let part = [buf(b"x")];
    let long = vec![1; 513];
    let refused = |build: &dyn Fn(&mut Message) -> Result<(), Error>| {
        build(&mut Message::empty()).expect_err("refused")
    };
    let misuse = |misuse: ApiMisuse| Error::Misuse(misuse);
    let put = |key: &[u8], parts: &[Buf]| refused(&|m| batch_write(m, b"", &[PutItem::new(key, parts)]));
    assert_eq!(put(b"", &part), misuse(ApiMisuse::KeySize { size_bytes: 0, max: 512 }));
    assert_eq!(put(&long, &part), misuse(ApiMisuse::KeySize { size_bytes: 513, max: 512 }));
    assert_eq!(put(b"k", &[]), misuse(ApiMisuse::ValueSize { size_bytes: 0, max: 1 << 30 }));
    assert_eq!(put(b"k", &[Buf::default()]), misuse(ApiMisuse::ValueSize { size_bytes: 0, max: 1 << 30 }));
    assert_eq!(refused(&|m| batch_write(m, b"", &[])), misuse(ApiMisuse::NoItems));
    assert_eq!(refused(&|m| batch_read(m, b"", &[])), misuse(ApiMisuse::NoItems));
    let many = vec![ReadRange::whole(b"k"); 4097];
    assert_eq!(refused(&|m| batch_read(m, b"", &many)), misuse(ApiMisuse::Items { count: 4097, max: 4096 }));
    let name = vec![1; 1025];
    let named = refused(&|m| put_manifest(m, b"", &name, 0, &[], &[]));
    assert_eq!(named, misuse(ApiMisuse::NameSize { size_bytes: 1025, max: 1024 }));
    let empty = Reference { key: b"k", length: 0, checksum: None };
    let named = refused(&|m| put_manifest(m, b"", b"n", 0, &[empty], &[]));
    assert_eq!(named, misuse(ApiMisuse::ValueSize { size_bytes: 0, max: 1 << 30 }));
    for (offset, length) in [(1, 100), (1 << 20, 10), (0, 2 << 20)] {
        let place = WritePlace::At { allocation: 1, offset, length };
        let named = refused(&|m| write(m, b"", b"k", place, &part));
        assert!(matches!(named, Error::Misuse(ApiMisuse::Range { .. })), "{offset} {length}: {named}");
    }
}

#[test]
fn a_single_write_is_its_value() {
    let mut server = FakeServer::new();
    let value = pattern((2 << 20) + 17, 8);
    let replies = ask(&mut server, |m| write(m, b"ns", b"key", WritePlace::Whole, &[buf(&value)]));
    assert_eq!(replies.len(), 1);
    assert!(server.values[&b"key"[..]] == value);
}

/// Bytes that the server's device put in the client's memory, and that came out other than it says; what is not looked at is not found.
//= MKV-REG-7 test
#[test]
fn landed_bytes_are_held_against_their_mac_as_often_as_is_asked() {
    const READS: usize = 400;
    let pool = BufPool::new(16 << 20);
    assert!(pool.share(3, SharedMemory::create(16 << 20).expect("memory")));
    let schedule = Schedule::new(&Key::from_bytes([9; 32]), b"C", b"R", 1);
    let key = || schedule.bulk_key(Direction::ServerToClient, BulkAlgorithm::HmacSha256);
    let said = pattern(1000, 5);
    let mut hasher = key().begin_region();
    hasher.update(&said);
    let (tag, sum) = (hasher.finish(), checksum::block(&said));
    let read = |checker: &Arc<Checker>, came: &[u8], mac: Option<&[u8; 32]>| {
        let mut memory = pool.try_take(came.len()).expect("memory");
        memory.copy_from_slice(came);
        let memory = memory.freeze();
        let place = memory.place().expect("it is shared");
        let region = Region { id: place.region, offset: place.offset, mac };
        let which = PieceWhich::Region(region);
        let piece = [Piece { index: 0, offset: 0, length: 1000, checksum: Some(&sum), which }];
        let reply = ReadReply { length: 1000, checksum: None, pieces: List::from(&piece[..]) };
        let control = response(Status::Ok, 0, ResponseWhich::Read(reply));
        let ranges = [ReadRange { length: 1000, ..ReadRange::whole(b"key") }];
        let mut replies = ReadReplies::with_destinations(&ranges, One::from_elem(Some(memory), 1));
        let mut reply = Reply::new(control, None);
        reply.checker = Some(Arc::clone(checker));
        replies.frame(&reply, &mut Collected::new(1)).expect("a reply that holds");
        replies.finish().expect("a whole reply")[0] == ReadStatus::Damaged
    };
    let forged = [&[said[0] ^ 1], &said[1..]].concat();
    for verify in [Verify::Always, Verify::Sampled, Verify::Never] {
        let checker = Arc::new(Checker::new(key(), verify));
        let found = |came: &[u8], mac| (0..READS).filter(|_| read(&checker, came, mac)).count();
        assert_eq!(found(&said, Some(&tag)), 0, "{verify:?}");
        assert_eq!(found(&said, None), READS, "{verify:?}: without a MAC nothing is taken");
        let forged = found(&forged, Some(&tag));
        match verify {
            Verify::Always => assert_eq!(forged, READS),
            // One in sixteen; all of them or none is as likely as 10^-11.
            Verify::Sampled => assert!((1..READS).contains(&forged), "{forged}"),
            Verify::Never => assert_eq!(forged, 0),
        }
    }
}
