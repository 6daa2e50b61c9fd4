//! Layers around a call that has no connection.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use super::{Chain, Middleware};
use crate::rpc::call::{Answer, Call, Handler};
use crate::rpc::lone::LoneCall;
use crate::rpc::reply::Reply;
use crate::rpc::status::Status;

/// What happened, in its order.
type Notes = Arc<Mutex<Vec<String>>>;

/// A layer that notes what it sees, and may end the call.
#[derive(Clone)]
struct Noting {
    name: &'static str,
    notes: Notes,
    refuses: bool,
}

impl Middleware for Noting {
    fn handle(&self, call: &mut Call<'_>, next: &mut impl Handler) -> Result<Answer, Status> {
        let (name, notes) = (self.name, Arc::clone(&self.notes));
        notes.lock().unwrap().push(format!("{name} begins"));
        call.on_end(move |end| {
            let how = end.status.map_or("well".to_owned(), Status::to_string);
            notes.lock().unwrap().push(format!("{name} ends: {how}"));
        });
        if self.refuses {
            return Err(Status::aborted(name));
        }
        let result = next.handle(call);
        let outcome = match &result {
            Ok(answer) if answer.is_later() => "later",
            Ok(_) => "now",
            Err(_) => "failed",
        };
        self.notes.lock().unwrap().push(format!("{name} sees: {outcome}"));
        result
    }
}

/// Three layers, of which the second one may refuse the call, and their notes.
fn layers(refuses: bool) -> (impl Middleware, Notes) {
    let notes = Notes::default();
    let layer = |name, refuses| Noting { name, notes: Arc::clone(&notes), refuses };
    let chain = Chain::new(Chain::new(layer("a", false), layer("b", refuses)), layer("c", false));
    (chain, notes)
}

fn assert_notes(notes: &Notes, expected: &[&str]) {
    assert_eq!(*notes.lock().unwrap(), expected);
}

#[test]
fn layers_are_passed_in_order_and_told_in_reverse() {
    let (layers, notes) = layers(false);
    let end = LoneCall::new().make(&layers, &mut |call: &mut Call<'_>| call.answer(b"yes"), || {});
    assert_eq!(end.result.unwrap(), "yes");
    assert_notes(
        &notes,
        &[
            "a begins",
            "b begins",
            "c begins",
            "c sees: now",
            "b sees: now",
            "a sees: now",
            "c ends: well",
            "b ends: well",
            "a ends: well",
        ],
    );
}

#[test]
fn a_layer_in_the_middle_ends_the_call() {
    let (layers, notes) = layers(true);
    let mut handler = |_: &mut Call<'_>| -> Result<Answer, Status> { unreachable!() };
    let end = LoneCall::new().make(&layers, &mut handler, || {});
    assert_eq!(end.result, Err(Status::aborted("b")));
    assert_notes(
        &notes,
        &["a begins", "b begins", "a sees: failed", "b ends: ABORTED: b", "a ends: ABORTED: b"],
    );
}

/// Takes the reply, for the one who is to answer.
fn taking(replies: Sender<Reply>) -> impl Handler {
    move |call: &mut Call<'_>| {
        let (answer, reply) = call.answer_later();
        replies.send(reply).unwrap();
        Ok(answer)
    }
}

#[test]
fn layers_are_told_of_a_later_answer_when_it_comes() {
    for answers in [true, false] {
        let (layers, notes) = layers(false);
        let (replies, taken) = channel();
        let so_far =
            ["a begins", "b begins", "c begins", "c sees: later", "b sees: later", "a sees: later"];
        let end = LoneCall::new().make(&layers, &mut taking(replies), || {
            assert_notes(&notes, &so_far);
            let reply = taken.recv().unwrap();
            if answers { reply.send("yes") } else { drop(reply) }
        });
        let how = match end.result {
            Ok(body) => {
                assert_eq!(body, "yes");
                "well".to_owned()
            }
            Err(status) => status.to_string(),
        };
        assert_eq!(how == "well", answers);
        let ends = ["c", "b", "a"].map(|name| format!("{name} ends: {how}"));
        assert_eq!(notes.lock().unwrap()[so_far.len()..], ends);
    }
}

#[test]
fn a_call_is_answered_once() {
    let mut again = |call: &mut Call<'_>| {
        call.answer(b"one")?;
        call.answer(b"two")
    };
    let end = LoneCall::new().make(&(), &mut again, || {});
    assert_eq!(end.result.unwrap(), "one");
}
