//! Tests of the DNS parser: good answers, and what a hostile network sends.

use super::*;

fn name(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn message(question: &[u8], records: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes[7] = u8::try_from(records.len()).unwrap();
    bytes.extend_from_slice(question);
    bytes.extend_from_slice(&[0, 1, 0, 1]);
    records.iter().for_each(|record| bytes.extend_from_slice(record));
    bytes
}

fn record(record_type: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xc0, 12, 0, record_type, 0, 1, 0, 0, 0, 60, 0];
    bytes.push(u8::try_from(data.len()).unwrap());
    bytes.extend_from_slice(data);
    bytes
}

fn good() -> Vec<u8> {
    message(
        &name("WWW.Example.org"),
        &[
            &record(5, &name("alias.example.org")),
            &record(1, &[192, 0, 2, 7]),
            &record(28, &Ipv6Addr::LOCALHOST.octets()),
        ],
    )
}

fn packet_v4(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0];
    bytes.extend_from_slice(&[127, 66, 6, 53, 127, 0, 0, 1]);
    bytes.extend_from_slice(&53_u16.to_be_bytes());
    bytes.extend_from_slice(&40_000_u16.to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0, 0]);
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn an_answer_gives_name_type_code_and_addresses() {
    let answer = parse_packet(&packet_v4(&good())).unwrap();
    assert_eq!(answer.server, IpAddr::from([127, 66, 6, 53]));
    assert_eq!(answer.asker, (IpAddr::from([127, 0, 0, 1]), 40_000));
    assert_eq!(answer.message.question, "www.example.org");
    assert_eq!((answer.message.question_type, answer.message.response_code), (1, 0));
    let addresses: [IpAddr; 2] = [[192, 0, 2, 7].into(), Ipv6Addr::LOCALHOST.into()];
    assert_eq!(answer.message.addresses, addresses);
}

#[test]
fn an_answer_over_ipv6_is_read_too() {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, 17, 64];
    packet.extend_from_slice(&Ipv6Addr::LOCALHOST.octets());
    packet.extend_from_slice(&Ipv6Addr::LOCALHOST.octets());
    packet.extend_from_slice(&[0, 53, 0x9c, 0x40, 0, 0, 0, 0]);
    packet.extend_from_slice(&good());
    let answer = parse_packet(&packet).unwrap();
    assert_eq!(answer.asker, (Ipv6Addr::LOCALHOST.into(), 40_000));
}

#[test]
fn a_refusal_has_its_code_and_no_address() {
    let mut bytes = message(&name("nothing.example.org"), &[]);
    bytes[3] = 0x83;
    let parsed = parse_message(&bytes).unwrap();
    assert_eq!((parsed.response_code, parsed.addresses.len()), (3, 0));
}

#[test]
fn a_question_is_not_an_answer() {
    let mut bytes = good();
    bytes[2] = 0x01;
    assert_eq!(parse_message(&bytes), None);
}

#[test]
fn a_name_that_points_at_itself_or_forward_is_refused() {
    for target in [12_u8, 13, 40] {
        assert_eq!(parse_message(&message(&[0xc0, target], &[])), None, "{target}");
    }
    // Two pointers at each other.
    assert_eq!(parse_message(&message(&[0xc0, 14, 0xc0, 12], &[])), None);
}

#[test]
fn a_name_longer_than_the_standard_is_refused() {
    let label = "a".repeat(63);
    let long = [label.as_str(); 5].join(".");
    assert_eq!(parse_message(&message(&name(&long), &[])), None);
}

#[test]
fn a_name_cannot_speak_to_a_terminal() {
    let mut question = vec![5];
    question.extend_from_slice(b"\x1b[2J.");
    question.push(0);
    let parsed = parse_message(&message(&question, &[])).unwrap();
    assert_eq!(parsed.question, "\\027\\0912j\\046");
}

#[test]
fn a_false_count_of_answers_ends_with_the_bytes() {
    let mut bytes = message(&name("a"), &[&record(1, &[1, 2, 3, 4])]);
    bytes[6] = 0xff;
    assert_eq!(parse_message(&bytes).unwrap().addresses.len(), 1);
}

#[test]
fn no_cut_and_no_changed_byte_panics() {
    let packet = packet_v4(&good());
    for length in 0..packet.len() {
        let _ = parse_packet(&packet[..length]);
    }
    for at in 0..packet.len() {
        for value in [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xff] {
            let mut changed = packet.clone();
            changed[at] = value;
            let _ = parse_packet(&changed);
        }
    }
}

#[test]
fn no_random_bytes_panic() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..20_000 {
        let mut bytes = packet_v4(&message(&name("a.b"), &[]));
        for byte in &mut bytes[32..] {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state.to_be_bytes()[0];
        }
        let _ = parse_packet(&bytes);
        let _ = parse_message(&bytes[28..]);
    }
}
