//! Does the service's bookkeeping add up? Recounts what it keeps counted, for tests and simulations.

use std::collections::HashMap;

use super::Service;
use super::slab::Name;
use crate::store::AuditError as StoreAuditError;

/// What does not add up.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AuditError {
    #[error("the store: {0}")]
    Store(#[from] StoreAuditError),
    #[error("{counted} connections counted, {found} found")]
    Connections { counted: u64, found: u64 },
    #[error("{listed} requests of connections, {open} open")]
    Requests { listed: usize, open: usize },
    #[error("a request waits for {counted} ends, {found} are under way")]
    Outstanding { counted: u32, found: u32 },
    #[error("{counted} bytes in the window, {found} in those of the connections")]
    Window { counted: usize, found: usize },
    #[error("{counted} bytes of manifests in the making, {found} in those of the connections")]
    Bodies { counted: usize, found: usize },
}

/// What the service holds for its peers; all of it is 0 once the last one is gone and everything under way has ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Held {
    pub connections: usize,
    pub requests: usize,
    /// Store requests whose end is awaited.
    pub tickets: usize,
    pub reads: usize,
    pub pins: u64,
    pub window_bytes: usize,
    pub body_bytes: usize,
}

impl Service {
    pub fn held(&self) -> Held {
        Held {
            connections: self.connections.len(),
            requests: self.requests.len(),
            tickets: self.tickets.len(),
            reads: self.reads.len(),
            pins: self.store.usage().pins,
            window_bytes: self.window_bytes_total,
            body_bytes: self.body_bytes_total,
        }
    }

    /// Recounts everything, the store's books with it; `Ok` at any moment between two calls. Takes time in proportion to what is
    /// stored and under way.
    pub fn audit(&self) -> Result<(), AuditError> {
        self.store.audit()?;
        let (counted, found) = (self.counters.connections, self.connections.len() as u64);
        if counted != found {
            return Err(AuditError::Connections { counted, found });
        }
        let listed = self.connections.iter().map(|(_, connection)| connection.open.len()).sum();
        if listed != self.requests.len() {
            return Err(AuditError::Requests { listed, open: self.requests.len() });
        }
        self.audit_outstanding()?;
        // What a peer that is gone was sent, or read, leaves the whole's count later.
        let found = self.connections.iter().map(|(_, connection)| connection.window_bytes).sum();
        if self.window_bytes_total < found {
            return Err(AuditError::Window { counted: self.window_bytes_total, found });
        }
        let found = self.connections.iter().map(|(_, connection)| connection.body_bytes).sum();
        if self.body_bytes_total < found {
            return Err(AuditError::Bodies { counted: self.body_bytes_total, found });
        }
        Ok(())
    }

    fn audit_outstanding(&self) -> Result<(), AuditError> {
        let mut under_way: HashMap<Name, u32> = HashMap::new();
        let tickets = self.tickets.iter().filter_map(|(_, pending)| pending.request);
        let reads = self.reads.iter().map(|(_, flight)| flight.request);
        tickets.chain(reads).for_each(|name| *under_way.entry(name).or_default() += 1);
        for (name, open) in self.requests.iter() {
            let found = under_way.get(&name).copied().unwrap_or(0);
            // The joining of a manifest's body is under way elsewhere.
            if open.outstanding < found || open.outstanding > found + 1 {
                return Err(AuditError::Outstanding { counted: open.outstanding, found });
            }
        }
        Ok(())
    }
}
