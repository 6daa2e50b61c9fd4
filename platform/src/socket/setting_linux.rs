//! The options that only Linux has.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::net::sockopt;
use socket2::SockRef;

use super::setting::Setting;

pub(super) fn apply(setting: &Setting, socket: &SockRef<'_>) -> io::Result<()> {
    match setting {
        Setting::CongestionControl(name) => Ok(sockopt::set_tcp_congestion(socket.as_fd(), name)?),
        Setting::UserTimeout(time) => socket.set_tcp_user_timeout(Some(*time)),
        Setting::UnsentLowWater(bytes) => socket.set_tcp_notsent_lowat(*bytes),
        Setting::QuickAck(on) => socket.set_tcp_quickack(*on),
        Setting::FastOpen(requests) => set_tcp(socket, libc::TCP_FASTOPEN, *requests),
        Setting::FastOpenConnect(on) => set_tcp(socket, libc::TCP_FASTOPEN_CONNECT, u32::from(*on)),
        Setting::DeferAccept(time) => {
            set_tcp(socket, libc::TCP_DEFER_ACCEPT, number(time.as_secs().into()))
        }
        Setting::BindDevice(name) => socket.bind_device(Some(name.as_bytes())),
        Setting::Mark(mark) => socket.set_mark(*mark),
        Setting::BusyPoll(time) => socket.set_busy_poll(number(time.as_micros())),
        Setting::PreferBusyPoll(on) => {
            let option = (libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL);
            set_number(socket.as_fd(), option, i32::from(*on))
        }
        common => unreachable!("{} is set on every system alike", common.name()),
    }
}

/// Values were checked, so nothing is cut off.
fn number(value: u128) -> u32 {
    value.try_into().unwrap_or(u32::MAX)
}

fn set_tcp(socket: &SockRef<'_>, option: libc::c_int, value: u32) -> io::Result<()> {
    let value = i32::try_from(value).unwrap_or(i32::MAX);
    set_number(socket.as_fd(), (libc::IPPROTO_TCP, option), value)
}

pub(super) fn fast_open_connect(socket: &SockRef<'_>) -> io::Result<bool> {
    Ok(get_number(socket.as_fd(), (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT))? != 0)
}

pub(super) fn prefer_busy_poll(socket: &SockRef<'_>) -> io::Result<bool> {
    Ok(get_number(socket.as_fd(), (libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL))? != 0)
}

/// Whether something lies between TCP and the reader of the socket. No name is four zeros.
pub(super) fn has_upper_protocol(socket: &SockRef<'_>) -> bool {
    get_number(socket.as_fd(), (libc::IPPROTO_TCP, libc::TCP_ULP)).is_ok_and(|name| name != 0)
}

/// A level, and an option of that level whose value is an `int`.
type NumberOption = (libc::c_int, libc::c_int);

const SIZE: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;

fn set_number(socket: BorrowedFd<'_>, option: NumberOption, value: libc::c_int) -> io::Result<()> {
    let (level, name) = option;
    // SAFETY: the descriptor is open while it is borrowed, and `value` is an `int` of this
    // function's, of the size that is named; the call reads it and keeps no pointer to it.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), SIZE)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn get_number(socket: BorrowedFd<'_>, option: NumberOption) -> io::Result<libc::c_int> {
    let ((level, name), mut value, mut size) = (option, 0, SIZE);
    let to = (&raw mut value).cast();
    // SAFETY: the descriptor is open while it is borrowed; `to` points to an `int` of this
    // function's and `size` says so, which is as much as the call writes there.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, to, &raw mut size) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::address::Transport;
    use crate::socket::{SocketOptions, SocketRole};

    #[test]
    fn a_listener_has_what_only_listeners_have() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = SockRef::from(&listener);
        let options = SocketOptions::new().fast_open(17).defer_accept(Duration::from_secs(3));
        options.apply(&socket, Transport::Tcp, SocketRole::Listener).unwrap();
        let read = |option| get_number(socket.as_fd(), (libc::IPPROTO_TCP, option)).unwrap();
        assert_eq!(read(libc::TCP_FASTOPEN), 17);
        // The system counts in retransmissions: 1, 3, 7 seconds, …
        assert!((3..=7).contains(&read(libc::TCP_DEFER_ACCEPT)));
    }

    #[test]
    fn a_refusal_names_the_option_and_says_why() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let options = SocketOptions::new().congestion_control("no such");
        let socket = SockRef::from(&listener);
        let refused = options.apply(&socket, Transport::Tcp, SocketRole::Listener).unwrap_err();
        let what = "the socket option congestion_control = \"no such\" was refused";
        let why = io::Error::from_raw_os_error(libc::ENOENT);
        assert_eq!(refused.to_string(), format!("{what}: {why}"));
        assert_eq!(io::Error::from(refused).kind(), io::ErrorKind::NotFound);
    }
}
