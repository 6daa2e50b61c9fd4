//! Which connections there are, and which one a call takes.

use std::time::{Duration, Instant};

use millstream::rpc::{Choice, Client, Code, Middleware, RetryPolicy};
use millstream::{Backoff, Connect};

use super::puppet::{Asked, Seen, Stage, cut, go_away};
use super::{ask, begin, block_on, builder, code, echo, finish, receive};
use crate::common::{DEADLINE, eventually};

use crate::common::wire::Wire;

with_and_without_tls! {
    an_address_that_is_down_is_left_alone
    connections_that_fail_together_are_one_failure
    hosts_and_unix_sockets_are_addresses
    a_client_connects_again_when_its_server_is_back
    a_server_that_leaves_ends_its_calls_while_others_go_to_a_new_connection
    a_server_that_sends_everybody_away_is_not_overrun
    a_silent_server_is_given_up
    a_server_that_answers_pings_has_time
    what_is_no_rpc_ends_the_connection
}

/// Makes all of a client's connections.
fn warm_up<M: Middleware>(client: &Client<M>, connections: usize) {
    client.call(echo("")).expect("it is answered");
    eventually("all are connected", || client.stats().connections == connections);
}

/// Has calls made one by one, and tells which stage each was asked on.
fn places(client: &Client, stages: &[Stage], count: usize) -> Vec<usize> {
    let on_any = || -> (usize, Asked) {
        let mut found = None;
        eventually("the request arrives", || {
            let mut all = stages.iter().enumerate();
            found = all.find_map(|(place, stage)| match stage.seen.try_recv() {
                Ok(Seen::Request(asked)) => Some((place, asked)),
                _ => None,
            });
            found.is_some()
        });
        found.expect("it was found")
    };
    let one = |_| {
        let ended = begin(client, ask(""));
        let (place, asked) = on_any();
        asked.answer(b"");
        receive(&ended).expect("it is answered");
        place
    };
    (0..count).map(one).collect()
}

fn count(places: &[usize], place: usize) -> usize {
    places.iter().filter(|other| **other == place).count()
}

fn three(choice: Choice) -> (Client, [Stage; 3]) {
    let stages = [Stage::new(Wire::Plain), Stage::new(Wire::Plain), Stage::new(Wire::Plain)];
    let [first, second, third] = &stages;
    let builder =
        builder(Wire::Plain, first.address()).address(second.address()).address(third.address());
    let client = builder.balance(choice).build().expect("it starts");
    warm_up(&client, 3);
    (client, stages)
}

#[test]
fn calls_take_turns_among_addresses() {
    let (client, stages) = three(Choice::RoundRobin);
    let places = places(&client, &stages, 9);
    for place in 0..3 {
        assert_eq!(count(&places, place), 3, "{places:?}");
    }
    finish(&client);
}

#[test]
fn calls_are_spread_by_chance() {
    let (client, stages) = three(Choice::Random);
    let places = places(&client, &stages, 60);
    for place in 0..3 {
        assert!((5..=40).contains(&count(&places, place)), "{places:?}");
    }
    finish(&client);
}

#[test]
fn calls_go_where_the_fewest_are() {
    let (client, stages) = three(Choice::LeastLoaded);
    // Two calls stay open, on two of them.
    let open = [begin(&client, ask("open")), begin(&client, ask("open"))];
    let mut held: Vec<(usize, Asked)> = Vec::new();
    eventually("both arrive", || {
        for (place, stage) in stages.iter().enumerate() {
            if let Ok(Seen::Request(asked)) = stage.seen.try_recv() {
                held.push((place, asked));
            }
        }
        held.len() == 2
    });
    let free = (0..3).find(|place| held.iter().all(|(other, _)| other != place));
    let places = places(&client, &stages, 5);
    assert_eq!(Some(places), free.map(|free| vec![free; 5]), "{held:?}");
    for (_, asked) in held {
        asked.answer(b"");
    }
    for ended in open {
        receive(&ended).expect("it is answered");
    }
    finish(&client);
}

fn an_address_that_is_down_is_left_alone(wire: Wire) {
    let down = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = down.local_addr().expect("it is bound").to_string();
    drop(down);
    let stage = Stage::new(wire);
    let long = Backoff::new(Duration::from_secs(600), Duration::from_secs(600));
    let builder = builder(wire, address).address(stage.address()).reconnect(long);
    let client = builder.build().expect("it starts");
    for _ in 0..20 {
        client.call(echo("")).expect("it is answered");
    }
    let stats = finish(&client);
    assert_eq!((stats.connected, stats.connect_failures), (1, 1), "{stats:?}");
}

fn connections_that_fail_together_are_one_failure(wire: Wire) {
    const CONNECTIONS: usize = 8;
    let unused = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = unused.local_addr().expect("it is bound").to_string();
    drop(unused);
    // The sixth delay is 32 ms at most; the sixth of each connection would be many years.
    let backoff = Backoff::new(Duration::from_millis(1), Duration::MAX);
    let client =
        builder(wire, address).connections(CONNECTIONS).reconnect(backoff).build().unwrap();
    let waiting = client.start(echo("").wait_for_ready(true));
    eventually("it tries again and again", || {
        client.stats().connect_failures > 6 * CONNECTIONS as u64
    });
    drop(waiting);
    finish(&client);
}

/// The one that is stuck is a listener that nobody accepts from, which shakes no hands: no TLS.
#[test]
fn no_call_waits_for_a_stuck_connection_while_another_has_room() {
    let stuck = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = stuck.local_addr().expect("it is bound").to_string();
    let stage = Stage::new(Wire::Plain);
    let builder = builder(Wire::Plain, address).address(stage.address()).max_unsent(64 * 1024);
    let client = builder.retry(RetryPolicy::never()).build().expect("it starts");
    eventually("both are connected", || {
        drop(begin(&client, echo("")));
        client.stats().connections == 2
    });
    // Half of them are more than the operating system keeps for one who does not read.
    let short = Duration::from_secs(5);
    let large = |_| {
        let ended = begin(&client, echo(vec![0; 600_000]).timeout(short));
        for _ in 0..3 {
            // The reactor answers this, so what came before has been given to a connection, and
            // that has looked at it.
            let late = client.call(echo("").timeout(Duration::ZERO));
            assert_eq!(code(&late), Code::DeadlineExceeded);
        }
        ended
    };
    let large: Vec<_> = (0..100).map(large).collect();
    let ended: Vec<_> = large.iter().map(receive).collect();
    let failed: Vec<_> = ended.into_iter().filter_map(Result::err).collect();
    assert!(!failed.is_empty(), "nobody answers there");
    for status in failed {
        assert_eq!(status.message(), "no response came in time", "it was not sent");
    }
    drop(stuck); // Its connection is reset.
    finish(&client);
}

fn hosts_and_unix_sockets_are_addresses(wire: Wire) {
    let stage = Stage::new(wire);
    let port = stage.engine.address().port();
    let client = builder(wire, format!("localhost:{port}")).build().expect("it starts");
    assert_eq!(client.call(echo("by name")).expect("it is answered").body, "by name");
    finish(&client);

    let folder = crate::common::folder::Folder::new();
    let address = format!("unix://{}", folder.path("socket"));
    let _stage = Stage::at(wire, &address, true);
    let client = builder(wire, address).build().expect("it starts");
    assert_eq!(client.call(echo("by path")).expect("it is answered").body, "by path");
    finish(&client);
}

#[test]
fn how_an_address_is_connected_to_can_be_changed() {
    let stage = Stage::new(Wire::Plain);
    let there = Connect::to(stage.engine.address());
    let client = builder(Wire::Plain, "elsewhere.example:1").connect_with(move |_| there.clone());
    let client = client.build().expect("it starts");
    assert_eq!(client.call(echo("there")).expect("it is answered").body, "there");
    finish(&client);
}

fn a_client_connects_again_when_its_server_is_back(wire: Wire) {
    let stage = Stage::new(wire);
    let address = stage.address();
    let backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(50));
    let client = builder(wire, address.clone()).reconnect(backoff).build().expect("it starts");
    client.call(echo("before")).expect("it is answered");
    drop(stage);
    eventually("the connection is gone", || client.stats().connections == 0);
    let waiting = client.start(echo("after").wait_for_ready(true));
    eventually("it tries", || client.stats().connect_failures > 0);
    let _stage = Stage::at(wire, &address, true);
    assert_eq!(block_on(waiting).expect("it is answered").body, "after");
    let stats = finish(&client);
    assert_eq!((stats.connected, stats.lost), (2, 1), "{stats:?}");
}

fn a_server_that_leaves_ends_its_calls_while_others_go_to_a_new_connection(wire: Wire) {
    let stage = Stage::new(wire);
    let client = builder(wire, stage.address()).build().expect("it starts");
    let old = begin(&client, ask("old"));
    let old_asked = stage.request();
    let unseen = begin(&client, ask("unseen"));
    let unseen_asked = stage.request();
    go_away(&old_asked.peer, old_asked.id);
    // It was not run, says the server, so it is sent again though it is not idempotent.
    let again = stage.request();
    assert_eq!((&*again.body, again.is_retry), (&b"unseen"[..], false));
    assert_ne!(again.peer.id(), unseen_asked.peer.id());
    again.answer(b"new");
    assert_eq!(receive(&unseen).expect("it is answered").body, "new");
    assert_eq!(client.stats().connections, 2);
    old_asked.answer(b"old");
    assert_eq!(receive(&old).expect("it is answered").body, "old");
    stage.next(|seen| matches!(seen, Seen::Closed).then_some(()));
    client.call(echo("goes on")).expect("it is answered");
    eventually("the old one is forgotten", || client.stats().connections == 1);
    let stats = finish(&client);
    assert_eq!((stats.connected, stats.retried, stats.lost), (2, 1, 0), "{stats:?}");
}

fn a_server_that_sends_everybody_away_is_not_overrun(wire: Wire) {
    const TIME: Duration = Duration::from_secs(1);
    let stage = Stage::new(wire);
    let slow = Backoff::new(Duration::from_millis(200), TIME);
    let hasty = RetryPolicy::new(u32::MAX, Backoff::new(Duration::ZERO, Duration::ZERO));
    let client = builder(wire, stage.address()).reconnect(slow).retry(hasty).build().unwrap();
    let (ended, begun) = (begin(&client, ask("").timeout(TIME)), Instant::now());
    let mut opened = 0;
    while begun.elapsed() < TIME {
        if let Ok(Seen::Open(peer)) = stage.seen.recv_timeout(Duration::from_millis(10)) {
            opened += 1;
            go_away(&peer, 0);
        }
    }
    assert_eq!(code(&receive(&ended)), Code::DeadlineExceeded);
    assert!((1..30).contains(&opened), "{opened} connections within a second");
    finish(&client);
}

fn a_silent_server_is_given_up(wire: Wire) {
    let stage = Stage::at(wire, "127.0.0.1:0", false);
    let short = Duration::from_millis(50);
    let client = builder(wire, stage.address()).keepalive(short, short).build().expect("it starts");
    let ended = begin(&client, ask(""));
    stage.next(|seen| matches!(seen, Seen::Ping).then_some(()));
    let status = receive(&ended).expect_err("the server is silent");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("ping"), "{status}");
    assert_eq!(finish(&client).lost, 1);
}

fn a_server_that_answers_pings_has_time(wire: Wire) {
    let stage = Stage::new(wire);
    let short = Duration::from_millis(30);
    let client =
        builder(wire, stage.address()).keepalive(short, DEADLINE).build().expect("it starts");
    let ended = begin(&client, ask(""));
    let asked = stage.request();
    for _ in 0..3 {
        stage.next(|seen| matches!(seen, Seen::Ping).then_some(()));
    }
    asked.answer(b"at last");
    assert_eq!(receive(&ended).expect("it is answered").body, "at last");
    assert_eq!(finish(&client).lost, 0);
}

fn what_is_no_rpc_ends_the_connection(wire: Wire) {
    let stage = Stage::new(wire);
    let client = builder(wire, stage.address()).build().expect("it starts");
    let ended = begin(&client, ask(""));
    let asked = stage.request();
    super::puppet::write(&asked.peer, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let ended = receive(&ended);
    assert_eq!(code(&ended), Code::Unavailable, "{ended:?}");
    assert!(ended.unwrap_err().message().contains("0x4854"));
    cut(&asked.peer);
    assert_eq!(finish(&client).lost, 1);
}
