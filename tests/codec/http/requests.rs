//! The codec against a naive reader of whole streams, which is shared with the fuzzer.

use fastrand::Rng;
use millstream::Input;
use millstream::codec::Codec;
use millstream::http::{Refusal, RequestCodec, RequestLimits, RequestPart};

use crate::check::http::{Case, random_stream};
use crate::common::corpus::replay;
use crate::common::seeds::for_each_seed;

#[test]
fn random_requests_are_read_as_a_naive_reader_reads_them() {
    for_each_seed(3_000, |seed| {
        let mut rng = Rng::with_seed(seed);
        let stream = random_stream(&mut rng);
        Case { limits: rng.u8(..), seed, stream: &stream }.check();
    });
}

#[test]
fn the_fuzzers_inputs_are_read_as_a_naive_reader_reads_them() {
    replay("http_requests", |bytes| Case::read(bytes).check());
}

/// How long a head may be that is sent byte by byte, and what it costs to look for its end again
/// from the beginning each time, would be seen here as minutes.
#[test]
fn what_comes_byte_by_byte_is_looked_at_once() {
    let mut limits = RequestLimits::default();
    (limits.head, limits.line, limits.extensions) = (1 << 22, 1 << 22, 1 << 20);
    let head = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(1 << 20));
    let chunk = format!("1;{}\r\na\r\n0\r\n\r\n", "a".repeat((1 << 20) - 1));
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for stream in [head, [chunked, &chunk].concat()] {
        let (mut codec, mut from, mut parts) = (RequestCodec::new(limits), 0, 0);
        for end in 1..=stream.len() {
            let mut input = Input::from(&stream.as_bytes()[from..end]);
            while codec.decode(&mut input).expect("it is a request").is_some() {
                parts += 1;
            }
            from += input.taken();
        }
        assert_eq!((from, codec.is_in_body()), (stream.len(), false));
        assert!(parts == 1 || parts == 3, "{parts} parts");
    }
}

#[test]
fn a_content_is_limited_and_taken_whole() {
    let bytes = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let begin = |length: usize| {
        let (mut codec, mut input) = (RequestCodec::default(), Input::from(&bytes[..length]));
        let head = codec.decode(&mut input);
        assert!(matches!(head, Ok(Some(RequestPart::Head(_)))), "{head:?}");
        (codec, input)
    };
    let (mut codec, mut input) = begin(bytes.len());
    assert_eq!(codec.limit_body(3), Ok(()));
    assert_eq!(codec.take_body(&mut input), Some(&b"abc"[..]));
    assert!(!codec.is_in_body());
    assert_eq!(codec.take_body(&mut input), None);

    let (mut codec, mut input) = begin(bytes.len() - 1);
    assert_eq!(codec.take_body(&mut input), None, "a part of it is missing");
    assert_eq!(input.len(), 2);
    assert_eq!(codec.limit_body(2), Err(Refusal::BodyTooLong));
    assert!(matches!(codec.decode(&mut input), Ok(None)));
    assert!(input.is_empty(), "what comes behind it is dropped");
}
