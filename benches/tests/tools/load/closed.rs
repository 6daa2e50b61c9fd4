//! The closed loop, and what every mode checks.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use millstream_benches::load::{Crowd, Deadlines, Framing, Load, LoadError, Verify, run};

use super::server::{echo, faithful, impatient_load, server, short_load};

#[test]
fn a_faithful_server_gets_a_good_report() {
    let load = short_load(server(faithful));
    let (mut reports, mut measuring) = (0, 0);
    let report = run(&load, |progress| {
        reports += 1;
        measuring += u32::from(progress.measuring);
        assert_eq!(progress.connected, 8);
    })
    .unwrap();
    assert!(reports >= 2 && measuring >= 1, "{reports} reports, {measuring} of them measuring");
    assert!(report.messages > 100, "{report}");
    assert_eq!((report.bytes, report.errors), (report.messages * 64, 0));
    // Measuring may begin late, by one turn of the loop, but never ends early.
    assert!(report.elapsed > load.duration / 2, "{report}");
    assert!(report.p50() <= report.p99() && report.p99() <= report.max());
}

#[test]
fn messages_larger_than_any_buffer_pass() {
    let load = Load {
        connections: 3,
        message_size: 300_001,
        in_flight: 5,
        threads: 2,
        ..short_load(server(faithful))
    };
    let report = run(&load, |_| {}).unwrap();
    assert!(report.messages > 0 && report.errors == 0, "{report}");
}

/// A server that echoes only frames of 60 bytes behind their length.
#[test]
fn messages_can_begin_with_their_length() {
    fn strict(mut stream: TcpStream) {
        let mut frame = [0; 64];
        while stream.read_exact(&mut frame).is_ok() {
            if frame[..4] != 60_u32.to_be_bytes() || stream.write_all(&frame).is_err() {
                return;
            }
        }
    }
    let load = Load { framing: Framing::LengthField, in_flight: 7, ..short_load(server(strict)) };
    let report = run(&load, |_| {}).unwrap();
    assert!(report.messages > 0 && report.errors == 0, "{report}");
    let small = Load { message_size: 3, ..load.clone() };
    assert!(matches!(run(&small, |_| {}), Err(LoadError::NoLengthField(3))));
    let crowded = Load { crowd: Crowd { idle: 1, ..Crowd::default() }, ..load };
    assert!(matches!(run(&crowded, |_| {}), Err(LoadError::CrowdWithoutFrames)));
}

#[test]
fn lengths_alone_can_be_verified() {
    let inverting = server(|stream| echo(stream, |bytes| bytes.iter_mut().for_each(|b| *b = !*b)));
    let load = Load { verify: Verify::Lengths, threads: 4, in_flight: 7, ..short_load(inverting) };
    assert!(run(&load, |_| {}).unwrap().messages > 0);
}

#[test]
fn a_corrupt_byte_is_named() {
    fn corrupting(stream: TcpStream) {
        let mut position = 0;
        echo(stream, move |bytes| {
            if let Some(byte) = 5_000_usize.checked_sub(position).and_then(|at| bytes.get_mut(at)) {
                *byte ^= 1;
            }
            position += bytes.len();
        });
    }
    match run(&short_load(server(corrupting)), |_| {}).unwrap_err() {
        LoadError::Mismatch { connection: 0..8, position: 5_000, expected, got } => {
            assert_eq!(expected ^ got, 1);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_that_never_answers_is_given_up_on() {
    let silent = server(|mut stream| drop(std::io::copy(&mut stream, &mut std::io::sink())));
    let began = Instant::now();
    let error = run(&impatient_load(silent), |_| {}).unwrap_err();
    assert!(matches!(error, LoadError::Unanswered { connection: 0, received: 0, .. }), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn an_echo_that_never_comes_is_a_stall() {
    fn forgetful(stream: TcpStream) {
        let mut left = 10_000;
        echo(stream, move |bytes| {
            left -= bytes.len().min(left);
            if left == 0 {
                thread::sleep(Duration::from_secs(3));
            }
        });
    }
    let load = Load { duration: Duration::from_secs(2), ..impatient_load(server(forgetful)) };
    match run(&load, |_| {}).unwrap_err() {
        LoadError::Stalled { connection: 0..8, sent, received, .. } => {
            assert_eq!(sent, received + 64);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_drain_does_not_bring_is_counted() {
    let slow = server(|stream| echo(stream, |_| thread::sleep(Duration::from_millis(150))));
    let deadlines = Deadlines { drain: Duration::from_millis(1), ..short_load(slow).deadlines };
    let load = Load { deadlines, connections: 4, in_flight: 3, ..short_load(slow) };
    assert_eq!(run(&load, |_| {}).unwrap().errors, 12);
}

#[test]
fn a_server_that_hangs_up_is_named() {
    let rude = server(|stream| {
        let mut one_message = [0; 64];
        let mut stream = stream;
        stream.read_exact(&mut one_message).and_then(|()| stream.write_all(&one_message)).unwrap();
    });
    let error = run(&short_load(rude), |_| {}).unwrap_err();
    assert!(matches!(error, LoadError::Closed { .. } | LoadError::Connection { .. }), "{error:?}");
}

#[test]
fn nobody_listening_is_a_connect_error() {
    let unused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let error = run(&short_load(unused), |_| {}).unwrap_err();
    assert!(matches!(error, LoadError::Connect { connection: 0..8, .. }), "{error:?}");
}

#[test]
fn a_load_of_nothing_is_refused() {
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let error = run(&Load { in_flight: 0, ..Load::new(nowhere) }, |_| {}).unwrap_err();
    assert!(
        matches!(error, LoadError::OutOfBounds { what: "messages in flight", .. }),
        "{error:?}"
    );
}

#[test]
fn a_load_without_bounds_is_refused() {
    let load = Load::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 9)));
    let crowd = Crowd { idle: usize::MAX, stuck: usize::MAX, ..Crowd::default() };
    let (in_flight, connections) = (1 << 20, usize::MAX);
    for (load, what) in [
        (Load { connections, ..load.clone() }, "connections"),
        (Load { crowd, ..load.clone() }, "all connections together"),
        (Load { threads: 1_025, ..load.clone() }, "threads"),
        (Load { message_size: usize::MAX, ..load.clone() }, "the message size"),
        (Load { in_flight: in_flight + 1, ..load.clone() }, "messages in flight"),
        (Load { in_flight, ..load.clone() }, "messages in flight on all connections"),
        (Load { message_size: 1 << 30, ..load.clone() }, "bytes in flight"),
    ] {
        let error = run(&load, |_| {}).unwrap_err();
        let LoadError::OutOfBounds { what: which, .. } = error else { panic!("{error:?}") };
        assert_eq!(which, what);
    }
    for (duration, warm_up) in [(0, 0), (90_000, 0), (1, 90_000)]
        .map(|(one, other)| (Duration::from_secs(one), Duration::from_secs(other)))
    {
        let error = run(&Load { duration, warm_up, ..load.clone() }, |_| {}).unwrap_err();
        assert!(matches!(error, LoadError::Duration { .. }), "{error:?}");
    }
}

#[test]
fn more_connections_than_open_files_are_refused_before_any_is_opened() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let load = Load { connections: 1 << 20, ..Load::new(listener.local_addr().unwrap()) };
    match run(&load, |_| {}) {
        Err(LoadError::OpenFiles { connections: 1_048_576, limit: ..1_048_592 }) => {}
        other => panic!("{other:?}; this test needs a limit of open files"),
    }
    assert!(listener.accept().is_err(), "a connection was opened");
}
