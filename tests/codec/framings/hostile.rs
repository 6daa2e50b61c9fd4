//! What a hostile peer may send, and what a careless caller may ask for.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;

use millstream::codec::{
    BodyLength, Codec, Delimited, DelimitedError, HeaderBody, LengthField, LengthFieldBuilder,
    LengthFieldError, LineError, Lines,
};
use millstream::{Input, Output, OutputBuffer};

fn decode(builder: LengthFieldBuilder, bytes: &[u8]) -> Result<Option<Vec<u8>>, LengthFieldError> {
    let mut input = Input::from(bytes);
    let decoded = builder.build().expect("the options are right").decode(&mut input);
    assert!(decoded.is_ok() || input.taken() == 0, "an error took something");
    decoded.map(|frame| frame.map(<[u8]>::to_vec))
}

#[test]
fn lengths_that_cannot_be() {
    let too_large = |value, max| Err(LengthFieldError::TooLarge { value, max });
    let too_small = |value, min| Err(LengthFieldError::TooSmall { value, min });
    let of = LengthField::builder;
    let eight = || of().length_field_length(8).max_frame_length(100);

    assert_eq!(decode(of(), &[0, 0, 0, 0]), Ok(Some(vec![])), "an empty frame is one");
    assert_eq!(decode(of(), &[0, 0x80, 0, 0]), Ok(None));
    assert_eq!(decode(of(), &[0, 0x80, 0, 1]), too_large((8 << 20) + 1, 8 << 20));
    assert_eq!(decode(eight(), &[0xff; 8]), too_large(u64::MAX, 100));
    let (up, down) = (eight().length_adjustment(50), eight().length_adjustment(-50));
    assert_eq!(decode(up, &[0xff; 8]), too_large(u64::MAX, 50), "with the adjustment it overflows");
    assert_eq!(decode(down, &[0xff; 8]), too_large(u64::MAX, 150));
    assert_eq!(decode(down, &[0; 8]), too_small(0, 50));
    let whole = of().length_field_length(2).length_includes_header();
    assert_eq!(decode(whole, &[0, 1]), too_small(1, 2));
    assert_eq!(decode(whole, &[0, 2]), Ok(Some(vec![])));
    assert_eq!(decode(of().num_skip(6), &[0, 0, 0, 1]), too_small(1, 2));
}

#[test]
fn varints_that_are_none() {
    let varint = || LengthField::builder().varint();
    let field = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
    assert_eq!(decode(varint(), &field), Err(LengthFieldError::Varint { field }));
    assert_eq!(decode(varint(), &[0x80; 9]), Ok(None));
    let field = [0x80; 10];
    assert_eq!(decode(varint(), &[0x80; 30]), Err(LengthFieldError::Varint { field }));
    let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let too_large = LengthFieldError::TooLarge { value: u64::MAX, max: 8 << 20 };
    assert_eq!(decode(varint(), &max), Err(too_large));
    assert_eq!(decode(varint(), &[0x81, 0x80, 0, b'a']), Ok(Some(b"a".to_vec())), "padded");
}

#[test]
fn a_guard_that_is_dropped_or_refused_has_written_nothing() {
    let codec = LengthField::builder().max_frame_length(10).build().expect("right options");
    let mut buffer = OutputBuffer::new();
    let mut output = buffer.output();
    output.write(b"before ");

    let mut dropped = codec.begin(&mut output);
    dropped.write(b"dropped");
    drop(dropped);

    let mut long = codec.begin(&mut output);
    (0..1000).for_each(|_| long.write_bytes(vec![b'x'; 5000]));
    let error = LengthFieldError::TooLong { length: 5_000_000, max_length: 10 };
    assert_eq!(long.finish(), Err(error));

    let behind = LengthField::builder().length_field_offset(2).build().expect("right options");
    let error = LengthFieldError::Front { length: 0, offset: 2 };
    assert_eq!(behind.begin(&mut output).finish(), Err(error));

    let mut right = codec.begin(&mut output);
    std::io::Write::write_all(&mut right, b"right").expect("there is room");
    assert_eq!(right.finish(), Ok(()));
    assert_eq!(buffer.take(), b"before \0\0\0\x05right");
}

#[test]
fn a_varint_of_a_guard_is_as_wide_as_the_maximum_needs() {
    for (max, width) in [(127, 1), (128, 2), (16_383, 2), (8 << 20, 4)] {
        let codec = LengthField::builder().varint().max_frame_length(max).build().expect("right");
        let mut buffer = OutputBuffer::new();
        codec.begin(&mut buffer.output()).finish().expect("an empty frame");
        let field = buffer.take();
        assert_eq!(field.len(), width, "of at most {max} bytes");
        assert_eq!(codec.clone().decode(&mut Input::from(&field[..])), Ok(Some(&b""[..])));
    }
}

/// However much comes without an end, no more is left waiting than a frame and a delimiter.
#[test]
fn an_endless_frame_takes_bounded_memory_and_is_one_error() {
    fn feed<C: Codec>(mut codec: C, piece: &[u8], end: &[u8], most_kept: usize) -> Vec<C::Error> {
        let (mut waits, mut errors) = (Vec::new(), Vec::new());
        for piece in std::iter::repeat_n(piece, 10_000).chain([end]) {
            waits.extend_from_slice(piece);
            loop {
                let mut input = Input::from(&waits[..]);
                let decoded = codec.decode(&mut input).map(|frame| frame.is_some());
                let taken = input.taken();
                waits.drain(..taken);
                match decoded {
                    Ok(frame) => assert!(!frame, "the end belongs to what was too long"),
                    Err(error) => errors.push(error),
                }
                if taken == 0 || waits.is_empty() {
                    break;
                }
            }
            assert!(waits.len() <= most_kept, "{} bytes wait", waits.len());
        }
        assert!(waits.is_empty(), "decoding goes on behind it");
        errors
    }
    let max_length = 1000;
    let lines = Lines::new().max_length(max_length);
    let errors = feed(lines, b"no end\r", b"\n", 1001);
    assert_eq!(errors, [LineError::TooLong { max_length }]);
    let delimited = Delimited::new("abcd", max_length);
    let errors = feed(delimited, b"abc", b"d", 1003);
    assert_eq!(errors, [DelimitedError::TooLong { max_length }]);
}

/// Lines that count how often they are asked for one.
#[derive(Clone)]
struct CountedLines {
    lines: Lines,
    asked: Rc<Cell<usize>>,
}

impl Codec for CountedLines {
    type Frame<'a> = &'a [u8];
    type Item<'a> = &'a [u8];
    type Error = LineError;

    fn decode<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<&'a [u8]>, LineError> {
        self.asked.set(self.asked.get() + 1);
        self.lines.decode(input)
    }

    fn encode(&mut self, line: &[u8], output: &mut Output<'_>) -> Result<(), LineError> {
        self.lines.encode(line, output)
    }
}

/// The body has always 1,000 bytes.
struct Thousand;

impl BodyLength<CountedLines> for Thousand {
    type Error = Infallible;

    fn body_length(&self, _header: &&[u8]) -> Result<u64, Infallible> {
        Ok(1000)
    }
}

#[test]
fn a_header_is_not_looked_at_while_its_body_arrives_byte_by_byte() {
    let asked = Rc::new(Cell::new(0));
    let header = CountedLines { lines: Lines::new(), asked: Rc::clone(&asked) };
    let mut codec = HeaderBody::new(header, Thousand);
    let stream = [&b"header\n"[..], &[b'x'; 1000]].concat();
    for end in 0..stream.len() {
        assert!(codec.decode(&mut Input::from(&stream[..end])).expect("no error").is_none());
    }
    let mut input = Input::from(&stream[..]);
    let frame = codec.decode(&mut input).expect("no error").expect("a frame");
    assert_eq!((frame.0, frame.1.len(), input.len()), (&b"header"[..], 1000, 0));
    // For each byte of it, for all of it, and once more with the body.
    assert_eq!(asked.get(), b"header\n".len() + 2);
}

#[test]
#[should_panic(expected = "a delimiter has at least one byte")]
fn an_empty_delimiter() {
    let _ = Delimited::new("", 10);
}

#[test]
#[should_panic(expected = "a frame has at least one byte")]
fn frames_without_length() {
    let _ = millstream::codec::FixedLength::new(0);
}
