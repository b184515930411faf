//! Tests of the join: every order that events were found to come in, and what is lost between them.

use super::*;
use crate::collect::join::opens::format_of;

const MS: u64 = 1_000_000;
const TICK: u64 = 10 * MS;
const SHELL: u32 = 10;
const CHILD: u32 = 20;

fn image(name: &str) -> Image {
    let inode = name.bytes().fold(7, |sum: u64, byte| sum * 31 + u64::from(byte));
    let identity = FileIdentity { device: 1, inode, bytes: 100, modified_ns: 1, changed_ns: 1 };
    Image { path: name.as_bytes().into(), deleted: false, identity }
}

fn opened(name: &str, format: ProgramFormat, hash: Hash) -> Opened {
    Opened { image: image(name), format, hash }
}

fn stat(pid: u32, start_ticks: u64, name: &str) -> Stat {
    Stat {
        key: ProcessKey { pid, start_ticks },
        name: name.as_bytes().into(),
        state: b'R',
        parent_pid: SHELL,
        session: 10,
        terminal: 0,
        kernel_thread: false,
    }
}

fn snapshot(pid: u32, start_ticks: u64, name: &str) -> Snapshot {
    Snapshot {
        stat: stat(pid, start_ticks, name),
        user: Some(1000),
        login_user: None,
        image: Some(image(name)),
        command_line: Some(format!("{name} --run").as_bytes().into()),
        working_directory: Some(b"/work"[..].into()),
        container: Some(None),
    }
}

/// A join that has told of a shell with number [`SHELL`], started at tick 5, its hash known.
fn with_shell() -> Join {
    let mut join = Join::new(100);
    join.handle_snapshot(0, &snapshot(SHELL, 5, "/bin/sh"));
    let (_, wanted) = join.poll_hash_wanted().unwrap();
    join.handle_hash(0, wanted.identity, Hash::Known([1; 32]));
    assert_eq!(drain(&mut join).len(), 1);
    join
}

fn drain(join: &mut Join) -> Vec<ProcessChange> {
    std::iter::from_fn(|| join.poll_change()).collect()
}

fn process(change: &ProcessChange) -> &Process {
    match change {
        ProcessChange::Is(process) => process,
        ProcessChange::Ended { .. } => panic!("expected a process, got {change:?}"),
    }
}

fn path(process: &Process) -> String {
    String::from_utf8_lossy(&process.image_path().unwrap_or_default()).into_owned()
}

fn status(change: &ProcessChange) -> Option<u32> {
    match change {
        ProcessChange::Ended { ending, .. } => ending.status,
        ProcessChange::Is(_) => panic!("expected an end, got {change:?}"),
    }
}

#[test]
fn a_program_that_is_gone_before_it_is_read_is_told_with_its_hash() {
    let mut join = with_shell();
    join.handle_open(100 * MS, CHILD, opened("/tmp/x", ProgramFormat::Dynamic, Hash::Awaited));
    join.handle_open(100 * MS, CHILD, opened("/lib/ld", ProgramFormat::Static, Hash::Awaited));
    join.handle_fork(100 * MS, (CHILD, SHELL), 98 * MS, None);
    join.handle_exec(100 * MS, CHILD, 99 * MS, None);
    join.handle_exit(100 * MS, CHILD, 99 * MS, Some(3 << 8));
    assert_eq!(drain(&mut join), [], "the hash is near");
    join.handle_hash(101 * MS, image("/tmp/x").identity, Hash::Known([9; 32]));
    let changes = drain(&mut join);
    assert_eq!(changes.len(), 2, "{changes:?}");
    let told = process(&changes[0]);
    assert_eq!(told.key, ProcessKey { pid: CHILD, start_ticks: 98 * MS / TICK });
    assert_eq!(told.parent, Some(ProcessKey { pid: SHELL, start_ticks: 5 }));
    assert_eq!(path(told), "/tmp/x");
    assert_eq!(told.program.hash, Hash::Known([9; 32]));
    assert_eq!(told.user, Some(1000), "inherited by the kernel's own rule");
    assert_eq!(told.program.command_line, None, "not seen, so not guessed");
    assert_eq!(status(&changes[1]), Some(3 << 8));
}

#[test]
fn a_late_hash_is_told_after_the_start_and_before_the_end() {
    let mut join = with_shell();
    join.handle_open(0, CHILD, opened("/tmp/big", ProgramFormat::Static, Hash::Awaited));
    join.handle_fork(0, (CHILD, SHELL), 0, None);
    join.handle_exec(0, CHILD, 0, None);
    join.handle_exit(5 * MS, CHILD, 5 * MS, Some(0));
    let due = join.poll_timeout().unwrap();
    assert!(due <= 50 * MS, "told promptly: {due}");
    join.handle_timeout(due);
    let first = drain(&mut join);
    assert_eq!(first.len(), 1);
    assert_eq!(process(&first[0]).program.hash, Hash::Awaited);
    join.handle_hash(900 * MS, image("/tmp/big").identity, Hash::Known([2; 32]));
    let then = drain(&mut join);
    assert_eq!(process(&then[0]).program.hash, Hash::Known([2; 32]));
    assert_eq!(status(&then[1]), Some(0));
    assert_eq!(then.len(), 2);
    assert_eq!(join.poll_timeout(), None);
}

#[test]
fn a_copy_that_was_told_and_then_executes_and_ends_waits_for_its_hash_too() {
    let mut join = with_shell();
    join.handle_fork(0, (CHILD, SHELL), 0, None);
    join.handle_timeout(join.poll_timeout().unwrap());
    assert_eq!(path(process(&drain(&mut join)[0])), "/bin/sh");
    join.handle_open(30 * MS, CHILD, opened("/tmp/x", ProgramFormat::Static, Hash::Awaited));
    join.handle_exec(30 * MS, CHILD, 30 * MS, None);
    join.handle_exit(30 * MS, CHILD, 30 * MS, Some(0));
    join.handle_timeout(join.poll_timeout().unwrap());
    assert_eq!(process(&drain(&mut join)[0]).program.hash, Hash::Awaited);
    join.handle_hash(1_000 * MS, image("/tmp/x").identity, Hash::Known([8; 32]));
    let changes = drain(&mut join);
    assert_eq!(process(&changes[0]).program.hash, Hash::Known([8; 32]));
    assert_eq!(status(&changes[1]), Some(0));
}

#[test]
fn an_end_does_not_wait_for_ever_for_a_hash() {
    let mut join = with_shell();
    join.handle_open(0, CHILD, opened("/tmp/big", ProgramFormat::Static, Hash::Awaited));
    join.handle_fork(0, (CHILD, SHELL), 0, None);
    join.handle_exec(0, CHILD, 0, None);
    join.handle_exit(0, CHILD, 0, Some(0));
    let mut changes = Vec::new();
    while let Some(due) = join.poll_timeout() {
        assert!(due < 10_000 * MS);
        join.handle_timeout(due);
        changes.extend(drain(&mut join));
    }
    assert_eq!(status(changes.last().unwrap()), Some(0));
    let ends = changes.iter().filter(|change| matches!(change, ProcessChange::Ended { .. }));
    assert_eq!(ends.count(), 1);
}

#[test]
fn a_hash_that_was_asked_of_a_hasher_that_is_gone_is_asked_again() {
    let mut join = with_shell();
    for (pid, name) in [(CHILD, "/tmp/runs"), (CHILD + 1, "/tmp/ended")] {
        join.handle_open(0, pid, opened(name, ProgramFormat::Static, Hash::Awaited));
        join.handle_fork(0, (pid, SHELL), 0, None);
        join.handle_exec(0, pid, 0, None);
    }
    join.handle_exit(0, CHILD + 1, 0, Some(0));
    join.handle_hasher_restart(MS);
    let (key, wanted) = join.poll_hash_wanted().unwrap();
    assert_eq!((key.pid, wanted), (CHILD, image("/tmp/runs")));
    assert_eq!(join.poll_hash_wanted(), None);
    let ended = drain(&mut join);
    assert_eq!(status(ended.last().unwrap()), Some(0), "its file is not asked for any more");
}

#[test]
fn a_fork_that_executes_soon_is_told_once() {
    let mut join = with_shell();
    join.handle_fork(0, (CHILD, SHELL), 100 * MS, Some(stat(CHILD, 10, "/bin/sh")));
    assert_eq!(drain(&mut join), []);
    let known = Hash::Known([3; 32]);
    join.handle_open(MS, CHILD, opened("/bin/ls", ProgramFormat::Static, known));
    join.handle_exec(MS, CHILD, 101 * MS, Some(snapshot(CHILD, 10, "/bin/ls")));
    let changes = drain(&mut join);
    assert_eq!(changes.len(), 1);
    let told = process(&changes[0]);
    assert_eq!(path(told), "/bin/ls");
    assert_eq!(told.program.command_line.as_deref(), Some(&b"/bin/ls --run"[..]));
    assert_eq!(told.parent_image_path.as_deref(), Some(&b"/bin/sh"[..]));
    assert_eq!(told.program.hash, known);
}

#[test]
fn a_fork_that_does_not_execute_is_a_copy_of_its_parent() {
    let mut join = with_shell();
    join.handle_fork(0, (CHILD, SHELL), 100 * MS, Some(stat(CHILD, 10, "/bin/sh")));
    join.handle_timeout(join.poll_timeout().unwrap());
    let changes = drain(&mut join);
    assert_eq!(path(process(&changes[0])), "/bin/sh");
    assert_eq!(process(&changes[0]).program.hash, Hash::Known([1; 32]));
}

#[test]
fn an_exec_whose_fork_was_lost_is_told_from_what_proc_shows() {
    let mut join = with_shell();
    join.handle_exec(0, CHILD, 0, Some(snapshot(CHILD, 42, "/bin/ls")));
    let (key, wanted) = join.poll_hash_wanted().unwrap();
    assert_eq!((key.pid, wanted), (CHILD, image("/bin/ls")));
    join.handle_hash(0, image("/bin/ls").identity, Hash::Unseen);
    let changes = drain(&mut join);
    assert_eq!(process(&changes[0]).key.start_ticks, 42);
    assert_eq!(process(&changes[0]).program.hash, Hash::Unseen);
    // The fork that comes after all tells nothing new.
    join.handle_fork(0, (CHILD, SHELL), 420 * MS, Some(stat(CHILD, 42, "/bin/ls")));
    assert_eq!(drain(&mut join), []);
}

#[test]
fn a_number_used_again_ends_the_process_before() {
    let mut join = with_shell();
    join.handle_fork(0, (CHILD, SHELL), 100 * MS, None);
    join.handle_timeout(join.poll_timeout().unwrap());
    drain(&mut join);
    join.handle_open(0, CHILD, opened("/tmp/y", ProgramFormat::Static, Hash::Known([4; 32])));
    join.handle_fork(0, (CHILD, SHELL), 900 * MS, None);
    join.handle_exec(0, CHILD, 901 * MS, None);
    let changes = drain(&mut join);
    assert_eq!(status(&changes[0]), None, "nobody told how it ended");
    let told = process(&changes[1]);
    assert_eq!((told.key.start_ticks, path(told)), (90, "/tmp/y".into()));
}

#[test]
fn what_proc_shows_of_another_process_with_the_number_is_not_used() {
    let mut join = with_shell();
    join.handle_fork(0, (CHILD, SHELL), 100 * MS, Some(stat(CHILD, 500, "late")));
    join.handle_exec(0, CHILD, 101 * MS, Some(snapshot(CHILD, 500, "/bin/late")));
    join.handle_exit(0, CHILD, 102 * MS, Some(0));
    let changes = drain(&mut join);
    let told = process(&changes[0]);
    assert_eq!((told.key.start_ticks, path(told)), (10, String::new()));
}

#[test]
fn two_execs_in_a_row_each_get_their_own_program() {
    let mut join = with_shell();
    join.handle_fork(0, (CHILD, SHELL), 100 * MS, Some(stat(CHILD, 10, "/bin/sh")));
    for (name, byte) in [("/bin/env", 1), ("/bin/ls", 2)] {
        let hash = Hash::Known([byte; 32]);
        join.handle_open(0, CHILD, opened(name, ProgramFormat::Dynamic, hash));
        join.handle_open(0, CHILD, opened("/lib/ld", ProgramFormat::Static, hash));
    }
    // By the time of the first exec, /proc shows the second.
    join.handle_exec(0, CHILD, 101 * MS, Some(snapshot(CHILD, 10, "/bin/ls")));
    join.handle_exec(0, CHILD, 102 * MS, Some(snapshot(CHILD, 10, "/bin/ls")));
    let changes = drain(&mut join);
    let first = process(&changes[0]);
    assert_eq!((path(first), first.program.hash), ("/bin/env".into(), Hash::Known([1; 32])));
    assert_eq!(first.program.command_line, None, "what /proc shows is the second's");
    let second = process(&changes[1]);
    assert_eq!((path(second), second.program.hash), ("/bin/ls".into(), Hash::Known([2; 32])));
    assert!(second.program.command_line.is_some());
}

#[test]
fn arguments_that_the_kernel_saw_belong_to_the_exec_after_them() {
    let mut join = with_shell();
    let arguments = |time_ns: u64, line: &str, is_cut: bool| Arguments {
        time_ns,
        command_line: line.as_bytes().into(),
        is_cut,
    };
    join.handle_fork(0, (CHILD, SHELL), 100 * MS, None);
    join.handle_arguments(CHILD, arguments(101 * MS, "first -a", false));
    join.handle_arguments(CHILD, arguments(103 * MS, "second -b", false));
    join.handle_exec(0, CHILD, 102 * MS, None);
    join.handle_exec(0, CHILD, 104 * MS, None);
    let lines: Vec<_> = drain(&mut join)
        .iter()
        .map(|change| process(change).program.command_line.clone().unwrap())
        .collect();
    assert_eq!(lines, [b"first -a"[..].into(), b"second -b"[..].into()]);
    // Cut ones are the beginning only; what /proc shows is longer.
    join.handle_arguments(SHELL, arguments(200 * MS, "/bin/sh --r", true));
    join.handle_exec(0, SHELL, 201 * MS, Some(snapshot(SHELL, 5, "/bin/sh")));
    let (_, wanted) = join.poll_hash_wanted().unwrap();
    join.handle_hash(0, wanted.identity, Hash::Unseen);
    let told = drain(&mut join);
    assert_eq!(process(&told[0]).program.command_line.as_deref(), Some(&b"/bin/sh --run"[..]));
}

#[test]
fn a_script_is_executed_by_its_interpreter() {
    let mut join = with_shell();
    join.handle_fork(0, (CHILD, SHELL), 100 * MS, None);
    let known = Hash::Known([6; 32]);
    join.handle_open(0, CHILD, opened("/x.py", ProgramFormat::Script, Hash::Unseen));
    join.handle_open(0, CHILD, opened("/bin/python", ProgramFormat::Dynamic, known));
    join.handle_open(0, CHILD, opened("/lib/ld", ProgramFormat::Static, Hash::Unseen));
    join.handle_exec(0, CHILD, 101 * MS, None);
    let changes = drain(&mut join);
    assert_eq!(path(process(&changes[0])), "/bin/python");
    assert_eq!(process(&changes[0]).program.hash, known);
}

#[test]
fn a_changed_user_is_told_once_for_several_changes() {
    let mut join = with_shell();
    join.handle_user(0, SHELL, 0);
    join.handle_user(MS, SHELL, 33);
    join.handle_user(MS, SHELL, 33);
    join.handle_timeout(join.poll_timeout().unwrap());
    let changes = drain(&mut join);
    assert_eq!(changes.len(), 1);
    assert_eq!(process(&changes[0]).user, Some(33));
}

#[test]
fn a_scan_ends_what_vanished_but_not_what_has_just_started() {
    let mut join = with_shell();
    join.handle_fork(0, (CHILD, SHELL), 990 * MS, Some(stat(CHILD, 99, "/bin/sh")));
    join.handle_scanned(1_100 * MS, 1_000 * MS, &BTreeSet::new());
    let changes = drain(&mut join);
    assert_eq!(changes.len(), 1, "only the shell: {changes:?}");
    assert_eq!(status(&changes[0]), None);
    assert_eq!(join.running(), 1);
}

#[test]
fn a_scan_that_finds_nothing_new_tells_nothing() {
    let mut join = with_shell();
    assert!(join.knows(&stat(SHELL, 5, "/bin/sh")));
    assert!(!join.knows(&stat(SHELL, 5, "renamed")));
    assert!(!join.knows(&stat(SHELL, 6, "/bin/sh")));
    join.handle_scanned(1_000 * MS, 900 * MS, &BTreeSet::from([SHELL]));
    assert_eq!(drain(&mut join), []);
    assert_eq!(join.poll_timeout(), None);
}

#[test]
fn the_formats_of_programs() {
    assert_eq!(format_of(b"#!/bin/sh\n"), ProgramFormat::Script);
    assert_eq!(format_of(b"MZ"), ProgramFormat::Other);
    assert_eq!(format_of(b""), ProgramFormat::Other);
    assert_eq!(format_of(b"\x7fELF"), ProgramFormat::Other);
    let own = std::fs::read("/proc/self/exe").unwrap();
    assert_eq!(format_of(&own[..4096]), ProgramFormat::Dynamic);
    for length in 0..256 {
        format_of(&own[..length]);
    }
}
