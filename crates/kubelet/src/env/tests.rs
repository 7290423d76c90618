use super::*;
use serde_json::{Value, json};
use std::sync::Arc;

struct Fixed;

impl Objects for Fixed {
    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        let map = json!({"metadata": {"name": "m"}, "data": {"k": "v", "bad=name": "x"}});
        (name == "m").then(|| Arc::new(serde_json::from_value(map).unwrap()))
    }

    fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        let secret = match name {
            "s" => json!({"metadata": {"name": "s"}, "data": {"p": "c2VjcmV0"}}),
            // "a", a byte that begins no character, "b"; and a character that is cut off.
            "binary" => json!({"metadata": {"name": "binary"}, "data": {"key": "Yf9i", "cut": "4oI=", "text": "eA=="}}),
            _ => return None,
        };
        Some(Arc::new(serde_json::from_value(secret).unwrap()))
    }

    fn trust_bundles(&self) -> Arc<BTreeMap<String, ClusterTrustBundle>> {
        Arc::default()
    }
}

fn given_files() -> Files {
    let file = |volume: &str, path: &str, text| ((volume.to_owned(), path.to_owned()), text);
    let texts = [
        file("v", "env", Ok("A='from file'".to_owned())),
        file("v", "bad", Ok("A=x".to_owned())),
        file("v", "none", Err(None)),
        file("v", "pipe", Err(Some("it is no file".to_owned()))),
    ];
    texts.into()
}

fn environment(container: Value) -> Result<Environment, Error> {
    let mut container = container;
    container["name"] = json!("c");
    let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [container]}});
    let model = Model::new(Arc::new(serde_json::from_value(pod).unwrap()));
    let services = [("SVC_HOST".to_owned(), "10.0.0.1".to_owned())];
    build(&model, &model.members[0].spec, &services, &Fixed, &given_files(), &Facts::default())
}

#[track_caller]
fn check(container: Value, expected: Result<&[(&str, &str)], &str>) {
    let actual = environment(container).map(|e| e.variables).map_err(|e| e.to_string());
    let expected = expected
        .map(|list| list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>())
        .map_err(str::to_owned);
    assert_eq!(actual, expected);
}

#[test]
fn values_and_expansion() {
    let service = ("SVC_HOST", "10.0.0.1");
    let env = json!([
        {"name": "A", "value": "$(SVC_HOST):80"}, {"name": "B", "value": "<$(A)> $(LATER)"},
        {"name": "A", "value": "again"}, {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    let expected = [service, ("A", "again"), ("B", "<10.0.0.1:80> $(LATER)"), ("N", "p")];
    check(json!({"env": env}), Ok(&expected));
    let overrides = json!([{"name": "SVC_HOST", "value": "mine"}]);
    check(json!({"env": overrides}), Ok(&[("SVC_HOST", "mine")]));
}

#[test]
fn sources() {
    let service = ("SVC_HOST", "10.0.0.1");
    let key = |name: &str, key: &str, optional: bool| json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": name, "key": key, "optional": optional}}}]});
    check(key("m", "k", false), Ok(&[service, ("A", "v")]));
    check(key("m", "x", true), Ok(&[service]));
    check(key("m", "x", false), Err("couldn't find key x in ConfigMap n/m"));
    check(key("none", "k", false), Err("configmap \"none\" not found"));
    check(key("none", "k", true), Ok(&[service]));
    let secret = json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}}]});
    check(secret, Ok(&[service, ("A", "secret")]));
    let from = json!({"envFrom": [{"prefix": "X_", "configMapRef": {"name": "m"}}, {"secretRef": {"name": "s"}}]});
    check(from.clone(), Ok(&[service, ("X_k", "v"), ("p", "secret")]));
    assert_eq!(environment(from).unwrap().skipped, [("ConfigMap", "m".to_owned(), vec!["bad=name".to_owned()])]);
    // kubernetes#139168: "Restores pre-1.34 ability to use Secret API objects with binary data as container env values".
    let all = [service, ("cut", "\u{fffd}\u{fffd}"), ("key", "a\u{fffd}b"), ("text", "x")];
    check(json!({"envFrom": [{"secretRef": {"name": "binary"}}]}), Ok(&all));
    let one = json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "binary", "key": "key"}}}]});
    check(one, Ok(&[service, ("A", "a\u{fffd}b")]));
    check(json!({"envFrom": [{"secretRef": {"name": "none"}}]}), Err("secret \"none\" not found"));
}

#[test]
fn service_links() {
    let pod = json!({"metadata": {"namespace": "n"}, "spec": {"containers": []}});
    let model = Model::new(Arc::new(serde_json::from_value(pod).unwrap()));
    let services: Vec<Service> = serde_json::from_value(json!([
        {"metadata": {"name": "my-db", "namespace": "n"}, "spec": {"clusterIP": "10.0.0.9", "ports": [{"name": "sql", "port": 5432}]}},
        {"metadata": {"name": "headless", "namespace": "n"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}},
        {"metadata": {"name": "other", "namespace": "x"}, "spec": {"clusterIP": "10.0.0.8", "ports": [{"port": 1}]}}
    ]))
    .unwrap();
    let names: Vec<String> = service_variables(&model, &services).into_iter().map(|(n, v)| format!("{n}={v}")).collect();
    let expected = [
        "MY_DB_SERVICE_HOST=10.0.0.9",
        "MY_DB_SERVICE_PORT=5432",
        "MY_DB_SERVICE_PORT_SQL=5432",
        "MY_DB_PORT=tcp://10.0.0.9:5432",
        "MY_DB_PORT_5432_TCP=tcp://10.0.0.9:5432",
        "MY_DB_PORT_5432_TCP_PROTO=tcp",
        "MY_DB_PORT_5432_TCP_PORT=5432",
        "MY_DB_PORT_5432_TCP_ADDR=10.0.0.9",
    ];
    assert_eq!(names, expected);
}

/// KEP-3721: a file or a variable that is not there is an error, unless it is optional.
#[test]
fn variables_come_from_files() {
    let service = ("SVC_HOST", "10.0.0.1");
    let of = |path: &str, key: &str, optional: bool| {
        let source = json!({"fileKeyRef": {"volumeName": "v", "path": path, "key": key, "optional": optional}});
        json!({"env": [{"name": "X", "valueFrom": source}, {"name": "Y", "value": "<$(X)>"}]})
    };
    check(of("env", "A", false), Ok(&[service, ("X", "from file"), ("Y", "<from file>")]));
    let absent = [service, ("Y", "<$(X)>")];
    check(of("env", "B", true), Ok(&absent));
    check(of("none", "A", true), Ok(&absent));
    check(of("env", "B", false), Err("environment variable key \"B\" not found in file \"env\" in volume \"v\""));
    check(
        of("none", "A", false),
        Err("failed to open environment variable file \"none\" in volume \"v\": no such file or directory"),
    );
    check(of("pipe", "A", true), Err("failed to open environment variable file \"pipe\" in volume \"v\": it is no file"));
    let quotes = "environment variable file \"bad\" in volume \"v\": invalid environment variable format at line 1: value must be enclosed in single quotes";
    check(of("bad", "A", true), Err(quotes));
}

/// A manifest of some kilobytes must not become gigabytes: Linux gives no program more than this (execve(2)).
#[test]
fn what_no_program_can_be_given_is_refused() {
    let one = |name: &str, value: String| json!({"name": name, "value": value});
    let grows = json!([
        one("A", "x".repeat(1000)),
        one("B", "$(A)".repeat(100)),
        one("C", "$(B)".repeat(100)),
        one("D", "$(C)".repeat(100))
    ]);
    let long = "a variable or argument has more than 128 KiB, which no program can be given";
    check(json!({"env": grows}), Err(long));
    let many: Vec<_> = (0..30).map(|number| one(&format!("V{number}"), "x".repeat(100_000))).collect();
    check(json!({"env": many}), Err("variables and arguments have more than 2 MiB together, which no program can be given"));
    let from: Vec<_> =
        (0..400_000).map(|number| json!({"prefix": format!("P{number}_"), "configMapRef": {"name": "m"}})).collect();
    check(json!({"envFrom": from}), Err("variables and arguments have more than 2 MiB together, which no program can be given"));
}
