//! Connections that break, what is tried again, and how a client ends.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use millstream::Backoff;
use millstream::rpc::{Code, Request, RetryPolicy};

use super::puppet::{Seen, Stage, cut, go_away_with, write};
use super::{ask, begin, block_on, builder, code, echo, finish, receive};
use crate::common::seeds::for_each_seed;
use crate::common::{DEADLINE, eventually};

use crate::common::wire::Wire;

with_and_without_tls! {
    under_losses_every_call_ends_once_and_runs_at_most_once
    only_what_may_be_run_twice_is_tried_again_after_a_loss
    what_was_not_run_is_tried_again_whatever_it_is
    a_response_that_is_never_whole_ends_its_connection
    why_a_server_went_away_is_told_to_its_calls
    a_server_that_breaks_off_ends_all_calls_with_its_status
    attempts_end_before_the_deadline
    a_stop_lets_calls_end_and_cuts_the_rest
    dropping_the_last_client_lets_calls_end
    a_client_that_never_called_ends_at_once
}

fn soon() -> Backoff {
    Backoff::new(Duration::from_millis(1), Duration::from_millis(5))
}

fn only_what_may_be_run_twice_is_tried_again_after_a_loss(wire: Wire) {
    let stage = Stage::new(wire);
    let retry = RetryPolicy::new(3, soon());
    let client = builder(wire, stage.address()).retry(retry).reconnect(soon()).build().unwrap();
    let once = begin(&client, ask("once"));
    let asked = stage.request();
    assert!(!asked.is_retry);
    cut(&asked.peer);
    assert_eq!(code(&receive(&once)), Code::Unavailable);

    let again = begin(&client, ask("again").idempotent(true));
    let asked = stage.request();
    assert!(!asked.is_retry);
    cut(&asked.peer);
    let asked = stage.request();
    assert_eq!((&*asked.body, asked.is_retry), (&b"again"[..], true));
    asked.answer(b"done");
    assert_eq!(receive(&again).expect("it is answered").body, "done");

    let thrice = begin(&client, ask("thrice").idempotent(true));
    for _ in 0..3 {
        cut(&stage.request().peer);
    }
    assert_eq!(code(&receive(&thrice)), Code::Unavailable);
    let stats = finish(&client);
    assert_eq!((stats.retried, stats.lost), (3, 5), "{stats:?}");
}

fn what_was_not_run_is_tried_again_whatever_it_is(wire: Wire) {
    let stage = Stage::new(wire);
    let retry = RetryPolicy::new(3, soon());
    let client = builder(wire, stage.address()).retry(retry).build().expect("it starts");
    let ended = begin(&client, ask(""));
    stage.request().fail(Code::Unavailable, true);
    stage.request().fail(Code::Unavailable, true);
    let asked = stage.request();
    assert!(!asked.is_retry, "no attempt was run");
    asked.answer(b"done");
    assert_eq!(receive(&ended).expect("it is answered").body, "done");

    for (code_said, not_run) in
        [(Code::Unavailable, false), (Code::NotFound, true), (Code::ResourceExhausted, true)]
    {
        let ended = begin(&client, ask(""));
        stage.request().fail(code_said, not_run);
        assert_eq!(code(&receive(&ended)), code_said);
    }
    assert_eq!(finish(&client).retried, 2);
}

fn a_response_that_is_never_whole_ends_its_connection(wire: Wire) {
    let stage = Stage::new(wire);
    let short = Duration::from_millis(100);
    let client = builder(wire, stage.address()).frame_timeout(short).build().expect("it starts");
    let ended = begin(&client, ask(""));
    let asked = stage.request();
    write(&asked.peer, b"MS\x01\x02\0\0\0\0\0\0\0\x09");
    let status = receive(&ended).expect_err("it does not come");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("frame"), "{status}");
    client.call(echo("on another one")).expect("it is answered");
    assert_eq!(finish(&client).lost, 1);
}

fn why_a_server_went_away_is_told_to_its_calls(wire: Wire) {
    let stage = Stage::new(wire);
    let retry = RetryPolicy::never();
    let client = builder(wire, stage.address()).retry(retry).build().expect("it starts");
    let [run, not_run] = ["run", "not run"].map(|body| begin(&client, ask(body)));
    let asked = [stage.request(), stage.request()];
    go_away_with(&asked[0].peer, asked[0].id, Code::Ok, "it is night");
    let status = receive(&not_run).expect_err("it was not run");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("it is night"), "{status}");
    cut(&asked[0].peer);
    let status = receive(&run).expect_err("it is cut off");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("it is night"), "{status}");
    finish(&client);
}

/// The server goes on with nothing, so nothing is waited for, even if it does not close.
fn a_server_that_breaks_off_ends_all_calls_with_its_status(wire: Wire) {
    for said in [Code::InvalidArgument, Code::Unavailable] {
        let stage = Stage::new(wire);
        let retry = RetryPolicy::new(2, soon());
        let builder = builder(wire, stage.address()).retry(retry).reconnect(soon());
        let client = builder.build().expect("it starts");
        let [run, not_run] = ["run", "not run"].map(|body| begin(&client, ask(body)));
        let asked = [stage.request(), stage.request()];
        go_away_with(&asked[0].peer, asked[0].id, said, "you are wrong");
        let status = receive(&run).expect_err("it is cut off");
        assert_eq!(status.code(), said);
        assert!(status.message().contains("you are wrong"), "{status}");
        if said == Code::Unavailable {
            stage.request().answer(b"elsewhere"); // It was not run, and so is sent again.
            assert_eq!(receive(&not_run).expect("it is answered").body, "elsewhere");
        } else {
            assert_eq!(code(&receive(&not_run)), said);
            stage.next(|seen| matches!(seen, Seen::Closed).then_some(()));
        }
        finish(&client);
    }
}

fn attempts_end_before_the_deadline(wire: Wire) {
    let stage = Stage::new(wire);
    let slow = Backoff::new(Duration::from_secs(3600), Duration::from_secs(3600)).seed(1);
    let retry = RetryPolicy::new(10, slow);
    let client = builder(wire, stage.address()).retry(retry).build().expect("it starts");
    let begun = Instant::now();
    let ended = begin(&client, ask("").idempotent(true));
    stage.request().fail(Code::Unavailable, false);
    assert_eq!(code(&receive(&ended)), Code::Unavailable);
    assert!(begun.elapsed() < DEADLINE, "it does not wait for nothing");
    assert_eq!(finish(&client).retried, 0);
}

/// Calls while a thread cuts connections: each ends once, with its own answer, and what is not
/// idempotent is run at most once.
fn under_losses_every_call_ends_once_and_runs_at_most_once(wire: Wire) {
    for_each_seed(3, |seed| lose_connections(wire, seed));
}

fn lose_connections(wire: Wire, seed: u64) {
    const CALLS: usize = 400;
    let stage = Stage::new(wire);
    let builder =
        builder(wire, stage.address()).connections(2).max_in_flight(8).reconnect(soon()).seed(seed);
    let client = builder.retry(RetryPolicy::new(4, soon())).build().expect("it starts");
    let ends: Arc<Vec<AtomicUsize>> = Arc::new((0..CALLS).map(|_| AtomicUsize::new(0)).collect());
    let answered = Arc::new(Mutex::new(HashMap::new()));
    let all_ended = AtomicBool::new(false);
    let mut runs: HashMap<String, usize> = HashMap::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..CALLS {
                let (ends, answered) = (Arc::clone(&ends), Arc::clone(&answered));
                let request = Request::new("t/ask").body(number.to_string());
                client.call_then(request.idempotent(number % 2 == 0), move |result| {
                    ends[number].fetch_add(1, Ordering::Relaxed);
                    if let Ok(response) = result {
                        answered.lock().unwrap().insert(number, response.body);
                    }
                });
            }
            eventually("all calls end", || {
                ends.iter().all(|ends| ends.load(Ordering::Relaxed) > 0)
            });
            all_ended.store(true, Ordering::Relaxed);
        });
        let mut rng = fastrand::Rng::with_seed(seed);
        let begun = Instant::now();
        while !all_ended.load(Ordering::Relaxed) && begun.elapsed() < DEADLINE * 2 {
            let Ok(seen) = stage.seen.recv_timeout(Duration::from_millis(1)) else { continue };
            let Seen::Request(asked) = seen else { continue };
            *runs.entry(String::from_utf8_lossy(&asked.body).into_owned()).or_default() += 1;
            match rng.u32(..100) {
                0 => cut(&asked.peer),
                1..5 => asked.fail(Code::Unavailable, false),
                _ => asked.answer(&asked.body),
            }
        }
    });
    for (number, ends) in ends.iter().enumerate() {
        assert_eq!(ends.load(Ordering::Relaxed), 1, "seed {seed}, call {number}");
        let runs = runs.get(&number.to_string()).copied().unwrap_or(0);
        assert!(number % 2 == 0 || runs <= 1, "seed {seed}, call {number} was run {runs} times");
    }
    let answered = answered.lock().unwrap();
    for (number, body) in answered.iter() {
        assert_eq!(*body, number.to_string(), "seed {seed}");
    }
    assert!(answered.len() > CALLS / 10, "seed {seed}: {} answered", answered.len());
    finish(&client);
}

fn a_stop_lets_calls_end_and_cuts_the_rest(wire: Wire) {
    let stage = Stage::new(wire);
    let client = builder(wire, stage.address()).max_in_flight(2).build().expect("it starts");
    let good = begin(&client, ask("good"));
    let left = begin(&client, ask("left"));
    let waiting = begin(&client, ask("waiting"));
    let (good_asked, _left_asked) = (stage.request(), stage.request());
    let stopping = client.clone();
    let stop = thread::spawn(move || stopping.stop(Duration::from_secs(3)));
    assert_eq!(code(&receive(&waiting)), Code::Unavailable, "it has no connection");
    good_asked.answer(b"in time");
    assert_eq!(receive(&good).expect("it is answered").body, "in time");
    assert_eq!(code(&receive(&left)), Code::Unavailable, "it took too long");
    stop.join().unwrap().expect("it ends well");
    finish(&client);
}

fn dropping_the_last_client_lets_calls_end(wire: Wire) {
    let stage = Stage::new(wire);
    let builder = builder(wire, stage.address()).drain_timeout(DEADLINE * 2);
    let client = builder.build().expect("it starts");
    let (callback, future) = (begin(&client, ask("one")), client.start(ask("two")));
    let asked = [stage.request(), stage.request()];
    drop(client);
    // sleep: the client has the time to do the wrong thing, which is to end the calls.
    thread::sleep(Duration::from_millis(50));
    for asked in asked {
        asked.answer(&asked.body);
    }
    assert_eq!(receive(&callback).expect("it is answered").body, "one");
    assert_eq!(block_on(future).expect("it is answered").body, "two");
    stage.next(|seen| matches!(seen, Seen::Closed).then_some(()));
}

fn a_client_that_never_called_ends_at_once(wire: Wire) {
    let client = builder(wire, "127.0.0.1:1").build().expect("it starts");
    assert_eq!(finish(&client).started, 0);
    let stage = Stage::new(wire);
    let client = builder(wire, stage.address()).build().expect("it starts");
    client.call(echo("")).expect("it is answered");
    finish(&client);
}
