//! What the servers of HTTP/1.1 have in common: what they say, and their runtimes.

use std::future::Future;
use std::io;

use clap::Parser;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::echo_server::{Options, run_on_threads};

/// What `/plaintext` says.
pub const PLAINTEXT: &str = "Hello, World!";

/// What `/json` says.
#[derive(Serialize)]
pub struct Message {
    /// Some text.
    pub message: &'static str,
}

impl Default for Message {
    fn default() -> Self {
        Self { message: PLAINTEXT }
    }
}

/// A runtime per thread that shares nothing, each with its own listener.
///
/// # Errors
///
/// Those of listening, and of `serve`.
pub fn run<F: Future<Output = io::Result<()>>>(
    serve: impl Fn(TcpListener) -> F + Clone + Send + 'static,
) -> io::Result<()> {
    run_on_threads(&Options::parse(), move |listener| {
        listener.set_nonblocking(true)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, async { serve(TcpListener::from_std(listener)?).await })
    })
}
