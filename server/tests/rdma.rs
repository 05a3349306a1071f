//! Peers over RDMA that die, on a real server: what is left of them is nothing.
//!
//! Needs a device, soft-RoCE in the guest of tools/rdma. Everything counted is counted for the whole device, so these tests take turns.
#![cfg(target_os = "linux")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use memkv_transport::rdma::{Device, Selection};
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

/// What there is on all devices: queue pairs, completion queues, registered regions; and the bytes of memory that devices may reach, of this
/// process and of a server's.
fn resources(server: Option<&Server>) -> [u64; 5] {
    let output = Command::new("rdma").arg("resource").output().expect("iproute2 is installed");
    let text = String::from_utf8(output.stdout).expect("text");
    let count = |kind: &str| {
        let words: Vec<&str> = text.split_whitespace().collect();
        let of = words.windows(2).filter(|pair| pair[0] == kind);
        of.map(|pair| pair[1].parse::<u64>().expect("a number")).sum()
    };
    let [pairs, queues, regions] = ["qp", "cq", "mr"].map(count);
    let own_bytes = memory_bytes(std::process::id(), "VmPin");
    [pairs, queues, regions, own_bytes, server.map_or(0, Server::pinned_bytes)]
}

/// Waits until what was there before is all that is left. The limit on a test binary's time ends a wait for ever.
async fn settle(server: &Server, before: [u64; 5]) {
    let mut watch = Client::connect(&server.address, 250).await;
    while watch.stat("connections").await != 1 || resources(Some(server)) != before {
        tokio::task::yield_now().await;
    }
}

/// Sends the beginning of a value and leaves in the middle of it.
async fn leave_in_the_middle(mut client: Client, round: usize) {
    let value = bytes(round as u64, 3 * BLOCK);
    let (sums, whole) = (sums(&value), checksum(&value));
    let mut pieces = [piece(0, 0, BLOCK, &sums[0])];
    let mac = client.mac(&value[..BLOCK]);
    if client.signs {
        pieces[0].which = PieceWhich::Region(Region { id: 1, offset: 0, mac: mac.as_ref() });
    }
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
    if !client.signs {
        frame.payload.push(memkv_transport::buf::Buf::copy_of(&value[..BLOCK]).unwrap());
    }
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
    let before = resources(Some(&server));
    for round in 0..1000 {
        let id = (round % 200) as u8;
        // Every other one that leaves in the middle has the server fetch from it.
        let mut client = match round % 4 {
            0 => rdma::connect_one_sided_on(&device, &server.address, id, BLOCK).await.unwrap(),
            _ => rdma::connect_on(&device, &server.address, id).await.unwrap(),
        };
        if round % 10 == 0 {
            let (key, value) = (round.to_string(), bytes(round as u64, 20_000));
            assert_eq!(client.write(key.as_bytes(), &value).await, Status::Ok);
            client.memory = None;
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
    let mut client = rdma::connect_one_sided(&address, 7).await.unwrap();
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
    let before = resources(Some(&server));
    assert!(before[2] > 0 && before[4] >= 128 << 20, "a server's memory is counted: {before:?}");
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
    let Some((_turn, device, directory, server)) = begin("a_killed_server_is_noticed").await else { return };
    // A server has its buffers registered as long as it runs.
    drop(server);
    let before = resources(None);
    let server = Server::start_with(Mode::Memory, directory.path(), KEY, RDMA);
    let mut client = rdma::connect_on(&device, &server.address, 1).await.unwrap();
    let value = bytes(1, 2 * BLOCK);
    assert_eq!(client.write(b"large", &value).await, Status::Ok);
    let reading = RequestWhich::Read(Read { key: b"large", ..Read::default() });
    client.send(1000, true, reading, &[]).await;
    server.kill();
    while client.next().await.is_some() {}
    drop(client);
    while resources(None) != before {
        tokio::task::yield_now().await;
    }
}

fn region<'a>(id: u32, offset: u64, mac: Option<&'a [u8; 32]>) -> Region<'a> {
    Region { id, offset, mac }
}

/// Writes a value of one piece that lies in a region; what the server says, if it stays.
async fn write_from(client: &mut Client, key: &[u8], place: Region<'_>, value: &[u8]) -> Option<Status> {
    let sum = memkv_wire::checksum::block(value);
    let pieces = [Piece { which: PieceWhich::Region(place), ..piece(0, 0, value.len(), &sum) }];
    let which = RequestWhich::Write(Write {
        key,
        length: value.len() as u64,
        checksum: None,
        allocation: 0,
        pieces: List::from(&pieces),
    });
    Some(client.try_call(which, &[]).await?.last()?.status())
}

async fn read_into(client: &mut Client, key: &[u8], place: Region<'_>) -> Status {
    let destination = Destination { which: DestinationWhich::Region(place) };
    let which = RequestWhich::Read(Read { key, offset: 0, length: 0, destination });
    client.call(which, &[]).await.last().unwrap().status()
}

/// Neither a forged MAC nor none, nor memory that changed after its MAC was made, makes anything visible.
//= MKV-REG-7 test
#[tokio::test]
async fn bytes_are_what_their_mac_says() {
    let Some((_turn, _device, _directory, server)) = begin("bytes_are_what_their_mac_says").await else {
        return;
    };
    let mut client = rdma::connect_one_sided(&server.address, 1).await.unwrap();
    let value = bytes(4, 300_000);
    let put = |client: &Client, value: &[u8]| client.memory.as_ref().unwrap().write(0, value).unwrap();
    put(&client, &value);
    let mac = client.mac(&value).unwrap();
    let forged = std::array::from_fn(|at| mac[at] ^ u8::from(at == 31));
    for given in [None, Some(&forged), Some(&[0; 32])] {
        let answer = write_from(&mut client, b"k", region(1, 0, given), &value).await;
        assert_eq!(answer, Some(Status::ChecksumMismatch));
    }
    let mut changed = value.clone();
    changed[299_999] ^= 1;
    put(&client, &changed);
    let answer = write_from(&mut client, b"k", region(1, 0, Some(&mac)), &value).await;
    assert_eq!(answer, Some(Status::ChecksumMismatch));
    // The MAC of what is there, and the checksum of what was there.
    let other = client.mac(&changed).unwrap();
    let answer = write_from(&mut client, b"k", region(1, 0, Some(&other)), &value).await;
    assert_eq!(answer, Some(Status::ChecksumMismatch));
    assert_eq!(client.exists(&[b"k"]).await, [0]);
    put(&client, &value);
    assert_eq!(write_from(&mut client, b"k", region(1, 0, Some(&mac)), &value).await, Some(Status::Ok));
    assert!(client.read(b"k", 0, 0).await.as_deref() == Ok(&value[..]));
}

/// A server that was told to check nothing takes what the client says, and finds out when it reads.
#[tokio::test]
async fn a_server_that_checks_nothing_finds_out_when_it_reads() {
    let test = "a_server_that_checks_nothing_finds_out_when_it_reads";
    let Some((_turn, _device, directory, server)) = begin(test).await else { return };
    drop(server);
    let server = Server::start_with(Mode::Memory, directory.path(), KEY, "rdma: {verify: never}\n");
    let mut client = rdma::connect_one_sided(&server.address, 1).await.unwrap();
    let value = bytes(4, 300_000);
    let mut changed = value.clone();
    changed[7] ^= 1;
    for (key, there, status) in [(&b"good"[..], &value, Status::Ok), (b"bad", &changed, Status::NotFound)] {
        client.memory.as_ref().unwrap().write(0, there).unwrap();
        assert_eq!(write_from(&mut client, key, region(1, 0, None), &value).await, Some(Status::Ok));
        assert_eq!(read_into(&mut client, key, region(1, 1 << 20, None)).await, status);
    }
}

/// A server that checks a sample refuses some of what is wrong, and nothing that is right. The chance that it refuses none of so many, or takes none,
/// is less than one in 10^16.
//= MKV-REG-7 test
#[tokio::test]
async fn a_server_that_checks_a_sample_refuses_some() {
    let test = "a_server_that_checks_a_sample_refuses_some";
    let Some((_turn, _device, directory, server)) = begin(test).await else { return };
    drop(server);
    let server = Server::start_with(Mode::Memory, directory.path(), KEY, "rdma: {verify: sampled}\n");
    let mut client = rdma::connect_one_sided(&server.address, 1).await.unwrap();
    let value = bytes(4, 20_000);
    client.memory.as_ref().unwrap().write(0, &value).unwrap();
    let mac = client.mac(&value).unwrap();
    for round in 0..100_u32 {
        let written = write_from(&mut client, &round.to_le_bytes(), region(1, 0, Some(&mac)), &value).await;
        assert_eq!(written, Some(Status::Ok));
    }
    let mut changed = value.clone();
    changed[7] ^= 1;
    client.memory.as_ref().unwrap().write(0, &changed).unwrap();
    let mut refused = 0;
    for round in 1000..1600_u32 {
        let key = round.to_le_bytes();
        match write_from(&mut client, &key, region(1, 0, Some(&mac)), &value).await {
            Some(Status::ChecksumMismatch) => refused += 1,
            Some(Status::Ok) => {
                let found = read_into(&mut client, &key, region(1, 1 << 20, None)).await;
                assert_eq!(found, Status::NotFound, "what was not checked is found out when it is read");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((1..600).contains(&refused), "{refused}");
}

//= MKV-REG-1 test
//= MKV-REG-8 test
#[tokio::test]
async fn places_outside_of_the_own_memory_are_refused() {
    let test = "places_outside_of_the_own_memory_are_refused";
    let Some((_turn, device, _directory, server)) = begin(test).await else { return };
    let (mut client, registered) =
        rdma::connect_reachable(&device, &server.address, 1, MEMORY_BYTES).await.unwrap();
    let mut endless = registered;
    endless.place.address = u64::MAX - 4096;
    assert_eq!(rdma::register(&mut client, &[(1, endless)]).await, Status::Invalid);
    assert_eq!(rdma::register(&mut client, &[(1, registered), (1, registered)]).await, Status::Invalid);
    let value = bytes(4, 50_000);
    let mac = client.mac(&value).unwrap();
    let answer = write_from(&mut client, b"k", region(1, 0, Some(&mac)), &value).await;
    assert_eq!(answer, Some(Status::Invalid), "none is registered");
    assert_eq!(rdma::register(&mut client, &[(1, registered)]).await, Status::Ok);
    assert_eq!(rdma::register(&mut client, &[(1, registered)]).await, Status::Invalid, "twice");
    assert_eq!(client.write(b"v", &value).await, Status::Ok);
    let end = registered.size_bytes as u64;
    for (id, offset) in [(1, end), (1, end - 49_999), (1, u64::MAX), (1, u64::MAX - 49_999), (2, 0)] {
        let answer = write_from(&mut client, b"k", region(id, offset, Some(&mac)), &value).await;
        assert_eq!(answer, Some(Status::Invalid), "{id} {offset}");
        assert_eq!(read_into(&mut client, b"v", region(id, offset, None)).await, Status::Invalid);
    }
    assert_eq!(read_into(&mut client, b"v", region(1, end - 50_000, None)).await, Status::Ok);
    // The other kind of memory, and other kinds of connections.
    let which = RegionDescriptorWhich::SharedMemory;
    let shared = [RegionDescriptor { id: 9, length: 1, which }];
    let ping = Ping { echo: 1, regions: List::from(&shared), ..Default::default() };
    assert_eq!(client.call(RequestWhich::Ping(ping), &[]).await[0].status(), Status::Unsupported);
    for wire in [Wire::Tcp, Wire::Local] {
        let mut other = Client::connect_over(wire, &server.address, 2).await;
        assert_eq!(rdma::register(&mut other, &[(5, registered)]).await, Status::Unsupported);
    }
    //= MKV-RDMA-7 test
    let mut unreachable = rdma::connect_on(&device, &server.address, 3).await.unwrap();
    assert_eq!(rdma::register(&mut unreachable, &[(5, registered)]).await, Status::Unsupported);
    // What was released is not registered any more.
    let ping = Ping { echo: 1, released: List::from(&[1]), ..Default::default() };
    assert_eq!(client.call(RequestWhich::Ping(ping), &[]).await[0].status(), Status::Ok);
    let answer = write_from(&mut client, b"k", region(1, 0, Some(&mac)), &value).await;
    assert_eq!(answer, Some(Status::Invalid));
}

/// A place that the client's device does not know ends that client's connection, and nobody else's.
#[tokio::test]
async fn a_wrong_key_ends_one_connection_alone() {
    let test = "a_wrong_key_ends_one_connection_alone";
    let Some((_turn, device, _directory, server)) = begin(test).await else { return };
    let mut healthy = rdma::connect_one_sided(&server.address, 1).await.unwrap();
    let value = bytes(4, 50_000);
    assert_eq!(healthy.write(b"v", &value).await, Status::Ok);
    for writes in [true, false] {
        let (mut client, mut registered) =
            rdma::connect_reachable(&device, &server.address, 2, BLOCK).await.unwrap();
        registered.place.key ^= 0x5500;
        assert_eq!(rdma::register(&mut client, &[(1, registered)]).await, Status::Ok);
        let mac = client.mac(&value).unwrap();
        if writes {
            assert_eq!(write_from(&mut client, b"k", region(1, 0, Some(&mac)), &value).await, None);
        } else {
            let destination = Destination { which: DestinationWhich::Region(region(1, 0, None)) };
            let which = RequestWhich::Read(Read { key: b"v", offset: 0, length: 0, destination });
            assert!(client.try_call(which, &[]).await.is_none());
        }
    }
    assert_eq!(healthy.exists(&[b"k", b"v"]).await, [0, 50_000]);
    assert!(healthy.read(b"v", 0, 0).await.as_deref() == Ok(&value[..]));
}

/// One SEND each way for an operation of up to a MiB, beside the transfers and a grant now and then.
#[tokio::test]
async fn an_operation_takes_one_message_each_way() {
    let test = "an_operation_takes_one_message_each_way";
    let Some((_turn, _device, _directory, server)) = begin(test).await else { return };
    let mut client = rdma::connect_one_sided(&server.address, 1).await.unwrap();
    let counts = |client: &mut Client| match client.reader.io_mut() {
        memkv_transport::net::ReadHalf::Rdma(half) => half.counts(),
        _ => panic!("over RDMA"),
    };
    let before = counts(&mut client);
    for (round, length) in [20_000, 300_000, BLOCK, BLOCK].into_iter().enumerate() {
        let value = bytes(round as u64, length);
        assert_eq!(client.write(&[round as u8], &value).await, Status::Ok);
        assert!(client.read(&[round as u8], 0, 0).await.as_deref() == Ok(&value[..]));
    }
    let after = counts(&mut client);
    assert_eq!((after.messages - before.messages, after.received - before.received), (8, 8));
    assert_eq!(after.grants, before.grants);
}

/// An allocation whose lease ended takes no bytes any more, and the connection goes on.
#[tokio::test]
async fn an_expired_lease_is_told() {
    let Some((_turn, _device, _directory, server)) = begin("an_expired_lease_is_told").await else { return };
    let mut client = rdma::connect_one_sided(&server.address, 1).await.unwrap();
    let value = bytes(4, 50_000);
    let allocate = Allocate { key: b"k", length: 50_000, checksum: None, lease_ms: 1 };
    let made = client.call(RequestWhich::Allocate(allocate), &[]).await;
    let allocation = made[0].with(|response| match response.which {
        ResponseWhich::Allocate(reply) => reply.allocation,
        _ => panic!("another arm"),
    });
    client.memory.as_ref().unwrap().write(0, &value).unwrap();
    let (mac, sum) = (client.mac(&value).unwrap(), memkv_wire::checksum::block(&value));
    let which = PieceWhich::Region(region(1, 0, Some(&mac)));
    let pieces = [Piece { which, ..piece(0, 0, value.len(), &sum) }];
    loop {
        let write =
            Write { key: b"k", length: 50_000, checksum: None, allocation, pieces: List::from(&pieces) };
        match client.call(RequestWhich::Write(write), &[]).await.last().unwrap().status() {
            Status::Ok => {}
            status => break assert_eq!(status, Status::LeaseExpired),
        }
    }
    assert_eq!(client.exists(&[b"k"]).await, [0]);
    assert_eq!(client.write(b"k", &value).await, Status::Ok);
}

#[tokio::test]
async fn a_failed_queue_pair_ends_one_connection_alone() {
    let test = "a_failed_queue_pair_ends_one_connection_alone";
    let Some((_turn, device, _directory, server)) = begin(test).await else { return };
    let before = resources(Some(&server));
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
    let server = start_confined(directory.path(), 64 << 10);
    let before = resources(Some(&server));
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

/// What may be locked is enough for queue pairs, and not for the memory that one-sided transfers need.
#[tokio::test]
async fn too_little_memory_for_one_sided_transfers() {
    let test = "too_little_memory_for_one_sided_transfers";
    let Some((_turn, device, directory, server)) = begin(test).await else { return };
    drop(server);
    let server = start_confined(directory.path(), 32 << 20);
    let before = resources(Some(&server));
    assert!(log(directory.path()).contains("bytes go with the frames"));
    let (mut client, registered) =
        rdma::connect_reachable(&device, &server.address, 1, MEMORY_BYTES).await.unwrap();
    assert_eq!(rdma::register(&mut client, &[(1, registered)]).await, Status::Unsupported);
    client.memory = None;
    let value = bytes(1, 2 * BLOCK);
    assert_eq!(client.write(b"k", &value).await, Status::Ok);
    assert!(client.read(b"k", 0, 0).await.as_deref() == Ok(&value[..]));
    assert_eq!((client.stat("bytes_fetched").await, client.stat("bytes_put").await), (0, 0));
    drop(client);
    settle(&server, before).await;
}

/// A server whose device has another address than the one that its client's device has.
#[tokio::test]
async fn addresses_of_two_networks_reach_each_other() {
    let test = "addresses_of_two_networks_reach_each_other";
    let Some((_turn, device, directory, server)) = begin(test).await else { return };
    drop(server);
    let subnet = |text: &str| Some(text.parse().unwrap());
    let other = Device::open(&Selection { subnet: subnet("10.78.0.0/24"), ..Selection::default() });
    let Ok(other) = other else {
        return println!("MEMKV-SKIP {test} no RDMA device with an address in 10.78.0.0/24 here");
    };
    assert_ne!(other.gid(), device.gid());
    let server = Server::start_with(Mode::Memory, directory.path(), KEY, "rdma: {subnet: 10.78.0.0/24}\n");
    for device in [device, other] {
        let mut client = rdma::connect_one_sided_on(&device, &server.address, 1, MEMORY_BYTES).await.unwrap();
        let value = bytes(1, 2 * BLOCK);
        assert_eq!(client.write(b"k", &value).await, Status::Ok);
        assert!(client.read(b"k", 0, 0).await.as_deref() == Ok(&value[..]));
    }
    let mut client = Client::connect(&server.address, 2).await;
    assert_eq!(client.stat("connections_rdma").await, 2);
    assert!(client.stat("bytes_fetched").await >= 2 * BLOCK as u64);
}

#[test]
fn a_server_that_is_told_of_no_device_names_those_there_are() {
    let test = "a_server_that_is_told_of_no_device_names_those_there_are";
    let Some(device) = rdma::device(test) else { return };
    let (_keep, path) = directory();
    let config = path.join("config.yaml");
    std::fs::write(&config, "rdma: {device: none7}\nstorage: {mode: memory}\n").unwrap();
    let mut command = command();
    command.env("MEMKV_AUTH_KEY", KEY).arg("start").arg("--config").arg(&config);
    let output = command.args(["--listen", "127.0.0.1:0"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("none7") && said.contains(&format!("there are: {}", device.name())), "{said}");
}

/// A server that may lock so many bytes of memory, though it is root's.
fn start_confined(data: &Path, lock_bytes: u64) -> Server {
    let config = data.join("config.yaml");
    std::fs::write(&config, format!("{RDMA}storage:\n  mode: memory\n  capacity: 256MiB\n")).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-ipc_lock", "--inh-caps", "-ipc_lock", "prlimit"]);
    command.arg(format!("--memlock={lock_bytes}"));
    command.arg(env!("CARGO_BIN_EXE_memkv")).arg("start").arg("--config").arg(&config);
    command.args(["--listen", "127.0.0.1:0"]).arg("--log-file").arg(data.join("memkv.log"));
    command.env("MEMKV_AUTH_KEY", KEY);
    Server::spawn(command)
}

/// No processor copies a payload of whole sectors between the client's memory and a drive: of what the device fetched there is no second set of
/// bytes in the server's memory, nor of what it put.
#[tokio::test]
async fn payloads_are_copied_by_devices_alone() {
    const PAGES: usize = BLOCK / 4096;
    let test = "payloads_are_copied_by_devices_alone";
    let Some((_turn, _device, directory, server)) = begin(test).await else { return };
    drop(server);
    let path = directory.path();
    let Some(drives) = loops::loops(test, path, 1, 64) else { return };
    let mut setup = command();
    setup.arg("setup").arg("--data").arg(path.join("data")).args(["--drives", drives[0].text()]);
    let made = setup.output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let config = String::from_utf8(made.stdout).unwrap();
    std::fs::write(path.join("config.yaml"), format!("{RDMA}{config}")).unwrap();
    let start = || {
        let mut command = command();
        command.env("MEMKV_AUTH_KEY", KEY).envs(residue::KEEP).arg("start").args(["--listen", "127.0.0.1:0"]);
        command.arg("--config").arg(path.join("config.yaml")).arg("--log-file").arg(path.join("memkv.log"));
        Server::spawn(command)
    };
    let server = start();
    let mut client = rdma::connect_one_sided(&server.address, 1).await.unwrap();
    let value = residue::marked(1, PAGES);
    assert_eq!(client.write(b"k", &value).await, Status::Ok);
    assert_eq!(residue::copies(server.id(), 1, PAGES), [1; PAGES], "fetched, and written from there");
    server.signal("TERM");
    server.wait();
    let server = start();
    let mut client = rdma::connect_one_sided(&server.address, 1).await.unwrap();
    // Looking for the end of what was stored may have met some of it.
    let before = residue::copies(server.id(), 1, PAGES);
    assert!(before.iter().sum::<usize>() < PAGES / 8, "{before:?}");
    assert!(client.read(b"k", 0, 0).await.as_deref() == Ok(&value[..]));
    let after = residue::copies(server.id(), 1, PAGES);
    let once = |(before, after): (&usize, &usize)| *after > 0 && *after <= before + 1;
    assert!(before.iter().zip(&after).all(once), "read, and put from there: {after:?}");
    // What goes in the frames is copied out of them, which is seen.
    let mut framed = rdma::connect(&server.address, 2).await.unwrap();
    assert_eq!(framed.write(b"f", &residue::marked(2, 2)).await, Status::Ok);
    let framed = residue::copies(server.id(), 2, 2);
    assert!(framed.iter().all(|copies| *copies >= 2), "{framed:?}");
}
