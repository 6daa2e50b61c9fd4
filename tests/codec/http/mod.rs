//! HTTP/1.1: requests as the codec takes them, and the server, on a simulated network and on
//! sockets. They are here because HTTP is a codec and what serves it, as the others.

mod access;
mod answering;
mod client;
#[cfg(feature = "deflate")]
mod compressing;
mod continuing;
mod ending;
mod files;
mod json;
mod layers;
mod leaving;
mod pipelines;
mod receiving;
mod refusing;
mod requests;
mod responding;
mod responses;
mod routing;
mod sockets;
mod streams;
mod table;
mod times;
mod upgrade;

use std::time::Duration;

use millstream::Builder;
use millstream::codec::Framed;
use millstream::http::{Handler, HttpServing};
use millstream::sim::{Faults, SimPeer, Simulation};

/// More virtual time than anything here takes.
const LONG: Duration = Duration::from_secs(1_000);

/// A server on a simulated network.
struct World<H: Handler>(Simulation<Framed<HttpServing<H>>>);

impl<H: Handler> World<H> {
    fn new(seed: u64, serving: Framed<HttpServing<H>>) -> Self {
        World::with(seed, Faults::none(), Builder::default(), serving)
    }

    fn with(seed: u64, faults: Faults, builder: Builder, serving: Framed<HttpServing<H>>) -> Self {
        World(Simulation::new(seed, faults, builder.reactors(1), serving).expect("it starts"))
    }

    fn connect(&self) -> SimPeer {
        self.0.connect().expect("it listens")
    }

    /// All that comes on a new connection for these bytes, up to its end, without the dates.
    fn ask(&mut self, bytes: impl AsRef<[u8]>) -> String {
        let mut peer = self.connect();
        self.0.send_all(&mut peer, bytes.as_ref()).expect("the server receives");
        self.read_to_end(&mut peer)
    }

    /// All that still comes, up to the connection's end, without the dates.
    fn read_to_end(&mut self, peer: &mut SimPeer) -> String {
        text(&self.0.receive_to_end(peer).expect("the connection ends"))
    }

    /// What has come when nothing more happens for as long as this, without the dates.
    fn read_for(&mut self, peer: &mut SimPeer, time: Duration) -> String {
        self.0.run(time);
        text(&peer.receive())
    }
}

/// What was received, without dates, which are those of the real clock.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).expect("it is text");
    let lines = text.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: "));
    lines.collect()
}

/// The response with this status line and content.
fn response(status: &str, fields: &str, content: &str) -> String {
    let length = content.len();
    format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\r\n{content}")
}

/// How the server says that something went wrong, before it closes.
fn refusal(status: &str) -> String {
    let fields = "Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\n";
    response(status, fields, &format!("{status}\n"))
}
