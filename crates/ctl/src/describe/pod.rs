//! A pod in words: what people look for when it does not do what it should.

use jiff::Timestamp;
use serde_json::Value;

use super::generic::{self, bookkeeping, conditions, identity, pairs, word};
use super::layout::{Fields, Node, text};

/// Its fields.
pub(super) fn fields(pod: &Value, now: Timestamp) -> Fields {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let mut fields = identity(pod);
    fields.extend(bookkeeping(pod, now));
    let node = [word(&spec["nodeName"]), word(&status["hostIP"])];
    fields.push(text("Node", some(node.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("/"))));
    let optional = [
        ("Priority", &spec["priority"]),
        ("Priority Class Name", &spec["priorityClassName"]),
        ("Runtime Class Name", &spec["runtimeClassName"]),
        ("Service Account", &spec["serviceAccountName"]),
        ("Start Time", &status["startTime"]),
    ];
    fields.extend(optional.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| text(name, word(value))));
    fields.push(text("Status", phase(pod)));
    fields.extend(
        [("Reason", &status["reason"]), ("Message", &status["message"])]
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| text(name, word(value))),
    );
    let ips: Vec<_> = status["podIPs"].as_array().into_iter().flatten().map(|ip| word(&ip["ip"])).collect();
    fields.push(text("IP", some(ips.join(", "))));
    let groups = [
        ("Init Containers", "initContainers", "initContainerStatuses"),
        ("Containers", "containers", "containerStatuses"),
        ("Ephemeral Containers", "ephemeralContainers", "ephemeralContainerStatuses"),
    ];
    for (name, of_spec, of_status) in groups {
        let all = spec[of_spec].as_array().into_iter().flatten();
        let containers: Fields =
            all.map(|one| (word(&one["name"]), Node::Block(container(one, find(&status[of_status], &one["name"]))))).collect();
        if !containers.is_empty() {
            fields.push((name.to_owned(), Node::Block(containers)));
        }
    }
    let told = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    fields.push(("Conditions".to_owned(), conditions(told, now)));
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    fields.push(("Volumes".to_owned(), Node::Block(volumes.map(|one| volume(one, now)).collect())));
    fields.push(text("QoS Class", word(&status["qosClass"])));
    fields.push(("Node-Selectors".to_owned(), pairs(&spec["nodeSelector"], "=")));
    let tolerations: Vec<_> = spec["tolerations"].as_array().into_iter().flatten().map(toleration).collect();
    fields.push(("Tolerations".to_owned(), if tolerations.is_empty() { Node::none() } else { Node::Lines(tolerations) }));
    fields
}

fn some(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}

fn find<'v>(list: &'v Value, name: &Value) -> &'v Value {
    list.as_array().into_iter().flatten().find(|one| one["name"] == *name).unwrap_or(&Value::Null)
}

fn phase(pod: &Value) -> String {
    match pod["metadata"]["deletionTimestamp"].as_str() {
        Some(end) => {
            let grace = &pod["metadata"]["deletionGracePeriodSeconds"];
            format!("Terminating (since {end}, grace period {}s)", word(grace))
        }
        None => word(&pod["status"]["phase"]),
    }
}

fn container(spec: &Value, status: &Value) -> Fields {
    let mut fields = Vec::new();
    fields.push(text("Container ID", some(word(&status["containerID"]))));
    fields.push(text("Image", word(&spec["image"])));
    fields.push(text("Image ID", some(word(&status["imageID"]))));
    let ports: Vec<_> = spec["ports"].as_array().into_iter().flatten().map(port).collect();
    fields.push(text("Ports", some(ports.join(", "))));
    for (name, key) in [("Command", "command"), ("Args", "args")] {
        let words: Vec<_> = spec[key]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|one| word(one).lines().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        if !words.is_empty() {
            fields.push((name.to_owned(), Node::List(words.into_iter().map(Node::text).collect())));
        }
    }
    fields.extend(state("State", &status["state"]));
    if status["lastState"].as_object().is_some_and(|state| !state.is_empty()) {
        fields.extend(state("Last State", &status["lastState"]));
    }
    fields.push(text("Ready", if status["ready"] == true { "True" } else { "False" }));
    fields.push(text("Restart Count", status["restartCount"].as_i64().unwrap_or(0).to_string()));
    for (name, key) in [("Limits", "limits"), ("Requests", "requests")] {
        fields.extend(
            spec["resources"][key].as_object().filter(|map| !map.is_empty()).map(|map| (name.to_owned(), generic::block(map))),
        );
    }
    for (name, key) in [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")] {
        if spec[key].is_object() {
            fields.push(text(name, probe(&spec[key])));
        }
    }
    let sources: Vec<_> = spec["envFrom"].as_array().into_iter().flatten().map(|from| Node::text(source(from))).collect();
    if !sources.is_empty() {
        fields.push(("Environment Variables from".to_owned(), Node::List(sources)));
    }
    let variables = spec["env"].as_array().into_iter().flatten();
    fields.push(("Environment".to_owned(), Node::Block(variables.map(|one| text(&word(&one["name"]), variable(one))).collect())));
    let mounts: Vec<_> = spec["volumeMounts"].as_array().into_iter().flatten().map(|one| Node::text(mount(one))).collect();
    fields.push(("Mounts".to_owned(), Node::List(mounts)));
    fields
}

/// `http 80/TCP`, with the node's port where it has one.
fn port(port: &Value) -> String {
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    let name = port["name"].as_str().map(|name| format!(" ({name})")).unwrap_or_default();
    let host =
        port["hostPort"].as_i64().filter(|port| *port != 0).map(|port| format!(" at the node's {port}")).unwrap_or_default();
    format!("{}/{protocol}{name}{host}", word(&port["containerPort"]))
}

/// What a container does, and why it does not.
fn state(name: &str, state: &Value) -> Fields {
    let Some((kind, facts)) = state.as_object().and_then(|state| state.iter().next()) else { return vec![text(name, "Waiting")] };
    let mut fields = vec![text(name, generic::label(kind))];
    let known = [
        ("  Reason", "reason"),
        ("  Message", "message"),
        ("  Exit Code", "exitCode"),
        ("  Signal", "signal"),
        ("  Started", "startedAt"),
        ("  Finished", "finishedAt"),
    ];
    let told = known.into_iter().filter(|(_, key)| !facts[*key].is_null());
    fields.extend(told.map(|(name, key)| text(name, word(&facts[key]))));
    fields
}

/// A probe in one line, as kubectl has it.
fn probe(probe: &Value) -> String {
    let what = if let Some(http) = probe.get("httpGet") {
        let scheme = http["scheme"].as_str().unwrap_or("HTTP").to_lowercase();
        format!("http-get {scheme}://{}:{}{}", word(&http["host"]), word(&http["port"]), word(&http["path"]))
    } else if let Some(tcp) = probe.get("tcpSocket") {
        format!("tcp-socket {}:{}", word(&tcp["host"]), word(&tcp["port"]))
    } else if let Some(grpc) = probe.get("grpc") {
        format!("grpc <pod>:{} {}", word(&grpc["port"]), word(&grpc["service"]))
    } else {
        let words: Vec<_> = probe["exec"]["command"].as_array().into_iter().flatten().map(word).collect();
        format!("exec [{}]", words.join(" "))
    };
    let number = |key: &str, otherwise: i64| probe[key].as_i64().unwrap_or(otherwise);
    format!(
        "{what} delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3)
    )
}

fn source(from: &Value) -> String {
    let (kind, of) =
        if from["secretRef"].is_object() { ("Secret", &from["secretRef"]) } else { ("ConfigMap", &from["configMapRef"]) };
    let prefix = from["prefix"].as_str().map(|prefix| format!(" with prefix '{prefix}'")).unwrap_or_default();
    format!("{} {kind}{prefix}  Optional: {}", word(&of["name"]), of["optional"] == true)
}

/// The value of a variable, or where it is from. What is in a Secret is not read.
fn variable(variable: &Value) -> String {
    let from = &variable["valueFrom"];
    let key = |of: &Value, kind: &str| {
        format!("<set to the key '{}' of {kind} '{}'>  Optional: {}", word(&of["key"]), word(&of["name"]), of["optional"] == true)
    };
    if let Some(field) = from.get("fieldRef") {
        format!("({}:{})", word(&field["apiVersion"]), word(&field["fieldPath"]))
    } else if let Some(resource) = from.get("resourceFieldRef") {
        format!("({})", word(&resource["resource"]))
    } else if let Some(secret) = from.get("secretKeyRef") {
        key(secret, "secret")
    } else if let Some(map) = from.get("configMapKeyRef") {
        key(map, "config map")
    } else {
        word(&variable["value"])
    }
}

fn mount(mount: &Value) -> String {
    let how = if mount["readOnly"] == true { "ro" } else { "rw" };
    let path = mount["subPath"].as_str().map(|path| format!(",path={path:?}")).unwrap_or_default();
    format!("{} from {} ({how}{path})", word(&mount["mountPath"]), word(&mount["name"]))
}

fn volume(volume: &Value, now: Timestamp) -> (String, Node) {
    let sources = volume.as_object().into_iter().flatten().filter(|(key, _)| *key != "name");
    let mut fields = Vec::new();
    for (kind, source) in sources {
        fields.push(text("Type", generic::label(kind)));
        if let Node::Block(of) = generic::node(kind, source, now) {
            fields.extend(of);
        }
    }
    (word(&volume["name"]), Node::Block(fields))
}

fn toleration(toleration: &Value) -> String {
    let mut text = word(&toleration["key"]);
    if let Some(value) = toleration["value"].as_str().filter(|value| !value.is_empty()) {
        text.push_str(&format!("={value}"));
    }
    if let Some(effect) = toleration["effect"].as_str() {
        text.push_str(&format!(":{effect}"));
    }
    if toleration["operator"] == "Exists" && toleration["value"].as_str().is_none_or(str::is_empty) {
        text.push_str(" op=Exists");
    }
    if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
        text.push_str(&format!(" for {seconds}s"));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::layout::render;
    use super::*;

    #[test]
    fn a_pod_that_crashes() {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "a"},
            "spec": {
                "nodeName": "n1",
                "containers": [{"name": "main", "image": "i", "command": ["sh", "-c"], "ports": [{"containerPort": 80, "name": "http"}],
                    "resources": {"limits": {"cpu": "1"}}, "env": [{"name": "A", "value": "1"},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                    "livenessProbe": {"httpGet": {"port": 80, "path": "/x", "scheme": "HTTP"}},
                    "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}]}],
                "volumes": [{"name": "v", "emptyDir": {}}],
                "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
            },
            "status": {"phase": "Running", "hostIP": "10.0.0.1", "podIPs": [{"ip": "10.42.0.2"}], "qosClass": "BestEffort",
                "containerStatuses": [{"name": "main", "ready": false, "restartCount": 2, "imageID": "x",
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                    "lastState": {"terminated": {"exitCode": 7, "reason": "Error"}}}]},
        });
        let expected = "\
Name:         p
Namespace:    a
Labels:       <none>
Annotations:  <none>
Node:         n1/10.0.0.1
Status:       Running
IP:           10.42.0.2
Containers:
  main:
    Container ID:  <none>
    Image:         i
    Image ID:      x
    Ports:         80/TCP (http)
    Command:
      sh
      -c
    State:          Waiting
      Reason:       CrashLoopBackOff
      Message:      back-off
    Last State:     Terminated
      Reason:       Error
      Exit Code:    7
    Ready:          False
    Restart Count:  2
    Limits:
      cpu:  1
    Liveness:  http-get http://:80/x delay=0s timeout=1s period=10s #success=1 #failure=3
    Environment:
      A:  1
      B:  <set to the key 'k' of secret 's'>  Optional: false
    Mounts:
      /v from v (ro)
Conditions:  <none>
Volumes:
  v:
    Type:  Empty Dir
QoS Class:       BestEffort
Node-Selectors:  <none>
Tolerations:     k:NoExecute op=Exists for 300s
";
        // Values stand in one column for all fields of a block.
        let plain =
            |text: &str| text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
        assert_eq!(plain(&render(&fields(&pod, Timestamp::default()))), plain(expected));
    }
}
