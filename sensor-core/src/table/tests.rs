//! Tests of the table.

use super::*;
use lapwing_protocol::element::{Value, service};
use std::string::String;

fn put(table: &mut Table<'_>, name: &str, state: &str) -> Option<u32> {
    let fields = [
        Field::new(service::name, Value::text(name)),
        Field::new(service::state, Value::text(state)),
    ];
    let staged = table.stage(service::KIND, name.as_bytes(), &fields).ok()?;
    table.commit(&staged)
}

fn with_table(rows: usize, bytes: usize, body: impl FnOnce(&mut Table<'_>)) {
    let mut entries = [RowEntry::default(); 8];
    let mut index = [0; 16];
    let mut arena = [0; 512];
    let keys = ([1; 16], LogId([2; 16]));
    body(&mut Table::new(&mut entries[..rows], &mut index, &mut arena[..bytes], keys));
}

#[test]
fn rows_are_found_replaced_and_removed() {
    with_table(8, 512, |table| {
        assert_eq!(put(table, "ssh", "active"), Some(0));
        assert_eq!(put(table, "cron", "active"), Some(1));
        assert_eq!(put(table, "ssh", "failed"), Some(0));
        assert_eq!(table.find(service::KIND, b"ssh"), Some(0));
        assert_eq!(table.row(0).unwrap().1, b"\x18\x03ssh\x06failed");
        table.remove(0);
        assert_eq!(table.find(service::KIND, b"ssh"), None);
        assert_eq!(table.find(service::KIND, b"cron"), Some(1));
        assert_eq!(put(table, "dbus", "active"), Some(0));
    });
}

#[test]
fn the_digest_is_that_of_the_rows_whatever_came_before() {
    with_table(8, 512, |table| {
        put(table, "a", "x");
        put(table, "b", "y");
        let digest = table.digest();
        put(table, "a", "z");
        put(table, "c", "z");
        table.remove(2);
        put(table, "a", "x");
        assert_eq!(table.digest(), digest);
        table.rekey(LogId([3; 16]));
        assert_ne!(table.digest(), digest);
        table.rekey(LogId([2; 16]));
        assert_eq!(table.digest(), digest);
    });
}

#[test]
fn a_full_table_takes_no_row_and_keeps_the_ones_it_has() {
    with_table(2, 512, |table| {
        put(table, "a", "x");
        put(table, "b", "y");
        assert_eq!(put(table, "c", "z"), None);
        assert_eq!(put(table, "b", "z"), Some(1));
        assert_eq!(table.len(), 2);
    });
}

#[test]
fn the_arena_is_compacted_before_it_is_full() {
    with_table(8, 64, |table| {
        for round in 0..50u32 {
            let state = if round % 2 == 0 { "active" } else { "failed" };
            assert_eq!(put(table, "ssh", state), Some(0), "{round}");
        }
        assert_eq!(put(table, "a-long-name", "with a state that fits no more"), None);
        assert_eq!(put(table, "ssh", "failed"), Some(0));
    });
}

#[test]
fn many_keys_come_and_go() {
    with_table(8, 512, |table| {
        for round in 0..200u32 {
            let name = String::from_iter([char::from(b'a' + (round * 7 % 23) as u8)]);
            match table.find(service::KIND, name.as_bytes()) {
                Some(slot) => table.remove(slot),
                None if table.has_slot() => assert!(put(table, &name, "x").is_some()),
                None => table.remove(round % 8),
            }
            for slot in 0..8 {
                let Some((_, row)) = table.row(slot) else { continue };
                assert_eq!(table.find(service::KIND, &row[2..3]), Some(slot));
            }
        }
    });
}

#[test]
fn rows_that_a_scan_did_not_see_are_found() {
    with_table(8, 512, |table| {
        put(table, "a", "x");
        put(table, "b", "x");
        table.begin_scan(service::KIND);
        table.see(0);
        put(table, "c", "x");
        assert_eq!(table.next_unseen(service::KIND, 0), Some(1));
        assert_eq!(table.next_unseen(service::KIND, 2), None);
    });
}
