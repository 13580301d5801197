//! The versions of the configuration's format. Operator and proxies are upgraded and rolled back apart, so a release writes and
//! reads its own version and the one before it. The operator writes a file for each, and a proxy takes the newest that it
//! reads: so neither has to know what the other speaks, also where pods of two releases share one ConfigMap.

use std::path::{Path, PathBuf};

use super::{CONFIG_FILE, ConfigError, ProxyConfig};

/// Versions that are written or read, the newest first; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions(Vec<u32>);

impl Default for Versions {
    /// Those of this release. There is one version so far.
    fn default() -> Self {
        Self(vec![super::CONFIG_VERSION])
    }
}

impl Versions {
    /// Others than this release's: so a test sees an earlier or a later release.
    #[must_use]
    pub fn of(mut versions: Vec<u32>) -> Self {
        versions.sort_unstable_by(|a, b| b.cmp(a));
        versions.dedup();
        if versions.is_empty() { Self::default() } else { Self(versions) }
    }

    /// The newest first.
    #[must_use]
    pub fn newest_first(&self) -> &[u32] {
        &self.0
    }

    /// The text of the newest file of those that lie beside each other; that of `config` is the first version's.
    ///
    /// # Errors
    /// There is none, or it can't be read: then an older one does not take its place.
    pub fn newest_text(&self, config: &Path) -> std::io::Result<String> {
        // A link that leads nowhere is there too: someone is writing it.
        let is_missing = |file: &PathBuf| matches!(file.symlink_metadata(), Err(error) if error.kind() == std::io::ErrorKind::NotFound);
        let newest = self.0.iter().map(|version| beside(config, *version)).find(|file| !is_missing(file));
        std::fs::read_to_string(newest.as_deref().unwrap_or(config))
    }
}

/// The key of the ConfigMap for this version: `proxy.yaml` for the first, and then `proxy.v2.yaml` and so on. The command line of
/// the pods names the first alone, so that a new version of the format restarts none.
#[must_use]
pub fn file_name(version: u32) -> String {
    beside(Path::new(CONFIG_FILE), version).to_string_lossy().into_owned()
}

/// The version whose file has this name.
#[must_use]
pub fn version_of(file_name: &str) -> Option<u32> {
    if file_name == CONFIG_FILE {
        return Some(1);
    }
    let (stem, extension) = CONFIG_FILE.rsplit_once('.')?;
    file_name.strip_prefix(stem)?.strip_prefix(".v")?.strip_suffix(extension)?.strip_suffix('.')?.parse().ok()
}

fn beside(config: &Path, version: u32) -> PathBuf {
    if version == 1 {
        return config.to_owned();
    }
    let extension = config.extension().unwrap_or_default().to_string_lossy();
    config.with_extension(format!("v{version}.{extension}"))
}

impl ProxyConfig {
    /// The text of the file of one version. The code knows only the newest format: here is the place to take it back to the one
    /// before, and in [`ProxyConfig::parse_any`] to bring that one forward.
    ///
    /// # Errors
    /// As [`ProxyConfig::to_yaml`].
    pub fn write(&self, version: u32) -> Result<String, ConfigError> {
        Self { version, ..self.clone() }.to_yaml()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_a_file_and_the_first_has_the_plain_name() {
        assert_eq!((file_name(1), file_name(2)), ("proxy.yaml".to_owned(), "proxy.v2.yaml".to_owned()));
        for version in 1..12 {
            assert_eq!(version_of(&file_name(version)), Some(version));
        }
        assert_eq!([version_of("proxy.v.yaml"), version_of("proxy.vx.yaml"), version_of("ca.crt")], [None; 3]);
    }

    #[test]
    fn there_is_always_a_version_and_none_is_written_twice() {
        assert_eq!(Versions::of(vec![1, 3, 1]).newest_first(), [3, 1]);
        assert_eq!(Versions::of(Vec::new()), Versions::default());
    }

    #[test]
    fn a_file_says_which_version_it_is() {
        let config = ProxyConfig::parse("version: 1").unwrap();
        for version in [1, 2] {
            let versions = Versions::of(vec![version]);
            assert_eq!(ProxyConfig::parse_any(&config.write(version).unwrap(), &versions).unwrap().version, version);
            assert!(ProxyConfig::parse_any(&config.write(version + 1).unwrap(), &versions).is_err());
        }
    }

    #[test]
    fn where_there_is_no_file_that_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Versions::of(vec![1, 2]).newest_text(&folder.path().join(CONFIG_FILE));
        assert_eq!(missing.unwrap_err().kind(), std::io::ErrorKind::NotFound);
    }

    #[test]
    fn the_newest_file_that_is_known_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join(CONFIG_FILE);
        for (name, text) in [(file_name(1), "one"), (file_name(2), "two"), (file_name(9), "nine")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let read = |versions: &[u32]| Versions::of(versions.to_vec()).newest_text(&config).unwrap();
        assert_eq!((read(&[1]), read(&[1, 2]), read(&[2, 3]), read(&[9])), ("one".into(), "two".into(), "two".into(), "nine".into()));
        std::fs::remove_file(folder.path().join(file_name(2))).unwrap();
        assert_eq!(read(&[1, 2]), "one", "an operator that was rolled back took the newer away");
        std::os::unix::fs::symlink("nowhere", folder.path().join(file_name(2))).unwrap();
        assert!(Versions::of(vec![1, 2]).newest_text(&config).is_err(), "it is there and can't be read");
    }
}
