//! actix-web, as its users write it.
//!
//! Tuned: as many workers as are asked for, which share nothing.

use std::io;

use actix_web::{App, HttpResponse, HttpServer, Responder, rt, web};
use clap::Parser;
use millstream_peers::echo_server::{Options, announce, listen};
use millstream_peers::http::{Message, PLAINTEXT};

fn main() -> io::Result<()> {
    let options = Options::parse();
    let listener = listen(options.listen)?;
    let address = listener.local_addr()?;
    let app = || {
        App::new()
            .route("/plaintext", web::get().to(async || PLAINTEXT))
            .route("/json", web::get().to(json))
            .route("/echo", web::post().to(echo))
    };
    let server = HttpServer::new(app).workers(options.threads.get()).listen(listener)?;
    announce(address);
    rt::System::new().block_on(server.run())
}

async fn json() -> impl Responder {
    HttpResponse::Ok().json(Message::default())
}

async fn echo(body: web::Bytes) -> impl Responder {
    HttpResponse::Ok().body(body)
}
