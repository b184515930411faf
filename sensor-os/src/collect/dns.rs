//! Answers of name servers, taken apart: an IP packet, a UDP datagram in it, a DNS message in
//! that.
//!
//! Pure, and meant for hostile bytes: anybody on the network can send a packet from port 53. Every
//! read is bounded, a compressed name may only point backwards, and what does not hold is `None`.
//! Names leave here in lower case with every byte that is not a letter, digit, `-`, `_` or `.`
//! written as `\` and three decimal digits, so that no name can speak to a terminal or a page.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::limits::ANSWERS_MAX;

/// An answer as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The name server.
    pub(crate) server: IpAddr,
    /// Where the asker's socket is.
    pub(crate) asker: (IpAddr, u16),
    /// The DNS message.
    pub(crate) message: Message,
}

/// The part of a DNS answer that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The number that ties it to its question.
    pub(crate) id: u16,
    /// The name asked for, escaped, in lower case, without the last dot.
    pub(crate) question: String,
    /// The type asked for.
    pub(crate) question_type: u16,
    /// What the server says: 0 fine, 3 no such name.
    pub(crate) response_code: u8,
    /// The addresses it gives, at most [`ANSWERS_MAX`].
    pub(crate) addresses: Vec<IpAddr>,
}

const UDP: u8 = 17;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const CLASS_INTERNET: u16 = 1;
/// A name's bound in the standard, escapes not counted.
const NAME_BYTES_MAX: usize = 255;

/// Takes apart an IPv4 or IPv6 packet, from its header on.
pub(crate) fn parse_packet(packet: &[u8]) -> Option<Answer> {
    let version = packet.first()? >> 4;
    let (server, asker, datagram): (IpAddr, IpAddr, &[u8]) = match version {
        4 => {
            let header_bytes = usize::from(packet.first()? & 0x0f) * 4;
            let fragment = u16_at(packet, 6)? & 0x1fff;
            if header_bytes < 20 || fragment != 0 || *packet.get(9)? != UDP {
                return None;
            }
            let address = |at: usize| {
                let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
                Some(Ipv4Addr::from(octets))
            };
            (address(12)?.into(), address(16)?.into(), packet.get(header_bytes..)?)
        }
        6 => {
            if *packet.get(6)? != UDP {
                return None;
            }
            let address = |at: usize| {
                let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(octets))
            };
            (address(8)?.into(), address(24)?.into(), packet.get(40..)?)
        }
        _ => return None,
    };
    let port = u16_at(datagram, 2)?;
    let message = parse_message(datagram.get(8..)?)?;
    Some(Answer { server, asker: (asker, port), message })
}

/// Takes apart a DNS message that is an answer to one question.
pub(crate) fn parse_message(message: &[u8]) -> Option<Message> {
    const RESPONSE: u16 = 0x8000;
    const OPERATION: u16 = 0x7800;
    let id = u16_at(message, 0)?;
    let flags = u16_at(message, 2)?;
    let (questions, answers) = (u16_at(message, 4)?, u16_at(message, 6)?);
    if flags & RESPONSE == 0 || flags & OPERATION != 0 || questions != 1 {
        return None;
    }
    let (question, at) = read_name(message, 12)?;
    let question_type = u16_at(message, at)?;
    if u16_at(message, at.checked_add(2)?)? != CLASS_INTERNET {
        return None;
    }
    let mut at = at.checked_add(4)?;
    let mut addresses = Vec::new();
    for _ in 0..usize::from(answers).min(ANSWERS_MAX) {
        // A record that is cut ends the walk; what came before stands.
        let Some((address, next)) = read_record(message, at) else { break };
        addresses.extend(address);
        at = next;
    }
    let response_code = u8::try_from(flags & 0x000f).ok()?;
    Some(Message { id, question, question_type, response_code, addresses })
}

/// Reads one resource record: its address, if it holds one, and where the next begins.
fn read_record(message: &[u8], at: usize) -> Option<(Option<IpAddr>, usize)> {
    let at = skip_name(message, at)?;
    let record_type = u16_at(message, at)?;
    let class = u16_at(message, at.checked_add(2)?)?;
    let length = usize::from(u16_at(message, at.checked_add(8)?)?);
    let start = at.checked_add(10)?;
    let end = start.checked_add(length)?;
    let data = message.get(start..end)?;
    let address = match (class, record_type) {
        (CLASS_INTERNET, TYPE_A) => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
        (CLASS_INTERNET, TYPE_AAAA) => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
        _ => None,
    };
    Some((address, end))
}

/// Reads a name, and where what follows it begins.
fn read_name(message: &[u8], start: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut bytes = 0;
    let mut at = start;
    let mut earliest = start;
    let mut after = None;
    loop {
        let length = *message.get(at)?;
        match length {
            0 => return Some((name, after.unwrap_or(at + 1))),
            1..=63 => {
                let label = message.get(at + 1..at + 1 + usize::from(length))?;
                bytes += label.len() + 1;
                if bytes > NAME_BYTES_MAX {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                label.iter().for_each(|byte| push_escaped(&mut name, *byte));
                at += 1 + usize::from(length);
            }
            0xc0.. => {
                let target = usize::from(u16_at(message, at)? & 0x3fff);
                // Only further back than ever before: so the walk ends.
                if target >= earliest {
                    return None;
                }
                after = after.or(Some(at + 2));
                earliest = target;
                at = target;
            }
            _ => return None,
        }
    }
}

fn push_escaped(name: &mut String, byte: u8) {
    match byte.to_ascii_lowercase() {
        plain @ (b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') => name.push(char::from(plain)),
        other => {
            name.push('\\');
            for digit in [other / 100, other / 10 % 10, other % 10] {
                name.push(char::from(b'0' + digit));
            }
        }
    }
}

/// Finds where what follows a name begins, without following what it points at.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field: [u8; 2] = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
    Some(u16::from_be_bytes(field))
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
