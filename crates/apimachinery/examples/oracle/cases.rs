//! Questions, and Knarr's own answers to them.

use std::collections::BTreeSet;
use std::fmt::Write;

use apimachinery::apply::{self, By, Types};
use apimachinery::quantity::Quantity;
use apimachinery::{Status, fields, labels, meta, patch, yaml};
use schema::{Schema, TypeId};
use serde_json::{Map, Value, json};

use crate::dice::Dice;
use crate::documents;
use crate::known;
use crate::objects::{KINDS, Maker};

/// A question and what Knarr has to say to it.
pub struct Case {
    pub operation: &'static str,
    pub question: Value,
    ty: TypeId,
}

/// A result or an error.
pub type Outcome = Result<Value, String>;

/// What comes of a comparison.
pub enum Comparison {
    Same,
    /// Different, for a reason.
    Known(&'static str),
    /// Different; where.
    Different(String),
}

/// A case of any operation.
pub fn random(dice: &mut Dice) -> Case {
    let (group, version, kind) = *dice.pick(KINDS);
    let schema = Schema::builtin();
    let ty = schema.kind(group, version, kind).unwrap();
    let operations = ["strategic", "two-way", "three-way", "json", "merge", "apply", "labels", "fields", "quantity", "yaml"];
    let operation = *dice.pick(&operations);
    let mut question = match operation {
        "labels" | "fields" => selector(dice),
        "quantity" => json!({"text": number(dice), "other": number(dice)}),
        "yaml" => json!({"text": documents::document(dice)}),
        _ => on_object(Maker { schema, ty, dice }, (group, version, kind), operation),
    };
    question["op"] = json!(operation);
    question["apiVersion"] = json!(apimachinery::gvk::api_version(group, version));
    question["kind"] = json!(kind);
    Case { operation, question, ty }
}

fn on_object(mut maker: Maker<'_>, kind: (&str, &str, &str), operation: &str) -> Value {
    let original = maker.object(kind);
    match operation {
        "strategic" => {
            let patch = maker.patch(&original);
            json!({"original": original, "patch": patch})
        }
        "two-way" => {
            let modified = maker.changed(&original);
            json!({"original": original, "modified": modified})
        }
        "three-way" => {
            let (modified, current) = (maker.changed(&original), maker.changed(&original));
            json!({"original": original, "modified": modified, "current": current})
        }
        "json" => {
            let operations = json_patch(maker.dice, &original);
            json!({"original": original, "patch": operations})
        }
        "merge" => {
            let changed = maker.changed(&original);
            let mut change = maker.part(&changed);
            nullify(maker.dice, &mut change, 0);
            json!({"original": original, "patch": change})
        }
        _ => {
            let steps: Vec<Value> = (0..5).map(|_| step(&mut maker, &original)).collect();
            json!({"steps": steps})
        }
    }
}

fn step(maker: &mut Maker<'_>, base: &Value) -> Value {
    let object = maker.changed(base);
    let apply = maker.dice.chance(75);
    let object = if apply { maker.part(&object) } else { object };
    json!({"apply": apply, "force": maker.dice.chance(40), "manager": maker.dice.pick(&["x", "y", "z"]), "object": object})
}

/// Puts null in the place of some values.
fn nullify(dice: &mut Dice, value: &mut Value, depth: usize) {
    if let Value::Object(map) = value {
        for value in map.values_mut() {
            if depth > 0 && dice.chance(10) {
                *value = Value::Null;
            } else {
                nullify(dice, value, depth + 1);
            }
        }
    }
}

/// Operations on places that are there, and on some that are not.
fn json_patch(dice: &mut Dice, object: &Value) -> Value {
    let count = dice.below(4) + 1;
    let operation = |dice: &mut Dice| {
        let path = place(dice, object);
        let value = object.pointer(&place(dice, object)).cloned().unwrap_or_else(|| json!("a"));
        match *dice.pick(&["add", "remove", "replace", "copy", "move", "test"]) {
            "remove" => json!({"op": "remove", "path": path}),
            word @ ("copy" | "move") => json!({"op": word, "from": place(dice, object), "path": path}),
            "test" => {
                json!({"op": "test", "path": path, "value": if dice.chance(70) { object.pointer(&path).cloned().unwrap_or_default() } else { value }})
            }
            word => json!({"op": word, "path": path, "value": value}),
        }
    };
    Value::Array((0..count).map(|_| operation(dice)).collect())
}

fn place(dice: &mut Dice, object: &Value) -> String {
    let (mut path, mut value) = (String::new(), object);
    loop {
        let next = match value {
            Value::Object(map) if !map.is_empty() => map.keys().nth(dice.below(map.len())).unwrap().clone(),
            Value::Array(items) if !items.is_empty() => dice.below(items.len()).to_string(),
            _ => return path,
        };
        if dice.chance(6) {
            let odd = ["-", "new", "0", "7", "-1", "01", "a~1b", "a~0b", ""];
            return format!("{path}/{}", dice.pick(&odd));
        }
        path = format!("{path}/{}", next.replace('~', "~0").replace('/', "~1"));
        value = object.pointer(&path).unwrap();
        if dice.chance(20) {
            return path;
        }
    }
}

fn selector(dice: &mut Dice) -> Value {
    let words = [
        "a", "b", "c.d/e", "x_y", "in", "notin", "=", "==", "!=", "!", "(", ")", ",", " ", ">", "<", "1", "5", "-", "", "\\,",
        "\\=",
    ];
    let terms = ["a=b", "a in (b,c)", "a notin (b)", "!a", "a", "c.d/e != x", "a>1", "x_y<5", "a==", "b in (,a)", "a = b "];
    let count = dice.below(4);
    let mut text: Vec<&str> = (0..count).map(|_| *dice.pick(&terms)).collect();
    if dice.chance(30) {
        let count = dice.below(6);
        text.extend((0..count).map(|_| *dice.pick(&words)));
    }
    let glue = if dice.chance(80) { "," } else { "" };
    let mut labels = Map::new();
    for key in ["a", "b", "c.d/e", "x_y"] {
        if dice.chance(50) {
            labels.insert(key.into(), json!(dice.pick(&["b", "c", "1", "3", ""])));
        }
    }
    json!({"text": text.join(glue), "labels": labels})
}

fn number(dice: &mut Dice) -> String {
    let suffixes = [
        "", "m", "u", "n", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e3", "E-2", "e+1", "x", " ", "K",
        "mi", "e", "E3i",
    ];
    let sign = ["", "", "", "-", "+"];
    let whole = ["0", "1", "5", "10", "100", "999", "1000", "1024", "1500", "12345678901", "9223372036854775807", "", "00", "01"];
    let fraction = ["", "", "", ".5", ".", ".25", ".001", ".0000000001", ".999999999", ".1000"];
    format!("{}{}{}{}", dice.pick(&sign), dice.pick(&whole), dice.pick(&fraction), dice.pick(&suffixes))
}

impl Case {
    /// How Knarr's answer differs from theirs, if it does.
    pub fn compare(&self, theirs: &Value) -> Comparison {
        let ours = self.answer(theirs);
        let theirs = match theirs.get("ok") {
            Some(value) => Ok(self.result(value)),
            None => Err(theirs["error"].as_str().unwrap_or_default().to_owned()),
        };
        let same = match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) => ours == theirs,
            (Err(_), Err(_)) => true,
            _ => false,
        };
        if same {
            return Comparison::Same;
        }
        if let Some(reason) = known::reason(self.operation, &self.question, &ours, &theirs) {
            return Comparison::Known(reason);
        }
        Comparison::Different(match (&theirs, &ours) {
            (Ok(theirs), Ok(ours)) => {
                let mut lines = String::new();
                places(theirs, ours, "", &mut lines);
                lines
            }
            (theirs, ours) => format!("  upstream {theirs:?}\n  here     {ours:?}\n"),
        })
    }

    /// What of their answer is compared.
    fn result(&self, theirs: &Value) -> Value {
        match self.operation {
            "two-way" | "three-way" => theirs["result"].clone(),
            _ => theirs.clone(),
        }
    }

    fn answer(&self, theirs: &Value) -> Outcome {
        let q = &self.question;
        let text = q["text"].as_str().unwrap_or_default();
        let strategic = |original: &Value, patch: &Value| patch::strategic(Schema::builtin(), self.ty, original, patch);
        match self.operation {
            "strategic" => strategic(&q["original"], &q["patch"]).map_err(|status| status.message),
            // A patch that upstream could not make is no question.
            "two-way" | "three-way" if theirs.get("ok").is_none() => Err("no patch".into()),
            "two-way" => strategic(&q["original"], &theirs["ok"]["patch"]).map_err(|status| status.message),
            "three-way" => strategic(&q["current"], &theirs["ok"]["patch"]).map_err(|status| status.message),
            "json" => patch::json(&q["original"], &q["patch"]).map_err(|status| status.message),
            "merge" => patch::merge(&q["original"], &q["patch"]).map_err(|status| status.message),
            "labels" => label_selector(text, &q["labels"]),
            "fields" => field_selector(text, &q["labels"]),
            "yaml" => document(text),
            "quantity" => quantity(text, q["other"].as_str().unwrap_or_default()),
            _ => Ok(Value::Array(self.story())),
        }
    }

    /// One write after the other.
    fn story(&self) -> Vec<Value> {
        let types = Types::Builtin(Schema::builtin(), self.ty);
        let mut live: Option<Value> = None;
        let mut answers = Vec::new();
        for step in self.question["steps"].as_array().into_iter().flatten() {
            match self.write(types, live.as_ref(), step) {
                Ok(mut object) => {
                    answers.push(json!({"ok": object}));
                    meta::set(&mut object, "uid", "u");
                    live = Some(object);
                }
                Err(status) => answers.push(json!({"error": explain(&status)})),
            }
        }
        answers
    }

    fn write(&self, types: Types<'_>, live: Option<&Value>, step: &Value) -> Result<Value, Status> {
        let by = By { manager: step["manager"].as_str().unwrap(), subresource: "", now: "2026-01-01T00:00:00Z", reset: &[] };
        let mut object = if step["apply"] == true {
            apply::apply(types.into(), live, &step["object"], &by, step["force"] == true)?
        } else {
            let mut object = step["object"].clone();
            if let Some(live) = live {
                meta::set_managed_fields(&mut object, meta::managed_fields(live).to_vec());
                meta::set(&mut object, "uid", meta::uid(live));
            }
            apply::update(types.into(), live, &mut object, &by);
            object
        };
        schema::decode(Schema::builtin(), self.ty, &mut object).map_err(|why| Status::bad_request(why.to_string()))?;
        if let Some(live) = live {
            apply::keep_times(live, &mut object);
        }
        let entries = object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut);
        for entry in entries.into_iter().flatten() {
            entry.as_object_mut().unwrap().remove("time");
        }
        Ok(object)
    }
}

/// Where two values differ.
fn places(theirs: &Value, ours: &Value, path: &str, out: &mut String) {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            let null = Value::Null;
            for key in keys {
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => places(a, b, &format!("{path}/{key}"), out),
                    (a, b) => tell(&format!("{path}/{key}"), a.unwrap_or(&null), b.unwrap_or(&null), out),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().for_each(|(at, (a, b))| places(a, b, &format!("{path}/{at}"), out));
        }
        _ if theirs == ours => {}
        _ => tell(path, theirs, ours, out),
    }
}

fn tell(path: &str, theirs: &Value, ours: &Value, out: &mut String) {
    let _ = writeln!(out, "  at {path}\n    upstream {theirs}\n    here     {ours}");
}

/// Conflicts by their fields, as the oracle tells them.
fn explain(status: &Status) -> String {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let fields: BTreeSet<_> = causes.map(|cause| cause.field.clone()).collect();
    let fields: Vec<_> = fields.into_iter().collect();
    if status.code == 409 { format!("conflict: {}", fields.join(" ")) } else { format!("refused: {}", status.message) }
}

fn label_selector(text: &str, set: &Value) -> Outcome {
    let selector = labels::Selector::parse(text).map_err(|why| why.to_string())?;
    let object = json!({"metadata": {"labels": set}});
    Ok(json!({"text": selector.to_string(), "matches": selector.matches_object(&object)}))
}

fn field_selector(text: &str, set: &Value) -> Outcome {
    let selector = fields::Selector::parse(text).map_err(|why| why.to_string())?;
    let get = |field: &str| set[field].as_str().unwrap_or_default();
    Ok(json!({"text": selector.to_string(), "matches": selector.matches(get)}))
}

fn document(text: &str) -> Outcome {
    let (value, told) = yaml::parse(text).map_err(|why| why.to_string())?;
    Ok(json!({"value": value, "strict": told.concat()}))
}

fn quantity(text: &str, other: &str) -> Outcome {
    let one = Quantity::parse(text).map_err(|why| why.to_string())?;
    let other = Quantity::parse(other).map_err(|why| why.to_string())?;
    let order = one.cmp(&other) as i8;
    let kept = schema::quantity::canonical(text).map_err(|why| why.to_string())?;
    Ok(json!({"text": one.to_string(), "kept": kept, "value": one.as_i64(), "milli": one.as_milli(), "order": order}))
}
