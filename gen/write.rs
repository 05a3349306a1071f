//! Writing the Cap'n Proto encoding of a one-segment message: measured first, then put down in one pass.
//!
//! Invariants: [`Measure`] counts exactly the words that [`Out`] will take, objects follow one another in
//! preorder with no gap, and what is empty becomes a null pointer. `Out` panics when the two disagree, which
//! would be a bug of ours; no input can cause it.

use crate::error::{Bound, EncodeError};
use crate::list::{Element, List};
use crate::read::{Shape, Struct};

const WORD: usize = 8;

/// Counts the words of a message and checks its bounds. Keeps the first problem, like [`crate::read::Walk`].
pub struct Measure {
    words: usize,
    error: Option<EncodeError>,
}

impl Measure {
    /// The words of a message with this root, its root pointer among them.
    pub fn message<'a, T: Struct<'a>>(root: &T) -> Result<usize, EncodeError> {
        let mut measure = Measure { words: 1, error: None };
        measure.structure(root);
        match measure.error {
            None => Ok(measure.words),
            Some(error) => Err(error),
        }
    }

    /// The words of one struct and of all it points at.
    pub fn part<'a, T: Struct<'a>>(value: &T) -> Result<usize, EncodeError> {
        Measure::message(value).map(|words| words - 1)
    }

    fn check(&mut self, field: &'static str, checked: Result<(), Bound>) {
        if let Err(bound) = checked {
            self.error.get_or_insert(EncodeError::Bound { field, bound });
        }
    }

    pub fn range(&mut self, value: u64, field: &'static str, min: u64, max: u64) {
        self.check(field, Bound::range(value, min, max));
    }

    pub fn data(&mut self, bytes: &[u8], field: &'static str, (min, max): (u32, u32)) {
        self.check(field, Bound::length(bytes.len(), min, max));
        self.words += bytes.len().div_ceil(WORD);
    }

    pub fn optional_data(&mut self, bytes: Option<&[u8]>, field: &'static str, bounds: (u32, u32)) {
        if let Some(bytes) = bytes {
            self.data(bytes, field, bounds);
        }
    }

    pub fn text(&mut self, text: &str, field: &'static str, (min, max): (u32, u32)) {
        self.check(field, Bound::length(text.len(), min, max));
        if !text.is_empty() {
            self.words += (text.len() + 1).div_ceil(WORD);
        }
    }

    pub fn structure<'a, T: Struct<'a>>(&mut self, value: &T) {
        self.words += usize::from(T::DATA_WORDS) + usize::from(T::POINTER_COUNT);
        value.measure(self);
    }

    pub fn list<'a, T: Element<'a>>(
        &mut self,
        list: &List<'a, T>,
        field: &'static str,
        (min, max): (u32, u32),
        item_bounds: T::Bounds,
    ) {
        self.check(field, Bound::count(list.len(), min, max));
        if list.is_empty() || self.error.is_some() {
            return;
        }
        self.words += list_words(T::SHAPE, list.len());
        for item in list.iter() {
            item.measure(self, field, item_bounds);
        }
    }
}

/// The words of a list itself, its tag among them, without what its elements point at.
fn list_words(shape: Shape, count: usize) -> usize {
    match shape {
        Shape::Scalar { size_bytes } => (count * size_bytes).div_ceil(WORD),
        Shape::Pointer => count,
        Shape::Struct { data_words, pointer_count } => {
            1 + count * (usize::from(data_words) + usize::from(pointer_count))
        }
    }
}

/// A message under construction, in zeroed memory of exactly the measured size.
pub struct Out<'b> {
    bytes: &'b mut [u8],
    /// The first word not taken yet.
    next: usize,
}

impl<'b> Out<'b> {
    /// Writes the message whose root is `root`; `bytes` are zeros, as many as [`Measure::message`] found.
    pub fn message<'a, T: Struct<'a>>(root: &T, bytes: &'b mut [u8]) {
        let mut out = Out { bytes, next: 1 };
        out.structure(0, root);
        assert_eq!(out.next * WORD, out.bytes.len(), "{} was measured wrongly", T::NAME);
    }

    fn take(&mut self, words: usize) -> usize {
        let at = self.next;
        self.next += words;
        at
    }

    fn word(&mut self, at: usize, word: u64) {
        self.bytes_at(at * WORD, &word.to_le_bytes());
    }

    pub fn bytes_at(&mut self, at_bytes: usize, bytes: &[u8]) {
        self.bytes[at_bytes..at_bytes + bytes.len()].copy_from_slice(bytes);
    }

    pub fn bit(&mut self, at_bytes: usize, bit: usize, value: bool) {
        self.bytes[at_bytes + bit / 8] |= u8::from(value) << (bit % 8);
    }

    /// Bytes behind the pointer in word `pointer`.
    pub fn data(&mut self, pointer: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            let at = self.take(bytes.len().div_ceil(WORD));
            self.word(pointer, list_pointer(pointer, at, ELEMENT_BYTE, bytes.len()));
            self.bytes_at(at * WORD, bytes);
        }
    }

    pub fn optional_data(&mut self, pointer: usize, bytes: Option<&[u8]>) {
        self.data(pointer, bytes.unwrap_or_default());
    }

    pub fn text(&mut self, pointer: usize, text: &str) {
        if !text.is_empty() {
            let at = self.take((text.len() + 1).div_ceil(WORD));
            self.word(pointer, list_pointer(pointer, at, ELEMENT_BYTE, text.len() + 1));
            self.bytes_at(at * WORD, text.as_bytes());
        }
    }

    pub fn structure<'a, T: Struct<'a>>(&mut self, pointer: usize, value: &T) {
        let words = usize::from(T::DATA_WORDS) + usize::from(T::POINTER_COUNT);
        let at = self.take(words);
        // A struct of no size is pointed at itself, so that its pointer differs from null.
        let target = if words == 0 { pointer } else { at };
        self.word(pointer, offset(pointer, target) | struct_size(T::DATA_WORDS, T::POINTER_COUNT));
        value.put(self, at);
    }

    pub fn list<'a, T: Element<'a>>(&mut self, pointer: usize, list: &List<'a, T>) {
        if list.is_empty() {
            return;
        }
        let words = list_words(T::SHAPE, list.len());
        let at = self.take(words);
        let (start, stride_bytes) = match T::SHAPE {
            Shape::Scalar { size_bytes } => {
                let element = ELEMENT_BYTE + size_bytes.ilog2() as u64;
                self.word(pointer, list_pointer(pointer, at, element, list.len()));
                (at, size_bytes)
            }
            Shape::Pointer => {
                self.word(pointer, list_pointer(pointer, at, ELEMENT_POINTER, list.len()));
                (at, WORD)
            }
            Shape::Struct { data_words, pointer_count } => {
                self.word(pointer, list_pointer(pointer, at, ELEMENT_STRUCT, words - 1));
                self.word(at, (list.len() as u64) << 2 | struct_size(data_words, pointer_count));
                (at + 1, (usize::from(data_words) + usize::from(pointer_count)) * WORD)
            }
        };
        for (index, item) in list.iter().enumerate() {
            item.put(self, start * WORD + index * stride_bytes);
        }
    }
}

const ELEMENT_BYTE: u64 = 2;
const ELEMENT_POINTER: u64 = 6;
const ELEMENT_STRUCT: u64 = 7;

/// The offset field of the pointer in word `pointer` that leads to word `target`.
fn offset(pointer: usize, target: usize) -> u64 {
    let distance = target as i64 - pointer as i64 - 1;
    u64::from(((distance as i32) << 2) as u32)
}

fn list_pointer(pointer: usize, target: usize, element: u64, count: usize) -> u64 {
    offset(pointer, target) | 1 | element << 32 | (count as u64) << 35
}

fn struct_size(data_words: u16, pointer_count: u16) -> u64 {
    u64::from(data_words) << 32 | u64::from(pointer_count) << 48
}
