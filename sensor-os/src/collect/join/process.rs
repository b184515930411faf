//! One process as the join knows it, and what is told of it.
//!
//! Holds values and how they are inherited or learnt; when to tell is the join's.

use crate::collect::fact::ProcessKey;
use crate::collect::procfs::{Image, Snapshot, Stat, Text};

use super::arguments::Arguments;
use super::opens::Opened;

/// What is known of a program's hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Hash {
    /// It exists but could not be had, or there is none to have.
    #[default]
    Unseen,
    /// It is being computed.
    Awaited,
    /// SHA-256.
    Known([u8; 32]),
}

impl Hash {
    /// Itself where there is an image, nothing where there is none.
    pub(crate) fn if_image(self, image: bool) -> Self {
        if image { self } else { Self::Unseen }
    }
}

/// What a process executes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Program {
    /// The file.
    pub(crate) image: Option<Image>,
    /// Its hash.
    pub(crate) hash: Hash,
    /// Whether an open gave it, whose own descriptor is hashed.
    pub(super) opened: bool,
    /// Short name.
    pub(crate) name: Option<Text>,
    /// Arguments.
    pub(crate) command_line: Option<Text>,
    /// Working folder.
    pub(crate) working_directory: Option<Text>,
}

impl Program {
    /// As `/proc` shows it; `opened` is the open of the same file, where there was one.
    pub(super) fn shown(snapshot: &Snapshot, opened: Option<Opened>) -> Self {
        let (image, hash, opened) = match (opened, &snapshot.image) {
            (Some(opened), _) => (Some(opened.image), opened.hash, true),
            (None, Some(image)) => (Some(image.clone()), Hash::Awaited, false),
            (None, None) => (None, Hash::Unseen, false),
        };
        Self {
            image,
            hash,
            opened,
            name: Some(snapshot.stat.name.clone()),
            command_line: snapshot.command_line.clone(),
            working_directory: snapshot.working_directory.clone(),
        }
    }

    /// Takes over the arguments that the kernel saw; `/proc` shows what the process made of them
    /// since, and is only better where the kernel's were cut.
    pub(super) fn called_with(&mut self, arguments: Option<Arguments>) {
        let Some(arguments) = arguments else { return };
        if !arguments.is_cut || self.command_line.is_none() {
            self.command_line = Some(arguments.command_line);
        }
    }

    /// Of which only the open was seen. Its short name is not: it is made of the name it was called
    /// by, which may have been a link's or a script's.
    pub(super) fn opened(opened: Opened) -> Self {
        Self { hash: opened.hash, image: Some(opened.image), opened: true, ..Self::default() }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// When, in boot time; where nobody told, when it was missed.
    pub(crate) time_ns: u64,
    /// Wait status.
    pub(crate) status: Option<u32>,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) key: ProcessKey,
    pub(crate) parent: Option<ProcessKey>,
    pub(crate) parent_image_path: Option<Text>,
    /// Boot time of the fork, where it was told; otherwise it follows from the key.
    pub(super) forked_ns: Option<u64>,
    /// Whether the key's start time is known to be the process'.
    pub(crate) start_seen: bool,
    pub(crate) kernel_thread: bool,
    /// Effective user.
    pub(crate) user: Option<u32>,
    /// User who logged in; absent also where none did.
    pub(crate) login_user: Option<u32>,
    pub(crate) session: Option<u32>,
    /// Device number of the terminal, 0 for none.
    pub(crate) terminal: Option<u32>,
    /// Container; the outer `None` is "not seen".
    pub(crate) container: Option<Option<Text>>,
    pub(crate) program: Program,
    pub(super) told: bool,
    pub(super) due_ns: Option<u64>,
    /// When an ended process waits no longer for its hash.
    pub(super) give_up_ns: Option<u64>,
    pub(super) ending: Option<Ending>,
}

impl Process {
    /// One of which nothing but its number is known.
    pub(super) fn unseen(key: ProcessKey) -> Self {
        Self {
            key,
            parent: None,
            parent_image_path: None,
            forked_ns: None,
            start_seen: false,
            kernel_thread: false,
            user: None,
            login_user: None,
            session: None,
            terminal: None,
            container: None,
            program: Program::default(),
            told: false,
            due_ns: None,
            give_up_ns: None,
            ending: None,
        }
    }

    /// One that was forked off `parent`: the kernel gives it everything of its parent's.
    pub(super) fn forked(
        key: ProcessKey,
        time_ns: u64,
        parent: Option<&Self>,
        shown: Option<&Stat>,
    ) -> Self {
        let base = parent.cloned().unwrap_or_else(|| Self::unseen(key));
        let mut process = Self {
            key,
            parent: parent.map(|parent| parent.key),
            parent_image_path: parent.and_then(Self::image_path),
            forked_ns: Some(time_ns),
            start_seen: true,
            told: false,
            due_ns: None,
            give_up_ns: None,
            ending: None,
            ..base
        };
        if let Some(stat) = shown {
            process.kernel_thread = stat.kernel_thread;
            process.session = Some(stat.session);
            process.terminal = Some(stat.terminal);
        }
        process
    }

    /// One that `/proc` shows.
    pub(super) fn shown(snapshot: &Snapshot, tick_ns: u64, parent: Option<&Self>) -> Self {
        let key = snapshot.stat.key;
        // The parent that /proc shows may have started later: then the number was used again.
        let parent = parent.filter(|parent| {
            parent.key.start_ticks <= key.start_ticks && parent.key.pid != key.pid
        });
        let mut process = Self {
            parent: parent.map(|parent| parent.key),
            parent_image_path: parent.and_then(Self::image_path),
            start_seen: tick_ns > 0,
            program: Program::shown(snapshot, None),
            ..Self::unseen(key)
        };
        process.learn(snapshot);
        process
    }

    /// Takes over what does not depend on the program.
    pub(super) fn learn(&mut self, snapshot: &Snapshot) {
        self.kernel_thread = snapshot.stat.kernel_thread;
        self.session = Some(snapshot.stat.session);
        self.terminal = Some(snapshot.stat.terminal);
        self.user = snapshot.user.or(self.user);
        self.login_user = snapshot.login_user.or(self.login_user);
        if let Some(container) = &snapshot.container {
            self.container = Some(container.clone());
        }
    }

    /// Path of its image, where seen.
    pub(crate) fn image_path(&self) -> Option<Text> {
        self.program.image.as_ref().map(|image| image.path.clone())
    }

    /// When it started, in boot time.
    pub(crate) fn started_ns(&self, tick_ns: u64) -> u64 {
        self.forked_ns.unwrap_or_else(|| self.key.start_ticks.saturating_mul(tick_ns))
    }

    pub(super) fn has_name(&self, name: &[u8]) -> bool {
        self.program.name.as_deref() == Some(name)
    }

    pub(super) fn end_change(&self, tick_ns: u64) -> Option<ProcessChange> {
        let ending = self.ending?;
        let lived_ns = ending.time_ns.saturating_sub(self.started_ns(tick_ns));
        Some(ProcessChange::Ended { key: self.key, ending, lived_ns })
    }
}

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProcessChange {
    /// The process is so.
    Is(Box<Process>),
    /// It is no more.
    Ended {
        /// Which.
        key: ProcessKey,
        /// How.
        ending: Ending,
        /// How long it lived.
        lived_ns: u64,
    },
}
