//! The ways in which the reference client can be wrong, one at a time.

use crate::named::named;

named! {
    /// One mistake.
    Flaw:

    // ---- It sends wrong frames.
    /// Every connection has the same nonce.
    NonceReused => "nonce-reused",
    /// HMAC is not offered.
    HmacNotOffered => "hmac-not-offered",
    /// The connection is not confirmed.
    NoConfirmation => "no-confirmation",
    /// Every frame has the sequence number of the first request.
    SequenceStays => "sequence-stays",
    /// Requests grant credits.
    CreditsGranted => "credits-granted",
    /// Requests have flags that are not defined.
    FlagsSet => "flags-set",
    /// The tag of a payload is made over the payload alone.
    TagWithoutHeader => "tag-without-header",
    /// Requests are sent whatever the server allows to be open.
    RequestsUnbounded => "requests-unbounded",
    /// All requests that are open have the same id.
    RequestIdReused => "request-id-reused",
    /// Pieces end where the client likes.
    PiecesAnywhere => "pieces-anywhere",
    /// Keys are cut after 64 bytes.
    KeysCut => "keys-cut",
    /// Every client works in the same namespace.
    NamespaceIgnored => "namespace-ignored",
    /// A server of an older version is asked in that version.
    Downgrades => "downgrades",

    // ---- It does not check what comes.
    /// The MAC of the reply to Connect is not checked.
    AnswerMacNotChecked => "answer-mac-not-checked",
    /// A reply to Connect under the shared key is taken.
    AnswerUnderSharedKeyTaken => "answer-under-shared-key-taken",
    /// The nonce in the reply to Connect is not looked at.
    NonceNotCompared => "nonce-not-compared",
    /// Any bulk MAC that the server chooses is taken for AEGIS.
    BulkMacNotCompared => "bulk-mac-not-compared",
    /// Kind and sequence of the reply to Connect are not looked at.
    AnswerHeaderNotChecked => "answer-header-not-checked",
    /// Hello frames after set-up are ignored.
    LaterHelloIgnored => "later-hello-ignored",
    /// A frame's first bytes are not checked.
    MagicNotChecked => "magic-not-checked",
    /// The MAC of a frame is not checked.
    MacNotChecked => "mac-not-checked",
    /// The version of a frame is not checked.
    VersionNotChecked => "version-not-checked",
    /// The kind of a frame is not checked.
    KindNotChecked => "kind-not-checked",
    /// Sequence numbers are not checked.
    SequenceNotChecked => "sequence-not-checked",
    /// A frame whose sequence number was seen before is ignored.
    ReplayIgnored => "replay-ignored",
    /// Credits are not checked.
    CreditsNotChecked => "credits-not-checked",
    /// Unknown flags close the connection.
    FlagsRefused => "flags-refused",
    /// The tag of a payload is not checked.
    TagNotChecked => "tag-not-checked",
    /// After a frame that is wrong the connection is used on.
    StaysOpen => "stays-open",
    /// A message that cannot be read ends the process.
    DiesOfMalformed => "dies-of-malformed",
    /// What is missing of a frame is zero.
    CutFrameFilled => "cut-frame-filled",
    /// A frame is what one read of the socket gives.
    OneReadIsAFrame => "one-read-is-a-frame",
    /// A reply that does not come is waited for.
    WaitsForEver => "waits-for-ever",

    // ---- It takes right frames for something else.
    /// Replies are taken in the order of the requests.
    RepliesInOrder => "replies-in-order",
    /// Any reply is taken, whatever its request id.
    AnyReplyTaken => "any-reply-taken",
    /// A reply of another operation is an empty one of this.
    ArmNotCompared => "arm-not-compared",
    /// The first frame of a reply is all of it.
    FirstFrameIsAll => "first-frame-is-all",
    /// A status that is not known is `ok`.
    UnknownStatusIsOk => "unknown-status-is-ok",
    /// Every failure is tried again.
    RetriesEverything => "retries-everything",
    /// A write that was refused is told as done.
    RefusalUnsaid => "refusal-unsaid",
    /// `busy` is a failure for good.
    BusyIsFinal => "busy-is-final",
    /// There is one connection for the whole life of a process.
    NeverReconnects => "never-reconnects",
    /// Checksums of pieces are not checked.
    PieceChecksumNotChecked => "piece-checksum-not-checked",
    /// Checksums of values are not checked.
    ValueChecksumNotChecked => "value-checksum-not-checked",
    /// Whether pieces make the value is not checked.
    CoverageNotChecked => "coverage-not-checked",
    /// Pieces are joined as they come.
    PiecesAppended => "pieces-appended",
    /// A failure in a later frame of a reply is not seen.
    LateFailureUnseen => "late-failure-unseen",
    /// A range is read from the value's start.
    OffsetIgnored => "offset-ignored",
    /// Items of a batch that were not answered are done.
    UnansweredIsDone => "unanswered-is-done",
    /// Exists is told in another order.
    ExistsReversed => "exists-reversed",
    /// A manifest whose chunks are missing is told as published.
    MissingUnsaid => "missing-unsaid",
    /// Places of missing chunks are not checked.
    PlacesNotChecked => "places-not-checked",
    /// A manifest that is stale is told as published.
    StaleUnsaid => "stale-unsaid",
    /// The length of a body is not checked.
    BodyLengthNotChecked => "body-length-not-checked",
    /// The checksum of a body is not checked.
    BodyChecksumNotChecked => "body-checksum-not-checked",
    /// The first page of a list is all of it.
    OnePage => "one-page",
    /// Saving is tried until it succeeds.
    SavesForEver => "saves-for-ever",
    /// A manifest is published before its chunks are written, and without naming them.
    SavesWithoutChunks => "saves-without-chunks",
    /// A failure ends the process.
    DiesOfFailure => "dies-of-failure",
    // ---- Thought of with nothing but the specification at hand (see conformance/mutants/README.md).
    /// The last byte of a frame's MAC is not compared.
    MacLastByteIgnored => "mac-last-byte-ignored",
    /// The last byte of a payload's tag is not compared.
    TagLastByteIgnored => "tag-last-byte-ignored",
    /// Sequence numbers may skip some, only not go back.
    SequenceMaySkip => "sequence-may-skip",
    /// Only the lower half of sequence numbers is compared.
    SequenceOf32Bits => "sequence-of-32-bits",
    /// Any flag ends a message.
    AnyFlagIsLast => "any-flag-is-last",
    /// A read without any piece is an empty value.
    EmptyReplyIsEmptyValue => "empty-reply-is-empty-value",
    /// Pieces that end before the range does are taken for all of it.
    ShortTailTaken => "short-tail-taken",
    /// Pieces of a range have their checksums not checked, only whole values have.
    RangeChecksumNotChecked => "range-checksum-not-checked",
    /// A range that ends after the value is expected whole.
    CutRangeRefused => "cut-range-refused",
    /// Only the first piece of each frame is taken.
    OnePieceAFrame => "one-piece-a-frame",
    /// A manifest that comes without its body is taken for an empty one.
    EmptyBodyTaken => "empty-body-taken",
    /// A manifest of no bytes is not sent, and told as published.
    EmptyBodyUnsent => "empty-body-unsent",
    /// Lengths that are not answered are zero.
    ExistsPadded => "exists-padded",
    /// A value that fails makes all others of its batch fail.
    OneFailureFailsAll => "one-failure-fails-all",
    /// A status that nobody knows is tried again.
    UnknownStatusRetried => "unknown-status-retried",
    /// The longest key is refused.
    KeyOfMaxRefused => "key-of-max-refused",
    /// Names that are too long are cut.
    NamesCut => "names-cut",
    /// A value of whole blocks ends with an empty piece.
    EmptyPieceAtEnd => "empty-piece-at-end",
    /// Request ids have three bits, whatever is open.
    IdsOfThreeBits => "ids-of-three-bits",
    /// One request more than the server allows is open.
    RequestsOneTooMany => "requests-one-too-many",
    /// The nonce is drawn once for all connections.
    NonceOfClient => "nonce-of-client",
    /// The client id is drawn for each connection.
    ClientIdByConnection => "client-id-by-connection",
    /// A save is tried once more than it may be.
    SavesOnceTooOften => "saves-once-too-often",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different() {
        for flaw in Flaw::ALL {
            assert_eq!(Flaw::from_name(flaw.name()), Some(*flaw));
        }
        assert_eq!(Flaw::from_name("none"), None);
    }
}
