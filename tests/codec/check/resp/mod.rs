//! Redis' protocol: commands and replies, compared with plain readings of the specification.

pub mod commands;
pub mod replies;

use fastrand::Rng;
use millstream::Input;
use millstream::codec::Codec;

/// Decodes a stream that comes in pieces, up to its end or an error: the frames, the error, and the
/// most bytes that waited for more.
pub fn decode<C: Codec, F>(
    codec: &mut C,
    pieces: &[&[u8]],
    frame: impl for<'a> Fn(C::Frame<'a>) -> F,
) -> (Vec<F>, Option<C::Error>, usize) {
    let (mut unread, mut frames, mut most) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        unread.extend_from_slice(piece);
        let mut input = Input::from(&unread[..]);
        loop {
            match codec.decode(&mut input) {
                Ok(Some(found)) => frames.push(frame(found)),
                Ok(None) => break,
                Err(error) => return (frames, Some(error), most),
            }
        }
        let taken = input.taken();
        unread.drain(..taken);
        most = most.max(unread.len());
    }
    (frames, None, most)
}

/// Cuts a stream into pieces.
pub fn pieces<'a>(stream: &'a [u8], rng: &mut Rng) -> Vec<&'a [u8]> {
    let (mut rest, mut pieces) = (stream, Vec::new());
    let longest = [1, 3, 20, 200][rng.usize(..4)];
    while !rest.is_empty() {
        let piece;
        (piece, rest) = rest.split_at(rng.usize(1..=longest).min(rest.len()));
        pieces.push(piece);
    }
    pieces
}

/// Changes, adds and drops some bytes, usually to ones that mean something.
fn damage(stream: &mut Vec<u8>, meaningful: &[u8], rng: &mut Rng) {
    for _ in 0..rng.usize(..4) {
        if stream.is_empty() {
            return;
        }
        let at = rng.usize(..stream.len());
        let byte = *rng.choice(meaningful).expect("a choice");
        match rng.u8(..3) {
            0 => stream[at] = byte,
            1 => stream.insert(at, byte),
            _ => drop(stream.drain(at..(at + rng.usize(1..4)).min(stream.len()))),
        }
    }
}

/// The line in front, as text, and what is behind it.
fn line(stream: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = stream.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&stream[..end], &stream[end + 2..]))
}

fn number(text: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}
