//! Whole clients against a script behind a socket.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use memkv_wire::{DeleteManifestReply, PutManifestReply, RequestWhich, ResponseWhich, Status};

use crate::error::{Error, StorageError};
use crate::testing::host::{Host, Step, with_request};
use crate::testing::{FakeServer, only};
use crate::{Client, Published, Transport};

/// What a script remembers between messages.
type Kept<T> = Arc<Mutex<T>>;

/// What was read of a value that is longer than expected is forgotten, and no time is left to read it again.
#[tokio::test]
async fn a_value_that_cannot_be_read_again_in_time_is_no_empty_one() {
    let server = FakeServer { values: [(b"key".to_vec(), vec![7; 100])].into(), ..FakeServer::new() };
    let server = Mutex::new(server);
    let host =
        Host::start("", move |message| Step::Answer(server.lock().expect("no panic").answer(message))).await;
    let client = Client::connect(host.config()).await.expect("it listens");
    // The shortest delay before another attempt.
    let hasty = client.with_timeout(Duration::from_millis(20));
    let read = loop {
        // A machine that is slow gets no answer in so short a time.
        if let Ok(read) = hasty.get_many_expecting(&[b"key"], &[10]).await {
            break read;
        }
    };
    read[0].as_ref().expect_err("it was not read to its end");
    let read = client.get_many_expecting(&[b"key"], &[10]).await.expect("it listens");
    let value = read[0].as_ref().expect("there was time").as_ref().expect("it is stored");
    assert_eq!(value.to_vec(), vec![7; 100]);
}

/// The host says where its local socket is; whoever listens there accepts and says nothing.
#[tokio::test]
async fn a_local_socket_that_says_nothing_leaves_time_for_tcp() {
    let path = std::env::temp_dir().join(format!("memkv-silent-{}.sock", std::process::id()));
    let listener = memkv_transport::local::Listener::bind(&path, None).expect("a path of its own");
    let accepting = tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok(socket) = listener.accept().await {
            silent.push(socket);
        }
    });
    let server = Mutex::new(FakeServer::new());
    let host = Host::start(path.to_str().expect("plain letters"), move |message| {
        Step::Answer(server.lock().expect("no panic").answer(message))
    })
    .await;
    let mut config = host.config();
    (config.transport, config.rdma, config.settings.setup_timeout_ms) = (Transport::Auto, false, 1_500);
    let client = Client::connect(config).await.expect("it listens");
    assert_eq!(client.counters().connections_lost, 0);
    accepting.abort();
}

/// A host where another writer's later manifest is stored under every name: what it is asked to change is stale, until it is asked with a
/// later generation yet. It ends the connection of the first so many such requests, and keeps the generations of all.
async fn with_another_writer(cuts: usize) -> (Host, Kept<Vec<u64>>) {
    let asked: Kept<Vec<u64>> = Kept::default();
    let (seen, others) = (Arc::clone(&asked), Mutex::new(FakeServer::new()));
    let judge = move |asked: u64| {
        let mut seen = seen.lock().expect("no panic");
        seen.push(asked);
        let status = if asked > THEIRS { Status::Ok } else { Status::StaleGeneration };
        (seen.len() > cuts).then_some((status, asked.max(THEIRS)))
    };
    let host = Host::start("", move |message| {
        let changed = with_request(message, |request| match request {
            RequestWhich::PutManifest(put) => Some(judge(put.generation).map(|(status, generation)| {
                let reply = PutManifestReply { generation, ..PutManifestReply::default() };
                only(status, 0, ResponseWhich::PutManifest(reply))
            })),
            RequestWhich::DeleteManifest(delete) => {
                Some(judge(delete.generation).map(|(status, generation)| {
                    only(status, 0, ResponseWhich::DeleteManifest(DeleteManifestReply { generation }))
                }))
            }
            _ => None,
        });
        match changed {
            Some(reply) => reply.map_or(Step::Cut, Step::Answer),
            None => Step::Answer(others.lock().expect("no panic").answer(message)),
        }
    })
    .await;
    (host, asked)
}

/// Ahead of every clock.
const THEIRS: u64 = u64::MAX / 2;

#[tokio::test]
async fn a_publish_that_is_behind_takes_a_later_generation() {
    let (host, asked) = with_another_writer(0).await;
    let client = Client::connect(host.config()).await.expect("it listens");
    let published = client.publish(b"name", &[], &[]).await;
    assert_eq!(published, Ok(Published::Committed { generation: THEIRS + 1, lease_ms: 0 }));
    assert_eq!(asked.lock().expect("no panic").len(), 2);
}

/// What a lost connection left behind of it, on its way to the server, must not remove what is stored by the time it comes.
#[tokio::test]
async fn a_delete_of_whatever_is_stored_names_a_generation() {
    let (host, asked) = with_another_writer(0).await;
    let client = Client::connect(host.config()).await.expect("it listens");
    assert_eq!(client.delete_manifest(b"name", 0).await, Ok(true));
    client.delete_manifest(b"name", 5).await.expect_err("the caller's own generation is taken at its word");
    let asked = asked.lock().expect("no panic").clone();
    assert!(asked[0] != 0 && asked[1..] == [THEIRS + 1, 5], "{asked:?}");
}

/// The first attempt may have been carried out, and the other writer have replaced it.
#[tokio::test]
async fn a_publish_takes_effect_once() {
    let (host, asked) = with_another_writer(1).await;
    let client = Client::connect(host.config()).await.expect("it listens");
    let published = client.publish(b"name", &[], &[]).await;
    assert_eq!(published, Ok(Published::Stale { generation: THEIRS }));
    let asked = asked.lock().expect("no panic").clone();
    assert!(asked.len() == 2 && asked[0] == asked[1], "sent again as it was: {asked:?}");
}

#[tokio::test]
async fn a_delete_takes_effect_once() {
    let (host, asked) = with_another_writer(1).await;
    let client = Client::connect(host.config()).await.expect("it listens");
    match client.delete_manifest(b"name", 0).await {
        Err(Error::Storage(StorageError { status: Status::StaleGeneration, .. })) => {}
        other => panic!("{other:?}"),
    }
    let asked = asked.lock().expect("no panic").clone();
    assert!(asked.len() == 2 && asked[0] == asked[1], "sent again as it was: {asked:?}");
}
