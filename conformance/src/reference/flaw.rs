//! The ways in which the reference server can be wrong, one at a time.

use crate::named::named;

impl Flaw {
    /// Whether a client must not confirm a connection that was answered so.
    pub fn spoils_set_up(self) -> bool {
        use Flaw::*;
        matches!(
            self,
            ClientNonceChanged
                | AnswerSignedWithSharedKey
                | BulkMacNotOffered
                | AnswerMacWrong
                | AnswerKindWrong
                | AnswerSequenceWrong
                | AnswerIdWrong
                | AnswerTooLong
                | AnswerMalformed
        )
    }

    /// Whether a client must close the connection on which it gets a frame, with a payload or without, that is so.
    pub fn spoils_frames(self, payload: bool) -> bool {
        use Flaw::*;
        match self {
            ReplyTagWrong | ReplyTagLastByteWrong | ReplyPayloadChanged => payload,
            ReplyMacLastByteWrong
            | ReplySequenceHigh
            | ReplyMagicWrong
            | ReplyMacWrong
            | ReplySequenceSkips
            | ReplyKindWrong
            | ReplyVersionWrong
            | ReplyGrantsCredits
            | ReplyTooLong
            | ReplyControlTooLong
            | ReplyMalformed
            | ReplyOutOfBounds => true,
            _ => false,
        }
    }
}

named! {
    /// One mistake.
    Flaw:

    // ---- It does not check what a client sends.
    /// The MAC of Connect is not checked.
    ConnectMacNotChecked => "connect-mac-not-checked",
    /// A Connect under a key that it does not hold is answered under its own.
    UnknownKeyAnswered => "unknown-key-answered",
    /// The MAC of a frame is not checked.
    MacNotChecked => "mac-not-checked",
    /// The tag of a payload is not checked.
    TagNotChecked => "tag-not-checked",
    /// Sequence numbers are not checked.
    SequenceNotChecked => "sequence-not-checked",
    /// A frame's first bytes are not checked.
    MagicNotChecked => "magic-not-checked",
    /// A frame's kind is not checked.
    KindNotChecked => "kind-not-checked",
    /// Credits are not checked.
    CreditsNotChecked => "credits-not-checked",
    /// A length beyond its limit is not seen before the bytes are there.
    LengthNotChecked => "length-not-checked",
    /// Unknown flags close the connection.
    FlagsRefused => "flags-refused",
    /// A request may come before the confirmation.
    NoConfirmationNeeded => "no-confirmation-needed",
    /// The confirmation's MAC is not checked.
    ConfirmationNotChecked => "confirmation-not-checked",
    /// A later hello frame is ignored.
    LaterHelloIgnored => "later-hello-ignored",
    /// A connection may stay in set-up as long as it likes.
    SetupForEver => "setup-for-ever",
    /// Any number of requests may be open.
    RequestsUnbounded => "requests-unbounded",
    /// A message that cannot be read is answered with `invalid`.
    MalformedAnswered => "malformed-answered",
    /// A ManifestRole, a name or a key of any length is taken: bounds are not checked.
    BoundsNotChecked => "bounds-not-checked",
    /// An unknown operation closes the connection.
    UnknownOperationCloses => "unknown-operation-closes",
    /// A message that fails is answered with its first frame.
    AnswersEarly => "answers-early",
    /// Frames that contradict the first one are taken.
    ContradictionTaken => "contradiction-taken",
    /// Pieces need not cover the value: what is missing is zero.
    GapsTaken => "gaps-taken",
    /// Pieces may begin anywhere.
    PiecesAnywhere => "pieces-anywhere",
    /// The checksum of a piece is not checked.
    PieceChecksumNotChecked => "piece-checksum-not-checked",
    /// The checksum of a value is not checked.
    ValueChecksumNotChecked => "value-checksum-not-checked",

    // ---- It says wrong things in set-up.
    /// Every connection has the same nonce.
    NonceReused => "nonce-reused",
    /// The reply to Connect has another nonce than the client's.
    ClientNonceChanged => "client-nonce-changed",
    /// The reply to Connect is signed with the shared key itself.
    AnswerSignedWithSharedKey => "answer-signed-with-shared-key",
    /// HMAC is chosen whatever the client prefers.
    BulkMacBestNotChosen => "bulk-mac-best-not-chosen",
    /// A bulk MAC is chosen that was not offered.
    BulkMacNotOffered => "bulk-mac-not-offered",
    /// A newer Connect is served as if it were of this version.
    NewerVersionServed => "newer-version-served",
    /// A newer Connect closes the connection without an answer.
    NewerVersionClosed => "newer-version-closed",
    /// Connect is never answered.
    ConnectIgnored => "connect-ignored",

    /// The MAC of the reply to Connect is wrong.
    AnswerMacWrong => "answer-mac-wrong",
    /// The reply to Connect is of kind response.
    AnswerKindWrong => "answer-kind-wrong",
    /// The reply to Connect has sequence number 1.
    AnswerSequenceWrong => "answer-sequence-wrong",
    /// The reply to Connect names another key.
    AnswerIdWrong => "answer-id-wrong",
    /// The reply to Connect announces more than its limit.
    AnswerTooLong => "answer-too-long",
    /// The reply to Connect cannot be read.
    AnswerMalformed => "answer-malformed",

    // ---- It sends wrong frames.
    /// Replies begin with other bytes.
    ReplyMagicWrong => "reply-magic-wrong",
    /// Every reply is sent twice, byte for byte.
    ReplySentTwice => "reply-sent-twice",
    /// Replies announce a control message of more than the limit.
    ReplyControlTooLong => "reply-control-too-long",
    /// A field of every reply is more than it may be.
    ReplyOutOfBounds => "reply-out-of-bounds",
    /// A hello frame comes before every reply.
    HelloLater => "hello-later",
    /// The MAC of a reply is wrong.
    ReplyMacWrong => "reply-mac-wrong",
    /// The tag of a reply is wrong.
    ReplyTagWrong => "reply-tag-wrong",
    /// A byte of a payload is changed after its tag was made.
    ReplyPayloadChanged => "reply-payload-changed",
    /// The sequence number of every reply is that of the first.
    ReplySequenceRepeats => "reply-sequence-repeats",
    /// A sequence number is left out.
    ReplySequenceSkips => "reply-sequence-skips",
    /// Replies have another request id.
    ReplyIdWrong => "reply-id-wrong",
    /// Replies have the arm of another operation.
    ReplyArmWrong => "reply-arm-wrong",
    /// Replies are of kind request.
    ReplyKindWrong => "reply-kind-wrong",
    /// Replies are of another version.
    ReplyVersionWrong => "reply-version-wrong",
    /// Replies grant credits.
    ReplyGrantsCredits => "reply-grants-credits",
    /// Replies announce a payload of more than the limit.
    ReplyTooLong => "reply-too-long",
    /// Replies cannot be read.
    ReplyMalformed => "reply-malformed",
    /// Replies end in the middle of a frame, and so does the connection.
    ReplyCut => "reply-cut",
    /// Replies lack their last frame.
    ReplyNeverEnds => "reply-never-ends",
    /// Requests are never answered.
    NeverReplies => "never-replies",
    /// The second frame of every connection closes it.
    ClosesAtOnce => "closes-at-once",

    // ---- It sends right frames that mean the wrong thing.
    /// Every request is answered with a status of a later version.
    StatusOfLaterVersion => "status-of-later-version",
    /// Ping returns 0.
    EchoLost => "echo-lost",
    /// Values that are stored are reported as misses.
    ReadMisses => "read-misses",
    /// A read gives other bytes, with checksums that match them piece by piece.
    ReadOtherBytes => "read-other-bytes",
    /// A read gives the bytes of another value and all its checksums; the length is right.
    ReadChecksumWrong => "read-checksum-wrong",
    /// A read gives fewer bytes than it says.
    ReadTooShort => "read-too-short",
    /// A read gives the first block twice.
    ReadOverlaps => "read-overlaps",
    /// A read of a range begins at the value's start.
    ReadIgnoresOffset => "read-ignores-offset",
    /// A range beyond the value's end is empty.
    ReadPastEnd => "read-past-end",
    /// Lookup gives wrong checksums of blocks.
    LookupBlocksWrong => "lookup-blocks-wrong",
    /// Exists answers in another order.
    ExistsReversed => "exists-reversed",
    /// A value is visible when its first piece came.
    VisibleEarly => "visible-early",
    /// Writing other bytes under a key replaces the value.
    ConflictReplaces => "conflict-replaces",
    /// Writing other bytes under a key is said to have been done.
    ConflictUnsaid => "conflict-unsaid",
    /// One failed item fails the batch.
    BatchFailsAsAWhole => "batch-fails-as-a-whole",
    /// The last item of a batch is not answered.
    BatchAnswersTooFew => "batch-answers-too-few",
    /// The first item of a batch is answered twice.
    BatchAnswersTwice => "batch-answers-twice",
    /// A result of a batch is of an item that was not asked for.
    BatchIndexBeyond => "batch-index-beyond",
    /// Namespaces share their keys.
    OneNamespace => "one-namespace",
    /// Allocate never says that a value is present.
    PresentUnsaid => "present-unsaid",
    /// Any client may use an allocation.
    AllocationForAll => "allocation-for-all",
    /// An allocation takes any value.
    AllocationOfAnything => "allocation-of-anything",
    /// Exists tells 1 for whatever is stored.
    ExistsTellsOne => "exists-tells-one",
    /// Writing a value again is a conflict.
    RewriteConflicts => "rewrite-conflicts",
    /// Allocate calls a value present whatever its checksum.
    PresentForAll => "present-for-all",
    /// A range that ends after its value is invalid.
    RangeNotCut => "range-not-cut",
    /// A read goes to the value's end whatever its length.
    LengthIgnored => "length-ignored",
    /// Lookup tells a length of whole blocks.
    LookupLengthWrong => "lookup-length-wrong",
    /// Lookup finds what is not stored.
    LookupOfMissing => "lookup-of-missing",
    /// Delete answers in another order.
    DeleteReversed => "delete-reversed",
    /// Delete removes the first key alone, and answers for all.
    DeleteOnlyFirst => "delete-only-first",
    /// The items of a batch need not be whole.
    BatchGapsTaken => "batch-gaps-taken",
    /// The same manifest under the same generation is stale.
    SameGenerationStale => "same-generation-stale",
    /// The server chooses generation 1 for every manifest.
    GenerationStays => "generation-stays",
    /// GetManifest tells no generation.
    GenerationUntold => "generation-untold",
    /// A manifest needs a body.
    EmptyBodyRefused => "empty-body-refused",
    /// Manifest names are cut after 255 bytes.
    NamesCut => "names-cut",
    /// A manifest with the role refs is listed.
    RefsListed => "refs-listed",
    /// A manifest with the role home needs its chunks.
    HomeChecksChunks => "home-checks-chunks",
    /// The first page of a list says that it is the last.
    ListMoreUnsaid => "list-more-unsaid",
    /// A list tells the chunks of a manifest wrongly.
    ListCountsWrong => "list-counts-wrong",
    /// A page has as many names as fit, whatever was asked for.
    CountMaxIgnored => "count-max-ignored",
    /// Deleting a manifest that is not there is said to be done.
    DeleteManifestOfMissing => "delete-manifest-of-missing",
    /// An allocation that was committed can be committed again.
    CommitTwice => "commit-twice",
    /// The chunks of a manifest that is published are said to be leased, and are not.
    PublishedUnleased => "published-unleased",
    /// A new value is leased to nobody.
    NewValueUnleased => "new-value-unleased",
    /// Leases neither hold nor end.
    LeasesIgnored => "leases-ignored",
    /// Commit takes a value that is not whole.
    CommitOfPart => "commit-of-part",
    /// Commit does not look at the checksum.
    CommitChecksumNotChecked => "commit-checksum-not-checked",
    /// Delete removes what a manifest names.
    DeleteIgnoresReferences => "delete-ignores-references",
    /// Delete says `ok` for what is not there.
    DeleteOfMissing => "delete-of-missing",
    /// A manifest is published although chunks are missing.
    MissingChunksTaken => "missing-chunks-taken",
    /// The places of missing chunks are off by one.
    MissingChunksOffByOne => "missing-chunks-off-by-one",
    /// A chunk's other length is no conflict.
    ChunkLengthNotCompared => "chunk-length-not-compared",
    /// Generations are not compared.
    GenerationIgnored => "generation-ignored",
    /// The body's checksum is not checked.
    BodyChecksumNotChecked => "body-checksum-not-checked",
    /// Only the first frame of a body is kept.
    BodyCutShort => "body-cut-short",
    /// A manifest's body lacks its last byte.
    BodyTooShort => "body-too-short",
    /// A manifest's body has another last byte.
    BodyOtherBytes => "body-other-bytes",
    /// A replaced manifest keeps its references.
    ReferencesStay => "references-stay",
    /// DeleteManifest does not look at the generation.
    DeleteIgnoresGeneration => "delete-ignores-generation",
    /// Names are listed in reverse order.
    ListUnsorted => "list-unsorted",
    /// The prefix is ignored.
    ListIgnoresPrefix => "list-ignores-prefix",
    /// The page after a cursor begins with the cursor.
    ListRepeatsCursor => "list-repeats-cursor",
    // ---- Thought of with nothing but the specification at hand (see conformance/mutants/README.md).
    /// A control message of exactly the longest length closes the connection.
    ControlOfMaxRefused => "control-of-max-refused",
    /// The last byte of a frame's MAC is not compared.
    MacLastByteIgnored => "mac-last-byte-ignored",
    /// The last byte of a payload's tag is not compared.
    TagLastByteIgnored => "tag-last-byte-ignored",
    /// Only the last frame of a message has its tag checked.
    TagOfLastFrameOnly => "tag-of-last-frame-only",
    /// Only the lower half of sequence numbers is compared.
    SequenceOf32Bits => "sequence-of-32-bits",
    /// Sequence numbers may skip some, only not go back.
    SequenceMaySkip => "sequence-may-skip",
    /// A frame of the reserved kind is taken for a request.
    ReservedKindTaken => "reserved-kind-taken",
    /// A confirmation that names another key id is taken.
    ConfirmationIdIgnored => "confirmation-id-ignored",
    /// A client that prefers a bulk MAC of the future is not served.
    UnknownBulkMacEnds => "unknown-bulk-mac-ends",
    /// Every frame of a message of an unknown operation is answered when it comes.
    UnknownAnsweredEarly => "unknown-answered-early",
    /// A message that begins before the one before it has ended closes the connection.
    OneMessageAtATime => "one-message-at-a-time",
    /// The 256th open request closes the connection.
    RequestsOneTooFew => "requests-one-too-few",
    /// Request id 0 closes the connection.
    IdZeroRefused => "id-zero-refused",
    /// The namespace of a message's later frames is not compared.
    LaterNamespaceIgnored => "later-namespace-ignored",
    /// Every failure is answered in the arm of Ping.
    FailureArmWrong => "failure-arm-wrong",
    /// A Write that its connection's end cuts off is filled up with zeros and stored.
    CutWriteKept => "cut-write-kept",
    /// All requests of a connection are in the namespace of its first one.
    NamespaceOfConnection => "namespace-of-connection",
    /// The empty namespace is `invalid`.
    EmptyNamespaceRefused => "empty-namespace-refused",
    /// The last byte of the longest namespace does not count.
    NamespaceLastByteLost => "namespace-last-byte-lost",
    /// The last byte of the longest key does not count.
    KeyLastByteLost => "key-last-byte-lost",
    /// A batch of exactly as many items as there may be is `invalid`.
    BatchOfMaxRefused => "batch-of-max-refused",
    /// The limit of keys is one of frames: those of a longer message beyond it are not answered.
    BatchMaxByFrame => "batch-max-by-frame",
    /// A key that is asked for twice in one message is answered once.
    KeysDeduplicated => "keys-deduplicated",
    /// The last piece of a value may be too short.
    LastPieceShort => "last-piece-short",
    /// A piece that comes twice in one Write replaces the one before.
    SecondPieceWins => "second-piece-wins",
    /// The value's checksum is not verified when the value is one block.
    OneBlockUnverified => "one-block-unverified",
    /// A value whose checksum does not hold is refused, and stored.
    MismatchStored => "mismatch-stored",
    /// Another value of the same length is taken for the one that is stored.
    ConflictByLength => "conflict-by-length",
    /// Of two values for one key in one batch the later one stays.
    BatchRepeatWins => "batch-repeat-wins",
    /// Nothing is read that comes after a miss in a batch.
    BatchReadStopsAtMiss => "batch-read-stops-at-miss",
    /// The items of a batch are read whole, whatever their range.
    BatchReadWhole => "batch-read-whole",
    /// A range that begins at the value's end is empty and `ok`.
    RangeAtEndEmpty => "range-at-end-empty",
    /// The checksum of a last block that is shorter than the others is not told.
    LookupBlocksFloor => "lookup-blocks-floor",
    /// Clients are told apart by their connections.
    ClientByConnection => "client-by-connection",
    /// A lease ends with its client's connection.
    LeaseEndsWithConnection => "lease-ends-with-connection",
    /// A value has one lease, of whoever asked last.
    LastLeaseCounts => "last-lease-counts",
    /// An allocation stays for the default time, whatever was asked for.
    AllocationLeaseIgnored => "allocation-lease-ignored",
    /// A Commit that comes too early ends the allocation.
    FailedCommitForgets => "failed-commit-forgets",
    /// Places of missing chunks are counted from each frame's first one.
    PlacesByFrame => "places-by-frame",
    /// A chunk of the right length and another checksum is taken for the one that is named.
    ChunkChecksumNotCompared => "chunk-checksum-not-compared",
    /// A manifest whose chunks are missing takes the one before with it.
    FailedPutDrops => "failed-put-drops",
    /// Another manifest of the same generation replaces the one that is stored.
    SameGenerationReplaces => "same-generation-replaces",
    /// Generations are compared as signed numbers.
    GenerationsSigned => "generations-signed",
    /// A name that was deleted takes only later generations.
    DeletedNameNotFree => "deleted-name-not-free",
    /// A deletion of exactly the stored generation is stale.
    DeleteOfSameGenerationStale => "delete-of-same-generation-stale",
    /// Only the chunks in a manifest's first frame are kept from being deleted.
    LaterReferencesLost => "later-references-lost",
    /// A chunk that two manifests name is free when one of them goes.
    ReferencesNotCounted => "references-not-counted",
    /// A body of several full frames loses the last of them.
    BodyOfFullFramesShort => "body-of-full-frames-short",
    /// A listing goes on only after a name that is still there.
    ListCursorMustExist => "list-cursor-must-exist",
    /// Names are ordered as signed bytes.
    ListOrderSigned => "list-order-signed",
    /// A single name on a last page is not told of.
    ListLastAloneLost => "list-last-alone-lost",
    /// The echo of a ping goes through a floating point number.
    EchoAsDouble => "echo-as-double",
    /// Regions that cannot be registered are said to be.
    RegionsTakenOnStream => "regions-taken-on-stream",

    // ---- What clients must notice that were thought of in the same way.
    /// The last byte of its frames' MACs is wrong.
    ReplyMacLastByteWrong => "reply-mac-last-byte-wrong",
    /// The last byte of its payloads' tags is wrong.
    ReplyTagLastByteWrong => "reply-tag-last-byte-wrong",
    /// The upper half of its sequence numbers is wrong.
    ReplySequenceHigh => "reply-sequence-high",
    /// Reads are answered without a piece.
    ReadEmpty => "read-empty",
    /// Manifests are answered without their bodies.
    BodyMissing => "body-missing",
    /// The last key that is asked for is not answered.
    ExistsTooFew => "exists-too-few",
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
