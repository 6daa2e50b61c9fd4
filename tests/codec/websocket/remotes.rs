//! Sending from elsewhere, to one and to many, whatever their pace.

use std::time::Duration;

use millstream::Builder;
use millstream::sim::Faults;
use millstream::websocket::{
    Broadcast, CloseCode, Message, NotSent, PreparedMessage, SlowSubscriber, WebSocketServer,
};

use super::{Event, SECOND, closed, text, world, world_with};
use crate::check::websocket::Told;

/// Connections on which little waits.
fn narrow() -> Builder {
    Builder::default().water_marks(10_000, 20_000)
}

#[test]
fn messages_of_handles_come_in_their_order() {
    let mut world = world(WebSocketServer::new());
    let mut client = world.client();
    let remote = world.remote();
    assert!(remote.is_open());
    let long = "x".repeat(100_000);
    for message in ["one", &long, "two"] {
        remote.send(&PreparedMessage::text(message)).expect("it is open");
    }
    remote.send(&PreparedMessage::binary(b"three")).expect("it is open");
    remote.run(|_, socket| socket.send_text("four").expect("it is open")).expect("it is open");
    remote.close(CloseCode::TRY_AGAIN_LATER, "enough").expect("it is open");
    let three = Told::Binary(b"three".into());
    let all = [text("one"), text(&long), text("two"), three, text("four"), closed(1013, "enough")];
    assert!(world.receive(&mut client) == all);
    assert!(!remote.is_open());
    assert_eq!(remote.send(&PreparedMessage::text("late")), Err(NotSent::Closed));
    world.send(&mut client, Message::Close(None));
    world.sim.run(SECOND);
    assert!(remote.run(|_, _| ()).is_err() && remote.close(CloseCode::NORMAL, "").is_err());
}

#[test]
fn what_waits_for_a_slow_peer_is_bounded() {
    let server = WebSocketServer::new().backlog(50_000);
    let mut world = world_with(0, Faults::none(), narrow(), server);
    let mut client = world.client();
    let remote = world.remote();
    let message = PreparedMessage::binary([7; 1_000]);
    let (mut sent, mut full) = (0, 0);
    // The network's window takes some, too.
    for _ in 0..10_000 {
        match remote.send(&message) {
            Ok(()) => sent += 1,
            Err(NotSent::Full) => full += 1,
            Err(error) => panic!("{error}"),
        }
        world.sim.turn(Duration::ZERO);
    }
    assert!(full > 5_000 && sent >= 70, "{sent} sent, {full} not");
    let mut received = Vec::new();
    while received.len() < sent {
        let some = world.receive(&mut client);
        assert!(!some.is_empty(), "{} of {sent} came", received.len());
        received.extend(some);
    }
    assert!(received.iter().all(|message| *message == Told::Binary(vec![7; 1_000])));
    assert_eq!(received.len(), sent);
    remote.send(&message).expect("there is room again");
    assert_eq!(world.receive(&mut client).len(), 1);
    // One that is too long for the backlog is taken alone.
    remote.send(&PreparedMessage::binary(vec![8; 100_000])).expect("nothing else waits");
    assert_eq!(remote.send(&message), Err(NotSent::Full));
    assert!(world.receive(&mut client) == [Told::Binary(vec![8; 100_000])]);
}

#[test]
fn one_that_is_too_slow_closes_if_it_shall() {
    let server = WebSocketServer::new().backlog(5_000);
    let mut world = world_with(0, Faults::none(), narrow(), server);
    let mut client = world.client();
    let remote = world.remote();
    let message = PreparedMessage::binary([7; 1_000]);
    let sent = (0..).take_while(|_| remote.send_or_close(&message).is_ok()).count();
    assert_eq!(sent, 4, "with their heads");
    assert!(!remote.is_open());
    assert_eq!(remote.send_or_close(&message), Err(NotSent::Closed));
    let mut all = vec![Told::Binary(vec![7; 1_000]); sent];
    all.push(closed(1008, "too slow"));
    assert_eq!(world.receive(&mut client), all);
}

#[test]
fn a_slow_subscriber_holds_up_nobody() {
    for slow in [SlowSubscriber::Skip, SlowSubscriber::Close] {
        let server = WebSocketServer::new().backlog(20_000);
        let mut world = world_with(0, Faults::none(), narrow(), server);
        let broadcast = Broadcast::new(slow);
        let mut clients: Vec<_> = (0..3).map(|_| world.client()).collect();
        while let Ok(event) = world.events.try_recv() {
            if let Event::Opened(remote) = event {
                broadcast.subscribe(remote);
            }
        }
        let [slow_one, fast @ ..] = &mut clients[..] else { panic!("there are three") };
        let mut reached = Vec::new();
        for number in 0..1_000_u32 {
            let payload = [&number.to_be_bytes()[..], &[0; 1_000]].concat();
            reached.push(broadcast.send(&PreparedMessage::binary(&payload)));
            world.sim.run(Duration::from_millis(10));
            for client in &mut *fast {
                assert_eq!(client.receive(), [Told::Binary(payload.clone())], "message {number}");
            }
        }
        assert_eq!((reached[0], reached[999]), (3, 2), "{slow:?}");
        let subscribers = if slow == SlowSubscriber::Skip { 3 } else { 2 };
        let told = format!("{broadcast:?}");
        assert!(told.contains(&format!("subscribers: {subscribers}")), "{told}");
        let came = slow_one.receive();
        assert!(came.len() < 500, "{} messages", came.len());
    }
}

#[test]
fn closed_subscribers_are_taken_out() {
    let mut world = world(WebSocketServer::new());
    let broadcast = Broadcast::new(SlowSubscriber::Skip);
    let (first, mut second) = (world.client(), world.client());
    while let Ok(event) = world.events.try_recv() {
        if let Event::Opened(remote) = event {
            broadcast.subscribe(remote);
        }
    }
    let hello = PreparedMessage::text("hello");
    assert_eq!(broadcast.send(&hello), 2);
    drop(first);
    world.sim.run(SECOND);
    assert_eq!(broadcast.send(&hello), 1);
    assert!(format!("{broadcast:?}").contains("subscribers: 1"));
    assert_eq!(world.receive(&mut second), [text("hello"), text("hello")]);
}
