//! A service with JSON: a list of tasks, with routes, groups, layers, values that are checked, and
//! a page that shows it.
//!
//! `http_api --listen 127.0.0.1:8080 --token sesame`, and then open http://127.0.0.1:8080/, or
//!
//! ```text
//! curl -d '{"title":"sweep"}' -H 'Content-Type: application/json' http://127.0.0.1:8080/api/tasks
//! curl 'http://127.0.0.1:8080/api/tasks?done=false'
//! curl -X DELETE -H 'Authorization: Bearer sesame' http://127.0.0.1:8080/api/tasks/1
//! ```

#![allow(clippy::print_stdout, reason = "a program's output")]

mod tasks;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use millstream::Engine;
use millstream::http::{
    Answered, Authenticate, BodyLimit, Exchange, Failure, HttpServer, Logging, Middleware,
    RateLimit, Recovery, Router, Routes, Secret, SetRequestId, StatusCode, Timeout,
};
use tracing::Level;

use self::tasks::{Draft, Filter, Key, Tasks};

/// How long requests have to end when the server stops.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest content of a request.
const LONGEST: u64 = 16 * 1024;
/// What is shown in a browser.
const PAGE: &str = include_str!("page.html");

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
    /// Log each request.
    #[arg(long)]
    verbose: bool,
}

/// All routes. What they share, they capture.
fn routes(options: &Options) -> anyhow::Result<Routes<impl Middleware>> {
    let tasks = Arc::new(Tasks::default());
    let token = Secret::new(options.token.as_bytes());
    let keeper = Authenticate::bearer("tasks", move |given: &str| token.is(given).then_some(()))?;
    let rate = RateLimit::new(options.rate, Duration::from_secs(1));
    let routes = Router::new()
        .layer(Recovery::new())
        .layer(SetRequestId::new())
        .layer(Logging::new().level(Level::INFO))
        .get("/", page)
        .group("/api", |api| {
            let limited =
                api.layer(rate).layer(BodyLimit::new(LONGEST)).layer(Timeout::new(TIMEOUT));
            limited
                .get("/tasks", with(&tasks, list))
                .post("/tasks", with(&tasks, add))
                .get("/tasks/{id}", with(&tasks, show))
                .put("/tasks/{id}", with(&tasks, change))
                .group("", |keepers| {
                    keepers.layer(keeper).delete("/tasks/{id}", with(&tasks, remove))
                })
        });
    Ok(routes.build()?)
}

/// A handler that has the tasks.
fn with(
    tasks: &Arc<Tasks>,
    handler: fn(&Tasks, Exchange<'_>) -> Result<Answered, Failure>,
) -> impl Fn(Exchange<'_>) -> Result<Answered, Failure> + Send + Sync + 'static {
    let tasks = Arc::clone(tasks);
    move |exchange| handler(&tasks, exchange)
}

fn page(exchange: Exchange<'_>) -> Result<Answered, Failure> {
    let answer = exchange.respond(StatusCode::OK);
    Ok(answer.field("Content-Type", "text/html; charset=utf-8")?.body(PAGE.as_bytes()))
}

fn list(tasks: &Tasks, exchange: Exchange<'_>) -> Result<Answered, Failure> {
    let filter: Filter = exchange.bind_query()?;
    exchange.respond(StatusCode::OK).json_value(&tasks.list(&filter))
}

fn add(tasks: &Tasks, exchange: Exchange<'_>) -> Result<Answered, Failure> {
    let draft: Draft = exchange.bind_json()?;
    draft.check()?;
    let task = tasks.add(draft).ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    let answer = exchange.respond(StatusCode::CREATED);
    answer.field("Location", format!("/api/tasks/{}", task.id))?.json_value(&task)
}

fn show(tasks: &Tasks, exchange: Exchange<'_>) -> Result<Answered, Failure> {
    let key: Key = exchange.bind_path()?;
    let task = tasks.get(&key).ok_or(StatusCode::NOT_FOUND)?;
    exchange.respond(StatusCode::OK).json_value(&task)
}

fn change(tasks: &Tasks, exchange: Exchange<'_>) -> Result<Answered, Failure> {
    let key: Key = exchange.bind_path()?;
    let draft: Draft = exchange.bind_json()?;
    draft.check()?;
    let task = tasks.change(&key, draft).ok_or(StatusCode::NOT_FOUND)?;
    exchange.respond(StatusCode::OK).json_value(&task)
}

fn remove(tasks: &Tasks, exchange: Exchange<'_>) -> Result<Answered, Failure> {
    let key: Key = exchange.bind_path()?;
    match tasks.remove(&key) {
        true => Ok(exchange.respond(StatusCode::NO_CONTENT).empty()),
        false => Err(StatusCode::NOT_FOUND.into()),
    }
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
