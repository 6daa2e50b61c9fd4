//! One message of 64 bytes for a thousand connections of a reactor, in the processor's time: from
//! the wait for the publisher's byte to the last send, by `Neighbours::write_to_all` and by
//! `Remote::write` for each. Next to it the system calls alone, on as many sockets of the same
//! kind. What the peers do is not in the time.
//!
//!     cargo bench -p millstream-benches --bench fan_out

mod echoes;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millstream_benches::process::raise_open_files;
use rustix::time::{ClockId, clock_gettime};

use self::echoes::fan_out::{FanOut, Way};

const MESSAGE: usize = 64;
const SUBSCRIBERS: usize = 1_000;

fn engine(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fan_out/1000 connections");
    group.throughput(Throughput::Elements(SUBSCRIBERS as u64));
    for way in [Way::Neighbours, Way::Remotes] {
        let mut fan_out = FanOut::warm(way, SUBSCRIBERS, MESSAGE);
        group.bench_function(format!("{way:?}"), |bencher| {
            bencher.iter_custom(|rounds| {
                let timed = |_| fan_out.round(|stepper| time(|| stepper.turn()));
                (0..rounds).flat_map(timed).sum()
            });
        });
    }
    let (mut senders, mut receivers): (Vec<_>, Vec<_>) = (0..SUBSCRIBERS).map(|_| pair()).unzip();
    group.bench_function("System calls", |bencher| {
        bencher.iter_custom(|rounds| (0..rounds).map(|_| send(&mut senders, &mut receivers)).sum());
    });
}

/// The processor's time for an operation.
fn time(operation: impl FnOnce()) -> Duration {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::try_from(time).expect("it is positive")
    };
    let start = now();
    operation();
    now() - start
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let to = listener.local_addr().expect("it is bound");
    let receiver = TcpStream::connect(to).expect("it listens");
    let (sender, _) = listener.accept().expect("it was connected to");
    sender.set_nodelay(true).expect("a socket has the option");
    (sender, receiver)
}

fn send(senders: &mut [TcpStream], receivers: &mut [TcpStream]) -> Duration {
    let time = time(|| {
        for sender in senders {
            sender.write_all(&[1; MESSAGE]).expect("it is sent");
        }
    });
    for receiver in receivers {
        receiver.read_exact(&mut [0; MESSAGE]).expect("it comes");
    }
    time
}

fn fan_out(criterion: &mut Criterion) {
    raise_open_files().expect("it can be raised to what is allowed");
    engine(criterion);
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
