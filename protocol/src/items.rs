//! A list on the wire: one byte string that holds the items one after the other.
//!
//! Nothing is allocated for a list: items are decoded one at a time as they are looked at, so a
//! false count cannot cost memory and a list of large enums costs only what it says.

use core::fmt;
use core::marker::PhantomData;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{BufferFull, DecodeError};

/// A borrowed list of `T`, still encoded.
pub struct Items<'a, T> {
    bytes: &'a [u8],
    item: PhantomData<fn() -> T>,
}

impl<'a, T> Items<'a, T> {
    /// The empty list.
    pub const EMPTY: Self = Self { bytes: &[], item: PhantomData };

    /// A list from bytes that hold encoded items; they are checked as they are looked at.
    #[must_use]
    pub const fn from_bytes(bytes: &'a [u8]) -> Self {
        Self { bytes, item: PhantomData }
    }

    /// The encoded items.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether the list has no items.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl<'a, T: Deserialize<'a>> Items<'a, T> {
    /// The items in order; ends after the first that does not decode.
    #[must_use]
    pub fn iter(&self) -> ItemsIter<'a, T> {
        ItemsIter { rest: self.bytes, item: PhantomData }
    }
}

impl<'a, T: Serialize> Items<'a, T> {
    /// Encodes `items` into `buffer`.
    ///
    /// # Errors
    /// [`BufferFull`] when they do not fit.
    pub fn encode<I>(items: I, buffer: &'a mut [u8]) -> Result<Self, BufferFull>
    where
        I: IntoIterator<Item = T>,
    {
        let mut length = 0;
        for item in items {
            let room = buffer.get_mut(length..).ok_or(BufferFull)?;
            length += postcard::to_slice(&item, room).map_err(|_| BufferFull)?.len();
        }
        Ok(Self::from_bytes(buffer.get(..length).ok_or(BufferFull)?))
    }
}

impl<'a, T: Deserialize<'a>> IntoIterator for &Items<'a, T> {
    type Item = Result<T, DecodeError>;
    type IntoIter = ItemsIter<'a, T>;
    fn into_iter(self) -> ItemsIter<'a, T> {
        self.iter()
    }
}

impl<T> Clone for Items<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Items<'_, T> {}
impl<T> PartialEq for Items<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}
impl<T> Eq for Items<'_, T> {}
impl<T> fmt::Debug for Items<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Items({} bytes)", self.bytes.len())
    }
}

impl<T> Serialize for Items<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.bytes)
    }
}

impl<'de: 'a, 'a, T> Deserialize<'de> for Items<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'a [u8]>::deserialize(deserializer).map(Self::from_bytes)
    }
}

/// Decodes one item after the other.
pub struct ItemsIter<'a, T> {
    rest: &'a [u8],
    item: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for ItemsIter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ItemsIter({} bytes)", self.rest.len())
    }
}

impl<'a, T: Deserialize<'a>> Iterator for ItemsIter<'a, T> {
    type Item = Result<T, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match postcard::take_from_bytes::<T>(self.rest) {
            // An item of no bytes would never end the list.
            Ok((item, rest)) if rest.len() < self.rest.len() => {
                self.rest = rest;
                Some(Ok(item))
            }
            _ => {
                self.rest = &[];
                Some(Err(DecodeError::Shape))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn items_come_back_in_order() {
        let mut buffer = [0; 64];
        let items = Items::<(u16, &str)>::encode([(1, "a"), (300, "bc")], &mut buffer).unwrap();
        let back: Result<Vec<_>, _> = items.iter().collect();
        assert_eq!(back, Ok(std::vec![(1, "a"), (300, "bc")]));
    }

    #[test]
    fn a_broken_item_ends_the_list_with_one_error() {
        let items = Items::<&str>::from_bytes(&[1, b'a', 9, b'b']);
        let back: Vec<_> = items.iter().collect();
        assert_eq!(back, [Ok("a"), Err(DecodeError::Shape)]);
    }

    #[test]
    fn items_of_no_bytes_do_not_loop() {
        assert_eq!(Items::<()>::from_bytes(&[0; 8]).iter().count(), 1);
    }
}
