//! The RPC client: its forms of calling, its connections, and what it does when something fails.

mod layers;
mod limits;
mod losses;
mod pools;
mod puppet;
mod restarts;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::common::{DEADLINE, TestEngine, eventually, receive};
use millstream::rpc::{
    Call, Client, ClientBuilder, ClientStats, Code, Format, Middleware, Request, Response, Router,
    Server, Status,
};
use millstream::{Engine, WaitError};
use puppet::{ECHO, Seen, Stage};

use crate::common::wire::Wire;

with_and_without_tls! {
    every_form_of_calling_gets_its_answer_from_a_real_server
    a_thousand_calls_share_a_connection_and_none_gets_anothers_answer
    many_threads_call_at_the_same_time_on_several_reactors
    a_call_ends_at_its_deadline_and_the_server_is_told
    a_future_that_is_dropped_cancels_its_call
    a_future_that_has_ended_says_so_when_it_is_polled_again
    callbacks_call_again_but_do_not_wait_on_their_reactor
    the_last_client_may_be_dropped_in_its_own_callback
    one_way_requests_wait_for_a_connection_and_for_nothing_else
    a_callback_that_panics_harms_nobody_else
}

type Ended = Result<Response, Status>;

/// Waits for a future without a runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let (mut future, deadline) = (pin!(future), Instant::now() + DEADLINE);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "the future did not end in time");
        thread::park_timeout(left);
    }
}

fn builder(wire: Wire, address: impl Into<String>) -> ClientBuilder {
    let builder = Client::builder().address(address).timeout(DEADLINE).seed(7);
    builder.connect_with(move |connect| wire.dress(connect))
}

fn echo(body: impl Into<millstream::Bytes>) -> Request {
    Request::new(ECHO).body(body)
}

/// A request that the test answers.
fn ask(body: &'static str) -> Request {
    Request::new("t/ask").body(body)
}

/// Begins a call whose end comes by a channel.
fn begin<M: Middleware>(client: &Client<M>, request: Request) -> Receiver<Ended> {
    let (told, ended) = channel();
    client.call_then(request, move |result| {
        let _ = told.send(result); // Nobody listens if the test has failed.
    });
    ended
}

fn code(ended: &Ended) -> Code {
    ended.as_ref().map_or_else(Status::code, |_| Code::Ok)
}

/// Ends a client, of which nothing may be left.
fn finish<M: Middleware>(client: &Client<M>) -> ClientStats {
    let begun = Instant::now();
    client.stop(DEADLINE * 2).expect("it ends well");
    assert!(begun.elapsed() < DEADLINE, "it waits for nothing");
    let stats = client.stats();
    assert_eq!((stats.in_flight, stats.connections), (0, 0), "{stats:?}");
    assert_eq!(stats.started, stats.succeeded + stats.failed, "{stats:?}");
    stats
}

fn every_form_of_calling_gets_its_answer_from_a_real_server(wire: Wire) {
    let server = Server::new();
    let served = server.clone();
    let engine = TestEngine::start(wire.build(Engine::builder().reactors(1)), move |_| {
        let echo = |call: &mut Call<'_>| {
            for (key, value) in call.metadata().iter() {
                let _ = call.outgoing().insert(key, value);
            }
            call.answer(call.body())
        };
        let fail = |_: &mut Call<'_>| Err(Status::not_found("nothing there"));
        served.serve(Router::new().method(ECHO, echo).method("t/fail", fail))
    });
    let client = builder(wire, engine.address().to_string()).build().expect("it starts");

    let request = echo("blocking").metadata("key", "value").expect("it is metadata");
    let response = client.call(request).expect("it is answered");
    assert_eq!((&*response.body, response.format), (&b"blocking"[..], Format::RAW));
    assert_eq!(response.metadata.view().get("key"), Some(&b"value"[..]));
    let response = block_on(client.start(echo("future"))).expect("it is answered");
    assert_eq!(response.body, "future");
    let response = receive(&begin(&client, echo("callback"))).expect("it is answered");
    assert_eq!(response.body, "callback");
    client.send(echo("one-way")).expect("it can be sent");
    let status = client.call(Request::new("t/fail")).expect_err("it fails");
    assert_eq!(status, Status::not_found("nothing there"));
    let status = client.call(Request::new("t/nothing")).expect_err("there is no such method");
    assert_eq!(status.code(), Code::Unimplemented);
    let status = client.call(Request::new("")).expect_err("it has no name");
    assert_eq!(status.code(), Code::InvalidArgument);

    eventually("the one-way request is sent", || client.stats().in_flight == 0);
    let stats = finish(&client);
    assert_eq!((stats.started, stats.failed, stats.connected), (7, 3, 1), "{stats:?}");
}

fn a_thousand_calls_share_a_connection_and_none_gets_anothers_answer(wire: Wire) {
    let stage = Stage::new(wire);
    let client = builder(wire, stage.address()).build().expect("it starts");
    let calls: Vec<_> = (0..1000)
        .map(|number| client.start(Request::new("t/ask").body(format!("call {number}"))))
        .collect();
    let mut asked: Vec<_> = calls.iter().map(|_| stage.request()).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut asked);
    for asked in asked {
        asked.answer(&[b"answer to ", &*asked.body].concat());
    }
    for (number, calling) in calls.into_iter().enumerate() {
        let response = block_on(calling).expect("it is answered");
        assert_eq!(response.body, format!("answer to call {number}"));
    }
    assert_eq!(finish(&client).connected, 1);
}

fn many_threads_call_at_the_same_time_on_several_reactors(wire: Wire) {
    let stage = Stage::new(wire);
    let client =
        builder(wire, stage.address()).reactors(2).connections(2).build().expect("it starts");
    thread::scope(|scope| {
        for thread in 0..4 {
            let client = client.clone();
            scope.spawn(move || {
                for number in 0..200 {
                    let text = format!("{thread} {number}");
                    let response = client.call(echo(text.clone())).expect("it is answered");
                    assert_eq!(response.body, text);
                }
            });
        }
    });
    let stats = finish(&client);
    assert_eq!((stats.succeeded, stats.connected), (800, 4), "{stats:?}");
}

fn a_call_ends_at_its_deadline_and_the_server_is_told(wire: Wire) {
    let stage = Stage::new(wire);
    let client = builder(wire, stage.address()).build().expect("it starts");
    client.call(echo("connected")).expect("it is answered");
    let begun = Instant::now();
    let calling = client.start(ask("").timeout(Duration::from_millis(200)));
    let asked = stage.request();
    // Counted from when the reactor began to look, and rounded up.
    assert!(asked.timeout < Duration::from_secs(2), "{:?}", asked.timeout);
    assert_eq!(code(&block_on(calling)), Code::DeadlineExceeded);
    assert!(begun.elapsed() >= Duration::from_millis(200));
    let cancelled = stage.next(|seen| match seen {
        Seen::Cancel(id) => Some(id),
        _ => None,
    });
    assert_eq!(cancelled, asked.id);
    asked.answer(b"late");
    assert_eq!(client.call(echo("goes on")).expect("it is answered").body, "goes on");
    finish(&client);
}

fn a_future_that_is_dropped_cancels_its_call(wire: Wire) {
    let stage = Stage::new(wire);
    let client = builder(wire, stage.address()).build().expect("it starts");
    let calling = client.start(ask(""));
    let asked = stage.request();
    drop(calling);
    let cancelled = stage.next(|seen| match seen {
        Seen::Cancel(id) => Some(id),
        _ => None,
    });
    assert_eq!(cancelled, asked.id);
    asked.answer(b"for nobody");
    assert_eq!(client.call(echo("goes on")).expect("it is answered").body, "goes on");
    let stats = finish(&client);
    assert_eq!((stats.succeeded, stats.failed), (1, 1), "{stats:?}");
}

fn a_future_that_has_ended_says_so_when_it_is_polled_again(wire: Wire) {
    let stage = Stage::new(wire);
    let client = builder(wire, stage.address()).build().expect("it starts");
    let mut calling = client.start(echo("once"));
    assert_eq!(block_on(&mut calling).expect("it is answered").body, "once");
    assert_eq!(code(&block_on(&mut calling)), Code::Internal);
    finish(&client);
}

fn callbacks_call_again_but_do_not_wait_on_their_reactor(wire: Wire) {
    let stage = Stage::new(wire);
    let client = builder(wire, stage.address()).build().expect("it starts");
    let (told, ended) = channel();
    let again = client.clone();
    client.call_then(echo("one"), move |result| {
        assert_eq!(result.expect("it is answered").body, "one");
        let waited = again.call(echo("waits"));
        let second = again.clone();
        again.call_then(echo("two"), move |result| {
            drop(second);
            let _ = told.send((waited, result));
        });
    });
    let (waited, second) = receive(&ended);
    assert_eq!(code(&waited), Code::FailedPrecondition);
    assert_eq!(second.expect("it is answered").body, "two");
    finish(&client);
}

fn the_last_client_may_be_dropped_in_its_own_callback(wire: Wire) {
    let stage = Stage::new(wire);
    let client = builder(wire, stage.address()).build().expect("it starts");
    let (told, ended) = channel();
    let (last, first) = (client.clone(), client);
    let calling = first.start(ask("under way"));
    let asked = stage.request();
    let (go, gone) = channel::<()>();
    first.call_then(echo(""), move |_| {
        let _ = gone.recv_timeout(DEADLINE);
        let stopped = last.stop(DEADLINE);
        drop(last);
        let _ = told.send(stopped);
    });
    drop(first);
    drop(go);
    assert!(matches!(receive(&ended), Err(WaitError::OwnThread)));
    asked.answer(b"goes on");
    assert_eq!(block_on(calling).expect("it is answered").body, "goes on");
    stage.next(|seen| matches!(seen, Seen::Closed).then_some(()));
}

fn one_way_requests_wait_for_a_connection_and_for_nothing_else(wire: Wire) {
    let stage = Stage::new(wire);
    let client = builder(wire, stage.address()).build().expect("it starts");
    for body in ["one", "two"] {
        client.send(ask(body)).expect("it can be sent");
        let asked = stage.request();
        assert!(asked.one_way && asked.body == body.as_bytes(), "{asked:?}");
        eventually("it has ended", || client.stats().in_flight == 0);
    }
    let stats = finish(&client);
    assert_eq!((stats.succeeded, stats.connected), (2, 1), "{stats:?}");
    assert_eq!(code(&client.send(ask("")).map(|()| Response::default())), Code::Unavailable);
}

fn a_callback_that_panics_harms_nobody_else(wire: Wire) {
    let stage = Stage::new(wire);
    let client = builder(wire, stage.address()).build().expect("it starts");
    let other = client.start(ask("other"));
    let asked = stage.request();
    client.call_then(echo("bad"), |_| std::panic::panic_any(crate::common::FragilePayload));
    eventually("the callback panics", || client.stats().panics == 1);
    asked.answer(b"fine");
    assert_eq!(block_on(other).expect("it is answered").body, "fine");
    assert_eq!(finish(&client).connected, 1);
}

#[test]
fn a_client_is_send_and_sync_and_its_future_can_be_moved() {
    fn is_shared<T: Send + Sync + Clone + 'static>() {}
    fn is_moved<T: Send + Unpin + 'static>() {}
    is_shared::<Client>();
    is_moved::<millstream::rpc::Calling>();
}
