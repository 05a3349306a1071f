//! Frames over real sockets and in-memory streams: set-up, pipelining, back-pressure, closing, and what each side is told when the
//! other's key or manners do not fit.

use std::time::Duration;

use memkv_transport::buf::{BUDGET_SIZE_BYTES_MIN, Buf, BufPool};
use memkv_transport::error::{Fault, FrameError, SetupError, TransportError};
use memkv_transport::net::ReadHalf;
use memkv_transport::session::{ClientTerms, ServerTerms, SetupGate};
use memkv_transport::stream::PushError;
use memkv_transport::{stream, tcp};
use memkv_wire::mac::{BulkAlgorithm, Key, KeyRing};
use memkv_wire::{ControlBuf, Message, Ping, Request, RequestWhich};
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};

fn key(byte: u8) -> Key {
    Key::from_bytes([byte; 32])
}

fn client_terms() -> ClientTerms {
    ClientTerms::new([1; 16], "a client")
}

fn server_terms() -> ServerTerms {
    ServerTerms {
        server_id: [2; 16],
        server_name: "a server".to_owned(),
        local_path: String::new(),
        queue_pairs: false,
        requests_in_flight_max: 256,
        lease_ms: 10_000,
        bulk_macs: BulkAlgorithm::preference().to_vec(),
    }
}

fn pool() -> BufPool {
    BufPool::new(BUDGET_SIZE_BYTES_MIN)
}

type Client = (tcp::Reader, tcp::Writer);
type Server = (tcp::Reader, tcp::Writer);

async fn connected(client_pool: BufPool, server_pool: BufPool) -> (Client, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (key, gate) = (key(7), SetupGate::default());
    let (client, server) = (client_terms(), server_terms());
    let ring = KeyRing::from(key.clone());
    let accepting = async {
        let (socket, _) = listener.accept().await.unwrap();
        tcp::accept(socket, &ring, &server, &gate, server_pool).await
    };
    let (client, server) = tokio::join!(tcp::connect(address, &key, &client, client_pool), accepting);
    let ((client_reader, client_writer, server_info), (server_reader, server_writer, client_info)) =
        (client.unwrap(), server.unwrap());
    assert_eq!(server_info.server_name, "a server");
    assert_eq!(server_info.server_id, [2; 16]);
    assert_eq!(client_info.client_name, "a client");
    assert_eq!(client_info.key_id, key.id());
    assert_eq!(client_info.bulk_mac, BulkAlgorithm::preference()[0]);
    assert_eq!(gate.connections(), 0, "an established connection is in set-up no more");
    ((client_reader, client_writer), (server_reader, server_writer))
}

fn encode_ping(control: &mut ControlBuf, echo: u64) {
    let ping = Ping { echo, ..Ping::default() };
    Request { namespace: b"tests", which: RequestWhich::Ping(ping) }.encode(control).unwrap();
}

fn echo_of(control: &[u8]) -> u64 {
    let message = Message::new(control).unwrap();
    match Request::decode(&message).unwrap().which {
        RequestWhich::Ping(ping) => ping.echo,
        other => panic!("{other:?}"),
    }
}

fn payload(seed: usize, size_bytes: usize) -> Buf {
    let bytes: Vec<u8> = (0..size_bytes).map(|at| (at * 31 + seed * 7 + (at >> 8)) as u8).collect();
    Buf::copy_of(&bytes).unwrap()
}

/// Sizes from nothing to the limit, parts that no power of two divides.
const SIZES: [usize; 9] = [0, 1, 4095, 4096, 16_384, 65_537, 300_000, 1_048_575, 1_048_576];

#[tokio::test]
async fn frames_of_every_size_arrive_in_order() {
    let ((_client_reader, mut writer), (mut reader, _server_writer)) = connected(pool(), pool()).await;
    let sending = tokio::spawn(async move {
        for (at, size_bytes) in SIZES.into_iter().cycle().take(60).enumerate() {
            let mut frame = writer.blank();
            frame.request_id = at as u32;
            frame.last = at % 2 == 0;
            encode_ping(&mut frame.control, at as u64);
            let whole = payload(at, size_bytes);
            let cut = size_bytes / 3;
            frame.payload.extend([whole.slice(0..cut), whole.slice(cut..size_bytes)]);
            writer.make_room().await.unwrap();
            writer.push(frame).unwrap();
        }
        writer.shutdown().await.unwrap();
    });
    for (at, size_bytes) in SIZES.into_iter().cycle().take(60).enumerate() {
        let frame = reader.next().await.unwrap().expect("a frame");
        assert_eq!((frame.request_id, frame.last), (at as u32, at % 2 == 0));
        assert_eq!(frame.control.as_ptr() as usize % 8, 0);
        assert_eq!(echo_of(frame.control), at as u64);
        assert_eq!(frame.payload.as_deref().unwrap_or_default(), &payload(at, size_bytes)[..]);
        assert!(frame.payload.is_none_or(|payload| payload.is_aligned()));
    }
    assert!(reader.next().await.unwrap().is_none(), "the peer closed between two frames");
    sending.await.unwrap();
}

#[tokio::test]
async fn an_exhausted_pool_holds_the_sender_back() {
    let server_pool = pool();
    let ((_client_reader, mut writer), (mut reader, _server_writer)) =
        connected(pool(), server_pool.clone()).await;
    let count = 40;
    let sending = tokio::spawn(async move {
        let whole = payload(1, 1_048_576);
        for at in 0..count {
            let mut frame = writer.blank();
            frame.request_id = at;
            encode_ping(&mut frame.control, 0);
            frame.payload.push(whole.clone());
            writer.make_room().await.unwrap();
            writer.push(frame).unwrap();
        }
        writer.flush().await.unwrap();
        writer
    });
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(reader.next().await.unwrap().unwrap().payload.unwrap());
    }
    assert_eq!(server_pool.available_size_bytes(), 0);
    {
        let mut blocked = std::pin::pin!(reader.next());
        for _ in 0..100 {
            tokio::select! {
                biased;
                _ = &mut blocked => panic!("a payload without memory"),
                () = tokio::task::yield_now() => {}
            }
        }
    }
    assert!(!sending.is_finished(), "the sender waits too");
    drop(held);
    for at in 16..count {
        let frame = reader.next().await.unwrap().unwrap();
        assert_eq!(frame.request_id, at);
        assert_eq!(frame.payload.as_deref(), Some(&payload(1, 1_048_576)[..]));
    }
    let _writer = sending.await.unwrap();
}

/// Both halves are dropped and polled again at every await; nothing may be lost or come twice.
#[tokio::test]
async fn cancelling_loses_nothing() {
    let ((_client_reader, mut writer), (mut reader, _server_writer)) = connected(pool(), pool()).await;
    let sending = tokio::spawn(async move {
        for at in 0..200u32 {
            let mut frame = writer.blank();
            frame.request_id = at;
            encode_ping(&mut frame.control, at.into());
            frame.payload.push(payload(at as usize, 40_000));
            while !writer.has_room() {
                tokio::select! { biased; done = writer.make_room() => done.unwrap(), () = tokio::task::yield_now() => {} }
            }
            writer.push(frame).unwrap();
        }
        while !writer.is_idle() {
            tokio::select! { biased; done = writer.flush() => done.unwrap(), () = tokio::task::yield_now() => {} }
        }
        writer
    });
    let mut received = 0;
    while received < 200 {
        tokio::select! {
            biased;
            frame = reader.next() => {
                let frame = frame.unwrap().unwrap();
                assert_eq!(frame.request_id, received);
                assert_eq!(frame.payload.as_deref(), Some(&payload(received as usize, 40_000)[..]));
                received += 1;
            }
            () = tokio::task::yield_now() => {}
        }
    }
    let _writer = sending.await.unwrap();
}

#[tokio::test]
async fn a_full_queue_hands_the_frame_back() {
    let ((_client_reader, mut writer), _server) = connected(pool(), pool()).await;
    let mut pushed = 0;
    let full = loop {
        let mut frame = writer.blank();
        frame.request_id = pushed;
        encode_ping(&mut frame.control, 0);
        match writer.push(frame) {
            Ok(()) => pushed += 1,
            Err(PushError::Full(frame)) => break frame,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(pushed as usize, stream::QUEUE_FRAMES_MAX);
    assert_eq!(full.request_id, pushed);
    writer.flush().await.unwrap();
    writer.push(*full).unwrap();
}

#[tokio::test]
async fn what_no_frame_can_hold_is_refused() {
    let ((_client_reader, mut writer), (mut reader, _server_writer)) = connected(pool(), pool()).await;
    let mut too_long = writer.blank();
    encode_ping(&mut too_long.control, 0);
    too_long.payload.extend([payload(0, 1_048_576), payload(0, 1)]);
    assert!(matches!(writer.push(too_long), Err(PushError::Seal(_))));
    assert!(
        matches!(writer.push(stream::Outgoing::default()), Err(PushError::Seal(_))),
        "no control message"
    );
    let mut good = writer.blank();
    encode_ping(&mut good.control, 9);
    writer.push(good).unwrap();
    writer.flush().await.unwrap();
    assert_eq!(echo_of(reader.next().await.unwrap().unwrap().control), 9, "no sequence number was used up");
}

#[tokio::test]
async fn a_stream_cut_inside_a_frame_is_an_error() {
    let ((_client_reader, mut client_writer), server) = {
        let (client, server) = tokio::io::duplex(1 << 16);
        set_up(client, server, &key(7), &KeyRing::from(key(7))).await.unwrap()
    };
    let (mut server_reader, _server_writer) = server;
    let mut frame = client_writer.blank();
    encode_ping(&mut frame.control, 0);
    frame.payload.push(payload(0, 100_000));
    client_writer.push(frame).unwrap();
    // The pipe holds less than the frame, so flushing cannot end before the reader reads.
    tokio::select! { biased; _ = client_writer.flush() => panic!("too large a pipe"), () = tokio::task::yield_now() => {} }
    drop((_client_reader, client_writer));
    let error = server_reader.next().await.unwrap_err();
    assert!(matches!(error, TransportError::Frame(FrameError::Truncated { .. })), "{error}");
    assert_eq!(error.fault(), Fault::Wire);
    let again = server_reader.next().await.unwrap_err();
    assert!(matches!(again, TransportError::Frame(FrameError::Truncated { .. })), "{again}");
}

type Half<S> = (stream::Reader<tokio::io::ReadHalf<S>>, stream::Writer<tokio::io::WriteHalf<S>>);

async fn set_up(
    mut client: DuplexStream,
    mut server: DuplexStream,
    client_key: &Key,
    ring: &KeyRing,
) -> Result<(Half<DuplexStream>, Half<DuplexStream>), (Option<TransportError>, Option<TransportError>)> {
    let (client_terms, server_terms) = (client_terms(), server_terms());
    let permit = SetupGate::default().enter().unwrap();
    let connecting = async {
        let done = stream::connect(&mut client, client_key, &client_terms).await;
        (done, client)
    };
    let accepting = async {
        let done = stream::accept(&mut server, ring, &server_terms, permit).await;
        (done, server)
    };
    // A side that fails drops its end at once, as a server does.
    let accepting = async {
        let (done, server) = accepting.await;
        match done {
            Ok(done) => Ok((done, server)),
            Err(error) => Err(error),
        }
    };
    let ((connected, client), accepted) = tokio::join!(connecting, accepting);
    match (connected, accepted) {
        (Ok((client_channel, _)), Ok(((server_channel, _), server))) => {
            let (sealer, receiver) = client_channel.split(pool());
            let (read, write) = tokio::io::split(client);
            let client = (stream::Reader::new(read, receiver), stream::Writer::new(write, sealer));
            let (sealer, receiver) = server_channel.split(pool());
            let (read, write) = tokio::io::split(server);
            Ok((client, (stream::Reader::new(read, receiver), stream::Writer::new(write, sealer))))
        }
        (connected, accepted) => Err((connected.err(), accepted.err())),
    }
}

//= MKV-CONN-4 test
#[tokio::test]
async fn an_unknown_key_gets_no_answer_and_the_client_says_why() {
    let (client, server) = tokio::io::duplex(4096);
    let errors = set_up(client, server, &key(8), &KeyRing::from(key(7))).await.err().unwrap();
    let (Some(client), Some(server)) = errors else { panic!("{errors:?}") };
    assert!(
        matches!(client, TransportError::Setup(SetupError::NoAnswer { key_id }) if key_id == key(8).id())
    );
    assert!(client.to_string().contains("MEMKV_AUTH_KEY"), "{client}");
    assert_eq!(client.fault(), Fault::Configuration);
    assert!(
        matches!(server, TransportError::Setup(SetupError::UnknownKey { key_id }) if key_id == key(8).id())
    );
}

//= MKV-CONN-6 test
#[tokio::test]
async fn keys_rotate_without_downtime() {
    let ring = KeyRing::new([key(7), key(8)]);
    for byte in [7, 8] {
        let (client, server) = tokio::io::duplex(4096);
        assert!(set_up(client, server, &key(byte), &ring).await.is_ok());
    }
}

#[tokio::test]
async fn who_does_not_speak_memkv_is_shown_the_door() {
    let (mut client, mut server) = tokio::io::duplex(4096);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let permit = SetupGate::default().enter().unwrap();
    let error =
        stream::accept(&mut server, &KeyRing::from(key(7)), &server_terms(), permit).await.unwrap_err();
    assert!(matches!(error, TransportError::Setup(SetupError::Frame(FrameError::Magic { .. }))), "{error}");
    drop(server);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"");
}

//= MKV-CONN-5 test
#[tokio::test(start_paused = true)]
async fn set_up_ends_in_time_on_both_sides() {
    let (mut client, mut server) = tokio::io::duplex(4096);
    let permit = SetupGate::default().enter().unwrap();
    let error =
        stream::accept(&mut server, &KeyRing::from(key(7)), &server_terms(), permit).await.unwrap_err();
    assert!(matches!(error, TransportError::Setup(SetupError::TimedOut)), "{error}");
    let error = stream::connect(&mut client, &key(7), &client_terms()).await.unwrap_err();
    assert!(matches!(error, TransportError::Setup(SetupError::TimedOut)), "{error}");
}

//= MKV-CONN-5 test
#[tokio::test]
async fn connections_in_set_up_are_capped() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gate = SetupGate::new(2);
    let permits = [gate.enter().unwrap(), gate.enter().unwrap()];
    let _client = TcpStream::connect(address).await.unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let ring = KeyRing::from(key(7));
    let error = tcp::accept(socket, &ring, &server_terms(), &gate, pool()).await.unwrap_err();
    let TransportError::Setup(SetupError::TooManyConnections { connections_max: 2 }) = error else {
        panic!("{error}")
    };
    drop(permits);
    assert_eq!(gate.connections(), 0);
    assert!(gate.enter().is_ok());
}

//= MKV-CONN-2 test
#[tokio::test]
async fn every_connection_has_its_own_nonce() {
    let mut connects = Vec::new();
    for _ in 0..2 {
        let (mut client, mut server) = tokio::io::duplex(4096);
        let terms = client_terms();
        let key = key(7);
        let mut first = vec![0; 64];
        tokio::select! {
            _ = stream::connect(&mut client, &key, &terms) => panic!("nobody answered"),
            read = server.read_exact(&mut first) => read.map(|_| ()).unwrap(),
        }
        connects.push(first);
    }
    assert_ne!(
        connects[0][32..],
        connects[1][32..],
        "the MAC covers the nonce and nothing else that could differ"
    );
}

#[tokio::test]
async fn both_sides_notice_that_the_others_host_is_gone() {
    let ((mut client, _client_writer), (mut server, _server_writer)) = connected(pool(), pool()).await;
    for reader in [&mut client, &mut server] {
        let ReadHalf::Tcp(half) = reader.io_mut() else { panic!("a connection over TCP") };
        let socket: &TcpStream = (*half).as_ref();
        assert!(socket.nodelay().unwrap());
        assert!(sockopt::socket_keepalive(socket).unwrap());
        assert_eq!(sockopt::tcp_keepidle(socket).unwrap(), Duration::from_secs(60));
        assert_eq!(sockopt::tcp_keepintvl(socket).unwrap(), Duration::from_secs(10));
        assert_eq!(sockopt::tcp_keepcnt(socket).unwrap(), 6);
        #[cfg(target_os = "linux")]
        assert_eq!(sockopt::tcp_user_timeout(socket).unwrap(), 120_000);
    }
}
