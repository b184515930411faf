//! What `lapwing up` writes: chosen once, kept, and readable by every role.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::BTreeSet;
use std::path::Path;

use lapwing::exit::Exit;
use lapwing::up::{Options, Plan, Ports, Wanted, write_all};

fn options(data: &Path) -> Options {
    Options {
        data: data.to_path_buf(),
        bind: None,
        capacities: None,
        sensor: Wanted::Yes,
        registration: Wanted::Yes,
        ports: Ports::Free,
        ready_file: None,
    }
}

fn plan(options: &Options) -> Plan {
    Plan::make(&options.data.join("up.toml"), options).unwrap()
}

/// The servers whose configurations `plan` asks for, and whether each role's loader takes them.
fn check(data: &Path, plan: &Plan) {
    write_all(data, plan).unwrap();
    let names = plan.started().into_iter().map(|server| server.name.clone());
    let files = names.map(|name| data.join("servers").join(name).join("config.toml"));
    for file in files.chain([data.join("sensor/config.toml")]) {
        let arguments = ["config", "check", file.to_str().unwrap()].map(String::from);
        assert_eq!(lapwing::main(&arguments), Exit::Done, "{}", file.display());
    }
}

#[test]
fn ids_and_ports_stay_over_starts_and_none_is_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let first = plan(&options);
    let addresses: Vec<_> = first.server.iter().flat_map(|server| &server.addresses).collect();
    let different: BTreeSet<_> = addresses.iter().collect();
    assert_eq!(addresses.len(), different.len());
    assert_eq!(plan(&options), first);
}

#[test]
fn more_capacities_are_more_detection_servers_and_fewer_leave_the_others_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    options.capacities = Some(vec![100, 50]);
    let two = plan(&options);
    let of = |plan: &Plan| {
        let detections = plan.detections().into_iter();
        detections.map(|server| (server.name.clone(), server.capacity)).collect::<Vec<_>>()
    };
    assert_eq!(of(&two), [(String::from("d1"), 100), (String::from("d2"), 50)]);
    options.capacities = None;
    assert_eq!(of(&plan(&options)), of(&two));
    options.capacities = Some(vec![7]);
    assert_eq!(of(&plan(&options)), [(String::from("d1"), 7)]);
    options.capacities = Some(vec![7, 8]);
    assert_eq!(plan(&options).address("d2"), two.address("d2"));
}

#[test]
fn every_role_reads_what_is_written_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    options.capacities = Some(vec![100, 50]);
    check(folder.path(), &plan(&options));
    options.registration = Wanted::No;
    let without = plan(&options);
    assert!(without.started().iter().all(|server| server.name != "registration"));
    check(folder.path(), &without);
}

#[test]
fn the_reference_ports_are_on_an_address_for_each_server() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    options.ports = Ports::Reference;
    let plan = plan(&options);
    let hosts: BTreeSet<_> = plan.started().iter().map(|server| server.addresses[0].ip()).collect();
    assert_eq!(hosts.len(), plan.started().len());
    let ports: Vec<u16> =
        plan.named("d1").unwrap().addresses.iter().map(|address| address.port()).collect();
    assert_eq!(ports, [443, 8443, 7075]);
    check(folder.path(), &plan);
}

#[test]
fn another_address_keeps_the_ports() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    let before = plan(&options);
    options.bind = Some([127, 0, 0, 2].into());
    let after = plan(&options);
    assert_eq!(after.address("webapp").unwrap().ip().to_string(), "127.0.0.2");
    assert_eq!(after.address("webapp").unwrap().port(), before.address("webapp").unwrap().port());
}

#[test]
fn a_port_that_somebody_took_is_named_with_its_server() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(&options(folder.path()));
    plan.check_ports().unwrap();
    let _taken = std::net::TcpListener::bind(plan.address("update").unwrap()).unwrap();
    let error = plan.check_ports().unwrap_err().to_string();
    assert!(error.contains("update cannot listen on 127.0.0.1:"), "{error}");
    assert!(error.contains("ss -ltnp"), "{error}");
}

#[test]
fn a_second_writing_keeps_authorities_certificates_and_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(&options(folder.path()));
    let kept = [
        "authority/organisation.pem",
        "authority/vendor-key.pem",
        "authority/vendor-signing.pub",
        "servers/d1/cert.pem",
        "secrets/api-token",
        "secrets/first-password",
        "servers/update/repository/targets.json",
    ];
    let read = || kept.map(|file| std::fs::read(folder.path().join(file)).unwrap());
    write_all(folder.path(), &plan).unwrap();
    let before = read();
    write_all(folder.path(), &plan).unwrap();
    assert!(read() == before);
}

#[test]
fn a_broken_plan_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    std::fs::write(folder.path().join("up.toml"), "deployment = 7").unwrap();
    let error = Plan::make(&folder.path().join("up.toml"), &options).unwrap_err().to_string();
    assert!(error.contains("up.toml"), "{error}");
    assert!(error.contains("restore the file"), "{error}");
}

#[test]
fn a_broken_configuration_fails_by_file_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fleet.toml");
    std::fs::write(&file, "[server]\nrole = \"fleet\"\nnmae = \"fleet\"\n").unwrap();
    let file = file.to_str().unwrap().to_owned();
    let check = ["config", "check", &file].map(String::from);
    assert_eq!(lapwing::main(&check), Exit::Failed);
    let run = ["fleet", "--config", &file].map(String::from);
    assert_eq!(lapwing::main(&run), Exit::Failed);
}

#[test]
fn every_role_has_an_example() {
    for role in [
        "registration",
        "detection",
        "update",
        "intel",
        "webapp",
        "malops",
        "tagging",
        "fleet",
        "sensor",
    ] {
        let arguments = ["config", "example", role].map(String::from);
        assert_eq!(lapwing::main(&arguments), Exit::Done, "{role}");
    }
    let unknown = ["config", "example", "dance"].map(String::from);
    assert_eq!(lapwing::main(&unknown), Exit::Usage);
}

#[test]
fn what_an_operator_set_for_the_sensor_stays() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let plan = plan(&options);
    let file = folder.path().join("sensor/config.toml");
    check(folder.path(), &plan);
    let written = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{written}\n[collect]\nunit_source = \"units.txt\"\n")).unwrap();
    for _ in 0..2 {
        check(folder.path(), &plan);
        let kept = std::fs::read_to_string(&file).unwrap();
        assert_eq!(kept.matches("unit_source = \"units.txt\"").count(), 1, "{kept}");
        assert_eq!(kept.matches("[servers]").count(), 1, "{kept}");
    }
}

#[test]
fn an_old_manifest_is_signed_anew_and_a_young_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let plan = plan(&options);
    let file = folder.path().join("servers/update/repository/targets.json");
    write_all(folder.path(), &plan).unwrap();
    let first = std::fs::read(&file).unwrap();
    write_all(folder.path(), &plan).unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), first);
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(31 * 86_400);
    std::fs::File::open(&file).unwrap().set_modified(long_ago).unwrap();
    write_all(folder.path(), &plan).unwrap();
    assert_ne!(std::fs::read(&file).unwrap(), first);
}
