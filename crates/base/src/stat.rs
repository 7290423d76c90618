//! Files of /proc that count in clock ticks.

/// Clock ticks of a second in /proc and in control groups: the same on every Linux (USER_HZ).
pub const TICKS: u64 = 100;

/// A field of /proc/PID/stat, numbered from 1 as in proc_pid_stat(5). The program's name, the second, may contain anything.
pub fn field(stat: &str, number: usize) -> Option<u64> {
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_process() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 4242 1";
        assert_eq!([14, 15, 22].map(|number| field(stat, number)), [Some(150), Some(50), Some(4242)]);
        assert_eq!((field("", 14), field(stat, 2), field(stat, 99)), (None, None, None));
    }
}
