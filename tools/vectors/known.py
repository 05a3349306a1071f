"""Published test vectors that the other modules must meet before they are trusted to make new ones."""

import aegis
import protocol

HMAC_SHA256 = [  # RFC 4231, test cases 1, 2, 3, 4, 6, 7
    ("0b" * 20, b"Hi There".hex(), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    (
        b"Jefe".hex(),
        b"what do ya want for nothing?".hex(),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ),
    ("aa" * 20, "dd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
    (
        bytes(range(1, 26)).hex(),
        "cd" * 50,
        "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
    ),
    (
        "aa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First".hex(),
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
    (
        "aa" * 131,
        (
            b"This is a test using a larger than block-size key and a larger than block-size data. "
            b"The key needs to be hashed before being used by the HMAC algorithm."
        ).hex(),
        "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
    ),
]

HKDF_SHA256 = [  # RFC 5869, test cases 1 to 3: secret, salt, info, length, output
    (
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        42,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x00, 0x50)).hex(),
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        82,
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
        "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    (
        "0b" * 22,
        "",
        "",
        42,
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]

AES_ROUND = (
    "000102030405060708090a0b0c0d0e0f",
    "101112131415161718191a1b1c1d1e1f",
    "7a7b4e5638782546a8c0477a3b813f43",
)

# RFC 10032, AEGISMAC test vectors: one key, nonce and message for all; (degree, 128-bit tag, 256-bit tag).
AEGISMAC_KEY = "10010000000000000000000000000000"
AEGISMAC_NONCE = "10000200000000000000000000000000"
AEGISMAC_DATA = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122"
AEGISMAC = [
    (
        1,
        "d3f09b2842ad301687d6902c921d7818",
        "9490e7c89d420c9f37417fa625eb38e8cad53c5cbec55285e8499ea48377f2a3",
    ),
    (
        2,
        "6873ee34e6b5c59143b6d35c5e4f2c6e",
        "afcba3fc2d63c8d6c7f2d63f3ec8fbbbaf022e15ac120e78ffa7755abccd959c",
    ),
    (
        4,
        "c45a98fd9ab8956ce616eb008cfe4e53",
        "26fdc76f41b1da7aec7779f6e964beae8904e662f05aca8345ae3befb357412a",
    ),
]

XXH3_128 = [("", "99aa06d3014798d86001c324468d497f")]  # of nothing, seed 0, as published with the algorithm


def check():
    """Raises AssertionError, naming the algorithm, when anything differs from what was published."""
    for key, data, tag in HMAC_SHA256:
        assert protocol.hmac_sha256(bytes.fromhex(key), bytes.fromhex(data)).hex() == tag, "HMAC, RFC 4231"
    for secret, salt, info, length, out in HKDF_SHA256:
        made = protocol.hkdf_sha256(bytes.fromhex(salt), bytes.fromhex(secret), bytes.fromhex(info), length)
        assert made.hex() == out, "HKDF, RFC 5869"
    state, key, out = (bytes.fromhex(x) for x in AES_ROUND)
    assert aegis.unwords(aegis.aes_round(aegis.words(state), aegis.words(key))) == out, "AESRound"
    for degree, tag128, tag256 in AEGISMAC:
        for bits, tag in ((128, tag128), (256, tag256)):
            mac = aegis.Mac(bytes.fromhex(AEGISMAC_KEY), bytes.fromhex(AEGISMAC_NONCE), degree)
            assert mac.tag(bytes.fromhex(AEGISMAC_DATA), bits).hex() == tag, f"AEGISMAC, degree {degree}, {bits}"
    for data, digest in XXH3_128:
        assert protocol.value_checksum([bytes.fromhex(data)]).hex() == digest, "XXH3-128"
