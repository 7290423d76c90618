//! Quantities of the resource model as integers.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Lists of resources as in `resources.requests`, `status.capacity`...
pub type ResourceList = BTreeMap<String, Quantity>;

/// The value in thousandths, rounded up; 0 when it is not a quantity (validation by the API server keeps those out).
pub fn milli(quantity: &Quantity) -> i64 {
    scaled(&quantity.0, 1000)
}

/// The value in whole units, rounded up.
pub fn whole(quantity: &Quantity) -> i64 {
    scaled(&quantity.0, 1)
}

/// Thousandths of resource `name`, 0 when absent.
pub fn milli_of(list: Option<&ResourceList>, name: &str) -> i64 {
    list.and_then(|list| list.get(name)).map_or(0, milli)
}

/// Whole units of resource `name`, 0 when absent.
pub fn whole_of(list: Option<&ResourceList>, name: &str) -> i64 {
    list.and_then(|list| list.get(name)).map_or(0, whole)
}

/// A plain integer quantity.
pub fn quantity(value: impl ToString) -> Quantity {
    Quantity(value.to_string())
}

/// Decimal places that a suffix of numerator/denominator form stands for.
fn suffix_ratio(suffix: &str) -> Option<(i128, i128)> {
    const KI: i128 = 1024;
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (KI, 1),
        "Mi" => (KI.pow(2), 1),
        "Gi" => (KI.pow(3), 1),
        "Ti" => (KI.pow(4), 1),
        "Pi" => (KI.pow(5), 1),
        "Ei" => (KI.pow(6), 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let ten = 10i128.checked_pow(power.unsigned_abs())?;
            if power < 0 { (1, ten) } else { (ten, 1) }
        }
    })
}

fn scaled(text: &str, scale: i128) -> i64 {
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let parse = || -> Option<i64> {
        let (numerator, denominator) = suffix_ratio(suffix)?;
        let (integer, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits: i128 = format!("{integer}{fraction}").parse().ok()?;
        let denominator = denominator.checked_mul(10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
        let value = digits.checked_mul(numerator)?.checked_mul(scale)?;
        let rounded = value.div_euclid(denominator) + i128::from(value.rem_euclid(denominator) != 0);
        Some(i64::try_from(rounded).unwrap_or(i64::MAX))
    };
    parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, milli_value: i64, whole_value: i64) {
        let quantity = Quantity(text.to_owned());
        assert_eq!((milli(&quantity), whole(&quantity)), (milli_value, whole_value), "{text}");
    }

    #[test]
    fn quantities() {
        check("100m", 100, 1);
        check("1.5", 1500, 2);
        check("2", 2000, 2);
        check("1Gi", (1 << 30) * 1000, 1 << 30);
        check("64Mi", (64 << 20) * 1000, 64 << 20);
        check("1e3", 1_000_000, 1000);
        check("100k", 100_000_000, 100_000);
        check("1n", 1, 1);
        check("nonsense", 0, 0);
    }
}
