use super::*;
use crate::testing::object;
use k8s_openapi::api::autoscaling::v2::MetricIdentifier;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[test]
fn annotations_say_where_metrics_are() {
    let check = |annotations: Value, service: bool, expected: Option<(&str, &str)>| {
        let annotated = |own: bool| if own { annotations.clone() } else { json!({}) };
        let pod: Pod =
            object(json!({"metadata": {"annotations": annotated(!service)}, "status": {"podIP": "10.0.0.7"}, "spec": {
            "containers": [{"name": "c", "ports": [{"containerPort": 8080}, {"name": "web", "containerPort": 9090}]}]}}));
        let ports = json!([{"port": 80, "targetPort": "web"}]);
        let of: Service = object(json!({"metadata": {"annotations": annotated(service)}, "spec": {"ports": ports}}));
        let place = if service { behind(&of, &pod) } else { of_pod(&pod) };
        let shown = place.map(|place| (place.address.to_string(), place.path));
        assert_eq!(shown, expected.map(|(address, path)| (address.to_owned(), path.to_owned())), "{annotations}");
    };
    check(json!({}), false, None);
    check(json!({"prometheus.io/scrape": "false"}), false, None);
    check(json!({"prometheus.io/scrape": "true"}), false, Some(("10.0.0.7:8080", "/metrics")));
    check(json!({"prometheus.io/scrape": "true"}), true, Some(("10.0.0.7:9090", "/metrics")));
    let all = json!({"prometheus.io/scrape": "true", "prometheus.io/port": "1234", "prometheus.io/path": "stats?x=y"});
    check(all.clone(), false, Some(("10.0.0.7:1234", "/stats?x=y")));
    check(all, true, Some(("10.0.0.7:1234", "/stats?x=y")));
    check(json!({"prometheus.io/scrape": "true", "prometheus.io/port": "web"}), false, None);
}

/// A server that counts its requests.
async fn counting() -> Place {
    counting_up_to(usize::MAX).await
}

/// The same, which refuses all after so many.
async fn counting_up_to(most: usize) -> Place {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async move {
        for count in 0..most {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /metrics HTTP/1.1"));
            let body = format!("hits_total {}\nready 1\n", count * 10);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
    };
    #[allow(clippy::disallowed_methods)] // Ends with the test's runtime.
    tokio::spawn(serve);
    Place { address, path: "/metrics".to_owned() }
}

fn wanted(names: &[&str]) -> Wanted {
    let metrics: Vec<MetricIdentifier> = names.iter().map(|name| object(json!({"name": name}))).collect();
    Wanted::new(metrics.iter())
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[tokio::test]
async fn counters_become_rates() {
    let (place, scraper, wanted) = (counting().await, Scraper::default(), wanted(&["hits", "ready", "other"]));
    let measure = async |place: &Place| scraper.measure(vec![place.clone()], &wanted, soon()).await.remove(0).1;
    let first = measure(&place).await.unwrap();
    // Ten more at the second look, a second later.
    assert!((5.0..=10.0).contains(&first[0].unwrap().value), "{first:?}");
    assert_eq!(first[1..], [Some(Measured { value: 1.0, window: SignedDuration::ZERO }), None]);
    assert_eq!(measure(&place).await.unwrap()[0], first[0], "too soon for another rate");
    let closed = Place { address: "127.0.0.1:1".parse().unwrap(), ..place };
    assert!(measure(&closed).await.unwrap_err().to_string().ends_with(": connect: connection refused"));
}

/// What the first look has found is there, though the second finds nobody: only the rate of the counter is not known.
#[tokio::test]
async fn a_second_look_that_fails_takes_nothing_away() {
    let (place, scraper, wanted) = (counting_up_to(1).await, Scraper::default(), wanted(&["hits", "ready"]));
    let found = scraper.measure(vec![place], &wanted, soon()).await.remove(0).1.unwrap();
    assert_eq!(found, [None, Some(Measured { value: 1.0, window: SignedDuration::ZERO })]);
}

/// Answers all connections when `open` says so; `most` is how many were open at once.
async fn crowd(open: tokio::sync::watch::Receiver<bool>, most: Arc<AtomicUsize>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async move {
        let count = Arc::new(AtomicUsize::new(0));
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            most.fetch_max(count.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let (mut open, count) = (open.clone(), count.clone());
            #[allow(clippy::disallowed_methods)] // Ends with the test's runtime.
            tokio::spawn(async move {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = open.wait_for(|open| *open).await;
                count.fetch_sub(1, Ordering::SeqCst);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\na 1\n").await;
            });
        }
    };
    #[allow(clippy::disallowed_methods)] // Ends with the test's runtime.
    tokio::spawn(serve);
    address
}

/// Many autoscalers with many pods each open no more connections than there are places.
#[tokio::test]
async fn only_so_many_pages_are_read_at_once() {
    let (open, opened) = tokio::sync::watch::channel(false);
    let most = Arc::new(AtomicUsize::new(0));
    let address = crowd(opened, most.clone()).await;
    let (scraper, wanted) = (Scraper::default(), wanted(&["a"]));
    let places = |look| (0..20).map(move |number| Place { address, path: format!("/{look}/{number}") }).collect();
    let looks = (0..20).map(|look| scraper.measure(places(look), &wanted, soon()));
    let full = async {
        while most.load(Ordering::SeqCst) < fetch::SOCKETS {
            tokio::task::yield_now().await;
        }
        open.send_replace(true);
    };
    let (looks, ()) = futures::future::join(futures::future::join_all(looks), full).await;
    assert!(looks.iter().flatten().all(|(_, measures)| measures.as_ref().is_ok_and(|all| all[0].is_some())));
    assert_eq!(most.load(Ordering::SeqCst), fetch::SOCKETS);
}

/// Of pods that do not answer the time of a look is lost, and not that time for each of them.
#[tokio::test]
async fn a_look_ends_when_pods_do_not_answer() {
    let (_open, opened) = tokio::sync::watch::channel(false);
    let address = crowd(opened, Arc::default()).await;
    let places: Vec<Place> = (0..1000).map(|number| Place { address, path: format!("/{number}") }).collect();
    let (started, scraper, look) = (Instant::now(), Scraper::default(), Duration::from_secs(1));
    let found = scraper.measure(places, &wanted(&["a"]), started + look).await;
    assert!(
        found.len() == 1000 && found.iter().all(|(_, one)| matches!(one.as_ref().unwrap_err().as_ref(), FetchError::Late(..)))
    );
    // All the places at once, one after the other, would lose it so often.
    let rounds = (1000 / fetch::SOCKETS) as u32;
    assert!(started.elapsed() < rounds * look, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_page_has_a_limit() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'#'; 4096]).await.is_ok() {}
    };
    let sockets = Sockets::new();
    let (page, ()) = futures::future::join(sockets.page(address, "/"), serve).await;
    assert!(matches!(page, Err(FetchError::Page(..))));
}

#[tokio::test]
async fn a_counter_that_begins_anew_counts_from_nothing() {
    let scraper = Scraper::default();
    let place = Place { address: "127.0.0.1:1".parse().unwrap(), path: String::new() };
    let (key, start) = ((place, ("a".to_owned(), String::new())), Instant::now());
    let rate = |seconds, count| scraper.rate(&key, count, start + Duration::from_secs(seconds)).map(|measured| measured.value);
    assert_eq!(rate(0, 100.0), None);
    assert_eq!(rate(10, 150.0), Some(5.0));
    assert_eq!(rate(20, 30.0), Some(3.0));
    assert_eq!(rate(200, 40.0), None);
}
