//! Rules over an object with a field of each type. One in some parts of an expression has a wrong type.

use serde_json::{Value, json};
use structural::Structural;

use crate::dice::Dice;

/// The types of expressions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ty {
    Bool,
    Int,
    Double,
    Text,
    Texts,
    Ints,
}

const TYPES: &[Ty] = &[Ty::Bool, Ty::Int, Ty::Double, Ty::Text, Ty::Texts, Ty::Ints];

pub fn question(dice: &mut Dice) -> Value {
    let mut schema = schema(dice);
    let rule = expression(dice, Ty::Bool, 4);
    schema["x-kubernetes-validations"] = json!([{"rule": rule}]);
    json!({"op": "rule", "original": schema, "current": object(dice)})
}

pub fn answer(question: &Value) -> Value {
    let schema = match Structural::compile(&question["original"]) {
        Ok(schema) => schema,
        Err(error) => return json!({"failed": error.to_string()}),
    };
    match schema.rule_costs().into_iter().next() {
        Some(Ok(cost)) => {
            let mut errors: Vec<String> = schema.ask_rules(&question["current"]).iter().map(ToString::to_string).collect();
            errors.sort();
            json!({"cost": cost, "errors": errors})
        }
        Some(Err(why)) => json!({"wrong": why}),
        None => json!({}),
    }
}

fn schema(dice: &mut Dice) -> Value {
    let limited = |dice: &mut Dice, mut schema: Value, name: &str| {
        if dice.chance(50) {
            schema[name] = dice.below(40).into();
        }
        schema
    };
    let text = limited(dice, json!({"type": "string"}), "maxLength");
    let texts = limited(dice, json!({"type": "array", "items": text}), "maxItems");
    let ints = limited(dice, json!({"type": "array", "items": {"type": "integer"}}), "maxItems");
    let map = limited(dice, json!({"type": "object", "additionalProperties": text}), "maxProperties");
    let inner = json!({"type": "object", "required": ["s"], "properties": {"s": text, "i": {"type": "integer"}}});
    let objects = limited(dice, json!({"type": "array", "items": inner}), "maxItems");
    json!({"type": "object", "properties": {
        "i": {"type": "integer"}, "n": {"type": "number"}, "b": {"type": "boolean"}, "s": text, "e": {"type": "string", "enum": ["a", "bcd"]},
        "t": {"type": "string", "format": "date-time"}, "d": {"type": "string", "format": "duration"}, "l": texts, "li": ints, "m": map,
        "o": inner, "lo": objects, "x": {"x-kubernetes-int-or-string": true}, "a-b": {"type": "integer"},
        "p": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"s": text}},
    }})
}

fn word(dice: &mut Dice) -> &'static str {
    dice.word(&["", "a", "ab", "bcd", "xyz", "A b"])
}

fn object(dice: &mut Dice) -> Value {
    let mut out = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n"}});
    let list = |dice: &mut Dice| -> Vec<Value> { (0..dice.below(4)).map(|_| word(dice).into()).collect() };
    for field in ["i", "n", "b", "s", "e", "t", "d", "l", "li", "m", "o", "lo", "x", "a-b", "p"] {
        if dice.chance(15) {
            continue;
        }
        let inner = |dice: &mut Dice| json!({"s": word(dice), "i": dice.below(5)});
        out[field] = match field {
            "i" | "a-b" => dice.below(5).into(),
            "n" => (dice.below(10) as f64 / 4.0).into(),
            "b" => dice.chance(50).into(),
            "e" => dice.word(&["a", "bcd"]).into(),
            "t" => "2026-01-02T03:04:05Z".into(),
            "d" => dice.word(&["1h", "90s"]).into(),
            "l" => list(dice).into(),
            "li" => (0..dice.below(4)).map(|_| Value::from(dice.below(5))).collect::<Vec<_>>().into(),
            "m" => json!({"a": word(dice), "b": word(dice)}),
            "o" => inner(dice),
            "lo" => (0..dice.below(3)).map(|_| inner(dice)).collect::<Vec<_>>().into(),
            "x" if dice.chance(50) => dice.below(9).into(),
            "p" => json!({"s": word(dice)}),
            _ => word(dice).into(),
        };
    }
    out
}

/// An expression of a type, or of a wrong one now and then.
fn expression(dice: &mut Dice, ty: Ty, depth: usize) -> String {
    let ty = if dice.chance(2) { *dice.pick(TYPES) } else { ty };
    if depth == 0 || dice.chance(20) {
        return leaf(dice, ty);
    }
    let mut part = |ty| expression(dice, ty, depth - 1);
    match ty {
        Ty::Bool => boolean(dice, depth - 1),
        Ty::Int => {
            let (a, b, text, texts) = (part(Ty::Int), part(Ty::Int), part(Ty::Text), part(Ty::Texts));
            match dice.below(14) {
                0 => format!("{a} + {b}"),
                1 => format!("({a}) * ({b})"),
                2 => format!("size({text})"),
                3 => format!("({texts}).size()"),
                4 => format!("({text}).indexOf('b')"),
                5 => format!("self.li.map(v, v + {a}).sum()"),
                6 if dice.chance(10) => format!("cel.bind(w, {a}, w - {b})"),
                6 => format!("self.li[?{a}].orValue({b})"),
                7 => format!("(self.b ? {a} : {b})"),
                8 => format!("[{a}, {b}].max()"),
                9 => format!("self.?i.optMap(w, w + {a}).orValue({b})"),
                10 => format!("self.m.transformMap(k, v, v.size() + {a}).size()"),
                11 => format!("semver('1.2.3').{}()", dice.word(&["major", "minor", "patch"])),
                12 => format!("[{a}, {b}].first().orValue(1)"),
                _ => format!("self.li.sortBy(v, v - {a})[0]"),
            }
        }
        Ty::Double => format!("({}) {} ({})", part(Ty::Double), dice.word(&["+", "-", "*"]), leaf(dice, Ty::Double)),
        Ty::Text => {
            let (a, b) = (part(Ty::Text), part(Ty::Text));
            let texts = part(Ty::Texts);
            match dice.below(12) {
                0 => format!("{a} + {b}"),
                1 => format!("({a}).lowerAscii()"),
                2 => format!("({a}).replace('a', {b})"),
                3 => format!("(self.b ? {a} : {b})"),
                4 => format!("({texts}).join(',')"),
                5 => format!("string({})", leaf(dice, Ty::Int)),
                6 => format!("self.?s.orValue({a})"),
                7 => format!("({a}).trim()"),
                8 => format!("'%s: %d, {{}}'.format([{a}, {}])", leaf(dice, Ty::Int)),
                9 => format!("'%s %s'.format([{}, {texts}])", leaf(dice, Ty::Double)),
                10 => format!("({a}).substring({})", leaf(dice, Ty::Int)),
                _ => format!("self.m.?a.or(self.?s).orValue({a})"),
            }
        }
        Ty::Texts => {
            let (text, texts) = (part(Ty::Text), part(Ty::Texts));
            match dice.below(15) {
                0 => format!("[{text}, self.e]"),
                1 => format!("({texts}).filter(v, v != {text})"),
                2 => format!("({texts}).map(v, v + {text})"),
                3 => format!("({text}).split(',')"),
                4 => format!("{texts} + self.l"),
                5 => "self.lo.map(v, v.s)".to_owned(),
                6 => format!("({texts}).transformList(i, v, i < 2, v + {text})"),
                7 => format!("({texts}).distinct()"),
                8 => format!("({texts}).sort()"),
                9 => format!("({texts}).sortBy(v, v.size())"),
                10 => format!("({texts}).slice(0, {})", leaf(dice, Ty::Int)),
                11 => format!("[{texts}, [{text}]].flatten()"),
                12 => format!("({texts}).reverse()"),
                13 => format!("self.m.transformList(k, v, k + v + {text})"),
                _ => format!("optional.unwrap([optional.of({text}), self.?s])"),
            }
        }
        Ty::Ints => {
            let texts = part(Ty::Texts);
            match dice.below(4) {
                0 => format!("({texts}).transformList(i, v, v.size() + i)"),
                1 => "lists.range(3)".to_owned(),
                _ => format!("({texts}).map(v, v.size())"),
            }
        }
    }
}

fn boolean(dice: &mut Dice, depth: usize) -> String {
    let mut part = |ty| expression(dice, ty, depth);
    let (a, b) = (part(Ty::Bool), part(Ty::Bool));
    let (i, j, s, t, l) = (part(Ty::Int), part(Ty::Int), part(Ty::Text), part(Ty::Text), part(Ty::Texts));
    match dice.below(30) {
        0 => format!("{a} && {b}"),
        1 => format!("({a}) || ({b})"),
        2 => format!("!({a})"),
        3 => format!("{i} {} {j}", dice.word(&["==", "!=", "<", "<=", ">", ">="])),
        4 => format!("({s}) {} ({t})", dice.word(&["==", "!=", "<", ">="])),
        5 => format!("({s}).startsWith({t})"),
        6 => format!("({s}).contains({t})"),
        7 => format!("({s}).matches('^[a-c]*$')"),
        8 => format!("({l}).all(v, v.size() < {i})"),
        9 => format!("({l}).exists(v, v == {s})"),
        10 => format!("({l}).exists_one(v, v.contains({s}))"),
        11 => format!("({s}) in ({l})"),
        12 => format!("has(self.{})", dice.word(&["i", "o", "o.s", "m.a", "l", "p.s", "nothing"])),
        13 => format!("(self.b ? {a} : {b})"),
        14 => format!("self.m.all(k, self.m[k] != {s})"),
        15 => format!("({l}).isSorted()"),
        16 => format!("type(self.x) == {} || self.t < timestamp('2026-05-06T07:08:09Z')", dice.word(&["int", "string"])),
        18 => format!("({l}).all(i, v, v.size() + i < {i})"),
        19 => format!("self.m.exists(k, v, k == {s} || v == {t})"),
        20 => format!("({l}).existsOne(i, v, v == {s} && i != {j})"),
        21 => format!("self.m.transformMapEntry(k, v, {{v: k}}) == {{{s}: {t}}}"),
        22 => format!("sets.{}({l}, [{s}, {t}])", dice.word(&["contains", "intersects", "equivalent"])),
        23 => format!("isSemver({s}) || semver('1.2.3-rc.1').compareTo(semver({s}, true)) < {i}"),
        24 => format!("quantity({s}).isGreaterThan(quantity('1Mi')) || isQuantity({t})"),
        25 => format!("type(self.t) == google.protobuf.Timestamp && dyn({s}) == dyn({i})"),
        26 => format!("({l}).last().hasValue() && optional.ofNonZeroValue({s}).optFlatMap(w, self.?s).hasValue()"),
        27 => format!("isURL({s}) && url({s}).getHost() == {t} || isIP({s}) && ip({s}).family() == {i}"),
        28 => format!("format.dns1123Label().validate({s}).hasValue() || ({s}).find('[a-c]+') == {t}"),
        _ => format!("self.d > duration('1h') || self.lo.exists(v, v.i == {i} && v.s.endsWith({s}))"),
    }
}

fn leaf(dice: &mut Dice, ty: Ty) -> String {
    match ty {
        Ty::Bool => dice.word(&["true", "false", "self.b", "has(self.s)"]).to_owned(),
        Ty::Int => dice.word(&["1", "2", "-3", "self.i", "self.o.i", "self.a__dash__b", "self.li[0]", "self.lo[0].i"]).to_owned(),
        Ty::Double => dice.word(&["1.5", "self.n", "double(self.i)", "0.0"]).to_owned(),
        Ty::Text => {
            let texts =
                ["'a'", "'b,c'", "''", "self.s", "self.e", "self.o.s", "self.m['a']", "self.m.b", "self.l[0]", "self.p.s"];
            dice.word(&texts).to_owned()
        }
        Ty::Texts => dice.word(&["self.l", "['a', 'b']", "[]", "self.m.map(k, k)", "[self.s]"]).to_owned(),
        Ty::Ints => dice.word(&["self.li", "[1, 2]", "[]"]).to_owned(),
    }
}
