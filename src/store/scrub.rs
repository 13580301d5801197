//! Whether what is on disk is still what was verified: every object is read and held against what is known of it.
//!
//! A zip must have the hash beside it; a zip and a go.mod file the sums that the checksum database gave, or that were seen
//! first; an `.info` file the version of its name. What fails is moved to a quarantine, and the next request fetches it
//! anew: nothing is served that is known to be broken, and nothing is destroyed that someone may want to look at.
//!
//! A database's key is not at hand here. Its look-ups count if they were proven when they came, and if their record stands in a
//! tile that was: that of a damaged one does not. Who can ask the database is an [`Observer`] and hears of what is left.

use std::fs;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use rand::seq::SliceRandom;

use super::STATE_DIR;
use super::open::{plain_file, read_at_most};
use super::tiles::has_record;
use crate::gomod::{Lookup, MAX_GO_MOD_BYTES, ModulePath, Request, SumdbPath, Version, VersionInfo, hash_go_mod, hash_zip};

/// What an upstream may send as an `.info` file; a look-up is shorter.
const MAX_INFO: u64 = 16 << 20;
/// More than a hash has.
const MAX_HASH: u64 = 1 << 10;

/// What is wrong with one object.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Relative to the cache's folder.
    pub path: PathBuf,
    /// A sentence.
    pub problem: String,
    /// Whether it was moved away.
    pub quarantined: bool,
}

/// What a scrub saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Objects that were read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Zips and go.mod files that a checksum database's answer on the volume vouches for: one that was proven and is whole.
    pub vouched: u64,
    /// What is broken.
    pub findings: Vec<Finding>,
}

/// Who follows a scrub.
pub trait Observer {
    /// No database's answer on the volume vouches for this zip or go.mod file, whose hash is `h1`. Returns whether a database does
    /// that can be asked now.
    ///
    /// # Errors
    /// The database says something else: the sentence is the finding.
    fn vouches(&mut self, _request: &Request, _h1: &str) -> Result<bool, String> {
        Ok(false)
    }

    /// Hears of each object, and of its length in bytes; says whether to go on.
    fn seen(&mut self, report: &Report, length: u64) -> bool;
}

/// A cache folder to be scrubbed.
#[derive(Debug)]
pub struct Scrub {
    root: PathBuf,
    databases: Vec<PathBuf>,
    quarantine: bool,
}

impl Scrub {
    /// `quarantine`: broken objects are moved to `.gomodcache/quarantine/`.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn new(root: &Path, quarantine: bool) -> io::Result<Self> {
        fs::read_dir(root)?;
        let mut databases = Vec::new();
        find_databases(&root.join(STATE_DIR).join("sumdb"), &mut databases);
        Ok(Self { root: root.to_owned(), databases, quarantine })
    }

    /// Reads every object. Blocks.
    pub fn run(&self, observer: &mut dyn Observer) -> Report {
        let mut report = Report::default();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            let mut entries: Vec<_> = fs::read_dir(&folder).into_iter().flatten().flatten().collect();
            // In another order each time, so that what one scrub did not come to, another one does.
            entries.shuffle(&mut rand::rng());
            for entry in entries {
                let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
                if kind.is_dir() {
                    if path != self.root.join(STATE_DIR) {
                        folders.push(path);
                    }
                    continue;
                }
                let Some(request) = self.request(&path).filter(Request::is_immutable) else { continue };
                let length = entry.metadata().map(|metadata| metadata.len()).unwrap_or_default();
                report.objects += 1;
                report.bytes += length;
                match self.check(&path, &request, observer) {
                    Ok(vouched) => report.vouched += u64::from(vouched),
                    // Evicted or replaced while it was read.
                    Err(Problem::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(problem) => report.findings.push(self.found(&path, &problem)),
                }
                if !observer.seen(&report, length) {
                    return report;
                }
            }
        }
        report
    }

    fn request(&self, path: &Path) -> Option<Request> {
        let below = path.strip_prefix(&self.root).ok()?.to_str()?;
        Request::parse(&format!("/{below}")).ok().filter(|request| request.escaped() == below)
    }

    /// Whether an object is what its name says. The value says that a database vouches for it.
    fn check(&self, path: &Path, request: &Request, observer: &mut dyn Observer) -> Result<bool, Problem> {
        match request {
            Request::Zip(module, version) => {
                let h1 = hash_zip(BufReader::new(plain_file(path)?), module, version).map_err(|error| match error {
                    crate::gomod::ZipError::Io(error) => Problem::Io(error),
                    error => Problem::Wrong(error.to_string()),
                })?;
                let beside = match read_text(&path.with_extension("ziphash")) {
                    // Evicted while it was read, the hash with it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && path.exists() => {
                        return Err(wrong("it has no .ziphash beside it"));
                    }
                    read => read?,
                };
                same(&h1, beside.trim(), "the .ziphash beside it")?;
                self.check_sum(request, &h1, module, version, observer)
            }
            Request::Mod(module, version) => {
                let file = read_at_most(path, MAX_GO_MOD_BYTES)?;
                if file.len() as u64 > MAX_GO_MOD_BYTES {
                    return Err(wrong("it is longer than a go.mod file may be"));
                }
                if file.is_empty() {
                    return Err(wrong("it is empty, and every go.mod file names its module"));
                }
                self.check_sum(request, &hash_go_mod(&file), module, version, observer)
            }
            Request::Info(_, version) => {
                let info =
                    VersionInfo::parse(&read_at_most(path, MAX_INFO)?).map_err(|error| Problem::Wrong(format!("not JSON: {error}")))?;
                same(&info.version, version.as_str(), "its name").map(|()| false)
            }
            _ => Ok(false),
        }
    }

    fn check_sum(
        &self,
        request: &Request,
        h1: &str,
        module: &ModulePath,
        version: &Version,
        observer: &mut dyn Observer,
    ) -> Result<bool, Problem> {
        let lookup = SumdbPath::Lookup(module.clone(), version.clone()).escaped();
        let mut contradiction = None;
        for database in &self.databases {
            let Ok(answer) = read_at_most(&database.join(&lookup), MAX_INFO) else { continue };
            // One that was damaged must not condemn what is good.
            let Some(lookup) = Lookup::parse(&answer).ok().filter(|lookup| has_record(database, lookup)) else { continue };
            let (zip, go_mod) = lookup.hashes(module.as_str(), version.as_str());
            if let Some(sum) = if matches!(request, Request::Zip(..)) { zip } else { go_mod } {
                match same(h1, sum, "the checksum database") {
                    Ok(()) => return Ok(true),
                    // A database that is used no more may have said something else.
                    Err(problem) => contradiction = Some(problem),
                }
            }
        }
        if observer.vouches(request, h1).map_err(Problem::Wrong)? {
            return Ok(true);
        }
        if let Some(problem) = contradiction {
            return Err(problem);
        }
        let first_seen = self.root.join(STATE_DIR).join("first-seen").join(request.escaped());
        match read_text(&first_seen) {
            Ok(first) => same(h1, first.trim(), "what was seen first").map(|()| false),
            Err(_) => Ok(false),
        }
    }

    fn found(&self, path: &Path, problem: &Problem) -> Finding {
        let below = path.strip_prefix(&self.root).unwrap_or(path).to_owned();
        let to = self.root.join(STATE_DIR).join("quarantine").join(&below);
        let mut text = problem.to_string();
        let mut quarantined = false;
        if self.quarantine && matches!(problem, Problem::Wrong(_)) {
            let moved = to.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::rename(path, &to));
            match moved {
                Ok(()) => quarantined = true,
                Err(error) => text = format!("{text}; and it can't be moved away: {error}"),
            }
        }
        tracing::error!(path = %below.display(), problem = text, quarantined, "a cached object is broken");
        Finding { path: below, problem: text, quarantined }
    }
}

/// A hash, or what stands in its place.
fn read_text(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&read_at_most(path, MAX_HASH)?).into_owned())
}

/// Why an object is not what its name says.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("can't be read: {0}")]
    Io(io::Error),
    #[error("{0}")]
    Wrong(String),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        // A link or a pipe is nothing that was put there.
        if error.kind() == io::ErrorKind::InvalidData { Self::Wrong(error.to_string()) } else { Self::Io(error) }
    }
}

fn wrong(text: &str) -> Problem {
    Problem::Wrong(text.to_owned())
}

fn same(is: &str, should: &str, whose: &str) -> Result<(), Problem> {
    if is == should { Ok(()) } else { Err(Problem::Wrong(format!("it is {is}, and {whose} says {should}"))) }
}

/// The folders of what was proven: those of databases, whose names may hold slashes, with their key's hash. What is only relayed
/// vouches for nothing.
fn find_databases(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        match entry.file_name().to_str() {
            Some(name) if name.contains('+') => found.push(entry.path()),
            Some("lookup" | "tile") => {}
            _ => find_databases(&entry.path(), found),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::gomod::{HASH_BYTES, Hash};

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
        let record = record(&h1);
        put(root, LOOKUP, format!("7\n{record}\nnote\n").as_bytes());
        // Seven other records, and this one.
        let hash = Hash::of_record(record.as_bytes()).0;
        put(root, TILE, &[&[0; 7 * HASH_BYTES], &hash[..]].concat());
        h1
    }

    fn record(zip: &str) -> String {
        let go_mod = hash_go_mod(b"module a.example/m\n");
        format!("a.example/m v1.0.0 {zip}\na.example/m v1.0.0/go.mod {go_mod}\n")
    }

    /// Who knows nothing, and goes on.
    struct Nobody;

    impl Observer for Nobody {
        fn seen(&mut self, _report: &Report, _length: u64) -> bool {
            true
        }
    }

    fn scrub(root: &Path) -> Report {
        Scrub::new(root, true).unwrap().run(&mut Nobody)
    }

    #[test]
    fn a_good_cache_has_no_findings_and_a_database_vouches_for_it() {
        let folder = tempfile::tempdir().unwrap();
        good(folder.path());
        put(folder.path(), "a.example/m/@v/list", b"v1.0.0\n");
        put(folder.path(), "a.example/m/@v/v1.0.0.lock", b"");
        let report = scrub(folder.path());
        assert_eq!((report.objects, report.vouched, report.findings), (3, 2, vec![]));
    }

    #[test]
    fn what_is_broken_is_found_with_its_reason_and_moved_away() {
        let breaks: [(&str, &[u8], &str); 7] = [
            ("a.example/m/@v/v1.0.0.mod", b"", "it is empty"),
            ("a.example/m/@v/v1.0.0.zip", b"torn", "zip"),
            ("a.example/m/@v/v1.0.0.zip", &zip("package evil"), ".ziphash beside it says"),
            ("a.example/m/@v/v1.0.0.mod", b"module evil", "the checksum database says"),
            ("a.example/m/@v/v1.0.0.info", br#"{"Version":"v1.0.1"}"#, "its name says v1.0.0"),
            ("a.example/m/@v/v1.0.0.info", b"{", "not JSON"),
            ("a.example/m/@v/v1.0.0.ziphash", b"h1:other", ".ziphash beside it says h1:other"),
        ];
        for (path, bytes, says) in breaks {
            let folder = tempfile::tempdir().unwrap();
            good(folder.path());
            put(folder.path(), path, bytes);
            let findings = scrub(folder.path()).findings;
            assert_eq!(findings.len(), 1, "{path}: {findings:?}");
            assert!(findings[0].problem.contains(says) && findings[0].quarantined, "{findings:?}");
            let gone = folder.path().join(&findings[0].path);
            assert!(!gone.exists() && folder.path().join(".gomodcache/quarantine").join(&findings[0].path).exists());
            assert_eq!(scrub(folder.path()).findings, vec![]);
        }
    }

    #[test]
    fn a_look_up_condemns_nothing_that_is_damaged_or_that_nobody_has_proven() {
        let folder = tempfile::tempdir().unwrap();
        let h1 = good(folder.path());
        let other = h1.replacen("h1:", "h1:x", 1);
        put(folder.path(), LOOKUP, format!("7\n{}\nnote\n", record(&other)).as_bytes());
        let report = scrub(folder.path());
        assert_eq!((report.objects, report.vouched, report.findings), (3, 0, vec![]));
        good(folder.path());
        put(folder.path(), TILE, &[0; 8 * HASH_BYTES]);
        assert_eq!(scrub(folder.path()).vouched, 0, "the tile is damaged");
        fs::remove_file(folder.path().join(TILE)).unwrap();
        assert_eq!(scrub(folder.path()).vouched, 0, "it was evicted");
        // The key was changed, and so was what the database says.
        good(folder.path());
        let (before, record) = ("db+00000002", record(&other));
        put(folder.path(), &LOOKUP.replace("db+00000001", before), format!("7\n{record}\nnote\n").as_bytes());
        let hash = Hash::of_record(record.as_bytes()).0;
        put(folder.path(), &TILE.replace("db+00000001", before), &[&[0; 7 * HASH_BYTES], &hash[..]].concat());
        let report = scrub(folder.path());
        assert_eq!((report.vouched, report.findings), (2, vec![]));
        fs::remove_dir_all(folder.path().join(".gomodcache/sumdb/sum.example").join(before)).unwrap();
        // Of a database that is only relayed, whose key nobody gave.
        good(folder.path());
        let database = |key: &str| folder.path().join(".gomodcache/sumdb/sum.example").join(key);
        fs::rename(database("db+00000001"), database("db")).unwrap();
        put(folder.path(), "a.example/m/@v/v1.0.0.mod", b"module a.example/m // by hand\n");
        let report = scrub(folder.path());
        assert_eq!((report.objects, report.vouched, report.findings), (3, 0, vec![]));
    }

    #[test]
    fn without_a_database_the_first_sum_counts() {
        let folder = tempfile::tempdir().unwrap();
        good(folder.path());
        fs::remove_dir_all(folder.path().join(".gomodcache/sumdb")).unwrap();
        put(folder.path(), ".gomodcache/first-seen/a.example/m/@v/v1.0.0.mod", b"h1:first");
        let findings = scrub(folder.path()).findings;
        assert!(findings.len() == 1 && findings[0].problem.contains("seen first says h1:first"), "{findings:?}");
    }

    #[test]
    fn without_quarantine_nothing_is_moved() {
        let folder = tempfile::tempdir().unwrap();
        good(folder.path());
        put(folder.path(), "a.example/m/@v/v1.0.0.mod", b"module evil");
        let report = Scrub::new(folder.path(), false).unwrap().run(&mut Nobody);
        assert!(!report.findings[0].quarantined && folder.path().join("a.example/m/@v/v1.0.0.mod").exists());
    }
}
