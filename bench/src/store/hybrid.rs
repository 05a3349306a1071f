//! foyer, the hybrid cache, with its memory all but off: what goes in is on the drive, and comes back from there.
//!
//! foyer promises no durability and may drop what comes too fast; so it gets its values in groups that fit its buffers, and each group
//! is waited for.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use foyer::{
    BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder, IoEngineConfig,
    UringIoEngineConfig,
};

use super::driver::noise;

const GROUP_BYTES: usize = 16 << 20;

/// Seconds to write and to read so many values, and how many of them came back.
pub fn run(directory: &Path, count: u64, value_bytes: usize, depth: u64) -> Result<(f64, f64, u64)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    std::fs::create_dir_all(directory)?;
    let measured = runtime.block_on(async {
        let capacity = (count as usize * value_bytes * 3 / 2 + (256 << 20)).next_multiple_of(64 << 20);
        let device = FsDeviceBuilder::new(directory).with_capacity(capacity).with_direct(true).build()?;
        let engine = BlockEngineConfig::new(device).with_buffer_pool_size(GROUP_BYTES * 4);
        let io: Box<dyn IoEngineConfig> = Box::new(UringIoEngineConfig::new());
        let cache: HybridCache<u64, Vec<u8>> = HybridCacheBuilder::new()
            .memory(1 << 20)
            .storage()
            .with_io_engine_config(io)
            .with_engine_config(engine)
            .build()
            .await?;
        let value = noise(value_bytes, 1)?.to_vec();
        let group = (GROUP_BYTES / value_bytes) as u64;
        let start = Instant::now();
        for first in (0..count).step_by(group as usize) {
            for n in first..count.min(first + group) {
                cache.storage_writer(n).force().insert(value.clone());
            }
            cache.storage().wait().await;
        }
        let written = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let readers: Vec<_> = (0..depth)
            .map(|reader| {
                let (cache, value) = (cache.clone(), value.clone());
                tokio::spawn(async move {
                    let mut found = 0;
                    for n in (reader..count).step_by(depth as usize) {
                        if let Some(entry) = cache.get(&n).await? {
                            ensure!(entry.value().len() == value.len(), "a value is whole");
                            found += 1;
                        }
                    }
                    Ok::<u64, anyhow::Error>(found)
                })
            })
            .collect();
        let mut found = 0;
        for reader in readers {
            found += reader.await.context("a reader died")??;
        }
        let read = start.elapsed().as_secs_f64();
        cache.close().await?;
        Ok((written, read, found))
    });
    std::fs::remove_dir_all(directory)?;
    measured
}
