//! A stream means the same in whatever two pieces it comes, and byte by byte: the same frames,
//! which end at the same places, and the same errors, of which one that ends the connection is at
//! the same place.

use std::fmt::Debug;

use fastrand::Rng;
use millstream::Input;
use millstream::codec::resp::{Command, RespClient, RespServer};
use millstream::codec::{
    BodyLength, Codec, Delimited, FixedLength, HeaderBody, LengthField, Lines, Utf8Lines,
};
use millstream::rpc::FrameLimits;
use millstream::rpc::frame::FrameCodec;

use crate::check::{bytes, encode};
use crate::common::seeds::for_each_seed;

const SEEDS: u64 = 150;

/// What is decoded, as text, and how much of the stream is taken behind it, where that is certain.
type Steps = Vec<(String, Option<usize>)>;

/// Decodes pieces, up to the stream's end or an error that takes nothing.
fn steps<C: Codec<Error: Debug>>(
    codec: &mut C,
    pieces: &[&[u8]],
    show: impl for<'a> Fn(C::Frame<'a>) -> String,
) -> Steps {
    let (mut unread, mut steps, mut taken) = (Vec::new(), Steps::new(), 0);
    for (piece, is_last) in pieces.iter().map(|piece| (*piece, false)).chain([(&b""[..], true)]) {
        unread.extend_from_slice(piece);
        loop {
            let mut input = Input::from(&unread[..]);
            let found =
                if is_last { codec.decode_end(&mut input) } else { codec.decode(&mut input) };
            let found = found.map(|frame| frame.map(&show));
            let count = input.taken();
            unread.drain(..count);
            taken += count;
            match found {
                Ok(Some(frame)) => steps.push((frame, Some(taken))),
                Ok(None) => break,
                // How much of a bad frame is taken at once depends on how much of it is there.
                Err(error) if count > 0 => steps.push((format!("{error:?}"), None)),
                Err(error) => {
                    steps.push((format!("{error:?}"), Some(taken)));
                    return steps;
                }
            }
        }
    }
    steps.push((format!("left {}", unread.len()), Some(taken)));
    steps
}

/// Checks all cuts of a stream.
fn check<C: Codec<Error: Debug> + Clone>(
    codec: &C,
    stream: &[u8],
    show: impl for<'a> Fn(C::Frame<'a>) -> String,
) {
    check_cuts(codec, stream, show, |steps| steps);
}

fn check_cuts<C: Codec<Error: Debug> + Clone, S: Debug + PartialEq>(
    codec: &C,
    stream: &[u8],
    show: impl for<'a> Fn(C::Frame<'a>) -> String,
    seen: impl Fn(Steps) -> S,
) {
    let of = |pieces: &[&[u8]]| seen(steps(&mut codec.clone(), pieces, &show));
    let whole = of(&[stream]);
    for at in 1..stream.len() {
        let (first, second) = stream.split_at(at);
        assert_eq!(of(&[first, second]), whole, "cut at {at}: {}", stream.escape_ascii());
    }
    let single: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(of(&single), whole, "byte by byte: {}", stream.escape_ascii());
}

/// For a codec that leaves the end of what was bad with what is behind it, if both came together.
fn without_places(steps: Steps) -> Vec<String> {
    let steps = steps.into_iter().map(|(step, _)| step);
    steps.filter(|step| !step.starts_with("left ")).collect()
}

/// Some frames, and usually a few changes.
fn near_valid(rng: &mut Rng, frequent: &[u8], frame: impl Fn(&mut Rng) -> Vec<u8>) -> Vec<u8> {
    let mut stream: Vec<u8> = (0..rng.usize(1..4)).flat_map(|_| frame(rng)).collect();
    for _ in 0..rng.usize(..4) {
        let at = rng.usize(..=stream.len());
        let byte = *rng.choice(frequent).expect("a choice");
        match (rng.u8(..3), at < stream.len()) {
            (0, true) => stream[at] = byte,
            (1, true) => drop(stream.remove(at)),
            _ => stream.insert(at, byte),
        }
    }
    stream
}

#[test]
fn framings() {
    for_each_seed(SEEDS, |seed| {
        let mut rng = Rng::with_seed(seed);
        let shown = |frame: &[u8]| frame.escape_ascii().to_string();
        let stream = bytes(&mut rng, 60, b"\r\n;a");
        let most = rng.usize(..12);
        check(&Lines::new().max_length(most), &stream, shown);
        let text = bytes(&mut rng, 60, "\r\nä".as_bytes());
        check(&Utf8Lines::from(Lines::new().max_length(most)), &text, str::to_owned);
        check(&Delimited::new(";a;", most), &stream, shown);
        check(&FixedLength::new(1 + most), &stream, shown);
    });
}

#[test]
fn length_fields() {
    for_each_seed(SEEDS, |seed| {
        let mut rng = Rng::with_seed(seed);
        let of = LengthField::builder;
        let codecs = [of(), of().varint(), of().length_field_length(2).length_includes_header()];
        for builder in codecs {
            let codec = builder.max_frame_length(20).build().expect("the options are right");
            let frame = |rng: &mut Rng| {
                let body = bytes(rng, 20, b"a");
                encode(&mut codec.clone(), &body).unwrap_or_default()
            };
            let stream = near_valid(&mut rng, b"\0\x01\x15\x80\xff", frame);
            check(&codec, &stream, |frame| frame.escape_ascii().to_string());
        }
    });
}

#[derive(Clone)]
struct FirstByte;

impl BodyLength<Lines> for FirstByte {
    type Error = std::fmt::Error;

    fn body_length(&self, header: &&[u8]) -> Result<u64, std::fmt::Error> {
        header.first().map(|byte| u64::from(byte % 16)).ok_or(std::fmt::Error)
    }
}

#[test]
fn headers_with_bodies() {
    for_each_seed(SEEDS, |seed| {
        let mut rng = Rng::with_seed(seed);
        let codec = HeaderBody::new(Lines::new().max_length(6), FirstByte).max_body_length(12);
        let stream = bytes(&mut rng, 60, b"\r\n012");
        check_cuts(&codec, &stream, |frame| format!("{frame:?}"), without_places);
    });
}

#[test]
fn commands_and_replies() {
    let words = |command: Command<'_>| {
        let words: Vec<_> =
            command.arguments().map(|word| word.escape_ascii().to_string()).collect();
        format!("{words:?}")
    };
    for_each_seed(SEEDS, |seed| {
        let mut rng = Rng::with_seed(seed);
        let command = |rng: &mut Rng| {
            let words: Vec<Vec<u8>> =
                (0..rng.usize(1..4)).map(|_| bytes(rng, 12, b"a\r\n")).collect();
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let inline = b"set \"a\\x41\" 'b' c\r\n".to_vec();
            if rng.bool() { encode(&mut RespClient::new(), &words).unwrap() } else { inline }
        };
        let stream = near_valid(&mut rng, b"*$-09:+x\"'\r\n", command);
        let server = RespServer::new().max_arguments(3).max_bulk_length(10);
        let server = server.max_frame_length([20, 200][rng.usize(..2)]);
        // An error takes nothing, also none of the empty commands in front of it, which are taken
        // if they came alone.
        check_cuts(&server, &stream, words, without_places);
        let replies = [
            "+OK\r\n",
            "-ERR no\r\n",
            ":-12\r\n",
            "$3\r\nabc\r\n",
            "$-1\r\n",
            "*2\r\n:1\r\n$0\r\n\r\n",
            "%1\r\n+a\r\n,1.5\r\n",
            "|1\r\n+a\r\n+b\r\n#t\r\n",
            "=7\r\ntxt:abc\r\n",
            "(123\r\n",
            "_\r\n",
        ];
        let reply = |rng: &mut Rng| rng.choice(replies).expect("a choice").as_bytes().to_vec();
        let stream = near_valid(&mut rng, b"*$-+:\r\n019x", reply);
        let client = RespClient::new().max_frame_length([8, 14, 200][rng.usize(..3)]);
        check(&client, &stream, |reply| format!("{reply:?}"));
    });
}

#[test]
fn frames_of_rpc() {
    for_each_seed(SEEDS, |seed| {
        let mut rng = Rng::with_seed(seed);
        // Two bytes of magic, the version, the kind, flags, format, three lengths, and the rest.
        let frame = |rng: &mut Rng| {
            let (kind, head, body) = (rng.u8(1..=7), rng.u8(..8), rng.u8(..8));
            let mut frame =
                encode(&mut FrameCodec::default(), millstream::rpc::frame::Frame::Ping(1))
                    .expect("it can be sent");
            frame[3] = kind;
            (frame[7], frame[11]) = (head, body);
            frame.extend((0..head + body).map(|_| rng.u8(..4)));
            frame
        };
        let stream = near_valid(&mut rng, b"\0\x01\x09\xff", frame);
        let mut limits = FrameLimits::default();
        (limits.max_head, limits.max_body) = (6, 6);
        let shown = |frame: millstream::rpc::frame::Frame<'_>| format!("{frame:?}");
        check_cuts(&FrameCodec::new(limits), &stream, shown, without_places);
    });
}

#[test]
#[cfg(all(feature = "crc32c", feature = "deflate", feature = "lz4"))]
fn wrappers() {
    use millstream::codec::{Checksummed, Compressed, Deflate, Lz4};
    use std::borrow::Cow;

    let shown = |frame: Cow<'_, [u8]>| frame.escape_ascii().to_string();
    for_each_seed(SEEDS, |seed| {
        let mut rng = Rng::with_seed(seed);
        let summed = Checksummed::new(LengthField::new());
        let deflated = Compressed::new(LengthField::new(), Deflate::new()).threshold(4);
        let packed = Compressed::new(summed.clone(), Lz4::new()).threshold(4).max_length(30);
        let body = |rng: &mut Rng| vec![rng.u8(..); rng.usize(..30)];
        let frequent = b"\0\x01\x02\xff";
        let of = |rng: &mut Rng| encode(&mut summed.clone(), &body(rng)).unwrap();
        check(&summed, &near_valid(&mut rng, frequent, of), shown);
        let of = |rng: &mut Rng| encode(&mut deflated.clone(), &body(rng)).unwrap();
        check(&deflated, &near_valid(&mut rng, frequent, of), shown);
        let of = |rng: &mut Rng| encode(&mut packed.clone(), &body(rng)).unwrap();
        check(&packed, &near_valid(&mut rng, frequent, of), shown);
    });
}

/// Lines of a length or a count that are longer than any number, around their limit.
#[test]
fn long_lines_of_commands() {
    for length in [64 * 1024 - 2, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 64 * 1024 + 2] {
        for (begin, end) in [("*", "\r\n"), ("*1\r\n$", "\r\n"), ("", "\r\n"), ("", "\n")] {
            let line = begin.len() + length;
            let stream =
                [begin.as_bytes(), &vec![b'1'; length], end.as_bytes(), b"PING\r\n"].concat();
            let show = |command: Command<'_>| command.len().to_string();
            let whole = steps(&mut RespServer::new(), &[&stream], show);
            for cut in line - 3..line + end.len() + 2 {
                let (first, second) = stream.split_at(cut);
                let pieces = steps(&mut RespServer::new(), &[first, second], show);
                assert_eq!(pieces, whole, "{length} digits behind {begin:?}, cut at {cut}");
            }
        }
    }
}
