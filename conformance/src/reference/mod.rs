//! A whole MemKV server in memory, small enough to be read in one sitting, that can be told to misbehave.
//!
//! It serves two ends: the client suite runs clients against it, and the server suite is tested on it, once as it should
//! be and once for each [`Flaw`]. It is no store: it evicts nothing, keeps nothing over its own end, and holds a message in memory until its last frame came. Limits on what peers send are kept all the same.
//!
//! [`connection`] owns frames and set-up, [`operations`] the meaning of messages, [`state`] what is stored.

pub mod connection;
pub mod flaw;
mod manifests;
mod operations;
mod pieces;
mod state;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use memkv_wire::mac::{Key, KeyRing};

pub use self::connection::Event;
pub use self::flaw::Flaw;
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
    flaw: Option<Flaw>,
    state: Mutex<State>,
    /// What connections did, in order, for whoever runs a client against this server.
    events: Mutex<Vec<Event>>,
}

impl Shared {
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().map(|events| events.clone()).unwrap_or_default()
    }

    fn record(&self, event: Event) {
        if let Ok(mut events) = self.events.lock() {
            events.push(event);
        }
    }
}

impl Reference {
    pub fn bind(address: &str, key: Key, flaw: Option<Flaw>) -> io::Result<Reference> {
        let mut server_id = [0; 16];
        getrandom::fill(&mut server_id)?;
        let shared = Shared {
            keys: KeyRing::from(key),
            server_id,
            flaw,
            state: Mutex::new(State::default()),
            events: Mutex::new(Vec::new()),
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
