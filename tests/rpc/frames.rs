//! The frames of RPC: what is sent arrives, whatever its pieces; what is cut waits, and what is
//! damaged has the outcome that the protocol's page says; limits hold to the byte, and nothing is
//! kept of what is refused.

use std::time::Duration;

use crate::cases::frames::{Case, HEADER, Sample};
use crate::check::{self, encode};
use crate::common::corpus::replay;
use crate::common::seeds::for_each_seed;
use fastrand::Rng;
use millstream::Input;
use millstream::codec::Codec;
use millstream::rpc::frame::{Frame, FrameCodec, FrameError, Refusal, Request, Response};
use millstream::rpc::{Code, Format, FrameLimits, Metadata, MetadataView};

/// How many cases a plain `cargo test` tries.
const SEEDS: u64 = 3_000;
const KINDS: std::ops::RangeInclusive<u8> = 1..=7;

fn request() -> Request<'static> {
    Request {
        id: 7,
        one_way: false,
        is_retry: false,
        timeout: None,
        method: b"a/b",
        metadata: MetadataView::default(),
        format: Format::RAW,
        body: b"",
    }
}

fn response(message: &str) -> Response<'_> {
    Response {
        id: 7,
        not_run: false,
        code: Code::Internal,
        message,
        metadata: MetadataView::default(),
        format: Format::RAW,
        body: b"",
    }
}

fn sent(frame: Frame<'_>) -> Result<Vec<u8>, FrameError> {
    encode(&mut FrameCodec::default(), frame)
}

fn codec(max_head: usize, max_body: usize) -> FrameCodec {
    Case { max_head, max_body, seed: 0, stream: Vec::new() }.codec()
}

#[test]
fn any_stream_is_read_as_the_page_says() {
    for_each_seed(SEEDS, |seed| Case::draw(&mut Rng::with_seed(seed)).check());
}

#[test]
fn the_fuzzers_inputs() {
    replay("rpc_frames", |data| Case::read(data).check());
}

#[test]
fn what_is_sent_arrives() {
    for_each_seed(SEEDS, |seed| {
        let mut rng = Rng::with_seed(seed);
        let samples: Vec<_> = KINDS.map(|kind| Sample::of_kind(kind, &mut rng)).collect();
        let stream = samples.iter().flat_map(Sample::encoded).collect::<Vec<_>>();
        let pieces = check::Pieces { stream: &stream, seed, most_kept: usize::MAX };
        let show = |frame: Frame<'_>| format!("{frame:?}");
        let decoded = pieces.decode(&mut FrameCodec::default(), show, |error| error);
        let expected: Vec<_> = samples.iter().map(|sample| Ok(show(sample.frame()))).collect();
        assert_eq!(decoded.steps, expected);
        assert!(decoded.left.is_empty());
    });
}

#[test]
fn a_frame_that_is_cut_waits_for_the_rest() {
    for seed in 0..50 {
        let mut rng = Rng::with_seed(seed);
        for kind in KINDS {
            let bytes = Sample::of_kind(kind, &mut rng).encoded();
            for cut in 0..bytes.len() {
                let mut input = Input::from(&bytes[..cut]);
                assert_eq!(FrameCodec::default().decode(&mut input), Ok(None), "at {cut}");
                assert_eq!(input.len(), cut, "it was not taken");
            }
        }
    }
}

#[test]
fn each_damaged_byte_has_its_outcome() {
    for kind in KINDS {
        let mut rng = Rng::with_seed(u64::from(kind));
        let good = Sample::of_kind(kind, &mut rng).encoded();
        let next = Sample::of_kind(5, &mut rng).encoded();
        for (at, value) in (0..good.len()).flat_map(|at| (0..=255).map(move |value| (at, value))) {
            let mut stream = [&good[..], &next].concat();
            stream[at] = value;
            Case { max_head: 200, max_body: 100, seed: 3, stream }.check();
        }
    }
}

/// Lengths one below a limit, at it, and one above it.
#[test]
fn limits_hold_to_the_byte() {
    let body = [7; 100];
    let bytes = sent(Frame::Request(Request { body: &body, ..request() })).unwrap();
    let head = bytes.len() - HEADER - body.len();
    let refused =
        |why| Err(FrameError::Refused { id: 7, expects_response: true, is_response: false, why });
    let decode = |max_head, max_body| {
        let mut input = Input::from(&bytes[..]);
        let decoded = codec(max_head, max_body).decode(&mut input).map(|frame| frame.is_some());
        assert!(input.is_empty(), "all of it is gone, served or not");
        decoded
    };
    assert_eq!(decode(head, 100), Ok(true));
    assert_eq!(decode(head + 1, 101), Ok(true));
    assert_eq!(decode(head - 1, 100), refused(Refusal::Head { length: head, limit: head - 1 }));
    assert_eq!(decode(head, 99), refused(Refusal::Body { length: 100, limit: 99 }));
    assert_eq!(decode(usize::MAX, usize::MAX), Ok(true));
}

#[test]
fn the_default_limits_are_those_of_the_page() {
    let limits = FrameLimits::default();
    assert_eq!((limits.max_head, limits.max_body), (16_384, 10_485_760));
}

/// The longest frame that a header can announce, many times what is there to keep it in.
#[test]
fn nothing_is_kept_of_what_is_refused() {
    let mut bytes = sent(Frame::Request(request())).unwrap();
    bytes.truncate(HEADER);
    bytes[6..12].fill(0xff);
    let mut codec = codec(100, 100);
    let mut input = Input::from(&bytes[..]);
    let error = codec.decode(&mut input).unwrap_err();
    let why = Refusal::Head { length: 0xffff, limit: 100 };
    assert_eq!(
        error,
        FrameError::Refused { id: 7, expects_response: true, is_response: false, why }
    );
    assert!(input.is_empty());

    let piece = vec![b'M'; 1 << 20];
    let mut to_come = 0xffff + 0xffff_ffff_u64;
    while to_come > piece.len() as u64 {
        let mut input = Input::from(&piece[..]);
        assert_eq!(codec.decode(&mut input), Ok(None));
        assert!(input.is_empty());
        to_come -= piece.len() as u64;
    }
    let last = [&piece[..to_come as usize], &sent(Frame::Ping(9)).unwrap()].concat();
    assert_eq!(codec.decode(&mut Input::from(&last[..])), Ok(Some(Frame::Ping(9))));
}

#[test]
fn another_protocol_is_told_by_its_first_bytes() {
    let decode = |bytes: &[u8]| {
        FrameCodec::default().decode(&mut Input::from(bytes)).map(|frame| frame.is_some())
    };
    assert_eq!(decode(b"G"), Ok(false));
    assert_eq!(decode(b"GE"), Err(FrameError::Magic(0x4745)));
    assert_eq!(decode(b"MS"), Ok(false));
    assert_eq!(decode(b"MS\x01"), Ok(false));
    assert_eq!(decode(b"MS\x02"), Err(FrameError::Version(2)));
}

#[test]
fn what_is_no_frame_is_not_sent() {
    let long = "m".repeat(256);
    for method in [&b""[..], long.as_bytes()] {
        let error = FrameError::Method { length: method.len(), limit: 255 };
        assert_eq!(sent(Frame::Request(Request { method, ..request() })), Err(error));
    }
    for format in [
        Format { encoding: 16, compression: 0 },
        Format { encoding: 0, compression: 16 },
        Format { encoding: 255, compression: 255 },
    ] {
        let error = Err(FrameError::Format(format));
        assert_eq!(sent(Frame::Request(Request { format, ..request() })), error);
        assert_eq!(sent(Frame::Response(Response { format, ..response("") })), error);
    }
}

/// A head of 65,535 bytes is the longest that its length can tell.
#[test]
fn a_head_is_sent_up_to_its_longest() {
    let around = 1 + "a/b".len() + 1 + "k".len() + 2;
    let mut metadata = Metadata::new();
    metadata.insert("k", vec![7; 0xffff - around]).unwrap();
    let frame = Frame::Request(Request { metadata: metadata.view(), ..request() });
    let bytes = sent(frame).unwrap();
    assert_eq!(bytes.len(), HEADER + 0xffff);
    assert_eq!(codec(0xffff, 0).decode(&mut Input::from(&bytes[..])), Ok(Some(frame)));

    let method = b"a/bc";
    let frame = Request { method, metadata: metadata.view(), ..request() };
    let error = FrameError::TooLong { what: "head", length: 0x1_0000, limit: 0xffff };
    assert_eq!(sent(Frame::Request(frame)), Err(error));
}

#[test]
fn a_long_message_is_cut_at_a_character() {
    let long = "ä".repeat(4000);
    for (message, kept) in [(&long[..4096], 4096), (&long, 4096), (&format!("x{long}"), 4095)] {
        let bytes = sent(Frame::Response(response(message))).unwrap();
        let frame = Frame::Response(response(&message[..kept]));
        assert_eq!(FrameCodec::default().decode(&mut Input::from(&bytes[..])), Ok(Some(frame)));
    }
}

#[test]
fn times_are_sent_as_whole_milliseconds() {
    let max = Duration::from_millis(u64::from(u32::MAX));
    for (timeout, expected) in [
        (Duration::ZERO, Duration::from_millis(1)),
        (Duration::from_nanos(1), Duration::from_millis(1)),
        (Duration::from_millis(1), Duration::from_millis(1)),
        (Duration::from_nanos(1_000_001), Duration::from_millis(2)),
        (Duration::from_nanos(1_999_999_999), Duration::from_secs(2)),
        (max - Duration::from_nanos(1), max),
        (max, max),
        (max + Duration::from_nanos(1), max),
        (Duration::MAX, max),
    ] {
        let bytes = sent(Frame::Request(Request { timeout: Some(timeout), ..request() })).unwrap();
        let frame = Frame::Request(Request { timeout: Some(expected), ..request() });
        assert_eq!(FrameCodec::default().decode(&mut Input::from(&bytes[..])), Ok(Some(frame)));
    }
}
