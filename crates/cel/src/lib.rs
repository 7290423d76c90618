//! The Common Expression Language (cel-spec), with the libraries that Kubernetes adds (`k8s.io/apiserver/pkg/cel/library`).
//!
//! [`Program::compile`] parses an expression once: names of variables and functions, and the numbers of their arguments, are checked
//! there; types are checked when it runs, since values are JSON, but for fields that are not declared
//! ([`Program::undefined_field`]). [`Program::evaluate`] walks the tree over borrowed values, and
//! stops when its [`Budget`] is used up. What is not there: protobuf messages, comprehensions with two variables.

mod ast;
mod authorization;
mod definitions;
mod error;
mod evaluate;
mod functions;
mod lexer;
mod parse;
mod pattern;
mod time;
mod undefined;
mod value;

pub use authorization::{Authorize, Decision, Question};
pub use definitions::Definitions;
pub use error::{CompileError, Error};
pub use evaluate::{Budget, Environment};
pub use value::{Kind, Shape, Value};

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
        parse::parse(source, variables).map(|root| Self { root })
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

    /// The first field that the expression selects of a value which never has it, as far as the shapes of the variables tell.
    pub fn undefined_field<'a>(&'a self, variables: &[(&'a str, &'a dyn Shape)]) -> Option<&'a str> {
        undefined::field(&self.root, variables)
    }

    /// The fields that the expression selects of a variable.
    pub fn members(&self, variable: &str) -> Vec<&str> {
        let mut found = Vec::new();
        self.root.members(variable, &mut found);
        found
    }
}

#[cfg(test)]
mod tests;
