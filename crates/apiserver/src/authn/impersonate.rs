//! Acting as somebody else: the `Impersonate-*` headers.

pub mod modes;

use std::collections::BTreeMap;

use apimachinery::{Status, names};
use http::{HeaderMap, HeaderValue};
use registry::User;

use super::ANONYMOUS;
use crate::route;

const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Whom the request wants to be, if anybody. A header that cannot be read is refused: without it the request would
/// be the caller's own.
pub fn wanted(headers: &HeaderMap) -> Result<Option<User>, Status> {
    let text = |value: &HeaderValue| {
        let unreadable = || Status::bad_request("an impersonation header is not UTF-8");
        std::str::from_utf8(value.as_bytes()).map(str::to_owned).map_err(|_| unreadable())
    };
    let first = |name: &str| headers.get(name).map_or(Ok(String::new()), text);
    let (name, uid) = (first("impersonate-user")?, first("impersonate-uid")?);
    let groups: Vec<String> = headers.get_all("impersonate-group").iter().map(text).collect::<Result<_, _>>()?;
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (header, value) in headers {
        if let Some(key) = header.as_str().strip_prefix(EXTRA) {
            extra.entry(route::decode(key, false).into_owned()).or_default().push(text(value)?);
        }
    }
    if name.is_empty() {
        let stray = !groups.is_empty() || !extra.is_empty() || !uid.is_empty();
        let message = "requested impersonation of groups, a UID or extra fields without impersonating a user";
        return if stray { Err(Status::bad_request(message)) } else { Ok(None) };
    }
    Ok(Some(User { name, uid, groups, extra }))
}

/// The user with the groups that follow from its name.
fn complete(mut wanted: User) -> User {
    if let (Some((namespace, _)), true) = (account(&wanted.name), wanted.groups.is_empty()) {
        wanted.groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
    }
    let anonymous = wanted.name == ANONYMOUS;
    let own = if anonymous { super::UNAUTHENTICATED } else { super::AUTHENTICATED };
    let has = |name: &str| wanted.groups.iter().any(|group| group == name);
    if !has(super::UNAUTHENTICATED) && (anonymous || !has(super::AUTHENTICATED)) {
        wanted.groups.push(own.into());
    }
    wanted
}

/// Namespace and name of an account. What no account can be called is an ordinary user's name.
fn account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let good = names::dns1123_label(namespace).is_empty() && names::dns1123_subdomain(name).is_empty();
    good.then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::modes::Mode;
    use super::*;

    #[test]
    fn requirements_of_headers() {
        let mut headers = HeaderMap::new();
        assert_eq!(wanted(&headers).unwrap(), None);
        headers.insert("impersonate-group", "g".parse().unwrap());
        assert!(wanted(&headers).is_err());
        headers.insert("impersonate-user", "system:serviceaccount:n:a".parse().unwrap());
        headers.insert("impersonate-extra-scopes%2fa", "x".parse().unwrap());
        let (caller, wanted) = (User::default(), wanted(&headers).unwrap().unwrap());
        let asked = Mode::Legacy.requirements(&caller, &wanted).unwrap();
        let asked = asked.iter().flat_map(|checks| &checks.each);
        let asked: Vec<_> = asked.map(|a| (a.resource, a.subresource, a.namespace, a.name)).collect();
        assert_eq!(asked, [("serviceaccounts", "", "n", "a"), ("groups", "", "", "g"), ("userextras", "scopes/a", "", "x")]);
        assert_eq!(complete(wanted).groups, ["g", "system:authenticated"]);
    }

    #[test]
    fn names_of_users() {
        let check = |name: &[u8], expected: Result<&str, u16>| {
            let headers = HeaderMap::from_iter([("impersonate-user".parse().unwrap(), HeaderValue::from_bytes(name).unwrap())]);
            let wanted = wanted(&headers).map(Option::unwrap).map_err(|status| status.code);
            let caller = User::default();
            let first = |wanted| Mode::Legacy.requirements(&caller, wanted).unwrap()[0].each[0].resource;
            let asked = wanted.as_ref().map(first).map_err(|code| *code);
            assert_eq!(asked, expected, "{}", String::from_utf8_lossy(name));
        };
        check(b"jane", Ok("users"));
        // Unreadable is not absent: the request would have the rights of its caller.
        check("j\u{f6}rg".as_bytes(), Ok("users"));
        check(b"j\xf6rg", Err(400));
        check(b"system:serviceaccount:n:a", Ok("serviceaccounts"));
        check(b"system:serviceaccount:n:a:b", Ok("users"));
        check(b"system:serviceaccount::a", Ok("users"));
    }

    #[test]
    fn groups_of_users() {
        let check = |name: &str, groups: &[&str], expected: &[&str]| {
            let groups = groups.iter().map(|&group| group.into()).collect();
            assert_eq!(complete(User { name: name.into(), groups, ..User::default() }).groups, expected);
        };
        check("jane", &[], &["system:authenticated"]);
        check("jane", &["system:unauthenticated"], &["system:unauthenticated"]);
        check(ANONYMOUS, &[], &["system:unauthenticated"]);
        check(ANONYMOUS, &["system:authenticated"], &["system:authenticated", "system:unauthenticated"]);
        let account = ["system:serviceaccounts", "system:serviceaccounts:n", "system:authenticated"];
        check("system:serviceaccount:n:a", &[], &account);
    }
}
