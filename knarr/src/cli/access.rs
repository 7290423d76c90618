//! Options of the API server about who asks: how it is known who that is, what he may, and where it is written down.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{duration, key_value};

/// What is told to the audit. The names are those of kube-apiserver.
#[derive(Args, Clone)]
#[command(group(clap::ArgGroup::new("audit_backend").args(["audit_log_path", "audit_webhook_config_file"]).multiple(true)))]
pub(crate) struct Audit {
    /// File of the audit policy; nothing is audited without one.
    #[arg(long, requires = "audit_backend")]
    pub(crate) audit_policy_file: Option<PathBuf>,
    /// File of the audit log; - for the standard output.
    #[arg(long, requires = "audit_policy_file")]
    pub(crate) audit_log_path: Option<PathBuf>,
    /// MiB after which a new file is begun; 0 for never.
    #[arg(long, default_value_t = 100)]
    pub(crate) audit_log_maxsize: u64,
    /// Old files that are kept; 0 for all.
    #[arg(long, default_value_t = 100)]
    pub(crate) audit_log_maxbackup: usize,
    /// Days that old files are kept; 0 for ever.
    #[arg(long, default_value_t = 366)]
    pub(crate) audit_log_maxage: u64,
    /// Kubeconfig of a webhook that is sent audit events.
    #[arg(long, requires = "audit_policy_file")]
    audit_webhook_config_file: Option<PathBuf>,
    /// Events that wait for the webhook; more are lost, and counted.
    #[arg(long, default_value_t = 10_000)]
    audit_webhook_batch_buffer_size: usize,
    /// Most events that the webhook is sent at once.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..))]
    audit_webhook_batch_max_size: u32,
    /// How long events wait for others before they are sent.
    #[arg(long, default_value = "30s", value_parser = duration)]
    audit_webhook_batch_max_wait: Duration,
    /// How long to wait before a webhook that has not answered is asked again; longer from time to time.
    #[arg(long, default_value = "10s", value_parser = duration)]
    audit_webhook_initial_backoff: Duration,
}

impl Audit {
    /// None when nothing is audited.
    pub(crate) fn options(&self) -> Option<apiserver::AuditOptions> {
        let (max_size, max_backups, max_age) = (self.audit_log_maxsize, self.audit_log_maxbackup, self.audit_log_maxage);
        let log = self.audit_log_path.clone().map(|path| apiserver::LogOptions { path, max_size, max_backups, max_age });
        let webhook = self.audit_webhook_config_file.clone().map(|file| apiserver::WebhookOptions {
            file,
            buffer: self.audit_webhook_batch_buffer_size,
            batch: self.audit_webhook_batch_max_size as usize,
            wait: self.audit_webhook_batch_max_wait,
            backoff: self.audit_webhook_initial_backoff,
        });
        Some(apiserver::AuditOptions { policy: self.audit_policy_file.clone()?, log, webhook })
    }
}

/// Who may ask besides those who are of this cluster. The names are those of kube-apiserver.
#[derive(Args, Clone)]
pub(crate) struct Authentication {
    /// File of an AuthenticationConfiguration: other issuers of tokens, and who may ask without an identity. It is followed when it
    /// changes.
    #[arg(long, conflicts_with_all = ["oidc_issuer_url", "anonymous_auth"])]
    authentication_config: Option<PathBuf>,
    /// Whether requests without an identity are let in, as system:anonymous.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    anonymous_auth: bool,
    /// URL of an OpenID issuer whose tokens are accepted.
    #[arg(long, requires = "oidc_client_id")]
    oidc_issuer_url: Option<String>,
    /// Audience that tokens of the issuer must be for.
    #[arg(long, requires = "oidc_issuer_url")]
    oidc_client_id: Option<String>,
    /// Claim that is the name of the user.
    #[arg(long, default_value = "sub")]
    oidc_username_claim: String,
    /// What stands before names; - for nothing. The issuer's URL and # by default, unless the claim is email.
    #[arg(long)]
    oidc_username_prefix: Option<String>,
    /// Claim that has the groups of the user.
    #[arg(long)]
    oidc_groups_claim: Option<String>,
    /// What stands before groups.
    #[arg(long, default_value = "")]
    oidc_groups_prefix: String,
    /// Algorithms that tokens may be signed with.
    #[arg(long, default_value = "RS256", value_delimiter = ',')]
    oidc_signing_algs: Vec<String>,
    /// A claim that tokens must have, and its value: KEY=VALUE; may be given several times.
    #[arg(long = "oidc-required-claim", value_parser = key_value)]
    oidc_required_claims: Vec<(String, String)>,
    /// Certificates that vouch for the issuer; those of the system by default.
    #[arg(long)]
    oidc_ca_file: Option<PathBuf>,
    /// Kubeconfig of a webhook that is asked whose a token is (TokenReview).
    #[arg(long)]
    authentication_token_webhook_config_file: Option<PathBuf>,
    /// Version of the reviews that the webhook is sent: v1 or v1beta1.
    #[arg(long, default_value = "v1beta1", value_parser = ["v1", "v1beta1"])]
    authentication_token_webhook_version: String,
    /// How long answers of the webhook are good.
    #[arg(long, default_value = "2m", value_parser = duration)]
    authentication_token_webhook_cache_ttl: Duration,
}

/// Who decides what may be done. The names are those of kube-apiserver.
#[derive(Args, Clone)]
pub(crate) struct Authorization {
    /// File of an AuthorizationConfiguration: authorizers in their order.
    #[arg(long, conflicts_with_all = ["authorization_mode", "authorization_webhook_config_file"])]
    authorization_config: Option<PathBuf>,
    /// Authorizers in their order: Node, RBAC, Webhook.
    #[arg(long, default_values = ["Node", "RBAC"], value_delimiter = ',')]
    authorization_mode: Vec<String>,
    /// Kubeconfig of the webhook of the mode Webhook (SubjectAccessReview).
    #[arg(long)]
    authorization_webhook_config_file: Option<PathBuf>,
    /// Version of the reviews that the webhook is sent: v1 or v1beta1.
    #[arg(long, default_value = "v1beta1", value_parser = ["v1", "v1beta1"])]
    authorization_webhook_version: String,
    /// How long it is good that the webhook has allowed something.
    #[arg(long, default_value = "5m", value_parser = duration)]
    authorization_webhook_cache_authorized_ttl: Duration,
    /// How long it is good that the webhook has not allowed something.
    #[arg(long, default_value = "30s", value_parser = duration)]
    authorization_webhook_cache_unauthorized_ttl: Duration,
}

impl Authorization {
    pub(crate) fn options(&self) -> apiserver::authz::configuration::Options {
        apiserver::authz::configuration::Options {
            file: self.authorization_config.clone(),
            modes: self.authorization_mode.clone(),
            webhook: self.authorization_webhook_config_file.clone(),
            webhook_version: self.authorization_webhook_version.clone(),
            authorized: self.authorization_webhook_cache_authorized_ttl,
            unauthorized: self.authorization_webhook_cache_unauthorized_ttl,
        }
    }
}

impl Authentication {
    pub(crate) fn options(&self) -> apiserver::authn::Options {
        let oidc = self.oidc_issuer_url.clone().zip(self.oidc_client_id.clone());
        let oidc = oidc.map(|(issuer_url, client_id)| apiserver::authn::oidc::Flags {
            issuer_url,
            client_id,
            username_claim: self.oidc_username_claim.clone(),
            username_prefix: self.oidc_username_prefix.clone(),
            groups_claim: self.oidc_groups_claim.clone(),
            groups_prefix: self.oidc_groups_prefix.clone(),
            signing_algs: self.oidc_signing_algs.clone(),
            required_claims: self.oidc_required_claims.clone(),
            ca_file: self.oidc_ca_file.clone(),
        });
        let webhook = self.authentication_token_webhook_config_file.clone().map(|file| apiserver::authn::webhook::Options {
            file,
            version: self.authentication_token_webhook_version.clone(),
            ttl: self.authentication_token_webhook_cache_ttl,
        });
        apiserver::authn::Options { anonymous: self.anonymous_auth, file: self.authentication_config.clone(), oidc, webhook }
    }
}
