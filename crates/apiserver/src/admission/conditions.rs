//! Expressions over a request: match conditions of webhooks and policies (KEP-3716).

use cel::{Authorize, Budget, Environment, Program};
use serde_json::Value;

/// What expressions of webhooks speak of.
pub(super) const REQUEST: [&str; 4] = ["object", "oldObject", "request", "authorizer"];
/// What match conditions may cost together, of which upstream has a quarter of what other expressions of an object may cost.
const MATCH_BUDGET: u64 = 2_500_000;

/// An expression, or why it is none.
#[derive(Debug)]
pub(super) struct Expression {
    pub(super) source: String,
    program: Result<Program, cel::CompileError>,
}

impl Expression {
    pub(super) fn new(source: &str, variables: &[&str]) -> Self {
        Self { source: source.trim().to_owned(), program: Program::compile(source, variables) }
    }

    /// What it says, or why it says nothing.
    pub(super) fn evaluate<'a>(&'a self, given: Environment<'a, '_>, budget: &mut Budget) -> Result<cel::Value<'a>, Failure> {
        let program = self.program.as_ref().map_err(|error| Failure::Compile(error.to_string()))?;
        program.evaluate_in(given, budget).map_err(|error| match error {
            cel::Error::Budget => Failure::Budget,
            error => Failure::Run(self.source.clone(), error),
        })
    }

    /// Whether it speaks of a variable.
    pub(super) fn uses(&self, variable: &str) -> bool {
        self.program.as_ref().is_ok_and(|program| program.uses(variable))
    }
}

/// Why an expression says nothing, in upstream's words.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("compilation error: compilation failed: {0}")]
    Compile(String),
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    Budget,
    #[error("expression '{0}' resulted in error: {1}")]
    Run(String, cel::Error),
}

/// The match conditions of a webhook or a policy.
#[derive(Debug, Default)]
pub(super) struct Conditions(Vec<Expression>);

impl Conditions {
    pub(super) fn new(conditions: &Value, variables: &[&str]) -> Self {
        let all = conditions.as_array().into_iter().flatten();
        let sources = all.map(|condition| condition["expression"].as_str().unwrap_or_default());
        Self(sources.map(|source| Expression::new(source, variables)).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them speaks of a variable.
    pub(super) fn uses(&self, variable: &str) -> bool {
        self.0.iter().any(|condition| condition.uses(variable))
    }

    /// Whether all hold. One that does not is enough to say no; otherwise one that says nothing is a failure.
    pub(super) fn hold<'a>(
        &'a self,
        variables: &[(&'a str, cel::Value<'a>)],
        authorizer: &dyn Authorize,
    ) -> Result<bool, String> {
        let (mut budget, mut failures) = (Budget::new(MATCH_BUDGET), Vec::new());
        for condition in &self.0 {
            let given = Environment { variables, definitions: None, authorizer: Some(authorizer) };
            match condition.evaluate(given, &mut budget) {
                Ok(cel::Value::Bool(false)) => return Ok(false),
                Ok(cel::Value::Bool(true)) => {}
                Ok(_) => failures.push(format!("expression '{}' must evaluate to bool", condition.source)),
                Err(Failure::Budget) => {
                    failures.push(Failure::Budget.to_string());
                    break;
                }
                Err(failure) => failures.push(failure.to_string()),
            }
        }
        match failures.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}

/// An object as expressions see it; null for none.
pub(super) fn value(object: Option<&Value>) -> cel::Value<'_> {
    object.map_or(cel::Value::Null, |object| cel::Value::of(object, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Nobody may do anything.
    struct Nobody;

    impl Authorize for Nobody {
        fn check(&self, _: &cel::Question, _: &str) -> cel::Decision {
            cel::Decision::default()
        }
    }

    /// "If any matchCondition evaluates to FALSE, the webhook is skipped"; errors otherwise follow the failure policy.
    #[test]
    fn conditions() {
        let check = |sources: &[&str], expected: Result<bool, &str>| {
            let list: Vec<Value> = sources.iter().map(|source| json!({"name": "c", "expression": source})).collect();
            let object = json!({"metadata": {"name": "a"}});
            let conditions = Conditions::new(&list.into(), &REQUEST);
            let variables = [
                ("object", value(Some(&object))),
                ("oldObject", value(None)),
                ("request", value(None)),
                ("authorizer", cel::Value::Question(std::sync::Arc::default())),
            ];
            let held = conditions.hold(&variables, &Nobody);
            assert_eq!(held.as_ref().copied().map_err(String::as_str), expected, "{sources:?}");
        };
        check(&[], Ok(true));
        check(&["true", "object.metadata.name == 'a'"], Ok(true));
        check(&["true", "oldObject != null"], Ok(false));
        check(&["!authorizer.group('').resource('pods').check('get').allowed()"], Ok(true));
        let missing = "expression 'object.spec.a' resulted in error: no such key: spec";
        check(&["object.spec.a", "false"], Ok(false));
        check(&["object.spec.a", "true"], Err(missing));
        check(&["object.spec.a", "object.spec.a"], Err(&format!("[{missing}, {missing}]")));
        check(&["1"], Err("expression '1' must evaluate to bool"));
        let list = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]";
        let endless = format!("{list}.all(a, {list}.all(b, {list}.all(c, {list}.all(d, {list}.all(e, {list}.all(f, true))))))");
        check(&[&endless], Err("validation failed due to running out of cost budget, no further validation rules will be run"));
    }
}
