//! The real go command, the oldest one that is supported and the newest, through a cache in every state that a cache has:
//! what it prints and writes, and every file of its module cache, is what it would be without the cache.
//!
//! The modules are downloaded once, through `go env GOPROXY`, into `~/.cache/gomodcache-clients`; the tests' upstream is then
//! `tests/oracle/mirror`, with a checksum database of its own. `CLIENTS=all` runs the large go.mod files of [`cases::LARGE`],
//! and `CLIENTS=prometheus` those whose name has this in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, missing_docs)]

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod corpus;
mod go;
mod servers;
mod tree;

use std::path::Path;
use std::time::Instant;

use cases::Case;
use corpus::Corpus;
use go::{Go, Outcome};
use servers::{Mirror, Proxy};

/// A cache through which a client works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Another one for each task.
    Empty,
    /// Holds what all the tasks want.
    Warm,
    /// Warm, and without an upstream.
    Offline,
    /// Every second file is gone, and the limit is so low that others go meanwhile.
    HalfEvicted,
}

const STATES: [State; 4] = [State::Empty, State::Warm, State::Offline, State::HalfEvicted];

#[test]
fn through_a_cache_in_any_state_the_go_command_does_what_it_does_without_one() {
    let chosen = std::env::var("CLIENTS").ok();
    let is_chosen = |case: &&Case| chosen.as_deref().is_none_or(|chosen| chosen == "all" || case.to_string().contains(chosen));
    // Apart, so that the small one's checksum database is ready at once.
    let corpus = Corpus::open(if chosen.is_some() { "large" } else { "small" });
    let cases: Vec<&Case> = chosen.as_ref().map_or(cases::SMALL, |_| cases::LARGE).iter().filter(is_chosen).collect();
    assert!(!cases.is_empty(), "CLIENTS names no case");
    cases.iter().for_each(|case| corpus.fetch(case));
    let mirror = Mirror::start(&corpus);
    // A large module cache has gigabytes; a small one is quicker in memory.
    let scratch = Some(Path::new("/dev/shm")).filter(|memory| chosen.is_none() && memory.is_dir()).unwrap_or(corpus.home());
    print(&["client", "go.mod", "modules", "task", "without s", "empty s", "warm s", "offline s", "half-evicted s"].map(str::to_owned));
    for case in cases {
        play(case, &corpus, &mirror, scratch).iter().for_each(|row| print(row));
    }
}

fn print(row: &[String]) {
    eprintln!("| {} |", row.join(" | "));
}

/// The rows of a case's table.
fn play(case: &Case, corpus: &Corpus, mirror: &Mirror, scratch: &Path) -> Vec<Vec<String>> {
    let work = tempfile::tempdir_in(scratch).unwrap();
    let go = Go::new(case, corpus, work.path(), &mirror.key);
    let tasks = case.tasks();
    let mut rows: Vec<Vec<String>> = Vec::new();
    let without: Vec<Outcome> = tasks
        .iter()
        .map(|task| {
            let (outcome, took) = timed(|| go.run(*task, &mirror.url));
            assert!(outcome.error.is_none(), "{case}: {task:?} fails without a cache, so there is nothing to compare with: {outcome:?}");
            rows.push(vec![corpus.version_of(case), case.module.to_owned(), String::new(), task.to_string(), took]);
            outcome
        })
        .collect();
    let modules = without[0].modules();
    assert!(modules >= case.at_least, "{case} has {modules} modules, and not {}", case.at_least);
    rows.iter_mut().for_each(|row| row[2] = modules.to_string());
    let warm = work.path().join("warm");
    for state in STATES {
        for (i, task) in tasks.iter().enumerate() {
            let own = work.path().join(format!("empty{i}"));
            let folder = if state == State::Empty { &own } else { &warm };
            if state == State::HalfEvicted && i == 0 {
                forget_half(folder);
            }
            let limit = (state == State::HalfEvicted).then(|| tree::bytes(folder) * 6 / 10);
            let proxy = Proxy::start(folder, mirror, state != State::Offline, limit);
            mirror.asked();
            let (outcome, took) = timed(|| go.run(*task, &proxy.url));
            outcome.compare(&without[i], &format!("{case}, {task}, {state:?}"));
            let mut asked = mirror.asked();
            match state {
                State::Empty | State::HalfEvicted => {}
                // It asks again about what changes and what is not there, and may then look ahead.
                State::Warm => asked.retain(|path| path.ends_with(".zip")),
                State::Offline => {}
            }
            if matches!(state, State::Warm | State::Offline) {
                assert!(asked.is_empty(), "{case}, {task}, {state:?}: the cache asked for {asked:?}");
            }
            rows[i].push(took);
            proxy.settle();
            drop(proxy);
            if state == State::Empty {
                tree::merge(&own, &warm);
            }
        }
    }
    servers::verify(&warm);
    rows
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, String) {
    let started = Instant::now();
    let result = work();
    (result, format!("{:.1}", started.elapsed().as_secs_f64()))
}

/// Takes every second object, whatever others it belongs to: no eviction leaves a cache in a worse state.
fn forget_half(folder: &Path) {
    for (i, file) in tree::files(folder).iter().filter(|file| !file.starts_with(".gomodcache")).enumerate() {
        if i % 2 == 0 {
            std::fs::remove_file(folder.join(file)).unwrap();
        }
    }
}
