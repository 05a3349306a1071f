// The operations: their table, their dispatch and the caller's stubs.
// Generated from schema/ by gen/codegen; `cargo xtask gen` writes it anew.

/// Every operation of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Operation {
    /// The first frame of every byte stream, of kind hello, with sequence number 0 and the id of the key in the header.
    /// Its MAC is made with the shared key itself.
    Connect = 0,
    /// Reserves room for a value that is written piecewise: Allocate, Write with the allocation, Commit.
    Allocate = 1,
    /// What is stored under a key, and a lease on it.
    Lookup = 2,
    /// Makes an allocation's value visible.
    Commit = 3,
    Delete = 4,
    Exists = 5,
    /// A value, or a range of it.
    Read = 6,
    /// Allocate, transfer and commit in one; or, with an allocation, the transfer alone.
    Write = 7,
    /// Many values or ranges. Items are counted as in BatchWrite.
    BatchRead = 8,
    /// Many values.
    BatchWrite = 9,
    /// Publishes a manifest. Its body, opaque to the server, is the payload of the message's frames, joined.
    PutManifest = 10,
    GetManifest = 11,
    DeleteManifest = 12,
    ListManifests = 13,
    /// Liveness, and the registration of memory.
    Ping = 14,
    Stats = 15,
}

impl Operation {
    pub const ALL: &'static [Operation] = &[
        Operation::Connect,
        Operation::Allocate,
        Operation::Lookup,
        Operation::Commit,
        Operation::Delete,
        Operation::Exists,
        Operation::Read,
        Operation::Write,
        Operation::BatchRead,
        Operation::BatchWrite,
        Operation::PutManifest,
        Operation::GetManifest,
        Operation::DeleteManifest,
        Operation::ListManifests,
        Operation::Ping,
        Operation::Stats,
    ];

    /// The union's discriminant.
    pub const fn opcode(self) -> u16 {
        self as u16
    }

    pub const fn from_opcode(opcode: u16) -> Option<Operation> {
        match opcode {
            0 => Some(Operation::Connect),
            1 => Some(Operation::Allocate),
            2 => Some(Operation::Lookup),
            3 => Some(Operation::Commit),
            4 => Some(Operation::Delete),
            5 => Some(Operation::Exists),
            6 => Some(Operation::Read),
            7 => Some(Operation::Write),
            8 => Some(Operation::BatchRead),
            9 => Some(Operation::BatchWrite),
            10 => Some(Operation::PutManifest),
            11 => Some(Operation::GetManifest),
            12 => Some(Operation::DeleteManifest),
            13 => Some(Operation::ListManifests),
            14 => Some(Operation::Ping),
            15 => Some(Operation::Stats),
            _ => None,
        }
    }

    /// As in the schema.
    pub const fn name(self) -> &'static str {
        match self {
            Operation::Connect => "connect",
            Operation::Allocate => "allocate",
            Operation::Lookup => "lookup",
            Operation::Commit => "commit",
            Operation::Delete => "delete",
            Operation::Exists => "exists",
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::BatchRead => "batchRead",
            Operation::BatchWrite => "batchWrite",
            Operation::PutManifest => "putManifest",
            Operation::GetManifest => "getManifest",
            Operation::DeleteManifest => "deleteManifest",
            Operation::ListManifests => "listManifests",
            Operation::Ping => "ping",
            Operation::Stats => "stats",
        }
    }

    /// The first protocol version that has it.
    pub const fn since(self) -> u8 {
        match self {
            Operation::Connect => 1,
            Operation::Allocate => 1,
            Operation::Lookup => 1,
            Operation::Commit => 1,
            Operation::Delete => 1,
            Operation::Exists => 1,
            Operation::Read => 1,
            Operation::Write => 1,
            Operation::BatchRead => 1,
            Operation::BatchWrite => 1,
            Operation::PutManifest => 1,
            Operation::GetManifest => 1,
            Operation::DeleteManifest => 1,
            Operation::ListManifests => 1,
            Operation::Ping => 1,
            Operation::Stats => 1,
        }
    }

    /// Whether a client may send it again after it lost the connection without knowing the outcome.
    pub const fn idempotent(self) -> bool {
        match self {
            Operation::Connect => true,
            Operation::Allocate => true,
            Operation::Lookup => true,
            Operation::Commit => false,
            Operation::Delete => true,
            Operation::Exists => true,
            Operation::Read => true,
            Operation::Write => true,
            Operation::BatchRead => true,
            Operation::BatchWrite => true,
            Operation::PutManifest => true,
            Operation::GetManifest => true,
            Operation::DeleteManifest => true,
            Operation::ListManifests => true,
            Operation::Ping => true,
            Operation::Stats => true,
        }
    }

    /// Whether it belongs to session set-up: it rides in hello frames and has no handler.
    pub const fn setup(self) -> bool {
        match self {
            Operation::Connect => true,
            Operation::Allocate => false,
            Operation::Lookup => false,
            Operation::Commit => false,
            Operation::Delete => false,
            Operation::Exists => false,
            Operation::Read => false,
            Operation::Write => false,
            Operation::BatchRead => false,
            Operation::BatchWrite => false,
            Operation::PutManifest => false,
            Operation::GetManifest => false,
            Operation::DeleteManifest => false,
            Operation::ListManifests => false,
            Operation::Ping => false,
            Operation::Stats => false,
        }
    }

    /// What the frames of a request carry beside the control message.
    pub const fn payload(self) -> PayloadUse {
        match self {
            Operation::Connect => PayloadUse::None,
            Operation::Allocate => PayloadUse::None,
            Operation::Lookup => PayloadUse::None,
            Operation::Commit => PayloadUse::None,
            Operation::Delete => PayloadUse::Frames,
            Operation::Exists => PayloadUse::Frames,
            Operation::Read => PayloadUse::None,
            Operation::Write => PayloadUse::Pieces,
            Operation::BatchRead => PayloadUse::Frames,
            Operation::BatchWrite => PayloadUse::Pieces,
            Operation::PutManifest => PayloadUse::Body,
            Operation::GetManifest => PayloadUse::None,
            Operation::DeleteManifest => PayloadUse::None,
            Operation::ListManifests => PayloadUse::None,
            Operation::Ping => PayloadUse::None,
            Operation::Stats => PayloadUse::None,
        }
    }

    /// The statuses of its replies, besides `ok` and those every operation may return.
    pub const fn errors(self) -> &'static [Status] {
        match self {
            Operation::Connect => &[Status::UnsupportedVersion],
            Operation::Allocate => &[Status::Conflict, Status::OutOfSpace, Status::QuotaExceeded, Status::TooLarge],
            Operation::Lookup => &[Status::NotFound],
            Operation::Commit => &[Status::LeaseExpired, Status::Conflict, Status::ChecksumMismatch],
            Operation::Delete => &[Status::NotFound, Status::Referenced],
            Operation::Exists => &[],
            Operation::Read => &[Status::NotFound, Status::ChecksumMismatch],
            Operation::Write => &[Status::Conflict, Status::OutOfSpace, Status::QuotaExceeded, Status::TooLarge, Status::LeaseExpired, Status::ChecksumMismatch],
            Operation::BatchRead => &[Status::NotFound, Status::ChecksumMismatch],
            Operation::BatchWrite => &[Status::Conflict, Status::OutOfSpace, Status::QuotaExceeded, Status::TooLarge, Status::ChecksumMismatch],
            Operation::PutManifest => &[Status::MissingChunks, Status::Conflict, Status::StaleGeneration, Status::OutOfSpace, Status::QuotaExceeded, Status::TooLarge, Status::ChecksumMismatch],
            Operation::GetManifest => &[Status::NotFound],
            Operation::DeleteManifest => &[Status::NotFound, Status::StaleGeneration],
            Operation::ListManifests => &[],
            Operation::Ping => &[],
            Operation::Stats => &[],
        }
    }

    /// An empty reply, to go with a status that is not `ok`.
    pub fn empty_reply(self) -> ResponseWhich<'static> {
        match self {
            Operation::Connect => ResponseWhich::Connect(Default::default()),
            Operation::Allocate => ResponseWhich::Allocate(Default::default()),
            Operation::Lookup => ResponseWhich::Lookup(Default::default()),
            Operation::Commit => ResponseWhich::Commit(Default::default()),
            Operation::Delete => ResponseWhich::Delete(Default::default()),
            Operation::Exists => ResponseWhich::Exists(Default::default()),
            Operation::Read => ResponseWhich::Read(Default::default()),
            Operation::Write => ResponseWhich::Write(Default::default()),
            Operation::BatchRead => ResponseWhich::BatchRead(Default::default()),
            Operation::BatchWrite => ResponseWhich::BatchWrite(Default::default()),
            Operation::PutManifest => ResponseWhich::PutManifest(Default::default()),
            Operation::GetManifest => ResponseWhich::GetManifest(Default::default()),
            Operation::DeleteManifest => ResponseWhich::DeleteManifest(Default::default()),
            Operation::ListManifests => ResponseWhich::ListManifests(Default::default()),
            Operation::Ping => ResponseWhich::Ping(Default::default()),
            Operation::Stats => ResponseWhich::Stats(Default::default()),
        }
    }

    /// Whether a reply to it may have this status.
    pub fn may_answer(self, status: Status) -> bool {
        status == Status::Ok || status.any_operation() || self.errors().contains(&status)
    }
}

impl RequestWhich<'_> {
    /// `None` for an arm that this version does not know.
    pub const fn operation(&self) -> Option<Operation> {
        match self {
            RequestWhich::Connect(_) => Some(Operation::Connect),
            RequestWhich::Allocate(_) => Some(Operation::Allocate),
            RequestWhich::Lookup(_) => Some(Operation::Lookup),
            RequestWhich::Commit(_) => Some(Operation::Commit),
            RequestWhich::Delete(_) => Some(Operation::Delete),
            RequestWhich::Exists(_) => Some(Operation::Exists),
            RequestWhich::Read(_) => Some(Operation::Read),
            RequestWhich::Write(_) => Some(Operation::Write),
            RequestWhich::BatchRead(_) => Some(Operation::BatchRead),
            RequestWhich::BatchWrite(_) => Some(Operation::BatchWrite),
            RequestWhich::PutManifest(_) => Some(Operation::PutManifest),
            RequestWhich::GetManifest(_) => Some(Operation::GetManifest),
            RequestWhich::DeleteManifest(_) => Some(Operation::DeleteManifest),
            RequestWhich::ListManifests(_) => Some(Operation::ListManifests),
            RequestWhich::Ping(_) => Some(Operation::Ping),
            RequestWhich::Stats(_) => Some(Operation::Stats),
            RequestWhich::Unknown(_) => None,
        }
    }

    pub const fn opcode(&self) -> u16 {
        match self {
            RequestWhich::Connect(_) => 0,
            RequestWhich::Allocate(_) => 1,
            RequestWhich::Lookup(_) => 2,
            RequestWhich::Commit(_) => 3,
            RequestWhich::Delete(_) => 4,
            RequestWhich::Exists(_) => 5,
            RequestWhich::Read(_) => 6,
            RequestWhich::Write(_) => 7,
            RequestWhich::BatchRead(_) => 8,
            RequestWhich::BatchWrite(_) => 9,
            RequestWhich::PutManifest(_) => 10,
            RequestWhich::GetManifest(_) => 11,
            RequestWhich::DeleteManifest(_) => 12,
            RequestWhich::ListManifests(_) => 13,
            RequestWhich::Ping(_) => 14,
            RequestWhich::Stats(_) => 15,
            RequestWhich::Unknown(opcode) => *opcode,
        }
    }
}

impl ResponseWhich<'_> {
    /// `None` for an arm that this version does not know.
    pub const fn operation(&self) -> Option<Operation> {
        match self {
            ResponseWhich::Connect(_) => Some(Operation::Connect),
            ResponseWhich::Allocate(_) => Some(Operation::Allocate),
            ResponseWhich::Lookup(_) => Some(Operation::Lookup),
            ResponseWhich::Commit(_) => Some(Operation::Commit),
            ResponseWhich::Delete(_) => Some(Operation::Delete),
            ResponseWhich::Exists(_) => Some(Operation::Exists),
            ResponseWhich::Read(_) => Some(Operation::Read),
            ResponseWhich::Write(_) => Some(Operation::Write),
            ResponseWhich::BatchRead(_) => Some(Operation::BatchRead),
            ResponseWhich::BatchWrite(_) => Some(Operation::BatchWrite),
            ResponseWhich::PutManifest(_) => Some(Operation::PutManifest),
            ResponseWhich::GetManifest(_) => Some(Operation::GetManifest),
            ResponseWhich::DeleteManifest(_) => Some(Operation::DeleteManifest),
            ResponseWhich::ListManifests(_) => Some(Operation::ListManifests),
            ResponseWhich::Ping(_) => Some(Operation::Ping),
            ResponseWhich::Stats(_) => Some(Operation::Stats),
            ResponseWhich::Unknown(_) => None,
        }
    }

    pub const fn opcode(&self) -> u16 {
        match self {
            ResponseWhich::Connect(_) => 0,
            ResponseWhich::Allocate(_) => 1,
            ResponseWhich::Lookup(_) => 2,
            ResponseWhich::Commit(_) => 3,
            ResponseWhich::Delete(_) => 4,
            ResponseWhich::Exists(_) => 5,
            ResponseWhich::Read(_) => 6,
            ResponseWhich::Write(_) => 7,
            ResponseWhich::BatchRead(_) => 8,
            ResponseWhich::BatchWrite(_) => 9,
            ResponseWhich::PutManifest(_) => 10,
            ResponseWhich::GetManifest(_) => 11,
            ResponseWhich::DeleteManifest(_) => 12,
            ResponseWhich::ListManifests(_) => 13,
            ResponseWhich::Ping(_) => 14,
            ResponseWhich::Stats(_) => 15,
            ResponseWhich::Unknown(opcode) => *opcode,
        }
    }
}

/// An operation as a type; [`op`] has one for each.
pub trait Op {
    const OPERATION: Operation;
    type Request<'a>;
    type Reply<'a>;

    fn wrap<'a>(request: Self::Request<'a>) -> RequestWhich<'a>;
    fn wrap_reply<'a>(reply: Self::Reply<'a>) -> ResponseWhich<'a>;
    /// `None` for the arm of another operation.
    fn reply<'a>(which: ResponseWhich<'a>) -> Option<Self::Reply<'a>>;
}

/// The operations as types.
pub mod op {
    use super::{Operation, RequestWhich, ResponseWhich};

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Connect;

    impl super::Op for Connect {
        const OPERATION: Operation = Operation::Connect;
        type Request<'a> = super::Connect<'a>;
        type Reply<'a> = super::ConnectReply<'a>;

        fn wrap<'a>(request: Self::Request<'a>) -> RequestWhich<'a> {
            RequestWhich::Connect(request)
        }

        fn wrap_reply<'a>(reply: Self::Reply<'a>) -> ResponseWhich<'a> {
            ResponseWhich::Connect(reply)
        }

        fn reply<'a>(which: ResponseWhich<'a>) -> Option<Self::Reply<'a>> {
            match which {
                ResponseWhich::Connect(reply) => Some(reply),
                _ => None,
            }
        }
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Allocate;

    impl super::Op for Allocate {
        const OPERATION: Operation = Operation::Allocate;
        type Request<'a> = super::Allocate<'a>;
        type Reply<'a> = super::AllocateReply;

        fn wrap<'a>(request: Self::Request<'a>) -> RequestWhich<'a> {
            RequestWhich::Allocate(request)
        }

        fn wrap_reply<'a>(reply: Self::Reply<'a>) -> ResponseWhich<'a> {
            ResponseWhich::Allocate(reply)
        }

        fn reply<'a>(which: ResponseWhich<'a>) -> Option<Self::Reply<'a>> {
            match which {
                ResponseWhich::Allocate(reply) => Some(reply),
                _ => None,
            }
        }
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Lookup;

    impl super::Op for Lookup {
        const OPERATION: Operation = Operation::Lookup;
        type Request<'a> = super::Lookup<'a>;
        type Reply<'a> = super::LookupReply<'a>;

        fn wrap<'a>(request: Self::Request<'a>) -> RequestWhich<'a> {
            RequestWhich::Lookup(request)
        }

        fn wrap_reply<'a>(reply: Self::Reply<'a>) -> ResponseWhich<'a> {
            ResponseWhich::Lookup(reply)
        }

        fn reply<'a>(which: ResponseWhich<'a>) -> Option<Self::Reply<'a>> {
            match which {
                ResponseWhich::Lookup(reply) => Some(reply),
                _ => None,
            }
        }
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Commit;

    impl super::Op for Commit {
        const OPERATION: Operation = Operation::Commit;
        type Request<'a> = super::Commit<'a>;
        type Reply<'a> = super::CommitReply<'a>;

        fn wrap<'a>(request: Self::Request<'a>) -> RequestWhich<'a> {
            RequestWhich::Commit(request)
        }

        fn wrap_reply<'a>(reply: Self::Reply<'a>) -> ResponseWhich<'a> {
            ResponseWhich::Commit(reply)
        }

        fn reply<'a>(which: ResponseWhich<'a>) -> Option<Self::Reply<'a>> {
            match which {
                ResponseWhich::Commit(reply) => Some(reply),
                _ => None,
            }
        }
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Delete;

    impl super::Op for Delete {
        const OPERATION: Operation = Operation::Delete;
        type Request<'a> = super::Delete<'a>;
        type Reply<'a> = super::DeleteReply<'a>;

        fn wrap<'a>(request: Self::Request<'a>) -> RequestWhich<'a> {
            RequestWhich::Delete(request)
        }

        fn wrap_reply<'a>(reply: Self::Reply<'a>) -> ResponseWhich<'a> {
            ResponseWhich::Delete(reply)
        }

        fn reply<'a>(which: ResponseWhich<'a>) -> Option<Self::Reply<'a>> {
            match which {
                ResponseWhich::Delete(reply) => Some(reply),
                _ => None,
            }
        }
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Exists;

    impl super::Op for Exists {
        const OPERATION: Operation = Operation::Exists;
        type Request<'a> = super::Exists<'a>;
        type Reply<'a> = super::ExistsReply<'a>;

        fn wrap<'a>(request: Self::Request<'a>) -> RequestWhich<'a> {
            RequestWhich::Exists(request)
        }

        fn wrap_reply<'a>(reply: Self::Reply<'a>) -> ResponseWhich<'a> {
            ResponseWhich::Exists(reply)
        }

        fn reply<'a>(which: ResponseWhich<'a>) -> Option<Self::Reply<'a>> {
            match which {
                ResponseWhich::Exists(reply) => Some(reply),
                _ => None,
            }
        }
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Read;

    impl super::Op for Read {
        const OPERATION: Operation = Operation::Read;
        type Request<'a> = super::Read<'a>;
        type Reply<'a> = super::ReadReply<'a>;

        fn wrap<'a>(request: Self::Request<'a>) -> RequestWhich<'a> {
            RequestWhich::Read(request)
        }

        fn wrap_reply<'a>(reply: Self::Reply<'a>) -> ResponseWhich<'a> {
            ResponseWhich::Read(reply)
        }

        fn reply<'a>(which: ResponseWhich<'a>) -> Option<Self::Reply<'a>> {
            match which {
                ResponseWhich::Read(reply) => Some(reply),
                _ => None,
            }
        }
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Write;

    impl super::Op for Write {
        const OPERATION: Operation = Operation::Write;
        type Request<'a> = super::Write<'a>;
        type Reply<'a> = super::WriteReply<'a>;

        fn wrap<'a>(request: Self::Request<'a>) -> RequestWhich<'a> {
            RequestWhich::Write(request)
        }

        fn wrap_reply<'a>(reply: Self::Reply<'a>) -> ResponseWhich<'a> {
            ResponseWhich::Write(reply)
        }

        fn reply<'a>(which: ResponseWhich<'a>) -> Option<Self::Reply<'a>> {
            match which {
                ResponseWhich::Write(reply) => Some(reply),
                _ => None,
            }
        }
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct BatchRead;

    impl super::Op for BatchRead {
        const OPERATION: Operation = Operation::BatchRead;
        type Request<'a> = super::BatchRead<'a>;
        type Reply<'a> = super::BatchReadReply<'a>;

        fn wrap<'a>(request: Self::Request<'a>) -> RequestWhich<'a> {
            RequestWhich::BatchRead(request)
        }

        fn wrap_reply<'a>(reply: Self::Reply<'a>) -> ResponseWhich<'a> {
            ResponseWhich::BatchRead(reply)
        }

        fn reply<'a>(which: ResponseWhich<'a>) -> Option<Self::Reply<'a>> {
            match which {
                ResponseWhich::BatchRead(reply) => Some(reply),
                _ => None,
            }
        }
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct BatchWrite;

    impl super::Op for BatchWrite {
        const OPERATION: Operation = Operation::BatchWrite;
        type Request<'a> = super::BatchWrite<'a>;
        type Reply<'a> = super::BatchWriteReply<'a>;

        fn wrap<'a>(request: Self::Request<'a>) -> RequestWhich<'a> {
            RequestWhich::BatchWrite(request)
        }

        fn wrap_reply<'a>(reply: Self::Reply<'a>) -> ResponseWhich<'a> {
            ResponseWhich::BatchWrite(reply)
        }

        fn reply<'a>(which: ResponseWhich<'a>) -> Option<Self::Reply<'a>> {
            match which {
                ResponseWhich::BatchWrite(reply) => Some(reply),
                _ => None,
            }
        }
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct PutManifest;

    impl super::Op for PutManifest {
        const OPERATION: Operation = Operation::PutManifest;
        type Request<'a> = super::PutManifest<'a>;
        type Reply<'a> = super::PutManifestReply<'a>;

        fn wrap<'a>(request: Self::Request<'a>) -> RequestWhich<'a> {
            RequestWhich::PutManifest(request)
        }

        fn wrap_reply<'a>(reply: Self::Reply<'a>) -> ResponseWhich<'a> {
            ResponseWhich::PutManifest(reply)
        }

        fn reply<'a>(which: ResponseWhich<'a>) -> Option<Self::Reply<'a>> {
            match which {
                ResponseWhich::PutManifest(reply) => Some(reply),
                _ => None,
            }
        }
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct GetManifest;

    impl super::Op for GetManifest {
        const OPERATION: Operation = Operation::GetManifest;
        type Request<'a> = super::GetManifest<'a>;
        type Reply<'a> = super::GetManifestReply<'a>;

        fn wrap<'a>(request: Self::Request<'a>) -> RequestWhich<'a> {
            RequestWhich::GetManifest(request)
        }

        fn wrap_reply<'a>(reply: Self::Reply<'a>) -> ResponseWhich<'a> {
            ResponseWhich::GetManifest(reply)
        }

        fn reply<'a>(which: ResponseWhich<'a>) -> Option<Self::Reply<'a>> {
            match which {
                ResponseWhich::GetManifest(reply) => Some(reply),
                _ => None,
            }
        }
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct DeleteManifest;

    impl super::Op for DeleteManifest {
        const OPERATION: Operation = Operation::DeleteManifest;
        type Request<'a> = super::DeleteManifest<'a>;
        type Reply<'a> = super::DeleteManifestReply;

        fn wrap<'a>(request: Self::Request<'a>) -> RequestWhich<'a> {
            RequestWhich::DeleteManifest(request)
        }

        fn wrap_reply<'a>(reply: Self::Reply<'a>) -> ResponseWhich<'a> {
            ResponseWhich::DeleteManifest(reply)
        }

        fn reply<'a>(which: ResponseWhich<'a>) -> Option<Self::Reply<'a>> {
            match which {
                ResponseWhich::DeleteManifest(reply) => Some(reply),
                _ => None,
            }
        }
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ListManifests;

    impl super::Op for ListManifests {
        const OPERATION: Operation = Operation::ListManifests;
        type Request<'a> = super::ListManifests<'a>;
        type Reply<'a> = super::ListManifestsReply<'a>;

        fn wrap<'a>(request: Self::Request<'a>) -> RequestWhich<'a> {
            RequestWhich::ListManifests(request)
        }

        fn wrap_reply<'a>(reply: Self::Reply<'a>) -> ResponseWhich<'a> {
            ResponseWhich::ListManifests(reply)
        }

        fn reply<'a>(which: ResponseWhich<'a>) -> Option<Self::Reply<'a>> {
            match which {
                ResponseWhich::ListManifests(reply) => Some(reply),
                _ => None,
            }
        }
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Ping;

    impl super::Op for Ping {
        const OPERATION: Operation = Operation::Ping;
        type Request<'a> = super::Ping<'a>;
        type Reply<'a> = super::PingReply;

        fn wrap<'a>(request: Self::Request<'a>) -> RequestWhich<'a> {
            RequestWhich::Ping(request)
        }

        fn wrap_reply<'a>(reply: Self::Reply<'a>) -> ResponseWhich<'a> {
            ResponseWhich::Ping(reply)
        }

        fn reply<'a>(which: ResponseWhich<'a>) -> Option<Self::Reply<'a>> {
            match which {
                ResponseWhich::Ping(reply) => Some(reply),
                _ => None,
            }
        }
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Stats;

    impl super::Op for Stats {
        const OPERATION: Operation = Operation::Stats;
        type Request<'a> = super::Stats<'a>;
        type Reply<'a> = super::StatsReply<'a>;

        fn wrap<'a>(request: Self::Request<'a>) -> RequestWhich<'a> {
            RequestWhich::Stats(request)
        }

        fn wrap_reply<'a>(reply: Self::Reply<'a>) -> ResponseWhich<'a> {
            ResponseWhich::Stats(reply)
        }

        fn reply<'a>(which: ResponseWhich<'a>) -> Option<Self::Reply<'a>> {
            match which {
                ResponseWhich::Stats(reply) => Some(reply),
                _ => None,
            }
        }
    }
}

/// A handler for every operation but those of session set-up. A handler answers through its call, now or
/// later; nothing is returned.
pub trait Dispatch {
    /// What a handler needs to answer: whose request it is, its payload, where the reply goes.
    type Call;

    fn allocate(&mut self, call: Self::Call, namespace: &[u8], request: Allocate<'_>);

    fn lookup(&mut self, call: Self::Call, namespace: &[u8], request: Lookup<'_>);

    fn commit(&mut self, call: Self::Call, namespace: &[u8], request: Commit<'_>);

    fn delete(&mut self, call: Self::Call, namespace: &[u8], request: Delete<'_>);

    fn exists(&mut self, call: Self::Call, namespace: &[u8], request: Exists<'_>);

    fn read(&mut self, call: Self::Call, namespace: &[u8], request: Read<'_>);

    fn write(&mut self, call: Self::Call, namespace: &[u8], request: Write<'_>);

    fn batch_read(&mut self, call: Self::Call, namespace: &[u8], request: BatchRead<'_>);

    fn batch_write(&mut self, call: Self::Call, namespace: &[u8], request: BatchWrite<'_>);

    fn put_manifest(&mut self, call: Self::Call, namespace: &[u8], request: PutManifest<'_>);

    fn get_manifest(&mut self, call: Self::Call, namespace: &[u8], request: GetManifest<'_>);

    fn delete_manifest(&mut self, call: Self::Call, namespace: &[u8], request: DeleteManifest<'_>);

    fn list_manifests(&mut self, call: Self::Call, namespace: &[u8], request: ListManifests<'_>);

    fn ping(&mut self, call: Self::Call, namespace: &[u8], request: Ping<'_>);

    fn stats(&mut self, call: Self::Call, namespace: &[u8], request: Stats<'_>);
}

/// Why a request reached no handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undispatched<C> {
    /// To be answered with `unknownOperation`.
    Unknown { call: C, opcode: u16 },
    /// Session set-up where no session is set up.
    Setup { call: C, operation: Operation },
}

/// Hands a request to its handler.
pub fn dispatch<D: Dispatch>(
    handlers: &mut D,
    call: D::Call,
    request: &Request<'_>,
) -> Result<(), Undispatched<D::Call>> {
    match request.which {
        RequestWhich::Connect(_) => {
            return Err(Undispatched::Setup { call, operation: Operation::Connect });
        }
        RequestWhich::Allocate(request_arm) => handlers.allocate(call, request.namespace, request_arm),
        RequestWhich::Lookup(request_arm) => handlers.lookup(call, request.namespace, request_arm),
        RequestWhich::Commit(request_arm) => handlers.commit(call, request.namespace, request_arm),
        RequestWhich::Delete(request_arm) => handlers.delete(call, request.namespace, request_arm),
        RequestWhich::Exists(request_arm) => handlers.exists(call, request.namespace, request_arm),
        RequestWhich::Read(request_arm) => handlers.read(call, request.namespace, request_arm),
        RequestWhich::Write(request_arm) => handlers.write(call, request.namespace, request_arm),
        RequestWhich::BatchRead(request_arm) => handlers.batch_read(call, request.namespace, request_arm),
        RequestWhich::BatchWrite(request_arm) => handlers.batch_write(call, request.namespace, request_arm),
        RequestWhich::PutManifest(request_arm) => handlers.put_manifest(call, request.namespace, request_arm),
        RequestWhich::GetManifest(request_arm) => handlers.get_manifest(call, request.namespace, request_arm),
        RequestWhich::DeleteManifest(request_arm) => handlers.delete_manifest(call, request.namespace, request_arm),
        RequestWhich::ListManifests(request_arm) => handlers.list_manifests(call, request.namespace, request_arm),
        RequestWhich::Ping(request_arm) => handlers.ping(call, request.namespace, request_arm),
        RequestWhich::Stats(request_arm) => handlers.stats(call, request.namespace, request_arm),
        RequestWhich::Unknown(opcode) => return Err(Undispatched::Unknown { call, opcode }),
    }
    Ok(())
}

/// The client's side: one method sends a request, the others name the operations.
pub trait Caller {
    /// A reply that has not come yet.
    type Pending<O: Op>;

    fn call<O: Op>(&mut self, namespace: &[u8], request: O::Request<'_>) -> Self::Pending<O>;

    fn allocate(&mut self, namespace: &[u8], request: Allocate<'_>) -> Self::Pending<op::Allocate> {
        self.call::<op::Allocate>(namespace, request)
    }

    fn lookup(&mut self, namespace: &[u8], request: Lookup<'_>) -> Self::Pending<op::Lookup> {
        self.call::<op::Lookup>(namespace, request)
    }

    fn commit(&mut self, namespace: &[u8], request: Commit<'_>) -> Self::Pending<op::Commit> {
        self.call::<op::Commit>(namespace, request)
    }

    fn delete(&mut self, namespace: &[u8], request: Delete<'_>) -> Self::Pending<op::Delete> {
        self.call::<op::Delete>(namespace, request)
    }

    fn exists(&mut self, namespace: &[u8], request: Exists<'_>) -> Self::Pending<op::Exists> {
        self.call::<op::Exists>(namespace, request)
    }

    fn read(&mut self, namespace: &[u8], request: Read<'_>) -> Self::Pending<op::Read> {
        self.call::<op::Read>(namespace, request)
    }

    fn write(&mut self, namespace: &[u8], request: Write<'_>) -> Self::Pending<op::Write> {
        self.call::<op::Write>(namespace, request)
    }

    fn batch_read(&mut self, namespace: &[u8], request: BatchRead<'_>) -> Self::Pending<op::BatchRead> {
        self.call::<op::BatchRead>(namespace, request)
    }

    fn batch_write(&mut self, namespace: &[u8], request: BatchWrite<'_>) -> Self::Pending<op::BatchWrite> {
        self.call::<op::BatchWrite>(namespace, request)
    }

    fn put_manifest(&mut self, namespace: &[u8], request: PutManifest<'_>) -> Self::Pending<op::PutManifest> {
        self.call::<op::PutManifest>(namespace, request)
    }

    fn get_manifest(&mut self, namespace: &[u8], request: GetManifest<'_>) -> Self::Pending<op::GetManifest> {
        self.call::<op::GetManifest>(namespace, request)
    }

    fn delete_manifest(&mut self, namespace: &[u8], request: DeleteManifest<'_>) -> Self::Pending<op::DeleteManifest> {
        self.call::<op::DeleteManifest>(namespace, request)
    }

    fn list_manifests(&mut self, namespace: &[u8], request: ListManifests<'_>) -> Self::Pending<op::ListManifests> {
        self.call::<op::ListManifests>(namespace, request)
    }

    fn ping(&mut self, namespace: &[u8], request: Ping<'_>) -> Self::Pending<op::Ping> {
        self.call::<op::Ping>(namespace, request)
    }

    fn stats(&mut self, namespace: &[u8], request: Stats<'_>) -> Self::Pending<op::Stats> {
        self.call::<op::Stats>(namespace, request)
    }
}
