"""A Cap'n Proto encoder for single-segment messages without a segment table, from the encoding's specification.

The layouts below are those `capnp compile -ocapnp` prints for schema/*.capnp, written down by hand, so that a change of
the schema that moves a field breaks the vectors. Only what the recorded exchange needs is here.
"""

import struct

# name: (data words, pointers, fields); a field is (kind, place), the place in bits or as the pointer's number.
LAYOUTS = {
    "Request": (1, 2, {"which": ("u16", 0), "namespace": ("data", 0), "arm": ("struct", 1)}),
    "Response": (
        1,
        2,
        {
            "status": ("u16", 0),
            "which": ("u16", 16),
            "retryAfterMs": ("u32", 32),
            "detail": ("text", 0),
            "arm": ("struct", 1),
        },
    ),
    "Connect": (
        1,
        5,
        {
            "which": ("u16", 0),
            "nonce": ("data", 0),
            "clientId": ("data", 1),
            "bulkMacs": ("list16", 2),
            "clientName": ("text", 3),
        },
    ),
    "ConnectReply": (
        2,
        6,
        {
            "bulkMac": ("u16", 0),
            "versionMin": ("u8", 16),
            "versionMax": ("u8", 24),
            "requestsInFlightMax": ("u32", 32),
            "leaseMs": ("u32", 64),
            "which": ("u16", 96),
            "clientNonce": ("data", 0),
            "serverNonce": ("data", 1),
            "serverId": ("data", 2),
            "serverName": ("text", 3),
            "localPath": ("text", 4),
        },
    ),
    "Piece": (
        3,
        2,
        {
            "index": ("u32", 0),
            "length": ("u32", 32),
            "offset": ("u64", 64),
            "which": ("u16", 128),
            "checksum": ("data", 0),
        },
    ),
    "Write": (
        2,
        3,
        {
            "length": ("u64", 0),
            "allocation": ("u64", 64),
            "key": ("data", 0),
            "checksum": ("data", 1),
            "pieces": ("structs", 2),
        },
    ),
    "WriteReply": (0, 1, {"checksum": ("data", 0)}),
    "Destination": (1, 1, {"which": ("u16", 0)}),
    "Read": (
        2,
        2,
        {"offset": ("u64", 0), "length": ("u64", 64), "key": ("data", 0), "destination": ("struct", 1)},
    ),
    "ReadReply": (1, 2, {"length": ("u64", 0), "checksum": ("data", 0), "pieces": ("structs", 1)}),
    "Ping": (1, 2, {"echo": ("u64", 0)}),
    "PingReply": (2, 0, {"echo": ("u64", 0), "uptimeMs": ("u64", 64)}),
}

REQUEST_ARMS = ["connect", "allocate", "lookup", "commit", "delete", "exists", "read", "write"]
ARM_CONNECT, ARM_READ, ARM_WRITE, ARM_PING = 0, 6, 7, 14
assert REQUEST_ARMS[ARM_READ] == "read" and REQUEST_ARMS[ARM_WRITE] == "write"

_SCALARS = {"u8": ("<B", 1), "u16": ("<H", 2), "u32": ("<I", 4), "u64": ("<Q", 8)}


class Struct:
    """A value to encode: the layout's name and the fields that are not zero or empty."""

    def __init__(self, layout, **fields):
        unknown = set(fields) - set(LAYOUTS[layout][2])
        assert not unknown, f"{layout} has no {unknown}"
        self.layout, self.fields = layout, fields


class _Segment:
    def __init__(self):
        self.bytes = bytearray()

    def allocate(self, words):
        at = len(self.bytes)
        self.bytes += bytes(words * 8)
        return at

    def put_pointer(self, at, target, low_bits, high):
        """A struct (low bits 0) or list (low bits 1) pointer; its offset counts words from the pointer's end."""
        offset = (target - (at + 8)) // 8
        struct.pack_into("<iI", self.bytes, at, (offset << 2) | low_bits, high)

    def put_struct(self, value, at):
        data_words, _, layout = LAYOUTS[value.layout]
        for name, (kind, place) in layout.items():
            if name not in value.fields:
                continue
            given = value.fields[name]
            if kind in _SCALARS:
                form, size = _SCALARS[kind]
                assert place % (size * 8) == 0
                struct.pack_into(form, self.bytes, at + place // 8, given)
            else:
                self.put_pointee(kind, given, at + (data_words + place) * 8)

    def put_pointee(self, kind, given, pointer):
        if kind == "struct":
            data_words, pointers, _ = LAYOUTS[given.layout]
            target = self.allocate(data_words + pointers)
            self.put_pointer(pointer, target, 0, data_words | pointers << 16)
            self.put_struct(given, target)
        elif kind in ("data", "text"):
            self.put_bytes(given.encode() + b"\0" if kind == "text" else given, pointer)
        elif kind == "list16":
            target = self.allocate((len(given) * 2 + 7) // 8)
            struct.pack_into(f"<{len(given)}H", self.bytes, target, *given)
            self.put_pointer(pointer, target, 1, 3 | len(given) << 3)
        elif kind == "structs":
            self.put_structs(given, pointer)
        else:
            raise AssertionError(kind)

    def put_bytes(self, given, pointer):
        target = self.allocate((len(given) + 7) // 8)
        self.bytes[target : target + len(given)] = given
        self.put_pointer(pointer, target, 1, 2 | len(given) << 3)

    def put_structs(self, given, pointer):
        """A composite list: a tag word, then the elements; the pointer counts the elements' words."""
        data_words, pointers, _ = LAYOUTS[given[0].layout]
        size = data_words + pointers
        target = self.allocate(1 + size * len(given))
        self.put_pointer(pointer, target, 1, 7 | (size * len(given)) << 3)
        struct.pack_into("<iI", self.bytes, target, len(given) << 2, data_words | pointers << 16)
        for i, element in enumerate(given):
            self.put_struct(element, target + 8 + i * size * 8)


def encode(root):
    """The message's bytes, whole words, the root pointer first."""
    segment = _Segment()
    pointer = segment.allocate(1)
    segment.put_pointee("struct", root, pointer)
    return bytes(segment.bytes)
