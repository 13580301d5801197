//! A Prometheus of our own, which scrapes as the prometheus-operator would make it, and evaluates the rules.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::stage::{client, eventually};
use crate::tools::{home, of_the_project};

pub(crate) struct Prometheus {
    process: Child,
    url: String,
    _folder: tempfile::TempDir,
}

/// What is scraped: the address, the namespace, and the cache (or nothing for the operator).
pub(crate) type Target<'a> = (&'a str, &'a str, Option<&'a str>);

impl Prometheus {
    /// Every second, with the relabelings of the chart's PodMonitors. `data`: where to leave what was scraped.
    pub(crate) async fn start(targets: &[Target<'_>], data: Option<PathBuf>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let jobs: Vec<Value> = targets.iter().map(job).collect();
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [of_the_project("deploy/rules/gomodcache.rules.yaml")],
            "scrape_configs": jobs,
        });
        let file = folder.path().join("prometheus.yaml");
        std::fs::write(&file, config.to_string()).unwrap();
        let log = folder.path().join("log");
        let process = Command::new(home().join("bin/prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", data.unwrap_or_else(|| folder.path().join("data")).display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut prometheus = Self { process, url: String::new(), _folder: folder };
        eventually("Prometheus listens", async || {
            let log = std::fs::read_to_string(&log).unwrap();
            let address = log.lines().find_map(|line| line.split_once(r#"msg="Listening on" address="#)).map(|(_, address)| address);
            address.is_some_and(|address| {
                prometheus.url = format!("http://{address}");
                true
            })
        })
        .await;
        eventually("Prometheus is ready", async || {
            client().get(format!("{}/-/ready", prometheus.url)).send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        prometheus
    }

    async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let url = url::Url::parse_with_params(&format!("{}/api/v1/{path}", self.url), parameters).unwrap();
        let answer = client().get(url).send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["status"], "success", "{parameters:?}: {answer}");
        answer["data"].clone()
    }

    /// The numbers that a query finds now; what is no number is left out.
    pub(crate) async fn query(&self, query: &str) -> Vec<f64> {
        let data = self.ask("query", &[("query", query)]).await;
        let values = data["result"].as_array().unwrap().iter().map(|series| series["value"][1].as_str().unwrap().parse::<f64>().unwrap());
        values.filter(|value| value.is_finite()).collect()
    }

    /// What a label is among the series of a selector.
    pub(crate) async fn values(&self, label: &str, selector: &str) -> Vec<String> {
        let data = self.ask(&format!("label/{label}/values"), &[("match[]", selector)]).await;
        serde_json::from_value(data).unwrap()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Not killed: what was scraped last must be written.
        let _asked = Command::new("kill").arg(self.process.id().to_string()).status();
        let _reaped = self.process.wait();
    }
}

/// As the prometheus-operator makes it of a PodMonitor: its own labels, of which one is called `endpoint`, then ours.
fn job((address, namespace, cache): &Target) -> Value {
    let (pod, component) =
        cache.map_or_else(|| ("gomodcache-operator-0".to_owned(), "operator"), |cache| (format!("{cache}-proxy-0"), "proxy"));
    let labels = json!({"namespace": namespace, "pod": pod, "container": component, "endpoint": "admin",
        "__meta_kubernetes_pod_label_app_kubernetes_io_instance": cache.unwrap_or_default()});
    json!({"job_name": pod, "static_configs": [{"targets": [address], "labels": labels}], "relabel_configs": relabelings(component)})
}

/// The relabelings of the chart's PodMonitor for a component, as Prometheus spells them.
fn relabelings(component: &str) -> Vec<Value> {
    let chart = of_the_project("charts/gomodcache-operator");
    let values = "goproxy=x,gosumdb=off,image.repository=x,podMonitor.enabled=true";
    let rendered = crate::tools::stdout("helm", &["template", "x", chart.to_str().unwrap(), "--set", values]);
    let monitors = crate::tools::objects(&rendered).into_iter().filter(|object| object["kind"] == "PodMonitor");
    let mut of_component = monitors.filter(|object| object["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] == component);
    let monitor = of_component.next().unwrap_or_else(|| panic!("no PodMonitor for {component}"));
    let relabelings = monitor["spec"]["podMetricsEndpoints"][0]["relabelings"].as_array().cloned().unwrap_or_default();
    let names = |name: &str| match name {
        "sourceLabels" => "source_labels".to_owned(),
        "targetLabel" => "target_label".to_owned(),
        other => other.to_owned(),
    };
    let renamed =
        relabelings.into_iter().map(|rule| rule.as_object().unwrap().iter().map(|(key, value)| (names(key), value.clone())).collect());
    renamed.map(Value::Object).collect()
}
