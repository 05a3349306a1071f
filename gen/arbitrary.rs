//! Messages drawn from a fuzzer's bytes: any content, always within the bounds of the schema and small enough to be
//! sent. For fuzzers, property tests and simulations.
//!
//! What is between fields (a manifest's hashes match its chunks) is not kept by [`manifest()`]; [`manifest_blob`]
//! keeps it.

use ::arbitrary::{Error, Result, Unstructured};

use crate::control::ControlBuf;
use crate::error::EncodeError;
use crate::list::Element;
use crate::*;

/// Where drawn messages keep what they point at.
pub type Arena = bumpalo::Bump;

include!(concat!(env!("OUT_DIR"), "/arbitrary.rs"));

/// Most drawn lengths and counts are at most this much over their least, so that many small messages come before
/// a large one.
const USUAL: u32 = 24;

/// A control message may be as large as its limit; a manifest of 64 MiB would only be slow.
const DRAWN_SIZE_BYTES_MAX: usize = 1 << 19;

trait Drawn<'a>: Sized {
    fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self>;
}

struct Draw<'d, 'u, 'a> {
    u: &'d mut Unstructured<'u>,
    arena: &'a Arena,
    /// What may still be spent on what is optional, before the message outgrows its limit.
    words_left: usize,
}

impl<'d, 'u, 'a> Draw<'d, 'u, 'a> {
    fn new(u: &'d mut Unstructured<'u>, arena: &'a Arena, size_bytes_max: usize) -> Draw<'d, 'u, 'a> {
        // A quarter is left for what a message must have, whatever was spent.
        let size_bytes_max = size_bytes_max.min(DRAWN_SIZE_BYTES_MAX);
        Draw { u, arena, words_left: size_bytes_max / 8 / 4 * 3 }
    }

    fn spend(&mut self, words: usize) {
        self.words_left = self.words_left.saturating_sub(words);
    }

    fn unsigned(&mut self, min: u64, max: u64) -> Result<u64> {
        // Bounds are where mistakes are: they come more often than chance would have it.
        match self.u.int_in_range(0..=7u8)? {
            0 => Ok(min),
            1 => Ok(max),
            2..=4 => self.u.int_in_range(min..=max.min(min.saturating_add(255))),
            _ => self.u.int_in_range(min..=max),
        }
    }

    /// A known code below `known`, or rarely any other.
    fn code(&mut self, known: u16) -> Result<u16> {
        if self.u.ratio(1, 32)? {
            self.u.int_in_range(known..=u16::MAX)
        } else {
            self.u.int_in_range(0..=known - 1)
        }
    }

    fn length(&mut self, min: u32, max: u32, room: usize) -> Result<usize> {
        let most = max.min(u32::try_from(room).unwrap_or(u32::MAX)).max(min);
        let usual = most.min(min.saturating_add(USUAL));
        let most = if self.u.ratio(1, 16)? { most } else { usual };
        Ok(self.u.int_in_range(min..=most)? as usize)
    }

    fn data(&mut self, min: u32, max: u32) -> Result<&'a [u8]> {
        let length = self.length(min, max, self.words_left * 8)?;
        self.spend(length.div_ceil(8));
        let bytes = self.arena.alloc_slice_fill_copy(length, 0);
        self.u.fill_buffer(bytes)?;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N]> {
        self.spend(N.div_ceil(8));
        let bytes = self.arena.alloc([0; N]);
        self.u.fill_buffer(bytes)?;
        Ok(bytes)
    }

    fn optional_array<const N: usize>(&mut self) -> Result<Option<&'a [u8; N]>> {
        if self.u.arbitrary()? { self.array().map(Some) } else { Ok(None) }
    }

    fn text(&mut self, min: u32, max: u32) -> Result<&'a str> {
        let length = self.length(min, max, self.words_left * 8)?;
        self.spend(length / 8 + 1);
        let mut text = bumpalo::collections::String::with_capacity_in(length, self.arena);
        while text.len() < length {
            let letter: char = self.u.arbitrary()?;
            let fits = text.len() + letter.len_utf8() <= length;
            text.push(if fits { letter } else { '.' });
        }
        Ok(text.into_bump_str())
    }

    fn list<T: Element<'a> + Drawn<'a> + 'a>(&mut self, min: u32, max: u32) -> Result<List<'a, T>> {
        self.items(min, max, T::draw)
    }

    fn data_list(&mut self, min: u32, max: u32, item_min: u32, item_max: u32) -> Result<List<'a, &'a [u8]>> {
        self.items(min, max, |draw| {
            draw.spend(1);
            draw.data(item_min, item_max)
        })
    }

    fn items<T: Copy + 'a>(
        &mut self,
        min: u32,
        max: u32,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<List<'a, T>> {
        let count = self.length(min, max, self.words_left)?;
        let mut items = bumpalo::collections::Vec::new_in(self.arena);
        while items.len() < count && (items.len() < min as usize || self.words_left > 0) {
            items.push(item(self)?);
        }
        Ok(List::from(items.into_bump_slice()))
    }
}

macro_rules! drawn_scalars {
    ($($name:ident),*) => {$(
        impl<'a> Drawn<'a> for $name {
            fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {
                draw.spend(1);
                draw.u.arbitrary()
            }
        }
    )*};
}

drawn_scalars!(bool, u8, u16, u32, u64, i8, i16, i32, i64);

/// A blob that [`manifest::ManifestBlob::decode`] takes: what lies between fields holds too.
pub fn manifest_blob(u: &mut Unstructured<'_>, blob: &mut Vec<u8>) -> Result<()> {
    let arena = Arena::new();
    let drawn = draw_manifest(u, &arena)?;
    let algorithm = *u.choose(HashAlgorithm::ALL)?;
    let size_bytes = algorithm.size_bytes().unwrap_or_default();
    let tokens = drawn.tokens.len() as u32;
    let mut chunks = Vec::with_capacity(drawn.chunks.len());
    let mut hashes = Vec::with_capacity(drawn.chunks.len() * size_bytes);
    for (index, chunk) in drawn.chunks.iter().enumerate() {
        // Every hash is another one, so that no two lengths can contradict.
        hashes.extend((index as u64).to_le_bytes().into_iter().chain(std::iter::repeat(0)).take(size_bytes));
        let token_start = if tokens == 0 { chunk.token_start } else { chunk.token_start % tokens };
        let token_count =
            if tokens == 0 { chunk.token_count } else { chunk.token_count % (tokens - token_start) };
        chunks.push(Chunk { token_start, token_count, ..chunk });
    }
    let coherent =
        Manifest { hash_algorithm: algorithm, chunks: List::from(&chunks), hashes: &hashes, ..drawn };
    manifest::encode(&coherent, blob).map_err(|_| Error::IncorrectFormat)
}

/// The room left for what a message must have always suffices, so this fails only if the draw is wrong.
fn encoded(encoded: core::result::Result<(), EncodeError>) -> Result<()> {
    encoded.map_err(|_| Error::IncorrectFormat)
}
