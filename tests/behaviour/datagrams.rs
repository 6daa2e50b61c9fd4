//! Datagrams: what one socket sends comes to another one as it was sent. The order is the network's
//! affair.

use std::sync::mpsc::channel;

use millstream::{Action, Address, Closed, DatagramRemote, DatagramSocket, Engine, OpenDatagram};

use crate::common::recorder::{On, Recorder, echo};
use crate::common::{DEADLINE, pattern};
use crate::stage::Stage;
use crate::world::World;

type Remote = DatagramRemote<Recorder>;

/// Opens a socket.
fn open<W: World>(stage: &mut Stage<W>, how: OpenDatagram) -> (Remote, Address) {
    let reactors = stage.world.reactors();
    let (tell, told) = channel();
    let opened = reactors.open_datagram(0, how, move |_, _, socket| {
        let socket = socket.expect("it can be opened");
        let _ = tell.send((socket.remote(), socket.local_addr()));
        Action::Continue
    });
    opened.expect("the engine runs");
    let mut opened = None;
    stage.until("a socket opens", |_| {
        opened = told.try_recv().ok();
        opened.is_some()
    });
    opened.expect("it was opened")
}

/// A client that is connected, and its server; see [`Recorder::on_datagram`].
fn pair<W: World>(stage: &mut Stage<W>) -> [Remote; 2] {
    let (server, address) = open(stage, OpenDatagram::on(W::HERE));
    let (client, _) = open(stage, OpenDatagram::to(address));
    [client, server]
}

/// Receives this many datagrams, and closes the sockets; returns the datagrams in order.
fn receive<W: World>(stage: &mut Stage<W>, count: usize, sockets: &[Remote]) -> Vec<Vec<u8>> {
    let mut received: Vec<_> = (0..count).map(|_| stage.wait_for(On::Datagram).received).collect();
    received.sort();
    for socket in sockets {
        let _ = socket.close(); // A behaviour may have closed it.
    }
    stage.until("the sockets close", |world| {
        world.engine().stats().reactors[0].datagram_sockets == 0
    });
    assert_eq!(stage.count(On::Datagram), count, "a datagram came that was not sent");
    received
}

pub(crate) fn datagrams_of_every_size_come_back_whole<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), echo);
    let sockets = pair(&mut stage);
    let datagram = |len: usize| [vec![1; len.min(1)], pattern(len.max(1) - 1, seed)].concat();
    let mut datagrams: Vec<_> = [0, 1, 2, 100, 1472, 9000, 65_507].map(datagram).into();
    for datagram in &datagrams {
        sockets[0].send(datagram.clone()).expect("it is open");
    }
    datagrams.sort();
    let received = receive(&mut stage, datagrams.len(), &sockets);
    assert!(received == datagrams, "other datagrams came back");
}

/// More than may be sent in one turn goes in later ones.
pub(crate) fn datagrams_beyond_the_write_budget_are_sent_later<W: World>(seed: u64) {
    const TIMES: usize = 32;
    let mut stage = Stage::<W>::start(seed, Engine::builder().write_budget(100), echo);
    let sockets = pair(&mut stage);
    let datagrams = [1u8, 2, 3, 4].map(|number| vec![TIMES as u8, number, 0, 0]);
    for datagram in &datagrams {
        sockets[0].send(datagram.clone()).expect("it is open");
    }
    let expected: Vec<_> = datagrams.iter().flat_map(|one| vec![one.clone(); TIMES]).collect();
    assert_eq!(receive(&mut stage, expected.len(), &sockets), expected);
}

/// A socket that is closed sends what waits, and hears nothing more.
pub(crate) fn what_waits_is_sent_before_a_socket_closes<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder().write_budget(100), echo);
    let (server, address) = open(&mut stage, OpenDatagram::on(W::HERE));
    let (client, client_address) = open(&mut stage, OpenDatagram::to(address));
    let datagrams: Vec<_> = (0..50).map(|number| vec![number; 10]).collect();
    let expected = datagrams.clone();
    let ran = server.run(move |_, server| {
        for datagram in &datagrams {
            server.send_to(&client_address, datagram).expect("there is room");
        }
        Action::Close
    });
    ran.expect("it is open");
    client.send(&[1; 10][..]).expect("it is open");
    assert_eq!(receive(&mut stage, expected.len(), &[client]), expected);
    assert_eq!(server.send(&b"late"[..]), Err(Closed));
}

/// Its handles return that it is closed, and the handler is told once; what that sends is sent.
pub(crate) fn a_socket_says_at_once_that_it_closes_whoever_closes_it<W: World>(seed: u64) {
    for by in ["Action::Close", "DatagramSocket::close", "DatagramRemote::close", "stop"] {
        let builder = Engine::builder().close_timeout(DEADLINE);
        let mut stage = Stage::<W>::start(seed, builder, echo);
        let (server, address) = open(&mut stage, OpenDatagram::on(W::HERE));
        let (client, _) = open(&mut stage, OpenDatagram::to(address));
        match by {
            "Action::Close" => client.run(|_, _| Action::Close).expect("it is open"),
            "DatagramSocket::close" => {
                let close = |_: &mut Recorder, socket: &mut DatagramSocket<'_, Recorder>| {
                    socket.close();
                    assert!(!socket.remote().is_open(), "from this moment on");
                    Action::Continue
                };
                client.run(close).expect("it is open");
            }
            "DatagramRemote::close" => client.close().expect("it is open"),
            _ => stage.stop(DEADLINE).expect("it runs"),
        }
        // A stop closes both sockets, in any order.
        let (reason, closings) = if by == "stop" { ("shutdown", 2) } else { ("local", 1) };
        for _ in 0..closings {
            assert_eq!(stage.wait_for(On::DatagramClosing).reason, Some(reason), "{by}");
        }
        assert!(!client.is_open(), "{by}");
        assert_eq!(client.send("lost"), Err(Closed), "{by}");
        assert_eq!(client.run(|_, _| unreachable!("it is closing")), Err(Closed), "{by}");
        assert_eq!(client.close(), Err(Closed), "{by}");
        if by == "stop" {
            stage.wait_for_the_end();
        } else {
            assert!(server.is_open());
            stage.until("the last word comes", |world| {
                world.engine().stats().reactors[0].datagrams_in == 1
            });
            receive(&mut stage, 0, &[server]);
        }
        let closings = if by == "stop" { 2 } else { stage.count(On::DatagramClosing) };
        assert_eq!((closings, stage.panics()), (2, 0), "{by}");
    }
}

pub(crate) fn closures_on_their_way_to_a_socket_are_told_when_it_closes<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), echo);
    let (socket, _) = open(&mut stage, OpenDatagram::on(W::HERE));
    let (tell, told) = channel();
    let (own, late) = (socket.clone(), tell.clone());
    let ask_and_close = move |_: &mut Recorder, socket: &mut DatagramSocket<'_, Recorder>| {
        let tell = late.clone();
        own.run_then(
            |_, _| unreachable!("it is closing"),
            move |ran| tell.send(("late", ran)).unwrap(),
        );
        socket.close();
        own.run_then(
            |_, _| unreachable!("it is closing"),
            move |ran| late.send(("at once", ran)).unwrap(),
        );
        Action::Continue
    };
    socket.run_then(ask_and_close, move |ran| tell.send(("first", ran)).unwrap());
    let mut answers = Vec::new();
    stage.until("each is told", |_| {
        answers.extend(told.try_iter());
        answers.len() == 3
    });
    assert_eq!(answers, [("at once", Err(Closed)), ("first", Ok(())), ("late", Err(Closed))]);
    receive(&mut stage, 0, &[socket]);
}
