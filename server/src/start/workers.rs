//! The threads that serve connections, one for each processor.
//!
//! A connection stays with the thread that it was given to: what is done for it wakes no other thread, and a thread that
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
        Workers::of(std::thread::available_parallelism().map_or(1, usize::from), spin_us)
    }

    fn of(count: usize, spin_us: u32) -> io::Result<Workers> {
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use tokio::sync::mpsc;

    use super::*;

    /// Connections that tell the name of their thread, and stay until they are told to go.
    struct Peers {
        workers: Workers,
        tasks: JoinSet<()>,
        open: BTreeMap<usize, oneshot::Sender<()>>,
    }

    impl Peers {
        async fn come(&mut self, number: usize) -> String {
            let (go, gone) = oneshot::channel::<()>();
            let (tell, mut told) = mpsc::unbounded_channel();
            self.workers.spawn(&mut self.tasks, |_| async move {
                let _ = tell.send(std::thread::current().name().map(str::to_owned));
                let _ = gone.await;
            });
            self.open.insert(number, go);
            told.recv().await.flatten().expect("workers' threads have names")
        }

        async fn leave(&mut self, number: usize) {
            drop(self.open.remove(&number));
            self.tasks.join_next().await.expect("one was there").expect("it ends well");
        }
    }

    #[test]
    fn a_connection_goes_to_the_worker_with_the_fewest() {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let workers = Workers::of(3, 0).unwrap();
            let mut peers = Peers { workers, tasks: JoinSet::new(), open: BTreeMap::new() };
            let mut names = Vec::new();
            for number in 0..6 {
                names.push(peers.come(number).await);
            }
            assert_eq!(names[..3].iter().collect::<BTreeSet<_>>().len(), 3, "each has one");
            assert_eq!(names[3..].iter().collect::<BTreeSet<_>>().len(), 3, "each has two");
            for number in [4, 1, 5] {
                peers.leave(number).await;
                assert_eq!(peers.come(number).await, names[number], "its worker has the fewest");
            }
            // It ends, with connections that would stay for ever.
        });
    }
}
