//! A deserializer around another one that bounds how deep values are nested, and what it says of
//! their number: neither postcard nor MessagePack's does so for every type, and a peer chooses the
//! bytes.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// How deep values may be nested, which is what serde_json allows.
const MAX_DEPTH: u8 = 128;
/// How many values there may be for each byte: a byte can be the only one of several values within
/// each other, and some values have none.
const VALUES_PER_BYTE: usize = 32;
/// How many more values there may be.
const VALUES: usize = 1024;

/// Something of serde's, and what is left for what it has inside.
#[derive(Clone, Copy)]
pub(super) struct Bounded<'b, T> {
    inner: T,
    bounds: Bounds<'b>,
}

#[derive(Clone, Copy)]
struct Bounds<'b> {
    depth: u8,
    /// How many values a sequence is believed to have: most have a byte at least.
    believed: usize,
    /// How many more values there may be in all.
    left: &'b Cell<usize>,
}

/// How many values a body of this length may have.
pub(super) fn most_values(length: usize) -> Cell<usize> {
    Cell::new(length.saturating_mul(VALUES_PER_BYTE).saturating_add(VALUES))
}

impl Bounds<'_> {
    /// One more value comes.
    fn count<E: Error>(&self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1);
        self.left.set(left.ok_or_else(|| E::custom("it has too many values for its length"))?);
        Ok(())
    }
}

impl<'b, T> Bounded<'b, T> {
    /// Bounds what is read from a body of this length, of which this many values are
    /// [left](most_values).
    pub(super) fn new(inner: T, length: usize, left: &'b Cell<usize>) -> Self {
        Bounded { inner, bounds: Bounds { depth: MAX_DEPTH, believed: length, left } }
    }

    /// What belongs to the inside of this.
    fn with<U>(&self, inner: U) -> Bounded<'b, U> {
        Bounded { inner, bounds: self.bounds }
    }

    /// What is inside, one level down.
    fn descend<U, E: Error>(&self, inner: U) -> Result<Bounded<'b, U>, E> {
        let Some(depth) = self.bounds.depth.checked_sub(1) else {
            return Err(E::custom(format_args!("it is nested in more than {MAX_DEPTH} levels")));
        };
        Ok(Bounded { inner, bounds: Bounds { depth, ..self.bounds } })
    }
}

/// Passes the methods of a deserializer on, with a visitor that is bounded.
macro_rules! deserialize {
    ($($name:ident($($argument:ident: $Type:ty),*))*) => {
        $(
            fn $name<V: Visitor<'de>>(
                self,
                $($argument: $Type,)*
                visitor: V,
            ) -> Result<V::Value, D::Error> {
                let visitor = self.with(visitor);
                self.inner.$name($($argument,)* visitor)
            }
        )*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Bounded<'_, D> {
    type Error = D::Error;

    deserialize! {
        deserialize_any() deserialize_ignored_any() deserialize_identifier()
        deserialize_bool() deserialize_char() deserialize_unit()
        deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64() deserialize_i128()
        deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128()
        deserialize_f32() deserialize_f64()
        deserialize_str() deserialize_string() deserialize_bytes() deserialize_byte_buf()
        deserialize_option() deserialize_seq() deserialize_map()
        deserialize_tuple(len: usize)
        deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str)
        deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Passes values on that have none inside.
macro_rules! visit {
    ($($name:ident($Type:ty))*) => {
        $(
            fn $name<E: Error>(self, value: $Type) -> Result<V::Value, E> {
                self.inner.$name(value)
            }
        )*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Bounded<'_, V> {
    type Value = V::Value;

    visit! {
        visit_bool(bool) visit_char(char)
        visit_i8(i8) visit_i16(i16) visit_i32(i32) visit_i64(i64) visit_i128(i128)
        visit_u8(u8) visit_u16(u16) visit_u32(u32) visit_u64(u64) visit_u128(u128)
        visit_f32(f32) visit_f64(f64)
        visit_str(&str) visit_borrowed_str(&'de str) visit_string(String)
        visit_bytes(&[u8]) visit_borrowed_bytes(&'de [u8]) visit_byte_buf(Vec<u8>)
    }

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        let value = self.descend(value)?;
        self.inner.visit_some(value)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        // It is not there in the bytes.
        let value = self.with(value);
        self.inner.visit_newtype_struct(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, values: A) -> Result<V::Value, A::Error> {
        let values = self.descend(values)?;
        self.inner.visit_seq(values)
    }

    fn visit_map<A: MapAccess<'de>>(self, pairs: A) -> Result<V::Value, A::Error> {
        let pairs = self.descend(pairs)?;
        self.inner.visit_map(pairs)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        let variant = self.descend(variant)?;
        self.inner.visit_enum(variant)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Bounded<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.deserialize(deserializer)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.bounds.count()?;
        let seed = self.with(seed);
        self.inner.next_element_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.inner.size_hint()?.min(self.bounds.believed))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.bounds.count()?;
        let seed = self.with(seed);
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.with(seed);
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.inner.size_hint()?.min(self.bounds.believed))
    }
}

impl<'de, 'b, A: EnumAccess<'de>> EnumAccess<'de> for Bounded<'b, A> {
    type Error = A::Error;
    type Variant = Bounded<'b, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let bounds = self.bounds;
        let (name, inner) = self.inner.variant_seed(Bounded { inner: seed, bounds })?;
        Ok((name, Bounded { inner, bounds }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.with(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.with(visitor);
        self.inner.tuple_variant(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.with(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}
