// The enums of the schema.
// Generated from schema/ by gen/codegen; `cargo xtask gen` writes it anew.

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PayloadUse {
    /// One frame, no payload.
    None,
    /// One or more frames, no payload.
    Frames,
    /// One or more frames, each may carry the payload of the pieces it lists.
    Pieces,
    /// One or more frames; the payloads, joined, are one body.
    Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    Nobody,
    /// The request was wrong; the same request will fail again.
    Caller,
    /// The server cannot do now what it should be able to do.
    Server,
    /// A frame or message broke the protocol, or bytes were damaged on the way.
    Peer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same request would end the same way.
    No,
    /// Again on this server, after `retryAfterMs`.
    AfterDelay,
    /// Again at once: the bytes were damaged or lost, not refused.
    Resend,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FrameKind {
    #[default]
    Reserved,
    /// Session set-up: `Connect` and its reply.
    Hello,
    /// From the side that connected.
    Request,
    /// From the side that accepted. \[MKV-FRAME-8\] A frame of a kind that this side does not expect closes the connection.
    Response,
    /// A code that this version does not know.
    Unknown(u16),
}

impl FrameKind {
    /// Every FrameKind of this version, in order of their codes.
    pub const ALL: &'static [FrameKind] = &[
        FrameKind::Reserved,
        FrameKind::Hello,
        FrameKind::Request,
        FrameKind::Response,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            FrameKind::Reserved => 0,
            FrameKind::Hello => 1,
            FrameKind::Request => 2,
            FrameKind::Response => 3,
            FrameKind::Unknown(code) => code,
        }
    }

    pub const fn from_code(code: u16) -> Self {
        match code {
            0 => FrameKind::Reserved,
            1 => FrameKind::Hello,
            2 => FrameKind::Request,
            3 => FrameKind::Response,
            code => FrameKind::Unknown(code),
        }
    }

    /// As in the schema.
    pub const fn name(self) -> &'static str {
        match self {
            FrameKind::Reserved => "reserved",
            FrameKind::Hello => "hello",
            FrameKind::Request => "request",
            FrameKind::Response => "response",
            FrameKind::Unknown(_) => "unknown",
        }
    }
}

crate::list::enum_element!(FrameKind);

/// \[MKV-STAT-1\] A status that the receiver does not know MUST be treated as a failure that must not be retried; it is never taken for `ok`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Status {
    #[default]
    Ok,
    /// No such value or manifest: a miss.
    NotFound,
    /// A value with another length or checksum is stored under this key.
    Conflict,
    /// PutManifest committed nothing: the listed chunks are not stored. Those that are were leased.
    MissingChunks,
    /// Nothing may be evicted at this moment.
    OutOfSpace,
    QuotaExceeded,
    TooLarge,
    /// The request is well formed, but its fields contradict one another or break a limit.
    Invalid,
    /// The server knows the operation but not this use of it.
    Unsupported,
    UnsupportedVersion,
    UnknownOperation,
    /// The bytes are not those the checksum was made of.
    ChecksumMismatch,
    /// The allocation is unknown: never made, finished, or reclaimed when its lease ended.
    LeaseExpired,
    /// A manifest of the same or a later generation is stored under this name.
    StaleGeneration,
    /// A manifest names the value: it cannot be deleted alone.
    Referenced,
    /// A limit of the server is reached (leases, memory, open writes).
    Busy,
    /// The device failed; nothing was acknowledged.
    StorageFailed,
    ShuttingDown,
    Internal,
    /// A code that this version does not know.
    Unknown(u16),
}

impl Status {
    /// Every Status of this version, in order of their codes.
    pub const ALL: &'static [Status] = &[
        Status::Ok,
        Status::NotFound,
        Status::Conflict,
        Status::MissingChunks,
        Status::OutOfSpace,
        Status::QuotaExceeded,
        Status::TooLarge,
        Status::Invalid,
        Status::Unsupported,
        Status::UnsupportedVersion,
        Status::UnknownOperation,
        Status::ChecksumMismatch,
        Status::LeaseExpired,
        Status::StaleGeneration,
        Status::Referenced,
        Status::Busy,
        Status::StorageFailed,
        Status::ShuttingDown,
        Status::Internal,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Status::Ok => 0,
            Status::NotFound => 1,
            Status::Conflict => 2,
            Status::MissingChunks => 3,
            Status::OutOfSpace => 4,
            Status::QuotaExceeded => 5,
            Status::TooLarge => 6,
            Status::Invalid => 7,
            Status::Unsupported => 8,
            Status::UnsupportedVersion => 9,
            Status::UnknownOperation => 10,
            Status::ChecksumMismatch => 11,
            Status::LeaseExpired => 12,
            Status::StaleGeneration => 13,
            Status::Referenced => 14,
            Status::Busy => 15,
            Status::StorageFailed => 16,
            Status::ShuttingDown => 17,
            Status::Internal => 18,
            Status::Unknown(code) => code,
        }
    }

    pub const fn from_code(code: u16) -> Self {
        match code {
            0 => Status::Ok,
            1 => Status::NotFound,
            2 => Status::Conflict,
            3 => Status::MissingChunks,
            4 => Status::OutOfSpace,
            5 => Status::QuotaExceeded,
            6 => Status::TooLarge,
            7 => Status::Invalid,
            8 => Status::Unsupported,
            9 => Status::UnsupportedVersion,
            10 => Status::UnknownOperation,
            11 => Status::ChecksumMismatch,
            12 => Status::LeaseExpired,
            13 => Status::StaleGeneration,
            14 => Status::Referenced,
            15 => Status::Busy,
            16 => Status::StorageFailed,
            17 => Status::ShuttingDown,
            18 => Status::Internal,
            code => Status::Unknown(code),
        }
    }

    /// As in the schema.
    pub const fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::NotFound => "notFound",
            Status::Conflict => "conflict",
            Status::MissingChunks => "missingChunks",
            Status::OutOfSpace => "outOfSpace",
            Status::QuotaExceeded => "quotaExceeded",
            Status::TooLarge => "tooLarge",
            Status::Invalid => "invalid",
            Status::Unsupported => "unsupported",
            Status::UnsupportedVersion => "unsupportedVersion",
            Status::UnknownOperation => "unknownOperation",
            Status::ChecksumMismatch => "checksumMismatch",
            Status::LeaseExpired => "leaseExpired",
            Status::StaleGeneration => "staleGeneration",
            Status::Referenced => "referenced",
            Status::Busy => "busy",
            Status::StorageFailed => "storageFailed",
            Status::ShuttingDown => "shuttingDown",
            Status::Internal => "internal",
            Status::Unknown(_) => "unknown",
        }
    }
}

crate::list::enum_element!(Status);

/// \[MKV-CONN-1\] Every peer MUST speak `hmacSha256`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BulkMac {
    /// HMAC-SHA256, 32-byte key.
    #[default]
    HmacSha256,
    /// AEGIS-128X2 (RFC 10032) in MAC mode: 16-byte key, zero nonce, 32-byte tag.
    Aegis128x2,
    /// AEGIS-128X4, as that: for processors whose vectors hold four AES blocks.
    Aegis128x4,
    /// A code that this version does not know.
    Unknown(u16),
}

impl BulkMac {
    /// Every BulkMac of this version, in order of their codes.
    pub const ALL: &'static [BulkMac] = &[
        BulkMac::HmacSha256,
        BulkMac::Aegis128x2,
        BulkMac::Aegis128x4,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            BulkMac::HmacSha256 => 0,
            BulkMac::Aegis128x2 => 1,
            BulkMac::Aegis128x4 => 2,
            BulkMac::Unknown(code) => code,
        }
    }

    pub const fn from_code(code: u16) -> Self {
        match code {
            0 => BulkMac::HmacSha256,
            1 => BulkMac::Aegis128x2,
            2 => BulkMac::Aegis128x4,
            code => BulkMac::Unknown(code),
        }
    }

    /// As in the schema.
    pub const fn name(self) -> &'static str {
        match self {
            BulkMac::HmacSha256 => "hmacSha256",
            BulkMac::Aegis128x2 => "aegis128x2",
            BulkMac::Aegis128x4 => "aegis128x4",
            BulkMac::Unknown(_) => "unknown",
        }
    }
}

crate::list::enum_element!(BulkMac);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ManifestRole {
    /// This server owns the chunks and the name.
    #[default]
    Both,
    /// It owns the chunks: they are referenced, the name is not listed here.
    Refs,
    /// It owns the name: the chunks are not checked here.
    Home,
    /// A code that this version does not know.
    Unknown(u16),
}

impl ManifestRole {
    /// Every ManifestRole of this version, in order of their codes.
    pub const ALL: &'static [ManifestRole] = &[
        ManifestRole::Both,
        ManifestRole::Refs,
        ManifestRole::Home,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            ManifestRole::Both => 0,
            ManifestRole::Refs => 1,
            ManifestRole::Home => 2,
            ManifestRole::Unknown(code) => code,
        }
    }

    pub const fn from_code(code: u16) -> Self {
        match code {
            0 => ManifestRole::Both,
            1 => ManifestRole::Refs,
            2 => ManifestRole::Home,
            code => ManifestRole::Unknown(code),
        }
    }

    /// As in the schema.
    pub const fn name(self) -> &'static str {
        match self {
            ManifestRole::Both => "both",
            ManifestRole::Refs => "refs",
            ManifestRole::Home => "home",
            ManifestRole::Unknown(_) => "unknown",
        }
    }
}

crate::list::enum_element!(ManifestRole);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HashAlgorithm {
    /// XXH3-64, 8 bytes, canonical form.
    #[default]
    Xxh3x64,
    /// XXH3-128, 16 bytes, canonical form.
    Xxh3x128,
    /// 32 bytes.
    Sha256,
    /// 32 bytes.
    Blake3,
    /// A code that this version does not know.
    Unknown(u16),
}

impl HashAlgorithm {
    /// Every HashAlgorithm of this version, in order of their codes.
    pub const ALL: &'static [HashAlgorithm] = &[
        HashAlgorithm::Xxh3x64,
        HashAlgorithm::Xxh3x128,
        HashAlgorithm::Sha256,
        HashAlgorithm::Blake3,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            HashAlgorithm::Xxh3x64 => 0,
            HashAlgorithm::Xxh3x128 => 1,
            HashAlgorithm::Sha256 => 2,
            HashAlgorithm::Blake3 => 3,
            HashAlgorithm::Unknown(code) => code,
        }
    }

    pub const fn from_code(code: u16) -> Self {
        match code {
            0 => HashAlgorithm::Xxh3x64,
            1 => HashAlgorithm::Xxh3x128,
            2 => HashAlgorithm::Sha256,
            3 => HashAlgorithm::Blake3,
            code => HashAlgorithm::Unknown(code),
        }
    }

    /// As in the schema.
    pub const fn name(self) -> &'static str {
        match self {
            HashAlgorithm::Xxh3x64 => "xxh3x64",
            HashAlgorithm::Xxh3x128 => "xxh3x128",
            HashAlgorithm::Sha256 => "sha256",
            HashAlgorithm::Blake3 => "blake3",
            HashAlgorithm::Unknown(_) => "unknown",
        }
    }
}

crate::list::enum_element!(HashAlgorithm);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ChunkKind {
    /// One layer's K rows and then its V rows, for the token range.
    #[default]
    KeysValues,
    /// K rows alone.
    Keys,
    /// V rows, or all of a transposed V.
    Values,
    /// Anything else; `engineState` says what.
    Other,
    /// A code that this version does not know.
    Unknown(u16),
}

impl ChunkKind {
    /// Every ChunkKind of this version, in order of their codes.
    pub const ALL: &'static [ChunkKind] = &[
        ChunkKind::KeysValues,
        ChunkKind::Keys,
        ChunkKind::Values,
        ChunkKind::Other,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            ChunkKind::KeysValues => 0,
            ChunkKind::Keys => 1,
            ChunkKind::Values => 2,
            ChunkKind::Other => 3,
            ChunkKind::Unknown(code) => code,
        }
    }

    pub const fn from_code(code: u16) -> Self {
        match code {
            0 => ChunkKind::KeysValues,
            1 => ChunkKind::Keys,
            2 => ChunkKind::Values,
            3 => ChunkKind::Other,
            code => ChunkKind::Unknown(code),
        }
    }

    /// As in the schema.
    pub const fn name(self) -> &'static str {
        match self {
            ChunkKind::KeysValues => "keysValues",
            ChunkKind::Keys => "keys",
            ChunkKind::Values => "values",
            ChunkKind::Other => "other",
            ChunkKind::Unknown(_) => "unknown",
        }
    }
}

crate::list::enum_element!(ChunkKind);

impl Status {
    pub const fn fault(self) -> Fault {
        match self {
            Status::Ok => Fault::Nobody,
            Status::NotFound => Fault::Nobody,
            Status::Conflict => Fault::Caller,
            Status::MissingChunks => Fault::Nobody,
            Status::OutOfSpace => Fault::Server,
            Status::QuotaExceeded => Fault::Caller,
            Status::TooLarge => Fault::Caller,
            Status::Invalid => Fault::Caller,
            Status::Unsupported => Fault::Caller,
            Status::UnsupportedVersion => Fault::Caller,
            Status::UnknownOperation => Fault::Caller,
            Status::ChecksumMismatch => Fault::Peer,
            Status::LeaseExpired => Fault::Caller,
            Status::StaleGeneration => Fault::Caller,
            Status::Referenced => Fault::Caller,
            Status::Busy => Fault::Server,
            Status::StorageFailed => Fault::Server,
            Status::ShuttingDown => Fault::Server,
            Status::Internal => Fault::Server,
            //= MKV-STAT-1
            Status::Unknown(_) => Fault::Peer,
        }
    }

    pub const fn retry(self) -> Retry {
        match self {
            Status::Ok => Retry::No,
            Status::NotFound => Retry::No,
            Status::Conflict => Retry::No,
            Status::MissingChunks => Retry::No,
            Status::OutOfSpace => Retry::AfterDelay,
            Status::QuotaExceeded => Retry::AfterDelay,
            Status::TooLarge => Retry::No,
            Status::Invalid => Retry::No,
            Status::Unsupported => Retry::No,
            Status::UnsupportedVersion => Retry::No,
            Status::UnknownOperation => Retry::No,
            Status::ChecksumMismatch => Retry::Resend,
            Status::LeaseExpired => Retry::No,
            Status::StaleGeneration => Retry::No,
            Status::Referenced => Retry::No,
            Status::Busy => Retry::AfterDelay,
            Status::StorageFailed => Retry::No,
            Status::ShuttingDown => Retry::AfterDelay,
            Status::Internal => Retry::No,
            //= MKV-STAT-1
            Status::Unknown(_) => Retry::No,
        }
    }

    /// Whether any operation may answer so.
    pub const fn any_operation(self) -> bool {
        match self {
            Status::Ok => false,
            Status::NotFound => false,
            Status::Conflict => false,
            Status::MissingChunks => false,
            Status::OutOfSpace => false,
            Status::QuotaExceeded => false,
            Status::TooLarge => false,
            Status::Invalid => true,
            Status::Unsupported => true,
            Status::UnsupportedVersion => false,
            Status::UnknownOperation => true,
            Status::ChecksumMismatch => false,
            Status::LeaseExpired => false,
            Status::StaleGeneration => false,
            Status::Referenced => false,
            Status::Busy => true,
            Status::StorageFailed => true,
            Status::ShuttingDown => true,
            Status::Internal => true,
            Status::Unknown(_) => false,
        }
    }
}
