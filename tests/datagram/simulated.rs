//! Datagrams on the simulated network: late, twice, out of order or never, from a seed.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use millstream::sim::{Faults, Simulation};
use millstream::{Action, Conn, Datagram, DatagramSocket, Engine, EventHandler, OpenDatagram};

use crate::common::seeds::for_each_seed;

/// Echoes, and writes down what happens.
struct Noted(Rc<RefCell<Vec<String>>>);

impl EventHandler for Noted {
    type State = ();

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        unreachable!("there are no connections")
    }

    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        self.0.borrow_mut().push(format!("{} {:?}", datagram.from, datagram.bytes));
        socket.reply(&datagram, datagram.bytes).into()
    }

    fn on_datagram_error(
        &mut self,
        _socket: &mut DatagramSocket<'_, Self>,
        error: &io::Error,
    ) -> Action {
        self.0.borrow_mut().push(error.to_string());
        Action::Continue
    }
}

const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 53);
const REQUESTS: u32 = 200;

/// A client that asks until it is answered; returns what the server saw.
fn ask_until_answered(seed: u64, faults: Faults) -> Vec<String> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let handler = Noted(Rc::clone(&seen));
    let builder = Engine::builder();
    let mut simulation = Simulation::new(seed, faults, builder, handler).expect("it starts");
    let reactors = simulation.engine().reactors::<Noted>().expect("it is the handler");
    let how = OpenDatagram::on(SERVER);
    reactors.open_datagram(0, how, |_, _, socket| socket.map(drop).into()).expect("it runs");
    simulation.run(Duration::ZERO);
    simulation.turn(Duration::ZERO);
    let client = simulation.bind_datagrams(([10, 0, 0, 2], 0).into()).expect("it is free");
    let mut open: BTreeSet<u32> = (0..REQUESTS).collect();
    let mut rounds = 0;
    while !open.is_empty() {
        rounds += 1;
        assert!(rounds < 50, "seed {seed}: {} requests are unanswered", open.len());
        for number in &open {
            client.send_to(SocketAddr::from(SERVER), &number.to_be_bytes()).expect("it is short");
        }
        simulation.run(Duration::from_secs(1));
        while let Some((from, bytes)) = client.receive() {
            assert_eq!(from, SocketAddr::from(SERVER), "seed {seed}");
            open.remove(&u32::from_be_bytes(bytes.try_into().expect("four bytes")));
        }
    }
    assert_eq!(simulation.open_datagram_sockets(), 1, "seed {seed}");
    simulation.stop(Duration::from_secs(1)).expect("it runs");
    assert!(!simulation.run(Duration::from_secs(2)), "seed {seed}");
    assert_eq!(simulation.open_datagram_sockets(), 0, "seed {seed}");
    let stats = simulation.engine().stats();
    assert_eq!(stats.reactors[0].datagram_sockets, 0, "seed {seed}");
    assert_eq!(stats.reactors[0].datagrams_in as usize, seen.borrow().len(), "seed {seed}");
    seen.take()
}

/// What a network does to datagrams is seen, and everything is answered in the end. The same seed
/// has the same history.
#[test]
fn everything_is_answered_whatever_the_network_does() {
    let strikes = RefCell::new([0; 3]);
    for_each_seed(20, |seed| {
        let seen = ask_until_answered(seed, Faults::some());
        assert_eq!(seen, ask_until_answered(seed, Faults::some()), "seed {seed} has two histories");
        let first = seen.iter().take(REQUESTS as usize).collect::<BTreeSet<_>>();
        let all = seen.iter().collect::<BTreeSet<_>>();
        let [twice, missed, disordered] = &mut *strikes.borrow_mut();
        *twice += usize::from(seen.len() > all.len());
        *missed += usize::from(first.len() < REQUESTS as usize);
        *disordered += usize::from(!seen.is_sorted());
    });
    assert!(strikes.take().iter().all(|strikes| *strikes > 0), "a fault never struck");
    let orderly = ask_until_answered(1, Faults::none());
    assert_eq!(orderly.len(), REQUESTS as usize);
}
