#!/usr/bin/env python3
"""Makes the known-answer vectors of the wire protocol, transport/vectors/*.json.

    tools/vectors/make.py            write them
    tools/vectors/make.py --check    exit 1, naming the stale files, unless they are what this would write

Nothing here shares code with the Rust crates. The published vectors of RFC 4231, RFC 5869 and RFC 10032 are met
first. Needs the Python package `xxhash` (Debian: python3-xxhash). If the `capnp` tool is there, the hand-encoded
messages are read back with it.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATTERN = "byte i = (167 i + 59 (i >> 8) + 29 (i >> 16) + seed) mod 256"
TAG_SIZES = (1, 63, 64, 65, 1000, 1 << 20)
VALUE_SIZES = (0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20)


def fixed(label, size):
    """Bytes that look random and are the same on every run."""
    return hashlib.shake_256(b"memkv vectors " + label.encode()).digest(size)


def primitives():
    """The published vectors, so that a peer can test its libraries with the same file."""
    return {
        "about": "Published vectors. hmacSha256: RFC 4231. hkdfSha256: RFC 5869. aegisMac: RFC 10032, 128X2 and 128X4.",
        "hmacSha256": [{"key": k, "data": d, "mac": m} for k, d, m in known.HMAC_SHA256],
        "hkdfSha256": [
            {"secret": s, "salt": t, "info": i, "length": n, "output": o} for s, t, i, n, o in known.HKDF_SHA256
        ],
        **{
            f"aegisMac128x{degree}": [
                {
                    "key": known.AEGISMAC_KEY,
                    "nonce": known.AEGISMAC_NONCE,
                    "data": known.AEGISMAC_DATA,
                    "tag256": tag256,
                }
            ]
            for degree, _, tag256 in known.AEGISMAC
            if degree > 1
        },
    }


def keys():
    shared = [bytes(32), bytes(range(32)), b"\xff" * 32, fixed("shared", 32), fixed("other", 32)]
    return {
        "about": "The id of a shared key, as the integer in the header and as the header's bytes.",
        "keys": [
            {
                "key": k.hex(),
                "id": protocol.key_id(k),
                "idBytes": protocol.key_id(k).to_bytes(4, "little").hex(),
            }
            for k in shared
        ],
    }


def connect_message(bulk_macs, name=""):
    return capnp.encode(
        Struct(
            "Request",
            which=capnp.ARM_CONNECT,
            arm=Struct(
                "Connect",
                nonce=fixed("client nonce", 32),
                clientId=fixed("client id", 16),
                bulkMacs=[protocol.BULK_MACS[m] for m in bulk_macs],
                **({"clientName": name} if name else {}),
            ),
        )
    )


def reply_message(bulk_mac, **more):
    return capnp.encode(
        Struct(
            "Response",
            which=capnp.ARM_CONNECT,
            arm=Struct(
                "ConnectReply",
                clientNonce=fixed("client nonce", 32),
                serverNonce=fixed("server nonce", 32),
                serverId=fixed("server id", 16),
                bulkMac=protocol.BULK_MACS[bulk_mac],
                versionMin=1,
                versionMax=1,
                requestsInFlightMax=256,
                leaseMs=10000,
                **more,
            ),
        )
    )


def derivations():
    cases = [
        (fixed("shared", 32), connect_message(["hmac-sha256"]), reply_message("hmac-sha256"), 1),
        (
            fixed("shared", 32),
            connect_message(["aegis-128x2", "hmac-sha256"], "vectors"),
            reply_message("aegis-128x2", serverName="memkv 0.1.0", localPath="/run/memkv/9900.sock"),
            1,
        ),
        (bytes(range(32)), connect_message(["aegis-128x2"]), reply_message("aegis-128x2"), 12),
        (bytes(range(32)), connect_message(["aegis-128x4", "aegis-128x2"]), reply_message("aegis-128x4"), 12),
        # The derivation takes any two byte strings: the lengths in the salt keep these two apart.
        (bytes(32), bytes(8), bytes(16), 255),
        (bytes(32), bytes(16), bytes(8), 255),
    ]
    return {
        "about": "Salt and derived keys, from the shared key, the control messages of Connect and of its reply, and "
        "the version in the reply's header.",
        "cases": [derivation(*case) for case in cases],
    }


def derivation(shared, connect, reply, version):
    salt = protocol.salt(connect, reply)
    return {
        "sharedKey": shared.hex(),
        "version": version,
        "connect": connect.hex(),
        "reply": reply.hex(),
        "salt": salt.hex(),
        "keys": {
            direction: {use: key.hex() for use, key in uses.items()}
            for direction, uses in protocol.derive(shared, salt, version).items()
        },
    }


def control_macs():
    cases = []
    for i, (words, kind, flags, payload, sequence) in enumerate(
        [
            (0, protocol.REQUEST, 0, 0, 0),
            (1, protocol.REQUEST, 1, 0, 1),
            (7, protocol.RESPONSE, 1, 65536, 2**32),
            (8, protocol.RESPONSE, 0, 1 << 20, 2**64 - 1),
            (32768, protocol.REQUEST, 1, 1, 77),
        ]
    ):
        key = fixed(f"control {i}", 32)
        control = protocol.pattern(words * 8, i)
        start = protocol.header_start(kind, flags, control, 1000 + i, payload, sequence)
        cases.append(
            {
                "key": key.hex(),
                "kind": kind,
                "flags": flags,
                "id": 1000 + i,
                "payloadLength": payload,
                # A string: JSON readers lose integers of 64 bits.
                "sequence": str(sequence),
                "control": {"size": len(control), "seed": i},
                "header": protocol.header(key, start, control).hex(),
            }
        )
    return {
        "about": "Whole headers: HMAC-SHA256 over bytes 0 to 31 and the control message, at 32. Version 1, credits 0. "
        f"The control message stands for a pattern: {PATTERN}.",
        "cases": cases,
    }


def payload_tags():
    cases = []
    for mac, key_size in (("hmac-sha256", 32), ("aegis-128x2", 16), ("aegis-128x4", 16)):
        for i, size in enumerate(TAG_SIZES):
            control = protocol.pattern(64, i)
            start = protocol.header_start(protocol.REQUEST, 1, control, 1 + i, size, 1 + i)
            head = protocol.header(fixed("control", 32), start, control)
            key = fixed(f"bulk {mac} {i}", key_size)
            tag = protocol.bulk_tag(mac, key, head, protocol.pattern(size, 40 + i))
            cases.append(
                {
                    "mac": mac,
                    "key": key.hex(),
                    "header": head.hex(),
                    "payload": {"size": size, "seed": 40 + i},
                    "tag": tag.hex(),
                }
            )
    return {"about": f"Tags over header and payload. The payload: {PATTERN}.", "cases": cases}


def checksums():
    cases = []
    for i, size in enumerate(VALUE_SIZES):
        blocks = protocol.block_checksums(protocol.pattern(size, i))
        cases.append(
            {
                "size": size,
                "seed": i,
                "blocks": [block.hex() for block in blocks],
                "value": protocol.value_checksum(blocks).hex(),
            }
        )
    return {
        "about": f"XXH3-128, canonical form, of each 1 MiB block, and of the list of these. The value: {PATTERN}.",
        "cases": cases,
    }


class Exchange:
    """Records what both sides send, and each side's sequence numbers."""

    def __init__(self, bulk_mac, shared):
        self.bulk_mac, self.shared = bulk_mac, shared
        offers = list(dict.fromkeys([bulk_mac, "hmac-sha256"]))
        self.connect = connect_message(offers, "vectors")
        self.reply = reply_message(bulk_mac, serverName="memkv vectors")
        self.keys = protocol.derive(shared, protocol.salt(self.connect, self.reply), 1)
        self.sequences = dict.fromkeys(protocol.DIRECTIONS, 0)
        self.frames = []

    def send(self, direction, kind, identity, control, payload=b"", key=None, note=""):
        sequence = self.sequences[direction]
        self.sequences[direction] += 1
        derived = self.keys[direction]
        start = protocol.header_start(kind, protocol.FLAG_LAST, control, identity, len(payload), sequence)
        bulk = (self.bulk_mac, derived["bulk " + self.bulk_mac])
        frame = protocol.frame(key or derived["control"], start, control, bulk, payload)
        self.frames.append(
            {
                "direction": direction,
                "note": note,
                "controlLength": len(control),
                "payloadLength": len(payload),
                "frame": frame.hex(),
            }
        )


def exchange(bulk_mac):
    shared = fixed("shared", 32)
    made = Exchange(bulk_mac, shared)
    up, down = protocol.DIRECTIONS
    identity = protocol.key_id(shared)
    made.send(up, protocol.HELLO, identity, made.connect, key=shared, note="Connect, under the shared key")
    made.send(down, protocol.HELLO, identity, made.reply, note="Connect's reply, under the derived key")
    made.send(up, protocol.HELLO, identity, b"", note="the client's confirmation, the first frame under its derived key")
    value = protocol.pattern(200, 7)
    key = fixed("chunk", 32)
    for kind, direction, number, control, payload, note in transfers(key, value):
        made.send(direction, kind, number, control, payload, note=note)
    return {
        "about": "A whole connection: set-up, a value written and read back, a ping. Every frame is here as it is sent.",
        "sharedKey": shared.hex(),
        "bulkMac": bulk_mac,
        "namespace": b"vectors".hex(),
        "key": key.hex(),
        "value": value.hex(),
        "frames": made.frames,
    }


def transfers(key, value):
    """(kind, direction, request id, control, payload, note) of every frame after set-up."""
    up, down = protocol.DIRECTIONS
    blocks = protocol.block_checksums(value)
    whole = protocol.value_checksum(blocks)

    def piece():
        return Struct("Piece", length=len(value), checksum=blocks[0])

    def request(which, arm):
        return capnp.encode(Struct("Request", namespace=b"vectors", which=which, arm=arm))

    def response(which, arm):
        return capnp.encode(Struct("Response", which=which, arm=arm))

    write = Struct("Write", key=key, length=len(value), checksum=whole, pieces=[piece()])
    written = Struct("WriteReply", checksum=whole)
    read = Struct("Read", key=key, destination=Struct("Destination"))
    answer = Struct("ReadReply", length=len(value), checksum=whole, pieces=[piece()])
    echo = 0x0123456789ABCDEF
    ask, say = protocol.REQUEST, protocol.RESPONSE
    return [
        (ask, up, 1, request(capnp.ARM_WRITE, write), value, "Write, 200 bytes"),
        (say, down, 1, response(capnp.ARM_WRITE, written), b"", "WriteReply, ok"),
        (ask, up, 2, request(capnp.ARM_READ, read), b"", "Read"),
        (say, down, 2, response(capnp.ARM_READ, answer), value, "ReadReply, ok, 200 bytes"),
        (ask, up, 3, request(capnp.ARM_PING, Struct("Ping", echo=echo)), b"", "Ping"),
        (say, down, 3, response(capnp.ARM_PING, Struct("PingReply", echo=echo, uptimeMs=1234)), b"", "PingReply"),
    ]


def read_back(name, vectors):
    """Decodes the exchange's control messages with the reference implementation and looks for a few values."""
    for frame in vectors["frames"]:
        control = bytes.fromhex(frame["frame"])[64 : 64 + frame["controlLength"]]
        if not control:
            continue
        if not control:
            continue
        root = "Request" if frame["direction"] == protocol.DIRECTIONS[0] else "Response"
        framed = struct.pack("<II", 0, len(control) // 8) + control
        schema = ROOT / "schema" / "ops.capnp"
        text = subprocess.run(
            ["capnp", "decode", str(schema), root], input=framed, capture_output=True, check=True
        ).stdout.decode()
        arm = frame["note"].split(",")[0].removesuffix("'s reply").removesuffix("Reply").lower()
        wanted = [arm + " = ("]
        if frame["payloadLength"]:
            wanted.append(f"length = {frame['payloadLength']}")
        if arm == "connect":
            wanted += ["nonce" if root == "Request" else "versionMax = 1"]
        if arm == "ping":
            wanted.append(f"echo = {0x0123456789ABCDEF}")
        for want in wanted:
            if want.lower() not in text.lower():
                sys.exit(f"{name}: capnp reads {frame['note']!r} as {text}which lacks {want!r}")


def parse_arguments():
    parser = argparse.ArgumentParser(description="Makes transport/vectors/*.json, the protocol's known-answer vectors.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is stale")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "transport" / "vectors", help="the folder")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    known.check()
    files = {
        "primitives.json": primitives(),
        "keys.json": keys(),
        "derivations.json": derivations(),
        "control_macs.json": control_macs(),
        "payload_tags.json": payload_tags(),
        "checksums.json": checksums(),
        "exchange_hmac_sha256.json": exchange("hmac-sha256"),
        "exchange_aegis_128x2.json": exchange("aegis-128x2"),
        "exchange_aegis_128x4.json": exchange("aegis-128x4"),
    }
    for name, vectors in files.items():
        if name.startswith("exchange") and shutil.which("capnp"):
            read_back(name, vectors)
    texts = {name: json.dumps(vectors, indent=1) + "\n" for name, vectors in files.items()}
    present = {path.name for path in arguments.out.glob("*.json")}
    if not arguments.check:
        arguments.out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (arguments.out / name).write_text(text)
        for name in present - set(texts):
            os.remove(arguments.out / name)
        print(f"wrote {len(texts)} files to {arguments.out}")
        return
    stale = [n for n in texts if n not in present or (arguments.out / n).read_text() != texts[n]]
    stale += sorted(present - set(texts))
    if stale:
        sys.exit("stale, run tools/vectors/make.py: " + ", ".join(stale))
    print(f"{len(texts)} files are what they should be")


try:
    import xxhash  # noqa: F401  (imported here only to say plainly that it is missing)
except ImportError:
    # 89: unimplemented here, as distinct from wrong.
    print("the Python package xxhash is not installed (Debian: python3-xxhash)", file=sys.stderr)
    sys.exit(89)

import capnp  # noqa: E402
import known  # noqa: E402
import protocol  # noqa: E402
from capnp import Struct  # noqa: E402

if __name__ == "__main__":
    main()
