//! `Compat`: codecs made for tokio-util serve connections of the engine, frame by frame in whatever
//! pieces, with their errors and what they do at the end, and keep no more than they may.
#![cfg(feature = "tokio-util")]

use std::error::Error;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::common::seeds::for_each_seed;
use crate::common::{TestEngine, assert_same, end, pattern, read_to_end, receive};
use bytes::{Buf, Bytes, BytesMut};
use fastrand::Rng;
use millstream::codec::{Codec, Compat, CompatError, FrameHandler, Framed, FramedConn};
use millstream::{Action, CloseReason, Engine, Input, OutputBuffer};
use tokio_util::codec::{
    AnyDelimiterCodec, Decoder, Encoder, LengthDelimitedCodec, LinesCodec, LinesCodecError,
};

/// Sends every frame back, and tells the test of errors and the connection's end.
struct Echo<T: Decoder, I> {
    codec: fn() -> Compat<T, I>,
    answer: fn(T::Item) -> I,
    told: Sender<Told>,
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Error(String),
    Ended,
    Closed(String),
}

impl<T, I> FrameHandler for Echo<T, I>
where
    T: Decoder<Error: Error> + Encoder<I, Error = <T as Decoder>::Error> + 'static,
    T::Item: 'static,
    I: 'static,
{
    type Codec = Compat<T, I>;
    type State = ();

    fn codec(&self) -> Compat<T, I> {
        (self.codec)()
    }

    fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, frame: T::Item) -> Action {
        conn.send((self.answer)(frame)).expect("what was received can be sent");
        Action::Continue
    }

    fn on_error(
        &mut self,
        _conn: &mut FramedConn<'_, Self>,
        error: CompatError<<T as Decoder>::Error>,
    ) -> Action {
        let _ = self.told.send(Told::Error(error.to_string()));
        Action::Continue
    }

    fn on_end(&mut self, _conn: &mut FramedConn<'_, Self>) -> Action {
        let _ = self.told.send(Told::Ended);
        Action::Close
    }

    fn on_close(&mut self, _conn: &mut FramedConn<'_, Self>, reason: &CloseReason) {
        let _ = self.told.send(Told::Closed(reason.to_string()));
    }
}

fn start<T, I>(
    codec: fn() -> Compat<T, I>,
    answer: fn(T::Item) -> I,
) -> (TestEngine, Receiver<Told>)
where
    T: Decoder<Error: Error> + Encoder<I, Error = <T as Decoder>::Error> + 'static,
    T::Item: 'static,
    I: 'static,
{
    let (told, tells) = channel();
    let factory =
        move |_| Framed::new(Echo { codec, answer, told: told.clone() }).frames_per_turn(7);
    (TestEngine::start(Engine::builder().reactors(1), factory), tells)
}

/// Sends `stream` in random pieces to an engine and ends; returns what came back.
fn exchange(engine: &TestEngine, stream: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut client = engine.connect();
    let mut reader = client.try_clone().expect("a socket can be shared");
    std::thread::scope(|scope| {
        let read = scope.spawn(move || read_to_end(&mut reader));
        let mut rest = stream;
        while !rest.is_empty() {
            let longest = rng.choice([3, 100, 40_000]).expect("one of them");
            let piece = rng.usize(1..=longest).min(rest.len());
            client.write_all(&rest[..piece]).expect("it reads");
            rest = &rest[piece..];
        }
        end(&client);
        read.join().expect("the answer was read")
    })
}

// --- on an engine --------------------------------------------------------------------------------

#[test]
fn lines_are_served() {
    let (engine, tells) = start(|| Compat::new(LinesCodec::new()), |line: String| line);
    for_each_seed(5, |seed| {
        let mut rng = Rng::with_seed(seed);
        let lines: Vec<String> =
            (0..200).map(|number| format!("{number} {}", "x".repeat(rng.usize(..300)))).collect();
        let sent = lines.join(if rng.bool() { "\n" } else { "\r\n" }); // The last has no end.
        assert_same(
            &exchange(&engine, sent.as_bytes(), &mut rng),
            (lines.join("\n") + "\n").as_bytes(),
        );
        assert_eq!(receive(&tells), Told::Ended);
        assert!(matches!(receive(&tells), Told::Closed(_)));
    });
}

#[test]
fn frames_with_a_length_are_served() {
    let codec = || Compat::<_, Bytes>::new(LengthDelimitedCodec::new());
    let (engine, tells) = start(codec, BytesMut::freeze);
    for_each_seed(5, |seed| {
        let mut rng = Rng::with_seed(seed);
        let mut stream = Vec::new();
        for number in 0..60 {
            let longest = rng.choice([1, 50, 60_000]).expect("one of them");
            let payload = pattern(rng.usize(..longest), number);
            stream.extend((payload.len() as u32).to_be_bytes());
            stream.extend(payload);
        }
        assert_same(&exchange(&engine, &stream, &mut rng), &stream);
        assert_eq!(receive(&tells), Told::Ended);
        assert!(matches!(receive(&tells), Told::Closed(_)));
    });
}

#[test]
fn frames_with_any_delimiter_are_served() {
    let codec = || Compat::new(AnyDelimiterCodec::new(b",;\n".to_vec(), b";".to_vec()));
    let (engine, _tells) =
        start(codec, |frame: Bytes| String::from_utf8(frame.to_vec()).expect("letters were sent"));
    for_each_seed(5, |seed| {
        let mut rng = Rng::with_seed(seed);
        let words: Vec<String> = (0..500).map(|_| "w".repeat(rng.usize(1..40))).collect();
        let sent: String = words
            .iter()
            .map(|word| format!("{word}{}", rng.choice([',', ';', '\n']).expect("one")))
            .collect();
        assert_same(
            &exchange(&engine, sent.as_bytes(), &mut rng),
            (words.join(";") + ";").as_bytes(),
        );
    });
}

/// The codec passes over the rest of the line that is too long, and the others are served.
#[test]
fn the_frames_behind_an_error_are_served() {
    let codec = || Compat::new(LinesCodec::new_with_max_length(10));
    let (engine, tells) = start(codec, |line: String| line);
    let mut rng = Rng::with_seed(1);
    let stream = format!("one\n{}\ntwo\n\u{e9}\nthree\n", "long".repeat(50_000));
    assert_eq!(
        exchange(&engine, stream.as_bytes(), &mut rng),
        "one\ntwo\n\u{e9}\nthree\n".as_bytes()
    );
    assert_eq!(receive(&tells), Told::Error("the codec failed: max line length exceeded".into()));
    assert_eq!(receive(&tells), Told::Ended);
}

#[test]
fn a_part_of_a_frame_at_the_end_is_an_error() {
    let codec = || Compat::<_, Bytes>::new(LengthDelimitedCodec::new());
    let (engine, tells) = start(codec, BytesMut::freeze);
    let answer = exchange(&engine, b"\0\0\0\x03one\0\0\0\x03tw", &mut Rng::with_seed(2));
    assert_eq!(answer, b"\0\0\0\x03one");
    assert_eq!(receive(&tells), Told::Error("the codec failed: bytes remaining on stream".into()));
    assert!(matches!(receive(&tells), Told::Closed(_)));
}

/// An error that the decoder does not get past ends the connection, though the handler goes on.
#[test]
fn an_error_without_an_end_ends_the_connection() {
    let codec =
        || Compat::<_, Bytes>::new(LengthDelimitedCodec::builder().max_frame_length(9).new_codec());
    let (engine, tells) = start(codec, BytesMut::freeze);
    let mut client = engine.connect();
    client.write_all(b"\0\0\0\x01x\xFF\xFF\xFF\xFF").expect("it reads");
    assert_eq!(read_to_end(&mut client), b"\0\0\0\x01x");
    drop(client);
    let told: Vec<Told> = (0..3).map(|_| receive(&tells)).collect();
    let error = || Told::Error("the codec failed: frame size too big".into());
    assert_eq!(told[..2], [error(), error()]);
    assert!(matches!(told[2], Told::Closed(_)));
}

#[test]
fn a_frame_that_does_not_end_is_too_long() {
    let codec = || Compat::new(LinesCodec::new()).max_buffered(20_000);
    let (engine, tells) = start(codec, |line: String| line);
    let mut client = engine.connect();
    client.write_all(&[b'x'; 20_000]).expect("it reads");
    client.write_all(b"x").expect("it reads");
    let limit = "a frame is longer than the limit of 20000 buffered bytes";
    assert_eq!(receive(&tells), Told::Error(limit.into()));
}

/// A handler that pauses gets the frames that had arrived when it reads again, without a new byte.
#[test]
fn frames_wait_while_reading_is_paused() {
    struct Pauses(Sender<String>);

    impl FrameHandler for Pauses {
        type Codec = Compat<LinesCodec>;
        type State = ();

        fn codec(&self) -> Self::Codec {
            Compat::new(LinesCodec::new())
        }

        fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, line: String) -> Action {
            let _ = self.0.send(line);
            conn.pause_reading();
            conn.set_timer(std::time::Duration::from_millis(1), 0);
            Action::Continue
        }

        fn on_timer(
            &mut self,
            conn: &mut FramedConn<'_, Self>,
            _timer: millstream::TimerId,
            _value: u64,
        ) -> Action {
            conn.resume_reading();
            Action::Continue
        }
    }

    let (send, lines) = channel();
    let factory = move |_| Framed::new(Pauses(send.clone()));
    let engine = TestEngine::start(Engine::builder().reactors(1), factory);
    let mut client = engine.connect();
    client.write_all(b"one\ntwo\nthree\nfo").expect("it reads");
    assert_eq!([receive(&lines), receive(&lines), receive(&lines)], ["one", "two", "three"]);
    client.write_all(b"ur\n").expect("it reads");
    assert_eq!(receive(&lines), "four");
}

// --- without one ---------------------------------------------------------------------------------

/// Whole frames stay in the input; the part of one is taken.
#[test]
fn no_more_than_a_partial_frame_is_kept() {
    let mut codec = Compat::<LinesCodec>::new(LinesCodec::new());
    let mut input = Input::from(&b"one\ntwo\nthr"[..]);
    assert_eq!(codec.decode(&mut input).expect("a line"), Some("one".into()));
    assert_eq!(input.peek(), b"two\nthr");
    assert_eq!(codec.decode(&mut input).expect("a line"), Some("two".into()));
    assert_eq!(input.peek(), b"thr");
    assert_eq!(codec.decode(&mut input).expect("no error"), None);
    assert!(input.is_empty());
    assert!(format!("{codec:?}").contains("buffered: 3"), "{codec:?}");
    let mut input = Input::from(&b"ee\n"[..]);
    assert_eq!(codec.decode(&mut input).expect("a line"), Some("three".into()));
    assert!(input.is_empty());
    assert_eq!(codec.decode_end(&mut input).expect("no error"), None);
}

#[test]
fn the_end_is_decoded_without_a_decode_before_it() {
    let mut codec = Compat::<LinesCodec>::new(LinesCodec::new());
    let mut input = Input::from(&b"one\ntwo"[..]);
    assert_eq!(codec.decode_end(&mut input).expect("a line"), Some("one".into()));
    assert_eq!(codec.decode_end(&mut input).expect("a line"), Some("two".into()));
    assert_eq!(codec.decode_end(&mut input).expect("no error"), None);
}

#[test]
fn exactly_as_much_as_allowed_may_be_buffered() {
    for (length, fits) in [(99, true), (100, false)] {
        let mut codec = Compat::<LinesCodec>::new(LinesCodec::new()).max_buffered(100);
        let line = "x".repeat(length) + "\n";
        let decoded = codec.decode(&mut Input::from(line.as_bytes()));
        match decoded {
            Ok(Some(decoded)) => assert!(fits && decoded.len() == length),
            Err(CompatError::TooLong { limit: 100 }) => assert!(!fits),
            other => panic!("{other:?}"),
        }
    }
}

/// A decoder that looks at everything again each time, and counts what it looked at.
#[derive(Debug, Default)]
struct Forgetful {
    looked_at: usize,
}

impl Decoder for Forgetful {
    type Item = BytesMut;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<BytesMut>> {
        self.looked_at += bytes.len();
        let Some(end) = bytes.iter().position(|byte| *byte == 0) else { return Ok(None) };
        let frame = bytes.split_to(end);
        bytes.advance(1);
        Ok(Some(frame))
    }
}

impl Encoder<&[u8]> for Forgetful {
    type Error = io::Error;

    fn encode(&mut self, item: &[u8], bytes: &mut BytesMut) -> io::Result<()> {
        bytes.extend_from_slice(item);
        if item == b"bad" { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(()) }
    }
}

/// A large frame that has arrived costs in proportion to its length, and what it needed is given
/// back.
#[test]
fn a_large_frame_is_not_looked_at_again_and_again() {
    const LENGTH: usize = 4 << 20;
    let mut bytes = vec![1; LENGTH];
    bytes.push(0);
    let mut codec = Compat::<Forgetful, &[u8]>::new(Forgetful::default());
    let mut input = Input::from(&*bytes);
    let frame = codec.decode(&mut input).expect("no error").expect("a frame");
    assert_same(&frame, &bytes[..LENGTH]);
    assert_eq!(codec.decode(&mut input).expect("no error"), None);
    let debug = format!("{codec:?}");
    let looked_at = debug.split("looked_at: ").nth(1).and_then(|rest| rest.split(' ').next());
    let looked_at: usize = looked_at.expect("a count").parse().expect("a number");
    assert!(looked_at < 4 * LENGTH, "{looked_at} bytes for {LENGTH}");
}

#[test]
fn what_can_not_be_encoded_is_not_written() {
    let mut codec = Compat::<Forgetful, &[u8]>::new(Forgetful::default());
    let mut buffer = OutputBuffer::new();
    codec.encode(b"first", &mut buffer.output()).expect("it can be sent");
    let error = codec.encode(b"bad", &mut buffer.output()).expect_err("it can't");
    assert!(matches!(error, CompatError::Codec(ref source)
        if source.kind() == io::ErrorKind::InvalidInput));
    codec.encode(b"second", &mut buffer.output()).expect("it can be sent");
    assert_eq!(buffer.take(), b"firstsecond");
}

#[test]
fn an_error_has_its_source() {
    let mut codec = Compat::<LinesCodec>::new(LinesCodec::new_with_max_length(3));
    let error = codec.decode(&mut Input::from(&b"long\n"[..])).expect_err("it is too long");
    let source = error.source().and_then(|source| source.downcast_ref());
    assert!(matches!(source, Some(LinesCodecError::MaxLineLengthExceeded)));
}
