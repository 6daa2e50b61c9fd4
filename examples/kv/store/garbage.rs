//! Freeing much memory elsewhere, so that nobody waits for it.

use std::any::Any;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

type Garbage = Box<dyn Any + Send>;

static COLLECTOR: OnceLock<Option<Sender<Garbage>>> = OnceLock::new();

/// Drops something on a thread that has nothing else to do. It is there from the first time on.
pub fn drop_elsewhere(garbage: impl Any + Send) {
    let garbage: Garbage = Box::new(garbage);
    if let Some(collector) = COLLECTOR.get_or_init(start) {
        // The thread never ends; if it did, what can't be sent is dropped here.
        drop(collector.send(garbage));
    }
}

/// `None`: no thread could be made, and everything is dropped where it is.
fn start() -> Option<Sender<Garbage>> {
    let (collector, garbage) = channel::<Garbage>();
    let collect = move || garbage.iter().for_each(drop);
    thread::Builder::new().name("kv-garbage".into()).spawn(collect).ok().map(|_| collector)
}
