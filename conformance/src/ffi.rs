//! The only module with unsafe code: foreign libraries, the buffers they hand out, `fork`, and the C heap's numbers.
//!
//! A [`Library`] is loaded once and never unloaded: libraries have threads that outlive their handles. What the library
//! returns is checked as far as that can be done without trusting it ([`Failure`]); what cannot be checked (that a
//! pointer really points to so many bytes) crashes at worst the child process that runs one case.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::mem::{offset_of, size_of};
use std::ops::{Deref, DerefMut};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr::NonNull;

// ---------------------------------------------------------------- the table

/// The part of the table that every version has.
#[repr(C)]
struct Table {
    version: u32,
    open: Option<unsafe extern "C" fn(*const c_char) -> *mut c_void>,
    close: Option<unsafe extern "C" fn(*mut c_void)>,
    put_chunk: Option<unsafe extern "C" fn(*mut c_void, *const u8, usize, *const u8, usize) -> c_int>,
    get_chunk: Option<unsafe extern "C" fn(*mut c_void, *const u8, usize, *mut *mut u8, *mut usize) -> c_int>,
    put_manifest: Option<unsafe extern "C" fn(*mut c_void, *const c_char, *const u8, usize) -> c_int>,
    get_manifest: Option<unsafe extern "C" fn(*mut c_void, *const c_char, *mut *mut u8, *mut usize) -> c_int>,
    delete_manifest: Option<unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int>,
}

/// The table since version 2.
#[repr(C)]
struct Table2 {
    table: Table,
    prefetch_chunks: Option<Prefetch>,
}

type Prefetch = unsafe extern "C" fn(*mut c_void, *const u8, usize, usize) -> c_int;

/// The version takes one word with its padding, every function one more.
const WORD_SIZE_BYTES: usize = size_of::<usize>();

const _: () = {
    assert!(offset_of!(Table, open) == WORD_SIZE_BYTES);
    assert!(size_of::<Table>() == 8 * WORD_SIZE_BYTES);
    assert!(offset_of!(Table2, prefetch_chunks) == 8 * WORD_SIZE_BYTES);
};

/// The functions of a table whose version's functions are all there.
#[derive(Clone, Copy)]
struct Functions {
    open: unsafe extern "C" fn(*const c_char) -> *mut c_void,
    close: unsafe extern "C" fn(*mut c_void),
    put_chunk: unsafe extern "C" fn(*mut c_void, *const u8, usize, *const u8, usize) -> c_int,
    get_chunk: unsafe extern "C" fn(*mut c_void, *const u8, usize, *mut *mut u8, *mut usize) -> c_int,
    put_manifest: unsafe extern "C" fn(*mut c_void, *const c_char, *const u8, usize) -> c_int,
    get_manifest: unsafe extern "C" fn(*mut c_void, *const c_char, *mut *mut u8, *mut usize) -> c_int,
    delete_manifest: unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int,
    prefetch_chunks: Option<Prefetch>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error("the path holds a NUL")]
    Path,
    #[error("the system loader refuses it: {reason}")]
    Load { reason: String },
    #[error("it does not export kv_store_get_vtable")]
    NoSymbol,
    #[error("kv_store_get_vtable returned NULL")]
    NoTable,
    #[error("the table's version is 0")]
    NoVersion,
    #[error("version {version} of the table has no {function}")]
    NoFunction { version: u32, function: &'static str },
}

/// A loaded backend.
pub struct Library {
    get_table: unsafe extern "C" fn() -> *const Table,
    version: u32,
    functions: Functions,
}

impl Library {
    pub fn load(path: &Path) -> Result<Library, LoadError> {
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| LoadError::Path)?;
        // SAFETY: `path` is a C string. The library's constructors run; that they do no harm is what loading it trusts.
        let loaded = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if loaded.is_null() {
            return Err(LoadError::Load { reason: loader_error() });
        }
        // SAFETY: `loaded` came from dlopen and is never closed; the name is a C string.
        let symbol = unsafe { libc::dlsym(loaded, c"kv_store_get_vtable".as_ptr()) };
        if symbol.is_null() {
            return Err(LoadError::NoSymbol);
        }
        // SAFETY: a library that exports this name exports this function (KVS-TABLE-1); the pointer is not NULL.
        let get_table: unsafe extern "C" fn() -> *const Table = unsafe { std::mem::transmute(symbol) };
        // SAFETY: KVS-TABLE-1: it takes nothing and may always be called.
        let table = unsafe { get_table() };
        // SAFETY: KVS-TABLE-1: a table that is not NULL is static, and KVS-TABLE-2: has all the fields of version 1.
        let table = unsafe { table.as_ref() }.ok_or(LoadError::NoTable)?;
        let functions = functions(table)?;
        Ok(Library { get_table, version: table.version, functions })
    }

    pub fn version(&self) -> u32 {
        self.version
    }

    pub fn has_prefetch(&self) -> bool {
        self.functions.prefetch_chunks.is_some()
    }

    /// Asks for the table again: where it is, and its bytes as of now.
    pub fn table_now(&self) -> (usize, Vec<usize>) {
        // SAFETY: KVS-TABLE-1: it takes nothing and may always be called.
        let table = unsafe { (self.get_table)() };
        if table.is_null() {
            return (0, Vec::new());
        }
        let words =
            if self.has_prefetch() { size_of::<Table2>() } else { size_of::<Table>() } / WORD_SIZE_BYTES;
        // SAFETY: KVS-TABLE-2: the table has the fields of its version; it is words and aligned as words. The word with
        // the version has 4 bytes of padding, which a static C object has initialised.
        let words = unsafe { std::slice::from_raw_parts(table.cast::<usize>(), words) };
        (table as usize, words.to_vec())
    }

    /// A handle, unless the library returns NULL.
    pub fn open(&self, uri: &CStr) -> Option<Handle> {
        // SAFETY: KVS-OPEN-1, KVS-OPEN-2: any C string may be given.
        self.handle(unsafe { (self.functions.open)(uri.as_ptr()) })
    }

    /// `open(NULL)`.
    pub fn open_null(&self) -> Option<Handle> {
        // SAFETY: KVS-OPEN-4 asks for it; a library that does not take NULL crashes this child only.
        self.handle(unsafe { (self.functions.open)(std::ptr::null()) })
    }

    /// `close(NULL)`.
    pub fn close_null(&self) {
        // SAFETY: as in `open_null`.
        unsafe { (self.functions.close)(std::ptr::null_mut()) }
    }

    /// The codes of every other function for a NULL handle.
    pub fn codes_of_null_handle(&self) -> Vec<(&'static str, i32)> {
        let null = std::ptr::null_mut();
        let (hash, name, functions) = ([1_u8; 8], c"null".as_ptr(), &self.functions);
        let (mut data, mut length) = (std::ptr::null_mut(), 0);
        // SAFETY: as in `open_null`; all other arguments are as in any good call.
        unsafe {
            let mut codes = vec![
                ("put_chunk", (functions.put_chunk)(null, hash.as_ptr(), 8, hash.as_ptr(), 8)),
                ("get_chunk", (functions.get_chunk)(null, hash.as_ptr(), 8, &mut data, &mut length)),
                ("put_manifest", (functions.put_manifest)(null, name, hash.as_ptr(), 8)),
                ("get_manifest", (functions.get_manifest)(null, name, &mut data, &mut length)),
                ("delete_manifest", (functions.delete_manifest)(null, name)),
            ];
            if let Some(prefetch_chunks) = functions.prefetch_chunks {
                codes.push(("prefetch_chunks", prefetch_chunks(null, hash.as_ptr(), 8, 1)));
            }
            codes
        }
    }

    fn handle(&self, raw: *mut c_void) -> Option<Handle> {
        NonNull::new(raw).map(|raw| Handle { raw, functions: self.functions })
    }
}

fn functions(table: &Table) -> Result<Functions, LoadError> {
    let version = table.version;
    let missing = |function| LoadError::NoFunction { version, function };
    if version == 0 {
        return Err(LoadError::NoVersion);
    }
    let prefetch_chunks = if version >= 2 {
        // SAFETY: KVS-TABLE-2: from version 2 on the table has this field; the reference came from the library's own
        // pointer, which is good for all of the table.
        let table2 = unsafe { &*std::ptr::from_ref(table).cast::<Table2>() };
        Some(table2.prefetch_chunks.ok_or(missing("prefetch_chunks"))?)
    } else {
        None
    };
    Ok(Functions {
        open: table.open.ok_or(missing("open"))?,
        close: table.close.ok_or(missing("close"))?,
        put_chunk: table.put_chunk.ok_or(missing("put_chunk"))?,
        get_chunk: table.get_chunk.ok_or(missing("get_chunk"))?,
        put_manifest: table.put_manifest.ok_or(missing("put_manifest"))?,
        get_manifest: table.get_manifest.ok_or(missing("get_manifest"))?,
        delete_manifest: table.delete_manifest.ok_or(missing("delete_manifest"))?,
        prefetch_chunks,
    })
}

fn loader_error() -> String {
    // SAFETY: dlerror returns NULL or a C string that stays until the next call on this thread.
    let reason = unsafe { libc::dlerror().as_ref().map(|text| CStr::from_ptr(text)) };
    reason.map_or_else(|| "no reason given".to_owned(), |text| text.to_string_lossy().into_owned())
}

// ---------------------------------------------------------------- handles

/// An open store; closed when dropped.
pub struct Handle {
    raw: NonNull<c_void>,
    functions: Functions,
}

// SAFETY: KVS-THR-1: any number of threads may use one handle at the same time.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    pub fn put_chunk(&self, hash: &[u8], data: &[u8]) -> i32 {
        // SAFETY: the handle is open; pointers and lengths are those of live slices (KVS-MEM-2).
        unsafe {
            (self.functions.put_chunk)(
                self.raw.as_ptr(),
                hash.as_ptr(),
                hash.len(),
                data.as_ptr(),
                data.len(),
            )
        }
    }

    pub fn get_chunk(&self, hash: &[u8]) -> Result<Buffer, Failure> {
        Out::take(|data, length| {
            // SAFETY: as in `put_chunk`; `data` and `length` are the caller's own variables.
            unsafe { (self.functions.get_chunk)(self.raw.as_ptr(), hash.as_ptr(), hash.len(), data, length) }
        })
    }

    pub fn put_manifest(&self, name: &CStr, data: &[u8]) -> i32 {
        // SAFETY: as in `put_chunk`; `name` is a C string.
        unsafe { (self.functions.put_manifest)(self.raw.as_ptr(), name.as_ptr(), data.as_ptr(), data.len()) }
    }

    /// `put_manifest` with length 0 and a NULL pointer.
    pub fn put_empty_manifest(&self, name: &CStr) -> i32 {
        // SAFETY: KVS-MAN-8: with length 0 the pointer may be NULL.
        unsafe { (self.functions.put_manifest)(self.raw.as_ptr(), name.as_ptr(), std::ptr::null(), 0) }
    }

    pub fn get_manifest(&self, name: &CStr) -> Result<Buffer, Failure> {
        Out::take(|data, length| {
            // SAFETY: as in `get_chunk`; `name` is a C string.
            unsafe { (self.functions.get_manifest)(self.raw.as_ptr(), name.as_ptr(), data, length) }
        })
    }

    pub fn delete_manifest(&self, name: &CStr) -> i32 {
        // SAFETY: the handle is open; `name` is a C string.
        unsafe { (self.functions.delete_manifest)(self.raw.as_ptr(), name.as_ptr()) }
    }

    /// `None` when the table is of version 1. `hashes` holds whole hashes of `hash_len` bytes, back to back.
    pub fn prefetch_chunks(&self, hashes: &[u8], hash_len: usize) -> Option<i32> {
        assert!(hash_len > 0 && hashes.len().is_multiple_of(hash_len));
        let prefetch_chunks = self.functions.prefetch_chunks?;
        let count = hashes.len() / hash_len;
        // SAFETY: the handle is open; there are `count` hashes of that length.
        Some(unsafe { prefetch_chunks(self.raw.as_ptr(), hashes.as_ptr(), hash_len, count) })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and nobody else has it.
        unsafe { (self.functions.close)(self.raw.as_ptr()) }
    }
}

/// The variables a get writes to, preset so that it shows whether it did.
struct Out;

/// Its address says that a get did not touch the variable.
static UNTOUCHED: u8 = 0;

impl Out {
    fn take(get: impl FnOnce(*mut *mut u8, *mut usize) -> c_int) -> Result<Buffer, Failure> {
        let untouched = (&raw const UNTOUCHED).cast_mut();
        let (mut data, mut length) = (untouched, usize::MAX);
        let code = get(&mut data, &mut length);
        if code != 0 {
            let handed_out = data != untouched && !data.is_null();
            return Err(if handed_out { Failure::HandedOut { code } } else { Failure::Code(code) });
        }
        if data == untouched || length == usize::MAX || (data.is_null() && length > 0) {
            return Err(Failure::NoBuffer);
        }
        Ok(Buffer { data, length })
    }
}

/// Why a get gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Code(i32),
    /// It failed, and still set the pointer.
    HandedOut {
        code: i32,
    },
    /// It succeeded, and set no pointer or no length.
    NoBuffer,
}

impl Failure {
    /// A failure as it should be: a code below 0 and nothing handed out.
    pub fn is_proper(self) -> bool {
        matches!(self, Failure::Code(code) if code < 0)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Code(code) => write!(f, "{code}"),
            Failure::HandedOut { code } => write!(f, "{code}, with a pointer handed out all the same"),
            Failure::NoBuffer => f.write_str("0, with no buffer handed out"),
        }
    }
}

// ---------------------------------------------------------------- buffers

/// What a get handed out; `free`d when dropped.
pub struct Buffer {
    /// NULL only when `length` is 0.
    data: *mut u8,
    length: usize,
}

// SAFETY: the bytes belong to the caller alone (KVS-MEM-1), and `free` may be called on any thread.
unsafe impl Send for Buffer {}

impl Buffer {
    pub fn is_null(&self) -> bool {
        self.data.is_null()
    }

    pub fn address(&self) -> usize {
        self.data as usize
    }

    /// How many bytes the C library's heap says this buffer has room for; `None` where it does not tell.
    pub fn heap_size_bytes(&self) -> Option<usize> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        // SAFETY: KVS-MEM-1: the pointer came from malloc (or is NULL, which is allowed).
        return Some(unsafe { libc::malloc_usable_size(self.data.cast()) });
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        return None;
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if self.length == 0 {
            return &[];
        }
        // SAFETY: a get that succeeded says that there are so many bytes, ours alone, until they are freed (KVS-MEM-1).
        unsafe { std::slice::from_raw_parts(self.data, self.length) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        if self.length == 0 {
            return &mut [];
        }
        // SAFETY: as in `deref`.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.length) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: KVS-MEM-1: it came from malloc and is freed once, here. NULL is allowed.
        unsafe { libc::free(self.data.cast()) }
    }
}

// ---------------------------------------------------------------- the process

/// Forks; the child runs `errand` and ends with the code it returns. Gives the child's process id.
pub fn fork(errand: impl FnOnce() -> u8) -> std::io::Result<i32> {
    // SAFETY: the C library makes malloc usable in the child, and the errand uses only what an engine that forks would;
    // whatever goes wrong in the child shows in how it ends.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()),
        0 => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(errand)).unwrap_or(101);
            // SAFETY: ends the child without running what the parent registered for its own end.
            unsafe { libc::_exit(code.into()) }
        }
        child => Ok(child),
    }
}

/// The bytes of the C heap that are in use, where the C library tells.
pub fn heap_in_use_bytes() -> Option<u64> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: takes nothing and only reads the heap's own counters.
        let info = unsafe { libc::mallinfo2() };
        Some(info.uordblks as u64 + info.hblkhd as u64)
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    None
}
