//! Signed notes: a text, and who signed it. As `golang.org/x/mod/sumdb/note` opens them.
//!
//! A note is a text that ends in a newline, a blank line, and lines `— <name> <base64 of key hash and signature>`.

use std::collections::HashSet;
use std::fmt;

use ring::digest::{Context, SHA256};
use ring::signature::{ED25519, UnparsedPublicKey};

use super::base64;

/// The longest note that is read, in bytes. Go has the limit where it parses the tree in the note.
pub const MAX_NOTE_BYTES: usize = 1_000_000;

/// The most signatures that a note may have.
pub const MAX_SIGNATURES: usize = 100;

const ED25519_ALGORITHM: u8 = 1;
const ED25519_KEY_BYTES: usize = 32;
const SIGNATURE_PREFIX: &str = "— ";

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Other than `name+hash+key`, eight hexadecimal digits and base64, or an Ed25519 key of another length than 32.
    #[error("a verifier key is name+hash+key, with eight hexadecimal digits and base64")]
    Malformed,
    /// A key of another kind than Ed25519.
    #[error("the verifier key's algorithm is unknown")]
    Algorithm,
    /// Most often a typing error in the name or the key.
    #[error("the verifier key's hash is not that of its name and key")]
    Hash,
}

/// Why a note is not to be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// No note at all, or beyond the limits.
    #[error("malformed note")]
    Malformed,
    /// Two of the known keys have one name and one hash.
    #[error("more than one known key is {0}")]
    Ambiguous(String),
    /// A known key's name stands before another's signature, or the text was changed.
    #[error("invalid signature for key {0}")]
    Signature(String),
    /// Well-formed, and nobody known has signed it.
    #[error("no known key has signed the note")]
    Unverified(Box<Note>),
}

/// A public key and the name of its owner.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    hash: u32,
    key: [u8; ED25519_KEY_BYTES],
}

/// One line below a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The name of the signer.
    pub name: String,
    /// The hash of the signer's key.
    pub hash: u32,
    /// Key hash and signature, as they stand in the note.
    pub base64: String,
}

/// A note, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The text, with its last newline.
    pub text: String,
    /// Signatures by known keys, checked; at most one a key.
    pub verified: Vec<Signature>,
    /// Signatures by others: no more than text.
    pub unverified: Vec<Signature>,
}

impl Verifier {
    /// Parses `name+hash+key` as `GOSUMDB` has it: the hash in eight hexadecimal digits, the key in base64, its first
    /// byte the algorithm.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(digits), Some(key)) = (parts.next(), parts.next(), parts.next()) else { return Err(KeyError::Malformed) };
        let digits_ok = digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let key = base64::decode(key).filter(|key| !key.is_empty()).ok_or(KeyError::Malformed)?;
        let hash = u32::from_str_radix(digits, 16).ok().filter(|_| digits_ok && is_name(name)).ok_or(KeyError::Malformed)?;
        if hash != key_hash(name, &key) {
            return Err(KeyError::Hash);
        }
        let (algorithm, key) = key.split_first().ok_or(KeyError::Malformed)?;
        if *algorithm != ED25519_ALGORITHM {
            return Err(KeyError::Algorithm);
        }
        let key = key.try_into().map_err(|_| KeyError::Malformed)?;
        Ok(Self { name: name.to_owned(), hash, key })
    }

    /// The name of the key's owner: for a checksum database, what follows `/sumdb/` in requests.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hash of name and key.
    #[must_use]
    pub fn hash(&self) -> u32 {
        self.hash
    }

    fn verify(&self, text: &str, signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.key).verify(text.as_bytes(), signature).is_ok()
    }
}

/// The key as it is written in a configuration.
impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ED25519_ALGORITHM];
        key.extend_from_slice(&self.key);
        write!(f, "{}+{:08x}+{}", self.name, self.hash, base64::encode(&key))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Note {
    /// Opens a note and checks every signature in it that claims to be by one of the `known` keys.
    ///
    /// # Errors
    /// See [`NoteError`]. One bad signature by a known key spoils the note, however many good ones there are.
    pub fn open(message: &[u8], known: &[Verifier]) -> Result<Self, NoteError> {
        let message = Some(message).filter(|m| m.len() <= MAX_NOTE_BYTES).and_then(|m| std::str::from_utf8(m).ok());
        let message = message.filter(|m| !m.bytes().any(|b| b < 0x20 && b != b'\n')).ok_or(NoteError::Malformed)?;
        // The last blank line, which may be one of three newlines in a row.
        let split = message.as_bytes().windows(2).rposition(|pair| pair == b"\n\n").ok_or(NoteError::Malformed)?;
        let (text, below) = message.split_at_checked(split + 1).ok_or(NoteError::Malformed)?;
        let below = below.strip_prefix('\n').and_then(|below| below.strip_suffix('\n')).ok_or(NoteError::Malformed)?;
        let mut note = Self { text: text.to_owned(), verified: Vec::new(), unverified: Vec::new() };
        let mut seen = HashSet::new();
        for (i, line) in below.split('\n').enumerate() {
            let (signature, bytes) = parse_signature(line).filter(|_| i < MAX_SIGNATURES).ok_or(NoteError::Malformed)?;
            note.add(signature, &bytes, known, &mut seen)?;
        }
        if note.verified.is_empty() { Err(NoteError::Unverified(Box::new(note))) } else { Ok(note) }
    }

    /// Files one signature under verified or unverified, unless the same was there before.
    fn add(&mut self, signature: Signature, bytes: &[u8], known: &[Verifier], seen: &mut HashSet<(String, u32)>) -> Result<(), NoteError> {
        let mut matching = known.iter().filter(|v| v.name == signature.name && v.hash == signature.hash);
        let Some(verifier) = matching.next() else {
            // One note has at most a hundred of them.
            if !self.unverified.contains(&signature) {
                self.unverified.push(signature);
            }
            return Ok(());
        };
        let key = || format!("{}+{:08x}", signature.name, signature.hash);
        if matching.next().is_some() {
            return Err(NoteError::Ambiguous(key()));
        }
        // Of one key only the first signature counts, and Go does not check the others.
        if !seen.insert((signature.name.clone(), signature.hash)) {
            return Ok(());
        }
        if !verifier.verify(&self.text, bytes) {
            return Err(NoteError::Signature(key()));
        }
        self.verified.push(signature);
        Ok(())
    }
}

/// Parses a line below a note; the bytes are those after the key hash.
fn parse_signature(line: &str) -> Option<(Signature, Vec<u8>)> {
    let (name, base64) = line.strip_prefix(SIGNATURE_PREFIX)?.split_once(' ')?;
    let decoded = base64::decode(base64)?;
    let (hash, bytes) = decoded.split_first_chunk::<4>()?;
    let signature = Signature { name: name.to_owned(), hash: u32::from_be_bytes(*hash), base64: base64.to_owned() };
    (is_name(name) && !bytes.is_empty()).then(|| (signature, bytes.to_vec()))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c == '+' || c.is_whitespace())
}

fn key_hash(name: &str, key: &[u8]) -> u32 {
    let mut hash = Context::new(&SHA256);
    hash.update(name.as_bytes());
    hash.update(b"\n");
    hash.update(key);
    hash.finish().as_ref().first_chunk::<4>().map_or(0, |first| u32::from_be_bytes(*first))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    const TEXT: &str = "the text\n";

    fn signer(name: &str, seed: u8) -> (Ed25519KeyPair, Verifier) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let key = [&[ED25519_ALGORITHM], pair.public_key().as_ref()].concat();
        let text = format!("{name}+{:08x}+{}", key_hash(name, &key), base64::encode(&key));
        (pair, Verifier::parse(&text).unwrap())
    }

    fn line((pair, verifier): &(Ed25519KeyPair, Verifier), text: &str) -> String {
        let bytes = [&verifier.hash.to_be_bytes(), pair.sign(text.as_bytes()).as_ref()].concat();
        format!("— {} {}\n", verifier.name, base64::encode(&bytes))
    }

    #[test]
    fn a_note_tells_known_signatures_from_unknown_ones() {
        let (known, other) = (signer("sum.corp.test", 1), signer("sum.corp.test", 2));
        let lines = [line(&other, "lies\n"), line(&known, TEXT), line(&other, "lies\n"), line(&known, "ignored\n")].concat();
        let note = Note::open(format!("{TEXT}\n{lines}").as_bytes(), std::slice::from_ref(&known.1)).unwrap();
        assert_eq!(note.text, TEXT);
        assert_eq!(note.verified.iter().map(|s| s.hash).collect::<Vec<_>>(), [known.1.hash()]);
        assert_eq!(note.unverified.iter().map(|s| s.hash).collect::<Vec<_>>(), [other.1.hash()]);
    }

    #[test]
    fn a_changed_text_and_a_strangers_note_are_refused() {
        let (known, other) = (signer("sum.corp.test", 1), signer("sum.corp.test", 2));
        let note = format!("{TEXT}\n{}", line(&known, TEXT));
        let open = |text: &str, known: &[Verifier]| Note::open(text.as_bytes(), known);
        assert!(matches!(open(&note.replace("the", "The"), std::slice::from_ref(&known.1)), Err(NoteError::Signature(_))));
        assert!(matches!(open(&note, &[other.1]), Err(NoteError::Unverified(_))));
        assert!(matches!(open(&note, &[]), Err(NoteError::Unverified(_))));
        assert!(matches!(open(&note, &[known.1.clone(), known.1]), Err(NoteError::Ambiguous(_))));
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let known = signer("sum.corp.test", 1);
        let good = format!("{TEXT}\n{}", line(&known, TEXT));
        let many = format!("{TEXT}\n{}", line(&known, TEXT).repeat(MAX_SIGNATURES + 1));
        let long = format!("{}\n\n{}", "x".repeat(MAX_NOTE_BYTES), line(&known, TEXT));
        for bad in [
            "",
            "\n",
            "\n\n",
            "text\n\n",
            "text\n\nno signature\n",
            good.trim_end(),
            &format!("{good}\n"),
            &good.replace("— ", "- "),
            &good.replace("text", "te\u{1}t"),
            &good.replace("sum.corp", "sum+corp"),
            &good.replace("sum.corp", "sum\u{2003}corp"),
            &many,
            &long,
        ] {
            assert_eq!(Note::open(bad.as_bytes(), std::slice::from_ref(&known.1)), Err(NoteError::Malformed), "{bad:.60}");
        }
        assert!(Note::open(&[good.as_bytes(), b"\xff"].concat(), &[known.1]).is_err());
    }

    #[test]
    fn keys_are_checked_against_their_hash() {
        let (_, verifier) = signer("sum.corp.test/path", 3);
        let text = verifier.to_string();
        assert_eq!(Verifier::parse(&text), Ok(verifier));
        assert_eq!(Verifier::parse(&text.replace("corp", "c0rp")), Err(KeyError::Hash));
        let bad =
            ["", "a", "a+b", "a+0000000+AQ==", "a+0000000g+AQ==", "a b+00000000+AQ==", "a+00000000+", "+00000000+AQ==", "a+00000000+?"];
        for bad in bad {
            assert_eq!(Verifier::parse(bad), Err(KeyError::Malformed), "{bad}");
        }
        for (key, why) in [(&[2; 33][..], KeyError::Algorithm), (&[1; 32], KeyError::Malformed)] {
            let text = format!("a+{:08x}+{}", key_hash("a", key), base64::encode(key));
            assert_eq!(Verifier::parse(&text), Err(why));
        }
    }
}
