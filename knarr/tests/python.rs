//! The official Python client: every verb, kind of patch and stream that scripts use, and the server's death meanwhile.
#![allow(clippy::unwrap_used)]

use testing::{Background, Cluster, programs};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/client.py");

#[test]
fn scripts_of_the_official_client() {
    let mut c = Cluster::start(KNARR);
    let mut command = c.patient_command(&programs::python());
    let mut script = Background::spawn(command.args(["-u", SCRIPT]));
    let mut report = Vec::new();
    while let Some(line) = script.next_line() {
        if line == "RESTART" {
            c.kill_server();
            c.start_server();
            script.write("served\n");
        }
        report.push(line);
    }
    let (_, code) = script.finish();
    assert_eq!(code, Some(0), "{}", report.join("\n"));
}
