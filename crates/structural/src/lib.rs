//! Structural schemas: what a CustomResourceDefinition says of its objects (KEP-1693, "structural schema"), compiled once and
//! shared by all requests.
//!
//! [`Structural::decode`] drops what the schema does not know, [`Structural::apply_defaults`] fills in, [`Structural::validate`]
//! checks, all as upstream does it and in upstream's words. Everything here is pure, and linear in the object. [`JsonPath`] is what
//! columns, selectable fields and the scale sub-resource find their values by.

mod check;
mod compile;
mod declare;
mod defaults;
mod embedded;
mod field_path;
mod formats;
mod json_path;
mod lists;
mod node;
mod numbers;
mod path;
mod pattern;
mod prune;
mod rule;
mod rules;
#[cfg(test)]
mod tests;
pub mod timing;
mod validate;

use apimachinery::field::{Errors, Path};
use serde_json::Value;

pub use compile::Unusable;
pub use field_path::{Declares, field_path};
pub use json_path::{JsonPath, PathError};
pub use pattern::check as check_pattern;

use node::Node;

/// A compiled schema.
#[derive(Debug)]
pub struct Structural {
    root: Node,
    source: Value,
}

impl Structural {
    /// Compiles the `openAPIV3Schema` of a version.
    ///
    /// # Errors
    /// The schema is none, or uses what structural schemas have not.
    pub fn compile(source: &Value) -> Result<Self, Unusable> {
        let mut root = compile::node(source, 0)?;
        root.embeds = true;
        Ok(Self { root, source: source.clone() })
    }

    /// The schema as it was written.
    pub fn source(&self) -> &Value {
        &self.source
    }

    /// Brings an object into the form in which it is kept: its metadata have their types, what the schema does not know and what is
    /// null without need is gone, and whole numbers are written as such. The paths of unknown fields, sorted.
    ///
    /// # Errors
    /// Metadata, of the object itself or of one that it holds, are of the wrong type.
    pub fn decode(&self, object: &mut Value) -> Result<Vec<String>, schema::TypeError> {
        let mut unknown = embedded::coerce(&self.root, object)?;
        unknown.extend(prune::prune(&self.root, object));
        numbers::settle(object);
        unknown.sort_unstable();
        Ok(unknown)
    }

    /// Fills in what the user left out.
    pub fn apply_defaults(&self, object: &mut Value) {
        defaults::apply(&self.root, object);
    }

    /// Rules for a new object.
    pub fn validate(&self, object: &Value) -> Errors {
        let mut errors = validate::validate(&self.root, object, None, "");
        errors.extend(embedded::validate(&self.root, object));
        errors.extend(lists::validate(&self.root, object));
        rules::validate(&self.root, object, None, &mut errors);
        errors
    }

    /// Rules for a changed object: what was wrong before and is unchanged stays as it is (KEP-4008, "ratcheting").
    pub fn validate_update(&self, object: &Value, old: &Value) -> Errors {
        let mut errors = validate::validate(&self.root, object, Some(old), "");
        errors.extend(embedded::validate(&self.root, object));
        self.validate_changes(object, old, &mut errors);
        errors
    }

    /// Rules for a changed object of which one field of the root alone is written, such as the status. As upstream, what is unique in lists and
    /// the rules in CEL are asked of the whole object (`statusStrategy.ValidateUpdate`).
    pub fn validate_field(&self, name: &str, object: &Value, old: &Value) -> Errors {
        let mut errors = match (self.root.properties.get(name), object.get(name)) {
            (Some(node), Some(value)) => validate::validate(node, value, old.get(name), name),
            _ => Errors::new(),
        };
        self.validate_changes(object, old, &mut errors);
        errors
    }

    /// What is unique in the lists of a changed object, unless the old one has broken that already, and then the rules in CEL.
    fn validate_changes(&self, object: &Value, old: &Value, errors: &mut Errors) {
        if lists::validate(&self.root, old).is_empty() {
            errors.extend(lists::validate(&self.root, object));
        }
        rules::validate(&self.root, object, Some(old), errors);
    }

    /// Whether a default fits its schema: for definitions, before anybody relies on it.
    pub fn validate_default(&self, path: &Path) -> Errors {
        defaults::validate(&self.root, path)
    }

    /// Whether a default fits the rules in CEL of its schema, and is a good object where it is one: for definitions whose rules can be asked.
    pub fn validate_default_rules(&self, path: &Path) -> Errors {
        defaults::validate_rules(&self.root, path)
    }

    /// What is wrong with the rules of a schema, and which may cost too much: for definitions.
    pub fn validate_rules(&self, path: &Path) -> Errors {
        check::check(&self.root, path)
    }

    /// What each rule of the root may cost at most, or why it cannot be asked: for comparisons with upstream.
    pub fn rule_costs(&self) -> Vec<Result<u64, String>> {
        check::costs(&self.root)
    }

    /// Asks the rules alone of a new object.
    pub fn ask_rules(&self, object: &Value) -> Errors {
        let mut errors = Errors::new();
        rules::validate(&self.root, object, None, &mut errors);
        errors
    }

    /// What the schema declares to expressions.
    pub fn declaration(&self) -> Option<std::sync::Arc<cel::Declaration>> {
        declare::declare(&self.root, true, "object")
    }

    /// Whether the schema has a default anywhere.
    pub fn has_defaults(&self) -> bool {
        self.root.has_defaults
    }
}
