//! Paths: what a rule matches, which of several wins, and what a request's path really is. Pure.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt::Write;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use crate::effort::Effort;
use crate::patterns::{self, Pattern, beginning, pattern, plain_beginning};

/// What a path of a rule matches.
#[derive(Clone, Debug)]
pub enum Matcher {
    /// The same path.
    Exact(String),
    /// The path and what is below it; without the slash at the end.
    Prefix(String),
    /// What begins like this, whatever follows.
    Begins(String),
    /// What begins with a match, in either case.
    Pattern(Arc<Pattern>),
    /// What may match a pattern that is not there, since it begins like this in either case. What guards the path guards what it
    /// matches, so nobody is served there: neither by this path nor by a broader one.
    Closed(String),
}

/// How a rule means its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathType {
    /// Exact.
    Exact,
    /// Prefix, element by element.
    Prefix,
    /// As ingress-nginx means it: a prefix, letter by letter.
    ImplementationSpecific,
}

impl Matcher {
    /// Of a rule's path. With `is_pattern`, paths that are not exact are regular expressions of this namespace.
    ///
    /// # Errors
    /// It is none, or there is no room for it.
    pub fn new(path: &str, kind: PathType, is_pattern: bool, namespace: &str) -> Result<Self, patterns::Refused> {
        Ok(match kind {
            PathType::Exact => Self::Exact(path.to_owned()),
            _ if is_pattern => Self::Pattern(pattern(namespace, &at_the_beginning(path), true)?),
            PathType::Prefix => Self::Prefix(path.strip_suffix('/').unwrap_or(path).to_owned()),
            PathType::ImplementationSpecific => Self::Begins(path.to_owned()),
        })
    }

    /// Of a rule's path that is a regular expression without room, or that is none.
    pub fn closed(path: &str) -> Self {
        Self::Closed(beginning(&at_the_beginning(path)).unwrap_or_else(|_| plain_beginning(path)))
    }

    /// The letters, in lower case, with which all begins that a rule's path matches, or that it may match if it is a regular expression.
    pub fn beginning(path: &str, kind: PathType, is_pattern: bool) -> String {
        if let (true, Self::Closed(begin)) = (is_pattern && kind != PathType::Exact, Self::closed(path)) {
            return begin;
        }
        let path = path.strip_suffix('/').filter(|_| kind == PathType::Prefix).unwrap_or(path);
        path.chars().take_while(char::is_ascii).map(|letter| letter.to_ascii_lowercase()).collect()
    }

    /// Whether it matches a path, as far as that may be looked at.
    pub fn matches(&self, path: &str, effort: &Effort) -> bool {
        match self {
            Self::Exact(exact) => exact == path,
            Self::Prefix(prefix) => {
                path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Begins(begin) => path.starts_with(begin.as_str()),
            Self::Pattern(pattern) => effort.spend(path.len()) && pattern.is_match(path),
            Self::Closed(begin) => begins(path, begin),
        }
    }

    /// Whether all that it matches begins with these letters, which are in lower case, in either case.
    pub fn begins_like(&self, begin: &str) -> bool {
        match self {
            Self::Exact(path) | Self::Prefix(path) | Self::Begins(path) | Self::Closed(path) => begins(path, begin),
            Self::Pattern(pattern) => begins(pattern.beginning(), begin),
        }
    }

    /// The path after a rewrite of what was matched, as requests have it; `$1` to `$9` are the groups of the pattern. A target may have a query of its own;
    /// what a group has is a part of a path, whatever letters that has.
    pub fn rewrite(&self, target: &str, path: &str) -> String {
        let captures = match self {
            Self::Pattern(pattern) => pattern.captures(path),
            _ => None,
        };
        let mut rewritten = String::new();
        let mut rest = target;
        while let Some(at) = rest.find('$') {
            encode(&rest[..at], "?", &mut rewritten);
            rest = &rest[at + 1..];
            match rest.chars().next().and_then(|c| c.to_digit(10)) {
                Some(group) => {
                    rest = &rest[1..];
                    let text = captures.as_ref().and_then(|captures| captures.get(group as usize));
                    encode(text.map_or("", |text| text.as_str()), "", &mut rewritten);
                }
                None => rewritten.push('$'),
            }
        }
        encode(rest, "?", &mut rewritten);
        rewritten
    }
}

fn at_the_beginning(path: &str) -> String {
    format!("^(?:{path})")
}

/// Whether a path begins with these letters, which are in lower case, in either case.
fn begins(path: &str, begin: &str) -> bool {
    let mut letters = path.chars();
    begin.chars().all(|wanted| letters.next().is_some_and(|letter| in_either_case(letter) == wanted))
}

/// The ASCII letter, in lower case, that matches this one where case does not count.
fn in_either_case(letter: char) -> char {
    match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        _ => letter.to_ascii_lowercase(),
    }
}

/// The paths of one host, each with what it leads to.
#[derive(Debug)]
pub struct Paths<T> {
    exact: HashMap<String, Arc<T>>,
    prefixes: Prefixes<T>,
    /// The others, the longest first.
    others: Vec<(usize, Matcher, Arc<T>)>,
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), prefixes: Prefixes::default(), others: Vec::new() }
    }
}

impl<T> Paths<T> {
    /// Adds a path of `length` as it was written. What came before keeps what both match alike.
    pub fn add(&mut self, length: usize, matcher: &Matcher, to: Arc<T>) {
        match matcher {
            Matcher::Exact(path) => drop(self.exact.entry(path.clone()).or_insert(to)),
            Matcher::Prefix(path) => self.prefixes.add(path, length, to),
            Matcher::Begins(_) | Matcher::Pattern(_) | Matcher::Closed(_) => {
                let at = self.others.partition_point(|(other, ..)| *other >= length);
                self.others.insert(at, (length, matcher.clone(), to));
            }
        }
    }

    /// What the path leads to: the longest match, of equal ones the exact one, then the prefix by elements.
    pub fn find(&self, path: &str, effort: &Effort) -> Option<&Arc<T>> {
        if let Some(found) = self.exact.get(path) {
            return Some(found);
        }
        let prefix = self.prefixes.find(path);
        let other = self.others.iter().find(|(_, matcher, _)| matcher.matches(path, effort));
        match (prefix, other) {
            (Some((length, found)), Some((other, ..))) if length >= other => Some(found),
            (_, Some((.., found))) | (Some((_, found)), None) => Some(found),
            (None, None) => None,
        }
    }
}

/// Prefixes of whole elements. A path is gone through once, however many elements it has and whichever of them are prefixes: looking for each of
/// them anew would take a time that grows with the square of the path.
#[derive(Debug)]
struct Prefixes<T> {
    state: RandomState,
    /// By the hash of what [`steps`] gives of them.
    all: HashMap<u64, Vec<Prefix<T>>>,
    /// Bytes of the longest.
    longest: usize,
}

#[derive(Debug)]
struct Prefix<T> {
    path: String,
    /// The length as it was written, and what it leads to.
    to: (usize, Arc<T>),
}

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self { state: RandomState::new(), all: HashMap::new(), longest: 0 }
    }
}

impl<T> Prefixes<T> {
    fn add(&mut self, path: &str, length: usize, to: Arc<T>) {
        self.longest = self.longest.max(path.len());
        let Some((_, hash)) = steps(&self.state, path).last() else { return };
        let alike = self.all.entry(hash).or_default();
        match alike.iter_mut().find(|prefix| prefix.path == path) {
            Some(prefix) if prefix.to.0 < length => prefix.to = (length, to),
            Some(_) => {}
            None => alike.push(Prefix { path: path.to_owned(), to: (length, to) }),
        }
    }

    /// The longest that the path is, or is below of. A slash at its end says nothing.
    fn find(&self, path: &str) -> Option<&(usize, Arc<T>)> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let within = steps(&self.state, path).take_while(|(end, _)| *end <= self.longest);
        let known: Vec<_> = within.filter_map(|(end, hash)| Some((&path[..end], self.all.get(&hash)?))).collect();
        known.into_iter().rev().find_map(|(ancestor, alike)| Some(&alike.iter().find(|prefix| prefix.path == ancestor)?.to))
    }
}

/// Where the elements of a path end, the first one first, each with the hash of all up to there: of `/a/b` the empty root, `/a` and `/a/b`.
fn steps<'p>(state: &RandomState, path: &'p str) -> impl Iterator<Item = (usize, u64)> + use<'p> {
    let (mut hasher, mut end) = (state.build_hasher(), None::<usize>);
    path.split('/').map(move |element| {
        let begin = end.map_or(0, |end| end + 1);
        end = Some(begin + element.len());
        hasher.write(element.as_bytes());
        hasher.write_u8(b'/');
        (begin + element.len(), hasher.finish())
    })
}

/// The path that is meant: decoded, without doubled slashes and dots. None when it leads above the root or is no text.
///
/// Rules are matched against this, so that `/%61dmin` and `//admin` do not get round a rule for `/admin`; back ends get
/// the path as it was sent.
pub fn normalize(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') && !path.contains("//") && !path.contains("/.") {
        return Some(Cow::Borrowed(path));
    }
    let decoded = decode(path)?;
    let mut parts: Vec<&str> = Vec::new();
    let mut directory = true;
    for part in decoded.split('/') {
        directory = matches!(part, "" | "." | "..");
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    let mut normal = String::with_capacity(decoded.len());
    for part in &parts {
        normal.push('/');
        normal.push_str(part);
    }
    if directory {
        normal.push('/');
    }
    Some(Cow::Owned(normal))
}

/// Adds a path that is decoded, as requests have it. Letters that are in `kept` stay what they are.
fn encode(path: &str, kept: &str, encoded: &mut String) {
    for byte in path.bytes() {
        let letter = char::from(byte);
        if kept.contains(letter) || (byte.is_ascii_graphic() && !b"\"<>\\^`{|}%#?".contains(&byte)) {
            encoded.push(letter);
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
}

/// A path, perhaps with a query, that was written down as requests have it: what cannot stand in a request is escaped.
pub fn written(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    let is_escaped = |after: &str| after.len() >= 2 && after.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    for (place, part) in path.split('%').enumerate() {
        if place > 0 {
            encoded.push_str(if is_escaped(part) { "%" } else { "%25" });
        }
        encode(part, "?", &mut encoded);
    }
    encoded
}

/// What follows a prefix, which is normal and without a slash at its end, of a path that it matches: as it was sent where this has the same parts, since what was
/// escaped means something else to some back ends (`%2F`), else as `normal` has it. What leads above the prefix is never as it was sent.
pub fn behind(prefix: &str, normal: &str, sent: &str) -> String {
    let rest = normal.get(prefix.len()..).unwrap_or_default();
    let end = sent.match_indices('/').nth(prefix.matches('/').count()).map_or(sent.len(), |(at, _)| at);
    let (before, behind) = sent.split_at(end);
    let is = |sent: &str, normal: &str| sent == normal || (!sent.is_empty() && normalize(sent).as_deref() == Some(normal));
    if is(before, prefix) && is(behind, rest) {
        return behind.to_owned();
    }
    let mut encoded = String::with_capacity(rest.len());
    encode(rest, "", &mut encoded);
    encoded
}

fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push(u8::try_from(high * 16 + low).ok().filter(|byte| *byte != 0)?);
        } else {
            bytes.push(byte);
        }
    }
    // What is no UTF-8 cannot be in a rule either: such letters become ones that match nothing.
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::PathType::{Exact, ImplementationSpecific, Prefix};
    use super::*;
    use crate::effort::TooLong;

    fn paths(rules: &[(&'static str, PathType)], pattern: bool) -> Paths<&'static str> {
        let mut paths = Paths::default();
        for (path, kind) in rules {
            paths.add(path.len(), &Matcher::new(path, *kind, pattern, "a").unwrap(), Arc::new(*path));
        }
        paths
    }

    fn check(rules: &[(&'static str, PathType)], path: &str, expected: Option<&str>) {
        assert_eq!(paths(rules, false).find(path, &Effort::default()).map(|found| **found), expected, "{rules:?} {path}");
    }

    /// The table of examples in the API's documentation of path types.
    #[test]
    fn examples_of_the_documentation() {
        let one = |kind, rule, path, expected: bool| check(&[(rule, kind)], path, expected.then_some(rule));
        one(Prefix, "/", "/any/path", true);
        one(Exact, "/foo", "/foo", true);
        one(Exact, "/foo", "/bar", false);
        one(Exact, "/foo", "/foo/", false);
        one(Exact, "/foo/", "/foo", false);
        one(Prefix, "/foo", "/foo", true);
        one(Prefix, "/foo", "/foo/", true);
        one(Prefix, "/foo/", "/foo", true);
        one(Prefix, "/foo/", "/foo/", true);
        one(Prefix, "/aaa/bb", "/aaa/bbb", false);
        one(Prefix, "/aaa/bbb", "/aaa/bbb", true);
        one(Prefix, "/aaa/bbb/", "/aaa/bbb", true);
        one(Prefix, "/aaa/bbb", "/aaa/bbb/", true);
        one(Prefix, "/aaa/bbb", "/aaa/bbb/ccc", true);
        one(Prefix, "/aaa/bbb", "/aaa/bbbxyz", false);
        one(Prefix, "/foo", "/FOO", false);
        check(&[("/", Prefix), ("/aaa", Prefix)], "/aaa/ccc", Some("/aaa"));
        check(&[("/", Prefix), ("/aaa", Prefix)], "/ccc", Some("/"));
        check(&[("/", Prefix), ("/aaa", Prefix), ("/aaa/bbb", Prefix)], "/aaa/bbb", Some("/aaa/bbb"));
        check(&[("/aaa", Prefix)], "/ccc", None);
        check(&[("/foo", Prefix), ("/foo", Exact)], "/foo", Some("/foo"));
    }

    /// The longest head has 64 KiB.
    #[test]
    fn long_paths_take_no_longer_than_they_are_long() {
        let (deep, mut paths) = ("/a".repeat(30_000), Paths::default());
        paths.add(1, &Matcher::new("/", Prefix, false, "a").unwrap(), Arc::new(0));
        for length in (2..30_000).step_by(1000) {
            paths.add(length, &Matcher::new(&deep[..length], Prefix, false, "a").unwrap(), Arc::new(length));
        }
        let cost = |path: &str| {
            let begun = std::time::Instant::now();
            for _ in 0..5 {
                paths.find(path, &Effort::default());
            }
            begun.elapsed()
        };
        let flat = format!("/{}", "a".repeat(deep.len()));
        assert_eq!(paths.find(&deep, &Effort::default()).map(|found| **found), Some(29_002));
        assert_eq!(paths.find(&format!("{deep}/b"), &Effort::default()).map(|found| **found), Some(29_002));
        assert_eq!(paths.find(&format!("/b{deep}"), &Effort::default()).map(|found| **found), Some(0));
        // Each element by itself took thousands of times as long as a path of one element.
        let (deep, flat) = (cost(&deep), cost(&flat));
        assert!(deep < 500 * flat.max(std::time::Duration::from_millis(1)), "{deep:?} {flat:?}");
    }

    #[test]
    fn long_paths_are_not_held_against_many_patterns() {
        let mut paths = Paths::default();
        for number in 0..200 {
            let path = format!("/[a-y]*{number}$");
            paths.add(path.len(), &Matcher::new(&path, ImplementationSpecific, true, "long").unwrap(), Arc::new(number));
        }
        let find = |path: &str| {
            let effort = Effort::default();
            effort.whole(paths.find(path, &effort).map(|found| **found))
        };
        assert_eq!(find(&"a".repeat(5000)), Ok(None));
        assert_eq!(find(&"a".repeat(6000)), Err(TooLong));
        assert_eq!(find("/abc7"), Ok(Some(7)));
    }

    #[test]
    fn precedence() {
        // Length first, then the kind.
        check(&[("/foo", ImplementationSpecific), ("/foo/bar", Prefix)], "/foo/bar", Some("/foo/bar"));
        check(&[("/foo/ba", ImplementationSpecific), ("/foo", Prefix)], "/foo/bar", Some("/foo/ba"));
        check(&[("/foo", Prefix), ("/foo/", Prefix)], "/foo", Some("/foo/"));
        check(&[("/foo", ImplementationSpecific)], "/foobar", Some("/foo"));
        check(&[("", ImplementationSpecific)], "/x", Some(""));
        let both = [("/a", Exact), ("/a/", ImplementationSpecific)];
        check(&both, "/a", Some("/a"));
        check(&both, "/a/b", Some("/a/"));
    }

    #[test]
    fn what_came_first_stays() {
        let mut paths = Paths::default();
        for (name, kind) in [("one", Prefix), ("two", Prefix), ("three", Exact), ("four", Exact)] {
            paths.add(2, &Matcher::new("/a", kind, false, "a").unwrap(), Arc::new(name));
        }
        assert_eq!(
            (**paths.find("/a", &Effort::default()).unwrap(), **paths.find("/a/b", &Effort::default()).unwrap()),
            ("three", "one")
        );
    }

    #[test]
    fn patterns_and_rewrites() {
        let check = |rule: &str, target: &str, path: &str, expected: Option<&str>| {
            let matcher = Matcher::new(rule, ImplementationSpecific, true, "a").unwrap();
            let Matcher::Pattern(pattern) = &matcher else { panic!("a pattern") };
            let rewritten = pattern.is_match(path).then(|| matcher.rewrite(target, path));
            assert_eq!(rewritten.as_deref(), expected, "{rule} {path}");
        };
        check("/something(/|$)(.*)", "/$2", "/something", Some("/"));
        check("/something(/|$)(.*)", "/$2", "/something/", Some("/"));
        check("/something(/|$)(.*)", "/$2", "/something/new", Some("/new"));
        check("/something(/|$)(.*)", "/$2", "/somethingnew", None);
        check("/foo", "/bar", "/FOO/x", Some("/bar"));
        check("/(a)|/(b)", "/$1-$2", "/b", Some("/-b"));
        check("/a", "/$x$", "/a", Some("/$x$"));
        assert!(Matcher::new("/(", ImplementationSpecific, true, "a").is_err());
        assert!(Matcher::new("/(a{1000}){1000}", ImplementationSpecific, true, "a").is_err());
    }

    /// What has no room matches all that it would match if it had.
    #[test]
    fn what_has_no_room_is_closed() {
        let check = |rule: &str, path: &str, may_match: bool| {
            let closed = Matcher::closed(rule);
            assert_eq!(closed.matches(path, &Effort::default()), may_match, "{rule} {path} {closed:?}");
            let pattern = Matcher::new(rule, ImplementationSpecific, true, "a").unwrap();
            assert!(may_match || !pattern.matches(path, &Effort::default()), "{rule} {path}");
        };
        check(r"/admin/\w{3}", "/Admin/x", true);
        check(r"/admin/\w{3}", "/public", false);
        check("/api(/|$)(.*)", "/api", true);
        check("/(?:task/)x", "/tas\u{212a}/x", true);
        check("/(?:task/)x", "/ta\u{17f}k/x", true);
        check("/(?:task/)x", "/tax", false);
        check("/ab?", "/a", true);
        check("/(ab)*c", "/c", true);
        check("/a|/b", "/b", true);
        check("/a)|(?:/b", "/b", true);
        check("(?x)/a # (\n|/b", "/b", true);
        check("/\u{e9}", "/\u{c9}", true);
        check("^/a", "/a", true);
        check("(?i:/a)|/b", "/b", true);
    }

    /// Nobody knows what was meant by what is no regular expression: what begins with its plain letters is closed.
    #[test]
    fn what_is_no_pattern_is_closed() {
        let check = |rule: &str, expected: &str| {
            assert!(Matcher::new(rule, ImplementationSpecific, true, "a").is_err(), "{rule}");
            assert!(matches!(Matcher::closed(rule), Matcher::Closed(begin) if begin == expected), "{rule}");
        };
        check("/admin(", "/admin");
        check("/Admin/(foo|bar", "/admin/");
        check("/admin*(", "/admi");
        check("/a|/b(", "");
        check("/a(b)|/c(", "");
        check("/a[", "/a");
        check("/a[x|y](", "/a");
        check("/a[\\]|]b(", "/a");
        check("/a[|b", "");
        check("/a\\|b(", "/a");
        check("/a\\(|b(", "");
        check("/v\\.1(", "/v");
        check("/\u{e9}(", "/");
        // This one is too large for any room.
        check("/big/(a{1000}){1000}", "/big/");
    }

    #[test]
    fn beginnings() {
        let check = |path: &str, kind: PathType, is_pattern: bool, expected: &str| {
            assert_eq!(Matcher::beginning(path, kind, is_pattern), expected, "{path}");
        };
        check("/Admin/", Prefix, false, "/admin");
        check("/Admin/", Exact, true, "/admin/");
        check("/a(b|c)", ImplementationSpecific, true, "/a");
        check("/a(b|c)", ImplementationSpecific, false, "/a(b|c)");
        check("/a\u{e9}b", Prefix, false, "/a");
    }

    #[test]
    fn what_begins_like_letters() {
        let check = |path: &str, kind: PathType, is_pattern: bool, begin: &str, expected: bool| {
            let matcher = Matcher::new(path, kind, is_pattern, "a").unwrap();
            assert_eq!(matcher.begins_like(begin), expected, "{path} {begin}");
        };
        check("/App", Prefix, false, "/app", true);
        check("/app/", Prefix, false, "/app", true);
        check("/app", Prefix, false, "/app/", false);
        check("/", Prefix, false, "", true);
        check("/app/x", Exact, false, "/app/", true);
        check("/", ImplementationSpecific, false, "/app", false);
        check("/app(/|$)", ImplementationSpecific, true, "/app", true);
        check("/ap.*", ImplementationSpecific, true, "/app", false);
        assert!(Matcher::closed("/app/(").begins_like("/app"));
    }

    #[test]
    fn normal_paths() {
        let check = |path: &str, expected: Option<&str>| assert_eq!(normalize(path).as_deref(), expected, "{path}");
        check("/", Some("/"));
        check("/a/b/", Some("/a/b/"));
        check("/a.b/..c", Some("/a.b/..c"));
        check("//admin", Some("/admin"));
        check("/%61dmin", Some("/admin"));
        check("/a/../admin", Some("/admin"));
        check("/a/%2e%2E/admin/.", Some("/admin/"));
        check("/a%2fb", Some("/a/b"));
        check("/..", None);
        check("/%2e%2e/x", None);
        check("/%zz", None);
        check("/%0", None);
        check("/a%00b", None);
        check("/%C3%A9", Some("/é"));
    }

    #[test]
    fn what_was_written_down() {
        let check = |text: &str, expected: &str| assert_eq!(written(text), expected);
        check("/a/b?c=1", "/a/b?c=1");
        check("/a%20b/%C3%A9", "/a%20b/%C3%A9");
        check("/a b/é#", "/a%20b/%C3%A9%23");
        check("/100%/%zz%", "/100%25/%25zz%25");
        check("", "");
    }

    #[test]
    fn what_follows_a_prefix() {
        let check = |prefix: &str, sent: &str, expected: &str| {
            let normal = normalize(sent).unwrap();
            assert!(Matcher::Prefix(prefix.to_owned()).matches(&normal, &Effort::default()), "{prefix} {sent}");
            assert_eq!(behind(prefix, &normal, sent), expected, "{prefix} {sent}");
        };
        check("/foo", "/foo/bar", "/bar");
        check("/foo", "/foo", "");
        check("/foo", "/foo/", "/");
        check("", "/", "/");
        check("", "/a%2Fb", "/a%2Fb");
        check("/foo", "/foo/api/a%2Fb", "/api/a%2Fb");
        check("/foo", "/f%6Fo/a%3Fb", "/a%3Fb");
        check("/a b", "/a%20b/c%20d", "/c%20d");
        check("/foo", "/foo/x/../y", "/x/../y");
        // The prefix is not where it seems to be, or what follows leads out of it.
        check("/foo", "//foo/a%3Fb", "/a%3Fb");
        check("/foo", "/x/../foo/a", "/a");
        check("/foo", "/foo/../foo/a%2Fb", "/a/b");
        check("/foo", "/foo/a/../../foo/b", "/b");
        check("/foo", "/foo/%2e%2e/foo/b", "/b");
        check("/foo", "/foo%2Fbar%3F", "/bar%3F");
    }
}
