//! Where to listen, and how.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millstream_platform::address::{self, Address, Transport, UnixAddress};
use millstream_platform::socket::{
    BoundSocket, DatagramOptions, DatagramSocket, InheritError, OptionError, SocketOptions,
    SocketRole, listen_tcp, listen_unix, local_addr,
};
use socket2::SockRef;

use super::{ConfigError, Layers, ListenError, Preface};

/// Where to listen, and how: made from an address or from text. What is wrong with it is found out
/// when it is used.
///
/// | text | is |
/// | --- | --- |
/// | `tcp://127.0.0.1:7000`, `tcp://[::1]:7000`, or without the scheme | that address; port 0 lets the system choose |
/// | `tcp://0.0.0.0:7000`, `tcp://[::]:7000`, `tcp://:7000` | all addresses of the machine, IPv4 and IPv6 |
/// | `tcp4://…`, `tcp6://…` | the same with IPv4 or IPv6 alone |
/// | `tcp6://[fe80::1%eth0]:7000` | an address of one interface, by its name or its number (RFC 4007) |
/// | `unix:///run/name.socket`, `unix://name.socket` | a Unix socket at a path |
/// | `unix://@name` | a Unix socket with an abstract name, which is not a file (Linux only) |
/// | `udp://…`, `udp4://…`, `udp6://…` | the same as with `tcp`, for datagrams |
/// | `unixgram:///run/name.socket`, `unixgram://@name` | a Unix socket for datagrams |
///
/// The names of hosts, such as `localhost`, are not looked up: a listener has one address, and a
/// name may have several.
///
/// A Unix socket that an earlier process left behind is replaced if no process listens there, and
/// removed when this one is closed.
///
/// ```
/// use millstream::{Engine, Listen, SocketOptions};
///
/// let builder = Engine::builder()
///     .listen("0.0.0.0:7000")
///     .listen("unix:///run/example.socket")
///     .listen(Listen::from("udp://[::1]:7000"))
///     .listen(Listen::from("127.0.0.1:7001").max_connections(10));
/// ```
#[doc(alias("bind", "port"))]
#[derive(Clone, Debug)]
#[must_use]
pub struct Listen {
    transport: Transport,
    endpoint: Result<Endpoint, Unusable>,
    backlog: Option<u32>,
    mode: Option<u32>,
    options: SocketOptions,
    most: Option<usize>,
    /// What comes before its connections open.
    pub(crate) preface: Option<Arc<dyn Preface>>,
    /// What stands between its connections and the handler.
    pub(crate) layers: Layers,
    inherited: Option<Inherited>,
}

/// What is done with the connections of a listener.
#[derive(Default)]
pub(crate) struct Rules {
    /// To be set on each, where they don't have them from the listener.
    pub(crate) options: Option<SocketOptions>,
    /// How many there may be at the same time.
    pub(crate) most: Option<usize>,
    /// What comes before they open.
    pub(crate) preface: Option<Arc<dyn Preface>>,
    /// What stands between them and the handler.
    pub(crate) layers: Layers,
}

/// Sockets that listen already.
#[derive(Clone, Debug)]
struct Inherited {
    name: String,
    sockets: Arc<[BoundSocket]>,
    gate: Gate,
}

/// Whether sockets are to be accepted on: not before this process has taken over. All clones open
/// at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<AtomicBool>);

impl Gate {
    pub(crate) fn opened() -> Self {
        Gate(Arc::new(AtomicBool::new(true)))
    }

    pub(crate) fn open(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// An endpoint to listen at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Ip(SocketAddr),
    /// All addresses of the machine.
    Everywhere(u16),
    Unix(UnixAddress),
}

/// Text that is not an endpoint to listen at, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unusable {
    text: String,
    reason: &'static str,
}

impl Listen {
    /// Listens on an IP address: that one and no other, also if it is the unspecified one of its
    /// family.
    pub fn tcp(address: impl Into<SocketAddr>) -> Self {
        Listen::at(Transport::Tcp, Ok(Endpoint::Ip(address.into())))
    }

    /// Listens on a Unix socket.
    pub fn unix(address: UnixAddress) -> Self {
        Listen::at_name(Transport::Unix, address)
    }

    /// Takes datagrams on an IP address: that one and no other, also if it is the unspecified one
    /// of its family.
    pub fn udp(address: impl Into<SocketAddr>) -> Self {
        Listen::at(Transport::Udp, Ok(Endpoint::Ip(address.into())))
    }

    /// Takes datagrams on a Unix socket.
    pub fn unix_datagram(address: UnixAddress) -> Self {
        Listen::at_name(Transport::UnixDatagram, address)
    }

    /// Listens on sockets that another process has bound, and which all are at one address and of
    /// one kind. The backlog and the file's mode are what they were opened with; a file stays where
    /// it is. In [`AcceptMode::ReusePort`](crate::AcceptMode::ReusePort) each reactor serves one of
    /// them, or several, if there are enough; else the main acceptor accepts on all.
    ///
    /// # Errors
    /// A descriptor is no such socket, or there is none.
    pub fn inherited(sockets: impl IntoIterator<Item = OwnedFd>) -> Result<Self, InheritError> {
        let inherited = sockets.into_iter().map(BoundSocket::inherit);
        let (sockets, addresses): (Vec<_>, Vec<_>) =
            inherited.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        let first = *addresses.first().ok_or(InheritError::Nothing)?;
        if let Some(other) = addresses.into_iter().find(|address| *address != first) {
            return Err(InheritError::Apart(Box::new([first, other])));
        }
        let transport = sockets[0].transport();
        if sockets.iter().any(|socket| socket.transport() != transport) {
            return Err(InheritError::Mixed { address: first });
        }
        Ok(Listen::on(transport, first, first.to_string(), sockets, Gate::opened()))
    }

    /// Listens on sockets of one transport that are at this address and called so, as soon as the
    /// gate is open.
    pub(crate) fn on(
        transport: Transport,
        address: Address,
        name: String,
        sockets: Vec<BoundSocket>,
        gate: Gate,
    ) -> Self {
        let endpoint = match address {
            Address::Ip(address) => Endpoint::Ip(address),
            Address::Unix(address) => Endpoint::Unix(address),
        };
        let inherited = Some(Inherited { name, sockets: sockets.into(), gate });
        Listen { inherited, ..Listen::at(transport, Ok(endpoint)) }
    }

    /// The same on sockets that were inherited, which have their backlog and their mode.
    pub(crate) fn on_sockets_of(self, inherited: Listen) -> Self {
        let Listen { transport, endpoint, inherited, backlog, mode, .. } = inherited;
        Listen { transport, endpoint, inherited, backlog, mode, ..self }
    }

    /// When it is to be accepted on.
    pub(crate) fn gate(&self) -> Gate {
        self.inherited.as_ref().map_or_else(Gate::opened, |inherited| inherited.gate.clone())
    }

    fn at_name(transport: Transport, address: UnixAddress) -> Self {
        let unnamed = || Unusable { text: address.to_string(), reason: "it has no name" };
        let endpoint = (!address.is_unnamed()).then_some(Endpoint::Unix(address));
        Listen::at(transport, endpoint.ok_or_else(unnamed))
    }

    fn at(transport: Transport, endpoint: Result<Endpoint, Unusable>) -> Self {
        Listen {
            transport,
            endpoint,
            backlog: None,
            mode: None,
            options: SocketOptions::new(),
            most: None,
            preface: None,
            layers: Layers::default(),
            inherited: None,
        }
    }

    /// How many connections may wait to be accepted. By default what
    /// [`Builder::backlog`](crate::Builder::backlog) says.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = Some(connections);
        self
    }

    /// The mode of a Unix socket's file, such as `0o660`: anyone who may write to it may connect.
    /// By default what the process' mask leaves.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// How many of the connections that came in on it there may be at the same time, in addition to
    /// the limits of the engine. By default there is no limit of its own.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.most = Some(connections);
        self
    }

    /// What holds for its connections; `options` are to be set on each.
    pub(crate) fn rules(&self, options: Option<SocketOptions>) -> Rules {
        let (preface, layers) = (self.preface.clone(), self.layers.clone());
        Rules { options, most: self.most, preface, layers }
    }

    /// Options of this listener and of the connections that it accepts, over those of
    /// [`Builder::socket_options`](crate::Builder::socket_options).
    pub fn socket_options(mut self, options: SocketOptions) -> Self {
        self.options = options.or(&self.options);
        self
    }

    /// The options of what it accepts, with those of the engine.
    pub(crate) fn options_over(&self, defaults: &SocketOptions) -> SocketOptions {
        self.options.clone().or(defaults)
    }

    /// Whether such a socket has its options, and may have these values.
    pub(crate) fn check_options(&self) -> Result<(), ListenError> {
        let checked = self.options.check_for(self.transport, SocketRole::Listener);
        checked.map_err(|error| self.option_error(error))
    }

    fn option_error(&self, source: OptionError) -> ListenError {
        ListenError::Option { address: self.address().into(), source }
    }

    /// Where it is to listen.
    pub(crate) fn address(&self) -> Address {
        self.endpoint.as_ref().map_or(UnixAddress::UNNAMED.into(), Endpoint::address)
    }

    /// What it is to carry.
    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether it can be listened on with this.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let error = |value, reason| Err(ConfigError { field: "listen", value, reason });
        let endpoint = match &self.endpoint {
            Ok(endpoint) => endpoint,
            Err(unusable) => return error(format!("{:?}", unusable.text), unusable.reason),
        };
        if self.inherited.is_some() && (self.backlog.is_some() || self.mode.is_some()) {
            return error(self.to_string(), "it listens already: it has its backlog and its mode");
        }
        let is_file = endpoint.address().unix().is_some_and(|address| address.as_path().is_some());
        if self.mode.is_some() && !is_file {
            return error(self.to_string(), "it is no file and has no mode");
        }
        if self.mode.is_some_and(|mode| mode > 0o777) {
            return error(format!("{:o}", self.mode.unwrap_or_default()), "the mode is above 777");
        }
        if self.backlog.is_some() && !self.transport.is_stream() {
            return error(self.to_string(), "datagrams have no backlog");
        }
        if self.most.is_some() && !self.transport.is_stream() {
            return error(self.to_string(), "datagrams have no connections");
        }
        if self.backlog == Some(0) {
            return error(self.to_string(), "the backlog must be at least 1");
        }
        if self.most == Some(0) {
            return error(self.to_string(), "max_connections must be at least 1");
        }
        self.preface.as_ref().map_or(Ok(()), |preface| preface.check(self))
    }

    /// Opens the sockets: with `shares`, this many that share an address, if it can be shared; else
    /// one. A port that the system chose for the first one is the others', too.
    pub(crate) fn open(
        &self,
        shares: Option<usize>,
        backlog: u32,
        options: &SocketOptions,
    ) -> Result<Vec<BoundSocket>, ListenError> {
        self.check_options()?;
        let address = self.address();
        let refused = |source: io::Error| match source.downcast() {
            Ok(error) => self.option_error(error),
            Err(source) => ListenError::Refused { address, source },
        };
        if let Some(Inherited { sockets, .. }) = &self.inherited {
            return take_over(sockets, options).map_err(refused);
        }
        let backlog = self.backlog.unwrap_or(backlog);
        let reuse_port = shares.is_some();
        let datagrams =
            |how: DatagramOptions| DatagramSocket::open(&how, options).map(BoundSocket::Datagrams);
        let streams = self.transport.is_stream();
        let open_ip = |address: SocketAddr, dual_stack| {
            if streams {
                let listener = listen_tcp(address, dual_stack, backlog, reuse_port, options);
                return listener.map(BoundSocket::Listener);
            }
            let bind = Some(address.into());
            datagrams(DatagramOptions { bind, dual_stack, reuse_port, ..Default::default() })
        };
        let open_unix = |address: UnixAddress| {
            if streams {
                let listener = listen_unix(&address, self.mode, backlog, options);
                return listener.map(BoundSocket::Listener);
            }
            let (bind, mode) = (Some(address.into()), self.mode);
            datagrams(DatagramOptions { bind, mode, ..Default::default() })
        };
        let endpoint = self.endpoint.as_ref().expect("it was checked");
        let opened = match *endpoint {
            Endpoint::Ip(address) => share(shares, address, |address| open_ip(address, false)),
            Endpoint::Everywhere(port) if has_ipv6() => {
                let everywhere = (Ipv6Addr::UNSPECIFIED, port).into();
                share(shares, everywhere, |address| open_ip(address, true))
            }
            Endpoint::Everywhere(port) => {
                let everywhere = (Ipv4Addr::UNSPECIFIED, port).into();
                share(shares, everywhere, |address| open_ip(address, false))
            }
            Endpoint::Unix(address) => open_unix(address).map(|socket| vec![socket]),
        };
        opened.map_err(refused)
    }
}

/// Descriptors of sockets that are bound already, which get these options.
fn take_over(sockets: &[BoundSocket], options: &SocketOptions) -> io::Result<Vec<BoundSocket>> {
    let take = |socket: &BoundSocket| {
        options.apply(&SockRef::from(&socket.as_fd()), socket.transport(), SocketRole::Listener)?;
        socket.try_clone()
    };
    sockets.iter().map(take).collect()
}

/// Opens as many sockets as share an address, or one. What the system chose for the first one is
/// the others', too.
fn share(
    shares: Option<usize>,
    mut address: SocketAddr,
    open: impl Fn(SocketAddr) -> io::Result<BoundSocket>,
) -> io::Result<Vec<BoundSocket>> {
    let mut sockets = Vec::new();
    for _ in 0..shares.unwrap_or(1) {
        let socket = open(address)?;
        address = local_addr(&socket)?.socket_addr().unwrap_or(address);
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Whether the machine has IPv6 at all.
fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

impl Endpoint {
    fn address(&self) -> Address {
        match *self {
            Endpoint::Ip(address) => address.into(),
            Endpoint::Everywhere(port) => (Ipv6Addr::UNSPECIFIED, port).into(),
            Endpoint::Unix(address) => address.into(),
        }
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Listen::tcp(address)
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for Listen {
    fn from(address: (I, u16)) -> Self {
        Listen::tcp(address)
    }
}

impl From<UnixAddress> for Listen {
    fn from(address: UnixAddress) -> Self {
        Listen::unix(address)
    }
}

/// A stream socket at that address.
impl From<Address> for Listen {
    fn from(address: Address) -> Self {
        match address {
            Address::Ip(address) => Listen::tcp(address),
            Address::Unix(address) => Listen::unix(address),
        }
    }
}

impl From<&str> for Listen {
    fn from(text: &str) -> Self {
        let (transport, endpoint) = parse(text);
        let unusable = |reason| Unusable { text: text.to_owned(), reason };
        Listen::at(transport, endpoint.map_err(unusable))
    }
}

impl From<String> for Listen {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.endpoint, &self.inherited) {
            (_, Some(inherited)) => f.write_str(&inherited.name),
            (Ok(endpoint), None) => endpoint.address().fmt(f),
            (Err(unusable), None) => f.write_str(&unusable.text),
        }
    }
}

/// The transport that the scheme stands for, and the endpoint behind it.
fn parse(text: &str) -> (Transport, Result<Endpoint, &'static str>) {
    let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
    match scheme {
        "tcp" => (Transport::Tcp, parse_ip(rest, |_| true)),
        "tcp4" => (Transport::Tcp, parse_ip(rest, IpAddr::is_ipv4)),
        "tcp6" => (Transport::Tcp, parse_ip(rest, IpAddr::is_ipv6)),
        "udp" => (Transport::Udp, parse_ip(rest, |_| true)),
        "udp4" => (Transport::Udp, parse_ip(rest, IpAddr::is_ipv4)),
        "udp6" => (Transport::Udp, parse_ip(rest, IpAddr::is_ipv6)),
        "unix" => (Transport::Unix, parse_unix(rest)),
        "unixgram" => (Transport::UnixDatagram, parse_unix(rest)),
        _ => (Transport::Tcp, Err(BAD_SCHEME)),
    }
}

const BAD_SCHEME: &str =
    "the scheme is none of tcp, tcp4, tcp6, udp, udp4, udp6, unix and unixgram";

// A name may stand for several addresses, as localhost does, and for others tomorrow; a listener
// has one address, and where a server can be reached should not depend on a resolver.
const LOCALHOST: &str = "names are not looked up: write 127.0.0.1 or [::1] for this machine";
const NAME: &str =
    "names are not looked up: write an IP address, or none in front of the port for all of them";

fn is_name(host: &str) -> bool {
    !host.starts_with('[') && host.contains(|c: char| c.is_alphabetic())
}

/// An address with a port, of a family that is `wanted`.
fn parse_ip(text: &str, wanted: impl Fn(&IpAddr) -> bool) -> Result<Endpoint, &'static str> {
    let (v4, v6) = (IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED));
    let (host, port) = split_port(text)?;
    let address = match host {
        "" if wanted(&v6) => SocketAddr::new(v6, port),
        "" => SocketAddr::new(v4, port),
        "localhost" => return Err(LOCALHOST),
        _ if is_name(host) => return Err(NAME),
        _ => address::parse_host(host, port)?,
    };
    if !wanted(&address.ip()) {
        return Err("the address is of the other family than the scheme");
    }
    let everywhere = address.ip().is_unspecified() && wanted(&v4) && wanted(&v6);
    Ok(if everywhere { Endpoint::Everywhere(port) } else { Endpoint::Ip(address) })
}

fn split_port(text: &str) -> Result<(&str, u16), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.starts_with(['/', '@', '.']) {
        return Err("a Unix socket is written with unix:// in front");
    }
    let (host, port) = text.rsplit_once(':').ok_or("it has no port")?;
    if let "tcp" | "udp" | "unix" | "unixgram" = host {
        return Err("a scheme has :// behind it");
    }
    if port.ends_with(']') {
        return Err("it has no port");
    }
    let number = port.parse().ok().filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()));
    let port = number.ok_or("the port is not a number from 0 to 65535")?;
    if host.contains(':') && !host.starts_with('[') {
        return Err("an IPv6 address with a port needs brackets, as in [::1]:7000");
    }
    Ok((host, port))
}

fn parse_unix(name: &str) -> Result<Endpoint, &'static str> {
    let address = match name.strip_prefix('@') {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Some(name) => UnixAddress::abstract_name(name),
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        Some(_) => return Err("this system has no abstract names"),
        None => UnixAddress::path(name),
    };
    address.map(Endpoint::Unix).map_err(|error| error.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_parsed_or_says_what_is_wrong() {
        let local = SocketAddr::from(([127, 0, 0, 1], 80));
        let loopback = SocketAddr::from((Ipv6Addr::LOCALHOST, 80));
        let path = UnixAddress::path("/run/a b").unwrap();
        use Transport::{Tcp, Udp, Unix, UnixDatagram};
        let good = [
            ("127.0.0.1:80", Tcp, Endpoint::Ip(local)),
            ("tcp://127.0.0.1:80", Tcp, Endpoint::Ip(local)),
            ("tcp4://127.0.0.1:80", Tcp, Endpoint::Ip(local)),
            ("[::1]:80", Tcp, Endpoint::Ip(loopback)),
            ("tcp6://[::1]:80", Tcp, Endpoint::Ip(loopback)),
            ("tcp://:80", Tcp, Endpoint::Everywhere(80)),
            (":0", Tcp, Endpoint::Everywhere(0)),
            ("0.0.0.0:80", Tcp, Endpoint::Everywhere(80)),
            ("tcp://[::]:80", Tcp, Endpoint::Everywhere(80)),
            ("tcp4://:80", Tcp, Endpoint::Ip((Ipv4Addr::UNSPECIFIED, 80).into())),
            ("tcp4://0.0.0.0:80", Tcp, Endpoint::Ip((Ipv4Addr::UNSPECIFIED, 80).into())),
            ("tcp6://:80", Tcp, Endpoint::Ip((Ipv6Addr::UNSPECIFIED, 80).into())),
            ("unix:///run/a b", Unix, Endpoint::Unix(path)),
            ("udp://127.0.0.1:80", Udp, Endpoint::Ip(local)),
            ("udp6://[::1]:80", Udp, Endpoint::Ip(loopback)),
            ("udp://:80", Udp, Endpoint::Everywhere(80)),
            ("udp4://:80", Udp, Endpoint::Ip((Ipv4Addr::UNSPECIFIED, 80).into())),
            ("unixgram:///run/a b", UnixDatagram, Endpoint::Unix(path)),
        ];
        for (text, transport, endpoint) in good {
            let listen = Listen::from(text);
            assert_eq!((listen.transport, listen.endpoint), (transport, Ok(endpoint)), "{text}");
        }
        let no_number = "the port is not a number from 0 to 65535";
        let other_family = "the address is of the other family than the scheme";
        let bad = [
            ("", "it is empty"),
            ("tcp://", "it is empty"),
            ("127.0.0.1", "it has no port"),
            ("127.0.0.1:", no_number),
            ("127.0.0.1:+80", no_number),
            ("[::1]", "it has no port"),
            ("/run/a", "a Unix socket is written with unix:// in front"),
            ("@a", "a Unix socket is written with unix:// in front"),
            ("unix:/run/a", "a scheme has :// behind it"),
            ("127.0.0.1:65536", no_number),
            ("::1:80", "an IPv6 address with a port needs brackets, as in [::1]:7000"),
            ("localhost:80", LOCALHOST),
            ("udp://localhost:80", LOCALHOST),
            ("example:80", NAME),
            ("1.2.3:80", "the host is not an IP address"),
            ("[::1:80", "the host is not an IP address"),
            ("[127.0.0.1]:80", "the host is not an IP address"),
            ("[fe80::1%none such]:80", "the machine has no interface of that name"),
            ("tcp4://[::1]:80", other_family),
            ("tcp6://127.0.0.1:80", other_family),
            ("unix://", "it is empty"),
            ("unix://@", "it is empty"),
            ("unix://a\0b", "there is a zero byte in it"),
            ("udp4://[::1]:80", other_family),
            ("unixgram://", "it is empty"),
            ("quic://127.0.0.1:80", BAD_SCHEME),
        ];
        for (text, reason) in bad {
            let error = Listen::from(text).check().expect_err(text);
            assert_eq!((error.value, error.reason), (format!("{text:?}"), reason));
        }
    }

    #[test]
    fn what_does_not_go_with_the_address_is_found() {
        let reason = |listen: Listen| listen.check().unwrap_err().reason;
        let file = || Listen::from("unix:///run/a");
        assert_eq!(reason(Listen::from("[::1]:0").mode(0o600)), "it is no file and has no mode");
        assert_eq!(reason(file().mode(0o1777)), "the mode is above 777");
        assert_eq!(reason(file().backlog(0)), "the backlog must be at least 1");
        assert_eq!(reason(file().max_connections(0)), "max_connections must be at least 1");
        assert_eq!(reason(Listen::unix(UnixAddress::UNNAMED)), "it has no name");
        let datagrams = || Listen::from("unixgram:///run/a");
        assert_eq!(reason(datagrams().backlog(5)), "datagrams have no backlog");
        assert_eq!(reason(datagrams().max_connections(5)), "datagrams have no connections");
        assert_eq!(
            reason(Listen::from("udp://[::1]:0").mode(0o600)),
            "it is no file and has no mode"
        );
        assert_eq!(reason(Listen::unix_datagram(UnixAddress::UNNAMED)), "it has no name");
        assert!(datagrams().mode(0o660).check().is_ok());
        assert!(file().mode(0o660).backlog(1).check().is_ok());
    }

    #[test]
    fn an_interface_is_known_by_name_and_by_number() {
        let lo = ["lo", "lo0"].map(|name| Listen::from(format!("[fe80::1%{name}]:80")).endpoint);
        let Some(Endpoint::Ip(SocketAddr::V6(named))) = lo.into_iter().find_map(Result::ok) else {
            panic!("the machine has a loopback interface");
        };
        let numbered = format!("[fe80::1%{}]:80", named.scope_id());
        assert_eq!(Listen::from(numbered).endpoint, Ok(Endpoint::Ip(named.into())));
        assert_ne!(named.scope_id(), 0);
    }
}
