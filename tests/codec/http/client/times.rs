//! Deadlines: of a request as a whole, of connecting, and of silence.

use std::time::Duration;

use millstream::http::{HttpClient, HttpError, HttpRequest};

use super::{OK, SECOND, World};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_request_ends_in_its_time_wherever_it_is() {
    let builder = HttpClient::builder().connections(1).timeout(seconds(7));
    let mut world = World::new(builder.connect_timeout(seconds(100)));
    world.simulation.silence(([10, 0, 0, 9], 80).into());
    let begin = world.simulation.now();
    let unreachable = HttpRequest::get("http://10.0.0.9/").expect("a request");
    let connecting = world.client.start(unreachable);
    let answered = world.get("/1");
    let (mut peer, _) = world.accept_request();
    world.send(&mut peer, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
    let waiting = world.client.start(world.request("GET", "/2").timeout(seconds(3)));
    // One byte a second is no silence, and no whole response.
    for _ in 0..6 {
        world.simulation.run(SECOND);
        world.send(&mut peer, "x");
    }
    assert_eq!(world.error(waiting), "no complete response within 3s");
    for calling in [connecting, answered] {
        assert_eq!(world.error(calling), "no complete response within 7s");
    }
    let passed = world.simulation.now() - begin;
    assert!((seconds(7)..seconds(8)).contains(&passed), "{passed:?}");
    world.ends(&mut peer);
}

#[test]
fn a_server_that_is_silent_is_given_up() {
    let before = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
    // A part of a head is seen when the time is over.
    for (sent, most) in [("", 1), ("HTTP/1.1 20", 6), (before, 5)] {
        let mut world = World::new(HttpClient::builder().idle_timeout(seconds(5)));
        let calling = world.get("/");
        let (mut peer, _) = world.accept_request();
        world.simulation.run(seconds(4));
        world.send(&mut peer, sent);
        let begin = world.simulation.now();
        assert_eq!(world.error(calling), "nothing came for 5s", "{sent}");
        let passed = world.simulation.now() - begin;
        assert!(passed <= seconds(most) + SECOND / 10, "{passed:?} after {sent}");
        world.ends(&mut peer);
    }
}

/// However much waits to be sent whenever that is looked at.
#[test]
fn a_content_that_is_taken_slowly_is_no_silence() {
    const TAKEN: usize = 256 * 1024;
    let builder = HttpClient::builder().idle_timeout(seconds(5)).timeout(seconds(500));
    let mut world = World::new(builder);
    let request = world.request("PUT", "/").body(vec![0; 16 * TAKEN]);
    let calling = world.client.start(request);
    let (mut peer, _) = world.accept_request();
    for _ in 0..16 {
        world.simulation.run(seconds(3));
        let taken = world.simulation.receive_exact(&mut peer, TAKEN);
        assert_eq!(taken.expect("it comes").len(), TAKEN);
    }
    world.send(&mut peer, OK);
    assert_eq!(world.body(calling), "ok");
}

/// What counts is the time of this request, and not that of the one before.
#[test]
fn a_connection_that_was_kept_for_long_has_all_its_time() {
    let builder = HttpClient::builder().idle_timeout(seconds(5)).keep_alive(seconds(60));
    let mut world = World::new(builder);
    let calling = world.get("/");
    let (mut peer, _) = world.accept_request();
    world.send(&mut peer, OK);
    assert_eq!(world.body(calling), "ok");
    world.simulation.run(seconds(50));
    let calling = world.get("/");
    world.read_head(&mut peer);
    world.simulation.run(seconds(4));
    world.send(&mut peer, OK);
    assert_eq!(world.body(calling), "ok");
    assert_eq!(world.connections(), (1, 1));
}

#[test]
fn an_attempt_to_connect_has_its_time() {
    let mut world = World::new(HttpClient::builder().connect_timeout(seconds(2)));
    world.simulation.silence(([10, 0, 0, 9], 80).into());
    let request = HttpRequest::get("http://10.0.0.9/").expect("a request");
    let calling = world.client.start(request);
    let error = world.outcome(calling).expect_err("nobody is there");
    assert!(matches!(error, HttpError::Connect(_)), "{error}");
    assert_eq!(error.to_string(), "cannot connect to 10.0.0.9:80: no answer within 2s");
}
