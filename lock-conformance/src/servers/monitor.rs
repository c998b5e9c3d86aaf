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
}
