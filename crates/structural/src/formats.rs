//! Formats of texts (upstream: `kube-openapi/pkg/validation/strfmt`). Formats that upstream does not know are ignored.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

/// A format that is checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    name: &'static str,
    takes: fn(&str) -> bool,
}

const ALL: &[Format] = &[
    Format { name: "bsonobjectid", takes: |text| text.len() == 24 && is_hex(text) },
    Format { name: "uri", takes: is_uri },
    Format { name: "email", takes: is_email },
    Format { name: "hostname", takes: is_hostname },
    Format { name: "ipv4", takes: |text| text.parse::<Ipv4Addr>().is_ok() },
    Format { name: "ipv6", takes: |text| text.parse::<Ipv6Addr>().is_ok() },
    Format { name: "cidr", takes: is_cidr },
    Format { name: "mac", takes: is_mac },
    Format { name: "uuid", takes: |text| is_uuid(text, None) },
    Format { name: "uuid3", takes: |text| is_uuid(text, Some(b'3')) },
    Format { name: "uuid4", takes: |text| is_uuid(text, Some(b'4')) },
    Format { name: "uuid5", takes: |text| is_uuid(text, Some(b'5')) },
    Format { name: "isbn", takes: |text| is_isbn10(text) || is_isbn13(text) },
    Format { name: "isbn10", takes: is_isbn10 },
    Format { name: "isbn13", takes: is_isbn13 },
    Format { name: "creditcard", takes: is_credit_card },
    Format { name: "ssn", takes: is_ssn },
    Format { name: "hexcolor", takes: is_hex_colour },
    Format { name: "rgbcolor", takes: is_rgb_colour },
    Format {
        name: "byte",
        // Not even an empty text, as upstream.
        takes: |text| !text.is_empty() && is_base64(text),
    },
    Format { name: "password", takes: |_| true },
    Format { name: "date", takes: is_date },
    Format { name: "duration", takes: is_duration },
    Format { name: "datetime", takes: is_time },
    Format { name: "k8s-short-name", takes: |text| apimachinery::names::name_is_label(text, false).is_empty() },
    Format { name: "k8s-long-name", takes: |text| apimachinery::names::name_is_subdomain(text, false).is_empty() },
];

impl Format {
    /// The format of a name, which may lack its dashes or have more.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let plain = |name: &str| name.replace('-', "");
        ALL.iter().copied().find(|format| plain(format.name) == plain(name))
    }

    /// As in messages.
    pub(crate) fn name(self) -> &'static str {
        self.name
    }

    pub(crate) fn takes(self, text: &str) -> bool {
        (self.takes)(text)
    }
}

/// Groups of four characters, the last one filled up; which bits there are beyond the last byte is not looked at.
fn is_base64(text: &str) -> bool {
    let plain = text.trim_end_matches('=');
    let filled = text.len() - plain.len();
    let letters = plain.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
    text.len().is_multiple_of(4) && filled <= 2 && letters
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter(|c| !matches!(c, '-' | ' ')).filter_map(|c| c.to_digit(10)).collect()
}

/// What Go's `url.ParseRequestURI` takes: absolute, or a path from the root.
fn is_uri(text: &str) -> bool {
    let printable = !text.is_empty() && !text.contains(|c: char| c.is_ascii_control() || c == ' ');
    let scheme = text.split_once(':').is_some_and(|(scheme, _)| {
        let mut letters = scheme.bytes();
        letters.next().is_some_and(|first| first.is_ascii_alphabetic())
            && letters.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
    });
    let escapes = text.split('%').skip(1).all(|after| after.len() >= 2 && after.is_char_boundary(2) && is_hex(&after[..2]));
    printable && escapes && (scheme || text.starts_with('/'))
}

fn is_email(text: &str) -> bool {
    let address = text.rsplit_once('<').and_then(|(_, rest)| rest.strip_suffix('>')).unwrap_or(text);
    address.rsplit_once('@').is_some_and(|(local, domain)| {
        let plain = |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || c == '@');
        plain(local) && plain(domain) && !local.starts_with('.') && !local.ends_with('.') && !domain.starts_with('.')
    })
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        (1..=63).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 255 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let plain = bits.len() <= 3 && bits.bytes().all(|byte| byte.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    let most = match address.parse() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    plain && bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

fn is_mac(text: &str) -> bool {
    let parts = |separator: char, size: usize| {
        let parts: Vec<&str> = text.split(separator).collect();
        let bytes = parts.len() * size / 2;
        [6, 8, 20].contains(&bytes) && parts.iter().all(|part| part.len() == size && is_hex(part))
    };
    parts(':', 2) || parts('-', 2) || parts('.', 4)
}

fn is_uuid(text: &str, version: Option<u8>) -> bool {
    let plain: String = text.chars().filter(|c| *c != '-').collect();
    let places = text.len() == 32 || text.char_indices().all(|(at, c)| (c == '-') == [8, 13, 18, 23].contains(&at));
    let variant = |digit: u8| version == Some(b'3') || matches!(digit, b'8' | b'9' | b'a' | b'b' | b'A' | b'B');
    let bytes = plain.as_bytes();
    plain.len() == 32
        && places
        && is_hex(&plain)
        && version.is_none_or(|version| bytes.get(12) == Some(&version) && bytes.get(16).is_some_and(|digit| variant(*digit)))
}

fn is_isbn10(text: &str) -> bool {
    let plain: Vec<char> = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let value = |(at, c): (usize, &char)| match c {
        'X' if at == 9 => Some(10),
        c => c.to_digit(10),
    };
    let values: Option<Vec<u32>> = plain.iter().enumerate().map(value).collect();
    values.is_some_and(|values| {
        values.len() == 10 && values.iter().zip(1..).map(|(value, weight)| value * weight).sum::<u32>().is_multiple_of(11)
    })
}

fn is_isbn13(text: &str) -> bool {
    let digits = digits(text);
    let plain = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | ' '));
    let sum: u32 = digits.iter().zip([1, 3].into_iter().cycle()).map(|(digit, weight)| digit * weight).sum();
    plain && digits.len() == 13 && sum.is_multiple_of(10)
}

fn is_credit_card(text: &str) -> bool {
    let digits = digits(text);
    let plain = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | ' '));
    let doubled = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let sum: u32 = digits.iter().rev().enumerate().map(|(at, digit)| if at % 2 == 1 { doubled(*digit) } else { *digit }).sum();
    plain && (13..=19).contains(&digits.len()) && sum.is_multiple_of(10)
}

fn is_ssn(text: &str) -> bool {
    let parts: Vec<&str> = text.split(['-', ' ']).collect();
    let sizes: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    sizes == [3, 2, 4] && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_hex_colour(text: &str) -> bool {
    let digits = text.strip_prefix('#').unwrap_or(text);
    matches!(digits.len(), 3 | 6) && is_hex(digits)
}

fn is_rgb_colour(text: &str) -> bool {
    let inner = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')'));
    inner.is_some_and(|inner| {
        let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
        parts.len() == 3 && parts.iter().all(|part| part.parse::<u8>().is_ok())
    })
}

/// Go's durations, and a number with a unit in words (`3 days`).
fn is_duration(text: &str) -> bool {
    const UNITS: &[&str] = &["ns", "us", "\u{b5}s", "\u{3bc}s", "ms", "s", "m", "h"];
    const WORDS: &[&str] = &[
        "ns", "nano", "us", "\u{b5}s", "micro", "ms", "milli", "s", "sec", "secs", "second", "seconds", "m", "min", "mins",
        "minute", "minutes", "h", "hr", "hrs", "hour", "hours", "d", "day", "days", "w", "wk", "week", "weeks",
    ];
    if text == "0" {
        return true;
    }
    let parts = |units: &[&str]| {
        let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (number, after) = rest.split_at(end);
            let after = after.trim_start();
            let unit = after.split(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').next().unwrap_or_default();
            if number.parse::<f64>().is_err() || !units.contains(&unit) {
                return false;
            }
            rest = after[unit.len()..].trim_start();
        }
        true
    };
    !text.is_empty() && (parts(UNITS) || parts(WORDS))
}

/// RFC 3339, with or without parts of a second (go-openapi's `IsDateTime`: every year of four digits, and no second 60).
fn is_time(text: &str) -> bool {
    text.split_once(['T', 't']).is_some_and(|(date, clock)| is_date(date) && is_clock(clock))
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

/// `10:00:00.5+02:00`.
fn is_clock(text: &str) -> bool {
    static CLOCK: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$").ok());
    CLOCK.as_ref().is_some_and(|clock| clock.is_match(text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(name: &str, yes: &[&str], no: &[&str]) {
        let format = Format::named(name).unwrap();
        for (texts, expected) in [(yes, true), (no, false)] {
            texts.iter().for_each(|text| assert_eq!(format.takes(text), expected, "{name} {text:?}"));
        }
    }

    #[test]
    fn formats() {
        check("ipv4", &["10.0.0.1"], &["10.0.0", "::1", "10.0.0.256"]);
        check("ipv6", &["::1", "fe80::1"], &["10.0.0.1", "g::"]);
        check("cidr", &["10.0.0.0/8", "::/0"], &["10.0.0.0", "10.0.0.0/33", "10.0.0.0/08"]);
        check("mac", &["01:02:03:04:ab:cd", "01-02-03-04-ab-cd", "0102.0304.abcd"], &["01:02:03", "zz:02:03:04:05:06"]);
        check("uuid", &["a987fbc9-4bed-3078-cf07-9141ba07c9f3"], &["a987fbc9", "a987fbc9-4bed-3078-cf07-9141ba07c9fx"]);
        check("uuid4", &["57b73598-8764-4ad0-a76a-679bb6640eb1"], &["a987fbc9-4bed-3078-cf07-9141ba07c9f3"]);
        check("uri", &["https://example.com/a?b", "/a", "urn:x"], &["a b", "example", "http://%zz"]);
        check("email", &["a@example.com", "Ann <a@example.com>"], &["a", "@b", "a b@c"]);
        check("hostname", &["example.com", "a"], &["-a", "a..b", ""]);
        check("byte", &["aGk="], &["", "aGk", "!"]);
        check("date", &["2026-01-31"], &["2026-02-31", "2026-1-1", "x"]);
        check(
            "date-time",
            &["2026-01-31T10:00:00Z", "2026-01-31t10:00:00.5+02:00", "9999-12-31T23:59:59Z", "0000-01-01T00:00:00z"],
            &[
                "2026-01-31",
                "x",
                "2026-02-30T10:00:00Z",
                "2026-01-31T24:00:00Z",
                "2026-01-31T10:00:60Z",
                "2026-01-31T10:00:00",
                "2026-01-31T10:00:00.Z",
                "2026-01-31T10:00:00Z[UTC]",
                "2026-01-31T10:00:00+02",
                "2026-01-31T10:00:00+2:000",
                "2026-01-31T10:00:00+ä:00",
                "2026-01-31T10:00:00Z\n",
                "+002026-01-31T10:00:00Z",
            ],
        );
        check("datetime", &["2026-01-31T10:00:00Z"], &["noon"]);
        check("duration", &["1h30m", "15s", "3 days", "0", "-1.5h"], &["1", "h", "1y", ""]);
        check("hexcolor", &["#fff", "00ff00"], &["#ff", "red"]);
        check("rgbcolor", &["rgb(1, 2, 255)"], &["rgb(1,2)", "rgb(1,2,256)"]);
        check("isbn", &["0-306-40615-2", "978-0-306-40615-7"], &["0-306-40615-3"]);
        check("creditcard", &["4111 1111 1111 1111"], &["4111 1111 1111 1112"]);
        check("ssn", &["111-22-3333"], &["111-22-333"]);
        check("bsonobjectid", &["507f1f77bcf86cd799439011"], &["507f"]);
        check("password", &["anything"], &[]);
        check("k8s-short-name", &["a-b"], &["a.b"]);
        check("k8s-long-name", &["a.b"], &["A"]);
        assert!(Format::named("int32").is_none() && Format::named("other").is_none());
    }
}
