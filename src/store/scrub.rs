//! Whether what is on disk is still what was verified: every object is read and held against what is known of it.
//!
//! A zip and a go.mod file must have the sums that the checksum database gave, or that were seen first; a zip the hash beside it,
//! which is written anew where one of these vouches for the zip; an `.info` file the version of its name. What fails is moved to a
//! quarantine, and the next request fetches it anew: nothing is served that is known to be broken, and nothing is destroyed that
//! someone may want to look at.
//!
//! A database's key is not at hand here. Its look-ups count if they were proven when they came, and if their record stands in a
//! tile that was: that of a damaged one does not. Who can ask the database is an [`Observer`] and hears of what is left.

use std::fs::{self, DirEntry, FileType};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use rand::seq::SliceRandom;

use super::open::{plain_file, read_at_most};
use super::{STATE_DIR, quarantined};
use crate::gomod::{MAX_GO_MOD_BYTES, Request, VersionInfo, hash_go_mod, hash_zip};
use witness::{Known, Witnesses};

mod witness;

/// What an upstream may send as an `.info` file; a look-up is shorter.
const MAX_INFO: u64 = 16 << 20;
/// More than a hash has.
const MAX_HASH: u64 = 1 << 10;

/// What is wrong with one object.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Relative to the cache's folder. An object, or a folder that can't be read.
    pub path: PathBuf,
    /// A sentence.
    pub problem: String,
    /// Whether it was moved away.
    pub quarantined: bool,
    /// Whether it was written anew: a zip's hash, where others vouch for the zip.
    pub mended: bool,
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
    /// How much is broken or can't be read.
    pub broken: u64,
}

/// Who follows a scrub. Nobody else remembers what is found: on a disk that fails it may be everything.
pub trait Observer {
    /// No database's answer on the volume vouches for this zip or go.mod file, whose hash is `h1`. Returns whether a database does
    /// that can be asked now.
    ///
    /// # Errors
    /// The database says something else: the sentence is the finding.
    fn vouches(&mut self, _request: &Request, _h1: &str) -> Result<bool, String> {
        Ok(false)
    }

    /// Whether a database is asked about this zip or go.mod file in the configuration of now; `None`: nobody here knows that.
    fn is_asked_about(&self, _request: &Request) -> Option<bool> {
        None
    }

    /// Hears of what is broken or can't be read.
    fn found(&mut self, finding: Finding);

    /// Hears of what is as it was seen first, and not as a checksum database's answer on the volume says: right for a module that the
    /// database is not asked about. Only where it does not know of which modules it is asked.
    fn disputed(&mut self, _path: PathBuf) {}

    /// Hears of each object, and of its length in bytes; says whether to go on.
    fn seen(&mut self, report: &Report, length: u64) -> bool;
}

/// A cache folder to be scrubbed.
#[derive(Debug)]
pub struct Scrub {
    root: PathBuf,
    witnesses: Witnesses,
    quarantine: bool,
}

impl Scrub {
    /// `quarantine`: broken objects are moved to `.gomodcache/quarantine/`, and hashes of good zips written anew.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn new(root: &Path, quarantine: bool) -> io::Result<Self> {
        fs::read_dir(root)?;
        Ok(Self { root: root.to_owned(), witnesses: Witnesses::new(&root.join(STATE_DIR)), quarantine })
    }

    /// Reads every object. Blocks.
    pub fn run(&self, observer: &mut dyn Observer) -> Report {
        let mut report = Report::default();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            let mut entries = self.entries(&folder, &mut report, observer);
            // In another order each time, so that what one scrub did not come to, another one does.
            entries.shuffle(&mut rand::rng());
            for (entry, kind) in entries {
                let path = entry.path();
                if kind.is_dir() {
                    if self.is_place_of_file(&path) {
                        self.found(&path, &wrong("it is a folder, where a file should be"), &mut report, observer);
                    } else if path != self.root.join(STATE_DIR) {
                        folders.push(path);
                    }
                    continue;
                }
                let Some(request) = self.request(&path).filter(Request::is_immutable) else { continue };
                let length = entry.metadata().map(|metadata| metadata.len()).unwrap_or_default();
                report.objects += 1;
                report.bytes += length;
                match self.check(&path, &request, observer) {
                    Ok(Known::Proven) => report.vouched += 1,
                    Ok(Known::Disputed) => observer.disputed(self.below(&path)),
                    Ok(Known::First | Known::ByItself) => {}
                    // Evicted or replaced while it was read.
                    Err(Problem::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(problem) => self.found(&path, &problem, &mut report, observer),
                }
                if !observer.seen(&report, length) {
                    return report;
                }
            }
        }
        report
    }

    /// What lies in a folder. One that can't be read is a finding: nobody knows what is in it.
    fn entries(&self, folder: &Path, report: &mut Report, observer: &mut dyn Observer) -> Vec<(DirEntry, FileType)> {
        let mut entries = Vec::new();
        let mut read = || {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                match entry.file_type() {
                    Ok(kind) => entries.push((entry, kind)),
                    // Evicted meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        match read() {
            Err(error) if error.kind() != io::ErrorKind::NotFound && self.may_hold_modules(folder) => {
                self.found(folder, &Problem::Io(error), report, observer);
            }
            _ => {}
        }
        entries
    }

    /// Whether modules may lie in a folder: their paths begin with a host's name. A disk's own `lost+found` or `.snapshot` is nobody's to
    /// read.
    fn may_hold_modules(&self, folder: &Path) -> bool {
        let below = self.below(folder);
        below.iter().next().is_none_or(|first| first.to_string_lossy().find('.').is_some_and(|dot| dot > 0))
    }

    /// Whether an object or a zip's hash belongs here; the proxy can't put it in a folder's place.
    fn is_place_of_file(&self, path: &Path) -> bool {
        let is_hash = path.extension().is_some_and(|extension| extension == "ziphash");
        let object = if is_hash { path.with_extension("zip") } else { path.to_owned() };
        self.request(&object).is_some_and(|request| request.is_immutable())
    }

    fn below(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap_or(path).to_owned()
    }

    fn request(&self, path: &Path) -> Option<Request> {
        let below = path.strip_prefix(&self.root).ok()?.to_str()?;
        Request::parse(&format!("/{below}")).ok().filter(|request| request.escaped() == below)
    }

    /// Whether an object is what its name says, and who knows it.
    fn check(&self, path: &Path, request: &Request, observer: &mut dyn Observer) -> Result<Known, Problem> {
        match request {
            Request::Zip(module, version) => {
                let h1 = hash_zip(BufReader::new(plain_file(path)?), module, version).map_err(|error| match error {
                    crate::gomod::ZipError::Io(error) => Problem::Io(error),
                    error => Problem::Wrong(error.to_string()),
                })?;
                let beside = match read_text(&path.with_extension("ziphash")) {
                    // Evicted while it was read, the hash with it.
                    Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) && path.exists() => None,
                    read => Some(read?),
                };
                let beside = beside.as_deref().map(str::trim);
                let fits = beside == Some(&h1);
                // A zip that its own hash does not know is no question to a database: the disk has damaged one of the two.
                match (self.witnesses.know(request, &h1, fits, observer)?, beside) {
                    (known, _) if fits => Ok(known),
                    (Known::ByItself, Some(hash)) => same(&h1, hash, "the .ziphash beside it").map(|()| Known::ByItself),
                    (Known::ByItself, None) => Err(wrong("it has no .ziphash beside it")),
                    (_, hash) => Err(Problem::Hash { is: hash.map_or("is missing".to_owned(), |hash| format!("says {hash}")), h1 }),
                }
            }
            Request::Mod(..) => {
                let file = read_at_most(path, MAX_GO_MOD_BYTES)?;
                if file.len() as u64 > MAX_GO_MOD_BYTES {
                    return Err(wrong("it is longer than a go.mod file may be"));
                }
                if file.is_empty() {
                    return Err(wrong("it is empty, and every go.mod file names its module"));
                }
                self.witnesses.know(request, &hash_go_mod(&file), true, observer)
            }
            Request::Info(_, version) => {
                let info =
                    VersionInfo::parse(&read_at_most(path, MAX_INFO)?).map_err(|error| Problem::Wrong(format!("not JSON: {error}")))?;
                same(&info.version, version.as_str(), "its name").map(|()| Known::ByItself)
            }
            _ => Ok(Known::ByItself),
        }
    }

    fn found(&self, path: &Path, problem: &Problem, report: &mut Report, observer: &mut dyn Observer) {
        report.broken += 1;
        let mut finding = Finding { path: self.below(path), problem: problem.to_string(), quarantined: false, mended: false };
        let done = match problem {
            Problem::Hash { h1, .. } => {
                finding.path.set_extension("ziphash");
                finding.mended = self.quarantine;
                self.quarantine.then(|| self.write_hash(path, h1).map_err(|error| format!("it can't be written anew: {error}")))
            }
            Problem::Wrong(_) => {
                finding.quarantined = self.quarantine;
                self.quarantine.then(|| self.move_away(path, &finding.path).map_err(|error| format!("it can't be moved away: {error}")))
            }
            Problem::Io(_) => None,
        };
        if let Some(Err(error)) = done {
            (finding.quarantined, finding.mended) = (false, false);
            finding.problem = format!("{}; and {error}", finding.problem);
        }
        let Finding { path, problem, quarantined, mended } = &finding;
        tracing::error!(path = %path.display(), problem, quarantined, mended, "a cached object is broken");
        observer.found(finding);
    }

    fn move_away(&self, path: &Path, below: &Path) -> io::Result<()> {
        let to = self.root.join(STATE_DIR).join("quarantine").join(below);
        to.parent().map_or(Ok(()), fs::create_dir_all)?;
        // What was moved away there before makes room, be it a file or a folder.
        match fs::symlink_metadata(&to) {
            Ok(there) if there.is_dir() => fs::remove_dir_all(&to)?,
            Ok(_) => fs::remove_file(&to)?,
            Err(_) => {}
        }
        fs::rename(path, to)?;
        if let Err(error) = quarantined::tell(&self.root) {
            tracing::warn!(%error, "can't tell other processes with this volume: what they have of it in memory they go on to answer with");
        }
        Ok(())
    }

    /// Writes the hash beside a zip.
    fn write_hash(&self, zip: &Path, h1: &str) -> io::Result<()> {
        let tmp = self.root.join(STATE_DIR).join("tmp");
        fs::create_dir_all(&tmp)?;
        let (mut file, temp) = super::new_temp(&tmp)?;
        file.write_all(h1.as_bytes())?;
        file.sync_all()?;
        temp.persist(zip.with_extension("ziphash")).map_err(|error| error.error)
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
    /// The zip is what others say, and its `.ziphash` is not.
    #[error("it {is}, and the zip beside it is {h1}, as it should be")]
    Hash { is: String, h1: String },
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
