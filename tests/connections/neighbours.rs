//! What callbacks ask of connections of other reactors, and what callbacks of sockets for datagrams
//! ask of connections. The rest is in `behaviour`.

use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use millstream::{
    Action, Conn, ConnId, Datagram, DatagramSocket, Engine, EventHandler, OtherReactor, Remote,
};

use crate::common::{TestEngine, read_exactly, read_to_end, receive};

/// Tells of each connection; what comes by datagram goes to all of them.
struct Tells {
    opened: Sender<Remote<Tells>>,
    members: Vec<ConnId>,
}

impl EventHandler for Tells {
    type State = ();
    const TAKES_DATAGRAMS: bool = true;

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.members.push(conn.id());
        let _ = self.opened.send(conn.remote()); // Nobody listens if the test has failed.
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(b"woken");
        Action::Continue
    }

    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        let bytes = Bytes::copy_from_slice(datagram.bytes);
        socket.neighbours().write_to_all(self.members.iter().copied(), bytes);
        Action::Continue
    }
}

fn start(reactors: usize) -> (TestEngine, Receiver<Remote<Tells>>) {
    let (opened, opening) = channel();
    let builder = Engine::builder().reactors(reactors).listen("udp://127.0.0.1:0");
    let tells = move |_| Tells { opened: opened.clone(), members: Vec::new() };
    (TestEngine::start(builder, tells), opening)
}

/// Connects until there is a connection of this reactor.
fn connect_to(
    engine: &TestEngine,
    opening: &Receiver<Remote<Tells>>,
    reactor: usize,
) -> (TcpStream, Remote<Tells>) {
    loop {
        let client = engine.connect();
        let remote = receive(opening);
        if remote.id().reactor() == reactor {
            return (client, remote);
        }
    }
}

#[test]
fn connections_of_other_reactors_are_asked_by_their_inbox() {
    let (engine, opening) = start(2);
    let (mut client, here) = connect_to(&engine, &opening, 0);
    let (mut other, there) = connect_to(&engine, &opening, 1);
    let (own, there) = (here.id(), there.id());
    let (told, ran) = channel();
    let ask = move |_: &mut Tells, conn: &mut Conn<'_, Tells>| {
        let neighbours = conn.neighbours();
        neighbours.write_to_all([there, own, there], "to all ");
        neighbours.wake(there);
        let refused = neighbours.run(there, |_, _| unreachable!("it is on another thread"));
        let _ = told.send(refused);
        neighbours.close(there);
        neighbours.write(there, "nothing"); // It is closing.
        Action::Continue
    };
    here.run(ask).expect("it is open");
    assert_eq!(receive(&ran), Err(OtherReactor { reactor: 0, connection: there }));
    assert_eq!(read_exactly(&mut client, 7), b"to all ");
    assert_eq!(read_to_end(&mut other), b"to all to all woken");
}

#[test]
fn an_id_of_another_engines_reactor_is_nobodys() {
    let (engine, opening) = start(1);
    let (larger, elsewhere) = start(3);
    let (mut client, here) = connect_to(&engine, &opening, 0);
    let (_stranger, stranger) = connect_to(&larger, &elsewhere, 2);
    let (own, stranger) = (here.id(), stranger.id());
    let ask = move |_: &mut Tells, conn: &mut Conn<'_, Tells>| {
        conn.neighbours().write_to_all([stranger, own], "hello");
        conn.neighbours().close(stranger);
        Action::Continue
    };
    here.run(ask).expect("it is open");
    assert_eq!(read_exactly(&mut client, 5), b"hello");
    assert_eq!(larger.stats().reactors[2].connections, 1);
}

#[test]
fn a_datagram_goes_to_all_connections() {
    let (engine, opening) = start(1);
    let mut clients = [engine.connect(), engine.connect()];
    clients.iter().for_each(|_| _ = receive(&opening));
    let socket = UdpSocket::bind("127.0.0.1:0").expect("there is a port");
    let to = engine.listeners()[0].local_addr().socket_addr().expect("it is one");
    socket.send_to(b"hello", to).expect("it is sent");
    for client in &mut clients {
        assert_eq!(read_exactly(client, 5), b"hello");
        client.write_all(b"x").expect("it is open");
        assert_eq!(read_exactly(client, 5), b"woken");
    }
}
