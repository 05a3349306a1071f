//! Every operation against the real binary, in every storage mode, over TCP, over the local socket, and where there is a device over RDMA, from
//! one body of tests.

mod support;

use memkv_wire::*;
use support::*;

macro_rules! in_all_ways {
    ($($name:ident),* $(,)?) => {
        mod file {
            $(#[tokio::test] async fn $name() { super::$name((super::Mode::File, super::Wire::Tcp)).await; })*
        }
        mod memory {
            $(#[tokio::test] async fn $name() { super::$name((super::Mode::Memory, super::Wire::Tcp)).await; })*
        }
        #[cfg(target_os = "linux")]
        mod local {
            $(#[tokio::test] async fn $name() { super::$name((super::Mode::File, super::Wire::Local)).await; })*
        }
        #[cfg(target_os = "linux")]
        mod direct {
            $(#[tokio::test] async fn $name() { super::$name((super::Mode::Direct, super::Wire::Local)).await; })*
        }
        #[cfg(target_os = "linux")]
        mod over_rdma {
            $(#[tokio::test] async fn $name() {
                let test = concat!("over_rdma::", stringify!($name));
                super::in_the_guest(test, super::Wire::Rdma, super::$name).await;
            })*
        }
        #[cfg(target_os = "linux")]
        mod over_rdma_one_sided {
            $(#[tokio::test] async fn $name() {
                let test = concat!("over_rdma_one_sided::", stringify!($name));
                super::in_the_guest(test, super::Wire::OneSided, super::$name).await;
            })*
        }
    };
}

/// All kinds of storage over RDMA, where there is a device; elsewhere the test says that it is skipped.
#[cfg(target_os = "linux")]
async fn in_the_guest(test: &str, wire: Wire, run: impl AsyncFn((Mode, Wire))) {
    if rdma::device(test).is_some() {
        run((Mode::File, wire)).await;
        run((Mode::Memory, wire)).await;
        run((Mode::Block, wire)).await;
    }
}

in_all_ways!(
    values_of_every_size,
    ranges,
    batches_answer_each_item,
    piecewise_values,
    manifests_live_and_die,
    large_manifests,
    listings_come_in_pages,
    deletes_are_answered_each,
    ping_stats_and_what_is_unknown,
    requests_interleave,
);

async fn begin(how: (Mode, Wire)) -> (tempfile::TempDir, Server, Client) {
    let (directory, path) = how.0.directory();
    let server = Server::start_for(how.1, how.0, &path);
    let client = Client::connect_over(how.1, &server.address, 1).await;
    (directory, server, client)
}

//= MKV-WR-1 test
//= MKV-WR-3 test
//= MKV-RD-1 test
//= MKV-EX-1 test
async fn values_of_every_size(how: (Mode, Wire)) {
    let (_directory, _server, mut client) = begin(how).await;
    for (seed, length) in [1, 100, 4096, 65_537, BLOCK - 1, BLOCK, 3 * BLOCK + 77].into_iter().enumerate() {
        let key = format!("key {length}");
        let value = bytes(seed as u64, length);
        assert_eq!(client.write(key.as_bytes(), &value).await, Status::Ok);
        assert_eq!(client.write(key.as_bytes(), &value).await, Status::Ok);
        assert_eq!(client.write(key.as_bytes(), &bytes(99, length)).await, Status::Conflict);
        assert!(client.read(key.as_bytes(), 0, 0).await.as_deref() == Ok(&value[..]), "{length}");
        assert_eq!(client.exists(&[b"none", key.as_bytes()]).await, [0, length as u64]);
    }
    assert_eq!(client.stat("chunks_stored").await, 7);
    let other = client.namespace.clone();
    client.namespace = b"another".to_vec();
    assert_eq!(client.exists(&[b"key 1"]).await, [0]);
    client.namespace = other;
}

//= MKV-RD-3 test
async fn ranges(how: (Mode, Wire)) {
    let (_directory, _server, mut client) = begin(how).await;
    let value = bytes(1, 2 * BLOCK + 500);
    client.write(b"k", &value).await;
    for (offset, length) in [(0, 10), (BLOCK - 3, 6), (2 * BLOCK + 499, 100), (1, 0)] {
        let end = if length == 0 { value.len() } else { value.len().min(offset + length) };
        let got = client.read(b"k", offset as u64, length as u64).await;
        assert!(got.as_deref() == Ok(&value[offset..end]), "{offset} {length}");
    }
    assert_eq!(client.read(b"k", value.len() as u64, 0).await, Err(Status::Invalid));
    assert_eq!(client.read(b"none", 0, 0).await, Err(Status::NotFound));
}

//= MKV-BATCH-1 test
//= MKV-BATCH-2 test
//= MKV-BATCH-4 test
async fn batches_answer_each_item(how: (Mode, Wire)) {
    let (_directory, _server, mut client) = begin(how).await;
    let keys: Vec<Vec<u8>> = (0..40).map(|n| format!("item {n}").into_bytes()).collect();
    let values: Vec<Vec<u8>> = (0..40).map(|n| bytes(n, 1 + 997 * n as usize)).collect();
    let sums: Vec<[u8; 16]> = values.iter().map(|value| memkv_wire::checksum::block(value)).collect();
    client.write(&keys[7], b"something else").await;
    // Two frames; item 9 has no piece, item 11 a wrong checksum, item 7 conflicts.
    let request_id = client.next_id();
    for half in [0..20_usize, 20..40] {
        let items: Vec<WriteItem<'_>> = half
            .clone()
            .map(|n| WriteItem { key: &keys[n], length: values[n].len() as u64, checksum: None })
            .collect();
        let named: Vec<usize> = half.clone().filter(|n| *n != 9).collect();
        let pieces: Vec<Piece<'_>> = named
            .iter()
            .map(|n| piece(*n as u32, 0, values[*n].len(), if *n == 11 { &[5; 16] } else { &sums[*n] }))
            .collect();
        let payload: Vec<u8> = named.iter().flat_map(|n| values[*n].clone()).collect();
        let which =
            RequestWhich::BatchWrite(BatchWrite { items: List::from(&items), pieces: List::from(&pieces) });
        client.send(request_id, half.end == 40, which, &payload).await;
    }
    let frames = client.finish(request_id).await.unwrap();
    let mut results = [None; 40];
    for frame in &frames {
        assert_eq!(frame.status(), Status::Ok);
        frame.with(|response| {
            let ResponseWhich::BatchWrite(reply) = response.which else { panic!("another arm") };
            for result in reply.results.iter() {
                assert!(results[result.index as usize].replace(result.status).is_none(), "answered once");
            }
        });
    }
    for (n, status) in results.iter().enumerate() {
        let expected = match n {
            7 => Status::Conflict,
            9 => Status::Invalid,
            11 => Status::ChecksumMismatch,
            _ => Status::Ok,
        };
        assert_eq!(*status, Some(expected), "{n}");
    }
    // All of them read in one batch, with a range.
    let items: Vec<ReadItem<'_>> = keys
        .iter()
        .map(|key| ReadItem { key, offset: 0, length: 0, destination: Destination::default() })
        .collect();
    let frames = client.call(RequestWhich::BatchRead(BatchRead { items: List::from(&items) }), &[]).await;
    let mut got = vec![Vec::new(); 40];
    let mut statuses = [None; 40];
    for frame in &frames {
        frame.with(|response| {
            let ResponseWhich::BatchRead(reply) = response.which else { panic!("another arm") };
            collect(reply.pieces, &frame.payload, |index, _, bytes| got[index as usize] = bytes);
            for result in reply.results.iter() {
                assert!(statuses[result.index as usize].replace(result.status).is_none());
            }
        });
    }
    for n in 0..40 {
        match n {
            9 | 11 => assert_eq!(statuses[n], Some(Status::NotFound), "{n}"),
            7 => assert_eq!(got[n], b"something else"),
            _ => assert!(statuses[n] == Some(Status::Ok) && got[n] == values[n], "{n}"),
        }
    }
}

//= MKV-ALLOC-2 test
//= MKV-COMMIT-1 test
async fn piecewise_values(how: (Mode, Wire)) {
    let (_directory, _server, mut client) = begin(how).await;
    let value = bytes(4, BLOCK + 1);
    let sums = sums(&value);
    let which =
        RequestWhich::Allocate(Allocate { key: b"k", length: value.len() as u64, ..Default::default() });
    let frames = client.call(which, &[]).await;
    let allocation = frames[0].with(|response| match response.which {
        ResponseWhich::Allocate(reply) => reply.allocation,
        _ => panic!("another arm"),
    });
    for block in [1, 0] {
        let part = &value[block * BLOCK..value.len().min((block + 1) * BLOCK)];
        let pieces = [piece(0, block, part.len(), &sums[block])];
        let which = RequestWhich::Write(Write {
            key: b"k",
            length: value.len() as u64,
            checksum: None,
            allocation,
            pieces: List::from(&pieces),
        });
        assert_eq!(client.call(which, part).await[0].status(), Status::Ok);
    }
    assert_eq!(client.exists(&[b"k"]).await, [0]);
    let which = RequestWhich::Commit(Commit { allocation, checksum: Some(&checksum(&value)) });
    assert_eq!(client.call(which, &[]).await[0].status(), Status::Ok);
    assert!(client.read(b"k", 0, 0).await.as_deref() == Ok(&value[..]));
    let frames = client.call(RequestWhich::Lookup(Lookup { key: b"k", lease_ms: 500 }), &[]).await;
    frames[0].with(|response| {
        let ResponseWhich::Lookup(reply) = response.which else { panic!("another arm") };
        assert_eq!((reply.length, reply.lease_ms), (value.len() as u64, 500));
        assert_eq!(reply.checksum, Some(&checksum(&value)));
        assert_eq!(reply.block_checksums, sums.concat());
    });
}

//= MKV-PUT-1 test
//= MKV-PUT-3 test
//= MKV-PUT-5 test
//= MKV-PUT-6 test
//= MKV-GET-1 test
//= MKV-DELM-1 test
//= MKV-DELM-2 test
async fn manifests_live_and_die(how: (Mode, Wire)) {
    let (_directory, _server, mut client) = begin(how).await;
    let values: Vec<Vec<u8>> = (0..4).map(|n| bytes(n, 1000 + n as usize)).collect();
    let keys = [b"a", b"b", b"c", b"d"];
    let chunks: Vec<ChunkReference<'_>> = keys
        .iter()
        .zip(&values)
        .map(|(key, value)| ChunkReference { key: *key, length: value.len() as u64, checksum: None })
        .collect();
    client.write(b"a", &values[0]).await;
    client.write(b"c", &values[2]).await;
    assert_eq!(client.put_manifest(b"m", 0, b"body", &chunks).await, (Status::MissingChunks, 0, vec![1, 3]));
    assert_eq!(client.get_manifest(b"m").await, Err(Status::NotFound));
    client.write(b"b", &values[1]).await;
    client.write(b"d", &bytes(50, 7)).await;
    assert_eq!(client.put_manifest(b"m", 0, b"body", &chunks).await, (Status::Conflict, 0, vec![3]));
    assert_eq!(client.delete(&[b"d"]).await, [Status::Ok]);
    client.write(b"d", &values[3]).await;
    let (status, first, missing) = client.put_manifest(b"m", 0, b"body", &chunks).await;
    assert_eq!((status, missing), (Status::Ok, vec![]));
    assert_eq!(client.get_manifest(b"m").await, Ok((first, b"body".to_vec())));
    // The same generation again is fine with the same body, stale with another.
    assert_eq!(client.put_manifest(b"m", first, b"body", &chunks).await.0, Status::Ok);
    assert_eq!(client.put_manifest(b"m", first, b"other", &chunks).await.0, Status::StaleGeneration);
    assert_eq!(client.delete(&[b"a", b"none"]).await, [Status::Referenced, Status::NotFound]);
    // A later one replaces it and drops the old references.
    let (status, second, _) = client.put_manifest(b"m", 0, b"", &chunks[1..]).await;
    assert!(status == Status::Ok && second > first);
    assert_eq!(client.get_manifest(b"m").await, Ok((second, Vec::new())));
    assert_eq!(client.delete(&[b"a"]).await, [Status::Ok]);
    assert_eq!(client.stat("manifests").await, 1);
    let delete = |generation| RequestWhich::DeleteManifest(DeleteManifest { name: b"m", generation });
    assert_eq!(client.call(delete(first), &[]).await[0].status(), Status::StaleGeneration);
    assert_eq!(client.call(delete(0), &[]).await[0].status(), Status::Ok);
    assert_eq!(client.call(delete(0), &[]).await[0].status(), Status::NotFound);
    assert_eq!(client.get_manifest(b"m").await, Err(Status::NotFound));
    assert_eq!(client.exists(&[b"b"]).await, [1001], "chunks stay until their space is needed");
}

/// A body in frames that are no whole blocks, and more references than one frame lists.
async fn large_manifests(how: (Mode, Wire)) {
    let (_directory, _server, mut client) = begin(how).await;
    client.write(b"only", &bytes(1, 64)).await;
    let names: Vec<Vec<u8>> = (0..5000).map(|n| format!("chunk {n}").into_bytes()).collect();
    let chunks: Vec<ChunkReference<'_>> =
        names.iter().map(|key| ChunkReference { key, length: 64, checksum: None }).collect();
    let body = bytes(3, 2 * BLOCK + 12_345);
    let sum = checksum(&body);
    for missing in [true, false] {
        let request_id = client.next_id();
        let step = if missing { 700_001 } else { BLOCK };
        let parts: Vec<&[u8]> = body.chunks(step).collect();
        for (number, part) in parts.iter().enumerate() {
            let references = match (missing, number) {
                (true, 0) => &chunks[..4096],
                (true, 1) => &chunks[4096..],
                _ => &[],
            };
            let which = RequestWhich::PutManifest(put_manifest(b"big", 0, &body, &sum, references));
            client.send(request_id, number + 1 == parts.len(), which, part).await;
        }
        let frames = client.finish(request_id).await.unwrap();
        let (status, _, places) = put_outcome(&frames);
        match missing {
            true => {
                assert_eq!(status, Status::MissingChunks);
                assert_eq!(places, (0..5000).collect::<Vec<u32>>());
            }
            false => assert_eq!(status, Status::Ok),
        }
    }
    let (_, got) = client.get_manifest(b"big").await.unwrap();
    assert!(got == body);
    // Fragments that are no blocks are joined.
    let request_id = client.next_id();
    let parts: Vec<&[u8]> = body.chunks(333_333).collect();
    for (number, part) in parts.iter().enumerate() {
        let which = RequestWhich::PutManifest(put_manifest(b"odd", 0, &body, &sum, &[]));
        client.send(request_id, number + 1 == parts.len(), which, part).await;
    }
    assert_eq!(put_outcome(&client.finish(request_id).await.unwrap()).0, Status::Ok);
    assert!(client.get_manifest(b"odd").await.unwrap().1 == body);
}

//= MKV-LIST-1 test
async fn listings_come_in_pages(how: (Mode, Wire)) {
    let (_directory, _server, mut client) = begin(how).await;
    let long = "x".repeat(900);
    let mut names: Vec<Vec<u8>> = (0..400).map(|n| format!("s/{n:04}{long}").into_bytes()).collect();
    names.push(b"t/other".to_vec());
    for name in &names {
        assert_eq!(client.put_manifest(name, 0, b"", &[]).await.0, Status::Ok);
    }
    for (prefix, count_max, expected) in
        [("s/", 0, &names[..400]), ("s/", 7, &names[..400]), ("", 1000, &names[..])]
    {
        let mut listed: Vec<Vec<u8>> = Vec::new();
        loop {
            let cursor = listed.last().cloned().unwrap_or_default();
            let which = RequestWhich::ListManifests(ListManifests {
                prefix: prefix.as_bytes(),
                cursor: &cursor,
                count_max,
            });
            let frames = client.call(which, &[]).await;
            let more = frames[0].with(|response| {
                let ResponseWhich::ListManifests(reply) = response.which else { panic!("another arm") };
                listed.extend(reply.entries.iter().map(|entry| entry.name.to_vec()));
                reply.more
            });
            if !more {
                break;
            }
        }
        assert!(listed == expected, "{prefix} {count_max}: {} names", listed.len());
    }
}

//= MKV-DEL-1 test
async fn deletes_are_answered_each(how: (Mode, Wire)) {
    let (_directory, _server, mut client) = begin(how).await;
    for n in 0..10_u8 {
        client.write(&[n], &bytes(u64::from(n), 10)).await;
    }
    let keys: Vec<[u8; 1]> = (0..20).map(|n| [n]).collect();
    let request_id = client.next_id();
    for half in [&keys[..10], &keys[10..]] {
        let keys: Vec<&[u8]> = half.iter().map(|key| &key[..]).collect();
        let which = RequestWhich::Delete(Delete { keys: List::from(&keys[..]) });
        client.send(request_id, half[0] == [10], which, &[]).await;
    }
    let frames = client.finish(request_id).await.unwrap();
    let mut statuses = Vec::new();
    for frame in &frames {
        frame.with(|response| {
            let ResponseWhich::Delete(reply) = response.which else { panic!("another arm") };
            statuses.extend(reply.statuses.iter());
        });
    }
    assert_eq!(statuses, [vec![Status::Ok; 10], vec![Status::NotFound; 10]].concat());
}

//= MKV-PING-1 test
//= MKV-MSG-5 test
async fn ping_stats_and_what_is_unknown(how: (Mode, Wire)) {
    let (_directory, _server, mut client) = begin(how).await;
    let ping = |echo| RequestWhich::Ping(Ping { echo, ..Default::default() });
    let frames = client.call(ping(u64::MAX - 3), &[]).await;
    frames[0].with(|response| match response.which {
        ResponseWhich::Ping(reply) => assert_eq!(reply.echo, u64::MAX - 3),
        _ => panic!("another arm"),
    });
    let regions = [RegionDescriptor { id: 1, length: 1, which: RegionDescriptorWhich::SharedMemory }];
    let which = RequestWhich::Ping(Ping { echo: 1, regions: List::from(&regions), ..Default::default() });
    // Over TCP nothing can be registered; over the local socket the file is missing.
    let expected = if how.1 != Wire::Local { Status::Unsupported } else { Status::Invalid };
    assert_eq!(client.call(which, &[]).await[0].status(), expected);
    assert_eq!(client.call(RequestWhich::Unknown(4711), &[]).await[0].status(), Status::UnknownOperation);
    assert_eq!(client.call(ping(1), &[]).await[0].status(), Status::Ok);
    let frames = client.call(RequestWhich::Stats(Stats { prefix: "" }), &[]).await;
    frames[0].with(|response| {
        let ResponseWhich::Stats(reply) = response.which else { panic!("another arm") };
        let names: Vec<&str> = reply.counters.iter().map(|counter| counter.name).collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "sorted and unlike");
    });
    assert_eq!(client.stat("connections").await, 1);
}

/// Frames of several requests in turn, on one connection; every reply is the right one's.
//= MKV-MSG-2 test
async fn requests_interleave(how: (Mode, Wire)) {
    let (_directory, _server, mut client) = begin(how).await;
    let values: Vec<Vec<u8>> = (0..6).map(|n| bytes(n, 2 * BLOCK + n as usize)).collect();
    let sums: Vec<Vec<[u8; 16]>> = values.iter().map(|value| sums(value)).collect();
    let ids: Vec<u32> = (0..6).map(|_| client.next_id()).collect();
    for block in 0..3 {
        for n in 0..6 {
            let part = values[n].chunks(BLOCK).nth(block).unwrap_or_default();
            let one = [piece(0, block, part.len(), sums[n].get(block).unwrap_or(&[0; 16]))];
            let pieces = if part.is_empty() { List::empty() } else { List::from(&one) };
            let key = [n as u8];
            let which = RequestWhich::Write(Write {
                key: &key,
                length: values[n].len() as u64,
                pieces,
                ..Default::default()
            });
            client.send(ids[n], block == 2, which, part).await;
        }
    }
    let mut done = Vec::new();
    while done.len() < 6 {
        let frame = client.next().await.unwrap();
        assert!(frame.last && frame.status() == Status::Ok);
        done.push(frame.request_id);
    }
    done.sort_unstable();
    assert_eq!(done, ids);
    for (n, value) in values.iter().enumerate() {
        assert!(client.read(&[n as u8], 0, 0).await.as_deref() == Ok(&value[..]));
    }
}
