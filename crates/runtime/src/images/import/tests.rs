#![allow(clippy::unwrap_used)]
use std::io::Write;

use nix::unistd::Uid;
use serde_json::{Value, json};

use super::super::export::Export;
use super::*;

/// A member of an archive: its name and content; `->` begins the target of a link.
type Member = (String, Vec<u8>);

fn archive(members: &[Member]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        match content.strip_prefix(b"->") {
            Some(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, name, std::str::from_utf8(target).unwrap()).unwrap();
            }
            None => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, name, &content[..]).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

fn layer(content: &str) -> Vec<u8> {
    archive(&[("etc/motd".to_owned(), content.as_bytes().to_vec())])
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|layer| digest_of(layer)).collect();
    json!({"os": "linux", "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": ids}}).to_string().into_bytes()
}

fn blob(data: &[u8]) -> Member {
    (blob_name(&digest_of(data)).unwrap(), data.to_vec())
}

/// An OCI layout of one image with compressed layers; annotations of its entry.
fn layout(layers: &[Vec<u8>], annotations: &Value) -> Vec<Member> {
    let (document, layers): (_, Vec<_>) = (config(layers), layers.iter().map(|layer| gzip(layer)).collect());
    let descriptor = |data: &Vec<u8>| json!({"digest": digest_of(data), "size": data.len()});
    let entries: Vec<Value> = layers.iter().map(descriptor).collect();
    let manifest = json!({"schemaVersion": 2, "config": descriptor(&document), "layers": entries}).to_string().into_bytes();
    let other = json!({"digest": digest_of(b"attestation"), "platform": {"os": "unknown", "architecture": "unknown"}});
    let mut entry = descriptor(&manifest);
    entry["annotations"] = annotations.clone();
    let index = json!({"schemaVersion": 2, "manifests": [other, entry]}).to_string().into_bytes();
    let mut members = vec![("index.json".to_owned(), index), blob(&document), blob(&manifest)];
    members.extend(layers.iter().map(|layer| blob(layer)));
    members
}

/// What docker saved before version 25: a directory for each layer, and links where a layer is there already.
fn saved(layers: &[Vec<u8>], tags: &Value) -> Vec<Member> {
    let names: Vec<String> = (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
    let mut members: Vec<Member> = names.iter().cloned().zip(layers.iter().cloned()).collect();
    for number in 1..layers.len() {
        if let Some(first) = layers[..number].iter().position(|layer| *layer == layers[number]) {
            members[number].1 = format!("->../{first}/layer.tar").into_bytes();
        }
    }
    let manifest = json!([{"Config": "config.json", "RepoTags": tags, "Layers": names}]);
    members.push(("config.json".to_owned(), config(layers)));
    members.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
    members
}

fn imported(archive: &[u8], name: Option<&str>) -> Result<(Vec<Image>, Arc<Store>, tempfile::TempDir)> {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(dir.path(), true).unwrap());
    let images = import(&store, archive, name);
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0, "nothing is left behind");
    images.map(|images| (images, store, dir))
}

fn check(members: &[Member], name: Option<&str>, expected: std::result::Result<&[&str], &str>) {
    if !Uid::effective().is_root() {
        eprintln!("SKIPPED: unpacking sets owners, which needs root");
        return;
    }
    let plain = archive(members);
    for archive in [gzip(&plain), zstd::encode_all(&plain[..], 1).unwrap(), plain] {
        match (imported(&archive, name), expected) {
            (Ok((images, ..)), Ok(tags)) => {
                let found: Vec<String> = images.iter().flat_map(|image| image.tags.clone()).collect();
                assert_eq!(found, tags);
            }
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{text:?} in {error}"),
            (result, _) => panic!("{:?} for {expected:?}", result.map(|(images, ..)| images)),
        }
    }
}

#[test]
fn names_are_those_of_docker() {
    let (layers, none) = ([layer("hello")], json!({}));
    let containerd = json!({"io.containerd.image.name": "docker.io/a/b:1", "org.opencontainers.image.ref.name": "1"});
    check(&layout(&layers, &containerd), None, Ok(&["docker.io/a/b:1"]));
    check(&layout(&layers, &json!({"org.opencontainers.image.ref.name": "app:1"})), None, Ok(&["docker.io/library/app:1"]));
    check(&layout(&layers, &json!({"org.opencontainers.image.ref.name": "latest"})), None, Ok(&[]));
    check(&layout(&layers, &none), Some("nginx"), Ok(&["docker.io/library/nginx:latest"]));
    check(&saved(&layers, &json!(["app:1", "r.io/app:2"])), None, Ok(&["docker.io/library/app:1", "r.io/app:2"]));
    check(&saved(&layers, &Value::Null), None, Ok(&[]));
    check(&saved(&layers, &Value::Null), Some("localhost/app"), Ok(&["localhost/app:latest"]));
    check(&saved(&layers, &json!(["app:1"])), Some("app:2"), Ok(&["docker.io/library/app:1", "docker.io/library/app:2"]));
    check(&saved(&layers, &json!(["No Name"])), None, Err("couldn't parse image name"));
    check(&layout(&layers, &none), Some("No Name"), Err("couldn't parse image name"));
    let digest = format!("app@{}", digest_of(b""));
    check(&layout(&layers, &none), Some(&digest), Err("by its digest"));
}

#[test]
fn hostile_archives_are_refused() {
    let layers = [layer("hello"), layer("world"), layer("hello")];
    check(&saved(&layers, &json!(["links:1"])), None, Ok(&["docker.io/library/links:1"]));
    check(&[("etc/passwd".to_owned(), vec![])], None, Err("neither an OCI layout"));
    let changed = |mut members: Vec<Member>, part: &str, content: &[u8]| {
        members.iter_mut().filter(|(name, _)| name.contains(part)).for_each(|(_, old)| *old = content.to_vec());
        members
    };
    let good = || layout(&layers, &json!({}));
    check(&changed(good(), &blob(&gzip(&layers[0])).0, &gzip(&layers[1])), None, Err("digest mismatch"));
    check(&changed(good(), &blob(&config(&layers)).0, b"{}"), None, Err("digest mismatch"));
    check(&changed(saved(&layers, &Value::Null), "0/layer.tar", &layer("other")), None, Err("diff ID mismatch"));
    check(
        &changed(saved(&layers, &Value::Null), "0/layer.tar", b"->../../../../etc/passwd"),
        None,
        Err("is missing from the archive"),
    );
    check(&changed(saved(&layers, &Value::Null), "0/layer.tar", b"->../0/layer.tar"), None, Err("is missing from the archive"));
    let outside = json!([{"Config": "/etc/passwd", "Layers": []}]).to_string();
    check(&changed(saved(&layers, &Value::Null), "manifest.json", outside.as_bytes()), None, Err("is missing from the archive"));
    let climbing = json!({"schemaVersion": 2, "manifests": [{"digest": "sha256:../../../etc/passwd"}]}).to_string();
    check(&changed(good(), "index.json", climbing.as_bytes()), None, Err("unsupported digest"));
    let foreign = json!({"schemaVersion": 2, "manifests": [{"digest": "x", "platform": {"os": "linux", "architecture": "vax"}}]});
    check(&changed(good(), "index.json", foreign.to_string().as_bytes()), None, Err("it has linux/vax"));
    check(&changed(good(), "index.json", &b"[".repeat(100_000)), None, Err("not valid"));
    let two = [saved(&layers, &Value::Null), vec![("2.json".to_owned(), config(&layers[..1]))]].concat();
    let both = json!([{"Config": "config.json", "Layers": ["0/layer.tar", "1/layer.tar", "2/layer.tar"]},
        {"Config": "2.json", "Layers": ["0/layer.tar"]}]);
    check(&changed(two, "manifest.json", both.to_string().as_bytes()), Some("a:1"), Err("several images"));
    if Uid::effective().is_root() {
        let error = imported(b"not an archive", None).err().unwrap().to_string();
        assert!(error.contains("the archive cannot be read"), "{error}");
        let bomb = archive(&[("n".repeat(90).to_owned(), vec![0; 10])]);
        assert!(imported(&gzip(&bomb)[..40], None).is_err(), "it was cut off");
    }
}

#[test]
fn what_is_exported_is_the_same_image_again() {
    if !Uid::effective().is_root() {
        eprintln!("SKIPPED: unpacking sets owners, which needs root");
        return;
    }
    let layers = [layer("hello"), layer("world")];
    let (images, store, _dir) = imported(&archive(&layout(&layers, &json!({}))), Some("r.io/app:1")).unwrap();
    import(&store, &archive(&saved(&layers[..1], &json!(["app:2", "app:3"])))[..], None).unwrap();
    let exported = |references: &[&str]| {
        let references: Vec<String> = references.iter().map(|name| (*name).to_owned()).collect();
        let mut out = Vec::new();
        Export::new(&store, &references).map(|export| export.write(&mut out).unwrap()).map(|()| out)
    };
    let both = exported(&["r.io/app:1", "app:2"]).unwrap();
    assert!(both == exported(&["r.io/app:1", "app:2"]).unwrap(), "always the same bytes");
    let (again, ..) = imported(&both, None).unwrap();
    let ids: Vec<(&str, &[String])> = again.iter().map(|image| (image.id.as_str(), &image.tags[..])).collect();
    let other = digest_of(&config(&layers[..1]));
    assert_eq!(ids, [(images[0].id.as_str(), &["r.io/app:1".to_owned()][..]), (&other, &["docker.io/library/app:2".to_owned()])]);
    // Those who know only what docker saves read the same of it.
    let mut docker = Vec::new();
    let mut source = tar::Archive::new(&both[..]);
    for entry in source.entries().unwrap() {
        let mut entry = entry.unwrap();
        let (name, mut content) = (entry.path().unwrap().display().to_string(), Vec::new());
        entry.read_to_end(&mut content).unwrap();
        if name != "index.json" {
            docker.push((name, content));
        }
    }
    let (again, ..) = imported(&archive(&docker), None).unwrap();
    assert_eq!(again.iter().map(|image| image.id.as_str()).collect::<Vec<_>>(), [images[0].id.as_str(), &other]);
    let (named, ..) = imported(&exported(&[&other]).unwrap(), None).unwrap();
    let mut names = named[0].tags.clone();
    names.sort();
    assert_eq!(names, ["docker.io/library/app:2", "docker.io/library/app:3"]);
    assert!(matches!(exported(&["app:9"]), Err(Error::NotFound(_))));
    // A file of the image that is another one now makes no other image.
    let (root, _) = store.parts(&digest_of(&layers[0]));
    std::fs::write(root.join("etc/motd"), "HELLO").unwrap();
    let error = exported(&["app:2"]).unwrap_err().to_string();
    assert!(error.contains("are not those that it was unpacked to"), "{error}");
}
