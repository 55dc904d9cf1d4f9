//! `ucx_perftest`: UCX's own benchmark of active messages, over shared memory between two processes
//! on the same two cores. It sends the data alone, without header and body of ours, and nobody
//! looks at them: they stay in the sender's cache (`rpc/design/0004-lanes.md`, "Round trips").
#![allow(clippy::disallowed_methods)] // waits for a program

use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::cores::Cores;
use super::sample::Sample;
use super::spec::{Case, Pattern};
use crate::limits::{PERFTEST_MESSAGES_MAX, PERFTEST_MESSAGES_MIN, PERFTEST_TIMEOUT};

const PROGRAM: &str = "ucx_perftest";
/// What our own lane over shared memory uses.
const TRANSPORTS: &str = "posix,sysv,cma,self";
/// How often a program is looked at that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The reference; it learns how fast it is, to run for about as long as the others.
#[derive(Debug, Default)]
pub(super) struct Perftest {
    /// Microseconds of a message in a case, by its last run.
    pace_us: Vec<(Case, f64)>,
}

impl Perftest {
    /// Whether the program is there; why not.
    pub(super) fn find() -> Result<Perftest, String> {
        let quiet = |command: &mut Command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()
        };
        match quiet(Command::new(PROGRAM).arg("-h")) {
            Ok(_) => Ok(Perftest::default()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(format!("{PROGRAM} is not installed (Debian: apt-get install ucx-utils)"))
            }
            Err(e) => Err(format!("{PROGRAM}: {e}")),
        }
    }

    pub(super) fn measure(
        &mut self,
        case: Case,
        duration: Duration,
        cores: Cores,
    ) -> Result<Sample, String> {
        let known = self.pace_us.iter().find(|(of, _)| *of == case).map(|(_, us)| *us);
        let guess = 1.0 + case.bytes as f64 / 2000.0;
        let wanted = duration.as_secs_f64() * 1e6 / known.unwrap_or(guess);
        let messages = (wanted as u64).clamp(PERFTEST_MESSAGES_MIN, PERFTEST_MESSAGES_MAX);
        let output = run(case, messages, cores)?;
        let sample = parse(&output, case)
            .ok_or_else(|| format!("cannot read what {PROGRAM} said: {}", output.trim()))?;
        self.pace_us.retain(|(of, _)| *of != case);
        self.pace_us.push((case, sample.seconds * 1e6 / sample.messages as f64));
        Ok(sample)
    }
}

/// Ends with this value.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(case: Case, messages: u64, cores: Cores) -> Result<String, String> {
    // The port is free now; that another program takes it meanwhile shows as an error.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map(|a| a.port());
    let port = port.map_err(|e| e.to_string())?;
    let _server = start(None, port, case, messages, cores.there)?;
    let deadline = Instant::now() + PERFTEST_TIMEOUT;
    loop {
        // The server may not listen yet; then the client ends at once.
        let mut client = start(Some("127.0.0.1"), port, case, messages, cores.here)?;
        let status = loop {
            match client.0.try_wait().map_err(|e| e.to_string())? {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    return Err(format!("not done after {} s", PERFTEST_TIMEOUT.as_secs()));
                }
                None => std::thread::sleep(LOOK_EVERY),
            }
        };
        let mut output = String::new();
        if let Some(out) = client.0.stdout.as_mut() {
            out.read_to_string(&mut output).map_err(|e| e.to_string())?;
        }
        if status.success() && !output.trim().is_empty() {
            return Ok(output);
        }
        if Instant::now() > deadline {
            return Err(format!("{PROGRAM} failed ({status})"));
        }
        std::thread::sleep(LOOK_EVERY * 10);
    }
}

fn start(
    server: Option<&str>,
    port: u16,
    case: Case,
    messages: u64,
    core: Option<usize>,
) -> Result<Program, String> {
    let mut command = Command::new(PROGRAM);
    command.args(server).args(["-t", test(case), "-s", &case.bytes.to_string()]);
    command.args(["-n", &messages.to_string(), "-w", &(messages / 10 + 1).to_string()]);
    command.args(["-p", &port.to_string(), "-f", "-v"]);
    if let Some(core) = core {
        command.args(["-c", &core.to_string()]);
    }
    command.env("UCX_TLS", TRANSPORTS).env("UCX_WARN_UNUSED_ENV_VARS", "n");
    // Nobody reads what the server says; it must not wait for that.
    let output = if server.is_some() { Stdio::piped() } else { Stdio::null() };
    command.stdin(Stdio::null()).stdout(output).stderr(Stdio::null());
    command.spawn().map(Program).map_err(|e| format!("{PROGRAM}: {e}"))
}

fn test(case: Case) -> &'static str {
    match case.pattern {
        Pattern::Echo => "ucp_am_lat",
        Pattern::Write => "ucp_am_bw",
    }
}

/// The last line of numbers under the line of titles. Its latencies are half of a round trip; its
/// bandwidth counts MiB.
fn parse(output: &str, case: Case) -> Option<Sample> {
    let mut titles: Option<Vec<&str>> = None;
    let mut last: Option<Vec<f64>> = None;
    for line in output.lines() {
        let cells: Vec<&str> = line.trim().split(',').collect();
        if cells[0] == "iterations" {
            titles = Some(cells);
        } else if titles.as_ref().is_some_and(|titles| titles.len() == cells.len()) {
            let numbers: Option<Vec<f64>> = cells.iter().map(|cell| cell.parse().ok()).collect();
            last = numbers.or(last);
        }
    }
    let (titles, numbers) = (titles?, last?);
    let column = |name: &str| {
        let at = titles.iter().position(|title| title.ends_with(name))?;
        numbers.get(at).copied().filter(|n| *n > 0.0 && n.is_finite())
    };
    let messages = column("iterations")? as u64;
    let trip = if case.pattern == Pattern::Echo { 2.0 } else { 1.0 };
    let mean_us = column("overall_lat")? * trip;
    let rate = match case.pattern {
        Pattern::Echo => 1e6 / mean_us,
        Pattern::Write => column("overall_bw")? * f64::from(1 << 20) / case.bytes as f64,
    };
    Some(Sample {
        messages,
        seconds: messages as f64 / rate,
        rate,
        bytes_per_s: rate * case.bytes as f64,
        mean_us,
        p50_us: column("50.0_percentile_lat")? * trip,
        p99_us: None,
        p999_us: None,
        max_us: None,
        cpu_us_here: None,
        cpu_us_there: None,
        copied_bytes: None,
        system_calls: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TITLES: &str = "iterations,50.0_percentile_lat,avg_lat,overall_lat,avg_bw,overall_bw,\
                          avg_mr,overall_mr\n";

    fn case(pattern: Pattern, bytes: usize) -> Case {
        Case { pattern, bytes, depth: 1 }
    }

    #[test]
    fn latencies_are_doubled_to_round_trips() {
        let output = format!("{TITLES}200000,0.170,0.588,0.588,103.89,103.89,1702084,1702084\n");
        let sample = parse(&output, case(Pattern::Echo, 64)).unwrap();
        assert_eq!((sample.messages, sample.p50_us, sample.mean_us), (200_000, 0.34, 1.176));
        assert!((sample.seconds - 0.2352).abs() < 1e-9, "{sample:?}");
    }

    #[test]
    fn bandwidth_is_of_the_whole_run() {
        let line = "5000,0.903,678.855,630.397,1473.07,1586.30,1473,1586\n";
        let output = format!("+---+\n{TITLES}100,1,1,1,1,1,1,1\n{line}a line that is none\n");
        let sample = parse(&output, case(Pattern::Write, 1 << 20)).unwrap();
        assert_eq!((sample.messages, sample.rate), (5000, 1586.30));
        assert_eq!(sample.bytes_per_s, 1586.30 * 1_048_576.0);
    }

    #[test]
    fn other_output_is_not_taken_for_figures() {
        let echo = case(Pattern::Echo, 64);
        assert_eq!(parse("", echo), None);
        assert_eq!(parse("1,2,3,4,5,6,7,8\n", echo), None);
        assert_eq!(parse(TITLES, echo), None);
        assert_eq!(parse(&format!("{TITLES}1,2,3\n"), echo), None);
        assert_eq!(parse(&format!("{TITLES}0,0,0,0,0,0,0,0\n"), echo), None);
    }
}
