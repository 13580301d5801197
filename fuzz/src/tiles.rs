//! Tiles and the proofs that are made of them, beside a tree that is computed the slow way.

use crate::gomod::{
    HASH_BYTES, Hash, MAX_RECORDS, PrefixPlan, RecordPlan, Tile, TileLevel, Tree, check_record, check_tree, tree_hash, tree_nodes,
};
use crate::input::Input;

pub fn run(data: &[u8]) {
    if let Ok(path) = std::str::from_utf8(data)
        && let Ok(tile) = path.parse::<Tile>()
    {
        assert_eq!(tile.to_string(), path);
        assert!(tile.width() >= 1 && tile.width() <= 1 << tile.height() && tile.index() <= MAX_RECORDS);
        assert!(!tile.full().is_partial() && tile.full().to_string().parse() == Ok(tile.full()));
        assert!(tile.full().to_string().split('/').all(|element| element.len() <= 4));
    }
    let mut input = Input(data);
    huge(&mut input);
    small(&mut input);
}

/// Trees that nobody has: plans for them are short, made at once, and never for what is not there.
fn huge(input: &mut Input) {
    let (size, place, height) =
        (input.number() >> (input.byte() % 64), input.number() >> (input.byte() % 64), u32::from(input.byte() % 33));
    let tree = Tree { size, hash: Hash([7; HASH_BYTES]) };
    let in_range = place < size && size <= MAX_RECORDS && (1..=30).contains(&height);
    let plan = RecordPlan::new(tree, height, place);
    assert_eq!(plan.is_ok(), in_range, "{size} {place} {height}");
    if let Ok(plan) = plan {
        let levels = 64 / height as usize + 1;
        assert!(plan.tiles().len() <= 64 + levels, "{} tiles", plan.tiles().len());
        tiles_are_of(plan.tiles(), size, height);
        assert!(plan.prove(&vec![[0; HASH_BYTES]; plan.tiles().len()]).is_err());
    }
    let older = Tree { size: place, ..tree };
    let plan = PrefixPlan::new(tree, height, older);
    assert_eq!(plan.is_ok(), place <= size && size <= MAX_RECORDS && (1..=30).contains(&height), "{size} {place} {height}");
    if let Ok(plan) = plan {
        assert!(plan.tiles().len() <= 64 * (64 / height as usize + 2), "{} tiles", plan.tiles().len());
        tiles_are_of(plan.tiles(), size, height);
    }
    let proof = [Hash([1; HASH_BYTES]); 3];
    assert!(check_record(&proof, &tree, place, &Hash([2; HASH_BYTES])).is_err());
    let _either = check_tree(&proof, &tree, &older);
}

fn tiles_are_of(tiles: &[Tile], size: u64, height: u32) {
    for (i, tile) in tiles.iter().enumerate() {
        let TileLevel::Hashes(level) = tile.level() else { panic!("{tile} proves nothing") };
        assert_eq!(Tile::of_tree(height, level, tile.index(), size).as_ref(), Some(tile), "{tile} is not of a tree of {size}");
        assert!(!tiles[..i].contains(tile), "{tile} is asked for twice");
        assert_eq!(tile.to_string().parse().as_ref(), Ok(tile));
    }
}

/// A tree of a few records: what is right is proven, and what is changed anywhere that counts is not.
fn small(input: &mut Input) {
    let (size, height) = (1 + input.below(300), 1 + u32::from(input.byte() % 9));
    let records: Vec<Hash> = (0..size).map(|i| Hash::of_record(&i.to_be_bytes())).collect();
    let tree = Tree { size: size as u64, hash: root(&records) };
    let row: Vec<Hash> = tree_nodes(tree.size).iter().map(|node| root(&records[range(node.level, node.index)])).collect();
    assert_eq!(tree_hash(&row), tree.hash);
    let (record, older) = (input.below(size), 1 + input.below(size));
    let older = Tree { size: older as u64, hash: root(&records[..older]) };
    let record_plan = RecordPlan::new(tree, height, record as u64).unwrap();
    proven(input, &records, record_plan.tiles(), |tiles| record_plan.prove(tiles).is_ok_and(|hash| hash == records[record]));
    let prefix_plan = PrefixPlan::new(tree, height, older).unwrap();
    proven(input, &records, prefix_plan.tiles(), |tiles| prefix_plan.prove(tiles).is_ok());

    let (mut path, mut consistency) = (Vec::new(), Vec::new());
    record_proof(&records, record, &mut path);
    tree_proof(&records, older.size as usize, true, &mut consistency);
    believed(input, &mut path, |proof| check_record(proof, &tree, record as u64, &records[record]).is_ok());
    believed(input, &mut consistency, |proof| check_tree(proof, &tree, &older).is_ok());
}

/// The right tiles prove it, and with one byte changed they prove nothing.
fn proven(input: &mut Input, records: &[Hash], tiles: &[Tile], proves: impl Fn(&[Vec<u8>]) -> bool) {
    let mut bytes: Vec<Vec<u8>> = tiles.iter().map(|tile| content(records, tile, input.byte() & 1 != 0)).collect();
    assert!(proves(&bytes), "{tiles:?} of a tree of {}", records.len());
    if tiles.is_empty() {
        return;
    }
    let changed = input.below(tiles.len());
    let at = input.below(tiles[changed].width() as usize * HASH_BYTES);
    bytes[changed][at] ^= input.byte().max(1);
    assert!(!proves(&bytes), "byte {at} of {} was changed and nobody saw it", tiles[changed]);
}

/// The right proof is believed, and a changed one is not.
fn believed(input: &mut Input, proof: &mut Vec<Hash>, believes: impl Fn(&[Hash]) -> bool) {
    assert!(believes(proof));
    match input.byte() % 3 {
        1 if !proof.is_empty() => drop(proof.remove(input.below(proof.len()))),
        2 if !proof.is_empty() => {
            let at = input.below(proof.len());
            proof[at].0[usize::from(input.byte()) % HASH_BYTES] ^= input.byte().max(1);
        }
        _ => proof.push(Hash([input.byte(); HASH_BYTES])),
    }
    assert!(!believes(proof), "a changed proof was believed");
}

/// RFC 6962, section 2.1.1, by its recursive definition.
fn record_proof(records: &[Hash], record: usize, proof: &mut Vec<Hash>) {
    if records.len() == 1 {
        return;
    }
    let (left, right) = records.split_at(records.len().next_power_of_two() / 2);
    if record < left.len() {
        record_proof(left, record, proof);
        proof.push(root(right));
    } else {
        record_proof(right, record - left.len(), proof);
        proof.push(root(left));
    }
}

/// RFC 6962, section 2.1.2, by its recursive definition.
fn tree_proof(records: &[Hash], older: usize, complete: bool, proof: &mut Vec<Hash>) {
    if older == records.len() {
        if !complete {
            proof.push(root(records));
        }
        return;
    }
    let (left, right) = records.split_at(records.len().next_power_of_two() / 2);
    if older <= left.len() {
        tree_proof(left, older, complete, proof);
        proof.push(root(right));
    } else {
        tree_proof(right, older - left.len(), false, proof);
        proof.push(root(left));
    }
}

fn root(records: &[Hash]) -> Hash {
    match records {
        [] => Hash::of_nothing(),
        [one] => *one,
        _ => {
            let (left, right) = records.split_at(records.len().next_power_of_two() / 2);
            Hash::of_children(&root(left), &root(right))
        }
    }
}

fn range(level: u32, index: u64) -> std::ops::Range<usize> {
    (index as usize) << level..(index as usize + 1) << level
}

/// The bytes of a tile, or of the full one that it became: what is behind its width says nothing about this tree.
fn content(records: &[Hash], tile: &Tile, full: bool) -> Vec<u8> {
    let TileLevel::Hashes(level) = tile.level() else { panic!("{tile}") };
    let first = tile.index() << tile.height();
    let mut bytes: Vec<u8> = (0..u64::from(tile.width())).flat_map(|i| root(&records[range(level * tile.height(), first + i)]).0).collect();
    if full {
        bytes.resize(HASH_BYTES << tile.height(), 0xaa);
    }
    bytes
}
