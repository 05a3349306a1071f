//! What one would write without a store: a file for each chunk, written aside and renamed, made durable together at the end.
//!
//! Reads go past the page cache, as the store's do in direct mode, and verify the same checksum.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use memkv_server::store::Checksum;
use memkv_transport::buf::{Buf, BufMut};

use super::driver::noise;

/// Seconds to write and to read so many files, with so many threads.
pub fn run(directory: &Path, count: u64, value_bytes: usize, threads: usize) -> Result<(f64, f64)> {
    std::fs::create_dir_all(directory)?;
    let value: Buf = noise(value_bytes, 1)?;
    let checksum = Checksum::of_value(&value);
    let path = |n: u64| directory.join(format!("{n:016x}"));

    let start = Instant::now();
    shared_out(threads, count, |n, _| {
        let aside = path(n).with_extension("new");
        let mut file = File::create(&aside)?;
        // The checksum is the writer's work here, too; it goes in front.
        file.write_all(&Checksum::of_value(&value).0)?;
        file.write_all(&value)?;
        std::fs::rename(&aside, path(n)).map_err(Into::into)
    })?;
    // One for all of them, which is the cheapest that the file system offers.
    rustix::fs::syncfs(File::open(directory)?)?;
    let written = start.elapsed().as_secs_f64();

    let start = Instant::now();
    shared_out(threads, count, |n, buffer| {
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path(n))?;
        let mut length = 0;
        // A file's end comes as a short read.
        loop {
            let read = file.read(&mut buffer[length..])?;
            length += read;
            if read == 0 || length == value_bytes + 16 {
                break;
            }
        }
        ensure!(length == value_bytes + 16, "a file is whole");
        ensure!(Checksum::of_value(&buffer[16..length]) == checksum, "a file holds what was written");
        Ok(())
    })?;
    let read = start.elapsed().as_secs_f64();
    std::fs::remove_dir_all(directory)?;
    Ok((written, read))
}

/// Calls `one` for each number, on so many threads that each have a buffer.
fn shared_out(
    threads: usize,
    count: u64,
    one: impl Fn(u64, &mut [u8]) -> Result<()> + std::marker::Sync,
) -> Result<()> {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let thread = || -> Result<()> {
            let mut buffer = BufMut::unpooled(2 << 20)?;
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return Ok(());
                }
                one(n, &mut buffer)?;
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(thread)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread died"))?)
    })
}
