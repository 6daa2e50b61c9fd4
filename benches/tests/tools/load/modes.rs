//! The open loop, churn, samples, and pinning.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use millstream_benches::load::{Deadlines, Load, LoadError, Mode, Verify, run};

use super::server::{echo, faithful, server, short_load};

/// A load of 200 ms without warm-up: so what is due in it can be counted.
fn open_loop(address: SocketAddr, rate: f64) -> Load {
    Load { mode: Mode::Open { rate }, warm_up: Duration::ZERO, ..short_load(address) }
}

#[test]
fn the_rate_is_kept() {
    let address = server(faithful);
    for (rate, due) in [(10.0, 2), (1_000.0, 200), (20_000.0, 4_000)] {
        for threads in [1, 2] {
            let load = Load { threads, in_flight: 2, ..open_loop(address, rate) };
            let report = run(&load, |_| {}).unwrap();
            assert_eq!((report.messages, report.errors), (due, 0), "{load}");
            assert_eq!(report.histogram.len(), due);
        }
    }
}

#[test]
fn a_message_is_as_late_as_it_came_after_it_was_due() {
    const PAUSE: Duration = Duration::from_millis(400);
    // Only the first message after that of connecting is answered late.
    let pausing = server(|stream| {
        let mut calls = 0;
        echo(stream, |_| {
            calls += 1;
            if calls == 2 {
                // sleep: the pause is the subject.
                thread::sleep(PAUSE);
            }
        });
    });
    for in_flight in [1, 16] {
        let load = Load {
            connections: 1,
            in_flight,
            duration: Duration::from_millis(500),
            ..open_loop(pausing, 1_000.0)
        };
        let report = run(&load, |_| {}).unwrap();
        assert_eq!((report.messages, report.errors), (500, 0), "{report}");
        // The first waits for the whole pause, and those due in its first half, 200 of the 500, for
        // at least the other half.
        assert!(report.p999() >= Some(PAUSE), "{report}");
        assert!(Duration::from_nanos(report.histogram.value_at_quantile(0.61)) >= PAUSE / 2);
    }
}

/// Echoes the first message, and tells how many bytes came after it.
fn forget(mut stream: TcpStream, came: &mpsc::Sender<u64>) {
    let mut first = [0; 64];
    stream.read_exact(&mut first).and_then(|()| stream.write_all(&first)).unwrap();
    let rest = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    // Not every test wants to know.
    let _ = came.send(rest);
}

#[test]
fn what_was_due_and_never_echoed_is_an_error() {
    let (sender, came) = mpsc::channel();
    let forgetful = server(move |stream| forget(stream, &sender));
    let drain = Duration::from_millis(1);
    for (in_flight, sent) in [(1, 1), (300, 100)] {
        let load = Load {
            connections: 2,
            in_flight,
            deadlines: Deadlines { drain, ..Deadlines::default() },
            ..open_loop(forgetful, 1_000.0)
        };
        let report = run(&load, |_| {}).unwrap();
        assert_eq!((report.messages, report.errors), (0, 200), "{in_flight} in flight");
        for _ in 0..2 {
            assert_eq!(came.recv_timeout(Duration::from_secs(5)), Ok(sent * 64));
        }
    }
}

#[test]
fn an_echo_that_never_comes_is_a_stall_in_the_open_loop() {
    let (sender, _came) = mpsc::channel();
    let forgetful = server(move |stream| forget(stream, &sender));
    let stall = Duration::from_millis(150);
    let load = Load {
        duration: Duration::from_secs(5),
        deadlines: Deadlines { stall, ..Deadlines::default() },
        ..open_loop(forgetful, 1_000.0)
    };
    let error = run(&load, |_| {}).unwrap_err();
    assert!(matches!(error, LoadError::Stalled { received: 64, .. }), "{error:?}");
}

#[test]
fn a_rate_must_be_a_rate() {
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1.1e9, 1e308] {
        let error = run(&open_loop(nowhere, rate), |_| {}).unwrap_err();
        assert!(matches!(error, LoadError::Rate { .. }), "{error:?}");
        assert!(error.to_string().ends_with(&rate.to_string()), "{error}");
    }
}

/// Echoes, and tells how many bytes came and how the connection ended.
fn echo_and_tell(mut stream: TcpStream, ends: &mpsc::Sender<(usize, Option<ErrorKind>)>) {
    let (mut buffer, mut total) = ([0; 4_096], 0);
    let end = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break None,
            Ok(count) => {
                total += count;
                // It fails only if the generator gave up, which shows in the next read.
                let _ = stream.write_all(&buffer[..count]);
            }
            Err(error) => break Some(error.kind()),
        }
    };
    // The receiver waits for all that it counts on.
    let _ = ends.send((total, end));
}

#[test]
fn connections_come_and_go_with_their_messages() {
    // A machine that has much else to do makes only few in a short time.
    let mut duration = Duration::from_millis(200);
    let (report, ends) = loop {
        let (sender, ends) = mpsc::channel();
        let address = server(move |stream| echo_and_tell(stream, &sender));
        let load = Load { connections: 4, in_flight: 3, mode: Mode::Churn, ..short_load(address) };
        let load = Load { threads: 2, verify: Verify::Sample, duration, ..load };
        let mut seen = 0;
        let report = run(&load, |progress| seen = progress.connections_made).unwrap();
        if report.connections_made > 10 && seen > 0 {
            break (report, ends);
        }
        duration *= 4;
        assert!(duration < Duration::from_secs(15), "{report}");
    };
    assert_eq!(report.connections_made, report.histogram.len());
    assert_eq!(report.errors, 0);
    // Those that began in the warm-up had some of their messages echoed there.
    let missing = 3 * report.connections_made - report.messages;
    assert!(missing <= 3 * 4, "{report}");

    // The first connections prove that the server is there, with one message; the last are not
    // followed by others, and end normally. All others have three messages and end with a reset.
    let mut kinds = [0, 0, 0];
    while let Ok(end) = ends.recv_timeout(Duration::from_secs(5)) {
        let kind = match end {
            (64, Some(ErrorKind::ConnectionReset)) => 0,
            (192, Some(ErrorKind::ConnectionReset)) => 1,
            (192, None) => 2,
            other => panic!("{other:?}"),
        };
        kinds[kind] += 1;
        if kinds[2] == 4 {
            break;
        }
    }
    assert!(kinds[0] == 4 && kinds[1] > 6 && kinds[2] == 4, "{kinds:?}");
}

#[test]
fn a_new_connection_that_is_not_served_is_a_stall() {
    let seen = AtomicBool::new(false);
    // The first connection, which proves that the server is there, is its only one.
    let address = server(move |mut stream| {
        if seen.swap(true, Ordering::Relaxed) {
            std::io::copy(&mut stream, &mut std::io::sink()).ok();
        } else {
            faithful(stream);
        }
    });
    let deadlines = Deadlines { stall: Duration::from_millis(100), ..Deadlines::default() };
    let duration = Duration::from_secs(5);
    let load =
        Load { connections: 1, mode: Mode::Churn, deadlines, duration, ..short_load(address) };
    let error = run(&load, |_| {}).unwrap_err();
    assert!(matches!(error, LoadError::Stalled { connection: 1, received: 0, .. }), "{error:?}");
}

#[test]
fn a_sample_finds_a_corrupt_byte_in_the_messages_it_checks() {
    // From the second message on, each byte is wrong.
    let inverting = server(|stream| {
        let mut position = 0;
        echo(stream, |bytes| {
            let right = 64_usize.saturating_sub(position).min(bytes.len());
            bytes[right..].iter_mut().for_each(|byte| *byte = !*byte);
            position += bytes.len();
        });
    });
    for in_flight in [1, 500] {
        let load = Load { verify: Verify::Sample, in_flight, ..short_load(inverting) };
        match run(&load, |_| {}).unwrap_err() {
            LoadError::Mismatch { connection, position, expected, got } => {
                assert_eq!((position / 64 + connection as u64) % 64, 0, "{connection} {position}");
                assert_eq!((position % 64, expected), (0, !got));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_core_that_is_not_there_is_named() {
    for core in [1_023, usize::MAX] {
        let load = Load { cores: vec![core], ..short_load(server(faithful)) };
        let error = run(&load, |_| {}).unwrap_err();
        assert!(matches!(error, LoadError::Pin { core: named } if named == core), "{error:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn threads_are_pinned_to_their_cores_in_turn() {
    use std::collections::BTreeSet;
    use std::fs;

    let cores: Vec<usize> =
        core_affinity::get_core_ids().unwrap().iter().map(|core| core.id).collect();
    let pinned_to = || -> BTreeSet<String> {
        let threads = fs::read_dir("/proc/self/task").unwrap();
        let status = |thread: std::io::Result<fs::DirEntry>| {
            fs::read_to_string(thread.ok()?.path().join("status")).ok()
        };
        let allowed = |text: String| {
            let line = text.lines().find(|line| line.starts_with("Cpus_allowed_list:"))?;
            Some(line.split_whitespace().nth(1)?.to_owned())
        };
        threads.filter_map(status).filter_map(allowed).collect()
    };
    let load = Load {
        threads: cores.len(),
        cores: cores.clone(),
        duration: Duration::from_millis(600),
        ..short_load(server(faithful))
    };
    let mut seen = BTreeSet::new();
    run(&load, |_| seen.extend(pinned_to())).unwrap();
    let missing: Vec<&usize> =
        cores.iter().filter(|core| !seen.contains(&core.to_string())).collect();
    assert!(missing.is_empty(), "no thread was pinned to {missing:?}: {seen:?}");
}
