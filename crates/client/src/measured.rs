//! The figures of a component's requests, under client-go's names.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use base::metrics::{Histograms, Page};
use http::{Method, Request, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    code: Code,
    host: Arc<str>,
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    host: Arc<str>,
    verb: &'static str,
}

/// The code of an answer; none when there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Code(Option<u16>);

impl prometheus_client::encoding::EncodeLabelValue for Code {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>) -> std::fmt::Result {
        match self.0 {
            Some(code) => code.encode(encoder),
            None => "<error>".encode(encoder),
        }
    }
}

/// The figures of one page.
#[derive(Clone, Debug)]
pub struct Meter {
    host: Arc<str>,
    requests: Family<Answered, Counter>,
    seconds: Histograms<Asked>,
}

const SECONDS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];

impl Meter {
    /// Registers the figures on `page`, once for all components that are on it. `host` is where the API is.
    pub fn new(page: Page, host: impl Into<Arc<str>>) -> Self {
        Self {
            host: host.into(),
            requests: page.register(
                "rest_client_requests",
                "Number of HTTP requests, partitioned by status code, method, and host",
                Family::default(),
            ),
            seconds: page.register(
                "rest_client_request_duration_seconds",
                "Request latency in seconds. Broken down by verb, and host",
                Family::new_with_constructor(|| Histogram::new(SECONDS)),
            ),
        }
    }

    /// Measures the requests that go through `service`: of a watch, until it begins.
    pub fn measure<S>(&self, service: S) -> Measured<S> {
        Measured { service, meter: self.clone() }
    }

    fn answered(&self, method: &'static str, code: Option<u16>, started: Instant) {
        let host = self.host.clone();
        self.seconds.get_or_create(&Asked { host: host.clone(), verb: method }).observe(started.elapsed().as_secs_f64());
        self.requests.get_or_create(&Answered { code: Code(code), host, method }).inc();
    }
}

/// A transport whose requests are measured.
#[derive(Clone, Debug)]
pub struct Measured<S> {
    service: S,
    meter: Meter,
}

impl<S, A, B> tower::Service<Request<A>> for Measured<S>
where
    S: tower::Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let (started, meter, method) = (Instant::now(), self.meter.clone(), name(request.method()));
        let answer = self.service.call(request);
        Box::pin(async move {
            let answer = answer.await;
            meter.answered(method, answer.as_ref().ok().map(|answer| answer.status().as_u16()), started);
            answer
        })
    }
}

fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use base::metrics::Format;
    use tower::ServiceExt;

    #[tokio::test]
    async fn answers_and_failures_are_counted() {
        let service = tower::service_fn(|request: Request<()>| async move {
            match *request.method() {
                Method::GET => Ok(Response::builder().status(404).body(()).unwrap()),
                _ => Err("no connection"),
            }
        });
        let measured = Meter::new(Page::Node, "api:6443").measure(service);
        for method in [Method::GET, Method::GET, Method::PATCH] {
            let _ = measured.clone().oneshot(Request::builder().method(method).body(()).unwrap()).await;
        }
        let page = Page::Node.encode(Format::Text);
        for line in [
            r#"rest_client_requests_total{code="404",host="api:6443",method="GET"} 2"#,
            r#"rest_client_requests_total{code="<error>",host="api:6443",method="PATCH"} 1"#,
            r#"rest_client_request_duration_seconds_count{host="api:6443",verb="GET"} 2"#,
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in {page}");
        }
    }
}
