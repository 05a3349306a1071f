//! Peers over RDMA that die, on a real server: what is left of them is nothing.
//!
//! Needs a device, soft-RoCE in the guest of tools/rdma. Everything counted is counted for the whole device, so these tests take turns.
#![cfg(target_os = "linux")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use memkv_transport::rdma::Device;
use memkv_wire::*;
use support::*;
use tokio::sync::{Mutex, MutexGuard};

static TURN: Mutex<()> = Mutex::const_new(());

/// A child of this test that is a client, told by this variable where the server is.
const VICTIM: &str = "MEMKV_TEST_RDMA_VICTIM";

async fn begin(test: &str) -> Option<(MutexGuard<'static, ()>, Arc<Device>, tempfile::TempDir, Server)> {
    let device = rdma::device(test)?;
    let turn = TURN.lock().await;
    let (directory, path) = directory();
    let server = Server::start_with(Mode::Memory, &path, KEY, RDMA);
    Some((turn, device, directory, server))
}

/// Queue pairs, completion queues and registered regions on all devices.
fn resources() -> [u64; 3] {
    let output = Command::new("rdma").arg("resource").output().expect("iproute2 is installed");
    let text = String::from_utf8(output.stdout).expect("text");
    let count = |kind: &str| {
        let words: Vec<&str> = text.split_whitespace().collect();
        let of = words.windows(2).filter(|pair| pair[0] == kind);
        of.map(|pair| pair[1].parse::<u64>().expect("a number")).sum()
    };
    ["qp", "cq", "mr"].map(count)
}

/// Waits until what was there before is all that is left. The limit on a test binary's time ends a wait for ever.
async fn settle(server: &Server, before: [u64; 3]) {
    let mut watch = Client::connect(&server.address, 250).await;
    while watch.stat("connections").await != 1 || resources() != before {
        tokio::task::yield_now().await;
    }
}

/// Sends the beginning of a value and leaves in the middle of it.
async fn leave_in_the_middle(mut client: Client, round: usize) {
    let value = bytes(round as u64, 3 * BLOCK);
    let (sums, whole) = (sums(&value), checksum(&value));
    let pieces = [piece(0, 0, BLOCK, &sums[0])];
    let which = RequestWhich::Write(Write {
        key: b"never whole",
        length: value.len() as u64,
        checksum: Some(&whole),
        allocation: 0,
        pieces: List::from(&pieces),
    });
    let id = client.next_id();
    let mut frame = memkv_transport::stream::Outgoing { request_id: id, ..Default::default() };
    Request { namespace: b"test", which }.encode(&mut frame.control).unwrap();
    frame.payload.push(memkv_transport::buf::Buf::copy_of(&value[..BLOCK]).unwrap());
    client.writer.push(frame).unwrap();
    // As much as fits: then the connection is dropped, with requests on their way.
    client.writer.write().await.unwrap();
}

#[tokio::test]
async fn a_thousand_clients_leave_nothing_behind() {
    let Some((_turn, device, _directory, server)) = begin("a_thousand_clients_leave_nothing_behind").await
    else {
        return;
    };
    let before = resources();
    for round in 0..1000 {
        let mut client = rdma::connect_on(&device, &server.address, (round % 200) as u8).await.unwrap();
        if round % 10 == 0 {
            let (key, value) = (round.to_string(), bytes(round as u64, 20_000));
            assert_eq!(client.write(key.as_bytes(), &value).await, Status::Ok);
            assert!(client.read(key.as_bytes(), 0, 0).await.as_deref() == Ok(&value[..]));
        }
        if round % 2 == 0 {
            leave_in_the_middle(client, round).await;
        }
    }
    settle(&server, before).await;
    let mut client = rdma::connect_on(&device, &server.address, 1).await.unwrap();
    assert_eq!(client.exists(&[b"never whole", b"0", b"990"]).await, [0, 20_000, 20_000]);
    assert_eq!(client.stat("connections_rdma").await, 1001);
}

/// A process that reads all the time until it is killed.
#[tokio::test]
async fn victim() {
    let Ok(address) = std::env::var(VICTIM) else { return };
    let mut client = rdma::connect(&address, 7).await.unwrap();
    let value = bytes(1, 2 * BLOCK);
    assert_eq!(client.write(b"large", &value).await, Status::Ok);
    println!("\nready");
    loop {
        assert!(client.read(b"large", 0, 0).await.is_ok());
    }
}

#[tokio::test]
async fn killed_clients_leave_nothing_behind() {
    let Some((_turn, _device, _directory, server)) = begin("killed_clients_leave_nothing_behind").await
    else {
        return;
    };
    let before = resources();
    for _ in 0..10 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["victim", "--exact", "--nocapture"])
            .env(VICTIM, &server.address)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"), "the client works until it is killed");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    settle(&server, before).await;
}

#[tokio::test]
async fn a_killed_server_is_noticed() {
    let Some((_turn, device, _directory, server)) = begin("a_killed_server_is_noticed").await else { return };
    let before = resources();
    let mut client = rdma::connect_on(&device, &server.address, 1).await.unwrap();
    let value = bytes(1, 2 * BLOCK);
    assert_eq!(client.write(b"large", &value).await, Status::Ok);
    let reading = RequestWhich::Read(Read { key: b"large", ..Read::default() });
    client.send(1000, true, reading, &[]).await;
    server.kill();
    while client.next().await.is_some() {}
    drop(client);
    while resources() != before {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_failed_queue_pair_ends_one_connection_alone() {
    let test = "a_failed_queue_pair_ends_one_connection_alone";
    let Some((_turn, device, _directory, server)) = begin(test).await else { return };
    let before = resources();
    let mut healthy = rdma::connect_on(&device, &server.address, 1).await.unwrap();
    let mut failing = rdma::connect_on(&device, &server.address, 2).await.unwrap();
    assert_eq!(failing.write(b"k", b"value").await, Status::Ok);
    let memkv_transport::net::ReadHalf::Rdma(half) = failing.reader.io_mut() else { panic!("over RDMA") };
    half.fail().unwrap();
    assert!(failing.next().await.is_none());
    drop(failing);
    assert!(healthy.read(b"k", 0, 0).await.as_deref() == Ok(b"value"));
    drop(healthy);
    settle(&server, before).await;
}

/// A process that may lock next to no memory says so and goes on without RDMA, on either side.
#[tokio::test]
async fn too_little_memory_may_be_locked() {
    let Some((_turn, device, directory, server)) = begin("too_little_memory_may_be_locked").await else {
        return;
    };
    drop(server);
    let before = resources();
    let server = start_confined(directory.path());
    // It is set up, and then closed by the server.
    let mut refused = rdma::connect_on(&device, &server.address, 1).await.unwrap();
    assert!(refused.next().await.is_none());
    drop(refused);
    let mut client = Client::connect(&server.address, 1).await;
    assert_eq!(client.write(b"k", b"over TCP").await, Status::Ok);
    while !log(directory.path()).contains("the limit of locked memory") {
        assert_eq!(client.stat("connections").await, 1);
    }
    drop(client);
    settle(&server, before).await;
}

/// A server that is not allowed to lock memory, though it is root's.
fn start_confined(data: &Path) -> Server {
    let config = data.join("config.yaml");
    std::fs::write(&config, format!("{RDMA}storage:\n  mode: memory\n  capacity: 256MiB\n")).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-ipc_lock", "--inh-caps", "-ipc_lock", "prlimit", "--memlock=65536"]);
    command.arg(env!("CARGO_BIN_EXE_memkv")).arg("start").arg("--config").arg(&config);
    command.args(["--listen", "127.0.0.1:0"]).arg("--log-file").arg(data.join("memkv.log"));
    command.env("MEMKV_AUTH_KEY", KEY);
    Server::spawn(command)
}
