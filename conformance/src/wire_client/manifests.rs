//! Manifests: published, read back, listed; and what a client does about chunks that are missing.

use memkv_wire::Operation;
use memkv_wire::checksum::BLOCK_SIZE_BYTES;
use memkv_wire::limits::PUT_MANIFEST_RETRIES_MAX;

use super::Client;
use super::calls::{
    done, expect_bytes, expect_miss, expect_value, expect_value_or_none, manifest_request, put, refused,
    values_request,
};
use super::driver::{Answer, hex};
use crate::case::{Case, Outcome};
use crate::ensure;
use crate::reference::{Event, Flaw, Quirk};

pub const CASES: &[Case<Client>] = &[
    Case::must(
        "CLI-MAN-1",
        &["MKV-PUT-1", "WCD-NAME-1"],
        "manifests of every length come back as they were",
        round,
    ),
    Case::must("CLI-MAN-2", &["MKV-PUT-6"], "a manifest replaces the one before", replaced),
    Case::must(
        "CLI-MAN-3",
        &["MKV-PUT-1"],
        "chunks that are missing are told, and nothing is published",
        missing,
    ),
    Case::must("CLI-MAN-4", &["MKV-DELM-1"], "a manifest that is deleted is gone", deleted),
    Case::must(
        "CLI-MAN-5",
        &["MKV-LIST-1"],
        "names are listed once, in order, over any number of pages",
        listed,
    ),
    Case::must("CLI-MAN-6", &["WCD-DATA-1"], "a body that lacks a byte is not handed out", short_body),
    Case::must(
        "CLI-MAN-7",
        &["WCD-DATA-1"],
        "a body whose checksum does not hold is not handed out",
        other_body,
    ),
    Case::must(
        "CLI-MAN-8",
        &["MKV-PUT-5", "WCD-DATA-2"],
        "a manifest that is stale is not told as published",
        stale,
    ),
    Case::must(
        "CLI-MAN-9",
        &["WCD-DATA-2"],
        "a list of missing chunks that names others than were asked for is not believed",
        wrong_places,
    ),
    Case::must("CLI-MAN-10", &["WCD-DATA-1"], "a manifest that comes without its body is none", no_body),
    Case::must("CLI-SAVE-1", &["MKV-PUT-3"], "a save writes what is missing, and then publishes", save),
    Case::must("CLI-SAVE-2", &["MKV-PUT-3"], "a save gives up after so many tries", save_in_vain),
];

fn publish(driver: &mut super::Driver, name: &[u8], body: &[u8]) -> Outcome {
    done(driver, &manifest_request(name, body, &[])).map(drop)
}

fn get(name: &[u8]) -> String {
    format!("get-manifest {}", hex(name))
}

fn expect_manifest(driver: &mut super::Driver, name: &[u8], body: &[u8]) -> Outcome {
    expect_bytes(&done(driver, &get(name))?, body, "get-manifest")
}

//= MKV-PUT-1 test
fn round(client: &Client) -> Outcome {
    let (mut driver, mut random) = (client.start()?, client.random());
    for (name, length) in [
        (&[1][..], 0),
        (&[0; 40], 1),
        (&[255; 1024], 1000),
        (&[1], BLOCK_SIZE_BYTES),
        (&[2], BLOCK_SIZE_BYTES + 3),
    ] {
        let body = random.bytes(length);
        publish(&mut driver, name, &body)?;
        expect_manifest(&mut driver, name, &body)?;
    }
    expect_miss(&mut driver, &get(b"never"))?;
    refused(&mut driver, &manifest_request(&[1; 1025], b"body", &[]), "although the name is too long")?;
    refused(&mut driver, &manifest_request(b"", b"body", &[]), "although the name is empty")
}

//= MKV-PUT-6 test
fn replaced(client: &Client) -> Outcome {
    let (mut driver, mut other) = (client.start()?, client.start()?);
    for body in [&b"first"[..], b"second", b"", b"fourth"] {
        publish(&mut driver, b"name", body)?;
        expect_manifest(&mut driver, b"name", body)?;
        publish(&mut other, b"name", b"of another process")?;
        expect_manifest(&mut driver, b"name", b"of another process")?;
    }
    Ok(())
}

fn missing(client: &Client) -> Outcome {
    let mut driver = client.start()?;
    put(&mut driver, b"there", b"value")?;
    let chunks = [(&b"none"[..], 9), (b"there", 5), (b"gone", 7)];
    let answer = driver.ask(&manifest_request(b"name", b"body", &chunks))?;
    ensure!(
        answer == Answer::Missing(vec![0, 2]),
        "chunks 0 and 2 are missing, and put-manifest said {answer:?}"
    );
    expect_miss(&mut driver, &get(b"name"))?;
    done(&mut driver, &manifest_request(b"name", b"body", &chunks[1..2]))?;
    expect_manifest(&mut driver, b"name", b"body")?;
    let other = [(&b"there"[..], 6)];
    refused(
        &mut driver,
        &manifest_request(b"name", b"other", &other),
        "although a chunk has another length",
    )?;
    expect_manifest(&mut driver, b"name", b"body")
}

fn deleted(client: &Client) -> Outcome {
    let mut driver = client.start()?;
    publish(&mut driver, b"name", b"body")?;
    done(&mut driver, &format!("delete-manifest {}", hex(b"name")))?;
    expect_miss(&mut driver, &get(b"name"))?;
    expect_miss(&mut driver, &format!("delete-manifest {}", hex(b"name")))
}

//= MKV-LIST-1 test
fn listed(client: &Client) -> Outcome {
    let mut driver = client.start()?;
    // More than one page of the reference server's.
    let mut names: Vec<Vec<u8>> =
        (0..300_u32).map(|number| format!("a{}", number * 7919 % 1000).into_bytes()).collect();
    for name in &names {
        publish(&mut driver, name, b"")?;
    }
    publish(&mut driver, b"b", b"")?;
    names.sort();
    let expected: Vec<String> = names.iter().map(|name| hex(name)).collect();
    let found = done(&mut driver, &format!("list {}", hex(b"a")))?;
    ensure!(found == expected, "list gave {} names, and not the {} in order", found.len(), expected.len());
    ensure!(
        done(&mut driver, &format!("list {}", hex(b"c")))?.is_empty(),
        "list gave names of another prefix"
    );
    Ok(())
}

fn expect_true(client: &Client, flaw: Flaw) -> Outcome {
    let body = client.random().bytes(BLOCK_SIZE_BYTES + 3000);
    let mut driver = client.start_hasty()?;
    publish(&mut driver, b"name", &body)?;
    client.behave(flaw);
    expect_value_or_none(&mut driver, &get(b"name"), &body)
}

fn short_body(client: &Client) -> Outcome {
    expect_true(client, Flaw::BodyTooShort)
}

fn other_body(client: &Client) -> Outcome {
    expect_true(client, Flaw::BodyOtherBytes)
}

fn no_body(client: &Client) -> Outcome {
    expect_true(client, Flaw::BodyMissing)
}

fn stale(client: &Client) -> Outcome {
    let mut driver = client.start_hasty()?;
    publish(&mut driver, b"name", b"body")?;
    client.behave(Quirk::AlwaysStale);
    refused(
        &mut driver,
        &manifest_request(b"name", b"other", &[]),
        "although the server said that it is stale",
    )
}

fn wrong_places(client: &Client) -> Outcome {
    let mut driver = client.start_hasty()?;
    client.behave(Flaw::MissingChunksOffByOne);
    let answer = driver.ask(&manifest_request(b"name", b"body", &[(b"none", 9)]))?;
    ensure!(matches!(answer, Answer::Error(_)), "chunk 1 of 1 is missing, and put-manifest said {answer:?}");
    Ok(())
}

/// Keys and values.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn save_request(client: &Client) -> (String, Pairs) {
    let mut random = client.random();
    let values: Vec<(Vec<u8>, Vec<u8>)> =
        (1..9_u8).map(|number| (vec![number], random.bytes(5000))).collect();
    let head = format!("save {} {}", hex(b"name"), hex(b"body"));
    (values_request(&head, &values), values)
}

//= MKV-PUT-3 test
fn save(client: &Client) -> Outcome {
    let mut driver = client.start()?;
    let (request, values) = save_request(client);
    put(&mut driver, &values[2].0, &values[2].1)?;
    done(&mut driver, &request)?;
    expect_manifest(&mut driver, b"name", b"body")?;
    for (key, value) in &values {
        expect_value(&mut driver, key, value)?;
    }
    Ok(())
}

fn save_in_vain(client: &Client) -> Outcome {
    let mut driver = client.start_hasty()?;
    client.behave(Quirk::AlwaysMissing);
    let (request, _) = save_request(client);
    refused(&mut driver, &request, "although the server never has the chunks")?;
    let asked =
        |event: &&Event| matches!(event, Event::Request { operation: Some(Operation::PutManifest), .. });
    let tries = client.events().iter().filter(asked).count();
    let most = PUT_MANIFEST_RETRIES_MAX as usize + 1;
    ensure!(
        tries <= most,
        "the client asked {tries} times to publish the manifest, which is more than {most}"
    );
    Ok(())
}
