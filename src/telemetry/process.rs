//! What the process takes of the machine, under the names that every Prometheus client gives it.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Registry};
use rustix::time::{ClockId, clock_gettime};

/// Reads `/proc/self` when it is asked.
struct Process {
    cpu: Counter,
    resident: Gauge,
    anonymous: Gauge,
    descriptors: Gauge,
    started: Gauge,
}

/// Registers them.
///
/// # Errors
/// A name is taken.
pub fn register_process(registry: &Registry) -> Result<(), prometheus::Error> {
    let gauge = |name: &str, help: &str| Gauge::new(name, help);
    let process = Process {
        cpu: Counter::new("process_cpu_seconds_total", "Seconds of processor time.")?,
        resident: gauge("process_resident_memory_bytes", "Bytes of memory, files that are mapped included.")?,
        anonymous: gauge("process_anonymous_memory_bytes", "Bytes of memory that are the process's own.")?,
        descriptors: gauge("process_open_fds", "Open files and connections.")?,
        started: gauge("process_start_time_seconds", "When it was started, in seconds since 1970.")?,
    };
    process.started.set(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    registry.register(Box::new(process))
}

impl Process {
    fn all(&self) -> [&dyn Collector; 5] {
        [&self.cpu, &self.resident, &self.anonymous, &self.descriptors, &self.started]
    }

    fn look(&self) {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        #[allow(clippy::cast_precision_loss, reason = "seconds of a process's life")]
        let seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
        self.cpu.inc_by((seconds - self.cpu.get()).max(0.0));
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (gauge, key) in [(&self.resident, "VmRSS:"), (&self.anonymous, "RssAnon:")] {
            let kibibytes = status.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
            gauge.set(kibibytes.unwrap_or_default() * 1024.0);
        }
        let descriptors = fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or_default();
        self.descriptors.set(f64::from(u32::try_from(descriptors).unwrap_or(u32::MAX)));
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(|metric| metric.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.look();
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}
