//! Values: writing, reading, allocations and batches.

use memkv_wire::checksum::{self, BLOCK_SIZE_BYTES};
use memkv_wire::*;

use super::Server;
use super::calls::{
    Gathered, Part, call_parts, expect_absent, expect_status, expect_value, get, piece, put, put_as,
    send_parts, store, write,
};
use crate::case::{Case, Outcome};
use crate::peer::session::{Session, Terms, last_status};
use crate::{ensure, fail};

pub const CASES: &[Case<Server>] = &[
    Case::must(
        "SRV-WR-1",
        &["MKV-WR-1", "MKV-RD-1", "MKV-RD-2"],
        "values of every length are read as written",
        lengths,
    ),
    Case::must("SRV-WR-2", &["MKV-WR-1"], "pieces may come in any order", any_order),
    Case::must(
        "SRV-WR-3",
        &["MKV-WR-1", "MKV-WR-4"],
        "pieces that do not cover the value leave nothing",
        uncovered,
    ),
    Case::must("SRV-WR-4", &["MKV-WR-3"], "writing what is stored changes nothing", again),
    Case::must("SRV-WR-5", &["MKV-WR-3"], "writing other bytes is a conflict", conflict),
    Case::must("SRV-WR-6", &["MKV-WR-4"], "a write that is cut off leaves nothing", cut_off),
    Case::must("SRV-WR-7", &["MKV-WR-6"], "a value's checksum is verified", value_checksum),
    Case::must("SRV-VAL-1", &["MKV-VAL-1"], "pieces begin at a block and end with it", misplaced),
    Case::must("SRV-VAL-2", &["MKV-VAL-2"], "pieces add up to the payload", uneven),
    Case::must("SRV-VAL-3", &["MKV-VAL-3"], "a piece's checksum is verified", piece_checksum),
    Case::must("SRV-RD-1", &["MKV-RD-1", "MKV-RD-3"], "ranges are read, and cut at the value's end", ranges),
    Case::must("SRV-RD-2", &["MKV-RD-3"], "a range that begins at the end is invalid", past_the_end),
    Case::must(
        "SRV-ALLOC-1",
        &["MKV-COMMIT-1"],
        "an allocation is filled piece by piece, then committed",
        allocation,
    ),
    Case::must("SRV-ALLOC-2", &["MKV-ALLOC-2"], "allocating what is stored tells so", present),
    Case::must("SRV-ALLOC-3", &["MKV-COMMIT-1"], "what is not whole cannot be committed", part),
    Case::must("SRV-ALLOC-4", &["MKV-COMMIT-2"], "a commit's checksum is verified", commit_checksum),
    Case::must("SRV-ALLOC-5", &["MKV-ALLOC-1"], "an allocation ends with its lease", lease_ends),
    Case::must("SRV-ALLOC-6", &["MKV-ALLOC-3"], "an allocation serves one client and one value", one_client),
    Case::must(
        "SRV-BATCH-1",
        &["MKV-BATCH-1", "MKV-BATCH-2"],
        "items of a batch succeed or fail by themselves",
        batch_write,
    ),
    Case::must("SRV-BATCH-2", &["MKV-BATCH-3"], "items are counted over all frames", batch_frames),
    Case::must(
        "SRV-BATCH-3",
        &["MKV-BATCH-1", "MKV-BATCH-4"],
        "a batch of reads answers each item once",
        batch_read,
    ),
];

fn lengths(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, mut random) = (server.namespace(), server.random());
    let block = BLOCK_SIZE_BYTES;
    let lengths = [
        1,
        2,
        511,
        512,
        4095,
        4096,
        4097,
        65_535,
        65_536,
        65_537,
        block - 1,
        block,
        block + 1,
        3 * block + 5,
    ];
    let values: Vec<Vec<u8>> = lengths.iter().map(|length| random.bytes(*length)).collect();
    for data in &values {
        store(&mut session, &namespace, &data.len().to_le_bytes(), data)?;
    }
    let mut other = server.connect()?;
    for data in &values {
        expect_value(&mut session, &namespace, &data.len().to_le_bytes(), data)?;
        expect_value(&mut other, &namespace, &data.len().to_le_bytes(), data)?;
    }
    Ok(())
}

/// Writes the blocks of a value as listed, each in a frame of its own, and gives the status.
fn put_blocks(
    session: &mut Session,
    namespace: &[u8],
    key: &[u8],
    data: &[u8],
    blocks: &[usize],
) -> Outcome<Status> {
    let cut: Vec<(&[u8], usize)> = blocks
        .iter()
        .map(|block| {
            (data.chunks(BLOCK_SIZE_BYTES).nth(*block).unwrap_or_default(), block * BLOCK_SIZE_BYTES)
        })
        .collect();
    let pieces: Vec<[Piece<'_>; 1]> = cut.iter().map(|(bytes, at)| [piece(0, *at, bytes, None)]).collect();
    let parts: Vec<Part<'_>> = pieces
        .iter()
        .zip(&cut)
        .map(|(pieces, (payload, _))| Part {
            which: RequestWhich::Write(Write { pieces: List::from(pieces), ..write(key, data) }),
            payload,
        })
        .collect();
    last_status(&call_parts(session, namespace, &parts)?)
}

fn any_order(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, data) = (server.namespace(), server.random().bytes(3 * BLOCK_SIZE_BYTES + 77));
    for (key, order) in [(b"a", [3, 2, 1, 0]), (b"b", [1, 3, 0, 2])] {
        let status = put_blocks(&mut session, &namespace, key, &data, &order)?;
        expect_status(status, Status::Ok, "a write whose pieces come in another order")?;
        expect_value(&mut session, &namespace, key, &data)?;
    }
    Ok(())
}

fn uncovered(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, data) = (server.namespace(), server.random().bytes(3 * BLOCK_SIZE_BYTES));
    for (what, blocks) in [
        ("a missing first block", &[1, 2][..]),
        ("a missing last block", &[0, 1]),
        ("a missing block", &[0, 2]),
        ("a block that comes twice", &[0, 1, 1, 2]),
        ("a block twice in another's place", &[0, 0, 2]),
    ] {
        let status = put_blocks(&mut session, &namespace, b"key", &data, blocks)?;
        expect_status(status, Status::Invalid, &format!("a write with {what}"))?;
        expect_absent(&mut session, &namespace, b"key")?;
    }
    // Beyond the value's end, and no piece at all.
    let pieces = [piece(0, 0, &data[..100], None)];
    for pieces in [&pieces[..], &[]] {
        let write = Write { length: 50, pieces: List::from(pieces), ..write(b"key", &data) };
        let payload = if pieces.is_empty() { &[][..] } else { &data[..100] };
        let status = session.status(&namespace, RequestWhich::Write(write), payload)?;
        expect_status(status, Status::Invalid, "a write whose pieces are not as long as the value")?;
        expect_absent(&mut session, &namespace, b"key")?;
    }
    store(&mut session, &namespace, b"key", &data)
}

fn again(server: &Server) -> Outcome {
    let (mut session, mut other) = (server.connect()?, server.connect()?);
    let (namespace, data) = (server.namespace(), server.random().bytes(BLOCK_SIZE_BYTES + 500));
    for _ in 0..3 {
        store(&mut session, &namespace, b"key", &data)?;
        store(&mut other, &namespace, b"key", &data)?;
        expect_value(&mut session, &namespace, b"key", &data)?;
    }
    Ok(())
}

fn conflict(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, mut random) = (server.namespace(), server.random());
    let data = random.bytes(5000);
    store(&mut session, &namespace, b"key", &data)?;
    for other in [random.bytes(5000), data[..4999].to_vec(), [data.clone(), vec![1]].concat()] {
        let status = put(&mut session, &namespace, b"key", &other)?;
        expect_status(status, Status::Conflict, "a write of other bytes")?;
        expect_value(&mut session, &namespace, b"key", &data)?;
    }
    Ok(())
}

fn cut_off(server: &Server) -> Outcome {
    let (namespace, data) = (server.namespace(), server.random().bytes(2 * BLOCK_SIZE_BYTES));
    let bytes = &data[..BLOCK_SIZE_BYTES];
    let pieces = [piece(0, 0, bytes, None)];
    let which = RequestWhich::Write(Write { pieces: List::from(&pieces), ..write(b"key", &data) });
    let mut watcher = server.connect()?;
    for cut_in_frame in [false, true] {
        let mut session = server.connect()?;
        send_parts(&mut session, &namespace, 9, &[Part { which, payload: bytes }], false)?;
        super::ping(&mut session, 1)?;
        expect_absent(&mut watcher, &namespace, b"key")?;
        if cut_in_frame {
            let frame = session.frame(9, true, &Request { namespace: &namespace, which }, bytes).bytes();
            session.send_hostile(&frame[..frame.len() / 2]);
        }
        session.cut();
        expect_absent(&mut watcher, &namespace, b"key")?;
    }
    // What was begun is in nobody's way.
    store(&mut watcher, &namespace, b"key", &data)?;
    expect_value(&mut watcher, &namespace, b"key", &data)
}

fn value_checksum(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, mut random) = (server.namespace(), server.random());
    for length in [1, 5000, BLOCK_SIZE_BYTES + 1] {
        let data = random.bytes(length);
        let mut sum = checksum::value_of(&data);
        sum[3] ^= 1;
        let wrong = Write { checksum: Some(&sum), ..write(b"key", &data) };
        let status = put_as(&mut session, &namespace, wrong, &data)?;
        expect_status(status, Status::ChecksumMismatch, "a write with a wrong checksum")?;
        expect_absent(&mut session, &namespace, b"key")?;
    }
    store(&mut session, &namespace, b"key", &random.bytes(100))
}

/// One frame with these pieces, which is `invalid` and leaves nothing.
fn expect_invalid(
    session: &mut Session,
    namespace: &[u8],
    length: usize,
    pieces: &[Piece<'_>],
    payload: &[u8],
) -> Outcome {
    let write = Write { key: b"key", length: length as u64, pieces: List::from(pieces), ..Write::default() };
    let status = session.status(namespace, RequestWhich::Write(write), payload)?;
    expect_status(status, Status::Invalid, "a write with a misplaced piece")?;
    expect_absent(session, namespace, b"key")
}

fn misplaced(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, data) = (server.namespace(), server.random().bytes(BLOCK_SIZE_BYTES));
    // Two halves of a block: the second begins inside it.
    let halves = [piece(0, 0, &data[..4096], None), piece(0, 4096, &data[..4096], None)];
    expect_invalid(&mut session, &namespace, 8192, &halves, &data[..8192])?;
    // One piece over the border of two blocks.
    let over = [piece(0, 0, &data[..1000], None), piece(0, 1000, &data[1000..], None)];
    expect_invalid(&mut session, &namespace, BLOCK_SIZE_BYTES, &over, &data)?;
    let half = BLOCK_SIZE_BYTES / 2;
    let crossing = [piece(0, half, &data, None)];
    expect_invalid(&mut session, &namespace, 2 * BLOCK_SIZE_BYTES, &crossing, &data)?;
    // A piece of an item that a Write does not have.
    let other_item = [piece(1, 0, &data[..100], None)];
    expect_invalid(&mut session, &namespace, 100, &other_item, &data[..100])
}

fn uneven(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, data) = (server.namespace(), server.random().bytes(1000));
    for (told, sent) in [(1000, 999), (999, 1000), (1000, 0)] {
        let pieces = [piece(0, 0, &data[..told], None)];
        expect_invalid(&mut session, &namespace, told, &pieces, &data[..sent])?;
    }
    Ok(())
}

fn piece_checksum(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, data) = (server.namespace(), server.random().bytes(9000));
    for at in [0, 15] {
        let mut sum = checksum::block(&data);
        sum[at] ^= 0x10;
        let pieces = [piece(0, 0, &data, Some(&sum))];
        let write = Write { pieces: List::from(&pieces), ..write(b"key", &data) };
        let status = session.status(&namespace, RequestWhich::Write(write), &data)?;
        expect_status(status, Status::ChecksumMismatch, "a piece with a wrong checksum")?;
        expect_absent(&mut session, &namespace, b"key")?;
    }
    store(&mut session, &namespace, b"key", &data)
}

fn ranges(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, mut random) = (server.namespace(), server.random());
    let block = BLOCK_SIZE_BYTES as u64;
    let total = 2 * block + 1234;
    let data = random.bytes(total as usize);
    store(&mut session, &namespace, b"key", &data)?;
    let mut ranges =
        vec![(0, 1), (0, block), (1, 1), (block - 1, 2), (block, 1), (total - 1, 1), (total - 1, 0)];
    ranges.extend([(block, 0), (5, 2 * block), (total - 10, 100), (0, total), (0, total + 1), (1, 1 << 30)]);
    for _ in 0..20 {
        let start = random.below(total as usize) as u64;
        ranges.push((start, random.below(2 << 20) as u64));
    }
    for (offset, length) in ranges {
        let end = if length == 0 { total } else { total.min(offset + length) };
        match get(&mut session, &namespace, b"key", offset, length)? {
            Ok((bytes, told)) => {
                ensure!(told == total, "a read tells a value of {told} bytes");
                let expected = &data[offset as usize..end as usize];
                ensure!(bytes == expected, "a read of {length} bytes at {offset} gave other bytes");
            }
            Err(status) => fail!("a read of {length} bytes at {offset} was answered with {}", status.name()),
        }
    }
    Ok(())
}

fn past_the_end(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let namespace = server.namespace();
    store(&mut session, &namespace, b"key", b"0123456789")?;
    for (offset, length) in [(10, 0), (10, 1), (11, 5), (1 << 30, 0)] {
        match get(&mut session, &namespace, b"key", offset, length) {
            Ok(Err(status)) => expect_status(status, Status::Invalid, "a read beyond the end")?,
            Ok(Ok(_)) | Err(_) => fail!("a read of 10 bytes from {offset} on was not refused"),
        }
    }
    expect_value(&mut session, &namespace, b"key", b"0123456789")
}

// ---------------------------------------------------------------- allocations

fn allocate(
    session: &mut Session,
    namespace: &[u8],
    allocate: Allocate<'_>,
) -> Outcome<Result<AllocateReply, Status>> {
    let replies = session.call(namespace, RequestWhich::Allocate(allocate), &[])?;
    let [reply] = replies.as_slice() else { fail!("allocate has {} frames of reply", replies.len()) };
    let response = reply.response()?;
    let ResponseWhich::Allocate(told) = response.which else {
        fail!("allocate was answered with another arm")
    };
    Ok(if response.status == Status::Ok { Ok(told) } else { Err(response.status) })
}

/// An allocation that is there.
fn allocated(session: &mut Session, namespace: &[u8], data: &[u8]) -> Outcome<u64> {
    let wanted = Allocate { key: b"key", length: data.len() as u64, checksum: None, lease_ms: 20_000 };
    match allocate(session, namespace, wanted)? {
        Ok(reply) => {
            ensure!(!reply.present && reply.allocation != 0, "allocating a new value gave {reply:?}");
            Ok(reply.allocation)
        }
        Err(status) => fail!("allocate was answered with {}", status.name()),
    }
}

/// Fills one block of an allocation.
fn fill(session: &mut Session, namespace: &[u8], allocation: u64, data: &[u8], block: usize) -> Outcome {
    let bytes = data.chunks(BLOCK_SIZE_BYTES).nth(block).unwrap_or_default();
    let sum = checksum::block(bytes);
    let pieces = [piece(0, block * BLOCK_SIZE_BYTES, bytes, Some(&sum))];
    let write = Write { allocation, pieces: List::from(&pieces), ..write(b"key", data) };
    let status = session.status(namespace, RequestWhich::Write(write), bytes)?;
    expect_status(status, Status::Ok, "a write into an allocation")
}

fn commit(session: &mut Session, namespace: &[u8], commit: Commit<'_>) -> Outcome<Status> {
    session.status(namespace, RequestWhich::Commit(commit), &[])
}

fn allocation(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, data) = (server.namespace(), server.random().bytes(2 * BLOCK_SIZE_BYTES + 9));
    let allocation = allocated(&mut session, &namespace, &data)?;
    for block in [2, 0, 1] {
        fill(&mut session, &namespace, allocation, &data, block)?;
        expect_absent(&mut session, &namespace, b"key")?;
    }
    let sum = checksum::value_of(&data);
    let status = commit(&mut session, &namespace, Commit { allocation, checksum: Some(&sum) })?;
    expect_status(status, Status::Ok, "commit")?;
    expect_value(&mut session, &namespace, b"key", &data)?;
    let status = commit(&mut session, &namespace, Commit { allocation, checksum: None })?;
    expect_status(status, Status::LeaseExpired, "a second commit")?;
    let status = commit(&mut session, &namespace, Commit { allocation: u64::MAX - 5, checksum: None })?;
    expect_status(status, Status::LeaseExpired, "a commit of an allocation never made")
}

fn present(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, data) = (server.namespace(), server.random().bytes(7000));
    store(&mut session, &namespace, b"key", &data)?;
    let (sum, wrong) = (checksum::value_of(&data), [9; 16]);
    for checksum in [None, Some(&sum)] {
        let wanted = Allocate { key: b"key", length: 7000, checksum, lease_ms: 0 };
        match allocate(&mut session, &namespace, wanted)? {
            Ok(reply) => {
                ensure!(reply.present && reply.allocation == 0, "allocating what is stored gave {reply:?}")
            }
            Err(status) => fail!("allocating what is stored was answered with {}", status.name()),
        }
    }
    for (length, checksum) in [(7001, None), (7000, Some(&wrong))] {
        let other = Allocate { key: b"key", length, checksum, lease_ms: 0 };
        match allocate(&mut session, &namespace, other)? {
            Ok(reply) => fail!("allocating another value under a stored key gave {reply:?}"),
            Err(status) => {
                expect_status(status, Status::Conflict, "allocating another value under a stored key")?
            }
        }
    }
    expect_value(&mut session, &namespace, b"key", &data)
}

fn part(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, data) = (server.namespace(), server.random().bytes(2 * BLOCK_SIZE_BYTES));
    let allocation = allocated(&mut session, &namespace, &data)?;
    for filled in [None, Some(1)] {
        if let Some(block) = filled {
            fill(&mut session, &namespace, allocation, &data, block)?;
        }
        let status = commit(&mut session, &namespace, Commit { allocation, checksum: None })?;
        expect_status(status, Status::Invalid, "a commit of what is not whole")?;
        expect_absent(&mut session, &namespace, b"key")?;
    }
    // The allocation stays.
    fill(&mut session, &namespace, allocation, &data, 0)?;
    let status = commit(&mut session, &namespace, Commit { allocation, checksum: None })?;
    expect_status(status, Status::Ok, "a commit once it is whole")?;
    expect_value(&mut session, &namespace, b"key", &data)
}

fn commit_checksum(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, data) = (server.namespace(), server.random().bytes(3000));
    let allocation = allocated(&mut session, &namespace, &data)?;
    fill(&mut session, &namespace, allocation, &data, 0)?;
    let mut sum = checksum::value_of(&data);
    sum[0] ^= 1;
    let status = commit(&mut session, &namespace, Commit { allocation, checksum: Some(&sum) })?;
    expect_status(status, Status::ChecksumMismatch, "a commit with a wrong checksum")?;
    expect_absent(&mut session, &namespace, b"key")
}

fn one_client(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, data) = (server.namespace(), server.random().bytes(3000));
    let allocation = allocated(&mut session, &namespace, &data)?;
    let pieces = [piece(0, 0, &data, None)];
    let right = Write { allocation, pieces: List::from(&pieces), ..write(b"key", &data) };
    let terms = Terms { client_id: [0x77; 16], ..server.terms()? };
    let mut other = Session::open(&server.target.address, &server.key, terms)?;
    let status = other.status(&namespace, RequestWhich::Write(right), &data)?;
    expect_status(status, Status::LeaseExpired, "a write into another client's allocation")?;
    for wrong in
        [Write { key: b"other", ..right }, Write { length: 3001, ..right }, Write { length: 2999, ..right }]
    {
        let status = session.status(&namespace, RequestWhich::Write(wrong), &data)?;
        expect_status(status, Status::Invalid, "a write of another value into an allocation")?;
    }
    fill(&mut session, &namespace, allocation, &data, 0)?;
    let status = commit(&mut other, &namespace, Commit { allocation, checksum: None })?;
    expect_status(status, Status::LeaseExpired, "a commit of another client's allocation")?;
    expect_absent(&mut session, &namespace, b"key")?;
    // Another connection of the same client is the same client.
    let status = commit(&mut server.connect()?, &namespace, Commit { allocation, checksum: None })?;
    expect_status(status, Status::Ok, "a commit on another connection")?;
    expect_value(&mut session, &namespace, b"key", &data)
}

fn lease_ends(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, data) = (server.namespace(), server.random().bytes(3000));
    let wanted = Allocate { key: b"key", length: 3000, checksum: None, lease_ms: 300 };
    let allocation = match allocate(&mut session, &namespace, wanted)? {
        Ok(reply) => reply.allocation,
        Err(status) => fail!("allocate was answered with {}", status.name()),
    };
    fill(&mut session, &namespace, allocation, &data, 0)?;
    // Well beyond the lease, for a server that looks at its clock now and then.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let status = commit(&mut session, &namespace, Commit { allocation, checksum: None })?;
    expect_status(status, Status::LeaseExpired, "a commit after the lease ended")?;
    expect_absent(&mut session, &namespace, b"key")?;
    store(&mut session, &namespace, b"key", &data)
}

// ---------------------------------------------------------------- batches

/// What a batch of writes tells of each item.
fn results(replies: &[crate::peer::session::Reply], items: usize) -> Outcome<Vec<Status>> {
    let mut told = vec![None; items];
    for reply in replies {
        let response = reply.response()?;
        expect_status(response.status, Status::Ok, "a batch of writes")?;
        let ResponseWhich::BatchWrite(batch) = response.which else {
            fail!("a batch was answered with another arm")
        };
        for result in batch.results {
            let Some(place) = told.get_mut(result.index as usize) else {
                fail!("a result of item {}", result.index)
            };
            ensure!(place.replace(result.status).is_none(), "item {} is answered twice", result.index);
        }
    }
    match told.iter().position(Option::is_none) {
        Some(missing) => fail!("item {missing} of {items} is not answered"),
        None => Ok(told.into_iter().flatten().collect()),
    }
}

fn batch_write(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, mut random) = (server.namespace(), server.random());
    store(&mut session, &namespace, b"taken", b"other bytes")?;
    let values: Vec<Vec<u8>> = (0..6).map(|n| random.bytes(1000 + n)).collect();
    let keys: [&[u8]; 6] = [b"first", b"taken", b"wrong piece", b"wrong value", b"no piece", b"last"];
    let sums: Vec<_> = values.iter().map(|data| checksum::block(data)).collect();
    let wrong = [7; 16];
    let mut items: Vec<WriteItem<'_>> = keys
        .iter()
        .zip(&values)
        .map(|(key, data)| WriteItem { key, length: data.len() as u64, checksum: None })
        .collect();
    items[3].checksum = Some(&wrong);
    let mut pieces: Vec<Piece<'_>> =
        (0..).zip(&values).zip(&sums).map(|((index, data), sum)| piece(index, 0, data, Some(sum))).collect();
    pieces[2].checksum = Some(&wrong);
    pieces.remove(4);
    let payload: Vec<u8> = values
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != 4)
        .flat_map(|(_, data)| data.clone())
        .collect();
    let batch = BatchWrite { items: List::from(&items), pieces: List::from(&pieces) };
    let replies = session.call(&namespace, RequestWhich::BatchWrite(batch), &payload)?;
    let told = results(&replies, 6)?;
    use Status::{ChecksumMismatch, Conflict, Invalid, Ok as Good};
    let expected = [Good, Conflict, ChecksumMismatch, ChecksumMismatch, Invalid, Good];
    ensure!(told == expected, "a batch of writes told {told:?} instead of {expected:?}");
    expect_value(&mut session, &namespace, b"first", &values[0])?;
    expect_value(&mut session, &namespace, b"last", &values[5])?;
    expect_value(&mut session, &namespace, b"taken", b"other bytes")?;
    [&keys[2], &keys[3], &keys[4]]
        .into_iter()
        .try_for_each(|key| expect_absent(&mut session, &namespace, key))
}

fn batch_frames(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, mut random) = (server.namespace(), server.random());
    let values: Vec<Vec<u8>> =
        [500, BLOCK_SIZE_BYTES + 300, 700].iter().map(|length| random.bytes(*length)).collect();
    let keys: [&[u8]; 3] = [b"a", b"b", b"c"];
    let item =
        |index: usize| WriteItem { key: keys[index], length: values[index].len() as u64, checksum: None };
    // The second value begins in the second frame and ends in the third, after a new item.
    let (head, tail) = values[1].split_at(BLOCK_SIZE_BYTES);
    let items = ([item(0)], [item(1)], [item(2)]);
    let pieces = (
        [piece(0, 0, &values[0], None)],
        [piece(1, 0, head, None)],
        [piece(2, 0, &values[2], None), piece(1, BLOCK_SIZE_BYTES, tail, None)],
    );
    let third = [values[2].as_slice(), tail].concat();
    let batch = |items, pieces| RequestWhich::BatchWrite(BatchWrite { items, pieces });
    let parts = [
        Part { which: batch(List::from(&items.0), List::from(&pieces.0)), payload: &values[0] },
        Part { which: batch(List::from(&items.1), List::from(&pieces.1)), payload: head },
        Part { which: batch(List::from(&items.2), List::from(&pieces.2)), payload: &third },
    ];
    let told = results(&call_parts(&mut session, &namespace, &parts)?, 3)?;
    ensure!(told == [Status::Ok; 3], "a batch in three frames told {told:?}");
    keys.iter().zip(&values).try_for_each(|(key, data)| expect_value(&mut session, &namespace, key, data))
}

fn batch_read(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, mut random) = (server.namespace(), server.random());
    let (small, large) = (random.bytes(3000), random.bytes(2 * BLOCK_SIZE_BYTES + 10));
    store(&mut session, &namespace, b"small", &small)?;
    store(&mut session, &namespace, b"large", &large)?;
    let item = |key, offset, length| ReadItem { key, offset, length, destination: Destination::default() };
    let items = [
        item(&b"missing"[..], 0, 0),
        item(b"large", 0, 0),
        item(b"small", 0, 0),
        item(b"small", 5000, 10),
        item(b"large", 100, 50),
        item(b"small", 0, 0),
        item(b"gone", 0, 0),
    ];
    let batch = RequestWhich::BatchRead(BatchRead { items: List::from(&items) });
    let replies = session.call(&namespace, batch, &[])?;
    let (mut told, mut gathered) = (vec![None; items.len()], Gathered::default());
    for reply in &replies {
        let response = reply.response()?;
        expect_status(response.status, Status::Ok, "a batch of reads")?;
        let ResponseWhich::BatchRead(batch) = response.which else {
            fail!("a batch was answered with another arm")
        };
        for result in batch.results {
            let Some(place) = told.get_mut(result.index as usize) else {
                fail!("a result of item {}", result.index)
            };
            let answered = place.replace((result.status, result.length));
            ensure!(answered.is_none(), "item {} is answered twice", result.index);
        }
        gathered.add(batch.pieces, &reply.payload)?;
    }
    let expected = [
        (Status::NotFound, &[][..], 0, 0),
        (Status::Ok, &large[..], 0, large.len()),
        (Status::Ok, &small[..], 0, small.len()),
        (Status::Invalid, &[][..], 0, small.len()),
        (Status::Ok, &large[100..150], 100, large.len()),
        (Status::Ok, &small[..], 0, small.len()),
        (Status::NotFound, &[][..], 0, 0),
    ];
    for (index, (status, bytes, start, total)) in (0..).zip(expected) {
        let Some((found, length)) = told[index as usize] else { fail!("item {index} is not answered") };
        expect_status(found, status, &format!("item {index}"))?;
        if status == Status::Ok {
            ensure!(length == total as u64, "item {index} is told to be {length} bytes long, not {total}");
            let got = gathered.join(index, start, start + bytes.len() as u64)?;
            ensure!(got == bytes, "item {index} has other bytes");
        }
    }
    Ok(())
}
