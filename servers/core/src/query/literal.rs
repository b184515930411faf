//! A value as written in an expression, and whether an element's value is it, above it or below it.
//!
//! Invariant: a value is compared as its own type; text is compared as bytes.

use core::net::IpAddr;
use std::cmp::Ordering;

use lapwing_protocol::element::Type;
use lapwing_protocol::id::ElementGuid;

use super::moment;
use crate::change::OwnedValue;

/// A value as written, with every reading it allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Literal {
    pub(super) text: String,
    pub(super) number: Option<i128>,
    pub(super) boolean: Option<bool>,
    pub(super) network: Option<Network>,
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) guid: Option<ElementGuid>,
    pub(super) moment_ms: Option<u64>,
}

impl Literal {
    pub(super) fn new(now_ms: u64, text: String) -> Self {
        Self {
            number: number(&text),
            boolean: match text.as_str() {
                "true" | "yes" => Some(true),
                "false" | "no" => Some(false),
                _ => None,
            },
            network: Network::parse(&text),
            bytes: hex(&text),
            guid: text.to_ascii_lowercase().parse().ok(),
            moment_ms: moment::parse(now_ms, &text),
            text,
        }
    }

    /// Whether it can be a value of `value_type`.
    pub(super) fn fits(&self, value_type: Type) -> bool {
        match value_type {
            Type::U64 | Type::I64 | Type::Time => self.number.is_some(),
            Type::Bool => self.boolean.is_some(),
            Type::Bytes | Type::Hash => self.bytes.is_some(),
            Type::Text => true,
            Type::Ip => self.network.is_some(),
            Type::Ref => self.guid.is_some(),
        }
    }

    /// How `value` stands to it; `None` where they cannot be compared.
    pub(super) fn order_of(&self, value: &OwnedValue) -> Option<Ordering> {
        match value {
            OwnedValue::U64(value) | OwnedValue::Time(value) => {
                Some(i128::from(*value).cmp(&self.number?))
            }
            OwnedValue::I64(value) => Some(i128::from(*value).cmp(&self.number?)),
            OwnedValue::Bool(value) => Some(value.cmp(&self.boolean?)),
            OwnedValue::Text(value) => Some((**value).cmp(self.text.as_bytes())),
            OwnedValue::Bytes(value) | OwnedValue::Hash(value) => {
                Some((**value).cmp(self.bytes.as_deref()?))
            }
            OwnedValue::Ip(value) => Some(self.network?.order_of(*value)),
            OwnedValue::Element(value) => Some(value.cmp(&self.guid?)),
        }
    }
}

/// What a literal of `value_type` looks like, for errors.
pub(super) const fn expectation(value_type: Type) -> &'static str {
    match value_type {
        Type::U64 | Type::I64 => "a number",
        Type::Time => "a number of nanoseconds since boot",
        Type::Bool => "true or false",
        Type::Bytes | Type::Hash => "hexadecimal digits",
        Type::Text => "a text",
        Type::Ip => "an address or a network such as 10.0.0.0/8",
        Type::Ref => "a guid of 32 hexadecimal digits",
    }
}

/// Addresses that share their first bits; one address is a network of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(width);
        (bits <= width).then_some(Self { address, bits })
    }

    fn order_of(self, address: IpAddr) -> Ordering {
        let address = if self.address.is_ipv4() { address.to_canonical() } else { address };
        match (address, self.address) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                (one.to_bits() & mask).cmp(&(other.to_bits() & mask))
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                (one.to_bits() & mask).cmp(&(other.to_bits() & mask))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) => Ordering::Less,
            (IpAddr::V6(_), IpAddr::V4(_)) => Ordering::Greater,
        }
    }
}

fn number(text: &str) -> Option<i128> {
    match text.strip_prefix("0x") {
        Some(digits) => i128::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || text.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks_exact(2);
    pairs.map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8)).collect()
}

/// Whether `text` is what `pattern` says; `*` in it stands for any run of bytes.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut in_pattern, mut in_text) = (0, 0);
    // Where to go on when what follows the last star does not fit.
    let mut retry: Option<(usize, usize)> = None;
    while in_text < text.len() {
        match pattern.get(in_pattern) {
            Some(b'*') => {
                retry = Some((in_pattern, in_text));
                in_pattern += 1;
            }
            Some(byte) if text.get(in_text) == Some(byte) => {
                in_pattern += 1;
                in_text += 1;
            }
            _ => {
                let Some((star, from)) = retry else { return false };
                retry = Some((star, from + 1));
                (in_pattern, in_text) = (star + 1, from + 1);
            }
        }
    }
    pattern.get(in_pattern..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_any_run() {
        for (pattern, text, is_match) in [
            ("", "", true),
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "abd", false),
            ("*bin*sh", "/usr/bin/zsh", true),
            ("*ab", "aab", true),
            ("abc", "abcd", false),
            ("a**b*", "axbx", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), is_match, "{pattern} {text}");
        }
    }

    #[test]
    fn networks_hold_their_addresses() {
        let value = |text: &str| OwnedValue::Ip(text.parse().unwrap());
        let is = |literal: &str, address: &str| {
            Literal::new(0, literal.to_owned()).order_of(&value(address)) == Some(Ordering::Equal)
        };
        assert!(is("10.0.0.0/8", "10.9.8.7") && !is("10.0.0.0/8", "11.0.0.0"));
        assert!(is("0.0.0.0/0", "1.2.3.4") && is("fe80::/10", "fe80::1"));
        assert!(is("127.0.0.1", "::ffff:127.0.0.1") && !is("::1", "127.0.0.1"));
    }

    #[test]
    fn a_hash_is_compared_whatever_the_case() {
        let literal = Literal::new(0, "AB01".to_owned());
        let hash = OwnedValue::Hash([0xab, 1].as_slice().into());
        assert_eq!(literal.order_of(&hash), Some(Ordering::Equal));
    }
}
