//! How a machine comes to know its server: by the digest in its token.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::tls;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::remote::{Remote, Server};
use client::{Client, kube};
use http::header::HeaderValue;
use serde_json::Value;

use crate::token::JoinToken;

/// Who asks, before the node has a name.
pub(super) const AGENT: HeaderValue = HeaderValue::from_static("knarr");
const INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
/// Delay before something is tried again, doubling up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Tries until it succeeds; `what` is logged with the reason.
pub(super) async fn until<T, F: Future<Output = kube::Result<T>>>(what: &str, mut attempt: impl FnMut() -> F) -> T {
    let mut delay = RETRY.0;
    loop {
        match attempt().await {
            Ok(found) => return found,
            // A server that starts writes things one after the other.
            Err(error) if delay > Duration::from_secs(1) => {
                tracing::warn!(error = client::why(&error), "{what} yet, trying again")
            }
            Err(error) => tracing::debug!(error = client::why(&error), "{what} yet, trying again"),
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY.1);
    }
}

/// The authority of the token, from the file or, without knowing yet who answers, from the server.
pub(super) async fn authority(server: &Server, token: Option<&JoinToken>, path: &Path) -> Result<String> {
    let known = tls::read_private(path)?;
    let Some(token) = token else {
        return known.context("this machine has not joined yet: say with --token-file which token it joins with");
    };
    if let Some(known) = known
        && tls::digest_of_bundle(&known).is_ok_and(|digest| digest == token.digest)
    {
        return Ok(known);
    }
    let remote = Remote::new(server.clone(), tls::client_of_anybody()?, AGENT);
    let client = Client::new(remote, "default");
    let info: Value = until("the server cannot be asked for its authority", || async {
        client.request(http::Request::get(INFO).body(Vec::new()).map_err(kube::Error::HttpError)?).await
    })
    .await;
    let bundle = bundle(&info).context("what the server tells of itself cannot be read")?;
    if tls::digest_of_bundle(&bundle)? != token.digest {
        bail!(
            "the server {server} has another authority than the token says: either the token is of another cluster, or somebody \
             else answers at this address"
        );
    }
    tls::write_private(path, bundle.as_bytes())?;
    Ok(bundle)
}

/// The authority in a ConfigMap `cluster-info`.
fn bundle(info: &Value) -> Result<String> {
    let kubeconfig: Value = serde_json::from_str(info["data"]["kubeconfig"].as_str().unwrap_or_default())?;
    let data = &kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"];
    Ok(String::from_utf8(STANDARD.decode(data.as_str().context("no authority")?)?)?)
}
