//! New authorities of a cluster beside the ones that it has, and their end: of its certificates, of requests to other API servers, and the
//! key of ServiceAccounts' tokens.

use std::path::Path;

use anyhow::{Context, Result};
use base::tls::{self, Authority, Files, write_private};
use jiff::Timestamp;

/// The authorities of a server by the names of their files and of their certificates.
pub(super) const AUTHORITIES: [(&str, &str); 2] = [("ca", "knarr-ca"), ("front-proxy-ca", "front-proxy-ca")];
/// The file of the keys of ServiceAccounts' tokens, of which the first one signs.
pub(super) const TOKENS: &str = "service-account.key";

/// Between a common name and the time since the epoch, in seconds, at which a rotation has made the authority.
const AT: char = '@';

/// What a file is to hold.
#[derive(Debug)]
struct Write {
    name: String,
    text: String,
}

fn read(pki: &Path, name: &str) -> Result<String> {
    let path = pki.join(name);
    tls::read_private(&path)?.with_context(|| format!("{}: no such file", path.display()))
}

fn files(pki: &Path, name: &str) -> Result<Files> {
    Ok(Files { certificates: read(pki, &format!("{name}.crt"))?, keys: read(pki, &format!("{name}.key"))? })
}

/// The writes by which one state comes after another. An authority can be loaded after each of them, or none of them is done.
fn writes(name: &str, from: &Files, states: &[Files]) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    let mut before = from;
    for state in states {
        state.load().with_context(|| format!("{name}.crt"))?;
        if state.keys != before.keys {
            writes.push(Write { name: format!("{name}.key"), text: state.keys.clone() });
        }
        if state.certificates != before.certificates {
            writes.push(Write { name: format!("{name}.crt"), text: state.certificates.clone() });
        }
        before = state;
    }
    Ok(writes)
}

/// The keys of a text, each a PEM block.
fn blocks(text: &str) -> Result<Vec<String>> {
    const END: &str = "-----END ";
    let mut blocks = vec![String::new()];
    for line in text.lines() {
        let last = blocks.len() - 1;
        blocks[last] += &format!("{line}\n");
        if line.starts_with(END) {
            blocks.push(String::new());
        }
    }
    blocks.retain(|block| block.contains(END));
    if blocks.is_empty() { Err(anyhow::anyhow!("{TOKENS}: there is no key in it")) } else { Ok(blocks) }
}

/// How many keys of tokens there are; none where there is no such file.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn token_keys(pki: &Path) -> Result<usize> {
    match tls::read_private(&pki.join(TOKENS))? {
        Some(text) => Ok(blocks(&text)?.len()),
        None => Ok(0),
    }
}

/// Whether an authority has others beside it that are on their way out.
///
/// # Errors
/// One of them cannot be read.
pub(crate) fn is_rotating(pki: &Path) -> Result<bool> {
    for (name, _) in AUTHORITIES {
        if !files(pki, name)?.former()?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes new authorities and a new key beside the present ones. What a rotation that was interrupted has done already stays as it is. Whether
/// there was anything to do.
///
/// # Errors
/// A file cannot be read or written, or an authority is none that could vouch for another one.
pub(crate) fn begin(pki: &Path, now: Timestamp) -> Result<bool> {
    let mut all = Vec::new();
    for (name, common_name) in AUTHORITIES {
        let present = files(pki, name)?;
        let new = Authority::generate(&format!("{common_name}{AT}{}", now.as_second()))?;
        all.extend(writes(name, &present, &present.begin(&new)?)?);
    }
    let keys = read(pki, TOKENS)?;
    if blocks(&keys)?.len() == 1 {
        all.push(Write { name: TOKENS.to_owned(), text: format!("{}{keys}", tls::generate_key()?) });
    }
    write(pki, &all)
}

/// Ends the trust in former authorities and keys. Whether there was anything to do.
///
/// # Errors
/// A file cannot be read or written.
pub(crate) fn finish(pki: &Path) -> Result<bool> {
    let mut all = Vec::new();
    for (name, _) in AUTHORITIES {
        let present = files(pki, name)?;
        all.extend(writes(name, &present, &present.finish()?)?);
    }
    let keys = blocks(&read(pki, TOKENS)?)?;
    if let [first, _, ..] = keys.as_slice() {
        all.push(Write { name: TOKENS.to_owned(), text: first.clone() });
    }
    write(pki, &all)
}

fn write(pki: &Path, all: &[Write]) -> Result<bool> {
    for Write { name, text } in all {
        write_private(&pki.join(name), text.as_bytes())?;
    }
    Ok(!all.is_empty())
}

/// When the cluster's authority was made by a rotation; none of others.
pub(crate) fn begun(bundle: &str) -> Option<Timestamp> {
    let signer = tls::inspect(bundle).ok()?.into_iter().next()?;
    let (_, second) = signer.common_name?.rsplit_once(AT).map(|(name, second)| (name.to_owned(), second.to_owned()))?;
    Timestamp::from_second(second.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pki(directory: &Path) {
        for (name, common_name) in AUTHORITIES {
            Authority::load_or_create(directory, name, common_name).unwrap();
        }
        write_private(&directory.join(TOKENS), tls::generate_key().unwrap().as_bytes()).unwrap();
    }

    fn contents(pki: &Path) -> Vec<String> {
        let names = AUTHORITIES.iter().flat_map(|(name, _)| [format!("{name}.crt"), format!("{name}.key")]);
        names.chain([TOKENS.to_owned()]).map(|name| read(pki, &name).unwrap()).collect()
    }

    #[test]
    fn authorities_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path();
        pki(own);
        let (before, now) = (contents(own), Timestamp::from_second(1_800_000_000).unwrap());
        assert!(!finish(own).unwrap() && !is_rotating(own).unwrap());
        assert_eq!((contents(own), token_keys(own).unwrap()), (before.clone(), 1));
        assert!(begin(own, now).unwrap() && is_rotating(own).unwrap());
        let during = contents(own);
        assert!(!begin(own, now).unwrap(), "it is under way");
        assert_eq!((contents(own), token_keys(own).unwrap()), (during.clone(), 2));
        assert_eq!((begun(&during[0]), begun(&before[0])), (Some(now), None));
        assert!(during[0].ends_with(&before[0]) && during[4].ends_with(&before[4]));
        assert!(finish(own).unwrap() && !is_rotating(own).unwrap());
        let after = contents(own);
        assert!(during[0].starts_with(&after[0]) && during[4].starts_with(&after[4]) && !after[4].contains(before[4].trim()));
        assert!(!finish(own).unwrap());
    }

    /// kill -9 between any two writes leaves authorities that load, and what was begun goes on from there.
    #[test]
    fn every_write_leaves_a_cluster_that_starts() {
        let steps = |own: &Path, is_end: bool| {
            let mut all = Vec::new();
            for (name, _) in AUTHORITIES {
                let present = files(own, name).unwrap();
                let new = Authority::generate("new").unwrap();
                let states = if is_end { present.finish() } else { present.begin(&new) }.unwrap();
                all.extend(writes(name, &present, &states).unwrap());
            }
            all
        };
        for is_end in [false, true] {
            for killed_after in 0..=4 {
                let directory = tempfile::tempdir().unwrap();
                let own = directory.path();
                pki(own);
                let now = Timestamp::now();
                if is_end {
                    begin(own, now).unwrap();
                }
                let all = steps(own, is_end);
                assert_eq!(all.len(), 4);
                write(own, &all[..killed_after]).unwrap();
                for (name, _) in AUTHORITIES {
                    assert!(Authority::load(own, name).unwrap().is_some(), "{name} after {killed_after}");
                }
                if is_end { finish(own) } else { begin(own, now) }.unwrap();
                assert_eq!((is_rotating(own).unwrap(), token_keys(own).unwrap()), (!is_end, if is_end { 1 } else { 2 }));
                if !is_end {
                    finish(own).unwrap();
                }
                for (name, _) in AUTHORITIES {
                    let Files { certificates, keys } = files(own, name).unwrap();
                    assert_eq!((tls::certificates(&certificates).unwrap().len(), blocks(&keys).unwrap().len()), (1, 1));
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_rotated_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path();
        assert!(begin(own, Timestamp::now()).is_err());
        pki(own);
        write_private(&own.join("front-proxy-ca.key"), tls::generate_key().unwrap().as_bytes()).unwrap();
        let before = contents(own);
        assert!(format!("{:#}", begin(own, Timestamp::now()).unwrap_err()).contains("none of the keys"));
        assert_eq!(contents(own), before);
    }
}
