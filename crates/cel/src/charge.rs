//! What calls and operators cost when they are evaluated (cel-go, `interpreter/runtimecost.go`, `ext/lists.go` and `ext/sets.go`;
//! `CallCost` of `k8s.io/apiserver/pkg/cel/library/cost.go`), to the unit, and no less than the work that they are here: what upstream counts as
//! one step may go through a whole list.

use crate::ast::Binary;
use crate::functions::authorization;
use crate::value::{Map, Value};

const LIST: u64 = 10;
const OBJECT: u64 = 40;
const TRAVERSAL: f64 = 0.1;
/// Of a regular expression, by its length: what it is made of has four characters or so.
const PATTERN: f64 = 0.25;
/// What is taken for the length of the pattern of a format.
const FORMAT_PATTERN: f64 = 128.0;

/// Elements that are copied for one unit.
const ELEMENTS: u64 = 8;
/// Bytes that are looked at for one unit.
const BYTES: u64 = 512;

fn scaled(size: u64, factor: f64) -> u64 {
    // Casts saturate.
    (size as f64 * factor).ceil() as u64
}

/// How many characters, bytes, elements or entries there are; one of anything else (upstream: `actualSize`).
fn size(value: &Value<'_>) -> u64 {
    match value {
        Value::Text(text) => text.chars().count() as u64,
        Value::Bytes(bytes) => bytes.len() as u64,
        Value::List(list) => list.len() as u64,
        Value::Map(map) => map.len() as u64,
        Value::Ip(ip) => {
            if ip.is_ipv4() {
                4
            } else {
                16
            }
        }
        Value::Cidr(net) => u64::from(net.prefix_len().div_ceil(8)),
        _ => 1,
    }
}

/// The cost of looking at all of a value, with all that is in it (upstream: `traversalCost`). Parts may be in it many times, more often than
/// anything has been paid for, so nothing is looked at any more once it costs more than is `left`.
fn traversal(value: &Value<'_>, left: u64) -> u64 {
    let mut walk = Walk { cost: 0, visits: 0, left };
    walk.over(value);
    walk.total()
}

struct Walk {
    cost: u64,
    /// Values that have been looked at.
    visits: u64,
    left: u64,
}

impl Walk {
    fn total(&self) -> u64 {
        self.cost.max(self.visits.saturating_sub(1) / ELEMENTS)
    }

    /// Whether there is something left behind it.
    fn over(&mut self, value: &Value<'_>) -> bool {
        self.visits += 1;
        self.cost += match value {
            Value::Text(text) => (text.len() as f64 * TRAVERSAL) as u64,
            Value::Bytes(bytes) => (bytes.len() as f64 * TRAVERSAL) as u64,
            Value::List(_) | Value::Map(_) => 0,
            _ => 1,
        };
        self.total() <= self.left
            && match value {
                Value::List(list) => list.iter().all(|item| self.over(&item)),
                Value::Map(map) => {
                    map.keys().iter().all(|key| self.over(key) && map.get(key).is_none_or(|value| self.over(&value)))
                }
                _ => true,
            }
    }
}

/// Of a list that is made.
fn made(factor: f64, size: u64) -> u64 {
    ((size as f64 * factor) as u64).saturating_add(LIST + 1)
}

/// Of comparing each element with each other one.
fn compared_all(list: &Value<'_>) -> u64 {
    let Value::List(own) = list else { return 1 };
    let is_text = matches!(own.get(0), Some(Value::Text(_) | Value::Bytes(_)));
    let size = own.len() as u64;
    made(if is_text { 2.0 + TRAVERSAL } else { 2.0 }, size.saturating_mul(size))
}

/// Of a regular expression: an empty text costs as much as one character.
fn matched(text: u64, pattern: u64) -> u64 {
    scaled(text.saturating_add(1), TRAVERSAL).saturating_mul(scaled(pattern, PATTERN))
}

/// What a call costs upstream, or more than is `left`.
pub(crate) fn call(name: &str, arguments: &[Value<'_>], left: u64) -> u64 {
    let size = |at: usize| arguments.get(at).map_or(0, size);
    let is_text = |at: usize| matches!(arguments.get(at), Some(Value::Text(_)));
    let is_list = matches!(arguments.first(), Some(Value::List(_)));
    match name {
        authorization::CHECK => authorization::COST,
        "fieldSelector" | "labelSelector" => {
            let requirements = scaled(size(1), 0.5);
            LIST + scaled(size(1), TRAVERSAL) + requirements * (LIST + OBJECT)
        }
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => arguments.first().map_or(0, |all| traversal(all, left)),
        "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "url"
        | "jsonpatch.escapeKey"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver"
        | "startsWith"
        | "endsWith" => scaled(size(0), TRAVERSAL),
        "ip" if is_text(0) => scaled(size(0), TRAVERSAL),
        "replace" | "split" | "ip.isCanonical" => scaled(size(0), 2.0 * TRAVERSAL),
        "join" => scaled(joined(arguments), 2.0 * TRAVERSAL),
        "find" | "findAll" | "matches" => matched(size(0), size(1)),
        "contains" => scaled(size(0), TRAVERSAL).saturating_mul(scaled(size(1), TRAVERSAL)),
        "containsIP" => scaled(2 * size(0), TRAVERSAL) + if is_text(1) { scaled(size(1), TRAVERSAL) } else { 0 },
        "containsCIDR" => {
            let own = scaled(2 * size(0), TRAVERSAL) + scaled(size(0), TRAVERSAL) + 1;
            own + if is_text(1) { scaled(size(1), TRAVERSAL) } else { 0 }
        }
        "validate" => matched(size(1), FORMAT_PATTERN as u64),
        "bytes" if is_text(0) => scaled(size(0), TRAVERSAL),
        "string" if matches!(arguments.first(), Some(Value::Bytes(_))) => scaled(size(0), TRAVERSAL),
        "sets.contains" | "sets.intersects" => size(0).saturating_mul(size(1)).saturating_add(1),
        "sets.equivalent" => size(0).saturating_mul(size(1)).saturating_mul(2).saturating_add(1),
        "distinct" | "sort" if is_list => arguments.first().map_or(1, compared_all),
        "@sortByAssociatedKeys" => arguments.get(1).map_or(1, compared_all),
        "reverse" if is_list => made(1.0, size(0)),
        "flatten" => made(number(arguments.get(1), 1) as f64, size(0)),
        "slice" => made(1.0, number(arguments.get(2), 0).saturating_sub(number(arguments.get(1), 0)).min(size(0))),
        "lists.range" => made(1.0, number(arguments.first(), 0)),
        _ => 1,
    }
}

fn number(value: Option<&Value<'_>>, otherwise: u64) -> u64 {
    match value {
        Some(Value::Int(value)) => u64::try_from(*value).unwrap_or(0),
        _ => otherwise,
    }
}

/// How long the text is that elements make together.
fn joined(arguments: &[Value<'_>]) -> u64 {
    let Some(Value::List(list)) = arguments.first() else { return 0 };
    let between = arguments.get(1).map_or(0, size).saturating_mul((list.len() as u64).saturating_sub(1));
    list.iter().map(|item| size(&item)).sum::<u64>().saturating_add(between)
}

/// What an operator costs upstream.
pub(crate) fn operator(operator: Binary, left: &Value<'_>, right: &Value<'_>) -> u64 {
    match (operator, left, right) {
        (Binary::In, _, Value::List(list)) => list.len() as u64,
        (
            Binary::Equal,
            Value::Quantity(_)
            | Value::Ip(_)
            | Value::Cidr(_)
            | Value::Format(_)
            | Value::Url(_)
            | Value::Semver(_)
            | Value::Question(_)
            | Value::Decision(_),
            _,
        ) => 1,
        (Binary::Equal | Binary::Unequal, ..) => scaled(size(left).min(size(right)), TRAVERSAL),
        (
            Binary::Less | Binary::LessOrEqual | Binary::Greater | Binary::GreaterOrEqual,
            Value::Text(_) | Value::Bytes(_),
            Value::Text(_) | Value::Bytes(_),
        ) => scaled(size(left).min(size(right)), TRAVERSAL),
        (Binary::Add, Value::Text(_) | Value::Bytes(_), _) => scaled(size(left).saturating_add(size(right)), TRAVERSAL),
        _ => 1,
    }
}

/// The least that it costs here to go through a value once, without what is in it.
pub(crate) fn least(value: &Value<'_>) -> u64 {
    match value {
        Value::Text(text) => text.len() as u64 / BYTES,
        Value::Bytes(bytes) => bytes.len() as u64 / BYTES,
        Value::Url(url) => url.0.len() as u64 / BYTES,
        Value::List(list) => list.len() as u64 / ELEMENTS,
        _ => 0,
    }
}

/// What it costs to find a key in a map.
pub(crate) fn found(map: &Map<'_>, key: &Value<'_>) -> u64 {
    map.compared(key) as u64 / ELEMENTS
}

/// The characters that a part of a pattern stands for, at the least, where it stands for many: any character, a class, a class of Unicode.
const CLASS: u64 = 16;
const UNICODE: u64 = 800;
/// The engine refuses larger ones, see [`crate::re2`].
const LARGEST: u64 = 60_000;
/// States of a compiled pattern for one unit.
const STATES: u64 = 8;

/// What it costs to compile a pattern that is no constant, which upstream does not count: more than to look for it.
pub(crate) fn compiled(pattern: &str) -> u64 {
    let (mut states, mut most, mut rest) = (0_u64, 1_u64, pattern);
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        states += match c {
            '.' | '[' => CLASS,
            '\\' if rest.starts_with(['p', 'P']) => UNICODE,
            '\\' => CLASS,
            _ => 1,
        };
        if c == '{' {
            let count = |text: &str| text.trim_end_matches('}').parse::<u64>().unwrap_or(0);
            let counts = rest.split('}').next().unwrap_or_default();
            most = most.saturating_mul(counts.split(',').map(count).max().unwrap_or(1).clamp(1, 1000));
        }
    }
    states.saturating_mul(most.min(1000)).min(LARGEST) / STATES
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    /// What upstream's functions of the same name compute: `costCall` of cel-go's `interpreter/runtimecost.go`, `trackListSelfCompare` and
    /// its likes of `ext/lists.go`, `trackSetsCost` of `ext/sets.go`, and `CallCost` of `k8s.io/apiserver/pkg/cel/library/cost.go`.
    #[test]
    fn calls_cost_what_they_cost_upstream() {
        let check = |name: &str, arguments: Json, expected: u64| {
            let values: Vec<Value<'_>> = arguments.as_array().into_iter().flatten().map(|one| Value::of(one, None)).collect();
            assert_eq!(call(name, &values, u64::MAX), expected, "{name}{arguments}");
        };
        let text = |length: usize| json!("x".repeat(length));
        let list = |length: usize| json!((0..length).collect::<Vec<_>>());
        let texts = |length: usize| json!(vec!["ab"; length]);
        // Runes count, not bytes.
        check("startsWith", json!(["\u{e4}".repeat(20), "x"]), 2);
        check("endsWith", json!([text(101), "x"]), 11);
        check("matches", json!([text(99), text(8)]), 20);
        check("matches", json!(["", text(40)]), 10);
        check("find", json!([text(99), text(8)]), 20);
        check("findAll", json!([text(99), text(8), 3]), 20);
        check("contains", json!([text(100), text(25)]), 30);
        check("bytes", json!([text(100)]), 10);
        for name in ["lowerAscii", "upperAscii", "trim", "url", "jsonpatch.escapeKey", "cidr", "isIP", "isCIDR", "ip"] {
            check(name, json!([text(95)]), 10);
        }
        for name in ["quantity", "isQuantity", "semver", "isSemver"] {
            check(name, json!([text(95)]), 10);
        }
        check("substring", json!([text(95), 1, 2]), 10);
        for name in ["replace", "split", "ip.isCanonical"] {
            check(name, json!([text(95), "a", "b"]), 19);
        }
        check("join", json!([texts(10), ", "]), 8);
        check("join", json!([texts(10)]), 4);
        check("validate", json!([null, text(99)]), 320);
        check("fieldSelector", json!([null, text(10)]), 261);
        check("labelSelector", json!([null, ""]), 10);
        check("check", json!([null, "get"]), 350_000);
        for name in ["isSorted", "sum", "max", "min", "indexOf"] {
            check(name, json!([list(30)]), 30);
        }
        check("max", json!([[text(20), text(30)]]), 5);
        check("lastIndexOf", json!([text(100), "x"]), 10);
        check("sets.contains", json!([list(20), list(30)]), 601);
        check("sets.intersects", json!([list(20), list(0)]), 1);
        check("sets.equivalent", json!([list(20), list(30)]), 1201);
        check("distinct", json!([list(20)]), 811);
        check("distinct", json!([texts(20)]), 851);
        check("distinct", json!([[]]), 11);
        check("sort", json!([texts(20)]), 851);
        check("@sortByAssociatedKeys", json!([texts(20), list(10)]), 211);
        check("reverse", json!([list(20)]), 31);
        check("flatten", json!([list(20)]), 31);
        check("flatten", json!([list(20), 3]), 71);
        check("slice", json!([list(20), 5, 10]), 16);
        check("lists.range", json!([50]), 61);
        for name in
            ["size", "int", "double", "duration", "timestamp", "type", "getHost", "isGreaterThan", "add", "major", "allowed"]
        {
            check(name, json!([1]), 1);
        }
    }

    #[test]
    fn operators_cost_what_they_cost_upstream() {
        let check = |sign: Binary, left: Json, right: Json, expected: u64| {
            assert_eq!(operator(sign, &Value::of(&left, None), &Value::of(&right, None)), expected, "{sign:?} {left} {right}");
        };
        let text = |length: usize| json!("x".repeat(length));
        let list = |length: usize| json!((0..length).collect::<Vec<_>>());
        // `InList` goes through the list; `InMap` is a step.
        check(Binary::In, json!(5), list(1000), 1000);
        check(Binary::In, json!("a"), json!({"a": 1, "b": 2}), 1);
        check(Binary::Equal, text(100), text(35), 4);
        check(Binary::Unequal, list(100), list(45), 5);
        check(Binary::Equal, json!(1), json!(2), 1);
        check(Binary::Less, text(100), text(35), 4);
        check(Binary::Less, json!(1), json!(2), 1);
        // `AddString` copies both; `AddList` is a step upstream.
        check(Binary::Add, text(100), text(35), 14);
        check(Binary::Add, list(100), list(100), 1);
        check(Binary::Multiply, json!(1), json!(2), 1);
    }

    /// Time for which this thread has run, whoever else runs: nanoseconds (proc(5), `schedstat`).
    fn own_time() -> std::time::Duration {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        std::time::Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }

    /// What upstream counts as one step, and what it would be here without another bound, is no more work than it costs: each expression is
    /// one that a tenant's object would make long.
    #[test]
    fn nothing_is_much_more_work_than_it_costs() {
        use crate::{Budget, Error, Program};
        let deep = json!({"a": {"b": (0..2000).map(|at| json!({"c": [at], "d": "x".repeat(50)})).collect::<Vec<_>>()}});
        let own = json!({
            "numbers": (0..30_000).rev().collect::<Vec<_>>(),
            "texts": (0..30_000).map(|at| format!("{:0100}", at)).collect::<Vec<_>>(),
            "objects": (0..3_000).map(|at| json!({"same": "x".repeat(200), "n": at})).collect::<Vec<_>>(),
            "deep": deep, "other": deep, "long": "x".repeat(1 << 20),
            "patterns": (0..3_000).map(|at| format!("(?:\\pL{{3,300}}|{at})")).collect::<Vec<_>>(),
        });
        let time = |expression: &str| {
            let program = Program::compile(expression, &["self"]).unwrap_or_else(|error| panic!("{expression}: {error}"));
            let start = own_time();
            let found = program.evaluate(&[("self", Value::of(&own, None))], &mut Budget::new(1_000_000));
            assert!(matches!(found, Ok(Value::Bool(true)) | Err(Error::Budget)), "{expression}: {found:?}");
            own_time() - start
        };
        // Beside what a budget of single steps takes here and now: machines differ, and are busy. Regular expressions take a hundred times that.
        let check = |expression: &str| {
            let (steps, taken) = (time("self.numbers.all(n, self.numbers.all(m, m >= 0))"), time(expression));
            assert!(taken < 200 * steps, "{expression}: {taken:?}, and {steps:?} for steps");
        };
        check("self.numbers.all(n, n in self.numbers)");
        check("self.texts.all(n, n in self.texts)");
        check("self.texts.all(n, sets.contains(self.texts, [n]))");
        check("sets.equivalent(self.objects, self.objects)");
        check("self.objects.distinct().size() > 0");
        check("self.objects.all(o, self.objects.indexOf(o) >= 0)");
        check("self.numbers.all(n, self.deep == self.other)");
        check("self.numbers.all(n, (self.long + 'a').size() > 0)");
        check("self.numbers.all(n, self.long.size() > 0)");
        check("self.numbers.all(n, (self.numbers + self.numbers).size() > 0)");
        check("self.numbers.all(n, self.numbers.slice(0, 1).size() > 0)");
        check("self.numbers.all(n, self.numbers.last().hasValue())");
        check("self.patterns.all(p, !'x'.matches(p))");
        check("[self.numbers.transformMapEntry(i, n, {n: i})].all(m, self.numbers.all(n, m[n] >= 0))");
        check("[self.long + 'a'].all(t, self.numbers.all(n, t.endsWith('a')))");
        check("self.numbers.all(n, self.deep.exists(k, true))");
    }

    /// A comparison that its budget does not pay for is refused. Its answer would be a guess, which a policy could be passed with.
    #[test]
    fn comparisons_are_right_or_refused_with_every_budget() {
        use crate::{Budget, Error, Program, Shape};
        /// Lists of a set, of objects by their key, and others.
        #[derive(Debug)]
        struct Schema(&'static str);
        impl Shape for Schema {
            fn field(&self, name: &str) -> Option<&dyn Shape> {
                [&Self("set"), &Self("keyed")].into_iter().find(|shape| name.starts_with(shape.0)).map(|shape| shape as _)
            }
            fn element(&self) -> Option<&dyn Shape> {
                None
            }
            fn format(&self) -> &str {
                ""
            }
            fn is_set(&self) -> bool {
                self.0 == "set"
            }
            fn keys(&self) -> &[String] {
                static KEYS: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(|| vec!["n".to_owned()]);
                if self.0 == "keyed" { &KEYS } else { &[] }
            }
        }
        let object = |n: usize| json!({"n": n, "same": "x".repeat(200)});
        let objects = |count: usize| (0..count).map(object).collect::<Vec<_>>();
        let mixed = |count: usize| (0..count).map(|n| json!({"n": n as f64 + 0.5})).collect::<Vec<_>>();
        let own = json!({
            "numbers": (0..900).collect::<Vec<_>>(), "objects": objects(16), "again": objects(16),
            "turned": objects(16).into_iter().rev().collect::<Vec<_>>(), "last": object(15), "other": object(16),
            "setA": objects(10), "setB": objects(10).into_iter().rev().collect::<Vec<_>>(),
            "keyedA": objects(16), "keyedB": mixed(16), "keyedC": objects(16).into_iter().rev().collect::<Vec<_>>(),
            "text": "x".repeat(20_000), "same": "x".repeat(20_000),
            "deep": {"a": [{"b": objects(30)}]}, "deeper": {"a": [{"b": objects(30)}]},
        });
        let variables = [("self", Value::of(&own, Some(&Schema(""))))];
        let check = |expression: &str, expected: Value<'_>| {
            let program = Program::compile(expression, &["self"]).unwrap_or_else(|error| panic!("{expression}: {error}"));
            let mut whole = Budget::new(1_000_000);
            assert_eq!(program.evaluate(&variables, &mut whole).as_ref(), Ok(&expected), "{expression}");
            let cost = 1_000_000 - whole.left();
            for limit in 0..cost + 50 {
                let found = program.evaluate(&variables, &mut Budget::new(limit));
                let right = if limit < cost { Err(Error::Budget) } else { Ok(expected.clone()) };
                assert_eq!(found, right, "{expression} with {limit} of {cost}");
            }
        };
        let is = Value::Bool;
        check("850 in self.numbers", is(true));
        check("!(850 in self.numbers)", is(false));
        check("950 in self.numbers", is(false));
        check("self.last in self.objects", is(true));
        check("self.other in self.objects", is(false));
        check("self.text == self.same", is(true));
        check("self.text != self.same", is(false));
        check("self.deep == self.deeper", is(true));
        check("self.deep != self.deeper", is(false));
        check("self.objects == self.again", is(true));
        check("self.objects != self.turned", is(true));
        check("self.setA == self.setB", is(true));
        check("self.keyedA == self.keyedC", is(true));
        check("self.keyedA != self.keyedB", is(true));
        check("(self.setA + self.setB).size() == 10", is(true));
        check("(self.keyedA + self.keyedB).size() == 32", is(true));
        check("sets.contains(self.objects, self.turned)", is(true));
        check("sets.contains(self.objects, [self.other])", is(false));
        check("sets.contains(self.numbers, [850])", is(true));
        check("sets.equivalent(self.objects, self.turned)", is(true));
        check("sets.intersects(self.objects, [self.last])", is(true));
        check("sets.intersects(self.objects, [self.other])", is(false));
        check("self.objects.distinct().size() == 16", is(true));
        check("(self.objects + self.again).distinct().size()", Value::Int(16));
        check("self.objects.indexOf(self.last)", Value::Int(15));
        check("self.objects.indexOf(self.other)", Value::Int(-1));
        check("self.turned.lastIndexOf(self.last)", Value::Int(0));
        // An error beside what is not paid for is not the answer either.
        check("self.missing || self.last in self.objects", is(true));
        check("self.missing && self.other in self.objects", is(false));
    }
}
