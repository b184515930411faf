//! A store in a directory, whichever engine keeps it.
//!
//! What it is: the one way to open, create and remove a store on disk. It knows which engine's
//! data a directory holds, and bounds the time that opening takes.
//! Invariant: nothing is created over what exists, and no engine opens another one's data.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use lapwing_server_core::engine::Engine;

use crate::batch::Batch;
use crate::condition::panic_text;
use crate::envelope::FORMAT_VERSION;
use crate::error::{Blame, Operation, StoreError};
use crate::guard;
use crate::limits::{CACHE_BYTES, OPEN_SECONDS_MAX};
use crate::redb::{DATA_FILE as REDB_FILE, RedbStore};
use crate::sled::{DATA_FILE as SLED_FILE, SledStore};
use crate::store::{Scan, Store, Visitor};
use crate::transfer::Tap;

/// Written when creation is complete: from then on the format record must be found. Its first line
/// is the version; a second one names the engine, and without one it is sled.
const FORMAT_FILE: &str = "format";

const fn data_file(engine: Engine) -> &'static str {
    match engine {
        Engine::Sled => SLED_FILE,
        Engine::Redb => REDB_FILE,
    }
}

/// How to open a [`DiskStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// What keeps it, or is to keep it.
    pub engine: Engine,
    /// The page cache in bytes.
    pub cache_bytes: u64,
    /// How long opening may take, in seconds.
    pub open_seconds_max: u64,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self::of(Engine::default())
    }
}

impl DiskOptions {
    /// The usual bounds, with `engine`.
    #[must_use]
    pub const fn of(engine: Engine) -> Self {
        Self { engine, cache_bytes: CACHE_BYTES, open_seconds_max: OPEN_SECONDS_MAX }
    }
}

/// A store in a directory.
pub struct DiskStore {
    engine: Box<dyn Store>,
    tap: Tap,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Create,
    Expect,
}

impl DiskStore {
    /// Opens the store in `path`, creating it if nothing is there.
    ///
    /// # Errors
    /// `Blame::Busy` where another process holds it, `Blame::OtherEngine` where another engine
    /// keeps it, `Blame::Corrupt` where its files are damaged, `Blame::Disk` where the path cannot
    /// be created, opened or synced.
    pub fn open(path: &Path, options: &DiskOptions) -> Result<Self, StoreError> {
        Self::open_as(path, options, Presence::Create)
    }

    /// Opens the store in `path`, which must exist.
    ///
    /// # Errors
    /// As for [`DiskStore::open`], and `Blame::Missing`.
    pub fn open_existing(path: &Path, options: &DiskOptions) -> Result<Self, StoreError> {
        Self::open_as(path, options, Presence::Expect)
    }

    /// The engine of the store in `path`; `None` where no store was completed.
    ///
    /// # Errors
    /// The format file cannot be read, or says what this version does not know.
    pub fn engine_of(path: &Path) -> Result<Option<Engine>, StoreError> {
        engine_of(path, &path.display().to_string().into())
    }

    /// Removes the store in `path` with all its files, durably. It is closed; one that is not there
    /// is no error.
    ///
    /// # Errors
    /// `Blame::Disk` when something of it stays.
    pub fn remove(path: &Path) -> Result<(), StoreError> {
        let place: Arc<str> = path.display().to_string().into();
        let failed = |error: io::Error| StoreError::disk(Operation::Remove, &place, &error);
        // Without the format file the rest is no store any more, whatever a crash leaves of it.
        remove_if_there(&path.join(FORMAT_FILE)).map_err(failed)?;
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        guard::sync_directory(guard::parent_of(path)).map_err(failed)
    }

    fn open_as(path: &Path, options: &DiskOptions, presence: Presence) -> Result<Self, StoreError> {
        let place: Arc<str> = path.display().to_string().into();
        let failed = |error: io::Error| StoreError::disk(Operation::Open, &place, &error);
        let found = engine_of(path, &place)?;
        match found {
            Some(found) if found != options.engine => {
                let blame = Blame::OtherEngine { found, wanted: options.engine };
                return Err(StoreError::new(Operation::Open, &place, blame));
            }
            Some(engine) if !path.join(data_file(engine)).is_file() => {
                return Err(StoreError::corrupt(Operation::Open, &place, "its data file is gone"));
            }
            None if presence == Presence::Expect => {
                return Err(StoreError::new(Operation::Open, &place, Blame::Missing));
            }
            Some(_) | None => {}
        }
        guard::create_directory(path).map_err(failed)?;
        let store = open_engine(path, &place, options, found.is_some())?;
        guard::sync_tree(path).map_err(failed)?;
        if found.is_none() {
            store.sync()?;
            let text = format!("{FORMAT_VERSION}\n{}\n", options.engine);
            guard::write_file(&path.join(FORMAT_FILE), text.as_bytes())
                .map_err(|error| StoreError::disk(Operation::Create, &place, &error))?;
        }
        Ok(Self { engine: store, tap: Tap::default() })
    }
}

fn engine_of(path: &Path, place: &Arc<str>) -> Result<Option<Engine>, StoreError> {
    let text = match std::fs::read_to_string(path.join(FORMAT_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // A file where the directory should be: what opens it next says so.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
        other => other.map_err(|error| StoreError::disk(Operation::Open, place, &error))?,
    };
    let mut lines = text.lines();
    let version = lines.next().and_then(|line| line.parse().ok());
    match version {
        Some(FORMAT_VERSION) => {}
        Some(version) => {
            return Err(StoreError::new(Operation::Open, place, Blame::Version(version)));
        }
        None => {
            let what = "its format file says nothing that this version understands";
            return Err(StoreError::corrupt(Operation::Open, place, what));
        }
    }
    match lines.next() {
        None | Some("") => Ok(Some(Engine::Sled)),
        Some(name) => name
            .parse()
            .map(Some)
            .map_err(|what: String| StoreError::corrupt(Operation::Open, place, what)),
    }
}

/// Opens on a thread of its own: a damaged store may panic in the engine or never return.
fn open_engine(
    path: &Path,
    place: &Arc<str>,
    options: &DiskOptions,
    complete: bool,
) -> Result<Box<dyn Store>, StoreError> {
    let (sender, receiver) = sync_channel(1);
    let (path, named, options) = (path.to_path_buf(), Arc::clone(place), *options);
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into());
    thread::Builder::new()
        .name(format!("open {name}"))
        .spawn(move || {
            let opened = catch_unwind(AssertUnwindSafe(|| match options.engine {
                Engine::Sled => SledStore::open(&path, &named, &options, complete)
                    .map(|store| Box::new(store) as Box<dyn Store>),
                Engine::Redb => RedbStore::open(&path, &named, &options, complete)
                    .map(|store| Box::new(store) as Box<dyn Store>),
            }));
            // Nobody listens any more after the deadline; the handle is then dropped here.
            let _ = sender.send(opened);
        })
        .map_err(|error| StoreError::disk(Operation::Open, place, &error))?;
    let seconds_max = options.open_seconds_max;
    match receiver.recv_timeout(Duration::from_secs(seconds_max)) {
        Ok(Ok(opened)) => opened,
        Ok(Err(panic)) => {
            let what = format!("the engine cannot read it: {}", panic_text(&*panic));
            Err(StoreError::corrupt(Operation::Open, place, what))
        }
        Err(RecvTimeoutError::Timeout) => {
            Err(StoreError::new(Operation::Open, place, Blame::Slow(seconds_max)))
        }
        Err(RecvTimeoutError::Disconnected) => {
            Err(StoreError::corrupt(Operation::Open, place, "the engine gave up opening it"))
        }
    }
}

impl Store for DiskStore {
    fn place(&self) -> &Arc<str> {
        self.engine.place()
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.tap.apply(batch, |batch| self.engine.apply(batch))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.engine.sync()
    }

    fn read_sealed(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool, StoreError> {
        self.engine.read_sealed(key, visit)
    }

    fn scan_sealed(&self, scan: &Scan<'_>, visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        self.engine.scan_sealed(scan, visit)
    }

    fn size_bytes(&self) -> Result<u64, StoreError> {
        self.engine.size_bytes()
    }

    fn tap(&self) -> Option<&Tap> {
        Some(&self.tap)
    }
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore").field("place", self.place()).finish_non_exhaustive()
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
