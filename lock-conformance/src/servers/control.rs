//! A small blocking RESP2 client, straight to the server past any proxy.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::fault::resp::{Reply, encode_command, parse_reply};

/// No command of the tools takes this long on a server that runs.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One connection. After an I/O error it is out of step with the server: drop it.
#[derive(Debug)]
pub(super) struct Control {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Control {
    pub(super) fn connect(server: SocketAddr, user: &str, password: &str) -> io::Result<Control> {
        let stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut control = Control {
            stream,
            unread: Vec::new(),
        };
        control.command(&["AUTH", user, password])?;
        Ok(control)
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Sends one command and waits for its reply; an error reply is an `Err`, and leaves the connection usable.
    pub(super) fn command(&mut self, words: &[&str]) -> io::Result<Reply> {
        self.stream.write_all(&encode_command(words))?;
        match self.read_reply()? {
            Reply::Error(message) => Err(error_reply(message)),
            reply => Ok(reply),
        }
    }

    pub(super) fn read_reply(&mut self) -> io::Result<Reply> {
        let mut chunk = [0; 16 * 1024];
        loop {
            let parsed = parse_reply(&self.unread)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if let Some((reply, used)) = parsed {
                self.unread.drain(..used);
                return Ok(reply);
            }
            let n = self.stream.read(&mut chunk)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.unread.extend_from_slice(&chunk[..n]);
        }
    }

    /// Whether the server has not closed the connection so far.
    pub(super) fn is_open(&self) -> bool {
        let peeked = self
            .stream
            .set_nonblocking(true)
            .and_then(|()| self.stream.peek(&mut [0]));
        self.stream.set_nonblocking(false).is_ok()
            && matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

fn error_reply(message: String) -> io::Error {
    io::Error::other(message)
}

/// Whether `error` is what the server said, rather than trouble on the way to it.
pub(super) fn is_error_reply(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other
}
