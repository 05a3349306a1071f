//! What a server may do and seldom does: a client has to live with it.

use crate::named::named;

named! {
    /// One unusual habit.
    Quirk:

    /// It speaks an older version: every Connect is answered with `unsupportedVersion`.
    OlderVersion => "older-version",
    /// It speaks HMAC-SHA256 and no other bulk MAC.
    HmacOnly => "hmac-only",
    /// It takes one request at a time.
    OneRequest => "one-request",
    /// It waits until no more requests come, and then answers the last one first.
    LastFirst => "last-first",
    /// Its frames leave it in pieces, with pauses between them.
    InPieces => "in-pieces",
    /// Flags that nobody knows are set in every frame.
    UnknownFlags => "unknown-flags",
    /// The pieces of a read, and the results of a batch, come in reverse order.
    PiecesReversed => "pieces-reversed",
    /// The pieces of a read share frames where they fit.
    PiecesTogether => "pieces-together",
    /// A read of several pieces fails after the first one was sent.
    ReadFailsLate => "read-fails-late",
    /// The first request of every operation is answered with `busy`, once.
    BusyOnce => "busy-once",
    /// Every request is answered with `invalid`.
    AlwaysInvalid => "always-invalid",
    /// Chunks are reported missing however often they are written.
    AlwaysMissing => "always-missing",
    /// Every manifest is said to be of an earlier generation than the one that is stored.
    AlwaysStale => "always-stale",
    /// Every connection is closed after its first answer, to anything but a registration of memory.
    ClosesAfterAnswer => "closes-after-answer",
    /// The first request is done, and its connection closed instead of answered.
    ClosesOnceUnanswered => "closes-once-unanswered",
}
