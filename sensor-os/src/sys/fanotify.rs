//! fanotify: programs opened for execution, and changes in watched folders.
//!
//! Two kinds of group. An [`ExecWatch`] gives a descriptor of the program itself, open for
//! reading, which stays readable when the program has ended and its file is gone. A
//! [`FolderWatch`] gives the handle of a folder and a name in it. Both give the process that did
//! it. Notification only: nothing here can hold up or deny an open.

#![allow(unsafe_code, reason = "fanotify and file handles")]

use std::ffi::{CString, OsStr};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{native, wait};

const METADATA_BYTES: usize = size_of::<libc::fanotify_event_metadata>();
/// Linux's own bound for one file handle (`MAX_HANDLE_SZ`).
const HANDLE_BYTES_MAX: usize = 128;
/// Events of one reading whose file cannot be opened, before the reading itself is taken for
/// failed.
const FAILURES_MAX: u32 = 64;
const INFO_DIRECTORY_AND_NAME: u8 = 2;
const INFO_OLD_DIRECTORY_AND_NAME: u8 = 10;
const INFO_NEW_DIRECTORY_AND_NAME: u8 = 12;

/// A program that was opened for execution.
#[derive(Debug)]
pub(crate) struct ExecOpen {
    /// The process that executes it.
    pub(crate) pid: u32,
    /// The program, open for reading.
    pub(crate) program: OwnedFd,
}

/// What one reading gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Everything that was waiting was read.
    Complete,
    /// The kernel's queue had overflown: events were lost.
    Lost,
}

#[derive(Debug)]
struct Group {
    descriptor: OwnedFd,
    buffer: Vec<u8>,
}

impl Group {
    fn open(flags: libc::c_uint) -> io::Result<Self> {
        let flags = flags | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK | libc::FAN_CLASS_NOTIF;
        let event_flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE;
        // SAFETY: fanotify_init takes no pointer.
        let raw = unsafe { libc::fanotify_init(flags, event_flags as libc::c_uint) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `raw` was just opened and belongs to nobody else.
        Ok(Self { descriptor: unsafe { OwnedFd::from_raw_fd(raw) }, buffer: vec![0; 8192] })
    }

    fn mark(&self, flags: libc::c_uint, mask: u64, path: &Path) -> io::Result<()> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: `path` is a NUL-terminated string that lives over the call.
        let failed = unsafe {
            libc::fanotify_mark(
                self.descriptor.as_raw_fd(),
                libc::FAN_MARK_ADD | flags,
                mask,
                libc::AT_FDCWD,
                path.as_ptr(),
            )
        } != 0;
        if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Gives each waiting event's metadata and the records behind it to `take`, which owns the
    /// metadata's descriptor if there is one; about `most` events.
    fn read(&mut self, most: usize, mut take: impl FnMut(Metadata, &[u8])) -> io::Result<Reading> {
        let mut reading = Reading::Complete;
        let mut failures = 0;
        let mut taken = 0;
        while taken < most {
            let length = match wait::read_available(self.descriptor.as_fd(), &mut self.buffer) {
                Ok(0) => return Ok(reading),
                Ok(length) => length,
                // The first event's file could not be opened for us (a bound on descriptors, a
                // stale network file): that event is gone, those behind it are not.
                Err(error) => {
                    log::debug!("fanotify: an event's file cannot be opened: {error}");
                    reading = Reading::Lost;
                    failures += 1;
                    if failures > FAILURES_MAX {
                        return Err(error);
                    }
                    continue;
                }
            };
            let mut rest = self.buffer.get(..length).unwrap_or(&[]);
            while let Some(metadata) = Metadata::parse(rest) {
                let Some(event) = rest.get(..metadata.event_bytes) else { break };
                let records = event.get(metadata.metadata_bytes..).unwrap_or(&[]);
                rest = rest.get(metadata.event_bytes..).unwrap_or(&[]);
                if metadata.mask & libc::FAN_Q_OVERFLOW != 0 {
                    reading = Reading::Lost;
                    continue;
                }
                taken += 1;
                take(metadata, records);
            }
        }
        Ok(reading)
    }
}

/// The fields of `struct fanotify_event_metadata` that matter here.
struct Metadata {
    event_bytes: usize,
    metadata_bytes: usize,
    mask: u64,
    file: Option<OwnedFd>,
    pid: u32,
}

impl Metadata {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let event_bytes = usize::try_from(native::u32_at(bytes, 0)?).ok()?;
        if event_bytes < METADATA_BYTES || event_bytes > bytes.len() {
            return None;
        }
        let raw = native::i32_at(bytes, 16)?;
        // SAFETY: the kernel opened this descriptor for this event and gives it to its reader; each
        // event is parsed once.
        let file = (raw >= 0).then(|| unsafe { OwnedFd::from_raw_fd(raw) });
        Some(Self {
            event_bytes,
            metadata_bytes: usize::from(native::u16_at(bytes, 6)?),
            mask: native::u64_at(bytes, 8)?,
            file,
            pid: u32::try_from(native::i32_at(bytes, 20)?).unwrap_or(0),
        })
    }
}

/// Sees every program that is opened for execution on the marked filesystems.
#[derive(Debug)]
pub(crate) struct ExecWatch {
    group: Group,
}

impl ExecWatch {
    /// Opens a watch that has no mark yet. The kernel's queue keeps its bound (16,384 events unless
    /// the administrator says otherwise), and an overflow is told.
    ///
    /// # Errors
    ///
    /// Needs `CAP_SYS_ADMIN` and a kernel with fanotify.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { group: Group::open(libc::FAN_UNLIMITED_MARKS)? })
    }

    /// Watches the whole filesystem that holds `path`, whatever mount it is reached by; where the
    /// filesystem refuses that, the mount.
    ///
    /// # Errors
    ///
    /// The filesystem cannot be watched, or `path` is gone.
    pub(crate) fn mark(&self, path: &Path) -> io::Result<()> {
        let mask = libc::FAN_OPEN_EXEC;
        self.group
            .mark(libc::FAN_MARK_FILESYSTEM, mask, path)
            .or_else(|_| self.group.mark(libc::FAN_MARK_MOUNT, mask, path))
    }

    /// Gives about `most` waiting events to `take`, in the order of the opens.
    ///
    /// # Errors
    ///
    /// The group's own.
    pub(crate) fn read(
        &mut self,
        most: usize,
        mut take: impl FnMut(ExecOpen),
    ) -> io::Result<Reading> {
        self.group.read(most, |metadata, _| {
            if let Some(program) = metadata.file {
                take(ExecOpen { pid: metadata.pid, program });
            }
        })
    }
}

impl AsFd for ExecWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.descriptor.as_fd()
    }
}

/// What is made of a folder's name that is a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// The folder that it names.
    Followed,
    /// Nothing: whoever may write beside it could have it name any other.
    Refused,
}

/// What names a folder whatever its path becomes: filesystem and handle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FolderHandle {
    filesystem: [u8; 8],
    handle: Vec<u8>,
}

/// One change in a watched folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FolderEvent<'a> {
    /// The folder.
    pub(crate) folder: FolderHandle,
    /// The name in it.
    pub(crate) name: &'a OsStr,
    /// The process that did it; 0 where the kernel does not tell us.
    pub(crate) pid: u32,
    /// What happened: several of these may be true of one event, since the kernel merges.
    pub(crate) mask: u64,
}

impl FolderEvent<'_> {
    /// It was created, or moved here.
    pub(crate) fn appeared(&self) -> bool {
        self.mask & (libc::FAN_CREATE | libc::FAN_MOVED_TO) != 0
    }

    /// It was moved here from elsewhere or another name.
    pub(crate) fn moved_here(&self) -> bool {
        self.mask & libc::FAN_MOVED_TO != 0
    }

    /// It was written and closed.
    pub(crate) fn written(&self) -> bool {
        self.mask & libc::FAN_CLOSE_WRITE != 0
    }

    /// It was deleted, or moved away.
    pub(crate) fn vanished(&self) -> bool {
        self.mask & (libc::FAN_DELETE | libc::FAN_MOVED_FROM) != 0
    }

    /// It is a folder.
    pub(crate) fn is_folder(&self) -> bool {
        self.mask & libc::FAN_ONDIR != 0
    }
}

/// Sees what is created, written, moved and deleted in the marked folders (not below them).
#[derive(Debug)]
pub(crate) struct FolderWatch {
    group: Group,
}

impl FolderWatch {
    /// Opens a watch that has no mark yet. Without privilege it works on a kernel from 5.13 on,
    /// but is not told the process.
    ///
    /// # Errors
    ///
    /// The kernel is older than 5.9, or was built without fanotify.
    pub(crate) fn open() -> io::Result<Self> {
        let unlimited = libc::FAN_UNLIMITED_MARKS;
        let named = libc::FAN_REPORT_DFID_NAME;
        let group = Group::open(named | unlimited).or_else(|_| Group::open(named))?;
        Ok(Self { group })
    }

    /// Watches `folder`, and answers what its events will name it by.
    ///
    /// # Errors
    ///
    /// It is no folder, it cannot be read, the bound on marks is reached, or its filesystem has no
    /// file handles.
    pub(crate) fn mark(&self, folder: &Path, link: Link) -> io::Result<FolderHandle> {
        let mask = libc::FAN_CREATE
            | libc::FAN_CLOSE_WRITE
            | libc::FAN_MOVED_TO
            | libc::FAN_MOVED_FROM
            | libc::FAN_DELETE
            | libc::FAN_EVENT_ON_CHILD
            | libc::FAN_ONDIR;
        let handle = folder_handle(folder, link)?;
        let stays = match link {
            Link::Followed => 0,
            Link::Refused => libc::FAN_MARK_DONT_FOLLOW,
        };
        self.group.mark(libc::FAN_MARK_ONLYDIR | stays, mask, folder)?;
        Ok(handle)
    }

    /// Gives about `most` waiting events to `take`.
    ///
    /// # Errors
    ///
    /// The group's own.
    pub(crate) fn read(
        &mut self,
        most: usize,
        mut take: impl FnMut(FolderEvent<'_>),
    ) -> io::Result<Reading> {
        self.group.read(most, |metadata, records| {
            if let Some((folder, name)) = folder_and_name(records) {
                take(FolderEvent { folder, name, pid: metadata.pid, mask: metadata.mask });
            }
        })
    }
}

impl AsFd for FolderWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.descriptor.as_fd()
    }
}

/// Finds the record that names folder and entry: header (type u8, pad u8, length u16), fsid (8
/// bytes), handle (bytes u32, type i32, then so many bytes), name, NUL.
fn folder_and_name(mut records: &[u8]) -> Option<(FolderHandle, &OsStr)> {
    loop {
        let kind = native::u8_at(records, 0)?;
        let length = usize::from(native::u16_at(records, 2)?);
        let record = records.get(..length).filter(|record| record.len() >= 4)?;
        records = records.get(length..)?;
        let named = matches!(
            kind,
            INFO_DIRECTORY_AND_NAME | INFO_OLD_DIRECTORY_AND_NAME | INFO_NEW_DIRECTORY_AND_NAME
        );
        if !named {
            continue;
        }
        let filesystem = record.get(4..12)?.try_into().ok()?;
        let handle_bytes = usize::try_from(native::u32_at(record, 12)?).ok()?;
        let handle_end = 20_usize.checked_add(handle_bytes)?;
        let handle = record.get(16..handle_end)?.to_vec();
        let name = record.get(handle_end..)?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        return Some((FolderHandle { filesystem, handle }, OsStr::from_bytes(name.get(..end)?)));
    }
}

fn folder_handle(folder: &Path, link: Link) -> io::Result<FolderHandle> {
    #[repr(C)]
    struct HandleBuffer {
        bytes: libc::c_uint,
        kind: libc::c_int,
        handle: [u8; HANDLE_BYTES_MAX],
    }
    let path = CString::new(folder.as_os_str().as_bytes())?;
    let room = HANDLE_BYTES_MAX as libc::c_uint;
    let mut buffer = HandleBuffer { bytes: room, kind: 0, handle: [0; HANDLE_BYTES_MAX] };
    let mut mount: libc::c_int = 0;
    // SAFETY: `buffer` is laid out as struct file_handle with `bytes` bytes of room behind it,
    // `path` is NUL-terminated, `mount` is a live int.
    let failed = unsafe {
        libc::name_to_handle_at(
            libc::AT_FDCWD,
            path.as_ptr(),
            (&raw mut buffer).cast(),
            &raw mut mount,
            match link {
                Link::Followed => libc::AT_SYMLINK_FOLLOW,
                Link::Refused => 0,
            },
        )
    } != 0;
    if failed {
        return Err(io::Error::last_os_error());
    }
    let used = usize::try_from(buffer.bytes).unwrap_or(0).min(HANDLE_BYTES_MAX);
    let mut handle = Vec::with_capacity(4 + used);
    native::push_u32(&mut handle, buffer.kind.cast_unsigned());
    handle.extend_from_slice(buffer.handle.get(..used).unwrap_or(&[]));
    Ok(FolderHandle { filesystem: filesystem_id(&path)?, handle })
}

fn filesystem_id(path: &CString) -> io::Result<[u8; 8]> {
    let mut answer = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: `path` is NUL-terminated and `answer` has room for one statfs.
    if unsafe { libc::statfs(path.as_ptr(), answer.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fsid_t is two ints, eight plain bytes, at a field of the zeroed and then filled
    // statfs.
    Ok(unsafe { std::mem::transmute::<libc::fsid_t, [u8; 8]>(answer.assume_init().f_fsid) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, name: &[u8]) -> Vec<u8> {
        let handle = [9_u8; 8];
        let length = 20 + handle.len() + name.len() + 1;
        let mut bytes = vec![kind, 0];
        native::push_u16(&mut bytes, u16::try_from(length).unwrap());
        bytes.extend_from_slice(&[7; 8]);
        native::push_u32(&mut bytes, 8);
        native::push_u32(&mut bytes, 1);
        bytes.extend_from_slice(&handle);
        bytes.extend_from_slice(name);
        bytes.push(0);
        bytes
    }

    #[test]
    fn the_named_record_is_found_behind_others() {
        let mut bytes = vec![4, 0];
        native::push_u16(&mut bytes, 8);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend(record(INFO_DIRECTORY_AND_NAME, b"report.txt"));
        let (folder, name) = folder_and_name(&bytes).unwrap();
        assert_eq!(name, "report.txt");
        assert_eq!(folder.filesystem, [7; 8]);
        assert_eq!(folder.handle[4..], [9; 8]);
    }

    #[test]
    fn a_cut_record_gives_nothing() {
        let bytes = record(INFO_DIRECTORY_AND_NAME, b"a");
        for length in 0..bytes.len() {
            assert_eq!(folder_and_name(&bytes[..length]), None, "{length} bytes");
        }
        assert_eq!(folder_and_name(&[2, 0, 0, 0]), None);
    }
}
