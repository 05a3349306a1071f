//! Writes of long values: in parts that spread over the connections.
//!
//! An allocation is made, its parts are written by messages of their own, and it is committed. What is cut off
//! anywhere leaves nothing visible: the server reclaims the allocation when its lease ends.

use memkv_transport::buf::Buf;
use memkv_wire::{Allocate, Status, limits, op};

use crate::batch::Again;
use crate::client::{Allocation, Client};
use crate::driver::{Event, run_all};
use crate::error::{Error, PeerMisbehaved, StorageError};
use crate::operation::with_response;
use crate::operation::write::{PutItem, WritePlace, value_checksum, write};

/// A value that is longer is written in parts.
pub(crate) const SPLIT_SIZE_BYTES: u64 = 32 << 20;
/// A part. A multiple of a block.
const PART_SIZE_BYTES: u64 = 8 << 20;

impl Client {
    /// Stores a long value. `None`: not this way, for it takes longer than an allocation lives.
    pub(crate) async fn put_in_parts(&self, key: &[u8], parts: &[Buf]) -> Result<Option<()>, Error> {
        let size_bytes = PutItem::new(key, parts).size_bytes();
        let checksum = value_checksum(parts);
        let request =
            Allocate { key, length: size_bytes, checksum: Some(&checksum), lease_ms: limits::LEASE_MS_MAX };
        let made = self.single::<op::Allocate, _>(self.options(), request, |reply| match reply.present {
            true => Allocation::Present,
            false => Allocation::Made { id: reply.allocation, lease_ms: reply.lease_ms },
        });
        let Allocation::Made { id, .. } = made.await? else { return Ok(Some(())) };
        let written = match self.write_parts(key, id, size_bytes, parts).await {
            Ok(()) => self.commit(id).await,
            failed => failed,
        };
        match written {
            Ok(()) => Ok(Some(())),
            Err(Error::Storage(StorageError { status: Status::LeaseExpired, .. })) => Ok(None),
            // Whether it was committed is not known.
            Err(error @ Error::Connection(_)) => match self.lookup(key, 0).await? {
                Some(found) if found.checksum == Some(checksum) => Ok(Some(())),
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    async fn write_parts(
        &self,
        key: &[u8],
        allocation: u64,
        length: u64,
        parts: &[Buf],
    ) -> Result<(), Error> {
        let mut retry = Again::new(self.options());
        let cut = cut(parts);
        loop {
            let mut calls = Vec::with_capacity(cut.len());
            let mut statuses: Vec<Option<(Status, Box<str>)>> = vec![None; cut.len()];
            for (place, part) in cut.iter().enumerate() {
                let offset = place as u64 * PART_SIZE_BYTES;
                let at = WritePlace::At { allocation, offset, length };
                calls.push(
                    self.shared().call(retry.options(), |m| write(m, self.namespace(), key, at, part))?,
                );
            }
            let ended = run_all(self.shared(), &mut calls, |place, event| {
                statuses[place] = match event {
                    Event::Frame(frame) => Some(with_response(frame, |r| Ok((r.status, r.detail.into())))?),
                    Event::Restarted => None,
                };
                Ok(())
            });
            match ended.await {
                Err(error) if retry.anew(&error) => continue,
                ended => ended?,
            }
            return statuses.into_iter().try_for_each(|status| match status {
                Some((Status::Ok, _)) => Ok(()),
                //= MKV-STAT-1
                Some((status, detail)) => Err(StorageError { status, detail }.into()),
                None => Err(PeerMisbehaved::Results.into()),
            });
        }
    }
}

/// The same bytes, cut anew; they are shared, not copied.
fn cut(parts: &[Buf]) -> Vec<Vec<Buf>> {
    let mut cut: Vec<Vec<Buf>> = vec![Vec::new()];
    let mut room = PART_SIZE_BYTES as usize;
    for part in parts {
        let mut start = 0;
        while start < part.len() {
            if room == 0 {
                cut.push(Vec::new());
                room = PART_SIZE_BYTES as usize;
            }
            let end = part.len().min(start + room);
            room -= end - start;
            cut.last_mut().into_iter().for_each(|last| last.push(part.slice(start..end)));
            start = end;
        }
    }
    cut
}
