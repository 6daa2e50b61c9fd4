//! What a typed method is called with.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeTuple, Serializer};

/// The arguments of a method of [`service!`](crate::rpc::service), a tuple with up to 16 of them:
/// on the wire a sequence, also of none or of one.
///
/// In MessagePack and in JSON nil or null stand for none, too. There those at the end may be
/// missing that are an `Option`, and are `None` then. So a method can be given another argument
/// without breaking clients that call it as it was. In postcard, which doesn't say how many there
/// are, all must be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arguments<T>(pub T);

/// What an argument is that is not there: `None`, or an error.
fn missing<T: DeserializeOwned, E: Error>(index: usize, count: usize) -> Result<T, E> {
    struct Absent<E>(PhantomData<E>);

    impl<'de, E: Error> Deserializer<'de> for Absent<E> {
        type Error = E;

        fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, E> {
            Err(E::custom("it is missing"))
        }

        fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
            visitor.visit_none()
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
            unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
            ignored_any
        }
    }

    T::deserialize(Absent(PhantomData))
        .map_err(|_: E| E::custom(format_args!("there are {index} arguments in place of {count}")))
}

macro_rules! arguments {
    ($count:tt $($Type:ident $index:tt)*) => {
        impl<$($Type: Serialize),*> Serialize for Arguments<($($Type,)*)> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                #[allow(unused_mut)]
                let mut tuple = serializer.serialize_tuple($count)?;
                $(tuple.serialize_element(&self.0.$index)?;)*
                tuple.end()
            }
        }

        impl<'de, $($Type: DeserializeOwned),*> Deserialize<'de> for Arguments<($($Type,)*)> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Values<T>(PhantomData<T>);

                impl<'de, $($Type: DeserializeOwned),*> Visitor<'de> for Values<($($Type,)*)> {
                    type Value = ($($Type,)*);

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "a sequence of {} arguments", $count)
                    }

                    #[allow(unused_mut, unused_variables)]
                    fn visit_seq<Q: SeqAccess<'de>>(
                        self,
                        mut values: Q,
                    ) -> Result<Self::Value, Q::Error> {
                        Ok(($(
                            match values.next_element::<$Type>()? {
                                Some(value) => value,
                                None => missing($index, $count)?,
                            },
                        )*))
                    }

                    fn visit_unit<X: Error>(self) -> Result<Self::Value, X> {
                        Ok(($(missing::<$Type, X>($index, $count)?,)*))
                    }
                }

                let values = Values(PhantomData);
                if deserializer.is_human_readable() {
                    return deserializer.deserialize_any(values).map(Arguments); // JSON has null.
                }
                deserializer.deserialize_tuple($count, values).map(Arguments)
            }
        }
    };
}

/// For each number of arguments up to that of these names.
macro_rules! up_to {
    ([$($before:ident $index:tt)*] $count:tt) => {
        arguments!($count $($before $index)*);
    };
    ([$($before:ident $index:tt)*] $count:tt $Next:ident $($rest:tt)*) => {
        arguments!($count $($before $index)*);
        up_to!([$($before $index)* $Next $count] $($rest)*);
    };
}

up_to!([] 0 A 1 B 2 C 3 E 4 F 5 G 6 H 7 I 8 J 9 K 10 L 11 M 12 N 13 O 14 P 15 R 16);
