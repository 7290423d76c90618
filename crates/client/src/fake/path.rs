//! From a request path to what it names.

/// A collection of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) resource: String,
    pub(super) namespace: Option<String>,
}

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `/api`, `/apis`
    Groups { core: bool },
    /// `/api/v1`, `/apis/GROUP/VERSION`
    Resources { group: String, version: String },
    /// A collection, or an object of it, or a subresource.
    Object { place: Place, name: Option<String>, subresource: Option<String> },
}

pub(super) fn parse(path: &str) -> Option<Target> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, rest) = match parts.as_slice() {
        ["api"] => return Some(Target::Groups { core: true }),
        ["apis"] => return Some(Target::Groups { core: false }),
        ["api", rest @ ..] => ("", rest),
        ["apis", group, rest @ ..] => (*group, rest),
        _ => return None,
    };
    let (version, rest) = rest.split_first()?;
    let (namespace, rest) = match rest {
        [] => return Some(Target::Resources { group: group.to_owned(), version: (*version).to_owned() }),
        ["namespaces", name] => (None, &["namespaces", name][..]),
        ["namespaces", name, sub @ ("status" | "finalize")] => (None, &["namespaces", name, sub][..]),
        ["namespaces", namespace, rest @ ..] => (Some((*namespace).to_owned()), rest),
        rest => (None, rest),
    };
    let place =
        Place { group: group.to_owned(), version: (*version).to_owned(), resource: (*rest.first()?).to_owned(), namespace };
    let part = |index: usize| rest.get(index).map(|part| (*part).to_owned());
    Some(Target::Object { place, name: part(1), subresource: part(2) })
}
