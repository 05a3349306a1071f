//! The boundary: the table, its functions, and the handle behind the pointer.
//!
//! A handle is a small shell that is never freed, so that using one after `close` finds a closed shell and not somebody
//! else's memory. Shells are used again, but only after [`SHELLS_CLOSED_MIN`] others were closed. A shell knows the
//! process that opened it: in a child after `fork` the store's thread does not exist and its locks may be held for
//! good, so nothing of it is touched there.

#![expect(unsafe_code, reason = "C calls these functions and passes pointers")]
// The names are those of the C interface.
#![allow(non_camel_case_types)]

use std::collections::VecDeque;
use std::ffi::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use memkv_wire::limits::{MANIFEST_NAME_SIZE_BYTES_MAX, MANIFEST_SIZE_BYTES_MAX};

use crate::buffer::{HASH_SIZE_BYTES_MAX, Hash};
use crate::cbuf::{self, Malloced, Out};
use crate::code::{Failure, KV_STORE_INTERNAL, KV_STORE_OK};
use crate::log::{self, Level};
use crate::store::{CHUNK_SIZE_BYTES_MAX, PREFETCH_CHUNKS_MAX, Store};

/// A URI longer than this is none.
const URI_SIZE_BYTES_MAX: usize = 4096;
const NAME_SIZE_BYTES_MAX: usize = MANIFEST_NAME_SIZE_BYTES_MAX as usize;

/// An open store. It may be used from any number of threads at once. After fork(), a child must open its own: calls with
/// its parent's are answered with KV_STORE_CLOSED.
pub struct kv_store_v1 {
    magic: u64,
    process: AtomicU32,
    store: Mutex<Option<Arc<Store>>>,
}

/// The functions of a store. They answer 0 for success and one of the negative KV_STORE codes for a failure, a miss
/// included. A buffer that one of them hands out comes from malloc; the caller frees it. On failure nothing is handed
/// out. They may be called from any thread, and never throw, unwind or abort.
#[repr(C)]
pub struct kv_store_v1_vtable {
    /// 2: prefetch_chunks is there.
    pub version: u32,
    /// Opens memkv://host:port/namespace with the key in the environment variable MEMKV_AUTH_KEY. NULL on failure; the
    /// reason is written to stderr, unless MEMKV_LOG is "off".
    pub open: unsafe extern "C" fn(uri: *const c_char) -> *mut kv_store_v1,
    /// Writes what is buffered, for a bounded time, and closes. NULL is ignored.
    pub close: unsafe extern "C" fn(store: *mut kv_store_v1),
    /// Puts a chunk of 1 byte to 1 GiB under a hash of 1 to 64 bytes. Putting one that is there changes nothing. It may be
    /// buffered until the next put_manifest; get_chunk on the same store finds it at once.
    pub put_chunk: unsafe extern "C" fn(
        store: *mut kv_store_v1,
        hash: *const u8,
        hash_len: usize,
        data: *const u8,
        len: usize,
    ) -> c_int,
    /// Gets a chunk.
    pub get_chunk: unsafe extern "C" fn(
        store: *mut kv_store_v1,
        hash: *const u8,
        hash_len: usize,
        data: *mut *mut u8,
        len: *mut usize,
    ) -> c_int,
    /// Publishes a manifest of at most 64 MiB under a name of 1 to 1024 bytes, replacing the one that was there. In
    /// MemKV's own format it references exactly the chunks it lists, which then stay as long as it does; one that is neither
    /// stored nor put is KV_STORE_MISSING_CHUNK. Any other manifest is published after every chunk put before it;
    /// an empty one is a flush.
    pub put_manifest: unsafe extern "C" fn(
        store: *mut kv_store_v1,
        name: *const c_char,
        data: *const u8,
        len: usize,
    ) -> c_int,
    /// Gets a manifest.
    pub get_manifest: unsafe extern "C" fn(
        store: *mut kv_store_v1,
        name: *const c_char,
        data: *mut *mut u8,
        len: *mut usize,
    ) -> c_int,
    /// Deletes a manifest. Its chunks stay until their space is needed.
    pub delete_manifest: unsafe extern "C" fn(store: *mut kv_store_v1, name: *const c_char) -> c_int,
    /// Begins to read n chunks together, for get_chunk to find or to wait for: n hashes of hash_len bytes, back to back. A
    /// chunk that is not stored is no failure here.
    pub prefetch_chunks:
        unsafe extern "C" fn(store: *mut kv_store_v1, hashes: *const u8, hash_len: usize, n: usize) -> c_int,
}

static TABLE: kv_store_v1_vtable = kv_store_v1_vtable {
    version: 2,
    open,
    close,
    put_chunk,
    get_chunk,
    put_manifest,
    get_manifest,
    delete_manifest,
    prefetch_chunks,
};

/// The table of this library. It is static: nothing to free.
// SAFETY: the name is the interface's own; no other symbol of this library or of C has it.
#[unsafe(no_mangle)]
pub extern "C" fn kv_store_get_vtable() -> *const kv_store_v1_vtable {
    &raw const TABLE
}

// ---------------------------------------------------------------------------------------------- handles

const MAGIC: u64 = 0x314b_5653_564b_4d45;

/// So many shells stay closed before the oldest of them is used again.
const SHELLS_CLOSED_MIN: usize = 32;

/// Closed shells, the oldest first. Only ever tried, not waited for: in a child it may be held by a thread that is not
/// there.
static CLOSED: Mutex<VecDeque<&'static kv_store_v1>> = Mutex::new(VecDeque::new());

impl kv_store_v1 {
    fn shell(store: Store) -> *mut Self {
        let store = Some(Arc::new(store));
        let oldest = CLOSED.try_lock().ok().and_then(|mut closed| {
            let enough = closed.len() > SHELLS_CLOSED_MIN;
            enough.then(|| closed.pop_front()).flatten()
        });
        if let Some(shell) = oldest
            && let Ok(mut place) = shell.store.try_lock()
        {
            *place = store;
            shell.process.store(std::process::id(), Ordering::Release);
            return ptr::from_ref(shell).cast_mut();
        }
        let process = AtomicU32::new(std::process::id());
        Box::into_raw(Box::new(Self { magic: MAGIC, process, store: Mutex::new(store) }))
    }

    /// The shell behind a pointer, if it is one and belongs to this process.
    ///
    /// # Safety
    /// `handle` is NULL, or was returned by `open`.
    unsafe fn of(handle: *const Self) -> Result<&'static Self, Failure> {
        if handle.is_null() || !handle.is_aligned() {
            return Err(Failure::Invalid("the store is NULL"));
        }
        // SAFETY: `open` made it; shells are never freed, and only their atomics and mutexes change.
        let shell = unsafe { &*handle };
        if shell.magic != MAGIC {
            return Err(Failure::Invalid("not a store"));
        }
        if shell.process.load(Ordering::Acquire) != std::process::id() {
            return Err(Failure::Closed);
        }
        Ok(shell)
    }

    fn store(&self) -> Result<Arc<Store>, Failure> {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.as_ref().map(Arc::clone).ok_or(Failure::Closed)
    }
}

/// Runs a call on a store, and turns whatever comes of it into a code.
///
/// # Safety
/// `handle` is NULL, or was returned by `open`.
unsafe fn call(
    what: &'static str,
    handle: *mut kv_store_v1,
    run: impl FnOnce(&Store) -> Result<(), Failure>,
) -> c_int {
    // SAFETY: passed on from the caller.
    let shell = unsafe { kv_store_v1::of(handle) };
    // Unwind safety: after a panic the store's locks are taken all the same, see `store::lock`.
    let result = catch_unwind(AssertUnwindSafe(|| run(&*shell?.store()?)));
    match result {
        Ok(Ok(())) => KV_STORE_OK,
        Ok(Err(failure)) => {
            let level = if failure == Failure::NotFound { Level::Debug } else { Level::Warn };
            log::line(level, format_args!("{what}: {failure}"));
            failure.code()
        }
        Err(_) => KV_STORE_INTERNAL,
    }
}

/// Runs a call that hands out a buffer.
///
/// # Safety
/// As [`call`] and [`Out::new`].
unsafe fn fetch(
    what: &'static str,
    handle: *mut kv_store_v1,
    data: *mut *mut u8,
    len: *mut usize,
    run: impl FnOnce(&Store) -> Result<Malloced, Failure>,
) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe {
        let out = Out::new(data, len);
        call(what, handle, move |store| {
            out?.give(run(store)?);
            Ok(())
        })
    }
}

// --------------------------------------------------------------------------- the functions of the table
//
// SAFETY, of each: the caller keeps what kv_store_v1.h says. Every pointer is NULL, or good for the length beside it (a
// string: up to its zero) for the duration of the call; a store is NULL or comes from `open`.

unsafe extern "C" fn open(uri: *const c_char) -> *mut kv_store_v1 {
    // SAFETY: see above.
    let uri = unsafe { cbuf::text(uri, URI_SIZE_BYTES_MAX) };
    let opened = catch_unwind(|| {
        let uri = std::str::from_utf8(uri?).map_err(|_| Failure::Invalid("a URI is UTF-8"))?;
        log::listen();
        let opened = Store::open(uri, block_signals);
        if let Err(error) = &opened {
            log::line(Level::Error, format_args!("cannot open {uri}: {error}"));
        }
        Ok::<_, Failure>(kv_store_v1::shell(opened?))
    });
    match opened {
        Ok(Ok(shell)) => shell,
        // Said above, or a URI that cannot be shown.
        Ok(Err(_)) | Err(_) => ptr::null_mut(),
    }
}

unsafe extern "C" fn close(store: *mut kv_store_v1) {
    // SAFETY: see above.
    let Ok(shell) = (unsafe { kv_store_v1::of(store) }) else { return };
    // A panic is reported by its hook, and the caller cannot be told.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let store = shell.store.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The last of the calls under way on other threads drops it.
        if let Some(store) = store {
            store.close();
            if let Ok(mut closed) = CLOSED.try_lock() {
                closed.push_back(shell);
            }
        }
    }));
}

unsafe extern "C" fn put_chunk(
    store: *mut kv_store_v1,
    hash: *const u8,
    hash_len: usize,
    data: *const u8,
    len: usize,
) -> c_int {
    // SAFETY: see above.
    unsafe {
        call("put_chunk", store, |store| {
            let hash = Hash::new(cbuf::bytes(hash, hash_len, HASH_SIZE_BYTES_MAX)?)?;
            store.put_chunk(hash, cbuf::bytes(data, len, CHUNK_SIZE_BYTES_MAX)?)
        })
    }
}

unsafe extern "C" fn get_chunk(
    store: *mut kv_store_v1,
    hash: *const u8,
    hash_len: usize,
    data: *mut *mut u8,
    len: *mut usize,
) -> c_int {
    // SAFETY: see above.
    unsafe {
        fetch("get_chunk", store, data, len, |store| {
            store.get_chunk(Hash::new(cbuf::bytes(hash, hash_len, HASH_SIZE_BYTES_MAX)?)?)
        })
    }
}

unsafe extern "C" fn put_manifest(
    store: *mut kv_store_v1,
    name: *const c_char,
    data: *const u8,
    len: usize,
) -> c_int {
    // SAFETY: see above.
    unsafe {
        call("put_manifest", store, |store| {
            let name = manifest_name(name)?;
            store.put_manifest(name, cbuf::bytes(data, len, MANIFEST_SIZE_BYTES_MAX as usize)?)
        })
    }
}

unsafe extern "C" fn get_manifest(
    store: *mut kv_store_v1,
    name: *const c_char,
    data: *mut *mut u8,
    len: *mut usize,
) -> c_int {
    // SAFETY: see above.
    unsafe { fetch("get_manifest", store, data, len, |store| store.get_manifest(manifest_name(name)?)) }
}

unsafe extern "C" fn delete_manifest(store: *mut kv_store_v1, name: *const c_char) -> c_int {
    // SAFETY: see above.
    unsafe { call("delete_manifest", store, |store| store.delete_manifest(manifest_name(name)?)) }
}

unsafe extern "C" fn prefetch_chunks(
    store: *mut kv_store_v1,
    hashes: *const u8,
    hash_len: usize,
    n: usize,
) -> c_int {
    // SAFETY: see above.
    unsafe {
        call("prefetch_chunks", store, |store| {
            if hash_len == 0 || hash_len > HASH_SIZE_BYTES_MAX || n > PREFETCH_CHUNKS_MAX {
                return Err(Failure::Invalid("a hash has 1 to 64 bytes, and a session not so many chunks"));
            }
            // Both factors are bounded, so the product is.
            store.prefetch_chunks(cbuf::bytes(hashes, hash_len * n, usize::MAX)?, hash_len)
        })
    }
}

/// # Safety
/// As [`cbuf::text`].
unsafe fn manifest_name<'a>(name: *const c_char) -> Result<&'a [u8], Failure> {
    // SAFETY: passed on from the caller.
    let name = unsafe { cbuf::text(name, NAME_SIZE_BYTES_MAX)? };
    if name.is_empty() { Err(Failure::Invalid("a manifest's name is empty")) } else { Ok(name) }
}

/// Keeps the engine's signals away from the store's thread, and SIGPIPE, which a write to a socket that the server closed
/// would raise there, away from the engine.
fn block_signals() {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises the set that it is given, and pthread_sigmask reads it; the mask is this thread's own.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), ptr::null_mut());
    }
}
