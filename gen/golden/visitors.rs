// Walks over every field of the schema.
// Generated from schema/ by gen/codegen; `cargo xtask gen` writes it anew.

impl Visit for FrameKind {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.field(name, Value::Enum { name: self.name(), code: self.code() });
    }
}

impl Visit for Status {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.field(name, Value::Enum { name: self.name(), code: self.code() });
    }
}

impl Visit for BulkMac {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.field(name, Value::Enum { name: self.name(), code: self.code() });
    }
}

impl Visit for ManifestRole {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.field(name, Value::Enum { name: self.name(), code: self.code() });
    }
}

impl Visit for HashAlgorithm {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.field(name, Value::Enum { name: self.name(), code: self.code() });
    }
}

impl Visit for ChunkKind {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.field(name, Value::Enum { name: self.name(), code: self.code() });
    }
}

impl Visit for Region<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.id.visit_as("id", visitor);
        self.offset.visit_as("offset", visitor);
        self.mac.visit_as("mac", visitor);
        visitor.leave(name);
    }
}

impl Region<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("Region", visitor);
    }
}

impl Visit for RegionDescriptor {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.id.visit_as("id", visitor);
        self.length.visit_as("length", visitor);
        match &self.which {
            RegionDescriptorWhich::SharedMemory => visitor.arm("sharedMemory", 0),
            RegionDescriptorWhich::Rdma(value) => {
                visitor.arm("rdma", 1);
                value.visit_as("rdma", visitor);
            }
            RegionDescriptorWhich::Unknown(tag) => visitor.arm("unknown", *tag),
        }
        visitor.leave(name);
    }
}

impl RegionDescriptor {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("RegionDescriptor", visitor);
    }
}

impl Visit for RdmaMemory {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.address.visit_as("address", visitor);
        self.remote_key.visit_as("remoteKey", visitor);
        visitor.leave(name);
    }
}

impl RdmaMemory {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("RdmaMemory", visitor);
    }
}

impl Visit for QueuePair<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.number.visit_as("number", visitor);
        self.packet_sequence.visit_as("packetSequence", visitor);
        self.gid.visit_as("gid", visitor);
        self.path_mtu_bytes.visit_as("pathMtuBytes", visitor);
        self.receive_credits.visit_as("receiveCredits", visitor);
        self.reads_max.visit_as("readsMax", visitor);
        visitor.leave(name);
    }
}

impl QueuePair<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("QueuePair", visitor);
    }
}

impl Visit for Piece<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.index.visit_as("index", visitor);
        self.offset.visit_as("offset", visitor);
        self.length.visit_as("length", visitor);
        self.checksum.visit_as("checksum", visitor);
        match &self.which {
            PieceWhich::Inline => visitor.arm("inline", 0),
            PieceWhich::Region(value) => {
                visitor.arm("region", 1);
                value.visit_as("region", visitor);
            }
            PieceWhich::Unknown(tag) => visitor.arm("unknown", *tag),
        }
        visitor.leave(name);
    }
}

impl Piece<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("Piece", visitor);
    }
}

impl Visit for ChunkReference<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.key.visit_as("key", visitor);
        self.length.visit_as("length", visitor);
        self.checksum.visit_as("checksum", visitor);
        visitor.leave(name);
    }
}

impl ChunkReference<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("ChunkReference", visitor);
    }
}

impl Visit for Connect<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.nonce.visit_as("nonce", visitor);
        self.client_id.visit_as("clientId", visitor);
        self.bulk_macs.visit_as("bulkMacs", visitor);
        self.client_name.visit_as("clientName", visitor);
        match &self.which {
            ConnectWhich::Stream => visitor.arm("stream", 0),
            ConnectWhich::QueuePair(value) => {
                visitor.arm("queuePair", 1);
                value.visit_as("queuePair", visitor);
            }
            ConnectWhich::Unknown(tag) => visitor.arm("unknown", *tag),
        }
        visitor.leave(name);
    }
}

impl Connect<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("Connect", visitor);
    }
}

impl Visit for ConnectReply<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.client_nonce.visit_as("clientNonce", visitor);
        self.server_nonce.visit_as("serverNonce", visitor);
        self.server_id.visit_as("serverId", visitor);
        self.bulk_mac.visit_as("bulkMac", visitor);
        self.version_min.visit_as("versionMin", visitor);
        self.version_max.visit_as("versionMax", visitor);
        self.requests_in_flight_max.visit_as("requestsInFlightMax", visitor);
        self.lease_ms.visit_as("leaseMs", visitor);
        self.server_name.visit_as("serverName", visitor);
        self.local_path.visit_as("localPath", visitor);
        self.queue_pairs.visit_as("queuePairs", visitor);
        match &self.which {
            ConnectReplyWhich::Stream => visitor.arm("stream", 0),
            ConnectReplyWhich::QueuePair(value) => {
                visitor.arm("queuePair", 1);
                value.visit_as("queuePair", visitor);
            }
            ConnectReplyWhich::Unknown(tag) => visitor.arm("unknown", *tag),
        }
        visitor.leave(name);
    }
}

impl ConnectReply<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("ConnectReply", visitor);
    }
}

impl Visit for Request<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.namespace.visit_as("namespace", visitor);
        match &self.which {
            RequestWhich::Connect(value) => {
                visitor.arm("connect", 0);
                value.visit_as("connect", visitor);
            }
            RequestWhich::Allocate(value) => {
                visitor.arm("allocate", 1);
                value.visit_as("allocate", visitor);
            }
            RequestWhich::Lookup(value) => {
                visitor.arm("lookup", 2);
                value.visit_as("lookup", visitor);
            }
            RequestWhich::Commit(value) => {
                visitor.arm("commit", 3);
                value.visit_as("commit", visitor);
            }
            RequestWhich::Delete(value) => {
                visitor.arm("delete", 4);
                value.visit_as("delete", visitor);
            }
            RequestWhich::Exists(value) => {
                visitor.arm("exists", 5);
                value.visit_as("exists", visitor);
            }
            RequestWhich::Read(value) => {
                visitor.arm("read", 6);
                value.visit_as("read", visitor);
            }
            RequestWhich::Write(value) => {
                visitor.arm("write", 7);
                value.visit_as("write", visitor);
            }
            RequestWhich::BatchRead(value) => {
                visitor.arm("batchRead", 8);
                value.visit_as("batchRead", visitor);
            }
            RequestWhich::BatchWrite(value) => {
                visitor.arm("batchWrite", 9);
                value.visit_as("batchWrite", visitor);
            }
            RequestWhich::PutManifest(value) => {
                visitor.arm("putManifest", 10);
                value.visit_as("putManifest", visitor);
            }
            RequestWhich::GetManifest(value) => {
                visitor.arm("getManifest", 11);
                value.visit_as("getManifest", visitor);
            }
            RequestWhich::DeleteManifest(value) => {
                visitor.arm("deleteManifest", 12);
                value.visit_as("deleteManifest", visitor);
            }
            RequestWhich::ListManifests(value) => {
                visitor.arm("listManifests", 13);
                value.visit_as("listManifests", visitor);
            }
            RequestWhich::Ping(value) => {
                visitor.arm("ping", 14);
                value.visit_as("ping", visitor);
            }
            RequestWhich::Stats(value) => {
                visitor.arm("stats", 15);
                value.visit_as("stats", visitor);
            }
            RequestWhich::Unknown(tag) => visitor.arm("unknown", *tag),
        }
        visitor.leave(name);
    }
}

impl Request<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("Request", visitor);
    }
}

impl Visit for Response<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.status.visit_as("status", visitor);
        self.retry_after_ms.visit_as("retryAfterMs", visitor);
        self.detail.visit_as("detail", visitor);
        match &self.which {
            ResponseWhich::Connect(value) => {
                visitor.arm("connect", 0);
                value.visit_as("connect", visitor);
            }
            ResponseWhich::Allocate(value) => {
                visitor.arm("allocate", 1);
                value.visit_as("allocate", visitor);
            }
            ResponseWhich::Lookup(value) => {
                visitor.arm("lookup", 2);
                value.visit_as("lookup", visitor);
            }
            ResponseWhich::Commit(value) => {
                visitor.arm("commit", 3);
                value.visit_as("commit", visitor);
            }
            ResponseWhich::Delete(value) => {
                visitor.arm("delete", 4);
                value.visit_as("delete", visitor);
            }
            ResponseWhich::Exists(value) => {
                visitor.arm("exists", 5);
                value.visit_as("exists", visitor);
            }
            ResponseWhich::Read(value) => {
                visitor.arm("read", 6);
                value.visit_as("read", visitor);
            }
            ResponseWhich::Write(value) => {
                visitor.arm("write", 7);
                value.visit_as("write", visitor);
            }
            ResponseWhich::BatchRead(value) => {
                visitor.arm("batchRead", 8);
                value.visit_as("batchRead", visitor);
            }
            ResponseWhich::BatchWrite(value) => {
                visitor.arm("batchWrite", 9);
                value.visit_as("batchWrite", visitor);
            }
            ResponseWhich::PutManifest(value) => {
                visitor.arm("putManifest", 10);
                value.visit_as("putManifest", visitor);
            }
            ResponseWhich::GetManifest(value) => {
                visitor.arm("getManifest", 11);
                value.visit_as("getManifest", visitor);
            }
            ResponseWhich::DeleteManifest(value) => {
                visitor.arm("deleteManifest", 12);
                value.visit_as("deleteManifest", visitor);
            }
            ResponseWhich::ListManifests(value) => {
                visitor.arm("listManifests", 13);
                value.visit_as("listManifests", visitor);
            }
            ResponseWhich::Ping(value) => {
                visitor.arm("ping", 14);
                value.visit_as("ping", visitor);
            }
            ResponseWhich::Stats(value) => {
                visitor.arm("stats", 15);
                value.visit_as("stats", visitor);
            }
            ResponseWhich::Unknown(tag) => visitor.arm("unknown", *tag),
        }
        visitor.leave(name);
    }
}

impl Response<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("Response", visitor);
    }
}

impl Visit for Allocate<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.key.visit_as("key", visitor);
        self.length.visit_as("length", visitor);
        self.checksum.visit_as("checksum", visitor);
        self.lease_ms.visit_as("leaseMs", visitor);
        visitor.leave(name);
    }
}

impl Allocate<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("Allocate", visitor);
    }
}

impl Visit for AllocateReply {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.allocation.visit_as("allocation", visitor);
        self.lease_ms.visit_as("leaseMs", visitor);
        self.present.visit_as("present", visitor);
        visitor.leave(name);
    }
}

impl AllocateReply {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("AllocateReply", visitor);
    }
}

impl Visit for Commit<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.allocation.visit_as("allocation", visitor);
        self.checksum.visit_as("checksum", visitor);
        visitor.leave(name);
    }
}

impl Commit<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("Commit", visitor);
    }
}

impl Visit for CommitReply<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.checksum.visit_as("checksum", visitor);
        visitor.leave(name);
    }
}

impl CommitReply<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("CommitReply", visitor);
    }
}

impl Visit for Write<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.key.visit_as("key", visitor);
        self.length.visit_as("length", visitor);
        self.checksum.visit_as("checksum", visitor);
        self.allocation.visit_as("allocation", visitor);
        self.pieces.visit_as("pieces", visitor);
        visitor.leave(name);
    }
}

impl Write<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("Write", visitor);
    }
}

impl Visit for WriteReply<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.checksum.visit_as("checksum", visitor);
        visitor.leave(name);
    }
}

impl WriteReply<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("WriteReply", visitor);
    }
}

impl Visit for BatchWrite<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.items.visit_as("items", visitor);
        self.pieces.visit_as("pieces", visitor);
        visitor.leave(name);
    }
}

impl BatchWrite<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("BatchWrite", visitor);
    }
}

impl Visit for WriteItem<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.key.visit_as("key", visitor);
        self.length.visit_as("length", visitor);
        self.checksum.visit_as("checksum", visitor);
        visitor.leave(name);
    }
}

impl WriteItem<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("WriteItem", visitor);
    }
}

impl Visit for BatchWriteReply<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.results.visit_as("results", visitor);
        visitor.leave(name);
    }
}

impl BatchWriteReply<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("BatchWriteReply", visitor);
    }
}

impl Visit for WriteResult {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.index.visit_as("index", visitor);
        self.status.visit_as("status", visitor);
        visitor.leave(name);
    }
}

impl WriteResult {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("WriteResult", visitor);
    }
}

impl Visit for Read<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.key.visit_as("key", visitor);
        self.offset.visit_as("offset", visitor);
        self.length.visit_as("length", visitor);
        self.destination.visit_as("destination", visitor);
        visitor.leave(name);
    }
}

impl Read<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("Read", visitor);
    }
}

impl Visit for Destination<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        match &self.which {
            DestinationWhich::Inline => visitor.arm("inline", 0),
            DestinationWhich::Region(value) => {
                visitor.arm("region", 1);
                value.visit_as("region", visitor);
            }
            DestinationWhich::Unknown(tag) => visitor.arm("unknown", *tag),
        }
        visitor.leave(name);
    }
}

impl Destination<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("Destination", visitor);
    }
}

impl Visit for ReadReply<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.length.visit_as("length", visitor);
        self.checksum.visit_as("checksum", visitor);
        self.pieces.visit_as("pieces", visitor);
        visitor.leave(name);
    }
}

impl ReadReply<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("ReadReply", visitor);
    }
}

impl Visit for BatchRead<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.items.visit_as("items", visitor);
        visitor.leave(name);
    }
}

impl BatchRead<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("BatchRead", visitor);
    }
}

impl Visit for ReadItem<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.key.visit_as("key", visitor);
        self.offset.visit_as("offset", visitor);
        self.length.visit_as("length", visitor);
        self.destination.visit_as("destination", visitor);
        visitor.leave(name);
    }
}

impl ReadItem<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("ReadItem", visitor);
    }
}

impl Visit for BatchReadReply<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.results.visit_as("results", visitor);
        self.pieces.visit_as("pieces", visitor);
        visitor.leave(name);
    }
}

impl BatchReadReply<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("BatchReadReply", visitor);
    }
}

impl Visit for ReadResult<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.index.visit_as("index", visitor);
        self.status.visit_as("status", visitor);
        self.length.visit_as("length", visitor);
        self.checksum.visit_as("checksum", visitor);
        visitor.leave(name);
    }
}

impl ReadResult<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("ReadResult", visitor);
    }
}

impl Visit for Lookup<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.key.visit_as("key", visitor);
        self.lease_ms.visit_as("leaseMs", visitor);
        visitor.leave(name);
    }
}

impl Lookup<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("Lookup", visitor);
    }
}

impl Visit for LookupReply<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.length.visit_as("length", visitor);
        self.checksum.visit_as("checksum", visitor);
        self.block_checksums.visit_as("blockChecksums", visitor);
        self.lease_ms.visit_as("leaseMs", visitor);
        visitor.leave(name);
    }
}

impl LookupReply<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("LookupReply", visitor);
    }
}

impl Visit for Exists<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.keys.visit_as("keys", visitor);
        visitor.leave(name);
    }
}

impl Exists<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("Exists", visitor);
    }
}

impl Visit for ExistsReply<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.lengths.visit_as("lengths", visitor);
        visitor.leave(name);
    }
}

impl ExistsReply<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("ExistsReply", visitor);
    }
}

impl Visit for Delete<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.keys.visit_as("keys", visitor);
        visitor.leave(name);
    }
}

impl Delete<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("Delete", visitor);
    }
}

impl Visit for DeleteReply<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.statuses.visit_as("statuses", visitor);
        visitor.leave(name);
    }
}

impl DeleteReply<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("DeleteReply", visitor);
    }
}

impl Visit for PutManifest<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.name.visit_as("name", visitor);
        self.generation.visit_as("generation", visitor);
        self.role.visit_as("role", visitor);
        self.length.visit_as("length", visitor);
        self.checksum.visit_as("checksum", visitor);
        self.chunks.visit_as("chunks", visitor);
        visitor.leave(name);
    }
}

impl PutManifest<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("PutManifest", visitor);
    }
}

impl Visit for PutManifestReply<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.generation.visit_as("generation", visitor);
        self.missing.visit_as("missing", visitor);
        self.lease_ms.visit_as("leaseMs", visitor);
        visitor.leave(name);
    }
}

impl PutManifestReply<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("PutManifestReply", visitor);
    }
}

impl Visit for GetManifest<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.name.visit_as("name", visitor);
        self.lease_ms.visit_as("leaseMs", visitor);
        visitor.leave(name);
    }
}

impl GetManifest<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("GetManifest", visitor);
    }
}

impl Visit for GetManifestReply<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.generation.visit_as("generation", visitor);
        self.length.visit_as("length", visitor);
        self.checksum.visit_as("checksum", visitor);
        self.lease_ms.visit_as("leaseMs", visitor);
        visitor.leave(name);
    }
}

impl GetManifestReply<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("GetManifestReply", visitor);
    }
}

impl Visit for DeleteManifest<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.name.visit_as("name", visitor);
        self.generation.visit_as("generation", visitor);
        visitor.leave(name);
    }
}

impl DeleteManifest<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("DeleteManifest", visitor);
    }
}

impl Visit for DeleteManifestReply {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.generation.visit_as("generation", visitor);
        visitor.leave(name);
    }
}

impl DeleteManifestReply {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("DeleteManifestReply", visitor);
    }
}

impl Visit for ListManifests<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.prefix.visit_as("prefix", visitor);
        self.cursor.visit_as("cursor", visitor);
        self.count_max.visit_as("countMax", visitor);
        visitor.leave(name);
    }
}

impl ListManifests<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("ListManifests", visitor);
    }
}

impl Visit for ListManifestsReply<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.entries.visit_as("entries", visitor);
        self.more.visit_as("more", visitor);
        visitor.leave(name);
    }
}

impl ListManifestsReply<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("ListManifestsReply", visitor);
    }
}

impl Visit for ManifestEntry<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.name.visit_as("name", visitor);
        self.generation.visit_as("generation", visitor);
        self.length.visit_as("length", visitor);
        self.chunk_count.visit_as("chunkCount", visitor);
        self.chunk_bytes.visit_as("chunkBytes", visitor);
        visitor.leave(name);
    }
}

impl ManifestEntry<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("ManifestEntry", visitor);
    }
}

impl Visit for Ping<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.echo.visit_as("echo", visitor);
        self.regions.visit_as("regions", visitor);
        self.released.visit_as("released", visitor);
        visitor.leave(name);
    }
}

impl Ping<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("Ping", visitor);
    }
}

impl Visit for PingReply {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.echo.visit_as("echo", visitor);
        self.uptime_ms.visit_as("uptimeMs", visitor);
        visitor.leave(name);
    }
}

impl PingReply {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("PingReply", visitor);
    }
}

impl Visit for Stats<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.prefix.visit_as("prefix", visitor);
        visitor.leave(name);
    }
}

impl Stats<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("Stats", visitor);
    }
}

impl Visit for StatsReply<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.counters.visit_as("counters", visitor);
        visitor.leave(name);
    }
}

impl StatsReply<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("StatsReply", visitor);
    }
}

impl Visit for Counter<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.name.visit_as("name", visitor);
        self.value.visit_as("value", visitor);
        visitor.leave(name);
    }
}

impl Counter<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("Counter", visitor);
    }
}

impl Visit for Chunk {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.length.visit_as("length", visitor);
        self.token_start.visit_as("tokenStart", visitor);
        self.token_count.visit_as("tokenCount", visitor);
        self.layer.visit_as("layer", visitor);
        self.kind.visit_as("kind", visitor);
        visitor.leave(name);
    }
}

impl Chunk {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("Chunk", visitor);
    }
}

impl Visit for Manifest<'_> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter(name);
        self.engine.visit_as("engine", visitor);
        self.engine_state_version.visit_as("engineStateVersion", visitor);
        self.model_fingerprint.visit_as("modelFingerprint", visitor);
        self.hash_algorithm.visit_as("hashAlgorithm", visitor);
        self.window_tokens.visit_as("windowTokens", visitor);
        self.tokens.visit_as("tokens", visitor);
        self.engine_state.visit_as("engineState", visitor);
        self.chunks.visit_as("chunks", visitor);
        self.hashes.visit_as("hashes", visitor);
        visitor.leave(name);
    }
}

impl Manifest<'_> {
    /// Tells `visitor` of every field.
    pub fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.visit_as("Manifest", visitor);
    }
}
