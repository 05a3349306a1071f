//! What each operation answers, and what it leaves behind.

use memkv_wire::*;

use super::*;
use crate::store::Checksum;

/// Reproducible bytes that differ from place to place.
pub(super) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// The pieces of a value, each with its checksum.
pub(super) fn pieces(index: u32, value: &[u8], sums: &[[u8; 16]]) -> Vec<Piece<'static>> {
    let sums: &'static [[u8; 16]] = Box::leak(sums.to_vec().into_boxed_slice());
    value
        .chunks(BLOCK)
        .zip(sums)
        .enumerate()
        .map(|(block, (bytes, sum))| Piece {
            index,
            offset: (block * BLOCK) as u64,
            length: bytes.len() as u32,
            checksum: Some(sum),
            which: PieceWhich::Inline,
        })
        .collect()
}

pub(super) fn sums(value: &[u8]) -> Vec<[u8; 16]> {
    value.chunks(BLOCK).map(|block| Checksum::of_block(block).0).collect()
}

pub(super) fn write(world: &mut World, connection: ConnectionId, key: &[u8], value: &[u8]) -> Status {
    let sums = sums(value);
    let all = pieces(0, value, &sums);
    let checksum = Checksum::of_value(value).0;
    let request_id = 77;
    for (block, (piece, bytes)) in all.iter().zip(value.chunks(BLOCK)).enumerate() {
        let one = [*piece];
        let which = RequestWhich::Write(Write {
            key,
            length: value.len() as u64,
            checksum: Some(&checksum),
            allocation: 0,
            pieces: List::from(&one),
        });
        let last = block + 1 == all.len();
        world.frame(connection, request_id, last, &Request { namespace: b"ns", which }, bytes);
    }
    let frames = world.take(connection, request_id);
    assert_eq!(frames.len(), 1);
    assert!(frames[0].last);
    frames[0].status()
}

pub(super) fn read(
    world: &mut World,
    connection: ConnectionId,
    key: &[u8],
    offset: u64,
    length: u64,
) -> Result<Vec<u8>, Status> {
    let which = RequestWhich::Read(Read { key, offset, length, destination: Destination::default() });
    let frames = world.call(connection, which, &[]);
    let mut whole = std::collections::BTreeMap::new();
    for frame in &frames {
        frame.with(|response| {
            let ResponseWhich::Read(reply) = response.which else { panic!("another arm") };
            let mut at = 0;
            for piece in reply.pieces.iter() {
                let bytes = &frame.payload[at..at + piece.length as usize];
                assert_eq!(piece.checksum, Some(&Checksum::of_block(bytes).0));
                assert!(whole.insert(piece.offset, bytes.to_vec()).is_none());
                at += bytes.len();
            }
            assert_eq!(at, frame.payload.len());
        });
    }
    match frames.last().unwrap().status() {
        Status::Ok => Ok(whole.into_values().flatten().collect()),
        status => Err(status),
    }
}

pub(super) fn exists(world: &mut World, connection: ConnectionId, keys: &[&[u8]]) -> Vec<u64> {
    let frames = world.call(connection, RequestWhich::Exists(Exists { keys: List::from(keys) }), &[]);
    frames[0].with(|response| match response.which {
        ResponseWhich::Exists(reply) => reply.lengths.iter().collect(),
        _ => panic!("another arm"),
    })
}

fn counter(world: &mut World, connection: ConnectionId, name: &str) -> u64 {
    let frames = world.call(connection, RequestWhich::Stats(Stats { prefix: name }), &[]);
    frames[0].with(|response| match response.which {
        ResponseWhich::Stats(reply) => {
            reply.counters.iter().find(|counter| counter.name == name).unwrap().value
        }
        _ => panic!("another arm"),
    })
}

//= MKV-WR-1 test
//= MKV-WR-2 test
//= MKV-RD-1 test
//= MKV-VAL-2 test
#[test]
fn values_of_every_size_are_written_and_read() {
    let mut world = World::new();
    let connection = world.connect(1);
    for (seed, length) in
        [1, 7, 4095, 4096, 65_535, 65_536, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 3].into_iter().enumerate()
    {
        let key = format!("key {seed}");
        let value = bytes(seed as u64, length);
        assert_eq!(write(&mut world, connection, key.as_bytes(), &value), Status::Ok, "{length}");
        assert_eq!(read(&mut world, connection, key.as_bytes(), 0, 0), Ok(value), "{length}");
        assert_eq!(exists(&mut world, connection, &[key.as_bytes(), b"none"]), [length as u64, 0]);
    }
    assert_eq!(world.service.held().requests, 0);
}

//= MKV-RD-3 test
#[test]
fn ranges_are_cut_at_the_end_and_invalid_after_it() {
    let mut world = World::new();
    let connection = world.connect(1);
    let value = bytes(5, 3 * BLOCK + 100);
    write(&mut world, connection, b"k", &value);
    for (offset, length) in
        [(0, 1), (5, 10), (BLOCK - 1, 2), (BLOCK, BLOCK), (7, 2 * BLOCK), (3 * BLOCK + 99, 5)]
    {
        let end = value.len().min(offset + length);
        let got = read(&mut world, connection, b"k", offset as u64, length as u64);
        assert_eq!(got.as_deref(), Ok(&value[offset..end]), "{offset} {length}");
    }
    let past = value.len() as u64;
    assert_eq!(read(&mut world, connection, b"k", past, 1), Err(Status::Invalid));
    assert_eq!(read(&mut world, connection, b"none", 0, 0), Err(Status::NotFound));
}

//= MKV-WR-3 test
#[test]
fn the_same_value_again_is_fine_and_another_is_a_conflict() {
    let mut world = World::new();
    let connection = world.connect(1);
    for length in [100, 2 * BLOCK] {
        let key = length.to_string();
        let value = bytes(1, length);
        assert_eq!(write(&mut world, connection, key.as_bytes(), &value), Status::Ok);
        let stored = counter(&mut world, connection, "chunks_stored");
        assert_eq!(write(&mut world, connection, key.as_bytes(), &value), Status::Ok);
        assert_eq!(counter(&mut world, connection, "chunks_stored"), stored);
        assert_eq!(write(&mut world, connection, key.as_bytes(), &bytes(2, length)), Status::Conflict);
        assert_eq!(write(&mut world, connection, key.as_bytes(), &bytes(1, length - 1)), Status::Conflict);
        assert_eq!(read(&mut world, connection, key.as_bytes(), 0, 0), Ok(value));
    }
}

//= MKV-VAL-3 test
//= MKV-WR-6 test
#[test]
fn wrong_checksums_leave_nothing() {
    let mut world = World::new();
    let connection = world.connect(1);
    for length in [100, BLOCK + 100] {
        let value = bytes(3, length);
        let all = pieces(0, &value, &sums(&value));
        for (piece_holds, value_holds) in [(false, true), (true, false)] {
            let request_id = 9;
            for (block, (piece, bytes)) in all.iter().zip(value.chunks(BLOCK)).enumerate() {
                let mut piece = *piece;
                if !piece_holds && block == 0 {
                    piece.checksum = Some(&[1; 16]);
                }
                let one = [piece];
                let sum = if value_holds { Checksum::of_value(&value).0 } else { [2; 16] };
                let which = RequestWhich::Write(Write {
                    key: b"k",
                    length: length as u64,
                    checksum: Some(&sum),
                    allocation: 0,
                    pieces: List::from(&one),
                });
                let last = block + 1 == all.len();
                world.frame(connection, request_id, last, &Request { namespace: b"ns", which }, bytes);
            }
            let frames = world.take(connection, request_id);
            assert_eq!(frames.last().unwrap().status(), Status::ChecksumMismatch);
            assert_eq!(exists(&mut world, connection, &[b"k"]), [0]);
        }
    }
    assert!(counter(&mut world, connection, "checksum_mismatches") >= 3);
}

//= MKV-WR-4 test
#[test]
fn what_is_cut_off_or_not_whole_leaves_nothing() {
    let mut world = World::new();
    let value = bytes(3, 2 * BLOCK);
    let all = pieces(0, &value, &sums(&value));
    for (cut_off, which_block) in [(true, 0), (false, 1)] {
        let connection = world.connect(1);
        let one = [all[which_block]];
        let which = RequestWhich::Write(Write {
            key: b"k",
            length: value.len() as u64,
            checksum: None,
            allocation: 0,
            pieces: List::from(&one),
        });
        world.frame(connection, 1, !cut_off, &Request { namespace: b"ns", which }, &value[..BLOCK]);
        if cut_off {
            world.service.disconnected(world.now_ms, connection);
            world.settle();
        } else {
            // The bytes are not those of that block: the piece fails first.
            assert_eq!(world.take(connection, 1)[0].status(), Status::ChecksumMismatch);
        }
        let other = world.connect(2);
        assert_eq!(exists(&mut world, other, &[b"k"]), [0]);
        assert_eq!(world.service.held().requests, 0);
    }
    let connection = world.connect(1);
    let one = [all[0]];
    let which = RequestWhich::Write(Write {
        key: b"k",
        length: value.len() as u64,
        checksum: None,
        allocation: 0,
        pieces: List::from(&one),
    });
    world.frame(connection, 1, true, &Request { namespace: b"ns", which }, &value[..BLOCK]);
    assert_eq!(world.take(connection, 1)[0].status(), Status::Invalid);
    assert_eq!(exists(&mut world, connection, &[b"k"]), [0]);
    // The room it had is free again: the same value can be written.
    assert_eq!(write(&mut world, connection, b"k", &value), Status::Ok);
}

//= MKV-ALLOC-2 test
//= MKV-COMMIT-1 test
//= MKV-COMMIT-2 test
#[test]
fn a_value_is_filled_piece_by_piece_and_committed() {
    let mut world = World::new();
    let connection = world.connect(1);
    let value = bytes(8, BLOCK + 5);
    let allocate = |world: &mut World| {
        let which =
            RequestWhich::Allocate(Allocate { key: b"k", length: value.len() as u64, ..Default::default() });
        world.call(connection, which, &[])[0].with(|response| match response.which {
            ResponseWhich::Allocate(reply) => reply,
            _ => panic!("another arm"),
        })
    };
    let allocation = allocate(&mut world).allocation;
    assert_ne!(allocation, 0);
    let commit = |world: &mut World, checksum: Option<&[u8; 16]>| {
        world.call(connection, RequestWhich::Commit(Commit { allocation, checksum }), &[])[0].status()
    };
    let all = pieces(0, &value, &sums(&value));
    for (piece, bytes) in all.iter().zip(value.chunks(BLOCK)).rev() {
        assert_eq!(commit(&mut world, None), Status::Invalid);
        let one = [*piece];
        let which = RequestWhich::Write(Write {
            key: b"k",
            length: value.len() as u64,
            checksum: None,
            allocation,
            pieces: List::from(&one),
        });
        assert_eq!(world.call(connection, which, bytes)[0].status(), Status::Ok);
        assert_eq!(exists(&mut world, connection, &[b"k"]), [0]);
    }
    assert_eq!(commit(&mut world, Some(&Checksum::of_value(&value).0)), Status::Ok);
    assert_eq!(read(&mut world, connection, b"k", 0, 0), Ok(value.clone()));
    let again = allocate(&mut world);
    assert!(again.present && again.allocation == 0);
    assert_eq!(commit(&mut world, None), Status::LeaseExpired);
}

//= MKV-COMMIT-2 test
//= MKV-ALLOC-1 test
#[test]
fn allocations_end_with_a_wrong_commit_or_their_lease() {
    let mut world = World::new();
    let connection = world.connect(1);
    let value = bytes(8, 50);
    for wrong in [true, false] {
        let which =
            RequestWhich::Allocate(Allocate { key: b"k", length: 50, checksum: None, lease_ms: 1000 });
        let allocation = world.call(connection, which, &[])[0].with(|response| match response.which {
            ResponseWhich::Allocate(reply) => reply.allocation,
            _ => panic!("another arm"),
        });
        let one = pieces(0, &value, &sums(&value));
        let which = RequestWhich::Write(Write {
            key: b"k",
            length: 50,
            checksum: None,
            allocation,
            pieces: List::from(&one),
        });
        assert_eq!(world.call(connection, which, &value)[0].status(), Status::Ok);
        let (checksum, status) = match wrong {
            true => (Some(&[3; 16]), Status::ChecksumMismatch),
            false => (None, Status::LeaseExpired),
        };
        if !wrong {
            world.now_ms += 1001;
            world.service.tick(world.now_ms);
            world.settle();
        }
        let which = RequestWhich::Commit(Commit { allocation, checksum });
        assert_eq!(world.call(connection, which, &[])[0].status(), status);
        assert_eq!(exists(&mut world, connection, &[b"k"]), [0]);
    }
}

//= MKV-ALLOC-3 test
#[test]
fn an_allocation_serves_its_client_and_its_value_alone() {
    let mut world = World::new();
    let (owner, other) = (world.connect(1), world.connect(2));
    let value = bytes(8, 50);
    let which = RequestWhich::Allocate(Allocate { key: b"k", length: 50, ..Default::default() });
    let allocation = world.call(owner, which, &[])[0].with(|response| match response.which {
        ResponseWhich::Allocate(reply) => reply.allocation,
        _ => panic!("another arm"),
    });
    let one = pieces(0, &value, &sums(&value));
    let mut write = |connection, key: &[u8], length| {
        let pieces = List::from(&one);
        let which = RequestWhich::Write(Write { key, length, checksum: None, allocation, pieces });
        world.call(connection, which, &value)[0].status()
    };
    assert_eq!(write(owner, b"another", 50), Status::Invalid);
    assert_eq!(write(owner, b"k", 51), Status::Invalid);
    assert_eq!(write(other, b"k", 50), Status::LeaseExpired);
    assert_eq!(write(owner, b"k", 50), Status::Ok);
    let mut commit = |connection| {
        let which = RequestWhich::Commit(Commit { allocation, checksum: None });
        world.call(connection, which, &[])[0].status()
    };
    assert_eq!(commit(other), Status::LeaseExpired);
    assert_eq!(commit(owner), Status::Ok);
}

//= MKV-VAL-1 test
#[test]
fn pieces_that_are_no_whole_block_are_invalid() {
    let mut world = World::new();
    let connection = world.connect(1);
    let value = bytes(1, 2 * BLOCK);
    for (index, offset, length) in [
        (0, 1, BLOCK),
        (0, 0, BLOCK - 1),
        (0, BLOCK / 2, BLOCK / 2),
        (0, 2 * BLOCK, 10),
        (0, 0, 0),
        (1, 0, BLOCK),
    ] {
        let one = [Piece {
            index,
            offset: offset as u64,
            length: length as u32,
            checksum: None,
            which: PieceWhich::Inline,
        }];
        let which = RequestWhich::Write(Write {
            key: b"k",
            length: value.len() as u64,
            checksum: None,
            allocation: 0,
            pieces: List::from(&one),
        });
        let frames = world.call(connection, which, &value[..length]);
        assert_eq!(frames[0].status(), Status::Invalid, "{index} {offset} {length}");
    }
    // Twice the same block does not make two.
    let twice = [pieces(0, &value[..BLOCK], &sums(&value))[0]; 1];
    for last in [false, true] {
        let which = RequestWhich::Write(Write {
            key: b"k",
            length: value.len() as u64,
            checksum: None,
            allocation: 0,
            pieces: List::from(&twice),
        });
        world.frame(connection, 3, last, &Request { namespace: b"ns", which }, &value[..BLOCK]);
    }
    assert_eq!(world.take(connection, 3)[0].status(), Status::Invalid);
    assert_eq!(exists(&mut world, connection, &[b"k"]), [0]);
}

//= MKV-BATCH-3 test
#[test]
fn items_are_counted_over_all_frames() {
    let mut world = World::new();
    let connection = world.connect(1);
    let values: Vec<Vec<u8>> = (0..4).map(|n| bytes(n, 10 + n as usize)).collect();
    let keys: [&[u8]; 4] = [b"0", b"1", b"2", b"3"];
    // The pieces of the first two items come with the last two, the other way round.
    for (frame, order) in [(0, vec![]), (1, vec![3, 0, 2, 1])] {
        let items: Vec<WriteItem<'_>> = (2 * frame..2 * frame + 2)
            .map(|n| WriteItem { key: keys[n], length: values[n].len() as u64, checksum: None })
            .collect();
        let all: Vec<Piece<'_>> =
            order.iter().map(|n| pieces(*n as u32, &values[*n], &sums(&values[*n]))[0]).collect();
        let payload: Vec<u8> = order.iter().flat_map(|n| values[*n].clone()).collect();
        let which =
            RequestWhich::BatchWrite(BatchWrite { items: List::from(&items), pieces: List::from(&all) });
        world.frame(connection, 8, frame == 1, &Request { namespace: b"ns", which }, &payload);
    }
    assert!(world.take(connection, 8).last().is_some_and(|frame| frame.status() == Status::Ok));
    for (key, value) in keys.iter().zip(&values) {
        assert_eq!(read(&mut world, connection, key, 0, 0).as_ref(), Ok(value));
    }
    // A piece of an item that no frame has listed yet.
    let early = [Piece { index: 1, length: 1, which: PieceWhich::Inline, ..Default::default() }];
    let items = [WriteItem { key: b"x", length: 1, checksum: None }];
    let which =
        RequestWhich::BatchWrite(BatchWrite { items: List::from(&items), pieces: List::from(&early) });
    assert_eq!(world.call(connection, which, b"y")[0].status(), Status::Invalid);
}

/// The first blocks are sent before the last one is found rotten: then the reply says so.
//= MKV-MSG-4 test
//= MKV-RD-2 test
#[test]
fn what_fails_late_is_told_late() {
    let mut world = World::new();
    let connection = world.connect(1);
    let value = bytes(6, 6 * BLOCK);
    assert_eq!(write(&mut world, connection, b"k", &value), Status::Ok);
    let last = &value[5 * BLOCK..5 * BLOCK + 64];
    let at = world.disk.bytes.windows(64).position(|window| window == last).unwrap();
    world.disk.bytes[at + 9] ^= 1;
    let which = RequestWhich::Read(Read { key: b"k", ..Default::default() });
    let frames = world.call(connection, which, &[]);
    assert!(frames.iter().any(|frame| frame.status() == Status::Ok && !frame.payload.is_empty()));
    assert_eq!(frames.last().unwrap().status(), Status::NotFound);
    for frame in &frames {
        frame.with(|response| {
            let ResponseWhich::Read(reply) = response.which else { panic!("another arm") };
            let mut at = 0;
            for piece in reply.pieces.iter() {
                let (start, length) = (piece.offset as usize, piece.length as usize);
                assert!(frame.payload[at..at + length] == value[start..start + length], "never a wrong byte");
                at += length;
            }
        });
    }
    assert_eq!(exists(&mut world, connection, &[b"k"]), [0], "it is a miss from now on");
    assert_eq!(counter(&mut world, connection, "checksum_failures"), 1);
}

//= MKV-MSG-7 test
#[test]
fn a_failed_reply_has_its_requests_arm() {
    let mut world = World::new();
    let connection = world.connect(1);
    for which in [
        RequestWhich::Read(Read { key: b"none", ..Default::default() }),
        RequestWhich::Lookup(Lookup { key: b"none", lease_ms: 0 }),
        RequestWhich::Commit(Commit { allocation: 5, checksum: None }),
        RequestWhich::GetManifest(GetManifest { name: b"none", lease_ms: 0 }),
        RequestWhich::DeleteManifest(DeleteManifest { name: b"none", generation: 0 }),
    ] {
        let frames = world.call(connection, which, &[]);
        assert_ne!(frames[0].status(), Status::Ok);
        frames[0].with(|response| assert_eq!(response.which.opcode(), which.opcode()));
    }
}

//= MKV-LEASE-1 test
#[test]
fn leases_hold_off_others_and_are_counted() {
    let config = Config { leases_per_client_max: 3, ..Config::default() };
    let mut world = World::with(96 << 20, ServiceLimits::default(), config);
    let (holder, other) = (world.connect(1), world.connect(2));
    let same_client = world.connect(1);
    for key in [b"a", b"b", b"c", b"d"] {
        write(&mut world, other, key, &bytes(1, 10));
    }
    world.now_ms += 11_000;
    world.service.tick(world.now_ms);
    let lookup = |key: &'static [u8]| RequestWhich::Lookup(Lookup { key, lease_ms: 1000 });
    assert_eq!(world.call(holder, lookup(b"a"), &[])[0].status(), Status::Ok);
    assert_eq!(world.call(same_client, lookup(b"b"), &[])[0].status(), Status::Ok);
    assert_eq!(world.call(holder, lookup(b"c"), &[])[0].status(), Status::Ok);
    assert_eq!(world.call(same_client, lookup(b"d"), &[])[0].status(), Status::Busy);
    let keys: [&[u8]; 1] = [b"a"];
    let delete = RequestWhich::Delete(Delete { keys: List::from(&keys) });
    let status = |frames: Vec<Got>| {
        frames[0].with(|response| match response.which {
            ResponseWhich::Delete(reply) => reply.statuses.get(0),
            _ => panic!("another arm"),
        })
    };
    assert_eq!(status(world.call(other, delete, &[])), Some(Status::Busy));
    world.now_ms += 1001;
    world.service.tick(world.now_ms);
    assert_eq!(status(world.call(other, delete, &[])), Some(Status::Ok));
}

//= MKV-WR-5 test
#[test]
fn a_new_value_is_born_leased() {
    let mut world = World::new();
    let (writer, other) = (world.connect(1), world.connect(2));
    write(&mut world, writer, b"k", &bytes(1, 10));
    let keys: [&[u8]; 1] = [b"k"];
    let which = RequestWhich::Delete(Delete { keys: List::from(&keys) });
    let frames = world.call(other, which, &[]);
    frames[0].with(|response| match response.which {
        ResponseWhich::Delete(reply) => assert_eq!(reply.statuses.get(0), Some(Status::Busy)),
        _ => panic!("another arm"),
    });
}

/// The devices answer late: everything else goes on, and after the server is told to stop nothing new begins.
#[test]
fn a_slow_device_delays_nobody_else_and_stopping_waits_for_it() {
    let mut world = World::new();
    let connection = world.connect(1);
    write(&mut world, connection, b"there", &bytes(1, 10));
    world.hold = true;
    let value = bytes(2, 100_000);
    let one = pieces(0, &value, &sums(&value));
    let which = RequestWhich::Write(Write {
        key: b"slow",
        length: value.len() as u64,
        checksum: None,
        allocation: 0,
        pieces: List::from(&one),
    });
    world.frame(connection, 1, true, &Request { namespace: b"ns", which }, &value);
    assert!(world.take(connection, 1).is_empty(), "no answer before the device has it");
    assert_eq!(exists(&mut world, connection, &[b"there", b"slow"]), [10, 0]);
    world.service.stop(world.now_ms);
    world.settle();
    assert!(!world.stopped);
    let ping = RequestWhich::Ping(Ping::default());
    assert_eq!(world.call(connection, ping, &[])[0].status(), Status::ShuttingDown);
    world.release_held();
    assert_eq!(world.take(connection, 1)[0].status(), Status::Ok);
    assert!(world.stopped);
}

/// A server of a cluster that holds only references, or only the name.
//= MKV-PUT-1 test
//= MKV-DELM-1 test
#[test]
fn roles_divide_a_manifest() {
    let mut world = World::new();
    let connection = world.connect(1);
    write(&mut world, connection, b"chunk", &bytes(1, 10));
    let there = [ChunkReference { key: b"chunk", length: 10, checksum: None }];
    let elsewhere = [ChunkReference { key: b"elsewhere", length: 10, checksum: None }];
    let empty = Checksum::of_value(&[]).0;
    let put = |world: &mut World, role, chunks: &[ChunkReference<'_>]| {
        let which = RequestWhich::PutManifest(PutManifest {
            name: b"m",
            generation: 1,
            role,
            length: 0,
            checksum: &empty,
            chunks: List::from(chunks),
        });
        world.call(connection, which, &[])[0].status()
    };
    assert_eq!(put(&mut world, ManifestRole::Refs, &elsewhere), Status::MissingChunks);
    assert_eq!(put(&mut world, ManifestRole::Refs, &there), Status::Ok);
    let get = RequestWhich::GetManifest(GetManifest { name: b"m", lease_ms: 0 });
    assert_eq!(world.call(connection, get, &[])[0].status(), Status::NotFound);
    assert_eq!(put(&mut world, ManifestRole::Home, &elsewhere), Status::Ok);
    assert_eq!(world.call(connection, get, &[])[0].status(), Status::Ok);
    assert_eq!(put(&mut world, ManifestRole::Unknown(9), &there), Status::Invalid);
    let delete = RequestWhich::DeleteManifest(DeleteManifest { name: b"m", generation: 0 });
    assert_eq!(world.call(connection, delete, &[])[0].status(), Status::Ok);
    assert_eq!(world.call(connection, delete, &[])[0].status(), Status::NotFound);
    assert_eq!(world.call(connection, get, &[])[0].status(), Status::NotFound);
}

/// What a restart finds on the device is what was acknowledged.
#[test]
fn a_restart_finds_what_was_stored() {
    let mut world = World::new();
    let connection = world.connect(1);
    let value = bytes(1, 2 * BLOCK + 9);
    write(&mut world, connection, b"k", &value);
    let mut world = World::over(world.disk.clone(), ServiceLimits::default(), Config::default());
    let connection = world.connect(1);
    assert_eq!(read(&mut world, connection, b"k", 0, 0), Ok(value));
}

#[test]
fn every_counter_is_documented() {
    let manual = include_str!("../../../../docs/operating.md");
    let world = World::new();
    for (name, _) in world.service.all_counters() {
        assert!(manual.contains(&format!("`{name}`")), "docs/operating.md says nothing of {name}");
    }
}
