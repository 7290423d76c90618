//! Ways to become another user, and what each of them has to be allowed (KEP-5284, constrained impersonation).
//!
//! A mode is one check whether the caller may do this request as somebody else (`impersonate-on:MODE:VERB`) and one for each thing that it
//! wants to be (`impersonate:MODE`). The old verb `impersonate`, which allows everything that the other one may do, is asked for last.

use apimachinery::{Status, names};
use registry::User;

use super::{AUTHENTICATION, account};
use crate::authn::MASTERS;
use crate::authz::Attributes;

/// The node that runs the caller's pod, as its token says.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// Stands in place of everything else that the caller's token says where it is about its own node.
const NODE_KEYS: &str = "authentication.kubernetes.io/associated-node-keys";
const NODE: &str = "system:node:";
/// From so many on, one check for all of a kind comes before a check for each.
const MANY: usize = 4;

/// A way to become another user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The node that the caller, a pod's service account, runs on.
    AssociatedNode,
    /// Any node.
    ArbitraryNode,
    /// A service account.
    ServiceAccount,
    /// Anybody else.
    UserInfo,
    /// Anybody, for all that this one may do.
    Legacy,
}

/// In the order in which they are tried.
pub const MODES: [Mode; 5] = [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy];

/// What a mode asks of the authorizers: any of `wide` is enough for all that it stands before, otherwise each of `each`.
#[derive(Debug, Default)]
pub struct Checks<'a> {
    /// One for all.
    pub wide: Option<Attributes<'a>>,
    /// One by one.
    pub each: Vec<Attributes<'a>>,
}

fn node(user: &str) -> Option<&str> {
    user.strip_prefix(NODE).filter(|name| names::dns1123_subdomain(name).is_empty())
}

fn says_its_name_only(user: &User) -> bool {
    user.uid.is_empty() && user.groups.is_empty() && user.extra.is_empty()
}

impl Mode {
    /// The verb for what the caller wants to be.
    pub fn verb(self) -> &'static str {
        match self {
            Self::AssociatedNode => "impersonate:associated-node",
            Self::ArbitraryNode => "impersonate:arbitrary-node",
            Self::ServiceAccount => "impersonate:serviceaccount",
            Self::UserInfo => "impersonate:user-info",
            Self::Legacy => "impersonate",
        }
    }

    /// The verb for what the caller wants to do as somebody else; none where all is allowed.
    pub fn verb_on(self, verb: &str) -> Option<String> {
        let mode = self.verb().strip_prefix("impersonate:")?;
        Some(format!("impersonate-on:{mode}:{verb}"))
    }

    /// Whether this caller can become that user in this way.
    pub fn fits(self, caller: &User, wanted: &User) -> bool {
        match self {
            Self::AssociatedNode => {
                let own = caller.extra.get(NODE_NAME).filter(|names| names.len() == 1).map(|names| names[0].as_str());
                let is = node(&wanted.name).filter(|node| own == Some(*node));
                says_its_name_only(wanted) && account(&caller.name).is_some() && is.is_some()
            }
            Self::ArbitraryNode => says_its_name_only(wanted) && node(&wanted.name).is_some(),
            Self::ServiceAccount => says_its_name_only(wanted) && account(&wanted.name).is_some(),
            Self::UserInfo => node(&wanted.name).is_none() && account(&wanted.name).is_none(),
            Self::Legacy => true,
        }
    }

    /// The caller as authorizers see it: of one that becomes its own node they know no more than that it may.
    pub fn seen(self, caller: &User) -> User {
        let mut seen = caller.clone();
        if self == Self::AssociatedNode {
            seen.extra = [(NODE_KEYS.to_owned(), caller.extra.keys().cloned().collect())].into();
        }
        seen
    }

    /// The user with the groups that follow from what it is.
    pub fn complete(self, mut wanted: User) -> User {
        if matches!(self, Self::AssociatedNode | Self::ArbitraryNode) {
            wanted.groups = vec!["system:nodes".to_owned()];
        }
        super::complete(wanted)
    }

    /// What the caller must be allowed to become that user.
    ///
    /// # Errors
    /// Nobody may be that in this mode.
    pub fn requirements<'a>(self, caller: &'a User, wanted: &'a User) -> Result<Vec<Checks<'a>>, Status> {
        let legacy = self == Self::Legacy;
        let base = Attributes { verb: self.verb(), is_resource: true, ..Attributes::new(caller) };
        let authentication = Attributes { group: AUTHENTICATION, version: "v1", ..base };
        // Names and groups were of the core's group before.
        let own = if legacy { base } else { authentication };
        let one = |attributes| Checks { wide: None, each: vec![attributes] };
        let mut all = vec![one(match (account(&wanted.name), node(&wanted.name).filter(|_| !legacy)) {
            (Some((namespace, name)), _) => Attributes { resource: "serviceaccounts", namespace, name, ..own },
            (None, Some(_)) if self == Self::AssociatedNode => Attributes { resource: "nodes", name: "*", ..own },
            (None, Some(name)) => Attributes { resource: "nodes", name, ..own },
            (None, None) => Attributes { resource: "users", name: &wanted.name, ..own },
        })];
        if !wanted.uid.is_empty() {
            all.push(one(Attributes { resource: "uids", name: &wanted.uid, ..authentication }));
        }
        let groups = Attributes { resource: "groups", ..own };
        let extras = Attributes { resource: "userextras", ..authentication };
        if !legacy {
            refuse_groups(groups, wanted)?;
            refuse_extra(extras, wanted)?;
        }
        let many = |count: usize| !legacy && count >= MANY;
        all.push(Checks {
            wide: many(wanted.groups.len()).then_some(Attributes { name: "*", ..groups }),
            each: wanted.groups.iter().map(|group| Attributes { name: group, ..groups }).collect(),
        });
        let each = wanted.extra.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
        let each: Vec<_> = each.map(|(key, value)| Attributes { subresource: key, name: value, ..extras }).collect();
        let wide = many(each.len()).then_some(Attributes { subresource: "*", name: "*", ..extras });
        all.push(Checks { wide, each });
        Ok(all)
    }
}

fn refuse_groups(groups: Attributes<'_>, wanted: &User) -> Result<(), Status> {
    if wanted.groups.iter().any(String::is_empty) {
        return Err(groups.forbidden("impersonating the empty string group is not allowed"));
    }
    if wanted.groups.iter().any(|group| group == MASTERS) {
        let masters = Attributes { name: MASTERS, ..groups };
        return Err(masters.forbidden("impersonating the system:masters group is not allowed"));
    }
    Ok(())
}

fn refuse_extra(extras: Attributes<'_>, wanted: &User) -> Result<(), Status> {
    for (key, values) in &wanted.extra {
        let prefixed = key
            .split_once('/')
            .is_some_and(|(domain, path)| names::dns1123_subdomain(domain).is_empty() && names::url_path(path).is_empty());
        let why = if key.is_empty() {
            "impersonating the empty string key in extra is not allowed".to_owned()
        } else if !prefixed {
            format!("impersonating an invalid key in extra is not allowed: {key:?} must be a domain-prefixed path")
        } else if key.bytes().any(|byte| byte.is_ascii_uppercase()) {
            format!("impersonating a key in extra that is not lower case is not allowed: {key:?}")
        } else if values.iter().any(String::is_empty) {
            "impersonating the empty string value in extra is not allowed".to_owned()
        } else {
            continue;
        };
        return Err(extras.forbidden(&why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn user(name: &str, groups: &[&str], extra: &[(&str, &str)]) -> User {
        User {
            name: name.into(),
            groups: groups.iter().map(|&group| group.into()).collect(),
            extra: extra.iter().map(|&(key, value)| (key.into(), vec![value.into()])).collect(),
            ..User::default()
        }
    }

    /// KEP-5284: "three distinct modes": nodes, service accounts, and everybody else; and the one before them for all.
    #[test]
    fn modes_of_users() {
        let agent = user("system:serviceaccount:n:a", &[], &[(NODE_NAME, "n1")]);
        let check = |caller: &User, wanted: &User, expected: &[Mode]| {
            let fit: Vec<Mode> = MODES.into_iter().filter(|mode| mode.fits(caller, wanted)).collect();
            assert_eq!(fit, expected, "{} as {}", caller.name, wanted.name);
        };
        let plain = |name: &str| user(name, &[], &[]);
        check(&agent, &plain("system:node:n1"), &[Mode::AssociatedNode, Mode::ArbitraryNode, Mode::Legacy]);
        check(&agent, &plain("system:node:n2"), &[Mode::ArbitraryNode, Mode::Legacy]);
        let pretender = user("jane", &[], &[(NODE_NAME, "n1")]);
        check(&pretender, &plain("system:node:n1"), &[Mode::ArbitraryNode, Mode::Legacy]);
        check(&agent, &user("system:node:n1", &["system:nodes"], &[]), &[Mode::Legacy]);
        check(&agent, &plain("system:serviceaccount:n:b"), &[Mode::ServiceAccount, Mode::Legacy]);
        check(&agent, &user("system:serviceaccount:n:b", &["g"], &[]), &[Mode::Legacy]);
        check(&agent, &user("jane", &["g"], &[]), &[Mode::UserInfo, Mode::Legacy]);
    }

    #[test]
    fn what_is_asked_for() {
        let caller = user("system:serviceaccount:n:a", &[], &[]);
        let check = |mode: Mode, wanted: &User, expected: &[&str]| {
            let checks = mode.requirements(&caller, wanted).unwrap();
            let shown = |a: &Attributes<'_>| {
                format!("{} {}/{}/{} {}/{}", a.verb, a.group, a.resource, a.subresource, a.namespace, a.name)
            };
            let shown: Vec<_> = checks
                .iter()
                .flat_map(|checks| {
                    let wide = checks.wide.iter().map(|wide| format!("all: {}", shown(wide)));
                    wide.chain(checks.each.iter().map(shown)).collect::<Vec<_>>()
                })
                .collect();
            assert_eq!(shown, expected);
        };
        let node = user("system:node:n1", &[], &[]);
        check(Mode::AssociatedNode, &node, &["impersonate:associated-node authentication.k8s.io/nodes/ /*"]);
        check(Mode::ArbitraryNode, &node, &["impersonate:arbitrary-node authentication.k8s.io/nodes/ /n1"]);
        check(Mode::Legacy, &node, &["impersonate /users/ /system:node:n1"]);
        let jane = user("jane", &["a", "b"], &[("example.com/k", "v")]);
        check(
            Mode::UserInfo,
            &jane,
            &[
                "impersonate:user-info authentication.k8s.io/users/ /jane",
                "impersonate:user-info authentication.k8s.io/groups/ /a",
                "impersonate:user-info authentication.k8s.io/groups/ /b",
                "impersonate:user-info authentication.k8s.io/userextras/example.com/k /v",
            ],
        );
        check(
            Mode::Legacy,
            &jane,
            &[
                "impersonate /users/ /jane",
                "impersonate /groups/ /a",
                "impersonate /groups/ /b",
                "impersonate authentication.k8s.io/userextras/example.com/k /v",
            ],
        );
        let many = user("jane", &["a", "b", "c", "d"], &[]);
        let wide = Mode::UserInfo.requirements(&caller, &many).unwrap().remove(1);
        assert_eq!((wide.wide.map(|a| a.name), wide.each.len()), (Some("*"), 4));
        assert_eq!(Mode::ServiceAccount.verb_on("list").as_deref(), Some("impersonate-on:serviceaccount:list"));
        assert_eq!(Mode::Legacy.verb_on("list"), None);
    }

    #[test]
    fn nobody_becomes_everybody() {
        let caller = User::default();
        let check = |wanted: &User, expected: Option<&str>| {
            let refused = Mode::UserInfo.requirements(&caller, wanted).err().map(|status| status.message);
            let refused = refused.as_deref().and_then(|text| text.rsplit_once("at the cluster scope: ")).map(|(_, why)| why);
            assert_eq!(refused, expected);
        };
        check(&user("jane", &["system:masters"], &[]), Some("impersonating the system:masters group is not allowed"));
        check(&user("jane", &[""], &[]), Some("impersonating the empty string group is not allowed"));
        check(&user("jane", &[], &[("a.b/c", "")]), Some("impersonating the empty string value in extra is not allowed"));
        check(
            &user("jane", &[], &[("scopes", "x")]),
            Some("impersonating an invalid key in extra is not allowed: \"scopes\" must be a domain-prefixed path"),
        );
        check(
            &user("jane", &[], &[("a.b/c d", "v")]),
            Some("impersonating an invalid key in extra is not allowed: \"a.b/c d\" must be a domain-prefixed path"),
        );
        let upper = "impersonating a key in extra that is not lower case is not allowed: \"a.b/Admin\"";
        check(&user("jane", &[], &[("a.b/Admin", "v")]), Some(upper));
        check(&user("jane", &["a"], &[("a.b/c", "d")]), None);
    }

    #[test]
    fn groups_follow_from_the_mode() {
        let node = || user("system:node:n1", &[], &[]);
        assert_eq!(Mode::ArbitraryNode.complete(node()).groups, ["system:nodes", "system:authenticated"]);
        assert_eq!(Mode::Legacy.complete(node()).groups, ["system:authenticated"]);
        let agent = user("system:serviceaccount:n:a", &[], &[(NODE_NAME, "n1")]);
        assert_eq!(Mode::AssociatedNode.seen(&agent).extra, [(NODE_KEYS.to_owned(), vec![NODE_NAME.to_owned()])].into());
        assert_eq!(Mode::ArbitraryNode.seen(&agent).extra, agent.extra);
    }
}
