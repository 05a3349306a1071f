//! What connects the service's outputs with one peer's tasks: frames to be sent, and whether to receive.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use memkv_transport::stream::Outgoing;
use tokio::sync::Notify;

use super::regions::Regions;

#[derive(Default)]
pub(super) struct Link {
    /// The memory that the peer registered.
    pub regions: Regions,
    state: Mutex<State>,
    /// For whoever sends.
    to_send: Notify,
    /// For whoever receives.
    resumed: Notify,
}

#[derive(Default)]
struct State {
    frames: VecDeque<Outgoing>,
    /// The payload bytes of these, and of what goes beside them or landed before them.
    payload_bytes: usize,
    paused: bool,
    end: End,
}

/// How far the link's end is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum End {
    #[default]
    Open,
    /// Nothing more is received; what waits is sent.
    Finishing,
    /// Nothing more is received or sent.
    Closed,
}

impl Link {
    pub fn new(regions: Regions) -> Link {
        Link { regions, ..Link::default() }
    }

    pub fn push(&self, frame: Outgoing) {
        let mut state = self.lock();
        state.payload_bytes += frame.payload_size_bytes();
        state.frames.push_back(frame);
        drop(state);
        self.to_send.notify_one();
    }

    /// The payload bytes that wait to be sent; `None` when no frame waits.
    pub fn waiting_bytes(&self) -> Option<usize> {
        let state = self.lock();
        (!state.frames.is_empty()).then_some(state.payload_bytes)
    }

    pub fn pause(&self, paused: bool) {
        self.lock().paused = paused;
        if !paused {
            self.resumed.notify_one();
        }
    }

    pub fn finish(&self) {
        self.end(End::Finishing);
    }

    pub fn close(&self) {
        self.end(End::Closed);
    }

    fn end(&self, end: End) {
        let mut state = self.lock();
        if state.end != End::Closed {
            state.end = end;
        }
        drop(state);
        self.to_send.notify_one();
        self.resumed.notify_one();
    }

    /// Takes the frames that wait, or waits for some. `None` when there will be no more.
    pub async fn take(&self, into: &mut VecDeque<Outgoing>) -> Option<()> {
        loop {
            {
                let mut state = self.lock();
                if state.end == End::Closed {
                    return None;
                }
                if !state.frames.is_empty() {
                    std::mem::swap(&mut state.frames, into);
                    state.payload_bytes = 0;
                    return Some(());
                }
                if state.end == End::Finishing {
                    return None;
                }
            }
            self.to_send.notified().await;
        }
    }

    /// Takes the frames that wait, behind those that are there. False when nothing more is to be sent.
    pub fn take_more(&self, into: &mut VecDeque<Outgoing>) -> bool {
        let mut state = self.lock();
        into.append(&mut state.frames);
        state.payload_bytes = 0;
        state.end != End::Closed
    }

    /// Frames that will not be sent.
    pub fn leftovers(&self) -> VecDeque<Outgoing> {
        std::mem::take(&mut self.lock().frames)
    }

    /// Waits until something may be received. False: nothing ever again.
    pub async fn may_receive(&self) -> bool {
        loop {
            {
                let state = self.lock();
                if state.end != End::Open {
                    return false;
                }
                if !state.paused {
                    return true;
                }
            }
            self.resumed.notified().await;
        }
    }

    /// Waits until nothing more is to be received.
    pub async fn ended(&self) {
        while self.lock().end == End::Open {
            self.resumed.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
