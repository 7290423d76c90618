//! Texts: cel-spec, the strings extension, and the regular expressions of Kubernetes.

use super::{Function, Style, comparing, global, int, list, method, other, ranged, text};
use crate::error::Error;
use crate::pattern;
use crate::value::Value;
use crate::value::keys::Work;

/// How long a text may become.
const MAX_TEXT: usize = 4 << 20;

pub(super) const FUNCTIONS: &[Function] = &[
    global("jsonpatch.escapeKey", 1, |a| Ok(Value::text(text(&a[0])?.replace('~', "~0").replace('/', "~1")))),
    method("contains", 2, contains),
    method("startsWith", 2, |a| Ok(Value::Bool(text(&a[0])?.starts_with(text(&a[1])?)))),
    method("endsWith", 2, |a| Ok(Value::Bool(text(&a[0])?.ends_with(text(&a[1])?)))),
    ranged("matches", Style::Both, 2, 2, |a| Ok(Value::Bool(pattern::compile(text(&a[1])?)?.is_match(text(&a[0])?)))),
    method("find", 2, |a| {
        let found = pattern::compile(text(&a[1])?)?.find(text(&a[0])?).map(|found| found.as_str().to_owned());
        Ok(Value::text(found.unwrap_or_default()))
    }),
    ranged("findAll", Style::Method, 2, 3, |a| {
        let limit = a.get(2).map_or(Ok(-1), int)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let found = pattern::compile(text(&a[1])?)?;
        let found = found.find_iter(text(&a[0])?).take(limit).map(|found| Value::text(found.as_str().to_owned()));
        Ok(Value::list(found.collect()))
    }),
    method("charAt", 2, |a| {
        let (own, at) = (text(&a[0])?, int(&a[1])?);
        let length = own.chars().count();
        match usize::try_from(at) {
            Ok(at) if at <= length => Ok(Value::text(own.chars().nth(at).map(String::from).unwrap_or_default())),
            _ => other(format!("index out of range: {at}")),
        }
    }),
    comparing("indexOf", Style::Method, 2, 3, |a, work| index_of(a, false, work)),
    comparing("lastIndexOf", Style::Method, 2, 3, |a, work| index_of(a, true, work)),
    method("lowerAscii", 1, |a| Ok(Value::text(text(&a[0])?.to_ascii_lowercase()))),
    method("upperAscii", 1, |a| Ok(Value::text(text(&a[0])?.to_ascii_uppercase()))),
    method("trim", 1, |a| Ok(Value::text(text(&a[0])?.trim().to_owned()))),
    method("reverse", 1, |a| match &a[0] {
        Value::List(list) => Ok(Value::list(list.iter().collect::<Vec<_>>().into_iter().rev().collect())),
        _ => Err(crate::error::Error::NoOverload),
    }),
    ranged("replace", Style::Method, 3, 4, replace),
    ranged("split", Style::Method, 2, 3, split),
    ranged("substring", Style::Method, 2, 3, substring),
    ranged("join", Style::Method, 1, 2, |a| {
        let parts = list(&a[0])?.iter().map(|part| text(part).map(str::to_owned)).collect::<Result<Vec<_>, _>>()?;
        Ok(Value::text(parts.join(a.get(1).map_or(Ok(""), text)?)))
    }),
    method("format", 2, super::formatting::format),
    super::global("strings.quote", 1, |a| Ok(Value::text(format!("{:?}", text(&a[0])?)))),
];

fn contains<'a>(a: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match (&a[0], &a[1]) {
        (Value::Text(own), Value::Text(part)) => Ok(Value::Bool(own.contains(&**part))),
        // Sets of Kubernetes have no method of that name; networks have.
        (own, part) => super::network::contains(own, part),
    }
}

fn index_of<'a>(a: &[Value<'a>], last: bool, work: &mut Work) -> Result<Value<'a>, Error> {
    let position = |found: Option<usize>| Ok(Value::Int(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1)));
    if let Value::List(own) = &a[0] {
        let items: Vec<Value<'a>> = own.iter().collect();
        let same = |item: &Value<'a>| item.equals_within(&a[1], work);
        return position(if last { items.iter().rposition(same) } else { items.iter().position(same) });
    }
    let (own, part) = (text(&a[0])?, text(&a[1])?);
    let own: Vec<char> = own.chars().collect();
    let part: Vec<char> = part.chars().collect();
    let from = match a.get(2) {
        None if last => own.len(),
        None => 0,
        Some(at) => {
            let at = int(at)?;
            usize::try_from(at)
                .ok()
                .filter(|at| *at <= own.len())
                .map_or_else(|| other(format!("index out of range: {at}")), Ok)?
        }
    };
    let at = |start: usize| own.get(start..start + part.len()) == Some(&part[..]);
    // Texts of a body's size make this much work: it is looked for as text, by the standard library.
    if part.len() > 8 {
        let (whole, part) = (own.iter().collect::<String>(), part.iter().collect::<String>());
        let found = if last { whole.rfind(&part) } else { whole.find(&part) };
        return position(
            found.map(|bytes| whole[..bytes].chars().count()).filter(|at| if last { *at <= from } else { *at >= from }),
        );
    }
    let end = own.len().saturating_sub(part.len());
    position(if part.len() > own.len() {
        None
    } else if last {
        (0..=end.min(from)).rev().find(|start| at(*start))
    } else {
        (from..=end).find(|start| at(*start))
    })
}

fn replace<'a>(a: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let (own, old, new) = (text(&a[0])?, text(&a[1])?, text(&a[2])?);
    let most = a.get(3).map_or(Ok(-1), int)?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let times = own.matches(old).count().min(most);
    if own.len() + times.saturating_mul(new.len()) > MAX_TEXT {
        return Err(Error::Budget);
    }
    Ok(Value::text(own.replacen(old, new, most)))
}

fn split<'a>(a: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let (own, separator) = (text(&a[0])?, text(&a[1])?);
    let limit = a.get(2).map_or(Ok(-1), int)?;
    let part = |part: &str| Value::text(part.to_owned());
    let parts: Vec<Value<'a>> = match (separator, usize::try_from(limit)) {
        (_, Ok(0)) => Vec::new(),
        ("", limit) => {
            let limit = limit.unwrap_or(usize::MAX);
            let mut rest = own;
            let mut out = Vec::new();
            while let Some(first) = rest.chars().next() {
                if out.len() + 1 == limit {
                    out.push(part(rest));
                    break;
                }
                out.push(part(&rest[..first.len_utf8()]));
                rest = &rest[first.len_utf8()..];
            }
            out
        }
        (separator, Ok(limit)) => own.splitn(limit, separator).map(part).collect(),
        (separator, Err(_)) => own.split(separator).map(part).collect(),
    };
    Ok(Value::list(parts))
}

fn substring<'a>(a: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let own = text(&a[0])?;
    let length = own.chars().count();
    let place = |value: &Value<'a>| {
        let at = int(value)?;
        usize::try_from(at).ok().filter(|at| *at <= length).map_or_else(|| other(format!("index out of range: {at}")), Ok)
    };
    let start = place(&a[1])?;
    let end = a.get(2).map_or(Ok(length), place)?;
    if start > end {
        return other(format!("invalid substring range. start: {start}, end: {end}"));
    }
    Ok(Value::text(own.chars().skip(start).take(end - start).collect::<String>()))
}
