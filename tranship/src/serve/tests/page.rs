//! A client of HTTP, and a reader of what it gets.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Status line and headers, and the body of the answer.
pub(super) fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

pub(super) type Labels = BTreeMap<String, String>;

/// A scrape, read.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Type and help of each metric, by the name under which its samples are.
    pub(super) kinds: BTreeMap<String, String>,
    pub(super) help: BTreeMap<String, String>,
    pub(super) samples: Vec<(String, Labels, f64)>,
}

impl Page {
    pub(super) fn read(text: &str) -> Self {
        let mut page = Self::default();
        let mut lines = text.lines();
        assert_eq!(lines.next_back(), Some("# EOF"));
        for line in lines {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(page.kinds.insert(name.into(), kind.into()).is_none(), "{name} twice");
            } else if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                page.help.insert(name.into(), help.into());
            } else if !line.starts_with('#') {
                page.samples.push(sample(line));
            }
        }
        page
    }

    /// Sum of the samples that have these labels, among others.
    pub(super) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &Labels| {
            labels.iter().all(|(key, value)| sample.get(*key).is_some_and(|v| v == value))
        };
        let samples = self.samples.iter().filter(|(n, l, _)| n == name && has(l));
        let values: Vec<_> = samples.map(|(_, _, value)| value).collect();
        assert!(!values.is_empty(), "no {name} with {labels:?}");
        values.into_iter().sum()
    }

    /// The labels that samples of a metric have, but for those of buckets.
    pub(super) fn labels(&self, name: &str) -> BTreeSet<String> {
        let of = |sample: &str| {
            let rest = sample.strip_prefix(name);
            matches!(rest, Some("" | "_total" | "_count" | "_sum" | "_bucket"))
        };
        let samples = self.samples.iter().filter(|(sample, _, _)| of(sample));
        let keys = samples.flat_map(|(_, labels, _)| labels.keys().cloned());
        keys.filter(|key| key != "le").collect()
    }
}

fn sample(line: &str) -> (String, Labels, f64) {
    let (metric, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = match metric.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
        None => (metric, ""),
    };
    let labels = labels.split(',').filter(|label| !label.is_empty()).map(|label| {
        let (key, value) = label.split_once('=').unwrap();
        (key.to_owned(), value.trim_matches('"').to_owned())
    });
    (name.to_owned(), labels.collect(), value.parse().unwrap())
}
