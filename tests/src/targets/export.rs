//! Files of an export that somebody else wrote, or that a disk damaged: with checksums that hold
//! and with some that do not.
//!
//! Laws: nothing panics; a file that is refused leaves no folder; one that is taken makes a folder
//! that can be exported again, with as many entries as it told of.
#![allow(clippy::expect_used, reason = "a law that does not hold is a panic")]

use std::fs;

use lapwing_store::transfer::{self, Life};
use lapwing_store::{DiskOptions, Engine, FORMAT_VERSION};
use sha2::{Digest as _, Sha256};

use super::input::Input;
use super::spool::memory_folder;

const LIFE: Life<'static> = Life { incarnation: [9; 16], forgotten: &[("state", b"incarnation")] };
const MAGIC: &[u8; 8] = b"LAPWSTO1";
/// Names of stores: one that each server has, a journal's, a second of each sort, impossible ones.
const NAMES: [&[u8]; 8] =
    [b"state", b"journal/20260101-000001", b"rows", b"journal/x", b"..", b"a/b/c", b"", b"\xff"];
/// Records of one file.
const RECORDS_MAX: usize = 24;

/// A file record by record; then, perhaps, changed where it lies.
///
/// Repeated: what the record is, and what is in it. Then: whether bytes are changed, and which.
pub fn export(data: &[u8]) {
    let folder = tempfile::tempdir_in(memory_folder()).expect("a folder for the export");
    let (file, made) = (folder.path().join("file"), folder.path().join("made"));
    fs::write(&file, written(&mut Input::new(data))).expect("the file can be written");
    let options = DiskOptions::of(Engine::default());
    let Ok(taken) = transfer::import(&file, &made, &options, &LIFE, &mut |_| ()) else {
        assert!(!made.exists(), "a refused file leaves nothing");
        return;
    };
    assert!(made.is_dir(), "what was taken is there");
    if taken.stores > 0 {
        let again = transfer::export(&made, &folder.path().join("again"), &mut |_| ())
            .expect("what was made can be exported");
        assert_eq!(again.stores, taken.stores);
    }
}

fn written(input: &mut Input<'_>) -> Vec<u8> {
    let (mut bytes, mut records, mut entries) = (MAGIC.to_vec(), 0_u64, 0_u64);
    for _ in 0..RECORDS_MAX {
        if input.is_over() {
            break;
        }
        let mut body = vec![b"SPDEHX"[usize::from(input.below(6))]];
        match body[0] {
            b'S' => {
                entries = 0;
                body.extend_from_slice(NAMES[usize::from(input.below(8))]);
            }
            b'P' => {
                entries += 1;
                let (key, value) = (input.bytes(40), input.bytes(40));
                body.push(key.len() as u8);
                body.extend_from_slice(key);
                let checksum = crc32c::crc32c_append(crc32c::crc32c(key), value);
                body.push(FORMAT_VERSION);
                body.extend_from_slice(&input.near(checksum.into()).to_le_bytes()[..4]);
                body.extend_from_slice(value);
            }
            b'D' => {
                entries += 1;
                let key = input.bytes(40);
                body.push(input.near(key.len() as u64) as u8);
                body.extend_from_slice(key);
            }
            b'E' => body.extend_from_slice(&input.near(entries).to_le_bytes()),
            _ => body.extend_from_slice(input.bytes(40)),
        }
        push(&mut bytes, &body);
        records += 1;
    }
    let mut end = b"H".to_vec();
    end.extend_from_slice(&input.near(records).to_le_bytes());
    end.extend_from_slice(&Sha256::digest(&bytes));
    push(&mut bytes, &end);
    for _ in 0..input.below(4) {
        let at = usize::from(u16::from_le_bytes(input.array())) % bytes.len();
        bytes[at] ^= input.byte();
    }
    bytes
}

/// A record as it lies in the file.
fn push(file: &mut Vec<u8>, body: &[u8]) {
    file.extend_from_slice(&(body.len() as u32).to_le_bytes());
    file.extend_from_slice(body);
    file.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
}
