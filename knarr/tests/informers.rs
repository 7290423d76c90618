//! client-go's shared informers (typed, metadata and dynamic, in protobuf and JSON) and its leader election, while the
//! server dies and is written to.
#![allow(clippy::unwrap_used)]

use testing::{Background, Cluster, programs};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

#[test]
#[ignore = "needs Go and upstream's libraries: `cargo xtask clients`"]
fn informers_stay_in_step_through_restarts() {
    let mut c = Cluster::start(KNARR);
    c.k("create deployment web --image=127.0.0.1:5000/nginx:1.27 --replicas=2");
    c.k("expose deployment web --port=80");
    let mut program = Background::spawn(&mut c.patient_command(&programs::informers()));
    program.line("synced");
    for _ in 0..3 {
        c.kill_server();
        c.start_server();
        // Another client writes, too; this one hears at once that the server serves.
        c.k("scale deployment web --replicas=1");
        c.k("scale deployment web --replicas=2");
    }
    program.write("stop\n");
    let mut report = Vec::new();
    while let Some(line) = program.next_line() {
        report.push(line);
    }
    let wrong = report.iter().any(|line| line.starts_with("WRONG"));
    assert!(!wrong && report.last().is_some_and(|line| line == "done"), "{}", report.join("\n"));
}
