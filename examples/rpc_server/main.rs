//! A server of remote procedure calls: a typed service and a method of bytes, behind layers that
//! recover from panics, log, trace and ask who calls; with health, reflection, limits, and a stop
//! that lets open calls end.
//!
//! `rpc_server --listen 127.0.0.1:7000 --token sesame`, and then
//! `rpc_client 127.0.0.1:7000 --token sesame`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

#[path = "../certificate/mod.rs"]
mod certificate;
mod service;

use std::io::{self, IsTerminal};
use std::process::{self, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use millstream::Engine;
use millstream::rpc::{
    Authenticate, Call, Deadline, Health, Logging, Metadata, Recovery, Router, Server, SetMetadata,
    Status, TypedReply,
};

use self::certificate::{Certificate, Encryption};
use self::service::Office;

/// How long open calls have to end when the server stops.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a method that works looks whether somebody still waits for it.
const STEP: Duration = Duration::from_millis(10);

/// A server of remote procedure calls.
#[derive(Parser)]
struct Options {
    /// Where to listen, for example 127.0.0.1:7000 or unix:///run/name.socket.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7000")]
    listen: String,
    /// Number of reactors, each a thread with an event loop.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    reactors: u16,
    /// What callers have to know, as the pair `token` of their metadata [default: anybody may
    /// call].
    #[arg(long)]
    token: Option<String>,
    #[command(flatten)]
    certificate: Option<Certificate>,
}

/// Who is calling, as the layer before the methods has found out.
struct Caller(&'static str);

fn authenticate(call: &Call<'_>, token: Option<&str>) -> Result<Caller, Status> {
    match (call.metadata().get("token"), token) {
        (_, None) => Ok(Caller("stranger")),
        (Some(given), Some(token)) if given == token.as_bytes() => Ok(Caller("friend")),
        (Some(_), Some(_)) => Err(Status::unauthenticated("this is not the token")),
        (None, Some(_)) => Err(Status::unauthenticated("there is no token")),
    }
}

/// What the methods share; each reactor has its own.
struct Worker;

impl Office for Worker {
    type Error = Status;

    fn greet(&mut self, call: &mut Call<'_>, name: String) -> Result<String, Status> {
        let Caller(who) = call.value().ok_or_else(|| Status::internal("nobody asked who calls"))?;
        Ok(format!("hello {name}, {who}"))
    }

    /// A reactor must not wait, so a thread works.
    fn work(&mut self, _call: &mut Call<'_>, millis: u64, reply: TypedReply<String>) {
        // If there is no thread, the reply is dropped, and the caller is told.
        let _ =
            thread::Builder::new().spawn(move || work_for(Duration::from_millis(millis), reply));
    }
}

fn work_for(time: Duration, reply: TypedReply<String>) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        if reply.is_cancelled() {
            println!("gave up after {} ms: nobody waits any more", begin.elapsed().as_millis());
            return;
        }
        thread::sleep(STEP.min(time));
    }
    reply.send(&format!("worked for {} ms", time.as_millis()));
}

fn main() -> ExitCode {
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO);
    log.with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rpc_server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> anyhow::Result<()> {
    let Options { listen, reactors, token, certificate } = options;
    let encryption = Encryption::load(certificate.as_ref())?;
    let mut signature = Metadata::new();
    signature.insert("served-by", format!("process {}", process::id()))?;
    // The first layer is the outermost: a panic in any other one ends its call and nothing else.
    let server = Server::new()
        .max_in_flight(100)
        .max_in_flight_total(1000)
        .keepalive(Duration::from_secs(60), Duration::from_secs(10))
        .layer(Recovery::new())
        .layer(SetMetadata::trace())
        .layer(Logging::new().level(tracing::Level::INFO))
        .layer(Authenticate::with(move |call: &mut Call<'_>| authenticate(call, token.as_deref())))
        .layer(SetMetadata::pairs(signature))
        .layer(Deadline::new().or(Duration::from_secs(30)));
    let health = Health::new();
    let (serving, known) = (server.clone(), health.clone());
    let engine = Engine::builder().reactors(reactors.into()).listen(encryption.of(listen)).start(
        move |_| {
            let router = Router::new()
                .service(Worker.into_service())
                .method("echo.Echo/echo", |call: &mut Call<'_>| call.answer(call.body()))
                .health(&known)
                .reflection();
            serving.serve(router)
        },
    )?;
    health.set("demo.Office", true);
    engine.stop_on_signals(PATIENCE)?;
    encryption.reload_on_hangup(&engine)?;
    for address in engine.local_addrs() {
        println!("listening on {address}");
    }
    engine.wait()?;
    let stats = server.stats();
    println!("{} calls, {} of them failed", stats.ended, stats.failed);
    Ok(())
}
