//! How the engine behaves, whatever drives it: each behaviour is written once, over the trait
//! [`world::World`], and runs
//!
//! - on real sockets over loopback, on the readiness driver (`loopback`);
//! - on the simulated network without faults (`calm`);
//! - on the simulated network with every fault that breaks no connection, from many seeds
//!   (`harmless`);
//! - on the simulated network without faults, for a handler that shares its engine with others
//!   (`shared`);
//! - on each of the others, with a layer that flips every bit between socket and handler
//!   (`…_in_layers`), and with TLS there (`…_in_tls`).
//!
//! Virtual time makes deadlines exact, so in the simulation they are compared to the tick. At the
//! end of each behaviour every connection has lived one whole life and nothing is left in the
//! engine; see [`stage::Stage`]. A failure on the simulated network prints the seed that replays
//! it.

#[path = "../common/mod.rs"]
mod common;

mod closing;
mod connecting;
mod datagrams;
mod deadlines;
mod echo;
mod hosts;
mod layers;
mod neighbours;
mod paused;
mod pressure;
mod relaying;
mod remote;
mod stage;
mod stopping;
mod timeouts;
mod upgrading;
mod world;

/// How many seeds each behaviour gets on the network with faults.
const SEEDS: u64 = 50;

/// How many where each connection shakes hands.
const SEEDS_OF_TLS: u64 = 8;

macro_rules! behaviours {
    ({ $($all:tt)* } not in TLS { $($plain:tt)* }) => {
        in_world! { loopback, super::once, Loopback: $($all)* $($plain)* }
        in_world! { calm, super::once, Calm: $($all)* $($plain)* }
        in_world! { shared, super::once, Shared: $($all)* $($plain)* }
        in_world! { harmless, super::seeded::<SEEDS>, Harmless: $($all)* $($plain)* }
        in_world! {
            loopback_in_layers, super::once, Behind<Flipped, Loopback>: $($all)* $($plain)*
        }
        in_world! { calm_in_layers, super::once, Behind<Flipped, Calm>: $($all)* $($plain)* }
        in_world! {
            harmless_in_layers, super::seeded::<SEEDS>, Behind<Flipped, Harmless>:
            $($all)* $($plain)*
        }
        in_world! { loopback_in_tls, super::once, Behind<Tls, Loopback>: $($all)* }
        in_world! { calm_in_tls, super::once, Behind<Tls, Calm>: $($all)* }
        in_world! {
            harmless_in_tls, super::seeded::<SEEDS_OF_TLS>, Behind<Tls, Harmless>: $($all)*
        }
    };
}

macro_rules! in_world {
    ($world:ident, $run:path, $type:ty: $($module:ident { $($name:ident)* })*) => {
        #[allow(unused_imports, reason = "each world uses a part of them")]
        mod $world {
            use super::world::{Behind, Calm, Flipped, Harmless, Loopback, Shared, Tls};
            use super::{SEEDS, SEEDS_OF_TLS};
            $($(#[test] fn $name() { $run(super::$module::$name::<$type>); })*)*
        }
    };
}

behaviours! {
    {
        echo {
            every_size_comes_back
            each_peer_gets_its_own_bytes
            half_a_frame_waits_for_its_other_half
            what_is_left_unread_comes_again_in_front_of_the_next_bytes
            a_gathered_write_keeps_every_slice
            what_on_open_writes_goes_out_without_a_byte_from_the_peer
        }
        closing {
            a_peer_that_ends_first_gets_our_end_back
            a_handler_that_closes_first_waits_for_the_peers_end
            what_is_written_before_a_close_arrives_whole
            a_peer_that_ends_its_side_with_bytes_under_way_loses_none_and_gets_its_reply
            an_echo_goes_on_to_the_last_byte_after_the_peers_end
            after_our_end_the_peer_still_talks
            a_reset_is_a_failure
            a_reset_by_the_handler_reaches_the_peer
            close_now_with_pending_output_is_a_reset
            close_now_with_nothing_pending_is_an_orderly_end
            a_panic_closes_its_connection_and_no_other
            a_panic_in_on_close_leaves_nothing_behind
            peers_that_vanish_as_callbacks_return_have_one_on_close_each
            a_closing_connection_refuses_requests_at_once_whoever_closes_it
            a_last_word_is_sent_where_a_close_flushes
            a_close_that_cuts_off_takes_no_last_word
            what_is_to_be_flushed_can_be_cut_off_in_on_closing
            a_panic_in_on_closing_cuts_off_and_is_the_reason
            the_reason_may_change_until_on_close
        }
        pressure {
            the_marks_are_told_in_pairs
            above_the_high_mark_nothing_is_read
            reading_goes_on_above_the_high_mark_if_asked_to
            output_beyond_the_cap_closes
            input_at_the_cap_closes
            input_at_the_cap_pauses_until_something_is_taken
            a_paused_connection_hears_nothing_and_loses_nothing
        }
        paused {
            a_reset_is_told_at_once
            a_reset_is_told_at_the_cap_of_input
            a_reset_is_told_above_the_high_mark
            an_orderly_end_waits_for_its_turn
            what_ended_on_both_sides_stays_until_all_is_received
            a_close_reads_to_the_peers_end
        }
        timeouts {
            a_silent_connection_is_closed_at_its_idle_timeout
            what_a_peer_sends_postpones_the_idle_timeout
            what_we_send_does_not_postpone_the_read_timeout
            the_read_timeout_stands_still_while_reading_is_paused
            a_peer_that_takes_nothing_is_reset_at_the_write_timeout
            what_cannot_be_flushed_is_cut_at_the_close_timeout
            a_peer_that_does_not_end_is_left_at_the_close_timeout
            timers_fire_in_the_order_of_their_deadlines
            a_timer_can_be_set_again_in_place
            a_timer_ends_with_its_connection
            a_reactor_has_timers_without_connections
            ticks_come_at_their_interval_until_they_are_turned_off
        }
        deadlines {
            a_connection_may_have_its_own_deadlines
            a_deadline_that_has_passed_when_it_is_set_comes_at_once
            a_deadline_may_be_as_short_or_long_as_can_be
            a_connection_that_was_made_has_its_own_deadlines
            a_connection_may_have_its_own_write_timeout
            a_write_timeout_that_is_set_again_counts_from_then
            what_is_written_after_a_long_silence_is_sent
            deadlines_of_a_connection_that_closes_are_not_changed
            time_above_the_high_mark_does_not_count
            time_at_the_cap_of_input_does_not_count
            time_in_which_what_was_relayed_waits_does_not_count
            time_in_which_the_handler_pauses_does_not_count_afterwards
            a_hold_that_turns_into_a_pause_lets_the_idle_timeout_pass
            a_connection_decides_whether_it_is_read_above_the_high_mark
        }
        remote {
            requests_are_done_in_the_order_they_were_asked
            a_handle_tells_how_much_waits
            a_handle_closes_at_once
            a_write_completes_when_its_bytes_were_taken_and_not_before
            a_write_that_makes_the_handler_close_completes_when_it_is_sent
            a_write_that_was_sent_completes_though_the_connection_closes_at_once
            a_close_completes_after_on_close
            a_closed_connection_answers_every_request_that_it_is_closed
            requests_for_a_closed_connection_never_reach_its_successor
            requests_that_a_reset_overtakes_complete_as_closed
            requests_on_their_way_are_told_when_closing_is_decided
            one_that_keeps_its_socket_open_holds_up_no_publisher
            a_panic_in_a_closure_closes_and_one_in_a_completion_does_not
        }
        neighbours {
            all_are_sent_the_same_bytes
            all_is_done_in_the_order_it_was_asked
            it_is_done_before_what_waits_in_the_inbox
            all_of_it_is_done_before_what_waits_in_the_inbox
            a_neighbour_can_be_woken
            a_neighbour_can_be_cut_off
            nothing_is_done_to_one_that_is_gone
            a_neighbour_is_told_that_much_waits
            a_panic_keeps_nothing_from_being_done
            what_asks_for_more_holds_up_nobody
            much_is_done_in_several_turns
            callbacks_of_the_reactor_reach_its_connections
            the_others_are_told_that_one_leaves
            a_stop_can_be_told_to_all
        }
        connecting {
            a_connection_that_was_made_is_like_one_that_was_accepted
            an_engine_talks_to_itself
            a_callback_makes_a_connection_and_relays
            nobody_listens
            nobody_answers
            the_closure_connects_again
            an_attempt_waits_before_it_begins
            an_attempt_that_waits_ends_when_the_engine_stops
            an_attempt_ends_when_the_engine_stops
            an_engine_that_drains_makes_no_connection
            a_connection_that_on_open_closes_is_not_made
            a_connection_whose_on_open_panics_is_not_made
            what_was_written_before_a_close_in_the_closure_arrives
            a_panic_in_the_closure_closes_its_connection_and_no_other
            an_attempt_counts_as_a_connection
            a_connection_comes_from_the_address_that_was_asked_for
            a_reset_right_after_connecting_leaves_nothing_behind
        }
        hosts {
            a_host_is_connected_to_by_its_name
            the_next_address_is_tried_while_the_first_is_silent
            an_address_that_refuses_hands_over_at_once
            a_host_at_which_nobody_listens
            a_host_at_which_nobody_answers
            a_name_that_does_not_resolve
            a_host_without_an_address
            only_addresses_of_the_bound_family_are_tried
            a_resolver_that_panics_fails_its_attempt
            an_address_is_not_resolved
            a_host_counts_as_one_connection
            a_race_ends_when_the_engine_stops
            the_outcome_is_that_of_the_best_address
        }
        relaying {
            bytes_and_ends_are_relayed_in_both_directions
            full_directions_do_not_block_each_other
            resuming_does_not_keep_bytes_from_being_relayed
            a_second_one_for_the_same_target_is_closed
            a_second_call_relays_elsewhere_and_leaves_the_first_target
            what_has_nowhere_to_go_is_closed
            a_target_that_closes_takes_its_source_along
            a_close_between_the_two_ends_closes_both
            a_close_of_one_side_is_an_orderly_end_of_the_other
            a_reset_of_one_side_by_its_handler_is_one_of_both
            a_panic_on_one_side_resets_the_other
            a_write_into_what_is_relayed_arrives_and_completes
            what_is_unread_at_the_end_is_relayed
            bytes_in_one_direction_keep_both_sides_from_idling
            the_read_timeout_stands_still_while_the_other_side_is_stuck
            a_side_that_is_stuck_too_long_resets_both
            a_reset_is_passed_on_while_the_other_side_is_stuck
            what_waits_is_relayed_though_both_sides_of_its_source_have_ended
            an_end_that_waited_is_relayed
            what_was_unread_before_comes_first
            a_stop_ends_each_side_behind_what_was_relayed
            a_gentle_stop_lets_relays_go_on_to_their_ends
        }
        datagrams {
            datagrams_of_every_size_come_back_whole
            datagrams_beyond_the_write_budget_are_sent_later
            what_waits_is_sent_before_a_socket_closes
            a_socket_says_at_once_that_it_closes_whoever_closes_it
            closures_on_their_way_to_a_socket_are_told_when_it_closes
        }
        stopping {
            the_limit_of_connections_is_exact_and_places_are_given_back
            a_stop_drains_every_connection
            a_stop_cuts_what_is_left_at_its_deadline
            a_stop_does_not_wait_for_silent_peers
            connections_may_outlive_a_stop_until_they_end
            a_callback_stops_the_engine
        }
    }
    // The end of TLS is among the bytes, which a connection that pauses does not read; so it does
    // not learn of it there.
    not in TLS {
        paused {
            what_ended_on_both_sides_closes
            what_ended_on_both_sides_stays_until_all_is_taken
        }
    }
}

/// Behaviours of layers, which have their own layer. Those after the semicolon are not for where
/// sending may be refused.
macro_rules! layered_behaviours {
    ($($module:ident { $($name:ident)* $(; $($at_once:ident)*)? })*) => {
        mod layers_on_loopback {
            use super::world::Loopback;
            $($(#[test] fn $name() { super::once(super::$module::$name::<Loopback>); })*
            $($(#[test] fn $at_once() { super::once(super::$module::$at_once::<Loopback>); })*)?)*
        }

        mod layers_in_calm {
            use super::world::Calm;
            $($(#[test] fn $name() { super::once(super::$module::$name::<Calm>); })*
            $($(#[test] fn $at_once() { super::once(super::$module::$at_once::<Calm>); })*)?)*
        }

        mod layers_in_harmless {
            use super::world::Harmless;
            $($(#[test] fn $name() {
                super::seeded::<{ super::SEEDS }>(super::$module::$name::<Harmless>);
            })*)*
        }
    };
}

layered_behaviours! {
    layers {
        an_end_in_the_layer_is_the_peers_end
        an_end_in_the_layer_waits_while_reading_is_paused
        a_socket_that_ends_before_its_layer_is_a_failure
        a_socket_that_ends_early_is_a_failure_while_reading_is_paused
        an_early_end_is_a_failure_once_all_is_taken
        what_a_layer_cant_open_is_a_failure
        what_a_layer_has_opened_comes_before_its_failure
        a_layer_replies_by_itself
        the_beginning_of_a_frame_puts_no_deadline_off
        a_read_after_which_nothing_waits_needs_no_flush
        the_beginnings_of_frames_are_within_the_budget
        replies_that_the_peer_does_not_take_keep_it_from_being_read
        our_end_is_said_behind_all_that_was_written
        marks_count_the_handlers_bytes
        a_layer_that_makes_nothing_of_what_was_written_is_a_failure
        a_room_that_nothing_is_written_into_is_no_frame
        a_handshake_comes_before_everything_else
        who_does_not_shake_hands_is_told_and_refused
        a_handshake_has_its_time
        who_leaves_in_a_handshake_is_gone
        a_stop_does_not_wait_for_handshakes
        a_handshake_decides_whether_a_connection_is_made
        ; a_close_at_once_says_our_end what_a_layer_says_of_its_failure_is_sent
        an_end_that_the_layer_has_is_the_peers_while_reading_is_paused
    }
    upgrading {
        what_was_plain_goes_first_and_what_is_written_meanwhile_is_held
        a_handshake_comes_byte_by_byte
        what_was_put_plainly_behind_the_request_breaks_the_handshake
        neither_marks_nor_pauses_hold_up_a_handshake
        what_waits_for_a_handshake_is_bounded
        much_that_is_plain_goes_before_the_layer
        an_upgrade_has_its_time_and_other_deadlines_stand_back
        who_leaves_in_an_upgrade_is_gone
        a_close_gives_an_upgrade_up
        a_close_at_once_gives_an_upgrade_up
        our_end_waits_for_the_handshake
        a_write_from_elsewhere_completes_behind_the_handshake
        an_upgrade_is_refused_where_it_cannot_be
        an_upgrade_is_refused_to_what_is_relayed
        on_open_may_come_before_the_handshake
        a_connection_that_was_made_is_upgraded
        a_stop_gives_upgrades_up
        what_is_relayed_waits_for_the_handshake
    }
}

fn once(behaviour: fn(u64)) {
    common::silence_expected_panics();
    behaviour(0);
}

fn seeded<const COUNT: u64>(behaviour: fn(u64)) {
    common::silence_expected_panics();
    common::seeds::for_each_seed(COUNT, behaviour);
}
