//! Many requests to a server that answers at random, on a network where much goes wrong: each ends
//! once, with the response to itself or an error, and nothing is left.

use std::collections::HashMap;
use std::time::Duration;

use fastrand::Rng;
use millstream::http::{HttpCalling, HttpClient};
use millstream::sim::{Faults, SimPeer};

use super::{World, poll};
use crate::common::seeds::for_each_seed;

/// A connection as the server has it.
struct Served {
    peer: SimPeer,
    received: Vec<u8>,
    /// What it still has to send.
    unsent: Vec<u8>,
    closes: bool,
}

/// A response to this request, or what stands in for one; and whether the connection closes behind
/// it.
fn answer(rng: &mut Rng, path: &str, is_hostile: bool) -> (Vec<u8>, bool) {
    let body = format!("{path}{}", "x".repeat(rng.usize(..3000)));
    let whole = match rng.u8(..4) {
        0 => format!("HTTP/1.1 200 OK\r\n\r\n{body}"),
        1 => format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        ),
        2 => format!(
            "HTTP/1.1 100 A\r\n\r\nHTTP/1.1 404 A\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ),
        _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
    };
    let closes = whole.starts_with("HTTP/1.1 200 OK\r\n\r\n") || rng.u8(..6) == 0;
    let mut bytes = whole.into_bytes();
    if is_hostile && rng.u8(..5) == 0 {
        match rng.u8(..4) {
            0 => bytes.truncate(rng.usize(..bytes.len())),
            1 => bytes.extend(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"),
            2 => bytes = b"\x16\x03\x01 what is this?".to_vec(),
            _ => bytes.clear(),
        }
        return (bytes, true);
    }
    (bytes, closes)
}

impl Served {
    /// Takes whole requests, and sends what it can; `false` once it is over.
    fn step(&mut self, rng: &mut Rng, is_hostile: bool) -> bool {
        self.received.extend(self.peer.receive());
        let is_idle = self.unsent.is_empty() && !self.closes;
        if is_idle && let Some(end) = find(&self.received, b"\r\n\r\n") {
            let head = String::from_utf8(self.received.drain(..end + 4).collect()).expect("text");
            assert!(self.received.is_empty(), "it does not pipeline");
            let path = head.split(' ').nth(1).expect("a target");
            (self.unsent, self.closes) = answer(rng, path, is_hostile);
        }
        let most = self.unsent.len().min(rng.usize(1..2000));
        match self.peer.send(&self.unsent[..most]) {
            Ok(sent) => drop(self.unsent.drain(..sent)),
            Err(_) => return false,
        }
        !(self.peer.was_reset() || self.peer.ended() || (self.unsent.is_empty() && self.closes))
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

fn scenario(seed: u64, faults: Faults, is_hostile: bool) {
    let mut rng = Rng::with_seed(seed);
    let builder = HttpClient::builder()
        .connections(rng.usize(1..4))
        .max_idle(rng.usize(..3))
        .idle_timeout(Duration::from_secs(20))
        .timeout(Duration::from_secs(60));
    let mut world = World::with(seed, faults, builder);
    let mut callings: HashMap<usize, HttpCalling> = HashMap::new();
    let (mut served, mut begun, mut ended, mut dropped) = (Vec::<Served>::new(), 0, 0, 0);
    let mut steps = 0;
    while ended + dropped < 30 {
        steps += 1;
        assert!(steps < 200_000, "{ended} ended, {dropped} were dropped");
        if begun < 30 && rng.u8(..4) == 0 {
            callings.insert(begun, world.get(&format!("/{begun}/")));
            begun += 1;
        }
        if is_hostile && rng.u8(..200) == 0 && begun > 0 {
            dropped += usize::from(callings.remove(&rng.usize(..begun)).is_some());
        }
        while let Some(peer) = world.listener.accept() {
            let (received, unsent) = (Vec::new(), Vec::new());
            served.push(Served { peer, received, unsent, closes: false });
        }
        served.retain_mut(|served| served.step(&mut rng, is_hostile));
        world.simulation.turn(Duration::from_millis(100));
        callings.retain(|number, calling| {
            let Some(outcome) = poll(calling) else { return true };
            ended += 1;
            match outcome {
                Ok(response) => {
                    let path = format!("/{number}/");
                    // One that ends with its connection may have been cut off.
                    let length = if is_hostile { response.body.len() } else { path.len() };
                    let begin = &path.as_bytes()[..length.min(path.len())];
                    assert!(response.body.starts_with(begin), "it is another's");
                }
                Err(error) => assert!(is_hostile, "{error}"),
            }
            false
        });
    }
}

#[test]
fn each_request_has_its_own_response() {
    for_each_seed(60, |seed| scenario(seed, Faults::harmless(), false));
}

#[test]
fn each_request_ends_whatever_the_server_and_the_network_do() {
    for_each_seed(60, |seed| scenario(seed, Faults::some(), true));
}
