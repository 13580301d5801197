//! From the path of a request to what it asks for.

use super::path::{ModulePath, PathError, Version};
use super::tile::Tile;
use super::zip_rules::check_module;

/// What a client asks for. Whatever is in here was checked and may be written to a disk in its escaped form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// `/<module>/@v/list`
    List(ModulePath),
    /// `/<module>/@latest`
    Latest(ModulePath),
    /// `/<module>/@v/<version>.info`
    Info(ModulePath, Version),
    /// `/<module>/@v/<version>.mod`
    Mod(ModulePath, Version),
    /// `/<module>/@v/<version>.zip`
    Zip(ModulePath, Version),
    /// `/sumdb/<name and rest>`: which part is the name only the configuration knows.
    Sumdb(String),
}

/// What is asked of a checksum database, after its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SumdbPath {
    /// `supported`
    Supported,
    /// `latest`: the newest tree head, never cached.
    Latest,
    /// `lookup/<module>@<version>`, escaped: valid for ever.
    Lookup(ModulePath, Version),
    /// `tile/…`: valid for ever.
    Tile(Tile),
}

impl Request {
    /// Parses the raw path of a request target.
    ///
    /// # Errors
    /// A path that no go command asks for: it is answered with 404 and never reaches a disk.
    pub fn parse(raw: &str) -> Result<Self, PathError> {
        let path = percent_decode(raw)?;
        let path = path.strip_prefix('/').filter(|path| fits_a_disk(path)).ok_or(PathError::Unknown)?;
        if let Some(rest) = path.strip_prefix("sumdb/") {
            return Ok(Self::Sumdb(rest.to_owned()));
        }
        if let Some(module) = path.strip_suffix("/@latest") {
            return Ok(Self::Latest(ModulePath::from_escaped(module)?));
        }
        let (module, file) = path.split_once("/@v/").ok_or(PathError::Unknown)?;
        let module = ModulePath::from_escaped(module)?;
        if file == "list" {
            return Ok(Self::List(module));
        }
        let (version, extension) = file.rsplit_once('.').ok_or(PathError::Unknown)?;
        let version = Version::from_escaped(version)?;
        match extension {
            "info" => Ok(Self::Info(module, version)),
            "mod" => Ok(Self::Mod(module, version)),
            "zip" => Ok(Self::Zip(module, version)),
            _ => Err(PathError::Unknown),
        }
    }

    /// The path below an upstream's or a cache's root, escaped, without a leading slash.
    #[must_use]
    pub fn escaped(&self) -> String {
        match self {
            Self::List(module) => format!("{}/@v/list", module.escaped()),
            Self::Latest(module) => format!("{}/@latest", module.escaped()),
            Self::Info(module, version) => format!("{}/@v/{}.info", module.escaped(), version.escaped()),
            Self::Mod(module, version) => format!("{}/@v/{}.mod", module.escaped(), version.escaped()),
            Self::Zip(module, version) => format!("{}/@v/{}.zip", module.escaped(), version.escaped()),
            Self::Sumdb(rest) => format!("sumdb/{rest}"),
        }
    }

    /// The path of a request as the go command spells it.
    #[must_use]
    pub fn as_go_asks(&self) -> String {
        format!("/{}", self.escaped().replace('!', "%21"))
    }

    /// The bounded name of the kind, for metrics.
    #[must_use]
    pub fn endpoint(&self) -> &'static str {
        match self {
            Self::List(_) => "list",
            Self::Latest(_) => "latest",
            Self::Info(..) => "info",
            Self::Mod(..) => "mod",
            Self::Zip(..) => "zip",
            Self::Sumdb(_) => "sumdb",
        }
    }

    /// The module, if the request is about one.
    #[must_use]
    pub fn module(&self) -> Option<&ModulePath> {
        match self {
            Self::List(m) | Self::Latest(m) | Self::Info(m, _) | Self::Mod(m, _) | Self::Zip(m, _) => Some(m),
            Self::Sumdb(_) => None,
        }
    }

    /// The version, if the request is about one.
    #[must_use]
    pub fn version(&self) -> Option<&Version> {
        match self {
            Self::Info(_, v) | Self::Mod(_, v) | Self::Zip(_, v) => Some(v),
            Self::List(_) | Self::Latest(_) | Self::Sumdb(_) => None,
        }
    }

    /// Whether the answer never changes: a file of a canonical version that the module can have. `v2.0.0` of a module whose path
    /// does not end in `/v2` is a tag like any other name, and stands for `v2.0.0+incompatible`.
    #[must_use]
    pub fn is_immutable(&self) -> bool {
        matches!((self.module(), self.version()), (Some(module), Some(version)) if check_module(module, version).is_ok())
    }
}

impl SumdbPath {
    /// Parses what follows `/sumdb/<name>/`.
    ///
    /// # Errors
    /// Not a request of the checksum-database protocol.
    pub fn parse(rest: &str) -> Result<Self, PathError> {
        if !fits_a_disk(rest) {
            return Err(PathError::Unknown);
        }
        if let Some(lookup) = rest.strip_prefix("lookup/") {
            let (module, version) = lookup.rsplit_once('@').ok_or(PathError::Unknown)?;
            return Ok(Self::Lookup(ModulePath::from_escaped(module)?, Version::from_escaped(version)?));
        }
        if rest.starts_with("tile/") {
            return rest.parse().map(Self::Tile).map_err(|_| PathError::Unknown);
        }
        match rest {
            "supported" => Ok(Self::Supported),
            "latest" => Ok(Self::Latest),
            _ => Err(PathError::Unknown),
        }
    }

    /// The path after the database's root.
    #[must_use]
    pub fn escaped(&self) -> String {
        match self {
            Self::Supported => "supported".to_owned(),
            Self::Latest => "latest".to_owned(),
            Self::Lookup(module, version) => format!("lookup/{}@{}", module.escaped(), version.escaped()),
            Self::Tile(tile) => tile.to_string(),
        }
    }
}

/// Go sets no limit to a path or a version, disks do: 255 bytes a name, 4096 a path. What is longer fails in the go
/// command's own cache as well. The rest is room for our endings and for the folder that we are in.
fn fits_a_disk(escaped: &str) -> bool {
    escaped.len() <= 2048 && escaped.split('/').all(|element| element.len() <= 240)
}

/// Decodes percent escapes once. What is left of a double encoding fails the checks that follow.
fn percent_decode(raw: &str) -> Result<String, PathError> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(b) = rest.next() {
        if b != b'%' {
            bytes.push(b);
            continue;
        }
        let mut digit = || rest.next().and_then(|d| char::from(d).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push(high * 16 + low),
            _ => return Err(PathError::Unknown),
        }
    }
    String::from_utf8(bytes).map_err(|_| PathError::Escaping)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_an_escape_are_one_request() {
        let bare = Request::parse("/corp.example/!azure/x/@v/v1.0.0-!r!c.zip").unwrap();
        assert_eq!(Request::parse("/corp.example/%21azure/x/%40v/v1.0.0-%21r%21c.zip").unwrap(), bare);
        assert_eq!(bare.module().unwrap().as_str(), "corp.example/Azure/x");
        assert_eq!(bare.version().unwrap().as_str(), "v1.0.0-RC");
        let plus = Request::parse("/corp.example/a/@v/v2.0.0+incompatible.info").unwrap();
        assert_eq!(Request::parse("/corp.example/a/@v/v2.0.0%2Bincompatible.info").unwrap(), plus);
        assert!(plus.is_immutable());
    }

    #[test]
    fn impossible_requests_are_refused() {
        for raw in [
            "/",
            "/x",
            "/corp.example/A/@v/list",
            "/corp.example/%2521azure/@v/list",
            "/corp.example/../x/@v/list",
            "/corp.example/a/@v/../../etc.mod",
            "/corp.example/a/@v/%2e%2e%2fx.mod",
            "/corp.example/a/@v/v1.0.0.exe",
            "/corp.example/a/@v/v1%252e0.mod",
            "/corp.example/a/@v/v1.0.0",
            "/corp.example/a%00/@v/list",
            "/corp.example/%zz/@v/list",
            "//corp.example/a/@v/list",
        ] {
            assert!(Request::parse(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn what_no_disk_can_name_is_refused() {
        let request = |element: &str, version: &str| Request::parse(&format!("/corp.example/{element}/@v/{version}.info"));
        assert!(request(&"a".repeat(240), &"b".repeat(235)).is_ok());
        assert!(request(&"a".repeat(241), "v1.0.0").is_err());
        assert!(request("a", &"b".repeat(236)).is_err());
        assert!(request(&"!a".repeat(121), "v1.0.0").is_err(), "it is the escaped name that counts");
        assert!(request(&["abcdefg"; 255].join("/"), "v1.0.0").is_err());
        assert!(SumdbPath::parse(&format!("lookup/corp.example/{}@v1.0.0", "a".repeat(240))).is_err());
    }

    #[test]
    fn a_branch_is_legal_and_mutable() {
        assert!(!Request::parse("/corp.example/a/@v/main.info").unwrap().is_immutable());
        assert!(!Request::parse("/corp.example/a/@v/!release.info").unwrap().is_immutable());
        assert!(!Request::parse("/corp.example/a/@v/v2.0.0.info").unwrap().is_immutable(), "it stands for +incompatible");
    }

    #[test]
    fn checksum_database_paths_are_checked() {
        for good in ["supported", "latest", "lookup/corp.example/!a@v1.0.0", "tile/8/0/x001/234.p/17", "tile/8/1/000", "tile/8/data/001"] {
            assert_eq!(SumdbPath::parse(good).unwrap().escaped(), good);
        }
        for bad in [
            "",
            "x",
            "lookup/",
            "lookup/corp.example/A@v1.0.0",
            "lookup/../x@v1",
            "tile/../../x",
            "tile/8/0/..",
            "tile/8//000",
            "tile/8",
            "tile/8/0/1",
            "tile/8/0/x000/001",
            "tile/8/0/000.p/256",
        ] {
            assert!(SumdbPath::parse(bad).is_err(), "{bad}");
        }
    }
}
