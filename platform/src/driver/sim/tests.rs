//! What the simulation keeps of TCP. How the driver behaves is the contract suite's matter:
//! `tests/contract`.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{Faults, SimDriver, SimNetwork, SimPeer};
use crate::driver::{Budget, Event, Host, Listening, Polling, Space, Streams, Token};
use crate::memory::OutputPool;

const TOKEN: Token = Token { index: 1, generation: 1 };
const BUDGET: Budget = Budget { receive_buffer: 64, read: 1000, write: 100_000, accept: 10 };
const PORT_80: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 80);

struct NoRoom;

impl Host for NoRoom {
    fn space(&mut self, _token: Token) -> Space<'_> {
        Space::Buffer
    }
}

/// A connection, adopted as `TOKEN`.
fn connected(faults: Faults) -> (SimNetwork, SimDriver, SimPeer) {
    let network = SimNetwork::new(1, faults);
    let mut driver = SimDriver::new(&network, BUDGET);
    driver.listen(TOKEN, network.listen(PORT_80.into()).unwrap()).unwrap();
    let far = network.connect(&PORT_80.into()).unwrap();
    network.advance(faults.delay);
    driver.wait(None).unwrap();
    let Some(Event::Accepted { socket, peer, .. }) = driver.next(&mut NoRoom) else {
        panic!("not accepted");
    };
    assert_eq!(peer, far.address().into());
    driver.adopt(TOKEN, socket).unwrap();
    assert!(driver.next(&mut NoRoom).is_none());
    (network, driver, far)
}

fn send(driver: &mut SimDriver, bytes: &[u8]) -> usize {
    let mut pool = OutputPool::new(64, 1);
    let mut queue = pool.queue();
    queue.append(bytes, &mut pool);
    let sent = driver.flush(TOKEN, &mut queue, &mut pool).unwrap();
    pool.give_back(queue);
    sent
}

#[test]
fn addresses_are_taken_or_refused() {
    let network = SimNetwork::new(1, Faults::none());
    let address = PORT_80.into();
    assert_eq!(network.connect(&address).err().unwrap().kind(), ErrorKind::ConnectionRefused);
    let listener = network.listen(address).unwrap();
    assert_eq!(network.listen(address).err().unwrap().kind(), ErrorKind::AddrInUse);
    let mut waiting = network.connect(&address).unwrap();
    drop(listener);
    assert!(waiting.was_reset());
    assert_eq!(waiting.send(b"x").unwrap_err().kind(), ErrorKind::ConnectionReset);
    network.listen(address).unwrap();

    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (first, second) = (network.listen(any).unwrap(), network.listen(any).unwrap());
    assert_ne!(first.address(), second.address());
}

#[test]
fn a_window_bounds_each_direction() {
    let (_, mut driver, mut far) = connected(Faults { window: 100, ..Faults::none() });
    assert_eq!(far.send(&[1; 300]).unwrap(), 100);
    assert_eq!(far.send(&[1; 300]).unwrap(), 0);
    driver.wait(None).unwrap();
    assert!(matches!(driver.next(&mut NoRoom), Some(Event::Received { .. })));
    assert_eq!(far.send(&[1; 300]).unwrap(), 64);

    assert_eq!(send(&mut driver, &[2; 300]), 100);
    assert_eq!(send(&mut driver, &[2; 300]), 0);
    assert_eq!(far.receive(), [2; 100]);
    assert_eq!(send(&mut driver, &[2; 300]), 100);
}

#[test]
fn time_moves_only_when_asked() {
    let delay = Duration::from_secs(5);
    let (network, mut driver, mut far) = connected(Faults { delay, ..Faults::none() });
    assert_eq!(send(&mut driver, b"late"), 4);
    assert!(!network.is_quiet());
    assert!(far.receive().is_empty());
    let before = network.now();
    network.advance(delay);
    assert_eq!(network.now() - before, delay);
    assert_eq!(far.receive(), b"late");
    assert!(network.is_quiet());

    driver.wait(Some(delay)).unwrap();
    assert_eq!(driver.now() - before, 2 * delay);
    driver.wait(None).unwrap();
    assert_eq!(driver.now() - before, 2 * delay, "nothing is to come");
}

#[test]
fn closing_with_unread_bytes_is_a_reset() {
    let (network, mut driver, mut far) = connected(Faults::none());
    far.send(b"unread").unwrap();
    driver.close(TOKEN, false);
    assert!(far.was_reset() && !far.ended());
    assert_eq!(network.open_connections(), 0);
}

#[test]
fn bytes_to_a_closed_end_are_answered_with_a_reset() {
    let (_, mut driver, mut far) = connected(Faults::none());
    driver.close(TOKEN, false);
    assert!(far.ended() && !far.was_reset());
    assert_eq!(far.send(b"hello?").unwrap(), 6);
    assert!(far.was_reset());
    assert_eq!(far.send(b"hello?").unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_reset_overtakes_what_is_on_its_way() {
    let (network, mut driver, mut far) = connected(Faults::none());
    assert_eq!(send(&mut driver, b"arrived"), 7);
    network.set_faults(Faults { delay: Duration::from_secs(5), ..Faults::none() });
    assert_eq!(send(&mut driver, b"on its way"), 10);
    driver.close(TOKEN, true);
    network.advance(Duration::from_secs(5));
    assert!(far.was_reset());
    assert_eq!(far.receive(), b"arrived");
}

#[test]
fn a_far_end_sends_no_more_after_shutdown() {
    let (_, mut driver, mut far) = connected(Faults::none());
    far.shutdown();
    assert_eq!(far.send(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(send(&mut driver, b"reply"), 5);
    assert_eq!(far.receive(), b"reply");
}

#[test]
fn open_connections_are_those_that_were_accepted() {
    let (network, driver, far) = connected(Faults::none());
    let _waiting = network.connect(&PORT_80.into()).unwrap();
    assert_eq!(network.open_connections(), 1);
    far.close();
    assert_eq!(network.open_connections(), 1, "the accepting side has not closed it");
    drop(driver);
    assert_eq!(network.open_connections(), 0);
}
