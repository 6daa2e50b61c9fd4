//! What rustls tells of a handshake only to what it asks in the course of it.

use std::cell::RefCell;

/// What was noted of one.
#[derive(Clone, Debug, Default)]
pub(super) struct Noted {
    /// The name of the server that the client asked for.
    pub(super) server_name: Option<Box<str>>,
    /// Until when the client's certificates are valid, in seconds since 1970, if it has shown some.
    pub(super) valid_until: Option<u64>,
}

thread_local! {
    static NOTED: RefCell<Noted> = RefCell::default();
}

/// Goes on with a handshake on this thread, of which this was noted before.
pub(super) fn go_on(noted: Noted) {
    NOTED.set(noted);
}

/// What was noted of it up to its end or pause.
pub(super) fn take() -> Noted {
    NOTED.take()
}

/// Notes something of the handshake that goes on on this thread.
pub(super) fn note(note: impl FnOnce(&mut Noted)) {
    NOTED.with_borrow_mut(note);
}

/// Until when what the client has shown is valid, as far as the handshake has come.
pub(super) fn valid_until() -> Option<u64> {
    NOTED.with_borrow(|noted| noted.valid_until)
}
