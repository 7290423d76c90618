//! The types of macros over elements, as those of the loops that upstream makes of them: each step has the type of what the loop begins with.

use super::Checker;
use crate::ast::{Each, Expr};
use crate::types::Type;

impl<'a> Checker<'a> {
    pub(super) fn each(
        &mut self,
        expr: &'a Expr,
        each: Each,
        range: &'a Expr,
        (first, second): (&'a str, Option<&'a str>),
        body: &'a [Expr],
    ) -> Type {
        let of_range = self.ty(range);
        let begin = self.begin(each);
        let (key, value) = self.parts_of(range, &of_range);
        let own = match second {
            Some(second) => {
                self.scope.extend([(first, key.clone()), (second, value)]);
                key
            }
            None => {
                let is_list = matches!(self.types.unifier.shallow(&of_range), Type::List(_));
                let own = if is_list { value } else { key };
                self.scope.push((first, own.clone()));
                own
            }
        };
        let types: Vec<Type> = body.iter().map(|one| self.ty(one)).collect();
        self.scope.truncate(self.scope.len() - 1 - usize::from(second.is_some()));
        let step = self.round(expr, each, body, &types, &begin, own);
        if !self.types.unifier.assignable(&begin, &step) {
            self.issue(expr, format!("expected type '{begin}' but found '{step}'"));
        }
        if each == Each::ExistsOne { Type::Bool } else { self.types.unifier.substituted(&begin) }
    }

    /// The type of what a loop begins with.
    fn begin(&mut self, each: Each) -> Type {
        match each {
            Each::All | Each::Exists => Type::Bool,
            Each::ExistsOne => Type::Int,
            Each::Filter | Each::Map => Type::list(self.types.unifier.fresh()),
            Each::TransformMap | Each::TransformMapEntry => {
                let key = self.types.unifier.fresh();
                Type::map(key, self.types.unifier.fresh())
            }
        }
    }

    /// The types of positions or keys, and of what is there.
    fn parts_of(&mut self, range: &'a Expr, ty: &Type) -> (Type, Type) {
        match self.types.unifier.substituted(ty) {
            Type::List(element) => (Type::Int, Type::clone(&element)),
            Type::Map(pair) => (pair[0].clone(), pair[1].clone()),
            open @ (Type::Dyn | Type::Error | Type::Variable(_)) => {
                // Nothing more particular may become of it later.
                self.types.unifier.assignable(&Type::Dyn, &open);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message =
                    format!("expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)");
                self.issue(range, message);
                (Type::Error, Type::Error)
            }
        }
    }

    /// The type of a step of the loop.
    fn round(&mut self, expr: &'a Expr, each: Each, body: &'a [Expr], types: &[Type], begin: &Type, own: Type) -> Type {
        let (condition, made) = match types {
            [condition, made] => (Some(condition), made),
            [one, ..] => (None, one),
            [] => return Type::Error,
        };
        let made = made.clone();
        let (condition, next) = match each {
            Each::All | Each::Exists => return self.junction([(expr, &Type::Bool), (body.last().unwrap_or(expr), &made)]),
            Each::ExistsOne => (Some(made), Type::Int),
            Each::Filter => (Some(made), self.test(expr, "_+_", &[begin.clone(), Type::list(own)])),
            Each::Map => (condition.cloned(), self.test(expr, "_+_", &[begin.clone(), Type::list(made)])),
            Each::TransformMap => (condition.cloned(), self.test(expr, "cel.@mapInsert", &[begin.clone(), own, made])),
            Each::TransformMapEntry => (condition.cloned(), self.test(expr, "cel.@mapInsert", &[begin.clone(), made])),
        };
        match condition {
            Some(condition) => self.test(expr, "_?_:_", &[condition, next, begin.clone()]),
            None => next,
        }
    }
}
