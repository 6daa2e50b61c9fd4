//! A reactor's calls and connections: what belongs where.
//!
//! All of it lives on the reactor's thread. Calls come in by messages, wait for a connection, and
//! are given to one; what they come to is told by the connections' sessions. Code that changes
//! something that others wait for asks for [`Pool::pump`], which looks after everything that is to
//! be done.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastrand::Rng;
use slab::Slab;

use super::choice::{Choice, Chooser};
use super::job::{Job, Place};
use super::ledger::count;
use super::request::Response;
use super::retry::RetryPolicy;
use super::session::{Outcome, SessionLimits};
use super::shared::{Message, Shared};
use crate::codec::{FramedReactor, FramedReactors, FramedRemote};
use crate::rpc::{Code, FrameLimits, MetadataView, Status};
use crate::{Backoff, Connect, LogLimit, ReactorAction};

/// How many messages a reactor looks at before others have their turn.
const MESSAGES_PER_TURN: usize = 1024;

/// What all reactors of a client are told when it is made.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) addresses: Vec<(String, Connect)>,
    /// Connections to each address.
    pub(super) connections: usize,
    pub(super) choice: Choice,
    pub(super) reconnect: Backoff,
    pub(super) retry: RetryPolicy,
    pub(super) session: SessionLimits,
    pub(super) frame: FrameLimits,
    pub(super) frame_timeout: Option<Duration>,
    pub(super) seed: u64,
}

/// The calls and the connections of one reactor.
pub(super) struct Pool {
    reactor: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) settings: Settings,
    addresses: Vec<Address>,
    links: Slab<Link>,
    chooser: Chooser,
    rng: Rng,
    jobs: HashMap<u64, Box<Job>>,
    /// Calls that wait for a connection, the oldest first.
    waiting: BTreeSet<u64>,
    /// When calls that were not sent have their deadline or their next attempt.
    timers: BTreeSet<(Instant, u64)>,
    /// When the reactor's tick comes.
    tick_at: Option<Instant>,
    messages: VecDeque<Message>,
    /// Why the last connection could not be made.
    last_failure: Option<String>,
    /// The client stops: nothing new begins.
    pub(super) is_stopping: bool,
}

/// Where to connect to.
struct Address {
    backoff: Backoff,
    /// Until then nobody connects to it.
    down_until: Option<Instant>,
    /// The last attempt to connect to it failed.
    is_refused: bool,
    /// Connections that take calls, or are being made.
    connections: usize,
}

/// An open connection.
struct Link {
    address: usize,
    remote: FramedRemote<Pool>,
    /// Calls that the connection has not taken yet.
    queue: VecDeque<u64>,
    /// Those, and the calls that it was sent.
    calls: usize,
    /// It is going to look at its queue.
    is_called: bool,
    takes_calls: bool,
    /// Enough bytes wait to be sent that it takes no calls for now.
    is_full: bool,
    /// The server has answered a call.
    has_served: bool,
}

impl Pool {
    pub(super) fn new(reactor: usize, shared: Arc<Shared>, settings: Settings) -> Self {
        let mut rng = Rng::with_seed(settings.seed ^ reactor as u64);
        let address = |_: &_| Address {
            backoff: settings.reconnect.clone().seed(rng.u64(..)),
            down_until: None,
            is_refused: false,
            connections: 0,
        };
        Pool {
            addresses: settings.addresses.iter().map(address).collect(),
            chooser: Chooser::new(settings.choice, rng.fork()),
            reactor,
            shared,
            settings,
            links: Slab::new(),
            rng,
            jobs: HashMap::new(),
            waiting: BTreeSet::new(),
            timers: BTreeSet::new(),
            tick_at: None,
            messages: VecDeque::new(),
            last_failure: None,
            is_stopping: false,
        }
    }

    /// Looks after all that is to be done.
    pub(super) fn pump(&mut self, reactor: &mut FramedReactor<'_, Self>) -> ReactorAction {
        let now = reactor.now();
        self.take_messages(MESSAGES_PER_TURN);
        self.fire_timers(now);
        if !self.waiting.is_empty() {
            self.dispatch();
            self.connect(reactor.reactors(), now);
            self.fail_unreachable(now);
        }
        if self.is_stopping {
            self.fail_unsent();
        }
        self.set_tick(reactor);
        ReactorAction::Continue
    }

    /// The reactor's tick has come.
    pub(super) fn tick(&mut self, reactor: &mut FramedReactor<'_, Self>) -> ReactorAction {
        self.tick_at = None;
        self.pump(reactor)
    }

    /// The client stops: the calls that have a connection may end, the others fail.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
        self.shared.close_inbox(self.reactor);
        self.take_messages(usize::MAX);
        self.dispatch();
        self.fail_unsent();
    }

    /// Ends the calls that have no connection.
    fn fail_unsent(&mut self) {
        let is_left = |job: &Job| match job.place {
            Place::Waiting | Place::Delayed(_) | Place::Elsewhere(_) => true,
            Place::Queued { .. } | Place::Sent { .. } => false,
        };
        let left = self.jobs.iter().filter(|(_, job)| is_left(job));
        let mut left: Vec<u64> = left.map(|(number, _)| *number).collect();
        left.sort_unstable();
        for job in left.into_iter().filter_map(|number| self.remove(number)) {
            job.promise.complete(Err(Status::unavailable("the client stops")));
        }
    }

    /// Makes [`pump`](Self::pump) run soon.
    pub(super) fn request_pump(&self) {
        self.shared.request_pump(self.reactor);
    }

    /// Looks at up to this many messages; those that are left come with the next pump.
    fn take_messages(&mut self, most: usize) {
        self.shared.take_messages(self.reactor, &mut self.messages);
        for _ in 0..most {
            let Some(message) = self.messages.pop_front() else { return };
            match message {
                Message::Start { number, job } => self.keep(number, job),
                Message::Cancel { number } => self.cancel(number),
                Message::Answer { number, answer } => {
                    if let Some(job) = self.remove(number) {
                        job.promise.complete(answer);
                    }
                }
            }
        }
        self.request_pump();
    }

    /// Sets the reactor's tick for the next timer, if it does not come before that.
    fn set_tick(&mut self, reactor: &mut FramedReactor<'_, Self>) {
        let Some(&(at, _)) = self.timers.first() else {
            if self.tick_at.is_none() {
                reactor.set_tick(None);
            }
            return;
        };
        if self.tick_at.is_none_or(|tick_at| at < tick_at) {
            self.tick_at = Some(at);
            let least = Duration::from_millis(1);
            reactor.set_tick(Some(at.saturating_duration_since(reactor.now()).max(least)));
        }
    }
}

impl Link {
    /// Whether it takes one more call, of which it may have this many. Those that ended in its
    /// queue count until it looks there, so that the queue of a connection that is stuck does not
    /// grow.
    fn has_room(&self, most: usize) -> bool {
        self.takes_calls && !self.is_full && self.calls < most && self.queue.len() < most
    }
}

/// Calls.
impl Pool {
    /// Keeps a call where its place says.
    fn keep(&mut self, number: u64, job: Box<Job>) {
        if let Place::Waiting = job.place {
            self.waiting.insert(number);
        }
        if let Some(at) = job.timer() {
            self.timers.insert((at, number));
        }
        if let Some(link) = job.link().and_then(|link| self.links.get_mut(link)) {
            link.calls += 1;
        }
        self.jobs.insert(number, job);
    }

    /// Takes a call out of where it is. `None` if it has ended.
    pub(super) fn remove(&mut self, number: u64) -> Option<Box<Job>> {
        let job = self.jobs.remove(&number)?;
        if let Some(at) = job.timer() {
            self.timers.remove(&(at, number));
        }
        if let Some(link) = job.link().and_then(|link| self.links.get_mut(link)) {
            link.calls -= 1;
        }
        match &job.place {
            Place::Waiting => {
                self.waiting.remove(&number);
            }
            Place::Elsewhere(caller) => caller.leave(),
            _ => {}
        }
        Some(job)
    }

    /// Puts a call elsewhere.
    pub(super) fn put(&mut self, number: u64, mut job: Box<Job>, place: Place) {
        job.place = place;
        self.keep(number, job);
    }

    fn cancel(&mut self, number: u64) {
        let Some(job) = self.remove(number) else { return };
        if let Place::Sent { link, id } = job.place
            && let Some(link) = self.links.get(link)
        {
            // A connection that is closed has nothing to cancel.
            let _ = link.remote.run(move |pool, conn| pool.cancel_sent(conn, id));
        }
        job.promise.complete(Err(Status::cancelled("the caller gave up")));
    }

    /// Ends calls whose deadline has come before they were sent, and goes on with those whose delay
    /// is over.
    fn fire_timers(&mut self, now: Instant) {
        while let Some(&(at, number)) = self.timers.first()
            && at <= now
        {
            let Some(job) = self.remove(number) else { break };
            if let Place::Delayed(_) = job.place {
                self.put(number, job, Place::Waiting);
                continue;
            }
            let why = self.last_failure.as_deref().filter(|_| self.links.is_empty());
            let status = Status::deadline_exceeded(match why {
                Some(why) => format!("the call was not sent in time: {why}"),
                None => "the call was not sent in time".to_owned(),
            });
            job.promise.complete(Err(status));
        }
    }

    /// An attempt has ended on a connection.
    pub(super) fn ended(&mut self, now: Instant, number: u64, outcome: Outcome<'_>) {
        let Some(job) = self.remove(number) else { return };
        if let (Outcome::Response(_), Place::Sent { link, .. }) = (&outcome, &job.place) {
            self.note_service(*link);
        }
        match outcome {
            Outcome::Response(response) if response.code == Code::Ok => {
                let max_body = self.settings.frame.max_body;
                job.promise.complete(Response::read(&response, max_body));
            }
            Outcome::Response(response) => {
                let status = Status::new(response.code, response.message.to_owned());
                self.failed(now, number, job, status, response.metadata, !response.not_run);
            }
            Outcome::Failed { status, may_have_run } => {
                self.failed(now, number, job, status, MetadataView::default(), may_have_run);
            }
        }
    }

    /// Tries a call again, or ends it.
    fn failed(
        &mut self,
        now: Instant,
        number: u64,
        mut job: Box<Job>,
        status: Status,
        metadata: MetadataView<'_>,
        may_have_run: bool,
    ) {
        let Some(at) = self.next_attempt(now, &mut job, &status, may_have_run) else {
            return job.promise.fail(status, metadata);
        };
        tracing::debug!(method = %job.call.method, %status, "a call is tried again");
        count(&self.shared.ledger.counters.retried);
        job.may_have_run |= may_have_run;
        self.put(number, job, Place::Delayed(at));
        self.request_pump();
    }

    /// When a call is tried again, if it is.
    fn next_attempt(
        &mut self,
        now: Instant,
        job: &mut Job,
        status: &Status,
        may_have_run: bool,
    ) -> Option<Instant> {
        let retry = &self.settings.retry;
        if self.is_stopping
            || !retry.allows(job.attempts, job.call.idempotent, status, may_have_run)
        {
            return None;
        }
        let backoff = job.backoff.get_or_insert_with(|| Box::new(retry.backoff(self.rng.u64(..))));
        let at = now.checked_add(backoff.next_delay())?;
        (at < job.call.deadline).then_some(at)
    }
}

/// Connections.
impl Pool {
    /// Gives the calls that wait to connections, as long as one has room.
    fn dispatch(&mut self) {
        while let Some(&number) = self.waiting.first() {
            let most = self.settings.session.max_calls;
            let open = self.links.iter().filter(|(_, link)| link.has_room(most));
            let chosen = self.chooser.choose(open.map(|(place, link)| (place, link.calls)));
            let (Some(link), Some(job)) = (chosen, chosen.and_then(|_| self.remove(number))) else {
                return;
            };
            self.put(number, job, Place::Queued { link });
            let link = &mut self.links[link];
            link.queue.push_back(number);
            if !std::mem::replace(&mut link.is_called, true) {
                // If the connection is closed by now, its calls wait again when it is forgotten.
                let _ = link.remote.run(|pool, conn| pool.write_queue(conn));
            }
        }
    }

    /// Connects to all addresses that have too few connections, those that are down when they may
    /// be tried again.
    fn connect(&mut self, reactors: &FramedReactors<Self>, now: Instant) {
        if self.is_stopping {
            return;
        }
        for (index, address) in self.addresses.iter_mut().enumerate() {
            while address.connections < self.settings.connections {
                let wait = address.down_until.map(|until| until.saturating_duration_since(now));
                let (_, connect) = &self.settings.addresses[index];
                let connect = connect.clone().after(wait.unwrap_or_default());
                let asked = reactors.connect(self.reactor, connect, move |pool, _, connected| {
                    pool.connected(index, connected)
                });
                if asked.is_err() {
                    return; // The reactor ends.
                }
                address.connections += 1;
            }
        }
    }

    /// Ends the calls that wait although nobody can be reached: no connection takes calls, and each
    /// address failed and is left alone. Those that are to wait for that stay.
    fn fail_unreachable(&mut self, now: Instant) {
        let is_left_alone = |address: &Address| {
            address.is_refused && address.down_until.is_some_and(|until| until > now)
        };
        if self.links.iter().any(|(_, link)| link.takes_calls)
            || !self.addresses.iter().all(is_left_alone)
        {
            return;
        }
        let why = self.last_failure.clone().unwrap_or_default();
        let status = Status::unavailable(format!("no server can be reached: {why}"));
        let fails =
            |number: &u64| !self.jobs.get(number).is_some_and(|job| job.call.wait_for_ready);
        let failing: Vec<u64> = self.waiting.iter().copied().filter(fails).collect();
        for job in failing.into_iter().filter_map(|number| self.remove(number)) {
            job.promise.complete(Err(status.clone()));
        }
    }

    /// Takes a connection in.
    pub(super) fn add_link(&mut self, address: usize, remote: FramedRemote<Pool>) -> usize {
        self.addresses[address].is_refused = false;
        count(&self.shared.ledger.counters.connected);
        self.shared.ledger.counters.connections.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(address = self.name(address), "connected");
        self.request_pump();
        self.links.insert(Link {
            address,
            remote,
            queue: VecDeque::new(),
            calls: 0,
            is_called: false,
            takes_calls: true,
            is_full: false,
            has_served: false,
        })
    }

    /// A connection could not be made.
    pub(super) fn not_connected(&mut self, now: Instant, address: usize, error: String) {
        count(&self.shared.ledger.counters.connect_failures);
        static LIMIT: LogLimit = LogLimit::new();
        if let Some(left_out) = LIMIT.admit() {
            tracing::warn!(left_out, address = self.name(address), error, "not connected");
        }
        self.last_failure = Some(error);
        self.addresses[address].connections -= 1;
        self.addresses[address].is_refused = true;
        self.set_down(now, address);
        self.request_pump();
    }

    /// Gives a connection no more calls: the server takes none, or it is over. Those that it has
    /// not sent wait for another one.
    pub(super) fn retire(&mut self, now: Instant, link: usize, is_broken: bool) {
        let Some(retired) = self.links.get_mut(link) else { return };
        if !std::mem::replace(&mut retired.takes_calls, false) {
            return;
        }
        let (address, has_served) = (retired.address, retired.has_served);
        for number in take(&mut retired.queue) {
            if let Some(job) = self.remove(number) {
                self.put(number, job, Place::Waiting);
            }
        }
        self.addresses[address].connections -= 1;
        if is_broken {
            count(&self.shared.ledger.counters.lost);
        }
        if is_broken || !has_served {
            self.set_down(now, address);
        }
        self.request_pump();
    }

    /// Forgets a connection that is closed and was retired.
    pub(super) fn remove_link(&mut self, link: usize) {
        if self.links.try_remove(link).is_some() {
            self.shared.ledger.counters.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A connection looks at its queue: returns the call in front, which is still there when it
    /// looks again.
    pub(super) fn queued(&mut self, link: usize) -> Option<(u64, &mut Job)> {
        let link = self.links.get_mut(link)?;
        link.is_called = false;
        while let Some(number) = link.queue.front()
            && !self.jobs.contains_key(number)
        {
            link.queue.pop_front(); // It has ended.
        }
        let number = *link.queue.front()?;
        Some((number, self.jobs.get_mut(&number)?))
    }

    /// Whether a connection is to look at its queue again.
    pub(super) fn has_queued(&self, link: usize) -> bool {
        self.links.get(link).is_some_and(|link| !link.queue.is_empty())
    }

    /// Takes the call in front of a connection's queue.
    pub(super) fn take_queued(&mut self, link: usize) -> Option<Box<Job>> {
        let number = self.links.get_mut(link)?.queue.pop_front()?;
        self.remove(number)
    }

    /// A connection may have room for calls that wait.
    pub(super) fn offer_room(&mut self, link: usize, is_full: bool) {
        let Some(link) = self.links.get_mut(link) else { return };
        link.is_full = is_full;
        if !self.waiting.is_empty() && link.has_room(self.settings.session.max_calls) {
            self.request_pump();
        }
    }

    /// The name of a connection's address.
    pub(super) fn name_of(&self, link: usize) -> &str {
        self.links.get(link).map_or("", |link| self.name(link.address))
    }

    fn name(&self, address: usize) -> &str {
        &self.settings.addresses[address].0
    }

    /// Leaves an address alone for a while. If it is left alone already, its connections fail
    /// together, and that is one failure.
    fn set_down(&mut self, now: Instant, address: usize) {
        let address = &mut self.addresses[address];
        if address.down_until.is_some_and(|until| until > now) {
            return;
        }
        address.down_until = now.checked_add(address.backoff.next_delay());
    }

    /// A server that answers can be reached.
    fn note_service(&mut self, link: usize) {
        let Some(link) = self.links.get_mut(link) else { return };
        if !std::mem::replace(&mut link.has_served, true) {
            let address = &mut self.addresses[link.address];
            address.backoff.reset();
            address.down_until = None;
        }
    }
}

impl Drop for Pool {
    /// The reactor has ended: what is left fails.
    fn drop(&mut self) {
        self.shared.close_inbox(self.reactor);
        while self.shared.take_messages(self.reactor, &mut self.messages) {
            self.messages.clear();
        }
        self.shared.ledger.counters.connections.fetch_sub(self.links.len(), Ordering::Relaxed);
    }
}
