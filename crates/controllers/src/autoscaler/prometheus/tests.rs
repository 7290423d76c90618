use super::*;
use crate::testing::object;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PAGE: &str = "# TYPE http_requests_total counter\n\
    http_requests_total{code=\"200\",method=\"get\"} 90\nhttp_requests_total{code=\"500\",method=\"get\"} 10\n\
    # TYPE queue_length gauge\nqueue_length{queue=\"a\"} 7\nqueue_length{queue=\"b\"} 5\n\
    # TYPE bytes counter\nbytes 4\nbroken NaN\n";

#[test]
fn metrics_on_a_page() {
    let check = |metric: &str, selector: &str, expected: Option<Reading>| {
        let selector = Selector::parse(selector).unwrap();
        assert_eq!(read(PAGE, Wanted { metric, selector: &selector }), expected, "{metric}");
    };
    check("queue_length", "", Some(Reading::Gauge(12.0)));
    check("queue_length", "queue=b", Some(Reading::Gauge(5.0)));
    check("queue_length", "queue=c", None);
    for name in ["http_requests", "http_requests_total", "http_requests_per_second", "http_requests_total_per_second"] {
        check(name, "", Some(Reading::Counter(100.0)));
    }
    check("http_requests", "code=500", Some(Reading::Counter(10.0)));
    check("bytes", "", Some(Reading::Counter(4.0)));
    check("broken", "", None);
    check("http", "", None);
}

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
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async move {
        for count in 0.. {
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

#[tokio::test]
async fn counters_become_rates() {
    let (place, scraper, everything) = (counting().await, Scraper::default(), Selector::everything());
    let wanted = |metric| Wanted { metric, selector: &everything };
    let first = scraper.measure(&place, wanted("hits")).await.unwrap().unwrap();
    // Ten more at the second look, a second later.
    assert!((5.0..=10.0).contains(&first.value), "{first:?}");
    let again = scraper.measure(&place, wanted("hits")).await.unwrap().unwrap();
    assert_eq!(again, first, "too soon for another rate");
    let gauge = scraper.measure(&place, wanted("ready")).await.unwrap();
    assert_eq!(gauge, Some(Measured { value: 1.0, window: SignedDuration::ZERO }));
    assert_eq!(scraper.measure(&place, wanted("other")).await.unwrap(), None);
    let closed = Place { address: "127.0.0.1:1".parse().unwrap(), ..place };
    assert!(matches!(scraper.measure(&closed, wanted("hits")).await, Err(FetchError::Connect(..))));
}

#[tokio::test]
async fn a_counter_that_begins_anew_counts_from_nothing() {
    let scraper = Scraper::default();
    let place = Place { address: "127.0.0.1:1".parse().unwrap(), path: String::new() };
    let (key, start) = ((place, "a".to_owned(), String::new()), Instant::now());
    let rate = |seconds, count| scraper.rate(&key, count, start + Duration::from_secs(seconds)).map(|measured| measured.value);
    assert_eq!(rate(0, 100.0), None);
    assert_eq!(rate(10, 150.0), Some(5.0));
    assert_eq!(rate(20, 30.0), Some(3.0));
    assert_eq!(rate(200, 40.0), None);
}
