//! `Checksummed` and `Compressed`: what is sent arrives, whatever its pieces; what is damaged on
//! its way, lies about its size or is another's is told, and the next frame arrives all the same.
#![cfg(all(feature = "crc32c", feature = "deflate", feature = "lz4"))]

#[path = "check/wrappers.rs"]
mod wrappers;

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Debug;
use std::io;

use crate::common::corpus::replay;
use crate::common::seeds::for_each_seed;
use crate::common::{assert_same, pattern};
use fastrand::Rng;
use millstream::codec::{
    ChecksumError, Checksummed, Codec, Compressed, CompressedError, Compression, Deflate, Lz4,
};
use millstream::{Input, Output, OutputBuffer};

/// Frames of four bytes that tell a length, and this many bytes; at most [`Blocks::LIMIT`].
#[derive(Clone)]
struct Blocks;

impl Blocks {
    const LIMIT: usize = 1 << 20;
}

impl Codec for Blocks {
    type Frame<'a> = &'a [u8];
    type Item<'a> = &'a [u8];
    type Error = io::Error;

    fn decode<'a>(&mut self, input: &mut Input<'a>) -> io::Result<Option<&'a [u8]>> {
        let Some(length) = input.peek().first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > Self::LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(input.take(4 + length).map(|frame| &frame[4..]))
    }

    /// The stream's end ends the last frame.
    fn decode_end<'a>(&mut self, input: &mut Input<'a>) -> io::Result<Option<&'a [u8]>> {
        let rest = input.take_all();
        Ok((!rest.is_empty()).then_some(rest))
    }

    fn encode(&mut self, item: &[u8], output: &mut Output<'_>) -> io::Result<()> {
        if item.len() > Self::LIMIT {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        output.write(&(item.len() as u32).to_be_bytes());
        output.write(item);
        Ok(())
    }
}

/// Blocks whose frames own their bytes.
struct OwnedBlocks;

impl Codec for OwnedBlocks {
    type Frame<'a> = Vec<u8>;
    type Item<'a> = &'a [u8];
    type Error = io::Error;

    fn decode<'a>(&mut self, input: &mut Input<'a>) -> io::Result<Option<Vec<u8>>> {
        Ok(Blocks.decode(input)?.map(<[u8]>::to_vec))
    }

    fn encode(&mut self, item: &[u8], output: &mut Output<'_>) -> io::Result<()> {
        Blocks.encode(item, output)
    }
}

/// What all wrappers are.
trait Wrapper: for<'a> Codec<Frame<'a> = Cow<'a, [u8]>, Item<'a> = &'a [u8]> {}
impl<C: for<'a> Codec<Frame<'a> = Cow<'a, [u8]>, Item<'a> = &'a [u8]>> Wrapper for C {}

fn encoded<C: Codec<Error: Debug> + Wrapper>(codec: &mut C, payload: &[u8]) -> Vec<u8> {
    let mut buffer = OutputBuffer::new();
    codec.encode(payload, &mut buffer.output()).expect("it can be sent");
    buffer.take()
}

/// A frame of [`Blocks`] with these bytes.
fn block(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&(body.len() as u32).to_be_bytes()[..], &body].concat()
}

/// A payload that can be compressed by more or less, or not.
fn random_payload(rng: &mut Rng) -> Vec<u8> {
    let longest = [2, 100, 2_000, 300_000][rng.usize(..4)];
    let (length, values) = (rng.usize(..longest), [1, 4, 50, 256][rng.usize(..4)]);
    (0..length).map(|_| rng.u32(..values) as u8).collect()
}

// --- what is sent arrives ------------------------------------------------------------------------

/// Sends payloads in pieces of any size.
fn round_trip<C: Codec<Error: Debug> + Wrapper>(name: &str, mut codec: C, rng: &mut Rng) {
    let payloads: Vec<_> = (0..6).map(|_| random_payload(rng)).collect();
    let stream: Vec<u8> = payloads.iter().flat_map(|each| encoded(&mut codec, each)).collect();
    let (mut arrived, mut taken, mut decoded) = (0, 0, 0);
    while arrived < stream.len() {
        let piece = [1, 50, 5_000, 500_000][rng.usize(..4)];
        arrived = (arrived + rng.usize(1..=piece)).min(stream.len());
        let mut input = Input::from(&stream[taken..arrived]);
        while let Some(payload) = codec.decode(&mut input).expect("nothing is wrong") {
            assert_same(&payload, &payloads[decoded]);
            decoded += 1;
        }
        taken += input.taken();
    }
    assert_eq!((decoded, taken), (payloads.len(), stream.len()), "{name}");
}

#[test]
fn what_is_sent_arrives() {
    for_each_seed(8, |seed| {
        let rng = &mut Rng::with_seed(seed);
        let deflate = Deflate::new().level(rng.u32(..12));
        let threshold = rng.usize(..600);
        round_trip("a checksum", Checksummed::new(Blocks), rng);
        round_trip("little-endian", Checksummed::new(Blocks).little_endian(), rng);
        round_trip("owned and a checksum", Checksummed::new(OwnedBlocks), rng);
        round_trip("DEFLATE", Compressed::new(Blocks, deflate).threshold(threshold), rng);
        round_trip("LZ4", Compressed::new(Blocks, Lz4::new()).threshold(threshold), rng);
        round_trip("owned and LZ4", Compressed::new(OwnedBlocks, Lz4::new()), rng);
        let inside = Compressed::new(Checksummed::new(Blocks), deflate);
        round_trip("a checksum of the compressed", inside, rng);
        let outside = Checksummed::new(Compressed::new(Blocks, Lz4::new()));
        round_trip("a checksum that is compressed, too", outside, rng);
        let deep = Checksummed::new(Compressed::new(Compressed::new(Blocks, Lz4::new()), deflate));
        round_trip("three wrappers", deep, rng);
    });
}

#[test]
fn the_last_frame_may_end_with_the_stream() {
    let mut codec = Checksummed::new(Compressed::new(Blocks, Deflate::new()).threshold(1));
    let frame = encoded(&mut codec, &[7; 1000]);
    let mut input = Input::from(&frame[4..]); // Without its length.
    let last = codec.decode_end(&mut input).expect("nothing is wrong");
    assert_same(&last.expect("a frame"), &[7; 1000]);
    assert_eq!(codec.decode_end(&mut input).expect("nothing is wrong"), None);
}

#[test]
fn the_framing_decides_what_is_too_long() {
    let payload = pattern(Blocks::LIMIT - 2, 1);
    let mut buffer = OutputBuffer::new();
    let sent = Checksummed::new(Blocks).encode(&payload, &mut buffer.output());
    assert!(matches!(sent, Err(ChecksumError::Framing(_))), "{sent:?}");
    let mut codec = Compressed::new(Checksummed::new(Blocks), Lz4::new());
    let sent = codec.encode(&payload, &mut buffer.output());
    assert!(matches!(sent, Err(CompressedError::Framing(ChecksumError::Framing(_)))), "{sent:?}");
    assert_eq!(buffer.take(), b"");
    let received = codec.decode(&mut Input::from(&[0xFF; 4][..]));
    assert!(
        matches!(received, Err(CompressedError::Framing(ChecksumError::Framing(_)))),
        "{received:?}"
    );
}

// --- checksums -----------------------------------------------------------------------------------

/// The examples of RFC 3720, appendix B.4, which lists a CRC's bytes as they are sent there:
/// little-endian.
#[test]
fn checksums_are_those_of_the_rfc() {
    let ascending: Vec<u8> = (0..32).collect();
    let descending: Vec<u8> = (0..32).rev().collect();
    let mut read_10_command = [0; 48];
    for (at, value) in [
        (0, 0x01),
        (1, 0xC0),
        (16, 0x14),
        (22, 0x04),
        (27, 0x14),
        (31, 0x18),
        (32, 0x28),
        (40, 0x02),
    ] {
        read_10_command[at] = value;
    }
    let examples: [(&[u8], [u8; 4]); 5] = [
        (&[0; 32], [0xAA, 0x36, 0x91, 0x8A]),
        (&[0xFF; 32], [0x43, 0xAB, 0xA8, 0x62]),
        (&ascending, [0x4E, 0x79, 0xDD, 0x46]),
        (&descending, [0x5C, 0xDB, 0x3F, 0x11]),
        (&read_10_command, [0x56, 0x3A, 0x96, 0xD9]),
    ];
    for (payload, mut checksum) in examples {
        let little = encoded(&mut Checksummed::new(Blocks).little_endian(), payload);
        assert_eq!(little, block(&[payload, &checksum]));
        checksum.reverse();
        let big = encoded(&mut Checksummed::new(Blocks), payload);
        assert_eq!(big, block(&[payload, &checksum]));
    }
}

#[test]
fn every_flipped_bit_is_found_and_the_next_frame_arrives() {
    let mut codec = Checksummed::new(Blocks);
    let good = encoded(&mut codec, b"a small frame");
    for bit in 4 * 8..good.len() * 8 {
        let mut damaged = good.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let (body, received) = damaged[4..].split_last_chunk().expect("a checksum");
        let (received, computed) = (u32::from_be_bytes(*received), crc32c::crc32c(body));
        let stream = [&*damaged, &good].concat();
        let mut input = Input::from(&*stream);
        let error = codec.decode(&mut input).expect_err("it is damaged");
        assert!(matches!(error, ChecksumError::Mismatch { received: r, computed: c }
            if (r, c) == (received, computed)));
        let next = codec.decode(&mut input).expect("the next is not");
        assert_eq!(next.as_deref(), Some(&b"a small frame"[..]));
    }
}

#[test]
fn a_frame_without_room_for_a_checksum_is_told() {
    for length in 0..4 {
        let frame = block(&[&[9; 4][..length]]);
        let error = Checksummed::new(Blocks).decode(&mut Input::from(&*frame)).unwrap_err();
        assert!(matches!(error, ChecksumError::TooShort { length: told } if told == length));
    }
}

// --- compression ---------------------------------------------------------------------------------

/// The bytes behind a frame's length and marker.
fn compressed_by<A: Compression>(algorithm: A, payload: &[u8]) -> Vec<u8> {
    let frame = encoded(&mut Compressed::new(Blocks, algorithm).threshold(1), payload);
    assert_eq!(frame[4], A::MARKER, "it is compressed");
    frame[5..].to_vec()
}

fn decode_block<A: Compression>(
    algorithm: A,
    parts: &[&[u8]],
) -> Result<Vec<u8>, CompressedError<io::Error>> {
    let frame = block(parts);
    let mut codec = Compressed::new(Blocks, algorithm).max_length(100_000);
    let mut input = Input::from(&*frame);
    let decoded = codec.decode(&mut input);
    assert!(input.is_empty(), "the frame was taken");
    decoded.map(|payload| payload.expect("a whole frame").into_owned())
}

#[test]
fn small_and_incompressible_payloads_are_sent_as_they_are_and_borrowed() {
    let noise = pattern(10_000, 3);
    let mut codec = Compressed::new(Blocks, Lz4::new()).threshold(100);
    for payload in [&[0; 99][..], &noise, b""] {
        let frame = encoded(&mut codec, payload);
        assert_eq!(frame, block(&[&[0], payload]));
        let decoded = codec.decode(&mut Input::from(&*frame)).expect("nothing is wrong");
        assert!(matches!(decoded, Some(Cow::Borrowed(borrowed)) if borrowed == payload));
    }
    let frame = encoded(&mut codec, &[0; 100]);
    assert_eq!(frame[4..9], [2, 0, 0, 0, 100], "compressed from the threshold on");
    let frame = encoded(&mut Compressed::new(Blocks, Deflate::new()).threshold(0), &noise);
    assert_eq!(frame, block(&[&[0], &noise]));
}

/// What a compressor keeps from a payload that it gave up on does not come into the next one.
#[test]
fn what_can_not_be_compressed_leaves_nothing_behind() {
    for level in [0, 1, 2, 6] {
        let mut codec = Compressed::new(Blocks, Deflate::new().level(level));
        for seed in 0..20 {
            for payload in [pattern(5_000 * seed, seed as u64), pattern(500, seed as u64).repeat(9)]
            {
                let frame = encoded(&mut codec, &payload);
                let decoded = codec.decode(&mut Input::from(&*frame)).expect("nothing is wrong");
                assert_same(&decoded.expect("a frame"), &payload);
            }
        }
    }
}

#[test]
fn a_higher_level_compresses_more() {
    let mut rng = Rng::with_seed(4);
    let words = ["mill", "stream", "wheel", "water", "stone"];
    let text: String = (0..20_000).map(|_| words[rng.usize(..words.len())]).collect();
    let length = |level| compressed_by(Deflate::new().level(level), text.as_bytes()).len();
    assert!(length(9) < length(1), "{} and {}", length(9), length(1));
    assert_eq!(length(9), length(100));
}

/// Known streams: a fixed block of RFC 1951 with three letters, and an LZ4 block of literals.
#[test]
fn others_streams_can_be_read() {
    let decoded = decode_block(Deflate::new(), &[&[1, 0, 0, 0, 3], b"\x4b\x4c\x4a\x06\x00"]);
    assert_eq!(decoded.expect("nothing is wrong"), b"abc");
    let decoded = decode_block(Lz4::new(), &[&[2, 0, 0, 0, 3], b"\x30abc"]);
    assert_eq!(decoded.expect("nothing is wrong"), b"abc");
}

#[test]
fn what_is_too_long_is_neither_sent_nor_received() {
    fn too_long<T: Debug>(result: Result<T, CompressedError<io::Error>>, expected: usize) {
        let error = result.expect_err("it is too long");
        assert!(
            matches!(error, CompressedError::TooLong { length, limit: 999 } if length == expected)
        );
    }
    fn check<A: Compression + Clone>(algorithm: A) {
        let mut large = Compressed::new(Blocks, algorithm.clone());
        let mut small = Compressed::new(Blocks, algorithm).max_length(999);
        let mut buffer = OutputBuffer::new();
        too_long(small.encode(&[0; 1000], &mut buffer.output()), 1000);
        assert_eq!(buffer.take(), b"");
        for payload in [vec![0; 1 << 20], vec![0; 1000], pattern(1000, 5)] {
            let stream = [encoded(&mut large, &payload), encoded(&mut large, &[1; 999])].concat();
            let mut input = Input::from(&*stream);
            too_long(small.decode(&mut input), payload.len());
            let next = small.decode(&mut input).expect("the next is short enough");
            assert_eq!(next.as_deref(), Some(&[1; 999][..]));
        }
    }
    check(Deflate::new());
    check(Lz4::new());
}

#[test]
fn a_length_that_lies_is_told() {
    fn check<A: Compression + Copy>(algorithm: A) {
        let bytes = compressed_by(algorithm, &[5; 5000]);
        for lie in [0_u32, 1, 4999, 5001, 60_000] {
            let parts = [&[A::MARKER][..], &lie.to_be_bytes(), &bytes[4..]];
            let error = decode_block(algorithm, &parts).expect_err("the length is wrong");
            let told = match error {
                CompressedError::Corrupt(_) => lie < 5000 || A::MARKER == 1,
                CompressedError::WrongLength { declared, .. } => declared == lie as usize,
                _ => false,
            };
            assert!(told, "{lie}: {error:?}");
        }
        let most = 10 * A::MAX_RATIO;
        let parts = [&[A::MARKER][..], &(most as u32 + 1).to_be_bytes(), &[0; 10]];
        let error = decode_block(algorithm, &parts).expect_err("ten bytes can't hold it");
        assert!(matches!(error, CompressedError::WrongLength { actual, .. } if actual == most));
    }
    check(Deflate::new());
    check(Lz4::new());
}

#[test]
fn truncated_frames_are_told() {
    fn check<A: Compression + Copy>(algorithm: A) {
        let whole = compressed_by(algorithm, &pattern(300, 6).repeat(3));
        for length in 0..whole.len() {
            let error = decode_block(algorithm, &[&[A::MARKER], &whole[..length]]).unwrap_err();
            let told = match error {
                CompressedError::TooShort { length: told } => length < 4 && told == length + 1,
                CompressedError::WrongLength { declared, .. } => declared == 900,
                CompressedError::Corrupt(ref source) => !source.to_string().is_empty(),
                _ => false,
            };
            assert!(told, "{length} of {} bytes: {error:?}", whole.len());
        }
        let error = decode_block(algorithm, &[]).unwrap_err();
        assert!(matches!(error, CompressedError::TooShort { length: 0 }));
        let error = decode_block(algorithm, &[&[A::MARKER], &whole, b"more"]).unwrap_err();
        assert!(matches!(error, CompressedError::Corrupt(_)), "{error:?}");
    }
    check(Deflate::new());
    check(Lz4::new());
}

#[test]
fn another_marker_is_told() {
    let error = decode_block(Deflate::new(), &[&[2, 0, 0, 0, 3], b"\x30abc"]).unwrap_err();
    assert!(matches!(error, CompressedError::UnknownMarker { marker: 2, expected: 1 }));
    let error = decode_block(Lz4::new(), &[&[0xFF]]).unwrap_err();
    assert_eq!(error.to_string(), "a frame begins with 255, where 0 is stored and 2 is compressed");
}

#[test]
fn garbage_is_an_error_with_its_source() {
    fn check<A: Compression + Copy>(algorithm: A) {
        for_each_seed(1_000, |seed| {
            let rng = &mut Rng::with_seed(seed);
            let garbage = pattern(rng.usize(1..400), seed);
            let declared = rng.u32(..2_000).to_be_bytes();
            match decode_block(algorithm, &[&[A::MARKER], &declared, &garbage]) {
                Ok(payload) => assert!(payload.len() < 2_000), // Some garbage means something.
                Err(CompressedError::WrongLength { .. }) => {}
                Err(error) => assert!(error.source().is_some(), "{error:?}"),
            }
        });
    }
    check(Deflate::new());
    check(Lz4::new());
    let error = decode_block(Deflate::new(), &[&[1, 0, 0, 0, 9], &[0xFF; 9]]).unwrap_err();
    assert!(said_inside(&error).is::<flate2::DecompressError>(), "{error:?}");
    let error = decode_block(Lz4::new(), &[&[2, 0, 0, 0, 9], &[0xFF; 9]]).unwrap_err();
    assert!(said_inside(&error).is::<lz4_flex::block::DecompressError>(), "{error:?}");
}

/// What the algorithm's library said.
fn said_inside(error: &dyn Error) -> &(dyn Error + Send + Sync + 'static) {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.and_then(io::Error::get_ref).expect("an I/O error that holds another")
}

/// Whatever is in a frame, it is no longer than it may be, and the next one arrives.
#[test]
fn damaged_frames_cost_no_other() {
    for_each_seed(3_000, |seed| wrappers::Case::draw(&mut Rng::with_seed(seed)).check());
}

#[test]
fn the_fuzzers_frames_cost_no_other() {
    replay("wrappers", |data| wrappers::Case::read(data).check());
}

/// Damage anywhere in a compressed frame: no panic, and under a checksum it is always found.
#[test]
fn flipped_bits_in_compressed_frames_are_found() {
    fn check<A: Compression + Copy>(algorithm: A) {
        let mut codec = Compressed::new(Checksummed::new(Blocks), algorithm).threshold(1);
        let good = encoded(&mut codec, &b"again and ".repeat(30));
        for bit in 4 * 8..good.len() * 8 {
            let mut damaged = good.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = codec.decode(&mut Input::from(&*damaged)).expect_err("it is damaged");
            assert!(matches!(error, CompressedError::Framing(ChecksumError::Mismatch { .. })));
            let mut without = Compressed::new(Blocks, algorithm).max_length(1 << 16);
            let _ = without.decode(&mut Input::from(&*block(&[&damaged[4..good.len() - 4]])));
        }
    }
    check(Deflate::new());
    check(Lz4::new());
}
