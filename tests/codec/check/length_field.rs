//! Frames with a length field, with any options.

use fastrand::Rng;
use millstream::codec::{
    Codec, LengthField, LengthFieldError as Error, LengthFieldOptionsError as OptionsError,
};
use millstream::{Input, OutputBuffer};

use super::{Decoded, Pieces, Source, bytes, encode};

#[derive(Clone, Debug)]
pub struct Case {
    offset: usize,
    /// `None`: a varint.
    width: Option<usize>,
    little_endian: bool,
    adjustment: i64,
    includes_header: bool,
    num_skip: Option<usize>,
    max_frame_length: usize,
    seed: u64,
    stream: Vec<u8>,
}

/// What is wrong with what was decoded.
#[derive(Debug, PartialEq)]
enum Wrong {
    TooLarge(u64),
    TooSmall(u64),
    Varint,
}

impl Case {
    pub fn read(data: &[u8]) -> Self {
        let mut source = Source::new(data);
        let (options, width) = (source.byte(), usize::from(source.byte()) % 10);
        let adjustment = match options & 0xc0 {
            0 => 0,
            0x40 => i64::from(source.byte() as i8),
            0x80 => i64::from(source.u16() as i16),
            _ => {
                if source.byte() % 2 == 1 {
                    i64::MAX
                } else {
                    i64::MIN
                }
            }
        };
        Case {
            offset: source.byte() as usize % 20,
            width: (width != 9).then_some(width),
            little_endian: options & 1 != 0,
            adjustment,
            includes_header: options & 2 != 0,
            num_skip: (options & 4 != 0).then(|| source.byte() as usize % 40),
            max_frame_length: if options & 8 != 0 { usize::MAX } else { source.u16().into() },
            seed: source.u16().into(),
            stream: source.rest().to_vec(),
        }
    }

    /// Options and frames that are right most of the time.
    pub fn draw(rng: &mut Rng) -> Self {
        let width = *rng.choice(&[None, Some(1), Some(2), Some(3), Some(4), Some(8)]).expect("one");
        let offset = if rng.bool() { 0 } else { rng.usize(..6) };
        let adjustment = if rng.bool() { 0 } else { rng.i64(-12..12) };
        let skip = if rng.bool() { offset } else { rng.usize(..16) };
        let mut case = Case {
            offset,
            width,
            little_endian: width.is_some() && rng.bool(),
            adjustment,
            includes_header: width.is_some() && rng.bool(),
            num_skip: rng.bool().then_some(skip),
            max_frame_length: *rng.choice(&[60, 5, 1000]).expect("one"),
            seed: rng.u64(..),
            stream: Vec::new(),
        };
        for _ in 0..rng.usize(..8) {
            let (body, length) = (bytes(rng, 60, b""), rng.u64(..));
            case.stream.extend((0..offset).map(|_| rng.u8(..)));
            let right = case.value_for(body.len()).unwrap_or(length);
            case.stream.extend(case.field(if rng.u8(..30) == 0 { length } else { right }));
            case.stream.extend(body);
        }
        case
    }

    pub fn check(&self) {
        let mut codec = match self.codec() {
            Ok(codec) => codec,
            Err(error) => return assert!(self.explains(error), "{error} is no reason"),
        };
        assert!(self.contradiction().is_none(), "the options contradict each other");
        let most_kept = self.max_frame_length + self.offset + 10;
        let pieces = Pieces { stream: &self.stream, seed: self.seed, most_kept };
        let decoded = pieces.decode(&mut codec, <[u8]>::to_vec, |error| match error {
            Error::TooLarge { value, .. } => Wrong::TooLarge(value),
            Error::TooSmall { value, .. } => Wrong::TooSmall(value),
            Error::Varint { .. } => Wrong::Varint,
            error => panic!("{error} is not about what arrives"),
        });
        assert_eq!(decoded, self.naive());
        for length in [0, 1, self.offset, 30, self.stream.len()] {
            self.check_encoding(codec, &self.stream[..length.min(self.stream.len())]);
        }
    }

    fn codec(&self) -> Result<LengthField, OptionsError> {
        let mut builder = LengthField::builder()
            .length_field_offset(self.offset)
            .length_adjustment(self.adjustment)
            .max_frame_length(self.max_frame_length);
        builder = match self.width {
            Some(width) => builder.length_field_length(width),
            None => builder.varint(),
        };
        if self.little_endian {
            builder = builder.little_endian();
        }
        if self.includes_header {
            builder = builder.length_includes_header();
        }
        if let Some(bytes) = self.num_skip {
            builder = builder.num_skip(bytes);
        }
        builder.build()
    }

    // --- the options, naively --------------------------------------------------------------------

    /// Why there can be no codec with these options.
    fn contradiction(&self) -> Option<&'static str> {
        match self.width {
            Some(1..=8) => {}
            Some(_) => return Some("width"),
            None if self.little_endian => return Some("varint endianness"),
            None if self.includes_header => return Some("varint header"),
            None if self.num_skip.is_some_and(|skip| skip > self.offset) => {
                return Some("varint skip");
            }
            None => {}
        }
        if self.max_frame_length > usize::MAX - 1000 {
            return Some("too long");
        }
        let none = (0..=self.max_frame_length).all(|length| self.value_for(length).is_none());
        none.then_some("no length")
    }

    fn explains(&self, error: OptionsError) -> bool {
        let name = match error {
            OptionsError::Width(_) => "width",
            OptionsError::VarintEndianness => "varint endianness",
            OptionsError::VarintHeader => "varint header",
            OptionsError::VarintSkip(_) => "varint skip",
            OptionsError::TooLong { .. } => "too long",
            OptionsError::NoLength { .. } => "no length",
            _ => "another",
        };
        self.contradiction() == Some(name)
    }

    /// What has to be added to a field's value for the number of bytes behind it.
    fn adjustment(&self) -> i128 {
        let header = self.offset + self.width.unwrap_or(0);
        i128::from(self.adjustment) - if self.includes_header { header as i128 } else { 0 }
    }

    /// The value that stands for this many bytes behind the field; `None` if they may not be.
    fn value_for(&self, length: usize) -> Option<u64> {
        let value = u64::try_from(length as i128 - self.adjustment()).ok()?;
        let max = self.width.map_or(u64::MAX, |width| u64::MAX >> (64 - 8 * width.clamp(1, 8)));
        let header = self.offset + self.width.unwrap_or(10);
        let skipped = self.num_skip.is_none_or(|skip| skip <= header + length);
        (value <= max && length <= self.max_frame_length && skipped).then_some(value)
    }

    // --- frames, naively -------------------------------------------------------------------------

    fn field(&self, mut value: u64) -> Vec<u8> {
        let Some(width) = self.width else {
            let mut bytes = Vec::new();
            while value > 127 {
                bytes.push((value % 128) as u8 + 128);
                value /= 128;
            }
            bytes.push(value as u8);
            return bytes;
        };
        let mut bytes: Vec<u8> = (0..width).map(|index| (value >> (8 * index)) as u8).collect();
        if !self.little_endian {
            bytes.reverse();
        }
        bytes
    }

    /// A field's value and width; `None` if a part is missing.
    fn naive_field(&self, bytes: &[u8]) -> Result<Option<(u64, usize)>, Wrong> {
        let Some(width) = self.width else {
            let Some(last) = bytes.iter().position(|byte| *byte < 128) else {
                return if bytes.len() < 10 { Ok(None) } else { Err(Wrong::Varint) };
            };
            let digits = bytes[..=last].iter().rev();
            if last >= 10 {
                return Err(Wrong::Varint);
            }
            let value = digits.fold(0_u128, |value, byte| value * 128 + u128::from(byte % 128));
            return u64::try_from(value)
                .map(|value| Some((value, last + 1)))
                .map_err(|_| Wrong::Varint);
        };
        let Some(bytes) = bytes.get(..width) else { return Ok(None) };
        let mut bytes = bytes.to_vec();
        if self.little_endian {
            bytes.reverse();
        }
        Ok(Some((bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)), width)))
    }

    fn naive(&self) -> Decoded<Vec<u8>, Wrong> {
        let mut decoded = Decoded { steps: Vec::new(), left: Vec::new() };
        let mut rest = &self.stream[..];
        loop {
            match self.naive_frame(rest) {
                Ok(Some((frame, whole))) => {
                    decoded.steps.push(Ok(frame.to_vec()));
                    rest = &rest[whole..];
                    continue;
                }
                Ok(None) => {}
                Err(wrong) => decoded.steps.push(Err(wrong)),
            }
            decoded.left.extend(rest);
            return decoded;
        }
    }

    /// The first frame, and how many bytes it takes.
    fn naive_frame<'a>(&self, bytes: &'a [u8]) -> Result<Option<(&'a [u8], usize)>, Wrong> {
        let Some(behind) = bytes.get(self.offset..) else { return Ok(None) };
        let Some((value, width)) = self.naive_field(behind)? else { return Ok(None) };
        let header = (self.offset + width) as i128;
        let length = i128::from(value) + self.adjustment();
        let skip = self.num_skip.map_or(header, |skip| skip as i128);
        if length < 0 || header + length < skip {
            return Err(Wrong::TooSmall(value));
        }
        if length > self.max_frame_length as i128 {
            return Err(Wrong::TooLarge(value));
        }
        let whole = (header + length) as usize;
        Ok(bytes.get(..whole).map(|frame| (&frame[skip as usize..], whole)))
    }

    // --- encoding --------------------------------------------------------------------------------

    fn check_encoding(&self, mut codec: LengthField, item: &[u8]) {
        let encoded = encode(&mut codec, item);
        let pieces = self.write_in_pieces(codec, item);
        let Some((front, body)) = item.split_at_checked(self.offset) else {
            let error = Error::Front { length: item.len(), offset: self.offset };
            assert_eq!((encoded, pieces), (Err(error), Err(error)));
            return;
        };
        let Some(value) = self.value_for(body.len()) else {
            let error = encoded.expect_err("no value stands for it");
            let length = match error {
                Error::TooLong { length, .. } | Error::TooShort { length, .. } => length,
                error => panic!("{error} is no reason"),
            };
            assert_eq!((length, pieces), (body.len(), Err(error)));
            return;
        };
        let written = [front, &self.field(value), body].concat();
        assert_eq!(encoded.as_ref(), Ok(&written));
        let header = written.len() - body.len();
        let frame = &written[self.num_skip.unwrap_or(header)..];
        assert_eq!(codec.decode(&mut Input::from(&written[..])), Ok(Some(frame)));

        // A varint may be padded there.
        let pieces = pieces.expect("it can be written at once, too");
        assert!(pieces.starts_with(front) && pieces.ends_with(body));
        assert!(self.width.is_none() || pieces == written);
        let frame = self.num_skip.map_or(body, |skip| &pieces[skip..]);
        assert_eq!(codec.decode(&mut Input::from(&pieces[..])), Ok(Some(frame)));
    }

    fn write_in_pieces(&self, codec: LengthField, item: &[u8]) -> Result<Vec<u8>, Error> {
        let (front, body) = item.split_at(self.offset.min(item.len()));
        let mut buffer = OutputBuffer::new();
        let mut output = buffer.output();
        let mut frame = codec.begin_behind(front, &mut output);
        body.chunks(7).for_each(|piece| frame.write(piece));
        assert_eq!(frame.len(), body.len());
        let finished = frame.finish();
        let bytes = buffer.take();
        assert!(finished.is_ok() || bytes.is_empty(), "it was an error, and bytes were written");
        finished.map(|()| bytes)
    }
}
