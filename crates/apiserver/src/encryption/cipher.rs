//! How providers encrypt, in upstream's formats.

use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, StreamCipher};
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use salsa20::XSalsa20;

const CBC_BLOCK: usize = 16;
const SALSA_NONCE: usize = 24;
const POLY_KEY: usize = 32;
const POLY_TAG: usize = 16;

/// A key and how it is used.
pub(super) enum Cipher {
    /// AES-GCM. A nonce follows from chance and precedes what is encrypted; the key in the store is authenticated, too.
    AesGcm(Box<LessSafeKey>),
    /// AES-CBC with PKCS #7 padding, after a random initialisation vector. Nothing is authenticated.
    AesCbc(Box<[u8]>),
    /// XSalsa20 and Poly1305, as NaCl's secretbox, after a random nonce.
    Secretbox(Box<[u8; 32]>),
}

impl Cipher {
    /// Of a key of 16 or 32 bytes.
    pub(super) fn aes_gcm(key: &[u8]) -> Option<Self> {
        let algorithm = if key.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
        Some(Self::AesGcm(Box::new(LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?))))
    }

    /// Encrypts a value. None when the machine has no random numbers.
    pub(super) fn seal(&self, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::AesGcm(cipher) => {
                let nonce = random::<NONCE_LEN>()?;
                let mut sealed = Vec::with_capacity(NONCE_LEN + value.len() + cipher.algorithm().tag_len());
                sealed.extend_from_slice(&nonce);
                sealed.extend_from_slice(value);
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = cipher.seal_in_place_separate_tag(nonce, Aad::from(key), &mut sealed[NONCE_LEN..]).ok()?;
                sealed.extend_from_slice(tag.as_ref());
                Some(sealed)
            }
            Self::AesCbc(secret) => {
                let vector = random::<CBC_BLOCK>()?;
                let encrypted = match secret.len() {
                    16 => cbc_encrypt::<cbc::Encryptor<Aes128>>(secret, &vector, value),
                    24 => cbc_encrypt::<cbc::Encryptor<Aes192>>(secret, &vector, value),
                    _ => cbc_encrypt::<cbc::Encryptor<Aes256>>(secret, &vector, value),
                };
                Some([&vector[..], &encrypted?].concat())
            }
            Self::Secretbox(secret) => {
                let nonce = random::<SALSA_NONCE>()?;
                let mut text = value.to_vec();
                let tag = secretbox(secret, &nonce, &mut text, true)?;
                Some([&nonce[..], &tag, &text].concat())
            }
        }
    }

    /// Decrypts a value. None when it was not encrypted with this key, or has changed since.
    pub(super) fn open(&self, key: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::AesGcm(cipher) => {
                let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>()?;
                let mut text = text.to_vec();
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let length = cipher.open_in_place(nonce, Aad::from(key), &mut text).ok()?.len();
                text.truncate(length);
                Some(text)
            }
            Self::AesCbc(secret) => {
                let (vector, text) = sealed.split_first_chunk::<CBC_BLOCK>()?;
                match secret.len() {
                    16 => cbc_decrypt::<cbc::Decryptor<Aes128>>(secret, vector, text),
                    24 => cbc_decrypt::<cbc::Decryptor<Aes192>>(secret, vector, text),
                    _ => cbc_decrypt::<cbc::Decryptor<Aes256>>(secret, vector, text),
                }
            }
            Self::Secretbox(secret) => {
                let (nonce, rest) = sealed.split_first_chunk::<SALSA_NONCE>()?;
                let (tag, text) = rest.split_first_chunk::<POLY_TAG>()?;
                let mut text = text.to_vec();
                let computed = secretbox(secret, nonce, &mut text, false)?;
                same(tag, &computed).then_some(text)
            }
        }
    }
}

pub(super) fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

fn cbc_encrypt<C: KeyIvInit + BlockModeEncrypt>(secret: &[u8], vector: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    Some(C::new_from_slices(secret, vector).ok()?.encrypt_padded_vec::<Pkcs7>(value))
}

fn cbc_decrypt<C: KeyIvInit + BlockModeDecrypt>(secret: &[u8], vector: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    C::new_from_slices(secret, vector).ok()?.decrypt_padded_vec::<Pkcs7>(text).ok()
}

/// Applies the key stream to a text and returns the tag of its encrypted form. The stream's first bytes are the key of the tag.
fn secretbox(secret: &[u8; 32], nonce: &[u8; SALSA_NONCE], text: &mut [u8], encrypt: bool) -> Option<[u8; POLY_TAG]> {
    let mut stream = XSalsa20::new_from_slices(secret, nonce).ok()?;
    let mut key = [0; POLY_KEY];
    stream.apply_keystream(&mut key);
    let tag = |text: &[u8]| Some(Poly1305::new_from_slice(&key).ok()?.compute_unpadded(text).into());
    if encrypt {
        stream.apply_keystream(text);
        return tag(text);
    }
    let computed = tag(text);
    stream.apply_keystream(text);
    computed
}

/// Compares without telling by its time where two tags differ.
fn same(one: &[u8; POLY_TAG], other: &[u8; POLY_TAG]) -> bool {
    one.iter().zip(other).fold(0, |different, (one, other)| different | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ciphers() -> Vec<(&'static str, Cipher)> {
        vec![
            ("gcm 128", Cipher::aes_gcm(&[1; 16]).unwrap()),
            ("gcm 256", Cipher::aes_gcm(&[1; 32]).unwrap()),
            ("cbc 128", Cipher::AesCbc([1; 16].into())),
            ("cbc 192", Cipher::AesCbc([1; 24].into())),
            ("cbc 256", Cipher::AesCbc([1; 32].into())),
            ("secretbox", Cipher::Secretbox(Box::new([1; 32]))),
        ]
    }

    #[test]
    fn values_survive_the_round_trip() {
        for (name, cipher) in ciphers() {
            for length in [0, 1, 15, 16, 17, 31, 32, 33, 4096] {
                let value = vec![b'v'; length];
                let sealed = cipher.seal(b"/key", &value).unwrap();
                assert!(length < 15 || !sealed.windows(15).any(|part| part == &value[..15]), "{name}: the value shows");
                assert_ne!(sealed, cipher.seal(b"/key", &value).unwrap(), "{name}: never twice the same");
                assert_eq!(cipher.open(b"/key", &sealed).as_ref(), Some(&value), "{name}, {length} bytes");
            }
        }
    }

    #[test]
    fn what_has_changed_is_noticed() {
        for (name, cipher) in ciphers() {
            let sealed = cipher.seal(b"/key", b"value").unwrap();
            for cut in 0..sealed.len().min(24) {
                assert_eq!(cipher.open(b"/key", &sealed[..cut]), None, "{name} cut at {cut}");
            }
            // AES-CBC authenticates nothing, and secretbox nothing but the value.
            let changed = |at: usize| {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                cipher.open(b"/key", &changed).is_none()
            };
            assert!(name.starts_with("cbc") || (0..sealed.len()).all(changed), "{name}");
            assert!(!name.starts_with("gcm") || cipher.open(b"/other", &sealed).is_none(), "{name}");
        }
    }

    /// The vector of NaCl's own test (`tests/secretbox.c`).
    #[test]
    fn secretbox_is_that_of_nacl() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
        };
        let key = hex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389");
        let nonce = hex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37");
        let text = hex(concat!(
            "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c6129",
            "6cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde",
            "048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705"
        ));
        let sealed = hex(concat!(
            "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186a",
            "c0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae",
            "90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5"
        ));
        let cipher = Cipher::Secretbox(Box::new(key.try_into().unwrap()));
        assert_eq!(cipher.open(b"", &[nonce, sealed].concat()), Some(text));
    }
}
