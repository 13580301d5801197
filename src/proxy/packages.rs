//! Packages that a go command takes for modules: for `go install a.example/m/cmd/tool@v1.2.3` it asks for a module at every
//! prefix of the path, and the answer to the longest decides. An outage there would fail a build whose module is cached.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;

use super::cache::Cache;
use crate::gomod::{ModulePath, Request, Version, modules_above, zip_has_folder};
use crate::source::{Class, Fault, FetchError};

impl Cache {
    /// Of a module that nobody could be asked about: 404, if a zip that is cached shows it to be a package of another module.
    pub(super) async fn known_package(self: &Arc<Self>, request: &Request, error: &FetchError) -> Option<FetchError> {
        let is_outage = match error {
            FetchError::Offline => true,
            // One that refuses has heard of the path, and may have a reason to refuse just this one.
            FetchError::Fault(Fault { class, .. }) => class.is_silence() || *class == Class::ServerError,
            _ => false,
        };
        let version = match request {
            Request::Info(_, version) => Some(version.clone()).filter(Version::is_canonical),
            Request::List(_) | Request::Latest(_) => None,
            Request::Mod(..) | Request::Zip(..) | Request::Sumdb(_) => return None,
        };
        let path = request.module().filter(|_| is_outage)?.clone();
        let this = Arc::clone(self);
        let found = tokio::task::spawn_blocking(move || this.module_of_package(&path, version.as_ref())).await.ok()??;
        let text = format!("not found: no module, but a package of {found}, which is cached\n");
        Some(FetchError::NotFound { status: StatusCode::NOT_FOUND, text: Bytes::from(text) })
    }

    /// The module and version in whose zip this path is a folder: of this version, or else of the highest tag. Blocks.
    fn module_of_package(&self, path: &ModulePath, version: Option<&Version>) -> Option<String> {
        // What was a folder of one version may be a module of its own since.
        if self.store.has_known(path) {
            return None;
        }
        modules_above(path).find_map(|(module, folder)| {
            let highest = || Version::new(self.store.cached_versions(&module).last()?).ok();
            let version = version.cloned().or_else(highest)?;
            let zip = self.store.path(&Request::Zip(module.clone(), version.clone()));
            let has_folder = zip_has_folder(self.store.open_uncounted(&zip).ok()??, &module, &version, folder).unwrap_or_default();
            has_folder.then(|| format!("{}@{}", module.as_str(), version.as_str()))
        })
    }
}
