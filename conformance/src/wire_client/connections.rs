//! Requests and replies on connections that come and go, and replies that mean nothing good.

use memkv_wire::Operation;

use super::Client;
use super::calls::{
    done, expect_value, get_request, keys_request, put, put_request, refused, values_request,
};
use super::driver::{Answer, unhex};
use crate::case::{Case, Outcome};
use crate::reference::{Event, Flaw, Quirk};
use crate::{ensure, fail};

pub const CASES: &[Case<Client>] = &[
    Case::must(
        "CLI-MSG-1",
        &["MKV-MSG-1", "MKV-MSG-2"],
        "replies come in any order, and interleaved",
        any_order,
    ),
    Case::must("CLI-MSG-2", &["MKV-LIM-2"], "no more requests are open than the server takes", one_request),
    Case::must("CLI-MSG-3", &["WCD-REPLY-1"], "a reply to no request is no answer", unknown_request),
    Case::must("CLI-MSG-4", &["MKV-MSG-7"], "a reply of another operation is no answer", other_operation),
    Case::must("CLI-MSG-5", &["WCD-TIME-1"], "a reply that never comes is given up", never),
    Case::must("CLI-MSG-6", &["WCD-TIME-1"], "a reply that never ends is given up", never_ends),
    Case::must(
        "CLI-STAT-1",
        &["MKV-STAT-1"],
        "a status that nobody knows is a failure, and is not tried again",
        unknown_status,
    ),
    Case::must("CLI-STAT-2", &["WCD-DATA-2"], "what is refused is not told as done", invalid),
    Case::should("CLI-STAT-3", &["WCD-RETRY-2"], "a busy server is tried again", busy),
    Case::should("CLI-RETRY-1", &["WCD-RETRY-1"], "a connection that was closed is made anew", closed),
    Case::should("CLI-RETRY-2", &["WCD-RETRY-1"], "a request whose connection is lost is sent again", lost),
    Case::should(
        "CLI-RETRY-3",
        &["WCD-RETRY-1"],
        "a client that closed a connection makes a new one",
        recovered,
    ),
];

/// Several values that a client may ask for at once.
fn several(client: &Client, driver: &mut super::Driver) -> Outcome<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut random = client.random();
    let values: Vec<(Vec<u8>, Vec<u8>)> = (0..600_u32)
        .map(|number| (number.to_be_bytes().to_vec(), random.bytes(100 + number as usize)))
        .collect();
    let words = done(driver, &values_request("put-many", &values))?;
    ensure!(words.len() == values.len(), "put-many of {} values gave {} words", values.len(), words.len());
    ensure!(words.iter().all(|word| word == "ok"), "put-many did not store every value");
    Ok(values)
}

fn expect_several(driver: &mut super::Driver, values: &[(Vec<u8>, Vec<u8>)]) -> Outcome {
    let keys: Vec<Vec<u8>> = values.iter().map(|(key, _)| key.clone()).collect();
    let words = done(driver, &keys_request("get-many", &keys))?;
    ensure!(words.len() == values.len(), "get-many of {} keys gave {} words", keys.len(), words.len());
    for (word, (_, value)) in words.iter().zip(values) {
        ensure!(unhex(word).as_ref() == Some(value), "get-many gave another value than was stored");
    }
    Ok(())
}

//= MKV-MSG-2 test
fn any_order(client: &Client) -> Outcome {
    let mut driver = client.start()?;
    let values = several(client, &mut driver)?;
    client.behave(Quirk::LastFirst);
    expect_several(&mut driver, &values)
}

//= MKV-LIM-2 test
fn one_request(client: &Client) -> Outcome {
    client.behave(Quirk::OneRequest);
    let mut driver = client.start()?;
    let values = several(client, &mut driver)?;
    expect_several(&mut driver, &values)
}

fn unknown_request(client: &Client) -> Outcome {
    expect_no_answer(client, Flaw::ReplyIdWrong, "although nothing was a reply to it")
}

//= MKV-MSG-7 test
fn other_operation(client: &Client) -> Outcome {
    expect_no_answer(client, Flaw::ReplyArmWrong, "although the reply was of another operation")
}

fn never(client: &Client) -> Outcome {
    expect_no_answer(client, Flaw::NeverReplies, "although there was no reply")
}

fn never_ends(client: &Client) -> Outcome {
    expect_no_answer(client, Flaw::ReplyNeverEnds, "although the reply never ended")
}

fn expect_no_answer(client: &Client, flaw: Flaw, why: &str) -> Outcome {
    let mut driver = client.start_hasty()?;
    put(&mut driver, b"key", b"value")?;
    client.behave(flaw);
    refused(&mut driver, &get_request(b"key"), why)?;
    refused(&mut driver, &put_request(b"other", b"value"), why)
}

//= MKV-STAT-1 test
fn unknown_status(client: &Client) -> Outcome {
    let mut driver = client.start_hasty()?;
    put(&mut driver, b"key", b"value")?;
    let before = requests(client);
    client.behave(Flaw::StatusOfLaterVersion);
    for request in [put_request(b"other", b"value"), get_request(b"key")] {
        refused(&mut driver, &request, "although its status is not known")?;
    }
    let asked = requests(client) - before;
    ensure!(asked <= 2, "two requests that failed for good were sent {asked} times");
    Ok(())
}

/// Whole requests so far, but for pings: a client may look whether its server is there.
fn requests(client: &Client) -> usize {
    let counts = |event: &&Event| matches!(event, Event::Request { operation, .. } if *operation != Some(Operation::Ping));
    client.events().iter().filter(counts).count()
}

fn invalid(client: &Client) -> Outcome {
    let mut driver = client.start_hasty()?;
    done(&mut driver, "ping")?;
    client.behave(Quirk::AlwaysInvalid);
    let why = "although the server refused it";
    for request in ["put 01 02", "get 01", "put-manifest 01 02", "delete-manifest 01", "get-manifest 01"] {
        match driver.ask(request)? {
            Answer::Error(_) => {}
            other => fail!("{request} was answered with {other:?}, {why}"),
        }
    }
    Ok(())
}

fn busy(client: &Client) -> Outcome {
    client.behave(Quirk::BusyOnce);
    let mut driver = client.start()?;
    put(&mut driver, b"key", b"value")?;
    expect_value(&mut driver, b"key", b"value")
}

fn closed(client: &Client) -> Outcome {
    client.behave(Quirk::ClosesAfterAnswer);
    let mut driver = client.start()?;
    put(&mut driver, b"key", b"value")?;
    for _ in 0..3 {
        expect_value(&mut driver, b"key", b"value")?;
    }
    Ok(())
}

fn lost(client: &Client) -> Outcome {
    let mut driver = client.start()?;
    done(&mut driver, "ping")?;
    client.behave(Quirk::ClosesOnceUnanswered);
    put(&mut driver, b"key", b"value")?;
    client.behave(Quirk::ClosesOnceUnanswered);
    expect_value(&mut driver, b"key", b"value")
}

fn recovered(client: &Client) -> Outcome {
    let mut driver = client.start_hasty()?;
    put(&mut driver, b"key", b"value")?;
    for flaw in [Flaw::ReplyMacWrong, Flaw::ReplyCut, Flaw::ReplyIdWrong, Flaw::AnswerMacWrong] {
        client.behave(flaw);
        driver.ask(&get_request(b"key"))?;
        client.behave_well();
        expect_value(&mut driver, b"key", b"value")?;
    }
    Ok(())
}
