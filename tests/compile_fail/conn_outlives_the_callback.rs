//! A handler cannot keep a connection.

use millstream::{Action, Conn, EventHandler};

struct Handler {
    kept: Option<&'static mut Conn<'static, Handler>>,
}

impl EventHandler for Handler {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.kept = Some(conn);
        Action::Continue
    }
}

fn main() {}
