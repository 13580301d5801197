//! Tiles: got from where they are, proven, and only then kept.

use bytes::Bytes;
use futures::future::join_all;

use super::Missing;
use super::answers::{Answer, Answers, Ask};
use crate::gomod::{HASH_BYTES, Tile};
use crate::store::kept_tile;

/// Of tiles that were proven, in memory.
const PROVEN_BYTES: u64 = 4 << 20;

/// The tiles of one database.
#[derive(Debug)]
pub(super) struct Tiles {
    answers: Answers,
    /// Tiles as they were proven. They are the same in every tree that belongs to the newest one.
    proven: moka::sync::Cache<Tile, Bytes>,
}

impl Tiles {
    pub(super) fn new(answers: Answers) -> Self {
        let weigh = |_: &Tile, bytes: &Bytes| u32::try_from(size_of::<Tile>() + bytes.len()).unwrap_or(u32::MAX);
        Self { answers, proven: moka::sync::Cache::builder().weigher(weigh).max_capacity(PROVEN_BYTES).build() }
    }

    /// Gets the tiles of a plan, proves with them, and keeps them. `prove` hears which of them were proven before.
    pub(super) async fn prove<T>(
        &self,
        tiles: &[Tile],
        prove: impl Fn(&[bool], &[Bytes]) -> Result<T, Missing> + Sync,
        ask: &Ask<'_>,
    ) -> Result<T, Missing> {
        match self.prove_once(tiles, &prove, ask, true).await {
            // What is here may be damaged: once more without it. A fork is shown by tiles that are whole.
            Err(Missing::Dishonest(_)) => self.prove_once(tiles, &prove, ask, false).await,
            proven => proven,
        }
    }

    async fn prove_once<T>(
        &self,
        tiles: &[Tile],
        prove: &(impl Fn(&[bool], &[Bytes]) -> Result<T, Missing> + Sync),
        ask: &Ask<'_>,
        use_kept: bool,
    ) -> Result<T, Missing> {
        let all = join_all(tiles.iter().map(|tile| async move {
            match self.proven.get(tile).filter(|_| use_kept) {
                Some(bytes) => Ok((Answer { bytes, is_kept: true }, true)),
                None => Ok((self.get(tile, ask, use_kept).await?, false)),
            }
        }));
        let all = all.await.into_iter().collect::<Result<Vec<_>, Missing>>()?;
        let (answers, was_proven): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        let bytes: Vec<Bytes> = answers.iter().map(|answer| answer.bytes.clone()).collect();
        let proven = prove(&was_proven, &bytes)?;
        for ((tile, answer), _) in tiles.iter().zip(answers).zip(was_proven).filter(|(_, was_proven)| !was_proven) {
            self.keep(tile, answer).await;
        }
        Ok(proven)
    }

    /// What is kept of a tile, or of a wider one in its place: proven once, and perhaps damaged since.
    pub(super) async fn kept(&self, tile: &Tile) -> Option<Bytes> {
        let (folder, tile) = (self.answers.folder().to_owned(), *tile);
        let kept = tokio::task::spawn_blocking(move || kept_tile(&folder, &tile));
        kept.await.ok().flatten().map(Bytes::from)
    }

    async fn get(&self, tile: &Tile, ask: &Ask<'_>, use_kept: bool) -> Result<Answer, Missing> {
        let get = async |path: String| {
            if use_kept { self.answers.get(&path, ask).await } else { self.answers.get_anew(&path, ask).await }
        };
        let full = tile.full().to_string();
        if use_kept && tile.is_partial() && tokio::fs::try_exists(self.answers.file(&full)).await.unwrap_or_default() {
            return get(full).await;
        }
        let mut missing = match get(tile.to_string()).await {
            Ok(answer) => return Ok(answer),
            Err(missing) => missing,
        };
        if tile.is_partial() {
            // It may be gone once the full one is there.
            match get(full).await {
                Ok(answer) => return Ok(answer),
                Err(of_full) if missing == Missing::Unknown => missing = of_full,
                Err(_) => {}
            }
        }
        Err(match missing {
            Missing::Unknown => Missing::Dishonest(format!("it has no {tile}, which its own tree needs")),
            missing => missing,
        })
    }

    /// Keeps a tile that a proof has checked, and not what a full one in its place has beyond it.
    async fn keep(&self, tile: &Tile, answer: Answer) {
        let length = usize::try_from(tile.width()).unwrap_or_default() * HASH_BYTES;
        let bytes = answer.bytes.slice(..length.min(answer.bytes.len()));
        self.proven.insert(*tile, bytes.clone());
        self.answers.keep(&tile.to_string(), Answer { bytes, ..answer }).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::Store;
    use crate::telemetry::Metrics;

    #[tokio::test]
    async fn of_a_full_tile_in_the_place_of_a_partial_one_only_what_was_proven_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), None, &Arc::new(Metrics::new().unwrap())).unwrap();
        let tiles = Tiles::new(Answers::new(store, folder.path().join("db")));
        let partial: Tile = "tile/8/0/000.p/9".parse().unwrap();
        let full: Vec<u8> = (0..=255_u8).flat_map(|i| [i; HASH_BYTES]).collect();
        tiles.keep(&partial, Answer { bytes: Bytes::from(full.clone()), is_kept: false }).await;
        assert_eq!(tiles.proven.get(&partial).unwrap(), full[..9 * HASH_BYTES]);
        let (kept, other) = (tiles.answers.file("tile/8/0/000.p/9"), tiles.answers.file("tile/8/0/000"));
        // With it the store, which commits before it ends.
        drop(tiles);
        assert_eq!(std::fs::read(kept).unwrap(), full[..9 * HASH_BYTES]);
        assert!(!other.exists());
    }
}
