@0xb1d2a6f0c3e94a53;
using Spec = import "spec.capnp";
using Types = import "types.capnp";

enum BulkMac {
  # [MKV-CONN-1] Every peer MUST speak `hmacSha256`.
  hmacSha256 @0;
  # HMAC-SHA256, 32-byte key.
  aegis128x2 @1;
  # AEGIS-128X2 (RFC 10032) in MAC mode: 16-byte key, zero nonce, 32-byte tag.
  aegis128x4 @2;
  # AEGIS-128X4, as that: for processors whose vectors hold four AES blocks.
}

struct Connect {
  # The first frame of every byte stream, of kind hello, with sequence number 0 and the id of the key in the header.
  # Its MAC is made with the shared key itself.
  #
  # Key id = the first 4 bytes, read as a little-endian integer, of HMAC-SHA256(key, "memkv key id").
  # Salt = SHA-256(LE64(length of C) || C || LE64(length of R) || R), C and R being the control messages of Connect and of its reply.
  # A derived key = HKDF-SHA256(salt, shared key, info), info = "memkv v" || decimal version || " " || direction || " " || use, where direction is
  # "client-to-server" or "server-to-client" and use is "control" (32 bytes), "bulk hmac-sha256" (32 bytes),
  # "bulk aegis-128x2" (16 bytes) or "bulk aegis-128x4" (16 bytes). The version is that of the reply's header.
  #
  # [MKV-CONN-2] Each side draws its nonce from the system's random source, anew for every connection.
  # [MKV-CONN-3] Sequence numbers start at 0 with the hello frame and rise by one with each frame, in each direction by itself; any other
  # number closes the connection.
  # [MKV-CONN-4] A Connect whose key id names no key the server holds, or whose MAC does not hold, closes the connection with no answer.
  # [MKV-CONN-5] Until the first frame under derived keys, a server holds at most `helloSizeBytesMax` for a connection, for at
  # most `setupTimeoutMs`, and at most `setupConnectionsMax` such connections.
  # [MKV-CONN-6] A server MAY hold several keys at once; it answers under the key that the Connect names.
  # [MKV-CONN-10] Once it accepted the reply, and before any other frame, the client sends its confirmation: a frame of kind hello with
  # sequence number 1, the Connect's key id, no control message and no payload. It is the first frame under derived keys. A server closes
  # the connection when anything else comes first, and either side when a hello frame comes later.
  nonce @0 :Data $Spec.len(32);
  clientId @1 :Data $Spec.len(16);
  # Drawn once by a client and the same on all its connections: leases are counted by it.
  bulkMacs @2 :List(BulkMac) $Spec.countMin(1) $Spec.countMax(8);
  # What the client can speak, the preferred first. [MKV-CONN-7] The server picks the first one that it can speak too.
  clientName @3 :Text $Spec.lenMax(128);
  # For logs.
  union {
    stream @4 :Void;
    queuePair @5 :Types.QueuePair;
    # Ask for an RDMA queue pair beside this stream.
  }
}

struct ConnectReply {
  # The server's first frame, of kind hello, with sequence number 0 and the Connect's key id. Its MAC is made with the derived
  # server-to-client control key, so that it proves both the shared key and the transcript.
  #
  # [MKV-CONN-8] A client MUST check that the reply's MAC holds, that `clientNonce` is its own, and that `bulkMac` is one it offered.
  # [MKV-CONN-9] A Connect of a newer version gets a reply with the status `unsupportedVersion`, the server's own version in the header, and the
  # Connect's nonce; then the server closes. Nothing is downgraded.
  clientNonce @0 :Data $Spec.len(32);
  serverNonce @1 :Data $Spec.len(32);
  serverId @2 :Data $Spec.len(16);
  # The server's identity; it outlives restarts.
  bulkMac @3 :BulkMac;
  versionMin @4 :UInt8;
  versionMax @5 :UInt8;
  requestsInFlightMax @6 :UInt32 $Spec.min(1);
  leaseMs @7 :UInt32;
  # The lease a request gets when it asks for none.
  serverName @8 :Text $Spec.lenMax(128);
  # For logs: name and release.
  localPath @9 :Text $Spec.lenMax(108);
  # A Unix socket of this server, for a client on the same host; empty if there is none. Connections on it are set up as all are.
  # [MKV-CONN-11] A server offers it only to a peer whose address is one of the server's own host, and serves only peers of its own user, of
  # root, or of a group that it was told to allow. A client that cannot use it goes on without.
  union {
    stream @10 :Void;
    queuePair @11 :Types.QueuePair;
  }
  queuePairs @12 :Bool;
  # Whether a Connect that asks for a queue pair is worth sending: this server has devices for them.
}
