//! Messages whose last frame has not come. What they hold, others wait for, so a peer that falls silent in one is closed.
//!
//! All of them are looked at once in a while, and one of which no frame came since the last look ends its connection: it has had
//! this time once, and never twice. A frame costs no more than a mark.

use super::Service;
use super::connection::{CloseReason, ConnectionId};

/// How many there are, and when they are looked at.
#[derive(Debug, Default)]
pub(super) struct Unended {
    count: usize,
    look_ms: u64,
}

impl Service {
    /// A message was begun with a frame that is not its last.
    pub(super) fn begin_unended(&mut self) {
        if self.unended.count == 0 {
            self.unended.look_ms = self.now_ms + self.limits.stall_ms_max;
        }
        self.unended.count += 1;
    }

    /// The last frame of one came, or it is forgotten.
    pub(super) fn end_unended(&mut self) {
        self.unended.count -= 1;
    }

    /// There is no memory for what peers send: no silence up to the next look is theirs.
    pub fn receives_nothing(&mut self) {
        self.connections.iter_mut().for_each(|connection| connection.waited = true);
    }

    /// When they are looked at next, if there are any.
    pub(super) fn next_look_ms(&self) -> Option<u64> {
        (self.unended.count > 0).then_some(self.unended.look_ms)
    }

    /// Closes connections that have said nothing for too long, if it is time to look.
    pub(super) fn close_silent(&mut self) {
        if self.next_look_ms().is_none_or(|look_ms| self.now_ms < look_ms) {
            return;
        }
        self.unended.look_ms = self.now_ms + self.limits.stall_ms_max;
        let mut silent: Vec<ConnectionId> = Vec::new();
        for open in self.requests.iter_mut().filter(|open| !open.ended) {
            let connection = self.connections.get(open.connection.0);
            // What it sends is not received.
            let waits = connection.is_some_and(|connection| connection.waited);
            if !std::mem::take(&mut open.heard) && !waits {
                silent.push(open.connection);
            }
        }
        for connection in self.connections.iter_mut() {
            connection.waited = connection.paused;
        }
        for connection in silent {
            if self.connections.get(connection.0).is_some() {
                self.close(connection, CloseReason::MessageStalled);
            }
        }
    }
}
