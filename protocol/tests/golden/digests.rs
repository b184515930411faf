//! Chains, row digests, ids, canonical rows and keys.

use core::net::IpAddr;

use lapwing_protocol::digest::{
    Chain, derived_id, element_guid, event_guid, keyed_hash, row_digest,
};
use lapwing_protocol::element::{
    Feature, Field, KindSpec, Reference, Value, connection, dns, process, service, user,
};
use lapwing_protocol::id::Lane;
use lapwing_protocol::row;

use crate::book::Book;
use crate::names::*;

fn row_of(fields: &[Field<'_>], spec: &KindSpec<'_>) -> Vec<u8> {
    let mut buffer = [0; 512];
    let row = row::write(fields, &mut buffer).unwrap().to_vec();
    let back: Result<Vec<_>, _> = row::Fields::new(&row, spec).unwrap().collect();
    let kept: Vec<_> =
        fields.iter().filter(|field| field.feature != Feature::SOURCE_SEQ).copied().collect();
    assert_eq!(back.unwrap(), kept);
    for length in 1..row.len() {
        let part: Result<Vec<_>, _> = match row::Fields::new(&row[..length], spec) {
            Ok(fields) => fields.collect(),
            Err(_) => continue,
        };
        assert!(part.is_err(), "{length} bytes are a row too");
    }
    row
}

fn key_of(fields: &[Field<'_>], spec: &KindSpec<'_>) -> Vec<u8> {
    let mut buffer = [0; 512];
    row::key(fields, spec, &mut buffer).unwrap().to_vec()
}

fn service_fields() -> [Field<'static>; 3] {
    [
        Field::new(Feature::SOURCE_SEQ, Value::U64(9)),
        Field::new(service::name, Value::text("ssh")),
        Field::new(service::state, Value::text("active")),
    ]
}

fn process_fields() -> [Field<'static>; 8] {
    let parent = Reference { kind: process::KIND, key: &[1, 0] };
    [
        Field::new(Feature::MISSING, Value::U64(1 << process::image_hash.0)),
        Field::new(Feature::TRUNCATED, Value::U64(1 << process::command_line.0)),
        Field::new(process::pid, Value::U64(4_711)),
        Field::new(process::start_ticks, Value::U64(300_000)),
        Field::new(process::parent, Value::Ref(parent)),
        Field::new(process::command_line, Value::text("sleep 1")),
        Field::new(process::started, Value::Time(3_000_000_000)),
        Field::new(process::exit_code, Value::I64(-1)),
    ]
}

fn connection_fields() -> [Field<'static>; 6] {
    [
        Field::new(connection::protocol, Value::U64(6)),
        Field::new(connection::local_address, Value::Ip(IpAddr::from([127, 0, 0, 1]))),
        Field::new(connection::local_port, Value::U64(50_000)),
        Field::new(connection::remote_address, Value::Ip(IpAddr::from([0x20; 16]))),
        Field::new(connection::remote_port, Value::U64(443)),
        Field::new(connection::first_seen, Value::Time(5_000_000_000)),
    ]
}

fn user_fields() -> [Field<'static>; 3] {
    [
        Field::new(user::uid, Value::U64(0)),
        Field::new(user::name, Value::text("root")),
        Field::new(user::logged_in, Value::Bool(true)),
    ]
}

#[test]
fn rows_and_keys() {
    let mut book = Book::new("rows");
    book.enter("row_service", &row_of(&service_fields(), &service::SPEC));
    book.enter("row_process", &row_of(&process_fields(), &process::SPEC));
    book.enter("row_connection", &row_of(&connection_fields(), &connection::SPEC));
    book.enter("row_user", &row_of(&user_fields(), &user::SPEC));
    book.enter("row_empty", &row_of(&[], &dns::SPEC));
    book.enter("key_service", &key_of(&service_fields(), &service::SPEC));
    book.enter("key_process", &key_of(&process_fields(), &process::SPEC));
    book.enter("key_connection", &key_of(&connection_fields(), &connection::SPEC));
    book.enter("key_user", &key_of(&user_fields(), &user::SPEC));
    book.close();
}

#[test]
fn chains_digests_and_ids() {
    let mut book = Book::new("digests");
    let bulk = Chain::start(DEPLOYMENT, SENSOR, Lane::Bulk, BULK_LOG);
    book.enter("chain_start_bulk", &bulk.0);
    book.enter("chain_start_urgent", &Chain::start(DEPLOYMENT, SENSOR, Lane::Urgent, BULK_LOG).0);
    book.enter("chain_next_of_010203", &bulk.next(&[1, 2, 3]).0);
    let row = row_of(&service_fields(), &service::SPEC);
    // The numbers as they stand in a keyframe's end: little-endian.
    book.enter("row_digest", &row_digest(BULK_LOG, service::KIND, &row).to_le_bytes());
    book.enter("keyed_hash", &keyed_hash(&[7; 16], b"/bin/sh").to_le_bytes());
    let key = key_of(&service_fields(), &service::SPEC);
    let of_machine = element_guid(DEPLOYMENT, SENSOR, (service::KIND, None), &key);
    book.enter("guid_service", &of_machine.0);
    let key = key_of(&process_fields(), &process::SPEC);
    let of_boot = element_guid(DEPLOYMENT, SENSOR, (process::KIND, Some(BOOT)), &key);
    book.enter("guid_process", &of_boot.0);
    let row = row_of(&[Field::new(dns::question, Value::text("bad.example"))], &dns::SPEC);
    let event = event_guid(DEPLOYMENT, SENSOR, (dns::KIND, BOOT, 5_000_000_000), &row);
    book.enter("guid_dns_event", &event.0);
    let parts: [&[u8]; 3] = [b"blocklisted_hash", &of_boot.0, b""];
    book.enter("evidence_id", &derived_id(b"lapwing-evidence-1", &parts));
    book.close();
}
