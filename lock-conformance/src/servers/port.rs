//! Free ports on the loopback address.

use std::array;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Below the ephemeral range (32768 on Linux). A port from inside it could be taken by somebody's outgoing connection
/// while a server is down between a kill and its restart.
const PORTS: Range<u16> = 12_000..32_000;

/// How many of the ports that this process has picked are not picked again: a server takes a while to bind its own.
const RECENT: usize = 4096;

/// Picks a port nobody listens on right now, and that this process has not picked for something else just before.
///
/// Somebody may take it before the server binds it; the caller starts again with another one then.
///
/// # Panics
/// If a thousand random ports are all taken.
pub fn free_port() -> u16 {
    static PICKED: Mutex<VecDeque<u16>> = Mutex::new(VecDeque::new());
    let mut picked = PICKED.lock().unwrap_or_else(PoisonError::into_inner);
    let port = (0..1000)
        .map(|_| fastrand::u16(PORTS))
        .filter(|port| !picked.contains(port))
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .expect("one of a thousand random ports is free");
    if picked.len() == RECENT {
        picked.pop_front();
    }
    picked.push_back(port);
    port
}

/// Picks several ports.
///
/// # Panics
/// As [`free_port`].
pub(super) fn free_ports<const N: usize>() -> [u16; N] {
    array::from_fn(|_| free_port())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Two of the nine ports of three members were the same once in some hundred starts.
    #[test]
    fn no_port_is_picked_twice_before_a_server_had_the_time_to_bind_it() {
        let ports: BTreeSet<u16> = (0..2000).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 2000);
    }

    #[test]
    fn ports_are_below_the_ephemeral_range() {
        assert!(free_port() < 32_768);
    }
}
