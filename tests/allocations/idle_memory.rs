//! What an idle connection costs: of the heap, per connection, with 10,000 of them. Buffers are
//! leased only while there is something in them.
//!
//! The clients live in another process.

use crate::ALLOCATOR;
use crate::common::alone::alone;
use crate::common::crowd::{self, Crowd, Order};
use crate::common::{TestEngine, eventually};
use millstream::Engine;

const CONNECTIONS: usize = 10_000;
/// The most bytes of the heap that a connection may take, beyond the handler's own state.
/// mio's poll back end keeps more memory for each socket.
const MOST: usize = if cfg!(mio_unsupported_force_poll_poll) { 512 } else { 240 };

/// How many bytes of the heap are allocated now.
fn live() -> isize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated.wrapping_sub(stats.bytes_deallocated).cast_signed()
}

/// The price of each connection, which must not be too high.
#[allow(clippy::print_stdout, reason = "the figure is what the test is for")]
fn assert_cheap(when: &str, before: isize) {
    let each = (live() - before) / CONNECTIONS as isize;
    println!("{each} bytes of heap for each of {CONNECTIONS} idle connections {when}");
    assert!(each <= MOST as isize, "{each} bytes of heap for each idle connection {when}");
}

#[test]
fn an_idle_connection_takes_little_of_the_heap() {
    alone(|| {
        const NAME: &str = "idle_memory::an_idle_connection_takes_little_of_the_heap";
        if crowd::was_crowd() || !crowd::has_files(NAME, CONNECTIONS + 100) {
            return;
        }
        let engine = TestEngine::echo(Engine::builder().reactors(2).backlog(4096));
        let mut crowd = [Crowd::start(NAME, CONNECTIONS, &engine.addresses())];
        let before = live();
        crowd::order(&mut crowd, Order::Connect);
        eventually("all are open", || opened(&engine) == CONNECTIONS as u64);
        assert_cheap("that never sent anything", before);
        crowd::order(&mut crowd, Order::Echo);
        eventually("all are idle again", || leased(&engine) == 0);
        assert_cheap("that have echoed", before);
        crowd::order(&mut crowd, Order::Close);
        eventually("all are closed", || engine.connections() == 0);
    });
}

fn opened(engine: &Engine) -> u64 {
    engine.stats().reactors.iter().map(|reactor| reactor.accepted).sum()
}

fn leased(engine: &Engine) -> usize {
    let reactors = engine.stats().reactors;
    reactors.iter().map(|reactor| reactor.rings_leased + reactor.output_queues_leased).sum()
}
