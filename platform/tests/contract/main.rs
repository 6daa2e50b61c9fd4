//! One behaviour suite for the driver contract, over every driver.
//!
//! - `suite`: the behaviours, each once, over the two traits in `world`; those of attempts to
//!   connect are in `connecting`, those of ends and of paused connections in `ending`, those of
//!   datagrams in `datagrams`;
//! - `engine`: the stand-in for the engine that runs them, and checks every event;
//! - `random`: random operations on the simulated driver, against a model.
//!
//! On the simulation every behaviour runs with and without faults from many seeds. A failure prints
//! the seed; `MILLSTREAM_SEED=<seed>` runs that one alone.

#[path = "../signals/child.rs"]
mod child;
mod connecting;
mod datagrams;
mod ending;
mod engine;
mod random;
mod relaying;
#[cfg(target_os = "linux")]
mod sandbox;
mod suite;
mod world;

use std::ops::Range;
use std::process::Command;
use std::{env, thread};

use millstream_platform::driver::sim::Faults;

use engine::Engine;
use world::{Loopback, Simulated};

macro_rules! behaviours {
    (everywhere { $($name:ident)* } not_on_unix_sockets { $($tcp:ident)* }) => {
        mod readiness {
            use super::engine::Engine;
            use super::world::Loopback;
            $(#[test] fn $name() { super::suite::$name(Engine::new(Loopback)); })*
            $(#[test] fn $tcp() { super::suite::$tcp(Engine::new(Loopback)); })*
        }

        mod unix {
            use super::engine::Engine;
            use super::world::Unix;
            $(#[test] fn $name() { super::suite::$name(Engine::new(Unix::new())); })*
        }

        mod sim {
            $(#[test] fn $name() { super::simulate(super::suite::$name); })*
            $(#[test] fn $tcp() { super::simulate(super::suite::$tcp); })*
        }
    };
}

// Datagrams are tried with UDP; and Unix sockets have no urgent data outside of the stream, no
// address to come from that the system chooses, and a reset only where bytes were not received.
behaviours! {
    everywhere {
        wait_reaps_and_next_hands_out
        what_a_budget_cuts_off_needs_no_new_edge
        what_an_accept_budget_cuts_off_needs_no_new_edge
        a_flood_leaves_the_others_their_turn
        late_events_are_for_nobody
        nothing_comes_after_close
        calls_for_a_closed_connection_do_nothing
        all_bytes_come_before_the_end_and_a_reply_still_goes
        an_end_comes_without_bytes
        a_paused_connection_hears_nothing_and_loses_nothing
        a_paused_connection_does_not_end
        a_paused_connection_learns_that_both_sides_have_ended
        a_paused_connection_does_not_hang_up_before_its_last_bytes
        pausing_counts_at_once
        pausing_and_resuming_in_one_turn_changes_nothing
        received_bytes_go_to_the_hosts_room
        a_panic_fails_one_connection_alone
        output_goes_in_order_through_a_full_socket
        writes_and_offers_interleave_in_order
        an_empty_queue_causes_no_event
        a_queue_that_was_flushed_before_the_report_causes_no_event
        a_full_socket_does_not_spin
        close_is_an_end_at_once
        an_accepted_socket_that_is_dropped_closes
        a_socket_moves_to_another_driver
        a_detached_connection_goes_on_elsewhere
        a_detached_connection_is_not_heard_of
        unlistening_refuses
        shutdown_comes_behind_the_output_and_leaves_the_input
        a_failed_flush_is_told_once
        a_blocked_connection_fails_once
        a_blocked_and_paused_connection_fails_once
        an_attempt_comes_to_a_connection
        an_engine_connects_to_itself
        an_attempt_is_refused_where_nobody_listens
        an_attempt_that_was_given_up_is_not_heard_of
        calls_for_an_attempt_that_ended_do_nothing
        attempts_are_dropped_with_their_driver
        relayed_bytes_arrive_in_order_at_a_slow_reader
        what_is_relayed_to_a_broken_connection_breaks_no_other
        a_relay_with_nothing_to_do_is_quiet
        what_is_relayed_to_a_peer_that_has_ended_and_is_gone_breaks_it
        bytes_may_be_asked_for_first
        a_wake_ends_the_wait
        a_wake_before_the_wait_counts
        a_wait_ends_with_its_timeout
    }
    not_on_unix_sockets {
        bytes_come_before_a_reset
        a_reset_after_the_end_is_a_failure
        a_reset_right_after_the_end_is_a_failure
        urgent_data_does_not_stall_the_stream
        urgent_data_at_the_end_of_a_read_does_not_stall_the_stream
        what_is_relayed_to_a_connection_whose_error_was_taken_breaks_it
        a_paused_connection_learns_of_a_reset
        a_reset_before_a_pause_is_told
        a_reset_does_not_overtake_what_is_read_again
        a_detached_connection_keeps_its_error
        close_with_reset_is_a_reset
        a_connection_that_is_reset_before_it_is_accepted_harms_nobody
        an_attempt_comes_from_the_address_that_it_was_given
        a_reset_right_after_an_attempt_is_told_once
        a_datagram_comes_whole_with_its_sender_and_is_answered
        datagrams_share_the_turn_within_their_budget
        what_was_received_in_a_batch_is_not_lost_to_another_socket
        nothing_comes_after_a_socket_for_datagrams_is_closed
        runs_and_single_datagrams_arrive_whole
        a_flood_of_datagrams_is_sent_in_the_end
        a_datagram_that_cannot_be_sent_is_told_and_the_others_go
        a_connected_socket_learns_that_nobody_is_there
        a_connected_socket_hears_nobody_else
        calls_for_a_closed_socket_for_datagrams_do_nothing
    }
}

mod readiness_alone {
    #[test]
    fn a_socket_that_meets_itself_is_refused() {
        super::suite::a_socket_that_meets_itself_is_refused(super::Engine::new(super::Loopback));
    }

    /// mio's poll back end watches descriptors, and can't tell which socket they had.
    #[cfg(not(mio_unsupported_force_poll_poll))]
    #[test]
    fn what_lives_on_elsewhere_is_not_heard_of() {
        super::suite::what_lives_on_elsewhere_is_not_heard_of(super::Engine::new(super::Loopback));
    }

    /// It takes all files of its process, so it gets one with few, in which it is the only test.
    #[test]
    fn accepting_fails_once_and_goes_on_when_told() {
        super::in_a_small_process(super::suite::accepting_fails_once_and_goes_on_when_told);
    }
}

mod unix_alone {
    use super::engine::Engine;
    use super::relaying;
    use super::world::Unix;

    #[test]
    fn descriptors_that_come_with_relayed_bytes_are_kept() {
        relaying::descriptors_that_come_with_relayed_bytes_are_kept(Engine::new(Unix::new()));
    }

    #[test]
    fn urgent_data_of_a_unix_stream_is_left_out_of_a_relay() {
        relaying::urgent_data_of_a_unix_stream_is_left_out_of_a_relay(Engine::new(Unix::new()));
    }
}

/// Where urgent data is outside of the stream.
mod tcp_alone {
    use super::engine::Engine;
    use super::relaying;
    use super::world::Loopback;

    #[test]
    fn urgent_data_does_not_end_a_relay() {
        relaying::urgent_data_does_not_end_a_relay(Engine::new(Loopback));
    }

    #[test]
    fn urgent_data_does_not_stall_a_relay() {
        relaying::urgent_data_does_not_stall_a_relay(Engine::new(Loopback));
    }

    #[test]
    fn a_reset_behind_urgent_data_is_told_behind_all_relayed_bytes() {
        relaying::a_reset_behind_urgent_data_is_told_behind_all_bytes(Engine::new(Loopback));
    }

    #[test]
    fn a_reset_is_no_end_of_a_relay() {
        relaying::a_reset_is_no_end_of_a_relay(Engine::new(Loopback));
    }
}

/// With the signals that end a process by default, which a Rust program ignores in part.
mod signals {
    /// The suite, and most of what the drivers ask of the system with it.
    #[test]
    fn the_suite_raises_no_signal() {
        super::child::run(&["readiness::", "unix::", "tcp_alone::", "unix_alone::"]);
    }
}

#[cfg(target_os = "linux")]
mod sandboxed {
    use super::engine::{Engine, LONG};
    use super::relaying::a_relay_goes_on;
    use super::relaying::relayed_bytes_arrive_in_order_at_a_slow_reader as relay;
    use super::sandbox::{ERRORS, without};
    use super::world::{Loopback, Unix, World};

    /// A connection that is gone is passed over, as accept(2) has it. If all of them are, it is
    /// something else.
    #[test]
    fn a_listener_is_halted_by_connections_that_are_gone_only_if_all_are() {
        for (error, at_once) in
            [(libc::ECONNABORTED, false), (libc::EPROTO, false), (libc::EMFILE, true)]
        {
            without(libc::SYS_accept4, error, |refuse| {
                let mut engine = Engine::new(Loopback);
                refuse();
                let _far = engine.world.connect(engine.address).unwrap();
                engine.turn(LONG);
                assert_eq!(engine.accept_failures > 0, at_once);
                engine.promptly("accepting failed", |engine| engine.accept_failures > 0);
                engine.quiet();
            });
        }
    }

    fn relay_without(call: libc::c_long, error: i32, world: impl World + Send) {
        without(call, error, |refuse| {
            let engine = Engine::new(world); // Its waker may be a pipe.
            refuse();
            relay(engine);
        });
    }

    /// A sandbox, or a system that has no such call: bytes are received and sent then.
    #[test]
    fn relays_do_without_the_system_calls_that_move_bytes() {
        // A call that does nothing and says that it did moves no bytes, but makes no pipe, either.
        let splice = ERRORS.into_iter().chain([0]).map(|error| (libc::SYS_splice, error));
        let pipe = ERRORS.into_iter().map(|error| (libc::SYS_pipe2, error));
        for (call, error) in splice.chain(pipe) {
            relay_without(call, error, Loopback);
            relay_without(call, error, Unix::new());
        }
    }

    #[test]
    fn relays_go_on_when_a_system_call_is_refused_later() {
        for error in ERRORS {
            without(libc::SYS_splice, error, |refuse| {
                a_relay_goes_on(Engine::new(Loopback), refuse);
            });
        }
    }
}

mod sim_alone {
    #[test]
    fn the_network_refuses_ignores_and_resets() {
        super::simulate(super::suite::the_network_refuses_ignores_and_resets);
    }

    #[test]
    fn accepting_fails_once_and_goes_on_when_told() {
        super::simulate(super::suite::accepting_fails_once_and_goes_on_when_told);
    }
}

/// Runs a behaviour on real sockets in a new process with few files, in which the calling test runs
/// alone.
fn in_a_small_process(behaviour: fn(Engine<Loopback>)) {
    const INSIDE: &str = "MILLSTREAM_SMALL_PROCESS";
    if env::var_os(INSIDE).is_some() {
        return behaviour(Engine::new(Loopback));
    }
    let test = thread::current();
    let status = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" --exact \"$1\""])
        .arg(env::current_exe().unwrap())
        .arg(test.name().unwrap())
        .env(INSIDE, "1")
        .status();
    assert!(status.unwrap().success(), "it failed in its own process, see above");
}

/// Runs a behaviour on the simulation.
fn simulate(behaviour: fn(Engine<Simulated>)) {
    for_seeds(0..20, |seed| {
        for faults in [Faults::none(), Faults::harmless()] {
            behaviour(Engine::new(Simulated::new(seed, faults)));
        }
    });
}

/// Runs something with each seed, or with the one that the environment asks for.
fn for_seeds(seeds: Range<u64>, run: impl Fn(u64)) {
    let asked = env::var("MILLSTREAM_SEED").ok().map(|seed| seed.parse().expect("a number"));
    for seed in asked.map_or(seeds, |seed| seed..seed + 1) {
        let _replay = Replay(seed);
        run(seed);
    }
}

/// Says how to repeat a failure.
struct Replay(u64);

impl Drop for Replay {
    #[expect(clippy::print_stderr, reason = "a failing test's own message is out already")]
    fn drop(&mut self) {
        if thread::panicking() {
            let test = thread::current();
            let name = test.name().unwrap_or("");
            let seed = self.0;
            eprintln!(
                "replay: MILLSTREAM_SEED={seed} cargo test -p millstream-platform --test contract -- \
                 --exact {name}"
            );
        }
    }
}
