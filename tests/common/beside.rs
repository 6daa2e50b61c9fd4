//! A handler alone on its engine, or next to others: what it sees must be the same.

use millstream::{Engine, EventHandler, Reactors};

/// How a handler is put on an engine.
pub trait Place: 'static {
    type Handler<H: EventHandler>: EventHandler;

    fn put<H: EventHandler>(handler: H) -> Self::Handler<H>;

    /// The reactors as the handler knows them.
    fn reactors<H: EventHandler>(engine: &Engine) -> Reactors<H>;
}

pub struct Alone;

impl Place for Alone {
    type Handler<H: EventHandler> = H;

    fn put<H: EventHandler>(handler: H) -> H {
        handler
    }

    fn reactors<H: EventHandler>(engine: &Engine) -> Reactors<H> {
        engine.reactors().expect("it is the engine's handler")
    }
}
