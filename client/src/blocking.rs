//! The client for threads: every call waits for its end.
//!
//! Owns one background thread, which runs the connections of one client and of all its clones. Any number of
//! threads may call at once; each waits on its own.

use std::future::Future;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use memkv_transport::buf::{Buf, BufMut, BufPool};
use memkv_wire::Status;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::client::{Allocation, Found, Page};
use crate::config::Config;
use crate::core::Counters;
use crate::error::{ConnectionError, Error};
use crate::operation::manifest::{Published, Reference, StoredManifest};
use crate::operation::read::{ReadRange, Value};
use crate::operation::write::PutItem;

/// [`crate::Client`] with calls that wait. Must not be used inside an async runtime, which it would hold up.
#[derive(Debug, Clone)]
pub struct Client {
    // Dropped before the thread that runs it.
    client: crate::Client,
    background: Arc<Background>,
}

/// A thread that runs a runtime until this is dropped.
#[derive(Debug)]
struct Background {
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    fn start(first: impl FnOnce() + Send + 'static) -> Result<Self, Error> {
        let failed = |error| Error::from(ConnectionError::from(&error));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            first();
            // An error says that the sender is gone, which means the same.
            let _ = runtime.block_on(stopped);
            // Not held up by a name that is still being looked up.
            runtime.shutdown_background();
        };
        let thread =
            std::thread::Builder::new().name("memkv-client".to_owned()).spawn(run).map_err(failed)?;
        Ok(Self { runtime: handle, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // It stops at its next turn; a panic in it was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Client {
    /// See [`crate::Client::connect`].
    pub fn connect(config: Config) -> Result<Self, Error> {
        Self::connect_with(config, || ())
    }

    /// As [`Client::connect`]; the background thread calls `first` before anything else. A library inside somebody
    /// else's process sets its signal mask there.
    pub fn connect_with(config: Config, first: impl FnOnce() + Send + 'static) -> Result<Self, Error> {
        let background = Arc::new(Background::start(first)?);
        let client = background.runtime.block_on(crate::Client::connect(config))?;
        Ok(Self { client, background })
    }

    /// See [`crate::Client::timeout`].
    pub fn timeout(&self) -> Duration {
        self.client.timeout()
    }

    /// See [`crate::Client::with_timeout`].
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { client: self.client.with_timeout(timeout), background: Arc::clone(&self.background) }
    }

    /// The async client, for its other methods; they need the runtime of [`Client::wait`].
    pub fn client(&self) -> &crate::Client {
        &self.client
    }

    /// Waits for a future on the background runtime.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.background.runtime.block_on(future)
    }

    /// Runs a future on the background thread, which nobody waits for. It is dropped with the last clone of the client.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.background.runtime.spawn(future);
    }

    /// See [`crate::Client::buffer`].
    pub fn buffer(&self, size_bytes: usize) -> Result<BufMut, Error> {
        self.wait(self.client.buffer(size_bytes))
    }

    /// See [`crate::Client::pool`].
    pub fn pool(&self) -> &BufPool {
        self.client.pool()
    }

    /// See [`crate::Client::counters`].
    pub fn counters(&self) -> Counters {
        self.client.counters()
    }

    /// See [`crate::Client::put`].
    pub fn put(&self, key: &[u8], parts: &[Buf]) -> Result<(), Error> {
        self.wait(self.client.put(key, parts))
    }

    /// See [`crate::Client::put_many`].
    pub fn put_many(&self, items: &[PutItem<'_>]) -> Result<Vec<Result<(), Error>>, Error> {
        self.wait(self.client.put_many(items))
    }

    /// See [`crate::Client::get`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        self.wait(self.client.get(key))
    }

    /// See [`crate::Client::get_within`].
    pub fn get_within(&self, key: &[u8], size_bytes_max: u64) -> Result<Option<Value>, Error> {
        self.wait(self.client.get_within(key, size_bytes_max))
    }

    /// See [`crate::Client::get_range`].
    pub fn get_range(&self, range: ReadRange<'_>) -> Result<Option<Value>, Error> {
        self.wait(self.client.get_range(range))
    }

    /// See [`crate::Client::get_into`].
    pub fn get_into(&self, key: &[u8], buffer: &mut [u8]) -> Result<Option<usize>, Error> {
        self.wait(self.client.get_into(key, buffer))
    }

    /// See [`crate::Client::get_many`].
    pub fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Result<Option<Value>, Error>>, Error> {
        self.wait(self.client.get_many(keys))
    }

    /// See [`crate::Client::get_many_expecting`].
    pub fn get_many_expecting(
        &self,
        keys: &[&[u8]],
        lengths: &[u64],
    ) -> Result<Vec<Result<Option<Value>, Error>>, Error> {
        self.wait(self.client.get_many_expecting(keys, lengths))
    }

    /// See [`crate::Client::get_many_into`].
    pub fn get_many_into(
        &self,
        keys: &[&[u8]],
        buffers: &mut [&mut [u8]],
    ) -> Result<Vec<Result<Option<usize>, Error>>, Error> {
        self.wait(self.client.get_many_into(keys, buffers))
    }

    /// See [`crate::Client::exists`].
    pub fn exists(&self, keys: &[&[u8]]) -> Result<Vec<u64>, Error> {
        self.wait(self.client.exists(keys))
    }

    /// See [`crate::Client::delete`].
    pub fn delete(&self, keys: &[&[u8]]) -> Result<Vec<Status>, Error> {
        self.wait(self.client.delete(keys))
    }

    /// See [`crate::Client::lookup`].
    pub fn lookup(&self, key: &[u8], lease_ms: u32) -> Result<Option<Found>, Error> {
        self.wait(self.client.lookup(key, lease_ms))
    }

    /// See [`crate::Client::allocate`].
    pub fn allocate(&self, key: &[u8], size_bytes: u64, lease_ms: u32) -> Result<Allocation, Error> {
        self.wait(self.client.allocate(key, size_bytes, lease_ms))
    }

    /// See [`crate::Client::write_at`].
    pub fn write_at(
        &self,
        key: &[u8],
        allocation: u64,
        size_bytes: u64,
        offset: u64,
        parts: &[Buf],
    ) -> Result<(), Error> {
        self.wait(self.client.write_at(key, allocation, size_bytes, offset, parts))
    }

    /// See [`crate::Client::commit`].
    pub fn commit(&self, allocation: u64) -> Result<(), Error> {
        self.wait(self.client.commit(allocation))
    }

    /// See [`crate::Client::put_manifest`].
    pub fn put_manifest(
        &self,
        name: &[u8],
        generation: u64,
        references: &[Reference<'_>],
        body: &[Buf],
    ) -> Result<Published, Error> {
        self.wait(self.client.put_manifest(name, generation, references, body))
    }

    /// See [`crate::Client::publish`].
    pub fn publish(
        &self,
        name: &[u8],
        references: &[Reference<'_>],
        body: &[Buf],
    ) -> Result<Published, Error> {
        self.wait(self.client.publish(name, references, body))
    }

    /// See [`crate::Client::get_manifest`].
    pub fn get_manifest(&self, name: &[u8], lease_ms: u32) -> Result<Option<StoredManifest>, Error> {
        self.wait(self.client.get_manifest(name, lease_ms))
    }

    /// See [`crate::Client::delete_manifest`].
    pub fn delete_manifest(&self, name: &[u8], generation: u64) -> Result<bool, Error> {
        self.wait(self.client.delete_manifest(name, generation))
    }

    /// See [`crate::Client::list_manifests`].
    pub fn list_manifests(&self, prefix: &[u8], cursor: &[u8], count_max: u32) -> Result<Page, Error> {
        self.wait(self.client.list_manifests(prefix, cursor, count_max))
    }

    /// See [`crate::Client::ping`].
    pub fn ping(&self) -> Result<Duration, Error> {
        self.wait(self.client.ping())
    }

    /// See [`crate::Client::stats`].
    pub fn stats(&self, prefix: &str) -> Result<Vec<(String, u64)>, Error> {
        self.wait(self.client.stats(prefix))
    }
}
