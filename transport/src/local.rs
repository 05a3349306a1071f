//! Frames over a Unix socket, between processes of one host; files ride beside them.
//!
//! Owns the socket file, the check of who is at the other end, and the files that came and were not yet taken. The frames are
//! those of TCP, set-up and all. Invariants: a peer of another user than the server's, root, or a member of
//! the group that the server allows (as its group or one of its supplementary ones), is refused before a byte of it is read; files that come wait in the order of coming, at most
//! [`FILES_MAX`] of them, and one more ends the connection.
//!
//! Files belong to the frame that the bytes they came with belong to, or to a later one: whoever takes them goes by
//! their order alone. The path of a socket is checked by nobody: what is behind it proves itself by the key.

mod groups;

use std::collections::VecDeque;
use std::fs::Metadata;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use memkv_wire::limits::REGIONS_MAX;
use memkv_wire::mac::{Key, KeyRing};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::buf::BufPool;
use crate::error::{SetupError, TransportError};
use crate::net::{self, Reader, Writer};
use crate::session::{ClientInfo, ClientTerms, SETUP_TIMEOUT, ServerInfo, ServerTerms, SetupGate};
use crate::stream;

/// The longest path of a socket: what every system's addresses have room for.
pub const PATH_SIZE_BYTES_MAX: usize = 100;
/// Files that came and wait to be taken.
pub const FILES_MAX: usize = REGIONS_MAX as usize;

// ---------------------------------------------------------------- the socket file

/// A socket that clients of the same host connect to; its file is removed with it.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
    /// Which file was made there: another's is left alone.
    file: FileId,
    /// Members of this group may connect, too.
    group: Option<u32>,
}

impl Listener {
    /// Listens at a path. A socket that nobody listens on any more is replaced; anything else that is there stays.
    pub fn bind(path: &Path, group: Option<u32>) -> io::Result<Listener> {
        if path.as_os_str().len() > PATH_SIZE_BYTES_MAX {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        remove_stale(path)?;
        let listener = UnixListener::bind(path)?;
        let file = FileId::of(&std::fs::symlink_metadata(path)?);
        let listener = Listener { listener, path: path.to_owned(), file, group };
        // Whoever connects before this is checked all the same.
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        std::os::unix::fs::chown(path, None, group)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        Ok(listener)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next client that may be here, for any runtime. Dropping the future loses none.
    pub async fn accept(&self) -> io::Result<Socket> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let peer = stream.peer_cred()?;
            let own = rustix::process::geteuid().as_raw();
            if peer.uid() == own || peer.uid() == 0 || self.is_member(&stream, peer.gid()) {
                return stream.into_std().map(Socket);
            }
        }
    }

    /// Whether the peer is in the group that may connect. A system that does not tell all of its groups counts the first alone.
    fn is_member(&self, peer: &UnixStream, group: u32) -> bool {
        self.group.is_some_and(|allowed| {
            allowed == group || groups::of_peer(peer.as_fd()).is_ok_and(|groups| groups.contains(&allowed))
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let found = std::fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| FileId::of(&found) == self.file) {
            // Left behind, it is replaced by the next server.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Tells a file from every other for as long as someone has it open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(found: &Metadata) -> FileId {
        FileId { device: found.dev(), inode: found.ino() }
    }
}

/// Removes the socket of a process that is gone.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            let kept = "there is something that is no socket, and it is left alone";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, kept));
        }
        Ok(_) => {}
    }
    // A socket of another kind is never connected and never waits: with a process behind the path the kinds do not fit.
    match UnixDatagram::unbound()?.connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        Ok(()) | Err(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process listens there, perhaps another server",
        )),
    }
}

// ---------------------------------------------------------------- connections

/// Connects to a server's socket. Payloads that are received take their memory from `pool`.
pub async fn connect(
    path: &str,
    key: &Key,
    terms: &ClientTerms,
    pool: BufPool,
) -> Result<(Reader, Writer, ServerInfo), TransportError> {
    let connecting = timeout(SETUP_TIMEOUT, UnixStream::connect(path));
    let mut socket = Halves::new(connecting.await.map_err(|_| SetupError::TimedOut)??);
    let (channel, server) = stream::connect(&mut socket, key, terms).await?;
    let (read, write) = socket.split();
    let (reader, writer) =
        net::halves(net::ReadHalf::Local(read), net::WriteHalf::Local(write), channel, pool);
    Ok((reader, writer, server))
}

/// Accepts a client, in the runtime that it is to stay in. With no place in the gate the socket is closed at once. The last one are the files it sends.
pub async fn accept(
    socket: Socket,
    keys: &KeyRing,
    terms: &ServerTerms,
    gate: &SetupGate,
    pool: BufPool,
) -> Result<(Reader, Writer, ClientInfo, Files), TransportError> {
    let permit = gate.enter()?;
    let mut socket = Halves::new(UnixStream::from_std(socket.0)?);
    let (channel, client) = stream::accept(&mut socket, keys, terms, permit).await?;
    let files = socket.read.files.clone();
    let (read, write) = socket.split();
    let (reader, writer) =
        net::halves(net::ReadHalf::Local(read), net::WriteHalf::Local(write), channel, pool);
    Ok((reader, writer, client, files))
}

/// The socket of a client that may be here.
#[derive(Debug)]
pub struct Socket(std::os::unix::net::UnixStream);

/// A connected socket.
#[derive(Debug)]
struct Halves {
    read: ReadHalf,
    write: WriteHalf,
}

impl Halves {
    fn new(stream: UnixStream) -> Halves {
        let stream = Arc::new(stream);
        Halves {
            read: ReadHalf { stream: Arc::clone(&stream), takes_files: false, files: Files::default() },
            write: WriteHalf { stream, files: Vec::new() },
        }
    }

    fn split(self) -> (ReadHalf, WriteHalf) {
        (self.read, self.write)
    }
}

/// Files that came beside the bytes, in the order of coming. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Files(Arc<Mutex<VecDeque<OwnedFd>>>);

impl Files {
    /// The one that came first.
    pub fn take(&self) -> Option<OwnedFd> {
        self.lock().pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The half that receives.
#[derive(Debug)]
pub struct ReadHalf {
    stream: Arc<UnixStream>,
    /// A server takes none before it answered a `Connect` that was made with the key: the kernel drops what comes. To close a file may
    /// block for as long as whoever serves it likes.
    takes_files: bool,
    files: Files,
}

impl ReadHalf {
    fn receive(&self, into: &mut ReadBuf<'_>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
        let space = if self.takes_files { &mut space[..] } else { &mut [] };
        let mut control = RecvAncillaryBuffer::new(space);
        let mut slices = [IoSliceMut::new(into.initialize_unfilled())];
        #[cfg(target_os = "linux")]
        let flags = RecvFlags::CMSG_CLOEXEC;
        #[cfg(not(target_os = "linux"))]
        let flags = RecvFlags::empty();
        let received = rustix::net::recvmsg(&*self.stream, &mut slices, &mut control, flags)?;
        let mut files = self.files.lock();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(came) = message {
                files.extend(came.inspect(close_on_exec));
            }
        }
        // What was cut off the kernel has closed; the order is lost with it.
        if files.len() > FILES_MAX || received.flags.contains(ReturnFlags::CTRUNC) {
            files.clear();
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer sent too many files"));
        }
        drop(files);
        into.advance(received.bytes);
        Ok(())
    }
}

/// Where receiving does not do it at once.
fn close_on_exec(file: &OwnedFd) {
    if !cfg!(target_os = "linux") {
        // An error leaves a file open in a child that nobody makes here.
        let _ = rustix::io::fcntl_setfd(file, rustix::io::FdFlags::CLOEXEC);
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.stream.try_io(Interest::READABLE, || self.receive(into)) {
                Err(error) if is_passing(&error) => {}
                received => return Poll::Ready(received),
            }
        }
    }
}

/// The half that sends.
#[derive(Debug)]
pub struct WriteHalf {
    stream: Arc<UnixStream>,
    /// To go with the next bytes.
    files: Vec<OwnedFd>,
}

impl WriteHalf {
    /// Sends these files with the next bytes that are written.
    pub fn attach(&mut self, files: impl IntoIterator<Item = OwnedFd>) {
        self.files.extend(files);
    }

    fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files: Vec<BorrowedFd<'_>> = self.files.iter().map(AsFd::as_fd).collect();
        if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        #[cfg(target_os = "linux")]
        let flags = SendFlags::NOSIGNAL;
        #[cfg(not(target_os = "linux"))]
        let flags = SendFlags::empty();
        Ok(rustix::net::sendmsg(&*self.stream, slices, &mut control, flags)?)
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_io(Interest::WRITABLE, || self.send(slices)) {
                Err(error) if is_passing(&error) => {}
                sent => {
                    // They went with the first byte.
                    self.files.clear();
                    return Poll::Ready(sent);
                }
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match rustix::net::shutdown(&*self.stream, rustix::net::Shutdown::Write) {
            // The peer is gone already.
            Ok(()) | Err(Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(errno) => Poll::Ready(Err(errno.into())),
        }
    }
}

/// Dropping this half alone tells the peer that nothing more comes.
impl Drop for WriteHalf {
    fn drop(&mut self) {
        // The peer may be gone already.
        let _ = rustix::net::shutdown(&*self.stream, rustix::net::Shutdown::Write);
    }
}

/// Whether to wait, or to try again at once.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl AsyncRead for Halves {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(context, into)
    }
}

impl AsyncWrite for Halves {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // The first files may come together with the confirmation, which follows the answer.
        self.read.takes_files = true;
        Pin::new(&mut self.write).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(context)
    }
}
