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
    /// A call of what is no function, or of a function in a way that it is not called. Only what looks for faults keeps it.
    Unknown {
        name: String,
        target: Option<Box<Expr>>,
        arguments: Vec<Expr>,
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
    /// A macro over the elements of a list or the keys of a map; with `second` over positions or keys, and what is there.
    Each {
        each: Each,
        range: Box<Expr>,
        variable: String,
        second: Option<String>,
        body: Vec<Expr>,
    },
    /// A variable inside of an expression, by which macros keep what they use twice.
    Bind {
        variable: String,
        value: Box<Expr>,
        body: Box<Expr>,
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
    /// With two bodies, the first one filters; so of those below.
    Map,
    TransformMap,
    TransformMapEntry,
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
            Node::Unknown { target, arguments, .. } => target.iter().map(|target| &**target).chain(arguments).collect(),
            Node::If(parts) => parts.iter().collect(),
            Node::List(items) => items.iter().map(|(item, _)| item).collect(),
            Node::Map(entries) => entries.iter().flat_map(|(key, value, _)| [key, value]).collect(),
            Node::Object { fields, .. } => fields.iter().map(|(_, value, _)| value).collect(),
            Node::Each { range, body, .. } => std::iter::once(&**range).chain(body).collect(),
            Node::Bind { value, body, .. } => vec![value, body],
        }
    }

    /// The same, to be changed.
    pub(crate) fn parts_mut(&mut self) -> Vec<&mut Self> {
        match &mut self.node {
            Node::Literal(_) | Node::Variable(_) => Vec::new(),
            Node::Select { operand, .. } | Node::Has { operand, .. } | Node::Unary(_, operand) => vec![operand],
            Node::Index { operand: a, index: b, .. } | Node::Binary(_, a, b) | Node::And(a, b) | Node::Or(a, b) => vec![a, b],
            Node::Call { arguments, .. } => arguments.iter_mut().collect(),
            Node::Unknown { target, arguments, .. } => target.iter_mut().map(|target| &mut **target).chain(arguments).collect(),
            Node::If(parts) => parts.iter_mut().collect(),
            Node::List(items) => items.iter_mut().map(|(item, _)| item).collect(),
            Node::Map(entries) => entries.iter_mut().flat_map(|(key, value, _)| [key, value]).collect(),
            Node::Object { fields, .. } => fields.iter_mut().map(|(_, value, _)| value).collect(),
            Node::Each { range, body, .. } => std::iter::once(&mut **range).chain(body).collect(),
            Node::Bind { value, body, .. } => vec![value, body],
        }
    }

    /// The variables that its parts have beyond its own, but for the first part.
    pub(crate) fn binds(&self) -> impl Iterator<Item = &str> {
        let (first, second) = match &self.node {
            Node::Each { variable, second, .. } => (Some(variable), second.as_ref()),
            Node::Bind { variable, .. } => (Some(variable), None),
            _ => (None, None),
        };
        first.into_iter().chain(second).map(String::as_str)
    }

    /// Whether it uses a variable.
    pub(crate) fn uses(&self, name: &str) -> bool {
        if matches!(&self.node, Node::Variable(variable) if variable == name) {
            return true;
        }
        let hidden = self.binds().any(|bound| bound == name);
        self.parts().into_iter().enumerate().any(|(index, part)| !(hidden && index > 0) && part.uses(name))
    }
}
