//! A chat for browsers: what one says, all hear.
//!
//! `websocket_chat --listen 127.0.0.1:8080`, and then open <http://127.0.0.1:8080/> twice.

#![allow(clippy::print_stdout, reason = "a program's output")]

use std::time::Duration;

use clap::Parser;
use millstream::Engine;
use millstream::http::{Answered, Exchange, Failure, HttpServer, StatusCode};
use millstream::websocket::{
    Broadcast, PreparedMessage, SlowSubscriber, Socket, SocketEnd, WebSocketHandler,
    WebSocketServer,
};

/// How long browsers have to reply to the close when the server stops.
const PATIENCE: Duration = Duration::from_secs(10);

const PAGE: &[u8] = include_bytes!("page.html");

/// A chat for browsers.
#[derive(Parser)]
struct Options {
    /// Where to listen, for example 127.0.0.1:8080 or unix:///run/name.socket.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Number of reactors, each a thread with an event loop.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    reactors: u16,
}

/// One who chats. The first text is the name.
struct Guest {
    room: Broadcast<Guest>,
    name: Option<String>,
}

impl Guest {
    fn say(&self, text: &str) {
        self.room.send(&PreparedMessage::text(text));
    }
}

impl WebSocketHandler for Guest {
    fn on_text(&mut self, socket: &mut Socket<'_, Self>, text: &str) {
        match &self.name {
            Some(name) => self.say(&format!("{name}: {text}")),
            None => {
                self.room.subscribe(socket.remote());
                self.say(&format!("{text} has come"));
                self.name = Some(text.to_owned());
            }
        }
    }

    fn on_close(&mut self, socket: &mut Socket<'_, Self>, _end: &SocketEnd<'_>) {
        if let Some(name) = &self.name {
            self.room.unsubscribe(socket.id());
            self.say(&format!("{name} has gone"));
        }
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    // One that does not keep up is closed, and its page connects again.
    let room = Broadcast::new(SlowSubscriber::Close);
    let (server, sockets) = (HttpServer::new(), WebSocketServer::new());
    let engine = Engine::builder()
        .listen(options.listen)
        .reactors(usize::from(options.reactors))
        .start(move |_reactor| {
        let (room, sockets) = (room.clone(), sockets.clone());
        server.serve(move |exchange: Exchange<'_>| -> Result<Answered, Failure> {
            match exchange.path() {
                "/" => {
                    let answer = exchange.respond(StatusCode::OK);
                    Ok(answer.field("Content-Type", "text/html; charset=utf-8")?.body(PAGE))
                }
                "/chat" => sockets.accept(exchange, Guest { room: room.clone(), name: None }),
                _ => Err(StatusCode::NOT_FOUND.into()),
            }
        })
    })?;
    engine.stop_on_signals(PATIENCE)?;
    for address in engine.local_addrs() {
        println!("listening on {address}");
    }
    engine.wait()?;
    Ok(())
}
