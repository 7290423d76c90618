//! Who may use an image that is on the node: who has shown credentials for it (KEP-2535). Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::named::named;

use super::sources::{PullSecret, PullServiceAccount, Source};

/// Most secrets, and most service accounts, of one repository that are remembered for an image; beyond them the oldest has to show its
/// credentials again.
const MOST: usize = 100;

named! {
    /// For which images of the node pods have to show credentials (`imagePullCredentialsVerificationPolicy` of upstream's KubeletConfiguration).
    pub enum Policy {
        /// For none.
        NeverVerify = "NeverVerify",
        /// For those that this kubelet has pulled.
        #[default]
        NeverVerifyPreloadedImages = "NeverVerifyPreloadedImages",
        /// For all that are not listed.
        NeverVerifyAllowlistedImages = "NeverVerifyAllowlistedImages",
        /// For all.
        AlwaysVerify = "AlwaysVerify",
    }
}

/// What is wrong with an allow-list.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadList {
    #[error("{0:?} is no name of an image without tag and digest, and no REGISTRY/PATH/*")]
    Pattern(String),
    #[error("the policy {} does not look at a list of images", .0.name())]
    Unused(Policy),
    #[error("the policy NeverVerifyAllowlistedImages needs a list of images")]
    Missing,
}

/// For which images of the node pods have to show credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    policy: Policy,
    allowlist: Vec<String>,
}

impl Verification {
    /// By the policy, with images of [`Policy::NeverVerifyAllowlistedImages`]: names without tag, or `REGISTRY/PATH/*`.
    ///
    /// # Errors
    /// The list is not what the policy needs.
    pub fn new(policy: Policy, allowlist: Vec<String>) -> Result<Self, BadList> {
        match (policy == Policy::NeverVerifyAllowlistedImages, allowlist.is_empty()) {
            (true, true) => return Err(BadList::Missing),
            (false, false) => return Err(BadList::Unused(policy)),
            _ => {}
        }
        let is_bad = |pattern: &&String| {
            let name = pattern.strip_suffix("/*").unwrap_or(pattern);
            name.is_empty() || name.contains(['*', '@', ' ']) || super::repository(name) != super::location(name)
        };
        match allowlist.iter().find(is_bad) {
            Some(pattern) => Err(BadList::Pattern(pattern.clone())),
            None => Ok(Self { policy, allowlist }),
        }
    }

    /// The policy and its list.
    pub fn parts(&self) -> (Policy, &[String]) {
        (self.policy, &self.allowlist)
    }

    /// Whether pods have to show credentials for images of this name, which this kubelet has pulled or not.
    pub(super) fn asks(&self, repository: &str, is_pulled: bool) -> bool {
        let listed = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => repository.starts_with(prefix),
            None => repository == super::location(pattern),
        };
        match self.policy {
            Policy::NeverVerify => false,
            Policy::NeverVerifyPreloadedImages => is_pulled,
            Policy::NeverVerifyAllowlistedImages => !self.allowlist.iter().any(listed),
            Policy::AlwaysVerify => true,
        }
    }
}

/// What a pod has to show for an image.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// Its secrets that are for the image.
    pub secrets: Vec<PullSecret>,
    /// Its service account, if a provider gives it credentials for the image.
    pub account: Option<PullServiceAccount>,
}

/// Who may use an image by the name of one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Access {
    /// Every pod of the node: it was pulled without credentials, or with those of the node.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub node_pods_accessible: bool,
    /// Pods with one of these secrets, or with the same credentials.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_secrets: Vec<PullSecret>,
    /// Pods of one of these service accounts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_service_accounts: Vec<PullServiceAccount>,
}

impl Access {
    /// After a pull with credentials of this source.
    pub fn by(source: Source) -> Self {
        match source {
            Source::Node => Self { node_pods_accessible: true, ..Self::default() },
            Source::Secret(secret) => Self { kubernetes_secrets: vec![secret], ..Self::default() },
            Source::ServiceAccount(account) => Self { kubernetes_service_accounts: vec![account], ..Self::default() },
        }
    }

    /// Adds what another pull has shown; whether that is news.
    fn merge(&mut self, other: &Self) -> bool {
        let before = self.clone();
        self.node_pods_accessible |= other.node_pods_accessible;
        if self.node_pods_accessible {
            self.kubernetes_secrets.clear();
            self.kubernetes_service_accounts.clear();
            return *self != before;
        }
        for secret in &other.kubernetes_secrets {
            if self.kubernetes_secrets.contains(secret) {
                continue;
            }
            self.kubernetes_secrets.retain(|known| !known.is_same_object(secret));
            self.kubernetes_secrets.push(secret.clone());
        }
        for account in &other.kubernetes_service_accounts {
            if !self.kubernetes_service_accounts.contains(account) {
                self.kubernetes_service_accounts.push(account.clone());
            }
        }
        let more = |len: usize| len.saturating_sub(MOST);
        self.kubernetes_secrets.drain(..more(self.kubernetes_secrets.len()));
        self.kubernetes_service_accounts.drain(..more(self.kubernetes_service_accounts.len()));
        *self != before
    }
}

/// An image that this kubelet has pulled: upstream's `ImagePulledRecord`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    kind: String,
    api_version: String,
    last_updated_time: Timestamp,
    /// Identifier of the image.
    pub image_ref: String,
    #[serde(default)]
    credential_mapping: BTreeMap<String, Access>,
}

impl Record {
    /// Of an image that nobody has shown credentials for yet.
    pub fn new(image_ref: &str, now: Timestamp) -> Self {
        Self {
            kind: "ImagePulledRecord".to_owned(),
            api_version: "kubelet.config.k8s.io/v1beta1".to_owned(),
            last_updated_time: now,
            image_ref: image_ref.to_owned(),
            credential_mapping: BTreeMap::new(),
        }
    }

    /// Whether nothing has been added since then.
    pub fn is_older_than(&self, since: Timestamp) -> bool {
        self.last_updated_time < since
    }

    /// Adds who may use the image by the name of a repository; whether that is news.
    pub fn add(&mut self, repository: &str, access: &Access, now: Timestamp) -> bool {
        let is_news = self.credential_mapping.entry(repository.to_owned()).or_default().merge(access);
        if is_news {
            self.last_updated_time = now;
        }
        is_news
    }
}

/// Whether a pod may use an image of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Granted,
    /// It may, and its secret is one by which it may from now on.
    GrantedTo(PullSecret),
    /// It has to show credentials, by a pull.
    Pull,
}

/// What decides about one image and one pod.
pub struct Question<'a> {
    /// For which images credentials have to be shown.
    pub verification: &'a Verification,
    /// What is known of the image; none when this kubelet has not pulled it.
    pub record: Option<&'a Record>,
    /// A pull of the image by this name was begun.
    pub is_being_pulled: bool,
    /// The name of the image that the pod uses, without tag and digest.
    pub repository: &'a str,
}

impl Question<'_> {
    /// Whether the answer depends on what the pod shows.
    pub fn depends(&self) -> bool {
        self.at_once().is_none()
    }

    /// Whether the answer depends on the pod's service account.
    pub fn depends_on_account(&self) -> bool {
        self.depends() && self.access().is_some_and(|access| !access.kubernetes_service_accounts.is_empty())
    }

    fn access(&self) -> Option<&Access> {
        self.record.and_then(|record| record.credential_mapping.get(self.repository))
    }

    fn at_once(&self) -> Option<Decision> {
        if !self.verification.asks(self.repository, self.record.is_some() || self.is_being_pulled) {
            return Some(Decision::Granted);
        }
        match self.access() {
            Some(access) if access.node_pods_accessible => Some(Decision::Granted),
            Some(access) if !access.kubernetes_secrets.is_empty() || !access.kubernetes_service_accounts.is_empty() => None,
            _ => Some(Decision::Pull),
        }
    }

    /// Whether a pod that shows this may use the image.
    pub fn decide(&self, shown: &Shown) -> Decision {
        if let Some(decision) = self.at_once() {
            return decision;
        }
        let Some(access) = self.access() else { return Decision::Pull };
        let (known, secrets) = (&access.kubernetes_secrets, &shown.secrets);
        let has_account = shown.account.as_ref().is_some_and(|account| access.kubernetes_service_accounts.contains(account));
        if has_account || secrets.iter().any(|secret| known.contains(secret)) {
            return Decision::Granted;
        }
        // Whoever may write the secret that has pulled it may read the image, whatever is in the secret by now.
        let fits = |secret: &&PullSecret| {
            known.iter().any(|known| {
                known.is_same_object(secret)
                    || !known.credential_hash.is_empty() && known.credential_hash == secret.credential_hash
            })
        };
        secrets.iter().find(fits).map_or(Decision::Pull, |secret| Decision::GrantedTo(secret.clone()))
    }
}

#[cfg(test)]
mod tests;
