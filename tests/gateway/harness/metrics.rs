//! A parser for the Prometheus text format.

use std::collections::BTreeMap;

/// The series of one scrape, by name with labels as printed.
#[derive(Clone, Debug)]
pub struct Metrics(pub BTreeMap<String, f64>);

impl Metrics {
    /// Parses the exposition format.
    pub fn parse(text: &str) -> Metrics {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_string(), value.parse().ok()?))
        });
        Metrics(series.collect())
    }

    /// The sum of all series with this name and these labels; 0 if there are none.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted = |series: &str| {
            let (base, rest) = series.split_once('{').unwrap_or((series, ""));
            let has = |(key, value): &(&str, &str)| {
                let label = format!("{key}=\"{value}\"");
                let mut starts = rest.match_indices(&label);
                starts.any(|(at, _)| at == 0 || rest.as_bytes()[at - 1] == b',')
            };
            base == name && labels.iter().all(has)
        };
        let found = self.0.iter().filter(|(series, _)| wanted(series));
        found.map(|(_, value)| value).sum()
    }

    /// Whether any series has this name.
    pub fn has(&self, name: &str) -> bool {
        let base = |series: &String| series.split('{').next() == Some(name);
        self.0.keys().any(base)
    }
}
