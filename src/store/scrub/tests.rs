use std::io::Write;

use super::*;
use crate::gomod::{HASH_BYTES, Hash, ModulePath, Version};

const LOOKUP: &str = ".gomodcache/sumdb/sum.example/db+00000001/lookup/a.example/m@v1.0.0";
const TILE: &str = ".gomodcache/sumdb/sum.example/db+00000001/tile/8/0/000.p/8";

fn zip(text: &str) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    writer.start_file("a.example/m@v1.0.0/m.go", zip::write::SimpleFileOptions::default()).unwrap();
    writer.write_all(text.as_bytes()).unwrap();
    writer.finish().unwrap().into_inner()
}

fn put(root: &Path, below: &str, bytes: &[u8]) {
    let path = root.join(below);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn good(root: &Path) -> String {
    let bytes = zip("package m");
    let (module, version) = (ModulePath::new("a.example/m").unwrap(), Version::new("v1.0.0").unwrap());
    let h1 = hash_zip(io::Cursor::new(&bytes), &module, &version).unwrap();
    put(root, "a.example/m/@v/v1.0.0.zip", &bytes);
    put(root, "a.example/m/@v/v1.0.0.ziphash", h1.as_bytes());
    put(root, "a.example/m/@v/v1.0.0.mod", b"module a.example/m\n");
    put(root, "a.example/m/@v/v1.0.0.info", br#"{"Version":"v1.0.0"}"#);
    look_up(root, &record(&h1));
    h1
}

fn look_up(root: &Path, record: &str) {
    put(root, LOOKUP, format!("7\n{record}\nnote\n").as_bytes());
    // Seven other records, and this one.
    let hash = Hash::of_record(record.as_bytes()).0;
    put(root, TILE, &[&[0; 7 * HASH_BYTES], &hash[..]].concat());
}

fn record(zip: &str) -> String {
    let go_mod = hash_go_mod(b"module a.example/m\n");
    format!("a.example/m v1.0.0 {zip}\na.example/m v1.0.0/go.mod {go_mod}\n")
}

/// Remembers what is found, and goes on.
#[derive(Default)]
struct Listener {
    /// Whether its configuration asks a database about everything, which does not answer, or about nothing.
    asks: Option<bool>,
    findings: Vec<Finding>,
    disputed: Vec<PathBuf>,
}

impl Observer for Listener {
    fn is_asked_about(&self, _request: &Request) -> Option<bool> {
        self.asks
    }

    fn found(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    fn disputed(&mut self, path: PathBuf) {
        self.disputed.push(path);
    }

    fn seen(&mut self, _report: &Report, _length: u64) -> bool {
        true
    }
}

fn run(root: &Path, quarantine: bool, asks: Option<bool>) -> (Report, Listener) {
    let mut listener = Listener { asks, ..Listener::default() };
    let report = Scrub::new(root, quarantine).unwrap().run(&mut listener);
    assert_eq!(report.broken, listener.findings.len() as u64);
    (report, listener)
}

fn scrub(root: &Path) -> Vec<Finding> {
    run(root, true, None).1.findings
}

/// How many objects there are, how many a database vouches for, and how many are broken.
fn counts(root: &Path) -> (u64, u64, u64) {
    let (Report { objects, vouched, broken, .. }, _) = run(root, true, None);
    (objects, vouched, broken)
}

#[test]
fn a_good_cache_has_no_findings_and_a_database_vouches_for_it() {
    let folder = tempfile::tempdir().unwrap();
    good(folder.path());
    put(folder.path(), "a.example/m/@v/list", b"v1.0.0\n");
    put(folder.path(), "a.example/m/@v/v1.0.0.lock", b"");
    assert_eq!(counts(folder.path()), (3, 2, 0));
}

#[test]
fn what_is_broken_is_found_with_its_reason_and_moved_away() {
    let breaks: [(&str, &[u8], &str); 6] = [
        ("a.example/m/@v/v1.0.0.mod", b"", "it is empty"),
        ("a.example/m/@v/v1.0.0.zip", b"torn", "zip"),
        ("a.example/m/@v/v1.0.0.zip", &zip("package evil"), "the checksum database says"),
        ("a.example/m/@v/v1.0.0.mod", b"module evil", "the checksum database says"),
        ("a.example/m/@v/v1.0.0.info", br#"{"Version":"v1.0.1"}"#, "its name says v1.0.0"),
        ("a.example/m/@v/v1.0.0.info", b"{", "not JSON"),
    ];
    for (path, bytes, says) in breaks {
        let folder = tempfile::tempdir().unwrap();
        good(folder.path());
        put(folder.path(), path, bytes);
        let findings = scrub(folder.path());
        assert_eq!(findings.len(), 1, "{path}: {findings:?}");
        assert!(findings[0].problem.contains(says) && findings[0].quarantined, "{findings:?}");
        let gone = folder.path().join(&findings[0].path);
        assert!(!gone.exists() && folder.path().join(".gomodcache/quarantine").join(&findings[0].path).exists());
        assert_eq!(scrub(folder.path()), vec![]);
    }
}

#[test]
fn what_is_moved_away_is_said_to_all_processes_with_this_volume() {
    let folder = tempfile::tempdir().unwrap();
    let other = crate::store::Store::open(folder.path(), None, &std::sync::Arc::new(crate::telemetry::Metrics::new().unwrap())).unwrap();
    for _ in 0..2 {
        good(folder.path());
        let before = other.quarantined();
        assert!(scrub(folder.path()).is_empty() && other.quarantined() == before);
        put(folder.path(), "a.example/m/@v/v1.0.0.mod", b"module evil");
        assert_eq!(Scrub::new(folder.path(), false).unwrap().run(&mut Listener::default()).broken, 1);
        assert!(other.quarantined() == before, "it was only looked at");
        scrub(folder.path());
        assert!(other.quarantined() != before);
    }
}

#[test]
fn a_hash_that_is_damaged_or_missing_condemns_no_zip_that_others_vouch_for() {
    type Damage<'a> = (&'a dyn Fn(&Path), &'a str);
    let damages: [Damage<'_>; 3] = [
        (&|hash| fs::write(hash, "h1:other").unwrap(), "h1:other"),
        (&|hash| fs::remove_file(hash).unwrap(), ".ziphash"),
        (&|hash| fs::remove_file(hash).and_then(|()| std::os::unix::fs::symlink("/dev/zero", hash)).unwrap(), ".ziphash"),
    ];
    for (damage, says) in damages {
        let folder = tempfile::tempdir().unwrap();
        let h1 = good(folder.path());
        let (zip, hash) = (folder.path().join("a.example/m/@v/v1.0.0.zip"), folder.path().join("a.example/m/@v/v1.0.0.ziphash"));
        for _database_then_first_seen in 0..2 {
            damage(&hash);
            let before = fs::symlink_metadata(&hash).map(|metadata| metadata.len()).ok();
            let only_looked_at = run(folder.path(), false, None).1.findings;
            assert!(only_looked_at.len() == 1 && !only_looked_at[0].mended, "{only_looked_at:?}");
            assert_eq!(fs::symlink_metadata(&hash).map(|metadata| metadata.len()).ok(), before);
            let findings = scrub(folder.path());
            assert!(findings.len() == 1 && findings[0].mended && !findings[0].quarantined, "{findings:?}");
            assert_eq!(findings[0].path, Path::new("a.example/m/@v/v1.0.0.ziphash"));
            assert_eq!(fs::read_to_string(&hash).unwrap(), h1);
            assert!(zip.exists() && scrub(folder.path()).is_empty());
            fs::remove_dir_all(folder.path().join(".gomodcache/sumdb")).ok();
            put(folder.path(), ".gomodcache/first-seen/a.example/m/@v/v1.0.0.zip", h1.as_bytes());
        }
        // It is the only witness.
        damage(&hash);
        fs::remove_dir_all(folder.path().join(".gomodcache/first-seen")).unwrap();
        let findings = scrub(folder.path());
        assert!(findings.len() == 1 && findings[0].quarantined && findings[0].problem.contains(says), "{findings:?}");
        assert!(!zip.exists());
    }
}

#[test]
fn a_look_up_condemns_nothing_that_is_damaged_or_that_nobody_has_proven() {
    let folder = tempfile::tempdir().unwrap();
    let h1 = good(folder.path());
    let other = h1.replacen("h1:", "h1:x", 1);
    put(folder.path(), LOOKUP, format!("7\n{}\nnote\n", record(&other)).as_bytes());
    assert_eq!(counts(folder.path()), (3, 0, 0));
    good(folder.path());
    put(folder.path(), TILE, &[0; 8 * HASH_BYTES]);
    assert_eq!(counts(folder.path()), (3, 0, 0), "the tile is damaged");
    fs::remove_file(folder.path().join(TILE)).unwrap();
    assert_eq!(counts(folder.path()), (3, 0, 0), "it was evicted");
    // The key was changed, and so was what the database says.
    good(folder.path());
    let (before, record) = ("db+00000002", record(&other));
    put(folder.path(), &LOOKUP.replace("db+00000001", before), format!("7\n{record}\nnote\n").as_bytes());
    let hash = Hash::of_record(record.as_bytes()).0;
    put(folder.path(), &TILE.replace("db+00000001", before), &[&[0; 7 * HASH_BYTES], &hash[..]].concat());
    assert_eq!(counts(folder.path()), (3, 2, 0));
    fs::remove_dir_all(folder.path().join(".gomodcache/sumdb/sum.example").join(before)).unwrap();
    // Of a database that is only relayed, whose key nobody gave.
    good(folder.path());
    let database = |key: &str| folder.path().join(".gomodcache/sumdb/sum.example").join(key);
    fs::rename(database("db+00000001"), database("db")).unwrap();
    put(folder.path(), "a.example/m/@v/v1.0.0.mod", b"module a.example/m // by hand\n");
    assert_eq!(counts(folder.path()), (3, 0, 0));
}

#[test]
fn a_folder_in_the_place_of_a_file_is_found_and_moved_away_and_again() {
    let folder = tempfile::tempdir().unwrap();
    for ends in ["zip", "mod", "ziphash"] {
        let below = format!("a.example/m/@v/v1.0.0.{ends}");
        // The second time there is a folder in the quarantine already, and then a file comes.
        for _ in 0..2 {
            good(folder.path());
            fs::remove_file(folder.path().join(&below)).unwrap();
            put(folder.path(), &format!("{below}/x/y"), b"");
            let findings = scrub(folder.path());
            let found =
                findings.iter().find(|finding| finding.path == Path::new(&below) && finding.problem.contains("is a folder")).unwrap();
            assert!(found.quarantined && !folder.path().join(&below).is_dir(), "{findings:?}");
            assert!(folder.path().join(".gomodcache/quarantine").join(&below).join("x/y").exists());
            scrub(folder.path());
        }
    }
    good(folder.path());
    put(folder.path(), "a.example/m/@v/v1.0.0.mod", b"");
    assert!(scrub(folder.path())[0].quarantined);
    assert!(folder.path().join(".gomodcache/quarantine/a.example/m/@v/v1.0.0.mod").is_file());
}

#[test]
fn a_folder_that_cannot_be_read_is_found_but_for_the_disks_own() {
    let folder = tempfile::tempdir().unwrap();
    good(folder.path());
    // A name that no folder can be opened by, for whoever runs this.
    let scrub = Scrub::new(folder.path(), false).unwrap();
    for (below, is_found) in [("a.example/m", true), ("lost+found", false), (".snapshot", false)] {
        let (mut report, mut listener) = (Report::default(), Listener::default());
        for name in ["x".repeat(300), "evicted".to_owned()] {
            scrub.entries(&folder.path().join(below).join(name), &mut report, &mut listener);
            assert_eq!((report.broken, listener.findings.len()), (is_found.into(), is_found.into()), "{below}: {:?}", listener.findings);
        }
    }
}

#[test]
fn without_a_database_the_first_sum_counts() {
    let folder = tempfile::tempdir().unwrap();
    good(folder.path());
    fs::remove_dir_all(folder.path().join(".gomodcache/sumdb")).unwrap();
    put(folder.path(), ".gomodcache/first-seen/a.example/m/@v/v1.0.0.mod", b"h1:first");
    let findings = scrub(folder.path());
    assert!(findings.len() == 1 && findings[0].problem.contains("seen first says h1:first"), "{findings:?}");
}

/// A company's patched copy of a public version: the database was asked once, then the module became private.
#[test]
fn what_was_seen_first_stands_against_an_earlier_answer_unless_the_database_is_asked_now() {
    let folder = tempfile::tempdir().unwrap();
    let h1 = good(folder.path());
    look_up(folder.path(), &record(&h1.replacen("h1:", "h1:x", 1)));
    let zip = Path::new("a.example/m/@v/v1.0.0.zip");
    let says = |asks: Option<bool>| {
        let (_, Listener { findings, disputed, .. }) = run(folder.path(), false, asks);
        (findings.into_iter().map(|finding| finding.path).collect(), disputed)
    };
    for asks in [None, Some(true), Some(false)] {
        assert_eq!(says(asks), (vec![zip.to_owned()], vec![]), "nothing was seen first");
    }
    put(folder.path(), ".gomodcache/first-seen/a.example/m/@v/v1.0.0.zip", h1.as_bytes());
    assert_eq!(says(Some(false)), (vec![], vec![]));
    assert_eq!(says(Some(true)), (vec![zip.to_owned()], vec![]), "nobody asked it then, and now it has the say");
    assert_eq!(says(None), (vec![], vec![zip.to_owned()]), "nobody knows whether it is asked");
}

#[test]
fn without_quarantine_nothing_is_moved() {
    let folder = tempfile::tempdir().unwrap();
    good(folder.path());
    put(folder.path(), "a.example/m/@v/v1.0.0.mod", b"module evil");
    let (_, Listener { findings, .. }) = run(folder.path(), false, None);
    assert!(!findings[0].quarantined && folder.path().join("a.example/m/@v/v1.0.0.mod").exists());
}
