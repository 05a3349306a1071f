//! The threads that serve connections, one for each processor.
//!
//! A connection stays with the thread that it was given to: what its tasks tell each other wakes no other thread, and a thread that
//! stays awake for the next request is the one that hears of it. With threads that take each other's work, a small round trip took
//! half as long again, and large values gained nothing.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use memkv_transport::spin::{Spin, Vigil};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// They end with this, and with them what they still serve.
pub struct Workers(Vec<Worker>);

struct Worker {
    runtime: Handle,
    vigil: Vigil,
    /// Cloned for each connection, which counts them.
    connections: Arc<()>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// `spin_us`: how long each stays awake for the next request.
    pub fn start(spin_us: u32) -> io::Result<Workers> {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        (0..count).map(|number| Worker::start(number, spin_us)).collect::<io::Result<_>>().map(Workers)
    }

    /// Gives a connection to the worker with the fewest.
    pub fn spawn<F>(&self, peers: &mut JoinSet<()>, serve: impl FnOnce(Spin) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(worker) = self.0.iter().min_by_key(|worker| Arc::strong_count(&worker.connections)) else {
            return;
        };
        let counted = Arc::clone(&worker.connections);
        let serving = serve(worker.vigil.spin());
        let counted_serving = async move {
            serving.await;
            drop(counted);
        };
        peers.spawn_on(counted_serving, &worker.runtime);
    }
}

impl Worker {
    fn start(number: usize, spin_us: u32) -> io::Result<Worker> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            // An error says that the sender is gone, which means the same.
            let _ = runtime.block_on(stopped);
        };
        let thread = std::thread::Builder::new().name(format!("serve-{number}")).spawn(run)?;
        Ok(Worker {
            runtime: handle,
            vigil: Vigil::new(spin_us),
            connections: Arc::default(),
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Tasks' panics were reported when they happened.
            let _ = thread.join();
        }
    }
}
