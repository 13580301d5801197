//! Base64 as Go's `base64.StdEncoding` decodes it: line ends are skipped and the bits that no byte needs may be anything.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const GO: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true).with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// Decodes `text`, or says that Go would not.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    if text.contains(['\r', '\n']) {
        return GO.decode(text.replace(['\r', '\n'], "")).ok();
    }
    GO.decode(text).ok()
}

/// Encodes `bytes`, with padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    GO.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leftovers_of_the_last_byte_and_line_ends_do_not_count() {
        for text in ["/w==", "/x==", "/w\r\n==\n"] {
            assert_eq!(decode(text), Some(vec![0xff]), "{text:?}");
        }
        assert_eq!(encode(&[0xff]), "/w==");
        for bad in ["/w", "/w=", "/w== ", "/w==/w==", "_w=="] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }
}
