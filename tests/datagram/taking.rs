//! An engine listens for datagrams only if its handler takes them.

use millstream::codec::{FrameHandler, Framed, FramedConn, Lines};
use millstream::{Action, Conn, Engine, EventHandler, Listen, ListenError, StartError};

use crate::common::folder::Folder;

/// Does nothing with datagrams.
struct Deaf;

impl EventHandler for Deaf {
    type State = ();

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Close
    }
}

/// The same, for frames.
impl FrameHandler for Deaf {
    type Codec = Lines;
    type State = ();

    fn codec(&self) -> Lines {
        Lines::new()
    }

    fn on_frame(&mut self, _conn: &mut FramedConn<'_, Self>, _line: &[u8]) -> Action {
        Action::Close
    }
}

fn refuses_datagrams<H: EventHandler>(handler: fn() -> H) {
    let folder = Folder::new();
    let places = ["udp://127.0.0.1:0".to_owned(), format!("unixgram://{}", folder.path("socket"))];
    for at in &places {
        let builder = Engine::builder().listen("127.0.0.1:0").listen(at.as_str());
        let error = builder.start(move |_| handler()).expect_err("nobody takes what comes");
        assert!(matches!(error, StartError::NoDatagrams { .. }), "{at}: {error:?}");
        assert!(error.to_string().ends_with("the handler's TAKES_DATAGRAMS is false"), "{error}");
    }
    let builder = Engine::builder().listen("127.0.0.1:0");
    let engine = builder.start(move |_| handler()).expect("connections are taken");
    for at in places {
        let error = engine.listen(Listen::from(at)).expect_err("nobody takes what comes");
        assert!(matches!(error, ListenError::NoDatagrams { .. }), "{error:?}");
    }
    assert_eq!(engine.listeners().len(), 1);
    assert!(!folder.join("socket").exists(), "nothing is left");
    engine.stop(crate::common::DEADLINE).expect("it runs");
    engine.wait().expect("it ends");
}

#[test]
fn a_handler_that_takes_no_datagrams_is_not_listened_for_with() {
    refuses_datagrams(|| Deaf);
}

#[test]
fn neither_is_one_of_frames() {
    refuses_datagrams(|| Framed::new(Deaf));
}
