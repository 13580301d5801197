//! Proofs by hashes and by tiles, against the Go program beside this file.

use gomodcache::gomod::{Hash, PrefixPlan, RecordPlan, Tile, Tree, check_record, check_tree, tree_hash, tree_nodes};
use serde_json::{Value, json};

use crate::oracle::{Answer, Dice, Tally, ask, bytes};

const RECORDS: usize = 3000;

/// The roots of all trees up to [`RECORDS`], by our own arithmetic.
fn roots() -> Vec<Hash> {
    let mut levels = vec![records()];
    while levels.last().unwrap().len() > 1 {
        let above = levels.last().unwrap().as_chunks::<2>().0.iter().map(|[l, r]| Hash::of_children(l, r)).collect();
        levels.push(above);
    }
    let node_hash = |node: gomodcache::gomod::Node| levels[node.level as usize][usize::try_from(node.index).unwrap()];
    (0..=RECORDS as u64).map(|size| tree_hash(&tree_nodes(size).into_iter().map(node_hash).collect::<Vec<_>>())).collect()
}

fn records() -> Vec<Hash> {
    (0..RECORDS).map(|i| Hash::of_record(format!("record {i}\n").as_bytes())).collect()
}

fn tree(roots: &[Hash], size: usize) -> Tree {
    Tree { size: size as u64, hash: roots[size] }
}

/// A size, mostly one where something changes, and a number below it.
fn size_and_place(dice: &mut Dice) -> (usize, usize) {
    let size =
        if dice.one_in(2) { 1 + dice.below(RECORDS) } else { dice.pick(&[1, 2, 3, 7, 8, 255, 256, 257, 511, 512, 2048, 2049, 3000]) };
    (size, if dice.one_in(4) { size - 1 } else { dice.below(size) })
}

#[test]
fn proofs_are_checked_as_go_checks_them() {
    let (roots, records) = (roots(), records());
    let go_roots = ask(&[json!({"Op": "roots", "Size": RECORDS})]);
    assert_eq!(go_roots[0].names(), roots.iter().map(Hash::to_string).collect::<Vec<_>>());

    let mut dice = Dice(6);
    let cases: Vec<_> = (0..1500).map(|i| (i % 2 == 0, size_and_place(&mut dice))).collect();
    let prove = |(is_record, (size, place)): &(bool, (usize, usize))| {
        let (op, older) = if *is_record { ("prove_record", *place) } else { ("prove_tree", place + 1) };
        json!({"Op": op, "Size": size, "Older": older})
    };
    let proofs = ask(&cases.iter().map(prove).collect::<Vec<_>>());
    let mut checks = Vec::new();
    for ((is_record, (size, place)), proof) in cases.into_iter().zip(&proofs) {
        assert!(proof.ok);
        let good: Vec<Hash> = proof.names().iter().map(|hash| Hash::parse(hash).unwrap()).collect();
        for lie in 0..4 {
            let (mut tree, mut place, mut proof) = (tree(&roots, size), place, good.clone());
            let mut hash = if is_record { records[place] } else { roots[place + 1] };
            match (lie, dice.below(6)) {
                (0, _) => {}
                (_, 0) => tree.size = dice.below(RECORDS) as u64,
                (_, 1) => place = dice.below(RECORDS - 1),
                (_, 2) => hash.0[dice.below(32)] ^= 1,
                (_, 3) => tree.hash.0[dice.below(32)] ^= 128,
                (_, 4) if !proof.is_empty() => {
                    let i = dice.below(proof.len());
                    if dice.one_in(2) {
                        proof.remove(i);
                    } else {
                        proof[i].0[dice.below(32)] ^= 1;
                    }
                }
                _ => proof.insert(dice.below(proof.len() + 1), records[0]),
            }
            let older = if is_record { place } else { place + 1 };
            checks.push((is_record, tree, Tree { size: older as u64, hash }, proof));
        }
    }
    let check = |(is_record, tree, older, proof): &(bool, Tree, Tree, Vec<Hash>)| {
        let proof: Vec<_> = proof.iter().map(Hash::to_string).collect();
        let op = if *is_record { "check_record" } else { "check_tree" };
        json!({"Op": op, "Size": tree.size, "Hash": tree.hash.to_string(), "Older": older.size, "Other": older.hash.to_string(), "Proof": proof})
    };
    let mut tally = Tally::default();
    for ((is_record, tree, older, proof), go) in checks.iter().zip(ask(&checks.iter().map(check).collect::<Vec<_>>())) {
        let ours = if *is_record { check_record(proof, tree, older.size, &older.hash) } else { check_tree(proof, tree, older) };
        assert_eq!(ours.is_ok(), go.ok, "record {is_record}, {tree:?}, {older:?}, {proof:?}: Go says {:?}", go.kind);
        tally.count(go.ok);
    }
    tally.assert_at_least(1500, 4000);
}

/// One thing to prove by tiles.
enum Plan {
    Record(RecordPlan),
    Prefix(PrefixPlan),
}

impl Plan {
    fn tiles(&self) -> Vec<String> {
        let tiles = match self {
            Self::Record(plan) => plan.tiles(),
            Self::Prefix(plan) => plan.tiles(),
        };
        tiles.iter().map(Tile::to_string).collect()
    }

    /// The proven hash, or the older tree's.
    fn prove(&self, tiles: &[Vec<u8>], older: &Tree) -> Option<String> {
        match self {
            Self::Record(plan) => plan.prove(tiles).ok().map(|hash| hash.to_string()),
            Self::Prefix(plan) => plan.prove(tiles).ok().map(|()| older.hash.to_string()),
        }
    }
}

#[test]
fn tiles_prove_what_they_prove_to_go() {
    let (roots, records) = (roots(), records());
    let mut dice = Dice(7);
    // The oracle's log must reach to the end before tiles of any tree in it are read.
    let mut questions = vec![json!({"Op": "roots", "Size": RECORDS})];
    let mut plans = Vec::new();
    for i in 0..800 {
        let ((size, place), height) = (size_and_place(&mut dice), dice.pick(&[1, 2, 3, 8, 8, 8, 30]));
        let newer = tree(&roots, size);
        let (op, plan, older) = if i % 2 == 0 {
            (
                "tiles_record",
                Plan::Record(RecordPlan::new(newer, height, place as u64).unwrap()),
                Tree { size: place as u64, hash: records[place] },
            )
        } else {
            let older = tree(&roots, place);
            ("tiles_tree", Plan::Prefix(PrefixPlan::new(newer, height, older).unwrap()), older)
        };
        questions.push(question(op, &newer, &older, height));
        plans.push((op, plan, newer, older, height));
    }
    let answers = ask(&questions);
    let mut tally = Tally::default();
    let mut changed = Vec::new();
    let mut questions = Vec::new();
    for ((op, plan, newer, older, height), go) in plans.iter().zip(&answers[1..]) {
        assert_eq!(plan.tiles(), go.unverified(), "{op} {newer:?} {older:?} {height}");
        judge(plan, &go.tiles(), older, go, &mut tally);
        for _ in 0..3 {
            let (mut newer, mut older, mut tiles) = (*newer, *older, go.tiles());
            if tiles.is_empty() {
                continue;
            }
            if dice.one_in(6) {
                newer.hash.0[dice.below(32)] ^= 1;
            } else if dice.one_in(6) {
                older.hash.0[dice.below(32)] ^= 1;
            } else {
                let i = dice.below(tiles.len());
                // A whole hash too many. Behind a partial tile it may be what makes it the full one, which we take and Go's
                // reader leaves to its caller.
                if dice.one_in(3) && !plan.tiles()[i].contains(".p/") {
                    tiles[i].extend([0; 32]);
                } else {
                    dice.damage(&mut tiles[i]);
                }
            }
            let place = older.size;
            let plan = match plan {
                Plan::Record(_) => Plan::Record(RecordPlan::new(newer, *height, place).unwrap()),
                Plan::Prefix(_) => Plan::Prefix(PrefixPlan::new(newer, *height, older).unwrap()),
            };
            let mut question = question(op, &newer, &older, *height);
            question["Tiles"] = tiles.iter().map(|tile| bytes(tile)).collect();
            questions.push(question);
            changed.push((plan, tiles, older));
        }
    }
    for ((plan, tiles, older), go) in changed.iter().zip(&ask(&questions)) {
        judge(plan, tiles, older, go, &mut tally);
    }
    tally.assert_at_least(900, 1200);
}

fn question(op: &str, newer: &Tree, older: &Tree, height: u32) -> Value {
    let (hash, other) = (newer.hash.to_string(), older.hash.to_string());
    json!({"Op": op, "Size": newer.size, "Hash": hash, "Older": older.size, "Other": other, "Height": height})
}

fn judge(plan: &Plan, tiles: &[Vec<u8>], older: &Tree, go: &Answer, tally: &mut Tally) {
    assert_eq!(plan.prove(tiles, older).as_ref(), go.names().first(), "{:?}: Go says {:?}", plan.tiles(), go.kind);
    tally.count(go.ok);
}
