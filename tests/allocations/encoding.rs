//! What a peer can make of the bytes of an encoding: reading takes no memory that they don't
//! account for, and ends before the stack does.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fmt::{self, Debug};

use crate::ALLOCATOR;
use crate::common::alone::alone;
use millstream::rpc::Encoding::{self, Json, MessagePack, Postcard};
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use stats_alloc::Region;

/// What is allocated for a few bytes that are not a value: messages of errors.
const LITTLE: usize = 4096;

/// A list that believes what it is told about its length, as some collections do.
#[derive(Debug)]
struct Trusting(#[expect(dead_code, reason = "only its making matters")] Vec<u64>);

impl<'de> Deserialize<'de> for Trusting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Numbers;
        impl<'de> Visitor<'de> for Numbers {
            type Value = Trusting;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("numbers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Trusting, A::Error> {
                let mut numbers = Vec::with_capacity(seq.size_hint().unwrap_or(0));
                while let Some(number) = seq.next_element()? {
                    numbers.push(number);
                }
                Ok(Trusting(numbers))
            }
        }
        deserializer.deserialize_seq(Numbers)
    }
}

/// Values inside of values, in every way in which a type can contain itself.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Nested {
    End,
    Newtype(Box<Nested>),
    Tuple(u8, Box<Nested>),
    Struct { inside: Box<Nested> },
    List(Vec<Nested>),
    Map(BTreeMap<u8, Nested>),
    Option(Box<Chain>),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Chain(Option<Box<Chain>>);

/// Wraps a value once more.
type Wrap = fn(Nested) -> Nested;

const WRAPS: [Wrap; 5] = [
    |inside| Nested::Newtype(Box::new(inside)),
    |inside| Nested::Tuple(1, Box::new(inside)),
    |inside| Nested::Struct { inside: Box::new(inside) },
    |inside| Nested::List(vec![inside]),
    |inside| Nested::Map(BTreeMap::from([(1, inside)])),
];

fn encode(encoding: Encoding, value: &impl Serialize) -> Vec<u8> {
    let mut body = Vec::new();
    encoding.encode(value, &mut body).expect("it can be written");
    body
}

/// The bytes are not such a value, and finding that out takes little.
fn assert_cheap<T: DeserializeOwned + Debug>(encoding: Encoding, body: &[u8]) {
    let region = Region::new(ALLOCATOR);
    let error = encoding.decode::<T>(body).expect_err("it is no value");
    let allocated = region.change().bytes_allocated;
    assert!(allocated <= LITTLE + 16 * body.len(), "{encoding}: {allocated} bytes for {body:?}");
    let source = error.source().expect("the library's own error");
    assert!(!source.to_string().is_empty(), "{error}");
}

fn lengths_are_not_believed() {
    let most = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let far_more = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    for length in [&most[..], &far_more] {
        assert_cheap::<String>(Postcard, length);
        assert_cheap::<Vec<u64>>(Postcard, length);
        assert_cheap::<Trusting>(Postcard, length);
        assert_cheap::<Trusting>(Postcard, &[length, &[1; 100]].concat());
        assert_cheap::<HashMap<u64, u64>>(Postcard, length);
        assert_cheap::<Vec<Vec<u64>>>(Postcard, &[&[2], length, length].concat());
        assert_cheap::<Vec<()>>(Postcard, length);
        assert_cheap::<Vec<Vec<()>>>(Postcard, &[&[2], length, length].concat());
    }
    let array = [0xdd, 0xff, 0xff, 0xff, 0xff];
    let map = [0xdf, 0xff, 0xff, 0xff, 0xff];
    assert_cheap::<Vec<u64>>(MessagePack, &array);
    assert_cheap::<Trusting>(MessagePack, &array);
    assert_cheap::<Trusting>(MessagePack, &[&array[..], &[1; 100]].concat());
    assert_cheap::<HashMap<u64, u64>>(MessagePack, &map);
    assert_cheap::<String>(MessagePack, &[0xdb, 0xff, 0xff, 0xff, 0xff]);
    assert_cheap::<Trusting>(Json, b"[1,2");
    assert_cheap::<String>(Json, b"\"ab");
}

fn values_that_take_no_byte_may_be_some() {
    let many = vec![(); 1000];
    assert_eq!(Postcard.decode::<Vec<()>>(&encode(Postcard, &many)).expect("not too many"), many);
    let many = vec![((), (1_u8, [(); 20])); 5000];
    let body = encode(Postcard, &many);
    assert_eq!(Postcard.decode::<Vec<((), (u8, [(); 20]))>>(&body).expect("not too many"), many);
}

fn values_are_nested_only_so_deep() {
    for wrap in WRAPS {
        let nested = |levels| (0..levels).fold(Nested::End, |inside, _| wrap(inside));
        for encoding in Encoding::ALL {
            let value = nested(20);
            let body = encode(*encoding, &value);
            assert_eq!(encoding.decode::<Nested>(&body).expect("not too deep"), value);
            let body = encode(*encoding, &nested(200));
            let error = encoding.decode::<Nested>(&body).expect_err("too deep");
            assert!(error.source().is_some(), "{error}");
        }
    }
    // Deeper than any stack: a byte or some for each level.
    let levels = 1 << 20;
    assert!(Postcard.decode::<Nested>(&vec![1; levels]).is_err());
    assert!(Postcard.decode::<Nested>(&[4, 1].repeat(levels)).is_err());
    assert!(Postcard.decode::<Chain>(&vec![1; levels]).is_err());
    assert!(MessagePack.decode::<Nested>(&b"\x81\xa7Newtype".repeat(levels)).is_err());
    assert!(MessagePack.decode::<Nested>(&b"\x81\xa4List\x91".repeat(levels)).is_err());
    assert!(Json.decode::<Nested>(&b"{\"Newtype\":".repeat(levels)).is_err());
    let error = MessagePack.decode::<Nested>(&b"\x81\xa7Newtype".repeat(levels)).expect_err("");
    let source = error.source().expect("the reason").to_string();
    assert_eq!(source, "it is nested in more than 128 levels");
}

#[test]
fn hostile_bytes_take_neither_memory_nor_stack() {
    alone(|| {
        lengths_are_not_believed();
        values_that_take_no_byte_may_be_some();
        values_are_nested_only_so_deep();
    });
}
