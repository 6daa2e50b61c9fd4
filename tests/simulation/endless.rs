//! Handlers that always have something to do: a run ends in spite of them.

use std::time::Duration;

use millstream::sim::{Faults, Simulation};
use millstream::{Action, Conn, ConnId, Engine, EventHandler, Reactor, ReactorAction, TimerId};

const SECOND: Duration = Duration::from_secs(1);

fn start<H: EventHandler>(handler: H) -> Simulation<H> {
    Simulation::new(1, Faults::none(), Engine::builder(), handler).expect("it starts")
}

/// How often a timer of zero length has fired, a connection's and the reactor's.
#[derive(Default)]
struct Ticking {
    fired: [u32; 2],
}

impl EventHandler for Ticking {
    type State = ();

    fn on_boot(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        reactor.set_timer(Duration::ZERO, 0);
        ReactorAction::Continue
    }

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.set_timer(Duration::ZERO, 0);
        Action::Continue
    }

    fn on_timer(&mut self, conn: &mut Conn<'_, Self>, timer: TimerId, _value: u64) -> Action {
        self.fired[0] += 1;
        conn.reset_timer(timer, Duration::ZERO);
        Action::Continue
    }

    fn on_reactor_timer(
        &mut self,
        reactor: &mut Reactor<'_, Self>,
        timer: TimerId,
        _value: u64,
    ) -> ReactorAction {
        self.fired[1] += 1;
        reactor.reset_timer(timer, Duration::ZERO);
        ReactorAction::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let [own, reactors] = self.fired;
        conn.output.write(format!("{own:>4} {reactors:>4}").as_bytes());
        conn.input.take_all();
        Action::Continue
    }
}

#[test]
fn a_timer_of_zero_length_fires_once_a_millisecond() {
    let mut simulation = start(Ticking::default());
    let mut peer = simulation.connect().expect("it listens");
    assert!(simulation.run(SECOND));
    simulation.send_all(&mut peer, b"?").expect("it is received");
    let fired = simulation.receive_exact(&mut peer, 9).expect("it replies");
    let fired = String::from_utf8(fired).expect("it is text");
    let fired: Vec<u32> = fired.split_whitespace().map(|n| n.parse().expect("a number")).collect();
    assert!(fired.iter().all(|fired| (999..=1001).contains(fired)), "{fired:?}");
}

/// Wakes itself, or the connection before it, whenever it is called.
#[derive(Default)]
struct Restless {
    before: Option<ConnId>,
}

impl EventHandler for Restless {
    type State = Option<ConnId>;

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        *conn.state = self.before.replace(conn.id());
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.input.take_all();
        let own = conn.id();
        let Some(other) = *conn.state else { return conn.remote().wake().into() };
        let back = move |_: &mut Self, conn: &mut Conn<'_, Self>| {
            conn.neighbours().wake(own);
            Action::Continue
        };
        conn.neighbours().run(other, back).into()
    }
}

fn ends_at_its_limit(connections: usize) {
    let mut simulation = start(Restless::default());
    let mut peers: Vec<_> =
        (0..connections).map(|_| simulation.connect().expect("it listens")).collect();
    assert!(simulation.run(SECOND));
    let last = peers.last_mut().expect("there is one");
    simulation.send_all(last, b"go").expect("it is received");
    let before = simulation.now();
    assert!(!simulation.run_until(100 * SECOND, || false));
    assert_eq!(simulation.now() - before, 100 * SECOND);
}

#[test]
fn who_wakes_itself_again_and_again_holds_up_no_run() {
    ends_at_its_limit(1);
}

#[test]
fn neighbours_that_wake_each_other_hold_up_no_run() {
    ends_at_its_limit(2);
}
