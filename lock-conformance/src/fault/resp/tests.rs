use super::*;

const EVERY_TYPE: &[&[u8]] = &[
    b"+OK\r\n",
    b"-ERR no\r\n",
    b":-42\r\n",
    b"$5\r\na\r\nbc\r\n",
    b"$0\r\n\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
    b"_\r\n",
    b"#t\r\n",
    b",1.5\r\n",
    b"(123456789012345678901234567890\r\n",
    b"!5\r\nERR x\r\n",
    b"=7\r\ntxt:abc\r\n",
    b"%1\r\n+k\r\n*1\r\n:1\r\n",
    b"~1\r\n+x\r\n",
    b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n",
    b"|1\r\n+ttl\r\n:3\r\n$1\r\nv\r\n",
    b"PING\r\n",
];

#[test]
fn message_ends_where_it_ends_whatever_follows() {
    for message in EVERY_TYPE {
        let mut buf = message.to_vec();
        buf.extend_from_slice(b"*1\r\n$1");
        assert_eq!(message_len(&buf), Ok(Some(message.len())), "{message:?}");
    }
}

#[test]
fn every_cut_of_a_message_asks_for_more() {
    for message in EVERY_TYPE {
        for end in 0..message.len() {
            assert_eq!(message_len(&message[..end]), Ok(None), "{message:?} {end}");
        }
    }
}

#[test]
fn garbage_lengths_are_refused() {
    for bad in [
        &b"$x\r\n"[..],
        b"*-2\r\n",
        b"$99999999999\r\n",
        b"$1\r\nabc\r\n",
    ] {
        assert_eq!(message_len(bad), Err(Malformed), "{bad:?}");
    }
}

#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    let mut deep = b"*1\r\n".repeat(1_000_000);
    deep.extend_from_slice(b":1\r\n");
    assert_eq!(message_len(&deep), Ok(Some(deep.len())));
}

#[test]
fn replies_are_read_with_nested_values() {
    let (reply, used) = parse_reply(b"*3\r\n$1\r\na\r\n_\r\n%1\r\n+k\r\n:7\r\nrest")
        .unwrap()
        .unwrap();
    assert_eq!(used, 26);
    assert_eq!(
        reply,
        Reply::Array(vec![
            Reply::Bulk(b"a".to_vec()),
            Reply::Nil,
            Reply::Array(vec![Reply::Status("k".into()), Reply::Int(7)]),
        ])
    );
    assert_eq!(reply.to_string(), "a\n\nk\n7");
}

#[test]
fn command_survives_encoding_and_splitting() {
    let words = ["SET", "key with space", "a\r\nb"];
    let message = encode_command(&words);
    assert_eq!(message_len(&message), Ok(Some(message.len())));
    assert_eq!(
        command_words(&message),
        words.map(|w| w.as_bytes().to_vec())
    );
    assert!(is_command(&message, "set"));
    assert!(!is_command(&message, "SETNX"));
    assert_eq!(
        command_words(b"ping  x\r\n"),
        [b"ping".to_vec(), b"x".to_vec()]
    );
}

#[test]
fn only_push_frames_have_a_push_kind() {
    let push = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n";
    assert_eq!(push_kind(push), Some(b"message".to_vec()));
    assert_eq!(
        push_kind(b"|1\r\n+k\r\n:1\r\n>1\r\n+smessage\r\n"),
        Some(b"smessage".to_vec())
    );
    assert!(!is_push(b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"));
    assert!(!is_push(b"+>\r\n"));
}
