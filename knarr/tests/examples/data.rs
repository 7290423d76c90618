//! Programs that keep data: nothing that was committed is lost, whatever is killed.

use testing::Cluster;

use crate::{KNARR, reader};

/// SIGKILL to the server and to all that runs on its node, as by a power cut; then the server starts again.
fn restart_node(c: &mut Cluster) {
    c.kill_server();
    let killed = c.knarr(&["killall"]).output().unwrap();
    assert!(killed.status.success(), "{killed:?}");
    c.start_server();
}

#[test]
fn postgresql() {
    let mut c = Cluster::start(KNARR);
    let mut reader = reader(&c, "postgresql");
    for heading in ["Start", "The pod goes", "It crashes", "Autovacuum", "A change of a setting"] {
        reader.section(heading);
    }
    let before = reader.run("sql \"insert into ships (name) values ('Byrding') returning id\"");
    assert_eq!(before.code, Some(0), "{before:?}");
    restart_node(&mut c);
    reader.section("The node starts again");
    let found = reader.run("sql \"select id from ships where name = 'Byrding'\"");
    assert_eq!(found.stdout, before.stdout, "{found:?}");
    reader.finish();
}

#[test]
fn queue() {
    let mut c = Cluster::start(KNARR);
    let mut reader = reader(&c, "queue");
    for heading in ["Start", "The standard queue", "The FIFO queue"] {
        reader.section(heading);
    }
    // Workers and Redis die in the middle of their messages.
    restart_node(&mut c);
    c.k("wait --for=jsonpath={.status.containerStatuses[0].restartCount}=1 pod/redis-0 --timeout=60s");
    c.k("wait --for=condition=Ready pod/redis-0 --timeout=60s");
    reader.finish();
}

#[test]
fn events() {
    let mut c = Cluster::start(KNARR);
    let mut reader = reader(&c, "events");
    for heading in ["Start", "Orders while the stock is away", "The stock comes back"] {
        reader.section(heading);
    }
    // Everything dies with events on their way.
    restart_node(&mut c);
    reader.finish();
}

#[test]
fn cqrs() {
    crate::follow(&["cqrs"]);
}
