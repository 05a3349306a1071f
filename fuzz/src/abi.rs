//! The C interface: any sequence of calls, on any number of handles, over a real server in this process.
//!
//! Held against a model: a chunk that was put is read back as it was, on every handle after the next flush; a
//! manifest is the one that was put last.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;

use arbitrary::{Result, Unstructured};
use kv_store_memkv::ffi::{kv_store_get_vtable, kv_store_v1, kv_store_v1_vtable};
use memkv_server::config::{Environment, File, Overrides, Settings};

const CALLS_MAX: usize = 40;
const HANDLES_MAX: usize = 3;
const KEY: &str = "0303030303030303030303030303030303030303030303030303030303030303";

/// The address of the server, and how many inputs used it: each works in a namespace of its own.
static SERVER: Mutex<Option<(String, u64)>> = Mutex::new(None);

pub fn run(data: &[u8]) {
    let (address, number) = server();
    let mut calls = Calls::new(format!("memkv://{address}/fuzz-{number}"));
    let mut u = Unstructured::new(data);
    for _ in 0..CALLS_MAX {
        // Bytes that end draw nothing more.
        if u.is_empty() || calls.call(&mut u).is_err() {
            break;
        }
    }
    calls.end();
}

fn server() -> (String, u64) {
    let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    let (address, number) = server.take().unwrap_or_else(|| (start(), 0));
    *server = Some((address.clone(), number + 1));
    (address, number)
}

fn start() -> String {
    // Free a moment ago, and nobody else is told of it.
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let address = format!("127.0.0.1:{port}");
    let text = format!(
        "network:\n  address: {address}\n  auth_key: {KEY}\n  local: off\nstorage:\n  mode: memory\n  \
         capacity: 256MiB\nlog:\n  level: error\n  file: /dev/null\n"
    );
    let file = File::parse(&text, Path::new("fuzz.yaml")).expect("the configuration is right");
    let settings = Settings::resolve(file, Overrides::default(), &Environment::default()).expect("so it is");
    // It ends with the process.
    std::thread::spawn(|| memkv_server::start::run(settings, true).expect("the server runs"));
    // SAFETY: no other thread of this process reads or writes the environment: the server read what it needs before.
    unsafe { std::env::set_var("MEMKV_AUTH_KEY", KEY) };
    // SAFETY: as above.
    unsafe { std::env::set_var("MEMKV_LOG", "off") };
    while std::net::TcpStream::connect(&address).is_err() {
        std::thread::yield_now();
    }
    address
}

struct Calls {
    table: &'static kv_store_v1_vtable,
    uri: CString,
    handles: Vec<*mut kv_store_v1>,
    /// By hash: the bytes, and which handle has them buffered at most.
    chunks: BTreeMap<Vec<u8>, Vec<u8>>,
    manifests: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Calls {
    fn new(uri: String) -> Calls {
        // SAFETY: the table is static.
        let table = unsafe { &*kv_store_get_vtable() };
        let uri = CString::new(uri).expect("a URI has no NUL");
        Calls { table, uri, handles: Vec::new(), chunks: BTreeMap::new(), manifests: BTreeMap::new() }
    }

    fn call(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        if self.handles.is_empty() {
            self.open();
        }
        let handle = *u.choose(&self.handles)?;
        let hash = hash(u)?;
        let name =
            CString::new(vec![b'a' + u.int_in_range(0..=2)?; u.int_in_range(0..=3)?]).unwrap_or_default();
        match u.int_in_range(0..=9u8)? {
            0 if self.handles.len() < HANDLES_MAX => self.open(),
            1 => {
                self.handles.retain(|open| *open != handle);
                // SAFETY: it is open, and closed once.
                unsafe { (self.table.close)(handle) };
            }
            2..=3 => self.put(handle, &hash),
            4..=5 => self.get(handle, &hash),
            6 => {
                let body = vec![9; usize::from(u.arbitrary::<u16>()?)];
                // SAFETY: the handle is open, and the bytes stay during the call.
                let code =
                    unsafe { (self.table.put_manifest)(handle, name.as_ptr(), body.as_ptr(), body.len()) };
                assert_eq!(code == 0, !name.is_empty(), "put_manifest: {code}");
                if code == 0 {
                    self.manifests.insert(name.into_bytes(), body);
                }
            }
            7 => self.get_manifest(handle, &name),
            8 => {
                // SAFETY: the handle is open, and the name stays during the call.
                let code = unsafe { (self.table.delete_manifest)(handle, name.as_ptr()) };
                assert_eq!(
                    code == 0,
                    self.manifests.remove(name.as_bytes()).is_some(),
                    "delete_manifest: {code}"
                );
            }
            _ => {
                let count = u.int_in_range(0..=4)?;
                let hashes = hash.repeat(count);
                // SAFETY: the handle is open, and the bytes stay during the call.
                unsafe { (self.table.prefetch_chunks)(handle, hashes.as_ptr(), hash.len(), count) };
            }
        }
        Ok(())
    }

    fn open(&mut self) {
        // SAFETY: a C string.
        let handle = unsafe { (self.table.open)(self.uri.as_ptr()) };
        assert!(!handle.is_null(), "the store cannot be opened");
        self.handles.push(handle);
    }

    fn put(&mut self, handle: *mut kv_store_v1, hash: &[u8]) {
        let data = content(hash);
        // SAFETY: the handle is open, and the bytes stay during the call.
        let code =
            unsafe { (self.table.put_chunk)(handle, hash.as_ptr(), hash.len(), data.as_ptr(), data.len()) };
        assert_eq!(
            code == 0,
            (1..=64).contains(&hash.len()),
            "put_chunk with {} bytes of hash: {code}",
            hash.len()
        );
        if code == 0 {
            self.chunks.insert(hash.to_vec(), data);
        }
    }

    /// What is read is what was put; what was not put is a miss.
    fn get(&self, handle: *mut kv_store_v1, hash: &[u8]) {
        let (mut data, mut length) = (std::ptr::null_mut(), 0);
        // SAFETY: the handle is open, and the two variables are our own.
        let code =
            unsafe { (self.table.get_chunk)(handle, hash.as_ptr(), hash.len(), &mut data, &mut length) };
        let found = take(code, data, length);
        match self.chunks.get(hash) {
            Some(stored) => assert!(found.is_none_or(|found| found == *stored), "get_chunk gave other bytes"),
            None => assert!(found.is_none(), "get_chunk gave what was never put"),
        }
    }

    fn get_manifest(&self, handle: *mut kv_store_v1, name: &CString) {
        let (mut data, mut length) = (std::ptr::null_mut(), 0);
        // SAFETY: the handle is open, and the two variables are our own.
        let code = unsafe { (self.table.get_manifest)(handle, name.as_ptr(), &mut data, &mut length) };
        assert_eq!(
            take(code, data, length).as_ref(),
            self.manifests.get(name.as_bytes()),
            "get_manifest: {code}"
        );
    }

    /// After a flush by each handle, every handle has every chunk.
    fn end(mut self) {
        if self.handles.is_empty() {
            self.open();
        }
        for handle in self.handles.clone() {
            // SAFETY: the handle is open, and the name and the bytes are static.
            let code = unsafe { (self.table.put_manifest)(handle, c"flush".as_ptr(), std::ptr::null(), 0) };
            assert_eq!(code, 0, "a flush");
        }
        for handle in self.handles.clone() {
            for (hash, stored) in &self.chunks {
                let (mut data, mut length) = (std::ptr::null_mut(), 0);
                // SAFETY: the handle is open, and the two variables are our own.
                let code = unsafe {
                    (self.table.get_chunk)(handle, hash.as_ptr(), hash.len(), &mut data, &mut length)
                };
                assert_eq!(
                    take(code, data, length).as_ref(),
                    Some(stored),
                    "get_chunk after a flush: {code}"
                );
            }
            // SAFETY: it is open, and closed once.
            unsafe { (self.table.close)(handle) };
        }
    }
}

/// A hash of a length that is usual, or of none, or too long.
fn hash(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let length = *u.choose(&[8, 8, 32, 1, 64, 0, 65])?;
    Ok(vec![u.int_in_range(0..=5)?; length])
}

/// The bytes under a hash, always the same.
fn content(hash: &[u8]) -> Vec<u8> {
    let seed = hash.first().copied().unwrap_or(0);
    vec![seed; 1 + usize::from(seed) * 3000 + hash.len()]
}

/// What a get handed out, freed.
fn take(code: i32, data: *mut u8, length: usize) -> Option<Vec<u8>> {
    if code != 0 {
        assert!(data.is_null(), "a get that failed handed something out");
        return None;
    }
    assert!(!data.is_null());
    // SAFETY: a get that succeeded hands out so many bytes from malloc, which are ours.
    let bytes = unsafe { std::slice::from_raw_parts(data, length) }.to_vec();
    // SAFETY: as above; it is freed once.
    unsafe { libc::free(data.cast()) };
    Some(bytes)
}
