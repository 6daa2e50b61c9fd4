//! A reactor's requests and connections: what belongs where.
//!
//! All of it lives on the reactor's thread. A request waits for its host, is given to a connection,
//! and ends; what happens on connections is in `links`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use slab::Slab;

use super::failure::HttpError;
use super::job::{Job, JobPlace};
use super::shared::ClientShared;
use super::url::HttpOrigin;
use crate::codec::{FramedReactor, FramedRemote};
use crate::http::client::ResponseLimits;
use crate::{Connect, ConnectError, TimerId};

/// What all reactors of a client are told when it is made.
pub(super) struct ClientSettings {
    /// Connections to each host.
    pub(super) connections: usize,
    /// Connections that are kept without a request.
    pub(super) max_idle: usize,
    /// How long.
    pub(super) keep_alive: Duration,
    /// How long nothing may come while a request is under way.
    pub(super) idle_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) connect_with: Box<ConnectWith>,
    /// What encrypts.
    pub(super) tls: Option<Box<ConnectWith>>,
    pub(super) limits: ResponseLimits,
    pub(super) redirects: u32,
}

pub(super) type ConnectWith = dyn Fn(Connect) -> Connect + Send + Sync;

/// The requests and the connections of an [`HttpClient`](super::HttpClient) on one reactor: a
/// handler of frames, which [`HttpPools::pool`](super::HttpPools::pool) makes.
pub struct HttpPool {
    reactor: usize,
    pub(super) shared: Arc<ClientShared>,
    pub(super) settings: Arc<ClientSettings>,
    hosts: HashMap<HttpOrigin, Host>,
    links: Slab<HttpLink>,
    pub(super) jobs: HashMap<u64, Box<Job>>,
    /// When requests have to be complete.
    deadlines: BTreeSet<(Instant, u64)>,
    /// The reactor's timer, and when it comes.
    timer: Option<(Instant, TimerId)>,
    /// Connections without a request, in the order in which they came to be that.
    idle: BTreeMap<u64, usize>,
    last_idle: u64,
    /// The client stops: nothing new begins.
    pub(super) is_stopping: bool,
}

/// Whom requests are for.
#[derive(Default)]
struct Host {
    /// Requests that wait for a connection, the oldest first.
    waiting: BTreeSet<u64>,
    /// Connections without a request; the last one is taken first.
    idle: Vec<usize>,
    /// Connections that are open or being made.
    connections: usize,
    /// Those that are being made.
    connecting: usize,
}

/// An open connection.
struct HttpLink {
    origin: HttpOrigin,
    remote: FramedRemote<HttpPool>,
    /// The request that it was given.
    job: Option<u64>,
    /// Its place among those that are idle.
    idle: Option<u64>,
}

impl HttpPool {
    pub(super) fn new(shared: Arc<ClientShared>, settings: Arc<ClientSettings>) -> Self {
        HttpPool {
            reactor: 0, // It is told when it runs.
            shared,
            settings,
            hosts: HashMap::new(),
            links: Slab::new(),
            jobs: HashMap::new(),
            deadlines: BTreeSet::new(),
            timer: None,
            idle: BTreeMap::new(),
            last_idle: 0,
            is_stopping: false,
        }
    }

    /// The reactor runs.
    pub(super) fn boot(&mut self, reactor: &FramedReactor<'_, Self>) {
        self.reactor = reactor.index();
        self.shared.set_reactors(reactor.reactors().clone(), self.reactor);
    }

    /// A request has come.
    pub(super) fn begin(
        &mut self,
        reactor: &mut FramedReactor<'_, Self>,
        number: u64,
        job: Box<Job>,
    ) {
        if self.is_stopping {
            return job.fail(HttpError::Stopped);
        }
        self.deadlines.insert((job.deadline, number));
        self.wait(number, job);
        self.arm(reactor);
    }

    /// Nobody has an interest in a request any more.
    pub(super) fn cancel(&mut self, number: u64) {
        drop(self.take_back(number));
    }

    /// Ends the requests whose time has passed.
    pub(super) fn fire(&mut self, reactor: &mut FramedReactor<'_, Self>) {
        self.timer = None;
        while let Some(&(deadline, number)) = self.deadlines.first()
            && deadline <= reactor.now()
        {
            let Some(job) = self.take_back(number) else { break };
            let timeout = job.timeout;
            job.fail(HttpError::TimedOut { timeout });
        }
        self.arm(reactor);
    }

    /// Sets the reactor's timer for the first deadline, if it does not come before that.
    fn arm(&mut self, reactor: &mut FramedReactor<'_, Self>) {
        let Some(&(at, _)) = self.deadlines.first() else { return };
        let after = at.saturating_duration_since(reactor.now());
        match self.timer {
            Some((armed, _)) if armed <= at => {}
            Some((_, timer)) if reactor.reset_timer(timer, after) => self.timer = Some((at, timer)),
            _ => self.timer = Some((at, reactor.set_timer(after, 0))),
        }
    }

    /// The client stops: requests that have a connection may end, the others fail.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
        let waiting = self.jobs.iter().filter(|(_, job)| job.place == JobPlace::Waiting);
        let mut waiting: Vec<u64> = waiting.map(|(number, _)| *number).collect();
        waiting.sort_unstable();
        for job in waiting.into_iter().filter_map(|number| self.remove(number)) {
            job.fail(HttpError::Stopped);
        }
    }
}

/// Requests.
impl HttpPool {
    /// Lets a request wait for a connection to its host.
    pub(super) fn wait(&mut self, number: u64, mut job: Box<Job>) {
        if job.what.url.origin.is_https && self.settings.tls.is_none() {
            self.deadlines.remove(&(job.deadline, number));
            return job.fail(HttpError::NoTls);
        }
        job.place = JobPlace::Waiting;
        if let Some(promise) = &mut job.promise {
            promise.set_waits(true);
        }
        let origin = job.what.url.origin.clone();
        self.jobs.insert(number, job);
        self.hosts.entry(origin.clone()).or_default().waiting.insert(number);
        self.serve(&origin);
    }

    /// A request that was taken out goes on, and has the deadline that it had.
    pub(super) fn note_deadline(&mut self, number: u64, job: &Job) {
        self.deadlines.insert((job.deadline, number));
    }

    /// Takes a request out of where it is. `None` if it has ended. Its connection is not told.
    pub(super) fn remove(&mut self, number: u64) -> Option<Box<Job>> {
        let job = self.jobs.remove(&number)?;
        self.deadlines.remove(&(job.deadline, number));
        let origin = &job.what.url.origin;
        if job.place == JobPlace::Waiting
            && let Some(host) = self.hosts.get_mut(origin)
        {
            host.waiting.remove(&number);
            self.forget(&origin.clone());
        }
        Some(job)
    }

    /// The same, and closes a connection that has it.
    fn take_back(&mut self, number: u64) -> Option<Box<Job>> {
        let job = self.remove(number)?;
        if let JobPlace::Given { link, .. } = job.place
            && let Some(link) = self.links.get(link)
        {
            let _ = link.remote.close_now(); // It may be closed.
        }
        Some(job)
    }

    /// The next request of a host for a connection, which is new or was kept. One that is asked
    /// again has a new one, so that it does not meet another one that is dead.
    fn next_waiting(&self, origin: &HttpOrigin, is_kept: bool) -> Option<u64> {
        let mut waiting = self.hosts.get(origin)?.waiting.iter().copied();
        let is_again = |number: &u64| self.jobs.get(number).is_some_and(|job| job.is_retried);
        waiting.find(|number| !(is_kept && is_again(number)))
    }

    /// Gives the next request of a connection's host to it. `false`: there is none.
    pub(super) fn give_next(&mut self, link: usize, is_kept: bool) -> bool {
        let Some(given) = self.links.get(link) else { return false };
        let Some(number) = self.next_waiting(&given.origin, is_kept) else { return false };
        self.give(number, link);
        true
    }

    fn give(&mut self, number: u64, link: usize) {
        let Some(given) = self.links.get_mut(link) else { return };
        given.job = Some(number);
        if let Some(host) = self.hosts.get_mut(&given.origin) {
            host.waiting.remove(&number);
        }
        if let Some(job) = self.jobs.get_mut(&number) {
            job.place = JobPlace::Given { link, is_sent: false };
            if let Some(promise) = &mut job.promise {
                promise.set_waits(false);
            }
        }
    }

    /// The request that a connection was given, if it has not ended.
    pub(super) fn job_of(&mut self, link: usize) -> Option<(u64, &mut Job)> {
        let number = self.links.get(link)?.job?;
        Some((number, self.jobs.get_mut(&number)?))
    }
}

/// Connections.
impl HttpPool {
    /// Gives the requests that wait for a host to connections, and makes these where they are
    /// missing.
    fn serve(&mut self, origin: &HttpOrigin) {
        while let Some(number) = self.next_waiting(origin, true)
            && let Some(link) = self.hosts.get_mut(origin).and_then(|host| host.idle.pop())
        {
            self.leave_idle(link);
            let Some(remote) = self.links.get(link).map(|link| link.remote.clone()) else {
                continue;
            };
            if !remote.is_open() {
                continue; // It takes leave, and knows it.
            }
            self.give(number, link);
            // A connection that closes meanwhile gives it back.
            let _ = remote.run(|pool, conn| pool.write(conn));
        }
        while self.misses_connection(origin) && self.connect(origin) {}
    }

    fn misses_connection(&self, origin: &HttpOrigin) -> bool {
        let most = self.settings.connections;
        let misses = |host: &Host| host.connecting < host.waiting.len() && host.connections < most;
        !self.is_stopping && self.hosts.get(origin).is_some_and(misses)
    }

    /// Whether a kept connection takes the place of one that has to be new.
    pub(super) fn is_in_the_way(&self, link: usize) -> bool {
        let host = self.links.get(link).and_then(|link| self.hosts.get(&link.origin));
        let most = self.settings.connections;
        host.is_some_and(|host| host.connecting < host.waiting.len() && host.connections >= most)
    }

    /// Makes a connection. `false`: the reactor ends.
    fn connect(&mut self, origin: &HttpOrigin) -> bool {
        let Some(host) = self.hosts.get_mut(origin) else { return false };
        let Some(reactors) = self.shared.reactors() else { return false };
        // Each attempt has a request that fails with it.
        let Some(&number) = host.waiting.iter().nth(host.connecting) else { return false };
        let connect = Connect::to_host(&origin.host[..], origin.port);
        let connect = (self.settings.connect_with)(connect.timeout(self.settings.connect_timeout));
        let connect = match &self.settings.tls {
            Some(encrypt) if origin.is_https => encrypt(connect),
            _ => connect,
        };
        let to = origin.clone();
        let asked = reactors.connect(self.reactor, connect, move |pool, _, connected| {
            pool.connected(to, number, connected)
        });
        if asked.is_ok() {
            host.connecting += 1;
            host.connections += 1;
        }
        asked.is_ok()
    }

    /// Takes a connection in.
    pub(super) fn add_link(&mut self, origin: HttpOrigin, remote: FramedRemote<HttpPool>) -> usize {
        if let Some(host) = self.hosts.get_mut(&origin) {
            host.connecting -= 1;
        }
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        self.shared.connected.fetch_add(1, Ordering::Relaxed);
        self.links.insert(HttpLink { origin, remote, job: None, idle: None })
    }

    /// A connection could not be made, for this request among others.
    pub(super) fn not_connected(&mut self, origin: &HttpOrigin, number: u64, error: ConnectError) {
        if let Some(host) = self.hosts.get_mut(origin) {
            host.connecting -= 1;
            host.connections -= 1;
        }
        let waits = self.jobs.get(&number).is_some_and(|job| job.place == JobPlace::Waiting);
        if waits && let Some(job) = self.remove(number) {
            job.fail(match error {
                ConnectError::Stopped { .. } => HttpError::Stopped,
                error => HttpError::Connect(Arc::new(error)),
            });
        }
        self.serve(origin);
        self.forget(origin);
    }

    /// A connection's request has ended.
    pub(super) fn clear(&mut self, link: usize) {
        if let Some(link) = self.links.get_mut(link) {
            link.job = None;
        }
    }

    /// Keeps a connection that has no request; another one is closed if there are too many.
    pub(super) fn keep(&mut self, link: usize) {
        let Some(kept) = self.links.get_mut(link) else { return };
        self.last_idle += 1;
        kept.idle = Some(self.last_idle);
        if let Some(host) = self.hosts.get_mut(&kept.origin) {
            host.idle.push(link);
        }
        self.idle.insert(self.last_idle, link);
        if self.idle.len() > self.settings.max_idle
            && let Some((_, oldest)) = self.idle.pop_first()
        {
            self.close_idle(oldest);
        }
    }

    /// Closes the connections to a host that have no request: another one of them was dead.
    pub(super) fn close_idle_of(&mut self, origin: &HttpOrigin) {
        let idle = self.hosts.get(origin).map(|host| host.idle.clone()).unwrap_or_default();
        for link in idle {
            self.close_idle(link);
        }
    }

    fn close_idle(&mut self, link: usize) {
        self.leave_idle(link);
        if let Some(link) = self.links.get(link) {
            let _ = link.remote.close(); // It may be closed.
        }
    }

    /// A connection is none of those that are idle any more.
    fn leave_idle(&mut self, link: usize) {
        let Some(left) = self.links.get_mut(link) else { return };
        let Some(since) = left.idle.take() else { return };
        self.idle.remove(&since);
        if let Some(host) = self.hosts.get_mut(&left.origin) {
            host.idle.retain(|other| *other != link);
        }
    }

    /// A connection is of no use any more: returns whose it was, and the request that it had.
    pub(super) fn retire(&mut self, link: usize) -> Option<(HttpOrigin, Option<u64>)> {
        self.leave_idle(link);
        let HttpLink { origin, job, .. } = self.links.try_remove(link)?;
        if let Some(host) = self.hosts.get_mut(&origin) {
            host.connections -= 1;
        }
        Some((origin, job))
    }

    /// After a connection was retired: others may be made.
    pub(super) fn go_on(&mut self, origin: &HttpOrigin) {
        self.serve(origin);
        self.forget(origin);
    }

    /// Forgets a host that nothing is left of.
    fn forget(&mut self, origin: &HttpOrigin) {
        let is_over = |host: &Host| host.waiting.is_empty() && host.connections == 0;
        if self.hosts.get(origin).is_some_and(is_over) {
            self.hosts.remove(origin);
        }
    }
}

impl Drop for HttpPool {
    /// The reactor has ended: what is left fails.
    fn drop(&mut self) {
        self.shared.forget_thread();
    }
}
