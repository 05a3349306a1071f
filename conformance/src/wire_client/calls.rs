//! Requests as cases make them, each checking what may be answered.

use super::driver::{Answer, Driver, hex, unhex};
use crate::case::Outcome;
use crate::{ensure, fail};

/// Does something that has to work, and gives what came with it.
pub fn done(driver: &mut Driver, request: &str) -> Outcome<Vec<String>> {
    match driver.ask(request)? {
        Answer::Ok(words) => Ok(words),
        other => {
            let what = request.split(' ').next().unwrap_or_default();
            fail!("{what} was answered with {other:?} by a client whose server does nothing wrong")
        }
    }
}

/// Does something that cannot be done: anything but `ok` will do.
pub fn refused(driver: &mut Driver, request: &str, why: &str) -> Outcome {
    match driver.ask(request)? {
        Answer::Ok(_) => {
            let what = request.split(' ').next().unwrap_or_default();
            fail!("{what} was answered with ok, {why}")
        }
        Answer::Miss | Answer::Missing(_) | Answer::Error(_) => Ok(()),
    }
}

pub fn put(driver: &mut Driver, key: &[u8], value: &[u8]) -> Outcome {
    done(driver, &put_request(key, value)).map(drop)
}

pub fn put_request(key: &[u8], value: &[u8]) -> String {
    format!("put {} {}", hex(key), hex(value))
}

pub fn get_request(key: &[u8]) -> String {
    format!("get {}", hex(key))
}

/// Expects a value to be read as it was stored.
pub fn expect_value(driver: &mut Driver, key: &[u8], value: &[u8]) -> Outcome {
    expect_bytes(&done(driver, &get_request(key))?, value, "get")
}

/// Expects one word that stands for these bytes.
pub fn expect_bytes(words: &[String], bytes: &[u8], what: &str) -> Outcome {
    let [word] = words else { fail!("{what} gave {} words instead of one", words.len()) };
    match unhex(word) {
        Some(found) => ensure!(
            found == bytes,
            "{what} gave {} bytes, and not the {} that were stored",
            found.len(),
            bytes.len()
        ),
        None => fail!("{what} gave a word that is no bytes"),
    }
    Ok(())
}

/// Expects that a read gives the stored bytes or none.
pub fn expect_value_or_none(driver: &mut Driver, request: &str, value: &[u8]) -> Outcome {
    match driver.ask(request)? {
        Answer::Ok(words) => expect_bytes(&words, value, request.split(' ').next().unwrap_or_default()),
        Answer::Miss | Answer::Missing(_) | Answer::Error(_) => Ok(()),
    }
}

pub fn expect_miss(driver: &mut Driver, request: &str) -> Outcome {
    let answer = driver.ask(request)?;
    let what = request.split(' ').next().unwrap_or_default();
    ensure!(answer == Answer::Miss, "{what} of what is not stored was answered with {answer:?}");
    Ok(())
}

/// `put-manifest` with these chunks.
pub fn manifest_request(name: &[u8], body: &[u8], chunks: &[(&[u8], usize)]) -> String {
    let chunks: String = chunks.iter().map(|(key, length)| format!(" {}:{length}", hex(key))).collect();
    format!("put-manifest {} {}{chunks}", hex(name), hex(body))
}

/// A request with one word for each key.
pub fn keys_request(what: &str, keys: &[Vec<u8>]) -> String {
    let keys: String = keys.iter().map(|key| format!(" {}", hex(key))).collect();
    format!("{what}{keys}")
}

/// A request with two words for each value.
pub fn values_request(what: &str, values: &[(Vec<u8>, Vec<u8>)]) -> String {
    let pairs: String = values.iter().map(|(key, value)| format!(" {} {}", hex(key), hex(value))).collect();
    format!("{what}{pairs}")
}
