//! As many connections in one process as there may be open files, nearly: all open, all are served,
//! all close, and nothing is left.

use crate::common::alone::alone;
use crate::common::crowd::{self, Crowd, Order};
use crate::common::{TestEngine, eventually};
use millstream::{CloseReason, Engine};

const CONNECTIONS: usize = 19_000;
/// With the listeners, and what else the engine and the test need.
const FILES: usize = CONNECTIONS + 100;

#[test]
fn nineteen_thousand_connections_are_opened_served_and_closed() {
    const NAME: &str =
        "many_connections::nineteen_thousand_connections_are_opened_served_and_closed";
    if crowd::was_crowd() || !crowd::has_files(NAME, FILES) {
        return;
    }
    alone(|| serve_all(NAME)); // It leaves no descriptors to the other tests.
}

fn serve_all(name: &'static str) {
    let builder = Engine::builder().reactors(2).backlog(4096);
    // Several addresses, so that the clients' ports suffice.
    let builder = builder.listen("127.0.0.2:0").listen("127.0.0.3:0").listen("127.0.0.4:0");
    let engine = TestEngine::echo(builder);
    let addresses = engine.addresses();
    let (first, second) = addresses.split_at(2);
    let mut crowds =
        [first, second].map(|addresses| Crowd::start(name, CONNECTIONS / 2, addresses));
    crowd::order(&mut crowds, Order::Connect);
    eventually("all are open", || count(&engine).opened == CONNECTIONS as u64);
    assert_eq!(engine.connections(), CONNECTIONS);
    crowd::order(&mut crowds, Order::Echo);
    crowd::order(&mut crowds, Order::Close);
    eventually("all are closed", || engine.connections() == 0);
    let all = CONNECTIONS as u64;
    let bytes = all * crowd::MESSAGE as u64;
    let expected = Counts { opened: all, closed_by_peer: all, bytes_in: bytes, bytes_out: bytes };
    assert_eq!(count(&engine), expected);
    let stats = engine.stats();
    assert_eq!((stats.refused, stats.accept_errors), (0, 0));
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    opened: u64,
    closed_by_peer: u64,
    bytes_in: u64,
    bytes_out: u64,
}

fn count(engine: &Engine) -> Counts {
    let mut counts = Counts::default();
    let by_peer = CloseReason::NAMES.iter().position(|name| *name == "peer").expect("a reason");
    for reactor in engine.stats().reactors {
        counts.opened += reactor.accepted;
        counts.closed_by_peer += reactor.closed[by_peer];
        counts.bytes_in += reactor.bytes_in;
        counts.bytes_out += reactor.bytes_out;
        assert_eq!(reactor.panics, 0);
    }
    counts
}
