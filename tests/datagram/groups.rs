//! Groups and broadcasting.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::mpsc::channel;

use millstream::{Action, Address, Engine, OpenDatagram};

use crate::client::{News, Tell};
use crate::common::{TestEngine, receive};

/// The interface for IPv6, which the system chooses: loopback interfaces seldom have a route to
/// groups.
const ANY: u32 = 0;

/// What is sent to a group comes to its members, and no more once they have left.
#[test]
fn a_group_hears_what_is_sent_to_it() {
    let (tell, news) = channel();
    let engine = TestEngine::start(Engine::builder().reactors(1), move |_| Tell(tell.clone()));
    let reactors = engine.reactors::<Tell>().expect("it is the handler");
    let v4 = Ipv4Addr::new(239, 255, 77, 1);
    let v6: Ipv6Addr = "ff02::4d57".parse().expect("it is a group");
    for group in [Address::from((v4, 0)), Address::from((v6, 0))] {
        let is_v4 = group.ip().is_some_and(|ip| ip.is_ipv4());
        let on = if is_v4 {
            Address::from((Ipv4Addr::UNSPECIFIED, 0))
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let (told, done) = channel();
        reactors
            .open_datagram(0, OpenDatagram::on(on), move |_, _, member| {
                let member = member.expect("it can be opened");
                let port = member.local_addr().port().expect("it has one");
                let to = Address::from((group.ip().expect("it is one"), port));
                let joined = if is_v4 {
                    member
                        .join_multicast_v4(v4, Ipv4Addr::LOCALHOST)
                        .and_then(|()| member.set_multicast_interface_v4(Ipv4Addr::LOCALHOST))
                } else {
                    member
                        .join_multicast_v6(v6, ANY)
                        .and_then(|()| member.set_multicast_interface_v6(ANY))
                };
                let set = joined
                    .and_then(|()| member.set_multicast_ttl(1))
                    .and_then(|()| member.set_multicast_loop(true));
                let _ = told.send((set.map_err(|error| error.kind()), member.remote(), to));
                Action::Continue
            })
            .expect("it runs");
        let (set, remote, to) = receive(&done);
        if matches!(set, Err(ErrorKind::AddrNotAvailable)) && !is_v4 {
            continue; // A machine without IPv6.
        }
        set.expect("the options can be set");
        remote.send_to(&to, "to the group").expect("it is open");
        let bytes = match receive(&news) {
            News::Datagram { bytes, .. } => bytes,
            News::Error(ErrorKind::NetworkUnreachable) if !is_v4 => continue, // No route.
            News::Error(error) => panic!("{error}"),
        };
        assert_eq!(bytes, b"to the group", "{to}");

        // One that has left hears nothing: the next that comes is the one that is sent to the
        // socket alone.
        let (told, done) = channel();
        remote
            .run(move |_, member| {
                let left = if is_v4 {
                    member.leave_multicast_v4(v4, Ipv4Addr::LOCALHOST)
                } else {
                    member.leave_multicast_v6(v6, ANY)
                };
                let _ = told.send(left.map_err(|error| error.kind()));
                Action::Continue
            })
            .expect("it is open");
        receive(&done).expect("it was a member");
        remote.send_to(&to, "nobody hears this").expect("it is open");
        let port = to.port().expect("it has one");
        let own = if is_v4 {
            Address::from((Ipv4Addr::LOCALHOST, port))
        } else {
            (Ipv6Addr::LOCALHOST, port).into()
        };
        remote.send_to(&own, "to itself").expect("it is open");
        let News::Datagram { bytes, .. } = receive(&news) else { panic!("an error") };
        assert_eq!(bytes, b"to itself");
    }
}

/// Several members on one port, which needs an option.
#[test]
fn members_of_a_group_share_a_port() {
    let (tell, news) = channel();
    let engine = TestEngine::start(Engine::builder().reactors(2), move |_| Tell(tell.clone()));
    let reactors = engine.reactors::<Tell>().expect("it is the handler");
    let group = Ipv4Addr::new(239, 255, 77, 2);
    let mut on = Address::from((Ipv4Addr::UNSPECIFIED, 0));
    let mut members = Vec::new();
    for reactor in [0, 1] {
        let (told, done) = channel();
        let how = OpenDatagram::on(on).reuse_address(true);
        reactors
            .open_datagram(reactor, how, move |_, _, member| {
                let member = member.expect("the address can be shared");
                member.join_multicast_v4(group, Ipv4Addr::LOCALHOST).expect("it can be joined");
                member.set_multicast_interface_v4(Ipv4Addr::LOCALHOST).expect("it is there");
                let _ = told.send((member.local_addr(), member.remote()));
                Action::Continue
            })
            .expect("it runs");
        let (address, remote) = receive(&done);
        on = address;
        members.push(remote);
    }
    let to = Address::from((group, on.port().expect("it has one")));
    members[0].send_to(&to, "to both").expect("it is open");
    for _ in 0..2 {
        assert!(matches!(receive(&news), News::Datagram { bytes, .. } if bytes == b"to both"));
    }
}

/// Without the option a broadcast is refused, and that is told; with it, it goes.
#[test]
fn broadcasting_is_allowed_by_an_option() {
    let (tell, news) = channel();
    let engine = TestEngine::start(Engine::builder().reactors(1), move |_| Tell(tell.clone()));
    let reactors = engine.reactors::<Tell>().expect("it is the handler");
    let (told, done) = channel();
    reactors
        .open_datagram(0, OpenDatagram::on((Ipv4Addr::UNSPECIFIED, 0)), move |_, _, socket| {
            let socket = socket.expect("it can be opened");
            let _ = told.send((socket.remote(), socket.local_addr()));
            Action::Continue
        })
        .expect("it runs");
    let (remote, own) = receive(&done);
    let everybody = Address::from(([127, 255, 255, 255], own.port().expect("it has one")));
    remote.send_to(&everybody, "not allowed").expect("it is open");
    assert_eq!(receive(&news), News::Error(ErrorKind::PermissionDenied));
    remote
        .run(|_, socket| {
            socket.set_broadcast(true).expect("it can be set");
            Action::Continue
        })
        .expect("it is open");
    remote.send_to(&everybody, "allowed").expect("it is open");
    let News::Datagram { bytes, .. } = receive(&news) else { panic!("an error") };
    assert_eq!(bytes, b"allowed");
}
