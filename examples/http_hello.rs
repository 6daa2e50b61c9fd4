//! A server of HTTP/1.1 with a few paths, and a WebSocket at `/ws` that sends messages back.
//!
//! `http_hello --listen 127.0.0.1:8080`, and then `curl http://127.0.0.1:8080/users/7`, or
//! `python3 -m websockets ws://127.0.0.1:8080/ws`.

#![allow(clippy::print_stdout, reason = "a program's output")]

use std::time::Duration;

use clap::Parser;
use millstream::Engine;
use millstream::http::{HttpServer, RouteError, Router, Routes, StatusCode};
use millstream::websocket::{
    MessageLimits, PerMessageDeflate, Socket, WebSocketHandler, WebSocketServer,
};

/// How long requests have to end when the server stops.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest message of a WebSocket.
const LONGEST: usize = 16 << 20;

/// A server of HTTP/1.1 and WebSocket.
#[derive(Parser)]
struct Options {
    /// Where to listen, for example 127.0.0.1:8080 or unix:///run/name.socket.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Number of reactors, each a thread with an event loop.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    reactors: u16,
}

/// Sends each message back. When the connection closes, no one waits for it.
struct Echo;

impl WebSocketHandler for Echo {
    fn on_text(&mut self, socket: &mut Socket<'_, Self>, text: &str) {
        let _ = socket.send_text(text);
    }

    fn on_binary(&mut self, socket: &mut Socket<'_, Self>, bytes: &[u8]) {
        let _ = socket.send_binary(bytes);
    }
}

fn sockets() -> WebSocketServer {
    let mut limits = MessageLimits::default();
    (limits.frame, limits.message) = (LONGEST, LONGEST);
    WebSocketServer::new().limits(limits).deflate(PerMessageDeflate::new())
}

fn routes() -> Result<Routes, RouteError> {
    let sockets = sockets();
    let json = br#"{"message":"Hello, World!"}"#;
    Router::new()
        .get("/plaintext", |exchange| Ok(exchange.respond(StatusCode::OK).text("Hello, World!")))
        .get("/json", |exchange| Ok(exchange.respond(StatusCode::OK).json(json)))
        .get("/users/{id}", |exchange| {
            let id = exchange.param("id").unwrap_or_default();
            Ok(exchange.respond(StatusCode::OK).text(&id))
        })
        .post("/echo", |exchange| {
            let body = exchange.body();
            Ok(exchange.respond(StatusCode::OK).body(body))
        })
        .get("/ws", move |exchange| sockets.accept(exchange, Echo))
        .build()
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let (server, routes) = (HttpServer::new(), routes()?);
    let engine = Engine::builder()
        .listen(options.listen)
        .reactors(usize::from(options.reactors))
        .start(move |_reactor| server.serve(routes.clone()))?;
    engine.stop_on_signals(PATIENCE)?;
    for address in engine.local_addrs() {
        println!("listening on {address}");
    }
    engine.wait()?;
    Ok(())
}
