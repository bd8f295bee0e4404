//! `docs/OBSERVABILITY.md` and the constants say the same; the contract that came before it holds.

use std::collections::BTreeMap;
use std::path::Path;

use flowscope::obs::{METRICS, MetricKind};

/// What a table row says of a metric: its type, and its labels with their values.
#[derive(Debug, PartialEq)]
struct Row {
    kind: String,
    labels: Vec<(String, Vec<String>)>,
}

/// The rows of the tables that have `metric` in their head's first cell.
fn rows(document: &str) -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    let mut in_table = false;
    for line in document.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        if !line.trim_start().starts_with('|') {
            in_table = false;
        } else if cells[0] == "metric" {
            in_table = true;
        } else if in_table && cells[0].starts_with('`') {
            let row = Row { kind: cells[1].into(), labels: labels(cells[2]) };
            assert!(rows.insert(cells[0].trim_matches('`').into(), row).is_none(), "twice: {line}");
        }
    }
    rows
}

/// From `` `name` = one, two ``; without values from `` `name` ``.
fn labels(cell: &str) -> Vec<(String, Vec<String>)> {
    if cell.is_empty() {
        return Vec::new();
    }
    let (name, values) = cell.split_once('=').unwrap_or((cell, ""));
    let values = values.split(',').map(|value| value.trim().to_string());
    vec![(name.trim().trim_matches('`').into(), values.filter(|value| !value.is_empty()).collect())]
}

fn constants() -> BTreeMap<String, Row> {
    let row = |metric: &flowscope::obs::Metric| Row {
        kind: match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        }
        .into(),
        labels: metric
            .labels
            .iter()
            .map(|label| (label.name.into(), label.values.iter().map(|v| v.to_string()).collect()))
            .collect(),
    };
    METRICS.iter().map(|metric| (metric.name.into(), row(metric))).collect()
}

#[test]
fn the_document_and_the_constants_agree() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OBSERVABILITY.md");
    let document = std::fs::read_to_string(path).unwrap();
    let trackers = document.split("## Metrics of the trackers").nth(1).expect("the section");
    let trackers = trackers.split("\n## ").next().unwrap();
    let (told, kept) = (rows(trackers), constants());
    assert_eq!(told.keys().collect::<Vec<_>>(), kept.keys().collect::<Vec<_>>());
    for (name, row) in &told {
        assert_eq!(row, &kept[name], "{name}");
    }
}

#[test]
fn the_contract_holds() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/observability.md");
    let Ok(contract) = std::fs::read_to_string(&path) else {
        println!("SKIPPED: {} is not here, and with it the contract", path.display());
        return;
    };
    let (told, kept) = (rows(&contract), constants());
    assert_eq!(told.len(), 11);
    for (name, row) in &told {
        let ours = kept.get(name).unwrap_or_else(|| panic!("{name} is gone"));
        assert_eq!(row.kind, ours.kind, "{name}");
        assert_eq!(row.labels.len(), ours.labels.len(), "{name}");
        for ((label, values), (our_label, our_values)) in row.labels.iter().zip(&ours.labels) {
            assert_eq!(label, our_label, "{name}");
            for value in values {
                assert!(our_values.contains(value), "{name} has no {label}={value} any more");
            }
        }
    }
}

#[test]
fn names_and_labels_are_those_that_prometheus_allows() {
    let word = |s: &str| {
        !s.is_empty()
            && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    for metric in METRICS {
        assert!(word(metric.name) && metric.name.starts_with("flowscope_"), "{}", metric.name);
        assert_eq!(metric.name.ends_with("_total"), metric.kind == MetricKind::Counter);
        assert!(!metric.help.is_empty() && !metric.help.contains('\n'), "{}", metric.name);
        for label in metric.labels {
            assert!(word(label.name) && label.values.iter().all(|value| word(value)));
        }
    }
}
