//! Four-letter words: what a ZooKeeper tells about itself to whoever asks.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::ZooKeeperMode;

/// How long a server that runs may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Begins the second part of `dump`.
const EPHEMERALS: &str = "ephemeral nodes dump";

/// Asks one word; the answer ends where the connection does.
pub(super) fn ask(server: SocketAddr, word: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(word.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What the server is doing; `None` if it does not answer, or does not serve.
pub(super) fn mode(server: SocketAddr) -> Option<ZooKeeperMode> {
    match field(&ask(server, "srvr").ok()?, "Mode: ")? {
        "standalone" => Some(ZooKeeperMode::Standalone),
        "leader" => Some(ZooKeeperMode::Leader),
        "follower" => Some(ZooKeeperMode::Follower),
        _ => None,
    }
}

/// The last transaction it has applied.
pub(super) fn zxid(server: SocketAddr) -> io::Result<u64> {
    let answer = ask(server, "srvr")?;
    field(&answer, "Zxid: 0x")
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| unclear(&answer))
}

/// Watches set on this server.
pub(super) fn watches(server: SocketAddr) -> io::Result<u64> {
    let answer = ask(server, "wchs")?;
    field(&answer, "Total watches:")
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| unclear(&answer))
}

/// Sessions that this server, which leads, keeps alive.
pub(super) fn sessions(server: SocketAddr) -> io::Result<Vec<i64>> {
    Ok(parse_sessions(&ask(server, "dump")?))
}

/// Ephemeral nodes by session.
pub(super) fn ephemerals(server: SocketAddr) -> io::Result<BTreeMap<i64, Vec<String>>> {
    Ok(parse_ephemerals(&ask(server, "dump")?))
}

fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| line.strip_prefix(name))
}

fn unclear(answer: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("not understood: {answer}"),
    )
}

/// The part of `dump` about sessions: their numbers stand behind a tab, below the time at which they expire.
fn parse_sessions(dump: &str) -> Vec<i64> {
    let lines = dump
        .lines()
        .take_while(|line| !line.starts_with(EPHEMERALS));
    let mut sessions: Vec<i64> = lines
        .filter_map(|line| session(line.strip_prefix('\t')?))
        .collect();
    sessions.sort_unstable();
    sessions
}

/// The part of `dump` about ephemeral nodes: paths stand behind a tab, below the session they belong to.
fn parse_ephemerals(dump: &str) -> BTreeMap<i64, Vec<String>> {
    let mut found = BTreeMap::<i64, Vec<String>>::new();
    let mut owner = None;
    let lines = dump
        .lines()
        .skip_while(|line| !line.starts_with(EPHEMERALS));
    for line in lines.take_while(|line| !line.starts_with("Connections dump")) {
        match (line.strip_prefix('\t'), owner) {
            (Some(path), Some(owner)) => found.entry(owner).or_default().push(path.to_owned()),
            _ => owner = line.strip_suffix(':').and_then(session),
        }
    }
    found.values_mut().for_each(|paths| paths.sort());
    found
}

/// `0x10000ce73ea0000`; the highest bit is the sign.
fn session(text: &str) -> Option<i64> {
    let digits = text.strip_prefix("0x")?;
    Some(u64::from_str_radix(digits, 16).ok()?.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "SessionTracker dump:\n\
        Session Sets (2)/(3):\n\
        0 expire at Sun Nov 22 23:47:17 UTC 2026:\n\
        2 expire at Sun Nov 22 23:47:17 UTC 2026:\n\
        \t0x10000ce73ea0001\n\
        \t0x10000ce73ea0000\n\
        1 expire at Sun Nov 22 23:47:21 UTC 2026:\n\
        \t0xf0000ce73ea0002\n\
        ephemeral nodes dump:\n\
        Sessions with Ephemerals (1):\n\
        0x10000ce73ea0000:\n\
        \t/x0000000001\n\
        \t/a b\n\
        Connections dump:\n\
        Connections Sets (1)/(1):\n\
        1 expire at Sun Nov 22 23:47:30 UTC 2026:\n\
        \tip: /127.0.0.1:44674 sessionId: 0x0\n";

    #[test]
    fn sessions_and_their_nodes_are_read_from_a_dump() {
        let (first, last) = (0x0100_00ce_73ea_0000, 0x0f00_00ce_73ea_0002);
        assert_eq!(parse_sessions(DUMP), [first, first + 1, last]);
        let nodes = vec!["/a b".to_owned(), "/x0000000001".to_owned()];
        assert_eq!(parse_ephemerals(DUMP), BTreeMap::from([(first, nodes)]));
    }

    #[test]
    fn session_numbers_use_all_64_bits() {
        assert_eq!(session("0xffffffffffffffff"), Some(-1));
    }
}
