//! The text form of label selectors, with upstream's grammar and messages.

use super::{Operator, Requirement, Selector};
use crate::field::{Error, Path};
use crate::names;
use std::collections::BTreeSet;

/// Why a selector cannot be parsed; the text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

impl From<String> for ParseError {
    fn from(text: String) -> Self {
        Self(text)
    }
}

const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Error,
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Identifier,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

fn keyword(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::Greater,
        "in" => Token::In,
        "<" => Token::Less,
        "!=" => Token::NotEquals,
        "notin" => Token::NotIn,
        "(" => Token::Open,
        _ => return None,
    })
}

fn is_special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Splits into tokens; the last is always [`Token::End`].
fn scan(mut rest: &str) -> Vec<(Token, &str)> {
    let mut out = Vec::new();
    loop {
        rest = rest.trim_start_matches(is_space);
        let Some(first) = rest.chars().next() else {
            out.push((Token::End, ""));
            return out;
        };
        let (token, len) = if is_special(first) {
            scan_special(rest)
        } else {
            let len = rest.find(|c| is_special(c) || is_space(c)).unwrap_or(rest.len());
            (keyword(&rest[..len]).unwrap_or(Token::Identifier), len)
        };
        out.push((token, &rest[..len]));
        rest = &rest[len..];
    }
}

/// The longest operator at the beginning. All special characters are ASCII and all but none are operators by themselves.
fn scan_special(rest: &str) -> (Token, usize) {
    match rest.get(..2).and_then(keyword) {
        Some(token @ (Token::DoubleEquals | Token::NotEquals)) => (token, 2),
        _ => (keyword(&rest[..1]).unwrap_or(Token::Error), 1),
    }
}

struct Parser<'a> {
    tokens: Vec<(Token, &'a str)>,
    position: usize,
}

impl<'a> Parser<'a> {
    fn raw(&self) -> (Token, &'a str) {
        self.tokens.get(self.position).copied().unwrap_or((Token::End, ""))
    }

    /// The next token where a value may stand: `in` and `notin` are identifiers there.
    fn peek(&self) -> (Token, &'a str) {
        match self.raw() {
            (Token::In | Token::NotIn, text) => (Token::Identifier, text),
            other => other,
        }
    }

    fn next(&mut self) -> (Token, &'a str) {
        let token = self.peek();
        self.position += 1;
        token
    }

    fn parse(&mut self) -> Result<Vec<Requirement>, String> {
        let mut out = Vec::new();
        loop {
            match self.peek() {
                (Token::Identifier | Token::Not, _) => {
                    out.push(self.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?);
                    match self.next() {
                        (Token::End, _) => return Ok(out),
                        (Token::Comma, _) => match self.peek() {
                            (Token::Identifier | Token::Not, _) => {}
                            (_, text) => return Err(format!("found '{text}', expected: identifier after ','")),
                        },
                        (_, text) => return Err(format!("found '{text}', expected: ',' or 'end of string'")),
                    }
                }
                (Token::End, _) => return Ok(out),
                (_, text) => return Err(format!("found '{text}', expected: !, identifier, or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (key, operator) = self.key()?;
        if let Some(operator) = operator {
            return Requirement::new(key, operator, Vec::new()).map_err(|e| e.to_string());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => self.exact_value()?,
        };
        Requirement::new(key, operator, values.into_iter().map(str::to_owned).collect()).map_err(|e| e.to_string())
    }

    /// The key, and the operator where it is clear already: `!key` and `key` alone.
    fn key(&mut self) -> Result<(&'a str, Option<Operator>), String> {
        let (mut token, mut text) = self.next();
        let negated = token == Token::Not;
        if negated {
            (token, text) = self.next();
        }
        if token != Token::Identifier {
            return Err(format!("found '{text}', expected: identifier"));
        }
        let messages = names::qualified_name(text);
        if !messages.is_empty() {
            return Err(Error::invalid(&Path::root(), text, messages.join("; ")).to_string());
        }
        let operator = match self.peek().0 {
            _ if negated => Some(Operator::DoesNotExist),
            Token::End | Token::Comma => Some(Operator::Exists),
            _ => None,
        };
        Ok((text, operator))
    }

    fn operator(&mut self) -> Result<Operator, String> {
        let (token, text) = self.raw();
        self.position += 1;
        Ok(match token {
            Token::In => Operator::In,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            Token::NotIn => Operator::NotIn,
            Token::NotEquals => Operator::NotEquals,
            _ => return Err(format!("found '{text}', expected: {OPERATORS}")),
        })
    }

    fn values(&mut self) -> Result<BTreeSet<&'a str>, String> {
        let (token, text) = self.next();
        if token != Token::Open {
            return Err(format!("found '{text}' expected: '('"));
        }
        let (token, text) = self.peek();
        match token {
            Token::Identifier | Token::Comma => {
                let values = self.identifiers()?;
                match self.next().0 {
                    Token::Close => Ok(values),
                    _ => Err(format!("found '{text}', expected: ')'")),
                }
            }
            Token::Close => {
                self.next();
                Ok(BTreeSet::from([""]))
            }
            _ => Err(format!("found '{text}', expected: ',', ')' or identifier")),
        }
    }

    /// Identifiers and commas; a missing identifier is the empty value.
    fn identifiers(&mut self) -> Result<BTreeSet<&'a str>, String> {
        let mut out = BTreeSet::new();
        loop {
            match self.next() {
                (Token::Identifier, text) => {
                    out.insert(text);
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(out),
                        (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    let next = self.peek().0;
                    if out.is_empty() || matches!(next, Token::Close | Token::Comma) {
                        out.insert("");
                    }
                    if next == Token::Close {
                        return Ok(out);
                    }
                }
                (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
    }

    fn exact_value(&mut self) -> Result<BTreeSet<&'a str>, String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(BTreeSet::from([""]));
        }
        match self.next() {
            (Token::Identifier, text) => Ok(BTreeSet::from([text])),
            (_, text) => Err(format!("found '{text}', expected: identifier")),
        }
    }
}

impl Selector {
    /// Parses text such as `app=web,tier in (a,b),!old,size>3`.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        // Upstream's scanner takes a NUL byte for the end of the text.
        let text = text.split('\0').next().unwrap_or_default();
        let mut parser = Parser { tokens: scan(text), position: 0 };
        Ok(Self::new(parser.parse()?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn check(input: &str, expected: Result<&str, &str>) {
        let got = Selector::parse(input).map(|s| s.to_string()).map_err(|e| e.to_string());
        match expected {
            Ok(text) => assert_eq!(got.as_deref(), Ok(text), "{input}"),
            Err(part) => assert!(got.as_ref().is_err_and(|e| e.starts_with(part)), "{input}: {got:?}"),
        }
    }

    #[test]
    fn parses() {
        check("", Ok(""));
        check("x=a,y=b,z=c", Ok("x=a,y=b,z=c"));
        check(" z = c , a == b", Ok("a==b,z=c"));
        check("x!=a,y=", Ok("x!=a,y="));
        check("x in (b,a),y notin (c)", Ok("x in (a,b),y notin (c)"));
        check("x in (),y in (,a)", Ok("x in (),y in (,a)"));
        check("x,!y", Ok("x,!y"));
        check("x>1,y<2", Ok("x>1,y<2"));
        check("in in (in),notin=notin", Ok("in in (in),notin=notin"));
        check("a.com/x in (a,,b)", Ok("a.com/x in (,a,b)"));
    }

    #[test]
    fn refuses() {
        check("x=a||y=b", Err("unable to parse requirement: values[0][x]: Invalid value: \"a||y\": a valid label must be"));
        check("x y", Err("unable to parse requirement: found 'y', expected: in, notin, =, ==, !=, gt, lt"));
        check(",x", Err("found ',', expected: !, identifier, or 'end of string'"));
        check("x,", Err("found '', expected: identifier after ','"));
        check("x=a b", Err("found 'b', expected: ',' or 'end of string'"));
        check("x in a", Err("unable to parse requirement: found 'a' expected: '('"));
        check("x in (a", Err("unable to parse requirement: found '', expected: ',' or ')'"));
        check("x<a", Err("unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators"));
        check("-x", Err("unable to parse requirement: <nil>: Invalid value: \"-x\": name part must consist"));
        check("!", Err("unable to parse requirement: found '', expected: identifier"));
        check("!x=a", Err("found '=', expected: ',' or 'end of string'"));
    }

    #[test]
    fn matches() {
        let labels: BTreeMap<String, String> = [("x", "a"), ("n", "5")].map(|(k, v)| (k.into(), v.into())).into();
        let check = |input: &str, expected| assert_eq!(Selector::parse(input).unwrap().matches(&labels), expected, "{input}");
        check("", true);
        check("x=a", true);
        check("x==b", false);
        check("x!=b,z!=c", true);
        check("x in (a,b)", true);
        check("x notin (a),z notin (a)", false);
        check("z notin (a)", true);
        check("x,!z", true);
        check("z", false);
        check("n>4,n<6", true);
        check("n>5", false);
        check("x>1", false);
        assert!(!Selector::nothing().matches(&labels));
        assert_eq!(Selector::parse("x in (a)").unwrap().exact("x"), Some("a"));
    }

    proptest! {
        #[test]
        fn text_round_trips(text in "[a-c]( in \\([ab](,[ab])?\\)|=[ab]?|!=a|>1|)(,![xy])?") {
            let once = Selector::parse(&text).unwrap();
            prop_assert_eq!(Selector::parse(&once.to_string()).unwrap(), once);
        }

        #[test]
        fn never_panics(text in ".*") {
            let _ = Selector::parse(&text);
        }

        #[test]
        fn never_panics_on_tokens(text in "([a-c ]|in|notin|[=!<>(),]){0,12}") {
            let _ = Selector::parse(&text);
        }
    }
}
