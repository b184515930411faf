//! Tests of the intel cache: who is asked for, when, and what a verdict sets in motion.

use lapwing_protocol::intel::Source;

use super::*;

const DAY: u64 = RECHECK_MS_MAX;

fn key(number: u32) -> IndicatorKey {
    IndicatorKey::Ip(core::net::IpAddr::from(number.to_be_bytes()))
}

fn element(number: u8) -> ElementGuid {
    ElementGuid([number; 16])
}

fn verdict(number: u32, classification: Classification, now_ms: u64) -> OwnedVerdict {
    OwnedVerdict {
        key: key(number),
        classification,
        source: Source::Private,
        comment: String::new(),
        checked_ms: now_ms,
        recheck_ms: now_ms + DAY,
        stale: false,
    }
}

fn see(cache: &mut IntelCache, now_ms: u64, number: u32, by: u8) -> Option<Classification> {
    let verdict = cache.observe(now_ms, &key(number), (element(by), u64::from(by)));
    verdict.map(|verdict| verdict.classification)
}

#[test]
fn one_indicator_seen_often_is_asked_for_once() {
    let mut cache = IntelCache::default();
    for by in 0..100 {
        assert_eq!(see(&mut cache, 5, 1, by), None);
    }
    let question = cache.poll_questions(5).unwrap();
    assert_eq!(question.keys, [key(1)]);
    see(&mut cache, 6, 1, 200);
    assert_eq!(cache.poll_questions(6), None);
    cache.handle_verdicts(7, question.number, vec![verdict(1, Classification::Unknown, 7)]);
    assert_eq!(see(&mut cache, 8, 1, 1), Some(Classification::Unknown));
    assert_eq!(cache.poll_questions(8), None);
    assert_eq!(cache.poll_rejudgement(), None);
    let sighting = cache.sighting(&key(1)).unwrap();
    assert_eq!((sighting.first_ms, sighting.last_ms, sighting.count), (5, 8, 102));
    assert!(sighting.more);
}

#[test]
fn a_question_of_the_longest_domains_fits_one_call() {
    let mut cache = IntelCache::default();
    for number in 0..1_000 {
        let name = format!("{number:04}.{}", "x".repeat(248));
        let key = IndicatorKey::domain(&name).unwrap();
        cache.observe(1, &key, (element(1), 1));
    }
    let question = cache.poll_questions(1).unwrap();
    let bytes = question.indicators_bytes().len();
    assert!(bytes < lapwing_protocol::limits::FRAME_BODY_BYTES_MAX / 2 + 1_024, "{bytes}");
    assert!(question.keys.len() > 100);
}

#[test]
fn questions_are_bounded_in_size_and_number() {
    let mut cache = IntelCache::default();
    for number in 1..=2_000 {
        see(&mut cache, 1, number, 1);
    }
    let sizes: Vec<usize> =
        std::iter::from_fn(|| cache.poll_questions(1)).map(|it| it.keys.len()).collect();
    assert_eq!(sizes, [CLASSIFY_KEYS_MAX; QUESTIONS_IN_FLIGHT_MAX]);
}

#[test]
fn a_bad_answer_judges_who_was_seen_before_it_came() {
    let mut cache = IntelCache::default();
    see(&mut cache, 1, 1, 7);
    see(&mut cache, 1, 1, 8);
    let question = cache.poll_questions(1).unwrap();
    cache.handle_verdicts(2, question.number, vec![verdict(1, Classification::Blocked, 2)]);
    let again = cache.poll_rejudgement().unwrap();
    assert_eq!(again.elements, [element(7), element(8)]);
    assert_eq!(see(&mut cache, 3, 1, 9), Some(Classification::Blocked));
}

#[test]
fn a_verdict_is_asked_for_again_after_a_day_and_a_change_judges_again() {
    let mut cache = IntelCache::default();
    see(&mut cache, 0, 1, 7);
    let question = cache.poll_questions(0).unwrap();
    cache.handle_verdicts(0, question.number, vec![verdict(1, Classification::Allowed, 0)]);
    assert_eq!(cache.deadline_ms(), Some(DAY));
    assert_eq!(cache.poll_questions(DAY - 1), None);
    let question = cache.poll_questions(DAY).unwrap();
    cache.handle_verdicts(DAY, question.number, vec![verdict(1, Classification::Malware, DAY)]);
    assert_eq!(cache.poll_rejudgement().unwrap().elements, [element(7)]);
}

#[test]
fn a_change_told_by_the_feed_is_not_undone_by_an_older_answer() {
    let mut cache = IntelCache::default();
    see(&mut cache, 1, 1, 7);
    let question = cache.poll_questions(1).unwrap();
    cache.handle_change(5, verdict(1, Classification::Blocked, 5));
    cache.handle_verdicts(6, question.number, vec![verdict(1, Classification::Unknown, 4)]);
    assert_eq!(see(&mut cache, 7, 1, 7), Some(Classification::Blocked));
    assert!(cache.poll_rejudgement().is_some() && cache.poll_rejudgement().is_none());
}

#[test]
fn without_an_answer_the_verdict_stays_and_the_question_comes_again_later() {
    let mut cache = IntelCache::default();
    see(&mut cache, 1, 1, 7);
    let question = cache.poll_questions(1).unwrap();
    cache.handle_unreachable(10, question.number);
    assert_eq!(cache.oldest_unanswered(), Some(7));
    assert_eq!(cache.poll_questions(10 + RETRY_MS_MIN - 1), None);
    assert_eq!(cache.deadline_ms(), Some(10 + RETRY_MS_MIN));
    let again = cache.poll_questions(10 + RETRY_MS_MIN).unwrap();
    assert_eq!(again.keys, question.keys);
    cache.handle_unreachable(1_000, again.number);
    assert_eq!(cache.poll_questions(1_000 + 2 * RETRY_MS_MIN - 1), None);
    let third = cache.poll_questions(1_000 + 2 * RETRY_MS_MIN).unwrap();
    cache.handle_verdicts(2_000, third.number, vec![verdict(1, Classification::Blocked, 2_000)]);
    assert_eq!(cache.oldest_unanswered(), None);

    let recheck = cache.poll_questions(2_000 + DAY).unwrap();
    cache.handle_unreachable(2_000 + DAY, recheck.number);
    assert_eq!(see(&mut cache, 2_001 + DAY, 1, 7), Some(Classification::Blocked));
}

#[test]
fn an_answer_that_leaves_one_out_is_asked_again_for_that_one() {
    let mut cache = IntelCache::default();
    see(&mut cache, 1, 1, 7);
    see(&mut cache, 1, 2, 7);
    let question = cache.poll_questions(1).unwrap();
    cache.handle_verdicts(1, question.number, vec![verdict(1, Classification::Allowed, 1)]);
    assert_eq!(cache.poll_questions(1), None);
    assert_eq!(cache.poll_questions(1 + RETRY_MS_MIN).unwrap().keys, [key(2)]);
}

#[test]
fn a_verdict_nobody_asked_for_is_not_taken() {
    let mut cache = IntelCache::default();
    see(&mut cache, 1, 1, 7);
    let question = cache.poll_questions(1).unwrap();
    cache.handle_verdicts(1, question.number, vec![verdict(9, Classification::Blocked, 1)]);
    cache.handle_change(1, verdict(9, Classification::Blocked, 1));
    assert_eq!(cache.verdict(&key(9)), None);
}

#[test]
fn at_the_bound_the_least_recently_seen_good_one_gives_way_and_never_a_bad_one() {
    let mut cache = IntelCache::new(3);
    for number in 1..=3 {
        see(&mut cache, 0, number, number as u8);
    }
    let question = cache.poll_questions(0).unwrap();
    assert_eq!(see(&mut cache, 1, 4, 4), None);
    assert_eq!((cache.counts().overflowed, cache.oldest_unanswered()), (1, Some(1)));
    let answers = vec![
        verdict(1, Classification::Blocked, 1),
        verdict(2, Classification::Unknown, 1),
        verdict(3, Classification::Unknown, 1),
    ];
    cache.handle_verdicts(1, question.number, answers);
    assert_eq!(cache.oldest_unanswered(), Some(4), "the one that found no place");
    see(&mut cache, ORDER_MS, 2, 2);
    see(&mut cache, ORDER_MS, 5, 5);
    assert!(cache.verdict(&key(1)).is_some() && cache.verdict(&key(2)).is_some());
    assert!(cache.verdict(&key(3)).is_none());
    assert_eq!(cache.counts().evicted, 1);
}

#[test]
fn a_stale_verdict_is_asked_for_again_soon() {
    let mut cache = IntelCache::default();
    see(&mut cache, 0, 1, 7);
    let question = cache.poll_questions(0).unwrap();
    let stale = OwnedVerdict { stale: true, ..verdict(1, Classification::Unknown, 0) };
    cache.handle_verdicts(0, question.number, vec![stale]);
    assert_eq!(cache.deadline_ms(), Some(RECHECK_STALE_MS));
}
