#![allow(clippy::unwrap_used)]
use http::Request;
use registry::Layer;

use super::*;
use crate::metrics::{self, Asked as Measured};

/// The events of a request that came then and that something happens to.
async fn events(omit: &str, lasts: bool, came: Instant, happen: impl FnOnce(&Arc<Record>)) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let (log, write) = Log::open(LogOptions { path: path.clone(), ..LogOptions::default() }).unwrap();
    let policy = format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [{omit}], rules: [{{level: Metadata}}]}}");
    let policy = Policy::parse(&policy).unwrap();
    let audit = Audit { policy, backends: Backends { log: Some(log.clone()), webhook: None } };
    let (parts, ()) = Request::get("/version").body(()).unwrap().into_parts();
    let annotations = Annotations::default();
    let (what, who) = (("get", lasts), (None, &annotations));
    let record = audit.begin(&parts, &Route::Other, "/version", what, who, came).await.unwrap();
    annotations.add("example.com/seen", "yes");
    happen(&record);
    drop(record);
    log.close();
    write.await;
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The same by stage, with the code and the message of the answer.
async fn told(omit: &str, lasts: bool, happen: impl FnOnce(&Arc<Record>)) -> Vec<(String, u64, String)> {
    let event = |event: Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let seen = event["stage"] == "RequestReceived" || event["annotations"]["example.com/seen"] == "yes";
        assert!(seen, "{event}");
        let status = &event["responseStatus"];
        (text(&event["stage"]), status["code"].as_u64().unwrap_or(0), text(&status["message"]))
    };
    events(omit, lasts, Instant::now(), happen).await.into_iter().map(event).collect()
}

fn expected(events: &[(&str, u64, &str)]) -> Vec<(String, u64, String)> {
    events.iter().map(|(stage, code, message)| ((*stage).to_owned(), *code, (*message).to_owned())).collect()
}

/// `WithAudit`: "send audit event when we leave this func, either via a panic or cleanly".
#[tokio::test]
async fn whatever_happens_to_a_request_is_told() {
    let (received, closed) = (("RequestReceived", 0, ""), "Connection closed early");
    let check = async |lasts: bool, events: &[(&str, u64, &str)]| {
        assert_eq!(told("", lasts, |_| {}).await, expected(events), "{lasts}");
    };
    check(false, &[received, ("ResponseComplete", 200, closed)]).await;
    check(true, &[received, ("ResponseStarted", 200, closed), ("ResponseComplete", 200, closed)]).await;
    let some = told("RequestReceived, ResponseStarted", true, |_| {}).await;
    assert_eq!(some, expected(&[("ResponseComplete", 200, closed)]));
    let panicked = told("", true, |record| record.panicked("a fault")).await;
    assert_eq!(panicked, expected(&[received, ("Panic", 500, "APIServer panic'd: a fault")]));
}

/// What answers a request is told by what lasts, and by what does not.
#[tokio::test]
async fn the_end_of_what_lasts_is_told() {
    let answer = |record: &Arc<Record>, code: u16, lasts: bool| {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
        let (parts, ()) = Request::get("/api/v1/pods?watch=1").body(()).unwrap().into_parts();
        let plan = crate::dispatch::Plan { verbs: vec!["watch"], handler: Ok(crate::dispatch::Handler::Document) };
        let asked = Measured::of(&plan, &Route::Other, None, &parts);
        let ongoing = metrics::load::Ongoing::begin(&asked, std::time::Instant::now()).filter(|_| lasts);
        // There is room in the log: nothing is waited for.
        futures::FutureExt::now_or_never(record.answered(&mut response, ongoing.as_ref())).unwrap();
        ongoing
    };
    let received = ("RequestReceived", 0, "");
    let short = told("", false, |record| drop(answer(record, 201, false))).await;
    assert_eq!(short, expected(&[received, ("ResponseComplete", 201, "")]));
    let mut still = None;
    let begun = told("", true, |record| still = answer(record, 101, true)).await;
    assert_eq!(begun, expected(&[received, ("ResponseStarted", 101, "")]));
    let ended = told("", true, |record| drop(answer(record, 101, true))).await;
    assert_eq!(ended, expected(&[received, ("ResponseStarted", 101, ""), ("ResponseComplete", 101, "")]));
}

/// Upstream's TestAudit: of requests that take longer than half a second it is told what took the time.
#[tokio::test]
async fn what_takes_the_time_of_slow_requests_is_told() {
    let annotations = async |came: Instant| {
        let events = events("", true, came, |record| {
            record.annotations.took(Layer::Storage, Duration::from_micros(450_250));
        });
        let events = events.await;
        assert!(
            events.iter().all(|event| event["requestReceivedTimestamp"].as_str() <= event["stageTimestamp"].as_str()),
            "{events:?}"
        );
        let told = |event: &Value| {
            ["etcd", "authorization", "total"]
                .map(|layer| event["annotations"][format!("apiserver.latency.k8s.io/{layer}")].clone())
        };
        assert!(events[..2].iter().all(|event| told(event).iter().all(Value::is_null)), "{events:?}");
        told(&events[2])
    };
    let (now, minute) = (Instant::now(), Duration::from_secs(60));
    let [storage, authorization, total] = annotations(now.checked_sub(minute).unwrap()).await;
    assert_eq!((storage, authorization), (json!("450.25ms"), Value::Null));
    // As long as the test takes besides.
    assert!(total.as_str().unwrap().starts_with("1m"), "{total}");
    assert!(annotations(now + minute).await.iter().all(Value::is_null));
}

/// What is logged, echoed and handed on is an ID.
#[test]
fn requests_have_good_ids() {
    let check = |brought: Option<&[u8]>, is_kept: bool| {
        let mut headers = HeaderMap::new();
        brought.map(|id| headers.insert(ID, HeaderValue::from_bytes(id).unwrap()));
        name(&mut headers);
        let id = &headers[ID];
        assert_eq!(brought == Some(id.as_bytes()), is_kept, "{id:?}");
        assert!(is_kept || id.len() == 36, "{id:?}");
    };
    check(Some(b"my-id"), true);
    check(Some(&[b'a'; 255]), true);
    check(Some(&[b'a'; 256]), false);
    for bad in [&b""[..], b"a b", b"\xff", b"../x"] {
        check(Some(bad), false);
    }
    check(None, false);
}
