//! The file of an export: records with a checksum each, and at the end their number and a hash.
//!
//! Layout (STO-090): the 8 bytes `LAPWSTO1`; then records of length:4, body, CRC32C of the body:4,
//! numbers little endian. A body begins with its kind. The last record is the end; behind it is
//! nothing. Invariants: a reader takes no record beyond `RECORD_BYTES_MAX`, holds one at a time,
//! and says "whole" only after the hash of everything before the end matched.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use crate::limits::{KEY_BYTES_MAX, STORED_BYTES_MAX};

const MAGIC: &[u8; 8] = b"LAPWSTO1";
/// A put of the longest key and value, with its kind and the key's length.
const RECORD_BYTES_MAX: usize = 2 + KEY_BYTES_MAX + STORED_BYTES_MAX;

const STORE: u8 = b'S';
const PUT: u8 = b'P';
const DELETE: u8 = b'D';
const DONE: u8 = b'E';
const END: u8 = b'H';

/// A record, but for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// A store begins; its path in the folder.
    Store(&'a str),
    /// A key and its sealed value.
    Put(&'a [u8], &'a [u8]),
    /// A key that is no more.
    Delete(&'a [u8]),
    /// The store ends after this many puts and deletes.
    Done(u64),
}

/// What is wrong with a file, and where.
#[derive(Debug)]
pub(super) enum Fault {
    Read(io::Error),
    Damage(u64, String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// Writes records.
pub(super) struct RecordWriter<W> {
    out: W,
    hash: Sha256,
    records: u64,
    bytes: u64,
    body: Vec<u8>,
}

impl<W: Write> RecordWriter<W> {
    pub(super) fn begin(mut out: W) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        let mut hash = Sha256::new();
        hash.update(MAGIC);
        Ok(Self { out, hash, records: 0, bytes: MAGIC.len() as u64, body: Vec::new() })
    }

    pub(super) fn write(&mut self, record: &Record<'_>) -> io::Result<()> {
        self.body.clear();
        match record {
            Record::Store(name) => {
                self.body.push(STORE);
                self.body.extend_from_slice(name.as_bytes());
            }
            Record::Put(key, sealed) => {
                self.body.push(PUT);
                push_key(&mut self.body, key);
                self.body.extend_from_slice(sealed);
            }
            Record::Delete(key) => {
                self.body.push(DELETE);
                push_key(&mut self.body, key);
            }
            Record::Done(count) => {
                self.body.push(DONE);
                self.body.extend_from_slice(&count.to_le_bytes());
            }
        }
        self.records += 1;
        let body = std::mem::take(&mut self.body);
        let written = self.frame(&body);
        self.body = body;
        written
    }

    fn frame(&mut self, body: &[u8]) -> io::Result<()> {
        // Bounded by the keys and values of a batch.
        let length = (body.len() as u32).to_le_bytes();
        let checksum = crc32c::crc32c(body).to_le_bytes();
        for part in [&length[..], body, &checksum] {
            self.out.write_all(part)?;
            self.hash.update(part);
            self.bytes += part.len() as u64;
        }
        Ok(())
    }

    /// Writes the end; gives the medium back with the length of the file and its hash.
    pub(super) fn end(mut self) -> io::Result<(W, u64, [u8; 32])> {
        let hash: [u8; 32] = self.hash.clone().finalize().into();
        let mut body = vec![END];
        body.extend_from_slice(&self.records.to_le_bytes());
        body.extend_from_slice(&hash);
        self.frame(&body)?;
        self.out.flush()?;
        Ok((self.out, self.bytes, hash))
    }
}

fn push_key(body: &mut Vec<u8>, key: &[u8]) {
    body.push(key.len() as u8);
    body.extend_from_slice(key);
}

/// Reads records, one at a time.
pub(super) struct RecordReader<R> {
    input: R,
    hash: Sha256,
    records: u64,
    at: u64,
    body: Vec<u8>,
    whole: Option<[u8; 32]>,
}

impl<R: Read> RecordReader<R> {
    pub(super) fn begin(input: R) -> Result<Self, Fault> {
        let hash = Sha256::new();
        let mut reader = Self { input, hash, records: 0, at: 0, body: Vec::new(), whole: None };
        let mut magic = [0; 8];
        reader.fill(&mut magic)?;
        if magic != *MAGIC {
            let what = "it is no export of a store, or one of another version";
            return Err(Fault::Damage(0, what.to_owned()));
        }
        reader.hash.update(magic);
        Ok(reader)
    }

    /// Where the next record begins.
    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    /// The file's hash, once its end was reached.
    pub(super) const fn whole(&self) -> Option<[u8; 32]> {
        self.whole
    }

    /// The next record; `None` at the end of a file that is whole.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, Fault> {
        let began = self.at;
        let damage = |what: &str| Fault::Damage(began, what.to_owned());
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let size = u32::from_le_bytes(length) as usize;
        if size == 0 || size > RECORD_BYTES_MAX {
            return Err(damage("a record of impossible length"));
        }
        let mut body = std::mem::take(&mut self.body);
        body.resize(size, 0);
        self.fill(&mut body)?;
        let mut checksum = [0; 4];
        self.fill(&mut checksum)?;
        if u32::from_le_bytes(checksum) != crc32c::crc32c(&body) {
            return Err(damage("a checksum does not match"));
        }
        self.body = body;
        if let Some(end) = self.body.strip_prefix(&[END]) {
            let expected: [u8; 32] = self.hash.clone().finalize().into();
            let mut promised = self.records.to_le_bytes().to_vec();
            promised.extend_from_slice(&expected);
            if end != promised {
                return Err(damage("the hash of the whole does not match"));
            }
            if self.input.read(&mut [0])? != 0 {
                return Err(Fault::Damage(self.at, "bytes behind the end".to_owned()));
            }
            self.whole = Some(expected);
            return Ok(None);
        }
        self.hash.update(length);
        self.hash.update(&self.body);
        self.hash.update(checksum);
        self.records += 1;
        decode(&self.body).map(Some).ok_or_else(|| damage("a record that is none"))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Fault> {
        self.input.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Fault::Damage(self.at, "the file ends here, before its end was written".to_owned())
            }
            _ => Fault::Read(error),
        })?;
        self.at += buffer.len() as u64;
        Ok(())
    }
}

fn decode(body: &[u8]) -> Option<Record<'_>> {
    let (kind, rest) = body.split_first()?;
    Some(match *kind {
        STORE => Record::Store(std::str::from_utf8(rest).ok()?),
        PUT => {
            let (key, sealed) = split_key(rest)?;
            Record::Put(key, sealed)
        }
        DELETE => {
            let (key, nothing) = split_key(rest)?;
            nothing.is_empty().then_some(Record::Delete(key))?
        }
        DONE => Record::Done(u64::from_le_bytes(rest.try_into().ok()?)),
        _ => return None,
    })
}

fn split_key(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = body.split_first()?;
    rest.split_at_checked(usize::from(*length))
}
