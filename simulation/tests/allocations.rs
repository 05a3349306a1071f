//! What an operation costs in allocations, in steady state: on the client, and on the server.
//!
//! A real server and a real client, over TCP and on one host, each on a thread of its own with a runtime of one thread; each side's
//! allocations are counted while the same operations are done again and again. The device is memory. Nothing here grows with the length of a
//! value. RDMA is not among them: it needs a device.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;

use allocation_counter::measure;
use memkv_client::{Buf, Client, Config, PutItem, Transport};
use memkv_server::io::{Device, Devices, MemoryDevice};
use memkv_server::service::{Service, ServiceLimits};
use memkv_server::shell::{Door, Drives, Shell, serve, serve_local};
use memkv_server::store::{self, FormatOptions, Store};
use memkv_transport::local::Listener;
use memkv_transport::session::{ServerTerms, SetupGate};
use memkv_transport::spin::{SPIN_US_DEFAULT, Vigil};
use memkv_wire::limits;
use memkv_wire::mac::{BulkAlgorithm, Key, KeyRing};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

const ROUNDS: u64 = 100;

fn key() -> Key {
    Key::from_bytes([7; Key::SIZE_BYTES])
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn shell() -> Arc<Shell> {
    let mut devices = Devices::new(vec![Arc::new(MemoryDevice::new(256 << 20)) as Arc<dyn Device>]);
    let config = store::Config::default();
    store::format(&mut devices, &config, FormatOptions { server_id: [1; 16], secrets: [2; 32] }).unwrap();
    let (store, _) = Store::open(0, config, &mut devices).unwrap();
    let service = Service::new(store, ServiceLimits::default(), 0);
    Shell::start(service, Drives::new(devices, vec!["memory".to_owned()], true, 1), None).unwrap()
}

/// Where a server's local socket is: elsewhere for each.
fn socket_path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("memkv-allocations-{}-{number}.sock", std::process::id()))
}

fn door(socket: &Listener) -> Arc<Door> {
    let terms = ServerTerms {
        server_id: [1; 16],
        server_name: "allocations".to_owned(),
        local_path: String::new(),
        queue_pairs: false,
        requests_in_flight_max: limits::REQUESTS_IN_FLIGHT_MAX,
        lease_ms: limits::LEASE_MS_DEFAULT,
        bulk_macs: BulkAlgorithm::preference().to_vec(),
    };
    Arc::new(Door {
        keys: KeyRing::new(vec![key()]),
        terms_here: ServerTerms { local_path: socket.path().to_str().unwrap().to_owned(), ..terms.clone() },
        terms,
        gate: SetupGate::new(limits::SETUP_CONNECTIONS_MAX),
        #[cfg(target_os = "linux")]
        rdma: None,
        rdma_verify: Default::default(),
    })
}

/// Serves clients in this runtime; the address.
async fn listen() -> SocketAddr {
    let local = Listener::bind(&socket_path(), None).unwrap();
    let (shell, door, vigil) = (shell(), door(&local), Arc::new(Vigil::new(SPIN_US_DEFAULT)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shared = (Arc::clone(&shell), Arc::clone(&door), Arc::clone(&vigil));
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            tokio::spawn(serve(Arc::clone(&shell), Arc::clone(&door), vigil.spin(), stream, peer));
        }
    });
    tokio::spawn(async move {
        let (shell, door, vigil) = shared;
        while let Ok(socket) = local.accept().await {
            tokio::spawn(serve_local(Arc::clone(&shell), Arc::clone(&door), vigil.spin(), socket));
        }
    });
    address
}

/// What each side allocated: (client, server).
fn allocations(transport: Transport, what: &str, mut operation: impl AsyncFnMut(&Client)) -> (u64, u64) {
    let (address, told) = mpsc::channel();
    let (measured, server_measured) = mpsc::channel();
    // The server runs up to here, is then counted, and says so before the client goes on.
    let (warm, warmed) = oneshot::channel();
    let (count_from_now, counting) = mpsc::channel();
    let (done, all_done) = oneshot::channel::<()>();
    let server = std::thread::spawn(move || {
        let runtime = runtime();
        runtime.block_on(async {
            address.send(listen().await).unwrap();
            warmed.await.unwrap();
        });
        let info = measure(|| {
            count_from_now.send(()).unwrap();
            let _ = runtime.block_on(all_done);
        });
        measured.send(info.count_total).unwrap();
    });
    let mut config = Config::new(&format!("memkv://{}/tests", told.recv().unwrap()), key()).unwrap();
    config.transport = transport;
    config.settings.connections = 1;
    let runtime = runtime();
    let client = runtime.block_on(Client::connect(config)).unwrap();
    let mut rounds = |count: u64| {
        runtime.block_on(async {
            for _ in 0..count {
                operation(&client).await;
            }
        });
    };
    rounds(ROUNDS);
    warm.send(()).unwrap();
    counting.recv().unwrap();
    let client_count = measure(|| rounds(ROUNDS)).count_total;
    drop(done);
    let server_count = server_measured.recv().unwrap();
    drop(client);
    server.join().unwrap();
    println!(
        "{what} over {transport:?}: {client_count} on the client, {server_count} on the server, {ROUNDS} times"
    );
    (client_count, server_count)
}

/// At most so many on each side, each time; a few in all are for tables that grow, and extents that come free, now and then.
fn check_over(transport: Transport, what: &str, at_most: (u64, u64), operation: impl AsyncFnMut(&Client)) {
    const NOW_AND_THEN: u64 = ROUNDS / 5;
    let (client, server) = allocations(transport, what, operation);
    let (client_max, server_max) = (at_most.0 * ROUNDS + NOW_AND_THEN, at_most.1 * ROUNDS + NOW_AND_THEN);
    assert!(client <= client_max, "{what} over {transport:?}: {client} allocations on the client");
    assert!(server <= server_max, "{what} over {transport:?}: {server} allocations on the server");
}

fn check(what: &str, at_most: (u64, u64), operation: impl AsyncFnMut(&Client)) {
    check_over(Transport::Tcp, what, at_most, operation);
}

#[test]
fn control_operations_allocate_their_results() {
    let keys: Vec<Vec<u8>> = (0..96u8).map(|n| vec![n; 32]).collect();
    let asked: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    check("ping", (0, 0), async |client| {
        client.ping().await.unwrap();
    });
    // The caller's list of lengths.
    check("exists of 96 keys", (1, 0), async |client| {
        client.exists(&asked).await.unwrap();
    });
}

#[test]
fn values_of_any_length_cost_the_same() {
    for size_bytes in [4096, 65_536, 1 << 20] {
        let value = Buf::copy_of(&vec![7; size_bytes]).unwrap();
        let value = std::slice::from_ref(&value);
        check(&format!("put of {size_bytes}, which are there"), (0, 0), async |client| {
            client.put(b"key", value).await.unwrap();
        });
        check(&format!("delete and put of {size_bytes}"), (1, 6), async |client| {
            client.delete(&[b"key"]).await.unwrap();
            client.put(b"key", value).await.unwrap();
        });
        let mut into = vec![0; size_bytes];
        check(&format!("put and get_into of {size_bytes}"), (0, 0), async |client| {
            client.put(b"key", value).await.unwrap();
            client.get_into(b"key", &mut into).await.unwrap().unwrap();
        });
        check(&format!("put and get of {size_bytes}"), (0, 0), async |client| {
            client.put(b"key", value).await.unwrap();
            client.get(b"key").await.unwrap().unwrap();
        });
    }
}

/// Values of a batch.
const BATCH: usize = 16;

fn keys(first: usize) -> [[u8; 8]; BATCH] {
    std::array::from_fn(|n| (first + n).to_le_bytes())
}

async fn put_many(client: &Client, keys: &[[u8; 8]; BATCH], value: &[Buf]) {
    let items: [PutItem<'_>; BATCH] = std::array::from_fn(|n| PutItem::new(&keys[n], value));
    let outcomes = client.put_many(&items).await.unwrap();
    assert!(outcomes.iter().all(Result::is_ok));
}

/// What was measured, so that it does not grow unseen. On the client the lists of the batch and of its replies allocate, 20 or so for 16
/// values and 4 more for 32; on one host `get_many` asks for lengths first. On the server a new value of 4 KiB, which is packed, allocates
/// about 3 times and one of 64 KiB about 6 times; everything else there is a few for each message.
#[test]
fn batches_allocate_what_was_measured() {
    for (transport, get_many) in [(Transport::Tcp, 18), (Transport::Local, 23)] {
        for (size_bytes, new) in [(4096, 64), (65_536, 106)] {
            let value = Buf::copy_of(&vec![7; size_bytes]).unwrap();
            let value = std::slice::from_ref(&value);
            let mut first = 0;
            let what = format!("put_many of {BATCH} new values of {size_bytes}");
            check_over(transport, &what, (20, new), async |client| {
                put_many(client, &keys(first), value).await;
                first += BATCH;
            });
            let what = format!("put_many of {BATCH} of {size_bytes}, which are there");
            check_over(transport, &what, (20, 6), async |client| {
                put_many(client, &keys(0), value).await;
            });
            let mut there = false;
            let what = format!("get_many of {BATCH} of {size_bytes}");
            check_over(transport, &what, (get_many, 3), async |client| {
                let keys = keys(0);
                if !std::mem::replace(&mut there, true) {
                    put_many(client, &keys, value).await;
                }
                let asked: [&[u8]; BATCH] = std::array::from_fn(|n| &keys[n][..]);
                let values = client.get_many(&asked).await.unwrap();
                assert!(values.iter().all(|value| matches!(value, Ok(Some(_)))));
            });
            let mut there = false;
            let mut buffers = vec![vec![0; size_bytes]; BATCH];
            let what = format!("get_many_into of {BATCH} of {size_bytes}");
            check_over(transport, &what, (19, 3), async |client| {
                let keys = keys(0);
                if !std::mem::replace(&mut there, true) {
                    put_many(client, &keys, value).await;
                }
                let asked: [&[u8]; BATCH] = std::array::from_fn(|n| &keys[n][..]);
                let mut into: Vec<&mut [u8]> = buffers.iter_mut().map(|buffer| &mut buffer[..]).collect();
                let values = client.get_many_into(&asked, &mut into).await.unwrap();
                assert!(values.iter().all(|value| matches!(value, Ok(Some(_)))));
            });
        }
    }
}
