//! What the catalogue costs: memory a value, the time of a lookup as it grows, and restarts.
//!
//! The store lives in a process of its own, which is killed (SIGKILL) once it is full; another one opens what is left. Between the
//! two the page cache is dropped where the system lets us.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use memkv_server::io::Devices;
use memkv_server::store::*;
use serde::{Deserialize, Serialize};

use super::driver::{CLIENT, Driver, Ended, blocks_of, noise};
use super::throughput::shards;
use crate::report::{Goal, Line};

const VALUE_BYTES: usize = 512;
const LOOKUPS: u64 = 200_000;
/// Values under way while the store is filled.
const DEPTH: u64 = 512;

/// What a child tells its parent.
#[derive(Serialize, Deserialize)]
struct Filled {
    lookups: Vec<Lookup>,
    bytes_a_value: f64,
}

#[derive(Serialize, Deserialize)]
struct Lookup {
    among: u64,
    ns: f64,
    /// Of the two reads of memory that a lookup cannot do without, anywhere in as much memory.
    far_reads_ns: f64,
}

#[derive(Serialize, Deserialize)]
struct Opened {
    seconds: f64,
    clean: bool,
    values: u64,
}

pub fn measure(dir: &Path, values: u64) -> Result<Vec<Line>> {
    let place = dir.join("catalogue");
    let mut child = spawn(&["fill"], &place, values)?;
    let filled: Filled = answer(&mut child)?;
    child.kill().context("kill")?;
    child.wait()?;
    let killed: Opened = opened(&place, values)?;
    ensure!(!killed.clean, "a killed store is not clean");
    let stopped: Opened = opened(&place, values)?;
    ensure!(stopped.clean, "a stopped store is clean");
    std::fs::remove_dir_all(&place)?;

    let millions = values as f64 / 1e6;
    let mut lines = vec![
        Line::plain("catalogue, a value", filled.bytes_a_value, "bytes", Some(Goal::AtMost(64.0))),
        Line::plain(
            format!("restart after kill -9, {millions} M values"),
            killed.seconds,
            "s",
            Some(Goal::AtMost(15.0)),
        ),
        Line::plain(
            format!("restart after a stop, {millions} M values"),
            stopped.seconds,
            "s",
            Some(Goal::AtMost(3.0)),
        ),
    ];
    for lookup in filled.lookups {
        let what = format!("lookup among {} values", lookup.among);
        let peer = "two far reads";
        lines.push(Line::ratio(what, &[(lookup.ns, lookup.far_reads_ns)], "ns", peer, None));
    }
    Ok(lines)
}

fn spawn(command: &[&str], place: &Path, values: u64) -> Result<Child> {
    let child = Command::new(std::env::current_exe()?)
        .args(command)
        .arg(place)
        .arg(values.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    Ok(child)
}

fn answer<T: for<'a> Deserialize<'a>>(child: &mut Child) -> Result<T> {
    let output = child.stdout.as_mut().context("the child's output is piped")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    serde_json::from_str(&line).context("the child said nothing of use")
}

fn opened(place: &Path, values: u64) -> Result<Opened> {
    drop_page_cache();
    let mut child = spawn(&["open"], place, values)?;
    let opened: Opened = answer(&mut child)?;
    ensure!(child.wait()?.success(), "the store did not close in good order");
    ensure!(opened.values == values, "{} of {values} values came back", opened.values);
    Ok(opened)
}

/// A cold start is what a reboot sees. Needs root; without it the start is warm, and says so.
fn drop_page_cache() {
    // SAFETY-free: a plain request to write everything back first.
    rustix::fs::sync();
    if let Err(error) = std::fs::write("/proc/sys/vm/drop_caches", "1") {
        eprintln!("the page cache stays warm: {error}");
    }
}

fn capacity(values: u64) -> u64 {
    (values * 1024 + (2 << 30)).next_multiple_of(1 << 20)
}

pub fn fill(directory: &Path, values: u64) -> Result<()> {
    let driver = Driver::format(shards(directory, capacity(values))?, Config::default())?;
    let value = noise(VALUE_BYTES, 1)?;
    let mut lookups = Vec::new();
    let mut report_at = 10_000;
    let (mut next, mut ended_count) = (0, 0);
    let mut ended = Vec::new();
    while ended_count < values {
        while next < values && next - ended_count < DEPTH {
            // Leases would only fill memory here: they end at once.
            driver.begin(|store, _, ticket| {
                store.tick(next * 100);
                let key = next.to_le_bytes();
                store.put(next * 100, CLIENT, ticket, Key::new(b"", &key), blocks_of(&value));
            });
            next += 1;
        }
        driver.wait(&mut ended);
        for end in ended.drain(..) {
            let Ended::Request(_, result) = end else { bail!("nothing is read here") };
            result?;
            ended_count += 1;
        }
        if ended_count >= report_at {
            let bytes = driver.with(|store, _| store.usage().catalog_bytes);
            lookups.push(Lookup {
                among: report_at,
                ns: lookup_ns(&driver, report_at)?,
                far_reads_ns: 2.0 * far_read_ns(bytes as usize),
            });
            report_at *= 10;
        }
    }
    driver.run(|store, now_ms, ticket| store.sync(now_ms, ticket))?;
    let usage = driver.with(|store, _| store.usage());
    ensure!(usage.values == values, "{} values are stored", usage.values);
    say(&Filled { lookups, bytes_a_value: usage.catalog_bytes as f64 / values as f64 })?;
    loop {
        std::thread::park();
    }
}

/// The mean of many lookups of keys in no order.
fn lookup_ns(driver: &Driver, among: u64) -> Result<f64> {
    driver.with(|store, now_ms| {
        let start = Instant::now();
        let mut found = 0;
        for n in 0..LOOKUPS {
            let key = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % among;
            found += u64::from(store.exists(now_ms, Key::new(b"", &key.to_le_bytes())).is_some());
        }
        ensure!(found == LOOKUPS, "{found} of {LOOKUPS} were found");
        Ok(start.elapsed().as_nanos() as f64 / LOOKUPS as f64)
    })
}

/// The mean of many reads in no order, of which each says where the next one is.
fn far_read_ns(bytes: usize) -> f64 {
    let words: Vec<u64> = (0..(bytes / 8).max(1) as u64).collect();
    let mut at = 0;
    let start = Instant::now();
    for n in 0..LOOKUPS {
        let next = (words[at] ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        at = (next as usize).wrapping_mul(0x9e37_79b1) % words.len();
    }
    let elapsed = start.elapsed();
    std::hint::black_box(at);
    elapsed.as_nanos() as f64 / LOOKUPS as f64
}

pub fn open(directory: &Path, values: u64) -> Result<()> {
    let start = Instant::now();
    let devices = Devices::new(shards(directory, capacity(values))?);
    let (driver, report) = Driver::open(devices, Config::default())?;
    let seconds = start.elapsed().as_secs_f64();
    driver.run(|store, now_ms, ticket| store.stop(now_ms, ticket))?;
    say(&Opened { seconds, clean: report.clean, values: report.values })
}

fn say(what: &impl Serialize) -> Result<()> {
    let mut output = std::io::stdout().lock();
    serde_json::to_writer(&mut output, what)?;
    writeln!(output)?;
    output.flush().map_err(Into::into)
}
