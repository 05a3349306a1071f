//! The same tests over every transport.

use std::process::Command;

use memkv_client::Transport;

use crate::library::Store;
use crate::server::Server;
use crate::sessions::bytes;

/// Nothing is said of a transport, so a store on this host takes the local one; and it moves what it writes and reads
/// through memory that it shares.
#[test]
#[cfg(target_os = "linux")]
fn on_one_host_memory_is_shared() {
    if matches!(Transport::from_env(), Ok(Transport::Tcp | Transport::Rdma)) {
        return;
    }
    let Some(server) = Server::start("on_one_host_memory_is_shared") else { return };
    let store = Store::open(&server.uri("ns"));
    assert!(server.counter("memory_registered") > 0);
    let client = server.client("ns");
    let value = bytes(1, 1, 3_000_000);
    let sent_bytes = client.counters().sent_bytes;
    let mut buffer = client.buffer(value.len()).expect("memory");
    buffer.copy_from_slice(&value);
    client.put(b"key", &[buffer.freeze()]).expect("stored");
    assert!(client.get(b"key").expect("up").expect("stored").to_vec() == value);
    let counters = client.counters();
    assert!(counters.sent_bytes - sent_bytes < 10_000, "the bytes do not go through the socket");
    assert!(counters.received_bytes < 10_000);
    assert!(store.get(b"key").as_deref() == Ok(&value));
}

/// A server that is gone and back has another socket's other end; memory is registered again.
#[test]
#[cfg(target_os = "linux")]
fn a_store_outlives_its_server_on_the_same_host() {
    let Some(mut server) = Server::start("a_store_outlives_its_server_on_the_same_host") else { return };
    let store = Store::open(&server.uri("ns"));
    for round in 0..3 {
        let hash = [round; 8];
        let value = bytes(2, round.into(), 100_000);
        assert_eq!(store.put(&hash, &value), 0);
        assert_eq!(store.put_manifest("flush", b""), 0);
        server.kill();
        server.start_again();
        assert!(store.get(&hash).as_deref() == Ok(&value));
    }
}

/// Everything else here runs over the transport that is chosen by itself; this runs all of it over TCP.
#[test]
fn everything_holds_over_tcp() {
    if Transport::from_env() == Ok(Transport::Tcp) {
        return;
    }
    let own = std::env::current_exe().expect("this test has a path");
    let output = Command::new(own)
        .args(["--skip", "everything_holds_over_tcp"])
        .env("MEMKV_TRANSPORT", "tcp")
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
