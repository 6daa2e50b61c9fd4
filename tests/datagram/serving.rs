//! Servers: what is sent to them comes back, whole and from where it went.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::{Sender, channel};
use std::{fs, thread};

use millstream::{
    AcceptMode, Action, Address, Conn, Datagram, DatagramSocket, Engine, EventHandler, Listen,
    ListenError, ReactorAction, SendError, Transport,
};

use crate::client::{News, Peer, Tell, unix};
use crate::common::folder::Folder;
use crate::common::{
    DEADLINE, Echo, TestEngine, eventually, modes, pattern, receive, silence_expected_panics,
};

/// Ten clients at once, and 1 KiB datagrams that are compared byte by byte.
#[test]
fn ten_clients_get_their_own_datagrams_back() {
    for (mode, builder) in modes() {
        let engine = TestEngine::echo(builder);
        let folder = Folder::new();
        let unixgram = format!("unixgram://{}", folder.path("server"));
        for text in ["udp4://127.0.0.1:0", "udp6://[::1]:0", &unixgram] {
            let listener = engine.listen(text).expect("it can be listened on");
            let address = listener.local_addr();
            thread::scope(|scope| {
                for client in 0..10 {
                    let mode = &mode;
                    scope.spawn(move || {
                        let peer = Peer::like(&address);
                        for round in 0..50 {
                            let bytes = pattern(1024, client * 1000 + round);
                            assert!(peer.exchange(&address, &bytes) == bytes, "{mode} {text}");
                        }
                    });
                }
            });
            listener.close();
            assert!(listener.wait_closed(DEADLINE));
        }
        let stats = engine.stats();
        let sum =
            |of: fn(&millstream::ReactorStats) -> u64| stats.reactors.iter().map(of).sum::<u64>();
        assert_eq!(sum(|reactor| reactor.datagrams_in), 1500, "{mode}");
        assert_eq!(sum(|reactor| reactor.datagrams_out), 1500, "{mode}");
        assert_eq!(sum(|reactor| reactor.bytes_in), 1500 * 1024, "{mode}");
        assert_eq!(sum(|reactor| reactor.bytes_out), 1500 * 1024, "{mode}");
        let lost = |reactor: &millstream::ReactorStats| {
            reactor.datagrams_dropped + reactor.datagram_errors + reactor.datagrams_truncated
        };
        assert_eq!(stats.reactors.iter().map(lost).sum::<u64>(), 0, "{mode}");
    }
}

/// Where each reactor has its own socket, and where one has it.
#[test]
fn the_reactors_share_the_sockets_as_the_mode_says() {
    for (mode, each) in [(AcceptMode::ReusePort, [2, 2, 2]), (AcceptMode::MainAcceptor, [1, 1, 0])]
    {
        let builder = Engine::builder().reactors(3).accept_mode(mode);
        // Next to the listener of the test engine, which is the last one.
        let builder = builder.listen("udp://127.0.0.1:0").listen("udp://127.0.0.1:0");
        let engine = TestEngine::echo(builder);
        let sockets =
            || engine.stats().reactors.iter().map(|r| r.datagram_sockets).collect::<Vec<_>>();
        eventually("the sockets are open", || sockets() == each);
        for listener in engine.listeners() {
            listener.close();
            assert!(listener.wait_closed(DEADLINE));
        }
        eventually("they are closed", || sockets() == [0, 0, 0]);
    }
}

/// Sizes from nothing to the most, on each kind of socket.
#[test]
fn every_size_comes_back_whole() {
    let engine = TestEngine::echo(Engine::builder().reactors(1));
    let folder = Folder::new();
    let unixgram = format!("unixgram://{}", folder.path("server"));
    let kinds = [("udp4://127.0.0.1:0", 65_507), ("udp6://[::1]:0", 65_507), (&unixgram, 65_536)];
    for (text, most) in kinds {
        let address = engine.listen(text).expect("it can be listened on").local_addr();
        let peer = Peer::like(&address);
        for len in [0, 1, 2, 1472, 1473, 9000, most - 1, most] {
            let bytes = pattern(len, len as u64);
            assert!(peer.exchange(&address, &bytes) == bytes, "{len} bytes over {text}");
        }
    }
}

/// Says to which of the machine's addresses a datagram came.
struct ToWhom;

impl EventHandler for ToWhom {
    const TAKES_DATAGRAMS: bool = true;

    type State = ();

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        unreachable!("there are no connections")
    }

    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        let to = datagram.to.expect("the system tells").to_canonical();
        socket.reply(&datagram, to.to_string().as_bytes()).into()
    }
}

/// A server on all addresses replies from the one that it was asked at. Without that a peer that is
/// connected would not hear it.
#[test]
#[cfg(target_os = "linux")]
fn the_answer_comes_from_the_address_that_was_asked() {
    let builder = Engine::builder().reactors(1).listen("udp://:0").listen("udp4://:0");
    let engine = TestEngine::start(builder, |_| ToWhom);
    let ports: Vec<_> = engine.listeners()[..2].iter().map(|l| l.local_addr().port()).collect();
    assert_eq!(engine.listeners()[0].transport(), Transport::Udp);
    for port in ports.iter().flatten() {
        for host in [[127, 0, 0, 1], [127, 0, 0, 2], [127, 9, 9, 9]] {
            let address = Address::from((host, *port));
            let answer = Peer::like(&address).exchange(&address, b"who are you?");
            assert_eq!(answer, Ipv4Addr::from(host).to_string().as_bytes());
        }
    }
    let address = Address::from((Ipv6Addr::LOCALHOST, ports[0].expect("a port")));
    assert_eq!(Peer::like(&address).exchange(&address, b"and you?"), b"::1");
}

/// A Unix datagram that is longer than the buffer is told to be cut.
#[test]
fn a_datagram_that_is_too_long_is_cut_and_says_so() {
    let folder = Folder::new();
    let (tell, news) = channel();
    let text = format!("unixgram://{}", folder.path("server"));
    let builder = Engine::builder().reactors(1).listen(text);
    let engine = TestEngine::start(builder, move |_| Tell(tell.clone()));
    let address = engine.listeners()[0].local_addr();
    let peer = Peer::like(&address);
    for (len, cut) in [(65_536, false), (65_537, true), (100_000, true)] {
        let sent = pattern(len, 1);
        peer.send_to(&address, &sent);
        let News::Datagram { bytes, from, truncated } = receive(&news) else { panic!("an error") };
        assert_eq!((from, truncated, bytes.len()), (peer.address(), cut, len.min(65_536)));
        assert!(sent.starts_with(&bytes));
    }
    assert_eq!(engine.stats().reactors[0].datagrams_truncated, 2);
}

/// Sends what it is told to: this many datagrams, each of a size.
struct Many;

impl EventHandler for Many {
    const TAKES_DATAGRAMS: bool = true;

    type State = ();

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        unreachable!("there are no connections")
    }

    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        let size = usize::from(datagram.bytes[0]) * 100;
        let bytes = pattern(20_050, size as u64);
        if datagram.bytes[1] == 1 {
            return socket.send_segments(&datagram.from, &bytes, size).into();
        }
        let sent = bytes.chunks(size).try_for_each(|one| socket.reply(&datagram, one));
        sent.expect("there is room");
        Action::Continue
    }
}

/// Many equal datagrams to one receiver, which the system takes and gives out in large pieces, are
/// the ones that were sent, also where each of them is its own call.
#[test]
fn segments_arrive_whole_and_in_order() {
    let folder = Folder::new();
    let unixgram = format!("unixgram://{}", folder.path("server"));
    let builder = Engine::builder().reactors(1).listen("udp://127.0.0.1:0").listen("udp://[::1]:0");
    let engine = TestEngine::start(builder.listen(unixgram), |_| Many);
    for listener in &engine.listeners()[..3] {
        let address = listener.local_addr();
        let peer = Peer::like(&address);
        // A Unix socket has room for few datagrams.
        let sizes = if address.unix().is_some() { [50, 60, 70] } else { [2, 7, 10] };
        for (size, kind) in sizes.into_iter().flat_map(|size| [(size, 1), (size, 0)]) {
            peer.send_to(&address, &[size, kind]);
            for chunk in pattern(20_050, u64::from(size) * 100).chunks(usize::from(size) * 100) {
                assert!(peer.receive().0 == chunk, "{address}, {kind}, {size}");
            }
        }
    }
    assert_eq!(engine.stats().reactors[0].datagram_errors, 0);
}

/// Panics if it is told to.
struct Touchy;

impl EventHandler for Touchy {
    const TAKES_DATAGRAMS: bool = true;

    type State = ();

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        unreachable!("there are no connections")
    }

    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        socket.reply(&datagram, datagram.bytes).expect("there is room");
        match datagram.bytes {
            b"panic" => panic!("expected: it was asked to"),
            b"close" => Action::Close,
            b"stop" => Action::Shutdown,
            _ => Action::Continue,
        }
    }
}

/// A panic costs nobody the socket; closing it does, and what was sent before goes out.
#[test]
fn a_panic_leaves_the_socket_open_and_close_closes_it() {
    silence_expected_panics();
    let engine = TestEngine::start(Engine::builder().reactors(1), |_| Touchy);
    let listener = engine.listen("udp://127.0.0.1:0").expect("it can be listened on");
    let address = listener.local_addr();
    let peer = Peer::like(&address);
    for _ in 0..3 {
        assert_eq!(peer.exchange(&address, b"panic"), b"panic");
    }
    assert_eq!(peer.exchange(&address, b"close"), b"close");
    assert!(listener.wait_closed(DEADLINE));
    eventually("three are counted", || engine.stats().reactors[0].panics == 3);
    // The port is free again, and a stop from a datagram stops.
    let again =
        engine.listen(Listen::udp(address.socket_addr().expect("it is one"))).expect("free");
    assert_eq!(peer.exchange(&again.local_addr(), b"stop"), b"stop");
    engine.wait().expect("it stops");
}

/// What is wrong is told: an address in use, a file that is in the way, a family that doesn't fit.
#[test]
fn bad_places_are_told_and_dead_ones_replaced() {
    let folder = Folder::new();
    let engine = TestEngine::echo(Engine::builder().reactors(2));
    let taken = engine.listen("udp://127.0.0.1:0").expect("it can be listened on").local_addr();
    let kind = |listen: &str| match engine.listen(listen).expect_err(listen) {
        ListenError::Refused { source, .. } => source.kind(),
        error => panic!("{error}"),
    };
    assert_eq!(kind(&format!("udp://{taken}")), std::io::ErrorKind::AddrInUse);
    fs::write(folder.path("file"), "").expect("it is new");
    let text = |name| format!("unixgram://{}", folder.path(name));
    assert_eq!(kind(&text("file")), std::io::ErrorKind::AlreadyExists);

    // One that a process left behind is replaced, one that somebody has is not.
    drop(std::os::unix::net::UnixDatagram::bind(folder.path("dead")).expect("it is new"));
    let listen = Listen::from(text("dead")).mode(0o620);
    let listener = engine.listen(listen).expect("nobody is there");
    let mode = fs::metadata(folder.path("dead")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o620);
    assert_eq!(kind(&text("dead")), std::io::ErrorKind::AddrInUse);
    let address = unix(folder.path("dead"));
    assert_eq!(Peer::like(&address).exchange(&address, b"there?"), b"there?");
    listener.close();
    assert!(listener.wait_closed(DEADLINE));
    assert!(!folder.join("dead").exists(), "the file goes with the socket");
}

/// Tries to send what can't be sent, and tells how often there was no room.
struct Wrong(Sender<u32>);

impl EventHandler for Wrong {
    const TAKES_DATAGRAMS: bool = true;

    type State = ();

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        unreachable!("there are no connections")
    }

    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        let v6 = Address::from((Ipv6Addr::LOCALHOST, 9));
        let unix = unix("/run/nowhere");
        let errors = [
            socket.send(b"to whom?"),
            socket.send_to(&v6, b"of another family"),
            socket.send_to(&unix, b"of another kind"),
            socket.send_to(&datagram.from, &[0; 65_508]),
            socket.send_segments(&datagram.from, b"in no time", 0),
            socket.send_segments(&datagram.from, &[0; 128 * 1024], 1000),
        ]
        .map(|result| result.expect_err("it can't be sent"));
        let expected = [
            SendError::NotConnected,
            SendError::Unreachable { address: v6 },
            SendError::Unreachable { address: unix },
            SendError::TooLong { len: 65_508, most: 65_507 },
            SendError::NoSegments,
            errors[5], // How much has room there is the queue's affair.
        ];
        assert_eq!(errors, expected);
        assert_eq!(socket.waiting(), 0);
        let SendError::TooLong { len: 131_072, most } = errors[5] else { panic!("{}", errors[5]) };
        socket.send_segments(&datagram.from, &vec![0; most], 1000).expect("the queue is empty");
        // More than the queue has room for and the system takes in one go: in the end it is full,
        // or all went.
        let mut full = 0;
        let nobody = Address::from(SocketAddr::from(([127, 0, 0, 1], 9)));
        for number in 0..1000 {
            match socket.send_to(&nobody, &[0; 3000][number % 7..]) {
                Ok(()) => {}
                Err(SendError::Full { waiting }) => {
                    assert!(waiting > 100_000, "{waiting}");
                    full += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(socket.waiting() <= 128 * 1024);
        self.0.send(full).expect("the test waits");
        Action::Continue
    }
}

#[test]
fn what_cannot_be_sent_is_told_by_type() {
    // One turn sends 1 MiB at most, so that the queue gets full.
    let builder = Engine::builder().reactors(1).datagram_queue(128 * 1024);
    let builder = builder.listen("udp://127.0.0.1:0");
    let (tell, told) = channel();
    let builder = builder.stall_threshold(None);
    let engine = TestEngine::start(builder, move |_| Wrong(tell.clone()));
    let address = engine.listeners()[0].local_addr();
    let peer = Peer::like(&address);
    peer.send_to(&address, b"go");
    let full = receive(&told);
    assert!(full > 0, "there was room for all");
    assert!(engine.stats().reactors[0].datagrams_dropped >= u64::from(full));
    let config = Engine::builder().datagram_queue(1000).start(|_| Echo).expect_err("too small");
    assert!(config.to_string().contains("datagram_queue"), "{config}");
}

/// Sends each datagram back many times over.
struct Repeat;

/// How often.
const TIMES: u64 = 16;

impl EventHandler for Repeat {
    const TAKES_DATAGRAMS: bool = true;

    type State = ();

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        unreachable!("there are no connections")
    }

    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        for _ in 0..TIMES {
            let _ = socket.reply(&datagram, datagram.bytes);
        }
        Action::Continue
    }
}

/// A socket that may send no more in this turn goes on to receive, and lets others have their turn.
#[test]
fn who_may_send_no_more_in_a_turn_still_receives() {
    const COUNT: u64 = 80;
    let builder = Engine::builder().reactors(1).write_budget(4096).listen("udp4://127.0.0.1:0");
    let engine = TestEngine::start(builder, |_| Repeat);
    let address = engine.local_addrs()[0];
    let peer = Peer::like(&address);
    let reactors = engine.reactors::<Repeat>().expect("it is the handler");
    let (go, wait) = channel::<()>();
    // So that many wait at once, more than one call receives.
    let asked = reactors.run(0, move |_, _| {
        let _ = wait.recv_timeout(DEADLINE);
        ReactorAction::Continue
    });
    asked.expect("it runs");
    for number in 0..COUNT {
        peer.send_to(&address, &pattern(500, number));
    }
    drop(go);
    eventually("all is received", || {
        let stats = engine.stats();
        let reactor = &stats.reactors[0];
        let gone = reactor.datagrams_out + reactor.datagrams_dropped;
        (reactor.datagrams_in, gone) == (COUNT, COUNT * TIMES)
    });
}
