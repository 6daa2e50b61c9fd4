//! Bytes in, bytes out.

use std::io::IoSlice;

use millstream::{Action, Conn, Engine};

use crate::common::recorder::{On, Recorder, echo};
use crate::common::{assert_same, pattern};
use crate::stage::Stage;
use crate::world::World;

const MIB: usize = 1024 * 1024;

/// Sizes around what matters: a byte, large writes, the receive buffer. With faults a mebibyte
/// takes its time, so only the first seed has it, and the others a size by chance.
fn sizes<W: World>(seed: u64) -> Vec<usize> {
    let every = [1, 999, 16 * 1024 - 1, 16 * 1024, 64 * 1024 + 1, MIB];
    if seed == 0 { every.to_vec() } else { vec![fastrand::Rng::with_seed(seed).usize(1..W::STUCK)] }
}

pub(crate) fn every_size_comes_back<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), echo);
    for size in sizes::<W>(seed) {
        let bytes = pattern(size, seed);
        let (mut peer, _) = stage.open();
        let echoed = stage.exchange(&mut peer, &bytes, size, false);
        assert_same(&echoed, &bytes);
        peer.end();
        assert_same(&stage.receive_end(&mut peer), b"");
        stage.closed_by("peer");
    }
}

pub(crate) fn each_peer_gets_its_own_bytes<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), echo);
    let mut peers: Vec<_> = (0..10).map(|_| stage.connect()).collect();
    let bytes = |peer: usize| pattern(700 + 50 * peer, seed * 10 + peer as u64);
    for (index, peer) in peers.iter_mut().enumerate() {
        stage.send(peer, &bytes(index));
    }
    for (index, peer) in peers.iter_mut().enumerate().rev() {
        let expected = bytes(index);
        let echoed = stage.receive(peer, expected.len());
        assert_same(&echoed, &expected);
    }
}

/// A script: replies to each whole frame (two bytes of length, then as many) with its payload.
fn answer_frames(on: On, conn: &mut Conn<'_, Recorder>) -> Action {
    while let Some(head) = conn.input.peek_exact(2) {
        let len = usize::from(u16::from_be_bytes([head[0], head[1]]));
        let Some(frame) = conn.input.take(2 + len) else { break };
        conn.output.write(&frame[2..]);
    }
    on.usual()
}

/// F22 of the fault checklist.
pub(crate) fn half_a_frame_waits_for_its_other_half<W: World>(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut stage = Stage::<W>::start(seed, Engine::builder().receive_buffer(512), answer_frames);
    let (mut peer, _) = stage.open();
    let (mut frames, mut payloads) = (Vec::new(), Vec::new());
    for number in 0..20 {
        let payload = pattern(rng.usize(0..1500), seed + number);
        frames.extend((payload.len() as u16).to_be_bytes());
        frames.extend(&payload);
        payloads.extend(payload);
    }
    let mut answers = Vec::new();
    let mut rest = &frames[..];
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(rng.usize(1..=rest.len().min(900)));
        answers.extend(stage.exchange(&mut peer, chunk, 0, false));
        rest = behind;
    }
    let missing = payloads.len() - answers.len();
    answers.extend(stage.receive(&mut peer, missing));
    assert_same(&answers, &payloads);
}

pub(crate) fn what_is_left_unread_comes_again_in_front_of_the_next_bytes<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), |on, conn| {
        if conn.input.len() == 6 {
            conn.output.write(conn.input.take_all());
        }
        on.usual()
    });
    let (mut peer, _) = stage.open();
    for (sent, unread) in [(b"ab", 2), (b"cd", 4), (b"ef", 6)] {
        stage.send(&mut peer, sent);
        while stage.expect(On::Traffic).unread < unread {}
    }
    assert_same(&stage.receive(&mut peer, 6), b"abcdef");
}

pub(crate) fn what_on_open_writes_goes_out_without_a_byte_from_the_peer<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), |on, conn| {
        if on == On::Open {
            conn.output.write(b"welcome");
        }
        on.usual()
    });
    let mut peer = stage.connect();
    assert_same(&stage.receive(&mut peer, 7), b"welcome");
}

/// F13 of the fault checklist. The network takes some of the slices whole, and nothing of others.
pub(crate) fn a_gathered_write_keeps_every_slice<W: World>(seed: u64) {
    let body = pattern(W::STUCK, seed);
    let slices: [&[u8]; 6] = [b"", b"head", b"", &body[..20_000.min(W::STUCK)], &body, b"tail"];
    let (small, large) = (slices[..3].concat(), slices.concat());
    let owned = slices.map(<[u8]>::to_vec);
    let mut stage = Stage::<W>::start(seed, Engine::builder(), move |on, conn| {
        let slices = [0, 1, 2, 3, 4, 5].map(|index| IoSlice::new(&owned[index]));
        match conn.input.take_all() {
            b"s" => conn.output.write_vectored(&slices[..3]),
            b"l" => conn.output.write_vectored(&slices),
            _ => {}
        }
        on.usual()
    });
    let (mut peer, _) = stage.open();
    for (ask, expected) in [(b"s", &small), (b"l", &large), (b"s", &small), (b"l", &large)] {
        stage.send(&mut peer, ask);
        assert_same(&stage.receive(&mut peer, expected.len()), expected);
    }
}
