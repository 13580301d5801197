//! The Merkle tree of a checksum database: RFC 6962 with SHA-256, as `golang.org/x/mod/sumdb/tlog` has it.
//!
//! A tree of n records is a row of complete subtrees, the largest first; its hash folds the row from the right. A
//! [`Node`] names the root of one complete subtree, and is all that ever needs storing.

use std::fmt;

use ring::digest::{Context, SHA256};

use super::base64;

/// The largest number of records, for Go counts them in an `int64`.
pub const MAX_RECORDS: u64 = i64::MAX as u64;

/// The length of a hash in bytes.
pub const HASH_BYTES: usize = 32;

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// A record that is not in a tree of this size, or an older tree that is larger than the newer one, or empty.
    #[error("no tree of this size can prove this")]
    OutOfRange,
    /// Another tree, another record, or a proof of another length.
    #[error("invalid transparency proof")]
    Invalid,
}

/// A SHA-256 hash of a record or of a subtree.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; HASH_BYTES]);

/// The head of a log: how many records it has, and their hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Records.
    pub size: u64,
    /// The hash over all of them.
    pub hash: Hash,
}

/// The root of a complete subtree: the records from `index << level`, `1 << level` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// Levels above the records.
    pub level: u32,
    /// Place in the level, from the left.
    pub index: u64,
}

impl Hash {
    /// The hash of no record at all.
    #[must_use]
    pub fn of_nothing() -> Self {
        Self::of(&[])
    }

    /// The hash of a record's text.
    #[must_use]
    pub fn of_record(text: &[u8]) -> Self {
        Self::of(&[&[0], text])
    }

    /// The hash of a subtree whose halves have these hashes.
    #[must_use]
    pub fn of_children(left: &Self, right: &Self) -> Self {
        Self::of(&[&[1], &left.0, &right.0])
    }

    fn of(parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        parts.iter().for_each(|part| context.update(part));
        let mut hash = [0; HASH_BYTES];
        hash.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Self(hash)
    }

    /// Parses base64 as it stands in a tree's description.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        base64::decode(text)?.try_into().ok().map(Self)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64::encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The level of the largest complete subtree that is smaller than a tree of `size` records, where `size > 1`.
fn split_level(size: u64) -> u32 {
    size.saturating_sub(1).checked_ilog2().unwrap_or(0)
}

/// The complete subtrees that the records `low..high` are a row of, the largest first.
///
/// `low` must be a multiple of a power of two that is not less than `high - low`, as it is for 0 and within proofs.
pub(super) fn row(low: u64, high: u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut low = low;
    while let Some(level) = high.saturating_sub(low).checked_ilog2() {
        nodes.push(Node { level, index: low >> level });
        low += 1 << level;
    }
    nodes
}

/// The stored hashes that the hash of a tree's first `size` records is made of, the largest subtree first.
#[must_use]
pub fn tree_nodes(size: u64) -> Vec<Node> {
    row(0, size.min(MAX_RECORDS))
}

/// The hash of a tree from the hashes of its [`tree_nodes`], in their order.
#[must_use]
pub fn tree_hash(hashes: &[Hash]) -> Hash {
    let folded = hashes.iter().rev().copied().reduce(|right, left| Hash::of_children(&left, &right));
    folded.unwrap_or_else(Hash::of_nothing)
}

/// Checks that the record at place `record`, of hash `hash`, is in `tree`: RFC 6962, section 2.1.1.
///
/// The proof has the hashes of the subtrees beside the way from the record to the root, the lowest first.
///
/// # Errors
/// See [`ProofError`].
pub fn check_record(proof: &[Hash], tree: &Tree, record: u64, hash: &Hash) -> Result<(), ProofError> {
    if record >= tree.size || tree.size > MAX_RECORDS {
        return Err(ProofError::OutOfRange);
    }
    // Which side the record is on at each level, from the root down.
    let (mut place, mut size) = (record, tree.size);
    let mut sides = Vec::new();
    while size > 1 {
        let half = 1 << split_level(size);
        let on_left = place < half;
        sides.push(on_left);
        (place, size) = if on_left { (place, half) } else { (place - half, size - half) };
    }
    if proof.len() != sides.len() {
        return Err(ProofError::Invalid);
    }
    let from_the_record = sides.iter().rev().zip(proof);
    let root = from_the_record.fold(*hash, |hash, (on_left, beside)| join(*on_left, &hash, beside));
    if root == tree.hash { Ok(()) } else { Err(ProofError::Invalid) }
}

/// Checks that `tree` begins with all the records of `older`: RFC 6962, section 2.1.2.
///
/// # Errors
/// See [`ProofError`].
pub fn check_tree(proof: &[Hash], tree: &Tree, older: &Tree) -> Result<(), ProofError> {
    if older.size == 0 || older.size > tree.size || tree.size > MAX_RECORDS {
        return Err(ProofError::OutOfRange);
    }
    let (mut older_size, mut size) = (older.size, tree.size);
    let (mut sides, mut leftmost) = (Vec::new(), true);
    while older_size != size {
        let half = 1 << split_level(size);
        let on_left = older_size <= half;
        sides.push(on_left);
        leftmost &= on_left;
        (older_size, size) = if on_left { (older_size, half) } else { (older_size - half, size - half) };
    }
    // Where both trees meet: the older tree itself, if it is complete, else a subtree whose hash the proof begins with.
    let (meeting, beside) = if leftmost { (&older.hash, proof) } else { proof.split_first().ok_or(ProofError::Invalid)? };
    if beside.len() != sides.len() {
        return Err(ProofError::Invalid);
    }
    let mut roots = (*meeting, *meeting);
    for (on_left, hash) in sides.iter().rev().zip(beside) {
        // What is on the right of the older tree's end is not in the older tree.
        let older_root = if *on_left { roots.0 } else { join(false, &roots.0, hash) };
        roots = (older_root, join(*on_left, &roots.1, hash));
    }
    if roots == (older.hash, tree.hash) { Ok(()) } else { Err(ProofError::Invalid) }
}

fn join(on_left: bool, hash: &Hash, beside: &Hash) -> Hash {
    if on_left { Hash::of_children(hash, beside) } else { Hash::of_children(beside, hash) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 6962's definitions, word for word, over hashes of records.
    pub(in super::super) fn naive_root(records: &[Hash]) -> Hash {
        match records {
            [] => Hash::of_nothing(),
            [one] => *one,
            many => {
                let (left, right) = many.split_at(1 << split_level(many.len() as u64));
                Hash::of_children(&naive_root(left), &naive_root(right))
            }
        }
    }

    fn naive_record_proof(records: &[Hash], place: usize) -> Vec<Hash> {
        if records.len() == 1 {
            return Vec::new();
        }
        let (left, right) = records.split_at(1 << split_level(records.len() as u64));
        let (mut proof, beside) = match place.checked_sub(left.len()) {
            None => (naive_record_proof(left, place), right),
            Some(place) => (naive_record_proof(right, place), left),
        };
        proof.push(naive_root(beside));
        proof
    }

    fn naive_tree_proof(records: &[Hash], older: usize, complete: bool) -> Vec<Hash> {
        if older == records.len() {
            return if complete { Vec::new() } else { vec![naive_root(records)] };
        }
        let (left, right) = records.split_at(1 << split_level(records.len() as u64));
        let (mut proof, beside) = if older <= left.len() {
            (naive_tree_proof(left, older, complete), right)
        } else {
            (naive_tree_proof(right, older - left.len(), false), left)
        };
        proof.push(naive_root(beside));
        proof
    }

    pub(in super::super) fn records(count: u64) -> Vec<Hash> {
        (0..count).map(|i| Hash::of_record(format!("record {i}\n").as_bytes())).collect()
    }

    fn tree(records: &[Hash]) -> Tree {
        Tree { size: records.len() as u64, hash: naive_root(records) }
    }

    #[test]
    fn every_record_of_small_trees_is_proven_and_nothing_else() {
        for size in 1..40 {
            let records = records(size);
            let tree = tree(&records);
            for (i, record) in records.iter().enumerate() {
                let proof = naive_record_proof(&records, i);
                check_record(&proof, &tree, i as u64, record).unwrap();
                for wrong in (0..size + 2).filter(|wrong| *wrong != i as u64) {
                    assert!(check_record(&proof, &tree, wrong, record).is_err(), "{size} {i} {wrong}");
                }
                assert!(check_record(&[proof.as_slice(), &[*record]].concat(), &tree, i as u64, record).is_err());
            }
        }
    }

    #[test]
    fn every_beginning_of_small_trees_is_proven_and_no_fork() {
        for size in 1..40 {
            let records = records(size);
            let newer = tree(&records);
            for older_size in 1..=records.len() {
                let older = tree(&records[..older_size]);
                let proof = naive_tree_proof(&records, older_size, true);
                check_tree(&proof, &newer, &older).unwrap();
                let fork = Tree { hash: Hash::of_record(b"fork"), ..older };
                assert_eq!(check_tree(&proof, &newer, &fork), Err(ProofError::Invalid));
                assert_eq!(check_tree(&[proof.as_slice(), &[newer.hash]].concat(), &newer, &older), Err(ProofError::Invalid));
            }
            assert_eq!(check_tree(&[], &newer, &Tree { size: 0, hash: Hash::of_nothing() }), Err(ProofError::OutOfRange));
            assert_eq!(check_tree(&[], &newer, &Tree { size: size + 1, ..newer }), Err(ProofError::OutOfRange));
        }
    }

    #[test]
    fn the_largest_sizes_do_not_overflow() {
        let tree = Tree { size: MAX_RECORDS, hash: Hash::of_nothing() };
        assert_eq!(tree_nodes(u64::MAX).len(), 63);
        assert_eq!(check_record(&[], &tree, MAX_RECORDS - 1, &tree.hash), Err(ProofError::Invalid));
        assert_eq!(check_record(&[], &Tree { size: u64::MAX, ..tree }, 1, &tree.hash), Err(ProofError::OutOfRange));
        assert_eq!(check_tree(&[], &tree, &Tree { size: MAX_RECORDS - 1, ..tree }), Err(ProofError::Invalid));
    }

    #[test]
    fn a_hash_is_base64_of_32_bytes() {
        let hash = Hash::of_record(b"x");
        assert_eq!(Hash::parse(&hash.to_string()), Some(hash));
        for bad in ["", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "?"] {
            assert_eq!(Hash::parse(bad), None);
        }
    }

    proptest! {
        #[test]
        fn a_row_of_subtrees_has_the_hash_of_the_tree(size in 0_u64..300) {
            let records = records(size);
            let hash_of = |node: Node| {
                let first = usize::try_from(node.index << node.level).unwrap();
                naive_root(&records[first..first + (1 << node.level)])
            };
            let hashes: Vec<_> = tree_nodes(size).into_iter().map(hash_of).collect();
            prop_assert_eq!(tree_hash(&hashes), naive_root(&records));
        }
    }
}
