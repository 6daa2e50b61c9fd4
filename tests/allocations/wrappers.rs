//! What the wrappers around codecs allocate: nothing for a frame in the steady state, and for a
//! decompressed one no more than its limit, whatever it says about itself. What a codec of
//! tokio-util needed for a large frame is given back.
#![cfg(all(feature = "crc32c", feature = "deflate", feature = "lz4", feature = "tokio-util"))]

use std::hint::black_box;

use crate::ALLOCATOR;
use crate::common::alone::alone;
use crate::common::pattern;
use millstream::codec::{Checksummed, Codec, Compat, Compressed, Compression, Deflate, Lz4};
use millstream::{Input, Output, OutputBuffer};
use stats_alloc::{Region, Stats};
use tokio_util::codec::LinesCodec;

/// All that is there is one frame. What is sent is written, or only looked at.
struct Whole {
    writes: bool,
}

impl Codec for Whole {
    type Frame<'a> = &'a [u8];
    type Item<'a> = &'a [u8];
    type Error = std::convert::Infallible;

    fn decode<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<&'a [u8]>, Self::Error> {
        let frame = input.take_all();
        Ok((!frame.is_empty()).then_some(frame))
    }

    fn encode(&mut self, item: &[u8], output: &mut Output<'_>) -> Result<(), Self::Error> {
        if self.writes {
            output.write(black_box(item));
        }
        Ok(())
    }
}

/// What the second call allocates; the first fills what is kept.
fn steady(mut work: impl FnMut()) -> Stats {
    work();
    let region = Region::new(ALLOCATOR);
    work();
    region.change()
}

#[test]
fn memory_is_bounded() {
    alone(|| {
        frames_that_are_sent_or_borrowed_allocate_nothing();
        a_bomb_takes_no_more_than_its_limit(Deflate::new());
        a_bomb_takes_no_more_than_its_limit(Lz4::new());
        what_a_large_frame_took_is_given_back();
    });
}

fn frames_that_are_sent_or_borrowed_allocate_nothing() {
    let (noise, zeros) = (pattern(3000, 1), [0; 3000]);
    let mut buffer = OutputBuffer::new();
    let wrapped = |writes| Checksummed::new(Compressed::new(Whole { writes }, Deflate::new()));
    let mut codec = wrapped(false); // A buffer's own memory stays out of it.
    let sent = steady(|| {
        for payload in [&noise[..], &zeros] {
            codec.encode(payload, &mut buffer.output()).expect("it can be sent");
        }
    });
    assert_eq!(sent.allocations + sent.reallocations, 0, "{sent:?}");
    wrapped(true).encode(&noise, &mut buffer.output()).expect("it can be sent");
    let frame = buffer.take();
    let received = steady(|| {
        black_box(codec.decode(&mut Input::from(&*frame)).expect("nothing is wrong"));
    });
    assert_eq!(received.allocations + received.reallocations, 0, "{received:?}");
}

/// All that is ever allocated counts, so the most that was there at a time is not more.
fn a_bomb_takes_no_more_than_its_limit<A: Compression + Copy>(algorithm: A) {
    const LIMIT: usize = 64 * 1024;
    let mut buffer = OutputBuffer::new();
    let payload = vec![0; 4 << 20];
    let mut sender = Compressed::new(Whole { writes: true }, algorithm);
    sender.encode(&payload, &mut buffer.output()).expect("it can be sent");
    let honest = buffer.take();
    assert!(honest.len() < payload.len() / 200, "{} bytes are no bomb", honest.len());
    let mut modest = honest.clone();
    modest[1..5].copy_from_slice(&(LIMIT as u32).to_be_bytes());
    let mut boast = honest[..100].to_vec();
    boast[1..5].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut codec = Compressed::new(Whole { writes: true }, algorithm).max_length(LIMIT);
    for (case, frame, most) in
        [("honest", honest, 0), ("modest", modest, LIMIT + 1024), ("boast", boast, 0)]
    {
        let change = steady(|| assert!(codec.decode(&mut Input::from(&*frame)).is_err()));
        assert!(change.bytes_allocated <= most, "{case}: {change:?}");
    }
    let mut roomy = Compressed::new(Whole { writes: true }, algorithm).max_length(1 << 30);
    let mut short = vec![A::MARKER];
    short.extend((1_u32 << 30).to_be_bytes());
    short.extend([0; 1000]);
    let change = steady(|| assert!(roomy.decode(&mut Input::from(&*short)).is_err()));
    assert_eq!(change.bytes_allocated, 0, "a GiB can't be in 1000 bytes: {change:?}");
}

fn what_a_large_frame_took_is_given_back() {
    let mut stream = vec![b'x'; 1 << 20];
    stream.push(b'\n');
    let mut codec = Compat::<LinesCodec>::new(LinesCodec::new());
    let region = Region::new(ALLOCATOR);
    let mut input = Input::from(&*stream);
    assert!(codec.decode(&mut input).expect("a line").is_some());
    assert!(codec.decode(&mut input).expect("no error").is_none());
    let change = region.change();
    assert!(change.bytes_allocated >= 1 << 20, "it was copied: {change:?}");
    let kept = change.bytes_allocated - change.bytes_deallocated;
    assert!(kept <= 8 * 1024, "{kept} bytes are kept");
}
