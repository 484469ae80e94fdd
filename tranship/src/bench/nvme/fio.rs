//! The same work by fio: <https://fio.readthedocs.io>.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tranship_transport::memory::Pages;

use super::Sample;
use super::load::Way;
use crate::bench::Error;

/// What stands in results where there is no fio.
pub const MISSING: &str = "fio not found; apt install fio";

/// The program, and its version.
#[derive(Debug, Clone)]
pub struct Fio {
    version: String,
}

#[derive(Deserialize)]
struct Report {
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    error: i64,
    /// Milliseconds.
    job_runtime: f64,
    /// Percent of the runtime.
    usr_cpu: f64,
    sys_cpu: f64,
    read: Direction,
    write: Direction,
}

#[derive(Deserialize)]
struct Direction {
    io_bytes: u64,
    /// Milliseconds.
    runtime: f64,
    total_ios: u64,
    lat_ns: Latency,
}

#[derive(Deserialize)]
struct Latency {
    #[serde(default)]
    percentile: std::collections::BTreeMap<String, f64>,
}

impl Fio {
    /// If it is on the `PATH`.
    #[must_use]
    pub fn find() -> Option<Self> {
        let output = Command::new("fio").arg("--version").stdin(Stdio::null()).output().ok()?;
        let version = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        output.status.success().then_some(Self { version })
    }

    /// `fio-3.33`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Its arguments.
    fn arguments(
        path: &Path,
        memory: &str,
        way: Way,
        size: u64,
        depth: u32,
        time: Duration,
    ) -> Vec<String> {
        let rw = if way == Way::Read { "randread" } else { "write" };
        let mut arguments: Vec<String> = [
            "--name=tranship",
            "--ioengine=io_uring",
            "--direct=1",
            "--fixedbufs",
            "--registerfiles",
            "--norandommap",
            "--randrepeat=0",
            "--time_based",
            "--allow_file_create=0",
            "--fallocate=none",
            "--lat_percentiles=1",
            "--percentile_list=50:99",
            "--output-format=json",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.extend([
            format!("--filename={}", path.display()),
            format!("--mem={memory}"),
            format!("--rw={rw}"),
            format!("--bs={size}"),
            format!("--iodepth={depth}"),
            format!("--runtime={}ms", time.as_millis().max(100)),
        ]);
        arguments
    }

    /// Does the work for `time`, with memory of this kind.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(
        &self,
        path: &Path,
        pages: Pages,
        way: Way,
        size: u64,
        depth: u32,
        time: Duration,
    ) -> Result<Sample, Error> {
        let memory = match pages {
            Pages::Pool => "mmaphuge",
            Pages::Transparent => "malloc",
            _ => "mmapshared",
        };
        let arguments = Self::arguments(path, memory, way, size, depth, time);
        let failed = |why: String| Error::Fio { why };
        let mut command = Command::new("fio");
        if pages == Pages::Transparent {
            // The C library asks for transparent huge pages, which fio itself cannot:
            // https://www.gnu.org/software/libc/manual/html_node/Memory-Allocation-Tunables.html
            command.env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");
        }
        let output = command.args(&arguments).stdin(Stdio::null()).output();
        let output = output.map_err(|error| failed(error.to_string()))?;
        let told = String::from_utf8_lossy(&output.stderr);
        let told = told.lines().next().unwrap_or("nothing was said").to_owned();
        // Notes may come before the report.
        let begin = output.stdout.iter().position(|byte| *byte == b'{').unwrap_or(0);
        let report: Result<Report, _> = serde_json::from_slice(&output.stdout[begin..]);
        let job = report.ok().and_then(|report| report.jobs.into_iter().next());
        match job {
            Some(job) if output.status.success() && job.error == 0 => Ok(job.sample(way)),
            _ => Err(failed(told)),
        }
    }
}

impl Job {
    fn sample(&self, way: Way) -> Sample {
        let direction = if way == Way::Read { &self.read } else { &self.write };
        let percentile =
            |name: &str| direction.lat_ns.percentile.get(name).map_or(0.0, |ns| ns / 1e3);
        let cpu_s = (self.usr_cpu + self.sys_cpu) / 100.0 * self.job_runtime / 1e3;
        let gb = direction.io_bytes as f64 / 1e9;
        Sample {
            gb_per_s: gb / (direction.runtime / 1e3).max(1e-3),
            cpu_s_per_gb: cpu_s / gb.max(1e-9),
            p50_us: percentile("50.000000"),
            p99_us: percentile("99.000000"),
            n: direction.total_ios,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_understood() {
        let side = r#"{"io_bytes": 2000000000, "runtime": 500, "total_ios": 8,
            "lat_ns": {"percentile": {"50.000000": 1500, "99.000000": 9000}}}"#;
        let text = format!(
            r#"{{"jobs": [{{"error": 0, "job_runtime": 500, "usr_cpu": 10.0, "sys_cpu": 30.0,
            "read": {side}, "write": {{"io_bytes": 0, "runtime": 0, "total_ios": 0, "lat_ns": {{}}}}}}]}}"#
        );
        let report: Report = serde_json::from_str(&text).unwrap();
        let sample = report.jobs[0].sample(Way::Read);
        assert_eq!((sample.n, sample.gb_per_s, sample.p50_us, sample.p99_us), (8, 4.0, 1.5, 9.0));
        assert!((sample.cpu_s_per_gb - 0.1).abs() < 1e-9);
    }
}
