//! The earliest deadline counts; nothing is run or answered after it.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use millstream::rpc::frame::{Frame, Request};
use millstream::rpc::{Call, Code, MethodOptions, Reply, Router, Server};

use crate::common::receive;
use crate::common::rpc::{Caller as _, Got, SimCaller, request};
use crate::common::wire::Wire;

const SECOND: Duration = Duration::from_secs(1);

/// A router whose methods `plain` and `limited` (three seconds) answer later.
fn router() -> (Router, Receiver<Reply>) {
    let (later, replies) = channel();
    let limited = later.clone();
    let later = move |call: &mut Call<'_>| {
        let (answer, reply) = call.answer_later();
        let _ = later.send(reply);
        Ok(answer)
    };
    let limited = move |call: &mut Call<'_>| {
        let (answer, reply) = call.answer_later();
        let _ = limited.send(reply);
        Ok(answer)
    };
    let options = MethodOptions::new().timeout(3 * SECOND);
    (Router::new().method("plain", later).method_with("limited", options, limited), replies)
}

fn with_timeout(id: u64, method: &str, seconds: u64) -> Frame<'_> {
    Frame::Request(Request {
        timeout: Some(Duration::from_secs(seconds)),
        ..request(id, method, b"")
    })
}

#[test]
fn the_earliest_of_caller_server_and_method_counts() {
    let (router, replies) = router();
    let mut caller = SimCaller::new(1, Server::new().timeout(5 * SECOND).serve(router));
    for (id, method, timeout, expected) in
        [(1, "plain", 2, 2), (2, "plain", 9, 5), (3, "limited", 9, 3), (4, "limited", 1, 1)]
    {
        caller.send(with_timeout(id, method, timeout));
        let expected = expected * SECOND;
        assert_eq!(caller.next_within(expected - SECOND / 10), None, "{method}, {timeout} s");
        let reply = receive(&replies);
        assert!(!reply.is_cancelled());
        let got = caller.next_within(SECOND).expect("it has run out");
        assert_eq!(got.verdict(), (id, false, Code::DeadlineExceeded), "{method}, {timeout} s");
        assert!(reply.is_cancelled());
        reply.send("too late");
        assert_eq!(caller.next_within(SECOND), None);
    }
    caller.send(Frame::Request(request(5, "plain", b"")));
    assert_eq!(caller.next_within(4 * SECOND), None);
    receive(&replies).send("in time");
    assert_eq!(caller.next(), Got::ok(5, b"in time"));
}

/// The requests come together; the first one keeps the reactor for longer than the others have
/// time.
#[test]
fn what_waited_too_long_is_not_run() {
    let (tell, told) = channel();
    let handler = move |call: &mut Call<'_>| {
        let _ = tell.send(call.method().to_owned());
        if call.method() == "slow" {
            // sleep: it is the blocking itself that is tried, on a clock that does not jump.
            std::thread::sleep(Duration::from_millis(1200));
        }
        call.answer(b"done")
    };
    let server = Server::new();
    let engine = crate::common::TestEngine::start(
        millstream::Engine::builder().reactors(1).stall_threshold(None),
        {
            let server = server.clone();
            move |_| server.serve(handler.clone())
        },
    );
    let mut caller = crate::common::rpc::TcpCaller::new(Wire::Plain, &engine);
    let hurried = |id, method, millis| {
        let timeout = Some(Duration::from_millis(millis));
        crate::common::rpc::bytes_of(Frame::Request(Request {
            timeout,
            ..request(id, method, b"")
        }))
    };
    let bytes = [
        hurried(1, "slow", 1000),
        hurried(2, "fast", 1000),
        hurried(3, "patient", 60_000),
        hurried(4, "fast", 1),
    ];
    caller.send_bytes(&bytes.concat());
    let verdicts: Vec<_> = (0..4).map(|_| caller.next().verdict()).collect();
    assert_eq!(verdicts[0], (1, false, Code::DeadlineExceeded), "it was run, and too slowly");
    assert_eq!(verdicts[1], (2, true, Code::DeadlineExceeded));
    assert_eq!(verdicts[2], (3, false, Code::Ok));
    assert_eq!(verdicts[3], (4, true, Code::DeadlineExceeded));
    let run: Vec<_> = told.try_iter().collect();
    assert_eq!(run, ["slow", "patient"]);
}

/// The second request comes with the first, which keeps the reactor for longer than its method has
/// time.
#[test]
fn what_waited_longer_than_its_method_may_take_is_not_run() {
    let (tell, told) = channel();
    let engine = crate::common::TestEngine::start(
        millstream::Engine::builder().reactors(1).stall_threshold(None),
        move |_| {
            let tell = tell.clone();
            let limit = MethodOptions::new().timeout(Duration::from_millis(20));
            let slow = |call: &mut Call<'_>| {
                // sleep: it is the blocking itself that is tried, on a clock that does not jump.
                std::thread::sleep(Duration::from_millis(50));
                call.answer(b"")
            };
            let limited = move |call: &mut Call<'_>| {
                let _ = tell.send(());
                call.answer(b"")
            };
            Server::new()
                .serve(Router::new().method("slow", slow).method_with("limited", limit, limited))
        },
    );
    let mut caller = crate::common::rpc::TcpCaller::new(Wire::Plain, &engine);
    let bytes = |id, method| crate::common::rpc::bytes_of(Frame::Request(request(id, method, b"")));
    caller.send_bytes(&[bytes(1, "slow"), bytes(2, "limited")].concat());
    assert_eq!(caller.next(), Got::ok(1, b""));
    assert_eq!(caller.next().verdict(), (2, true, Code::DeadlineExceeded));
    assert!(told.try_recv().is_err(), "it was run");
}

/// A layer that tries twice what is behind it has two replies made.
#[test]
fn a_call_that_is_put_off_twice_has_its_last_deadline() {
    let (later, replies) = channel::<Reply>();
    let handler = move |call: &mut Call<'_>| {
        let put_off = |call: &mut Call<'_>| {
            let (answer, reply) = call.answer_later();
            let _ = later.send(reply);
            answer
        };
        if call.method() == "twice" {
            put_off(call);
            call.limit_timeout(SECOND);
        }
        Ok(put_off(call))
    };
    let mut caller = SimCaller::new(1, Server::new().serve(handler));
    caller.send(with_timeout(1, "twice", 2));
    caller.send(with_timeout(2, "once", 3));
    for id in 1..=2 {
        let got = caller.next_within(4 * SECOND).expect("its deadline passes");
        assert_eq!(got.verdict(), (id, false, Code::DeadlineExceeded));
    }
    assert!(replies.try_iter().all(|reply| reply.is_cancelled()));
}
