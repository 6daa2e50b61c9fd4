//! Asks a server of HTTP/1.1 and prints what it answers.
//!
//! `http_get http://127.0.0.1:8080/`, or `http_get --head https://example.org/ --authorities
//! /etc/ssl/certs/ca-certificates.crt`.

#![allow(clippy::print_stderr, reason = "a program's output")]

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use millstream::http::{HttpClient, HttpRequest};
use millstream::tls::TlsClient;

/// Asks a server of HTTP/1.1: its content goes to the output, all else to the error output.
#[derive(Parser)]
struct Options {
    /// What to ask for.
    url: String,
    /// Ask for the head alone.
    #[arg(long)]
    head: bool,
    /// A field to send, for example "Accept: text/plain".
    #[arg(long, value_name = "FIELD")]
    field: Vec<String>,
    /// How many redirects to follow.
    #[arg(long, value_name = "N", default_value_t = 5)]
    redirects: u32,
    /// How many seconds it may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// A PEM file with the authorities that vouch for servers of https.
    #[arg(long, value_name = "FILE")]
    authorities: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut builder = HttpClient::builder().redirects(options.redirects);
    if let Some(file) = options.authorities {
        builder = builder.tls(&TlsClient::builder().authorities_file(file).build()?);
    }
    let method = if options.head { "HEAD" } else { "GET" };
    let mut request = HttpRequest::new(method, &options.url)?.stream_response();
    for field in &options.field {
        let (name, value) = field.split_once(':').context("a field has a colon")?;
        request = request.field(name, value.trim())?;
    }
    let timeout = Duration::from_secs(options.timeout);
    let client = builder.build()?; // It is kept until the content's end.
    let mut response = client.call(request.timeout(timeout))?;
    eprintln!("{} from {}", response.status(), response.url());
    if let Some(mut reader) = response.reader() {
        io::copy(&mut reader, &mut io::stdout().lock())?;
    }
    ensure!(response.status().code() < 400, "the server refuses");
    Ok(())
}
