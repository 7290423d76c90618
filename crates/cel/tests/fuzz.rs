//! Expressions as users write them, with faults in them: refused, or evaluated within their budget.

use cel::{Budget, Program, Value};
use fuzz::fuzz;
use serde_json::json;

const EXAMPLES: &[&str] = &[
    "self.replicas <= 5 && has(self.name) ? self.name.startsWith('a') : !(self.name in ['b', \"c\"])",
    "self.items.all(x, x.size() > 0) && self.items.exists_one(i, v, v == 'x' && i >= 0)",
    "self.items.map(x, x + '!').filter(y, y.matches('^[a-z]+!$')).size() == 2",
    "duration('1h') + timestamp('2026-01-01T00:00:00Z') > oldSelf.time && quantity('1Gi').isGreaterThan(quantity('500M'))",
    "{'a': 1, 'b': 2u}.b == uint(-3 % 2) || [1, 2.5, 0x1F, b'\\x00', r'\\', null][0] == 1",
    "self.name.format(['%d']) + self.name.split(',').join('-').lowerAscii().substring(0, 1).replace('a', 'b')",
    "isIP('1.2.3.4') && cidr('10.0.0.0/8').containsIP('10.1.1.1') && url('https://a/b').getHost() == 'a'",
];
const WORDS: &[&str] = &[
    "self",
    "oldSelf",
    ".",
    "?.",
    "[",
    "]",
    "(",
    ")",
    "&&",
    "||",
    "!",
    "==",
    "in ",
    "-",
    "has(",
    ".all(x, ",
    ".map(x, ",
    ".transformMap(k, v, ",
    ".optMap(x, ",
    "\"\"\"",
    "sets.contains(",
    ".orValue(",
    "'",
];

#[test]
fn fuzz_expressions() {
    let examples: Vec<&[u8]> = EXAMPLES.iter().map(|text| text.as_bytes()).collect();
    let object = json!({"replicas": 3, "name": "ab", "items": ["x", "yy"], "map": {"a": {"b": [1, 2.5, null]}}});
    let old = json!({"time": "2026-01-01T00:00:00Z"});
    fuzz(&examples, WORDS, |input| {
        let Ok(source) = std::str::from_utf8(input) else { return };
        let Ok(program) = Program::compile(source, &["self", "oldSelf"]) else { return };
        let mut budget = Budget::new(100_000);
        let variables = [("self", Value::of(&object, None)), ("oldSelf", Value::of(&old, None))];
        let first = program.evaluate(&variables, &mut budget).map(|value| format!("{value:?}"));
        let mut again = Budget::new(100_000);
        let second = program.evaluate(&variables, &mut again).map(|value| format!("{value:?}"));
        assert_eq!((format!("{first:?}"), budget.left()), (format!("{second:?}"), again.left()), "{source}");
    });
}
