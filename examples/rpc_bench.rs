//! How fast calls are on this machine: a server and a client in one process, which talk over
//! loopback.
//!
//! A fixed number of calls is in flight all the time: as soon as one ends, the next one begins.
//! Each carries its own body, and what comes back is compared with it. Server and client share
//! the machine's cores, so the figures are those of both together;
//! `cargo bench -p millstream-benches --bench rpc` measures the server alone, next to others.
//!
//! With `--listen` it is a plain server that runs until SIGINT or SIGTERM.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use hdrhistogram::Histogram;
use millstream::rpc::{Call, Client, Request, Response, Router, Server, Status};
use millstream::{Bytes, Engine, StartError};

/// How long a call may take, and then stopping.
const PATIENCE: Duration = Duration::from_secs(10);

/// Measures calls over loopback.
#[derive(Parser)]
struct Options {
    /// Run as a plain server on this address, for example 127.0.0.1:7000 (port 0: any that is
    /// free).
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// The server's reactors, each a thread with an event loop.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    reactors: u16,
    /// Connections between client and server.
    #[arg(long, value_name = "N", conflicts_with = "listen", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,
    /// Calls in flight, all connections together.
    #[arg(long, value_name = "N", conflicts_with = "listen", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10000))]
    in_flight: u16,
    /// Bytes of a request's body, which the response has, too.
    #[arg(long, value_name = "BYTES", conflicts_with = "listen", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=65536))]
    size: u32,
    /// How long to measure.
    #[arg(long, conflicts_with = "listen", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

/// What one caller after the other does and finds out.
struct Load {
    client: Client,
    size: usize,
    end: Instant,
    number: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
}

impl Load {
    /// Makes calls, one when the other has ended, and says at last how that went.
    fn call(self: Arc<Self>, over: Sender<Result<(), Status>>) {
        let begin = Instant::now();
        if begin >= self.end {
            let _ = over.send(Ok(())); // The receiver may have seen a failure.
            return;
        }
        let mut body = vec![0; self.size];
        body[..8].copy_from_slice(&self.number.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let body = Bytes::from(body);
        let request = Request::new("echo.Echo/echo").body(body.clone()).timeout(PATIENCE);
        let client = self.client.clone();
        client.call_then(request, move |result| match self.check(begin, &body, result) {
            Ok(()) => self.call(over),
            Err(status) => drop(over.send(Err(status))),
        });
    }

    fn check(
        &self,
        begin: Instant,
        body: &Bytes,
        result: Result<Response, Status>,
    ) -> Result<(), Status> {
        if result?.body != body {
            return Err(Status::data_loss("another body came back"));
        }
        let nanos = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut latencies = self.latencies.lock().expect("no callback panicked");
        latencies.saturating_record(nanos);
        Ok(())
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.listen {
        Some(address) => serve(address, options.reactors),
        None => measure(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rpc_bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(address: &str, reactors: u16) -> Result<Engine, StartError> {
    let server = Server::new();
    Engine::builder().reactors(reactors.into()).listen(address).start(move |_reactor| {
        let echo = |call: &mut Call<'_>| call.answer(call.body());
        server.serve(Router::new().method("echo.Echo/echo", echo))
    })
}

/// Serves until a signal comes.
fn serve(address: &str, reactors: u16) -> anyhow::Result<()> {
    let engine = start(address, reactors)?;
    engine.stop_on_signals(PATIENCE)?;
    for address in engine.local_addrs() {
        println!("listening on {address}");
    }
    Ok(engine.wait()?)
}

fn measure(options: &Options) -> anyhow::Result<()> {
    let &Options { connections, in_flight, size, seconds, .. } = options;
    let engine = start("127.0.0.1:0", options.reactors)?;
    let client = Client::builder()
        .address(engine.local_addrs()[0].to_string())
        .connections(connections.into())
        .max_in_flight(in_flight.into())
        .build()?;
    println!(
        "echo of {size} bytes over loopback, {in_flight} calls in flight on {connections} connection{}, \
         for {seconds} s, every body checked",
        if connections == 1 { "" } else { "s" }
    );
    let duration = Duration::from_secs(seconds);
    let load = Arc::new(Load {
        client,
        size: size as usize,
        end: Instant::now().checked_add(duration).context("too many seconds")?,
        number: AtomicU64::new(0),
        latencies: Mutex::new(Histogram::new_with_bounds(1, 60_000_000_000, 3)?),
    });
    let (over, ends) = channel();
    for _ in 0..in_flight {
        Arc::clone(&load).call(over.clone());
    }
    drop(over);
    let begin = Instant::now();
    for _ in 0..in_flight {
        ends.recv_timeout(duration.saturating_add(2 * PATIENCE))??;
    }
    print(&load.latencies.lock().expect("no callback panicked"), begin.elapsed());
    load.client.stop(PATIENCE)?;
    engine.stop(PATIENCE)?;
    Ok(engine.wait()?)
}

fn print(latencies: &Histogram<u64>, duration: Duration) {
    let per_second = latencies.len() as f64 / duration.as_secs_f64();
    println!(
        "\n{:.0} calls/s ({} in {:.2} s)\n",
        per_second,
        latencies.len(),
        duration.as_secs_f64()
    );
    for (name, percentile) in
        [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0)]
    {
        let micros = latencies.value_at_percentile(percentile) as f64 / 1e3;
        println!("{name:<6}{micros:>10.1} us");
    }
}
