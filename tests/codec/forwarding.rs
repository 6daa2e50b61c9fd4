//! [`Framed`] and [`Either`](millstream::Either) forward every callback of an engine: a probe sees
//! all those that the traits have.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::common::beside::{Alone, Beside, Place};
use crate::common::layer::{Frames, HELLO, Handshake, frame};
use crate::common::{DEADLINE, TestEngine, end, read_exactly, read_to_end, receive};
use millstream::codec::{FrameHandler, Framed, FramedConn, FramedReactor, LineError, Lines};
use millstream::internals::start_layer;
use millstream::{
    Action, CloseReason, Datagram, DatagramSocket, Engine, OpenDatagram, ReactorAction,
    ShutdownAction, TimerId,
};

/// What a line asks for, beyond the high-water mark.
const MUCH: usize = 8 << 20;

/// Tells of every callback by its name.
struct Probe(Sender<&'static str>);

impl Probe {
    fn tell(&self, callback: &'static str) {
        let _ = self.0.send(callback); // After a failure nobody listens.
    }

    fn saw<A: Default>(&self, callback: &'static str) -> A {
        self.tell(callback);
        A::default()
    }
}

impl FrameHandler for Probe {
    const TAKES_DATAGRAMS: bool = true;

    type Codec = Lines;
    type State = ();

    fn codec(&self) -> Lines {
        Lines::new().max_length(10)
    }

    fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, line: &[u8]) -> Action {
        if line == b"tls" {
            let handshake = Handshake { begins: false, timeout: DEADLINE };
            return start_layer(conn, move || Box::new(Frames::after(handshake))).into();
        }
        conn.set_timer(Duration::from_millis(1), 5);
        conn.output.write(&vec![0; MUCH]);
        self.saw("on_frame")
    }

    fn on_error(&mut self, _conn: &mut FramedConn<'_, Self>, _error: LineError) -> Action {
        self.saw("on_error")
    }

    fn on_boot(&mut self, reactor: &mut FramedReactor<'_, Self>) -> ReactorAction {
        reactor.set_timer(Duration::from_millis(1), 7);
        self.saw("on_boot")
    }

    fn on_reactor_timer(
        &mut self,
        _reactor: &mut FramedReactor<'_, Self>,
        _timer: TimerId,
        value: u64,
    ) -> ReactorAction {
        assert_eq!(value, 7);
        self.saw("on_reactor_timer")
    }

    fn on_open(&mut self, _conn: &mut FramedConn<'_, Self>) -> Action {
        self.saw("on_open")
    }

    fn on_end(&mut self, _conn: &mut FramedConn<'_, Self>) -> Action {
        self.tell("on_end");
        Action::Close
    }

    fn on_high_water(&mut self, _conn: &mut FramedConn<'_, Self>) -> Action {
        self.saw("on_high_water")
    }

    fn on_low_water(&mut self, _conn: &mut FramedConn<'_, Self>) -> Action {
        self.saw("on_low_water")
    }

    fn on_tls(&mut self, _conn: &mut FramedConn<'_, Self>) -> Action {
        self.saw("on_tls")
    }

    fn on_timer(
        &mut self,
        _conn: &mut FramedConn<'_, Self>,
        _timer: TimerId,
        value: u64,
    ) -> Action {
        assert_eq!(value, 5);
        self.saw("on_timer")
    }

    fn on_closing(&mut self, _conn: &mut FramedConn<'_, Self>, _reason: &CloseReason) {
        self.tell("on_closing");
    }

    fn on_close(&mut self, _conn: &mut FramedConn<'_, Self>, _reason: &CloseReason) {
        self.tell("on_close");
    }

    fn on_datagram(
        &mut self,
        _socket: &mut DatagramSocket<'_, Framed<Self>>,
        _datagram: Datagram<'_>,
    ) -> Action {
        self.saw("on_datagram")
    }

    fn on_datagram_error(
        &mut self,
        _socket: &mut DatagramSocket<'_, Framed<Self>>,
        _error: &io::Error,
    ) -> Action {
        self.saw("on_datagram_error")
    }

    fn on_datagram_closing(
        &mut self,
        _socket: &mut DatagramSocket<'_, Framed<Self>>,
        _reason: &CloseReason,
    ) {
        self.tell("on_datagram_closing");
    }

    fn on_tick(&mut self, _reactor: &mut FramedReactor<'_, Self>) -> ReactorAction {
        self.saw("on_tick")
    }

    fn on_shutdown(&mut self, _reactor: &mut FramedReactor<'_, Self>) -> ShutdownAction {
        self.tell("on_shutdown");
        ShutdownAction::Drain
    }

    fn on_drain(&mut self, _conn: &mut FramedConn<'_, Self>) -> Action {
        self.tell("on_drain");
        Action::Close
    }
}

/// The callbacks of a trait, from its source.
fn callbacks<'a>(source: &'a str, name: &str) -> Vec<&'a str> {
    let (_, body) = source.split_once(&format!("pub trait {name}:")).expect("the trait is there");
    let (body, _) = body.split_once("\n}\n").expect("it ends");
    let names = body.split("\n    fn ").skip(1).map(|method| method.split('(').next());
    names.flatten().filter(|name| name.starts_with("on_")).collect()
}

/// Waits until a callback was seen.
#[track_caller]
fn wait_for(callback: &str, told: &Receiver<&'static str>, seen: &mut BTreeSet<&'static str>) {
    let deadline = Instant::now() + DEADLINE; // There are ticks, so each wait alone ends.
    while !seen.contains(callback) {
        assert!(Instant::now() < deadline, "no {callback}, only {seen:?}");
        seen.insert(receive(told));
    }
}

/// Makes everything happen that a handler is told of.
fn everything<P: Place>() -> BTreeSet<&'static str> {
    let (send, told) = channel();
    let mut seen = BTreeSet::new();
    let builder = Engine::builder().reactors(1).tick(Duration::from_millis(1));
    let engine = TestEngine::start(builder.listen("udp://127.0.0.1:0"), move |_| {
        P::put(Framed::new(Probe(send.clone())))
    });
    let [datagrams, connections] = [0, 1].map(|index| engine.addresses()[index]);

    let mut client = TcpStream::connect(connections).expect("it accepts");
    client.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    client.write_all(b"longer than is allowed\nline\n").expect("it is read");
    wait_for("on_high_water", &told, &mut seen);
    read_exactly(&mut client, MUCH);
    wait_for("on_low_water", &told, &mut seen);
    wait_for("on_timer", &told, &mut seen);
    wait_for("on_reactor_timer", &told, &mut seen);
    end(&client);
    read_to_end(&mut client);
    wait_for("on_close", &told, &mut seen);

    let nobody = UdpSocket::bind("127.0.0.1:0").expect("there is a port");
    let address = nobody.local_addr().expect("it is bound");
    nobody.send_to(b"hello", datagrams).expect("it is sent");
    wait_for("on_datagram", &told, &mut seen);
    drop(nobody);
    let reactors = P::reactors::<Framed<Probe>>(&engine);
    let send = move |_: &mut Framed<Probe>,
                     _: &mut FramedReactor<'_, Probe>,
                     socket: Result<&mut DatagramSocket<'_, _>, _>| {
        socket.expect("it opens").send(b"hello").into()
    };
    reactors.open_datagram(0, OpenDatagram::to(address), send).expect("the engine runs");
    wait_for("on_datagram_error", &told, &mut seen);

    let mut other = TcpStream::connect(connections).expect("it accepts");
    seen.remove("on_open");
    wait_for("on_open", &told, &mut seen);
    other.write_all(&[b"tls\n", &frame(HELLO, b"")[..]].concat()).expect("it is read");
    wait_for("on_tls", &told, &mut seen);
    drop(engine);
    seen.extend(told.try_iter());
    seen
}

#[test]
fn a_frame_handler_sees_every_callback_of_an_engine() {
    assert_complete(&everything::<Alone>());
}

#[test]
fn so_does_one_that_shares_its_engine() {
    assert_complete(&everything::<Beside>());
}

fn assert_complete(seen: &BTreeSet<&str>) {
    let engines = callbacks(include_str!("../../src/handler/mod.rs"), "EventHandler");
    let frames = callbacks(include_str!("../../src/codec/framed.rs"), "FrameHandler");
    assert!(engines.len() >= 15 && frames.len() > engines.len(), "{engines:?}, {frames:?}");
    for callback in engines.into_iter().chain(frames) {
        let name = if callback == "on_traffic" { "on_frame" } else { callback };
        assert!(seen.contains(name), "{name} was not seen, only {seen:?}");
    }
}
