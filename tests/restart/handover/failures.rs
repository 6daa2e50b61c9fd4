//! Which of the two engines serves if one of them fails during a handover.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use millstream::Engine;
use millstream::restart::{Handover, HandoverError};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::{Rig, ends, stop};
use crate::common::{DEADLINE, Echo, read_exactly, read_to_end};

/// A newcomer that is played by hand.
struct Puppet(UnixStream);

impl Puppet {
    fn connect(rig: &Rig) -> Self {
        let mut stream = UnixStream::connect(rig.handover_path()).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        let header = read_exactly(&mut stream, 14);
        assert_eq!(header[..10], *b"millhand\0\x02");
        let length = u32::from_be_bytes(header[10..].try_into().expect("it has four bytes"));
        read_exactly(&mut stream, length as usize);
        read_exactly(&mut stream, 1); // The sockets come along with it, and are not taken.
        Puppet(stream)
    }

    fn say(&mut self, what: &[u8]) {
        self.0.write_all(what).expect("the other one listens");
    }

    /// Says that it is ready, and is told that it may accept.
    fn accepts(&mut self) {
        self.say(b"R");
        assert_eq!(read_exactly(&mut self.0, 1), b"G");
    }
}

/// The one before goes on, and the next newcomer takes over.
fn assert_goes_on(rig: &Rig, engine: &Engine) {
    let next = rig.next(Engine::builder());
    ends(engine);
    rig.assert_serves(&next);
    stop(&next);
    assert!(!Path::new(&rig.socket_path()).exists(), "its file goes with its last owner");
}

/// Whatever a newcomer has been told, until it says that it stays the other one is there.
#[test]
fn a_newcomer_that_dies_while_it_takes_over_changes_nothing() {
    for accepts in [false, true] {
        let rig = Rig::new();
        let engine = rig.first(Engine::builder());
        let mut newcomer = Puppet::connect(&rig);
        if accepts {
            newcomer.accepts();
        } else {
            newcomer.say(b"R");
        }
        drop(newcomer);
        rig.assert_serves(&engine);
        assert_goes_on(&rig, &engine);
    }
}

/// The byte that lets it accept can't be sent.
#[test]
fn a_newcomer_that_does_not_hear_changes_nothing() {
    let rig = Rig::new();
    let engine = rig.first(Engine::builder());
    let mut newcomer = Puppet::connect(&rig);
    newcomer.0.shutdown(Shutdown::Read).expect("it is connected");
    newcomer.say(b"R");
    // Were it taken for one that accepts, another one that is ready would be refused.
    let next = rig.next(Engine::builder());
    newcomer.0.write_all(b"S").expect_err("it was sent away");
    ends(&engine);
    rig.assert_serves(&next);
    stop(&next);
}

#[test]
fn a_newcomer_says_that_it_stays_and_nothing_else() {
    for (says, goes) in [(&b"S"[..], true), (b"R", false), (b"SS", false), (b"G", false)] {
        let rig = Rig::new();
        let engine = rig.first(Engine::builder());
        let mut newcomer = Puppet::connect(&rig);
        newcomer.accepts();
        rig.assert_serves(&engine);
        newcomer.say(says);
        if goes {
            ends(&engine);
        } else {
            assert_eq!(read_to_end(&mut newcomer.0), b"N", "{says:?}");
            assert_goes_on(&rig, &engine);
        }
    }
}

/// While one newcomer may accept, another one that is ready is refused, and one that has just come
/// waits for the one that serves then.
#[test]
fn one_newcomer_at_a_time_accepts() {
    let rig = Rig::new();
    let engine = rig.first(Engine::builder());
    let [mut first, mut second] = [Puppet::connect(&rig), Puppet::connect(&rig)];
    first.accepts();
    second.say(b"R");
    assert_eq!(read_to_end(&mut second.0), b"N");
    thread::scope(|scope| {
        let late = scope.spawn(|| rig.next(Engine::builder()));
        drop(first);
        let next = late.join().expect("it takes over");
        ends(&engine);
        stop(&next);
    });
}

/// It was told that it may accept, and then nothing is heard of it.
#[test]
fn a_newcomer_that_hangs_is_given_up() {
    let rig = Rig { timeout: Duration::from_secs(3), ..Rig::new() };
    let engine = rig.first(Engine::builder());
    let rig = Rig { timeout: DEADLINE, ..rig };
    let mut newcomer = Puppet::connect(&rig);
    newcomer.accepts();
    assert_eq!(read_to_end(&mut newcomer.0), b"N");
    newcomer.0.write_all(b"S").expect_err("nobody listens to it any more");
    assert_goes_on(&rig, &engine);
}

/// A process that serves, and is played by hand: it hands over one socket, its own.
fn serve_by_hand(rig: &Rig) -> (UnixListener, thread::JoinHandle<UnixStream>) {
    let listener = UnixListener::bind(rig.handover_path()).expect("the folder is new");
    let own = listener.try_clone().expect("there are descriptors");
    let greets = thread::spawn(move || {
        let (mut stream, _) = own.accept().expect("the newcomer connects");
        stream.set_read_timeout(Some(DEADLINE / 2)).expect("a socket has timeouts");
        stream
            .write_all(b"millhand\0\x02\0\0\0\x0e\0\x04unix\0\0\0\0\0\0\0\x01")
            .expect("it waits");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [own.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let sent = sendmsg(&stream, &[IoSlice::new(&[0])], &mut control, SendFlags::empty());
        assert_eq!(sent.expect("it waits"), 1);
        stream
    });
    (listener, greets)
}

/// A newcomer that has given up waiting can't be told any more that it may accept: the other one
/// would go, and nobody would serve.
#[test]
fn a_newcomer_that_has_given_up_cannot_be_told_to_serve() {
    let rig = Rig { timeout: Duration::from_millis(200), ..Rig::new() };
    let (_listener, greets) = serve_by_hand(&rig);
    let handover = rig.take().expect("somebody is there");
    let engine = Engine::builder().start(|_| Echo).expect("it starts");
    let mut predecessor = greets.join().expect("it does not panic");
    let says = thread::spawn(move || {
        assert_eq!(read_exactly(&mut predecessor, 1), b"R");
        // Until the newcomer has given up, and not for long if it does not show that.
        predecessor.set_read_timeout(Some(DEADLINE / 8)).expect("a socket has timeouts");
        let _ = predecessor.read(&mut [0]);
        predecessor.write_all(b"G").is_ok()
    });
    let took_over = handover.ready(&engine, DEADLINE);
    let told = says.join().expect("it does not panic");
    assert!(!told && matches!(took_over, Err(HandoverError::Timeout)), "{told}, {took_over:?}");
    stop(&engine);
}

/// A newcomer that has taken too long to say that it stays learns that the other one serves, and
/// ends.
#[test]
fn a_newcomer_that_was_given_up_ends() {
    let rig = Rig::new();
    let (_listener, greets) = serve_by_hand(&rig);
    let handover = rig.take().expect("somebody is there");
    let engine = Engine::builder().start(|_| Echo).expect("it starts");
    let mut predecessor = greets.join().expect("it does not panic");
    predecessor.shutdown(Shutdown::Read).expect("it is connected");
    predecessor.write_all(b"G").expect("the newcomer waits");
    handover.ready(&engine, DEADLINE).expect("it may accept");
    predecessor.write_all(b"N").expect("the newcomer is there");
    ends(&engine);
}

/// An engine that is asked to stop right after it has taken over takes the one before it along.
#[test]
fn a_stop_during_a_handover_stops_both() {
    let rig = Rig::new();
    let engine = rig.first(Engine::builder());
    let next = rig.next(Engine::builder());
    stop(&next);
    ends(&engine);
    assert!(!Path::new(&rig.socket_path()).exists());
}

/// Of processes that are started together one is the first, and the others take over one by one.
#[test]
fn those_who_start_while_the_first_one_does_wait_for_it() {
    let rig = Rig::new();
    let mut first = rig.take().expect("nobody is there");
    thread::scope(|scope| {
        let others = [0; 2].map(|_| scope.spawn(|| rig.take().expect("the first one serves")));
        let engine = rig.start(&mut first, Engine::builder());
        assert!(others.iter().all(|other| !other.is_finished()), "the first one is not ready");
        first.ready(&engine, DEADLINE).expect("it serves handovers");
        let mut others = others.map(|other| other.join().expect("it does not panic"));
        assert!(others.iter().all(Handover::has_predecessor));
        let next = rig.start(&mut others[0], Engine::builder());
        let [other, last] = others;
        other.ready(&next, DEADLINE).expect("it takes over");
        ends(&engine);
        let error = last.ready(&next, DEADLINE).expect_err("it is not the first");
        assert!(matches!(error, HandoverError::Refused), "{error}");
        stop(&next);
    });
}

/// A process that was about to be the first gives up, and one that waits for it is the first.
#[test]
fn one_that_waits_for_the_first_may_be_the_first_itself() {
    let rig = Rig::new();
    let first = rig.take().expect("nobody is there");
    thread::scope(|scope| {
        let other = scope.spawn(|| rig.first(Engine::builder()));
        // sleep: the other one waits; if it should not yet, nothing is proved, and nothing fails.
        thread::sleep(Duration::from_millis(50));
        drop(first);
        let engine = other.join().expect("it does not panic");
        rig.assert_serves(&engine);
        stop(&engine);
    });
}
