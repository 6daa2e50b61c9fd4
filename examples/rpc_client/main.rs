//! A client of the example `rpc_server` that shows what calls can do: metadata, deadlines,
//! cancellation, several at once, and who is let in.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

#[path = "../rpc_server/service.rs"]
mod service;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use clap::Parser;
use millstream::Connect;
use millstream::rpc::{
    Authenticate, Call, Client, Encoding, Logging, Middleware, Request, SetMetadata, Status,
};
use millstream::tls::{TlsClient, TlsError};
use tracing::Level;

use self::service::OfficeClient;

/// How long calls may take that say nothing else.
const PATIENCE: Duration = Duration::from_secs(10);
/// A work that nobody waits for to its end, in milliseconds.
const LONG: u64 = 60_000;

/// A client of rpc_server.
#[derive(Parser)]
struct Options {
    /// Where the server listens, for example localhost:7000 or unix:///run/name.socket.
    server: String,
    /// What the server wants to be told.
    #[arg(long)]
    token: Option<String>,
    /// Whom the server is to greet.
    #[arg(long, default_value = "world")]
    name: String,
    /// Log each call, to standard error.
    #[arg(long)]
    verbose: bool,
    /// Encrypt by TLS, and believe the server if an authority in this PEM file does.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The name that the server's certificate has to be for [default: the server's host].
    #[arg(long, value_name = "NAME", requires = "tls_ca")]
    tls_name: Option<String>,
}

/// How the server is connected to.
fn encryption(options: &Options) -> Result<impl Fn(Connect) -> Connect + use<>, TlsError> {
    let name = options.tls_name.clone();
    let trusting = |authorities| TlsClient::builder().authorities_file(authorities).build();
    let tls = options.tls_ca.as_ref().map(trusting).transpose()?;
    Ok(move |connect: Connect| match (&tls, &name) {
        (Some(tls), Some(name)) => connect.tls_name(tls, name),
        (Some(tls), None) => connect.tls(tls),
        (None, _) => connect,
    })
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rpc_client: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> anyhow::Result<()> {
    let encryption = encryption(&options)?;
    let Options { server, token, name, verbose, .. } = options;
    let level = if verbose { Level::DEBUG } else { Level::WARN };
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr);
    log.with_ansi(io::stderr().is_terminal()).init();
    let credentials = Authenticate::with(move |call: &mut Call<'_>| {
        let added = token.as_ref().map_or(Ok(()), |token| call.outgoing().insert("token", token));
        added.map_err(|error| Status::invalid_argument(error.to_string()))
    });
    let client = Client::builder()
        .address(server)
        .connect_with(encryption)
        .timeout(PATIENCE)
        .layer(SetMetadata::trace())
        .layer(Logging::new())
        .layer(credentials)
        .build()?;
    methods(&client)?;
    let office = OfficeClient::new(client.clone(), Encoding::Postcard);
    greeting(&office, name)?;
    echo(&client)?;
    deadline(&office);
    cancellation(&client, &office)?;
    many(&client, &office)?;
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

/// A call of a typed method.
fn greeting(office: &OfficeClient<impl Middleware>, name: String) -> Result<(), Status> {
    println!("a call: {}", office.greet(name).call()?);
    Ok(())
}

/// A call of a method of bytes, and what goes along with it both ways.
fn echo(client: &Client<impl Middleware>) -> anyhow::Result<()> {
    let request = Request::new("echo.Echo/echo").body("hello").metadata("tenant", "blue")?;
    let response = client.call(request)?;
    println!("bytes: {}, and along with them", String::from_utf8_lossy(&response.body));
    for (key, value) in response.metadata.view().iter() {
        println!("    {key}: {}", value.escape_ascii());
    }
    Ok(())
}

/// A caller that has no time to wait learns in time; the server gives up, too.
fn deadline(office: &OfficeClient<impl Middleware>) {
    let begin = Instant::now();
    let result = office.work(LONG).timeout(Duration::from_millis(100)).call();
    let outcome = result.unwrap_or_else(|status| status.to_string());
    println!("a deadline of 100 ms: {outcome}, after {} ms", begin.elapsed().as_millis());
}

/// A call is a future, which works on every executor; dropping it cancels the call, and the server
/// gives up, too.
fn cancellation(
    client: &Client<impl Middleware>,
    office: &OfficeClient<impl Middleware>,
) -> Result<(), Status> {
    let calling = office.work(LONG).start();
    // On the same connection, so that the server has the one before.
    client.call(Request::new("echo.Echo/echo"))?;
    drop(calling);
    println!("a call was cancelled while the server worked on it");
    Ok(())
}

/// Calls share a connection, and their answers come when they are ready.
fn many(
    client: &Client<impl Middleware>,
    office: &OfficeClient<impl Middleware>,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    let (answers, answered) = channel();
    for number in (1..=5).rev() {
        let answers = answers.clone();
        office.work(40 * number).call_then(move |result| {
            let _ = answers.send((number, result)); // It waits.
        });
    }
    println!("five calls at once:");
    for _ in 1..=5 {
        let (number, result) = answered.recv()?;
        println!("    number {number}: {}", result?);
    }
    println!(
        "    all in {} ms, on {} connection",
        begin.elapsed().as_millis(),
        client.stats().connections
    );
    Ok(())
}
