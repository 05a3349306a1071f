//! Bulk rates of the store, beside fio's on a file of the same file system, with the same size and depth.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use memkv_server::io::{Device, Mode, UringDevice, open_directory};
use memkv_server::store::*;
use memkv_transport::buf::{BufMut, BufPool};

use super::driver::{Driver, Ended, Work, blocks_of, noise};
use super::{files, fio, hybrid};
use crate::report::{Goal, Line};

/// Values under way, as fio has blocks.
const DEPTH: usize = 8;
/// Values that are prepared for their turn, or wait to be verified, besides.
const AHEAD: u64 = 3 * DEPTH as u64;

/// A file whose blocks are all there: a sparse one would measure the file system's allocation.
pub fn preallocate(path: &Path, bytes: u64) -> Result<()> {
    let noise = noise(1 << 20, 3)?;
    let mut file = std::fs::File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    for _ in 0..bytes >> 20 {
        std::io::Write::write_all(&mut file, &noise)?;
    }
    file.sync_all()?;
    Ok(())
}

/// Capacity for values of so many bytes in all, and what the store keeps back.
pub fn room_for(total: u64) -> u64 {
    (total + total / 4 + (256 << 20)).next_multiple_of(1 << 20)
}

/// Seconds that it takes to write so many values, and to make them durable.
fn write(driver: &Driver, count: u64, value_bytes: usize) -> Result<f64> {
    let value = noise(value_bytes, 1)?;
    let mut ended = Vec::new();
    driver.set_window(DEPTH);
    let start = Instant::now();
    let (mut offered, mut stored) = (0, 0);
    while stored < count {
        while offered < count && offered - stored < AHEAD {
            // The checksum is the writer's work, done for each value.
            driver.offer(Work::Put { key: offered.to_le_bytes(), blocks: blocks_of(&value) });
            offered += 1;
        }
        driver.wait(&mut ended);
        for end in ended.drain(..) {
            let Ended::Request(_, result) = end else { bail!("no read was asked for") };
            result?;
            stored += 1;
        }
    }
    driver.run(|store, now_ms, ticket| store.sync(now_ms, ticket))?;
    Ok(start.elapsed().as_secs_f64())
}

/// Seconds that it takes to read and verify them.
fn read(driver: &Driver, count: u64, value_bytes: usize) -> Result<f64> {
    let blocks = value_bytes.div_ceil(BLOCK_BYTES) as u32;
    let room = value_bytes + (blocks as usize + 2) * SECTOR_BYTES;
    let pool = BufPool::new(AHEAD as usize * room.next_power_of_two() * 2);
    pool.use_huge_pages(pool.budget_size_bytes())?;
    let mut idle: Vec<BufMut> = (0..AHEAD).map(|_| pool.try_take(room)).collect::<Result<_, _>>()?;
    let offer = |idle: &mut Vec<BufMut>, offered: &mut u64| {
        while *offered < count
            && let Some(buffer) = idle.pop()
        {
            driver.offer(Work::Read { key: offered.to_le_bytes(), blocks, buffer });
            *offered += 1;
        }
    };
    let mut ended = Vec::new();
    driver.set_window(DEPTH);
    let start = Instant::now();
    let (mut offered, mut verified) = (0, 0);
    while verified < count {
        for end in ended.drain(..) {
            let read = match end {
                Ended::Read(read) => read,
                Ended::Request(_, result) => bail!("a value is not there: {result:?}"),
            };
            ensure!(read.verify()? == value_bytes, "a value is whole");
            driver.with(|store, now_ms| store.release(now_ms, read.plan.pin, Verdict::Good));
            verified += 1;
            idle.push(read.buffer);
            offer(&mut idle, &mut offered);
        }
        offer(&mut idle, &mut offered);
        if verified < count {
            driver.wait(&mut ended);
        }
    }
    Ok(start.elapsed().as_secs_f64())
}

pub fn direct(path: &Path, capacity: u64) -> Result<Driver> {
    if std::fs::metadata(path).map(|meta| meta.len()).unwrap_or(0) != capacity {
        preallocate(path, capacity)?;
    }
    let device: Arc<dyn Device> = Arc::new(UringDevice::open(path, Mode::Direct)?);
    Driver::format(vec![device], Config::default())
}

pub fn file(directory: &Path, capacity: u64) -> Result<Driver> {
    Driver::format(shards(directory, capacity)?, Config::default())
}

/// The devices of file mode, as a server on Linux opens them.
pub fn shards(directory: &Path, capacity: u64) -> Result<Vec<Arc<dyn Device>>> {
    Ok(open_directory(directory, 8, capacity)?.devices)
}

/// Direct and file mode beside fio.
pub fn measure(dir: &Path, rounds: usize, total: u64) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    let (limit, device, directory) = (dir.join("fio"), dir.join("direct"), dir.join("file"));
    preallocate(&limit, total)?;
    for (name, value_bytes) in [("1 MiB", 1 << 20), ("64 KiB", 64 << 10)] {
        let mut measured = Rounds::default();
        // The shards' blocks are there too, before anything is measured.
        write(&file(&directory, room_for(total))?, total / value_bytes as u64, value_bytes)?;
        for round in 0..rounds {
            measured.add(round, [&limit, &device, &directory], value_bytes, total)?;
        }
        let goal = Some(Goal::AtLeast(0.9));
        let line = |what: &str, rounds, peer, goal| {
            Line::ratio(format!("{what}, {name} x{DEPTH}"), rounds, "GB/s", peer, goal)
        };
        lines.push(line("direct write", &measured.direct_writes, "fio", goal));
        lines.push(line("direct read", &measured.direct_reads, "fio", goal));
        let goal = (value_bytes == 1 << 20).then_some(Goal::AtLeast(0.85));
        lines.push(line("file write", &measured.file_writes, "fio", goal));
        lines.push(line("file read", &measured.file_reads, "fio", goal));
    }
    std::fs::remove_file(&limit)?;
    std::fs::remove_file(&device)?;
    std::fs::remove_dir_all(&directory)?;
    Ok(lines)
}

/// 64 KiB values, direct, beside a file for each chunk and beside foyer.
pub fn measure_peers(dir: &Path, rounds: usize, total: u64) -> Result<Vec<Line>> {
    let value_bytes = 64 << 10;
    let count = total / value_bytes as u64;
    let rate = |seconds: f64| total as f64 / seconds / 1e9;
    let device = dir.join("direct");
    let (mut file_writes, mut file_reads) = (Vec::new(), Vec::new());
    let (mut foyer_writes, mut foyer_reads) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let driver = direct(&device, room_for(total))?;
        let ours = (rate(write(&driver, count, value_bytes)?), rate(read(&driver, count, value_bytes)?));
        drop(driver);
        let (wrote, took) = files::run(&dir.join("files"), count, value_bytes, DEPTH)?;
        file_writes.push((ours.0, rate(wrote)));
        file_reads.push((ours.1, rate(took)));
        let (wrote, took, found) = hybrid::run(&dir.join("foyer"), count, value_bytes, DEPTH as u64)?;
        foyer_writes.push((ours.0, rate(wrote)));
        foyer_reads.push((ours.1, rate(took) * found as f64 / count as f64));
    }
    std::fs::remove_file(&device)?;
    let goal = Some(Goal::AtLeast(2.0));
    let line = |what: &str, rounds, peer, goal| {
        Line::ratio(format!("direct {what}, 64 KiB x{DEPTH}"), rounds, "GB/s", peer, goal)
    };
    Ok(vec![
        line("write", &file_writes, "file per chunk", goal),
        line("read", &file_reads, "file per chunk", None),
        line("write", &foyer_writes, "foyer", None),
        line("read", &foyer_reads, "foyer", None),
    ])
}

/// (ours, what it is compared to), round by round.
#[derive(Default)]
struct Rounds {
    direct_writes: Vec<(f64, f64)>,
    direct_reads: Vec<(f64, f64)>,
    file_writes: Vec<(f64, f64)>,
    file_reads: Vec<(f64, f64)>,
}

impl Rounds {
    fn add(&mut self, round: usize, paths: [&Path; 3], value_bytes: usize, total: u64) -> Result<()> {
        let [limit, device, directory] = paths;
        let count = total / value_bytes as u64;
        let rate = |seconds: f64| total as f64 / seconds / 1e9;
        let fio_write = || fio::run(limit, "write", value_bytes, DEPTH, total);
        // The very bytes that we read: only reading leaves them as they are.
        let fio_read = || fio::run(device, "read", value_bytes, DEPTH, total);
        // Who comes second may find the drive busier, or the machine warmer: they take turns.
        let fio_first = round.is_multiple_of(2);
        let early = if fio_first { Some(fio_write()?) } else { None };
        let driver = direct(device, room_for(total))?;
        let ours_write = rate(write(&driver, count, value_bytes)?);
        let fio_write = early.map_or_else(fio_write, Ok)?;
        let early = if fio_first { Some(fio_read()?) } else { None };
        let ours_read = rate(read(&driver, count, value_bytes)?);
        let fio_read = early.map_or_else(fio_read, Ok)?;
        drop(driver);
        let driver = file(directory, room_for(total))?;
        let cached_write = rate(write(&driver, count, value_bytes)?);
        let cached_read = rate(read(&driver, count, value_bytes)?);
        drop(driver);
        self.direct_writes.push((ours_write, fio_write));
        self.direct_reads.push((ours_read, fio_read));
        self.file_writes.push((cached_write, fio_write));
        self.file_reads.push((cached_read, fio_read));
        Ok(())
    }
}
