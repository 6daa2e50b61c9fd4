//! A client of WebSocket that sends back what servers send, for suites that test clients.
//!
//! `websocket_echo_client ws://127.0.0.1:9001 3` connects to `/0`, `/1` and `/2` there, some at a
//! time, each until the server closes. `scripts/autobahn` uses it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use clap::Parser;
use millstream::Engine;
use millstream::codec::Framed;
use millstream::websocket::{
    MessageLimits, PerMessageDeflate, Socket, SocketEnd, WebSocketClient, WebSocketConnectError,
    WebSocketConnector, WebSocketHandler, WebSocketRequest,
};

/// The longest message.
const LONGEST: usize = 16 << 20;
/// How long the last ones have to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client of WebSocket that sends back what servers send.
#[derive(Parser)]
struct Options {
    /// The server, for example ws://127.0.0.1:9001.
    url: String,
    /// How many times to connect.
    count: usize,
    /// How many connections there are at a time.
    #[arg(long, value_name = "N", default_value_t = 6)]
    at_once: usize,
}

/// Sends each message back, and tells when it has ended.
struct Echo(Sender<()>);

impl WebSocketHandler for Echo {
    fn on_text(&mut self, socket: &mut Socket<'_, Self>, text: &str) {
        let _ = socket.send_text(text); // When it closes, no one waits for it.
    }

    fn on_binary(&mut self, socket: &mut Socket<'_, Self>, bytes: &[u8]) {
        let _ = socket.send_binary(bytes);
    }

    fn on_close(&mut self, _socket: &mut Socket<'_, Self>, _end: &SocketEnd<'_>) {
        let _ = self.0.send(()); // The program may have ended.
    }

    fn on_failed(&mut self, error: &WebSocketConnectError) {
        eprintln!("websocket_echo_client: {error}");
        let _ = self.0.send(());
    }
}

fn main() -> anyhow::Result<()> {
    let Options { url, count, at_once } = Options::parse();
    let mut limits = MessageLimits::default();
    (limits.frame, limits.message) = (LONGEST, LONGEST);
    let deflate = PerMessageDeflate::new().receive_context(true);
    let client = WebSocketClient::new().limits(limits).deflate(deflate);
    let handler = client.clone();
    let engine =
        Engine::builder().reactors(1).start(move |_reactor| handler.connector::<Echo>())?;
    let reactors = engine.reactors::<Framed<WebSocketConnector<Echo>>>().expect("its handler");
    let (sender, ended) = channel();
    for number in 0..count {
        if number >= at_once {
            ended.recv()?;
        }
        let request = WebSocketRequest::new(&format!("{url}/{number}"))?;
        client.connect(&reactors, 0, request.destination(), &request, Echo(sender.clone()))?;
    }
    for _ in 0..count.min(at_once) {
        ended.recv()?;
    }
    engine.stop(PATIENCE)?;
    engine.wait()?;
    println!("{count} connections have ended");
    Ok(())
}
