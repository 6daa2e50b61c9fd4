//! How command lines say numbers, times and addresses.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::time::Duration;

/// How long an address may take to show whether somebody listens there.
const PROBE: Duration = Duration::from_secs(1);

/// A whole number, which may end with `k` for 1,024.
///
/// # Errors
///
/// If it is something else, or too large.
pub fn count(text: &str) -> Result<usize, String> {
    let number = match text.strip_suffix('k') {
        Some(thousands) => thousands.parse::<usize>().ok().and_then(|n| n.checked_mul(1024)),
        None => text.parse().ok(),
    };
    number.ok_or_else(|| format!("`{text}` is no whole number, such as 64 or 4k"))
}

/// A parser of seconds within `bounds`.
pub fn seconds(
    bounds: RangeInclusive<f64>,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    move |text| {
        let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
        if bounds.contains(&seconds) {
            Ok(Duration::from_secs_f64(seconds))
        } else {
            Err(format!("must be from {} to {} seconds", bounds.start(), bounds.end()))
        }
    }
}

/// `HOST:PORT`, with a name or an IP address. Of several addresses that a name stands for, the
/// first one where somebody listens.
///
/// # Errors
///
/// If it has no port, or the name is not known.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let addresses = text.to_socket_addrs().map_err(|error| error.to_string())?;
    let addresses: Vec<SocketAddr> = addresses.collect();
    choose(&addresses).ok_or_else(|| format!("`{text}` stands for no address"))
}

/// Only where there is a choice, a server gets connections that bring it nothing.
fn choose(addresses: &[SocketAddr]) -> Option<SocketAddr> {
    let listening = |address: &&SocketAddr| TcpStream::connect_timeout(address, PROBE).is_ok();
    let chosen = if addresses.len() > 1 { addresses.iter().find(listening) } else { None };
    chosen.or(addresses.first()).copied()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_count_may_be_in_units_of_1024() {
        assert_eq!(count("7"), Ok(7));
        assert_eq!(count("64k"), Ok(65_536));
        for text in ["", "k", "-1", "1.5k", "1m", "18014398509481984k"] {
            assert!(count(text).unwrap_err().contains("no whole number"), "{text}");
        }
    }

    #[test]
    fn seconds_have_bounds() {
        let seconds = seconds(0.5..=3.0);
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0.4", "3.1", "-1", "nan", "inf"] {
            assert_eq!(seconds(text), Err("must be from 0.5 to 3 seconds".into()), "{text}");
        }
        assert_eq!(seconds("never"), Err("not a number of seconds".into()));
    }

    #[test]
    fn a_name_stands_for_the_address_where_somebody_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap();
        assert_eq!(address(&format!("localhost:{}", here.port())), Ok(here));
        let nobody = "[::1]:9".parse().unwrap();
        assert_eq!(address("[::1]:9"), Ok(nobody));
        let chosen = [&[nobody, here][..], &[nobody, nobody], &[]].map(choose);
        assert_eq!(chosen, [Some(here), Some(nobody), None]);
        assert!(address("127.0.0.1").is_err() && address("no name:7").is_err());
    }
}
