//! Making the engine's sockets and threads.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

#[cfg(any(feature = "sim", feature = "internals"))]
use millstream_platform::address::{Address, Transport};
use millstream_platform::cpu;
use millstream_platform::driver::{self, Budget, Driver, OnDriver, SystemDriver};

use super::Builder;
use super::acceptor::Acceptor;
use super::listening::Worker;
#[cfg(any(feature = "sim", feature = "internals"))]
use crate::config::Rules;
use crate::config::balance::Balance;
use crate::config::{Config, Pinning, StartError};
use crate::handler::{EventHandler, Reactors};
use crate::reactor::{Channels, EventLoop};
#[cfg(any(feature = "sim", feature = "internals"))]
use crate::shared::OpenSocket;
use crate::shared::{
    AcceptQueue, Engine, MakeAcceptor, Memory, ReactorPort, Resolver, Serve, WaitError, Workers,
    spawn,
};
use crate::unwind::{Shielded, catch};

impl Builder {
    /// Starts the engine in the background. It runs until it is stopped.
    ///
    /// `factory` is called once on each reactor's thread, with the reactor's index, and makes the
    /// handler that stays there. When this returns, every `on_boot` has run, and connections are
    /// accepted.
    ///
    /// # Errors
    /// A value can't be used, an address can't be listened on, a thread can't be started, or a
    /// factory or an `on_boot` panicked. Then nothing is left running.
    pub fn start<H, F>(self, factory: F) -> Result<Engine, StartError>
    where
        H: EventHandler,
        F: Fn(usize) -> H + Send + Sync + 'static,
    {
        let choice = driver::forced()?.unwrap_or(self.config.driver);
        driver::run_on(choice, Start { builder: self.driver(choice), factory })
    }

    /// Starts the engine, and waits here until it has stopped.
    ///
    /// # Errors
    /// As for [`start`](Self::start), and as for [`Engine::wait`].
    pub fn run<H, F>(self, factory: F) -> Result<(), RunError>
    where
        H: EventHandler,
        F: Fn(usize) -> H + Send + Sync + 'static,
    {
        Ok(self.start(factory)?.wait()?)
    }
}

/// Why [`Builder::run`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The engine did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The engine did not end well.
    #[error(transparent)]
    Wait(#[from] WaitError),
}

type Report<D> = Result<Booted<D>, StartError>;

/// A reactor that is ready to run, and what starts it.
struct Booted<D: Driver> {
    reactor: usize,
    port: ReactorPort,
    queue: AcceptQueue<D>,
    worker: Worker<D>,
    go: Sender<()>,
}

/// A start on the driver that was chosen: everything from here on is made for that one.
struct Start<F> {
    builder: Builder,
    factory: F,
}

impl<H, F> OnDriver for Start<F>
where
    H: EventHandler,
    F: Fn(usize) -> H + Send + Sync + 'static,
{
    type Output = Result<Engine, StartError>;

    fn run<D: SystemDriver>(self) -> Self::Output {
        start_on::<D, H, F>(self.builder, self.factory)
    }
}

fn start_on<D, H, F>(builder: Builder, factory: F) -> Result<Engine, StartError>
where
    D: SystemDriver,
    H: EventHandler,
    F: Fn(usize) -> H + Send + Sync + 'static,
{
    let Builder { mut config, balance, resolve } = builder;
    let count = *config.reactors.get_or_insert_with(cpu::parallelism);
    config.check()?;
    config.memory_budget.get_or_insert_with(Memory::default_budget);
    let cores = cores_for(&config.pinning, count);
    let engine = Engine::new(&config, Resolver::new(resolve, true), D::NAME);
    // What is inherited must not be kept open by the configuration.
    let listens = std::mem::take(&mut config.listen);
    let config = Arc::new(config);
    let listeners = engine.known_listeners();
    listeners.set_up(&config, count, H::TAKES_DATAGRAMS);
    for listen in listens {
        listeners.add(&listen, &engine)?;
    }
    let started =
        spawn_reactors::<D, _, _>(&engine, &config, factory, &cores).and_then(|reactors| {
            Ok(listeners.set_workers(run_reactors(reactors, balance, &engine), &engine)?)
        });
    if let Err(error) = started {
        let _ = engine.stop(Duration::ZERO);
        engine.join();
        return Err(error);
    }
    tracing::info!(driver = D::NAME, addresses = ?engine.local_addrs(), reactors = count, "the engine runs");
    Ok(engine)
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

/// Makes the reactors' threads, and waits until each has booted. On failure none is left running:
/// each ends when it isn't told to go.
fn spawn_reactors<D, H, F>(
    engine: &Engine,
    config: &Arc<Config>,
    factory: F,
    cores: &[Option<usize>],
) -> Result<Vec<Booted<D>>, StartError>
where
    D: SystemDriver,
    H: EventHandler,
    F: Fn(usize) -> H + Send + Sync + 'static,
{
    let factory = Arc::new(Shielded::new(factory));
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
            run_reactor(reactor, reactors, &engine, &config, &**factory, &report);
        })
        .map_err(StartError::Thread)?;
    }
    drop(report);
    let mut booted: Vec<Booted<D>> = reports.iter().take(cores.len()).collect::<Result<_, _>>()?;
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
fn run_reactor<D: SystemDriver, H: EventHandler>(
    reactor: usize,
    reactors: Reactors<H>,
    engine: &Engine,
    config: &Arc<Config>,
    factory: &impl Fn(usize) -> H,
    report: &Sender<Report<D>>,
) {
    match boot(reactor, reactors, engine, config, factory) {
        Ok((event_loop, booted, start)) => {
            // The starter is waiting for every report, unless a spawn failed; then nobody says go.
            let _ = report.send(Ok(booted));
            if start.recv().is_ok() {
                event_loop.run();
            }
        }
        Err(error) => drop(report.send(Err(error))),
    }
}

type Ready<D, H> = (EventLoop<D, H>, Booted<D>, Receiver<()>);

fn boot<D: SystemDriver, H: EventHandler>(
    reactor: usize,
    reactors: Reactors<H>,
    engine: &Engine,
    config: &Arc<Config>,
    factory: &impl Fn(usize) -> H,
) -> Result<Ready<D, H>, StartError> {
    let driver = D::open(config.budget()).map_err(StartError::Driver)?;
    let handler = catch(|| factory(reactor))
        .map_err(|panic| StartError::panicked(reactor, "factory", panic))?;
    let channels = Channels::new(&driver);
    let (port, queue) = (channels.port(&driver), channels.accept_queue());
    let worker = Worker { inlet: Arc::clone(&channels.arrivals), watcher: driver.watcher() };
    let mut event_loop = EventLoop::new(
        reactor,
        driver,
        handler,
        channels,
        reactors,
        engine.clone(),
        Arc::clone(config),
    );
    if let Err(panic) = event_loop.boot() {
        event_loop.dismantle();
        return Err(StartError::panicked(reactor, "on_boot", panic));
    }
    let (go, start) = channel();
    Ok((event_loop, Booted { reactor, port, queue, worker, go }, start))
}

/// As [`start_in_this_thread`], with one reactor.
#[cfg(feature = "internals")]
pub(crate) fn start_one_in_this_thread<D: Driver, H: EventHandler>(
    builder: Builder,
    driver: D,
    listening: (Address, D::Listener),
    handler: H,
) -> Result<(Engine, EventLoop<D, H>), StartError> {
    let mut handler = Some(handler);
    let factory = |_| handler.take().expect("there is one reactor");
    let started = start_in_this_thread(builder, vec![driver], None, listening, factory)?;
    let (engine, mut event_loops, _) = started;
    Ok((engine, event_loops.remove(0)))
}

/// What the calling thread runs turn by turn.
#[cfg(any(feature = "sim", feature = "internals"))]
type InThisThread<D, H> = (Engine, Vec<EventLoop<D, H>>, Option<Acceptor<D>>);

/// Makes an engine with a reactor for each of these drivers, which the calling thread runs turn by
/// turn. The acceptor, if there is a driver for one, accepts on the listener; otherwise the first
/// reactor does. Hosts are looked up in this thread, too, so that nothing depends on how fast
/// threads are.
#[cfg(any(feature = "sim", feature = "internals"))]
pub(crate) fn start_in_this_thread<D: Driver, H: EventHandler>(
    builder: Builder,
    drivers: Vec<D>,
    acceptor: Option<D>,
    (address, listener): (Address, D::Listener),
    mut factory: impl FnMut(usize) -> H,
) -> Result<InThisThread<D, H>, StartError> {
    let Builder { config, balance, resolve } = builder;
    let config = Arc::new(config);
    let engine = Engine::new(&config, Resolver::new(resolve, false), D::NAME);
    let reactors = Reactors::new(drivers.len());
    engine.set_handle(reactors.clone());
    let channels: Vec<Channels<D, H>> = drivers.iter().map(Channels::new).collect();
    let ports = channels.iter().zip(&drivers).map(|(channels, driver)| channels.port(driver));
    engine.set_reactors(ports.collect());
    let queues = channels.iter().map(Channels::accept_queue).collect();
    let mut acceptor = acceptor.map(|driver| {
        engine.wake_on_stop(driver.waker());
        Acceptor::new(driver, Shielded::new(balance), queues, engine.clone())
    });
    let mut event_loops = Vec::new();
    for (reactor, (driver, channels)) in drivers.into_iter().zip(channels).enumerate() {
        let handler = catch(|| factory(reactor))
            .map_err(|panic| StartError::panicked(reactor, "factory", panic))?;
        let (reactors, config) = (reactors.clone(), Arc::clone(&config));
        let mut event_loop =
            EventLoop::new(reactor, driver, handler, channels, reactors, engine.clone(), config);
        event_loop.boot().map_err(|panic| StartError::panicked(reactor, "on_boot", panic))?;
        event_loops.push(event_loop);
    }
    let (name, file, rules) = (address.to_string(), std::sync::Weak::new(), Rules::default());
    let state = engine.known_listeners().note(name, address, Transport::Tcp, 1, file, rules);
    let open = OpenSocket(state, 0);
    match &mut acceptor {
        Some(acceptor) => acceptor.listen(listener, open),
        None => event_loops[0].listen(listener, open),
    }
    .map_err(StartError::Driver)?;
    Ok((engine, event_loops, acceptor))
}

/// Lets the reactors go, and makes them known to the engine.
fn run_reactors<D: SystemDriver>(
    reactors: Vec<Booted<D>>,
    balance: Box<dyn Balance>,
    engine: &Engine,
) -> Workers {
    let (mut ports, mut queues) = (Vec::new(), Vec::new());
    let mut workers: Vec<Arc<dyn Serve>> = Vec::new();
    for booted in reactors {
        // It fails only if the thread is gone, which the engine learns from the thread itself.
        let _ = booted.go.send(());
        ports.push(booted.port);
        queues.push(booted.queue);
        workers.push(Arc::new(booted.worker));
    }
    engine.set_reactors(ports);
    Workers { reactors: workers, acceptor: None, make_acceptor: acceptor_of(queues, balance) }
}

/// What makes the main acceptor of these reactors.
fn acceptor_of<D: SystemDriver>(
    reactors: Vec<AcceptQueue<D>>,
    balance: Box<dyn Balance>,
) -> MakeAcceptor {
    let mut balance = Some(Shielded::new(balance));
    Box::new(move |engine, config| {
        let worker = spawn_acceptor(engine, config, &mut balance, &reactors)?;
        Ok(Arc::new(worker))
    })
}

/// Starts the main acceptor, which takes the balancer; returns where it is given listeners.
fn spawn_acceptor<D: SystemDriver>(
    engine: &Engine,
    config: &Config,
    balance: &mut Option<Shielded<Box<dyn Balance>>>,
    reactors: &[AcceptQueue<D>],
) -> Result<Worker<D>, StartError> {
    let budget = Budget { receive_buffer: 0, ..config.budget() };
    let driver = D::open(budget).map_err(StartError::Driver)?;
    let (waker, watcher) = (driver.waker(), driver.watcher());
    let (go, start) = channel::<Acceptor<D>>();
    let run = move || start.recv().into_iter().for_each(Acceptor::run);
    spawn(engine, "millstream-acceptor".to_owned(), run).map_err(StartError::Thread)?;
    // Only now, so that another attempt can have it if there is no thread.
    let balance = balance.take().expect("there is one acceptor");
    let acceptor = Acceptor::new(driver, balance, reactors.to_vec(), engine.clone());
    let worker = Worker { inlet: acceptor.inlet(), watcher };
    // It fails only if the thread is gone, which the engine learns from itself.
    let _ = go.send(acceptor);
    engine.wake_on_stop(waker);
    Ok(worker)
}
