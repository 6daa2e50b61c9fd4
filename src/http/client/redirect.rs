//! Where a redirect leads to (RFC 9110, section 15.4).

use bytes::Bytes;

use super::failure::RedirectError;
use super::head::ResponseHead;
use super::job::Job;
use super::request::{RequestBody, Wanted};
use super::url::UrlError;
use crate::http::fields::{FieldLines, Fields};

/// Fields that say who asks: another origin is not told.
const OF_THE_ORIGIN: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];
/// What begins so is about a content.
const OF_A_CONTENT: &str = "content-";

/// Whether a response is a redirect that may be followed.
pub(super) fn leads_on(head: &ResponseHead<'_>) -> bool {
    matches!(head.status().code(), 301 | 302 | 303 | 307 | 308) && head.field("location").is_some()
}

/// What is asked next.
pub(super) fn next(
    job: &Job,
    head: &ResponseHead<'_>,
    most: u32,
) -> Result<(Wanted, bool), RedirectError> {
    if job.redirects >= most {
        return Err(RedirectError::TooMany { most });
    }
    let Wanted { method, url, fields } = &job.what;
    let location = head.field("location").unwrap_or_default();
    let to = match std::str::from_utf8(location) {
        Ok(location) => url.join(location)?,
        Err(_) => {
            let url = String::from_utf8_lossy(location).into_owned();
            return Err(UrlError { url, reason: "it is not a text" }.into());
        }
    };
    if url.origin.is_https && !to.origin.is_https {
        return Err(RedirectError::Insecure { url: to.text() });
    }
    let becomes_get = head.status().code() < 304 && method != "HEAD" && method != "GET";
    if !becomes_get && !job.body.is_there() {
        return Err(RedirectError::Content);
    }
    let is_told = |name: &str| {
        let is = |other: &&str| other.eq_ignore_ascii_case(name);
        let is_secret = to.origin != url.origin && OF_THE_ORIGIN.iter().any(is);
        let prefix = name.get(..OF_A_CONTENT.len());
        let is_contents = prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(OF_A_CONTENT));
        !(is_secret || becomes_get && is_contents)
    };
    let mut kept = FieldLines::new();
    for (name, value) in Fields::from_valid(fields.as_bytes()).iter() {
        if is_told(name) {
            kept.push_valid(name, value);
        }
    }
    let method = if becomes_get { "GET".to_owned() } else { method.clone() };
    Ok((Wanted { method, url: to, fields: kept }, becomes_get))
}

/// Makes a request that of where it is redirected to.
pub(super) fn follow(job: &mut Job, what: Wanted, drops_content: bool) {
    job.what = what;
    job.redirects += 1;
    job.is_retried = false;
    if drops_content {
        job.body = RequestBody::Whole(Bytes::new());
    }
}
