//! Just enough of RESP2 and RESP3 to find where a message ends and to read a reply.
//!
//! Both walkers work on a buffer that may end in the middle of a message and say so, since a proxy and a client alike
//! see whatever the socket happened to deliver.

use std::fmt;

/// What a server answered. RESP3's richer types are folded into the nearest of these.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reply {
    /// A status line such as `OK`.
    Status(String),
    /// An error line, its code first.
    Error(String),
    /// A number.
    Int(i64),
    /// A string of bytes; RESP3 doubles, big numbers and booleans are given as they are written.
    Bulk(Vec<u8>),
    /// No value.
    Nil,
    /// Several values; a RESP3 map is its keys and values in turn.
    Array(Vec<Reply>),
}

impl fmt::Display for Reply {
    /// Writes the bare value, the elements of an array on a line each, as `redis-cli --raw` does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Status(text) | Reply::Error(text) => f.write_str(text),
            Reply::Int(number) => write!(f, "{number}"),
            Reply::Bulk(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Reply::Nil => Ok(()),
            Reply::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        f.write_str("\n")?;
                    }
                    write!(f, "{item}")?;
                }
                Ok(())
            }
        }
    }
}

/// The bytes are not RESP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a RESP message")
    }
}

impl std::error::Error for Malformed {}

/// Finds the length of the first whole message in `buf`; `None` when more bytes are needed.
///
/// A RESP3 attribute (`|`) belongs to the message behind it and is counted with it. A line that begins with none of
/// the type bytes is an inline command and ends at its line feed.
///
/// # Errors
/// The bytes cannot be the beginning of a message.
pub fn message_len(buf: &[u8]) -> Result<Option<usize>, Malformed> {
    let mut walk = Walk { buf, at: 0 };
    match walk.skip_message() {
        Ok(()) => Ok(Some(walk.at)),
        Err(Stop::Incomplete) => Ok(None),
        Err(Stop::Malformed) => Err(Malformed),
    }
}

/// Reads the first whole message in `buf` and says how many bytes it took; `None` when more bytes are needed.
///
/// # Errors
/// The bytes cannot be the beginning of a reply.
pub fn parse_reply(buf: &[u8]) -> Result<Option<(Reply, usize)>, Malformed> {
    let mut walk = Walk { buf, at: 0 };
    match walk.reply() {
        Ok(reply) => Ok(Some((reply, walk.at))),
        Err(Stop::Incomplete) => Ok(None),
        Err(Stop::Malformed) => Err(Malformed),
    }
}

/// Splits one whole request (an array of bulk strings, or an inline line) into its words.
///
/// Gives nothing for anything else, so that a predicate on commands simply does not match it.
#[must_use]
pub fn command_words(message: &[u8]) -> Vec<Vec<u8>> {
    if !message.starts_with(b"*") {
        return message
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty())
            .map(<[u8]>::to_vec)
            .collect();
    }
    let Ok(Some((Reply::Array(items), _))) = parse_reply(message) else {
        return Vec::new();
    };
    items
        .into_iter()
        .filter_map(|item| match item {
            Reply::Bulk(word) => Some(word),
            _ => None,
        })
        .collect()
}

/// Whether a whole request is the command `name`, in any case.
#[must_use]
pub fn is_command(message: &[u8], name: &str) -> bool {
    command_words(message)
        .first()
        .is_some_and(|word| word.eq_ignore_ascii_case(name.as_bytes()))
}

/// Writes `words` as a request.
#[must_use]
pub fn encode_command(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    out
}

/// Whether a whole server message is an out-of-band push, leading attributes aside.
#[must_use]
pub fn is_push(message: &[u8]) -> bool {
    push_kind(message).is_some()
}

/// The kind of an out-of-band push (`message`, `subscribe`, `invalidate`, ...); `None` for an ordinary reply.
#[must_use]
pub fn push_kind(message: &[u8]) -> Option<Vec<u8>> {
    let mut walk = Walk {
        buf: message,
        at: 0,
    };
    while walk.peek() == Some(b'|') {
        walk.skip_attribute().ok()?;
    }
    if walk.peek() != Some(b'>') {
        return None;
    }
    match walk.reply() {
        Ok(Reply::Array(items)) => match items.into_iter().next() {
            Some(Reply::Bulk(kind)) => Some(kind),
            Some(Reply::Status(kind)) => Some(kind.into_bytes()),
            _ => Some(Vec::new()),
        },
        _ => Some(Vec::new()),
    }
}

/// Why a walk ended early.
enum Stop {
    Incomplete,
    Malformed,
}

/// A cursor over a buffer.
struct Walk<'a> {
    buf: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn peek(&self) -> Option<u8> {
        self.buf.get(self.at).copied()
    }

    fn skip_message(&mut self) -> Result<(), Stop> {
        // A count of messages still to skip instead of recursion: nesting cannot overflow the stack.
        let mut left = 1_usize;
        while left > 0 {
            left -= 1;
            let kind = self.peek().ok_or(Stop::Incomplete)?;
            match kind {
                b'*' | b'~' | b'>' => left += self.header()?.unwrap_or(0),
                b'%' => left += 2 * self.header()?.unwrap_or(0),
                // An attribute is no message of its own: its pairs, and then the message it speaks of.
                b'|' => left += 2 * self.header()?.unwrap_or(0) + 1,
                b'$' | b'=' | b'!' => {
                    if let Some(len) = self.header()? {
                        self.blob(len)?;
                    }
                }
                _ => {
                    self.line()?;
                }
            }
        }
        Ok(())
    }

    fn skip_attribute(&mut self) -> Result<(), Stop> {
        let pairs = self.header()?.unwrap_or(0);
        for _ in 0..2 * pairs {
            self.skip_message()?;
        }
        Ok(())
    }

    fn reply(&mut self) -> Result<Reply, Stop> {
        while self.peek() == Some(b'|') {
            self.skip_attribute()?;
        }
        let kind = self.peek().ok_or(Stop::Incomplete)?;
        Ok(match kind {
            b'*' | b'~' | b'>' => match self.header()? {
                Some(count) => self.array(count)?,
                None => Reply::Nil,
            },
            b'%' => {
                let pairs = self.header()?.unwrap_or(0);
                self.array(2 * pairs)?
            }
            b'$' | b'=' => match self.header()? {
                Some(len) => Reply::Bulk(self.blob(len)?.to_vec()),
                None => Reply::Nil,
            },
            b'!' => {
                let len = self.header()?.ok_or(Stop::Malformed)?;
                Reply::Error(text(self.blob(len)?))
            }
            b'+' => Reply::Status(text(&self.line()?[1..])),
            b'-' => Reply::Error(text(&self.line()?[1..])),
            b':' => Reply::Int(number(&self.line()?[1..])?),
            b',' | b'(' | b'#' => Reply::Bulk(self.line()?[1..].to_vec()),
            b'_' => {
                self.line()?;
                Reply::Nil
            }
            _ => return Err(Stop::Malformed),
        })
    }

    fn array(&mut self, count: usize) -> Result<Reply, Stop> {
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(self.reply()?);
        }
        Ok(Reply::Array(items))
    }

    /// The number behind a type byte; `None` for RESP2's -1, "no value".
    fn header(&mut self) -> Result<Option<usize>, Stop> {
        match number(&self.line()?[1..])? {
            -1 => Ok(None),
            // Redis itself refuses more than 512 MiB; a larger number is no length but garbage.
            n => match usize::try_from(n) {
                Ok(n) if n <= 512 << 20 => Ok(Some(n)),
                _ => Err(Stop::Malformed),
            },
        }
    }

    fn blob(&mut self, len: usize) -> Result<&'a [u8], Stop> {
        let end = self.at + len;
        let bytes = self.buf.get(self.at..end).ok_or(Stop::Incomplete)?;
        match self.buf.get(end..end + 2) {
            None => Err(Stop::Incomplete),
            Some(b"\r\n") => {
                self.at = end + 2;
                Ok(bytes)
            }
            Some(_) => Err(Stop::Malformed),
        }
    }

    /// The rest of the line, type byte included, line end excluded.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = self.buf.get(self.at..).ok_or(Stop::Incomplete)?;
        let end = rest
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or(Stop::Incomplete)?;
        self.at += end + 1;
        let line = &rest[..end];
        Ok(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn number(digits: &[u8]) -> Result<i64, Stop> {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or(Stop::Malformed)
}

#[cfg(test)]
mod tests;
