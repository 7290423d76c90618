//! What macros over elements cost: as much as the loops that upstream makes of them.

use super::{Coster, Entries, KEY, LIST, Local, MAP, STEP, Size, UNKNOWN, place};
use crate::ast::{Each, Expr};
use crate::types::{Form, Type};

impl<'a> Coster<'a> {
    pub(super) fn each(
        &mut self,
        expr: &'a Expr,
        each: Each,
        range: &'a Expr,
        (first, second): (&'a str, Option<&'a str>),
        body: &'a [Expr],
    ) -> u64 {
        let of_range = self.cost(range);
        let locals = match second {
            Some(second) => vec![self.key(first, range), self.inner(second, range)],
            None => vec![self.item(first, range)],
        };
        let depth = self.locals.len();
        self.locals.extend(locals);
        let bodies: Vec<u64> = body.iter().map(|one| self.cost(one)).collect();
        // The variable itself is the element of what a filter keeps.
        let element = if each == Each::Map { body.last().map(|last| self.size_or_unknown(last)) } else { None };
        let scalar = self.types.of(range).parameters().first().is_some_and(Type::is_scalar).then(|| Size::exactly(1));
        let own = self.locals.get(depth).and_then(|local| local.path.size().or(scalar).or(local.size)).unwrap_or(UNKNOWN);
        self.locals.truncate(depth);
        let (round, around) = round(each, &bodies);
        let rounds = self.size_or_unknown(range);
        self.made(expr, each, rounds, element.unwrap_or(own));
        of_range.saturating_add(around).saturating_add(rounds.most.saturating_mul(round))
    }

    /// The size of what a macro makes.
    fn made(&mut self, expr: &'a Expr, each: Each, rounds: Size, element: Size) {
        let size = match each {
            Each::All | Each::Exists | Each::ExistsOne => Size::exactly(1),
            _ => rounds,
        };
        self.sizes.insert(place(expr), size);
        if matches!(each, Each::Filter | Each::Map) {
            let empty = Size { least: 0, most: 0 };
            self.entries.insert(place(expr), Entries { is_list: true, key: Size::exactly(1), value: element.or(empty) });
        }
    }

    fn is_list(&self, range: &Expr) -> bool {
        let entries = self.entries_of(range);
        entries.map_or_else(|| matches!(self.types.of(range), Type::List(_)), |entries| entries.is_list)
    }

    /// The only variable of a macro: an element of a list, or a key of a map.
    fn item(&self, name: &'a str, range: &'a Expr) -> Local<'a> {
        if self.is_list(range) { self.inner(name, range) } else { self.key(name, range) }
    }

    /// What a position or a key is of.
    fn key(&self, name: &'a str, range: &'a Expr) -> Local<'a> {
        let is_list = self.is_list(range);
        let path = self.step(range, |here| match (is_list, &here.form) {
            (false, Form::Map(_)) => Some(&*KEY),
            _ => None,
        });
        Local { name, path, size: self.entries_of(range).map(|entries| entries.key), entries: None }
    }

    /// What is at a position or under a key.
    fn inner(&self, name: &'a str, range: &'a Expr) -> Local<'a> {
        let path = self.step(range, |here| here.element());
        Local { name, path, size: self.entries_of(range).map(|entries| entries.value), entries: None }
    }
}

/// What each round costs, and what comes before and behind the rounds.
fn round(each: Each, bodies: &[u64]) -> (u64, u64) {
    let all = bodies.iter().fold(0, |sum: u64, body| sum.saturating_add(*body));
    match each {
        Each::All => (all.saturating_add(STEP + 2), STEP),
        Each::Exists => (all.saturating_add(STEP + 3), STEP),
        Each::ExistsOne => (all.saturating_add(2), 2),
        Each::Filter => (all.saturating_add(STEP + LIST + 2), LIST + STEP),
        Each::Map => (all.saturating_add(STEP + LIST + 1), LIST + STEP),
        Each::TransformMap => (all.saturating_add(2 * STEP + 1), MAP + STEP),
        Each::TransformMapEntry => (all.saturating_add(STEP + 1), MAP + STEP),
    }
}
