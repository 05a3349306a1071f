"""The frame header, key derivation, MACs and checksums of the MemKV protocol, from schema/types.capnp and
schema/session.capnp, with Python's hmac and hashlib, aegis.py, and PyPI's (or Debian's) xxhash.
"""

import hashlib
import hmac
import struct

import xxhash

import aegis

HELLO, REQUEST, RESPONSE = 1, 2, 3
FLAG_LAST = 1
BLOCK_SIZE_BYTES = 1 << 20
DIRECTIONS = ("client-to-server", "server-to-client")
USES = (("control", 32), ("bulk hmac-sha256", 32), ("bulk aegis-128x2", 16), ("bulk aegis-128x4", 16))
BULK_MACS = {"hmac-sha256": 0, "aegis-128x2": 1, "aegis-128x4": 2}
AEGIS_DEGREES = {"aegis-128x2": 2, "aegis-128x4": 4}


def hmac_sha256(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def hkdf_sha256(salt, secret, info, length):
    """RFC 5869: extract, then expand."""
    prk = hmac_sha256(salt or bytes(32), secret)
    out, block = b"", b""
    for i in range(1, (length + 31) // 32 + 1):
        block = hmac_sha256(prk, block + info + bytes([i]))
        out += block
    return out[:length]


def key_id(key):
    return int.from_bytes(hmac_sha256(key, b"memkv key id")[:4], "little")


def salt(connect, reply):
    text = struct.pack("<Q", len(connect)) + connect + struct.pack("<Q", len(reply)) + reply
    return hashlib.sha256(text).digest()


def info(version, direction, use):
    return f"memkv v{version} {direction} {use}".encode()


def derive(shared, salt_bytes, version):
    """{direction: {use: key}}."""
    return {
        direction: {
            use: hkdf_sha256(salt_bytes, shared, info(version, direction, use), size) for use, size in USES
        }
        for direction in DIRECTIONS
    }


def header_start(kind, flags, control, identity, payload_length, sequence, version=1, credits=0):
    """Bytes 0 to 31."""
    assert len(control) % 8 == 0
    return struct.pack(
        "<4sBBHIIIIQ",
        b"MKV1",
        version,
        kind,
        flags,
        len(control) // 8,
        identity,
        payload_length,
        credits,
        sequence,
    )


def header(control_key, start, control):
    """All 64 bytes."""
    assert len(start) == 32
    return start + hmac_sha256(control_key, start + control)


def bulk_tag(mac, key, header_bytes, payload):
    assert len(header_bytes) == 64
    if mac == "hmac-sha256":
        return hmac_sha256(key, header_bytes + payload)
    return aegis.bulk_mac(AEGIS_DEGREES[mac], key, header_bytes + payload)


def frame(control_key, start, control, bulk=None, payload=b""):
    """A whole frame; `bulk` is (MAC's name, key), needed when there is a payload."""
    head = header(control_key, start, control)
    if not payload:
        return head + control
    return head + control + payload + bulk_tag(bulk[0], bulk[1], head, payload)


def block_checksums(value):
    return [
        xxhash.xxh3_128_digest(value[at : at + BLOCK_SIZE_BYTES]) for at in range(0, len(value), BLOCK_SIZE_BYTES)
    ]


def value_checksum(blocks):
    return xxhash.xxh3_128_digest(b"".join(blocks))


def pattern(size, seed):
    """The bytes that stand in the vectors as a size and a seed."""
    return bytes((167 * i + 59 * (i >> 8) + 29 * (i >> 16) + seed) & 0xFF for i in range(size))
