//! Bugs planted on purpose: the simulation shows that it finds each of them.
//!
//! Without the feature `planted-bugs`, which no default and no release build has, [`is`] is a constant `false` and the
//! branches behind it are gone. With it nothing changes until [`plant`] plants a bug, for the thread that calls it alone.
//!
//! The list is here because this is the one package that client and server both stand on. It says what is broken, not how.

macro_rules! bugs {
    ($($bug:ident $name:literal $what:literal,)*) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Bug {
            $(#[doc = $what] $bug,)*
        }

        impl Bug {
            pub const ALL: &'static [Bug] = &[$(Bug::$bug,)*];

            /// What it is called on a command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Bug::$bug => $name,)*
                }
            }

            /// What is broken.
            pub fn what(self) -> &'static str {
                match self {
                    $(Bug::$bug => $what,)*
                }
            }
        }
    };
}

bugs! {
    // transport
    SequenceUnchecked "sequence-unchecked" "A frame's sequence number is not looked at.",
    ControlMacUnchecked "control-mac-unchecked" "The MAC of a control message is not verified.",
    PayloadTagUnchecked "payload-tag-unchecked" "The tag of a payload is not verified.",
    BufferGivenBackTwice "buffer-given-back-twice" "A buffer's memory counts as free while it is still in use.",
    // client
    DeadlineNotArmed "deadline-not-armed" "A call's deadline does not wake the client.",
    ReplyToAnotherCall "reply-to-another-call" "Now and then a reply is handed to another call of the same operation.",
    RestartUntold "restart-untold" "The owner of a call that begins anew is not told, and takes a reply twice.",
    ReplyBufferReused "reply-buffer-reused" "A reply's memory takes the next reply before the first was read.",
    // service and store
    ChunkFlushSkipped "chunk-flush-skipped" "A manifest's record is written before its chunks are flushed.",
    ManifestFlushSkipped "manifest-flush-skipped" "A manifest is acknowledged before its record is flushed.",
    EarlyAck "early-ack" "A value is acknowledged before it is on a device.",
    ExtentFreedTwice "extent-freed-twice" "A reclaimed extent is put on the list of free ones twice.",
    JournalEntryLost "journal-entry-lost" "Now and then an entry does not get into the journal.",
    DeleteNotLogged "delete-not-logged" "The delete of a manifest does not get into the journal.",
    ChecksumUnchecked "checksum-unchecked" "What is read from a device is not held against its checksum.",
    WrongBlock "wrong-block" "A read of a later block of a value returns the one before.",
    LeaseIgnored "lease-ignored" "Eviction takes what is leased.",
    MissingChunkPublished "missing-chunk-published" "A manifest is published though a chunk is missing.",
    StaleGenerationAccepted "stale-generation-accepted" "A manifest of an older generation replaces a newer one.",
    ReferenceLeaked "reference-leaked" "A manifest that is replaced keeps a chunk's reference.",
    LiveRecordNotMoved "live-record-not-moved" "A reclaimed extent still holds a live record.",
    ReuseBeforeFlush "reuse-before-flush" "An extent is used again before the copies of its records are flushed.",
    TornRecordTaken "torn-record-taken" "Opening takes a record whose bytes did not all arrive.",
    RequestForgotten "request-forgotten" "The requests of a connection that ends stay with the server.",
}

#[cfg(feature = "planted-bugs")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
        static ASKED: Cell<u32> = const { Cell::new(0) };
    }

    /// Plants a bug for this thread, or none.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
        ASKED.set(0);
    }

    /// Whether this bug is planted.
    pub fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Whether this bug is planted and its turn has come: every so many times.
    pub fn now_and_then(bug: Bug, every: u32) -> bool {
        is(bug) && {
            ASKED.set(ASKED.get() + 1);
            ASKED.get().is_multiple_of(every)
        }
    }
}

#[cfg(feature = "planted-bugs")]
pub use switch::{is, now_and_then, plant};

/// Whether this bug is planted: it is not.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn is(_: Bug) -> bool {
    false
}

/// Whether this bug is planted and its turn has come: it is not.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn now_and_then(_: Bug, _: u32) -> bool {
    false
}

#[cfg(not(feature = "planted-bugs"))]
const _: () = assert!(!is(Bug::EarlyAck) && !now_and_then(Bug::EarlyAck, 1));
