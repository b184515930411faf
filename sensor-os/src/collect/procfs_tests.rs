//! Tests of the parsing of `/proc`.

use super::*;

const STAT: &[u8] = b"42 (a) b (c) S 7 42 40 34817 42 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";

#[test]
fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
    let stat = parse_stat(STAT).unwrap();
    assert_eq!(stat.key, ProcessKey { pid: 42, start_ticks: 98765 });
    assert_eq!(&*stat.name, b"a) b (c");
    assert_eq!((stat.state, stat.parent_pid, stat.session), (b'S', 7, 40));
    assert_eq!(terminal_name(stat.terminal).unwrap(), "pts/1");
    assert!(!stat.kernel_thread);
}

#[test]
fn a_kernel_worker_is_the_same_whatever_it_works_at() {
    let named = |name: &str, flags: u64| {
        let line = format!("9 ({name}) I 2 0 0 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 33 0 0");
        String::from_utf8(parse_stat(line.as_bytes()).unwrap().name.to_vec()).unwrap()
    };
    let kernel = 0x0020_0000;
    for work in ["", "-events", "+ext4-rsv-conversion"] {
        assert_eq!(named(&format!("kworker/u8:1{work}"), kernel), "kworker/u8:1");
    }
    for name in ["kworker/R-ext4-", "ksoftirqd/0", "jbd2/sda1-8"] {
        assert_eq!(named(name, kernel), name);
    }
    assert_eq!(named("kworker/1:2-mine", 0), "kworker/1:2-mine", "anybody may take the name");
}

#[test]
fn a_cut_stat_is_nothing() {
    for length in 0..STAT.len() - 8 {
        let _ = parse_stat(&STAT[..length]);
    }
    assert_eq!(parse_stat(b"42 (name"), None);
    assert_eq!(parse_stat(b") ( 1 2 3"), None);
    assert_eq!(parse_stat(b""), None);
}

#[test]
fn the_effective_user_is_the_second_number() {
    assert_eq!(parse_effective_user(b"Name:\tx\nUid:\t1000\t0\t0\t0\nGid:\t1\n"), Some(0));
    assert_eq!(parse_effective_user(b"Uid:\t1000"), None);
}

#[test]
fn arguments_are_joined_by_spaces() {
    assert_eq!(&*parse_command_line(b"sh\0-c\0echo  hi\0"), b"sh -c echo  hi");
    assert_eq!(&*parse_command_line(b"\0\0"), b"");
}

#[test]
fn containers_are_known_by_their_ids() {
    let id = "0123456789abcdef".repeat(4);
    for path in [
        format!("0::/docker/{id}"),
        format!("1:name=systemd:/x\n0::/system.slice/docker-{id}.scope/init"),
        format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
        format!("0::/machine.slice/libpod-{id}.scope/container"),
        format!("5:cpu:/kubepods/cri-containerd:{id}"),
    ] {
        assert_eq!(parse_container(path.as_bytes()).as_deref(), Some(id.as_bytes()), "{path}");
    }
    assert_eq!(parse_container(b"0::/lxc/web/init").as_deref(), Some(&b"web"[..]));
    assert_eq!(parse_container(b"0::/lxc.payload.db").as_deref(), Some(&b"db"[..]));
    assert_eq!(parse_container(b"0::/user.slice/session-1.scope"), None);
    assert_eq!(parse_container(b""), None);
}

#[test]
fn a_deleted_image_is_told_from_its_path() {
    let identity = FileIdentity { device: 1, inode: 2, bytes: 3, modified_ns: 4, changed_ns: 5 };
    let image = Image::new(Path::new("/tmp/x (deleted)"), identity);
    assert_eq!((&*image.path, image.deleted), (&b"/tmp/x"[..], true));
}

#[test]
fn mounts_are_read_with_their_escapes() {
    let text = "36 35 98:0 /mnt1 /mnt\\040two rw,noatime master:1 - ext4 /dev/root rw\n\
                22 27 0:21 / /proc rw - proc proc rw\nnonsense\n";
    let mounts = parse_mounts(text);
    assert_eq!(mounts.len(), 2);
    assert_eq!(mounts[0].path, Path::new("/mnt two"));
    assert!(mounts[0].may_hold_programs());
    assert!(!mounts[1].may_hold_programs());
}

#[test]
fn this_process_can_be_read() {
    let snapshot = read_snapshot(std::process::id()).unwrap();
    assert!(snapshot.image.is_some());
    assert!(snapshot.command_line.is_some_and(|line| !line.is_empty()));
    assert!(process_numbers().contains(&std::process::id()));
}
