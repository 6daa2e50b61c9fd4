//! One direction of a connection: bytes come in order, late, and in pieces, until it is cut.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::plan::Plan;

#[derive(Debug, PartialEq)]
pub enum Arrival {
    Bytes(Vec<u8>),
    End,
    Cut,
}

pub struct Link {
    rng: Rng,
    longest_piece: usize,
    longest_delay: Duration,
    /// How many bytes are still taken before it is cut.
    until_cut: Option<usize>,
    /// What is under way.
    queue: VecDeque<(Instant, Arrival)>,
    has_ended: bool,
}

impl Link {
    /// How many pieces may be under way at the same time.
    const PIECES: usize = 64;

    pub fn new(plan: &Plan, direction: usize) -> Self {
        Link {
            rng: Rng::with_seed(plan.seed + direction as u64),
            longest_piece: plan.longest_piece,
            longest_delay: plan.longest_delay,
            until_cut: plan.cut_after[direction],
            queue: VecDeque::new(),
            has_ended: false,
        }
    }

    /// Takes some of the bytes; returns how many.
    pub fn send(&mut self, now: Instant, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && self.queue.len() < Self::PIECES && !self.has_ended {
            let mut most = self.longest_piece.min(bytes.len() - taken);
            most = most.min(self.until_cut.unwrap_or(usize::MAX));
            if most == 0 {
                self.end_with(now, Arrival::Cut);
                break;
            }
            let length = self.rng.usize(1..=most);
            self.until_cut = self.until_cut.map(|left| left - length);
            self.push(now, Arrival::Bytes(bytes[taken..taken + length].to_vec()));
            taken += length;
        }
        taken
    }

    /// Nothing more is sent.
    pub fn end_with(&mut self, now: Instant, end: Arrival) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.push(now, end);
        }
    }

    fn push(&mut self, now: Instant, arrival: Arrival) {
        let delay = self.longest_delay.mul_f64(self.rng.f64());
        let earliest = self.queue.back().map_or(now, |(at, _)| *at);
        self.queue.push_back(((now + delay).max(earliest), arrival));
    }

    /// What has arrived by now.
    pub fn receive(&mut self, now: Instant) -> Option<Arrival> {
        self.next().filter(|at| *at <= now)?;
        self.queue.pop_front().map(|(_, arrival)| arrival)
    }

    /// When the next of it arrives.
    pub fn next(&self) -> Option<Instant> {
        self.queue.front().map(|(at, _)| *at)
    }
}
