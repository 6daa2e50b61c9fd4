//! Which versions of things are measured.

use std::path::Path;
use std::process::Command;

/// The version of `package` in the text of a Cargo.lock that `dependent`, another package in it,
/// depends on.
pub(super) fn locked(lock: &str, dependent: &str, package: &str) -> Option<String> {
    let dependencies = sections(lock, dependent).next()?.lines().filter_map(dependency);
    let (_, chosen) = dependencies.map(name_and_version).find(|(name, _)| *name == package)?;
    // The version is next to the name only where there are several.
    let only = || sections(lock, package).next()?.lines().find_map(version);
    chosen.or_else(only).map(str::to_owned)
}

/// What a Cargo.lock says about the packages of that name.
fn sections<'a>(lock: &'a str, package: &str) -> impl Iterator<Item = &'a str> {
    let name = format!("name = \"{package}\"");
    lock.split("[[package]]").filter(move |text| text.lines().any(|line| line == name))
}

fn version(line: &str) -> Option<&str> {
    line.strip_prefix("version = \"")?.strip_suffix('"')
}

fn dependency(line: &str) -> Option<&str> {
    line.strip_prefix(" \"")?.strip_suffix("\",")
}

fn name_and_version(dependency: &str) -> (&str, Option<&str>) {
    let mut words = dependency.split(' ');
    (words.next().unwrap_or_default(), words.next())
}

/// The version of a library of the system's.
pub(super) fn of_module(module: &str) -> Option<String> {
    line_of(Command::new("pkg-config").args(["--modversion", module]))
}

/// What a program says is its version.
pub(super) fn of_program(path: &Path) -> Option<String> {
    line_of(Command::new(path).arg("--version"))
}

/// The Rust compiler's version.
pub(super) fn rustc() -> Option<String> {
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    line_of(Command::new(compiler).arg("--version"))
}

/// What the program wrote, if it succeeded.
fn line_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"
version = 4

[[package]]
name = "mio"
version = "0.8.1"

[[package]]
name = "mio"
version = "1.2.0"
dependencies = [
 "libc",
]

[[package]]
name = "mio-other"
version = "9.9.9"
dependencies = [
 "mio 1.2.0",
]

[[package]]
name = "server"
version = "0.1.0"
dependencies = [
 "mio 0.8.1",
 "mio-other",
]
"#;

    #[test]
    fn a_lock_file_tells_the_version() {
        assert_eq!(locked(LOCK, "server", "mio").as_deref(), Some("0.8.1"));
        assert_eq!(locked(LOCK, "mio-other", "mio").as_deref(), Some("1.2.0"));
        assert_eq!(locked(LOCK, "server", "mio-other").as_deref(), Some("9.9.9"));
        assert_eq!(locked(LOCK, "server", "libc"), None);
        assert_eq!(locked(LOCK, "serve", "mio"), None);
    }

    #[test]
    fn the_compiler_tells_its_version() {
        assert!(rustc().unwrap().starts_with("rustc "));
    }

    #[test]
    fn a_program_that_fails_tells_nothing() {
        assert_eq!(line_of(&mut Command::new("false")), None);
        assert_eq!(line_of(&mut Command::new("no-such-program-at-all")), None);
    }
}
