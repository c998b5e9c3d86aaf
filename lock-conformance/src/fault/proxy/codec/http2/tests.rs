use loona_hpack::Encoder;

use super::*;

/// The preface and the headers of calls, which refer to each other.
fn calls(methods: &[(u32, &str)]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let mut bytes = PREFACE.to_vec();
    for (stream, path) in methods {
        let headers = [(&b":method"[..], &b"POST"[..]), (b":path", path.as_bytes())];
        let block = encoder.encode(headers);
        bytes.extend(frame(HEADERS, END_HEADERS, *stream, &block));
    }
    bytes
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(payload.len(), kind, flags, stream);
    frame.extend_from_slice(payload);
    frame
}

fn grpc(content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len()).unwrap();
    [&[0], &len.to_be_bytes()[..], content].concat()
}

fn kinds(messages: &[Message]) -> Vec<Kind> {
    messages.iter().map(|message| message.kind).collect()
}

const TXN: &str = "/etcdserverpb.KV/Txn";
const WATCHES: &str = "/etcdserverpb.Watch/Watch";
const EVENTS: &[u8] = &[0x0a, 2, 1, 1, 0x5a, 3, 1, 2, 3];
const CREATED: &[u8] = &[0x0a, 2, 1, 1, 0x18, 1];

#[test]
fn calls_are_named_and_their_messages_seen_however_they_are_chunked() {
    let mut stream = calls(&[(1, TXN), (3, WATCHES), (5, TXN)]);
    let settings = frame(4, 0, 0, &[]);
    stream.extend_from_slice(&settings);
    for id in [5, 3] {
        stream.extend(frame(DATA, END_STREAM, id, &grpc(b"question")));
    }
    for size in 1..=stream.len() {
        let mut codec = Http2::default();
        let messages: Vec<_> = stream
            .chunks(size)
            .flat_map(|chunk| codec.feed(Way::Up, chunk))
            .collect();
        let commands: Vec<_> = messages
            .iter()
            .filter(|message| message.kind == Kind::Command)
            .map(|message| {
                let call = message.call.as_ref().unwrap();
                (message.stream, &*call.name, &message.bytes[message.body..])
            })
            .collect();
        let question = &b"question"[..];
        assert_eq!(
            commands,
            [(5, "KV/Txn", question), (3, "Watch/Watch", question)]
        );
        assert!(codec.rest(Way::Up).is_empty());
    }
}

#[test]
fn headers_in_several_frames_with_padding_and_priority_are_read() {
    let block = Encoder::new().encode([(&b":path"[..], TXN.as_bytes())]);
    let (first, second) = block.split_at(3);
    let padded = [&[2], &[0; 5][..], first, &[0; 2]].concat();
    let stream = [
        PREFACE.to_vec(),
        frame(HEADERS, PADDED | PRIORITY, 1, &padded),
        frame(CONTINUATION, END_HEADERS, 1, second),
        frame(DATA, 0, 1, &grpc(b"")),
    ]
    .concat();
    let messages = Http2::default().feed(Way::Up, &stream);
    assert_eq!(
        messages.last().unwrap().call.as_ref().unwrap().name,
        "KV/Txn"
    );
}

#[test]
fn data_is_cut_at_the_bounds_of_messages_and_none_is_lost() {
    let mut codec = Http2::default();
    codec.feed(Way::Up, &calls(&[(1, WATCHES)]));
    let all = [grpc(CREATED), grpc(EVENTS), grpc(EVENTS), grpc(CREATED)].concat();
    for size in 1..=all.len() {
        let mut passed = Vec::new();
        let mut starts = Vec::new();
        for chunk in all.chunks(size) {
            for message in codec.feed(Way::Down, &frame(DATA, 0, 1, chunk)) {
                assert_eq!(message.stream, 1);
                passed.extend_from_slice(&message.bytes[HEAD..]);
                starts.push(message.kind);
            }
        }
        assert_eq!(passed, all);
        starts.retain(|kind| *kind != Kind::Rest);
        assert_eq!(starts, [Kind::Reply, Kind::Push, Kind::Push, Kind::Reply]);
    }
}

#[test]
fn every_call_has_a_reply_be_it_an_error_or_a_reset() {
    let mut codec = Http2::default();
    codec.feed(Way::Up, &calls(&[(1, TXN), (3, TXN), (5, TXN)]));
    let answer = [
        frame(HEADERS, END_HEADERS, 1, b"h"),
        frame(DATA, 0, 1, &grpc(b"answer")),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, b"t"),
    ];
    let messages = codec.feed(Way::Down, &answer.concat());
    assert_eq!(kinds(&messages), [Kind::Upkeep, Kind::Reply, Kind::Upkeep]);
    let error = frame(HEADERS, END_HEADERS | END_STREAM, 3, b"e");
    assert_eq!(kinds(&codec.feed(Way::Down, &error)), [Kind::Reply]);
    let reset = frame(RST_STREAM, 0, 5, &[0; 4]);
    assert_eq!(kinds(&codec.feed(Way::Down, &reset)), [Kind::Reply]);
    assert!(codec.streams.is_empty());
}

#[test]
fn reply_to_a_call_that_was_given_up_is_late() {
    let mut codec = Http2::default();
    codec.feed(Way::Up, &calls(&[(1, TXN)]));
    let cancel = frame(RST_STREAM, 0, 1, &[0; 4]);
    assert_eq!(kinds(&codec.feed(Way::Up, &cancel)), [Kind::Cancel]);
    let reply = frame(DATA, 0, 1, &grpc(b"answer"));
    assert!(codec.feed(Way::Down, &reply)[0].late);
}

#[test]
fn end_of_a_stream_comes_apart_from_its_last_message() {
    let mut codec = Http2::default();
    let mut stream = calls(&[(1, TXN)]);
    stream.extend(frame(DATA, END_STREAM, 1, &grpc(b"question")));
    let messages = codec.feed(Way::Up, &stream);
    let [.., data, end] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert_eq!(data.bytes, frame(DATA, 0, 1, &grpc(b"question")));
    assert_eq!(end.bytes, frame(DATA, END_STREAM, 1, &[]));
    assert_eq!(end.stream, 1);
}

#[test]
fn room_of_thrown_away_data_is_given_back_for_the_stream_and_the_connection() {
    let data = Message::new(frame(DATA, 0, 7, b"12345"), Kind::Push).on_stream(7);
    let room = room_taken_by(&data).unwrap();
    let update = |stream| frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 5]);
    assert_eq!(room.bytes, [update(7), update(0)].concat());
    let headers = Message::new(frame(HEADERS, 0, 7, b"12345"), Kind::Reply).on_stream(7);
    assert_eq!(room_taken_by(&headers), None);
}

#[test]
fn other_protocols_are_passed_on_as_they_come() {
    let mut codec = Http2::default();
    assert!(codec.feed(Way::Up, b"PRI ").is_empty());
    let hello = Message::new(b"PRI -hello".to_vec(), Kind::Raw);
    assert_eq!(codec.feed(Way::Up, b"-hello"), [hello]);
    assert_eq!(codec.feed(Way::Down, b"x")[0].kind, Kind::Raw);
}
