//! What the server serves, and what of it was run.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use millstream::rpc::{Answer, Call, Format, Reply, Router, Status};

/// The key of the metadata that a response has: the number of its call.
pub const NUMBER: &str = "number";

/// A request's body begins with the number of its call, and with how long its method takes in
/// milliseconds.
pub fn body(number: usize, delay: Duration, filler: usize) -> Vec<u8> {
    let mut body = (number as u32).to_be_bytes().to_vec();
    body.extend((delay.as_millis() as u32).to_be_bytes());
    body.extend((0..filler).map(|at| (number + at) as u8));
    body
}

fn read_u32(body: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(body[at..at + 4].try_into().expect("four bytes"))
}

/// What the methods have noted; clones share it.
#[derive(Clone, Default)]
pub struct Methods(Arc<Mutex<Noted>>);

#[derive(Default)]
pub struct Noted {
    /// The numbers of the calls that were run.
    pub run: Vec<u32>,
    /// Replies that are to be given at a time.
    due: Vec<(Instant, Reply, Bytes)>,
    /// Those that are never given.
    pub kept: Vec<Reply>,
}

impl Methods {
    pub fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().expect("no test has panicked")
    }

    pub fn router(&self) -> Router {
        let [now, in_place, later, never, dropped, fails] = [(); 6].map(|()| self.clone());
        Router::new()
            .method("sim.Sim/now", move |call: &mut Call<'_>| {
                now.note(call);
                call.answer(call.body())
            })
            .method("sim.Sim/in_place", move |call: &mut Call<'_>| {
                in_place.note(call);
                let body = call.body();
                call.answer_with(Format::RAW, |writer| {
                    writer.write_all(body).map_err(|error| Status::data_loss(error.to_string()))
                })
            })
            .method("sim.Sim/later", move |call: &mut Call<'_>| Ok(later.take(call)))
            .method("sim.Sim/never", move |call: &mut Call<'_>| {
                never.note(call);
                let (answer, reply) = call.answer_later();
                never.noted().kept.push(reply);
                Ok(answer)
            })
            .method("sim.Sim/dropped", move |call: &mut Call<'_>| {
                dropped.note(call);
                Ok(call.answer_later().0)
            })
            .method("sim.Sim/fails", move |call: &mut Call<'_>| {
                Err(Status::not_found(fails.note(call)))
            })
    }

    /// Notes that a call is run; returns its number.
    fn note(&self, call: &mut Call<'_>) -> String {
        let number = read_u32(call.body(), 0);
        call.outgoing().insert(NUMBER, number.to_string()).expect("a pair");
        self.noted().run.push(number);
        number.to_string()
    }

    fn take(&self, call: &mut Call<'_>) -> Answer {
        let number = self.note(call);
        let delay = Duration::from_millis(read_u32(call.body(), 4).into());
        let (answer, mut reply) = call.answer_later();
        reply.metadata().insert(NUMBER, number).expect("a pair");
        let due = (call.now() + delay, reply, Bytes::copy_from_slice(call.body()));
        self.noted().due.push(due);
        answer
    }

    /// Gives the replies that are due.
    pub fn reply(&self, now: Instant) {
        let due: Vec<_> = self.noted().due.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, reply, body) in due {
            reply.send(body);
        }
    }

    /// When the next reply is due.
    pub fn next_reply(&self) -> Option<Instant> {
        self.noted().due.iter().map(|(at, ..)| *at).min()
    }

    /// How many replies there are that were not given.
    pub fn replies(&self) -> usize {
        let noted = self.noted();
        noted.due.len() + noted.kept.len()
    }

    /// The connection is gone: the holder of a reply can see it.
    pub fn check_all_know(&self) {
        let noted = self.noted();
        let replies = noted.due.iter().map(|(_, reply, _)| reply).chain(&noted.kept);
        for reply in replies {
            assert!(reply.is_cancelled(), "{reply:?} does not know that nobody waits");
        }
    }
}
