//! The Rust client against a real server.

use std::time::Duration;

use memkv_client::blocking::Client;
use memkv_client::error::{ApiMisuse, ConnectionError, Error};
use memkv_client::{Allocation, Buf, Published, PutItem, ReadRange, Reference};
use memkv_wire::Status;
use memkv_wire::mac::Key;

use crate::server::Server;
use crate::sessions::bytes;

fn parts(value: &[u8]) -> Vec<Buf> {
    value.chunks(700_001).map(|part| Buf::copy_of(part).expect("memory")).collect()
}

fn joined(parts: &[Buf]) -> Vec<u8> {
    parts.iter().map(|part| &part[..]).collect::<Vec<_>>().concat()
}

fn refused(result: Result<(), Error>) -> Status {
    match result {
        Err(Error::Storage(error)) => error.status,
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_are_kept_as_they_are() {
    let Some(server) = Server::start("values_are_kept_as_they_are") else { return };
    let client = server.client("ns");
    let value = bytes(1, 1, (3 << 20) + 4321);
    client.put(b"key", &parts(&value)).expect("stored");
    client.put(b"key", &parts(&value)).expect("stored already");
    assert_eq!(refused(client.put(b"key", &parts(b"other"))), Status::Conflict);
    assert!(client.get(b"key").expect("up").expect("stored").to_vec() == value);
    assert!(client.get(b"no key").expect("up").is_none());
    assert!(server.client("other namespace").get(b"key").expect("up").is_none());
    for (offset, length) in [(0, 10), (1 << 20, 1 << 20), (5, 3 << 20), ((3 << 20) + 4000, 0), (7, 1 << 29)] {
        let range = ReadRange { key: b"key", offset, length };
        let end = if length == 0 { value.len() } else { value.len().min((offset + length) as usize) };
        let read = client.get_range(range).expect("up").expect("stored");
        assert!(read.to_vec() == value[offset as usize..end], "{offset} {length}");
    }
    let mut buffer = vec![0; value.len() + 5];
    assert_eq!(client.get_into(b"key", &mut buffer), Ok(Some(value.len())));
    assert!(buffer[..value.len()] == value);
    assert_eq!(client.get_into(b"no key", &mut buffer), Ok(None));
    for short in [0, 10] {
        let small = client.get_into(b"key", &mut buffer[..short]);
        let (needed_bytes, buffer_bytes) = (value.len() as u64, short as u64);
        assert_eq!(small, Err(Error::Misuse(ApiMisuse::BufferTooSmall { needed_bytes, buffer_bytes })));
    }
    let found = client.lookup(b"key", 0).expect("up").expect("stored");
    assert_eq!(found.size_bytes, value.len() as u64);
    assert_eq!(client.lookup(b"no key", 0), Ok(None));
}

/// Longer than one message reads: in parts, over several connections.
#[test]
fn long_values_are_read_in_parts() {
    let Some(server) = Server::start("long_values_are_read_in_parts") else { return };
    let client = server.client("ns");
    let value = bytes(6, 1, (21 << 20) + 1234);
    client.put(b"key", &parts(&value)).expect("stored");
    // The first one does not know how long the value is, the second one does.
    for _ in 0..2 {
        assert!(client.get(b"key").expect("up").expect("stored").to_vec() == value);
    }
    for (offset, length) in [(0, 9 << 20), (3 << 20, 17 << 20), (12_345_678, 0), (7, 1 << 29)] {
        let range = ReadRange { key: b"key", offset, length };
        let end = if length == 0 { value.len() } else { value.len().min((offset + length) as usize) };
        let read = client.get_range(range).expect("up").expect("stored");
        assert!(read.to_vec() == value[offset as usize..end], "{offset} {length}");
    }
    let mut buffer = vec![0; value.len()];
    assert_eq!(client.get_into(b"key", &mut buffer), Ok(Some(value.len())));
    assert!(buffer == value);
    let many = client.get_many(&[b"key", b"none"]).expect("up");
    assert!(many[0].as_ref().expect("stored").as_ref().expect("stored").to_vec() == value);
    assert_eq!(client.get_into(b"none", &mut buffer), Ok(None));
}

/// Longer than one message writes: an allocation, in parts, over several connections.
#[test]
fn long_values_are_written_in_parts() {
    let Some(server) = Server::start("long_values_are_written_in_parts") else { return };
    let client = server.client("ns");
    let value = bytes(7, 1, (35 << 20) + 77);
    client.put(b"key", &parts(&value)).expect("stored");
    assert!(client.get(b"key").expect("up").expect("stored").to_vec() == value);
    client.put(b"key", &parts(&value)).expect("stored already");
    let other = bytes(8, 1, value.len());
    assert_eq!(refused(client.put(b"key", &parts(&other))), Status::Conflict);
    assert_eq!(server.counter("values_stored"), 1);
}

//= MKV-BATCH-1 test
#[test]
fn items_of_a_batch_succeed_and_fail_by_themselves() {
    let Some(server) = Server::start("items_of_a_batch_succeed_and_fail_by_themselves") else { return };
    let client = server.client("ns");
    // More than a message holds, so that several go out over several connections.
    let keys: Vec<Vec<u8>> = (0..5000u32).map(|i| format!("key {i}").into_bytes()).collect();
    let values: Vec<Vec<Buf>> =
        (0..5000).map(|i| parts(&bytes(2, i, if i % 500 == 0 { 1_500_000 } else { 50 }))).collect();
    client.put(&keys[7], &parts(b"another value")).expect("stored");
    let items: Vec<_> = keys.iter().zip(&values).map(|(key, parts)| PutItem::new(key, parts)).collect();
    let results = client.put_many(&items).expect("up");
    for (index, result) in results.into_iter().enumerate() {
        match index {
            7 => assert_eq!(refused(result), Status::Conflict),
            _ => assert_eq!(result, Ok(())),
        }
    }
    let mut asked: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    asked.insert(3, b"absent");
    let read = client.get_many(&asked).expect("up");
    for (index, value) in read.into_iter().enumerate() {
        let value = value.expect("no damage").map(|value| value.to_vec());
        match index {
            3 => assert_eq!(value, None),
            8 => assert_eq!(value.as_deref(), Some(&b"another value"[..])),
            _ => assert!(value == Some(joined(&values[index - usize::from(index > 3)]))),
        }
    }
    let lengths = client.exists(&asked[..4000]).expect("up");
    assert_eq!((lengths[0], lengths[1], lengths[3], lengths[8]), (1_500_000, 50, 0, 13));
    let mut buffers = vec![vec![0; 60]; 3];
    let mut slices: Vec<&mut [u8]> = buffers.iter_mut().map(Vec::as_mut_slice).collect();
    let into = client.get_many_into(&[&keys[1], b"absent", &keys[0]], &mut slices).expect("up");
    let too_small = Error::Misuse(ApiMisuse::BufferTooSmall { needed_bytes: 1_500_000, buffer_bytes: 60 });
    assert_eq!(into, [Ok(Some(50)), Ok(None), Err(too_small)]);
    assert!(buffers[0][..50] == joined(&values[1]));
    assert_eq!(client.delete(&[&keys[1], b"absent"]), Ok(vec![Status::Ok, Status::NotFound]));
    assert_eq!(client.exists(&[&keys[1]]), Ok(vec![0]));
}

/// Told at once, and not when the time is up; in memory of the caller's own it is read all the same.
#[test]
fn a_value_that_cannot_be_held_is_refused() {
    let Some(server) = Server::start("a_value_that_cannot_be_held_is_refused") else { return };
    let mut config = server.config("ns");
    config.receive_size_bytes_max = 16 << 20;
    let client = Client::connect(config).expect("the server is up");
    let value = bytes(4, 1, 24 << 20);
    server.client("ns").put(b"long", &parts(&value)).expect("stored");
    let needed_bytes = value.len() as u64;
    let beyond =
        |needed_bytes| Error::Misuse(ApiMisuse::BeyondMemory { needed_bytes, held_bytes_max: 16 << 20 });
    assert_eq!(client.get(b"long").map(|_| ()), Err(beyond(needed_bytes)));
    let range = |offset, length| ReadRange { key: b"long", offset, length };
    assert_eq!(client.get_range(range(7, 0)).map(|_| ()), Err(beyond(needed_bytes - 7)));
    let part = client.get_range(range(20 << 20, 9 << 20)).expect("up").expect("stored");
    assert!(part.to_vec() == value[20 << 20..]);
    let mut buffer = vec![0; value.len()];
    assert_eq!(client.get_into(b"long", &mut buffer), Ok(Some(value.len())));
    assert!(buffer == value);
}

/// Two messages' worth of replies, four times what may be held at once: neither keeps the other from arriving.
#[test]
fn reading_into_buffers_needs_no_more_memory_than_allowed() {
    let Some(server) = Server::start("reading_into_buffers_needs_no_more_memory_than_allowed") else {
        return;
    };
    let mut config = server.config("ns");
    config.receive_size_bytes_max = 16 << 20;
    let client = Client::connect(config).expect("the server is up");
    let keys: Vec<Vec<u8>> = (0..1000u32).map(|i| i.to_le_bytes().to_vec()).collect();
    let values: Vec<Vec<Buf>> = (0..1000).map(|i| parts(&bytes(5, i, 65_536))).collect();
    let items: Vec<_> = keys.iter().zip(&values).map(|(key, parts)| PutItem::new(key, parts)).collect();
    assert!(client.put_many(&items).expect("up").iter().all(Result::is_ok));
    let mut buffers = vec![vec![0; 65_536]; 1000];
    let mut slices: Vec<&mut [u8]> = buffers.iter_mut().map(Vec::as_mut_slice).collect();
    let asked: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let read = client.get_many_into(&asked, &mut slices).expect("up");
    assert!(read.iter().all(|length| *length == Ok(Some(65_536))));
    assert!(buffers.iter().zip(&values).all(|(buffer, value)| *buffer == joined(value)));
}

#[test]
fn a_value_may_be_written_piecewise() {
    let Some(server) = Server::start("a_value_may_be_written_piecewise") else { return };
    let client = server.client("ns");
    let value = bytes(3, 1, (2 << 20) + 99);
    let size_bytes = value.len() as u64;
    let Allocation::Made { id, .. } = client.allocate(b"key", size_bytes, 30_000).expect("up") else {
        panic!("it is not there yet");
    };
    let tail = Buf::copy_of(&value[1 << 20..]).expect("memory");
    client.write_at(b"key", id, size_bytes, 1 << 20, &[tail]).expect("written");
    assert_eq!(refused(client.commit(id)), Status::Invalid, "not whole yet");
    assert!(client.get(b"key").expect("up").is_none());
    let head = Buf::copy_of(&value[..1 << 20]).expect("memory");
    client.write_at(b"key", id, size_bytes, 0, &[head]).expect("written");
    client.commit(id).expect("whole");
    assert!(client.get(b"key").expect("up").expect("stored").to_vec() == value);
    assert_eq!(client.allocate(b"key", size_bytes, 0), Ok(Allocation::Present));
}

#[test]
fn manifests_are_published_listed_and_deleted() {
    let Some(server) = Server::start("manifests_are_published_listed_and_deleted") else { return };
    let client = server.client("ns");
    client.put(b"there", &parts(b"bytes")).expect("stored");
    let reference = |key, length| Reference { key, length, checksum: None };
    let references = [reference(&b"there"[..], 5), reference(b"absent", 9)];
    let published = client.put_manifest(b"name", 0, &references, &parts(b"body")).expect("up");
    assert!(matches!(published, Published::Missing { ref chunks, .. } if *chunks == [1]), "{published:?}");
    let conflict = client.put_manifest(b"name", 0, &[reference(b"there", 6)], &[]).expect("up");
    assert_eq!(conflict, Published::Conflict { chunks: vec![0] });
    assert!(client.get_manifest(b"name", 0).expect("up").is_none());
    let body = bytes(4, 1, (2 << 20) + 5);
    let Published::Committed { generation, .. } =
        client.put_manifest(b"name", 0, &references[..1], &parts(&body)).expect("up")
    else {
        panic!("all chunks are there");
    };
    let stale = client.put_manifest(b"name", generation, &[], &parts(b"other")).expect("up");
    assert_eq!(stale, Published::Stale { generation });
    let stored = client.get_manifest(b"name", 0).expect("up").expect("stored");
    assert!(stored.body.to_vec() == body && stored.generation == generation);
    assert_eq!(client.delete(&[b"there"]), Ok(vec![Status::Referenced]));
    for name in 0..25 {
        client.put_manifest(format!("page/{name:02}").as_bytes(), 0, &[], &[]).expect("up");
    }
    let mut names = Vec::new();
    let mut cursor = Vec::new();
    loop {
        let page = client.list_manifests(b"page/", &cursor, 10).expect("up");
        names.extend(page.entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()));
        cursor = page.entries.last().map(|entry| entry.name.to_vec()).unwrap_or_default();
        if !page.more {
            break;
        }
    }
    assert_eq!(names, (0..25).map(|name| format!("page/{name:02}")).collect::<Vec<_>>());
    assert_eq!(client.delete_manifest(b"name", 0), Ok(true));
    assert_eq!(client.delete_manifest(b"name", 0), Ok(false));
    assert_eq!(client.delete(&[b"there"]), Ok(vec![Status::Ok]));
}

#[test]
fn a_client_survives_its_server_and_waits_no_longer_than_it_was_told() {
    let test = "a_client_survives_its_server_and_waits_no_longer_than_it_was_told";
    let Some(mut server) = Server::start(test) else { return };
    let client = server.client("ns");
    client.put(b"key", &parts(b"value")).expect("stored");
    server.kill();
    let hasty = client.with_timeout(Duration::from_millis(300));
    let Err(Error::Timeout { timeout_ms: 300, last: Some(_) }) = hasty.get(b"key") else {
        panic!("there is no server");
    };
    server.start_again();
    assert_eq!(client.get(b"key").expect("up").map(|value| value.to_vec()).as_deref(), Some(&b"value"[..]));
    assert!(client.ping().is_ok());
    let counters = client.counters();
    assert!(counters.round_trips >= 4 && counters.connections >= 2 && counters.sent_bytes > 0);
}

//= MKV-CONN-8 test
#[test]
fn another_key_is_refused_with_a_reason() {
    let Some(server) = Server::start("another_key_is_refused_with_a_reason") else { return };
    let mut config = server.config("ns");
    config.key = Key::from_bytes([7; 32]);
    match Client::connect(config) {
        Err(Error::Connection(error @ ConnectionError::Setup(_))) => {
            assert!(error.to_string().contains("MEMKV_AUTH_KEY"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}
