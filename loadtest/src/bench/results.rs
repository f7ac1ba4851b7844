//! Results of a benchmark, as written to benchmarks.json.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::workload::{Size, Workload};
use crate::report::{Breaks, IdleCost, Load, Report, Stall, Storm};
use crate::scenario::scaling::ScalePoint;

/// Results of a benchmark.
#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    /// Machine of the benchmark.
    pub machine: Machine,
    /// Extent of the benchmark.
    pub size: Size,
    /// Results per server.
    pub servers: Vec<ServerResults>,
    /// Names of the servers that could not be measured, with the reason.
    pub absent: Vec<(String, String)>,
    /// Measurements that failed.
    #[serde(default)]
    pub failed: Vec<Failure>,
    /// Duration of the benchmark, in seconds.
    pub seconds: u64,
}

/// Failed measurement. The scenario is not measured again with this server.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    /// Name of the server.
    pub server: String,
    /// Scenario that failed.
    pub workload: Workload,
    /// Round, from 1.
    pub round: u32,
    /// First line of the error.
    pub reason: String,
}

/// Results of one server.
#[derive(Debug, Serialize, Deserialize)]
pub struct ServerResults {
    /// Name of the server.
    pub name: String,
    /// Description of the server.
    pub what: String,
    /// Version of the server.
    pub version: String,
    /// Command that starts the server.
    pub start: String,
    /// Equivalent command line of loadtest, with the highest stream count.
    pub command: String,
    /// Equivalent command lines of the scenarios.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub commands: BTreeMap<Workload, String>,
    /// Scenarios that the server does not support, with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unsupported: BTreeMap<Workload, String>,
    /// Cost per stream count in each measurement (`broadcast` and `scale`).
    pub rounds: Vec<Vec<ScalePoint>>,
    /// Results of the other scenarios in each round.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scenarios: BTreeMap<Workload, Vec<ScenarioRun>>,
}

/// Results of one run of a scenario.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ScenarioRun {
    /// Published and delivered events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// Recovery after the disconnect (`storm`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storm: Option<Storm>,
    /// Cost of streams that do not read (`stalled`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<Stall>,
    /// Cost of idle streams (`idle`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<IdleCost>,
    /// Streams that ended without a request; absent in results of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaks: Option<Breaks>,
}

impl ScenarioRun {
    /// Takes the figures from a report. Fails if not all streams could be opened.
    pub fn new(report: Report) -> Result<Self, String> {
        match report.violations.into_iter().next() {
            Some(violation) => Err(violation),
            None => Ok(Self {
                load: report.load,
                storm: report.storm,
                stall: report.stall,
                idle: report.held,
                breaks: Some(report.streams.breaks),
            }),
        }
    }
}

impl ServerResults {
    /// Returns the figures at a stream count, one for each measurement.
    pub fn points(&self, streams: u32) -> impl Iterator<Item = &ScalePoint> {
        self.rounds.iter().flatten().filter(move |point| point.streams == streams)
    }

    /// Returns the runs of a scenario.
    pub fn runs(&self, workload: Workload) -> &[ScenarioRun] {
        self.scenarios.get(&workload).map_or(&[], Vec::as_slice)
    }

    /// Returns the broken streams of all measurements, or `None` if they were not counted.
    pub fn breaks(&self) -> Option<Breaks> {
        let points = self.rounds.iter().flatten().map(|point| point.breaks);
        let runs = self.scenarios.values().flatten().map(|run| run.breaks);
        let counted: Vec<Breaks> = points.chain(runs).flatten().collect();
        (!counted.is_empty()).then(|| counted.into_iter().sum())
    }

    /// Returns all loads of the server.
    pub fn loads(&self) -> impl Iterator<Item = &Load> {
        let points = self.rounds.iter().flatten();
        let points = points.flat_map(|point| {
            point.load.iter().chain(point.low_rate.as_ref().map(|low| &low.load))
        });
        points.chain(self.scenarios.values().flatten().filter_map(|run| run.load.as_ref()))
    }
}
