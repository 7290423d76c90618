//! Numbers as they are kept. Upstream reads one that is written with a fraction or an exponent as a float, and Go writes a float that is whole
//! without either: `1.0` and `1e3` are 1 and 1000 from then on. A client with a type for the object reads no other whole numbers.

use serde_json::Value;

/// Writes whole numbers without a fraction, wherever they are.
pub(crate) fn settle(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(float) = number.as_f64() {
                *value = schema::of_float(float);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(settle),
        Value::Object(map) => map.values_mut().for_each(settle),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn whole_numbers_have_no_fraction() {
        let check = |text: &str, expected: &str| {
            let mut value = serde_json::from_str(&format!(r#"{{"a": [{text}]}}"#)).unwrap();
            settle(&mut value);
            assert_eq!(value.to_string(), format!(r#"{{"a":[{expected}]}}"#), "{text}");
        };
        for (text, expected) in [
            ("1", "1"),
            ("1.0", "1"),
            ("-2.0", "-2"),
            ("1e3", "1000"),
            ("1E+3", "1000"),
            ("-0", "0"),
            ("2147483647.0", "2147483647"),
            ("1e18", "1000000000000000000"),
            ("-9223372036854775808.0", "-9223372036854775808"),
            ("1.5", "1.5"),
            ("1e-3", "0.001"),
            ("18446744073709551615", "18446744073709551615"),
            ("\"1.0\"", "\"1.0\""),
        ] {
            check(text, expected);
        }
        // No client has a whole number for these.
        for text in ["9223372036854775808.0", "1e300"] {
            let mut value: Value = serde_json::from_str(text).unwrap();
            settle(&mut value);
            assert!(value.is_f64(), "{text}");
        }
    }
}
