//! The driver with which the conformance suite for clients tests this one: see `conformance/wire_client.md`.
//!
//!     memkv-conformance wire-client target/debug/examples/wire_driver
#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::time::Duration;

use memkv_client::blocking::Client;
use memkv_client::{Buf, Config, Error, Published, PutItem, ReadRange, Reference, Value};
use memkv_wire::Status;
use memkv_wire::limits::PUT_MANIFEST_RETRIES_MAX;

/// The client's own buffers hold no more than this: a larger value has several parts.
const PART_SIZE_BYTES: usize = 4 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let variable = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let uri = format!("memkv://{}/{}", variable("MEMKV_ADDRESS")?, variable("MEMKV_NAMESPACE")?);
    let mut config = Config::from_env(&uri)?;
    config.timeout_ms = variable("MEMKV_TIMEOUT_MS")?.parse()?;
    let mut driver = Driver { config, client: None };
    for line in io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let answer = driver.answer(&words).unwrap_or_else(|| "unimplemented".to_owned());
        writeln!(io::stdout(), "{answer}")?;
        io::stdout().flush()?;
    }
    Ok(())
}

struct Driver {
    config: Config,
    /// From the first request on that found a server.
    client: Option<Client>,
}

/// What an answer is made of: the words after `ok`, or that there is nothing.
type Answer = Result<Option<Vec<String>>, Error>;

impl Driver {
    fn client(&mut self) -> Result<Client, Error> {
        match &self.client {
            Some(client) => Ok(client.clone()),
            None => Ok(self.client.insert(Client::connect(self.config.clone())?).clone()),
        }
    }

    /// `None` for a line that is no request this driver knows.
    fn answer(&mut self, words: &[&str]) -> Option<String> {
        let (what, rest) = words.split_first()?;
        let request = parse(what, rest)?;
        let outcome = self.client().and_then(|client| perform(&client, request));
        Some(match outcome {
            Ok(Done::Ok(words)) => words.iter().fold("ok".to_owned(), |line, word| line + " " + word),
            Ok(Done::Miss) => "miss".to_owned(),
            Ok(Done::Missing(places)) => {
                places.iter().fold("missing".to_owned(), |line, place| format!("{line} {place}"))
            }
            Ok(Done::Refused(why)) => format!("error {why}"),
            Err(error) => format!("error {}", error.to_string().replace('\n', " ")),
        })
    }
}

enum Done {
    Ok(Vec<String>),
    Miss,
    Missing(Vec<u32>),
    Refused(String),
}

enum Request {
    Ping,
    Put(Vec<u8>, Vec<u8>),
    Get(Vec<u8>, u64, u64),
    PutMany(Vec<(Vec<u8>, Vec<u8>)>),
    GetMany(Vec<Vec<u8>>),
    Exists(Vec<Vec<u8>>),
    Delete(Vec<u8>),
    PutManifest(Vec<u8>, Vec<u8>, Vec<(Vec<u8>, u64)>),
    GetManifest(Vec<u8>),
    DeleteManifest(Vec<u8>),
    List(Vec<u8>),
    Save(Vec<u8>, Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>),
}

fn parse(what: &str, rest: &[&str]) -> Option<Request> {
    Some(match (what, rest) {
        ("ping", []) => Request::Ping,
        ("put", [key, value]) => Request::Put(unhex(key)?, unhex(value)?),
        ("get", [key]) => Request::Get(unhex(key)?, 0, 0),
        ("get-range", [key, offset, length]) => {
            Request::Get(unhex(key)?, offset.parse().ok()?, length.parse().ok()?)
        }
        ("put-many", pairs) => Request::PutMany(parse_pairs(pairs)?),
        ("get-many", keys) => Request::GetMany(keys.iter().map(|key| unhex(key)).collect::<Option<_>>()?),
        ("exists", keys) => Request::Exists(keys.iter().map(|key| unhex(key)).collect::<Option<_>>()?),
        ("delete", [key]) => Request::Delete(unhex(key)?),
        ("put-manifest", [name, body, chunks @ ..]) => {
            let chunk = |word: &&str| {
                let (key, length) = word.split_once(':')?;
                Some((unhex(key)?, length.parse().ok()?))
            };
            let chunks = chunks.iter().map(chunk).collect::<Option<_>>()?;
            Request::PutManifest(unhex(name)?, unhex(body)?, chunks)
        }
        ("get-manifest", [name]) => Request::GetManifest(unhex(name)?),
        ("delete-manifest", [name]) => Request::DeleteManifest(unhex(name)?),
        ("list", [prefix]) => Request::List(unhex(prefix)?),
        ("save", [name, body, pairs @ ..]) => Request::Save(unhex(name)?, unhex(body)?, parse_pairs(pairs)?),
        _ => return None,
    })
}

fn parse_pairs(words: &[&str]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let pairs = words.chunks(2).map(|pair| match pair {
        [key, value] => Some((unhex(key)?, unhex(value)?)),
        _ => None,
    });
    pairs.collect()
}

fn perform(client: &Client, request: Request) -> Result<Done, Error> {
    let miss_or = |answer: Answer| answer.map(|words| words.map_or(Done::Miss, Done::Ok));
    let done = Done::Ok(Vec::new());
    match request {
        Request::Ping => client.ping().map(|_: Duration| done),
        Request::Put(key, value) => client.put(&key, &parts(client, &value)?).map(|()| done),
        Request::Get(key, offset, length) => {
            let read = client.get_range(ReadRange { key: &key, offset, length });
            miss_or(read.map(|value| value.map(|value| vec![hex_of(&value)])))
        }
        Request::PutMany(values) => put_many(client, &values),
        Request::GetMany(keys) => {
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let word = |result: &Result<Option<Value>, Error>| match result {
                Ok(Some(value)) => hex_of(value),
                Ok(None) => "miss".to_owned(),
                Err(_) => "error".to_owned(),
            };
            client.get_many(&keys).map(|results| Done::Ok(results.iter().map(word).collect()))
        }
        Request::Exists(keys) => {
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let lengths = client.exists(&keys)?;
            Ok(Done::Ok(lengths.iter().map(u64::to_string).collect()))
        }
        Request::Delete(key) => Ok(match client.delete(&[&key])?.first() {
            Some(Status::Ok) => done,
            Some(Status::NotFound) => Done::Miss,
            Some(status) => Done::Refused(status.name().to_owned()),
            None => Done::Refused("no status".to_owned()),
        }),
        Request::PutManifest(name, body, chunks) => publish(client, &name, &body, &chunks),
        Request::GetManifest(name) => {
            let found = client.get_manifest(&name, 0)?;
            Ok(found.map_or(Done::Miss, |found| Done::Ok(vec![hex_of(&found.body)])))
        }
        Request::DeleteManifest(name) => {
            client.delete_manifest(&name, 0).map(|there| if there { done } else { Done::Miss })
        }
        Request::List(prefix) => list(client, &prefix),
        Request::Save(name, body, values) => save(client, &name, &body, &values),
    }
}

fn put_many(client: &Client, values: &[(Vec<u8>, Vec<u8>)]) -> Result<Done, Error> {
    let all: Vec<Vec<Buf>> =
        values.iter().map(|(_, value)| parts(client, value)).collect::<Result<_, _>>()?;
    let items: Vec<PutItem<'_>> =
        values.iter().zip(&all).map(|((key, _), parts)| PutItem::new(key, parts)).collect();
    let word = |result: &Result<(), Error>| if result.is_ok() { "ok" } else { "error" }.to_owned();
    client.put_many(&items).map(|results| Done::Ok(results.iter().map(word).collect()))
}

fn publish(client: &Client, name: &[u8], body: &[u8], chunks: &[(Vec<u8>, u64)]) -> Result<Done, Error> {
    let references: Vec<Reference<'_>> =
        chunks.iter().map(|(key, length)| Reference { key, length: *length, checksum: None }).collect();
    Ok(match client.publish(name, &references, &parts(client, body)?)? {
        Published::Committed { .. } => Done::Ok(Vec::new()),
        Published::Missing { chunks, .. } => Done::Missing(chunks),
        Published::Conflict { .. } => Done::Refused("a chunk is stored with other bytes".to_owned()),
        Published::Stale { .. } => Done::Refused("a later manifest is stored".to_owned()),
    })
}

fn save(client: &Client, name: &[u8], body: &[u8], values: &[(Vec<u8>, Vec<u8>)]) -> Result<Done, Error> {
    let chunks: Vec<(Vec<u8>, u64)> =
        values.iter().map(|(key, value)| (key.clone(), value.len() as u64)).collect();
    for _ in 0..=PUT_MANIFEST_RETRIES_MAX {
        let places = match publish(client, name, body, &chunks)? {
            Done::Missing(places) => places,
            other => return Ok(other),
        };
        let missing: Vec<(Vec<u8>, Vec<u8>)> =
            places.iter().map(|place| values[*place as usize].clone()).collect();
        put_many(client, &missing)?;
    }
    Ok(Done::Refused("chunks are missing again and again".to_owned()))
}

fn list(client: &Client, prefix: &[u8]) -> Result<Done, Error> {
    let mut names: Vec<Box<[u8]>> = Vec::new();
    loop {
        let cursor = names.last().cloned().unwrap_or_default();
        let page = client.list_manifests(prefix, &cursor, 0)?;
        names.extend(page.entries.into_iter().map(|entry| entry.name));
        if !page.more {
            return Ok(Done::Ok(names.iter().map(|name| hex(name)).collect()));
        }
    }
}

/// Bytes as the client takes them.
fn parts(client: &Client, bytes: &[u8]) -> Result<Vec<Buf>, Error> {
    let part = |bytes: &[u8]| {
        let mut buffer = client.buffer(bytes.len())?;
        buffer.copy_from_slice(bytes);
        Ok(buffer.freeze())
    };
    bytes.chunks(PART_SIZE_BYTES).map(part).collect()
}

fn hex_of(value: &Value) -> String {
    hex(&value.to_vec())
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = Vec::with_capacity(bytes.len() * 2 + 1);
    for byte in bytes {
        text.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    if text.is_empty() {
        text.push(b'-');
    }
    String::from_utf8(text).unwrap_or_default()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = match text.as_bytes() {
        b"-" => return Some(Vec::new()),
        digits if digits.is_empty() || digits.len() % 2 != 0 => return None,
        digits => digits,
    };
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    for pair in digits.chunks_exact(2) {
        bytes.push(value(pair[0])? << 4 | value(pair[1])?);
    }
    Some(bytes)
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}
