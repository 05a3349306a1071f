//! Sending: turns messages into signed frames.
//!
//! Owns one direction's keys and its sequence number, which rises by one with every frame. Frames must reach the wire in the order in
//! which they were sealed. It copies no payload and allocates nothing.

use memkv_wire::control::ControlBuf;
use memkv_wire::frame::{CONTROL_SIZE_BYTES_MAX, Extent, Flags, Header, Kind, PAYLOAD_SIZE_BYTES_MAX};
use memkv_wire::mac::{BulkKey, ControlMac, Tag};
use zerocopy::IntoBytes;

use crate::error::SealError;

/// Seals the frames of one direction of a connection.
#[derive(Debug)]
pub struct Sealer {
    control_mac: ControlMac,
    bulk_key: BulkKey,
    kind: Kind,
    sequence: u64,
}

/// A frame ready to be written: head, then payload, then tag, with nothing between.
#[derive(Debug)]
pub struct OutFrame<'a, P> {
    /// Header and control message.
    pub head: &'a [u8],
    pub payload: &'a [P],
    /// There exactly when the payload is not empty.
    pub tag: Option<Tag>,
}

impl<P: AsRef<[u8]>> OutFrame<'_, P> {
    pub fn size_bytes(&self) -> usize {
        self.slices().map(<[u8]>::len).sum()
    }

    /// The frame's bytes, in order.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let tag = self.tag.iter().map(<[u8; 32]>::as_slice);
        std::iter::once(self.head).chain(self.payload.iter().map(P::as_ref)).chain(tag)
    }
}

impl Sealer {
    pub(crate) fn new(control_mac: ControlMac, bulk_key: BulkKey, kind: Kind, sequence: u64) -> Sealer {
        Sealer { control_mac, bulk_key, kind, sequence }
    }

    /// Seals the message in `control`, writing the header into its head room, and signs the payload.
    pub fn seal<'a, P: AsRef<[u8]>>(
        &mut self,
        request_id: u32,
        last: bool,
        control: &'a mut ControlBuf,
        payload: &'a [P],
    ) -> Result<OutFrame<'a, P>, SealError> {
        let tag = self.sign(request_id, last, control, payload)?;
        Ok(OutFrame { head: control.frame(), payload, tag })
    }

    /// As [`Sealer::seal`], for a caller that keeps message and payload itself.
    //= MKV-CONN-3
    //= MKV-FRAME-4
    //= MKV-FRAME-7
    pub(crate) fn sign<P: AsRef<[u8]>>(
        &mut self,
        request_id: u32,
        last: bool,
        control: &mut ControlBuf,
        payload: &[P],
    ) -> Result<Option<Tag>, SealError> {
        let extent = check(control.control(), payload)?;
        let mut header = Header::new(self.kind, Flags::new(last), request_id, extent, self.sequence);
        self.sequence += 1;
        sign_header(&self.control_mac, &mut header, control.control());
        control.head_mut().copy_from_slice(header.as_bytes());
        if extent.payload_size_bytes == 0 {
            return Ok(None);
        }
        let mut hasher = self.bulk_key.begin();
        hasher.update(header.as_bytes());
        for part in payload {
            hasher.update(part.as_ref());
        }
        Ok(Some(hasher.finish()))
    }

    /// The key of the tags.
    pub fn bulk_key(&self) -> &BulkKey {
        &self.bulk_key
    }

    /// The sequence number of the next frame.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// Puts the MAC over header and control message into the header.
pub(crate) fn sign_header(mac: &ControlMac, header: &mut Header, control: &[u8]) {
    header.mac = mac.tag(&[header.signed_bytes(), control]);
}

/// The lengths of a frame, if it can be sent.
pub(crate) fn check<P: AsRef<[u8]>>(control: &[u8], payload: &[P]) -> Result<Extent, SealError> {
    let control_size_bytes = control.len();
    let payload_size_bytes = payload.iter().map(|part| part.as_ref().len()).sum();
    if control_size_bytes == 0 {
        return Err(SealError::NoControl);
    }
    if control_size_bytes > CONTROL_SIZE_BYTES_MAX {
        return Err(SealError::ControlTooLong { size_bytes: control_size_bytes });
    }
    if payload_size_bytes > PAYLOAD_SIZE_BYTES_MAX {
        return Err(SealError::PayloadTooLong { size_bytes: payload_size_bytes });
    }
    Ok(Extent { control_size_bytes, payload_size_bytes })
}
