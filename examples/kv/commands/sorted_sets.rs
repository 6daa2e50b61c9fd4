//! Sorted sets: members with scores, in their order.

use std::ops::Bound;

use millstream::codec::resp::{Arguments, Protocol, Replies, parse_integer};

use super::float::{next_float, parse_float, write_float};
use super::keys::position;
use super::size::Size;
use super::{Call, Failure, Outcome, next, next_integer};
use crate::store::{Millis, Scored, Scores, Sorted, Store};

/// What ZADD is told in front of scores and members.
#[derive(Default)]
struct Options {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
    /// Those count whose score changed, too.
    changed: bool,
    /// The score is added to what is there.
    increment: bool,
}

impl Options {
    fn parse(arguments: &mut Arguments<'_>) -> Result<Self, Failure> {
        let mut options = Options::default();
        loop {
            let mut rest = arguments.clone();
            match rest.next().unwrap_or_default().to_ascii_uppercase().as_slice() {
                b"NX" => options.nx = true,
                b"XX" => options.xx = true,
                b"GT" => options.gt = true,
                b"LT" => options.lt = true,
                b"CH" => options.changed = true,
                b"INCR" => options.increment = true,
                _ => break,
            }
            *arguments = rest;
        }
        let count = arguments.len();
        if count == 0 || !count.is_multiple_of(2) {
            return Err(Failure::Syntax);
        }
        let Options { nx, xx, gt, lt, .. } = options;
        let text = match () {
            () if nx && xx => "ERR XX and NX options at the same time are not compatible",
            () if gt && (lt || nx) || lt && nx => {
                "ERR GT, LT, and/or NX options at the same time are not compatible"
            }
            () if options.increment && count > 2 => {
                "ERR INCR option supports a single increment-element pair"
            }
            () => return Ok(options),
        };
        Err(Failure::Other(text))
    }

    fn allow(&self, before: Option<f64>, score: f64) -> bool {
        match before {
            None => !self.xx,
            Some(before) => !(self.nx || self.gt && score <= before || self.lt && score >= before),
        }
    }
}

/// What ZADD did.
#[derive(Default)]
struct Added {
    new: usize,
    changed: usize,
    /// The last score that was set.
    score: Option<f64>,
}

impl Added {
    /// Sets the score of a member, if the options allow that.
    fn add(
        &mut self,
        sorted: &mut Sorted,
        member: &[u8],
        score: f64,
        options: &Options,
    ) -> Outcome {
        let before = sorted.score(member);
        let score = if options.increment { score + before.unwrap_or(0.0) } else { score };
        if score.is_nan() {
            return Err(Failure::Other("ERR resulting score is not a number (NaN)"));
        }
        if options.allow(before, score) {
            self.new += usize::from(before.is_none());
            self.changed += usize::from(before.is_some_and(|before| before != score));
            self.score = Some(score);
            if before != Some(score) {
                sorted.set(member, score);
            }
        }
        Ok(())
    }
}

pub fn zadd(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let key = call.next()?;
    let options = Options::parse(&mut call.arguments)?;
    let added = add(store, key, call.arguments, &options, call.now)?;
    match (options.increment, added.score) {
        (true, Some(score)) => write_float(score, &mut call.replies),
        (true, None) => call.replies.null(),
        (false, _) => {
            let changed = if options.changed { added.changed } else { 0 };
            call.replies.count(added.new + changed);
        }
    }
    Ok(())
}

/// Adds scores and members.
fn add(
    store: &mut Store,
    key: &[u8],
    mut pairs: Arguments<'_>,
    options: &Options,
    now: Millis,
) -> Result<Added, Failure> {
    let mut scores = Vec::with_capacity(pairs.len() / 2);
    while pairs.len() > 0 {
        scores.push((next_float(&mut pairs)?, next(&mut pairs)?));
    }
    let added = store.change_quietly::<Sorted, _>(key, now, |sorted| {
        let mut added = Added::default();
        for (score, member) in scores {
            added.add(sorted, member, score, options)?;
        }
        Ok::<_, Failure>(added)
    })??;
    if added.new + added.changed > 0 {
        store.touch(key);
    }
    Ok(added)
}

pub fn zincrby(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let options = Options { increment: true, ..Options::default() };
    let added = add(store, call.next()?, call.arguments, &options, call.now)?;
    write_float(added.score.unwrap_or_default(), &mut call.replies);
    Ok(())
}

pub fn zrem(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let key = call.next()?;
    call.replies.count(store.change_if_there::<Sorted, _>(key, call.now, |sorted| {
        call.arguments.filter(|member| sorted.remove(member)).count()
    })?);
    Ok(())
}

pub fn zcard(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let sorted = store.collection::<Sorted>(call.next()?, call.now)?;
    call.replies.count(sorted.map_or(0, Sorted::len));
    Ok(())
}

/// From where one counts, or takes.
#[derive(Clone, Copy, PartialEq)]
pub enum Side {
    Lowest,
    Highest,
}

fn write_score(score: Option<f64>, replies: &mut Replies<'_, '_>) {
    match score {
        Some(score) => write_float(score, replies),
        None => replies.null(),
    }
}

pub fn zscore(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let sorted = store.collection::<Sorted>(call.next()?, call.now)?;
    let member = call.next()?;
    write_score(sorted.and_then(|sorted| sorted.score(member)), &mut call.replies);
    Ok(())
}

pub fn zmscore(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let sorted = store.collection::<Sorted>(call.next()?, call.now)?;
    call.replies.array(call.arguments.len());
    for member in call.arguments {
        write_score(sorted.and_then(|sorted| sorted.score(member)), &mut call.replies);
    }
    Ok(())
}

pub fn rank(store: &mut Store, mut call: Call<'_, '_>, side: Side) -> Outcome {
    let sorted = store.collection::<Sorted>(call.next()?, call.now)?;
    let member = call.next()?;
    let found = sorted.and_then(|sorted| Some((sorted.rank(member)?, sorted.len())));
    match found {
        Some((rank, _)) if side == Side::Lowest => call.replies.count(rank),
        Some((rank, len)) => call.replies.count(len - 1 - rank),
        None => call.replies.null(),
    }
    Ok(())
}

pub fn pop(store: &mut Store, mut call: Call<'_, '_>, side: Side) -> Outcome {
    let (key, count) = (call.next()?, call.arguments.next());
    if call.arguments.len() > 0 {
        return Err(Failure::Syntax);
    }
    let pairs = count.is_some();
    let count = count.map_or(Some(1), |count| parse_integer(count)?.try_into().ok());
    let count: usize = count.ok_or(Failure::NotPositive)?;
    let Some(sorted) = store.collection::<Sorted>(key, call.now)? else {
        call.replies.array(0);
        return Ok(());
    };
    let count = count.min(sorted.len());
    if count == 0 {
        call.replies.array(0);
        return Ok(());
    }
    let members = sorted.iter().map(|scored| scored.member.len());
    match side {
        Side::Lowest => check(members.take(count))?,
        Side::Highest => check(members.rev().take(count))?,
    }
    store.change::<Sorted, _>(key, call.now, |sorted| {
        let popped: Vec<Scored> =
            (0..count).map_while(|_| sorted.pop(side == Side::Highest)).collect();
        write_with_scores(popped.iter(), pairs, &mut call.replies);
    })?;
    Ok(())
}

/// Fails if a reply with members of these lengths, and their scores, is too long.
fn check(lengths: impl Iterator<Item = usize>) -> Outcome {
    let mut size = Size::default();
    lengths.for_each(|length| size.copied(length + SCORE));
    size.check()
}

/// About what a score takes.
const SCORE: usize = 32;

/// Writes members and scores, in version 3 as pairs if there may be several.
fn write_with_scores<'s>(
    members: impl ExactSizeIterator<Item = &'s Scored>,
    pairs: bool,
    replies: &mut Replies<'_, '_>,
) {
    let pairs = pairs && replies.protocol() == Protocol::Resp3;
    replies.array(if pairs { members.len() } else { 2 * members.len() });
    for Scored { score, member } in members {
        if pairs {
            replies.array(2);
        }
        replies.bulk(member);
        write_float(*score, replies);
    }
}

/// What of a sorted set is asked for.
pub struct Query {
    pub by_score: bool,
    pub reverse: bool,
    /// Options say so, as well.
    pub has_options: bool,
    /// How many are passed over, and how many of the others are taken.
    pub limit: Option<(i64, i64)>,
    pub with_scores: bool,
}

impl Query {
    pub const ALL: Query = Query {
        by_score: false,
        reverse: false,
        has_options: false,
        limit: None,
        with_scores: false,
    };

    /// Takes options, of which ZRANGE has more than the others.
    fn parse(mut self, mut arguments: Arguments<'_>) -> Result<Self, Failure> {
        while let Some(option) = arguments.next() {
            match option.to_ascii_uppercase().as_slice() {
                b"WITHSCORES" => self.with_scores = true,
                b"LIMIT" if arguments.len() >= 2 => {
                    self.limit =
                        Some((next_integer(&mut arguments)?, next_integer(&mut arguments)?));
                }
                b"BYSCORE" if self.has_options => self.by_score = true,
                b"REV" if self.has_options => self.reverse = true,
                _ => return Err(Failure::Syntax),
            }
        }
        if self.limit.is_some() && !self.by_score {
            return Err(Failure::Other(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        Ok(self)
    }

    fn select<'s>(&self, sorted: &'s Sorted, range: &Range) -> Result<Vec<&'s Scored>, Failure> {
        let (offset, count) = self.limit.unwrap_or((0, -1));
        let (offset, count) = match usize::try_from(offset) {
            Ok(offset) => (offset, usize::try_from(count).unwrap_or(usize::MAX)),
            Err(_) => (0, 0),
        };
        let (scores, offset, count) = match range {
            Range::Scores(scores) => (*scores, offset, count),
            Range::Places(first, last) => {
                let (offset, count) = places((*first, *last), sorted.len());
                (Scores::ALL, offset, count)
            }
        };
        let all = sorted.with(scores);
        let selected: Vec<&Scored> = if self.reverse {
            all.rev().skip(offset).take(count).collect()
        } else {
            all.skip(offset).take(count).collect()
        };
        check(selected.iter().map(|scored| scored.member.len()))?;
        Ok(selected)
    }
}

/// How many are passed over, and how many taken, from one place to another.
fn places((first, last): (i64, i64), len: usize) -> (usize, usize) {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let from_begin = |place: i64| if place < 0 { place.saturating_add(len) } else { place };
    let (first, last) = (from_begin(first).max(0), from_begin(last).min(len - 1));
    let count = last.saturating_sub(first).saturating_add(1);
    (usize::try_from(first).unwrap_or(usize::MAX), usize::try_from(count).unwrap_or(0))
}

enum Range {
    Places(i64, i64),
    Scores(Scores),
}

/// The end of a range of scores; what begins with a parenthesis is not in it.
fn parse_bound(text: &[u8]) -> Result<Bound<f64>, Failure> {
    let (number, bound) = match text.strip_prefix(b"(") {
        Some(rest) => (rest, Bound::Excluded as fn(f64) -> Bound<f64>),
        None => (text, Bound::Included as fn(f64) -> Bound<f64>),
    };
    parse_float(number).map(bound).ok_or(Failure::Other("ERR min or max is not a float"))
}

fn parse_scores(least: &[u8], most: &[u8]) -> Result<Scores, Failure> {
    Ok(Scores { least: parse_bound(least)?, most: parse_bound(most)? })
}

/// Returns what is between two places, or scores.
pub fn range(store: &mut Store, mut call: Call<'_, '_>, query: Query) -> Outcome {
    let (key, from, to) = (call.next()?, call.next()?, call.next()?);
    let query = query.parse(call.arguments)?;
    let range = match (query.by_score, query.reverse) {
        (false, _) => Range::Places(position(from, 0)?, position(to, 0)?),
        (true, false) => Range::Scores(parse_scores(from, to)?),
        (true, true) => Range::Scores(parse_scores(to, from)?),
    };
    let Some(sorted) = store.collection::<Sorted>(key, call.now)? else {
        call.replies.array(0);
        return Ok(());
    };
    let members = query.select(sorted, &range)?;
    if query.with_scores {
        write_with_scores(members.into_iter(), true, &mut call.replies);
        return Ok(());
    }
    call.replies.array(members.len());
    members.into_iter().for_each(|scored| call.replies.bulk(&scored.member));
    Ok(())
}

pub fn zcount(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let (key, least, most) = (call.next()?, call.next()?, call.next()?);
    let scores = parse_scores(least, most)?;
    let sorted = store.collection::<Sorted>(key, call.now)?;
    call.replies.count(sorted.map_or(0, |sorted| sorted.with(scores).count()));
    Ok(())
}
