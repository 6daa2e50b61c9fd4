//! What becomes of a connection that is not read: because it is paused, or because its end was read
//! before.
//!
//! Its reads would tell, but there are none. So what the system announces is looked at.

use std::io::ErrorKind;

use mio::event::Event as Notification;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};

use super::socket::{Announced, Socket, State, TELLS_HANG_UPS};
use crate::driver::{Event, Token};
use crate::socket::Stream;

impl Socket {
    /// Notes what a notification says of the connection's end.
    #[cold]
    pub(super) fn announce(&mut self, news: &Notification) {
        let hung_up = news.is_write_closed() || (news.is_read_closed() && !TELLS_HANG_UPS);
        let news = match (news.is_error(), hung_up) {
            (true, _) => Announced::Error,
            (_, true) => Announced::HangUp,
            _ => return,
        };
        self.announced = self.announced.max(news);
        self.suspect();
    }

    /// Lets it be looked at, if something was announced that no read will find.
    pub(super) fn suspect(&mut self) -> &mut Self {
        let looks = match self.announced {
            Announced::Nothing => false,
            Announced::HangUp => self.state.is(State::PAUSED),
            Announced::Error => self.state.is(State::PAUSED | State::ENDED),
        };
        if looks {
            self.state.set(State::LOOKS);
        }
        self
    }

    /// Looks what became of it. An error may have been announced that broke nothing: that there is
    /// something in the error queue, which a timestamp or a note of the network is put into.
    #[cold]
    pub(super) fn look(&mut self, token: Token) -> Option<Event<Stream>> {
        self.state.clear(State::LOOKS);
        if !self.state.is(State::PAUSED | State::ENDED) {
            return None; // It was resumed, and is read.
        }
        let taken = self.error_taken.then(|| ErrorKind::ConnectionReset.into());
        if let Some(error) = self.stream.take_error().unwrap_or_else(Some).or(taken) {
            self.state.set(State::FAILED);
            return Some(Event::Failed { token, error });
        }
        (self.state.is(State::PAUSED) && self.has_ended()).then_some(Event::HungUp { token })
    }

    /// Whether both sides have ended, and nothing is left to be received.
    fn has_ended(&self) -> bool {
        // macOS reports a hang-up only to a socket that is watched for something: of this side's
        // if it is for sending.
        let mut asked = [PollFd::new(&self.stream, PollFlags::OUT)];
        let polled = poll(&mut asked, Some(&Timespec::default()));
        let hung_up = polled.is_ok() && asked[0].revents().contains(PollFlags::HUP);
        let next = |room: &mut [u8]| recv(&self.stream, room, RecvFlags::PEEK);
        hung_up && next(&mut [0]).is_ok_and(|(len, _)| len == 0)
    }
}
