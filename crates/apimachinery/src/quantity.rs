//! Quantities: exact fixed-point numbers with a suffix (upstream: `pkg/api/resource`).
//!
//! A quantity is held in nanounits in 128 bits: exact for everything between 1n and about 1.7e29. Finer amounts are rounded away from
//! zero to a nanounit, as upstream does; larger ones are refused, where upstream would keep an arbitrary-precision number.
//!
//! The text in which the API stores a quantity is `schema::quantity::canonical`, which keeps some texts as they came; here is
//! arithmetic.

mod format;
mod parse;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
pub use parse::ParseError;
use serde_json::Value;
use std::cmp::Ordering;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

const NANO: i128 = 1_000_000_000;

/// Which suffixes a quantity is written with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `e3`, `E6`.
    DecimalExponent,
    /// `Ki`, `Mi`.
    BinarySi,
    /// `m`, `k`, `M`.
    #[default]
    DecimalSi,
}

/// A quantity. Comparison is by amount; the format only matters for its text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// Zero.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// Parses text such as `100m`, `1.5Gi`, `2e3`.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse::parse(text)
    }

    /// Reads JSON: a string, or a number as clients may send it.
    pub fn from_value(value: &Value) -> Result<Self, ParseError> {
        match value {
            Value::String(s) => Self::parse(s.trim()),
            Value::Number(n) => Self::parse(&n.to_string()),
            _ => Err(ParseError::Format),
        }
    }

    /// Whole units.
    pub fn from_units(units: i64, format: Format) -> Self {
        Self { nanos: i128::from(units) * NANO, format }
    }

    /// Thousandths of a unit.
    pub fn from_milli(milli: i64, format: Format) -> Self {
        Self { nanos: i128::from(milli) * (NANO / 1000), format }
    }

    /// How it is written.
    pub fn format(self) -> Format {
        self.format
    }

    /// The same amount, written otherwise.
    #[must_use]
    pub fn with_format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// Whole units, rounded away from zero, capped at the range of `i64` (upstream: `Value`).
    pub fn as_i64(self) -> i64 {
        self.scaled(NANO)
    }

    /// Thousandths, rounded away from zero, capped at the range of `i64` (upstream: `MilliValue`).
    pub fn as_milli(self) -> i64 {
        self.scaled(NANO / 1000)
    }

    /// Whole units if the amount is whole and fits.
    pub fn as_exact_i64(self) -> Option<i64> {
        if self.nanos % NANO == 0 { i64::try_from(self.nanos / NANO).ok() } else { None }
    }

    /// An approximation, for ratios and metrics.
    pub fn as_f64(self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    fn scaled(self, unit: i128) -> i64 {
        let (quotient, rest) = (self.nanos / unit, self.nanos % unit);
        (quotient + rest.signum()).clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// -1, 0 or 1.
    pub fn signum(self) -> i32 {
        self.nanos.signum() as i32
    }

    /// Whether it is zero.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// The product with an integer, capped.
    #[must_use]
    pub fn times(self, factor: i64) -> Self {
        Self { nanos: self.nanos.saturating_mul(factor.into()), ..self }
    }

    /// Zero takes over the format of what is added to it.
    fn combine(self, other: Self, nanos: i128) -> Self {
        Self { nanos, format: if self.is_zero() { other.format } else { self.format } }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.combine(other, self.nanos.saturating_add(other.nanos))
    }
}

impl Sub for Quantity {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.combine(other, self.nanos.saturating_sub(other.nanos))
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Neg for Quantity {
    type Output = Self;
    fn neg(self) -> Self {
        Self { nanos: self.nanos.saturating_neg(), ..self }
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

impl std::str::FromStr for Quantity {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

impl TryFrom<&ApiQuantity> for Quantity {
    type Error = ParseError;
    fn try_from(quantity: &ApiQuantity) -> Result<Self, ParseError> {
        Self::parse(quantity.0.trim())
    }
}

impl From<Quantity> for ApiQuantity {
    fn from(quantity: Quantity) -> Self {
        Self(quantity.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn q(text: &str) -> Quantity {
        text.parse().unwrap()
    }

    #[test]
    fn arithmetic() {
        let check = |got: Quantity, expected: &str| assert_eq!(got.to_string(), expected);
        check(q("1") + q("500m"), "1500m");
        check(q("0") + q("1Gi"), "1Gi");
        check(q("1Gi") + q("512Mi"), "1536Mi");
        check(q("1") - q("1500m"), "-500m");
        check(-q("1Ki"), "-1Ki");
        check(q("250m").times(4), "1");
        check([q("100m"), q("200m")].into_iter().sum(), "300m");
        assert!(q("1Ki") > q("1k") && q("1000m") == q("1"));
    }

    #[test]
    fn rounds_away_from_zero() {
        let check = |text: &str, units, milli| assert_eq!((q(text).as_i64(), q(text).as_milli()), (units, milli), "{text}");
        check("1", 1, 1000);
        check("1500m", 2, 1500);
        check("-1500m", -2, -1500);
        check("1u", 1, 1);
        check("0", 0, 0);
        check("8E", 8_000_000_000_000_000_000, i64::MAX);
    }

    proptest! {
        #[test]
        fn text_keeps_the_amount(nanos in any::<i64>(), format in 0..3usize) {
            let format = [Format::DecimalSi, Format::BinarySi, Format::DecimalExponent][format];
            let quantity = Quantity { nanos: nanos.into(), format };
            prop_assert_eq!(Quantity::parse(&quantity.to_string()), Ok(quantity));
        }

        #[test]
        fn canonical_text_is_stable(text in "[+-]?[0-9]{1,6}(\\.[0-9]{0,4})?(n|u|m|k|M|G|T|Ki|Mi|Gi|e3|E-2)?") {
            let once = q(&text).to_string();
            prop_assert_eq!(q(&once).to_string(), once);
        }

        #[test]
        fn sums_compare(a in any::<i64>(), b in 0..i64::MAX) {
            let (a, b) = (Quantity::from_milli(a, Format::DecimalSi), Quantity::from_milli(b, Format::BinarySi));
            prop_assert!(a + b >= a && a - b <= a && (a + b) - b == a);
        }

        #[test]
        fn never_panics(text in ".*") {
            let _ = Quantity::parse(&text);
        }

        #[test]
        fn never_panics_on_near_quantities(text in "[+-]?[0-9.]{0,45}[eEinumkKMGTP]{0,2}[+-]?[0-9]{0,12}") {
            let _ = Quantity::parse(&text);
        }
    }
}
