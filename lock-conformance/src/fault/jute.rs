//! Just enough of ZooKeeper's protocol to find where a message ends and to tell what a client asks for.

use std::fmt;

/// What a client asks a ZooKeeper for, as far as a test wants to know it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// What is asked for: `create`, `getChildren2`, `ping`; a number where this does not know the name.
    pub name: String,
    /// Which node it is about: of a `multi` its first one; empty where it is about none.
    pub path: String,
    /// The number its reply will carry.
    pub xid: i32,
}

/// A ping, and the reply to it.
const PING_XID: i32 = -2;
/// A fired watch.
const WATCH_XID: i32 = -1;

/// The request codes that name one path, first of all.
const ABOUT_A_NODE: [(i32, &str); 20] = [
    (1, "create"),
    (2, "delete"),
    (3, "exists"),
    (4, "getData"),
    (5, "setData"),
    (6, "getACL"),
    (7, "setACL"),
    (8, "getChildren"),
    (9, "sync"),
    (12, "getChildren2"),
    (13, "check"),
    (15, "create2"),
    (17, "checkWatches"),
    (18, "removeWatches"),
    (19, "createContainer"),
    (20, "deleteContainer"),
    (21, "createTTL"),
    (103, "getEphemerals"),
    (104, "getAllChildrenNumber"),
    (106, "addWatch"),
];

/// Those that name none, or not in the first place.
const OTHERS: [(i32, &str); 9] = [
    (11, "ping"),
    (14, "multi"),
    (16, "reconfig"),
    (22, "multiRead"),
    (100, "auth"),
    (101, "setWatches"),
    (102, "sasl"),
    (105, "setWatches2"),
    (-11, "closeSession"),
];

/// A server refuses messages of more than a megabyte or so; a larger number is no length but something else.
const LONGEST: usize = 64 << 20;

/// The bytes are not a ZooKeeper message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a ZooKeeper message")
    }
}

impl std::error::Error for Malformed {}

/// Finds the length of the first whole message in `buf`, the length in front included; `None` when more is needed.
///
/// # Errors
/// The bytes cannot be the beginning of a message.
pub fn message_len(buf: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some((len, rest)) = buf.split_first_chunk() else {
        return Ok(None);
    };
    let len = usize::try_from(i32::from_be_bytes(*len)).map_err(|_| Malformed)?;
    match len {
        LONGEST.. => Err(Malformed),
        len => Ok((rest.len() >= len).then_some(4 + len)),
    }
}

/// Reads one whole message from a client, its length in front; not the first of a connection, which asks for a
/// session.
#[must_use]
pub fn request(message: &[u8]) -> Option<Request> {
    let mut reader = Reader(message.get(4..)?);
    let (xid, code) = (reader.int()?, reader.int()?);
    let named = |names: &[(i32, &str)]| {
        let known = names.iter().find(|(known, _)| *known == code);
        known.map(|(_, name)| (*name).to_owned())
    };
    let (name, path) = match (named(&ABOUT_A_NODE), named(&OTHERS)) {
        (Some(name), _) => (name, reader.string()?),
        // Each part of it says what it is, that it is not the last, and no error: and then what it asks alone.
        (_, Some(name)) if name.starts_with("multi") => {
            reader.skip(4 + 1 + 4)?;
            (name, reader.string().unwrap_or_default())
        }
        (_, Some(name)) => (name, String::new()),
        _ => (code.to_string(), String::new()),
    };
    Some(Request { name, path, xid })
}

/// Whether a whole message from a client asks for `name`.
#[must_use]
pub fn is_request(message: &[u8], name: &str) -> bool {
    request(message).is_some_and(|request| request.name == name)
}

/// What a whole message from a server is, its length in front; not the first of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    /// To a request.
    Reply,
    /// A watch that fired.
    Watch,
    /// To a ping.
    Ping,
}

/// Tells them apart.
pub(crate) fn answer(message: &[u8]) -> Answer {
    match Reader(message.get(4..).unwrap_or_default()).int() {
        Some(WATCH_XID) => Answer::Watch,
        Some(PING_XID) => Answer::Ping,
        _ => Answer::Reply,
    }
}

/// Writes big-endian numbers, and lengths in front of what is long.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn int(&mut self, value: i32) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn long(&mut self, value: i64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn bool(&mut self, value: bool) -> &mut Self {
        self.0.push(u8::from(value));
        self
    }

    /// # Panics
    /// If there are 2 GiB of them.
    pub(crate) fn buffer(&mut self, bytes: &[u8]) -> &mut Self {
        self.int(i32::try_from(bytes.len()).expect("the tools send little"));
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn string(&mut self, text: &str) -> &mut Self {
        self.buffer(text.as_bytes())
    }

    /// The message with its length in front.
    pub(crate) fn framed(&self) -> Vec<u8> {
        let mut frame = Writer::default();
        frame.buffer(&self.0);
        frame.0
    }
}

/// Reads what a [`Writer`] writes; `None` where the message ends early.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn int(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    pub(crate) fn long(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }

    pub(crate) fn bool(&mut self) -> Option<bool> {
        self.take::<1>().map(|byte| byte != [0])
    }

    /// Bytes with their length in front; none where there is no buffer, which is written as a length of -1.
    pub(crate) fn buffer(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.int()?.max(0)).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn string(&mut self) -> Option<String> {
        let bytes = self.buffer()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    pub(crate) fn skip(&mut self, len: usize) -> Option<()> {
        self.0 = self.0.get(len..)?;
        Some(())
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(xid: i32, code: i32, rest: &Writer) -> Vec<u8> {
        let mut message = Writer::default();
        message.int(xid).int(code);
        message.0.extend_from_slice(&rest.0);
        message.framed()
    }

    #[test]
    fn requests_are_named_and_their_paths_read() {
        let mut create = Writer::default();
        create.string("/locks/a").buffer(b"data").int(0).int(3);
        let request = request(&message(7, 1, &create)).unwrap();
        assert_eq!(
            (&*request.name, &*request.path, request.xid),
            ("create", "/locks/a", 7)
        );
        assert!(is_request(
            &message(1, 12, Writer::default().string("/")),
            "getChildren2"
        ));
    }

    #[test]
    fn multi_is_about_its_first_node() {
        let mut multi = Writer::default();
        multi.int(13).bool(false).int(-1).string("/check").int(0);
        multi.int(2).bool(false).int(-1).string("/delete").int(0);
        multi.int(-1).bool(true).int(-1);
        let multi = request(&message(7, 14, &multi)).unwrap();
        assert_eq!((&*multi.name, &*multi.path), ("multi", "/check"));
    }

    #[test]
    fn requests_about_no_node_and_unknown_ones_are_named_too() {
        let empty = Writer::default();
        assert_eq!(request(&message(-2, 11, &empty)).unwrap().name, "ping");
        assert_eq!(request(&message(1, 999, &empty)).unwrap().name, "999");
        // Cut short: no request.
        assert_eq!(request(&message(1, 1, &empty)), None);
    }

    #[test]
    fn answers_are_told_apart_by_their_number() {
        for (xid, expected) in [
            (-1, Answer::Watch),
            (-2, Answer::Ping),
            (5, Answer::Reply),
            (-4, Answer::Reply),
        ] {
            assert_eq!(answer(&message(xid, 0, &Writer::default())), expected);
        }
    }

    #[test]
    fn lengths_count_themselves_and_words_are_none() {
        assert_eq!(message_len(&[0, 0]), Ok(None));
        assert_eq!(message_len(&[0, 0, 0, 2, 1]), Ok(None));
        assert_eq!(message_len(&[0, 0, 0, 2, 1, 2, 3]), Ok(Some(6)));
        assert_eq!(message_len(b"srvr"), Err(Malformed));
    }
}
