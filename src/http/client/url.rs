//! Where requests go: URLs of the schemes `http` and `https` (RFC 9110, section 4.2).

use crate::http::head::{is_host, split_absolute};

/// An absolute URL, taken apart and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) origin: HttpOrigin,
    /// Path and query, as they are sent: without a fragment, and beginning with a slash.
    pub(super) target: String,
}

/// Whom a URL leads to (RFC 9110, section 4.3.1): what shares an origin may share a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct HttpOrigin {
    pub(super) is_https: bool,
    /// In small letters; an IPv6 address is in brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

/// Why a text is not a URL that can be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} can't be asked: {reason}")]
pub struct UrlError {
    /// The text.
    pub url: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl HttpOrigin {
    fn new(is_https: bool, authority: &str) -> Result<Self, &'static str> {
        if !is_host(authority.as_bytes()) {
            return Err("it has no host, or something else than a host and a port");
        }
        let end = authority.rfind(']').map_or(0, |end| end + 1);
        let end = authority[end..].find(':').map_or(authority.len(), |at| end + at);
        let (host, port) = authority.split_at(end);
        let port = match port.trim_start_matches(':') {
            "" if is_https => 443,
            "" => 80,
            digits => digits.parse().map_err(|_| "the port is not one")?,
        };
        match port {
            0 => Err("the port is 0"),
            _ => Ok(HttpOrigin { is_https, host: host.to_ascii_lowercase(), port }),
        }
    }

    /// As the field Host has it: with the port, unless it is that of the scheme.
    pub(super) fn authority(&self) -> String {
        match (self.is_https, self.port) {
            (true, 443) | (false, 80) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }

    fn scheme(&self) -> &'static str {
        if self.is_https { "https" } else { "http" }
    }
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Self, UrlError> {
        parse(text).map_err(|reason| UrlError { url: text.to_owned(), reason })
    }

    /// Its text, without a fragment.
    pub(super) fn text(&self) -> String {
        format!("{}://{}{}", self.origin.scheme(), self.origin.authority(), self.target)
    }

    /// What a reference that was found here leads to (RFC 3986, section 5.2).
    pub(super) fn join(&self, reference: &str) -> Result<Self, UrlError> {
        self.resolve(reference).map_err(|reason| UrlError { url: reference.to_owned(), reason })
    }

    fn resolve(&self, reference: &str) -> Result<Self, &'static str> {
        let reference = without_fragment(reference)?;
        if has_scheme(reference) {
            let url = parse(reference)?;
            let target = without_dots(&url.target);
            return Ok(Url { target, ..url });
        }
        if let Some(rest) = reference.strip_prefix("//") {
            let url = parse(&format!("{}://{rest}", self.origin.scheme()))?;
            let target = without_dots(&url.target);
            return Ok(Url { target, ..url });
        }
        let (path, _) = split_query(&self.target);
        let target = match reference.as_bytes().first() {
            None => self.target.clone(),
            Some(b'/') => without_dots(reference),
            Some(b'?') => format!("{path}{reference}"),
            Some(_) => {
                let folder = &path[..path.rfind('/').map_or(0, |at| at + 1)];
                without_dots(&format!("{folder}{reference}"))
            }
        };
        Ok(Url { origin: self.origin.clone(), target })
    }
}

fn parse(text: &str) -> Result<Url, &'static str> {
    let text = without_fragment(text)?;
    let (authority, rest) =
        split_absolute(text).ok_or("it does not begin with http:// or https://")?;
    let is_https = text.as_bytes().get(4).is_some_and(|byte| byte.eq_ignore_ascii_case(&b's'));
    let slash = if rest.starts_with('/') { "" } else { "/" };
    Ok(Url { origin: HttpOrigin::new(is_https, authority)?, target: format!("{slash}{rest}") })
}

/// A text of a URL's characters, up to its fragment, which is not sent.
fn without_fragment(text: &str) -> Result<&str, &'static str> {
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("it has a character that is to be encoded by a percent sign");
    }
    Ok(text.split('#').next().unwrap_or_default())
}

/// Whether a reference is absolute (RFC 3986, section 3.1).
fn has_scheme(reference: &str) -> bool {
    let end = reference.find([':', '/', '?']).filter(|end| reference[*end..].starts_with(':'));
    end.is_some_and(|end| reference[..end].starts_with(|c: char| c.is_ascii_alphabetic()))
}

/// The path of a target, and its query with the question mark.
fn split_query(target: &str) -> (&str, &str) {
    target.split_at(target.find('?').unwrap_or(target.len()))
}

/// A target whose path has no segments of dots (RFC 3986, section 5.2.4).
fn without_dots(target: &str) -> String {
    let (path, query) = split_query(target);
    let mut segments: Vec<&str> = Vec::new();
    let mut rest = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = rest.next() {
        let is_last = rest.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    segments.pop();
                }
                if is_last {
                    segments.push("");
                }
            }
            segment => segments.push(segment),
        }
    }
    format!("/{}{query}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (text, host, port, target) in [
            ("http://a", "a", 80, "/"),
            ("HTTPS://A.b?c", "a.b", 443, "/?c"),
            ("http://a:/b#c", "a", 80, "/b"),
            ("http://[::1]:8080/b?c/#d", "[::1]", 8080, "/b?c/"),
        ] {
            let url = Url::parse(text).expect(text);
            let HttpOrigin { host: found, port: number, .. } = &url.origin;
            assert_eq!((&found[..], *number, &url.target[..]), (host, port, target), "{text}");
            assert_eq!(Url::parse(&url.text()), Ok(url), "{text}");
        }
        for text in [
            "",
            "a",
            "/a",
            "ftp://a/",
            "http:/a",
            "http://",
            "http:///a",
            "http://u@a/",
            "http://a b",
            "http://a/\r\nB: c",
            "http://\u{e9}/",
            "http://a:0/",
            "http://a:65536/",
            "http://[::g]/",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }

    /// The examples of RFC 3986, section 5.4, without those whose scheme is not asked.
    #[test]
    fn references_are_resolved() {
        let base = Url::parse("http://a/b/c/d;p?q").expect("a URL");
        for (reference, expected) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q"),
            ("g#s", "http://a/b/c/g"),
            (";x", "http://a/b/c/;x"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("./", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../g", "http://a/g"),
            ("../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g.", "http://a/b/c/g."),
            ("..g", "http://a/b/c/..g"),
            ("./g/.", "http://a/b/c/g/"),
            ("g/../h", "http://a/b/c/h"),
            ("g;x=1/../y", "http://a/b/c/y"),
            ("g?y/./x", "http://a/b/c/g?y/./x"),
            ("https://h:1/../i", "https://h:1/i"),
        ] {
            let joined = base.join(reference).map(|url| url.text());
            assert_eq!(joined.as_deref(), Ok(expected), "{reference}");
        }
        for reference in ["g:h", "mailto:a", "//", "//u@h/", "a b", "http://"] {
            assert!(base.join(reference).is_err(), "{reference}");
        }
    }
}
