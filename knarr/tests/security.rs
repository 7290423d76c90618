//! What protects a cluster, as its owner sets it up: Secrets that are encrypted where they are stored, tokens of another issuer.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use apiserver::TokenKeys;
use base::tls::{Authority, Request};
use serde_json::json;
use testing::{Background, Cluster, Outcome, programs};

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

    // What an error says was not done is not done after the next start either.
    c.stop_server();
    let keys = done(&c, "status");
    for command in ["rotate", "disable", "reencrypt"] {
        let outcome = secrets_encryption(&c, command);
        assert!(outcome.code != Some(0) && outcome.stderr.contains("start it first"), "{command}: {outcome:?}");
    }
    assert_eq!(done(&c, "status"), keys);

    // A lost key is said at the start.
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
    for command in ["rotate", "disable", "reencrypt"] {
        let outcome = secrets_encryption(&c, command);
        assert!(
            outcome.code != Some(0) && outcome.stderr.contains("has another configuration in force"),
            "{command}: {outcome:?}"
        );
    }
    assert_eq!(fs::read(&file).unwrap(), fs::read(&kept).unwrap(), "and nothing of its own file has changed");
}

const ISSUER: &str = "https://127.0.0.1:9446";

/// Starts an issuer of tokens below a directory, which also has the certificate of its authority, and returns its keys.
fn issuer(c: &Cluster) -> (Background, TokenKeys) {
    let (directory, keys) = (c.scratch(), TokenKeys::in_memory(ISSUER).unwrap());
    let authority = Authority::in_memory("issuer").unwrap();
    let names = vec!["127.0.0.1".to_owned()];
    let identity = authority.issue(&Request::Server { name: "issuer".to_owned(), sans: names }).unwrap();
    fs::create_dir_all(directory.join("documents/.well-known")).unwrap();
    let discovery = json!({"issuer": ISSUER, "jwks_uri": format!("{ISSUER}/keys")}).to_string();
    for (file, text) in [
        ("issuer.crt", identity.certificate.as_str()),
        ("issuer.key", &identity.key),
        ("issuer-ca.crt", authority.bundle()),
        ("documents/.well-known/openid-configuration", &discovery),
        ("documents/keys", &keys.key_set().to_string()),
    ] {
        fs::write(directory.join(file), text).unwrap();
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/security/issuer.py");
    let mut command = c.patient_command(&programs::python());
    let server = Background::spawn(command.args(["-u", script]).env("DOCUMENTS", directory));
    server.line("LISTENING");
    (server, keys)
}

#[test]
fn tokens_of_another_issuer() {
    let mut c = Cluster::prepare(KNARR);
    let (_issuer, keys) = issuer(&c);
    let authority = c.scratch().join("issuer-ca.crt").display().to_string();
    let flags = ["--oidc-client-id", "kubernetes", "--oidc-groups-claim", "groups", "--oidc-signing-algs", "ES256"];
    let flags: Vec<&str> = ["--oidc-issuer-url", ISSUER, "--oidc-ca-file", &authority].into_iter().chain(flags).collect();
    c.start_server_with(&flags);
    let file = c.scratch().join("jane.kubeconfig");
    fs::copy(c.kubeconfig(), &file).unwrap();
    let now = jiff::Timestamp::now().as_second();
    let become_jane = |audience: &str| {
        let claims = json!({"iss": ISSUER, "sub": "jane", "aud": audience, "exp": now + 600, "groups": ["dev"]});
        let token = keys.issue(&claims).unwrap();
        c.k(&format!("config --kubeconfig {} set-credentials jane --token {token}", file.display()));
        c.k(&format!("config --kubeconfig {} set-context --current --user jane", file.display()));
    };
    let jane = |line: &str| {
        let arguments: Vec<&str> = line.split(' ').collect();
        Outcome::of(c.kubectl_command(&arguments).env("KUBECONFIG", &file))
    };
    become_jane("kubernetes");
    let who = jane("auth whoami -o jsonpath={.status.userInfo.username}|{.status.userInfo.groups}");
    assert_eq!(who.stdout, format!("{ISSUER}#jane|[\"dev\",\"system:authenticated\"]"), "{who:?}");
    let refused = jane("get configmaps");
    assert!(refused.stderr.contains(&format!("User \"{ISSUER}#jane\" cannot list resource \"configmaps\"")), "{refused:?}");
    c.k("create rolebinding dev --clusterrole=view --group=dev");
    assert_eq!(jane("get configmaps").code, Some(0));
    assert_ne!(jane("create configmap a").code, Some(0));
    become_jane("somebody-else");
    assert!(jane("get configmaps").stderr.contains("Unauthorized"));
}
