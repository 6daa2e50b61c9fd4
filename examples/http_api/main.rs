//! A service with JSON: a list of tasks, with routes, groups, layers, values that are checked, and
//! a page that shows it, which is told of changes.
//!
//! `http_api --listen 127.0.0.1:8080 --token sesame`, and then open http://127.0.0.1:8080/, or
//!
//! ```text
//! curl -d '{"title":"sweep"}' -H 'Content-Type: application/json' http://127.0.0.1:8080/api/tasks
//! curl 'http://127.0.0.1:8080/api/tasks?done=false'
//! curl --no-buffer http://127.0.0.1:8080/api/changes
//! curl -X DELETE -H 'Authorization: Bearer sesame' http://127.0.0.1:8080/api/tasks/1
//! ```

#![allow(clippy::print_stdout, reason = "a program's output")]

mod changes;
mod tasks;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use millstream::Engine;
use millstream::http::{
    Answered, Authenticate, BodyLimit, Exchange, Failure, Files, HttpServer, Logging, Middleware,
    RateLimit, Recovery, Router, Routes, Secret, SetRequestId, StatusCode, Timeout,
};
use tracing::Level;

use self::changes::Changes;
use self::tasks::{Draft, Filter, Key, Tasks};

/// How long requests have to end when the server stops.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest content of a request.
const LONGEST: u64 = 16 * 1024;
/// How long a page hears nothing at most.
const PULSE: Duration = Duration::from_secs(15);
/// What is shown in a browser.
const PUBLIC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/http_api/public");

/// A list of tasks, over HTTP.
#[derive(Parser)]
struct Options {
    /// Where to listen, for example 127.0.0.1:8080 or unix:///run/name.socket.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Number of reactors, each a thread with an event loop.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    reactors: u16,
    /// What those have to show who delete.
    #[arg(long, value_name = "TEXT", default_value = "sesame")]
    token: String,
    /// How many requests a second an address may make.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    rate: u32,
    /// The folder with the page.
    #[arg(long, value_name = "FOLDER", default_value = PUBLIC)]
    public: PathBuf,
    /// Log each request.
    #[arg(long)]
    verbose: bool,
}

/// What handlers share.
#[derive(Default)]
struct Shared {
    tasks: Tasks,
    changes: Changes,
}

/// All routes. What they share, they capture.
fn routes(options: &Options) -> anyhow::Result<Routes<impl Middleware>> {
    let shared = Arc::new(Shared::default());
    let files = Files::open(&options.public)?.field("Cache-Control", "no-cache")?;
    let token = Secret::new(options.token.as_bytes());
    let keeper = Authenticate::bearer("tasks", move |given: &str| token.is(given).then_some(()))?;
    let rate = RateLimit::new(options.rate, Duration::from_secs(1));
    let routes = Router::new()
        .layer(Recovery::new())
        .layer(SetRequestId::new())
        .layer(Logging::new().level(Level::INFO))
        .files("", files)
        .group("/api", |api| {
            let limited =
                api.layer(rate).layer(BodyLimit::new(LONGEST)).layer(Timeout::new(TIMEOUT));
            limited
                .get("/changes", with(&shared, changes))
                .get("/tasks", with(&shared, list))
                .post("/tasks", with(&shared, add))
                .get("/tasks/{id}", with(&shared, show))
                .put("/tasks/{id}", with(&shared, change))
                .group("", |keepers| {
                    keepers.layer(keeper).delete("/tasks/{id}", with(&shared, remove))
                })
        });
    Ok(routes.build()?)
}

/// A handler that has what is shared.
fn with(
    shared: &Arc<Shared>,
    handler: fn(&Shared, Exchange<'_>) -> Result<Answered, Failure>,
) -> impl Fn(Exchange<'_>) -> Result<Answered, Failure> + Send + Sync + 'static {
    let shared = Arc::clone(shared);
    move |exchange| handler(&shared, exchange)
}

fn changes(shared: &Shared, exchange: Exchange<'_>) -> Result<Answered, Failure> {
    let (page, answered) = exchange.respond(StatusCode::OK).events(PULSE);
    shared.changes.add(page);
    Ok(answered)
}

fn list(shared: &Shared, exchange: Exchange<'_>) -> Result<Answered, Failure> {
    let filter: Filter = exchange.bind_query()?;
    exchange.respond(StatusCode::OK).json_value(&shared.tasks.list(&filter))
}

fn add(shared: &Shared, exchange: Exchange<'_>) -> Result<Answered, Failure> {
    let draft: Draft = exchange.bind_json()?;
    draft.check()?;
    let task = shared.tasks.add(draft).ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    shared.changes.tell();
    let answer = exchange.respond(StatusCode::CREATED);
    answer.field("Location", format!("/api/tasks/{}", task.id))?.json_value(&task)
}

fn show(shared: &Shared, exchange: Exchange<'_>) -> Result<Answered, Failure> {
    let key: Key = exchange.bind_path()?;
    let task = shared.tasks.get(&key).ok_or(StatusCode::NOT_FOUND)?;
    exchange.respond(StatusCode::OK).json_value(&task)
}

fn change(shared: &Shared, exchange: Exchange<'_>) -> Result<Answered, Failure> {
    let key: Key = exchange.bind_path()?;
    let draft: Draft = exchange.bind_json()?;
    draft.check()?;
    let task = shared.tasks.change(&key, draft).ok_or(StatusCode::NOT_FOUND)?;
    shared.changes.tell();
    exchange.respond(StatusCode::OK).json_value(&task)
}

fn remove(shared: &Shared, exchange: Exchange<'_>) -> Result<Answered, Failure> {
    let key: Key = exchange.bind_path()?;
    if !shared.tasks.remove(&key) {
        return Err(StatusCode::NOT_FOUND.into());
    }
    shared.changes.tell();
    Ok(exchange.respond(StatusCode::NO_CONTENT).empty())
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let level = if options.verbose { Level::INFO } else { Level::WARN };
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr);
    log.with_ansi(io::stderr().is_terminal()).init();
    let (server, routes) = (HttpServer::new(), routes(&options)?);
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
