//! Devices that containers are given.

use std::os::unix::fs::PermissionsExt;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use runtime::api::{ContainerConfig, ContainerEdits, Device, IdRange, Runtime, SandboxConfig};

use crate::support::Node;

/// What may be done with a device: each line says what worked.
const TRY: &str = "for d in /dev/given /elsewhere/given; do test -c $d || continue; \
    { true < $d; } 2>/dev/null && echo read; { true > $d; } 2>/dev/null && echo written; done; \
    mknod /tmp/other c 10 237 2>/dev/null && { true < /tmp/other; } 2>/dev/null && echo made; echo $GIVEN";

/// A device of the node that no container has by itself: the control of loop devices, for everybody.
fn device_of(node: &Node) -> std::path::PathBuf {
    let path = node.dir.path().join("device");
    if !path.exists() {
        mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(10, 237)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    }
    path
}

async fn check(node: &Node, sandbox: &str, name: &str, (place, permissions): (&str, &str), expected: &str) {
    let mut config = ContainerConfig { ..node.config(name, &format!("mkdir -p /tmp; {TRY}")) };
    let device =
        Device { host_path: device_of(node), container_path: place.into(), permissions: permissions.into(), ..Device::default() };
    let devices = if place.is_empty() { vec![] } else { vec![device] };
    config.edit(ContainerEdits { env: vec![("GIVEN".into(), name.into())], devices, ..ContainerEdits::default() });
    let (code, text) = node.output(sandbox, config).await;
    assert_eq!((code, text), (0, format!("{expected}{name}\n")), "{name}: {place} {permissions}");
}

/// Device plugin API, `DeviceSpec`: "Cgroups permissions of the device, candidates are one or more of r (read), w (write), m (mknod)".
#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_the_devices_that_it_is_given_and_no_others() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("devices").await;
    check(&node, &sandbox, "none", ("", ""), "").await;
    check(&node, &sandbox, "all", ("/dev/given", "rwm"), "read\nwritten\nmade\n").await;
    check(&node, &sandbox, "reader", ("/dev/given", "r"), "read\nmade\n").await;
    check(&node, &sandbox, "elsewhere", ("/elsewhere/given", "rw"), "read\nwritten\nmade\n").await;
    let mut config = node.config("missing", "true");
    config.devices = vec![Device { host_path: "/dev/nosuch".into(), container_path: "/dev/x".into(), ..Device::default() }];
    let error = node.engine().create_container(&sandbox, config).await.unwrap_err().to_string();
    assert_eq!(error, "device /dev/nosuch: No such file or directory (os error 2)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_users_of_its_own_has_them_too() {
    let Some(node) = Node::start().await else { return };
    if !node.engine().features().user_namespaces {
        eprintln!("SKIPPED: this kernel has no user namespaces, or cannot map mounts");
        return;
    }
    let users = Some(IdRange { host: 0x51_0000, size: 0x1_0000 });
    let sandbox = node.engine().run_sandbox(SandboxConfig { users, ..node.pod("devices") }).await.unwrap().id;
    check(&node, &sandbox, "all", ("/dev/given", "rwm"), "read\nwritten\n").await;
    check(&node, &sandbox, "reader", ("/dev/given", "r"), "read\n").await;
    node.engine().remove_sandbox(&sandbox).await.unwrap();
}
