//! All stores of a folder: out into one file, and from files into a folder that was not there.
//!
//! Invariants: a folder whose stores somebody holds open is refused; what is imported is another
//! life of its journals, so that whoever follows them begins anew; it appears by one rename.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Teller;
use super::backup::Sources;
use super::copy::{named, read_store, write_store};
use super::error::TransferError;
use super::file::{Record, RecordReader, RecordWriter};
use crate::batch::Batch;
use crate::disk::{DiskOptions, DiskStore};
use crate::error::{Blame, Operation, StoreError};
use crate::guard;
use crate::journal::{self, DirectoryPartitions, Incarnation, Journal, JournalOptions};
use crate::store::Store as _;

/// How deep below a server's folder a store may lie: `journal/p-...`.
const DEPTH_MAX: usize = 2;
/// The longest path of a store in its folder, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// What tells the readers of a copied store that it is another life of it.
#[derive(Clone, Copy, Debug)]
pub struct Life<'a> {
    /// The incarnation that its journals get.
    pub incarnation: [u8; 16],
    /// Rows that are made anew when they are missing, by store and key: the incarnations of feeds.
    pub forgotten: &'a [(&'a str, &'a [u8])],
}

/// What a transfer carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Stores; each partition of a journal is one.
    pub stores: u64,
    /// Entries of all of them.
    pub entries: u64,
}

/// The stores in `folder`, by their paths in it, in order.
///
/// # Errors
/// The folder cannot be read.
pub fn sources(folder: &Path) -> Result<Vec<String>, TransferError> {
    let mut names = Vec::new();
    find(folder, String::from("."), 0, &mut names)?;
    names.sort_unstable();
    Ok(names)
}

fn find(
    folder: &Path,
    name: String,
    depth: usize,
    names: &mut Vec<String>,
) -> Result<(), TransferError> {
    if DiskStore::engine_of(folder)?.is_some() {
        names.push(name);
        return Ok(());
    }
    if depth == DEPTH_MAX || !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(TransferError::disk(folder))? {
        let entry = entry.map_err(TransferError::disk(folder))?;
        let Ok(part) = entry.file_name().into_string() else { continue };
        let name = if depth == 0 { part } else { format!("{name}/{part}") };
        if entry.path().is_dir() && is_name(&name) {
            find(&entry.path(), name, depth + 1, names)?;
        }
    }
    Ok(())
}

/// Whether `name` may be the path of a store in a folder: nothing leads out of it.
fn is_name(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    name == "."
        || (name.len() <= NAME_BYTES_MAX
            && name.split('/').count() <= DEPTH_MAX
            && name.split('/').all(is_part))
}

/// The journal that the store `name` is a partition of.
fn journal_of(name: &str) -> Option<&str> {
    name.split_once("/p-").map(|(journal, _)| journal)
}

/// Opens all stores of `folder`, whose server does not run, so that they can be backed up. The
/// wall time now, in milliseconds since 1970, is `wall_ms`. Blocks.
///
/// # Errors
/// One cannot be opened, or there is none.
pub fn open_sources(
    folder: &Path,
    options: &DiskOptions,
    wall_ms: u64,
) -> Result<Sources, TransferError> {
    let names = sources(folder)?;
    if names.is_empty() {
        let why = "there is no store to back up; check server.data_dir";
        return Err(TransferError::refused(folder, why));
    }
    let mut opened = Sources::default();
    let journals: BTreeSet<&str> = names.iter().filter_map(|name| journal_of(name)).collect();
    for name in journals {
        let partitions = DirectoryPartitions::new(&folder.join(name), *options);
        // Its incarnation is kept: the bytes here are for a new journal.
        let options = JournalOptions::new(Incarnation::Keep([0; 16]), wall_ms);
        let journal = Journal::open(Arc::new(partitions), &options)?;
        opened.journals.push((name.to_owned(), Arc::new(journal)));
    }
    for name in names.iter().filter(|name| journal_of(name).is_none()) {
        let store = DiskStore::open_existing(&folder.join(name), options)?;
        opened.rows.push((name.clone(), Arc::new(store)));
    }
    Ok(opened)
}

/// Writes all stores of `folder` into the new file `out`, which is whole when it appears. Blocks.
///
/// # Errors
/// A store is open or damaged, the folder has none, or `out` exists or cannot be written.
pub fn export(folder: &Path, out: &Path, tell: &mut Teller<'_>) -> Result<Summary, TransferError> {
    let names = sources(folder)?;
    if names.is_empty() {
        let why = "there is no store to export; check server.data_dir";
        return Err(TransferError::refused(folder, why));
    }
    if out.exists() {
        return Err(TransferError::refused(out, "it exists; name a file that does not"));
    }
    let held = hold(folder, &names)?;
    let unfinished = beside(out, "unfinished");
    let file = File::create(&unfinished).map_err(TransferError::disk(&unfinished))?;
    let mut writer =
        RecordWriter::begin(BufWriter::new(file)).map_err(TransferError::disk(&unfinished))?;
    let mut summary = Summary::default();
    for name in &names {
        let store = match held.iter().find(|(held, _)| held == name) {
            Some((_, store)) => store,
            None => &open(folder, name)?,
        };
        summary.entries += write_store(name, store, &unfinished, &mut writer, tell)?;
        summary.stores += 1;
    }
    let ended = writer.end().and_then(|(file, _, _)| file.into_inner().map_err(Into::into));
    ended
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&unfinished, out))
        .and_then(|()| guard::sync_directory(guard::parent_of(out)))
        .map_err(TransferError::disk(out))?;
    Ok(summary)
}

/// Opens what a server that runs has open: every store but the older partitions. So nobody starts
/// one meanwhile, and one that runs is noticed before anything of it is touched.
fn hold(folder: &Path, names: &[String]) -> Result<Vec<(String, DiskStore)>, TransferError> {
    let is_older = |at: usize| {
        let journal = names.get(at).and_then(|name| journal_of(name));
        journal.is_some() && names.get(at + 1).and_then(|name| journal_of(name)) == journal
    };
    let held = names.iter().enumerate().filter(|(at, _)| !is_older(*at));
    held.map(|(_, name)| Ok((name.clone(), open(folder, name)?))).collect()
}

fn open(folder: &Path, name: &str) -> Result<DiskStore, TransferError> {
    let path = folder.join(name);
    let engine = DiskStore::engine_of(&path)?.unwrap_or_default();
    Ok(DiskStore::open_existing(&path, &DiskOptions::of(engine))?)
}

/// Makes `folder`, which is empty or not there, of the file `from`. Blocks.
///
/// # Errors
/// The file is not whole, the folder holds something, or the disk fails; the folder is then as it
/// was.
pub fn import(
    from: &Path,
    folder: &Path,
    options: &DiskOptions,
    life: &Life<'_>,
    tell: &mut Teller<'_>,
) -> Result<Summary, TransferError> {
    let making = Making::begin(folder)?;
    let summary = making.read_file(from, options, tell)?.0;
    making.finish(options, life)?;
    Ok(summary)
}

/// A folder that is being made beside its place.
pub(super) struct Making<'a> {
    folder: &'a Path,
    unfinished: PathBuf,
}

impl<'a> Making<'a> {
    pub(super) fn begin(folder: &'a Path) -> Result<Self, TransferError> {
        let is_empty = match fs::read_dir(folder) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(TransferError::disk(folder)(error)),
        };
        if !is_empty {
            let why = "it is not empty; stop its server and move the folder aside first";
            return Err(TransferError::refused(folder, why));
        }
        let unfinished = beside(folder, "unfinished");
        // What an attempt before has left.
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(TransferError::disk(&unfinished)(error));
            }
            _ => {}
        }
        guard::create_directory(&unfinished).map_err(TransferError::disk(&unfinished))?;
        Ok(Self { folder, unfinished })
    }

    /// Makes the stores of one file; gives what it carried, and the file's hash.
    pub(super) fn read_file(
        &self,
        from: &Path,
        options: &DiskOptions,
        tell: &mut Teller<'_>,
    ) -> Result<(Summary, [u8; 32]), TransferError> {
        let file = File::open(from).map_err(TransferError::disk(from))?;
        let mut input = RecordReader::begin(BufReader::new(file)).map_err(named(from))?;
        let mut summary = Summary::default();
        loop {
            let at = input.at();
            let damaged =
                |what: &str| TransferError::Damaged { path: from.into(), at, what: what.into() };
            let name = match input.next().map_err(named(from))? {
                Some(Record::Store(name)) if is_name(name) => name.to_owned(),
                Some(Record::Store(_)) => return Err(damaged("a store with an impossible name")),
                Some(_) => return Err(damaged("an entry outside of a store")),
                None => break,
            };
            let path = self.unfinished.join(&name);
            if DiskStore::engine_of(&path)?.is_some() {
                return Err(damaged("a store that was there before"));
            }
            let store = DiskStore::open(&path, options)?;
            summary.entries += read_store(&name, from, &mut input, &store, tell)?;
            summary.stores += 1;
        }
        Ok((summary, input.whole().unwrap_or_default()))
    }

    /// Begins another life of what was made, and puts it in its place.
    pub(super) fn finish(
        self,
        options: &DiskOptions,
        life: &Life<'_>,
    ) -> Result<(), TransferError> {
        let names = sources(&self.unfinished)?;
        let journals: BTreeSet<&str> = names.iter().filter_map(|name| journal_of(name)).collect();
        for journal in journals {
            let partitions = DirectoryPartitions::new(&self.unfinished.join(journal), *options);
            journal::adopt(&partitions, life.incarnation)?;
        }
        for (name, key) in life.forgotten.iter().filter(|(name, _)| names.iter().any(|n| n == name))
        {
            let store = DiskStore::open_existing(&self.unfinished.join(name), options)?;
            let mut batch = Batch::new();
            batch.delete(key).map_err(|misuse| {
                StoreError::new(Operation::Create, store.place(), Blame::Caller(misuse))
            })?;
            store.apply(batch)?;
            store.sync()?;
        }
        // An empty folder in the place is replaced by the rename.
        guard::sync_directory(&self.unfinished)
            .and_then(|()| fs::rename(&self.unfinished, self.folder))
            .and_then(|()| guard::sync_directory(guard::parent_of(self.folder)))
            .map_err(TransferError::disk(self.folder))
    }
}

/// The name beside `path` under which it is made.
pub(super) fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    PathBuf::from(name)
}
