//! Signals by name, and which one stops a container.

/// Names that the C library has for signals of another name (signal(7)).
const SYNONYMS: [(&str, &str); 3] = [("CLD", "CHLD"), ("IOT", "ABRT"), ("POLL", "IO")];
/// The first and the last number that real-time signals have for the C libraries of containers, which keep the ones below for themselves.
const REAL_TIME: (i32, i32) = (34, 64);

/// The number of the signal that stops a container: the one that is wanted, else the image's, else SIGTERM. An image may say anything; one
/// whose signal there is not must end all the same.
pub(super) fn to_stop(wanted: Option<&str>, image: &str) -> i32 {
    let name = wanted.filter(|name| !name.is_empty()).unwrap_or(image);
    number(name).unwrap_or_else(|| {
        if !name.is_empty() {
            tracing::warn!(signal = name, "there is no such stop signal, SIGTERM is sent");
        }
        libc::SIGTERM
    })
}

/// The name of the same signal, as the API has it (KEP-4960: "Users will be able to see a container's stop signal in its status even if they're
/// not using a custom stop signal from the spec"); none for one that it has no name for.
pub(super) fn shown(wanted: Option<&str>, image: &str) -> Option<String> {
    let name = wanted.filter(|name| !name.is_empty()).unwrap_or(image);
    // A synonym is shown as it was given.
    let synonym = SYNONYMS.iter().find(|(synonym, _)| name.strip_prefix("SIG") == Some(*synonym));
    synonym.map_or_else(|| self::name(number(name).unwrap_or(libc::SIGTERM)), |_| Some(name.to_owned()))
}

/// The number of a signal by its name, such as `SIGTERM`, `quit` or `SIGRTMIN+3`.
pub(crate) fn number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (1..=REAL_TIME.1).contains(&number).then_some(number);
    }
    let upper = name.to_uppercase();
    let plain = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: &str| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign)?.parse::<i32>().ok(),
    };
    let (first, last) = REAL_TIME;
    if let Some(rest) = plain.strip_prefix("RTMIN") {
        return offset(rest, "+").and_then(|n| first.checked_add(n)).filter(|n| (first..=last).contains(n));
    }
    if let Some(rest) = plain.strip_prefix("RTMAX") {
        return offset(rest, "-").and_then(|n| last.checked_sub(n)).filter(|n| (first..=last).contains(n));
    }
    let plain = SYNONYMS.iter().find(|(synonym, _)| plain == *synonym).map_or(plain, |(_, usual)| usual);
    format!("SIG{plain}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

/// The name of a number from 1 to 64; the two that C libraries keep for themselves have none.
fn name(number: i32) -> Option<String> {
    let (first, last) = REAL_TIME;
    match nix::sys::signal::Signal::try_from(number) {
        Ok(signal) => Some(signal.as_str().to_owned()),
        Err(_) if number < first => None,
        Err(_) if number == first => Some("SIGRTMIN".to_owned()),
        Err(_) if number >= last => Some("SIGRTMAX".to_owned()),
        Err(_) if number - first <= 15 => Some(format!("SIGRTMIN+{}", number - first)),
        Err(_) => Some(format!("SIGRTMAX-{}", last - number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        let table = [("SIGTERM", Some(15)), ("quit", Some(3)), ("9", Some(9)), ("SIGRTMIN+3", Some(37)), ("RTMAX-1", Some(63))];
        let strange = ["nonsense", "99", "RTMIN+-4", "RTMIN+2147483647", "RTMAX--1", "RTMAX-2147483648"].map(|name| (name, None));
        let others = [("SIGRTMAX", Some(64)), ("SIGCLD", Some(17)), ("IOT", Some(6)), ("SIGPOLL", Some(29))];
        for (name, expected) in table.into_iter().chain(others).chain(strange) {
            assert_eq!(number(name), expected, "{name}");
        }
        for name in pods::signals::LINUX {
            assert!(number(name).is_some(), "{name}");
        }
        for number in 1..=64 {
            let name = name(number);
            let expected = (!matches!(number, 32 | 33)).then_some(number);
            assert_eq!(name.as_deref().and_then(super::number), expected, "{name:?}");
        }
    }

    #[test]
    fn the_pods_signal_comes_before_the_images() {
        let check = |wanted: Option<&str>, image: &str, expected: i32, name: &str| {
            let shown = shown(wanted, image).unwrap_or_default();
            assert_eq!((to_stop(wanted, image), shown.as_str()), (expected, name), "{wanted:?} {image:?}");
        };
        check(None, "SIGQUIT", 3, "SIGQUIT");
        check(Some("SIGINT"), "SIGQUIT", 2, "SIGINT");
        check(Some(""), "quit", 3, "SIGQUIT");
        check(None, "", 15, "SIGTERM");
        check(Some("SIGCLD"), "", 17, "SIGCLD");
        check(Some("SIGRTMAX-14"), "", 50, "SIGRTMAX-14");
        check(None, "37", 37, "SIGRTMIN+3");
        check(None, "34", 34, "SIGRTMIN");
        check(None, "32", 32, "");
        // Whoever makes an image says what he likes; its containers end all the same.
        check(None, "SIGFOO", 15, "SIGTERM");
        check(None, "0", 15, "SIGTERM");
    }
}
