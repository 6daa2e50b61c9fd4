//! What clients see.

use std::collections::HashMap;

use super::client::{Client, MODERN, QUIET};
use super::programs::Server;
use crate::common::tls::TLS;

/// Without and with TLS, which what is replied can't depend on: how bytes come is run on both.
pub const WIRES: [&[&str]; 2] = [&[], &[TLS]];

#[test]
fn messages_come_to_those_who_subscribed() {
    for options in WIRES {
        let server = Server::ours(options);
        let [mut one, mut other, mut publisher] = [(); 3].map(|()| Client::connect(server.address));
        assert_eq!(one.ask("SUB a.* 1\r\nSUB nothing 2\r\n"), "");
        assert_eq!(other.ask("SUB a.> x\r\nSUB a.b y\r\n"), "");
        assert_eq!(
            publisher.ask("PUB a.b 5\r\nhello\r\nPUB a.c.d to.me 0\r\n\r\nPUB b 1\r\nx\r\n"),
            ""
        );
        assert_eq!(one.flush(), "MSG a.b 1 5|hello|");
        assert_eq!(other.flush(), "MSG a.b x 5|hello|MSG a.b y 5|hello|MSG a.c.d x to.me 0||");
        assert_eq!(one.ask("UNSUB 1\r\nPUB a.b 2\r\nhi\r\n"), "");
        assert_eq!(other.flush(), "MSG a.b x 2|hi|MSG a.b y 2|hi|");
    }
}

/// A publisher that is a subscriber, too, gets its own messages between other replies.
#[test]
fn own_messages_are_in_order_with_replies() {
    let server = Server::ours(&[]);
    let mut client = Client::with(server.address, "\"verbose\":true");
    client.expect("+OK\r\n");
    client.send("SUB a 1\r\nPUB a 1\r\nx\r\nPING\r\nPUB a 1\r\ny\r\n");
    client.expect("+OK\r\n+OK\r\nMSG a 1 1\r\nx\r\nPONG\r\n+OK\r\nMSG a 1 1\r\ny\r\n");
    let mut deaf = Client::with(server.address, "\"verbose\":false,\"echo\":false");
    assert_eq!(deaf.ask("SUB a 1\r\nPUB a 1\r\nx\r\n"), "");
    assert_eq!(client.flush(), "MSG a 1 1|x|");
}

/// Clients that number their subscriptions alike get the same bytes, and others theirs.
#[test]
fn many_subscribers_get_what_is_theirs() {
    for options in WIRES {
        let server = Server::ours(options);
        let mut clients: Vec<Client> = (0..60).map(|_| Client::connect(server.address)).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.ask(format!("SUB news {}\r\n", number % 3));
        }
        for size in [5, 3_000, 100_000] {
            let payload = "x".repeat(size);
            let message = format!("PUB news {size}\r\n{payload}\r\n");
            let mut publisher = Client::connect(server.address);
            publisher.ask(message.repeat(3));
            for (number, client) in clients.iter_mut().enumerate() {
                let message = format!("MSG news {} {size}\r\n{payload}\r\n", number % 3);
                client.expect(message.repeat(3));
            }
        }
    }
}

#[test]
fn headers_go_to_those_who_take_them() {
    let server = Server::ours(&[]);
    let [mut modern, mut old] = [MODERN, QUIET].map(|how| Client::with(server.address, how));
    modern.ask("SUB a 1\r\n");
    old.ask("SUB a 1\r\n");
    let sent = "HPUB a r 22 27\r\nNATS/1.0\r\nName: me\r\n\r\nhello\r\n";
    assert_eq!(modern.ask(sent), "HMSG a 1 r 22 27|NATS/1.0|Name: me||hello|");
    assert_eq!(old.flush(), "MSG a 1 r 5|hello|");
    assert!(modern.info.contains("\"headers\":true"), "{}", modern.info);
    old.send(sent);
    assert_eq!(old.rest(), "-ERR 'message headers not supported'|");
}

#[test]
fn a_subscription_ends_after_its_maximum() {
    let server = Server::ours(&[]);
    let [mut client, mut publisher] = [(); 2].map(|()| Client::connect(server.address));
    let message = "PUB a 1\r\nx\r\n";
    client.ask("SUB a 1\r\nUNSUB 1 2\r\n");
    publisher.ask(message.repeat(3)); // In one piece.
    assert_eq!(client.flush(), "MSG a 1 1|x|".repeat(2));
    // Its sid is free again.
    client.ask("SUB a 1\r\n");
    publisher.ask(message);
    assert_eq!(client.flush(), "MSG a 1 1|x|");
    // One that has got enough ends at once.
    client.ask("UNSUB 1 1\r\n");
    publisher.ask(message);
    assert_eq!(client.flush(), "");
    // Also before it is told.
    let own = client.ask("SUB b 2\r\nUNSUB 2 1\r\nPUB b 1\r\ny\r\nSUB b 2\r\nPUB b 1\r\nz\r\n");
    assert_eq!(own, "MSG b 2 1|y|MSG b 2 1|z|");
}

/// Each message goes to one member of a group, and to everybody else.
#[test]
fn a_queue_group_shares_messages() {
    for reactors in ["1", "3"] {
        let server = Server::ours(&["--reactors", reactors]);
        let mut members: Vec<Client> = (0..6).map(|_| Client::connect(server.address)).collect();
        for (number, member) in members.iter_mut().enumerate() {
            member.ask(format!(
                "SUB {} workers {number}\r\n",
                ["work", "w*", "work", ">"][number % 4]
            ));
        }
        let mut listener = Client::connect(server.address);
        listener.ask("SUB work 1\r\n");
        let mut publisher = Client::connect(server.address);
        let messages = (0..400).map(|number| format!("PUB work 3\r\n{number:03}\r\n"));
        publisher.ask(messages.collect::<String>());
        let mut got = HashMap::new();
        for (number, member) in members.iter_mut().enumerate() {
            let said = member.flush();
            let numbers: Vec<&str> = said.split(&format!("MSG work {number} 3|")).skip(1).collect();
            // "w*" is a name like others.
            assert_eq!(numbers.is_empty(), number % 4 == 1, "{reactors} reactors, member {number}");
            assert!(numbers.is_sorted(), "what one gets is in order: {said}");
            for message in numbers {
                *got.entry(message.to_owned()).or_insert(0) += 1;
            }
        }
        assert_eq!(got.len(), 400);
        assert!(got.values().all(|count| *count == 1));
        assert_eq!(listener.flush().split("MSG work 1 3|").skip(1).count(), 400);
    }
}

#[test]
fn requests_are_answered_or_nobody_is_there() {
    for reactors in ["1", "3"] {
        let server = Server::ours(&["--reactors", reactors]);
        let [mut client, mut service] = [(); 2].map(|()| Client::with(server.address, MODERN));
        assert_eq!(client.ask("SUB inbox.* 7\r\n"), "");
        let nobody = "HMSG inbox.1 7 16 16|NATS/1.0 503|||";
        assert_eq!(client.ask("PUB service inbox.1 2\r\nhi\r\n"), nobody);
        service.ask("SUB service q 1\r\n");
        assert_eq!(client.ask("PUB service inbox.2 2\r\nhi\r\n"), "");
        assert_eq!(service.flush(), "MSG service 1 inbox.2 2|hi|");
        assert_eq!(service.ask("PUB inbox.2 3\r\nyes\r\n"), "");
        client.expect("MSG inbox.2 7 3\r\nyes\r\n");
        drop(service);
        crate::common::eventually("the service is gone", || {
            client.ask("PUB service inbox.3 2\r\nhi\r\n") == nobody.replace("inbox.1", "inbox.3")
        });
    }
}

/// Operations come in any pieces.
#[test]
fn pieces_of_any_size_are_put_together() {
    for options in WIRES {
        let server = Server::ours(options);
        let mut rng = fastrand::Rng::with_seed(1);
        let mut client = Client::connect(server.address);
        let payload = "0123456789\r\n".repeat(5_000);
        let script = format!("SUB a 1\r\nPUB a {}\r\n{payload}\r\nPING\r\n", payload.len());
        for piece in script.as_bytes().chunks(7_001).flat_map(|piece| {
            let at = rng.usize(..piece.len());
            [&piece[..at], &piece[at..]]
        }) {
            client.send(piece);
        }
        client.expect(format!("MSG a 1 {}\r\n{payload}\r\nPONG\r\n", payload.len()));
    }
}
