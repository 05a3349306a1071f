//! Limits to the last byte and the last item, and what happens just there: sizes, counts, numbers and times at which an
//! implementation that is right elsewhere is off by one.

use std::net::Shutdown;

use memkv_wire::checksum::BLOCK_SIZE_BYTES;
use memkv_wire::limits::{BATCH_ITEMS_MAX, CONTROL_SIZE_BYTES_MAX, PAYLOAD_SIZE_BYTES_MAX};
use memkv_wire::*;

use super::calls::{
    Manifest, Part, call_parts, delete, expect_absent, expect_manifest, expect_published, expect_status,
    expect_value, lengths, piece, publish, put, remove, send_parts, store, write,
};
use super::{Server, ping};
use crate::case::{Case, Outcome};
use crate::peer::frame::Frame;
use crate::peer::session::{Reply, Session, Terms, encode, last_status};
use crate::{ensure, fail};

pub const CASES: &[Case<Server>] = &[
    Case::must("SRV-FRAME-14", &["MKV-LIM-1"], "the longest control message is taken", longest_control),
    Case::must(
        "SRV-FRAME-15",
        &["MKV-FRAME-6"],
        "a tag that does not hold amid a message closes, and nothing is visible",
        tag_amid,
    ),
    Case::must(
        "SRV-FRAME-16",
        &["MKV-CONN-3"],
        "a sequence number that is right in its lower half closes",
        half_a_sequence,
    ),
    Case::must(
        "SRV-MSG-14",
        &["MKV-MSG-1", "MKV-MSG-5"],
        "a long message of an unknown operation is answered once, when it has ended",
        unknown_of_frames,
    ),
    Case::must(
        "SRV-MSG-15",
        &["MKV-MSG-3"],
        "a frame in another namespace contradicts the first one",
        other_namespace,
    ),
    Case::must(
        "SRV-NS-3",
        &["MKV-WR-3", "MKV-EX-1"],
        "the longest keys and namespaces count to their last byte",
        last_bytes,
    ),
    Case::must("SRV-WR-8", &["MKV-WR-1"], "a last piece that is too short leaves nothing", short_last),
    Case::must(
        "SRV-VAL-4",
        &["MKV-VAL-1", "MKV-WR-1"],
        "a piece without bytes is answered, and adds nothing",
        empty_piece,
    ),
    Case::must(
        "SRV-BATCH-4",
        &["MKV-EX-1", "MKV-BATCH-3", "MKV-BATCH-4"],
        "a batch has as many items as it may, over all its frames, and no more",
        items,
    ),
    Case::must(
        "SRV-BATCH-5",
        &["MKV-WR-3", "MKV-BATCH-1"],
        "of two values for one key in one batch one is a conflict",
        twice_in_a_batch,
    ),
    Case::must(
        "SRV-LEASE-2",
        &["MKV-LEASE-1"],
        "a lease ends neither with its connection nor with another client's",
        leases_stay,
    ),
    Case::must(
        "SRV-LEASE-4",
        &["MKV-PUT-7"],
        "chunks are leased to who publishes them, if the reply says so",
        published_leased,
    ),
    Case::must(
        "SRV-LEASE-3",
        &["MKV-WR-5"],
        "a new value is leased to the client that wrote it",
        born_leased,
    ),
    Case::must(
        "SRV-MAN-15",
        &["MKV-PUT-5", "MKV-DELM-2"],
        "generations have 64 bits and no sign",
        large_generations,
    ),
    Case::must("SRV-MAN-16", &["MKV-PUT-1"], "bodies that fill their frames are whole", full_frames),
];

fn another_client(server: &Server) -> Outcome<Session> {
    let terms = Terms { client_id: [0x77; 16], ..server.terms()? };
    Session::open(&server.target.address, &server.key, terms)
}

// ---------------------------------------------------------------- frames and messages

fn longest_control(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, limit) = (server.namespace(), CONTROL_SIZE_BYTES_MAX as usize);
    // A key takes a word for its pointer and as many as it fills.
    let mut keys: Vec<Vec<u8>> = (0..4000_u64).map(|n| n.to_le_bytes().repeat(6)).collect();
    let size = |keys: &[Vec<u8>]| {
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let which = RequestWhich::Exists(Exists { keys: List::from(&keys) });
        encode(&Request { namespace: &namespace, which }).len()
    };
    let words = (limit - size(&keys)) / 8;
    for number in 0..words {
        let key = &mut keys[number % 4000];
        key.extend_from_slice(&[0xee; 8]);
    }
    ensure!(size(&keys) == limit, "this suite made a message of {} bytes", size(&keys));
    store(&mut session, &namespace, &keys[3999], b"value")?;
    let asked: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let told = lengths(&mut session, &namespace, &asked)?;
    let (last, before) = told.split_last().unwrap_or((&0, &[]));
    ensure!(*last == 5 && before.iter().all(|length| *length == 0), "exists of 4,000 keys is wrong");
    Ok(())
}

/// The two frames of a Write of two blocks that bear no checksums.
fn in_two_frames<'a>(key: &'a [u8], data: &'a [u8], pieces: &'a [[Piece<'a>; 1]; 2]) -> [Part<'a>; 2] {
    let (first, second) = data.split_at(BLOCK_SIZE_BYTES);
    let write = write(key, data);
    let part = |number: usize, payload| Part {
        which: RequestWhich::Write(Write { pieces: List::from(&pieces[number]), ..write }),
        payload,
    };
    [part(0, first), part(1, second)]
}

fn pieces_of_two(data: &[u8]) -> [[Piece<'static>; 1]; 2] {
    let (first, second) = data.split_at(BLOCK_SIZE_BYTES);
    [[piece(0, 0, first, None)], [piece(0, BLOCK_SIZE_BYTES, second, None)]]
}

fn tag_amid(server: &Server) -> Outcome {
    let (namespace, data) = (server.namespace(), server.random().bytes(BLOCK_SIZE_BYTES + 700));
    let pieces = pieces_of_two(&data);
    let parts = in_two_frames(b"key", &data, &pieces);
    for at in [0, 31] {
        let mut session = server.connect()?;
        let request = |number: usize| Request { namespace: &namespace, which: parts[number].which };
        let mut first = session.frame(9, false, &request(0), parts[0].payload);
        first.tag[at] ^= 1;
        session.send_hostile(&first.bytes());
        let second = session.frame(9, true, &request(1), parts[1].payload);
        session.send_hostile(&second.bytes());
        session.expect_closed("a wrong tag in a message's first frame")?;
        expect_absent(&mut server.connect()?, &namespace, b"key")?;
    }
    Ok(())
}

fn half_a_sequence(server: &Server) -> Outcome {
    for above in [1 << 32, 1 << 63] {
        let mut session = server.connect()?;
        ping(&mut session, 1)?;
        let request = Request { namespace: &[], which: RequestWhich::Ping(Ping::default()) };
        let mut frame = session.frame(7, true, &request, &[]);
        frame.header.sequence = (frame.header.sequence.get() + above).into();
        session.sign(&mut frame);
        session.send_hostile(&frame.bytes());
        session.expect_closed("a sequence number whose upper half is wrong")?;
    }
    server.expect_alive()
}

fn unknown_of_frames(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (id, other) = (session.new_id(), session.new_id());
    let part = || Part { which: RequestWhich::Unknown(999), payload: &[] };
    send_parts(&mut session, &[], id, &[part(), part()], false)?;
    let ping_frame = Request { namespace: &[], which: RequestWhich::Ping(Ping::default()) };
    let frame = session.frame(other, true, &ping_frame, &[]);
    session.send(&frame)?;
    loop {
        let Some(reply) = session.next_reply()? else { fail!("it closed amid an unknown operation") };
        ensure!(!(reply.last && reply.id == id), "an unknown operation was answered before it ended");
        if reply.id == other {
            break;
        }
    }
    send_parts(&mut session, &[], id, &[part()], true)?;
    let status = last_status(&session.replies(id, None)?)?;
    expect_status(status, Status::UnknownOperation, "an unknown operation of three frames")?;
    ping(&mut session, 1)
}

fn other_namespace(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (here, there) = (server.namespace(), [server.namespace(), b"/".to_vec()].concat());
    let data = server.random().bytes(BLOCK_SIZE_BYTES + 10);
    let pieces = pieces_of_two(&data);
    let parts = in_two_frames(b"key", &data, &pieces);
    for (first, second) in [(&here, &there), (&there, &here)] {
        let id = session.new_id();
        send_parts(&mut session, first, id, &parts[..1], false)?;
        send_parts(&mut session, second, id, &parts[1..], true)?;
        let status = last_status(&session.replies(id, Some(Operation::Write))?)?;
        expect_status(status, Status::Invalid, "a second frame in another namespace")?;
        expect_absent(&mut session, &here, b"key")?;
        expect_absent(&mut session, &there, b"key")?;
    }
    Ok(())
}

// ---------------------------------------------------------------- keys and values

fn last_bytes(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let base = server.namespace();
    let ending = |mut bytes: Vec<u8>, length: usize, last: u8| {
        bytes.resize(length - 1, b'n');
        bytes.push(last);
        bytes
    };
    let namespaces = [b'a', b'b'].map(|last| ending(base.clone(), 255, last));
    let keys = [b'a', b'b'].map(|last| ending(Vec::new(), 512, last));
    for (number, namespace) in namespaces.iter().enumerate() {
        for key in &keys {
            expect_absent(&mut session, namespace, key)?;
            store(&mut session, namespace, key, &[vec![number as u8], key.clone()].concat())?;
        }
    }
    for (number, namespace) in namespaces.iter().enumerate() {
        for key in &keys {
            expect_value(&mut session, namespace, key, &[vec![number as u8], key.clone()].concat())?;
        }
    }
    Ok(())
}

fn short_last(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, data) = (server.namespace(), server.random().bytes(BLOCK_SIZE_BYTES + 700));
    for short in [BLOCK_SIZE_BYTES + 699, BLOCK_SIZE_BYTES + 1] {
        let pieces = pieces_of_two(&data[..short]);
        let mut parts = in_two_frames(b"key", &data[..short], &pieces);
        for part in &mut parts {
            if let RequestWhich::Write(write) = &mut part.which {
                write.length = data.len() as u64;
            }
        }
        let status = last_status(&call_parts(&mut session, &namespace, &parts)?)?;
        expect_status(status, Status::Invalid, "a write whose last piece is too short")?;
        expect_absent(&mut session, &namespace, b"key")?;
    }
    // The last of a value that is one block, too.
    let pieces = [piece(0, 0, &data[..99], None)];
    let which =
        RequestWhich::Write(Write { length: 100, pieces: List::from(&pieces), ..write(b"key", &data) });
    let status = session.status(&namespace, which, &data[..99])?;
    expect_status(status, Status::Invalid, "a write of 99 bytes of 100")?;
    expect_absent(&mut session, &namespace, b"key")
}

fn empty_piece(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, data) = (server.namespace(), server.random().bytes(2 * BLOCK_SIZE_BYTES));
    for (number, at) in [0, BLOCK_SIZE_BYTES, 2 * BLOCK_SIZE_BYTES].into_iter().enumerate() {
        let key = [number as u8];
        let pieces = pieces_of_two(&data);
        let empty = [piece(0, at, &[], None)];
        let [first, second] = in_two_frames(&key, &data, &pieces);
        let third = Part {
            which: RequestWhich::Write(Write { pieces: List::from(&empty), ..write(&key, &data) }),
            payload: &[],
        };
        let status = last_status(&call_parts(&mut session, &namespace, &[first, second, third])?)?;
        // Whether a piece of no bytes is one that covers something twice is left open.
        match status {
            Status::Ok => expect_value(&mut session, &namespace, &key, &data)?,
            status => {
                expect_status(status, Status::Invalid, &format!("a write with an empty piece at {at}"))?;
                expect_absent(&mut session, &namespace, &key)?;
            }
        }
    }
    ping(&mut session, 1)
}

// ---------------------------------------------------------------- batches

fn items(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, max) = (server.namespace(), BATCH_ITEMS_MAX as usize);
    let keys: Vec<[u8; 4]> = (0..=max as u32).map(u32::to_be_bytes).collect();
    let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    // Written in two frames, so that the second half is counted over both.
    let items: Vec<WriteItem<'_>> =
        keys.iter().map(|key| WriteItem { key, length: 4, checksum: None }).collect();
    let pieces: Vec<Piece<'_>> = (0..).zip(&keys[..max]).map(|(n, key)| piece(n, 0, key, None)).collect();
    let payloads = [keys[..max / 2].concat(), keys[max / 2..max].concat()];
    let part = |half: usize| {
        let range = half * max / 2..(half + 1) * max / 2;
        let (items, pieces) = (List::from(&items[range.clone()]), List::from(&pieces[range]));
        Part { which: RequestWhich::BatchWrite(BatchWrite { items, pieces }), payload: &payloads[half] }
    };
    let replies = call_parts(&mut session, &namespace, &[part(0), part(1)])?;
    ensure!(answered(&replies)? == max, "a batch of {max} writes has {} good results", answered(&replies)?);
    let told = lengths(&mut session, &namespace, &keys[..max])?;
    ensure!(told.iter().all(|length| *length == 4), "exists of {max} keys does not know all of them");
    read_items(&mut session, &namespace, &keys[..max])?;
    // One more, in a second frame.
    let part = |keys| Part { which: RequestWhich::Exists(Exists { keys }), payload: &[] };
    let parts = [part(List::from(&keys[..max])), part(List::from(&keys[max..]))];
    let status = last_status(&call_parts(&mut session, &namespace, &parts)?)?;
    expect_status(status, Status::Invalid, &format!("exists of {} keys", max + 1))?;
    ping(&mut session, 1)
}

/// How many items a reply to a batch of writes or reads says are well.
fn answered(replies: &[Reply]) -> Outcome<usize> {
    let mut good = 0;
    for reply in replies {
        let response = reply.response()?;
        expect_status(response.status, Status::Ok, "a batch")?;
        good += match response.which {
            ResponseWhich::BatchWrite(batch) => {
                batch.results.iter().filter(|result| result.status == Status::Ok).count()
            }
            ResponseWhich::BatchRead(batch) => {
                batch.results.iter().filter(|result| result.status == Status::Ok).count()
            }
            _ => fail!("a batch was answered with another arm"),
        };
    }
    Ok(good)
}

fn read_items(session: &mut Session, namespace: &[u8], keys: &[&[u8]]) -> Outcome {
    let items: Vec<ReadItem<'_>> = keys
        .iter()
        .map(|key| ReadItem { key, offset: 0, length: 0, destination: Destination::default() })
        .collect();
    // Frames of a quarter each: a message of all items is longer than a control message may be.
    let parts: Vec<Part<'_>> = items
        .chunks(items.len() / 4)
        .map(|items| Part {
            which: RequestWhich::BatchRead(BatchRead { items: List::from(items) }),
            payload: &[],
        })
        .collect();
    let replies = call_parts(session, namespace, &parts)?;
    ensure!(answered(&replies)? == keys.len(), "a batch of {} reads has fewer good results", keys.len());
    Ok(())
}

fn twice_in_a_batch(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, mut random) = (server.namespace(), server.random());
    let values = [random.bytes(900), random.bytes(900)];
    let items = [WriteItem { key: b"key", length: 900, checksum: None }; 2];
    let pieces = [piece(0, 0, &values[0], None), piece(1, 0, &values[1], None)];
    let batch = BatchWrite { items: List::from(&items), pieces: List::from(&pieces) };
    let replies = session.call(&namespace, RequestWhich::BatchWrite(batch), &values.concat())?;
    let mut told = [None; 2];
    for reply in &replies {
        let response = reply.response()?;
        expect_status(response.status, Status::Ok, "a batch of writes")?;
        let ResponseWhich::BatchWrite(batch) = response.which else {
            fail!("a batch was answered with another arm")
        };
        for result in batch.results {
            if let Some(place) = told.get_mut(result.index as usize) {
                *place = Some(result.status);
            }
        }
    }
    // Which one is stored first is the server's affair.
    let stored = match told {
        [Some(Status::Ok), Some(Status::Conflict)] => &values[0],
        [Some(Status::Conflict), Some(Status::Ok)] => &values[1],
        _ => fail!("two values for one key in one batch were answered with {told:?}"),
    };
    expect_value(&mut session, &namespace, b"key", stored)?;
    let status = put(&mut session, &namespace, b"key", stored)?;
    expect_status(status, Status::Ok, "writing the stored one again")
}

// ---------------------------------------------------------------- leases and manifests

fn leases_stay(server: &Server) -> Outcome {
    let namespace = server.namespace();
    let lease = RequestWhich::Lookup(Lookup { key: b"key", lease_ms: 30_000 });
    let mut holder = server.connect()?;
    store(&mut holder, &namespace, b"key", b"value")?;
    expect_status(holder.status(&namespace, lease, &[])?, Status::Ok, "lookup")?;
    // Once the server has closed its side too, it knows of the end. That it does so is not what this is about.
    let _ = holder.stream.shutdown(Shutdown::Write);
    let _ = Frame::read(&mut holder.stream);
    drop(holder);
    let mut other = another_client(server)?;
    let told = delete(&mut other, &namespace, &[b"key"])?;
    ensure!(told != [Status::Ok], "a value was deleted whose lease was taken on a connection that ended");
    // The other client leases it too, and that takes nothing from the first one's lease.
    expect_status(other.status(&namespace, lease, &[])?, Status::Ok, "lookup by another client")?;
    let told = delete(&mut other, &namespace, &[b"key"])?;
    ensure!(told != [Status::Ok], "a value was deleted that another client leased before");
    expect_value(&mut other, &namespace, b"key", b"value")
}

fn born_leased(server: &Server) -> Outcome {
    let namespace = server.namespace();
    let (mut writer, mut other) = (server.connect()?, another_client(server)?);
    store(&mut writer, &namespace, b"key", b"value")?;
    let told = delete(&mut other, &namespace, &[b"key"])?;
    ensure!(told != [Status::Ok], "another client deleted a value that was just written");
    expect_value(&mut other, &namespace, b"key", b"value")?;
    // Its own lease holds nobody up, and what comes under the same key later is another value.
    let told = delete(&mut writer, &namespace, &[b"key"])?;
    ensure!(told == [Status::Ok], "its writer's delete told {told:?}");
    store(&mut other, &namespace, b"key", b"another")?;
    let told = delete(&mut writer, &namespace, &[b"key"])?;
    ensure!(told != [Status::Ok], "a value that another client has just written was deleted");
    let told = delete(&mut other, &namespace, &[b"key"])?;
    ensure!(told == [Status::Ok], "the delete of the second value by its writer told {told:?}");
    Ok(())
}

fn published_leased(server: &Server) -> Outcome {
    let namespace = server.namespace();
    let (mut writer, mut publisher) = (server.connect()?, another_client(server)?);
    store(&mut writer, &namespace, b"key", b"value")?;
    let chunks = [ChunkReference { key: b"key", length: 5, checksum: None }];
    let published = publish(&mut publisher, &namespace, &Manifest::new(b"name", b"body", &chunks))?;
    expect_status(published.status, Status::Ok, "PutManifest")?;
    let status = remove(&mut publisher, &namespace, b"name", 0)?;
    expect_status(status, Status::Ok, "DeleteManifest")?;
    // No manifest names it now, and its writer's own lease does not keep the writer from deleting it.
    let told = delete(&mut writer, &namespace, &[b"key"])?;
    let (promised, deleted) = (published.lease_ms > 0, told == [Status::Ok]);
    ensure!(!(promised && deleted), "a chunk was deleted that was leased for {} ms", published.lease_ms);
    Ok(())
}

fn large_generations(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let namespace = server.namespace();
    let put = |session: &mut Session, generation| {
        publish(session, &namespace, &Manifest { generation, ..Manifest::new(b"name", b"body", &[]) })
    };
    let half = 1 << 63;
    for generation in [1, 1 << 32, half - 1, half, half + 1] {
        let answer = put(&mut session, generation)?;
        expect_status(answer.status, Status::Ok, &format!("generation {generation:#x}"))?;
        ensure!(answer.generation == generation, "generation {generation:#x} is {:#x}", answer.generation);
    }
    for generation in [1, (1 << 32) + 1, half] {
        let answer = put(&mut session, generation)?;
        expect_status(answer.status, Status::StaleGeneration, &format!("generation {generation:#x}"))?;
        let status = super::calls::remove(&mut session, &namespace, b"name", generation)?;
        let what = format!("DeleteManifest of generation {generation:#x}");
        expect_status(status, Status::StaleGeneration, &what)?;
    }
    expect_manifest(&mut session, &namespace, b"name", (half + 1, b"body"))
}

fn full_frames(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, mut random) = (server.namespace(), server.random());
    for frames in [2, 3] {
        let body = random.bytes(frames * PAYLOAD_SIZE_BYTES_MAX as usize);
        let generation = expect_published(&mut session, &namespace, &Manifest::new(b"name", &body, &[]))?;
        expect_manifest(&mut session, &namespace, b"name", (generation, &body))?;
    }
    Ok(())
}
