//! The built plugin, loaded as an engine loads it.

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::PathBuf;
use std::ptr;
use std::sync::OnceLock;

use libloading::os::unix::{Library, Symbol};

use crate::server::KEY;

#[repr(C)]
pub struct Table {
    pub version: u32,
    pub open: unsafe extern "C" fn(*const c_char) -> *mut c_void,
    pub close: unsafe extern "C" fn(*mut c_void),
    pub put_chunk: unsafe extern "C" fn(*mut c_void, *const u8, usize, *const u8, usize) -> c_int,
    pub get_chunk: unsafe extern "C" fn(*mut c_void, *const u8, usize, *mut *mut u8, *mut usize) -> c_int,
    pub put_manifest: unsafe extern "C" fn(*mut c_void, *const c_char, *const u8, usize) -> c_int,
    pub get_manifest: unsafe extern "C" fn(*mut c_void, *const c_char, *mut *mut u8, *mut usize) -> c_int,
    pub delete_manifest: unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int,
    pub prefetch_chunks: unsafe extern "C" fn(*mut c_void, *const u8, usize, usize) -> c_int,
}

pub fn path() -> PathBuf {
    let own = std::env::current_exe().expect("this test has a path");
    let name = format!("{}kv_store_memkv{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    own.parent().expect("it lies in deps").join(name)
}

/// The table of the library of this build. The environment that stores are opened with is set on the way.
pub fn table() -> &'static Table {
    static TABLE: OnceLock<&'static Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        // SAFETY: the first thing that every test does; nothing else in this process sets variables, and what reads them
        // meanwhile does so under the same lock of std.
        unsafe {
            std::env::set_var("MEMKV_AUTH_KEY", KEY);
            for (name, value) in [("MEMKV_TIMEOUT_MS", "4000"), ("MEMKV_LOG", "off")] {
                if std::env::var_os(name).is_none() {
                    std::env::set_var(name, value);
                }
            }
        }
        // SAFETY: the library is this package's own; its symbol has this type, its table is static, and it is never
        // unloaded.
        unsafe {
            let library = Library::new(path()).expect("the library of this build");
            let entry: Symbol<unsafe extern "C" fn() -> *const Table> =
                library.get(b"kv_store_get_vtable\0").expect("its symbol");
            let table = entry();
            std::mem::forget(library);
            &*table
        }
    })
}

/// An open store.
pub struct Store {
    pub handle: *mut c_void,
}

// SAFETY: the interface says that any number of threads may use a handle at once.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    pub fn open(uri: &str) -> Self {
        Self::try_open(uri).expect("the store opens")
    }

    pub fn try_open(uri: &str) -> Option<Self> {
        let uri = CString::new(uri).expect("no zero byte");
        // SAFETY: the string is good for the call.
        let handle = unsafe { (table().open)(uri.as_ptr()) };
        (!handle.is_null()).then_some(Self { handle })
    }

    pub fn put(&self, hash: &[u8], data: &[u8]) -> c_int {
        // SAFETY: pointers and lengths belong together; the handle came from open.
        unsafe { (table().put_chunk)(self.handle, hash.as_ptr(), hash.len(), data.as_ptr(), data.len()) }
    }

    pub fn get(&self, hash: &[u8]) -> Result<Vec<u8>, c_int> {
        // SAFETY: as for `put`.
        taken(|data, len| unsafe { (table().get_chunk)(self.handle, hash.as_ptr(), hash.len(), data, len) })
    }

    pub fn put_manifest(&self, name: &str, blob: &[u8]) -> c_int {
        let name = CString::new(name).expect("no zero byte");
        // SAFETY: as for `put`.
        unsafe { (table().put_manifest)(self.handle, name.as_ptr(), blob.as_ptr(), blob.len()) }
    }

    pub fn manifest(&self, name: &str) -> Result<Vec<u8>, c_int> {
        let name = CString::new(name).expect("no zero byte");
        // SAFETY: as for `put`.
        taken(|data, len| unsafe { (table().get_manifest)(self.handle, name.as_ptr(), data, len) })
    }

    pub fn delete_manifest(&self, name: &str) -> c_int {
        let name = CString::new(name).expect("no zero byte");
        // SAFETY: as for `put`.
        unsafe { (table().delete_manifest)(self.handle, name.as_ptr()) }
    }

    pub fn prefetch(&self, hashes: &[Vec<u8>]) -> c_int {
        let hash_len = hashes.first().map_or(8, Vec::len);
        let joined = hashes.concat();
        // SAFETY: as for `put`.
        unsafe { (table().prefetch_chunks)(self.handle, joined.as_ptr(), hash_len, hashes.len()) }
    }

    pub fn close(&self) {
        // SAFETY: the handle came from open; a closed one may be closed again.
        unsafe { (table().close)(self.handle) }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// A buffer that a call hands out, copied and freed.
fn taken(call: impl FnOnce(*mut *mut u8, *mut usize) -> c_int) -> Result<Vec<u8>, c_int> {
    let (mut data, mut len) = (ptr::null_mut(), usize::MAX);
    match call(&mut data, &mut len) {
        0 => {
            assert!(!data.is_null());
            // SAFETY: a call that succeeds hands out a buffer of malloc with this many bytes, which is now ours.
            unsafe {
                let bytes = std::slice::from_raw_parts(data, len).to_vec();
                libc::free(data.cast());
                Ok(bytes)
            }
        }
        code => {
            assert!(code < 0);
            assert!(data.is_null() && len == usize::MAX, "a failure hands nothing out");
            Err(code)
        }
    }
}
