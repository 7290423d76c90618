//! The clauses of an Accept header, read and ordered as upstream does it (`goautoneg`), quirks included: clients send what
//! upstream understands.

/// One clause: a media type and its parameters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Clause<'a> {
    /// The type, or `*`.
    pub main: &'a str,
    /// The subtype, or `*`.
    pub sub: &'a str,
    quality: f32,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Clause<'a> {
    /// `type/subtype;name=value;...`; none for what is no media type.
    fn read(text: &'a str) -> Option<Self> {
        let (media, rest) = text.trim().split_once(';').unwrap_or((text.trim(), ""));
        let (main, sub) = match media.trim().split_once('/') {
            Some((_, sub)) if sub.contains('/') => return None,
            Some((main, sub)) => (main.trim(), sub.trim()),
            None if media.trim() == "*" => ("*", "*"),
            None => return None,
        };
        let mut clause = Self { main, sub, quality: 1.0, parameters: Vec::new() };
        for (name, value) in rest.split(';').filter_map(|parameter| parameter.split_once('=')) {
            let (name, value) = (name.trim(), value.trim());
            match name {
                _ if value.contains('=') => {}
                "q" => clause.quality = value.parse().unwrap_or(0.0),
                _ => clause.parameters.push((name, value)),
            }
        }
        Some(clause)
    }

    /// The last value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// Whether it takes a media type.
    pub fn takes(&self, main: &str, sub: &str) -> bool {
        (self.main == main && (self.sub == sub || self.sub == "*")) || (self.main == "*" && self.sub == "*")
    }

    /// Whether it comes before another one. This is no order in the mathematical sense, so how it is sorted matters.
    fn precedes(&self, other: &Self) -> bool {
        self.quality > other.quality || (self.main != "*" && other.main == "*") || (self.sub != "*" && other.sub == "*")
    }
}

/// The clauses of a header, the best first. Sorted by insertion, as Go's `sort` does with so few.
pub fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut all: Vec<Clause<'_>> = header.split(',').filter_map(Clause::read).take(MAX_CLAUSES).collect();
    for end in 1..all.len() {
        let mut at = end;
        while at > 0 && all[at].precedes(&all[at - 1]) {
            all.swap(at, at - 1);
            at -= 1;
        }
    }
    all
}

/// Clauses that are looked at: sorting by insertion must stay cheap.
const MAX_CLAUSES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(header: &str, expected: &[&str]) {
        let found: Vec<String> = clauses(header).iter().map(|clause| format!("{}/{}", clause.main, clause.sub)).collect();
        assert_eq!(found, expected, "{header}");
    }

    #[test]
    fn order() {
        check("a/b, c/d", &["a/b", "c/d"]);
        check("a/b;q=0.5, c/d", &["c/d", "a/b"]);
        check("*/*, a/*, a/b", &["a/b", "a/*", "*/*"]);
        // A weight is no match for being specific.
        check("*/*;q=1, a/b;q=0.1", &["a/b", "*/*"]);
        check("*", &["*/*"]);
        check("text, a/b/c, ,x/y", &["x/y"]);
        check("a/b;q=none, c/d;q=0.1", &["c/d", "a/b"]);
        check("", &[]);
    }

    #[test]
    fn parameters() {
        let all = clauses("application/json; as = Table ;v=v1;v=v2;odd;x=y=z");
        let [clause] = all.as_slice() else { panic!("{all:?}") };
        let found = ["as", "v", "odd", "x", "q"].map(|name| clause.parameter(name));
        assert_eq!(found, [Some("Table"), Some("v2"), None, None, None]);
    }
}
