//! Seeds through the simulator, with its coverage table; a failure prints the command that replays
//! it.

use lapwing_tests::simulator::report::run_seeds;

#[test]
fn nothing_is_lost_or_doubled_in_many_worlds() {
    let report = run_seeds(1, 60, |_| {});
    print!("{}", report.text());
    assert!(report.failure.is_none(), "{}", report.text());
    assert_eq!(report.coverage.missing(), [], "never reached; more seeds, or a dead fault");
}
