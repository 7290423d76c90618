//! API priority and fairness, as clients from outside see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use apiserver::{Api, Body, Identity, authn};
use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Empty};
use registry::User;
use serde_json::{Value, json};
use tower::Service as _;

use crate::server::{Answer, Server, admin, config_map, grant, namespace, serve};

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

/// A `GET` of somebody who is not a component of this process.
async fn get(api: &Api, user: &User, path: &str) -> Answer {
    let (parts, body) = call(api, user, path).await.into_parts();
    Answer { code: parts.status.as_u16(), headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
}

async fn call(api: &Api, user: &User, path: &str) -> http::Response<Body> {
    let mut request = Request::get(path).body(Empty::<Bytes>::new()).unwrap();
    request.extensions_mut().insert(Identity::User(Arc::new(user.clone())));
    api.clone().call(request).await.unwrap()
}

fn jane() -> User {
    authn::user("jane", Vec::new())
}

async fn uid(api: &Api, path: &str) -> String {
    admin(api, &format!("GET {GROUP}/{path}")).await.json()["metadata"]["uid"].as_str().unwrap().to_owned()
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

/// The UID of the flow schema that a request belonged to.
fn schema(answer: &Answer) -> &str {
    header(answer, "x-kubernetes-pf-flowschema-uid")
}

pub(crate) fn level(name: &str, shares: u32, response: Value) -> Value {
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration", "metadata": {"name": name},
    "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": shares, "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": response,
    }}})
}

/// A schema for all that a user asks.
pub(crate) fn schema_of(name: &str, user: &str, level: &str) -> Value {
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": name}, "spec": {
        "matchingPrecedence": 500, "priorityLevelConfiguration": {"name": level}, "distinguisherMethod": {"type": "ByUser"},
        "rules": [{
            "subjects": [{"kind": "User", "user": {"name": user}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }],
    }})
}

pub(crate) async fn create(api: &Api, plural: &str, object: &Value) {
    let made = admin(api, &format!("POST {GROUP}/{plural}\n\n{object}")).await;
    assert_eq!(made.code, 201, "{:?}", made.body);
}

/// Asks until a request belongs to this schema.
pub(crate) async fn belongs(api: &Api, user: &User, path: &str, name: &str) -> Answer {
    let wanted = uid(api, &format!("flowschemas/{name}")).await;
    loop {
        let answer = get(api, user, path).await;
        if schema(&answer) == wanted {
            return answer;
        }
        tokio::task::yield_now().await;
    }
}

/// `flowcontrol.ResponseHeaderMatched...UID`: all answers tell it, also those that refuse.
#[tokio::test]
async fn answers_tell_where_the_request_belonged() {
    let server = serve().await;
    let api = &server.api;
    let check = async |user: &User, path: &str, code: u16, schema: &str, level: &str| {
        let answer = belongs(api, user, path, schema).await;
        assert_eq!(answer.code, code, "{path} {:?}", answer.body);
        let wanted = uid(api, &format!("prioritylevelconfigurations/{level}")).await;
        assert_eq!(header(&answer, "x-kubernetes-pf-prioritylevel-uid"), wanted, "{path}");
    };
    let master = authn::user("root", vec!["system:masters".into()]);
    let node = authn::user("system:node:n", vec!["system:nodes".into()]);
    check(&master, "/api/v1/nodes", 200, "exempt", "exempt").await;
    check(&jane(), "/api/v1/nodes", 403, "global-default", "global-default").await;
    check(&jane(), "/livez", 200, "probes", "exempt").await;
    check(&authn::service_account("n", "a"), "/api/v1/pods", 403, "service-accounts", "workload-low").await;
    check(&authn::service_account("kube-system", "a"), "/api/v1/pods", 403, "kube-system-service-accounts", "workload-high")
        .await;
    check(&node, "/api/v1/nodes/n", 404, "system-node-high", "node-high").await;
    check(&node, "/api/v1/services", 200, "system-nodes", "system").await;
    // Components of this process do not come here.
    assert_eq!(schema(&admin(api, "GET /api/v1/nodes").await), "");
}

/// Objects apply as soon as they are there, and a schema is told whether its level exists.
#[tokio::test]
async fn objects_apply_while_the_server_runs() {
    let server = serve().await;
    let api = &server.api;
    let condition = async |status: &str, reason: &str| {
        loop {
            let found = admin(api, &format!("GET {GROUP}/flowschemas/jane")).await.json();
            let condition = found["status"]["conditions"][0].clone();
            if condition["status"] == status {
                assert_eq!((&condition["type"], &condition["reason"]), (&json!("Dangling"), &json!(reason)), "{found}");
                let manager = "api-priority-and-fairness-config-consumer-v1";
                assert!(found["metadata"]["managedFields"].to_string().contains(manager), "{found}");
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    create(api, "flowschemas", &schema_of("jane", "jane", "none")).await;
    condition("True", "NotFound").await;
    belongs(api, &jane(), "/api/v1/nodes", "global-default").await;
    create(api, "prioritylevelconfigurations", &level("none", 1, json!({"type": "Reject"}))).await;
    condition("False", "Found").await;
    belongs(api, &jane(), "/api/v1/nodes", "jane").await;
    assert_eq!(admin(api, &format!("DELETE {GROUP}/flowschemas/jane")).await.code, 200);
    belongs(api, &jane(), "/api/v1/nodes", "global-default").await;
}

/// Kubernetes' documentation, "Maintenance of the Mandatory and Suggested Configuration Objects": mandatory objects have their
/// specification, suggested ones may have another, none stays deleted, and what the server made once and does not know any more goes.
#[tokio::test]
async fn own_objects_are_maintained() {
    let server = serve().await;
    let api = &server.api;
    let condition = async |path: &str, is: &dyn Fn(&Answer) -> bool| {
        while !is(&admin(api, &format!("GET {GROUP}/{path}")).await) {
            tokio::task::yield_now().await;
        }
    };
    let patch = async |path: &str, patch: Value| {
        let head = format!("PATCH {GROUP}/{path}\ncontent-type: application/merge-patch+json");
        admin(api, &format!("{head}\n\n{patch}")).await.code
    };
    // Both the objects and what follows them are there after the start.
    for (path, count) in [("flowschemas", 11), ("prioritylevelconfigurations", 8)] {
        condition(path, &|answer| answer.json()["items"].as_array().map(Vec::len) == Some(count)).await;
    }
    assert_eq!(patch("flowschemas/exempt", json!({"spec": {"matchingPrecedence": 3}})).await, 422);
    for path in ["flowschemas/exempt", "prioritylevelconfigurations/catch-all", "prioritylevelconfigurations/system"] {
        let before = uid(api, path).await;
        assert_eq!(admin(api, &format!("DELETE {GROUP}/{path}")).await.code, 200);
        condition(path, &|answer| answer.code == 200 && answer.json()["metadata"]["uid"] != before.as_str()).await;
    }
    let path = "prioritylevelconfigurations/workload-low";
    let shares = |shares: u32| json!({"spec": {"limited": {"nominalConcurrencyShares": shares}}});
    assert_eq!(patch(path, shares(50)).await, 200);
    condition(path, &|answer| answer.json()["spec"]["limited"]["nominalConcurrencyShares"] == 100).await;
    let own = json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}}});
    assert_eq!(patch(path, own).await, 200);
    assert_eq!(patch(path, shares(50)).await, 200);
    let mut old = schema_of("old", "jane", "system");
    old["metadata"]["annotations"] = json!({"apf.kubernetes.io/autoupdate-spec": "true"});
    create(api, "flowschemas", &old).await;
    condition("flowschemas/old", &|answer| answer.code == 404).await;
    // What was changed before is looked at before.
    let kept = admin(api, &format!("GET {GROUP}/{path}")).await.json();
    assert_eq!(kept["spec"]["limited"]["nominalConcurrencyShares"], 50);
}

/// A server on which jane may read, in a level of her own.
async fn limited(shares: u32, response: Value) -> Server {
    let server = serve().await;
    let api = &server.api;
    namespace(api, "n").await;
    let rules = json!([{"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["configmaps"]}]);
    grant(api, "jane", rules, "GET /api/v1/namespaces/n/configmaps").await;
    create(api, "prioritylevelconfigurations", &level("jane", shares, response)).await;
    create(api, "flowschemas", &schema_of("jane", "jane", "jane")).await;
    // With little time, as there may be no seat.
    belongs(api, &jane(), "/version?timeout=40ms", "jane").await;
    server
}

/// What is refused is told so as upstream tells it, and others do not notice.
#[tokio::test]
async fn who_is_refused_should_come_again() {
    let server = limited(0, json!({"type": "Reject"})).await;
    let (api, user, mut unread) = (&server.api, jane(), Vec::new());
    // One that is wider than its level is executed alone, as upstream. It holds its seat as long as nobody reads it, for five seconds.
    let (parts, body) = loop {
        let list = call(api, &user, "/api/v1/namespaces/n/configmaps").await;
        match list.status().as_u16() {
            200 => unread.push(list),
            _ => break list.into_parts(),
        }
    };
    let answer = Answer { code: parts.status.as_u16(), headers: parts.headers, body: body.collect().await.unwrap().to_bytes() };
    assert_eq!((answer.code, &answer.body[..]), (429, &b"Too many requests, please try again later.\n"[..]));
    let headers = ["retry-after", "content-type", "x-content-type-options"].map(|name| header(&answer, name));
    assert_eq!(headers, ["1", "text/plain; charset=utf-8", "nosniff"]);
    let master = authn::user("root", vec!["system:masters".into()]);
    assert_eq!(get(&server.api, &master, "/api/v1/namespaces/n/configmaps").await.code, 200);
    let page = get(&server.api, &master, "/metrics").await.body;
    let page = String::from_utf8_lossy(&page);
    let terminated = page.lines().find(|line| line.starts_with("apiserver_request_terminations_total{code=\"429\""));
    assert!(
        terminated.is_some_and(|line| line.contains("verb=\"LIST\",group=\"\",version=\"v1\",resource=\"configmaps\"")),
        "{page}"
    );
    let labels = r#"flow_schema="jane",reason="concurrency-limit""#;
    let line =
        page.lines().find(|line| line.starts_with("apiserver_flowcontrol_rejected_requests_total") && line.contains(labels));
    assert!(line.is_some(), "{page}");
}

/// A request waits for a quarter of the time that it has.
#[tokio::test]
async fn who_waits_too_long_is_refused() {
    let queuing = json!({"queues": 4, "handSize": 1, "queueLengthLimit": 10});
    let server = limited(0, json!({"type": "Queue", "queuing": queuing})).await;
    let path = "/api/v1/namespaces/n/configmaps";
    let started = Instant::now();
    let answer = get(&server.api, &jane(), &format!("{path}?timeout=200ms")).await;
    assert_eq!((answer.code, started.elapsed() >= Duration::from_millis(50)), (429, true));
    // With seats in the end it is answered.
    let (api, patched) = (&server.api, json!({"spec": {"limited": {"nominalConcurrencyShares": 10}}}));
    let patch =
        format!("PATCH {GROUP}/prioritylevelconfigurations/jane\ncontent-type: application/merge-patch+json\n\n{patched}");
    let user = jane();
    let (answer, patched) = tokio::join!(get(api, &user, path), admin(api, &patch));
    assert_eq!((answer.code, patched.code), (200, 200));
}

/// A watch takes a seat only to begin, and a list until it has been sent.
#[tokio::test]
async fn seats_are_free_again() {
    let server = limited(1, json!({"type": "Reject"})).await;
    let api = &server.api;
    let made = admin(api, &format!("POST /api/v1/namespaces/n/configmaps\n\n{}", config_map("m"))).await;
    assert_eq!(made.code, 201);
    let user = jane();
    let ask = |path| call(api, &user, path);
    let path = "/api/v1/namespaces/n/configmaps";
    let mut watches = Vec::new();
    for _ in 0..20 {
        let watch = ask("/api/v1/namespaces/n/configmaps?watch=true").await;
        assert_eq!(watch.status(), 200);
        watches.push(watch);
    }
    // 600 seats for 246 shares are three for one. Lists that nobody reads hold theirs for five seconds.
    let mut unread = Vec::new();
    let refused = loop {
        let list = ask(path).await;
        match list.status().as_u16() {
            200 => unread.push(list),
            code => break code,
        }
    };
    assert_eq!((refused, unread.len() >= 3), (429, true));
    for list in unread {
        list.into_body().collect().await.unwrap();
    }
    assert_eq!(ask(path).await.status(), 200);
}

/// Pages for administrators.
#[tokio::test]
async fn dumps() {
    let server = serve().await;
    let api = &server.api;
    let master = authn::user("root", vec!["system:masters".into()]);
    let page = async |name: &str| {
        let answer = get(api, &master, &format!("/debug/api_priority_and_fairness/{name}")).await;
        assert_eq!((answer.code, header(&answer, "content-type")), (200, "text/plain; charset=utf-8"), "{name}");
        String::from_utf8(answer.body.to_vec()).unwrap()
    };
    let levels = page("dump_priority_levels").await;
    let names: Vec<&str> = levels.lines().map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(names[..3], ["PriorityLevelName", "catch-all", "exempt"], "{levels}");
    assert_eq!(names.len(), 9);
    assert!(page("dump_queues").await.lines().count() > 500);
    assert!(page("dump_requests?includeRequestDetails=1").await.contains("UserName"));
    assert_eq!(get(api, &jane(), "/debug/api_priority_and_fairness/dump_queues").await.code, 403);
    assert_eq!(get(api, &master, "/debug/api_priority_and_fairness/other").await.code, 404);
}

/// Reads a list piece by piece, as it goes over a network, and counts it.
async fn list(api: &Api, user: &User, done: &AtomicUsize) -> u16 {
    let mut list = call(api, user, "/api/v1/namespaces/n/configmaps").await;
    while let Some(piece) = list.body_mut().frame().await {
        piece.unwrap();
        tokio::task::yield_now().await;
    }
    done.fetch_add(1, Ordering::Relaxed);
    list.status().as_u16()
}

/// KEP-1040: "one misbehaving client does not starve others". A client that lists all that there is a thousand times at once has its
/// seats and its queues and no more, and what another one asks meanwhile is answered at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_holds_up_others() {
    let server = serve().await;
    let api = &server.api;
    namespace(api, "n").await;
    let rules = json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["configmaps"]}]);
    for user in ["jane", "hog"] {
        grant(api, user, rules.clone(), "GET /api/v1/namespaces/n/configmaps").await;
    }
    let objects = (0..500).map(|n| {
        let mut object = config_map(&format!("m{n}"));
        object["data"]["a"] = "x".repeat(2000).into();
        object
    });
    let requests: Vec<String> = objects.map(|object| format!("POST /api/v1/namespaces/n/configmaps\n\n{object}")).collect();
    assert!(join_all(requests.iter().map(|request| admin(api, request))).await.iter().all(|answer| answer.code == 201));
    let (hog, jane, done) = (authn::user("hog", Vec::new()), jane(), Arc::new(AtomicUsize::new(0)));
    let (abused, counted) = (api.clone(), done.clone());
    let (send, codes) = tokio::sync::oneshot::channel();
    // All of them are sent before the first one is read.
    server.tasks.spawn("abuse", base::tasks::OnFailure::Log, async move {
        let _ = send.send(join_all((0..1000).map(|_| list(&abused, &hog, &counted))).await);
        Ok::<_, std::convert::Infallible>(())
    });
    let (mut longest, mut asked, begun) = (Duration::ZERO, 0, Instant::now());
    while done.load(Ordering::Relaxed) < 1000 {
        let started = Instant::now();
        assert_eq!(get(api, &jane, "/api/v1/namespaces/n/configmaps/m1").await.code, 200, "she is never refused");
        longest = longest.max(started.elapsed());
        asked += 1;
    }
    let (served, refused): (Vec<u16>, Vec<u16>) = codes.await.unwrap().into_iter().partition(|code| *code == 200);
    println!("{} lists were answered, {} refused; {asked} gets took at most {longest:?}", served.len(), refused.len());
    assert!(refused.iter().all(|code| *code == 429));
    assert!(served.len() > 100 && refused.len() > 500, "{} lists were answered", served.len());
    // Whoever waits for the others waits for most of the time that they take, which is much on a slow machine.
    let limit = Duration::from_secs(1).max(begun.elapsed() / 3);
    assert!(asked > 10 && longest < limit, "{asked} gets took at most {longest:?}, not {limit:?}");
}
