//! Messages from peers that mean no good: nothing panics, nothing is allocated, and what is accepted is sound.

use crate::support::{Event, Events, ROOTS, Root};
use memkv_wire::{
    Bound, ControlBuf, DecodeError, Exists, List, Malformed, Manifest, Message, Request, RequestWhich,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// Decodes; if that goes well, everything in the message can be read, as often as one likes, and sent on.
fn assert_sound(root: Root, control: &[u8]) -> Result<(), TestCaseError> {
    let mut accepted = false;
    let cost = allocation_counter::measure(|| accepted = root.decodes(control));
    prop_assert_eq!(cost.count_total, 0, "decoding allocated");
    if accepted {
        let events = root.events(control).unwrap();
        prop_assert!(bytes_told(&events) <= control.len(), "more was read than is there");
        // A message of absent structs is short, and they are written out when it is written anew.
        if let Some(again) = root.reencoded(control).unwrap() {
            prop_assert_eq!(root.events(again.control()).unwrap(), events);
        }
    }
    Ok(())
}

/// The bytes of all data and text.
fn bytes_told(events: &Events) -> usize {
    let length = |event: &Event| match event {
        Event::Data(_, data) => data.len(),
        Event::Text(_, text) => text.len(),
        _ => 0,
    };
    events.0.iter().map(length).sum()
}

fn any_root() -> impl Strategy<Value = Root> {
    proptest::sample::select(&ROOTS[..])
}

//= MKV-MSG-6 test
proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_words(root in any_root(), words in vec(any::<u64>(), 1..64)) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_sound(root, &bytes)?;
    }

    /// Small numbers make pointers that lead somewhere.
    #[test]
    fn random_pointers(root in any_root(), words in vec((0..4u64, -4i64..24, 0..8u64, 0..9u64, 0..3u64), 1..48)) {
        let word = |&(kind, offset, low, count, high): &(u64, i64, u64, u64, u64)| {
            let offset = u64::from((offset as i32 as u32) << 2);
            kind | offset | low << 32 | count << 35 | high << 48
        };
        let bytes: Vec<u8> = words.iter().flat_map(|parts| word(parts).to_le_bytes()).collect();
        assert_sound(root, &bytes)?;
    }

    #[test]
    fn flipped_bits(root in any_root(), bytes in vec(any::<u8>(), 0..1024), flips in vec(any::<Index>(), 1..6)) {
        let mut control = root.drawn(&bytes).control().to_vec();
        for flip in flips {
            let bit = flip.index(control.len() * 8);
            control[bit / 8] ^= 1 << (bit % 8);
        }
        assert_sound(root, &control)?;
    }

    #[test]
    fn swapped_words(root in any_root(), bytes in vec(any::<u8>(), 0..1024), from in any::<Index>(), to in any::<Index>()) {
        let mut control = root.drawn(&bytes).control().to_vec();
        let words = control.len() / 8;
        let (from, to) = (from.index(words) * 8, to.index(words) * 8);
        control.copy_within(from..from + 8, to);
        assert_sound(root, &control)?;
    }

    #[test]
    fn cut_messages(root in any_root(), bytes in vec(any::<u8>(), 0..1024), keep in any::<Index>()) {
        let control = root.drawn(&bytes).control().to_vec();
        let keep = keep.index(control.len());
        assert_sound(root, &control[..keep])?;
        // Every word of what we write is used, so none can be missing.
        prop_assert!(!root.decodes(&control[..keep]), "a message cut to {keep} of {} bytes", control.len());
    }
}

#[test]
fn partial_words_and_nothing_are_refused() {
    assert_eq!(Message::new(&[0; 15]).unwrap_err(), DecodeError::NotWholeWords { length: 15 });
    assert_eq!(Message::new(&[]).unwrap_err(), DecodeError::Empty);
}

/// An Exists message whose keys were replaced by pointers to the first one.
#[test]
fn many_pointers_to_one_blob_are_refused() {
    let (first, second) = ([1; 512], [2; 8]);
    let mut keys: Vec<&[u8]> = vec![&first];
    keys.resize(3000, &second);
    let request = Request { namespace: b"", which: RequestWhich::Exists(Exists { keys: List::from(&keys) }) };
    let mut buf = ControlBuf::new();
    request.encode(&mut buf).unwrap();
    let mut control = buf.control().to_vec();
    // The list of keys is what the last pointer of the Exists struct leads to: the words after it.
    let list = control.len() - 8 * (3000 + 64 + 2999);
    let first = u64::from_le_bytes(control[list..list + 8].try_into().unwrap());
    let (offset, rest) = (first as u32 >> 2, first & !0xffff_ffff | 1);
    for index in 1..3000 {
        let pointer = rest | u64::from(offset.wrapping_sub(index) << 2);
        let at = list + index as usize * 8;
        control[at..at + 8].copy_from_slice(&pointer.to_le_bytes());
    }
    assert_eq!(
        Request::decode(&Message::new(&control).unwrap()),
        Err(DecodeError::Malformed { field: "Exists.keys", malformed: Malformed::Amplified })
    );
}

/// A list of structs of no size costs the sender nothing: only the schema's bound on its count stands against it.
#[test]
fn a_list_of_nothing_is_bounded_by_its_count() {
    let mut buf = ControlBuf::new();
    let chunks = [memkv_wire::Chunk::default()];
    let manifest = Manifest {
        engine: "e",
        model_fingerprint: b"m",
        chunks: List::from(&chunks),
        hashes: &[0; 8],
        ..Manifest::default()
    };
    manifest.encode(&mut buf).unwrap();
    let mut words: Vec<u64> =
        buf.control().chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
    // The tag of the only list of structs in there: one element of 2 words.
    let tag = words.iter().position(|word| *word == 1 << 2 | 2 << 32).unwrap();
    words[tag] = ((1 << 30) - 1) << 2;
    let control: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let refused = Manifest::decode(&Message::new(&control).unwrap());
    let bound = Bound::TooMany { max: 1 << 20, actual: (1 << 30) - 1 };
    assert_eq!(refused, Err(DecodeError::Bound { field: "Manifest.chunks", bound }));
}

/// Each way a pointer can be wrong, told apart.
#[test]
fn malformed_pointers_are_named() {
    let refused = |words: &[u64]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        match Request::decode(&Message::new(&bytes).unwrap()) {
            Err(DecodeError::Malformed { malformed, .. }) => malformed,
            other => panic!("{other:?}"),
        }
    };
    let root = 1 << 32 | 2 << 48;
    let namespace = |pointer: u64, rest: &[u64]| [&[root, 0, pointer, 0][..], rest].concat();
    let list = |offset: u64, element: u64, count: u64| 1 | offset << 2 | element << 32 | count << 35;
    // The message is a Stats request, whose one pointer is a text: empty without a final zero, one letter.
    let stats = |text: u64, rest: &[u64]| [&[root, 15, 0, 1 << 48, text][..], rest].concat();
    assert_eq!(refused(&stats(list(0, 2, 0), &[])), Malformed::TextUnterminated);
    assert_eq!(refused(&stats(list(0, 2, 1), &[0x61])), Malformed::TextUnterminated);
    assert_eq!(refused(&stats(list(0, 2, 2), &[0xff])), Malformed::TextNotUtf8);
    assert_eq!(refused(&[root]), Malformed::OutsideMessage);
    assert_eq!(refused(&[2]), Malformed::FarPointer);
    assert_eq!(refused(&[3]), Malformed::CapabilityPointer);
    assert_eq!(refused(&[list(0, 2, 1), 0]), Malformed::NotAStruct);
    assert_eq!(refused(&namespace(list(1, 2, 9), &[0])), Malformed::OutsideMessage);
    assert_eq!(refused(&namespace(list(1, 3, 1), &[0])), Malformed::ElementShape);
    assert_eq!(refused(&namespace(list(1, 1, 1), &[0])), Malformed::ElementShape);
    assert_eq!(refused(&namespace(1 << 2 | 1 << 32, &[0])), Malformed::NotAList);
    assert_eq!(refused(&namespace(1 | 0xffff_fff0 | 2 << 32 | 1 << 35, &[])), Malformed::OutsideMessage);
}
