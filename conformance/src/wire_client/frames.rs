//! Frames that a client must not act on.

use memkv_wire::checksum::BLOCK_SIZE_BYTES;

use super::Client;
use super::calls::{done, expect_value, get_request, put, refused};
use crate::case::{Case, Outcome};
use crate::reference::{Flaw, Quirk};

pub const CASES: &[Case<Client>] = &[
    Case::must("CLI-FRAME-1", &["MKV-FRAME-2"], "a frame with another magic closes the connection", magic),
    Case::must("CLI-FRAME-2", &["MKV-FRAME-5"], "a frame whose MAC does not hold closes the connection", mac),
    Case::must("CLI-FRAME-3", &["MKV-FRAME-3"], "a frame of another version closes the connection", version),
    Case::must("CLI-FRAME-4", &["MKV-FRAME-8"], "a frame of another kind closes the connection", kind),
    Case::must("CLI-FRAME-5", &["MKV-CONN-3"], "a sequence number left out closes the connection", sequence),
    Case::must("CLI-FRAME-6", &["MKV-CONN-3"], "a frame that comes again closes the connection", replay),
    Case::must("CLI-FRAME-7", &["MKV-FRAME-4"], "credits on a stream close the connection", credits),
    Case::must("CLI-FRAME-8", &["MKV-FRAME-7"], "flags that nobody knows are ignored", flags),
    Case::must("CLI-FRAME-9", &["MKV-FRAME-6"], "a payload whose tag does not hold is given to nobody", tag),
    Case::must("CLI-FRAME-10", &["MKV-FRAME-6"], "a payload that was changed is given to nobody", payload),
    Case::must("CLI-FRAME-11", &["MKV-LIM-1"], "a payload that is too long closes the connection", too_long),
    Case::must(
        "CLI-FRAME-12",
        &["MKV-LIM-1"],
        "a control message that is too long closes the connection",
        control_too_long,
    ),
    Case::must(
        "CLI-FRAME-13",
        &["MKV-MSG-6"],
        "a message that cannot be read closes the connection",
        malformed,
    ),
    Case::must("CLI-FRAME-14", &["MKV-MSG-6"], "a message out of its bounds closes the connection", bounds),
    Case::must("CLI-FRAME-15", &["WCD-DATA-1"], "a frame that is cut off is not acted on", cut),
    Case::must("CLI-FRAME-16", &["MKV-FRAME-1"], "frames may arrive in pieces of any size", in_pieces),
    Case::must(
        "CLI-FRAME-17",
        &["MKV-FRAME-5"],
        "a MAC whose last byte alone is wrong closes the connection",
        mac_end,
    ),
    Case::must(
        "CLI-FRAME-18",
        &["MKV-FRAME-6"],
        "a payload of whose tag the last byte alone is wrong is given to nobody",
        tag_end,
    ),
    Case::must(
        "CLI-FRAME-19",
        &["MKV-CONN-3"],
        "a sequence number that is right in its lower half closes the connection",
        half_a_sequence,
    ),
    Case::must("CLI-FRAME-20", &["MKV-FRAME-7"], "flags that nobody knows end no message", flags_amid),
];

/// Whatever the client is asked for, it does not act on what the server sends, and closes.
fn expect_refused(client: &Client, flaw: Flaw) -> Outcome {
    let value = client.random().bytes(3000);
    let mut driver = client.start_hasty()?;
    put(&mut driver, b"key", &value)?;
    expect_value(&mut driver, b"key", &value)?;
    client.behave(flaw);
    refused(&mut driver, &get_request(b"key"), "although every frame was wrong")?;
    // A payload's tag covers the header too: what is wrong there shows without one.
    if flaw.spoils_frames(false) {
        refused(&mut driver, "ping", "although every frame was wrong")?;
    }
    client.expect_closed()
}

//= MKV-FRAME-2 test
fn magic(client: &Client) -> Outcome {
    expect_refused(client, Flaw::ReplyMagicWrong)
}

//= MKV-FRAME-5 test
fn mac(client: &Client) -> Outcome {
    expect_refused(client, Flaw::ReplyMacWrong)
}

//= MKV-FRAME-3 test
fn version(client: &Client) -> Outcome {
    expect_refused(client, Flaw::ReplyVersionWrong)
}

//= MKV-FRAME-8 test
fn kind(client: &Client) -> Outcome {
    expect_refused(client, Flaw::ReplyKindWrong)
}

//= MKV-CONN-3 test
fn sequence(client: &Client) -> Outcome {
    expect_refused(client, Flaw::ReplySequenceSkips)
}

fn replay(client: &Client) -> Outcome {
    let mut driver = client.start_hasty()?;
    done(&mut driver, "ping")?;
    client.behave(Flaw::ReplySentTwice);
    // The first of the two is a right answer; the second is seen with the next reply at the latest.
    driver.ask("ping")?;
    client.behave_well();
    driver.ask("ping")?;
    client.expect_closed()
}

//= MKV-FRAME-4 test
fn credits(client: &Client) -> Outcome {
    expect_refused(client, Flaw::ReplyGrantsCredits)
}

//= MKV-FRAME-7 test
fn flags(client: &Client) -> Outcome {
    expect_works(client, Quirk::UnknownFlags)
}

//= MKV-FRAME-5 test
fn mac_end(client: &Client) -> Outcome {
    expect_refused(client, Flaw::ReplyMacLastByteWrong)
}

//= MKV-FRAME-6 test
fn tag_end(client: &Client) -> Outcome {
    expect_refused(client, Flaw::ReplyTagLastByteWrong)
}

//= MKV-CONN-3 test
fn half_a_sequence(client: &Client) -> Outcome {
    expect_refused(client, Flaw::ReplySequenceHigh)
}

//= MKV-FRAME-7 test
fn flags_amid(client: &Client) -> Outcome {
    client.behave(Quirk::UnknownFlags);
    let value = client.random().bytes(2 * BLOCK_SIZE_BYTES + 5);
    let mut driver = client.start()?;
    put(&mut driver, b"key", &value)?;
    expect_value(&mut driver, b"key", &value)
}

fn in_pieces(client: &Client) -> Outcome {
    expect_works(client, Quirk::InPieces)
}

fn expect_works(client: &Client, quirk: Quirk) -> Outcome {
    client.behave(quirk);
    let value = client.random().bytes(100_000);
    let mut driver = client.start()?;
    put(&mut driver, b"key", &value)?;
    expect_value(&mut driver, b"key", &value)
}

//= MKV-FRAME-6 test
fn tag(client: &Client) -> Outcome {
    expect_refused(client, Flaw::ReplyTagWrong)
}

fn payload(client: &Client) -> Outcome {
    expect_refused(client, Flaw::ReplyPayloadChanged)
}

//= MKV-LIM-1 test
fn too_long(client: &Client) -> Outcome {
    expect_refused(client, Flaw::ReplyTooLong)
}

fn control_too_long(client: &Client) -> Outcome {
    expect_refused(client, Flaw::ReplyControlTooLong)
}

//= MKV-MSG-6 test
fn malformed(client: &Client) -> Outcome {
    expect_refused(client, Flaw::ReplyMalformed)
}

fn bounds(client: &Client) -> Outcome {
    expect_refused(client, Flaw::ReplyOutOfBounds)
}

fn cut(client: &Client) -> Outcome {
    let value = client.random().bytes(3000);
    let mut driver = client.start_hasty()?;
    put(&mut driver, b"key", &value)?;
    client.behave(Flaw::ReplyCut);
    refused(&mut driver, &get_request(b"key"), "although no frame was whole")
}
