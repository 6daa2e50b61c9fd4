//! WebSocket: its codec, and the server on a simulated network and on sockets.

mod client;
mod closing;
mod deflate;
mod frames;
mod handshakes;
mod remotes;
mod served;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use millstream::codec::Framed;
use millstream::http::{Exchange, Handler, HttpServer, HttpServing};
use millstream::sim::{Faults, SimPeer, Simulation};
use millstream::websocket::{
    CloseCode, Message, MessageBuffers, MessageLimits, Socket, SocketEnd, WebSocketCodec,
    WebSocketHandler, WebSocketRemote, WebSocketRole, WebSocketServer,
};
use millstream::{Builder, Input, OutputBuffer};

use crate::check::websocket::{Told, tell};

const SECOND: Duration = Duration::from_secs(1);

/// A handshake that is taken.
const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: example.com\r\nConnection: keep-alive, Upgrade\r\n\
     Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// What a handler tells the test.
enum Event {
    Opened(WebSocketRemote<Echo>),
    Pong(Vec<u8>),
    Ended(String),
}

/// Sends back what comes; some texts are commands.
struct Echo(Sender<Event>);

impl WebSocketHandler for Echo {
    fn on_open(&mut self, socket: &mut Socket<'_, Self>) {
        let _ = self.0.send(Event::Opened(socket.remote())); // The test may be over.
    }

    fn on_text(&mut self, socket: &mut Socket<'_, Self>, text: &str) {
        let sent = match text {
            "close" => {
                socket.close(CloseCode::NORMAL, "as asked");
                assert!(socket.send_text("late").is_err() && !socket.is_open());
                return;
            }
            "panic" => panic!("as asked"),
            "ping" => socket.ping(b"are you there?"),
            "protocol" => {
                let protocol = socket.subprotocol().unwrap_or("none").to_owned();
                socket.send_text(&protocol)
            }
            text => socket.send_text(text),
        };
        sent.expect("it is open");
    }

    fn on_binary(&mut self, socket: &mut Socket<'_, Self>, bytes: &[u8]) {
        socket.send_binary(bytes).expect("it is open");
    }

    fn on_pong(&mut self, _socket: &mut Socket<'_, Self>, bytes: &[u8]) {
        let _ = self.0.send(Event::Pong(bytes.to_vec()));
    }

    fn on_close(&mut self, socket: &mut Socket<'_, Self>, end: &SocketEnd<'_>) {
        assert!(socket.send_text("late").is_err());
        let _ = self.0.send(Event::Ended(format!("{end:?}")));
    }
}

/// Serves WebSockets at any path.
fn serving(server: WebSocketServer) -> (Framed<HttpServing<impl Handler>>, Receiver<Event>) {
    let (sender, events) = channel();
    let http = HttpServer::new();
    let accept = move |exchange: Exchange<'_>| server.accept(exchange, Echo(sender.clone()));
    (http.serve(accept), events)
}

/// A server of WebSockets on a simulated network.
struct World<H: Handler> {
    sim: Simulation<Framed<HttpServing<H>>>,
    events: Receiver<Event>,
}

fn world(server: WebSocketServer) -> World<impl Handler> {
    world_with(0, Faults::none(), Builder::default(), server)
}

fn world_with(
    seed: u64,
    faults: Faults,
    builder: Builder,
    server: WebSocketServer,
) -> World<impl Handler> {
    let (serving, events) = serving(server);
    let sim = Simulation::new(seed, faults, builder.reactors(1), serving).expect("it starts");
    World { sim, events }
}

impl<H: Handler> World<H> {
    /// A client after its handshake.
    fn client(&mut self) -> Client {
        let mut client = Client::new(self.sim.connect().expect("it listens"));
        self.sim.send_all(&mut client.peer, HANDSHAKE.as_bytes()).expect("it is received");
        let head = self.head(&mut client.peer);
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        client
    }

    /// The head of a response.
    fn head(&mut self, peer: &mut SimPeer) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.sim.receive_exact(peer, 1).expect("a response comes"));
        }
        String::from_utf8(head).expect("it is text")
    }

    fn send(&mut self, client: &mut Client, message: Message<'_>) {
        let bytes = client.encoded(message);
        self.sim.send_all(&mut client.peer, &bytes).expect("it is received");
    }

    /// What comes within a time.
    fn receive_for(&mut self, client: &mut Client, time: Duration) -> Vec<Told> {
        self.sim.run(time);
        let mut told = client.receive();
        // What the network holds comes when there is room again.
        let mut before = 0;
        while before != client.came {
            before = client.came;
            self.sim.run(Duration::from_millis(20));
            told.extend(client.receive());
        }
        told
    }

    fn receive(&mut self, client: &mut Client) -> Vec<Told> {
        self.receive_for(client, SECOND)
    }

    /// How the next WebSocket ends that does.
    fn end(&mut self) -> String {
        let ended = |event| match event {
            Event::Ended(end) => Some(end),
            _ => None,
        };
        self.events.try_iter().find_map(ended).expect("one has ended")
    }

    fn remote(&mut self) -> WebSocketRemote<Echo> {
        let opened = |event| match event {
            Event::Opened(remote) => Some(remote),
            _ => None,
        };
        self.events.try_iter().find_map(opened).expect("one has opened")
    }
}

/// The other end of a WebSocket.
struct Client {
    peer: SimPeer,
    codec: WebSocketCodec,
    unread: Vec<u8>,
    /// How many bytes came.
    came: usize,
}

impl Client {
    fn new(peer: SimPeer) -> Self {
        let mut limits = MessageLimits::default();
        (limits.frame, limits.message) = (1 << 26, 1 << 26);
        let codec = WebSocketCodec::new(WebSocketRole::Client, limits);
        Client { peer, codec, unread: Vec::new(), came: 0 }
    }

    fn encoded(&mut self, message: Message<'_>) -> Vec<u8> {
        let mut output = OutputBuffer::new();
        self.codec.encode(message, &mut output.output()).expect("it can be sent");
        output.take()
    }

    /// What has come.
    fn receive(&mut self) -> Vec<Told> {
        let received = self.peer.receive();
        self.came += received.len();
        self.unread.extend(received);
        let (mut input, mut buffers) = (Input::from(&self.unread[..]), MessageBuffers::new());
        let mut told = Vec::new();
        while let Some(message) = self.codec.decode(&mut input, &mut buffers).expect("messages") {
            told.push(tell(message));
        }
        let taken = input.taken();
        self.unread.drain(..taken);
        told
    }
}

fn text(text: &str) -> Told {
    Told::Text(text.to_owned())
}

fn closed(code: u16, reason: &str) -> Told {
    Told::Close(Some((code, reason.to_owned())))
}
