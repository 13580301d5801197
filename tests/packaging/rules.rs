//! The recording rules, by promtool.

use crate::tools::{of_the_project, stdout};

#[test]
fn the_rules_compute_what_their_examples_say() {
    let rules = of_the_project("deploy/rules/gomodcache.rules.yaml");
    let rules = rules.to_str().unwrap();
    stdout("promtool", &["check", "rules", rules]);
    let examples = std::fs::read_to_string(of_the_project("tests/packaging/rules.test.yaml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.test.yaml");
    std::fs::write(&file, examples.replace("[RULES]", &format!("[{rules}]"))).unwrap();
    stdout("promtool", &["test", "rules", file.to_str().unwrap()]);
}
