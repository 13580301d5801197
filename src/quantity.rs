//! Kubernetes quantities, as far as they must be compared or counted.

use std::time::Duration;

/// Whole bytes of a quantity such as `50Gi`.
///
/// # Errors
/// A sentence for the command line.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let bytes = millis(text).map(|millis| millis / 1_000).and_then(|bytes| u64::try_from(bytes).ok());
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "must be a positive number of bytes such as 500Mi or 50Gi".to_owned())
}

/// A duration such as `90m`, `72h` or `14d`.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let seconds = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)]
        .into_iter()
        .find_map(|(unit, seconds)| text.strip_suffix(unit)?.parse::<u32>().ok().map(|n| u64::from(n) * seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("{text:?} is not a duration such as 90m, 72h or 14d"))
}

/// Thousandths, or `None` for what is no quantity.
#[must_use]
pub(crate) fn millis(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-' || c == '+')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor: i128 = match suffix {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "P" => 1_000_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        "Pi" => 1_000 << 50,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 9 {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let fraction: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    Some(whole.checked_mul(factor)? + fraction.checked_mul(factor)? / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_quantities_are_equal() {
        assert_eq!(millis("1"), millis("1000m"));
        assert_eq!(millis("1.5Gi"), millis("1536Mi"));
        assert!(millis("10Gi") > millis("10G"));
        assert_eq!(millis("pear"), None);
        assert_eq!(millis(""), None);
    }

    #[test]
    fn bytes_are_whole_and_positive() {
        assert_eq!(parse_bytes("1.5Gi"), Ok(3 << 29));
        for wrong in ["0", "-1Gi", "1m", "x"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
