//! What a sandbox does: it refuses system calls, with an error of its choice.

use std::thread;

/// Errors that sandboxes refuse with (the first three), and others that mean something else.
pub(crate) const ERRORS: [i32; 13] = [
    libc::ENOSYS,
    libc::EPERM,
    libc::EACCES,
    libc::EINVAL,
    libc::EBADF,
    libc::EIO,
    libc::ENOMEM,
    libc::EMFILE,
    libc::EOPNOTSUPP,
    libc::EAGAIN,
    libc::EINTR,
    libc::EPIPE,
    libc::ECONNRESET,
];

/// Runs something on its own thread, which has a system call [refused](refuse) when it likes to.
pub(crate) fn without(call: libc::c_long, error: i32, run: impl FnOnce(&dyn Fn()) + Send) {
    thread::scope(|scope| {
        let refused = scope.spawn(|| run(&|| refuse(call, error)));
        assert!(refused.join().is_ok(), "without the system call {call} (error {error})");
    });
}

/// Refuses a system call to the calling thread, from here on.
fn refuse(call: libc::c_long, error: i32) {
    let step = |code: u32, jt, jf, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // The call's number is first.
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | error as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: it takes numbers.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program and its filter live until the call has copied them.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
