//! A client of the example `rpc_server` that shows what calls can do: metadata, deadlines, cancellation, several at once,
//! and who is let in.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

use std::error::Error;
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use clap::Parser;
use millstream::rpc::{
    Authenticate, Call, Client, Logging, Middleware, Request, SetMetadata, Status,
};
use millstream_benches::error_chain::describe;

/// How long calls may take that say nothing else.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client of rpc_server.
#[derive(Parser)]
struct Options {
    /// Where the server listens, for example localhost:7000 or unix:///run/name.socket; several serve the same.
    #[arg(required = true)]
    servers: Vec<String>,
    /// What the server wants to be told.
    #[arg(long)]
    token: Option<String>,
    /// Whom the server is to greet.
    #[arg(long, default_value = "world")]
    name: String,
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rpc_client: {}", describe(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let Options { servers, token, name } = options;
    let credentials = Authenticate::with(move |call: &mut Call<'_>| {
        let added = token.as_ref().map_or(Ok(()), |token| call.outgoing().insert("token", token));
        added.map_err(|error| Status::invalid_argument(error.to_string()))
    });
    let client =
        servers.into_iter().fold(Client::builder(), |builder, server| builder.address(server));
    let client = client
        .timeout(PATIENCE)
        .layer(SetMetadata::trace())
        .layer(Logging::new())
        .layer(credentials)
        .build()?;
    methods(&client)?;
    greeting(&client, name)?;
    deadline(&client);
    cancellation(&client)?;
    many(&client)?;
    Ok(client.stop(PATIENCE)?)
}

/// What there is to call.
fn methods(client: &Client<impl Middleware>) -> Result<(), Status> {
    let response = client.call(Request::new("millstream.Reflection/methods").idempotent(true))?;
    println!("the server has these methods:");
    for method in String::from_utf8_lossy(&response.body).lines() {
        println!("    {method}");
    }
    Ok(())
}

/// A call, and what goes along with it both ways.
fn greeting(client: &Client<impl Middleware>, name: String) -> Result<(), Box<dyn Error>> {
    let request = Request::new("demo.Greeter/greet").body(name).metadata("tenant", "blue")?;
    let response = client.call(request)?;
    println!("a call: {}", String::from_utf8_lossy(&response.body));
    for (key, value) in response.metadata.view().iter() {
        println!("    {key}: {}", value.escape_ascii());
    }
    Ok(())
}

/// Work for so long.
fn work(time: Duration) -> Request {
    Request::new("demo.Worker/work").body(time.as_millis().to_string())
}

/// Who has no time to wait is told so in time; the server gives up, too.
fn deadline(client: &Client<impl Middleware>) {
    let begin = Instant::now();
    let result = client.call(work(PATIENCE).timeout(Duration::from_millis(100)));
    let outcome = result.map_or_else(|status| status.to_string(), |_| "it was in time".to_owned());
    println!("a deadline of 100 ms: {outcome}, after {} ms", begin.elapsed().as_millis());
}

/// A call is a future, which works on every executor; dropping it cancels the call, and the server gives up, too.
fn cancellation(client: &Client<impl Middleware>) -> Result<(), Status> {
    let calling = client.start(work(PATIENCE));
    // On the same connection, so that the server has the one before.
    client.call(Request::new("echo.Echo/echo"))?;
    drop(calling);
    println!("a call was cancelled while the server worked on it");
    Ok(())
}

/// Calls share a connection, and their answers come when they are ready.
fn many(client: &Client<impl Middleware>) -> Result<(), Box<dyn Error>> {
    let begin = Instant::now();
    let (answers, answered) = channel();
    for number in (1..=5).rev() {
        let answers = answers.clone();
        client.call_then(work(Duration::from_millis(40 * number)), move |result| {
            let _ = answers.send((number, result)); // It waits.
        });
    }
    println!("five calls at once:");
    for _ in 1..=5 {
        let (number, result) = answered.recv()?;
        println!("    number {number}: {}", String::from_utf8_lossy(&result?.body));
    }
    println!(
        "    all in {} ms, on {} connection",
        begin.elapsed().as_millis(),
        client.stats().connections
    );
    Ok(())
}
