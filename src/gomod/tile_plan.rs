//! Which tiles prove something about a tree, and what they prove: without any I/O, so that a client asks for the tiles in
//! whatever way it likes and believes none of them before [`RecordPlan::prove`] or [`PrefixPlan::prove`] has.
//!
//! As `TileHashReader` of `golang.org/x/mod/sumdb/tlog` does it: first come the tiles that the tree's own hash is made of,
//! then those on the way down to what is wanted, each of which must have the root that stands in the one above.

use std::collections::HashMap;

use super::tile::{MAX_TILE_HEIGHT, Tile, TileLevel};
use super::tlog::{HASH_BYTES, Hash, MAX_RECORDS, Node, ProofError, Tree, tree_hash, tree_nodes};

/// Why tiles prove nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// What is asked is impossible, whatever the tiles are.
    #[error(transparent)]
    Plan(#[from] ProofError),
    /// Another number of tiles than was asked for.
    #[error("asked for {asked} tiles, got {got}")]
    Count {
        /// How many tiles the plan has.
        asked: usize,
        /// How many came.
        got: usize,
    },
    /// Neither as long as the tile nor as long as the full tile.
    #[error("a tile has another length than its width of hashes")]
    Length(Tile),
    /// At least one tile is wrong; where only the hash over several of them is known, none can be told from the others.
    #[error("the tiles do not have the tree's hash")]
    Inconsistent,
}

/// The tiles that prove some hashes of a tree.
#[derive(Clone, Debug)]
struct Plan {
    tree: Tree,
    tiles: Vec<Tile>,
    /// Which of the tiles the tree's hash is made of: these come first.
    trusted_by_hash: usize,
    wanted: Vec<Node>,
}

/// How to prove that a record is in a tree.
#[derive(Clone, Debug)]
pub struct RecordPlan(Plan);

/// How to prove a tile.
#[derive(Clone, Debug)]
pub struct TilePlan {
    plan: Plan,
    tile: Tile,
    /// The tile among the plan's, where it has all that the tree has of it.
    place: usize,
}

/// How to prove that a tree begins with an older one.
#[derive(Clone, Debug)]
pub struct PrefixPlan {
    plan: Plan,
    older: Tree,
}

impl RecordPlan {
    /// Plans for the record at place `record` of `tree`, with tiles of `height`: [`super::GO_TILE_HEIGHT`] for Go's.
    ///
    /// # Errors
    /// [`ProofError::OutOfRange`]: the tree does not have that record, or there are no tiles of that height.
    pub fn new(tree: Tree, height: u32, record: u64) -> Result<Self, ProofError> {
        if record >= tree.size {
            return Err(ProofError::OutOfRange);
        }
        Plan::new(tree, height, vec![Node { level: 0, index: record }]).map(Self)
    }

    /// The tiles to fetch. For each the full tile will do in its place.
    #[must_use]
    pub fn tiles(&self) -> &[Tile] {
        &self.0.tiles
    }

    /// The hash of the record, proven by the bytes of [`Self::tiles`] in their order. Only now may they be kept.
    ///
    /// # Errors
    /// See [`TileError`].
    pub fn prove<B: AsRef<[u8]>>(&self, tiles: &[B]) -> Result<Hash, TileError> {
        self.prove_beyond(&[], tiles)
    }

    /// The same, where the tiles whose place in `proven` is `true` were proven before: for this tree, or for another of which it
    /// is known that one begins with the other. Tiles do not change as a tree grows, so these are not hashed once more.
    ///
    /// # Errors
    /// See [`TileError`].
    pub fn prove_beyond<B: AsRef<[u8]>>(&self, proven: &[bool], tiles: &[B]) -> Result<Hash, TileError> {
        self.0.prove(proven, tiles)?.first().copied().ok_or(TileError::Inconsistent)
    }
}

impl TilePlan {
    /// Plans for a tile of a tree, or of an older one that the tree begins with.
    ///
    /// # Errors
    /// [`ProofError::OutOfRange`]: the tree does not have as much of it, or it is one of records and not of hashes.
    pub fn new(tree: Tree, tile: &Tile) -> Result<Self, ProofError> {
        let TileLevel::Hashes(level) = tile.level() else { return Err(ProofError::OutOfRange) };
        let whole = Tile::of_tree(tile.height(), level, tile.index(), tree.size).filter(|whole| whole.width() >= tile.width());
        let whole = whole.ok_or(ProofError::OutOfRange)?;
        let first = Node { level: level * tile.height(), index: tile.index() << tile.height() };
        let plan = Plan::new(tree, tile.height(), vec![first])?;
        let place = plan.tiles.iter().position(|planned| *planned == whole).ok_or(ProofError::OutOfRange)?;
        Ok(Self { plan, tile: *tile, place })
    }

    /// The tiles to fetch. For each the full tile will do in its place.
    #[must_use]
    pub fn tiles(&self) -> &[Tile] {
        &self.plan.tiles
    }

    /// The tile's bytes, proven by those of [`Self::tiles`] in their order; `proven` as in [`RecordPlan::prove_beyond`].
    ///
    /// # Errors
    /// See [`TileError`].
    pub fn prove_beyond<'a, B: AsRef<[u8]>>(&self, proven: &[bool], tiles: &'a [B]) -> Result<&'a [u8], TileError> {
        self.plan.prove(proven, tiles)?;
        let length = usize::try_from(self.tile.width()).ok().and_then(|width| width.checked_mul(HASH_BYTES));
        let bytes = tiles.get(self.place).map(AsRef::as_ref).zip(length).and_then(|(bytes, length)| bytes.get(..length));
        bytes.ok_or(TileError::Length(self.tile))
    }
}

impl PrefixPlan {
    /// Plans for the proof that `tree` begins with all the records of `older`, with tiles of `height`.
    ///
    /// Of an empty `older` there is nothing to prove. Trees of one size must have one hash, which needs no tiles, but is
    /// checked by [`Self::prove`] all the same.
    ///
    /// # Errors
    /// [`ProofError::OutOfRange`]: `older` is the larger one, or there are no tiles of that height.
    pub fn new(tree: Tree, height: u32, older: Tree) -> Result<Self, ProofError> {
        if older.size > tree.size {
            return Err(ProofError::OutOfRange);
        }
        let mut plan = Plan::new(tree, height, tree_nodes(older.size))?;
        if older.size == tree.size || older.size == 0 {
            plan.tiles.clear();
        }
        Ok(Self { plan, older })
    }

    /// The tiles to fetch. For each the full tile will do in its place.
    #[must_use]
    pub fn tiles(&self) -> &[Tile] {
        &self.plan.tiles
    }

    /// Checks the bytes of [`Self::tiles`], in their order, against both trees. Only now may they be kept.
    ///
    /// # Errors
    /// See [`TileError`]. [`ProofError::Invalid`] with tiles that have the newer tree's hash is the database caught lying:
    /// it has signed two trees of which neither begins with the other.
    pub fn prove<B: AsRef<[u8]>>(&self, tiles: &[B]) -> Result<(), TileError> {
        let begins_with = if self.plan.tiles.is_empty() {
            if !tiles.is_empty() {
                return Err(TileError::Count { asked: 0, got: tiles.len() });
            }
            if self.older.size == 0 { Hash::of_nothing() } else { self.plan.tree.hash }
        } else {
            tree_hash(&self.plan.prove(&[], tiles)?)
        };
        if begins_with == self.older.hash { Ok(()) } else { Err(ProofError::Invalid.into()) }
    }
}

impl Plan {
    fn new(tree: Tree, height: u32, wanted: Vec<Node>) -> Result<Self, ProofError> {
        if !(1..=MAX_TILE_HEIGHT).contains(&height) || tree.size > MAX_RECORDS {
            return Err(ProofError::OutOfRange);
        }
        let mut tiles = Vec::new();
        for node in tree_nodes(tree.size) {
            let tile = Tile::of_node(height, node, tree.size).ok_or(ProofError::OutOfRange)?;
            if !tiles.contains(&tile) {
                tiles.push(tile);
            }
        }
        let trusted_by_hash = tiles.len();
        for node in &wanted {
            let mut way_up = Vec::new();
            let mut tile = Tile::of_node(height, *node, tree.size).ok_or(ProofError::OutOfRange)?;
            while !tiles.contains(&tile) {
                way_up.push(tile);
                // A tile without a parent is the topmost or the last of its level: the tree's hash is made of it.
                tile = tile.parent(tree.size).ok_or(ProofError::OutOfRange)?;
            }
            tiles.extend(way_up.into_iter().rev());
        }
        Ok(Self { tree, tiles, trusted_by_hash, wanted })
    }

    fn prove<B: AsRef<[u8]>>(&self, proven: &[bool], bytes: &[B]) -> Result<Vec<Hash>, TileError> {
        if bytes.len() != self.tiles.len() {
            return Err(TileError::Count { asked: self.tiles.len(), got: bytes.len() });
        }
        let mut hashes = HashMap::new();
        for (tile, bytes) in self.tiles.iter().zip(bytes) {
            hashes.insert(*tile, tile.hashes(bytes.as_ref()).ok_or(TileError::Length(*tile))?);
        }
        let node_hash = |node: Node| {
            let tile = self.tiles.first().and_then(|tile| Tile::of_node(tile.height(), node, self.tree.size))?;
            tile.node_hash(hashes.get(&tile)?, node)
        };
        let is_proven = |place: usize| proven.get(place) == Some(&true);
        if !(0..self.trusted_by_hash).all(is_proven) {
            let tree_row: Option<Vec<Hash>> = tree_nodes(self.tree.size).into_iter().map(node_hash).collect();
            if tree_row.map(|row| tree_hash(&row)) != Some(self.tree.hash) {
                return Err(TileError::Inconsistent);
            }
        }
        // Parents stand before their children, so what is compared with was proven.
        for (_, tile) in self.tiles.iter().enumerate().skip(self.trusted_by_hash).filter(|(place, _)| !is_proven(*place)) {
            let own = tile.root().and_then(|root| tile.node_hash(hashes.get(tile)?, root));
            // The root as the tile above has it, not as this one computes it.
            let above = tile.root().and_then(node_hash);
            if own.is_none() || own != above {
                return Err(TileError::Inconsistent);
            }
        }
        self.wanted.iter().copied().map(node_hash).collect::<Option<_>>().ok_or(TileError::Inconsistent)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::super::tile::TileLevel;
    use super::super::tlog::tests::{naive_root, records};
    use super::*;

    /// A tile's bytes, cut from the records.
    fn bytes(records: &[Hash], tile: &Tile) -> Vec<u8> {
        let TileLevel::Hashes(level) = tile.level() else { return Vec::new() };
        let below = 1_usize << (level * tile.height());
        let first = usize::try_from(tile.index()).unwrap() << tile.height();
        let hash = |i: usize| naive_root(&records[(first + i) * below..(first + i + 1) * below]).0;
        (0..tile.width() as usize).flat_map(hash).collect()
    }

    fn tree(records: &[Hash]) -> Tree {
        Tree { size: records.len() as u64, hash: naive_root(records) }
    }

    #[test]
    fn tiles_prove_every_record_and_no_changed_tile_proves_any() {
        for (size, height) in [(1, 1), (2, 1), (7, 1), (13, 2), (16, 2), (33, 2), (64, 3), (77, 3), (70, 8)] {
            let records = records(size);
            for record in 0..size {
                let plan = RecordPlan::new(tree(&records), height, record).unwrap();
                let tiles: Vec<_> = plan.tiles().iter().map(|tile| bytes(&records, tile)).collect();
                assert_eq!(plan.prove(&tiles).unwrap(), records[usize::try_from(record).unwrap()]);
                for i in 0..tiles.len() {
                    let mut flipped = tiles.clone();
                    let at = usize::try_from(record).unwrap() * 7 % flipped[i].len();
                    flipped[i][at] ^= 1;
                    assert_eq!(plan.prove(&flipped), Err(TileError::Inconsistent), "{size} {height} {record} {i}");
                    flipped[i].pop();
                    assert!(matches!(plan.prove(&flipped), Err(TileError::Length(_))));
                    flipped.pop();
                    assert!(matches!(plan.prove(&flipped), Err(TileError::Count { .. })));
                }
            }
        }
    }

    #[test]
    fn what_was_proven_is_not_hashed_again_and_all_else_is() {
        let records = records(77);
        let plan = RecordPlan::new(tree(&records), 2, 27).unwrap();
        let good: Vec<_> = plan.tiles().iter().map(|tile| bytes(&records, tile)).collect();
        let all_but = |i: usize| (0..good.len()).map(|j| j != i).collect::<Vec<_>>();
        assert!(plan.0.trusted_by_hash > 1 && plan.0.trusted_by_hash < good.len());
        for i in 0..good.len() {
            assert_eq!(plan.prove_beyond(&all_but(i), &good).unwrap(), records[27]);
            // The way to record 27 leads through the first hash of none of its tiles.
            let mut flipped = good.clone();
            flipped[i][0] ^= 1;
            assert_eq!(plan.prove_beyond(&all_but(i), &flipped), Err(TileError::Inconsistent), "{i}");
            let mut proven = vec![false; good.len()];
            proven[i] = true;
            let alone = plan.prove_beyond(&proven, &flipped);
            assert_eq!(alone.is_ok(), i >= plan.0.trusted_by_hash, "{i}: of those that the tree's hash is made of, one is not enough");
        }
    }

    #[test]
    fn a_full_tile_does_for_a_partial_one() {
        let all = records(16);
        let plan = RecordPlan::new(tree(&all[..14]), 2, 13).unwrap();
        assert!(plan.tiles().iter().any(Tile::is_partial));
        let mut tiles: Vec<_> = plan.tiles().iter().map(|tile| bytes(&all, &tile.full())).collect();
        assert_eq!(plan.prove(&tiles).unwrap(), all[13]);
        // What is behind the tree's end is not looked at.
        let last = plan.tiles().iter().position(|tile| tile.to_string() == "tile/2/0/003.p/2").unwrap();
        tiles[last][3 * 32] ^= 1;
        assert_eq!(plan.prove(&tiles).unwrap(), all[13]);
    }

    #[test]
    fn tiles_prove_each_tile_and_every_hash_in_it() {
        for (size, height) in [(1, 1), (7, 1), (33, 2), (64, 3), (77, 3), (70, 8)] {
            let (records, mut proven) = (records(size), 0);
            let places = (0..4).flat_map(|level| (0..size).map(move |index| (level, index)));
            for whole in places.filter_map(|(level, index)| Tile::of_tree(height, level, index, size)) {
                // As it stood in this tree, and in one that was smaller.
                let TileLevel::Hashes(level) = whole.level() else { continue };
                let first = Tile::of_tree(height, level, whole.index(), ((whole.index() << height) + 1) << (level * height)).unwrap();
                for tile in [whole, first] {
                    let plan = TilePlan::new(tree(&records), &tile).unwrap();
                    let tiles: Vec<_> = plan.tiles().iter().map(|tile| bytes(&records, tile)).collect();
                    assert_eq!(plan.prove_beyond(&[], &tiles).unwrap(), bytes(&records, &tile));
                    for hash in 0..whole.width() as usize {
                        let mut flipped = tiles.clone();
                        flipped[plan.place][hash * HASH_BYTES] ^= 1;
                        assert_eq!(plan.prove_beyond(&[], &flipped), Err(TileError::Inconsistent), "{size} {height} {whole} {hash}");
                    }
                    proven += 1;
                }
                assert!(TilePlan::new(Tree { size: 0, ..tree(&records) }, &first).is_err());
            }
            assert!(proven > 1);
        }
        let plan = TilePlan::new(tree(&records(5)), &"tile/8/data/000.p/1".parse().unwrap());
        assert!(matches!(plan, Err(ProofError::OutOfRange)));
    }

    #[test]
    fn tiles_prove_every_beginning_and_no_fork() {
        for (size, height) in [(1, 1), (7, 1), (33, 2), (64, 3), (77, 3)] {
            let records = records(size);
            for older_size in 0..=records.len() {
                let older = tree(&records[..older_size]);
                let plan = PrefixPlan::new(tree(&records), height, older).unwrap();
                let tiles: Vec<_> = plan.tiles().iter().map(|tile| bytes(&records, tile)).collect();
                plan.prove(&tiles).unwrap();
                let fork = Tree { hash: Hash::of_record(b"fork"), ..older };
                let forked = PrefixPlan::new(tree(&records), height, fork).unwrap();
                assert_eq!(forked.prove(&tiles), Err(TileError::Plan(ProofError::Invalid)));
            }
        }
    }

    #[test]
    fn what_no_tree_has_is_not_planned() {
        let tree = tree(&records(5));
        assert!(RecordPlan::new(tree, 8, 5).is_err());
        assert!(RecordPlan::new(tree, 0, 1).is_err());
        assert!(RecordPlan::new(tree, 31, 1).is_err());
        assert!(RecordPlan::new(Tree { size: u64::MAX, ..tree }, 8, 1).is_err());
        assert!(PrefixPlan::new(tree, 8, Tree { size: 6, ..tree }).is_err());
        let huge = Tree { size: MAX_RECORDS, ..tree };
        assert!(RecordPlan::new(huge, 1, MAX_RECORDS - 1).unwrap().tiles().len() < 200);
        assert_eq!(RecordPlan::new(huge, 8, 0).unwrap().tiles().len(), 15);
    }
}
