//! Commands: carried out once, or not at all.

use super::case;
use super::context::Context;
use crate::cases::{Case, Checked, Stop, ensure, equal};
use crate::play::link::PATIENCE;
use crate::wire::message::{Action, CommandOutcome, Lane};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "a_command_runs_once",
        &["CMD-002", "CMD-003", "CMD-006"],
        "Sent again in the session, after a lost one, after kill -9 and after a stop, a command \
         that ran is Refused and does not run again; Hello says its number.",
        a_command_runs_once,
    ),
    case(
        "a_command_that_a_kill_cuts_short_is_interrupted",
        &["CMD-002", "CMD-003"],
        "Killed with -9 at one moment after the other while it obeys: what it did it remembers, what \
         it accepted has one outcome, Done or Interrupted, and does not run again.",
        a_command_that_a_kill_cuts_short,
    ),
    case(
        "a_lower_number_is_refused",
        &["CMD-002"],
        "A number below the last accepted one, of the same issuer or an earlier one, is Refused; a \
         later issuer begins anew.",
        a_lower_number_is_refused,
    ),
    case(
        "an_expired_command_does_not_run",
        &["CMD-005"],
        "With no time left on receipt it is Expired.",
        an_expired_command_does_not_run,
    ),
    case(
        "what_a_sensor_cannot_do_it_says",
        &["CMD-006", "MOD-009"],
        "An action that it does not know how to do has an outcome all the same, and is not Done \
         without being done.",
        what_a_sensor_cannot_do_it_says,
    ),
    case(
        "many_commands_each_run_at_most_once",
        &["CMD-007", "HEL-003", "CMD-002"],
        "Of twelve commands at once each gets one outcome: those that are turned away come again \
         after the sensor's next Hello.",
        many_commands_each_run_at_most_once,
    ),
];

const LATER: u64 = 600_000;

/// Waits for the outcome of a command.
pub(super) fn outcome(cx: &mut Context, number: (u64, u64)) -> Result<u64, Stop> {
    let of = |outcomes: Vec<(u64, u64, u64)>| {
        outcomes.into_iter().find(|(issuer, seq, _)| (*issuer, *seq) == number)
    };
    cx.a.pump(&format!("CMD-006: the outcome of command {number:?}"), |station| {
        of(station.outcomes()).is_some()
    })?;
    let (_, _, outcome) = of(cx.a.outcomes()).ok_or("no outcome")?;
    Ok(outcome)
}

/// Every outcome of a command, in the order in which they came.
fn outcomes(cx: &Context, number: (u64, u64)) -> Vec<u64> {
    let all = cx.a.outcomes().into_iter();
    let of = all.filter(|(issuer, seq, _)| (*issuer, *seq) == number);
    of.map(|(_, _, outcome)| outcome).collect()
}

fn with_commands(cx: &mut Context) -> Checked {
    cx.online()?;
    cx.a.head(Lane::Urgent)
        .map(drop)
        .map_err(|_| Stop::Skip("it uses the bulk lane alone, and takes no command".into()))
}

/// The command again: what ran must not run again.
fn again(cx: &mut Context, number: (u64, u64), when: &str) -> Checked {
    let before = cx.a.outcomes().len();
    cx.a.command(number, Action::StartCollection, LATER)?;
    // An answer is not owed within any time; one that comes must not be Done.
    cx.a.pump_for(std::time::Duration::from_secs(2), |station| station.outcomes().len() > before)?;
    cx.a.settle()?;
    let done = outcomes(cx, number).into_iter().filter(|of| *of == CommandOutcome::Done as u64);
    equal!(done.count(), 1, "CMD-002: times that the command ran, sent again {when}");
    Ok(())
}

fn accepted(cx: &Context) -> Option<(u64, u64)> {
    let last = cx.a.hello.as_ref()?.last_command.as_ref()?;
    Some((last.issuer, last.seq))
}

fn a_command_runs_once(cx: &mut Context) -> Checked {
    with_commands(cx)?;
    equal!(accepted(cx), None, "CMD-003: the accepted number of a new sensor");
    cx.a.command((3, 7), Action::StartCollection, LATER)?;
    equal!(outcome(cx, (3, 7))?, CommandOutcome::Done as u64, "CMD-006: the outcome");
    cx.a.settle()?;
    again(cx, (3, 7), "in the session")?;
    cx.a.cut();
    cx.a.welcome()?;
    equal!(accepted(cx), Some((3, 7)), "CMD-003: the number in Hello");
    again(cx, (3, 7), "after a lost session")?;
    cx.restart()?;
    cx.a.welcome()?;
    equal!(accepted(cx), Some((3, 7)), "CMD-002: the number in Hello after kill -9");
    again(cx, (3, 7), "after kill -9")?;
    cx.subject.stop()?;
    cx.restart()?;
    cx.a.welcome()?;
    again(cx, (3, 7), "after a stop")
}

/// Kills at the most until one falls between acceptance and outcome; where that is so soon over
/// that none does, what the other kills show is all there is.
const KILLS: u64 = 9;

fn a_command_that_a_kill_cuts_short(cx: &mut Context) -> Checked {
    with_commands(cx)?;
    let mut interrupted = 0;
    for seq in 1..=KILLS {
        // Each changes what Hello says, so that what was done is seen.
        let collects = |cx: &Context| cx.a.hello.as_ref().is_some_and(|hello| hello.collecting);
        let was = collects(cx);
        let action = if was { Action::StopCollection } else { Action::StartCollection };
        cx.a.settle()?;
        let before = cx.subject.files();
        cx.a.command((1, seq), action, LATER)?;
        cx.subject.kill_at_change(before, seq);
        // What it said before is judged too.
        ensure!(cx.a.is_left_within(PATIENCE)?, "a killed sensor keeps its connection");
        cx.restart()?;
        cx.a.meet()?;
        let is_done = collects(cx) != was;
        if accepted(cx) != Some((1, seq)) {
            ensure!(!is_done, "CMD-002: {action:?} is done, and its number is not remembered");
            let told = outcomes(cx, (1, seq));
            ensure!(
                told.is_empty(),
                "CMD-002: a number that is not remembered has outcomes {told:?}"
            );
            cx.a.greet(&[])?;
            continue;
        }
        cx.a.greet(&[])?;
        outcome(cx, (1, seq))?;
        cx.a.settle()?;
        let told = outcomes(cx, (1, seq));
        let is_interrupted = told == [CommandOutcome::Interrupted as u64];
        let is_whole = told == [CommandOutcome::Done as u64] && is_done;
        ensure!(
            is_interrupted || is_whole,
            "CMD-002: of an accepted {action:?} that was cut short ({is_done}) is told {told:?}"
        );
        interrupted += u64::from(is_interrupted);
        if interrupted > 0 && seq > KILLS / 2 {
            break;
        }
    }
    Ok(())
}

fn a_lower_number_is_refused(cx: &mut Context) -> Checked {
    with_commands(cx)?;
    cx.a.command((3, 7), Action::StartCollection, LATER)?;
    equal!(outcome(cx, (3, 7))?, CommandOutcome::Done as u64, "CMD-006: the outcome");
    for number in [(3, 6), (2, 900)] {
        cx.a.command(number, Action::StartCollection, LATER)?;
        let refused = CommandOutcome::Refused as u64;
        equal!(outcome(cx, number)?, refused, "CMD-002: {number:?} after (3, 7)");
    }
    cx.a.command((4, 1), Action::StartCollection, LATER)?;
    equal!(outcome(cx, (4, 1))?, CommandOutcome::Done as u64, "CMD-002: (4, 1) after (3, 7)");
    // The lower ones moved nothing back.
    cx.a.cut();
    cx.a.welcome()?;
    equal!(accepted(cx), Some((4, 1)), "CMD-003: the number in Hello");
    Ok(())
}

fn an_expired_command_does_not_run(cx: &mut Context) -> Checked {
    with_commands(cx)?;
    cx.a.command((1, 1), Action::StartCollection, 0)?;
    equal!(outcome(cx, (1, 1))?, CommandOutcome::Expired as u64, "CMD-005: with 0 ms left");
    cx.a.command((1, 2), Action::StartCollection, LATER)?;
    equal!(outcome(cx, (1, 2))?, CommandOutcome::Done as u64, "CMD-006: the next one");
    Ok(())
}

fn what_a_sensor_cannot_do_it_says(cx: &mut Context) -> Checked {
    with_commands(cx)?;
    for (seq, action) in (1..).zip([Action::Isolate, Action::Unisolate, Action::Upgrade]) {
        cx.a.command((1, seq), action, LATER)?;
        let outcome = outcome(cx, (1, seq))?;
        if outcome == CommandOutcome::Done as u64 {
            cx.weak(format!("CMD-006: {action:?} is Done: whether it is cannot be seen from here"));
        } else {
            let expected = [CommandOutcome::NotSupported as u64, CommandOutcome::Failed as u64];
            ensure!(expected.contains(&outcome), "CMD-006: {action:?} has outcome {outcome}");
        }
    }
    Ok(())
}

fn many_commands_each_run_at_most_once(cx: &mut Context) -> Checked {
    const COMMANDS: u64 = 12;
    with_commands(cx)?;
    for seq in 1..=COMMANDS {
        cx.a.command((1, seq), Action::StartCollection, LATER)?;
    }
    let mut hellos = cx.a.hellos;
    cx.a.answers.greets = false;
    for _ in 0..COMMANDS {
        let known = hellos;
        cx.a.pump("CMD-007: an outcome of each, or another Hello", |station| {
            outcome_of_last(station) || station.hellos > known
        })?;
        cx.a.settle()?;
        if outcome_of_last(&cx.a) {
            break;
        }
        // One that was under way when the sensor said Hello must not overtake.
        cx.a.command((1, COMMANDS + 1), Action::StartCollection, LATER)?;
        cx.a.greet(&[])?;
        hellos = cx.a.hellos;
        let (_, last) = accepted(cx).unwrap_or((1, 0));
        for seq in last + 1..=COMMANDS {
            cx.a.command((1, seq), Action::StartCollection, LATER)?;
        }
    }
    for seq in 1..=COMMANDS {
        let of = outcomes(cx, (1, seq));
        equal!(of, vec![CommandOutcome::Done as u64], "CMD-007: the outcomes of command {seq}");
    }
    fn outcome_of_last(station: &crate::play::station::Station) -> bool {
        station.outcomes().iter().any(|(_, seq, _)| *seq == COMMANDS)
    }
    Ok(())
}
