//! The C table. Checks what C may get wrong (NULL, lengths), and turns results into codes and buffers.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use opendal::Buffer;

use crate::store::{Store, StoreError};

const OK: c_int = 0;
const FAILED: c_int = -1;
const MISSING: c_int = -2;

/// The table of version 1, as `kv_store_v1.h` has it.
#[repr(C)]
pub struct Table {
    version: u32,
    open: unsafe extern "C" fn(*const c_char) -> *mut Store,
    close: unsafe extern "C" fn(*mut Store),
    put_chunk: unsafe extern "C" fn(*mut Store, *const u8, usize, *const u8, usize) -> c_int,
    get_chunk: unsafe extern "C" fn(*mut Store, *const u8, usize, *mut *mut u8, *mut usize) -> c_int,
    put_manifest: unsafe extern "C" fn(*mut Store, *const c_char, *const u8, usize) -> c_int,
    get_manifest: unsafe extern "C" fn(*mut Store, *const c_char, *mut *mut u8, *mut usize) -> c_int,
    delete_manifest: unsafe extern "C" fn(*mut Store, *const c_char) -> c_int,
}

static TABLE: Table =
    Table { version: 1, open, close, put_chunk, get_chunk, put_manifest, get_manifest, delete_manifest };

// SAFETY: the name is the interface's own; the loader looks for it in this library.
#[unsafe(no_mangle)]
pub extern "C" fn kv_store_get_vtable() -> *const Table {
    &raw const TABLE
}

unsafe extern "C" fn open(uri: *const c_char) -> *mut Store {
    // SAFETY: the caller gives NULL or a C string.
    let Some(uri) = (unsafe { text(uri) }).and_then(|uri| uri.to_str().ok()) else {
        return std::ptr::null_mut();
    };
    match catch_unwind(|| Store::open(uri)) {
        Ok(Ok(store)) => Box::into_raw(Box::new(store)),
        Ok(Err(_)) | Err(_) => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn close(store: *mut Store) {
    if !store.is_null() {
        // SAFETY: it came from `open`, and the caller closes a handle once, after its last use.
        let store = unsafe { Box::from_raw(store) };
        // A panic while closing has nobody to be told to.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(store)));
    }
}

unsafe extern "C" fn put_chunk(
    store: *mut Store,
    hash: *const u8,
    hash_len: usize,
    data: *const u8,
    len: usize,
) -> c_int {
    // SAFETY: the caller gives NULL or an open handle, and pointers to so many bytes that stay during the call.
    let (store, hash, data) = unsafe { (store.as_ref(), bytes(hash, hash_len), bytes(data, len)) };
    let (Some(store), Some(hash), Some(data)) = (store, hash, data) else { return FAILED };
    code(|| store.put_chunk(hash, data))
}

unsafe extern "C" fn get_chunk(
    store: *mut Store,
    hash: *const u8,
    hash_len: usize,
    data: *mut *mut u8,
    len: *mut usize,
) -> c_int {
    // SAFETY: as in `put_chunk`; `data` and `len` are NULL or the caller's own variables.
    let (store, hash, out) = unsafe { (store.as_ref(), bytes(hash, hash_len), Out::new(data, len)) };
    let (Some(store), Some(hash), Some(out)) = (store, hash, out) else { return FAILED };
    code(|| out.fill(&store.get_chunk(hash)?))
}

unsafe extern "C" fn put_manifest(
    store: *mut Store,
    name: *const c_char,
    data: *const u8,
    len: usize,
) -> c_int {
    // SAFETY: as in `put_chunk`; `name` is NULL or a C string.
    let (store, name, data) = unsafe { (store.as_ref(), text(name), bytes(data, len)) };
    let (Some(store), Some(name), Some(data)) = (store, name, data) else { return FAILED };
    code(|| store.put_manifest(name.to_bytes(), data))
}

unsafe extern "C" fn get_manifest(
    store: *mut Store,
    name: *const c_char,
    data: *mut *mut u8,
    len: *mut usize,
) -> c_int {
    // SAFETY: as in `get_chunk`; `name` is NULL or a C string.
    let (store, name, out) = unsafe { (store.as_ref(), text(name), Out::new(data, len)) };
    let (Some(store), Some(name), Some(out)) = (store, name, out) else { return FAILED };
    code(|| out.fill(&store.get_manifest(name.to_bytes())?))
}

unsafe extern "C" fn delete_manifest(store: *mut Store, name: *const c_char) -> c_int {
    // SAFETY: as in `put_manifest`.
    let (store, name) = unsafe { (store.as_ref(), text(name)) };
    let (Some(store), Some(name)) = (store, name) else { return FAILED };
    code(|| store.delete_manifest(name.to_bytes()))
}

fn code(call: impl FnOnce() -> Result<(), StoreError>) -> c_int {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => OK,
        Ok(Err(StoreError::Missing)) => MISSING,
        Ok(Err(
            StoreError::Uri(_)
            | StoreError::Runtime(_)
            | StoreError::Service(_)
            | StoreError::Damaged
            | StoreError::Name
            | StoreError::Forked,
        ))
        | Err(_) => FAILED,
    }
}

/// # Safety
/// NULL, or a C string that stays as long as the result is used.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: not NULL here; the rest is the caller's promise.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

/// NULL is an empty slice when the length is 0, and a mistake otherwise.
///
/// # Safety
/// NULL, or so many bytes that stay as long as the result is used.
unsafe fn bytes<'a>(data: *const u8, len: usize) -> Option<&'a [u8]> {
    if len == 0 {
        return Some(&[]);
    }
    if data.is_null() || isize::try_from(len).is_err() {
        return None;
    }
    // SAFETY: not NULL, and no longer than a slice may be; the rest is the caller's promise.
    Some(unsafe { std::slice::from_raw_parts(data, len) })
}

/// The caller's two variables, set to nothing until a value is there.
struct Out<'a> {
    data: &'a mut *mut u8,
    len: &'a mut usize,
}

impl Out<'_> {
    /// # Safety
    /// NULL, or variables of the caller's own.
    unsafe fn new<'a>(data: *mut *mut u8, len: *mut usize) -> Option<Out<'a>> {
        // SAFETY: the caller's promise.
        let (data, len) = unsafe { (data.as_mut()?, len.as_mut()?) };
        *data = std::ptr::null_mut();
        *len = 0;
        Some(Out { data, len })
    }

    /// Copies the value to memory that the caller frees.
    fn fill(self, value: &Buffer) -> Result<(), StoreError> {
        // malloc(0) may be NULL, which engines take for a failure.
        // SAFETY: malloc takes any size.
        let memory = unsafe { libc::malloc(value.len().max(1)) }.cast::<u8>();
        if memory.is_null() {
            return Err(StoreError::Runtime(std::io::ErrorKind::OutOfMemory.into()));
        }
        let mut at = 0;
        for part in value.clone() {
            // SAFETY: the parts add up to the value's length, which is what was allocated, and the memory is new.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), memory.add(at), part.len()) };
            at += part.len();
        }
        *self.data = memory;
        *self.len = value.len();
        Ok(())
    }
}
