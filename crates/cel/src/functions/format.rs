//! Named formats that texts are checked against (`library/format.go`).

use std::net::IpAddr;

use apimachinery::names;

use super::{Function, global, method, optional, text};
use crate::error::Error;
use crate::value::Value;

/// What is wrong with a text.
type Check = fn(&str) -> Vec<String>;

const FORMATS: &[(&str, Check)] = &[
    ("dns1123Label", |text| names::name_is_label(text, false)),
    ("dns1123Subdomain", |text| names::name_is_subdomain(text, false)),
    ("dns1035Label", |text| names::name_is_1035_label(text, false)),
    ("dns1123LabelPrefix", |text| names::name_is_label(text, true)),
    ("dns1123SubdomainPrefix", |text| names::name_is_subdomain(text, true)),
    ("dns1035LabelPrefix", |text| names::name_is_1035_label(text, true)),
    ("qualifiedName", names::qualified_name),
    ("labelValue", names::label_value),
    ("uri", |text| problem(text.contains(':') && !text.contains(' '), "invalid URI")),
    ("uuid", |text| problem(is_uuid(text), "does not match the UUID regex")),
    ("byte", |text| {
        use base64::Engine as _;
        problem(base64::engine::general_purpose::STANDARD.decode(text).is_ok(), "invalid base64")
    }),
    ("date", |text| problem(text.parse::<jiff::civil::Date>().is_ok(), "invalid date")),
    ("datetime", |text| problem(text.parse::<jiff::Timestamp>().is_ok(), "invalid datetime")),
    ("ip", |text| problem(text.parse::<IpAddr>().is_ok(), "invalid IP")),
];

pub(super) const FUNCTIONS: &[Function] = &[
    global("format.dns1123Label", 0, |_| Ok(Value::Format("dns1123Label"))),
    global("format.dns1123Subdomain", 0, |_| Ok(Value::Format("dns1123Subdomain"))),
    global("format.dns1035Label", 0, |_| Ok(Value::Format("dns1035Label"))),
    global("format.dns1123LabelPrefix", 0, |_| Ok(Value::Format("dns1123LabelPrefix"))),
    global("format.dns1123SubdomainPrefix", 0, |_| Ok(Value::Format("dns1123SubdomainPrefix"))),
    global("format.dns1035LabelPrefix", 0, |_| Ok(Value::Format("dns1035LabelPrefix"))),
    global("format.qualifiedName", 0, |_| Ok(Value::Format("qualifiedName"))),
    global("format.labelValue", 0, |_| Ok(Value::Format("labelValue"))),
    global("format.uri", 0, |_| Ok(Value::Format("uri"))),
    global("format.uuid", 0, |_| Ok(Value::Format("uuid"))),
    global("format.byte", 0, |_| Ok(Value::Format("byte"))),
    global("format.date", 0, |_| Ok(Value::Format("date"))),
    global("format.datetime", 0, |_| Ok(Value::Format("datetime"))),
    global("format.named", 1, |a| {
        let wanted = text(&a[0])?;
        Ok(optional(FORMATS.iter().find(|(name, _)| *name == wanted).map(|(name, _)| Value::Format(name))))
    }),
    method("validate", 2, validate),
];

fn problem(good: bool, text: &str) -> Vec<String> {
    if good { Vec::new() } else { vec![text.to_owned()] }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.char_indices().all(|(at, c)| if [8, 13, 18, 23].contains(&at) { c == '-' } else { c.is_ascii_hexdigit() })
}

/// What is wrong with a text, if anything.
fn validate<'a>(a: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let (Value::Format(name), checked) = (&a[0], text(&a[1])?) else { return Err(Error::NoOverload) };
    let check = FORMATS.iter().find(|(known, _)| known == name).map(|(_, check)| *check).ok_or(Error::NoOverload)?;
    let found = check(checked);
    let is_wrong = !found.is_empty();
    let list = Value::list(found.into_iter().map(Value::text).collect());
    Ok(optional(Some(list).filter(|_| is_wrong)))
}
