//! The client, with scripted servers on a simulated network, and with our own server on sockets.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, Sender, channel};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millstream::codec::Framed;
use millstream::http::{Exchange, HttpServer};
use millstream::sim::{Faults, SimListener, SimPeer, Simulation};
use millstream::websocket::{
    Close, CloseCode, Message, MessageBuffers, MessageLimits, PerMessageDeflate, Socket, SocketEnd,
    WebSocketClient, WebSocketCodec, WebSocketConnectError, WebSocketConnector, WebSocketHandler,
    WebSocketRemote, WebSocketRequest, WebSocketRequestError, WebSocketRole, WebSocketServer,
};
use millstream::{Builder, Connect, Engine, Input, Listen, OutputBuffer, TimerId};
use sha1_smol::Sha1;

use super::served::python_with_websockets;
use super::{Echo, SECOND, closed, text};
use crate::check::websocket::{Told, tell};
use crate::common::tls::IDENTITY;
use crate::common::{TestEngine, receive};

/// What a client's handler tells the test.
enum Seen {
    Opened(WebSocketRemote<Guest>),
    Failed(String),
    Message(Told),
    Ended(String),
}

/// A client that tells all, and sends its greeting at the beginning.
struct Guest {
    seen: Sender<Seen>,
    greeting: Vec<String>,
}

impl Guest {
    fn tell(&self, seen: Seen) {
        let _ = self.seen.send(seen); // The test may be over.
    }
}

impl WebSocketHandler for Guest {
    fn on_open(&mut self, socket: &mut Socket<'_, Self>) {
        self.tell(Seen::Opened(socket.remote()));
        for text in &self.greeting {
            socket.send_text(text).expect("it is open");
        }
    }

    fn on_failed(&mut self, error: &WebSocketConnectError) {
        self.tell(Seen::Failed(error.to_string()));
    }

    fn on_text(&mut self, socket: &mut Socket<'_, Self>, text: &str) {
        let protocol = socket.subprotocol().map(|name| format!("{name}: "));
        self.tell(Seen::Message(Told::Text(protocol.unwrap_or_default() + text)));
    }

    fn on_binary(&mut self, _socket: &mut Socket<'_, Self>, bytes: &[u8]) {
        self.tell(Seen::Message(Told::Binary(bytes.to_vec())));
    }

    fn on_timer(&mut self, _socket: &mut Socket<'_, Self>, _timer: TimerId, _value: u64) {
        self.tell(Seen::Failed("a timer that the handler has not set".to_owned()));
    }

    fn on_close(&mut self, _socket: &mut Socket<'_, Self>, end: &SocketEnd<'_>) {
        self.tell(Seen::Ended(format!("{end:?}")));
    }
}

type Connector = Framed<WebSocketConnector<Guest>>;

/// A client on a simulated network, and where it connects to.
struct Net {
    sim: Simulation<Connector>,
    listener: SimListener,
    seen: Receiver<Seen>,
    sender: Sender<Seen>,
}

/// The other end: a script.
struct Server {
    peer: SimPeer,
    codec: WebSocketCodec,
    unread: Vec<u8>,
}

impl Net {
    fn new(faults: Faults) -> Self {
        let connector = WebSocketClient::new().connector();
        let sim = Simulation::new(0, faults, Builder::default().reactors(1), connector);
        let sim = sim.expect("it starts");
        let listener = sim.listen(SocketAddr::from(([10, 0, 0, 2], 0))).expect("there is a port");
        let (sender, seen) = channel();
        Net { sim, listener, seen, sender }
    }

    fn connect(&self, client: &WebSocketClient, request: &WebSocketRequest) {
        let reactors = self.sim.engine().reactors::<Connector>().expect("its handler");
        let guest = Guest { seen: self.sender.clone(), greeting: Vec::new() };
        let connect = Connect::to(self.listener.address());
        client.connect(&reactors, 0, connect, request, guest).expect("it runs");
    }

    /// Lets a client connect; returns its request, too.
    fn asked(&mut self, client: &WebSocketClient, request: &WebSocketRequest) -> (Server, String) {
        self.connect(client, request);
        self.sim.run(SECOND);
        let mut peer = self.listener.accept().expect("it connects");
        let request = String::from_utf8(peer.receive()).expect("it is text");
        let codec = WebSocketCodec::new(WebSocketRole::Server, MessageLimits::default());
        (Server { peer, codec, unread: Vec::new() }, request)
    }

    /// A client whose request is accepted, with these lines besides those that have to be there.
    fn open(&mut self, client: &WebSocketClient, lines: &str) -> Server {
        let request = request().subprotocols(["one", "two"]).expect("tokens");
        let (mut server, request) = self.asked(client, &request);
        self.send(&mut server, accepting(&request, lines));
        let Some(Seen::Opened(_)) = self.seen() else { panic!("it is open") };
        server
    }

    fn send(&mut self, server: &mut Server, bytes: impl AsRef<[u8]>) {
        self.sim.send_all(&mut server.peer, bytes.as_ref()).expect("it is received");
        self.sim.run(SECOND);
    }

    fn seen(&self) -> Option<Seen> {
        self.seen.try_recv().ok()
    }

    /// How the next one fails, or ends.
    fn end(&self) -> String {
        let end = |seen| match seen {
            Seen::Failed(end) | Seen::Ended(end) => Some(end),
            _ => None,
        };
        self.seen.try_iter().find_map(end).expect("one has ended")
    }
}

impl Server {
    fn receive(&mut self) -> Vec<Told> {
        self.unread.extend(self.peer.receive());
        let (mut input, mut buffers) = (Input::from(&self.unread[..]), MessageBuffers::new());
        let mut told = Vec::new();
        while let Some(message) = self.codec.decode(&mut input, &mut buffers).expect("masked") {
            told.push(tell(message));
        }
        let taken = input.taken();
        self.unread.drain(..taken);
        told
    }

    fn encoded(&mut self, message: Message<'_>) -> Vec<u8> {
        let mut output = OutputBuffer::new();
        self.codec.encode(message, &mut output.output()).expect("it can be sent");
        output.take()
    }
}

fn request() -> WebSocketRequest {
    WebSocketRequest::new("ws://server.example:8080/chat?room=1").expect("it is one")
}

fn key_of(request: &str) -> &str {
    let mut lines = request.lines();
    lines.find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("there is one")
}

fn accepting(request: &str, lines: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key_of(request).as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = STANDARD.encode(hash.digest().bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: keep-alive, Upgrade\r\n\
         upgrade: WebSocket\r\nsec-websocket-accept: {accept}\r\n{lines}\r\n"
    )
}

#[test]
fn what_a_client_asks_for() {
    let mut net = Net::new(Faults::none());
    let request = request().subprotocols(["one", "two"]).expect("tokens");
    let request = request.field("Cookie", "a=b").expect("a field");
    let (_one, first) = net.asked(&WebSocketClient::new(), &request);
    let (_two, second) = net.asked(&WebSocketClient::new(), &request);
    let key = key_of(&first);
    assert_eq!(
        first,
        format!(
            "GET /chat?room=1 HTTP/1.1\r\nHost: server.example:8080\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\
             Sec-WebSocket-Protocol: one, two\r\nCookie: a=b\r\n\r\n"
        )
    );
    assert_eq!(STANDARD.decode(key).expect("it is Base64").len(), 16);
    assert_ne!(key, key_of(&second), "each key is new");
}

#[test]
fn which_urls_can_be_asked() {
    for (url, expected, is_secure) in [
        ("ws://a", "GET / HTTP/1.1\r\nHost: a\r\n", false),
        ("WS://a.b?c", "GET /?c HTTP/1.1\r\nHost: a.b\r\n", false),
        ("WSS://a.b?c", "", true), // Which is not asked without TLS.
        ("ws://[::1]:9/x/%20", "GET /x/%20 HTTP/1.1\r\nHost: [::1]:9\r\n", false),
    ] {
        let request = WebSocketRequest::new(url).expect(url);
        assert_eq!(request.is_secure(), is_secure);
        let (_server, asked) = Net::new(Faults::none()).asked(&WebSocketClient::new(), &request);
        assert!(asked.starts_with(expected) && asked.is_empty() == is_secure, "{asked}");
    }
    let standard = |url| WebSocketRequest::new(url).expect(url).destination();
    assert_eq!(standard("ws://a/"), Connect::to_host("a", 80));
    assert_eq!(standard("wss://[::1]/"), Connect::to_host("::1", 443));
    for url in [
        "http://a/",
        "a/",
        "ws:a",
        "ws://",
        "ws:///x",
        "ws://a:/",
        "ws://a:x/",
        "ws://a:70000/",
        "ws://u@a/",
        "ws://a/#b",
        "ws://a/b c",
        "ws://a/\r\nX: y",
        "ws://a\r\nX: y/",
        "ws://[::1/",
        "ws://[::1]9/",
        "ws://a/ä",
    ] {
        let error = WebSocketRequestError::Url { url: url.to_owned() };
        assert_eq!(WebSocketRequest::new(url).err(), Some(error));
    }
    for names in [&["a b"][..], &[""], &["a", "a"], &["ä"]] {
        assert!(request().subprotocols(names.iter().copied()).is_err(), "{names:?}");
    }
    for (name, value) in [("Host", "x"), ("sec-websocket-key", "x"), ("Upgrade", "x"), ("A", "\n")]
    {
        assert!(request().field(name, value).is_err(), "{name}");
    }
}

#[test]
fn an_answer_comes_in_whatever_pieces() {
    let client = WebSocketClient::new().handshake_timeout(1_000 * SECOND);
    for piece in [1, 7, usize::MAX] {
        let mut net = Net::new(Faults::none());
        let (mut server, asked) = net.asked(&client, &request());
        let early = server.encoded(Message::Text("early"));
        let answer = [accepting(&asked, "X: y\r\n").as_bytes(), &early].concat();
        for piece in answer.chunks(piece) {
            net.send(&mut server, piece);
        }
        let Some(Seen::Opened(remote)) = net.seen() else { panic!("it is open") };
        let Some(Seen::Message(told)) = net.seen() else { panic!("it is there") };
        assert_eq!(told, text("early"));
        remote.run(|_, socket| socket.send_text("hellö").expect("open")).expect("open");
        remote.send(&millstream::websocket::PreparedMessage::binary(b"b")).expect("open");
        net.sim.run(SECOND);
        assert_eq!(server.receive(), [text("hellö"), Told::Binary(b"b".into())]);
        let ping = server.encoded(Message::Ping(b"?"));
        net.send(&mut server, ping);
        assert_eq!(server.receive(), [Told::Pong(b"?".into())]);
    }
}

#[test]
fn an_answer_that_is_wrong_is_refused() {
    let extensions =
        "the field Sec-WebSocket-Extensions of the server's answer is missing or wrong";
    let field = |name| format!("the field {name} of the server's answer is missing or wrong");
    let without = |from: &'static str, to: &'static str| {
        move |asked: &str| {
            let answer = accepting(asked, "");
            assert!(answer.contains(from));
            answer.replacen(from, to, 1)
        }
    };
    let with = |lines: &'static str| move |asked: &str| accepting(asked, lines);
    type Answer = Box<dyn Fn(&str) -> String>;
    let cases: Vec<(Answer, String)> = vec![
        (
            Box::new(without("101 Switching Protocols", "200 OK")),
            "the server answered 200 OK".into(),
        ),
        (
            Box::new(without("101 Switching Protocols", "401 No")),
            "the server answered 401 Unauthorized".into(),
        ),
        (Box::new(without("HTTP/1.1", "HTTP/1.0")), "the server's answer is not HTTP/1.1".into()),
        (Box::new(without("HTTP/1.1", "ICY")), "the server's answer is not HTTP/1.1".into()),
        (Box::new(without("upgrade: WebSocket\r\n", "")), field("Upgrade")),
        (Box::new(without("WebSocket\r\n", "h2c\r\n")), field("Upgrade")),
        (Box::new(with("Upgrade: websocket\r\n")), field("Upgrade")),
        (Box::new(without("keep-alive, Upgrade", "keep-alive")), field("Connection")),
        (Box::new(without("sec-websocket-accept", "x")), field("Sec-WebSocket-Accept")),
        (
            Box::new(without("sec-websocket-accept: ", "sec-websocket-accept: x")),
            field("Sec-WebSocket-Accept"),
        ),
        (Box::new(with("Sec-WebSocket-Accept: x\r\n")), field("Sec-WebSocket-Accept")),
        (Box::new(with("Sec-WebSocket-Protocol: three\r\n")), field("Sec-WebSocket-Protocol")),
        (Box::new(with("Sec-WebSocket-Protocol: \r\n")), field("Sec-WebSocket-Protocol")),
        (
            Box::new(with("Sec-WebSocket-Protocol: one\r\nSec-WebSocket-Protocol: two\r\n")),
            field("Sec-WebSocket-Protocol"),
        ),
        (Box::new(with("Sec-WebSocket-Extensions: permessage-deflate\r\n")), extensions.into()),
        (Box::new(with("Sec-WebSocket-Extensions: x\r\n")), extensions.into()),
        (Box::new(with("X: y\r\n")), String::new()), // It is right.
        (
            Box::new(|asked| accepting(asked, &format!("X: {}\r\n", "y".repeat(16 * 1024)))),
            "the head of the server's answer has more than 16384 bytes".into(),
        ),
        (
            Box::new(|_| "HTTP/1.1 101 x\r\nX: ".to_owned() + &"y".repeat(17 * 1024)),
            "the head of the server's answer has more than 16384 bytes".into(),
        ),
    ];
    for (answer, expected) in cases {
        let mut net = Net::new(Faults::none());
        let request = request().subprotocols(["one", "two"]).expect("tokens");
        let (mut server, asked) = net.asked(&WebSocketClient::new(), &request);
        let answer = answer(&asked);
        net.send(&mut server, &answer);
        match net.seen() {
            Some(Seen::Failed(error)) => assert_eq!(error, expected, "{answer}"),
            Some(Seen::Opened(_)) => assert_eq!("", expected, "{answer}"),
            _ => panic!("nothing is told: {answer}"),
        }
        assert_eq!(server.peer.ended() || server.peer.was_reset(), !expected.is_empty());
        assert!(net.seen().is_none(), "nothing else is told");
    }
}

/// Nor are the fields of the request, which may be secrets.
#[test]
fn what_wants_tls_is_not_asked_without() {
    let mut net = Net::new(Faults::none());
    let secure = WebSocketRequest::new("wss://server/").expect("it is a URL");
    let (server, asked) = net.asked(&WebSocketClient::new(), &secure);
    assert_eq!(asked, "");
    assert_eq!(net.end(), "the URL wants TLS, which the connection does not have");
    assert!(server.peer.ended());
}

#[test]
fn no_answer_is_an_end_too() {
    let mut net = Net::new(Faults::none());
    let client = WebSocketClient::new().handshake_timeout(3 * SECOND);
    let (mut server, asked) = net.asked(&client, &request());
    let answer = accepting(&asked, "");
    net.send(&mut server, &answer[..answer.len() - 2]);
    assert!(net.seen().is_none());
    net.sim.run(3 * SECOND);
    assert_eq!(net.end(), "the server did not answer within 3s");
    assert!(server.peer.ended());
    let (server, _) = net.asked(&client, &request());
    drop(server);
    net.sim.run(SECOND);
    let end = net.end();
    assert!(end.starts_with("the connection ended before the server's answer: "), "{end}");
    let Net { sim, listener, .. } = &net;
    let nowhere = Connect::to(SocketAddr::from(([10, 0, 0, 2], listener.address().port() + 1)));
    let reactors = sim.engine().reactors::<Connector>().expect("its handler");
    let guest = Guest { seen: net.sender.clone(), greeting: Vec::new() };
    client.connect(&reactors, 0, nowhere, &request(), guest).expect("it runs");
    net.sim.run(SECOND);
    let end = net.end();
    assert!(end.starts_with("cannot connect to 10.0.0.2:"), "{end}");
}

#[test]
fn a_server_that_breaks_the_protocol_is_told_how() {
    for (bytes, code, reason) in [
        (&b"\x81\x80\0\0\0\0"[..], 1002, "a server's frame is masked"),
        (b"\xc1\x00", 1002, "a frame has the reserved bits 0x40"),
        (b"\x81\x01\xff", 1007, "a text is not UTF-8"),
    ] {
        let mut net = Net::new(Faults::none());
        let mut server = net.open(&WebSocketClient::new(), "");
        net.send(&mut server, bytes);
        assert_eq!(server.receive(), [closed(code, reason)]);
        assert!(server.peer.ended());
        assert!(net.end().starts_with("Failed("));
    }
}

fn close(code: CloseCode) -> Message<'static> {
    Message::Close(Some(Close { code, reason: "" }))
}

/// RFC 6455, section 7.1.1: it is the server that ends the connection.
#[test]
fn a_client_waits_for_the_server_to_end() {
    let client = WebSocketClient::new().close_timeout(5 * SECOND);
    let both = "Closed { code: Some(CloseCode(1000)), reason: \"\" }";
    for server_begins in [false, true] {
        for server_ends in [false, true] {
            let mut net = Net::new(Faults::none());
            let (mut server, asked) = net.asked(&client, &request());
            net.send(&mut server, accepting(&asked, ""));
            let Some(Seen::Opened(remote)) = net.seen() else { panic!("it is open") };
            if !server_begins {
                remote.close(CloseCode::NORMAL, "").expect("it is open");
                net.sim.run(SECOND);
                assert_eq!(server.receive(), [closed(1000, "")]);
            }
            let reply = server.encoded(close(CloseCode::NORMAL));
            net.send(&mut server, reply);
            if server_begins {
                assert_eq!(server.receive(), [closed(1000, "")]);
            }
            assert!(!server.peer.ended() && net.seen().is_none(), "it waits");
            match server_ends {
                true => server.peer.shutdown(),
                false => drop(net.sim.run(5 * SECOND)),
            }
            net.sim.run(SECOND);
            assert!(server.peer.ended() && !server.peer.was_reset());
            assert_eq!(net.end(), both);
        }
    }
}

#[test]
fn a_client_that_stops_says_so() {
    let mut net = Net::new(Faults::none());
    let mut server = net.open(&WebSocketClient::new(), "");
    let (asked, _) = net.asked(&WebSocketClient::new(), &request());
    net.sim.stop(20 * SECOND).expect("it runs");
    net.sim.run(SECOND);
    assert_eq!(server.receive(), [closed(1001, "")]);
    let reply = server.encoded(close(CloseCode::GOING_AWAY));
    net.send(&mut server, reply);
    server.peer.shutdown();
    drop((server, asked));
    assert!(!net.sim.run(20 * SECOND), "the engine has ended");
    assert!(net.end().starts_with("the connection ended"), "that of the request came first");
    assert!(net.end().starts_with("Closed"));
}

/// RFC 7692, section 7.1: what is offered, and which answers to it are right.
#[test]
fn what_a_client_agrees_on() {
    let all = PerMessageDeflate::new().send_context(true).receive_context(true);
    let small = all.send_window(10).receive_window(11);
    for (deflate, offer, answers, wrong) in [
        (
            PerMessageDeflate::new(),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
             client_max_window_bits",
            &[
                "permessage-deflate; server_no_context_takeover",
                "permessage-deflate; client_max_window_bits=9; server_no_context_takeover; \
                 server_max_window_bits=8",
            ][..],
            &["permessage-deflate"][..],
        ),
        (
            all,
            "permessage-deflate; client_max_window_bits",
            &["permessage-deflate", "permessage-deflate; client_no_context_takeover"],
            &[
                "permessage-deflate, permessage-deflate",
                "permessage-deflate; client_max_window_bits",
                "permessage-deflate; client_max_window_bits=8",
                "permessage-deflate; server_max_window_bits=16",
                "permessage-deflate; server_max_window_bits",
                "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
                "permessage-deflate; unknown",
                "permessage-bzip2",
                "permessage-deflate;",
            ],
        ),
        (
            small,
            "permessage-deflate; server_max_window_bits=11; client_max_window_bits=10",
            &["permessage-deflate; server_max_window_bits=10"],
            &["permessage-deflate", "permessage-deflate; server_max_window_bits=12"],
        ),
    ] {
        let answers = answers.iter().map(|it| (it, true)).chain(wrong.iter().map(|it| (it, false)));
        for (answer, is_right) in answers.chain([(&"", true)]) {
            let mut net = Net::new(Faults::none());
            let client = WebSocketClient::new().deflate(deflate);
            let (mut server, asked) = net.asked(&client, &request());
            let told = asked.lines().find_map(|it| it.strip_prefix("Sec-WebSocket-Extensions: "));
            assert_eq!(told, Some(offer));
            let lines = match *answer {
                "" => String::new(),
                answer => format!("Sec-WebSocket-Extensions: {answer}\r\n"),
            };
            net.send(&mut server, accepting(&asked, &lines));
            match net.seen() {
                Some(Seen::Opened(_)) => assert!(is_right, "{answer}"),
                Some(Seen::Failed(error)) => assert!(!is_right, "{answer}: {error}"),
                _ => panic!("nothing is told: {answer}"),
            }
        }
    }
}

#[test]
fn the_chosen_protocol_is_told() {
    let mut net = Net::new(Faults::harmless());
    let mut server = net.open(&WebSocketClient::new(), "Sec-WebSocket-Protocol: two\r\n");
    let message = server.encoded(Message::Text("hello"));
    net.send(&mut server, message);
    let Some(Seen::Message(told)) = net.seen() else { panic!("it is there") };
    assert_eq!(told, text("two: hello"));
    net.sim.run(20 * SECOND);
    assert!(net.seen().is_none(), "nothing else is told");
}

/// The library `websockets`, as a server.
#[test]
#[expect(clippy::print_stdout, reason = "the test's log says why it did nothing")]
fn a_real_server_understands_it() {
    let Some(mut python) = python_with_websockets() else {
        return println!("SKIPPED: Python's websockets is not installed");
    };
    let command = python.args(["-c", include_str!("server.py")]);
    let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    let mut port = String::new();
    let mut said = BufReader::new(server.stdout.take().expect("it is piped"));
    said.read_line(&mut port).expect("it says its port");
    let deflate = PerMessageDeflate::new().min_size(0).send_context(true).receive_context(true);
    for client in [WebSocketClient::new(), WebSocketClient::new().deflate(deflate)] {
        let url = format!("ws://127.0.0.1:{}/", port.trim());
        echo_through(&client, &url, |to| to);
    }
    drop(server.stdin.take());
    assert!(server.wait().expect("it ends").success());
}

/// Our client and our server, with TLS and without, with compression and without.
#[test]
fn both_ends_understand_each_other() {
    let deflate = PerMessageDeflate::new().min_size(0);
    let contexts = deflate.send_context(true).receive_context(true);
    for (tls, deflate) in
        [(false, None), (true, None), (false, Some(deflate)), (true, Some(contexts))]
    {
        let mut server = WebSocketServer::new().subprotocols(["echo"]);
        let mut client = WebSocketClient::new();
        if let Some(deflate) = deflate {
            (server, client) = (server.deflate(deflate), client.deflate(deflate));
        }
        let (events, _events) = channel();
        let listen = Listen::from("127.0.0.1:0");
        let listen = if tls { listen.tls(&IDENTITY.server) } else { listen };
        let serving = TestEngine::start_exactly(Engine::builder().listen(listen), move |_| {
            let (server, events) = (server.clone(), events.clone());
            HttpServer::new()
                .serve(move |exchange: Exchange<'_>| server.accept(exchange, Echo(events.clone())))
        });
        let url = format!("ws://{}/", serving.address());
        echo_through(&client, &url, |to| match tls {
            true => to.tls_name(&IDENTITY.client, "localhost"),
            false => to,
        });
    }
}

/// Messages come back from a server that speaks the protocol `echo`.
fn echo_through(client: &WebSocketClient, url: &str, securely: impl Fn(Connect) -> Connect) {
    let connector = client.clone();
    let engine =
        TestEngine::start_exactly(Engine::builder(), move |_| connector.connector::<Guest>());
    let reactors = engine.reactors::<Connector>().expect("its handler");
    let request = WebSocketRequest::new(url).expect("it is one");
    let request = request.subprotocols(["other", "echo"]).expect("tokens");
    let (sender, seen) = channel();
    let long = "long ".repeat(40_000);
    let greeting = vec!["hellö".to_owned(), String::new(), long.clone()];
    let guest = Guest { seen: sender, greeting };
    let to = securely(request.destination());
    client.connect(&reactors, 0, to, &request, guest).expect("it runs");
    let remote = match receive(&seen) {
        Seen::Opened(remote) => remote,
        Seen::Failed(error) => panic!("{error}"),
        _ => panic!("it opens first"),
    };
    for expected in ["hellö", "", &long] {
        let Seen::Message(told) = receive(&seen) else { panic!("a message") };
        assert!(told == text(&format!("echo: {expected}")), "{} bytes", expected.len());
    }
    remote.close(CloseCode::NORMAL, "").expect("it is open");
    let Seen::Ended(end) = receive(&seen) else { panic!("it ends") };
    assert_eq!(end, "Closed { code: Some(CloseCode(1000)), reason: \"\" }");
}
