//! Names of signers of certificates.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;

const MAX_DOMAIN: usize = 253;
const MAX_PATH: usize = 253 + 63 + 1;

/// `example.com/signer`.
pub(crate) fn signer_name(path: &Path, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        return errors.push(Error::required(path, ""));
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.push(Error::invalid(path, name, detail));
    };
    if domain.len() > MAX_DOMAIN {
        errors.push(Error::too_long(path, MAX_DOMAIN));
    }
    first_wrong(path, domain, names::dns1123_label, errors);
    if !domain.contains('.') {
        errors.push(Error::invalid(path, domain, "should be a domain with at least two segments separated by dots"));
    }
    first_wrong(path, rest, names::dns1123_subdomain, errors);
    if name.len() > MAX_DOMAIN + 1 + MAX_PATH {
        errors.push(Error::too_long(path, MAX_DOMAIN + 1 + MAX_PATH));
    }
}

/// What is wrong with the first wrong part; the others would say the same.
fn first_wrong(path: &Path, value: &str, check: fn(&str) -> Vec<String>, errors: &mut Errors) {
    let parts = value.split('.').map(|part| (part, check(part)));
    if let Some((part, wrong)) = parts.into_iter().find(|(_, wrong)| !wrong.is_empty()) {
        errors.invalid_each(path, value, wrong.into_iter().map(|why| format!("validating label {part:?}: {why}")).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: &[&str]) {
        let mut errors = Errors::new();
        signer_name(&Path::new("s"), name, &mut errors);
        let starts = errors.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(starts.len(), expected.len(), "{starts:?}");
        for (error, start) in starts.iter().zip(expected) {
            assert!(error.starts_with(start), "{error}");
        }
    }

    #[test]
    fn signer_names() {
        check("example.com/signer", &[]);
        check("a.b/c.d-e", &[]);
        check("", &["s: Required value"]);
        check("example.com", &["s: Invalid value: \"example.com\": must be a fully qualified domain and path of the form"]);
        check("a.b/c/d", &["s: Invalid value: \"a.b/c/d\": must be a fully qualified domain"]);
        check("ab/c", &["s: Invalid value: \"ab\": should be a domain with at least two segments"]);
        check("a..b/c", &["s: Invalid value: \"a..b\": validating label \"\": a lowercase RFC 1123 label"]);
        check("a.b/C", &["s: Invalid value: \"C\": validating label \"C\": a lowercase RFC 1123 subdomain"]);
        check(&format!("{}.b/c", "a".repeat(252)), &["s: Too long: may not be more than 253 bytes", "s: Invalid value"]);
    }
}
