//! Which thread may use what, as the types say it: handles cross threads, what belongs to a reactor
//! does not, and a handler needs neither `Send` nor `Sync`. That borrowed parts don't outlive their
//! callback is in `compile_fail.rs`.

use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::io::Write;
use std::rc::Rc;

use crate::common::{TestEngine, read_exactly};
use millstream::{
    AcceptMode, Action, Address, Builder, CloseReason, Closed, Conn, ConnId, Connect, ConnectError,
    DatagramRemote, DatagramSocket, Engine, EventHandler, Input, Neighbours, Output, Reactor,
    ReactorStats, Reactors, Remote, RunError, SocketOptions, StartError, Stats, TimerId, WaitError,
};
use static_assertions::{assert_impl_all, assert_not_impl_any};

/// A handler that can neither leave its thread nor be shared.
struct Local {
    opened: Rc<Cell<u32>>,
}

impl EventHandler for Local {
    type State = Rc<RefCell<Vec<u8>>>;

    fn on_open(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        self.opened.set(self.opened.get() + 1);
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let shared = Rc::clone(conn.state);
        shared.borrow_mut().extend(conn.input.take_all());
        conn.output.write(&conn.state.borrow());
        Action::Continue
    }
}

/// A handler that could go anywhere: its connections can't all the same.
struct Anywhere;

impl EventHandler for Anywhere {
    type State = ();

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }
}

assert_not_impl_any!(Local: Send, Sync);
assert_impl_all!(Anywhere: Send, Sync);

// Handles cross threads, whatever the handler is.
assert_impl_all!(Remote<Local>: Send, Sync, Clone, Debug);
assert_impl_all!(Remote<Anywhere>: Send, Sync, Clone, Debug);
assert_impl_all!(Engine: Send, Sync, Clone, Debug);
assert_impl_all!(Reactors<Local>: Send, Sync, Clone, Debug);
assert_impl_all!(DatagramRemote<Local>: Send, Sync, Clone, Debug);
assert_not_impl_any!(DatagramSocket<'_, Anywhere>: Send, Sync);

// So do ids, numbers, configuration and errors.
assert_impl_all!(ConnId: Send, Sync, Copy, Eq, std::hash::Hash, Ord);
assert_impl_all!(Connect: Send, Sync, Clone, Eq, Debug);
assert_impl_all!(SocketOptions: Send, Sync, Clone, Eq, Debug);
assert_impl_all!(ConnectError: Send, Sync, std::error::Error);
assert_impl_all!(TimerId: Send, Sync, Copy, Eq, std::hash::Hash);
assert_impl_all!(Stats: Send, Sync, Clone);
assert_impl_all!(ReactorStats: Send, Sync, Clone);
assert_impl_all!(Builder: Send);
assert_impl_all!(Address: Send, Sync, Clone);
assert_impl_all!(AcceptMode: Send, Sync, Copy);
assert_impl_all!(CloseReason: Send, Sync);
assert_impl_all!(Closed: Send, Sync, Copy, std::error::Error);
assert_impl_all!(StartError: Send, Sync, std::error::Error);
assert_impl_all!(WaitError: Send, Sync, std::error::Error);
assert_impl_all!(RunError: Send, Sync, std::error::Error);

// What belongs to a reactor stays on its thread, also by reference.
assert_not_impl_any!(Conn<'static, Local>: Send, Sync);
assert_not_impl_any!(Conn<'static, Anywhere>: Send, Sync);
assert_not_impl_any!(Output<'static>: Send, Sync);
assert_not_impl_any!(Reactor<'static, Anywhere>: Send, Sync);
assert_not_impl_any!(Neighbours<Anywhere>: Send, Sync, Clone);
assert_not_impl_any!(&'static Neighbours<Anywhere>: Send);

// The input is nothing but borrowed bytes, which may be worked on by others during the callback.
assert_impl_all!(Input<'static>: Send, Sync);

#[test]
fn a_handler_that_cannot_leave_its_thread_is_served_on_one() {
    let factory = |_| Local { opened: Rc::default() };
    let engine = TestEngine::start(Engine::builder().reactors(2), factory);
    for _ in 0..4 {
        let mut client = engine.connect();
        client.write_all(b"a").expect("the server reads");
        assert_eq!(read_exactly(&mut client, 1), b"a");
        client.write_all(b"b").expect("the server reads");
        assert_eq!(read_exactly(&mut client, 2), b"ab");
    }
}
