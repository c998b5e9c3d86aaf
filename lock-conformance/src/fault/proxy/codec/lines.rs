//! Protocols of lines.

use std::convert::Infallible;

use super::{Splitter, Way};
use crate::fault::proxy::message::{Kind, Message};

/// Both directions of one connection.
#[derive(Debug, Default)]
pub(super) struct Codec {
    up: Splitter,
    down: Splitter,
}

impl Codec {
    pub(super) fn feed(&mut self, way: Way, chunk: &[u8]) -> Vec<Message> {
        let kind = match way {
            Way::Up => Kind::Command,
            Way::Down => Kind::Reply,
        };
        let lines = self.direction(way).feed(chunk, line_len).into_iter();
        lines
            .map(|(Ok(line) | Err(line))| Message::new(line, kind))
            .collect()
    }

    pub(super) fn rest(&mut self, way: Way) -> Vec<u8> {
        self.direction(way).rest()
    }

    fn direction(&mut self, way: Way) -> &mut Splitter {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }
}

fn line_len(bytes: &[u8]) -> Result<Option<usize>, Infallible> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    Ok(end.map(|end| end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_arrive() {
        let mut codec = Codec::default();
        assert!(codec.feed(Way::Up, b"get ").is_empty());
        let asked = codec.feed(Way::Up, b"a\nget b\r\nget");
        let bytes: Vec<_> = asked.iter().map(|line| &line.bytes[..]).collect();
        assert_eq!(bytes, [&b"get a\n"[..], b"get b\r\n"]);
        assert!(asked.iter().all(|line| line.kind == Kind::Command));
        assert_eq!(codec.rest(Way::Up), b"get");
        assert_eq!(codec.feed(Way::Down, b"1\n")[0].kind, Kind::Reply);
    }
}
