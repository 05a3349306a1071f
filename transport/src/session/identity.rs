//! What the two sides of an RDMA queue pair tell each other in `Connect` and its reply. Owns nothing, and checks nothing.

use memkv_wire::QueuePair;

/// A port's address as it is in packets.
pub type Gid = [u8; 16];

/// What one side tells the other of its RDMA queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePairIdentity {
    pub number: u32,
    /// The number of the first packet, 24 bits.
    pub packet_sequence: u32,
    pub gid: Gid,
    pub path_mtu_bytes: u32,
    /// The SENDs that it has room for from the beginning.
    pub receive_credits: u32,
    /// The RDMA READs that it serves at a time.
    pub reads_max: u16,
}

impl QueuePairIdentity {
    pub fn from_wire(wire: &QueuePair<'_>) -> QueuePairIdentity {
        QueuePairIdentity {
            number: wire.number,
            packet_sequence: wire.packet_sequence,
            gid: *wire.gid,
            path_mtu_bytes: wire.path_mtu_bytes,
            receive_credits: wire.receive_credits,
            reads_max: wire.reads_max,
        }
    }

    pub fn as_wire(&self) -> QueuePair<'_> {
        QueuePair {
            number: self.number,
            packet_sequence: self.packet_sequence,
            gid: &self.gid,
            path_mtu_bytes: self.path_mtu_bytes,
            receive_credits: self.receive_credits,
            reads_max: self.reads_max,
        }
    }
}
