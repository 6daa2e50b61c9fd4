//! A frame handler is not an event handler: the message says what makes one of it.

use millstream::codec::{FrameHandler, FramedConn, Lines};
use millstream::{Action, Engine};

struct Echo;

impl FrameHandler for Echo {
    type Codec = Lines;
    type State = ();

    fn codec(&self) -> Lines {
        Lines::new()
    }

    fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, line: &[u8]) -> Action {
        conn.send(line).into()
    }
}

fn main() {
    let _ = Engine::builder().start(|_reactor| Echo);
}
