//! Which names of an expression there are: variables, functions, and types that are named like variables.

use crate::ast::{Expr, Node};
use crate::parse::qualified;
use crate::value::{Kind, Value};

/// Puts types in the place of their names. Whether everything else that it names is there, too.
pub(crate) fn resolve(root: &mut Expr, variables: &[&str]) -> bool {
    let mut resolver = Resolver { variables, bound: Vec::new(), complete: true };
    resolver.walk(root);
    resolver.complete
}

struct Resolver<'a> {
    variables: &'a [&'a str],
    /// Variables of macros around.
    bound: Vec<String>,
    complete: bool,
}

impl Resolver<'_> {
    fn is_declared(&self, name: &str) -> bool {
        self.bound.iter().any(|bound| bound == name) || self.variables.contains(&name)
    }

    fn walk(&mut self, expr: &mut Expr) {
        match &expr.node {
            Node::Variable(name) if !self.is_declared(name) => match Kind::named(name) {
                Some(kind) => expr.node = Node::Literal(Value::Type(kind)),
                None => self.complete = false,
            },
            Node::Select { field, optional: false, .. } if matches!(field.as_str(), "Duration" | "Timestamp") => {
                if let Some(kind) =
                    qualified(expr).filter(|name| !self.is_declared(root_of(name))).and_then(|name| Kind::named(&name))
                {
                    expr.node = Node::Literal(Value::Type(kind));
                    return;
                }
            }
            Node::Unknown { .. } => self.complete = false,
            _ => {}
        }
        let before = self.bound.len();
        let bound: Vec<String> = expr.binds().map(str::to_owned).collect();
        for (index, part) in expr.parts_mut().into_iter().enumerate() {
            // The first part is what the variables are made of.
            if index == 1 {
                self.bound.extend(bound.iter().cloned());
            }
            self.walk(part);
        }
        self.bound.truncate(before);
    }
}

fn root_of(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}
