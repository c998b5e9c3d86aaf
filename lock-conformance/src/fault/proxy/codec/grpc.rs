//! gRPC messages on an HTTP/2 stream, and which of etcd's carry events.

/// In front of each message: whether it is compressed, and its length.
pub(super) const PREFIX: usize = 5;

/// One direction of a stream: where the message under way ends.
#[derive(Debug, Default)]
pub(super) struct Body {
    /// The beginning of a message of which it is not known yet what it is.
    undecided: Vec<u8>,
    /// How much is still to come of the message that is under way.
    left: usize,
}

/// A part of a stream that lies within one message.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum What {
    /// Begins a message.
    Message,
    /// Begins a message with watch events in it.
    Events,
    /// Goes on with the message of the piece before.
    Rest,
}

impl Body {
    /// Cuts data, as it comes, at the messages' bounds. With `watches`, they are what etcd's watch answers with.
    ///
    /// Never waits for the whole of a message: its sender may not be allowed to send that much before somebody takes
    /// what has come so far.
    pub(super) fn cut(&mut self, mut data: &[u8], watches: bool) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while !data.is_empty() {
            if self.left > 0 {
                let bytes = take(&mut data, self.left);
                self.left -= bytes.len();
                pieces.push(Piece {
                    bytes: bytes.to_vec(),
                    what: What::Rest,
                });
                continue;
            }
            let prefix_left = PREFIX.saturating_sub(self.undecided.len());
            self.undecided
                .extend_from_slice(take(&mut data, prefix_left));
            let Some(len) = message_len(&self.undecided) else {
                break;
            };
            let missing = len - self.undecided.len();
            self.undecided.extend_from_slice(take(&mut data, missing));
            let message = &self.undecided[PREFIX..];
            let is_whole = self.undecided.len() == len;
            let has_events = match watches {
                true => has_events(message, is_whole),
                false => Some(false),
            };
            if let Some(has_events) = has_events {
                self.left = len - self.undecided.len();
                pieces.push(Piece {
                    bytes: std::mem::take(&mut self.undecided),
                    what: if has_events {
                        What::Events
                    } else {
                        What::Message
                    },
                });
            }
        }
        pieces
    }

    /// What has come and was not given yet, at the end of the stream.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.undecided)
    }
}

fn take<'a>(data: &mut &'a [u8], at_most: usize) -> &'a [u8] {
    let (taken, rest) = data.split_at(at_most.min(data.len()));
    *data = rest;
    taken
}

/// The length of the message with its prefix; `None` while that is not whole.
fn message_len(start: &[u8]) -> Option<usize> {
    let (_compressed, len) = start.get(..PREFIX)?.split_first()?;
    let len = u32::from_be_bytes(len.try_into().ok()?);
    Some(PREFIX + usize::try_from(len).ok()?)
}

/// Whether the protobuf message that begins so is a `WatchResponse` with events; `None` while that is open.
///
/// Fields are written in the order of their numbers, and events have the last one: what stands before them (who
/// answers, which watch, whether it was created or cancelled) is short.
fn has_events(message: &[u8], is_whole: bool) -> Option<bool> {
    const EVENTS: u64 = 11;
    let mut rest = message;
    loop {
        match field(&mut rest) {
            Some(EVENTS) => return Some(true),
            Some(_) => {}
            None => return is_whole.then_some(false),
        }
    }
}

/// Reads a field's number and skips its value, of the events only the number.
fn field(rest: &mut &[u8]) -> Option<u64> {
    let tag = varint(rest)?;
    let number = tag >> 3;
    if number == 11 {
        return Some(number);
    }
    let len = match tag & 7 {
        0 => {
            varint(rest)?;
            0
        }
        1 => 8,
        2 => usize::try_from(varint(rest)?).ok()?,
        5 => 4,
        _ => return None,
    };
    *rest = rest.get(len..)?;
    Some(number)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message with its prefix.
    fn message(content: &[u8]) -> Vec<u8> {
        let len = u32::try_from(content.len()).unwrap();
        [&[0], &len.to_be_bytes()[..], content].concat()
    }

    /// A header of two bytes, the watch's number, `created`.
    const CREATED: &[u8] = &[0x0a, 2, 1, 1, 0x10, 7, 0x18, 1];
    /// The same with an event of three bytes in place of `created`.
    const EVENTS: &[u8] = &[0x0a, 2, 1, 1, 0x10, 7, 0x5a, 3, 1, 2, 3];

    #[test]
    fn messages_are_found_and_told_apart_however_they_are_cut() {
        let stream = [
            message(CREATED),
            message(EVENTS),
            message(&[]),
            message(EVENTS),
        ]
        .concat();
        for size in 1..=stream.len() {
            let mut body = Body::default();
            let pieces: Vec<_> = stream
                .chunks(size)
                .flat_map(|chunk| body.cut(chunk, true))
                .collect();
            let bytes: Vec<u8> = pieces
                .iter()
                .flat_map(|piece| piece.bytes.clone())
                .collect();
            assert_eq!(bytes, stream, "chunks of {size}");
            let mut starts: Vec<What> = pieces.iter().map(|piece| piece.what).collect();
            starts.retain(|what| *what != What::Rest);
            let expected = [What::Message, What::Events, What::Message, What::Events];
            assert_eq!(starts, expected, "chunks of {size}");
            assert!(body.rest().is_empty());
        }
    }

    #[test]
    fn long_message_is_given_on_before_it_is_whole() {
        let long = [EVENTS, &[0; 1000]].concat();
        let long = message(&long);
        let mut body = Body::default();
        let pieces = body.cut(&long[..20], true);
        assert_eq!(pieces.len(), 1);
        assert_eq!((pieces[0].bytes.len(), pieces[0].what), (20, What::Events));
        assert_eq!(body.cut(&long[20..100], true)[0].what, What::Rest);
    }

    #[test]
    fn other_streams_have_no_events() {
        let mut body = Body::default();
        assert_eq!(body.cut(&message(EVENTS), false)[0].what, What::Message);
    }
}
