//! Where to listen.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// An address to listen on: a [`SocketAddr`], an IP address with a port, or text of the form
/// `127.0.0.1:7000`, `[::1]:7000` or `tcp://127.0.0.1:7000`. Port 0 lets the system choose.
///
/// Text that is no address is found out when the engine starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(Result<SocketAddr, Unusable>);

/// Text that is no address, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unusable {
    pub(crate) text: String,
    pub(crate) reason: &'static str,
}

impl Address {
    pub(crate) fn resolve(&self) -> Result<SocketAddr, Unusable> {
        self.0.clone()
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address(Ok(address))
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for Address {
    fn from(address: (I, u16)) -> Self {
        Address(Ok(address.into()))
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        let unusable = |reason| Unusable { text: text.to_owned(), reason };
        Address(parse(text).map_err(unusable))
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(address) => address.fmt(f),
            Err(unusable) => f.write_str(&unusable.text),
        }
    }
}

fn parse(text: &str) -> Result<SocketAddr, &'static str> {
    let address = match text.split_once("://") {
        Some(("tcp", address)) => address,
        Some(_) => return Err("the scheme is not tcp"),
        None => text,
    };
    if address.is_empty() {
        return Err("it is empty");
    }
    let Some((host, port)) = address.rsplit_once(':') else { return Err("it has no port") };
    if port.parse::<u16>().is_err() {
        return Err("the port is not a number from 0 to 65535");
    }
    if host.contains(':') && !host.starts_with('[') {
        return Err("an IPv6 address with a port needs brackets, as in [::1]:7000");
    }
    address.parse().map_err(|_| "the host is not an IP address")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_parsed_or_says_what_is_wrong() {
        let good = ["127.0.0.1:80", "tcp://127.0.0.1:80"];
        for text in good {
            assert_eq!(Address::from(text).resolve(), Ok(([127, 0, 0, 1], 80).into()), "{text}");
        }
        assert!(Address::from("[::1]:0").resolve().is_ok());
        let bad = [
            ("", "it is empty"),
            ("tcp://", "it is empty"),
            ("127.0.0.1", "it has no port"),
            ("127.0.0.1:", "the port is not a number from 0 to 65535"),
            ("127.0.0.1:65536", "the port is not a number from 0 to 65535"),
            ("::1:80", "an IPv6 address with a port needs brackets, as in [::1]:7000"),
            ("example:80", "the host is not an IP address"),
            ("quic://127.0.0.1:80", "the scheme is not tcp"),
        ];
        for (text, reason) in bad {
            let unusable = Address::from(text).resolve().expect_err(text);
            assert_eq!((unusable.text.as_str(), unusable.reason), (text, reason));
        }
    }
}
