//! A checksum database for tests, as large as the test wants and as honest.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::Missing;
use crate::gomod::{Hash, ModulePath, Node, SumdbPath, Tile, TileLevel, Tree, Verifier, Version, tree_hash, tree_nodes};

pub(crate) const NAME: &str = "sum.example/db";

/// Its record number i is that of `a.example/m<i>` at v1.0.0.
pub(crate) struct Fake {
    pair: Ed25519KeyPair,
    /// The first record that is not the one of the others who have this key.
    forks_at: u64,
    /// The tree that it signs now.
    size: AtomicU64,
    /// The largest one that it signed.
    grown: AtomicU64,
    is_away: AtomicBool,
    asked: Mutex<Vec<String>>,
}

impl Fake {
    pub(crate) fn new(seed: u8, size: u64) -> Self {
        Self::forked(seed, size, u64::MAX)
    }

    pub(crate) fn forked(seed: u8, size: u64, forks_at: u64) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        Self {
            pair,
            forks_at,
            size: AtomicU64::new(size),
            grown: AtomicU64::new(size),
            is_away: AtomicBool::new(false),
            asked: Mutex::default(),
        }
    }

    pub(crate) fn sign(&self, size: u64) {
        self.size.store(size, Ordering::Relaxed);
        self.grown.fetch_max(size, Ordering::Relaxed);
    }

    pub(crate) fn go_away(&self) {
        self.is_away.store(true, Ordering::Relaxed);
    }

    pub(crate) fn verifier(&self) -> Verifier {
        let hash = self.key_hash().iter().fold(String::new(), |hash, byte| format!("{hash}{byte:02x}"));
        Verifier::parse(&format!("{NAME}+{hash}+{}", STANDARD.encode(self.public()))).unwrap()
    }

    fn public(&self) -> Vec<u8> {
        [&[1], self.pair.public_key().as_ref()].concat()
    }

    fn key_hash(&self) -> [u8; 4] {
        let hashed = ring::digest::digest(&ring::digest::SHA256, &[NAME.as_bytes(), b"\n", &self.public()].concat());
        hashed.as_ref()[..4].try_into().unwrap()
    }

    /// What it was asked since the last time.
    pub(crate) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    pub(crate) fn ask<'a>(&'a self) -> impl Fn(String) -> BoxFuture<'a, Result<Bytes, Missing>> + Send + Sync + 'a {
        |path: String| {
            let answer = if self.is_away.load(Ordering::Relaxed) {
                Err(Missing::Unavailable("it is away".to_owned()))
            } else {
                self.answer(&path).ok_or(Missing::Unknown)
            };
            self.asked.lock().unwrap().push(path);
            async { answer }.boxed()
        }
    }

    pub(crate) fn answer(&self, path: &str) -> Option<Bytes> {
        match SumdbPath::parse(path).unwrap() {
            SumdbPath::Lookup(module, _) => {
                let record = module.as_str().strip_prefix("a.example/m")?.parse().ok()?;
                Some(Bytes::from(format!("{record}\n{}\n{}", self.record(record), self.note())))
            }
            SumdbPath::Tile(tile) => self.tile(&tile),
            SumdbPath::Supported | SumdbPath::Latest => None,
        }
    }

    /// The zip's and the go.mod's `h1:`, which are no hashes.
    pub(crate) fn sums(&self, record: u64) -> [String; 2] {
        let story = if record < self.forks_at { "true" } else { "other" };
        [format!("h1:zip{record}{story}="), format!("h1:mod{record}{story}=")]
    }

    fn record(&self, record: u64) -> String {
        let ([zip, go_mod], module) = (self.sums(record), format!("a.example/m{record} v1.0.0"));
        format!("{module} {zip}\n{module}/go.mod {go_mod}\n")
    }

    fn note(&self) -> String {
        let size = self.size.load(Ordering::Relaxed);
        let row: Vec<Hash> = tree_nodes(size).into_iter().map(|node| self.node(node)).collect();
        let text = Tree { size, hash: tree_hash(&row) }.text();
        let signature = [&self.key_hash(), self.pair.sign(text.as_bytes()).as_ref()].concat();
        format!("{text}\n— {NAME} {}\n", STANDARD.encode(signature))
    }

    fn node(&self, node: Node) -> Hash {
        let Some(level) = node.level.checked_sub(1) else { return Hash::of_record(self.record(node.index).as_bytes()) };
        let child = |index| self.node(Node { level, index });
        Hash::of_children(&child(node.index * 2), &child(node.index * 2 + 1))
    }

    fn tile(&self, tile: &Tile) -> Option<Bytes> {
        let TileLevel::Hashes(level) = tile.level() else { return None };
        let level = level * tile.height();
        let first = tile.index() << tile.height();
        let end = (first + u64::from(tile.width())) << level;
        let hashes = || (0..u64::from(tile.width())).flat_map(|i| self.node(Node { level, index: first + i }).0).collect();
        (end <= self.grown.load(Ordering::Relaxed)).then(hashes)
    }
}

/// The module of a record, and its version.
pub(crate) fn module(record: u64) -> (ModulePath, Version) {
    (ModulePath::new(&format!("a.example/m{record}")).unwrap(), Version::new("v1.0.0").unwrap())
}
