//! One frame, and how it is written and read.

use std::io::{self, Read, Write};

use memkv_wire::frame::{Extent, Flags, HEADER_SIZE_BYTES, Header, Kind};
use memkv_wire::mac::{BulkKey, ControlMac, Tag};
use zerocopy::IntoBytes as _;

/// A frame as it is on the wire, right or wrong.
#[derive(Clone, Debug)]
pub struct Frame {
    pub header: Header,
    pub control: Vec<u8>,
    pub payload: Vec<u8>,
    /// Sent only when the header announces a payload.
    pub tag: Tag,
}

impl Frame {
    /// A frame that lacks its MAC and its tag.
    pub fn new(kind: Kind, last: bool, id: u32, sequence: u64, control: &[u8], payload: &[u8]) -> Frame {
        let extent = Extent { control_size_bytes: control.len(), payload_size_bytes: payload.len() };
        Frame {
            header: Header::new(kind, Flags::new(last), id, extent, sequence),
            control: control.to_vec(),
            payload: payload.to_vec(),
            tag: [0; 32],
        }
    }

    /// Makes the MAC, then the tag, for whatever the frame holds now.
    pub fn sign(&mut self, mac: &ControlMac, bulk: &BulkKey) {
        self.sign_control(mac);
        self.tag = bulk.tag(&[self.header.as_bytes(), &self.payload]);
    }

    pub fn sign_control(&mut self, mac: &ControlMac) {
        self.header.mac = mac.tag(&[self.header.signed_bytes(), &self.control]);
    }

    pub fn mac_holds(&self, mac: &ControlMac) -> bool {
        mac.verify(&[self.header.signed_bytes(), &self.control], &self.header.mac).is_ok()
    }

    pub fn tag_holds(&self, bulk: &BulkKey) -> bool {
        self.payload.is_empty() || bulk.tag(&[self.header.as_bytes(), &self.payload]) == self.tag
    }

    pub fn last(&self) -> bool {
        self.header.flags().last()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let tag: &[u8] = if self.payload.is_empty() { &[] } else { &self.tag };
        [self.header.as_bytes(), &self.control, &self.payload, tag].concat()
    }

    pub fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        stream.write_all(&self.bytes())
    }

    /// The next frame, its lengths within their limits and nothing else checked.
    pub fn read(stream: &mut impl Read) -> Result<Frame, ReadError> {
        let mut head = [0; HEADER_SIZE_BYTES];
        read_exact(stream, &mut head)?;
        let header = Header::read(&head).ok_or(ReadError::Closed)?;
        let extent = header.extent().map_err(|_| ReadError::TooLong)?;
        let mut control = vec![0; extent.control_size_bytes];
        let mut payload = vec![0; extent.payload_size_bytes];
        let mut tag = [0; 32];
        read_exact(stream, &mut control)?;
        read_exact(stream, &mut payload)?;
        if !payload.is_empty() {
            read_exact(stream, &mut tag)?;
        }
        Ok(Frame { header, control, payload, tag })
    }
}

/// Why there is no next frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("the connection is closed")]
    Closed,
    #[error("nothing came in time")]
    TimedOut,
    #[error("a frame announces more than its limit")]
    TooLong,
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> ReadError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ReadError::TimedOut,
            // An end in the middle, a reset and any other trouble: nothing more comes.
            _ => ReadError::Closed,
        }
    }
}

fn read_exact(stream: &mut impl Read, bytes: &mut [u8]) -> Result<(), ReadError> {
    Ok(stream.read_exact(bytes)?)
}
