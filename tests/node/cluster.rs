//! The cluster as a test sees it: kubectl, the node's own view, and a pod's network.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// An absolute path of a file of this repository.
pub(crate) fn path_from_top(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs a program that must succeed; its standard output.
pub(crate) fn script(program: &str, arguments: &[&str]) -> String {
    run(program, arguments, None).unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}"))
}

/// Runs a command of the cluster script that must succeed.
pub(crate) fn cluster(arguments: &[&str]) -> String {
    script(&path_from_top("tests/cluster/cluster"), arguments)
}

/// kubectl as the cluster's administrator.
pub(crate) fn kubectl(arguments: &[&str]) -> Result<String, String> {
    let all: Vec<&str> = std::iter::once("kubectl").chain(arguments.iter().copied()).collect();
    run(&path_from_top("tests/cluster/cluster"), &all, None)
}

/// kubectl that must succeed.
pub(crate) fn kubectl_ok(arguments: &[&str]) -> String {
    kubectl(arguments).unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
}

/// A `kubectl wait` or `rollout status` that must succeed; if it does not, what the cluster says about why.
pub(crate) fn kubectl_wait(arguments: &[&str]) {
    let Err(error) = kubectl(arguments) else { return };
    let conditions = r#"jsonpath={range .items[*].status.conditions[*]}{.type}={.status} {.message}{"\n"}{end}"#;
    let seen: Vec<String> = [
        &["get", "nodes", "-o", conditions][..],
        &["get", "pods", "-A", "-o", "wide"],
        &["get", "events", "-A", "--field-selector=type=Warning"],
    ]
    .iter()
    .map(|question| kubectl(question).unwrap_or_else(|error| error))
    .collect();
    panic!("kubectl {arguments:?}: {error}\n{}", seen.join("\n"));
}

/// Applies a manifest.
pub(crate) fn apply(manifest: &str) {
    run(
        &path_from_top("tests/cluster/cluster"),
        &["kubectl", "apply", "--server-side", "--force-conflicts", "-f", "-"],
        Some(manifest.as_bytes()),
    )
    .unwrap_or_else(|error| panic!("apply: {error}\n{manifest}"));
}

/// A shell command in the runner pod that must succeed.
pub(crate) fn runner(command: &str) -> String {
    kubectl_ok(&["-n", "build", "exec", "runner", "--", "sh", "-c", command])
}

/// Writes a file in the runner pod.
pub(crate) fn runner_file(path: &str, content: &[u8]) {
    // An exec may lose the end of its standard input: what arrived is counted.
    let command = format!("cat > {path}; wc -c < {path}");
    let cluster = path_from_top("tests/cluster/cluster");
    let arguments = ["kubectl", "-n", "build", "exec", "-i", "runner", "--", "sh", "-c", &command];
    eventually(&format!("{path} in the runner"), || {
        run(&cluster, &arguments, Some(content)).is_ok_and(|said| said.trim() == content.len().to_string())
    });
}

fn run(program: &str, arguments: &[&str], input: Option<&[u8]>) -> Result<String, String> {
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(input).map_err(|e| e.to_string())?;
    }
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{}: {}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    }
}

/// Waits, at most 60 s, until a claim is true.
pub(crate) fn eventually(claim: &str, mut is_true: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_true() {
        assert!(Instant::now() < end, "not within 60 s: {claim}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// The metrics of a cache's pod: sample name with labels, value.
pub(crate) fn metrics(namespace: &str, cache: &str) -> BTreeMap<String, f64> {
    let path = format!("/api/v1/namespaces/{namespace}/services/{cache}-admin:9090/proxy/metrics");
    kubectl_ok(&["get", "--raw", &path])
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

/// The UID of a cache's one pod that is not being deleted; empty when there is none or more than one.
pub(crate) fn pod_uid(namespace: &str, cache: &str) -> String {
    let selector = format!("app.kubernetes.io/instance={cache}");
    let pods: serde_json::Value =
        serde_json::from_str(&kubectl_ok(&["-n", namespace, "get", "pods", "-l", &selector, "-o", "json"])).unwrap();
    let living: Vec<&str> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .filter_map(|pod| pod["metadata"]["uid"].as_str())
        .collect();
    if let [uid] = living[..] { uid.to_owned() } else { String::new() }
}

/// Whether a TCP connection succeeds from inside the network of a cache's own pod.
pub(crate) fn pod_reaches(namespace: &str, cache: &str, address: &str, port: u16) -> bool {
    let selector = format!("app.kubernetes.io/instance={cache}");
    let id = kubectl_ok(&[
        "-n",
        namespace,
        "get",
        "pods",
        "-l",
        &selector,
        "-o",
        "jsonpath={.items[0].status.containerStatuses[0].containerID}",
    ]);
    let id = id.trim().trim_start_matches("containerd://").to_owned();
    let tasks = cluster(&["node", "ctr", "-n", "k8s.io", "tasks", "ls"]);
    let pid = tasks
        .lines()
        .find(|line| line.starts_with(&id))
        .and_then(|line| line.split_whitespace().nth(1))
        .expect("the container runs")
        .to_owned();
    let connect = format!("</dev/tcp/{address}/{port}");
    let arguments = ["node", "nsenter", "-t", &pid, "-n", "timeout", "1", "bash", "-c", &connect];
    run(&path_from_top("tests/cluster/cluster"), &arguments, None).is_ok()
}
