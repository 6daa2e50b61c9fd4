//! Layers around a client's calls.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use millstream::rpc::{Answer, Call, Code, Handler, Middleware, Reply, Request, Status};

use super::puppet::{Seen, Stage};
use super::{ask, begin, block_on, builder, code, echo, finish, receive};
use crate::common::{FragilePayload, eventually};

use crate::common::wire::Wire;

with_and_without_tls! {
    layers_are_passed_from_outside_and_told_the_end_from_inside
    a_layer_answers_by_itself_or_changes_what_is_sent
}

type Notes = Arc<Mutex<Vec<String>>>;

/// Notes when it is passed, and how the call ends.
#[derive(Clone)]
struct Noting(&'static str, Notes);

impl Middleware for Noting {
    fn handle(&self, call: &mut Call<'_>, next: &mut impl Handler) -> Result<Answer, Status> {
        let Noting(name, notes) = self.clone();
        self.1.lock().unwrap().push(format!("{name} sees {}", call.method()));
        call.on_end(move |end| {
            let status = end.status.map_or(Code::Ok, Status::code);
            notes.lock().unwrap().push(format!("{name} ends {status}"));
        });
        next.handle(call)
    }
}

fn taken(notes: &Notes) -> Vec<String> {
    std::mem::take(&mut notes.lock().unwrap())
}

fn layers_are_passed_from_outside_and_told_the_end_from_inside(wire: Wire) {
    let (stage, notes) = (Stage::new(wire), Notes::default());
    let layer = |name| Noting(name, Arc::clone(&notes));
    let builder = builder(wire, stage.address()).layer(layer("outer")).layer(layer("inner"));
    let client = builder.build().expect("it starts");
    client.call(echo("")).expect("it is answered");
    let passed = ["outer sees t/echo", "inner sees t/echo", "inner ends OK", "outer ends OK"];
    assert_eq!(taken(&notes), passed);
    let ended = begin(&client, ask(""));
    stage.request().fail(Code::NotFound, false);
    assert_eq!(code(&receive(&ended)), Code::NotFound);
    assert_eq!(taken(&notes)[2..], ["inner ends NOT_FOUND", "outer ends NOT_FOUND"]);
    let stopped = begin(&client, ask(""));
    stage.request();
    client.stop(Duration::ZERO).expect("it ends well");
    assert_eq!(code(&receive(&stopped)), Code::Unavailable);
    assert_eq!(taken(&notes)[2..], ["inner ends UNAVAILABLE", "outer ends UNAVAILABLE"]);
    finish(&client);
}

/// Does what the method says.
struct Obeying {
    replies: Mutex<Vec<Reply>>,
}

impl Middleware for &'static Obeying {
    fn handle(&self, call: &mut Call<'_>, next: &mut impl Handler) -> Result<Answer, Status> {
        match call.method() {
            "answer" => call.answer(b"from the layer"),
            "refuse" => Err(Status::permission_denied("says the layer")),
            "panic" => std::panic::panic_any(FragilePayload),
            "later" => {
                let (answer, reply) = call.answer_later();
                self.replies.lock().unwrap().push(reply);
                Ok(answer)
            }
            "at once" => {
                let (answer, reply) = call.answer_later();
                reply.send("from a reply");
                Ok(answer)
            }
            _ => {
                let _ = call.outgoing().insert("added", "by the layer");
                call.limit_timeout(Duration::from_secs(3));
                next.handle(call)
            }
        }
    }
}

fn a_layer_answers_by_itself_or_changes_what_is_sent(wire: Wire) {
    let stage = Stage::new(wire);
    let layer: &'static Obeying = Box::leak(Box::new(Obeying { replies: Mutex::default() }));
    let client = builder(wire, stage.address()).layer(layer).build().expect("it starts");
    assert_eq!(client.call(Request::new("answer")).unwrap().body, "from the layer");
    assert_eq!(code(&client.call(Request::new("refuse"))), Code::PermissionDenied);
    assert_eq!(code(&client.call(Request::new("panic"))), Code::Internal);
    assert_eq!(client.call(Request::new("at once")).unwrap().body, "from a reply");
    assert_eq!(client.stats().connected, 0, "none of these needs a connection");

    let calling = client.start(Request::new("later"));
    let reply = layer.replies.lock().unwrap().pop().expect("it was taken");
    thread::spawn(move || reply.send("from a thread")).join().unwrap();
    assert_eq!(block_on(calling).unwrap().body, "from a thread");

    let short = Request::new("later").timeout(Duration::from_millis(50));
    assert_eq!(code(&client.call(short)), Code::DeadlineExceeded);
    let reply = layer.replies.lock().unwrap().pop().expect("it was taken");
    assert!(reply.is_cancelled());
    drop(reply);

    let calling = client.start(Request::new("later"));
    let reply = layer.replies.lock().unwrap().pop().expect("it was taken");
    drop(calling);
    eventually("the reply knows", || reply.is_cancelled());
    drop(reply);

    let ended = begin(&client, ask(""));
    let asked = stage.next(|seen| match seen {
        Seen::Request(asked) => Some(asked),
        _ => None,
    });
    assert!(asked.timeout < Duration::from_secs(10), "{:?}", asked.timeout);
    assert_eq!(asked.metadata.view().get("added"), Some(&b"by the layer"[..]));
    asked.answer(b"");
    receive(&ended).expect("it is answered");
    finish(&client);
}
