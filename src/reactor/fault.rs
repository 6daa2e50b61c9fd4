//! What becomes of a panic of the engine itself, or of a library under it, outside of the user's
//! callbacks: whatever was being served has failed, and nothing else.
//!
//! One guard is around all stages of a turn, since one around each event would cost every message
//! something. So what is being served is remembered: in `serving`, and for its events by the
//! driver. The stages then run again, and go on with what is left.

use std::{io, mem};

use millstream_platform::driver::{Driver, Event, Token, fault};

use super::{EventLoop, Served};
use crate::base::CloseReason;
use crate::handler::{EventHandler, Phase};
use crate::unwind::catch;

/// After this many faults in one turn they concern no single source any more.
const MOST_FAULTS: usize = 1024;

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    /// Goes on with a turn after a fault.
    #[cold]
    #[inline(never)]
    pub(super) fn run_stages_after_a_fault(&mut self) {
        for _ in 0..MOST_FAULTS {
            let went_on = catch(|| {
                self.give_up_on_the_served();
                self.run_stages();
            });
            if went_on.is_ok() {
                return;
            }
        }
        panic!("the reactor does not get through a turn");
    }

    fn give_up_on_the_served(&mut self) {
        self.engine.note_fault();
        // What was sent before that is not the next callback's.
        self.counters.bytes_out.add(mem::take(&mut self.outputs.sent));
        match mem::replace(&mut self.serving, Served::Nothing) {
            Served::Nothing => {}
            Served::Connection(token) => self.fail(token, fault()),
            Served::Datagrams(token) => {
                if let Some(entry) = self.datagrams.table.get_mut(token) {
                    entry.drop_front();
                    self.datagram_failed(token, &fault(), 1);
                    self.mark_datagrams_dirty(token);
                }
            }
            Served::Event => match self.driver.abandon() {
                Some(Event::Failed { token, error }) => self.fail(token, error),
                Some(event) => self.handle(event),
                None => {}
            },
        }
    }

    /// Closes a connection, whose peer is not to take this for an orderly end.
    fn fail(&mut self, token: Token, error: io::Error) {
        let reason = CloseReason::Failed(error);
        let Some(connection) = self.connections.get(token) else {
            return self.driver.close(token, true);
        };
        let is_left_over = connection.status.phase == Phase::Doomed
            && self.doomed.iter().all(|(doomed, _)| *doomed != token);
        if is_left_over {
            self.doomed.push((token, reason));
        } else {
            self.cut_off(token, reason, true);
        }
    }
}

#[cfg(all(test, feature = "internals"))]
mod tests;
