//! The echo service on tonic, as its code generator would write it, and both ends tuned.
//!
//! Windows of HTTP/2 are large enough that nothing waits for an update, and streams are not limited
//! to the usual 200 on a connection. There is no router, as there is only one service.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::uri::PathAndQuery;
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower_service::Service;

use crate::calls;

/// The service and its method.
const METHOD: &str = "/echo.Echo/echo";
/// Bytes that may be under way in each stream.
const STREAM_WINDOW: u32 = 1 << 20;
/// Bytes that may be under way in each connection.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Calls that may be under way in each connection.
const STREAMS: u32 = 1 << 20;

/// Request and response.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Echo {
    /// What is echoed.
    #[prost(bytes = "bytes", tag = "1")]
    pub body: Bytes,
}

/// Serves the connections of a listener, until accepting fails.
///
/// # Errors
///
/// Those of the listener and of tonic's server.
pub async fn serve(listener: TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?);
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .serve_with_incoming(EchoService, incoming.with_nodelay(Some(true)))
        .await
        .map_err(io::Error::other)
}

#[derive(Clone)]
struct EchoService;

impl Service<http::Request<Body>> for EchoService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != METHOD {
            return Box::pin(ready(Ok(Status::unimplemented("no such method").into_http())));
        }
        Box::pin(
            async move { Ok(Grpc::new(ProstCodec::default()).unary(EchoMethod, request).await) },
        )
    }
}

struct EchoMethod;

impl UnaryService<Echo> for EchoMethod {
    type Response = Echo;
    type Future = Ready<Result<Response<Echo>, Status>>;

    fn call(&mut self, request: Request<Echo>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

/// A connection to the service.
#[derive(Clone, Debug)]
pub struct Client {
    grpc: tonic::client::Grpc<Channel>,
}

impl calls::Client for Client {
    type Error = Status;

    async fn connect(address: SocketAddr, calls: usize) -> io::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint.map_err(io::Error::other)?;
        let endpoint = endpoint
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .buffer_size(calls)
            .tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(io::Error::other)?;
        Ok(Self { grpc: tonic::client::Grpc::new(channel) })
    }

    async fn echo(&self, body: Bytes) -> Result<Bytes, Status> {
        let mut grpc = self.grpc.clone();
        let lost = |error: tonic::transport::Error| Status::unavailable(error.to_string());
        grpc.ready().await.map_err(lost)?;
        let method = PathAndQuery::from_static(METHOD);
        let codec = ProstCodec::<Echo, Echo>::default();
        let response = grpc.unary(Request::new(Echo { body }), method, codec).await?;
        Ok(response.into_inner().body)
    }
}
