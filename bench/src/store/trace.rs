//! A production trace of block hashes: each request reads its blocks and puts those that missed. Beside the store, a plain LRU
//! of whole values with the same room.
//!
//! All values share their bytes, so the device keeps them once: what would be tens of gigabytes fits memory. Everything else
//! (headers, the journal, what is moved) is kept as it is written.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::IoSlice;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use memkv_server::io::Device;
use memkv_server::store::*;
use memkv_transport::buf::Buf;
use serde::Deserialize;

use super::driver::{Driver, blocks_of, noise};
use crate::report::{Goal, Line, Peer};

#[derive(Deserialize)]
struct Request {
    hash_ids: Vec<u64>,
}

pub fn measure(file: &Path) -> Result<Vec<Line>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let requests: Vec<Request> = text
        .lines()
        .enumerate()
        .map(|(n, line)| serde_json::from_str(line).with_context(|| format!("line {}", n + 1)))
        .collect::<Result<_>>()?;
    let mut lines = Vec::new();
    for (name, value_bytes, points, amplification) in
        [("64 KiB", 64 << 10, 1.5, 1.3), ("1 MiB", 1 << 20, 1.0, 1.05)]
    {
        for percent in [10, 30] {
            let played = play(&requests, value_bytes, percent)?;
            lines.push(Line {
                what: format!("trace, {name} values, room for {percent} %: hit rate, points below LRU"),
                ours: played.hit_rate,
                peer: Some(Peer { name: "LRU", value: played.lru_hit_rate }),
                unit: "%",
                figure: played.lru_hit_rate - played.hit_rate,
                goal: Some(Goal::AtMost(points)),
            });
            lines.push(Line::plain(
                format!("trace, {name} values, room for {percent} %: write amplification"),
                played.amplification,
                "",
                Some(Goal::AtMost(amplification)),
            ));
        }
    }
    Ok(lines)
}

struct Played {
    hit_rate: f64,
    lru_hit_rate: f64,
    /// Bytes written to the device, journal and headers included, for each byte of a value that was put.
    amplification: f64,
}

fn play(requests: &[Request], value_bytes: usize, percent: u64) -> Result<Played> {
    let unique: HashSet<u64> = requests.iter().flat_map(|request| &request.hash_ids).copied().collect();
    // Headers, and what the store keeps back, are its own cost: they are inside the room.
    let room = unique.len() as u64 * value_bytes as u64 * percent / 100;
    let value = noise(value_bytes, 1)?;
    let device = SharedBytes::new(value.clone(), (room + (1 << 20)).next_multiple_of(1 << 20));
    let config = Config { lease_ms_default: 1, ..Config::default() };
    let driver = Driver::format(vec![Arc::new(device)], config)?;
    let blocks = blocks_of(&value);
    let mut lru = Lru { room: (room / value_bytes as u64) as usize, ..Lru::default() };
    let (mut asked, mut hits, mut lru_hits, mut put) = (0u64, 0u64, 0u64, 0u64);
    for (n, request) in requests.iter().enumerate() {
        let now_ms = n as u64 * 10;
        for hash in &request.hash_ids {
            asked += 1;
            lru_hits += u64::from(lru.touch(*hash));
            let key = hash.to_le_bytes();
            let hit = driver.with(|store, _| store.exists(now_ms, Key::new(b"", &key)).is_some());
            hits += u64::from(hit);
            if !hit {
                put += value_bytes as u64;
                driver.run(|store, _, ticket| {
                    let client = ClientId(n as u64);
                    store.put(now_ms, client, ticket, Key::new(b"", &key), blocks.clone());
                })?;
            }
        }
    }
    let counters = driver.with(|store, _| store.counters());
    ensure!(counters.out_of_space == 0, "a put found no room");
    let written = counters.device_bytes_written + counters.journal_bytes_written;
    let rate = |hits: u64| 100.0 * hits as f64 / asked as f64;
    Ok(Played {
        hit_rate: rate(hits),
        lru_hit_rate: rate(lru_hits),
        amplification: written as f64 / put as f64,
    })
}

/// Sectors by number; those that hold a stretch of the shared value hold only its place.
struct SharedBytes {
    value: Buf,
    /// Sectors of the value by their first word: it is noise.
    places: HashMap<[u8; 8], u32>,
    capacity_bytes: u64,
    sectors: Mutex<HashMap<u64, Sector>>,
}

enum Sector {
    Of(u32),
    Own(Box<[u8]>),
}

impl SharedBytes {
    fn new(value: Buf, capacity_bytes: u64) -> SharedBytes {
        let places = (0..value.len()).step_by(SECTOR_BYTES).filter_map(|at| {
            let first = value.get(at..)?.first_chunk()?;
            Some((*first, at as u32))
        });
        SharedBytes { places: places.collect(), value, capacity_bytes, sectors: Mutex::default() }
    }
}

impl Device for SharedBytes {
    fn geometry(&self) -> Result<Geometry, IoError> {
        Ok(Geometry { capacity_bytes: self.capacity_bytes, persistent: true, discard: false })
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        let sectors = self.sectors.lock().unwrap_or_else(PoisonError::into_inner);
        for (n, sector) in (offset / SECTOR_BYTES as u64..).zip(into.chunks_mut(SECTOR_BYTES)) {
            match sectors.get(&n) {
                Some(Sector::Of(at)) => sector.copy_from_slice(&self.value[*at as usize..][..SECTOR_BYTES]),
                Some(Sector::Own(bytes)) => sector.copy_from_slice(bytes),
                None => sector.fill(0),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        let mut sectors = self.sectors.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut at, mut own) = (offset / SECTOR_BYTES as u64, Vec::new());
        for slice in slices {
            let mut rest: &[u8] = slice;
            while !rest.is_empty() {
                // Moved values come from a buffer of their own: only the contents tell.
                let whole = own.is_empty() && rest.len() >= SECTOR_BYTES;
                if whole && let Some(place) = self.place_of(&rest[..SECTOR_BYTES]) {
                    sectors.insert(at, Sector::Of(place));
                    rest = &rest[SECTOR_BYTES..];
                    at += 1;
                    continue;
                }
                let (part, after) = rest.split_at(rest.len().min(SECTOR_BYTES - own.len()));
                own.extend_from_slice(part);
                rest = after;
                if own.len() == SECTOR_BYTES {
                    sectors.insert(at, Sector::Own(std::mem::take(&mut own).into()));
                    at += 1;
                }
            }
        }
        if own.is_empty() { Ok(()) } else { Err(IoError::OutOfRange) }
    }

    fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }

    fn discard(&self, _ranges: &[(u64, u64)]) -> Result<(), IoError> {
        Ok(())
    }
}

impl SharedBytes {
    /// Where in the shared value this sector's bytes are.
    fn place_of(&self, sector: &[u8]) -> Option<u32> {
        let at = *self.places.get(sector.first_chunk::<8>()?)?;
        (self.value.get(at as usize..at as usize + SECTOR_BYTES)? == sector).then_some(at)
    }
}

#[derive(Default)]
struct Lru {
    room: usize,
    clock: u64,
    used: HashMap<u64, u64>,
    order: BTreeMap<u64, u64>,
}

impl Lru {
    /// Whether it was there; now it is, as the last used.
    fn touch(&mut self, key: u64) -> bool {
        self.clock += 1;
        let before = self.used.insert(key, self.clock);
        if let Some(before) = before {
            self.order.remove(&before);
        }
        self.order.insert(self.clock, key);
        if self.used.len() > self.room
            && let Some((_, coldest)) = self.order.pop_first()
        {
            self.used.remove(&coldest);
        }
        before.is_some()
    }
}
