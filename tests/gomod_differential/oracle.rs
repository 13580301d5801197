//! Questions to Go's own code.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Go's answers to these questions, in their order.
pub(crate) fn ask_go(questions: &[Value]) -> Vec<Value> {
    static ORACLE: LazyLock<PathBuf> = LazyLock::new(|| {
        let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("modfile-oracle");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle");
        let built =
            Command::new("go").args(["build", "-o"]).arg(&binary).arg("./modfile").current_dir(folder).status().expect("go is needed");
        assert!(built.success(), "the oracle does not build");
        binary
    });
    let mut go = Command::new(&*ORACLE).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = go.stdin.take().unwrap();
    let lines: String = questions.iter().map(|q| format!("{q}\n")).collect();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let answers = BufReader::new(go.stdout.take().unwrap()).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    writer.join().unwrap().unwrap();
    assert!(go.wait().unwrap().success(), "the oracle failed");
    answers
}

/// Fails at the first question to which the answers differ, and if fewer than `least` of Go's answers were of either kind:
/// a generator that only makes nonsense, or none, would prove nothing.
pub(crate) fn agree(cases: Vec<(Value, Value)>, least: usize, is_accepted: impl Fn(&Value) -> bool) {
    let (questions, ours): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let answers = ask_go(&questions);
    assert_eq!(answers.len(), questions.len(), "a question without answer");
    for ((question, go), ours) in questions.iter().zip(&answers).zip(&ours) {
        assert!(go == ours, "asked {}\nGo   {go}\nours {ours}", shown(question));
    }
    let accepted = answers.iter().filter(|go| is_accepted(go)).count();
    let refused = answers.len() - accepted;
    println!("{} questions, {accepted} accepted", answers.len());
    assert!(accepted >= least && refused >= least, "{accepted} accepted and {refused} refused say too little");
}

fn shown(question: &Value) -> String {
    let file = question["file"].as_str().map(|file| STANDARD.decode(file).unwrap());
    file.map_or_else(|| question.to_string(), |file| format!("{question}\n{:?}", String::from_utf8_lossy(&file)))
}
