//! What a go command will ask for next, told from what it asked for. Pure: it names objects and fetches none.
//!
//! The rules are those of the go command itself. It loads the requirements of a module below one that is older than
//! graph pruning (go 1.17) to the last; what its own go.mod file names it asks for in the order of the paths; it asks for
//! every `.info` of a download one by one, then for the zips of the same versions in the same order and first on the same
//! connection. A build walks no graph and names no module before it asks for it, so nothing of a build's zips is guessed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::budget::{Budget, Share};
use crate::gomod::{GoMod, ModulePath, Request, Version, semver};

/// A client that was silent for so long has begun something else.
const SILENCE: Duration = Duration::from_secs(60);
/// From so many `.mod` requests on it is a walk over a graph.
const WALK: usize = 4;
/// A go command asks for so many go.mod files at the same time, so that many may come out of their order. More with more
/// processors; then fewer guesses are made than could be.
const OUT_OF_ORDER: usize = 16;
/// What is remembered of one client, of each kind. A larger graph is downloaded at the client's own pace.
const MAX_REMEMBERED: usize = 16_384;
/// Of one connection.
const MAX_INFOS: usize = 4_096;
/// In bytes, of all clients and connections together: what is beyond that is downloaded at its client's own pace.
const MAX_ALL: u64 = 64 << 20;
/// What an entry costs besides its path and version, about.
const OVERHEAD: usize = 128;
/// What has a longer path and version is not remembered, so that nobody can fill the memory with invented ones.
const MAX_NAME: usize = 256;
/// In bytes. The longest go.mod files are a tenth of it.
const MAX_FILE: usize = 128 << 10;
/// The first Go version whose modules list all that a build of their packages needs.
const GRAPH_PRUNING: &str = "1.17";

type Module = (ModulePath, Version);

/// Something to fetch ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) request: Request,
    pub(super) why: Why,
}

/// How sure it is, and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The client asks for it next.
    Certain,
    /// A go.mod file in an unpruned graph: the client asks for it, and for all that it requires.
    Unpruned,
    /// The client may ask for it.
    Guessed,
}

/// What one client asked for, over all its connections.
#[derive(Debug)]
pub(super) struct Walk {
    last: Instant,
    /// Of `mods` and `listed`.
    walked: Share,
    /// Of all else.
    known: Share,
    /// The go.mod files of the walk: those asked for one after another, without an `.info` in between.
    mods: Vec<Arc<Request>>,
    /// Whose `.info` was asked for since: the next go.mod file begins another walk, unless all of the graph is being listed.
    listed: HashSet<Module>,
    /// Of what the `.info`s were fetched since.
    reach: Reach,
    /// The highest version of each path that was asked for, required or fetched.
    highest: HashMap<ModulePath, Version>,
    /// Whose requirements were followed to the last.
    unpruned: HashSet<Module>,
    /// Zips that were asked for: their go.mod files belong to a build.
    built: HashSet<Module>,
}

/// Of which versions of a walk a client wants the `.info`s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    #[default]
    Nothing,
    /// Those whose go.mod file was asked for: a download.
    Asked,
    /// All that was required by any of them: a list of the whole graph, with what was pruned away.
    Required,
}

/// The `.info` requests of one connection that followed one another.
#[derive(Debug)]
pub(super) struct Infos {
    share: Share,
    asked: Vec<Arc<Request>>,
    /// A zip of one of them was asked for since: the next `.info` begins another row.
    ended: bool,
}

/// What all clients together may have of the memory.
pub(super) fn budget() -> Arc<Budget> {
    Budget::new(MAX_ALL)
}

impl Infos {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self { share: Share::of(budget), asked: Vec::new(), ended: false }
    }

    fn clear(&mut self) {
        *self = Self { share: self.share.another(), asked: Vec::new(), ended: false };
    }

    fn has(&self, module: &ModulePath, version: &Version) -> bool {
        self.asked.iter().any(|info| matches!(&**info, Request::Info(m, v) if m == module && v == version))
    }
}

impl Walk {
    pub(super) fn new(now: Instant, budget: &Arc<Budget>) -> Self {
        Self::with(now, Share::of(budget))
    }

    fn with(now: Instant, share: Share) -> Self {
        Self {
            last: now,
            walked: share.another(),
            known: share,
            mods: Vec::new(),
            listed: HashSet::new(),
            reach: Reach::Nothing,
            highest: HashMap::new(),
            unpruned: HashSet::new(),
            built: HashSet::new(),
        }
    }

    /// Whether nothing was asked for a while.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) > SILENCE
    }

    /// Notes a request, and says what comes next whether or not it is here.
    pub(super) fn asked(&mut self, request: &Arc<Request>, infos: &mut Infos, now: Instant) -> Vec<Step> {
        if self.is_silent(now) {
            *self = Self::with(now, self.known.another());
            infos.clear();
        }
        self.last = now;
        if !is_memorable(request.module(), request.version()) {
            return Vec::new();
        }
        match &**request {
            Request::Mod(module, version) if request.is_immutable() => {
                infos.clear();
                self.raise(module, version);
                if self.is_listing(module, version) {
                    return Vec::new();
                }
                if !self.listed.is_empty() {
                    // What is cleared keeps its memory, and the share would be free all the same.
                    (self.mods, self.listed, self.reach) = Default::default();
                    self.walked = self.walked.another();
                }
                if self.mods.len() < MAX_REMEMBERED && self.walked.grow(weight(module, version)) {
                    self.mods.push(Arc::clone(request));
                }
            }
            Request::Info(module, version) if request.is_immutable() => {
                remember(&mut self.listed, &mut self.walked, module, version);
                if infos.ended {
                    infos.clear();
                }
                if infos.asked.len() < MAX_INFOS && infos.share.grow(weight(module, version)) {
                    infos.asked.push(Arc::clone(request));
                }
            }
            Request::Zip(module, version) if infos.has(module, version) => infos.ended = true,
            Request::Zip(module, version) if request.is_immutable() => {
                infos.clear();
                if remember(&mut self.built, &mut self.known, module, version) {
                    let of_it = [Request::Mod(module.clone(), version.clone()), Request::Info(module.clone(), version.clone())];
                    return of_it.map(certain).into();
                }
            }
            // A branch or a list: versions are being chosen, and what was asked for is not what will be downloaded.
            _ => infos.clear(),
        }
        Vec::new()
    }

    /// Says what comes next after a request whose object is not here: what follows is not here either, most likely.
    /// A warm cache is never busy with what it has.
    pub(super) fn missed(&mut self, request: &Request, infos: &mut Infos) -> Vec<Step> {
        match request {
            Request::Info(module, version) if self.mods.len() >= WALK => self.after_info(module, version),
            Request::Zip(module, version) if infos.has(module, version) => {
                let steps = infos.asked.iter().filter_map(|info| zip_of(info).map(certain)).collect();
                infos.clear();
                steps
            }
            _ => Vec::new(),
        }
    }

    /// Reads a go.mod file that the client asked for, and says what comes next.
    pub(super) fn read(&mut self, module: &ModulePath, version: &Version, file: &[u8]) -> Vec<Step> {
        // Nothing below it is walked over.
        if self.built.contains(&(module.clone(), version.clone())) || self.is_listing(module, version) {
            return Vec::new();
        }
        // What does not parse stops the client too, or is somebody's old file that nothing follows from.
        let Some(go_mod) = parse(file) else { return Vec::new() };
        if !go_mod.go_at_least(GRAPH_PRUNING) {
            remember(&mut self.unpruned, &mut self.known, module, version);
            return self.all_required(&go_mod);
        }
        // A main module's go.mod file at this go version names all that is selected, so what its modules require is there at
        // this version or at a higher one.
        let rising = requirements(&go_mod).filter(|(path, version)| self.raise(path, version)).collect::<Vec<_>>();
        let passed = self.passed();
        let ahead = rising.into_iter().filter(|(path, _)| passed.as_ref().is_none_or(|passed| path > passed));
        ahead.map(|(m, v)| Step { request: Request::Mod(m, v), why: Why::Guessed }).collect()
    }

    /// Reads a go.mod file of an unpruned graph, and says what comes next.
    pub(super) fn read_unpruned(&mut self, file: &[u8]) -> Vec<Step> {
        parse(file).map(|go_mod| self.all_required(&go_mod)).unwrap_or_default()
    }

    fn all_required(&mut self, go_mod: &GoMod) -> Vec<Step> {
        let mut steps = Vec::new();
        for (module, version) in requirements(go_mod) {
            self.raise(&module, &version);
            if remember(&mut self.unpruned, &mut self.known, &module, &version) {
                steps.push(Step { request: Request::Mod(module, version), why: Why::Unpruned });
            }
        }
        steps
    }

    /// Whether a client that asks for this go.mod file does so for one line of a list: it asked for the `.info` before.
    fn is_listing(&self, module: &ModulePath, version: &Version) -> bool {
        self.reach == Reach::Required && self.listed.contains(&(module.clone(), version.clone()))
    }

    /// Up to which path the client has been through the versions that its own go.mod file names, if that is what it does: what
    /// comes before was asked for, or is not among them.
    fn passed(&self) -> Option<ModulePath> {
        let last = self.mods.len().checked_sub(OUT_OF_ORDER).and_then(|start| self.mods.get(start..))?;
        last.iter().filter_map(|request| request.module()).min().cloned()
    }

    /// What follows the `.info` of a version that was not here.
    fn after_info(&mut self, module: &ModulePath, version: &Version) -> Vec<Step> {
        let is_it = |request: &Arc<Request>| matches!(&**request, Request::Mod(m, v) if m == module && v == version);
        let reach = if self.mods.iter().any(is_it) {
            Reach::Asked
        } else if self.highest.get(module) == Some(version) {
            Reach::Required
        } else {
            return Vec::new();
        };
        if reach <= self.reach {
            return Vec::new();
        }
        self.reach = reach;
        let of = if reach == Reach::Asked { selected(&self.mods) } else { self.required() };
        of.into_iter().map(|(m, v)| certain(Request::Info(m, v))).collect()
    }

    /// The highest version of each path, in the order in which the go command lists them.
    fn required(&self) -> Vec<Module> {
        let mut all = self.highest.iter().map(|(module, version)| (module.clone(), version.clone())).collect::<Vec<_>>();
        all.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        all
    }

    /// Notes a version of a path. Returns whether it is higher than all before.
    fn raise(&mut self, module: &ModulePath, version: &Version) -> bool {
        let rises = match self.highest.get(module) {
            Some(highest) => semver::compare(version.as_str(), highest.as_str()).is_gt(),
            None => self.highest.len() < MAX_REMEMBERED && self.known.grow(weight(module, version)),
        };
        if rises {
            self.highest.insert(module.clone(), version.clone());
        }
        rises
    }
}

/// Notes a module, if it is new and there is room for it.
fn remember(set: &mut HashSet<Module>, share: &mut Share, module: &ModulePath, version: &Version) -> bool {
    let module = (module.clone(), version.clone());
    set.len() < MAX_REMEMBERED && !set.contains(&module) && share.grow(weight(&module.0, &module.1)) && set.insert(module)
}

fn weight(module: &ModulePath, version: &Version) -> u64 {
    (module.as_str().len() + version.as_str().len() + OVERHEAD) as u64
}

/// Nothing follows from a file that is longer than any that people write: all the client's other requests wait while it is read.
fn parse(file: &[u8]) -> Option<GoMod> {
    Some(file).filter(|file| file.len() <= MAX_FILE).and_then(|file| GoMod::parse(file).ok())
}

fn certain(request: Request) -> Step {
    Step { request, why: Why::Certain }
}

fn zip_of(info: &Arc<Request>) -> Option<Request> {
    match &**info {
        Request::Info(module, version) => Some(Request::Zip(module.clone(), version.clone())),
        _ => None,
    }
}

/// The highest version of each path, as the go command selects them, in the order in which the paths came.
fn selected(mods: &[Arc<Request>]) -> Vec<Module> {
    let mut place: HashMap<&ModulePath, usize> = HashMap::new();
    let mut selected: Vec<(&ModulePath, &Version)> = Vec::new();
    for request in mods {
        let Request::Mod(module, version) = &**request else { continue };
        match place.get(module).and_then(|i| selected.get_mut(*i)) {
            Some(known) if semver::compare(version.as_str(), known.1.as_str()).is_gt() => known.1 = version,
            Some(_) => {}
            None => {
                place.insert(module, selected.len());
                selected.push((module, version));
            }
        }
    }
    selected.into_iter().map(|(module, version)| (module.clone(), version.clone())).collect()
}

/// What a go.mod file requires and a proxy can be asked for.
fn requirements(go_mod: &GoMod) -> impl Iterator<Item = Module> {
    let all = go_mod.requires.iter().filter_map(|r| Some((ModulePath::new(&r.path).ok()?, Version::new(&r.version).ok()?)));
    all.filter(|(module, version)| is_memorable(Some(module), Some(version)))
}

fn is_memorable(module: Option<&ModulePath>, version: Option<&Version>) -> bool {
    module.map_or(0, |module| module.as_str().len()) + version.map_or(0, |version| version.as_str().len()) <= MAX_NAME
}

#[cfg(test)]
mod tests;
