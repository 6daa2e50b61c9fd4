//! Sockets that listen.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{self, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::{SocketOptions, SocketRole};
use crate::address::{Address, Transport, UnixAddress};

/// How long another process may take to replace a socket, and how often it is looked after. That
/// takes microseconds; a process that holds the lock for longer holds it for another reason.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// A socket that accepts connections.
#[derive(Debug)]
pub enum Listener {
    /// TCP connections.
    Tcp(TcpListener),
    /// Unix connections.
    Unix {
        /// The socket.
        listener: UnixListener,
        /// Its file, if it has one and made it.
        file: Option<Arc<SocketFile>>,
    },
}

impl Listener {
    /// What its connections are.
    pub fn transport(&self) -> Transport {
        match self {
            Listener::Tcp(_) => Transport::Tcp,
            Listener::Unix { .. } => Transport::Unix,
        }
    }

    /// The file of a Unix socket, if it has one that is known.
    pub fn file(&self) -> Option<&Arc<SocketFile>> {
        match self {
            Listener::Tcp(_) => None,
            Listener::Unix { file, .. } => file.as_ref(),
        }
    }

    /// A second descriptor of the same socket, closed when another program is executed.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Listener::Tcp(listener) => Listener::Tcp(listener.try_clone()?),
            Listener::Unix { listener, file } => {
                Listener::Unix { listener: listener.try_clone()?, file: file.clone() }
            }
        })
    }
}

/// The file of a Unix socket, which is removed with the socket, unless another one has its place by
/// then.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    stays: AtomicBool,
}

impl SocketFile {
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let file = fs::symlink_metadata(path)?;
        Ok(SocketFile {
            path: path::absolute(path)?,
            device: file.dev(),
            inode: file.ino(),
            stays: AtomicBool::new(false),
        })
    }

    /// Where it is, from the root on.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the file where it is: another process has the socket, too.
    pub fn stay(&self) {
        self.stays.store(true, Ordering::Relaxed);
    }

    /// Takes it back: it is removed with the socket.
    pub fn claim(&self) {
        self.stays.store(false, Ordering::Relaxed);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = |file: fs::Metadata| file.dev() == self.device && file.ino() == self.inode;
        if !*self.stays.get_mut() && fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            // If it can't be removed, the next process that binds finds it dead.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix { listener, .. } => listener.as_fd(),
        }
    }
}

/// Binds and listens. The address can be bound again right after a restart; with `reuse_port`
/// several listeners share it and the system spreads connections over them. An IPv6 listener with
/// `dual_stack` takes IPv4 connections, too; it makes sense on the unspecified address alone.
///
/// # Errors
/// The operating system refused the address or an option.
pub fn listen_tcp(
    address: SocketAddr,
    dual_stack: bool,
    backlog: u32,
    reuse_port: bool,
    options: &SocketOptions,
) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(!dual_stack)?;
    }
    options.apply(&SockRef::from(&socket), Transport::Tcp, SocketRole::Listener)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(length(backlog))?;
    Ok(Listener::Tcp(socket.into()))
}

/// Binds a Unix socket and listens. A socket that an earlier process left behind at the path is
/// replaced, if no process listens there. `mode` is the file's, whatever the process' mask says;
/// without it the mask decides.
///
/// # Errors
/// [`ErrorKind::AddrInUse`] if a process listens at the address, [`ErrorKind::AlreadyExists`] if a
/// file is there that is not a socket, and any other error of the operating system about the
/// address or an option.
pub fn listen_unix(
    address: &UnixAddress,
    mode: Option<u32>,
    backlog: u32,
    options: &SocketOptions,
) -> io::Result<Listener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    options.apply(&SockRef::from(&socket), Transport::Unix, SocketRole::Listener)?;
    socket.set_nonblocking(true)?;
    let file = bind_unix(&socket, address, mode)?.map(Arc::new);
    socket.listen(length(backlog))?;
    Ok(Listener::Unix { listener: socket.into(), file })
}

/// Binds a Unix socket, in the place of one that is dead. Others can reach a file only after it has
/// the mode.
pub(crate) fn bind_unix(
    socket: &Socket,
    address: &UnixAddress,
    mode: Option<u32>,
) -> io::Result<Option<SocketFile>> {
    let name = Address::Unix(*address).to_sock_addr()?;
    let Some(path) = address.as_path() else {
        socket.bind(&name)?;
        return Ok(None);
    };
    let _lock = remove_dead(path, &name)?;
    #[cfg(target_os = "linux")]
    if let Some(mode) = mode {
        // The file gets the socket's mode, less what the process' mask takes away.
        rustix::fs::fchmod(socket, rustix::fs::Mode::from_raw_mode(mode))?;
    }
    socket.bind(&name)?;
    // From here on it is removed if something fails.
    let file = SocketFile::at(path)?;
    if let Some(mode) = mode {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(Some(file))
}

/// Removes the file of a Unix socket if no process listens there. No other process does so until
/// what this returns is dropped, if there is a lock.
fn remove_dead(path: &Path, name: &SockAddr) -> io::Result<Option<File>> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(None);
    }
    let lock = lock_folder(path);
    let Ok(file) = fs::symlink_metadata(path) else { return Ok(lock) };
    if !file.file_type().is_socket() {
        let error = format!("{} is there and no socket", path.display());
        return Err(io::Error::new(ErrorKind::AlreadyExists, error));
    }
    match probe(name) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            remove_same(path, &file)?;
            Ok(lock)
        }
        // Whatever else it says, somebody is there: it has no room for one more, or takes
        // datagrams.
        Ok(()) | Err(_) => Err(ErrorKind::AddrInUse.into()),
    }
}

/// Removes a file unless another one has come into its place.
fn remove_same(path: &Path, file: &fs::Metadata) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(now) if (now.dev(), now.ino()) != (file.dev(), file.ino()) => {
            Err(ErrorKind::AddrInUse.into())
        }
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()), // Somebody else has removed it.
    }
}

/// Connects to see whether a process listens.
fn probe(name: &SockAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Not to wait for room in the listener's queue.
    socket.set_nonblocking(true)?;
    socket.connect(name)
}

/// Locks the folder of a path as long as what it returns lives, so that of two processes that
/// replace a dead socket the second one finds that of the first. Somebody else may hold the lock
/// for long, a folder may be one that can't be read, and not every file system has locks: then
/// there is none, and two that replace a socket within the same moment are not told apart. That is
/// better than none that starts.
fn lock_folder(path: &Path) -> Option<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new("."))).ok()?;
    let begin = Instant::now();
    loop {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(folder),
            Err(Errno::WOULDBLOCK) if begin.elapsed() < LOCK_PATIENCE => thread::sleep(LOCK_RETRY),
            Err(Errno::INTR) => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a socket is replaced without a lock");
                return None;
            }
        }
    }
}

fn length(backlog: u32) -> i32 {
    backlog.try_into().unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;
    use crate::socket::Keepalive;

    fn listen(address: impl Into<SocketAddr>, options: &SocketOptions) -> io::Result<TcpListener> {
        match listen_tcp(address.into(), true, 16, false, options)? {
            Listener::Tcp(listener) => Ok(listener),
            Listener::Unix { .. } => unreachable!("TCP was asked for"),
        }
    }

    #[test]
    fn an_accepted_connection_has_the_listeners_options() {
        let keepalive =
            Keepalive { idle: Duration::from_secs(7), interval: Duration::from_secs(3), count: 2 };
        let options = SocketOptions::new().nodelay(true).keepalive(keepalive);
        let options = options.receive_buffer(16 * 1024).send_buffer(16 * 1024);
        let listener = listen(([127, 0, 0, 1], 0), &options).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        if let Some(options) = options.clone().not_inherited(Transport::Tcp) {
            options.apply(&accepted, Transport::Tcp, SocketRole::Connection).unwrap();
        }
        let accepted = crate::socket::Socket::new(accepted, Transport::Tcp);
        assert!(accepted.nodelay().unwrap());
        assert_eq!(accepted.keepalive().unwrap(), Some(keepalive));
        // Linux doubles what it was asked for, to cover its own overhead.
        assert!((16 * 1024..=32 * 1024).contains(&accepted.receive_buffer().unwrap()));
        assert!((16 * 1024..=32 * 1024).contains(&accepted.send_buffer().unwrap()));
    }

    #[test]
    fn a_dual_stack_listener_takes_ipv4_too() {
        let unspecified = (std::net::Ipv6Addr::UNSPECIFIED, 0);
        let Ok(listener) = listen(unspecified, &SocketOptions::default()) else {
            return; // A machine without IPv6.
        };
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
}
