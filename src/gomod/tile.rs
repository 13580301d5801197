//! Tiles: the pieces in which a checksum database serves its tree, as `golang.org/x/mod/sumdb/tlog` names and cuts them.
//!
//! A tile of height H at level L holds up to 2^H hashes of the tree's level H*L, so that its own root is a hash of the
//! level H*(L+1) and stands in a tile above.

use std::fmt;
use std::str::FromStr;

use super::tlog::{HASH_BYTES, Hash, MAX_RECORDS, Node};

/// The height that the go command asks for, whatever else a database serves.
pub const GO_TILE_HEIGHT: u32 = 8;

/// The largest height that a path may name.
pub const MAX_TILE_HEIGHT: u32 = 30;

/// The levels above this one are empty in a tree of any size.
const MAX_LEVEL: u32 = 63;

/// A text that is not the one path of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the path of a tile")]
pub struct TilePathError;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TileLevel {
    /// The texts of records.
    Data,
    /// Hashes, this many times the height above the records.
    Hashes(u32),
}

/// The coordinates of a tile: `tile/<height>/<level>/<index>[.p/<width>]`.
///
/// The fields are private because a tile has one path, and a path has one tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    level: TileLevel,
    index: u64,
    height: u32,
    width: u32,
}

impl Tile {
    /// A tile of hashes that has all that a tree of `size` records has at this place; `None` if that is nothing, or the
    /// height is out of range.
    #[must_use]
    pub fn of_tree(height: u32, level: u32, index: u64, size: u64) -> Option<Self> {
        if !(1..=MAX_TILE_HEIGHT).contains(&height) || level > MAX_LEVEL {
            return None;
        }
        let hashes = size.checked_shr(level.checked_mul(height)?).unwrap_or(0);
        let first = index.checked_mul(1 << height)?;
        let width = hashes.saturating_sub(first).min(1 << height);
        let width = u32::try_from(width).ok().filter(|width| *width > 0)?;
        Some(Self { level: TileLevel::Hashes(level), index, height, width })
    }

    /// The tile of a tree of `size` records from which `node` can be computed.
    pub(super) fn of_node(height: u32, node: Node, size: u64) -> Option<Self> {
        let level = node.level.checked_div(height)?;
        let within = node.level - level * height;
        Self::of_tree(height, level, node.index.checked_shr(height - within)?, size)
    }

    /// The tile above, which holds this one's root, in a tree of `size` records; there is none above a partial tile.
    pub(super) fn parent(&self, size: u64) -> Option<Self> {
        let TileLevel::Hashes(level) = self.level else { return None };
        Self::of_tree(self.height, level + 1, self.index >> self.height, size).filter(|_| !self.is_partial())
    }

    /// The node that is this tile's root, if the tile is full.
    pub(super) fn root(&self) -> Option<Node> {
        let TileLevel::Hashes(level) = self.level else { return None };
        (!self.is_partial()).then(|| Node { level: (level + 1) * self.height, index: self.index })
    }

    /// Levels of hashes from the leaves of the tile to its root.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// What the tile holds.
    #[must_use]
    pub fn level(&self) -> TileLevel {
        self.level
    }

    /// The place in its level, from the left.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or records it holds.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Whether the tree ends within the tile.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.width < 1 << self.height
    }

    /// The tile that this one becomes when the tree has grown: what to ask for where the partial one is gone.
    #[must_use]
    pub fn full(&self) -> Self {
        Self { width: 1 << self.height, ..*self }
    }

    /// The hashes of this tile from its bytes, or from those of the full tile; `None` for any other length.
    pub(super) fn hashes<'a>(&self, bytes: &'a [u8]) -> Option<&'a [[u8; HASH_BYTES]]> {
        let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
        let width = usize::try_from(self.width).ok()?;
        let whole = rest.is_empty() && (hashes.len() == width || Some(hashes.len()) == usize::try_from(self.full().width).ok());
        hashes.get(..width).filter(|_| whole)
    }

    /// Computes `node` from the hashes of this tile.
    pub(super) fn node_hash(&self, hashes: &[[u8; HASH_BYTES]], node: Node) -> Option<Hash> {
        let TileLevel::Hashes(level) = self.level else { return None };
        let within = node.level.checked_sub(level * self.height).filter(|within| *within <= self.height)?;
        let first = node.index.checked_mul(1 << within)?.checked_sub(self.index.checked_mul(1 << self.height)?)?;
        let first = usize::try_from(first).ok()?;
        subtree_hash(hashes.get(first..first.checked_add(1 << within)?)?)
    }
}

/// The root of a complete subtree over a power of two of hashes.
fn subtree_hash(hashes: &[[u8; HASH_BYTES]]) -> Option<Hash> {
    if let [one] = hashes {
        return Some(Hash(*one));
    }
    let (left, right) = hashes.split_at_checked(hashes.len() / 2).filter(|(left, _)| !left.is_empty())?;
    Some(Hash::of_children(&subtree_hash(left)?, &subtree_hash(right)?))
}

impl fmt::Display for TileLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data => f.write_str("data"),
            Self::Hashes(level) => level.fmt(f),
        }
    }
}

/// The path below a database's root.
impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tile/{}/{}/", self.height, self.level)?;
        // Thousands are folders, so that none has too many files.
        let digits = self.index.to_string();
        let groups = digits.len().div_ceil(3);
        let padded = format!("{digits:0>width$}", width = groups * 3);
        for (i, group) in padded.as_bytes().chunks(3).enumerate() {
            let folder = i + 1 < groups;
            let group = String::from_utf8_lossy(group);
            if folder { write!(f, "x{group}/")? } else { f.write_str(&group)? }
        }
        if self.is_partial() { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

/// Parses the one path that a tile has. Another spelling of the numbers is no path: it would be cached a second time.
impl FromStr for Tile {
    type Err = TilePathError;

    fn from_str(path: &str) -> Result<Self, TilePathError> {
        parse(path).filter(|tile| tile.to_string() == path).ok_or(TilePathError)
    }
}

/// Reads the numbers of a path; what is not canonical is found by writing the path again.
fn parse(path: &str) -> Option<Tile> {
    let (path, width) = match path.split_once(".p/") {
        Some((path, width)) => (path, Some(width.parse().ok()?)),
        None => (path, None),
    };
    let mut parts = path.strip_prefix("tile/")?.split('/');
    let height = parts.next()?.parse().ok().filter(|height| (1..=MAX_TILE_HEIGHT).contains(height))?;
    let level = match parts.next()? {
        "data" => TileLevel::Data,
        level => TileLevel::Hashes(level.parse().ok().filter(|level| *level <= MAX_LEVEL)?),
    };
    let full = 1 << height;
    let width = width.unwrap_or(full);
    let mut index = None;
    for group in parts {
        let group: u64 = group.strip_prefix('x').unwrap_or(group).parse().ok()?;
        index = Some(index.unwrap_or(0_u64).checked_mul(1000)?.checked_add(group)?);
    }
    let index = index.filter(|index| *index <= MAX_RECORDS)?;
    // A partial width that is the full one has another path.
    (1..=full).contains(&width).then_some(Tile { level, index, height, width })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tiles_have_the_paths_that_go_gives_them() {
        for (path, level, index, height, width) in [
            ("tile/8/0/000", TileLevel::Hashes(0), 0, 8, 256),
            ("tile/8/1/x001/234.p/17", TileLevel::Hashes(1), 1234, 8, 17),
            ("tile/8/data/x123/x456/789", TileLevel::Data, 123_456_789, 8, 256),
            ("tile/3/4/x001/x234/067.p/1", TileLevel::Hashes(4), 1_234_067, 3, 1),
            ("tile/1/63/x009/x223/x372/x036/x854/x775/807", TileLevel::Hashes(63), MAX_RECORDS, 1, 2),
        ] {
            let tile = Tile { level, index, height, width };
            assert_eq!(path.parse(), Ok(tile));
            assert_eq!(tile.to_string(), path);
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for path in [
            "",
            "tile",
            "tile/8/0",
            "tile/8/0/",
            "tile/8/0/0",
            "tile/8/0/0000",
            "tile/8/0/000/",
            "tile/8/0/x000/001",
            "tile/8/0/x001",
            "tile/8/0/001/002",
            "tile/8/0/+01",
            "tile/08/0/000",
            "tile/8/00/000",
            "tile/8/-1/000",
            "tile/8/Data/000",
            "tile/0/0/000",
            "tile/31/0/000",
            "tile/8/64/000",
            "tile/8/0/000.p",
            "tile/8/0/000.p/0",
            "tile/8/0/000.p/256",
            "tile/8/0/000.p/017",
            "tile/8/0/000.p/1.p/1",
            "tile/8/0/x000.p/1/001",
            "tile/8/0/x009/x223/x372/x036/x854/x775/808",
            "tile/8/0/x018/x446/x744/x073/x709/x551/616",
            "/tile/8/0/000",
            "tile/8/0/..",
            "tile/8//000",
        ] {
            assert_eq!(path.parse::<Tile>(), Err(TilePathError), "{path}");
        }
    }

    #[test]
    fn a_partial_tile_is_the_beginning_of_the_full_one() {
        let tile = Tile::of_tree(2, 0, 1, 6).unwrap();
        assert_eq!((tile.to_string().as_str(), tile.full().to_string().as_str()), ("tile/2/0/001.p/2", "tile/2/0/001"));
        let bytes = [[1; 32], [2; 32], [3; 32], [4; 32]].concat();
        for length in 0..=bytes.len() {
            let hashes = bytes.get(..length).and_then(|bytes| tile.hashes(bytes));
            assert_eq!(hashes, [64, 128].contains(&length).then_some(&[[1; 32], [2; 32]][..]), "{length}");
        }
        assert!(tile.parent(6).is_none());
        assert!(Tile::of_tree(2, 0, 2, 6).is_none());
        assert!(Tile::of_tree(0, 0, 0, 6).is_none() && Tile::of_tree(31, 0, 0, 6).is_none());
    }

    proptest! {
        #[test]
        fn paths_round_trip(height in 1..=30_u32, level in 0..=64_u32, index in 0..=MAX_RECORDS, shift in 0..63_u32, width: u32) {
            let level = if level == 64 { TileLevel::Data } else { TileLevel::Hashes(level) };
            let tile = Tile { level, index: index >> shift, height, width: width % (1 << height) + 1 };
            prop_assert_eq!(tile.to_string().parse(), Ok(tile));
        }

        #[test]
        fn what_is_parsed_is_written_the_same(path in "tile/[0-9]{1,2}/(data|[0-9]{1,2})(/x?[0-9]{3}){1,3}(\\.p/[0-9]{1,3})?") {
            if let Ok(tile) = path.parse::<Tile>() {
                prop_assert_eq!(tile.to_string(), path);
            }
        }
    }
}
