//! The hand-written echo loop on plain level-triggered epoll, to tell what mio costs from what the
//! kernel does: one thread, one `recv` and one `send` per event. SIGTERM ends it, by its default
//! action.
// What it listens on is this program's output.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[cfg(target_os = "linux")]
mod server;

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    server::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("only Linux has epoll");
    std::process::ExitCode::FAILURE
}
