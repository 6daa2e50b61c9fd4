//! Connections besides the measured ones.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use millstream_benches::load::{Crowd, Deadlines, Load, LoadError, Mode, Report, run};

use super::server::{echo, faithful, server, short_load};

const MIXED: Crowd = Crowd { idle: 5, flooding: 2, slow: 2, stuck: 2, handshakes: 0 };

/// A load of 200 messages on 8 connections, with a crowd.
fn crowded(address: SocketAddr, crowd: Crowd) -> Load {
    let mode = Mode::Open { rate: 1_000.0 };
    // Longer than the tests may take: the crowd is to end with the others, not at a deadline.
    let deadlines = Deadlines { drain: Duration::from_secs(60), ..Deadlines::default() };
    Load { mode, crowd, deadlines, warm_up: Duration::ZERO, ..short_load(address) }
}

/// Runs `load`, and expects its messages and nothing from the crowd in the report, in good time.
fn run_crowded(load: &Load) -> Report {
    let began = Instant::now();
    let report = run(load, |progress| {
        if progress.measuring {
            assert_eq!(progress.connected, load.connections + load.crowd.total());
        }
    })
    .unwrap();
    assert_eq!((report.messages, report.errors), (200, 0), "{report}");
    assert!(began.elapsed() < Duration::from_secs(10));
    report
}

/// Handles those connections with `others` that come first, as the crowd's do.
fn server_for_crowd(
    crowd: Crowd,
    others: impl Fn(TcpStream) + Send + Sync + 'static,
) -> SocketAddr {
    let count = AtomicUsize::new(0);
    server(move |stream| {
        let is_crowd = count.fetch_add(1, Ordering::Relaxed) < crowd.total();
        if is_crowd { others(stream) } else { faithful(stream) }
    })
}

fn echo_one_message(stream: &mut TcpStream) {
    let mut message = [0; 64];
    stream.read_exact(&mut message).and_then(|()| stream.write_all(&message)).unwrap();
}

#[test]
fn each_kind_leaves_the_figures_to_the_others() {
    let none = Crowd::default();
    for crowd in [
        Crowd { idle: 100, ..none },
        Crowd { flooding: 3, ..none },
        Crowd { slow: 3, ..none },
        Crowd { stuck: 3, ..none },
        MIXED,
    ] {
        let report = run_crowded(&crowded(server(faithful), crowd));
        assert_eq!(report.dropped, 0, "{crowd:?}");
    }
}

#[test]
fn a_server_that_takes_everything_ends_with_the_load() {
    let address = server_for_crowd(MIXED, |mut stream| {
        echo_one_message(&mut stream);
        std::io::copy(&mut stream, &mut std::io::sink()).ok();
    });
    assert_eq!(run_crowded(&crowded(address, MIXED)).dropped, 0);
}

#[test]
fn idle_connections_stay_and_say_nothing() {
    let (sender, ends) = mpsc::channel();
    let crowd = Crowd { idle: 5, ..Crowd::default() };
    let address = server_for_crowd(crowd, move |mut stream| {
        echo_one_message(&mut stream);
        let came = Instant::now();
        let more = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        sender.send((more, came.elapsed())).unwrap();
    });
    let load = crowded(address, crowd);
    run_crowded(&load);
    for _ in 0..5 {
        let (more, stayed) = ends.recv_timeout(Duration::from_secs(5)).expect("it ends");
        assert!(more == 0 && stayed >= load.duration, "{more} more bytes, stayed {stayed:?}");
    }
}

#[test]
fn the_server_may_close_them_and_it_is_counted() {
    // Once the load has begun: what is closed before has not been there.
    let begun = Arc::new((Mutex::new(false), Condvar::new()));
    let count = AtomicUsize::new(0);
    let address = server(move |mut stream| {
        let (flag, changed) = &*begun;
        let is_crowd = count.fetch_add(1, Ordering::Relaxed) < MIXED.total();
        echo_one_message(&mut stream);
        if is_crowd {
            let patience = Duration::from_secs(5);
            drop(changed.wait_timeout_while(flag.lock().unwrap(), patience, |begun| !*begun));
        } else {
            echo_one_message(&mut stream);
            *flag.lock().unwrap() = true;
            changed.notify_all();
            faithful(stream);
        }
    });
    assert_eq!(run_crowded(&crowded(address, MIXED)).dropped, 11);
}

#[test]
fn what_comes_back_to_them_is_checked() {
    let address = server(|stream| {
        let mut position = 0;
        echo(stream, |bytes| {
            // Only a flood gets as far as that.
            if let Some(byte) =
                1_000_000_usize.checked_sub(position).and_then(|at| bytes.get_mut(at))
            {
                *byte ^= 1;
            }
            position += bytes.len();
        });
    });
    let crowd = Crowd { flooding: 1, ..Crowd::default() };
    let load = Load { duration: Duration::from_secs(10), ..crowded(address, crowd) };
    let error = run(&load, |_| {}).unwrap_err();
    let is_expected =
        matches!(error, LoadError::Mismatch { connection: 8, position: 1_000_000, .. });
    assert!(is_expected, "{error:?}");
}
