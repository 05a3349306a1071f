"""AEGIS in MAC mode, from the specification (RFC 10032, sections on AEGIS-128X and AEGISMAC-128X).

Owns the AES round and the MAC over any degree of parallelism; AEGIS-128L is degree 1, AEGIS-128X2
is degree 2 and AEGIS-128X4 is degree 4.
Written to be compared with the text of the specification, not to be fast: 1 MiB takes a second or two. It is not
constant-time and must never be used for anything but making test vectors.
"""

import struct

C0 = bytes.fromhex("000101020305080d1522375990e97962")
C1 = bytes.fromhex("db3d18556dc22ff12011314273b528dd")


def _double(a):
    """Multiplication by x in AES's field."""
    return ((a << 1) ^ 0x1B) & 0xFF if a & 0x80 else a << 1


def _sbox():
    """AES's S-box from its definition: the inverse in the field, then the affine map (FIPS 197, 5.1.1)."""
    exp, log, x = [0] * 256, [0] * 256, 1
    for i in range(255):
        exp[i], log[x] = x, i
        x ^= _double(x)  # times 3, a generator
    box = []
    for a in range(256):
        b = exp[(255 - log[a]) % 255] if a else 0
        turned = [((b << n) | (b >> (8 - n))) & 0xFF for n in range(5)]
        box.append(turned[0] ^ turned[1] ^ turned[2] ^ turned[3] ^ turned[4] ^ 0x63)
    return box


def _columns():
    """SubBytes, ShiftRows and MixColumns as one table for each row: a byte of the state gives a column's four bytes,
    the column read as a little-endian word, so that tables XOR."""
    tables = [[], [], [], []]
    for s in _sbox():
        two, three = _double(s), _double(s) ^ s
        column = [two, s, s, three]  # MixColumns' coefficients for a byte of row 0
        for row in range(4):
            tables[row].append(int.from_bytes(bytes(column), "little"))
            column = column[-1:] + column[:-1]
    return tables


_T0, _T1, _T2, _T3 = _columns()


def aes_round(block, round_key):
    """The specification's AESRound; blocks are tuples of four little-endian words, one for each column."""
    a, b, c, d = block
    k0, k1, k2, k3 = round_key
    return (
        _T0[a & 255] ^ _T1[b >> 8 & 255] ^ _T2[c >> 16 & 255] ^ _T3[d >> 24] ^ k0,
        _T0[b & 255] ^ _T1[c >> 8 & 255] ^ _T2[d >> 16 & 255] ^ _T3[a >> 24] ^ k1,
        _T0[c & 255] ^ _T1[d >> 8 & 255] ^ _T2[a >> 16 & 255] ^ _T3[b >> 24] ^ k2,
        _T0[d & 255] ^ _T1[a >> 8 & 255] ^ _T2[b >> 16 & 255] ^ _T3[c >> 24] ^ k3,
    )


def words(block):
    return struct.unpack("<4I", block)


def unwords(block):
    return struct.pack("<4I", *block)


def xor(*blocks):
    out = blocks[0]
    for block in blocks[1:]:
        out = (out[0] ^ block[0], out[1] ^ block[1], out[2] ^ block[2], out[3] ^ block[3])
    return out


class Mac:
    """Mac(data, key, nonce) of AEGISMAC-128X with `degree` lanes; each lane is an AEGIS-128L state of eight blocks."""

    def __init__(self, key, nonce, degree):
        assert len(key) == 16 and len(nonce) == 16 and degree in (1, 2, 4)
        self.degree = degree
        self.rate = 32 * degree
        k, n, c0, c1 = words(key), words(nonce), words(C0), words(C1)
        first = [xor(k, n), c1, c0, c1, xor(k, n), xor(k, c0), xor(k, c1), xor(k, c0)]
        self.lanes = [list(first) for _ in range(degree)]
        for _ in range(10):
            for i, lane in enumerate(self.lanes):
                context = words(bytes([i, degree - 1]) + bytes(14))
                lane[3] = xor(lane[3], context)
                lane[7] = xor(lane[7], context)
            self._update([n] * degree, [k] * degree)

    def _update(self, m0, m1):
        for i, v in enumerate(self.lanes):
            self.lanes[i] = [
                aes_round(v[7], xor(v[0], m0[i])),
                aes_round(v[0], v[1]),
                aes_round(v[1], v[2]),
                aes_round(v[2], v[3]),
                aes_round(v[3], xor(v[4], m1[i])),
                aes_round(v[4], v[5]),
                aes_round(v[5], v[6]),
                aes_round(v[6], v[7]),
            ]

    def _absorb(self, chunk):
        blocks = [words(chunk[i : i + 16]) for i in range(0, self.rate, 16)]
        self._update(blocks[: self.degree], blocks[self.degree :])

    def tag(self, data, tag_bits):
        """Absorbs all of `data` and finishes; a `Mac` is good for one tag."""
        for at in range(0, len(data), self.rate):
            self._absorb(data[at : at + self.rate].ljust(self.rate, b"\0"))
        u = words(struct.pack("<QQ", len(data) * 8, tag_bits))
        t = [xor(v[2], u) for v in self.lanes]
        for _ in range(7):
            self._update(t, t)
        if self.degree > 1:
            self._fold(tag_bits)
        return _output(self.lanes[0], tag_bits)

    def _fold(self, tag_bits):
        """Absorbs the lanes' tags into lane 0. For 128-bit tags lane 0's own is among them, for 256-bit tags it is not."""
        tags = b"".join(_output(v, tag_bits) for v in (self.lanes if tag_bits == 128 else self.lanes[1:]))
        half = self.rate // 2
        for at in range(0, len(tags), 32):
            pair = tags[at : at + 32]
            self._absorb(pair[:16].ljust(half, b"\0") + pair[16:].ljust(half, b"\0"))
        u = words(struct.pack("<QQ", self.degree, tag_bits))
        zero = (0, 0, 0, 0)
        t = [xor(self.lanes[0][2], u)] + [zero] * (self.degree - 1)
        for _ in range(7):
            self._update(t, t)


def _output(v, tag_bits):
    if tag_bits == 128:
        return unwords(xor(*v[:7]))
    return unwords(xor(*v[:4])) + unwords(xor(*v[4:]))


def bulk_mac(degree, key, data):
    """The bulk MACs `aegis-128x2` and `aegis-128x4`: the degree, zero nonce, 256-bit tag."""
    return Mac(key, bytes(16), degree).tag(data, 256)
