//! How a client connects, and whom it takes for a server.

use std::collections::BTreeSet;

use memkv_wire::frame::VERSION;

use super::calls::{done, expect_value, put, refused};
use super::{Client, TIMEOUT};
use crate::case::{Case, Outcome};
use crate::reference::{Flaw, Quirk};
use crate::{ensure, fail};

pub const CASES: &[Case<Client>] = &[
    Case::must(
        "CLI-LINE-1",
        &["WCD-LINE-1", "MKV-CONN-3", "MKV-CONN-10", "MKV-PING-1"],
        "a driver answers line by line, and ends with its input",
        lines,
    ),
    Case::must("CLI-CONN-1", &["MKV-CONN-2"], "nonces are drawn anew for every connection", nonces),
    Case::must(
        "CLI-CONN-2",
        &["MKV-CONN-1", "MKV-CONN-7"],
        "a server that speaks nothing but HMAC-SHA256 can be used",
        hmac_only,
    ),
    Case::must("CLI-CONN-3", &["MKV-CONN-8"], "a reply whose MAC does not hold is not taken", answer_mac),
    Case::must(
        "CLI-CONN-4",
        &["MKV-CONN-8"],
        "a reply signed with the shared key, and not with a derived one, is not taken",
        answer_under_shared_key,
    ),
    Case::must("CLI-CONN-5", &["MKV-CONN-8"], "a reply with another nonce is not taken", other_nonce),
    Case::must(
        "CLI-CONN-6",
        &["MKV-CONN-8"],
        "a reply with a bulk MAC that was not offered is not taken",
        mac_not_offered,
    ),
    Case::must(
        "CLI-CONN-7",
        &["MKV-CONN-9"],
        "a server of an older version is not used, and nothing is downgraded",
        older_version,
    ),
    Case::must(
        "CLI-CONN-8",
        &["MKV-FRAME-8", "MKV-CONN-3"],
        "a reply to Connect of another kind or sequence is not taken",
        answer_header,
    ),
    Case::must(
        "CLI-CONN-9",
        &["MKV-LIM-1", "MKV-MSG-6"],
        "a reply to Connect that is too long or cannot be read is not taken",
        answer_unreadable,
    ),
    Case::must(
        "CLI-CONN-10",
        &["MKV-CONN-10"],
        "a hello frame after set-up closes the connection",
        later_hello,
    ),
    Case::must("CLI-CONN-11", &["WCD-TIME-1"], "a server that never answers Connect is given up", silence),
    Case::must(
        "CLI-CONN-12",
        &["MKV-LEASE-1"],
        "a client has one id, on all its connections, and no other client has it",
        client_ids,
    ),
];

fn lines(client: &Client) -> Outcome {
    let mut driver = client.start()?;
    for _ in 0..3 {
        let words = done(&mut driver, "ping")?;
        ensure!(words.is_empty(), "ping was answered with more than ok");
    }
    put(&mut driver, b"key", b"value")?;
    expect_value(&mut driver, b"key", b"value")?;
    driver.finish()
}

//= MKV-CONN-2 test
fn nonces(client: &Client) -> Outcome {
    for _ in 0..3 {
        done(&mut client.start()?, "ping")?;
    }
    client.behave(Quirk::ClosesAfterAnswer);
    let mut driver = client.start()?;
    for _ in 0..3 {
        // Whether it connects again at once is another case's matter.
        driver.ask("ping")?;
    }
    let hellos = client.hellos();
    let nonces: BTreeSet<_> = hellos.iter().map(|hello| hello.nonce).collect();
    ensure!(hellos.len() >= 4, "the client connected {} times in four processes", hellos.len());
    ensure!(nonces.len() == hellos.len(), "two of {} connections have the same nonce", hellos.len());
    ensure!(hellos.iter().all(|hello| hello.bulk_macs.contains(&0)), "a client does not offer HMAC-SHA256");
    Ok(())
}

//= MKV-LEASE-1 test
fn client_ids(client: &Client) -> Outcome {
    let ids = || client.hellos().iter().map(|hello| hello.client_id).collect::<Vec<_>>();
    client.behave(Quirk::ClosesAfterAnswer);
    for number in 1..=2 {
        let before = ids().len();
        let mut driver = client.start()?;
        for _ in 0..3 {
            // Whether it connects again at once is another case's matter.
            driver.ask("ping")?;
        }
        drop(driver);
        let own = ids().split_off(before);
        ensure!(own.iter().all(|id| *id == own[0]), "the connections of client {number} have other ids");
    }
    let different = ids().into_iter().collect::<BTreeSet<_>>().len();
    ensure!(different == 2, "two clients have {different} ids");
    Ok(())
}

//= MKV-CONN-1 test
fn hmac_only(client: &Client) -> Outcome {
    client.behave(Quirk::HmacOnly);
    let mut driver = client.start()?;
    let value = client.random().bytes(100_000);
    put(&mut driver, b"key", &value)?;
    expect_value(&mut driver, b"key", &value)
}

/// A client does not use a server whose reply to Connect is wrong.
fn expect_not_taken(client: &Client, flaw: Flaw) -> Outcome {
    client.behave(flaw);
    let mut driver = client.start_hasty()?;
    refused(&mut driver, "ping", "although the reply to Connect was wrong")?;
    client.expect_unconfirmed()
}

//= MKV-CONN-8 test
fn answer_mac(client: &Client) -> Outcome {
    expect_not_taken(client, Flaw::AnswerMacWrong)
}

fn answer_under_shared_key(client: &Client) -> Outcome {
    expect_not_taken(client, Flaw::AnswerSignedWithSharedKey)
}

fn other_nonce(client: &Client) -> Outcome {
    expect_not_taken(client, Flaw::ClientNonceChanged)
}

fn mac_not_offered(client: &Client) -> Outcome {
    expect_not_taken(client, Flaw::BulkMacNotOffered)
}

fn answer_header(client: &Client) -> Outcome {
    expect_not_taken(client, Flaw::AnswerKindWrong)?;
    expect_not_taken(client, Flaw::AnswerSequenceWrong)
}

fn answer_unreadable(client: &Client) -> Outcome {
    expect_not_taken(client, Flaw::AnswerTooLong)?;
    expect_not_taken(client, Flaw::AnswerMalformed)
}

//= MKV-CONN-9 test
fn older_version(client: &Client) -> Outcome {
    client.behave(Quirk::OlderVersion);
    let mut driver = client.start_hasty()?;
    refused(&mut driver, "ping", "although the server speaks another version")?;
    let versions: BTreeSet<_> = client.hellos().iter().map(|hello| hello.version).collect();
    if versions != BTreeSet::from([VERSION]) {
        fail!("the client spoke versions {versions:?}");
    }
    Ok(())
}

//= MKV-CONN-10 test
fn later_hello(client: &Client) -> Outcome {
    let mut driver = client.start_hasty()?;
    done(&mut driver, "ping")?;
    client.behave(Flaw::HelloLater);
    // What came before the hello frame may have been the answer.
    driver.ask("ping")?;
    client.expect_closed()
}

fn silence(client: &Client) -> Outcome {
    client.behave(Flaw::ConnectIgnored);
    let mut driver = client.start_hasty()?;
    refused(&mut driver, "ping", "although the server answered nothing")?;
    client.behave_well();
    // A new process is not held up by what happened to another.
    done(&mut client.start_in("one", TIMEOUT)?, "ping").map(drop)
}
