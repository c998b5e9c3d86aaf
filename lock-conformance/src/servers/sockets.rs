//! What the kernel says about the machine's TCP sockets: who listens, and how many are connected.
//!
//! Read from `/proc/net/tcp`, so that looking opens no connection, which would be counted itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::{fs, io};

/// States as the kernel numbers them.
const ESTABLISHED: u8 = 0x01;
const LISTEN: u8 = 0x0a;

/// One line of the table.
#[derive(Debug, Eq, PartialEq)]
struct Socket {
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    uid: u32,
    inode: u64,
}

/// Connections that a server on 127.0.0.1:`port` has accepted, counted at the server's end.
pub(super) fn established(port: u16) -> io::Result<usize> {
    let sockets = table()?;
    let connected =
        |socket: &&Socket| socket.state == ESTABLISHED && socket.local == loopback(port);
    Ok(sockets.iter().filter(connected).count())
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

/// The local ports of the connections that user `uid` has to one of these ports, whatever their state.
pub(super) fn opened_by(uid: u32, ports: &[u16]) -> io::Result<Vec<u16>> {
    let sockets = table()?;
    let own = sockets.iter().filter(|socket| socket.uid == uid);
    Ok(own
        .filter(|socket| ports.contains(&socket.remote.port()))
        .map(|socket| socket.local.port())
        .collect())
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
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    Some(Socket {
        local: address(words.get(1)?)?,
        remote: address(words.get(2)?)?,
        state: u8::from_str_radix(words.get(3)?, 16).ok()?,
        uid: words.get(7)?.parse().ok()?,
        inode: words.get(9)?.parse().ok()?,
    })
}

fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    // The address is printed as the machine holds the number, so 127.0.0.1 comes out backwards on most machines.
    let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
    Some((ip, u16::from_str_radix(port, 16).ok()?).into())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::MetadataExt;
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
        let uid = fs::metadata("/proc/self").unwrap().uid();
        assert_eq!(opened_by(uid, &[port]).unwrap(), [own]);
        assert!(opened_by(uid + 1, &[port]).unwrap().is_empty());
    }
}
