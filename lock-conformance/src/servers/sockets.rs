//! What the kernel says about the machine's TCP sockets: who listens, and how many are connected.
//!
//! Read from `/proc/net/tcp`, so that looking opens no connection, which would be counted itself.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::{fs, io};

/// States as the kernel numbers them.
const ESTABLISHED: u8 = 0x01;
const LISTEN: u8 = 0x0a;

/// One line of the table.
#[derive(Debug, Eq, PartialEq)]
struct Socket {
    local: SocketAddr,
    state: u8,
    inode: u64,
}

/// Connections that a server on 127.0.0.1:`port` has accepted, counted at the server's end.
pub(super) fn established(port: u16) -> io::Result<usize> {
    let sockets = table()?;
    let mut count = 0;
    for socket in sockets {
        count += usize::from(socket.state == ESTABLISHED && socket.local == loopback(port));
    }
    Ok(count)
}

/// Whether it is process `pid` that listens on 127.0.0.1:`port`, and not somebody who was faster to take it.
pub(super) fn listens(pid: u32, port: u16) -> bool {
    let Ok(sockets) = table() else {
        return false;
    };
    sockets
        .iter()
        .filter(|socket| socket.state == LISTEN && socket.local == loopback(port))
        .any(|socket| has_open(pid, socket.inode))
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn has_open(pid: u32, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|descriptors| {
        descriptors
            .filter_map(Result::ok)
            .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
            .any(|target| target == Path::new(&wanted))
    })
}

fn table() -> io::Result<Vec<Socket>> {
    let text = fs::read_to_string("/proc/net/tcp")?;
    Ok(text.lines().skip(1).filter_map(parse).collect())
}

/// `  0: 0100007F:3039 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 ...`
fn parse(line: &str) -> Option<Socket> {
    let mut words = line.split_ascii_whitespace();
    let (ip, port) = words.nth(1)?.split_once(':')?;
    // The address is printed as the machine holds the number, so 127.0.0.1 comes out backwards on most machines.
    let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Socket {
        local: SocketAddrV4::new(ip, port).into(),
        state: u8::from_str_radix(words.nth(1)?, 16).ok()?,
        inode: words.nth(5)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::process;

    use super::*;

    #[test]
    fn own_listener_and_its_connections_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(listens(process::id(), port));
        assert!(!listens(1, port));
        assert_eq!(established(port).unwrap(), 0);
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let _server = listener.accept().unwrap();
        assert_eq!(established(port).unwrap(), 1);
        // Seen from the other end it is a connection from another port.
        let own = client.local_addr().unwrap().port();
        assert_eq!(established(own).unwrap(), 1);
    }
}
