//! Reading the Cap'n Proto encoding of a one-segment message, in place.
//!
//! Owns pointers, struct sections and list shapes. Everything is an index into one borrowed slice of bytes:
//! nothing is copied, nothing is allocated, and alignment does not matter.
//!
//! Invariants: a [`StructReader`] or [`ListReader`] lies wholly inside its segment, because [`Pointer::follow`]
//! checked it when it was made. A [`Walk`] counts every word it is led to against the length of the message, so
//! that many pointers to the same bytes are refused; depth needs no counting, because the generator refuses a
//! schema whose structs contain themselves.
//!
//! Not checked here: the meaning of a value. A section that is shorter than this version knows reads as zeros,
//! one that is longer is read as far as it is known: that is how versions meet.

use crate::error::{Bound, DecodeError, Malformed};
use crate::list::{Element, List};

const WORD: usize = 8;

/// The data and pointer sections of one struct.
#[derive(Clone, Copy)]
pub struct StructReader<'a> {
    segment: &'a [u8],
    data: &'a [u8],
    /// Index in words of the first pointer.
    pointers_at: usize,
    pointer_count: usize,
}

macro_rules! unsigned {
    ($($name:ident),*) => {$(
        pub fn $name(&self, slot: usize) -> $name {
            const SIZE: usize = size_of::<$name>();
            let bytes = self.data.get(slot * SIZE..).and_then(|rest| rest.first_chunk::<SIZE>());
            bytes.map_or(0, |bytes| $name::from_le_bytes(*bytes))
        }
    )*};
}

impl<'a> StructReader<'a> {
    /// What a null pointer stands for: every field has its default.
    pub const EMPTY: StructReader<'static> =
        StructReader { segment: &[], data: &[], pointers_at: 0, pointer_count: 0 };

    unsigned!(u8, u16, u32, u64, i8, i16, i32, i64);

    pub fn bool(&self, bit: usize) -> bool {
        self.u8(bit / 8) >> (bit % 8) & 1 == 1
    }

    fn pointer(&self, slot: usize) -> Result<Pointer<'a>, Malformed> {
        if slot < self.pointer_count {
            Pointer::follow(self.segment, self.pointers_at + slot)
        } else {
            Ok(Pointer::Null)
        }
    }
}

/// A list of any shape, as its pointer and, for a list of structs, its tag word describe it. One stride covers
/// all of them, so that a list that grew from scalars to structs still reads.
#[derive(Clone, Copy)]
pub struct ListReader<'a> {
    segment: &'a [u8],
    /// Index in bytes of the first element.
    start: usize,
    count: u32,
    stride_bytes: usize,
    data_bytes: usize,
    pointer_count: usize,
}

impl<'a> ListReader<'a> {
    const EMPTY: ListReader<'static> =
        ListReader { segment: &[], start: 0, count: 0, stride_bytes: 0, data_bytes: 0, pointer_count: 0 };

    pub fn count(&self) -> u32 {
        self.count
    }

    /// Element `index` as a struct; past the end, an empty one.
    pub fn structure(&self, index: u32) -> StructReader<'a> {
        if index >= self.count {
            return StructReader::EMPTY;
        }
        let start = self.start + index as usize * self.stride_bytes;
        let data = self.segment.get(start..start + self.data_bytes).unwrap_or_default();
        // Only lists of pointers or of structs have pointers, and these lie on whole words.
        let pointers_at = (start + self.data_bytes) / WORD;
        StructReader { segment: self.segment, data, pointers_at, pointer_count: self.pointer_count }
    }

    pub fn data(&self, index: u32) -> Result<&'a [u8], Malformed> {
        self.structure(index).pointer(0)?.bytes()
    }

    fn holds(&self, shape: Shape) -> bool {
        match shape {
            Shape::Scalar { size_bytes } => self.data_bytes >= size_bytes,
            Shape::Pointer => self.pointer_count >= 1,
            Shape::Struct { .. } => true,
        }
    }
}

/// What a kind of list element looks like on the wire.
#[derive(Clone, Copy)]
pub enum Shape {
    Scalar { size_bytes: usize },
    Pointer,
    Struct { data_words: u16, pointer_count: u16 },
}

enum Pointer<'a> {
    Null,
    Struct { reader: StructReader<'a>, words: usize },
    List { reader: ListReader<'a>, words: usize },
}

impl<'a> Pointer<'a> {
    /// Reads the pointer in word `index` and checks that what it leads to lies inside the segment.
    fn follow(segment: &'a [u8], index: usize) -> Result<Pointer<'a>, Malformed> {
        let word = word_at(segment, index)?;
        if word == 0 {
            return Ok(Pointer::Null);
        }
        let offset = (word as u32 as i32) >> 2;
        let target =
            (index as isize + 1).checked_add(offset as isize).and_then(|at| usize::try_from(at).ok());
        match (word & 3, target) {
            (0, Some(target)) => Self::structure(segment, target, word),
            (1, Some(target)) => Self::list(segment, target, word),
            (0 | 1, None) => Err(Malformed::OutsideMessage),
            (2, _) => Err(Malformed::FarPointer),
            (_, _) => Err(Malformed::CapabilityPointer),
        }
    }

    fn structure(segment: &'a [u8], target: usize, word: u64) -> Result<Pointer<'a>, Malformed> {
        let (data_words, pointer_count) = struct_size(word);
        let words = data_words + pointer_count;
        let bytes = span(segment, target, words)?;
        let data = bytes.get(..data_words * WORD).unwrap_or_default();
        let reader = StructReader { segment, data, pointers_at: target + data_words, pointer_count };
        Ok(Pointer::Struct { reader, words })
    }

    fn list(segment: &'a [u8], target: usize, word: u64) -> Result<Pointer<'a>, Malformed> {
        let count = (word >> 35) as u32;
        let (data_bytes, pointer_count) = match word >> 32 & 7 {
            0 => (0, 0),
            // No field of the schema is a list of bits, and no list of bits may become a list of structs.
            1 => return Err(Malformed::ElementShape),
            2 => (1, 0),
            3 => (2, 0),
            4 => (4, 0),
            5 => (8, 0),
            6 => (0, 1),
            _ => return Self::struct_list(segment, target, count as usize),
        };
        let stride_bytes = data_bytes + pointer_count * WORD;
        let words = (count as usize * stride_bytes).div_ceil(WORD);
        span(segment, target, words)?;
        let start = target * WORD;
        let reader = ListReader { segment, start, count, stride_bytes, data_bytes, pointer_count };
        Ok(Pointer::List { reader, words })
    }

    fn struct_list(segment: &'a [u8], target: usize, body_words: usize) -> Result<Pointer<'a>, Malformed> {
        span(segment, target, body_words + 1)?;
        let tag = word_at(segment, target)?;
        if tag & 3 != 0 {
            return Err(Malformed::ElementShape);
        }
        let count = tag as u32 >> 2;
        let (data_words, pointer_count) = struct_size(tag);
        let stride_words = data_words + pointer_count;
        if count as usize * stride_words > body_words {
            return Err(Malformed::OutsideMessage);
        }
        let reader = ListReader {
            segment,
            start: (target + 1) * WORD,
            count,
            stride_bytes: stride_words * WORD,
            data_bytes: data_words * WORD,
            pointer_count,
        };
        Ok(Pointer::List { reader, words: body_words + 1 })
    }

    fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Pointer::Null => Ok(&[]),
            Pointer::Struct { .. } => Err(Malformed::NotAList),
            Pointer::List { reader, .. } if reader.stride_bytes == 1 => {
                Ok(reader.segment.get(reader.start..reader.start + reader.count as usize).unwrap_or_default())
            }
            Pointer::List { .. } => Err(Malformed::ElementShape),
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, Pointer::Null)
    }

    fn words(&self) -> usize {
        match self {
            Pointer::Null => 0,
            Pointer::Struct { words, .. } | Pointer::List { words, .. } => *words,
        }
    }
}

fn word_at(segment: &[u8], index: usize) -> Result<u64, Malformed> {
    let bytes = segment.get(index * WORD..).and_then(|rest| rest.first_chunk::<WORD>());
    bytes.map(|bytes| u64::from_le_bytes(*bytes)).ok_or(Malformed::OutsideMessage)
}

fn span(segment: &[u8], start_words: usize, words: usize) -> Result<&[u8], Malformed> {
    segment.get(start_words * WORD..(start_words + words) * WORD).ok_or(Malformed::OutsideMessage)
}

/// The sizes in the upper half of a struct pointer: data words and pointers.
fn struct_size(word: u64) -> (usize, usize) {
    ((word >> 32 & 0xffff) as usize, (word >> 48) as usize)
}

/// A struct of the schema that can be read and written; the generator implements it.
pub trait Struct<'a>: Copy {
    const NAME: &'static str;
    const DATA_WORDS: u16;
    const POINTER_COUNT: u16;

    fn read(reader: StructReader<'a>, walk: &mut Walk) -> Self;
    fn measure(&self, measure: &mut crate::write::Measure);
    fn put(&self, out: &mut crate::write::Out<'_>, at: usize);
}

/// One pass over a message. It keeps the first problem it meets and answers with defaults from then on, so that
/// the generated code reads like the schema; whoever started the walk asks [`Walk::finish`].
pub struct Walk {
    budget_words: usize,
    descend: bool,
    error: Option<DecodeError>,
}

impl Walk {
    /// The first walk over a message, which checks everything. Each word may be led to once.
    fn first(message_words: usize) -> Walk {
        Walk { budget_words: message_words, descend: true, error: None }
    }

    /// A walk over an element of a list that was checked before: it does not go into the element's own lists
    /// again, and what it would report was reported then.
    pub fn again() -> Walk {
        Walk { budget_words: usize::MAX, descend: false, error: None }
    }

    pub fn root<'a, T: Struct<'a>>(segment: &'a [u8]) -> Result<T, DecodeError> {
        let mut walk = Walk::first((segment.len() / WORD).saturating_sub(1));
        let root = Pointer::follow(segment, 0);
        let view = walk.structure_from(root, T::NAME);
        match walk.error {
            None => Ok(view),
            Some(error) => Err(error),
        }
    }

    fn fail(&mut self, error: DecodeError) {
        self.error.get_or_insert(error);
    }

    fn malformed(&mut self, field: &'static str, malformed: Malformed) {
        self.fail(DecodeError::Malformed { field, malformed });
    }

    fn check(&mut self, field: &'static str, checked: Result<(), Bound>) {
        if let Err(bound) = checked {
            self.fail(DecodeError::Bound { field, bound });
        }
    }

    fn charge<'a>(&mut self, pointer: Result<Pointer<'a>, Malformed>, field: &'static str) -> Pointer<'a> {
        let charged = pointer.and_then(|pointer| match self.budget_words.checked_sub(pointer.words()) {
            Some(left) => {
                self.budget_words = left;
                Ok(pointer)
            }
            None => Err(Malformed::Amplified),
        });
        charged.unwrap_or_else(|malformed| {
            self.malformed(field, malformed);
            Pointer::Null
        })
    }

    pub fn range(&mut self, value: u64, field: &'static str, min: u64, max: u64) {
        self.check(field, Bound::range(value, min, max));
    }

    pub fn data<'a>(
        &mut self,
        from: &StructReader<'a>,
        slot: usize,
        field: &'static str,
        (min, max): (u32, u32),
    ) -> &'a [u8] {
        let bytes = self.bytes(from.pointer(slot), field);
        self.check(field, Bound::length(bytes.len(), min, max));
        bytes
    }

    pub fn optional_data<'a>(
        &mut self,
        from: &StructReader<'a>,
        slot: usize,
        field: &'static str,
        (min, max): (u32, u32),
    ) -> Option<&'a [u8]> {
        let bytes = self.bytes(from.pointer(slot), field);
        if bytes.is_empty() {
            return None;
        }
        self.check(field, Bound::length(bytes.len(), min, max));
        Some(bytes)
    }

    pub fn array<'a, const N: usize>(
        &mut self,
        from: &StructReader<'a>,
        slot: usize,
        field: &'static str,
    ) -> &'a [u8; N] {
        let bytes = self.data(from, slot, field, (N as u32, N as u32));
        bytes.try_into().unwrap_or(&[0; N])
    }

    pub fn optional_array<'a, const N: usize>(
        &mut self,
        from: &StructReader<'a>,
        slot: usize,
        field: &'static str,
    ) -> Option<&'a [u8; N]> {
        let bytes = self.optional_data(from, slot, field, (N as u32, N as u32))?;
        bytes.try_into().ok()
    }

    pub fn text<'a>(
        &mut self,
        from: &StructReader<'a>,
        slot: usize,
        field: &'static str,
        (min, max): (u32, u32),
    ) -> &'a str {
        let pointer = self.charge(from.pointer(slot), field);
        // A null pointer is an empty text; any other has its final zero.
        let text = match (pointer.is_null(), pointer.bytes()) {
            (true, _) => Ok(""),
            (false, Ok([bytes @ .., 0])) => core::str::from_utf8(bytes).map_err(|_| Malformed::TextNotUtf8),
            (false, Ok([..])) => Err(Malformed::TextUnterminated),
            (false, Err(malformed)) => Err(malformed),
        };
        match text {
            Ok(text) => {
                self.check(field, Bound::length(text.len(), min, max));
                text
            }
            Err(malformed) => {
                self.malformed(field, malformed);
                ""
            }
        }
    }

    pub fn structure<'a, T: Struct<'a>>(
        &mut self,
        from: &StructReader<'a>,
        slot: usize,
        field: &'static str,
    ) -> T {
        self.structure_from(from.pointer(slot), field)
    }

    pub fn list<'a, T: Element<'a>>(
        &mut self,
        from: &StructReader<'a>,
        slot: usize,
        field: &'static str,
        (min, max): (u32, u32),
        item_bounds: T::Bounds,
    ) -> List<'a, T> {
        let reader = match self.charge(from.pointer(slot), field) {
            Pointer::Null => ListReader::EMPTY,
            Pointer::Struct { .. } => {
                self.malformed(field, Malformed::NotAList);
                ListReader::EMPTY
            }
            Pointer::List { reader, .. } if reader.count > 0 && !reader.holds(T::SHAPE) => {
                self.malformed(field, Malformed::ElementShape);
                ListReader::EMPTY
            }
            Pointer::List { reader, .. } => reader,
        };
        self.check(field, Bound::count(reader.count as usize, min, max));
        if self.descend {
            for index in 0..reader.count {
                if self.error.is_some() {
                    return List::from_reader(ListReader::EMPTY);
                }
                T::walk(&reader, index, self, field, item_bounds);
            }
        }
        List::from_reader(reader)
    }

    /// An element of a list of data.
    pub fn item_data(&mut self, list: &ListReader<'_>, index: u32, field: &'static str, bounds: (u32, u32)) {
        let bytes = self.bytes(list.structure(index).pointer(0), field);
        self.check(field, Bound::length(bytes.len(), bounds.0, bounds.1));
    }

    fn bytes<'a>(&mut self, pointer: Result<Pointer<'a>, Malformed>, field: &'static str) -> &'a [u8] {
        let pointer = self.charge(pointer, field);
        pointer.bytes().unwrap_or_else(|malformed| {
            self.malformed(field, malformed);
            &[]
        })
    }

    fn structure_from<'a, T: Struct<'a>>(
        &mut self,
        pointer: Result<Pointer<'a>, Malformed>,
        field: &'static str,
    ) -> T {
        let reader = match self.charge(pointer, field) {
            Pointer::Null => StructReader::EMPTY,
            Pointer::Struct { reader, .. } => reader,
            Pointer::List { .. } => {
                self.malformed(field, Malformed::NotAStruct);
                StructReader::EMPTY
            }
        };
        T::read(reader, self)
    }
}
