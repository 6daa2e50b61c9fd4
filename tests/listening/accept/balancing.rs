//! Which reactor gets a connection: each balancer, and what a user's own one may do, in the main
//! acceptor's mode. In reuse-port mode the system spreads connections, and nobody asks the
//! balancer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Sender, channel};

use millstream::balance::{Balance, LeastConnections, RoundRobin, SourceHash};
use millstream::{AcceptMode, Address, Engine};

use super::{Greeter, REACTORS, assert_echoes, connect_from, greeted, greeting};
use crate::common::{TestEngine, eventually, receive};

fn balanced(balance: impl Balance) -> TestEngine {
    let builder = Engine::builder().reactors(REACTORS).balance(balance);
    TestEngine::start(builder, Greeter::of_reactor)
}

/// Each reactor's number of connections.
fn spread(engine: &Engine) -> Vec<usize> {
    engine.stats().reactors.iter().map(|reactor| reactor.connections).collect()
}

#[test]
fn round_robin_gives_each_reactor_every_third_connection() {
    for engine in [
        TestEngine::start(Engine::builder().reactors(REACTORS), Greeter::of_reactor),
        balanced(RoundRobin::default()),
    ] {
        let clients = greeted(&engine, 30);
        let order = clients.iter().map(|(_, reactor)| *reactor);
        assert!(order.eq((0..30).map(|index| index % REACTORS)), "not in turn");
        assert_eq!(spread(&engine), [10; REACTORS]);
    }
}

#[test]
fn least_connections_keeps_the_reactors_level_also_after_some_closed() {
    let engine = balanced(LeastConnections);
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.extend(greeted(&engine, 1));
        let spread = spread(&engine);
        let (least, most) = (spread.iter().min(), spread.iter().max());
        assert!(most.unwrap() - least.unwrap() <= 1, "{spread:?}");
    }
    assert_eq!(spread(&engine), [4; REACTORS]);

    clients.retain(|(_, reactor)| *reactor != 1);
    eventually("the reactor's connections close", || spread(&engine) == [4, 0, 4]);
    let late = greeted(&engine, 4);
    assert!(late.iter().all(|(_, reactor)| *reactor == 1), "{late:?}");
    assert_eq!(spread(&engine), [4; REACTORS]);
}

#[cfg(target_os = "linux")] // Where all of 127.0.0.0/8 is this machine.
#[test]
fn source_hash_keeps_a_source_on_one_reactor_and_spreads_the_sources() {
    let engine = balanced(SourceHash::default());
    let address = engine.address();
    let mut clients = Vec::new();
    let mut reactors: BTreeMap<u8, BTreeSet<usize>> = BTreeMap::new();
    for _ in 0..4 {
        for source in 1..=40 {
            let client = connect_from([127, 0, 0, source], address);
            reactors.entry(source).or_default().insert(greeting(&client).expect("it is served"));
            clients.push(client);
        }
    }
    assert!(reactors.values().all(|used| used.len() == 1), "{reactors:?}");
    let used: BTreeSet<usize> = reactors.into_values().flatten().collect();
    assert_eq!(used.len(), REACTORS, "a reactor has no source: {used:?}");
}

/// A balancer that is a function.
struct Choice<F>(F);

impl<F: FnMut(Address, &[usize]) -> usize + Send + 'static> Balance for Choice<F> {
    fn choose(&mut self, peer: Address, connections: &[usize]) -> usize {
        (self.0)(peer, connections)
    }
}

#[test]
fn a_users_own_balancer_chooses_by_peer_and_load() {
    let (asked, questions) = channel();
    let engine = balanced(Choice(move |peer: Address, connections: &[usize]| {
        let _ = asked.send((peer, connections.to_vec()));
        usize::from(peer.port().unwrap_or(0)) % connections.len()
    }));
    let mut expected = vec![0; REACTORS];
    let mut clients = Vec::new();
    for _ in 0..20 {
        let (client, reactor) = greeted(&engine, 1).remove(0);
        let source = client.local_addr().expect("it is connected");
        assert_eq!(receive(&questions), (source.into(), expected.clone()));
        assert_eq!(reactor, usize::from(source.port()) % REACTORS);
        expected[reactor] += 1;
        clients.push(client);
    }
}

/// A balancer that does not look at the numbers of connections.
struct Blind(Sender<Vec<usize>>);

impl Balance for Blind {
    fn choose(&mut self, _peer: Address, connections: &[usize]) -> usize {
        let _ = self.0.send(connections.to_vec());
        0
    }

    fn needs_connections(&self) -> bool {
        false
    }
}

#[test]
fn a_balancer_that_needs_no_numbers_of_connections_is_told_none() {
    let (asked, questions) = channel();
    let engine = balanced(Blind(asked));
    let clients = greeted(&engine, 3);
    assert!(clients.iter().all(|_| receive(&questions) == [0; REACTORS]));
}

#[test]
fn an_answer_out_of_range_counts_from_zero_again() {
    for (answer, expected) in [(3, 0), (7, 1), (usize::MAX, usize::MAX % REACTORS)] {
        let engine = balanced(Choice(move |_, _: &[usize]| answer));
        let clients = greeted(&engine, 3);
        assert!(clients.iter().all(|(_, reactor)| *reactor == expected), "{answer}: {clients:?}");
    }
}

#[test]
fn a_balancer_that_panics_costs_no_connection() {
    let mut turn = 0;
    let engine = balanced(Choice(move |_, _: &[usize]| {
        turn += 1;
        assert!(turn % 2 == 0, "every other time");
        2
    }));
    let clients = greeted(&engine, 10);
    let reactors: Vec<usize> = clients.iter().map(|(_, reactor)| *reactor).collect();
    assert_eq!(reactors, [0, 2, 0, 2, 0, 2, 0, 2, 0, 2]);
    clients.iter().for_each(|(client, _)| assert_echoes(client));
}

#[test]
fn in_reuse_port_mode_no_balancer_is_asked() {
    let (asked, questions) = channel();
    let choice = Choice(move |_, _: &[usize]| {
        let _ = asked.send(());
        0
    });
    let builder = Engine::builder().reactors(REACTORS).accept_mode(AcceptMode::ReusePort);
    let engine = TestEngine::start(builder.balance(choice), Greeter::of_reactor);
    let clients = greeted(&engine, 60);
    let mut expected = vec![0; REACTORS];
    clients.iter().for_each(|(_, reactor)| expected[*reactor] += 1);
    assert_eq!(spread(&engine), expected);
    assert!(expected.iter().filter(|count| **count > 0).count() > 1, "not spread: {expected:?}");
    assert!(questions.try_recv().is_err(), "the balancer was asked");
}
