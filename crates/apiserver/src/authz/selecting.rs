//! What the selectors of a request restrict it to, as authorization sees it (KEP-4601, "Authorize with Field and Label Selectors").
//!
//! What cannot be understood of a selector is left out: terms only restrict, so that the rest asks for more, never for less.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::{fields, labels};
use serde_json::{Value, json};

/// The terms of both selectors, all of which hold.
#[derive(Clone, Debug, Default)]
pub struct Selecting {
    fields: Terms<fields::Requirement>,
    labels: Terms<labels::Requirement>,
}

#[derive(Clone, Debug)]
struct Terms<R> {
    known: Vec<R>,
    /// Some were not understood.
    incomplete: bool,
}

impl<R> Default for Terms<R> {
    fn default() -> Self {
        Self { known: Vec::new(), incomplete: false }
    }
}

impl<R> Terms<R> {
    fn of<E>(parsed: Result<Vec<R>, E>) -> Self {
        let incomplete = parsed.is_err();
        Self { known: parsed.unwrap_or_default(), incomplete }
    }

    fn of_each(requirements: &[Value], read: impl Fn(&Value) -> Option<R>) -> Self {
        let known: Vec<R> = requirements.iter().filter_map(read).collect();
        let incomplete = known.len() < requirements.len();
        Self { known, incomplete }
    }

    /// What the answer to a review says of it.
    fn problem(&self, field: &str) -> Option<String> {
        let how = if self.known.is_empty() { "ignored" } else { "partially ignored" };
        self.incomplete.then(|| format!("spec.resourceAttributes.{field} {how} due to parse error"))
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn values(requirement: &Value) -> Vec<String> {
    items(requirement, "values").iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn field_terms(text: &str) -> Terms<fields::Requirement> {
    Terms::of(fields::Selector::parse(text).map(|selector| selector.0))
}

fn label_terms(text: &str) -> Terms<labels::Requirement> {
    Terms::of(labels::Selector::parse(text).map(|selector| selector.requirements().to_vec()))
}

/// A FieldSelectorRequirement; of those that field selectors cannot say there is none.
fn field_term(requirement: &Value) -> Option<fields::Requirement> {
    let negated = match text(requirement, "operator") {
        "In" => false,
        "NotIn" => true,
        _ => return None,
    };
    let [value] = <[String; 1]>::try_from(values(requirement)).ok()?;
    Some(fields::Requirement { field: text(requirement, "key").to_owned(), value, negated })
}

/// A LabelSelectorRequirement.
fn label_term(requirement: &Value) -> Option<labels::Requirement> {
    let operator = match text(requirement, "operator") {
        "In" => labels::Operator::In,
        "NotIn" => labels::Operator::NotIn,
        "Exists" => labels::Operator::Exists,
        "DoesNotExist" => labels::Operator::DoesNotExist,
        _ => return None,
    };
    labels::Requirement::new(text(requirement, "key"), operator, values(requirement)).ok()
}

impl Selecting {
    /// Those of a query, or of an expression.
    pub fn of_texts(fields: &str, labels: &str) -> Self {
        Self { fields: field_terms(fields), labels: label_terms(labels) }
    }

    /// Those of the `resourceAttributes` of a review.
    pub fn of_attributes(about: &Value) -> Self {
        let (fields, labels) = (&about["fieldSelector"], &about["labelSelector"]);
        let fields = match items(fields, "requirements") {
            [] => field_terms(text(fields, "rawSelector")),
            requirements => Terms::of_each(requirements, field_term),
        };
        let labels = match items(labels, "requirements") {
            [] => label_terms(text(labels, "rawSelector")),
            requirements => Terms::of_each(requirements, label_term),
        };
        Self { fields, labels }
    }

    /// The value that a field must have.
    pub fn exact(&self, field: &str) -> Option<&str> {
        let is_it = |term: &&fields::Requirement| term.field == field && !term.negated;
        self.fields.known.iter().find(is_it).map(|term| term.value.as_str())
    }

    /// What was left out.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        self.fields.problem("fieldSelector").into_iter().chain(self.labels.problem("labelSelector"))
    }

    /// The selectors as `resourceAttributes` have them, by their names; those that say nothing are not there. No `rawSelector`: two who parse
    /// a text may understand it differently.
    pub fn to_attributes(&self) -> impl Iterator<Item = (&'static str, Value)> {
        let field = |term: &fields::Requirement| json!({"key": term.field, "operator": if term.negated { "NotIn" } else { "In" }, "values": [term.value]});
        let fields = self.fields.known.iter().map(field).collect::<Vec<_>>();
        let labels = self.labels.known.iter().filter_map(shown_label).collect::<Vec<_>>();
        let all = [("fieldSelector", fields), ("labelSelector", labels)].into_iter();
        all.filter(|(_, terms)| !terms.is_empty()).map(|(name, terms)| (name, json!({"requirements": terms})))
    }
}

/// Comparisons with numbers have no form in the API.
fn shown_label(term: &labels::Requirement) -> Option<Value> {
    use labels::Operator::{DoesNotExist, DoubleEquals, Equals, Exists, GreaterThan, In, LessThan, NotEquals, NotIn};
    let operator = match term.operator() {
        In | Equals | DoubleEquals => "In",
        NotIn | NotEquals => "NotIn",
        Exists => "Exists",
        DoesNotExist => "DoesNotExist",
        GreaterThan | LessThan => return None,
    };
    let mut shown = json!({"key": term.key(), "operator": operator});
    if !term.values().is_empty() {
        shown["values"] = json!(term.values());
    }
    Some(shown)
}

/// The faults of the selectors of a review. Operators that nobody knows are none: a newer client may.
pub(crate) fn validate(about: &Value, path: &Path, errors: &mut Errors) {
    for name in ["fieldSelector", "labelSelector"] {
        let Some(selector) = about.get(name).filter(|selector| selector.is_object()) else { continue };
        let path = path.child(name);
        let (raw, requirements) = (text(selector, "rawSelector"), items(selector, "requirements"));
        if !raw.is_empty() && !requirements.is_empty() {
            errors.push(Error::invalid(&path.child("rawSelector"), raw, "may not specified at the same time as requirements"));
        }
        if raw.is_empty() && requirements.is_empty() {
            let why = format!("when {path} is specified, requirements or rawSelector is required");
            errors.push(Error::required(&path.child("requirements"), why));
        }
        for (index, requirement) in requirements.iter().enumerate() {
            let path = path.child("requirements").index(index);
            if text(requirement, "key").is_empty() {
                errors.push(Error::required(&path.child("key"), "must be specified"));
            }
            let (empty, path) = (items(requirement, "values").is_empty(), path.child("values"));
            match text(requirement, "operator") {
                "In" | "NotIn" if empty => {
                    errors.push(Error::required(&path, "must be specified when `operator` is 'In' or 'NotIn'"));
                }
                "Exists" | "DoesNotExist" if !empty => {
                    errors.push(Error::forbidden(&path, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(selecting: &Selecting) -> Value {
        selecting.to_attributes().map(|(name, selector)| (name.to_owned(), selector["requirements"].clone())).collect()
    }

    /// KEP-4601: "If rawSelector is present and requirements are empty, the rawSelector will be parsed and limited if the parsing succeeds."
    #[test]
    fn selectors_are_read_in_both_forms() {
        let check = |about: Value, expected: Value, problems: &[&str]| {
            let selecting = Selecting::of_attributes(&about);
            assert_eq!(shown(&selecting), expected, "{about}");
            assert_eq!(selecting.problems().collect::<Vec<_>>(), problems, "{about}");
        };
        check(json!({}), json!({}), &[]);
        check(
            json!({"fieldSelector": {"rawSelector": "spec.nodeName=a,x!=b"}, "labelSelector": {"rawSelector": "app in (b,a),!c,n>3"}}),
            json!({"fieldSelector": [{"key": "spec.nodeName", "operator": "In", "values": ["a"]}, {"key": "x", "operator": "NotIn", "values": ["b"]}],
                "labelSelector": [{"key": "app", "operator": "In", "values": ["a", "b"]}, {"key": "c", "operator": "DoesNotExist"}]}),
            &[],
        );
        let odd = "spec.resourceAttributes.fieldSelector ignored due to parse error";
        check(json!({"fieldSelector": {"rawSelector": "nothing"}}), json!({}), &[odd]);
        check(
            json!({"labelSelector": {"requirements": [{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Near"}]},
                "fieldSelector": {"requirements": [{"key": "f", "operator": "In", "values": ["a", "b"]}]}}),
            json!({"labelSelector": [{"key": "a", "operator": "Exists"}]}),
            &[odd, "spec.resourceAttributes.labelSelector partially ignored due to parse error"],
        );
        let node = Selecting::of_texts("spec.nodeName=a,metadata.name!=b", "");
        assert_eq!((node.exact("spec.nodeName"), node.exact("metadata.name")), (Some("a"), None));
    }

    /// "If rawSelector is present and requirements are present, the request is invalid."
    #[test]
    fn selectors_are_validated() {
        let check = |selector: Value, expected: &[&str]| {
            let mut errors = Errors::new();
            validate(&json!({"labelSelector": selector}), &Path::new("spec"), &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{selector}");
        };
        check(json!({"rawSelector": "a=b"}), &[]);
        check(json!({"requirements": [{"key": "a", "operator": "Near", "values": ["b"]}]}), &[]);
        check(
            json!({"rawSelector": "a=b", "requirements": [{"key": "a", "operator": "Exists"}]}),
            &["spec.labelSelector.rawSelector: Invalid value: \"a=b\": may not specified at the same time as requirements"],
        );
        check(
            json!({}),
            &[
                "spec.labelSelector.requirements: Required value: when spec.labelSelector is specified, requirements or rawSelector is required",
            ],
        );
        check(
            json!({"requirements": [{"operator": "In"}, {"key": "a", "operator": "Exists", "values": ["b"]}]}),
            &[
                "spec.labelSelector.requirements[0].key: Required value: must be specified",
                "spec.labelSelector.requirements[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                "spec.labelSelector.requirements[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ],
        );
    }
}
