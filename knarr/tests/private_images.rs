//! Images of a registry that asks for credentials: those of a pod's secrets (KEP-2535), and those that programs of the node give (KEP-2133,
//! KEP-4412).
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use base64::Engine;
use serde_json::{Value, json};
use testing::{Cluster, Outcome, RegistryProxy};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const IMAGE: &str = "127.0.0.1:5001/busybox:1.36";
const PASSWORD: &str = "crew:aye";

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// What a pod shows for an image, and when it is pulled.
#[derive(Clone, Copy)]
struct Wants<'a> {
    image: &'a str,
    policy: &'a str,
    secret: Option<&'a str>,
    account: &'a str,
}

impl Wants<'_> {
    fn pod(&self, name: &str) -> String {
        let container =
            json!({"name": "main", "image": self.image, "imagePullPolicy": self.policy, "command": ["sleep", "100000"]});
        let secrets: Vec<_> = self.secret.iter().map(|name| json!({"name": name})).collect();
        let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container], "imagePullSecrets": secrets,
            "serviceAccountName": self.account});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string()
    }
}

/// A pod that shows a secret, or nothing.
fn with<'a>(policy: &'a str, secret: Option<&'a str>) -> Wants<'a> {
    Wants { image: IMAGE, policy, secret, account: "default" }
}

fn secret(c: &Cluster, namespace: &str, name: &str, password: &str) {
    let config = json!({"auths": {"127.0.0.1:5001": {"auth": base64(password)}}});
    let data = json!({".dockerconfigjson": base64(&config.to_string())});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson", "metadata": {"name": name}, "data": data});
    c.k_with(&format!("-n {namespace} create -f -"), &secret.to_string());
}

/// Creates the pod and waits until its container waits for this reason, with a message that has this in it.
fn check_refused(c: &Cluster, namespace: &str, name: &str, wants: Wants<'_>, (reason, text): (&str, &str)) {
    c.k_with(&format!("-n {namespace} create -f -"), &wants.pod(name));
    let waiting = ".status.containerStatuses[0].state.waiting";
    c.k(&format!("-n {namespace} wait --for=jsonpath={{{waiting}.reason}}={reason} pod/{name} --timeout=60s"));
    c.told(&format!("-n {namespace} --field-selector involvedObject.name={name}"), &[text]);
}

fn check_runs(c: &Cluster, namespace: &str, name: &str, wants: Wants<'_>) {
    c.k_with(&format!("-n {namespace} create -f -"), &wants.pod(name));
    c.k(&format!("-n {namespace} wait --for=condition=Ready pod/{name} --timeout=90s"));
}

/// KEP-2535: "ensure that the image is only used by pods with the credentials that it was pulled with", whether it is there or not, and whether
/// the kubelet was started anew.
#[test]
fn an_image_of_others_is_not_there() {
    let mut c = Cluster::start(KNARR);
    let registry = RegistryProxy::start("127.0.0.1:5001", Some(base64(PASSWORD)));
    c.k("create namespace own");
    c.k("create namespace other");
    secret(&c, "own", "crew", PASSWORD);
    secret(&c, "other", "wrong", "crew:nay");
    let denied = "needs credentials";
    check_refused(&c, "other", "early", with("IfNotPresent", None), ("ErrImagePull", denied));
    check_runs(&c, "own", "first", with("IfNotPresent", Some("crew")));
    assert!(!registry.asked().is_empty());

    check_refused(&c, "other", "without", with("IfNotPresent", None), ("ErrImagePull", denied));
    check_refused(&c, "other", "wrong", with("IfNotPresent", Some("wrong")), ("ErrImagePull", denied));
    let never = format!("Container image \"{IMAGE}\" is not present with pull policy of Never");
    check_refused(&c, "other", "never", with("Never", None), ("ErrImageNeverPull", &never));
    c.kill_server();
    c.start_server();
    check_refused(&c, "other", "later", with("IfNotPresent", None), ("ErrImagePull", denied));
    check_runs(&c, "own", "again", with("Never", Some("crew")));
    // The same credentials in a secret of its own.
    secret(&c, "other", "crew", PASSWORD);
    check_runs(&c, "other", "allowed", with("IfNotPresent", Some("crew")));
    assert_eq!(registry.asked(), [""; 0], "nobody has asked the registry again");
}

/// Programs that give credentials, and files that say for which images.
struct Programs(PathBuf);

impl Programs {
    fn new(c: &Cluster) -> Self {
        let programs = Self(c.scratch().join("credentials"));
        fs::create_dir_all(programs.0.join("config")).unwrap();
        programs
    }

    /// A program for images of this registry, which keeps its question and gives the registry's password.
    fn add(&self, name: &str, registry: &str, tokens: Option<Value>) {
        let mut file = fs::OpenOptions::new();
        let file = file.create_new(true).write(true).mode(0o755).open(self.0.join(name)).unwrap();
        let auth = json!({registry: {"username": "crew", "password": "aye"}});
        let version = "credentialprovider.kubelet.k8s.io/v1";
        let answer =
            json!({"kind": "CredentialProviderResponse", "apiVersion": version, "cacheKeyType": "Registry", "auth": auth});
        std::io::Write::write_all(&mut &file, format!("#!/bin/sh\ncat > \"$0.question\"\necho '{answer}'\n").as_bytes()).unwrap();
        let mut provider = json!({"name": name, "matchImages": [registry], "defaultCacheDuration": "1h", "apiVersion": version, "args": ["get"]});
        if let Some(tokens) = tokens {
            provider["tokenAttributes"] = tokens;
        }
        self.configure(name, &provider);
    }

    fn configure(&self, name: &str, provider: &Value) {
        let file = json!({"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": [provider]});
        fs::write(self.0.join("config").join(format!("{name}.yaml")), file.to_string()).unwrap();
    }

    fn options(&self) -> [String; 2] {
        let (config, directory) = (self.0.join("config"), &self.0);
        [
            format!("--image-credential-provider-config={}", config.display()),
            format!("--image-credential-provider-bin-dir={}", directory.display()),
        ]
    }

    fn question(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.0.join(format!("{name}.question"))).unwrap()).unwrap()
    }
}

/// What the records of pulls say of the images of a repository.
fn recorded(c: &Cluster, repository: &str) -> Value {
    let directory = fs::read_dir(c.data_dir().join("kubelet/image_manager/pulled")).unwrap();
    let records = directory.map(|entry| serde_json::from_slice::<Value>(&fs::read(entry.unwrap().path()).unwrap()).unwrap());
    let mut found = records.map(|record| record["credentialMapping"][repository].clone()).filter(|access| !access.is_null());
    found.next().unwrap_or_default()
}

/// KEP-2133: "an external exec plugin that provides registry credentials"; what it pulls with the node's identity is for all pods of the node
/// (KEP-2535).
#[test]
fn programs_of_the_node_give_credentials() {
    let mut c = Cluster::prepare(KNARR);
    let programs = Programs::new(&c);
    programs.add("node", "127.0.0.1:5001", None);
    let options = programs.options();
    let options = [options[0].as_str(), options[1].as_str()];
    programs.configure("broken", &json!({"name": "node2", "defaultCacheDuration": "1h", "apiVersion": "v1"}));
    c.spawn_server(&options);
    assert!(!c.wait_server().success());
    let log = fs::read_to_string(c.log()).unwrap();
    assert!(log.contains("config/broken.yaml: ") && log.contains("providers[0].matchImages: Required value"), "{log}");
    fs::remove_file(programs.0.join("config/broken.yaml")).unwrap();

    c.start_server_with(&options);
    let registry = RegistryProxy::start("127.0.0.1:5001", Some(base64(PASSWORD)));
    c.k("create namespace own");
    c.k("create namespace other");
    check_runs(&c, "own", "first", with("IfNotPresent", None));
    assert!(!registry.asked().is_empty());
    let question = json!({"kind": "CredentialProviderRequest", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "image": "127.0.0.1:5001/busybox"});
    assert_eq!(programs.question("node"), question);
    assert_eq!(recorded(&c, "127.0.0.1:5001/busybox"), json!({"nodePodsAccessible": true}));
    check_runs(&c, "other", "second", with("Never", None));
    // Who pulls by hand gets what pods get.
    let pulled = Outcome::of(&mut c.knarr(&["image", "pull", "127.0.0.1:5001/busybox:1.36"]));
    assert_eq!(pulled.code, Some(0), "{pulled:?}");
    // A secret comes first, and one that is not good leaves the rest to the programs.
    secret(&c, "other", "wrong", "crew:nay");
    check_runs(&c, "other", "third", with("Always", Some("wrong")));
}

/// KEP-4412: "the kubelet will generate a token bound to the current pod and its service account and pass it to the plugin", for audiences that
/// the kubelet has the right to; images that are pulled so are for pods of that service account.
#[test]
fn programs_are_shown_service_accounts() {
    let mut c = Cluster::prepare(KNARR);
    let programs = Programs::new(&c);
    let tokens = json!({"serviceAccountTokenAudience": "registry", "cacheType": "ServiceAccount", "requireServiceAccount": true,
        "requiredServiceAccountAnnotationKeys": ["example.com/fleet"], "optionalServiceAccountAnnotationKeys": ["example.com/rank"]});
    programs.add("account", "127.0.0.1:5001", Some(tokens));
    let options = programs.options();
    c.start_server_with(&[options[0].as_str(), options[1].as_str()]);
    let registry = RegistryProxy::start("127.0.0.1:5001", Some(base64(PASSWORD)));
    c.k("create namespace own");
    for (name, annotations) in [("crew", "example.com/fleet=north example.com/ship=knarr"), ("mate", "example.com/fleet=south")] {
        c.k(&format!("-n own create serviceaccount {name}"));
        c.k(&format!("-n own annotate serviceaccount {name} {annotations}"));
    }
    let of = |account, policy| Wants { account, ..with(policy, None) };
    let unauthorized = "not found in pod spec volume, system:node:";
    check_refused(&c, "own", "early", of("crew", "IfNotPresent"), ("ErrImagePull", unauthorized));
    c.k("-n own delete pod early");
    let rule = json!({"verbs": ["request-serviceaccounts-token-audience"], "apiGroups": [""], "resources": ["registry"]});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "audience"}, "rules": [rule]});
    c.k_with("create -f -", &role.to_string());
    c.k("create clusterrolebinding audience --clusterrole=audience --group=system:nodes");

    check_runs(&c, "own", "first", of("crew", "IfNotPresent"));
    let question = programs.question("account");
    assert_eq!(question["serviceAccountAnnotations"], json!({"example.com/fleet": "north"}));
    let payload = question["serviceAccountToken"].as_str().unwrap().split('.').nth(1).unwrap();
    let claims: Value =
        serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    let bound = &claims["kubernetes.io"];
    assert_eq!((&claims["aud"], &bound["pod"]["name"]), (&json!(["registry"]), &json!("first")), "{claims}");
    let crew = json!([{"uid": bound["serviceaccount"]["uid"], "namespace": "own", "name": "crew"}]);
    assert_eq!(recorded(&c, "127.0.0.1:5001/busybox"), json!({"kubernetesServiceAccounts": crew}));

    // The same service account has it, also after a restart; another one has to show what it gets, and one that does not ask gets nothing.
    c.kill_server();
    c.start_server_with(&[options[0].as_str(), options[1].as_str()]);
    registry.asked();
    check_runs(&c, "own", "again", of("crew", "Never"));
    let never = format!("Container image \"{IMAGE}\" is not present with pull policy of Never");
    check_refused(&c, "own", "other", of("mate", "Never"), ("ErrImageNeverPull", &never));
    check_refused(&c, "own", "none", of("default", "IfNotPresent"), ("ErrImagePull", "needs credentials"));
    assert_eq!(registry.asked(), [""; 0], "nobody has asked the registry with credentials");
    check_runs(&c, "own", "pulled", of("mate", "IfNotPresent"));
    assert!(!registry.asked().is_empty());
    assert_eq!(programs.question("account")["serviceAccountAnnotations"], json!({"example.com/fleet": "south"}));
}
