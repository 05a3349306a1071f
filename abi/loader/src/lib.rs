//! A `kv_store_v1` library, loaded as an inference engine loads one: by its path, through one exported symbol.
//!
//! Any library of the interface will do: this knows nothing of who wrote it. What the C interface promises is stated in
//! `kv_store_v1.h`; the table's layout is declared again here, because an engine has nothing but that header. Owns what a caller
//! would otherwise need `unsafe` for. That the library keeps the interface's promises is not checked: `memkv-conformance` does.

use std::ffi::{CString, NulError, c_char, c_int};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::ptr;

use libloading::os::unix::{Library, Symbol};

/// Why a store could not be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot load {}", path.display())]
    Load { path: PathBuf, source: libloading::Error },
    #[error("no kv_store_v1 library")]
    Foreign(#[source] libloading::Error),
    #[error("the library returned no table")]
    NoTable,
    #[error("the library speaks version {version}, without prefetch_chunks")]
    Version { version: u32 },
    #[error("the store cannot be opened")]
    Open,
    #[error("a URI or a name has a zero byte in it")]
    Text(#[from] NulError),
    /// What is not stored, too: the interface does not tell the two apart.
    #[error("{call} returned {code}")]
    Call { call: &'static str, code: c_int },
    #[error("{call} handed out no buffer")]
    NoBuffer { call: &'static str },
}

pub type Result<T> = std::result::Result<T, Error>;

#[repr(C)]
struct Table {
    version: u32,
    open: unsafe extern "C" fn(*const c_char) -> *mut Handle,
    close: unsafe extern "C" fn(*mut Handle),
    put_chunk: unsafe extern "C" fn(*mut Handle, *const u8, usize, *const u8, usize) -> c_int,
    get_chunk: unsafe extern "C" fn(*mut Handle, *const u8, usize, *mut *mut u8, *mut usize) -> c_int,
    put_manifest: unsafe extern "C" fn(*mut Handle, *const c_char, *const u8, usize) -> c_int,
    get_manifest: unsafe extern "C" fn(*mut Handle, *const c_char, *mut *mut u8, *mut usize) -> c_int,
    delete_manifest: unsafe extern "C" fn(*mut Handle, *const c_char) -> c_int,
    /// Only there when `version` is 2 or more.
    prefetch_chunks: unsafe extern "C" fn(*mut Handle, *const u8, usize, usize) -> c_int,
}

enum Handle {}

/// An open store. The library stays loaded for the life of the process, as engines keep it.
pub struct Store {
    table: ptr::NonNull<Table>,
    handle: ptr::NonNull<Handle>,
}

/// Bytes that the library handed out; given back with the C library's `free`.
pub struct Bytes {
    start: ptr::NonNull<u8>,
    length: usize,
}

impl Store {
    pub fn open(library: &Path, uri: &str) -> Result<Store> {
        // SAFETY: loading runs the library's initialisers; the caller named a kv_store_v1 library, whose have no
        // preconditions.
        let library = unsafe { Library::new(library) }
            .map_err(|source| Error::Load { path: library.to_owned(), source })?;
        // SAFETY: the symbol's type is the one that kv_store_v1.h gives it.
        let entry: Symbol<unsafe extern "C" fn() -> *const Table> =
            unsafe { library.get(b"kv_store_get_vtable\0") }.map_err(Error::Foreign)?;
        // SAFETY: the function takes nothing and may be called at any time.
        let table = unsafe { entry() };
        let table = ptr::NonNull::new(table.cast_mut()).ok_or(Error::NoTable)?;
        // The table is part of the library, which must not be unloaded before it.
        std::mem::forget(library);
        // SAFETY: a table that is returned is static, and `version` is in every version of it.
        let version = unsafe { (*table.as_ptr()).version };
        if version < 2 {
            return Err(Error::Version { version });
        }
        let uri = CString::new(uri)?;
        // SAFETY: `uri` ends with a zero byte and outlives the call.
        let handle = unsafe { ((*table.as_ptr()).open)(uri.as_ptr()) };
        let handle = ptr::NonNull::new(handle).ok_or(Error::Open)?;
        Ok(Store { table, handle })
    }

    fn table(&self) -> &Table {
        // SAFETY: `open` found the version to be one that has every field of `Table`; the library is never unloaded.
        unsafe { self.table.as_ref() }
    }

    pub fn put_chunk(&self, hash: &[u8], data: &[u8]) -> Result<()> {
        let put = self.table().put_chunk;
        // SAFETY: both pointers are good for their lengths during the call, and the library keeps neither.
        let code = unsafe { put(self.handle.as_ptr(), hash.as_ptr(), hash.len(), data.as_ptr(), data.len()) };
        accept(code, "put_chunk")
    }

    pub fn put_manifest(&self, name: &str, blob: &[u8]) -> Result<()> {
        let name = CString::new(name)?;
        let put = self.table().put_manifest;
        // SAFETY: `name` ends with a zero byte, `blob` is good for its length, both for the call.
        let code = unsafe { put(self.handle.as_ptr(), name.as_ptr(), blob.as_ptr(), blob.len()) };
        accept(code, "put_manifest")
    }

    /// Says which chunks will be asked for; `hashes` are back to back.
    pub fn prefetch_chunks(&self, hashes: &[u8], hash_size_bytes: usize) -> Result<()> {
        let prefetch = self.table().prefetch_chunks;
        let count = hashes.len() / hash_size_bytes;
        // SAFETY: `hashes` holds `count` hashes of `hash_size_bytes` each.
        let code = unsafe { prefetch(self.handle.as_ptr(), hashes.as_ptr(), hash_size_bytes, count) };
        accept(code, "prefetch_chunks")
    }

    pub fn delete_manifest(&self, name: &str) -> Result<()> {
        let name = CString::new(name)?;
        let delete = self.table().delete_manifest;
        // SAFETY: `name` ends with a zero byte and outlives the call.
        let code = unsafe { delete(self.handle.as_ptr(), name.as_ptr()) };
        accept(code, "delete_manifest")
    }

    pub fn get_chunk(&self, hash: &[u8]) -> Result<Bytes> {
        let get = self.table().get_chunk;
        // SAFETY: `hash` is good for its length; `Bytes::fill` gives places for both results.
        Bytes::fill("get_chunk", |data, length| unsafe {
            get(self.handle.as_ptr(), hash.as_ptr(), hash.len(), data, length)
        })
    }

    pub fn get_manifest(&self, name: &str) -> Result<Bytes> {
        let name = CString::new(name)?;
        let get = self.table().get_manifest;
        // SAFETY: `name` ends with a zero byte; `Bytes::fill` gives places for both results.
        Bytes::fill("get_manifest", |data, length| unsafe {
            get(self.handle.as_ptr(), name.as_ptr(), data, length)
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let close = self.table().close;
        // SAFETY: the handle came from this table's `open`, and nothing uses it after this.
        unsafe { close(self.handle.as_ptr()) }
    }
}

impl Bytes {
    /// Runs a call that hands out a buffer.
    fn fill(what: &'static str, call: impl FnOnce(*mut *mut u8, *mut usize) -> c_int) -> Result<Bytes> {
        let (mut data, mut length) = (ptr::null_mut(), 0);
        accept(call(&mut data, &mut length), what)?;
        let start = ptr::NonNull::new(data).ok_or(Error::NoBuffer { call: what })?;
        Ok(Bytes { start, length })
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: a successful call hands out `length` initialised bytes at `start`, and they are ours until `free`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: the interface says that buffers come from the C library's malloc and that the consumer frees them.
        unsafe { libc::free(self.start.as_ptr().cast()) }
    }
}

fn accept(code: c_int, call: &'static str) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(Error::Call { call, code }) }
}
