//! Messages of other versions: shorter structs of an older peer, longer ones of a newer, and lists of scalars that
//! became lists of structs.

use crate::support::ROOTS;
use memkv_wire::{Message, Request, RequestWhich};
use proptest::collection::vec;
use proptest::prelude::*;

/// What a newer peer would have sent: each struct has fields that nobody here knows, and each list of scalars or
/// pointers is one of structs.
struct Newer<'a> {
    from: &'a [u64],
    to: Vec<u64>,
}

const NEW_DATA_WORDS: usize = 2;
const NEW_POINTERS: usize = 1;
const NEWS: u64 = 0xfeed_f00d_dead_beef;

impl Newer<'_> {
    fn message(control: &[u8]) -> Vec<u8> {
        let from: Vec<u64> =
            control.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
        let mut newer = Newer { from: &from, to: vec![0] };
        newer.pointer(0, 0);
        newer.to.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn take(&mut self, words: usize) -> usize {
        let at = self.to.len();
        self.to.resize(at + words, 0);
        at
    }

    fn point(&mut self, pointer: usize, target: usize, rest: u64) {
        let offset = (target as i64 - pointer as i64 - 1) as i32;
        self.to[pointer] = u64::from((offset << 2) as u32) | rest;
    }

    fn pointer(&mut self, from: usize, to: usize) {
        let word = self.from[from];
        if word == 0 {
            return;
        }
        let target = (from as i64 + 1 + i64::from(word as u32 as i32 >> 2)) as usize;
        let (data, pointers) = ((word >> 32 & 0xffff) as usize, (word >> 48) as usize);
        if word & 3 == 0 {
            let at = self.take(data + NEW_DATA_WORDS + pointers + NEW_POINTERS);
            self.point(to, at, sizes(data, pointers));
            return self.structure(target, at, data, pointers);
        }
        let (element, count) = (word >> 32 & 7, (word >> 35) as usize);
        match element {
            // Data and text may not change.
            2 => {
                let words = count.div_ceil(8);
                let at = self.take(words);
                self.to[at..at + words].copy_from_slice(&self.from[target..target + words]);
                self.point(to, at, word & !0xffff_ffff | 1);
            }
            7 => {
                let tag = self.from[target];
                let (data, pointers) = ((tag >> 32 & 0xffff) as usize, (tag >> 48) as usize);
                let (count, stride) = (tag as u32 as usize >> 2, data + pointers);
                let at = self.list(to, count, data, pointers);
                for index in 0..count {
                    let to = at + index * (stride + NEW_DATA_WORDS + NEW_POINTERS);
                    self.structure(target + 1 + index * stride, to, data, pointers);
                }
            }
            6 => {
                let at = self.list(to, count, 0, 1);
                for index in 0..count {
                    let to = at + index * (1 + NEW_DATA_WORDS + NEW_POINTERS);
                    self.structure(target + index, to, 0, 1);
                }
            }
            _ => {
                let size = 1 << (element - 2);
                let at = self.list(to, count, 1, 0);
                for index in 0..count {
                    let word = self.from[target + index * size / 8] >> (index * size % 8 * 8);
                    let value = if size == 8 { word } else { word & ((1 << (size * 8)) - 1) };
                    // What is beside the old value in its word is new too.
                    let new = if size == 8 { 0 } else { NEWS << (size * 8) };
                    self.to[at + index * (1 + NEW_DATA_WORDS + NEW_POINTERS)] = value | new;
                }
            }
        }
    }

    /// A list of structs with new fields; returns the first element's place.
    fn list(&mut self, pointer: usize, count: usize, data: usize, pointers: usize) -> usize {
        let words = count * (data + NEW_DATA_WORDS + pointers + NEW_POINTERS);
        let tag = self.take(words + 1);
        self.to[tag] = (count as u64) << 2 | sizes(data, pointers);
        self.point(pointer, tag, 1 | 7 << 32 | (words as u64) << 35);
        tag + 1
    }

    fn structure(&mut self, from: usize, to: usize, data: usize, pointers: usize) {
        self.to[to..to + data].copy_from_slice(&self.from[from..from + data]);
        self.to[to + data..to + data + NEW_DATA_WORDS].fill(NEWS);
        let to = to + data + NEW_DATA_WORDS;
        for index in 0..pointers {
            self.pointer(from + data + index, to + index);
        }
        // A pointer of a kind that nobody here follows.
        self.to[to + pointers] = 3;
    }
}

fn sizes(data: usize, pointers: usize) -> u64 {
    ((data + NEW_DATA_WORDS) as u64) << 32 | ((pointers + NEW_POINTERS) as u64) << 48
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_a_newer_peer_adds_is_passed_over(bytes in vec(any::<u8>(), 0..1024)) {
        for root in ROOTS {
            let buf = root.drawn(&bytes);
            let newer = Newer::message(buf.control());
            prop_assume!(newer.len() <= memkv_wire::limits::CONTROL_SIZE_BYTES_MAX as usize);
            prop_assert!(newer.len() > buf.control().len());
            prop_assert_eq!(root.events(&newer).unwrap(), root.events(buf.control()).unwrap());
        }
    }
}

/// A Lookup of a peer that knows neither namespaces nor leases: one data word for the arm, the arm's pointer behind an
/// empty one, and a struct with a key alone.
#[test]
fn what_an_older_peer_lacks_has_its_default() {
    let words: [u64; 6] = [
        1 << 32 | 2 << 48,
        2,
        0,
        // The arm's struct: no data, one pointer.
        1 << 48,
        1 | 2 << 32 | 3 << 35,
        u64::from_le_bytes(*b"key\0\0\0\0\0"),
    ];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let request = Request::decode(&Message::new(&bytes).unwrap()).unwrap();
    assert_eq!(request.namespace, b"");
    assert_eq!(request.which, RequestWhich::Lookup(memkv_wire::Lookup { key: b"key", lease_ms: 0 }));
}
