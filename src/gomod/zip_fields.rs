//! The numbers in a zip, and bytes from a place in it.

use std::io::{self, Read, Seek, SeekFrom};

use super::zip_error::ZipError;

/// Little-endian fields, one after another. Nothing is left when it is `None`.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(field)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// Reads as much of `buffer` as there is at `offset`, and says how much that was. A negative offset is an error, as in Go.
pub(super) fn read_at<R: Read + Seek>(zip: &mut R, offset: i64, buffer: &mut [u8]) -> Result<usize, ZipError> {
    let offset = u64::try_from(offset).map_err(|_| ZipError::Corrupt("an offset before the beginning".to_owned()))?;
    zip.seek(SeekFrom::Start(offset))?;
    Ok(read_full(zip, buffer)?)
}

/// Reads until `buffer` is full or nothing is left.
pub(super) fn read_full<R: Read>(source: &mut R, mut buffer: &mut [u8]) -> io::Result<usize> {
    let mut total = 0;
    while !buffer.is_empty() {
        match source.read(buffer) {
            Ok(0) => break,
            Ok(n) => {
                total += n;
                buffer = buffer.get_mut(n..).unwrap_or_default();
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(total)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn fields_end_where_the_bytes_end() {
        let mut fields = Fields(&[1, 2, 3, 4, 5, 6, 7]);
        assert_eq!((fields.u16(), fields.u32(), fields.u16(), fields.take(2)), (Some(0x0201), Some(0x0605_0403), None, None));
        assert_eq!((fields.take(1), fields.take(0), fields.u64()), (Some(&[7][..]), Some(&[][..]), None));
    }

    #[test]
    fn a_place_before_the_zip_is_refused_and_one_behind_it_has_nothing() {
        let mut zip = Cursor::new([1, 2, 3]);
        let mut buffer = [0; 2];
        assert_eq!(read_at(&mut zip, 2, &mut buffer).unwrap(), 1);
        assert_eq!(read_at(&mut zip, i64::MAX, &mut buffer).unwrap(), 0);
        assert!(matches!(read_at(&mut zip, -1, &mut buffer), Err(ZipError::Corrupt(_))));
    }
}
