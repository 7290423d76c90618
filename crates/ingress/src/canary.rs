//! Which requests a canary takes, and what sessions remember of it. Pure.

use http::HeaderMap;

use crate::policy::Canary;
use crate::template::{cookie, header};

/// Whether the canary takes a request; `random` decides where only the weight speaks.
pub fn takes(canary: &Canary, headers: &HeaderMap, random: u64) -> bool {
    by_header(canary, headers).or_else(|| by_cookie(canary, headers)).unwrap_or_else(|| {
        let total = u64::from(canary.total.unwrap_or(100)).max(1);
        random % total < u64::from(canary.weight)
    })
}

fn by_header(canary: &Canary, headers: &HeaderMap) -> Option<bool> {
    let name = canary.header.as_ref()?;
    let value = header(headers, name);
    if let Some(wanted) = &canary.header_value {
        return (value == wanted).then_some(true);
    }
    if let Some(pattern) = &canary.header_pattern {
        return pattern.is_match(value).then_some(true);
    }
    always_or_never(value)
}

fn by_cookie(canary: &Canary, headers: &HeaderMap) -> Option<bool> {
    always_or_never(cookie(headers, canary.cookie.as_ref()?)?)
}

fn always_or_never(value: &str) -> Option<bool> {
    match value {
        "always" => Some(true),
        "never" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn precedence() {
        let full = Canary {
            header: Some("x-canary".parse().unwrap()),
            cookie: Some("canary".to_owned()),
            weight: 30,
            ..Canary::default()
        };
        let check = |canary: &Canary, headers: &[(&str, &str)], random: u64, expected: bool| {
            let map = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            assert_eq!(takes(canary, &map, random), expected, "{headers:?} {random}");
        };
        check(&full, &[("x-canary", "always")], 99, true);
        check(&full, &[("x-canary", "never")], 0, false);
        check(&full, &[("x-canary", "never"), ("cookie", "canary=always")], 0, false);
        check(&full, &[("x-canary", "what"), ("cookie", "canary=always")], 99, true);
        check(&full, &[("cookie", "canary=never")], 0, false);
        check(&full, &[], 29, true);
        check(&full, &[], 130, false);
        let value = Canary { header_value: Some("beta".into()), weight: 0, ..full.clone() };
        check(&value, &[("x-canary", "beta")], 0, true);
        check(&value, &[("x-canary", "always")], 0, false);
        let pattern =
            Canary { header_pattern: Some(crate::patterns::pattern("a", "^be", false).unwrap()), weight: 0, ..full.clone() };
        check(&pattern, &[("x-canary", "beta")], 0, true);
        let total = Canary { total: Some(1000), ..full };
        check(&total, &[], 29, true);
        check(&total, &[], 30, false);
    }
}
