//! What framing costs: decoding alone, compared with tokio-util's codecs, and a connection whose
//! frames are echoed, compared with one whose bytes are.
//!
//!     cargo bench -p millstream-benches --bench codec

mod echoes;

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use millstream::codec::{Codec, LengthField, Lines};
use millstream::internals::Stepper;
use millstream::{EventHandler, Input};
use tokio_util::codec::{Decoder, LengthDelimitedCodec, LinesCodec};

use self::echoes::{Echoes, length_field_frames};

const FRAMES: usize = 64;
const FRAME: usize = 64;

fn lines() -> Vec<u8> {
    [&[b'x'; FRAME - 1][..], b"\n"].concat().repeat(FRAMES)
}

/// Decodes all frames, and returns how many bytes are in them.
fn decode<C>(codec: &mut C, bytes: &[u8]) -> usize
where
    C: for<'a> Codec<Frame<'a> = &'a [u8]>,
{
    let mut input = Input::from(bytes);
    let mut sum = 0;
    while let Ok(Some(frame)) = codec.decode(&mut input) {
        sum += black_box(frame).len();
    }
    sum
}

fn tokio_decode<D: Decoder>(codec: &mut D, bytes: &mut BytesMut) -> usize {
    let mut count = 0;
    while let Ok(Some(frame)) = codec.decode(bytes) {
        black_box(frame);
        count += 1;
    }
    count
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec/decode");
    group.throughput(Throughput::Elements(FRAMES as u64));
    let framed = length_field_frames(FRAMES, FRAME);
    assert_eq!(decode(&mut LengthField::new(), &framed), FRAMES * (FRAME - 4));
    group.bench_function(BenchmarkId::new("length field", "millstream"), |bencher| {
        let mut codec = LengthField::new();
        bencher.iter(|| decode(&mut codec, black_box(&framed)));
    });
    group.bench_function(BenchmarkId::new("length field", "tokio-util"), |bencher| {
        let mut codec = LengthDelimitedCodec::new();
        let received = || BytesMut::from(&framed[..]);
        bencher.iter_batched_ref(
            received,
            |bytes| tokio_decode(&mut codec, bytes),
            BatchSize::SmallInput,
        );
    });
    let lines = lines();
    assert_eq!(decode(&mut Lines::new(), &lines), FRAMES * (FRAME - 1));
    group.bench_function(BenchmarkId::new("lines", "millstream"), |bencher| {
        let mut codec = Lines::new();
        bencher.iter(|| decode(&mut codec, black_box(&lines)));
    });
    group.bench_function(BenchmarkId::new("lines", "tokio-util"), |bencher| {
        let mut codec = LinesCodec::new();
        let received = || BytesMut::from(&lines[..]);
        bencher.iter_batched_ref(
            received,
            |bytes| tokio_decode(&mut codec, bytes),
            BatchSize::SmallInput,
        );
    });
}

fn timed_turn<H: EventHandler>(stepper: &mut Stepper<H>) -> Duration {
    let start = Instant::now();
    stepper.turn();
    start.elapsed()
}

/// The same bytes through the same sockets, once as they are and once frame by frame. What the peer
/// does is not in the time.
fn echoing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec/echo");
    group.throughput(Throughput::Elements(FRAMES as u64));
    let mut unframed = Echoes::warm(1, FRAMES * FRAME, FRAMES * FRAME);
    group.bench_function("unframed", |bencher| {
        bencher.iter_custom(|turns| (0..turns).map(|_| unframed.round(timed_turn)).sum());
    });
    let mut framed = Echoes::framed(FRAMES, FRAME);
    group.bench_function("length field", |bencher| {
        bencher.iter_custom(|turns| (0..turns).map(|_| framed.round(timed_turn)).sum());
    });
}

criterion_group!(benches, decoding, echoing);
criterion_main!(benches);
