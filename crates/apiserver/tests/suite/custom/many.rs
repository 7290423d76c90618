//! Many definitions: what one costs on top of the others.

use std::time::{Duration, Instant};

use super::*;

const AGGREGATED: &str = "GET /apis\naccept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn nth(number: usize, fields: usize) -> Value {
    let field = |at: usize| {
        let schema = json!({
            "type": "object", "description": format!("What the field {at} of the kind {number} is for, in some words."),
            "properties": {
                "mode": {"type": "string", "enum": ["a", "b"]}, "count": {"type": "integer", "minimum": 0, "default": at},
            },
        });
        (format!("field{at}"), schema)
    };
    let fields: serde_json::Map<String, Value> = (0..fields).map(field).collect();
    let mut definition = definition(
        &format!("kinds{number}"),
        &format!("Kind{number}"),
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}}),
    );
    // Ten kinds in a group.
    let group = format!("group{}.example.com", number / 10);
    definition["metadata"]["name"] = format!("kinds{number}.{group}").into();
    definition["spec"]["group"] = group.into();
    definition["spec"]["versions"][0]["subresources"] = json!({"status": {}, "scale": {
        "specReplicasPath": ".spec.field0.count", "statusReplicasPath": ".status.count",
    }});
    definition
}

async fn hashes(api: &Api) -> serde_json::Map<String, Value> {
    get(api, "/openapi/v3").await["paths"].as_object().unwrap().clone()
}

/// The entity tag of an answer, of whichever code.
async fn tag(api: &Api, request: &str) -> (u16, String) {
    let answer = admin(api, request).await;
    (answer.code, answer.headers["etag"].to_str().unwrap().to_owned())
}

/// Sources: `k8s.io/kube-openapi/pkg/handler3` (a hash for each group version, by which clients keep documents).
#[tokio::test]
async fn a_definition_changes_the_documents_that_tell_of_it() {
    let mut server = serve().await;
    for number in [0, 1, 10] {
        define(&server.api, &nth(number, 2)).await;
    }
    let api = &server.api;
    let (before, v2) = (hashes(api).await, tag(api, "GET /openapi/v2").await.1);
    assert_eq!(tag(api, &format!("GET /openapi/v2\nif-none-match: {v2}")).await, (304, v2.clone()));
    define(api, &nth(11, 2)).await;
    let after = hashes(api).await;
    let changed: Vec<&String> =
        after.iter().filter(|(key, value)| before.get(*key) != Some(*value)).map(|(key, _)| key).collect();
    assert_eq!(changed, ["apis/group1.example.com/v1"]);
    assert_ne!(tag(api, "GET /openapi/v2").await.1, v2);
    // The entity tag is the hash, and the old address leads to the present document.
    let url = |paths: &serde_json::Map<String, Value>| {
        paths["apis/group1.example.com/v1"]["serverRelativeURL"].as_str().unwrap().to_owned()
    };
    let moved = admin(api, &format!("GET {}", url(&before))).await;
    assert_eq!((moved.code, moved.headers["location"].to_str().unwrap()), (301, url(&after).as_str()));
    let (code, own) = tag(api, &format!("GET {}", url(&after))).await;
    assert_eq!((code, own.trim_matches('"')), (200, url(&after).split_once("hash=").unwrap().1));
    // What clients keep is good after a restart.
    server.restart().await;
    assert_eq!(hashes(&server.api).await, after);
}

/// The same document, whole and gzipped, after changes and made at once by another server; and nothing is told twice.
#[tokio::test]
async fn documents_of_parts_are_those_that_are_made_at_once() {
    let mut server = serve().await;
    let documents = ["/openapi/v2", "/openapi/v3/apis/group0.example.com/v1", "/openapi/v3/apis/apps/v1"];
    for number in 0..3 {
        define(&server.api, &nth(number, 2)).await;
        for document in documents {
            get(&server.api, document).await;
        }
    }
    let protobuf = "GET /openapi/v2\naccept: application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    let (mut texts, message) = (Vec::new(), admin(&server.api, protobuf).await.body);
    for document in documents {
        let plain = admin(&server.api, &format!("GET {document}")).await.body;
        let gzip = admin(&server.api, &format!("GET {document}\naccept-encoding: gzip")).await.body;
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&gzip[..]), &mut unpacked).unwrap();
        assert!(plain == unpacked, "{document}");
        let value: Value = serde_json::from_slice(&plain).unwrap();
        assert_eq!(value.to_string().len(), plain.len(), "{document}: a name is there twice");
        texts.push(value);
    }
    server.restart().await;
    for (document, text) in documents.into_iter().zip(&texts) {
        assert!(get(&server.api, document).await == *text, "{document}");
    }
    assert!(admin(&server.api, protobuf).await.body == message);
    let find = |needle: &str| message.windows(needle.len()).filter(|window| *window == needle.as_bytes()).count();
    assert_eq!(find("/apis/group0.example.com/v1/namespaces/{namespace}/kinds2/{name}/scale"), 1);
}

/// Definitions that come in a crowd are established in the order in which they have come, each by one write; who came first has the names.
#[tokio::test]
async fn a_crowd_of_definitions() {
    const CROWD: usize = 60;
    let server = serve().await;
    let api = &server.api;
    let mut watch = Watch::start(api, DEFINITIONS).await;
    for number in 0..CROWD {
        assert_eq!(admin(api, &format!("POST {DEFINITIONS}\n\n{}", nth(number, 1))).await.code, 201);
    }
    // The kind of the first, wanted by two that come one after the other, and by one of another group.
    let wants = |plural: &str, group: &str| {
        let mut definition = nth(0, 1);
        definition["metadata"]["name"] = format!("{plural}.{group}").into();
        definition["spec"]["group"] = group.into();
        definition["spec"]["names"] = json!({"plural": plural, "kind": "Wanted"});
        definition
    };
    let last = [("as", "group0.example.com"), ("bs", "group0.example.com"), ("as", "elsewhere.example.com")];
    for (plural, group) in last {
        assert_eq!(admin(api, &format!("POST {DEFINITIONS}\n\n{}", wants(plural, group))).await.code, 201);
    }
    let (mut events, mut settled) = (std::collections::BTreeMap::new(), 0);
    while settled < CROWD + last.len() {
        let event = watch.next().await;
        *events.entry(event["object"]["metadata"]["name"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        settled += usize::from(!condition(&event["object"], "NamesAccepted").is_empty());
    }
    let often: Vec<_> = events.iter().filter(|(_, times)| **times != 2).collect();
    assert!(often.is_empty(), "made and established, no more: {often:?}");
    for (plural, group) in last {
        let accepted = get(api, &format!("{DEFINITIONS}/{plural}.{group}")).await;
        let expected = if plural == "bs" { "False" } else { "True" };
        assert_eq!(condition(&accepted, "NamesAccepted"), expected, "{plural}.{group}");
    }
    for number in 0..CROWD {
        get(api, &format!("/apis/group{}.example.com/v1/kinds{number}", number / 10)).await;
    }
    // Whoever waits for a name gets it when it is free, without being asked.
    assert_eq!(admin(api, &format!("DELETE {DEFINITIONS}/as.group0.example.com")).await.code, 200);
    until(api, &"bs.group0.example.com".into(), |object| condition(object, "Established") == "True").await;
}

/// Prints what a definition costs on top of many others: `KNARR_DEFINITIONS=1000 cargo test --release -p apiserver --test suite -- many::figures
/// --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn figures_of_many() {
    let many: usize = std::env::var("KNARR_DEFINITIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    let server = serve().await;
    let api = &server.api;
    let begin = Instant::now();
    for number in 0..many {
        assert_eq!(admin(api, &format!("POST {DEFINITIONS}\n\n{}", nth(number, 21))).await.code, 201);
    }
    println!("{many} definitions created one after the other: {:?} each", begin.elapsed() / many as u32);
    let (begin, last) = (Instant::now(), many + 1000);
    define(api, &nth(last, 21)).await;
    println!("one more, at once after them: {:?}", begin.elapsed());
    let v3 = "GET /openapi/v3/apis/group0.example.com/v1";
    let requests = [
        ("aggregated discovery", AGGREGATED),
        ("discovery of groups", "GET /apis"),
        ("OpenAPI v3, index", "GET /openapi/v3"),
        ("OpenAPI v3, a group", v3),
        ("OpenAPI v2, gzip", "GET /openapi/v2\naccept-encoding: gzip"),
        ("OpenAPI v2, plain", "GET /openapi/v2"),
        (
            "OpenAPI v2, protobuf, gzip",
            "GET /openapi/v2\naccept: application/com.github.proto-openapi.spec.v2.v1.0+protobuf\naccept-encoding: gzip",
        ),
    ];
    println!("resident: {} MB", resident());
    for (name, request) in requests {
        let ask = async || {
            let begin = Instant::now();
            let answer = admin(api, request).await;
            assert_eq!(answer.code, 200);
            (begin.elapsed(), answer.body.len())
        };
        let (first, _) = ask().await;
        let (mut changed, mut served) = (Vec::new(), Vec::new());
        for round in 0..5 {
            let one = nth(round, 21 + round % 2 + 1);
            let path = format!("{DEFINITIONS}/{}", one["metadata"]["name"].as_str().unwrap());
            let patch = json!({"spec": one["spec"]});
            let code = admin(api, &format!("PATCH {path}\ncontent-type: application/merge-patch+json\n\n{patch}")).await.code;
            assert_eq!(code, 200);
            let new = nth(many + changed.len(), 21);
            let begin = Instant::now();
            assert_eq!(admin(api, &format!("POST {DEFINITIONS}\n\n{new}")).await.code, 201);
            let path = format!("GET /apis/{}/v1/kinds{}", new["spec"]["group"].as_str().unwrap(), many + changed.len());
            while admin(api, &path).await.code != 200 {
                tokio::task::yield_now().await;
            }
            served.push(begin.elapsed());
            changed.push(ask().await.0);
            let path = format!("{DEFINITIONS}/{}", new["metadata"]["name"].as_str().unwrap());
            assert_eq!(admin(api, &format!("DELETE {path}")).await.code, 200);
            while admin(api, &format!("GET {path}")).await.code != 404 {
                tokio::task::yield_now().await;
            }
        }
        let (same, size) = ask().await;
        changed.sort();
        let worst = served.iter().max().copied().unwrap_or(Duration::ZERO);
        println!(
            "{name}: {size} bytes, first {first:?}, after a change {:?} to {:?}, unchanged {same:?}; a new kind served after {worst:?}; resident {} MB",
            changed[0],
            changed[4],
            resident(),
        );
    }
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}
