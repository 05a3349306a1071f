//! Killed at any moment, started again: what was acknowledged is there, and no byte is ever wrong.

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use memkv_wire::*;
use support::*;
use tokio::sync::Notify;

/// What the server acknowledged.
#[derive(Clone, Default)]
struct Acknowledged {
    answers: u64,
    values: HashMap<Vec<u8>, Vec<u8>>,
    manifests: HashMap<Vec<u8>, Session>,
    /// May be there or not: the answer to the deletion never came.
    unsure: Vec<Vec<u8>>,
}

#[derive(Clone)]
struct Session {
    body: Vec<u8>,
    keys: Vec<Vec<u8>>,
}

impl Acknowledged {
    /// The answer came: the manifest is there, or is not.
    fn settle(&mut self, name: &[u8], there: Option<Session>) {
        self.answers += 1;
        self.unsure.retain(|unsure| unsure != name);
        match there {
            Some(manifest) => drop(self.manifests.insert(name.to_vec(), manifest)),
            None => drop(self.manifests.remove(name)),
        }
    }
}

/// Saves sessions until the server dies; some of them are replaced or deleted.
async fn save_until_death(
    address: String,
    worker: u8,
    round: u64,
    acknowledged: Arc<Mutex<Acknowledged>>,
    answered: Arc<Notify>,
) {
    let mut client = Client::connect(&address, worker).await;
    for session in 0.. {
        let seed = round * 1000 + session;
        let keys: Vec<Vec<u8>> =
            (0..6)
                // Workers share some chunks.
                .map(|n| {
                    if n < 2 {
                        format!("shared {round} {session} {n}")
                    } else {
                        format!("{worker} {seed} {n}")
                    }
                })
                .map(String::into_bytes)
                .collect();
        let values: Vec<Vec<u8>> = keys
            .iter()
            .map(|key| bytes(checksum(key)[0].into(), 1 + 9000 * usize::from(key[key.len() - 1] % 8)))
            .collect();
        let items: Vec<WriteItem<'_>> = keys
            .iter()
            .zip(&values)
            .map(|(key, value)| WriteItem { key, length: value.len() as u64, checksum: None })
            .collect();
        let sums: Vec<[u8; 16]> = values.iter().map(|value| memkv_wire::checksum::block(value)).collect();
        let pieces: Vec<Piece<'_>> = (0..6).map(|n| piece(n as u32, 0, values[n].len(), &sums[n])).collect();
        let which =
            RequestWhich::BatchWrite(BatchWrite { items: List::from(&items), pieces: List::from(&pieces) });
        let Some(frames) = client.try_call(which, &values.concat()).await else { return };
        let mut ok = 0;
        for frame in &frames {
            frame.with(|response| {
                let ResponseWhich::BatchWrite(reply) = response.which else { return };
                ok += reply.results.iter().filter(|result| result.status == Status::Ok).count();
            });
        }
        assert_eq!(ok, 6);
        answered.notify_one();
        acknowledged.lock().unwrap().answers += 1;
        acknowledged.lock().unwrap().values.extend(keys.iter().cloned().zip(values.iter().cloned()));
        let chunks: Vec<ChunkReference<'_>> = keys
            .iter()
            .zip(&values)
            .map(|(key, value)| ChunkReference { key, length: value.len() as u64, checksum: None })
            .collect();
        // Every third session replaces the one before.
        let name = format!("{worker} {}", seed - u64::from(session % 3 == 2)).into_bytes();
        let body = bytes(seed, (session as usize * 777) % 5000);
        let sum = checksum(&body);
        let which = RequestWhich::PutManifest(put_manifest(&name, 0, &body, &sum, &chunks));
        acknowledged.lock().unwrap().unsure.push(name.clone());
        let Some(frames) = client.try_call(which, &body).await else { return };
        assert_eq!(put_outcome(&frames).0, Status::Ok);
        acknowledged.lock().unwrap().settle(&name, Some(Session { body, keys: keys.clone() }));
        if session % 5 == 4 {
            acknowledged.lock().unwrap().unsure.push(name.clone());
            let which = RequestWhich::DeleteManifest(DeleteManifest { name: &name, generation: 0 });
            let Some(frames) = client.try_call(which, &[]).await else { return };
            assert_eq!(frames[0].status(), Status::Ok);
            acknowledged.lock().unwrap().settle(&name, None);
        }
    }
}

async fn check(client: &mut Client, acknowledged: &Acknowledged) {
    for (name, Session { body, keys }) in &acknowledged.manifests {
        if acknowledged.unsure.contains(name) {
            continue;
        }
        let (_, got) =
            client.get_manifest(name).await.unwrap_or_else(|status| panic!("{name:?}: {status:?}"));
        assert!(got == *body, "{name:?}");
        for key in keys {
            assert!(client.read(key, 0, 0).await.as_ref() == Ok(&acknowledged.values[key]), "{key:?}");
        }
    }
    for (key, value) in &acknowledged.values {
        assert!(client.read(key, 0, 0).await.as_ref() == Ok(value), "{key:?} was acknowledged");
    }
    let which = RequestWhich::ListManifests(ListManifests { prefix: b"", cursor: b"", count_max: 1024 });
    let frames = client.call(which, &[]).await;
    frames[0].with(|response| {
        let ResponseWhich::ListManifests(reply) = response.which else { panic!("another arm") };
        for entry in reply.entries.iter() {
            let name = entry.name.to_vec();
            let known = acknowledged.manifests.contains_key(&name) || acknowledged.unsure.contains(&name);
            assert!(known, "{name:?} was deleted, or never put");
        }
    });
    assert_eq!(client.stat("checksum_failures").await, 0);
}

//= MKV-PUT-2 test
//= MKV-WR-2 test
//= MKV-DELM-1 test
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_at_any_moment() {
    let (_keep, path) = directory();
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    for round in 0..6 {
        let server = Server::start(Mode::File, &path);
        let so_far = acknowledged.lock().unwrap().clone();
        check(&mut Client::connect(&server.address, 99).await, &so_far).await;
        let answered = Arc::new(Notify::new());
        let before = acknowledged.lock().unwrap().answers;
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let (address, state) = (server.address.clone(), Arc::clone(&acknowledged));
                tokio::spawn(save_until_death(address, worker, round, state, Arc::clone(&answered)))
            })
            .collect();
        // Somewhere between two answers, never at the same place.
        while acknowledged.lock().unwrap().answers < before + 5 + round * 37 % 60 {
            answered.notified().await;
        }
        server.kill();
        for worker in workers {
            worker.await.unwrap();
        }
    }
    let server = Server::start(Mode::File, &path);
    let state = acknowledged.lock().unwrap().clone();
    assert!(state.manifests.len() > 5, "the load was no load: {}", state.manifests.len());
    check(&mut Client::connect(&server.address, 99).await, &state).await;
}

/// A value whose bytes rotted on the device is a miss, is counted, and harms no other.
//= MKV-RD-2 test
#[tokio::test]
async fn rotten_bytes_are_a_miss() {
    let (_keep, path) = directory();
    let server = Server::start(Mode::File, &path);
    let mut client = Client::connect(&server.address, 1).await;
    let values: Vec<Vec<u8>> =
        [300, 70_000, BLOCK + 5000].iter().map(|length| bytes(*length as u64, *length)).collect();
    for (n, value) in values.iter().enumerate() {
        assert_eq!(client.write(&[n as u8], value).await, Status::Ok);
        assert_eq!(client.write(&[100 + n as u8], value).await, Status::Ok);
    }
    server.kill();
    for (n, value) in values.iter().enumerate() {
        flip_first_copy(&path.join("data/store"), &value[value.len() - 200..]);
        let server = Server::start(Mode::File, &path);
        let mut client = Client::connect(&server.address, 1).await;
        let got = [client.read(&[n as u8], 0, 0).await, client.read(&[100 + n as u8], 0, 0).await];
        let misses = got.iter().filter(|got| **got == Err(Status::NotFound)).count();
        let whole = got.iter().filter(|got| got.as_ref() == Ok(value)).count();
        assert_eq!((misses, whole), (1, 1), "{n}");
        server.kill();
    }
}

/// Changes one bit of the first place where these bytes are in the shards.
fn flip_first_copy(store: &std::path::Path, wanted: &[u8]) {
    use std::os::unix::fs::FileExt;
    let mut shards: Vec<_> = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path()).collect();
    shards.sort();
    for shard in shards {
        let bytes = std::fs::read(&shard).unwrap();
        // The bytes are random: the first eight are as good as all of them, and quick to look for.
        let found = bytes.windows(8).position(|window| window == &wanted[..8]);
        if let Some(at) = found.filter(|at| bytes[*at..].starts_with(wanted)) {
            let file = std::fs::OpenOptions::new().write(true).open(&shard).unwrap();
            file.write_all_at(&[bytes[at + 100] ^ 0x10], at as u64 + 100).unwrap();
            return;
        }
    }
    panic!("the value is not on the devices");
}
