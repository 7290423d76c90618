//! Macros: calls that stand for something else, expanded as upstream does it (cel-go, `parser/macro.go`, `cel/library.go`,
//! `ext/comprehensions.go` and `ext/lists.go`), so that types, costs and places of faults are the same. A call with another number of
//! arguments is no macro.

use super::{call, made};
use crate::ast::{Each, Expr, Node};
use crate::error::Issue;

/// Names that no text can have.
const TARGET: &str = "@target";
const SORTED: &str = "@sorted";

/// Where a macro is called, and how high the trees of its parts are.
pub(super) struct Expansion {
    pub(super) at: usize,
    pub(super) height: usize,
}

/// An expanded macro, or the parts of a call that is none.
type Expanded = Result<Expr, (Expr, Vec<Expr>)>;

impl Expansion {
    pub(super) fn expand(&mut self, name: &str, target: Expr, arguments: Vec<Expr>) -> Result<Expanded, Issue> {
        Ok(Ok(match (name, arguments.len()) {
            ("all", 2 | 3) => self.each(Each::All, target, arguments, 1)?,
            ("exists", 2 | 3) => self.each(Each::Exists, target, arguments, 1)?,
            ("exists_one" | "existsOne", 2 | 3) => self.each(Each::ExistsOne, target, arguments, 1)?,
            ("filter", 2) => self.each(Each::Filter, target, arguments, 1)?,
            ("map", 2 | 3) => {
                let bodies = arguments.len() - 1;
                self.each(Each::Map, target, arguments, bodies)?
            }
            ("transformList", 3 | 4) => self.transform(Each::Map, target, arguments)?,
            ("transformMap", 3 | 4) => self.transform(Each::TransformMap, target, arguments)?,
            ("transformMapEntry", 3 | 4) => self.transform(Each::TransformMapEntry, target, arguments)?,
            ("optMap", 2) => self.optional(target, arguments, false)?,
            ("optFlatMap", 2) => self.optional(target, arguments, true)?,
            ("sortBy", 2) => self.sort(target, arguments)?,
            _ => return Ok(Err((target, arguments))),
        }))
    }

    fn made(&self, node: Node) -> Expr {
        made(self.at, node)
    }

    fn variable(&self, name: &str) -> Expr {
        self.made(Node::Variable(name.to_owned()))
    }

    fn transform(&self, each: Each, target: Expr, arguments: Vec<Expr>) -> Result<Expr, Issue> {
        let bodies = arguments.len() - 2;
        self.each(each, target, arguments, bodies)
    }

    /// A macro over elements: the last arguments are evaluated for each, those before are its variables.
    fn each(&self, each: Each, range: Expr, mut arguments: Vec<Expr>, bodies: usize) -> Result<Expr, Issue> {
        let body = arguments.split_off(arguments.len() - bodies);
        let why = if matches!(each, Each::Filter | Each::Map) {
            "argument is not an identifier"
        } else {
            "argument must be a simple name"
        };
        let mut names = Vec::new();
        for argument in arguments {
            match argument.node {
                Node::Variable(name) if names.contains(&name) => {
                    return Err(Issue::new(argument.at as usize, format!("duplicate variable name: {name}")));
                }
                Node::Variable(name) => names.push(name),
                _ => return Err(Issue::new(argument.at as usize, why)),
            }
        }
        let mut names = names.into_iter();
        let (variable, second) = (names.next().unwrap_or_default(), names.next());
        Ok(self.made(Node::Each { each, range: Box::new(range), variable, second, body }))
    }

    /// `a.optMap(v, e)`: `a.hasValue() ? optional.of(e) : optional.none()`, where `v` is the value of `a`.
    fn optional(&mut self, target: Expr, mut arguments: Vec<Expr>, flat: bool) -> Result<Expr, Issue> {
        self.height += 4;
        let body = arguments.pop().map(Box::new);
        let (Some(variable), Some(body)) = (arguments.pop(), body) else { return Err(Issue::new(self.at, "no arguments")) };
        let Node::Variable(variable) = variable.node else {
            let name = if flat { "optFlatMap" } else { "optMap" };
            return Err(Issue::new(variable.at as usize, format!("{name}() variable name must be a simple identifier")));
        };
        let (name, own) = match target.node {
            Node::Variable(name) => (name, None),
            node => (TARGET.to_owned(), Some(Expr { at: target.at, node })),
        };
        let method = |method: &str| call(self.at, method, Some(self.variable(&name)), Vec::new());
        let made = self.made(Node::Bind { variable, value: Box::new(method("value")), body });
        let made = if flat { made } else { call(self.at, "optional.of", None, vec![made]) };
        let none = call(self.at, "optional.none", None, Vec::new());
        let found = self.made(Node::If(Box::new([method("hasValue"), made, none])));
        Ok(match own {
            Some(own) => self.made(Node::Bind { variable: name, value: Box::new(own), body: Box::new(found) }),
            None => found,
        })
    }

    /// `a.sortBy(v, e)`: the elements in the order of what `e` is for each.
    fn sort(&mut self, target: Expr, arguments: Vec<Expr>) -> Result<Expr, Issue> {
        self.height += 2;
        if matches!(target.node, Node::Literal(_)) {
            let why = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
            return Err(Issue::new(target.at as usize, why));
        }
        let keys = self.each(Each::Map, self.variable(SORTED), arguments, 1)?;
        let sorted = call(self.at, "@sortByAssociatedKeys", Some(self.variable(SORTED)), vec![keys]);
        Ok(self.made(Node::Bind { variable: SORTED.to_owned(), value: Box::new(target), body: Box::new(sorted) }))
    }
}
