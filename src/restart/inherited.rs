//! Sockets that listen already.

use std::fmt;

use millstream_platform::address::{Address, Transport};
use millstream_platform::socket::{ActivationError, BoundSocket, take_activated};

use crate::config::{Gate, Listen};

/// Listening sockets that this process was given: by a service manager
/// ([`from_environment`](Self::from_environment)), or by the process before it
/// ([`Handover::inherited`](super::Handover::inherited)).
///
/// Several sockets of one address are one listener. What is not taken from here is closed with it.
#[doc(alias = "socket activation")]
#[derive(Default)]
pub struct Inherited {
    groups: Vec<Group>,
    gate: Gate,
}

/// The sockets of one listener.
struct Group {
    name: String,
    transport: Transport,
    address: Address,
    sockets: Vec<BoundSocket>,
}

impl Inherited {
    /// What the service manager has opened for this process: sockets of systemd and of other
    /// managers with its protocol, sd_listen_fds(3). There is nothing if the environment
    /// (`LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`) does not speak of any, or speaks to another
    /// process. Their files stay where they are: the manager has the sockets, too.
    ///
    /// To be called once in a process, by any thread. What is taken are duplicates, since the
    /// environment is only text, and a descriptor that it speaks of may have an owner in this
    /// process: that is neither closed nor replaced, and nothing is done at all unless each
    /// descriptor came through the start of this program and is a socket that can be served. So the
    /// descriptors themselves stay open, also when the engine has closed its listener: then a
    /// client that connects waits until this process has ended, as it would for the manager. They
    /// don't block any more, and are closed when another program is executed. The variables stay:
    /// removing them is unsafe as soon as there are threads. They do not concern programs that this
    /// one starts, which have another process id.
    ///
    /// ```
    /// use millstream::restart::Inherited;
    ///
    /// let inherited = Inherited::from_environment()?;
    /// assert!(inherited.is_empty(), "no service manager has started this");
    /// # Ok::<(), millstream::restart::ActivationError>(())
    /// ```
    ///
    /// # Errors
    /// The environment makes no sense, a descriptor is not open, was opened in this process, or is
    /// not a socket that listens or takes datagrams, or they were taken before.
    pub fn from_environment() -> Result<Self, ActivationError> {
        let mut inherited = Inherited::waiting_for(Gate::opened());
        for (name, socket, address) in take_activated()? {
            inherited.add(name, address, socket);
        }
        Ok(inherited)
    }

    /// Nothing yet. What is added is accepted on as soon as the gate is open.
    pub(super) fn waiting_for(gate: Gate) -> Self {
        Inherited { groups: Vec::new(), gate }
    }

    /// Adds a socket to those of the same name and address.
    pub(super) fn add(&mut self, name: String, address: Address, socket: BoundSocket) {
        let transport = socket.transport();
        let same = |group: &&mut Group| {
            (&group.name, group.address, group.transport) == (&name, address, transport)
        };
        match self.groups.iter_mut().find(same) {
            Some(group) => group.sockets.push(socket),
            None => self.groups.push(Group { name, transport, address, sockets: vec![socket] }),
        }
    }

    /// Whether there is nothing (more).
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// What was inherited for this, taken from here, or else this itself. So a program names its
    /// addresses in one way, whether it is the first to listen there or not. It is found by what
    /// the process before this one called it, as `127.0.0.1:0`, or by its address. A backlog or a
    /// mode holds only for what is opened here.
    pub fn listen(&mut self, wanted: impl Into<Listen>) -> Listen {
        let wanted = wanted.into();
        let (name, address) = (wanted.to_string(), wanted.address());
        let find = |is_it: &dyn Fn(&Group) -> bool| {
            let carries = |group: &Group| group.transport == wanted.transport();
            self.groups.iter().position(|group| carries(group) && is_it(group))
        };
        let called = find(&|group| group.name == name);
        let found = called.or_else(|| find(&|group| group.address == address));
        match found {
            Some(index) => {
                let group = self.groups.remove(index);
                wanted.on_sockets_of(self.admit(Group { name, ..group }))
            }
            None => wanted,
        }
    }

    /// Takes those with this name: what the service manager calls them (`FileDescriptorName=`), or
    /// what the process before this one did.
    pub fn named(&mut self, name: &str) -> Vec<Listen> {
        let all = std::mem::take(&mut self.groups).into_iter();
        let (named, others): (Vec<_>, Vec<_>) = all.partition(|group| group.name == name);
        self.groups = others;
        named.into_iter().map(|group| self.admit(group)).collect()
    }

    /// Takes all that are left.
    pub fn rest(&mut self) -> Vec<Listen> {
        let all = std::mem::take(&mut self.groups).into_iter();
        all.map(|group| self.admit(group)).collect()
    }

    fn admit(&self, group: Group) -> Listen {
        let Group { name, transport, address, sockets } = group;
        Listen::on(transport, address, name, sockets, self.gate.clone())
    }
}

impl fmt::Debug for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.groups.iter().map(|group| (&group.name, group.address))).finish()
    }
}
