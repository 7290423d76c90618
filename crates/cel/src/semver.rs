//! Semantic versions (semver.org 2.0.0).

use std::cmp::Ordering;
use std::fmt;

/// A version: `1.2.3-rc.1+build`. What stands behind `+` is shown and not compared.
#[derive(Clone, Debug)]
pub struct Version {
    pub(crate) numbers: [u64; 3],
    before: Vec<Identifier>,
    build: Vec<String>,
}

/// A part of what stands behind `-`. Numbers come before texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Text(String),
}

impl Version {
    /// The order of two versions: what is before a release comes first.
    pub(crate) fn cmp(&self, other: &Self) -> Ordering {
        let released = |version: &Self| version.before.is_empty();
        self.numbers
            .cmp(&other.numbers)
            .then_with(|| released(self).cmp(&released(other)))
            .then_with(|| self.before.cmp(&other.before))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        for (index, part) in self.before.iter().enumerate() {
            f.write_str(if index == 0 { "-" } else { "." })?;
            match part {
                Identifier::Number(number) => write!(f, "{number}")?,
                Identifier::Text(text) => f.write_str(text)?,
            }
        }
        for (index, part) in self.build.iter().enumerate() {
            write!(f, "{}{part}", if index == 0 { "+" } else { "." })?;
        }
        Ok(())
    }
}

/// The text of a version that is shorter, begins with `v`, or has zeros in front, as that of one.
pub(crate) fn normalized(text: &str) -> Result<String, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text.splitn(3, '.').map(without_zeros).collect();
    if parts.len() < 3 {
        if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
            return Err("short version cannot contain PreRelease/Build meta data".to_owned());
        }
        parts.resize(3, "0".to_owned());
    }
    Ok(parts.join("."))
}

fn without_zeros(part: &str) -> String {
    if part.len() < 2 {
        return part.to_owned();
    }
    let rest = part.trim_start_matches('0');
    if rest.starts_with(|c: char| c.is_ascii_digit()) { rest.to_owned() } else { format!("0{rest}") }
}

/// A version in the words of the library that upstream reads them with (`blang/semver`).
pub(crate) fn parse(text: &str) -> Result<Version, String> {
    if text.is_empty() {
        return Err("Version string empty".to_owned());
    }
    let mut parts = text.splitn(3, '.');
    let (Some(major), Some(minor), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("No Major.Minor.Patch elements found".to_owned());
    };
    let numbers = [whole(major, "major")?, whole(minor, "minor")?];
    let (rest, build) = rest.split_once('+').map_or((rest, None), |(rest, build)| (rest, Some(build)));
    let (patch, before) = rest.split_once('-').map_or((rest, None), |(patch, before)| (patch, Some(before)));
    let patch = whole(patch, "patch")?;
    let before = before.into_iter().flat_map(|before| before.split('.')).map(identifier).collect::<Result<_, _>>()?;
    let build = build.into_iter().flat_map(|build| build.split('.')).map(build_part).collect::<Result<_, _>>()?;
    Ok(Version { numbers: [numbers[0], numbers[1], patch], before, build })
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Numbers are told apart from other parts by their name.
fn whole(text: &str, name: &str) -> Result<u64, String> {
    if !is_number(text) {
        return Err(format!("Invalid character(s) found in {name} number {text:?}"));
    }
    if text.len() > 1 && text.starts_with('0') {
        let shown = if name == "patch" {
            "Patch"
        } else if name == "minor" {
            "Minor"
        } else {
            "Major"
        };
        return Err(format!("{shown} number must not contain leading zeroes {text:?}"));
    }
    text.parse().map_err(|_| match text {
        "" => "strconv.ParseUint: parsing \"\": invalid syntax".to_owned(),
        _ => format!("strconv.ParseUint: parsing {text:?}: value out of range"),
    })
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn identifier(text: &str) -> Result<Identifier, String> {
    if text.is_empty() {
        return Err("Prerelease is empty".to_owned());
    }
    if is_number(text) {
        if text.len() > 1 && text.starts_with('0') {
            return Err(format!("Numeric PreRelease version must not contain leading zeroes {text:?}"));
        }
        return text
            .parse()
            .map(Identifier::Number)
            .map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"));
    }
    if is_word(text) {
        Ok(Identifier::Text(text.to_owned()))
    } else {
        Err(format!("Invalid character(s) found in prerelease {text:?}"))
    }
}

fn build_part(text: &str) -> Result<String, String> {
    match text {
        "" => Err("Build meta data is empty".to_owned()),
        text if is_word(text) => Ok(text.to_owned()),
        _ => Err(format!("Invalid character(s) found in build meta data {text:?}")),
    }
}
