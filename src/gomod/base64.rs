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
