//! Named expressions that others use, such as the variables of admission policies.

use crate::Program;
use crate::ast::Expr;
use crate::error::Error;
use crate::value::Value;

/// Named expressions, under one name: `variables.a` is the expression `a`. Each is evaluated once, when it is used first.
#[derive(Debug)]
pub struct Definitions<'a> {
    pub(crate) of: &'a str,
    programs: &'a [(String, Program)],
    pub(crate) known: Vec<Option<Result<Value<'a>, Error>>>,
}

impl<'a> Definitions<'a> {
    /// These expressions under the name `of`.
    pub fn new(of: &'a str, programs: &'a [(String, Program)]) -> Self {
        Self { of, programs, known: vec![None; programs.len()] }
    }

    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.programs.iter().position(|(known, _)| known == name)
    }

    /// Begins to evaluate one, which then may not use itself.
    pub(crate) fn begin(&mut self, at: usize) -> Result<&'a Expr, Error> {
        let (name, program) = self.programs.get(at).ok_or(Error::NoOverload)?;
        self.known[at] = Some(Err(Error::Other(format!("{}.{name} uses itself", self.of))));
        Ok(&program.root)
    }
}
