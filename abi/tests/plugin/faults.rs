//! Servers that die, keys that are wrong, processes that fork.

use std::process::Command;
use std::time::{Duration, Instant};

use kv_store_memkv::code::{
    KV_STORE_CLOSED, KV_STORE_MISSING_CHUNK, KV_STORE_NOT_FOUND, KV_STORE_OK, KV_STORE_UNAVAILABLE,
};

use crate::library::{self, Store};
use crate::server::{KEY, Server, skip};
use crate::sessions::Session;

#[test]
fn a_handle_survives_its_server() {
    let Some(mut server) = Server::start("a_handle_survives_its_server") else { return };
    let store = Store::open(&server.uri("ns"));
    let session = Session::new(1, 0, &[5000; 40]);
    for (hash, chunk) in session.hashes[..20].iter().zip(&session.chunks) {
        assert_eq!(store.put(hash, chunk), KV_STORE_OK);
    }
    assert_eq!(store.put_manifest("flush", b""), KV_STORE_OK);
    for (hash, chunk) in session.hashes.iter().zip(&session.chunks) {
        assert_eq!(store.put(hash, chunk), KV_STORE_OK);
    }
    server.kill();
    let began = Instant::now();
    assert_eq!(store.put_manifest("session", &session.manifest), KV_STORE_UNAVAILABLE);
    assert!(began.elapsed() < Duration::from_secs(20), "a dead server is not waited for without end");
    // What was put is still here, and goes out when there is a server again.
    assert!(store.get(&session.hashes[39]).as_ref() == Ok(&session.chunks[39]));
    server.start_again();
    assert_eq!(store.put_manifest("session", &session.manifest), KV_STORE_OK);
    let other = Store::open(&server.uri("ns"));
    assert!(other.manifest("session").as_ref() == Ok(&session.manifest));
    for (hash, chunk) in session.hashes.iter().zip(&session.chunks) {
        assert!(other.get(hash).as_ref() == Ok(chunk));
    }
}

/// What a handle left out because the server had it, the server lost: nothing is published, and the next attempt is whole.
#[test]
fn a_server_that_lost_its_chunks_is_believed() {
    let Some(mut server) = Server::start("a_server_that_lost_its_chunks_is_believed") else { return };
    let store = Store::open(&server.uri("ns"));
    let session = Session::new(2, 0, &[5000; 4]);
    let put_all = || {
        for (hash, chunk) in session.hashes.iter().zip(&session.chunks) {
            assert_eq!(store.put(hash, chunk), KV_STORE_OK);
        }
    };
    put_all();
    assert_eq!(store.put_manifest("session", &session.manifest), KV_STORE_OK);
    put_all();
    server.kill();
    server.start_empty();
    assert_eq!(store.put_manifest("session", &session.manifest), KV_STORE_MISSING_CHUNK);
    assert_eq!(Store::open(&server.uri("ns")).manifest("session"), Err(KV_STORE_NOT_FOUND));
    put_all();
    assert_eq!(store.put_manifest("session", &session.manifest), KV_STORE_OK);
    // Put after the connection was lost, it is not left out in the first place.
    server.kill();
    server.start_empty();
    assert_eq!(store.manifest("session"), Err(KV_STORE_NOT_FOUND));
    put_all();
    assert_eq!(store.put_manifest("session", &session.manifest), KV_STORE_OK);
}

/// Killed and started again while eight threads save: every save that was acknowledged is there, whole.
#[test]
fn acknowledged_saves_outlive_the_server_in_the_middle_of_others() {
    let test = "acknowledged_saves_outlive_the_server_in_the_middle_of_others";
    let Some(mut server) = Server::start(test) else { return };
    let store = Store::open(&server.uri("ns"));
    let (told, heard) = std::sync::mpsc::channel();
    let saved: Vec<(String, Session)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8u64)
            .map(|thread| {
                let (store, told) = (&store, told.clone());
                scope.spawn(move || {
                    let mut saved = Vec::new();
                    for round in 0..8 {
                        let session = Session::new(1000 + thread * 100 + round, 3, &[20_000; 10]);
                        let name = format!("{thread} {round}");
                        for (hash, chunk) in session.hashes.iter().zip(&session.chunks) {
                            assert_eq!(store.put(hash, chunk), KV_STORE_OK);
                        }
                        if store.put_manifest(&name, &session.manifest) == KV_STORE_OK {
                            saved.push((name, session));
                        }
                        told.send(()).expect("somebody listens");
                    }
                    saved
                })
            })
            .collect();
        for _ in 0..10 {
            heard.recv().expect("the threads go on");
        }
        server.kill();
        server.start_again();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread that ended")).collect()
    });
    assert!(saved.len() > 32, "most saves went through: {}", saved.len());
    server.kill();
    server.start_again();
    let other = Store::open(&server.uri("ns"));
    for (name, session) in &saved {
        assert!(other.manifest(name).as_ref() == Ok(&session.manifest), "{name}");
        assert_eq!(other.prefetch(&session.hashes), KV_STORE_OK);
        for (hash, chunk) in session.hashes.iter().zip(&session.chunks) {
            assert!(other.get(hash).as_ref() == Ok(chunk), "{name}");
        }
    }
}

#[test]
fn a_child_is_told_that_the_handle_is_its_parents() {
    let Some(server) = Server::start("a_child_is_told_that_the_handle_is_its_parents") else { return };
    let store = Store::open(&server.uri("ns"));
    assert_eq!(store.put(b"hash", b"bytes"), KV_STORE_OK);
    // SAFETY: between fork and _exit the child calls the plugin and nothing else of this process; a hang ends in SIGALRM.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            libc::alarm(20);
            let refused = store.put(b"other", b"bytes") == KV_STORE_CLOSED
                && store.get(b"hash") == Err(KV_STORE_CLOSED)
                && store.put_manifest("name", b"x") == KV_STORE_CLOSED;
            store.close();
            libc::_exit(if refused { 0 } else { 1 });
        }
    }
    assert!(child > 0);
    let mut status = -1;
    // SAFETY: `child` is a child of ours that nobody else waits for.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0, "refused, and not hung");
    assert_eq!(store.put_manifest("name", b"x"), KV_STORE_OK, "the parent goes on");
    assert_eq!(store.get(b"hash").as_deref(), Ok(&b"bytes"[..]));
}

const OPEN: &str = "
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.kv_store_get_vtable.restype = ctypes.POINTER(ctypes.c_void_p)
table = library.kv_store_get_vtable()
handle = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)(table[1])(sys.argv[2].encode())
sys.exit(0 if handle else 3)
";

/// Opens a store in another process; whether it opened, and what it said. None when there is no python3, or when it could not
/// load the library, which finds the sanitizer that it was built with only in this process.
fn open_elsewhere(uri: &str, key: Option<&str>) -> Option<(bool, String)> {
    if std::env::var_os("MEMKV_SANITIZED").is_some() {
        return None;
    }
    let mut command = Command::new("python3");
    command
        .args(["-c", OPEN])
        .arg(library::path())
        .arg(uri)
        .env_remove("MEMKV_AUTH_KEY")
        .env_remove("MEMKV_LOG");
    if let Some(key) = key {
        command.env("MEMKV_AUTH_KEY", key);
    }
    let output = command.output().ok()?;
    let said = String::from_utf8(output.stderr).expect("text");
    match output.status.code() {
        Some(0) => Some((true, said)),
        Some(3) => Some((false, said)),
        other => panic!("{other:?}: {said}"),
    }
}

#[test]
fn a_store_that_does_not_open_says_why_in_one_line() {
    let test = "a_store_that_does_not_open_says_why_in_one_line";
    let Some(mut server) = Server::start(test) else { return };
    let uri = server.uri("ns");
    let Some(opened) = open_elsewhere(&uri, Some(KEY)) else {
        return skip(test, "python3 is not installed, or the library is sanitized");
    };
    assert_eq!(opened, (true, String::new()));
    let other_key = KEY.replace("00", "01");
    let two = uri.replacen("/ns", ",127.0.0.1:1/ns", 1);
    let not_ours = uri.replacen("memkv", "redis", 1);
    let refused = |uri: &str, key: Option<&str>, hint: &str| {
        let (opened, said) = open_elsewhere(uri, key).expect("python3 is there");
        assert!(!opened, "{uri}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with("memkv: cannot open ") && said.contains(hint), "{said}");
    };
    refused(&uri, None, "MEMKV_AUTH_KEY is not set");
    refused(&uri, Some("abc"), "64 hexadecimal digits");
    refused(&uri, Some(&other_key), "MEMKV_AUTH_KEY");
    refused(&two, Some(KEY), "names 2 servers");
    refused(&not_ours, Some(KEY), "memkv://");
    server.kill();
    refused(&uri, Some(KEY), "refused");
}
