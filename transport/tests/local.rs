//! Frames and files over a Unix socket, and memory that a hostile client shares.

mod support;

use std::io::{ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use memkv_transport::error::TransportError;
use memkv_transport::local::{self, FILES_MAX, Files, Listener};
use memkv_transport::net::{Reader, WriteHalf, Writer};
use memkv_transport::session::{ClientTerms, SetupGate};
use memkv_wire::mac::Key;
use memkv_wire::{Ping, Request, RequestWhich};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use support::*;

struct Ends {
    _keep: tempfile::TempDir,
    client: (Reader, Writer),
    server: (Reader, Writer),
    files: Files,
}

async fn try_connected(key: Key) -> Result<Ends, TransportError> {
    let keep = tempfile::tempdir().unwrap();
    let path = keep.path().join("socket");
    let listener = Listener::bind(&path, None).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let (ring, terms, gate) = (ring(), server_terms(), SetupGate::default());
    let client_terms = ClientTerms::new([1; 16], "a client");
    let accepting = async {
        let socket = listener.accept().await.unwrap();
        local::accept(socket, &ring, &terms, &gate, pool()).await
    };
    let connecting = local::connect(path.to_str().unwrap(), &key, &client_terms, pool());
    let (client, server) = tokio::join!(connecting, accepting);
    let (client_reader, client_writer, _) = client?;
    let (server_reader, server_writer, info, files) = server.unwrap();
    assert_eq!(info.client_name, "a client");
    drop(listener);
    assert!(!path.exists(), "the socket goes with its listener");
    Ok(Ends {
        _keep: keep,
        client: (client_reader, client_writer),
        server: (server_reader, server_writer),
        files,
    })
}

async fn connected() -> Ends {
    try_connected(key()).await.unwrap()
}

async fn send(writer: &mut Writer, echo: u64, files: Vec<OwnedFd>) {
    let WriteHalf::Local(half) = writer.io_mut() else { panic!("a local connection") };
    half.attach(files);
    let mut frame = writer.blank();
    (frame.request_id, frame.last) = (1, true);
    let which = RequestWhich::Ping(Ping { echo, ..Ping::default() });
    Request { namespace: b"", which }.encode(&mut frame.control).unwrap();
    writer.push(frame).unwrap();
    writer.flush().await.unwrap();
}

fn file(text: &str) -> OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    file.into()
}

fn text(file: OwnedFd) -> String {
    let mut file = std::fs::File::from(file);
    std::io::Seek::rewind(&mut file).unwrap();
    std::io::read_to_string(file).unwrap()
}

#[tokio::test]
async fn files_come_in_order_and_no_later_than_their_frame() {
    let mut ends = connected().await;
    // The first file goes right behind the confirmation, which the server may read together with it.
    for round in 0..20 {
        let files = (0..round % 3).map(|at| file(&format!("{round}.{at}"))).collect();
        send(&mut ends.client.1, round, files).await;
    }
    for round in 0..20 {
        assert!(ends.server.0.next().await.unwrap().is_some());
        for at in 0..round % 3 {
            assert_eq!(text(ends.files.take().unwrap()), format!("{round}.{at}"));
        }
    }
    assert!(ends.files.take().is_none());
    drop(ends.client);
    assert!(ends.server.0.next().await.unwrap().is_none(), "closed between two frames");
}

#[tokio::test]
async fn too_many_files_end_the_connection() {
    let mut ends = connected().await;
    for _ in 0..2 {
        send(&mut ends.client.1, 1, (0..FILES_MAX / 2).map(|_| file("")).collect()).await;
        assert!(ends.server.0.next().await.unwrap().is_some());
    }
    send(&mut ends.client.1, 1, vec![file("")]).await;
    assert!(matches!(ends.server.0.next().await, Err(TransportError::Io(_))));
    assert!(ends.files.take().is_none(), "none of them is kept");
}

#[tokio::test]
async fn files_of_a_peer_that_proved_nothing_are_not_taken() {
    let keep = tempfile::tempdir().unwrap();
    let path = keep.path().join("socket");
    let listener = Listener::bind(&path, None).unwrap();
    let stranger = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let file = file("of a file system that blocks");
    let files = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
    sendmsg(&stranger, &[IoSlice::new(b"M")], &mut control, SendFlags::empty()).unwrap();
    drop(stranger);
    let (ring, terms, gate) = (ring(), server_terms(), SetupGate::default());
    let socket = listener.accept().await.unwrap();
    let error = local::accept(socket, &ring, &terms, &gate, pool()).await.unwrap_err().to_string();
    assert!(error.contains("too many files"), "{error}");
}

#[tokio::test]
async fn another_key_is_refused() {
    assert!(matches!(
        try_connected(Key::from_bytes([1; 32])).await.map(|_| ()),
        Err(TransportError::Setup(_))
    ));
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_long_path_refused() {
    let keep = tempfile::tempdir().unwrap();
    let path = keep.path().join("socket");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a process that is killed leaves it");
    let listener = Listener::bind(&path, None).unwrap();
    assert_eq!(listener.path(), path);
    assert!(Listener::bind(&keep.path().join("x".repeat(local::PATH_SIZE_BYTES_MAX)), None).is_err());
}

#[tokio::test]
async fn what_is_in_use_or_no_socket_is_left_alone() {
    let keep = tempfile::tempdir().unwrap();
    let [used, text, link] = ["used", "text", "link"].map(|name| keep.path().join(name));
    std::fs::write(&text, "notes").unwrap();
    std::os::unix::fs::symlink(&used, &link).unwrap();
    let first = Listener::bind(&used, None).unwrap();
    for (path, expected) in
        [(&used, ErrorKind::AddrInUse), (&text, ErrorKind::AlreadyExists), (&link, ErrorKind::AlreadyExists)]
    {
        let error = Listener::bind(path, None).unwrap_err();
        assert_eq!(error.kind(), expected, "{}: {error}", path.display());
    }
    assert_eq!(std::fs::read_to_string(&text).unwrap(), "notes");
    let connected = tokio::net::UnixStream::connect(&used);
    assert!(connected.await.is_ok(), "the first is still there");
    drop(first);
    assert!(!used.exists());
}

#[tokio::test]
async fn a_listener_removes_no_socket_but_its_own() {
    let keep = tempfile::tempdir().unwrap();
    let path = keep.path().join("socket");
    let first = Listener::bind(&path, None).unwrap();
    std::fs::remove_file(&path).unwrap();
    let second = Listener::bind(&path, None).unwrap();
    drop(first);
    assert!(tokio::net::UnixStream::connect(&path).await.is_ok());
    drop(second);
    assert!(!path.exists());
}

#[cfg(target_os = "linux")]
mod memory {
    use memkv_transport::buf::BufPool;
    use memkv_transport::shared::{REGION_SIZE_BYTES_MAX, Region, RegionError, SharedMemory};
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

    use super::*;

    const MIB: usize = 1 << 20;

    fn shared_file(memory: &SharedMemory) -> OwnedFd {
        memory.as_fd().try_clone_to_owned().unwrap()
    }

    fn memory_file(size_bytes: u64, seals: SealFlags) -> OwnedFd {
        let file = memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, size_bytes).unwrap();
        fcntl_add_seals(&file, seals).unwrap();
        file
    }

    #[test]
    fn both_sides_see_the_same_bytes_and_only_those_registered() {
        let pool = BufPool::new(64 * MIB);
        let before = pool.try_take(MIB).unwrap().freeze();
        assert_eq!(before.place(), None);
        assert!(pool.share(7, SharedMemory::create(32 * MIB).unwrap()));
        assert!(!pool.share(7, SharedMemory::create(32 * MIB).unwrap()), "once");
        let region = pool.with_shared(|_, memory| Region::open(shared_file(memory), 32 * MIB as u64));
        let region = region.unwrap().unwrap();
        let mut buffer = pool.try_take(MIB).unwrap();
        buffer.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 7) as u8);
        let buffer = buffer.freeze();
        let place = buffer.slice(100..200).place().unwrap();
        assert_eq!(place.region, 7);
        let mut copy = [0; 100];
        region.read(place.offset, &mut copy).unwrap();
        assert_eq!(copy, buffer[100..200]);
        region.write(place.offset, &[9; 100]).unwrap();
        assert_eq!(buffer[100..200], [9; 100]);
        for (offset, length) in [
            (32 * MIB as u64, 1),
            (32 * MIB as u64 - 1, 2),
            (0, 32 * MIB + 1),
            (u64::MAX, 1),
            (u64::MAX - 10, 100),
        ] {
            let mut bytes = vec![0; length];
            assert!(matches!(region.read(offset, &mut bytes), Err(RegionError::Outside { .. })));
            assert!(matches!(region.write(offset, &bytes), Err(RegionError::Outside { .. })));
        }
        region.read(32 * MIB as u64, &mut []).unwrap();
        // More than the memory holds: the rest comes from elsewhere, and nothing is given out twice.
        let taken: Vec<_> = (0..60).map(|_| pool.try_take(MIB).unwrap().freeze()).collect();
        assert_eq!(taken.iter().filter(|buffer| buffer.place().is_some()).count(), 31);
        let mut offsets: Vec<_> =
            taken.iter().filter_map(|buffer| buffer.place()).map(|p| p.offset).collect();
        offsets.sort_unstable();
        offsets.dedup();
        assert_eq!(offsets.len(), 31);
        assert!(!offsets.contains(&(place.offset - 100)));
        drop((buffer, before, taken));
        assert_eq!(pool.available_size_bytes(), pool.budget_size_bytes());
        // What is idle in small blocks is joined for a large one.
        let small: Vec<_> = (0..8192).map(|_| pool.try_take(4096).unwrap()).collect();
        drop(small);
        assert!(pool.try_take(16 * MIB).unwrap().freeze().place().is_some());
    }

    #[test]
    fn a_leaked_buffer_is_never_used_again() {
        let pool = BufPool::new(16 * MIB);
        pool.share(1, SharedMemory::create(16 * MIB).unwrap());
        let leaked = pool.try_take(MIB).unwrap().freeze();
        let place = leaked.place().unwrap();
        leaked.leak();
        let rest: Vec<_> = std::iter::from_fn(|| pool.try_take(MIB).ok()).map(|b| b.freeze()).collect();
        assert_eq!(rest.len(), 15);
        assert!(rest.iter().all(|buffer| buffer.place() != Some(place)));
    }

    #[test]
    fn files_that_cannot_be_relied_on_are_refused() {
        let open = |file: OwnedFd, length: u64| Region::open(file, length).map(|_| ());
        let page = 4096;
        let unsealed = memory_file(page, SealFlags::empty());
        assert!(matches!(open(unsealed, page), Err(RegionError::Unsealed)));
        assert!(matches!(open(memory_file(page, SealFlags::GROW), page), Err(RegionError::Unsealed)));
        let short = memory_file(page, SealFlags::SHRINK);
        assert!(matches!(open(short, page + 1), Err(RegionError::Short { .. })));
        assert!(matches!(open(memory_file(0, SealFlags::SHRINK), 0), Err(RegionError::Length { .. })));
        let long = memory_file(4 * REGION_SIZE_BYTES_MAX, SealFlags::SHRINK);
        assert!(matches!(open(long, REGION_SIZE_BYTES_MAX + 1), Err(RegionError::Length { .. })));
        assert!(matches!(open(file("no memory"), 4), Err(RegionError::NotMemory)));
        let (pipe, _end) = std::io::pipe().unwrap();
        assert!(matches!(open(pipe.into(), page), Err(RegionError::NotMemory)));
        let device = std::fs::File::open("/dev/zero").unwrap();
        assert!(matches!(open(device.into(), page), Err(RegionError::NotMemory)));
        // One that the server may not write to.
        let sealed = memory_file(page, SealFlags::SHRINK | SealFlags::WRITE);
        assert!(matches!(open(sealed, page), Err(RegionError::System(_))));
        assert!(open(memory_file(page, SealFlags::SHRINK), page).is_ok());
    }

    #[test]
    fn huge_pages_are_refused() {
        let made = memfd_create("test", MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB);
        let sized = made.and_then(|file| ftruncate(&file, 2 * MIB as u64).map(|()| file));
        match sized {
            Ok(file) => {
                fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
                assert!(matches!(Region::open(file, 4096), Err(RegionError::HugePages)));
            }
            Err(error) => println!("MEMKV-SKIP huge_pages_are_refused no file of huge pages: {error}"),
        }
    }

    #[test]
    fn a_region_cannot_be_shrunk_and_holes_do_no_harm() {
        let file = memory_file(16 * MIB as u64, SealFlags::SHRINK);
        let region = Region::open(file.try_clone().unwrap(), 16 * MIB as u64).unwrap();
        region.write(5000, b"before").unwrap();
        assert!(ftruncate(&file, 0).is_err());
        // The client may take its bytes away, but not the memory.
        let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, punch, 0, 16 * MIB as u64).unwrap();
        let mut bytes = [1; 6];
        region.read(5000, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 6]);
        drop(file);
        region.write(16 * MIB as u64 - 1, b"x").unwrap();
    }
}
