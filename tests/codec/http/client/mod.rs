//! The client: on a simulated network, where the test is the server, and on sockets.

mod ending;
mod hostile;
mod pools;
mod random;
mod redirects;
mod requests;
mod sockets;
mod streams;
mod times;

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use millstream::Builder;
use millstream::codec::Framed;
use millstream::http::{
    HttpCalling, HttpClient, HttpClientBuilder, HttpError, HttpPool, HttpRequest, HttpResponse,
};
use millstream::sim::{Faults, SimListener, SimPeer, Simulation};

/// More virtual time than anything here takes.
const LONG: Duration = Duration::from_secs(1_000);
const SECOND: Duration = Duration::from_secs(1);

/// A whole response.
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A client on a simulated network, and where its servers listen. At its end nothing is left.
struct World {
    simulation: Simulation<Framed<HttpPool>>,
    client: HttpClient,
    listener: SimListener,
}

impl World {
    fn new(builder: HttpClientBuilder) -> Self {
        World::with(0, Faults::none(), builder)
    }

    fn with(seed: u64, faults: Faults, builder: HttpClientBuilder) -> Self {
        let (client, pools) = builder.build_on_engine().expect("it is configured");
        let pool = pools.pool();
        let simulation = Simulation::new(seed, faults, Builder::default(), pool);
        let simulation = simulation.expect("it starts");
        let listener = simulation.listen(([10, 0, 0, 2], 80).into()).expect("the address is free");
        World { simulation, client, listener }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listener.address())
    }

    fn request(&self, method: &str, path: &str) -> HttpRequest {
        HttpRequest::new(method, &self.url(path)).expect("a request")
    }

    fn get(&self, path: &str) -> HttpCalling {
        self.client.start(self.request("GET", path))
    }

    /// The next connection.
    fn accept(&mut self) -> SimPeer {
        let mut peer = None;
        let listener = &self.listener;
        self.simulation.run_until(LONG, || {
            peer = listener.accept();
            peer.is_some()
        });
        peer.expect("the client connects")
    }

    /// The next connection, and what its request begins with.
    fn accept_request(&mut self) -> (SimPeer, String) {
        let mut peer = self.accept();
        let head = self.read_head(&mut peer);
        (peer, head)
    }

    /// The head of a request, without what every one has.
    fn read_head(&mut self, peer: &mut SimPeer) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let byte = self.simulation.receive_exact(peer, 1).expect("a request comes");
            head.push(char::from(byte[0]));
        }
        let host = format!("Host: {}\r\n", self.listener.address().ip());
        assert!(head.contains(&host), "{head}");
        head.replace(" HTTP/1.1\r\n", "\r\n").replace(&host, "")
    }

    fn send(&mut self, peer: &mut SimPeer, bytes: impl AsRef<[u8]>) {
        self.simulation.send_all(peer, bytes.as_ref()).expect("the client receives");
    }

    /// What comes of a request.
    fn outcome(&mut self, calling: HttpCalling) -> Result<HttpResponse, HttpError> {
        let (mut calling, mut outcome) = (calling, None);
        self.simulation.run_until(LONG, || {
            outcome = poll(&mut calling);
            outcome.is_some()
        });
        outcome.expect("each request ends")
    }

    /// The content of a response.
    fn body(&mut self, calling: HttpCalling) -> String {
        let response = self.outcome(calling).expect("a response comes");
        String::from_utf8(response.body.to_vec()).expect("it is text")
    }

    /// Why there is none.
    fn error(&mut self, calling: HttpCalling) -> String {
        self.outcome(calling).expect_err("no response comes").to_string()
    }

    /// Runs until the client has ended a connection; returns what came on it before.
    fn ends(&mut self, peer: &mut SimPeer) -> Vec<u8> {
        let mut received = Vec::new();
        let ended = self.simulation.run_until(SECOND, || {
            received.extend(peer.receive());
            peer.ended() || peer.was_reset()
        });
        assert!(ended, "the connection stays open");
        received
    }

    fn connections(&self) -> (usize, u64) {
        let stats = self.client.stats();
        (stats.connections, stats.connected)
    }
}

/// Ends a connection as a server does that is orderly, or that isn't.
fn leave(peer: SimPeer, is_reset: bool) {
    match is_reset {
        true => peer.reset(),
        false => peer.close(),
    }
}

/// What came of a request by now.
fn poll(calling: &mut HttpCalling) -> Option<Result<HttpResponse, HttpError>> {
    match Pin::new(calling).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        let _ = self.simulation.stop(SECOND); // The test may have stopped it.
        let simulation = &mut self.simulation;
        assert!(!simulation.run(LONG), "the engine stops");
        let stats = self.client.stats();
        assert_eq!((stats.connections, stats.waiting), (0, 0), "something is left");
        assert_eq!(simulation.open_connections(), 0, "connections are left");
    }
}
