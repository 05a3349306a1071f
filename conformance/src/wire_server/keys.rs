//! Keys: exists, lookup, delete, namespaces; and what is about the server itself.

use memkv_wire::checksum::{self, BLOCK_SIZE_BYTES};
use memkv_wire::*;

use super::calls::{
    Manifest, delete, expect_absent, expect_published, expect_status, expect_value, lengths, remove, store,
};
use super::{Server, ping};
use crate::case::{Case, Outcome};
use crate::{ensure, fail};

pub const CASES: &[Case<Server>] = &[
    Case::must("SRV-PING-1", &["MKV-PING-1"], "ping returns its echo", echoes),
    Case::must(
        "SRV-PING-2",
        &["MKV-REG-1", "MKV-PING-2"],
        "memory that cannot be registered is refused",
        regions,
    ),
    Case::must("SRV-STATS-1", &["MKV-MSG-7"], "only counters of the prefix are told", counters),
    Case::must("SRV-EX-1", &["MKV-EX-1"], "exists tells the length of each key, in order", exists),
    Case::must("SRV-DEL-1", &["MKV-DEL-1"], "delete tells of each key, in order", deletes),
    Case::must("SRV-DEL-2", &["MKV-DEL-1"], "what a manifest names is not deleted", referenced),
    Case::must("SRV-LOOK-1", &["MKV-LEASE-1"], "lookup tells length, checksums and a lease", lookup),
    Case::must("SRV-LEASE-1", &["MKV-LEASE-1"], "what another client leased is not deleted", leased),
    Case::must("SRV-NS-1", &["MKV-MSG-7"], "keys and names of two namespaces are different", namespaces),
    Case::must(
        "SRV-NS-2",
        &["MKV-MSG-6"],
        "keys and namespaces are any bytes, up to their limits",
        any_bytes,
    ),
];

fn echoes(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    [0, 1, 0x8000_0000_0000_0000, u64::MAX, 0x0102_0304_0506_0708]
        .into_iter()
        .try_for_each(|echo| ping(&mut session, echo))
}

fn regions(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    // A place in a region that nobody registered.
    let namespace = server.namespace();
    store(&mut session, &namespace, b"key", b"value")?;
    let which = DestinationWhich::Region(Region { id: 7, offset: 0, mac: None });
    let read = Read { key: b"key", offset: 0, length: 0, destination: Destination { which } };
    let status = session.status(&namespace, RequestWhich::Read(read), &[])?;
    let refused = matches!(status, Status::Invalid | Status::Unsupported);
    ensure!(refused, "a read into a region that was never registered was answered with {}", status.name());
    // No file can ride on this transport.
    let region = [RegionDescriptor { id: 7, length: 4096, which: RegionDescriptorWhich::SharedMemory }];
    let register = Ping { regions: List::from(&region), ..Ping::default() };
    let status = session.status(&[], RequestWhich::Ping(register), &[])?;
    expect_status(status, Status::Unsupported, "the registration of shared memory over TCP")?;
    ping(&mut session, 1)
}

fn counters(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    for prefix in ["", "no counter begins so"] {
        let replies = session.call(&[], RequestWhich::Stats(Stats { prefix }), &[])?;
        for reply in &replies {
            let response = reply.response()?;
            expect_status(response.status, Status::Ok, "stats")?;
            let ResponseWhich::Stats(stats) = response.which else {
                fail!("stats was answered with another arm")
            };
            let stray = stats.counters.iter().find(|counter| !counter.name.starts_with(prefix));
            ensure!(stray.is_none(), "a counter does not begin with {prefix:?}");
        }
    }
    Ok(())
}

fn exists(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, mut random) = (server.namespace(), server.random());
    let keys: Vec<Vec<u8>> = (0..40).map(|_| random.bytes(16)).collect();
    let mut expected = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        let length = if number % 3 == 1 { 1 + random.below(5000) } else { 0 };
        if length > 0 {
            store(&mut session, &namespace, key, &random.bytes(length))?;
        }
        expected.push(length as u64);
    }
    let asked: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let told = lengths(&mut session, &namespace, &asked)?;
    ensure!(told == expected, "exists told {told:?} instead of {expected:?}");
    // The same key twice has two answers.
    let twice = lengths(&mut session, &namespace, &[asked[1], asked[0], asked[1]])?;
    ensure!(twice == [expected[1], 0, expected[1]], "exists of a key asked for twice told {twice:?}");
    Ok(())
}

fn deletes(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let namespace = server.namespace();
    store(&mut session, &namespace, b"one", b"1")?;
    store(&mut session, &namespace, b"two", b"22")?;
    store(&mut session, &namespace, b"kept", b"333")?;
    let told = delete(&mut session, &namespace, &[b"missing", b"one", b"gone", b"two"])?;
    let expected = [Status::NotFound, Status::Ok, Status::NotFound, Status::Ok];
    ensure!(told == expected, "delete told {told:?}");
    expect_absent(&mut session, &namespace, b"one")?;
    expect_absent(&mut session, &namespace, b"two")?;
    expect_value(&mut session, &namespace, b"kept", b"333")?;
    let again = delete(&mut session, &namespace, &[b"one"])?;
    ensure!(again == [Status::NotFound], "deleting a key twice told {again:?}");
    // The name is free for another value.
    store(&mut session, &namespace, b"one", b"another value")?;
    expect_value(&mut session, &namespace, b"one", b"another value")
}

fn referenced(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let namespace = server.namespace();
    store(&mut session, &namespace, b"named", b"1")?;
    store(&mut session, &namespace, b"free", b"22")?;
    let chunks = [ChunkReference { key: b"named", length: 1, checksum: None }];
    expect_published(&mut session, &namespace, &Manifest::new(b"manifest", b"body", &chunks))?;
    let told = delete(&mut session, &namespace, &[b"free", b"named", b"missing"])?;
    ensure!(told == [Status::Ok, Status::Referenced, Status::NotFound], "delete told {told:?}");
    expect_value(&mut session, &namespace, b"named", b"1")?;
    let removed = remove(&mut session, &namespace, b"manifest", 0)?;
    expect_status(removed, Status::Ok, "DeleteManifest")?;
    let told = delete(&mut session, &namespace, &[b"named"])?;
    ensure!(told == [Status::Ok], "after its manifest was deleted, delete told {told:?}");
    Ok(())
}

fn lookup(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, mut random) = (server.namespace(), server.random());
    for length in [1, 4096, BLOCK_SIZE_BYTES, BLOCK_SIZE_BYTES + 1, 3 * BLOCK_SIZE_BYTES] {
        let (key, data) = (length.to_le_bytes(), random.bytes(length));
        store(&mut session, &namespace, &key, &data)?;
        let replies =
            session.call(&namespace, RequestWhich::Lookup(Lookup { key: &key, lease_ms: 2000 }), &[])?;
        let [reply] = replies.as_slice() else { fail!("lookup has {} frames of reply", replies.len()) };
        let response = reply.response()?;
        expect_status(response.status, Status::Ok, "lookup")?;
        let ResponseWhich::Lookup(told) = response.which else {
            fail!("lookup was answered with another arm")
        };
        ensure!(told.length == length as u64, "lookup tells {} bytes of {length}", told.length);
        let right = told.checksum.is_none_or(|sum| *sum == checksum::value_of(&data));
        ensure!(right, "lookup tells another checksum");
        let blocks: Vec<u8> = data.chunks(BLOCK_SIZE_BYTES).flat_map(checksum::block).collect();
        ensure!(told.block_checksums == blocks, "lookup of {length} bytes tells other checksums of blocks");
        ensure!(
            told.lease_ms > 0 && told.lease_ms <= limits::LEASE_MS_MAX,
            "the lease is {} ms",
            told.lease_ms
        );
    }
    Ok(())
}

fn leased(server: &Server) -> Outcome {
    let namespace = server.namespace();
    let mut own = server.connect()?;
    store(&mut own, &namespace, b"key", b"value")?;
    let lease = RequestWhich::Lookup(Lookup { key: b"key", lease_ms: 30_000 });
    expect_status(own.status(&namespace, lease, &[])?, Status::Ok, "lookup")?;
    let terms = crate::peer::session::Terms { client_id: [0x77; 16], ..server.terms()? };
    let mut other = crate::peer::session::Session::open(&server.target.address, &server.key, terms)?;
    let told = delete(&mut other, &namespace, &[b"key"])?;
    ensure!(told != [Status::Ok], "a value that another client leased was deleted");
    expect_value(&mut own, &namespace, b"key", b"value")
}

fn namespaces(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (here, there) = (server.namespace(), [server.namespace(), b"/".to_vec()].concat());
    store(&mut session, &here, b"key", b"here")?;
    expect_absent(&mut session, &there, b"key")?;
    store(&mut session, &there, b"key", b"over there")?;
    expect_value(&mut session, &here, b"key", b"here")?;
    expect_published(&mut session, &here, &Manifest::new(b"name", b"of here", &[]))?;
    super::calls::expect_no_manifest(&mut session, &there, b"name")?;
    // Joined, the two are the same bytes.
    let (long, short) = ([here.clone(), b"ab".to_vec()].concat(), [here.clone(), b"a".to_vec()].concat());
    store(&mut session, &long, b"c", b"long")?;
    expect_absent(&mut session, &short, b"bc")?;
    let told = delete(&mut session, &there, &[b"key"])?;
    ensure!(told == [Status::Ok], "delete told {told:?}");
    expect_value(&mut session, &here, b"key", b"here")
}

fn any_bytes(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (mut random, base) = (server.random(), server.namespace());
    let longest = [base.clone(), vec![0xff; 255 - base.len()]].concat();
    let keys = [
        vec![0],
        vec![0; 512],
        random.bytes(512),
        vec![0xff; 511],
        b"../../etc".to_vec(),
        vec![b'k', 0, b'k'],
    ];
    for namespace in [&base, &longest] {
        for key in &keys {
            store(&mut session, namespace, key, key)?;
        }
        for key in &keys {
            expect_value(&mut session, namespace, key, key)?;
        }
    }
    expect_absent(&mut session, &base, &[0, 0])
}
