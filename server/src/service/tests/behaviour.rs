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
    assert_eq!(world.service.requests_open(), 0);
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
        assert_eq!(world.service.requests_open(), 0);
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
