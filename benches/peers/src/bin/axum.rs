//! axum, as its users write it: a router, an extractor, an answer in JSON.
//!
//! Tuned: a runtime per thread.

use std::io;

use axum::body::Bytes;
use axum::routing::{get, post};
use axum::{Json, Router};
use millstream_peers::http::{Message, PLAINTEXT, run};
use tokio::net::TcpListener;

fn main() -> io::Result<()> {
    run(|listener: TcpListener| async {
        let router = Router::new()
            .route("/plaintext", get(async || PLAINTEXT))
            .route("/json", get(async || Json(Message::default())))
            .route("/echo", post(async |body: Bytes| body));
        axum::serve(listener, router).await
    })
}
