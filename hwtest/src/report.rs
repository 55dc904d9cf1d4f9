//! Checks and their verdicts, as a table for people and as JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::requirements::Role;

/// How a check came out; later ones are worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Ogive runs, but slower or with less safety than it could.
    Warn,
    /// Ogive cannot run like this.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What: stable, for programs.
    pub name: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What is there.
    pub found: String,
    /// What is asked for.
    pub needed: String,
    /// What to do about it; never empty on a failure, empty when all is well.
    pub advice: String,
}

/// All checks for a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The role.
    pub role: Role,
    /// In the order of the table.
    pub checks: Vec<Check>,
}

impl Report {
    /// The worst verdict.
    pub fn worst(&self) -> Verdict {
        self.checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok)
    }

    /// True when nothing failed; warnings are allowed.
    pub fn may_start(&self) -> bool {
        self.worst() < Verdict::Fail
    }

    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.verdict == Verdict::Fail)
    }

    /// The report without the checks that came out well: what a role logs at its start.
    pub fn problems(&self) -> Report {
        let bad = self.checks.iter().filter(|check| check.verdict != Verdict::Ok);
        Report { role: self.role, checks: bad.cloned().collect() }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        })
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (needed: {})", self.name, self.found, self.needed)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "; {}", self.advice) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chars = |text: &String| text.chars().count();
        let width = |of: fn(&Check) -> &String, title: &str| {
            let widest = self.checks.iter().map(|check| chars(of(check))).max();
            widest.unwrap_or(0).max(title.len())
        };
        let name = width(|check| &check.name, "check");
        let found = width(|check| &check.found, "found");
        writeln!(f, "{:<name$}  {:<4}  {:<found$}  needed", "check", "", "found")?;
        for check in &self.checks {
            writeln!(
                f,
                "{:<name$}  {:<4}  {:<found$}  {}",
                check.name, check.verdict, check.found, check.needed
            )?;
            if !check.advice.is_empty() {
                writeln!(f, "{:<name$}        -> {}", "", check.advice)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, verdict: Verdict, advice: &str) -> Check {
        Check {
            name: name.into(),
            verdict,
            found: "x".into(),
            needed: "y".into(),
            advice: advice.into(),
        }
    }

    #[test]
    fn worst_and_table() {
        let checks = vec![check("a", Verdict::Ok, ""), check("long", Verdict::Warn, "do this")];
        let mut report = Report { role: Role::Demo, checks };
        assert!(report.may_start());
        assert_eq!(
            report.to_string(),
            "check        found  needed\n\
             a      ok    x      y\n\
             long   warn  x      y\n             -> do this\n"
        );
        report.checks.push(check("c", Verdict::Fail, "do that"));
        assert!(!report.may_start());
        assert_eq!(report.failures().count(), 1);
        assert_eq!(report.problems().checks.len(), 2);
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.contains("\"role\":\"demo\"") && json.contains("\"verdict\":\"fail\""));
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }
}
