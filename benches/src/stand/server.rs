//! A server process: started on its cores, awaited, and ended whatever happens.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Cores;

/// What stands for the port in a server's command.
pub(super) const PORT: &str = "{port}";

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(10);
/// How long it may take to end when asked to; then it is killed.
const END: Duration = Duration::from_secs(2);
/// How often either is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// The server that runs, for the thread that handles signals. Taken out before the process is reaped,
/// so that the id is never that of a stranger.
static RUNNING: Mutex<Option<Pid>> = Mutex::new(None);

/// A running server. Dropping it ends the process.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
}

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What pins servers is missing.
    #[error("there is no `taskset` (util-linux) to pin the server with")]
    NoTaskset,
    /// The system did not start it.
    #[error("the server could not be started")]
    Spawn(#[from] io::Error),
    /// It ended at once.
    #[error("the server ended with {0} before it listened")]
    Ended(ExitStatus),
    /// It does not accept connections in time.
    #[error("the server does not listen on {0} after {START:?}")]
    NotListening(SocketAddr),
}

impl Server {
    /// Starts `command` on `cores` and waits until it accepts connections. What it writes goes to
    /// `log`.
    ///
    /// # Errors
    ///
    /// If it does not get that far within ten seconds.
    pub fn start(command: &[String], cores: &Cores, log: &File) -> Result<Self, StartError> {
        let address = free_address()?;
        let port = address.port().to_string();
        // Held meanwhile, so that no server is started while a signal ends this process.
        let mut running = running();
        // Both programs replace themselves by the next, so this id is the server's in the end. The
        // second has the kernel end the server if this process is killed and cannot do it.
        let child = Command::new("taskset")
            .args(["--cpu-list", &cores.to_string()])
            .args(["setpriv", "--pdeathsig", "KILL"])
            .args(command.iter().map(|argument| argument.replace(PORT, &port)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => StartError::NoTaskset,
                _ => error.into(),
            })?;
        *running = Some(Pid::from_child(&child));
        drop(running);
        let mut server = Self { child, address };
        server.await_listening()?;
        Ok(server)
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it ended with, if it did by itself within a moment.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.ended_within(10 * LOOK)
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
            // sleep: another process's listening can only be polled.
            thread::sleep(LOOK);
        }
        Ok(())
    }

    fn ended_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => {}
                other => return other.ok().flatten(),
            }
            // sleep: the standard library waits for a process without a deadline, or not at all.
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        *running() = None;
        // Errors mean that it has ended already.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        if self.ended_within(END).is_none() {
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
///
/// # Errors
///
/// If signals cannot be handled.
pub fn end_on_signals() -> io::Result<()> {
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
