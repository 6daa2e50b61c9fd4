//! A reactor cannot be sent to another thread, not even for the time of the callback.

use millstream::{Action, Conn, EventHandler, Reactor, ReactorAction};

fn on_another_thread(_work: impl FnOnce() + Send) {}

struct Handler;

impl EventHandler for Handler {
    type State = ();

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }

    fn on_tick(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        on_another_thread(move || reactor.set_tick(None));
        ReactorAction::Continue
    }
}

fn main() {}
