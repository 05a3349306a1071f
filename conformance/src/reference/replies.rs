//! What the reference server sends: frames of replies, right or spoilt.

use std::io::{self, Write as _};
use std::net::Shutdown;
use std::time::Duration;

use memkv_wire::frame::{Kind, VERSION};
use memkv_wire::*;

use super::connection::{Connection, Event, Over};
use super::flaw::Flaw;
use super::operations::Out;
use super::quirk::Quirk;
use crate::peer::frame::Frame;

/// Between the pieces of a frame, for [`Quirk::InPieces`].
const PAUSE: Duration = Duration::from_millis(5);

impl Connection<'_> {
    pub fn send(&mut self, id: u32, out: Out) -> Result<(), Over> {
        let count = out.frames.len();
        for (number, (control, payload)) in (1..).zip(out.frames) {
            self.send_frame(id, number == count, control, payload)?;
        }
        Ok(())
    }

    /// Sends all answers that wait, the last one first, their frames taking turns.
    //= MKV-MSG-2
    pub fn send_held(&mut self) -> Result<(), Over> {
        let held = std::mem::take(&mut self.held);
        let mut replies: Vec<_> =
            held.into_iter().rev().map(|(id, out)| (id, out.frames.into_iter().peekable())).collect();
        while !replies.is_empty() {
            for (id, frames) in &mut replies {
                if let Some((control, payload)) = frames.next() {
                    let last = frames.peek().is_none();
                    self.send_frame(*id, last, control, payload)?;
                }
            }
            replies.retain_mut(|(_, frames)| frames.peek().is_some());
        }
        Ok(())
    }

    fn send_frame(&mut self, id: u32, last: bool, control: Vec<u8>, payload: Vec<u8>) -> Result<(), Over> {
        let last = last && self.flaw() != Some(Flaw::ReplyNeverEnds);
        if self.flaw() == Some(Flaw::HelloLater) {
            let mut hello = Frame::new(Kind::Hello, true, self.key_id, self.out.sequence, &[], &[]);
            hello.sign_control(&self.out.mac);
            self.out.sequence += 1;
            self.misbehaved();
            self.write(&hello.bytes())?;
        }
        let bytes = self.seal(id, last, control, payload);
        match self.flaw() {
            Some(Flaw::ReplyCut) => {
                self.write(&bytes[..bytes.len() - 5])?;
                return Err(Over);
            }
            Some(Flaw::ReplySentTwice) => {
                self.misbehaved();
                self.write(&bytes)?;
            }
            _ => {}
        }
        self.write(&bytes)
    }

    fn misbehaved(&self) {
        self.shared.record(Event::Misbehaved { connection: self.number });
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Over> {
        let written = match self.quirk() {
            Some(Quirk::InPieces) => write_slowly(&mut self.stream, bytes),
            _ => self.stream.write_all(bytes),
        };
        written.map_err(|_| {
            // A client that no longer reads has ended the connection.
            self.shared.record(Event::Ended { connection: self.number });
            // Nobody is there to whom it would matter.
            let _ = self.stream.shutdown(Shutdown::Both);
            Over
        })
    }

    fn seal(&mut self, id: u32, last: bool, mut control: Vec<u8>, payload: Vec<u8>) -> Vec<u8> {
        match self.flaw() {
            Some(Flaw::ReplyMalformed) => control.fill(0xff),
            Some(Flaw::ReplyOutOfBounds) => put_out_of_bounds(&mut control),
            Some(Flaw::ReplyArmWrong) => {
                let out = Out::failed(Some(Operation::ListManifests), Status::Ok);
                control = out.frames.into_iter().next().map(|(control, _)| control).unwrap_or_default();
            }
            _ => {}
        }
        let mut frame = Frame::new(Kind::Response, last, id, self.out.sequence, &control, &payload);
        if self.quirk() == Some(Quirk::UnknownFlags) {
            frame.header.flags = (frame.header.flags().0 | 0x8004).into();
        }
        self.spoil_header(&mut frame);
        self.out.sequence += 1;
        frame.sign(&self.out.mac, &self.out.bulk);
        match self.flaw() {
            Some(Flaw::ReplyMacWrong) => frame.header.mac[7] ^= 1,
            Some(Flaw::ReplyTagWrong) => frame.tag[7] ^= 1,
            Some(Flaw::ReplyMacLastByteWrong) => frame.header.mac[31] ^= 1,
            Some(Flaw::ReplyTagLastByteWrong) => frame.tag[31] ^= 1,
            Some(Flaw::ReplyPayloadChanged) => {
                frame.payload.first_mut().into_iter().for_each(|byte| *byte ^= 1)
            }
            _ => {}
        }
        if self.flaw().is_some_and(|flaw| flaw.spoils_frames(!payload.is_empty())) {
            self.misbehaved();
        }
        frame.bytes()
    }

    fn spoil_header(&self, frame: &mut Frame) {
        let header = &mut frame.header;
        let (id, sequence) = (header.id.get(), self.out.sequence);
        match self.flaw() {
            Some(Flaw::ReplyMagicWrong) => header.magic = 0x3256_4b4d.into(),
            Some(Flaw::ReplyIdWrong) => header.id = (id ^ 0x4000).into(),
            Some(Flaw::ReplyKindWrong) => header.kind = Kind::Request.code(),
            Some(Flaw::ReplyVersionWrong) => header.version = VERSION + 1,
            Some(Flaw::ReplyGrantsCredits) => header.credits = 1.into(),
            Some(Flaw::ReplyTooLong) => header.payload_length = (64 << 20).into(),
            Some(Flaw::ReplyControlTooLong) => header.control_words = u32::MAX.into(),
            Some(Flaw::ReplySequenceSkips) => header.sequence = (sequence + 1).into(),
            Some(Flaw::ReplySequenceHigh) => header.sequence = (sequence + (1 << 32)).into(),
            Some(Flaw::ReplySequenceRepeats) => header.sequence = 1.into(),
            _ => {}
        }
    }
}

/// `retryAfterMs`, bytes 4 to 7 of the root struct's data, is more than it may be.
fn put_out_of_bounds(control: &mut [u8]) {
    let Some(root) = control.first_chunk::<4>() else { return };
    // The distance from the root pointer to the struct, in words, is in its upper 30 bits.
    let data = 8 + (u32::from_le_bytes(*root) >> 2) as usize * 8;
    if let Some(field) = control.get_mut(data + 4..data + 8) {
        field.fill(0xff);
    }
}

fn write_slowly(stream: &mut impl io::Write, mut bytes: &[u8]) -> io::Result<()> {
    // Through the header, through the control message, through the payload.
    for part in [1, 60, 40, bytes.len() / 2, bytes.len()] {
        let (part, after) = bytes.split_at(part.min(bytes.len()));
        stream.write_all(part)?;
        bytes = after;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
