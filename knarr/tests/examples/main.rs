//! The examples, as their READMEs tell them: every command that a README shows is run, and has to print what the README shows.
#![allow(clippy::unwrap_used)]

mod data;
mod deployments;
mod index;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use testing::steady::{Report, Steady};
use testing::{Cluster, Reader, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

/// Where the examples are.
fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// A reader of an example's README.
fn reader(c: &Cluster, example: &str) -> Reader {
    Reader::open(c, &examples().join(example))
}

/// Follows READMEs to their ends, one after the other, on a cluster of their own.
fn follow(examples: &[&str]) {
    let c = Cluster::start(KNARR);
    for example in examples {
        reader(&c, example).finish();
    }
}

#[test]
fn tutorial_and_journal() {
    follow(&["tutorial", "journal"]);
}

#[test]
fn graceful_shutdown() {
    follow(&["graceful-shutdown"]);
}

#[test]
fn jobs_probes_and_peers() {
    follow(&["jobs", "probes", "headless"]);
}

#[test]
fn autoscaling() {
    follow(&["autoscaling"]);
}

#[test]
fn leader_and_daemonset() {
    follow(&["leader", "daemonset"]);
}

/// A steady load on a Service's cluster address.
fn load(c: &Cluster, service: &str, rate: u32) -> Steady {
    let address = c.k(&format!("get service {service} -o jsonpath={{.spec.clusterIP}}"));
    let address: SocketAddr = format!("{address}:80").parse().unwrap();
    eventually(&format!("{service} answers"), || testing::http::get(&address.to_string(), "/").ok());
    Steady::start(address, rate)
}

/// What a load must have met.
fn unnoticed(report: &Report, at_least: u64) {
    assert!(report.failures.is_empty(), "{report:#?}");
    assert!(report.answered > at_least, "{} requests are too few to tell", report.answered);
}
