//! The cluster comes up and goes.
#![allow(clippy::unwrap_used)]

use testing::Cluster;

#[test]
fn a_node_is_ready() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_knarr"));
    assert!(cluster.k("get nodes").contains(" Ready "));
}
