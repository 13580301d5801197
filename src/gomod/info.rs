//! What an `.info` file says of a version.

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// The digits of a fraction of a second that a time may have here.
const DIGITS: usize = 9;

/// The fields that a go command reads, as it reads them: their names may be in any case, of one that is there twice the last counts,
/// and `null` says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionInfo {
    /// Canonical.
    pub version: String,
    /// The time of the commit, whose author chose it, as it stands there.
    pub time: Option<String>,
}

impl VersionInfo {
    /// Reads the file.
    ///
    /// # Errors
    /// Not JSON, no version, or a time that is none.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// The time, if it is one that can be reckoned with.
    #[must_use]
    pub fn timestamp(&self) -> Option<Timestamp> {
        let time = self.time.as_deref()?;
        let Some((seconds, rest)) = time.split_once('.') else { return time.parse().ok() };
        let zone = after_digits(rest);
        let fraction = &rest[..rest.len() - zone.len()];
        format!("{seconds}.{}{zone}", fraction.get(..DIGITS).unwrap_or(fraction)).parse().ok()
    }
}

/// Whether this is RFC 3339 to the letter and without leap seconds, all of which every go command reads; it reads a little more, such as
/// one digit for the hour. Some of these, with more digits or at the end of the year 9999, can't be reckoned with here.
fn is_time(text: &str) -> bool {
    let Some((date, rest)) = text.split_at_checked("2024-01-01T00:00:00".len()) else { return false };
    let zone = rest.strip_prefix('.').map(after_digits).filter(|zone| zone.len() + 1 < rest.len()).unwrap_or(rest);
    let [date, time] = [date.get(.."2024-01-01".len()), date.get("2024-01-01T".len()..)];
    let is_day = date.is_some_and(|date| has_form(date, "dddd-dd-dd") && date.parse::<jiff::civil::Date>().is_ok());
    let is_time = time.is_some_and(|time| has_form(time, "dd:dd:dd") && is_clock(time) && number(time, 6) < 60);
    let is_offset = || zone.strip_prefix(['+', '-']).is_some_and(|offset| has_form(offset, "dd:dd") && is_clock(offset));
    is_day && is_time && text.as_bytes().get("2024-01-01".len()) == Some(&b'T') && (zone == "Z" || is_offset())
}

/// Whether the text is as the form, in which a `d` is a digit.
fn has_form(text: &str, form: &str) -> bool {
    let is_as = |(c, form): (u8, u8)| if form == b'd' { c.is_ascii_digit() } else { c == form };
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(is_as)
}

/// Whether the hours and minutes at the beginning are some that a day has.
fn is_clock(text: &str) -> bool {
    number(text, 0) < 24 && number(text, 3) < 60
}

/// The two digits from there on.
fn number(text: &str, at: usize) -> u32 {
    text.get(at..at + 2).and_then(|digits| digits.parse().ok()).unwrap_or(u32::MAX)
}

fn after_digits(text: &str) -> &str {
    text.trim_start_matches(|c: char| c.is_ascii_digit())
}

impl<'de> Deserialize<'de> for VersionInfo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = VersionInfo;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with a Version")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<VersionInfo, A::Error> {
        let (mut version, mut time) = (None, None);
        while let Some(name) = fields.next_key::<String>()? {
            if name.eq_ignore_ascii_case("Version") {
                version = fields.next_value::<Option<String>>()?.or(version);
            } else if name.eq_ignore_ascii_case("Time") {
                // Go doesn't read escapes in a time, and neither does a borrowed string.
                let next = fields.next_value::<Option<&str>>()?;
                if let Some(wrong) = next.filter(|time| !is_time(time)) {
                    return Err(Error::custom(format_args!("the Time {wrong:?} is none such as 2024-01-01T00:00:00Z")));
                }
                time = next.map(str::to_owned).or(time);
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        let version = version.ok_or_else(|| Error::missing_field("Version"))?;
        Ok(VersionInfo { version, time })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_may_be_in_any_case_the_last_counts_and_others_are_nothing_to_us() {
        let info = VersionInfo::parse(br#"{"version":"v1.0.0","time":"2024-01-01T00:00:00Z","origin":{"version":1}}"#).unwrap();
        let other = br#"{"Version":"v9.9.9","vErSion":"v1.0.0","Version":null,"Time":"2024-01-01T02:00:00+02:00"}"#;
        let other = VersionInfo::parse(other).unwrap();
        assert_eq!((&info.version, info.timestamp()), (&other.version, other.timestamp()));
        assert_eq!(info.timestamp(), "2024-01-01T00:00:00Z".parse().ok());
        assert_eq!(VersionInfo::parse(br#"{"Version":"v1.0.0"}"#).unwrap().time, None);
        assert!(VersionInfo::parse(br#"{"Time":"2024-01-01T00:00:00Z"}"#).unwrap_err().to_string().contains("Version"));
        for wrong in [br#"["v1.0.0"]"#.as_slice(), br#"{"Version":1}"#, br#"{"Version":"v1.0.0"}x"#, b"null", b""] {
            assert!(VersionInfo::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_time_that_cannot_be_reckoned_with_fails_only_who_reckons() {
        let timestamp =
            |time: &str| VersionInfo::parse(format!(r#"{{"Version":"v1.0.0","Time":"{time}"}}"#).as_bytes()).unwrap().timestamp();
        assert_eq!(timestamp("2024-01-01T00:00:00.1234567891+02:00"), "2023-12-31T22:00:00.123456789Z".parse().ok());
        assert_eq!(timestamp("2024-01-01T00:00:00.5Z"), "2024-01-01T00:00:00.5Z".parse().ok());
        assert_eq!(timestamp("9999-12-31T23:59:59Z"), None);
    }

    #[test]
    fn a_time_that_a_go_command_refuses_is_refused() {
        for time in [
            "",
            "yesterday.ü",
            "2024-01-01",
            "2024-02-30T00:00:00Z",
            "2024-01-01 00:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00z",
            "2024-01-01T24:00:00Z",
            "2024-06-30T23:59:60Z",
            "2024-01-01T00:00Z",
            "2024-01-01T00:00:00,5Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00+25:00",
            "2024-01-01T00:00:00+0200",
        ] {
            let error = VersionInfo::parse(format!(r#"{{"Version":"v1.0.0","Time":"{time}"}}"#).as_bytes()).unwrap_err().to_string();
            assert!(error.contains(&format!("the Time {time:?}")), "{error}");
        }
        for times in [r#""Time":"yesterday","Time":"2024-01-01T00:00:00Z""#, r#""Time":"2024-01-01T00:00:0\u0030Z""#] {
            assert!(VersionInfo::parse(format!(r#"{{"Version":"v1.0.0",{times}}}"#).as_bytes()).is_err(), "{times}");
        }
    }
}
