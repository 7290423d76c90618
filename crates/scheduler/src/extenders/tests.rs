#![allow(clippy::unwrap_used)]

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::protocol::{self, Nodes, Victims};
use super::settings::{self, Settings};
use crate::framework::Verdict;
use crate::testing::pod;

fn settings(value: Value) -> Settings {
    serde_json::from_value(value).unwrap()
}

fn names(all: &[&str]) -> Vec<String> {
    all.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn settings_are_upstreams() {
    let check = |value: Value, expected: &str| {
        let all: Result<Vec<Settings>, _> = serde_json::from_value(value.clone());
        let told = match all {
            Ok(all) => settings::validate(&all).map_or_else(|(field, why)| format!("{field}: {why}"), |()| String::new()),
            Err(error) => error.to_string(),
        };
        assert!(told == expected || (!expected.is_empty() && told.contains(expected)), "{value}: {told}");
    };
    let url = "http://e:1/s";
    check(
        json!([{"urlPrefix": url, "filterVerb": "f", "managedResources": [{"name": "example.com/gpu", "ignoredByScheduler": true}]}]),
        "",
    );
    check(json!([{"urlPrefix": "https://[fd00::1]:1/"}, {"urlPrefix": url, "bindVerb": "b", "httpTimeout": "100ms"}]), "");
    check(json!([{}]), "extenders[0].urlPrefix: must be the beginning of a URL");
    check(json!([{"urlPrefix": "ftp://e"}]), "extenders[0].urlPrefix");
    check(json!([{"urlPrefix": url, "filterVerb": "a b"}]), "makes no URL with one of the verbs");
    check(json!([{"urlPrefix": url, "prioritizeVerb": "p"}]), "extenders[0].weight: must have a positive weight applied to it");
    let binder = json!({"urlPrefix": url, "bindVerb": "b"});
    check(json!([binder, binder]), "extenders: only one extender can implement bind");
    let managed = |name: &str| json!({"urlPrefix": url, "managedResources": [{"name": name}]});
    check(json!([managed("cpu")]), "extenders[0].managedResources[0].name: is an invalid extended resource name");
    check(json!([managed("kubernetes.io/x")]), "is an invalid extended resource name");
    check(json!([managed("-")]), "extenders[0].managedResources[0].name: name part must consist");
    check(
        json!([managed("a.b/c"), managed("a.b/c")]),
        "extenders[1].managedResources[0].name: duplicate extender managed resource name",
    );
    check(json!([{"urlPrefix": url, "httpTimeout": "-1s"}]), "httpTimeout \"-1s\" is no duration");
    check(json!([{"urlPrefix": url, "filter": "f"}]), "unknown field `filter`");
    check(json!([{"urlPrefix": url, "tlsConfig": {"keyData": "?"}}]), "it is not base64");
    let times = |value: Value| settings(json!({"httpTimeout": value})).timeout();
    assert_eq!([times(Value::Null), times(json!("0s")), times(json!("1m30s"))], [5, 5, 90].map(Duration::from_secs));
    let key = settings(json!({"tlsConfig": {"keyData": STANDARD.encode("secret")}}));
    assert!(!format!("{key:?}").contains("secret"), "keys are not shown");
    assert_eq!(settings(json!({"urlPrefix": "http://e/x/"})).url("filter"), "http://e/x/filter");
}

#[test]
fn a_pod_concerns_whoever_manages_what_it_asks_for() {
    let all = [
        settings(json!({"managedResources": [{"name": "a.b/gpu"}, {"name": "a.b/tpu"}]})),
        settings(json!({})),
        settings(json!({"managedResources": [{"name": "a.b/nic"}]})),
    ];
    let check = |spec: Value, expected: u64| {
        assert_eq!(settings::lane(all.iter(), &pod("p", spec.clone())), expected, "{spec}");
    };
    let container = |kind: &str, name: &str| json!({"name": "c", "resources": {kind: {name: "1"}}});
    check(json!({}), 0b010);
    check(json!({"containers": [container("requests", "a.b/tpu")]}), 0b011);
    check(json!({"containers": [container("limits", "a.b/nic")]}), 0b110);
    check(json!({"containers": [{"name": "c"}], "initContainers": [container("requests", "a.b/gpu")]}), 0b011);
}

#[test]
fn what_is_sent_is_upstreams_form() {
    let read = |body: Vec<u8>| serde_json::from_slice::<Value>(&body).unwrap();
    let pod = br#"{"metadata":{"name":"p"}}"#;
    let body = read(protocol::arguments(pod, &Nodes::Names(&names(&["a", "\"b"]))));
    assert_eq!(body, json!({"Pod": {"metadata": {"name": "p"}}, "Nodes": null, "NodeNames": ["a", "\"b"]}));
    let body = read(protocol::arguments(pod, &Nodes::Objects(vec![b"{\"kind\":\"Node\"}", b"{}"])));
    assert_eq!(body["Nodes"]["items"], json!([{"kind": "Node"}, {}]));
    let victims = [
        Victims { node: "n".into(), uids: names(&["1", "2"]), held: 1 },
        Victims { node: "m".into(), uids: names(&["3"]), held: 0 },
    ];
    let body = read(protocol::preemption_arguments(pod, &victims, None));
    let expected = json!({"n": {"Pods": [{"UID": "1"}, {"UID": "2"}], "NumPDBViolations": 1}, "m": {"Pods": [{"UID": "3"}], "NumPDBViolations": 0}});
    assert_eq!(body["NodeNameToMetaVictims"], expected);
    let objects = [("2".to_owned(), b"{\"x\":2}".to_vec())].into();
    let body = read(protocol::preemption_arguments(pod, &victims, Some(&objects)));
    assert_eq!(body["NodeNameToVictims"]["n"], json!({"Pods": [{"x": 2}], "NumPDBViolations": 1}));
}

#[test]
fn answers_about_nodes() {
    let check = |answer: &str, expected: &str| {
        let told = match protocol::filtered(answer.as_bytes(), &names(&["a", "b", "c"]), "http://e") {
            Ok((passed, refused)) => {
                let shown = |one: protocol::Refused| {
                    let kind = if one.verdict == Verdict::Occupied { "occupied" } else { "unfit" };
                    format!("{} {kind}: {}", one.node, one.reason)
                };
                let refused: Vec<String> = refused.into_iter().map(shown).collect();
                format!("{} | {}", passed.join(" "), refused.join(", "))
            }
            Err(error) => error.to_string(),
        };
        assert!(told == expected || (!expected.contains('|') && told.contains(expected)), "{answer}: {told}");
    };
    let silent = |node: &str| format!("{node} unfit: node(s) were refused by extender http://e");
    check(r#"{"NodeNames": ["c", "a", "b"]}"#, "c a b | ");
    check(
        r#"{"NodeNames": ["b", "b"], "FailedNodes": {"a": "no gpu", "zzz": "?"}, "FailedAndUnresolvableNodes": {"c": "old"}}"#,
        "b | a occupied: no gpu, c unfit: old",
    );
    check(
        r#"{"nodenames": ["a", "b"], "failedNodes": {"c": "x"}, "failedAndUnresolvableNodes": {"c": "y"}, "error": ""}"#,
        "a b | c unfit: y",
    );
    check(
        r#"{"Nodes": {"items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]}, "FailedNodes": {"c": ""}}"#,
        "a b | c occupied: node(s) were refused by extender http://e",
    );
    check("{}", &format!(" | {}, {}, {}", silent("a"), silent("b"), silent("c")));
    check("{\"NodeNames\": [\"a\", \"b\", \"c\"]} and more", "a b c | ");
    // Garbage and lies.
    check("", "its answer cannot be read");
    check("<html>", "its answer cannot be read");
    check("[]", "its answer has no body of the right type");
    check(r#"{"NodeNames": "a"}"#, "its answer has no NodeNames of the right type");
    check(r#"{"NodeNames": [1]}"#, "its answer has no names of nodes of the right type");
    check(r#"{"Nodes": []}"#, "its answer has no Nodes of the right type");
    check(r#"{"Nodes": {"items": [{}]}}"#, "its answer has no names of nodes of the right type");
    check(r#"{"NodeNames": ["mine"]}"#, "it claims a filtered node \"mine\" which is not found in the input node list");
    check(r#"{"Error": "out of order", "NodeNames": ["a"]}"#, "out of order");
    let many: Vec<String> = (0..100).map(|number| format!("n{number}")).collect();
    let each: serde_json::Map<String, Value> =
        many.iter().map(|node| (node.clone(), json!(format!("{node} {}", "x".repeat(5000))))).collect();
    let (_, refused) = protocol::filtered(json!({"FailedNodes": each}).to_string().as_bytes(), &many, "http://e").unwrap();
    let reasons: std::collections::HashSet<&str> = refused.iter().map(|one| one.reason.as_str()).collect();
    assert_eq!((refused.len(), reasons.len()), (100, 17));
    assert!(reasons.iter().all(|reason| reason.len() <= 256));
}

#[test]
fn scores() {
    let check = |answer: &str, expected: Option<&[(&str, i64)]>| {
        let scores = protocol::priorities(answer.as_bytes()).ok();
        let expected = expected.map(|all| all.iter().map(|(node, score)| ((*node).to_owned(), *score)).collect::<Vec<_>>());
        assert_eq!(scores, expected, "{answer}");
    };
    check(r#"[{"Host": "a", "Score": 3}, {"host": "b", "score": -1}, {"Host": "c"}]"#, Some(&[("a", 3), ("b", -1), ("c", 0)]));
    check("null", Some(&[]));
    check("{}", None);
    check(r#"[{"Host": "a", "Score": 1.5}]"#, None);
    check(r#"[{"Score": 1}]"#, None);
}

#[test]
fn victims() {
    let asked = [Victims { node: "n".into(), uids: names(&["1", "2"]), held: 1 }];
    let check = |answer: &str, ignorable: bool, expected: &str| {
        let told = match protocol::victims(answer.as_bytes(), &asked, ignorable) {
            Ok(all) => all
                .iter()
                .map(|one| format!("{}: {} ({})", one.node, one.uids.join(" "), one.held))
                .collect::<Vec<_>>()
                .join(", "),
            Err(error) => error.to_string(),
        };
        assert_eq!(told, expected, "{answer}");
    };
    check(
        r#"{"NodeNameToMetaVictims": {"n": {"Pods": [{"UID": "2"}, {"UID": "2"}], "NumPDBViolations": 0}}}"#,
        false,
        "n: 2 (0)",
    );
    check(r#"{"nodeNameToMetaVictims": {"n": {"pods": [{"uid": "2"}], "numPDBViolations": -5}}}"#, false, "n: 2 (0)");
    check("{}", false, "");
    check(
        r#"{"NodeNameToMetaVictims": {"m": {"Pods": [{"UID": "2"}]}}}"#,
        false,
        "it claims to preempt on node \"m\" which is not found in the input node list",
    );
    check(r#"{"NodeNameToMetaVictims": {"n": {"Pods": []}}}"#, false, "expected at least one victim pod on node \"n\"");
    check(r#"{"NodeNameToMetaVictims": {"n": null}}"#, true, "");
    check(r#"{"NodeNameToMetaVictims": {"n": {"Pods": [{}]}}}"#, true, "its answer has no UID of the right type");
    check("7", false, "its answer has no NodeNameToMetaVictims of the right type");
}
