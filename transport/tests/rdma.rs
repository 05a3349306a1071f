//! Queue pairs on a real device, soft-RoCE in the guest of tools/rdma: both ends in this process.
#![cfg(target_os = "linux")]

mod support;

use std::sync::Arc;

use memkv_transport::error::TransportError;
use memkv_transport::net::{ReadHalf, Reader, Writer};
use memkv_transport::rdma::{self, Device, Offer, Prepared, RdmaError, Selection};
use memkv_transport::session::{ClientTerms, ServerInfo, SetupGate};
use memkv_transport::stream::Outgoing;
use memkv_transport::{buf::Buf, tcp};
use memkv_wire::mac::BulkAlgorithm;
use support::{key, pool, request, response, ring, server_terms};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

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
        };
        let answer = async {
            let frame = server_reader.next().await.unwrap().unwrap();
            assert_eq!((frame.request_id, frame.control), (id, request(u64::from(id)).control()));
            assert!(frame.payload.as_deref().unwrap_or_default() == &payload[..], "{size} bytes");
            let payload = frame.payload.into_iter().collect();
            let control = response(u64::from(id));
            send(&mut server_writer, Outgoing { request_id: id, last: true, control, payload }).await;
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
    [client.split(near.unwrap(), None).unwrap(), server.split(far.unwrap().0, None).unwrap()]
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
    let frame = Outgoing { request_id: 3, last: true, control: request(3), payload: Vec::new() };
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
    let (mut read, mut write) = endpoint.split(near.unwrap(), None).unwrap();
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
    let (mut read, _write) = client.split(near.unwrap(), None).unwrap();
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
