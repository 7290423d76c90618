//! Whether a value of one type may stand where another one is expected, and what follows for types that are not known yet.

use crate::types::Type;

/// The most parts that a type is followed in.
const MOST_PARTS: usize = 200;

/// What is known of variables.
#[derive(Debug, Default)]
pub(crate) struct Unifier {
    known: Vec<Option<Type>>,
    /// What was known before, since the last mark: what does not fit leaves no trace.
    changes: Vec<(u32, Option<Type>)>,
}

impl Unifier {
    /// So many new variables.
    pub(crate) fn reserve(&mut self, count: u32) -> u32 {
        let base = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        self.known.resize(self.known.len() + count as usize, None);
        base
    }

    /// A new variable.
    pub(crate) fn fresh(&mut self) -> Type {
        Type::Variable(self.reserve(1))
    }

    fn find(&self, variable: u32) -> Option<&Type> {
        self.known.get(variable as usize)?.as_ref()
    }

    fn set(&mut self, variable: u32, ty: Type) {
        if let Some(known) = self.known.get_mut(variable as usize) {
            self.changes.push((variable, known.replace(ty)));
        }
    }

    /// A type as far as it is known, not what it is made of.
    pub(crate) fn shallow(&self, ty: &Type) -> Type {
        let mut ty = ty;
        while let Type::Variable(variable) = ty {
            match self.find(*variable) {
                Some(known) => ty = known,
                None => break,
            }
        }
        ty.clone()
    }

    /// A type as far as it is known.
    pub(crate) fn substituted(&self, ty: &Type) -> Type {
        match self.shallow(ty) {
            Type::Variable(variable) => Type::Variable(variable),
            known => known.with(|inner| self.substituted(inner)),
        }
    }

    /// A type; what is not known is anything.
    pub(crate) fn resolved(&self, ty: &Type) -> Type {
        match self.shallow(ty) {
            Type::Variable(_) => Type::Dyn,
            known => known.with(|inner| self.resolved(inner)),
        }
    }

    /// The type, or anything in place of one that is larger than what anybody writes: bindings can double it each time.
    pub(crate) fn capped(&self, ty: Type) -> Type {
        let mut left = MOST_PARTS;
        if self.is_within(&ty, &mut left) { ty } else { Type::Dyn }
    }

    fn is_within(&self, ty: &Type, left: &mut usize) -> bool {
        let Some(rest) = left.checked_sub(1) else { return false };
        *left = rest;
        match ty {
            Type::Variable(variable) => self.find(*variable).is_none_or(|known| self.is_within(known, left)),
            other => other.parameters().iter().all(|inner| self.is_within(inner, left)),
        }
    }

    /// Whether values of these types may stand where those are expected.
    pub(crate) fn all_assignable(&mut self, found: &[Type], wanted: &[Type]) -> bool {
        self.changes.clear();
        let all = found.iter().zip(wanted).all(|(found, wanted)| self.fits(found, wanted));
        if !all {
            for (variable, before) in std::mem::take(&mut self.changes).into_iter().rev() {
                self.known[variable as usize] = before;
            }
        }
        all
    }

    /// Whether a value of this type may stand where that is expected.
    pub(crate) fn assignable(&mut self, found: &Type, wanted: &Type) -> bool {
        self.all_assignable(std::slice::from_ref(found), std::slice::from_ref(wanted))
    }

    fn fits(&mut self, a: &Type, b: &Type) -> bool {
        if let Type::Variable(variable) = b {
            match self.substitute(*variable, a) {
                (true, _) => return true,
                (false, true) => return false,
                (false, false) => {}
            }
        }
        if let Type::Variable(variable) = a {
            return self.substitute(*variable, b).0;
        }
        match (a, b) {
            (Type::Dyn | Type::Error, _) | (_, Type::Dyn | Type::Error) => true,
            (Type::Null, other) | (other, Type::Null) => is_nullable(other),
            // Types as values are all of one type.
            (Type::Type(_), Type::Type(_)) => true,
            (a, b) => a.is_like(b) && a.parameters().iter().zip(b.parameters()).all(|(a, b)| self.fits(a, b)),
        }
    }

    /// Whether a variable may be that type, and whether something was known of it before.
    fn substitute(&mut self, variable: u32, ty: &Type) -> (bool, bool) {
        if matches!(ty, Type::Variable(other) if *other == variable) {
            return (true, true);
        }
        let Some(known) = self.find(variable).cloned() else {
            let free = !self.refers(ty, variable);
            if free {
                self.set(variable, ty.clone());
            }
            return (free, false);
        };
        if known == *ty {
            return (true, true);
        }
        if !self.fits(ty, &known) {
            return (false, true);
        }
        let general = self.most_general(ty, &known);
        if !self.refers(&general, variable) {
            self.set(variable, general);
        }
        (true, true)
    }

    /// Whether a type is made of a variable.
    fn refers(&self, ty: &Type, variable: u32) -> bool {
        match ty {
            Type::Variable(other) if *other == variable => true,
            Type::Variable(other) => self.find(*other).is_some_and(|known| self.refers(known, variable)),
            other => other.parameters().iter().any(|inner| self.refers(inner, variable)),
        }
    }

    /// The one of two types that says less.
    pub(crate) fn most_general(&self, a: &Type, b: &Type) -> Type {
        if says_no_more(a, b) { a.clone() } else { b.clone() }
    }
}

fn is_nullable(ty: &Type) -> bool {
    matches!(ty, Type::Null | Type::Opaque(_) | Type::Optional(_) | Type::Object(_) | Type::Duration | Type::Timestamp)
}

fn says_no_more(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Variable(_), _) => true,
        (_, Type::Dyn | Type::Variable(_)) => false,
        (a, b) => a.is_like(b) && a.parameters().iter().zip(b.parameters()).all(|(a, b)| says_no_more(a, b)),
    }
}
