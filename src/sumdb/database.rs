//! A checksum database as a client sees it: what go.sum must say of a version, believed only with a signature and a proof.
//!
//! Every answer carries a signed tree. The newest one is remembered on the volume: a tree that does not begin with it, or
//! that it does not begin with, is a database that tells different clients different things.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use tokio::sync::Mutex;

use crate::gomod::{
    GO_TILE_HEIGHT, HASH_BYTES, Hash, Lookup, ModulePath, Note, PrefixPlan, RecordPlan, SumdbPath, Tile, TileLevel, Tree, Verifier, Version,
};
use crate::store::Store;

/// Of look-ups and tiles, in memory.
const RECENT_BYTES: u64 = 4 << 20;
/// Of tiles that were proven, in memory.
const PROVEN_BYTES: u64 = 4 << 20;
/// Of notes that were checked, in memory. Whoever relays one may add lines to it.
const BELIEVED_BYTES: u64 = 1 << 20;
/// How many versions' sums are in memory.
const MAX_SUMS: u64 = 1_024;
/// How long sums, and what no proof has checked, are taken from memory.
const RECENT: Duration = Duration::from_secs(60);

/// Why there are bytes of the database or not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// It says that it has none: 404 or 410.
    #[error("the checksum database does not know it")]
    Unknown,
    /// It can't be asked now.
    #[error("{0}")]
    Unavailable(String),
    /// It answered with something that no honest database signs.
    #[error("the checksum database can't be believed: {0}")]
    Dishonest(String),
}

/// How the database is asked: a path below its root.
pub type Ask<'a> = dyn Fn(String) -> BoxFuture<'a, Result<Bytes, Missing>> + Send + Sync + 'a;

/// What go.sum must say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// `h1:` of the zip.
    pub zip: Option<String>,
    /// `h1:` of the go.mod file.
    pub go_mod: Option<String>,
}

/// One database.
#[derive(Debug)]
pub struct Database {
    verifier: Verifier,
    store: Store,
    latest: Mutex<Option<Tree>>,
    /// What was asked a moment ago, by path: neighbours share tiles.
    recent: moka::future::Cache<String, Bytes>,
    /// What was proven a moment ago, by the look-up's path: zip and go.mod of a version share it.
    sums: moka::future::Cache<String, Sums>,
    /// Tiles as they were proven. They are the same in every tree that belongs to the newest one.
    proven: moka::sync::Cache<Tile, Bytes>,
    /// Notes whose signature was checked and whose tree the newest one begins with: most answers carry the same.
    believed: moka::sync::Cache<Bytes, ()>,
}

impl Database {
    /// Takes up where the volume left off.
    #[must_use]
    pub fn new(verifier: Verifier, store: Store) -> Self {
        let weigh = |path: &String, bytes: &Bytes| u32::try_from(path.len() + bytes.len()).unwrap_or(u32::MAX);
        let recent = moka::future::Cache::builder().weigher(weigh).max_capacity(RECENT_BYTES).time_to_live(RECENT).build();
        let sums = moka::future::Cache::builder().max_capacity(MAX_SUMS).time_to_live(RECENT).build();
        let weigh = |_: &Tile, bytes: &Bytes| u32::try_from(size_of::<Tile>() + bytes.len()).unwrap_or(u32::MAX);
        let proven = moka::sync::Cache::builder().weigher(weigh).max_capacity(PROVEN_BYTES).build();
        let weigh = |note: &Bytes, (): &()| u32::try_from(note.len()).unwrap_or(u32::MAX);
        let believed = moka::sync::Cache::builder().weigher(weigh).max_capacity(BELIEVED_BYTES).build();
        let database = Self { verifier, store, latest: Mutex::const_new(None), recent, sums, proven, believed };
        let note = std::fs::read(database.latest_file()).ok();
        let latest = note.and_then(|note| database.tree(&note).ok());
        Self { latest: Mutex::new(latest), ..database }
    }

    /// What go.sum must say of a version, proven.
    ///
    /// # Errors
    /// See [`Missing`].
    pub async fn sums(&self, module: &ModulePath, version: &Version, ask: &Ask<'_>) -> Result<Sums, Missing> {
        let path = SumdbPath::Lookup(module.clone(), version.clone()).escaped();
        let prove = async { self.prove(self.get(&path, ask).await?, module, version, ask).await };
        self.sums.try_get_with_by_ref(&path, prove).await.map_err(|error| (*error).clone())
    }

    /// What a client of the relay gets, and whether it is proven. What is not is neither kept on the volume nor for long:
    /// the client checks for itself.
    ///
    /// # Errors
    /// See [`Missing`]; a look-up that contradicts what is known is [`Missing::Dishonest`].
    pub async fn relay(&self, asked: &SumdbPath, ask: &Ask<'_>) -> Result<(Bytes, bool), Missing> {
        match asked {
            SumdbPath::Lookup(module, version) => {
                let answer = self.get(&asked.escaped(), ask).await?;
                if tokio::fs::try_exists(self.file(&asked.escaped())).await.unwrap_or_default() {
                    return Ok((answer, true));
                }
                match self.prove(answer.clone(), module, version, ask).await {
                    Ok(_) => Ok((answer, true)),
                    Err(Missing::Unavailable(_) | Missing::Unknown) => Ok((answer, false)),
                    Err(dishonest) => Err(dishonest),
                }
            }
            SumdbPath::Tile(tile) => match self.kept_tile(tile).await {
                Some(kept) => Ok((kept, true)),
                None => self.get(&asked.escaped(), ask).await.map(|bytes| (bytes, false)),
            },
            SumdbPath::Supported | SumdbPath::Latest => ask(asked.escaped()).await.map(|bytes| (bytes, false)),
        }
    }

    /// Believes an answer, and keeps it then.
    async fn prove(&self, answer: Bytes, module: &ModulePath, version: &Version, ask: &Ask<'_>) -> Result<Sums, Missing> {
        let path = SumdbPath::Lookup(module.clone(), version.clone()).escaped();
        let sums = self.believe(&answer, module, version, ask).await;
        match &sums {
            Ok(_) if !self.file(&path).exists() => self.store.commit_later(answer, self.file(&path)),
            Ok(_) => {}
            // Memory must not hold on to what can't be believed.
            Err(_) => self.recent.invalidate(&path).await,
        }
        sums
    }

    /// A tile of the volume, or as much as was asked for of a wider one in its place: every tree that is older than the
    /// newest one known is served from what the newest one needed.
    async fn kept_tile(&self, tile: &Tile) -> Option<Bytes> {
        if tile.level() == TileLevel::Data {
            return None;
        }
        let length = usize::try_from(tile.width()).ok()?.checked_mul(HASH_BYTES)?;
        let full = self.file(&tile.full().to_string());
        let mut candidates = vec![full.clone()];
        let mut folder = full.into_os_string();
        folder.push(".p");
        if let Ok(mut entries) = tokio::fs::read_dir(&folder).await {
            while let Ok(Some(entry)) = entries.next_entry().await {
                let width = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
                if width.is_some_and(|width| width >= tile.width()) {
                    candidates.push(entry.path());
                }
            }
        }
        for candidate in candidates {
            if let Ok(hashes) = tokio::fs::read(candidate).await
                && let Some(wanted) = hashes.get(..length)
            {
                return Some(Bytes::copy_from_slice(wanted));
            }
        }
        None
    }

    /// Checks signature and proof of an answer.
    async fn believe(&self, answer: &Bytes, module: &ModulePath, version: &Version, ask: &Ask<'_>) -> Result<Sums, Missing> {
        let lookup = Lookup::parse(answer).map_err(|e| dishonest(&e))?;
        let tree = self.newest(lookup.note, ask).await?;
        let proven = match self.prove_record(tree, lookup.record, ask, true).await {
            // A tile on the volume may be torn or stale: once more without them.
            Err(Missing::Dishonest(_)) => self.prove_record(tree, lookup.record, ask, false).await?,
            proven => proven?,
        };
        if proven != Hash::of_record(lookup.text.as_bytes()) {
            return Err(Missing::Dishonest("the record is not the one in its tree".to_owned()));
        }
        let (zip, go_mod) = lookup.hashes(module.as_str(), version.as_str());
        Ok(Sums { zip: zip.map(str::to_owned), go_mod: go_mod.map(str::to_owned) })
    }

    /// From memory, from the volume, or by asking: once, however many want it at the same time.
    async fn get(&self, path: &str, ask: &Ask<'_>) -> Result<Bytes, Missing> {
        let load = async {
            match tokio::fs::read(self.file(path)).await {
                Ok(kept) => Ok(Bytes::from(kept)),
                Err(_) => ask(path.to_owned()).await,
            }
        };
        self.recent.try_get_with_by_ref(path, load).await.map_err(|error| (*error).clone())
    }

    /// Checks a signed tree against the newest one, and returns the newer of the two.
    async fn newest(&self, note: &[u8], ask: &Ask<'_>) -> Result<Tree, Missing> {
        let mut latest = self.latest.lock().await;
        if let Some(known) = latest.filter(|_| self.believed.contains_key(note)) {
            return Ok(known);
        }
        let tree = self.tree(note)?;
        let newest = self.newer(tree, note, &mut latest, ask).await?;
        self.believed.insert(Bytes::copy_from_slice(note), ());
        Ok(newest)
    }

    /// Checks a tree against the newest one, which it becomes if it is newer.
    async fn newer(&self, tree: Tree, note: &[u8], latest: &mut Option<Tree>, ask: &Ask<'_>) -> Result<Tree, Missing> {
        let Some(known) = *latest else {
            *latest = Some(tree);
            self.store.commit_later(Bytes::copy_from_slice(note), self.latest_file());
            return Ok(tree);
        };
        if known == tree {
            return Ok(tree);
        }
        let (newer, older) = if tree.size > known.size { (tree, known) } else { (known, tree) };
        let plan = PrefixPlan::new(newer, GO_TILE_HEIGHT, older).map_err(|e| dishonest(&e))?;
        let mut tiles = self.tiles(plan.tiles(), ask, true).await?;
        if plan.prove(&tiles).is_err() {
            tiles = self.tiles(plan.tiles(), ask, false).await?;
            plan.prove(&tiles).map_err(|e| {
                tracing::error!(database = self.verifier.name(), known = %known.text(), other = %tree.text(), "the database has forked");
                Missing::Dishonest(format!("its tree of {} records and the one of {} do not belong together: {e}", tree.size, known.size))
            })?;
        }
        plan.tiles().iter().zip(&tiles).for_each(|(tile, bytes)| self.keep(tile, bytes));
        if newer == tree {
            *latest = Some(tree);
            self.store.commit_later(Bytes::copy_from_slice(note), self.latest_file());
        }
        Ok(newer)
    }

    async fn prove_record(&self, tree: Tree, record: u64, ask: &Ask<'_>, use_kept: bool) -> Result<Hash, Missing> {
        let plan = RecordPlan::new(tree, GO_TILE_HEIGHT, record).map_err(|e| dishonest(&e))?;
        let all = join_all(plan.tiles().iter().map(|tile| async move {
            match self.proven.get(tile).filter(|_| use_kept) {
                Some(bytes) => Ok((bytes, true)),
                None => Ok((self.tile(tile, ask, use_kept).await?, false)),
            }
        }));
        let all = all.await.into_iter().collect::<Result<Vec<_>, Missing>>()?;
        let (tiles, proven): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        let hash = plan.prove_beyond(&proven, &tiles).map_err(|e| dishonest(&e))?;
        for ((tile, bytes), _) in plan.tiles().iter().zip(&tiles).zip(proven).filter(|(_, proven)| !proven) {
            self.keep(tile, bytes);
        }
        Ok(hash)
    }

    async fn tiles(&self, tiles: &[Tile], ask: &Ask<'_>, use_kept: bool) -> Result<Vec<Bytes>, Missing> {
        let all = join_all(tiles.iter().map(|tile| self.tile(tile, ask, use_kept))).await;
        all.into_iter().collect()
    }

    async fn tile(&self, tile: &Tile, ask: &Ask<'_>, use_kept: bool) -> Result<Bytes, Missing> {
        let get = async |path: String| if use_kept { self.get(&path, ask).await } else { ask(path).await };
        if use_kept && tile.is_partial() && self.file(&tile.full().to_string()).exists() {
            return get(tile.full().to_string()).await;
        }
        match get(tile.to_string()).await {
            Ok(bytes) => Ok(bytes),
            // A partial tile may be gone once the full one is there.
            Err(error) if tile.is_partial() => get(tile.full().to_string()).await.map_err(|_| error),
            Err(Missing::Unknown) => Err(Missing::Dishonest(format!("it has no {tile}, which its own tree needs"))),
            Err(error) => Err(error),
        }
    }

    /// Keeps a tile that a proof has checked, and not what a full one in its place has beyond it.
    fn keep(&self, tile: &Tile, bytes: &Bytes) {
        let length = usize::try_from(tile.width()).unwrap_or_default() * HASH_BYTES;
        let bytes = bytes.slice(..length.min(bytes.len()));
        let file = self.file(&tile.to_string());
        self.proven.insert(*tile, bytes.clone());
        if !file.exists() {
            self.store.commit_later(bytes, file);
        }
    }

    fn tree(&self, note: &[u8]) -> Result<Tree, Missing> {
        let note = Note::open(note, std::slice::from_ref(&self.verifier)).map_err(|e| dishonest(&e))?;
        Tree::parse(&note.text).map_err(|e| dishonest(&e))
    }

    fn file(&self, path: &str) -> PathBuf {
        self.store.sumdb_path(self.verifier.name(), path)
    }

    fn latest_file(&self) -> PathBuf {
        self.file("latest")
    }
}

fn dishonest(error: &dyn std::fmt::Display) -> Missing {
    Missing::Dishonest(error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::FutureExt;

    use super::*;
    use crate::telemetry::Metrics;

    const KEY: &str = "sum.example/db+9ec6ab89+ATPaWbMTM3SBxphpqrNCUkP6/tyJp/ULbQ5yQu4IC9Tb";

    fn database(folder: &std::path::Path) -> Database {
        let store = Store::open(folder, None, &Arc::new(Metrics::new().unwrap())).unwrap();
        Database::new(Verifier::parse(KEY).unwrap(), store)
    }

    fn tile(path: &str) -> SumdbPath {
        SumdbPath::parse(path).unwrap()
    }

    #[tokio::test]
    async fn a_narrow_tile_is_the_beginning_of_a_wider_one_that_is_here() {
        let folder = tempfile::tempdir().unwrap();
        let database = database(folder.path());
        let ask = |_: String| async { Err(Missing::Unknown) }.boxed();
        let hashes: Vec<u8> = (0..=255_u8).flat_map(|i| [i; HASH_BYTES]).collect();
        let wide = database.file("tile/8/0/000.p/9");
        std::fs::create_dir_all(wide.parent().unwrap()).unwrap();
        std::fs::write(&wide, &hashes[..9 * HASH_BYTES]).unwrap();
        let (bytes, proven) = database.relay(&tile("tile/8/0/000.p/7"), &ask).await.unwrap();
        assert!(proven && bytes == hashes[..7 * HASH_BYTES]);
        assert_eq!(database.relay(&tile("tile/8/0/000.p/10"), &ask).await, Err(Missing::Unknown));
        std::fs::write(database.file("tile/8/0/000"), &hashes).unwrap();
        assert_eq!(database.relay(&tile("tile/8/0/000.p/200"), &ask).await.unwrap().0.len(), 200 * HASH_BYTES);
        assert_eq!(database.relay(&tile("tile/8/data/000"), &ask).await, Err(Missing::Unknown));
    }

    #[test]
    fn of_a_full_tile_in_the_place_of_a_partial_one_only_what_was_proven_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let database = database(folder.path());
        let partial: Tile = "tile/8/0/000.p/9".parse().unwrap();
        let full: Vec<u8> = (0..=255_u8).flat_map(|i| [i; HASH_BYTES]).collect();
        database.keep(&partial, &Bytes::from(full.clone()));
        assert_eq!(database.proven.get(&partial).unwrap(), full[..9 * HASH_BYTES]);
        let (kept, other) = (database.file("tile/8/0/000.p/9"), database.file("tile/8/0/000"));
        // With it the store, which commits before it ends.
        drop(database);
        assert_eq!(std::fs::read(kept).unwrap(), full[..9 * HASH_BYTES]);
        assert!(!other.exists());
    }

    #[tokio::test]
    async fn what_nobody_proved_passes_through_and_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let asked = AtomicU32::new(0);
        let ask = |_: String| {
            asked.fetch_add(1, Ordering::Relaxed);
            async { Ok(Bytes::from_static(&[7; HASH_BYTES])) }.boxed()
        };
        for _start in 0..2 {
            let database = database(folder.path());
            for _request in 0..2 {
                assert!(!database.relay(&tile("tile/8/0/000.p/1"), &ask).await.unwrap().1);
            }
        }
        assert_eq!(asked.into_inner(), 2, "for a moment it is in memory");
        let lookup = tile("lookup/corp.example/tea@v1.0.0");
        let ask = |_: String| async { Ok(Bytes::from_static(b"1\nno such record\n\nno such note\n")) }.boxed();
        let refused = database(folder.path()).relay(&lookup, &ask).await;
        assert!(matches!(refused, Err(Missing::Dishonest(_))), "{refused:?}");
    }
}
