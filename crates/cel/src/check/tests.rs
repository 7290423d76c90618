#![allow(clippy::unwrap_used)]
use crate::{Declaration, Program, Type};

fn variables() -> Vec<(&'static str, Type)> {
    let text = || Declaration::plain(Type::String);
    let meta = Declaration::object("meta", [("name".to_owned(), text()), ("labels".to_owned(), Declaration::map(text()))]);
    let object = Declaration::object(
        "self",
        [
            ("meta".to_owned(), meta),
            ("n".to_owned(), Declaration::plain(Type::Int)),
            ("list".to_owned(), Declaration::list(text())),
            ("any".to_owned(), Declaration::plain(Type::Dyn)),
        ],
    );
    vec![
        ("self", object.ty()),
        ("x", Type::Dyn),
        ("authorizer", Type::Opaque("kubernetes.authorization.Authorizer")),
        ("authorizer.requestResource", Type::Opaque("kubernetes.authorization.ResourceCheck")),
    ]
}

/// The type of an expression, or what is wrong with it.
#[track_caller]
fn check(source: &str, expected: &str) {
    let variables = variables();
    let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
    let program = Program::compile(source, &names).unwrap_or_else(|error| panic!("{source}: {error}"));
    let found = match program.check(source, &variables) {
        Ok(checked) => checked.ty().to_string(),
        Err(error) => {
            // The last of an error's three lines points at the place.
            let text = error.to_string();
            let message = text.lines().next().unwrap_or_default();
            message.split_once(": ").unwrap().1.split_once(": ").unwrap().1.to_owned()
        }
    };
    assert_eq!(found, expected, "{source}");
}

/// cel-spec, "Gradual type checking".
#[test]
fn types_of_expressions() {
    check("1", "int");
    check("[1, 2]", "list(int)");
    check("[]", "list(dyn)");
    check("[[], ['a']]", "list(list(string))");
    check("{'a': 1.5}", "map(string, double)");
    check("self.meta.labels['a']", "string");
    check("self.meta.labels.a", "string");
    check("self.list[0]", "string");
    check("self.list.map(s, size(s))", "list(int)");
    check("self.list.filter(s, s != '')", "list(string)");
    check("self.meta.labels.map(k, self.meta.labels[k])", "list(string)");
    check("self.?n", "optional_type(int)");
    check("self.?n.orValue(1)", "int");
    check("self.?meta.?labels['a'].orValue('')", "string");
    check("self.list[?0].optMap(s, s.size())", "optional_type(int)");
    check("x.y.z[1]", "dyn");
    check("x > 1", "bool");
    check("x + 1", "int");
    check("x + x", "dyn");
    check("x ? 1 : 2", "int");
    check("x ? 1 : x", "dyn");
    check("self.list.transformList(i, s, i + s.size())", "list(int)");
    check("self.list.transformMap(i, s, s)", "map(int, string)");
    check("self.meta.labels.transformMapEntry(k, v, {v: k})", "map(string, string)");
    check("self.meta.labels.all(k, v, k != v) && self.list.existsOne(i, s, i > 0 && s != '')", "bool");
    check("self.list.sortBy(s, s.size())", "list(string)");
    check("[[1], [2]].flatten()", "list(int)");
    check("[].sum()", "int");
    check("semver('1.0.0').compareTo(semver('v1', true))", "int");
    check("type(self.any) == google.protobuf.Timestamp", "bool");
    check("type(1) == int && type(x) == string", "bool");
    check("self.meta == null || self.any == null", "bool");
    check("duration('1h') + timestamp('2026-01-01T00:00:00Z')", "timestamp");
    check("[1, 2].sum() + self.list.map(s, s.size()).max()", "int");
    check("quantity('1').add(1).isGreaterThan(quantity('2'))", "bool");
    check("'a,b'.split(',')", "list(string)");
    check("authorizer.group('').resource('pods').check('get').allowed()", "bool");
    check("authorizer.requestResource.check('get').reason()", "string");
    check("format.named('dns1123Label').orValue(format.uri()).validate('a')", "optional_type(list(string))");
    check("1 < 2.5 && 1u < 2", "bool");
    check("url('https://a').getQuery()['a'][0]", "string");
    check("Object{spec: Object.spec{replicas: 1}}", "Object");
    check("self.n > 1 ? Object{list: [Object.list{a: 1}, Object.list{}]} : Object{}", "Object");
    check("[JSONPatch{op: 'add', path: self.meta.name, value: 1}] + [JSONPatch{op: 'test', path: ''}]", "list(JSONPatch)");
}

/// In the words of cel-go.
#[test]
fn what_does_not_fit() {
    let overload = |name: &str, of: &str| format!("found no matching overload for '{name}' applied to '{of}'");
    check("self.n == 'a'", &overload("_==_", "(int, string)"));
    check("1 == 1.0", &overload("_==_", "(int, double)"));
    check("self.meta.name + 1", &overload("_+_", "(string, int)"));
    check("self.n.startsWith('a')", &overload("startsWith", "int.(string)"));
    check("!self.n", &overload("!_", "(int)"));
    check("-'a'", &overload("-_", "(string)"));
    check("self.n && true", "expected type 'bool' but found 'int'");
    check("true || [self.n]", "expected type 'bool' but found 'list(int)'");
    check("self.list.all(s, s)", "expected type 'bool' but found 'string'");
    check("self.list.exists(i, s, i)", "expected type 'bool' but found 'int'");
    check("self.n ? 1 : 2", &overload("_?_:_", "(int, int, int)"));
    check("true ? 1 : 'a'", &overload("_?_:_", "(bool, int, string)"));
    check("self.list['a']", &overload("_[_]", "(list(string), string)"));
    check("self.meta.labels[1]", &overload("_[_]", "(map(string, string), int)"));
    check("1 in ['a']", &overload("@in", "(int, list(string))"));
    check("self.list.exists_one(s, s)", &overload("_?_:_", "(string, int, int)"));
    check("self.list.filter(s, s.size())", &overload("_?_:_", "(int, list(string), list(string))"));
    check("[[1]].isSorted()", &overload("isSorted", "list(list(int)).()"));
    check("['a'].sum()", &overload("sum", "list(string).()"));
    check("self.n.optMap(n, n)", &overload("hasValue", "int.()"));
    check("self.n == null", &overload("_==_", "(int, null)"));
    check("quantity('1').add('1')", &overload("add", "kubernetes.Quantity.(string)"));
    check("authorizer.check('get')", &overload("check", "kubernetes.authorization.Authorizer.(string)"));
    check("self.m", "undefined field 'm'");
    check("has(self.meta.m)", "undefined field 'm'");
    check("self.?m.hasValue()", "undefined field 'm'");
    check("self.n.m", "type 'int' does not support field selection");
    check("self.n.all(a, true)", "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)");
    check("[1, 'a']", "expected type 'int' but found 'string'");
    check("{'a': 1, 'b': 'c'}", "expected type 'int' but found 'string'");
    check("JSONPatch{op: 1}", "expected type of field 'op' is 'string' but provided type is 'int'");
    check("[1, x]", "expected type 'int' but found 'dyn'");
    check("{'a': 1, 2: 1}", "expected type 'string' but found 'int'");
    check("duration('x')", "invalid duration argument");
    check("timestamp('x')", "invalid timestamp argument");
    check("self.meta.name.matches('[')", "invalid matches argument");
}

/// cel-go, `ext/formatting.go`: values of a text are of any types, and known before where they stand in the expression.
#[test]
fn texts_with_values() {
    check("'%s is %d of %s'.format([self.meta.name, self.n, [self.n, 'a']])", "string");
    check("'%s'.format([x])", "string");
    check("'%s %s'.format([1])", "index 1 out of range");
    check("'%s'.format([1, 2])", "too many arguments supplied to string.format (expected 1, got 2)");
    check("'%d'.format(['a'])", "error during formatting: decimal clause can only be used on integers, was given string");
    let text =
        "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps";
    check("'%s'.format([self.meta])", &format!("error during formatting: {text}, was given meta"));
    check("'%s'.format([[self.?n]])", &format!("error during formatting: {text}, was given optional_type"));
    check("'%f'.format([1])", "error during formatting: fixed-point clause can only be used on doubles, was given int");
    check("'%y'.format([1])", "could not parse formatting clause: unrecognized formatting clause \"y\"");
    check("'%'.format([1])", "unexpected end of string");
}

#[test]
fn places_of_faults() {
    let source = "self.n > 0 &&\n  self.meta.name.contains(1)";
    let program = Program::compile(source, &["self"]).unwrap();
    let error = program.check(source, &variables()).map(drop).unwrap_err();
    let expected = "ERROR: <input>:2:26: found no matching overload for 'contains' applied to 'string.(int)'\n |   self.meta.name.contains(1)\n | .........................^";
    assert_eq!(error.to_string(), expected);
    let two = "self.a || self.b";
    let program = Program::compile(two, &["self"]).unwrap();
    let error = program.check(two, &variables()).map(drop).unwrap_err().to_string();
    assert_eq!(error.matches("undefined field").count(), 2, "{error}");
}

/// Types that double with each binding end as anything, and in time.
#[test]
fn types_are_bounded() {
    let bound = |body: String, at: usize| format!("[{{v{at}: v{at}}}].map(v{}, {body})", at + 1);
    let source = format!("[{{1: 1}}].map(v0, {})", (0..40).rev().fold("v40".to_owned(), bound));
    let program = Program::compile(&source, &["x"]).unwrap();
    let time = fuzz::cpu_time(|| assert!(program.check(&source, &variables()).is_ok()));
    assert!(time.as_secs_f64() < 2.0, "{time:?}");
}
