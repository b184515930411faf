//! What people do with MalOps, who may, and who is told.

use lapwing_net::identity::Role;
use lapwing_net::peer::{from_body, to_body};
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::feed::{FeedPage, FeedRequest};
use lapwing_protocol::id::{Incarnation, MalOpId};
use lapwing_protocol::malop::{
    MalOpAddComment, MalOpFilter, MalOpSetStatus, MalOpStatus, MalOpView,
};
use lapwing_protocol::registration::{ServerRole, ServerStatus};

use crate::deployment::{Deployment, call, refusal, run, until};
use crate::peers::{Peer, blocked};
use crate::service::{MalOp, MalOps, malop};

const CAUSE: &str = "hash:aa";

fn set(malop: MalOpId, status: MalOpStatus) -> Vec<u8> {
    to_body(&MalOpSetStatus { malop, status, author: "anna" }).unwrap()
}

fn say(malop: MalOpId, text: &str) -> Vec<u8> {
    to_body(&MalOpAddComment { malop, author: "anna", text }).unwrap()
}

/// Where a reader of changes stands.
type Cursor = (Option<Incarnation>, u64);

async fn changes(malops: &MalOps, cursor: Cursor, wait_ms: u32) -> (Vec<MalOp>, Cursor) {
    let request =
        to_body(&FeedRequest { incarnation: cursor.0, cursor: cursor.1, limit: 100, wait_ms });
    let body = call(&malops.webapp, Method::MALOP_CHANGES, &request.unwrap()).await.unwrap();
    let page: FeedPage<'_, MalOpView<'_>> = from_body(&body).unwrap();
    assert!(page.at_end);
    let items = page.items.iter().map(|view| malop(&view.unwrap())).collect();
    (items, (Some(page.incarnation), page.next_cursor))
}

#[test]
fn a_malop_is_worked_on_and_reopens_when_it_goes_on() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let detection = Peer::start(&deployment, &executor, (Role::Detection, 1));
        let consoles = [detection.address];
        let malops = MalOps::start(&deployment, &executor, &consoles, None).await;
        detection.tell([blocked(1, 1, CAUSE), blocked(2, 2, CAUSE)]);
        malops.until_counted(2).await;
        let id = malops.list().await[0].id;
        call(&malops.webapp, Method::MALOP_COMMENT, &say(id, "looks bad")).await.unwrap();
        call(&malops.webapp, Method::MALOP_COMMENT, &say(id, "it is")).await.unwrap();
        call(&malops.webapp, Method::MALOP_STATUS, &set(id, MalOpStatus::Closed)).await.unwrap();
        malops.kill().await;

        let malops = MalOps::start(&deployment, &executor, &consoles, None).await;
        assert_eq!(malops.list().await[0].status, MalOpStatus::Closed);
        let (evidence, comments) = malops.show(id).await;
        assert_eq!(evidence.iter().map(|it| it.machine.as_str()).collect::<Vec<_>>(), ["m2", "m1"]);
        assert_eq!(evidence[0].fields, blocked(2, 2, CAUSE).fields);
        let said = |text: &str| ("anna".to_owned(), text.to_owned());
        assert_eq!(comments, [said("looks bad"), said("it is")]);
        detection.tell([blocked(3, 3, CAUSE)]);
        malops.until_counted(3).await;
        assert_eq!(malops.list().await[0].status, MalOpStatus::Reopened);
        let closed = MalOpFilter { status: Some(MalOpStatus::Closed), limit: 10 };
        let body = call(&malops.webapp, Method::MALOPS, &to_body(&closed).unwrap()).await.unwrap();
        assert!(body.is_empty());
        malops.stop().await;
    });
}

#[test]
fn changes_wake_their_readers_and_go_on_after_a_restart() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let detection = Peer::start(&deployment, &executor, (Role::Detection, 1));
        let consoles = [detection.address];
        let malops = MalOps::start(&deployment, &executor, &consoles, None).await;
        let (none, cursor) = changes(&malops, (None, 0), 0).await;
        assert!(none.is_empty());
        let reading = changes(&malops, cursor, 20_000);
        let telling = async {
            smol::future::yield_now().await;
            detection.tell([blocked(1, 1, CAUSE)]);
        };
        let ((found, cursor), ()) = smol::future::zip(reading, telling).await;
        assert_eq!((found.len(), found[0].count), (1, 1));
        let id = found[0].id;
        let reading = changes(&malops, cursor, 20_000);
        let working = async {
            let body = set(id, MalOpStatus::OnHold);
            call(&malops.webapp, Method::MALOP_STATUS, &body).await.unwrap();
        };
        let ((found, cursor), ()) = smol::future::zip(reading, working).await;
        assert_eq!(found[0].status, MalOpStatus::OnHold);
        malops.kill().await;

        let malops = MalOps::start(&deployment, &executor, &consoles, None).await;
        let (none, same) = changes(&malops, cursor, 0).await;
        assert_eq!((none.len(), same), (0, cursor));
        detection.tell([blocked(2, 2, "hash:bb")]);
        let (found, _) = changes(&malops, cursor, 20_000).await;
        assert_eq!(found[0].cause, "hash:bb");
        let (all, _) = changes(&malops, (Some(Incarnation([9; 16])), 55), 0).await;
        assert_eq!(all.len(), 2, "another life's cursor begins anew");
        malops.stop().await;
    });
}

#[test]
fn who_may_not_is_refused_and_so_is_nonsense() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let detection = Peer::start(&deployment, &executor, (Role::Detection, 1));
        detection.tell([blocked(1, 1, CAUSE)]);
        let malops = MalOps::start(&deployment, &executor, &[detection.address], None).await;
        malops.until_counted(1).await;
        let id = malops.list().await[0].id;
        let client = |role| deployment.client(&executor, (role, 60), Role::Malops, malops.address);
        let all = to_body(&MalOpFilter { status: None, limit: 10 }).unwrap();
        let close = set(id, MalOpStatus::Closed);
        let fleet = client(Role::Fleet);
        assert!(!call(&fleet, Method::MALOPS, &all).await.unwrap().is_empty());
        let (code, text) = refusal(&fleet, Method::MALOP_STATUS, &close).await;
        assert!(code == Code::FORBIDDEN && text.contains("webapp, ctl"), "{text}");
        let (code, _) = refusal(&fleet, Method::MALOP_COMMENT, &say(id, "hm")).await;
        assert_eq!(code, Code::FORBIDDEN);
        let (code, _) = refusal(&client(Role::Detection), Method::MALOPS, &all).await;
        assert_eq!(code, Code::FORBIDDEN);
        call(&client(Role::Ctl), Method::MALOP_STATUS, &close).await.unwrap();
        for (method, body, expected) in [
            (Method::MALOP_STATUS, set(MalOpId([0; 16]), MalOpStatus::Closed), Code::NOT_FOUND),
            (Method::MALOP_COMMENT, say(id, "\u{1b}[2J"), Code::BAD_ARGUMENT),
            (Method::MALOP_STATUS, vec![0xff], Code::MALFORMED),
            (Method::SENSORS, Vec::new(), Code::UNSUPPORTED),
        ] {
            let (code, text) = refusal(&malops.webapp, method, &body).await;
            assert_eq!(code, expected, "{text}");
        }
        malops.stop().await;
    });
}

#[test]
fn a_detection_server_that_is_away_is_named_in_the_status() {
    run(|executor| async move {
        let deployment = Deployment::new();
        let detection = Peer::start(&deployment, &executor, (Role::Detection, 1));
        let address = detection.address;
        detection.tell([blocked(1, 1, CAUSE)]);
        let malops = MalOps::start(&deployment, &executor, &[address], None).await;
        malops.until_counted(1).await;
        let trouble = || async {
            let body = call(&malops.webapp, Method::STATUS, &[]).await.unwrap();
            let status: ServerStatus<'_> = from_body(&body).unwrap();
            assert_eq!((status.role, status.name), (ServerRole::MalOps, "malops"));
            status.trouble.to_owned()
        };
        until("all is well", || async { trouble().await.is_empty().then_some(()) }).await;
        detection.stop().await;
        let told = until("the trouble is told", || async {
            let told = trouble().await;
            (!told.is_empty()).then_some(told)
        })
        .await;
        assert!(told.contains(&address.to_string()) && told.contains("waits there"), "{told}");
        let again =
            Peer::start_at(&deployment, &executor, (Role::Detection, 1), &address.to_string());
        again.tell([blocked(1, 1, CAUSE), blocked(1, 2, CAUSE)]);
        malops.until_counted(2).await;
        until("all is well", || async { trouble().await.is_empty().then_some(()) }).await;
        malops.stop().await;
    });
}
