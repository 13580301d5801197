//! Holds `gomodcache::gomod` equal to Go's own code. Both answer the same questions: thousands that are made by changing
//! good and bad examples (always the same ones, from a fixed seed), and one for everything in the module cache of this
//! machine. Go's answers come from `tests/oracle/modfile`. Where we differ on purpose, the rule stands in the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gomodcache::gomod::semver::{self, Semver};
use gomodcache::gomod::{
    GoMod, ModulePath, PseudoVersion, SummedFile, Version, check_path_major, compare_go_versions, parse_go_sum, split_path_version,
    synthesized_go_mod,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// Go's answers to these questions, in their order.
fn ask_go(questions: &[Value]) -> Vec<Value> {
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
fn agree(cases: Vec<(Value, Value)>, least: usize, is_accepted: impl Fn(&Value) -> bool) {
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

/// Makes new texts out of old ones.
struct Changer<'a> {
    random: StdRng,
    examples: Vec<String>,
    /// What is put in.
    pieces: &'a [&'a str],
}

impl<'a> Changer<'a> {
    fn new(examples: impl IntoIterator<Item = impl Into<String>>, pieces: &'a [&'a str]) -> Self {
        Self { random: StdRng::seed_from_u64(20_240_102), examples: examples.into_iter().map(Into::into).collect(), pieces }
    }

    fn example(&mut self) -> String {
        let i = self.random.random_range(..self.examples.len());
        self.examples[i].clone()
    }

    /// An example with up to three changes, or none.
    fn text(&mut self) -> String {
        let text = self.example();
        (0..self.random.random_range(0..4)).fold(text, |text, _| self.changed(&text))
    }

    fn changed(&mut self, text: &str) -> String {
        let chars: Vec<char> = text.chars().collect();
        let from = self.random.random_range(..=chars.len());
        let to = (from + self.random.random_range(..4_usize)).min(chars.len());
        let (head, middle, tail) = (chars[..from].iter().collect::<String>(), chars[from..to].iter().collect::<String>(), &chars[to..]);
        let tail: String = tail.iter().collect();
        let piece = self.pieces[self.random.random_range(..self.pieces.len())];
        match self.random.random_range(0..6) {
            0 => format!("{head}{tail}"),
            1 => format!("{head}{middle}{middle}{tail}"),
            2 => format!("{head}{piece}{middle}{tail}"),
            3 => format!("{head}{piece}{tail}"),
            4 => format!("{head}{}{tail}", middle.to_uppercase()),
            _ => {
                let other: Vec<char> = self.example().chars().collect();
                let from = self.random.random_range(..=other.len());
                format!("{head}{}", other[from..].iter().collect::<String>())
            }
        }
    }

    fn texts(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.text()).collect()
    }
}

const VERSIONS: &[&str] = &[
    "v1",
    "v1.2",
    "v1.2.3",
    "v0.0.0",
    "v2.0.0+incompatible",
    "v1.2.3-pre.1+meta.01",
    "v1.0.0-alpha.beta-2",
    "v10.20.30-0.rc",
    "v99999999999999999999.0.18446744073709551616",
    "v0.0.0-20240102030405-abcdefabcdef",
    "v1.0.0-20240229030405-abcdefabcdef+incompatible",
    "v1.2.4-0.20240102030405-abcdefabcdef",
    "v3.1.100-0.20230229235960-0123456789AB+incompatible",
    "v1.2.3-rc.1.0.19991231235959-abc",
    "v0.0.1-go1.21.0.linux-amd64",
    "main",
    "release-1.2 {x}",
    "abcdef012345",
    "COM1.x",
    "nul",
    "..",
    "",
];
const VERSION_PIECES: &[&str] = &[
    ".",
    "-",
    "+",
    "0",
    "1",
    "9",
    "10",
    "v",
    "-0.",
    ".0.",
    "a",
    "Z",
    "rc",
    "+incompatible",
    "20240102030405",
    "é",
    "١",
    "/",
    "\\",
    "!",
    "_",
    "~",
    " ",
    "\u{0}",
    "\n",
    "@",
    "#",
    "com1",
];
const PATHS: &[&str] = &[
    "corp.example",
    "corp.example/m",
    "corp.example/Azure/go-x/v2",
    "corp.example/m/v10",
    "corp.example/m/v1",
    "corp.example/m/v02",
    "corp.example/m/v2.1",
    "corp.example/con.d/x~1",
    "gopkg.in/yaml.v3",
    "gopkg.in/x/y.v0",
    "gopkg.in/yaml.v2-unstable",
    "gopkg.in/yaml.v0-unstable",
    "golang.org/toolchain",
    "nodot/x",
    "",
];
const PATH_PIECES: &[&str] = &[
    "/",
    ".",
    "-",
    "_",
    "~",
    "~1",
    "v",
    "/v",
    ".v",
    "0",
    "1",
    "2",
    "a",
    "Z",
    "//",
    "..",
    "com1",
    "LPT9",
    "Nul",
    "-unstable",
    "gopkg.in/",
    "é",
    "K",
    "%",
    "+",
    "@",
    " ",
    "!",
    "\u{0}",
];

/// The module cache of this machine.
struct Real {
    /// Escaped paths and versions.
    names: Vec<(String, String)>,
    go_mods: Vec<Vec<u8>>,
    go_sums: Vec<Vec<u8>>,
}

static REAL: LazyLock<Real> = LazyLock::new(|| {
    // Building the oracle puts golang.org/x/mod there, if nothing else is.
    ask_go(&[]);
    let root = Command::new("go").args(["env", "GOMODCACHE"]).output().unwrap();
    let root = PathBuf::from(String::from_utf8(root.stdout).unwrap().trim());
    let mut real = Real { names: Vec::new(), go_mods: Vec::new(), go_sums: Vec::new() };
    let download = root.join("cache/download");
    visit(&download, &mut |file| {
        let relative = file.strip_prefix(&download).unwrap().to_str().unwrap();
        if let Some((path, name)) = relative.split_once("/@v/")
            && let Some(version) = name.strip_suffix(".mod")
        {
            real.names.push((path.to_owned(), version.to_owned()));
            real.go_mods.push(std::fs::read(file).unwrap());
        }
    });
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for folder in [root.as_path(), &checkout] {
        visit(folder, &mut |file| {
            if file.file_name().is_some_and(|name| name == "go.sum") {
                real.go_sums.push(std::fs::read(file).unwrap());
            }
        });
    }
    assert!(!real.names.is_empty() && !real.go_sums.is_empty(), "nothing real in {}", root.display());
    println!("{} go.mod and {} go.sum files are real", real.go_mods.len(), real.go_sums.len());
    real
});

/// Calls with every file below a folder; of an unpacked module only with those at its top.
fn visit(folder: &Path, found: &mut impl FnMut(&Path)) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let unpacked = folder.file_name().is_some_and(|name| name.to_str().unwrap_or_default().contains('@') && name != "@v");
    for path in entries {
        if !path.is_dir() {
            found(&path);
        } else if !unpacked {
            visit(&path, found);
        }
    }
}

fn real_versions() -> impl Iterator<Item = String> {
    REAL.names.iter().map(|(_, version)| Version::from_escaped(version).unwrap().as_str().to_owned())
}

fn real_paths() -> impl Iterator<Item = String> {
    REAL.names.iter().map(|(path, _)| ModulePath::from_escaped(path).unwrap().as_str().to_owned())
}

#[test]
fn versions_are_what_go_takes_them_for() {
    let examples = VERSIONS.iter().map(|v| (*v).to_owned()).chain(real_versions());
    let mut texts = Changer::new(examples, VERSION_PIECES).texts(12_000);
    texts.extend(real_versions());
    let cases = texts.into_iter().map(|text| {
        let parsed = Semver::parse(&text);
        let pseudo = PseudoVersion::parse(&text);
        let version = Version::new(&text).ok();
        let named = semver::canonical_version(&text).unwrap_or_default();
        if let Some(version) = &version {
            assert_eq!(version.is_canonical(), named == text && !named.is_empty(), "{text:?}");
            assert_eq!(version.is_pseudo(), pseudo.is_some(), "{text:?}");
        }
        let ours = json!({
            "valid": parsed.is_some(),
            "canonical": parsed.map(|v| v.canonical()).unwrap_or_default(),
            "major": parsed.map(|v| v.major()).unwrap_or_default(),
            "majorMinor": parsed.map(|v| v.major_minor()).unwrap_or_default(),
            "prerelease": parsed.map(|v| v.prerelease()).unwrap_or_default(),
            "build": parsed.map(|v| v.build()).unwrap_or_default(),
            "named": named,
            "pseudo": pseudo.is_some(),
            "time": pseudo.and_then(|p| p.time()).map(|t| t.strftime("%Y%m%d%H%M%S").to_string()),
            "revision": pseudo.map(|p| p.revision()),
            // Go says "" where there is no tag, and an error where there can be none.
            "base": pseudo.and_then(|p| p.base().ok()).map(Option::unwrap_or_default),
            "escaped": version.map(|v| v.escaped()),
        });
        (json!({"op": "version", "a": text}), ours)
    });
    agree(cases.collect(), 3_000, |go| go["valid"] == true);
}

#[test]
fn a_percent_sign_is_all_that_we_refuse_and_go_does_not() {
    let with_percent = Changer::new(VERSIONS.iter().copied(), VERSION_PIECES).texts(1_000).into_iter().map(|text| format!("{text}%2e"));
    let questions: Vec<_> = with_percent.map(|text| json!({"op": "version", "a": text})).collect();
    let accepted = ask_go(&questions).iter().filter(|go| !go["escaped"].is_null()).count();
    assert!(accepted > 500, "Go accepts a percent sign no longer: {accepted}");
    assert!(questions.iter().all(|q| Version::new(q["a"].as_str().unwrap()).is_err()));
}

#[test]
fn versions_are_ordered_as_go_orders_them() {
    let mut changer = Changer::new(VERSIONS.iter().map(|v| (*v).to_owned()).chain(real_versions()), VERSION_PIECES);
    let mut cases: Vec<_> = (0..8_000)
        .map(|i| {
            let a = changer.text();
            // Versions that have nothing in common are too easy.
            let b = if i % 3 == 0 { changer.text() } else { changer.changed(&a) };
            let ours = semver::compare(&a, &b) as i8;
            (json!({"op": "compare", "a": a, "b": b}), json!(ours))
        })
        .collect();
    let mut lists: Vec<Vec<String>> = (0..200).map(|_| changer.texts(30)).collect();
    lists.push(real_versions().collect());
    cases.extend(lists.into_iter().map(|list| {
        let mut sorted = list.clone();
        sorted.sort_by(|a, b| semver::compare_for_list(a, b));
        (json!({"op": "sort", "list": list}), json!(sorted))
    }));
    agree(cases, 1_000, |go| *go == -1);
}

#[test]
fn paths_are_what_go_takes_them_for() {
    let mut texts = Changer::new(PATHS.iter().map(|p| (*p).to_owned()).chain(real_paths()), PATH_PIECES).texts(12_000);
    texts.extend(real_paths());
    let cases = texts.into_iter().map(|text| {
        let module = ModulePath::new(&text).ok();
        let ours = json!({
            "split": split_path_version(&text),
            "escaped": module.as_ref().map(ModulePath::escaped),
            "synthesized": module.as_ref().map(synthesized_go_mod),
        });
        (json!({"op": "path", "a": text}), ours)
    });
    agree(cases.collect(), 3_000, |go| !go["escaped"].is_null());
}

#[test]
fn escapes_are_undone_as_go_does() {
    let names = REAL.names.iter().flat_map(|(path, version)| [path.clone(), version.clone()]);
    let made = ["corp.example/!azure/x", "v1.0.0-!r!c1", "v2.0.0+incompatible", "!main", "corp.example/!gopkg.in"].map(str::to_owned);
    let mut texts = Changer::new(made.into_iter().chain(names.clone()), PATH_PIECES).texts(8_000);
    texts.extend(names);
    // The percent sign has a test of its own.
    let cases = texts.into_iter().filter(|text| !text.contains('%')).map(|text| {
        let (path, version) = (ModulePath::from_escaped(&text).ok(), Version::from_escaped(&text).ok());
        let ours = json!({"path": path.as_ref().map(ModulePath::as_str), "version": version.as_ref().map(Version::as_str)});
        (json!({"op": "unescape", "a": text}), ours)
    });
    agree(cases.collect(), 2_000, |go| !go["path"].is_null());
}

#[test]
fn a_version_fits_a_path_when_it_does_for_go() {
    let majors = ["", "/v2", "/v3", ".v1", ".v2-unstable", ".v1-unstable", ".v0", "v2", "/v10", ".v-unstable"];
    let mut majors = Changer::new(majors, &["/", ".", "v", "1", "2", "-unstable"]);
    let mut versions = Changer::new(VERSIONS.iter().copied().chain(["v0.0.0-x", "v2.0.0", "v2", "v3.1.0"]), VERSION_PIECES);
    let made = (0..5_000).map(|_| (versions.text(), majors.text()));
    let real = real_paths().zip(real_versions()).map(|(path, version)| (version, split_path_version(&path).unwrap().1.to_owned()));
    let cases = made.chain(real).map(|(version, major)| {
        let ours = check_path_major(&version, &major).is_ok();
        (json!({"op": "major", "a": version, "b": major}), json!(ours))
    });
    agree(cases.collect(), 500, |go| *go == true);
}

#[test]
fn go_versions_are_ordered_as_go_orders_them() {
    // A hyphen ends the version for the public go/version, though not for the go command; no go line can have one.
    let pieces = ["0", "1", "9", "20", "21", "22", ".", "rc", "beta", "alpha", "x", "R", "_"];
    let mut changer = Changer::new(["1", "1.16", "1.20.1", "1.21", "1.21rc2", "1.21.0", "1.21beta1", "1.100", "2", ""], &pieces);
    let cases = (0..8_000).map(|i| {
        let a = changer.text();
        let b = if i % 3 == 0 { changer.text() } else { changer.changed(&a) };
        let ours = compare_go_versions(&a, &b) as i8;
        (json!({"op": "go", "a": a, "b": b}), json!(ours))
    });
    agree(cases.collect(), 1_000, |go| *go == -1);
}

const GO_MODS: &[&str] = &[
    "// Deprecated: no.\nmodule corp.example/m\n\ngo 1.21\n\ntoolchain go1.22.1\n",
    "module \"corp.example/\\x6d\\u00e9\\101\"\nrequire corp.example/a v1.2.3 // indirect\n",
    "require (\n\tcorp.example/a/v2 v2.0.1 // indirect; why\n\t\"corp.example/b\" `v1.0.0`\n\n\t// c\n\tgopkg.in/c.v1 v1.0.0-20240102030405-abcdefabcdef // indirect\n) // end\n",
    "exclude corp.example/a v1.0.0\nreplace corp.example/a v1.0.0 => ../a\nretract [v1.0.0, v1.1.0] // why\nretract (\n\tv1.2.3\n)\n",
    "ignore ./x\nignore (\n\t\"y z\"\n)\ntool corp.example/a/b\ngodebug x=y\nnovelty ( a ) b {c}\nfuture x (\n\ty\n)\n",
    "go v1.2.3-x\r\nmodule (\r\n\tcorp.example/m\r\n)\r\nrequire ()\r\n",
];
const GO_MOD_PIECES: &[&str] = &[
    "\n",
    "\r\n",
    " ",
    "\t",
    "(",
    ")",
    "(\n",
    "\n)\n",
    "()",
    "[",
    "]",
    ",",
    "{",
    "//",
    "// indirect",
    "// indirect; x",
    "/*",
    "\"",
    "`",
    "'",
    "\\",
    "\\n",
    "\\\"",
    "\\xe9",
    "\\377",
    "\\ud83d",
    "\\U0001F600",
    "go 1.20\n",
    "go 1.21rc1\n",
    "module x\n",
    "toolchain default\n",
    "require ",
    "ignore ",
    "retract ",
    "v2",
    "/v2",
    "v1.0",
    "+incompatible",
    "=>",
    "é",
    "\u{a0}",
    "\u{2028}",
    "\u{feff}",
    "\u{0}",
    "\u{fffd}",
    "\u{301}",
    "😀",
    "1.2",
];

/// Our answer to a question about a go.mod file. Where Go's strict reader fails, it says nothing about the toolchain.
fn ours_on_go_mod(file: &[u8], strict: &Value) -> Value {
    match GoMod::parse(file) {
        Err(error) => json!({"line": error.line}),
        Ok(read) => {
            let requires: Vec<_> = read.requires.iter().map(|r| json!([r.path, r.version, r.indirect])).collect();
            let toolchain = read.toolchain.filter(|_| strict == true);
            json!({"module": read.module, "go": read.go, "strict": strict, "toolchain": toolchain, "requires": requires})
        }
    }
}

#[test]
fn go_mod_files_say_what_go_reads_in_them() {
    // Of real files a few lines each: else the changes would get lost in them.
    let real = REAL.go_mods.iter().map(|file| {
        let text = String::from_utf8_lossy(file);
        text.lines().take(12).map(|line| format!("{line}\n")).collect::<String>()
    });
    let mut changer = Changer::new(GO_MODS.iter().map(|text| (*text).to_owned()).chain(real), GO_MOD_PIECES);
    let mut files: Vec<Vec<u8>> = changer.texts(12_000).into_iter().map(String::into_bytes).collect();
    for file in files.iter_mut().step_by(10).filter(|file| !file.is_empty()) {
        // Half a character, and bytes that never are one.
        let at = changer.random.random_range(..file.len());
        file.splice(at..at, [&b"\xe2\x82"[..], b"\xff", b"\xc0\xaf"][at % 3].iter().copied());
    }
    files.extend(REAL.go_mods.iter().cloned());
    // Go gives the comment after a string with a hidden end of line to the line before: so we may differ on `indirect`.
    files.retain(|file| !file.windows(2).any(|pair| pair == b"\\\n"));
    let questions: Vec<_> = files.iter().map(|file| json!({"op": "gomod", "file": STANDARD.encode(file)})).collect();
    let strict = ask_go(&questions);
    let ours = files.iter().zip(&strict).map(|(file, go)| ours_on_go_mod(file, &go["strict"]));
    agree(questions.iter().cloned().zip(ours).collect(), 3_000, |go| go.get("line").is_none());

    let with = |key: &str| strict.iter().filter(|go| go[key].is_string()).count();
    let indirect = strict.iter().filter(|go| go["requires"].as_array().is_some_and(|list| list.iter().any(|r| r[2] == true))).count();
    assert!(with("module") > 1_000 && with("go") > 1_000 && with("toolchain") > 100 && indirect > 500, "the files say too little");
}

#[test]
fn go_sum_files_say_what_go_reads_in_them() {
    let real: Vec<String> = REAL.go_sums.iter().map(|file| String::from_utf8(file.clone()).unwrap()).collect();
    let parts = real.iter().flat_map(|text| text.lines().take(200)).collect::<Vec<_>>();
    let examples = parts.chunks(4).map(|lines| lines.join("\n") + "\n");
    // Without a percent sign, which we refuse in versions.
    let pieces = [" ", "\t", "\n", "\r\n", "\n\n", "\u{2003}", "h1:", "h2:", "=", "A", "/go.mod", "/", "+", "v1", "é"];
    let mut texts = Changer::new(examples, &pieces).texts(4_000);
    texts.extend(real);
    let cases = texts.into_iter().map(|text| {
        let ours = match parse_go_sum(&text) {
            Err(error) => json!({"line": error.line}),
            Ok(sums) => {
                let sum = |s: &gomodcache::gomod::Sum| json!([s.module.as_str(), s.version.as_str(), s.file == SummedFile::GoMod, s.hash]);
                json!({"sums": sums.iter().map(sum).collect::<Vec<_>>()})
            }
        };
        (json!({"op": "gosum", "file": STANDARD.encode(&text)}), ours)
    });
    agree(cases.collect(), 1_000, |go| go.get("sums").is_some());
}

#[test]
fn every_character_is_printable_as_it_is_for_go() {
    let answers = ask_go(&[json!({"op": "printable"})]);
    let go = answers[0].as_str().unwrap().as_bytes();
    assert_eq!(go.len(), 0x0011_0000);
    let (mut compared, mut newer) = (0, 0);
    for c in '\0'..=char::MAX {
        // A word of go.mod: spaces, quotes, brackets and comments are not what is asked here.
        if c.is_whitespace() || c == '/' || "()[]{},\"'`".contains(c) {
            continue;
        }
        let ours = GoMod::parse(format!("x{c}").as_bytes()).is_ok();
        match go[c as usize] {
            // Rust's tables are newer than Go's: they may know this character.
            b'2' => newer += usize::from(ours),
            go => {
                assert_eq!(go == b'1', ours, "{c:?}");
                compared += 1;
            }
        }
    }
    assert!(compared > 140_000, "{compared}");
    println!("{compared} characters compared, {newer} are new since Go's tables");
}
