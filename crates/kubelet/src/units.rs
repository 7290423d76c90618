//! Quantities of the resource model as integers.

use std::collections::BTreeMap;

use apimachinery::quantity::Quantity as Parsed;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Lists of resources as in `resources.requests`, `status.capacity`...
pub type ResourceList = BTreeMap<String, Quantity>;

/// The value in thousandths, rounded up; 0 when it is not a quantity (validation by the API server keeps those out).
pub fn milli(quantity: &Quantity) -> i64 {
    parsed(quantity).as_milli()
}

/// The value in whole units, rounded up.
pub fn whole(quantity: &Quantity) -> i64 {
    parsed(quantity).as_i64()
}

fn parsed(quantity: &Quantity) -> Parsed {
    Parsed::parse(&quantity.0).unwrap_or(Parsed::ZERO)
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
