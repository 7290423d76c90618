//! Webhooks that convert and hang, answer garbage or without an end, or lie about what they were given.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::{once, pending};
use http_body_util::BodyExt;
use parking_lot::Mutex;

use super::converted::{V1, V2, converted_by, foo, honest};
use super::*;
use crate::https::{Https, Reply, streamed, whole, without_end};

/// What is answered to a review, none never.
type Behaviour = Arc<dyn Fn(&Value) -> Option<Reply> + Send + Sync>;

/// A webhook that does what a test says.
struct Webhook {
    https: Https,
    asked: Arc<AtomicUsize>,
    behaviour: Arc<Mutex<Behaviour>>,
}

/// A review with this response.
fn answered(response: &Value) -> Reply {
    let review = json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": response});
    whole(200, review.to_string())
}

impl Webhook {
    async fn start() -> Self {
        let asked: Arc<AtomicUsize> = Arc::default();
        let behaviour = Arc::new(Mutex::new(Arc::new(|review: &Value| Some(answered(&honest(review)))) as Behaviour));
        let (count, how) = (asked.clone(), behaviour.clone());
        let https = Https::start("localhost", None, 0, move |request, _| {
            let (count, how) = (count.clone(), how.clone());
            Box::pin(async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                count.fetch_add(1, Ordering::SeqCst);
                let behaviour = how.lock().clone();
                match behaviour(&serde_json::from_slice(&body).unwrap()) {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            })
        })
        .await;
        Self { https, asked, behaviour }
    }

    /// From now on it does this.
    fn behave(&self, how: impl Fn(&Value) -> Option<Reply> + Send + Sync + 'static) {
        *self.behaviour.lock() = Arc::new(how);
    }

    /// From now on it converts, and changes its response in this way.
    fn lie(&self, how: impl Fn(&mut Value) + Send + Sync + 'static) {
        self.behave(move |review| {
            let mut response = honest(review);
            how(&mut response);
            Some(answered(&response))
        });
    }
}

/// A server with the object `a`, stored as v1, and its webhook.
async fn world() -> (Server, Webhook) {
    let (server, hook) = (serve().await, Webhook::start().await);
    namespace(&server.api, "ns").await;
    define(&server.api, &converted_by(&hook.https)).await;
    ask(&server.api, 201, &format!("POST {V1}"), &foo("a", json!({"hostPort": "h:80"}))).await;
    (server, hook)
}

/// Every way in which a conversion is needed, with its body.
async fn requests(api: &Api) -> Vec<(String, Value)> {
    let mut replaced = foo("a", json!({"host": "i", "port": "1"}));
    replaced["metadata"]["resourceVersion"] = get(api, &format!("{V1}/a")).await["metadata"]["resourceVersion"].clone();
    let merge = "content-type: application/merge-patch+json";
    vec![
        (format!("GET {V2}/a?timeout=3s"), Value::Null),
        (format!("GET {V2}?timeout=3s"), Value::Null),
        (format!("PATCH {V2}/a?timeout=3s\n{merge}"), json!({"port": "1"})),
        (format!("PUT {V2}/a?timeout=3s"), replaced),
        (format!("POST {V2}?timeout=3s"), foo("b", json!({"host": "i", "port": "1"}))),
        (format!("DELETE {V2}/a?timeout=3s"), Value::Null),
    ]
}

async fn request(api: &Api, (request, body): &(String, Value)) -> Answer {
    if body.is_null() { admin(api, request).await } else { send(api, request, body).await }
}

/// Requests that need a conversion are refused in time with what is wrong, and change nothing; what needs none is as it was.
async fn all_are_refused(api: &Api, code: u16, expected: &str) {
    let before = get(api, V1).await["items"].clone();
    let (asked, begun) = (requests(api).await, Instant::now());
    let answers = join_all(asked.iter().map(|one| request(api, one))).await;
    for (answer, one) in answers.iter().zip(&asked) {
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(answer.code == code && message.contains(expected), "{}: {} {message}", one.0, answer.code);
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(get(api, V1).await["items"], before);
}

/// Upstream's `webhook_converter.go`: an answer that is none is an error of the request, and its time is the request's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage() {
    let (server, hook) = world().await;
    let api = &server.api;
    let of = "conversion webhook for example.com/v";
    hook.behave(|_| Some(whole(200, "")));
    all_are_refused(api, 500, of).await;
    hook.behave(|_| Some(whole(200, "<html>")));
    all_are_refused(
        api,
        500,
        "failed: couldn't get version/kind; json parse error: invalid character '<' looking for beginning of value",
    )
    .await;
    hook.behave(|_| Some(whole(200, "[".repeat(900_000))));
    all_are_refused(api, 500, "json parse error: invalid character '[' exceeded max depth").await;
    hook.behave(|_| Some(whole(503, "down")));
    all_are_refused(api, 500, "an error on the server (\"down\") has prevented the request from succeeding").await;
    hook.behave(|_| {
        let mut reply = whole(302, "");
        reply.headers_mut().insert("location", "https://localhost/convert".parse().unwrap());
        Some(reply)
    });
    all_are_refused(api, 500, "the server responded with the status code 302").await;
    hook.behave(|_| None);
    all_are_refused(api, 504, "").await;
    let begun = || once(async { Bytes::from_static(b"{\"kind\":") });
    hook.behave(move |_| Some(streamed(begun().chain(pending()))));
    all_are_refused(api, 504, "").await;
    // It is asked anew each time, and what it said before is not held against it.
    hook.lie(|_| {});
    assert_eq!(get(api, &format!("{V2}/a")).await["port"], "80");
}

/// Bytes of the program's memory at most so far.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// Answers without an end are read up to their largest size, two at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_end() {
    let (server, hook) = world().await;
    let (sent, before) = (Arc::<AtomicUsize>::default(), peak());
    let endless = sent.clone();
    hook.behave(move |_| Some(without_end(endless.clone())));
    let one = format!("GET {V2}/a");
    let answers = join_all((0..6).map(|_| admin(&server.api, &one))).await;
    for answer in answers {
        assert!(
            answer.code == 500
                && answer.json()["message"].as_str().unwrap().contains("the response body is larger than 33554432 bytes")
        );
    }
    let (sent, grown) = (sent.load(Ordering::Relaxed), peak() - before);
    assert!(sent > 6 * (32 << 20) && grown < 256 << 20, "{sent} bytes sent, {grown} bytes of memory");
}

/// What a webhook says of an object beyond its content, labels and annotations is refused or is not heard.
#[tokio::test]
async fn lies() {
    let (server, hook) = world().await;
    let api = &server.api;
    let check = async |how: fn(&mut Value), expected: &str| {
        hook.lie(how);
        all_are_refused(api, 500, expected).await;
    };
    check(|of| of["convertedObjects"][0]["apiVersion"] = "example.com/v3".into(), "invalid groupVersion (expected example.com/v")
        .await;
    check(|of| of["convertedObjects"][0]["kind"] = "Bar".into(), "invalid kind (expected Foo, received Bar)").await;
    check(|of| of["convertedObjects"][0]["metadata"] = Value::Null, "invalid metadata of type <nil> in converted object").await;
    check(|of| of["convertedObjects"][0]["metadata"]["name"] = "z".into(), "must have the same name: ").await;
    check(|of| of["convertedObjects"][0]["metadata"]["uid"] = "forged".into(), "must have the same UID: ").await;
    check(|of| of["convertedObjects"][0]["metadata"]["namespace"] = "kube-system".into(), "must have the same namespace: ns != ")
        .await;
    check(|of| of["convertedObjects"][0]["metadata"]["labels"] = json!({"a": 5}), "invalid labels in converted object").await;
    check(|of| of["convertedObjects"][0]["metadata"]["labels"] = json!({"a b": "c"}), "metadata.labels: Invalid value: \"a b\"")
        .await;
    check(|of| of["convertedObjects"][0]["metadata"]["labels"] = json!({"a": "-"}), "metadata.labels: Invalid value: \"-\"")
        .await;
    check(
        |of| of["convertedObjects"][0]["metadata"]["annotations"] = json!({"a": "b".repeat(300 << 10)}),
        "metadata.annotations: Too long",
    )
    .await;
    check(|of| of["convertedObjects"] = json!([]), "returned 0 objects, expected 1").await;
    check(|of| of["convertedObjects"] = json!("all"), "returned 0 objects, expected 1").await;
    check(|of| of["convertedObjects"][0] = json!(5), "invalid groupVersion (expected example.com/v").await;
    check(|of| of["uid"] = "other".into(), "expected response.uid ").await;
    check(|of| of["result"] = json!({"status": "Maybe"}), "response.result.status was 'Maybe', not 'Success'").await;
    // Not heard: who made the object and when, and what keeps it.
    let own = get(api, &format!("{V1}/a")).await["metadata"].clone();
    hook.lie(|of| {
        let metadata = &mut of["convertedObjects"][0]["metadata"];
        for (key, value) in [
            ("creationTimestamp", json!("2000-01-01T00:00:00Z")),
            ("resourceVersion", json!("1")),
            ("generation", json!(99)),
            ("deletionTimestamp", json!("2000-01-01T00:00:00Z")),
            ("finalizers", json!(["example.com/forged"])),
            ("ownerReferences", json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}])),
            ("managedFields", json!(5)),
        ] {
            metadata[key] = value;
        }
    });
    assert_eq!(get(api, &format!("{V2}/a")).await["metadata"], own);
    ask(api, 201, &format!("POST {V2}"), &foo("b", json!({"host": "i", "port": "1"}))).await;
    let stored = get(api, &format!("{V1}/b")).await["metadata"].clone();
    assert_eq!((&stored["generation"], stored.get("finalizers"), stored.get("deletionTimestamp")), (&json!(1), None, None));
    // What the schema does not know is pruned, and what it refuses is refused.
    hook.lie(|of| of["convertedObjects"][0]["unknown"] = json!({"a": "b"}));
    assert_eq!(get(api, &format!("{V2}/a")).await.get("unknown"), None);
}

/// How long each of some requests takes that have nothing to do with the webhook, or need no conversion. `host` is a name that they leave.
async fn others(api: &Api, host: &str) -> Vec<Duration> {
    let mut times = Vec::new();
    for number in 0..20 {
        let merge = "content-type: application/merge-patch+json";
        let requests = [
            (format!("PATCH {V1}/a\n{merge}"), json!({"hostPort": format!("{host}:{number}")})),
            (format!("GET {V1}"), Value::Null),
            ("POST /api/v1/namespaces/ns/configmaps".to_owned(), crate::server::config_map(&format!("{host}{number}"))),
            (format!("GET /api/v1/namespaces/ns/configmaps/{host}{number}"), Value::Null),
            ("GET /apis/example.com".to_owned(), Value::Null),
        ];
        for one in requests {
            let begun = Instant::now();
            let answer = request(api, &one).await;
            assert!(answer.code < 300, "{}: {:?}", one.0, answer.body);
            times.push(begun.elapsed());
        }
    }
    times.sort();
    times
}

/// Issue 8: "the API answers others within 100 ms meanwhile". A machine that is busy may hold up single ones, and one that is slow may need longer
/// by what it needs while nothing hangs.
fn are_answered(calm: &[Duration], times: &[Duration]) {
    let at = |times: &[Duration]| (times[times.len() * 9 / 10], times[times.len() - 1]);
    let ((usual, longest), (most, last)) = (at(calm), at(times));
    let limits = (Duration::from_millis(100) + 5 * usual, Duration::from_secs(2) + 5 * longest);
    assert!(most < limits.0 && last < limits.1, "{most:?}, {last:?} of {limits:?}");
}

/// While a hundred requests and watches wait for a webhook that hangs, others are answered, and watches of the stored version go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_answered_meanwhile() {
    let (server, hook) = world().await;
    let api = &server.api;
    let calm = others(api, "c").await;
    let mut watch = Watch::start(api, V1).await;
    assert_eq!(watch.next().await["type"], "ADDED");
    hook.behave(|_| None);
    let mut watches = Vec::new();
    for _ in 0..4 {
        watches.push(Watch::start(api, V2).await);
    }
    let asked = requests(api).await;
    let hanging = join_all((0..96).map(|number| request(api, &asked[number % asked.len()])));
    let reading = join_all(watches.iter_mut().map(Watch::next));
    let free = async {
        // The watches wait for one conversion.
        while hook.asked.load(Ordering::SeqCst) < 96 + 1 {
            tokio::task::yield_now().await;
        }
        let times = others(api, "h").await;
        // Who watches is told at once.
        let seen = async { while watch.next().await["object"]["hostPort"] != "h:19" {} };
        tokio::time::timeout(Duration::from_secs(60), seen).await.expect("watches of the stored version go on");
        times
    };
    let (hung, times) = tokio::select! {
        both = async { tokio::join!(hanging, free) } => both,
        events = reading => panic!("a webhook that hangs has converted {events:?}"),
    };
    are_answered(&calm, &times);
    assert!(hung.iter().all(|answer| answer.code == 504));
}

/// Webhooks that begin large answers and do not end them hold up neither others' requests nor large answers of other webhooks, whether they
/// stop soon or have sent as much as an answer may have, and however many they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_of_others_come_meanwhile() {
    large_answers_come(1, 1 << 20).await;
    large_answers_come(3, 31 << 20).await;
}

/// Makes a definition like that of the world in another group.
async fn define_in(api: &Api, group: &str, hook: &Webhook) {
    let mut definition = converted_by(&hook.https);
    definition["metadata"]["name"] = format!("foos.{group}").into();
    definition["spec"]["group"] = group.into();
    define(api, &definition).await;
}

fn foos_in(group: &str, version: &str) -> String {
    format!("/apis/{group}/{version}/namespaces/ns/foos")
}

/// So many webhooks send so many bytes each and no more.
async fn large_answers_come(hostile: usize, bytes: usize) {
    let (server, hook) = world().await;
    let api = &server.api;
    let other = Webhook::start().await;
    other.behave(|review| {
        let mut response = json!({"uid": review["request"]["uid"], "result": {"status": "Success"}, "convertedObjects": review["request"]["objects"]});
        response["convertedObjects"][0]["apiVersion"] = review["request"]["desiredAPIVersion"].clone();
        response["convertedObjects"][0]["host"] = "x".repeat(300_000).into();
        Some(answered(&response))
    });
    define_in(api, "other.example.com", &other).await;
    let path = |version: &str| foos_in("other.example.com", version);
    ask(api, 201, &format!("POST {}", path("v1")), &foo("large", json!({"hostPort": "h:80"}))).await;

    let calm = others(api, "c").await;
    let begun = move || once(async move { Bytes::from(vec![b' '; bytes]) });
    let stops = move |_: &Value| Some(streamed(begun().chain(pending())));
    hook.behave(stops);
    let (mut asked, mut hooks) = (requests(api).await, vec![hook]);
    for number in 1..hostile {
        let more = Webhook::start().await;
        let group = format!("hostile{number}.example.com");
        define_in(api, &group, &more).await;
        ask(api, 201, &format!("POST {}", foos_in(&group, "v1")), &foo("a", json!({"hostPort": "h:80"}))).await;
        more.behave(stops);
        asked.push((format!("GET {}/a?timeout=3s", foos_in(&group, "v2")), Value::Null));
        hooks.push(more);
    }
    let hanging = join_all((0..12).map(|number| request(api, &asked[number % asked.len()])));
    let free = async {
        while hooks.iter().map(|hook| hook.asked.load(Ordering::SeqCst)).sum::<usize>() < 12 {
            tokio::task::yield_now().await;
        }
        let begun = Instant::now();
        let large = get(api, &format!("{}/large", path("v2"))).await;
        assert_eq!(large["host"].as_str().unwrap().len(), 300_000);
        (begun.elapsed(), others(api, "h").await)
    };
    let (_, (large, times)) = tokio::join!(hanging, free);
    assert!(large < Duration::from_secs(2) + 20 * calm[calm.len() - 1], "{large:?}");
    are_answered(&calm, &times);
}
