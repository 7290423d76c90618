//! What is looked at once all types are known (cel-go, `cel/validator.go` and `ext/formatting.go`): literals that functions read, elements of
//! different types, and what texts are made of.

use super::Types;
use crate::ast::{Expr, Node};
use crate::error::Issue;
use crate::functions::formatting::{self, Clause, Piece};
use crate::types::Type;
use crate::value::Value;

pub(super) fn validate(root: &Expr, types: &Types) -> Vec<Issue> {
    let mut validator = Validator { types, issues: Vec::new() };
    validator.walk(root, false);
    validator.issues
}

struct Validator<'a> {
    types: &'a Types,
    issues: Vec<Issue>,
}

impl Validator<'_> {
    /// `mixed` says that literals may have elements of any types, as those have that texts are made of.
    fn walk(&mut self, expr: &Expr, mixed: bool) {
        let mut mixed = mixed;
        match &expr.node {
            Node::Call { function, arguments, method } => {
                let (target, rest) = arguments.split_at(usize::from(*method).min(arguments.len()));
                self.literal(function.name, rest);
                if let ("format", [target], [list]) = (function.name, target, rest) {
                    mixed = true;
                    self.format(expr, target, list);
                }
            }
            Node::List(items) if !mixed => self.list(items),
            Node::Map(entries) if !mixed => self.map(entries),
            _ => {}
        }
        expr.parts().into_iter().for_each(|part| self.walk(part, mixed));
    }

    fn issue(&mut self, expr: &Expr, message: String) {
        self.issues.push(Issue::new(expr.at as usize, message));
    }

    /// Literals that functions read: what is none is known before.
    fn literal(&mut self, function: &str, arguments: &[Expr]) {
        let Some((first, Node::Literal(Value::Text(text)))) = arguments.first().map(|first| (first, &first.node)) else { return };
        let good = match function {
            "duration" => crate::time::parse_duration(text).is_some(),
            "timestamp" => text.parse::<jiff::Timestamp>().is_ok(),
            "matches" => crate::pattern::compile(text).is_ok(),
            _ => true,
        };
        if !good {
            self.issue(first, format!("invalid {function} argument"));
        }
    }

    /// The type of an element, of an optional one that of its value.
    fn element(&self, expr: &Expr, optional: bool) -> Type {
        match self.types.of(expr) {
            Type::Optional(inner) if optional => Type::clone(&inner),
            ty => ty,
        }
    }

    fn unlike(&mut self, expr: &Expr, expected: &Type, found: &Type) -> bool {
        let unlike = expected != found;
        if unlike {
            self.issue(expr, format!("expected type '{expected}' but found '{found}'"));
        }
        unlike
    }

    fn list(&mut self, items: &[(Expr, bool)]) {
        let Some(((first, optional), rest)) = items.split_first() else { return };
        let expected = self.element(first, *optional);
        for (item, optional) in rest {
            let found = self.element(item, *optional);
            if self.unlike(item, &expected, &found) {
                return;
            }
        }
    }

    fn map(&mut self, entries: &[(Expr, Expr, bool)]) {
        let Some(((key, value, optional), rest)) = entries.split_first() else { return };
        let expected = (self.types.of(key), self.element(value, *optional));
        for (key, value, optional) in rest {
            let found = (self.types.of(key), self.element(value, *optional));
            self.unlike(key, &expected.0, &found.0);
            self.unlike(value, &expected.1, &found.1);
        }
    }

    /// What stands in the text is what there are values for, and of their types.
    fn format(&mut self, expr: &Expr, target: &Expr, list: &Expr) {
        let (Node::Literal(Value::Text(pattern)), Node::List(items)) = (&target.node, &list.node) else { return };
        let mut used = 0;
        for piece in formatting::pieces(pattern, items.len()) {
            match piece {
                Ok(Piece::Text(_)) => {}
                Ok(Piece::Clause(clause, index)) => {
                    used = index + 1;
                    let Some((item, _)) = items.get(index) else { continue };
                    if let Some((at, found)) = self.unfit(clause, item) {
                        return self.issue(at, format!("error during formatting: {}", clause.refusal(&found)));
                    }
                }
                Err(why) => return self.issue(expr, why),
            }
        }
        if items.len() > used {
            let message = format!("too many arguments supplied to string.format (expected {used}, got {})", items.len());
            self.issue(expr, message);
        }
    }

    /// The part of a value that a clause does not take, and the name of its type.
    fn unfit<'e>(&self, clause: Clause, item: &'e Expr) -> Option<(&'e Expr, String)> {
        let ty = self.types.of(item);
        if ty != Type::Dyn && !clause.takes(ty.kind_name()) {
            return Some((item, ty.kind_name().to_owned()));
        }
        if clause != Clause::Text {
            return None;
        }
        match &item.node {
            Node::List(items) => items.iter().find_map(|(inner, _)| self.unfit(clause, inner)),
            Node::Map(entries) => {
                entries.iter().flat_map(|(key, value, _)| [key, value]).find_map(|inner| self.unfit(clause, inner))
            }
            _ => None,
        }
    }
}
