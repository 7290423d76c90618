//! The built-in client (`knarr get`, `apply`, `exec`...) on real containers. What both print, kubectl 1.36 prints, too.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};

use testing::{Background, Cluster, Outcome, eventually, eventually_or};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const NGINX: &str = "127.0.0.1:5000/nginx:1.27";
const NEWER: &str = "127.0.0.1:5000/nginx:1.28";
const BUSYBOX: &str = "127.0.0.1:5000/busybox:1.36";

const MAP: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: m}, data: {key: one}}";
const SHIPS: &str = "
apiVersion: example.com/v1
kind: Ship
metadata: {name: knarr}
spec: {crew: 12}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ships.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Ship, plural: ships, singular: ship, shortNames: [sh], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns: [{name: Crew, type: integer, jsonPath: .spec.crew}]
    schema:
      openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {crew: {type: integer}}}}}
";

/// The client of a cluster.
struct Client<'c>(&'c Cluster);

impl Client<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.0.client_command(Path::new(KNARR));
        command.args(arguments);
        command
    }

    fn attempt(&self, line: &str) -> Outcome {
        self.attempt_all(&line.split_whitespace().collect::<Vec<_>>())
    }

    fn attempt_all(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(arguments))
    }

    fn run(&self, line: &str) -> String {
        self.run_all(&line.split_whitespace().collect::<Vec<_>>())
    }

    fn run_all(&self, arguments: &[&str]) -> String {
        let outcome = self.attempt_all(arguments);
        assert_eq!(outcome.code, Some(0), "knarr {arguments:?}: {outcome:?}");
        outcome.stdout
    }

    fn attempt_with(&self, line: &str, input: &str) -> Outcome {
        let path = self.0.scratch().join("client-input");
        std::fs::write(&path, input).unwrap();
        let mut command = self.command(&line.split_whitespace().collect::<Vec<_>>());
        Outcome::of(command.stdin(std::fs::File::open(path).unwrap()))
    }

    fn run_with(&self, line: &str, input: &str) -> String {
        let outcome = self.attempt_with(line, input);
        assert_eq!(outcome.code, Some(0), "knarr {line}: {outcome:?}");
        outcome.stdout
    }

    fn background(&self, line: &str) -> Background {
        Background::spawn(&mut self.command(&line.split_whitespace().collect::<Vec<_>>()))
    }

    /// Fails with this on standard error, and exit code 1.
    fn refused(&self, line: &str, told: &str) {
        let outcome = self.attempt(line);
        assert!(outcome.code == Some(1) && outcome.stderr.contains(told), "knarr {line}: {told:?} is not in {outcome:?}");
    }

    /// kubectl prints the same. Ages may pass a second in between.
    fn as_kubectl(&self, line: &str) {
        eventually_or(&format!("knarr {line} prints what kubectl prints"), || {
            let (ours, theirs) = (self.attempt(line), self.0.try_kubectl(&line.split_whitespace().collect::<Vec<_>>()));
            let same = (ours.code, &ours.stdout, &ours.stderr) == (theirs.code, &theirs.stdout, &theirs.stderr);
            if same { Ok(()) } else { Err(format!("{ours:#?}\n{theirs:#?}")) }
        });
    }
}

fn deployment(image: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web, labels: {{app: web}}}}, spec: {{replicas: 2,
        selector: {{matchLabels: {{app: web}}}}, template: {{metadata: {{labels: {{app: web}}}},
        spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: nginx, image: '{image}', ports: [{{name: http, containerPort: 80}}]}}]}}}}}}}}"
    )
}

fn talking(name: &str, script: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{terminationGracePeriodSeconds: 0,
        containers: [{{name: main, image: '{BUSYBOX}', command: [sh, -c, {script:?}]}}, {{name: side, image: '{BUSYBOX}', command: [sh, -c, 'echo aside; exec sleep 1000']}}]}}}}"
    )
}

/// One cluster for all: each case leaves what the next one looks at.
#[test]
fn a_person_with_nothing_but_knarr() {
    let cluster = Cluster::start(KNARR);
    let c = Client(&cluster);
    objects_are_applied(&c);
    custom_resources_come_with_their_definition(&c);
    workloads_are_rolled_out(&c);
    objects_are_shown(&c);
    containers_are_talked_to(&c);
    terminals_are_passed_on(&c);
    ports_are_forwarded(&c);
    objects_are_marked_and_deleted(&c);
    what_cannot_be_done_is_told(&c);
}

fn objects_are_applied(c: &Client<'_>) {
    assert_eq!(c.run_with("apply -f - --dry-run=server", MAP), "configmap/m created (server dry run)\n");
    assert_eq!(c.run_with("apply -f -", MAP), "configmap/m created\n");
    assert_eq!(c.run_with("apply -f -", MAP), "configmap/m unchanged\n");
    assert_eq!(c.run_with("apply -f -", &MAP.replace("one", "two")), "configmap/m configured\n");
    assert_eq!(
        c.run("get configmap m -o jsonpath={.metadata.managedFields[0].manager}/{.data.key} --show-managed-fields"),
        "knarr/two"
    );

    let manifest = MAP.replace("one", "three");
    let conflict = c.attempt_with("apply -f - --field-manager=other", &manifest);
    let told = ["conflict with \"knarr\"", ".data.key", "--force-conflicts"];
    assert!(conflict.code == Some(1) && told.iter().all(|part| conflict.stderr.contains(part)), "{conflict:?}");
    assert_eq!(c.run_with("apply -f - --field-manager=other --force-conflicts", &manifest), "configmap/m configured\n");

    let again = c.attempt_with("create -f -", MAP);
    assert_eq!(
        again.stderr,
        "Error from server (AlreadyExists): error when creating \"STDIN\": configmaps \"m\" already exists\n"
    );
    // Several documents in a directory: what can be applied is, and a failure is told.
    let directory = c.0.scratch().join("manifests");
    std::fs::create_dir_all(&directory).unwrap();
    let object = |kind: &str, name: &str| format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: fleet}}\n");
    std::fs::write(directory.join("a.yaml"), object("ConfigMap", "a") + "---\n" + &object("Nonsense", "b")).unwrap();
    std::fs::write(directory.join("b.json"), r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fleet"}}"#)
        .unwrap();
    let applied = c.attempt(&format!("apply -f {}", directory.display()));
    assert_eq!(
        (applied.code, applied.stdout.as_str()),
        (Some(1), "namespace/fleet created\nconfigmap/a created\n"),
        "{applied:?}"
    );
    assert!(applied.stderr.contains("no matches for kind \"Nonsense\" in version \"v1\""), "{applied:?}");
    let unknown = c.attempt_with("apply -f -", &MAP.replace(" data:", " date:"));
    assert!(unknown.code == Some(1) && unknown.stderr.contains(".date: field not declared in schema"), "{unknown:?}");
}

fn custom_resources_come_with_their_definition(c: &Client<'_>) {
    let applied = c.run_with("apply -f -", SHIPS);
    assert_eq!(
        applied,
        "customresourcedefinition.apiextensions.k8s.io/ships.example.com created\nship.example.com/knarr created\n"
    );
    for name in ["ships", "ship", "sh", "Ship", "ships.example.com", "ships.v1.example.com"] {
        assert_eq!(
            c.run(&format!("get {name} knarr --no-headers")).split_whitespace().take(2).collect::<Vec<_>>(),
            ["knarr", "12"]
        );
    }
    c.as_kubectl("get ships");
    let described = c.run("describe ship knarr");
    assert!(described.contains("API Version:") && described.contains("  Crew:  12"), "{described}");
    assert_eq!(c.run("delete sh/knarr"), "ship.example.com \"knarr\" deleted from default namespace\n");
}

fn workloads_are_rolled_out(c: &Client<'_>) {
    c.run_with("apply -f -", &deployment(NGINX));
    assert!(c.run("rollout status deployment/web --timeout=60s").ends_with("deployment \"web\" successfully rolled out\n"));
    assert_eq!(c.run("wait --for=condition=Available deployment/web --timeout=60s"), "deployment.apps/web condition met\n");
    assert_eq!(c.run("scale deploy/web --replicas=3"), "deployment.apps/web scaled\n");
    assert_eq!(
        c.run("wait --for=jsonpath={.status.readyReplicas}=3 deploy web --timeout=60s"),
        "deployment.apps/web condition met\n"
    );
    let fewer = c.attempt("scale deploy/web --replicas=1 --current-replicas=2");
    assert_eq!((fewer.code, fewer.stderr.as_str()), (Some(1), "error: expected replicas to be 2, was 3\n"));

    c.run_with("apply -f - --force-conflicts", &deployment(NEWER));
    c.run("rollout status deploy/web --timeout=60s");
    assert_eq!(c.run("rollout restart deploy/web"), "deployment.apps/web restarted\n");
    c.run("rollout status deploy/web --timeout=60s");
    c.as_kubectl("rollout history deployment/web");
    assert_eq!(c.run("rollout undo deployment/web --to-revision=1"), "deployment.apps/web rolled back\n");
    assert_eq!(c.run("get deploy web -o jsonpath={.spec.template.spec.containers[0].image}"), NGINX);
    c.run("rollout status deploy/web --timeout=60s");
    c.refused("rollout undo deployment/web --to-revision=99", "error: unable to find specified revision 99 in history");
    c.refused("rollout status service/kubernetes", "error: no status viewer has been implemented for Service");
    c.as_kubectl("rollout status deployment/web");
}

fn objects_are_shown(c: &Client<'_>) {
    c.run("wait --for=delete pod -l app=web,gone --timeout=60s");
    eventually("two pods are left", || (c.run("get pods -l app=web -o name").lines().count() == 2).then_some(()));
    for line in [
        "get pods",
        "get po -o wide",
        "get pods -A",
        "get pods,services",
        "get all",
        "get deploy/web svc/kubernetes",
        "get pods --show-labels",
        "get nodes -o name",
        "get deployment web -o name",
        "get pods -o name",
        "get pods -l app=none",
        "get pods -n none",
        "get nodes --field-selector=metadata.name=none",
        "get configmap m -o jsonpath={.data}",
        "get services -o jsonpath={range.items[*]}{.metadata.name}:{.spec.ports[0].port};{end}",
        "get deployment web -o json",
        "get configmaps -o json",
        "get pods none",
        "get pods none other",
        "get boats",
        "get pods -o jsonpath={.items[*].status.phase}",
        "get --raw /readyz",
        "get configmaps --sort-by=.metadata.uid",
        "get pods -o name --sort-by={.metadata.uid}",
        "get pods --no-headers",
        "get configmap none --ignore-not-found",
        "get pods,nodes none",
        "get crd",
    ] {
        c.as_kubectl(line);
    }
    let yaml = c.run("get deployment web -o yaml");
    let kubectl = c.0.k("get deployment web -o yaml");
    assert_eq!(yaml.lines().count(), kubectl.lines().count(), "{yaml}\n{kubectl}");
    // What is printed can be applied again.
    assert_eq!(
        c.run_with(
            "apply -f - --dry-run=server --force-conflicts",
            &yaml.replace("  resourceVersion:", "  # ").replace("  uid:", "  # ")
        ),
        "deployment.apps/web unchanged (server dry run)\n"
    );

    let described = c.run("describe deploy web");
    for part in ["Name:", "Progress Deadline Seconds:  600", "Conditions:", "ScalingReplicaSet", "Scaled up replica set"] {
        assert!(described.contains(part), "{part:?} is not in {described}");
    }
    // The beginning of a name is enough.
    let described = c.run("describe pod web-");
    for part in
        ["Container ID:", "State:", "Running", "Restart Count:  0", "QoS Class:", "Ports:", "80/TCP (http)", "Started    "]
    {
        assert!(described.contains(part), "{part:?} is not in {described}");
    }
    assert!(c.run("describe node n1").contains("Allocatable:"));

    let watch = c.background("get configmaps -w --no-headers");
    watch.line("m ");
    c.run_with("create -f -", &MAP.replace("name: m", "name: later"));
    watch.line("later");
    c.run("delete configmap later");
    assert!(c.run("api-resources --api-group=apps").contains("deployments"));
    c.as_kubectl("api-resources --api-group=apps");
    eventually("usage is told", || {
        let top = c.attempt("top pods");
        (top.code == Some(0) && top.stdout.starts_with("NAME") && top.stdout.contains("web-")).then_some(())
    });
    assert!(c.run("top nodes").contains("n1"), "{}", c.run("top nodes"));
}

fn containers_are_talked_to(c: &Client<'_>) {
    c.run_with("apply -f -", &talking("talk", "echo first; echo second; exec sleep 1000"));
    c.run_with("apply -f -", &talking("crash", "echo last words; exit 7"));
    c.run("wait --for=condition=Ready pod/talk --timeout=60s");
    let follow = c.background("logs -f talk");
    follow.line("first");
    follow.line("second");
    let logs = c.attempt("logs talk");
    assert_eq!(
        (logs.stdout.as_str(), logs.stderr.as_str()),
        ("first\nsecond\n", "Defaulted container \"main\" out of: main, side\n")
    );
    assert_eq!(c.run("logs talk -c main --tail=1"), "second\n");
    c.0.logged("talk side", "aside\n");
    assert_eq!(c.run("logs talk side"), "aside\n");
    assert_eq!(c.run("logs -l app=talk --all-containers --prefix --tail=1"), "[pod/talk/main] second\n[pod/talk/side] aside\n");
    assert!(c.run("logs talk --timestamps -c side").contains("Z aside"));
    assert!(c.attempt("logs deployment/web").stderr.contains("Found 2 pods, using pod/web-"));
    c.refused("logs talk -c none", "error: container none is not valid for pod talk");
    c.run("wait --for=jsonpath={.status.containerStatuses[?(@.name==\"main\")].lastState.terminated.exitCode}=7 pod/crash --timeout=60s");
    assert_eq!(c.run("logs -p crash -c main"), "last words\n");
    let described = c.run("describe pod crash");
    assert!(described.contains("Exit Code:") && described.contains("Last State:"), "{described}");

    assert_eq!(c.run_all(&["exec", "talk", "-c", "main", "--", "echo", "a b"]), "a b\n");
    assert_eq!(c.run_with("exec -i talk -c main -- cat", "through\n"), "through\n");
    let failed = c.attempt_all(&["exec", "talk", "-c", "main", "--", "sh", "-c", "echo oops >&2; exit 3"]);
    assert_eq!((failed.code, failed.stderr.as_str()), (Some(3), "oops\ncommand terminated with exit code 3\n"));
    let large = c.run_all(&["exec", "talk", "-c", "main", "--", "sh", "-c", "yes 0123456789 | head -n 100000"]);
    assert_eq!(large.len(), 1_100_000);
    assert!(c.attempt("exec deploy/web -- nginx -v").stderr.contains("nginx version"));
    let missing = c.attempt("exec talk -c main -- no-such-command");
    assert!(missing.code.is_some_and(|code| code != 0) && missing.stderr.contains("no-such-command"), "{missing:?}");
    c.refused("exec none -- true", "Error from server (NotFound): pods \"none\" not found");
}

/// The terminal is given back as it was, whatever ends the session: the command, or a signal.
fn terminals_are_passed_on(c: &Client<'_>) {
    let session = format!("{KNARR} exec -it talk -c main -- sh");
    let script = format!(
        "stty rows 33 cols 77; stty -g > before; {session}; echo code $?; stty -g > after; cmp before after && echo same
        sh -c 'echo $$ > pid; exec {session}'; echo code $?; stty -g > after; cmp before after && echo same again"
    );
    let file = c.0.scratch().join("terminal.sh");
    std::fs::write(&file, script).unwrap();
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--flush", "--command", &format!("sh {}", file.display()), "/dev/null"]);
    let environment = c.command(&[]);
    command.envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "xterm");
    command.current_dir(c.0.scratch()).stdin(Stdio::piped());
    let mut terminal = Background::spawn(&mut command);
    terminal.write("tty; stty size; echo $((6*7))\n");
    terminal.line("/dev/pts/");
    terminal.line("33 77");
    terminal.line("42");
    // ^C goes to the command in the container, and ends neither the shell there nor the client here.
    terminal.write("sleep 2000\n");
    eventually("the command runs", || c.run("exec talk -c main -- ps").contains("sleep 2000").then_some(()));
    terminal.write("\u{3}");
    terminal.write("exit 5\n");
    terminal.line("code 5");
    terminal.line("same");

    terminal.write("echo $((7*7))\n");
    terminal.line("49");
    let pid = std::fs::read_to_string(c.0.scratch().join("pid")).unwrap();
    assert!(Command::new("kill").args(["-TERM", pid.trim()]).status().unwrap().success());
    terminal.line("code 143");
    terminal.line("same again");
}

fn ports_are_forwarded(c: &Client<'_>) {
    let page = |address: &str| testing::http::get(address, "/").unwrap_or_default();
    let forward = c.background("port-forward deployment/web 18080:http");
    forward.line("Forwarding from 127.0.0.1:18080 -> 80");
    for _ in 0..3 {
        assert!(page("127.0.0.1:18080").contains("Welcome to nginx!"));
    }
    c.run_with(
        "apply -f -",
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 81, targetPort: http}]}}",
    );
    let forward = c.background("port-forward svc/web :81");
    let line = forward.line("Forwarding from 127.0.0.1:");
    let address = line.split_whitespace().nth(2).unwrap();
    assert!(page(address).contains("Welcome to nginx!"), "{line}");
    c.refused("port-forward svc/web 90", "error: service/web has no port \"90\"");
}

fn objects_are_marked_and_deleted(c: &Client<'_>) {
    assert_eq!(c.run("label configmap m tier=front"), "configmap/m labeled\n");
    c.refused("label configmap m tier=back", "'tier' already has a value (front), and --overwrite is false");
    assert_eq!(c.run("label configmap m tier=back --overwrite"), "configmap/m labeled\n");
    assert_eq!(c.run("get configmaps -l tier=back -o name"), "configmap/m\n");
    assert_eq!(c.run("annotate configmap m note=x"), "configmap/m annotated\n");
    assert_eq!(c.run("label configmap m tier-"), "configmap/m unlabeled\n");

    // Nothing of a command line is left out in silence.
    c.as_kubectl("label configmap m x=1 n");
    c.as_kubectl("delete configmap m -A");
    c.refused("label configmap m -l a=b x=1", "name cannot be provided when a selector");
    assert_eq!(c.run("get configmaps -l x -o name"), "");

    assert_eq!(c.run("delete configmap m --dry-run=server"), "configmap \"m\" deleted from default namespace (server dry run)\n");
    assert_eq!(c.run("delete configmap m"), "configmap \"m\" deleted from default namespace\n");
    c.as_kubectl("delete configmap m");
    c.as_kubectl("delete configmap m --ignore-not-found");
    c.refused("delete pods", "no name was specified");
    // It waits until they are gone.
    assert_eq!(c.run("delete pod -l app=talk --timeout=60s"), "pod \"talk\" deleted from default namespace\n");
    assert_eq!(c.run("get pods -l app=talk -o name"), "");
    let forced = c.attempt("delete pod crash --force");
    assert!(forced.stdout.contains("force deleted") && forced.stderr.contains("Immediate deletion"), "{forced:?}");
    let deleted = c.run_with(
        "delete -f - --timeout=60s",
        &(deployment(NGINX) + "\n---\n{apiVersion: v1, kind: Service, metadata: {name: web}}"),
    );
    assert_eq!(deleted.lines().count(), 2, "{deleted}");
    assert_eq!(
        c.run("wait --for=delete pod -l app=web --timeout=60s").lines().filter(|line| !line.contains("condition met")).count(),
        0
    );
    c.run("delete namespace fleet --timeout=60s");
    c.refused("get namespace fleet", "Error from server (NotFound): namespaces \"fleet\" not found");
}

fn what_cannot_be_done_is_told(c: &Client<'_>) {
    c.refused("wait --for=condition=Never node/n1 --timeout=200ms", "error: timed out waiting for the condition on nodes/n1");
    c.refused("apply -f https://example.com/x.yaml", "manifests are not fetched");
    c.refused("apply -f none.yaml", "error: the path \"none.yaml\" does not exist");
    for line in ["get pods -o xml", "apply -f x --dry-run=client", "cp a b", "edit pod x", "exec x"] {
        let outcome = c.attempt(line);
        assert!(outcome.code == Some(2) && outcome.stderr.contains("error:"), "{line}: {outcome:?}");
    }
    // Nobody listens there: what to do is told.
    let config = std::fs::read_to_string(c.0.kubeconfig()).unwrap().replace(":6443", ":6444");
    let file = c.0.scratch().join("elsewhere");
    std::fs::write(&file, config).unwrap();
    c.refused(&format!("get pods --kubeconfig {}", file.display()), "knarr status");
    let mut command = c.command(&["get", "pods", "--data-dir", "/nowhere"]);
    let outcome = Outcome::of(command.env_remove("KUBECONFIG"));
    assert!(outcome.code == Some(1) && outcome.stderr.contains("no server has started"), "{outcome:?}");
    c.refused("get pods --context none", "none");
    assert!(c.run("completion bash").contains("_knarr"));
}
