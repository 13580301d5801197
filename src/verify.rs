//! The command `gomodcache verify`: scrubs a cache folder and says what it found.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
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
    let mut listener =
        Listener { findings: Vec::new(), disputed: Vec::new(), shows: std::io::stderr().is_terminal(), shown: Instant::now() };
    let report = scrub.run(&mut listener);
    if listener.shows {
        let _nobody_watches = write!(std::io::stderr(), "\r\x1b[K");
    }
    let Listener { findings, disputed, .. } = listener;
    let all = Found { report, disputed, findings };
    match output {
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&all).map_err(std::io::Error::other)?)?,
        Output::Text => write_text(&all, out)?,
    }
    Ok(all.findings.is_empty())
}

/// What a scrub saw, by name.
#[derive(serde::Serialize)]
struct Found {
    #[serde(flatten)]
    report: Report,
    disputed: Vec<PathBuf>,
    findings: Vec<Finding>,
}

/// Remembers what is found and, on a terminal, shows how far it is.
struct Listener {
    findings: Vec<Finding>,
    disputed: Vec<PathBuf>,
    shows: bool,
    shown: Instant,
}

impl Observer for Listener {
    fn found(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    fn disputed(&mut self, path: PathBuf) {
        self.disputed.push(path);
    }

    fn seen(&mut self, report: &Report, _length: u64) -> bool {
        if self.shows && self.shown.elapsed() > PROGRESS {
            self.shown = Instant::now();
            let _nobody_watches = write!(std::io::stderr(), "\r{} objects, {:.1} MiB read", report.objects, mebibytes(report.bytes));
        }
        true
    }
}

fn write_text(found: &Found, out: &mut dyn Write) -> std::io::Result<()> {
    for finding in &found.findings {
        let done = match finding {
            Finding { quarantined: true, .. } => " (moved to .gomodcache/quarantine)",
            Finding { mended: true, .. } => " (written anew)",
            _ => "",
        };
        writeln!(out, "{}: {}{done}", finding.path.display(), finding.problem)?;
    }
    for path in &found.disputed {
        writeln!(
            out,
            "{}: it is what was seen first, and a checksum database says otherwise: right only if its module is private, or no database is \
             used; if one is, the proxy's own scrub asks it",
            path.display()
        )?;
    }
    let Report { objects, bytes, vouched, broken } = &found.report;
    let read = mebibytes(*bytes);
    writeln!(out, "{objects} objects, {read:.1} MiB; {vouched} vouched for by a checksum database; {broken} broken or unreadable")
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
