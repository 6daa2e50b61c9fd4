//! The process that serves, and hands over to a newcomer.

use std::io::{self, ErrorKind, Read};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_platform::address::Transport;
use millstream_platform::driver::{Budget, Event, OnDriver, Received, SystemDriver, Token};
use millstream_platform::socket::{
    Listener, SocketFile, Stream, own_user, peer_credentials, send_bytes,
};
use millstream_platform::time::after;
use socket2::{SockRef, Socket};

use super::message::{self, GO, NO, READY, STAYS};
use crate::base::Table;
use crate::engine::NoRoom;
use crate::log::limited;
use crate::shared::{Duplicates, Engine};
use crate::unwind::catch;

/// How many newcomers may be on their way at a time.
const MOST_NEWCOMERS: usize = 16;
/// How long to wait when there are no descriptors to accept with.
const RETRY: Duration = Duration::from_millis(100);
/// How long this process has served before it tells the one before it to go. What fails at its
/// first connections fails within that time, and then the other one is still there.
const PROBATION: Duration = Duration::from_millis(200);
/// A newcomer that accepts has at least this long to say that it stays.
const STAYS_WITHIN: Duration = Duration::from_secs(3);
/// How long a process may take to say that it has given another one up, once that can't speak any
/// more.
const SAYS_NO_WITHIN: Duration = Duration::from_secs(1);
/// How many descriptors are kept for newcomers in a process that has no others left. One would do,
/// if nobody else could take it in the moment in which it is free.
const RESERVE: usize = 4;
/// How often a reserve that was used is filled up.
const REFILL: Duration = Duration::from_secs(1);
/// The listener's token. Those of newcomers are other ones, since the driver names them apart.
const LISTENER: Token = Token { index: 0, generation: 0 };

/// What runs on the handover's thread.
struct Server<D> {
    driver: D,
    engine: Engine,
    /// How long a newcomer may take to be ready, and then the connections to end.
    timeout: Duration,
    drain: Duration,
    /// Where newcomers connect, to be handed on, too.
    socket: Arc<OwnedFd>,
    file: Option<Arc<SocketFile>>,
    newcomers: Table<Newcomer>,
    /// The newcomer that accepts already, and has not said yet that it stays.
    successor: Option<Token>,
    predecessor: Option<Predecessor>,
    /// Second descriptors of `socket`, to be closed where a newcomer needs one.
    reserve: Vec<OwnedFd>,
    retry_at: Option<Instant>,
    refill_at: Option<Instant>,
}

/// What is to be served: newcomers that connect to a socket. With a driver it comes to what the
/// thread runs.
pub(super) struct Serve {
    pub(super) engine: Engine,
    pub(super) timeout: Duration,
    pub(super) drain: Duration,
    pub(super) socket: Listener,
    pub(super) predecessor: Option<Predecessor>,
}

impl OnDriver for Serve {
    type Output = io::Result<Box<dyn FnOnce() + Send>>;

    fn run<D: SystemDriver>(self) -> Self::Output {
        let server = Server::<D>::new(self)?;
        Ok(Box::new(move || server.run()))
    }
}

/// A process that has been given the listeners, and starts.
struct Newcomer {
    deadline: Instant,
}

/// The process before this one, which accepts until it is told that this one stays.
#[derive(Debug)]
pub(super) struct Predecessor {
    stream: UnixStream,
    /// The files of Unix sockets, which are this process' from then on, unless a newcomer has them
    /// already.
    files: Vec<Arc<SocketFile>>,
    /// When it is to be told.
    due: Instant,
}

impl Predecessor {
    /// One that has let this process accept.
    pub(super) fn new(stream: UnixStream, files: Vec<Arc<SocketFile>>) -> Self {
        Predecessor { stream, files, due: after(Instant::now(), PROBATION) }
    }

    /// Tells it to go. `false`: it has given this process up before, and stays itself.
    fn relieve(&mut self) -> bool {
        if send_bytes(&self.stream, &[STAYS]).is_err() {
            // It has ended, or it has shut its end and says in a moment that it has given this
            // process up.
            let _ = self.stream.set_read_timeout(Some(SAYS_NO_WITHIN));
            if self.stream.read(&mut [0; 1]).is_ok_and(|read| read == 1) {
                return false;
            }
        }
        true
    }
}

impl<D: SystemDriver> Server<D> {
    fn new(serve: Serve) -> io::Result<Self> {
        let Serve { engine, timeout, drain, socket, predecessor } = serve;
        let budget = Budget { receive_buffer: 16, read: 16, write: 16, accept: 1 };
        let mut driver = D::open(budget)?;
        let file = socket.file().cloned();
        let own = Arc::new(socket.as_fd().try_clone_to_owned()?);
        driver.listen(LISTENER, driver.watcher().listener(socket)?)?;
        engine.wake_on_stop(driver.waker());
        let mut server = Server {
            driver,
            engine,
            timeout,
            drain,
            socket: own,
            file,
            newcomers: Table::new(),
            successor: None,
            predecessor,
            reserve: Vec::with_capacity(RESERVE),
            retry_at: None,
            refill_at: None,
        };
        server.fill_reserve();
        Ok(server)
    }

    /// Hands over, once, or ends with the engine.
    fn run(mut self) {
        while !self.engine.is_stopping() {
            if let Err(error) = self.driver.wait(self.patience()) {
                tracing::error!(%error, "nobody can take over any more");
                break;
            }
            match catch(|| self.dispatch()) {
                Ok(true) => return self.retire(),
                Ok(false) => {}
                // What is left comes in the next turn.
                Err(_) => self.give_up_on_the_served(),
            }
            if self.look_at_the_clock() {
                return self.retire();
            }
        }
        // An engine that was asked to stop has not failed, and its predecessor is not to go on in
        // its place.
        if !self.engine.has_failed() {
            self.relieve_predecessor();
        }
    }

    /// Returns whether a newcomer has taken over.
    fn dispatch(&mut self) -> bool {
        while let Some(event) = self.driver.next(&mut NoRoom) {
            if self.handle(event) {
                return true;
            }
        }
        false
    }

    /// A panic of the engine itself: the one that was being served is refused, and no other.
    #[cold]
    fn give_up_on_the_served(&mut self) {
        self.engine.note_fault();
        if let Some(event) = self.driver.abandon() {
            self.handle(event);
        }
    }

    /// Returns whether a newcomer has taken over.
    fn handle(&mut self, event: Event<Stream>) -> bool {
        match event {
            Event::Accepted { socket, .. } => {
                if let Err(error) = self.greet(socket) {
                    limited!(warn, %error, "a process is not handed over to");
                }
            }
            Event::AcceptFailed { error, .. } => {
                limited!(warn, %error, "a process that would take over is not accepted");
                self.accept_again();
            }
            Event::Received { token, bytes } => return self.hear(token, bytes),
            Event::Ended { token } | Event::Failed { token, .. } => {
                self.dismiss(token, "it has ended");
            }
            // It connects nowhere, and sends past the driver.
            _ => {}
        }
        false
    }

    /// Gives a process the listeners, if it is one of the same user. One that is sent away before
    /// it was given anything comes again; while another one is about to take over, that is who it
    /// will find.
    fn greet(&mut self, stream: Stream) -> io::Result<()> {
        let user = peer_credentials(&stream.socket)?.uid;
        if user != own_user() {
            let error = format!("it is another user's, {user}");
            return Err(io::Error::new(ErrorKind::PermissionDenied, error));
        }
        if self.newcomers.len() >= MOST_NEWCOMERS {
            return Err(io::Error::other("too many others are on their way"));
        }
        if self.successor.is_some() {
            return Ok(());
        }
        let listeners = self.listeners();
        message::send(&SockRef::from(&stream.socket), &listeners)?;
        let deadline = after(Instant::now(), self.timeout);
        let token = self.newcomers.insert_with(|_| Newcomer { deadline });
        let token = token.expect("there are few");
        self.driver.adopt(token, stream).inspect_err(|_| {
            self.newcomers.remove(token);
        })?;
        // From here on the newcomer goes on with them, also should this process end before it is
        // ready.
        listeners.iter().flat_map(|listener| &listener.file).for_each(|file| file.stay());
        Ok(())
    }

    /// The engine's listeners, behind the one for newcomers.
    fn listeners(&self) -> Vec<Duplicates> {
        let mut listeners = vec![Duplicates {
            name: "handover".to_owned(),
            transport: Transport::Unix,
            file: self.file.clone(),
            sockets: vec![Arc::clone(&self.socket)],
        }];
        listeners.append(&mut self.engine.known_listeners().duplicates());
        listeners
    }

    /// A newcomer says something. Returns whether it has taken over. The first one that is ready
    /// may accept, unless it is gone by then.
    fn hear(&mut self, token: Token, bytes: Received) -> bool {
        let said = self.driver.parts(Some(bytes)).0;
        match (said, self.successor) {
            ([READY], None) => match self.tell(token, GO) {
                Ok(()) => {
                    self.successor = Some(token);
                    let patience = self.timeout.max(STAYS_WITHIN);
                    if let Some(newcomer) = self.newcomers.get_mut(token) {
                        newcomer.deadline = after(Instant::now(), patience);
                    }
                }
                Err(error) => self.dismiss(token, &error.to_string()),
            },
            ([STAYS], Some(successor)) if successor == token => return true,
            ([READY], Some(_)) => self.dismiss(token, "another one was ready before"),
            _ => self.dismiss(token, "it says something that makes no sense here"),
        }
        false
    }

    /// Says something to a newcomer, for which there is always room.
    fn tell(&mut self, token: Token, what: u8) -> io::Result<()> {
        self.with(token, |socket| send_bytes(socket, &[what]))
    }

    fn with<T>(
        &mut self,
        token: Token,
        act: impl FnOnce(&Socket) -> io::Result<T>,
    ) -> io::Result<T> {
        let socket = self.driver.parts(None).1.socket(token);
        socket.map_or(Err(ErrorKind::NotConnected.into()), |socket| act(&socket))
    }

    /// Goes on without a newcomer.
    fn dismiss(&mut self, token: Token, why: &str) {
        if self.newcomers.remove(token).is_none() {
            return;
        }
        let _ = self.tell(token, NO); // If it is gone, it doesn't need to know.
        self.driver.close(token, false);
        if self.successor == Some(token) {
            self.successor = None;
        }
        if self.newcomers.is_empty() {
            let files = self.engine.known_listeners().files();
            files.iter().chain(&self.file).for_each(|file| file.claim());
        }
        limited!(warn, why, "a process did not take over");
    }

    /// Whether a newcomer whose time is over has said just now that it stays. From here on it
    /// can't.
    fn stays_after_all(&mut self, token: Token) -> bool {
        let mut said = [MaybeUninit::uninit()];
        let look = |socket: &Socket| {
            socket.shutdown(Shutdown::Read)?;
            socket.recv(&mut said)
        };
        // It says nothing else once it may accept.
        self.successor == Some(token) && self.with(token, look).is_ok_and(|read| read == 1)
    }

    /// Tells the process before this one to go, if it is not gone.
    fn relieve_predecessor(&mut self) {
        let Some(mut predecessor) = self.predecessor.take() else { return };
        if !predecessor.relieve() {
            tracing::error!("the process before this one serves in its place");
            let _ = self.engine.stop_by(after(Instant::now(), self.drain));
        } else if self.newcomers.is_empty() {
            predecessor.files.iter().for_each(|file| file.claim());
        }
    }

    /// Leaves the listeners to the newcomer, and stops the engine.
    fn retire(mut self) {
        tracing::info!("handed over");
        self.relieve_predecessor();
        for other in self.newcomers.tokens().collect::<Vec<_>>() {
            let _ = self.tell(other, NO);
        }
        let deadline = after(Instant::now(), self.drain);
        // Before the stop, so that an accepted connection gets to its reactor while that still
        // takes connections. A callback that blocks its reactor may leave the others no time to
        // drain, but not all of it.
        self.engine.known_listeners().leave(self.drain / 2);
        let _ = self.engine.stop_by(deadline);
    }

    fn patience(&self) -> Option<Duration> {
        let newcomers = self.newcomers.tokens().filter_map(|token| self.newcomers.get(token));
        let newcomers = newcomers.map(|newcomer| newcomer.deadline);
        let due = self.predecessor.as_ref().map(|predecessor| predecessor.due);
        let next = newcomers.chain(due).chain(self.retry_at).chain(self.refill_at).min();
        next.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Does what is due. Returns whether a newcomer has taken over.
    fn look_at_the_clock(&mut self) -> bool {
        let now = Instant::now();
        if self.predecessor.as_ref().is_some_and(|predecessor| predecessor.due <= now) {
            self.relieve_predecessor();
        }
        let is_late = |token: &Token| {
            self.newcomers.get(*token).is_some_and(|newcomer| newcomer.deadline <= now)
        };
        for token in self.newcomers.tokens().filter(is_late).collect::<Vec<_>>() {
            if self.stays_after_all(token) {
                return true;
            }
            self.dismiss(token, "it was not ready in time");
        }
        if self.retry_at.take_if(|at| *at <= now).is_some() {
            self.driver.resume_accepting(LISTENER);
        }
        if self.refill_at.take_if(|at| *at <= now).is_some() {
            self.fill_reserve();
        }
        false
    }

    /// Accepts again after a failure: at once with a descriptor of the reserve, or later.
    fn accept_again(&mut self) {
        if self.reserve.pop().is_some() {
            self.driver.resume_accepting(LISTENER);
            self.refill_at.get_or_insert_with(|| after(Instant::now(), REFILL));
        } else {
            self.retry_at = Some(after(Instant::now(), RETRY));
        }
    }

    /// Takes as many descriptors as there are to be had.
    fn fill_reserve(&mut self) {
        while self.reserve.len() < RESERVE {
            let Ok(descriptor) = self.socket.try_clone() else {
                self.refill_at = Some(after(Instant::now(), REFILL));
                return;
            };
            self.reserve.push(descriptor);
        }
    }
}
