//! Kubernetes quantities, as far as they must be compared.

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
    use super::millis;

    #[test]
    fn equal_quantities_are_equal() {
        assert_eq!(millis("1"), millis("1000m"));
        assert_eq!(millis("1.5Gi"), millis("1536Mi"));
        assert!(millis("10Gi") > millis("10G"));
        assert_eq!(millis("pear"), None);
        assert_eq!(millis(""), None);
    }
}
