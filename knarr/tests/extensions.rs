//! What others add to the API, on a real cluster: an operator by kopf with its webhooks, a webhook that converts, a server of a kind
//! of its own, and policies, with what the audit log says of it all.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base::tls::{Authority, Request};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use testing::{Background, Cluster, eventually, programs};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const OPERATOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/extensions/shipyard.py");
const SERVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/extensions/servers.py");
/// Where the cluster's services find a server of the test.
const NODE_ADDRESS: &str = "192.168.77.1";

const SHIPS: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ships.sea.example.com}
spec:
  group: sea.example.com
  scope: Namespaced
  names: {kind: Ship, plural: ships, singular: ship, shortNames: [sh]}
  versions:
    - name: v1
      served: true
      storage: true
      subresources: {status: {}}
      additionalPrinterColumns: [{name: Captain, type: string, jsonPath: .spec.captain}]
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              required: [captain]
              properties: {captain: {type: string}, sails: {type: integer, default: 1}}
            status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"#;

/// The rights that kopf's documentation asks for, with those on what this operator makes.
const RIGHTS: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: shipyard, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: shipyard}
rules:
  - {apiGroups: [apiextensions.k8s.io], resources: [customresourcedefinitions], verbs: [list, watch]}
  - {apiGroups: [""], resources: [namespaces], verbs: [list, watch]}
  - {apiGroups: [admissionregistration.k8s.io], resources: [validatingwebhookconfigurations, mutatingwebhookconfigurations], verbs: [create, patch]}
  - {apiGroups: [""], resources: [events], verbs: [create]}
  - {apiGroups: [sea.example.com], resources: [ships, ships/status], verbs: [list, watch, patch]}
  - {apiGroups: [""], resources: [configmaps], verbs: [create, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: shipyard}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: shipyard}
subjects: [{kind: ServiceAccount, name: shipyard, namespace: default}]
"#;

/// Writes a server's certificate for these names, with its authority, and returns that.
fn certificates(directory: &Path, names: &[&str]) -> Authority {
    let authority = Authority::in_memory("hooks").unwrap();
    let sans = names.iter().map(|name| (*name).to_owned()).collect();
    let identity = authority.issue(&Request::Server { name: names[0].to_owned(), sans }).unwrap();
    fs::write(directory.join("ca.crt"), authority.bundle()).unwrap();
    fs::write(directory.join("hook.crt"), identity.certificate).unwrap();
    fs::write(directory.join("hook.key"), identity.key).unwrap();
    authority
}

/// A kubeconfig with the token of a ServiceAccount.
fn kubeconfig_of(c: &Cluster, account: &str) -> PathBuf {
    let path = c.scratch().join(format!("{account}.kubeconfig"));
    fs::copy(c.kubeconfig(), &path).unwrap();
    let token = c.k(&format!("create token {account}"));
    let file = path.display();
    c.k(&format!("config --kubeconfig {file} set-credentials {account} --token {}", token.trim()));
    c.k(&format!("config --kubeconfig {file} set-context --current --user {account}"));
    path
}

fn python(c: &Cluster, line: &str) -> Command {
    let mut command = c.patient_command(Path::new("sh"));
    command.args(["-c", &format!("exec {} -u {line} 2>&1", programs::python().display())]).env("CERTIFICATES", c.scratch());
    command
}

fn operator(c: &Cluster) -> Background {
    let mut command = python(c, &format!("-m kopf run --standalone --all-namespaces --verbose {OPERATOR}"));
    Background::spawn(command.env("KUBECONFIG", kubeconfig_of(c, "shipyard")))
}

fn ship(name: &str, spec: &str) -> String {
    format!("{{apiVersion: sea.example.com/v1, kind: Ship, metadata: {{name: {name}}}, spec: {spec}}}")
}

/// Waits until a field has a value.
fn shows(c: &Cluster, what: &str, path: &str, value: &str) {
    c.k(&format!("wait --for=jsonpath={{{path}}}={value} {what} --timeout=50s"));
}

#[test]
fn an_operator_with_kopf() {
    let mut c = Cluster::start(KNARR);
    certificates(c.scratch(), &["127.0.0.1"]);
    c.k_with("apply -f -", SHIPS);
    c.k_with("apply -f -", RIGHTS);
    c.k("wait --for=condition=Established crd/ships.sea.example.com --timeout=20s");
    c.k("create configmap log");
    let running = operator(&c);
    let pid = running.line("PID ").split_whitespace().last().unwrap().parse().unwrap();
    eventually("the operator registers its webhooks", || {
        let hooks = |kind: &str| c.try_kubectl(&["get", kind, "auto.sea.example.com", "-o", "jsonpath={.webhooks[*].name}"]);
        ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"]
            .iter()
            .all(|kind| !hooks(kind).stdout.is_empty())
            .then_some(())
    });

    // Completed by a webhook before the schema is asked, which wants a captain.
    c.k_with("create -f -", &ship("snek", "{sails: 3}"));
    assert!(c.k("get ship snek").contains("leif"));
    let ordered = c.k(r"get ship snek -o jsonpath={.metadata.annotations.sea\.example\.com/ordered-by}");
    assert_eq!(ordered, "kubernetes-admin");
    shows(&c, "ship/snek", ".status.build.crew", "snek-crew");
    shows(&c, "ship/snek", ".status.sails", "3");
    assert_eq!(c.k("get configmap snek-crew -o jsonpath={.metadata.ownerReferences[0].name}"), "snek");

    // Checked by another, which also warns.
    let many = c.try_k_with("create -f -", &ship("dragon", "{sails: 9}"));
    assert_eq!(many.code, Some(1));
    assert!(many.stderr.contains("denied the request: 9 sails are too many"), "{}", many.stderr);
    let patch = |patch: &str| c.try_kubectl(&["patch", "ship", "snek", "--type=merge", "-p", patch]);
    let warned = patch(r#"{"spec": {"sails": 7}}"#);
    assert_eq!(warned.code, Some(0), "{warned:?}");
    assert!(warned.stderr.contains("Warning: a ship with so many sails is slow to turn"), "{}", warned.stderr);
    shows(&c, "ship/snek", ".status.sails", "7");
    let mutiny = patch(r#"{"spec": {"captain": "erik"}}"#);
    assert!(mutiny.stderr.contains("a captain stays"), "{mutiny:?}");
    c.told("--field-selector involvedObject.name=snek", &["7 sails are set"]);

    // The server dies; the operator's watches begin again.
    c.kill_server();
    c.start_server();
    c.k_with("create -f -", &ship("karve", "{captain: freydis}"));
    shows(&c, "ship/karve", ".status.build.crew", "karve-crew");

    // The operator dies; a ship whose end it must see waits, and webhooks that must be asked keep others out.
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    drop(running);
    c.k("delete ship snek --wait=false");
    let refused = c.try_k_with("create -f -", &ship("coracle", "{captain: leif}"));
    assert!(refused.stderr.contains("failed calling webhook"), "{}", refused.stderr);
    assert_eq!(c.k("get ship snek -o jsonpath={.metadata.finalizers[*]}"), "kopf.zalando.org/KopfFinalizerMarker");
    let again = operator(&c);
    c.k("wait --for=delete ship/snek --timeout=50s");
    assert_eq!(c.k("get configmap log -o jsonpath={.data.snek}"), "sunk");
    again.line("RESUMED karve");
    c.k("wait --for=delete configmap/snek-crew --timeout=50s");
    c.told("", &["snek is in the log"]);
}

const AUDIT: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: Metadata, resources: [{group: "", resources: [secrets]}], verbs: [create]}
  - {level: RequestResponse, resources: [{group: harbour.example.com}]}
  - {level: None}
"#;

const SERVICE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: harbour}
spec: {ports: [{name: hooks, port: 443, targetPort: 9444}, {name: api, port: 444, targetPort: 9445}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: harbour, labels: {kubernetes.io/service-name: harbour}}
addressType: IPv4
ports: [{name: hooks, port: 9444}, {name: api, port: 9445}]
endpoints: [{addresses: [192.168.77.1]}]
"#;

/// A cluster whose service `harbour` leads to the test's servers.
struct Harbour {
    cluster: Cluster,
    bundle: String,
    _servers: Background,
}

impl Harbour {
    fn start() -> Self {
        let mut cluster = Cluster::prepare(KNARR);
        fs::write(cluster.scratch().join("audit.yaml"), AUDIT).unwrap();
        let policy = cluster.scratch().join("audit.yaml").display().to_string();
        let log = cluster.data_dir().join("audit.log").display().to_string();
        cluster.start_server_with(&["--audit-policy-file", &policy, "--audit-log-path", &log]);
        let authority = certificates(cluster.scratch(), &["harbour.default.svc", NODE_ADDRESS]);
        let front_proxy = eventually("who vouches for users", || {
            let map = ["get", "configmap", "extension-apiserver-authentication", "-n", "kube-system", "-o"];
            let map = map.into_iter().chain([r"jsonpath={.data.requestheader-client-ca-file}"]).collect::<Vec<_>>();
            Some(cluster.try_kubectl(&map).stdout).filter(|bundle| !bundle.is_empty())
        });
        fs::write(cluster.scratch().join("front-proxy.crt"), front_proxy).unwrap();
        let servers = Background::spawn(&mut python(&cluster, SERVERS));
        servers.line("LISTENING");
        cluster.k_with("apply -f -", SERVICE);
        let bundle = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, authority.bundle());
        Self { cluster, bundle, _servers: servers }
    }

    /// The lines of the audit log.
    fn audited(&self) -> Vec<Value> {
        let path = self.cluster.machine().path(&self.cluster.data_dir().join("audit.log"));
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn servers_beside_the_api() {
    let harbour = Harbour::start();
    converts(&harbour);
    serves_its_own_kind(&harbour);
    is_audited(&harbour);
}

/// Ships have two versions; a webhook behind the service converts them.
fn converts(harbour: &Harbour) {
    let c = &harbour.cluster;
    let second = "    - name: v2
      served: true
      storage: false
      schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {captain: {type: string}, rig: {type: object, properties: {sails: {type: integer}}}}}}}}
";
    let conversion = format!(
        "  conversion: {{strategy: Webhook, webhook: {{conversionReviewVersions: [v1], clientConfig: {{caBundle: {}, service: {{name: harbour, namespace: default, path: /convert}}}}}}}}\n",
        harbour.bundle
    );
    c.k_with("apply -f -", &format!("{SHIPS}{second}{conversion}"));
    c.k("wait --for=condition=Established crd/ships.sea.example.com --timeout=20s");
    eventually("both versions are served", || {
        c.k("api-versions").lines().any(|version| version == "sea.example.com/v2").then_some(())
    });
    c.k_with("create -f -", &ship("snek", "{captain: leif, sails: 3}"));
    assert_eq!(c.k("get ships.v2.sea.example.com snek -o jsonpath={.spec.rig.sails}"), "3");
    let second = ship("karve", "{captain: erik, rig: {sails: 5}}").replace("com/v1", "com/v2");
    c.k_with("apply -f -", &second);
    c.k_with("apply -f -", &second.replace("sails: 5", "sails: 6"));
    assert_eq!(c.k("get ships.v1.sea.example.com -o jsonpath={.items[*].spec.sails}"), "6 3");
    assert_eq!(c.k("get ships.v2.sea.example.com -o jsonpath={.items[*].spec.rig.sails}"), "6 3");
}

/// Berths are served by another server, under the names of those whom RBAC lets through.
fn serves_its_own_kind(harbour: &Harbour) {
    let c = &harbour.cluster;
    let service = format!(
        "{{apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {{name: v1.harbour.example.com}}, spec: {{group: harbour.example.com, version: v1, groupPriorityMinimum: 1000, versionPriority: 10, caBundle: {}, service: {{name: harbour, namespace: default, port: 444}}}}}}",
        harbour.bundle
    );
    c.k_with("apply -f -", &service);
    c.k("wait --for=condition=Available apiservice/v1.harbour.example.com --timeout=30s");
    eventually("its kind is in the merged discovery", || {
        c.k("api-resources --api-group=harbour.example.com --no-headers").contains("Berth").then_some(())
    });
    assert!(c.k("api-resources --api-group=apps -o name").contains("deployments.apps"), "others are there, too");

    let berth = |name: &str| {
        format!("{{apiVersion: harbour.example.com/v1, kind: Berth, metadata: {{name: {name}}}, spec: {{quay: north}}}}")
    };
    c.k_with("create -f -", &berth("one"));
    let table = c.k("get berths");
    assert_eq!(table.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(), ["NAME", "QUAY", "OWNER"]);
    assert!(table.contains("one") && table.contains("kubernetes-admin of "), "{table}");
    let watch = c.background("get be -w -o name");
    watch.line("berth.harbour.example.com/one");

    let refused = c.try_k_with("create --validate=false --as=erik --as-group=sailors -f -", &berth("two"));
    assert!(
        refused.stderr.contains(r#"User "erik" cannot create resource "berths" in API group "harbour.example.com""#),
        "{refused:?}"
    );
    c.k("create clusterrole berths --verb=create,get,list --resource=berths.harbour.example.com");
    c.k("create clusterrolebinding berths --clusterrole=berths --group=sailors");
    c.k_with("create --validate=false --as=erik --as-group=sailors -f -", &berth("two"));
    watch.line("berth.harbour.example.com/two");
    assert_eq!(c.k("get berth two -o jsonpath={.owner}"), "erik of sailors, system:authenticated");
    assert_eq!(
        c.try_kubectl(&["get", "berth", "three"]).stderr,
        "Error from server (NotFound): berths.harbour.example.com \"three\" not found\n"
    );
    c.k("delete berth one");
    assert_eq!(c.k("get berths -o name"), "berth.harbour.example.com/two\n");

    // Who is not the API server is not believed.
    let stranger = testing::http::get(&format!("{NODE_ADDRESS}:9445"), "/apis/harbour.example.com/v1");
    assert!(stranger.is_err() || !stranger.unwrap().contains("Berth"));
}

/// The audit log has what the policy asks for, and no more.
fn is_audited(harbour: &Harbour) {
    let c = &harbour.cluster;
    c.k("create secret generic map --from-literal=treasure=island");
    let creations = |resource: &str| -> Vec<Value> {
        let all = harbour.audited().into_iter();
        all.filter(|event| event["verb"] == "create" && event["objectRef"]["resource"] == resource).collect()
    };
    // It is written when the answer has gone out.
    let map = eventually("the Secret's creation is in the log", || {
        creations("secrets").into_iter().find(|event| event["objectRef"]["name"] == "map")
    });
    assert_eq!(
        (&map["level"], &map["stage"], &map["requestObject"]),
        (&"Metadata".into(), &"ResponseComplete".into(), &Value::Null)
    );
    assert_eq!(map["user"]["username"], "kubernetes-admin");
    assert!(harbour.audited().iter().all(|event| !event.to_string().contains("aXNsYW5k")), "no Secret's content is in the log");
    let berths = creations("berths");
    let of_erik: Vec<_> = berths.iter().filter(|event| event["impersonatedUser"]["username"] == "erik").collect();
    assert_eq!(of_erik.len(), 2, "{berths:?}");
    assert_eq!(of_erik[0]["responseStatus"]["code"], 403);
    // Bodies that are passed on are told by who decodes them, as upstream's.
    assert_eq!((&of_erik[1]["requestObject"], &of_erik[1]["responseStatus"]["code"]), (&Value::Null, &201.into()));
    assert!(harbour.audited().iter().all(|event| event["objectRef"]["resource"] != "ships"), "nothing of what is not asked for");
}

/// Policies with parameters: one that refuses what its namespace's parameters do not allow, one that adds what they say.
const POLICIES: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: replicas}
spec:
  failurePolicy: Fail
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints:
    resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments, deployments/scale]}]
  variables: [{name: most, expression: "int(params.data.most)"}]
  validations:
    - {expression: "object.spec.replicas <= variables.most", messageExpression: "'at most ' + string(variables.most) + ' replicas'", reason: Forbidden}
  auditAnnotations: [{key: most, valueExpression: "string(variables.most)"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: replicas}
spec:
  policyName: replicas
  validationActions: [Deny]
  paramRef: {name: limits, parameterNotFoundAction: Deny}
  matchResources: {namespaceSelector: {matchLabels: {limited: "yes"}}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: team}
spec:
  paramKind: {apiVersion: v1, kind: ConfigMap}
  reinvocationPolicy: Never
  matchConstraints:
    resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments]}]
  mutations:
    - patchType: ApplyConfiguration
      applyConfiguration: {expression: "Object{metadata: Object.metadata{labels: {'team': params.data.team}}}"}
    - patchType: JSONPatch
      jsonPatch: {expression: "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/by'), value: 'policy'}]"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: team}
spec:
  policyName: team
  paramRef: {name: limits, parameterNotFoundAction: Allow}
"#;

/// Conformance: [sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should validate against a Deployment [Conformance]
#[test]
fn policies_with_parameters() {
    let c = Cluster::start(KNARR);
    c.k_with("apply -f -", POLICIES);
    c.k("create namespace bay");
    c.k("label namespace bay limited=yes");
    let create = |namespace: &str, replicas: u32| {
        c.try_kubectl(&[
            "create",
            "deployment",
            &format!("web-{replicas}"),
            "-n",
            namespace,
            "--image=127.0.0.1:5000/busybox:1.36",
            &format!("--replicas={replicas}"),
        ])
    };
    // Policies and bindings are in force once they are stored; parameters that are missing deny.
    let denied = create("bay", 1);
    assert!(
        denied.stderr.contains("no params found for policy binding with `Deny` parameterNotFoundAction"),
        "{}",
        denied.stderr
    );
    assert_eq!(create("default", 9).code, Some(0), "the binding is for labelled namespaces");
    c.k("create configmap limits -n bay --from-literal=most=2 --from-literal=team=rowers");
    assert_eq!(create("bay", 2).code, Some(0));
    let denied = create("bay", 3);
    assert!(
        denied.stderr.contains("ValidatingAdmissionPolicy 'replicas' with binding 'replicas' denied request: at most 2 replicas"),
        "{}",
        denied.stderr
    );
    let scaled = c.try_kubectl(&["scale", "deployment/web-2", "-n", "bay", "--replicas=5"]);
    assert!(scaled.stderr.contains("at most 2 replicas"), "{}", scaled.stderr);
    c.kubectl(&["patch", "configmap", "limits", "-n", "bay", "-p", r#"{"data": {"most": "5"}}"#]);
    c.k("scale deployment/web-2 -n bay --replicas=5");

    let labels = |path: &str| c.k(&format!("get {path} -o jsonpath={{.metadata.labels}}"));
    let made: Value = serde_json::from_str(&labels("deployment web-2 -n bay")).unwrap();
    assert_eq!((&made["team"], &made["example.com/by"]), (&"rowers".into(), &"policy".into()), "{made}");
    let other: Value = serde_json::from_str(&labels("deployment web-9")).unwrap();
    assert_eq!(other["team"], Value::Null, "{other}");
}
