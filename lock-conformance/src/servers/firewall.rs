//! Cutting one member of a service off from the others, while clients still reach it.
//!
//! All members live on the loopback address, so packets tell a member only by its ports, and its outgoing connections
//! only by the user it runs as: each member has one of its own.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use super::error::StartError;
use super::guardian::Guardian;
use super::sockets;

const NFT: &str = "nft";

/// A table of packet filter rules of our own, gone when dropped.
#[derive(Debug)]
pub(super) struct Firewall {
    table: String,
    // It deletes the table if `Drop` does not run.
    _guardian: Guardian,
}

/// How a member is known to the firewall.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// Whom its process runs as.
    pub(super) uid: u32,
    /// Where the other members connect to it.
    pub(super) ports: Vec<u16>,
}

impl Identity {
    /// A user for the member whose clients connect to `port`: nobody else on the machine has that port, and so nobody
    /// has the user.
    pub(super) fn new(port: u16, ports: impl Into<Vec<u16>>) -> Identity {
        Identity {
            uid: 20_000 + u32::from(port),
            ports: ports.into(),
        }
    }
}

impl Firewall {
    /// Makes the table, with nothing in it.
    pub(super) fn new() -> Result<Firewall, StartError> {
        let table = format!("distlock_{:016x}", fastrand::u64(..));
        // First: from here on somebody cleans up whatever happens.
        let guardian = Guardian::of_table(&table)?;
        match nft(&format!("add table inet {table}\n")) {
            Ok(()) => Ok(Firewall {
                table,
                _guardian: guardian,
            }),
            Err(error) => Err(StartError::Missing {
                what: format!("nft with the right to use it (root; said: {error})"),
                install: "apt-get install nftables",
            }),
        }
    }

    /// Drops every packet between the member and `others`, both ways.
    pub(super) fn isolate(&self, member: &Identity, others: &[u16]) -> io::Result<()> {
        let (table, uid) = (&self.table, member.uid);
        let (own, others_set) = (set(&member.ports), set(others));
        let chain = format!("inet {table} member_{uid}");
        nft(&format!(
            "add chain {chain} {{ type filter hook output priority 0; policy accept; }}\n\
             add rule {chain} tcp dport {own} drop\n\
             add rule {chain} tcp sport {own} drop\n\
             add rule {chain} meta skuid {uid} tcp dport {others_set} drop\n"
        ))?;
        // The connections that it has opened itself, on ports that nobody could know before. What the others send on
        // them does not carry its user, and neither does what the kernel sends for a socket it has closed. New ones
        // cannot be opened any more.
        let opened = sockets::opened_by(uid, others)?;
        if opened.is_empty() {
            return Ok(());
        }
        let opened = set(&opened);
        nft(&format!(
            "add rule {chain} tcp sport {others_set} tcp dport {opened} drop\n\
             add rule {chain} tcp sport {opened} tcp dport {others_set} drop\n"
        ))
    }

    /// Lets packets pass again.
    pub(super) fn heal(&self, member: &Identity) -> io::Result<()> {
        let chain = format!("inet {} member_{}", self.table, member.uid);
        nft(&format!("flush chain {chain}\ndelete chain {chain}\n"))
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        // The guardian would do it too, a moment later. Nothing can be done about an error here.
        let _ = nft(&format!("delete table inet {}\n", self.table));
    }
}

/// `{ 1, 2 }`
fn set(ports: &[u16]) -> String {
    let mut text = String::from("{ ");
    for (i, port) in ports.iter().enumerate() {
        let comma = if i > 0 { ", " } else { "" };
        let _ = write!(text, "{comma}{port}");
    }
    text + " }"
}

/// Gives nft a script, which takes effect as a whole or not at all.
fn nft(script: &str) -> io::Result<()> {
    let mut child = Command::new(NFT)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(script.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "nft: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
    }
}
