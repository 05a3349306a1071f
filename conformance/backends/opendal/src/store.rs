//! The store itself: objects in an OpenDAL operator, driven by a runtime of its own.
//!
//! A handle's runtime lives and ends with it, so that closing gives back its threads and its connections. A process that
//! was forked has the handle but not the threads: there every call fails, and dropping it does nothing.

use std::time::Duration;

use opendal::layers::{RetryLayer, TimeoutLayer};
use opendal::{Buffer, ErrorKind, Operator, services};
use tokio::runtime::{Builder, Runtime};

use crate::object_name;
use crate::uri::{Location, Options, UriError};

/// One operation without any progress for this long has failed.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);
const RETRIES_MAX: usize = 5;
/// A larger chunk is kept in parts of this size: one object of 64 MiB is more than a Redis server answers in good time.
const PART_SIZE_BYTES: usize = 4 << 20;
/// The first byte of a chunk's object: the chunk's bytes follow, or its length (u64, little-endian), its bytes being in
/// the objects of its parts.
const WHOLE: u8 = 0;
const IN_PARTS: u8 = 1;
const HEAD_SIZE_BYTES_MAX: usize = 9;
const WORKERS: usize = 2;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Uri(#[from] UriError),
    #[error("the runtime cannot be started: {0}")]
    Runtime(#[from] std::io::Error),
    #[error("{0}")]
    Service(#[from] opendal::Error),
    #[error("not stored")]
    Missing,
    #[error("the object is not one that this backend wrote")]
    Damaged,
    #[error("the hash or the name is empty or too long")]
    Name,
    #[error("the handle belongs to the process that was forked")]
    Forked,
}

/// An open store.
pub struct Store {
    operator: Operator,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    process: u32,
}

impl Store {
    /// Opens a store, and makes sure that the service answers.
    pub fn open(uri: &str) -> Result<Store, StoreError> {
        let operator = operator(Location::parse(uri)?)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("kv-store-opendal")
            .enable_all()
            .build()?;
        let store = Store { operator, runtime: Some(runtime), process: std::process::id() };
        store.block_on(store.operator.exists("opened"))?;
        Ok(store)
    }

    pub fn put_chunk(&self, hash: &[u8], data: &[u8]) -> Result<(), StoreError> {
        let path = object_name::of_chunk(hash).ok_or(StoreError::Name)?;
        // Chunks are immutable, so one that is there is the one being put.
        if self.block_on(self.operator.exists(&path))? {
            return Ok(());
        }
        if data.len() <= PART_SIZE_BYTES {
            return self.put(&path, [&[WHOLE], data].concat());
        }
        for (part, data) in data.chunks(PART_SIZE_BYTES).enumerate() {
            self.put(&object_name::of_part(&path, part), data.to_vec())?;
        }
        // The chunk is there once this is, and its parts are.
        self.put(&path, [&[IN_PARTS][..], &(data.len() as u64).to_le_bytes()].concat())
    }

    pub fn get_chunk(&self, hash: &[u8]) -> Result<Buffer, StoreError> {
        let path = object_name::of_chunk(hash).ok_or(StoreError::Name)?;
        let object = self.get(&path)?;
        let head = object.slice(..object.len().min(HEAD_SIZE_BYTES_MAX)).to_vec();
        match head.split_first() {
            Some((&WHOLE, _)) => Ok(object.slice(1..)),
            Some((&IN_PARTS, length)) => {
                let length = length.try_into().map(u64::from_le_bytes).map_err(|_| StoreError::Damaged)?;
                self.get_parts(&path, length)
            }
            Some(_) | None => Err(StoreError::Damaged),
        }
    }

    fn get_parts(&self, path: &str, length: u64) -> Result<Buffer, StoreError> {
        let mut parts = Vec::new();
        for part in 0..length.div_ceil(PART_SIZE_BYTES as u64) {
            let part = self.get(&object_name::of_part(path, part as usize))?;
            parts.extend(part);
        }
        let joined: Buffer = parts.into_iter().collect();
        if joined.len() as u64 == length { Ok(joined) } else { Err(StoreError::Damaged) }
    }

    /// Nothing is buffered, so every chunk put before is there already.
    pub fn put_manifest(&self, name: &[u8], data: &[u8]) -> Result<(), StoreError> {
        self.put(&object_name::of_manifest(name).ok_or(StoreError::Name)?, data.to_vec())
    }

    pub fn get_manifest(&self, name: &[u8]) -> Result<Buffer, StoreError> {
        self.get(&object_name::of_manifest(name).ok_or(StoreError::Name)?)
    }

    pub fn delete_manifest(&self, name: &[u8]) -> Result<(), StoreError> {
        let path = object_name::of_manifest(name).ok_or(StoreError::Name)?;
        if !self.block_on(self.operator.exists(&path))? {
            return Err(StoreError::Missing);
        }
        self.block_on(self.operator.delete(&path))
    }

    fn put(&self, path: &str, data: Vec<u8>) -> Result<(), StoreError> {
        self.block_on(self.operator.write(path, data)).map(drop)
    }

    fn get(&self, path: &str) -> Result<Buffer, StoreError> {
        self.block_on(self.operator.read(path))
    }

    fn block_on<T>(&self, work: impl Future<Output = opendal::Result<T>>) -> Result<T, StoreError> {
        match &self.runtime {
            Some(runtime) if self.process == std::process::id() => match runtime.block_on(work) {
                Err(error) if error.kind() == ErrorKind::NotFound => Err(StoreError::Missing),
                done => Ok(done?),
            },
            Some(_) | None => Err(StoreError::Forked),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        if self.process == std::process::id() {
            runtime.shutdown_timeout(OPERATION_TIMEOUT);
        } else {
            // Its threads are in another process: waiting for them would never end.
            std::mem::forget(runtime);
        }
    }
}

fn operator(location: Location) -> Result<Operator, StoreError> {
    // OpenDAL makes an HTTP client for every service. This fails when a provider was installed before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retry = RetryLayer::new().with_max_times(RETRIES_MAX).with_jitter();
    let timeout = TimeoutLayer::new().with_timeout(OPERATION_TIMEOUT).with_io_timeout(OPERATION_TIMEOUT);
    let operator = match location {
        Location::Fs { root } => {
            // Objects appear whole: they are written beside, flushed and renamed.
            let beside = format!("{root}/.writing");
            Operator::new(services::Fs::default().root(&root).atomic_write_dir(&beside))?.finish()
        }
        Location::Redis { endpoint, root, options } => {
            let password = std::env::var("OPENDAL_REDIS_PASSWORD").ok();
            let given = [("endpoint", Some(endpoint)), ("root", Some(root)), ("password", password)];
            Operator::from_iter::<services::Redis>(with(options, given))?.finish()
        }
        Location::S3 { bucket, root, options } => {
            let given = [("bucket", Some(bucket)), ("root", Some(root))];
            Operator::from_iter::<services::S3>(with(options, given))?.finish()
        }
    };
    Ok(operator.layer(timeout).layer(retry))
}

fn with<const N: usize>(mut options: Options, given: [(&str, Option<String>); N]) -> Options {
    for (name, value) in given {
        if let Some(value) = value {
            options.insert(name.to_owned(), value);
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_kept_in_files() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let uri = format!("opendal://fs{}", directory.path().display());
        let store = Store::open(&uri).expect("a store");
        assert!(matches!(store.get_chunk(b"hash"), Err(StoreError::Missing)));
        store.put_chunk(b"hash", b"data").expect("put");
        store.put_chunk(b"hash", b"other").expect("put again");
        let large: Vec<u8> = (0..PART_SIZE_BYTES * 2 + 5).map(|at| (at / 1000) as u8).collect();
        store.put_chunk(b"large", &large).expect("put");
        store.put_chunk(b"part", &large[..PART_SIZE_BYTES]).expect("put");
        store.put_manifest(b"name", b"").expect("put");
        drop(store);
        let store = Store::open(&uri).expect("a store");
        assert_eq!(store.get_chunk(b"hash").expect("get").to_vec(), b"data");
        assert_eq!(store.get_chunk(b"large").expect("get").to_vec(), large);
        assert_eq!(store.get_chunk(b"part").expect("get").to_vec(), large[..PART_SIZE_BYTES]);
        assert!(store.get_manifest(b"name").expect("get").is_empty());
        store.delete_manifest(b"name").expect("delete");
        assert!(matches!(store.delete_manifest(b"name"), Err(StoreError::Missing)));
        assert!(matches!(store.get_chunk(&[]), Err(StoreError::Name)));
    }
}
