//! Whether a path below a module's is one of its packages, and so no module of its own.

use std::io::{Read, Seek, SeekFrom};

use super::zip_directory::read_directory;
use super::zip_error::ZipError;
use super::{ModulePath, Version, split_path_version};

/// The modules that a path can be a package of, the longest first, each with the folder that it would be: path prefixes, as the
/// go command probes them. Empty for a path that ends in a major version: that is no folder, but a module of its own.
pub fn modules_above(path: &ModulePath) -> impl Iterator<Item = (ModulePath, &str)> {
    let path = path.as_str();
    let ends_in_major = split_path_version(path).is_some_and(|(_, major)| !major.is_empty());
    let slashes = path.rmatch_indices('/').filter(move |_| !ends_in_major);
    slashes.filter_map(move |(at, _)| Some((ModulePath::new(path.get(..at)?).ok()?, path.get(at + 1..)?)))
}

/// Whether a module's zip has files in a folder or below it. A module that began there would have taken them out of this one:
/// the zip of a module holds nothing that another module's `go.mod` is above of (`golang.org/x/mod/zip`).
///
/// # Errors
/// The zip has no directory that Go could read.
pub fn zip_has_folder<R: Read + Seek>(mut zip: R, module: &ModulePath, version: &Version, folder: &str) -> Result<bool, ZipError> {
    let size = zip.seek(SeekFrom::End(0))?;
    let prefix = format!("{}@{}/{folder}/", module.as_str(), version.as_str());
    Ok(read_directory(&mut zip, size)?.iter().any(|entry| entry.name.starts_with(prefix.as_bytes()) && !entry.name.ends_with(b"/")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn above(path: &str) -> Vec<(String, String)> {
        modules_above(&ModulePath::new(path).unwrap()).map(|(module, folder)| (module.as_str().to_owned(), folder.to_owned())).collect()
    }

    #[test]
    fn prefixes_that_can_be_modules_come_longest_first() {
        let expected = [("a.example/m/cmd", "tool"), ("a.example/m", "cmd/tool"), ("a.example", "m/cmd/tool")];
        assert_eq!(above("a.example/m/cmd/tool"), expected.map(|(module, folder)| (module.to_owned(), folder.to_owned())));
        // `/v2` can be a module's end and not its beginning; what ends in it is one.
        let expected = [("a.example/m/v2", "cmd"), ("a.example/m", "v2/cmd"), ("a.example", "m/v2/cmd")];
        assert_eq!(above("a.example/m/v2/cmd"), expected.map(|(module, folder)| (module.to_owned(), folder.to_owned())));
        assert!(above("a.example/m/v2").is_empty());
        assert!(above("gopkg.in/yaml.v3").is_empty());
    }

    #[test]
    fn a_folder_is_there_if_a_file_is_in_it_or_below_it() {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default();
        for name in ["go.mod", "cmd/tool/sub/main.go", "toolbox/x.go"] {
            writer.start_file(format!("a.example/m@v1.0.0/{name}"), options).unwrap();
        }
        writer.add_directory("a.example/m@v1.0.0/empty", options).unwrap();
        let zip = writer.finish().unwrap().into_inner();
        let (module, version) = (ModulePath::new("a.example/m").unwrap(), Version::new("v1.0.0").unwrap());
        let has = |folder: &str| zip_has_folder(Cursor::new(&zip), &module, &version, folder).unwrap();
        assert!(has("cmd/tool") && has("cmd") && has("toolbox"));
        assert!(!has("tool") && !has("empty") && !has("go.mod"));
        assert!(zip_has_folder(Cursor::new(b"no zip"), &module, &version, "cmd").is_err());
    }
}
