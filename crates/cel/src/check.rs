//! The types of an expression's parts (cel-spec, "Gradual type checking"), by what is declared of its variables. Types of literals and of what
//! functions give are found out; what is not known is `dyn` and left to the evaluation.

mod macros;
mod overloads;
pub(crate) mod signatures;
mod unify;
mod validators;

use std::collections::HashMap;

use crate::ast::{Binary, Expr, Node, Unary};
use crate::error::Issue;
use crate::types::{Declaration, Type};
use crate::value::{Kind, Value};
use signatures::Signature;
use unify::Unifier;

/// The variables of an expression, and their types. A name may have dots.
pub type Variables<'a> = [(&'a str, Type)];

/// Where an expression is in memory: it stays there as long as its program does.
pub(crate) fn place(expr: &Expr) -> usize {
    std::ptr::from_ref(expr) as usize
}

/// What is known of an expression.
pub(crate) struct Types {
    types: HashMap<usize, Type>,
    pub(crate) overloads: HashMap<usize, Vec<&'static Signature>>,
    /// The types of parts of objects, by their names.
    objects: HashMap<String, Type>,
    unifier: Unifier,
}

impl Types {
    /// The type of a part of the expression.
    pub(crate) fn of(&self, expr: &Expr) -> Type {
        self.types.get(&place(expr)).map_or(Type::Dyn, |ty| self.unifier.resolved(ty))
    }
}

/// Finds the types of an expression and of its parts.
pub(crate) fn check(root: &Expr, variables: &Variables<'_>) -> (Types, Vec<Issue>) {
    let types = Types { types: HashMap::new(), overloads: HashMap::new(), objects: HashMap::new(), unifier: Unifier::default() };
    let mut checker = Checker { variables, scope: Vec::new(), types, issues: Vec::new() };
    checker.ty(root);
    let mut issues = checker.issues;
    if issues.is_empty() {
        issues = validators::validate(root, &checker.types);
    }
    (checker.types, issues)
}

struct Checker<'a> {
    variables: &'a Variables<'a>,
    /// Variables of macros around, the innermost last.
    scope: Vec<(&'a str, Type)>,
    types: Types,
    issues: Vec<Issue>,
}

impl<'a> Checker<'a> {
    fn ty(&mut self, expr: &'a Expr) -> Type {
        let found = self.find(expr);
        let found = self.types.unifier.capped(found);
        self.types.types.insert(place(expr), found.clone());
        found
    }

    fn issue(&mut self, expr: &Expr, message: String) {
        self.issues.push(Issue::new(expr.at as usize, message));
    }

    fn find(&mut self, expr: &'a Expr) -> Type {
        match &expr.node {
            Node::Literal(value) => literal(value),
            Node::Variable(name) => match self.variable(name) {
                Some(ty) => ty,
                None => self.undeclared(expr, name),
            },
            Node::Select { operand, field, optional } => match self.qualified(expr) {
                Some(ty) => ty,
                None => self.select(expr, operand, field, *optional),
            },
            Node::Has { operand, field } => {
                self.select(expr, operand, field, false);
                Type::Bool
            }
            Node::Index { operand, index, optional } => {
                let arguments = [self.ty(operand), self.ty(index)];
                self.call(expr, if *optional { "_[?_]" } else { "_[_]" }, false, &arguments)
            }
            Node::Call { function, arguments, method } => {
                let types: Vec<Type> = arguments.iter().map(|argument| self.ty(argument)).collect();
                self.call(expr, function.name, *method, &types)
            }
            Node::Unknown { name, target, arguments } => {
                let types: Vec<Type> = target.iter().map(|target| &**target).chain(arguments).map(|one| self.ty(one)).collect();
                self.unknown(expr, name, target.is_some(), &types)
            }
            Node::Unary(operator, operand) => {
                let ty = self.ty(operand);
                let name = if *operator == Unary::Not { "!_" } else { "-_" };
                self.call(expr, name, false, &[ty])
            }
            Node::Binary(operator, left, right) => {
                let arguments = [self.ty(left), self.ty(right)];
                self.call(expr, operator_name(*operator), false, &arguments)
            }
            Node::And(left, right) | Node::Or(left, right) => {
                let types = [self.ty(left), self.ty(right)];
                self.junction([(left, &types[0]), (right, &types[1])])
            }
            Node::If(parts) => {
                let types: Vec<Type> = parts.iter().map(|part| self.ty(part)).collect();
                self.call(expr, "_?_:_", false, &types)
            }
            Node::List(items) => {
                let mut element = None;
                for (item, optional) in items {
                    element = Some(self.joined(item, *optional, element));
                }
                Type::list(element.unwrap_or_else(|| self.types.unifier.fresh()))
            }
            Node::Map(entries) => {
                let (mut key_type, mut value_type) = (None, None);
                for (key, value, optional) in entries {
                    key_type = Some(self.joined(key, false, key_type));
                    value_type = Some(self.joined(value, *optional, value_type));
                }
                let mut or_fresh = |ty: Option<Type>| ty.unwrap_or_else(|| self.types.unifier.fresh());
                let (key, value) = (or_fresh(key_type), or_fresh(value_type));
                Type::map(key, value)
            }
            Node::Object { path, fields } => self.object(path, fields),
            Node::Each { each, range, variable, second, body } => {
                self.each(expr, *each, range, (variable, second.as_deref()), body)
            }
            Node::Bind { variable, value, body } => {
                let ty = self.ty(value);
                self.scope.push((variable, ty));
                let found = self.ty(body);
                self.scope.pop();
                found
            }
        }
    }

    /// The type of an object is its name. The fields of configurations are checked when they are applied, those of patches here.
    fn object(&mut self, path: &str, fields: &'a [(String, Expr, bool)]) -> Type {
        for (name, value, optional) in fields {
            let own = match self.ty(value) {
                Type::Optional(inner) if *optional => Type::clone(&inner),
                own => own,
            };
            if path == "JSONPatch" && name != "value" && !self.types.unifier.assignable(&Type::String, &own) {
                self.issue(value, format!("expected type of field '{name}' is 'string' but provided type is '{own}'"));
            }
        }
        match path {
            "Object" => Type::Opaque("Object"),
            "JSONPatch" => Type::Opaque("JSONPatch"),
            path => {
                let made = || Declaration::object(path, []).ty();
                self.types.objects.entry(path.to_owned()).or_insert_with(made).clone()
            }
        }
    }

    fn variable(&self, name: &str) -> Option<Type> {
        let bound = self.scope.iter().rev().find(|(known, _)| *known == name);
        bound.or_else(|| self.variables.iter().find(|(known, _)| *known == name)).map(|(_, ty)| ty.clone())
    }

    fn undeclared(&mut self, expr: &Expr, name: &str) -> Type {
        self.issue(expr, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    /// The type of a variable whose name has dots.
    fn qualified(&self, expr: &Expr) -> Option<Type> {
        let name = crate::parse::qualified(expr)?;
        let root = name.split('.').next().unwrap_or_default();
        if root.len() == name.len() || self.scope.iter().any(|(known, _)| *known == root) {
            return None;
        }
        self.variables.iter().find(|(known, _)| *known == name).map(|(_, ty)| ty.clone())
    }

    fn select(&mut self, expr: &'a Expr, operand: &'a Expr, field: &str, optional: bool) -> Type {
        let operand = self.ty(operand);
        let operand = self.types.unifier.shallow(&operand);
        let (target, wrapped) = match &operand {
            Type::Optional(inner) => (self.types.unifier.shallow(inner), true),
            _ => (operand, false),
        };
        let found = match &target {
            Type::Map(pair) => pair[1].clone(),
            Type::Object(declaration) => match declaration.field(field) {
                Some(field) => field.ty(),
                None => {
                    self.issue(expr, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Variable(_) => {
                // Nothing more particular may become of it later.
                self.types.unifier.assignable(&Type::Dyn, &target);
                Type::Dyn
            }
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                self.issue(expr, format!("type '{}' does not support field selection", self.types.unifier.resolved(other)));
                Type::Dyn
            }
        };
        if wrapped || optional { Type::optional(found) } else { found }
    }

    /// The type of elements when one more comes to those before.
    fn joined(&mut self, expr: &'a Expr, optional: bool, before: Option<Type>) -> Type {
        let mut own = self.ty(expr);
        if optional {
            own = match self.types.unifier.shallow(&own) {
                Type::Optional(inner) => Type::clone(&inner),
                Type::Dyn => Type::Dyn,
                other => {
                    self.issue(expr, format!("expected type 'optional_type({other})' but found '{other}'"));
                    other
                }
            };
        }
        let Some(before) = before else { return own };
        // Whether all are of one type is looked at when all types are known.
        match self.types.unifier.assignable(&before, &own) {
            true => self.types.unifier.most_general(&before, &own),
            false => Type::Dyn,
        }
    }
}

pub(crate) fn operator_name(operator: Binary) -> &'static str {
    match operator {
        Binary::Add => "_+_",
        Binary::Subtract => "_-_",
        Binary::Multiply => "_*_",
        Binary::Divide => "_/_",
        Binary::Modulo => "_%_",
        Binary::Equal => "_==_",
        Binary::Unequal => "_!=_",
        Binary::Less => "_<_",
        Binary::LessOrEqual => "_<=_",
        Binary::Greater => "_>_",
        Binary::GreaterOrEqual => "_>=_",
        Binary::In => "@in",
    }
}

fn literal(value: &Value<'_>) -> Type {
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Uint(_) => Type::Uint,
        Value::Double(_) => Type::Double,
        Value::Text(_) => Type::String,
        Value::Bytes(_) => Type::Bytes,
        Value::Type(kind) => Type::Type(named(*kind).into()),
        _ => Type::Dyn,
    }
}

/// The type that an identifier names.
fn named(kind: Kind) -> Type {
    match kind.0 {
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "double" => Type::Double,
        "int" => Type::Int,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "null_type" => Type::Null,
        "string" => Type::String,
        "uint" => Type::Uint,
        "google.protobuf.Duration" => Type::Duration,
        "google.protobuf.Timestamp" => Type::Timestamp,
        _ => Type::Dyn,
    }
}

#[cfg(test)]
mod tests;
