//! A store with little memory, against a real server.

use super::*;

#[allow(dead_code, reason = "other tests use the rest of it")]
#[path = "../../tests/plugin/server.rs"]
mod server;

use server::Server;

/// The smallest that a pool may be.
const RECEIVE_SIZE_BYTES: usize = 16 << 20;
const CHUNK_SIZE_BYTES: usize = 64 << 10;

fn store(server: &Server) -> Store {
    let mut config = server.config("ns");
    config.receive_size_bytes_max = RECEIVE_SIZE_BYTES;
    config.timeout_ms = 20_000;
    Store::connect(config, || ()).expect("the server is up")
}

fn hash(seed: u32) -> Hash {
    Hash::new(&seed.to_le_bytes()).expect("a hash")
}

fn data(seed: u32, size_bytes: usize) -> Vec<u8> {
    let words = (0..size_bytes.div_ceil(4) as u32).flat_map(|place| (place ^ (seed << 24)).to_le_bytes());
    words.take(size_bytes).collect()
}

fn flush(store: &Store) {
    store.put_manifest(b"flush", b"").expect("the server is up");
}

#[test]
fn a_chunk_may_be_larger_than_all_that_is_received_at_a_time() {
    let test = "a_chunk_may_be_larger_than_all_that_is_received_at_a_time";
    let Some(server) = Server::start(test) else { return };
    let store = store(&server);
    let chunk = data(1, RECEIVE_SIZE_BYTES + (4 << 20) + 12_345);
    store.put_chunk(hash(1), &chunk).expect("memory");
    flush(&store);
    let is_read = || store.get_chunk(hash(1)).expect("stored").bytes_mut() == chunk;
    assert!(is_read(), "its length is not known");
    store.prefetch_chunks(hash(1).as_bytes(), hash(1).as_bytes().len()).expect("the server is up");
    // As a manifest says, or says wrongly; read by several at once.
    for size_bytes in [chunk.len() - 1, chunk.len() + 1, chunk.len()] {
        let known = stored::Chunk { size_bytes: size_bytes as u64, checksum: None };
        store.learn(store.sending(), 60_000, [(hash(1), known)].into_iter());
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..2).map(|_| scope.spawn(is_read)).collect();
            assert!(readers.into_iter().all(|reader| reader.join().expect("no panic")), "{size_bytes}");
        });
    }
    let known = stored::Chunk { size_bytes: chunk.len() as u64, checksum: None };
    store.learn(store.sending(), 60_000, [(hash(2), known)].into_iter());
    assert_eq!(store.get_chunk(hash(2)).map(|_| ()), Err(Failure::NotFound));
}

/// All that is received at a time holds a part of them, and they hold the whole of it.
#[test]
fn prefetched_chunks_that_nobody_takes_keep_no_others_from_coming() {
    let test = "prefetched_chunks_that_nobody_takes_keep_no_others_from_coming";
    let Some(server) = Server::start(test) else { return };
    let store = store(&server);
    let count = (2 * RECEIVE_SIZE_BYTES / CHUNK_SIZE_BYTES) as u32;
    for seed in 0..=count {
        store.put_chunk(hash(seed), &data(seed, CHUNK_SIZE_BYTES)).expect("memory");
    }
    flush(&store);
    let hashes: Vec<u8> = (0..count).flat_map(u32::to_le_bytes).collect();
    store.prefetch_chunks(&hashes, 4).expect("the server is up");
    for seed in [count - 1, count] {
        let mut chunk = store.get_chunk(hash(seed)).expect("stored");
        assert!(chunk.bytes_mut() == data(seed, CHUNK_SIZE_BYTES));
    }
}
