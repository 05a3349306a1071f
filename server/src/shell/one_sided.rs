//! A client's memory over its queue pair: fetching what it writes, putting what it reads.
//!
//! Bytes that a client wrote are fetched into memory of this side and looked at only there. Invariants:
//! - a place is registered when a transfer to or from it begins, and the device is never told of any other;
//! - frames of one message are taken in the order in which they came, though fetches are under way for several;
//! - a connection has at most [`FETCHES_MAX`] frames waiting for their bytes, each with at most a payload's worth, and none for longer than whoever
//!   waits for them allows: a peer serves the READs as slowly as it likes, and meanwhile holds this side's memory.
//!
//! What the client does to its memory meanwhile is its own loss: the MAC that came with the frame is held against what was fetched.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use memkv_transport::buf::{Buf, BufMut};
use memkv_transport::rdma::{self, Fetch, Part, RdmaError, RemotePlace};
use memkv_transport::stream::Beside;
use memkv_transport::verify::Checker;
use memkv_wire::{Piece, PieceWhich, Status};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use super::regions::Regions;
use crate::service::payload::{self, Check};

/// Frames of one connection that wait for their bytes at a time.
pub(super) const FETCHES_MAX: usize = 16;

/// What moves a connection's bytes, and what is asked of them.
#[derive(Debug)]
pub(super) struct OneSided {
    transfers: rdma::OneSided,
    checker: Checker,
}

/// A frame that waits for bytes, or behind one of its message that does.
#[derive(Debug)]
pub(super) struct Waiting<F = Fetch> {
    /// When it began to wait.
    pub begun: Instant,
    pub request_id: u32,
    pub last: bool,
    pub control: Vec<u8>,
    pub payload: Buf,
    /// For each of its pieces, whether it is fetched.
    pub fetched: Vec<bool>,
    /// None for one that only waits behind another.
    pub fetch: Option<F>,
}

/// A frame and its bytes, or why these will not come.
type Arrived<F> = Result<(Waiting<F>, BufMut), RdmaError>;

/// The frames of a connection that wait, in order.
#[derive(Debug)]
pub(super) struct Coming<F = Fetch>(VecDeque<Waiting<F>>);

impl<F> Default for Coming<F> {
    fn default() -> Coming<F> {
        Coming(VecDeque::new())
    }
}

impl<F: Future<Output = Result<BufMut, RdmaError>> + Unpin> Coming<F> {
    pub fn has_room(&self) -> bool {
        self.0.len() < FETCHES_MAX
    }

    /// Whether a frame of this message waits.
    pub fn holds(&self, request_id: u32) -> bool {
        self.0.iter().any(|waiting| waiting.request_id == request_id)
    }

    pub fn push(&mut self, waiting: Waiting<F>) {
        self.0.push_back(waiting);
    }

    /// The first one, with its bytes, when these are here; an error when they are not within so long after it came, whenever that was asked for.
    /// Never, while none waits. Dropping the future loses nothing.
    pub async fn next(&mut self, within: Duration) -> Result<Arrived<F>, Elapsed> {
        match self.0.front() {
            Some(first) => timeout_at(first.begun + within, self.arrival()).await,
            None => std::future::pending().await,
        }
    }

    async fn arrival(&mut self) -> Arrived<F> {
        std::future::poll_fn(|context| {
            let Some(first) = self.0.front_mut() else { return Poll::Pending };
            let bytes = match &mut first.fetch {
                Some(fetch) => ready!(Pin::new(fetch).poll(context)),
                None => Ok(BufMut::default()),
            };
            match self.0.pop_front() {
                Some(first) => Poll::Ready(bytes.map(|bytes| (first, bytes))),
                None => Poll::Pending,
            }
        })
        .await
    }
}

/// The places that a frame names.
#[derive(Debug, Default)]
pub(super) struct Places {
    parts: Vec<Part>,
    size_bytes: usize,
    /// For each piece of the frame, whether it is fetched.
    pub fetched: Vec<bool>,
}

impl OneSided {
    pub fn new(transfers: rdma::OneSided, checker: Checker) -> OneSided {
        OneSided { transfers, checker }
    }

    /// Begins to fetch the pieces of a frame.
    pub fn fetch(&self, into: BufMut, places: &Places) -> Result<Fetch, RdmaError> {
        self.transfers.fetch(into, &places.parts)
    }

    /// Begins to put what goes beside a frame in the client's memory. What has no place there any more is left out: the client finds that its MAC
    /// does not hold. Answers how many bytes are on their way.
    pub fn put(&self, regions: &Regions, beside: &[Beside]) -> Result<u64, RdmaError> {
        let mut put_bytes = 0;
        for Beside { bytes, to, .. } in beside {
            let Some(to) = to else { continue };
            if let Some(remote) = regions.remote(to.region, to.offset, bytes.len()) {
                let place = RemotePlace { address: remote.address, key: remote.key };
                self.transfers.put(bytes.clone(), place)?;
                put_bytes += bytes.len() as u64;
            }
        }
        Ok(put_bytes)
    }
}

impl Places {
    /// Those of a frame's pieces, with the place that each gets in one buffer.
    pub fn of<'a>(pieces: impl Iterator<Item = Piece<'a>>, regions: &Regions) -> Places {
        let mut places = Places::default();
        for piece in pieces {
            let length = piece.length as usize;
            let PieceWhich::Region(place) = piece.which else {
                places.fetched.push(false);
                continue;
            };
            let remote = regions.remote(place.id, place.offset, length).filter(|_| length > 0);
            if let Some(remote) = remote {
                let from = RemotePlace { address: remote.address, key: remote.key };
                places.parts.push(Part { at: places.size_bytes, size_bytes: length, from });
            }
            places.fetched.push(remote.is_some() || length == 0);
            places.size_bytes += length;
        }
        places
    }

    /// Of one buffer for all of them.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

/// What was fetched for a frame, as the service is given it.
#[derive(Debug)]
pub(super) struct Fetched<'a> {
    pub one_sided: &'a OneSided,
    pub pieces: &'a [bool],
}

impl payload::Regions for Fetched<'_> {
    /// The bytes are in place, if they ever will be.
    fn read(&self, piece: usize, _: u32, _: u64, _: &mut [u8]) -> Result<(), Status> {
        match self.pieces.get(piece) {
            Some(true) => Ok(()),
            //= MKV-REG-1
            Some(false) | None => Err(Status::Invalid),
        }
    }

    fn check(&self) -> Check {
        self.one_sided.checker.begin().map_or(Check::Nothing, Check::Mac)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Pending, pending, poll_fn};
    use std::pin::pin;

    use super::*;

    fn waiting<F>(fetch: Option<F>) -> Waiting<F> {
        Waiting {
            begun: Instant::now(),
            request_id: 1,
            last: true,
            control: Vec::new(),
            payload: Buf::default(),
            fetched: Vec::new(),
            fetch,
        }
    }

    async fn is_pending(future: impl Future) -> bool {
        let mut future = pin!(future);
        poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
    }

    #[tokio::test]
    async fn a_fetch_that_does_not_end_is_given_up() {
        const LONG: Duration = Duration::from_secs(3600);
        let mut coming = Coming::<Pending<Result<BufMut, RdmaError>>>::default();
        assert!(is_pending(coming.next(Duration::ZERO)).await, "nothing waits, for as long as it likes");
        coming.push(waiting(Some(pending())));
        // The wait for it began with it, and not when it was asked for last.
        assert!(is_pending(coming.next(LONG)).await);
        assert!(coming.next(Duration::ZERO).await.is_err());
    }

    #[tokio::test]
    async fn bytes_that_are_here_are_taken_however_late() {
        let mut coming = Coming::<Pending<Result<BufMut, RdmaError>>>::default();
        coming.push(waiting(None));
        assert!(coming.next(Duration::ZERO).await.is_ok_and(|arrived| arrived.is_ok()));
    }
}
