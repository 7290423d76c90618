//! What is sent to extenders and what they answer (`k8s.io/kube-scheduler/extender/v1`).
//!
//! Names of fields in answers are compared without case, as Go reads them: extenders were written when the fields had other names.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use crate::framework::Verdict;

/// Bytes of a reason that an extender gives for a node.
const MAX_REASON: usize = 256;
/// Different reasons of one answer.
const MAX_REASONS: usize = 16;

/// Why an answer is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("its answer cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("its answer has no {0} of the right type")]
    Type(&'static str),
    /// What it says itself.
    #[error("{0}")]
    Said(String),
    #[error("it claims a filtered node {0:?} which is not found in the input node list")]
    Node(String),
    #[error("it claims to preempt on node {0:?} which is not found in the input node list")]
    Room(String),
    #[error("expected at least one victim pod on node {0:?}")]
    NoVictims(String),
    #[error(
        "it claims to preempt pod (UID: {uid}) on node: {node}, but the pod is not found on that node, or is not less important"
    )]
    Victim { uid: String, node: String },
}

/// Nodes that an extender is asked about.
pub(crate) enum Nodes<'a> {
    Names(&'a [String]),
    /// As JSON.
    Objects(Vec<&'a [u8]>),
}

/// The body of `filter` and `prioritize` (ExtenderArgs).
pub(crate) fn arguments(pod: &[u8], nodes: &Nodes<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(b"{\"Pod\":");
    body.extend_from_slice(pod);
    match nodes {
        Nodes::Names(names) => {
            body.extend_from_slice(b",\"Nodes\":null,\"NodeNames\":");
            body.extend_from_slice(json!(names).to_string().as_bytes());
        }
        Nodes::Objects(objects) => {
            body.extend_from_slice(b",\"Nodes\":{\"metadata\":{},\"items\":[");
            join(&mut body, objects);
            body.extend_from_slice(b"]},\"NodeNames\":null");
        }
    }
    body.push(b'}');
    body
}

fn join(body: &mut Vec<u8>, objects: &[&[u8]]) {
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(object);
    }
}

/// Pods that may have to leave a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Victims {
    pub(crate) node: String,
    pub(crate) uids: Vec<String>,
    /// How many of them a disruption budget holds.
    pub(crate) held: usize,
}

/// The body of `preempt` (ExtenderPreemptionArgs): with the pods' uids, or with the objects as far as they are known by them.
pub(crate) fn preemption_arguments(pod: &[u8], all: &[Victims], objects: Option<&HashMap<String, Vec<u8>>>) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(b"{\"Pod\":");
    body.extend_from_slice(pod);
    let field: &[u8] = if objects.is_some() { b",\"NodeNameToVictims\":{" } else { b",\"NodeNameToMetaVictims\":{" };
    body.extend_from_slice(field);
    for (index, victims) in all.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(json!(victims.node).to_string().as_bytes());
        body.extend_from_slice(b":{\"Pods\":[");
        let named: Vec<Vec<u8>> = match objects {
            Some(objects) => victims.uids.iter().filter_map(|uid| objects.get(uid).cloned()).collect(),
            None => victims.uids.iter().map(|uid| json!({"UID": uid}).to_string().into_bytes()).collect(),
        };
        join(&mut body, &named.iter().map(Vec::as_slice).collect::<Vec<_>>());
        body.extend_from_slice(format!("],\"NumPDBViolations\":{}}}", victims.held).as_bytes());
    }
    body.extend_from_slice(b"}}");
    body
}

/// A field whatever the case of its name; the one that is written right comes first.
fn field<'a>(object: &'a Value, name: &str) -> &'a Value {
    static NOTHING: Value = Value::Null;
    let Some(map) = object.as_object() else { return &NOTHING };
    let alike = || map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    map.get(name).or_else(alike).unwrap_or(&NOTHING)
}

/// The first value of a body; what follows it counts for nothing, as for Go.
fn read(body: &[u8]) -> Result<Value, AnswerError> {
    match serde_json::Deserializer::from_slice(body).into_iter::<Value>().next() {
        Some(value) => Ok(value?),
        None => Err(serde_json::from_slice::<Value>(body).map_or_else(AnswerError::from, |_| AnswerError::Type("body"))),
    }
}

/// Reads an answer that may say why there is none.
fn read_answer(body: &[u8]) -> Result<Value, AnswerError> {
    let answer = read(body)?;
    if !answer.is_object() {
        return Err(AnswerError::Type("body"));
    }
    match field(&answer, "Error") {
        Value::Null => Ok(answer),
        Value::String(text) if text.is_empty() => Ok(answer),
        Value::String(text) => Err(AnswerError::Said(shortened(text))),
        _ => Err(AnswerError::Type("Error")),
    }
}

fn shortened(text: &str) -> String {
    let mut text = text.to_owned();
    text.truncate(text.floor_char_boundary(MAX_REASON));
    text
}

/// A node that an extender refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) node: String,
    pub(crate) verdict: Verdict,
    pub(crate) reason: String,
}

/// The nodes of those that were asked about which will do, in the order of the answer, and why the others will not.
pub(crate) fn filtered(body: &[u8], asked: &[String], url: &str) -> Result<(Vec<String>, Vec<Refused>), AnswerError> {
    let answer = read_answer(body)?;
    let given: Vec<&Value> = match (field(&answer, "NodeNames"), field(&answer, "Nodes")) {
        (Value::Null, Value::Null) => Vec::new(),
        (Value::Array(names), _) => names.iter().collect(),
        (Value::Null, nodes) => match field(nodes, "items") {
            Value::Null if nodes.is_object() => Vec::new(),
            Value::Array(items) => items.iter().map(|item| field(field(item, "metadata"), "name")).collect(),
            _ => return Err(AnswerError::Type("Nodes")),
        },
        _ => return Err(AnswerError::Type("NodeNames")),
    };
    let known: HashSet<&str> = asked.iter().map(String::as_str).collect();
    let (mut passed, mut seen) = (Vec::new(), HashSet::new());
    for name in given {
        let name = name.as_str().ok_or(AnswerError::Type("names of nodes"))?;
        if !known.contains(name) {
            return Err(AnswerError::Node(shortened(name)));
        }
        if seen.insert(name) {
            passed.push(name.to_owned());
        }
    }
    let (occupied, unfit) = (field(&answer, "FailedNodes"), field(&answer, "FailedAndUnresolvableNodes"));
    let (mut refused, mut reasons) = (Vec::new(), HashSet::new());
    for node in asked.iter().filter(|node| !seen.contains(node.as_str())) {
        let said = [(unfit, Verdict::Unfit), (occupied, Verdict::Occupied)];
        let said = said.into_iter().find_map(|(map, verdict)| Some((map.get(node)?.as_str()?, verdict)));
        let verdict = said.map_or(Verdict::Unfit, |(_, verdict)| verdict);
        let text = said.map(|(text, _)| shortened(text)).filter(|text| !text.is_empty());
        // An extender that has a reason of its own for each of many nodes makes no message of them all.
        let text = text.filter(|text| reasons.contains(text) || reasons.len() < MAX_REASONS);
        reasons.extend(text.clone());
        let reason = text.unwrap_or_else(|| format!("node(s) were refused by extender {url}"));
        refused.push(Refused { node: node.clone(), verdict, reason });
    }
    Ok((passed, refused))
}

/// Scores by node (HostPriorityList).
pub(crate) fn priorities(body: &[u8]) -> Result<Vec<(String, i64)>, AnswerError> {
    let answer = read(body)?;
    let list = match &answer {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        _ => return Err(AnswerError::Type("list of priorities")),
    };
    let one = |entry: &Value| {
        let score = match field(entry, "Score") {
            Value::Null => Some(0),
            score => score.as_i64(),
        };
        Some((field(entry, "Host").as_str()?.to_owned(), score?))
    };
    list.iter().map(one).collect::<Option<_>>().ok_or(AnswerError::Type("Host and Score"))
}

/// Whether the pod was bound (ExtenderBindingResult).
pub(crate) fn bound(body: &[u8]) -> Result<(), AnswerError> {
    read_answer(body).map(drop)
}

/// Which pods leave which of the nodes that were asked about (ExtenderPreemptionResult). A node without victims is an error, or left out by one that
/// may fail.
pub(crate) fn victims(body: &[u8], asked: &[Victims], ignorable: bool) -> Result<Vec<Victims>, AnswerError> {
    let answer = read(body)?;
    let map = match field(&answer, "NodeNameToMetaVictims") {
        Value::Null if answer.is_object() => return Ok(Vec::new()),
        Value::Object(map) => map,
        _ => return Err(AnswerError::Type("NodeNameToMetaVictims")),
    };
    let mut all = Vec::new();
    for (node, victims) in map {
        if !asked.iter().any(|one| one.node == *node) {
            return Err(AnswerError::Room(shortened(node)));
        }
        let pods = match field(victims, "Pods") {
            Value::Null => &Vec::new(),
            Value::Array(pods) => pods,
            _ => return Err(AnswerError::Type("Pods")),
        };
        let uid = |pod: &Value| field(pod, "UID").as_str().map(str::to_owned);
        let mut uids = pods.iter().map(uid).collect::<Option<Vec<_>>>().ok_or(AnswerError::Type("UID"))?;
        uids.sort();
        uids.dedup();
        match uids.is_empty() {
            false => {
                let held = field(victims, "NumPDBViolations").as_u64().and_then(|held| usize::try_from(held).ok()).unwrap_or(0);
                all.push(Victims { node: node.clone(), uids, held });
            }
            true if ignorable => {}
            true => return Err(AnswerError::NoVictims(node.clone())),
        }
    }
    Ok(all)
}
