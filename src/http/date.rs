//! The field Date.

use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime};

use httpdate::HttpDate;

/// The last second that has four digits for its year.
const LAST: u64 = 253_402_300_799;

/// The date of responses, which is made once a second.
pub(super) struct DateCache {
    text: String,
    /// From when on it is another one.
    until: Option<Instant>,
}

impl DateCache {
    pub(super) fn new() -> Self {
        DateCache { text: String::with_capacity(32), until: None }
    }

    /// The date at `now`, as RFC 9110, section 5.6.7, writes it.
    #[inline]
    pub(super) fn at(&mut self, now: Instant) -> &str {
        if self.until.is_none_or(|until| until <= now) {
            self.renew(now);
        }
        &self.text
    }

    #[cold]
    fn renew(&mut self, now: Instant) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let second = Duration::from_secs(since.as_secs().min(LAST));
        let left = Duration::from_secs(1)
            .saturating_sub(Duration::from_nanos(u64::from(since.subsec_nanos())));
        let date = SystemTime::UNIX_EPOCH.checked_add(second).unwrap_or(SystemTime::UNIX_EPOCH);
        self.text.clear();
        // Writing to a text does not fail.
        let _ = write!(self.text, "{}", HttpDate::from(date));
        self.until = now.checked_add(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_within_a_second_and_made_anew_after_it() {
        let (mut cache, now) = (DateCache::new(), Instant::now());
        let date = httpdate::parse_http_date(cache.at(now)).expect("it is a date");
        assert!(date.elapsed().expect("it is past") < Duration::from_secs(100));
        cache.text.clear();
        assert_eq!(cache.at(now), "", "it is kept");
        assert_ne!(cache.at(now + Duration::from_secs(1)), "", "it is made anew");
    }
}
