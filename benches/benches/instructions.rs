//! Instructions on the hot path, counted by callgrind: one turn of a reactor on real sockets, and
//! the data structures under it.
//!
//!     scripts/count-instructions
//!
//! Only what runs inside [`counted`] is in the figures; of a system call, that is what it takes to
//! make it. Everything is warmed up before, and each benchmark does its operation [`ROUNDS`] times.

#![allow(missing_docs, unused_qualifications, reason = "of the items that gungraun's macros make")]

mod echoes;

use std::hint::black_box;
use std::sync::Arc;

use gungraun::prelude::*;
use gungraun::{Callgrind, EntryPoint};
use millstream::Input;
use millstream::codec::{Codec, Framed, LengthField, Lines};
use millstream::internals::inbox::{Inbox, Notify};
use millstream::internals::table::Table;
use millstream::internals::timers::Timers;
use millstream::rpc::Chain;
use millstream_benches::COUNTED_ROUNDS as ROUNDS;
use millstream_platform::driver::{Token, Wake};
use millstream_platform::memory::{OutputPool, OutputQueue, Ring};

use self::echoes::calls::{Calls, Pass};
use self::echoes::sealed::SealedEchoes;
use self::echoes::{EchoFrames, Echoes, length_field_frames};

const MESSAGE: usize = 64;

/// What is counted: callgrind looks for this function's name.
#[inline(never)]
fn counted<T>(operation: impl FnOnce() -> T) -> T {
    operation()
}

#[library_benchmark(setup = Echoes::warm)]
#[bench::one_message(1, MESSAGE, MESSAGE)]
#[bench::sixteen_frames(1, 16 * MESSAGE, MESSAGE)]
#[bench::fifty_connections(50, MESSAGE, MESSAGE)]
#[bench::sixty_four_messages(1, 64 * MESSAGE, 64 * MESSAGE)]
#[bench::large_message(1, 64 * 1024, 64 * 1024)]
#[bench::own_deadlines(args = (1, MESSAGE, MESSAGE), setup = Echoes::timed)]
fn echo(mut echoes: Echoes) {
    for _ in 0..ROUNDS {
        echoes.round(|stepper| counted(|| stepper.turn()));
    }
}

#[library_benchmark(setup = Echoes::framed)]
#[bench::sixty_four_frames(64, MESSAGE)]
fn echo_framed(mut echoes: Echoes<Framed<EchoFrames>>) {
    for _ in 0..ROUNDS {
        echoes.round(|stepper| counted(|| stepper.turn()));
    }
}

// With rustls and its cryptography, which execute the same instructions for each message.
#[library_benchmark(setup = SealedEchoes::warm)]
#[bench::one_message(MESSAGE)]
fn echo_tls(mut echoes: SealedEchoes) {
    for _ in 0..ROUNDS {
        echoes.round(|stepper| counted(|| stepper.turn()));
    }
}

#[library_benchmark(setup = Calls::plain)]
#[bench::sixty_four_calls(64, MESSAGE)]
fn rpc(mut calls: Calls<()>) {
    for _ in 0..ROUNDS {
        calls.round(|stepper| counted(|| stepper.turn()));
    }
}

#[library_benchmark(setup = Calls::layered)]
#[bench::sixty_four_calls(64, MESSAGE)]
fn rpc_layered(mut calls: Calls<Chain<Chain<(), Pass>, Pass>>) {
    for _ in 0..ROUNDS {
        calls.round(|stepper| counted(|| stepper.turn()));
    }
}

// Frames in a slice; a round is one frame.
#[library_benchmark(setup = length_field_frames)]
#[bench::length_field(ROUNDS, MESSAGE)]
fn decode(bytes: Vec<u8>) -> Vec<u8> {
    counted(|| {
        let (mut codec, mut input) = (LengthField::new(), Input::from(&bytes[..]));
        while let Ok(Some(frame)) = codec.decode(&mut input) {
            black_box(frame);
        }
        assert!(input.is_empty());
    });
    bytes
}

fn lines(count: usize, size: usize) -> Vec<u8> {
    [&vec![b'x'; size - 1][..], b"\n"].concat().repeat(count)
}

#[library_benchmark(setup = lines)]
#[bench::lines(ROUNDS, MESSAGE)]
fn decode_lines(bytes: Vec<u8>) -> Vec<u8> {
    counted(|| {
        let (mut codec, mut input) = (Lines::new(), Input::from(&bytes[..]));
        while let Ok(Some(frame)) = codec.decode(&mut input) {
            black_box(frame);
        }
        assert!(input.is_empty());
    });
    bytes
}

// A turn in which nothing happens but a wake-up.
#[library_benchmark(setup = Echoes::warm)]
#[bench::one_connection(1, MESSAGE, MESSAGE)]
fn idle_turn(mut echoes: Echoes) {
    for _ in 0..ROUNDS {
        echoes.stepper.wake();
        counted(|| echoes.stepper.turn());
    }
}

// A turn that accepts a connection and tells the handler of it.
#[library_benchmark(setup = Echoes::warm)]
#[bench::one_connection(1, MESSAGE, MESSAGE)]
fn accept(mut echoes: Echoes) {
    for _ in 0..ROUNDS {
        echoes.accepted(|stepper| counted(|| stepper.turn()));
    }
}

/// A wheel with this many timers within the next minute.
fn wheel(armed: u64) -> Timers<u64> {
    let mut timers = Timers::new();
    for number in 0..armed {
        timers.arm(1 + number * 60_000 / armed, number);
    }
    timers
}

#[library_benchmark(setup = wheel)]
#[bench::arm_and_cancel(1_000)]
fn timer(mut timers: Timers<u64>) -> Timers<u64> {
    counted(|| {
        for _ in 0..ROUNDS {
            let key = timers.arm(black_box(30_000), 0);
            black_box(timers.cancel(key));
        }
    });
    timers
}

/// Wakes nobody: the inbox's owner is awake.
struct NoWaker;

impl Wake for NoWaker {
    fn wake(&self) {}
}

/// As large as a command to a connection.
type Command = [u64; 6];

fn inbox_of_waker(waker: NoWaker) -> Inbox<Command> {
    let inbox = Inbox::new(Arc::new(Notify::new(Arc::new(waker))));
    assert!(inbox.post([0; 6]).is_ok());
    inbox.pop();
    inbox
}

#[library_benchmark(setup = inbox_of_waker)]
#[bench::post_and_pop(NoWaker)]
fn inbox(inbox: Inbox<Command>) -> Inbox<Command> {
    counted(|| {
        for _ in 0..ROUNDS {
            assert!(inbox.post(black_box([1; 6])).is_ok());
            black_box(inbox.pop());
        }
    });
    inbox
}

fn ring_of(size: usize) -> Ring {
    Ring::mirrored(size).expect("the system maps memory twice")
}

// A message that comes behind another one and is then taken.
#[library_benchmark(setup = ring_of)]
#[bench::append_and_consume(64 * 1024)]
fn ring(mut ring: Ring) -> Ring {
    ring.append(&[1; MESSAGE]);
    counted(|| {
        for _ in 0..ROUNDS {
            ring.append(black_box(&[2; MESSAGE]));
            black_box(ring.readable());
            ring.consume(MESSAGE);
        }
    });
    ring
}

fn output_queue_of(chunk: usize) -> (OutputPool, Box<OutputQueue>) {
    let mut pool = OutputPool::new(chunk, 16);
    let mut queue = pool.queue();
    queue.append(&[1; MESSAGE], &mut pool);
    queue.advance(MESSAGE, &mut pool);
    (pool, queue)
}

#[library_benchmark(setup = output_queue_of)]
#[bench::append_and_advance(16 * 1024)]
fn output(output: (OutputPool, Box<OutputQueue>)) -> (OutputPool, Box<OutputQueue>) {
    let (mut pool, mut queue) = output;
    counted(|| {
        for _ in 0..ROUNDS {
            queue.append(black_box(&[1; MESSAGE]), &mut pool);
            let sent = black_box(queue.front()).len();
            queue.advance(sent, &mut pool);
        }
    });
    (pool, queue)
}

/// About as much as a connection takes in the table.
type Place = [u64; 16];

fn table_of(places: usize) -> (Table<Place>, Vec<Token>) {
    let mut table = Table::new();
    let tokens = (0..places).filter_map(|_| table.insert_with(|_| [1; 16])).collect();
    (table, tokens)
}

#[library_benchmark(setup = table_of)]
#[bench::get(ROUNDS)]
fn table(table: (Table<Place>, Vec<Token>)) -> Table<Place> {
    let (mut table, tokens) = table;
    counted(|| {
        for &token in &tokens {
            black_box(table.get_mut(black_box(token)));
        }
    });
    table
}

library_benchmark_group!(
    name = instructions,
    benchmarks = [
        echo,
        echo_framed,
        echo_tls,
        rpc,
        rpc_layered,
        decode,
        decode_lines,
        idle_turn,
        accept,
        timer,
        inbox,
        ring,
        output,
        table
    ]
);

main!(
    config = LibraryBenchmarkConfig::default()
        // The C library copies memory with what the processor has; so the counts are the same on
        // any.
        .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2,-AVX_Fast_Unaligned_Load,-ERMS")
        .tool(
            Callgrind::with_args(["--cache-sim=no"])
                .entry_point(EntryPoint::Custom("*instructions::counted*".to_owned()))
        ),
    library_benchmark_groups = instructions
);
