//! The supplementary groups of the process at the other end of a Unix socket, as they were when it connected.

#![cfg_attr(target_os = "linux", expect(unsafe_code, reason = "a socket option that fills an array"))]

use std::io;
use std::os::fd::BorrowedFd;

/// Groups that most processes have no more of.
#[cfg(target_os = "linux")]
const USUAL: usize = 64;
/// The kernel lets no process have more.
#[cfg(target_os = "linux")]
const MAX: usize = 65_536;

#[cfg(target_os = "linux")]
pub(super) fn of_peer(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    use std::os::fd::AsRawFd;

    let mut groups = vec![0u32; USUAL];
    loop {
        let mut size_bytes = size_of_val(groups.as_slice()) as libc::socklen_t;
        // SAFETY: the kernel writes at most `size_bytes` bytes, which `groups` has, and then how many these are; any bytes are u32s.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &mut size_bytes,
            )
        };
        if result == 0 {
            groups.truncate(size_bytes as usize / size_of::<u32>());
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || groups.len() == MAX {
            return Err(error);
        }
        groups.resize(MAX, 0);
    }
}

/// Other systems tell a peer's first group alone.
#[cfg(not(target_os = "linux"))]
pub(super) fn of_peer(_socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    Ok(Vec::new())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// This process is its own peer.
    #[test]
    fn a_peers_groups_are_those_of_its_process() {
        let (one, _other) = UnixStream::pair().expect("two sockets");
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("this thread's status");
        let listed = status.lines().find_map(|line| line.strip_prefix("Groups:")).expect("its groups");
        let mut own: Vec<u32> =
            listed.split_whitespace().map(|group| group.parse().expect("a number")).collect();
        let mut told = of_peer(one.as_fd()).expect("Linux tells");
        own.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, own);
        let file = std::fs::File::open("/dev/null").expect("it is everywhere");
        assert!(of_peer(file.as_fd()).is_err());
    }
}
