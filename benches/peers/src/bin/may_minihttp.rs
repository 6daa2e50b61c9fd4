//! may_minihttp: a coroutine for each connection, over epoll.
//!
//! Tuned: as many workers as are asked for, not pinned, because the starter of a server says where
//! it runs.

use std::io::{self, BufRead};

use bytes::BufMut;
use clap::Parser;
use may_minihttp::{HttpServer, HttpService, Request, Response};
use millstream_peers::echo_server::{Options, announce};
use millstream_peers::http::{Message, PLAINTEXT};

#[derive(Clone)]
struct Service;

impl HttpService for Service {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        match request.path() {
            "/plaintext" => response.header("Content-Type: text/plain").body(PLAINTEXT),
            "/json" => {
                response.header("Content-Type: application/json");
                serde_json::to_writer(response.body_mut().writer(), &Message::default())?;
            }
            "/echo" => {
                let mut body = request.body();
                loop {
                    let part = body.fill_buf()?;
                    if part.is_empty() {
                        break;
                    }
                    let length = part.len();
                    response.body_mut().extend_from_slice(part);
                    body.consume(length);
                }
            }
            _ => {
                response.status_code(404, "Not Found");
            }
        }
        Ok(())
    }
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    may::config().set_workers(options.threads.get()).set_worker_pin(false);
    let server = HttpServer(Service).start(options.listen)?;
    announce(options.listen);
    server.join().map_err(|_| io::Error::other("the accepting coroutine panicked"))
}
