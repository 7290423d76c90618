//! What an expression can cost at most, by how large its variables can be (cel-go, `checker/cost.go`;
//! `k8s.io/apiserver/pkg/cel/library/cost.go`). Definitions are accepted and refused by it, so it is upstream's to the unit.

mod functions;
mod macros;

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::{Expr, Node};
use crate::check::{Types, operator_name, place};
use crate::types::{Declaration, Type};
use crate::value::Value;

const LIST: u64 = 10;
const MAP: u64 = 30;
const OBJECT: u64 = 40;
/// Of a variable, and of a selection.
const STEP: u64 = 1;
const TRAVERSAL: f64 = 0.1;

/// How many characters, bytes, elements or entries there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    least: u64,
    most: u64,
}

const UNKNOWN: Size = Size { least: 0, most: u64::MAX };

impl Size {
    fn exactly(size: u64) -> Self {
        Self { least: size, most: size }
    }

    fn plus(self, other: Self) -> Self {
        Self { least: self.least.saturating_add(other.least), most: self.most.saturating_add(other.most) }
    }

    fn times(self, other: Self) -> Self {
        Self { least: self.least.saturating_mul(other.least), most: self.most.saturating_mul(other.most) }
    }

    fn or(self, other: Self) -> Self {
        Self { least: self.least.min(other.least), most: self.most.max(other.most) }
    }

    /// The most that it costs to go through it.
    fn scaled(self, factor: f64) -> u64 {
        scaled(self.most, factor)
    }
}

/// A number times a factor, rounded up.
fn scaled(size: u64, factor: f64) -> u64 {
    // Casts saturate.
    (size as f64 * factor).ceil() as u64
}

/// The sizes of what is in a container: of keys or positions, and of values.
#[derive(Clone, Copy, Debug)]
struct Entries {
    is_list: bool,
    key: Size,
    value: Size,
}

impl Entries {
    fn or(self, other: Self) -> Self {
        Self { is_list: self.is_list, key: self.key.or(other.key), value: self.value.or(other.value) }
    }
}

/// Where a value stands in what is declared.
#[derive(Clone, Debug)]
enum Path {
    /// Nowhere: an expression has made it.
    None,
    /// Somewhere that nothing is declared of.
    Lost,
    At(Arc<Declaration>),
}

impl Path {
    fn size(&self) -> Option<Size> {
        match self {
            Self::At(here) => Some(Size { least: 0, most: here.most }),
            Self::None | Self::Lost => None,
        }
    }
}

/// A variable of a macro.
struct Local<'a> {
    name: &'a str,
    path: Path,
    size: Option<Size>,
    entries: Option<Entries>,
}

/// The most that an expression costs, whose variables are all as `root` declares.
pub(crate) fn cost(root: &Expr, types: &Types, declared: &Arc<Declaration>) -> u64 {
    let mut coster = Coster {
        types,
        root: declared,
        locals: Vec::new(),
        paths: HashMap::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
    };
    coster.cost(root)
}

struct Coster<'a> {
    types: &'a Types,
    root: &'a Arc<Declaration>,
    locals: Vec<Local<'a>>,
    paths: HashMap<usize, Path>,
    sizes: HashMap<usize, Size>,
    entries: HashMap<usize, Entries>,
}

impl<'a> Coster<'a> {
    fn cost(&mut self, expr: &'a Expr) -> u64 {
        match &expr.node {
            Node::Literal(Value::Type(_)) => {
                self.paths.insert(place(expr), Path::At(self.root.clone()));
                STEP
            }
            Node::Literal(_) => 0,
            Node::Variable(name) => {
                let local = self.locals.iter().rev().find(|local| local.name == name);
                let path = local.map_or_else(|| Path::At(self.root.clone()), |local| local.path.clone());
                self.paths.insert(place(expr), path);
                STEP
            }
            Node::Select { operand, field, optional: false } => {
                let below = self.cost(operand);
                let path = self.step(operand, |here| here.field(field));
                self.paths.insert(place(expr), path);
                let counts = matches!(self.types.of(operand), Type::Map(_) | Type::Object(_) | Type::Variable(_));
                below.saturating_add(if counts { STEP } else { 0 })
            }
            Node::Has { operand, .. } => self.cost(operand),
            Node::Select { operand, optional: true, .. } => self.cost(operand).saturating_add(1),
            Node::Index { operand, index, optional } => self.index(expr, operand, index, *optional),
            Node::Call { function, arguments, .. } if function.name == "dyn" => {
                let below = arguments.iter().fold(0, |sum: u64, one| sum.saturating_add(self.cost(one)));
                if let Some(argument) = arguments.first() {
                    self.copy_sizes(expr, argument);
                }
                below.saturating_add(1)
            }
            Node::Call { function, arguments, method } => {
                let below = arguments.iter().fold(0, |sum: u64, one| sum.saturating_add(self.cost(one)));
                let arguments: Vec<&Expr> = arguments.iter().collect();
                self.called(expr, function.name, *method, &arguments, below)
            }
            // Nothing costs anything that cannot be evaluated.
            Node::Unknown { .. } => 0,
            Node::Unary(_, operand) => self.cost(operand).saturating_add(1),
            Node::Binary(operator, left, right) => {
                let below = self.cost(left).saturating_add(self.cost(right));
                self.called(expr, operator_name(*operator), false, &[left, right], below)
            }
            Node::And(left, right) | Node::Or(left, right) => self.cost(left).saturating_add(self.cost(right)),
            Node::If(parts) => self.conditional(expr, parts),
            Node::List(items) => {
                let mut sum = LIST;
                let mut value = Size { least: if items.is_empty() { 0 } else { u64::MAX }, most: 0 };
                for (item, _) in items {
                    sum = sum.saturating_add(self.cost(item));
                    value = value.or(self.size_or_unknown(item));
                }
                self.entries.insert(place(expr), Entries { is_list: true, key: Size::exactly(1), value });
                sum
            }
            Node::Map(items) => {
                let mut sum = MAP;
                let none = Size { least: if items.is_empty() { 0 } else { u64::MAX }, most: 0 };
                let mut entries = Entries { is_list: false, key: none, value: none };
                for (key, value, _) in items {
                    sum = sum.saturating_add(self.cost(key)).saturating_add(self.cost(value));
                    entries.key = entries.key.or(self.size_or_unknown(key));
                    entries.value = entries.value.or(self.size_or_unknown(value));
                }
                self.entries.insert(place(expr), entries);
                sum
            }
            Node::Object { fields, .. } => fields.iter().fold(OBJECT, |sum, (_, value, _)| sum.saturating_add(self.cost(value))),
            Node::Each { each, range, variable, second, body } => {
                self.each(expr, *each, range, (variable, second.as_deref()), body)
            }
            Node::Bind { variable, value, body } => {
                let sum = LIST.saturating_add(self.cost(value));
                let sum = sum.saturating_add(self.within(variable, value, body));
                self.copy_sizes(expr, body);
                sum
            }
        }
    }

    fn index(&mut self, expr: &'a Expr, operand: &'a Expr, index: &'a Expr, optional: bool) -> u64 {
        let sum = self.cost(operand).saturating_add(self.cost(index)).saturating_add(1);
        if !optional {
            if matches!(self.types.of(operand), Type::List(_) | Type::Map(_) | Type::Dyn) {
                let path = self.step(operand, Declaration::element);
                self.paths.insert(place(expr), path);
            }
            if let Some(size) = self.entries_of(operand).map(|entries| entries.value).or_else(|| self.size(expr)) {
                self.sizes.insert(place(expr), size);
            }
        }
        sum
    }

    fn conditional(&mut self, expr: &'a Expr, parts: &'a [Expr; 3]) -> u64 {
        let [condition, yes, no] = parts;
        let sum = self.cost(condition);
        let (of_yes, of_no) = (self.cost(yes), self.cost(no));
        let size = self.size_or_unknown(yes).or(self.size_or_unknown(no));
        self.sizes.insert(place(expr), size);
        if let (Some(yes), Some(no)) = (self.entries_of(yes), self.entries_of(no)) {
            self.entries.insert(place(expr), yes.or(no));
        }
        sum.saturating_add(of_yes.max(of_no))
    }

    /// A call of a function by which an argument is looked at may cost more than the arguments.
    fn called(&mut self, expr: &'a Expr, name: &'static str, method: bool, arguments: &[&'a Expr], below: u64) -> u64 {
        let types = self.types;
        let (mut own, mut result): (Option<u64>, Option<Size>) = (None, None);
        let fitting = types.overloads.get(&place(expr)).map(Vec::as_slice).unwrap_or_default();
        for signature in fitting {
            let (cost, size) = self.function(expr, name, signature, method, arguments);
            own = own.max(Some(cost));
            result = match (result, size) {
                (Some(a), Some(b)) => Some(Size::or(a, b)),
                (a, b) => a.or(b),
            };
        }
        if let Some(size) = result.or_else(|| self.size(expr)) {
            self.sizes.insert(place(expr), size);
        }
        below.saturating_add(own.unwrap_or(1))
    }

    /// The cost of an expression in which a variable has the value of another one.
    fn within(&mut self, name: &'a str, value: &'a Expr, body: &'a Expr) -> u64 {
        let local = Local { name, path: self.path(value), size: self.size(value), entries: self.entries_of(value) };
        self.with(local, |coster| coster.cost(body))
    }

    fn with<T>(&mut self, local: Local<'a>, run: impl FnOnce(&mut Self) -> T) -> T {
        self.locals.push(local);
        let out = run(self);
        self.locals.pop();
        out
    }

    /// Where a part of a value stands. Parts of what an expression has made count as the root, as upstream counts them.
    fn step(&self, of: &Expr, next: impl FnOnce(&Declaration) -> Option<&Arc<Declaration>>) -> Path {
        match self.path(of) {
            Path::None => Path::At(self.root.clone()),
            Path::Lost => Path::Lost,
            Path::At(here) => next(&here).map_or(Path::Lost, |found| Path::At(found.clone())),
        }
    }

    fn path(&self, expr: &Expr) -> Path {
        self.paths.get(&place(expr)).cloned().unwrap_or(Path::None)
    }

    fn copy_sizes(&mut self, to: &'a Expr, from: &'a Expr) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(place(to), size);
        }
        if let Some(entries) = self.entries_of(from) {
            self.entries.insert(place(to), entries);
        }
    }

    /// How large the value of an expression is, as far as that is known.
    fn size(&self, expr: &Expr) -> Option<Size> {
        if let Some(known) = self.sizes.get(&place(expr)) {
            return Some(*known);
        }
        if let Some(size) = literal_size(expr) {
            return Some(Size::exactly(size));
        }
        let declared = self.path(expr).size();
        declared.or_else(|| self.types.of(expr).is_scalar().then(|| Size::exactly(1))).or_else(|| match &expr.node {
            Node::Variable(name) => self.locals.iter().rev().find(|local| local.name == name)?.size,
            _ => None,
        })
    }

    fn size_or_unknown(&self, expr: &Expr) -> Size {
        self.size(expr).unwrap_or(UNKNOWN)
    }

    fn entries_of(&self, expr: &Expr) -> Option<Entries> {
        self.entries.get(&place(expr)).copied().or_else(|| match &expr.node {
            Node::Variable(name) => self.locals.iter().rev().find(|local| local.name == name)?.entries,
            _ => None,
        })
    }
}

/// A key of a map, whose length upstream does not count.
static KEY: std::sync::LazyLock<Arc<Declaration>> = std::sync::LazyLock::new(|| Declaration::plain(Type::String));

/// The size of what stands in the expression itself.
fn literal_size(expr: &Expr) -> Option<u64> {
    let size = match &expr.node {
        Node::Literal(Value::Text(text)) => text.chars().count(),
        Node::Literal(Value::Bytes(bytes)) => bytes.len(),
        Node::Literal(Value::Type(_)) => return None,
        Node::Literal(_) => 1,
        Node::List(items) => items.len(),
        Node::Map(entries) => entries.len(),
        _ => return None,
    };
    Some(size as u64)
}
