//! HTTP/2 in the clear, with gRPC on it.
//!
//! Frames pass as they are, but for data, which is cut so that no frame holds parts of two messages: then a message
//! can be held, or thrown away, alone. Headers are never held: what a later one means depends on the earlier ones of
//! all streams.

use std::collections::BTreeMap;
use std::fmt;

use loona_hpack::Decoder;

use super::grpc::{Body, PREFIX, What};
use super::{Splitter, Way};
use crate::fault::proxy::message::{Call, Kind, Message};

/// What a client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Length, type, flags and stream, in front of every frame.
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The one method that answers with events.
const WATCH: &str = "Watch/Watch";

/// Both directions of one connection.
#[derive(Default)]
pub(super) struct Http2 {
    up: Splitter,
    down: Splitter,
    preface_seen: bool,
    streams: BTreeMap<u32, Stream>,
    /// Knows what the client's headers mean.
    headers: Headers,
}

/// One call.
#[derive(Debug, Default)]
struct Stream {
    /// `KV/Txn`
    method: String,
    up: Body,
    down: Body,
    /// The server has said something besides headers.
    answered: bool,
    /// The client does not want the answer any more. Such a stream is kept for as long as the connection is, unless
    /// the server ends it: it answers or not.
    cancelled: bool,
}

impl Http2 {
    pub(super) fn feed(&mut self, way: Way, chunk: &[u8]) -> Vec<Message> {
        let parts = match way {
            Way::Up => {
                let preface_seen = &mut self.preface_seen;
                self.up.feed(chunk, |buf| match *preface_seen {
                    true => Ok::<_, NotHttp2>(frame_len(buf)),
                    false => {
                        let len = preface_len(buf)?;
                        *preface_seen = len.is_some();
                        Ok(len)
                    }
                })
            }
            // What is not HTTP/2 one way is not the other way either.
            Way::Down if self.up.given_up => vec![Err(chunk.to_vec())],
            Way::Down => self
                .down
                .feed(chunk, |buf| Ok::<_, NotHttp2>(frame_len(buf))),
        };
        let mut messages = Vec::new();
        for part in parts {
            match part {
                Err(garbage) => messages.push(Message::new(garbage, Kind::Raw)),
                Ok(preface) if preface == PREFACE => {
                    messages.push(Message::new(preface, Kind::Upkeep));
                }
                Ok(frame) => self.frame(way, frame, &mut messages),
            }
        }
        messages
    }

    pub(super) fn rest(&mut self, way: Way) -> Vec<u8> {
        match way {
            Way::Up => self.up.rest(),
            Way::Down => self.down.rest(),
        }
    }

    fn frame(&mut self, way: Way, bytes: Vec<u8>, messages: &mut Vec<Message>) {
        let frame = Frame::read(&bytes);
        match (way, frame.kind) {
            (_, DATA) => self.data(way, &bytes, messages),
            (Way::Up, HEADERS | CONTINUATION) => {
                if let Some((stream, method)) = self.headers.read(&frame) {
                    self.streams.entry(stream).or_default().method = method;
                }
                messages.push(Message::new(bytes, Kind::Upkeep));
            }
            (Way::Down, HEADERS | RST_STREAM) => {
                let ends = frame.kind == RST_STREAM || frame.has(END_STREAM);
                let stream = frame.stream;
                let message = match self.streams.get(&stream) {
                    // The end alone, with no message before it, is an answer too: an error.
                    Some(call) if ends && !call.answered => {
                        let mut reply = Message::new(bytes, Kind::Reply).on_stream(stream);
                        reply.late = call.cancelled;
                        reply
                    }
                    _ => Message::new(bytes, Kind::Upkeep),
                };
                messages.push(message);
                if ends {
                    self.streams.remove(&stream);
                }
            }
            (Way::Up, RST_STREAM) => {
                let stream = frame.stream;
                if let Some(call) = self.streams.get_mut(&stream) {
                    call.cancelled = true;
                }
                messages.push(Message::new(bytes, Kind::Cancel).on_stream(stream));
            }
            (Way::Up, WINDOW_UPDATE) => {
                let stream = frame.stream;
                messages.push(Message::new(bytes, Kind::Upkeep).on_stream(stream));
            }
            _ => messages.push(Message::new(bytes, Kind::Upkeep)),
        }
    }

    /// Cuts a data frame so that each of the new ones lies within one gRPC message.
    fn data(&mut self, way: Way, bytes: &[u8], messages: &mut Vec<Message>) {
        let frame = Frame::read(bytes);
        let stream = frame.stream;
        let as_it_is = || Message::new(bytes.to_vec(), Kind::Rest).on_stream(stream);
        // Nobody who speaks gRPC pads, and giving the padding's room back would have to be somebody's business.
        let Some(call) = self.streams.get_mut(&stream).filter(|_| !frame.has(PADDED)) else {
            messages.push(as_it_is());
            return;
        };
        let (body, watches) = match way {
            Way::Up => (&mut call.up, false),
            Way::Down => (&mut call.down, call.method == WATCH),
        };
        let pieces = body.cut(frame.payload, watches);
        let ends = frame.has(END_STREAM);
        for piece in pieces {
            let kind = match (way, piece.what) {
                (_, What::Rest) => Kind::Rest,
                (Way::Up, _) => Kind::Command,
                (Way::Down, What::Message) => Kind::Reply,
                (Way::Down, What::Events) => Kind::Push,
            };
            let mut message =
                Message::new(data_frame(stream, &piece.bytes), kind).on_stream(stream);
            match way {
                Way::Up if kind == Kind::Command => {
                    let call = Call {
                        name: call.method.clone(),
                        path: String::new(),
                    };
                    message = message.asking(call, HEAD + PREFIX);
                }
                Way::Up => {}
                Way::Down => {
                    call.answered = true;
                    message.late = call.cancelled;
                }
            }
            messages.push(message);
        }
        if ends {
            messages.push(end_of_stream(stream, &body_rest(way, call)));
            if way == Way::Down {
                self.streams.remove(&stream);
            }
        }
    }
}

impl fmt::Debug for Http2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2")
            .field("preface_seen", &self.preface_seen)
            .field("streams", &self.streams)
            .finish_non_exhaustive()
    }
}

/// Gives the server the room back that a data frame of its has taken, as the client would have done.
pub(super) fn room_taken_by(discarded: &Message) -> Option<Message> {
    // Only frames belong to a stream; bytes that are none must not be read as one.
    let frame = (discarded.stream > 0).then(|| Frame::read(&discarded.bytes))?;
    let len = u32::try_from(frame.payload.len()).ok()?;
    if frame.kind != DATA || len == 0 {
        return None;
    }
    let windows = [frame.stream, 0].map(|stream| {
        let mut update = head(4, WINDOW_UPDATE, 0, stream);
        update.extend_from_slice(&len.to_be_bytes());
        update
    });
    Some(Message::new(windows.concat(), Kind::Upkeep))
}

fn body_rest(way: Way, call: &mut Stream) -> Vec<u8> {
    match way {
        Way::Up => call.up.rest(),
        Way::Down => call.down.rest(),
    }
}

fn data_frame(stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(payload.len(), DATA, 0, stream);
    frame.extend_from_slice(payload);
    frame
}

/// An end of its own, so that it comes through whatever becomes of the data before it.
fn end_of_stream(stream: u32, payload: &[u8]) -> Message {
    let mut frame = head(payload.len(), DATA, END_STREAM, stream);
    frame.extend_from_slice(payload);
    Message::new(frame, Kind::Upkeep).on_stream(stream)
}

fn head(len: usize, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
    let len = u32::try_from(len).expect("no longer than the frame it was cut from");
    let mut head = len.to_be_bytes()[1..].to_vec();
    head.extend([kind, flags]);
    head.extend_from_slice(&stream.to_be_bytes());
    head
}

/// The bytes are not the beginning of HTTP/2.
struct NotHttp2;

fn preface_len(buf: &[u8]) -> Result<Option<usize>, NotHttp2> {
    let len = buf.len().min(PREFACE.len());
    match buf[..len] == PREFACE[..len] {
        true => Ok((len == PREFACE.len()).then_some(len)),
        false => Err(NotHttp2),
    }
}

fn frame_len(buf: &[u8]) -> Option<usize> {
    let [a, b, c] = *buf.first_chunk()?;
    let len = HEAD + usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
    (buf.len() >= len).then_some(len)
}

/// One whole frame.
struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

impl Frame<'_> {
    fn read(bytes: &[u8]) -> Frame<'_> {
        let [.., kind, flags, a, b, c, d] = *bytes.first_chunk::<HEAD>().expect("a whole frame");
        Frame {
            kind,
            flags,
            // The highest bit means nothing.
            stream: u32::from_be_bytes([a & 0x7f, b, c, d]),
            payload: &bytes[HEAD..],
        }
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Reads headers, which may be spread over several frames and refer to what any earlier headers said.
struct Headers {
    decoder: Decoder<'static>,
    block: Vec<u8>,
}

impl Default for Headers {
    fn default() -> Headers {
        Headers {
            decoder: Decoder::new(),
            block: Vec::new(),
        }
    }
}

impl Headers {
    /// Adds a frame; gives the stream and its method once the headers are whole and say one.
    fn read(&mut self, frame: &Frame<'_>) -> Option<(u32, String)> {
        self.block.extend_from_slice(fragment(frame));
        if !frame.has(END_HEADERS) {
            return None;
        }
        let block = std::mem::take(&mut self.block);
        let headers = self.decoder.decode(&block).ok()?;
        let (_, path) = headers.iter().find(|(name, _)| &name[..] == b":path")?;
        Some((frame.stream, method(&String::from_utf8_lossy(path))))
    }
}

/// What a headers frame carries, without what else may stand around it.
fn fragment<'a>(frame: &Frame<'a>) -> &'a [u8] {
    let mut rest = frame.payload;
    if frame.kind == HEADERS && frame.has(PADDED) {
        let padding = rest.first().copied().map_or(0, usize::from);
        rest = rest
            .get(1..rest.len().saturating_sub(padding))
            .unwrap_or_default();
    }
    if frame.kind == HEADERS && frame.has(PRIORITY) {
        rest = rest.get(5..).unwrap_or_default();
    }
    rest
}

/// `/etcdserverpb.KV/Txn` is `KV/Txn`.
fn method(path: &str) -> String {
    let path = path.trim_start_matches('/');
    let service = path.split('/').next().unwrap_or_default();
    let package = service.rfind('.').map_or(0, |dot| dot + 1);
    path[package..].to_owned()
}

#[cfg(test)]
mod tests;
