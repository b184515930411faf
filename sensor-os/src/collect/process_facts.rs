//! What the join tells, as facts of kind `process`.
//!
//! A feature that exists but was not seen is marked as missing; a kernel thread has no program, so
//! none of a program's features is missing there.

use lapwing_protocol::element::{Change, process};

use super::fact::{CollectedFact, FactBuilder, OwnedValue, ProcessKey, Room};
use super::join::{Ending, Hash, Process, ProcessChange};
use super::procfs::terminal_name;
use super::queue::Source;
use super::users::UserNames;

/// Turns a change into its fact.
pub(crate) fn process_fact(
    change: &ProcessChange,
    tick_ns: u64,
    now_ns: u64,
    users: &UserNames,
) -> CollectedFact {
    match change {
        ProcessChange::Is(process) => running(process, tick_ns, now_ns, users),
        ProcessChange::Ended { key, ending, lived_ns } => ended(*key, *ending, *lived_ns),
    }
}

fn keyed(key: ProcessKey, change: Change, time_ns: u64) -> FactBuilder {
    FactBuilder::new(Source::Processes, process::KIND, change, time_ns)
        .number(process::pid, u64::from(key.pid))
        .number(process::start_ticks, key.start_ticks)
}

fn running(process: &Process, tick_ns: u64, now_ns: u64, users: &UserNames) -> CollectedFact {
    let program = &process.program;
    let mut fact = keyed(process.key, Change::Whole, now_ns)
        .value_if(process::parent, process.parent.map(ProcessKey::reference))
        .text_if(process::parent_image_path, process.parent_image_path.as_ref(), Room::Path)
        .value(process::started, OwnedValue::Time(process.started_ns(tick_ns)))
        .text_if(process::name, program.name.as_ref(), Room::Path)
        .text_if(process::command_line, program.command_line.as_ref(), Room::CommandLine)
        .text_if(process::working_directory, program.working_directory.as_ref(), Room::Path)
        .value_if(process::uid, process.user.map(|user| OwnedValue::U64(user.into())))
        .text_if(process::user, process.user.and_then(|user| users.name_of(user)), Room::Path)
        .value_if(process::login_uid, process.login_user.map(|user| OwnedValue::U64(user.into())))
        .value_if(process::session, process.session.map(|id| OwnedValue::U64(id.into())))
        .text_if(process::terminal, process.terminal.and_then(terminal_name), Room::Path)
        .text_if(process::container, process.container.clone().flatten(), Room::Path);
    if let Some(image) = &program.image {
        fact = fact
            .text(process::image_path, &image.path, Room::Path)
            .value(process::image_deleted, OwnedValue::Bool(image.deleted))
            .number(process::image_inode, image.identity.inode)
            .number(process::image_device, image.identity.device)
            .number(process::image_bytes, image.identity.bytes);
    }
    if let Hash::Known(hash) = program.hash {
        fact = fact.value(process::image_hash, OwnedValue::Hash(hash.into()));
    }
    mark_missing(process, fact).build()
}

fn mark_missing(process: &Process, mut fact: FactBuilder) -> FactBuilder {
    let program = &process.program;
    let of_any = [
        (process::uid, process.user.is_some()),
        (process::session, process.session.is_some()),
        (process::container, process.container.is_some()),
        (process::started, process.start_seen),
    ];
    let of_programs = [
        (process::name, program.name.is_some()),
        (process::command_line, program.command_line.is_some()),
        (process::working_directory, program.working_directory.is_some()),
        (process::image_path, program.image.is_some()),
        (process::image_hash, matches!(program.hash, Hash::Known(_))),
    ];
    let of_programs = of_programs.into_iter().filter(|_| !process.kernel_thread);
    for (feature, seen) in of_any.into_iter().chain(of_programs) {
        if !seen {
            fact = fact.missing(feature);
        }
    }
    fact
}

fn ended(key: ProcessKey, ending: Ending, lived_ns: u64) -> CollectedFact {
    let fact = keyed(key, Change::Ended, ending.time_ns)
        .value(process::ended, OwnedValue::Time(ending.time_ns))
        .number(process::duration_ms, lived_ns / 1_000_000);
    match ending.status {
        Some(status) => fact.value(process::exit_code, OwnedValue::I64(exit_code(status))),
        None => fact.missing(process::exit_code),
    }
    .build()
}

/// The exit code that a shell would show: 128 and the signal's number for one that was killed.
fn exit_code(status: u32) -> i64 {
    match status & 0x7f {
        0 => i64::from((status >> 8) & 0xff),
        signal => 128 + i64::from(signal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_killed_process_shows_its_signal() {
        assert_eq!(exit_code(0), 0);
        assert_eq!(exit_code(3 << 8), 3);
        assert_eq!(exit_code(9), 137);
        assert_eq!(exit_code(0x80 | 11), 139, "with a core dump");
    }

    #[test]
    fn what_is_not_known_of_an_end_is_marked() {
        let key = ProcessKey { pid: 4, start_ticks: 5 };
        let ending = Ending { time_ns: 9_000_000, status: None };
        let change = ProcessChange::Ended { key, ending, lived_ns: 3_000_000 };
        let fact = process_fact(&change, 1, 1, &UserNames::new(Path::new("/nowhere")));
        assert_eq!(fact.change, Change::Ended);
        assert_eq!(fact.value(process::exit_code), None);
        assert_eq!(fact.value(process::duration_ms), Some(&OwnedValue::U64(3)));
        let missing = OwnedValue::U64(1 << process::exit_code.0);
        assert_eq!(fact.value(lapwing_protocol::element::Feature::MISSING), Some(&missing));
    }
}
