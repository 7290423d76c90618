//! Rules in CEL, `x-kubernetes-validations` (upstream: `schema/cel`).

use apimachinery::field::{Error, ErrorKind, Errors, Path};
use cel::{Budget, Program, Shape};
use serde_json::Value;

use crate::node::{Kind, List, Node};
use crate::rule::Rule;
use crate::timing::timed;

/// What one rule may cost, and all rules of one object.
const CALL_LIMIT: u64 = 1_000_000;
pub(crate) const OBJECT_LIMIT: u64 = 10_000_000;
/// Characters of a message that an expression makes.
const MAX_MESSAGE: usize = 5 << 10;

/// Asks the rules of an object that is right otherwise; `found` is what is wrong with it already.
pub(crate) fn validate(node: &Node, object: &Value, old: Option<&Value>, found: &mut Errors) {
    if !node.has_rules {
        return;
    }
    let blocks = |error: &Error| {
        let kinds =
            [ErrorKind::NotSupported, ErrorKind::Required, ErrorKind::TooLong, ErrorKind::TooMany, ErrorKind::TypeInvalid];
        kinds.contains(&error.kind)
    };
    if found.iter().any(blocks) {
        let detail = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        return found.push(Error::invalid(&Path::new("<nil>"), Value::Null, detail));
    }
    found.extend(ask(node, object, old, &Path::root(), &mut { OBJECT_LIMIT }));
}

/// Asks the rules of a new value that stands at a path. `left` is what they may still cost.
pub(crate) fn validate_at(node: &Node, value: &Value, path: &Path, left: &mut u64) -> Errors {
    ask(node, value, None, path, left)
}

fn ask(node: &Node, value: &Value, old: Option<&Value>, path: &Path, left: &mut u64) -> Errors {
    let mut walk = Walk { errors: Errors::new(), left: *left };
    // Without budget the rest is not looked at.
    let _ = walk.node(node, value, Place { path, old, nearest: old.map(|old| (value, old)) });
    *left = walk.left;
    walk.errors
}

/// The rest of the rules is not asked.
struct Over;

struct Walk {
    errors: Errors,
    left: u64,
}

#[derive(Clone, Copy)]
struct Place<'v, 'p> {
    path: &'p Path,
    /// The value that was there before.
    old: Option<&'v Value>,
    /// The nearest value around that is known to be the same as one before, both of them.
    nearest: Option<(&'v Value, &'v Value)>,
}

impl<'v> Place<'v, '_> {
    fn below<'p>(self, path: &'p Path, value: &'v Value, old: Option<&'v Value>) -> Place<'v, 'p> {
        Place { path, old, nearest: old.map(|old| (value, old)).or(self.nearest) }
    }
}

impl Walk {
    fn node<'v>(&mut self, node: &Node, value: &'v Value, at: Place<'v, '_>) -> Result<(), Over> {
        if !node.has_rules || value.is_null() {
            return Ok(());
        }
        timed(|timing| timing.evaluated, || self.rules(node, value, at))
    }

    fn rules<'v>(&mut self, node: &Node, value: &'v Value, at: Place<'v, '_>) -> Result<(), Over> {
        for rule in &node.rules {
            self.rule(rule, node, value, at)?;
        }
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let Some(child) = node.field(key).filter(|child| child.has_rules) else { continue };
                    let path = if node.properties.contains_key(key) { at.path.child(key) } else { at.path.key(key) };
                    let old = at.old.and_then(|old| old.get(key));
                    self.node(child, value, at.below(&path, value, old))?;
                }
            }
            Value::Array(items) => {
                let Some(child) = node.items.as_deref().filter(|child| child.has_rules) else { return Ok(()) };
                let before = keyed(&node.list, at.old);
                for (index, item) in items.iter().enumerate() {
                    let old = before.as_ref().and_then(|(keys, before)| before.get(&key(keys, item)).copied());
                    self.node(child, item, at.below(&at.path.index(index), item, old))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rule(&mut self, rule: &Rule, node: &Node, value: &Value, at: Place<'_, '_>) -> Result<(), Over> {
        if rule.uses_old && at.old.is_none() && !rule.optional_old {
            return Ok(());
        }
        let program = match &rule.program {
            Ok(program) => program,
            Err(why) => {
                self.say(node, at.path, format!("rule compile error: {why}"));
                return Ok(());
            }
        };
        if self.left == 0 {
            return self.exhausted(node, at.path);
        }
        match self.evaluate(program, rule, node, value, at) {
            Ok(cel::Value::Bool(true)) => Ok(()),
            Ok(_) => {
                self.broken(rule, node, value, at);
                Ok(())
            }
            Err(cel::Error::Budget) if self.left == 0 => self.exhausted(node, at.path),
            Err(cel::Error::Budget) => {
                let why = "no further validation rules will be run due to call cost exceeds limit for rule";
                self.say(node, at.path, format!("'{}': {why}: {}", cel::Error::Budget, rule.shown()));
                Err(Over)
            }
            Err(cel::Error::NoOverload) => {
                let why = "call arguments did not match a supported operator, function or macro signature for rule";
                self.say(node, at.path, format!("'{}': {why}: {}", cel::Error::NoOverload, rule.shown()));
                Ok(())
            }
            Err(error) => {
                self.say(node, at.path, format!("{error} evaluating rule: {}", rule.shown()));
                Ok(())
            }
        }
    }

    fn exhausted(&mut self, node: &Node, path: &Path) -> Result<(), Over> {
        let detail = "validation failed due to running out of cost budget, no further validation rules will be run";
        self.say(node, path, detail.to_owned());
        Err(Over)
    }

    fn say(&mut self, node: &Node, path: &Path, detail: String) {
        self.errors.push(Error::invalid(path, node.kind.as_str(), detail));
    }

    fn evaluate<'a>(
        &mut self,
        program: &'a Program,
        rule: &Rule,
        node: &'a Node,
        value: &'a Value,
        at: Place<'a, '_>,
    ) -> Result<cel::Value<'a>, cel::Error> {
        let limit = self.left.min(CALL_LIMIT);
        let mut budget = Budget::new(limit);
        let old = at.old.map(|old| cel::Value::of(old, Some(node)));
        let old = match rule.optional_old {
            true => Some(old.map_or(cel::Value::Optional(None), cel::Value::some)),
            false => old,
        };
        let mut variables = vec![("self", cel::Value::of(value, Some(node)))];
        variables.extend(old.map(|old| ("oldSelf", old)));
        let result = program.evaluate(&variables, &mut budget);
        self.left -= limit - budget.left();
        result
    }

    /// A rule is broken. What was as wrong before is let be, but for rules about changes.
    fn broken(&mut self, rule: &Rule, node: &Node, value: &Value, at: Place<'_, '_>) {
        if !rule.uses_old && at.nearest.is_some_and(|(new, old)| new == old) {
            return;
        }
        let made = rule.message_expression.as_ref().and_then(|made| made.as_ref().ok());
        let made = made.and_then(|program| self.evaluate(program, rule, node, value, at).ok());
        let made = made
            .as_ref()
            .and_then(cel::Value::as_text)
            .map(str::trim)
            .filter(|text| !text.is_empty() && text.chars().count() <= MAX_MESSAGE && !text.contains(['\n', '\r']));
        let detail = match made {
            Some(text) => text.to_owned(),
            None if rule.message.is_empty() => format!("failed rule: {}", rule.source),
            None => rule.message.clone(),
        };
        let path = if rule.field.is_empty() { at.path.clone() } else { at.path.child(&rule.field) };
        let shown =
            !matches!(node.kind, Kind::Object | Kind::Array) && matches!(rule.kind, ErrorKind::Invalid | ErrorKind::Duplicate);
        let value = shown.then(|| value.clone());
        self.errors.push(Error { kind: rule.kind, value, ..Error::invalid(&path, Value::Null, detail) });
    }
}

/// The elements that were there before, by their keys; none where elements cannot be told apart.
fn keyed<'a, 'v>(list: &'a List, old: Option<&'v Value>) -> Option<(&'a [String], std::collections::HashMap<String, &'v Value>)> {
    match (list, old.and_then(Value::as_array)) {
        (List::Map(keys), Some(old)) => Some((keys, old.iter().map(|item| (key(keys, item), item)).collect())),
        _ => None,
    }
}

fn key(keys: &[String], item: &Value) -> String {
    keys.iter().map(|key| item.get(key).unwrap_or(&Value::Null).to_string()).collect::<Vec<_>>().join(",")
}

impl Shape for Node {
    fn field(&self, name: &str) -> Option<&dyn Shape> {
        Self::field(self, name).map(|node| node as &dyn Shape)
    }

    fn element(&self) -> Option<&dyn Shape> {
        self.items.as_deref().map(|node| node as &dyn Shape)
    }

    fn format(&self) -> &str {
        match self.kind {
            Kind::Number => "number",
            Kind::Integer => "integer",
            Kind::String => self.limits.as_ref().and_then(|limits| limits.format).map_or("", |format| format.name()),
            _ => "",
        }
    }

    fn is_set(&self) -> bool {
        self.list == List::Set
    }

    fn keys(&self) -> &[String] {
        match &self.list {
            List::Map(keys) => keys,
            _ => &[],
        }
    }
}
