//! Findings for people and as JSON, to standard output.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};

use anyhow::Context;
use serde::Serialize;

use super::findings::{Finding, Severity, worst};

/// Columns of the table before what was found: severity and what was looked at.
const INDENT: &str = "                            ";

/// All that was found.
#[derive(Debug)]
pub struct Report {
    system: Vec<Finding>,
    /// By port.
    pub(super) ports: Vec<(String, Vec<Finding>)>,
}

impl Report {
    /// About the machine; ports follow.
    pub fn new(system: Vec<Finding>) -> Self {
        Self { system, ports: Vec::new() }
    }

    /// The worst of all.
    pub fn worst(&self) -> Severity {
        let ports = self.ports.iter().map(|(_, findings)| worst(findings));
        ports.max().unwrap_or(Severity::Ok).max(worst(&self.system))
    }

    /// Writes it to standard output.
    ///
    /// # Errors
    /// When it cannot be written; that the reader went away is none.
    pub fn print(&self, json: bool) -> anyhow::Result<()> {
        let text = if json { self.json()? } else { self.text() };
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(error).context("cannot write to standard output")
            }
            _ => Ok(()),
        }
    }

    fn json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Json<'a> {
            worst: Severity,
            system: &'a [Finding],
            interfaces: Vec<Interface<'a>>,
        }
        #[derive(Serialize)]
        struct Interface<'a> {
            name: &'a str,
            worst: Severity,
            findings: &'a [Finding],
        }
        fn interface((name, findings): &(String, Vec<Finding>)) -> Interface<'_> {
            Interface { name, worst: worst(findings), findings }
        }
        let interfaces = self.ports.iter().map(interface).collect();
        let json = Json { worst: self.worst(), system: &self.system, interfaces };
        Ok(serde_json::to_string_pretty(&json)? + "\n")
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "system");
        table(&mut text, &self.system);
        for (name, findings) in &self.ports {
            let _ = writeln!(text, "{name}");
            table(&mut text, findings);
        }
        let all = || self.ports.iter().flat_map(|(_, findings)| findings).chain(&self.system);
        let count = |severity| all().filter(|finding| finding.severity == severity).count();
        let (warnings, notes) = (count(Severity::Warning), count(Severity::Note));
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let _ =
            write!(text, "{warnings} warning{}, {notes} note{}", plural(warnings), plural(notes));
        let hint = "; `flowscope live --tune` sets what can be set, and puts it back at the end";
        let _ = writeln!(text, "{}", if all().any(|finding| finding.tunable) { hint } else { "" });
        text
    }
}

fn table(text: &mut String, findings: &[Finding]) {
    for Finding { severity, what, found, why, mend, .. } in findings {
        let severity = match severity {
            Severity::Ok => "ok",
            Severity::Note => "note",
            Severity::Warning => "WARNING",
        };
        let _ = writeln!(text, "  {severity:<8} {what:<16} {found}");
        if !why.is_empty() {
            let _ = writeln!(text, "{INDENT}{why}");
        }
        if let Some(mend) = mend {
            let _ = writeln!(text, "{INDENT}→ {mend}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new(vec![Finding::ok("kernel", "6.18")]);
        let gro =
            Finding::warning("gro", "on", "frames are merged").mend("ethtool -K eth9 gro off");
        report.ports.push(("eth9".to_owned(), vec![Finding::ok("link", "up"), gro]));
        report
    }

    #[test]
    fn a_table_has_what_is_wrong_why_and_what_to_do_under_each_other() {
        let expected = "\
system
  ok       kernel           6.18
eth9
  ok       link             up
  WARNING  gro              on
                            frames are merged
                            → ethtool -K eth9 gro off
1 warning, 0 notes
";
        assert_eq!(report().text(), expected);
        assert_eq!(report().worst(), Severity::Warning);
    }

    #[test]
    fn json_says_the_same() {
        let json: serde_json::Value = serde_json::from_str(&report().json().unwrap()).unwrap();
        assert_eq!(json["worst"], "warning");
        assert_eq!(json["system"][0]["found"], "6.18");
        let gro = &json["interfaces"][0]["findings"][1];
        assert_eq!(
            (&gro["severity"], &gro["mend"]),
            (&"warning".into(), &"ethtool -K eth9 gro off".into())
        );
        assert_eq!(json["interfaces"][0]["findings"][0].get("mend"), None);
    }
}
