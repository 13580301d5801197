//! Holds `gomodcache::gomod` equal to Go's own code. Both answer the same questions: thousands that are made by changing
//! good and bad examples (always the same ones, from a fixed seed), and one for everything in the module cache of this
//! machine. Go's answers come from `tests/oracle/modfile`. Where we differ on purpose, the rule stands in the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout, missing_docs)]

mod examples;
mod inputs;
mod oracle;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gomodcache::gomod::semver::{self, Semver};
use gomodcache::gomod::{
    GoMod, ModulePath, PseudoVersion, SummedFile, Version, VersionInfo, check_path_major, compare_go_versions, parse_go_sum,
    split_path_version, synthesized_go_mod,
};
use rand::RngExt;
use serde_json::{Value, json};

use examples::{GO_MOD_PIECES, GO_MODS, INFO_PIECES, INFOS, PATH_PIECES, PATHS, VERSION_PIECES, VERSIONS};
use inputs::{Changer, REAL, real_paths, real_versions};
use oracle::{agree, ask_go};

const NANOS: i128 = 1_000_000_000;
/// Go's `time.Time{}`, the beginning of the year 1, in nanoseconds of the Unix epoch: for Go it is no time.
const ZERO_TIME: i128 = -62_135_596_800 * NANOS;

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
    // However many a machine has: half of the examples are our own, which say what few real ones do.
    let own = GO_MODS.iter().cycle().take(GO_MODS.len().max(REAL.go_mods.len())).map(|text| (*text).to_owned());
    let mut changer = Changer::new(own.chain(real), GO_MOD_PIECES);
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
    let old_bug = "corp.example/m v1.0.0/go.mod h1:G7mAYYxgmS0lVkHyy2hEOLQCFB0DlQFTMLWggykrydY=\n";
    let examples = parts.chunks(4).map(|lines| old_bug.to_owned() + &lines.join("\n") + "\n");
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
fn info_files_say_what_go_reads_in_them() {
    let own = INFOS.iter().cycle().take(INFOS.len().max(REAL.infos.len())).map(|text| (*text).to_owned());
    let mut texts = Changer::new(own.chain(REAL.infos.iter().cloned()), INFO_PIECES).texts(20_000);
    texts.extend(REAL.infos.iter().cloned());
    let cases = texts.into_iter().map(|text| {
        let info = VersionInfo::parse(text.as_bytes()).ok().filter(|info| !info.version.is_empty());
        let time = info.as_ref().and_then(VersionInfo::timestamp).map(|time| time.as_nanosecond());
        let time = time.filter(|time| *time != ZERO_TIME).map(|time| json!([time.div_euclid(NANOS) as i64, time.rem_euclid(NANOS) as i64]));
        let ours = json!({"version": info.map(|info| info.version), "time": time});
        (json!({"op": "info", "file": STANDARD.encode(text)}), ours)
    });
    agree(cases.collect(), 3_000, |go| go["version"].is_string());
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
