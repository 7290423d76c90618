//! Bootstrap tokens, `ID.SECRET`, by which machines join: Secrets of the type `bootstrap.kubernetes.io/token` in `kube-system` (docs page
//! "Authenticating with Bootstrap Tokens").

use apimachinery::meta;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use registry::{Registry, User};
use serde_json::Value;

use super::token::Error;
use super::user;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
/// The group of everybody who has such a token, and the prefix of those that a token may add.
const GROUP: &str = "system:bootstrappers";

/// Id and secret of what has the form of such a token.
pub(super) fn parse(token: &str) -> Option<(&str, &str)> {
    let good = |part: &str, length| part.len() == length && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    token.split_once('.').filter(|(id, secret)| good(id, 6) && good(secret, 16))
}

/// The user of a token whose Secret is there.
pub(super) async fn live(registry: &Registry, id: &str, secret: &str) -> Result<User, Error> {
    let resource = registry.resource("", "v1", "secrets").ok_or(Error::Malformed)?;
    let entry = registry.get(&resource, NAMESPACE, &format!("bootstrap-token-{id}"), None).await.map_err(|_| Error::Malformed)?;
    user_of(&entry.value(), id, secret, Timestamp::now())
}

/// The user that a Secret makes of who knows its token.
fn user_of(object: &Value, id: &str, secret: &str, now: Timestamp) -> Result<User, Error> {
    let text = |key: &str| {
        let bytes = STANDARD.decode(object["data"][key].as_str()?).ok()?;
        String::from_utf8(bytes).ok()
    };
    if object["type"] != TYPE || meta::deletion_timestamp(object).is_some() {
        return Err(Error::Malformed);
    }
    let known = text("token-secret").unwrap_or_default();
    // Equal in time whatever is known of it.
    let same = known.len() == secret.len() && known.bytes().zip(secret.bytes()).fold(0, |all, (a, b)| all | a ^ b) == 0;
    if !same || text("token-id").as_deref() != Some(id) {
        return Err(Error::Signature);
    }
    if let Some(expiration) = text("expiration").filter(|text| !text.is_empty())
        && expiration.parse::<Timestamp>().map_or(true, |at| at <= now)
    {
        return Err(Error::Expired);
    }
    if text("usage-bootstrap-authentication").as_deref() != Some("true") {
        return Err(Error::Malformed);
    }
    let mut groups = vec![GROUP.to_owned()];
    for group in text("auth-extra-groups").unwrap_or_default().split(',').filter(|group| !group.is_empty()) {
        if !is_extra(group) {
            return Err(Error::Malformed);
        }
        groups.push(group.to_owned());
    }
    Ok(user(format!("system:bootstrap:{id}"), groups))
}

/// No token makes a member of any other group.
fn is_extra(group: &str) -> bool {
    let Some(rest) = group.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix(':')) else { return false };
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    rest.len() <= 256 && rest.bytes().all(|b| good(b) || b == b':' || b == b'-') && rest.bytes().last().is_some_and(good)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn forms() {
        let check = |token: &str, expected: bool| assert_eq!(parse(token).is_some(), expected, "{token}");
        check("abcdef.0123456789abcdef", true);
        check("abcdef.0123456789abcde", false);
        check("ABCDEF.0123456789abcdef", false);
        check("abcdef0123456789abcdef", false);
        check("a.b.c", false);
    }

    #[test]
    fn users() {
        let check = |changes: &[(&str, &str)], secret: &str, expected: Result<&[&str], Error>| {
            let mut data =
                json!({"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"});
            changes.iter().for_each(|(key, value)| data[*key] = json!(value));
            let data: serde_json::Map<_, _> =
                data.as_object().unwrap().iter().map(|(k, v)| (k.clone(), json!(STANDARD.encode(v.as_str().unwrap())))).collect();
            let object = json!({"type": TYPE, "metadata": {}, "data": data});
            let user = user_of(&object, "abcdef", secret, "2026-01-01T00:00:00Z".parse().unwrap());
            let user = user.map(|user| (user.name, user.groups));
            let expected = expected.map(|groups| {
                let groups = [GROUP].iter().chain(groups).chain(&["system:authenticated"]);
                ("system:bootstrap:abcdef".to_owned(), groups.map(|&group| group.to_owned()).collect::<Vec<_>>())
            });
            assert_eq!(user, expected, "{changes:?}");
        };
        let right = "0123456789abcdef";
        check(&[], right, Ok(&[]));
        check(&[], "0123456789abcdee", Err(Error::Signature));
        check(&[("token-secret", "")], "", Ok(&[]));
        check(&[("token-id", "abcdee")], right, Err(Error::Signature));
        check(&[("expiration", "2026-01-01T00:00:01Z")], right, Ok(&[]));
        check(&[("expiration", "2026-01-01T00:00:00Z")], right, Err(Error::Expired));
        check(&[("expiration", "soon")], right, Err(Error::Expired));
        check(&[("usage-bootstrap-authentication", "false")], right, Err(Error::Malformed));
        check(&[("auth-extra-groups", "system:bootstrappers:a")], right, Ok(&["system:bootstrappers:a"]));
        for group in ["system:masters", "system:bootstrappers", "system:bootstrappersa", "system:bootstrappers:a-"] {
            check(&[("auth-extra-groups", group)], right, Err(Error::Malformed));
        }
    }

    #[test]
    fn other_secrets_make_nobody() {
        let data = json!({"token-id": STANDARD.encode("abcdef"), "token-secret": STANDARD.encode("0123456789abcdef"),
            "usage-bootstrap-authentication": STANDARD.encode("true")});
        let opaque = json!({"type": "Opaque", "metadata": {}, "data": data});
        let deleted = json!({"type": TYPE, "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "data": data});
        for object in [opaque, deleted] {
            assert!(user_of(&object, "abcdef", "0123456789abcdef", Timestamp::now()).is_err(), "{object}");
        }
    }
}
