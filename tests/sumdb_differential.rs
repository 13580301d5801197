//! Holds what we say of file names, zips, notes, trees and tiles equal to what golang.org/x/mod says, case by case. The
//! first difference is printed with its case; each test counts both verdicts, so that none passes for want of cases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::io::Cursor;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gomodcache::gomod::{
    Hash, Lookup, ModulePath, Note, NoteError, Signature, Tile, TileLevel, Tree, Verifier, Version, ZipError, check_file_path,
    check_module, fold, hash_zip, unescape,
};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;

use oracle::{Dice, Tally, ask, bytes};

#[path = "oracle/sumdb/oracle.rs"]
mod oracle;
#[path = "oracle/sumdb/raw_zip.rs"]
mod raw_zip;
#[path = "oracle/sumdb/tree_cases.rs"]
mod tree_cases;

#[test]
fn letters_and_folding_are_gos() {
    let answers = ask(&[json!({"Op": "letters"}), json!({"Op": "folds"})]);
    let mut letters = answers[0].numbers().iter().copied().peekable();
    let mut folds = answers[1].numbers().chunks(2).peekable();
    let (mut tally, mut folded) = (Tally::default(), 0);
    for c in ('\u{0}'..=char::MAX).filter(|c| !c.is_ascii()) {
        let code = i64::from(u32::from(c));
        while letters.next_if(|letter| *letter < code).is_some() {}
        while folds.next_if(|pair| pair[0] < code).is_some() {}
        let letter = letters.next_if_eq(&code).is_some();
        assert_eq!(check_file_path(&c.to_string()).is_ok(), letter, "{c:?} {code:x}");
        tally.count(letter);
        let least = folds.next_if(|pair| pair[0] == code).map_or(code, |pair| pair[1]);
        let least = char::from_u32(u32::try_from(least).unwrap()).unwrap().to_string();
        assert_eq!(fold(&c.to_string()), fold(&least), "{c:?}");
        assert_eq!(fold(&least), least.to_ascii_lowercase(), "{c:?}");
        folded += usize::from(least != c.to_string());
    }
    tally.assert_at_least(130_000, 900_000);
    assert!(folded > 1400, "only {folded} characters fold");
}

#[test]
fn file_paths_are_judged_as_go_judges_them() {
    let mut dice = Dice(1);
    let parts =
        ["a", "B.go", "con", "CON.x", "com9", "com0", ".", "..", "x.", "é", "ſ", "\u{301}", "~1", " ", "", "aux.tar", "\\", "!", "\u{ad}"];
    let paths: Vec<String> = (0..6000)
        .map(|_| {
            let mut path = Vec::new();
            for i in 0..=dice.below(4) {
                path.extend(if i > 0 && dice.one_in(2) { "/" } else { "" }.bytes());
                let choice = if dice.one_in(2) { 2 } else { parts.len() };
                path.extend(dice.pick(&parts[..choice]).bytes());
            }
            if dice.one_in(3) {
                dice.damage(&mut path);
            }
            String::from_utf8_lossy(&path).into_owned()
        })
        .collect();
    let answers = ask(&paths.iter().map(|path| json!({"Op": "path", "Text": bytes(path.as_bytes())})).collect::<Vec<_>>());
    let mut tally = Tally::default();
    for (path, go) in paths.iter().zip(&answers) {
        assert_eq!(check_file_path(path).is_ok(), go.ok, "{path:?}: we say {:?}, Go says {:?}", check_file_path(path), go.kind);
        tally.count(go.ok);
    }
    tally.assert_at_least(1000, 1000);
}

#[test]
fn modules_and_versions_fit_as_go_fits_them() {
    let paths =
        ["a.example", "a.example/v2", "a.example/v1", "a.example/v2.1", "a.example/x/v12", "gopkg.in/x.v1", "gopkg.in/x.v2", "gopkg.in/x"];
    let more = [
        "gopkg.in/x.v0",
        "gopkg.in/x.v01",
        "gopkg.in/x.v2-unstable",
        "gopkg.in/x.v0-unstable",
        "gopkg.in/y/v2",
        "a.example/v",
        "a.example/v2/v3",
    ];
    let majors = ["v0.0.0", "v0.1.0", "v1.0.0", "v2.0.0", "v3.0.1", "v12.0.0", "v01.0.0", "v1.0", "v2", "main"];
    let tails = [
        "",
        "+incompatible",
        "+meta",
        "-rc.1",
        "-20240102030405-abcdefabcdef",
        "-",
        "-01",
        "-a+incompatible",
        "-0.20240102030405-abcdefabcdef",
    ];
    let mut cases = Vec::new();
    for path in paths.into_iter().chain(more) {
        cases.extend(majors.iter().flat_map(|major| tails.map(|tail| (path, format!("{major}{tail}")))));
    }
    let answers = ask(&cases.iter().map(|(path, version)| json!({"Op": "module", "Module": path, "Version": version})).collect::<Vec<_>>());
    let mut tally = Tally::default();
    for ((path, version), go) in cases.iter().zip(&answers) {
        let ours = ModulePath::new(path).ok().zip(Version::new(version).ok());
        let accepted = ours.is_some_and(|(module, version)| check_module(&module, &version).is_ok());
        assert_eq!(accepted, go.ok, "{path} {version}: Go says {:?}", go.kind);
        tally.count(go.ok);
    }
    tally.assert_at_least(80, 500);
}

#[test]
fn zips_are_read_as_go_reads_them() {
    let (module, version) = (ModulePath::new("corp.example/a").unwrap(), Version::new("v1.0.0").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Dice(2);
    let (mut zips, mut questions) = (Vec::new(), Vec::new());
    for i in 0..4000 {
        let zip = raw_zip::nasty(&mut dice, "corp.example/a@v1.0.0/");
        let file = folder.path().join(format!("{i}.zip"));
        std::fs::write(&file, &zip).unwrap();
        questions.push(json!({"Op": "zip", "File": file, "Unpack": i % 3 == 0, "Module": "corp.example/a", "Version": "v1.0.0"}));
        zips.push(zip);
    }
    let mut tally = Tally::default();
    for (i, (zip, go)) in zips.iter().zip(ask(&questions)).enumerate() {
        let ours = hash_zip(Cursor::new(zip), &module, &version);
        assert!(!matches!(ours, Err(ZipError::Io(_))), "zip {i}: {ours:?}");
        let kept = || std::fs::write(std::env::temp_dir().join("sumdb_differential.zip"), zip).unwrap();
        if ours.is_ok() != go.ok || ours.as_ref().ok() != go.names().first() {
            kept();
            panic!("zip {i} (kept as sumdb_differential.zip in the temporary folder): we say {ours:?}, Go says {go:?}");
        }
        tally.count(go.ok);
    }
    tally.assert_at_least(1200, 1200);
}

#[test]
fn zips_at_the_limits_are_judged_as_go_judges_them() {
    let (module, version) = (ModulePath::new("corp.example/a").unwrap(), Version::new("v1.0.0").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let sixteen = 16 << 20;
    let mut cases = Vec::new();
    for name in ["go.mod", "LICENSE", "d/LICENSE", "other"] {
        cases.extend([sixteen, sixteen + 1].map(|size| vec![(name.to_owned(), size)]));
    }
    for last in [4, 5] {
        // 500 MiB, and one byte more.
        let mut files: Vec<_> = (0..31).map(|i| (format!("{i}"), sixteen)).collect();
        files.push(("last".to_owned(), (4 << 20) + last - 4));
        cases.push(files);
    }
    let (mut tally, mut questions, mut zips) = (Tally::default(), Vec::new(), Vec::new());
    let zeros = vec![0; sixteen + 1];
    for (i, files) in cases.iter().enumerate() {
        let packed = raw_zip::Entry::deflated(b"", &zeros[..sixteen]);
        let entry = |(name, size): &(String, usize)| {
            let name = format!("corp.example/a@v1.0.0/{name}").into_bytes();
            // The same sixteen MiB need packing once only.
            let same = raw_zip::Entry { name: name.clone(), local_name: name.clone(), ..packed.clone() };
            if *size == sixteen { same } else { raw_zip::Entry::deflated(&name, &zeros[..*size]) }
        };
        let zip = raw_zip::write(&files.iter().map(entry).collect::<Vec<_>>(), &raw_zip::Frame::default());
        let file = folder.path().join(format!("{i}.zip"));
        std::fs::write(&file, &zip).unwrap();
        questions.push(json!({"Op": "zip", "File": file, "Module": "corp.example/a", "Version": "v1.0.0"}));
        zips.push(zip);
    }
    for ((files, zip), go) in cases.iter().zip(&zips).zip(ask(&questions)) {
        let ours = hash_zip(Cursor::new(zip), &module, &version);
        assert_eq!(ours.as_ref().ok(), go.names().first(), "{files:?}: we say {ours:?}, Go says {go:?}");
        tally.count(go.ok);
    }
    tally.assert_at_least(7, 3);
}

#[test]
fn zips_in_the_module_cache_have_the_hashes_that_go_gave_them() {
    let cache = std::process::Command::new("go").args(["env", "GOMODCACHE"]).output().expect("the tests need the go command");
    let root = Path::new(String::from_utf8(cache.stdout).unwrap().trim()).join("cache/download");
    let mut hashes = Vec::new();
    collect(&root, &mut hashes);
    let (mut tally, mut total_bytes) = (Tally::default(), 0);
    for file in hashes {
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap().strip_suffix(".ziphash").unwrap();
        let (module, version) = name.split_once("/@v/").unwrap();
        let (module, version) = (ModulePath::new(&unescape(module).unwrap()).unwrap(), Version::new(&unescape(version).unwrap()).unwrap());
        let Ok(zip) = std::fs::File::open(file.with_extension("zip")) else { continue };
        let zip_bytes = zip.metadata().unwrap().len();
        // Enough to see what is out there, and no more than some seconds' work.
        if total_bytes + zip_bytes > 64 << 20 {
            continue;
        }
        total_bytes += zip_bytes;
        let wanted = std::fs::read_to_string(&file).unwrap();
        assert_eq!(hash_zip(&zip, &module, &version).unwrap(), wanted.trim(), "{name}");
        tally.count(true);
        let other = Version::new(&format!("{version}x")).unwrap();
        tally.count(hash_zip(&zip, &module, &other).is_ok());
    }
    // The oracle's own module is there on every machine.
    tally.assert_at_least(1, 1);
    assert_eq!(tally.accepted, tally.refused);
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "ziphash") {
            found.push(path);
        }
    }
}

struct Signer {
    pair: Ed25519KeyPair,
    key: String,
    hash: [u8; 4],
}

fn signer(name: &str, seed: u8) -> Signer {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let public = [&[1], pair.public_key().as_ref()].concat();
    let hashed = ring::digest::digest(&ring::digest::SHA256, &[name.as_bytes(), b"\n", &public].concat());
    let hash: [u8; 4] = hashed.as_ref()[..4].try_into().unwrap();
    let key = format!("{name}+{:08x}+{}", u32::from_be_bytes(hash), STANDARD.encode(&public));
    Signer { pair, key, hash }
}

fn signatures(list: &[Signature]) -> Vec<String> {
    list.iter().map(|s| format!("{} {:08x} {}", s.name, s.hash, s.base64)).collect()
}

#[test]
fn notes_are_opened_as_go_opens_them() {
    let mut dice = Dice(3);
    let signers = [
        signer("sum.corp.test", 1),
        signer("sum.corp.test", 2),
        signer("other.corp.test/x", 3),
        signer("sum.corp.test", 4),
        signer("sum\u{2003}test", 6),
    ];
    let known = [0, 1, 2].map(|i| signers[i].key.clone());
    let (mut notes, mut questions) = (Vec::new(), Vec::new());
    for i in 0..4000 {
        let text = dice.pick(&["text\n", "text\n", "two\n\nparts\n", "ümlaut\n", "\n", "", "no newline"]);
        let mut note = format!("{text}\n").into_bytes();
        for _ in 0..dice.below(4) + usize::from(i % 500 == 0) * dice.pick(&[95, 105]) {
            let signer = if dice.one_in(40) { &signers[4] } else { dice.pick(&[0, 0, 1, 2, 3].map(|i| &signers[i])) };
            let signed = if dice.one_in(20) { "another text\n" } else { text };
            let line = [&signer.hash, signer.pair.sign(signed.as_bytes()).as_ref()].concat();
            let name = signer.key.split('+').next().unwrap();
            note.extend(format!("— {name} {}\n", STANDARD.encode(line)).bytes());
        }
        if dice.one_in(3) {
            dice.damage(&mut note);
        }
        // One key twice is one that nobody can tell apart.
        let keys: Vec<_> =
            known.iter().take(dice.pick(&[0, 1, 2, 3, 3, 3])).chain(known.iter().take(usize::from(dice.one_in(20)))).cloned().collect();
        questions.push(json!({"Op": "note", "Text": bytes(&note), "Keys": keys}));
        notes.push((note, keys));
    }
    let mut tally = Tally::default();
    let mut kinds = std::collections::BTreeSet::new();
    for ((note, keys), go) in notes.iter().zip(ask(&questions)) {
        let known: Vec<Verifier> = keys.iter().map(|key| Verifier::parse(key).unwrap()).collect();
        let ours = Note::open(note, &known);
        let (kind, opened) = match &ours {
            Ok(note) => ("", Some(note)),
            Err(NoteError::Malformed) => ("malformed", None),
            Err(NoteError::Ambiguous(_)) => ("ambiguous", None),
            Err(NoteError::Signature(_)) => ("signature", None),
            Err(NoteError::Unverified(note)) => ("unverified", Some(&**note)),
        };
        let note = String::from_utf8_lossy(note);
        assert_eq!(kind, go.kind, "{note}");
        if let Some(opened) = opened {
            assert_eq!(opened.text.as_bytes(), go.text(), "{note}");
            assert_eq!(signatures(&opened.verified), go.names(), "{note}");
            assert_eq!(signatures(&opened.unverified), go.unverified(), "{note}");
        }
        kinds.insert(go.kind.clone());
        tally.count(go.ok);
    }
    tally.assert_at_least(800, 800);
    assert_eq!(kinds.len(), 5, "{kinds:?}");
}

#[test]
fn keys_records_and_descriptions_of_trees_are_parsed_as_go_parses_them() {
    let mut dice = Dice(4);
    let head = Tree { size: 1234, hash: Hash::of_nothing() }.text();
    let samples: [(&str, String); 8] = [
        ("key", signer("sum.corp.test", 1).key),
        ("key", signer("süm.corp.test/x", 5).key.to_uppercase().replace("SÜM.CORP.TEST/X", "süm.corp.test/x")),
        ("key", signer("sum\u{2003}corp.test", 6).key),
        ("tree", head.clone()),
        ("tree", format!("{head}more\n")),
        ("record", "7\ncorp.example/a v1.0.0 h1:x=\ncorp.example/a v1.0.0/go.mod h1:y=\n\nnote\n\nmore".to_owned()),
        ("record", "0\n\nx\n\n".to_owned()),
        ("record", "9223372036854775807\nü\n\n".to_owned()),
    ];
    let mut cases: Vec<(&str, Vec<u8>)> = samples.iter().map(|(op, text)| (*op, text.clone().into_bytes())).collect();
    for _ in 0..6000 {
        let (op, text) = dice.pick(&samples);
        let mut text = text.into_bytes();
        for _ in 0..=dice.below(2) {
            dice.damage(&mut text);
        }
        // Keys and descriptions are text by the time we see them.
        cases.push((op, if op == "record" { text } else { String::from_utf8_lossy(&text).into_owned().into_bytes() }));
    }
    let answers = ask(&cases.iter().map(|(op, text)| json!({"Op": op, "Text": bytes(text)})).collect::<Vec<_>>());
    let mut tallies = std::collections::BTreeMap::<&str, Tally>::new();
    for ((op, raw), go) in cases.iter().zip(&answers) {
        let text = String::from_utf8_lossy(raw);
        let (numbers, names) = match *op {
            "key" => Verifier::parse(&text).ok().map(|v| (vec![i64::from(v.hash())], vec![v.name().to_owned()])),
            "tree" => Tree::parse(&text).ok().map(|t| (vec![t.size.cast_signed()], vec![t.hash.to_string()])),
            _ => Lookup::parse(raw).ok().map(|lookup| {
                assert_eq!((lookup.text.as_bytes(), lookup.note), (&*go.text(), &*go.rest()), "{text:?}");
                (vec![lookup.record.cast_signed()], Vec::new())
            }),
        }
        .unwrap_or_default();
        assert_eq!((numbers.as_slice(), names.as_slice()), (go.numbers(), go.names()), "{op} {text:?}: Go says {go:?}");
        tallies.entry(op).or_default().count(go.ok);
    }
    tallies["key"].assert_at_least(2, 800);
    tallies["tree"].assert_at_least(50, 800);
    tallies["record"].assert_at_least(100, 800);
}

#[test]
fn tile_paths_are_parsed_as_go_parses_them() {
    let mut dice = Dice(5);
    let mut paths = Vec::new();
    for _ in 0..6000 {
        let height = 1 + dice.below(32);
        let level = if dice.one_in(5) { "data".to_owned() } else { dice.below(70).to_string() };
        let mut path = format!("tile/{height}/{level}");
        let groups = dice.below(8);
        for _ in 0..groups {
            let x = if dice.one_in(20) { "" } else { "x" };
            path += &format!("/{x}{:03}", dice.below(1000));
        }
        path += &format!("/{:03}", dice.below(1000));
        if dice.one_in(2) {
            path += &format!(".p/{}", dice.below(2 << height.min(12)));
        }
        let mut path = path.into_bytes();
        if dice.one_in(4) {
            dice.damage(&mut path);
        }
        paths.push(String::from_utf8_lossy(&path).into_owned());
    }
    let answers = ask(&paths.iter().map(|path| json!({"Op": "tile", "Text": bytes(path.as_bytes())})).collect::<Vec<_>>());
    let mut tally = Tally::default();
    for (path, go) in paths.iter().zip(&answers) {
        let ours = path.parse::<Tile>().ok().map(|tile| {
            assert_eq!(tile.to_string(), *path);
            let level = match tile.level() {
                TileLevel::Data => -1,
                TileLevel::Hashes(level) => i64::from(level),
            };
            vec![i64::from(tile.height()), level, tile.index().cast_signed(), i64::from(tile.width())]
        });
        // Go's documentation ends at level 63, its parser does not.
        let accepted = go.ok && go.numbers()[1] <= 63;
        assert_eq!(ours.as_deref(), accepted.then(|| go.numbers()), "{path}: Go says {go:?}");
        tally.count(accepted);
    }
    tally.assert_at_least(1200, 1200);
}
