//! A server of remote procedure calls: methods that answer at once and later, behind layers that recover from panics,
//! log, trace and ask who calls; with health, reflection, limits, and a stop that lets open calls end.
//!
//! `rpc_server --listen 127.0.0.1:7000 --token sesame`, and then `rpc_client 127.0.0.1:7000 --token sesame`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

use std::error::Error;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use millstream::Engine;
use millstream::rpc::{
    Answer, Authenticate, Call, Deadline, Health, Logging, Recovery, Reply, Router, Server,
    SetMetadata, Status,
};
use millstream_benches::error_chain::describe;

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
    /// What callers have to know, as the pair `token` of their metadata [default: anybody may call].
    #[arg(long)]
    token: Option<String>,
}

/// Who calls, as the layer in front of the methods has found out.
struct Caller(&'static str);

fn authenticate(call: &Call<'_>, token: Option<&str>) -> Result<Caller, Status> {
    match (call.metadata().get("token"), token) {
        (_, None) => Ok(Caller("stranger")),
        (Some(given), Some(token)) if given == token.as_bytes() => Ok(Caller("friend")),
        (Some(_), Some(_)) => Err(Status::unauthenticated("this is not the token")),
        (None, Some(_)) => Err(Status::unauthenticated("there is no token")),
    }
}

/// Greets the caller by the name that it gives.
fn greet(call: &mut Call<'_>) -> Result<Answer, Status> {
    let name = std::str::from_utf8(call.body())
        .map_err(|error| Status::invalid_argument(format!("the name: {error}")))?;
    let Caller(who) = call.value().ok_or_else(|| Status::internal("nobody asked who calls"))?;
    let greeting = format!("hello {name}, {who}");
    call.outgoing()
        .insert("greeted-by", format!("process {}", std::process::id()))
        .map_err(|error| Status::internal(error.to_string()))?;
    call.answer(greeting.as_bytes())
}

/// Works for so many milliseconds. A reactor must not wait, so a thread does.
fn work(call: &mut Call<'_>) -> Result<Answer, Status> {
    let time = std::str::from_utf8(call.body()).ok().and_then(|text| text.parse().ok());
    let time = time.ok_or_else(|| Status::invalid_argument("the body is no time in ms"))?;
    let (answer, reply) = call.answer_later();
    // If there is no thread, the reply is dropped, and the caller is told.
    let _ = thread::Builder::new().spawn(move || work_for(Duration::from_millis(time), reply));
    Ok(answer)
}

fn work_for(time: Duration, reply: Reply) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        if reply.is_cancelled() {
            println!("gave up after {} ms: nobody waits any more", begin.elapsed().as_millis());
            return;
        }
        thread::sleep(STEP.min(time));
    }
    reply.send(format!("worked for {} ms", time.as_millis()));
}

fn main() -> ExitCode {
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO);
    log.with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rpc_server: {}", describe(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let Options { listen, reactors, token } = options;
    // The first layer is the outermost: a panic in any other one ends its call and nothing else.
    let server = Server::new()
        .max_in_flight(100)
        .max_in_flight_total(1000)
        .keepalive(Duration::from_secs(60), Duration::from_secs(10))
        .layer(Recovery::new())
        .layer(SetMetadata::trace())
        .layer(Logging::new().level(tracing::Level::INFO))
        .layer(Authenticate::with(move |call: &mut Call<'_>| authenticate(call, token.as_deref())))
        .layer(Deadline::new().or(Duration::from_secs(30)));
    let health = Health::new();
    let (serving, known) = (server.clone(), health.clone());
    let engine = Engine::builder().reactors(reactors.into()).listen(listen).start(move |_| {
        let router = Router::new()
            .method("demo.Greeter/greet", greet)
            .method("demo.Worker/work", work)
            .method("echo.Echo/echo", |call: &mut Call<'_>| call.answer(call.body()))
            .health(&known)
            .reflection();
        serving.serve(router)
    })?;
    health.set("demo.Greeter", true);
    engine.stop_on_signals(PATIENCE)?;
    for address in engine.local_addrs() {
        println!("listening on {address}");
    }
    engine.wait()?;
    let stats = server.stats();
    println!("{} calls, {} of them failed", stats.ended, stats.failed);
    Ok(())
}
