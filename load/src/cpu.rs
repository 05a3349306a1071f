//! Processor time: of this process, and of a server on this host.

use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use memkv_client::uri::Endpoint;

/// Seconds that this process computed so far, in all threads.
pub fn own() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Seconds that another process computed so far, to a hundredth or so; `None` where that cannot be known.
pub fn of(process: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the program's name in brackets, and may hold anything. User time is the 14th field of all.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The process that listens at an address of this host, if it is one and this user may know.
pub fn listener(server: &Endpoint) -> Option<u32> {
    let addresses: Vec<_> = (server.host.as_str(), server.port).to_socket_addrs().ok()?.collect();
    if !addresses.iter().all(|address| address.ip().is_loopback() || is_own(address.ip())) {
        return None;
    }
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| listening_inode(&std::fs::read_to_string(table).ok()?, server.port))?;
    let link = format!("socket:[{inode}]");
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|process| holds(*process, &link))
}

/// An address that a socket can be bound to is this host's own.
fn is_own(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

/// The socket that listens on a port: state 0A in the kernel's table.
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, own_port) = fields.get(1)?.rsplit_once(':')?;
        let listens = *fields.get(3)? == "0A" && u16::from_str_radix(own_port, 16).ok()? == port;
        if listens { fields.get(9)?.parse().ok() } else { None }
    })
}

fn holds(process: u32, link: &str) -> bool {
    let Ok(files) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|target| target == Path::new(link)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computing_takes_time() {
        let (before, before_by_id) = (own(), of(std::process::id()));
        let mut state = 1;
        while own() < before + 0.03 {
            std::hint::black_box(crate::noise::next(&mut state));
        }
        if let (Some(before), Some(after)) = (before_by_id, of(std::process::id())) {
            assert!(after > before);
        }
        assert_eq!(of(u32::MAX), None);
    }

    #[test]
    fn who_listens_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let at = |host: &str| Endpoint { host: host.to_owned(), port };
        if Path::new("/proc/net/tcp").exists() {
            assert_eq!(super::listener(&at("127.0.0.1")), Some(std::process::id()));
        }
        assert_eq!(super::listener(&at("192.0.2.1")), None);
    }
}
