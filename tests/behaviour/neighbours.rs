//! What a callback asks of other connections of its reactor.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use millstream::{Action, Conn, ConnId, Connect, Engine, ReactorAction, Remote};

use crate::common::recorder::{On, Recorder, collect, echo};
use crate::common::{DEADLINE, assert_same, pattern};
use crate::stage::{Peer, Stage};
use crate::world::World;

/// Opens this many connections.
fn open<W: World>(stage: &mut Stage<W>, count: usize) -> (Vec<Peer<W>>, Vec<Remote<Recorder>>) {
    (0..count).map(|_| stage.open()).unzip()
}

fn ids(remotes: &[Remote<Recorder>]) -> Vec<ConnId> {
    remotes.iter().map(Remote::id).collect()
}

/// Runs something as a callback of a connection.
#[track_caller]
fn run(remote: &Remote<Recorder>, closure: impl FnOnce(&mut Conn<'_, Recorder>) + Send + 'static) {
    let asked = remote.run(|_, conn| {
        closure(conn);
        Action::Continue
    });
    asked.expect("it is open");
}

/// All peers end, and all connections with them.
fn end_all<W: World>(stage: &mut Stage<W>, mut peers: Vec<Peer<W>>) {
    peers.iter_mut().for_each(Peer::end);
    peers.iter().for_each(|_| _ = stage.closed_by("peer"));
}

pub(crate) fn all_are_sent_the_same_bytes<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), collect);
    let (mut peers, remotes) = open(&mut stage, 5);
    let all = ids(&remotes);
    let (short, long) = (pattern(64, seed), Bytes::from(pattern(50_000, seed + 1)));
    let expected = [&b"own"[..], &short, &long].concat();
    run(&remotes[2], move |conn| {
        conn.neighbours().write_to_all(all.iter().copied(), short);
        conn.neighbours().write_to_all(all, long);
        conn.neighbours().write_to_all([], "nobody");
        conn.output.write(b"own"); // The own bytes come first.
    });
    for (place, peer) in peers.iter_mut().enumerate() {
        let expected = if place == 2 { &expected } else { &expected[3..] };
        assert_same(&stage.receive(peer, expected.len()), expected);
    }
    end_all(&mut stage, peers);
}

pub(crate) fn all_is_done_in_the_order_it_was_asked<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), |on, conn| {
        if on == On::Closing {
            conn.output.write(b"7");
        }
        echo(on, conn)
    });
    let (mut peers, remotes) = open(&mut stage, 2);
    let (other, late) = (remotes[1].id(), remotes[1].clone());
    run(&remotes[0], move |conn| {
        late.write("6").expect("it is open"); // It waits in the inbox.
        conn.neighbours().write(other, "1");
        let here = Rc::new("2"); // It needs no Send.
        let ran = conn.neighbours().run(other, move |_, conn| {
            conn.output.write(here.as_bytes());
            conn.neighbours().write(other, "5"); // Asked after the others.
            Action::Continue
        });
        assert_eq!(ran, Ok(()));
        conn.neighbours().write_to_all([other], "3");
        conn.neighbours().write(other, "4");
    });
    assert_same(&stage.receive(&mut peers[1], 6), b"123456");
    run(&remotes[0], move |conn| {
        conn.neighbours().close(other);
        conn.neighbours().write(other, "nothing"); // It is closing.
    });
    assert_same(&stage.receive_end(&mut peers[1]), b"7");
    assert!(!remotes[1].is_open());
    peers[1].end();
    stage.closed_by("local");
    peers[0].end();
    stage.closed_by("peer");
}

/// What a callback asks of others is done at once, and does not wait for the inbox.
pub(crate) fn it_is_done_before_what_waits_in_the_inbox<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder().inbox_budget(1), echo);
    let (mut peers, remotes) = open(&mut stage, 2);
    let other = remotes[1].id();
    let (first, second) = (remotes[0].clone(), remotes[1].clone());
    // As one callback asks all of it, it is in the inbox together.
    run(&remotes[0], move |_| {
        run(&first, move |conn| conn.neighbours().write(other, "1"));
        run(&second, |conn| conn.output.write(b"2"));
        run(&first, move |conn| conn.neighbours().write(other, "3"));
    });
    assert_same(&stage.receive(&mut peers[1], 3), b"123");
    end_all(&mut stage, peers);
}

/// That goes also for so much that it takes several turns.
pub(crate) fn all_of_it_is_done_before_what_waits_in_the_inbox<W: World>(seed: u64) {
    const TIMES: usize = 40_000;
    let mut stage = Stage::<W>::start(seed, Engine::builder(), echo);
    let (mut peers, remotes) = open(&mut stage, 2);
    let (other, second) = (remotes[1].id(), remotes[1].clone());
    run(&remotes[0], move |conn| {
        conn.neighbours().write_to_all(std::iter::repeat_n(other, TIMES), "1");
        run(&second, |conn| conn.output.write(b"2"));
    });
    let expected = [vec![b'1'; TIMES], vec![b'2']].concat();
    assert_same(&stage.receive(&mut peers[1], expected.len()), &expected);
    end_all(&mut stage, peers);
}

pub(crate) fn a_neighbour_can_be_woken<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), |on, conn| {
        if conn.state.mark == 1 {
            conn.output.write(conn.input.take_all());
        }
        on.usual()
    });
    let (mut peers, remotes) = open(&mut stage, 2);
    let other = remotes[1].id();
    stage.send(&mut peers[1], b"hello");
    while stage.wait_for(On::Traffic).unread < 5 {}
    run(&remotes[0], move |conn| {
        let marked = conn.neighbours().run(other, |_, conn| {
            conn.state.mark = 1;
            Action::Continue
        });
        assert_eq!(marked, Ok(()));
        conn.neighbours().wake(other);
    });
    assert_same(&stage.receive(&mut peers[1], 5), b"hello");
    end_all(&mut stage, peers);
}

pub(crate) fn a_neighbour_can_be_cut_off<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), collect);
    let (mut peers, remotes) = open(&mut stage, 2);
    let other = remotes[1].id();
    run(&remotes[0], move |conn| {
        conn.neighbours().write(other, "lost");
        conn.neighbours().close(other);
        conn.neighbours().close_now(other);
    });
    assert_same(&stage.receive_reset(&mut peers[1]), b"");
    assert_eq!(stage.closed_by("local").id, Some(other));
    peers.pop();
    end_all(&mut stage, peers);
}

/// Nor is anything done to the one that has its place.
pub(crate) fn nothing_is_done_to_one_that_is_gone<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), echo);
    let (mut peers, remotes) = open(&mut stage, 2);
    let gone = remotes[1].id();
    peers.pop().expect("there are two").end();
    stage.closed_by("peer");
    let (mut successor, _) = stage.open();
    let (kept, dropped) = (Arc::new(()), Arc::new(()));
    let holds = Arc::clone(&kept);
    run(&remotes[0], move |conn| {
        let neighbours = conn.neighbours();
        neighbours.write(gone, "nothing");
        neighbours.wake(gone);
        let ran = neighbours.run(gone, move |_, _| panic!("{holds:?} is gone"));
        assert_eq!(ran, Ok(()));
        neighbours.close(gone);
        neighbours.close_now(gone);
        drop(dropped);
    });
    stage.until("the closure is dropped", |_| Arc::strong_count(&kept) == 1);
    assert_same(&stage.exchange(&mut successor, b"echo", 4, true), b"echo");
    stage.closed_by("peer");
    assert_eq!(stage.panics(), 0);
    end_all(&mut stage, peers);
}

pub(crate) fn a_neighbour_is_told_that_much_waits<W: World>(seed: u64) {
    let much = Bytes::from(vec![7; 2 * W::STUCK]);
    let builder = Engine::builder().water_marks(W::STUCK / 2, W::STUCK).output_cap(3 * W::STUCK);
    let mut stage = Stage::<W>::start(seed, builder, collect);
    let (mut peers, remotes) = open(&mut stage, 2);
    let other = remotes[1].id();
    let bytes = much.clone();
    run(&remotes[0], move |conn| conn.neighbours().write(other, bytes));
    let note = stage.expect(On::HighWater);
    assert_eq!((note.id, note.pending), (Some(other), much.len()));
    assert_same(&stage.receive(&mut peers[1], much.len()), &much);
    assert_eq!(stage.wait_for(On::LowWater).id, Some(other));
    // Beyond the cap it closes, like one that writes too much itself.
    run(&remotes[0], move |conn| {
        let twice = [other, other];
        conn.neighbours().write_to_all(twice, much);
        conn.neighbours().write(other, "nothing");
    });
    assert_eq!(stage.closed_by("output overflow").id, Some(other));
    peers.pop();
    end_all(&mut stage, peers);
}

pub(crate) fn a_panic_keeps_nothing_from_being_done<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), collect);
    let (mut peers, remotes) = open(&mut stage, 4);
    let all = ids(&remotes);
    let asked = remotes[0].run(move |_, conn| {
        let all = all.clone();
        conn.neighbours().write_to_all(all.iter().copied(), "before ");
        let ran = conn.neighbours().run(all[1], |_, _| panic!("expected: a closure panics"));
        assert_eq!(ran, Ok(()));
        let fails = all.iter().map(|id| {
            assert!(*id != all[2], "expected: an iterator panics");
            *id
        });
        conn.neighbours().write(all[3], "and after");
        conn.neighbours().write_to_all(fails, "what is not asked");
        Action::Continue
    });
    asked.expect("it is open");
    assert_same(&stage.receive(&mut peers[3], 16), b"before and after");
    assert_same(&stage.receive(&mut peers[2], 7), b"before ");
    for _ in 0..2 {
        let id = stage.closed_by("panicked").id.expect("a connection");
        assert!(id == remotes[0].id() || id == remotes[1].id(), "{id} has not panicked");
    }
    stage.has_panicked(2);
    end_all(&mut stage, peers.split_off(2));
}

/// A chain of closures, each of which asks the other connection for the next one, lets others have
/// their turns.
pub(crate) fn what_asks_for_more_holds_up_nobody<W: World>(seed: u64) {
    fn pass(conn: &Conn<'_, Recorder>, to: [ConnId; 2], passes: Arc<AtomicUsize>) {
        passes.fetch_add(1, Ordering::Relaxed);
        let passed = conn.neighbours().run(to[0], move |_, conn| {
            if conn.state.mark == 0 {
                pass(conn, [to[1], to[0]], passes);
            }
            Action::Continue
        });
        assert_eq!(passed, Ok(()));
    }
    let mut stage = Stage::<W>::start(seed, Engine::builder(), echo);
    let (peers, remotes) = open(&mut stage, 2);
    let to = [remotes[0].id(), remotes[1].id()];
    let passes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&passes);
    run(&remotes[0], move |conn| pass(conn, to, counted));
    stage.until("it goes on", |_| passes.load(Ordering::Relaxed) > 100);
    run(&remotes[1], |conn| conn.state.mark = 1); // It comes by the inbox.
    stage.until("it is over", |_| Arc::strong_count(&passes) == 1);
    end_all(&mut stage, peers);
}

/// More than a turn may do is done in the next ones, in order, and before more is received.
pub(crate) fn much_is_done_in_several_turns<W: World>(seed: u64) {
    const TIMES: usize = 5_000;
    let mut stage = Stage::<W>::start(seed, Engine::builder(), |on, conn| {
        if on == On::Traffic {
            let all = conn.input.take_all()[0..2].to_vec();
            assert_eq!(all, b"go");
        }
        on.usual()
    });
    let (mut peers, remotes) = open(&mut stage, 3);
    let all = ids(&remotes);
    run(&remotes[0], move |conn| {
        let many = || all.iter().copied().cycle().take(TIMES * all.len());
        conn.neighbours().write_to_all(many(), "1");
        conn.neighbours().write_to_all(many(), "2");
        let ran = conn.neighbours().run(all[2], |_, conn| {
            conn.output.write(b"3");
            Action::Continue
        });
        assert_eq!(ran, Ok(()));
    });
    let expected = [vec![b'1'; TIMES], vec![b'2'; TIMES], vec![b'3']].concat();
    for (place, peer) in peers.iter_mut().enumerate() {
        let expected = &expected[..2 * TIMES + usize::from(place == 2)];
        assert_same(&stage.receive(peer, expected.len()), expected);
    }
    end_all(&mut stage, peers);
}

pub(crate) fn callbacks_of_the_reactor_reach_its_connections<W: World>(seed: u64) {
    let shared = Arc::new(Mutex::new(Vec::<ConnId>::new()));
    let listed = Arc::clone(&shared);
    let recorder = Recorder::new(collect).with_tick(move |reactor| {
        let all = listed.lock().expect("nobody panics").clone();
        reactor.neighbours().write_to_all(all, "tick ");
        reactor.set_tick(None);
    });
    let mut stage = Stage::<W>::with(seed, Engine::builder(), recorder);
    let (mut peers, remotes) = open(&mut stage, 2);
    let all = ids(&remotes);
    shared.lock().expect("nobody panics").clone_from(&all);
    let reactors = stage.world.reactors();
    let ticks = reactors.run(0, |_, reactor| {
        reactor.set_tick(Some(Duration::from_millis(5)));
        ReactorAction::Continue
    });
    assert_eq!(ticks, Ok(()));
    for peer in &mut peers {
        assert_same(&stage.receive(peer, 5), b"tick ");
    }
    let told = all.clone();
    let ran = reactors.run(0, move |_, reactor| {
        reactor.neighbours().write_to_all(told, "closure ");
        ReactorAction::Continue
    });
    assert_eq!(ran, Ok(()));
    for peer in &mut peers {
        assert_same(&stage.receive(peer, 8), b"closure ");
    }
    let (listener, address) = stage.world.listen();
    let connect = W::dress(Connect::to(address));
    let connected = reactors.connect(0, connect, move |_, reactor, conn| {
        let conn = conn.expect("it listens");
        reactor.neighbours().write_to_all(all.iter().copied(), "made ");
        conn.neighbours().write_to_all(all, "here");
        reactor.neighbours().write(conn.id(), "hello");
        Action::Continue
    });
    assert_eq!(connected, Ok(()));
    for peer in &mut peers {
        assert_same(&stage.receive(peer, 9), b"made here");
    }
    let mut made = stage.accept(&listener);
    assert_same(&stage.receive(&mut made, 5), b"hello");
    peers.push(made);
    end_all(&mut stage, peers);
}

/// Also as it closes, and as the engine stops.
pub(crate) fn the_others_are_told_that_one_leaves<W: World>(seed: u64) {
    let shared = Arc::new(Mutex::new(Vec::<ConnId>::new()));
    let listed = Arc::clone(&shared);
    let mut stage = Stage::<W>::start(seed, Engine::builder(), move |on, conn| {
        let mut all = listed.lock().expect("nobody panics");
        match on {
            On::Open => all.push(conn.id()),
            On::Closing => {
                all.retain(|id| *id != conn.id());
                conn.neighbours().write_to_all(all.iter().copied(), "leaves ");
            }
            On::Close => conn.neighbours().write_to_all(all.iter().copied(), "left "),
            _ => {}
        }
        on.usual()
    });
    let (mut peers, _) = open(&mut stage, 3);
    peers.pop().expect("there are three").end();
    stage.closed_by("peer");
    for peer in &mut peers {
        assert_same(&stage.receive(peer, 12), b"leaves left ");
    }
    shared.lock().expect("nobody panics").clear(); // Their own ends tell nobody.
    end_all(&mut stage, peers);
}

/// What is asked when the engine stops is done before connections begin to close.
pub(crate) fn a_stop_can_be_told_to_all<W: World>(seed: u64) {
    let shared = Arc::new(Mutex::new(Vec::<ConnId>::new()));
    let listed = Arc::clone(&shared);
    let handler = Recorder::new(collect).with_shutdown(move |reactor| {
        let all = listed.lock().expect("nobody panics").clone();
        for _ in 0..10_000 {
            reactor.neighbours().write_to_all(all.iter().copied(), "1");
        }
        reactor.neighbours().write_to_all(all, "2");
    });
    let mut stage = Stage::<W>::with(seed, Engine::builder(), handler);
    let (mut peers, remotes) = open(&mut stage, 3);
    shared.lock().expect("nobody panics").clone_from(&ids(&remotes));
    assert_eq!(stage.stop(DEADLINE), Ok(()));
    let expected = [vec![b'1'; 10_000], vec![b'2']].concat();
    for peer in &mut peers {
        assert_same(&stage.receive_end(peer), &expected);
        peer.end();
    }
    stage.wait_for_the_end();
}
