//! Carries out a read: fetches the records' bytes and checks every one of them. Heavy byte work, never under a lock.
//!
//! Nothing that does not hold leaves here: a record's header is checked against its tag and key, each block against
//! the checksum that its writer made.

use std::ops::Range;

use memkv_transport::buf::{Buf, BufMut};
use memkv_transport::planted::{self, Bug};

use crate::service::{ReadCommand, ReadError, ReadOutcome, ReadPiece};
use crate::store::{BLOCK_BYTES, Checksum, IoError, RecordRead};

/// Where the bytes come from, and the memory they are read into.
pub trait Source {
    /// Fills the buffer.
    fn read(&mut self, device: u16, offset: u64, into: &mut [u8]) -> Result<(), IoError>;

    fn buffer(&mut self, size_bytes: usize) -> Option<BufMut>;
}

//= MKV-RD-2
pub fn execute(command: &ReadCommand, source: &mut impl Source) -> Result<ReadOutcome, ReadError> {
    let mut outcome = ReadOutcome::default();
    for record in command.plan.records.get(command.records.clone()).unwrap_or_default() {
        execute_record(record, &command.range, source, &mut outcome)?;
    }
    Ok(outcome)
}

fn execute_record(
    record: &RecordRead,
    range: &Range<u64>,
    source: &mut impl Source,
    outcome: &mut ReadOutcome,
) -> Result<(), ReadError> {
    let (head, data) = if record.is_contiguous() {
        let all = fetch(source, record.device, record.head_offset, record.head_bytes + record.data_bytes)?;
        let data = all.slice(record.head_bytes..all.len());
        (all, data)
    } else {
        let head = fetch(source, record.device, record.head_offset, record.head_bytes)?;
        let data = match record.data_bytes {
            0 => Buf::default(),
            size_bytes => fetch(source, record.device, record.data_offset, size_bytes)?,
        };
        (head, data)
    };
    let checksums = record.check_head(&head)?;
    for (index, place) in record.blocks.iter().enumerate() {
        let from = if place.in_head { &head } else { &data };
        let block = from.slice(place.at..place.at + place.length);
        let whole = record.check_block(&checksums, place.block, &block)?;
        let start = u64::from(place.block) * BLOCK_BYTES as u64;
        let wanted = range.start.max(start)..range.end.min(start + place.length as u64);
        if wanted.is_empty() {
            continue;
        }
        let mut bytes = block.slice((wanted.start - start) as usize..(wanted.end - start) as usize);
        let mut checksum = if bytes.len() == block.len() { whole } else { Checksum::of_block(&bytes) };
        if planted::is(Bug::WrongBlock) && index > 0 {
            let before = record.blocks[index - 1].at;
            bytes = from.slice(before..before + bytes.len());
            checksum = Checksum::of_block(&bytes);
        }
        outcome.pieces.push(ReadPiece { offset: wanted.start, length: bytes.len(), bytes, checksum });
    }
    outcome.block_checksums.extend(checksums.1);
    Ok(())
}

fn fetch(source: &mut impl Source, device: u16, offset: u64, size_bytes: usize) -> Result<Buf, ReadError> {
    let mut buffer = source.buffer(size_bytes).ok_or(ReadError::NoMemory)?;
    source.read(device, offset, &mut buffer)?;
    Ok(buffer.freeze())
}
