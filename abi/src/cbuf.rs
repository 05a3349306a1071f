//! Memory that crosses the boundary: slices of the caller's, and buffers made with `malloc` for the caller.

#![expect(unsafe_code, reason = "C passes pointers and lengths, and frees what it is given with free")]

use std::ptr::NonNull;
use std::slice;

use crate::code::Failure;

/// No object is larger than this; a length beyond it is a mistake, not a length.
const OBJECT_SIZE_BYTES_MAX: usize = isize::MAX as usize;

/// The caller's bytes. NULL is allowed for a length of 0.
///
/// # Safety
/// Unless `data` is NULL or `len` is over `size_bytes_max`, `data` is good for reads of `len` bytes for `'a`, and nobody
/// writes there meanwhile.
pub(crate) unsafe fn bytes<'a>(
    data: *const u8,
    len: usize,
    size_bytes_max: usize,
) -> Result<&'a [u8], Failure> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(Failure::Invalid("a pointer is NULL"));
    }
    if len > size_bytes_max.min(OBJECT_SIZE_BYTES_MAX) {
        return Err(Failure::Invalid("a length is out of range"));
    }
    // SAFETY: `data` is not NULL and `len` is in range, so the caller vouches for the bytes; u8 has no alignment.
    Ok(unsafe { slice::from_raw_parts(data, len) })
}

/// The caller's string without its final zero, of at most `size_bytes_max` bytes.
///
/// # Safety
/// Unless `text` is NULL, it is good for reads up to a zero byte or for `size_bytes_max` + 1 bytes, whichever is less, for
/// `'a`, and nobody writes there meanwhile.
pub(crate) unsafe fn text<'a>(text: *const libc::c_char, size_bytes_max: usize) -> Result<&'a [u8], Failure> {
    if text.is_null() {
        return Err(Failure::Invalid("a pointer is NULL"));
    }
    // SAFETY: strnlen reads up to a zero byte and no further than the given length.
    let len = unsafe { libc::strnlen(text, size_bytes_max + 1) };
    if len > size_bytes_max {
        return Err(Failure::Invalid("a name is too long"));
    }
    // SAFETY: strnlen just read these `len` bytes.
    Ok(unsafe { slice::from_raw_parts(text.cast(), len) })
}

/// Where the caller wants a buffer's pointer and length.
#[derive(Debug)]
pub(crate) struct Out {
    data: NonNull<*mut u8>,
    len: NonNull<usize>,
}

impl Out {
    /// # Safety
    /// Unless NULL, both are good for writes until the `Out` is gone.
    pub unsafe fn new(data: *mut *mut u8, len: *mut usize) -> Result<Self, Failure> {
        match (NonNull::new(data), NonNull::new(len)) {
            (Some(data), Some(len)) => Ok(Self { data, len }),
            _ => Err(Failure::Invalid("a pointer is NULL")),
        }
    }

    /// Hands a buffer over to the caller.
    pub fn give(self, buffer: Malloced) {
        let buffer = std::mem::ManuallyDrop::new(buffer);
        // SAFETY: whoever made `self` vouched for both places; a caller's `uint8_t **` may be unaligned no more than ours.
        unsafe {
            self.data.write(buffer.start.as_ptr());
            self.len.write(buffer.filled);
        }
    }
}

/// A buffer of the C library's, being filled.
#[derive(Debug)]
pub(crate) struct Malloced {
    start: NonNull<u8>,
    size_bytes: usize,
    filled: usize,
}

// SAFETY: it owns its memory alone, which any thread may write and free.
unsafe impl Send for Malloced {}

impl Malloced {
    /// Room for so many bytes. A buffer of none is a pointer that can be freed, too.
    pub fn new(size_bytes: usize) -> Result<Self, Failure> {
        // SAFETY: malloc has no preconditions.
        let start = unsafe { libc::malloc(size_bytes.max(1)) };
        let start = NonNull::new(start.cast()).ok_or(Failure::NoMemory)?;
        Ok(Self { start, size_bytes, filled: 0 })
    }

    /// So many zeros, to be written over. Memory that the system has not handed out yet costs no writing here.
    pub fn zeroed(size_bytes: usize) -> Result<Self, Failure> {
        // SAFETY: calloc has no preconditions.
        let start = unsafe { libc::calloc(size_bytes.max(1), 1) };
        let start = NonNull::new(start.cast()).ok_or(Failure::NoMemory)?;
        Ok(Self { start, size_bytes, filled: size_bytes })
    }

    /// The bytes that are there.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the first `filled` bytes were written, or zeroed; the buffer is ours alone.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.filled) }
    }

    /// Forgets bytes from the end, until at most so many are left.
    pub fn truncate(&mut self, size_bytes: usize) {
        self.filled = self.filled.min(size_bytes);
    }

    /// Adds bytes behind those that are there.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn push(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.size_bytes - self.filled, "a buffer is as large as what it holds");
        // SAFETY: the buffer has `size_bytes` bytes, of which the assertion leaves room for these; it is ours alone,
        // so `bytes` lies elsewhere.
        unsafe {
            let place = self.start.as_ptr().add(self.filled);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len());
        }
        self.filled += bytes.len();
    }
}

impl Drop for Malloced {
    fn drop(&mut self) {
        // SAFETY: it came from malloc, and was not handed over: `Out::give` forgets it.
        unsafe { libc::free(self.start.as_ptr().cast()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_judged_before_pointers_are_read() {
        let byte = 7u8;
        let wild = std::ptr::without_provenance::<u8>(1);
        // SAFETY: the lengths are 0, out of range, or that of `byte`.
        unsafe {
            assert_eq!(bytes(std::ptr::null(), 0, 10), Ok(&[][..]));
            assert_eq!(bytes(&byte, 1, 10), Ok(&[7][..]));
            assert!(bytes(std::ptr::null(), 1, 10).is_err());
            for len in [11, usize::MAX, usize::MAX / 2 + 1] {
                assert!(bytes(wild, len, 10).is_err());
            }
            assert!(bytes(wild, usize::MAX, usize::MAX).is_err());
        }
    }

    #[test]
    fn strings_end_at_their_zero_or_are_refused() {
        // SAFETY: the strings are static and end with a zero.
        unsafe {
            assert_eq!(text(c"abc".as_ptr(), 3), Ok(&b"abc"[..]));
            assert!(text(c"abcd".as_ptr(), 3).is_err());
            assert_eq!(text(c"".as_ptr(), 3), Ok(&[][..]));
            assert!(text(std::ptr::null(), 3).is_err());
        }
    }

    #[test]
    fn a_buffer_is_handed_over_or_freed() {
        let (mut data, mut len) = (std::ptr::null_mut(), 99);
        let mut buffer = Malloced::new(5).expect("memory");
        buffer.push(b"he");
        buffer.push(b"llo");
        // SAFETY: both places are good; `data` is then a buffer of five bytes from malloc.
        unsafe {
            Out::new(&mut data, &mut len).expect("places").give(buffer);
            assert_eq!(slice::from_raw_parts(data, len), b"hello");
            libc::free(data.cast());
            assert!(Out::new(std::ptr::null_mut(), &mut len).is_err());
        }
        drop(Malloced::new(0).expect("memory"));
        let mut zeros = Malloced::zeroed(3).expect("memory");
        zeros.bytes_mut()[0] = 7;
        zeros.truncate(2);
        assert_eq!(zeros.bytes_mut(), [7, 0]);
        zeros.push(&[1]);
        assert_eq!(zeros.bytes_mut(), [7, 0, 1]);
        drop(Malloced::zeroed(0).expect("memory"));
    }
}
