//! Tests of the table of connections, with the tracer and without.

use super::*;

const MS: u64 = 1_000_000;
const CLIENT: &str = "127.0.0.1:40000";
const SERVER: &str = "127.66.6.6:443";

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

fn change(socket: u64, states: (u8, u8), local: &str, remote: &str) -> SocketChange {
    SocketChange {
        socket,
        time_ns: 100 * MS,
        pid: 77,
        user: 1000,
        old_state: states.0,
        new_state: states.1,
        local: at(local),
        remote: at(remote),
        bytes_sent: 10,
        bytes_received: 20,
    }
}

fn row(state: u8, local: &str, remote: &str, inode: u32) -> SocketRow {
    SocketRow {
        transport: Transport::Tcp,
        local: at(local),
        remote: at(remote),
        state,
        user: 1000,
        inode,
        cookie: 1,
        bytes: None,
    }
}

fn drain(table: &mut SocketTable) -> Vec<ConnectionChange> {
    std::iter::from_fn(|| table.poll_change()).collect()
}

fn told(change: &ConnectionChange) -> Connection {
    match change {
        ConnectionChange::Is(connection) => *connection,
        ConnectionChange::Ended(..) => panic!("expected a connection, got {change:?}"),
    }
}

#[test]
fn the_tracer_tells_a_connection_with_its_process_and_its_end_with_its_bytes() {
    let mut table = SocketTable::default();
    table.handle_change(&change(1, (CLOSED, SYN_SENT), "127.0.0.1:0", SERVER));
    assert_eq!(drain(&mut table), [], "no local port yet");
    table.handle_change(&change(1, (SYN_SENT, ESTABLISHED), CLIENT, SERVER));
    table.handle_change(&change(1, (ESTABLISHED, CLOSED), CLIENT, SERVER));
    let changes = drain(&mut table);
    let connection = told(&changes[0]);
    assert_eq!(connection.ends.local, at(CLIENT));
    assert_eq!(connection.owner, Owner::Process(77));
    assert_eq!(connection.direction, Direction::Outbound);
    assert!(matches!(changes[1], ConnectionChange::Ended(_, _, Some((10, 20)))));
    assert_eq!(changes.len(), 2);
}

#[test]
fn a_refused_connection_is_told_too() {
    let mut table = SocketTable::default();
    table.handle_change(&change(1, (CLOSED, SYN_SENT), "127.0.0.1:0", SERVER));
    table.handle_change(&change(1, (SYN_SENT, CLOSED), CLIENT, SERVER));
    let changes = drain(&mut table);
    assert_eq!(told(&changes[0]).state, "failed");
    assert_eq!(told(&changes[0]).owner, Owner::Process(77));
    assert!(matches!(changes[1], ConnectionChange::Ended(..)));
}

#[test]
fn an_accepted_connection_is_inbound_and_its_listeners() {
    let mut table = SocketTable::default();
    table.handle_change(&change(9, (CLOSED, LISTENING), "0.0.0.0:443", "0.0.0.0:0"));
    // Whoever the packet interrupted is not the owner.
    let mut accepted = change(2, (SYN_RECEIVED, ESTABLISHED), SERVER, CLIENT);
    accepted.pid = 5;
    table.handle_change(&accepted);
    let connection = told(&drain(&mut table)[0]);
    assert_eq!(connection.direction, Direction::Inbound);
    assert_eq!(connection.owner, Owner::Process(77));
}

#[test]
fn an_attempt_without_an_answer_is_told_by_a_dump() {
    let mut table = SocketTable::default();
    table.handle_change(&change(1, (CLOSED, SYN_SENT), "127.0.0.1:0", SERVER));
    assert!(!table.wants_dump(101 * MS));
    assert!(table.wants_dump(200 * MS));
    table.handle_dump(
        Transport::Tcp,
        200 * MS,
        199 * MS,
        &[row(SYN_SENT, CLIENT, SERVER, 8)],
        Lingering::Tell,
    );
    table.tell_owned(200 * MS);
    assert!(!table.wants_dump(300 * MS));
    let connection = told(&drain(&mut table)[0]);
    assert_eq!((connection.state, connection.owner), ("syn_sent", Owner::Process(77)));
    assert_eq!(connection.first_seen_ns, 100 * MS);
    table.handle_change(&change(1, (SYN_SENT, ESTABLISHED), CLIENT, SERVER));
    assert_eq!(told(&drain(&mut table)[0]).state, "established");
    table.handle_change(&change(1, (ESTABLISHED, CLOSED), CLIENT, SERVER));
    assert_eq!(drain(&mut table).len(), 1);
}

#[test]
fn a_dump_finds_connections_their_direction_and_their_end() {
    let mut table = SocketTable::default();
    let rows = [
        row(LISTENING, "[::]:443", "[::]:0", 1),
        row(ESTABLISHED, SERVER, CLIENT, 2),
        row(ESTABLISHED, CLIENT, SERVER, 3),
    ];
    table.handle_dump(Transport::Tcp, MS, 0, &rows, Lingering::Tell);
    let mut wanted = table.holders_wanted();
    wanted.sort_unstable();
    assert_eq!(wanted, [1, 2, 3]);
    table.handle_holders(MS, &BTreeMap::from([(1, 50), (2, 51)]));
    let changes = drain(&mut table);
    assert_eq!(changes.len(), 2);
    let inbound = changes.iter().map(told).find(|c| c.direction == Direction::Inbound).unwrap();
    assert_eq!((inbound.ends.local, inbound.owner), (at(SERVER), Owner::Process(51)));
    let outbound = changes.iter().map(told).find(|c| c.direction == Direction::Outbound).unwrap();
    assert_eq!(outbound.owner, Owner::Unseen);
    table.handle_dump(Transport::Tcp, 2 * MS, MS + 1, &rows, Lingering::Tell);
    assert_eq!(drain(&mut table), [], "nothing changed");
    assert_eq!(table.holders_wanted(), [0_u32; 0]);
    table.handle_dump(Transport::Tcp, 3 * MS, 2 * MS, &rows[..1], Lingering::Tell);
    assert_eq!(drain(&mut table).len(), 2, "both ended");
}

#[test]
fn a_connection_between_two_dumps_is_told_once_while_it_waits_out_its_time() {
    let mut table = SocketTable::default();
    for second in 1..5 {
        let now_ns = second * 1_000 * MS;
        table.handle_dump(
            Transport::Tcp,
            now_ns,
            now_ns - MS,
            &[row(TIME_WAIT, CLIENT, SERVER, 0)],
            Lingering::Tell,
        );
        let changes = drain(&mut table);
        assert_eq!(changes.len(), if second == 1 { 2 } else { 0 }, "second {second}");
    }
}

#[test]
fn what_ended_before_collection_began_is_not_told() {
    let mut table = SocketTable::default();
    let rows = [row(TIME_WAIT, CLIENT, SERVER, 0)];
    table.handle_dump(Transport::Tcp, MS, 0, &rows, Lingering::Remember);
    table.handle_dump(Transport::Tcp, 2 * MS, MS, &rows, Lingering::Tell);
    assert_eq!(drain(&mut table), []);
}

#[test]
fn a_destroyed_socket_tells_of_a_connection_nobody_saw() {
    let mut table = SocketTable::default();
    let mut destroyed = row(CLOSED, CLIENT, SERVER, 0);
    destroyed.bytes = Some((5, 6));
    table.handle_destroyed(MS, &destroyed);
    let changes = drain(&mut table);
    assert_eq!(told(&changes[0]).owner, Owner::Unseen);
    assert!(matches!(changes[1], ConnectionChange::Ended(_, _, Some((5, 6)))));
    table.handle_dump(
        Transport::Tcp,
        2 * MS,
        MS,
        &[row(TIME_WAIT, CLIENT, SERVER, 0)],
        Lingering::Tell,
    );
    assert_eq!(drain(&mut table), []);
}

#[test]
fn an_owner_is_not_waited_for_for_ever() {
    let mut table = SocketTable::default();
    table.handle_dump(
        Transport::Tcp,
        MS,
        0,
        &[row(ESTABLISHED, CLIENT, SERVER, 3)],
        Lingering::Tell,
    );
    table.tell_owned(2 * MS);
    assert_eq!(drain(&mut table), []);
    table.tell_owned(2 * OWNER_PATIENCE_NS);
    assert_eq!(drain(&mut table).len(), 1);
}
