//! Clients on different reactors.

use std::thread;

use super::client::Client;
use super::programs::Server;

const REACTORS: [&str; 2] = ["--reactors", "3"];

/// What was subscribed to before a PONG is known everywhere, and what was published is delivered.
#[test]
fn a_pong_says_that_all_is_done() {
    let server = Server::ours(&REACTORS);
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(server.address)).collect();
    for round in 0..50 {
        for subscriber in 0..clients.len() {
            let subject = format!("subject.{round}.{subscriber}");
            clients[subscriber].ask(format!("SUB {subject} {round}\r\n"));
            let publisher = (subscriber + 1) % clients.len();
            clients[publisher].ask(format!("PUB {subject} 1\r\nx\r\n"));
            let said = clients[subscriber].ask(format!("UNSUB {round}\r\n"));
            assert_eq!(said, format!("MSG {subject} {round} 1|x|"));
            clients[publisher].ask(format!("PUB {subject} 1\r\ny\r\n"));
            assert_eq!(clients[subscriber].flush(), "");
        }
    }
}

/// A subscription counts for all that is published after it was acknowledged, without a PING.
#[test]
fn an_acknowledged_subscription_counts_everywhere() {
    let server = Server::ours(&REACTORS);
    let mut subscriber = Client::with(server.address, "\"verbose\":true");
    subscriber.expect("+OK\r\n");
    let mut publishers: Vec<Client> = (0..5).map(|_| Client::connect(server.address)).collect();
    publishers.iter_mut().for_each(|client| assert_eq!(client.flush(), ""));
    for round in 0..300 {
        subscriber.send(format!("SUB a {round}\r\n"));
        subscriber.expect("+OK\r\n");
        let publisher = round % publishers.len();
        publishers[publisher].send("PUB a 1\r\nx\r\n");
        subscriber.expect(format!("MSG a {round} 1\r\nx\r\n"));
        subscriber.send(format!("UNSUB {round}\r\n"));
        subscriber.expect("+OK\r\n");
    }
}

/// What one publishes stays in order, wherever it goes.
#[test]
fn messages_of_a_publisher_stay_in_order() {
    let server = Server::ours(&REACTORS);
    let mut subscribers: Vec<Client> = (0..9).map(|_| Client::connect(server.address)).collect();
    subscribers.iter_mut().for_each(|client| assert_eq!(client.ask("SUB a.> 1\r\n"), ""));
    let publish = |name: char| {
        let address = server.address;
        move || {
            let mut publisher = Client::connect(address);
            for number in 0..2_000 {
                let subject = number % 7 % 3;
                publisher.send(format!("PUB a.{name}.{subject} 4\r\n{number:04}\r\n"));
            }
            publisher.flush();
        }
    };
    let publishers = ['x', 'y', 'z'].map(|name| thread::spawn(publish(name)));
    for publisher in publishers {
        publisher.join().expect("it publishes");
    }
    for subscriber in &mut subscribers {
        let said = subscriber.flush();
        for name in ['x', 'y', 'z'] {
            let messages = said.split("MSG ").filter(|one| one.starts_with(&format!("a.{name}.")));
            let numbers: Vec<&str> = messages.filter_map(|one| one.split('|').nth(1)).collect();
            assert_eq!(numbers.len(), 2_000);
            assert!(numbers.is_sorted(), "{name}");
        }
    }
}

/// An inbox is known wherever the request comes, without a PING before.
#[test]
fn a_request_does_not_overtake_its_inbox() {
    let server = Server::ours(&REACTORS);
    let mut services: Vec<Client> = (0..3).map(|_| Client::connect(server.address)).collect();
    // Each passes the request on to the next one, the last replies.
    for (number, service) in services.iter_mut().enumerate() {
        service.ask(format!("SUB step.{number} 1\r\n"));
    }
    for round in 0..100 {
        let mut client = Client::connect(server.address);
        client.send(format!("SUB inbox.{round} 1\r\nPUB step.0 inbox.{round} 1\r\nx\r\n"));
        for (number, service) in services.iter_mut().enumerate() {
            service.expect(format!("MSG step.{number} 1 inbox.{round} 1\r\nx\r\n"));
            match number {
                2 => service.send(format!("PUB inbox.{round} 1\r\ny\r\n")),
                _ => service.send(format!("PUB step.{} inbox.{round} 1\r\nx\r\n", number + 1)),
            }
        }
        client.expect(format!("MSG inbox.{round} 1 1\r\ny\r\n"));
    }
}

/// Who goes is forgotten everywhere.
#[test]
fn subscriptions_end_with_their_client() {
    let mut server = Server::ours(&REACTORS);
    for _ in 0..20 {
        let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(server.address)).collect();
        for client in &mut clients {
            client.ask("SUB a.* 1\r\nSUB > q 2\r\nSUB b 3\r\nUNSUB 3\r\n");
        }
        clients[0].ask("PUB a.b 1\r\nx\r\n");
    }
    crate::common::eventually("all are gone", || {
        server.counted().contains("connections: 0 of 120, subscriptions: 0,")
    });
}
