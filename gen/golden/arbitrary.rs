// Messages of any content within the schema's bounds.
// Generated from schema/ by gen/codegen; `cargo xtask gen` writes it anew.

impl<'a> Drawn<'a> for FrameKind {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        Ok(FrameKind::from_code(draw.code(4)?))
    }
}

impl<'a> Drawn<'a> for Status {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        Ok(Status::from_code(draw.code(19)?))
    }
}

impl<'a> Drawn<'a> for BulkMac {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        Ok(BulkMac::from_code(draw.code(3)?))
    }
}

impl<'a> Drawn<'a> for ManifestRole {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        Ok(ManifestRole::from_code(draw.code(3)?))
    }
}

impl<'a> Drawn<'a> for HashAlgorithm {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        Ok(HashAlgorithm::from_code(draw.code(4)?))
    }
}

impl<'a> Drawn<'a> for ChunkKind {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        Ok(ChunkKind::from_code(draw.code(4)?))
    }
}

impl<'a> Drawn<'a> for Region<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(3);
        Ok(Region {
            id: draw.unsigned(0, 4294967295)? as u32,
            offset: draw.unsigned(0, 18446744073709551615)?,
            mac: draw.optional_array()?,
        })
    }
}

impl<'a> Drawn<'a> for RegionDescriptor {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(3);
        Ok(RegionDescriptor {
            id: draw.unsigned(0, 4294967295)? as u32,
            length: draw.unsigned(1, 18446744073709551615)?,
            which: match draw.code(2)? {
                0 => RegionDescriptorWhich::SharedMemory,
                1 => RegionDescriptorWhich::Rdma(Drawn::draw(draw)?),
                tag => RegionDescriptorWhich::Unknown(tag),
            },
        })
    }
}

impl<'a> Drawn<'a> for RdmaMemory {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(2);
        Ok(RdmaMemory {
            address: draw.unsigned(0, 18446744073709551615)?,
            remote_key: draw.unsigned(0, 4294967295)? as u32,
        })
    }
}

impl<'a> Drawn<'a> for QueuePair<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(4);
        Ok(QueuePair {
            number: draw.unsigned(0, 4294967295)? as u32,
            packet_sequence: draw.unsigned(0, 4294967295)? as u32,
            gid: draw.array()?,
            path_mtu_bytes: draw.unsigned(0, 4294967295)? as u32,
            receive_credits: draw.unsigned(0, 4294967295)? as u32,
            reads_max: draw.unsigned(0, 65535)? as u16,
        })
    }
}

impl<'a> Drawn<'a> for Piece<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(5);
        Ok(Piece {
            index: draw.unsigned(0, 4095)? as u32,
            offset: draw.unsigned(0, 1073741824)?,
            length: draw.unsigned(0, 1048576)? as u32,
            checksum: draw.optional_array()?,
            which: match draw.code(2)? {
                0 => PieceWhich::Inline,
                1 => PieceWhich::Region(Drawn::draw(draw)?),
                tag => PieceWhich::Unknown(tag),
            },
        })
    }
}

impl<'a> Drawn<'a> for ChunkReference<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(3);
        Ok(ChunkReference {
            key: draw.data(1, 512)?,
            length: draw.unsigned(1, 1073741824)?,
            checksum: draw.optional_array()?,
        })
    }
}

impl<'a> Drawn<'a> for Connect<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(6);
        Ok(Connect {
            nonce: draw.array()?,
            client_id: draw.array()?,
            bulk_macs: draw.list(1, 8)?,
            client_name: draw.text(0, 128)?,
            which: match draw.code(2)? {
                0 => ConnectWhich::Stream,
                1 => ConnectWhich::QueuePair(Drawn::draw(draw)?),
                tag => ConnectWhich::Unknown(tag),
            },
        })
    }
}

impl<'a> Drawn<'a> for ConnectReply<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(8);
        Ok(ConnectReply {
            client_nonce: draw.array()?,
            server_nonce: draw.array()?,
            server_id: draw.array()?,
            bulk_mac: Drawn::draw(draw)?,
            version_min: draw.unsigned(0, 255)? as u8,
            version_max: draw.unsigned(0, 255)? as u8,
            requests_in_flight_max: draw.unsigned(1, 4294967295)? as u32,
            lease_ms: draw.unsigned(0, 4294967295)? as u32,
            server_name: draw.text(0, 128)?,
            local_path: draw.text(0, 108)?,
            queue_pairs: Drawn::draw(draw)?,
            which: match draw.code(2)? {
                0 => ConnectReplyWhich::Stream,
                1 => ConnectReplyWhich::QueuePair(Drawn::draw(draw)?),
                tag => ConnectReplyWhich::Unknown(tag),
            },
        })
    }
}

impl<'a> Drawn<'a> for Request<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(3);
        Ok(Request {
            namespace: draw.data(0, 255)?,
            which: match draw.code(16)? {
                0 => RequestWhich::Connect(Drawn::draw(draw)?),
                1 => RequestWhich::Allocate(Drawn::draw(draw)?),
                2 => RequestWhich::Lookup(Drawn::draw(draw)?),
                3 => RequestWhich::Commit(Drawn::draw(draw)?),
                4 => RequestWhich::Delete(Drawn::draw(draw)?),
                5 => RequestWhich::Exists(Drawn::draw(draw)?),
                6 => RequestWhich::Read(Drawn::draw(draw)?),
                7 => RequestWhich::Write(Drawn::draw(draw)?),
                8 => RequestWhich::BatchRead(Drawn::draw(draw)?),
                9 => RequestWhich::BatchWrite(Drawn::draw(draw)?),
                10 => RequestWhich::PutManifest(Drawn::draw(draw)?),
                11 => RequestWhich::GetManifest(Drawn::draw(draw)?),
                12 => RequestWhich::DeleteManifest(Drawn::draw(draw)?),
                13 => RequestWhich::ListManifests(Drawn::draw(draw)?),
                14 => RequestWhich::Ping(Drawn::draw(draw)?),
                15 => RequestWhich::Stats(Drawn::draw(draw)?),
                tag => RequestWhich::Unknown(tag),
            },
        })
    }
}

impl<'a> Drawn<'a> for Response<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(3);
        Ok(Response {
            status: Drawn::draw(draw)?,
            retry_after_ms: draw.unsigned(0, 60000)? as u32,
            detail: draw.text(0, 512)?,
            which: match draw.code(16)? {
                0 => ResponseWhich::Connect(Drawn::draw(draw)?),
                1 => ResponseWhich::Allocate(Drawn::draw(draw)?),
                2 => ResponseWhich::Lookup(Drawn::draw(draw)?),
                3 => ResponseWhich::Commit(Drawn::draw(draw)?),
                4 => ResponseWhich::Delete(Drawn::draw(draw)?),
                5 => ResponseWhich::Exists(Drawn::draw(draw)?),
                6 => ResponseWhich::Read(Drawn::draw(draw)?),
                7 => ResponseWhich::Write(Drawn::draw(draw)?),
                8 => ResponseWhich::BatchRead(Drawn::draw(draw)?),
                9 => ResponseWhich::BatchWrite(Drawn::draw(draw)?),
                10 => ResponseWhich::PutManifest(Drawn::draw(draw)?),
                11 => ResponseWhich::GetManifest(Drawn::draw(draw)?),
                12 => ResponseWhich::DeleteManifest(Drawn::draw(draw)?),
                13 => ResponseWhich::ListManifests(Drawn::draw(draw)?),
                14 => ResponseWhich::Ping(Drawn::draw(draw)?),
                15 => ResponseWhich::Stats(Drawn::draw(draw)?),
                tag => ResponseWhich::Unknown(tag),
            },
        })
    }
}

impl<'a> Drawn<'a> for Allocate<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(4);
        Ok(Allocate {
            key: draw.data(1, 512)?,
            length: draw.unsigned(1, 1073741824)?,
            checksum: draw.optional_array()?,
            lease_ms: draw.unsigned(0, 60000)? as u32,
        })
    }
}

impl<'a> Drawn<'a> for AllocateReply {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(2);
        Ok(AllocateReply {
            allocation: draw.unsigned(0, 18446744073709551615)?,
            lease_ms: draw.unsigned(0, 4294967295)? as u32,
            present: Drawn::draw(draw)?,
        })
    }
}

impl<'a> Drawn<'a> for Commit<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(2);
        Ok(Commit {
            allocation: draw.unsigned(1, 18446744073709551615)?,
            checksum: draw.optional_array()?,
        })
    }
}

impl<'a> Drawn<'a> for CommitReply<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(1);
        Ok(CommitReply {
            checksum: draw.optional_array()?,
        })
    }
}

impl<'a> Drawn<'a> for Write<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(5);
        Ok(Write {
            key: draw.data(1, 512)?,
            length: draw.unsigned(1, 1073741824)?,
            checksum: draw.optional_array()?,
            allocation: draw.unsigned(0, 18446744073709551615)?,
            pieces: draw.list(0, 4096)?,
        })
    }
}

impl<'a> Drawn<'a> for WriteReply<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(1);
        Ok(WriteReply {
            checksum: draw.optional_array()?,
        })
    }
}

impl<'a> Drawn<'a> for BatchWrite<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(2);
        Ok(BatchWrite {
            items: draw.list(0, 4096)?,
            pieces: draw.list(0, 4096)?,
        })
    }
}

impl<'a> Drawn<'a> for WriteItem<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(3);
        Ok(WriteItem {
            key: draw.data(1, 512)?,
            length: draw.unsigned(1, 1073741824)?,
            checksum: draw.optional_array()?,
        })
    }
}

impl<'a> Drawn<'a> for BatchWriteReply<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(1);
        Ok(BatchWriteReply {
            results: draw.list(0, 4096)?,
        })
    }
}

impl<'a> Drawn<'a> for WriteResult {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(1);
        Ok(WriteResult {
            index: draw.unsigned(0, 4095)? as u32,
            status: Drawn::draw(draw)?,
        })
    }
}

impl<'a> Drawn<'a> for Read<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(4);
        Ok(Read {
            key: draw.data(1, 512)?,
            offset: draw.unsigned(0, 1073741824)?,
            length: draw.unsigned(0, 1073741824)?,
            destination: Drawn::draw(draw)?,
        })
    }
}

impl<'a> Drawn<'a> for Destination<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(2);
        Ok(Destination {
            which: match draw.code(2)? {
                0 => DestinationWhich::Inline,
                1 => DestinationWhich::Region(Drawn::draw(draw)?),
                tag => DestinationWhich::Unknown(tag),
            },
        })
    }
}

impl<'a> Drawn<'a> for ReadReply<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(3);
        Ok(ReadReply {
            length: draw.unsigned(0, 18446744073709551615)?,
            checksum: draw.optional_array()?,
            pieces: draw.list(0, 4096)?,
        })
    }
}

impl<'a> Drawn<'a> for BatchRead<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(1);
        Ok(BatchRead {
            items: draw.list(0, 4096)?,
        })
    }
}

impl<'a> Drawn<'a> for ReadItem<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(4);
        Ok(ReadItem {
            key: draw.data(1, 512)?,
            offset: draw.unsigned(0, 1073741824)?,
            length: draw.unsigned(0, 1073741824)?,
            destination: Drawn::draw(draw)?,
        })
    }
}

impl<'a> Drawn<'a> for BatchReadReply<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(2);
        Ok(BatchReadReply {
            results: draw.list(0, 4096)?,
            pieces: draw.list(0, 4096)?,
        })
    }
}

impl<'a> Drawn<'a> for ReadResult<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(3);
        Ok(ReadResult {
            index: draw.unsigned(0, 4095)? as u32,
            status: Drawn::draw(draw)?,
            length: draw.unsigned(0, 18446744073709551615)?,
            checksum: draw.optional_array()?,
        })
    }
}

impl<'a> Drawn<'a> for Lookup<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(2);
        Ok(Lookup {
            key: draw.data(1, 512)?,
            lease_ms: draw.unsigned(0, 60000)? as u32,
        })
    }
}

impl<'a> Drawn<'a> for LookupReply<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(4);
        Ok(LookupReply {
            length: draw.unsigned(0, 18446744073709551615)?,
            checksum: draw.optional_array()?,
            block_checksums: draw.data(0, 16384)?,
            lease_ms: draw.unsigned(0, 4294967295)? as u32,
        })
    }
}

impl<'a> Drawn<'a> for Exists<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(1);
        Ok(Exists {
            keys: draw.data_list(1, 4096, 1, 512)?,
        })
    }
}

impl<'a> Drawn<'a> for ExistsReply<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(1);
        Ok(ExistsReply {
            lengths: draw.list(0, 4096)?,
        })
    }
}

impl<'a> Drawn<'a> for Delete<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(1);
        Ok(Delete {
            keys: draw.data_list(1, 4096, 1, 512)?,
        })
    }
}

impl<'a> Drawn<'a> for DeleteReply<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(1);
        Ok(DeleteReply {
            statuses: draw.list(0, 4096)?,
        })
    }
}

impl<'a> Drawn<'a> for PutManifest<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(6);
        Ok(PutManifest {
            name: draw.data(1, 1024)?,
            generation: draw.unsigned(0, 18446744073709551615)?,
            role: Drawn::draw(draw)?,
            length: draw.unsigned(0, 67108864)?,
            checksum: draw.array()?,
            chunks: draw.list(0, 4096)?,
        })
    }
}

impl<'a> Drawn<'a> for PutManifestReply<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(3);
        Ok(PutManifestReply {
            generation: draw.unsigned(0, 18446744073709551615)?,
            missing: draw.list(0, 4096)?,
            lease_ms: draw.unsigned(0, 4294967295)? as u32,
        })
    }
}

impl<'a> Drawn<'a> for GetManifest<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(2);
        Ok(GetManifest {
            name: draw.data(1, 1024)?,
            lease_ms: draw.unsigned(0, 60000)? as u32,
        })
    }
}

impl<'a> Drawn<'a> for GetManifestReply<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(4);
        Ok(GetManifestReply {
            generation: draw.unsigned(0, 18446744073709551615)?,
            length: draw.unsigned(0, 67108864)?,
            checksum: draw.optional_array()?,
            lease_ms: draw.unsigned(0, 4294967295)? as u32,
        })
    }
}

impl<'a> Drawn<'a> for DeleteManifest<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(2);
        Ok(DeleteManifest {
            name: draw.data(1, 1024)?,
            generation: draw.unsigned(0, 18446744073709551615)?,
        })
    }
}

impl<'a> Drawn<'a> for DeleteManifestReply {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(1);
        Ok(DeleteManifestReply {
            generation: draw.unsigned(0, 18446744073709551615)?,
        })
    }
}

impl<'a> Drawn<'a> for ListManifests<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(3);
        Ok(ListManifests {
            prefix: draw.data(0, 1024)?,
            cursor: draw.data(0, 1024)?,
            count_max: draw.unsigned(0, 1024)? as u32,
        })
    }
}

impl<'a> Drawn<'a> for ListManifestsReply<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(2);
        Ok(ListManifestsReply {
            entries: draw.list(0, 1024)?,
            more: Drawn::draw(draw)?,
        })
    }
}

impl<'a> Drawn<'a> for ManifestEntry<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(5);
        Ok(ManifestEntry {
            name: draw.data(1, 1024)?,
            generation: draw.unsigned(0, 18446744073709551615)?,
            length: draw.unsigned(0, 18446744073709551615)?,
            chunk_count: draw.unsigned(0, 4294967295)? as u32,
            chunk_bytes: draw.unsigned(0, 18446744073709551615)?,
        })
    }
}

impl<'a> Drawn<'a> for Ping<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(3);
        Ok(Ping {
            echo: draw.unsigned(0, 18446744073709551615)?,
            regions: draw.list(0, 64)?,
            released: draw.list(0, 64)?,
        })
    }
}

impl<'a> Drawn<'a> for PingReply {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(2);
        Ok(PingReply {
            echo: draw.unsigned(0, 18446744073709551615)?,
            uptime_ms: draw.unsigned(0, 18446744073709551615)?,
        })
    }
}

impl<'a> Drawn<'a> for Stats<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(1);
        Ok(Stats {
            prefix: draw.text(0, 64)?,
        })
    }
}

impl<'a> Drawn<'a> for StatsReply<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(1);
        Ok(StatsReply {
            counters: draw.list(0, 1024)?,
        })
    }
}

impl<'a> Drawn<'a> for Counter<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(2);
        Ok(Counter {
            name: draw.text(1, 64)?,
            value: draw.unsigned(0, 18446744073709551615)?,
        })
    }
}

impl<'a> Drawn<'a> for Chunk {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(2);
        Ok(Chunk {
            length: draw.unsigned(1, 1073741824)? as u32,
            token_start: draw.unsigned(0, 4294967295)? as u32,
            token_count: draw.unsigned(0, 4294967295)? as u32,
            layer: draw.unsigned(0, 65535)? as u16,
            kind: Drawn::draw(draw)?,
        })
    }
}

impl<'a> Drawn<'a> for Manifest<'a> {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
        draw.spend(8);
        Ok(Manifest {
            engine: draw.text(1, 64)?,
            engine_state_version: draw.unsigned(0, 4294967295)? as u32,
            model_fingerprint: draw.data(1, 64)?,
            hash_algorithm: Drawn::draw(draw)?,
            window_tokens: draw.unsigned(1, 4294967295)? as u32,
            tokens: draw.list(0, 4194304)?,
            engine_state: draw.data(0, 33554432)?,
            chunks: draw.list(0, 1048576)?,
            hashes: draw.data(0, 33554432)?,
        })
    }
}

/// A [`Request`] within its bounds, that lives in `arena`.
pub fn draw_request<'a>(
    u: &mut Unstructured<'_>,
    arena: &'a Arena,
) -> Result<Request<'a>> {
    Request::draw(&mut Draw::new(u, arena, crate::limits::CONTROL_SIZE_BYTES_MAX as usize))
}

/// Writes a message with a [`Request`] within its bounds into `buf`.
pub fn request(u: &mut Unstructured<'_>, buf: &mut ControlBuf) -> Result<()> {
    encoded(draw_request(u, &Arena::new())?.encode(buf))
}

/// A [`Response`] within its bounds, that lives in `arena`.
pub fn draw_response<'a>(
    u: &mut Unstructured<'_>,
    arena: &'a Arena,
) -> Result<Response<'a>> {
    Response::draw(&mut Draw::new(u, arena, crate::limits::CONTROL_SIZE_BYTES_MAX as usize))
}

/// Writes a message with a [`Response`] within its bounds into `buf`.
pub fn response(u: &mut Unstructured<'_>, buf: &mut ControlBuf) -> Result<()> {
    encoded(draw_response(u, &Arena::new())?.encode(buf))
}

/// A [`Manifest`] within its bounds, that lives in `arena`.
pub fn draw_manifest<'a>(
    u: &mut Unstructured<'_>,
    arena: &'a Arena,
) -> Result<Manifest<'a>> {
    Manifest::draw(&mut Draw::new(u, arena, crate::limits::MANIFEST_SIZE_BYTES_MAX as usize))
}

/// Writes a message with a [`Manifest`] within its bounds into `buf`.
pub fn manifest(u: &mut Unstructured<'_>, buf: &mut ControlBuf) -> Result<()> {
    encoded(draw_manifest(u, &Arena::new())?.encode(buf))
}
