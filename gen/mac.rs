//! Keys, message authentication and the derivations of a connection.
//!
//! Owns the shared [`Key`], the [`KeyRing`] that lets keys rotate, the MAC of control messages ([`ControlMac`]), the MAC
//! of payloads ([`BulkKey`], [`BulkHasher`]) and the [`Schedule`] that derives both for each direction of a connection.
//! Invariants: key bytes are wiped when dropped and never printed; tags are compared in constant time. It draws no
//! random bytes and does not check that a nonce is fresh; whoever drives a connection does.
//!
//! A bulk key authenticates many messages under the zero nonce. That is sound because the key is fresh for every
//! connection and direction, because MAC mode returns nothing but the tag, and because the header that every tag
//! covers holds the frame's sequence number, so no message repeats.

use core::fmt;

use aegis::aegis128x2::Aegis128X2Mac;
use aegis::aegis128x4::Aegis128X4Mac;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A MAC or tag.
pub type Tag = [u8; 32];

type HmacSha256 = Hmac<Sha256>;

/// A MAC did not hold: the bytes were changed on the way, or the other side holds another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the MAC does not hold")]
pub struct MacMismatch;

// ---------------------------------------------------------------- shared keys

/// The key that clients and servers share.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; Key::SIZE_BYTES]>);

/// Why a text is no key. It never quotes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a key is 64 hexadecimal digits, this has {characters} characters")]
    Length { characters: usize },
    #[error("a key is 64 hexadecimal digits, the character at position {position} is none")]
    Digit { position: usize },
}

impl Key {
    pub const SIZE_BYTES: usize = 32;

    pub fn from_bytes(bytes: [u8; Key::SIZE_BYTES]) -> Key {
        Key(Zeroizing::new(bytes))
    }

    /// Parses 64 hexadecimal digits; white space around them is ignored.
    pub fn from_hex(text: &str) -> Result<Key, KeyError> {
        let text = text.trim();
        if text.len() != 2 * Key::SIZE_BYTES || !text.is_ascii() {
            return Err(KeyError::Length { characters: text.chars().count() });
        }
        let mut key = Key::from_bytes([0; Key::SIZE_BYTES]);
        for (position, digit) in text.chars().enumerate() {
            let digit = digit.to_digit(16).ok_or(KeyError::Digit { position })?;
            key.0[position / 2] = key.0[position / 2] << 4 | digit as u8;
        }
        Ok(key)
    }

    /// 64 hexadecimal digits, wiped when dropped.
    pub fn to_hex(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(2 * Key::SIZE_BYTES));
        for byte in *self.0 {
            for digit in [byte >> 4, byte & 15] {
                text.extend(char::from_digit(digit.into(), 16));
            }
        }
        text
    }

    /// The first 4 bytes, little-endian, of HMAC-SHA256(key, "memkv key id").
    pub fn id(&self) -> KeyId {
        let tag = ControlMac::new(&self.0).tag(&[b"memkv key id"]);
        KeyId(u32::from_le_bytes([tag[0], tag[1], tag[2], tag[3]]))
    }

    /// The MAC of a `Connect`, the only message signed with the shared key itself.
    pub fn connect_mac(&self) -> ControlMac {
        ControlMac::new(&self.0)
    }
}

impl From<[u8; Key::SIZE_BYTES]> for Key {
    fn from(bytes: [u8; Key::SIZE_BYTES]) -> Key {
        Key::from_bytes(bytes)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id())
    }
}

/// Names a key without telling anything about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub u32);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The keys a server accepts. While keys rotate there are several.
//= MKV-CONN-6
#[derive(Clone, Debug, Default)]
pub struct KeyRing(Vec<(KeyId, Key)>);

impl KeyRing {
    pub fn new(keys: impl IntoIterator<Item = Key>) -> KeyRing {
        KeyRing(keys.into_iter().map(|key| (key.id(), key)).collect())
    }

    /// The keys of this id: at most one, unless two keys happen to share their id.
    pub fn with_id(&self, id: KeyId) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |(own, _)| *own == id).map(|(_, key)| key)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.0.iter().map(|(id, _)| *id)
    }
}

impl From<Key> for KeyRing {
    fn from(key: Key) -> KeyRing {
        KeyRing::new([key])
    }
}

// ---------------------------------------------------------------- control messages

/// HMAC-SHA256 with its key schedule made once; a tag clones that instead of hashing the key again.
#[derive(Clone)]
pub struct ControlMac(HmacSha256);

impl ControlMac {
    pub fn new(key: &[u8; 32]) -> ControlMac {
        ControlMac(keyed(key))
    }

    /// The tag of the parts, joined.
    pub fn tag(&self, parts: &[&[u8]]) -> Tag {
        self.joined(parts).finalize().into_bytes().into()
    }

    /// Compares in constant time.
    //= MKV-FRAME-5
    pub fn verify(&self, parts: &[&[u8]], tag: &Tag) -> Result<(), MacMismatch> {
        same(&self.tag(parts), tag)
    }

    fn joined(&self, parts: &[&[u8]]) -> HmacSha256 {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        mac
    }
}

impl fmt::Debug for ControlMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ControlMac(..)")
    }
}

// ---------------------------------------------------------------- payloads

/// A bulk MAC this crate can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BulkAlgorithm {
    //= MKV-CONN-1
    HmacSha256,
    Aegis128X2,
    Aegis128X4,
}

impl BulkAlgorithm {
    /// Every algorithm, the fastest first. Without AES instructions HMAC-SHA256 comes first: AEGIS in software is slower
    /// than it on most machines. Four lanes are half as fast again as two where one instruction works on all of them, and no faster elsewhere.
    pub fn preference() -> [BulkAlgorithm; 3] {
        use BulkAlgorithm::{Aegis128X2, Aegis128X4, HmacSha256};
        match (aes_instructions(), aes_on_four_blocks()) {
            (true, true) => [Aegis128X4, Aegis128X2, HmacSha256],
            (true, false) => [Aegis128X2, Aegis128X4, HmacSha256],
            (false, _) => [HmacSha256, Aegis128X2, Aegis128X4],
        }
    }

    /// The number in `Connect`; one that this crate cannot make is `None`.
    pub const fn from_code(code: u16) -> Option<BulkAlgorithm> {
        match code {
            0 => Some(BulkAlgorithm::HmacSha256),
            1 => Some(BulkAlgorithm::Aegis128X2),
            2 => Some(BulkAlgorithm::Aegis128X4),
            _ => None,
        }
    }

    pub const fn code(self) -> u16 {
        match self {
            BulkAlgorithm::HmacSha256 => 0,
            BulkAlgorithm::Aegis128X2 => 1,
            BulkAlgorithm::Aegis128X4 => 2,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            BulkAlgorithm::HmacSha256 => "hmac-sha256",
            BulkAlgorithm::Aegis128X2 => "aegis-128x2",
            BulkAlgorithm::Aegis128X4 => "aegis-128x4",
        }
    }
}

/// Whether AEGIS runs on AES instructions here. The C implementation looks at the processor when it runs, the one in Rust only at what it
/// was compiled for.
fn aes_instructions() -> bool {
    if cfg!(feature = "aegis-pure-rust") {
        return cfg!(target_feature = "aes");
    }
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    return false;
}

/// Whether an AES instruction here works on four blocks, and the implementation in use has one that does.
fn aes_on_four_blocks() -> bool {
    if cfg!(feature = "aegis-pure-rust") {
        return false;
    }
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("vaes") && std::arch::is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// The key of one direction's payload tags.
#[derive(Clone)]
pub enum BulkKey {
    HmacSha256(ControlMac),
    Aegis128X2(Zeroizing<[u8; 16]>),
    Aegis128X4(Zeroizing<[u8; 16]>),
    /// No key, in the place of one of this algorithm: tags are zeros.
    #[cfg(memkv_no_bulk_mac)]
    Unsigned(BulkAlgorithm),
}

impl BulkKey {
    /// Begins a tag. The first bytes must be the frame's header, whose sequence number makes every message unique.
    pub fn begin(&self) -> BulkHasher {
        match self {
            BulkKey::HmacSha256(mac) => BulkHasher::HmacSha256(mac.0.clone()),
            BulkKey::Aegis128X2(key) => BulkHasher::Aegis128X2(Aegis128X2Mac::new(key)),
            BulkKey::Aegis128X4(key) => BulkHasher::Aegis128X4(Aegis128X4Mac::new(key)),
            #[cfg(memkv_no_bulk_mac)]
            BulkKey::Unsigned(_) => BulkHasher::Unsigned,
        }
    }

    /// Begins the tag of bytes that go beside a frame, one-sided.
    pub fn begin_region(&self) -> BulkHasher {
        let mut hasher = self.begin();
        hasher.update(&REGION_PREFIX);
        hasher
    }

    /// The tag of the parts, joined.
    pub fn tag(&self, parts: &[&[u8]]) -> Tag {
        let mut hasher = self.begin();
        for part in parts {
            hasher.update(part);
        }
        hasher.finish()
    }

    pub fn algorithm(&self) -> BulkAlgorithm {
        match self {
            BulkKey::HmacSha256(_) => BulkAlgorithm::HmacSha256,
            BulkKey::Aegis128X2(_) => BulkAlgorithm::Aegis128X2,
            BulkKey::Aegis128X4(_) => BulkAlgorithm::Aegis128X4,
            #[cfg(memkv_no_bulk_mac)]
            BulkKey::Unsigned(algorithm) => *algorithm,
        }
    }
}

impl fmt::Debug for BulkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BulkKey({}, ..)", self.algorithm().name())
    }
}

/// What the MAC of one-sided bytes begins with: no frame's header, so that neither tag is good for the other.
const REGION_PREFIX: [u8; 64] = {
    let mut prefix = [0; 64];
    let text = b"memkv region";
    let mut at = 0;
    while at < text.len() {
        prefix[at] = text[at];
        at += 1;
    }
    prefix
};

/// A payload's tag in the making, fed while the bytes are still in cache.
#[allow(
    clippy::large_enum_variant,
    reason = "one per connection and direction, and boxing would allocate per frame"
)]
pub enum BulkHasher {
    HmacSha256(HmacSha256),
    Aegis128X2(Aegis128X2Mac<32>),
    Aegis128X4(Aegis128X4Mac<32>),
    #[cfg(memkv_no_bulk_mac)]
    Unsigned,
}

impl BulkHasher {
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            BulkHasher::HmacSha256(mac) => mac.update(bytes),
            BulkHasher::Aegis128X2(mac) => mac.update(bytes),
            BulkHasher::Aegis128X4(mac) => mac.update(bytes),
            #[cfg(memkv_no_bulk_mac)]
            BulkHasher::Unsigned => {}
        }
    }

    pub fn finish(self) -> Tag {
        match self {
            BulkHasher::HmacSha256(mac) => mac.finalize().into_bytes().into(),
            BulkHasher::Aegis128X2(mac) => mac.finalize(),
            BulkHasher::Aegis128X4(mac) => mac.finalize(),
            #[cfg(memkv_no_bulk_mac)]
            BulkHasher::Unsigned => Tag::default(),
        }
    }

    /// Compares in constant time.
    //= MKV-FRAME-6
    pub fn verify(self, tag: &Tag) -> Result<(), MacMismatch> {
        same(&self.finish(), tag)
    }
}

impl fmt::Debug for BulkHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BulkHasher::HmacSha256(_) => "BulkHasher(hmac-sha256)",
            BulkHasher::Aegis128X2(_) => "BulkHasher(aegis-128x2)",
            BulkHasher::Aegis128X4(_) => "BulkHasher(aegis-128x4)",
            #[cfg(memkv_no_bulk_mac)]
            BulkHasher::Unsigned => "BulkHasher(unsigned)",
        })
    }
}

// ---------------------------------------------------------------- derivations

/// The way frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ClientToServer,
    ServerToClient,
}

impl Direction {
    pub const fn reversed(self) -> Direction {
        match self {
            Direction::ClientToServer => Direction::ServerToClient,
            Direction::ServerToClient => Direction::ClientToServer,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Direction::ClientToServer => "client-to-server",
            Direction::ServerToClient => "server-to-client",
        }
    }
}

/// What a connection's keys are derived from: the shared key and the transcript of the set-up.
pub struct Schedule {
    hkdf: Hkdf<Sha256>,
    version: u8,
}

impl Schedule {
    /// `connect` and `reply` are the control messages, `version` is that of the reply's header.
    pub fn new(key: &Key, connect: &[u8], reply: &[u8], version: u8) -> Schedule {
        Schedule { hkdf: Hkdf::new(Some(&salt(connect, reply)), key.0.as_slice()), version }
    }

    pub fn control_mac(&self, direction: Direction) -> ControlMac {
        let key: Zeroizing<[u8; 32]> = self.derive(direction, "control");
        ControlMac::new(&key)
    }

    pub fn bulk_key(&self, direction: Direction, algorithm: BulkAlgorithm) -> BulkKey {
        match algorithm {
            BulkAlgorithm::HmacSha256 => {
                let key: Zeroizing<[u8; 32]> = self.derive(direction, "bulk hmac-sha256");
                BulkKey::HmacSha256(ControlMac::new(&key))
            }
            BulkAlgorithm::Aegis128X2 => BulkKey::Aegis128X2(self.derive(direction, "bulk aegis-128x2")),
            BulkAlgorithm::Aegis128X4 => BulkKey::Aegis128X4(self.derive(direction, "bulk aegis-128x4")),
        }
    }

    fn derive<const N: usize>(&self, direction: Direction, usage: &str) -> Zeroizing<[u8; N]> {
        let mut key = Zeroizing::new([0; N]);
        let info = format!("memkv v{} {} {usage}", self.version, direction.name());
        self.hkdf.expand(info.as_bytes(), key.as_mut()).expect("N is far below 255 blocks of SHA-256");
        key
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule(v{}, ..)", self.version)
    }
}

/// SHA-256(LE64(length of C) || C || LE64(length of R) || R): the whole transcript of the set-up.
pub fn salt(connect: &[u8], reply: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for message in [connect, reply] {
        hash.update((message.len() as u64).to_le_bytes());
        hash.update(message);
    }
    hash.finalize().into()
}

fn keyed(key: &[u8; 32]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn same(made: &Tag, given: &Tag) -> Result<(), MacMismatch> {
    if made.ct_eq(given).into() { Ok(()) } else { Err(MacMismatch) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn keys_parse_and_hide() {
        let text = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";
        let key = Key::from_hex(&format!(" {text}\n")).unwrap();
        assert_eq!(key, Key::from_bytes(core::array::from_fn(|at| at as u8)));
        assert_eq!(*key.to_hex(), text.to_lowercase());
        assert_eq!(format!("{key:?}"), format!("Key({})", key.id()));
        assert_eq!(Key::from_hex(""), Err(KeyError::Length { characters: 0 }));
        assert_eq!(Key::from_hex(&text[1..]), Err(KeyError::Length { characters: 63 }));
        assert_eq!(Key::from_hex(&"é".repeat(32)), Err(KeyError::Length { characters: 32 }));
        assert_eq!(Key::from_hex(&text.replace('1', "g")), Err(KeyError::Digit { position: 3 }));
        assert_ne!(key, Key::from_bytes([0; 32]));
    }

    //= MKV-CONN-6 test
    #[test]
    fn a_ring_holds_several_keys() {
        let (old, new) = (Key::from_bytes([1; 32]), Key::from_bytes([2; 32]));
        let ring = KeyRing::new([old.clone(), new.clone()]);
        assert_eq!(ring.with_id(old.id()).collect::<Vec<_>>(), [&old]);
        assert_eq!(ring.with_id(new.id()).collect::<Vec<_>>(), [&new]);
        assert_eq!(ring.with_id(Key::from_bytes([3; 32]).id()).count(), 0);
    }

    /// RFC 4231, test case 2, its key padded with the zeros that HMAC pads with itself.
    #[test]
    fn control_mac_is_hmac_sha256() {
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let mac = ControlMac::new(&key);
        let tag = hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert_eq!(mac.tag(&[b"what do ya want ", b"", b"for nothing?"]).as_slice(), tag);
        assert_eq!(mac.verify(&[b"what do ya want for nothing?"], &tag.clone().try_into().unwrap()), Ok(()));
        for bit in 0..256 {
            let mut wrong: Tag = tag.clone().try_into().unwrap();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(mac.verify(&[b"what do ya want for nothing?"], &wrong), Err(MacMismatch));
        }
    }

    #[test]
    fn bulk_tags_do_not_depend_on_the_pieces() {
        let bytes: Vec<u8> = (0..1000u32).map(|n| n.wrapping_mul(251) as u8).collect();
        let schedule = Schedule::new(&Key::from_bytes([9; 32]), b"C", b"R", 1);
        for algorithm in BulkAlgorithm::preference() {
            let key = schedule.bulk_key(Direction::ClientToServer, algorithm);
            let whole = key.tag(&[&bytes]);
            for cut in [0, 1, 31, 32, 63, 64, 65, 127, 128, 129, 500, 1000] {
                assert_eq!(key.tag(&[&bytes[..cut], &bytes[cut..]]), whole, "{algorithm:?} cut at {cut}");
            }
            assert_ne!(key.tag(&[&bytes[1..]]), whole);
            assert_eq!(BulkAlgorithm::from_code(algorithm.code()), Some(algorithm));
        }
        assert_eq!(BulkAlgorithm::from_code(3), None);
    }

    #[test]
    fn every_derivation_differs() {
        let schedule = Schedule::new(&Key::from_bytes([9; 32]), b"C", b"R", 1);
        let moved = Schedule::new(&Key::from_bytes([9; 32]), b"CR", b"", 1);
        let newer = Schedule::new(&Key::from_bytes([9; 32]), b"C", b"R", 2);
        let mut tags = Vec::new();
        for schedule in [schedule, moved, newer] {
            for direction in [Direction::ClientToServer, Direction::ServerToClient] {
                tags.push(schedule.control_mac(direction).tag(&[b"message"]));
                for algorithm in BulkAlgorithm::preference() {
                    tags.push(schedule.bulk_key(direction, algorithm).tag(&[b"message"]));
                }
            }
        }
        let count = tags.len();
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), count);
    }
}
