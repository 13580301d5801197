//! The path of a request: the first thing that a stranger says, and what names files on our disk.

use std::path::{Component, Path};

use crate::gomod::{
    ModulePath, Patterns, Request, SumdbPath, Version, check_module, check_path_major, is_pseudo, semver, split_path_version, unescape,
};

/// The first line is a request's path, the others are patterns of private modules.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (raw, globs) = text.split_once('\n').unwrap_or((text, ""));
    if let Ok(request) = Request::parse(raw) {
        request_holds(raw, &request);
    }
    if let Ok(path) = SumdbPath::parse(raw) {
        let escaped = path.escaped();
        stays_below_its_folder(&escaped);
        assert_eq!(escaped, raw, "a second spelling would be cached twice");
    }
    if let Ok(patterns) = Patterns::parse(globs.split(['\n', ','])) {
        // A pattern covers all below what it matches.
        let path = raw.trim_end_matches('/');
        assert!(!patterns.matches(path) || patterns.matches(&format!("{path}/x")), "{patterns:?} and {path:?}");
        assert!(!patterns.is_empty() || !patterns.matches(path));
    }
}

fn request_holds(raw: &str, request: &Request) {
    let escaped = request.escaped();
    assert!(escaped.len() <= 2048, "{escaped:?}");
    for spelling in [format!("/{escaped}"), request.as_go_asks(), percent_encoded(&format!("/{escaped}"))] {
        // What follows /sumdb/ is nobody's yet: a percent sign in it may be decoded once more.
        if !spelling.contains("%25") && !(spelling.starts_with("/sumdb/") && spelling.contains('%')) {
            assert_eq!(Request::parse(&spelling).as_ref(), Ok(request), "{spelling:?}");
        }
    }
    if !raw.contains('%') {
        assert_eq!(Request::parse(&percent_encoded(raw)).as_ref(), Ok(request), "{raw:?}");
    }
    let Some(module) = request.module() else { return };
    stays_below_its_folder(&escaped);
    // No two requests are one file on a disk that ignores case, and none is a file of our own.
    assert!(escaped.is_ascii() && !escaped.bytes().any(|b| b.is_ascii_uppercase() || b.is_ascii_control()), "{escaped:?}");
    assert!(!escaped.starts_with('.'), "{escaped:?}");
    assert_eq!(ModulePath::new(module.as_str()).as_ref(), Ok(module));
    assert_eq!(unescape(&module.escaped()).as_deref(), Ok(module.as_str()));
    let Some(version) = request.version() else { return };
    assert_eq!(Version::new(version.as_str()).as_ref(), Ok(version));
    assert_eq!(unescape(&version.escaped()).as_deref(), Ok(version.as_str()));
    version_holds(module, version);
}

fn version_holds(module: &ModulePath, version: &Version) {
    let text = version.as_str();
    assert_eq!(version.is_pseudo(), is_pseudo(text));
    assert!(!is_pseudo(text) || semver::is_valid(text), "{text:?}");
    if let Some(canonical) = semver::canonical_version(text) {
        assert_eq!(semver::canonical_version(&canonical).as_ref(), Some(&canonical));
        assert!(semver::compare(text, &canonical).is_eq());
    }
    assert!(semver::compare(text, text).is_eq());
    assert_eq!(semver::compare(text, "v1.2.3"), semver::compare("v1.2.3", text).reverse());
    // The rules for a zip and those for a go.mod file are two parsers of one thing.
    let by_go_mod = split_path_version(module.as_str()).is_some_and(|(_, major)| check_path_major(text, major).is_ok());
    assert_eq!(check_module(module, version).is_ok(), version.is_canonical() && by_go_mod, "{module} {version}");
}

fn stays_below_its_folder(path: &str) {
    let elements: Vec<_> = Path::new(path).components().collect();
    assert!(elements.iter().all(|element| matches!(element, Component::Normal(_))), "{path:?}");
    assert_eq!(elements.len(), path.split('/').count(), "an element is empty or a dot: {path:?}");
    assert!(path.split('/').all(|element| element.len() <= 255 && !element.contains(['\0', '\\'])), "{path:?}");
}

fn percent_encoded(raw: &str) -> String {
    raw.bytes().map(|b| if b == b'/' { "/".to_owned() } else { format!("%{b:02x}") }).collect()
}
