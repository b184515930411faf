//! What `/proc` says of one process, and which processes there are.
//!
//! The parsing is pure and tolerates anything. A process may end between any two reads, and its
//! number may be used again: a snapshot is only given when the start time read last is the one
//! read first. What could not be read is `None`, never a guess.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::fact::ProcessKey;
use super::limits::{COMMAND_LINE_BYTES_MAX, FILE_BYTES_MAX};
use crate::sys::host::FileIdentity;

/// Bytes of the operating system's, shared between a process and its children.
pub(crate) type Text = Arc<[u8]>;

/// The program that a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// Its path when it was looked at.
    pub(crate) path: Text,
    /// Whether it had no name any more.
    pub(crate) deleted: bool,
    /// Which content of which file.
    pub(crate) identity: FileIdentity,
}

impl Image {
    /// From what a `/proc` link to a file says.
    pub(crate) fn new(link: &Path, identity: FileIdentity) -> Self {
        const DELETED: &[u8] = b" (deleted)";
        let link = link.as_os_str().as_bytes();
        match link.strip_suffix(DELETED) {
            Some(path) => Self { path: path.into(), deleted: true, identity },
            None => Self { path: link.into(), deleted: false, identity },
        }
    }

    /// Whether both are the same content of the same file. The device is not compared: overlay
    /// filesystems show one file under two.
    pub(crate) fn same_file(&self, other: &Self) -> bool {
        let of =
            |image: &Self| (image.identity.inode, image.identity.bytes, image.identity.modified_ns);
        of(self) == of(other)
    }
}

/// The part of `/proc/PID/stat` that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) key: ProcessKey,
    pub(crate) name: Text,
    /// One letter; Z and X have ended.
    pub(crate) state: u8,
    pub(crate) parent_pid: u32,
    pub(crate) session: u32,
    pub(crate) terminal: u32,
    pub(crate) kernel_thread: bool,
}

impl Stat {
    /// Whether it has ended and only waits for its parent to ask.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// What could be read of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) stat: Stat,
    /// Effective user.
    pub(crate) user: Option<u32>,
    /// User who logged in; absent also where none did.
    pub(crate) login_user: Option<u32>,
    pub(crate) image: Option<Image>,
    pub(crate) command_line: Option<Text>,
    pub(crate) working_directory: Option<Text>,
    /// Id of its container; the outer `None` is "not read".
    pub(crate) container: Option<Option<Text>>,
}

/// Parses `/proc/PID/stat`. The name may hold spaces and parentheses, so its end is the last one.
pub(crate) fn parse_stat(line: &[u8]) -> Option<Stat> {
    const KERNEL_THREAD: u64 = 0x0020_0000;
    let open = line.iter().position(|byte| *byte == b'(')?;
    let close = line.iter().rposition(|byte| *byte == b')')?;
    let pid = number(line.get(..open)?)?;
    let name = line.get(open + 1..close)?;
    let mut fields =
        line.get(close + 1..)?.split(u8::is_ascii_whitespace).filter(|f| !f.is_empty());
    let state = *fields.next()?.first()?;
    let parent_pid = number(fields.next()?)?;
    let _group = fields.next()?;
    let session = number(fields.next()?)?;
    let terminal: i64 = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let _foreground = fields.next()?;
    let flags = number(fields.next()?)?;
    let start_ticks = number(fields.nth(12)?)?;
    let kernel_thread = flags & KERNEL_THREAD != 0;
    let name = if kernel_thread { kernel_thread_name(name) } else { name };
    let narrow = |value: u64| u32::try_from(value).ok();
    Some(Stat {
        key: ProcessKey { pid: narrow(pid)?, start_ticks },
        name: name.into(),
        state,
        parent_pid: narrow(parent_pid)?,
        session: narrow(session)?,
        terminal: u32::try_from(terminal).unwrap_or(0),
        kernel_thread,
    })
}

/// The name of a kernel thread without what it works at: a `kworker/CPU:NUMBER` shows that behind
/// `-` or `+`, and would have another name at each look.
fn kernel_thread_name(name: &[u8]) -> &[u8] {
    let Some(rest) = name.strip_prefix(b"kworker/") else { return name };
    let end = rest.iter().position(|byte| matches!(byte, b'-' | b'+')).unwrap_or(rest.len());
    let worker = rest.get(..end).unwrap_or(rest);
    // A rescuer, `kworker/R-NAME`, is named by what it serves.
    if worker.contains(&b':') {
        name.get(..name.len() - rest.len() + end).unwrap_or(name)
    } else {
        name
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.trim().parse().ok()
}

/// The effective user in `/proc/PID/status`.
pub(crate) fn parse_effective_user(status: &[u8]) -> Option<u32> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    let effective = line.split(u8::is_ascii_whitespace).filter(|f| !f.is_empty()).nth(1)?;
    u32::try_from(number(effective)?).ok()
}

/// Arguments separated by spaces, from arguments each ended by a NUL.
pub(crate) fn parse_command_line(bytes: &[u8]) -> Text {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.iter().take(end).map(|byte| if *byte == 0 { b' ' } else { *byte }).collect()
}

/// The container's id in `/proc/PID/cgroup`: the 64 hex digits that Docker, containerd, CRI-O and
/// Podman put there, or the name that LXC does.
pub(crate) fn parse_container(cgroup: &[u8]) -> Option<Text> {
    const ID_DIGITS: usize = 64;
    let parts = || {
        cgroup
            .split(|byte| *byte == b'\n')
            .filter_map(|line| line.splitn(3, |byte| *byte == b':').nth(2))
            .flat_map(|path| path.split(|byte| *byte == b'/'))
    };
    let id = parts().find_map(|part| {
        let bare = part.strip_suffix(b".scope").unwrap_or(part);
        let start = bare.len().checked_sub(ID_DIGITS)?;
        let id = bare.get(start..)?;
        let alone = start == 0 || matches!(bare.get(start - 1), Some(b'-' | b':'));
        (alone && id.iter().all(u8::is_ascii_hexdigit)).then_some(id)
    });
    let name = || {
        let mut before: &[u8] = b"";
        parts().find_map(|part| {
            let named = part.strip_prefix(b"lxc.payload.").or((before == b"lxc").then_some(part));
            before = part;
            named.filter(|name| !name.is_empty())
        })
    };
    id.or_else(name).map(Into::into)
}

/// The name of a terminal from its device number as `stat` gives it.
pub(crate) fn terminal_name(device: u32) -> Option<String> {
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0x000f_ff00);
    match major {
        4 if minor < 64 => Some(format!("tty{minor}")),
        4 => Some(format!("ttyS{}", minor - 64)),
        136..=143 => Some(format!("pts/{}", (major - 136) * 256 + minor)),
        _ => None,
    }
}

/// Reads at most `bytes_max` of a file.
pub(crate) fn read_bounded(path: impl AsRef<Path>, bytes_max: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(512);
    let limit = u64::try_from(bytes_max).ok()?;
    File::open(path).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Reads `/proc/PID/stat`.
pub(crate) fn read_stat(pid: u32) -> Option<Stat> {
    parse_stat(&read_bounded(format!("/proc/{pid}/stat"), 4096)?)
}

/// Reads all that matters of a process; `None` when it is gone, or went while it was read.
pub(crate) fn read_snapshot(pid: u32) -> Option<Snapshot> {
    let stat = read_stat(pid)?;
    let read = |name: &str, bytes| read_bounded(format!("/proc/{pid}/{name}"), bytes);
    // An ended process still has a command line file, but an empty one: that is not an empty
    // command line.
    let alive = !stat.has_ended();
    let command_line = read("cmdline", COMMAND_LINE_BYTES_MAX + 1).filter(|_| alive);
    let snapshot = Snapshot {
        user: read("status", 8192).and_then(|status| parse_effective_user(&status)),
        login_user: read("loginuid", 32)
            .and_then(|id| u32::try_from(number(&id)?).ok())
            .filter(|id| *id != u32::MAX),
        image: read_image(pid),
        command_line: command_line
            .filter(|bytes| !bytes.is_empty() || stat.kernel_thread)
            .map(|bytes| parse_command_line(&bytes)),
        working_directory: fs::read_link(format!("/proc/{pid}/cwd"))
            .ok()
            .map(|path| path.as_os_str().as_bytes().into()),
        container: read("cgroup", 8192).map(|cgroup| parse_container(&cgroup)),
        stat,
    };
    let after = read_stat(pid)?;
    (after.key == snapshot.stat.key).then_some(snapshot)
}

fn read_image(pid: u32) -> Option<Image> {
    let link = format!("/proc/{pid}/exe");
    let path = fs::read_link(&link).ok()?;
    let identity = FileIdentity::known_of(&link).ok()?;
    Some(Image::new(&path, identity))
}

/// The numbers of all processes.
pub(crate) fn process_numbers() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The inodes of the sockets that a process holds, and how many descriptors were looked at: `most`
/// at the most.
pub(crate) fn socket_inodes(pid: u32, most: usize, mut take: impl FnMut(u64)) -> usize {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
    let mut looked_at = 0;
    for entry in entries.flatten().take(most) {
        looked_at += 1;
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.as_os_str().as_bytes();
        let inode = target.strip_prefix(b"socket:[").and_then(|rest| rest.strip_suffix(b"]"));
        if let Some(inode) = inode.and_then(number) {
            take(inode);
        }
    }
    looked_at
}

/// One mount of this process' namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Device as `major:minor`.
    pub(crate) device: String,
    /// Where it is mounted.
    pub(crate) path: std::path::PathBuf,
    /// Kind of filesystem.
    pub(crate) kind: String,
}

impl Mount {
    /// Whether programs may lie on it. Filesystems that only show the kernel's state hold none.
    pub(crate) fn may_hold_programs(&self) -> bool {
        const NO_PROGRAMS: [&str; 20] = [
            "autofs",
            "binfmt_misc",
            "bpf",
            "cgroup",
            "cgroup2",
            "configfs",
            "debugfs",
            "devpts",
            "efivarfs",
            "fusectl",
            "mqueue",
            "nsfs",
            "proc",
            "pstore",
            "rpc_pipefs",
            "securityfs",
            "selinuxfs",
            "sysfs",
            "tracefs",
            "hugetlbfs",
        ];
        !NO_PROGRAMS.contains(&self.kind.as_str())
    }

    /// Whether its files are served by another machine or program, which may never answer.
    pub(crate) fn waits_for_others(&self) -> bool {
        const SERVED: [&str; 9] =
            ["nfs", "nfs4", "cifs", "smb3", "ceph", "afs", "fuse", "fuseblk", "coda"];
        SERVED.contains(&self.kind.as_str()) || self.kind.starts_with("fuse.")
    }
}

/// Parses `/proc/self/mountinfo`.
pub(crate) fn parse_mounts(text: &str) -> Vec<Mount> {
    text.lines()
        .filter_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let mut fields = mount.split(' ');
            let device = fields.nth(2)?.to_owned();
            let path = unescape(fields.nth(1)?);
            let kind = filesystem.split(' ').next()?.to_owned();
            Some(Mount { device, path: std::ffi::OsStr::from_bytes(&path).into(), kind })
        })
        .collect()
}

/// Undoes the kernel's `\040` for a space and the like.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'\\')
            .then(|| u8::from_str_radix(std::str::from_utf8(after.get(..3)?).ok()?, 8).ok())
            .flatten();
        match code {
            Some(code) => {
                out.push(code);
                rest = after.get(3..).unwrap_or(&[]);
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// Reads the mounts.
pub(crate) fn read_mounts() -> Vec<Mount> {
    let bytes = read_bounded("/proc/self/mountinfo", FILE_BYTES_MAX).unwrap_or_default();
    parse_mounts(&String::from_utf8_lossy(&bytes))
}

/// The device and inode of a file, as facts name it.
pub(crate) fn device_and_inode(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
#[path = "procfs_tests.rs"]
mod tests;
