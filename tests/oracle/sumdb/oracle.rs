//! Asks the Go program beside this file.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

/// What Go said. `ok` is whether it accepted; which of the others are filled depends on the question.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Answer {
    pub(crate) ok: bool,
    pub(crate) kind: String,
    pub(crate) text: Option<String>,
    pub(crate) rest: Option<String>,
    pub(crate) numbers: Option<Vec<i64>>,
    pub(crate) names: Option<Vec<String>>,
    pub(crate) unverified: Option<Vec<String>>,
    pub(crate) tiles: Option<Vec<String>>,
}

impl Answer {
    pub(crate) fn text(&self) -> Vec<u8> {
        decode(self.text.as_deref().unwrap_or_default())
    }

    pub(crate) fn rest(&self) -> Vec<u8> {
        decode(self.rest.as_deref().unwrap_or_default())
    }

    pub(crate) fn numbers(&self) -> &[i64] {
        self.numbers.as_deref().unwrap_or_default()
    }

    pub(crate) fn names(&self) -> &[String] {
        self.names.as_deref().unwrap_or_default()
    }

    pub(crate) fn unverified(&self) -> &[String] {
        self.unverified.as_deref().unwrap_or_default()
    }

    pub(crate) fn tiles(&self) -> Vec<Vec<u8>> {
        self.tiles.iter().flatten().map(|tile| decode(tile)).collect()
    }
}

/// Bytes as Go's JSON has them.
pub(crate) fn bytes(bytes: &[u8]) -> Value {
    json!(STANDARD.encode(bytes))
}

fn decode(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap()
}

/// Asks all questions of one new process, and returns as many answers.
pub(crate) fn ask(questions: &[Value]) -> Vec<Answer> {
    let mut go = Command::new("go")
        .args(["run", "./sumdb"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle"))
        // What the program needs was fetched when the machine was set up: a test does not reach out.
        .env("GOPROXY", "off")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the tests need the go command");
    let mut input = go.stdin.take().unwrap();
    let lines: String = questions.iter().map(|question| format!("{question}\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = BufReader::new(go.stdout.take().unwrap());
    let answers: Vec<Answer> = output.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    let _broken_pipe_shows_in_the_count = writer.join().unwrap();
    assert!(go.wait().unwrap().success(), "the oracle failed");
    assert_eq!(answers.len(), questions.len(), "the oracle left questions unanswered");
    answers
}

/// Counts verdicts, so that a test in which one kind is missing can't pass.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) accepted: usize,
    pub(crate) refused: usize,
}

impl Tally {
    pub(crate) fn count(&mut self, accepted: bool) {
        *if accepted { &mut self.accepted } else { &mut self.refused } += 1;
    }

    pub(crate) fn assert_at_least(&self, accepted: usize, refused: usize) {
        assert!(
            self.accepted >= accepted && self.refused >= refused,
            "too few cases: {} accepted, {} refused, wanted {accepted} and {refused}",
            self.accepted,
            self.refused
        );
    }
}

/// Random numbers that are the same each time (splitmix64).
pub(crate) struct Dice(pub u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }

    /// Flips a bit, removes, doubles or inserts a byte.
    pub(crate) fn damage(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return bytes.push(b'x');
        }
        let at = self.below(bytes.len());
        match self.below(6) {
            0 => drop(bytes.remove(at)),
            1 => bytes.insert(at, bytes[at]),
            2 => bytes.insert(at, self.pick(b"\n\r +/.=0x\xe2\x80")),
            _ => bytes[at] ^= 1 << self.below(8),
        }
    }
}
