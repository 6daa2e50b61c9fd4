//! Making the engine's sockets and threads.

use std::any::Any;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use millstream_platform::cpu;
use millstream_platform::driver::{Budget, Driver, Readiness};
use millstream_platform::socket::listen_tcp;

use super::acceptor::{Acceptor, Entrance};
use super::balance::Balance;
use super::config::{AcceptMode, Config, ConfigError, Pinning};
use super::{Builder, Engine, ReactorPort, Running};
use crate::handler::EventHandler;
use crate::reactor::{Doors, EventLoop, Reactors};

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A configured value can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address can't be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// A thread has no way to wait for events.
    #[error("the driver does not start")]
    Driver(#[source] io::Error),
    /// A thread can't be made.
    #[error("a thread does not start")]
    Thread(#[source] io::Error),
    /// The user's code panicked.
    #[error("the {callback} of reactor {reactor} panicked: {message}")]
    Panicked {
        /// The index of the reactor.
        reactor: usize,
        /// `factory` or `on_boot`.
        callback: &'static str,
        /// The panic's message, if it was text.
        message: String,
    },
}

impl StartError {
    pub(crate) fn panicked(
        reactor: usize,
        callback: &'static str,
        panic: &(dyn Any + Send),
    ) -> Self {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        StartError::Panicked { reactor, callback, message: text.unwrap_or_default() }
    }
}

/// The sockets of one thread.
type Sockets = Vec<TcpListener>;
type Report = Result<Booted, StartError>;

/// A reactor that is ready to run, and what starts it: the sockets to accept on.
struct Booted {
    reactor: usize,
    port: ReactorPort,
    entrance: Entrance<<Readiness as Driver>::Socket>,
    go: Sender<Sockets>,
}

pub(super) fn start<H, F>(builder: Builder, factory: F) -> Result<Engine, StartError>
where
    H: EventHandler,
    F: Fn(usize) -> H + Send + Sync + 'static,
{
    let Builder { mut config, balance } = builder;
    let count = *config.reactors.get_or_insert_with(cpu::parallelism);
    config.check()?;
    let (addresses, sockets) = bind(&config, count)?;
    let cores = cores_for(&config.pinning, count);
    let engine = Engine::new(&config, addresses);
    let config = Arc::new(config);
    let started = spawn_threads(&engine, &config, balance, sockets, factory, &cores);
    if let Err(error) = started {
        let _ = engine.stop(Duration::ZERO);
        engine.join();
        return Err(error);
    }
    tracing::info!(addresses = ?engine.local_addrs(), reactors = count, "the engine runs");
    Ok(engine)
}

/// Makes the reactors, and whoever accepts for them. `cores` has one entry for each reactor.
fn spawn_threads<H, F>(
    engine: &Engine,
    config: &Arc<Config>,
    balance: Box<dyn Balance>,
    mut sockets: Vec<Sockets>,
    factory: F,
    cores: &[Option<usize>],
) -> Result<(), StartError>
where
    H: EventHandler,
    F: Fn(usize) -> H + Send + Sync + 'static,
{
    let reactors = spawn_reactors(engine, config, factory, cores)?;
    // A single reactor accepts for itself: there is nothing to choose, and handing over to it would cost
    // more than accepting does.
    if config.accept_mode == AcceptMode::ReusePort || reactors.len() == 1 {
        run_reactors(reactors, sockets, engine);
        return Ok(());
    }
    let sockets = sockets.pop().unwrap_or_default();
    let none = std::iter::repeat_with(Sockets::new);
    let entrances = run_reactors(reactors, none, engine);
    spawn_acceptor(engine, config, balance, entrances, sockets)
}

/// Opens the listening sockets: one set for the acceptor, or one for each reactor. A port that the
/// system chose for the first set is the others', too.
fn bind(config: &Config, reactors: usize) -> Result<(Vec<SocketAddr>, Vec<Sockets>), StartError> {
    let reuse_port = config.accept_mode == AcceptMode::ReusePort;
    let sets = if reuse_port { reactors } else { 1 };
    let mut addresses = Vec::new();
    let mut sockets: Vec<Sockets> = std::iter::repeat_with(Vec::new).take(sets).collect();
    for address in &config.addresses {
        let Ok(mut address) = address.resolve() else { continue }; // Checked before.
        for set in &mut sockets {
            let failed = |source| StartError::Listen { address, source };
            let socket =
                listen_tcp(address, config.backlog, reuse_port, &config.options).map_err(failed)?;
            address = socket.local_addr().map_err(failed)?;
            set.push(socket);
        }
        addresses.push(address);
    }
    Ok((addresses, sockets))
}

/// The core of each reactor; `None` leaves it to the scheduler.
fn cores_for(pinning: &Pinning, reactors: usize) -> Vec<Option<usize>> {
    let cores = match pinning {
        Pinning::Off => Vec::new(),
        Pinning::Cores(cores) => cores.clone(),
        Pinning::Auto => {
            let cores = cpu::allowed_cores();
            // With fewer running at a time than there are cores, a quota is in force: being pinned
            // would only keep a reactor from the core that is free.
            // With fewer reactors than cores, several engines would all choose the first ones.
            let helps = reactors == cores.len() && cpu::parallelism() >= cores.len();
            if helps { cores } else { Vec::new() }
        }
    };
    (0..reactors).map(|reactor| cores.get(reactor).copied()).collect()
}

/// Starts a thread that [`Engine::wait`] waits for.
fn spawn(
    engine: &Engine,
    name: String,
    body: impl FnOnce() + Send + 'static,
) -> Result<(), StartError> {
    engine.threads().running.push(name.clone());
    let running = Running { engine: engine.clone(), name: name.clone() };
    let spawned = thread::Builder::new().name(name).spawn(move || {
        let running = running.enter();
        body();
        drop(running);
    });
    // On failure the closure was dropped, and with it `running`, which takes the name off the list.
    spawned.map(drop).map_err(StartError::Thread)
}

/// Makes the reactors' threads, and waits until each has booted. On failure none is left running:
/// each ends when it isn't told to go.
fn spawn_reactors<H, F>(
    engine: &Engine,
    config: &Arc<Config>,
    factory: F,
    cores: &[Option<usize>],
) -> Result<Vec<Booted>, StartError>
where
    H: EventHandler,
    F: Fn(usize) -> H + Send + Sync + 'static,
{
    let factory = Arc::new(factory);
    let reactors = Reactors::new(cores.len());
    engine.set_handle(reactors.clone());
    let (report, reports) = channel();
    for (reactor, &core) in cores.iter().enumerate() {
        let (engine, config) = (engine.clone(), Arc::clone(config));
        let (report, factory) = (report.clone(), Arc::clone(&factory));
        let reactors = reactors.clone();
        let name = format!("millstream-{reactor}");
        spawn(&engine.clone(), name, move || {
            pin(reactor, core);
            run_reactor(reactor, reactors, &engine, &config, &*factory, &report);
        })?;
    }
    drop(report);
    let mut booted: Vec<Booted> = reports.iter().take(cores.len()).collect::<Result<_, _>>()?;
    booted.sort_by_key(|booted| booted.reactor);
    Ok(booted)
}

fn pin(reactor: usize, core: Option<usize>) {
    let Some(core) = core else { return };
    if !cpu::pin_to(core) {
        tracing::warn!(reactor, core, "the reactor could not be pinned");
    }
}

/// The life of a reactor's thread.
fn run_reactor<H: EventHandler>(
    reactor: usize,
    reactors: Reactors<H>,
    engine: &Engine,
    config: &Arc<Config>,
    factory: &impl Fn(usize) -> H,
    report: &Sender<Report>,
) {
    match boot(reactor, reactors, engine, config, factory) {
        Ok((mut event_loop, booted, start)) => {
            // The starter is waiting for every report, unless a spawn failed; then nobody says go.
            let _ = report.send(Ok(booted));
            let Ok(sockets) = start.recv() else { return };
            match event_loop.listen(sockets) {
                Ok(()) => event_loop.run(),
                Err(error) => engine.fail(error),
            }
        }
        Err(error) => drop(report.send(Err(error))),
    }
}

type Ready<H> = (EventLoop<Readiness, H>, Booted, Receiver<Sockets>);

fn boot<H: EventHandler>(
    reactor: usize,
    reactors: Reactors<H>,
    engine: &Engine,
    config: &Arc<Config>,
    factory: &impl Fn(usize) -> H,
) -> Result<Ready<H>, StartError> {
    let driver = Readiness::new(config.budget()).map_err(StartError::Driver)?;
    let handler = catch_unwind(AssertUnwindSafe(|| factory(reactor)))
        .map_err(|panic| StartError::panicked(reactor, "factory", &*panic))?;
    let doors = Doors::new(&driver);
    let (port, entrance) = (doors.port(&driver), doors.entrance());
    let mut event_loop = EventLoop::new(
        reactor,
        driver,
        handler,
        doors,
        reactors,
        engine.clone(),
        Arc::clone(config),
    );
    event_loop.boot().map_err(|panic| StartError::panicked(reactor, "on_boot", &*panic))?;
    let (go, start) = channel();
    Ok((event_loop, Booted { reactor, port, entrance, go }, start))
}

/// Makes an engine of one reactor, which the calling thread runs turn by turn.
#[cfg(any(feature = "sim", feature = "internals"))]
pub(crate) fn start_in_this_thread<D: Driver, H: EventHandler>(
    config: Arc<Config>,
    driver: D,
    address: SocketAddr,
    listener: D::Listener,
    handler: H,
) -> Result<(Engine, EventLoop<D, H>), StartError> {
    let engine = Engine::new(&config, vec![address]);
    let doors = Doors::new(&driver);
    let reactors = Reactors::new(1);
    engine.set_handle(reactors.clone());
    engine.set_reactors(vec![doors.port(&driver)]);
    let mut event_loop =
        EventLoop::new(0, driver, handler, doors, reactors, engine.clone(), config);
    event_loop.boot().map_err(|panic| StartError::panicked(0, "on_boot", &*panic))?;
    event_loop.listen(vec![listener]).map_err(StartError::Driver)?;
    Ok((engine, event_loop))
}

/// Lets the reactors go, each with its sockets, and makes them known to the engine.
fn run_reactors(
    reactors: Vec<Booted>,
    sockets: impl IntoIterator<Item = Sockets>,
    engine: &Engine,
) -> Vec<Entrance<<Readiness as Driver>::Socket>> {
    let (mut ports, mut entrances) = (Vec::new(), Vec::new());
    for (booted, sockets) in reactors.into_iter().zip(sockets) {
        // It fails only if the thread is gone, which the engine learns from the thread itself.
        let _ = booted.go.send(sockets);
        ports.push(booted.port);
        entrances.push(booted.entrance);
    }
    engine.set_reactors(ports);
    entrances
}

fn spawn_acceptor(
    engine: &Engine,
    config: &Config,
    balance: Box<dyn Balance>,
    reactors: Vec<Entrance<<Readiness as Driver>::Socket>>,
    sockets: Sockets,
) -> Result<(), StartError> {
    if sockets.is_empty() {
        return Ok(());
    }
    let budget = Budget { receive_buffer: 0, ..config.budget() };
    let driver = Readiness::new(budget).map_err(StartError::Driver)?;
    let waker = driver.waker();
    let mut acceptor = Acceptor::new(driver, balance, reactors, engine.clone());
    acceptor.listen(sockets).map_err(StartError::Driver)?;
    spawn(engine, "millstream-acceptor".to_owned(), move || acceptor.run())?;
    engine.set_acceptor(waker);
    Ok(())
}
