//! Resolving host names, on separate threads because it blocks.

use crate::log::limited;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use crate::unwind::{Shielded, catch};

/// The most threads of an engine that resolve.
const MOST_THREADS: usize = 4;
/// How many lookups may wait for one of them.
const MOST_WAITING: usize = 1024;

/// Finds the addresses of hosts, for [`Connect::to_host`](crate::Connect::to_host). A function with
/// the same arguments is one, too.
///
/// By default it is the system's, `getaddrinfo`. [`Builder::resolver`](crate::Builder::resolver)
/// sets another.
///
/// ```
/// use std::io::{Error, ErrorKind};
/// use millstream::Engine;
///
/// let builder = Engine::builder().resolver(|host: &str, port: u16| match host {
///     "database" => Ok(vec![([10, 0, 0, 7], port).into(), ([10, 0, 0, 8], port).into()]),
///     _ => Err(Error::from(ErrorKind::NotFound)),
/// });
/// ```
#[doc(alias = "DNS")]
pub trait Resolve: Send + Sync + 'static {
    /// Returns the addresses of a host, each with the port to connect to, the preferred ones first.
    /// It is called on threads that do nothing else, several at a time, so it may block; a panic
    /// counts as an error.
    ///
    /// # Errors
    /// Why the name does not resolve, for
    /// [`ConnectError::Unresolved`](crate::ConnectError::Unresolved).
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

impl<F> Resolve for F
where
    F: Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
{
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self(host, port)
    }
}

/// The operating system's resolver, as the standard library asks it.
pub(crate) fn system(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.collect())
}

/// A name to be looked up, and who is told what it resolves to. It is dropped untold if nobody
/// wants to know any more.
struct Lookup {
    host: String,
    port: u16,
    /// As long as somebody wants to know.
    wanted: Weak<()>,
    done: Box<dyn FnOnce(io::Result<Vec<SocketAddr>>) + Send>,
}

/// Resolves for an engine: on up to four threads, which are made when they are first needed and end
/// after [`stop`](Self::stop).
pub(crate) struct Resolver {
    lookups: Arc<Lookups>,
    /// Whether it has threads, or resolves in that of the caller.
    threaded: bool,
}

struct Lookups {
    resolve: Shielded<Arc<dyn Resolve>>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Lookup>,
    threads: usize,
    idle: usize,
    stopped: bool,
}

impl Resolver {
    pub(crate) fn new(resolve: Arc<dyn Resolve>, threaded: bool) -> Self {
        let resolve = Shielded::new(resolve);
        let lookups = Lookups { resolve, queue: Mutex::default(), changed: Condvar::new() };
        Resolver { lookups: Arc::new(lookups), threaded }
    }

    /// Looks a host up. `done` gets the result, on another thread or, if that is
    /// known already, in this one; unless what is returned is dropped before, or the engine stops.
    pub(crate) fn look_up(
        &self,
        host: &str,
        port: u16,
        done: impl FnOnce(io::Result<Vec<SocketAddr>>) + Send + 'static,
    ) -> Arc<()> {
        let wanted = Arc::new(());
        let lookup = Lookup {
            host: host.to_owned(),
            port,
            wanted: Arc::downgrade(&wanted),
            done: Box::new(done),
        };
        if self.threaded {
            self.lookups.enqueue(lookup);
        } else {
            self.lookups.serve(lookup);
        }
        wanted
    }

    /// Forgets what waits and has the threads end, each when the lookup that it has begun is over.
    pub(crate) fn stop(&self) {
        let mut queue = self.lookups.queue();
        queue.stopped = true;
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        self.lookups.changed.notify_all();
        drop(waiting);
    }
}

impl Lookups {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(self: &Arc<Self>, lookup: Lookup) {
        let mut queue = self.queue();
        if queue.stopped {
            return;
        }
        match self.make_room(&mut queue) {
            Ok(()) => {
                queue.waiting.push_back(lookup);
                self.changed.notify_one();
            }
            Err(error) => {
                drop(queue);
                (lookup.done)(Err(error));
            }
        }
    }

    /// Sees to a place for one more lookup, and to a thread for it.
    fn make_room(self: &Arc<Self>, queue: &mut Queue) -> io::Result<()> {
        if queue.waiting.len() >= MOST_WAITING {
            queue.waiting.retain(|lookup| lookup.wanted.strong_count() > 0);
        }
        if queue.waiting.len() >= MOST_WAITING {
            return Err(io::Error::new(ErrorKind::ResourceBusy, "too many lookups wait"));
        }
        if queue.waiting.len() >= queue.idle && queue.threads < MOST_THREADS {
            self.add_thread(queue)?;
        }
        Ok(())
    }

    /// Starts one more thread. That it can't is an error only if there is none.
    fn add_thread(self: &Arc<Self>, queue: &mut Queue) -> io::Result<()> {
        let lookups = Arc::clone(self);
        let builder = thread::Builder::new().name("millstream-resolver".to_owned());
        // The last of the engine's threads may drop the resolver itself, which is the user's.
        match builder.spawn(move || drop(catch(move || lookups.run()))) {
            Ok(_) => queue.threads += 1,
            Err(error) if queue.threads == 0 => return Err(error),
            Err(error) => limited!(warn, %error, "one more resolver thread cannot be made"),
        }
        Ok(())
    }

    /// The life of a thread.
    fn run(&self) {
        while let Some(lookup) = self.next() {
            if catch(|| self.serve(lookup)).is_err() {
                limited!(error, "what came of a lookup could not be told");
            }
        }
    }

    /// Waits for a lookup; `None` when the engine has stopped.
    fn next(&self) -> Option<Lookup> {
        let mut queue = self.queue();
        loop {
            if queue.stopped {
                return None;
            }
            if let Some(lookup) = queue.waiting.pop_front() {
                return Some(lookup);
            }
            queue.idle += 1;
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    fn serve(&self, lookup: Lookup) {
        let Lookup { host, port, wanted, done } = lookup;
        if wanted.strong_count() > 0 {
            done(self.resolve(&host, port));
        }
    }

    /// Resolves a name; a panic of the resolver is an error.
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let resolved = catch(|| self.resolve.resolve(host, port));
        resolved.unwrap_or_else(|_| {
            limited!(error, host, port, "the resolver panicked");
            Err(io::Error::other("the resolver panicked"))
        })
    }
}
