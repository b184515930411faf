//! The collector of file events: what is created, written, moved and removed in watched folders.
//!
//! Each folder below a watched one has a mark of its own, up to the bound; a folder that appears is
//! marked then, and the files already in it are told as created. The kernel names a folder by its
//! handle; paths are kept here. Changes the sensor makes itself are not told: it would never end.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lapwing_protocol::element::{Change, file_event};

use super::fact::{CollectedFact, FactBuilder, Room};
use super::health::{Parts, Report};
use super::limits::{EVENTS_AT_ONCE, FOLDERS_MAX, INVENTORY_PERIOD};
use super::procfs;
use super::queue::Source;
use super::shared::{Shared, Stop};
use crate::sys::fanotify::{FolderEvent, FolderHandle, FolderWatch, Link, Reading};
use crate::sys::host::name_thread;
use crate::sys::wait::Interest;
use crate::sys::{clock, host};

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Created = 1,
    Modified = 2,
    Removed = 3,
    Renamed = 4,
}

/// One event, owned, since handling it marks further folders.
#[derive(Debug)]
struct Happened {
    folder: FolderHandle,
    name: OsString,
    pid: u32,
    appeared: bool,
    moved_here: bool,
    written: bool,
    vanished: bool,
    is_folder: bool,
}

impl Happened {
    fn of(event: &FolderEvent<'_>) -> Self {
        Self {
            folder: event.folder.clone(),
            name: event.name.to_owned(),
            pid: event.pid,
            appeared: event.appeared(),
            moved_here: event.moved_here(),
            written: event.written(),
            vanished: event.vanished(),
            is_folder: event.is_folder(),
        }
    }
}

impl Happened {
    /// What to tell of it. One event may say several things of a name, since the kernel merges;
    /// what is there now says which came last.
    fn actions(&self, is_there: bool) -> Vec<Action> {
        let appeared = match (self.moved_here, self.appeared) {
            (true, _) => Some(Action::Renamed),
            (false, true) => Some(Action::Created),
            (false, false) => None,
        };
        let modified = (self.written && appeared.is_none()).then_some(Action::Modified);
        let removed = self.vanished.then_some(Action::Removed);
        if is_there {
            // It went and came back.
            [removed, appeared, modified].into_iter().flatten().collect()
        } else {
            [appeared, modified, removed].into_iter().flatten().collect()
        }
    }
}

/// The collector, opened but not running.
#[derive(Debug)]
pub(crate) struct FolderCollector {
    shared: Shared,
    stop: Stop,
    watch: Option<FolderWatch>,
    wanted: Vec<PathBuf>,
    /// Wanted, but not there yet.
    absent: Vec<PathBuf>,
    folders: BTreeMap<FolderHandle, PathBuf>,
    beyond_bound: bool,
    open_error: Option<io::Error>,
}

impl FolderCollector {
    /// Opens a watch of `wanted` and what is below; nothing is looked at yet, since what lies on a
    /// filesystem that does not answer must hold up nobody else.
    pub(crate) fn open(shared: Shared, stop: Stop, wanted: Vec<PathBuf>) -> Self {
        let mut collector = Self {
            shared,
            stop,
            watch: None,
            absent: wanted.clone(),
            wanted,
            folders: BTreeMap::new(),
            beyond_bound: false,
            open_error: None,
        };
        if !collector.wanted.is_empty() {
            match FolderWatch::open() {
                Ok(watch) => collector.watch = Some(watch),
                Err(error) => collector.open_error = Some(error),
            }
        }
        collector
    }

    /// Collects until it is asked to stop.
    pub(crate) fn run(mut self) {
        name_thread(c"lapwing-files");
        self.mark_absent();
        self.report();
        loop {
            let mut watched = vec![self.stop.wake.watched()];
            watched.extend(self.watch.as_ref().map(|watch| (watch.as_fd(), Interest::Readable)));
            let timeout: Option<Duration> =
                (!self.absent.is_empty() && self.watch.is_some()).then_some(INVENTORY_PERIOD);
            if let Err(error) = self.stop.wait(&watched, timeout) {
                log::error!("the collector of file events cannot wait, and ends: {error}");
                return;
            }
            if self.stop.is_asked() {
                return;
            }
            self.stop.wake.clear();
            self.read();
            if !self.absent.is_empty() {
                self.mark_absent();
                self.report();
            }
        }
    }

    fn report(&self) {
        if self.wanted.is_empty() {
            let mut report = Report::active("fanotify");
            report.mechanism = "no folder is configured to be watched".into();
            return self.shared.health.report(Source::Files, report);
        }
        let mut parts = Parts::default();
        match (&self.watch, &self.open_error) {
            (Some(_), _) => parts.works("fanotify"),
            (None, Some(error)) => parts.fails("fanotify", "changes of files", error),
            (None, None) => {}
        }
        if self.watch.is_some() && !host::is_root() {
            parts.lacks_privilege("the kernel names the process of a change to root only");
        }
        for path in &self.absent {
            let path = path.display();
            parts.lacks(format!("{path} is not there or cannot be watched; looked for again"));
        }
        if self.beyond_bound {
            parts.lacks(format!("only the first {FOLDERS_MAX} folders are watched"));
        }
        self.shared.health.report(Source::Files, parts.report());
    }

    fn mark_absent(&mut self) {
        let absent = std::mem::take(&mut self.absent);
        self.absent =
            absent.into_iter().filter(|path| !self.mark_tree(path, Link::Followed, None)).collect();
    }

    /// Marks `root` and the folders below it. Files below it are told as created by `pid`, if
    /// given. Answers whether `root` is marked.
    fn mark_tree(&mut self, root: &Path, link: Link, created_by: Option<u32>) -> bool {
        let mut marked_root = false;
        let mut left = VecDeque::from([(root.to_owned(), link)]);
        while let Some((folder, link)) = left.pop_front() {
            if self.stop.is_asked() {
                return marked_root;
            }
            let Some(watch) = &self.watch else { return false };
            if self.folders.len() >= FOLDERS_MAX {
                self.beyond_bound = true;
                return marked_root;
            }
            let handle = match watch.mark(&folder, link) {
                Ok(handle) => handle,
                Err(error) => {
                    log::debug!("{} is not watched: {error}", folder.display());
                    continue;
                }
            };
            marked_root |= folder == root;
            self.folders.insert(handle, folder.clone());
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() && self.folders.len() + left.len() < FOLDERS_MAX => {
                        left.push_back((entry.path(), Link::Refused));
                    }
                    Ok(kind) if kind.is_dir() => self.beyond_bound = true,
                    Ok(kind) if kind.is_file() => {
                        if let Some(pid) = created_by {
                            self.tell(&entry.path(), Action::Created, pid);
                        }
                    }
                    _ => {}
                }
            }
        }
        marked_root
    }

    fn read(&mut self) {
        let mut happened = Vec::new();
        let Some(watch) = &mut self.watch else { return };
        match watch.read(EVENTS_AT_ONCE, |event| happened.push(Happened::of(&event))) {
            Ok(Reading::Complete) => {}
            Ok(Reading::Lost) => {
                log::warn!("the kernel lost events of watched folders");
                self.shared.sender.overflowed(Source::Files);
            }
            Err(error) => log::warn!("watched folders cannot be read: {error}"),
        }
        let own = std::process::id();
        for event in happened.into_iter().filter(|event| event.pid != own) {
            self.handle(&event);
        }
    }

    fn handle(&mut self, event: &Happened) {
        let Some(folder) = self.folders.get(&event.folder) else { return };
        let path = folder.join(&event.name);
        if event.is_folder {
            if event.vanished {
                self.folders.retain(|_, known| !known.starts_with(&path));
                let wanted = self.wanted.iter().filter(|wanted| wanted.starts_with(&path));
                self.absent.extend(wanted.cloned());
            }
            if event.appeared {
                self.mark_tree(&path, Link::Refused, Some(event.pid));
                self.report();
            }
            return;
        }
        for action in event.actions(fs::symlink_metadata(&path).is_ok()) {
            self.tell(&path, action, event.pid);
        }
    }

    fn tell(&self, path: &Path, action: Action, pid: u32) {
        let metadata = match action {
            Action::Removed => None,
            Action::Created | Action::Modified | Action::Renamed => fs::symlink_metadata(path).ok(),
        };
        self.shared.sender.give(self.fact(path, action, pid, metadata.as_ref()));
    }

    fn fact(
        &self,
        path: &Path,
        action: Action,
        pid: u32,
        metadata: Option<&Metadata>,
    ) -> CollectedFact {
        let mut fact =
            FactBuilder::new(Source::Files, file_event::KIND, Change::Event, clock::boottime_ns())
                .text(file_event::path, path.as_os_str().as_bytes(), Room::Path)
                .number(file_event::action, action as u64);
        fact = match self.shared.processes.find(pid) {
            Some(process) => {
                let user = process.user.and_then(|user| self.shared.users.name_of(user));
                fact.value(file_event::process, process.key.reference())
                    .text_if(file_event::user, user, Room::Path)
                    .text_if(file_event::image_path, process.image_path, Room::Path)
            }
            None => fact.missing(file_event::process),
        };
        match (metadata, action) {
            (Some(metadata), _) => {
                let (device, inode) = procfs::device_and_inode(metadata);
                fact.number(file_event::file_bytes, metadata.len())
                    .number(file_event::mode, u64::from(metadata.mode() & 0o7777))
                    .number(file_event::inode, inode)
                    .number(file_event::device, device)
            }
            (None, Action::Removed) => fact,
            (None, _) => fact.missing(file_event::file_bytes).missing(file_event::inode),
        }
        .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_event_is_told_as_all_that_it_says() {
        let nothing = || Happened {
            folder: FolderHandle::default(),
            name: OsString::new(),
            pid: 1,
            appeared: false,
            moved_here: false,
            written: false,
            vanished: false,
            is_folder: false,
        };
        let made = Happened { appeared: true, written: true, ..nothing() };
        assert_eq!(made.actions(true), [Action::Created]);
        let brief = Happened { appeared: true, written: true, vanished: true, ..nothing() };
        assert_eq!(brief.actions(false), [Action::Created, Action::Removed]);
        assert_eq!(brief.actions(true), [Action::Removed, Action::Created]);
        let moved = Happened { appeared: true, moved_here: true, ..nothing() };
        assert_eq!(moved.actions(true), [Action::Renamed]);
        let written = Happened { written: true, ..nothing() };
        assert_eq!(written.actions(true), [Action::Modified]);
        // It was removed by somebody else since, which is an event of its own.
        assert_eq!(written.actions(false), [Action::Modified]);
    }
}
