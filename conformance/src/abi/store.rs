//! What cases do with a store, be it a handle of this process or one of another, and how they judge it.

use std::ffi::CStr;
use std::ops::Deref;

use memkv_wire::checksum;

use crate::case::Outcome;
use crate::ffi::{Buffer, Failure, Handle};
use crate::random::Random;
use crate::{ensure, fail};

/// The functions of the table, wherever the handle is.
pub trait Store {
    type Bytes: Deref<Target = [u8]>;

    fn put_chunk(&self, hash: &[u8], data: &[u8]) -> i32;
    fn get_chunk(&self, hash: &[u8]) -> Result<Self::Bytes, Failure>;
    fn put_manifest(&self, name: &CStr, data: &[u8]) -> i32;
    fn get_manifest(&self, name: &CStr) -> Result<Self::Bytes, Failure>;
    fn delete_manifest(&self, name: &CStr) -> i32;

    /// Puts, and expects a success.
    fn put(&self, chunk: &Chunk) -> Outcome {
        let code = self.put_chunk(&chunk.hash, &chunk.data);
        ensure!(code == 0, "put_chunk of {chunk} returned {code}");
        Ok(())
    }

    fn expect_chunk(&self, chunk: &Chunk) -> Outcome {
        match self.get_chunk(&chunk.hash) {
            Ok(got) => expect_same(&got, &chunk.data, &format!("get_chunk of {chunk}")),
            Err(failure) => fail!("get_chunk of {chunk}, which is stored, returned {failure}"),
        }
    }

    fn expect_no_chunk(&self, hash: &[u8]) -> Outcome {
        match self.get_chunk(hash) {
            Ok(got) => fail!("get_chunk of {}, never stored, gave {} bytes", hex(hash), got.len()),
            Err(failure) if failure.is_proper() => Ok(()),
            Err(failure) => fail!("get_chunk of {}, never stored, returned {failure}", hex(hash)),
        }
    }

    /// Puts a manifest, and expects a success.
    fn publish(&self, name: &CStr, data: &[u8]) -> Outcome {
        let code = self.put_manifest(name, data);
        ensure!(code == 0, "put_manifest of {} bytes as {name:?} returned {code}", data.len());
        Ok(())
    }

    fn expect_manifest(&self, name: &CStr, data: &[u8]) -> Outcome {
        match self.get_manifest(name) {
            Ok(got) => expect_same(&got, data, &format!("get_manifest of {name:?}")),
            Err(failure) => fail!("get_manifest of {name:?}, which is stored, returned {failure}"),
        }
    }

    fn expect_no_manifest(&self, name: &CStr) -> Outcome {
        match self.get_manifest(name) {
            Ok(got) => fail!("get_manifest of {name:?}, which is not stored, gave {} bytes", got.len()),
            Err(failure) if failure.is_proper() => Ok(()),
            Err(failure) => fail!("get_manifest of {name:?}, which is not stored, returned {failure}"),
        }
    }

    /// Deletes a manifest, and expects a success.
    fn delete(&self, name: &CStr) -> Outcome {
        let code = self.delete_manifest(name);
        ensure!(code == 0, "delete_manifest of {name:?}, which is stored, returned {code}");
        Ok(())
    }
}

impl Store for Handle {
    type Bytes = Buffer;

    fn put_chunk(&self, hash: &[u8], data: &[u8]) -> i32 {
        self.put_chunk(hash, data)
    }

    fn get_chunk(&self, hash: &[u8]) -> Result<Buffer, Failure> {
        self.get_chunk(hash)
    }

    fn put_manifest(&self, name: &CStr, data: &[u8]) -> i32 {
        self.put_manifest(name, data)
    }

    fn get_manifest(&self, name: &CStr) -> Result<Buffer, Failure> {
        self.get_manifest(name)
    }

    fn delete_manifest(&self, name: &CStr) -> i32 {
        self.delete_manifest(name)
    }
}

/// Compares lengths before bytes, and names the first place that differs.
pub fn expect_same(got: &[u8], expected: &[u8], what: &str) -> Outcome {
    ensure!(got.len() == expected.len(), "{what} gave {} bytes instead of {}", got.len(), expected.len());
    if got != expected {
        let at = got.iter().zip(expected).position(|(got, expected)| got != expected).unwrap_or_default();
        fail!("{what} gave wrong bytes from offset {at} of {}", expected.len());
    }
    Ok(())
}

// ---------------------------------------------------------------- chunks

/// A chunk as a consumer has it.
#[derive(Clone)]
pub struct Chunk {
    pub hash: Vec<u8>,
    pub data: Vec<u8>,
}

impl Chunk {
    /// Random bytes and their hash of `hash_len` bytes.
    pub fn random(random: &mut Random, hash_len: usize, length: usize) -> Chunk {
        Chunk::of(random.bytes(length), hash_len)
    }

    pub fn of(data: Vec<u8>, hash_len: usize) -> Chunk {
        Chunk { hash: hash(&data, hash_len), data }
    }

    /// Chunks of 16-byte hashes and of different lengths around `length`.
    pub fn several(random: &mut Random, count: usize, length: usize) -> Vec<Chunk> {
        let mut chunk = |index: usize| Chunk::random(random, 16, length + 1 + index % 97);
        (0..count).map(&mut chunk).collect()
    }
}

impl std::fmt::Display for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes (hash {})", self.data.len(), hex(&self.hash))
    }
}

/// A hash of any width: XXH3-128 of the bytes, and of that again for what is longer.
pub fn hash(data: &[u8], width: usize) -> Vec<u8> {
    let mut block = checksum::block(data);
    let mut hash = block.to_vec();
    while hash.len() < width {
        block = checksum::block(&block);
        hash.extend_from_slice(&block);
    }
    hash.truncate(width);
    hash
}

/// The hashes of chunks, back to back: what a manifest lists, and what prefetch takes.
pub fn hashes(chunks: &[Chunk]) -> Vec<u8> {
    chunks.iter().flat_map(|chunk| chunk.hash.iter().copied()).collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn put_all(store: &impl Store, chunks: &[Chunk]) -> Outcome {
    chunks.iter().try_for_each(|chunk| store.put(chunk))
}

pub fn expect_all(store: &impl Store, chunks: &[Chunk]) -> Outcome {
    chunks.iter().try_for_each(|chunk| store.expect_chunk(chunk))
}

/// Saves a session: its chunks, then a manifest that lists them.
pub fn save(store: &impl Store, name: &CStr, chunks: &[Chunk]) -> Outcome {
    put_all(store, chunks)?;
    store.publish(name, &hashes(chunks))
}

/// Restores a session and compares it.
pub fn expect_session(store: &impl Store, name: &CStr, chunks: &[Chunk]) -> Outcome {
    store.expect_manifest(name, &hashes(chunks))?;
    expect_all(store, chunks)
}
