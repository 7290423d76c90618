//! Acting as somebody else: the `Impersonate-*` headers.

use std::collections::BTreeMap;

use apimachinery::Status;
use http::HeaderMap;
use registry::User;

use super::ANONYMOUS;
use crate::authz::Attributes;
use crate::route;

const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Whom the request wants to be, if anybody.
pub fn wanted(headers: &HeaderMap) -> Result<Option<User>, Status> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (name, uid) = (text("impersonate-user"), text("impersonate-uid"));
    let groups: Vec<String> =
        headers.get_all("impersonate-group").iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (header, value) in headers {
        if let (Some(key), Ok(value)) = (header.as_str().strip_prefix(EXTRA), value.to_str()) {
            extra.entry(route::decode(key, false).into_owned()).or_default().push(value.to_owned());
        }
    }
    if name.is_empty() {
        let stray = !groups.is_empty() || !extra.is_empty() || !uid.is_empty();
        let message = "requested impersonation of groups, a UID or extra fields without impersonating a user";
        return if stray { Err(Status::internal(message)) } else { Ok(None) };
    }
    Ok(Some(User { name, uid, groups, extra }))
}

/// What the caller must be allowed to do to become that user.
pub fn requirements<'a>(caller: &'a User, wanted: &'a User) -> Vec<Attributes<'a>> {
    let base = Attributes { user: caller, verb: "impersonate", is_resource: true, ..Attributes::new(caller) };
    let mut all = Vec::new();
    match account(&wanted.name) {
        Some((namespace, name)) => all.push(Attributes { resource: "serviceaccounts", namespace, name, ..base }),
        None => all.push(Attributes { resource: "users", name: &wanted.name, ..base }),
    }
    all.extend(wanted.groups.iter().map(|group| Attributes { resource: "groups", name: group, ..base }));
    let authentication = Attributes { group: AUTHENTICATION, version: "v1", ..base };
    if !wanted.uid.is_empty() {
        all.push(Attributes { resource: "uids", name: &wanted.uid, ..authentication });
    }
    for (key, values) in &wanted.extra {
        all.extend(values.iter().map(|value| Attributes {
            resource: "userextras",
            subresource: key,
            name: value,
            ..authentication
        }));
    }
    all
}

/// The user with the groups that follow from its name.
pub fn complete(mut wanted: User) -> User {
    if let (Some((namespace, _)), true) = (account(&wanted.name), wanted.groups.is_empty()) {
        wanted.groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
    }
    let own = if wanted.name == ANONYMOUS { super::UNAUTHENTICATED } else { super::AUTHENTICATED };
    if !wanted.groups.iter().any(|group| group == super::AUTHENTICATED || group == super::UNAUTHENTICATED) {
        wanted.groups.push(own.into());
    }
    wanted
}

fn account(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("system:serviceaccount:")?.split_once(':')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
        let asked: Vec<_> =
            requirements(&caller, &wanted).iter().map(|a| (a.resource, a.subresource, a.namespace, a.name)).collect();
        assert_eq!(asked, [("serviceaccounts", "", "n", "a"), ("groups", "", "", "g"), ("userextras", "scopes/a", "", "x")]);
        assert_eq!(complete(wanted).groups, ["g", "system:authenticated"]);
    }
}
