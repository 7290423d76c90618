//! Which objects a command means: `TYPE`, `TYPE NAME...`, `TYPE,TYPE`, `TYPE/NAME...`, a category such as `all`.

use clap::Args;

use crate::discovery::{Resource, Resources, escaped};
use crate::error::{Error, Result};

/// Objects of one resource: those with these names, or, without names, all that are selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted<'r> {
    pub(crate) resource: &'r Resource,
    pub(crate) names: Vec<String>,
}

/// Which objects of a resource, if not all.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Selectors {
    /// Labels that objects have, such as app=web,tier!=front or env in (a, b).
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub(crate) selector: Option<String>,
    /// Fields that objects have, such as status.phase=Running.
    #[arg(long, value_name = "FIELDS")]
    pub(crate) field_selector: Option<String>,
}

impl Selectors {
    /// Those that say something: an empty text, as of a variable that is not set, is none and not one that takes everything.
    fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [("labelSelector", self.selector.as_deref()), ("fieldSelector", self.field_selector.as_deref())];
        all.into_iter().filter_map(|(name, value)| Some((name, value.filter(|value| !value.trim().is_empty())?)))
    }

    /// As parameters of a list; empty without selectors.
    pub(crate) fn query(&self) -> String {
        self.pairs().map(|(name, value)| format!("{name}={}", escaped(value))).collect::<Vec<_>>().join("&")
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pairs().next().is_none()
    }
}

/// Reads the arguments of a command.
///
/// # Errors
/// A resource is not known, or types and names are mixed in no known way.
pub(crate) fn parse<'r>(resources: &'r Resources, arguments: &[String]) -> Result<Vec<Wanted<'r>>> {
    let Some((first, names)) = arguments.split_first() else {
        return Err(Error::usage(
            "You must specify the type of resource to work with. Use \"knarr api-resources\" for a complete list of supported resources.",
        ));
    };
    if arguments.iter().any(|argument| argument.contains('/')) {
        return pairs(resources, arguments);
    }
    let mut wanted = Vec::new();
    for word in first.split(',') {
        let found = match resources.named(word) {
            Ok(resource) => vec![resource],
            Err(error) => match resources.in_category(&word.to_lowercase()) {
                members if members.is_empty() => return Err(error),
                _ if !names.is_empty() => return Err(Error::usage(format!("{word:?} are several types: names belong to one"))),
                members => members,
            },
        };
        wanted.extend(found.into_iter().map(|resource| Wanted { resource, names: names.to_vec() }));
    }
    Ok(wanted)
}

/// `TYPE/NAME...`; those of one type that stand side by side are one.
fn pairs<'r>(resources: &'r Resources, arguments: &[String]) -> Result<Vec<Wanted<'r>>> {
    let mut wanted: Vec<Wanted<'r>> = Vec::new();
    for argument in arguments {
        let (word, name) = argument.split_once('/').ok_or_else(|| {
            Error::usage(
                "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form \
                 (e.g. 'knarr get resource/<resource_name>' instead of 'knarr get resource resource/<resource_name>')",
            )
        })?;
        if word.is_empty() || name.is_empty() || name.contains('/') {
            return Err(Error::usage(format!(
                "arguments in resource/name form must have a single resource and name: {argument:?}"
            )));
        }
        let resource = resources.named(word)?;
        match wanted.last_mut().filter(|last| last.resource == resource) {
            Some(last) => last.names.push(name.to_owned()),
            None => wanted.push(Wanted { resource, names: vec![name.to_owned()] }),
        }
    }
    Ok(wanted)
}

/// Checks what goes with names, of arguments or files: they choose for themselves, and a namespace has to be known.
///
/// # Errors
/// There is a selector or `--all` as well, or all namespaces are meant and a resource has some; nothing of that is to be left out in silence.
pub(crate) fn check_names(wanted: &[Wanted<'_>], selected: bool, all_namespaces: bool) -> Result<()> {
    let mut named = wanted.iter().filter(|wanted| !wanted.names.is_empty()).peekable();
    if selected && named.peek().is_some() {
        return Err(Error::usage("name cannot be provided when a selector or --all is specified"));
    }
    if all_namespaces && named.any(|wanted| wanted.resource.namespaced) {
        return Err(Error::usage("a resource cannot be retrieved by name across all namespaces"));
    }
    Ok(())
}

/// One object, which some commands want: `TYPE/NAME`, `TYPE NAME`, or a name alone, which is one of `default`.
///
/// # Errors
/// As [`parse`], or it is not one.
pub(crate) fn one<'r>(resources: &'r Resources, argument: &str, default: &str) -> Result<(&'r Resource, String)> {
    let (word, name) = argument.split_once('/').unwrap_or((default, argument));
    if name.is_empty() || name.contains('/') {
        return Err(Error::usage(format!("{argument:?} is neither a name nor TYPE/NAME")));
    }
    Ok((resources.named(word)?, name.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn arguments() {
        let resources = crate::discovery::tests::some();
        let check = |arguments: &str, expected: &str| {
            let arguments: Vec<_> = arguments.split_whitespace().map(str::to_owned).collect();
            let told = match parse(&resources, &arguments) {
                Ok(wanted) => {
                    let told = |wanted: &Wanted<'_>| format!("{}[{}]", wanted.resource.plural, wanted.names.join(" "));
                    wanted.iter().map(told).collect::<Vec<_>>().join(" ")
                }
                Err(error) => error.to_string().split(':').next().unwrap_or_default().to_owned(),
            };
            assert_eq!(told, expected, "{arguments:?}");
        };
        check("pods", "pods[]");
        check("po a b", "pods[a b]");
        check("pods,svc a", "pods[a] services[a]");
        check("pod/a deploy/b deployment.apps/c", "pods[a] deployments[b c]");
        check("all", "pods[] services[] deployments[] ships[]");
        check("all a", "error");
        check("pods pod/a", "error");
        check("pod/ ", "error");
        check("boats", "error");
        check("", "error");
    }

    #[test]
    fn single_objects() {
        let resources = crate::discovery::tests::some();
        let found = |argument: &str| one(&resources, argument, "pods").ok().map(|(resource, name)| resource.named(&name));
        assert_eq!(found("web").as_deref(), Some("pod/web"));
        assert_eq!(found("deploy/web").as_deref(), Some("deployment.apps/web"));
        assert_eq!((found("deploy/"), found("a/b/c"), found("boats/x")), (None, None, None));
    }

    #[test]
    fn queries() {
        let selectors = Selectors { selector: Some("a=b,c in (d)".to_owned()), field_selector: None };
        assert_eq!(selectors.query(), "labelSelector=a%3Db%2Cc%20in%20%28d%29");
        assert_eq!(Selectors::default().query(), "");
        assert!(!selectors.is_empty() && Selectors::default().is_empty());
        let unset = Selectors { selector: Some(String::new()), field_selector: Some(" ".to_owned()) };
        assert!(unset.is_empty() && unset.query().is_empty());
    }

    #[test]
    fn names_stand_alone() {
        let resources = crate::discovery::tests::some();
        let check = |arguments: &str, selected: bool, all_namespaces: bool, expected: &str| {
            let arguments: Vec<_> = arguments.split_whitespace().map(str::to_owned).collect();
            let told = check_names(&parse(&resources, &arguments).unwrap(), selected, all_namespaces);
            assert_eq!(told.err().map(|error| error.to_string()).unwrap_or_default(), expected, "{arguments:?}");
        };
        let selector = "error: name cannot be provided when a selector or --all is specified";
        let everywhere = "error: a resource cannot be retrieved by name across all namespaces";
        check("pods", true, true, "");
        check("pod a", false, false, "");
        check("pod a", true, false, selector);
        check("pod/a deploy/b", false, true, everywhere);
        check("node a", false, true, "");
        check("node/a pod/b", false, true, everywhere);
        check("node a", true, true, selector);
    }
}
