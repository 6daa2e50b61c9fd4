//! A server process: started on its core, awaited, and ended whatever happens.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What stands for the port in a server's command.
pub(super) const PORT: &str = "{port}";

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(10);
/// How long it may take to end when asked to; then it is killed.
const END: Duration = Duration::from_secs(2);
/// How often either is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// The server that runs, for the thread that handles signals. Taken out before the process is reaped,
/// so that the id is never that of a stranger.
static RUNNING: Mutex<Option<Pid>> = Mutex::new(None);

/// A running server. Dropping it ends the process.
pub(super) struct Server {
    child: Child,
    address: SocketAddr,
}

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("there is no `taskset` (util-linux) to pin the server with")]
    NoTaskset,
    #[error("the server could not be started")]
    Spawn(#[from] io::Error),
    #[error("the server ended with {0} before it listened")]
    Ended(std::process::ExitStatus),
    #[error("the server does not listen on {0} after {START:?}")]
    NotListening(SocketAddr),
}

impl Server {
    /// Starts `command` on `core` and waits until it accepts connections.
    pub(super) fn start(command: &[String], core: usize) -> Result<Self, StartError> {
        let address = free_address()?;
        let port = address.port().to_string();
        // taskset replaces itself by the server, so its id is the server's.
        let child = Command::new("taskset")
            .args(["--cpu-list", &core.to_string()])
            .args(command.iter().map(|argument| argument.replace(PORT, &port)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => StartError::NoTaskset,
                _ => error.into(),
            })?;
        *running() = Some(Pid::from_child(&child));
        let mut server = Self { child, address };
        server.await_listening()?;
        Ok(server)
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    fn await_listening(&mut self) -> Result<(), StartError> {
        let deadline = Instant::now() + START;
        while !accepts(self.address) {
            if let Some(status) = self.child.try_wait()? {
                return Err(StartError::Ended(status));
            }
            if Instant::now() >= deadline {
                return Err(StartError::NotListening(self.address));
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Whether the process ended by itself within [`END`].
    fn ended_in_time(&mut self) -> bool {
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            thread::sleep(LOOK);
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        *running() = None;
        // Errors mean that it has ended already.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        if !self.ended_in_time() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Whether a connection can be made. One from the address to itself, which TCP allows when nobody
/// listens there and the kernel picks that very port for the connection, is none.
fn accepts(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, LOOK)
        .is_ok_and(|stream| stream.local_addr().is_ok_and(|local| local != address))
}

/// Ends the running server when this program is told to end, and then the program.
pub(super) fn end_on_signals() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // Held until the exit, so that no other server is started.
            let running = running();
            if let Some(server) = *running {
                let _ = kill_process(server, Signal::TERM);
            }
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

fn running() -> MutexGuard<'static, Option<Pid>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An address nobody listens on, at this moment.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
