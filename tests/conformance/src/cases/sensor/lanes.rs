//! The two lanes: each by itself, the urgent one first.

use super::case;
use super::commands::outcome;
use super::context::{Context, FACTS};
use crate::cases::{Case, Checked, Stop, ensure, equal};
use crate::play::station::AMPLE;
use crate::wire::message::{Action, Credit, Lane, NackReason};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "the_urgent_lane_does_not_wait_for_the_bulk_lane",
        &["DLV-013", "LOG-001", "LOG-007", "LOG-008", "LOG-011", "MOD-009", "CMD-006"],
        "With the bulk lane without credit, and then told to wait, the outcome of a command comes \
         at once, in a chunk that stands alone.",
        the_urgent_lane_does_not_wait,
    ),
    case(
        "the_urgent_lane_goes_first",
        &["DLV-013", "HEL-002"],
        "When chunks of both lanes wait for a HelloAck, the first to come is the urgent one.",
        the_urgent_lane_goes_first,
    ),
    case(
        "a_nack_of_one_lane_leaves_the_other",
        &["DLV-007", "DLV-009", "DLV-013"],
        "While the urgent lane waits after a Nack, the bulk lane goes on.",
        a_nack_of_one_lane_leaves_the_other,
    ),
];

fn the_urgent_lane_does_not_wait(cx: &mut Context) -> Checked {
    cx.a.answers.acks[0] = false;
    cx.a.answers.credit[0] = Credit { limit_seq: 2, ..AMPLE };
    cx.online()?;
    cx.a.head(Lane::Urgent).map_err(|_| Stop::Skip("it uses the bulk lane alone".into()))?;
    cx.chunks(2)?;
    for _ in 0..4 {
        cx.subject.event(FACTS);
    }
    cx.a.settle()?;
    cx.a.command((1, 1), Action::StartCollection, 60_000)?;
    outcome(cx, (1, 1))?;
    cx.a.nack(Lane::Bulk, 1, NackReason::Throttled, 9_000)?;
    cx.a.command((1, 2), Action::StartCollection, 60_000)?;
    let bulk = cx.a.came.iter().filter(|(lane, _)| *lane == Lane::Bulk).count();
    outcome(cx, (1, 2))?;
    let after = cx.a.came.iter().filter(|(lane, _)| *lane == Lane::Bulk).count();
    equal!(after, bulk, "DLV-009: bulk chunks that came within the time that was named");
    Ok(())
}

fn the_urgent_lane_goes_first(cx: &mut Context) -> Checked {
    cx.a.answers.acks = [false; 2];
    cx.online()?;
    cx.a.head(Lane::Urgent).map_err(|_| Stop::Skip("it uses the bulk lane alone".into()))?;
    cx.chunks(3)?;
    cx.a.command((1, 1), Action::StartCollection, 60_000)?;
    outcome(cx, (1, 1))?;
    cx.a.cut();
    for _ in 0..4 {
        cx.subject.event(FACTS);
    }
    cx.a.welcome()?;
    cx.a.pump("DLV-013: chunks of both lanes", |station| {
        let has = |lane| station.came.iter().any(|(of, _)| *of == lane);
        has(Lane::Bulk) && has(Lane::Urgent)
    })?;
    equal!(cx.a.came[0].0, Lane::Urgent, "DLV-013: the lane of the first chunk");
    Ok(())
}

fn a_nack_of_one_lane_leaves_the_other(cx: &mut Context) -> Checked {
    cx.a.answers.acks[1] = false;
    cx.online()?;
    cx.a.head(Lane::Urgent).map_err(|_| Stop::Skip("it uses the bulk lane alone".into()))?;
    cx.a.command((1, 1), Action::StartCollection, 60_000)?;
    outcome(cx, (1, 1))?;
    cx.a.settle()?;
    cx.a.came.clear();
    let urgent = cx.a.seen(Lane::Urgent);
    let said = cx.a.nack(Lane::Urgent, urgent, NackReason::StoreFailed, 8_000)?;
    cx.chunks(2)?;
    let is_early = said.elapsed().as_millis() < 7_900;
    let again = cx.a.came.iter().any(|(lane, _)| *lane == Lane::Urgent);
    ensure!(!(is_early && again), "DLV-009: the urgent chunk came again before its time");
    Ok(())
}
