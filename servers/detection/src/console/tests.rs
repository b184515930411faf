//! Tests of the console and malware ports: who may ask what, and what is answered.

use std::sync::Mutex;

use lapwing_protocol::command::{Action, CommandNumber};
use lapwing_protocol::console::{ElementRows, ElementView};
use lapwing_protocol::element::{Feature, kind, process};
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::id::{ElementGuid, SensorId};
use lapwing_server_core::change::{Change, KindModel, OwnedValue, What};

use super::*;
use crate::analyst::knowledge_for_tests;
use crate::malware::Malware;

#[test]
fn each_role_may_call_its_methods_and_no_others() {
    let console = console();
    let sensor = [(Role::Webapp, true), (Role::Fleet, true), (Role::Malops, false)];
    for (role, may) in sensor {
        let answer = smol::block_on(console.answer(Some(role), Method::SENSORS, &[]));
        assert_eq!(answer.is_ok(), may, "{role}");
    }
    let put = message_bytes(&CommandPut {
        sensor: SensorId([1; 16]),
        number: CommandNumber { issuer: 1, seq: 1 },
        expires_ms: 1,
        action: Action::StopCollection,
    });
    for role in [Role::Webapp, Role::Ctl, Role::Detection, Role::Sensor] {
        let refused = smol::block_on(console.answer(Some(role), Method::COMMAND, &put));
        assert_eq!(refused.unwrap_err().code, Code::FORBIDDEN, "{role}");
    }
    assert!(smol::block_on(console.answer(Some(Role::Fleet), Method::COMMAND, &put)).is_ok());
    let nobody = smol::block_on(console.answer(None, Method::SENSORS, &[]));
    assert_eq!(nobody.unwrap_err().code, Code::FORBIDDEN);
    let elsewhere = smol::block_on(console.answer(Some(Role::Webapp), Method::CLASSIFY, &[]));
    assert_eq!(elsewhere.unwrap_err().code, Code::UNSUPPORTED);
}

#[test]
fn a_body_that_is_not_the_methods_is_refused() {
    let console = console();
    for (method, _) in ACCESS
        .iter()
        .filter(|(method, _)| ![Method::SENSORS, Method::LEDGER, Method::STATUS].contains(method))
    {
        let role = if *method == Method::COMMAND { Role::Fleet } else { Role::Ctl };
        let refused = smol::block_on(console.answer(Some(role), *method, &[0xff; 3]));
        assert_eq!(refused.unwrap_err().code, Code::MALFORMED, "{}", method.0);
    }
}

#[test]
fn a_query_is_answered_and_a_wrong_one_is_explained() {
    let console = console();
    let ask = |expression: &str| {
        let query = ElementQuery { expression, limit: 10, timeout_ms: 1_000 };
        let body = message_bytes(&query);
        smol::block_on(console.answer(Some(Role::Webapp), Method::ELEMENTS, &body))
    };
    let reply = ask("process where pid = 7 show pid, name").unwrap();
    let rows: ElementRows<'_> = from_bytes(&reply).unwrap();
    assert_eq!((rows.rows.iter().count(), rows.partial), (1, ""));
    let error = ask("process where pdi = 7").unwrap_err();
    assert_eq!(error.code, Code::BAD_ARGUMENT);
    assert!(
        error.text.contains("at character 15") && error.text.contains("`pid`"),
        "{}",
        error.text
    );
}

#[test]
fn a_process_is_told_with_its_parents_and_children() {
    let console = console();
    let ask = |number: u8, parents_max| {
        let process = ElementGuid([number; 16]);
        let body = message_bytes(&ProcessTreeRequest { process, parents_max, children_max: 10 });
        smol::block_on(console.answer(Some(Role::Webapp), Method::PROCESS_TREE, &body))
    };
    let pids = |reply: &[u8]| {
        let views = Items::<ElementView<'_>>::from_bytes(reply);
        views.iter().map(|view| view.unwrap().guid.0[0]).collect::<Vec<u8>>()
    };
    assert_eq!(pids(&ask(7, 10).unwrap()), [7, 1, 8]);
    assert_eq!(pids(&ask(8, 1).unwrap()), [8, 7]);
    assert_eq!(ask(99, 1).unwrap_err().code, Code::NOT_FOUND);
}

#[test]
fn facts_are_read_by_cursor_and_a_cursor_of_another_journal_begins_anew() {
    let console = console();
    let read = |incarnation, cursor| {
        let request = FeedRequest { incarnation, cursor, limit: 5, wait_ms: 0 };
        let body = message_bytes(&request);
        smol::block_on(console.answer(Some(Role::Webapp), Method::EVENTS, &body)).unwrap()
    };
    let page = |reply: &[u8]| {
        let page: FeedPage<'_, u8> = from_bytes(reply).unwrap();
        (page.items.iter().map(Result::unwrap).collect::<Vec<u8>>(), page.next_cursor)
    };
    assert_eq!(page(&read(None, 9)), (vec![0, 1, 2], 3));
    assert_eq!(page(&read(Some(Incarnation([5; 16])), 2)), (vec![2], 3));
    assert_eq!(page(&read(Some(Incarnation([6; 16])), 2)), (vec![0, 1, 2], 3));
    assert_eq!(page(&read(Some(Incarnation([5; 16])), 3)), (vec![], 3));
}

#[test]
fn the_malware_port_answers_its_one_method() {
    let malware = Malware(knowledge_for_tests(Vec::new()));
    let request = FeedRequest { incarnation: None, cursor: 0, limit: 5, wait_ms: 0 };
    let body = message_bytes(&request);
    let ask = |role, method| smol::block_on(malware.answer(Some(role), method, &body));
    assert!(ask(Role::Webapp, Method::MALWARE).is_ok());
    assert_eq!(ask(Role::Fleet, Method::MALWARE).unwrap_err().code, Code::FORBIDDEN);
    assert_eq!(ask(Role::Webapp, Method::EVIDENCE).unwrap_err().code, Code::UNSUPPORTED);
}

/// The rest of the server, of three facts.
#[derive(Default)]
struct Rest {
    commands: Mutex<Vec<CommandPut>>,
}

impl Sources for Rest {
    fn sensors(&self) -> Answering<'_, Vec<u8>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn ledger(&self, _: LedgerRequest) -> Answering<'_, Vec<u8>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn ledger_verify(&self, _: LedgerVerify) -> Answering<'_, Vec<u8>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn status(&self) -> Answering<'_, Vec<u8>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn facts_incarnation(&self) -> Incarnation {
        Incarnation([5; 16])
    }

    fn facts(&self, cursor: u64, _limit: u32) -> Answering<'_, Facts> {
        let items = (cursor..3).map(|number| number as u8).collect();
        Box::pin(async { Ok(Facts { items, next_cursor: 3, at_end: true }) })
    }

    fn facts_behind(&self, _cursor: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }

    fn command(&self, put: CommandPut) -> Answering<'_, ()> {
        self.commands.lock().unwrap().push(put);
        Box::pin(async { Ok(()) })
    }
}

/// A console of one sensor with process 1, its child 7, and its child 8.
fn console() -> Console {
    let knowledge = knowledge_for_tests(vec![a_process(1, 0), a_process(7, 1), a_process(8, 7)]);
    Console::new(knowledge, Arc::new(Rest::default()))
}

fn a_process(pid: u8, parent: u8) -> Change {
    let fields: Vec<(Feature, OwnedValue)> = vec![
        (process::pid, OwnedValue::U64(u64::from(pid))),
        (process::parent, OwnedValue::Element(ElementGuid([parent; 16]))),
    ];
    Change {
        guid: ElementGuid([pid; 16]),
        model: Arc::new(KindModel::new(kind(process::KIND).unwrap())),
        what: What::Put,
        time_ns: 1,
        wall_ns: 1,
        index: Some(1),
        source_seq: None,
        fields,
    }
}
