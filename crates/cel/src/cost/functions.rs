//! What functions cost beyond their arguments, and how large their results are.

use super::{Coster, LIST, Size, TRAVERSAL, UNKNOWN, place, scaled};
use crate::ast::{Expr, Node};
use crate::check::signatures::Signature;
use crate::types::Type;
use crate::value::Value;

/// Of a regular expression, by its length: what it is made of has four characters or so.
const PATTERN: f64 = 0.25;
/// What is taken for the length of the pattern of a format.
const FORMAT_PATTERN: f64 = 128.0;
/// The most characters of a format's name.
const FORMAT: u64 = 64;
/// Allows for two checks in an expression.
const CHECK: u64 = 350_000;

/// The cost, and the size of the result where that is known.
type Estimate = (u64, Option<Size>);

impl<'a> Coster<'a> {
    /// What one way to call a function costs.
    pub(super) fn function(
        &mut self,
        expr: &'a Expr,
        name: &str,
        signature: &Signature,
        method: bool,
        arguments: &[&'a Expr],
    ) -> Estimate {
        let known = match (method, arguments) {
            (true, [target, rest @ ..]) => self.method(name, signature, target, rest),
            (_, all) => self.global(expr, name, signature, all),
        };
        known.unwrap_or((1, None))
    }

    fn method(&mut self, name: &str, signature: &Signature, target: &'a Expr, rest: &[&'a Expr]) -> Option<Estimate> {
        let own = self.size_or_unknown(target);
        let first = rest.first().map_or(UNKNOWN, |first| self.size_or_unknown(first));
        let takes_text = signature.arguments.get(1) == Some(&Type::String);
        Some(match name {
            "slice" => {
                let start = literal(rest.first(), 0);
                // Upstream's numbers wrap where a part ends before it begins.
                made(1.0, Size::exactly(literal(rest.get(1), own.most).wrapping_sub(start)))
            }
            "reverse" => made(1.0, own),
            "flatten" => made(if rest.is_empty() { 1.0 } else { literal(rest.first(), u64::MAX) as f64 }, own),
            "distinct" => match self.types.of(target) {
                Type::List(element) => compared_all(&element, own),
                _ => compared_all(&Type::Dyn, own),
            },
            "sort" => match signature.arguments.first() {
                Some(Type::List(element)) => compared_all(element, own),
                _ => compared_all(&Type::Dyn, own),
            },
            "@sortByAssociatedKeys" => match signature.arguments.get(1) {
                Some(Type::List(key)) => compared_all(key, first),
                _ => compared_all(&Type::Dyn, first),
            },
            "check" => (CHECK, None),
            "fieldSelector" | "labelSelector" => {
                let requirements = scaled(first.most, 0.5);
                let cost = 10_u64.saturating_add(first.scaled(TRAVERSAL));
                (cost.saturating_add(scaled(requirements, 50.0)), None)
            }
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => (self.comparisons(target, own), None),
            "lowerAscii" | "upperAscii" | "substring" | "trim" => (own.scaled(TRAVERSAL), Some(own)),
            "replace" => {
                let with = rest.get(1).map_or(UNKNOWN, |with| self.size_or_unknown(with));
                (own.scaled(2.0 * TRAVERSAL), Some(replaced(own, first, with)))
            }
            "split" => {
                let most = match rest.get(1).map(|limit| &limit.node) {
                    Some(Node::Literal(Value::Int(limit))) => *limit as u64,
                    _ => own.most,
                };
                (own.scaled(2.0 * TRAVERSAL), Some(Size { least: 0, most }))
            }
            "join" => {
                let size = self.joined_size(target, own, rest.first().map(|_| first));
                (size.scaled(TRAVERSAL), Some(size))
            }
            "find" | "findAll" => (matched(own, first), Some(Size { least: 0, most: own.most })),
            "matches" => (matched(own, first), None),
            "contains" => (own.scaled(TRAVERSAL).saturating_mul(first.scaled(TRAVERSAL)), None),
            "startsWith" | "endsWith" => (first.scaled(TRAVERSAL), None),
            "format" => (own.scaled(TRAVERSAL), None),
            // Two addresses of 16 bytes, and the text of one.
            "containsIP" => (scaled(32, TRAVERSAL).saturating_add(text_cost(takes_text, first)), None),
            "containsCIDR" => {
                let compared = scaled(32, TRAVERSAL) + scaled(16, TRAVERSAL) + 1;
                (compared.saturating_add(text_cost(takes_text, first)), None)
            }
            "validate" => (scaled(first.scaled(TRAVERSAL), FORMAT_PATTERN * PATTERN), None),
            _ => return None,
        })
    }

    fn global(&mut self, expr: &'a Expr, name: &str, signature: &Signature, arguments: &[&'a Expr]) -> Option<Estimate> {
        let size = |at: usize| arguments.get(at).map_or(UNKNOWN, |one| self.size_or_unknown(one));
        let first = size(0);
        Some(match name {
            "url" | "jsonpatch.escapeKey" => (first.scaled(TRAVERSAL), Some(first)),
            "lists.range" => made(1.0, Size::exactly(literal(arguments.first(), u64::MAX))),
            "sets.contains" | "sets.intersects" => (first.times(size(1)).scaled(1.0).saturating_add(1), None),
            "sets.equivalent" => (first.times(size(1)).scaled(2.0).saturating_add(1), None),
            "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
                (first.scaled(TRAVERSAL), None)
            }
            "ip.isCanonical" => (first.scaled(2.0 * TRAVERSAL), None),
            "bytes" if signature.arguments == [Type::String] => {
                (first.scaled(TRAVERSAL), Some(Size { least: first.least, most: first.most.wrapping_mul(4) }))
            }
            "string" if signature.arguments == [Type::Bytes] => {
                (first.scaled(TRAVERSAL), Some(Size { least: first.least / 4, most: first.most }))
            }
            "strings.quote" => {
                let most = first.most.saturating_mul(2).saturating_add(2);
                (first.scaled(TRAVERSAL), Some(Size { least: first.least.saturating_add(2), most }))
            }
            "@in" if matches!(signature.arguments.get(1), Some(Type::List(_))) => (size(1).most, None),
            "_+_" => self.added(expr, signature, arguments)?,
            "_==_" | "_!=_" => (self.compared(name == "_==_", arguments, first, size(1)), None),
            "_<_" | "_<=_" | "_>_" | "_>=_" if matches!(signature.arguments.first(), Some(Type::String | Type::Bytes)) => {
                (first.most.min(size(1).most).max_scaled(), None)
            }
            _ => return None,
        })
    }

    /// Two texts, or two lists, one after the other.
    fn added(&mut self, expr: &'a Expr, signature: &Signature, arguments: &[&'a Expr]) -> Option<Estimate> {
        let [left, right] = arguments else { return None };
        let size = self.size_or_unknown(left).plus(self.size_or_unknown(right));
        if let (Some(left), Some(right)) = (self.entries_of(left), self.entries_of(right)) {
            self.entries.insert(place(expr), left.or(right));
        }
        match signature.arguments.first()? {
            Type::List(_) => Some((1, Some(size))),
            Type::String | Type::Bytes => Some((size.scaled(TRAVERSAL), Some(size))),
            _ => None,
        }
    }

    /// Whether two values are equal: as much as the shorter one is to be looked at.
    fn compared(&self, equal: bool, arguments: &[&'a Expr], left: Size, right: Size) -> u64 {
        if let (true, [a, b]) = (equal, arguments) {
            let (a, b) = (self.types.of(a), self.types.of(b));
            match a {
                Type::Opaque("kubernetes.URL") if a == b => return right.most.max(1).max_scaled(),
                Type::Opaque("kubernetes.NamedFormat") if a == b => return FORMAT.max_scaled(),
                Type::Opaque(_) if a == b => return 1,
                _ => {}
            }
        }
        left.most.min(right.most).max_scaled()
    }

    /// A comparison for each element, which of texts goes through them.
    fn comparisons(&self, list: &'a Expr, size: Size) -> u64 {
        let Type::List(element) = self.types.of(list) else { return size.scaled(TRAVERSAL) };
        let one = match *element {
            Type::String | Type::Bytes => 1_u64.saturating_add(self.element_size(list).scaled(TRAVERSAL)),
            _ => 1,
        };
        size.most.saturating_mul(one)
    }

    /// How large the elements of a list are, as far as that is declared.
    fn element_size(&self, list: &'a Expr) -> Size {
        match self.path(list) {
            super::Path::At(here) => here.element().map_or(UNKNOWN, |element| Size { least: 0, most: element.most }),
            _ => UNKNOWN,
        }
    }

    fn joined_size(&self, list: &'a Expr, count: Size, separator: Option<Size>) -> Size {
        let mut size = Size::exactly(0);
        if let Type::List(_) = self.types.of(list) {
            size = count.times(self.element_size(list));
        }
        let separators = Size { least: count.least.saturating_sub(1), most: count.most.saturating_sub(1) };
        separator.map_or(size, |separator| size.plus(separator.times(separators)))
    }
}

/// The cost of looking through so much.
trait MaxScaled {
    fn max_scaled(self) -> u64;
}

impl MaxScaled for u64 {
    fn max_scaled(self) -> u64 {
        scaled(self, TRAVERSAL)
    }
}

/// The cost of a list that is made, and its size.
fn made(factor: f64, size: Size) -> Estimate {
    (size.scaled(factor).saturating_add(LIST + 1), Some(size))
}

/// The cost of comparing each element with each other, and what upstream takes for the size of the result.
fn compared_all(element: &Type, size: Size) -> Estimate {
    let factor = if matches!(element, Type::String | Type::Bytes) { 2.0 + TRAVERSAL } else { 2.0 };
    made(factor, size.times(size))
}

/// The number that an argument is, where it stands in the expression.
fn literal(argument: Option<&&Expr>, otherwise: u64) -> u64 {
    match argument.map(|argument| &argument.node) {
        Some(Node::Literal(Value::Int(value))) => u64::try_from(*value).unwrap_or(0),
        _ => otherwise,
    }
}

fn text_cost(takes_text: bool, size: Size) -> u64 {
    if takes_text { size.scaled(TRAVERSAL) } else { 0 }
}

/// The cost of a regular expression: an empty text costs as much as one character.
fn matched(text: Size, pattern: Size) -> u64 {
    scaled(text.most.saturating_add(1), TRAVERSAL).saturating_mul(pattern.scaled(PATTERN))
}

/// How long a text is after one has been replaced by another.
fn replaced(own: Size, from: Size, with: Size) -> Size {
    let per = |size: u64, part: u64| (size as f64 / part as f64).ceil() as u64;
    // The longest result comes of the shortest parts that are replaced.
    let (most, kept_most) = match from.least {
        0 => (own.most.saturating_add(1), own.most),
        least if with.most <= least => (0, own.most),
        least => (per(own.most, least), 0),
    };
    let (least, kept_least) = match from.most {
        0 => (own.least.saturating_add(1), own.least),
        most if most <= with.least => (0, own.least),
        most => (per(own.least, most), 0),
    };
    Size { least, most }.times(with).plus(Size { least: kept_least, most: kept_most })
}
