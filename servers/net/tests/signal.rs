//! A signal of the operating system begins the shutdown.
//!
//! Not here: the second signal, which ends the process. One test a process: signals are the
//! process'.

use std::process::Command;

use lapwing_net::shutdown;

#[test]
fn sigterm_begins_the_shutdown() {
    let (trigger, begun) = shutdown::pair();
    let signalled = async {
        // The handlers are in place once this future was polled; `begun` is polled after it.
        shutdown::on_signal(trigger).await.unwrap();
    };
    let sent = async {
        let status = Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status();
        assert!(status.unwrap().success());
        begun.begun().await;
    };
    smol::block_on(smol::future::or(signalled, sent));
    assert!(begun.has_begun());
}
