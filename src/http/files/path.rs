//! From a request's path to a file's.

use percent_encoding::percent_decode_str;

/// Decodes the rest of a request's path. `None` if it can't be the path of a file: a segment has an
/// encoded slash, so it would be two; or it has percent signs without need (RFC 3986, section
/// 6.2.2.2), so that a route which guards the path as it is written would not see it.
pub(super) fn decode(raw: &str) -> Option<String> {
    let mut signs = raw.match_indices('%');
    let is_plain = signs.all(|(at, _)| {
        let digits = raw.get(at + 1..at + 3);
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        byte.is_some_and(|byte| byte != b'/' && !is_unreserved(byte))
    });
    let decoded = is_plain.then(|| percent_decode_str(raw).decode_utf8().ok())?;
    decoded.map(String::from)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Whether this is the path of a file below a folder, or of a folder with its slash.
pub(super) fn is_below(path: &str, dot_files: bool) -> bool {
    let names = path.strip_suffix('/').unwrap_or(path);
    path.is_empty() || names.split('/').all(|name| is_name(name, dot_files))
}

fn is_name(name: &str, dot_files: bool) -> bool {
    let is_hidden = name.starts_with('.') && !dot_files;
    !is_hidden && !matches!(name, "" | "." | "..") && !name.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_if_it_means_one_thing() {
        for (raw, path) in [
            ("", Some("")),
            ("a/b", Some("a/b")),
            ("a%20b/%C3%A9", Some("a b/\u{e9}")),
            ("%25", Some("%")),
            ("%2f", None),
            ("a%2Fb", None),
            ("%2e%2e/a", None),
            ("%61", None),
            ("%7E", None),
            ("%ff", None),
            ("%", None),
            ("%4", None),
            ("%+4", None),
            ("%\u{e9}", None),
        ] {
            assert_eq!(decode(raw).as_deref(), path, "{raw}");
        }
    }

    #[test]
    fn only_names_lead_to_files() {
        for (path, is_file, is_hidden) in [
            ("", true, false),
            ("a", true, false),
            ("a/", true, false),
            ("a/b.c/..d", false, true),
            ("/", false, false),
            ("/etc/passwd", false, false),
            ("a//b", false, false),
            ("a//", false, false),
            (".", false, false),
            ("..", false, false),
            ("a/../b", false, false),
            ("a/./b", false, false),
            ("a/..", false, false),
            ("a\0b", false, false),
            (".git/config", false, true),
            ("a/.b", false, true),
        ] {
            assert_eq!(is_below(path, false), is_file, "{path}");
            assert_eq!(is_below(path, true), is_file || is_hidden, "{path}");
        }
    }
}
