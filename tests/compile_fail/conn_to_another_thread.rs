//! A connection cannot be sent to another thread, not even for the time of the callback.

use millstream::{Action, Conn, EventHandler};

fn on_another_thread(_work: impl FnOnce() + Send) {}

struct Handler;

impl EventHandler for Handler {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        on_another_thread(move || conn.close());
        Action::Continue
    }
}

fn main() {}
