//! The echo service on tarpc, both ends tuned.
//!
//! The format is postcard, which tarpc does not bring along: of those it could use it is the
//! shortest on the wire, and bodies are copied whole instead of byte by byte. Handlers run in the
//! task of their connection, with no task for each call. Buffers hold all calls that are under way.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tarpc::client::{self, RpcError};
use tarpc::context::{self, Context};
use tarpc::serde_transport;
use tarpc::server::{self, BaseChannel, Channel};
use tokio::net::{TcpListener, TcpStream};
use tokio_serde::{Deserializer, Serializer};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::calls;
use crate::echo_server::BUFFER;
use service::{Echo, EchoClient};

/// Responses that may wait to be sent in each connection: more than anybody has calls in flight, as
/// those that wait for room keep others from being sent.
const RESPONSES: usize = 1 << 20;
/// Calls of each connection that are handled at once: with as many as come, their futures fill the
/// caches.
const AT_ONCE: usize = 64;

#[allow(missing_docs, reason = "the macro writes items without any")]
mod service {
    use super::Bytes;

    #[tarpc::service]
    pub(super) trait Echo {
        /// Has the server echo a body.
        async fn echo(body: Bytes) -> Bytes;
    }
}

#[derive(Clone)]
struct EchoService;

impl Echo for EchoService {
    async fn echo(self, _: Context, body: Bytes) -> Bytes {
        body
    }
}

/// Serves the connections of a listener, until accepting fails.
///
/// # Errors
///
/// Those of accepting.
pub async fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let config = server::Config { pending_response_buffer: RESPONSES };
        let transport = serde_transport::new(framed(stream), Postcard);
        let calls = BaseChannel::new(config, transport).execute(EchoService.serve());
        tokio::spawn(calls.for_each_concurrent(AT_ONCE, |call| call));
    }
}

fn framed(stream: TcpStream) -> Framed<TcpStream, LengthDelimitedCodec> {
    let mut framed = Framed::with_capacity(stream, LengthDelimitedCodec::new(), BUFFER);
    framed.set_backpressure_boundary(BUFFER);
    framed
}

/// The format of requests and responses.
struct Postcard;

impl<T: Serialize> Serializer<T> for Postcard {
    type Error = io::Error;

    fn serialize(self: Pin<&mut Self>, item: &T) -> io::Result<Bytes> {
        postcard::to_stdvec(item).map(Bytes::from).map_err(io::Error::other)
    }
}

impl<T: DeserializeOwned> Deserializer<T> for Postcard {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, bytes: &BytesMut) -> io::Result<T> {
        postcard::from_bytes(bytes).map_err(io::Error::other)
    }
}

/// A connection to the service.
#[derive(Clone, Debug)]
pub struct Client {
    calls: EchoClient,
}

impl calls::Client for Client {
    type Error = RpcError;

    async fn connect(address: SocketAddr, calls: usize) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut config = client::Config::default();
        config.max_in_flight_requests = calls;
        config.pending_request_buffer = calls;
        let transport = serde_transport::new(framed(stream), Postcard);
        Ok(Self { calls: EchoClient::new(config, transport).spawn() })
    }

    async fn echo(&self, body: Bytes) -> Result<Bytes, RpcError> {
        self.calls.echo(context::current(), body).await
    }
}
