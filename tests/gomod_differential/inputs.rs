//! What is asked about: examples that were changed at random, and the module cache of this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use gomodcache::gomod::{ModulePath, Version};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::oracle::ask_go;

/// Makes new texts out of old ones.
pub(crate) struct Changer<'a> {
    pub(crate) random: StdRng,
    examples: Vec<String>,
    /// What is put in.
    pieces: &'a [&'a str],
}

impl<'a> Changer<'a> {
    pub(crate) fn new(examples: impl IntoIterator<Item = impl Into<String>>, pieces: &'a [&'a str]) -> Self {
        Self { random: StdRng::seed_from_u64(20_240_102), examples: examples.into_iter().map(Into::into).collect(), pieces }
    }

    fn example(&mut self) -> String {
        let i = self.random.random_range(..self.examples.len());
        self.examples[i].clone()
    }

    /// An example with up to three changes, or none.
    pub(crate) fn text(&mut self) -> String {
        let text = self.example();
        (0..self.random.random_range(0..4)).fold(text, |text, _| self.changed(&text))
    }

    /// The text with up to three characters cut out, doubled, replaced or in upper case, with a piece put in, or with the
    /// end of another example.
    pub(crate) fn changed(&mut self, text: &str) -> String {
        let chars: Vec<char> = text.chars().collect();
        let from = self.random.random_range(..=chars.len());
        let to = (from + self.random.random_range(..4_usize)).min(chars.len());
        let [head, middle, tail] = [&chars[..from], &chars[from..to], &chars[to..]].map(|part| part.iter().collect::<String>());
        let piece = self.pieces[self.random.random_range(..self.pieces.len())];
        match self.random.random_range(0..6) {
            0 => format!("{head}{tail}"),
            1 => format!("{head}{middle}{middle}{tail}"),
            2 => format!("{head}{piece}{middle}{tail}"),
            3 => format!("{head}{piece}{tail}"),
            4 => format!("{head}{}{tail}", middle.to_uppercase()),
            _ => {
                let other: Vec<char> = self.example().chars().collect();
                let from = self.random.random_range(..=other.len());
                format!("{head}{}", other[from..].iter().collect::<String>())
            }
        }
    }

    pub(crate) fn texts(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.text()).collect()
    }
}

/// The module cache of this machine.
pub(crate) struct Real {
    /// Escaped paths and versions.
    pub(crate) names: Vec<(String, String)>,
    pub(crate) go_mods: Vec<Vec<u8>>,
    pub(crate) go_sums: Vec<Vec<u8>>,
    pub(crate) infos: Vec<String>,
}

pub(crate) static REAL: LazyLock<Real> = LazyLock::new(|| {
    // Building the oracle puts golang.org/x/mod there, if nothing else is.
    ask_go(&[]);
    let root = Command::new("go").args(["env", "GOMODCACHE"]).output().unwrap();
    let root = PathBuf::from(String::from_utf8(root.stdout).unwrap().trim());
    let mut real = Real { names: Vec::new(), go_mods: Vec::new(), go_sums: Vec::new(), infos: Vec::new() };
    let download = root.join("cache/download");
    visit(&download, &mut |file| {
        let relative = file.strip_prefix(&download).unwrap().to_str().unwrap();
        if let Some((path, name)) = relative.split_once("/@v/")
            && let Some(version) = name.strip_suffix(".mod")
        {
            real.names.push((path.to_owned(), version.to_owned()));
            real.go_mods.push(std::fs::read(file).unwrap());
        }
        if relative.ends_with(".info") {
            real.infos.push(std::fs::read_to_string(file).unwrap());
        }
    });
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for folder in [root.as_path(), &checkout] {
        visit(folder, &mut |file| {
            if file.file_name().is_some_and(|name| name == "go.sum") {
                real.go_sums.push(std::fs::read(file).unwrap());
            }
        });
    }
    assert!(!real.names.is_empty() && !real.go_sums.is_empty(), "nothing real in {}", root.display());
    println!("{} go.mod and {} go.sum files are real", real.go_mods.len(), real.go_sums.len());
    real
});

/// Calls with every file below a folder; of an unpacked module only with those at its top.
fn visit(folder: &Path, found: &mut impl FnMut(&Path)) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let unpacked = folder.file_name().is_some_and(|name| name.to_str().unwrap_or_default().contains('@') && name != "@v");
    for path in entries {
        if !path.is_dir() {
            found(&path);
        } else if !unpacked {
            visit(&path, found);
        }
    }
}

pub(crate) fn real_versions() -> impl Iterator<Item = String> {
    REAL.names.iter().map(|(_, version)| Version::from_escaped(version).unwrap().as_str().to_owned())
}

pub(crate) fn real_paths() -> impl Iterator<Item = String> {
    REAL.names.iter().map(|(path, _)| ModulePath::from_escaped(path).unwrap().as_str().to_owned())
}
