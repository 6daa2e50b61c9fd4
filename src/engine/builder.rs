//! The engine's configuration, step by step.

use std::sync::Arc;
use std::time::Duration;

use millstream_platform::driver::DriverChoice;
use millstream_platform::socket::SocketOptions;

use crate::config::balance::{Balance, RoundRobin};
use crate::config::{AcceptFilter, AcceptMode, Accepting, Config, InputOverflow, Listen, Pinning};
use crate::shared::{Engine, Resolve, system};

/// How an engine is to run; [`Engine::builder`] makes one. Every value has a default, and is
/// checked when the engine starts.
///
/// ```
/// use std::time::Duration;
/// use millstream::Engine;
/// # use millstream::{Action, Conn, EventHandler};
/// # struct Echo;
/// # impl EventHandler for Echo {
/// #     type State = ();
/// #     fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
/// #         conn.output.write(conn.input.take_all());
/// #         Action::Continue
/// #     }
/// # }
///
/// let engine = Engine::builder()
///     .listen("127.0.0.1:0")
///     .reactors(2)
///     .max_connections(10_000)
///     .idle_timeout(Duration::from_secs(60))
///     .write_timeout(Duration::from_secs(10))
///     .start(|_reactor| Echo)?;
/// # engine.stop(Duration::from_secs(5))?;
/// # engine.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias("config", "options", "settings"))]
#[must_use]
pub struct Builder {
    pub(crate) config: Config,
    pub(crate) balance: Box<dyn Balance>,
    pub(crate) resolve: Arc<dyn Resolve>,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            config: Config::default(),
            balance: Box::new(RoundRobin::default()),
            resolve: Arc::new(system),
        }
    }
}

impl Engine {
    /// Begins to configure an engine.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

/// Where it listens, and on how many threads.
impl Builder {
    /// Listens on an address, in addition to those named before. A running engine can listen on
    /// more: [`Engine::listen`].
    #[doc(alias = "bind")]
    pub fn listen(mut self, listen: impl Into<Listen>) -> Self {
        self.config.listen.push(listen.into());
        self
    }

    /// The number of reactors, each a thread with an event loop. By default as many as the process
    /// can run at the same time, by its affinity mask and its control group's quota.
    #[doc(alias("event loops", "threads", "workers"))]
    pub fn reactors(mut self, count: usize) -> Self {
        self.config.reactors = Some(count);
        self
    }

    /// Which driver the engine uses to talk to the operating system. By default
    /// [`DriverChoice::Automatic`].
    ///
    /// The environment variable `MILLSTREAM_DRIVER`, if it is set and not empty, is stronger: it is
    /// for operators, who know the machine and can't change the program. Its value is `automatic`
    /// or `readiness`; with another one the engine does not start
    /// ([`StartError::UnknownDriver`](crate::StartError::UnknownDriver)).
    /// [`Stats::driver`](crate::Stats::driver) tells which one is in force.
    /// A simulation has its own driver.
    #[doc(alias("epoll", "kqueue", "poller"))]
    pub fn driver(mut self, choice: DriverChoice) -> Self {
        self.config.driver = choice;
        self
    }

    /// Whether reactors are pinned to cores. By default they are if it can help.
    #[doc(alias = "affinity")]
    pub fn pinning(mut self, pinning: Pinning) -> Self {
        self.config.pinning = pinning;
        self
    }

    /// What accepts connections. By default the main acceptor, if there is more than one reactor.
    pub fn accept_mode(mut self, mode: AcceptMode) -> Self {
        self.config.accept_mode = mode;
        self
    }

    /// How the main acceptor chooses a reactor for a connection. By default
    /// [`RoundRobin`](crate::balance::RoundRobin).
    #[doc(alias = "load balancing")]
    pub fn balance(mut self, balance: impl Balance) -> Self {
        self.balance = Box::new(balance);
        self
    }

    /// How many connections may wait to be accepted, per listening socket. By default 1024; the
    /// operating system may allow fewer.
    #[doc(alias = "somaxconn")]
    pub fn backlog(mut self, connections: u32) -> Self {
        self.config.backlog = connections;
        self
    }

    /// How many connections there may be at the same time. One more is closed as soon as it is
    /// accepted, before anything is allocated for it, or not made in the first place
    /// ([`ConnectError::LimitReached`](crate::ConnectError::LimitReached)). By default there is no
    /// limit.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.config.max_connections = Some(connections);
        self
    }

    /// How many connections there may be at the same time from one IP address; those that the
    /// engine makes itself don't count. By default there is no limit. An IPv4 address that is
    /// mapped into IPv6 (`::ffff:192.0.2.1`, as on a listener for both) is the IPv4 address. With
    /// the PROXY protocol the proxy's address counts.
    ///
    /// Anyone who has an IPv6 address usually has a whole network of them: see
    /// [`ipv6_source_prefix`](Self::ipv6_source_prefix).
    pub fn max_connections_per_source(mut self, connections: usize) -> Self {
        self.config.max_connections_per_source = Some(connections);
        self
    }

    /// How many leading bits of an IPv6 address
    /// [`max_connections_per_source`](Self::max_connections_per_source) counts by, from 1 to 128.
    /// By default 128, so each address is its own source. On the open Internet 64 is right, since a
    /// provider gives each customer a network of at least that size. IPv4 addresses are not
    /// concerned.
    pub fn ipv6_source_prefix(mut self, bits: u8) -> Self {
        self.config.ipv6_source_prefix = bits;
        self
    }

    /// A closure that decides for each connection whether it may come in (`true`), for example by
    /// its address. It runs before the limits are checked and before anything is allocated for the
    /// connection, on the thread that accepts: the main acceptor's, or each reactor's, possibly
    /// several at the same time. It must not block. A connection that may not come in is closed,
    /// and counted ([`Stats::filtered`](crate::Stats::filtered)), as is one at which the closure
    /// panics. By default every connection may.
    ///
    /// ```
    /// # use millstream::Engine;
    /// let local_only = Engine::builder()
    ///     .accept_filter(|accepting| accepting.peer_addr().ip().is_some_and(|ip| ip.is_loopback()));
    /// ```
    #[doc(alias("allowlist", "blocklist", "rate limit"))]
    pub fn accept_filter(
        mut self,
        lets_in: impl Fn(&Accepting) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.config.accept_filter = AcceptFilter::new(lets_in);
        self
    }
}

/// Connecting.
impl Builder {
    /// How host names are resolved, for [`Connect::to_host`](crate::Connect::to_host). By default
    /// by the operating system. An engine calls it on up to four threads, which start when they are
    /// first needed; up to 1024 more lookups wait for one of them.
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.resolve = Arc::new(resolver);
        self
    }
}

/// Options of sockets.
impl Builder {
    /// Options of all connections, where they fit: see [`SocketOptions`]. A listener
    /// ([`Listen::socket_options`]) and an outgoing connection
    /// ([`Connect::socket_options`](crate::Connect::socket_options)) may have others. By default
    /// [`nodelay`](SocketOptions::nodelay) is set, and stays so unless these say otherwise.
    #[doc(alias = "setsockopt")]
    pub fn socket_options(mut self, options: SocketOptions) -> Self {
        self.config.options = options.or(&self.config.options);
        self
    }
}

/// Deadlines. All have a resolution of a millisecond.
impl Builder {
    /// Closes a connection when neither side has sent anything for this long. By default never.
    ///
    /// Time in which the engine [holds](crate::Hold) the connection back, so that its peer can't be
    /// heard, does not count. A peer that takes no output, and so is held back, is ended only by
    /// the [`write_timeout`](Self::write_timeout), which is off by default: set both. The timeout
    /// passes while the handler [pauses](crate::Conn::pause_reading) reading, but once it has
    /// resumed, that time does not count either.
    /// [`Conn::set_idle_timeout`](crate::Conn::set_idle_timeout) sets another timeout for one
    /// connection.
    #[doc(alias("inactivity", "keep-alive"))]
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.config.terms.idle_timeout = timeout.into();
        self
    }

    /// Closes a connection when its peer has sent nothing for this long. By default never.
    ///
    /// Time in which reading is [paused](crate::Conn::pause_reading), or [held](crate::Hold) by the
    /// engine, does not count, and the timeout ends with the peer's side.
    /// [`Conn::set_read_timeout`](crate::Conn::set_read_timeout) sets another one for one
    /// connection.
    pub fn read_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.config.terms.read_timeout = timeout.into();
        self
    }

    /// Resets a connection when output has been waiting for this long and the operating system took
    /// none of it. By default never. [`Conn::set_write_timeout`](crate::Conn::set_write_timeout)
    /// sets another timeout for one connection.
    pub fn write_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.config.terms.write_timeout = timeout.into();
        self
    }

    /// How long a connection that is closing waits for its output to be flushed and for its peer to
    /// end its side. By default 5 seconds. While the engine stops, it waits only a quarter of a
    /// second for the end of a peer that sends nothing.
    #[doc(alias = "linger")]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.config.close_timeout = timeout;
        self
    }

    /// The deadline of a stop that a callback asks for by
    /// [`Action::Shutdown`](crate::Action::Shutdown). By default 10 seconds.
    #[doc(alias = "graceful shutdown")]
    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.config.stop_timeout = timeout;
        self
    }

    /// Calls [`EventHandler::on_tick`](crate::EventHandler::on_tick) this often on each reactor. By
    /// default never.
    #[doc(alias("interval", "periodic"))]
    pub fn tick(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.config.tick = interval.into();
        self
    }
}

/// How much memory a connection or a socket for datagrams may use.
impl Builder {
    /// When more than `high` bytes of output wait,
    /// [`EventHandler::on_high_water`](crate::EventHandler::on_high_water) is called, and when they
    /// have fallen to `low`, [`EventHandler::on_low_water`](crate::EventHandler::on_low_water). By
    /// default 32 KiB and 64 KiB.
    #[doc(alias("backpressure", "watermark"))]
    pub fn water_marks(mut self, low: usize, high: usize) -> Self {
        self.config.output.low_water = low;
        self.config.output.high_water = high;
        self
    }

    /// Whether a connection whose output is above the high-water mark stops reading until it has
    /// fallen to the low one. By default it does, so a peer that sends and doesn't read is slowed
    /// down. A single connection may
    /// [do otherwise](crate::Conn::set_pause_reading_at_high_water).
    pub fn pause_reading_at_high_water(mut self, pause: bool) -> Self {
        self.config.terms.pause_reading_at_high_water = pause;
        self
    }

    /// How many bytes of output may wait. A connection that writes more closes with
    /// [`CloseReason::OutputOverflow`](crate::CloseReason::OutputOverflow). By default 64 MiB.
    pub fn output_cap(mut self, bytes: usize) -> Self {
        self.config.output.cap = bytes;
        self
    }

    /// How many unread bytes a handler may leave, and what happens if it leaves this many. What it
    /// gets at once can be more, by one receive buffer. By default 16 MiB, and the connection
    /// closes.
    pub fn input_cap(mut self, bytes: usize, overflow: InputOverflow) -> Self {
        self.config.input_cap = bytes;
        self.config.input_overflow = overflow;
        self
    }

    /// How many bytes of memory the datagrams that wait to be sent on one socket may take, at least
    /// 128 KiB; any more are dropped with [`SendError::Full`](crate::SendError::Full). By default
    /// 256 KiB.
    pub fn datagram_queue(mut self, bytes: usize) -> Self {
        self.config.datagram_queue = bytes;
        self
    }

    /// How many bytes of memory unread input and unsent output of all connections and sockets for
    /// datagrams may hold together; `None` for any number. By default a quarter of the memory that
    /// the process may use, which is the machine's, or less by a control group's limit or the
    /// address space's; in a simulation any number.
    ///
    /// What counts is the memory behind it: rings and chunks as a whole, and
    /// [`Bytes`](bytes::Bytes) that wait to be sent, for each connection that they wait on. So does
    /// what has come of a record of TLS that is not whole; such a connection receives the rest.
    ///
    /// When 7/8 of it are in use, connections that hold some of it receive nothing more until they
    /// hold none, or until use is down to 3/4. Above it, connections are refused, and each reactor
    /// that holds at least its part resets connections with
    /// [`CloseReason::Shed`](crate::CloseReason::Shed) until 7/8 are in use: first those that hold
    /// the most, in powers of two, and of these the ones whose peer has taken nothing for the
    /// longest time. If use has not fallen to 3/4 within ten seconds, connections that hold some
    /// and made no progress are reset, in the same order, until it has.
    pub fn memory_budget(mut self, bytes: Option<usize>) -> Self {
        self.config.memory_budget = Some(bytes);
        self
    }

    /// Whether unread bytes are kept in rings that are mapped twice in a row, which never move
    /// them. By default they are, where mapping works; otherwise in plain memory, which moves them
    /// now and then.
    pub fn mirrored_rings(mut self, mirrored: bool) -> Self {
        self.config.mirrored_rings = mirrored;
        self
    }
}

/// How much a reactor does at a time.
impl Builder {
    /// The size in bytes of the buffer that each reactor receives into, at most 1 GiB. By default
    /// 64 KiB.
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.config.receive_buffer = bytes;
        self
    }

    /// After how many bytes in one turn of the loop a connection waits for the next one. By default
    /// 256 KiB.
    pub fn read_budget(mut self, bytes: usize) -> Self {
        self.config.read_budget = bytes;
        self
    }

    /// After how many bytes sent in one turn a connection waits for the next one. By default 1 MiB.
    pub fn write_budget(mut self, bytes: usize) -> Self {
        self.config.write_budget = bytes;
        self
    }

    /// After how many connections in one turn a listener waits for the next one. By default 64.
    pub fn accept_budget(mut self, connections: usize) -> Self {
        self.config.accept_budget = connections;
        self
    }

    /// How many requests of other threads a reactor serves in one turn. By default 1024.
    pub fn inbox_budget(mut self, requests: usize) -> Self {
        self.config.inbox_budget = requests;
        self
    }

    /// After how many flights of TLS handshakes in one turn a reactor puts the others off, until
    /// everything else has had its share of the next turn. By default 4; [`usize::MAX`] puts none
    /// off.
    ///
    /// A flight is what one side sends before it waits for the other; most handshakes have two of
    /// the peer's. One takes up to a quarter of a millisecond, as long as dozens of small messages
    /// do, and costs a peer next to nothing. So connections that are open wait for about a
    /// millisecond at most, however many others shake hands. With fewer flights in a turn there are
    /// more turns, each with a system call.
    ///
    /// Those that were put off go on in the order in which they came. Meanwhile a connection is
    /// [held](crate::Hold::Handshake), keeps what it has received, at most a
    /// [`receive_buffer`](Self::receive_buffer), within the
    /// [`memory_budget`](Self::memory_budget), and the time does not count for its handshake's
    /// deadline.
    /// [`ReactorStats::handshakes_put_off`](crate::ReactorStats::handshakes_put_off) counts them.
    /// What a client says first is the program's own doing: it counts, and is not put off.
    pub fn handshake_budget(mut self, flights: usize) -> Self {
        self.config.handshake_budget = flights;
        self
    }

    /// How long a reactor works on what has arrived before it does something else, and at most on
    /// each of the other stages of a turn: requests of other threads, what connections left for
    /// later, timers, sending, handshakes that were put off. By default 2 milliseconds; with less,
    /// quiet connections wait for a shorter time, and a busy reactor makes more system calls. A
    /// turn also ends after a fixed amount of work, 512 events or 4 MiB.
    pub fn turn_time(mut self, time: Duration) -> Self {
        self.config.turn_time = time;
        self
    }

    /// A callback that runs, or is blocked, for longer than this is reported by name, as an event,
    /// and counted in the statistics. Time in which others had the processor does not count, where
    /// the system tells (Linux). By default 5 milliseconds; `None` saves a look at the clock after
    /// each callback.
    #[doc(alias = "blocking")]
    pub fn stall_threshold(mut self, threshold: Option<Duration>) -> Self {
        self.config.stall_threshold = threshold;
        self
    }

    /// For this long a reactor that has nothing to do keeps looking whether something has happened,
    /// before it waits in the operating system. During that time it uses its core as if it were
    /// busy, and other threads need no system call to reach it. That saves the time in which a
    /// sleeping thread wakes up, if each reactor has its own core; if not, it takes time from other
    /// threads that need the core. [`Duration::MAX`] never waits. By default it is off.
    #[doc(alias = "spin")]
    pub fn busy_poll(mut self, time: Duration) -> Self {
        self.config.busy_poll = Some(time);
        self
    }
}
