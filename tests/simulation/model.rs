//! What should happen: each connection's life, every byte of both directions, every completion.
//!
//! A panic in a callback is a thing that the engine survives, so what is found wrong is kept here
//! and looked at between turns.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millstream::{Closed, Remote};

use crate::actor::Actor;

/// The model, for everybody.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Model>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Model> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A completion for a request, which it must be called for once; it may panic itself.
    pub(crate) fn completion(
        &self,
        panics: bool,
    ) -> (usize, impl FnOnce(Result<(), Closed>) + Send + 'static + use<>) {
        let mut model = self.lock();
        let request = model.answers.len();
        model.answers.push(None);
        drop(model);
        let shared = self.clone();
        let complete = move |answer: Result<(), Closed>| {
            let mut model = shared.lock();
            model.note(&("completion", request, answer.is_ok()));
            let first = model.answers[request].replace(answer).is_none();
            model.demand(first, || format!("request {request} completed twice"));
            drop(model);
            assert!(!panics, "expected: a panic in a completion");
        };
        (request, complete)
    }
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) lives: BTreeMap<SocketAddr, Life>,
    /// Where the engine may connect to, each address once.
    pub(crate) targets: Vec<SocketAddr>,
    /// How often it was told what came of each attempt to connect.
    pub(crate) attempts: Vec<usize>,
    /// How many of them were refused at once.
    pub(crate) attempts_refused: usize,
    /// What completions said.
    pub(crate) answers: Vec<Option<Result<(), Closed>>>,
    /// The last closure that each reactor ran, of those that were asked for from outside.
    pub(crate) last_tickets: BTreeMap<usize, u64>,
    /// How many things happened.
    pub(crate) events: u64,
    /// When the stop's patience ends, in virtual time.
    pub(crate) stop_by: Option<Duration>,
    wrong: Vec<String>,
    digest: DefaultHasher,
}

/// Who wrote a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// The handler, as the answer to a frame.
    Echo = 1,
    /// The handler, unasked.
    Own = 2,
    /// Somebody outside.
    Outside = 3,
    /// A callback of another connection of its reactor.
    Neighbour = 4,
}

/// A connection, from its peer's connect on.
#[derive(Default)]
pub(crate) struct Life {
    /// All the peer may send: frames of two bytes of length and the payload.
    pub(crate) stream: Vec<u8>,
    /// The payloads in it.
    pub(crate) frames: Vec<Vec<u8>>,
    /// How much of the stream it sent.
    pub(crate) sent: usize,
    /// It ended its side, closed or reset.
    pub(crate) peer_left: bool,
    /// How much of the stream the handler was shown, and took.
    pub(crate) shown: usize,
    pub(crate) taken: usize,
    pub(crate) frames_taken: usize,
    /// The records that the handler wrote, in order, by source and number, and their payloads'
    /// lengths.
    pub(crate) written: Vec<(Source, usize, usize)>,
    /// What was written from outside: the payload's length, and the request, if it has a
    /// completion.
    pub(crate) outside: Vec<(usize, Option<usize>)>,
    /// The lengths of what its neighbours' callbacks wrote.
    pub(crate) neighbours: Vec<usize>,
    /// Its idle, read and write timeouts.
    pub(crate) timeouts: [Option<Duration>; 3],
    pub(crate) opened_at: Duration,
    /// How long it was there from then on.
    pub(crate) lasted: Duration,
    /// A write was not taken.
    pub(crate) cut: bool,
    pub(crate) opened: bool,
    pub(crate) ended: bool,
    pub(crate) above: bool,
    pub(crate) paused: bool,
    pub(crate) woken: bool,
    pub(crate) panicked: bool,
    pub(crate) asked_to_close: bool,
    /// Somebody outside closed it.
    pub(crate) shut: bool,
    pub(crate) closing: bool,
    pub(crate) closed: Option<&'static str>,
    pub(crate) dropped: bool,
    /// The handler had it relayed: its bytes go elsewhere.
    pub(crate) relays: bool,
    /// Whose bytes go out on it; nobody writes to it from then on.
    pub(crate) source: Option<SocketAddr>,
    /// The handler ended it, or its output.
    pub(crate) ends_itself: bool,
    /// How many relayed bytes its peer received before an orderly end.
    pub(crate) relayed: Option<usize>,
    /// Its handle.
    pub(crate) remote: Option<Remote<Actor>>,
}

impl Model {
    /// Adds to the history.
    pub(crate) fn note(&mut self, event: &impl Hash) {
        self.events += 1;
        event.hash(&mut self.digest);
    }

    /// Something must be so.
    pub(crate) fn demand(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(what());
        }
    }

    #[track_caller]
    pub(crate) fn assert_nothing_wrong(&self) {
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
    }

    /// The history so far.
    pub(crate) fn digest(&self) -> u64 {
        self.digest.finish()
    }

    pub(crate) fn life(&mut self, peer: SocketAddr) -> &mut Life {
        self.lives.entry(peer).or_default()
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.lives.values().filter(|life| life.opened && life.closed.is_none()).count()
    }

    /// How many of them are on a reactor.
    pub(crate) fn open_on(&self, reactor: usize) -> usize {
        let is_open = |life: &&Life| life.opened && life.closed.is_none();
        let of = |life: &Life| life.remote.as_ref().map(|remote| remote.id().reactor());
        self.lives.values().filter(is_open).filter(|life| of(life) == Some(reactor)).count()
    }

    /// The engine is gone: everything has come to its end.
    pub(crate) fn check_the_end(&mut self) {
        let unanswered = self.answers.iter().filter(|answer| answer.is_none()).count();
        self.demand(unanswered == 0, || format!("{unanswered} requests never completed"));
        let answers = self.attempts.clone();
        let told_once = answers.iter().all(|answers| *answers == 1);
        self.demand(told_once, || format!("attempts were told so often: {answers:?}"));
        let lives = std::mem::take(&mut self.lives);
        for (peer, life) in &lives {
            let over = life.closed.is_some() && life.dropped;
            self.demand(over == life.opened, || format!("{peer} is not over"));
            let whole = life.is_whole(&lives);
            self.demand(whole, || format!("{peer}: an orderly end before all was relayed"));
        }
        self.lives = lives;
    }

    /// What a peer received must be the beginning of what was written for it, and if it saw an
    /// orderly end, all of it.
    pub(crate) fn check_received(&mut self, peer: SocketAddr, received: &[u8], orderly: bool) {
        let life = self.lives.get(&peer).expect("it connected");
        let source = life.source.map(|source| &self.lives[&source]);
        match life.check(received, orderly, source, &self.answers) {
            Ok(relayed) => self.life(peer).relayed = relayed.filter(|_| orderly),
            Err(what) => self.wrong.push(format!("{peer}: {what}")),
        }
    }
}

impl Life {
    /// Whether all that its source sent was relayed, if that was what ended it.
    fn is_whole(&self, lives: &BTreeMap<SocketAddr, Life>) -> bool {
        let ends_itself = self.ends_itself || self.asked_to_close;
        let ended_by_source = self.closed == Some("peer") && !ends_itself;
        match (self.source, self.relayed) {
            (Some(source), Some(relayed)) if ended_by_source => {
                lives[&source].sent - lives[&source].taken == relayed
            }
            _ => true,
        }
    }

    /// Returns how many relayed bytes came behind all that was written.
    fn check(
        &self,
        received: &[u8],
        orderly: bool,
        source: Option<&Life>,
        answers: &[Option<Result<(), Closed>>],
    ) -> Result<Option<usize>, String> {
        let (mut written, mut outside, mut neighbours) = (self.written.iter(), 0, 0);
        let mut rest = received;
        let mut torn = false;
        let mut relayed = None;
        while let Some(&first) = rest.first() {
            // The last of what neighbours wrote may have come too late.
            let is_neighbours = neighbours < self.neighbours.len();
            let is_neighbours = is_neighbours && first == Source::Neighbour as u8;
            if written.len() == 0 && outside == self.outside.len() && !is_neighbours {
                let source = source.ok_or("more than written")?;
                if !source.stream[source.taken..source.sent].starts_with(rest) {
                    return Err(format!("{} bytes are not what was relayed", rest.len()));
                }
                relayed = Some(rest.len());
                break;
            }
            let record = if first == Source::Neighbour as u8 {
                let number = neighbours;
                neighbours += 1;
                let len = self.neighbours.get(number).ok_or("more from neighbours than written")?;
                self.record(Source::Neighbour, number, *len)
            } else if first == Source::Outside as u8 {
                let number = outside;
                outside += 1;
                let (len, _) = self.outside.get(number).ok_or("more from outside than written")?;
                self.record(Source::Outside, number, *len)
            } else {
                let (source, number, len) = written.next().ok_or("more than written")?;
                self.record(*source, *number, *len)
            };
            let len = record.len().min(rest.len());
            if rest[..len] != record[..len] {
                let at = received.len() - rest.len();
                let differs = rest.iter().zip(&record).position(|(got, written)| got != written);
                let heads = (&rest[..len.min(9)], &record[..9]);
                return Err(format!(
                    "not what was written in the record at {at}, from byte {differs:?} on: {heads:?}"
                ));
            }
            torn = len < record.len();
            rest = &rest[len..];
        }
        if !orderly {
            return Ok(None);
        }
        if torn || written.next().is_some() || self.cut {
            return Err(format!("an orderly end after {} bytes, not all", received.len()));
        }
        self.check_answers(outside, answers)?;
        Ok(Some(relayed.unwrap_or(0)))
    }

    /// After an orderly end: whose completion said that it was sent has arrived, the others have
    /// not.
    fn check_answers(
        &self,
        arrived: usize,
        answers: &[Option<Result<(), Closed>>],
    ) -> Result<(), String> {
        for (number, (_, request)) in self.outside.iter().enumerate() {
            let answer = request.and_then(|request| answers[request]);
            if answer.is_some_and(|answer| answer.is_ok() != (number < arrived)) {
                return Err(format!("{arrived} writes arrived, but write {number}: {answer:?}"));
            }
        }
        Ok(())
    }

    /// A record as it goes over the wire.
    pub(crate) fn record(&self, source: Source, number: usize, len: usize) -> Vec<u8> {
        match source {
            Source::Echo => record(source, number, &self.frames[number]),
            Source::Own | Source::Outside | Source::Neighbour => {
                record(source, number, &filler(source, number, len))
            }
        }
    }
}

fn record(source: Source, number: usize, payload: &[u8]) -> Vec<u8> {
    let mut record = vec![source as u8];
    record.extend((number as u32).to_be_bytes());
    record.extend((payload.len() as u32).to_be_bytes());
    record.extend_from_slice(payload);
    record
}

fn filler(source: Source, number: usize, len: usize) -> Vec<u8> {
    let start = 7 * number + source as usize;
    (start..start + len).map(|value| (value % 251) as u8).collect()
}
