//! Expressions as trees. Macros are nodes of their own.

use crate::functions::Function;
use crate::value::Value;

/// An expression, and where it stands in the text.
#[derive(Debug)]
pub(crate) struct Expr {
    /// Of an operator or a call its sign or bracket, as upstream reports it.
    pub(crate) at: u32,
    pub(crate) node: Node,
}

/// What an expression is.
#[derive(Debug)]
pub(crate) enum Node {
    Literal(Value<'static>),
    Variable(String),
    /// `a.b`; `a.?b` when `optional`.
    Select {
        operand: Box<Expr>,
        field: String,
        optional: bool,
    },
    /// `has(a.b)`.
    Has {
        operand: Box<Expr>,
        field: String,
    },
    /// `a[b]`; `a[?b]` when `optional`.
    Index {
        operand: Box<Expr>,
        index: Box<Expr>,
        optional: bool,
    },
    /// A function; the target of a method is its first argument.
    Call {
        function: &'static Function,
        arguments: Vec<Expr>,
        /// The first argument is its target.
        method: bool,
    },
    Unary(Unary, Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    If(Box<[Expr; 3]>),
    /// Elements, and whether they are left out when they are `none`.
    List(Vec<(Expr, bool)>),
    Map(Vec<(Expr, Expr, bool)>),
    /// `Object.spec{replicas: 1}`: an object of the type that is written before it.
    Object {
        path: String,
        fields: Vec<(String, Expr, bool)>,
    },
    /// A macro over the elements of a list or the keys of a map.
    Each {
        each: Each,
        range: Box<Expr>,
        variable: String,
        body: Vec<Expr>,
    },
    /// `cel.bind`, and the macros of optional values.
    Bind {
        variable: String,
        value: Box<Expr>,
        body: Box<Expr>,
    },
    /// `a.optMap(v, e)`, `a.optFlatMap(v, e)`.
    OptionalMap {
        operand: Box<Expr>,
        variable: String,
        body: Box<Expr>,
        flat: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unary {
    Not,
    Negate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Each {
    All,
    Exists,
    ExistsOne,
    Filter,
    /// With two bodies, the first one filters.
    Map,
}

impl Expr {
    /// The fields that are selected of a variable, such as `a` in `variables.a`.
    pub(crate) fn members<'e>(&'e self, of: &str, found: &mut Vec<&'e str>) {
        if let Node::Select { operand, field, .. } | Node::Has { operand, field } = &self.node
            && matches!(&operand.node, Node::Variable(name) if name == of)
        {
            found.push(field);
        }
        self.parts().into_iter().for_each(|part| part.members(of, found));
    }

    /// The expressions that it is made of.
    pub(crate) fn parts(&self) -> Vec<&Self> {
        match &self.node {
            Node::Literal(_) | Node::Variable(_) => Vec::new(),
            Node::Select { operand, .. } | Node::Has { operand, .. } | Node::Unary(_, operand) => vec![operand],
            Node::Index { operand: a, index: b, .. } | Node::Binary(_, a, b) | Node::And(a, b) | Node::Or(a, b) => vec![a, b],
            Node::Call { arguments, .. } => arguments.iter().collect(),
            Node::If(parts) => parts.iter().collect(),
            Node::List(items) => items.iter().map(|(item, _)| item).collect(),
            Node::Map(entries) => entries.iter().flat_map(|(key, value, _)| [key, value]).collect(),
            Node::Object { fields, .. } => fields.iter().map(|(_, value, _)| value).collect(),
            Node::Each { range, body, .. } => std::iter::once(&**range).chain(body).collect(),
            Node::Bind { value: first, body, .. } | Node::OptionalMap { operand: first, body, .. } => vec![first, body],
        }
    }

    /// Whether it uses a variable.
    pub(crate) fn uses(&self, name: &str) -> bool {
        match &self.node {
            Node::Literal(_) => false,
            Node::Object { fields, .. } => fields.iter().any(|(_, value, _)| value.uses(name)),
            Node::Variable(variable) => variable == name,
            Node::Select { operand, .. } | Node::Has { operand, .. } | Node::Unary(_, operand) => operand.uses(name),
            Node::Index { operand: a, index: b, .. } | Node::Binary(_, a, b) | Node::And(a, b) | Node::Or(a, b) => {
                a.uses(name) || b.uses(name)
            }
            Node::Call { arguments, .. } => arguments.iter().any(|one| one.uses(name)),
            Node::If(parts) => parts.iter().any(|one| one.uses(name)),
            Node::List(items) => items.iter().any(|(one, _)| one.uses(name)),
            Node::Map(entries) => entries.iter().any(|(key, value, _)| key.uses(name) || value.uses(name)),
            Node::Each { range, variable, body, .. } => {
                range.uses(name) || variable != name && body.iter().any(|one| one.uses(name))
            }
            Node::Bind { variable, value: first, body } | Node::OptionalMap { operand: first, variable, body, .. } => {
                first.uses(name) || variable != name && body.uses(name)
            }
        }
    }
}
