//! The plugin and the client over RDMA, and what they do without. Needs a device: soft-RoCE in the guest of tools/rdma.

use std::process::Command;

use memkv_client::blocking::Client;
use memkv_client::error::{ConnectionError, Error};
use memkv_client::{Config, Transport};

use crate::server::{Server, skip};
use crate::sessions::bytes;

/// False, and the test counts as skipped, where there is no device.
fn has_device(test: &str) -> bool {
    let found = std::fs::read_dir("/sys/class/infiniband").is_ok_and(|mut devices| devices.next().is_some());
    if !found {
        skip(test, "no RDMA device here, `cargo xtask test --rdma` makes one");
    }
    found
}

/// Every test of this binary again, all of it over queue pairs.
#[test]
fn everything_holds_over_rdma() {
    if Transport::from_env() != Ok(Transport::Auto) || !has_device("everything_holds_over_rdma") {
        return;
    }
    let own = std::env::current_exe().expect("this test has a path");
    let output = Command::new(own)
        .args(["--skip", "everything_holds_over", "--skip", "rdma::"])
        .env("MEMKV_TRANSPORT", "rdma")
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn config(server: &Server, transport: Transport) -> Config {
    Config { transport, rdma: true, ..server.config("ns") }
}

/// Bytes that no test here put anywhere else.
fn put(client: &Client, key: &[u8]) -> Vec<u8> {
    let value = bytes(9, key.len() as u64, 200_000);
    client.put(key, &[memkv_client::Buf::copy_of(&value).expect("memory")]).expect("stored");
    value
}

#[test]
fn a_client_that_may_choose_takes_rdma_when_it_is_named() {
    if Transport::from_env() != Ok(Transport::Auto)
        || !has_device("a_client_that_may_choose_takes_rdma_when_it_is_named")
    {
        return;
    }
    let Some(server) = Server::start_configured("rdma", "rdma: {}\nnetwork: {local: \"off\"}\n") else {
        return;
    };
    let client = Client::connect(config(&server, Transport::Auto)).expect("the server is up");
    let value = put(&client, b"key");
    assert!(client.get(b"key").expect("up").expect("stored").to_vec() == value);
    assert!(server.counter("connections_rdma") > 0);
    let plain = Config { rdma: false, ..config(&server, Transport::Auto) };
    let before = server.counter("connections_rdma");
    assert!(Client::connect(plain).expect("up").get(b"key").expect("up").is_some());
    assert_eq!(server.counter("connections_rdma"), before, "nobody asked for it");
}

/// A server that comes back without RDMA: what is under way ends over TCP, and nothing is lost.
#[test]
fn a_client_goes_on_over_tcp() {
    if Transport::from_env() != Ok(Transport::Auto) || !has_device("a_client_goes_on_over_tcp") {
        return;
    }
    let Some(mut server) = Server::start_configured("rdma", "rdma: {}\nnetwork: {local: \"off\"}\n") else {
        return;
    };
    let client = Client::connect(config(&server, Transport::Auto)).expect("the server is up");
    let strict = Client::connect(config(&server, Transport::Rdma)).expect("the server is up");
    let mut values = vec![put(&client, b"1")];
    server.kill();
    server.configure("network: {local: \"off\"}\n");
    server.start_again();
    values.push(put(&client, b"22"));
    for (key, value) in [&b"1"[..], b"22"].into_iter().zip(&values) {
        assert!(client.get(key).expect("up").expect("stored").to_vec() == *value);
    }
    assert_eq!(server.counter("connections_rdma"), 0);
    let refused = Client::connect(Config { timeout_ms: 2000, ..config(&server, Transport::Rdma) });
    let error = refused.map(|_| ()).expect_err("nothing but RDMA will do");
    assert!(format!("{error}").contains("no RDMA"), "{error}");
    drop(strict);
    assert!(!matches!(error, Error::Connection(ConnectionError::RdmaLost)));
}
