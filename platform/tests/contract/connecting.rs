//! Rule 9, and what the others say of attempts to connect.

use std::io::ErrorKind;
use std::net::Ipv4Addr;

use millstream_platform::address::Address;

use millstream_platform::driver::sim::Faults;
use millstream_platform::driver::{Streams, Token};

use crate::engine::{Engine, LONG, SHORT, pattern};
use crate::world::{Far, Loopback, Simulated, World};

/// Both attempts have a name that a connection or the listener of the engine has, too.
const FIRST: Token = Token { index: 0, generation: 1 };
const SECOND: Token = Token { index: 1, generation: 1 };

/// Lets the far end accept.
fn accepted<W: World>(engine: &mut Engine<W>, listener: &W::Listener) -> W::Far {
    let mut far = None;
    engine.until("the far end accepts", |_| {
        far = W::accept(listener);
        far.is_some()
    });
    far.unwrap()
}

pub(crate) fn an_attempt_comes_to_a_connection<W: World>(mut engine: Engine<W>) {
    let (listener, address) = engine.world.listen();
    for attempt in [FIRST, SECOND] {
        engine.attempt(attempt, address, None);
        let token = engine.outcome(attempt).unwrap();
        let mut far = accepted(&mut engine, &listener);
        let (_, link) = engine.driver.parts(None);
        assert_eq!(link.local_addr(token).unwrap(), far.address());
        engine.hear_all(token, &mut far, &pattern(500, 1));
        let bytes = pattern(5000, 2);
        engine.write(token, &bytes);
        assert!(engine.tell_all(&mut far, bytes.len()) == bytes);
        far.shutdown();
        engine.until("the end came", |engine| engine.at(token).ended);
    }
    engine.quiet();
    engine.finish();
}

pub(crate) fn an_engine_connects_to_itself<W: World>(mut engine: Engine<W>) {
    let address = engine.address;
    engine.attempt(FIRST, address, None);
    let caller = engine.outcome(FIRST).unwrap();
    engine.until("accepted", |engine| engine.connections.len() == 2);
    let callee = *engine.connections.keys().find(|token| **token != caller).unwrap();
    for (from, to) in [(caller, callee), (callee, caller)] {
        engine.write(from, b"hello");
        engine.until("received", |engine| engine.at(to).received == b"hello");
    }
    engine.finish();
}

pub(crate) fn an_attempt_is_refused_where_nobody_listens<W: World>(mut engine: Engine<W>) {
    let (listener, address) = engine.world.listen();
    drop(listener);
    engine.attempt(FIRST, address, None);
    assert_eq!(engine.outcome(FIRST), Err(ErrorKind::ConnectionRefused));
    engine.quiet();
    engine.finish();
}

pub(crate) fn an_attempt_comes_from_the_address_that_it_was_given<W: World>(mut engine: Engine<W>) {
    let (listener, address) = engine.world.listen();
    let from = Address::from((Ipv4Addr::new(127, 0, 0, 2), 0));
    engine.attempt(FIRST, address, Some(from));
    engine.outcome(FIRST).unwrap();
    let caller = accepted(&mut engine, &listener).address();
    assert_eq!(caller.ip(), from.ip());
    assert_ne!(caller.port(), Some(0));
    engine.finish();
}

pub(crate) fn an_attempt_that_was_given_up_is_not_heard_of<W: World>(mut engine: Engine<W>) {
    let (listener, address) = engine.world.listen();
    // Before it is reaped, and after.
    engine.attempt(FIRST, address, None);
    engine.give_up(FIRST);
    engine.quiet();
    engine.attempt(FIRST, address, None);
    engine.world.pass();
    engine.world.pass();
    engine.wait(LONG);
    engine.give_up(FIRST);
    // Its place is used again at once.
    let successor = Token { generation: 2, ..FIRST };
    engine.attempt(successor, address, None);
    engine.outcome(successor).unwrap();
    assert_eq!(engine.connections.len(), 1);
    drop(listener);
    engine.finish();
}

pub(crate) fn calls_for_an_attempt_that_ended_do_nothing<W: World>(mut engine: Engine<W>) {
    let (_listener, address) = engine.world.listen();
    engine.attempt(FIRST, address, None);
    let token = engine.outcome(FIRST).unwrap();
    for attempt in [FIRST, Token { generation: 7, ..FIRST }, token] {
        engine.driver.give_up(attempt);
    }
    let (_, link) = engine.driver.parts(None);
    link.local_addr(token).unwrap();
    engine.quiet();
    engine.finish();
}

pub(crate) fn a_reset_right_after_an_attempt_is_told_once<W: World>(mut engine: Engine<W>) {
    let (listener, address) = engine.world.listen();
    engine.attempt(FIRST, address, None);
    engine.wait(SHORT);
    accepted(&mut engine, &listener).reset();
    // Whether it still came to a connection depends on who was faster.
    if let Ok(token) = engine.outcome(FIRST) {
        engine.until("it failed", |engine| engine.at(token).failed);
    }
    engine.quiet();
    engine.finish();
}

pub(crate) fn attempts_are_dropped_with_their_driver<W: World>(mut engine: Engine<W>) {
    let (_listener, address) = engine.world.listen();
    engine.attempt(FIRST, address, None);
    engine.finish();
}

/// Nobody listens, but the two ends of the attempt are the same socket.
pub(crate) fn a_socket_that_meets_itself_is_refused(mut engine: Engine<Loopback>) {
    let (listener, address) = engine.world.listen();
    drop(listener);
    engine.attempt(FIRST, address, Some(address));
    assert_eq!(engine.outcome(FIRST), Err(ErrorKind::ConnectionRefused));
    engine.finish();
}

pub(crate) fn the_network_refuses_ignores_and_resets(mut engine: Engine<Simulated>) {
    let (_listener, address) = engine.world.listen();
    engine.world.network.set_faults(Faults { refuse: 1.0, ..Faults::harmless() });
    engine.attempt(FIRST, address, None);
    assert_eq!(engine.outcome(FIRST), Err(ErrorKind::ConnectionRefused));
    engine.world.network.set_faults(Faults { ignore: 1.0, ..Faults::harmless() });
    engine.attempt(SECOND, address, None);
    engine.quiet();
    engine.give_up(SECOND);
    engine.world.network.set_faults(Faults { abort: 1.0, ..Faults::harmless() });
    let third = Token { index: 2, generation: 1 };
    engine.attempt(third, address, None);
    let token = engine.outcome(third).expect("it is answered before it is reset");
    engine.until("it failed", |engine| engine.at(token).failed);
    engine.finish();
}
