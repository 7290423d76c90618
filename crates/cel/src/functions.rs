//! The functions, in one list: those of cel-spec, of cel-go's extensions and of Kubernetes' libraries.

pub(crate) mod authorization;
mod convert;
mod format;
pub(crate) mod formatting;
mod lists;
mod network;
mod quantity;
mod semver;
mod strings;
mod times;

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::value::Value;
use crate::value::keys::Work;

pub(crate) use convert::show;

pub(crate) type Run = for<'a> fn(&[Value<'a>]) -> Result<Value<'a>, Error>;
/// Of a function that compares as much as its arguments make it.
pub(crate) type Compare = for<'a> fn(&[Value<'a>], &mut Work) -> Result<Value<'a>, Error>;

/// What a function does.
#[derive(Clone, Copy)]
pub(crate) enum Body {
    Run(Run),
    Compare(Compare),
}

/// How a function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// `f(a)`.
    Global,
    /// `a.f()`.
    Method,
    /// Either.
    Both,
}

/// A function. The target of a method counts as an argument.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    style: Style,
    least: usize,
    most: usize,
    pub(crate) body: Body,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const fn global(name: &'static str, count: usize, run: Run) -> Function {
    Function { name, style: Style::Global, least: count, most: count, body: Body::Run(run) }
}

const fn method(name: &'static str, count: usize, run: Run) -> Function {
    Function { name, style: Style::Method, least: count, most: count, body: Body::Run(run) }
}

/// With at least so many arguments and at most so many.
const fn ranged(name: &'static str, style: Style, least: usize, most: usize, run: Run) -> Function {
    Function { name, style, least, most, body: Body::Run(run) }
}

/// The same of a function that compares.
const fn comparing(name: &'static str, style: Style, least: usize, most: usize, run: Compare) -> Function {
    Function { name, style, least, most, body: Body::Compare(run) }
}

const LISTS: [&[Function]; 9] = [
    authorization::FUNCTIONS,
    convert::FUNCTIONS,
    format::FUNCTIONS,
    lists::FUNCTIONS,
    network::FUNCTIONS,
    quantity::FUNCTIONS,
    semver::FUNCTIONS,
    strings::FUNCTIONS,
    times::FUNCTIONS,
];

/// The function of a name that takes so many arguments.
pub(crate) fn find(name: &str, count: usize, is_method: bool) -> Option<&'static Function> {
    let style = if is_method { Style::Method } else { Style::Global };
    let fits = |function: &&Function| {
        function.name == name
            && (function.style == style || function.style == Style::Both)
            && (function.least..=function.most).contains(&count)
    };
    LISTS.into_iter().flatten().find(fits)
}

/// The names of all functions, and the most arguments of each.
#[cfg(test)]
pub(crate) fn names() -> std::collections::BTreeMap<&'static str, usize> {
    let mut all = std::collections::BTreeMap::new();
    for function in LISTS.into_iter().flatten() {
        let most: &mut usize = all.entry(function.name).or_default();
        *most = function.most.max(*most);
    }
    all
}

/// Whether there is a function of that name, however it is called.
pub(crate) fn is_known(name: &str) -> bool {
    LISTS.into_iter().flatten().any(|function| function.name == name)
}

/// A text argument.
fn text<'v>(value: &'v Value<'_>) -> Result<&'v str, Error> {
    value.as_text().ok_or(Error::NoOverload)
}

fn int(value: &Value<'_>) -> Result<i64, Error> {
    match value {
        Value::Int(value) => Ok(*value),
        _ => Err(Error::NoOverload),
    }
}

fn list<'a>(value: &Value<'a>) -> Result<Vec<Value<'a>>, Error> {
    match value {
        Value::List(list) => Ok(list.iter().collect()),
        _ => Err(Error::NoOverload),
    }
}

fn other<T>(message: impl Into<String>) -> Result<T, Error> {
    Err(Error::Other(message.into()))
}

/// `none`, or the value.
fn optional<'a>(value: Option<Value<'a>>) -> Value<'a> {
    Value::Optional(value.map(Arc::new))
}
