//! Indexes of an indexed job in text: `1,3-5,7`.

/// Why a text is no list of indexes. The words are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("the fragment {0:?} violates the requirement that an index interval can have at most two parts separated by '-'")]
    Parts(String),
    #[error("cannot convert string to integer for index: {0:?}")]
    NoNumber(String),
    #[error("too large index: {0:?}")]
    TooLarge(String),
    #[error("non-increasing order, previous: {0}, current: {1}")]
    Order(i64, i64),
    #[error("failedIndexes and completedIndexes overlap at index: {0}")]
    Overlap(i64),
}

/// First and last index of an interval, which are the same for a single one.
type Interval = (i64, i64);

fn interval(text: &str, completions: i32) -> Result<Interval, Error> {
    let parts: Vec<&str> = text.split('-').collect();
    let index = |text: &str| {
        let index: i64 = text.parse().map_err(|_| Error::NoNumber(text.to_owned()))?;
        if index >= i64::from(completions) { Err(Error::TooLarge(text.to_owned())) } else { Ok(index) }
    };
    match parts[..] {
        [one] => index(one).map(|one| (one, one)),
        [first, last] => {
            let (first, last) = (index(first)?, index(last)?);
            if first >= last { Err(Error::Order(first, last)) } else { Ok((first, last)) }
        }
        _ => Err(Error::Parts(text.to_owned())),
    }
}

/// How many indexes the text lists, all of them below `completions` and in order.
pub(super) fn count(text: &str, completions: i32) -> Result<i64, Error> {
    let (mut total, mut previous) = (0, None);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = interval(part, completions)?;
        if let Some(previous) = previous.filter(|previous| *previous >= first) {
            return Err(Error::Order(previous, first));
        }
        total += last - first + 1;
        previous = Some(last);
    }
    Ok(total)
}

/// No index is in both lists. Parts that are no intervals are refused elsewhere.
pub(super) fn disjoint(completed: &str, failed: &str, completions: i32) -> Result<(), Error> {
    let intervals =
        |text: &str| -> Vec<Interval> { text.split(',').filter_map(|part| interval(part, completions).ok()).collect() };
    let (completed, failed) = (intervals(completed), intervals(failed));
    let (mut completed, mut failed) = (completed.iter().peekable(), failed.iter().peekable());
    while let (Some(&&(done, done_end)), Some(&&(lost, lost_end))) = (completed.peek(), failed.peek()) {
        if done <= lost_end && lost <= done_end {
            return Err(Error::Overlap(done.max(lost)));
        }
        if done <= lost {
            completed.next()
        } else {
            failed.next()
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let check = |text: &str, expected: Result<i64, &str>| {
            assert_eq!(count(text, 10).map_err(|error| error.to_string()), expected.map_err(str::to_owned), "{text}");
        };
        check("", Ok(0));
        check("1,3-5,7", Ok(5));
        check("0-9", Ok(10));
        check("1,", Err("cannot convert string to integer for index: \"\""));
        check(
            "1-2-3",
            Err(
                "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'",
            ),
        );
        check("10", Err("too large index: \"10\""));
        check("5-5", Err("non-increasing order, previous: 5, current: 5"));
        check("3,2", Err("non-increasing order, previous: 3, current: 2"));
        check("x", Err("cannot convert string to integer for index: \"x\""));
    }

    #[test]
    fn overlaps() {
        let check = |completed: &str, failed: &str, expected: Option<i64>| {
            assert_eq!(disjoint(completed, failed, 10).err(), expected.map(Error::Overlap), "{completed} {failed}");
        };
        check("", "1", None);
        check("1,3-5", "2,6", None);
        check("1,3-5", "0,4-6", Some(4));
        check("x,2", "2", Some(2));
    }
}
