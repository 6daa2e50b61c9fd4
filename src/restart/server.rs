//! The process that serves, and hands over to a newcomer.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_platform::address::Transport;
use millstream_platform::driver::{Budget, Driver, Event, Readiness, Received, Token};
use millstream_platform::socket::{
    Listener, SocketFile, Stream, own_user, peer_credentials, send_bytes,
};

use super::message::{self, GO, NO, READY};
use crate::engine::{Duplicates, Engine, NoRoom, after};
use crate::reactor::table::Table;

/// How many newcomers may be on their way at a time.
const MOST_NEWCOMERS: usize = 16;
/// How long to wait when there are no descriptors to accept with.
const RETRY: Duration = Duration::from_millis(100);
/// The listener's token. Those of newcomers are other ones, since the driver names them apart.
const LISTENER: Token = Token { index: 0, generation: 0 };

/// What runs on the handover's thread.
pub(super) struct Server {
    driver: Readiness,
    engine: Engine,
    /// How long a newcomer may take to be ready, and then the connections to end.
    timeout: Duration,
    drain: Duration,
    /// Where newcomers connect, to be handed on, too.
    socket: Option<Listener>,
    newcomers: Table<Newcomer>,
    retry_at: Option<Instant>,
}

/// A process that has been given the listeners, and starts.
struct Newcomer {
    stream: UnixStream,
    deadline: Instant,
}

impl Newcomer {
    /// Tells it that it does not take over.
    fn refuse(&self) {
        let _ = send_bytes(&self.stream, &[NO]); // If it is gone, it doesn't need to know.
    }
}

impl Server {
    pub(super) fn new(engine: Engine, timeout: Duration, drain: Duration) -> io::Result<Self> {
        let budget = Budget { receive_buffer: 16, read: 16, write: 16, accept: 1 };
        let driver = Readiness::new(budget)?;
        engine.wake_on_stop(driver.waker());
        let (socket, newcomers, retry_at) = (None, Table::new(), None);
        Ok(Server { driver, engine, timeout, drain, socket, newcomers, retry_at })
    }

    /// Takes the socket that newcomers connect to.
    pub(super) fn listen(&mut self, socket: Listener) -> io::Result<()> {
        self.driver.listen(LISTENER, socket.try_clone()?.into())?;
        self.socket = Some(socket);
        Ok(())
    }

    /// Hands over, once, or ends with the engine.
    pub(super) fn run(mut self) {
        while !self.engine.is_stopping() {
            if let Err(error) = self.driver.wait(self.patience()) {
                return tracing::error!(%error, "nobody can take over any more");
            }
            while let Some(event) = self.driver.next(&mut NoRoom) {
                if self.handle(event) {
                    return self.retire();
                }
            }
            self.look_at_the_clock();
        }
    }

    /// Answers whether a newcomer has taken over.
    fn handle(&mut self, event: Event<Stream>) -> bool {
        match event {
            Event::Accepted { socket, .. } => {
                if let Err(error) = self.greet(socket.socket.into()) {
                    tracing::warn!(%error, "a process is not handed over to");
                }
            }
            Event::AcceptFailed { error, .. } => {
                tracing::warn!(%error, "a process that would take over is not accepted");
                self.retry_at = Some(Instant::now() + RETRY);
            }
            Event::Received { token, bytes } => return self.hear(token, bytes),
            Event::Ended { token } | Event::Failed { token, .. } => {
                self.dismiss(token, "it ended before it was ready");
            }
            // It connects nowhere, and sends past the driver.
            _ => {}
        }
        false
    }

    /// Gives a process the listeners, if it is one of the same user.
    fn greet(&mut self, stream: UnixStream) -> io::Result<()> {
        let user = peer_credentials(&stream)?.uid;
        if user != own_user() {
            let error = format!("it is another user's, {user}");
            return Err(io::Error::new(ErrorKind::PermissionDenied, error));
        }
        if self.newcomers.len() >= MOST_NEWCOMERS {
            return Err(io::Error::other("too many others are on their way"));
        }
        let socket = Stream::new(stream.try_clone()?, Transport::Unix);
        let listeners = self.listeners()?;
        message::send(&stream, &listeners)?;
        let deadline = after(Instant::now(), self.timeout);
        let token = self.newcomers.insert_with(|_| Newcomer { stream, deadline });
        let token = token.expect("there are few");
        self.driver.adopt(token, socket).inspect_err(|_| {
            self.newcomers.remove(token).iter().for_each(Newcomer::refuse);
        })?;
        // From here on the newcomer goes on with them, also should this process end before it is ready.
        listeners.iter().flat_map(|listener| &listener.file).for_each(|file| file.stay());
        Ok(())
    }

    /// The file of the socket that newcomers connect to.
    fn own_file(&self) -> Option<Arc<SocketFile>> {
        self.socket.as_ref().and_then(Listener::file).cloned()
    }

    /// The engine's listeners, behind the one for newcomers.
    fn listeners(&self) -> io::Result<Vec<Duplicates>> {
        let sockets = self.socket.iter().map(|socket| socket.as_fd().try_clone_to_owned());
        let mut listeners = vec![Duplicates {
            name: "handover".to_owned(),
            transport: Transport::Unix,
            file: self.own_file(),
            sockets: sockets.collect::<Result<_, _>>()?,
        }];
        listeners.append(&mut self.engine.known_listeners().duplicates()?);
        Ok(listeners)
    }

    /// A newcomer says something. If it is ready it takes over, unless it is gone by then.
    fn hear(&mut self, token: Token, bytes: Received) -> bool {
        let is_ready = self.driver.parts(Some(bytes)).0 == [READY];
        let Some(newcomer) = self.newcomers.get_mut(token).filter(|_| is_ready) else {
            self.dismiss(token, "it says something else than that it is ready");
            return false;
        };
        if let Err(error) = send_bytes(&newcomer.stream, &[GO]) {
            self.dismiss(token, &error.to_string());
            return false;
        }
        self.newcomers.remove(token);
        true
    }

    /// Goes on without a newcomer.
    fn dismiss(&mut self, token: Token, why: &str) {
        if let Some(newcomer) = self.newcomers.remove(token) {
            newcomer.refuse();
            self.driver.close(token, false);
            if self.newcomers.is_empty() {
                let files = self.engine.known_listeners().files();
                files.iter().chain(&self.own_file()).for_each(|file| file.claim());
            }
            tracing::warn!(why, "a process did not take over");
        }
    }

    /// Leaves the listeners to the newcomer, and stops the engine.
    fn retire(self) {
        tracing::info!("handed over");
        for other in self.newcomers.tokens() {
            self.newcomers.get(other).into_iter().for_each(Newcomer::refuse);
        }
        let Server { engine, drain, .. } = self;
        let deadline = after(Instant::now(), drain);
        // Before the stop, so that whoever is accepted gets to its reactor while that still takes connections. A
        // callback that blocks its reactor may leave the others no time to drain, but not all of it.
        engine.known_listeners().leave(drain / 2);
        let _ = engine.stop_by(deadline);
    }

    fn patience(&self) -> Option<Duration> {
        let newcomers = self.newcomers.tokens().filter_map(|token| self.newcomers.get(token));
        let next = newcomers.map(|newcomer| newcomer.deadline).chain(self.retry_at).min();
        next.map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        let is_late = |token: &Token| {
            self.newcomers.get(*token).is_some_and(|newcomer| newcomer.deadline <= now)
        };
        for token in self.newcomers.tokens().filter(is_late).collect::<Vec<_>>() {
            self.dismiss(token, "it was not ready in time");
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.driver.resume_accepting(LISTENER);
        }
    }
}
