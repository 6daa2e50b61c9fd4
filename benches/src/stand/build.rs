//! Building the contestants.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use super::contestant::{Contestant, Known, Library, Program, Protocol};
use super::{keep, versions};

/// What is behind a proxy.
const BACKEND: &str = "epoll_echo";

/// Where sources are, and where programs come to be.
#[derive(Clone, Debug)]
pub struct Folders {
    /// The repository.
    pub root: PathBuf,
    /// cargo's target folder.
    pub target: PathBuf,
}

/// Why a contestant could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The program that builds could not be run.
    #[error("`{command}` could not be run: {source}")]
    Run {
        /// Its command.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// It failed, and has said why.
    #[error("`{command}` failed with {status}")]
    Failed {
        /// Its command.
        command: String,
        /// What it ended with.
        status: ExitStatus,
    },
    /// It succeeded, but the program is not there.
    #[error("{0} was built, but its program is missing")]
    Missing(&'static str),
}

impl Folders {
    /// Those of the running benchmark, which cargo put into `TARGET/release/deps`.
    ///
    /// # Errors
    ///
    /// If this program cannot tell where it is.
    pub fn of_this_program() -> io::Result<Self> {
        let program = std::env::current_exe()?;
        let benches = Path::new(env!("CARGO_MANIFEST_DIR"));
        let up = |path: &Path, levels| path.ancestors().nth(levels).map(Path::to_owned);
        match (up(benches, 1), up(&program, 3)) {
            (Some(root), Some(target)) => Ok(Self { root, target }),
            _ => Err(io::Error::other("this program is not in a target folder of cargo's")),
        }
    }

    /// Where `program` is when it is built.
    fn path(&self, program: Program) -> PathBuf {
        match program {
            Program::Binary(name) => self.target.join("release").join(name),
            Program::Example(name) => self.target.join("release/examples").join(name),
            Program::Peer(name) => self.peers().join("release").join(name),
            Program::C(name) => self.c().join(name),
            Program::Proxy(name) => self.root.join("benches/peers/proxies").join(name),
        }
    }

    fn protocol(&self, known: &Known) -> Protocol<PathBuf> {
        match known.protocol {
            Protocol::Echo => Protocol::Echo,
            Protocol::Tls => Protocol::Tls,
            Protocol::Rpc => Protocol::Rpc,
            Protocol::Http => Protocol::Http,
            Protocol::Own(load) => Protocol::Own(self.path(Program::Peer(load))),
        }
    }

    fn peers(&self) -> PathBuf {
        self.target.join("peers")
    }

    fn c(&self) -> PathBuf {
        self.peers().join("c")
    }

    /// The engine's version and commit, and whether files differ from that.
    #[must_use]
    pub fn millstream_version(&self) -> String {
        format!("{} (commit {})", env!("CARGO_PKG_VERSION"), keep::commit(&self.root))
    }

    fn version(&self, known: &Known) -> String {
        let (folder, dependent) = match known.is_foreign() {
            true => ("benches/peers", "millstream-peers"),
            false => ("", "millstream-benches"),
        };
        let lock = self.root.join(folder).join("Cargo.lock");
        let locked =
            |package| versions::locked(&std::fs::read_to_string(lock).ok()?, dependent, package);
        let (name, version) = match known.library {
            Library::Package(package) => (package, locked(package)),
            Library::PkgConfig(module) => (module, versions::of_module(module)),
            Library::Installed => {
                let version = versions::of_program(&self.path(known.program));
                (known.name, version)
            }
            Library::Millstream => ("millstream", Some(self.millstream_version())),
        };
        format!("{name} {}", version.as_deref().unwrap_or("of unknown version"))
    }
}

/// Builds `chosen`, each of which is to have that many event loops. The builders' own output goes
/// to stderr. Returns what can be run, and those that cannot for want of a library or a program of
/// the system's.
///
/// # Errors
///
/// If a builder fails.
pub fn build(
    chosen: &[Known],
    folders: &Folders,
    threads: usize,
) -> Result<(Vec<Contestant>, Vec<Known>), BuildError> {
    for command in &mut commands(chosen, folders) {
        run(command)?;
    }
    let (mut built, mut missing) = (Vec::new(), Vec::new());
    for known in chosen {
        let path = folders.path(known.program);
        match (path.exists(), known.program) {
            (_, Program::Proxy(_)) if versions::of_program(&path).is_none() => {
                missing.push(known.clone());
            }
            (true, _) => built.push(known.contestant(
                &path,
                threads,
                folders.version(known),
                folders.protocol(known),
                &folders.path(Program::Binary(BACKEND)),
            )),
            (false, Program::C(_)) => missing.push(known.clone()),
            (false, _) => return Err(BuildError::Missing(known.name)),
        }
    }
    Ok((built, missing))
}

/// The commands that build `chosen`.
fn commands(chosen: &[Known], folders: &Folders) -> Vec<Command> {
    let own = chosen.iter().filter_map(|known| match known.program {
        Program::Binary(name) => Some(["--bin", name]),
        Program::Example(name) => Some(["--example", name]),
        Program::Proxy(_) => Some(["--bin", BACKEND]),
        _ => None,
    });
    let speaks = |protocol| chosen.iter().any(|known| known.protocol == protocol);
    let features = speaks(Protocol::Tls)
        .then_some(["--features", "millstream-benches/tls,millstream-load/tls"]);
    let own: Vec<[&str; 2]> = own.chain(features).collect();
    let peers: Vec<[&str; 2]> = chosen
        .iter()
        .flat_map(|known| {
            let server = match known.program {
                Program::Peer(name) => Some(name),
                _ => None,
            };
            let load = match known.protocol {
                Protocol::Own(name) => Some(name),
                _ => None,
            };
            server.into_iter().chain(load).map(|name| ["--bin", name])
        })
        .collect();
    let mut commands = Vec::new();
    if !own.is_empty() {
        commands.push(cargo(&folders.root, &folders.target, &own));
    }
    if !peers.is_empty() {
        let mut command = cargo(&folders.root.join("benches/peers"), &folders.peers(), &peers);
        if speaks(Protocol::Http) {
            command.args(["--features", "http"]);
        }
        commands.push(command);
    }
    if chosen.iter().any(|known| matches!(known.program, Program::C(_))) {
        let mut command = Command::new(folders.root.join("benches/peers/c/build"));
        command.arg(folders.c());
        commands.push(command);
    }
    commands
}

fn cargo(workspace: &Path, target: &Path, programs: &[[&str; 2]]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "--workspace", "--locked"]).current_dir(workspace);
    command.arg("--target-dir").arg(target).args(programs.iter().flatten());
    command
}

fn run(command: &mut Command) -> Result<(), BuildError> {
    let words: Vec<OsString> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(ToOwned::to_owned)
        .collect();
    let text = || words.join(" ".as_ref()).to_string_lossy().into_owned();
    let status = command.status().map_err(|source| BuildError::Run { command: text(), source })?;
    if status.success() { Ok(()) } else { Err(BuildError::Failed { command: text(), status }) }
}
