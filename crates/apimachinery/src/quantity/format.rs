//! The canonical text of quantities: no fractional digits, the largest suffix that keeps the amount whole.

use super::{Format, NANO, Quantity};
use std::fmt;

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        // Small and fractional amounts are written in decimal, so that nothing is rounded.
        let binary = self.format == Format::BinarySi && self.nanos.abs() >= 1024 * NANO && self.nanos % NANO == 0;
        if binary { binary_si(self.nanos / NANO, f) } else { decimal(self.nanos, self.format, f) }
    }
}

fn binary_si(mut units: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut power = 0;
    while power + 1 < SUFFIXES.len() && units % 1024 == 0 {
        units /= 1024;
        power += 1;
    }
    write!(f, "{units}{}", SUFFIXES[power])
}

fn decimal(mut mantissa: i128, format: Format, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    let mut power = 0;
    let limit = if format == Format::DecimalExponent { usize::MAX } else { SUFFIXES.len() - 1 };
    while power < limit && mantissa % 1000 == 0 {
        mantissa /= 1000;
        power += 1;
    }
    match (format, power as i64 * 3 - 9) {
        (Format::DecimalExponent, 0) => write!(f, "{mantissa}"),
        (Format::DecimalExponent, exponent) => write!(f, "{mantissa}e{exponent}"),
        _ => write!(f, "{mantissa}{}", SUFFIXES[power]),
    }
}
