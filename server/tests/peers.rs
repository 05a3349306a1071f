//! Many peers, slow peers, peers that talk nonsense: they cost the others nothing.

mod support;

use std::time::{Duration, Instant};

use memkv_transport::stream::Outgoing;
use memkv_wire::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn ping(echo: u64) -> RequestWhich<'static> {
    RequestWhich::Ping(Ping { echo, ..Default::default() })
}

#[tokio::test]
async fn a_thousand_idle_connections_cost_little() {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).unwrap();
    let (_keep, path) = directory();
    let server = Server::start(Mode::Memory, &path);
    let mut active = Client::connect(&server.address, 1).await;
    active.call(ping(1), &[]).await;
    let before = server.resident_bytes();
    let mut idle = Vec::new();
    for _ in 0..1000 {
        let mut client = Client::connect(&server.address, 2).await;
        client.call(ping(1), &[]).await;
        idle.push(client);
    }
    let each = server.resident_bytes().saturating_sub(before) / 1000;
    assert!(each < 64 << 10, "{each} bytes for each idle connection");
    assert_eq!(active.stat("connections").await, 1001);
    assert_eq!(active.write(b"k", &bytes(1, 100_000)).await, Status::Ok);
    drop(idle);
    let begun = Instant::now();
    while active.stat("connections").await > 1 {
        assert!(begun.elapsed() < Duration::from_secs(20), "closed connections are forgotten");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_peer_that_does_not_read_costs_a_window() {
    does_not_read(Wire::Tcp).await;
}

#[tokio::test]
async fn a_local_peer_that_does_not_read_costs_a_window() {
    does_not_read(Wire::Local).await;
}

/// One peer asks for much and takes nothing: the server holds a window of it, and serves the others. What it asks for is to
/// go with the frames, on the local socket, too.
async fn does_not_read(wire: Wire) {
    let (_keep, path) = directory();
    let server = Server::start(Mode::Memory, &path);
    let mut greedy = Client::connect_over(wire, &server.address, 1).await;
    let mut other = Client::connect_over(wire, &server.address, 2).await;
    let value = bytes(1, 8 * BLOCK);
    assert_eq!(other.write(b"big", &value).await, Status::Ok);
    assert!(other.read(b"big", 0, 0).await.as_ref() == Ok(&value));
    let before = server.resident_bytes();
    let item = ReadItem { key: b"big", offset: 0, length: 0, destination: Destination::default() };
    let items = [item; 64];
    let which = RequestWhich::BatchRead(BatchRead { items: List::from(&items) });
    let request_id = greedy.next_id();
    greedy.send(request_id, true, which, &[]).await;
    for round in 0..20 {
        let begun = Instant::now();
        assert!(other.read(b"big", 0, 0).await.as_ref() == Ok(&value));
        other.call(ping(round), &[]).await;
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 96 << 20, "{grown} bytes more, 512 MiB were asked for");
    // When it reads at last, it gets everything.
    let mut received = 0;
    loop {
        let frame = greedy.next().await.unwrap();
        received += frame.payload.len();
        if frame.last {
            break;
        }
    }
    assert_eq!(received, 64 * value.len());
}

/// A server that is told to stop sends what was being read, far more than a window, and does not wait for who takes nothing.
#[tokio::test]
async fn a_read_under_way_ends_before_the_server_does() {
    let (_keep, path) = directory();
    let server = Server::start(Mode::Memory, &path);
    let mut reading = Client::connect(&server.address, 1).await;
    let mut stalled = Client::connect(&server.address, 2).await;
    let mut other = Client::connect(&server.address, 3).await;
    let value = bytes(1, 8 * BLOCK);
    assert_eq!(other.write(b"big", &value).await, Status::Ok);
    let item = ReadItem { key: b"big", offset: 0, length: 0, destination: Destination::default() };
    let items = [item; 16];
    let which = RequestWhich::BatchRead(BatchRead { items: List::from(&items) });
    for client in [&mut reading, &mut stalled] {
        let request_id = client.next_id();
        client.send(request_id, true, which, &[]).await;
    }
    let first = reading.next().await.unwrap();
    server.signal("TERM");
    while other.call(ping(1), &[]).await[0].status() != Status::ShuttingDown {}
    let mut received = first.payload.len();
    loop {
        let frame = reading.next().await.expect("the whole reply comes");
        received += frame.payload.len();
        if frame.last {
            break;
        }
    }
    assert_eq!(received, 16 * value.len());
    assert!(server.wait().success());
}

#[tokio::test]
async fn a_peer_that_only_asks_is_made_to_wait() {
    only_asks(Wire::Tcp).await;
}

#[tokio::test]
async fn a_local_peer_that_only_asks_is_made_to_wait() {
    only_asks(Wire::Local).await;
}

/// Requests whose replies nobody takes: the peer is not read from any more, and nothing piles up.
async fn only_asks(wire: Wire) {
    let (_keep, path) = directory();
    let server = Server::start(Mode::Memory, &path);
    let mut asking = Client::connect_over(wire, &server.address, 1).await;
    let mut other = Client::connect_over(wire, &server.address, 2).await;
    let before = server.resident_bytes();
    let keys: Vec<Vec<u8>> = (0..256).map(|n| vec![n as u8; 8]).collect();
    let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    let namespace = asking.namespace.clone();
    // Each reply is 2 KiB. Sockets buffer some megabytes and the server one more; then it stops taking requests.
    let mut asked = 0;
    let mut waits = false;
    while !waits && asked < 100_000 {
        asked += 1;
        let which = RequestWhich::Exists(Exists { keys: List::from(&keys) });
        let mut frame = Outgoing { request_id: asked % 200 + 1, last: true, ..Outgoing::default() };
        Request { namespace: &namespace, which }.encode(&mut frame.control).unwrap();
        asking.writer.push(frame).unwrap();
        waits = tokio::time::timeout(Duration::from_secs(2), asking.writer.flush()).await.is_err();
    }
    assert!(waits, "the server took requests without end");
    assert!(server.resident_bytes().saturating_sub(before) < 48 << 20);
    other.call(ping(1), &[]).await;
    for _ in 0..asked / 2 {
        asking.next().await.expect("what was asked for is answered once it is taken");
    }
}

//= MKV-CONN-5 test
#[tokio::test]
async fn peers_that_never_finish_set_up_are_dropped() {
    let (_keep, path) = directory();
    let server = Server::start(Mode::Memory, &path);
    let mut slow = Vec::new();
    for n in 0..40 {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(&b"MKV1\x01\x01\x00\x00"[..n % 9]).await.unwrap();
        slow.push(stream);
    }
    let mut client = Client::connect(&server.address, 1).await;
    client.call(ping(1), &[]).await;
    for mut stream in slow {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_secs(15), stream.read(&mut byte)).await;
        assert!(matches!(read, Ok(Ok(0) | Err(_))), "dropped when its time is over");
    }
    assert!(client.stat("connections_refused").await >= 40);
}

//= MKV-MSG-6 test
//= MKV-LIM-2 test
#[tokio::test]
async fn nonsense_ends_its_own_connection_only() {
    let (_keep, path) = directory();
    let server = Server::start(Mode::Memory, &path);
    let mut witness = Client::connect(&server.address, 1).await;
    // A control message whose root is no request: where its operation should be is a list.
    let mut broken = Client::connect(&server.address, 2).await;
    let mut frame = Outgoing { request_id: 1, last: true, ..Outgoing::default() };
    let manifest = Manifest { engine: "x", model_fingerprint: b"x", ..Default::default() };
    manifest.encode(&mut frame.control).unwrap();
    broken.writer.push(frame).unwrap();
    broken.writer.flush().await.unwrap();
    assert!(broken.next().await.is_none());
    // More requests than allowed.
    let mut eager = Client::connect(&server.address, 4).await;
    let keys: [&[u8]; 1] = [b"k"];
    let mut closed = false;
    for request_id in 0..=limits::REQUESTS_IN_FLIGHT_MAX {
        let which = RequestWhich::Delete(Delete { keys: List::from(&keys) });
        let mut frame = Outgoing { request_id, last: false, ..Outgoing::default() };
        Request { namespace: b"", which }.encode(&mut frame.control).unwrap();
        closed |= eager.writer.push(frame).is_err() || eager.writer.flush().await.is_err();
    }
    assert!(closed || eager.next().await.is_none());
    witness.call(ping(2), &[]).await;
    assert_eq!(witness.stat("connections_closed_by_fault").await, 1);
}
