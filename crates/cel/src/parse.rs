//! From tokens to a tree, macros expanded. Which names there are is found out afterwards (`resolve.rs`).

mod macros;

use crate::ast::{Binary, Expr, Node, Unary};
use crate::error::{CompileError, Issue};
use crate::functions;
use crate::lexer::{RESERVED, Token, tokens};
use crate::value::Value;

/// How deep expressions may nest in brackets, how high their trees may be and how many parts they may have: what reads, runs and drops
/// them calls itself as often.
const MAX_DEPTH: usize = 50;
const MAX_HEIGHT: usize = 250;
const MAX_PARTS: usize = 20_000;

pub(crate) fn parse(source: &str) -> Result<Expr, CompileError> {
    read(source).map_err(|issue| CompileError::new(source, vec![issue]))
}

fn read(source: &str) -> Result<Expr, Issue> {
    let mut parser = Parser { tokens: tokens(source)?, at: 0, depth: 0, height: 0, parts: 0 };
    let root = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(root),
        _ => Err(parser.wrong("unexpected input behind the expression")),
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
    /// How high the tree is of what was read last.
    height: usize,
    parts: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)].1
    }

    fn wrong(&self, message: &str) -> Issue {
        Issue::new(self.here(), format!("Syntax error: {message}"))
    }

    /// Where the next token is.
    fn here(&self) -> usize {
        self.tokens[self.at.min(self.tokens.len() - 1)].0
    }

    fn advance(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(known) if *known == sign);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), Issue> {
        if self.take(sign) { Ok(()) } else { Err(self.wrong(&format!("expected '{sign}'"))) }
    }

    fn expression(&mut self) -> Result<Expr, Issue> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(too_large());
        }
        // Of a chain of conditions, each is in the last part of the one before.
        let mut before = Vec::new();
        let mut highest = 0;
        let mut out = loop {
            let condition = self.or()?;
            let at = self.here();
            if !self.take("?") {
                break condition;
            }
            highest = self.height.max(highest);
            let yes = self.or()?;
            highest = self.height.max(highest);
            self.expect(":")?;
            before.push((at, [condition, yes]));
            if before.len() > MAX_HEIGHT {
                return Err(too_large());
            }
        };
        if !before.is_empty() {
            self.grow(self.height.max(highest) + before.len() - 1)?;
        }
        for (at, [condition, yes]) in before.into_iter().rev() {
            out = made(at, Node::If(Box::new([condition, yes, out])));
        }
        self.depth -= 1;
        Ok(out)
    }

    /// What stands above something of this height was read.
    fn grow(&mut self, below: usize) -> Result<(), Issue> {
        self.height = below + 1;
        if self.height > MAX_HEIGHT { Err(too_large()) } else { Ok(()) }
    }

    fn or(&mut self) -> Result<Expr, Issue> {
        self.all("||", Self::and, Node::Or)
    }

    fn and(&mut self) -> Result<Expr, Issue> {
        self.all("&&", Self::relation, Node::And)
    }

    /// Parts between signs, in any number.
    fn all(
        &mut self,
        sign: &str,
        part: fn(&mut Self) -> Result<Expr, Issue>,
        join: fn(Box<Expr>, Box<Expr>) -> Node,
    ) -> Result<Expr, Issue> {
        let mut parts = vec![(0, part(self)?)];
        let mut height = self.height;
        loop {
            let at = self.here();
            if !self.take(sign) {
                break;
            }
            parts.push((at, part(self)?));
            height = self.height.max(height);
        }
        if parts.len() > 1 {
            self.grow(height + parts.len().ilog2() as usize)?;
        }
        Ok(balanced(parts, join))
    }

    fn relation(&mut self) -> Result<Expr, Issue> {
        let mut left = self.sum()?;
        loop {
            let operator = match self.peek() {
                Token::Sign("==") => Binary::Equal,
                Token::Sign("!=") => Binary::Unequal,
                Token::Sign("<") => Binary::Less,
                Token::Sign("<=") => Binary::LessOrEqual,
                Token::Sign(">") => Binary::Greater,
                Token::Sign(">=") => Binary::GreaterOrEqual,
                Token::Name(name) if name == "in" => Binary::In,
                _ => return Ok(left),
            };
            left = self.joined(operator, left, Self::sum)?;
        }
    }

    fn joined(&mut self, operator: Binary, left: Expr, next: fn(&mut Self) -> Result<Expr, Issue>) -> Result<Expr, Issue> {
        self.count()?;
        let (at, height) = (self.here(), self.height);
        self.at += 1;
        let right = next(self)?;
        self.grow(self.height.max(height))?;
        Ok(made(at, Node::Binary(operator, Box::new(left), Box::new(right))))
    }

    fn count(&mut self) -> Result<(), Issue> {
        self.parts += 1;
        if self.parts > MAX_PARTS { Err(too_large()) } else { Ok(()) }
    }

    fn sum(&mut self) -> Result<Expr, Issue> {
        let mut left = self.product()?;
        loop {
            let operator = match self.peek() {
                Token::Sign("+") => Binary::Add,
                Token::Sign("-") => Binary::Subtract,
                _ => return Ok(left),
            };
            left = self.joined(operator, left, Self::product)?;
        }
    }

    fn product(&mut self) -> Result<Expr, Issue> {
        let mut left = self.unary()?;
        loop {
            let operator = match self.peek() {
                Token::Sign("*") => Binary::Multiply,
                Token::Sign("/") => Binary::Divide,
                Token::Sign("%") => Binary::Modulo,
                _ => return Ok(left),
            };
            left = self.joined(operator, left, Self::unary)?;
        }
    }

    fn unary(&mut self) -> Result<Expr, Issue> {
        self.count()?;
        let begin = self.here();
        let (mut nots, mut minuses) = (0, 0);
        while self.take("!") {
            nots += 1;
        }
        while nots == 0 && self.take("-") {
            minuses += 1;
        }
        // The smallest number has no positive counterpart.
        if minuses % 2 == 1
            && let Token::Int(value) = *self.peek()
        {
            let negative = 0i64.checked_sub_unsigned(value).ok_or_else(|| self.wrong("invalid int literal"))?;
            (self.at, self.height) = (self.at + 1, 1);
            return self.members(made(begin, Node::Literal(Value::Int(negative))));
        }
        if minuses % 2 == 1
            && let Token::Double(value) = *self.peek()
        {
            (self.at, self.height) = (self.at + 1, 1);
            return self.members(made(begin, Node::Literal(Value::Double(-value))));
        }
        let operand = self.primary()?;
        let operand = self.members(operand)?;
        if nots + minuses > 0 {
            self.grow(self.height)?;
        }
        Ok(match (nots % 2, minuses % 2) {
            (1, _) => made(begin, Node::Unary(Unary::Not, Box::new(operand))),
            (_, 1) => made(begin, Node::Unary(Unary::Negate, Box::new(operand))),
            _ => operand,
        })
    }

    fn members(&mut self, mut operand: Expr) -> Result<Expr, Issue> {
        loop {
            self.count()?;
            let (at, height) = (self.here(), self.height);
            operand = if self.take(".?") {
                made(at, Node::Select { operand: Box::new(operand), field: self.name()?, optional: true })
            } else if self.take(".") {
                let (name, called) = (self.name()?, self.here());
                if self.take("(") { self.method(operand, &name, called)? } else { select(at, operand, name) }
            } else if let Some(path) = self.object_type(&operand) {
                self.object(path)?
            } else if self.take("[?") {
                self.index(at, operand, true)?
            } else if self.take("[") {
                self.index(at, operand, false)?
            } else {
                return Ok(operand);
            };
            self.grow(self.height.max(height))?;
        }
    }

    fn index(&mut self, at: usize, operand: Expr, optional: bool) -> Result<Expr, Issue> {
        let index = self.expression()?;
        self.expect("]")?;
        Ok(made(at, Node::Index { operand: Box::new(operand), index: Box::new(index), optional }))
    }

    fn name(&mut self) -> Result<String, Issue> {
        match self.advance() {
            Token::Name(name) => Ok(name),
            _ => Err(self.wrong("expected an identifier")),
        }
    }

    fn primary(&mut self) -> Result<Expr, Issue> {
        self.height = 1;
        let at = self.here();
        let node = match self.advance() {
            Token::Int(value) => {
                let value = i64::try_from(value).map_err(|_| self.wrong("invalid int literal"))?;
                Node::Literal(Value::Int(value))
            }
            Token::Uint(value) => Node::Literal(Value::Uint(value)),
            Token::Double(value) => Node::Literal(Value::Double(value)),
            Token::Text(text) => Node::Literal(Value::text(text)),
            Token::Bytes(bytes) => Node::Literal(Value::Bytes(bytes.into())),
            Token::Name(name) => return self.named(at, name),
            Token::Sign(".") => {
                let name = self.name()?;
                return self.named(at, name);
            }
            Token::Sign("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Sign("[") => self.list()?,
            Token::Sign("[?") => {
                // The first element is an optional one.
                self.at -= 1;
                self.tokens[self.at].1 = Token::Sign("?");
                self.list()?
            }
            Token::Sign("{") => self.map()?,
            Token::Sign("{?") => {
                self.at -= 1;
                self.tokens[self.at].1 = Token::Sign("?");
                self.map()?
            }
            _ => {
                self.at -= 1;
                return Err(self.wrong("unexpected token"));
            }
        };
        Ok(made(at, node))
    }

    fn list(&mut self) -> Result<Node, Issue> {
        let (mut items, mut height) = (Vec::new(), 0);
        while !self.take("]") {
            let optional = self.take("?");
            items.push((self.expression()?, optional));
            height = self.height.max(height);
            if !self.take(",") {
                self.expect("]")?;
                break;
            }
        }
        self.grow(height)?;
        Ok(Node::List(items))
    }

    fn map(&mut self) -> Result<Node, Issue> {
        let (mut entries, mut height) = (Vec::new(), 0);
        while !self.take("}") {
            let optional = self.take("?");
            let key = self.expression()?;
            height = self.height.max(height);
            self.expect(":")?;
            entries.push((key, self.expression()?, optional));
            height = self.height.max(height);
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        self.grow(height)?;
        Ok(Node::Map(entries))
    }

    /// The name of an object's type, where one follows: `Object`, one of its fields' types such as `Object.spec`, or `JSONPatch`.
    fn object_type(&self, operand: &Expr) -> Option<String> {
        if !matches!(self.peek(), Token::Sign("{" | "{?")) {
            return None;
        }
        let name = qualified(operand)?;
        (name == "Object" || name == "JSONPatch" || name.starts_with("Object.")).then_some(name)
    }

    /// The fields of an object.
    fn object(&mut self, path: String) -> Result<Expr, Issue> {
        let at = self.here();
        if !self.take("{") {
            // The first field is an optional one.
            self.tokens[self.at].1 = Token::Sign("?");
        }
        let (mut fields, mut height): (Vec<(String, Expr, bool)>, _) = (Vec::new(), 0);
        while !self.take("}") {
            let optional = self.take("?");
            let name = self.name()?;
            self.expect(":")?;
            let value = self.expression()?;
            height = self.height.max(height);
            self.check_field(&path, &name, &value)?;
            if fields.iter().any(|(known, ..)| *known == name) {
                return Err(self.wrong(&format!("duplicate field '{name}'")));
            }
            fields.push((name, value, optional));
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        self.height = height;
        Ok(made(at, Node::Object { path, fields }))
    }

    /// The type of an object that is the value of a field has the name of that field.
    fn check_field(&self, path: &str, name: &str, value: &Expr) -> Result<(), Issue> {
        if path == "JSONPatch" {
            return match name {
                "op" | "path" | "from" | "value" => Ok(()),
                _ => Err(self.wrong(&format!("undefined field '{name}'"))),
            };
        }
        match &value.node {
            Node::Object { path: own, .. } if *own != format!("{path}.{name}") => {
                let why = format!(
                    "unexpected type name \"{own}\", expected \"{path}.{name}\", which matches field name path from root Object type"
                );
                Err(self.wrong(&why))
            }
            Node::List(items) => items.iter().try_for_each(|(item, _)| self.check_field(path, name, item)),
            _ => Ok(()),
        }
    }

    fn named(&mut self, at: usize, name: String) -> Result<Expr, Issue> {
        match name.as_str() {
            "true" => return Ok(made(at, Node::Literal(Value::Bool(true)))),
            "false" => return Ok(made(at, Node::Literal(Value::Bool(false)))),
            "null" => return Ok(made(at, Node::Literal(Value::Null))),
            reserved if RESERVED.contains(&reserved) => return Err(self.wrong(&format!("reserved identifier: {reserved}"))),
            _ => {}
        }
        let called = self.here();
        if !self.take("(") {
            return Ok(made(at, Node::Variable(name)));
        }
        let mut arguments = self.arguments()?;
        self.grow(self.height)?;
        if name == "has" && arguments.len() == 1 {
            let argument = arguments.remove(0);
            return match argument.node {
                Node::Select { operand, field, optional: false } => Ok(made(called, Node::Has { operand, field })),
                _ => Err(Issue::new(argument.at as usize, "invalid argument to has() macro")),
            };
        }
        Ok(call(called, &name, None, arguments))
    }

    /// The height afterwards is that of the highest.
    fn arguments(&mut self) -> Result<Vec<Expr>, Issue> {
        let (mut out, mut height) = (Vec::new(), 0);
        while !self.take(")") {
            out.push(self.expression()?);
            height = self.height.max(height);
            if !self.take(",") {
                self.expect(")")?;
                break;
            }
        }
        self.height = height;
        Ok(out)
    }

    fn method(&mut self, operand: Expr, name: &str, at: usize) -> Result<Expr, Issue> {
        let arguments = self.arguments()?;
        let mut expansion = macros::Expansion { at, height: self.height };
        let expanded = expansion.expand(name, operand, arguments)?;
        self.height = expansion.height;
        Ok(match expanded {
            Ok(expanded) => expanded,
            Err((operand, arguments)) => call(at, name, Some(operand), arguments),
        })
    }
}

fn select(at: usize, operand: Expr, field: String) -> Expr {
    made(at, Node::Select { operand: Box::new(operand), field, optional: false })
}

/// A call, whose target may be the namespace of a function: `math` in `math.least(1, 2)`.
fn call(at: usize, name: &str, target: Option<Expr>, mut arguments: Vec<Expr>) -> Expr {
    if let Some(function) = target.as_ref().and_then(qualified).map(|prefix| format!("{prefix}.{name}"))
        && functions::is_known(&function)
    {
        return call(at, &function, None, arguments);
    }
    let method = target.is_some();
    match functions::find(name, arguments.len() + usize::from(method), method) {
        Some(function) => {
            arguments.splice(0..0, target);
            made(at, Node::Call { function, arguments, method })
        }
        None => made(at, Node::Unknown { name: name.to_owned(), target: target.map(Box::new), arguments }),
    }
}

/// `a.b.c`, where an expression is that.
pub(crate) fn qualified(expr: &Expr) -> Option<String> {
    let mut names = Vec::new();
    let mut first = expr;
    while let Node::Select { operand, field, optional: false } = &first.node {
        names.push(field.as_str());
        first = operand;
    }
    let Node::Variable(root) = &first.node else { return None };
    names.push(root);
    names.reverse();
    Some(names.join("."))
}

/// Joins parts in a tree that is as flat as can be: rules are long, and what runs them has only so much stack. Each part comes with
/// the place of the sign before it.
fn balanced(mut parts: Vec<(usize, Expr)>, join: fn(Box<Expr>, Box<Expr>) -> Node) -> Expr {
    if parts.len() > 1 {
        let right = parts.split_off(parts.len().div_ceil(2));
        let at = right[0].0;
        return made(at, join(Box::new(balanced(parts, join)), Box::new(balanced(right, join))));
    }
    parts.pop().map_or_else(|| made(0, Node::Literal(Value::Null)), |(_, part)| part)
}

fn made(at: usize, node: Node) -> Expr {
    // Expressions are parts of bodies, which are a few megabytes at most.
    Expr { at: u32::try_from(at).unwrap_or(u32::MAX), node }
}

fn too_large() -> Issue {
    Issue::new(0, "the expression is too large or nests too deep")
}
