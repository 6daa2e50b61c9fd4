//! The client's codec: against a naive reader of whole streams, which is shared with the fuzzer,
//! and against the tables of `docs/http_responses.md`.

use fastrand::Rng;
use millstream::codec::Codec;
use millstream::http::{
    BodyLength, Content, FieldLines, RequestContent, RequestFrame, ResponseCodec, ResponseError,
    ResponseLimit, ResponseLimits, ResponsePart,
};
use millstream::{Input, OutputBuffer};

use super::table::{Row, rows};
use crate::check::http_responses::{Case, random_stream};
use crate::common::corpus::replay;
use crate::common::seeds::for_each_seed;

const PAGE: &str = include_str!("../../../docs/http_responses.md");

#[test]
fn random_responses_are_read_as_a_naive_reader_reads_them() {
    for_each_seed(3_000, |seed| {
        let mut rng = Rng::with_seed(seed);
        let asked = if rng.bool() { 0 } else { rng.u8(..) };
        let stream = random_stream(&mut rng, asked);
        Case { limits: rng.u8(..), seed, asked, stream: &stream }.check();
    });
}

#[test]
fn the_fuzzers_responses_are_read_as_a_naive_reader_reads_them() {
    replay("http_responses", |bytes| Case::read(bytes).check());
}

/// A codec that a request waits at.
fn asking(method: &str, limits: ResponseLimits) -> ResponseCodec {
    let (mut codec, mut output) = (ResponseCodec::new(limits), OutputBuffer::new());
    let fields = FieldLines::new();
    codec
        .encode(RequestFrame::new(method, "/", "a", &fields), &mut output.output())
        .expect("a request");
    codec
}

/// How the codec ends with these bytes in pieces of this length and the connection's end behind
/// them: with an error, or with the content.
fn decode(method: &str, bytes: &[u8], piece: usize) -> Result<Vec<u8>, ResponseError> {
    let mut codec = asking(method, ResponseLimits::default());
    let (mut unread, mut body) = (Vec::new(), Vec::new());
    let pieces = bytes.chunks(piece).map(Some).chain([None]);
    for piece in pieces {
        unread.extend_from_slice(piece.unwrap_or_default());
        let mut input = Input::from(&unread[..]);
        loop {
            let part = match piece {
                Some(_) => codec.decode(&mut input)?,
                None => codec.decode_end(&mut input)?,
            };
            match part {
                Some(ResponsePart::Data(data)) => body.extend_from_slice(data),
                Some(_) => {}
                None => break,
            }
        }
        let taken = input.taken();
        unread.drain(..taken);
    }
    Ok(body)
}

#[test]
fn what_is_refused_has_its_error() {
    let rows = rows(PAGE, "# What is refused");
    assert!(rows.len() > 50, "{} rows were found", rows.len());
    for Row { what, example, result } in rows {
        let expected = result.expect("it has an error");
        for piece in [1, 7, usize::MAX] {
            let error = decode("GET", &example, piece).expect_err(what);
            assert_eq!(error.to_string(), expected, "{what}, {piece} bytes at a time");
        }
    }
}

#[test]
fn what_is_taken_has_its_content() {
    let rows = rows(PAGE, "# What is taken");
    assert!(rows.len() > 15, "{} rows were found", rows.len());
    for Row { what, example, result } in rows {
        let method = if what.contains("HEAD") { "HEAD" } else { "GET" };
        for piece in [1, 7, usize::MAX] {
            let body = decode(method, &example, piece).expect(what);
            let expected = result.unwrap_or_default().trim_matches('`');
            assert_eq!(body, expected.as_bytes(), "{what}, {piece} bytes at a time");
        }
    }
}

/// How long a head may be that is sent byte by byte, and what it costs to look for its end again
/// from the beginning each time, would be seen here as minutes.
#[test]
fn what_comes_byte_by_byte_is_looked_at_once() {
    let mut limits = ResponseLimits::default();
    (limits.head, limits.line, limits.extensions) = (1 << 22, 1 << 22, 1 << 20);
    let head = format!("HTTP/1.1 204 {}\r\n\r\n", "a".repeat(1 << 20));
    let chunk = format!("1;{}\r\na\r\n0\r\n\r\n", "a".repeat((1 << 20) - 1));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for stream in [head, [chunked, &chunk].concat()] {
        let (mut codec, mut from) = (asking("GET", limits), 0);
        for end in 1..=stream.len() {
            let mut input = Input::from(&stream.as_bytes()[from..end]);
            while codec.decode(&mut input).expect("it is a response").is_some() {}
            from += input.taken();
        }
        assert_eq!((from, codec.is_busy()), (stream.len(), false));
    }
}

/// What is written for a request, and whether the codec takes another one behind it.
fn written(frame: RequestFrame<'_>) -> Result<String, ResponseError> {
    let (mut codec, mut output) = (ResponseCodec::default(), OutputBuffer::new());
    let written = codec.encode(frame, &mut output.output());
    let bytes = output.take();
    assert_eq!((written.is_err(), codec.is_busy()), (bytes.is_empty(), written.is_ok()));
    written.map(|()| String::from_utf8(bytes).expect("it is text"))
}

#[test]
fn requests_say_how_long_they_are() {
    let mut fields = FieldLines::new();
    fields.push("Accept", "a").expect("a field");
    let frame = |method| RequestFrame::new(method, "/b?c", "d:8080", &fields);
    let text =
        |method: &str, rest: &str| format!("{method} /b?c HTTP/1.1\r\nHost: d:8080\r\n{rest}");
    let with = |method, content| RequestFrame { content, ..frame(method) };
    let borrowed = RequestContent::Whole(Content::Borrowed(b"abc"));
    let shared = b"abc".to_vec().into();
    let shared = RequestContent::Whole(Content::Shared(&shared));
    for (frame, rest) in [
        (frame("GET"), "Accept: a\r\n\r\n"),
        (frame("POST"), "Accept: a\r\nContent-Length: 0\r\n\r\n"),
        (with("GET", borrowed), "Accept: a\r\nContent-Length: 3\r\n\r\nabc"),
        (with("PUT", shared), "Accept: a\r\nContent-Length: 3\r\n\r\nabc"),
        (
            with("PUT", RequestContent::Follows(BodyLength::Chunked)),
            "Accept: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            with("PUT", RequestContent::Follows(BodyLength::Exact(7))),
            "Accept: a\r\nContent-Length: 7\r\n\r\n",
        ),
        (
            RequestFrame { keep_alive: false, ..frame("GET") },
            "Connection: close\r\nAccept: a\r\n\r\n",
        ),
    ] {
        assert_eq!(written(frame), Ok(text(frame.method, rest)));
    }
}

#[test]
fn what_is_not_a_request_is_not_written() {
    let fields = FieldLines::new();
    for (method, target, host, what) in [
        ("G T", "/", "a", "method"),
        ("", "/", "a", "method"),
        ("GET\r\n", "/", "a", "method"),
        ("GET", "", "a", "target"),
        ("GET", "/ HTTP/1.1\r\nA: b", "a", "target"),
        ("GET", "/#a", "a", "target"),
        ("GET", "/\u{e9}", "a", "target"),
        ("GET", "/", "", "host"),
        ("GET", "/", "a\r\nB: c", "host"),
        ("GET", "/", "u@a", "host"),
    ] {
        let written = written(RequestFrame::new(method, target, host, &fields));
        assert_eq!(written, Err(ResponseError::NotARequest { what }), "{method} {target} {host}");
    }
    let mut codec = asking("GET", ResponseLimits::default());
    let mut output = OutputBuffer::new();
    let frame = RequestFrame::new("GET", "/", "a", &fields);
    let second = codec.encode(frame, &mut output.output());
    assert_eq!((second, output.take()), (Err(ResponseError::Occupied), Vec::new()));
}

#[test]
fn a_content_is_limited() {
    let begin = |response: &str, bytes| {
        let (mut codec, mut input) =
            (asking("GET", ResponseLimits::default()), Input::from(response.as_bytes()));
        let head = codec.decode(&mut input);
        assert!(matches!(head, Ok(Some(ResponsePart::Head(_)))), "{head:?}");
        codec.limit_body(bytes)?;
        while codec.decode(&mut input)?.is_some() {}
        Ok(())
    };
    let too_long = Err(ResponseError::Exceeds { limit: ResponseLimit::Body, most: 2 });
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
    ] {
        assert_eq!(begin(response, 3), Ok(()), "{response}");
        assert_eq!(begin(response, 2), too_long, "{response}");
    }
}
