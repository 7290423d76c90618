//! Which of the ways to call a function fit the types of its arguments.

use super::signatures::{self, Signature};
use super::{Checker, place};
use crate::ast::Expr;
use crate::functions;
use crate::types::Type;

impl Checker<'_> {
    /// The type of a call. What the table does not have may take and give anything.
    pub(super) fn call(&mut self, expr: &Expr, name: &'static str, method: bool, arguments: &[Type]) -> Type {
        match self.fitting(name, method, arguments) {
            Some((result, fitting)) => {
                self.types.overloads.insert(place(expr), fitting);
                result
            }
            None => self.unfit(expr, name, method, arguments),
        }
    }

    /// The type of a call of what is no function, or is called in another way.
    pub(super) fn unknown(&mut self, expr: &Expr, name: &str, method: bool, arguments: &[Type]) -> Type {
        if functions::is_known(name) {
            return self.unfit(expr, name, method, arguments);
        }
        self.undeclared(expr, name)
    }

    /// The type of `&&` and `||`, whose operands are told of one by one.
    pub(super) fn junction(&mut self, operands: [(&Expr, &Type); 2]) -> Type {
        let mut found = Type::Bool;
        for (operand, ty) in operands {
            if !self.types.unifier.assignable(ty, &Type::Bool) {
                self.issue(operand, format!("expected type 'bool' but found '{ty}'"));
                found = Type::Error;
            }
        }
        found
    }

    /// The type of a call that a macro makes.
    pub(super) fn test(&mut self, expr: &Expr, name: &'static str, arguments: &[Type]) -> Type {
        match self.fitting(name, false, arguments) {
            Some((result, _)) => result,
            None => self.unfit(expr, name, false, arguments),
        }
    }

    /// The type, and the ways. If several fit that give different types, anything may come of it.
    fn fitting(&mut self, name: &str, method: bool, arguments: &[Type]) -> Option<(Type, Vec<&'static Signature>)> {
        let all = signatures::of(name);
        if all.is_empty() {
            return Some((Type::Dyn, Vec::new()));
        }
        let (mut result, mut fitting): (Option<Type>, _) = (None, Vec::new());
        for signature in all.iter().filter(|one| one.method == method) {
            let unifier = &mut self.types.unifier;
            let base = unifier.reserve(signature.variables);
            if signature.arguments.len() != arguments.len() {
                continue;
            }
            let wanted: Vec<Type> = signature.arguments.iter().map(|ty| shifted(ty, base)).collect();
            if !unifier.all_assignable(arguments, &wanted) {
                continue;
            }
            let found = unifier.substituted(&shifted(&signature.result, base));
            result = Some(match result {
                Some(known) if known == found => known,
                Some(_) => Type::Dyn,
                None => found,
            });
            fitting.push(signature);
        }
        result.map(|result| (result, fitting))
    }

    fn unfit(&mut self, expr: &Expr, name: &str, method: bool, arguments: &[Type]) -> Type {
        let shown: Vec<String> = arguments.iter().map(|ty| self.types.unifier.resolved(ty).to_string()).collect();
        let shown = match (method, shown.as_slice()) {
            (true, [target, rest @ ..]) => format!("{target}.({})", rest.join(", ")),
            (_, all) => format!("({})", all.join(", ")),
        };
        self.issue(expr, format!("found no matching overload for '{name}' applied to '{shown}'"));
        Type::Error
    }
}

/// A type of a signature, whose letters are new variables.
fn shifted(ty: &Type, base: u32) -> Type {
    match ty {
        Type::Variable(letter) => Type::Variable(base + letter),
        other => other.with(|inner| shifted(inner, base)),
    }
}
