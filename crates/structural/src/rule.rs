//! One rule in CEL, as a schema has it.

use apimachinery::field::ErrorKind;
use cel::Program;
use serde_json::Value;

/// A rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) source: String,
    pub(crate) program: Result<Program, String>,
    pub(crate) message: String,
    pub(crate) message_source: String,
    pub(crate) message_expression: Option<Result<Program, String>>,
    pub(crate) kind: ErrorKind,
    /// Where what it says is told, below the value; empty for the value itself.
    pub(crate) field: String,
    /// It is also asked when there is no old value.
    pub(crate) optional_old: bool,
    /// Whether that is said at all.
    pub(crate) says_optional_old: bool,
    pub(crate) uses_old: bool,
}

const VARIABLES: [&str; 2] = ["self", "oldSelf"];

impl Rule {
    pub(crate) fn new(source: &Value) -> Self {
        let text = |key: &str| source.get(key).and_then(Value::as_str).unwrap_or_default().trim().to_owned();
        let compile = |source: &str| Program::compile(source, &VARIABLES).map_err(|error| error.to_string());
        let rule = text("rule");
        let program = compile(&rule);
        let expression = text("messageExpression");
        Self {
            uses_old: program.as_ref().is_ok_and(|program| program.uses("oldSelf")),
            program,
            message: text("message"),
            message_expression: (!expression.is_empty()).then(|| compile(&expression)),
            message_source: expression,
            kind: match text("reason").as_str() {
                "FieldValueForbidden" => ErrorKind::Forbidden,
                "FieldValueRequired" => ErrorKind::Required,
                "FieldValueDuplicate" => ErrorKind::Duplicate,
                _ => ErrorKind::Invalid,
            },
            field: text("fieldPath"),
            optional_old: source.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or(false),
            says_optional_old: source.get("optionalOldSelf").is_some_and(Value::is_boolean),
            source: rule,
        }
    }

    /// What is said of it: its message, or itself.
    pub(crate) fn shown(&self) -> &str {
        if self.message.is_empty() { &self.source } else { &self.message }
    }
}
