//! Manifests: publishing, reading, deleting and listing them.

use memkv_wire::checksum;
use memkv_wire::*;

use super::Server;
use super::calls::{
    Manifest, Part, call_parts, delete, expect_manifest, expect_no_manifest, expect_published, expect_status,
    fetch, page, publish, publish_as, published, remove, store,
};
use crate::case::{Case, Outcome};
use crate::peer::session::Session;
use crate::{ensure, fail};

pub const CASES: &[Case<Server>] = &[
    Case::must("SRV-MAN-1", &["MKV-PUT-1"], "a manifest is read as it was published", round_trip),
    Case::must(
        "SRV-MAN-2",
        &["MKV-PUT-1", "MKV-PUT-3"],
        "missing chunks are named, and nothing is published",
        missing,
    ),
    Case::must("SRV-MAN-3", &["MKV-PUT-1"], "a chunk of another length or checksum is a conflict", conflict),
    Case::must("SRV-MAN-4", &["MKV-PUT-5"], "generations only rise", generations),
    Case::must("SRV-MAN-5", &["MKV-PUT-6", "MKV-DEL-1"], "a replaced manifest lets its chunks go", replaced),
    Case::must("SRV-MAN-6", &["MKV-PUT-1"], "a body that is not as told is refused", wrong_body),
    Case::must("SRV-MAN-7", &["MKV-PUT-1", "MKV-MSG-3"], "chunks may come in many frames", many_frames),
    Case::must("SRV-MAN-8", &["MKV-DELM-1"], "a deleted manifest is gone, its chunks stay", deleted),
    Case::must("SRV-MAN-9", &["MKV-DELM-2"], "a later generation is not deleted", delete_generation),
    Case::must("SRV-MAN-10", &["MKV-LIST-1"], "names are listed in order, by prefix, page by page", listing),
    Case::must("SRV-MAN-11", &["MKV-PUT-1"], "roles: the name at home, the references at the owner", roles),
    Case::must(
        "SRV-MAN-12",
        &["MKV-GET-1", "MKV-PUT-4"],
        "what a manifest names stays readable",
        chunks_stay,
    ),
    Case::must("SRV-MAN-13", &["MKV-PUT-6"], "long names that end differently are different", long_names),
    Case::must("SRV-MAN-14", &["MKV-LIST-1"], "a list tells what each manifest is", entries),
];

fn chunk<'a>(key: &'a [u8], data: &[u8]) -> ChunkReference<'a> {
    ChunkReference { key, length: data.len() as u64, checksum: None }
}

fn round_trip(server: &Server) -> Outcome {
    let (mut session, mut other) = (server.connect()?, server.connect()?);
    let (namespace, mut random) = (server.namespace(), server.random());
    for length in [0, 1, 4096, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 7] {
        let (name, body) = (format!("of {length}").into_bytes(), random.bytes(length));
        expect_no_manifest(&mut session, &namespace, &name)?;
        let generation = expect_published(&mut session, &namespace, &Manifest::new(&name, &body, &[]))?;
        expect_manifest(&mut session, &namespace, &name, (generation, &body))?;
        expect_manifest(&mut other, &namespace, &name, (generation, &body))?;
    }
    let long = [b'n'; 1024];
    let generation = expect_published(&mut session, &namespace, &Manifest::new(&long, b"body", &[]))?;
    expect_manifest(&mut other, &namespace, &long, (generation, b"body"))
}

fn long_names(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let namespace = server.namespace();
    let names = [(1024, b'a'), (1024, b'b'), (1023, b'b'), (256, b'a'), (255, b'a')].map(|(length, last)| {
        let mut name = vec![b'n'; length];
        name[length - 1] = last;
        name
    });
    for (number, name) in names.iter().enumerate() {
        expect_no_manifest(&mut session, &namespace, name)?;
        expect_published(&mut session, &namespace, &Manifest::new(name, &[number as u8], &[]))?;
    }
    for (number, name) in names.iter().enumerate() {
        let (_, body) = fetched(&mut session, &namespace, name)?;
        ensure!(body == [number as u8], "name {number} of {} bytes gave another's manifest", name.len());
    }
    Ok(())
}

/// A manifest that is there.
fn fetched(session: &mut Session, namespace: &[u8], name: &[u8]) -> Outcome<(u64, Vec<u8>)> {
    match fetch(session, namespace, name)? {
        Ok(found) => Ok(found),
        Err(status) => fail!("a manifest that was published was answered with {}", status.name()),
    }
}

fn entries(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, mut random) = (server.namespace(), server.random());
    let values = [random.bytes(10), random.bytes(3000), random.bytes((1 << 20) + 5)];
    let keys = [b"a", b"b", b"c"];
    for (key, value) in keys.iter().zip(&values) {
        store(&mut session, &namespace, *key, value)?;
    }
    let chunks: Vec<ChunkReference<'_>> = keys.iter().zip(&values).map(|(key, v)| chunk(*key, v)).collect();
    let body = random.bytes(777);
    let generation = expect_published(&mut session, &namespace, &Manifest::new(b"name", &body, &chunks))?;
    let list = ListManifests { prefix: b"name", cursor: &[], count_max: 0 };
    let replies = session.call(&namespace, RequestWhich::ListManifests(list), &[])?;
    let [reply] = replies.as_slice() else { fail!("a list of one name has {} frames", replies.len()) };
    let response = reply.response()?;
    let ResponseWhich::ListManifests(listed) = response.which else { fail!("a list has another arm") };
    let expected = ManifestEntry {
        name: b"name",
        generation,
        length: body.len() as u64,
        chunk_count: 3,
        chunk_bytes: values.iter().map(|value| value.len() as u64).sum(),
    };
    let Some(entry) = listed.entries.iter().next() else { fail!("the list is empty") };
    ensure!(entry == expected, "the list says {entry:?} instead of {expected:?}");
    Ok(())
}

fn missing(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let namespace = server.namespace();
    for key in [&b"b"[..], b"d"] {
        store(&mut session, &namespace, key, b"chunk")?;
    }
    let chunks = [b"a", b"b", b"c", b"d", b"e"].map(|key| chunk(key, b"chunk"));
    let manifest = Manifest::new(b"name", b"body", &chunks);
    let answer = publish(&mut session, &namespace, &manifest)?;
    expect_status(answer.status, Status::MissingChunks, "PutManifest with missing chunks")?;
    let mut places = answer.places;
    places.sort_unstable();
    ensure!(places == [0, 2, 4], "of chunks 0, 2 and 4 it says that {places:?} are missing");
    expect_no_manifest(&mut session, &namespace, b"name")?;
    for key in [&b"a"[..], b"c", b"e"] {
        store(&mut session, &namespace, key, b"chunk")?;
    }
    let generation = expect_published(&mut session, &namespace, &manifest)?;
    expect_manifest(&mut session, &namespace, b"name", (generation, b"body"))?;
    // Over an older one: nothing changes either.
    let chunks = [chunk(b"f", b"chunk")];
    let answer = publish(&mut session, &namespace, &Manifest::new(b"name", b"new body", &chunks))?;
    expect_status(answer.status, Status::MissingChunks, "PutManifest with a missing chunk")?;
    expect_manifest(&mut session, &namespace, b"name", (generation, b"body"))
}

fn conflict(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let namespace = server.namespace();
    store(&mut session, &namespace, b"a", b"chunk a")?;
    store(&mut session, &namespace, b"b", b"chunk b")?;
    let (right, wrong) = (checksum::value_of(b"chunk b"), checksum::value_of(b"chunk a"));
    let a = chunk(b"a", b"chunk a");
    for b in [
        ChunkReference { key: b"b", length: 8, checksum: None },
        ChunkReference { key: b"b", length: 7, checksum: Some(&wrong) },
    ] {
        let answer = publish(&mut session, &namespace, &Manifest::new(b"name", b"body", &[a, b]))?;
        expect_status(answer.status, Status::Conflict, "PutManifest with another chunk")?;
        ensure!(answer.places == [1], "of chunk 1 it says that {:?} are in conflict", answer.places);
        expect_no_manifest(&mut session, &namespace, b"name")?;
    }
    let b = ChunkReference { key: b"b", length: 7, checksum: Some(&right) };
    expect_published(&mut session, &namespace, &Manifest::new(b"name", b"body", &[a, b])).map(drop)
}

fn generations(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let namespace = server.namespace();
    let put = |session: &mut Session, generation, body: &[u8]| {
        let manifest = Manifest { generation, ..Manifest::new(b"name", body, &[]) };
        publish(session, &namespace, &manifest)
    };
    let first = put(&mut session, 0, b"first")?.generation;
    let second = put(&mut session, 0, b"second")?.generation;
    ensure!(first > 0 && second > first, "the server chose generations {first} and {second}");
    let chosen = put(&mut session, second + 10, b"chosen")?;
    ensure!(
        (chosen.status, chosen.generation) == (Status::Ok, second + 10),
        "a chosen generation gave {chosen:?}"
    );
    for (generation, body) in
        [(second + 9, &b"older"[..]), (1, b"chosen"), (second + 10, b"the same, other body")]
    {
        let answer = put(&mut session, generation, body)?;
        expect_status(answer.status, Status::StaleGeneration, "a generation that is not greater")?;
        ensure!(answer.generation == second + 10, "it tells generation {} as stored", answer.generation);
        expect_manifest(&mut session, &namespace, b"name", (second + 10, b"chosen"))?;
    }
    let same = put(&mut session, second + 10, b"chosen")?;
    expect_status(same.status, Status::Ok, "the same generation with the same body")?;
    let next = put(&mut session, 0, b"next")?.generation;
    ensure!(next > second + 10, "after generation {} the server chose {next}", second + 10);
    expect_manifest(&mut session, &namespace, b"name", (next, b"next"))
}

fn replaced(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let namespace = server.namespace();
    for key in [&b"old"[..], b"both", b"new"] {
        store(&mut session, &namespace, key, b"chunk")?;
    }
    let (old, both, new) = (chunk(b"old", b"chunk"), chunk(b"both", b"chunk"), chunk(b"new", b"chunk"));
    expect_published(&mut session, &namespace, &Manifest::new(b"name", b"1", &[old, both]))?;
    let generation = expect_published(&mut session, &namespace, &Manifest::new(b"name", b"2", &[both, new]))?;
    expect_manifest(&mut session, &namespace, b"name", (generation, b"2"))?;
    let told = delete(&mut session, &namespace, &[b"old", b"both", b"new"])?;
    let expected = [Status::Ok, Status::Referenced, Status::Referenced];
    ensure!(told == expected, "after it was replaced, delete told {told:?}");
    Ok(())
}

fn wrong_body(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let namespace = server.namespace();
    let mut sum = checksum::value_of(b"body");
    sum[5] ^= 1;
    let answer = publish_as(&mut session, &namespace, &Manifest::new(b"name", b"body", &[]), &sum)?;
    expect_status(answer.status, Status::ChecksumMismatch, "a body with a wrong checksum")?;
    expect_no_manifest(&mut session, &namespace, b"name")?;
    let sum = checksum::value_of(b"body");
    for length in [3, 5, 0] {
        let put = PutManifest { name: b"name", length, checksum: &sum, ..PutManifest::default() };
        let status = session.status(&namespace, RequestWhich::PutManifest(put), b"body")?;
        let refused = matches!(status, Status::Invalid | Status::ChecksumMismatch);
        ensure!(refused, "a body of 4 bytes told to be {length} was answered with {}", status.name());
        expect_no_manifest(&mut session, &namespace, b"name")?;
    }
    Ok(())
}

fn many_frames(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let namespace = server.namespace();
    let keys: Vec<Vec<u8>> = (0..30).map(|n| format!("chunk {n}").into_bytes()).collect();
    for key in keys.iter().filter(|key| **key != b"chunk 17") {
        store(&mut session, &namespace, key, key)?;
    }
    let chunks: Vec<ChunkReference<'_>> = keys.iter().map(|key| chunk(key, key)).collect();
    let body = server.random().bytes(1000);
    let sum = checksum::value_of(&body);
    let put = PutManifest { name: b"name", length: 1000, checksum: &sum, ..PutManifest::default() };
    // The body lies beside the second ten chunks.
    let part = |number: usize| {
        let chunks = List::from(&chunks[number * 10..][..10]);
        let payload = if number == 1 { &body[..] } else { &[] };
        Part { which: RequestWhich::PutManifest(PutManifest { chunks, ..put }), payload }
    };
    let parts = [part(0), part(1), part(2)];
    let answer = published(&call_parts(&mut session, &namespace, &parts)?)?;
    expect_status(answer.status, Status::MissingChunks, "PutManifest in three frames")?;
    ensure!(answer.places == [17], "of chunk 17 it says that {:?} are missing", answer.places);
    store(&mut session, &namespace, b"chunk 17", b"chunk 17")?;
    let answer = published(&call_parts(&mut session, &namespace, &parts)?)?;
    expect_status(answer.status, Status::Ok, "PutManifest in three frames")?;
    expect_manifest(&mut session, &namespace, b"name", (answer.generation, &body))?;
    let told = delete(&mut session, &namespace, &[&keys[0], &keys[15], &keys[29]])?;
    ensure!(told == [Status::Referenced; 3], "delete of its chunks told {told:?}");
    Ok(())
}

fn deleted(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let namespace = server.namespace();
    store(&mut session, &namespace, b"chunk", b"chunk")?;
    let chunks = [chunk(b"chunk", b"chunk")];
    for name in [&b"kept"[..], b"gone"] {
        expect_published(&mut session, &namespace, &Manifest::new(name, name, &chunks))?;
    }
    expect_status(remove(&mut session, &namespace, b"gone", 0)?, Status::Ok, "DeleteManifest")?;
    expect_no_manifest(&mut session, &namespace, b"gone")?;
    expect_status(
        remove(&mut session, &namespace, b"gone", 0)?,
        Status::NotFound,
        "a second DeleteManifest",
    )?;
    super::calls::expect_value(&mut session, &namespace, b"chunk", b"chunk")?;
    let told = delete(&mut session, &namespace, &[b"chunk"])?;
    ensure!(told == [Status::Referenced], "delete of a chunk that another manifest names told {told:?}");
    // The name is free.
    let generation = expect_published(&mut session, &namespace, &Manifest::new(b"gone", b"again", &[]))?;
    expect_manifest(&mut session, &namespace, b"gone", (generation, b"again"))
}

fn delete_generation(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let namespace = server.namespace();
    let manifest = Manifest { generation: 20, ..Manifest::new(b"name", b"body", &[]) };
    expect_published(&mut session, &namespace, &manifest)?;
    for generation in [1, 19] {
        let status = remove(&mut session, &namespace, b"name", generation)?;
        expect_status(status, Status::StaleGeneration, "DeleteManifest of an earlier generation")?;
        expect_manifest(&mut session, &namespace, b"name", (20, b"body"))?;
    }
    for generation in [20, 25] {
        expect_status(remove(&mut session, &namespace, b"name", generation)?, Status::Ok, "DeleteManifest")?;
        expect_no_manifest(&mut session, &namespace, b"name")?;
        let manifest = Manifest { generation: 20, ..Manifest::new(b"name", b"body", &[]) };
        let answer = publish(&mut session, &namespace, &manifest)?;
        // Whether a deleted generation may come again is left open; a later one may.
        if answer.status != Status::Ok {
            let later = Manifest { generation: 21, ..manifest };
            expect_published(&mut session, &namespace, &later)?;
        }
    }
    Ok(())
}

fn listing(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let namespace = server.namespace();
    let mut names: Vec<Vec<u8>> = (0..45).map(|n| format!("a/{:03}", n * 7 % 45).into_bytes()).collect();
    names.extend([b"a".to_vec(), b"a/".to_vec(), b"a0".to_vec(), b"b".to_vec(), vec![0], vec![0xff, 0xff]]);
    for name in &names {
        expect_published(&mut session, &namespace, &Manifest::new(name, b"body", &[]))?;
    }
    names.sort();
    for (prefix, count_max) in
        [(&b""[..], 0), (b"a/", 0), (b"a/", 10), (b"", 7), (b"a/04", 1), (b"z", 5), (b"a", 0)]
    {
        let expected: Vec<Vec<u8>> = names.iter().filter(|name| name.starts_with(prefix)).cloned().collect();
        let listed = list_all(&mut session, &namespace, prefix, count_max)?;
        let shown = String::from_utf8_lossy(prefix).into_owned();
        ensure!(
            listed == expected,
            "{shown:?} by {count_max} listed {} names of {}",
            listed.len(),
            expected.len()
        );
    }
    // A cursor need not be a name that is there.
    let list = ListManifests { prefix: b"a/", cursor: b"a/0195", count_max: 2 };
    let (names, more) = page(&mut session, &namespace, list)?;
    ensure!(names == [b"a/020", b"a/021"] && more, "after a/0195 it listed {names:?}");
    Ok(())
}

/// All pages.
fn list_all(session: &mut Session, namespace: &[u8], prefix: &[u8], count_max: u32) -> Outcome<Vec<Vec<u8>>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for _ in 0..1000 {
        let cursor = all.last().cloned().unwrap_or_default();
        let (names, more) = page(session, namespace, ListManifests { prefix, cursor: &cursor, count_max })?;
        let over = count_max > 0 && names.len() > count_max as usize;
        ensure!(!over, "a page of at most {count_max} has {} names", names.len());
        ensure!(!(more && names.is_empty()), "an empty page says that there are more");
        all.extend(names);
        if !more {
            return Ok(all);
        }
    }
    fail!("the listing never ends")
}

fn roles(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let namespace = server.namespace();
    store(&mut session, &namespace, b"chunk", b"chunk")?;
    let (here, elsewhere) = ([chunk(b"chunk", b"chunk")], [chunk(b"elsewhere", b"chunk")]);
    // The references of a name that lives elsewhere: the chunk is held, the name is not listed.
    let refs = Manifest { role: ManifestRole::Refs, generation: 5, ..Manifest::new(b"refs", b"", &here) };
    expect_published(&mut session, &namespace, &refs)?;
    ensure!(
        page(&mut session, &namespace, ListManifests::default())?.0.is_empty(),
        "a name of refs is listed"
    );
    let told = delete(&mut session, &namespace, &[b"chunk"])?;
    ensure!(told == [Status::Referenced], "delete of a chunk that refs name told {told:?}");
    let missing =
        Manifest { role: ManifestRole::Refs, generation: 5, ..Manifest::new(b"others", b"", &elsewhere) };
    let answer = publish(&mut session, &namespace, &missing)?;
    expect_status(answer.status, Status::MissingChunks, "refs of a missing chunk")?;
    // The name of chunks that live elsewhere: not checked here.
    let home =
        Manifest { role: ManifestRole::Home, generation: 5, ..Manifest::new(b"home", b"body", &elsewhere) };
    expect_published(&mut session, &namespace, &home)?;
    expect_manifest(&mut session, &namespace, b"home", (5, b"body"))
}

fn chunks_stay(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, mut random) = (server.namespace(), server.random());
    let chunks: Vec<Vec<u8>> = (0..10).map(|_| random.bytes(50_000)).collect();
    let keys: Vec<Vec<u8>> = (0..10).map(|n| format!("chunk {n}").into_bytes()).collect();
    for (key, data) in keys.iter().zip(&chunks) {
        store(&mut session, &namespace, key, data)?;
    }
    let references: Vec<ChunkReference<'_>> =
        keys.iter().zip(&chunks).map(|(key, data)| chunk(key, data)).collect();
    expect_published(&mut session, &namespace, &Manifest::new(b"name", b"body", &references))?;
    // A client that read the manifest finds its chunks, whatever others do meanwhile.
    let mut reader = server.connect()?;
    let generation = match super::calls::fetch(&mut reader, &namespace, b"name")? {
        Ok((generation, _)) => generation,
        Err(status) => fail!("GetManifest was answered with {}", status.name()),
    };
    ensure!(generation > 0, "the generation is 0");
    expect_published(&mut session, &namespace, &Manifest::new(b"name", b"other", &[]))?;
    keys.iter()
        .zip(&chunks)
        .try_for_each(|(key, data)| super::calls::expect_value(&mut reader, &namespace, key, data))
}
