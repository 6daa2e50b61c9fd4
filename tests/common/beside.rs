//! A handler alone on its engine, or next to others: what it sees must be the same.

use millstream::{Action, Conn, Either, Engine, EventHandler, Reactors};

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

/// The second of two of which it is the first of two: both ways of being one of them.
pub struct Beside;

type Inner<H> = Either<H, Nobody>;

impl Place for Beside {
    type Handler<H: EventHandler> = Either<Nobody, Inner<H>>;

    fn put<H: EventHandler>(handler: H) -> Self::Handler<H> {
        Either::new(Nobody, Either::new(handler, Nobody, |_| Some(true)), |_| Some(false))
    }

    fn reactors<H: EventHandler>(engine: &Engine) -> Reactors<H> {
        let reactors = engine.reactors::<Self::Handler<H>>().expect("it is the engine's handler");
        reactors.second().first()
    }
}

/// A handler that no connection is for.
pub struct Nobody;

impl EventHandler for Nobody {
    type State = [u64; 32]; // Of another size than what others have.

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        panic!("{conn:?} is for nobody");
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        panic!("{conn:?} is for nobody");
    }
}
