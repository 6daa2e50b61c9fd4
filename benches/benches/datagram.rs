//! What a datagram costs a server that sends it back: the engine compared with a loop over recvmmsg
//! and sendmmsg that is written by hand, in rounds that take turns. What is measured is the
//! processor time of the server's thread.
//!
//!     cargo bench -p millstream-benches --bench datagram -- --rounds 5 --seconds 1

#![allow(clippy::print_stdout, reason = "a program's output")]

use std::array;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::Parser;
use comfy_table::Table;
use millstream::{Action, Conn, Datagram, DatagramSocket, Engine, EventHandler};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};

/// How long a client waits for an answer before it takes the datagram for lost.
const PATIENCE: Duration = Duration::from_millis(200);
/// How often a server looks whether it should end.
const LOOK: Duration = Duration::from_millis(50);
const BUFFER: usize = 64 * 1024;
/// The names of the servers' threads, by which their processor time is found.
const ENGINE: &str = "millstream-0";
const BY_HAND: &str = "by-hand";

/// Clients, bytes of a datagram, and how many are in flight for each client: together no more than
/// a socket's receive buffer of the usual size has room for, so that none is lost.
const CASES: [(usize, usize, usize); 7] =
    [(1, 64, 1), (8, 64, 1), (8, 64, 16), (50, 64, 4), (8, 1024, 1), (8, 1024, 8), (50, 1024, 1)];

#[derive(Parser)]
struct DatagramOptions {
    /// Rounds of each case; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of a round.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What clients do.
#[derive(Clone, Copy)]
struct Case {
    clients: usize,
    size: usize,
    in_flight: usize,
}

fn main() -> io::Result<()> {
    let options = DatagramOptions::parse();
    let time = Duration::from_secs_f64(options.seconds);
    let (by_hand, engine) = (ByHand::start()?, start_engine());
    let addresses = [by_hand.address, engine.local_addrs()[0].socket_addr().expect("it is UDP")];
    let mut table = Table::new();
    table.set_header(["clients × size × in flight", "by hand", "millstream", "ratio"]);
    for (clients, size, in_flight) in CASES {
        let case = Case { clients, size, in_flight };
        let mut costs = [Vec::new(), Vec::new()];
        for _ in 0..options.rounds.max(1) {
            for ((costs, address), thread) in costs.iter_mut().zip(addresses).zip([BY_HAND, ENGINE])
            {
                costs.push(case.run(address, thread, time)?);
            }
        }
        let mut ratios: Vec<f64> = costs[1].iter().zip(&costs[0]).map(|(e, h)| e / h).collect();
        let [by_hand, engine] = costs.each_mut().map(|costs| format!("{:.0} ns", median(costs)));
        let ratio = format!("{:.3}", median(&mut ratios));
        table.add_row([format!("{clients} × {size} × {in_flight}"), by_hand, engine, ratio]);
    }
    println!("{table}");
    engine.stop(Duration::from_secs(1)).expect("nobody else stops it");
    engine.wait().expect("it ends");
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Case {
    /// Makes the clients send and receive for a time; returns the nanoseconds of the server's
    /// thread for each datagram that came back.
    fn run(self, to: SocketAddr, thread: &str, time: Duration) -> io::Result<f64> {
        let clients: Vec<UdpSocket> = (0..self.clients)
            .map(|_| {
                let client = UdpSocket::bind("127.0.0.1:0")?;
                client.connect(to)?;
                client.set_read_timeout(Some(PATIENCE))?;
                Ok(client)
            })
            .collect::<io::Result<_>>()?;
        self.exchange(&clients)?; // To warm up.
        let (before, end) = (processor_time(thread)?, Instant::now() + time);
        let mut echoed = 0;
        while Instant::now() < end {
            echoed += self.exchange(&clients)?;
        }
        Ok((processor_time(thread)? - before) as f64 / f64::from(echoed.max(1)))
    }

    /// Each client sends what may be in flight, and then receives it; returns how much came back.
    fn exchange(self, clients: &[UdpSocket]) -> io::Result<u32> {
        let (sent, mut received) = (vec![7; self.size], vec![0; self.size + 1]);
        for client in clients {
            for _ in 0..self.in_flight {
                client.send(&sent)?;
            }
        }
        let mut echoed = 0;
        for client in clients {
            for _ in 0..self.in_flight {
                match client.recv(&mut received) {
                    Ok(len) => assert_eq!(received[..len], sent),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
                echoed += 1;
            }
        }
        Ok(echoed)
    }
}

/// How many nanoseconds a thread of this process has run, by its name.
fn processor_time(thread: &str) -> io::Result<u64> {
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == thread) {
            let statistics = fs::read_to_string(task.join("schedstat"))?;
            let running = statistics.split_whitespace().next().and_then(|time| time.parse().ok());
            return running.ok_or_else(|| io::Error::other("the kernel keeps no schedstat"));
        }
    }
    Err(io::Error::other(format!("there is no thread {thread}")))
}

// --- the engine ----------------------------------------------------------------------------------

struct Echo;

impl EventHandler for Echo {
    const TAKES_DATAGRAMS: bool = true;

    type State = ();

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Close
    }

    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        let _ = socket.reply(&datagram, datagram.bytes); // With a full queue it is lost.
        Action::Continue
    }
}

fn start_engine() -> Engine {
    let builder = Engine::builder().reactors(1).listen("udp://127.0.0.1:0");
    builder.start(|_reactor| Echo).expect("it starts")
}

// --- by hand -------------------------------------------------------------------------------------

/// A thread that waits, receives many datagrams by one call, and sends them back by as few.
struct ByHand {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl ByHand {
    fn start() -> io::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let (address, stop) = (socket.local_addr()?, Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name(BY_HAND.to_owned());
        let thread = thread.spawn(move || echo(&socket, &stopped))?;
        Ok(ByHand { address, stop, thread: Some(thread) })
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn echo(socket: &UdpSocket, stop: &AtomicBool) -> io::Result<()> {
    let state = UdpSocketState::new(UdpSockRef::from(socket))?;
    let mut memory = vec![0; BATCH_SIZE * BUFFER];
    let mut metas = [RecvMeta::default(); BATCH_SIZE];
    let look = Timespec::try_from(LOOK).expect("it is short");
    while !stop.load(Ordering::Relaxed) {
        if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&look))? == 0 {
            continue;
        }
        loop {
            let mut chunks = memory.chunks_mut(BUFFER);
            let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
                array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            let received = state.recv(UdpSockRef::from(socket), &mut buffers, &mut metas);
            let count = match received {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            send_back(socket, &state, &memory, &metas[..count])?;
            if count < BATCH_SIZE {
                break;
            }
        }
    }
    Ok(())
}

fn send_back(
    socket: &UdpSocket,
    state: &UdpSocketState,
    memory: &[u8],
    metas: &[RecvMeta],
) -> io::Result<()> {
    let of = |(at, meta): (usize, &RecvMeta)| &memory[at * BUFFER..][..meta.len];
    for (at, meta) in metas.iter().enumerate().filter(|(_, meta)| meta.stride < meta.len) {
        // Several in one buffer: they go as they came.
        let (contents, segment_size) = (of((at, meta)), Some(meta.stride));
        let transmit =
            Transmit { destination: meta.addr, ecn: None, contents, segment_size, src_ip: None };
        state.try_send(UdpSockRef::from(socket), &transmit)?;
    }
    if let [meta] = metas {
        if meta.stride == meta.len {
            socket.send_to(of((0, meta)), meta.addr)?;
        }
        return Ok(());
    }
    let single = metas.iter().enumerate().filter(|(_, meta)| meta.stride == meta.len);
    let addresses: Vec<SocketAddrAny> = single.clone().map(|(_, meta)| meta.addr.into()).collect();
    let slices: Vec<_> = single.map(|single| [IoSlice::new(of(single))]).collect();
    let mut nothing: Vec<_> = slices.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let messages = addresses.iter().zip(&slices).zip(&mut nothing);
    let mut messages: Vec<_> = messages
        .map(|((address, slices), nothing)| MMsgHdr::new_with_addr(address, slices, nothing))
        .collect();
    if !messages.is_empty() {
        sendmmsg(socket, &mut messages, SendFlags::empty())?;
    }
    Ok(())
}
