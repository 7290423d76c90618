//! Pulls, and registries that misbehave.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use runtime::api::{Credentials, Error, Mount, Runtime, User};
use runtime::{Engine, LayerStream, Outcome, PeerError, Peers, Shared};
use serde_json::json;

use crate::registry::{Fault, busybox, layer, sha256};
use crate::support::Node;

async fn check_failure(node: &Node, reference: &str, texts: &[&str]) -> Error {
    let error = node.engine().pull_image(reference, &[]).await.unwrap_err();
    for text in texts {
        assert!(error.to_string().contains(text), "{text:?} in {error}");
    }
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_stack_and_are_fetched_once() {
    let Some(node) = Node::start().await else { return };
    let upper = layer(&[("bin/.wh.ls", b"", 0), ("etc/.wh..wh..opq", b"", 0), ("etc/new", b"new", 0o600)]);
    let digests = node.registry.image("stack", "1", &[busybox(), upper], json!({"User": "web", "Cmd": ["sh"]}));
    let reference = node.registry.reference("stack:1");
    let engine = node.engine();
    let pulls = futures::future::join_all((0..4).map(|_| engine.pull_image(&reference, &[]))).await;
    let image = pulls.into_iter().map(Result::unwrap).next().unwrap();
    assert_eq!(node.registry.count(&digests[0]), 1, "the first layer came with the other image");
    assert_eq!(node.registry.count(&digests[1]), 1, "one of the pulls fetched the second layer");
    assert_eq!((image.user.clone(), &image.tags[..]), (Some(User::Name("web".into())), &[reference.clone()][..]));
    assert!(image.digests[0].starts_with(&format!("{}@sha256:", reference.trim_end_matches(":1"))));

    // An index may be in another one.
    let nested = engine.pull_image(&node.registry.reference("stack:1-nested"), &[]).await.unwrap();
    assert_eq!(nested.id, image.id);
    check_failure(&node, &node.registry.reference("stack:1-empty"), &["no match for platform", "it has nothing"]).await;

    let sandbox = node.sandbox("stack").await;
    let mut config = node.config("main", "echo /bin/l* /etc/*");
    config.image = image.id.clone();
    config.security.run_as_user = Some(0);
    assert_eq!(node.output(&sandbox, config).await.1, "/bin/l* /etc/hostname /etc/new /etc/resolv.conf\n");

    let error = node.engine().remove_image(&reference).await.unwrap_err().to_string();
    assert!(error.contains("in use"), "{error}");
    node.engine().remove_sandbox(&sandbox).await.unwrap();
    node.engine().remove_image(&reference).await.unwrap();
    assert!(node.engine().image(&reference).await.unwrap().is_none());
    assert_eq!(node.engine().images().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_say_what_went_wrong() {
    let Some(node) = Node::start().await else { return };
    let blob = layer(&[("data", &vec![7u8; 300_000], 0o644)]);
    let digests = node.registry.image("bad", "1", &[blob], json!({"Cmd": ["sh"]}));
    let reference = node.registry.reference("bad:1");

    node.registry.fault(&digests[0], Fault::Wrong);
    let error = check_failure(&node, &reference, &[&digests[0], "the data has sha256:"]).await;
    assert!(matches!(error, Error::ImagePull(_)));
    node.registry.heal();
    node.registry.fault(&digests[0], Fault::HangUp);
    check_failure(&node, &reference, &[&digests[0]]).await;
    node.registry.heal();
    let error = check_failure(&node, &node.registry.reference("nosuch:1"), &["manifest unknown"]).await;
    assert!(matches!(error, Error::ImageNotFound(_)));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = check_failure(&node, &format!("{closed}/x:1"), &["cannot be reached", "refused"]).await;
    assert!(matches!(error, Error::ImageNotFound(_)));
    assert!(matches!(node.engine().pull_image("No Name", &[]).await, Err(Error::InvalidImageName(_))));

    assert_eq!(std::fs::read_dir(node.dir.path().join("data/images/tmp")).unwrap().count(), 0, "nothing is left behind");
    node.engine().pull_image(&reference, &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_left_clean() {
    let Some(node) = Node::start().await else { return };
    let blob = layer(&[("data", &vec![7u8; 3 << 20], 0o644)]);
    node.registry.image("large", "1", &[blob], json!({"Cmd": ["sh"]}));
    let tmp = node.dir.path().join("data/images/tmp");
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("small"), &tmp, Some("tmpfs"), flags, Some("size=1m")).unwrap();
    let error = node.engine().pull_image(&node.registry.reference("large:1"), &[]).await.unwrap_err();
    let left = std::fs::read_dir(&tmp).unwrap().count();
    nix::mount::umount2(&tmp, nix::mount::MntFlags::MNT_DETACH).unwrap();
    assert!(matches!(&error, Error::ImagePull(text) if text.contains("no space left on device")), "{error}");
    assert_eq!(left, 0);
    node.engine().pull_image(&node.registry.reference("large:1"), &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_asked_first() {
    let Some(mut node) = Node::start().await else { return };
    node.close().await;
    let endpoint = format!("http://{}", node.registry.address);
    let mirrors = json!({"mirrors": {"docker.io": {"endpoint": [endpoint]}}});
    node.registries = serde_json::from_value(mirrors).unwrap();
    node.open().await;
    node.registry.image("library/mirrored", "1", &[layer(&[("x", b"x", 0o644)])], json!({"Cmd": ["sh"]}));
    let image = node.engine().pull_image("mirrored:1", &[]).await.unwrap();
    assert_eq!(image.tags, ["docker.io/library/mirrored:1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_used() {
    let Some(node) = Node::start().await else { return };
    node.registry.image("private", "1", &[layer(&[("x", b"x", 0o644)])], json!({}));
    let reference = node.registry.reference("private:1");
    let credentials = Credentials { username: "me".into(), password: "secret".into() };
    // Registries that show some repositories to everybody ask at the others only.
    for ends in [&["/v2/", "/manifests/1"][..], &["/manifests/1"]] {
        ends.iter().for_each(|end| node.registry.fault(end, Fault::Password));
        let error = check_failure(&node, &reference, &["pull access denied"]).await;
        assert!(matches!(error, Error::ImagePull(_)), "who refuses may have it: {error:?}");
        node.engine().pull_image(&reference, std::slice::from_ref(&credentials)).await.unwrap();
        node.engine().remove_image(&reference).await.unwrap();
        node.registry.heal();
    }
}

/// KEP-2535: images are for who has shown credentials for them; so are their layers, for who knows their digests.
#[tokio::test(flavor = "multi_thread")]
async fn layers_of_private_images_are_not_had_by_naming_them() {
    let Some(node) = Node::start().await else { return };
    let secret = || layer(&[("secret", b"of one tenant", 0o644)]);
    let blob = node.registry.image("private", "1", &[secret()], json!({})).remove(0);
    node.registry.image("theirs", "1", &[secret()], json!({"User": "their"}));
    node.registry.fault("/v2/private/manifests/1", Fault::Password);
    node.registry.fault(&format!("/v2/private/blobs/{blob}"), Fault::Password);
    node.registry.fault("/v2/theirs/manifests/1", Fault::Password);
    let credentials = [Credentials { username: "me".into(), password: "secret".into() }];
    let pull = async |node: &Node, name: &str, credentials: &[Credentials]| {
        node.engine().pull_image(&node.registry.reference(name), credentials).await
    };
    pull(&node, "private:1", &credentials).await.unwrap();
    // Another registry, which names the layer and does not have it.
    let other = crate::registry::Registry::start();
    other.image("thief", "1", &[secret()], json!({}));
    other.forget(&blob);
    let thief = other.reference("thief:1");
    assert!(node.engine().pull_image(&thief, &[]).await.is_err());
    assert!(node.engine().pull_image(&thief, &credentials).await.is_err());
    let id = sha256(&secret().tar);
    assert!(
        node.engine().layers(vec![id.clone()]).await.unwrap().is_empty(),
        "nodes get no layers that others had to show credentials for"
    );
    // The same registry: it is asked, and says who may have the blob.
    let asked = node.registry.count(&blob);
    pull(&node, "theirs:1", &credentials).await.unwrap();
    assert_eq!(node.registry.count(&blob), asked + 1, "it was asked whether it has the blob");
    // Whoever brings it themselves has it, as anybody may from now on.
    other.image("thief", "1", &[secret()], json!({}));
    node.engine().pull_image(&thief, &[]).await.unwrap();
    assert_eq!(node.engine().layers(vec![id.clone()]).await.unwrap(), [id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_come_from_files_too() {
    let Some(node) = Node::start().await else { return };
    let file = node.dir.path().join("image.tar");
    node.registry.layout("busybox:1", &file);
    let images = node.import(&file).await.unwrap();
    assert_eq!(images[0].id, node.image);
    assert!(images[0].tags.contains(&"docker.io/imported/busybox:1".to_owned()), "{:?}", images[0].tags);
    assert_eq!(node.engine().image("imported/busybox:1").await.unwrap().unwrap().id, node.image);
    std::fs::write(&file, "not an archive").unwrap();
    assert!(node.import(&file).await.is_err());
}

/// Images as distributions make them: links to what comes at run time, volumes, and more layers than mount options have room for.
#[tokio::test(flavor = "multi_thread")]
async fn images_have_links_volumes_and_many_layers() {
    let Some(node) = Node::start().await else { return };
    let mut layers = vec![busybox()];
    let names: Vec<String> = (0..130).map(|number| format!("many/{number}")).collect();
    layers.extend(names.iter().map(|name| layer(&[(name, b"", 0o644)])));
    let stub = b"->../run/systemd/resolve/stub-resolv.conf";
    layers.push(layer(&[
        ("var/run", b"->/run", 0o777),
        ("etc/resolv.conf", stub, 0o777),
        ("data/seed", b"seed\n", 0o644),
        ("tmp/x", b"", 0o644),
    ]));
    node.registry.image("distro", "1", &layers, json!({"Cmd": ["sh"], "Volumes": {"/data": {}, "/new/place": {}}}));
    let image = node.engine().pull_image(&node.registry.reference("distro:1"), &[]).await.unwrap();
    let secrets = node.dir.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    std::fs::write(secrets.join("token"), "token\n").unwrap();

    let sandbox = node.sandbox("distro").await;
    let script = "cat /etc/resolv.conf /run/secrets/token /data/seed; echo more > /data/seed && cat /data/seed; \
                  echo new > /new/place/file && echo written; (echo no > /many/x) 2> /dev/null || echo refused; ls /many | wc -l; \
                  set -- $(ls -ld /tmp); echo $1";
    let mut config = node.config("main", script);
    config.image = image.id.clone();
    config.security.readonly_rootfs = true;
    config.mounts =
        vec![Mount { host_path: secrets, container_path: "/var/run/secrets".into(), readonly: true, ..Mount::default() }];
    let (code, text) = node.output(&sandbox, config).await;
    assert_eq!((code, text.as_str()), (0, "nameserver 10.43.0.10\ntoken\nseed\nmore\nwritten\nrefused\n130\ndrwxrwxrwt\n"));
    node.engine().remove_sandbox(&sandbox).await.unwrap();
    assert_eq!(std::fs::read_dir(node.dir.path().join("data/containers")).unwrap().count(), 0);
}

/// Another engine, in the place of another node.
struct Other(Engine);

#[async_trait]
impl Peers for Other {
    async fn holders(&self, _: &str, layers: &[String]) -> Vec<Vec<Arc<str>>> {
        let here = self.0.layers(layers.to_vec()).await.unwrap();
        layers.iter().map(|id| here.contains(id).then(|| Arc::from("other")).into_iter().collect()).collect()
    }

    async fn layer(&self, _: &str, diff_id: &str) -> Result<LayerStream, PeerError> {
        self.0.layer(diff_id).await.map_err(|error| PeerError::Failed(error.to_string()))
    }

    fn told(&self, _: &str, outcome: Outcome) {
        assert_eq!(outcome, Outcome::Taken);
    }

    async fn imported(&self, name: &str) -> Option<(Arc<str>, Bytes)> {
        Shared::imported(&self.0, name).await.unwrap().map(|(_, document)| (Arc::from("other"), document))
    }
}

/// Links, holes of other layers and whiteouts cross between nodes as they came, and the registry gives manifests and configurations only.
#[tokio::test(flavor = "multi_thread")]
async fn layers_come_from_other_nodes() {
    let (Some(first), Some(mut second)) = (Node::start().await, Node::start().await) else { return };
    let upper =
        layer(&[("bin/.wh.ls", b"", 0), ("etc/.wh..wh..opq", b"", 0), ("etc/new", b"new", 0o600), ("link", b"->etc/new", 0o777)]);
    let digests = first.registry.image("stack", "1", &[busybox(), upper], json!({"Cmd": ["sh"]}));
    let reference = first.registry.reference("stack:1");
    let image = first.engine().pull_image(&reference, &[]).await.unwrap();
    assert!(image.nodes.is_empty());
    second.close().await;
    second.peers = Some(Arc::new(Other(first.engine().clone())));
    second.open().await;
    second.engine().remove_image(&second.image).await.unwrap();
    let taken = second.engine().pull_image(&reference, &[]).await.unwrap();
    assert_eq!((&taken.id, &taken.nodes[..], taken.size), (&image.id, &["other".to_owned()][..], image.size));
    for digest in digests {
        assert_eq!(first.registry.count(&digest), 1, "{digest} has come from the registry once");
    }
    let sandbox = second.sandbox("stack").await;
    let mut config = second.config("main", "echo /bin/l* /etc/*; cat /link");
    config.image = taken.id;
    assert_eq!(second.output(&sandbox, config).await.1, "/bin/l* /etc/hostname /etc/new /etc/resolv.conf\nnew");
}

/// An image that was imported on one node is one that others find by its name, which a pull does not make.
#[tokio::test(flavor = "multi_thread")]
async fn imported_images_are_taken_by_name() {
    let (Some(first), Some(mut second)) = (Node::start().await, Node::start().await) else { return };
    let file = first.dir.path().join("image.tar");
    first.registry.layout("busybox:1", &file);
    first.import(&file).await.unwrap();
    second.close().await;
    second.peers = Some(Arc::new(Other(first.engine().clone())));
    second.open().await;
    second.engine().remove_image(&second.image).await.unwrap();
    let take = async |name: &str| second.engine().take_image(name).await.unwrap();
    assert!(take(&first.registry.reference("busybox:1")).await.is_none(), "a registry has this name");
    assert!(take("imported/busybox:2").await.is_none());
    let by_digest = format!("imported/busybox@{}", first.image);
    assert!(take(&by_digest).await.is_none());
    let image = take("imported/busybox:1").await.unwrap();
    assert_eq!((&image.id, &image.nodes[..]), (&first.image, &["other".to_owned()][..]));
    assert_eq!(image.tags, ["docker.io/imported/busybox:1"]);
    let known = Shared::imported(second.engine(), "imported/busybox:1").await.unwrap();
    assert_eq!(known.unwrap().0.id, image.id, "the next node may have it from this one");
}
