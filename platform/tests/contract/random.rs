//! Random operations of engine and far ends on the simulation, in random order, with random faults.
//! A model keeps what each side sent; nothing else may arrive, and in the end all of it must have.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::time::Duration;

use fastrand::Rng;
use millstream_platform::driver::sim::{Faults, SimListener, SimPeer};
use millstream_platform::driver::{Polling, Streams, Token};

use crate::engine::{Engine, pattern};
use crate::for_seeds;
use crate::world::Simulated;

const SEEDS: u64 = 2000;
const OPERATIONS: usize = 300;
const CONNECTIONS: usize = 40;

#[test]
fn every_byte_and_every_rule_holds() {
    for_seeds(0..SEEDS, |seed| {
        run(seed);
    });
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for_seeds(0..100, |seed| assert_eq!(run(seed), run(seed)));
}

/// A connection as the model sees it.
struct Pair {
    far: Option<SimPeer>,
    /// While the engine has it.
    token: Option<Token>,
    accepted: bool,
    /// Where the engine connects to, if it makes the connection.
    listener: Option<SimListener>,
    address: millstream_platform::address::Address,
    from_far: Way,
    from_engine: Way,
}

/// One direction.
#[derive(Default)]
struct Way {
    sent: Vec<u8>,
    shut: bool,
    /// What the far end received; the engine keeps for itself what it received.
    got: Vec<u8>,
}

struct Model {
    engine: Engine<Simulated>,
    pairs: Vec<Pair>,
    /// The attempts to connect that were not given up, and whether somebody listens.
    attempts: BTreeMap<Token, bool>,
    rng: Rng,
    faults: Faults,
    history: DefaultHasher,
}

/// Runs one history; returns a digest of it.
fn run(seed: u64) -> u64 {
    let mut rng = Rng::with_seed(seed);
    let faults = faults(&mut rng);
    let engine = Engine::new(Simulated::new(seed, faults));
    let history = DefaultHasher::new();
    let mut model =
        Model { engine, pairs: Vec::new(), attempts: BTreeMap::new(), rng, faults, history };
    for _ in 0..OPERATIONS {
        model.operate();
        model.check();
    }
    model.settle();
    model.check_settled();
    let Model { engine, history, .. } = model;
    engine.finish();
    history.finish()
}

fn faults(rng: &mut Rng) -> Faults {
    match rng.u32(0..4) {
        0 => Faults::none(),
        1 => Faults::harmless(),
        2 => Faults::some(),
        _ => Faults {
            window: rng.usize(1..200),
            delay: Duration::from_micros(rng.u64(0..20_000)),
            short: rng.f64(),
            would_block: 0.9 * rng.f64(),
            lend: rng.f64(),
            reorder: rng.bool(),
            late: 1.0,
            accept: 0.9 * rng.f64(),
            abort: 0.3 * rng.f64(),
            refuse: 0.0,
            ignore: 0.0,
            reset: 0.05 * rng.f64(),
            ..Faults::none()
        },
    }
}

impl Model {
    fn operate(&mut self) {
        match self.rng.u32(0..24) {
            0..5 => drop(self.engine.step()),
            5..9 => self.engine.wait(Duration::from_millis(self.rng.u64(0..5))),
            9..11 => self.engine.turn(Duration::from_millis(5)),
            11 if self.rng.bool() => self.attempt(),
            11 => self.connect(),
            12 => self.engine.resume_accepting(),
            13 => self.engine.driver.waker().wake(),
            14..19 => self.far_operates(),
            _ => self.engine_operates(),
        }
    }

    fn connect(&mut self) {
        if self.pairs.len() < CONNECTIONS {
            let far = self
                .engine
                .world
                .network
                .connect(&self.engine.address.socket_addr().unwrap())
                .unwrap();
            let address = far.address();
            let (from_far, from_engine) = (Way::default(), Way::default());
            let far = Some(far);
            self.pairs.push(Pair {
                far,
                token: None,
                accepted: false,
                listener: None,
                address: address.into(),
                from_far,
                from_engine,
            });
        }
    }

    /// The engine begins to connect, to somebody or to nobody, or gives an attempt up.
    fn attempt(&mut self) {
        let Model { engine, pairs, rng, attempts, .. } = self;
        let pending: Vec<Token> =
            attempts.keys().copied().filter(|a| engine.is_trying(*a)).collect();
        if let Some(given_up) = rng.choice(pending).filter(|_| rng.u32(0..4) == 0) {
            attempts.remove(&given_up);
            return engine.give_up(given_up);
        }
        if pairs.len() >= CONNECTIONS {
            return;
        }
        // A port that nobody else gets, also when nobody listens there any more.
        let port = 20_000 + pairs.len() as u16;
        let listener = engine.world.network.listen((Ipv4Addr::LOCALHOST, port).into()).unwrap();
        let address = listener.address().into();
        let answers = rng.u32(0..5) > 0;
        let attempt = Token { index: pairs.len() as u32, generation: 1 };
        let listener = Some(listener).filter(|_| answers);
        engine.attempt(attempt, address, None);
        attempts.insert(attempt, answers);
        let (from_far, from_engine) = (Way::default(), Way::default());
        let (far, token, accepted) = (None, None, false);
        pairs.push(Pair { far, token, accepted, listener, address, from_far, from_engine });
    }

    fn far_operates(&mut self) {
        let Some(pair) = self.rng.choice(&mut self.pairs) else { return };
        let Some(far) = &mut pair.far else { return };
        match self.rng.u32(0..40) {
            0 => {
                far.shutdown();
                pair.from_far.shut = true;
            }
            1 => pair.far.take().unwrap().close(),
            2 => pair.far.take().unwrap().reset(),
            3..20 => pair.from_engine.got.extend(far.receive()),
            _ => {
                let bytes = pattern(self.rng.usize(1..400), self.rng.u64(..));
                let sent = if pair.from_far.shut { 0 } else { far.send(&bytes).unwrap_or(0) };
                pair.from_far.sent.extend(&bytes[..sent]);
            }
        }
    }

    fn engine_operates(&mut self) {
        let Model { engine, pairs, rng, .. } = self;
        let Some(pair) = rng.choice(pairs) else { return };
        let Some(token) = pair.token else { return };
        let connection = engine.at(token);
        let (paused, drained) = (connection.paused, connection.queue.is_empty());
        if connection.failed || rng.u32(0..40) == 0 {
            let unsent = connection.queue.len();
            pair.from_engine.sent.truncate(pair.from_engine.sent.len() - unsent);
            engine.close(token, rng.u32(0..4) == 0);
            pair.token = None;
            return;
        }
        match rng.u32(0..20) {
            0..4 => engine.pause(token, !paused),
            4 if drained && !pair.from_engine.shut => {
                engine.driver.shutdown(token);
                pair.from_engine.shut = true;
            }
            5 => drop(engine.rooms.rooms.insert(token, vec![0; rng.usize(1..300)])),
            6 => drop(engine.rooms.rooms.remove(&token)),
            _ if !pair.from_engine.shut => {
                let bytes = pattern(rng.usize(1..400), rng.u64(..));
                pair.from_engine.sent.extend(&bytes);
                match rng.u32(0..3) {
                    0 => engine.queue(token, &bytes),
                    1 => engine.write(token, &bytes),
                    _ => engine.offer(token, &bytes, rng.usize(0..=bytes.len())),
                }
            }
            _ => {}
        }
    }

    /// Nothing has arrived that was not sent.
    fn check(&mut self) {
        let Model { engine, pairs, history, .. } = self;
        for pair in &mut *pairs {
            if let Some(far) = pair.listener.as_ref().and_then(SimListener::accept) {
                pair.far = Some(far);
            }
            if !pair.accepted {
                pair.token = engine.find(pair.address);
                pair.accepted = pair.token.is_some();
            }
            if let Some(token) = pair.token {
                assert!(pair.from_far.sent.starts_with(&engine.at(token).received));
            }
            assert!(pair.from_engine.sent.starts_with(&pair.from_engine.got));
        }
        engine.heard().hash(history);
        pairs.iter().map(|pair| pair.from_engine.got.len()).sum::<usize>().hash(history);
    }

    /// No more faults and no more operations: everything arrives.
    fn settle(&mut self) {
        self.engine.world.network.set_faults(Faults::none());
        for pair in &self.pairs {
            if let Some(token) = pair.token {
                self.engine.pause(token, false);
                if !self.engine.at(token).failed {
                    self.engine.flush(token);
                }
            }
        }
        let mut idle = 0;
        for round in 0.. {
            if idle == 3 {
                break;
            }
            assert!(round < 10_000, "it never comes to rest");
            let before = (self.engine.heard(), self.engine.connections.len());
            self.engine.turn(Duration::from_millis(100));
            self.engine.resume_accepting();
            let mut came = false;
            self.check();
            for pair in &mut self.pairs {
                let bytes = pair.far.as_mut().map(SimPeer::receive).unwrap_or_default();
                came |= !bytes.is_empty();
                pair.from_engine.got.extend(bytes);
            }
            let after = (self.engine.heard(), self.engine.connections.len());
            let quiet = self.engine.world.network.is_quiet() && before == after && !came;
            idle = if quiet { idle + 1 } else { 0 };
        }
        self.check();
    }

    fn check_settled(&self) {
        for (attempt, answers) in &self.attempts {
            let outcome = self.engine.attempts[attempt].outcome;
            let answered = outcome.is_some() || self.faults.ignore > 0.0;
            assert!(answered, "{attempt:?} came to nothing");
            let made = matches!(outcome, Some(Ok(_)));
            assert!(!made || *answers, "{attempt:?} came to nobody");
        }
        for pair in &self.pairs {
            self.check_pair(pair);
        }
    }

    fn check_pair(&self, pair: &Pair) {
        let connection = pair.token.map(|token| self.engine.at(token));
        let all_went = pair.from_engine.got == pair.from_engine.sent;
        let all_came = connection.is_none_or(|c| c.received == pair.from_far.sent);
        match (&pair.far, connection) {
            (Some(far), Some(connection)) => {
                let broken = connection.failed || far.was_reset();
                assert!(!broken || self.faults.reset + self.faults.abort > 0.0, "nobody reset it");
                assert!(broken || (all_went && all_came), "bytes are missing");
                assert!(broken || connection.ended == pair.from_far.shut);
                assert!(broken || far.ended() == pair.from_engine.shut);
            }
            (None, Some(connection)) => {
                assert!(connection.failed || (connection.ended && all_came), "the end is missing");
            }
            (Some(far), None) => {
                assert!(far.was_reset() || (far.ended() && all_went), "the far end is missing it");
            }
            (None, None) => {}
        }
    }
}
