//! Values as the page writes them (docs/protocol.md, "Values"), and reading them back.
//!
//! Written from the page alone. Not here: which values make a message. Invariant: a reader never
//! panics and never reads beyond its bytes; a writer writes the shortest form.

use std::fmt;

/// Why bytes are not the value they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The bytes end in the middle of a value.
    Short,
    /// Bytes are left behind the value.
    Trailing(usize),
    /// A varint is longer than it need be.
    NotShortest,
    /// A number is larger than its type.
    Overflow,
    /// A `bool` or `Option` is neither 0 nor 1.
    Flag(u8),
    /// Text is not UTF-8.
    Utf8,
    /// An enum has no such variant.
    Variant(&'static str, u64),
    /// A list has more items than it may.
    TooMany(&'static str, u64),
    /// Anything else that the page forbids.
    Rule(String),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("the bytes end too soon"),
            Self::Trailing(count) => write!(f, "{count} bytes are left over"),
            Self::NotShortest => f.write_str("a varint is not in its shortest form"),
            Self::Overflow => f.write_str("a number does not fit its type"),
            Self::Flag(byte) => write!(f, "{byte} stands where 0 or 1 must"),
            Self::Utf8 => f.write_str("text is not UTF-8"),
            Self::Variant(what, number) => write!(f, "{what} has no variant {number}"),
            Self::TooMany(what, count) => write!(f, "{count} items are too many of {what}"),
            Self::Rule(rule) => f.write_str(rule),
        }
    }
}

impl std::error::Error for Malformed {}

/// Whether a longer form of a varint is taken: FRM-011 lets messages have it, ENC-002 forbids it in
/// chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Varints {
    /// Any form that fits.
    Any,
    /// The shortest alone.
    Shortest,
}

/// Bytes that are being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// 7 bits a byte, least significant first.
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// 0, -1, 1, -2 as 0, 1, 2, 3.
    pub fn zigzag(&mut self, value: i64) {
        self.varint(((value << 1) ^ (value >> 63)) as u64);
    }

    /// Length, then the bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }
}

/// Bytes that are being read.
#[derive(Clone, Debug)]
pub struct Reader<'b> {
    bytes: &'b [u8],
    varints: Varints,
}

impl<'b> Reader<'b> {
    /// Reads a message.
    #[must_use]
    pub fn of_message(bytes: &'b [u8]) -> Self {
        Self { bytes, varints: Varints::Any }
    }

    /// Reads inside a chunk.
    #[must_use]
    pub fn of_chunk(bytes: &'b [u8]) -> Self {
        Self { bytes, varints: Varints::Shortest }
    }

    /// Whether everything was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn raw(&mut self, count: usize) -> Result<&'b [u8], Malformed> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(Malformed::Short)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// One byte.
    ///
    /// # Errors
    /// There is none.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        self.raw(1).map(|byte| byte[0])
    }

    /// A varint of at most `bits` bits.
    ///
    /// # Errors
    /// It is cut, too large, or (inside chunks) too long.
    pub fn varint(&mut self, bits: u32) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for at in 0..bits.div_ceil(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if at * 7 + (64 - part.leading_zeros()) > bits {
                return Err(Malformed::Overflow);
            }
            value |= part << (at * 7);
            if byte & 0x80 == 0 {
                let is_long = byte == 0 && at > 0;
                let forbidden = is_long && self.varints == Varints::Shortest;
                return if forbidden { Err(Malformed::NotShortest) } else { Ok(value) };
            }
        }
        Err(Malformed::Overflow)
    }

    /// A zigzag varint.
    ///
    /// # Errors
    /// As [`Self::varint`].
    pub fn zigzag(&mut self) -> Result<i64, Malformed> {
        let raw = self.varint(64)?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// A length and as many bytes.
    ///
    /// # Errors
    /// They are not there.
    pub fn bytes(&mut self) -> Result<&'b [u8], Malformed> {
        let length = self.varint(64)?;
        self.raw(usize::try_from(length).map_err(|_| Malformed::Short)?)
    }

    /// A byte that is 0 or 1.
    ///
    /// # Errors
    /// It is something else.
    pub fn flag(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Malformed::Flag(other)),
        }
    }

    /// What is left, all of it.
    pub fn rest(&mut self) -> &'b [u8] {
        std::mem::take(&mut self.bytes)
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// Something is.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(Malformed::Trailing(self.bytes.len())) }
    }
}

/// What can be written and read.
pub trait Wire: Sized {
    /// Writes it.
    fn write(&self, to: &mut Writer);

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed>;

    /// Its bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        self.write(&mut writer);
        writer.0
    }

    /// Reads a whole message: nothing may be left.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::of_message(bytes);
        let value = Self::read(&mut reader)?;
        reader.end()?;
        Ok(value)
    }
}

macro_rules! unsigned {
    ($($type:ty),*) => {$(
        impl Wire for $type {
            fn write(&self, to: &mut Writer) {
                to.varint(u64::from(*self));
            }
            fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                from.varint(<$type>::BITS)?.try_into().map_err(|_| Malformed::Overflow)
            }
        }
    )*};
}

unsigned!(u16, u32, u64);

impl Wire for u8 {
    fn write(&self, to: &mut Writer) {
        to.raw(&[*self]);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.byte()
    }
}

impl Wire for i64 {
    fn write(&self, to: &mut Writer) {
        to.zigzag(*self);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.zigzag()
    }
}

impl Wire for bool {
    fn write(&self, to: &mut Writer) {
        to.raw(&[u8::from(*self)]);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.flag()
    }
}

impl Wire for String {
    fn write(&self, to: &mut Writer) {
        to.bytes(self.as_bytes());
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::from_utf8(from.bytes()?.to_vec()).map_err(|_| Malformed::Utf8)
    }
}

impl<const N: usize> Wire for [u8; N] {
    fn write(&self, to: &mut Writer) {
        to.raw(self);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.raw(N)?.try_into().map_err(|_| Malformed::Short)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn write(&self, to: &mut Writer) {
        to.raw(&[u8::from(self.is_some())]);
        if let Some(value) = self {
            value.write(to);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        if from.flag()? { T::read(from).map(Some) } else { Ok(None) }
    }
}

/// How many, then each: `Vec<T, N>` of the page, and `&[u8]` with `u8` as `T`.
impl<T: Wire> Wire for Vec<T> {
    fn write(&self, to: &mut Writer) {
        to.varint(self.len() as u64);
        self.iter().for_each(|item| item.write(to));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = from.varint(64)?;
        // Each item has a byte at least, so a false count ends at the end of the bytes.
        (0..count).map(|_| T::read(from)).collect()
    }
}

/// `Items<T>` of the page: length in bytes, then each, one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Items<T>(pub Vec<T>);

impl<T: Wire> Items<T> {
    /// Reads a body that is the items alone, without the length (FRM-013).
    ///
    /// # Errors
    /// An item does not decode, or has no bytes.
    pub fn bare(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::of_message(bytes);
        let mut items = Vec::new();
        while !reader.is_empty() {
            let before = reader.bytes.len();
            items.push(T::read(&mut reader)?);
            if reader.bytes.len() == before {
                return Err(Malformed::Rule("an item has no bytes".into()));
            }
        }
        Ok(Self(items))
    }
}

impl<T: Wire> Wire for Items<T> {
    fn write(&self, to: &mut Writer) {
        let mut inner = Writer::default();
        self.0.iter().for_each(|item| item.write(&mut inner));
        to.bytes(&inner.0);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::bare(from.bytes()?)
    }
}

/// A struct of the page: its fields in order.
macro_rules! message {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $(#[doc = concat!("`", stringify!($field), "`, as docs/protocol-messages.md says.")]
            pub $field: $type,)*
        }

        impl $crate::wire::primitive::Wire for $name {
            fn write(&self, to: &mut $crate::wire::primitive::Writer) {
                $($crate::wire::primitive::Wire::write(&self.$field, to);)*
            }

            fn read(
                from: &mut $crate::wire::primitive::Reader<'_>,
            ) -> Result<Self, $crate::wire::primitive::Malformed> {
                Ok(Self { $($field: $crate::wire::primitive::Wire::read(from)?,)* })
            }
        }
    };
}

/// An enum of the page whose variants hold nothing.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $number:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $(#[doc = concat!("Variant ", stringify!($number), ".")]
            $variant = $number,)*
        }

        impl $crate::wire::primitive::Wire for $name {
            fn write(&self, to: &mut $crate::wire::primitive::Writer) {
                to.varint(*self as u64);
            }

            fn read(
                from: &mut $crate::wire::primitive::Reader<'_>,
            ) -> Result<Self, $crate::wire::primitive::Malformed> {
                match from.varint(32)? {
                    $($number => Ok(Self::$variant),)*
                    other => Err($crate::wire::primitive::Malformed::Variant(
                        stringify!($name),
                        other,
                    )),
                }
            }
        }
    };
}

pub(crate) use {choice, message};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_one_shortest_form() {
        let mut writer = Writer::default();
        for value in [0, 127, 128, 300, u64::MAX] {
            writer.varint(value);
        }
        let mut reader = Reader::of_chunk(&writer.0);
        for value in [0, 127, 128, 300, u64::MAX] {
            assert_eq!(reader.varint(64), Ok(value));
        }
        assert_eq!(reader.end(), Ok(()));
        assert_eq!(Reader::of_message(&[0x81, 0]).varint(64), Ok(1));
        assert_eq!(Reader::of_chunk(&[0x81, 0]).varint(64), Err(Malformed::NotShortest));
        assert_eq!(Reader::of_message(&[0xff, 0xff, 4]).varint(16), Err(Malformed::Overflow));
        assert_eq!(Reader::of_message(&[0xff; 11]).varint(64), Err(Malformed::Overflow));
    }

    #[test]
    fn signs_alternate() {
        for (value, bytes) in [(0, [0]), (-1, [1]), (1, [2]), (-2, [3])] {
            assert_eq!(value.to_bytes(), bytes);
            assert_eq!(i64::from_bytes(&bytes), Ok(value));
        }
        assert_eq!(i64::from_bytes(&i64::MIN.to_bytes()), Ok(i64::MIN));
    }

    #[test]
    fn a_false_count_ends_with_the_bytes() {
        let bytes = [0xff, 0xff, 0xff, 0xff, 0x0f, 1];
        assert_eq!(Vec::<u64>::from_bytes(&bytes), Err(Malformed::Short));
        assert_eq!(Items::<u64>::from_bytes(&[2, 5, 0x85]), Err(Malformed::Short));
        assert_eq!(Items::<u64>::from_bytes(&[2, 5, 6]), Ok(Items(vec![5, 6])));
    }
}
