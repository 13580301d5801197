//! The command `gomodcache verify`: scrubs a cache folder and says what it found.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::store::{Finding, Observer, Report, Scrub};

const PROGRESS: Duration = Duration::from_millis(500);

/// Whom the output is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// People.
    Text,
    /// Machines: one JSON document.
    Json,
}

/// Scrubs a folder, writes the findings to `out` and, on a terminal, how far it is to standard error. Returns whether
/// everything is whole.
///
/// # Errors
/// The folder can't be read, or nobody takes the output.
pub fn verify(cache_dir: &Path, quarantine: bool, output: Output, out: &mut dyn Write) -> std::io::Result<bool> {
    let scrub = Scrub::new(cache_dir, quarantine)
        .map_err(|error| std::io::Error::new(error.kind(), format!("can't read the cache folder {}: {error}", cache_dir.display())))?;
    let mut progress = Progress { shows: std::io::stderr().is_terminal(), shown: Instant::now() };
    let report = scrub.run(&mut progress);
    if progress.shows {
        let _nobody_watches = write!(std::io::stderr(), "\r\x1b[K");
    }
    match output {
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&report).map_err(std::io::Error::other)?)?,
        Output::Text => write_text(&report, out)?,
    }
    Ok(report.findings.is_empty())
}

/// On a terminal, how far it is.
struct Progress {
    shows: bool,
    shown: Instant,
}

impl Observer for Progress {
    fn seen(&mut self, report: &Report, _length: u64) -> bool {
        if self.shows && self.shown.elapsed() > PROGRESS {
            self.shown = Instant::now();
            let _nobody_watches = write!(std::io::stderr(), "\r{} objects, {:.1} MiB read", report.objects, mebibytes(report.bytes));
        }
        true
    }
}

fn write_text(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    for finding in &report.findings {
        let done = match finding {
            Finding { quarantined: true, .. } => " (moved to .gomodcache/quarantine)",
            Finding { mended: true, .. } => " (written anew)",
            _ => "",
        };
        writeln!(out, "{}: {}{done}", finding.path.display(), finding.problem)?;
    }
    for path in &report.disputed {
        writeln!(
            out,
            "{}: it is what was seen first, and a checksum database says otherwise: right only if its module is private, or no database is \
             used; if one is, the proxy's own scrub asks it",
            path.display()
        )?;
    }
    let Report { objects, bytes, vouched, disputed: _, findings } = report;
    writeln!(
        out,
        "{objects} objects, {:.1} MiB; {vouched} vouched for by a checksum database; {} broken or unreadable",
        mebibytes(*bytes),
        findings.len()
    )
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
