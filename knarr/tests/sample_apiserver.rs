//! An API server of another group, made of upstream's generic API server as its sample-apiserver is, with etcd of its own: what it asks
//! of the cluster's API server, and what clients see of it through that.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base::tls::{Authority, Request};
use base64::Engine as _;
use testing::{Cluster, eventually, programs};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const NODE_ADDRESS: &str = "192.168.77.1";
const FLUNDERS: &str = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders";

/// What upstream's documentation gives a server of an aggregated API, and what its admission plugins look at.
const RIGHTS: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: wardle, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: wardle-auth-delegator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:auth-delegator}
subjects: [{kind: ServiceAccount, name: wardle, namespace: default}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: wardle-auth-reader, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: extension-apiserver-authentication-reader}
subjects: [{kind: ServiceAccount, name: wardle, namespace: default}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: wardle}
rules:
  - {apiGroups: [""], resources: [namespaces], verbs: [get, list, watch]}
  - {apiGroups: [admissionregistration.k8s.io], resources: ["*"], verbs: [get, list, watch]}
  - {apiGroups: [flowcontrol.apiserver.k8s.io], resources: [flowschemas, prioritylevelconfigurations], verbs: [get, list, watch]}
  - {apiGroups: [flowcontrol.apiserver.k8s.io], resources: [flowschemas/status], verbs: [patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: wardle}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: wardle}
subjects: [{kind: ServiceAccount, name: wardle, namespace: default}]
"#;

const SERVICE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: wardle}
spec: {ports: [{port: 443, targetPort: 8443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: wardle, labels: {kubernetes.io/service-name: wardle}}
addressType: IPv4
ports: [{port: 8443}]
endpoints: [{addresses: [192.168.77.1]}]
"#;

/// A policy of the cluster about what the other server keeps: that one's own admission asks it.
const POLICY: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: flunders}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [wardle.example.com], apiVersions: ["*"], operations: [CREATE], resources: [flunders]}]
  validations: [{expression: "!has(object.spec.reference) || object.spec.reference != 'secret'", message: secrets are not referred to}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: flunders}
spec: {policyName: flunders, validationActions: [Deny]}
"#;

/// A program that ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program whose output goes to a file of the test's directory.
fn start(c: &Cluster, program: &Path, arguments: &[&str]) -> Program {
    let log = c.scratch().join(program.file_name().unwrap()).with_extension("log");
    let log = fs::File::options().create(true).append(true).open(log).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).current_dir(c.scratch()).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    Program(command.spawn().unwrap())
}

/// A kubeconfig with the token of a ServiceAccount.
fn kubeconfig_of(c: &Cluster, account: &str) -> PathBuf {
    let path = c.scratch().join(format!("{account}.kubeconfig"));
    fs::copy(c.kubeconfig(), &path).unwrap();
    let (token, file) = (c.k(&format!("create token {account}")), path.display());
    c.k(&format!("config --kubeconfig {file} set-credentials {account} --token {}", token.trim()));
    c.k(&format!("config --kubeconfig {file} set-context --current --user {account}"));
    path
}

/// A cluster with the other server behind the service `wardle`.
struct Sample {
    cluster: Cluster,
    server: Option<Program>,
    _etcd: Program,
}

impl Sample {
    fn start() -> Self {
        let cluster = Cluster::start(KNARR);
        // Of another name than the server's: OpenSSL takes a certificate whose issuer has its own name for one that signed itself.
        let authority = Authority::in_memory("wardle-ca").unwrap();
        let sans = ["wardle.default.svc", NODE_ADDRESS].map(str::to_owned).to_vec();
        let identity = authority.issue(&Request::Server { name: "wardle".into(), sans }).unwrap();
        for (name, text) in [("ca.crt", authority.bundle()), ("tls.crt", &identity.certificate), ("tls.key", &identity.key)] {
            fs::write(cluster.scratch().join(name), text).unwrap();
        }
        cluster.k_with("apply -f -", RIGHTS);
        cluster.k_with("apply -f -", SERVICE);
        kubeconfig_of(&cluster, "wardle");
        let etcd = start(&cluster, &programs::etcd(), &["--data-dir", "etcd", "--listen-peer-urls", "http://127.0.0.1:2380"]);
        let mut sample = Self { cluster, server: None, _etcd: etcd };
        sample.serve();
        let service = format!(
            "{{apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {{name: v1alpha1.wardle.example.com}}, spec: {{group: wardle.example.com, version: v1alpha1, groupPriorityMinimum: 2000, versionPriority: 200, caBundle: {}, service: {{name: wardle, namespace: default}}}}}}",
            base64::engine::general_purpose::STANDARD.encode(authority.bundle())
        );
        sample.cluster.k_with("apply -f -", &service);
        sample.is_available("true");
        sample
    }

    fn serve(&mut self) {
        let kubeconfigs = ["--kubeconfig", "--authentication-kubeconfig", "--authorization-kubeconfig"];
        let mut arguments: Vec<&str> = kubeconfigs.into_iter().flat_map(|flag| [flag, "wardle.kubeconfig"]).collect();
        arguments.extend(["--secure-port=8443", "--tls-cert-file=tls.crt", "--tls-private-key-file=tls.key"]);
        arguments.extend(["--etcd-servers=http://127.0.0.1:2379"]);
        self.server = Some(start(&self.cluster, &programs::wardle(), &arguments));
    }

    /// Waits for the condition of its APIService.
    fn is_available(&self, status: &str) {
        let wait = format!("wait --for=condition=Available={status} apiservice/v1alpha1.wardle.example.com --timeout=60s");
        let outcome = self.cluster.try_kubectl(&wait.split(' ').collect::<Vec<_>>());
        let log = || fs::read_to_string(self.cluster.scratch().join("wardle.log")).unwrap_or_default();
        assert!(
            outcome.code == Some(0),
            "{outcome:?}\n{}",
            self.cluster.k("get apiservices -o yaml v1alpha1.wardle.example.com") + &log()
        );
    }

    /// Creates a Flunder, and expects this of what is said.
    fn create(&self, options: &str, flunder: &str, code: i32, expected: &str) {
        let outcome = self.cluster.try_k_with(&format!("create {options} -f -"), flunder);
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(outcome.code == Some(code) && said.contains(expected), "{flunder}: {outcome:?}");
    }
}

fn flunder(name: &str, spec: &str) -> String {
    format!("{{apiVersion: wardle.example.com/v1alpha1, kind: Flunder, metadata: {{name: {name}}}, spec: {spec}}}")
}

/// Conformance: [sig-api-machinery] Aggregator Should be able to support the 1.17 Sample API Server using the current Aggregator [LinuxOnly] [Conformance]
#[test]
#[ignore = "needs Go, upstream's libraries and etcd: `cargo xtask clients`"]
fn upstreams_generic_server_by_aggregation() {
    let mut sample = Sample::start();
    objects(&sample.cluster, &sample);
    documents(&sample.cluster);
    users(&sample.cluster, &sample);
    admission(&sample.cluster, &sample);
    controllers(&sample.cluster);
    ends_and_begins(&mut sample);
}

/// Every verb by kubectl.
fn objects(c: &Cluster, sample: &Sample) {
    sample.create("", &flunder("one", "{reference: two}"), 0, "flunder.wardle.example.com/one created");
    sample.create(
        "",
        &flunder("one", "{}"),
        1,
        r#"(AlreadyExists): error when creating "STDIN": flunders.wardle.example.com "one" already exists"#,
    );
    sample.create(
        "",
        &flunder("bad", "{reference: nothing}"),
        1,
        "spec.reference: Invalid value: \"nothing\": must be something",
    );
    sample.create("", &flunder("bad", "{referense: two}"), 1, "unknown field \"spec.referense\"");
    // Who it was made by is what the request header says.
    assert_eq!(c.k("get flunder one -o jsonpath={.status.seen}"), "kubernetes-admin");
    assert!(c.k("get flunders").starts_with("NAME   CREATED AT\none "), "{}", c.k("get flunders"));
    let watch = c.background("get flunders -w -o name");
    watch.line("flunder.wardle.example.com/one");
    c.k_with("apply -f -", &flunder("two", "{reference: one}"));
    watch.line("flunder.wardle.example.com/two");
    let changed = c.try_k_with("apply -f -", &flunder("two", "{reference: three}"));
    assert!(changed.code == Some(0) && changed.stderr.contains("Warning: flunders do not like to be changed"), "{changed:?}");
    c.k_with("apply --server-side --field-manager=a -f -", &flunder("three", "{reference: a}"));
    let conflict = c.try_k_with("apply --server-side --field-manager=b -f -", &flunder("three", "{reference: b}"));
    assert!(conflict.stderr.contains("Apply failed with 1 conflict: conflict with \"a\": .spec.reference"), "{conflict:?}");
    c.k("patch flunder three --subresource=status --type=merge -p {\"status\":{\"seen\":\"me\"},\"spec\":{\"reference\":\"x\"}}");
    assert_eq!(c.k("get flunder three -o jsonpath={.status.seen},{.spec.reference}"), "me,a");
    c.k("label flunders --all swims=yes");
    assert_eq!(c.k("get flunders -l swims=yes --field-selector metadata.name=two -o name"), "flunder.wardle.example.com/two\n");
    assert_eq!(c.k("get flunders --chunk-size=1 -o name").lines().count(), 3);
    c.k("delete flunder two");
    assert_eq!(c.k("get flunders -o name").lines().count(), 2);
}

/// Discovery and OpenAPI, merged.
fn documents(c: &Cluster) {
    let resources = c.k("api-resources --no-headers");
    let line = resources.lines().find(|line| line.contains("wardle.example.com")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["flunders", "wardle.example.com/v1alpha1", "true", "Flunder"]);
    assert!(resources.lines().any(|line| line.starts_with("deployments ")), "{resources}");
    eventually("its document is published", || {
        c.try_kubectl(&["explain", "flunder.spec.reference"]).stdout.contains("The name of another Flunder").then_some(())
    });
    let v2: serde_json::Value = serde_json::from_str(&c.k("get --raw /openapi/v2")).unwrap();
    let kind = &v2["definitions"]["com.example.wardle.v1alpha1.Flunder"]["x-kubernetes-group-version-kind"][0];
    assert_eq!((&kind["group"], &kind["kind"]), (&"wardle.example.com".into(), &"Flunder".into()));
    assert!(v2["paths"]["/apis/wardle.example.com/v1alpha1/namespaces/{namespace}/flunders/{name}/status"].is_object());
    // What both tell of is ours.
    assert!(v2["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
    assert!(v2["paths"]["/api/v1/pods"].is_object());
}

/// Users are those whom the cluster's API server knows, and their rights are its own.
fn users(c: &Cluster, sample: &Sample) {
    let as_erik = "--validate=false --as=erik --as-group=sailors";
    let forbidden =
        r#"User "erik" cannot create resource "flunders" in API group "wardle.example.com" in the namespace "default""#;
    sample.create(as_erik, &flunder("erik", "{}"), 1, forbidden);
    c.k("create role flunders --verb=create,get --resource=flunders.wardle.example.com");
    c.k("create rolebinding flunders --role=flunders --group=sailors --serviceaccount=default:sailor");
    sample.create(as_erik, &flunder("erik", "{}"), 0, "created");
    assert_eq!(c.k("get flunder erik -o jsonpath={.status.seen}"), "erik");

    // Asked without the cluster's API server in between: it asks that one who a token is (TokenReview) and what they may (SubjectAccessReview).
    c.k("create serviceaccount sailor");
    c.k("create serviceaccount stranger");
    let token = |account: &str| c.k(&format!("create token {account}")).trim().to_owned();
    let direct = |headers: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--cacert"]).arg(c.scratch().join("ca.crt"));
        curl.args(headers.iter().flat_map(|header| ["-H", *header]));
        let output = curl.arg(format!("https://{NODE_ADDRESS}:8443{FLUNDERS}/erik")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let sailor = direct(&[&format!("Authorization: Bearer {}", token("sailor"))]);
    assert!(sailor.contains(r#""seen": "erik""#), "{sailor}");
    let stranger = direct(&[&format!("Authorization: Bearer {}", token("stranger"))]);
    assert!(
        stranger.contains(r#"User \"system:serviceaccount:default:stranger\" cannot get resource \"flunders\""#),
        "{stranger}"
    );
    // Who has not the front proxy's certificate is nobody, whatever they say.
    let forged = direct(&["X-Remote-User: kubernetes-admin", "X-Remote-Group: system:masters"]);
    assert!(forged.contains(r#"User \"system:anonymous\" cannot get resource"#), "{forged}");
    assert!(direct(&["Authorization: Bearer x"]).contains(r#""code": 401"#));
}

/// Its admission looks at the cluster's namespaces and policies.
fn admission(c: &Cluster, sample: &Sample) {
    sample.create("-n nowhere", &flunder("lost", "{}"), 1, "namespaces \"nowhere\" not found");
    c.k_with("apply -f -", POLICY);
    eventually("the policy is in force", || {
        let outcome = c.try_k_with("create --dry-run=server -f -", &flunder("secret", "{reference: secret}"));
        outcome
            .stderr
            .contains("ValidatingAdmissionPolicy 'flunders' with binding 'flunders' denied request: secrets are not referred to")
            .then_some(())
    });
}

/// The garbage collector and the end of a namespace reach its objects.
fn controllers(c: &Cluster) {
    let owned = |kind: &str, owner: &str, version: &str, name: &str| {
        let uid = c.k(&format!("get {owner} -o jsonpath={{.metadata.uid}}"));
        let (owner_kind, owner_name) = owner.split_once('/').unwrap();
        format!(
            "{{apiVersion: {kind}, metadata: {{name: {name}, ownerReferences: [{{apiVersion: {version}, kind: {owner_kind}, name: {owner_name}, uid: {uid}}}]}}}}"
        )
    };
    c.k("create configmap owner");
    c.k_with("create -f -", &flunder("owner", "{}"));
    c.k_with("create -f -", &owned("v1, kind: ConfigMap", "Flunder/owner", "wardle.example.com/v1alpha1", "owned"));
    c.k_with("create -f -", &owned("wardle.example.com/v1alpha1, kind: Flunder", "ConfigMap/owner", "v1", "owned"));
    c.k("delete configmap/owner flunder/owner");
    c.k("wait --for=delete configmap/owned flunder/owned --timeout=50s");
    c.k("create namespace sea");
    c.k_with("create -n sea -f -", &flunder("deep", "{}"));
    c.k("delete namespace sea --timeout=50s");
    assert_eq!(c.k("get flunders -A --field-selector metadata.namespace=sea -o name"), "");
}

/// It ends and begins again, and so does the cluster's API server.
fn ends_and_begins(sample: &mut Sample) {
    sample.cluster.k("create namespace held");
    sample.cluster.k_with("create -n held -f -", &flunder("held", "{}"));
    sample.server = None;
    sample.is_available("false");
    let c = &mut sample.cluster;
    let gone = c.try_kubectl(&["get", "--raw", FLUNDERS]);
    assert!(gone.stderr.contains("the server is currently unable to handle the request"), "{gone:?}");
    assert!(c.try_kubectl(&["api-resources", "--no-headers"]).stdout.contains("deployments"));
    c.k("delete namespace held --wait=false");
    c.k("wait --for=condition=NamespaceDeletionDiscoveryFailure namespace/held --timeout=50s");
    c.kill_server();
    c.start_server();
    assert!(c.k("get nodes -o name").starts_with("node/"), "its own kinds need nobody else");
    sample.serve();
    sample.is_available("true");
    let c = &sample.cluster;
    assert_eq!(c.k("get flunder one -o jsonpath={.spec.reference}"), "two");
    c.k("wait --for=delete namespace/held --timeout=60s");
}
