//! Whether what is stored is what is wanted, and what others put into it. Pure.

use serde_json::{Map, Value, json};

use crate::quantity::millis;

/// Whether there is nothing to write.
pub(crate) fn is_stored(stored: &Value, wanted: &Value) -> bool {
    additions(stored, wanted).is_none() && holds(stored, wanted) && (!is_fence(wanted) || spec(stored) == spec(wanted))
}

/// A NetworkPolicy's spec is ours from end to end: what is added to a rule opens it further, and no subset shows that.
fn is_fence(wanted: &Value) -> bool {
    wanted.get("kind").and_then(Value::as_str) == Some("NetworkPolicy")
}

fn spec(object: &Value) -> Value {
    object.get("spec").map_or(Value::Null, without_nothing)
}

/// Without what the API server takes for absent. An empty selector is not: it selects all.
fn without_nothing(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (key.clone(), without_nothing(value)));
            Value::Object(fields.filter(|(key, value)| key.ends_with("Selector") && value.is_object() || !is_nothing(value)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nothing).collect()),
        value => value.clone(),
    }
}

/// A merge patch that takes out what others put into a place that is all ours: an apply would leave it there. A foreign
/// credential would look like a rotation each time, and a foreign port of the same name would make every apply invalid.
pub(crate) fn additions(stored: &Value, wanted: &Value) -> Option<Map<String, Value>> {
    let foreign_keys = |place: &str| {
        let (stored, wanted) = (stored.pointer(place)?.as_object()?, wanted.pointer(place)?.as_object()?);
        let foreign = stored.keys().filter(|key| !wanted.contains_key(*key));
        let nulls: Map<String, Value> = foreign.map(|key| (key.clone(), Value::Null)).collect();
        (!nulls.is_empty()).then_some(Value::Object(nulls))
    };
    let ports = || {
        let (stored, wanted) = (stored.pointer("/spec/ports")?.as_array()?, wanted.pointer("/spec/ports")?.as_array()?);
        let foreign = stored.iter().any(|port| !wanted.iter().any(|wanted| holds(port, wanted)));
        foreign.then(|| Value::Array(wanted.clone()))
    };
    // The API server's default of another strategy makes every apply of this one invalid.
    let strategy = || {
        let is_recreate = wanted.pointer("/spec/strategy/type")?.as_str()? == "Recreate";
        let is_left = stored.pointer("/spec/strategy/rollingUpdate")?.is_object();
        (is_recreate && is_left).then(|| json!({"type": "Recreate", "rollingUpdate": null}))
    };
    let parts = || object([("selector", foreign_keys("/spec/selector")), ("ports", ports()), ("strategy", strategy())]).map(Value::Object);
    let spec = if is_fence(wanted) { foreign(&spec(stored), &spec(wanted)) } else { parts() };
    object([("data", foreign_keys("/data")), ("spec", spec)])
}

/// Those of these fields that there are, if there are any.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Option<Map<String, Value>> {
    let object: Map<String, Value> = fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    (!object.is_empty()).then_some(object)
}

/// The fields that are not wanted, however deep. A list is one value to an apply, which puts it right as a whole.
fn foreign(stored: &Value, wanted: &Value) -> Option<Value> {
    let (stored, wanted) = (stored.as_object()?, wanted.as_object()?);
    let undo = stored.iter().filter_map(|(key, value)| {
        let undo = wanted.get(key).map_or(Some(Value::Null), |wanted| foreign(value, wanted))?;
        Some((key.clone(), undo))
    });
    let undo: Map<String, Value> = undo.collect();
    (!undo.is_empty()).then_some(Value::Object(undo))
}

/// Whether every wanted field is stored. Lists must match in length; quantities may be spelled differently.
fn holds(stored: &Value, wanted: &Value) -> bool {
    match (stored, wanted) {
        (Value::Object(stored), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| stored.get(key).map_or_else(|| is_nothing(value), |stored| holds(stored, value)))
        }
        (Value::Array(stored), Value::Array(wanted)) => {
            stored.len() == wanted.len() && stored.iter().zip(wanted).all(|(stored, wanted)| holds(stored, wanted))
        }
        (Value::String(stored), Value::String(wanted)) => {
            stored == wanted || millis(stored).is_some_and(|amount| millis(wanted) == Some(amount))
        }
        (stored, wanted) => stored == wanted,
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn more_is_stored_than_was_wanted() {
        let stored = json!({"a": {"b": 1, "c": [{"d": "1", "e": 2}]}});
        assert!(holds(&stored, &json!({"a": {"c": [{"d": "1000m"}]}})));
        assert!(!holds(&stored, &json!({"a": {"c": []}})));
        assert!(!holds(&stored, &json!({"a": {"x": 1}})));
    }

    #[test]
    fn what_others_added_is_taken_out_and_nothing_else() {
        let wanted = json!({"data": {"a": "1"}, "spec": {"selector": {"app": "x"}, "ports": [{"name": "http", "port": 8080}]}});
        assert_eq!(additions(&wanted, &wanted), None);
        let defaulted =
            json!({"data": {"a": "2"}, "spec": {"selector": {"app": "x"}, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}});
        assert_eq!(additions(&defaulted, &wanted), None);
        let stored =
            json!({"data": {"a": "1", "b": "2"}, "spec": {"selector": {"app": "x", "b": "c"}, "ports": [{"name": "http", "port": 81}]}});
        let undo = json!({"data": {"b": null}, "spec": {"selector": {"b": null}, "ports": [{"name": "http", "port": 8080}]}});
        assert_eq!(additions(&stored, &wanted).map(Value::Object), Some(undo));
    }

    #[test]
    fn pods_that_were_replaced_one_by_one_and_now_are_all_at_once_leave_no_trace_of_it() {
        let deployment = |strategy: Value| json!({"kind": "Deployment", "spec": {"replicas": 1, "strategy": strategy}});
        let (recreate, rolling) = (deployment(json!({"type": "Recreate"})), deployment(json!({"type": "RollingUpdate"})));
        let defaulted = deployment(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}));
        let undo = json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}}});
        assert_eq!(additions(&defaulted, &recreate).map(Value::Object), Some(undo));
        assert_eq!((additions(&defaulted, &rolling), additions(&recreate, &rolling), additions(&recreate, &recreate)), (None, None, None));
    }

    fn fence() -> Value {
        json!({"kind": "NetworkPolicy", "spec": {
            "podSelector": {"matchLabels": {"app": "x"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 8080, "protocol": "TCP"}]}],
            "egress": [{"to": [{"ipBlock": {"cidr": "203.0.113.7/32"}}], "ports": [{"port": 443, "protocol": "TCP"}]}],
        }})
    }

    /// The fence with something more at a place.
    fn with(place: &str, key: &str, added: Value) -> Value {
        let mut stored = fence();
        stored.pointer_mut(place).unwrap().as_object_mut().unwrap().insert(key.to_owned(), added);
        stored
    }

    #[test]
    fn whatever_is_added_to_the_fence_is_seen() {
        assert!(is_stored(&fence(), &fence()));
        let added = [
            ("/spec/ingress/0/from/0", "namespaceSelector", json!({})),
            ("/spec/ingress/0/from/0", "ipBlock", json!({"cidr": "0.0.0.0/0"})),
            ("/spec/egress/0/ports/0", "endPort", json!(65535)),
            ("/spec/podSelector/matchLabels", "team", json!("a")),
            ("/spec/podSelector", "matchExpressions", json!([{"key": "team", "operator": "Exists"}])),
        ];
        for (place, key, value) in added {
            assert!(!is_stored(&with(place, key, value.clone()), &fence()), "{key} {value} at {place}");
        }
        let mut open = fence();
        open["spec"]["ingress"][0]["from"] = json!([]);
        assert!(!is_stored(&open, &fence()), "nobody's list lets everybody in");
        open["spec"]["ingress"][0]["from"] = json!([{}]);
        assert!(!is_stored(&open, &fence()), "a peer without a selector is another");
    }

    #[test]
    fn what_the_api_server_takes_for_absent_is_no_addition_to_the_fence() {
        let same = [
            ("/spec/podSelector", "matchExpressions", json!([])),
            ("/spec/podSelector", "matchExpressions", Value::Null),
            ("/spec/ingress/0/from/0", "namespaceSelector", Value::Null),
            ("/spec/ingress/0/from/0/podSelector", "matchLabels", json!({})),
            ("/spec/egress/0/to/0/ipBlock", "except", json!([])),
        ];
        for (place, key, value) in same {
            let stored = with(place, key, value.clone());
            assert!(is_stored(&stored, &fence()) && is_stored(&fence(), &stored), "{key} {value} at {place}");
        }
    }

    #[test]
    fn what_an_apply_would_leave_in_the_fence_is_taken_out() {
        let mut closed = fence();
        closed["spec"].as_object_mut().unwrap().remove("egress");
        let undo = |stored: &Value, wanted: &Value| additions(stored, wanted).map(Value::Object);
        assert_eq!(undo(&fence(), &closed), Some(json!({"spec": {"egress": null}})));
        assert_eq!(undo(&closed, &fence()), None, "what is lacking is applied");
        let labelled = with("/spec/podSelector/matchLabels", "team", json!("a"));
        assert_eq!(undo(&labelled, &fence()), Some(json!({"spec": {"podSelector": {"matchLabels": {"team": null}}}})));
        // Of a list the apply is sure to write all.
        assert_eq!(undo(&with("/spec/ingress/0/from/0", "namespaceSelector", json!({})), &fence()), None);
    }
}
