//! What an expression is.

use std::collections::HashSet;
use std::sync::Arc;

use crate::ast::{Binary, Each, Expr, Node};
use crate::authorization::Authorize;
use crate::budget::Budget;
use crate::charge;
use crate::definitions::Definitions;
use crate::error::Error;
use crate::functions::{Body, Function, authorization};
use crate::operators::{binary, unary};
use crate::value::keys::paid;
use crate::value::made::{Items, Text};
use crate::value::{List, Value};

/// What an expression is evaluated in.
pub struct Environment<'a, 'b> {
    /// The variables.
    pub variables: &'b [(&'a str, Value<'a>)],
    /// Named expressions, if it may use any.
    pub definitions: Option<&'b mut Definitions<'a>>,
    /// Who answers `authorizer...check(...)`, if it may ask.
    pub authorizer: Option<&'b dyn Authorize>,
}

pub(crate) fn evaluate<'a>(root: &'a Expr, given: Environment<'a, '_>, budget: &mut Budget) -> Result<Value<'a>, Error> {
    let (variables, definitions, authorizer) = (given.variables.to_vec(), given.definitions, given.authorizer);
    let patterns = HashSet::new();
    let mut scope = Scope { globals: variables.len(), variables, definitions, authorizer, budget, patterns };
    scope.value(root)
}

struct Scope<'a, 'b> {
    variables: Vec<(&'a str, Value<'a>)>,
    /// How many variables are there everywhere; those behind them are of macros.
    globals: usize,
    definitions: Option<&'b mut Definitions<'a>>,
    authorizer: Option<&'b dyn Authorize>,
    budget: &'b mut Budget,
    /// Those that the values of an expression have made.
    patterns: HashSet<Text<'a>>,
}

/// How deep what expressions make may be nested: more than one expression may write in brackets. Whatever goes through a value, as its end does,
/// calls itself as often.
const DEEPEST: u32 = 64;

impl<'a> Scope<'a, '_> {
    fn value(&mut self, expr: &'a Expr) -> Result<Value<'a>, Error> {
        self.budget.descend()?;
        let found = self.found(expr);
        self.budget.ascend();
        match found {
            Ok(value) if value.depth() > DEEPEST => Err(Error::Budget),
            found => found,
        }
    }

    fn found(&mut self, expr: &'a Expr) -> Result<Value<'a>, Error> {
        match &expr.node {
            Node::Literal(value) => Ok(value.clone()),
            Node::Variable(name) => {
                self.budget.spend(1)?;
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map(|(_, value)| value.clone()).ok_or_else(|| Error::Other(format!("no such attribute: {name}")))
            }
            Node::Select { operand, field, optional: false } if self.defines(operand) => {
                self.budget.spend(1)?;
                self.defined(field)
            }
            Node::Has { operand, field } if self.defines(operand) => {
                self.budget.spend(1)?;
                Ok(Value::Bool(self.definitions.as_ref().is_some_and(|definitions| definitions.position(field).is_some())))
            }
            Node::Select { operand, field, optional } => {
                self.budget.spend(1)?;
                let operand = self.value(operand)?;
                if *optional || matches!(operand, Value::Optional(_)) {
                    return Ok(optional_member(operand, &|value| select(value, field)));
                }
                select(&operand, field)
            }
            Node::Has { operand, field } => {
                self.budget.spend(1)?;
                has(self.value(operand)?, field)
            }
            Node::Index { operand, index, optional } => {
                self.budget.spend(1)?;
                let (operand, at) = (self.value(operand)?, self.value(index)?);
                if let Value::Map(map) = &operand {
                    self.budget.spend(charge::found(map, &at))?;
                }
                if *optional || matches!(operand, Value::Optional(_)) {
                    return Ok(optional_member(operand, &|value| index_of(value, &at)));
                }
                index_of(&operand, &at)
            }
            Node::Call { function, arguments, .. } if matches!(function.name, "or" | "orValue") => {
                self.otherwise(function, arguments)
            }
            // Whatever is not there has been refused before.
            Node::Unknown { .. } => Err(Error::NoOverload),
            Node::Call { function, arguments, .. } => self.call(function, arguments),
            Node::Unary(operator, operand) => {
                self.budget.spend(1)?;
                unary(*operator, self.value(operand)?)
            }
            // Nothing is in an empty list, whatever it is.
            Node::Binary(Binary::In, _, right) if matches!(&right.node, Node::List(items) if items.is_empty()) => {
                self.budget.spend(1)?;
                Ok(Value::Bool(false))
            }
            Node::Binary(operator, left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.binary(*operator, &left, &right)
            }
            Node::And(left, right) => self.junction(left, right, false),
            Node::Or(left, right) => self.junction(left, right, true),
            Node::If(parts) => {
                let [condition, yes, no] = &**parts;
                match self.value(condition)? {
                    Value::Bool(true) => self.value(yes),
                    Value::Bool(false) => self.value(no),
                    _ => Err(Error::NoOverload),
                }
            }
            Node::List(items) => self.list(items),
            Node::Map(entries) => self.map(entries),
            Node::Object { fields, .. } => self.object(fields),
            Node::Each { each, range, variable, second, body } => self.each(*each, range, (variable, second.as_deref()), body),
            Node::Bind { variable, value, body } => {
                let value = self.value(value)?;
                self.with(variable, value, body)
            }
        }
    }

    fn call(&mut self, function: &Function, arguments: &'a [Expr]) -> Result<Value<'a>, Error> {
        let values = arguments.iter().map(|one| self.value(one)).collect::<Result<Vec<_>, _>>()?;
        let charged = charge::call(function.name, &values, self.budget.left()).max(values.iter().map(charge::least).sum());
        self.budget.spend(charged)?;
        if function.name == authorization::CHECK {
            return authorization::check(self.authorizer, &values);
        }
        if let ("matches" | "find" | "findAll", [_, pattern, ..], [_, Value::Text(text), ..]) =
            (function.name, arguments, &*values)
            && !matches!(pattern.node, Node::Literal(_))
            && self.patterns.insert(text.clone())
        {
            self.budget.spend(charge::compiled(text))?;
        }
        let result = match function.body {
            Body::Run(run) => run(&values)?,
            Body::Compare(compare) => paid(self.budget, charged, |work| compare(&values, work))?,
        };
        // What it has made beyond what it was given.
        self.budget.spend(charge::least(&result).saturating_sub(charged))?;
        Ok(result)
    }

    fn binary(&mut self, operator: Binary, left: &Value<'a>, right: &Value<'a>) -> Result<Value<'a>, Error> {
        let mut charged = charge::operator(operator, left, right);
        if let (Binary::In, Value::Map(map)) = (operator, right) {
            charged = charged.max(charge::found(map, left));
        }
        if operator == Binary::Add {
            charged = charged.max(charge::least(left) + charge::least(right));
        }
        self.budget.spend(charged)?;
        paid(self.budget, charged, |work| binary(operator, left, right, work))
    }

    /// `a.or(b)` and `a.orValue(b)`: where there is a value, the other one is not looked at.
    fn otherwise(&mut self, function: &Function, arguments: &'a [Expr]) -> Result<Value<'a>, Error> {
        let [operand, other] = arguments else { return Err(Error::NoOverload) };
        self.budget.spend(1)?;
        match self.value(operand)? {
            Value::Optional(Some(inner)) if function.name == "orValue" => Ok(Value::clone(&inner)),
            found @ Value::Optional(Some(_)) => Ok(found),
            Value::Optional(None) => match (function.name, self.value(other)?) {
                ("orValue", value) | (_, value @ Value::Optional(_)) => Ok(value),
                _ => Err(Error::NoOverload),
            },
            _ => Err(Error::NoOverload),
        }
    }

    /// Whether an expression is the name under which definitions are found.
    fn defines(&self, operand: &Expr) -> bool {
        match (&operand.node, &self.definitions) {
            (Node::Variable(name), Some(definitions)) => {
                name == definitions.of && !self.variables[self.globals..].iter().any(|(known, _)| known == name)
            }
            _ => false,
        }
    }

    /// What a definition is; it is evaluated when it is used first.
    fn defined(&mut self, name: &str) -> Result<Value<'a>, Error> {
        let Some(definitions) = &mut self.definitions else { return Err(Error::NoSuchKey(name.to_owned())) };
        let at = definitions.position(name).ok_or_else(|| Error::NoSuchKey(name.to_owned()))?;
        if let Some(known) = &definitions.known[at] {
            return known.clone();
        }
        let program = definitions.begin(at)?;
        // What macros around have bound is not seen there.
        let bound = self.variables.split_off(self.globals);
        let result = self.value(program);
        self.variables.truncate(self.globals);
        self.variables.extend(bound);
        if let Some(definitions) = &mut self.definitions {
            definitions.known[at] = Some(result.clone());
        }
        result
    }

    fn object(&mut self, fields: &'a [(String, Expr, bool)]) -> Result<Value<'a>, Error> {
        self.budget.spend(40)?;
        let mut out: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(fields.len());
        for (name, value, optional) in fields {
            let key = Value::text(name.as_str());
            match (self.value(value)?, optional) {
                (Value::Optional(inner), true) => out.extend(inner.map(|inner| (key, Value::clone(&inner)))),
                (_, true) => return Err(Error::NoOverload),
                (value, false) => out.push((key, value)),
            }
        }
        Ok(Value::map(out))
    }

    fn with(&mut self, variable: &'a str, value: Value<'a>, body: &'a Expr) -> Result<Value<'a>, Error> {
        self.variables.push((variable, value));
        let result = self.value(body);
        self.variables.pop();
        result
    }

    /// `&&` and `||`: one side that decides is enough, whatever the other one is.
    fn junction(&mut self, left: &'a Expr, right: &'a Expr, decisive: bool) -> Result<Value<'a>, Error> {
        let decides = |value: &Result<Value<'a>, Error>| matches!(value, Ok(Value::Bool(value)) if *value == decisive);
        let first = self.value(left);
        if decides(&first) || first == Err(Error::Budget) {
            return first;
        }
        let second = self.value(right);
        if decides(&second) || second == Err(Error::Budget) {
            return second;
        }
        match (first?, second?) {
            (Value::Bool(_), Value::Bool(_)) => Ok(Value::Bool(!decisive)),
            _ => Err(Error::NoOverload),
        }
    }

    fn list(&mut self, items: &'a [(Expr, bool)]) -> Result<Value<'a>, Error> {
        self.budget.spend(10)?;
        let mut out = Vec::with_capacity(items.len());
        for (item, optional) in items {
            match (self.value(item)?, optional) {
                (Value::Optional(inner), true) => out.extend(inner.map(|inner| Value::clone(&inner))),
                (_, true) => return Err(Error::NoOverload),
                (value, false) => out.push(value),
            }
        }
        Ok(Value::list(out))
    }

    fn map(&mut self, entries: &'a [(Expr, Expr, bool)]) -> Result<Value<'a>, Error> {
        self.budget.spend(30)?;
        let mut out: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(entries.len());
        for (key, value, optional) in entries {
            let key = self.value(key)?;
            if out.iter().any(|(known, _)| known.is_key(&key)) {
                return Err(Error::Other("Failed with repeated key".to_owned()));
            }
            match (self.value(value)?, optional) {
                (Value::Optional(inner), true) => out.extend(inner.map(|inner| (key, Value::clone(&inner)))),
                (_, true) => return Err(Error::NoOverload),
                (value, false) => out.push((key, value)),
            }
        }
        Ok(Value::map(out))
    }

    /// The macros over elements.
    fn each(
        &mut self,
        each: Each,
        range: &'a Expr,
        (first, second): (&'a str, Option<&'a str>),
        body: &'a [Expr],
    ) -> Result<Value<'a>, Error> {
        let range = self.value(range)?;
        let keys;
        let (list, map) = match &range {
            Value::List(list) => (list, None),
            Value::Map(map) => {
                self.budget.spend(map.len() as u64 / 8)?;
                keys = List::Made(Items::new(map.keys()));
                (&keys, Some(map))
            }
            _ => return Err(Error::NoOverload),
        };
        let mut outcome = Outcome::new(each);
        for (index, item) in list.iter().enumerate() {
            // As much as the folding of a list costs upstream.
            self.budget.spend(3)?;
            let (own, inner) = match (second, map) {
                (None, _) => (item, None),
                (Some(_), None) => (Value::Int(i64::try_from(index).unwrap_or(i64::MAX)), Some(item)),
                (Some(_), Some(map)) => (item.clone(), map.get(&item)),
            };
            let depth = self.variables.len();
            self.variables.push((first, own.clone()));
            self.variables.extend(second.zip(inner));
            let result = self.step(each, body);
            self.variables.truncate(depth);
            if outcome.take(own, result)? {
                break;
            }
        }
        outcome.finish()
    }

    fn step(&mut self, each: Each, body: &'a [Expr]) -> Result<Option<Value<'a>>, Error> {
        match (each, body) {
            (Each::Map | Each::TransformMap | Each::TransformMapEntry, [condition, value]) => match self.value(condition)? {
                Value::Bool(true) => self.value(value).map(Some),
                Value::Bool(false) => Ok(None),
                _ => Err(Error::NoOverload),
            },
            (_, [one, ..]) => self.value(one).map(Some),
            (_, []) => Err(Error::NoOverload),
        }
    }
}

/// What a macro has found so far.
struct Outcome<'a> {
    each: Each,
    found: Vec<Value<'a>>,
    entries: Entries<'a>,
    count: usize,
    failed: Option<Error>,
}

impl<'a> Outcome<'a> {
    fn new(each: Each) -> Self {
        Self { each, found: Vec::new(), entries: Entries::default(), count: 0, failed: None }
    }

    /// Takes in one element's result; whether that decides.
    fn take(&mut self, item: Value<'a>, result: Result<Option<Value<'a>>, Error>) -> Result<bool, Error> {
        let decisive = match self.each {
            Each::All => Some(false),
            Each::Exists => Some(true),
            Each::ExistsOne | Each::Filter | Each::Map | Each::TransformMap | Each::TransformMapEntry => None,
        };
        match (result, decisive) {
            (Err(Error::Budget), _) => return Err(Error::Budget),
            // Another element may decide all the same.
            (Err(error), Some(_)) => drop(self.failed.get_or_insert(error)),
            (Err(error), None) => return Err(error),
            (Ok(Some(Value::Bool(value))), Some(decisive)) => {
                if value == decisive {
                    self.count = 1;
                    return Ok(true);
                }
            }
            (Ok(value), None) if self.each == Each::Map => self.found.extend(value),
            (Ok(value), None) if self.each == Each::TransformMap => {
                value.map_or(Ok(()), |value| self.entries.insert(item, value))?;
            }
            (Ok(value), None) if self.each == Each::TransformMapEntry => match value {
                None => {}
                Some(Value::Map(map)) => {
                    map.keys().into_iter().try_for_each(|key| match map.get(&key) {
                        Some(value) => self.entries.insert(key, value),
                        None => Ok(()),
                    })?;
                }
                Some(_) => return Err(Error::NoOverload),
            },
            (Ok(Some(Value::Bool(value))), None) => {
                self.count += usize::from(value);
                if value && self.each == Each::Filter {
                    self.found.push(item);
                }
            }
            (Ok(_), _) => return Err(Error::NoOverload),
        }
        Ok(false)
    }

    fn finish(self) -> Result<Value<'a>, Error> {
        match self.each {
            Each::Filter | Each::Map => Ok(Value::list(self.found)),
            Each::TransformMap | Each::TransformMapEntry => Ok(Value::map(self.entries.all)),
            Each::ExistsOne => Ok(Value::Bool(self.count == 1)),
            Each::All | Each::Exists if self.count == 1 => Ok(Value::Bool(self.each == Each::Exists)),
            Each::All | Each::Exists => match self.failed {
                Some(error) => Err(error),
                None => Ok(Value::Bool(self.each == Each::All)),
            },
        }
    }
}

/// Most keys of a map that are neither texts nor whole numbers: cel-spec has no others but `true` and `false`.
const OTHERS: usize = 100;

/// The entries of a map that is being made.
#[derive(Default)]
struct Entries<'a> {
    all: Vec<(Value<'a>, Value<'a>)>,
    /// The keys that are texts, and those that are whole numbers, which most are.
    texts: HashSet<Text<'a>>,
    numbers: HashSet<i128>,
    /// How many are neither.
    others: usize,
}

impl<'a> Entries<'a> {
    fn insert(&mut self, key: Value<'a>, value: Value<'a>) -> Result<(), Error> {
        let new = match &key {
            Value::Text(text) => self.texts.insert(text.clone()),
            Value::Int(number) if self.others == 0 => self.numbers.insert((*number).into()),
            Value::Uint(number) if self.others == 0 => self.numbers.insert((*number).into()),
            key => {
                self.others += 1;
                if self.others > OTHERS {
                    return Err(Error::Budget);
                }
                !self.all.iter().any(|(known, _)| known.is_key(key))
            }
        };
        if !new {
            return Err(Error::Other(format!("insert failed: key {} already exists", crate::functions::show(&key))));
        }
        self.all.push((key, value));
        Ok(())
    }
}

fn select<'a>(operand: &Value<'a>, field: &str) -> Result<Value<'a>, Error> {
    match operand {
        Value::Map(map) => map.select(field).ok_or_else(|| Error::NoSuchKey(field.to_owned())),
        Value::Question(question) if field == "requestResource" => {
            question.about_request.clone().map(Value::Question).ok_or_else(|| Error::NoSuchKey(field.to_owned()))
        }
        Value::List(_) | Value::Optional(_) => Err(Error::NoOverload),
        // Null and all other values have no members, so that none is there (cel-go, `refQualify`).
        _ => Err(Error::NoSuchKey(field.to_owned())),
    }
}

fn index_of<'a>(operand: &Value<'a>, index: &Value<'a>) -> Result<Value<'a>, Error> {
    match (operand, index) {
        (Value::List(list), Value::Int(at)) => {
            usize::try_from(*at).ok().and_then(|at| list.get(at)).ok_or(Error::OutOfBounds(*at))
        }
        (Value::List(list), Value::Uint(at)) => {
            let shown = i64::try_from(*at).unwrap_or(i64::MAX);
            usize::try_from(*at).ok().and_then(|at| list.get(at)).ok_or(Error::OutOfBounds(shown))
        }
        (Value::Map(map), key) => map.get(key).ok_or_else(|| Error::NoSuchKey(crate::functions::show(key))),
        (Value::List(_) | Value::Optional(_), _) => Err(Error::NoOverload),
        // Null and all other values have no members, whatever key of a map asks for one.
        (_, key @ (Value::Text(_) | Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_))) => {
            Err(Error::NoSuchKey(crate::functions::show(key)))
        }
        _ => Err(Error::NoOverload),
    }
}

/// A member that may be missing, of a value that may be, too.
fn optional_member<'a>(operand: Value<'a>, member: &dyn Fn(&Value<'a>) -> Result<Value<'a>, Error>) -> Value<'a> {
    let found = match &operand {
        Value::Optional(None) => return operand,
        Value::Optional(Some(inner)) => member(inner),
        value => member(value),
    };
    Value::Optional(found.ok().map(Arc::new))
}

/// `has(operand.field)`: true where the field is, false where the operand is a map without it or has no members at all.
fn has<'a>(operand: Value<'a>, field: &str) -> Result<Value<'a>, Error> {
    let found = match &operand {
        Value::Map(map) => map.select(field).is_some(),
        Value::Optional(None) => false,
        Value::Optional(Some(inner)) => return has((**inner).clone(), field),
        other => match select(other, field) {
            Ok(_) => true,
            Err(Error::NoSuchKey(_)) => false,
            Err(error) => return Err(error),
        },
    };
    Ok(Value::Bool(found))
}
