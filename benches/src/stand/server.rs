//! A server process: started on its cores, awaited, and ended whatever happens.

use std::env;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
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

/// What starts it, all of util-linux.
const TOOLS: [&str; 2] = ["taskset", "setpriv"];

/// The servers that run, for the thread that handles signals. Each is taken out before its process
/// is reaped, so that no id is that of a stranger.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// A running server, in its own process group. Dropping it ends the group.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
}

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What starts servers is missing.
    #[error("there is no `{0}` (util-linux), which servers are started with")]
    NoTool(&'static str),
    /// The system did not start it.
    #[error("the server could not be started: {0}")]
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
        if let Some(tool) = TOOLS.into_iter().find(|tool| !is_installed(tool)) {
            return Err(StartError::NoTool(tool));
        }
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
            .process_group(0)
            .spawn()?;
        running.push(Pid::from_child(&child));
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
            if let Some(status) = self.try_wait()? {
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

    /// What the process ended with, if it did. Then the rest of its group is ended, too, before the
    /// process is reaped: until then the group's id cannot be that of strangers.
    fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        let group = Pid::from_child(&self.child);
        let without_reaping = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(group), without_reaping) {
            Ok(None) => return Ok(None),
            Ok(Some(_)) => {
                forget(group);
                let _ = kill_process_group(group, Signal::KILL);
            }
            // It was reaped before; the standard library knows how it ended.
            Err(_) => {}
        }
        self.child.try_wait()
    }

    fn ended_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.try_wait() {
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
        let group = Pid::from_child(&self.child);
        forget(group);
        for signal in [Signal::TERM, Signal::KILL] {
            if self.ended_within(Duration::ZERO).is_some() {
                return;
            }
            let _ = kill_process_group(group, signal);
            self.ended_within(END);
        }
    }
}

/// Whether a connection can be made. One from the address to itself, which TCP allows when nobody
/// listens there and the kernel picks that very port for the connection, is none.
fn accepts(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, LOOK)
        .is_ok_and(|stream| stream.local_addr().is_ok_and(|local| local != address))
}

/// Ends the running servers when this program is told to end, and then the program.
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
            for server in running.iter() {
                let _ = kill_process_group(*server, Signal::TERM);
            }
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

fn running() -> MutexGuard<'static, Vec<Pid>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn forget(group: Pid) {
    running().retain(|other| *other != group);
}

/// The last line in the log `file`, behind the byte `from`, that is not blank.
#[must_use]
pub fn last_line(file: &Path, from: u64) -> Option<String> {
    let mut log = File::open(file).ok()?;
    log.seek(SeekFrom::Start(from)).ok()?;
    let mut text = Vec::new();
    log.read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().rfind(|line| !line.trim().is_empty()).map(str::to_owned)
}

/// Whether a program of that name would be found.
fn is_installed(name: &str) -> bool {
    let folders = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&folders).any(|folder| folder.join(name).is_file())
}

/// An address nobody listens on, at this moment.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_looked_for_on_the_path() {
        assert!(is_installed("sh"));
        assert!(!is_installed("no-such-program-at-all"));
    }
}
