//! Differences that stay, each with its reason.

use serde_json::Value;

use crate::cases::Outcome;

/// Why this difference is none that we would mend, if so.
pub fn reason(operation: &str, question: &Value, ours: &Outcome, theirs: &Outcome) -> Option<&'static str> {
    match operation {
        "quantity" => quantity(question, ours, theirs),
        "strategic" => strategic(ours, theirs),
        "yaml" => yaml(question["text"].as_str().unwrap_or_default(), ours, theirs),
        _ => None,
    }
}

fn strategic(ours: &Outcome, theirs: &Outcome) -> Option<&'static str> {
    match (ours, theirs) {
        (Ok(_), Err(why)) if why == "no elements in any of the given slices" => {
            Some("upstream cannot put an empty list in an order, and refuses a patch that changes nothing in it")
        }
        _ => None,
    }
}

/// What upstream's parser says of texts that it cannot read.
const UNREADABLE: &[&str] =
    &["found ", "did not find expected ", "could not find expected ", "control characters are not allowed"];

fn yaml(text: &str, ours: &Outcome, theirs: &Outcome) -> Option<&'static str> {
    let unreadable = |why: &str| {
        let problem = why.strip_prefix("yaml: ").unwrap_or_default();
        let problem = problem.strip_prefix("line ").and_then(|rest| rest.split_once(": ")).map_or(problem, |(_, rest)| rest);
        UNREADABLE.iter().any(|start| problem.starts_with(start))
    };
    match (ours, theirs) {
        _ if text.contains(['\u{85}', '\u{2028}', '\u{2029}']) => Some("three more characters end lines in YAML 1.1"),
        (Ok(_), Err(why)) if unreadable(why) => Some("upstream's parser is of YAML 1.1, and cannot read all that 1.2 allows"),
        (Err(why), Ok(_)) if why.contains("comment") => Some("a comment must be told apart by a space in YAML 1.2"),
        (Err(why), Ok(theirs))
            if ["unsupported value", "invalid map key"].iter().any(|part| why.contains(part)) && theirs["strict"] != "" =>
        {
            Some("what another value of the same key replaces must be right here, too")
        }
        // What the parser says, and not what is made of its events, has a place in the text.
        (Err(why), Ok(_)) if why.contains(" at char ") => {
            Some("upstream's parser is of YAML 1.1, and reads some of what 1.2 does not allow")
        }
        (Ok(ours), Ok(theirs)) if ours["value"] == theirs["value"] && without_lines(ours) == without_lines(theirs) => {
            Some("the line of what begins with a tag, an anchor or the sign of a block is told as that of its key")
        }
        (Ok(_), Ok(_)) if text.rsplit('\n').next().is_some_and(|last| !last.is_empty() && last.trim().is_empty()) => {
            Some("a last line of nothing but spaces, which has no end, is one more line of a block of text in YAML 1.2")
        }
        (Ok(_), Ok(_))
            if text.split('!').skip(1).any(|tag| tag.split_whitespace().next().is_some_and(|tag| tag.contains(','))) =>
        {
            Some("a tag may have a comma in YAML 1.1")
        }
        (_, _) if text.split(['[', '{', ',']).skip(1).any(|item| item.trim_start().starts_with('?')) => {
            Some("upstream takes any ? in a flow for the sign of a key")
        }
        (_, _) if text.split('&').skip(1).any(|name| name.split_whitespace().next().is_some_and(|name| name.contains(':'))) => {
            Some("the name of an anchor may have a colon in YAML 1.2")
        }
        (Ok(ours), Ok(theirs)) if ours["value"] == theirs["value"] && (text.contains('*') || text.contains("<<")) => {
            Some("duplicate keys are told once, and where the alias is; upstream tells them for each alias")
        }
        (Ok(ours), Ok(theirs)) if ours["strict"] != "" && theirs["strict"] == "" => {
            Some("keys of which JSON has the same text: they are duplicates here, and upstream takes any of them")
        }
        _ => None,
    }
}

/// What is told of duplicate keys, without the numbers of lines.
fn without_lines(answer: &Value) -> String {
    let text = answer["strict"].as_str().unwrap_or_default();
    text.split("line ").map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit())).collect()
}

fn quantity(question: &Value, ours: &Outcome, theirs: &Outcome) -> Option<&'static str> {
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
