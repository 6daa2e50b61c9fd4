//! Decoding and encoding a frame allocates nothing.

use crate::ALLOCATOR;
use crate::common::alone::alone;
use millstream::codec::{
    BodyLength, Codec, Delimited, FixedLength, HeaderBody, LengthField, Lines, Utf8Lines,
};
use millstream::{Input, OutputBuffer};
use stats_alloc::Region;

/// How many frames are decoded.
const FRAMES: usize = 1000;

/// The header is a byte.
struct OneByte;

impl BodyLength<FixedLength> for OneByte {
    type Error = std::convert::Infallible;

    fn body_length(&self, header: &&[u8]) -> Result<u64, Self::Error> {
        Ok(header[0].into())
    }
}

/// Decodes a stream of frames, of which at first only a part is there, so that codecs wait for
/// more.
fn decode_all<C: Codec>(mut codec: C, frame: &[u8]) {
    let name = std::any::type_name::<C>();
    let stream = frame.repeat(FRAMES);
    let region = Region::new(ALLOCATOR);
    let (mut start, mut end, mut frames) = (0, 0, 0);
    while start < stream.len() {
        end = (end + 7).min(stream.len());
        loop {
            let mut input = Input::from(&stream[start..end]);
            match codec.decode(&mut input) {
                Ok(Some(_)) => frames += 1,
                Ok(None) => break,
                Err(error) => panic!("{name}: {error}"),
            }
            start += input.taken();
        }
    }
    let change = region.change();
    assert_eq!(frames, FRAMES, "{name}");
    assert_eq!(change.allocations + change.reallocations, 0, "{name} allocates while decoding");
}

/// Encodes into a buffer whose memory is there already.
fn encode_all(name: &str, mut encode: impl FnMut(&mut millstream::Output<'_>)) {
    let mut buffer = OutputBuffer::new();
    (0..100).for_each(|_| encode(&mut buffer.output()));
    buffer.take();
    let region = Region::new(ALLOCATOR);
    (0..10).for_each(|_| encode(&mut buffer.output()));
    let change = region.change();
    assert_eq!(change.allocations + change.reallocations, 0, "{name} allocates while encoding");
}

#[test]
fn a_frame_allocates_nothing() {
    alone(|| {
        let varint = LengthField::builder().varint().build().expect("the options are right");
        decode_all(Lines::new(), b"a line of text\r\n");
        decode_all(Utf8Lines::new(), b"a line of text\n");
        decode_all(Delimited::new(b"\r\n\r\n", 100), b"a frame\r\nof lines\r\n\r\n");
        decode_all(FixedLength::new(10), b"ten bytes.");
        decode_all(LengthField::new(), b"\0\0\0\x10sixteen bytes ..");
        decode_all(varint, b"\x10sixteen bytes ..");
        decode_all(HeaderBody::new(FixedLength::new(1), OneByte), b"\x10sixteen bytes ..");

        let (mut lines, mut delimited) = (Lines::new(), Delimited::new("--", 100));
        encode_all("Lines", |output| lines.encode(b"a line", output).expect("a line"));
        encode_all("Delimited", |output| delimited.encode(b"a frame", output).expect("a frame"));
        let mut length_field = LengthField::new();
        encode_all("LengthField", |output| length_field.encode(b"a body", output).expect("a body"));
        encode_all("LengthFieldGuard", |output| {
            let mut body = length_field.begin(output);
            body.write(b"a body");
            body.finish().expect("a body");
        });
    });
}
