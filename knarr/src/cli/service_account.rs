//! Options of ServiceAccount tokens. The names are those of kube-apiserver.

use std::time::Duration;

use apiserver::{Issuers, ServiceAccounts};
use clap::{ArgAction, Args};

use super::duration;

/// Who issues tokens of ServiceAccounts, for whom, and for how long.
#[derive(Args, Clone)]
pub(crate) struct ServiceAccount {
    /// URL (https) of the issuer of tokens, such as a place where clouds find the cluster's keys; given again, those that it had before, whose
    /// tokens are still good. `https://kubernetes.default.svc.DOMAIN` by default.
    #[arg(long = "service-account-issuer", value_name = "URL", value_parser = issuer)]
    issuers: Vec<String>,
    /// Where the issuer's document says that the keys are; at the API server's own address by default.
    #[arg(long = "service-account-jwks-uri", value_name = "URL", value_parser = https)]
    jwks_uri: Option<String>,
    /// Audiences that are the API server; the issuers by default.
    #[arg(long, value_name = "AUDIENCE", value_delimiter = ',')]
    api_audiences: Vec<String>,
    /// The longest that a token is good, from 1h to 2^32s: who asks for more gets so much. No limit but the API's by default. The year of
    /// `--service-account-extend-token-expiration` stays a year.
    #[arg(long = "service-account-max-token-expiration", value_name = "DURATION", value_parser = longest)]
    longest: Option<Duration>,
    /// Whether tokens that pods are given for the API server are good for a year rather than the hour that is told, so that clients which
    /// read theirs only once go on working; how many those are, the metric serviceaccount_stale_tokens_total counts.
    #[arg(long = "service-account-extend-token-expiration", default_value_t = true, action = ArgAction::Set)]
    extends: bool,
}

impl ServiceAccount {
    /// In a cluster of this domain.
    pub(crate) fn options(&self, domain: &str) -> ServiceAccounts {
        let mut issuers = self.issuers.iter().cloned();
        let first = issuers.next().unwrap_or_else(|| format!("https://kubernetes.default.svc.{domain}"));
        ServiceAccounts {
            issuers: Issuers::new(first, issuers.collect(), self.api_audiences.clone()),
            jwks_uri: self.jwks_uri.clone(),
            longest: self.longest.and_then(|longest| i64::try_from(longest.as_secs()).ok()),
            extends: self.extends,
        }
    }
}

/// An URL that clients can verify.
fn https(text: &str) -> Result<String, String> {
    let url = text.parse::<http::Uri>().map_err(|error| error.to_string())?;
    if url.scheme_str() == Some("https") && url.host().is_some_and(|host| !host.is_empty()) {
        Ok(text.to_owned())
    } else {
        Err("expected an URL that begins with https://".to_owned())
    }
}

/// OpenID Connect Discovery 1.0, section 3: "using the https scheme with no query or fragment component".
fn issuer(text: &str) -> Result<String, String> {
    if text.contains(['?', '#']) {
        return Err("an issuer has no query and no fragment".to_owned());
    }
    https(text)
}

/// The bounds of kube-apiserver: "the service-account-max-token-expiration must be between 1 hour and 2^32 seconds".
fn longest(text: &str) -> Result<Duration, String> {
    let longest = duration(text)?;
    if (3600..=1 << 32).contains(&longest.as_secs()) {
        Ok(longest)
    } else {
        Err("the longest is from 1h to 4294967296s".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers() {
        let check = |text: &str, good: bool| assert_eq!(issuer(text).is_ok(), good, "{text}");
        check("https://storage.example/cluster", true);
        check("http://storage.example", false);
        check("https://storage.example?a=b", false);
        check("https://storage.example#a", false);
        check("storage.example", false);
        check("https://", false);
        check("", false);
    }

    #[test]
    fn longest_times() {
        let check = |text: &str, good: bool| assert_eq!(longest(text).is_ok(), good, "{text}");
        check("1h", true);
        check("4294967296s", true);
        check("59m", false);
        check("4294967297s", false);
    }
}
