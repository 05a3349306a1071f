//! Queue pairs on a real device, soft-RoCE in the guest of tools/rdma: both ends in this process.
#![cfg(target_os = "linux")]

mod support;

use std::sync::Arc;

use memkv_transport::buf::{BUDGET_SIZE_BYTES_MIN, Buf, BufMut, BufPool};
use memkv_transport::error::TransportError;
use memkv_transport::net::{ReadHalf, Reader, Writer};
use memkv_transport::rdma::bare::Side;
use memkv_transport::rdma::endpoint::{MESSAGES_MAX, SLOT_SIZE_BYTES};
use memkv_transport::rdma::{
    self, Device, Memory, Offer, Part, Prepared, RdmaError, Reach, Registered, RemotePlace, Selection,
};
use memkv_transport::session::{ClientTerms, ServerInfo, SetupGate};
use memkv_transport::shared::SharedMemory;
use memkv_transport::stream::{self, Outgoing};
use memkv_transport::tcp;
use memkv_wire::mac::BulkAlgorithm;
use support::{key, pool, request, response, ring, server_terms};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

/// The device; `None`, and the test counts as skipped, where there is none.
fn device(test: &str) -> Option<Arc<Device>> {
    match Device::open(&Selection::default()) {
        Ok(device) => Some(device),
        Err(error) => {
            println!("MEMKV-SKIP {test} no RDMA device here, `cargo xtask test --rdma` makes one: {error}");
            None
        }
    }
}

fn terms() -> ClientTerms {
    ClientTerms::new([7; 16], "test")
}

type Ends = ((Reader, Writer, ServerInfo), (Reader, Writer));

/// A client that asks for a queue pair, and a server with this offer.
async fn connect(device: &Arc<Device>, offer: &Offer) -> Result<Ends, TransportError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let accept = async {
        let (socket, _) = listener.accept().await?;
        let (keys, terms, gate) = (ring(), server_terms(), SetupGate::default());
        rdma::accept(socket, (&keys, &terms), &gate, pool(), offer).await
    };
    let (key, terms) = (key(), terms());
    let (client, server) = tokio::join!(rdma::connect(address, device, &key, &terms, pool()), accept);
    let (reader, writer, _) = server?;
    Ok((client?, (reader, writer)))
}

async fn connected(device: &Arc<Device>) -> Ends {
    let offer = Offer::new(vec![Arc::clone(device)], 8);
    let ends = connect(device, &offer).await.unwrap();
    assert!(ends.0.2.queue_pair.is_some());
    ends
}

/// Bytes that differ from place to place.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

async fn send(writer: &mut Writer, frame: Outgoing) {
    writer.push(frame).unwrap();
    writer.flush().await.unwrap();
}

//= MKV-RDMA-1 test
//= MKV-RDMA-3 test
//= MKV-RDMA-4 test
#[tokio::test]
async fn frames_of_every_size_go_both_ways() {
    let Some(device) = device("frames_of_every_size_go_both_ways") else { return };
    let ((mut reader, mut writer, _), (mut server_reader, mut server_writer)) = connected(&device).await;
    for (id, size) in [0, 1, 4095, 16 * 1024, 100_000, 1 << 20].into_iter().enumerate() {
        let (id, payload) = (id as u32, bytes(id as u64, size));
        let parts = |bytes: &[u8]| if size == 0 { Vec::new() } else { vec![Buf::copy_of(bytes).unwrap()] };
        let sent = Outgoing {
            request_id: id,
            last: true,
            control: request(u64::from(id)),
            payload: parts(&payload),
            ..Outgoing::default()
        };
        let answer = async {
            let frame = server_reader.next().await.unwrap().unwrap();
            assert_eq!((frame.request_id, frame.control), (id, request(u64::from(id)).control()));
            assert!(frame.payload.as_deref().unwrap_or_default() == &payload[..], "{size} bytes");
            let payload = frame.payload.into_iter().collect();
            let control = response(u64::from(id));
            send(
                &mut server_writer,
                Outgoing { request_id: id, last: true, control, payload, ..Outgoing::default() },
            )
            .await;
        };
        let (frame, (), ()) = tokio::join!(reader.next(), send(&mut writer, sent), answer);
        let frame = frame.unwrap().unwrap();
        assert_eq!((frame.request_id, frame.control), (id, response(u64::from(id)).control()));
        assert!(frame.payload.as_deref().unwrap_or_default() == &payload[..], "{size} bytes back");
    }
    server_writer.shutdown().await.unwrap();
    assert!(reader.next().await.unwrap().is_none(), "the end is seen, after all that came before");
}

/// Two connected byte streams, without frames.
async fn streams(device: &Arc<Device>) -> [(rdma::ReadHalf, rdma::WriteHalf); 2] {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let client = Prepared::new(device).unwrap().receive().unwrap();
    let server = Prepared::new(device).unwrap();
    let identity = server.identity();
    client.connect(&identity, true).unwrap();
    let server = server.receive().unwrap();
    server.connect(&client.identity(), false).unwrap();
    [client.split(near.unwrap(), None, None).unwrap(), server.split(far.unwrap().0, None, None).unwrap()]
}

/// Both sides write far more than the other has room for before either reads: whatever the order of reading, all of it arrives, and the
/// queue pairs stay as they were, so that no message met an empty queue until retries ran out.
//= MKV-RDMA-2 test
#[tokio::test]
async fn grants_wait_for_no_reader() {
    let Some(device) = device("grants_wait_for_no_reader") else { return };
    const SIZE: usize = 3 << 20;
    for pieces in [700, 16 * 1024, 200_000] {
        let [(mut read_a, mut write_a), (mut read_b, mut write_b)] = streams(&device).await;
        let (from_a, from_b) = (bytes(1, SIZE), bytes(2, SIZE));
        let (mut at_a, mut at_b) = (vec![0; SIZE], vec![0; SIZE]);
        // The halves are driven by tasks of their own: a reader that waits for the other side's writer would wait for ever.
        let (sent_a, sent_b) = (from_a.clone(), from_b.clone());
        let a = tokio::spawn(async move {
            for piece in sent_a.chunks(pieces) {
                write_a.write_all(piece).await.unwrap();
            }
            write_a
        });
        let b = tokio::spawn(async move {
            for piece in sent_b.chunks(pieces) {
                write_b.write_all(piece).await.unwrap();
            }
            write_b
        });
        // One direction to its end, and only then the other.
        read_b.read_exact(&mut at_b).await.unwrap();
        read_a.read_exact(&mut at_a).await.unwrap();
        assert!(at_b == from_a && at_a == from_b, "pieces of {pieces}");
        assert!(read_a.is_ready().unwrap() && read_b.is_ready().unwrap());
        let halves = (a.await.unwrap(), b.await.unwrap());
        drop(halves);
    }
}

//= MKV-RDMA-5 test
#[tokio::test]
async fn without_a_queue_pair_the_frames_go_over_tcp() {
    let Some(device) = device("without_a_queue_pair_the_frames_go_over_tcp") else { return };
    let none = Offer::new(Vec::new(), 8);
    let ((_reader, mut writer, server), (mut server_reader, _server_writer)) =
        connect(&device, &none).await.unwrap();
    assert!(server.queue_pair.is_none());
    let frame = Outgoing { request_id: 3, last: true, control: request(3), ..Outgoing::default() };
    send(&mut writer, frame).await;
    assert_eq!(server_reader.next().await.unwrap().unwrap().request_id, 3);

    let one = Offer::new(vec![Arc::clone(&device)], 1);
    let first = connect(&device, &one).await.unwrap();
    assert!(first.0.2.queue_pair.is_some());
    let second = connect(&device, &one).await.unwrap();
    assert!(second.0.2.queue_pair.is_none(), "one is all that the server has");
    drop(first);
    // The place is free once the pump has let go of the queue pair.
    loop {
        let third = connect(&device, &one).await.unwrap();
        if third.0.2.queue_pair.is_some() {
            break;
        }
        tokio::task::yield_now().await;
    }
}

/// A server that never heard of queue pairs answers as to any other client.
#[tokio::test]
async fn a_server_without_rdma_is_no_error() {
    let Some(device) = device("a_server_without_rdma_is_no_error") else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accept = async {
        let (socket, _) = listener.accept().await.unwrap();
        tcp::accept(socket, &ring(), &server_terms(), &SetupGate::default(), pool()).await.unwrap()
    };
    let (key, terms) = (key(), terms());
    let (client, _server) = tokio::join!(rdma::connect(address, &device, &key, &terms, pool()), accept);
    let (mut reader, _, server) = client.unwrap();
    assert!(server.queue_pair.is_none() && matches!(reader.io_mut(), ReadHalf::Tcp(_)));
    assert_eq!(server.bulk_mac, BulkAlgorithm::preference()[0]);
}

/// To connect a queue pair, the kernel looks for the peer's address, for up to a second where nobody has it. Other connections of the thread go on
/// meanwhile.
#[test]
fn a_thread_goes_on_while_a_queue_pair_is_connected() {
    let Some(device) = device("a_thread_goes_on_while_a_queue_pair_is_connected") else { return };
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    // The one thread for what blocks is taken, so that nothing that blocks gets done.
    let (release, taken) = std::sync::mpsc::channel::<()>();
    runtime.spawn_blocking(move || taken.recv());
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let own = Prepared::new(&device).unwrap().receive().unwrap().identity();
        let offer = Offer::new(vec![device], 8);
        let accepting = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let (keys, terms, gate) = (ring(), server_terms(), SetupGate::default());
            rdma::accept(socket, (&keys, &terms), &gate, pool(), &offer).await
        });
        let mut socket = TcpStream::connect(address).await.unwrap();
        let (key, terms) = (key(), terms());
        let accept = |_| std::future::ready(Ok(()));
        let asked = stream::connect_asking(&mut socket, &key, &terms, Some(&own), accept).await;
        assert!(asked.unwrap().1.queue_pair.is_some());
        // The server has the confirmation. Others are served while it connects the queue pair.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accept = async {
            let (socket, _) = listener.accept().await.unwrap();
            tcp::accept(socket, &ring(), &server_terms(), &SetupGate::default(), pool()).await
        };
        let (other, accepted) = tokio::join!(tcp::connect(address, &key, &terms, pool()), accept);
        assert!(other.is_ok() && accepted.is_ok() && !accepting.is_finished());
        drop(release);
        let (mut reader, ..) = accepting.await.unwrap().unwrap();
        assert!(matches!(reader.io_mut(), ReadHalf::Rdma(_)));
    });
}

/// Ends of which the first lets its memory be reached by the second, which has memory of its own to move it from and to.
async fn reachable(device: &Arc<Device>, memory: &Arc<Memory>) -> [(rdma::ReadHalf, rdma::WriteHalf); 2] {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let client = Prepared::reachable(device, Reach::Peer).unwrap().receive().unwrap();
    let server = Prepared::new(device).unwrap();
    //= MKV-RDMA-7 test
    assert_eq!((server.identity().reads_max, client.identity().reads_max > 0), (0, true));
    client.connect(&server.identity(), true).unwrap();
    let server = server.receive().unwrap();
    server.connect(&client.identity(), false).unwrap();
    let own = Memory::register(device, &[(&moving_pool(), Reach::Own)]).unwrap();
    let near = client.split(near.unwrap(), Some(Arc::clone(memory)), None).unwrap();
    [near, server.split(far.unwrap().0, Some(Arc::new(own)), None).unwrap()]
}

fn moving_pool() -> BufPool {
    let pool = BufPool::new(BUDGET_SIZE_BYTES_MIN);
    pool.use_huge_pages(BUDGET_SIZE_BYTES_MIN).unwrap();
    pool
}

/// A pool that a peer reaches, and where it is.
fn reached_pool(device: &Arc<Device>) -> (BufPool, Arc<Memory>, Registered) {
    pool_reached(device, Reach::Peer)
}

fn pool_reached(device: &Arc<Device>, reach: Reach) -> (BufPool, Arc<Memory>, Registered) {
    let pool = BufPool::new(BUDGET_SIZE_BYTES_MIN);
    pool.share(7, SharedMemory::create(BUDGET_SIZE_BYTES_MIN).unwrap());
    let memory = Memory::register(device, &[(&pool, reach)]).unwrap();
    let registered = memory.registered().next().unwrap();
    assert_eq!((registered.region, registered.size_bytes), (Some(7), BUDGET_SIZE_BYTES_MIN));
    (pool, Arc::new(memory), registered)
}

fn place_of(registered: &Registered, bytes: &Buf) -> RemotePlace {
    let RemotePlace { address, key } = registered.place;
    RemotePlace { address: address + bytes.place().unwrap().offset, key }
}

/// Bytes are fetched in any number of pieces, more than the queue takes at a time, into memory that is registered and memory that is not.
#[tokio::test]
async fn memory_is_fetched_one_sided() {
    let Some(device) = device("memory_is_fetched_one_sided") else { return };
    let (pool, memory, registered) = reached_pool(&device);
    let [(_read, _write), (far_read, _far_write)] = reachable(&device, &memory).await;
    let one_sided = far_read.one_sided().unwrap();
    let value = bytes(5, 1 << 20);
    let mut source = pool.try_take(value.len()).unwrap();
    source.copy_from_slice(&value);
    let from = place_of(&registered, &source.freeze());
    let mut fetches = 0;
    for count in [1, 4, 256] {
        let size_bytes = value.len() / count;
        let part = |at: usize| {
            let from = RemotePlace { address: from.address + (at * size_bytes) as u64, ..from };
            Part { at: at * size_bytes, size_bytes, from }
        };
        let parts: Vec<_> = (0..count).rev().map(part).collect();
        for into in [moving_pool().try_take(value.len()), BufMut::unpooled(value.len())] {
            let fetched = one_sided.fetch(into.unwrap(), &parts).unwrap().await.unwrap();
            assert!(fetched[..] == value[..], "{count} pieces");
            fetches += count as u64;
        }
    }
    // Given up before they ended: the memory stays with the device for as long as that writes to it.
    for _ in 0..8 {
        let into = moving_pool().try_take(value.len()).unwrap();
        drop(one_sided.fetch(into, &[Part { at: 0, size_bytes: value.len(), from }]).unwrap());
    }
    let counts = far_read.counts();
    assert_eq!((counts.fetches, counts.messages, counts.puts), (fetches + 8, 0, 0));
}

/// What was put is there when a later message is, however many there are.
//= MKV-REG-9 test
#[tokio::test]
async fn memory_is_put_before_the_message_after_it() {
    let Some(device) = device("memory_is_put_before_the_message_after_it") else { return };
    let (pool, memory, registered) = reached_pool(&device);
    let [(mut read, _write), (far_read, mut far_write)] = reachable(&device, &memory).await;
    let one_sided = far_read.one_sided().unwrap();
    let moving = moving_pool();
    for (round, count) in [1, 15, 16, 200].into_iter().enumerate() {
        let mut wanted = Vec::new();
        for at in 0..count {
            let value = bytes((round * 1000 + at) as u64, 20_000);
            let mut source = moving.try_take(value.len()).unwrap();
            source.copy_from_slice(&value);
            let target = pool.try_take(value.len()).unwrap().freeze();
            one_sided.put(source.freeze(), place_of(&registered, &target)).unwrap();
            wanted.push((target, value));
        }
        far_write.write_all(b"there").await.unwrap();
        let mut told = [0; 5];
        read.read_exact(&mut told).await.unwrap();
        for (at, (target, value)) in wanted.iter().enumerate() {
            assert!(target[..] == value[..], "{at} of {count}");
        }
    }
    let (near, far) = (read.counts(), far_read.counts());
    assert_eq!((far.puts, far.messages, near.received), (232, 4, 4), "a SEND each, and the transfers");
}

/// A place that the peer did not register ends the connection, on both sides.
#[tokio::test]
async fn a_wrong_place_ends_the_connection() {
    let Some(device) = device("a_wrong_place_ends_the_connection") else { return };
    let (_pool, memory, registered) = reached_pool(&device);
    let RemotePlace { address, key } = registered.place;
    for place in [
        RemotePlace { address, key: key ^ 0x5500 },
        RemotePlace { address: address + BUDGET_SIZE_BYTES_MIN as u64 - 100, key },
        RemotePlace { address: 4096, key },
    ] {
        let [(mut read, _write), (far_read, _far_write)] = reachable(&device, &memory).await;
        let one_sided = far_read.one_sided().unwrap();
        let into = BufMut::unpooled(4096).unwrap();
        let fetch = one_sided.fetch(into, &[Part { at: 0, size_bytes: 4096, from: place }]).unwrap();
        assert!(matches!(fetch.await, Err(RdmaError::Broken)));
        assert!(!far_read.is_ready().unwrap());
        let again = one_sided.fetch(BufMut::unpooled(1).unwrap(), &[]);
        assert!(matches!(again, Err(RdmaError::Broken)));
        drop((one_sided, far_read, _far_write));
        assert!(read.read_u8().await.is_err(), "nothing more comes");
    }
}

/// A peer reads what was registered to be read and writes what was registered to be written; anything else ends the connection, on both sides.
#[tokio::test]
async fn memory_is_reached_for_what_it_was_registered() {
    let Some(device) = device("memory_is_reached_for_what_it_was_registered") else { return };
    for (reach, may_read, may_write) in
        [(Reach::Own, false, false), (Reach::PeerReads, true, false), (Reach::PeerWrites, false, true)]
    {
        let (pool, memory, registered) = pool_reached(&device, reach);
        let value = bytes(7, 20_000);
        let mut theirs = pool.try_take(value.len()).unwrap();
        theirs.copy_from_slice(&value);
        let theirs = theirs.freeze();
        let place = place_of(&registered, &theirs);
        let [_near, (far_read, _far_write)] = reachable(&device, &memory).await;
        let part = Part { at: 0, size_bytes: value.len(), from: place };
        let fetch = far_read.one_sided().unwrap().fetch(BufMut::unpooled(value.len()).unwrap(), &[part]);
        let fetched = fetch.unwrap().await;
        assert_eq!(fetched.is_ok_and(|fetched| fetched[..] == value[..]), may_read, "{reach:?}");
        let [(mut near_read, _near_write), (far_read, mut far_write)] = reachable(&device, &memory).await;
        let other = Buf::copy_of(&bytes(8, value.len())).unwrap();
        far_read.one_sided().unwrap().put(other.clone(), place).unwrap();
        far_write.write_all(&[1]).await.unwrap();
        assert_eq!(near_read.read_u8().await.is_ok(), may_write, "{reach:?}");
        let expected = if may_write { &other[..] } else { &value[..] };
        assert!(theirs[..] == *expected, "{reach:?}");
    }
}

/// A byte stream whose memory the peer reaches, and a peer that follows no rules. While the socket is there it is not gone.
async fn misused(device: &Arc<Device>) -> ((rdma::ReadHalf, rdma::WriteHalf), Side, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let side = Side::alone(device, 1, 2 * SLOT_SIZE_BYTES).unwrap();
    let endpoint = Prepared::reachable(device, Reach::Peer).unwrap().receive().unwrap();
    endpoint.connect(&side.identity(), true).unwrap();
    side.connect(&endpoint.identity()).unwrap();
    (endpoint.split(near.unwrap(), None, None).unwrap(), side, far.unwrap().0)
}

/// A write with immediate data takes a receive and completes with the write's length, whatever the receive has room for.
#[tokio::test]
async fn what_is_no_message_ends_the_connection() {
    let Some(device) = device("what_is_no_message_ends_the_connection") else { return };
    let (_pool, _memory, registered) = pool_reached(&device, Reach::PeerWrites);
    for size_bytes in [0, 1, 2 * SLOT_SIZE_BYTES] {
        let ((mut read, mut write), mut peer, _socket) = misused(&device).await;
        peer.write_with_immediate(0, size_bytes, registered.place).unwrap();
        let error = read.read(&mut [0; 4 * SLOT_SIZE_BYTES]).await.unwrap_err();
        assert!(error.to_string().contains("no message"), "{size_bytes} bytes: {error}");
        assert!(write.write_all(b"more").await.is_err());
    }
}

/// Receives for empty messages are posted again by whoever takes completions: without a limit a peer could keep it at that.
//= MKV-RDMA-2 test
#[tokio::test]
async fn more_empty_messages_than_were_granted_end_the_connection() {
    let test = "more_empty_messages_than_were_granted_end_the_connection";
    let Some(device) = device(test) else { return };
    let ((mut read, _write), mut peer, _socket) = misused(&device).await;
    for _ in 0..5 {
        peer.send(0, 0).unwrap();
    }
    let error = read.read_u8().await.unwrap_err();
    assert!(error.to_string().contains("than it was granted"), "{error}");
}

/// Packets to a queue pair that is not there are sent again a few times, then the connection fails; it does not hang.
#[tokio::test]
async fn retries_run_out() {
    let Some(device) = device("retries_run_out") else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, _far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let endpoint = Prepared::new(&device).unwrap().receive().unwrap();
    let mut nobody = endpoint.identity();
    nobody.number = 0x00ab_cdef;
    endpoint.connect(&nobody, true).unwrap();
    let (mut read, mut write) = endpoint.split(near.unwrap(), None, None).unwrap();
    write.write_all(b"into the void").await.unwrap();
    let error = read.read_u8().await.unwrap_err();
    assert!(error.to_string().contains("transport retry counter exceeded"), "{error}");
    let error = write.write_all(b"again").await.unwrap_err();
    assert!(error.to_string().contains("transport retry counter exceeded"), "{error}");
    assert!(!read.is_ready().unwrap(), "the device knows, too");
}

/// An error on one side flushes its requests, and ends the connection on the other.
#[tokio::test]
async fn a_failed_queue_pair_ends_both_sides() {
    let Some(device) = device("a_failed_queue_pair_ends_both_sides") else { return };
    let [(mut read_a, mut write_a), (mut read_b, write_b)] = streams(&device).await;
    write_a.write_all(b"before").await.unwrap();
    let mut before = [0; 6];
    read_b.read_exact(&mut before).await.unwrap();
    read_a.fail().unwrap();
    let error = read_a.read_u8().await.unwrap_err();
    assert!(error.to_string().contains("Work Request Flushed Error"), "{error}");
    assert!(write_a.write_all(b"after").await.is_err());
    drop((read_a, write_a));
    assert_eq!(read_b.read(&mut before).await.unwrap(), 0, "the socket's end is the connection's");
    drop(write_b);
}

/// Whoever waits to send has nobody read beside it.
#[tokio::test]
async fn a_peer_that_is_gone_is_noticed_by_who_only_sends() {
    let Some(device) = device("a_peer_that_is_gone_is_noticed_by_who_only_sends") else { return };
    let [(_read, mut write), (far_read, far_write)] = streams(&device).await;
    let sending = tokio::spawn(async move {
        loop {
            if let Err(error) = write.write_all(&[7; SLOT_SIZE_BYTES]).await {
                return error;
            }
        }
    });
    // Nobody reads there, so that nothing more is granted.
    while far_read.counts().received < MESSAGES_MAX as u64 {
        tokio::task::yield_now().await;
    }
    drop((far_read, far_write));
    let error = sending.await.unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "{error}");
}

#[tokio::test]
async fn bytes_on_the_socket_are_refused() {
    let Some(device) = device("bytes_on_the_socket_are_refused") else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (client, server) = (Prepared::new(&device).unwrap(), Prepared::new(&device).unwrap());
    let identity = server.identity();
    let client = client.receive().unwrap();
    client.connect(&identity, true).unwrap();
    let (mut read, _write) = client.split(near.unwrap(), None, None).unwrap();
    far.unwrap().0.write_all(b"stray").await.unwrap();
    let error = read.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
}

#[test]
fn devices_are_chosen_by_what_they_have() {
    let Some(device) = device("devices_are_chosen_by_what_they_have") else { return };
    let open = |selection: Selection| Device::open(&selection);
    let named = Selection { device: Some(device.name().to_owned()), ..Selection::default() };
    assert_eq!(open(named.clone()).unwrap().gid(), device.gid());
    let other = Selection { device: Some("none0".to_owned()), ..Selection::default() };
    assert!(matches!(open(other), Err(RdmaError::NoDevice)));
    let port = Selection { port: Some(9), ..named.clone() };
    assert!(matches!(open(port), Err(RdmaError::NoPort)));
    let elsewhere = Selection { subnet: Some("192.0.2.0/24".parse().unwrap()), ..named.clone() };
    assert!(matches!(open(elsewhere), Err(RdmaError::NoGid)));
    let own = std::net::Ipv6Addr::from(device.gid()).to_ipv4_mapped();
    if let Some(own) = own {
        let here = Selection { subnet: Some(format!("{own}/32").parse().unwrap()), ..named };
        assert_eq!(open(here).unwrap().gid(), device.gid());
    }
}
