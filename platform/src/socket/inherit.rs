//! Listening sockets that another process has opened, and the service manager's way of passing them
//! on.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::process;
use std::sync::{Mutex, PoisonError};

use socket2::{SockRef, Type};

use super::stream::{local_addr, take_over};
use super::{BoundSocket, DatagramSocket, Listener};
use crate::address::Address;

/// Why a descriptor can't be listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InheritError {
    /// It is not a socket, or not of a kind that is known.
    #[error("descriptor {descriptor} is no socket that can be used: {source}")]
    NoSocket {
        /// Its number.
        descriptor: RawFd,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// It is a socket of another kind.
    #[error("the socket at {address} carries neither streams nor datagrams")]
    OtherKind {
        /// Its address.
        address: Address,
    },
    /// It is a socket that does not listen, or one for datagrams that is connected.
    #[error("the socket at {address} does not listen")]
    NotListening {
        /// Its address.
        address: Address,
    },
    /// The sockets of one listener are at several addresses.
    #[error("a listener has one address, not {} and {}", .0[0], .0[1])]
    Apart(Box<[Address; 2]>),
    /// Some of the sockets of one listener carry streams, others datagrams.
    #[error("a listener has one transport, and the sockets at {address} do not")]
    Mixed {
        /// Their address.
        address: Address,
    },
    /// There is no socket.
    #[error("a listener needs a socket")]
    Nothing,
}

impl BoundSocket {
    /// Takes a socket that another process has bound, and returns at which address it is. If it is
    /// a Unix socket, its file stays where it is.
    ///
    /// # Errors
    /// It is not a socket that connections can be accepted from or datagrams received on.
    pub fn inherit(descriptor: OwnedFd) -> Result<(Self, Address), InheritError> {
        let number = descriptor.as_raw_fd();
        let no_socket = |source| InheritError::NoSocket { descriptor: number, source };
        let (kind, address) = Self::examine(descriptor.as_fd())?;
        let socket = SockRef::from(&descriptor);
        socket.set_cloexec(true).map_err(no_socket)?;
        take_over(&descriptor).map_err(no_socket)?;
        let inherited = match (kind, address) {
            (Type::DGRAM, _) => {
                BoundSocket::Datagrams(DatagramSocket::inherit(descriptor, &address))
            }
            (_, Address::Ip(_)) => BoundSocket::Listener(Listener::Tcp(descriptor.into())),
            (_, Address::Unix(_)) => {
                let listener = Listener::Unix { listener: descriptor.into(), file: None };
                BoundSocket::Listener(listener)
            }
        };
        Ok((inherited, address))
    }

    /// Looks at a descriptor, and changes nothing. Returns what kind of socket it is, and where.
    ///
    /// # Errors
    /// As for [`inherit`](Self::inherit).
    fn examine(descriptor: BorrowedFd<'_>) -> Result<(Type, Address), InheritError> {
        let number = descriptor.as_raw_fd();
        let no_socket = |source| InheritError::NoSocket { descriptor: number, source };
        let socket = SockRef::from(&descriptor);
        let address = local_addr(&descriptor).map_err(no_socket)?;
        let kind = socket.r#type().map_err(no_socket)?;
        let serves = match kind {
            Type::STREAM => listens(&socket).map_err(no_socket)?,
            Type::DGRAM => socket.peer_addr().is_err(),
            _ => return Err(InheritError::OtherKind { address }),
        };
        if serves { Ok((kind, address)) } else { Err(InheritError::NotListening { address }) }
    }
}

#[cfg(any(target_os = "android", target_os = "freebsd", target_os = "linux"))]
fn listens(socket: &SockRef<'_>) -> io::Result<bool> {
    socket.is_listener()
}

/// Other systems have the option and don't answer it.
#[cfg(not(any(target_os = "android", target_os = "freebsd", target_os = "linux")))]
fn listens(_socket: &SockRef<'_>) -> io::Result<bool> {
    Ok(true)
}

/// Why the service manager's sockets can't be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActivationError {
    /// An environment variable has a value that makes no sense.
    #[error("the environment variable {variable} is {value:?}: {reason}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A descriptor that the variables speak of is not open.
    #[error("descriptor {descriptor}, which LISTEN_FDS counts, is not open: {source}")]
    Closed {
        /// Its number.
        descriptor: RawFd,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// A descriptor that the variables speak of was opened in this process: it would have been
    /// closed when this program was executed.
    #[error("descriptor {descriptor}, which LISTEN_FDS counts, was opened in this process")]
    NotInherited {
        /// Its number.
        descriptor: RawFd,
    },
    /// They have been taken before.
    #[error("the service manager's sockets were taken before")]
    Taken,
    /// One of them can't be listened on.
    #[error("the service manager's socket {name:?} cannot be used: {source}")]
    Socket {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<InheritError>,
    },
}

/// The first descriptor that is passed on.
const FIRST: RawFd = 3;
/// What a socket is called that was given no name.
const UNNAMED: &str = "unknown";

/// Duplicates of the sockets that the service manager has opened for this process, with their names
/// and addresses; see sd_listen_fds(3). There are none if the environment does not speak of them,
/// or not to this process.
///
/// The environment is only text, and the descriptors that it speaks of may have an owner in this
/// process. So they are looked at before anything is done; if one is not what it should be, nothing
/// was. They stay open and stay what they are; that they don't block, raise no signal when
/// something arrives, and are closed when another program is executed is all that changes.
///
/// # Errors
/// The environment makes no sense, a descriptor is not what it should be, there are too many, or
/// these were taken before.
pub fn take_activated() -> Result<Vec<(String, BoundSocket, Address)>, ActivationError> {
    static TAKEN: Mutex<bool> = Mutex::new(false);
    let names = activated(process::id(), |name| env::var_os(name))?;
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if *taken {
        return Err(ActivationError::Taken);
    }
    let last = FIRST + names.len() as RawFd;
    let sockets = duplicates(names.into_iter().zip(FIRST..))?;
    (FIRST..last)
        .try_for_each(|number| control(number, libc::F_SETFD, libc::FD_CLOEXEC).map(drop))?;
    *taken = true;
    Ok(sockets)
}

/// Duplicates the sockets that are there under some numbers, if each was inherited and can be
/// served.
fn duplicates(
    named: impl Iterator<Item = (String, RawFd)>,
) -> Result<Vec<(String, BoundSocket, Address)>, ActivationError> {
    let looked_at = named.map(|(name, number)| Ok((examine(&name, number)?, name)));
    let looked_at = looked_at.collect::<Result<Vec<_>, ActivationError>>()?;
    looked_at.into_iter().map(|(socket, name)| duplicate(name, socket)).collect()
}

/// Looks at what is there under a number, and changes nothing.
fn examine(name: &str, number: RawFd) -> Result<BorrowedFd<'static>, ActivationError> {
    if control(number, libc::F_GETFD, 0)? & libc::FD_CLOEXEC != 0 {
        return Err(ActivationError::NotInherited { descriptor: number });
    }
    // SAFETY: it is open, as `control` has found. Should its owner, if it has one, close it
    // meanwhile, then the calls that are given its number fail, or see another one; what they
    // duplicate is looked at again.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    match BoundSocket::examine(borrowed) {
        Ok(_) => Ok(borrowed),
        Err(source) => Err(unusable(name, source)),
    }
}

fn duplicate(
    name: String,
    socket: BorrowedFd<'_>,
) -> Result<(String, BoundSocket, Address), ActivationError> {
    let no_socket = |source| InheritError::NoSocket { descriptor: socket.as_raw_fd(), source };
    let duplicate = socket.try_clone_to_owned().map_err(no_socket);
    match duplicate.and_then(BoundSocket::inherit) {
        Ok((socket, address)) => Ok((name, socket, address)),
        Err(source) => Err(unusable(&name, source)),
    }
}

fn unusable(name: &str, source: InheritError) -> ActivationError {
    ActivationError::Socket { name: name.to_owned(), source: Box::new(source) }
}

/// Reads or sets the flags of a descriptor. It fails for one that is not open.
fn control(
    descriptor: RawFd,
    command: libc::c_int,
    flags: libc::c_int,
) -> Result<libc::c_int, ActivationError> {
    // SAFETY: the call takes numbers alone, and neither closes nor makes a descriptor.
    let answer = unsafe { libc::fcntl(descriptor, command, flags) };
    if answer == -1 {
        let source = io::Error::last_os_error();
        return Err(ActivationError::Closed { descriptor, source });
    }
    Ok(answer)
}

/// The most sockets that a manager passes on; systemd's own limit is below it.
const MOST: usize = 1 << 16;

/// The names of the sockets that the environment speaks of to the process with this id.
fn activated(
    process: u32,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<String>, ActivationError> {
    let read = |name| variable(name).map(|value| value.to_string_lossy().into_owned());
    let bad = |variable, value, reason| ActivationError::Variable { variable, value, reason };
    let (Some(pid), Some(count)) = (read("LISTEN_PID"), read("LISTEN_FDS")) else {
        return Ok(Vec::new());
    };
    match pid.parse::<u32>() {
        Ok(pid) if pid == process => {}
        Ok(_) => return Ok(Vec::new()),
        Err(_) => return Err(bad("LISTEN_PID", pid, "it is no process id")),
    }
    let sockets = match count.parse::<usize>() {
        Ok(sockets) if sockets <= MOST => sockets,
        _ => return Err(bad("LISTEN_FDS", count, "it is no number from 0 to 65536")),
    };
    let Some(names) = read("LISTEN_FDNAMES") else {
        return Ok(vec![UNNAMED.to_owned(); sockets]);
    };
    if sockets > 0 && names.split(':').count() != sockets {
        return Err(bad("LISTEN_FDNAMES", names, "it has not as many names as LISTEN_FDS says"));
    }
    Ok(names.split(':').take(sockets).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::{AsFd, OwnedFd};

    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::address::Transport;

    fn read(pid: &str, sockets: &str, names: Option<&str>) -> Result<Vec<String>, String> {
        let variable = |name: &str| match name {
            "LISTEN_PID" => Some(pid.into()),
            "LISTEN_FDS" => Some(sockets.into()),
            _ => names.map(Into::into),
        };
        activated(7, variable).map_err(|error| error.to_string())
    }

    #[test]
    fn the_environment_is_read_as_sd_listen_fds_does() {
        let names = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(activated(7, |_| None).unwrap(), [""; 0]);
        assert_eq!(read("7", "2", Some("http:admin")), names(&["http", "admin"]));
        assert_eq!(read("7", "2", None), names(&["unknown", "unknown"]));
        assert_eq!(read("7", "0", Some("")), names(&[]));
        assert_eq!(read("8", "2", Some("of another process")), names(&[]));
    }

    #[test]
    fn an_environment_that_makes_no_sense_is_told() {
        let error = |pid, sockets, names| read(pid, sockets, names).unwrap_err();
        let begin = "the environment variable ";
        assert_eq!(
            error("x", "1", None),
            format!("{begin}LISTEN_PID is \"x\": it is no process id")
        );
        for sockets in ["-1", "", "65537", "99999999999999999999"] {
            let expected =
                format!("{begin}LISTEN_FDS is {sockets:?}: it is no number from 0 to 65536");
            assert_eq!(error("7", sockets, None), expected);
        }
        let expected = format!(
            "{begin}LISTEN_FDNAMES is \"one\": it has not as many names as LISTEN_FDS says"
        );
        assert_eq!(error("7", "2", Some("one")), expected);
    }

    fn take<const N: usize>(
        numbers: [RawFd; N],
    ) -> Result<Vec<(String, BoundSocket, Address)>, ActivationError> {
        duplicates(numbers.into_iter().map(|number| ("name".into(), number)))
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_told() {
        let error = take([1 << 20]).unwrap_err();
        assert!(matches!(error, ActivationError::Closed { descriptor: 1_048_576, .. }), "{error}");
    }

    fn outlives_exec(descriptor: &impl AsRawFd, yes: bool) -> RawFd {
        let flags = if yes { 0 } else { libc::FD_CLOEXEC };
        control(descriptor.as_raw_fd(), libc::F_SETFD, flags).unwrap();
        descriptor.as_raw_fd()
    }

    /// The owner of what the environment names has it as before.
    #[test]
    fn what_somebody_owns_stays_theirs() {
        let error = |number| take([number]).unwrap_err();
        let mut file = File::open("/dev/zero").unwrap();
        let number = outlives_exec(&file, true);
        assert!(matches!(error(number), ActivationError::Socket { .. }));
        assert_eq!(control(number, libc::F_GETFD, 0).unwrap(), 0, "not even its flags change");
        file.read_exact(&mut [0; 4]).unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let number = outlives_exec(&listener, false);
        assert!(matches!(error(number), ActivationError::NotInherited { .. }));
        outlives_exec(&listener, true);
        assert!(take([number, file.as_raw_fd()]).is_err());
        let flags = control(number, libc::F_GETFL, 0).unwrap();
        assert_eq!(flags & libc::O_NONBLOCK, 0, "it changes though another one can't be taken");
        let (_, duplicate, found) = take([number]).unwrap().remove(0);
        assert_eq!(found, Address::Ip(address));
        assert_ne!(duplicate.as_fd().as_raw_fd(), number);
        drop(duplicate);
        let client = TcpStream::connect(address).unwrap();
        listener.set_nonblocking(false).unwrap();
        assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
    }

    #[test]
    fn what_does_not_listen_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connection = TcpStream::connect(address).unwrap();
        let inherit = |descriptor: OwnedFd| BoundSocket::inherit(descriptor).unwrap_err();
        let file = File::open("/dev/null").unwrap();
        assert!(matches!(inherit(file.into()), InheritError::NoSocket { .. }));
        let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
        connected.connect(address).unwrap();
        assert!(matches!(inherit(connected.into()), InheritError::NotListening { .. }));
        let others = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        assert!(matches!(inherit(others.into()), InheritError::OtherKind { .. }));
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (inherited, _) = BoundSocket::inherit(datagrams.into()).unwrap();
        assert_eq!(inherited.transport(), Transport::Udp);
        if cfg!(target_os = "linux") {
            let error = inherit(connection.into());
            assert!(matches!(error, InheritError::NotListening { .. }), "{error}");
        }
        let (inherited, found) = BoundSocket::inherit(listener.into()).unwrap();
        assert_eq!((local_addr(&inherited).unwrap(), found), (address.into(), address.into()));
    }
}
