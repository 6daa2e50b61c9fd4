//! Patterns as Redis has them.

/// Whether `text` is as `pattern` says: `*` stands for anything, `?` for a byte, `[a-c]` and
/// `[^a-c]` for a byte of some or not of some, and a backslash takes the next byte as it is.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut begin) = (0, 0);
    // Behind the last star: where to go on in both if what follows does not fit. Going back to the
    // last one is enough, so the time is at most the product of the lengths.
    let mut star = None;
    loop {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            star = Some((at, begin));
        } else if begin == text.len() && at == pattern.len() {
            return true;
        } else if let Some(length) = text.get(begin).and_then(|byte| one(&pattern[at..], *byte)) {
            at += length;
            begin += 1;
        } else if let Some((behind, from)) = star.filter(|(_, from)| *from < text.len()) {
            star = Some((behind, from + 1));
            (at, begin) = (behind, from + 1);
        } else {
            return false;
        }
    }
}

/// Whether the beginning of a pattern that is not a star stands for `byte`; if so, how long it is.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [b'[', class @ ..] => class_has(class, byte),
        [other, ..] => (*other == byte).then_some(1),
    }
}

fn class_has(class: &[u8], byte: u8) -> Option<usize> {
    let (negated, mut rest) = match class {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut has = false;
    loop {
        rest = match rest {
            [b'\\', escaped, rest @ ..] => {
                has |= *escaped == byte;
                rest
            }
            [b']', behind @ ..] => {
                rest = behind;
                break;
            }
            [] => break,
            [a, b'-', b, rest @ ..] => {
                has |= (*a.min(b)..=*a.max(b)).contains(&byte);
                rest
            }
            [other, rest @ ..] => {
                has |= *other == byte;
                rest
            }
        };
    }
    (has != negated).then_some(1 + class.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        let yes = "|*|* a|a*c abc|a*c ac|?b ab|[a-c]x bx|[c-a]x bx|[^a]b cb|\\* *|a\\ a\\|[\\]]x ]x|\
                   *a*b*c xaybzc|**x x|h[ae]llo hallo|k[1-3]* k2abc|[abc a";
        for case in yes.split('|') {
            let (pattern, text) = case.split_once(' ').unwrap_or((case, ""));
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{case:?}");
        }
        for case in
            ["a b", "a ", "? ", "a* ba", "[a-c] d", "[^a] a", "\\* x", "[] a", "a?c ac", " x"]
        {
            let (pattern, text) = case.split_once(' ').unwrap_or((case, ""));
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{case:?}");
        }
    }

    /// Many stars take no exponential time.
    #[test]
    fn stars_are_harmless() {
        let pattern = b"a*".repeat(500);
        let mut text = vec![b'a'; 5_000];
        assert!(matches(&pattern, &text));
        text.push(b'b');
        assert!(!matches(&[&pattern[..], b"c"].concat(), &text));
    }
}
