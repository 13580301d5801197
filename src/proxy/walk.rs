//! What a go command will ask for next, told from what it asked for. Pure: it names objects and fetches none.
//!
//! The rules are those of the go command itself. It loads the requirements of a module below one that is older than
//! graph pruning (go 1.17) to the last; it asks for every `.info` of a download one by one, then for the zips of the same
//! versions in the same order and first on the same connection. A build walks no graph and names no module before it
//! asks for it, so nothing of a build's zips is guessed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::gomod::{GoMod, ModulePath, Request, Version, semver};

/// A client that was silent for so long has begun something else.
const SILENCE: Duration = Duration::from_secs(60);
/// From so many `.mod` requests on it is a walk over a graph.
const WALK: usize = 4;
/// What is remembered of one client. A larger graph is downloaded at the client's own pace.
const MAX_REMEMBERED: usize = 16_384;
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
    /// The go.mod files of the walk: those asked for one after another, without an `.info` in between.
    mods: Vec<Arc<Request>>,
    /// An `.info` was asked for since: the next go.mod file begins another walk.
    walked: bool,
    /// The highest version of each path that was asked for, required or fetched.
    highest: HashMap<ModulePath, Version>,
    /// Whose requirements were followed to the last.
    unpruned: HashSet<Module>,
    /// Zips that were asked for: their go.mod files belong to a build.
    built: HashSet<Module>,
}

/// The `.info` requests of one connection that followed one another.
#[derive(Debug, Default)]
pub(super) struct Infos {
    asked: Vec<Arc<Request>>,
    /// A zip of one of them was asked for since: the next `.info` begins another row.
    ended: bool,
}

impl Infos {
    fn has(&self, module: &ModulePath, version: &Version) -> bool {
        self.asked.iter().any(|info| matches!(&**info, Request::Info(m, v) if m == module && v == version))
    }
}

impl Walk {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, mods: Vec::new(), walked: false, highest: HashMap::new(), unpruned: HashSet::new(), built: HashSet::new() }
    }

    /// Whether nothing was asked for a while.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) > SILENCE
    }

    /// Notes a request, and says what comes next whether or not it is here.
    pub(super) fn asked(&mut self, request: &Arc<Request>, infos: &mut Infos, now: Instant) -> Vec<Step> {
        if self.is_silent(now) {
            *self = Self::new(now);
            *infos = Infos::default();
        }
        self.last = now;
        match &**request {
            Request::Mod(..) if request.is_immutable() => {
                *infos = Infos::default();
                if std::mem::take(&mut self.walked) {
                    self.mods.clear();
                }
                if self.mods.len() < MAX_REMEMBERED {
                    self.mods.push(Arc::clone(request));
                }
            }
            Request::Info(..) if request.is_immutable() => {
                self.walked = true;
                if std::mem::take(&mut infos.ended) {
                    infos.asked.clear();
                }
                if infos.asked.len() < MAX_REMEMBERED {
                    infos.asked.push(Arc::clone(request));
                }
            }
            Request::Zip(module, version) if infos.has(module, version) => infos.ended = true,
            Request::Zip(module, version) if request.is_immutable() => {
                *infos = Infos::default();
                if self.built.len() < MAX_REMEMBERED && self.built.insert((module.clone(), version.clone())) {
                    let of_it = [Request::Mod(module.clone(), version.clone()), Request::Info(module.clone(), version.clone())];
                    return of_it.map(certain).into();
                }
            }
            // A branch or a list: versions are being chosen, and what was asked for is not what will be downloaded.
            _ => *infos = Infos::default(),
        }
        Vec::new()
    }

    /// Says what comes next after a request whose object was not here: what follows is not here either, most likely.
    /// A warm cache is never busy with what it has.
    pub(super) fn missed(&mut self, request: &Request, infos: &mut Infos) -> Vec<Step> {
        match request {
            Request::Info(..) if request.is_immutable() && self.mods.len() >= WALK => {
                selected(&std::mem::take(&mut self.mods)).into_iter().map(|(m, v)| certain(Request::Info(m, v))).collect()
            }
            Request::Zip(module, version) if infos.has(module, version) => {
                std::mem::take(infos).asked.iter().filter_map(|info| zip_of(info).map(certain)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Reads a go.mod file that the client asked for, and says what comes next.
    pub(super) fn read(&mut self, module: &ModulePath, version: &Version, file: &[u8]) -> Vec<Step> {
        if self.built.contains(&(module.clone(), version.clone())) {
            return Vec::new();
        }
        // What does not parse stops the client too, or is somebody's old file that nothing follows from.
        let Ok(go_mod) = GoMod::parse(file) else { return Vec::new() };
        if !go_mod.go_at_least(GRAPH_PRUNING) {
            self.unpruned.insert((module.clone(), version.clone()));
            return self.all_required(&go_mod);
        }
        // A pruned module's requirements are the main module's too, mostly: at this version, or at a higher one that is
        // asked for by itself.
        let required = requirements(&go_mod).filter(|(path, version)| self.raise(path, version)).collect::<Vec<_>>();
        required.into_iter().map(|(m, v)| Step { request: Request::Mod(m, v), why: Why::Guessed }).collect()
    }

    /// Reads a go.mod file of an unpruned graph, and says what comes next.
    pub(super) fn read_unpruned(&mut self, file: &[u8]) -> Vec<Step> {
        GoMod::parse(file).map(|go_mod| self.all_required(&go_mod)).unwrap_or_default()
    }

    fn all_required(&mut self, go_mod: &GoMod) -> Vec<Step> {
        let mut steps = Vec::new();
        for (module, version) in requirements(go_mod) {
            self.raise(&module, &version);
            if self.unpruned.len() < MAX_REMEMBERED && self.unpruned.insert((module.clone(), version.clone())) {
                steps.push(Step { request: Request::Mod(module, version), why: Why::Unpruned });
            }
        }
        steps
    }

    /// Notes a version of a path. Returns whether it is higher than all before.
    fn raise(&mut self, module: &ModulePath, version: &Version) -> bool {
        let rises = match self.highest.get(module) {
            Some(highest) => semver::compare(version.as_str(), highest.as_str()).is_gt(),
            None => self.highest.len() < MAX_REMEMBERED,
        };
        if rises {
            self.highest.insert(module.clone(), version.clone());
        }
        rises
    }
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
    go_mod.requires.iter().filter_map(|r| Some((ModulePath::new(&r.path).ok()?, Version::new(&r.version).ok()?)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn request(path: &str) -> Arc<Request> {
        Arc::new(Request::parse(path).unwrap())
    }

    struct Client {
        walk: Walk,
        infos: Infos,
        now: Instant,
    }

    impl Client {
        fn new() -> Self {
            let now = Instant::now();
            Self { walk: Walk::new(now), infos: Infos::default(), now }
        }

        /// Of what is here.
        fn finds(&mut self, path: &str) -> Vec<String> {
            names(&self.walk.asked(&request(path), &mut self.infos, self.now))
        }

        /// Of what is not here.
        fn asks(&mut self, path: &str) -> Vec<String> {
            let mut steps = self.finds(path);
            steps.extend(names(&self.walk.missed(&request(path), &mut self.infos)));
            steps
        }

        fn reads(&mut self, path: &str, file: &str) -> Vec<String> {
            let request = request(path);
            names(&self.walk.read(request.module().unwrap(), request.version().unwrap(), file.as_bytes()))
        }
    }

    fn names(steps: &[Step]) -> Vec<String> {
        let mark = |why| match why {
            Why::Certain => "",
            Why::Unpruned => "*",
            Why::Guessed => "?",
        };
        steps.iter().map(|s| format!("{}{}", s.request.escaped(), mark(s.why))).collect()
    }

    #[test]
    fn a_zip_brings_the_mod_and_the_info_of_its_version_once() {
        let mut client = Client::new();
        assert_eq!(client.asks("/a.example/m/@v/v1.0.0.zip"), ["a.example/m/@v/v1.0.0.mod", "a.example/m/@v/v1.0.0.info"]);
        assert!(client.asks("/a.example/m/@v/v1.0.0.zip").is_empty());
    }

    #[test]
    fn an_old_module_is_followed_to_the_last_and_each_version_once() {
        let mut client = Client::new();
        client.asks("/a.example/m/@v/v1.0.0.mod");
        let first = client.reads("/a.example/m/@v/v1.0.0.mod", "module a.example/m\ngo 1.16\nrequire b.example/n v1.0.0\n");
        assert_eq!(first, ["b.example/n/@v/v1.0.0.mod*"]);
        let below = b"module b.example/n\ngo 1.24\nrequire (\nc.example/o v1.2.0\na.example/m v1.0.0\nb.example/n v1.0.0\n)\n";
        assert_eq!(names(&client.walk.read_unpruned(below)), ["c.example/o/@v/v1.2.0.mod*"]);
        assert!(client.walk.read_unpruned(below).is_empty());
    }

    #[test]
    fn a_pruned_module_gives_guesses_of_rising_versions() {
        let mut client = Client::new();
        let file = |v: &str| format!("module x.example/m\ngo 1.17\nrequire b.example/n {v}\n");
        assert_eq!(client.reads("/a.example/m/@v/v1.0.0.mod", &file("v1.5.0")), ["b.example/n/@v/v1.5.0.mod?"]);
        assert!(client.reads("/a.example/o/@v/v1.0.0.mod", &file("v1.4.0")).is_empty());
        assert_eq!(client.reads("/a.example/p/@v/v1.0.0.mod", &file("v1.10.0")), ["b.example/n/@v/v1.10.0.mod?"]);
    }

    #[test]
    fn a_build_asks_for_the_zip_first_and_its_go_mod_is_not_followed() {
        let mut client = Client::new();
        client.asks("/a.example/m/@v/v1.0.0.zip");
        client.asks("/a.example/m/@v/v1.0.0.mod");
        assert!(client.reads("/a.example/m/@v/v1.0.0.mod", "module a.example/m\nrequire b.example/n v1.0.0\n").is_empty());
    }

    #[test]
    fn what_does_not_parse_is_not_followed() {
        assert!(Client::new().reads("/a.example/m/@v/v1.0.0.mod", "module a.example/m\nrequire (\n").is_empty());
    }

    #[test]
    fn the_first_info_of_a_walk_brings_those_of_the_selected_versions() {
        let mut client = Client::new();
        for m in ["a.example/m/@v/v1.9.0", "a.example/n/@v/v1.0.0", "a.example/m/@v/v1.10.0", "a.example/!o/@v/v2.0.0+incompatible"] {
            assert!(client.asks(&format!("/{m}.mod")).is_empty());
        }
        let infos = ["a.example/m/@v/v1.10.0.info", "a.example/n/@v/v1.0.0.info", "a.example/!o/@v/v2.0.0+incompatible.info"];
        assert_eq!(client.asks("/a.example/m/@v/v1.10.0.info"), infos);
        assert!(client.asks("/a.example/n/@v/v1.0.0.info").is_empty());
    }

    #[test]
    fn what_is_here_brings_nothing_until_something_is_not() {
        let mut client = Client::new();
        for i in 0..5 {
            client.finds(&format!("/a.example/m{i}/@v/v1.0.0.mod"));
        }
        assert!(client.finds("/a.example/m0/@v/v1.0.0.info").is_empty());
        assert_eq!(client.asks("/a.example/m1/@v/v1.0.0.info").len(), 5);
        assert!(client.finds("/a.example/m0/@v/v1.0.0.zip").is_empty());
        assert_eq!(client.asks("/a.example/m1/@v/v1.0.0.zip"), ["a.example/m0/@v/v1.0.0.zip", "a.example/m1/@v/v1.0.0.zip"]);
    }

    #[test]
    fn another_walk_and_another_row_of_infos_begin_anew() {
        let mut client = Client::new();
        for i in 0..5 {
            client.finds(&format!("/a.example/m{i}/@v/v1.0.0.mod"));
        }
        client.finds("/a.example/m0/@v/v1.0.0.info");
        client.finds("/a.example/m0/@v/v1.0.0.zip");
        client.finds("/b.example/m0/@v/v1.0.0.info");
        assert_eq!(client.asks("/b.example/m0/@v/v1.0.0.zip"), ["b.example/m0/@v/v1.0.0.zip"]);
        client.finds("/b.example/m0/@v/v1.0.0.mod");
        assert!(client.asks("/b.example/m1/@v/v1.0.0.info").is_empty());
    }

    #[test]
    fn three_mods_are_no_walk() {
        let mut client = Client::new();
        for i in 0..3 {
            client.asks(&format!("/a.example/m{i}/@v/v1.0.0.mod"));
        }
        assert!(client.asks("/a.example/m1/@v/v1.0.0.info").is_empty());
    }

    #[test]
    fn the_first_zip_after_infos_brings_the_zips_of_exactly_those_in_that_order() {
        let mut client = Client::new();
        for v in ["v1.0.0", "v1.1.0", "v1.2.0"] {
            client.asks(&format!("/a.example/m/@v/{v}.info"));
        }
        let zips = ["a.example/m/@v/v1.0.0.zip", "a.example/m/@v/v1.1.0.zip", "a.example/m/@v/v1.2.0.zip"];
        assert_eq!(client.asks("/a.example/m/@v/v1.1.0.zip"), zips);
        assert!(!client.asks("/a.example/m/@v/v1.2.0.zip").iter().any(|step| step.ends_with(".zip")));
    }

    #[test]
    fn infos_of_another_connection_or_before_another_question_bring_no_zips() {
        let mut client = Client::new();
        client.asks("/a.example/m/@v/v1.0.0.info");
        client.infos = Infos::default();
        assert!(!client.asks("/a.example/m/@v/v1.0.0.zip").iter().any(|step| step.ends_with(".zip")));
        for between in ["/a.example/m/@v/list", "/a.example/n/@v/v1.0.0.mod", "/a.example/n/@v/main.info"] {
            client.asks("/a.example/o/@v/v1.0.0.info");
            client.asks(between);
            assert!(!client.asks("/a.example/o/@v/v1.0.0.zip").iter().any(|step| step.ends_with(".zip")), "{between}");
        }
    }

    #[test]
    fn a_minute_of_silence_forgets() {
        let mut client = Client::new();
        for i in 0..4 {
            client.asks(&format!("/a.example/m{i}/@v/v1.0.0.mod"));
        }
        client.now += SILENCE + Duration::from_secs(1);
        assert!(client.asks("/a.example/m1/@v/v1.0.0.info").is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut client = Client::new();
        for i in 0..MAX_REMEMBERED + 10 {
            client.asks(&format!("/a.example/m{i}/@v/v1.0.0.mod"));
            client.reads(&format!("/a.example/m{i}/@v/v1.0.0.mod"), &format!("module x\ngo 1.20\nrequire b.example/m{i} v1.0.0\n"));
        }
        assert_eq!((client.walk.mods.len(), client.walk.highest.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
    }
}
