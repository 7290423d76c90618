//! Values of annotations.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use ipnet::IpNet;

use crate::template::{Template, UnknownVariable};

/// A value that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It is none of these.
    #[error("expected {0}")]
    Expected(&'static str),
    /// It has a variable that there is not.
    #[error(transparent)]
    Variable(#[from] UnknownVariable),
    /// Other regular expressions take what there is for all.
    #[error("{}", crate::patterns::Refused::NoRoom)]
    NoRoom,
}

type Result<T> = std::result::Result<T, Wrong>;

/// `true` or `false`, as Go's `strconv.ParseBool` reads them.
pub(super) fn boolean(text: &str) -> Result<bool> {
    match text {
        "true" | "True" | "TRUE" | "t" | "T" | "1" => Ok(true),
        "false" | "False" | "FALSE" | "f" | "F" | "0" => Ok(false),
        _ => Err(Wrong::Expected("true or false")),
    }
}

/// A whole number.
pub(super) fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| Wrong::Expected("a whole number"))
}

/// A positive number, none for 0.
pub(super) fn limit(text: &str) -> Result<Option<u32>> {
    Ok(Some(number(text)?).filter(|limit| *limit > 0))
}

/// Seconds.
pub(super) fn seconds(text: &str) -> Result<Duration> {
    let number = text.strip_suffix('s').unwrap_or(text);
    // A day is long enough for anything, and any sum of such times is a time.
    number
        .parse()
        .ok()
        .filter(|seconds| *seconds <= 86_400)
        .map(Duration::from_secs)
        .ok_or(Wrong::Expected("seconds, at most a day"))
}

/// Bytes with a unit: `8m`; none for 0.
pub(super) fn size(text: &str) -> Result<Option<u64>> {
    let text = text.to_ascii_lowercase();
    let (digits, shift) = match text.strip_suffix(['k', 'm', 'g']) {
        Some(digits) if text.ends_with('k') => (digits, 10),
        Some(digits) if text.ends_with('m') => (digits, 20),
        Some(digits) => (digits, 30),
        None => (text.as_str(), 0),
    };
    let number: Option<u64> = digits.parse().ok().filter(|number| *number <= u64::MAX >> 31);
    let number = number.ok_or(Wrong::Expected("a size such as 8m"))?;
    Ok(Some(number << shift).filter(|size| *size > 0))
}

/// Items between commas.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// Networks and addresses between commas. A list of none would let everybody in that has to let some in.
pub(super) fn networks(text: &str) -> Result<Vec<IpNet>> {
    let network = |item: &str| item.parse().or_else(|_| item.parse().map(|address: std::net::IpAddr| address.into()));
    let networks: std::result::Result<Vec<IpNet>, _> = items(text).map(network).collect();
    let some = networks.ok().filter(|networks| !networks.is_empty());
    some.ok_or(Wrong::Expected("addresses and networks such as 10.0.0.0/8, between commas"))
}

/// Names of headers between commas.
pub(super) fn header_names(text: &str) -> Result<Vec<HeaderName>> {
    let names: std::result::Result<Vec<HeaderName>, _> = items(text).map(str::parse).collect();
    names.map_err(|_| Wrong::Expected("names of headers, between commas"))
}

/// The name of one header.
pub(super) fn header_name(text: &str) -> Result<HeaderName> {
    text.parse().map_err(|_| Wrong::Expected("the name of a header"))
}

/// The value of a header.
pub(super) fn header_value(text: &str) -> Result<HeaderValue> {
    text.parse().map_err(|_| Wrong::Expected("the value of a header"))
}

/// A text with variables.
pub(super) fn template(text: &str) -> Result<Template> {
    if text.chars().any(char::is_control) {
        return Err(Wrong::Expected("a line of text"));
    }
    Ok(Template::parse(text)?)
}

/// A status that redirects.
pub(super) fn redirect(text: &str) -> Result<StatusCode> {
    let status = number(text).ok().and_then(|code: u16| StatusCode::from_u16(code).ok());
    status.filter(StatusCode::is_redirection).ok_or(Wrong::Expected("a status from 300 to 399"))
}

/// A path.
pub(super) fn path(text: &str) -> Result<String> {
    let fits = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| text.to_owned()).ok_or(Wrong::Expected("a path that begins with /"))
}

/// A name or a part of a cookie, which holds nothing that ends it.
pub(super) fn cookie_part(text: &str) -> Result<String> {
    let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b";,\"\\".contains(&byte));
    fits.then(|| text.to_owned()).ok_or(Wrong::Expected("letters without separators"))
}

/// One of some words.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)], expected: &'static str) -> Result<T> {
    words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, value)| *value).ok_or(Wrong::Expected(expected))
}
