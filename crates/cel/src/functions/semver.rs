//! Semantic versions as values (`library/semverlib.go`).

use std::sync::Arc;

use super::{Function, Style, method, other, ranged, text};
use crate::error::Error;
use crate::semver::{Version, normalized, parse};
use crate::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    ranged("semver", Style::Global, 1, 2, |a| match read(a)? {
        Ok(version) => Ok(Value::Semver(Arc::new(version))),
        Err(why) => other(why),
    }),
    ranged("isSemver", Style::Global, 1, 2, |a| Ok(Value::Bool(read(a)?.is_ok()))),
    method("major", 1, |a| number(a, 0)),
    method("minor", 1, |a| number(a, 1)),
    method("patch", 1, |a| number(a, 2)),
];

fn number<'a>(a: &[Value<'a>], at: usize) -> Result<Value<'a>, Error> {
    match a {
        [Value::Semver(version)] => Ok(Value::Int(version.numbers[at] as i64)),
        _ => Err(Error::NoOverload),
    }
}

/// The version that a text is, or why it is none. With `true` behind it the text may be shorter, begin with `v`, and have zeros in front.
fn read(a: &[Value<'_>]) -> Result<Result<Version, String>, Error> {
    let own = text(&a[0])?;
    match a.get(1) {
        None | Some(Value::Bool(false)) => Ok(parse(own)),
        Some(Value::Bool(true)) => Ok(normalized(own).and_then(|own| parse(&own))),
        Some(_) => Err(Error::NoOverload),
    }
}
