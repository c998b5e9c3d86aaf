//! A small blocking ZooKeeper client, straight to the server past any proxy.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::fault::jute::{Reader, Writer};

/// No request of the tools takes this long on a server that serves.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the session asks for; a server may give it less.
const SESSION_TIMEOUT_MS: i32 = 30_000;

/// The user that every access control list lets through, and the digest of its password that the servers are told.
const SUPER_USER: &[u8] = b"super:distlock";
pub(super) const SUPER_DIGEST: &str = "super:Z+xicx0R17VvNjgJUXrxxXuF0Tw=";

/// How often a session is taken from an owner that takes it back.
const TAKE_OVERS: usize = 50;

/// Request codes.
const CREATE: i32 = 1;
const DELETE: i32 = 2;
const EXISTS: i32 = 3;
const GET_CHILDREN: i32 = 8;
const AUTH: i32 = 100;
const CLOSE: i32 = -11;

/// The number that the reply to a login carries.
const AUTH_XID: i32 = -4;
/// Replies with negative numbers that answer no request: a fired watch, a ping.
const PUSHES: [i32; 2] = [-1, -2];

/// What a server answered in place of a result.
const NO_NODE: i32 = -101;
const NODE_EXISTS: i32 = -110;
const NOT_EMPTY: i32 = -111;
const SESSION_EXPIRED: i32 = -112;

/// One session with every right, on one connection. After an error it is out of step with the server: drop it.
#[derive(Debug)]
pub(super) struct Session {
    stream: TcpStream,
    xid: i32,
}

impl Session {
    /// Opens a session.
    pub(super) fn open(server: SocketAddr) -> io::Result<Session> {
        let mut session = Session::connect(server, 0, &[0; 16])?;
        let mut login = Writer::default();
        login.int(0).string("digest").buffer(SUPER_USER);
        session.send(AUTH_XID, AUTH, &login)?;
        session.reply(AUTH_XID)?;
        Ok(session)
    }

    /// Takes over the session that somebody else has, and closes it: the server has ended it, whatever its owner does.
    /// Says whether it was there.
    ///
    /// A server derives a session's password from the session's number, in a way that every server of an ensemble
    /// knows and that is the same everywhere; so does this.
    pub(super) fn close_foreign(server: SocketAddr, id: i64) -> io::Result<bool> {
        let mut was_there = false;
        for _ in 0..TAKE_OVERS {
            match Session::connect(server, id, &password(id)).and_then(Session::close) {
                Ok(()) => return Ok(true),
                Err(error) if is(&error, SESSION_EXPIRED) => return Ok(was_there),
                // A session has one connection at a time: its owner was faster to take it back. Or the answer was
                // lost with the connection; then the next attempt is told that there is no such session.
                Err(error) if is_cut(&error) => was_there = true,
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(
            "the owner takes its session back each time",
        ))
    }

    fn connect(server: SocketAddr, id: i64, password: &[u8]) -> io::Result<Session> {
        let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut request = Writer::default();
        let (version, last_zxid) = (0, 0);
        request
            .int(version)
            .long(last_zxid)
            .int(SESSION_TIMEOUT_MS)
            .long(id)
            .buffer(password)
            .bool(false);
        stream.write_all(&request.framed())?;
        let mut session = Session { stream, xid: 0 };
        let answer = session.read_frame()?;
        let mut answer = Reader(&answer);
        answer.int().ok_or_else(cut_short)?;
        // A server that does not know the session says so with a timeout of zero.
        match answer.int().ok_or_else(cut_short)? {
            ..=0 => Err(error(SESSION_EXPIRED)),
            _ => Ok(session),
        }
    }

    /// The names of a node's children; `None` if there is no such node.
    pub(super) fn children(&mut self, path: &str) -> io::Result<Option<Vec<String>>> {
        let mut request = Writer::default();
        request.string(path).bool(false);
        let answer = match self.call(GET_CHILDREN, &request) {
            Err(error) if is(&error, NO_NODE) => return Ok(None),
            answer => answer?,
        };
        let mut answer = Reader(&answer);
        let count = answer.int().ok_or_else(cut_short)?;
        let names: Option<_> = (0..count).map(|_| answer.string()).collect();
        names.map(Some).ok_or_else(cut_short)
    }

    /// Deletes a node. It may be gone already; says `false` if it has children.
    pub(super) fn delete(&mut self, path: &str) -> io::Result<bool> {
        let mut request = Writer::default();
        let any_version = -1;
        request.string(path).int(any_version);
        match self.call(DELETE, &request) {
            Err(error) if is(&error, NOT_EMPTY) => Ok(false),
            Err(error) if !is(&error, NO_NODE) => Err(error),
            _ => Ok(true),
        }
    }

    /// Makes a node with open access, and lets one that is there be.
    pub(super) fn create(&mut self, path: &str, data: &[u8]) -> io::Result<()> {
        let mut request = Writer::default();
        let (one, all_rights, persistent) = (1, 31, 0);
        request
            .string(path)
            .buffer(data)
            .int(one)
            .int(all_rights)
            .string("world")
            .string("anyone")
            .int(persistent);
        match self.call(CREATE, &request) {
            Err(error) if !is(&error, NODE_EXISTS) => Err(error),
            _ => Ok(()),
        }
    }

    /// What time its server showed when a node was made, since 1970; `None` if there is no such node.
    pub(super) fn made_at(&mut self, path: &str) -> io::Result<Option<Duration>> {
        let mut request = Writer::default();
        request.string(path).bool(false);
        let answer = match self.call(EXISTS, &request) {
            Err(error) if is(&error, NO_NODE) => return Ok(None),
            answer => answer?,
        };
        let mut answer = Reader(&answer);
        let stat = (answer.long(), answer.long(), answer.long());
        let (_czxid, _mzxid, Some(made_ms)) = stat else {
            return Err(cut_short());
        };
        Ok(u64::try_from(made_ms).ok().map(Duration::from_millis))
    }

    /// Ends the session, so that it does not stand in the server until it expires.
    pub(super) fn close(mut self) -> io::Result<()> {
        self.call(CLOSE, &Writer::default()).map(drop)
    }

    fn call(&mut self, code: i32, request: &Writer) -> io::Result<Vec<u8>> {
        self.xid += 1;
        self.send(self.xid, code, request)?;
        self.reply(self.xid)
    }

    fn send(&mut self, xid: i32, code: i32, request: &Writer) -> io::Result<()> {
        let mut message = Writer::default();
        message.int(xid).int(code);
        message.0.extend_from_slice(&request.0);
        self.stream.write_all(&message.framed())
    }

    /// The body of the reply that carries this number.
    fn reply(&mut self, xid: i32) -> io::Result<Vec<u8>> {
        loop {
            let frame = self.read_frame()?;
            let mut reader = Reader(&frame);
            let head = (reader.int(), reader.long(), reader.int());
            let (Some(answered), Some(_zxid), Some(code)) = head else {
                return Err(cut_short());
            };
            match (answered, code) {
                (answered, 0) if answered == xid => return Ok(reader.0.to_vec()),
                (answered, code) if answered == xid => return Err(error(code)),
                (answered, _) if PUSHES.contains(&answered) => {}
                (answered, _) => {
                    return Err(invalid(&format!("reply {answered} in place of {xid}")));
                }
            }
        }
    }

    fn read_frame(&mut self) -> io::Result<Vec<u8>> {
        let mut len = [0; 4];
        self.stream.read_exact(&mut len)?;
        let len = usize::try_from(i32::from_be_bytes(len)).map_err(io::Error::other)?;
        let mut frame = vec![0; len];
        self.stream.read_exact(&mut frame)?;
        Ok(frame)
    }
}

/// An error the server answered with.
#[derive(Debug)]
struct Code(i32);

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the server answered with error {}", self.0)
    }
}

impl std::error::Error for Code {}

fn error(code: i32) -> io::Error {
    io::Error::other(Code(code))
}

fn is(error: &io::Error, code: i32) -> bool {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Code>())
        .is_some_and(|inner| inner.0 == code)
}

fn is_cut(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The password of a session: 16 bytes of Java's `Random`, seeded with the session's number and a constant that all
/// servers have.
fn password(session: i64) -> [u8; 16] {
    const CONSTANT: i64 = 0xB341_5C00;
    const MULTIPLIER: i64 = 0x5_DEEC_E66D;
    const MASK: i64 = (1 << 48) - 1;
    let mut state = (session ^ CONSTANT ^ MULTIPLIER) & MASK;
    let mut password = [0; 16];
    for chunk in password.chunks_mut(4) {
        state = (state.wrapping_mul(MULTIPLIER).wrapping_add(0xB)) & MASK;
        // The upper 32 of 48 bits, the lowest byte first.
        chunk.copy_from_slice(&(state >> 16).to_le_bytes()[..4]);
    }
    password
}

fn cut_short() -> io::Error {
    invalid("a message that ends early")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_is_what_a_server_has_given() {
        let given = 0x84b8_9b95_c159_59f9_0269_9b35_72ca_fd92_u128;
        assert_eq!(password(0x0100_00ce_73ea_0000), given.to_be_bytes());
    }
}
