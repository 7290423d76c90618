//! How a machine comes to know its server: by the digest in its token.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::tls;
use client::remote::{Remote, Server};
use client::{Client, kube};
use http::header::HeaderValue;
use serde_json::Value;
use tokio::time::Instant;

use super::authority::Trusted;
use crate::bootstrap::nodes::{INFO, published};
use crate::token::JoinToken;

/// Who asks, before the node has a name.
pub(super) const AGENT: HeaderValue = HeaderValue::from_static("knarr");
/// Delay before something is tried again, doubling up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// How long nobody is told that something does not succeed: a server that starts writes things one after the other.
const SILENCE: Duration = Duration::from_secs(3);

/// Tries until it succeeds; `what` is logged with the reason.
pub(super) async fn until<T, F: Future<Output = kube::Result<T>>>(what: &str, mut attempt: impl FnMut() -> F) -> T {
    let (mut delay, begun) = (RETRY.0, Instant::now());
    loop {
        let mut asking = pin!(attempt());
        let answered = tokio::select! {
            answered = asking.as_mut() => answered,
            () = tokio::time::sleep_until(begun + SILENCE), if begun.elapsed() < SILENCE => {
                tracing::warn!("{what} yet: there is no answer so far");
                asking.await
            }
        };
        match answered {
            Ok(found) => return found,
            Err(error) if begun.elapsed() >= SILENCE => tracing::warn!(error = why(&error), "{what} yet, trying again"),
            Err(error) => tracing::debug!(error = why(&error), "{what} yet, trying again"),
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY.1);
    }
}

/// Why a request of the node failed, and what to do where trying again does not help.
fn why(error: &kube::Error) -> String {
    let why = client::why(error);
    match base::connection::is_unknown_authority(error) {
        true => format!(
            "{why}: if the cluster's authorities were rotated without this node (rotate-ca --finish --force), it has to join again, with a new token \
             (knarr token create, --token-file)"
        ),
        false => why,
    }
}

/// The authority of the token, from the file or, without knowing yet who answers, from the server.
pub(super) async fn authority(server: &Server, token: Option<&JoinToken>, trusted: &Trusted) -> Result<String> {
    let known = trusted.read()?;
    let Some(token) = token else {
        return known.context("this machine has not joined yet: say with --token-file which token it joins with");
    };
    if let Some(known) = known
        && trusted.is_of(&known, &token.digest)?
    {
        return Ok(known);
    }
    let remote = Remote::new(server.clone(), tls::client_of_anybody()?, AGENT);
    let client = Client::new(remote, "default");
    let info: Value = until(&format!("the server {server} cannot be asked for its authority"), || async {
        client.request(http::Request::get(INFO).body(Vec::new()).map_err(kube::Error::HttpError)?).await
    })
    .await;
    let bundle = published(&info).context("what the server tells of itself cannot be read")?;
    // Other authorities beside that of the token are told by the server once it is known who it is.
    let Some(bundle) = tls::vouched(&bundle, &token.digest) else {
        bail!(
            "the server {server} has another authority than the token says: the token is of another cluster, or of this one before its \
             authority was rotated (knarr token create makes another), or somebody else answers at this address"
        );
    };
    trusted.begin(&bundle)?;
    Ok(bundle)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As rustls, tokio-rustls and hyper-util put it.
    #[test]
    fn who_was_shut_out_is_told_what_to_do() {
        let check = |error: rustls::CertificateError, expected: bool| {
            let error = std::io::Error::new(std::io::ErrorKind::InvalidData, rustls::Error::InvalidCertificate(error));
            let told = why(&kube::Error::Service(Box::new(std::io::Error::other(error))));
            assert_eq!(told.contains("has to join again"), expected, "{told}");
        };
        check(rustls::CertificateError::UnknownIssuer, true);
        check(rustls::CertificateError::Expired, false);
    }
}
