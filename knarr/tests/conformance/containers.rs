//! How containers start, end, start again and are looked after.

use std::io::{Read, Write};
use std::net::TcpStream;

use http::Method;
use serde_json::{Value, json};
use testing::{Cluster, eventually};

use super::{KNARR, core, create, delete, extend, output, patch, pod, reaches, run, send};

/// A pod as it is now.
pub(super) fn see(c: &Cluster, name: &str) -> Value {
    c.api().object(&format!("{}/{name}", core("pods")))
}

pub(super) fn main_status(c: &Cluster, name: &str) -> Value {
    see(c, name)["status"]["containerStatuses"][0].clone()
}

pub(super) fn restarts(c: &Cluster, name: &str) -> Option<u64> {
    main_status(c, name)["restartCount"].as_u64()
}

pub(super) fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == kind).cloned().unwrap_or_default()
}

/// Conformance: [sig-node] Container Runtime blackbox test on terminated container should report termination message as empty when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set [NodeConformance] [Conformance]
/// Conformance: [sig-node] Container Runtime blackbox test on terminated container should report termination message from file when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set [NodeConformance] [Conformance]
/// Conformance: [sig-node] Container Runtime blackbox test on terminated container should report termination message from log output if TerminationMessagePolicy FallbackToLogsOnError is set [NodeConformance] [Conformance]
/// Conformance: [sig-node] Container Runtime blackbox test on terminated container should report termination message if TerminationMessagePath is set as non-root user and at a non-default path [NodeConformance] [Conformance]
/// Conformance: [sig-node] Container Runtime blackbox test when starting a container that exits should run with the expected status [NodeConformance] [Conformance]
/// Conformance: [sig-node] Kubelet when scheduling a busybox command that always fails in a pod should be possible to delete [NodeConformance] [Conformance]
/// Conformance: [sig-node] Kubelet when scheduling a busybox command that always fails in a pod should have an terminated reason [NodeConformance] [Conformance]
#[test]
fn ends() {
    let c = Cluster::start(KNARR);
    let pods = core("pods");
    // Fails, then succeeds, then stays; the policy decides how far it comes.
    let script = "echo hello >> /v/starts; case $(wc -l < /v/starts) in 1) exit 1;; 2) exit 0;; *) exec sleep 100000;; esac";
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    for policy in ["Always", "OnFailure", "Never"] {
        let spec = json!({"restartPolicy": policy, "volumes": [{"name": "v", "emptyDir": {}}]});
        create(&c, &pods, &pod(&policy.to_lowercase(), script, &mount, &spec));
    }
    let fallback = "FallbackToLogsOnError";
    let custom = "/dev/termination-custom-log";
    let cases = [
        ("log", "printf DONE; exit 1", json!({"terminationMessagePolicy": fallback}), "DONE"),
        ("file", "printf log; printf OK > /dev/termination-log", json!({"terminationMessagePolicy": fallback}), "OK"),
        ("empty", "printf DONE", json!({"terminationMessagePolicy": fallback}), ""),
        (
            "custom",
            "printf DONE > /dev/termination-custom-log",
            json!({"terminationMessagePath": custom, "securityContext": {"runAsUser": 1000}}),
            "DONE",
        ),
    ];
    for (name, script, container, _) in &cases {
        create(&c, &pods, &pod(name, script, container, &json!({})));
    }
    for (name, .., message) in &cases {
        output(&c, name);
        let ended = main_status(&c, name)["state"]["terminated"].clone();
        assert_eq!(ended["message"].as_str().unwrap_or_default(), *message, "{name}: {ended}");
    }
    create(&c, &pods, &pod("fails", "/bin/false", &json!({}), &json!({"restartPolicy": "Always"})));
    eventually("a reason why it ended", || {
        let state = main_status(&c, "fails");
        ["state", "lastState"].iter().any(|key| state[key]["terminated"]["reason"] == "Error").then_some(())
    });
    delete(&c, &format!("{pods}/fails"));
    c.k("wait --for=delete pod/fails --timeout=60s");
    for (policy, phase, count, ready, state) in [
        ("never", "Failed", 0, false, "terminated"),
        ("onfailure", "Succeeded", 1, false, "terminated"),
        ("always", "Running", 2, true, "running"),
    ] {
        reaches("restarts", count, || restarts(&c, policy));
        eventually(policy, || {
            let status = main_status(&c, policy);
            let is =
                status["state"][state].is_object() && status["ready"] == ready && see(&c, policy)["status"]["phase"] == phase;
            is.then_some(())
        });
        assert_eq!(restarts(&c, policy), Some(count), "{policy}");
    }
}

/// A pod with two init containers.
fn with_inits(name: &str, policy: &str, [first, second]: [&str; 2], script: &str) -> Value {
    let mut object = pod(name, script, &json!({}), &json!({"restartPolicy": policy}));
    let inits = [("init1", first), ("init2", second)].map(|(name, script)| {
        let mut container = object["spec"]["containers"][0].clone();
        extend(&mut container, &json!({"name": name, "command": ["sh", "-c", script]}));
        container
    });
    object["spec"]["initContainers"] = json!(inits);
    object
}

/// Conformance: [sig-node] InitContainer [NodeConformance] should invoke init containers on a RestartAlways pod [Conformance]
/// Conformance: [sig-node] InitContainer [NodeConformance] should invoke init containers on a RestartNever pod [Conformance]
/// Conformance: [sig-node] InitContainer [NodeConformance] should not start app containers and fail the pod if init containers fail on a RestartNever pod [Conformance]
/// Conformance: [sig-node] InitContainer [NodeConformance] should not start app containers if init containers fail on a RestartAlways pod [Conformance]
#[test]
fn init_containers() {
    let c = Cluster::start(KNARR);
    let pods = core("pods");
    create(&c, &pods, &with_inits("never-good", "Never", ["true", "true"], "true"));
    create(&c, &pods, &with_inits("always-good", "Always", ["true", "true"], "sleep 100000"));
    create(&c, &pods, &with_inits("never-bad", "Never", ["true", "false"], "true"));
    create(&c, &pods, &with_inits("always-bad", "Always", ["false", "true"], "true"));
    output(&c, "never-good");
    c.k("wait --for=condition=Ready pod/always-good --timeout=60s");
    for name in ["never-good", "always-good"] {
        let object = see(&c, name);
        assert_eq!(condition(&object, "Initialized")["status"], "True", "{object}");
        for init in object["status"]["initContainerStatuses"].as_array().unwrap() {
            assert_eq!((&init["ready"], &init["state"]["terminated"]["exitCode"]), (&json!(true), &json!(0)), "{name}: {init}");
        }
    }
    assert_eq!(see(&c, "never-good")["status"]["phase"], "Succeeded");
    let unstarted = |object: &Value| {
        let status = &object["status"]["containerStatuses"][0];
        let initialized = condition(object, "Initialized");
        assert!(status["state"]["waiting"]["reason"] == "PodInitializing" && status["started"] == false, "{object}");
        assert_eq!((&initialized["status"], &initialized["reason"]), (&json!("False"), &json!("ContainersNotInitialized")));
    };
    assert_eq!(output(&c, "never-bad").0, "Failed");
    let bad = see(&c, "never-bad");
    let init = |object: &Value, number: usize| object["status"]["initContainerStatuses"][number].clone();
    unstarted(&bad);
    let states = [0, 1].map(|number| init(&bad, number)["state"]["terminated"]["exitCode"].clone());
    assert_eq!(states, [0, 1]);
    reaches("restarts of the first", 2, || init(&see(&c, "always-bad"), 0)["restartCount"].as_u64());
    let bad = see(&c, "always-bad");
    unstarted(&bad);
    assert_eq!(
        (&bad["status"]["phase"], &init(&bad, 1)["state"]["waiting"]["reason"]),
        (&json!("Pending"), &json!("PodInitializing"))
    );
}

/// A server of files that logs what it is asked for.
pub(super) const SERVER: &str =
    "mkdir /www; cd /www; touch start-exec start-http stop-exec stop-http healthz; exec httpd -f -vv -p 8080 -h /www";

/// Conformance: [sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute poststart exec hook properly [NodeConformance] [Conformance]
/// Conformance: [sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute poststart http hook properly [NodeConformance] [Conformance]
/// Conformance: [sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute prestop exec hook properly [NodeConformance] [Conformance]
/// Conformance: [sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute prestop http hook properly [NodeConformance] [Conformance]
/// Conformance: [sig-node] PreStop should call prestop when killing a pod [Conformance]
#[test]
fn hooks() {
    let c = Cluster::start(KNARR);
    run(&c, &pod("handler", SERVER, &json!({"readinessProbe": {"tcpSocket": {"port": 8080}}}), &json!({})));
    let address = see(&c, "handler")["status"]["podIP"].as_str().unwrap().to_owned();
    for moment in ["start", "stop"] {
        let http = json!({"httpGet": {"host": address, "port": 8080, "path": format!("/{moment}-http")}});
        let exec = json!({"exec": {"command": ["wget", "-q", "-O", "-", format!("http://{address}:8080/{moment}-exec")]}});
        for (kind, action) in [("http", http), ("exec", exec)] {
            let hook = if moment == "start" { "postStart" } else { "preStop" };
            let spec = json!({"terminationGracePeriodSeconds": 30});
            let script = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done";
            run(&c, &pod(&format!("{moment}-{kind}"), script, &json!({"lifecycle": {hook: action}}), &spec));
        }
    }
    // What the handler says reaches its log a moment later.
    let asked = |what: &str| c.k("logs handler").matches(&format!("url:/{what}")).count();
    let once = |what: &str| eventually(&format!("{what} was asked"), || Some(asked(what)).filter(|count| *count > 0));
    for kind in ["exec", "http"] {
        assert_eq!((once(&format!("start-{kind}")), asked(&format!("stop-{kind}"))), (1, 0), "{kind}");
        delete(&c, &format!("{}/stop-{kind}", core("pods")));
        c.k(&format!("wait --for=delete pod/stop-{kind} --timeout=60s"));
        assert_eq!(once(&format!("stop-{kind}")), 1, "{kind}");
    }
}

/// The head of the answer, and the connection behind it.
fn upgrade(path: &str, protocol: &str) -> (String, TcpStream) {
    let mut stream = TcpStream::connect("127.0.0.1:18001").unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut byte = [0];
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    (String::from_utf8(answer).unwrap().to_lowercase(), stream)
}

/// Writes standard input in messages of at most 100 kB, closes, and waits for the answer to that: "the endpoint MUST send a Close frame
/// in response" (RFC 6455, 5.5.1).
fn say(path: &str, protocol: &str, length: usize) {
    let (head, mut stream) = upgrade(path, protocol);
    assert!(head.starts_with("http/1.1 101"), "{head}");
    let said = vec![b'x'; length];
    for part in said.chunks(100_000) {
        let mut frame = vec![0x82, 0xff];
        frame.extend_from_slice(&(part.len() as u64 + 1).to_be_bytes());
        // A mask that changes nothing, and the channel.
        frame.extend_from_slice(&[0; 5]);
        frame.extend_from_slice(part);
        stream.write_all(&frame).unwrap();
    }
    stream.write_all(b"\x88\x82\0\0\0\0\x03\xe8").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(b"\x88\x02\x03\xe8"), "{answer:?}");
}

/// The head of the answer and the payloads of the frames until the server closes.
fn websocket(path: &str, protocol: &str) -> (String, Vec<Vec<u8>>) {
    let (answer, mut stream) = upgrade(path, protocol);
    let mut payloads = Vec::new();
    let mut head = [0; 2];
    while stream.read_exact(&mut head).is_ok() {
        assert!(head[1] < 126, "a short frame without a mask");
        let mut payload = vec![0; usize::from(head[1])];
        stream.read_exact(&mut payload).unwrap();
        match head[0] {
            0x88 => break,
            0x82 => payloads.push(payload),
            other => panic!("frame {other:#x}"),
        }
    }
    (answer, payloads)
}

/// Conformance: [sig-node] Pods should support remote command execution over websockets [NodeConformance] [Conformance]
/// Conformance: [sig-node] Pods should support retrieving logs from the container over websockets [NodeConformance] [Conformance]
#[test]
fn websockets() {
    let c = Cluster::start(KNARR);
    run(&c, &pod("served", "echo container is alive; exec sleep 100000", &json!({}), &json!({})));
    let mut proxy = c.background("proxy --port=18001 --reject-paths=none");
    proxy.line("Starting to serve");
    let path = format!("{}/served", core("pods"));
    let command = "command=echo&command=remote+execution+test&stdout=1&stderr=1&container=main";
    let (head, payloads) = websocket(&format!("{path}/exec?{command}"), "v4.channel.k8s.io");
    assert!(head.starts_with("http/1.1 101") && head.contains("sec-websocket-protocol: v4.channel.k8s.io"), "{head}");
    let channel = |number: u8| {
        let ours = payloads.iter().filter(|payload| payload.first() == Some(&number)).map(|payload| &payload[1..]);
        String::from_utf8(ours.collect::<Vec<_>>().concat()).unwrap()
    };
    assert_eq!((channel(1).as_str(), channel(2).as_str()), ("remote execution test\n", ""));
    assert!(channel(3).contains("Success"), "{}", channel(3));
    c.logged("served", "container is alive\n");
    let (head, payloads) = websocket(&format!("{path}/log?container=main"), "binary.k8s.io");
    assert!(head.starts_with("http/1.1 101") && head.contains("sec-websocket-protocol: binary.k8s.io"), "{head}");
    assert_eq!(String::from_utf8(payloads.concat()).unwrap(), "container is alive\n");
    // What a client says before it closes is read whole: with v4 that is how input ends.
    let once = json!({"stdin": true, "stdinOnce": true});
    run(&c, &pod("reads", "sleep 0.3; cat > /tmp/got; exec sleep 100000", &once, &json!({})));
    let attached = format!("{}/reads/attach?stdin=1&container=main", core("pods"));
    let executed = format!("{path}/exec?command=sh&command=-c&command=tee+/tmp/got&stdin=1&stdout=1&container=main");
    let cases = [("v4.channel.k8s.io", 10), ("v4.channel.k8s.io", 3_000_000), ("v5.channel.k8s.io", 100_000)];
    let cases = cases.map(|(protocol, length)| ("served", &executed, protocol, length));
    for (pod, path, protocol, length) in cases.into_iter().chain([("reads", &attached, "v4.channel.k8s.io", 100_000)]) {
        say(path, protocol, length);
        eventually(&format!("{pod} has read {length} bytes by {protocol}"), || {
            (c.kubectl(&["exec", pod, "--", "sh", "-c", "cat /tmp/got | wc -c"]).trim() == length.to_string()).then_some(())
        });
    }
    proxy.stop();
}

/// Conformance: [sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass and initialize its Overhead [NodeConformance] [Conformance]
/// Conformance: [sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass without PodOverhead [NodeConformance] [Conformance]
#[test]
fn runtime_classes() {
    let c = Cluster::start(KNARR);
    let overhead = json!({"podFixed": {"cpu": "10m", "memory": "1Mi"}});
    for (name, overhead) in [("with", Some(overhead)), ("without", None)] {
        let mut class =
            json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": "knarr"});
        if let Some(overhead) = &overhead {
            class["overhead"] = overhead.clone();
        }
        create(&c, "/apis/node.k8s.io/v1/runtimeclasses", &class);
        run(&c, &pod(name, "exec sleep 100000", &json!({}), &json!({"runtimeClassName": name})));
        let object = see(&c, name);
        assert_eq!(condition(&object, "PodScheduled")["status"], "True");
        assert_eq!(object["spec"]["overhead"], overhead.map_or(Value::Null, |overhead| overhead["podFixed"].clone()));
    }
}

/// Conformance: [sig-node] Ephemeral Containers [NodeConformance] should update the ephemeral containers in an existing pod [Conformance]
/// Conformance: [sig-node] Ephemeral Containers [NodeConformance] will start an ephemeral container in an existing pod [Conformance]
#[test]
fn ephemeral_containers() {
    let c = Cluster::start(KNARR);
    run(&c, &pod("served", "exec sleep 100000", &json!({}), &json!({})));
    let path = format!("{}/served", core("pods"));
    let container = |name: &str| {
        json!({"name": name, "image": super::BUSYBOX, "stdin": true, "tty": true,
        "command": ["sh", "-c", format!("echo polo {name}; exec sleep 100000")], "targetContainerName": "main"})
    };
    let mut all = Vec::new();
    for name in ["debugger", "debugger2"] {
        all.push(container(name));
        let change = json!({"spec": {"ephemeralContainers": all}}).to_string();
        let content = "application/strategic-merge-patch+json";
        let answer = c.api().send(Method::PATCH, &format!("{path}/ephemeralcontainers"), content, change);
        assert_eq!(answer.status, 200, "{answer:?}");
        eventually(&format!("{name} runs"), || {
            let object = c.api().object(&path);
            let statuses = object["status"]["ephemeralContainerStatuses"].as_array().cloned().unwrap_or_default();
            statuses.iter().find(|s| s["name"] == name && s["state"]["running"].is_object()).map(|_| ())
        });
        eventually("what it prints", || c.k(&format!("logs served -c {name}")).contains(&format!("polo {name}")).then_some(()));
    }
    let object = c.api().object(&path);
    assert_eq!(object["spec"]["ephemeralContainers"].as_array().unwrap().len(), 2);
    let seen = c.kubectl(&["exec", "served", "-c", "debugger2", "--", "ps", "-o", "args"]);
    assert_eq!(seen.matches("sleep 100000").count(), 3, "the processes of the container that it looks at: {seen}");
}

/// Conformance: [sig-node] Pods should be submitted and removed [NodeConformance] [Conformance]
/// Conformance: [sig-node] Pods should be updated [NodeConformance] [Conformance]
/// Conformance: [sig-node] Pods should allow activeDeadlineSeconds to be updated [NodeConformance] [Conformance]
/// Conformance: [sig-node] Pods should run through the lifecycle of Pods and PodStatus [Conformance]
#[test]
fn lives() {
    let c = Cluster::start(KNARR);
    let pods = core("pods");
    let events = c.background("get pods -l time=now --watch --output-watch-events --no-headers");
    let mut object = pod(
        "life",
        "trap 'exit 0' TERM QUIT; echo up; while :; do sleep 1 & wait $!; done",
        &json!({}),
        &json!({"terminationGracePeriodSeconds": 30, "restartPolicy": "Always"}),
    );
    object["metadata"]["labels"] = json!({"time": "now"});
    run(&c, &object);
    // Who is asked to end before it has its handler does not hear it.
    let listens = || eventually("it hears signals", || c.k("logs life").contains("up").then_some(()));
    listens();
    events.line("ADDED");
    let listed = c.api().object(&format!("{pods}?labelSelector=time%3Dnow"));
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);

    // A client that writes the whole object tries again when the kubelet has written meanwhile.
    let path = format!("{pods}/life");
    let update = |path: &str, change: &dyn Fn(&mut Value)| {
        eventually("an update", || {
            let mut object = c.api().object(path);
            change(&mut object);
            let answer = c.api().send(Method::PUT, path, "application/json", object.to_string());
            assert!([200, 409].contains(&answer.status), "{answer:?}");
            (answer.status == 200).then(|| answer.json())
        })
    };
    update(&path, &|object| object["metadata"]["labels"]["updated"] = json!("yes"));
    let found = c.api().object(&format!("{pods}?labelSelector=updated%3Dyes"));
    assert_eq!(found["items"][0]["metadata"]["name"], "life");

    patch(&c, &path, &json!({"metadata": {"labels": {"patched": "yes"}}}));
    let change = json!({"spec": {"containers": [{"name": "main", "image": "127.0.0.1:5000/nginx:1.27"}]}}).to_string();
    let answer = c.api().send(Method::PATCH, &path, "application/strategic-merge-patch+json", change);
    assert_eq!(answer.json()["spec"]["containers"][0]["image"], "127.0.0.1:5000/nginx:1.27");
    eventually("the container runs the other image", || {
        let status = main_status(&c, "life");
        (status["restartCount"] == 1 && status["state"]["running"].is_object() && status["image"] == "127.0.0.1:5000/nginx:1.27")
            .then_some(())
    });
    listens();
    let told = json!({"type": "example.com/told", "status": "True", "reason": "Tested"});
    let written = update(&format!("{path}/status"), &|object| {
        object["status"]["conditions"].as_array_mut().unwrap().push(told.clone());
    });
    assert_eq!(condition(&written, "example.com/told")["status"], "True");

    let going = send(&c, 200, Method::DELETE, &format!("{path}?gracePeriodSeconds=30"), &Value::Null);
    assert!(
        going["metadata"]["deletionTimestamp"].is_string() && going["spec"]["terminationGracePeriodSeconds"] == 30,
        "{going}"
    );
    events.line("DELETED");
    assert_eq!(c.api().object(&format!("{pods}?labelSelector=time%3Dnow"))["items"], json!([]));

    run(&c, &pod("deadline", "exec sleep 100000", &json!({}), &json!({})));
    update(&format!("{pods}/deadline"), &|object| object["spec"]["activeDeadlineSeconds"] = json!(1));
    assert_eq!(output(&c, "deadline").0, "Failed");
    assert_eq!(see(&c, "deadline")["status"]["reason"], "DeadlineExceeded");
}

/// The kubelet says which generation of a pod it has seen.
///
/// Conformance: [sig-node] Pods Extended (pod generation) Pod Generation issue 500 podspec updates and verify generation and observedGeneration eventually converge [MinimumKubeletVersion:1.34] [Conformance]
/// Conformance: [sig-node] Pods Extended (pod generation) Pod Generation pod generation should start at 1 and increment per update [MinimumKubeletVersion:1.34] [Conformance]
#[test]
fn generations() {
    let c = Cluster::start(KNARR);
    let mut object = pod("counted", "exec sleep 100000", &json!({}), &json!({"restartPolicy": "Always"}));
    let mut init = object["spec"]["containers"][0].clone();
    extend(&mut init, &json!({"name": "init", "command": ["true"]}));
    object["spec"]["initContainers"] = json!([init]);
    run(&c, &object);
    let path = format!("{}/counted", core("pods"));
    let observed = |generation: u64| {
        eventually(&format!("generation {generation} is observed"), || {
            let object = c.api().object(&path);
            assert_eq!(object["metadata"]["generation"], generation);
            let ready = condition(&object, "Ready");
            (object["status"]["observedGeneration"] == generation && ready["observedGeneration"] == generation).then_some(())
        });
    };
    observed(1);
    let strategic = |path: &str, change: Value| {
        let answer = c.api().send(Method::PATCH, path, "application/strategic-merge-patch+json", change.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    let tolerations = json!([{"key": "foo-0", "operator": "Exists"}]);
    let debugger = json!([{"name": "debugger", "image": super::BUSYBOX, "command": ["true"]}]);
    let image = "127.0.0.1:5000/busybox:latest";
    let steps = [
        ("", json!({"metadata": {"labels": {"a": "b"}}}), 1),
        ("", json!({"spec": {"containers": [{"name": "main", "image": image}]}}), 2),
        ("", json!({"spec": {"initContainers": [{"name": "init", "image": image}]}}), 3),
        ("", json!({"spec": {"tolerations": tolerations}}), 4),
        ("", json!({"spec": {"activeDeadlineSeconds": 50000}}), 5),
        ("/ephemeralcontainers", json!({"spec": {"ephemeralContainers": debugger}}), 6),
        ("/status", json!({"status": {"message": "not a change of the specification"}}), 6),
    ];
    for (sub, change, generation) in steps {
        strategic(&format!("{path}{sub}"), change);
        observed(generation);
    }
    let deadlines = (1..=500).map(|number| json!({"spec": {"activeDeadlineSeconds": 50000 - number}}).to_string());
    c.api().send_all(&Method::PATCH, &path, "application/merge-patch+json", deadlines);
    observed(506);
}
