//! The mounted files: all of them at one look, or none. A file that can't be read for a moment is no new configuration.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::time::{Duration, Instant};

/// After how long what was refused is tried again: the reason may have passed, and no file tells.
const AGAIN: Duration = Duration::from_secs(30);

/// How long a new configuration waits for a credential that it names. A ConfigMap and a Secret reach a pod one after the other, and
/// without the one the other fails downloads that the configuration before had served.
const LATE: Duration = Duration::from_secs(10);

/// What one look at the files found.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Look {
    pub(super) config: String,
    pub(super) credentials: BTreeMap<String, Vec<u8>>,
}

/// The look that was taken last.
pub(super) struct Seen {
    pub(super) look: Look,
    /// When it was refused, if it was.
    pub(super) refused: Option<Instant>,
}

impl Seen {
    /// Whether there is something to try: other files, or those that were refused a while ago.
    pub(super) fn calls_for(&self, look: &Look, now: Instant) -> bool {
        *look != self.look || self.refused.is_some_and(|refused| now.saturating_duration_since(refused) >= AGAIN)
    }
}

/// Since when a new configuration has waited for its credentials.
#[derive(Default)]
pub(super) struct Late(Option<Instant>);

impl Late {
    /// Whether to go on waiting; `lacks` says that a credential is missing. After a no it begins anew.
    pub(super) fn waits(&mut self, lacks: bool, now: Instant) -> bool {
        let since = *self.0.get_or_insert(now);
        let waits = lacks && now.saturating_duration_since(since) < LATE;
        if !waits {
            self.0 = None;
        }
        waits
    }
}

/// The files of a folder by their names. Where there is no folder, there are none.
pub(super) fn read_folder(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries.map_err(|error| naming(folder, &error))?,
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(|error| naming(folder, &error))?;
        // The kubelet's own entries begin with two dots.
        let Some(name) = entry.file_name().into_string().ok().filter(|name| !name.starts_with('.')) else { continue };
        match std::fs::read(entry.path()) {
            Ok(bytes) => _ = files.insert(name, bytes),
            Err(error) if error.kind() == ErrorKind::IsADirectory => {}
            Err(error) => return Err(naming(&entry.path(), &error)),
        }
    }
    Ok(files)
}

/// The same error with the name of the file.
pub(super) fn naming(file: &Path, error: &Error) -> Error {
    Error::new(error.kind(), format!("{}: {error}", file.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_folder_are_read_all_or_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_folder(&folder.path().join("credentials")).unwrap().is_empty(), "no folder");
        std::fs::create_dir(folder.path().join("..data")).unwrap();
        std::fs::create_dir(folder.path().join("more")).unwrap();
        std::fs::write(folder.path().join("generation"), "g1").unwrap();
        assert_eq!(read_folder(folder.path()).unwrap(), BTreeMap::from([("generation".to_owned(), b"g1".to_vec())]));
        std::os::unix::fs::symlink("nowhere", folder.path().join("credential.corp")).unwrap();
        assert!(read_folder(folder.path()).unwrap_err().to_string().contains("credential.corp: "));
    }

    #[test]
    fn a_configuration_waits_for_its_credentials_and_not_for_ever() {
        let (now, mut late) = (Instant::now(), Late::default());
        assert!(!late.waits(false, now));
        assert!(late.waits(true, now) && late.waits(true, now + LATE / 2) && !late.waits(true, now + LATE));
        assert!(late.waits(true, now + 2 * LATE), "another one");
        assert!(!late.waits(false, now + 2 * LATE) && late.waits(true, now + 4 * LATE));
    }

    #[test]
    fn what_was_refused_is_tried_again_after_a_while_and_what_is_in_use_is_not() {
        let (now, look) = (Instant::now(), Look::default());
        let other = Look { config: "version: 1".to_owned(), ..Look::default() };
        let (used, refused) = (Seen { look: look.clone(), refused: None }, Seen { look: look.clone(), refused: Some(now) });
        assert!(used.calls_for(&other, now) && refused.calls_for(&other, now));
        assert!(!used.calls_for(&look, now + AGAIN) && !refused.calls_for(&look, now + AGAIN / 2));
        assert!(refused.calls_for(&look, now + AGAIN));
    }
}
