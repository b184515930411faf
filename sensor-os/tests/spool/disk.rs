//! A disk in memory that refuses, tears, forgets what was not synced, and loses its power.
//!
//! It is as bad as file systems are: after a failed sync the next one succeeds and what the first
//! was to cover is gone all the same; a rename without a sync may leave the old name, the new one,
//! or the new one with a part of its bytes; of what was appended since the last sync a power cut
//! leaves a part, perhaps with a hole in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use lapwing_sensor_os::spool::{Disk, DiskFile, Durability};

/// An operation that can fail by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Append,
    Cut,
    Sync,
    SyncFolder,
    Replace,
    Rename,
    Remove,
    Open,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `ENOSPC`; a part of what was to be written stands there.
    Full,
    /// `EIO`.
    Broken,
}

impl Fault {
    fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Full => libc_numbers::ENOSPC,
            Self::Broken => libc_numbers::EIO,
        })
    }
}

/// Linux' numbers of the two errors.
mod libc_numbers {
    pub(super) const EIO: i32 = 5;
    pub(super) const ENOSPC: i32 = 28;
}

/// Chance from a seed: the same seed, the same disk.
#[derive(Clone, Debug)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ bits >> 31) % bound.max(1)
    }
}

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: usize,
    /// Runs that a failed sync gave up: no later sync brings them to the disk.
    given_up: Vec<(usize, usize)>,
}

type Plan = Box<dyn FnMut(Operation, &Path) -> Option<Fault> + Send>;

#[derive(Default)]
struct State {
    boot: u8,
    folders: BTreeSet<PathBuf>,
    contents: BTreeMap<u64, Content>,
    next_content: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    plan: Option<Plan>,
    /// After so many more operations the power is gone.
    power: Option<u64>,
}

/// The disk; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct BadDisk(Arc<Mutex<State>>);

impl std::fmt::Debug for BadDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BadDisk")
    }
}

impl BadDisk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Asks `plan` before each operation.
    pub(crate) fn plan(
        &self,
        plan: impl FnMut(Operation, &Path) -> Option<Fault> + Send + 'static,
    ) {
        self.lock().plan = Some(Box::new(plan));
    }

    /// Everything succeeds again.
    pub(crate) fn mend(&self) {
        self.lock().plan = None;
    }

    /// The power goes after so many more operations.
    pub(crate) fn lose_power_after(&self, operations: u64) {
        self.lock().power = Some(operations);
    }

    /// The machine starts again: what was not synced is there, in part, or not.
    pub(crate) fn cut_power(&self, chance: &mut Chance) {
        let mut state = self.lock();
        let State { names, durable_names, contents, .. } = &mut *state;
        let all: BTreeSet<PathBuf> = names.keys().chain(durable_names.keys()).cloned().collect();
        for path in all {
            let (new, old) = (names.get(&path).copied(), durable_names.get(&path).copied());
            if new != old && chance.below(2) == 0 {
                match old {
                    Some(old) => names.insert(path, old),
                    None => names.remove(&path),
                };
            }
        }
        *durable_names = names.clone();
        for content in contents.values_mut() {
            let unsynced = content.bytes.len() - content.synced;
            let kept = content.synced + chance.below(unsynced as u64 + 1) as usize;
            content.bytes.truncate(kept);
            if kept > content.synced + 1 && chance.below(3) == 0 {
                let at = content.synced + chance.below((kept - content.synced) as u64) as usize;
                let end = kept.min(at + 64);
                content.bytes[at..end].fill(0);
            }
            for (from, to) in std::mem::take(&mut content.given_up) {
                let end = to.min(content.bytes.len());
                if from < end {
                    content.bytes[from..end].fill(0);
                }
            }
            content.synced = content.bytes.len();
        }
        state.boot += 1;
        state.power = None;
        state.plan = None;
    }

    /// Flips a bit of a file.
    pub(crate) fn flip(&self, path: &Path, at: usize, bit: u8) {
        let mut state = self.lock();
        let id = state.names[path];
        state.contents.get_mut(&id).unwrap().bytes[at] ^= bit;
    }

    /// Cuts a file back.
    pub(crate) fn truncate(&self, path: &Path, length: usize) {
        let mut state = self.lock();
        let id = state.names[path];
        state.contents.get_mut(&id).unwrap().bytes.truncate(length);
    }

    /// The files whose names end so, in order, and their lengths.
    pub(crate) fn files(&self, end: &str) -> Vec<(PathBuf, usize)> {
        let state = self.lock();
        let named = state.names.iter().filter(|(path, _)| path.to_str().unwrap().ends_with(end));
        named.map(|(path, id)| (path.clone(), state.contents[id].bytes.len())).collect()
    }
}

impl State {
    fn check(&mut self, operation: Operation, path: &Path) -> Result<(), Fault> {
        if operation != Operation::Open
            && let Some(left) = &mut self.power
        {
            if *left == 0 {
                return Err(Fault::Broken);
            }
            *left -= 1;
        }
        match self.plan.as_mut().and_then(|plan| plan(operation, path)) {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    fn add(&mut self, path: &Path, content: Content) -> u64 {
        self.next_content += 1;
        self.contents.insert(self.next_content, content);
        self.names.insert(path.to_path_buf(), self.next_content);
        self.next_content
    }

    fn find(&self, path: &Path) -> io::Result<&Content> {
        let id = self.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        self.contents.get(id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_names(&mut self, folder: &Path) {
        let is_in = |path: &Path| path.parent() == Some(folder);
        self.durable_names.retain(|path, _| !is_in(path));
        let names = self.names.iter().filter(|(path, _)| is_in(path));
        self.durable_names.extend(names.map(|(path, id)| (path.clone(), *id)));
    }
}

#[derive(Debug)]
struct BadFile {
    disk: BadDisk,
    path: PathBuf,
    id: u64,
}

impl Disk for BadDisk {
    fn boot(&self) -> io::Result<[u8; 16]> {
        Ok([self.lock().boot; 16])
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        self.lock().folders.insert(folder.to_path_buf());
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.lock();
        let all = state.names.keys().chain(&state.folders);
        Ok(all.filter(|path| path.parent() == Some(folder)).cloned().collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock();
        state.check(Operation::Create, path).map_err(Fault::error)?;
        assert!(!state.names.contains_key(path), "{} exists", path.display());
        let id = state.add(path, Content::default());
        Ok(Box::new(BadFile { disk: self.clone(), path: path.to_path_buf(), id }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        let mut state = self.lock();
        state.check(Operation::Open, path).map_err(Fault::error)?;
        Ok(Box::new(Cursor::new(state.find(path)?.bytes.clone())))
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        Ok(self.lock().find(path)?.bytes.len() as u64)
    }

    fn replace(&self, path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
        let mut state = self.lock();
        state.check(Operation::Replace, path).map_err(Fault::error)?;
        let synced = if durability == Durability::PowerCut { bytes.len() } else { 0 };
        let content = Content { bytes: bytes.to_vec(), synced, given_up: Vec::new() };
        let id = state.add(path, content);
        if durability == Durability::PowerCut {
            state.durable_names.insert(path.to_path_buf(), id);
        }
        Ok(())
    }

    fn load(&self, path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        match self.lock().find(path) {
            Ok(content) if content.bytes.len() as u64 <= bytes_max => {
                Ok(Some(content.bytes.clone()))
            }
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(_) => Ok(None),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.check(Operation::Rename, from).map_err(Fault::error)?;
        let id = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_path_buf(), id);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.check(Operation::Remove, path).map_err(Fault::error)?;
        state.names.remove(path);
        Ok(())
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.check(Operation::Remove, folder).map_err(Fault::error)?;
        state.names.retain(|path, _| !path.starts_with(folder));
        state.durable_names.retain(|path, _| !path.starts_with(folder));
        state.folders.remove(folder);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.check(Operation::SyncFolder, folder).map_err(Fault::error)?;
        state.sync_names(folder);
        Ok(())
    }
}

impl DiskFile for BadFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.lock();
        let checked = state.check(Operation::Append, &self.path);
        let content = state.contents.get_mut(&self.id).unwrap();
        match checked {
            Ok(()) => content.bytes.extend_from_slice(bytes),
            Err(fault) => {
                content.bytes.extend_from_slice(&bytes[..bytes.len() / 3]);
                return Err(fault.error());
            }
        }
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.check(Operation::Cut, &self.path).map_err(Fault::error)?;
        let content = state.contents.get_mut(&self.id).unwrap();
        content.bytes.truncate(length as usize);
        content.synced = content.synced.min(length as usize);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.lock();
        let checked = state.check(Operation::Sync, &self.path);
        let content = state.contents.get_mut(&self.id).unwrap();
        let (from, to) = (content.synced, content.bytes.len());
        content.synced = to;
        if let Err(fault) = checked {
            content.given_up.push((from, to));
            return Err(fault.error());
        }
        Ok(())
    }
}
