//! Schemas for kubeconform, which knows none offline: from what the API server serves and from the CRDs of others, made strict,
//! so that a field that nobody knows is an error.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tools::home;

/// A folder with a schema for each kind.
pub(crate) fn write() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let read = |file: &str| std::fs::read_to_string(home().join("schemas").join(file)).unwrap();
    let save = |name: &str, schema: &Value| std::fs::write(folder.path().join(name), schema.to_string()).unwrap();

    let mut served: Value = serde_json::from_str(&read("swagger.json")).unwrap();
    let definitions = served["definitions"].take();
    for (name, definition) in definitions.as_object().unwrap() {
        for kind in definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
            let text = |key: &str| kind[key].as_str().unwrap();
            let group = text("group").split('.').next().filter(|group| !group.is_empty());
            let file = [Some(text("kind").to_lowercase().as_str()), group, Some(text("version"))]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("-");
            save(&format!("{file}.json"), &json!({"$ref": format!("definitions.json#/definitions/{name}")}));
        }
    }
    save("definitions.json", &json!({"definitions": strict(definitions)}));

    for file in ["monitoring.coreos.com_podmonitors.yaml", "monitoring.coreos.com_prometheusrules.yaml"] {
        let crd: Value = serde_saphyr::from_str(&read(file)).unwrap();
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap().to_lowercase();
        for version in crd["spec"]["versions"].as_array().unwrap() {
            let schema = strict(version["schema"]["openAPIV3Schema"].clone());
            save(&format!("{kind}-monitoring-{}.json", version["name"].as_str().unwrap()), &schema);
        }
    }
    folder
}

/// Kubernetes' dialect in terms of JSON Schema, without fields that nobody knows.
fn strict(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(strict).collect(),
        Value::Object(mut map) => {
            if map.get("format") == Some(&json!("int-or-string")) || map.get("x-kubernetes-int-or-string") == Some(&json!(true)) {
                return json!({"type": ["integer", "string"]});
            }
            if let Some(reference) = map.get("$ref").and_then(Value::as_str).map(|place| format!("definitions.json{place}")) {
                map.insert("$ref".to_owned(), reference.into());
            }
            if map.get("properties").is_some_and(Value::is_object) && !map.contains_key("additionalProperties") {
                map.insert("additionalProperties".to_owned(), false.into());
            }
            map.into_iter().map(|(key, value)| (key, strict(value))).collect()
        }
        other => other,
    }
}

/// What kubeconform has against these objects.
pub(crate) fn complaints(schemas: &Path, objects: &[Value]) -> String {
    let location = format!("{}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", schemas.display());
    let mut kubeconform = Command::new(home().join("bin/kubeconform"))
        .args(["-strict", "-schema-location", &location, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let documents: String = objects.iter().map(|object| format!("---\n{object}\n")).collect();
    kubeconform.stdin.take().unwrap().write_all(documents.as_bytes()).unwrap();
    let output = kubeconform.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    said
}
