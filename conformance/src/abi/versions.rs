//! Sessions that say of themselves which version they are and whether they are whole, for readers that run beside the
//! writer.
//!
//! A manifest is the version (u64), the number of chunks (u32), their 16-byte hashes, filler whose length depends on
//! the version, and the XXH3-128 of all that. A chunk's hash is the XXH3-128 of its bytes.

use std::ffi::CStr;

use memkv_wire::checksum;

use super::store::{Chunk, Store};
use crate::case::Outcome;
use crate::ffi::Handle;
use crate::random::Random;
use crate::{ensure, fail};

const HASH_SIZE_BYTES: usize = 16;
const HEAD_SIZE_BYTES: usize = 12;

/// One version of a session.
pub struct Version {
    pub chunks: Vec<Chunk>,
    pub manifest: Vec<u8>,
}

impl Version {
    /// The version of this number of the session of this name: always the same.
    pub fn new(name: &CStr, number: u64) -> Version {
        let mut random = Random::named(number, &[&name.to_string_lossy()]);
        let chunks: Vec<Chunk> = (0..1 + random.below(3))
            .map(|_| {
                let length = 1 + random.below(40_000);
                Chunk::random(&mut random, HASH_SIZE_BYTES, length)
            })
            .collect();
        let mut manifest = number.to_le_bytes().to_vec();
        manifest.extend_from_slice(&(chunks.len() as u32).to_le_bytes());
        for chunk in &chunks {
            manifest.extend_from_slice(&chunk.hash);
        }
        // Long and short ones in turn, so that the end of an older one would show.
        let filler_max = if number.is_multiple_of(2) { 300_000 } else { 300 };
        let filler = random.below(filler_max);
        manifest.extend_from_slice(&random.bytes(filler));
        let sum = checksum::block(&manifest);
        manifest.extend_from_slice(&sum);
        Version { chunks, manifest }
    }

    pub fn publish(&self, store: &impl Store, name: &CStr) -> Outcome {
        super::store::put_all(store, &self.chunks)?;
        store.publish(name, &self.manifest)
    }
}

/// Publishes version after version. Returns only when a call fails, with its code.
pub fn publish_for_ever(handle: &Handle, name: &CStr) -> i32 {
    for number in 1.. {
        let version = Version::new(name, number);
        for chunk in &version.chunks {
            match handle.put_chunk(&chunk.hash, &chunk.data) {
                0 => {}
                code => return code,
            }
        }
        match handle.put_manifest(name, &version.manifest) {
            0 => {}
            code => return code,
        }
    }
    0
}

/// Reads whatever version is there, checks that it and all its chunks are whole, and returns its number.
pub fn read_any(store: &impl Store, name: &CStr) -> Outcome<u64> {
    let manifest = match store.get_manifest(name) {
        Ok(manifest) => manifest,
        Err(failure) => fail!("get_manifest returned {failure} while a writer replaced the manifest"),
    };
    let (number, hashes) = parse(&manifest)?;
    for hash in hashes {
        match store.get_chunk(&hash) {
            Ok(data) => ensure!(
                checksum::block(&data) == hash,
                "a chunk of version {number} has the wrong bytes ({} of them)",
                data.len()
            ),
            Err(failure) => {
                fail!("version {number} is visible, but get_chunk of one of its chunks returned {failure}")
            }
        }
    }
    Ok(number)
}

fn parse(manifest: &[u8]) -> Outcome<(u64, Vec<[u8; HASH_SIZE_BYTES]>)> {
    let torn =
        || crate::case::Stop::Failed(format!("a reader got a torn manifest of {} bytes", manifest.len()));
    let (body, sum) = manifest.split_last_chunk::<HASH_SIZE_BYTES>().ok_or_else(torn)?;
    if checksum::block(body) != *sum || body.len() < HEAD_SIZE_BYTES {
        return Err(torn());
    }
    let (number, rest) = body.split_first_chunk::<8>().ok_or_else(torn)?;
    let (count, rest) = rest.split_first_chunk::<4>().ok_or_else(torn)?;
    let (hashes, _) = rest.as_chunks::<HASH_SIZE_BYTES>();
    let hashes = hashes.get(..u32::from_le_bytes(*count) as usize).ok_or_else(torn)?;
    Ok((u64::from_le_bytes(*number), hashes.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_says_what_it_is() {
        for number in 0..20 {
            let version = Version::new(c"name", number);
            let (found, hashes) = parse(&version.manifest).expect("a whole manifest");
            assert_eq!(found, number);
            assert_eq!(hashes.concat(), super::super::store::hashes(&version.chunks));
        }
    }

    #[test]
    fn a_torn_one_is_found() {
        let (old, new) = (Version::new(c"name", 2).manifest, Version::new(c"name", 3).manifest);
        for cut in [0, 1, 16, 28, new.len() - 1] {
            assert!(parse(&new[..cut]).is_err(), "cut at {cut}");
        }
        let mut mixed = new.clone();
        mixed.extend_from_slice(&old[new.len().min(old.len())..]);
        assert!(old.len() <= new.len() || parse(&mixed).is_err());
    }
}
