//! A gateway: one port speaks HTTP/1.1 and RPC, and those who speak HTTP reach the same typed
//! service, in JSON. A second port has the metrics.
//!
//! `gateway --listen 127.0.0.1:8080 --metrics 127.0.0.1:9090`, and then
//!
//!     curl --data '[7, 2]' http://127.0.0.1:8080/rpc/demo.Calculator/divide
//!     curl http://127.0.0.1:9090/metrics

#![allow(clippy::print_stdout, reason = "a program's output")]

mod api;
mod metrics;
mod service;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::Parser;
use millstream::http::HttpServer;
use millstream::rpc::{self, Client, Health, Router, Server};
use millstream::{Either, Engine, Opening};

use self::service::{Calculator, Worker};

/// How long calls have to end when the server stops.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a call that came by HTTP may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A server that speaks HTTP and RPC on one port.
#[derive(Parser)]
struct Options {
    /// Where to listen for HTTP and RPC.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Where to listen for those who ask for metrics, by HTTP.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9090")]
    metrics: String,
    /// Where the services are that HTTP is to reach [default: here].
    #[arg(long, value_name = "ADDR")]
    backend: Option<String>,
    /// Number of reactors, each a thread with an event loop.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    reactors: u16,
}

/// What is there once the engine runs.
#[derive(Clone, Default)]
struct Running(Arc<OnceLock<(Engine, Client)>>);

impl Running {
    fn engine(&self) -> Option<&Engine> {
        self.0.get().map(|(engine, _)| engine)
    }

    fn client(&self) -> Option<&Client> {
        self.0.get().map(|(_, client)| client)
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let (http, rpc, running) = (HttpServer::new(), Server::new(), Running::default());
    let (health, known) = (Health::new(), running.clone());
    let builder = Engine::builder().reactors(usize::from(options.reactors));
    let engine = builder.listen(options.listen).listen(options.metrics).start(move |_reactor| {
        let router = Router::new().service(Worker.into_service()).health(&health).reflection();
        let (api, metrics) = (api::handler(known.clone()), metrics::handler(known.clone()));
        // RPC begins with its own bytes; all else is told by HTTP what is wrong with it.
        let is_rpc = |opening: &Opening<'_>| opening.begins_with(rpc::FIRST_BYTES);
        let public = Either::new(rpc.serve(router), http.serve(api), is_rpc);
        let is_for_metrics = |opening: &Opening<'_>| Some(opening.listener()?.index() == 1);
        Either::new(http.serve(metrics), public, is_for_metrics)
    })?;
    let addresses = engine.local_addrs();
    let backend = options.backend.unwrap_or_else(|| addresses[0].to_string());
    let client = Client::builder().address(backend).timeout(TIMEOUT).build()?;
    let _ = running.0.set((engine.clone(), client));
    engine.stop_on_signals(PATIENCE)?;
    println!("listening on {}", addresses[0]);
    println!("metrics on {}", addresses[1]);
    engine.wait()?;
    Ok(())
}
