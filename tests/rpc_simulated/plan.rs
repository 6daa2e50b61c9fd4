//! What is to happen, all of it drawn from a seed before it begins.

use std::time::Duration;

use fastrand::Rng;

/// What a method does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Now,
    InPlace,
    /// Its reply comes after a while.
    Later(Duration),
    /// Its reply never comes.
    Never,
    /// Its reply is dropped.
    Dropped,
    Fails,
    /// There is none.
    Missing,
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Method::Now => "sim.Sim/now",
            Method::InPlace => "sim.Sim/in_place",
            Method::Later(_) => "sim.Sim/later",
            Method::Never => "sim.Sim/never",
            Method::Dropped => "sim.Sim/dropped",
            Method::Fails => "sim.Sim/fails",
            Method::Missing => "sim.Sim/missing",
        }
    }

    fn draw(rng: &mut Rng) -> Self {
        match rng.u8(..12) {
            0..4 => Method::Now,
            4 => Method::InPlace,
            5..8 => Method::Later(Duration::from_millis(rng.u64(..200))),
            8 => Method::Never,
            9 => Method::Dropped,
            10 => Method::Fails,
            _ => Method::Missing,
        }
    }
}

/// A call that the client is to make.
#[derive(Clone, Debug)]
pub struct Planned {
    pub at: Duration,
    pub method: Method,
    pub one_way: bool,
    pub timeout: Duration,
    /// This long after its start, if it is open then.
    pub cancel_after: Option<Duration>,
    /// How long its body is.
    pub filler: usize,
}

impl Planned {
    /// It has all the time there is.
    pub fn is_patient(&self) -> bool {
        self.timeout >= PATIENT && self.cancel_after.is_none()
    }
}

/// More than anything else takes.
const PATIENT: Duration = Duration::from_secs(60);

/// Bytes that are put between two frames of an end, as if it had sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bogus {
    /// Of a kind that is not known.
    Kind,
    /// Responses and cancels that name no call, and pongs that nobody asked for.
    Strangers,
    /// Requests from the server, or a go-away from the client.
    WrongWay,
    /// Pings.
    Pings,
    /// A frame that is too long, or has a malformed head.
    Refused,
    /// What was sent last, once more; from a client it breaks the rules.
    Again,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub calls: Vec<Planned>,
    pub max_calls: usize,
    pub max_in_flight: usize,
    pub server_timeout: Option<Duration>,
    pub keepalive: bool,
    pub go_away_at: Option<Duration>,
    pub half_close_at: Option<Duration>,
    /// After this many bytes from the client, or from the server, the connection is cut.
    pub cut_after: [Option<usize>; 2],
    /// What the client seems to send, and the server.
    pub bogus: [Option<Bogus>; 2],
    pub longest_piece: usize,
    pub longest_delay: Duration,
}

impl Plan {
    pub fn draw(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed);
        let longest_piece = *rng.choice(&[1, 20, 1_000, 100_000]).expect("a choice");
        let most_calls = if longest_piece == 1 { 6 } else { 40 };
        let longest_body = if longest_piece < 1_000 { 100 } else { 20_000 };
        let calls = (0..rng.usize(1..=most_calls)).map(|_| call(rng, longest_body)).collect();
        let half_close_at = one_in(10, rng).then(|| millis(rng, 300));
        let mut plan = Plan {
            seed,
            calls,
            max_calls: if one_in(4, rng) { rng.usize(1..4) } else { 1_000 },
            max_in_flight: if one_in(4, rng) { rng.usize(..4) } else { 1_000 },
            server_timeout: one_in(5, rng).then(|| millis(rng, 100)),
            keepalive: half_close_at.is_none() && one_in(4, rng),
            go_away_at: one_in(8, rng).then(|| millis(rng, 300)),
            half_close_at,
            cut_after: [(); 2].map(|()| one_in(8, rng).then(|| rng.usize(..3_000))),
            bogus: [(); 2].map(|()| one_in(5, rng).then(|| bogus(rng))),
            longest_piece,
            longest_delay: millis(rng, 10),
        };
        plan.calls.sort_by_key(|call| call.at);
        plan
    }

    /// Whether each call that has the time for it gets what its method answers.
    pub fn is_reliable(&self) -> bool {
        let from_client = [Some(Bogus::Again), Some(Bogus::Refused)];
        self.cut_after == [None; 2]
            && self.go_away_at.is_none()
            && self.server_timeout.is_none()
            && self.max_in_flight >= self.calls.len()
            && !from_client.contains(&self.bogus[0])
            // The server's ping waits on the way behind much that it has not sent, and it is not
            // patient enough for that.
            && !(self.keepalive && self.bogus[1] == Some(Bogus::Refused))
    }
}

fn call(rng: &mut Rng, longest_body: usize) -> Planned {
    Planned {
        at: millis(rng, 300),
        method: Method::draw(rng),
        one_way: one_in(8, rng),
        timeout: if rng.bool() { PATIENT } else { millis(rng, 150) + Duration::from_micros(1) },
        cancel_after: one_in(6, rng).then(|| millis(rng, 100)),
        filler: if one_in(20, rng) { rng.usize(..=longest_body) } else { rng.usize(..50) },
    }
}

fn bogus(rng: &mut Rng) -> Bogus {
    let all = [
        Bogus::Kind,
        Bogus::Strangers,
        Bogus::WrongWay,
        Bogus::Pings,
        Bogus::Refused,
        Bogus::Again,
    ];
    *rng.choice(&all).expect("a choice")
}

fn one_in(count: u8, rng: &mut Rng) -> bool {
    rng.u8(..count) == 0
}

fn millis(rng: &mut Rng, most: u64) -> Duration {
    Duration::from_millis(rng.u64(..most))
}
