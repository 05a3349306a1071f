//! Lists in messages: one type for those read from the wire and those given by a caller.
//!
//! A list from the wire is read lazily, element by element; decoding checked every element before, so reading
//! one again cannot fail.

use core::fmt;

use crate::read::{ListReader, Shape, StructReader, Walk};
use crate::write::{Measure, Out};

/// A borrowed list. Make one from a slice with `List::from(&items[..])`.
#[derive(Clone, Copy)]
pub struct List<'a, T> {
    source: Source<'a, T>,
}

#[derive(Clone, Copy)]
enum Source<'a, T> {
    Slice(&'a [T]),
    Wire(ListReader<'a>),
}

impl<'a, T> List<'a, T> {
    pub(crate) const fn from_reader(reader: ListReader<'a>) -> List<'a, T> {
        List { source: Source::Wire(reader) }
    }

    pub const fn empty() -> List<'a, T> {
        List { source: Source::Slice(&[]) }
    }

    pub fn len(&self) -> usize {
        match self.source {
            Source::Slice(slice) => slice.len(),
            Source::Wire(reader) => reader.count() as usize,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a, T: Element<'a>> List<'a, T> {
    pub fn get(&self, index: usize) -> Option<T> {
        match self.source {
            Source::Slice(slice) => slice.get(index).copied(),
            Source::Wire(reader) => {
                let index = u32::try_from(index).ok().filter(|index| *index < reader.count())?;
                Some(T::get(&reader, index))
            }
        }
    }

    pub fn iter(&self) -> Iter<'a, T> {
        Iter { list: *self, next: 0, end: self.len() }
    }
}

impl<'a, T> From<&'a [T]> for List<'a, T> {
    fn from(slice: &'a [T]) -> List<'a, T> {
        List { source: Source::Slice(slice) }
    }
}

impl<'a, T, const N: usize> From<&'a [T; N]> for List<'a, T> {
    fn from(array: &'a [T; N]) -> List<'a, T> {
        List::from(&array[..])
    }
}

impl<'a, T> From<&'a Vec<T>> for List<'a, T> {
    fn from(items: &'a Vec<T>) -> List<'a, T> {
        List::from(&items[..])
    }
}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        List::empty()
    }
}

impl<'a, T: Element<'a> + fmt::Debug> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T: Element<'a> + PartialEq> PartialEq for List<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<'a, T: Element<'a> + Eq> Eq for List<'a, T> {}

impl<'a, T: Element<'a>> IntoIterator for List<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<'a, T: Element<'a>> IntoIterator for &List<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// Iterates over a [`List`] by value.
#[derive(Clone)]
pub struct Iter<'a, T> {
    list: List<'a, T>,
    next: usize,
    end: usize,
}

impl<'a, T: Element<'a>> Iterator for Iter<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.next == self.end {
            return None;
        }
        let item = self.list.get(self.next);
        self.next += 1;
        item
    }

    fn nth(&mut self, skip: usize) -> Option<T> {
        self.next = self.next.saturating_add(skip).min(self.end);
        self.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.next, Some(self.end - self.next))
    }
}

impl<'a, T: Element<'a>> ExactSizeIterator for Iter<'a, T> {}

impl<'a, T: Element<'a>> DoubleEndedIterator for Iter<'a, T> {
    fn next_back(&mut self) -> Option<T> {
        if self.next == self.end {
            return None;
        }
        self.end -= 1;
        self.list.get(self.end)
    }
}

/// What a list may hold: integers, enums and structs of the schema, and data. The module that defines it is
/// private, so the set is closed.
pub trait Element<'a>: Copy {
    const SHAPE: Shape;
    /// The bounds the schema gives to each element, beside those on the list.
    type Bounds: Copy;

    /// Element `index` of a list that was checked.
    fn get(list: &ListReader<'a>, index: u32) -> Self;
    /// Checks element `index`.
    fn walk(list: &ListReader<'a>, index: u32, walk: &mut Walk, field: &'static str, bounds: Self::Bounds);
    /// Counts the words the element takes beside its place in the list, and checks it.
    fn measure(&self, measure: &mut Measure, field: &'static str, bounds: Self::Bounds);
    /// Writes the element to its place, which begins at byte `at`.
    fn put(&self, out: &mut Out<'_>, at: usize);
}

macro_rules! integer_elements {
    ($($name:ident),*) => {$(
        impl<'a> Element<'a> for $name {
            const SHAPE: Shape = Shape::Scalar { size_bytes: size_of::<$name>() };
            type Bounds = ();

            fn get(list: &ListReader<'a>, index: u32) -> $name {
                list.structure(index).$name(0)
            }

            fn walk(_: &ListReader<'a>, _: u32, _: &mut Walk, _: &'static str, (): ()) {}

            fn measure(&self, _: &mut Measure, _: &'static str, (): ()) {}

            fn put(&self, out: &mut Out<'_>, at: usize) {
                out.bytes_at(at, &self.to_le_bytes());
            }
        }
    )*};
}

integer_elements!(u8, u16, u32, u64, i8, i16, i32, i64);

impl<'a> Element<'a> for &'a [u8] {
    const SHAPE: Shape = Shape::Pointer;
    type Bounds = (u32, u32);

    fn get(list: &ListReader<'a>, index: u32) -> &'a [u8] {
        list.data(index).unwrap_or_default()
    }

    fn walk(list: &ListReader<'a>, index: u32, walk: &mut Walk, field: &'static str, bounds: (u32, u32)) {
        walk.item_data(list, index, field, bounds);
    }

    fn measure(&self, measure: &mut Measure, field: &'static str, bounds: (u32, u32)) {
        measure.data(self, field, bounds);
    }

    fn put(&self, out: &mut Out<'_>, at: usize) {
        out.data(at / 8, self);
    }
}

/// Implements [`Element`] for an enum of the schema.
macro_rules! enum_element {
    ($name:ty) => {
        impl<'a> crate::list::Element<'a> for $name {
            const SHAPE: crate::read::Shape = crate::read::Shape::Scalar { size_bytes: 2 };
            type Bounds = ();

            fn get(list: &crate::read::ListReader<'a>, index: u32) -> Self {
                Self::from_code(list.structure(index).u16(0))
            }

            fn walk(
                _: &crate::read::ListReader<'a>,
                _: u32,
                _: &mut crate::read::Walk,
                _: &'static str,
                (): (),
            ) {
            }

            fn measure(&self, _: &mut crate::write::Measure, _: &'static str, (): ()) {}

            fn put(&self, out: &mut crate::write::Out<'_>, at: usize) {
                out.bytes_at(at, &self.code().to_le_bytes());
            }
        }
    };
}
pub(crate) use enum_element;

/// Implements [`Element`] for a struct of the schema.
macro_rules! struct_element {
    ($a:lifetime, $name:ty) => {
        impl<$a> crate::list::Element<$a> for $name {
            const SHAPE: crate::read::Shape = crate::list::struct_shape::<$name>();
            type Bounds = ();

            fn get(list: &crate::read::ListReader<$a>, index: u32) -> Self {
                crate::list::struct_get(list, index)
            }

            fn walk(
                list: &crate::read::ListReader<$a>,
                index: u32,
                walk: &mut crate::read::Walk,
                _: &'static str,
                (): (),
            ) {
                <$name as crate::read::Struct<$a>>::read(list.structure(index), walk);
            }

            fn measure(&self, measure: &mut crate::write::Measure, _: &'static str, (): ()) {
                crate::read::Struct::measure(self, measure);
            }

            fn put(&self, out: &mut crate::write::Out<'_>, at: usize) {
                crate::read::Struct::put(self, out, at / 8);
            }
        }
    };
}
pub(crate) use struct_element;

pub(crate) const fn struct_shape<'a, T: crate::read::Struct<'a>>() -> Shape {
    Shape::Struct { data_words: T::DATA_WORDS, pointer_count: T::POINTER_COUNT }
}

pub(crate) fn struct_get<'a, T: crate::read::Struct<'a>>(list: &ListReader<'a>, index: u32) -> T {
    let reader: StructReader<'a> = list.structure(index);
    T::read(reader, &mut Walk::again())
}
