#![allow(clippy::unwrap_used)]

use serde_json::{Value as Json, json};

use super::{Budget, Definitions, Environment, Error, Program, Shape, Value};
use crate::functions::show;

const LIMIT: u64 = 1_000_000;

fn run(expression: &str, own: &Json) -> Result<String, Error> {
    let program = Program::compile(expression, &["self"]).unwrap_or_else(|error| panic!("{expression}: {error}"));
    program.evaluate(&[("self", Value::of(own, None))], &mut Budget::new(LIMIT)).map(|value| show(&value))
}

#[track_caller]
fn check(expression: &str, expected: &str) {
    check_of(expression, json!({}), expected);
}

#[track_caller]
fn check_of(expression: &str, own: Json, expected: &str) {
    assert_eq!(run(expression, &own).as_deref(), Ok(expected), "{expression} {own}");
}

#[track_caller]
fn check_error(expression: &str, own: Json, expected: &str) {
    assert_eq!(run(expression, &own).map_err(|error| error.to_string()), Err(expected.to_owned()), "{expression}");
}

#[test]
fn operators() {
    check("1 + 2 * 3", "7");
    check("(1 + 2) * 3", "9");
    check("-7 / 2", "-3");
    check("-7 % 3", "-1");
    check("-9223372036854775808", "-9223372036854775808");
    check("10 - 2 - 3", "5");
    check("1.5 + 2.5", "4");
    check("3u + 4u", "7");
    check("'a' + 'b'", "ab");
    check("[1] + [2, 3]", "[1, 2, 3]");
    check("1 == 1.0", "true");
    check("1 == '1'", "false");
    check("1 < 2.5", "true");
    check("'a' < 'b'", "true");
    check("!true || false", "false");
    check("true ? 1 : 2", "1");
    check("false ? 1 : true ? 2 : 3", "2");
    check("2 in [1, 2]", "true");
    check("'a' in {'a': 1}", "true");
    check("{'a': {'b': [5]}}.a.b[0]", "5");
    check("b'abc' == bytes('abc')", "true");
    check(r#"r'\d' + "\n\x41\u00e9""#, "\\d\nA\u{e9}");
    check("'''a'b''' // a comment", "a'b");
    check("0x10", "16");
    check("type(1) == int && type('') == string && type(type(1)) == type", "true");
    check_error("9223372036854775807 + 1", json!({}), "integer overflow");
    check_error("1 / 0", json!({}), "division by zero");
    check_error("1 % 0", json!({}), "modulus by zero");
    check_error("1 + 'a'", json!({}), "no such overload");
    check_error("[1][2]", json!({}), "index out of bounds: 2");
    check_error("self.a", json!({}), "no such key: a");
}

#[test]
fn one_side_that_decides_is_enough() {
    check("1 / 0 > 1 || true", "true");
    check("true || 1 / 0 > 1", "true");
    check("1 / 0 > 1 && false", "false");
    check("1 / 0 in []", "false");
    check_error("1 / 0 > 1 && true", json!({}), "division by zero");
    check("[1, 0].exists(x, 1 / x == 1)", "true");
    check("[0, 2].all(x, 4 / x == 1)", "false");
}

#[test]
fn macros() {
    check("[1, 2, 3].all(x, x > 0)", "true");
    check("[1, 2, 3].exists(x, x > 2)", "true");
    check("[1, 2, 3].exists_one(x, x > 1)", "false");
    check("[1, 2, 3].filter(x, x > 1)", "[2, 3]");
    check("[1, 2, 3].map(x, x * 2)", "[2, 4, 6]");
    check("[1, 2, 3].map(x, x > 1, x * 2)", "[4, 6]");
    check("{'a': 1, 'b': 2}.all(k, k != 'c')", "true");
    check("[[1, 2], [3]].all(l, l.all(x, x < 4))", "true");
    check("[].all(x, x > 0) && ![].exists(x, true)", "true");
    check_of("has(self.a) && !has(self.b)", json!({"a": 1}), "true");
    check_of("has(self.a.b)", json!({"a": {"b": null}}), "true");
    check_of("self.a.map(x, x.n)", json!({"a": [{"n": 1}, {"n": 2}]}), "[1, 2]");
}

/// cel-go, `interpreter/attributes.go`, `refQualify`: of a value that is neither map nor list, a presence test finds nothing
/// and a selection is a missing key. Policies count on it: `has(oldObject.metadata)` is false when an object is created.
#[test]
fn values_without_members() {
    for one in [json!(null), json!("a"), json!(1), json!(1.5), json!(true)] {
        check_of("has(self.o.a)", json!({"o": one}), "false");
        check_of("self.o.?a.hasValue() || self.?o.a.hasValue()", json!({"o": one}), "false");
        check_error("self.o.a", json!({"o": one}), "no such key: a");
        check_error("self.o['a']", json!({"o": one}), "no such key: a");
        check_error("self.o[0]", json!({"o": one}), "no such key: 0");
        check_error("has(self.o.a.b)", json!({"o": one}), "no such key: a");
    }
    check("has(optional.of(dyn(null)).a)", "false");
    check_error("has(self.o.a)", json!({"o": [1]}), "no such overload");
    check_error("self.o.a", json!({"o": [1]}), "no such overload");
    check_error("self.o['a']", json!({"o": [1]}), "no such overload");
}

#[test]
fn optional_values() {
    check_of("self.?a.orValue(7)", json!({}), "7");
    check_of("self.?a.?b.orValue('x')", json!({"a": {"b": "y"}}), "y");
    check_of("self.?a.b.hasValue()", json!({"a": {}}), "false");
    check_of("self[?'a'].value()", json!({"a": 3}), "3");
    check("[1, 2][?5].orValue(0)", "0");
    check("optional.of(1).optMap(x, x + 1)", "optional(2)");
    check("optional.none().optMap(x, x + 1)", "optional.none()");
    check("optional.of(1).optFlatMap(x, optional.of(x + 1)).value()", "2");
    check("optional.none().or(optional.of(3)).value()", "3");
    check("optional.ofNonZeroValue('').hasValue()", "false");
    check("[?optional.of(1), ?optional.none(), 2]", "[1, 2]");
    check("{?'a': optional.of(1), ?'b': optional.none()}", "{a: 1}");
    check_error("optional.none().value()", json!({}), "optional.none() dereference");
    // What stands behind a value is not looked at.
    check("optional.of(1).orValue(1 / 0)", "1");
    check("optional.of(1).or(optional.of(1 / 0))", "optional(1)");
    check_error("optional.none().orValue(1 / 0)", json!({}), "division by zero");
    check("optional.of({'a': 1}).optMap(x, x.a).optMap(x, x + 1)", "optional(2)");
}

#[test]
fn texts() {
    check("'hello'.contains('ell') && 'hello'.startsWith('he') && 'hello'.endsWith('lo')", "true");
    check("'abc'.matches('^[a-c]+$') && matches('abc', 'b')", "true");
    check("size('h\u{e9}llo')", "5");
    check("'a1b22'.findAll('[0-9]+')", "[1, 22]");
    check("'a1b22'.findAll('[0-9]+', 1)", "[1]");
    check("'a1b22'.find('[0-9]+')", "1");
    check("'hello'.charAt(4)", "o");
    check("'hello mellow'.indexOf('ello')", "1");
    check("'hello mellow'.indexOf('ello', 2)", "7");
    check("'hello mellow'.lastIndexOf('ello')", "7");
    check("'hello mellow'.lastIndexOf('jello')", "-1");
    check("'TacoCat'.lowerAscii() + 'TacoCat'.upperAscii()", "tacocatTACOCAT");
    check("'hello hello'.replace('he', 'we')", "wello wello");
    check("'hello hello'.replace('he', 'we', 1)", "wello hello");
    check("'a,b,c'.split(',')", "[a, b, c]");
    check("'a,b,c'.split(',', 2)", "[a, b,c]");
    check("'abc'.split('')", "[a, b, c]");
    check("'tacocat'.substring(4) + 'tacocat'.substring(0, 4)", "cattaco");
    check("'  x '.trim()", "x");
    check("['a', 'b'].join('-')", "a-b");
    check("'%s is %d, %.2f, %x'.format(['a', 1, 2.5, 255])", "a is 1, 2.50, ff");
    check("string(1) + string(true) + string(1.5)", "1true1.5");
    check("string(4.0) + ' ' + string(1000000.0) + ' ' + string(0.000000002)", "4 1e+06 2e-09");
    check("int('42') + int(3.9)", "45");
    check_error("'tacocat'.substring(40)", json!({}), "index out of range: 40");
}

/// The cases of cel-go's `ext/formatting_test.go`.
#[test]
fn texts_with_values() {
    let check = |pattern: &str, values: &str, expected: &str| check(&format!("'{pattern}'.format([{values}])"), expected);
    check("no substitution", "", "no substitution");
    check("%% and also %%", "", "% and also %");
    check("%%%s%%", "'text'", "%text%");
    check("%d %d, %s %s", "1, 2u, 'A', true", "1 2, A true");
    check("%.3f", "1.2345", "1.234");
    check("%f", "1234567.5", "1,234,567.500000");
    check("%b %b %b", "5, -5, true", "101 -101 1");
    check("%o %o", "11, -11", "13 -13");
    check("%x %X %x", "30, 30u, -30", "1e 1E -1e");
    check("%x %X", "'Hello', b'ab\\xff'", "48656c6c6f 6162FF");
    check("%.6e", "1052.032911275", "1.052033\u{202f}\u{d7}\u{202f}10\u{2070}\u{b3}");
    check("%f %f", "'NaN', '-Infinity'", "NaN -\u{221e}");
    check("%s %s", "2.71, 0.000000002", "2.71 2e-09");
    check("%s", "[2.71]", "[2.710000]");
    check("null: %s", "null", "null: null");
    check("type is %s", "type('a')", "type is string");
    check("%s", "timestamp('2023-02-03T23:31:20+00:00')", "2023-02-03T23:31:20Z");
    check("%s", "duration('1h45m47s')", "6347s");
    check(
        "%s",
        "['abc', 3.14, null, [9, 8], timestamp('2023-02-03T23:31:20Z')]",
        "[\"abc\", 3.140000, null, [9, 8], timestamp(\"2023-02-03T23:31:20Z\")]",
    );
    check(
        "%s",
        "{'key1': b'xyz', 'key5': null, 'key2': duration('2h'), 'key4': true}",
        "{\"key1\":b\"xyz\", \"key2\":duration(\"7200s\"), \"key4\":true, \"key5\":null}",
    );
    check_error(
        "'%d'.format([dyn('a')])",
        json!({}),
        "error during formatting: decimal clause can only be used on integers, was given string",
    );
    check_error("'%s %s'.format(dyn([1]))", json!({}), "index 1 out of range");
}

#[test]
fn lists_and_sets() {
    check("[1, 2, 2].isSorted() && ![2, 1].isSorted()", "true");
    check("[1, 3].sum()", "4");
    check("[3, 1].min() + [3, 1].max()", "4");
    check("[1, 2, 2].indexOf(2)", "1");
    check("[1, 2, 2].lastIndexOf(2)", "2");
    check("sets.contains([1, 2], [1]) && !sets.contains([1], [2])", "true");
    check("sets.equivalent([1, 2], [2, 1, 1]) && sets.intersects([1], [1, 2])", "true");
    check("[3, 1, 2].sort()", "[1, 2, 3]");
    for mixed in [
        "[dyn(1), dyn(2.5)].sort()",
        "[dyn(9007199254740993), dyn(9007199254740992.0)].sort()",
        "[1, 2].sortBy(x, x == 1 ? dyn(1) : dyn(2u))",
    ] {
        check_error(mixed, json!({}), "list elements must have the same type");
    }
    check("[1, 1, 2].distinct()", "[1, 2]");
    check("[[1], [2, 3]].flatten()", "[1, 2, 3]");
    check("[1, 2, 3].slice(1, 3)", "[2, 3]");
    check("['b', 'aa', 'c'].sortBy(x, x.size())", "[b, c, aa]");
    check("[3, 1, 2].sortBy(x, -x).reverse()", "[1, 2, 3]");
    check("optional.unwrap([optional.of(1), optional.none()]) + [optional.of(2)].unwrapOpt()", "[1, 2]");
    check("lists.range(3)", "[0, 1, 2]");
    check_error("[1, 2].slice(1, 3)", json!({}), "cannot slice(1, 3), list is length 2");
    check_error("[1, 2].slice(2, 1)", json!({}), "cannot slice(2, 1), start index must be less than or equal to end index");
    check_error("[1, 2].slice(-1, 1)", json!({}), "cannot slice(-1, 1), negative indexes not supported");
    check_error("lists.range(-1)", json!({}), "lists.range: size must be non-negative, got -1");
    check_error("[1].flatten(-1)", json!({}), "level must be non-negative");
    check_error("[].min()", json!({}), "min called on empty list");
}

/// The expressions of the documentation of `k8s.io/apiserver/pkg/cel/library`.
#[test]
fn libraries_of_kubernetes() {
    check("quantity('1.5G').isGreaterThan(quantity('1G')) && quantity('50k').isLessThan(quantity('50M'))", "true");
    check("quantity('50k').add(20).compareTo(quantity('50020'))", "0");
    check("quantity('50M').isInteger() && quantity('50000000G').asInteger() > 0", "true");
    check("isQuantity('1Mi') && !isQuantity('1x')", "true");
    check("quantity('200M').compareTo(quantity('0.2G'))", "0");
    check("url('https://example.com:80/path?k1=a&k2=b&k2=c').getHost()", "example.com:80");
    check("url('https://example.com:80/').getHostname() + url('https://[::1]:80/').getPort()", "example.com80");
    check("url('https://example.com/path with spaces/'.replace(' ', '%20')).getEscapedPath()", "/path%20with%20spaces/");
    check("url('https://example.com/path?k1=a&k2=b&k2=c').getQuery()['k2'][1]", "c");
    check("isURL('https://example.com') && isURL('/absolute') && !isURL('../relative') && !isURL('https://a:b/')", "true");
    check("ip('127.0.0.1').family() == 4 && ip('::1').isLoopback() && !isIP('1.2.3')", "true");
    check("ip.isCanonical('127.0.0.1') && !ip.isCanonical('2001:DB8::ABCD')", "true");
    check("cidr('192.168.0.0/24').containsIP('192.168.0.1') && !cidr('10.0.0.0/8').containsIP(ip('11.0.0.1'))", "true");
    check("cidr('192.168.0.0/24').containsCIDR(cidr('192.168.0.0/26')) && isCIDR('::/0')", "true");
    check("cidr('192.168.1.5/24').masked().ip()", "192.168.1.0");
    check("cidr('::/16').prefixLength()", "16");
    check("!format.dns1123Label().validate('my-label-name').hasValue()", "true");
    check("format.dns1123Label().validate('My_label').value().size() > 0", "true");
    check("format.named('uuid').value().validate('x').hasValue() && !format.named('no').hasValue()", "true");
    check("duration('1h30m').getSeconds() == 5400 && duration('90s') == duration('1m30s')", "true");
    check("duration('300ms').getMilliseconds()", "300");
    check("timestamp('2026-01-02T03:04:05Z').getFullYear()", "2026");
    check("timestamp('2026-01-02T03:04:05Z').getMonth()", "0");
    check("timestamp('2026-01-02T03:04:05Z').getHours('+02:00')", "5");
    check("timestamp('2026-01-02T03:04:05Z') + duration('1h') > timestamp('2026-01-02T04:00:00Z')", "true");
    check("string(timestamp('2026-01-02T03:04:05Z') - timestamp('2026-01-01T03:04:05Z'))", "86400s");
    check("sign(quantity('-1'))", "-1");
}

/// The expressions of the documentation of `library/semverlib.go` and of semver.org, "Precedence".
#[test]
fn semantic_versions() {
    let version = |text: &str, expected: &str| {
        check(&format!("semver('{text}') == semver('{expected}') && isSemver('{text}')"), "true");
        let program = Program::compile(&format!("semver('{text}')"), &[]).unwrap();
        assert_eq!(show(&program.evaluate(&[], &mut Budget::new(LIMIT)).unwrap()), text);
    };
    version("1.0.0", "1.0.0");
    version("0.1.0-alpha.1", "0.1.0-alpha.1");
    version("1.2.3-rc.1+build.5", "1.2.3-rc.1+other");
    check("semver('v1.0.0', true) == semver('1.0', true) && semver('01.01.01', true) == semver('1.1.1')", "true");
    check("semver('1.2.03-rc', true).patch()", "3");
    check("semver('1.2.3').major() * 100 + semver('1.2.3').minor() * 10 + semver('1.2.3').patch()", "123");
    for wrong in
        ["200K", "Three", "Mi", "", "v1.0.0", "1.0", "1.0.0-", "1.0.0-01", "1.0.0+", "1.0.0-a_b", "99999999999999999999.0.0"]
    {
        check(&format!("isSemver('{wrong}')"), "false");
    }
    check("isSemver('v1.0', true) && isSemver('1.0', true) && !isSemver('1.0-rc', true) && !isSemver('a', true)", "true");
    let order = [
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
        "1.0.1",
    ];
    for pair in order.windows(2) {
        let (less, more) = (pair[0], pair[1]);
        check(
            &format!("semver('{less}').isLessThan(semver('{more}')) && semver('{more}').isGreaterThan(semver('{less}'))"),
            "true",
        );
        check(&format!("semver('{less}').compareTo(semver('{more}'))"), "-1");
    }
    check_error("semver('01.0.0')", json!({}), "Major number must not contain leading zeroes \"01\"");
    check_error("semver('1.x.0')", json!({}), "Invalid character(s) found in minor number \"x\"");
    check_error("semver('1.0+a', true)", json!({}), "short version cannot contain PreRelease/Build meta data");
}

/// The expressions of the documentation of cel-go's `ext/comprehensions.go`.
#[test]
fn macros_with_two_variables() {
    check("[1, 2, 3].all(i, j, i < j)", "true");
    check("{'hello': 'world', 'taco': 'taco'}.all(k, v, k != v)", "false");
    check("{'h': ['hello', 'hi'], 'j': ['joke', 'jog']}.all(k, vals, vals.all(v, v.startsWith(k)))", "true");
    check("{'greeting': 'hello', 'farewell': 'goodbye'}.exists(k, v, k.startsWith('good') || v.endsWith('bye'))", "true");
    check("[1, 2, 4, 8, 16].exists(i, v, v == 1024 && i == 10)", "false");
    check("[1, 2, 1, 3, 1, 4].existsOne(i, v, i == 1 || v == 1)", "false");
    check("[1, 1, 2, 2, 3, 3].exists_one(i, v, i == 2 && v == 2)", "true");
    check("[1, 2, 3].transformList(i, v, (i * v) + v)", "[1, 4, 9]");
    check("[1, 2, 3].transformList(i, v, i % 2 == 0, (i * v) + v)", "[1, 9]");
    check("{'greeting': 'hello'}.transformList(k, _, k)", "[greeting]");
    check("[1, 2, 3].transformMap(i, v, (i * v) + v)", "{0: 1, 1: 4, 2: 9}");
    check("[1, 2, 3].transformMap(i, v, i % 2 == 0, (i * v) + v)", "{0: 1, 2: 9}");
    check("{'greeting': 'hello'}.transformMap(k, v, v + '!')", "{greeting: hello!}");
    check("{'greeting': 'hello'}.transformMapEntry(k, v, {v: k})", "{hello: greeting}");
    check("['a', 'b'].transformMapEntry(i, v, v != 'b', {v: i})", "{a: 0}");
    check_of("self.transformMap(k, v, v.n)", json!({"a": {"n": 1}, "b": {"n": 2}}), "{a: 1, b: 2}");
    let again = "insert failed: key aloha already exists";
    check_error("{'greeting': 'aloha', 'farewell': 'aloha'}.transformMapEntry(k, v, {v: k})", json!({}), again);
}

#[test]
fn escaped_names() {
    check_of(
        "self.a__dash__b + self.__if__ + self.c__dot__d + self.e__underscores__f",
        json!({"a-b": 1, "if": 2, "c.d": 3, "e__f": 4}),
        "10",
    );
    check_of("self['a-b']", json!({"a-b": 1}), "1");
    for word in crate::lexer::RESERVED.iter().chain(&["true", "false", "null"]) {
        check_of(&format!("self.__{word}__"), json!({*word: 1}), "1");
    }
}

#[test]
fn what_is_no_expression() {
    let error = |text: &str| Program::compile(text, &["self"]).map(drop).unwrap_err().to_string();
    let undeclared = "ERROR: <input>:1:1: undeclared reference to 'other' (in container '')\n | other\n | ^";
    assert_eq!(error("other"), undeclared);
    assert_eq!(error("other.a.b"), undeclared.replace("| other", "| other.a.b"));
    let second = "ERROR: <input>:2:12: undeclared reference to 'nothing' (in container '')\n |  && nothing(1)\n | ...........^";
    assert_eq!(error("true\n\t&& nothing(1)"), second);
    let told = |text: &str, expected: &[&str]| {
        let error = error(text);
        let lines: Vec<&str> = error.lines().filter_map(|line| line.strip_prefix("ERROR: <input>:")).collect();
        assert_eq!(lines, expected, "{text}");
    };
    told("'a'.size(1, 2)", &["1:9: found no matching overload for 'size' applied to 'string.(int, int)'"]);
    told("'a'.string()", &["1:11: found no matching overload for 'string' applied to 'string.()'"]);
    told(
        "cel.bind(x, 1, x + 1) == 2",
        &[
            "1:1: undeclared reference to 'cel' (in container '')",
            "1:9: undeclared reference to 'bind' (in container '')",
            "1:10: undeclared reference to 'x' (in container '')",
            "1:16: undeclared reference to 'x' (in container '')",
        ],
    );
    told("self.all(1, true)", &["1:10: argument must be a simple name"]);
    told("self.map(1, true)", &["1:10: argument is not an identifier"]);
    told("self.all(a, a, true)", &["1:13: duplicate variable name: a"]);
    told("has(self)", &["1:5: invalid argument to has() macro"]);
    told("optional.of(1).optMap(1, 2)", &["1:23: optMap() variable name must be a simple identifier"]);
    told(
        "self.all(a)",
        &["1:9: undeclared reference to 'all' (in container '')", "1:10: undeclared reference to 'a' (in container '')"],
    );
    for text in ["", "1 +", "(1", "[1", "{'a' 1}", "'a", "1 2", "@", "if", "99999999999999999999", "'\\q'"] {
        assert!(error(text).contains(": Syntax error: "), "{text}: {}", error(text));
    }
    for large in [
        "(".repeat(1000),
        format!("1{}", " + 1".repeat(1000)),
        format!("1{}", " < 1".repeat(1000)),
        format!("self{}", ".a".repeat(1000)),
        format!("{}1", "true ? 1 : ".repeat(1000)),
    ] {
        assert!(error(&large).contains("the expression is too large or nests too deep"));
    }
    // As long as rules of real definitions.
    assert!(Program::compile(&vec!["self.a == 'b'"; 500].join(" || "), &["self"]).is_ok());
}

#[test]
fn variables_that_are_used() {
    let uses = |text: &str| Program::compile(text, &["self", "oldSelf"]).unwrap().uses("oldSelf");
    assert!(uses("self == oldSelf") && uses("self.all(x, x in oldSelf)") && !uses("self.a > 1"));
    assert!(!uses("[1].all(oldSelf, oldSelf > 0)"));
}

#[test]
fn budgets_end_evaluations() {
    let many: Vec<u32> = (0..2000).collect();
    let own = json!(many);
    let program = Program::compile("self.all(a, self.all(b, a + b >= 0))", &["self"]).unwrap();
    let result = program.evaluate(&[("self", Value::of(&own, None))], &mut Budget::new(LIMIT));
    assert_eq!(result.map(|value| show(&value)), Err(Error::Budget));
    let mut budget = Budget::new(100);
    Program::compile("1 + 1", &[]).unwrap().evaluate(&[], &mut budget).unwrap();
    assert!(budget.left() < 100 && budget.left() > 90);
}

#[derive(Debug)]
struct Typed(&'static str, Vec<String>);

impl Shape for Typed {
    fn field(&self, _: &str) -> Option<&dyn Shape> {
        Some(self)
    }

    fn element(&self) -> Option<&dyn Shape> {
        None
    }

    fn format(&self) -> &str {
        self.0
    }

    fn is_set(&self) -> bool {
        self.0 == "set"
    }

    fn keys(&self) -> &[String] {
        &self.1
    }
}

/// Conventions of Kubernetes: texts of a format have its type, and lists are compared and joined as server-side apply does.
#[test]
fn schemas_count() {
    let check = |format: &'static str, keys: &[&str], expression: &str, own: Json, expected: &str| {
        let typed = Typed(format, keys.iter().map(|key| (*key).to_owned()).collect());
        let program = Program::compile(expression, &["self"]).unwrap();
        let value = program.evaluate(&[("self", Value::of(&own, Some(&typed)))], &mut Budget::new(LIMIT)).unwrap();
        assert_eq!(show(&value), expected, "{expression} {own}");
    };
    check("duration", &[], "self.getSeconds()", json!("90s"), "90");
    check("date-time", &[], "self.getMonth()", json!("2026-02-01T00:00:00Z"), "1");
    check("date", &[], "self.getDate()", json!("2026-02-03"), "3");
    check("byte", &[], "self == b'hi'", json!("aGk="), "true");
    check("set", &[], "self == [2, 1]", json!([1, 2]), "true");
    check("set", &[], "1 == self || self != [3]", json!([1, 2]), "true");
    let program = Program::compile("self == 1", &["self"]).unwrap();
    let (list, typed) = (json!([1]), Typed("", Vec::new()));
    let found = program.evaluate(&[("self", Value::of(&list, Some(&typed)))], &mut Budget::new(LIMIT));
    assert_eq!(found.map(|value| show(&value)), Err(Error::NoOverload));
    check("set", &[], "self + [2, 3]", json!([1, 2]), "[1, 2, 3]");
    check("", &[], "self + [2, 3]", json!([1, 2]), "[1, 2, 2, 3]");
    check("number", &[], "self + 0.5", json!(1), "1.5");
}

/// What an expression makes, as JSON, with the variables `x` and `variables` (of which each may use those before it).
#[track_caller]
fn check_made(expression: &str, expected: Result<Json, &str>) {
    let program =
        Program::compile(expression, &["x", "variables", "authorizer"]).unwrap_or_else(|error| panic!("{expression}: {error}"));
    let sources = [
        ("one", "x + 1"),
        ("two", "variables.one + 1"),
        ("fails", "x.y"),
        ("own", "variables.own"),
        ("late", "[1, 2].map(i, i + variables.two)"),
    ];
    let all: Vec<(String, Program)> = sources
        .iter()
        .map(|(name, source)| ((*name).to_owned(), Program::compile(source, &["x", "variables"]).unwrap()))
        .collect();
    let mut definitions = Definitions::new("variables", &all);
    let variables = [("x", Value::Int(1)), ("authorizer", Value::Question(Default::default()))];
    let environment = Environment { variables: &variables, definitions: Some(&mut definitions), authorizer: Some(&Readers) };
    let got = program.evaluate_in(environment, &mut Budget::new(LIMIT)).map(|value| value.to_json().unwrap());
    assert_eq!(got.map_err(|error| error.to_string()), expected.map_err(str::to_owned), "{expression}");
}

/// Everybody may read, and the service account `a/b` may do anything.
struct Readers;

impl crate::Authorize for Readers {
    fn check(&self, question: &crate::Question, verb: &str) -> crate::Decision {
        let all = question.service_account.as_ref().is_some_and(|(namespace, name)| (&**namespace, &**name) == ("a", "b"));
        let reason = format!("{:?} {} {} {}", question.group, question.resource, question.namespace, verb);
        crate::Decision { allowed: all || verb == "get", reason, error: None }
    }
}

/// KEP-3488: "variables are evaluated lazily", each once, and an error is one where the variable is used.
#[test]
fn definitions_are_evaluated_when_they_are_used() {
    check_made("variables.two", Ok(json!(3)));
    check_made("variables.late", Ok(json!([4, 5])));
    check_made("[7].all(variables, variables == 7)", Ok(json!(true)));
    check_made("true || variables.fails", Ok(json!(true)));
    check_made("variables.fails == 1", Err("no such key: y"));
    check_made("variables.own", Err("variables.own uses itself"));
    check_made("variables.none", Err("no such key: none"));
    check_made("has(variables.two) && !has(variables.none)", Ok(json!(true)));
    let program = Program::compile("variables.a + [1].map(i, variables.b)[0] + x.c", &["variables", "x"]).unwrap();
    assert_eq!(program.members("variables"), ["a", "b"]);
}

/// KEP-3962: objects of types that are named after their fields, and JSON patches.
#[test]
fn objects() {
    check_made("Object{}", Ok(json!({})));
    check_made("Object{spec: Object.spec{replicas: x, names: ['a']}}", Ok(json!({"spec": {"replicas": 1, "names": ["a"]}})));
    check_made(
        "Object{list: [Object.list{a: 1}], ?b: optional.none(), ?c: optional.of(2)}",
        Ok(json!({"list": [{"a": 1}], "c": 2})),
    );
    check_made("Object{?b: optional.of('c')}", Ok(json!({"b": "c"})));
    check_made("x == 1 ? Object{a: 1} : Object{}", Ok(json!({"a": 1})));
    check_made(
        "[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('b/~c'), value: {'d': [1]}}]",
        Ok(json!([{"op": "add", "path": "/a/b~1~0c", "value": {"d": [1]}}])),
    );
    for wrong in
        ["Object{spec: Object.status{}}", "Object{a: [Object.b{}]}", "JSONPatch{operation: ''}", "Object{a: 1, a: 2}", "Other{}"]
    {
        assert!(Program::compile(wrong, &[]).is_err(), "{wrong}");
    }
}

#[test]
fn authorization() {
    check_made("authorizer.group('apps').resource('deployments').namespace('n').check('get').allowed()", Ok(json!(true)));
    check_made("authorizer.group('').resource('pods').check('create').allowed()", Ok(json!(false)));
    check_made("authorizer.serviceAccount('a', 'b').path('/healthz').check('post').allowed()", Ok(json!(true)));
    check_made("authorizer.group('').resource('pods').check('create').reason()", Ok(json!("Some(\"\") pods  create")));
    check_made("authorizer.group('').resource('pods').check('create').errored()", Ok(json!(false)));
    check_made("authorizer.group('').check('create').allowed()", Err("no such overload"));
    check_made("authorizer.resource('a')", Err("no such overload"));
}

/// Whatever nests in whatever: it is refused, or evaluated on the stack that a thread has.
#[test]
fn trees_are_no_higher_than_the_stack() {
    let layers = [
        ("(", ")"),
        ("[", "]"),
        ("[", "][0]"),
        ("{1: ", "}"),
        ("!(", ")"),
        ("-(", ")"),
        ("size([", "])"),
        ("[1].all(x, ", " == 1)"),
        ("[1].sortBy(y, ", ")"),
        ("[1].transformMap(y, z, ", ")"),
        ("true ? ", " : 1"),
        ("false ? 1 : ", ""),
        ("(1 + 1 + 1 + 1 + ", ")"),
        ("(", " + 1 + 1 + 1 + 1)"),
        ("(", " < 1 < 1 < 1)"),
        ("(", ").a.b.c.d"),
        ("(1 * 1 - 1 == 1 && ", " || true)"),
        ("optional.of(1).optMap(z, ", ")"),
    ];
    let own = json!({});
    for (before, behind) in layers {
        for (inner, outer) in layers {
            for count in [2, 20, 24, 48, 120, 300] {
                let (before, behind) = (format!("{before}{inner}").repeat(count), format!("{outer}{behind}").repeat(count));
                let source = format!("{before}1{behind}");
                if let Ok(program) = Program::compile(&source, &["self"]) {
                    let _ = program.evaluate(&[("self", Value::of(&own, None))], &mut Budget::new(LIMIT));
                    let _ = (program.uses("self"), program.members("self"));
                }
            }
        }
    }
}

/// Compiling takes as long as the text is.
#[test]
fn long_texts_are_read_once() {
    for piece in ["self.name) ? ", "self.name + ", "a ", "1, ", "x.y(", "'a' ", "`a` ", "/", "a // b\n"] {
        let (short, long) = (piece.repeat(2_000), piece.repeat(20_000));
        let time = |source: &str| fuzz::cpu_time(|| drop(Program::compile(source, &["self"]))).as_secs_f64();
        // Ten times as much text; a hundred times as long would be the square. The kernel counts in ticks of some milliseconds.
        let least = |source: &str| (0..3).map(|_| time(source)).fold(f64::MAX, f64::min);
        assert!(least(&long) < 40.0 * least(&short).max(0.005), "{piece}");
    }
}

/// Variables of a policy, each of the one before, and what an expression is that uses the last one.
fn check_chain(first: &str, next: &str, count: usize, expression: &str, expected: Result<&str, &str>) {
    let text = |at: usize| if at == 0 { first.to_owned() } else { next.replace('#', &format!("variables.v{}", at - 1)) };
    let all: Vec<(String, Program)> =
        (0..=count).map(|at| (format!("v{at}"), Program::compile(&text(at), &["self", "variables"]).unwrap())).collect();
    let source = expression.replace('#', &format!("variables.v{count}"));
    let program = Program::compile(&source, &["self", "variables"]).unwrap();
    let own = json!({"text": "x".repeat(1000)});
    let variables = [("self", Value::of(&own, None)), ("variables", Value::Null)];
    let mut definitions = Definitions::new("variables", &all);
    let environment = Environment { variables: &variables, definitions: Some(&mut definitions), authorizer: None };
    let found = program.evaluate_in(environment, &mut Budget::new(LIMIT)).map(|value| show(&value));
    assert_eq!(found.map_err(|error| error.to_string()).as_deref().map_err(String::as_str), expected, "{source}, {next}");
}

const OVER: Result<&str, &str> = Err("operation cancelled: actual cost limit exceeded");

/// A list of the same list twice, many times over, is made in few steps and has more parts than anybody can look at.
#[test]
fn what_is_shared_is_not_looked_at_for_nothing() {
    let check = |expression: &str, expected: Result<&str, &str>| check_chain("['']", "[#, #]", 50, expression, expected);
    for expression in [
        "[dyn(#)].indexOf(dyn(1)) == -1",
        "[dyn(#)].lastIndexOf(dyn(1)) == -1",
        "#.isSorted()",
        "# == #",
        "dyn(1) in [#]",
        "[#, #].distinct()",
        "sets.contains([#], [#])",
        "#.flatten(60)",
        "'%s'.format([#])",
    ] {
        check(expression, if expression == "dyn(1) in [#]" { Ok("false") } else { OVER });
    }
    // Keys of maps are neither lists nor maps, and what is not found is told in few words.
    check("{dyn(#): 1, dyn(2): 2}[dyn(2)]", Ok("2"));
    check("size({dyn(#): 1, dyn([#]): 2})", Ok("2"));
    check_chain("['']", "[#, #]", 50, "{1: 1}[dyn(#)].size() > 0 || true", Ok("true"));
}

#[test]
fn what_is_shared_is_no_endless_json() {
    let list = |value: &Value<'static>| Value::list(vec![value.clone(), value.clone()]);
    let deep = (0..50).fold(Value::text("a"), |value, _| list(&value));
    assert_eq!(deep.to_json(), Err(crate::NoJson::TooLarge));
    let own = json!({"text": "x".repeat(1 << 20), "list": ["x".repeat(1 << 20)]});
    let part = |name: &str| Value::of(&own[name], None);
    assert!(Value::list(vec![part("text"), part("list")]).to_json().is_ok());
    assert_eq!(Value::list(vec![part("text"), part("list"), part("text")]).to_json(), Err(crate::NoJson::TooLarge));
    assert_eq!(Value::list(vec![Value::of(&own, None), part("text")]).to_json(), Err(crate::NoJson::TooLarge));
    assert_eq!(Value::Type(crate::Kind("int")).to_json(), Err(crate::NoJson::Form));
}

/// What expressions make is not nested so deep, nor are definitions that use each other, that whoever goes through it has no stack for it.
#[test]
fn chains_are_no_longer_than_the_stack() {
    for next in [
        "[#]",
        "{'a': #}",
        "optional.of(#)",
        "[1].map(a, #)",
        "[1].transformMap(a, b, #)",
        "optional.of(#).optMap(a, [a]).orValue([])",
    ] {
        check_chain("[self.text]", next, 20, "[#].all(a, a == a)", Ok("true"));
        for count in [100, 300, 2000] {
            check_chain("[self.text]", next, count, "[#].all(a, a == a)", OVER);
        }
    }
    for next in ["# + 1", "[1].all(a, [2].all(b, [3].all(c, # > 0))) ? # : 0", "size([#, #, #])", "-(-(-(#)))"] {
        check_chain("1", next, 10, "# != 5000", Ok("true"));
        check_chain("1", next, 2000, "# != 5000", OVER);
    }
    let nested = format!("dyn([1]{}).all(v, v == v)", format!(".map(a, {}a{})", "[".repeat(25), "]".repeat(25)).repeat(150));
    let program = Program::compile(&nested, &[]).unwrap();
    assert_eq!(program.evaluate(&[], &mut Budget::new(LIMIT)), Err(Error::Budget));
}
