//! Signed notes, and what a checksum database answers with them.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::gomod::{Lookup, MAX_NOTE_BYTES, MAX_SIGNATURES, Note, NoteError, Tree, Verifier};
use crate::input::Input;

struct Signer {
    pair: Ed25519KeyPair,
    verifier: Verifier,
}

impl Signer {
    fn new(name: &str, seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let key = [&[1], pair.public_key().as_ref()].concat();
        let hash = digest(&SHA256, &[name.as_bytes(), b"\n", &key].concat());
        let hash = u32::from_be_bytes(*hash.as_ref().first_chunk().unwrap());
        let verifier = Verifier::parse(&format!("{name}+{hash:08x}+{}", STANDARD.encode(key))).unwrap();
        Self { pair, verifier }
    }

    fn line(&self, text: &str) -> String {
        let bytes = [&self.verifier.hash().to_be_bytes(), self.pair.sign(text.as_bytes()).as_ref()].concat();
        format!("— {} {}\n", self.verifier.name(), STANDARD.encode(bytes))
    }
}

/// The first is known, the second is a stranger of the same name.
static SIGNERS: LazyLock<[Signer; 2]> = LazyLock::new(|| [Signer::new("sum.corp.test", 1), Signer::new("sum.corp.test", 2)]);

pub fn run(data: &[u8]) {
    as_it_stands(data);
    answers(data);
    signed_and_changed(data);
}

/// The only texts that the known key has signed in all its life, apart from those of [`signed_and_changed`].
const SIGNED: [&str; 2] = ["go.sum database tree\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", "the text\n"];

/// Bytes that nobody signed for us. A note of [`SIGNED`] may be among the corpus.
fn as_it_stands(message: &[u8]) {
    let known = std::slice::from_ref(&SIGNERS[0].verifier);
    match Note::open(message, known) {
        Ok(note) => {
            assert!(SIGNED.contains(&note.text.as_str()), "nobody signed {:?}", note.text);
            comes_back(&note, known);
        }
        Err(NoteError::Unverified(note)) => comes_back(&note, known),
        Err(_) => {}
    }
    if let Ok(text) = std::str::from_utf8(message)
        && let Ok(verifier) = Verifier::parse(text)
    {
        // Base64 has spare bits and the hash may be in capitals, so the text may differ. The key does not.
        let again = Verifier::parse(&verifier.to_string()).unwrap();
        assert_eq!((again.name(), again.hash()), (verifier.name(), verifier.hash()));
    }
}

/// Written anew, a note is the same note.
fn comes_back(note: &Note, known: &[Verifier]) {
    assert!(note.text.ends_with('\n') && note.text.len() < MAX_NOTE_BYTES);
    assert!(note.verified.len() <= known.len() && note.verified.len() + note.unverified.len() <= MAX_SIGNATURES);
    let signatures = note.verified.iter().chain(&note.unverified);
    let lines: String = signatures.map(|signature| format!("— {} {}\n", signature.name, signature.base64)).collect();
    let again = match Note::open(format!("{}\n{lines}", note.text).as_bytes(), known) {
        Ok(note) => note,
        Err(NoteError::Unverified(note)) => *note,
        Err(error) => panic!("{error}: {:?}", note.text),
    };
    assert_eq!(&again, note);
}

fn answers(data: &[u8]) {
    if let Ok(lookup) = Lookup::parse(data) {
        let again = [format!("{}\n{}\n", lookup.record, lookup.text).as_bytes(), lookup.note].concat();
        assert_eq!(again, data);
        let (zip, go_mod) = lookup.hashes("a.example/m", "v1.0.0");
        assert!(zip.iter().chain(&go_mod).all(|hash| lookup.text.contains(hash)));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(tree) = Tree::parse(text)
    {
        assert_eq!(Tree::parse(&tree.text()), Ok(tree));
    }
}

/// Signs what the input says, changes what the input says, and is not taken in.
fn signed_and_changed(data: &[u8]) {
    let mut input = Input(data);
    let (edits, strangers, length) = (input.byte() % 4, input.byte(), input.below(300));
    let text: String =
        input.take(length).iter().map(|b| if *b == b'\n' { '\n' } else { char::from(b % 95 + 32) }).collect::<String>() + "\n";
    let [ours, stranger] = &*SIGNERS;
    let lines =
        [(strangers & 1 != 0).then(|| stranger.line("lies\n")), Some(ours.line(&text)), (strangers & 2 != 0).then(|| stranger.line(&text))];
    let mut message = format!("{text}\n{}", lines.into_iter().flatten().collect::<String>()).into_bytes();
    let known = std::slice::from_ref(&ours.verifier);
    let note = Note::open(&message, known).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    assert_eq!((note.text.as_str(), note.verified.len()), (text.as_str(), 1));
    comes_back(&note, known);
    for _ in 0..edits {
        let (at, byte) = (input.below(message.len()), input.byte());
        match byte % 3 {
            0 => message[at] = byte / 3,
            1 => message.insert(at, byte / 3),
            _ => drop(message.remove(at)),
        }
    }
    if let Ok(changed) = Note::open(&message, known) {
        assert_eq!(changed.text, text, "a changed text was taken for a signed one");
    }
}
