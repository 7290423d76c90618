//! Patterns of image names: registry, port and beginning of the path, as `matchImages` of a CredentialProviderConfig and the keys of registry
//! credentials have them. Pure.

/// Why a text is no pattern.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    #[error("it names no registry")]
    NoHost,
    #[error("invalid character {0:?} in the name of the registry")]
    Host(char),
    #[error("invalid port {0:?} after the name of the registry")]
    Port(String),
    #[error("invalid character {0:?}")]
    Character(char),
}

/// A registry with its port, and the beginning of a path: `*.azurecr.io`, `registry.io:8080/path`. A `*` stands for any part of one domain label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    labels: Vec<String>,
    port: String,
    path: String,
}

impl Pattern {
    /// Reads a pattern. What upstream's URL parser refuses is refused, and what no name of an image can have: escapes.
    ///
    /// # Errors
    /// The text is none.
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        if let Some(other) = text.chars().find(|c| c.is_control() || *c == '%') {
            return Err(BadPattern::Character(other));
        }
        let text = text.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = text.find('/').map_or((text, ""), |slash| text.split_at(slash));
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let (host, port) = split_port(authority);
        if host.is_empty() {
            return Err(BadPattern::NoHost);
        }
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(BadPattern::Port(port.to_owned()));
        }
        let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let known = |c: &char| !c.is_ascii() || c.is_ascii_alphanumeric() || "-_.~*!$&'()+,;=".contains(*c);
        let is_bad = |c: &char| !(known(c) || inner.is_some() && *c == ':');
        match inner.unwrap_or(host).chars().find(is_bad) {
            Some(other) => Err(BadPattern::Host(other)),
            None => Ok(Self { labels: labels(host), port: port.to_owned(), path: path.to_owned() }),
        }
    }

    /// Whether an image of this name, without tag and digest and with its registry, fits: the same port, as many domain labels of which each
    /// fits, and the path begins with that of the pattern.
    pub fn matches(&self, repository: &str) -> bool {
        let (authority, path) = repository.find('/').map_or((repository, ""), |slash| repository.split_at(slash));
        let (host, port) = split_port(authority);
        let labels = labels(host);
        port == self.port
            && labels.len() == self.labels.len()
            && path.starts_with(&self.path)
            && self.labels.iter().zip(&labels).all(|(pattern, label)| fits(pattern, label))
    }
}

/// Host and port; an IPv6 address keeps its brackets.
fn split_port(authority: &str) -> (&str, &str) {
    let after = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[after..].rfind(':') {
        Some(colon) => (&authority[..after + colon], &authority[after + colon + 1..]),
        None => (authority, ""),
    }
}

fn labels(host: &str) -> Vec<String> {
    host.split('.').map(str::to_owned).collect()
}

/// Whether a label is what the pattern says, in which `*` stands for anything.
fn fits(pattern: &str, label: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == label };
    let Some(mut left) = label.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*').filter(|part| !part.is_empty()) {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documentation of `matchImages` ("Configure a kubelet image credential provider"): "Both contain the same number of domain parts and
    /// each part matches", "The URL path of an imageMatch must be a prefix of the target image URL path", "If the imageMatch contains a port,
    /// then the port must match in the image as well".
    #[test]
    fn images() {
        let check = |pattern: &str, repository: &str, expected: bool| {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(repository), expected, "{pattern} {repository}");
        };
        check("123456789.dkr.ecr.us-east-1.amazonaws.com", "123456789.dkr.ecr.us-east-1.amazonaws.com/a", true);
        check("*.dkr.ecr.*.amazonaws.com", "123456789.dkr.ecr.us-east-1.amazonaws.com/a/b", true);
        check("*.azurecr.io", "crew.azurecr.io/a", true);
        check("*.azurecr.io", "azurecr.io/a", false);
        check("gcr.io", "gcr.io/a", true);
        check("gcr.io", "eu.gcr.io/a", false);
        check("*.*.registry.io", "a.b.registry.io/c", true);
        check("*.*.registry.io", "a.registry.io/c", false);
        check("*.io", "a.k8s.io/c", false);
        check("k8s.*.io", "k8s.any.io/c", true);
        check("k8s.*", "k8s.io/c", true);
        check("app*.k8s.io", "app7.k8s.io/c", true);
        check("app*.k8s.io", "ape.k8s.io/c", false);
        check("*app*x*.k8s.io", "my-app-xx.k8s.io/c", true);
        check("*app*x*.k8s.io", "my-app-y.k8s.io/c", false);
        check("a*a.io", "a.io/c", false);
        check("registry.io:8080/path", "registry.io:8080/path/x", true);
        check("registry.io:8080/path", "registry.io:8080/pathology", true);
        check("registry.io:8080/path", "registry.io:8080/other", false);
        check("registry.io:8080/path", "registry.io/path", false);
        check("registry.io/path", "registry.io:8080/path", false);
        check("[::1]:5000", "[::1]:5000/a", true);
        check("[::1]", "[::1]:5000/a", false);
        check("docker.io", "docker.io/library/nginx", true);
        check("registry.io/", "registry.io/a", true);
        check("user@registry.io?x", "registry.io/a", true);
    }

    #[test]
    fn what_is_no_pattern() {
        let check = |text: &str, expected: BadPattern| assert_eq!(Pattern::parse(text), Err(expected), "{text:?}");
        check("", BadPattern::NoHost);
        check("/path", BadPattern::NoHost);
        check(":5000", BadPattern::NoHost);
        check("r.io:http/x", BadPattern::Port("http".into()));
        check("r io", BadPattern::Host(' '));
        check("[ab].io", BadPattern::Host('['));
        check("[::1", BadPattern::Host('['));
        check("r.io/%zz", BadPattern::Character('%'));
        check("r.io/\n", BadPattern::Character('\n'));
    }
}
