//! Exact counting of the commands that clients send.

use std::io;

use super::control::Control;
use super::redis::RedisServer;
use crate::fault::resp::Reply;

/// Everything clients send to one server, from when this was opened.
///
/// INFO commandstats also counts the calls made inside Lua, so "exactly two commands" can only be read here. The
/// launcher's own commands ([`RedisServer::cli`] and the like) are left out.
#[derive(Debug)]
pub struct Monitor<'a> {
    server: &'a RedisServer,
    control: Control,
    lines: Vec<String>,
}

impl<'a> Monitor<'a> {
    pub(super) fn open(server: &'a RedisServer) -> io::Result<Monitor<'a>> {
        let mut control = server.connect_control()?;
        control.command(&["MONITOR"])?;
        Ok(Monitor {
            server,
            control,
            lines: Vec::new(),
        })
    }

    /// The commands of clients so far, one line each: `1731000000.123456 [0 127.0.0.1:40000] "GET" "k"`.
    ///
    /// Complete: every command the server has executed before this call is in it.
    ///
    /// # Errors
    /// The server does not answer, or closed the connection.
    pub fn client_lines(&mut self) -> io::Result<Vec<String>> {
        self.catch_up()?;
        let own = self.server.control_addrs();
        Ok(self
            .lines
            .iter()
            .filter(|line| !is_lua(line) && !own.iter().any(|addr| is_from(line, addr)))
            .cloned()
            .collect())
    }

    /// The commands that scripts called so far, one line each.
    ///
    /// # Errors
    /// The server does not answer, or closed the connection.
    pub fn lua_lines(&mut self) -> io::Result<Vec<String>> {
        self.catch_up()?;
        Ok(self.lines.iter().filter(|l| is_lua(l)).cloned().collect())
    }

    /// Forgets what was seen so far, so that a count can begin after a warm-up.
    ///
    /// # Errors
    /// The server does not answer, or closed the connection.
    pub fn clear(&mut self) -> io::Result<()> {
        self.catch_up()?;
        self.lines.clear();
        Ok(())
    }

    /// Reads up to a mark sent just now. The server writes in the order in which it executes, so nothing executed
    /// before the mark can still be under way: no waiting, no guessing.
    fn catch_up(&mut self) -> io::Result<()> {
        let mark = format!("\"monitor-mark-{:016x}\"", fastrand::u64(..));
        self.server.cli(&["ECHO", mark.trim_matches('"')])?;
        loop {
            match self.control.read_reply()? {
                Reply::Status(line) if line.ends_with(&mark) => return Ok(()),
                Reply::Status(line) => self.lines.push(line),
                other => return Err(io::Error::other(format!("not a MONITOR line: {other}"))),
            }
        }
    }
}

/// The words of a command in a MONITOR line, as they were sent. Bytes that are no UTF-8 are replaced.
#[must_use]
pub fn words_of(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.split_once("] ").map_or("", |(_, words)| words);
    while let Some(quoted) = rest.trim_start().strip_prefix('"') {
        let (word, behind) = unquote(quoted.as_bytes());
        words.push(String::from_utf8_lossy(&word).into_owned());
        rest = quoted.get(behind..).unwrap_or_default();
    }
    words
}

/// Reads up to the closing quote; gives what was quoted, and how far that is.
fn unquote(quoted: &[u8]) -> (Vec<u8>, usize) {
    let mut word = Vec::new();
    let mut at = 0;
    while let Some(&byte) = quoted.get(at) {
        at += 1;
        match (byte, quoted.get(at)) {
            (b'"', _) => break,
            (b'\\', Some(b'x')) => {
                let hex = quoted.get(at + 1..at + 3).unwrap_or_default();
                let hex = std::str::from_utf8(hex).unwrap_or_default();
                word.push(u8::from_str_radix(hex, 16).unwrap_or(b'?'));
                at += 3;
            }
            (b'\\', Some(escaped)) => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'a' => 7,
                    b'b' => 8,
                    other => *other,
                });
                at += 1;
            }
            _ => word.push(byte),
        }
    }
    (word, at)
}

fn is_lua(line: &str) -> bool {
    origin(line).ends_with(" lua")
}

fn is_from(line: &str, addr: &str) -> bool {
    origin(line).ends_with(addr)
}

/// What stands in the brackets before the first word: database and client address, or database and `lua`.
fn origin(line: &str) -> &str {
    let from = line.find('[').map_or(0, |at| at + 1);
    let rest = &line[from..];
    rest.split_once(']').map_or(rest, |(origin, _)| origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_is_read_from_the_brackets_not_from_the_arguments() {
        let client = r#"1731.1 [0 127.0.0.1:40000] "set" "[0 lua]" "x lua]""#;
        assert!(!is_lua(client));
        assert!(is_from(client, " 127.0.0.1:40000"));
        assert!(is_lua(r#"1731.1 [0 lua] "set" "k" "v""#));
    }

    #[test]
    fn words_are_read_as_they_were_sent() {
        let line = r#"1731.1 [0 lua] "HSET" "a b" "\"q\" ] \\" "t\tn\n" "\xc3\xa9" """#;
        let words = ["HSET", "a b", "\"q\" ] \\", "t\tn\n", "\u{e9}", ""];
        assert_eq!(words_of(line), words);
        assert!(words_of("1731.1 [0 lua]").is_empty());
        assert_eq!(words_of(r#"1731.1 [0 lua] "cut sho"#), ["cut sho"]);
    }
}
