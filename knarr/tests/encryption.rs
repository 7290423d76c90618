//! Secrets that are encrypted where they are stored.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use testing::{Cluster, Outcome};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

/// Whether a file below a directory has this text.
fn is_below(directory: &Path, text: &str) -> bool {
    fs::read_dir(directory).unwrap().flatten().any(|entry| {
        let path = entry.path();
        // Files vanish when the store merges them.
        let has = |bytes: Vec<u8>| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        if path.is_dir() { is_below(&path, text) } else { fs::read(&path).is_ok_and(has) }
    })
}

fn secrets_encryption(c: &Cluster, command: &str) -> Outcome {
    Outcome::of(&mut c.knarr(&["secrets-encryption", command]))
}

fn done(c: &Cluster, command: &str) -> String {
    let outcome = secrets_encryption(c, command);
    assert_eq!(outcome.code, Some(0), "{command}: {outcome:?}");
    outcome.stdout
}

/// Makes a Secret and returns its text as it stands in the store when it is not encrypted.
fn secret(c: &Cluster, name: &str, text: &str) -> String {
    c.k(&format!("create secret generic {name} --from-literal=text={text}"));
    c.k(&format!("get secret {name} -o jsonpath={{.data.text}}"))
}

fn version(c: &Cluster) -> String {
    c.k("get secret plain -o jsonpath={.metadata.resourceVersion}")
}

#[test]
fn secrets_are_encrypted_at_rest() {
    let mut c = Cluster::start(KNARR);
    let store = c.machine().path(&c.data_dir().join("store"));
    assert!(done(&c, "status").contains("Secrets are not encrypted"));
    assert_ne!(secrets_encryption(&c, "rotate").code, Some(0));
    let plain = secret(&c, "plain", "xq7Zk2Wv9Rt4");
    assert!(is_below(&store, &plain), "the test looks where Secrets are");

    let before = version(&c);
    assert!(done(&c, "enable").contains("encrypted with the newest key"));
    let status = done(&c, "status");
    assert!(
        status.contains("Secrets are encrypted (AES-GCM) with key-1.") && status.contains("The server has it in force."),
        "{status}"
    );
    let hidden = secret(&c, "hidden", "mB8sLp3Yd6Qn");
    assert!(!is_below(&store, &hidden));
    assert!(is_below(&store, "k8s:enc:aesgcm:v1:key-1:"));

    // What was there is stored anew, once; a write that changes nothing does nothing then.
    assert_ne!(version(&c), before);
    let now = version(&c);
    c.k_with("replace -f -", &c.k("get secret plain -o json"));
    assert_eq!(version(&c), now);

    done(&c, "rotate");
    assert!(done(&c, "status").contains("keys: key-2\n"));
    for _ in 0..2 {
        assert_eq!(c.k("get secret hidden plain -o jsonpath={.items[*].data.text}"), format!("{hidden} {plain}"));
        c.kill_server();
        c.start_server();
    }

    // A lost key is said at the start.
    c.stop_server();
    let file = c.machine().path(&c.data_dir().join("encryption.yaml"));
    let kept = c.scratch().join("kept");
    fs::copy(&file, &kept).unwrap();
    fs::remove_file(&file).unwrap();
    c.spawn_server(&[]);
    assert!(!c.wait_server().success());
    let log = fs::read_to_string(c.log()).unwrap();
    assert!(log.contains("it was encrypted with the key \"key-2\" of aesgcm, which no encryption configuration has"), "{log}");
    fs::copy(&kept, &file).unwrap();

    // An operator's own configuration, which another tool has written.
    let own = fs::read_to_string(&kept).unwrap().replace("\"secrets\"", "\"secrets\", \"configmaps\"");
    let path = c.scratch().join("own.yaml");
    fs::write(&path, own).unwrap();
    c.start_server_with(&["--encryption-provider-config", path.to_str().unwrap()]);
    c.k("create configmap map --from-literal=text=Jw5tHc1Xe0Ga");
    assert!(!is_below(&store, "Jw5tHc1Xe0Ga"));
    assert_eq!(c.k("get secret hidden -o jsonpath={.data.text}"), hidden);
}
