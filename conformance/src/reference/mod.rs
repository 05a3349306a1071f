//! A whole MemKV server in memory, small enough to be read in one sitting, that can be told to misbehave.
//!
//! It serves two ends: the client suite runs clients against it, and the server suite is tested on it, once as it should
//! be and once for each [`Flaw`]; a [`Quirk`] is unusual and allowed. It is no store: it evicts nothing, keeps nothing over its own
//! end, and holds a message in memory until its last frame came. Limits on what peers send are kept all the same.
//!
//! [`connection`] owns frames and set-up, [`operations`] the meaning of messages, [`state`] what is stored. Everything that
//! a client does, right or wrong, is recorded as an [`Event`].

pub mod connection;
pub mod flaw;
mod manifests;
mod operations;
mod pieces;
pub mod quirk;
mod replies;
mod setup;
mod state;

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use memkv_wire::mac::{Key, KeyRing};

pub use self::connection::{Event, Hello};
pub use self::flaw::Flaw;
pub use self::quirk::Quirk;
use self::state::State;

/// A server to be.
pub struct Reference {
    listener: TcpListener,
    shared: Arc<Shared>,
}

/// What all connections have in common.
pub struct Shared {
    keys: KeyRing,
    server_id: [u8; 16],
    behaviour: Mutex<Behaviour>,
    state: Mutex<State>,
    /// What connections did, in order, for whoever runs a client against this server.
    events: Mutex<Vec<Event>>,
    event: Condvar,
    /// What the quirk in force did once already.
    done: Mutex<HashSet<u32>>,
    /// Clients are given queue pairs, and have to ask for them.
    queue_pairs: AtomicBool,
}

/// How the server is unlike others. May change at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    pub flaw: Option<Flaw>,
    pub quirk: Option<Quirk>,
}

impl From<Flaw> for Behaviour {
    fn from(flaw: Flaw) -> Behaviour {
        Behaviour { flaw: Some(flaw), quirk: None }
    }
}

impl From<Quirk> for Behaviour {
    fn from(quirk: Quirk) -> Behaviour {
        Behaviour { flaw: None, quirk: Some(quirk) }
    }
}

impl Shared {
    pub fn behave(&self, behaviour: impl Into<Behaviour>) {
        lock(&self.done).clear();
        *lock(&self.behaviour) = behaviour.into();
    }

    /// From now on set-up leads to a queue pair, and a client that asks for none breaks the protocol.
    pub fn offer_queue_pairs(&self) {
        self.queue_pairs.store(true, Ordering::Relaxed);
    }

    pub fn events(&self) -> Vec<Event> {
        lock(&self.events).clone()
    }

    /// Waits until the events are as wanted; false when they were not within this time.
    pub fn wait_for(&self, time: Duration, wanted: impl Fn(&[Event]) -> bool) -> bool {
        let end = Instant::now() + time;
        let mut events = lock(&self.events);
        while !wanted(&events) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            events = match self.event.wait_timeout(events, left) {
                Ok((events, _)) => events,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        true
    }

    fn flaw(&self) -> Option<Flaw> {
        lock(&self.behaviour).flaw
    }

    fn quirk(&self) -> Option<Quirk> {
        lock(&self.behaviour).quirk
    }

    /// Whether this did not happen since the behaviour was set.
    fn is_first(&self, what: u32) -> bool {
        lock(&self.done).insert(what)
    }

    fn record(&self, event: Event) {
        lock(&self.events).push(event);
        self.event.notify_all();
    }
}

/// What a thread that panicked left is as good as what any other left.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reference {
    pub fn bind(address: &str, key: Key, behaviour: impl Into<Behaviour>) -> io::Result<Reference> {
        let mut server_id = [0; 16];
        getrandom::fill(&mut server_id)?;
        let shared = Shared {
            keys: KeyRing::from(key),
            server_id,
            behaviour: Mutex::new(behaviour.into()),
            state: Mutex::new(State::default()),
            events: Mutex::new(Vec::new()),
            event: Condvar::new(),
            done: Mutex::new(HashSet::new()),
            queue_pairs: AtomicBool::new(false),
        };
        Ok(Reference { listener: TcpListener::bind(address)?, shared: Arc::new(shared) })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Serves for ever, each connection on a thread of its own.
    pub fn serve(self) {
        for (number, stream) in (0..).zip(self.listener.incoming()) {
            let Ok(stream) = stream else { continue };
            let shared = Arc::clone(&self.shared);
            std::thread::spawn(move || connection::run(&shared, number, stream));
        }
    }
}
