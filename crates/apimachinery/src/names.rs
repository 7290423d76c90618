//! Name formats with upstream's messages, and generated names.
//!
//! A check returns one message per rule that is broken; an empty list is a valid name.

use std::net::{IpAddr, Ipv4Addr};

use crate::text::quote;

/// A check of a name. The second argument says that the name is a prefix to which more will be appended.
pub type NameFn = fn(&str, bool) -> Vec<String>;

const LABEL_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_FMT: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED_FMT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_MSG: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN_MSG: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const QUALIFIED_MSG: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// The message of a value that does not match a pattern.
pub fn regex_error(message: &str, pattern: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{pattern}')");
    }
    let quoted: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{pattern}')", quoted.join(" or "))
}

fn max_characters(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn max_bytes(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// The message of a number out of range.
pub fn range_error(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// First and last are `edge`, all between are `inner`; not empty.
fn framed(s: &str, edge: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    match s.as_bytes() {
        [] => false,
        [one] => edge(*one),
        [first, middle @ .., last] => edge(*first) && edge(*last) && middle.iter().all(|b| inner(*b)),
    }
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn lower_alnum_dash(b: u8) -> bool {
    lower_alnum(b) || b == b'-'
}

fn is_label(s: &str) -> bool {
    framed(s, lower_alnum, lower_alnum_dash)
}

fn is_subdomain(s: &str) -> bool {
    s.split('.').all(is_label)
}

fn is_qualified_part(s: &str) -> bool {
    framed(s, |b| b.is_ascii_alphanumeric(), |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// RFC 1123 label: at most 63 of `[a-z0-9-]`.
pub fn dns1123_label(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 63 {
        out.push(max_characters(63));
    }
    if !is_label(s) {
        if is_subdomain(s) {
            out.push("must not contain dots".to_owned());
        } else {
            out.push(regex_error(LABEL_MSG, LABEL_FMT, &["my-name", "123-abc"]));
        }
    }
    out
}

/// RFC 1123 subdomain: labels joined by dots, at most 253.
pub fn dns1123_subdomain(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 253 {
        out.push(max_characters(253));
    }
    if !is_subdomain(s) {
        out.push(regex_error(SUBDOMAIN_MSG, SUBDOMAIN_FMT, &["example.com"]));
    }
    out
}

/// As [`dns1123_subdomain`], with underscores: for search domains.
pub fn dns1123_subdomain_with_underscore(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 253 {
        out.push(max_characters(253));
    }
    let inner = |b| lower_alnum_dash(b) || b == b'_';
    if !s.split('.').all(|label| framed(label.strip_prefix('_').unwrap_or(label), lower_alnum, inner)) {
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character";
        let label = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
        out.push(regex_error(message, &format!(r"{label}(\.{label})*"), &["example.com"]));
    }
    out
}

/// `*.` and an RFC 1123 subdomain.
pub fn wildcard_dns1123_subdomain(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 253 {
        out.push(max_characters(253));
    }
    if !s.strip_prefix("*.").is_some_and(is_subdomain) {
        let message = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
        out.push(regex_error(message, &format!(r"\*\.{SUBDOMAIN_FMT}"), &["*.example.com"]));
    }
    out
}

/// RFC 1035 label: as RFC 1123, starting with a letter.
pub fn dns1035_label(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 63 {
        out.push(max_characters(63));
    }
    if !is_label(s) || !s.as_bytes()[0].is_ascii_lowercase() {
        let message = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
        out.push(regex_error(message, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    out
}

/// A qualified name (label and annotation keys): a name of at most 63 with an optional subdomain prefix and `/`.
pub fn qualified_name(s: &str) -> Vec<String> {
    let examples = &["MyName", "my.name", "123-abc"];
    let mut out = Vec::new();
    let name = match s.split_once('/') {
        None => s,
        Some((_, rest)) if rest.contains('/') => {
            let text = regex_error(QUALIFIED_MSG, QUALIFIED_FMT, examples);
            return vec![format!(
                "a valid label key {text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some((prefix, rest)) => {
            if prefix.is_empty() {
                out.push("prefix part must be non-empty".to_owned());
            } else {
                if prefix.len() > 253 {
                    out.push(format!("prefix part {}", max_bytes(253)));
                }
                if !is_subdomain(prefix) {
                    out.push(format!("prefix part {}", regex_error(SUBDOMAIN_MSG, SUBDOMAIN_FMT, &["example.com"])));
                }
            }
            rest
        }
    };
    if name.is_empty() {
        out.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        out.push(format!("name part {}", max_bytes(63)));
    }
    if !is_qualified_part(name) {
        out.push(format!("name part {}", regex_error(QUALIFIED_MSG, QUALIFIED_FMT, examples)));
    }
    out
}

/// A label's value: empty, or at most 63 of `[A-Za-z0-9-_.]` between alphanumerics.
pub fn label_value(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 63 {
        out.push(max_bytes(63));
    }
    if !s.is_empty() && !is_qualified_part(s) {
        let message = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
        out.push(regex_error(message, &format!("({QUALIFIED_FMT})?"), &["MyValue", "my_value", "12345"]));
    }
    out
}

/// A C identifier.
pub fn c_identifier(s: &str) -> Vec<String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if s.bytes().all(word) && s.as_bytes().first().is_some_and(|b| !b.is_ascii_digit()) {
        return Vec::new();
    }
    let message = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'";
    vec![regex_error(message, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"])]
}

fn directory_prefix(s: &str) -> Option<String> {
    match s {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        s if s.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// The name of an environment variable: printable ASCII without `=` (upstream's rule since 1.34).
pub fn env_var_name(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.is_empty() {
        out.push("environment variable name must be non-empty".to_owned());
    }
    if !s.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        let message = "a valid environment variable name must consist only of printable ASCII characters other than '='";
        out.push(message.to_owned());
    }
    out
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 253 {
        out.push(max_characters(253));
    }
    if s.is_empty() || !s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        let message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        out.push(regex_error(message, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    out.extend(directory_prefix(s));
    out
}

/// The name of a port: at most 15 of `[a-z0-9-]`, with a letter, without `--`.
pub fn port_name(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 15 {
        out.push(max_characters(15));
    }
    if s.is_empty() || !s.bytes().all(lower_alnum_dash) {
        out.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !s.bytes().any(|b| b.is_ascii_lowercase()) {
        out.push("must contain at least one letter (a-z)".to_owned());
    }
    if s.contains("--") {
        out.push("must not contain consecutive hyphens".to_owned());
    }
    if s.starts_with('-') || s.ends_with('-') {
        out.push("must not begin or end with a hyphen".to_owned());
    }
    out
}

/// The number of a port: 1 to 65535.
pub fn port_number(port: i64) -> Vec<String> {
    in_range(port, 1, 65535)
}

/// A number between `low` and `high`, inclusive.
pub fn in_range(value: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&value) { Vec::new() } else { vec![range_error(low, high)] }
}

/// A percentage such as `25%`.
pub fn percent(s: &str) -> Vec<String> {
    let digits = s.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    let message = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![regex_error(message, "[0-9]+%", &["1%", "93%"])]
}

/// The name of an HTTP header.
pub fn http_header_name(s: &str) -> Vec<String> {
    if !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    let message = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![regex_error(message, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// A path behind a domain, as in `acme.io/foo`: what a URL's path is made of (RFC 3986), without the slash before it.
pub fn url_path(s: &str) -> Vec<String> {
    if !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
        return Vec::new();
    }
    vec![regex_error("Invalid path", r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", &[])]
}

/// A name that can stand in a URL path (RBAC and others): not `.` or `..`, without `/` and `%`.
pub fn path_segment_name(s: &str) -> Vec<String> {
    match s {
        "." => vec!["may not be '.'".to_owned()],
        ".." => vec!["may not be '..'".to_owned()],
        _ => path_segment_prefix(s),
    }
}

/// The beginning of a [`path_segment_name`].
pub fn path_segment_prefix(s: &str) -> Vec<String> {
    ['/', '%'].iter().filter(|c| s.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// Replaces a trailing dash of a prefix, as upstream does: what is appended makes it valid.
fn mask_trailing_dash(name: &str, prefix: bool) -> std::borrow::Cow<'_, str> {
    match name.strip_suffix('-') {
        // Upstream cuts two characters and adds one; the character before the dash goes with it.
        Some(rest) if prefix && !rest.is_empty() && rest.is_char_boundary(rest.len() - 1) => {
            format!("{}a", &rest[..rest.len() - 1]).into()
        }
        _ => name.into(),
    }
}

/// [`NameFn`] of most kinds.
pub fn name_is_subdomain(name: &str, prefix: bool) -> Vec<String> {
    dns1123_subdomain(&mask_trailing_dash(name, prefix))
}

/// [`NameFn`] of namespaces and others.
pub fn name_is_label(name: &str, prefix: bool) -> Vec<String> {
    dns1123_label(&mask_trailing_dash(name, prefix))
}

/// [`NameFn`] of services before names could begin with a digit (KEP-5311), which CEL still knows.
pub fn name_is_1035_label(name: &str, prefix: bool) -> Vec<String> {
    dns1035_label(&mask_trailing_dash(name, prefix))
}

/// [`NameFn`] of RBAC kinds and others.
pub fn name_is_path_segment(name: &str, prefix: bool) -> Vec<String> {
    if prefix { path_segment_prefix(name) } else { path_segment_name(name) }
}

/// [`NameFn`] of IPAddress objects: an address in its canonical form. Such names are never generated.
pub fn name_is_ip(name: &str, _prefix: bool) -> Vec<String> {
    let problems = ip(name);
    match name.parse::<IpAddr>() {
        Ok(address) if problems.is_empty() && address.to_string() != name => {
            vec![format!("must be in canonical form ({})", quote(&address.to_string()))]
        }
        _ => problems,
    }
}

/// An IP address as KEP-4858 allows it: no zeros before numbers, no IPv4 inside of IPv6.
pub fn ip(value: &str) -> Vec<String> {
    let detail = match value.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => "must not be an IPv4-mapped IPv6 address",
        Ok(_) => return Vec::new(),
        Err(_) if without_leading_zeros(value).parse::<Ipv4Addr>().is_ok() => "must not have leading 0s",
        Err(_) => "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
    };
    vec![detail.to_owned()]
}

/// An IPv4 address with the zeros before its numbers taken away, as lenient parsers read it.
pub fn without_leading_zeros(value: &str) -> String {
    let trim = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    value.split('.').map(trim).collect::<Vec<_>>().join(".")
}

/// Appends five random characters of upstream's alphabet (no vowels, no look-alikes); the base is cut to 58.
pub fn generate(base: &str) -> String {
    format!("{}{}", &base[..floor_boundary(base, 58)], random_suffix(5))
}

/// `n` (at most 12) random characters of the alphabet of generated names.
pub fn random_suffix(n: usize) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    // The low 62 bits of a random UUID are all random; 27 to the 12th is less.
    let mut random = uuid::Uuid::new_v4().as_u64_pair().1 & (u64::MAX >> 2);
    let mut out = String::with_capacity(n);
    for _ in 0..n.min(12) {
        out.push(char::from(ALPHABET[(random % 27) as usize]));
        random /= 27;
    }
    out
}

fn floor_boundary(s: &str, max: usize) -> usize {
    (0..=max.min(s.len())).rev().find(|i| s.is_char_boundary(*i)).unwrap_or(0)
}

/// A new UID: a random UUID.
pub fn new_uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(f: fn(&str) -> Vec<String>, good: &[&str], bad: &[(&str, &str)]) {
        for name in good {
            assert_eq!(f(name), Vec::<String>::new(), "{name}");
        }
        for (name, part) in bad {
            let got = f(name).join("; ");
            assert!(!got.is_empty() && got.contains(part), "{name:?}: {got:?} lacks {part:?}");
        }
    }

    #[test]
    fn dns() {
        let long = "a".repeat(64);
        check(
            dns1123_label,
            &["a", "a-b", "1", "0--9"],
            &[("", "label"), ("a.b", "must not contain dots"), ("A", "lower"), ("-a", "start"), (&long, "63 characters")],
        );
        check(dns1123_subdomain, &["a", "a.b", "a-1.b2"], &[("a..b", "subdomain"), (".a", "start"), ("a_b", "subdomain")]);
        check(dns1035_label, &["a", "a1"], &[("1a", "DNS-1035"), ("", "DNS-1035"), ("a-", "DNS-1035")]);
        check(dns1123_subdomain_with_underscore, &["_tcp.a_b.c", "a"], &[("__a", "'_'"), ("a_", "'_'"), ("", "'_'")]);
        check(wildcard_dns1123_subdomain, &["*.a.b"], &[("a.b", "wildcard"), ("*", "wildcard"), ("*.*.a", "wildcard")]);
    }

    #[test]
    fn keys_and_values() {
        let long = "a".repeat(64);
        check(
            qualified_name,
            &["a", "A_b.c-d", "example.com/Name", "1.2.3.4/5678"],
            &[
                ("a/b/c", "a valid label key"),
                ("/a", "prefix part must be non-empty"),
                ("a/", "name part must be non-empty"),
                ("Ex.com/a", "prefix part a lowercase"),
                ("-a", "name part must consist"),
                (&long, "name part must be no more than 63 bytes"),
            ],
        );
        check(label_value, &["", "a", "A.b"], &[("-", "valid label"), ("a b", "valid label"), (&long, "63 bytes")]);
        check(config_map_key, &["a", "A.b_c-d", ".a"], &[("", "config key"), ("..", "must not be '..'"), ("..a", "start with")]);
        check(env_var_name, &["A", "a b", "1"], &[("", "non-empty"), ("a=b", "printable"), ("ä", "printable")]);
        check(c_identifier, &["_a1", "A"], &[("1", "C identifier"), ("", "C identifier"), ("a-b", "C identifier")]);
    }

    #[test]
    fn ports_and_paths() {
        check(
            port_name,
            &["http", "a-1"],
            &[("1", "letter"), ("a--b", "consecutive"), ("-a", "hyphen"), ("A", "only alpha"), ("abcdefghijklmnop", "15")],
        );
        check(path_segment_name, &["system:a", "A b"], &[(".", "may not be '.'"), ("a/b", "contain '/'"), ("a%", "contain '%'")]);
        check(percent, &["0%", "100%"], &[("%", "percent"), ("1", "percent"), ("-1%", "percent")]);
        assert_eq!(port_number(0), vec!["must be between 1 and 65535, inclusive"]);
    }

    #[test]
    fn full_text() {
        let text = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
        assert_eq!(dns1123_label("A"), vec![text]);
    }

    #[test]
    fn generated_names() {
        let name = generate(&"x".repeat(80));
        assert_eq!(name.len(), 63);
        assert!(name[58..].bytes().all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b)));
        assert_ne!(generate("a-"), generate("a-"));
        assert_eq!(name_is_subdomain("abc-", true), Vec::<String>::new());
        assert_eq!(name_is_subdomain("abc-", false).len(), 1);
    }
}
