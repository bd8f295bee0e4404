//! A real Prometheus scrapes the binary, and finds what its summary says; promtool finds nothing to
//! complain about. Skipped, loudly, where they are not installed; in CI they must be.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

/// A process that does not outlive the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder that does not outlive the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("flowscope-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether the programs are there. Standard error is written directly, for the test harness hides
/// what passing tests print.
fn installed(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs
        .iter()
        .filter(|program| {
            let mut asked = Command::new(program);
            asked.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
            !asked.status().is_ok_and(|status| status.success())
        })
        .collect();
    if missing.is_empty() {
        return true;
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "{missing:?} are not installed, and CI must not skip"
    );
    let _ =
        writeln!(std::io::stderr(), "SKIPPED: {missing:?} are not installed (Debian: prometheus)");
    false
}

fn try_get(addr: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    // 1.0, so that the answer is neither in chunks nor kept alive.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let bad = || std::io::Error::other(format!("not HTTP: {answer}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(bad)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(bad)?;
    Ok((code, body.to_string()))
}

/// Asks until there is an answer that fits.
fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "no {what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The binary after it has read a capture, serving on.
struct Sensor {
    _process: Killed,
    addr: SocketAddr,
    summary: Value,
}

impl Sensor {
    fn hold(folder: &Folder, capture: &Path, workers: &str) -> Self {
        let summary = folder.file("summary.json");
        let mut process = Killed(
            Command::new(env!("CARGO_BIN_EXE_flowscope"))
                .args(["replay", "--metrics", "127.0.0.1:0", "--hold", "--workers", workers])
                .arg("--output")
                .arg(format!("jsonl:{}", folder.file("flows.jsonl").display()))
                .arg("--summary")
                .arg(&summary)
                .arg(capture)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let mut lines = BufReader::new(process.0.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let addr = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended: {said:?}")).unwrap();
            let url = line.split("http://").nth(1).and_then(|url| url.split('/').next());
            if let Some(addr) = url.and_then(|addr| addr.parse().ok()) {
                break addr;
            }
            said.push(line);
        };
        // Read on, or it would block when the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        wait_for("end of the capture", || {
            try_get(addr, "/readyz")
                .ok()
                .filter(|(code, body)| *code == 200 && body.contains("holding"))
        });
        let summary = wait_for("summary", || {
            serde_json::from_str(&std::fs::read_to_string(&summary).ok()?).ok()
        });
        Self { _process: process, addr, summary }
    }

    fn number(&self, name: &str) -> f64 {
        self.summary[name].as_f64().unwrap_or_else(|| panic!("{name} is not in {}", self.summary))
    }

    /// The counts of a list in the summary by their names.
    fn counts(&self, list: &str) -> Vec<(String, f64)> {
        let counts = self.summary[list].as_array().unwrap_or_else(|| panic!("no {list}"));
        let count =
            |of: &Value| (of["name"].as_str().unwrap().into(), of["count"].as_f64().unwrap());
        counts.iter().map(count).collect()
    }
}

fn capture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(name)
}

/// A Prometheus that scrapes one target every second.
struct Prometheus {
    process: Killed,
    addr: SocketAddr,
    log: PathBuf,
}

impl Prometheus {
    fn scraping(folder: &Folder, target: SocketAddr) -> Self {
        let config = folder.file("prometheus.yml");
        std::fs::write(
            &config,
            format!(
                "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: flowscope\n    \
                 static_configs:\n      - targets: ['{target}']\n"
            ),
        )
        .unwrap();
        // Somebody may take the port before Prometheus does; then it ends, and the log says why.
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = folder.file("prometheus.log");
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.file("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { process: Killed(process), addr, log }
    }

    /// The value of an expression that gives one; `None` while there is none.
    fn query(&mut self, expression: &str) -> Option<f64> {
        if let Some(status) = self.process.0.try_wait().unwrap() {
            panic!("Prometheus: {status}\n{}", std::fs::read_to_string(&self.log).unwrap());
        }
        let mut path = String::from("/api/v1/query?query=");
        for byte in expression.bytes() {
            path.push_str(&format!("%{byte:02x}"));
        }
        let (code, body) = try_get(self.addr, &path).ok()?;
        if code != 200 {
            return None;
        }
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["status"], "success", "{expression}: {body}");
        let results = answer["data"]["result"].as_array().unwrap();
        assert!(results.len() <= 1, "{expression} gives {body}");
        results.first()?["value"][1].as_str()?.parse().ok()
    }

    fn expect(&mut self, expression: &str, value: f64) {
        let found = wait_for(expression, || self.query(expression));
        assert_eq!(found, value, "{expression}");
    }
}

#[test]
fn prometheus_finds_what_the_summary_says() {
    if !installed(&["prometheus"]) {
        return;
    }
    for (name, workers) in [("lossy-at-receiver.pcap", "1"), ("refused.pcap", "2")] {
        let folder = Folder::new(&format!("prometheus-{workers}"));
        let sensor = Sensor::hold(&folder, &capture(name), workers);
        let mut prometheus = Prometheus::scraping(&folder, sensor.addr);
        wait_for("scrape", || prometheus.query("up{job=\"flowscope\"}").filter(|up| *up == 1.0));

        assert!(sensor.number("frames") > 0.0 && sensor.number("flows") > 0.0);
        prometheus.expect("flowscope_frames_delivered_total", sensor.number("frames"));
        prometheus.expect("flowscope_packets_unmatched_total", sensor.number("packets_unmatched"));
        prometheus.expect("flowscope_live_packets_total", sensor.number("packets_tracked"));
        prometheus.expect("flowscope_flow_packets_sum", sensor.number("packets_tracked"));
        prometheus.expect("sum(flowscope_flows_created_total)", sensor.number("flows"));
        prometheus.expect("sum(flowscope_flows_ended_total)", sensor.number("flows"));
        prometheus.expect("flowscope_flow_duration_seconds_count", sensor.number("flows"));
        prometheus.expect("flowscope_flow_bytes_bucket{le=\"+Inf\"}", sensor.number("flows"));
        prometheus.expect("sum(flowscope_anomalies_total)", sensor.number("anomalies"));
        prometheus.expect("flowscope_flows_active", 0.0);
        prometheus.expect("sum(flowscope_bytes_total) - sum(flowscope_live_bytes_total)", 0.0);
        prometheus.expect("flowscope_flow_bytes_sum - flowscope_live_bytes_total", 0.0);
        for (l4, flows) in sensor.counts("flows_by_l4") {
            prometheus.expect(&format!("flowscope_flows_created_total{{l4=\"{l4}\"}}"), flows);
        }
        for (reason, flows) in sensor.counts("flows_by_reason") {
            prometheus
                .expect(&format!("flowscope_flows_ended_total{{reason=\"{reason}\"}}"), flows);
        }
        // What the table in docs/OBSERVABILITY.md has is there, and nothing twice.
        for metric in flowscope::obs::METRICS {
            let name = match metric.kind {
                flowscope::obs::MetricKind::Histogram => format!("{}_count", metric.name),
                _ => metric.name.to_string(),
            };
            let series: usize = metric.labels.iter().map(|label| label.values.len()).product();
            prometheus.expect(&format!("count({name})"), series as f64);
        }
    }
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    if !installed(&["promtool"]) {
        return;
    }
    let folder = Folder::new("promtool");
    let sensor = Sensor::hold(&folder, &capture("refused.pcap"), "1");
    let (code, text) = try_get(sensor.addr, "/metrics").unwrap();
    assert_eq!(code, 200);
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success() && out.is_empty() && err.is_empty(), "{out}{err}in\n{text}");
}
