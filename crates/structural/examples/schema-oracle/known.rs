//! Differences that stay, each with its reason.

use serde_json::Value;

/// Whether a rule makes a list of a map.
fn in_order_of_a_map(question: &Value) -> bool {
    let rule = question["original"]["x-kubernetes-validations"][0]["rule"].as_str().unwrap_or_default();
    rule.contains("self.m.map(") || rule.contains("self.m.transformList(")
}

/// Why this difference is none that we would mend, if so.
pub fn reason(question: &Value, ours: &Value, theirs: &Value) -> Option<&'static str> {
    let text = |value: &Value| value["wrong"].as_str().unwrap_or_default().to_owned();
    match question["op"].as_str() {
        Some("rule") if text(ours).contains("sortBy can only be") && text(theirs).contains("sortBy can only be") => {
            Some("a macro that cannot be made is told of once here, and by upstream again for each around it")
        }
        Some("rule") if text(ours).contains("Syntax error") && text(theirs).contains("Syntax error") => {
            Some("what is no expression is told in the words of another parser")
        }
        Some("rule") if theirs["errors"].to_string().contains("internal error: interface conversion: *types.Err") => {
            Some("upstream's program fails over an error in an argument")
        }
        // The messages are the same but for what a map's order has decided.
        Some("rule") if in_order_of_a_map(question) && ours["cost"] == theirs["cost"] && theirs["wrong"].is_null() => {
            Some("upstream goes through maps in an order that is another one each time")
        }
        _ => None,
    }
}
