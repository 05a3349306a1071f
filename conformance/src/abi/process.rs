//! A second process with a handle of its own, driven over a socket by the case that started it.
//!
//! A request is one byte for the function, two lengths (u32, little-endian) and so many bytes of two arguments; a reply
//! is the code (i32), a length and the bytes. The other process sends one reply unasked, once it has opened the store.

use std::ffi::{CStr, CString};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::{Mutex, PoisonError};

use super::store::Store;
use super::versions;
use crate::case::{Outcome, Stop};
use crate::child;
use crate::ffi::{Failure, Handle, Library};
use crate::ticket::{AbiTarget, Ticket};

/// Longer arguments than any case has are a broken pipe, not a reason to reserve memory.
const ARGUMENT_SIZE_BYTES_MAX: u32 = 256 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Function {
    PutChunk = 1,
    GetChunk,
    PutManifest,
    GetManifest,
    DeleteManifest,
    /// Publishes versions of a session until it is killed.
    PublishVersions,
    /// Closes the handle and ends the process as programs end.
    Close,
}

impl Function {
    const ALL: [Function; 7] = [
        Function::PutChunk,
        Function::GetChunk,
        Function::PutManifest,
        Function::GetManifest,
        Function::DeleteManifest,
        Function::PublishVersions,
        Function::Close,
    ];

    fn from_code(code: u8) -> Option<Function> {
        Function::ALL.into_iter().find(|function| *function as u8 == code)
    }
}

// ---------------------------------------------------------------- this process

/// The other process, seen from the case. Killed when dropped.
pub struct Process {
    child: Child,
    socket: Mutex<UnixStream>,
}

impl Process {
    pub fn start(ticket: Ticket, stdout: Option<std::fs::File>) -> Outcome<Process> {
        let failed = |error: io::Error| Stop::Failed(format!("cannot start another process: {error}"));
        let (child, socket) = child::start_helper(&ticket, stdout).map_err(failed)?;
        let process = Process { child, socket: Mutex::new(socket) };
        match process.reply() {
            Ok((0, _)) => Ok(process),
            Ok(_) => Err(Stop::Failed("open returned NULL in another process".to_owned())),
            Err(error) => {
                Err(Stop::Failed(format!("another process ended while it opened the store: {error}")))
            }
        }
    }

    /// Lets it publish versions of a session until it is killed; nothing else can be asked of it then.
    pub fn publish_versions(&self, name: &CStr) -> Outcome {
        let sent = self.send(Function::PublishVersions, name.to_bytes(), &[]);
        sent.map_err(|error| Stop::Failed(format!("another process ended: {error}")))
    }

    /// Kills it where it stands.
    pub fn kill(mut self) -> Outcome {
        self.end().map_err(|error| Stop::Failed(format!("cannot kill another process: {error}")))
    }

    /// Lets it close its handle and end.
    pub fn close(mut self) -> Outcome {
        let ended = self.send(Function::Close, &[], &[]).and_then(|()| self.child.wait());
        match ended {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Stop::Failed(format!("another process ended with {status} after close"))),
            Err(error) => Err(Stop::Failed(format!("another process ended early: {error}"))),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }

    fn call(&self, function: Function, first: &[u8], second: &[u8]) -> (i32, Vec<u8>) {
        let answer = self.send(function, first, second).and_then(|()| self.reply());
        answer.unwrap_or_else(|error| {
            eprintln!("another process ended during {function:?}: {error}");
            (i32::MAX, Vec::new())
        })
    }

    fn send(&self, function: Function, first: &[u8], second: &[u8]) -> io::Result<()> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let mut head = vec![function as u8];
        head.extend_from_slice(&(first.len() as u32).to_le_bytes());
        head.extend_from_slice(&(second.len() as u32).to_le_bytes());
        socket.write_all(&head)?;
        socket.write_all(first)?;
        socket.write_all(second)
    }

    fn reply(&self) -> io::Result<(i32, Vec<u8>)> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let mut code = [0; 4];
        socket.read_exact(&mut code)?;
        let length = read_length(&mut *socket)?;
        Ok((i32::from_le_bytes(code), read_bytes(&mut *socket, length)?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.end();
    }
}

fn value((code, bytes): (i32, Vec<u8>)) -> Result<Vec<u8>, Failure> {
    if code == 0 { Ok(bytes) } else { Err(Failure::Code(code)) }
}

impl Store for Process {
    type Bytes = Vec<u8>;

    fn put_chunk(&self, hash: &[u8], data: &[u8]) -> i32 {
        self.call(Function::PutChunk, hash, data).0
    }

    fn get_chunk(&self, hash: &[u8]) -> Result<Vec<u8>, Failure> {
        value(self.call(Function::GetChunk, hash, &[]))
    }

    fn put_manifest(&self, name: &CStr, data: &[u8]) -> i32 {
        self.call(Function::PutManifest, name.to_bytes(), data).0
    }

    fn get_manifest(&self, name: &CStr) -> Result<Vec<u8>, Failure> {
        value(self.call(Function::GetManifest, name.to_bytes(), &[]))
    }

    fn delete_manifest(&self, name: &CStr) -> i32 {
        self.call(Function::DeleteManifest, name.to_bytes(), &[]).0
    }
}

// ---------------------------------------------------------------- the other process

/// Serves one handle until the socket ends.
pub fn serve(
    target: &AbiTarget,
    mut requests: BufReader<UnixStream>,
    mut replies: UnixStream,
) -> io::Result<()> {
    let uri = CString::new(target.uri.as_str())?;
    let opened = Library::load(&target.library).ok().and_then(|library| library.open(&uri));
    let Some(handle) = opened else {
        return write_reply(&mut replies, -1, &[]);
    };
    write_reply(&mut replies, 0, &[])?;
    loop {
        let mut function = [0];
        if requests.read(&mut function)? == 0 {
            return Ok(());
        }
        let lengths = (read_length(&mut requests)?, read_length(&mut requests)?);
        let first = read_bytes(&mut requests, lengths.0)?;
        let second = read_bytes(&mut requests, lengths.1)?;
        let Some(function) = Function::from_code(function[0]).filter(|f| *f != Function::Close) else {
            return Ok(());
        };
        let (code, bytes) = perform(&handle, function, &first, &second)?;
        write_reply(&mut replies, code, &bytes)?;
    }
}

fn perform(handle: &Handle, function: Function, first: &[u8], second: &[u8]) -> io::Result<(i32, Vec<u8>)> {
    let name = || CString::new(first).map_err(io::Error::from);
    let got = |got: Result<crate::ffi::Buffer, Failure>| match got {
        Ok(bytes) => (0, bytes.to_vec()),
        Err(Failure::Code(code)) => (code, Vec::new()),
        Err(Failure::HandedOut { .. } | Failure::NoBuffer) => (i32::MAX, Vec::new()),
    };
    Ok(match function {
        Function::PutChunk => (handle.put_chunk(first, second), Vec::new()),
        Function::GetChunk => got(handle.get_chunk(first)),
        Function::PutManifest => (handle.put_manifest(&name()?, second), Vec::new()),
        Function::GetManifest => got(handle.get_manifest(&name()?)),
        Function::DeleteManifest => (handle.delete_manifest(&name()?), Vec::new()),
        Function::PublishVersions => (versions::publish_for_ever(handle, &name()?), Vec::new()),
        Function::Close => (0, Vec::new()),
    })
}

fn write_reply(socket: &mut UnixStream, code: i32, bytes: &[u8]) -> io::Result<()> {
    socket.write_all(&code.to_le_bytes())?;
    socket.write_all(&(bytes.len() as u32).to_le_bytes())?;
    socket.write_all(bytes)
}

fn read_length(socket: &mut impl Read) -> io::Result<u32> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    Ok(u32::from_le_bytes(length))
}

fn read_bytes(socket: &mut impl Read, length: u32) -> io::Result<Vec<u8>> {
    if length > ARGUMENT_SIZE_BYTES_MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut bytes = vec![0; length as usize];
    socket.read_exact(&mut bytes)?;
    Ok(bytes)
}
