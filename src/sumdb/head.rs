//! The newest tree of a database that was seen. A tree that does not begin with it, or that it does not begin with, is a
//! database that tells different clients different things. It is remembered on the volume, where other processes may
//! remember theirs: it only ever becomes a newer one.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;

use super::answers::Ask;
use super::tiles::Tiles;
use super::{Missing, dishonest};
use crate::gomod::{GO_TILE_HEIGHT, Note, PrefixPlan, ProofError, TileError, Tree, Verifier};
use crate::store::Store;

/// Of notes that were checked, in memory. Whoever relays one may add lines to it.
const BELIEVED_BYTES: u64 = 1 << 20;

/// The head of one database's log, as far as it was seen.
#[derive(Debug)]
pub(super) struct Head {
    verifier: Verifier,
    store: Store,
    file: PathBuf,
    newest: Mutex<Option<Tree>>,
    /// One tree at a time is held against the newest one.
    turn: tokio::sync::Mutex<()>,
    /// Notes whose signature was checked and whose tree the newest one begins with: most answers carry the same.
    believed: moka::sync::Cache<Bytes, ()>,
}

impl Head {
    /// Takes up where the volume left off. Blocks.
    pub(super) fn new(verifier: Verifier, store: Store, file: PathBuf) -> Self {
        let weigh = |note: &Bytes, (): &()| u32::try_from(note.len()).unwrap_or(u32::MAX);
        let believed = moka::sync::Cache::builder().weigher(weigh).max_capacity(BELIEVED_BYTES).build();
        let head = Self { verifier, store, file, newest: Mutex::default(), turn: tokio::sync::Mutex::default(), believed };
        // One that can't be read now is read again before another one is believed.
        head.know(head.kept(head.store.read_state(&head.file)).ok().flatten());
        head
    }

    /// The newest tree that was seen.
    pub(super) fn known(&self) -> Option<Tree> {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn know(&self, tree: Option<Tree>) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = tree;
    }

    pub(super) const fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Checks a signed tree against the newest one, and returns the newer of the two.
    pub(super) async fn newest(&self, note: &[u8], tiles: &Tiles, ask: &Ask<'_>) -> Result<Tree, Missing> {
        let believed = || self.known().filter(|_| self.believed.contains_key(note));
        if let Some(known) = believed() {
            return Ok(known);
        }
        let _turn = self.turn.lock().await;
        if let Some(known) = believed() {
            return Ok(known);
        }
        let tree = tree(&self.verifier, note)?;
        let mut known = self.known();
        if known.is_none_or(|known| known.size < tree.size)
            && let Some(kept) = self.kept(self.read().await)?
        {
            // Another process may have seen more since: what it knows comes before what is new.
            known = Some(self.newer(known, kept, tiles, ask).await?);
            self.know(known);
        }
        let newest = self.newer(known, tree, tiles, ask).await?;
        if known != Some(newest) {
            self.know(Some(newest));
            self.keep(note, newest);
        }
        self.believed.insert(Bytes::copy_from_slice(note), ());
        Ok(newest)
    }

    /// The newer of two trees, if it begins with the other.
    async fn newer(&self, known: Option<Tree>, tree: Tree, tiles: &Tiles, ask: &Ask<'_>) -> Result<Tree, Missing> {
        let Some(known) = known.filter(|known| *known != tree) else { return Ok(tree) };
        let (newer, older) = if tree.size > known.size { (tree, known) } else { (known, tree) };
        let plan = PrefixPlan::new(newer, GO_TILE_HEIGHT, older).map_err(|e| dishonest(&e))?;
        let prove = |_: &[bool], tiles: &[Bytes]| {
            plan.prove(tiles).map_err(|error| {
                let reason = format!("its tree of {} records and the one of {} do not belong together: {error}", tree.size, known.size);
                let is_fork = error == TileError::Plan(ProofError::Invalid);
                if is_fork { Missing::Forked(reason) } else { Missing::Dishonest(reason) }
            })
        };
        tiles.prove(plan.tiles(), prove, ask).await.inspect_err(|error| {
            if matches!(error, Missing::Forked(_)) {
                tracing::error!(database = self.verifier.name(), known = %known.text(), other = %tree.text(), "the database has forked");
            }
        })?;
        Ok(newer)
    }

    async fn read(&self) -> io::Result<Option<(Bytes, SystemTime)>> {
        let (store, file) = (self.store.clone(), self.file.clone());
        tokio::task::spawn_blocking(move || store.read_state(&file)).await?
    }

    /// What was read of the volume. The folder is this key's alone, so a note in it that this key did not sign was damaged, and tells
    /// nothing any more. One that can't be read now may tell that the next tree is a fork.
    pub(super) fn kept(&self, read: io::Result<Option<(Bytes, SystemTime)>>) -> Result<Option<Tree>, Missing> {
        let (database, file) = (self.verifier.name(), self.file.display());
        let damage = match read {
            Ok(None) => return Ok(None),
            Ok(Some((note, _))) => match tree(&self.verifier, &note) {
                Ok(tree) => return Ok(Some(tree)),
                Err(error) => error.to_string(),
            },
            Err(error) if matches!(error.kind(), ErrorKind::FileTooLarge | ErrorKind::InvalidData) => error.to_string(),
            Err(error) => return Err(Missing::Unavailable(format!("its newest tree can't be read from {file}: {error}"))),
        };
        tracing::error!(database, %file, damage, "the newest tree is damaged here: another one could pass for it now");
        Ok(None)
    }

    /// Two processes may come here at once, so what stands there is looked at once more when its place is taken.
    fn keep(&self, note: &[u8], newest: Tree) {
        let verifier = self.verifier.clone();
        let may_stay = move |there: &[u8]| tree(&verifier, there).is_ok_and(|there| there.size >= newest.size);
        self.store.commit_later_unless(Bytes::copy_from_slice(note), self.file.clone(), may_stay);
    }
}

/// The tree of a note that this key has signed.
fn tree(verifier: &Verifier, note: &[u8]) -> Result<Tree, Missing> {
    let note = Note::open(note, std::slice::from_ref(verifier)).map_err(|e| dishonest(&e))?;
    Tree::parse(&note.text).map_err(|e| dishonest(&e))
}
