//! Group commit: durable manifests a second, of one saver and of sixteen.
//!
//! A save is a new chunk of 4 KiB and a manifest that names it; a saver begins its next one when the manifest is durable.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use memkv_server::store::*;

use super::driver::{CLIENT, Driver, Ended, blocks_of, noise};
use super::throughput;
use crate::report::{Goal, Line};

const SAVERS: usize = 16;
const CHUNK_BYTES: usize = 4096;

pub fn measure(dir: &Path, rounds: usize, saves: u64) -> Result<Vec<Line>> {
    let place = dir.join("commit");
    let driver = throughput::file(&place, 1 << 30)?;
    let mut label = 0;
    let mut rate = |savers: usize, count: u64| {
        label += 1;
        save(&driver, label, savers, count)
    };
    // The first writes of a file pay for its blocks.
    rate(SAVERS, saves)?;
    let mut pairs = Vec::new();
    for _ in 0..rounds {
        let one = rate(1, saves / 4)?;
        pairs.push((rate(SAVERS, saves * 4)?, one));
    }
    drop(driver);
    std::fs::remove_dir_all(place)?;
    let what = format!("group commit, {SAVERS} savers");
    Ok(vec![Line::ratio(what, &pairs, "manifests/s", "one saver", Some(Goal::AtLeast(6.0)))])
}

/// Durable manifests a second.
fn save(driver: &Driver, label: u64, savers: usize, count: u64) -> Result<f64> {
    let value = noise(CHUNK_BYTES, label)?;
    let key = |n: u64| [label.to_le_bytes(), n.to_le_bytes()].concat();
    let chunk = |n| driver.put(&key(n), blocks_of(&value));
    let manifest = |n: u64, saver: usize| {
        let key = key(n);
        let chunks = [ChunkRef { key: &key, length: CHUNK_BYTES as u64, checksum: None }];
        let name = format!("saver-{saver}");
        driver.begin(|store, now_ms, ticket| {
            let put = PutManifest {
                namespace: b"",
                name: name.as_bytes(),
                generation: None,
                role: Role::Both,
                chunks: &chunks,
                body: blocks_of(&value),
                lease_ms: 0,
            };
            store.put_manifest(now_ms, CLIENT, ticket, put);
        })
    };
    let start = Instant::now();
    let mut under_way = HashMap::new();
    let mut next = 0;
    for saver in 0..savers {
        under_way.insert(chunk(next), (saver, next));
        next += 1;
    }
    let mut ended = Vec::new();
    let mut saved = 0;
    while saved < count {
        driver.wait(&mut ended);
        for end in ended.drain(..) {
            let Ended::Request(ticket, result) = end else { bail!("nothing is read here") };
            let Some((saver, n)) = under_way.remove(&ticket) else { bail!("a ticket ends once") };
            let ticket = match result? {
                Outcome::Stored { .. } => (manifest(n, saver), n),
                Outcome::ManifestStored { .. } => {
                    saved += 1;
                    next += 1;
                    (chunk(next), next)
                }
                other => bail!("{other:?} is no way for a save to end"),
            };
            under_way.insert(ticket.0, (saver, ticket.1));
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    while !under_way.is_empty() {
        driver.wait(&mut ended);
        for end in ended.drain(..) {
            if let Ended::Request(ticket, _) = end {
                under_way.remove(&ticket);
            }
        }
    }
    Ok(saved as f64 / seconds)
}
