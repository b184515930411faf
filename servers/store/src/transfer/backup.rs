//! A backup of stores that go on working, and a folder made of one.
//!
//! A store of rows is copied anew each time. A journal is copied by partitions: the newest is
//! closed first, and a closed one never changes, so each is copied once. Invariants: the list is
//! written after every file of it was read back whole; what it does not name is removed only then;
//! what a backup protects is what its files say, never what was meant to be in them.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::copy::{named, write_page};
use super::error::TransferError;
use super::file::{Record, RecordReader, RecordWriter};
use super::folder::{Life, Making, Summary};
use super::manifest::{MANIFEST, Manifest, Part, Reach, digits};
use super::{Progress, Teller};
use crate::disk::DiskOptions;
use crate::guard;
use crate::journal::{Head, Journal, LaneKey, decode_head};
use crate::store::Store;

const SUFFIX: &str = ".store";

/// What is backed up: the stores by their paths in the server's folder.
#[derive(Default)]
pub struct Sources {
    /// Stores of rows.
    pub rows: Vec<(String, Arc<dyn Store>)>,
    /// Journals.
    pub journals: Vec<(String, Arc<Journal>)>,
}

/// What a backup did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// Its number in its folder.
    pub number: u64,
    /// Files that were written now.
    pub written: u64,
    /// Bytes of those.
    pub written_bytes: u64,
    /// Files of the backup.
    pub files: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// What the last finished backup holds of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protected {
    /// The life of the journal that it was taken of.
    pub incarnation: [u8; 16],
    /// The last commit id in it; 0 where there was none.
    pub position: u64,
    /// Where the lanes stood then.
    pub heads: Vec<(LaneKey, Head)>,
}

/// Backs `sources` up into `folder`, which is this server's alone. They go on working. Blocks, for
/// as long as copying takes.
///
/// # Errors
/// A store or the folder fails; the backup before is then still the last finished one.
pub fn back_up(
    sources: &Sources,
    folder: &Path,
    wall_ms: u64,
    tell: &mut Teller<'_>,
) -> Result<BackupReport, TransferError> {
    guard::create_directory(folder).map_err(TransferError::disk(folder))?;
    let before = Manifest::read(folder)?.unwrap_or_default();
    let mut run = Run {
        folder,
        tell,
        before: &before,
        now: Manifest { number: before.number + 1, wall_ms, ..Manifest::default() },
        report: BackupReport { number: before.number + 1, ..BackupReport::default() },
    };
    // Rows first: what they say of a journal must not be ahead of it.
    for (name, store) in &sources.rows {
        run.rows(name, &**store)?;
    }
    for (name, journal) in &sources.journals {
        run.journal(name, journal, wall_ms)?;
    }
    let Run { now, mut report, .. } = run;
    guard::sync_directory(folder).map_err(TransferError::disk(folder))?;
    now.write(folder)?;
    sweep(folder, &now)?;
    report.files = now.files.len() as u64;
    report.bytes = now.files.iter().map(|part| part.bytes).sum();
    Ok(report)
}

/// One backup under way.
struct Run<'a, 't> {
    folder: &'a Path,
    tell: &'a mut Teller<'t>,
    before: &'a Manifest,
    now: Manifest,
    report: BackupReport,
}

type FileWriter = RecordWriter<BufWriter<File>>;

impl Run<'_, '_> {
    /// A store of rows: a scan, and what was applied during it.
    fn rows(&mut self, name: &str, store: &dyn Store) -> Result<(), TransferError> {
        let file = format!("{}-{}{SUFFIX}", self.now.number, flat(name));
        let path = self.folder.join(&file);
        let beside = self.folder.join(format!("{file}.tap"));
        if let Some(tap) = store.tap() {
            tap.open(&beside).map_err(TransferError::disk(&beside))?;
        }
        let mut out = create(&path)?;
        out.write(&Record::Store(name)).map_err(TransferError::disk(&path))?;
        let mut count = 0;
        let mut next = Some(Vec::new());
        while let Some(from) = next {
            next = write_page(store, &from, &path, &mut out, &mut count)?;
            (self.tell)(Progress { store: name, entries: count });
        }
        if let Some(tap) = store.tap() {
            tap.close().map_err(TransferError::disk(&beside))?;
            count += append(&beside, &path, &mut out)?;
        }
        out.write(&Record::Done(count)).map_err(TransferError::disk(&path))?;
        self.keep(file, &path, out)
    }

    /// A journal: each closed partition that is not in the backup before.
    fn journal(
        &mut self,
        name: &str,
        journal: &Journal,
        wall_ms: u64,
    ) -> Result<(), TransferError> {
        let position = journal.close_partition(wall_ms)?;
        let incarnation = journal.incarnation();
        for partition in journal.partitions()? {
            if partition.end.is_none() {
                continue;
            }
            let store = format!("{name}/p-{:016x}", partition.first);
            let file = format!("{}-{}{SUFFIX}", digits(&incarnation[..8]), flat(&store));
            let known = self.before.files.iter().find(|part| part.file == file);
            let known = known.filter(|part| {
                let length = fs::metadata(self.folder.join(&part.file)).map(|file| file.len());
                length.is_ok_and(|length| length == part.bytes)
            });
            match known {
                Some(part) => self.now.files.push(part.clone()),
                None => self.partition(journal, partition.first, &store, file)?,
            }
        }
        self.now.journals.push(Reach { name: name.to_owned(), incarnation, position });
        Ok(())
    }

    fn partition(
        &mut self,
        journal: &Journal,
        first: u64,
        name: &str,
        file: String,
    ) -> Result<(), TransferError> {
        let path = self.folder.join(&file);
        let mut out = create(&path)?;
        out.write(&Record::Store(name)).map_err(TransferError::disk(&path))?;
        let mut count = 0;
        let mut next = Some(Vec::new());
        while let Some(from) = next {
            // Page by page, so that whoever reads older entries waits for a page at the most.
            let page = journal.with_closed(first, |store| {
                Ok(write_page(store, &from, &path, &mut out, &mut count))
            })?;
            // Retention dropped it meanwhile: it belongs to no backup any more.
            let Some(page) = page else { return Ok(()) };
            next = page?;
            (self.tell)(Progress { store: name, entries: count });
        }
        out.write(&Record::Done(count)).map_err(TransferError::disk(&path))?;
        self.keep(file, &path, out)
    }

    /// Ends a file, makes it durable, and reads it back.
    fn keep(&mut self, file: String, path: &Path, out: FileWriter) -> Result<(), TransferError> {
        let (written, bytes, hash) = out.end().map_err(TransferError::disk(path))?;
        let written = written.into_inner().map_err(|error| error.into_error());
        written.and_then(|file| file.sync_all()).map_err(TransferError::disk(path))?;
        visit(path, Some(hash), &mut |_| {})?;
        self.report.written += 1;
        self.report.written_bytes += bytes;
        self.now.files.push(Part { file, bytes, hash });
        Ok(())
    }
}

/// A store's path as a part of a file's name.
fn flat(name: &str) -> String {
    name.replace('/', "+").replace('.', "_")
}

fn create(path: &Path) -> Result<FileWriter, TransferError> {
    let file = File::create(path).map_err(TransferError::disk(path))?;
    RecordWriter::begin(BufWriter::new(file)).map_err(TransferError::disk(path))
}

/// Writes what a tap kept behind what was scanned; gives how much it was.
fn append(tap: &Path, path: &Path, out: &mut FileWriter) -> Result<u64, TransferError> {
    let mut count = 0;
    let mut failed = Ok(());
    visit(tap, None, &mut |record| {
        if failed.is_ok() {
            failed = out.write(record);
            count += 1;
        }
    })?;
    failed.map_err(TransferError::disk(path))?;
    fs::remove_file(tap).map_err(TransferError::disk(tap))?;
    Ok(count)
}

/// Reads a file to its end; shows every record.
fn visit(
    path: &Path,
    expected: Option<[u8; 32]>,
    show: &mut dyn FnMut(&Record<'_>),
) -> Result<(), TransferError> {
    let file = File::open(path).map_err(TransferError::disk(path))?;
    let mut input = RecordReader::begin(BufReader::new(file)).map_err(named(path))?;
    while let Some(record) = input.next().map_err(named(path))? {
        show(&record);
    }
    match expected {
        Some(expected) if input.whole() != Some(expected) => Err(other_file(path, input.at())),
        Some(_) | None => Ok(()),
    }
}

fn other_file(path: &Path, at: u64) -> TransferError {
    let what = "it is whole, but not the file that the backup's list names".to_owned();
    TransferError::Damaged { path: path.to_path_buf(), at, what }
}

/// Removes what `manifest` does not name: files of the backup before, and of attempts that failed.
fn sweep(folder: &Path, manifest: &Manifest) -> Result<(), TransferError> {
    for entry in fs::read_dir(folder).map_err(TransferError::disk(folder))? {
        let entry = entry.map_err(TransferError::disk(folder))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_ours = name.ends_with(SUFFIX) || name.ends_with(".tap");
        if is_ours && !manifest.files.iter().any(|part| part.file == name) {
            fs::remove_file(entry.path()).map_err(TransferError::disk(&entry.path()))?;
        }
    }
    Ok(())
}

/// What the last finished backup in `folder` holds of the journal `name`; `None` where there is
/// none. Its newest file of that journal is read to the end. Blocks.
///
/// # Errors
/// The backup is damaged or cannot be read.
pub fn protected(folder: &Path, name: &str) -> Result<Option<Protected>, TransferError> {
    let Some(manifest) = Manifest::read(folder)? else { return Ok(None) };
    let Some(reach) = manifest.journals.iter().find(|reach| reach.name == name) else {
        return Ok(None);
    };
    let of_journal = format!("-{}+p-", flat(name));
    let newest = manifest.files.iter().filter(|part| part.file.contains(&of_journal));
    let newest = newest.max_by(|one, other| one.file.cmp(&other.file));
    let mut heads = Vec::new();
    if let Some(part) = newest {
        visit(&folder.join(&part.file), Some(part.hash), &mut |record| {
            if let Record::Put(key, sealed) = record {
                heads.extend(decode_head(key, sealed));
            }
        })?;
    }
    Ok(Some(Protected { incarnation: reach.incarnation, position: reach.position, heads }))
}

/// When the last finished backup in `folder` was finished, in milliseconds since 1970, and its
/// number; `None` where there is none. Blocks.
///
/// # Errors
/// The backup's list is damaged or cannot be read.
pub fn finished(folder: &Path) -> Result<Option<(u64, u64)>, TransferError> {
    Ok(Manifest::read(folder)?.map(|manifest| (manifest.wall_ms, manifest.number)))
}

/// Makes `folder`, which is empty or not there, of the last finished backup in `backup`. Blocks.
///
/// # Errors
/// There is no finished backup, a file of it is not whole, or the folder holds something; the
/// folder is then as it was.
pub fn restore(
    backup: &Path,
    folder: &Path,
    options: &DiskOptions,
    life: &Life<'_>,
    tell: &mut Teller<'_>,
) -> Result<Summary, TransferError> {
    let manifest = Manifest::read(backup)?.ok_or_else(|| {
        let why = format!("there is no finished backup: no file {MANIFEST}");
        TransferError::refused(backup, why)
    })?;
    let making = Making::begin(folder)?;
    let mut summary = Summary::default();
    for part in &manifest.files {
        let path: PathBuf = backup.join(&part.file);
        let (carried, hash) = making.read_file(&path, options, tell)?;
        if hash != part.hash {
            return Err(other_file(&path, part.bytes));
        }
        summary.stores += carried.stores;
        summary.entries += carried.entries;
    }
    making.finish(options, life)?;
    Ok(summary)
}
