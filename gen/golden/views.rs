// The structs of the schema: views of a message, and what messages are built from.
// Generated from schema/ by gen/codegen; `cargo xtask gen` writes it anew.

/// A place in memory that the client registered on this connection.
/// \[MKV-REG-1\] A server MUST refuse, with `invalid`, a place outside the registered bytes.
/// \[MKV-REG-3\] The pieces of one frame, inline and in regions, have together at most `payloadSizeBytesMax` bytes; a message with a frame of more
/// is `invalid`.
/// \[MKV-REG-6\] When a connection ends, the server closes its side after its last access to memory that was registered on it; until then a client
/// MUST NOT use memory again that an unanswered request named.
/// \[MKV-REG-5\] A server MUST copy bytes out of shared memory before it verifies them, and store that copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region<'a> {
    pub id: u32,
    pub offset: u64,
    /// Over RDMA, in the piece that brings the bytes, whoever sends it: the negotiated bulk MAC of that direction over 64 bytes, the ASCII text
    /// `memkv region` and zeros, and the bytes. Through shared memory it is absent or ignored.
    /// \[MKV-REG-7\] Bytes that came one-sided MUST NOT become visible before this MAC, beside the checksum, held on the receiver's own copy; a piece
    /// of a request without it, or whose MAC does not hold, fails with `checksumMismatch`. A receiver whose operator said so may check a sample
    /// of the pieces, or none.
    pub mac: Option<&'a [u8; 32]>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for Region<'_> {
    fn default() -> Self {
        Region {
            id: 0,
            offset: 0,
            mac: None,
        }
    }
}

impl<'a> Region<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for Region<'a> {
    const NAME: &'static str = "Region";
    const DATA_WORDS: u16 = 2;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let id = reader.u32(0);
        let offset = reader.u64(1);
        let mac = walk.optional_array(&reader, 0, "Region.mac");
        Region { id, offset, mac }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.optional_data(self.mac.map(|bytes| &bytes[..]), "Region.mac", (32, 32));
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.bytes_at(at * 8, &self.id.to_le_bytes());
        out.bytes_at(at * 8 + 8, &self.offset.to_le_bytes());
        out.optional_data(at + 2, self.mac.map(|bytes| &bytes[..]));
    }
}

crate::list::struct_element!('a, Region<'a>);

/// A registration. \[MKV-REG-2\] Regions belong to one connection and end with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionDescriptor {
    pub id: u32,
    pub length: u64,
    pub which: RegionDescriptorWhich,
}

/// The union of [`RegionDescriptor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionDescriptorWhich {
    /// The file descriptor rides beside this frame, or an earlier one, on the local transport; one per descriptor, in order.
    /// \[MKV-REG-4\] A server MUST refuse, with `invalid`, any file but a memory file of ordinary pages that is sealed against shrinking and has at least
    /// `length` bytes.
    SharedMemory,
    Rdma(RdmaMemory),
    /// An arm that this version does not know.
    Unknown(u16),
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for RegionDescriptor {
    fn default() -> Self {
        RegionDescriptor {
            id: 0,
            length: 1,
            which: RegionDescriptorWhich::SharedMemory,
        }
    }
}

impl RegionDescriptor {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for RegionDescriptor {
    const NAME: &'static str = "RegionDescriptor";
    const DATA_WORDS: u16 = 2;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let id = reader.u32(0);
        let length = reader.u64(1);
        walk.range(length, "RegionDescriptor.length", 1, 18446744073709551615);
        let which = match reader.u16(2) {
            0 => RegionDescriptorWhich::SharedMemory,
            1 => RegionDescriptorWhich::Rdma(walk.structure(&reader, 0, "RegionDescriptor.rdma")),
            code => RegionDescriptorWhich::Unknown(code),
        };
        RegionDescriptor { id, length, which }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.range(self.length, "RegionDescriptor.length", 1, 18446744073709551615);
        match self.which {
            RegionDescriptorWhich::SharedMemory => {}
            RegionDescriptorWhich::Rdma(value) => {
                measure.structure(&value);
            }
            RegionDescriptorWhich::Unknown(_) => {}
        }
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.bytes_at(at * 8, &self.id.to_le_bytes());
        out.bytes_at(at * 8 + 8, &self.length.to_le_bytes());
        let tag: u16 = match self.which {
            RegionDescriptorWhich::SharedMemory => 0,
            RegionDescriptorWhich::Rdma(value) => {
                out.structure(at + 2, &value);
                1
            }
            RegionDescriptorWhich::Unknown(tag) => tag,
        };
        out.bytes_at(at * 8 + 4, &tag.to_le_bytes());
    }
}

crate::list::struct_element!('a, RegionDescriptor);

/// Memory that the server reaches one-sided, over this connection's queue pair: with RDMA READ for what is written, with RDMA WRITE for
/// what is read. Only a connection over a queue pair can register it; elsewhere it is `unsupported`.
/// \[MKV-REG-8\] A client MUST register it in a protection domain in which no queue pair leads to anyone but this server, and a server
/// MUST NOT let its own memory be reached at all. A region that does not end within 64 bits of address is `invalid`.
/// \[MKV-REG-9\] The bytes of a read are written before the SEND that names them on the same queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RdmaMemory {
    pub address: u64,
    pub remote_key: u32,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for RdmaMemory {
    fn default() -> Self {
        RdmaMemory {
            address: 0,
            remote_key: 0,
        }
    }
}

impl RdmaMemory {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for RdmaMemory {
    const NAME: &'static str = "RdmaMemory";
    const DATA_WORDS: u16 = 2;
    const POINTER_COUNT: u16 = 0;

    fn read(reader: StructReader<'a>, _: &mut Walk) -> Self {
        let address = reader.u64(0);
        let remote_key = reader.u32(2);
        RdmaMemory { address, remote_key }
    }

    fn measure(&self, _: &mut Measure) {
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.bytes_at(at * 8, &self.address.to_le_bytes());
        out.bytes_at(at * 8 + 8, &self.remote_key.to_le_bytes());
    }
}

crate::list::struct_element!('a, RdmaMemory);

/// One side of an RDMA reliable connection over RoCE. Once both sides know the other's, all frames go over it: the bytes that the stream would
/// carry, in order, cut into SENDs anywhere. The stream carries nothing more; its end is the end of the connection.
/// \[MKV-RDMA-1\] Every SEND has immediate data, 32 bits: bits 0 to 15 are the SENDs with bytes, bits 16 to 23 the empty SENDs, that its receiver
/// may send more than it was told before; the others are 0. A side MUST NOT send what it was not granted, so that no SEND meets an empty
/// receive queue.
/// \[MKV-RDMA-2\] A side MUST always have receives posted for 4 empty SENDs beside those that it granted, and post them again without waiting
/// for whoever reads the bytes: a grant never waits for a reader. Both sides begin with 4 empty SENDs granted.
/// \[MKV-RDMA-3\] A SEND has at most 16384 bytes. A side that reads none for too long is given up as on any stream.
/// \[MKV-RDMA-4\] A server grants nothing in its reply, and holds no memory for a queue pair, before the client has confirmed; it then grants with
/// an empty SEND. A client that asks has its receives posted, and says how many are for SENDs with bytes in `receiveCredits`.
/// \[MKV-RDMA-5\] A server that has no queue pair to give answers `stream`, and the connection goes on over the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePair<'a> {
    pub number: u32,
    /// Of its first packet, 24 bits.
    pub packet_sequence: u32,
    /// The port's address.
    pub gid: &'a [u8; 16],
    /// \[MKV-RDMA-6\] The smaller one of both sides' is used.
    pub path_mtu_bytes: u32,
    pub receive_credits: u32,
    /// \[MKV-RDMA-7\] The RDMA READs that this side serves at a time; the other one MUST NOT have more under way. 0 for a side that lets nobody
    /// reach its memory.
    pub reads_max: u16,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for QueuePair<'_> {
    fn default() -> Self {
        QueuePair {
            number: 0,
            packet_sequence: 0,
            gid: &[0; 16],
            path_mtu_bytes: 0,
            receive_credits: 0,
            reads_max: 0,
        }
    }
}

impl<'a> QueuePair<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for QueuePair<'a> {
    const NAME: &'static str = "QueuePair";
    const DATA_WORDS: u16 = 3;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let number = reader.u32(0);
        let packet_sequence = reader.u32(1);
        let gid = walk.array(&reader, 0, "QueuePair.gid");
        let path_mtu_bytes = reader.u32(2);
        let receive_credits = reader.u32(3);
        let reads_max = reader.u16(8);
        QueuePair { number, packet_sequence, gid, path_mtu_bytes, receive_credits, reads_max }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.data(self.gid, "QueuePair.gid", (16, 16));
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.bytes_at(at * 8, &self.number.to_le_bytes());
        out.bytes_at(at * 8 + 4, &self.packet_sequence.to_le_bytes());
        out.data(at + 3, self.gid);
        out.bytes_at(at * 8 + 8, &self.path_mtu_bytes.to_le_bytes());
        out.bytes_at(at * 8 + 12, &self.receive_credits.to_le_bytes());
        out.bytes_at(at * 8 + 16, &self.reads_max.to_le_bytes());
    }
}

crate::list::struct_element!('a, QueuePair<'a>);

/// Consecutive bytes of one value.
/// \[MKV-VAL-1\] A piece begins at a multiple of `blockSizeBytes` and does not cross a block's end, unless it answers a read of a range that
/// begins inside a block.
/// \[MKV-VAL-2\] Inline bytes of a frame's pieces follow one another in the payload in the order of the list, with nothing between; their
/// lengths add up to the payload length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The item of the batch that it belongs to; 0 in Read and Write.
    pub index: u32,
    pub offset: u64,
    pub length: u32,
    /// XXH3-128 of the piece's bytes, canonical (big-endian) form.
    /// \[MKV-VAL-3\] A receiver MUST verify it before the bytes become visible; one that does not hold fails its item with `checksumMismatch`.
    pub checksum: Option<&'a [u8; 16]>,
    pub which: PieceWhich<'a>,
}

/// The union of [`Piece`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceWhich<'a> {
    Inline,
    Region(Region<'a>),
    /// An arm that this version does not know.
    Unknown(u16),
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for Piece<'_> {
    fn default() -> Self {
        Piece {
            index: 0,
            offset: 0,
            length: 0,
            checksum: None,
            which: PieceWhich::Inline,
        }
    }
}

impl<'a> Piece<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for Piece<'a> {
    const NAME: &'static str = "Piece";
    const DATA_WORDS: u16 = 3;
    const POINTER_COUNT: u16 = 2;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let index = reader.u32(0);
        walk.range(u64::from(index), "Piece.index", 0, 4095);
        let offset = reader.u64(1);
        walk.range(offset, "Piece.offset", 0, 1073741824);
        let length = reader.u32(1);
        walk.range(u64::from(length), "Piece.length", 0, 1048576);
        let checksum = walk.optional_array(&reader, 0, "Piece.checksum");
        let which = match reader.u16(8) {
            0 => PieceWhich::Inline,
            1 => PieceWhich::Region(walk.structure(&reader, 1, "Piece.region")),
            code => PieceWhich::Unknown(code),
        };
        Piece { index, offset, length, checksum, which }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.range(u64::from(self.index), "Piece.index", 0, 4095);
        measure.range(self.offset, "Piece.offset", 0, 1073741824);
        measure.range(u64::from(self.length), "Piece.length", 0, 1048576);
        measure.optional_data(self.checksum.map(|bytes| &bytes[..]), "Piece.checksum", (16, 16));
        match self.which {
            PieceWhich::Inline => {}
            PieceWhich::Region(value) => {
                measure.structure(&value);
            }
            PieceWhich::Unknown(_) => {}
        }
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.bytes_at(at * 8, &self.index.to_le_bytes());
        out.bytes_at(at * 8 + 8, &self.offset.to_le_bytes());
        out.bytes_at(at * 8 + 4, &self.length.to_le_bytes());
        out.optional_data(at + 3, self.checksum.map(|bytes| &bytes[..]));
        let tag: u16 = match self.which {
            PieceWhich::Inline => 0,
            PieceWhich::Region(value) => {
                out.structure(at + 4, &value);
                1
            }
            PieceWhich::Unknown(tag) => tag,
        };
        out.bytes_at(at * 8 + 16, &tag.to_le_bytes());
    }
}

crate::list::struct_element!('a, Piece<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkReference<'a> {
    pub key: &'a [u8],
    pub length: u64,
    /// The value's checksum: XXH3-128 over the list of its blocks' checksums.
    pub checksum: Option<&'a [u8; 16]>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for ChunkReference<'_> {
    fn default() -> Self {
        ChunkReference {
            key: &[],
            length: 1,
            checksum: None,
        }
    }
}

impl<'a> ChunkReference<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for ChunkReference<'a> {
    const NAME: &'static str = "ChunkReference";
    const DATA_WORDS: u16 = 1;
    const POINTER_COUNT: u16 = 2;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let key = walk.data(&reader, 0, "ChunkReference.key", (1, 512));
        let length = reader.u64(0);
        walk.range(length, "ChunkReference.length", 1, 1073741824);
        let checksum = walk.optional_array(&reader, 1, "ChunkReference.checksum");
        ChunkReference { key, length, checksum }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.data(self.key, "ChunkReference.key", (1, 512));
        measure.range(self.length, "ChunkReference.length", 1, 1073741824);
        measure.optional_data(self.checksum.map(|bytes| &bytes[..]), "ChunkReference.checksum", (16, 16));
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.data(at + 1, self.key);
        out.bytes_at(at * 8, &self.length.to_le_bytes());
        out.optional_data(at + 2, self.checksum.map(|bytes| &bytes[..]));
    }
}

crate::list::struct_element!('a, ChunkReference<'a>);

/// The first frame of every byte stream, of kind hello, with sequence number 0 and the id of the key in the header.
/// Its MAC is made with the shared key itself.
///
/// Key id = the first 4 bytes, read as a little-endian integer, of HMAC-SHA256(key, "memkv key id").
/// Salt = SHA-256(LE64(length of C) || C || LE64(length of R) || R), C and R being the control messages of Connect and of its reply.
/// A derived key = HKDF-SHA256(salt, shared key, info), info = "memkv v" || decimal version || " " || direction || " " || use, where direction is
/// "client-to-server" or "server-to-client" and use is "control" (32 bytes), "bulk hmac-sha256" (32 bytes),
/// "bulk aegis-128x2" (16 bytes) or "bulk aegis-128x4" (16 bytes). The version is that of the reply's header.
///
/// \[MKV-CONN-2\] Each side draws its nonce from the system's random source, anew for every connection.
/// \[MKV-CONN-3\] Sequence numbers start at 0 with the hello frame and rise by one with each frame, in each direction by itself; any other
/// number closes the connection.
/// \[MKV-CONN-4\] A Connect whose key id names no key the server holds, or whose MAC does not hold, closes the connection with no answer.
/// \[MKV-CONN-5\] Until the first frame under derived keys, a server holds at most `helloSizeBytesMax` for a connection, for at
/// most `setupTimeoutMs`, and at most `setupConnectionsMax` such connections.
/// \[MKV-CONN-6\] A server MAY hold several keys at once; it answers under the key that the Connect names.
/// \[MKV-CONN-10\] Once it accepted the reply, and before any other frame, the client sends its confirmation: a frame of kind hello with
/// sequence number 1, the Connect's key id, no control message and no payload. It is the first frame under derived keys. A server closes
/// the connection when anything else comes first, and either side when a hello frame comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    pub nonce: &'a [u8; 32],
    /// Drawn once by a client and the same on all its connections: leases are counted by it.
    pub client_id: &'a [u8; 16],
    /// What the client can speak, the preferred first. \[MKV-CONN-7\] The server picks the first one that it can speak too.
    pub bulk_macs: List<'a, BulkMac>,
    /// For logs.
    pub client_name: &'a str,
    pub which: ConnectWhich<'a>,
}

/// The union of [`Connect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectWhich<'a> {
    Stream,
    /// Ask for an RDMA queue pair beside this stream.
    QueuePair(QueuePair<'a>),
    /// An arm that this version does not know.
    Unknown(u16),
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for Connect<'_> {
    fn default() -> Self {
        Connect {
            nonce: &[0; 32],
            client_id: &[0; 16],
            bulk_macs: Default::default(),
            client_name: "",
            which: ConnectWhich::Stream,
        }
    }
}

impl<'a> Connect<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for Connect<'a> {
    const NAME: &'static str = "Connect";
    const DATA_WORDS: u16 = 1;
    const POINTER_COUNT: u16 = 5;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let nonce = walk.array(&reader, 0, "Connect.nonce");
        let client_id = walk.array(&reader, 1, "Connect.clientId");
        let bulk_macs = walk.list(&reader, 2, "Connect.bulkMacs", (1, 8), ());
        let client_name = walk.text(&reader, 3, "Connect.clientName", (0, 128));
        let which = match reader.u16(0) {
            0 => ConnectWhich::Stream,
            1 => ConnectWhich::QueuePair(walk.structure(&reader, 4, "Connect.queuePair")),
            code => ConnectWhich::Unknown(code),
        };
        Connect { nonce, client_id, bulk_macs, client_name, which }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.data(self.nonce, "Connect.nonce", (32, 32));
        measure.data(self.client_id, "Connect.clientId", (16, 16));
        measure.list(&self.bulk_macs, "Connect.bulkMacs", (1, 8), ());
        measure.text(self.client_name, "Connect.clientName", (0, 128));
        match self.which {
            ConnectWhich::Stream => {}
            ConnectWhich::QueuePair(value) => {
                measure.structure(&value);
            }
            ConnectWhich::Unknown(_) => {}
        }
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.data(at + 1, self.nonce);
        out.data(at + 2, self.client_id);
        out.list(at + 3, &self.bulk_macs);
        out.text(at + 4, self.client_name);
        let tag: u16 = match self.which {
            ConnectWhich::Stream => 0,
            ConnectWhich::QueuePair(value) => {
                out.structure(at + 5, &value);
                1
            }
            ConnectWhich::Unknown(tag) => tag,
        };
        out.bytes_at(at * 8, &tag.to_le_bytes());
    }
}

crate::list::struct_element!('a, Connect<'a>);

/// The server's first frame, of kind hello, with sequence number 0 and the Connect's key id. Its MAC is made with the derived
/// server-to-client control key, so that it proves both the shared key and the transcript.
///
/// \[MKV-CONN-8\] A client MUST check that the reply's MAC holds, that `clientNonce` is its own, and that `bulkMac` is one it offered.
/// \[MKV-CONN-9\] A Connect of a newer version gets a reply with the status `unsupportedVersion`, the server's own version in the header, and the
/// Connect's nonce; then the server closes. Nothing is downgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectReply<'a> {
    pub client_nonce: &'a [u8; 32],
    pub server_nonce: &'a [u8; 32],
    /// The server's identity; it outlives restarts.
    pub server_id: &'a [u8; 16],
    pub bulk_mac: BulkMac,
    pub version_min: u8,
    pub version_max: u8,
    pub requests_in_flight_max: u32,
    /// The lease a request gets when it asks for none.
    pub lease_ms: u32,
    /// For logs: name and release.
    pub server_name: &'a str,
    /// A Unix socket of this server, for a client on the same host; empty if there is none. Connections on it are set up as all are.
    /// \[MKV-CONN-11\] A server offers it only to a peer whose address is one of the server's own host, and serves only peers of its own user, of
    /// root, or of a group that it was told to allow. A client that cannot use it goes on without.
    pub local_path: &'a str,
    /// Whether a Connect that asks for a queue pair is worth sending: this server has devices for them.
    pub queue_pairs: bool,
    pub which: ConnectReplyWhich<'a>,
}

/// The union of [`ConnectReply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectReplyWhich<'a> {
    Stream,
    QueuePair(QueuePair<'a>),
    /// An arm that this version does not know.
    Unknown(u16),
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for ConnectReply<'_> {
    fn default() -> Self {
        ConnectReply {
            client_nonce: &[0; 32],
            server_nonce: &[0; 32],
            server_id: &[0; 16],
            bulk_mac: Default::default(),
            version_min: 0,
            version_max: 0,
            requests_in_flight_max: 1,
            lease_ms: 0,
            server_name: "",
            local_path: "",
            queue_pairs: false,
            which: ConnectReplyWhich::Stream,
        }
    }
}

impl<'a> ConnectReply<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for ConnectReply<'a> {
    const NAME: &'static str = "ConnectReply";
    const DATA_WORDS: u16 = 2;
    const POINTER_COUNT: u16 = 6;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let client_nonce = walk.array(&reader, 0, "ConnectReply.clientNonce");
        let server_nonce = walk.array(&reader, 1, "ConnectReply.serverNonce");
        let server_id = walk.array(&reader, 2, "ConnectReply.serverId");
        let bulk_mac = BulkMac::from_code(reader.u16(0));
        let version_min = reader.u8(2);
        let version_max = reader.u8(3);
        let requests_in_flight_max = reader.u32(1);
        walk.range(u64::from(requests_in_flight_max), "ConnectReply.requestsInFlightMax", 1, 4294967295);
        let lease_ms = reader.u32(2);
        let server_name = walk.text(&reader, 3, "ConnectReply.serverName", (0, 128));
        let local_path = walk.text(&reader, 4, "ConnectReply.localPath", (0, 108));
        let queue_pairs = reader.bool(112);
        let which = match reader.u16(6) {
            0 => ConnectReplyWhich::Stream,
            1 => ConnectReplyWhich::QueuePair(walk.structure(&reader, 5, "ConnectReply.queuePair")),
            code => ConnectReplyWhich::Unknown(code),
        };
        ConnectReply { client_nonce, server_nonce, server_id, bulk_mac, version_min, version_max, requests_in_flight_max, lease_ms, server_name, local_path, queue_pairs, which }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.data(self.client_nonce, "ConnectReply.clientNonce", (32, 32));
        measure.data(self.server_nonce, "ConnectReply.serverNonce", (32, 32));
        measure.data(self.server_id, "ConnectReply.serverId", (16, 16));
        measure.range(u64::from(self.requests_in_flight_max), "ConnectReply.requestsInFlightMax", 1, 4294967295);
        measure.text(self.server_name, "ConnectReply.serverName", (0, 128));
        measure.text(self.local_path, "ConnectReply.localPath", (0, 108));
        match self.which {
            ConnectReplyWhich::Stream => {}
            ConnectReplyWhich::QueuePair(value) => {
                measure.structure(&value);
            }
            ConnectReplyWhich::Unknown(_) => {}
        }
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.data(at + 2, self.client_nonce);
        out.data(at + 3, self.server_nonce);
        out.data(at + 4, self.server_id);
        out.bytes_at(at * 8, &self.bulk_mac.code().to_le_bytes());
        out.bytes_at(at * 8 + 2, &self.version_min.to_le_bytes());
        out.bytes_at(at * 8 + 3, &self.version_max.to_le_bytes());
        out.bytes_at(at * 8 + 4, &self.requests_in_flight_max.to_le_bytes());
        out.bytes_at(at * 8 + 8, &self.lease_ms.to_le_bytes());
        out.text(at + 5, self.server_name);
        out.text(at + 6, self.local_path);
        out.bit(at * 8, 112, self.queue_pairs);
        let tag: u16 = match self.which {
            ConnectReplyWhich::Stream => 0,
            ConnectReplyWhich::QueuePair(value) => {
                out.structure(at + 7, &value);
                1
            }
            ConnectReplyWhich::Unknown(tag) => tag,
        };
        out.bytes_at(at * 8 + 12, &tag.to_le_bytes());
    }
}

crate::list::struct_element!('a, ConnectReply<'a>);

/// A message is one or more frames of one request id and one operation; the last has `frameFlagLast`.
/// \[MKV-MSG-1\] A request id MUST NOT be used again on a connection before its reply's last frame arrived; that frame is sent only after
/// the message's last frame came in, however early it failed.
/// \[MKV-MSG-2\] Frames of different messages may interleave, and replies come in any order.
/// \[MKV-MSG-3\] Each frame is complete in itself: it lists the pieces, results or references it carries, and repeats the scalar fields of
/// its message. A frame that contradicts the first one of its message ends the message with `invalid`.
/// \[MKV-MSG-4\] A reply frame that carries bytes is sent only after these were read and verified; what fails later is told in a later
/// frame of the same reply.
/// \[MKV-MSG-5\] A message whose operation the receiver does not know is answered with `unknownOperation`; the connection goes on.
/// \[MKV-MSG-6\] A control message that is not a valid Cap'n Proto message, or breaks a bound of this specification, closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Keeps tenants from colliding: keys and names of different namespaces are different. No security boundary.
    pub namespace: &'a [u8],
    pub which: RequestWhich<'a>,
}

/// The union of [`Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestWhich<'a> {
    Connect(Connect<'a>),
    Allocate(Allocate<'a>),
    Lookup(Lookup<'a>),
    Commit(Commit<'a>),
    Delete(Delete<'a>),
    Exists(Exists<'a>),
    Read(Read<'a>),
    Write(Write<'a>),
    BatchRead(BatchRead<'a>),
    BatchWrite(BatchWrite<'a>),
    PutManifest(PutManifest<'a>),
    GetManifest(GetManifest<'a>),
    DeleteManifest(DeleteManifest<'a>),
    ListManifests(ListManifests<'a>),
    Ping(Ping<'a>),
    Stats(Stats<'a>),
    /// An arm that this version does not know.
    Unknown(u16),
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for Request<'_> {
    fn default() -> Self {
        Request {
            namespace: &[],
            which: RequestWhich::Connect(Default::default()),
        }
    }
}

impl<'a> Request<'a> {
    /// Checks the whole message, once; copies and allocates nothing.
    pub fn decode(message: &Message<'a>) -> Result<Self, DecodeError> {
        message.root(crate::limits::CONTROL_SIZE_BYTES_MAX as usize)
    }

    /// Checks every bound and writes the message; allocates only to make `buf` larger.
    pub fn encode(&self, buf: &mut ControlBuf) -> Result<(), EncodeError> {
        buf.encode(self, crate::limits::CONTROL_SIZE_BYTES_MAX as usize)
    }

    /// The size of the message that `encode` would write, whatever the limit.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::message(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for Request<'a> {
    const NAME: &'static str = "Request";
    const DATA_WORDS: u16 = 1;
    const POINTER_COUNT: u16 = 2;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let namespace = walk.data(&reader, 0, "Request.namespace", (0, 255));
        let which = match reader.u16(0) {
            0 => RequestWhich::Connect(walk.structure(&reader, 1, "Request.connect")),
            1 => RequestWhich::Allocate(walk.structure(&reader, 1, "Request.allocate")),
            2 => RequestWhich::Lookup(walk.structure(&reader, 1, "Request.lookup")),
            3 => RequestWhich::Commit(walk.structure(&reader, 1, "Request.commit")),
            4 => RequestWhich::Delete(walk.structure(&reader, 1, "Request.delete")),
            5 => RequestWhich::Exists(walk.structure(&reader, 1, "Request.exists")),
            6 => RequestWhich::Read(walk.structure(&reader, 1, "Request.read")),
            7 => RequestWhich::Write(walk.structure(&reader, 1, "Request.write")),
            8 => RequestWhich::BatchRead(walk.structure(&reader, 1, "Request.batchRead")),
            9 => RequestWhich::BatchWrite(walk.structure(&reader, 1, "Request.batchWrite")),
            10 => RequestWhich::PutManifest(walk.structure(&reader, 1, "Request.putManifest")),
            11 => RequestWhich::GetManifest(walk.structure(&reader, 1, "Request.getManifest")),
            12 => RequestWhich::DeleteManifest(walk.structure(&reader, 1, "Request.deleteManifest")),
            13 => RequestWhich::ListManifests(walk.structure(&reader, 1, "Request.listManifests")),
            14 => RequestWhich::Ping(walk.structure(&reader, 1, "Request.ping")),
            15 => RequestWhich::Stats(walk.structure(&reader, 1, "Request.stats")),
            code => RequestWhich::Unknown(code),
        };
        Request { namespace, which }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.data(self.namespace, "Request.namespace", (0, 255));
        match self.which {
            RequestWhich::Connect(value) => {
                measure.structure(&value);
            }
            RequestWhich::Allocate(value) => {
                measure.structure(&value);
            }
            RequestWhich::Lookup(value) => {
                measure.structure(&value);
            }
            RequestWhich::Commit(value) => {
                measure.structure(&value);
            }
            RequestWhich::Delete(value) => {
                measure.structure(&value);
            }
            RequestWhich::Exists(value) => {
                measure.structure(&value);
            }
            RequestWhich::Read(value) => {
                measure.structure(&value);
            }
            RequestWhich::Write(value) => {
                measure.structure(&value);
            }
            RequestWhich::BatchRead(value) => {
                measure.structure(&value);
            }
            RequestWhich::BatchWrite(value) => {
                measure.structure(&value);
            }
            RequestWhich::PutManifest(value) => {
                measure.structure(&value);
            }
            RequestWhich::GetManifest(value) => {
                measure.structure(&value);
            }
            RequestWhich::DeleteManifest(value) => {
                measure.structure(&value);
            }
            RequestWhich::ListManifests(value) => {
                measure.structure(&value);
            }
            RequestWhich::Ping(value) => {
                measure.structure(&value);
            }
            RequestWhich::Stats(value) => {
                measure.structure(&value);
            }
            RequestWhich::Unknown(_) => {}
        }
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.data(at + 1, self.namespace);
        let tag: u16 = match self.which {
            RequestWhich::Connect(value) => {
                out.structure(at + 2, &value);
                0
            }
            RequestWhich::Allocate(value) => {
                out.structure(at + 2, &value);
                1
            }
            RequestWhich::Lookup(value) => {
                out.structure(at + 2, &value);
                2
            }
            RequestWhich::Commit(value) => {
                out.structure(at + 2, &value);
                3
            }
            RequestWhich::Delete(value) => {
                out.structure(at + 2, &value);
                4
            }
            RequestWhich::Exists(value) => {
                out.structure(at + 2, &value);
                5
            }
            RequestWhich::Read(value) => {
                out.structure(at + 2, &value);
                6
            }
            RequestWhich::Write(value) => {
                out.structure(at + 2, &value);
                7
            }
            RequestWhich::BatchRead(value) => {
                out.structure(at + 2, &value);
                8
            }
            RequestWhich::BatchWrite(value) => {
                out.structure(at + 2, &value);
                9
            }
            RequestWhich::PutManifest(value) => {
                out.structure(at + 2, &value);
                10
            }
            RequestWhich::GetManifest(value) => {
                out.structure(at + 2, &value);
                11
            }
            RequestWhich::DeleteManifest(value) => {
                out.structure(at + 2, &value);
                12
            }
            RequestWhich::ListManifests(value) => {
                out.structure(at + 2, &value);
                13
            }
            RequestWhich::Ping(value) => {
                out.structure(at + 2, &value);
                14
            }
            RequestWhich::Stats(value) => {
                out.structure(at + 2, &value);
                15
            }
            RequestWhich::Unknown(tag) => tag,
        };
        out.bytes_at(at * 8, &tag.to_le_bytes());
    }
}

crate::list::struct_element!('a, Request<'a>);

/// \[MKV-MSG-7\] The arm is that of the request; when `status` is not `ok`, all fields of the arm but those its comment names are to be ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    pub status: Status,
    pub retry_after_ms: u32,
    /// For people and logs; its wording is no part of the protocol.
    pub detail: &'a str,
    pub which: ResponseWhich<'a>,
}

/// The union of [`Response`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseWhich<'a> {
    Connect(ConnectReply<'a>),
    Allocate(AllocateReply),
    Lookup(LookupReply<'a>),
    Commit(CommitReply<'a>),
    Delete(DeleteReply<'a>),
    Exists(ExistsReply<'a>),
    Read(ReadReply<'a>),
    Write(WriteReply<'a>),
    BatchRead(BatchReadReply<'a>),
    BatchWrite(BatchWriteReply<'a>),
    PutManifest(PutManifestReply<'a>),
    GetManifest(GetManifestReply<'a>),
    DeleteManifest(DeleteManifestReply),
    ListManifests(ListManifestsReply<'a>),
    Ping(PingReply),
    Stats(StatsReply<'a>),
    /// An arm that this version does not know.
    Unknown(u16),
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for Response<'_> {
    fn default() -> Self {
        Response {
            status: Default::default(),
            retry_after_ms: 0,
            detail: "",
            which: ResponseWhich::Connect(Default::default()),
        }
    }
}

impl<'a> Response<'a> {
    /// Checks the whole message, once; copies and allocates nothing.
    pub fn decode(message: &Message<'a>) -> Result<Self, DecodeError> {
        message.root(crate::limits::CONTROL_SIZE_BYTES_MAX as usize)
    }

    /// Checks every bound and writes the message; allocates only to make `buf` larger.
    pub fn encode(&self, buf: &mut ControlBuf) -> Result<(), EncodeError> {
        buf.encode(self, crate::limits::CONTROL_SIZE_BYTES_MAX as usize)
    }

    /// The size of the message that `encode` would write, whatever the limit.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::message(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for Response<'a> {
    const NAME: &'static str = "Response";
    const DATA_WORDS: u16 = 1;
    const POINTER_COUNT: u16 = 2;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let status = Status::from_code(reader.u16(0));
        let retry_after_ms = reader.u32(1);
        walk.range(u64::from(retry_after_ms), "Response.retryAfterMs", 0, 60000);
        let detail = walk.text(&reader, 0, "Response.detail", (0, 512));
        let which = match reader.u16(1) {
            0 => ResponseWhich::Connect(walk.structure(&reader, 1, "Response.connect")),
            1 => ResponseWhich::Allocate(walk.structure(&reader, 1, "Response.allocate")),
            2 => ResponseWhich::Lookup(walk.structure(&reader, 1, "Response.lookup")),
            3 => ResponseWhich::Commit(walk.structure(&reader, 1, "Response.commit")),
            4 => ResponseWhich::Delete(walk.structure(&reader, 1, "Response.delete")),
            5 => ResponseWhich::Exists(walk.structure(&reader, 1, "Response.exists")),
            6 => ResponseWhich::Read(walk.structure(&reader, 1, "Response.read")),
            7 => ResponseWhich::Write(walk.structure(&reader, 1, "Response.write")),
            8 => ResponseWhich::BatchRead(walk.structure(&reader, 1, "Response.batchRead")),
            9 => ResponseWhich::BatchWrite(walk.structure(&reader, 1, "Response.batchWrite")),
            10 => ResponseWhich::PutManifest(walk.structure(&reader, 1, "Response.putManifest")),
            11 => ResponseWhich::GetManifest(walk.structure(&reader, 1, "Response.getManifest")),
            12 => ResponseWhich::DeleteManifest(walk.structure(&reader, 1, "Response.deleteManifest")),
            13 => ResponseWhich::ListManifests(walk.structure(&reader, 1, "Response.listManifests")),
            14 => ResponseWhich::Ping(walk.structure(&reader, 1, "Response.ping")),
            15 => ResponseWhich::Stats(walk.structure(&reader, 1, "Response.stats")),
            code => ResponseWhich::Unknown(code),
        };
        Response { status, retry_after_ms, detail, which }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.range(u64::from(self.retry_after_ms), "Response.retryAfterMs", 0, 60000);
        measure.text(self.detail, "Response.detail", (0, 512));
        match self.which {
            ResponseWhich::Connect(value) => {
                measure.structure(&value);
            }
            ResponseWhich::Allocate(value) => {
                measure.structure(&value);
            }
            ResponseWhich::Lookup(value) => {
                measure.structure(&value);
            }
            ResponseWhich::Commit(value) => {
                measure.structure(&value);
            }
            ResponseWhich::Delete(value) => {
                measure.structure(&value);
            }
            ResponseWhich::Exists(value) => {
                measure.structure(&value);
            }
            ResponseWhich::Read(value) => {
                measure.structure(&value);
            }
            ResponseWhich::Write(value) => {
                measure.structure(&value);
            }
            ResponseWhich::BatchRead(value) => {
                measure.structure(&value);
            }
            ResponseWhich::BatchWrite(value) => {
                measure.structure(&value);
            }
            ResponseWhich::PutManifest(value) => {
                measure.structure(&value);
            }
            ResponseWhich::GetManifest(value) => {
                measure.structure(&value);
            }
            ResponseWhich::DeleteManifest(value) => {
                measure.structure(&value);
            }
            ResponseWhich::ListManifests(value) => {
                measure.structure(&value);
            }
            ResponseWhich::Ping(value) => {
                measure.structure(&value);
            }
            ResponseWhich::Stats(value) => {
                measure.structure(&value);
            }
            ResponseWhich::Unknown(_) => {}
        }
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.bytes_at(at * 8, &self.status.code().to_le_bytes());
        out.bytes_at(at * 8 + 4, &self.retry_after_ms.to_le_bytes());
        out.text(at + 1, self.detail);
        let tag: u16 = match self.which {
            ResponseWhich::Connect(value) => {
                out.structure(at + 2, &value);
                0
            }
            ResponseWhich::Allocate(value) => {
                out.structure(at + 2, &value);
                1
            }
            ResponseWhich::Lookup(value) => {
                out.structure(at + 2, &value);
                2
            }
            ResponseWhich::Commit(value) => {
                out.structure(at + 2, &value);
                3
            }
            ResponseWhich::Delete(value) => {
                out.structure(at + 2, &value);
                4
            }
            ResponseWhich::Exists(value) => {
                out.structure(at + 2, &value);
                5
            }
            ResponseWhich::Read(value) => {
                out.structure(at + 2, &value);
                6
            }
            ResponseWhich::Write(value) => {
                out.structure(at + 2, &value);
                7
            }
            ResponseWhich::BatchRead(value) => {
                out.structure(at + 2, &value);
                8
            }
            ResponseWhich::BatchWrite(value) => {
                out.structure(at + 2, &value);
                9
            }
            ResponseWhich::PutManifest(value) => {
                out.structure(at + 2, &value);
                10
            }
            ResponseWhich::GetManifest(value) => {
                out.structure(at + 2, &value);
                11
            }
            ResponseWhich::DeleteManifest(value) => {
                out.structure(at + 2, &value);
                12
            }
            ResponseWhich::ListManifests(value) => {
                out.structure(at + 2, &value);
                13
            }
            ResponseWhich::Ping(value) => {
                out.structure(at + 2, &value);
                14
            }
            ResponseWhich::Stats(value) => {
                out.structure(at + 2, &value);
                15
            }
            ResponseWhich::Unknown(tag) => tag,
        };
        out.bytes_at(at * 8 + 2, &tag.to_le_bytes());
    }
}

crate::list::struct_element!('a, Response<'a>);

/// Reserves room for a value that is written piecewise: Allocate, Write with the allocation, Commit.
/// \[MKV-ALLOC-1\] What is not committed when the lease ends is reclaimed.
/// \[MKV-ALLOC-2\] If the value is already stored with this length (and this checksum, when one is given), the reply has `present` set and no allocation.
/// \[MKV-ALLOC-3\] An allocation serves the client that made it, and a value of this key and length: for another client it is unknown, and a Write
/// that names another key or length is `invalid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocate<'a> {
    pub key: &'a [u8],
    pub length: u64,
    pub checksum: Option<&'a [u8; 16]>,
    /// 0 asks for the server's default.
    pub lease_ms: u32,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for Allocate<'_> {
    fn default() -> Self {
        Allocate {
            key: &[],
            length: 1,
            checksum: None,
            lease_ms: 0,
        }
    }
}

impl<'a> Allocate<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for Allocate<'a> {
    const NAME: &'static str = "Allocate";
    const DATA_WORDS: u16 = 2;
    const POINTER_COUNT: u16 = 2;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let key = walk.data(&reader, 0, "Allocate.key", (1, 512));
        let length = reader.u64(0);
        walk.range(length, "Allocate.length", 1, 1073741824);
        let checksum = walk.optional_array(&reader, 1, "Allocate.checksum");
        let lease_ms = reader.u32(2);
        walk.range(u64::from(lease_ms), "Allocate.leaseMs", 0, 60000);
        Allocate { key, length, checksum, lease_ms }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.data(self.key, "Allocate.key", (1, 512));
        measure.range(self.length, "Allocate.length", 1, 1073741824);
        measure.optional_data(self.checksum.map(|bytes| &bytes[..]), "Allocate.checksum", (16, 16));
        measure.range(u64::from(self.lease_ms), "Allocate.leaseMs", 0, 60000);
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.data(at + 2, self.key);
        out.bytes_at(at * 8, &self.length.to_le_bytes());
        out.optional_data(at + 3, self.checksum.map(|bytes| &bytes[..]));
        out.bytes_at(at * 8 + 8, &self.lease_ms.to_le_bytes());
    }
}

crate::list::struct_element!('a, Allocate<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocateReply {
    pub allocation: u64,
    pub lease_ms: u32,
    pub present: bool,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for AllocateReply {
    fn default() -> Self {
        AllocateReply {
            allocation: 0,
            lease_ms: 0,
            present: false,
        }
    }
}

impl AllocateReply {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for AllocateReply {
    const NAME: &'static str = "AllocateReply";
    const DATA_WORDS: u16 = 2;
    const POINTER_COUNT: u16 = 0;

    fn read(reader: StructReader<'a>, _: &mut Walk) -> Self {
        let allocation = reader.u64(0);
        let lease_ms = reader.u32(2);
        let present = reader.bool(96);
        AllocateReply { allocation, lease_ms, present }
    }

    fn measure(&self, _: &mut Measure) {
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.bytes_at(at * 8, &self.allocation.to_le_bytes());
        out.bytes_at(at * 8 + 8, &self.lease_ms.to_le_bytes());
        out.bit(at * 8, 96, self.present);
    }
}

crate::list::struct_element!('a, AllocateReply);

/// Makes an allocation's value visible.
/// \[MKV-COMMIT-1\] A value becomes visible only when all its bytes were written and verified; otherwise the reply is `invalid` and the allocation stays.
/// \[MKV-COMMIT-2\] When `checksum` is given and is not that of the value written, the reply is `checksumMismatch` and nothing becomes visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit<'a> {
    pub allocation: u64,
    pub checksum: Option<&'a [u8; 16]>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for Commit<'_> {
    fn default() -> Self {
        Commit {
            allocation: 1,
            checksum: None,
        }
    }
}

impl<'a> Commit<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for Commit<'a> {
    const NAME: &'static str = "Commit";
    const DATA_WORDS: u16 = 1;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let allocation = reader.u64(0);
        walk.range(allocation, "Commit.allocation", 1, 18446744073709551615);
        let checksum = walk.optional_array(&reader, 0, "Commit.checksum");
        Commit { allocation, checksum }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.range(self.allocation, "Commit.allocation", 1, 18446744073709551615);
        measure.optional_data(self.checksum.map(|bytes| &bytes[..]), "Commit.checksum", (16, 16));
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.bytes_at(at * 8, &self.allocation.to_le_bytes());
        out.optional_data(at + 1, self.checksum.map(|bytes| &bytes[..]));
    }
}

crate::list::struct_element!('a, Commit<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitReply<'a> {
    pub checksum: Option<&'a [u8; 16]>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for CommitReply<'_> {
    fn default() -> Self {
        CommitReply {
            checksum: None,
        }
    }
}

impl<'a> CommitReply<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for CommitReply<'a> {
    const NAME: &'static str = "CommitReply";
    const DATA_WORDS: u16 = 0;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let checksum = walk.optional_array(&reader, 0, "CommitReply.checksum");
        CommitReply { checksum }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.optional_data(self.checksum.map(|bytes| &bytes[..]), "CommitReply.checksum", (16, 16));
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.optional_data(at, self.checksum.map(|bytes| &bytes[..]));
    }
}

crate::list::struct_element!('a, CommitReply<'a>);

/// Allocate, transfer and commit in one; or, with an allocation, the transfer alone.
/// \[MKV-WR-1\] Without an allocation the pieces of the message cover the value exactly once; it is committed when the last one is stored.
/// \[MKV-WR-2\] An `ok` follows the device write: the value survives the end of the server's process.
/// \[MKV-WR-3\] Writing a value that is stored with the same length and checksum changes nothing and is `ok`; with another it is `conflict`.
/// \[MKV-WR-4\] A message that ends or is cut off before the value is whole leaves nothing visible.
/// \[MKV-WR-5\] A new value is born leased, for the server's default time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write<'a> {
    pub key: &'a [u8],
    /// The whole value's.
    pub length: u64,
    /// The whole value's. \[MKV-WR-6\] When given, it is verified before the value becomes visible.
    pub checksum: Option<&'a [u8; 16]>,
    /// 0: the message carries the whole value.
    pub allocation: u64,
    pub pieces: List<'a, Piece<'a>>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for Write<'_> {
    fn default() -> Self {
        Write {
            key: &[],
            length: 1,
            checksum: None,
            allocation: 0,
            pieces: Default::default(),
        }
    }
}

impl<'a> Write<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for Write<'a> {
    const NAME: &'static str = "Write";
    const DATA_WORDS: u16 = 2;
    const POINTER_COUNT: u16 = 3;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let key = walk.data(&reader, 0, "Write.key", (1, 512));
        let length = reader.u64(0);
        walk.range(length, "Write.length", 1, 1073741824);
        let checksum = walk.optional_array(&reader, 1, "Write.checksum");
        let allocation = reader.u64(1);
        let pieces = walk.list(&reader, 2, "Write.pieces", (0, 4096), ());
        Write { key, length, checksum, allocation, pieces }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.data(self.key, "Write.key", (1, 512));
        measure.range(self.length, "Write.length", 1, 1073741824);
        measure.optional_data(self.checksum.map(|bytes| &bytes[..]), "Write.checksum", (16, 16));
        measure.list(&self.pieces, "Write.pieces", (0, 4096), ());
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.data(at + 2, self.key);
        out.bytes_at(at * 8, &self.length.to_le_bytes());
        out.optional_data(at + 3, self.checksum.map(|bytes| &bytes[..]));
        out.bytes_at(at * 8 + 8, &self.allocation.to_le_bytes());
        out.list(at + 4, &self.pieces);
    }
}

crate::list::struct_element!('a, Write<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteReply<'a> {
    /// The value's, once it is whole.
    pub checksum: Option<&'a [u8; 16]>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for WriteReply<'_> {
    fn default() -> Self {
        WriteReply {
            checksum: None,
        }
    }
}

impl<'a> WriteReply<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for WriteReply<'a> {
    const NAME: &'static str = "WriteReply";
    const DATA_WORDS: u16 = 0;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let checksum = walk.optional_array(&reader, 0, "WriteReply.checksum");
        WriteReply { checksum }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.optional_data(self.checksum.map(|bytes| &bytes[..]), "WriteReply.checksum", (16, 16));
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.optional_data(at, self.checksum.map(|bytes| &bytes[..]));
    }
}

crate::list::struct_element!('a, WriteReply<'a>);

/// Many values. \[MKV-BATCH-1\] Each item succeeds or fails by itself: a slow, missing or failing one never fails or delays the others.
/// \[MKV-BATCH-2\] The pieces of all frames cover each item's value exactly once; an item whose pieces do not is `invalid`.
/// \[MKV-BATCH-3\] An item's index is its place among all items of the message, in the order in which its frames list them.
/// A frame may carry pieces only of items that it or an earlier frame lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchWrite<'a> {
    pub items: List<'a, WriteItem<'a>>,
    pub pieces: List<'a, Piece<'a>>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for BatchWrite<'_> {
    fn default() -> Self {
        BatchWrite {
            items: Default::default(),
            pieces: Default::default(),
        }
    }
}

impl<'a> BatchWrite<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for BatchWrite<'a> {
    const NAME: &'static str = "BatchWrite";
    const DATA_WORDS: u16 = 0;
    const POINTER_COUNT: u16 = 2;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let items = walk.list(&reader, 0, "BatchWrite.items", (0, 4096), ());
        let pieces = walk.list(&reader, 1, "BatchWrite.pieces", (0, 4096), ());
        BatchWrite { items, pieces }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.list(&self.items, "BatchWrite.items", (0, 4096), ());
        measure.list(&self.pieces, "BatchWrite.pieces", (0, 4096), ());
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.list(at, &self.items);
        out.list(at + 1, &self.pieces);
    }
}

crate::list::struct_element!('a, BatchWrite<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteItem<'a> {
    pub key: &'a [u8],
    pub length: u64,
    pub checksum: Option<&'a [u8; 16]>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for WriteItem<'_> {
    fn default() -> Self {
        WriteItem {
            key: &[],
            length: 1,
            checksum: None,
        }
    }
}

impl<'a> WriteItem<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for WriteItem<'a> {
    const NAME: &'static str = "WriteItem";
    const DATA_WORDS: u16 = 1;
    const POINTER_COUNT: u16 = 2;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let key = walk.data(&reader, 0, "WriteItem.key", (1, 512));
        let length = reader.u64(0);
        walk.range(length, "WriteItem.length", 1, 1073741824);
        let checksum = walk.optional_array(&reader, 1, "WriteItem.checksum");
        WriteItem { key, length, checksum }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.data(self.key, "WriteItem.key", (1, 512));
        measure.range(self.length, "WriteItem.length", 1, 1073741824);
        measure.optional_data(self.checksum.map(|bytes| &bytes[..]), "WriteItem.checksum", (16, 16));
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.data(at + 1, self.key);
        out.bytes_at(at * 8, &self.length.to_le_bytes());
        out.optional_data(at + 2, self.checksum.map(|bytes| &bytes[..]));
    }
}

crate::list::struct_element!('a, WriteItem<'a>);

/// Each item is answered once, in the frame that follows its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchWriteReply<'a> {
    pub results: List<'a, WriteResult>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for BatchWriteReply<'_> {
    fn default() -> Self {
        BatchWriteReply {
            results: Default::default(),
        }
    }
}

impl<'a> BatchWriteReply<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for BatchWriteReply<'a> {
    const NAME: &'static str = "BatchWriteReply";
    const DATA_WORDS: u16 = 0;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let results = walk.list(&reader, 0, "BatchWriteReply.results", (0, 4096), ());
        BatchWriteReply { results }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.list(&self.results, "BatchWriteReply.results", (0, 4096), ());
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.list(at, &self.results);
    }
}

crate::list::struct_element!('a, BatchWriteReply<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteResult {
    pub index: u32,
    pub status: Status,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for WriteResult {
    fn default() -> Self {
        WriteResult {
            index: 0,
            status: Default::default(),
        }
    }
}

impl WriteResult {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for WriteResult {
    const NAME: &'static str = "WriteResult";
    const DATA_WORDS: u16 = 1;
    const POINTER_COUNT: u16 = 0;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let index = reader.u32(0);
        walk.range(u64::from(index), "WriteResult.index", 0, 4095);
        let status = Status::from_code(reader.u16(2));
        WriteResult { index, status }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.range(u64::from(self.index), "WriteResult.index", 0, 4095);
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.bytes_at(at * 8, &self.index.to_le_bytes());
        out.bytes_at(at * 8 + 4, &self.status.code().to_le_bytes());
    }
}

crate::list::struct_element!('a, WriteResult);

/// A value, or a range of it.
/// \[MKV-RD-1\] The pieces of the reply cover the range exactly once, in any order; a piece is at most one block.
/// \[MKV-RD-2\] The bytes are verified against the checksums that the writer made before they are sent; what does not hold is reported as a miss
/// and counted, never returned.
/// \[MKV-RD-3\] A range that begins at or after the value's end is `invalid`; one that ends after it is cut there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read<'a> {
    pub key: &'a [u8],
    pub offset: u64,
    /// 0: to the end.
    pub length: u64,
    pub destination: Destination<'a>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for Read<'_> {
    fn default() -> Self {
        Read {
            key: &[],
            offset: 0,
            length: 0,
            destination: Default::default(),
        }
    }
}

impl<'a> Read<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for Read<'a> {
    const NAME: &'static str = "Read";
    const DATA_WORDS: u16 = 2;
    const POINTER_COUNT: u16 = 2;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let key = walk.data(&reader, 0, "Read.key", (1, 512));
        let offset = reader.u64(0);
        walk.range(offset, "Read.offset", 0, 1073741824);
        let length = reader.u64(1);
        walk.range(length, "Read.length", 0, 1073741824);
        let destination = walk.structure(&reader, 1, "Read.destination");
        Read { key, offset, length, destination }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.data(self.key, "Read.key", (1, 512));
        measure.range(self.offset, "Read.offset", 0, 1073741824);
        measure.range(self.length, "Read.length", 0, 1073741824);
        measure.structure(&self.destination);
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.data(at + 2, self.key);
        out.bytes_at(at * 8, &self.offset.to_le_bytes());
        out.bytes_at(at * 8 + 8, &self.length.to_le_bytes());
        out.structure(at + 3, &self.destination);
    }
}

crate::list::struct_element!('a, Read<'a>);

/// Where the bytes of a read are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination<'a> {
    pub which: DestinationWhich<'a>,
}

/// The union of [`Destination`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestinationWhich<'a> {
    Inline,
    /// The first byte that is read goes to this place, the others behind it. \[MKV-RD-4\] The bytes are there before a piece of
    /// the reply names them.
    Region(Region<'a>),
    /// An arm that this version does not know.
    Unknown(u16),
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for Destination<'_> {
    fn default() -> Self {
        Destination {
            which: DestinationWhich::Inline,
        }
    }
}

impl<'a> Destination<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for Destination<'a> {
    const NAME: &'static str = "Destination";
    const DATA_WORDS: u16 = 1;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let which = match reader.u16(0) {
            0 => DestinationWhich::Inline,
            1 => DestinationWhich::Region(walk.structure(&reader, 0, "Destination.region")),
            code => DestinationWhich::Unknown(code),
        };
        Destination { which }
    }

    fn measure(&self, measure: &mut Measure) {
        match self.which {
            DestinationWhich::Inline => {}
            DestinationWhich::Region(value) => {
                measure.structure(&value);
            }
            DestinationWhich::Unknown(_) => {}
        }
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        let tag: u16 = match self.which {
            DestinationWhich::Inline => 0,
            DestinationWhich::Region(value) => {
                out.structure(at + 1, &value);
                1
            }
            DestinationWhich::Unknown(tag) => tag,
        };
        out.bytes_at(at * 8, &tag.to_le_bytes());
    }
}

crate::list::struct_element!('a, Destination<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadReply<'a> {
    /// The whole value's.
    pub length: u64,
    /// The whole value's.
    pub checksum: Option<&'a [u8; 16]>,
    pub pieces: List<'a, Piece<'a>>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for ReadReply<'_> {
    fn default() -> Self {
        ReadReply {
            length: 0,
            checksum: None,
            pieces: Default::default(),
        }
    }
}

impl<'a> ReadReply<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for ReadReply<'a> {
    const NAME: &'static str = "ReadReply";
    const DATA_WORDS: u16 = 1;
    const POINTER_COUNT: u16 = 2;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let length = reader.u64(0);
        let checksum = walk.optional_array(&reader, 0, "ReadReply.checksum");
        let pieces = walk.list(&reader, 1, "ReadReply.pieces", (0, 4096), ());
        ReadReply { length, checksum, pieces }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.optional_data(self.checksum.map(|bytes| &bytes[..]), "ReadReply.checksum", (16, 16));
        measure.list(&self.pieces, "ReadReply.pieces", (0, 4096), ());
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.bytes_at(at * 8, &self.length.to_le_bytes());
        out.optional_data(at + 1, self.checksum.map(|bytes| &bytes[..]));
        out.list(at + 2, &self.pieces);
    }
}

crate::list::struct_element!('a, ReadReply<'a>);

/// Many values or ranges. Items are counted as in BatchWrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRead<'a> {
    pub items: List<'a, ReadItem<'a>>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for BatchRead<'_> {
    fn default() -> Self {
        BatchRead {
            items: Default::default(),
        }
    }
}

impl<'a> BatchRead<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for BatchRead<'a> {
    const NAME: &'static str = "BatchRead";
    const DATA_WORDS: u16 = 0;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let items = walk.list(&reader, 0, "BatchRead.items", (0, 4096), ());
        BatchRead { items }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.list(&self.items, "BatchRead.items", (0, 4096), ());
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.list(at, &self.items);
    }
}

crate::list::struct_element!('a, BatchRead<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadItem<'a> {
    pub key: &'a [u8],
    pub offset: u64,
    pub length: u64,
    pub destination: Destination<'a>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for ReadItem<'_> {
    fn default() -> Self {
        ReadItem {
            key: &[],
            offset: 0,
            length: 0,
            destination: Default::default(),
        }
    }
}

impl<'a> ReadItem<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for ReadItem<'a> {
    const NAME: &'static str = "ReadItem";
    const DATA_WORDS: u16 = 2;
    const POINTER_COUNT: u16 = 2;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let key = walk.data(&reader, 0, "ReadItem.key", (1, 512));
        let offset = reader.u64(0);
        walk.range(offset, "ReadItem.offset", 0, 1073741824);
        let length = reader.u64(1);
        walk.range(length, "ReadItem.length", 0, 1073741824);
        let destination = walk.structure(&reader, 1, "ReadItem.destination");
        ReadItem { key, offset, length, destination }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.data(self.key, "ReadItem.key", (1, 512));
        measure.range(self.offset, "ReadItem.offset", 0, 1073741824);
        measure.range(self.length, "ReadItem.length", 0, 1073741824);
        measure.structure(&self.destination);
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.data(at + 2, self.key);
        out.bytes_at(at * 8, &self.offset.to_le_bytes());
        out.bytes_at(at * 8 + 8, &self.length.to_le_bytes());
        out.structure(at + 3, &self.destination);
    }
}

crate::list::struct_element!('a, ReadItem<'a>);

/// \[MKV-BATCH-4\] Each item is answered by exactly one result; one that is `ok` may be followed or preceded by pieces in other frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchReadReply<'a> {
    pub results: List<'a, ReadResult<'a>>,
    pub pieces: List<'a, Piece<'a>>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for BatchReadReply<'_> {
    fn default() -> Self {
        BatchReadReply {
            results: Default::default(),
            pieces: Default::default(),
        }
    }
}

impl<'a> BatchReadReply<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for BatchReadReply<'a> {
    const NAME: &'static str = "BatchReadReply";
    const DATA_WORDS: u16 = 0;
    const POINTER_COUNT: u16 = 2;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let results = walk.list(&reader, 0, "BatchReadReply.results", (0, 4096), ());
        let pieces = walk.list(&reader, 1, "BatchReadReply.pieces", (0, 4096), ());
        BatchReadReply { results, pieces }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.list(&self.results, "BatchReadReply.results", (0, 4096), ());
        measure.list(&self.pieces, "BatchReadReply.pieces", (0, 4096), ());
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.list(at, &self.results);
        out.list(at + 1, &self.pieces);
    }
}

crate::list::struct_element!('a, BatchReadReply<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadResult<'a> {
    pub index: u32,
    pub status: Status,
    pub length: u64,
    pub checksum: Option<&'a [u8; 16]>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for ReadResult<'_> {
    fn default() -> Self {
        ReadResult {
            index: 0,
            status: Default::default(),
            length: 0,
            checksum: None,
        }
    }
}

impl<'a> ReadResult<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for ReadResult<'a> {
    const NAME: &'static str = "ReadResult";
    const DATA_WORDS: u16 = 2;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let index = reader.u32(0);
        walk.range(u64::from(index), "ReadResult.index", 0, 4095);
        let status = Status::from_code(reader.u16(2));
        let length = reader.u64(1);
        let checksum = walk.optional_array(&reader, 0, "ReadResult.checksum");
        ReadResult { index, status, length, checksum }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.range(u64::from(self.index), "ReadResult.index", 0, 4095);
        measure.optional_data(self.checksum.map(|bytes| &bytes[..]), "ReadResult.checksum", (16, 16));
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.bytes_at(at * 8, &self.index.to_le_bytes());
        out.bytes_at(at * 8 + 4, &self.status.code().to_le_bytes());
        out.bytes_at(at * 8 + 8, &self.length.to_le_bytes());
        out.optional_data(at + 2, self.checksum.map(|bytes| &bytes[..]));
    }
}

crate::list::struct_element!('a, ReadResult<'a>);

/// What is stored under a key, and a lease on it.
/// \[MKV-LEASE-1\] A leased value is neither evicted nor deleted before the lease ends; leases are counted by client, and one that
/// would be one too many is refused with `busy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup<'a> {
    pub key: &'a [u8],
    pub lease_ms: u32,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for Lookup<'_> {
    fn default() -> Self {
        Lookup {
            key: &[],
            lease_ms: 0,
        }
    }
}

impl<'a> Lookup<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for Lookup<'a> {
    const NAME: &'static str = "Lookup";
    const DATA_WORDS: u16 = 1;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let key = walk.data(&reader, 0, "Lookup.key", (1, 512));
        let lease_ms = reader.u32(0);
        walk.range(u64::from(lease_ms), "Lookup.leaseMs", 0, 60000);
        Lookup { key, lease_ms }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.data(self.key, "Lookup.key", (1, 512));
        measure.range(u64::from(self.lease_ms), "Lookup.leaseMs", 0, 60000);
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.data(at + 1, self.key);
        out.bytes_at(at * 8, &self.lease_ms.to_le_bytes());
    }
}

crate::list::struct_element!('a, Lookup<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupReply<'a> {
    pub length: u64,
    pub checksum: Option<&'a [u8; 16]>,
    /// 16 bytes for each block.
    pub block_checksums: &'a [u8],
    pub lease_ms: u32,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for LookupReply<'_> {
    fn default() -> Self {
        LookupReply {
            length: 0,
            checksum: None,
            block_checksums: &[],
            lease_ms: 0,
        }
    }
}

impl<'a> LookupReply<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for LookupReply<'a> {
    const NAME: &'static str = "LookupReply";
    const DATA_WORDS: u16 = 2;
    const POINTER_COUNT: u16 = 2;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let length = reader.u64(0);
        let checksum = walk.optional_array(&reader, 0, "LookupReply.checksum");
        let block_checksums = walk.data(&reader, 1, "LookupReply.blockChecksums", (0, 16384));
        let lease_ms = reader.u32(2);
        LookupReply { length, checksum, block_checksums, lease_ms }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.optional_data(self.checksum.map(|bytes| &bytes[..]), "LookupReply.checksum", (16, 16));
        measure.data(self.block_checksums, "LookupReply.blockChecksums", (0, 16384));
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.bytes_at(at * 8, &self.length.to_le_bytes());
        out.optional_data(at + 2, self.checksum.map(|bytes| &bytes[..]));
        out.data(at + 3, self.block_checksums);
        out.bytes_at(at * 8 + 8, &self.lease_ms.to_le_bytes());
    }
}

crate::list::struct_element!('a, LookupReply<'a>);

/// \[MKV-EX-1\] One answer for each key, in order; a key that is stored counts as used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exists<'a> {
    pub keys: List<'a, &'a [u8]>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for Exists<'_> {
    fn default() -> Self {
        Exists {
            keys: Default::default(),
        }
    }
}

impl<'a> Exists<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for Exists<'a> {
    const NAME: &'static str = "Exists";
    const DATA_WORDS: u16 = 0;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let keys = walk.list(&reader, 0, "Exists.keys", (1, 4096), (1, 512));
        Exists { keys }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.list(&self.keys, "Exists.keys", (1, 4096), (1, 512));
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.list(at, &self.keys);
    }
}

crate::list::struct_element!('a, Exists<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExistsReply<'a> {
    /// The value's length in bytes, or 0 when it is not stored.
    pub lengths: List<'a, u64>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for ExistsReply<'_> {
    fn default() -> Self {
        ExistsReply {
            lengths: Default::default(),
        }
    }
}

impl<'a> ExistsReply<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for ExistsReply<'a> {
    const NAME: &'static str = "ExistsReply";
    const DATA_WORDS: u16 = 0;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let lengths = walk.list(&reader, 0, "ExistsReply.lengths", (0, 4096), ());
        ExistsReply { lengths }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.list(&self.lengths, "ExistsReply.lengths", (0, 4096), ());
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.list(at, &self.lengths);
    }
}

crate::list::struct_element!('a, ExistsReply<'a>);

/// \[MKV-DEL-1\] One answer for each key, in order: `ok`, `notFound`, or `referenced` when a manifest names it.
/// \[MKV-DEL-2\] A delete is durable when it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delete<'a> {
    pub keys: List<'a, &'a [u8]>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for Delete<'_> {
    fn default() -> Self {
        Delete {
            keys: Default::default(),
        }
    }
}

impl<'a> Delete<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for Delete<'a> {
    const NAME: &'static str = "Delete";
    const DATA_WORDS: u16 = 0;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let keys = walk.list(&reader, 0, "Delete.keys", (1, 4096), (1, 512));
        Delete { keys }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.list(&self.keys, "Delete.keys", (1, 4096), (1, 512));
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.list(at, &self.keys);
    }
}

crate::list::struct_element!('a, Delete<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteReply<'a> {
    pub statuses: List<'a, Status>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for DeleteReply<'_> {
    fn default() -> Self {
        DeleteReply {
            statuses: Default::default(),
        }
    }
}

impl<'a> DeleteReply<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for DeleteReply<'a> {
    const NAME: &'static str = "DeleteReply";
    const DATA_WORDS: u16 = 0;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let statuses = walk.list(&reader, 0, "DeleteReply.statuses", (0, 4096), ());
        DeleteReply { statuses }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.list(&self.statuses, "DeleteReply.statuses", (0, 4096), ());
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.list(at, &self.statuses);
    }
}

crate::list::struct_element!('a, DeleteReply<'a>);

/// Publishes a manifest. Its body, opaque to the server, is the payload of the message's frames, joined.
/// \[MKV-PUT-1\] If every chunk is stored with this length (and this checksum, when one is given), the manifest becomes visible atomically;
/// if one is stored with another length or checksum the reply is `conflict`; if any is missing the reply is `missingChunks` and nothing changes.
/// \[MKV-PUT-2\] When it is acknowledged, the manifest and all the chunks it names survive the loss of power.
/// \[MKV-PUT-3\] With `missingChunks`, the chunks that are stored are leased in the same step as the check, so that none is evicted before
/// the client tries again; a client tries at most `putManifestRetriesMax` times.
/// \[MKV-PUT-4\] A chunk that a manifest names is not evicted while the manifest stays.
/// \[MKV-PUT-5\] Generation 0 lets the server choose the next one. Any other must be greater than that of the stored manifest, else the reply is
/// `staleGeneration`; the same generation with the same body is `ok`.
/// \[MKV-PUT-6\] A manifest replaces the one of the same name; the chunks of the old one lose its references.
/// \[MKV-PUT-7\] With `ok` and a `leaseMs` that is not 0, the chunks are leased for so long, counted from the check. So a client may leave out
/// the bytes of a chunk that it puts again meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutManifest<'a> {
    pub name: &'a [u8],
    pub generation: u64,
    pub role: ManifestRole,
    /// The body's, in bytes; 0 is an empty body.
    pub length: u64,
    /// The body's, as that of a value; of an empty body, that of an empty list.
    pub checksum: &'a [u8; 16],
    /// The chunks it references, in this frame.
    pub chunks: List<'a, ChunkReference<'a>>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for PutManifest<'_> {
    fn default() -> Self {
        PutManifest {
            name: &[],
            generation: 0,
            role: Default::default(),
            length: 0,
            checksum: &[0; 16],
            chunks: Default::default(),
        }
    }
}

impl<'a> PutManifest<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for PutManifest<'a> {
    const NAME: &'static str = "PutManifest";
    const DATA_WORDS: u16 = 3;
    const POINTER_COUNT: u16 = 3;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let name = walk.data(&reader, 0, "PutManifest.name", (1, 1024));
        let generation = reader.u64(0);
        let role = ManifestRole::from_code(reader.u16(4));
        let length = reader.u64(2);
        walk.range(length, "PutManifest.length", 0, 67108864);
        let checksum = walk.array(&reader, 1, "PutManifest.checksum");
        let chunks = walk.list(&reader, 2, "PutManifest.chunks", (0, 4096), ());
        PutManifest { name, generation, role, length, checksum, chunks }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.data(self.name, "PutManifest.name", (1, 1024));
        measure.range(self.length, "PutManifest.length", 0, 67108864);
        measure.data(self.checksum, "PutManifest.checksum", (16, 16));
        measure.list(&self.chunks, "PutManifest.chunks", (0, 4096), ());
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.data(at + 3, self.name);
        out.bytes_at(at * 8, &self.generation.to_le_bytes());
        out.bytes_at(at * 8 + 8, &self.role.code().to_le_bytes());
        out.bytes_at(at * 8 + 16, &self.length.to_le_bytes());
        out.data(at + 4, self.checksum);
        out.list(at + 5, &self.chunks);
    }
}

crate::list::struct_element!('a, PutManifest<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutManifestReply<'a> {
    /// The one stored; with `staleGeneration` too.
    pub generation: u64,
    /// With `missingChunks`, here and in the reply's other frames: places in the request's list of chunks, counted over all its frames.
    /// With `conflict`: the chunks in conflict.
    pub missing: List<'a, u32>,
    /// With `missingChunks`: how long the chunks that are stored are leased. With `ok`: how long all of them are; 0 if they are not.
    pub lease_ms: u32,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for PutManifestReply<'_> {
    fn default() -> Self {
        PutManifestReply {
            generation: 0,
            missing: Default::default(),
            lease_ms: 0,
        }
    }
}

impl<'a> PutManifestReply<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for PutManifestReply<'a> {
    const NAME: &'static str = "PutManifestReply";
    const DATA_WORDS: u16 = 2;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let generation = reader.u64(0);
        let missing = walk.list(&reader, 0, "PutManifestReply.missing", (0, 4096), ());
        let lease_ms = reader.u32(2);
        PutManifestReply { generation, missing, lease_ms }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.list(&self.missing, "PutManifestReply.missing", (0, 4096), ());
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.bytes_at(at * 8, &self.generation.to_le_bytes());
        out.list(at + 2, &self.missing);
        out.bytes_at(at * 8 + 8, &self.lease_ms.to_le_bytes());
    }
}

crate::list::struct_element!('a, PutManifestReply<'a>);

/// \[MKV-GET-1\] The chunks of the version that is returned are leased, so that a restore in progress loses none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetManifest<'a> {
    pub name: &'a [u8],
    pub lease_ms: u32,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for GetManifest<'_> {
    fn default() -> Self {
        GetManifest {
            name: &[],
            lease_ms: 0,
        }
    }
}

impl<'a> GetManifest<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for GetManifest<'a> {
    const NAME: &'static str = "GetManifest";
    const DATA_WORDS: u16 = 1;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let name = walk.data(&reader, 0, "GetManifest.name", (1, 1024));
        let lease_ms = reader.u32(0);
        walk.range(u64::from(lease_ms), "GetManifest.leaseMs", 0, 60000);
        GetManifest { name, lease_ms }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.data(self.name, "GetManifest.name", (1, 1024));
        measure.range(u64::from(self.lease_ms), "GetManifest.leaseMs", 0, 60000);
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.data(at + 1, self.name);
        out.bytes_at(at * 8, &self.lease_ms.to_le_bytes());
    }
}

crate::list::struct_element!('a, GetManifest<'a>);

/// The body is the payload of the reply's frames, joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetManifestReply<'a> {
    pub generation: u64,
    pub length: u64,
    pub checksum: Option<&'a [u8; 16]>,
    pub lease_ms: u32,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for GetManifestReply<'_> {
    fn default() -> Self {
        GetManifestReply {
            generation: 0,
            length: 0,
            checksum: None,
            lease_ms: 0,
        }
    }
}

impl<'a> GetManifestReply<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for GetManifestReply<'a> {
    const NAME: &'static str = "GetManifestReply";
    const DATA_WORDS: u16 = 3;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let generation = reader.u64(0);
        let length = reader.u64(1);
        walk.range(length, "GetManifestReply.length", 0, 67108864);
        let checksum = walk.optional_array(&reader, 0, "GetManifestReply.checksum");
        let lease_ms = reader.u32(4);
        GetManifestReply { generation, length, checksum, lease_ms }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.range(self.length, "GetManifestReply.length", 0, 67108864);
        measure.optional_data(self.checksum.map(|bytes| &bytes[..]), "GetManifestReply.checksum", (16, 16));
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.bytes_at(at * 8, &self.generation.to_le_bytes());
        out.bytes_at(at * 8 + 8, &self.length.to_le_bytes());
        out.optional_data(at + 3, self.checksum.map(|bytes| &bytes[..]));
        out.bytes_at(at * 8 + 16, &self.lease_ms.to_le_bytes());
    }
}

crate::list::struct_element!('a, GetManifestReply<'a>);

/// \[MKV-DELM-1\] The name is free and its references are dropped, durably, when it is acknowledged; chunks that no manifest names stay
/// until their space is needed.
/// \[MKV-DELM-2\] With a generation, only that one or an earlier one is deleted; a later one is left, with `staleGeneration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteManifest<'a> {
    pub name: &'a [u8],
    /// 0: whichever is stored.
    pub generation: u64,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for DeleteManifest<'_> {
    fn default() -> Self {
        DeleteManifest {
            name: &[],
            generation: 0,
        }
    }
}

impl<'a> DeleteManifest<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for DeleteManifest<'a> {
    const NAME: &'static str = "DeleteManifest";
    const DATA_WORDS: u16 = 1;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let name = walk.data(&reader, 0, "DeleteManifest.name", (1, 1024));
        let generation = reader.u64(0);
        DeleteManifest { name, generation }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.data(self.name, "DeleteManifest.name", (1, 1024));
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.data(at + 1, self.name);
        out.bytes_at(at * 8, &self.generation.to_le_bytes());
    }
}

crate::list::struct_element!('a, DeleteManifest<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteManifestReply {
    pub generation: u64,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for DeleteManifestReply {
    fn default() -> Self {
        DeleteManifestReply {
            generation: 0,
        }
    }
}

impl DeleteManifestReply {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for DeleteManifestReply {
    const NAME: &'static str = "DeleteManifestReply";
    const DATA_WORDS: u16 = 1;
    const POINTER_COUNT: u16 = 0;

    fn read(reader: StructReader<'a>, _: &mut Walk) -> Self {
        let generation = reader.u64(0);
        DeleteManifestReply { generation }
    }

    fn measure(&self, _: &mut Measure) {
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.bytes_at(at * 8, &self.generation.to_le_bytes());
    }
}

crate::list::struct_element!('a, DeleteManifestReply);

/// \[MKV-LIST-1\] The names of the namespace that begin with `prefix`, in byte order, after `cursor`; a name that is there during the whole listing is
/// listed exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListManifests<'a> {
    pub prefix: &'a [u8],
    /// The last name of the page before; empty to begin.
    pub cursor: &'a [u8],
    /// 0: as many as fit.
    pub count_max: u32,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for ListManifests<'_> {
    fn default() -> Self {
        ListManifests {
            prefix: &[],
            cursor: &[],
            count_max: 0,
        }
    }
}

impl<'a> ListManifests<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for ListManifests<'a> {
    const NAME: &'static str = "ListManifests";
    const DATA_WORDS: u16 = 1;
    const POINTER_COUNT: u16 = 2;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let prefix = walk.data(&reader, 0, "ListManifests.prefix", (0, 1024));
        let cursor = walk.data(&reader, 1, "ListManifests.cursor", (0, 1024));
        let count_max = reader.u32(0);
        walk.range(u64::from(count_max), "ListManifests.countMax", 0, 1024);
        ListManifests { prefix, cursor, count_max }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.data(self.prefix, "ListManifests.prefix", (0, 1024));
        measure.data(self.cursor, "ListManifests.cursor", (0, 1024));
        measure.range(u64::from(self.count_max), "ListManifests.countMax", 0, 1024);
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.data(at + 1, self.prefix);
        out.data(at + 2, self.cursor);
        out.bytes_at(at * 8, &self.count_max.to_le_bytes());
    }
}

crate::list::struct_element!('a, ListManifests<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListManifestsReply<'a> {
    pub entries: List<'a, ManifestEntry<'a>>,
    pub more: bool,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for ListManifestsReply<'_> {
    fn default() -> Self {
        ListManifestsReply {
            entries: Default::default(),
            more: false,
        }
    }
}

impl<'a> ListManifestsReply<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for ListManifestsReply<'a> {
    const NAME: &'static str = "ListManifestsReply";
    const DATA_WORDS: u16 = 1;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let entries = walk.list(&reader, 0, "ListManifestsReply.entries", (0, 1024), ());
        let more = reader.bool(0);
        ListManifestsReply { entries, more }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.list(&self.entries, "ListManifestsReply.entries", (0, 1024), ());
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.list(at + 1, &self.entries);
        out.bit(at * 8, 0, self.more);
    }
}

crate::list::struct_element!('a, ListManifestsReply<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestEntry<'a> {
    pub name: &'a [u8],
    pub generation: u64,
    pub length: u64,
    pub chunk_count: u32,
    pub chunk_bytes: u64,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for ManifestEntry<'_> {
    fn default() -> Self {
        ManifestEntry {
            name: &[],
            generation: 0,
            length: 0,
            chunk_count: 0,
            chunk_bytes: 0,
        }
    }
}

impl<'a> ManifestEntry<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for ManifestEntry<'a> {
    const NAME: &'static str = "ManifestEntry";
    const DATA_WORDS: u16 = 4;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let name = walk.data(&reader, 0, "ManifestEntry.name", (1, 1024));
        let generation = reader.u64(0);
        let length = reader.u64(1);
        let chunk_count = reader.u32(4);
        let chunk_bytes = reader.u64(3);
        ManifestEntry { name, generation, length, chunk_count, chunk_bytes }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.data(self.name, "ManifestEntry.name", (1, 1024));
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.data(at + 4, self.name);
        out.bytes_at(at * 8, &self.generation.to_le_bytes());
        out.bytes_at(at * 8 + 8, &self.length.to_le_bytes());
        out.bytes_at(at * 8 + 16, &self.chunk_count.to_le_bytes());
        out.bytes_at(at * 8 + 24, &self.chunk_bytes.to_le_bytes());
    }
}

crate::list::struct_element!('a, ManifestEntry<'a>);

/// Liveness, and the registration of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping<'a> {
    /// \[MKV-PING-1\] Returned as it came.
    pub echo: u64,
    /// To register. \[MKV-PING-2\] Either all of them are registered or none; on a connection that cannot register memory of this
    /// kind the status is `unsupported`.
    pub regions: List<'a, RegionDescriptor>,
    /// The ids of regions to forget.
    pub released: List<'a, u32>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for Ping<'_> {
    fn default() -> Self {
        Ping {
            echo: 0,
            regions: Default::default(),
            released: Default::default(),
        }
    }
}

impl<'a> Ping<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for Ping<'a> {
    const NAME: &'static str = "Ping";
    const DATA_WORDS: u16 = 1;
    const POINTER_COUNT: u16 = 2;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let echo = reader.u64(0);
        let regions = walk.list(&reader, 0, "Ping.regions", (0, 64), ());
        let released = walk.list(&reader, 1, "Ping.released", (0, 64), ());
        Ping { echo, regions, released }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.list(&self.regions, "Ping.regions", (0, 64), ());
        measure.list(&self.released, "Ping.released", (0, 64), ());
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.bytes_at(at * 8, &self.echo.to_le_bytes());
        out.list(at + 1, &self.regions);
        out.list(at + 2, &self.released);
    }
}

crate::list::struct_element!('a, Ping<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingReply {
    pub echo: u64,
    pub uptime_ms: u64,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for PingReply {
    fn default() -> Self {
        PingReply {
            echo: 0,
            uptime_ms: 0,
        }
    }
}

impl PingReply {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for PingReply {
    const NAME: &'static str = "PingReply";
    const DATA_WORDS: u16 = 2;
    const POINTER_COUNT: u16 = 0;

    fn read(reader: StructReader<'a>, _: &mut Walk) -> Self {
        let echo = reader.u64(0);
        let uptime_ms = reader.u64(1);
        PingReply { echo, uptime_ms }
    }

    fn measure(&self, _: &mut Measure) {
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.bytes_at(at * 8, &self.echo.to_le_bytes());
        out.bytes_at(at * 8 + 8, &self.uptime_ms.to_le_bytes());
    }
}

crate::list::struct_element!('a, PingReply);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats<'a> {
    /// Only counters whose names begin so.
    pub prefix: &'a str,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for Stats<'_> {
    fn default() -> Self {
        Stats {
            prefix: "",
        }
    }
}

impl<'a> Stats<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for Stats<'a> {
    const NAME: &'static str = "Stats";
    const DATA_WORDS: u16 = 0;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let prefix = walk.text(&reader, 0, "Stats.prefix", (0, 64));
        Stats { prefix }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.text(self.prefix, "Stats.prefix", (0, 64));
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.text(at, self.prefix);
    }
}

crate::list::struct_element!('a, Stats<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatsReply<'a> {
    pub counters: List<'a, Counter<'a>>,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for StatsReply<'_> {
    fn default() -> Self {
        StatsReply {
            counters: Default::default(),
        }
    }
}

impl<'a> StatsReply<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for StatsReply<'a> {
    const NAME: &'static str = "StatsReply";
    const DATA_WORDS: u16 = 0;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let counters = walk.list(&reader, 0, "StatsReply.counters", (0, 1024), ());
        StatsReply { counters }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.list(&self.counters, "StatsReply.counters", (0, 1024), ());
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.list(at, &self.counters);
    }
}

crate::list::struct_element!('a, StatsReply<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter<'a> {
    pub name: &'a str,
    pub value: u64,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for Counter<'_> {
    fn default() -> Self {
        Counter {
            name: "",
            value: 0,
        }
    }
}

impl<'a> Counter<'a> {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for Counter<'a> {
    const NAME: &'static str = "Counter";
    const DATA_WORDS: u16 = 1;
    const POINTER_COUNT: u16 = 1;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let name = walk.text(&reader, 0, "Counter.name", (1, 64));
        let value = reader.u64(0);
        Counter { name, value }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.text(self.name, "Counter.name", (1, 64));
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.text(at + 1, self.name);
        out.bytes_at(at * 8, &self.value.to_le_bytes());
    }
}

crate::list::struct_element!('a, Counter<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub length: u32,
    /// The first token position of the range.
    pub token_start: u32,
    pub token_count: u32,
    pub layer: u16,
    pub kind: ChunkKind,
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for Chunk {
    fn default() -> Self {
        Chunk {
            length: 1,
            token_start: 0,
            token_count: 0,
            layer: 0,
            kind: Default::default(),
        }
    }
}

impl Chunk {
    /// What this adds to a message: its own words and what it points at.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::part(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for Chunk {
    const NAME: &'static str = "Chunk";
    const DATA_WORDS: u16 = 2;
    const POINTER_COUNT: u16 = 0;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let length = reader.u32(0);
        walk.range(u64::from(length), "Chunk.length", 1, 1073741824);
        let token_start = reader.u32(1);
        let token_count = reader.u32(2);
        let layer = reader.u16(6);
        let kind = ChunkKind::from_code(reader.u16(7));
        Chunk { length, token_start, token_count, layer, kind }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.range(u64::from(self.length), "Chunk.length", 1, 1073741824);
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.bytes_at(at * 8, &self.length.to_le_bytes());
        out.bytes_at(at * 8 + 4, &self.token_start.to_le_bytes());
        out.bytes_at(at * 8 + 8, &self.token_count.to_le_bytes());
        out.bytes_at(at * 8 + 12, &self.layer.to_le_bytes());
        out.bytes_at(at * 8 + 14, &self.kind.code().to_le_bytes());
    }
}

crate::list::struct_element!('a, Chunk);

/// A manifest blob is a 32-byte header and one Cap'n Proto message of a single segment without a segment table, its root a `Manifest`:
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 8 | magic `MKVMANIF` |
/// | 8 | 2 | format version, little-endian |
/// | 10 | 2 | 0 |
/// | 12 | 4 | length of the message, 8-byte words, little-endian |
/// | 16 | 16 | XXH3-128, canonical form, over bytes 0 to 15 and the message |
///
/// \[MKV-MAN-1\] A reader MUST refuse a blob whose lengths or checksum do not hold, and one of a newer format version.
/// \[MKV-MAN-2\] `hashes` holds exactly one hash of `hashAlgorithm`'s size for each chunk, in the order of `chunks`.
/// \[MKV-MAN-3\] Two chunks with the same hash MUST have the same length.
/// \[MKV-MAN-4\] A chunk's token range lies within `tokens`, when tokens are given.
/// \[MKV-MAN-5\] A client that publishes a manifest in this format makes it reference exactly the chunks that it lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest<'a> {
    /// Such as `llama.cpp`.
    pub engine: &'a str,
    /// The engine's own version of its state format: the state's bytes carry none.
    pub engine_state_version: u32,
    /// Whatever the engine uses to tell models apart: state of one model must never be loaded into another.
    pub model_fingerprint: &'a [u8],
    pub hash_algorithm: HashAlgorithm,
    /// The tokens of one chunk; the last window may be shorter.
    pub window_tokens: u32,
    /// The session's token ids.
    pub tokens: List<'a, i32>,
    /// The engine's bytes that are not tensors: headers, cell metadata, sampler state.
    pub engine_state: &'a [u8],
    pub chunks: List<'a, Chunk>,
    pub hashes: &'a [u8],
}

/// Zero, empty and absent; an integer that may not be zero has its least value.
impl Default for Manifest<'_> {
    fn default() -> Self {
        Manifest {
            engine: "",
            engine_state_version: 0,
            model_fingerprint: &[],
            hash_algorithm: Default::default(),
            window_tokens: 1,
            tokens: Default::default(),
            engine_state: &[],
            chunks: Default::default(),
            hashes: &[],
        }
    }
}

impl<'a> Manifest<'a> {
    /// Checks the whole message, once; copies and allocates nothing.
    pub fn decode(message: &Message<'a>) -> Result<Self, DecodeError> {
        message.root(crate::limits::MANIFEST_SIZE_BYTES_MAX as usize)
    }

    /// Checks every bound and writes the message; allocates only to make `buf` larger.
    pub fn encode(&self, buf: &mut ControlBuf) -> Result<(), EncodeError> {
        buf.encode(self, crate::limits::MANIFEST_SIZE_BYTES_MAX as usize)
    }

    /// The size of the message that `encode` would write, whatever the limit.
    pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {
        crate::write::Measure::message(self).map(|words| words * 8)
    }
}

impl<'a> Struct<'a> for Manifest<'a> {
    const NAME: &'static str = "Manifest";
    const DATA_WORDS: u16 = 2;
    const POINTER_COUNT: u16 = 6;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self {
        let engine = walk.text(&reader, 0, "Manifest.engine", (1, 64));
        let engine_state_version = reader.u32(0);
        let model_fingerprint = walk.data(&reader, 1, "Manifest.modelFingerprint", (1, 64));
        let hash_algorithm = HashAlgorithm::from_code(reader.u16(2));
        let window_tokens = reader.u32(2);
        walk.range(u64::from(window_tokens), "Manifest.windowTokens", 1, 4294967295);
        let tokens = walk.list(&reader, 2, "Manifest.tokens", (0, 4194304), ());
        let engine_state = walk.data(&reader, 3, "Manifest.engineState", (0, 33554432));
        let chunks = walk.list(&reader, 4, "Manifest.chunks", (0, 1048576), ());
        let hashes = walk.data(&reader, 5, "Manifest.hashes", (0, 33554432));
        Manifest { engine, engine_state_version, model_fingerprint, hash_algorithm, window_tokens, tokens, engine_state, chunks, hashes }
    }

    fn measure(&self, measure: &mut Measure) {
        measure.text(self.engine, "Manifest.engine", (1, 64));
        measure.data(self.model_fingerprint, "Manifest.modelFingerprint", (1, 64));
        measure.range(u64::from(self.window_tokens), "Manifest.windowTokens", 1, 4294967295);
        measure.list(&self.tokens, "Manifest.tokens", (0, 4194304), ());
        measure.data(self.engine_state, "Manifest.engineState", (0, 33554432));
        measure.list(&self.chunks, "Manifest.chunks", (0, 1048576), ());
        measure.data(self.hashes, "Manifest.hashes", (0, 33554432));
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.text(at + 2, self.engine);
        out.bytes_at(at * 8, &self.engine_state_version.to_le_bytes());
        out.data(at + 3, self.model_fingerprint);
        out.bytes_at(at * 8 + 4, &self.hash_algorithm.code().to_le_bytes());
        out.bytes_at(at * 8 + 8, &self.window_tokens.to_le_bytes());
        out.list(at + 4, &self.tokens);
        out.data(at + 5, self.engine_state);
        out.list(at + 6, &self.chunks);
        out.data(at + 7, self.hashes);
    }
}

crate::list::struct_element!('a, Manifest<'a>);
