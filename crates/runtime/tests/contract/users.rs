//! User namespaces of pods, and whom the files belong to that their containers see.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use runtime::api::{
    ContainerConfig, ExecRequest, IdRange, ImageSource, Mount, NamespaceMode, Runtime, SandboxConfig, SecurityContext,
};
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::registry::{busybox, layer};
use crate::support::{LONG, Node, log_text};

const USERS: IdRange = IdRange { host: 0x50_0000, size: 0x1_0000 };

/// A node that can do it; says so when this one cannot.
async fn node() -> Option<Node> {
    let node = Node::start().await?;
    if !node.engine().features().user_namespaces {
        eprintln!("SKIPPED: this kernel has no user namespaces, or cannot map mounts");
        return None;
    }
    Some(node)
}

async fn sandbox(node: &Node, name: &str, pid: NamespaceMode) -> String {
    let config = SandboxConfig { users: Some(USERS), pid, ..node.pod(name) };
    node.engine().run_sandbox(config).await.unwrap().id
}

/// The user of a process, as the node calls it.
fn uid(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

async fn pid(node: &Node, id: &str) -> u32 {
    node.engine().container(id).await.unwrap().pid.unwrap()
}

/// The log of a container once it has a line with this text.
async fn logged(node: &Node, id: &str, text: &str) -> String {
    let path = node.engine().container(id).await.unwrap().log_path;
    let mut watch = base::directory::Watch::new(path.parent().unwrap()).unwrap();
    let wait = async {
        loop {
            let log = log_text(&path);
            if log.lines().any(|line| line == text) {
                return log;
            }
            watch.changed().await.unwrap();
        }
    };
    tokio::time::timeout(LONG, wait).await.expect("the line comes")
}

/// KEP-127: "the container will run as root and have capabilities inside of it, and be an unprivileged user outside": other ids, files of the
/// image, of volumes and of its own under the right owners, and the same for commands beside it.
#[tokio::test(flavor = "multi_thread")]
async fn root_of_a_user_namespace_is_nobody_outside() {
    let Some(node) = node().await else { return };
    for mode in [NamespaceMode::Container, NamespaceMode::Pod] {
        let name = format!("users-{mode:?}").to_lowercase();
        let sandbox = sandbox(&node, &name, mode).await;
        let volume = node.dir.path().join(&name);
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(volume.join("kept"), "root's").unwrap();
        let script = "cat /proc/self/uid_map | tr -s ' '; stat -c %u / /bin/sh /volume /volume/kept /etc/hostname /work; \
            touch /volume/made /own; mount -t tmpfs none /mnt 2>/dev/null || echo 'no mount'; hostname changed 2>/dev/null || echo 'no name'; \
            echo named >/dev/stdout; touch /ready; sleep 1000";
        let mut config = node.config("main", script);
        config.working_dir = "/work".to_owned();
        config.mounts = vec![Mount { host_path: volume.clone(), container_path: "/volume".into(), ..Mount::default() }];
        let id = node.start_with(&sandbox, config).await;
        node.wait_ready(&id).await;
        assert_eq!(uid(pid(&node, &id).await), USERS.host);
        let text = logged(&node, &id, "named").await;
        assert_eq!(text, " 0 5242880 65536\n0\n0\n0\n0\n0\n0\nno mount\nno name\nnamed\n");
        assert_eq!(std::fs::metadata(volume.join("made")).unwrap().uid(), 0, "as on a node without user namespaces");
        let beside =
            node.exec(&id, "id -u; cat /proc/self/uid_map | tr -s ' '; stat -c %u /own /volume/made; echo x >/dev/stderr").await;
        assert_eq!(String::from_utf8_lossy(&beside.stdout), "0\n 0 5242880 65536\n0\n0\n");
        assert_eq!(beside.stderr, b"x\n");
        node.engine().stop_container(&id, Duration::ZERO, None).await.unwrap();
        node.engine().remove_sandbox(&sandbox).await.unwrap();
        let left = std::fs::read_dir(node.dir.path().join("run/users")).unwrap().count();
        assert_eq!(left, 0, "no mount is left");
    }
}

/// What is made for a container's working directory is its root's: a volume may be mounted beside it, for which its root makes the place.
#[tokio::test(flavor = "multi_thread")]
async fn a_working_directory_is_for_its_users() {
    let Some(node) = node().await else { return };
    let sandbox = sandbox(&node, "working", NamespaceMode::Container).await;
    let volume = node.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    for working_dir in ["/place/own/in", "/place/volume/in"] {
        let name = if working_dir.contains("own") { "own" } else { "volume" };
        let script = format!("stat -c %u /place {working_dir}/.. . ; touch made && echo made; sleep 1000");
        let mut config = node.config(name, &script);
        config.working_dir = working_dir.to_owned();
        config.mounts = vec![Mount { host_path: volume.clone(), container_path: "/place/volume".into(), ..Mount::default() }];
        let id = node.start_with(&sandbox, config).await;
        assert_eq!(logged(&node, &id, "made").await, "0\n0\n0\nmade\n", "{working_dir}");
    }
    assert_eq!(std::fs::metadata(volume.join("in/made")).unwrap().uid(), 0, "as on a node without user namespaces");
}

/// Containers of one pod share its users: one that is added to debug another sees its processes and may trace them, and another user of the pod
/// is another user of the node. The next engine goes on with them.
#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_share_its_users() {
    let Some(mut node) = node().await else { return };
    let sandbox = sandbox(&node, "shared", NamespaceMode::Container).await;
    let first = node.run(&sandbox, "first", "touch /ready; sleep 1000").await;
    node.wait_ready(&first).await;
    let security = SecurityContext { add_capabilities: vec!["SYS_PTRACE".to_owned()], unmasked_proc: true, ..Default::default() };
    let script = "id -u; readlink /proc/1/ns/user | cut -d: -f1; test $$ -ne 1 && grep -q sleep /proc/1/cmdline && echo sees; echo done; sleep 1000";
    let config = ContainerConfig { target: Some("first".to_owned()), security, ..node.config("debugger", script) };
    let debugger = node.start_with(&sandbox, config).await;
    assert_eq!(logged(&node, &debugger, "done").await, "0\nuser\nsees\ndone\n");
    assert_eq!(uid(pid(&node, &debugger).await), USERS.host);
    let security = SecurityContext { run_as_user: Some(1000), ..Default::default() };
    let script = "echo named >/dev/stdout; id -u; sleep 1000";
    let other = node.start_with(&sandbox, ContainerConfig { security, ..node.config("other", script) }).await;
    assert_eq!(logged(&node, &other, "1000").await, "named\n1000\n");
    assert_eq!(uid(pid(&node, &other).await), USERS.host + 1000);
    node.abandon().await;
    node.open().await;
    assert_eq!(node.exec(&first, "id -u").await.stdout, b"0\n");
    let second = node.run(&sandbox, "second", "sleep 1000").await;
    assert_eq!(uid(pid(&node, &second).await), USERS.host);
}

/// A terminal belongs to the user of the command, with and without a user namespace.
#[tokio::test(flavor = "multi_thread")]
async fn terminals_can_be_opened_by_name() {
    let Some(node) = node().await else { return };
    for users in [None, Some(USERS)] {
        let name = format!("terminal-{}", users.is_some());
        let config = SandboxConfig { users, ..node.pod(&name) };
        let sandbox = node.engine().run_sandbox(config).await.unwrap().id;
        let security = SecurityContext { run_as_user: Some(1000), ..Default::default() };
        let id = node.start_with(&sandbox, ContainerConfig { security, ..node.config("main", "sleep 1000") }).await;
        let command = ["sh", "-c", "echo named >$(tty); echo again >/dev/stdout"].map(str::to_owned).to_vec();
        let request = ExecRequest { command, tty: true, stdin: false, stdout: true, stderr: false };
        let mut streams = node.engine().exec(&id, request).await.unwrap();
        let mut text = String::new();
        let mut stdout = streams.stdout.take().unwrap();
        tokio::time::timeout(LONG, stdout.read_to_string(&mut text)).await.unwrap().unwrap();
        assert_eq!(text, "named\r\nagain\r\n", "{users:?}");
    }
}

/// Images make their log a link to `/dev/stdout`; who is not root can write to it, too.
#[tokio::test(flavor = "multi_thread")]
async fn standard_streams_can_be_opened_by_name() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("streams").await;
    let security = SecurityContext { run_as_user: Some(1000), run_as_group: Some(1000), ..Default::default() };
    let config = node.config("main", "echo out >/dev/stdout; echo err >/proc/self/fd/2; id -u");
    let (code, text) = node.output(&sandbox, ContainerConfig { security, ..config }).await;
    let lines: std::collections::BTreeSet<&str> = text.lines().collect();
    assert_eq!((code, lines), (0, ["1000", "err", "out"].into()));
}

/// Images as volumes show the owners that they name; what cannot be mapped is refused with the reason.
#[tokio::test(flavor = "multi_thread")]
async fn what_else_is_mounted_is_mapped_or_refused() {
    let Some(node) = node().await else { return };
    let sandbox = sandbox(&node, "mounts", NamespaceMode::Container).await;
    let image = |sub_path: &str| Some(ImageSource { id: node.image.clone(), sub_path: sub_path.to_owned() });
    let mount = |path: &str, image| Mount { image, container_path: path.into(), readonly: true, ..Mount::default() };
    let mut config =
        node.config("main", "stat -c %u:%g /image/bin/sh /part/sh; /bin/sh -c 'touch /part/new' 2>/dev/null || echo refused");
    config.mounts = vec![mount("/image", image("")), mount("/part", image("bin"))];
    let (code, text) = node.output(&sandbox, config).await;
    assert_eq!((code, text.as_str()), (0, "0:0\n0:0\nrefused\n"));

    let mut config = node.config("refused", "true");
    config.mounts = vec![Mount { host_path: "/sys/kernel".into(), container_path: "/kernel".into(), ..Mount::default() }];
    let error = node.engine().create_container(&sandbox, config).await.unwrap_err().to_string();
    assert!(error.contains("the file system of /sys/kernel cannot map users"), "{error}");
    let own: BTreeMap<_, _> = entries(&node.dir.path().join("run/users"));
    assert_eq!(own.len(), 1, "a container that could not be made leaves nothing: {own:?}");
    node.engine().remove_sandbox(&sandbox).await.unwrap();
    assert!(entries(&node.dir.path().join("run/users")).is_empty());
}

/// A shared mount with another one below it, which go with this.
struct Shared(std::path::PathBuf);

impl Shared {
    fn new(path: &Path) -> Self {
        use nix::mount::{MsFlags, mount};
        let none = None::<&str>;
        let tmpfs = |path: &Path| {
            std::fs::create_dir(path).unwrap();
            mount(Some("none"), path, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        };
        let this = Self(path.to_owned());
        tmpfs(path);
        mount(none, path, none, MsFlags::MS_SHARED, none).unwrap();
        tmpfs(&path.join("below"));
        std::fs::write(path.join("below/kept"), "").unwrap();
        this
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// The end of a container takes its own mounts away and no others.
#[tokio::test(flavor = "multi_thread")]
async fn mounts_of_the_node_outlive_their_copies() {
    let Some(node) = node().await else { return };
    let shared = Shared::new(&node.dir.path().join("shared"));
    let sandbox = sandbox(&node, "copies", NamespaceMode::Container).await;
    let mut config = node.config("main", "ls /volume/below");
    config.mounts = vec![Mount { host_path: shared.0.clone(), container_path: "/volume".into(), ..Mount::default() }];
    let (code, text) = node.output(&sandbox, config).await;
    assert_eq!((code, text.as_str()), (0, "kept\n"));
    node.engine().remove_sandbox(&sandbox).await.unwrap();
    assert!(shared.0.join("below/kept").exists(), "a mount of the node has gone with the container");
}

fn entries(directory: &Path) -> BTreeMap<String, usize> {
    let inside = |path: &Path| std::fs::read_dir(path).map(Iterator::count).unwrap_or_default();
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), inside(&entry.path()))).collect()
}

/// What an image has at a volume of its own belongs to users of the container, and so does an empty one.
#[tokio::test(flavor = "multi_thread")]
async fn volumes_of_the_image_belong_to_users_of_the_container() {
    let Some(node) = node().await else { return };
    let layers = [busybox(), layer(&[("data/seed", b"seed", 0o600)])];
    node.registry.image("volumes", "1", &layers, json!({"Cmd": ["sh"], "Volumes": {"/data": {}, "/new": {}}}));
    let image = node.engine().pull_image(&node.registry.reference("volumes:1"), &[]).await.unwrap();
    let sandbox = sandbox(&node, "volumes", NamespaceMode::Container).await;
    let script = "stat -c %u /data /data/seed /new; cat /data/seed && touch /data/made /new/made && echo ' written'";
    let mut config = node.config("main", script);
    config.image = image.id;
    config.security.readonly_rootfs = true;
    assert_eq!(node.output(&sandbox, config).await.1, "0\n0\n0\nseed written\n");
    node.engine().remove_sandbox(&sandbox).await.unwrap();
}
