//! hyper, with its own types and no router.
//!
//! Tuned: a runtime per thread, and responses to pipelined requests sent together
//! (`pipeline_flush`), which is off by default.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use millstream_peers::http::{Message, PLAINTEXT, run};
use tokio::net::TcpListener;

fn main() -> io::Result<()> {
    run(serve)
}

async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let mut server = http1::Builder::new();
        server.pipeline_flush(true).timer(TokioTimer::new());
        let connection = server.serve_connection(TokioIo::new(stream), service_fn(respond));
        tokio::task::spawn_local(connection);
    }
}

async fn respond(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/plaintext") => ("text/plain", Bytes::from_static(PLAINTEXT.as_bytes())),
        (&Method::GET, "/json") => {
            let json = serde_json::to_vec(&Message::default()).unwrap_or_default();
            ("application/json", json.into())
        }
        (&Method::POST, "/echo") => match request.into_body().collect().await {
            Ok(body) => ("application/octet-stream", body.to_bytes()),
            Err(_) => return Ok(status(StatusCode::BAD_REQUEST)),
        },
        _ => return Ok(status(StatusCode::NOT_FOUND)),
    };
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
