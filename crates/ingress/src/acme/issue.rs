//! One order, from its names to its certificate.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base::tls::Identity;
use instant_acme::{Account, AuthorizationStatus, ChallengeType, Identifier, NewOrder, Order, OrderStatus, RetryPolicy};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::challenges::Challenges;

/// How long an issuer may take to look at proofs, and to issue.
const PATIENCE: RetryPolicy = RetryPolicy::new().initial_delay(Duration::from_millis(250)).timeout(Duration::from_secs(120));
/// RFC 8555, 6.7.
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// There is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The issuer, or the way to it.
    #[error("{}", chain(.0))]
    Acme(#[from] instant_acme::Error),
    /// A name could not be proved.
    #[error("{name} could not be proved: {why}")]
    Unproved {
        /// Which.
        name: String,
        /// What the issuer says.
        why: String,
    },
    /// The issuer proves names by other ways only.
    #[error("the issuer offers no proof of {0} over HTTP (HTTP-01)")]
    NoHttp(String),
    /// The order did not get ready.
    #[error("the issuer says that the order is {0}")]
    Order(String),
    /// The key or the request.
    #[error("a request for a certificate cannot be made: {0}")]
    Request(#[from] rcgen::Error),
    /// What was issued.
    #[error("the issued certificate: {0}")]
    Certificate(#[from] base::tls::Error),
    /// A Secret.
    #[error("{0}")]
    Api(#[from] client::kube::Error),
    /// The account in its Secret.
    #[error("the account in Secret {0} cannot be read")]
    Account(String),
}

impl Error {
    /// Whether the issuer has forgotten the account.
    pub(super) fn is_without_account(&self) -> bool {
        matches!(self, Self::Acme(instant_acme::Error::Api(problem)) if problem.r#type.as_deref() == Some(NO_ACCOUNT))
    }
}

/// An error with its causes.
fn chain(error: &instant_acme::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

/// Has a certificate issued for these names.
pub(super) async fn issue(account: &Account, names: &BTreeSet<String>, challenges: &Arc<Challenges>) -> Result<Identity, Error> {
    let identifiers: Vec<Identifier> = names.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    let mut shown = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let name = authorization.identifier().to_string();
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            _ => return Err(Error::Unproved { name, why: "its authorization is no longer valid".to_owned() }),
        }
        let mut challenge = authorization.challenge(ChallengeType::Http01).ok_or(Error::NoHttp(name))?;
        shown.push(challenges.show(&challenge.token.clone(), challenge.key_authorization().as_str()));
        challenge.set_ready().await?;
    }
    let failed = match order.poll_ready(&PATIENCE).await {
        Ok(OrderStatus::Ready) => None,
        Ok(status) => Some(Error::Order(format!("{status:?}").to_lowercase())),
        Err(error @ instant_acme::Error::Api(_)) => Some(error.into()),
        Err(error) => return Err(error.into()),
    };
    if let Some(failed) = failed {
        // The authorizations say of which name, and why.
        return Err(reason(&mut order).await.unwrap_or(failed));
    }
    drop(shown);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
    params.distinguished_name = DistinguishedName::new();
    order.finalize_csr(params.serialize_request(&key)?.der()).await?;
    let certificate = order.poll_certificate(&PATIENCE).await?;
    Ok(Identity { certificate, key: key.serialize_pem() })
}

/// Why an order has failed.
async fn reason(order: &mut Order) -> Option<Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.ok()?;
        authorization.refresh().await.ok()?;
        let name = authorization.identifier().to_string();
        let failed = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = failed {
            let why = problem.detail.clone().or_else(|| problem.r#type.clone()).unwrap_or_default();
            return Some(Error::Unproved { name, why });
        }
    }
    None
}
