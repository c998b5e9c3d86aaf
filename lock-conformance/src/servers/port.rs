//! Free ports on the loopback address.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

/// Below the ephemeral range (32768 on Linux). A port from inside it could be taken by somebody's outgoing connection
/// while a server is down between a kill and its restart.
const PORTS: Range<u16> = 12_000..32_000;

/// Picks a port nobody listens on right now.
///
/// Somebody may take it before the server binds it; the caller starts again with another one then.
///
/// # Panics
/// If a thousand random ports are all taken.
pub fn free_port() -> u16 {
    (0..1000)
        .map(|_| fastrand::u16(PORTS))
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .expect("one of a thousand random ports is free")
}

/// Picks several ports, no two of them the same.
///
/// # Panics
/// As [`free_port`].
pub(super) fn free_ports<const N: usize>() -> [u16; N] {
    let mut ports = [0; N];
    for i in 0..N {
        ports[i] = loop {
            let port = free_port();
            if !ports[..i].contains(&port) {
                break port;
            }
        };
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_below_the_ephemeral_range() {
        assert!(free_port() < 32_768);
    }
}
