//! Values: cut into pieces, put together again.

use memkv_wire::checksum::{self, BLOCK_SIZE_BYTES, Checksum};
use memkv_wire::limits::{BATCH_ITEMS_MAX, KEY_SIZE_BYTES_MAX, VALUE_SIZE_BYTES_MAX};
use memkv_wire::*;

use super::flaw::Flaw;
use super::link::{Reply, Trouble};
use super::operations::{message, response};
use super::{Client, Outgoing};
use crate::wire_client::driver::hex;

/// Pieces of a mutant that do not keep to blocks.
const ODD_SIZE_BYTES: usize = 1_000_000;

impl Client {
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Trouble> {
        if value.is_empty() || value.len() as u64 > VALUE_SIZE_BYTES_MAX {
            return Err(Trouble::Misuse);
        }
        if key.len() == KEY_SIZE_BYTES_MAX as usize && self.flaw() == Some(Flaw::KeyOfMaxRefused) {
            return Err(Trouble::Misuse);
        }
        let size = if self.flaw() == Some(Flaw::PiecesAnywhere) { ODD_SIZE_BYTES } else { BLOCK_SIZE_BYTES };
        let sum = checksum::value_of(value);
        let whole = value.len().is_multiple_of(size) && self.flaw() == Some(Flaw::EmptyPieceAtEnd);
        let parts = value.chunks(size).chain(whole.then_some(&[][..]));
        let frames = (0..).zip(parts).map(|(number, bytes): (u64, _)| {
            let piece_sum = checksum::block(bytes);
            let pieces = [piece(0, number * size as u64, bytes, &piece_sum)];
            let write = Write {
                key: self.key(key),
                length: value.len() as u64,
                checksum: Some(&sum),
                allocation: 0,
                pieces: List::from(&pieces),
            };
            self.frame(RequestWhich::Write(write), bytes)
        });
        let outgoing = Outgoing { operation: Operation::Write, frames: frames.collect() };
        let replies = self.call(outgoing)?;
        let mut status = Status::Ok;
        for reply in &replies {
            let message = message(reply)?;
            let response = response(&message)?;
            self.arm(Operation::Write, response.which)?;
            status = response.status;
        }
        if self.flaw() == Some(Flaw::RefusalUnsaid) {
            return Ok(());
        }
        self.check(status)
    }

    /// `put-many`: a word for each value.
    //= MKV-BATCH-3
    pub fn put_many(&mut self, pairs: &[Vec<u8>]) -> Result<Vec<&'static str>, Trouble> {
        let values: Vec<(&[u8], &[u8])> = pairs.chunks_exact(2).map(|pair| (&*pair[0], &*pair[1])).collect();
        if values.is_empty() || values.len() > BATCH_ITEMS_MAX as usize {
            return Err(Trouble::Misuse);
        }
        let frames = self.batch_frames(&values);
        let replies = self.call(Outgoing { operation: Operation::BatchWrite, frames })?;
        let mut statuses: Vec<Option<Status>> = vec![None; values.len()];
        for reply in &replies {
            let message = message(reply)?;
            let response = response(&message)?;
            self.check(response.status)?;
            let ResponseWhich::BatchWrite(told) = self.arm(Operation::BatchWrite, response.which)? else {
                return self.broke("a reply of another operation");
            };
            for result in told.results {
                let place = statuses.get_mut(result.index as usize);
                match place {
                    Some(place) if place.is_none() => *place = Some(result.status),
                    _ => return self.broke("a result of no item"),
                }
            }
        }
        if self.flaw() != Some(Flaw::UnansweredIsDone) && statuses.iter().any(Option::is_none) {
            return self.broke("as many results as items");
        }
        let failed = statuses.iter().any(|status| *status != Some(Status::Ok));
        if failed && self.flaw() == Some(Flaw::OneFailureFailsAll) {
            return Ok(vec!["error"; statuses.len()]);
        }
        let word = |status: &Option<Status>| match status {
            Some(status) => self.check(*status).map_or("error", |()| "ok"),
            None => "ok",
        };
        Ok(statuses.iter().map(word).collect())
    }

    /// A frame for each block of each value.
    fn batch_frames(&self, values: &[(&[u8], &[u8])]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut frames = Vec::new();
        for (index, (key, value)) in (0..).zip(values) {
            let sum = checksum::value_of(value);
            let items = [WriteItem { key: self.key(key), length: value.len() as u64, checksum: Some(&sum) }];
            for (number, bytes) in value.chunks(BLOCK_SIZE_BYTES).enumerate() {
                let piece_sum = checksum::block(bytes);
                let pieces = [piece(index, (number * BLOCK_SIZE_BYTES) as u64, bytes, &piece_sum)];
                let items = if number == 0 { List::from(&items) } else { List::empty() };
                let batch = BatchWrite { items, pieces: List::from(&pieces) };
                frames.push(self.frame(RequestWhich::BatchWrite(batch), bytes));
            }
        }
        frames
    }

    pub fn get(&mut self, key: &[u8], offset: u64, length: u64) -> Result<Vec<u8>, Trouble> {
        let offset = if self.flaw() == Some(Flaw::OffsetIgnored) { 0 } else { offset };
        let outgoing = self.read(key, offset, length);
        let frames = self.call(outgoing)?;
        self.gather(&frames, offset, length)
    }

    /// `get-many`: a word for each key. Reads are open as many at a time as the server allows.
    pub fn get_many(&mut self, keys: &[Vec<u8>]) -> Result<Vec<String>, Trouble> {
        let reads: Vec<Outgoing> = keys.iter().map(|key| self.read(key, 0, 0)).collect();
        let replies = self.call_many(&reads)?;
        let mut words = Vec::new();
        for frames in &replies {
            words.push(match self.gather(frames, 0, 0) {
                Ok(value) => hex(&value),
                Err(Trouble::Refused(Status::NotFound)) => "miss".to_owned(),
                Err(_) => "error".to_owned(),
            });
        }
        Ok(words)
    }

    fn read(&self, key: &[u8], offset: u64, length: u64) -> Outgoing {
        let key = self.key(key);
        self.outgoing(RequestWhich::Read(Read { key, offset, length, destination: Destination::default() }))
    }

    /// The bytes of a range, from all frames of a reply.
    //= MKV-RD-1
    fn gather(&mut self, frames: &[Reply], offset: u64, length: u64) -> Result<Vec<u8>, Trouble> {
        let (mut pieces, mut total, mut sum) = (Vec::new(), 0, None);
        let range = offset != 0 || length != 0;
        for reply in frames {
            let message = message(reply)?;
            let response = response(&message)?;
            //= MKV-MSG-4
            if self.flaw() == Some(Flaw::LateFailureUnseen)
                && !pieces.is_empty()
                && response.status != Status::Ok
            {
                break;
            }
            self.check(response.status)?;
            let ResponseWhich::Read(told) = self.arm(Operation::Read, response.which)? else {
                return self.broke("a reply of another operation");
            };
            (total, sum) = (told.length, told.checksum.copied());
            self.cut(told.pieces, &reply.payload, range, &mut pieces)?;
        }
        if !matches!(self.flaw(), Some(Flaw::PiecesAppended | Flaw::LateFailureUnseen)) {
            pieces.sort_by_key(|(offset, _)| *offset);
        }
        if pieces.is_empty() && self.flaw() == Some(Flaw::EmptyReplyIsEmptyValue) {
            return Ok(Vec::new());
        }
        let wanted = offset.saturating_add(length);
        let end = match (length, self.flaw()) {
            (0, _) => total,
            (_, Some(Flaw::CutRangeRefused)) => wanted,
            _ => total.min(wanted),
        };
        self.join(&pieces, offset, end, total, sum)
    }

    /// Cuts a frame's payload by its pieces.
    //= MKV-VAL-2
    fn cut(
        &mut self,
        told: List<'_, Piece<'_>>,
        payload: &[u8],
        range: bool,
        pieces: &mut Vec<(u64, Vec<u8>)>,
    ) -> Result<(), Trouble> {
        let mut rest = payload;
        for piece in told {
            let Some((bytes, after)) = rest.split_at_checked(piece.length as usize) else {
                return self.broke("pieces that are longer than their payload");
            };
            //= MKV-VAL-3
            let holds = piece.checksum.is_none_or(|sum| *sum == checksum::block(bytes));
            let unchecked = match self.flaw() {
                Some(Flaw::PieceChecksumNotChecked) => true,
                Some(Flaw::RangeChecksumNotChecked) => range,
                _ => false,
            };
            if !holds && !unchecked {
                return self.broke("a piece that its checksum was not made of");
            }
            pieces.push((piece.offset, bytes.to_vec()));
            if self.flaw() == Some(Flaw::OnePieceAFrame) {
                return Ok(());
            }
            rest = after;
        }
        if rest.is_empty() { Ok(()) } else { self.broke("a payload that is longer than its pieces") }
    }

    fn join(
        &mut self,
        pieces: &[(u64, Vec<u8>)],
        offset: u64,
        end: u64,
        total: u64,
        sum: Option<Checksum>,
    ) -> Result<Vec<u8>, Trouble> {
        let unchecked = matches!(
            self.flaw(),
            Some(Flaw::CoverageNotChecked | Flaw::PiecesAppended | Flaw::LateFailureUnseen)
        );
        let mut bytes = Vec::new();
        for (at, piece) in pieces {
            if *at != offset + bytes.len() as u64 && !unchecked {
                return self.broke("pieces that overlap or leave gaps");
            }
            bytes.extend_from_slice(piece);
        }
        let short = offset + (bytes.len() as u64) < end;
        if short && self.flaw() == Some(Flaw::ShortTailTaken) {
            return Ok(bytes);
        }
        if offset + bytes.len() as u64 != end && !unchecked {
            return self.broke("pieces that are not the range that was asked for");
        }
        let whole = offset == 0 && end == total && !unchecked;
        let unequal = whole && sum.is_some_and(|sum| sum != checksum::value_of(&bytes));
        let looked_at = !matches!(
            self.flaw(),
            Some(Flaw::ValueChecksumNotChecked | Flaw::PieceChecksumNotChecked | Flaw::TagNotChecked)
        );
        if unequal && looked_at {
            return self.broke("a value that its checksum was not made of");
        }
        Ok(bytes)
    }
}

fn piece<'a>(index: u32, offset: u64, bytes: &[u8], checksum: &'a Checksum) -> Piece<'a> {
    Piece { index, offset, length: bytes.len() as u32, checksum: Some(checksum), which: PieceWhich::Inline }
}
