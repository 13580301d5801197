//! Who on the volume knows which hash a zip or a go.mod file must have: what a checksum database said, and what was seen first.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::open::read_at_most;
use super::super::tiles::has_record;
use super::{MAX_INFO, Observer, Problem, read_text, same};
use crate::gomod::{Lookup, Request, SumdbPath};

/// Who knows that an object is what its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// A checksum database.
    Proven,
    /// It is what was seen first.
    First,
    /// The same, and a database's answer on the volume says something else. Nobody here knows whether that one is asked about it.
    Disputed,
    /// Nobody but itself.
    ByItself,
}

/// The state folder's knowledge.
#[derive(Debug)]
pub(super) struct Witnesses {
    databases: Vec<PathBuf>,
    first_seen: PathBuf,
}

impl Witnesses {
    pub(super) fn new(state_dir: &Path) -> Self {
        let mut databases = Vec::new();
        find_databases(&state_dir.join("sumdb"), &mut databases);
        Self { databases, first_seen: state_dir.join("first-seen") }
    }

    /// Who knows that the hash of a zip or a go.mod file is `h1`; `ask`: the observer, too.
    pub(super) fn know(&self, request: &Request, h1: &str, ask: bool, observer: &mut dyn Observer) -> Result<Known, Problem> {
        let contradiction = match self.kept_answer(request, h1) {
            Some(Ok(())) => return Ok(Known::Proven),
            Some(Err(problem)) => Some(problem),
            None => None,
        };
        if ask && observer.vouches(request, h1).map_err(Problem::Wrong)? {
            return Ok(Known::Proven);
        }
        match (contradiction, self.first(request, h1)) {
            // It was kept by a configuration that did not ask that database, or none: only such a one notes what it sees first. The
            // answer may stem from a time when its module was not private yet. Where the database is asked now, it has the say.
            (Some(problem), Some(Ok(()))) => match observer.is_asked_about(request) {
                Some(true) => Err(problem),
                Some(false) => Ok(Known::First),
                None => Ok(Known::Disputed),
            },
            (Some(problem), _) => Err(problem),
            (None, Some(first)) => first.map(|()| Known::First),
            (None, None) => Ok(Known::ByItself),
        }
    }

    /// Whether the databases' answers on the volume say the same; nothing, if there is none.
    fn kept_answer(&self, request: &Request, h1: &str) -> Option<Result<(), Problem>> {
        let (Request::Zip(module, version) | Request::Mod(module, version)) = request else { return None };
        let lookup = SumdbPath::Lookup(module.clone(), version.clone()).escaped();
        let mut contradiction = None;
        for database in &self.databases {
            let Ok(answer) = read_at_most(&database.join(&lookup), MAX_INFO) else { continue };
            // One that was damaged must not condemn what is good.
            let Some(lookup) = Lookup::parse(&answer).ok().filter(|lookup| has_record(database, lookup)) else { continue };
            let (zip, go_mod) = lookup.hashes(module.as_str(), version.as_str());
            if let Some(sum) = if matches!(request, Request::Zip(..)) { zip } else { go_mod } {
                match same(h1, sum, "the checksum database") {
                    Ok(()) => return Some(Ok(())),
                    // A database that is used no more may have said something else.
                    Err(problem) => contradiction = Some(Err(problem)),
                }
            }
        }
        contradiction
    }

    /// Whether it is what was seen first; nothing, if nothing was.
    fn first(&self, request: &Request, h1: &str) -> Option<Result<(), Problem>> {
        let first = read_text(&self.first_seen.join(request.escaped())).ok()?;
        Some(first.trim()).filter(|first| !first.is_empty()).map(|first| same(h1, first, "what was seen first"))
    }
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
