//! A checksum database as a client sees it: what go.sum must say of a version, believed only with a signature and a proof.
//!
//! What was proven is kept, and proven again when it is read: a disk may have damaged it since. What can't be believed then is
//! asked for once more, and replaced.

use std::path::PathBuf;

use bytes::Bytes;

use super::answers::{Answers, Ask, RECENT};
use super::head::Head;
use super::tiles::Tiles;
use super::{Missing, dishonest};
use crate::gomod::{GO_TILE_HEIGHT, Hash, Lookup, ModulePath, RecordPlan, SumdbPath, Tile, TilePlan, Verifier, Version};
use crate::store::Store;

/// How many versions' sums are in memory.
const MAX_SUMS: u64 = 1_024;

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
    answers: Answers,
    tiles: Tiles,
    pub(super) head: Head,
    /// What was proven a moment ago, by the look-up's path: zip and go.mod of a version share it.
    sums: moka::future::Cache<String, Sums>,
}

impl Database {
    /// Takes up where the volume left off. Blocks. Each key has a folder of its own there: under another one none of it could be
    /// proven, and the newest tree of one says nothing about that of another.
    #[must_use]
    pub fn new(verifier: Verifier, store: Store) -> Self {
        let folder = store.sumdb_dir(&format!("{}+{:08x}", verifier.name(), verifier.hash()));
        let answers = Answers::new(store.clone(), folder);
        let (tiles, head) = (Tiles::new(answers.clone()), Head::new(verifier, store, answers.file("latest")));
        let sums = moka::future::Cache::builder().max_capacity(MAX_SUMS).time_to_live(RECENT).build();
        Self { answers, tiles, head, sums }
    }

    /// Whose signature is believed.
    #[must_use]
    pub fn verifier(&self) -> &Verifier {
        self.head.verifier()
    }

    /// Where an answer lies if it is kept.
    #[must_use]
    pub fn file(&self, asked: &SumdbPath) -> PathBuf {
        self.answers.file(&asked.escaped())
    }

    /// What go.sum must say of a version, proven.
    ///
    /// # Errors
    /// See [`Missing`].
    pub async fn sums(&self, module: &ModulePath, version: &Version, ask: &Ask<'_>) -> Result<Sums, Missing> {
        let path = SumdbPath::Lookup(module.clone(), version.clone()).escaped();
        let prove = async { self.look_up(&path, module, version, ask).await?.1 };
        self.sums.try_get_with_by_ref(&path, prove).await.map_err(|error| (*error).clone())
    }

    /// What a client of the relay gets, and whether it is proven. What is not is neither kept on the volume nor for long:
    /// the client checks for itself.
    ///
    /// # Errors
    /// See [`Missing`]; what contradicts what is known is [`Missing::Dishonest`] or [`Missing::Forked`].
    pub async fn relay(&self, asked: &SumdbPath, ask: &Ask<'_>) -> Result<(Bytes, bool), Missing> {
        match asked {
            SumdbPath::Lookup(module, version) => {
                let (answer, sums) = self.look_up(&asked.escaped(), module, version, ask).await?;
                Ok((answer, sums.is_ok()))
            }
            SumdbPath::Tile(tile) => match self.tiles.kept(tile).await {
                Some(kept) => self.relay_kept(tile, kept, ask).await,
                None => self.answers.get(&asked.escaped(), ask).await.map(|answer| (answer.bytes, false)),
            },
            SumdbPath::Supported | SumdbPath::Latest => ask(asked.escaped()).await.map(|bytes| (bytes, false)),
        }
    }

    /// A look-up, and what it proves; or why that can't be told now.
    async fn look_up(
        &self,
        path: &str,
        module: &ModulePath,
        version: &Version,
        ask: &Ask<'_>,
    ) -> Result<(Bytes, Result<Sums, Missing>), Missing> {
        let mut answer = self.answers.get(path, ask).await?;
        let mut sums = self.believe(&answer.bytes, module, version, ask).await;
        if let Err(Missing::Dishonest(reason)) = &sums
            && answer.is_kept
        {
            tracing::warn!(path, reason, "a look-up on the volume was damaged; asking for it anew");
            self.answers.forget(path).await;
            answer = self.answers.get_anew(path, ask).await?;
            sums = self.believe(&answer.bytes, module, version, ask).await;
        }
        let bytes = answer.bytes.clone();
        match &sums {
            Ok(_) => self.answers.keep(path, answer).await,
            Err(_) => self.answers.forget(path).await,
        }
        match sums {
            Err(dishonest @ (Missing::Dishonest(_) | Missing::Forked(_))) => Err(dishonest),
            sums => Ok((bytes, sums)),
        }
    }

    /// Checks signature and proof of an answer.
    async fn believe(&self, answer: &Bytes, module: &ModulePath, version: &Version, ask: &Ask<'_>) -> Result<Sums, Missing> {
        let lookup = Lookup::parse(answer).map_err(|e| dishonest(&e))?;
        if !lookup.is_of(module.as_str(), version.as_str()) {
            return Err(Missing::Dishonest("the record is of another version".to_owned()));
        }
        let tree = self.head.newest(lookup.note, &self.tiles, ask).await?;
        let plan = RecordPlan::new(tree, GO_TILE_HEIGHT, lookup.record).map_err(|e| dishonest(&e))?;
        let prove = |proven: &[bool], tiles: &[Bytes]| plan.prove_beyond(proven, tiles).map_err(|e| dishonest(&e));
        if self.tiles.prove(plan.tiles(), prove, ask).await? != Hash::of_record(lookup.text.as_bytes()) {
            return Err(Missing::Dishonest("the record is not the one in its tree".to_owned()));
        }
        let (zip, go_mod) = lookup.hashes(module.as_str(), version.as_str());
        Ok(Sums { zip: zip.map(str::to_owned), go_mod: go_mod.map(str::to_owned) })
    }

    /// A tile of which this is kept: proven, or else as it is.
    async fn relay_kept(&self, tile: &Tile, kept: Bytes, ask: &Ask<'_>) -> Result<(Bytes, bool), Missing> {
        // Without a tree, or with one that another process is ahead of, nothing can be proven.
        let Some(plan) = self.head.known().and_then(|newest| TilePlan::new(newest, tile).ok()) else {
            return Ok((ask(tile.to_string()).await.unwrap_or(kept), false));
        };
        let prove = |proven: &[bool], tiles: &[Bytes]| match plan.prove_beyond(proven, tiles) {
            Ok(bytes) => Ok(Bytes::copy_from_slice(bytes)),
            Err(error) => Err(dishonest(&error)),
        };
        match self.tiles.prove(plan.tiles(), prove, ask).await {
            Ok(proven) => Ok((proven, true)),
            Err(Missing::Unavailable(_) | Missing::Unknown) => Ok((kept, false)),
            Err(dishonest) => Err(dishonest),
        }
    }
}
