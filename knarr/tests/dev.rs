//! `knarr dev`: a cluster of several nodes on one machine, of which nothing stays.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use testing::{Cluster, Outcome, eventually, kubectl};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

/// A pod on each node but the server's, which looks for the other by name.
const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: there, labels: {app: there}}
spec:
  nodeName: n2
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: 127.0.0.1:5000/busybox:1.36
      command: [sh, -c, "mkdir /www; echo found > /www/index.html; exec httpd -f -p 8080 -h /www"]
      readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: there}
spec: {selector: {app: there}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: here}
spec:
  nodeName: n3
  restartPolicy: Never
  containers:
    - name: main
      image: 127.0.0.1:5000/busybox:1.36
      command: [sh, -c, "until wget -q -O - http://there:8080/; do sleep 0.2; done"]
"#;

#[test]
fn a_throw_away_cluster_leaves_nothing() {
    let c = Cluster::prepare(KNARR);
    let dir = c.scratch().join("dev");
    let dev_by = |program: &Path, arguments: &[&str]| {
        let mut command = c.machine().command(program);
        Outcome::of(command.arg("dev").arg("--data-dir").arg(&dir).args(arguments))
    };
    let dev = |arguments: &[&str]| dev_by(Path::new(KNARR), arguments);
    let program = c.scratch().join("knarr");
    std::fs::copy(KNARR, &program).unwrap();
    let started = dev_by(&program, &["--nodes", "3", "--forward", "5000", "--detach"]);
    assert_eq!(started.code, Some(0), "{started:?}");
    println!("{}", started.stdout);
    assert!(started.stdout.contains("3 node(s) ready after"), "{started:?}");
    let kubeconfig = dir.join("kubeconfig");
    assert!(started.stdout.ends_with(&format!("export KUBECONFIG={}\n", kubeconfig.display())), "{started:?}");
    let k = |line: &str| {
        let mut command = std::process::Command::new(kubectl::program());
        let outcome = Outcome::of(command.env("KUBECONFIG", &kubeconfig).args(line.split_whitespace()));
        assert_eq!(outcome.code, Some(0), "kubectl {line}: {outcome:?}");
        outcome.stdout
    };
    let manifest = c.scratch().join("pods.yaml");
    std::fs::write(&manifest, PODS).unwrap();
    k(&format!("apply -f {}", manifest.display()));
    k("wait --for=jsonpath={.status.phase}=Succeeded pod/here --timeout=60s");
    assert!(k("logs here").ends_with("found\n"));
    assert_eq!(k("config current-context"), "dev\n", "contexts of several clusters have names of their own");
    // Commands about a server are about that of the cluster.
    let snapshot = c.scratch().join("snapshot");
    let told = |words: &[&str]| {
        let mut command = c.machine().command(Path::new(KNARR));
        let done = Outcome::of(command.args(words).arg("--data-dir").arg(&dir));
        assert_eq!(done.code, Some(0), "{words:?}: {done:?}");
        done.stdout
    };
    told(&["snapshot", "save", snapshot.to_str().unwrap()]);
    told(&["certificate", "check"]);
    told(&["secrets-encryption", "status"]);
    told(&["token", "create"]);
    let rotated = told(&["certificate", "rotate"]);
    assert!(rotated.contains(&format!("new: {}\n", kubeconfig.display())), "{rotated}");
    let again = dev(&[]);
    assert!(again.code != Some(0) && again.stderr.contains("runs in"), "{again:?}");
    assert_eq!(dev(&["cut", "n3"]).code, Some(0));
    assert_eq!(dev(&["heal", "n3"]).code, Some(0));
    let inside = dev(&["exec", "n2", "--", "ip", "-o", "-4", "address"]);
    assert!(inside.stdout.contains("172.30.") && inside.stdout.contains(".2/24"), "{inside:?}");
    assert_eq!(dev(&["exec", "n2", "--", "sh", "-c", "exit 3"]).code, Some(3));
    let unknown = dev(&["cut", "n4"]);
    assert!(unknown.code != Some(0) && unknown.stderr.contains("they are n1 to n3"), "{unknown:?}");

    // A node whose process dies is no end of the cluster: it comes back, its pods were there all the time.
    let process = |words: &str| {
        let found = c.machine().processes().into_iter().find(|(_, line)| line.contains(words));
        found.map(|(pid, _)| nix::unistd::Pid::from_raw(pid))
    };
    let agent = format!("--data-dir {}", dir.join("n2").display());
    let died = process(&agent).unwrap();
    let before = k("get pod there -o jsonpath={.status.containerStatuses[0].containerID}");
    nix::sys::signal::kill(died, nix::sys::signal::SIGKILL).unwrap();
    eventually("the node starts again", || process(&agent).filter(|pid| *pid != died));
    k("annotate pod there seen=yes");
    k("wait --for=condition=Ready node/n2 pod/there --timeout=60s");
    assert_eq!(k("get pod there -o jsonpath={.status.containerStatuses[0].containerID}"), before);
    let log = std::fs::read_to_string(dir.join("dev.log")).unwrap();
    assert!(log.contains("the process of a node has ended") && log.contains("signal: 9"), "{log}");

    // The process that watches over the nodes dies. Another cluster takes the place of this one at once, and says so.
    nix::sys::signal::kill(process("dev --nodes 3").unwrap(), nix::sys::signal::SIGKILL).unwrap();
    let another = dev_by(&program, &["--nodes", "2", "--detach"]);
    assert_eq!(another.code, Some(0), "{another:?}");
    let removed = format!("removing the cluster that was in {} before, and its data: it was not stopped\n", dir.display());
    assert!(another.stdout.starts_with(&removed), "{another:?}");

    // It dies once more, and the disk has lost what it wrote of them.
    nix::sys::signal::kill(process("dev --nodes 2").unwrap(), nix::sys::signal::SIGKILL).unwrap();
    std::fs::write(dir.join("dev.json"), "").unwrap();
    for arguments in [&[][..], &["cut", "n3"], &["--detach"]] {
        let refused = dev(arguments);
        assert!(refused.code != Some(0) && refused.stderr.contains("dev.json is damaged"), "{refused:?}");
    }

    // Another version has taken the place of the program that the cluster runs.
    std::fs::remove_file(&program).unwrap();
    let stopped = dev(&["stop"]);
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    assert!(!dir.exists());
    let left: Vec<_> = c.machine().processes().into_iter().filter(|(_, line)| line.contains("knarr")).collect();
    assert!(left.is_empty(), "{left:?}");
    let links = Outcome::of(c.machine().command(Path::new("ip")).args(["-o", "link"])).stdout;
    assert!(!links.contains("kd-"), "{links}");
    let mounts = std::fs::read_to_string(c.machine().path(Path::new("/proc/self/mounts"))).unwrap_or_default();
    assert!(!mounts.contains("/run/netns/kd-"), "{mounts}");
    // What there is not can be stopped, too.
    assert_eq!(dev(&["stop"]).code, Some(0));
}

/// A cluster of three nodes of this family, with the pods of one node finding those of another by name; the addresses of pods, nodes and
/// services.
fn of_family(family: &str, check: impl Fn(&Cluster, &dyn Fn(&str) -> String)) -> [String; 3] {
    let c = Cluster::prepare(KNARR);
    let dir = c.scratch().join("dev");
    let dev = |arguments: &[&str]| {
        let mut command = c.machine().command(Path::new(KNARR));
        Outcome::of(command.arg("dev").arg("--data-dir").arg(&dir).args(arguments))
    };
    let started = dev(&["--nodes", "3", "--ip-family", family, "--forward", "5000", "--detach"]);
    assert_eq!(started.code, Some(0), "{started:?}");
    let kubeconfig = dir.join("kubeconfig");
    let k = |line: &str| {
        let mut command = std::process::Command::new(kubectl::program());
        let outcome = Outcome::of(command.env("KUBECONFIG", &kubeconfig).args(line.split_whitespace()));
        assert_eq!(outcome.code, Some(0), "kubectl {line}: {outcome:?}");
        outcome.stdout
    };
    let manifest = c.scratch().join("pods.yaml");
    std::fs::write(&manifest, PODS).unwrap();
    k(&format!("apply -f {}", manifest.display()));
    k("wait --for=jsonpath={.status.phase}=Succeeded pod/here --timeout=60s");
    assert!(k("logs here").ends_with("found\n"));
    check(&c, &k);
    let addresses = [
        k("get pods -o jsonpath={.items[*].status.podIPs[*].ip}"),
        k("get nodes -o jsonpath={.items[*].status.addresses[?(@.type==\"InternalIP\")].address}"),
        k("get services -o jsonpath={.items[*].spec.clusterIPs[*]}"),
    ];
    let stopped = dev(&["stop"]);
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    addresses
}

/// Of these addresses so many begin so.
fn begin(addresses: &str, prefix: &str, count: usize) {
    assert_eq!(addresses.split_whitespace().filter(|one| one.starts_with(prefix)).count(), count, "{prefix} of {addresses}");
}

/// The server is told one address of its node to listen on. Ingress listens at all of the node, says so, and the other nodes lead there.
fn ingress_answers_at_all_addresses(c: &Cluster, k: &dyn Fn(&str) -> String) {
    k("create ingress there --rule=/*=there:8080");
    let of_node = |node: u8| {
        let internal = "-o jsonpath={.status.addresses[?(@.type==\"InternalIP\")].address}";
        k(&format!("get node n{node} {internal}")).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let addresses = of_node(1);
    assert_eq!(addresses.len(), 2);
    k(&format!("wait --for=jsonpath={{.status.loadBalancer.ingress[1].ip}}={} ingress/there --timeout=60s", addresses[1]));
    for address in addresses.iter().chain(&of_node(2)) {
        let host = if address.contains(':') { format!("[{address}]") } else { address.clone() };
        eventually(&format!("ingress answers at {address}"), || {
            let mut command = c.machine().command(Path::new("timeout"));
            let answer = Outcome::of(command.args(["5", "busybox", "wget", "-q", "-O", "-", &format!("http://{host}/")]));
            (answer.stdout == "found\n").then_some(())
        });
    }
}

/// Nodes, pods and services have addresses of IPv6 and no others; pods of one node find those of another by name.
#[test]
fn a_throw_away_cluster_of_ipv6() {
    let all = of_family("ipv6", |_, _| {});
    for (addresses, count, prefix) in all.iter().zip([(2, "fd42:"), (3, "fd30:"), (2, "fd43:")]).map(|(all, (n, p))| (all, n, p))
    {
        assert_eq!(addresses.split_whitespace().count(), count, "{addresses}");
        begin(addresses, prefix, count);
    }
}

/// Nodes and pods have addresses of both families, services those that they ask for; by each of them a pod of another node is reached.
#[test]
fn a_throw_away_cluster_of_both_families() {
    let [pods, nodes, services] = of_family("dual", |c, k| {
        ingress_answers_at_all_addresses(c, k);
        k("patch service there -p {\"spec\":{\"ipFamilyPolicy\":\"RequireDualStack\"}}");
        let addresses = k("get service there -o jsonpath={.spec.clusterIPs[*]}");
        let addresses: Vec<&str> = addresses.split_whitespace().collect();
        assert_eq!(addresses.len(), 2);
        for address in addresses {
            let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            // The pod is on n2, and this one asks from n3, again where that node does not know the address yet.
            let url = format!("http://{host}:8080/");
            let name = if address.contains(':') { "six" } else { "four" };
            let overrides = "{\"spec\":{\"nodeName\":\"n3\"}}";
            k(&format!(
                "run {name} --image=127.0.0.1:5000/busybox:1.36 --restart=OnFailure --overrides={overrides} -- timeout 30 wget -q -O - {url}"
            ));
            k(&format!("wait --for=jsonpath={{.status.phase}}=Succeeded pod/{name} --timeout=60s"));
            assert_eq!(k(&format!("logs {name}")), "found\n");
            k(&format!("delete pod {name}"));
        }
    });
    for (addresses, prefix, count) in
        [(&pods, "10.42.", 2), (&pods, "fd42:", 2), (&nodes, "fd30:", 3), (&services, "10.43.", 2), (&services, "fd43:", 1)]
    {
        begin(addresses, prefix, count);
    }
    assert_eq!(nodes.split_whitespace().count(), 6, "{nodes}");
}
