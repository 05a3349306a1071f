//! Whole clients against a script behind a socket.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use memkv_wire::{DeleteManifestReply, RequestWhich, ResponseWhich, Status};

use crate::Client;
use crate::testing::host::{Host, Step, with_request};
use crate::testing::{FakeServer, only};

/// What a script remembers between messages.
type Kept<T> = Arc<Mutex<T>>;

/// A delete whose connection ends before it is answered is sent again, and what the first one left on its way to the server may
/// still come: neither may mean whatever is stored by then.
#[tokio::test]
async fn a_delete_of_whatever_is_stored_names_a_generation() {
    let asked: Kept<Vec<u64>> = Kept::default();
    let (seen, pings) = (Arc::clone(&asked), Mutex::new(FakeServer::new()));
    // Ahead of every clock.
    let stored = u64::MAX / 2;
    let host = Host::start("", move |message| {
        with_request(message, |request| match request {
            RequestWhich::DeleteManifest(request) => {
                let mut seen = seen.lock().expect("no panic");
                seen.push(request.generation);
                let status = match request.generation {
                    _ if seen.len() == 2 => return Step::Cut,
                    generation if generation < stored => Status::StaleGeneration,
                    _ => Status::Ok,
                };
                let which = ResponseWhich::DeleteManifest(DeleteManifestReply { generation: stored });
                Step::Answer(only(status, 0, which))
            }
            _ => Step::Answer(pings.lock().expect("no panic").answer(message)),
        })
    })
    .await;
    let client = Client::connect(host.config()).await.expect("it listens");
    assert_eq!(client.delete_manifest(b"name", 0).await, Ok(true));
    let asked = asked.lock().expect("no panic").clone();
    let [first, later, again] = asked[..] else { panic!("{asked:?}") };
    assert_ne!(first, 0);
    assert_eq!((later, again), (stored + 1, stored + 1), "sent again as it was");
    client.delete_manifest(b"name", 5).await.expect_err("the caller's own generation is taken at its word");
}

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
