//! A server of HTTP/1.1 with a few paths.
//!
//! `http_hello --listen 127.0.0.1:8080`, and then `curl http://127.0.0.1:8080/users/7`.

#![allow(clippy::print_stdout, reason = "a program's output")]

use std::time::Duration;

use clap::Parser;
use millstream::Engine;
use millstream::http::{HttpServer, RouteError, Router, Routes, StatusCode};

/// How long requests have to end when the server stops.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server of HTTP/1.1.
#[derive(Parser)]
struct Options {
    /// Where to listen, for example 127.0.0.1:8080 or unix:///run/name.socket.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Number of reactors, each a thread with an event loop.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    reactors: u16,
}

fn routes() -> Result<Routes, RouteError> {
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
