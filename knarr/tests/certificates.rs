//! `knarr certificate`: a server with its own node, agents that follow, and others that are away meanwhile.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use testing::manifests::WEB;
use testing::{Cluster, Outcome, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

fn certificate(c: &Cluster, rest: &[&str]) -> Outcome {
    let arguments: Vec<&str> = ["certificate"].iter().chain(rest).copied().collect();
    Outcome::of(&mut c.knarr(&arguments))
}

/// The command on the data directory of a host's agent.
fn certificate_of(c: &Cluster, number: u8, rest: &[&str]) -> Outcome {
    let mut command = c.on_host(number, KNARR);
    Outcome::of(command.arg("certificate").arg("--data-dir").arg(c.agent_dir(number)).args(rest))
}

/// Who the API takes somebody for.
fn whoami(c: &Cluster, options: &[&str]) -> Outcome {
    let rest = ["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"];
    c.try_kubectl(&options.iter().chain(&rest).copied().collect::<Vec<_>>())
}

/// What a pod has of its ServiceAccount, as files that a client takes.
struct Account {
    authority: PathBuf,
    token: String,
}

impl Account {
    fn of(c: &Cluster, pod: &str, name: &str) -> Self {
        let read =
            |file: &str| c.kubectl(&["exec", pod, "--", "cat", &format!("/var/run/secrets/kubernetes.io/serviceaccount/{file}")]);
        let authority = c.scratch().join(name);
        std::fs::write(&authority, read("ca.crt")).unwrap();
        Self { authority, token: read("token") }
    }

    fn whoami(&self, c: &Cluster) -> Outcome {
        let authority = self.authority.to_str().unwrap();
        whoami(
            c,
            &[
                "--kubeconfig",
                "/dev/null",
                "--server",
                "https://192.168.77.1:6443",
                "--certificate-authority",
                authority,
                "--token",
                &self.token,
            ],
        )
    }
}

fn pod_on(c: &Cluster, node: &str) -> String {
    c.k(&format!("get pods -l app=web --field-selector spec.nodeName={node} -o jsonpath={{.items[0].metadata.name}}"))
}

/// Containers, which nothing of all this ends.
fn containers(c: &Cluster) -> String {
    c.k("get pods -l app=web -o jsonpath={.items[*].status.containerStatuses[*].containerID}")
}

fn contents(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// The certificates of a text.
fn blocks(text: &str) -> usize {
    text.matches("-----BEGIN CERTIFICATE-----").count()
}

/// A node is Ready and says by its certificate, and the API reaches its kubelet by its endpoint's.
fn node_serves(c: &Cluster, node: &str, pod: &str) {
    eventually(&format!("{node} is Ready"), || {
        let ready = c.try_kubectl(&["get", "node", node, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}"]);
        (ready.stdout == "True").then_some(())
    });
    eventually(&format!("the kubelet of {node} is reached"), || {
        (c.try_kubectl(&["exec", pod, "--", "echo", "here"]).stdout.trim() == "here").then_some(())
    });
}

fn node_authority(c: &Cluster, node: &str) -> String {
    c.k(&format!(r"get node {node} -o jsonpath={{.metadata.annotations.knarr\.io/authority}}"))
}

/// The kubernetes.io page "Manual Rotation of CA Certificates": clients and nodes of before go on while both authorities are trusted, and pods
/// keep running.
#[test]
fn authorities_are_rotated_under_a_running_cluster() {
    let mut c = Cluster::start_nodes(KNARR, 3);
    c.k_with("apply -f -", WEB);
    c.k("rollout status daemonset/web --timeout=60s");
    let [old_config, old_token] = ["old.kubeconfig", "old.token"].map(|name| c.scratch().join(name));
    std::fs::copy(c.kubeconfig(), &old_config).unwrap();
    std::fs::copy(c.token_file(), &old_token).unwrap();
    let pods = ["n1", "n2", "n3"].map(|node| pod_on(&c, node));
    let (account, before) = (Account::of(&c, &pods[1], "old.ca"), containers(&c));
    let first = node_authority(&c, "n2");
    // One agent is away meanwhile.
    c.stop_agent(3);
    let begun = certificate(&c, &["rotate-ca"]);
    assert_eq!(begun.code, Some(0), "{begun:?}");
    let both = contents(&c.data_dir().join("pki/ca.crt"));
    assert_eq!(blocks(&both), 2);
    overlap(&c, &old_config, (&account, &first));
    assert_eq!(contents(&c.agent_dir(2).join("pki/server-ca.crt")), both);
    node_serves(&c, "n2", &pods[1]);
    eventually("a pod that runs has both authorities", || {
        (contents(&Account::of(&c, &pods[1], "both.ca").authority) == both).then_some(())
    });
    let refused = certificate(&c, &["rotate-ca", "--finish"]);
    assert!(
        refused.code == Some(1) && refused.stderr.contains("minutes more") && refused.stderr.contains("yet: n3"),
        "{refused:?}"
    );
    // Who was away comes in with what it knows, and a new machine with a token of before.
    let options =
        |number: u8| ["--node-name".to_owned(), format!("n{number}"), "--node-ip".to_owned(), format!("192.168.77.{number}")];
    c.add_host(4);
    for number in [3, 4] {
        let options = options(number);
        c.start_agent_with(number, &old_token, &options.each_ref().map(String::as_str));
    }
    c.wait_nodes(4);
    for node in ["n3", "n4"] {
        eventually(&format!("{node} follows"), || (node_authority(&c, node) == node_authority(&c, "n2")).then_some(()));
    }
    assert_eq!(contents(&c.agent_dir(4).join("pki/server-ca.crt")), both);
    node_serves(&c, "n3", &pods[2]);
    c.k("rollout status daemonset/web --timeout=60s");
    let refused = certificate(&c, &["rotate-ca", "--finish"]);
    assert!(refused.stderr.contains("minutes more") && !refused.stderr.contains("yet:"), "{refused:?}");
    let kept = |c: &Cluster| before.split(' ').all(|container| containers(c).contains(container));
    assert!(kept(&c), "{before}\n{}", containers(&c));

    let finished = certificate(&c, &["rotate-ca", "--finish", "--force"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    after(&c, &old_config, &account);
    for (node, pod) in ["n1", "n2", "n3"].iter().zip(&pods) {
        node_serves(&c, node, pod);
    }
    assert!(kept(&c), "{before}\n{}", containers(&c));
    // A token's file of before is in no agent's way that has joined.
    c.kill_agent(2);
    let of_two = options(2);
    c.start_agent_with(2, &old_token, &of_two.each_ref().map(String::as_str));
    node_serves(&c, "n2", &pods[1]);
    assert!(kept(&c), "{before}\n{}", containers(&c));
    agents_are_checked_and_renewed(&c);
}

/// Both authorities are trusted by everybody, and what is new is the new one's.
fn overlap(c: &Cluster, old_config: &Path, (account, first): (&Account, &str)) {
    let old_config = old_config.to_str().unwrap();
    assert_eq!(whoami(c, &["--kubeconfig", old_config]).stdout, "kubernetes-admin");
    assert_eq!(whoami(c, &[]).stdout, "kubernetes-admin");
    assert_eq!(account.whoami(c).stdout, "system:serviceaccount:default:default");
    for node in ["n1", "n2"] {
        eventually(&format!("{node} has a certificate of the new authority"), || {
            (node_authority(c, node) != first).then_some(())
        });
    }
    eventually("pods are told of both authorities", || {
        (blocks(&c.k(r"get configmap kube-root-ca.crt -o jsonpath={.data.ca\.crt}")) == 2).then_some(())
    });
    eventually("servers of the API are told of both", || {
        (blocks(&c.k("get configmap -n kube-system extension-apiserver-authentication -o jsonpath={.data}")) == 4).then_some(())
    });
    assert_eq!(c.k("get --raw /openid/v1/jwks").matches("\"kid\"").count(), 2);
    let again = certificate(c, &["rotate-ca"]);
    assert!(again.code == Some(0) && again.stdout.contains("under way already"), "{again:?}");
    let report = certificate(c, &["check"]);
    assert!(report.code == Some(0) && report.stdout.contains("it is trusted beside the one in use"), "{report:?}");
    let on_agent = certificate_of(c, 2, &["rotate-ca"]);
    assert!(on_agent.stderr.contains("rotated on the server's machine"), "{on_agent:?}");
}

/// The authority of before is nobody's any more.
fn after(c: &Cluster, old_config: &Path, account: &Account) {
    let refused = whoami(c, &["--kubeconfig", old_config.to_str().unwrap()]);
    assert!(refused.stderr.contains("unknown authority"), "{refused:?}");
    assert_eq!(whoami(c, &[]).stdout, "kubernetes-admin");
    for number in [2, 3, 4] {
        let trusted = c.agent_dir(number).join("pki/server-ca.crt");
        eventually(&format!("n{number} trusts the new authority only"), || (blocks(&contents(&trusted)) == 1).then_some(()));
    }
    eventually("pods are told of the new authority only", || {
        (blocks(&c.k(r"get configmap kube-root-ca.crt -o jsonpath={.data.ca\.crt}")) == 1).then_some(())
    });
    // A new pod has a token of the new key.
    c.k("run new --image=127.0.0.1:5000/busybox:1.36 --restart=Never --command -- sleep 100000");
    c.k("wait --for=condition=Ready pod/new --timeout=60s");
    let new = Account::of(c, "new", "new.ca");
    assert_eq!((new.whoami(c).stdout.as_str(), blocks(&contents(&new.authority))), ("system:serviceaccount:default:default", 1));
    let of_before = Account { authority: new.authority.clone(), token: account.token.clone() };
    assert!(of_before.whoami(c).stderr.contains("Unauthorized"), "{:?}", of_before.whoami(c));
}

fn agents_are_checked_and_renewed(c: &Cluster) {
    let report = certificate_of(c, 2, &["check", "-o", "json"]);
    assert_eq!(report.code, Some(0), "{report:?}");
    let report: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    let rows = report["certificates"].as_array().unwrap();
    let of = |file: &str| rows.iter().find(|row| row["file"] == file).unwrap();
    for (file, renewed) in [("pki/server-ca.crt", "nobody"), ("pki/kubelet-client.crt", "agent"), ("pki/kubelet.crt", "agent")] {
        assert_eq!((&of(file)["authority"], &of(file)["renewedBy"]), (&"present".into(), &renewed.into()), "{file}");
    }
    assert_eq!(of("pki/kubelet-client.crt")["subject"], "O=system:nodes, CN=system:node:n2");
    let files = ["kubelet-client.crt", "kubelet.crt"].map(|name| c.agent_dir(2).join("pki").join(name));
    let before = files.each_ref().map(|file| contents(file));
    assert_eq!(certificate_of(c, 2, &["rotate"]).code, Some(0));
    for (file, before) in files.iter().zip(&before) {
        eventually(&format!("{} is new", file.display()), || (contents(file) != *before).then_some(()));
    }
}

/// What runs goes on with what `rotate` has replaced, and shows what is new.
#[test]
fn certificates_are_new_on_demand() {
    let mut c = Cluster::start(KNARR);
    let old_config = c.scratch().join("old.kubeconfig");
    std::fs::copy(c.kubeconfig(), &old_config).unwrap();
    let serving = || {
        let mut command = c.machine().command(Path::new("openssl"));
        let shown = Outcome::of(command.args(["s_client", "-connect", "127.0.0.1:6443"]).stdin(std::process::Stdio::null()));
        shown.stdout.lines().skip_while(|line| !line.starts_with("-----BEGIN")).collect::<String>()
    };
    let before = serving();
    let rotated = certificate(&c, &["rotate"]);
    assert_eq!((rotated.code, rotated.stdout.matches("new: ").count()), (Some(0), 5), "{rotated:?}");
    assert_ne!(contents(&c.kubeconfig()), contents(&old_config));
    for config in [&old_config, &c.kubeconfig()] {
        assert_eq!(whoami(&c, &["--kubeconfig", config.to_str().unwrap()]).stdout, "kubernetes-admin");
    }
    eventually("the new certificate is shown", || (serving() != before).then_some(()));
    // Something that somebody else has put there, and that ends: nobody renews it.
    let other = base::tls::Authority::in_memory("other").unwrap();
    let request = base::tls::Request::Client { user: "jane".into(), groups: Vec::new() };
    let short = other.issue_for(&request, std::time::Duration::from_secs(7 * 24 * 3600)).unwrap();
    std::fs::write(c.data_dir().join("pki/jane.crt"), &short.certificate).unwrap();
    for is_running in [true, false] {
        if !is_running {
            c.stop_server();
        }
        let report = certificate(&c, &["check"]);
        assert_eq!(report.code, Some(1), "{report:?}");
        assert!(report.stderr.contains("pki/jane.crt: ends soon") && !report.stderr.contains(";"), "{report:?}");
        assert_eq!(report.stdout.contains("Neither server nor agent runs here"), !is_running, "{report:?}");
    }
    // Authorities of a server that does not run are in force when it does.
    assert_eq!(certificate(&c, &["rotate-ca"]).code, Some(0));
    let refused = certificate(&c, &["rotate-ca", "--finish"]);
    assert!(refused.stderr.contains("the server does not run"), "{refused:?}");
    c.start_server();
    for config in [&old_config, &c.kubeconfig()] {
        assert_eq!(whoami(&c, &["--kubeconfig", config.to_str().unwrap()]).stdout, "kubernetes-admin");
    }
}
