//! A state cannot keep a slice of the input.

use millstream::{Action, Conn, EventHandler};

struct Handler;

impl EventHandler for Handler {
    type State = &'static [u8];

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        *conn.state = conn.input.take_all();
        Action::Continue
    }
}

fn main() {}
