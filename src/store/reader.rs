//! Reading a file that others read and write at the same time.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Reads a file by position: its handle is shared with others. Buffered, and a seek keeps the buffer: who reads a zip seeks
/// a few bytes ahead four times a file.
#[derive(Clone, Debug)]
pub struct Reader {
    file: Arc<File>,
    position: u64,
    /// What the file has from `window_at` on.
    window: Vec<u8>,
    window_at: u64,
}

const WINDOW: usize = 64 << 10;

impl Reader {
    pub(super) fn new(file: Arc<File>) -> Self {
        Self { file, position: 0, window: Vec::new(), window_at: 0 }
    }

    /// What the window has from the position on.
    fn ahead(&self) -> &[u8] {
        let skipped = self.position.checked_sub(self.window_at).and_then(|skipped| usize::try_from(skipped).ok());
        skipped.and_then(|skipped| self.window.get(skipped..)).unwrap_or_default()
    }

    fn fill(&mut self) -> io::Result<()> {
        self.window.resize(WINDOW, 0);
        let read = self.file.read_at(&mut self.window, self.position);
        // After an error it must hold nothing.
        self.window.truncate(*read.as_ref().unwrap_or(&0));
        self.window_at = self.position;
        read.map(drop)
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ahead().is_empty() {
            self.fill()?;
        }
        let read = self.ahead().read(buffer)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.file.metadata()?.len().checked_add_signed(by),
        };
        self.position = position.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a position before the beginning"))?;
        Ok(self.position)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gives_the_files_bytes_wherever_it_seeks() {
        let bytes: Vec<u8> = (0..3 * WINDOW as u32).flat_map(u32::to_le_bytes).collect();
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.write_all_at(&bytes, 0).unwrap();
        let (mut reader, mut piece) = (Reader::new(Arc::clone(&file)), [0; 9]);
        let window = WINDOW as u64;
        for at in [0, 5, 4, window - 3, window, 2 * window + 1, 7, window + 2, bytes.len() as u64 - 9] {
            reader.seek(SeekFrom::Start(at)).unwrap();
            reader.read_exact(&mut piece).unwrap();
            assert_eq!(piece, bytes[at as usize..][..9], "at {at}");
        }
        assert_eq!(reader.read(&mut piece).unwrap(), 0, "at the end");
        assert_eq!(reader.seek(SeekFrom::Current(-2)).unwrap(), bytes.len() as u64 - 2);
        let mut all = Vec::new();
        Reader::new(file).read_to_end(&mut all).unwrap();
        assert!(all == bytes);
    }
}
