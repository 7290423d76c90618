//! Several certificates of one listener, and the choice of one by the name and the abilities of a client.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;

use crate::compile::host_name;

/// The certificates of a listener, in the order in which it refers to them.
#[derive(Clone, Debug)]
pub struct Several {
    all: Vec<Arc<CertifiedKey>>,
    /// Places of certificates by the names in them, as in [`host_name`]; of one alone nobody asks which.
    named: HashMap<String, Vec<usize>>,
}

impl Several {
    /// None without any.
    pub fn of(all: Vec<Arc<CertifiedKey>>) -> Option<Self> {
        let mut named: HashMap<String, Vec<usize>> = HashMap::new();
        if all.len() > 1 {
            for (place, certified) in all.iter().enumerate() {
                names(certified).into_iter().for_each(|name| named.entry(name).or_default().push(place));
            }
        }
        (!all.is_empty()).then_some(Self { all, named })
    }

    /// The certificate for a name in a handshake: of those that have it, else of those with a wildcard for it, else of all the first one that
    /// the client can verify.
    pub fn choose(&self, name: &str, can_verify: &dyn Fn(&CertifiedKey) -> bool) -> Arc<CertifiedKey> {
        let wildcard = name.find('.').map(|dot| &name[dot..]);
        let named = [Some(name), wildcard].into_iter().flatten().filter_map(|name| self.named.get(name));
        let named = named.flatten().map(|place| &self.all[*place]);
        let found = named.chain(&self.all).find(|certified| can_verify(certified));
        found.unwrap_or(&self.all[0]).clone()
    }
}

/// The names of hosts that a certificate is for.
fn names(certified: &CertifiedKey) -> Vec<String> {
    let Some(Ok((_, leaf))) = certified.cert.first().map(|leaf| x509_parser::parse_x509_certificate(leaf)) else {
        return Vec::new();
    };
    let names = leaf.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let hosts =
        names.filter_map(
            |name| if let GeneralName::DNSName(host) = name { Some(host_name(&host.to_ascii_lowercase())) } else { None },
        );
    hosts.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base::tls::{Authority, Request};

    use super::*;

    #[test]
    fn of_several_the_one_with_the_name_is_shown() {
        let authority = Authority::in_memory("test").unwrap();
        let made = |names: &[&str]| {
            let sans = names.iter().map(|name| (*name).to_owned()).collect();
            authority.issue(&Request::Server { name: "x".into(), sans }).unwrap().certified().unwrap()
        };
        let all = [made(&["a.example", "b.example"]), made(&["*.b.example"]), made(&["x.b.example"]), made(&["a.example"])];
        let several = Several::of(all.to_vec()).unwrap();
        let place = |shown: &Arc<CertifiedKey>| all.iter().position(|one| Arc::ptr_eq(one, shown)).unwrap();
        for (name, expected) in [
            ("a.example", 0),
            ("b.example", 0),
            ("y.b.example", 1),
            ("x.b.example", 2),
            ("x.y.b.example", 0),
            ("other.example", 0),
            ("", 0),
        ] {
            assert_eq!(place(&several.choose(name, &|_| true)), expected, "{name}");
        }
        // The first has a key that the client cannot verify, such as of ECDSA for one that knows RSA alone.
        let verifies = |certified: &CertifiedKey| !std::ptr::eq(certified, &*all[0]);
        assert_eq!(place(&several.choose("a.example", &verifies)), 3);
        assert_eq!(place(&several.choose("b.example", &verifies)), 1);
        assert_eq!(place(&several.choose("a.example", &|_| false)), 0);
        assert!(Several::of(Vec::new()).is_none());
    }
}
