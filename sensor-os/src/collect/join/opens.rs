//! Which of the files that a process opened for execution is the program it executes.
//!
//! The kernel opens up to several files for one exec: a script, the interpreter its first line
//! names (once more for each script in between), and the loader that a dynamic program asks for.
//! The program executed, which `/proc/PID/exe` shows, is the first one that is not a script. An
//! exec that failed leaves opens without an exec.

use std::collections::{BTreeMap, VecDeque};

use crate::collect::limits::{OPENING_PROCESSES_MAX, OPENS_PER_PROCESS_MAX};
use crate::collect::procfs::{Image, Snapshot};
use crate::sys::host::FileIdentity;

use super::process::Hash;

/// What the first bytes of a file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProgramFormat {
    /// `#!`: another file is executed.
    Script,
    /// ELF that names a loader: one more file is opened for it.
    Dynamic,
    /// ELF that names none.
    Static,
    /// Something else: executed only where the kernel was told of an interpreter for it.
    Other,
}

/// A file that was opened for execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// The file.
    pub(crate) image: Image,
    /// What it is.
    pub(crate) format: ProgramFormat,
    /// Its hash, computed through the open's own descriptor.
    pub(crate) hash: Hash,
}

/// The opens that wait for their exec, by process number.
#[derive(Debug, Default)]
pub(super) struct Opens {
    waiting: BTreeMap<u32, VecDeque<(u64, Opened)>>,
}

impl Opens {
    pub(super) fn push(&mut self, now_ns: u64, pid: u32, opened: Opened) {
        if self.waiting.len() >= OPENING_PROCESSES_MAX && !self.waiting.contains_key(&pid) {
            return;
        }
        let waiting = self.waiting.entry(pid).or_default();
        if waiting.len() >= OPENS_PER_PROCESS_MAX {
            waiting.pop_front();
        }
        waiting.push_back((now_ns, opened));
    }

    /// Takes the opens of the process' next exec and answers the program, and whether `snapshot`
    /// shows this exec (and not a later one).
    pub(super) fn take_program(
        &mut self,
        pid: u32,
        snapshot: Option<&Snapshot>,
    ) -> (Option<Opened>, bool) {
        let Some(waiting) = self.waiting.get_mut(&pid) else { return (None, true) };
        let program_at = waiting
            .iter()
            .position(|(_, opened)| {
                matches!(opened.format, ProgramFormat::Dynamic | ProgramFormat::Static)
            })
            .unwrap_or(waiting.len());
        let after = |program_at: usize| match waiting.get(program_at) {
            Some((_, opened)) if opened.format == ProgramFormat::Dynamic => program_at + 2,
            _ => program_at + 1,
        };
        let next_exec_at = after(program_at).min(waiting.len());
        let shown = snapshot.and_then(|snapshot| snapshot.image.as_ref());
        let shown_at =
            shown.map(|shown| waiting.iter().position(|(_, opened)| opened.image.same_file(shown)));
        let (chosen_at, taken, current) = match shown_at {
            // /proc shows a file of this exec: that is the program.
            Some(Some(at)) if at < next_exec_at => (at, after(at).min(waiting.len()), true),
            // It shows a file of a later exec.
            Some(Some(_)) => (program_at, next_exec_at, false),
            // It shows a file that was not opened before our eyes: the opens are of failed execs.
            Some(None) => (usize::MAX, waiting.len(), true),
            None => (program_at, next_exec_at, true),
        };
        let mut program = None;
        for (at, (_, opened)) in waiting.drain(..taken).enumerate() {
            if at == chosen_at {
                program = Some(opened);
            }
        }
        if waiting.is_empty() {
            self.waiting.remove(&pid);
        }
        (program, current)
    }

    /// A hash that was awaited is there.
    pub(super) fn hashed(&mut self, identity: FileIdentity, hash: Hash) {
        for (_, opened) in self.waiting.values_mut().flatten() {
            if opened.image.identity == identity && opened.hash == Hash::Awaited {
                opened.hash = hash;
            }
        }
    }

    /// Hashes that are awaited will not come.
    pub(super) fn hasher_restarted(&mut self) {
        for (_, opened) in self.waiting.values_mut().flatten() {
            if opened.hash == Hash::Awaited {
                opened.hash = Hash::Unseen;
            }
        }
    }

    pub(super) fn forget(&mut self, pid: u32) {
        self.waiting.remove(&pid);
    }

    pub(super) fn take(&mut self, pid: u32) -> Option<VecDeque<(u64, Opened)>> {
        self.waiting.remove(&pid)
    }

    pub(super) fn put(&mut self, pid: u32, opens: Option<VecDeque<(u64, Opened)>>) {
        if let Some(opens) = opens {
            self.waiting.insert(pid, opens);
        }
    }

    /// Forgets opens from before `before_ns`: their execs failed.
    pub(super) fn expire(&mut self, before_ns: u64) {
        self.waiting.retain(|_, waiting| {
            waiting.retain(|(opened_ns, _)| *opened_ns >= before_ns);
            !waiting.is_empty()
        });
    }
}

/// What the first bytes of a file say of it: `head` should hold the ELF header and what follows it.
pub(crate) fn format_of(head: &[u8]) -> ProgramFormat {
    const INTERPRETER: u32 = 3;
    if head.starts_with(b"#!") {
        return ProgramFormat::Script;
    }
    let Some([class, order, ..]) = head.strip_prefix(b"\x7fELF") else {
        return ProgramFormat::Other;
    };
    let read = |offset: usize, bytes: usize| -> Option<u64> {
        let field = head.get(offset..offset.checked_add(bytes)?)?;
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(if *order == 2 {
            field.iter().fold(0, fold)
        } else {
            field.iter().rev().fold(0, fold)
        })
    };
    let (table, entry_bytes, entries) = if *class == 2 {
        (read(32, 8), read(54, 2), read(56, 2))
    } else {
        (read(28, 4), read(42, 2), read(44, 2))
    };
    let (Some(table), Some(entry_bytes), Some(entries)) = (table, entry_bytes, entries) else {
        return ProgramFormat::Static;
    };
    let dynamic = (0..entries).any(|entry| {
        let offset = table.saturating_add(entry.saturating_mul(entry_bytes));
        usize::try_from(offset).ok().and_then(|offset| read(offset, 4)) == Some(INTERPRETER.into())
    });
    if dynamic { ProgramFormat::Dynamic } else { ProgramFormat::Static }
}
