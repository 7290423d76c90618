//! What one webhook adds to a write, beside a bare round trip to the same server. Both trips are made by another process than the
//! webhook's: what it costs to change between processes is a part of either.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use base::tasks::{OnFailure, Tasks};
use base::tls::{self, Authority, Request as Certificate, Resolver};
use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::load::{Ask, Until, once, run};
use super::super::{MAPS, alone, config_map, usage};
use crate::api::Endpoint;

const WEBHOOKS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

/// What one webhook adds to a write of one client.
pub struct Added {
    /// Median of a write without it.
    pub without: Duration,
    /// Median of a write with it.
    pub with: Duration,
    /// Median of the same review sent to its server by a process that does nothing else.
    pub bare: Duration,
    /// CPU time of the API server.
    pub cpu: Duration,
    /// Calls for each write.
    pub calls: f64,
}

/// Allows everything.
async fn allow(request: Request<Incoming>, calls: Arc<AtomicU64>) -> Result<Response<Full<Bytes>>> {
    calls.fetch_add(1, Ordering::Relaxed);
    let review: Value = serde_json::from_slice(&request.into_body().collect().await?.to_bytes())?;
    let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": {"uid": review["request"]["uid"], "allowed": true}});
    Ok(Response::builder().header("content-type", "application/json").body(Full::from(answer.to_string()))?)
}

/// Where a server listens, whom it is trusted by, and how often it was called.
async fn serve(tasks: &Tasks) -> Result<(Endpoint, Arc<Authority>, Arc<AtomicU64>)> {
    let authority = Arc::new(Authority::in_memory("webhook")?);
    let certificate = Certificate::Server { name: "webhook".into(), sans: vec!["127.0.0.1".into()] };
    let acceptor = TlsAcceptor::from(tls::server(Resolver::memory(authority.clone(), certificate)?, None)?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = Endpoint::trusting(listener.local_addr()?, authority.bundle())?;
    let calls: Arc<AtomicU64> = Arc::default();
    let (own, counted) = (tasks.clone(), calls.clone());
    tasks.spawn_until_cancelled("webhook", OnFailure::Log, async move {
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (acceptor, calls) = (acceptor.clone(), counted.clone());
            own.spawn_until_cancelled("connection", OnFailure::Log, async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let service = service_fn(move |request| allow(request, calls.clone()));
                    // How a client ends is its own affair.
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                }
                Ok::<_, Infallible>(())
            });
        }
        #[allow(unreachable_code, reason = "what the task may fail with")]
        Ok::<_, std::io::Error>(())
    });
    Ok((endpoint, authority, calls))
}

/// Writes ConfigMaps as one client, without a webhook and with one. Nothing is stored: what differs is the webhook.
///
/// # Errors
/// When one of both refuses.
pub async fn added(api: &Endpoint, pid: i32, time: Duration, scratch: &Path) -> Result<Added> {
    let (tasks, _failures) = Tasks::root();
    let (webhook, authority, calls) = serve(&tasks).await?;
    let (until, write) = (Until::Time(time), |number: u64| Ask::post(format!("{MAPS}?dryRun=All"), config_map("hooked", number)));
    let measured = async || {
        let before = usage::cpu_of(pid);
        let mut done = run(api, 1, until, write).await?;
        let cpu = usage::cpu_of(pid).saturating_sub(before).div_f64(done.operations.max(1) as f64);
        Ok::<_, anyhow::Error>((done.at_percent(50), cpu, done.operations))
    };
    let (without, cpu, _) = measured().await?;
    let bundle = base64::engine::general_purpose::STANDARD.encode(authority.bundle());
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]);
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "bench"},
        "webhooks": [{"name": "bench.webhook.example", "admissionReviewVersions": ["v1"], "sideEffects": "None", "rules": rules,
            "clientConfig": {"url": format!("https://{}/validate", webhook.address), "caBundle": bundle}}],
    });
    once(api, Ask::post(WEBHOOKS, configuration.to_string())).await?;
    let (with, cpu_with, writes) = measured().await?;
    let made = calls.load(Ordering::Relaxed) as f64 / writes.max(1) as f64;
    once(api, Ask { method: http::Method::DELETE, ..Ask::get(format!("{WEBHOOKS}/bench")) }).await?;
    let bundle = scratch.join("webhook.pem");
    std::fs::write(&bundle, authority.bundle())?;
    let arguments = [webhook.address.to_string(), bundle.display().to_string(), time.as_millis().to_string()];
    let bare = Duration::from_nanos(alone::told("reviewing", &arguments).await?.trim().parse()?);
    tasks.drain(Duration::from_secs(1)).await;
    Ok(Added { without, with, bare, cpu: cpu_with.saturating_sub(cpu), calls: made })
}

/// Sends reviews to a webhook at an address that is trusted by a file, and prints the nanoseconds of the median.
///
/// # Errors
/// When it does not answer.
pub fn reviewing(arguments: &[String]) -> Result<()> {
    let [address, bundle, millis] = arguments else { bail!("an address, a file with certificates, and a time") };
    let webhook = Endpoint::trusting(address.parse()?, &std::fs::read_to_string(bundle)?)?;
    let object: Value = serde_json::from_slice(&config_map("hooked", 0))?;
    let review = Bytes::from(
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {"uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "operation": "CREATE", "object": object}})
        .to_string(),
    );
    let until = Until::Time(Duration::from_millis(millis.parse()?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut done = runtime.block_on(run(&webhook, 1, until, |_| Ask::post("/validate", review.clone())))?;
    println!("{}", done.at_percent(50).as_nanos());
    Ok(())
}
