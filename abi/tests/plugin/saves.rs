//! What saving and restoring costs and promises.

use std::sync::Barrier;

use kv_store_memkv::code::{
    KV_STORE_CLOSED, KV_STORE_CONFLICT, KV_STORE_INVALID, KV_STORE_MISSING_CHUNK, KV_STORE_NOT_FOUND,
    KV_STORE_OK,
};

use crate::library::{Store, table};
use crate::server::Server;
use crate::sessions::{Session, blob, bytes};

/// 96 chunks, 3.15 MB: the session that everything here is measured by.
const SIZES: [usize; 96] = [32_816; 96];

fn save(store: &Store, name: &str, session: &Session) {
    for (hash, chunk) in session.hashes.iter().zip(&session.chunks) {
        assert_eq!(store.put(hash, chunk), KV_STORE_OK);
    }
    assert_eq!(store.put_manifest(name, &session.manifest), KV_STORE_OK);
}

fn restore(store: &Store, name: &str, session: &Session) {
    assert!(store.manifest(name).as_deref() == Ok(&session.manifest));
    assert_eq!(store.prefetch(&session.hashes), KV_STORE_OK);
    for (hash, chunk) in session.hashes.iter().zip(&session.chunks) {
        assert!(store.get(hash).as_deref() == Ok(chunk));
    }
}

//= MKV-PUT-3 test
#[test]
fn a_cold_save_asks_first_and_a_warm_one_only_asks() {
    let Some(server) = Server::start("a_cold_save_asks_first_and_a_warm_one_only_asks") else { return };
    let store = Store::open(&server.uri("ns"));
    let session = Session::new(1, 64, &SIZES);
    let received = || server.counter("bytes_received");
    let before = received();
    let (cold, ()) = server.round_trips(|| save(&store, "session", &session));
    assert_eq!(cold, 3, "ask, write, publish");
    assert!(received() - before >= session.size_bytes() as u64);
    let before = received();
    let (warm, ()) = server.round_trips(|| save(&store, "session", &session));
    assert_eq!(warm, 1, "publish at once");
    assert!(received() - before < 64 << 10, "and no chunk is sent");
    let (restored, ()) = server.round_trips(|| restore(&store, "session", &session));
    assert_eq!(restored, 2, "the manifest, and all its chunks at once");
    // A session with the same beginning sends only its own chunks.
    let other = Session::new(2, 64, &SIZES);
    let before = received();
    save(&store, "other", &other);
    let own: usize = other.chunks[64..].iter().map(Vec::len).sum();
    assert!((own as u64..own as u64 + (64 << 10)).contains(&(received() - before)));
    assert_eq!(server.counter("values_stored"), 96 + 32);
    // In another process, or at least through another handle.
    restore(&Store::open(&server.uri("ns")), "other", &other);
}

//= MKV-MAN-5 test
#[test]
fn a_manifest_references_exactly_what_it_lists() {
    let Some(server) = Server::start("a_manifest_references_exactly_what_it_lists") else { return };
    let store = Store::open(&server.uri("ns/"));
    let session = Session::new(3, 0, &[100, 200, 300]);
    // A chunk that is put but not listed, one that is listed but was put and published earlier, one listed twice.
    save(&store, "first", &session);
    assert_eq!(store.put(b"unlisted", b"bytes"), KV_STORE_OK);
    let listed = [&session.hashes[..2], &session.hashes[..1]].concat();
    let chunks = [&session.chunks[..2], &session.chunks[..1]].concat();
    assert_eq!(store.put_manifest("second", &blob(&listed, &chunks)), KV_STORE_OK);
    assert_eq!(store.put_manifest("opaque", b"anything"), KV_STORE_OK);
    let page = server.client("ns").list_manifests(b"", b"", 0).expect("the server is up");
    let counts: Vec<_> = page.entries.iter().map(|entry| (&*entry.name, entry.chunk_count)).collect();
    assert_eq!(counts, [(&b"first"[..], 3), (b"opaque", 0), (b"second", 2)]);
    // What is not listed is readable by everybody all the same.
    assert_eq!(Store::open(&server.uri("ns")).get(b"unlisted").as_deref(), Ok(&b"bytes"[..]));
}

#[test]
fn a_chunk_that_is_nowhere_leaves_the_old_manifest() {
    let Some(server) = Server::start("a_chunk_that_is_nowhere_leaves_the_old_manifest") else { return };
    let store = Store::open(&server.uri("ns"));
    let old = Session::new(4, 0, &[1000, 2000]);
    save(&store, "name", &old);
    let new = Session::new(5, 0, &[1000, 2000, 3000]);
    assert_eq!(store.put(&new.hashes[0], &new.chunks[0]), KV_STORE_OK);
    assert_eq!(store.put(&new.hashes[2], &new.chunks[2]), KV_STORE_OK);
    assert_eq!(store.put_manifest("name", &new.manifest), KV_STORE_MISSING_CHUNK);
    restore(&store, "name", &old);
    // Put after all, it can be published.
    assert_eq!(store.put(&new.hashes[1], &new.chunks[1]), KV_STORE_OK);
    assert_eq!(store.put_manifest("name", &new.manifest), KV_STORE_OK);
    restore(&store, "name", &new);
    // A damaged manifest of this format is not published as something else.
    let mut damaged = old.manifest.clone();
    *damaged.last_mut().expect("bytes") ^= 1;
    assert_eq!(store.put_manifest("name", &damaged), KV_STORE_INVALID);
    restore(&store, "name", &new);
}

#[test]
fn other_bytes_under_a_hash_are_a_conflict() {
    let Some(server) = Server::start("other_bytes_under_a_hash_are_a_conflict") else { return };
    let (store, other) = (Store::open(&server.uri("ns")), Store::open(&server.uri("ns")));
    let session = Session::new(6, 0, &[500]);
    save(&store, "name", &session);
    let mut changed = session.chunks.clone();
    changed[0][7] ^= 1;
    assert_eq!(other.put(&session.hashes[0], &changed[0]), KV_STORE_OK, "buffered");
    let manifest = blob(&session.hashes, &changed);
    assert_eq!(other.put_manifest("name", &manifest), KV_STORE_CONFLICT);
    assert!(store.get(&session.hashes[0]).as_ref() == Ok(&session.chunks[0]));
    // A chunk of the buffer with another length than the manifest says.
    changed[0].push(0);
    assert_eq!(other.put_manifest("name", &blob(&session.hashes, &changed)), KV_STORE_CONFLICT);
}

/// A put of what the server has leased to the handle changes nothing, and its bytes are not looked at.
#[test]
fn a_chunk_that_was_just_published_is_not_taken_again() {
    let Some(server) = Server::start("a_chunk_that_was_just_published_is_not_taken_again") else { return };
    let (store, other) = (Store::open(&server.uri("ns")), Store::open(&server.uri("ns")));
    let session = Session::new(13, 0, &[5000, 6000]);
    save(&store, "name", &session);
    restore(&other, "name", &session);
    for (name, store) in [("again", &store), ("elsewhere", &other)] {
        let longer = [&session.chunks[0][..], &[0]].concat();
        assert_eq!(store.put(&session.hashes[0], &longer), KV_STORE_CONFLICT);
        assert_eq!(
            store.put(&session.hashes[0], &vec![0; 5000]),
            KV_STORE_OK,
            "as if it were the same chunk"
        );
        assert_eq!(store.put_manifest(name, &session.manifest), KV_STORE_OK);
        assert!(store.get(&session.hashes[0]).as_ref() == Ok(&session.chunks[0]));
        restore(store, name, &session);
    }
    assert_eq!(server.counter("values_stored"), 2);
}

#[test]
fn flushing_makes_puts_visible_again_and_again() {
    let Some(server) = Server::start("flushing_makes_puts_visible_again_and_again") else { return };
    let (store, other) = (Store::open(&server.uri("ns")), Store::open(&server.uri("ns")));
    for round in 0..30u64 {
        let hash = bytes(7, round, 32);
        let chunk = bytes(8, round, 1 + 997 * round as usize);
        assert_eq!(store.put(&hash, &chunk), KV_STORE_OK);
        assert!(store.get(&hash).as_ref() == Ok(&chunk), "from the buffer");
        assert_eq!(other.get(&hash), Err(KV_STORE_NOT_FOUND), "not written yet");
        assert_eq!(store.put(&hash, &chunk), KV_STORE_OK, "a no-op");
        assert_eq!(store.put_manifest("flush", b""), KV_STORE_OK);
        assert!(other.get(&hash).as_ref() == Ok(&chunk));
        assert_eq!(other.manifest("flush").as_deref(), Ok(&b""[..]));
    }
    assert_eq!(store.delete_manifest("flush"), KV_STORE_OK);
    assert_eq!(store.delete_manifest("flush"), KV_STORE_NOT_FOUND);
    assert_eq!(store.manifest("flush"), Err(KV_STORE_NOT_FOUND));
}

#[test]
fn more_than_the_buffer_holds_is_written_early() {
    let Some(server) = Server::start("more_than_the_buffer_holds_is_written_early") else { return };
    let store = Store::open(&server.uri("ns"));
    let chunks: Vec<Vec<u8>> = (0..33).map(|place| bytes(9, place, 2 << 20)).collect();
    for (place, chunk) in chunks.iter().enumerate() {
        assert_eq!(store.put(&[place as u8; 16], chunk), KV_STORE_OK);
    }
    assert_eq!(server.counter("values_stored"), 32, "64 MiB were written, the last chunk is buffered");
    let too_large = bytes(10, 0, (64 << 20) + 1);
    assert_eq!(store.put(b"large", &too_large), KV_STORE_OK, "written at once");
    store.close();
    let store = Store::open(&server.uri("ns"));
    for (place, chunk) in chunks.iter().enumerate() {
        assert!(store.get(&[place as u8; 16]).as_ref() == Ok(chunk));
    }
    assert!(store.get(b"large").as_ref() == Ok(&too_large));
}

#[test]
fn closing_keeps_what_was_put_and_ends_the_handle() {
    let Some(server) = Server::start("closing_keeps_what_was_put_and_ends_the_handle") else { return };
    let store = Store::open(&server.uri("ns"));
    assert_eq!(store.put(b"hash", b"bytes"), KV_STORE_OK);
    store.close();
    assert_eq!(store.put(b"hash", b"bytes"), KV_STORE_CLOSED);
    assert_eq!(store.get(b"hash"), Err(KV_STORE_CLOSED));
    assert_eq!(store.put_manifest("name", b"x"), KV_STORE_CLOSED);
    assert_eq!(store.prefetch(&[b"hash".to_vec()]), KV_STORE_CLOSED);
    store.close();
    assert_eq!(Store::open(&server.uri("ns")).get(b"hash").as_deref(), Ok(&b"bytes"[..]));
}

#[test]
fn eight_threads_share_a_handle() {
    let Some(server) = Server::start("eight_threads_share_a_handle") else { return };
    let store = Store::open(&server.uri("ns"));
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let (store, barrier) = (&store, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for round in 0..6 {
                    // Some chunks are everybody's, and put by everybody at once.
                    let session = Session::new(100 + thread * 10 + round, 4, &[3000; 12]);
                    let name = format!("session {thread} {round}");
                    save(store, &name, &session);
                    restore(store, &name, &session);
                    assert_eq!(store.put(&thread.to_le_bytes(), &[1, 2, 3]), KV_STORE_OK);
                    assert_eq!(store.put_manifest("flush", b""), KV_STORE_OK);
                }
            });
        }
    });
    assert_eq!(server.counter("values_stored"), 4 + 8 * 6 * 8 + 8);
}

#[test]
fn prefetching_changes_no_answer() {
    let Some(server) = Server::start("prefetching_changes_no_answer") else { return };
    let store = Store::open(&server.uri("ns"));
    let session = Session::new(11, 0, &[2000; 20]);
    save(&store, "session", &session);
    let absent: Vec<Vec<u8>> = (0..5).map(|place| bytes(12, place, 8)).collect();
    let mixed = [&session.hashes[..10], &absent[..], &session.hashes[5..], &absent[..]].concat();
    assert_eq!(store.prefetch(&[]), KV_STORE_OK);
    assert_eq!(store.prefetch(&mixed), KV_STORE_OK);
    let (trips, ()) = server.round_trips(|| {
        for (hash, chunk) in session.hashes.iter().zip(&session.chunks) {
            assert!(store.get(hash).as_ref() == Ok(chunk));
        }
    });
    assert!(trips <= 1, "all of them were there or on their way: {trips}");
    for hash in &absent {
        assert_eq!(store.get(hash), Err(KV_STORE_NOT_FOUND));
    }
    let again = store.get(&session.hashes[0]);
    assert!(again.as_ref() == Ok(&session.chunks[0]), "taken once, read again");
}

/// NULLs, lengths that cannot be, pointers that must not be read.
#[test]
fn what_is_wrong_is_answered() {
    let Some(server) = Server::start("what_is_wrong_is_answered") else { return };
    let store = Store::open(&server.uri("ns"));
    let (table, handle) = (table(), store.handle);
    let (null, wild) = (std::ptr::null(), std::ptr::without_provenance::<u8>(8));
    let name = c"name".as_ptr();
    let long = std::ffi::CString::new(vec![b'n'; 1025]).expect("no zero byte");
    let absurd = [usize::MAX, usize::MAX / 2 + 1, (1 << 30) + 1];
    // SAFETY: what is wild comes with a length that must be refused before it is read.
    unsafe {
        for len in absurd {
            assert_eq!((table.put_chunk)(handle, [1].as_ptr(), 1, wild, len), KV_STORE_INVALID);
            assert_eq!((table.put_chunk)(handle, wild, len, [1].as_ptr(), 1), KV_STORE_INVALID);
            assert_eq!((table.put_manifest)(handle, name, wild, len), KV_STORE_INVALID);
            assert_eq!((table.prefetch_chunks)(handle, wild, 8, len), KV_STORE_INVALID);
            assert_eq!((table.prefetch_chunks)(handle, wild, len, 1), KV_STORE_INVALID);
        }
        assert_eq!((table.put_chunk)(handle, null, 1, [1].as_ptr(), 1), KV_STORE_INVALID);
        assert_eq!((table.put_chunk)(handle, [1].as_ptr(), 1, null, 1), KV_STORE_INVALID);
        assert_eq!((table.put_chunk)(handle, [1; 65].as_ptr(), 65, [1].as_ptr(), 1), KV_STORE_INVALID);
        assert_eq!((table.put_chunk)(handle, [1].as_ptr(), 0, [1].as_ptr(), 1), KV_STORE_INVALID);
        assert_eq!(
            (table.put_chunk)(handle, [1].as_ptr(), 1, [1].as_ptr(), 0),
            KV_STORE_INVALID,
            "no chunk is empty"
        );
        assert_eq!((table.put_manifest)(handle, std::ptr::null(), [1].as_ptr(), 1), KV_STORE_INVALID);
        assert_eq!((table.put_manifest)(handle, c"".as_ptr(), [1].as_ptr(), 1), KV_STORE_INVALID);
        assert_eq!((table.put_manifest)(handle, long.as_ptr(), [1].as_ptr(), 1), KV_STORE_INVALID);
        assert_eq!((table.put_manifest)(handle, name, null, 0), KV_STORE_OK, "an empty manifest");
        let mut len = 0;
        let mut data = std::ptr::null_mut();
        assert_eq!(
            (table.get_chunk)(handle, [1].as_ptr(), 1, std::ptr::null_mut(), &mut len),
            KV_STORE_INVALID
        );
        assert_eq!((table.get_manifest)(handle, name, &mut data, std::ptr::null_mut()), KV_STORE_INVALID);
        let nobody = std::ptr::null_mut();
        assert_eq!((table.put_chunk)(nobody, [1].as_ptr(), 1, [1].as_ptr(), 1), KV_STORE_INVALID);
        assert_eq!((table.delete_manifest)(nobody, name), KV_STORE_INVALID);
        (table.close)(nobody);
        assert!((table.open)(std::ptr::null()).is_null());
    }
    // Hashes of every length, and names of any bytes.
    for len in 1..=64 {
        let (hash, chunk) = (bytes(13, 0, len), bytes(14, len as u64, len));
        assert_eq!(store.put(&hash, &chunk), KV_STORE_OK);
        assert_eq!(store.get(&hash).as_ref(), Ok(&chunk));
    }
    assert_eq!(store.put_manifest("flush", b""), KV_STORE_OK);
    for len in 1..=64 {
        assert_eq!(store.get(&bytes(13, 0, len)), Ok(bytes(14, len as u64, len)));
    }
}
