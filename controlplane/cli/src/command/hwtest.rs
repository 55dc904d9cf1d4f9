//! `ogive hwtest`: what this machine can do.

use std::process::ExitCode;
use std::time::Duration;

use ogive_hwtest::{DeviceLatencies, Report, Requirements, measure};
use serde::Serialize;

use crate::args::HwtestArgs;
use crate::output;
use crate::progress::Progress;
use crate::role::PATHS;

/// How long the storage is measured.
const MEASURE: Duration = Duration::from_millis(500);

#[derive(Serialize)]
struct Doctor {
    #[serde(flatten)]
    report: Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    latencies: Option<DeviceLatencies>,
}

/// Prints the checks; the exit code is 1 when one of them failed.
pub fn run(args: &HwtestArgs, json: bool) -> anyhow::Result<ExitCode> {
    let requirements = Requirements::chunkserver(&args.path, 1).with_paths(PATHS);
    let report = ogive_hwtest::check(&requirements);
    let latencies = match args.measure {
        true => {
            let progress = Progress::spinner("measuring the storage");
            let latencies = measure(&args.path, MEASURE);
            progress.clear();
            Some(latencies?)
        }
        false => None,
    };
    let fit = report.may_start();
    output::print(json, &Doctor { report, latencies }, |doctor| human(doctor, fit))?;
    Ok(if fit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn human(doctor: &Doctor, fit: bool) -> String {
    let mut text = doctor.report.to_string();
    if let Some(latencies) = &doctor.latencies {
        text.push('\n');
        text.push_str(&latencies.to_string());
    }
    text.push_str(match fit {
        true => "\nthis machine can run Ogive\n",
        false => {
            "\nthis machine cannot run Ogive like this; the advice above says what to change\n"
        }
    });
    text
}
