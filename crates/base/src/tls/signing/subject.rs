//! Subjects of requests. They are read strictly and written anew: what this reader dropped, another one would take for a group.
//! Attributes of other types, such as an e-mail address, are not certified, as those that Go's `pkix.Name` has no field for are not by
//! upstream's signers.

use x509_parser::der_parser::asn1_rs::{Class, Tag};
use x509_parser::der_parser::oid;
use x509_parser::der_parser::oid::Oid;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::tls::der::{OBJECT, PRINTABLE_STRING, SEQUENCE, SET, UTF8_STRING, tlv};

const COMMON_NAME: Oid<'static> = oid!(2.5.4.3);
const ORGANIZATION: Oid<'static> = oid!(2.5.4.10);
/// What is certified besides these: serial number, country, locality, province, street, organizational unit, postal code
/// (RFC 5280, section 4.1.2.4, as far as Go's `pkix.Name` has fields for them), and Kubernetes' UID.
const OTHERS: [Oid<'static>; 8] = [
    oid!(2.5.4.5),
    oid!(2.5.4.6),
    oid!(2.5.4.7),
    oid!(2.5.4.8),
    oid!(2.5.4.9),
    oid!(2.5.4.11),
    oid!(2.5.4.17),
    oid!(1.3.6.1.4.1.57683.2),
];

/// What a subject says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    /// Common name, empty where there is none.
    pub(super) name: String,
    /// Organizations.
    pub(super) organizations: Vec<String>,
    /// The whole, written from what was read.
    pub(super) encoded: Vec<u8>,
}

impl Subject {
    /// Reads a subject. Every part that is certified has to be understood.
    pub(super) fn read(subject: &X509Name<'_>) -> Result<Self, String> {
        let (mut name, mut organizations, mut parts) = (None, Vec::new(), Vec::new());
        for attribute in subject.iter_attributes() {
            let of = attribute.attr_type();
            if ![&COMMON_NAME, &ORGANIZATION].contains(&of) && !OTHERS.contains(of) {
                continue;
            }
            let text = text(attribute)?;
            if *of == COMMON_NAME {
                if name.replace(text.to_owned()).is_some() {
                    return Err("its subject has more than one common name".to_owned());
                }
            } else if *of == ORGANIZATION {
                organizations.push(text.to_owned());
            }
            let tag = if attribute.attr_value().tag() == Tag::PrintableString { PRINTABLE_STRING } else { UTF8_STRING };
            let value = tlv(SEQUENCE, &[&tlv(OBJECT, &[of.as_bytes()]), &tlv(tag, &[text.as_bytes()])]);
            parts.push(tlv(SET, &[&value]));
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        Ok(Self { name: name.unwrap_or_default(), organizations, encoded: tlv(SEQUENCE, &parts) })
    }
}

/// The text of an attribute, which every reader reads alike.
fn text<'a>(attribute: &AttributeTypeAndValue<'a>) -> Result<&'a str, String> {
    let value = attribute.attr_value();
    let wrong = || format!("its subject has a value that is no plain text (attribute {})", attribute.attr_type());
    if value.class() != Class::Universal || value.header.is_constructed() {
        return Err(wrong());
    }
    let text = attribute.as_str().map_err(|_| wrong())?;
    let printable = |c: char| c.is_ascii_alphanumeric() || " '()+,-./:=?".contains(c);
    let is_plain = match value.tag() {
        Tag::Utf8String => !text.chars().any(char::is_control),
        Tag::Ia5String => text.chars().all(|c| c.is_ascii() && !c.is_ascii_control()),
        Tag::NumericString => text.chars().all(|c| c.is_ascii_digit() || c == ' '),
        // Widely used beyond its letters, which Go's readers take as well.
        Tag::PrintableString => text.chars().all(|c| printable(c) || "*&".contains(c)),
        _ => false,
    };
    if is_plain { Ok(text) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use x509_parser::prelude::FromDer;

    use super::*;

    const T61_STRING: u8 = 0x14;
    const BMP_STRING: u8 = 0x1e;
    const IA5_STRING: u8 = 0x16;
    const NUMERIC_STRING: u8 = 0x12;

    fn attribute(of: &Oid<'_>, tag: u8, value: &[u8]) -> Vec<u8> {
        tlv(SEQUENCE, &[&tlv(OBJECT, &[of.as_bytes()]), &tlv(tag, &[value])])
    }

    fn name(sets: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let sets: Vec<Vec<u8>> = sets.iter().map(|set| tlv(SET, &set.iter().map(Vec::as_slice).collect::<Vec<_>>())).collect();
        tlv(SEQUENCE, &sets.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    #[test]
    fn every_part_that_is_certified_is_understood() {
        let check = |sets: &[Vec<Vec<u8>>], expected: Result<(&str, &[&str]), &str>| {
            let encoded = name(sets);
            let (_, parsed) = X509Name::from_der(&encoded).unwrap();
            let read = Subject::read(&parsed);
            let found = read.as_ref().map(|subject| (subject.name.as_str(), subject.organizations.clone())).map_err(Clone::clone);
            let expected = expected.map_err(str::to_owned);
            assert_eq!(found, expected.map(|(name, groups)| (name, groups.iter().map(|&group| group.to_owned()).collect())));
            let Ok(subject) = read else { return };
            let (_, written) = X509Name::from_der(&subject.encoded).unwrap();
            assert_eq!(Subject::read(&written), Ok(subject), "what is written says the same");
        };
        let cn = |text: &str| vec![attribute(&COMMON_NAME, UTF8_STRING, text.as_bytes())];
        let o = |tag: u8, text: &[u8]| vec![attribute(&ORGANIZATION, tag, text)];
        let unreadable = Err("its subject has a value that is no plain text (attribute 2.5.4.10)");
        check(&[], Ok(("", &[])));
        check(
            &[cn("jane"), o(PRINTABLE_STRING, b"a"), o(IA5_STRING, b"b@c"), o(NUMERIC_STRING, b"1 2")],
            Ok(("jane", &["a", "b@c", "1 2"])),
        );
        // Both attributes in one set, which readers take for two.
        check(&[[cn("jane"), o(UTF8_STRING, "ü".as_bytes())].concat()], Ok(("jane", &["ü"])));
        check(
            &[vec![attribute(&OTHERS[1], PRINTABLE_STRING, b"DE")], cn("jane"), vec![attribute(&OTHERS[7], UTF8_STRING, b"7")]],
            Ok(("jane", &[])),
        );
        // Go's reader takes the last name and reads T.61 text: this would be `kubernetes-admin` of `system:masters`.
        let masters = o(T61_STRING, b"system:masters");
        check(&[cn("system:node:evil"), o(UTF8_STRING, b"system:nodes"), masters.clone(), cn("kubernetes-admin")], unreadable);
        check(&[cn("system:node:evil"), cn("kubernetes-admin")], Err("its subject has more than one common name"));
        check(&[[cn("system:node:evil"), cn("kubernetes-admin")].concat()], Err("its subject has more than one common name"));
        check(&[cn("jane"), masters], unreadable);
        check(&[o(BMP_STRING, &[0, b'a'])], unreadable);
        check(&[o(0x8c, b"context-specific")], unreadable);
        check(&[o(OCTETS, b"octets")], unreadable);
        check(&[o(UTF8_STRING, b"system:masters\0")], unreadable);
        check(&[o(UTF8_STRING, &[0xff])], unreadable);
        check(&[o(PRINTABLE_STRING, b"a@b")], unreadable);
        check(&[o(NUMERIC_STRING, b"a")], unreadable);
        let mail = vec![attribute(&oid!(1.2.840.113549.1.9.1), IA5_STRING, b"a@b")];
        check(&[cn("jane"), mail.clone()], Ok(("jane", &[])));
        let (with, without) = (name(&[cn("jane"), mail]), name(&[cn("jane")]));
        let (_, parsed) = X509Name::from_der(&with).unwrap();
        assert_eq!(Subject::read(&parsed).unwrap().encoded, without, "what is not certified is not written");
    }

    const OCTETS: u8 = crate::tls::der::OCTET_STRING;
}
