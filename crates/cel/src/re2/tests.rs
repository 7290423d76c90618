//! What is accepted and refused is what Go's `regexp.Compile` says (Go 1.27, run on each of these expressions).
#![allow(clippy::unwrap_used)]

use super::*;

#[track_caller]
fn check(source: &str, yes: &[&str], no: &[&str]) {
    let compiled = compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    for (texts, expected) in [(yes, true), (no, false)] {
        texts.iter().for_each(|text| assert_eq!(compiled.is_match(text), expected, "{source} {text}"));
    }
}

#[track_caller]
fn refuse(source: &str, why: &str) {
    let error = compile(source).map(drop).expect_err(source);
    assert_eq!(error.to_string(), format!("error parsing regexp: {why}"));
}

#[test]
fn plain_expressions() {
    check("^a+$", &["aa"], &["ab", ""]);
    check("b", &["abc"], &["ac"]);
    check("^a{2,3}$", &["aa", "aaa"], &["a"]);
    check("^a{0}$", &[""], &["a"]);
    check("^(|a)*$", &["", "aaa"], &["b"]);
    check("^*a", &["ba"], &["b"]);
    check("^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", &["a.b-c"], &["A", "-a"]);
    check("^x # y$", &["x # y"], &["x"]);
}

#[test]
fn braces_that_count_nothing_mean_themselves() {
    check("^{.*}$", &["{a}"], &["a"]);
    check("^a{,5}$", &["a{,5}"], &["a"]);
    check("^a{5$", &["a{5"], &["aaaaa"]);
    check("^a{05}$", &["a{05}"], &["aaaaa"]);
    check("^{a}{2}$", &["{a}}"], &["{a}"]);
}

#[test]
fn classes_of_ascii() {
    check("^\\d+$", &["42"], &["\u{664}\u{662}"]);
    check("^[\\d.]+$", &["4.2"], &["x"]);
    check("^[^\\s]+$", &["x\u{a0}"], &["a b"]);
    check("^[\\W]$", &["-", "\u{e9}"], &["_", "a"]);
    check("^[\\w-z]+$", &["a-z"], &["."]);
    check("\\bfoo\\b", &["a foo b", "\u{e9}foo"], &["afoo"]);
    check("^[[:alpha:]]+$", &["ab"], &["1"]);
    check("^[[:^alpha:]]+$", &["12"], &["a"]);
}

#[test]
fn classes_of_characters() {
    check("^[[]$", &["["], &["]"]);
    check("^[]a]+$", &["]a"], &["["]);
    check("^[^]a]+$", &["b"], &["]"]);
    check("^[a-]+$", &["a-"], &["b"]);
    check("^[a&&b]$", &["&", "a", "b"], &["c"]);
    check("^[a~~b]+$", &["~ab"], &["c"]);
    check("^[[a]b]$", &["[b]", "ab]"], &["b"]);
    check("^[\\^\\]\\\\]+$", &["^]\\"], &["a"]);
    check("^[^\\x00-\\x7F]$", &["\u{e9}"], &["a"]);
    check("^[^a]$", &["\n"], &["a"]);
}

#[test]
fn classes_of_unicode() {
    check("^\\p{Lu}\\pL$", &["\u{c9}a"], &["a\u{c9}", "A1"]);
    check("^\\p{Greek}+$", &["\u{3b1}"], &["a"]);
    check("^\\P{Greek}$", &["a"], &["\u{3b1}"]);
    check("^\\p{^Greek}[\\P{^Greek}]$", &["a\u{3b1}"], &["aa"]);
    check("^\\p{L}\\p{Nd}{2}$", &["a12"], &["a1"]);
    check("^\\p{Any}\\p{ASCII}$", &["\u{3b1}a"], &["a\u{3b1}"]);
    check("^[\\pL\\d]+$", &["a1"], &["-"]);
    for name in ["\\p{Latin1}", "\\p{Script=Greek}", "\\p{Emoji}", "\\p{}", "\\p{sc=Greek}"] {
        refuse(name, &format!("invalid character class range: `{name}`"));
    }
    refuse("\\p{L", "invalid character class range: `\\p{L`");
}

#[test]
fn escapes() {
    check("^\\x41\\x{42}\\103\\0$", &["ABC\0"], &["ABC"]);
    check("^\\07\\a$", &["\u{7}\u{7}"], &["7"]);
    check("^\\a\\f\\t\\n\\r\\v$", &["\u{7}\u{c}\t\n\r\u{b}"], &["aftnrv"]);
    check("\\<a\\>", &["<a>"], &["a"]);
    check("^\\/\\_\\-\\\"\\@\\%\\ \\#\\&\\~$", &["/_-\"@% #&~"], &["x"]);
    check("^\\Qa.b\\E$", &["a.b"], &["axb"]);
    check("^\\Qa+b\\E+$", &["a+bb"], &["aab"]);
    check("\\A\\Qa", &["a"], &["ba"]);
    check("a\\z", &["ba"], &["ab"]);
    // Halves of surrogate pairs are in no text.
    check("\\x{D800}", &[], &["\u{fffd}"]);
    check("^[\\x{D7FF}-\\x{E000}]$", &["\u{e000}", "\u{d7ff}"], &["a"]);
    check("[\\x{D800}]", &[], &["a"]);
    check("^[^\\x{DFFF}]$", &["a"], &[]);
    for escape in ["\\1", "\\8", "\\k", "\\h", "\\G", "\\Z", "\\C", "\\E", "\\u", "\\e", "\\c", "\\K", "\\R", "\\N", "\\\u{e9}"] {
        refuse(escape, &format!("invalid escape sequence: `{escape}`"));
    }
    for escape in ["\\x", "\\x{110000}", "\\x{}", "\\x{g}", "\\x4", "[\\x{110000}]", "[\\b]", "[a-\\d]"] {
        assert!(compile(escape).is_err(), "{escape}");
    }
    refuse("\\x{110000}", "invalid escape sequence: `\\x{110000`");
    refuse("\\x+1+", "invalid escape sequence: `\\x+1`");
    refuse("a\\", "trailing backslash at end of expression: ``");
}

#[test]
fn groups_and_flags() {
    check("^(?i)abc$", &["ABC"], &["abd"]);
    check("^(?i:a)b$", &["Ab"], &["AB"]);
    check("^(?i-s:A).$", &["ab"], &["b"]);
    check("^(?ii)a(?-i)b$", &["Ab"], &["AB"]);
    check("^(?i-i)a(?)$", &["a"], &["A"]);
    check("^a(?i)+b(?-i){2}$", &["aaBb"], &["Abb"]);
    check("^a{2}(?i)*b$", &["aaaaB"], &["aaab"]);
    check("^b+(?i)?A$", &["a", "bba"], &["c"]);
    check("^a{2}\\Q\\E*b$", &["aaaab", "b"], &["aaab"]);
    check("(?s)^.$", &["\n"], &[]);
    check("(?m)^a$", &["b\na"], &["ba"]);
    check("^(?U)a+$", &["aa"], &[]);
    check("^(?P<n>a)(?<m>b)(?P<1>c)$", &["abc"], &["ab"]);
    refuse("(?x)a b", "invalid or unsupported Perl syntax: `(?x`");
    refuse("(?R)a", "invalid or unsupported Perl syntax: `(?R`");
    refuse("(?=a)", "invalid or unsupported Perl syntax: `(?=`");
    refuse("(?i-:a)", "invalid or unsupported Perl syntax: `(?i-:`");
    check("^(?P<n>a)(?P<n>b)$", &["ab"], &["a"]);
    refuse("(?P<a-b>a)", "invalid named capture: `(?P<a-b>`");
    refuse("(?P<n", "invalid named capture: `(?P<n`");
    refuse("(", "missing closing ): `(`");
    refuse("(?i", "invalid or unsupported Perl syntax: `(?i`");
    refuse("a)", "unexpected ): `a)`");
    refuse("[a", "missing closing ]: `[a`");
    refuse("[z-a]", "invalid character class range: `z-a`");
    refuse("[a--b]", "invalid character class range: `a--`");
    refuse("[[:foo:]]", "invalid character class range: `[:foo:]`");
}

#[test]
fn repetitions() {
    refuse("a**", "invalid nested repetition operator: `**`");
    refuse("a++", "invalid nested repetition operator: `++`");
    refuse("a*??", "invalid nested repetition operator: `*??`");
    refuse("a{2}{3}", "invalid nested repetition operator: `{2}{3}`");
    refuse("*a", "missing argument to repetition operator: `*`");
    refuse("(|+)", "missing argument to repetition operator: `+`");
    refuse("a{1,1001}", "invalid repeat count: `{1,1001}`");
    refuse("a{99999999999}", "invalid repeat count: `{99999999999}`");
    refuse("a{3,2}", "invalid repeat count: `{3,2}`");
    refuse("(?:a{500}){3}", "invalid repeat count: `{3}`");
    refuse("((a{100})*b{2}){11}", "invalid repeat count: `{11}`");
    check("^(?:a{10}){2}$", &["aaaaaaaaaaaaaaaaaaaa"], &["aaaaaaaaaa"]);
    check("^a*?b+?c??$", &["aab"], &["a"]);
    check("^a{1000}$", &[&"a".repeat(1000)], &["a"]);
    // Large counts beside each other are no product.
    check("^(a{600}|b{600})$", &[&"b".repeat(600)], &["b"]);
}

/// An expression that other engines need exponential time for, and others that need much memory.
#[test]
fn time_and_memory_are_bounded() {
    check("^(a+)+$", &[], &[&format!("{}b", "a".repeat(100_000))]);
    let deep = format!("{}a{}", "(".repeat(5000), ")".repeat(5000));
    assert!(compile(&deep).unwrap_err().to_string().contains("nests too deeply"));
    let large = "(?i)\\pL{1000}";
    assert!(compile(large).unwrap_err().to_string().contains("too large"));
}
