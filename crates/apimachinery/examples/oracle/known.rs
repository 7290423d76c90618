//! Differences that stay, each with its reason.

use serde_json::Value;

use crate::cases::Outcome;

/// Why this difference is none that we would mend, if so.
pub fn reason(operation: &str, question: &Value, ours: &Outcome, theirs: &Outcome) -> Option<&'static str> {
    if operation != "quantity" {
        return None;
    }
    let texts = [&question["text"], &question["other"]].map(|text| text.as_str().unwrap_or_default());
    match (ours, theirs) {
        (Err(why), Ok(_)) if why.contains("too large") => Some("amounts above 1.7e29 are refused: nothing has so much"),
        (Ok(_), Err(_)) if texts.iter().any(|text| !text.contains(|c: char| c.is_ascii_digit())) => {
            Some("a number without digits is 0 here; upstream takes or refuses it by which of its two parsers reads it")
        }
        (Ok(ours), Ok(_))
            if ours["value"].as_i64().is_some_and(|value| value.checked_abs().is_none_or(|size| size == i64::MAX)) =>
        {
            Some("decimal amounts above 64 bits are kept here; upstream's overflow")
        }
        (Ok(ours), Ok(theirs)) if (&ours["text"], &ours["order"]) == (&theirs["text"], &theirs["order"]) => Some(
            "upstream's integers overflow where amounts are larger than 64 bits of their smallest unit; ours stay at the largest",
        )
        .filter(|_| ours["kept"] == theirs["kept"]),
        _ => None,
    }
}
