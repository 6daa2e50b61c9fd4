//! Commands as a person types them: words on a line, quoted where needed.

use std::io::Write;

/// A quote is not closed, or something follows it without space between.
pub(super) struct Unbalanced;

/// Splits a line into words, and returns them as bulk strings, with their number.
///
/// In double quotes `\n`, `\r`, `\t`, `\b` and `\a` stand for what they do in C, `\xHH` for a byte,
/// and a backslash before anything else for that; in single quotes only `\'` is special.
pub(super) fn split(line: &[u8]) -> Result<(Vec<u8>, usize), Unbalanced> {
    let mut words = Words { rest: line, word: Vec::new() };
    let (mut bulks, mut count) = (Vec::with_capacity(line.len() + 16), 0);
    while words.next()? {
        // Writing to memory does not fail.
        let _ = write!(bulks, "${}\r\n", words.word.len());
        bulks.extend_from_slice(&words.word);
        bulks.extend_from_slice(super::CRLF);
        count += 1;
    }
    Ok((bulks, count))
}

/// The words of a line.
struct Words<'a> {
    rest: &'a [u8],
    word: Vec<u8>,
}

impl Words<'_> {
    /// Reads the next word; `false` at the line's end.
    fn next(&mut self) -> Result<bool, Unbalanced> {
        let begin = self.rest.iter().position(|byte| !is_space(*byte)).unwrap_or(self.rest.len());
        self.rest = &self.rest[begin..];
        self.word.clear();
        if self.rest.is_empty() {
            return Ok(false);
        }
        while let Some((&byte, rest)) = self.rest.split_first() {
            self.rest = rest;
            match byte {
                b'"' => return self.double_quoted().map(|()| true),
                b'\'' => return self.single_quoted().map(|()| true),
                b' ' | b'\t' | b'\n' | b'\r' => break,
                // A vertical tab and a form feed are space between words, but end none, as in
                // Redis.
                byte => self.word.push(byte),
            }
        }
        Ok(true)
    }

    fn double_quoted(&mut self) -> Result<(), Unbalanced> {
        loop {
            let (byte, rest) = match self.rest {
                [b'\\', b'x', high, low, rest @ ..]
                    if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
                {
                    (hex(*high) << 4 | hex(*low), rest)
                }
                [b'\\', escaped, rest @ ..] => (unescape(*escaped), rest),
                [b'"', ..] => return self.close(),
                [byte, rest @ ..] => (*byte, rest),
                [] => return Err(Unbalanced),
            };
            self.word.push(byte);
            self.rest = rest;
        }
    }

    fn single_quoted(&mut self) -> Result<(), Unbalanced> {
        loop {
            let (byte, rest) = match self.rest {
                [b'\\', b'\'', rest @ ..] => (b'\'', rest),
                [b'\'', ..] => return self.close(),
                [byte, rest @ ..] => (*byte, rest),
                [] => return Err(Unbalanced),
            };
            self.word.push(byte);
            self.rest = rest;
        }
    }

    /// Behind a closing quote the word must end.
    fn close(&mut self) -> Result<(), Unbalanced> {
        self.rest = &self.rest[1..];
        let ends = self.rest.first().is_none_or(|byte| is_space(*byte));
        if ends { Ok(()) } else { Err(Unbalanced) }
    }
}

/// What C calls space.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        letter => (letter | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Arguments;
    use super::*;

    fn words(line: &str) -> Option<Vec<Vec<u8>>> {
        let (bulks, count) = split(line.as_bytes()).ok()?;
        Some(Arguments::from_bulks(&bulks, count).map(<[u8]>::to_vec).collect())
    }

    #[test]
    fn words_and_quotes() {
        let cases: [(&str, &[&[u8]]); 10] = [
            ("", &[]),
            (" \t ", &[]),
            ("set key value", &[b"set", b"key", b"value"]),
            ("  a\tb  ", &[b"a", b"b"]),
            (r#""a b" 'c d'"#, &[b"a b", b"c d"]),
            (r#""\x41\n\"\\\q\xg" '\'\n'"#, &[b"A\n\"\\qxg", b"'\\n"]),
            (r#""" ''"#, &[b"", b""]),
            (r#"a"b c""#, &[b"ab c"]),
            ("a\0b \0", &[b"a\0b", b"\0"]),
            ("\x0b\x0ca\x0bb\x0c 'c'\x0bd", &[b"a\x0bb\x0c", b"c", b"d"]),
        ];
        for (line, expected) in cases {
            assert_eq!(
                words(line).as_deref(),
                Some(&expected.iter().map(|word| word.to_vec()).collect::<Vec<_>>()[..]),
                "{line}"
            );
        }
    }

    #[test]
    fn unbalanced_quotes() {
        for line in [r#"""#, "'", r#""a"#, r#""a"b"#, "'a'b", r#""a\"#, r#"'a\'"#, r#""a""b""#] {
            assert!(words(line).is_none(), "{line}");
        }
    }
}
