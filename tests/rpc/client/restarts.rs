//! A server that is stopped gracefully and started again while calls come.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use millstream::rpc::{Call, Client, Code, Handler, Request, RetryPolicy, Router, Server};
use millstream::{Backoff, Engine};

use super::{block_on, builder, finish};
use crate::common::wire::Wire;
use crate::common::{DEADLINE, eventually};

with_and_without_tls! { a_graceful_restart_loses_no_idempotent_call_and_runs_none_twice }

/// How often each body was run.
type Runs = Arc<Mutex<HashMap<Vec<u8>, usize>>>;

/// A server that answers each second call on another thread.
fn start(wire: Wire, address: SocketAddr, runs: &Runs) -> (Engine, Server) {
    let server = Server::new();
    let mut engine = None;
    // While nobody listens there, the port may be somebody's for a moment.
    eventually("it listens", || {
        let (of_reactors, runs) = (server.clone(), Arc::clone(runs));
        let builder = Engine::builder().reactors(2).listen(address.to_string());
        let started = wire.build(builder).start(move |_| {
            of_reactors.serve(Router::new().method("t/restarted", echo(Arc::clone(&runs))))
        });
        engine = started.ok();
        engine.is_some()
    });
    (engine.expect("it listens"), server)
}

fn echo(runs: Runs) -> impl Handler {
    move |call: &mut Call<'_>| {
        let body = call.body().to_vec();
        *runs.lock().unwrap().entry(body.clone()).or_default() += 1;
        if body.last().is_none_or(|last| last % 2 == 0) {
            return call.answer(&body);
        }
        let (answer, reply) = call.answer_later();
        thread::spawn(move || reply.send(body));
        Ok(answer)
    }
}

fn stop(engine: &Engine, server: &Server) {
    engine.stop(DEADLINE).expect("it runs");
    engine.wait().expect("it ends in time");
    let stats = server.stats();
    assert_eq!((stats.in_flight, stats.started), (0, stats.ended), "{stats:?}");
}

/// Ends the callers, even if the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Has calls made, some at a time, until it is told to end; returns how many.
fn call_on(client: &Client, next: &AtomicUsize, ends: &AtomicBool) -> usize {
    let mut count = 0;
    while !ends.load(Ordering::Relaxed) {
        let calls = [(); 20].map(|()| {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let (body, is_idempotent) = (number.to_be_bytes().to_vec(), number.is_multiple_of(3));
            let request = Request::new("t/restarted").idempotent(is_idempotent);
            (is_idempotent, body.clone(), client.start(request.body(body)))
        });
        for (is_idempotent, body, calling) in calls {
            match block_on(calling) {
                Ok(response) => assert_eq!(response.body, body, "an answer of another call"),
                // The system resets what it took in for a listener that was closed before it took
                // that over.
                Err(status) => {
                    assert!(!is_idempotent, "a restart loses a call: {status}");
                    assert_eq!(status.code(), Code::Unavailable);
                    assert!(client.stats().lost > 0, "no connection was lost: {status}");
                }
            }
            count += 1;
        }
    }
    count
}

fn a_graceful_restart_loses_no_idempotent_call_and_runs_none_twice(wire: Wire) {
    let runs = Runs::default();
    let (mut engine, mut server) = start(wire, SocketAddr::from(([127, 0, 0, 1], 0)), &runs);
    let address = engine.local_addrs()[0].socket_addr().expect("an IP address");
    let soon = Backoff::new(Duration::from_millis(1), Duration::from_millis(20));
    let builder = builder(wire, address.to_string()).connections(2).reconnect(soon.clone());
    let builder = builder.retry(RetryPolicy::new(20, soon)).wait_for_ready(true);
    let client = builder.build().expect("it starts");
    let (next, ends) = (AtomicUsize::new(0), AtomicBool::new(false));
    let count: usize = thread::scope(|scope| {
        let callers = [(); 3].map(|()| scope.spawn(|| call_on(&client, &next, &ends)));
        let ends = Ends(&ends);
        for _ in 0..10 {
            let begun = client.stats().succeeded;
            eventually("calls are answered", || client.stats().succeeded > begun + 200);
            stop(&engine, &server);
            (engine, server) = start(wire, address, &runs);
        }
        drop(ends);
        callers.into_iter().map(|caller| caller.join().expect("it makes its calls")).sum()
    });
    stop(&engine, &server);
    let stats = finish(&client);
    assert_eq!(stats.started, count as u64);
    let runs = runs.lock().unwrap();
    assert!(runs.values().all(|runs| *runs == 1), "a call was run twice");
    assert!(runs.len() as u64 >= stats.succeeded, "{} were run: {stats:?}", runs.len());
}
