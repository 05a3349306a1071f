//! Values: written, read, and never handed out when they are not what was stored.

use memkv_wire::Operation;
use memkv_wire::checksum::BLOCK_SIZE_BYTES;

use super::calls::{
    done, expect_bytes, expect_miss, expect_value, expect_value_or_none, get_request, keys_request, put,
    put_request, refused, values_request,
};
use super::driver::{Answer, hex, unhex};
use super::{Client, TIMEOUT};
use crate::case::{Case, Outcome};
use crate::reference::{Event, Flaw, Quirk};
use crate::{ensure, fail, skip};

pub const CASES: &[Case<Client>] = &[
    Case::must(
        "CLI-VAL-1",
        &["MKV-VAL-1", "MKV-VAL-2", "MKV-WR-1", "WCD-NAME-1"],
        "values of every length come back as they were",
        lengths,
    ),
    Case::must(
        "CLI-VAL-2",
        &["WCD-NAME-1"],
        "keys of 1 to 512 bytes are used, longer ones are not sent",
        keys,
    ),
    Case::must("CLI-VAL-3", &["WCD-DATA-2"], "other bytes under a key are refused", conflict),
    Case::must("CLI-VAL-4", &["MKV-DEL-1"], "what is deleted is gone, what is missing is a miss", delete),
    Case::must("CLI-VAL-5", &["MKV-EX-1"], "exists tells lengths, in order", exists),
    Case::must("CLI-NS-1", &["WCD-NAME-1"], "a client works in the namespace it was told", namespaces),
    Case::must(
        "CLI-RD-1",
        &["MKV-VAL-3"],
        "a piece whose checksum does not hold is not handed out",
        checksum,
    ),
    Case::must(
        "CLI-RD-2",
        &["WCD-DATA-1"],
        "a value whose checksum does not hold is not handed out",
        other_bytes,
    ),
    Case::must(
        "CLI-RD-3",
        &["WCD-DATA-1", "MKV-RD-1"],
        "a value that lacks bytes is not handed out",
        too_short,
    ),
    Case::must("CLI-RD-4", &["WCD-DATA-1", "MKV-RD-1"], "pieces that overlap are not handed out", overlaps),
    Case::must("CLI-RD-5", &["MKV-RD-1"], "the pieces of a read come in any order", reversed),
    Case::must(
        "CLI-RD-6",
        &["MKV-MSG-4"],
        "a read that fails in a later frame is not handed out",
        fails_late,
    ),
    Case::must("CLI-RD-7", &["MKV-RD-3"], "ranges are cut where the value ends", ranges),
    Case::must(
        "CLI-RD-8",
        &["MKV-VAL-3"],
        "a piece of a range whose checksum does not hold is not handed out",
        range_checksum,
    ),
    Case::must("CLI-RD-9", &["MKV-VAL-2", "MKV-RD-1"], "a frame may carry several pieces", together),
    Case::must(
        "CLI-RD-10",
        &["WCD-DATA-1", "MKV-RD-1"],
        "a read that is answered without a piece gives nothing",
        no_piece,
    ),
    Case::must(
        "CLI-VAL-6",
        &["MKV-EX-1"],
        "exists does not make up lengths that were not answered",
        exists_too_few,
    ),
    Case::must(
        "CLI-BATCH-1",
        &["MKV-BATCH-1", "MKV-BATCH-3", "MKV-BATCH-4"],
        "each item of a batch has its own result",
        batches,
    ),
    Case::must("CLI-BATCH-2", &["WCD-DATA-2"], "an item that is not answered is not told as done", too_few),
    Case::must(
        "CLI-BATCH-3",
        &["WCD-DATA-2"],
        "a batch with a result for an item that was not in it is not told as done",
        beyond,
    ),
];

fn lengths(client: &Client) -> Outcome {
    let (mut driver, mut random) = (client.start()?, client.random());
    let block = BLOCK_SIZE_BYTES;
    for length in [1, 2, 4095, 65_536, block, block + 1, 2 * block + 5] {
        let (key, value) = (length.to_be_bytes(), random.bytes(length));
        put(&mut driver, &key, &value)?;
        expect_value(&mut driver, &key, &value)?;
        // Again: it is there already.
        put(&mut driver, &key, &value)?;
    }
    Ok(())
}

fn keys(client: &Client) -> Outcome {
    let mut driver = client.start()?;
    let every: Vec<u8> = (0..=255).collect();
    let [mut long, mut longest] = [vec![7; 511], vec![7; 512]];
    let keys = [&[0][..], &[255], b"a b\n", &every, &long, &longest];
    for key in keys {
        put(&mut driver, key, key)?;
    }
    for key in keys {
        expect_value(&mut driver, key, key)?;
    }
    for key in [&mut long, &mut longest] {
        key.reverse();
        key[0] = 8;
        expect_miss(&mut driver, &get_request(key))?;
    }
    refused(&mut driver, &put_request(&[7; 513], b"value"), "although the key is too long")?;
    refused(&mut driver, &put_request(b"", b"value"), "although the key is empty")?;
    refused(&mut driver, &put_request(b"key", b""), "although the value is empty")?;
    done(&mut driver, "ping").map(drop)
}

fn conflict(client: &Client) -> Outcome {
    let mut driver = client.start()?;
    put(&mut driver, b"key", b"value")?;
    refused(&mut driver, &put_request(b"key", b"other"), "although other bytes are stored")?;
    expect_value(&mut driver, b"key", b"value")
}

fn delete(client: &Client) -> Outcome {
    let mut driver = client.start()?;
    put(&mut driver, b"key", b"value")?;
    done(&mut driver, &format!("delete {}", hex(b"key")))?;
    expect_miss(&mut driver, &get_request(b"key"))?;
    expect_miss(&mut driver, &format!("delete {}", hex(b"key")))?;
    expect_miss(&mut driver, &get_request(b"never"))
}

fn exists(client: &Client) -> Outcome {
    let mut driver = client.start()?;
    put(&mut driver, b"one", b"1")?;
    put(&mut driver, b"three", b"333")?;
    let keys = [&b"three"[..], b"none", b"one"].map(<[u8]>::to_vec);
    let words = done(&mut driver, &keys_request("exists", &keys))?;
    ensure!(words == ["3", "0", "1"], "exists gave {words:?} instead of 3, 0 and 1");
    Ok(())
}

fn namespaces(client: &Client) -> Outcome {
    let (mut one, mut two) = (client.start_in("one", TIMEOUT)?, client.start_in("two", TIMEOUT)?);
    put(&mut one, b"key", b"of one")?;
    expect_miss(&mut two, &get_request(b"key"))?;
    put(&mut two, b"key", b"of two")?;
    expect_value(&mut one, b"key", b"of one")
}

/// A server that is wrong about what it reads does not make the client hand out anything else than was stored.
fn expect_true(client: &Client, flaw: Flaw) -> Outcome {
    let mut random = client.random();
    let mut driver = client.start_hasty()?;
    for (key, length) in [(b"small", 3000), (b"large", BLOCK_SIZE_BYTES + 9)] {
        let value = random.bytes(length);
        client.behave_well();
        put(&mut driver, key, &value)?;
        expect_value(&mut driver, key, &value)?;
        client.behave(flaw);
        expect_value_or_none(&mut driver, &get_request(key), &value)?;
    }
    Ok(())
}

//= MKV-VAL-3 test
fn checksum(client: &Client) -> Outcome {
    expect_true(client, Flaw::ReadChecksumWrong)
}

fn other_bytes(client: &Client) -> Outcome {
    expect_true(client, Flaw::ReadOtherBytes)
}

fn too_short(client: &Client) -> Outcome {
    expect_true(client, Flaw::ReadTooShort)
}

fn overlaps(client: &Client) -> Outcome {
    expect_true(client, Flaw::ReadOverlaps)
}

//= MKV-RD-1 test
fn reversed(client: &Client) -> Outcome {
    client.behave(Quirk::PiecesReversed);
    let value = client.random().bytes(2 * BLOCK_SIZE_BYTES + 77);
    let mut driver = client.start()?;
    put(&mut driver, b"key", &value)?;
    expect_value(&mut driver, b"key", &value)
}

//= MKV-MSG-4 test
fn fails_late(client: &Client) -> Outcome {
    let value = client.random().bytes(BLOCK_SIZE_BYTES + 1);
    let mut driver = client.start_hasty()?;
    put(&mut driver, b"key", &value)?;
    client.behave(Quirk::ReadFailsLate);
    expect_value_or_none(&mut driver, &get_request(b"key"), &value)
}

//= MKV-RD-3 test
fn ranges(client: &Client) -> Outcome {
    let value = client.random().bytes(BLOCK_SIZE_BYTES + 1000);
    let mut driver = client.start()?;
    put(&mut driver, b"key", &value)?;
    let end = value.len();
    for (offset, length, expected) in [
        (0, 10, 0..10),
        (5, 1, 5..6),
        (BLOCK_SIZE_BYTES - 3, 6, BLOCK_SIZE_BYTES - 3..BLOCK_SIZE_BYTES + 3),
        (BLOCK_SIZE_BYTES, 0, BLOCK_SIZE_BYTES..end),
        (end - 1, 1000, end - 1..end),
    ] {
        let words = done(&mut driver, &format!("get-range {} {offset} {length}", hex(b"key")))?;
        expect_bytes(&words, &value[expected], "get-range")?;
    }
    refused(&mut driver, &format!("get-range {} {end} 1", hex(b"key")), "although the value ends before")?;
    expect_miss(&mut driver, &format!("get-range {} 0 1", hex(b"none")))
}

//= MKV-VAL-3 test
fn range_checksum(client: &Client) -> Outcome {
    let value = client.random().bytes(BLOCK_SIZE_BYTES + 1000);
    let mut driver = client.start_hasty()?;
    put(&mut driver, b"key", &value)?;
    client.behave(Flaw::ReadChecksumWrong);
    for (offset, length) in [(0, 100), (77, 100), (BLOCK_SIZE_BYTES - 5, 10), (BLOCK_SIZE_BYTES, 1000)] {
        let request = format!("get-range {} {offset} {length}", hex(b"key"));
        expect_value_or_none(&mut driver, &request, &value[offset..offset + length])?;
    }
    Ok(())
}

//= MKV-VAL-2 test
fn together(client: &Client) -> Outcome {
    client.behave(Quirk::PiecesTogether);
    let value = client.random().bytes(BLOCK_SIZE_BYTES + 7000);
    let mut driver = client.start()?;
    put(&mut driver, b"key", &value)?;
    for (offset, length) in [(BLOCK_SIZE_BYTES - 3, 6), (BLOCK_SIZE_BYTES - 5000, 12_000)] {
        let words = done(&mut driver, &format!("get-range {} {offset} {length}", hex(b"key")))?;
        expect_bytes(&words, &value[offset..offset + length], "get-range")?;
    }
    expect_value(&mut driver, b"key", &value)
}

fn no_piece(client: &Client) -> Outcome {
    expect_true(client, Flaw::ReadEmpty)
}

//= MKV-EX-1 test
fn exists_too_few(client: &Client) -> Outcome {
    let mut driver = client.start_hasty()?;
    put(&mut driver, b"one", b"1")?;
    put(&mut driver, b"three", b"333")?;
    client.behave(Flaw::ExistsTooFew);
    let keys = [&b"three"[..], b"one"].map(<[u8]>::to_vec);
    if let Answer::Ok(words) = driver.ask(&keys_request("exists", &keys))? {
        // A client that asks key by key is answered nothing at all.
        fail!("one of two lengths was not answered, and exists gave {words:?}");
    }
    Ok(())
}

//= MKV-BATCH-1 test
fn batches(client: &Client) -> Outcome {
    let (mut driver, mut random) = (client.start()?, client.random());
    put(&mut driver, b"taken", b"by other bytes")?;
    let mut values: Vec<(Vec<u8>, Vec<u8>)> =
        (1..40_u8).map(|number| (vec![number], random.bytes(usize::from(number) * 997))).collect();
    values.push((b"long".to_vec(), random.bytes(BLOCK_SIZE_BYTES + 1)));
    values.insert(7, (b"taken".to_vec(), b"value".to_vec()));
    let words = done(&mut driver, &values_request("put-many", &values))?;
    ensure!(words.len() == values.len(), "put-many of {} values gave {} words", values.len(), words.len());
    for (place, word) in words.iter().enumerate() {
        let expected = if place == 7 { "error" } else { "ok" };
        ensure!(word == expected, "item {place} of put-many is {word} instead of {expected}");
    }
    let keys: Vec<Vec<u8>> =
        [b"none".to_vec()].into_iter().chain(values.iter().map(|v| v.0.clone())).collect();
    let words = done(&mut driver, &keys_request("get-many", &keys))?;
    ensure!(words.len() == keys.len(), "get-many of {} keys gave {} words", keys.len(), words.len());
    ensure!(words[0] == "miss", "get-many does not tell what is missing");
    for (place, (word, (_, value))) in words[1..].iter().zip(&values).enumerate() {
        let expected = if place == 7 { b"by other bytes" } else { value.as_slice() };
        ensure!(unhex(word).as_deref() == Some(expected), "item {place} of get-many is another value");
    }
    Ok(())
}

/// What a batch answers for every item is in doubt, so none may be told as done that the server did not answer.
fn too_few(client: &Client) -> Outcome {
    client.behave(Flaw::BatchAnswersTooFew);
    expect_last_refused(client)
}

fn beyond(client: &Client) -> Outcome {
    client.behave(Flaw::BatchIndexBeyond);
    expect_last_refused(client)
}

fn expect_last_refused(client: &Client) -> Outcome {
    let mut driver = client.start_hasty()?;
    let values: Vec<(Vec<u8>, Vec<u8>)> = (1..5_u8).map(|number| (vec![number], vec![number; 100])).collect();
    let answer = driver.ask(&values_request("put-many", &values))?;
    let batch =
        |event: &Event| matches!(event, Event::Request { operation: Some(Operation::BatchWrite), .. });
    if !client.events().iter().any(batch) {
        skip!("the client does not write in batches");
    }
    if let Answer::Ok(words) = answer {
        let last = words.last().map(String::as_str);
        ensure!(last != Some("ok"), "put-many tells an item as done that the server did not answer");
    }
    Ok(())
}
