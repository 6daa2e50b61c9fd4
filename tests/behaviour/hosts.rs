//! Connections that the engine makes to hosts by their names: what the resolver says is the test's.

use std::any::Any;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::{Action, Builder, Connect, ConnectError, Engine, Target};

use crate::common::recorder::{On, echo};
use crate::common::{DEADLINE, assert_same};
use crate::connecting::{Outcomes, nobody, nothing};
use crate::stage::Stage;
use crate::world::World;

const PORT: u16 = 7;
/// RFC 8305's delay between two addresses.
const DELAY: Duration = Duration::from_millis(250);

fn host() -> Connect {
    Connect::to_host("server.test", PORT)
}

/// What the host resolves to, once the test knows.
type Addresses = Arc<Mutex<Vec<SocketAddr>>>;

fn resolving(builder: Builder) -> (Builder, Addresses) {
    let addresses = Addresses::default();
    let known = Arc::clone(&addresses);
    let builder = builder.resolver(move |host: &str, port| {
        assert_eq!((host, port), ("server.test", PORT));
        Ok(known.lock().expect("no panic").clone())
    });
    (builder, addresses)
}

/// An engine for which the host has these addresses.
fn start<W: World>(seed: u64, builder: Builder) -> (Stage<W>, impl Fn(&[SocketAddr])) {
    let (builder, addresses) = resolving(builder);
    let stage = Stage::<W>::start(seed, builder, echo);
    (stage, move |known: &[SocketAddr]| *addresses.lock().expect("no panic") = known.to_vec())
}

pub(crate) fn a_host_is_connected_to_by_its_name<W: World>(seed: u64) {
    let (mut stage, resolve) = start::<W>(seed, Engine::builder());
    let (listener, address) = stage.world.listen();
    resolve(&[address]);
    let outcomes = Outcomes::default();
    outcomes.connect(&stage, host(), move |conn| {
        assert_eq!(conn.peer_addr(), address);
        conn.output.write(b"hello");
        Action::Continue
    });
    let mut peer = stage.accept(&listener);
    assert_same(&stage.receive(&mut peer, 5), b"hello");
    outcomes.next(&mut stage).expect("it listens");
    peer.end();
    stage.closed_by("peer");
}

pub(crate) fn the_next_address_is_tried_while_the_first_is_silent<W: World>(seed: u64) {
    let (mut stage, resolve) = start::<W>(seed, Engine::builder());
    let (_silence, first) = stage.world.silent();
    let (listener, second) = stage.world.listen();
    resolve(&[first, second]);
    let (outcomes, since) = (Outcomes::default(), stage.world.now());
    outcomes.connect(&stage, host(), move |conn| {
        assert_eq!(conn.peer_addr(), second);
        Action::Continue
    });
    let mut peer = stage.accept(&listener);
    let took = stage.world.now() - since;
    // On a network with faults a segment takes up to 5 ms.
    assert!(took >= DELAY && (!W::VIRTUAL || took < DELAY + Duration::from_millis(15)), "{took:?}");
    outcomes.next(&mut stage).expect("it listens");
    assert_eq!(stage.engine().connections(), 1);
    peer.end();
    stage.closed_by("peer");
    assert_eq!(stage.count(On::Open), 1, "the other one was given up");
}

pub(crate) fn an_address_that_refuses_hands_over_at_once<W: World>(seed: u64) {
    let (mut stage, resolve) = start::<W>(seed, Engine::builder());
    let (listener, address) = stage.world.listen();
    resolve(&[nobody(&stage), address]);
    let (outcomes, since) = (Outcomes::default(), stage.world.now());
    outcomes.connect(&stage, host().attempt_delay(Duration::MAX), nothing);
    let mut peer = stage.accept(&listener);
    assert!(!W::VIRTUAL || stage.world.now() - since < Duration::from_millis(25));
    outcomes.next(&mut stage).expect("it listens");
    peer.end();
    stage.closed_by("peer");
}

pub(crate) fn a_host_at_which_nobody_listens<W: World>(seed: u64) {
    let (mut stage, resolve) = start::<W>(seed, Engine::builder());
    let known = [nobody(&stage), SocketAddr::from(([127, 0, 0, 2], nobody(&stage).port()))];
    resolve(&known);
    let outcomes = Outcomes::default();
    outcomes.connect(&stage, host(), nothing);
    let error = outcomes.next(&mut stage).expect_err("nobody listens");
    let text = error.to_string();
    assert!(text.starts_with("cannot connect to server.test:7: "), "{text}");
    assert!(known.iter().all(|address| text.contains(&format!("{address}: "))), "{text}");
    let ConnectError::AllFailed { failures, .. } = error else { panic!("another error: {error}") };
    let failed: Vec<_> = failures.iter().map(|(address, _)| *address).collect();
    assert_eq!(failed, known);
    assert!(failures.iter().all(|(_, error)| error.kind() == ErrorKind::ConnectionRefused));
    assert_eq!(stage.log.notes().len(), 0, "no callback ran");
}

pub(crate) fn a_host_at_which_nobody_answers<W: World>(seed: u64) {
    let timeout = Duration::from_millis(50);
    let (mut stage, resolve) = start::<W>(seed, Engine::builder());
    let silent = [stage.world.silent(), stage.world.silent(), stage.world.silent()];
    resolve(&silent.each_ref().map(|(_, address)| *address));
    let (outcomes, since) = (Outcomes::default(), stage.world.now());
    let connect = host().timeout(timeout).attempt_delay(Duration::ZERO);
    outcomes.connect(&stage, connect, nothing);
    let error = outcomes.next(&mut stage).expect_err("nobody answers");
    stage.assert_due(since, timeout, stage.world.now());
    assert_eq!(error.to_string(), "cannot connect to server.test:7: no answer within 50ms");
}

pub(crate) fn a_name_that_does_not_resolve<W: World>(seed: u64) {
    let unknown = |_: &str, _| Err(ErrorKind::NotFound.into());
    let mut stage = Stage::<W>::start(seed, Engine::builder().resolver(unknown), echo);
    let outcomes = Outcomes::default();
    outcomes.connect(&stage, host(), nothing);
    let error = outcomes.next(&mut stage).expect_err("the name is unknown");
    assert_eq!(*error.target(), Target::Host { name: "server.test".into(), port: PORT });
    let ConnectError::Unresolved { source, .. } = &error else { panic!("another error: {error}") };
    let what = "cannot connect to server.test:7: the name does not resolve";
    assert_eq!(error.to_string(), format!("{what}: {source}"));
    assert_eq!(source.kind(), ErrorKind::NotFound);
}

pub(crate) fn a_host_without_an_address<W: World>(seed: u64) {
    let (mut stage, _) = start::<W>(seed, Engine::builder());
    let outcomes = Outcomes::default();
    outcomes.connect(&stage, host(), nothing);
    let error = outcomes.next(&mut stage).expect_err("there is no address");
    assert!(matches!(error, ConnectError::NoAddress { .. }), "{error}");
}

pub(crate) fn only_addresses_of_the_bound_family_are_tried<W: World>(seed: u64) {
    let (mut stage, resolve) = start::<W>(seed, Engine::builder());
    let (listener, address) = stage.world.listen();
    let other = SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 1], address.port()));
    let from = SocketAddr::from(([127, 0, 0, 2], 0));
    let outcomes = Outcomes::default();
    resolve(&[other]);
    outcomes.connect(&stage, host().bind(from), nothing);
    let error = outcomes.next(&mut stage).expect_err("none has the family");
    assert!(matches!(error, ConnectError::NoAddress { .. }), "{error}");
    resolve(&[other, address]);
    outcomes.connect(&stage, host().bind(from), move |conn| {
        assert_eq!(conn.local_addr().expect("it is open").ip(), Some(from.ip()));
        Action::Continue
    });
    let mut peer = stage.accept(&listener);
    outcomes.next(&mut stage).expect("it listens");
    peer.end();
    stage.closed_by("peer");
}

pub(crate) fn a_resolver_that_panics_fails_its_attempt<W: World>(seed: u64) {
    let panics = |_: &str, _| -> io::Result<Vec<SocketAddr>> { panic!("expected: it panics") };
    let mut stage = Stage::<W>::start(seed, Engine::builder().resolver(panics), echo);
    let outcomes = Outcomes::default();
    for _ in 0..6 {
        outcomes.connect(&stage, host(), nothing);
        let error = outcomes.next(&mut stage).expect_err("the resolver panics");
        assert!(matches!(error, ConnectError::Unresolved { .. }), "{error}");
    }
    assert_eq!(stage.panics(), 0, "it is no callback");
}

pub(crate) fn an_address_is_not_resolved<W: World>(seed: u64) {
    let (mut stage, _) = start::<W>(seed, Engine::builder());
    let (listener, address) = stage.world.listen();
    let outcomes = Outcomes::default();
    let connect = Connect::to_host(address.ip().to_string(), address.port());
    assert_eq!(connect, Connect::to(address));
    outcomes.connect(&stage, connect, nothing);
    let mut peer = stage.accept(&listener);
    outcomes.next(&mut stage).expect("it listens");
    peer.end();
    stage.closed_by("peer");
}

pub(crate) fn a_host_counts_as_one_connection<W: World>(seed: u64) {
    let (mut stage, resolve) = start::<W>(seed, Engine::builder().max_connections(1));
    let (_silence, first) = stage.world.silent();
    let (listener, second) = stage.world.listen();
    resolve(&[first, second]);
    let outcomes = Outcomes::default();
    let connect = host().attempt_delay(Duration::from_millis(10));
    outcomes.connect(&stage, connect.clone(), nothing);
    outcomes.connect(&stage, connect, nothing);
    let error = outcomes.next(&mut stage).expect_err("the first one has the place");
    assert!(matches!(error, ConnectError::LimitReached { .. }), "{error}");
    outcomes.next(&mut stage).expect("it listens");
    let mut peer = stage.accept(&listener);
    assert_eq!((stage.engine().connections(), stage.engine().stats().refused), (1, 1));
    peer.end();
    stage.closed_by("peer");
}

pub(crate) fn a_race_ends_when_the_engine_stops<W: World>(seed: u64) {
    let (mut stage, resolve) = start::<W>(seed, Engine::builder());
    let silent = [stage.world.silent(), stage.world.silent(), stage.world.silent()];
    resolve(&silent.each_ref().map(|(_, address)| *address));
    let outcomes = Outcomes::default();
    outcomes.connect(&stage, host().attempt_delay(Duration::from_millis(20)), nothing);
    stage.until("it has begun", |world| world.engine().connections() == 1);
    stage.pass(Duration::from_millis(30));
    assert_eq!(stage.stop(DEADLINE), Ok(()));
    stage.wait_for_the_end();
    let ended = std::mem::take(&mut *outcomes.all());
    assert!(matches!(ended[..], [Err(ConnectError::Stopped { .. })]), "{ended:?}");
}

/// Some addresses answer, some refuse and some are silent, in any order. If one answers, it comes
/// to a connection, if one is silent, to a timeout, and else each refusal is told.
pub(crate) fn the_outcome_is_that_of_the_best_address<W: World>(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut stage, resolve) = start::<W>(seed, Engine::builder());
    let (mut known, mut silences, mut listeners) = (Vec::new(), Vec::<Box<dyn Any>>::new(), vec![]);
    for _ in 0..rng.usize(1..8) {
        match rng.u8(0..4) {
            0 => {
                let (listener, address) = stage.world.listen();
                listeners.push(listener);
                known.push(address);
            }
            1 => {
                let (silence, address) = stage.world.silent();
                silences.push(silence);
                known.push(address);
            }
            // No port may be chosen twice, so those that refuse have their own addresses.
            _ => known.push(SocketAddr::from(([127, 0, 1, 1 + known.len() as u8], 1))),
        }
    }
    resolve(&known);
    let outcomes = Outcomes::default();
    let connect = host().attempt_delay(Duration::from_millis(rng.u64(0..30)));
    outcomes.connect(&stage, connect.timeout(Duration::from_millis(800)), nothing);
    match outcomes.next(&mut stage) {
        Ok(_) => assert!(!listeners.is_empty()),
        Err(ConnectError::TimedOut { .. }) => assert!(listeners.is_empty() && !silences.is_empty()),
        Err(ConnectError::AllFailed { failures, .. }) => {
            assert!(listeners.is_empty() && silences.is_empty());
            let failed: Vec<_> = failures.into_iter().map(|(address, _)| address).collect();
            assert_eq!(failed.len(), known.len());
        }
        Err(error) => panic!("another error: {error}"),
    }
    // A handshake that was given up may have reached its listener; the other end is dropped here.
    drop(listeners);
    if stage.engine().connections() == 1 {
        stage.closed();
    }
}
