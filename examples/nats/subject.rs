//! Subjects, whose tokens dots separate, and filters, in which `*` stands for any token and `>` for
//! any that are left, at least one.

/// The tokens of a subject or a filter.
pub fn tokens(subject: &[u8]) -> impl Iterator<Item = &[u8]> {
    subject.split(|byte| *byte == b'.')
}

/// Whether it has no empty token: to one that has, nobody can subscribe.
pub fn is_valid(subject: &[u8]) -> bool {
    tokens(subject).all(|token| !token.is_empty())
}

/// Whether it can be subscribed to: `>` is its last token, if it is one.
pub fn is_filter(filter: &[u8]) -> bool {
    let mut ended = false;
    tokens(filter).all(|token| !token.is_empty() && !std::mem::replace(&mut ended, token == b">"))
}

/// Whether no token stands for others.
pub fn is_literal(subject: &[u8]) -> bool {
    tokens(subject).all(|token| !token.is_empty() && token != b"*" && token != b">")
}

/// Whether a subject is one of those that a filter stands for. Both are valid.
pub fn matches(filter: &[u8], subject: &[u8]) -> bool {
    let mut filter = tokens(filter);
    for token in tokens(subject) {
        match filter.next() {
            Some(b">") => return true,
            Some(b"*") => {}
            Some(wanted) if wanted == token => {}
            _ => return false,
        }
    }
    filter.next().is_none()
}

#[test]
fn filters_and_subjects_are_told_apart() {
    for filter in ["a", "a.b", "*", ">", "a.*", "a.>", "*.b.>", "a*", "a.>b"] {
        assert!(is_filter(filter.as_bytes()), "{filter}");
    }
    for other in ["", ".", "a.", ".a", "a..b", ">.a", "a.>.b", ">.>"] {
        assert!(!is_filter(other.as_bytes()), "{other}");
    }
    assert!(is_literal(b"a*.b") && !is_literal(b"a.*") && !is_literal(b">") && !is_literal(b"a."));
    assert!(is_valid(b"a.>.*") && !is_valid(b"a..b"));
}

#[test]
fn wildcards_stand_for_tokens() {
    for (filter, subject) in
        [("a", "a"), ("*", "a"), (">", "a"), (">", "a.b"), ("a.*.c", "a.b.c"), ("a.>", "a.b.c")]
    {
        assert!(matches(filter.as_bytes(), subject.as_bytes()), "{filter} {subject}");
    }
    for (filter, subject) in [
        ("a", "b"),
        ("a", "a.b"),
        ("a.b", "a"),
        ("*", "a.b"),
        ("a.>", "a"),
        ("a.*", "a"),
        ("a*", "ab"),
    ] {
        assert!(!matches(filter.as_bytes(), subject.as_bytes()), "{filter} {subject}");
    }
}
