//! Peers on the same host that mean no good: they get an answer or lose their connection, and the others notice nothing.
#![cfg(target_os = "linux")]

mod support;

use std::fs::{Permissions, set_permissions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memkv_transport::buf::BufPool;
use memkv_transport::local;
use memkv_transport::net::WriteHalf;
use memkv_transport::session::ClientTerms;
use memkv_transport::shared::{Region as Memory, SharedMemory};
use memkv_transport::tcp;
use memkv_wire::mac::Key;
use memkv_wire::*;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use support::*;

async fn begin() -> (tempfile::TempDir, Server) {
    let (directory, path) = directory();
    let server = Server::start(Mode::Memory, &path);
    (directory, server)
}

fn memory_file(size_bytes: u64, seals: SealFlags) -> OwnedFd {
    let file = memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, size_bytes).unwrap();
    fcntl_add_seals(&file, seals).unwrap();
    file
}

fn region(id: u32, offset: u64) -> Region<'static> {
    Region { id, offset, mac: None }
}

/// Writes a value of one piece that lies in a region; what the server says.
async fn write_from(
    client: &mut Client,
    key: &[u8],
    place: Region<'_>,
    length: usize,
    sum: &[u8; 16],
) -> Status {
    let pieces = [Piece { which: PieceWhich::Region(place), ..piece(0, 0, length, sum) }];
    let which = RequestWhich::Write(Write {
        key,
        length: length as u64,
        checksum: None,
        allocation: 0,
        pieces: List::from(&pieces),
    });
    client.call(which, &[]).await.last().unwrap().status()
}

async fn read_into(client: &mut Client, key: &[u8], place: Region<'_>) -> Status {
    let destination = Destination { which: DestinationWhich::Region(place) };
    let which = RequestWhich::Read(Read { key, offset: 0, length: 0, destination });
    client.call(which, &[]).await.last().unwrap().status()
}

async fn offered(server: &Server) -> String {
    let terms = ClientTerms::new([1; 16], "test");
    let pool = BufPool::new(1 << 20);
    let connected = tcp::connect(&server.address, &Key::from_hex(KEY).unwrap(), &terms, pool).await;
    connected.unwrap().2.local_path
}

#[tokio::test]
//= MKV-CONN-11 test
async fn the_socket_is_where_it_is_wanted() {
    let (_keep, path) = directory();
    let socket = path.join("here");
    let more = format!("network:\n  local: {}\n", socket.display());
    let server = Server::start_with(Mode::Memory, &path, KEY, &more);
    assert_eq!(offered(&server).await, socket.to_str().unwrap());
    server.signal("TERM");
    assert!(server.wait().success());
    assert!(!socket.exists(), "it goes with the server");
    let server = Server::start_with(Mode::Memory, &path, KEY, "network:\n  local: \"off\"\n");
    assert_eq!(offered(&server).await, "");
    let server = Server::start(Mode::File, &path);
    assert_eq!(offered(&server).await, path.join("data/memkv.sock").to_str().unwrap());
}

/// A child of this test that is a process of another user, told by this variable where the socket is.
const STRANGER: &str = "MEMKV_TEST_LOCAL_STRANGER";
const NOBODY: u32 = 65_534;
const GROUP: u32 = 65_533;

/// Says whether the server sets up a connection with it.
#[tokio::test]
async fn stranger() {
    let Ok(path) = std::env::var(STRANGER) else { return };
    drop(UnixStream::connect(&path).expect("the file's mode lets it through"));
    let (key, pool) = (Key::from_hex(KEY).unwrap(), BufPool::new(1 << 20));
    let connected = local::connect(&path, &key, &ClientTerms::new([1; 16], "stranger"), pool).await;
    println!("\n{}", if connected.is_ok() { "let in" } else { "turned away" });
}

/// Whether a process of nobody with these groups is let in.
fn is_let_in(socket: &Path, group: u32, supplementary: Option<u32>) -> bool {
    let mut child = Command::new("setpriv");
    child.arg(format!("--reuid={NOBODY}")).arg(format!("--regid={group}"));
    child.arg(supplementary.map_or("--clear-groups".to_owned(), |more| format!("--groups={more}")));
    child.arg(std::env::current_exe().unwrap()).args(["stranger", "--exact", "--nocapture"]);
    let output = child.env(STRANGER, socket).output().expect("util-linux is installed");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = |what: &str| told.lines().any(|line| line == what);
    assert!(output.status.success() && said("let in") != said("turned away"), "{output:?}");
    said("let in")
}

#[test]
fn another_user_needs_the_group() {
    if !rustix::process::getuid().is_root() {
        println!("MEMKV-SKIP another_user_needs_the_group a process of another user takes root to start");
        return;
    }
    let (_keep, path) = directory();
    set_permissions(&path, Permissions::from_mode(0o711)).unwrap();
    let socket = path.join("socket");
    let begin = |more: &str| {
        let more = format!("network:\n  local: {}\n{more}", socket.display());
        Server::start_with(Mode::Memory, &path, KEY, &more)
    };
    // What the file's mode keeps out never gets as far as the server's own check: the mode is widened.
    let open_to_all = || set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    let server = begin("");
    open_to_all();
    assert!(!is_let_in(&socket, NOBODY, None), "there is no group");
    assert!(!is_let_in(&socket, 0, None), "the server's own group is none that may");
    drop(server);
    let _server = begin(&format!("  local_group: {GROUP}\n"));
    assert!(is_let_in(&socket, GROUP, None), "by the mode that the server gave the file");
    assert!(is_let_in(&socket, NOBODY, Some(GROUP)), "as one of several groups");
    open_to_all();
    assert!(!is_let_in(&socket, NOBODY, None));
    assert!(!is_let_in(&socket, NOBODY, Some(0)));
}

#[tokio::test]
//= MKV-REG-4 test
//= MKV-PING-2 test
async fn memory_that_cannot_be_relied_on_is_refused() {
    let (_keep, server) = begin().await;
    let mut client = Client::connect_local(&server.address, 1).await;
    let good = || memory_file(4096, SealFlags::SHRINK);
    for (length, file) in [
        (4096, memory_file(4096, SealFlags::empty())),
        (8192, good()),
        (1 << 40, good()),
        (4096, tempfile::tempfile().unwrap().into()),
        (4096, std::fs::File::open("/dev/zero").unwrap().into()),
    ] {
        assert_eq!(client.register(&[(1, length)], vec![file]).await, Status::Invalid);
    }
    assert_eq!(client.register(&[(1, 4096)], vec![]).await, Status::Invalid, "no file");
    assert_eq!(client.register(&[(1, 4096), (1, 4096)], vec![good(), good()]).await, Status::Invalid);
    // One bad file and none is registered; the files of a refused message are not taken for the next one's.
    let mixed = vec![good(), memory_file(4096, SealFlags::empty())];
    assert_eq!(client.register(&[(1, 4096), (2, 4096)], mixed).await, Status::Invalid);
    assert_eq!(read_into(&mut client, b"none", region(1, 0)).await, Status::NotFound);
    assert_eq!(write_from(&mut client, b"k", region(1, 0), 10, &[0; 16]).await, Status::Invalid);
    assert_eq!(client.register(&[(1, 4096)], vec![good()]).await, Status::Ok);
    assert_eq!(client.register(&[(1, 4096)], vec![good()]).await, Status::Invalid, "twice");
    let more: Vec<_> = (2..65).map(|id| (id, 4096)).collect();
    assert_eq!(client.register(&more, more.iter().map(|_| good()).collect()).await, Status::Ok);
    assert_eq!(client.register(&[(65, 4096)], vec![good()]).await, Status::Busy);
    let released = [7, 8, 4711];
    let ping = Ping { echo: 1, released: List::from(&released), ..Default::default() };
    assert_eq!(client.call(RequestWhich::Ping(ping), &[]).await[0].status(), Status::Ok);
    assert_eq!(client.register(&[(65, 4096), (7, 4096)], vec![good(), good()]).await, Status::Ok);
    // More files than a connection may have waiting.
    for answered in [true, false] {
        let WriteHalf::Local(half) = client.writer.io_mut() else { panic!("a local connection") };
        half.attach((0..40).map(|_| good()));
        let answer = client.try_call(RequestWhich::Ping(Ping::default()), &[]).await;
        assert_eq!(answer.is_some(), answered);
    }
    let mut other = Client::connect_over(Wire::Local, &server.address, 2).await;
    assert_eq!(other.write(b"still", b"served").await, Status::Ok);
}

#[tokio::test]
//= MKV-REG-1 test
//= MKV-REG-2 test
async fn places_outside_of_the_own_memory_are_refused() {
    let (_keep, server) = begin().await;
    let mut client = Client::connect_over(Wire::Local, &server.address, 1).await;
    let mut other = Client::connect_local(&server.address, 1).await;
    let mut far = Client::connect(&server.address, 1).await;
    let value = bytes(1, 100_000);
    assert_eq!(client.write(b"v", &value).await, Status::Ok);
    let sum = memkv_wire::checksum::block(&value[..5000]);
    let end = MEMORY_BYTES as u64;
    for place in [
        region(1, end),
        region(1, end - 4999),
        region(1, u64::MAX),
        region(1, u64::MAX - 4999),
        region(1, 1 << 63),
        region(2, 0),
        region(u32::MAX, 0),
    ] {
        assert_eq!(write_from(&mut client, b"w", place, 5000, &sum).await, Status::Invalid);
        assert_eq!(read_into(&mut client, b"v", place).await, Status::Invalid);
    }
    // The memory of one connection is no other's.
    assert_eq!(write_from(&mut other, b"w", region(1, 0), 5000, &sum).await, Status::Invalid);
    assert_eq!(read_into(&mut other, b"v", region(1, 0)).await, Status::Invalid);
    assert_eq!(write_from(&mut far, b"w", region(1, 0), 5000, &sum).await, Status::Unsupported);
    assert_eq!(read_into(&mut far, b"v", region(1, 0)).await, Status::Invalid);
    assert_eq!(client.exists(&[b"w"]).await, [0]);
    assert!(client.read(b"v", 0, 0).await.as_deref() == Ok(&value[..]));
    assert_eq!(write_from(&mut client, b"w", region(1, 0), 5000, &sum).await, Status::Ok);
}

#[tokio::test]
//= MKV-REG-3 test
async fn a_frame_moves_no_more_than_a_payload() {
    let (_keep, server) = begin().await;
    let mut client = Client::connect_over(Wire::Local, &server.address, 1).await;
    let (a, b) = (bytes(1, BLOCK), bytes(2, 1));
    let memory = client.memory.as_ref().unwrap();
    memory.write(0, &a).unwrap();
    memory.write(BLOCK as u64, &b).unwrap();
    let (sum_a, sum_b) = (memkv_wire::checksum::block(&a), memkv_wire::checksum::block(&b));
    let items = [
        WriteItem { key: b"a", length: BLOCK as u64, checksum: None },
        WriteItem { key: b"b", length: 1, checksum: None },
    ];
    let pieces = [
        Piece { which: PieceWhich::Region(region(1, 0)), ..piece(0, 0, BLOCK, &sum_a) },
        Piece { which: PieceWhich::Region(region(1, BLOCK as u64)), ..piece(1, 0, 1, &sum_b) },
    ];
    let batch = |pieces| RequestWhich::BatchWrite(BatchWrite { items: List::from(&items), pieces });
    let frames = client.call(batch(List::from(&pieces)), &[]).await;
    assert_eq!(frames.last().unwrap().status(), Status::Invalid);
    let inline = [pieces[0], piece(1, 0, 1, &sum_b)];
    let frames = client.call(batch(List::from(&inline)), &b).await;
    assert_eq!(frames.last().unwrap().status(), Status::Invalid);
    assert_eq!(client.exists(&[b"a", b"b"]).await, [0, 0]);
    // Beside each other, in two frames.
    let id = client.next_id();
    client.send(id, false, batch(List::from(&pieces[..1])), &[]).await;
    let second = BatchWrite { items: List::default(), pieces: List::from(&inline[1..]) };
    client.send(id, true, RequestWhich::BatchWrite(second), &b).await;
    let frames = client.finish(id).await.unwrap();
    assert!(frames.iter().all(|frame| frame.status() == Status::Ok));
    assert_eq!(client.exists(&[b"a", b"b"]).await, [BLOCK as u64, 1]);
}

/// A client that changes its memory while the server looks at it harms itself at most: what is stored is what was verified.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
//= MKV-REG-5 test
//= MKV-RD-4 test
async fn bytes_that_change_are_stored_as_verified_or_refused() {
    let (_keep, server) = begin().await;
    let mut client = Client::connect_local(&server.address, 1).await;
    let memory = SharedMemory::create(MEMORY_BYTES).unwrap();
    let file = || memory.as_fd().try_clone_to_owned().unwrap();
    assert_eq!(client.register(&[(1, MEMORY_BYTES as u64)], vec![file()]).await, Status::Ok);
    let own = Arc::new(Memory::open(file(), MEMORY_BYTES as u64).unwrap());
    let ended = Arc::new(AtomicBool::new(false));
    let racer = {
        let (own, ended) = (Arc::clone(&own), Arc::clone(&ended));
        std::thread::spawn(move || {
            let mut turn = 0u64;
            while !ended.load(Ordering::Relaxed) {
                // Mostly what the checksum says, now and then not.
                turn += 1;
                own.write(700_000, &[if turn.is_multiple_of(4) { 9 } else { 7 }; 4096]).unwrap();
            }
        })
    };
    let value = vec![7; BLOCK];
    let sum = memkv_wire::checksum::block(&value);
    own.write(0, &value).unwrap();
    let mut outcomes = [0; 2];
    let mut reader = Client::connect(&server.address, 2).await;
    for turn in 0..60 {
        let key = format!("key {turn}");
        match write_from(&mut client, key.as_bytes(), region(1, 0), BLOCK, &sum).await {
            Status::Ok => {
                outcomes[0] += 1;
                assert!(reader.read(key.as_bytes(), 0, 0).await.as_deref() == Ok(&value[..]));
            }
            status => {
                assert_eq!(status, Status::ChecksumMismatch);
                outcomes[1] += 1;
                assert_eq!(reader.exists(&[key.as_bytes()]).await, [0]);
            }
        }
    }
    ended.store(true, Ordering::Relaxed);
    racer.join().unwrap();
    assert_eq!(outcomes[0] + outcomes[1], 60);
    // A read into memory that the client changes under it spoils nothing either.
    own.write(0, &value).unwrap();
    assert_eq!(write_from(&mut client, b"last", region(1, 0), BLOCK, &sum).await, Status::Ok);
    assert_eq!(read_into(&mut client, b"last", region(1, 2 * BLOCK as u64)).await, Status::Ok);
    let mut copy = vec![0; BLOCK];
    own.read(2 * BLOCK as u64, &mut copy).unwrap();
    assert!(copy == value);
    assert_eq!(reader.stat("checksum_failures").await, 0);
}

/// One message asks for gigabytes, and for all of them in the same place: the thread that serves it goes on serving the others.
#[tokio::test]
async fn a_read_of_much_into_shared_memory_leaves_the_others_their_turns() {
    let (_keep, server) = begin().await;
    let mut greedy = Client::connect_over(Wire::Local, &server.address, 1).await;
    assert_eq!(greedy.write(b"big", &bytes(1, 8 * BLOCK)).await, Status::Ok);
    // One for each thread, and so one for that of the greedy one.
    let mut others = Vec::new();
    for number in 0..std::thread::available_parallelism().unwrap().get() {
        others.push(Client::connect(&server.address, 2 + number as u8).await);
    }
    let which = DestinationWhich::Region(region(1, READ_OFFSET));
    let item = ReadItem { key: b"big", offset: 0, length: 0, destination: Destination { which } };
    let items = [item; 3000];
    let which = RequestWhich::BatchRead(BatchRead { items: List::from(&items) });
    let request_id = greedy.next_id();
    greedy.send(request_id, true, which, &[]).await;
    assert!(!greedy.next().await.unwrap().last, "it has begun");
    for other in &mut others {
        let ping = RequestWhich::Ping(Ping::default());
        assert_eq!(other.call(ping, &[]).await[0].status(), Status::Ok);
        // That of the greedy one, which takes no more of its reply, and this one.
        assert_eq!(other.stat("requests_open").await, 2, "answered before the large one has ended");
    }
}

/// A client may use its memory again as soon as the server has closed its side: nothing that was asked for before is still on
/// its way there.
#[tokio::test]
//= MKV-REG-6 test
async fn nothing_is_written_once_the_connection_is_closed() {
    let (_keep, path) = directory();
    let server = Server::start(Mode::File, &path);
    let mut other = Client::connect(&server.address, 2).await;
    assert_eq!(other.write(b"value", &bytes(1, BLOCK)).await, Status::Ok);
    for requests in [1, 7, 60] {
        let mut client = Client::connect_over(Wire::Local, &server.address, 1).await;
        let destination = Destination { which: DestinationWhich::Region(region(1, READ_OFFSET)) };
        for _ in 0..requests {
            let id = client.next_id();
            let read = Read { key: b"value", offset: 0, length: 0, destination };
            client.send(id, true, RequestWhich::Read(read), &[]).await;
        }
        // Nothing is read, and the connection is ended from this side.
        let Client { mut reader, writer, memory, .. } = client;
        drop(writer);
        while let Ok(Some(_)) = reader.next().await {}
        let memory = memory.unwrap();
        memory.write(READ_OFFSET, &vec![0; BLOCK]).unwrap();
        while other.stat("reads_pinned").await > 0 || other.stat("requests_open").await > 1 {}
        let mut after = vec![1; BLOCK];
        memory.read(READ_OFFSET, &mut after).unwrap();
        assert!(after.iter().all(|byte| *byte == 0));
    }
}
