//! Taking over from the process before this one.

use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use millstream_platform::address::{Address, UnixAddress};
use millstream_platform::driver::run_on;
use millstream_platform::socket::{
    BoundSocket, InheritError, Listener, SocketFile, SocketOptions, listen_unix, own_user,
    peer_credentials, send_bytes,
};
use millstream_platform::time::after;
use socket2::{Domain, Socket, Type};

use super::Inherited;
use super::message::{self, Entry, GO, MessageError, NO, READY};
use super::server::{self, Serve};
use crate::config::{Gate, StartError};
use crate::shared::{Engine, spawn};

/// How many processes may wait to take over.
const BACKLOG: u32 = 16;
/// The mode of the handover's file: it is for the same user alone.
const MODE: u32 = 0o600;
/// How long to wait before looking again who serves, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// A restart without a refused connection: this process takes over the listening sockets of the one
/// before it, and later hands them on to the next.
///
/// ```
/// # use millstream::{Action, Conn, Engine, EventHandler, UnixAddress};
/// use std::time::Duration;
///
/// use millstream::restart::Handover;
/// # struct Echo;
/// # impl EventHandler for Echo {
/// #     type State = ();
/// #     fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
/// #         conn.output.write(conn.input.take_all());
/// #         Action::Continue
/// #     }
/// # }
/// # let folder = std::env::temp_dir().join(format!("millstream-doc-{}", std::process::id()));
/// # std::fs::create_dir(&folder)?;
/// # let path = folder.join("handover");
///
/// let mut handover = Handover::take(UnixAddress::path(&path)?, Duration::from_secs(10))?;
/// let listen = handover.inherited.listen("127.0.0.1:0");
/// let engine = Engine::builder().listen(listen).start(|_reactor| Echo)?;
/// handover.ready(&engine, Duration::from_secs(30))?;
/// // Until a newcomer has taken over and the connections are done:
/// # engine.stop(Duration::from_secs(5))?;
/// engine.wait()?;
/// # std::fs::remove_dir(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Dropping it gives the attempt up: the process before this one goes on as if nothing had
/// happened.
#[doc(alias("hot reload", "zero downtime"))]
#[derive(Debug)]
pub struct Handover {
    /// The listening sockets of the process before this one; nothing if there is none.
    pub inherited: Inherited,
    address: UnixAddress,
    timeout: Duration,
    role: Role,
    /// Opens when this process takes over.
    gate: Gate,
}

/// Whom this process comes after.
#[derive(Debug)]
enum Role {
    /// None. Processes that come after this one connect here, and wait until it is ready.
    First(Listener),
    Next(Predecessor),
}

/// The process before this one.
#[derive(Debug)]
struct Predecessor {
    stream: UnixStream,
    /// Where newcomers connect.
    socket: Listener,
    /// The files of Unix sockets.
    files: Vec<Arc<SocketFile>>,
}

/// Why a process does not take over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandoverError {
    /// The process before this one can't be reached, or newcomers can't reach this one.
    #[error("the handover at {address} cannot be used: {source}")]
    Address {
        /// Where the handover is.
        address: UnixAddress,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The process before this one is another user's.
    #[error("the process at {address} is another user's: {user}")]
    Stranger {
        /// Where the handover is.
        address: UnixAddress,
        /// The number of the user.
        user: u32,
    },
    /// The process before this one says something that makes no sense.
    #[error("the process before this one is not understood: {0}")]
    Message(#[from] MessageError),
    /// A socket that was handed over can't be listened on.
    #[error("the socket for {name} cannot be used: {source}")]
    Socket {
        /// What the process before this one called it.
        name: String,
        /// Why.
        #[source]
        source: Box<InheritError>,
    },
    /// The process before this one ended the attempt: this one was not ready in time, or another
    /// one was before.
    #[error("the process before this one goes on")]
    Refused,
    /// The engine that is to take over stops already.
    #[error("the engine stops, and does not take over")]
    Stopping,
    /// The process before this one does not answer in time.
    #[error("the process before this one does not answer")]
    Timeout,
    /// The connection to the process before this one failed.
    #[error("the process before this one cannot be talked to: {0}")]
    Broken(#[source] io::Error),
    /// There is no thread to accept or to serve newcomers.
    #[error("nobody can serve newcomers: {0}")]
    Thread(#[source] Box<StartError>),
}

impl HandoverError {
    /// What an error on the connection means.
    fn broken(error: io::Error) -> Self {
        let message = error.get_ref().and_then(|source| source.downcast_ref::<MessageError>());
        match (message, error.kind()) {
            (Some(message), _) => HandoverError::Message(*message),
            (None, ErrorKind::TimedOut | ErrorKind::WouldBlock) => HandoverError::Timeout,
            (None, ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe) => HandoverError::Refused,
            (None, ErrorKind::ConnectionReset) => HandoverError::Refused,
            (None, _) => HandoverError::Broken(error),
        }
    }

    /// Whether it may be over in a moment: the one that served ends or sends others away, or
    /// another process begins to listen.
    fn passes(&self) -> bool {
        match self {
            HandoverError::Refused => true,
            HandoverError::Address { source, .. } => source.kind() == ErrorKind::AddrInUse,
            _ => false,
        }
    }
}

impl Handover {
    /// Takes over from the process that serves handovers at this address, if there is one: asks it
    /// for its listening sockets, which both have from here on. The other one goes on accepting,
    /// and this one does not begin to, before it is [`ready`](Self::ready). If there is none, this
    /// process is the first, and those that are started from here on wait for it.
    ///
    /// A handover takes no longer than `timeout`: the other process waits that long between this
    /// call and `ready` (what it was given itself counts), and both calls wait that long for its
    /// answers. A process that is just starting, ending or handing over to another one is waited
    /// for, too.
    ///
    /// # Errors
    /// There is a process and it can't be reached, is another user's, of an incompatible version,
    /// or does not answer in time; or there is none, and the address can't be listened on.
    pub fn take(address: UnixAddress, timeout: Duration) -> Result<Self, HandoverError> {
        let deadline = after(Instant::now(), timeout);
        let mut pause = FIRST_PAUSE;
        loop {
            let gate = Gate::default();
            let mut inherited = Inherited::waiting_for(gate.clone());
            let left = deadline.saturating_duration_since(Instant::now());
            match Role::take(&address, deadline, &mut inherited) {
                Ok(role) => return Ok(Handover { inherited, address, timeout, role, gate }),
                Err(error) if error.passes() && !left.is_zero() => thread::sleep(pause.min(left)),
                Err(error) => return Err(error),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether this process takes over from another one.
    pub fn has_predecessor(&self) -> bool {
        matches!(self.role, Role::Next(_))
    }

    /// Says that the engine has started: this process accepts on what it has
    /// [inherited](Self::inherited), and a moment later, if it is still there, the one before it
    /// accepts no more and drains. What was not taken from there is closed.
    ///
    /// From here on the engine serves handovers itself, on a thread that ends with it. When a
    /// newcomer serves, the engine stops, with `drain` as its timeout. Any thread may call it but
    /// the engine's own, which it would keep waiting. If the process before this one has ended
    /// meanwhile, this one takes over, too.
    ///
    /// # Errors
    /// The process before this one goes on, if there is one, and this one should end.
    pub fn ready(self, engine: &Engine, drain: Duration) -> Result<(), HandoverError> {
        let Handover { inherited, address, timeout, role, gate } = self;
        let unusable = |source| HandoverError::Address { address, source };
        if engine.is_stopping() {
            return Err(HandoverError::Stopping);
        }
        let (socket, predecessor) = match role {
            Role::First(socket) => (socket, None),
            Role::Next(predecessor) => {
                let (socket, predecessor) = predecessor.ask(after(Instant::now(), timeout))?;
                (socket, Some(predecessor))
            }
        };
        let serve = Serve { engine: engine.clone(), timeout, drain, socket, predecessor };
        let serve = run_on(engine.driver_choice(), serve).map_err(unusable)?;
        gate.open();
        engine.known_listeners().admit();
        if !inherited.is_empty() {
            tracing::warn!(?inherited, "nobody listens there any more");
        }
        spawn(engine, "millstream-handover".to_owned(), serve)
            .map_err(|error| HandoverError::Thread(StartError::Thread(error).into()))
    }
}

impl Role {
    /// Looks who serves.
    fn take(
        address: &UnixAddress,
        deadline: Instant,
        inherited: &mut Inherited,
    ) -> Result<Self, HandoverError> {
        let unusable = |source| HandoverError::Address { address: *address, source };
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(stream) = connect(address, left).map_err(unusable)? else {
            let socket = listen_unix(address, Some(MODE), BACKLOG, &SocketOptions::default());
            return socket.map(Role::First).map_err(unusable);
        };
        let user = peer_credentials(&stream).map_err(HandoverError::Broken)?.uid;
        if user != own_user() {
            return Err(HandoverError::Stranger { address: *address, user });
        }
        let entries = message::receive(&stream, deadline).map_err(HandoverError::broken)?;
        Predecessor::new(stream, entries, inherited).map(Role::Next)
    }
}

impl Predecessor {
    /// Sorts what it has handed over.
    fn new(
        stream: UnixStream,
        entries: Vec<(Entry, Vec<OwnedFd>)>,
        inherited: &mut Inherited,
    ) -> Result<Self, HandoverError> {
        let (mut own, mut files) = (None, Vec::new());
        for (index, (entry, sockets)) in entries.into_iter().enumerate() {
            for socket in sockets {
                let (mut socket, address) = BoundSocket::inherit(socket).map_err(|source| {
                    let name = entry.name.clone();
                    HandoverError::Socket { name, source: Box::new(source) }
                })?;
                if let Some(file) = &entry.file
                    && let Err(error) = socket.note_file(file)
                {
                    // Somebody has removed it. The socket is as good as it was.
                    tracing::warn!(file = %file.display(), %error, "the file of a socket is gone");
                }
                files.extend(socket.file().cloned());
                match socket {
                    BoundSocket::Listener(socket) if index == 0 => own = Some(socket),
                    socket => inherited.add(entry.name.clone(), address, socket),
                }
            }
        }
        let socket = own.ok_or(MessageError::Field("own socket"))?;
        Ok(Predecessor { stream, socket, files })
    }

    /// Asks it whether this process may accept. If it has ended already, nobody is to be waited
    /// for.
    fn ask(self, deadline: Instant) -> Result<(Listener, server::Predecessor), HandoverError> {
        // If this fails, an answer may have come before.
        let told = send_bytes(&self.stream, &[READY]);
        let mut answer = message::read(&self.stream, 1, deadline);
        if answer.is_err() {
            // From here on the other process can't answer any more. It may have done so just
            // before, and count on this one.
            let _ = self.stream.shutdown(Shutdown::Read);
            answer = message::read(&self.stream, 1, after(Instant::now(), LAST_LOOK)).or(answer);
        }
        match answer.map(|answer| answer[0]) {
            Ok(GO) => {}
            Ok(NO) => return Err(HandoverError::Refused),
            Ok(_) => return Err(MessageError::Field("answer").into()),
            Err(error) if has_ended(told.as_ref().err().unwrap_or(&error)) => {
                tracing::warn!("the process before this one has ended without handing over");
            }
            Err(error) => return Err(HandoverError::broken(error)),
        }
        Ok((self.socket, server::Predecessor::new(self.stream, self.files)))
    }
}

/// Whether an error on the connection says that the other process has ended it.
fn has_ended(error: &io::Error) -> bool {
    let ends = [ErrorKind::UnexpectedEof, ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
    ends.contains(&error.kind())
}

/// Time for a read that does not wait, as nothing more can come.
const LAST_LOOK: Duration = Duration::from_secs(10);

/// Connects, unless nobody is there.
fn connect(address: &UnixAddress, timeout: Duration) -> io::Result<Option<UnixStream>> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let (begin, address) = (Instant::now(), Address::Unix(*address).to_sock_addr()?);
    loop {
        // It waits only if too many others wait to take over.
        let left = timeout.saturating_sub(begin.elapsed());
        socket.set_write_timeout(Some(left.max(Duration::from_millis(1))))?;
        match socket.connect(&address) {
            Ok(()) => return Ok(Some(OwnedFd::from(socket).into())),
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => return Ok(None),
                ErrorKind::Interrupted => {} // A signal is not a reason to give up.
                _ => return Err(error),
            },
        }
    }
}
