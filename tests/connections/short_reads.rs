//! Reads that give less than they have room for, although more is there: whatever ends them early,
//! all bytes come, and no byte waits for the next one to announce it.

#![cfg(target_os = "linux")]

use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use crate::common::folder::Folder;
use crate::common::pairs::{tcp_pair, unix_pair};
use crate::common::recorder::{On, Recorder, keep};
use crate::common::stage::{Stage, run};
use crate::common::{assert_same, eventually};
use millstream::{Action, Conn, Listen};
use millstream_platform::socket::send_descriptors;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// A connection into which everything was sent before it is adopted: it is announced once.
#[track_caller]
fn assert_all_comes(
    theirs: impl Into<OwnedFd>,
    bytes: &[u8],
    open: impl Fn(&mut Conn<'_, Recorder>) + Send + Sync + 'static,
) {
    let stage = Stage::start(Stage::builder(), move |on, conn| {
        if on == On::Open {
            open(conn);
        }
        keep(conn);
        on.usual()
    });
    let reactors = stage.reactors::<Recorder>().expect("it is the engine's handler");
    reactors.adopt(0, theirs.into(), |_, _, _| Action::Continue).expect("the engine runs");
    let remote = stage.wait_for(On::Open).remote();
    let received = || run(&remote, |conn| conn.state.received.clone());
    eventually("all has come", || received().len() >= bytes.len());
    assert_same(&received(), bytes);
    remote.close().expect("it is open");
}

fn nothing(_: &mut Conn<'_, Recorder>) {}

#[test]
fn urgent_data_ends_a_read() {
    for inline in [false, true] {
        let (mut ours, theirs) = tcp_pair();
        let theirs = Socket::from(theirs);
        theirs.set_out_of_band_inline(inline).expect("a socket has the option");
        ours.write_all(b"abc").expect("there is room");
        SockRef::from(&ours).send_out_of_band(b"!").expect("there is room");
        ours.write_all(b"def").expect("there is room");
        let expected = if inline { &b"abc!def"[..] } else { b"abcdef" };
        assert_all_comes(theirs, expected, nothing);
        drop(ours);
    }
}

/// Linux has urgent data on Unix sockets, too, if it is built so.
#[test]
fn urgent_data_of_a_unix_socket_ends_a_read() {
    let (mut ours, theirs) = unix_pair();
    ours.write_all(b"abc").expect("there is room");
    if SockRef::from(&ours).send_out_of_band(b"!").is_ok() {
        ours.write_all(b"def").expect("there is room");
        assert_all_comes(theirs, b"abcdef", nothing);
    }
    drop(ours);
}

/// Makes another process write.
fn write_elsewhere(socket: &UnixStream, text: &str) {
    let socket: OwnedFd = socket.as_fd().try_clone_to_owned().expect("there is a descriptor");
    let status = Command::new("printf").arg(text).stdout(Stdio::from(socket)).status();
    assert!(status.expect("there is such a program").success());
}

/// A socket that asks for credentials gives no bytes of two writers at once, and one that was
/// accepted asks for them if its listener does. Descriptors end a read, too.
#[test]
fn another_writer_ends_a_read() {
    for (wants_credentials, wants_descriptors) in
        [(true, true), (true, false), (false, true), (false, false)]
    {
        let folder = Folder::new();
        let path = folder.path("socket");
        let listener = UnixListener::bind(&path).expect("the folder is there");
        SockRef::from(&listener).set_passcred(wants_credentials).expect("a socket has the option");
        let listen = Listen::inherited([listener.into()]).expect("it listens");
        let stage = Stage::start(Stage::builder().listen(listen), move |on, conn| {
            if on == On::Open && wants_descriptors {
                conn.receive_descriptors(99).expect("it is a Unix connection");
            }
            if on == On::Open {
                conn.pause_reading();
            }
            keep(conn);
            on.usual()
        });
        let mut ours = UnixStream::connect(path).expect("it listens");
        let remote = stage.wait_for(On::Open).remote();
        for round in 0..5 {
            ours.write_all(b"ours").expect("there is room");
            write_elsewhere(&ours, &format!("theirs {round}"));
            send_descriptors(&ours, &[ours.as_fd()]).expect("there is room");
        }
        run(&remote, |conn| {
            conn.resume_reading();
        });
        let expected: String = (0..5).map(|round| format!("ourstheirs {round}\0")).collect();
        let received = || run(&remote, |conn| conn.state.received.clone());
        eventually("all has come", || received().len() >= expected.len());
        assert_same(&received(), expected.as_bytes());
        run(&remote, move |conn| {
            let some = std::iter::from_fn(|| conn.take_descriptor()).count();
            assert_eq!(some, if wants_descriptors { 5 } else { 0 });
        });
    }
}

/// Takes urgent data out of a socket.
fn take_urgent(socket: impl AsFd) {
    let (mut byte, socket) = ([MaybeUninit::uninit()], SockRef::from(&socket));
    assert_eq!(socket.recv_out_of_band(&mut byte).expect("it has come"), 1);
}

/// Somebody else takes the urgent data out, of which only the mark is left: before the socket is
/// adopted, or when the handler has shown it.
#[test]
fn urgent_data_that_is_taken_leaves_a_mark() {
    for adopted in [true, false] {
        let folder = Folder::new();
        let path = folder.path("socket");
        let (mut ours, theirs) = unix_pair();
        ours.write_all(b"abc").expect("there is room");
        if SockRef::from(&ours).send_out_of_band(b"!").is_err() {
            return; // The system has no such thing.
        }
        ours.write_all(b"def").expect("there is room");
        if adopted {
            take_urgent(&theirs);
            assert_all_comes(theirs, b"abcdef", nothing);
            continue;
        }
        let stage = Stage::start(Stage::builder().listen(format!("unix://{path}")), |on, conn| {
            if on == On::Open {
                conn.pause_reading();
            }
            keep(conn);
            on.usual()
        });
        let mut ours = UnixStream::connect(path).expect("it listens");
        let remote = stage.wait_for(On::Open).remote();
        ours.write_all(b"abc").expect("there is room");
        SockRef::from(&ours).send_out_of_band(b"!").expect("there is room");
        ours.write_all(b"def").expect("there is room");
        run(&remote, |conn| {
            take_urgent(conn.as_fd().expect("it has a descriptor"));
            conn.resume_reading();
        });
        let received = || run(&remote, |conn| conn.state.received.clone());
        eventually("all has come", || received().len() >= 6);
        assert_same(&received(), b"abcdef");
    }
}

/// Of a socket that is not plain TCP nothing is believed.
#[test]
fn what_is_put_on_top_of_tcp_is_read_until_nothing_is_left() {
    let make = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP));
    let Ok(listener) = make() else { return }; // The system has none.
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    listener.listen(1).expect("it is bound");
    let ours = make().expect("there are sockets");
    ours.connect(&listener.local_addr().expect("it listens")).expect("it listens");
    let (theirs, _) = listener.accept().expect("somebody connected");
    for part in [&b"one"[..], b"two", b"three"] {
        assert_eq!(ours.send(part).expect("there is room"), part.len());
    }
    assert_all_comes(theirs, b"onetwothree", nothing);
}
