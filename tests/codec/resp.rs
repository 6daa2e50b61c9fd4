//! The codec of Redis' protocol, compared with its specification. Damaged streams are in
//! `framings`.

use std::time::Instant;

use crate::check::resp::commands::{Words, encode, random_words, words};
use crate::check::resp::replies::{described, random_reply};
use crate::check::resp::{decode, pieces};
use crate::common::seeds::for_each_seed;
use millstream::codec::Codec;
use millstream::codec::resp::{
    Protocol, ProtocolError, Replies, Reply, ReplyError, RespClient, RespServer,
};
use millstream::{Input, OutputBuffer};

/// The commands of a stream, and the error that ended it.
fn decode_commands(
    codec: &mut RespServer,
    pieces: &[&[u8]],
) -> (Vec<Words>, Option<ProtocolError>) {
    let (commands, error, _) = decode(codec, pieces, |command| words(&command));
    (commands, error)
}

fn whole(stream: &[u8]) -> (Vec<Words>, Option<ProtocolError>) {
    decode_commands(&mut RespServer::new(), &[stream])
}

#[test]
fn commands_survive_any_cut() {
    for_each_seed(300, |seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let commands: Vec<Words> = (0..rng.usize(1..20)).map(|_| random_words(&mut rng)).collect();
        let stream: Vec<u8> = commands.iter().flat_map(encode).collect();
        let decoded = decode_commands(&mut RespServer::new(), &pieces(&stream, &mut rng));
        assert_eq!(decoded, (commands, None));
    });
}

#[test]
fn protocol_errors_have_the_words_of_redis() {
    let digits = vec![b'1'; 70_000];
    let cases: [(&[&[u8]], &str); 13] = [
        (&[b"*x\r\n"], "invalid multibulk length"),
        (&[b"*1048577\r\n"], "invalid multibulk length"),
        (&[b"*01\r\n"], "invalid multibulk length"),
        (&[b"*99999999999999999999\r\n"], "invalid multibulk length"),
        (&[b"*1\r\nx"], "expected '$', got 'x'"),
        (&[b"*2\r\n$1\r\na\r\n:1\r\n"], "expected '$', got ':'"),
        (&[b"*1\r\n$-1\r\n"], "invalid bulk length"),
        (&[b"*1\r\n$536870913\r\n"], "invalid bulk length"),
        (&[b"*1\r\n$1\r\nabc"], "expected CRLF behind a bulk string"),
        (&[b"get \"a\r\n"], "unbalanced quotes in request"),
        (&[&digits], "too big inline request"),
        (&[b"*", &digits], "too big mbulk count string"),
        (&[b"*1\r\n$", &digits], "too big bulk count string"),
    ];
    for (stream, expected) in cases {
        let (commands, error) = whole(&stream.concat());
        assert!(commands.is_empty());
        let text = error.unwrap_or_else(|| panic!("no error: {expected}")).to_string();
        assert_eq!(text, format!("Protocol error: {expected}"));
    }
}

#[test]
fn an_error_takes_nothing() {
    let mut input = Input::from(&b"*1\r\n$x\r\n"[..]);
    assert_eq!(RespServer::new().decode(&mut input).unwrap_err(), ProtocolError::InvalidLength);
    assert_eq!(input.taken(), 0);
    let mut input = Input::from(&b"*0\r\n\r\n*1\r\n$x\r\n"[..]);
    assert_eq!(RespServer::new().decode(&mut input).unwrap_err(), ProtocolError::InvalidLength);
    assert_eq!(input.taken(), 0, "nor the empty commands in front of it");
}

/// What was noted of a head that was not complete is not used for the next one.
#[test]
fn a_head_in_two_pieces_does_not_hide_the_next_ones_error() {
    let mut codec = RespServer::new();
    assert!(codec.decode(&mut Input::from(&b"*2\r\n$12\r"[..])).unwrap().is_none());
    let whole = b"*2\r\n$12\r\nabcdefghijkl\r\n$x\r\n";
    let error = codec.decode(&mut Input::from(&whole[..])).unwrap_err();
    assert_eq!(error, ProtocolError::InvalidLength);
}

#[test]
fn empty_commands_are_passed_over() {
    let (commands, error) = whole(b"*0\r\n\r\n*-1\r\n \t \n*1\r\n$4\r\nPING\r\n");
    assert_eq!((commands, error), (vec![vec![b"PING".to_vec()]], None));
}

#[test]
fn limits_can_be_set() {
    let refused =
        |codec: RespServer, stream: &[u8]| decode_commands(&mut codec.clone(), &[stream]).1;
    let codec = RespServer::new().max_arguments(2).max_bulk_length(5).max_frame_length(30);
    assert_eq!(refused(codec.clone(), b"*2\r\n$5\r\naaaaa\r\n$5\r\nbbbbb\r\n"), None);
    assert_eq!(refused(codec.clone(), b"*3\r\n"), Some(ProtocolError::InvalidCount));
    assert_eq!(refused(codec.clone(), b"*1\r\n$6\r\n"), Some(ProtocolError::InvalidLength));
    let codec = codec.max_bulk_length(100);
    let long = ProtocolError::FrameTooLong { max_length: 30 };
    assert_eq!(refused(codec, b"*1\r\n$25\r\n"), Some(long), "before the bytes are there");
}

/// Byte by byte, a command costs no more than some constant for each byte.
#[test]
fn trickled_commands_cost_linear_time() {
    let argument = vec![b'a'; 60_000];
    let mut many = b"*20000\r\n".to_vec();
    many.extend(b"$1\r\na\r\n".repeat(20_000));
    let big = [&b"*1\r\n$60000\r\n"[..], &argument, b"\r\n"].concat();
    let inline = [&argument[..], b"\n"].concat();
    for (stream, begins) in [(many, 140_000), (big, 60_000), (inline, 60_000)] {
        let begin = Instant::now();
        let mut codec = RespServer::new();
        for end in 1..=stream.len() {
            let decoded = codec.decode(&mut Input::from(&stream[..end])).unwrap();
            assert_eq!(decoded.is_some(), end == stream.len());
        }
        assert!(stream.len() >= begins);
        assert!(begin.elapsed().as_secs() < 5, "{:?} for {} bytes", begin.elapsed(), stream.len());
    }
}

/// All kinds of replies, in both versions, against the specification.
#[test]
fn replies_are_written_as_the_specification_has_them() {
    type Write = fn(&mut Replies<'_, '_>);
    let cases: [(Write, &str, &str); 20] = [
        (|r| r.ok(), "+OK\r\n", "+OK\r\n"),
        (|r| r.simple(b"a\r\nb"), "+a  b\r\n", "+a  b\r\n"),
        (|r| r.error(b"ERR x\ny"), "-ERR x y\r\n", "-ERR x y\r\n"),
        (|r| r.integer(-7), ":-7\r\n", ":-7\r\n"),
        (|r| r.integer(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n"),
        (|r| r.count(1234), ":1234\r\n", ":1234\r\n"),
        (|r| r.bulk(b""), "$0\r\n\r\n", "$0\r\n\r\n"),
        (|r| r.bulk(b"twelve bytes"), "$12\r\ntwelve bytes\r\n", "$12\r\ntwelve bytes\r\n"),
        (|r| r.bulk_integer(-10), "$3\r\n-10\r\n", "$3\r\n-10\r\n"),
        (|r| r.null(), "$-1\r\n", "_\r\n"),
        (|r| r.null_array(), "*-1\r\n", "_\r\n"),
        (|r| r.array(2), "*2\r\n", "*2\r\n"),
        (|r| r.map(2), "*4\r\n", "%2\r\n"),
        (|r| r.set(10), "*10\r\n", "~10\r\n"),
        (|r| r.push(3), "*3\r\n", ">3\r\n"),
        (|r| r.boolean(true), ":1\r\n", "#t\r\n"),
        (|r| r.boolean(false), ":0\r\n", "#f\r\n"),
        (|r| r.double(-1.25), "$5\r\n-1.25\r\n", ",-1.25\r\n"),
        (|r| r.double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n"),
        (|r| r.verbatim(*b"txt", b"ab"), "$2\r\nab\r\n", "=6\r\ntxt:ab\r\n"),
    ];
    for (write, resp2, resp3) in cases {
        for (protocol, expected) in [(Protocol::Resp2, resp2), (Protocol::Resp3, resp3)] {
            let mut buffer = OutputBuffer::new();
            write(&mut Replies::new(&mut buffer.output(), protocol));
            assert_eq!(String::from_utf8(buffer.take()).unwrap(), expected);
        }
    }
}

#[test]
fn bulk_strings_of_every_size() {
    for length in [0, 9, 10, 99, 100, 999, 4095, 4096, 4097, 16_384, 100_000] {
        let mut buffer = OutputBuffer::new();
        let payload = vec![b'x'; length];
        Replies::new(&mut buffer.output(), Protocol::Resp2).bulk(&payload);
        let bytes = buffer.take();
        let mut input = Input::from(&bytes[..]);
        assert_eq!(RespClient::new().decode(&mut input), Ok(Some(Reply::Bulk(&payload))));
        assert!(input.is_empty());
    }
}

/// What the writer wrote is decoded, whatever way it is cut, and encoding that gives the same
/// bytes.
#[test]
fn replies_survive_any_cut() {
    for_each_seed(500, |seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut buffer = OutputBuffer::new();
        let shape =
            random_reply(&mut rng, &mut Replies::new(&mut buffer.output(), Protocol::Resp3), 3);
        let stream = buffer.take();
        let (mut codec, mut unread) = (RespClient::new(), Vec::new());
        let pieces = pieces(&stream, &mut rng);
        for (index, piece) in pieces.iter().enumerate() {
            unread.extend_from_slice(piece);
            let mut input = Input::from(&unread[..]);
            let reply = codec.decode(&mut input).unwrap();
            assert_eq!(reply.is_some(), index + 1 == pieces.len());
            let Some(reply) = reply else { continue };
            assert!(input.is_empty());
            assert_eq!(described(&reply), shape);
            let mut again = RespServer::new();
            again.set_protocol(Protocol::Resp3);
            again.encode(reply, &mut buffer.output()).unwrap();
            assert_eq!(buffer.take(), stream);
        }
    });
}

#[test]
fn every_kind_of_reply_is_read() {
    let read = |stream: &'static str| {
        RespClient::new().decode(&mut Input::from(stream.as_bytes())).unwrap().unwrap()
    };
    assert_eq!(read("$-1\r\n"), Reply::Null);
    assert_eq!(read("*-1\r\n"), Reply::Null);
    assert_eq!(read("#t\r\n"), Reply::Boolean(true));
    assert_eq!(read(",1e3\r\n"), Reply::Double(1000.0));
    assert_eq!(read(",inf\r\n"), Reply::Double(f64::INFINITY));
    assert_eq!(read("(-123\r\n"), Reply::BigNumber(b"-123"));
    assert_eq!(read("!5\r\nERR x\r\n"), Reply::Error(b"ERR x"));
    assert_eq!(read("=5\r\ntxt:x\r\n"), Reply::Verbatim { format: *b"txt", text: b"x" });
    assert_eq!(read("|1\r\n+a\r\n:1\r\n:7\r\n"), Reply::Integer(7));
    let Reply::Set(set) = read("~2\r\n|1\r\n+a\r\n*1\r\n:0\r\n:1\r\n:2\r\n") else { panic!() };
    assert_eq!(set.collect::<Vec<_>>(), [Reply::Integer(1), Reply::Integer(2)]);
}

#[test]
fn bad_replies_are_refused() {
    let refused = |stream: &[u8]| RespClient::new().decode(&mut Input::from(stream)).unwrap_err();
    assert_eq!(refused(b"x"), ReplyError::Kind(b'x'));
    for stream in
        [":1x\r\n", "$?\r\n", "*?\r\n", "*-2\r\n", ",infinity\r\n", "#x\r\n", "_x\r\n", "(1-\r\n"]
    {
        let ReplyError::Value { kind, value } = refused(stream.as_bytes()) else { panic!() };
        assert_eq!(format!("{}{value}\r\n", char::from(kind)), stream);
    }
    assert_eq!(refused(b"$1\r\nabc"), ReplyError::NoEnd);
    let long = ReplyError::FrameTooLong { max_length: 1 << 30 };
    assert_eq!(refused(b"*9223372036854775807\r\n"), long);
    assert_eq!(refused(&b"*300000000\r\n".repeat(2)), long);
    let mut codec = RespClient::new().max_frame_length(10);
    let long = ReplyError::FrameTooLong { max_length: 10 };
    assert_eq!(codec.decode(&mut Input::from(&b"$100\r\n12345"[..])), Err(long));
}

/// A reply as deep as the stream is long is decoded without a stack that grows with it.
#[test]
fn depth_costs_no_stack() {
    let stream = [b"*1\r\n".repeat(200_000), b":1\r\n".to_vec()].concat();
    let reply = RespClient::new().decode(&mut Input::from(&stream[..])).unwrap().unwrap();
    let Reply::Array(mut elements) = reply else { panic!() };
    let owned = Reply::Array(elements.clone()).into_owned();
    assert_eq!(owned.get(), Reply::Array(elements.clone()));
    drop(owned);
    assert!(matches!(elements.next(), Some(Reply::Array(_))));
    assert!(elements.next().is_none());
}

/// It is the same reply when its input is gone, and it may go to another thread.
#[test]
fn an_owned_reply_outlives_its_input() {
    for_each_seed(300, |seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut buffer = OutputBuffer::new();
        let protocol = [Protocol::Resp2, Protocol::Resp3][rng.usize(..2)];
        random_reply(&mut rng, &mut Replies::new(&mut buffer.output(), protocol), 3);
        let stream = buffer.take();
        let reply = RespClient::new().decode(&mut Input::from(&stream[..])).unwrap().unwrap();
        let (expected, owned) = (described(&reply), reply.into_owned());
        drop(stream);
        let seen = std::thread::spawn(move || described(&owned.clone().get()));
        assert_eq!(seen.join().expect("it is described"), expected);
    });
    // What a program calls a number is only text if it is not one.
    let owned = Reply::BigNumber(b"a number").into_owned();
    assert_eq!(owned.get(), Reply::Bulk(b"a number"));
}
