//! Every evidence counts exactly once, whoever restarts and whoever tells it.

use std::collections::BTreeMap;

use lapwing_net::identity::Role;
use lapwing_protocol::id::ServerId;
use lapwing_server_core::evidence::Evidence;

use crate::deployment::{Deployment, run, until};
use crate::peers::{Peer, blocked, suspicion};
use crate::service::MalOps;

const CAUSES: u32 = 20;

/// Evidence of many causes, from process number `from` to before `to`.
fn flood(machine: u8, from: u32, to: u32) -> Vec<Evidence> {
    let cause = |process| format!("hash:{:02}", process % CAUSES);
    (from..to).map(|process| blocked(machine, process, &cause(process))).collect()
}

/// How often each cause is in it, each evidence counted once.
fn expected<'a>(told: impl IntoIterator<Item = &'a Evidence>) -> Vec<(String, u64)> {
    let distinct: BTreeMap<_, _> =
        told.into_iter().map(|it| (it.evidence, it.root_cause.clone())).collect();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for cause in distinct.into_values() {
        *counts.entry(cause).or_default() += 1;
    }
    counts.into_iter().collect()
}

async fn counts(malops: &MalOps) -> Vec<(String, u64)> {
    malops.list().await.into_iter().map(|malop| (malop.cause, malop.count)).collect()
}

#[test]
fn killed_in_the_middle_of_two_floods_it_counts_each_evidence_once() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let [one, other] =
            [1, 2].map(|id| Peer::start(&deployment, &executor, (Role::Detection, id)));
        let consoles = [one.address, other.address];
        // A machine that moved: both servers tell of some of its processes.
        let (first, second) = (flood(1, 0, 900), flood(1, 600, 1_500));
        let distinct = expected(first.iter().chain(&second));
        one.tell(first);
        other.tell(second);
        for kill_at in [1, 300, 700, 1_100] {
            let malops = MalOps::start(&deployment, &executor, &consoles, None).await;
            malops.until_counted(kill_at).await;
            malops.kill().await;
        }
        let malops = MalOps::start(&deployment, &executor, &consoles, None).await;
        malops.until_counted(1_500).await;
        assert_eq!(counts(&malops).await, distinct);
        // Read on by the cursor: what was stored is not asked for again.
        let ask = |peer: &Peer| std::mem::take(&mut peer.known.lock().unwrap().asked);
        until("the first feed is read to its end", || async {
            (one.known.lock().unwrap().asked.last() == Some(&900)).then_some(())
        })
        .await;
        malops.stop().await;
        ask(&one);
        let malops = MalOps::start(&deployment, &executor, &consoles, None).await;
        one.tell([blocked(3, 9_000, "hash:late")]);
        malops.until_counted(1_501).await;
        assert_eq!(ask(&one).first(), Some(&900));
        malops.stop().await;
    });
}

#[test]
fn a_detection_server_with_a_new_incarnation_is_read_from_its_beginning_and_repeats_count_nothing()
{
    run(|executor| async move {
        let deployment = Deployment::new();
        let told = flood(1, 0, 300);
        let detection = Peer::start(&deployment, &executor, (Role::Detection, 1));
        let address = detection.address;
        detection.tell(told.clone());
        let malops = MalOps::start(&deployment, &executor, &[address], None).await;
        malops.until_counted(300).await;
        detection.stop().await;

        let detection =
            Peer::start_at(&deployment, &executor, (Role::Detection, 1), &address.to_string());
        detection.known.lock().unwrap().incarnation = 77;
        let restored: Vec<Evidence> =
            told[..200].iter().rev().cloned().chain(flood(2, 5_000, 5_100)).collect();
        detection.tell(restored.clone());
        malops.until_counted(400).await;
        assert_eq!(counts(&malops).await, expected(told.iter().chain(&restored)));
        malops.kill().await;
        let malops = MalOps::start(&deployment, &executor, &[address], None).await;
        detection.tell([blocked(9, 1, "hash:late")]);
        malops.until_counted(401).await;
        assert_eq!(malops.counted().await, 401);
        malops.stop().await;
    });
}

#[test]
fn a_server_that_registration_comes_to_know_is_followed() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let registration = Peer::start(&deployment, &executor, (Role::Registration, 7));
        let [one, other] =
            [1, 2].map(|id| Peer::start(&deployment, &executor, (Role::Detection, id)));
        let list = |peer: &Peer, id: u8| {
            let entry = (ServerId([id; 16]), peer.address.to_string());
            registration.known.lock().unwrap().servers.push(entry);
        };
        list(&one, 1);
        one.tell([blocked(1, 1, "hash:aa")]);
        other.tell([blocked(2, 2, "hash:aa")]);
        let malops = MalOps::start(&deployment, &executor, &[], Some(registration.address)).await;
        malops.until_counted(1).await;
        list(&other, 2);
        malops.until_counted(2).await;
        let found = malops.list().await;
        assert_eq!((found.len(), found[0].machines), (1, 2), "one cause on two machines");
        malops.stop().await;
    });
}

#[test]
fn a_server_with_two_addresses_is_read_at_one_of_them() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let detection = Peer::start(&deployment, &executor, (Role::Detection, 1));
        let address = detection.address;
        let mapped = format!("[::ffff:127.0.0.1]:{}", address.port()).parse().unwrap();
        detection.tell(flood(1, 0, 500));
        let malops = MalOps::start(&deployment, &executor, &[address, mapped], None).await;
        malops.until_counted(500).await;
        detection.tell(flood(1, 500, 600));
        malops.until_counted(600).await;
        let metrics = deployment.metrics(Role::Malops, malops.address).await;
        let repeats = "lapwing_malops_evidence_total{decision=\"repeat\"} 0";
        assert!(metrics.lines().any(|line| line == repeats), "{metrics}");
        malops.stop().await;
    });
}

#[test]
fn suspicions_of_all_servers_are_one_list_newest_first() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let [one, other] =
            [1, 2].map(|id| Peer::start(&deployment, &executor, (Role::Detection, id)));
        let at = |raised_ms, evidence| Evidence { raised_ms, ..evidence };
        one.tell([at(1, suspicion(1, 1)), at(3, suspicion(1, 3))]);
        other.tell([at(2, suspicion(2, 2)), at(3, suspicion(1, 3))]);
        other.tell([Evidence { suspicious: false, ..blocked(2, 4, "hash:aa") }]);
        let malops =
            MalOps::start(&deployment, &executor, &[one.address, other.address], None).await;
        let (total, listed) = until("three suspicions", || async {
            let page = malops.suspicions(0, 10).await;
            (page.0 >= 3).then_some(page)
        })
        .await;
        let raised: Vec<u64> = listed.iter().map(|evidence| evidence.raised_ms).collect();
        assert_eq!((total, raised), (3, vec![3, 2, 1]));
        let (total, page) = malops.suspicions(1, 1).await;
        assert_eq!((total, page[0].raised_ms), (3, 2));
        assert!(malops.list().await.is_empty());
        malops.stop().await;
    });
}

#[test]
fn an_evidence_that_cannot_be_read_is_skipped_alone_and_counted() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let detection = Peer::start(&deployment, &executor, (Role::Detection, 1));
        let mut items: Vec<Vec<u8>> = flood(1, 0, 5).iter().map(Evidence::to_bytes).collect();
        items.insert(2, vec![0xff; 40]);
        detection.tell_bytes(items);
        let malops = MalOps::start(&deployment, &executor, &[detection.address], None).await;
        malops.until_counted(5).await;
        let metrics = deployment.metrics(Role::Malops, malops.address).await;
        for line in [
            "lapwing_malops_evidence_unreadable_total 1",
            "lapwing_malops_evidence_total{decision=\"malop\"} 5",
            "lapwing_malops_malops{status=\"new\"} 5",
            "lapwing_malops_feed_up{server=\"detection1\"} 1",
        ] {
            assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
        }
        malops.stop().await;
    });
}
