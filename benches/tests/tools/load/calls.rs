//! Messages in calls, against servers of the protocol that answer well or badly.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use millstream_benches::load::{
    AnswerError, Crowd, Deadlines, Framing, Load, LoadError, Mode, Report, Verify, run,
};

use super::server::{faithful, server, short_load};

const HEADER: usize = 24;
const METHOD: &[u8] = b"\x0eecho.Echo/echo";

/// A response, by the fields that servers here differ in.
#[derive(Clone)]
struct Answer {
    kind: u8,
    flags: u8,
    format: u8,
    status: u32,
    id: u64,
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Answer {
    /// The right one to the first request in `bytes`, which is taken out; none if it isn't there
    /// whole.
    fn to(bytes: &mut Vec<u8>) -> Option<Self> {
        let header: [u8; HEADER] = *bytes.first_chunk()?;
        let number = |at: usize, size: usize| {
            header[at..at + size].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        assert_eq!(header[..6], *b"MS\x01\x01\0\0", "magic, version, kind, flags, format");
        assert_eq!(number(12, 4), 0, "no deadline");
        let [head, body] = [number(6, 2), number(8, 4)].map(|length| length as usize);
        let whole = bytes.get(HEADER..HEADER + head + body)?;
        assert_eq!(whole[..head], *METHOD);
        let body = whole[head..].to_vec();
        bytes.drain(..HEADER + head + body.len());
        let (kind, id) = (2, number(16, 8));
        Some(Self { kind, flags: 0, format: 0, status: 0, id, head: Vec::new(), body })
    }

    fn bytes(&self) -> Vec<u8> {
        let Self { kind, flags, format, status, id, head, body } = self;
        let mut bytes = vec![b'M', b'S', 1, *kind, *flags, *format];
        bytes.extend((head.len() as u16).to_be_bytes());
        bytes.extend((body.len() as u32).to_be_bytes());
        bytes.extend(status.to_be_bytes());
        bytes.extend(id.to_be_bytes());
        [&bytes[..], head, body].concat()
    }
}

/// A server that is given the right answers to all requests that came at once, and sends what it
/// makes of them. Ids must rise by one.
fn answering(change: impl Fn(Vec<Answer>) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    server(move |mut stream: TcpStream| {
        let (mut buffer, mut input, mut id) = (vec![0; 100_000], Vec::new(), 0);
        stream.set_nodelay(true).unwrap();
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            input.extend_from_slice(&buffer[..count]);
            let answers: Vec<Answer> = std::iter::from_fn(|| Answer::to(&mut input)).collect();
            for answer in &answers {
                id += 1;
                assert_eq!(answer.id, id);
            }
            if stream.write_all(&change(answers)).is_err() {
                return;
            }
        }
    })
}

/// A server that changes each answer by itself.
fn changing(change: impl Fn(&mut Answer) + Send + Sync + 'static) -> SocketAddr {
    answering(move |mut answers| {
        answers.iter_mut().for_each(&change);
        answers.iter().flat_map(Answer::bytes).collect()
    })
}

fn honest() -> SocketAddr {
    changing(|_| {})
}

fn calls(address: SocketAddr) -> Load {
    Load { framing: Framing::Rpc, in_flight: 20, ..short_load(address) }
}

fn good(load: &Load) -> Report {
    let report = run(load, |_| {}).unwrap();
    assert!(report.messages > 0 && report.failure().is_none(), "{report}");
    report
}

#[test]
fn calls_are_made_and_answered_in_every_mode() {
    let load = calls(honest());
    let report = good(&load);
    assert_eq!(report.bytes, report.messages * 64);
    let mode = Mode::Open { rate: 1_000.0 };
    let report = good(&Load { mode, warm_up: Duration::ZERO, ..load.clone() });
    assert_eq!(report.messages, 200);
    let report = good(&Load { mode: Mode::Churn, in_flight: 3, ..load.clone() });
    assert!(report.connections_made > 0, "{report}");
    good(&Load { verify: Verify::Sample, threads: 2, ..load });
}

#[test]
fn bodies_larger_than_any_buffer_pass() {
    good(&Load { message_size: 200_001, connections: 2, in_flight: 3, ..calls(honest()) });
}

#[test]
fn answers_may_come_in_any_order_and_in_any_pieces() {
    good(&calls(answering(|answers| answers.iter().rev().flat_map(Answer::bytes).collect())));
    let crumbling = server(|mut stream| {
        let (mut byte, mut input) = ([0], Vec::new());
        stream.set_nodelay(true).unwrap();
        while let Ok(1..) = stream.read(&mut byte) {
            input.extend_from_slice(&byte);
            let Some(answer) = Answer::to(&mut input) else { continue };
            if answer.bytes().chunks(1).any(|byte| stream.write_all(byte).is_err()) {
                return;
            }
        }
    });
    good(&Load { connections: 2, ..calls(crumbling) });
}

#[test]
fn flags_and_heads_of_answers_are_skipped() {
    good(&calls(changing(|answer| {
        answer.flags = 0xF0;
        answer.head = vec![7; answer.id as usize % 300];
    })));
}

/// What is wrong with a server that answers the tenth call of each connection so.
fn tenth(change: impl Fn(&mut Answer) + Send + Sync + 'static) -> LoadError {
    let address = changing(move |answer| {
        if answer.id == 10 {
            change(answer);
        }
    });
    run(&calls(address), |_| {}).unwrap_err()
}

#[test]
fn a_wrong_byte_is_named() {
    match tenth(|answer| answer.body[5] ^= 1) {
        LoadError::Mismatch { connection: 0..8, position, expected, got } => {
            assert_eq!((position, expected ^ got), (9 * 64 + 5, 1));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_calls_body_is_found_out() {
    let swapping = answering(|mut answers| {
        if let [first, second, ..] = &mut answers[..] {
            std::mem::swap(&mut first.body, &mut second.body);
        }
        answers.iter().flat_map(Answer::bytes).collect()
    });
    let error = run(&calls(swapping), |_| {}).unwrap_err();
    assert!(matches!(error, LoadError::Mismatch { .. }), "{error:?}");
}

#[test]
fn a_wrong_answer_is_named() {
    let call = 10;
    let answer = |change: fn(&mut Answer)| match tenth(change) {
        LoadError::Answer { connection: 0..8, source } => source,
        other => panic!("{other:?}"),
    };
    assert_eq!(answer(|a| a.status = 8), AnswerError::Failed { call, status: 8 });
    assert_eq!(answer(|a| a.format = 0x20), AnswerError::Format { call, format: 0x20 });
    assert_eq!(answer(|a| a.kind = 7), AnswerError::NoResponse { got: *b"MS\x01\x07" });
    let expected = 64;
    assert_eq!(
        answer(|a| a.body.truncate(63)),
        AnswerError::Length { call, expected, got: expected - 1 }
    );
    for (id, change) in [
        (0, (|a| a.id = 0) as fn(&mut Answer)),
        (3, |a| a.id = 3),
        (1_000_000, |a| a.id = 1_000_000),
        (u64::MAX, |a| a.id = u64::MAX),
    ] {
        assert_eq!(answer(change), AnswerError::NotAwaited { call: id });
    }
}

#[test]
fn a_second_answer_is_one_too_many() {
    let twice = answering(|answers| {
        let twice = |answer: &Answer| [answer.bytes(), answer.bytes()].concat();
        answers.iter().flat_map(twice).collect()
    });
    let error = run(&calls(twice), |_| {}).unwrap_err();
    let LoadError::Answer { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(source, AnswerError::NotAwaited { call: 1 });
}

#[test]
fn an_echo_is_no_answer() {
    let error = run(&calls(server(faithful)), |_| {}).unwrap_err();
    let LoadError::Answer { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(source, AnswerError::NoResponse { got: *b"MS\x01\x01" });
}

#[test]
fn a_call_that_is_never_answered_is_counted() {
    let forgetful = answering(|answers| {
        answers.iter().filter(|answer| answer.id != 10).flat_map(Answer::bytes).collect()
    });
    let drain = Duration::from_millis(100);
    let load = calls(forgetful);
    let load = Load { deadlines: Deadlines { drain, ..load.deadlines }, ..load };
    let report = run(&load, |_| {}).unwrap();
    assert_eq!(report.errors, 8, "one on each connection: {report}");
    assert!(report.messages > 1_000, "the others went on: {report}");
}

#[test]
fn what_waits_for_a_paused_server_is_late() {
    let pause = Duration::from_millis(100);
    let address = changing(move |answer| {
        if answer.id == 10 {
            // sleep: the pause whose cost is to be seen.
            thread::sleep(pause);
        }
    });
    let mode = Mode::Open { rate: 1_000.0 };
    let report = good(&Load { mode, connections: 1, in_flight: 1, ..calls(address) });
    assert!(report.p90() > Some(pause / 2), "not only the one call: {report}");
}

#[test]
fn there_is_no_crowd_beside_calls() {
    let load = calls(honest());
    let crowd = Crowd { stuck: 1, ..Crowd::default() };
    let error = run(&Load { crowd, ..load }, |_| {}).unwrap_err();
    assert!(matches!(error, LoadError::CrowdWithoutFrames), "{error:?}");
}
