//! TokenRequest: tokens of a ServiceAccount, bound to a pod, node or secret (KEP-1205).

use apimachinery::field::{Error, Errors, Path};
use apimachinery::gvk::GroupResource;
use apimachinery::{GroupVersionKind, Status, meta, names};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::context::Warnings;
use crate::target::Target;
use crate::{Operation, Registry, Tokens};

/// Seconds of life of a token when the request says nothing.
const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
/// The seconds that admission asks for when it mounts a token, and nobody else: an hour, and seven seconds to tell it by (upstream:
/// `WarnOnlyBoundTokenExpirationPeriod`).
const MOUNTED_SECONDS: i64 = 60 * 60 + 7;
/// What such a token lives in truth: clients that read their token only once go on working.
const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;
/// Tells the audit which token was issued (KEP-4193): who uses it has the same `authentication.kubernetes.io/credential-id`.
const ISSUED_ID: &str = "authentication.kubernetes.io/issued-credential-id";

/// What a token says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenSubject {
    /// Namespace of the account.
    pub namespace: String,
    /// Name of the account.
    pub service_account: String,
    /// UID of the account.
    pub uid: String,
    /// Audiences.
    pub audiences: Vec<String>,
    /// Seconds of life.
    pub seconds: i64,
    /// After so many seconds the client should have read a newer token.
    pub warn_after: Option<i64>,
    /// The object whose end ends the token: kind, name and UID.
    pub bound_to: Option<(String, String, String)>,
    /// The node of the pod that it is bound to: name, and UID if the Node object is there.
    pub node: Option<(String, Option<String>)>,
    /// By what the audit knows it, of no other token (`jti`).
    pub id: String,
}

impl Registry {
    pub(super) async fn issue_token(&self, target: Target<'_>, mut request: Value) -> Result<Value, Status> {
        let tokens = self.options.tokens.as_ref().ok_or_else(|| Status::internal("no key to sign tokens with"))?;
        default_seconds(&mut request);
        let mut request = self.mutate(target, Operation::Create, Some(request), None).await?.unwrap_or_default();
        let account = self.stored(target.res, target.namespace, target.name)?;
        is_about(target, &account, &request)?;
        let now = Timestamp::now();
        // Validating admission sees for whom the token will be, and for how long, also where the request leaves that open.
        complete(&mut request, target, &account, tokens.signer.audiences(), now);
        let mut subject = subject(target, &account, &request)?;
        let (request, _holds) = self.admit(target, Operation::Create, Some(request), None).await?;
        let mut request = request.unwrap_or_default();
        self.bind_subject(&mut subject, &request)?;
        let asked = tokens.shortened(subject.seconds, &target.cx.warnings);
        subject.seconds = asked;
        tokens.extend(&mut subject);
        // The end that was asked for is told, so that whoever mounts the token renews it in time.
        let expires = now.as_second().saturating_add(asked);
        let expires = Timestamp::from_second(expires).map_err(Status::internal)?;
        let token = tokens.signer.sign(&subject)?;
        request["spec"]["expirationSeconds"] = asked.into();
        request["status"] = json!({"token": token, "expirationTimestamp": apimachinery::time::format(expires)});
        target.cx.annotations.add(ISSUED_ID, format!("JTI={}", subject.id));
        Ok(request)
    }

    /// Finds the object that the token is bound to.
    fn bind_subject(&self, subject: &mut TokenSubject, request: &Value) -> Result<(), Status> {
        let Some(reference) = request.pointer("/spec/boundObjectRef").filter(|reference| reference.is_object()) else {
            return Ok(());
        };
        let text = |key: &str| reference[key].as_str().unwrap_or_default().to_owned();
        let (kind, name, uid) = (text("kind"), text("name"), text("uid"));
        // The version is not looked at, as upstream.
        let bound = GroupVersionKind::from_api_version(&text("apiVersion"), &kind);
        let (plural, namespace) = match (bound.group.as_str(), kind.as_str()) {
            ("", "Pod") => ("pods", subject.namespace.as_str()),
            ("", "Secret") => ("secrets", subject.namespace.as_str()),
            ("", "Node") => ("nodes", ""),
            _ => {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount \"{}\" to object type {bound}",
                    subject.service_account
                )));
            }
        };
        let resource = self.builtin("", plural)?;
        let object = self.stored(&resource, namespace, &name)?;
        if !uid.is_empty() && uid != meta::uid(&object) {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            );
            return Err(Status::conflict(&resource.group_resource, &name, why));
        }
        if kind == "Pod" {
            let account = object.pointer("/spec/serviceAccountName").and_then(Value::as_str).unwrap_or_default();
            if account != subject.service_account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount \"{}\" to pod running with different serviceaccount name.",
                    subject.service_account
                )));
            }
            let node = object.pointer("/spec/nodeName").and_then(Value::as_str).filter(|node| !node.is_empty());
            subject.node = node.map(|node| {
                let found = self.builtin("", "nodes").and_then(|nodes| self.stored(&nodes, "", node));
                (node.to_owned(), found.ok().map(|found| meta::uid(&found).to_owned()))
            });
        }
        subject.bound_to = Some((kind, name, meta::uid(&object).to_owned()));
        Ok(())
    }
}

fn default_seconds(request: &mut Value) {
    if request.pointer("/spec/expirationSeconds").is_none_or(Value::is_null) {
        request["spec"]["expirationSeconds"] = DEFAULT_SECONDS.into();
    }
}

/// Fills in what the request does not say, and takes out what it must not say.
fn complete(request: &mut Value, target: Target<'_>, account: &Value, audiences: &[String], now: Timestamp) {
    default_seconds(request);
    if request.pointer("/spec/audiences").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        request["spec"]["audiences"] = audiences.into();
    }
    request["status"] = json!({"token": "", "expirationTimestamp": null});
    meta::set_name(request, target.name);
    meta::set_namespace(request, target.namespace);
    request["metadata"]["uid"] = meta::uid(account).into();
    request["metadata"]["creationTimestamp"] = apimachinery::time::format(now).into();
}

/// Refuses a request whose metadata names another account than the one that it was sent to, or one before it that had the same name (upstream:
/// `TokenRequestServiceAccountUIDValidation`).
fn is_about(target: Target<'_>, account: &Value, request: &Value) -> Result<(), Status> {
    let (group, kind, path) = ("authentication.k8s.io", "TokenRequest", Path::new("metadata"));
    for (key, given, own) in
        [("name", meta::name(request), target.name), ("namespace", meta::namespace(request), target.namespace)]
    {
        if !given.is_empty() && given != own {
            let why = format!("must match the service account {key} if specified");
            let errors = Errors::from(vec![Error::invalid(&path.child(key), given, why)]);
            return Err(Status::invalid(group, kind, target.name, &errors));
        }
    }
    let (given, own) = (meta::uid(request), meta::uid(account));
    if given.is_empty() || given == own {
        return Ok(());
    }
    let why = format!("the UID in the token request ({given}) does not match the UID of the service account ({own})");
    Err(Status::conflict(&GroupResource::new(group, kind), target.name, why))
}

impl Tokens {
    /// The seconds that a token is good of those that were asked for (upstream: `--service-account-max-token-expiration`).
    fn shortened(&self, asked: i64, warnings: &Warnings) -> i64 {
        match self.longest {
            Some(longest) if longest < asked => {
                warnings.push(format!("requested expiration of {asked} seconds shortened to {longest} seconds"));
                longest
            }
            _ => asked,
        }
    }

    /// Gives the token of a pod that admission mounts a year, for the API server alone (upstream: `--service-account-extend-token-expiration`),
    /// whatever the longest time is that may be asked for.
    fn extend(&self, subject: &mut TokenSubject) {
        let of_pod = subject.bound_to.as_ref().is_some_and(|(kind, ..)| kind == "Pod");
        let own = self.signer.audiences();
        if self.extends
            && of_pod
            && subject.seconds == MOUNTED_SECONDS
            && subject.audiences.iter().all(|audience| own.contains(audience))
        {
            subject.warn_after = Some(subject.seconds);
            subject.seconds = EXTENDED_SECONDS;
        }
    }
}

/// Reads and checks the spec of a request.
fn subject(target: Target<'_>, account: &Value, request: &Value) -> Result<TokenSubject, Status> {
    let seconds = request.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(DEFAULT_SECONDS);
    let (path, mut errors) = (Path::new("spec").child("expirationSeconds"), Errors::new());
    if seconds < MIN_SECONDS {
        errors.push(Error::invalid(&path, seconds, "may not specify a duration less than 10 minutes"));
    }
    if seconds > MAX_SECONDS {
        errors.push(Error::invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds"));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("authentication.k8s.io", "TokenRequest", "", &errors));
    }
    let audiences = request.pointer("/spec/audiences").and_then(Value::as_array).into_iter().flatten();
    Ok(TokenSubject {
        namespace: target.namespace.to_owned(),
        service_account: target.name.to_owned(),
        uid: meta::uid(account).to_owned(),
        audiences: audiences.filter_map(|audience| audience.as_str().map(str::to_owned)).collect(),
        seconds,
        id: names::new_uid(),
        ..TokenSubject::default()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::TokenSigner;

    /// Signs nothing; the API server is `api`.
    struct Nobody([String; 1]);

    impl TokenSigner for Nobody {
        fn sign(&self, _: &TokenSubject) -> Result<String, Status> {
            Err(Status::internal("nobody signs"))
        }

        fn audiences(&self) -> &[String] {
            &self.0
        }
    }

    fn tokens(longest: Option<i64>, extends: bool) -> Tokens {
        Tokens { signer: Arc::new(Nobody(["api".to_owned()])), longest, extends }
    }

    /// Upstream: `--service-account-max-token-expiration`, "if an otherwise valid TokenRequest with a validity duration larger than this
    /// value is requested, a token will be issued with a validity duration of this value".
    #[test]
    fn tokens_are_good_for_the_longest_time_at_most() {
        let check = |longest: Option<i64>, asked: i64, expected: (i64, usize)| {
            let warnings = Warnings::default();
            assert_eq!(
                (tokens(longest, true).shortened(asked, &warnings), warnings.take().len()),
                expected,
                "{longest:?} {asked}"
            );
        };
        check(None, 1 << 32, (1 << 32, 0));
        check(Some(7200), 7200, (7200, 0));
        check(Some(7200), 7201, (7200, 1));
    }

    /// Upstream extends what admission mounts, and nothing else (`serviceaccount/storage/token.go`).
    #[test]
    fn the_mounted_token_of_a_pod_lives_a_year() {
        let with = |longest, extends| {
            let bound_to = Some(("Pod".to_owned(), "n".to_owned(), "u".to_owned()));
            let mut subject = TokenSubject { seconds: MOUNTED_SECONDS, bound_to, ..TokenSubject::default() };
            tokens(longest, extends).extend(&mut subject);
            subject.seconds
        };
        assert_eq!([with(None, false), with(Some(7200), true), with(Some(1 << 31), true)], [3607, 31_536_000, 31_536_000]);
        let check = |kind: &str, seconds: i64, audiences: &[&str], expected: (i64, Option<i64>)| {
            let bound_to = (!kind.is_empty()).then(|| (kind.to_owned(), "n".to_owned(), "u".to_owned()));
            let audiences = audiences.iter().map(|audience| (*audience).to_owned()).collect();
            let mut subject = TokenSubject { seconds, bound_to, audiences, ..TokenSubject::default() };
            tokens(None, true).extend(&mut subject);
            assert_eq!((subject.seconds, subject.warn_after), expected, "{kind} {seconds}");
        };
        check("Pod", 3607, &[], (31_536_000, Some(3607)));
        check("Pod", 3607, &["api"], (31_536_000, Some(3607)));
        check("Pod", 3607, &["api", "vault"], (3607, None));
        check("Pod", 3600, &[], (3600, None));
        check("Secret", 3607, &[], (3607, None));
        check("", 3607, &[], (3607, None));
    }
}
