@0xb1d2a6f0c3e94a51;
# The annotation vocabulary of the MemKV specification. The generator reads these; every other tool may ignore them.

# --- on a field of the unions in Request and Response ---
annotation opcode @0xd0f5b3a1c7e20001 (field) :UInt16;
# The operation's number on the wire. It equals the union's discriminant and never changes; a retired one stays reserved.
annotation since @0xd0f5b3a1c7e20002 (field, struct, enumerant) :UInt8;
# The first protocol version that has this.
annotation idempotent @0xd0f5b3a1c7e20003 (field) :Bool;
# A client may send the request again after it lost the connection without knowing the outcome.
annotation errors @0xd0f5b3a1c7e20004 (field) :List(Text);
# The statuses, besides `ok` and those every operation may return, that a reply to this operation may carry.
annotation payload @0xd0f5b3a1c7e20005 (field) :PayloadUse;
# Whether frames of this arm carry inline payload, and whether its message may have more than one frame.
annotation setup @0xd0f5b3a1c7e20006 (field) :Void;
# The operation belongs to session set-up: it rides in hello frames and has no handler in the dispatch trait.

enum PayloadUse {
  none @0;
  # One frame, no payload.
  frames @1;
  # One or more frames, no payload.
  pieces @2;
  # One or more frames, each may carry the payload of the pieces it lists.
  body @3;
  # One or more frames; the payloads, joined, are one body.
}

# --- on a struct ---
annotation message @0xd0f5b3a1c7e20010 (struct) :Text;
# A root: it appears as the whole of a control message or of a stored blob. The text names the limit of its encoded size.

# --- on a data, text or list field: its bounds, checked before anything past the decoder sees it ---
annotation len @0xd0f5b3a1c7e20020 (field) :UInt32;
# Exactly this many bytes.
annotation lenMin @0xd0f5b3a1c7e20021 (field) :UInt32;
annotation lenMax @0xd0f5b3a1c7e20022 (field) :UInt32;
# At least, at most so many bytes. A data or text field without an upper bound is a specification error.
annotation countMin @0xd0f5b3a1c7e20023 (field) :UInt32;
annotation countMax @0xd0f5b3a1c7e20024 (field) :UInt32;
# At least, at most so many elements. A list without an upper bound is a specification error.
annotation itemLenMin @0xd0f5b3a1c7e20025 (field) :UInt32;
annotation itemLenMax @0xd0f5b3a1c7e20026 (field) :UInt32;
# The same bounds for every element of a list of data.
annotation optional @0xd0f5b3a1c7e20027 (field) :Void;
# Empty means absent; otherwise the other bounds hold.

# --- on an integer field ---
annotation min @0xd0f5b3a1c7e20030 (field) :UInt64;
annotation max @0xd0f5b3a1c7e20031 (field) :UInt64;

# --- on an enumerant of Status ---
annotation atFault @0xd0f5b3a1c7e20040 (enumerant) :Fault;
annotation mayRetry @0xd0f5b3a1c7e20041 (enumerant) :Retry;
annotation anyOperation @0xd0f5b3a1c7e20042 (enumerant) :Void;
# Any operation may answer so: no `errors` needs to list it.

enum Fault {
  nobody @0;
  caller @1;
  # The request was wrong; the same request will fail again.
  server @2;
  # The server cannot do now what it should be able to do.
  peer @3;
  # A frame or message broke the protocol, or bytes were damaged on the way.
}

enum Retry {
  no @0;
  # The same request would end the same way.
  afterDelay @1;
  # Again on this server, after `retryAfterMs`.
  resend @2;
  # Again at once: the bytes were damaged or lost, not refused.
}

# --- on a constant ---
annotation limit @0xd0f5b3a1c7e20050 (const) :Text;
# The constant is a limit; the text is its unit.
annotation layout @0xd0f5b3a1c7e20051 (const) :Void;
# The constant fixes a place, size or value in the frame header or in a stored header.
