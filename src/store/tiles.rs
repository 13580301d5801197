//! The tiles of a checksum database that are kept in its folder: each was proven first.

use std::fs;
use std::iter;
use std::path::Path;

use super::open::read_at_most;
use crate::gomod::{GO_TILE_HEIGHT, HASH_BYTES, Hash, Lookup, Tile, TileLevel};

/// A tile, or as much as was asked for of a wider one in its place: every tree that is older than the newest one known is
/// served from what the newest one needed. Blocks.
#[must_use]
pub fn kept_tile(database: &Path, tile: &Tile) -> Option<Vec<u8>> {
    if tile.level() == TileLevel::Data {
        return None;
    }
    let length = usize::try_from(tile.width()).ok()?.checked_mul(HASH_BYTES)?;
    let full = database.join(tile.full().to_string());
    let mut folder = full.clone().into_os_string();
    folder.push(".p");
    let partial = fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| {
        let width = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        width.is_some_and(|width| width >= tile.width())
    });
    iter::once(full).chain(partial.map(|entry| entry.path())).find_map(|file| {
        let mut hashes = read_at_most(&file, length as u64).ok().filter(|hashes| hashes.len() >= length)?;
        hashes.truncate(length);
        Some(hashes)
    })
}

/// Whether a record's hash stands in a tile that is kept. Look-up and tile were proven, so where they agree none of the two was
/// damaged since. Blocks.
pub(super) fn has_record(database: &Path, lookup: &Lookup<'_>) -> bool {
    let hash = || {
        let up_to_it = lookup.record.checked_add(1)?;
        let tile = Tile::of_tree(GO_TILE_HEIGHT, 0, lookup.record >> GO_TILE_HEIGHT, up_to_it)?;
        let hashes = kept_tile(database, &tile)?;
        hashes.as_chunks::<HASH_BYTES>().0.last().copied().map(Hash)
    };
    hash() == Some(Hash::of_record(lookup.text.as_bytes()))
}
