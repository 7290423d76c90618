//! The rules of a definition before anybody relies on them: their types, and what they may cost
//! (`apiextensions/validation/cel_validation.go`).

#[cfg(test)]
mod tests;

use std::sync::Arc;

use apimachinery::field::{Error, Errors, Path};
use cel::{Checked, Declaration, Form, Program, Type};

use crate::declare::declare;
use crate::node::{Additional, List, Node};
use crate::rule::Rule;

/// What one rule may cost for all values that there can be, and all rules of a schema together.
const RULE_LIMIT: u64 = 10_000_000;
const SCHEMA_LIMIT: u64 = 100_000_000;
/// How many of the dearest rules are told when all together cost too much.
const MOST_EXPENSIVE: usize = 4;
const NO_BOOL: &str = "cel expression must evaluate to a bool";
/// The largest object that anybody can send.
const REQUEST: u64 = 3 << 20;

/// What is wrong, as upstream tells it of a definition.
pub(crate) fn check(root: &Node, path: &Path) -> Errors {
    let mut check = Check { errors: Errors::new(), total: 0, expensive: Vec::new() };
    check.node(root, path, Place { declared: None, count: Some(1), uncorrelatable: None });
    if check.total > SCHEMA_LIMIT {
        for (at, _) in &check.expensive {
            let detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            check.errors.push(Error::forbidden(at, detail));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        check.errors.push(Error::forbidden(path, exceeds(what, check.total, SCHEMA_LIMIT)));
    }
    check.errors
}

/// What the rules of a resource's root may cost, or why they cannot be asked.
pub(crate) fn costs(root: &Node) -> Vec<Result<u64, String>> {
    let declared = declare(root, true, "selfType");
    let cost = |rule: &Rule| {
        let declared = declared.as_ref().ok_or("unable to convert structural schema to CEL declarations")?;
        let checked = checked(&rule.program, &rule.source, rule, declared).map_err(|why| format!("compilation failed: {why}"))?;
        if checked.ty() == Type::Bool { Ok(checked.cost(declared)) } else { Err(NO_BOOL.to_owned()) }
    };
    root.rules.iter().map(cost).collect()
}

struct Check {
    errors: Errors,
    total: u64,
    /// The dearest first.
    expensive: Vec<(Path, u64)>,
}

/// Where in a schema a part stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// What is declared of it, where something around it has rules.
    declared: Option<&'a Arc<Declaration>>,
    /// How many such values there can be, where that is limited.
    count: Option<u64>,
    /// The outermost part around it whose values cannot be told to be those that there were before.
    uncorrelatable: Option<&'a Path>,
}

impl Check {
    fn node(&mut self, node: &Node, path: &Path, place: Place<'_>) {
        if !node.has_rules {
            return;
        }
        let own = match place.declared {
            Some(declared) => Some(declared.clone()),
            None if node.rules.is_empty() => None,
            None => declare(node, node.embeds, "selfType"),
        };
        match &own {
            Some(declared) => self.rules(node, path, declared, place),
            None if !node.rules.is_empty() => {
                let why = "unable to convert structural schema to CEL declarations";
                let detail =
                    format!("internal error: failed to construct type information for x-kubernetes-validations rules: {why}");
                self.errors.push(Error::internal(&path.child("x-kubernetes-validations"), detail));
            }
            None => {}
        }
        self.below(node, path, own.as_ref().map(|own| &own.form), place);
    }

    fn below(&mut self, node: &Node, path: &Path, form: Option<&Form>, place: Place<'_>) {
        let limits = node.limits.as_deref();
        let uncorrelatable = place.uncorrelatable.or(node.atomic.then_some(path));
        for (name, property) in &node.properties {
            let declared = match form {
                Some(Form::Object(fields)) => cel::escape(name).and_then(|name| fields.get(&name)),
                _ => None,
            };
            let place = Place { declared, uncorrelatable, ..place };
            self.node(property, &path.child("properties").key(name), place);
        }
        let declared = match form {
            Some(Form::List(element) | Form::Map(element)) => Some(element),
            _ => None,
        };
        if let Additional::Of(additional) = &node.additional {
            let count = times(place.count, limits.and_then(|limits| limits.max_properties));
            self.node(additional, &path.child("additionalProperties"), Place { declared, count, uncorrelatable });
        }
        if let Some(items) = &node.items {
            let count = times(place.count, limits.and_then(|limits| limits.max_items));
            let keyed = matches!(node.list, List::Map(_));
            let uncorrelatable = place.uncorrelatable.or((!keyed).then_some(path));
            self.node(items, &path.child("items"), Place { declared, count, uncorrelatable });
        }
    }

    fn rules(&mut self, node: &Node, path: &Path, declared: &Arc<Declaration>, place: Place<'_>) {
        // As many as fit into an object, each with a comma, where nothing else is said.
        let count = place.count.unwrap_or(REQUEST / (declared.least_bytes + 1));
        for (index, rule) in node.rules.iter().enumerate() {
            let at = path.child("x-kubernetes-validations").index(index);
            let good = self.rule(rule, &at.child("rule"), declared, count);
            if good {
                self.message(rule, &at.child("messageExpression"), declared);
            }
            match place.uncorrelatable {
                Some(within) if rule.uses_old => {
                    let detail = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {within}");
                    self.errors.push(Error::invalid(&at.child("rule"), rule.source.as_str(), detail));
                }
                _ if good && !rule.uses_old && rule.says_optional_old => {
                    let detail = "may not be set if oldSelf is not used in rule";
                    self.errors.push(Error::invalid(&at.child("optionalOldSelf"), rule.optional_old, detail));
                }
                _ => {}
            }
        }
    }

    /// Whether it can be asked.
    fn rule(&mut self, rule: &Rule, at: &Path, declared: &Arc<Declaration>, count: u64) -> bool {
        let why = match checked(&rule.program, &rule.source, rule, declared) {
            Ok(checked) if checked.ty() == Type::Bool => {
                self.spend(at, "estimated rule cost", checked.cost(declared).saturating_mul(count));
                return true;
            }
            Ok(_) => NO_BOOL.to_owned(),
            Err(why) => format!("compilation failed: {why}"),
        };
        self.errors.push(Error::invalid(at, rule.source.as_str(), why));
        false
    }

    fn message(&mut self, rule: &Rule, at: &Path, declared: &Arc<Declaration>) {
        let Some(program) = &rule.message_expression else { return };
        let source = rule.message_source.as_str();
        let why = match checked(program, source, rule, declared) {
            Ok(checked) if checked.ty() == Type::String => {
                return self.spend(at, "estimated messageExpression cost", checked.cost(declared));
            }
            Ok(_) => "messageExpression must evaluate to a string".to_owned(),
            Err(why) => format!("messageExpression compilation failed: {why}"),
        };
        self.errors.push(Error::invalid(at, source, why));
    }

    fn spend(&mut self, at: &Path, what: &str, cost: u64) {
        if cost > RULE_LIMIT {
            self.errors.push(Error::forbidden(at, exceeds(what, cost, RULE_LIMIT)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= SCHEMA_LIMIT / 100 {
            self.expensive.push((at.clone(), cost));
            self.expensive.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
            self.expensive.truncate(MOST_EXPENSIVE);
        }
    }
}

/// An expression with its types, or why it has none.
fn checked<'p>(
    program: &'p Result<Program, String>,
    source: &str,
    rule: &Rule,
    declared: &Arc<Declaration>,
) -> Result<Checked<'p>, String> {
    let ty = declared.ty();
    let old = if rule.optional_old { Type::optional(ty.clone()) } else { ty.clone() };
    let variables = [("self", ty), ("oldSelf", old)];
    let program = program.as_ref().map_err(|_| cel::faults(source, &variables).to_string())?;
    program.check(source, &variables).map_err(|error| error.to_string())
}

/// How many values there can be below so many; none where that is not limited.
fn times(count: Option<u64>, most: Option<u64>) -> Option<u64> {
    Some(count?.saturating_mul(most?))
}

fn exceeds(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let shown = match factor {
        // Rules of that kind cannot be saved by a little less of something.
        factor if factor > 100.0 => "more than 100x".to_owned(),
        factor if factor < 1.5 => format!("{factor:.6}x"),
        factor => format!("{factor:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {shown} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}
