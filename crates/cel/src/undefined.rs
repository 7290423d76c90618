//! What can be said of an expression before it runs: fields that what it speaks of never has.
//!
//! Shapes are followed through selections, elements, macros and bindings. Where nothing is known of a value, nothing is said of it.

use crate::ast::{Each, Expr};
use crate::value::{Shape, Value, unescape};

type Known<'a> = Option<&'a dyn Shape>;

/// The first field that is selected of a value which never has it.
pub(crate) fn field<'a>(root: &'a Expr, variables: &[(&'a str, &'a dyn Shape)]) -> Option<&'a str> {
    let scope = variables.iter().map(|(name, shape)| (*name, Some(*shape))).collect();
    let mut walk = Walk { scope, found: None };
    walk.shape(root);
    walk.found
}

struct Walk<'a> {
    /// Variables, the innermost last.
    scope: Vec<(&'a str, Known<'a>)>,
    found: Option<&'a str>,
}

impl<'a> Walk<'a> {
    /// What is known of a value; what is below is looked at on the way.
    fn shape(&mut self, expr: &'a Expr) -> Known<'a> {
        match expr {
            Expr::Variable(name) => {
                let known = self.scope.iter().rev().find(|(known, _)| *known == name.as_str());
                known.and_then(|(_, shape)| *shape)
            }
            Expr::Select { operand, field, .. } => self.select(operand, field),
            Expr::Has { operand, field } => {
                self.select(operand, field);
                None
            }
            Expr::Index { operand, index, .. } => {
                self.shape(index);
                let shape = self.shape(operand)?;
                match &**index {
                    Expr::Literal(Value::Text(key)) => shape.field(key),
                    _ => shape.element(),
                }
            }
            Expr::Each { each, range, variable, body } => {
                let range = self.shape(range);
                self.within(variable, range.and_then(|range| range.element()), body);
                range.filter(|_| *each == Each::Filter)
            }
            Expr::Bind { variable, value, body } => {
                let value = self.shape(value);
                self.within(variable, value, std::slice::from_ref(body))
            }
            Expr::OptionalMap { operand, variable, body, .. } => {
                let value = self.shape(operand);
                self.within(variable, value, std::slice::from_ref(body));
                None
            }
            other => {
                other.parts().into_iter().for_each(|part| {
                    self.shape(part);
                });
                None
            }
        }
    }

    fn select(&mut self, operand: &'a Expr, name: &'a str) -> Known<'a> {
        let shape = self.shape(operand)?;
        let found = shape.field(name).or_else(|| name.contains("__").then(|| shape.field(&unescape(name))).flatten());
        if found.is_none() && shape.lacks(&unescape(name)) {
            self.found.get_or_insert(name);
        }
        found
    }

    /// What is known of the last of these, in which a variable is declared.
    fn within(&mut self, variable: &'a str, shape: Known<'a>, body: &'a [impl std::borrow::Borrow<Expr>]) -> Known<'a> {
        self.scope.push((variable, shape));
        let last = body.iter().map(|one| self.shape(one.borrow())).last().flatten();
        self.scope.pop();
        last
    }
}
