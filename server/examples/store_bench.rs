//! Measures the store by itself: throughput, group commit, restart, lookups, and the hit rate on a trace of block hashes.
//!
//! ```text
//! store_bench throughput memory|file|direct PATH VALUE_BYTES DEPTH TOTAL_MIB
//! store_bench commit PATH
//! store_bench restart PATH VALUES
//! store_bench trace FILE VALUE_BYTES PERCENT_OF_UNIQUE
//! ```
//!
//! Each client thread runs its own requests to the end: it hands the store a request, runs whatever commands come out (its own or
//! another thread's), and sleeps when there is nothing to run. So the depth is the number of threads.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use memkv_server::io::{Device, Devices, MemoryDevice, open_directory};
use memkv_server::store::*;
use memkv_transport::buf::{Buf, BufMut};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Ended = std::result::Result<Outcome, StoreError>;

fn main() -> Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["throughput", kind, path, value_bytes, depth, total_mib] => {
            throughput(kind, Path::new(path), value_bytes.parse()?, depth.parse()?, total_mib.parse()?)
        }
        ["commit", path] => commit(Path::new(path)),
        ["restart", path, values] => restart(Path::new(path), values.parse()?),
        ["trace", file, value_bytes, percent] => {
            trace(Path::new(file), value_bytes.parse()?, percent.parse()?)
        }
        _ => Err("see the head of this file for the arguments".into()),
    }
}

struct Shell {
    state: Mutex<State>,
    ended: Condvar,
    devices: Devices,
    started: Instant,
}

struct State {
    store: Store<Buf>,
    ended: HashMap<Ticket, Ended>,
    tickets: u64,
    running: usize,
}

impl Shell {
    fn open(mut devices: Devices, config: Config, fresh: bool) -> Result<(Self, OpenReport)> {
        if fresh {
            format(&mut devices, &config, FormatOptions { server_id: [1; 16], secrets: [2; 32] })?;
        }
        let (store, report) = Store::open(0, config, &mut devices)?;
        let state = State { store, ended: HashMap::new(), tickets: 0, running: 0 };
        let shell =
            Self { state: Mutex::new(state), ended: Condvar::new(), devices, started: Instant::now() };
        Ok((shell, report))
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a request to its end, and others' commands on the way.
    fn request(&self, begin: impl FnOnce(&mut Store<Buf>, Ticket)) -> Ended {
        let mut state = self.lock();
        state.tickets += 1;
        let ticket = Ticket(state.tickets);
        begin(&mut state.store, ticket);
        loop {
            while let Some(event) = state.store.poll_event() {
                state.ended.insert(event.ticket, event.result);
                self.ended.notify_all();
            }
            if let Some(result) = state.ended.remove(&ticket) {
                // Someone must go on with what this completion set free.
                self.ended.notify_one();
                return result;
            }
            if let Some(command) = state.store.poll_command() {
                state.running += 1;
                drop(state);
                let result = self.devices.execute(&command);
                state = self.lock();
                state.running -= 1;
                state.store.complete(self.now_ms(), command.id, result);
                self.ended.notify_one();
            } else {
                state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn put(&self, key: &[u8], blocks: Vec<Block<Buf>>) -> Ended {
        let now_ms = self.now_ms();
        self.request(|store, ticket| store.put(now_ms, ClientId(1), ticket, Key::new(b"", key), blocks))
    }

    fn get(&self, key: &[u8], blocks: u32, buffer: &mut BufMut) -> Result<usize> {
        let plan = self.lock().store.read(self.now_ms(), Key::new(b"", key), 0..blocks)?;
        let mut length = 0;
        for record in &plan.records {
            let device = self.devices.device(record.device)?;
            let bytes = record.head_bytes + record.data_bytes;
            if record.data_bytes > 0 && !record.is_contiguous() {
                return Err("whole records are contiguous".into());
            }
            device.read(record.head_offset, &mut buffer[..bytes])?;
            let (head, data) = buffer[..bytes].split_at(record.head_bytes);
            let sums = record.check_head(head)?;
            for place in &record.blocks {
                let from = if place.in_head { head } else { data };
                record.check_block(&sums, place.block, &from[place.at..place.at + place.length])?;
                length += place.length;
            }
        }
        self.lock().store.release(self.now_ms(), plan.pin, Verdict::Good);
        Ok(length)
    }
}

fn devices(kind: &str, path: &Path, capacity_bytes: u64) -> Result<Devices> {
    let list: Vec<Arc<dyn Device>> = match kind {
        "memory" => vec![Arc::new(MemoryDevice::new(capacity_bytes))],
        "file" => open_directory(path, 8, capacity_bytes)?.devices,
        #[cfg(target_os = "linux")]
        "direct" => {
            use memkv_server::io::{Mode, UringDevice};
            if !path.exists() {
                // Written once beforehand: a sparse file would measure the file system's allocation.
                let zeros = vec![0; 1 << 20];
                let mut file = std::fs::File::create_new(path)?;
                for _ in 0..capacity_bytes >> 20 {
                    std::io::Write::write_all(&mut file, &zeros)?;
                }
                file.sync_all()?;
            }
            vec![Arc::new(UringDevice::open(path, Mode::Direct)?)]
        }
        _ => return Err("a device is memory, file or direct".into()),
    };
    Ok(Devices::new(list))
}

fn blocks_of(value: &Buf) -> Vec<Block<Buf>> {
    let block = |start: usize| {
        let bytes = value.slice(start..value.len().min(start + BLOCK_BYTES));
        Block { checksum: Checksum::of_block(&bytes), bytes }
    };
    (0..value.len()).step_by(BLOCK_BYTES).map(block).collect()
}

fn noise(length: usize) -> Result<Buf> {
    let mut state = 1u64;
    let mut buffer = BufMut::unpooled(length)?;
    for byte in buffer.iter_mut() {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        *byte = (state >> 56) as u8;
    }
    Ok(buffer.freeze())
}

fn throughput(kind: &str, path: &Path, value_bytes: usize, depth: usize, total_mib: u64) -> Result<()> {
    let total = total_mib << 20;
    let capacity = total + total / 4 + (512 << 20);
    let (shell, _) = Shell::open(devices(kind, path, capacity)?, Config::default(), true)?;
    let value = noise(value_bytes)?;
    let count = total / value_bytes as u64;
    let written = run(depth, count, |n| {
        // The checksum is the writer's work, done for each value.
        shell.put(&n.to_le_bytes(), blocks_of(&value)).map(|_| ()).map_err(Into::into)
    })?;
    let flush = Instant::now();
    shell.request(|store, ticket| store.sync(0, ticket))?;
    let flushed = flush.elapsed().as_secs_f64();
    let blocks = value_bytes.div_ceil(BLOCK_BYTES) as u32;
    let spare = value_bytes + (blocks as usize + 2) * SECTOR_BYTES;
    let buffers: Vec<_> =
        (0..depth).map(|_| BufMut::unpooled(spare).map(Mutex::new)).collect::<std::result::Result<_, _>>()?;
    let read = run(depth, count, |n| {
        // A stride that visits all in no order of the device.
        let n = n.wrapping_mul(7919) % count;
        let mut buffer =
            buffers.iter().find_map(|buffer| buffer.try_lock().ok()).ok_or("a buffer for each thread")?;
        shell.get(&n.to_le_bytes(), blocks, &mut buffer).map(|_| ())
    })?;
    let rate = |seconds: f64| (count * value_bytes as u64) as f64 / seconds / 1e9;
    let amplification =
        shell.lock().store.counters().device_bytes_written as f64 / (count * value_bytes as u64) as f64;
    println!(
        "{kind} {value_bytes} B x{depth}: write {:.2} GB/s (with flush {:.2}), read {:.2} GB/s, amplification {amplification:.3}",
        rate(written),
        rate(written + flushed),
        rate(read)
    );
    Ok(())
}

/// Seconds that `count` calls take on so many threads.
fn run(threads: usize, count: u64, call: impl Fn(u64) -> Result<()> + std::marker::Sync) -> Result<f64> {
    let next = std::sync::atomic::AtomicU64::new(0);
    let failed = Mutex::new(None);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    if let Err(error) = call(n) {
                        *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                        return;
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error.into()),
        None => Ok(start.elapsed().as_secs_f64()),
    }
}

fn commit(path: &Path) -> Result<()> {
    let (shell, _) = Shell::open(devices("file", path, 8 << 30)?, Config::default(), true)?;
    let value = noise(4096)?;
    let mut rates = Vec::new();
    for (round, savers) in [1, 16].into_iter().enumerate() {
        let count = 200 * savers as u64;
        let seconds = run(savers, count, |n| {
            let key = [round as u64 + 1, n].map(u64::to_le_bytes).concat();
            shell.put(&key, blocks_of(&value))?;
            let chunks = [ChunkRef { key: &key, length: 4096, checksum: None }];
            let name = format!("session-{round}-{}", n % 64);
            shell.request(|store, ticket| {
                let put = PutManifest {
                    namespace: b"",
                    name: name.as_bytes(),
                    generation: None,
                    role: Role::Both,
                    chunks: &chunks,
                    body: blocks_of(&value),
                    lease_ms: 0,
                };
                store.put_manifest(shell.now_ms(), ClientId(1), ticket, put);
            })?;
            Ok(())
        })?;
        rates.push(count as f64 / seconds);
    }
    let flushes = shell.lock().store.counters().flushes;
    println!(
        "durable manifests a second: 1 saver {:.0}, 16 savers {:.0}, ratio {:.1}; {flushes} flushes",
        rates[0],
        rates[1],
        rates[1] / rates[0]
    );
    Ok(())
}

fn restart(path: &Path, values: u64) -> Result<()> {
    let capacity = values * 1024 + (2 << 30);
    let (shell, _) = Shell::open(devices("file", path, capacity)?, Config::default(), true)?;
    let value = noise(512)?;
    let mut lookups = Vec::new();
    let mut next_report = 10_000;
    let batch = 512;
    for first in (0..values).step_by(batch) {
        let mut state = shell.lock();
        let tickets: Vec<_> = (first..values.min(first + batch as u64))
            .map(|n| {
                state.tickets += 1;
                let ticket = Ticket(state.tickets);
                // Leases would only fill memory here: each value has a client of its own, and time goes on.
                let now_ms = n * 100;
                state.store.put(
                    now_ms,
                    ClientId(n),
                    ticket,
                    Key::new(b"", &n.to_le_bytes()),
                    blocks_of(&value),
                );
                state.store.tick(now_ms);
                ticket
            })
            .collect();
        while let Some(command) = state.store.poll_command() {
            let result = shell.devices.execute(&command);
            state.store.complete(0, command.id, result);
        }
        while let Some(event) = state.store.poll_event() {
            event.result?;
        }
        drop(tickets);
        let stored = first + batch as u64;
        if stored >= next_report {
            lookups.push((stored, lookup_ns(&mut state.store, stored)));
            next_report *= 10;
        }
    }
    for (stored, ns) in lookups {
        println!("lookup among {stored} values: {ns:.0} ns");
    }
    let usage = shell.lock().store.usage();
    println!(
        "{} values, catalogue {:.1} bytes each",
        usage.values,
        usage.catalog_bytes as f64 / usage.values as f64
    );
    let devices_again = shell.devices.clone();
    drop(shell);
    let (shell, seconds) = reopened(devices_again, "after a kill")?;
    shell.request(|store, ticket| store.stop(0, ticket))?;
    let devices_again = shell.devices.clone();
    drop(shell);
    let (_, again) = reopened(devices_again, "after a stop")?;
    println!("restart after a kill {seconds:.2} s, after a stop {again:.2} s");
    Ok(())
}

fn reopened(devices: Devices, what: &str) -> Result<(Shell, f64)> {
    let start = Instant::now();
    let (shell, report) = Shell::open(devices, Config::default(), false)?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{what}: {} values, {} frames, {} extents scanned",
        report.values, report.journal_frames, report.extents_scanned
    );
    Ok((shell, seconds))
}

fn lookup_ns(store: &mut Store<Buf>, stored: u64) -> f64 {
    let count = 100_000;
    let start = Instant::now();
    let found = (0..count).filter(|n: &u64| {
        let key = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % stored;
        store.exists(0, Key::new(b"", &key.to_le_bytes())).is_some()
    });
    let found = found.count();
    assert_eq!(found as u64, count, "all are there");
    start.elapsed().as_nanos() as f64 / count as f64
}

/// Plays a trace: every request reads its blocks and puts those that missed. Beside it, a plain LRU of whole values.
fn trace(file: &Path, value_bytes: usize, percent: u64) -> Result<()> {
    let text = std::fs::read_to_string(file)?;
    let requests: Vec<Vec<u64>> = text.lines().map(hashes).collect();
    let unique: std::collections::HashSet<u64> = requests.iter().flatten().copied().collect();
    // Capacity counts bytes of values: headers and what the store keeps back are its own cost, and are inside it.
    let capacity = unique.len() as u64 * value_bytes as u64 * percent / 100;
    let store_bytes = (capacity + (1 << 20)).next_multiple_of(1 << 20);
    let list: Vec<Arc<dyn Device>> = vec![Arc::new(MemoryDevice::new(store_bytes))];
    let config = Config { lease_ms_default: 1, ..Config::default() };
    let (shell, _) = Shell::open(Devices::new(list), config, true)?;
    let value = noise(value_bytes)?;
    let blocks = blocks_of(&value);
    let mut lru = Lru { capacity: (capacity / value_bytes as u64) as usize, ..Lru::default() };
    let (mut asked, mut hits, mut lru_hits) = (0u64, 0u64, 0u64);
    for (now_ms, request) in requests.iter().enumerate() {
        let now_ms = now_ms as u64 * 10;
        for hash in request {
            asked += 1;
            lru_hits += u64::from(lru.touch(*hash));
            let key = hash.to_le_bytes();
            let hit = shell.lock().store.exists(now_ms, Key::new(b"", &key)).is_some();
            hits += u64::from(hit);
            if !hit {
                shell.request(|store, ticket| {
                    store.put(now_ms, ClientId(1), ticket, Key::new(b"", &key), blocks.clone())
                })?;
            }
        }
    }
    let counters = shell.lock().store.counters();
    let rate = |hits: u64| 100.0 * hits as f64 / asked as f64;
    println!(
        "{value_bytes} B, {percent} %: {asked} asked, hit rate {:.2} %, LRU {:.2} %, amplification {:.3} ({} moved)",
        rate(hits),
        rate(lru_hits),
        counters.device_bytes_written as f64 / (counters.device_bytes_written - counters.bytes_moved) as f64,
        counters.records_moved,
    );
    Ok(())
}

fn hashes(line: &str) -> Vec<u64> {
    let list = line
        .split_once("\"hash_ids\"")
        .and_then(|(_, rest)| rest.split_once('['))
        .map_or("", |(_, list)| list);
    let list = list.split_once(']').map_or("", |(list, _)| list);
    list.split(',').filter_map(|number| number.trim().parse().ok()).collect()
}

#[derive(Default)]
struct Lru {
    capacity: usize,
    clock: u64,
    used: HashMap<u64, u64>,
    order: std::collections::BTreeMap<u64, u64>,
}

impl Lru {
    fn touch(&mut self, key: u64) -> bool {
        self.clock += 1;
        let before = self.used.insert(key, self.clock);
        if let Some(before) = before {
            self.order.remove(&before);
        }
        self.order.insert(self.clock, key);
        if self.used.len() > self.capacity
            && let Some((_, coldest)) = self.order.pop_first()
        {
            self.used.remove(&coldest);
        }
        before.is_some()
    }
}
