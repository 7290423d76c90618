//! The Common Expression Language (cel-spec), with the libraries that Kubernetes adds (`k8s.io/apiserver/pkg/cel/library`).
//!
//! [`Program::compile`] parses an expression once: names of variables and functions, and the numbers of their arguments, are checked
//! there. [`Program::check`] finds out the types of its parts, where something is declared of its variables, and what it can cost at most
//! ([`Checked::cost`]); values are JSON, so types are checked again when it runs. [`Program::evaluate`] walks the tree over borrowed values, and
//! stops when its [`Budget`] is used up. What is not there: protobuf messages.

mod ast;
mod authorization;
mod budget;
mod charge;
mod check;
mod cost;
mod definitions;
mod error;
mod evaluate;
mod functions;
mod lexer;
mod operators;
mod parse;
mod pattern;
pub mod re2;
mod resolve;
mod semver;
mod time;
mod types;
mod value;

pub use authorization::{Authorize, Decision, Question};
pub use budget::Budget;
pub use check::Variables;
pub use definitions::Definitions;
pub use error::{CompileError, Error};
pub use evaluate::Environment;
pub use types::{Declaration, Form, Type, escape};
pub use value::{Kind, NoJson, Shape, Value};

use std::sync::Arc;

use ast::Expr;

/// A compiled expression.
#[derive(Debug)]
pub struct Program {
    root: Expr,
}

impl Program {
    /// Compiles an expression that may use these variables.
    ///
    /// # Errors
    /// It is no expression, or uses what is not there.
    pub fn compile(source: &str, variables: &[&str]) -> Result<Self, CompileError> {
        let mut root = parse::parse(source)?;
        if resolve::resolve(&mut root, variables) {
            return Ok(Self { root });
        }
        let untyped: Vec<_> = variables.iter().map(|name| (*name, Type::Dyn)).collect();
        Err(CompileError::new(source, check::check(&root, &untyped).1))
    }

    /// Whether the expression uses a variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.root.uses(variable)
    }

    /// What the expression is with these variables.
    ///
    /// # Errors
    /// A key that is not there, a type that a function does not take, numbers that are too large, or a budget that is used up.
    pub fn evaluate<'a>(&'a self, variables: &[(&'a str, Value<'a>)], budget: &mut Budget) -> Result<Value<'a>, Error> {
        self.evaluate_in(Environment { variables, definitions: None, authorizer: None }, budget)
    }

    /// What the expression is in an environment.
    ///
    /// # Errors
    /// As [`Program::evaluate`].
    pub fn evaluate_in<'a>(&'a self, environment: Environment<'a, '_>, budget: &mut Budget) -> Result<Value<'a>, Error> {
        evaluate::evaluate(&self.root, environment, budget)
    }

    /// Finds out the types of the expression, whose text is `source`.
    ///
    /// # Errors
    /// It selects what is not declared, or calls functions with what they do not take.
    pub fn check(&self, source: &str, variables: &Variables<'_>) -> Result<Checked<'_>, CompileError> {
        let (types, issues) = check::check(&self.root, variables);
        if issues.is_empty() { Ok(Checked { root: &self.root, types }) } else { Err(CompileError::new(source, issues)) }
    }

    /// The fields that the expression selects of a variable.
    pub fn members(&self, variable: &str) -> Vec<&str> {
        let mut found = Vec::new();
        self.root.members(variable, &mut found);
        found
    }
}

/// Why an expression cannot be compiled, which [`Program::compile`] has refused: with all that its types are wrong in.
pub fn faults(source: &str, variables: &Variables<'_>) -> CompileError {
    let mut root = match parse::parse(source) {
        Ok(root) => root,
        Err(error) => return error,
    };
    let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
    resolve::resolve(&mut root, &names);
    CompileError::new(source, check::check(&root, variables).1)
}

/// An expression whose types are known.
pub struct Checked<'p> {
    root: &'p Expr,
    types: check::Types,
}

impl Checked<'_> {
    /// The type of what it is.
    pub fn ty(&self) -> Type {
        self.types.of(self.root)
    }

    /// The most that evaluating it can cost, where all variables are as it is declared.
    pub fn cost(&self, declared: &Arc<Declaration>) -> u64 {
        cost::cost(self.root, &self.types, declared)
    }
}

#[cfg(test)]
mod tests;
