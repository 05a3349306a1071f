//! The task that takes a queue pair's completions as events tell of them, and wakes whoever waited for what they are of; and that notices when the peer
//! closes the socket beside it.
//!
//! Invariants: an event is asked for only when the one before was taken, so that the channel never holds more than one; completions are looked
//! for after asking, for those that came before have no event. It ends with the last half of the connection.

#![expect(unsafe_code, reason = "waits for a file that libibverbs owns")]

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::task::Poll;

use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::tcp::OwnedReadHalf;
use tokio::task::AbortHandle;

use super::RdmaError;
use super::endpoint::Shared;

/// Looks for completions that found none, after which an event is waited for.
const LOOKS_MAX: u32 = 2;

/// Begins to take completions. Must be called inside a runtime.
pub(super) fn spawn(shared: Arc<Shared>, socket: OwnedReadHalf) -> io::Result<AbortHandle> {
    // SAFETY: the channel's file is open, and stays the same one, for as long as `Events` holds the queue pair.
    let events = unsafe { AsyncFd::register_with_interest(Events(shared), Interest::READABLE) }?;
    Ok(tokio::spawn(run(events, socket)).abort_handle())
}

/// What wakes the pump.
#[derive(Debug)]
struct Events(Arc<Shared>);

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.pair.as_fd()
    }
}

/// Takes completions as events tell of them.
async fn run(events: AsyncFd<Events>, socket: OwnedReadHalf) {
    let shared = &events.get_ref().0;
    let mut socket = Some(socket);
    let ended: Result<(), PumpError> = async {
        loop {
            shared.pair.arm()?;
            // What came before events were asked for has none.
            shared.advance();
            let mut ready = event(&events, &mut socket).await?;
            // There is one event, and no other before the next is asked for: it need not be looked for until the file says that there is none.
            shared.pair.take_event()?;
            ready.clear_ready();
            shared.advance();
            linger(shared).await;
        }
    }
    .await;
    if ended.is_err() {
        shared.lose_events();
    }
}

/// Waits for an event. Should the socket end meanwhile, everybody is told, and it is looked at no more.
async fn event<'a>(
    events: &'a AsyncFd<Events>,
    socket: &mut Option<OwnedReadHalf>,
) -> io::Result<AsyncFdReadyGuard<'a, Events>> {
    loop {
        tokio::select! {
            biased;
            ready = events.readable() => return ready,
            stray = end(socket.as_mut()) => {
                *socket = None;
                events.get_ref().0.end(stray);
            }
        }
    }
}

/// Waits until the peer closed its side, however it did; true: it sent something.
async fn end(socket: Option<&mut OwnedReadHalf>) -> bool {
    match socket {
        Some(socket) => socket.read(&mut [0; 1]).await.is_ok_and(|size_bytes| size_bytes > 0),
        None => std::future::pending().await,
    }
}

/// Takes what comes while others have their turn: whoever waited for what came has answered by then, and where both ends share a processor, so has the
/// peer. An event costs three system calls, and what the runtime does while it waits; a look costs none.
async fn linger(shared: &Shared) {
    let mut looks = 0;
    while looks < LOOKS_MAX {
        at_the_end_of_the_queue().await;
        looks = if shared.advance() { 0 } else { looks + 1 };
    }
}

/// Lets the tasks that wait for their turn have it, and no more: unlike [`tokio::task::yield_now`], which has the runtime look at its files and at the clock first, when it
/// has nothing else to do.
async fn at_the_end_of_the_queue() {
    let mut had_turn = false;
    poll_fn(|context| {
        if std::mem::replace(&mut had_turn, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[derive(Debug, thiserror::Error)]
enum PumpError {
    #[error(transparent)]
    Rdma(#[from] RdmaError),
    #[error(transparent)]
    Io(#[from] io::Error),
}
