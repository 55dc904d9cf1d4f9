//! The configuration file: defaults for options, below environment variables and flags.
//!
//! A table is named after a subcommand (`[chunkserver]`, `[volume.create]`), a key after a long
//! option (`zone = "a"`). Keys outside of a table hold for all subcommands that have such an
//! option. The values become clap's defaults, so that the file is checked by the same parsers, and
//! `--help` shows what is in force.

use std::path::{Path, PathBuf};

use clap::Command;
use toml::{Table, Value};

/// What is wrong with the configuration file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration file {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// It is not TOML.
    #[error("{0} is not valid TOML: {1}")]
    Syntax(PathBuf, toml::de::Error),
    /// It sets something that does not exist.
    #[error(
        "{file}: '{key}' is neither a subcommand nor one of its options; `ogive help` lists them"
    )]
    Unknown {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
    },
    /// A value that no option takes.
    #[error("{file}: '{key}' must be a string, number, boolean or a list of these")]
    Value {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
    },
}

/// The file to read: the one named, or the first default that exists.
pub fn find(named: Option<&Path>) -> Option<PathBuf> {
    let defaults = ["ogive.toml", "/etc/ogive/ogive.toml"].map(PathBuf::from);
    named.map(Path::to_owned).or_else(|| defaults.into_iter().find(|path| path.is_file()))
}

/// Makes the values of a file the defaults of a command.
pub fn apply(command: Command, file: &Path) -> Result<Command, ConfigError> {
    // The shell of this module: one small file, read once at the start.
    #[allow(clippy::disallowed_methods)]
    let text = std::fs::read(file).map_err(|e| ConfigError::Read(file.to_owned(), e))?;
    let text = String::from_utf8_lossy(&text);
    let table: Table = text.parse().map_err(|e| ConfigError::Syntax(file.to_owned(), e))?;
    apply_table(command, &table, file, "")
}

fn apply_table(
    mut command: Command,
    table: &Table,
    file: &Path,
    prefix: &str,
) -> Result<Command, ConfigError> {
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        match value {
            Value::Table(inner) if command.find_subcommand(key).is_some() => {
                let mut result = Ok(());
                command = command.mut_subcommand(key, |sub| {
                    let kept = sub.clone();
                    apply_table(sub, inner, file, &format!("{path}.")).unwrap_or_else(|e| {
                        result = Err(e);
                        kept
                    })
                });
                result?;
            }
            Value::Table(_) => {
                return Err(ConfigError::Unknown { file: file.to_owned(), key: path });
            }
            value => {
                let texts = texts(value).ok_or_else(|| ConfigError::Value {
                    file: file.to_owned(),
                    key: path.clone(),
                })?;
                let mut used = false;
                command = set_default(command, key, &texts, prefix.is_empty(), &mut used);
                if !used {
                    return Err(ConfigError::Unknown { file: file.to_owned(), key: path });
                }
            }
        }
    }
    Ok(command)
}

/// Sets the default of option `key` here, and for keys outside of tables in all subcommands too.
fn set_default(
    mut command: Command,
    key: &str,
    values: &[String],
    deep: bool,
    used: &mut bool,
) -> Command {
    let id =
        command.get_arguments().find(|a| a.get_long() == Some(key)).map(|a| a.get_id().clone());
    if let Some(id) = id {
        *used = true;
        command = command.mut_arg(id, |arg| arg.default_values(values.to_vec()).required(false));
    }
    if deep {
        let names: Vec<String> =
            command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
        for name in names {
            command = command.mut_subcommand(name, |sub| set_default(sub, key, values, true, used));
        }
    }
    command
}

fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(s) => Some(vec![s.clone()]),
        Value::Integer(n) => Some(vec![n.to_string()]),
        Value::Float(n) => Some(vec![n.to_string()]),
        Value::Boolean(b) => Some(vec![b.to_string()]),
        Value::Array(items) => {
            let each: Option<Vec<Vec<String>>> = items.iter().map(texts).collect();
            Some(each?.concat())
        }
        Value::Datetime(_) | Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;
    use crate::args::{Cli, Command as Sub};

    fn parse(toml: &str, line: &[&str]) -> Result<Cli, String> {
        let table: Table = toml.parse().expect("valid TOML");
        let command = apply_table(Cli::command(), &table, Path::new("test.toml"), "");
        let command = command.map_err(|e| e.to_string())?;
        let matches = command.try_get_matches_from(line).map_err(|e| e.to_string())?;
        Cli::from_arg_matches(&matches).map_err(|e| e.to_string())
    }

    const FILE: &str = r#"
        mds = ["a:1", "b:2"]
        [chunkserver]
        zone = "z1"
        device = "/dev/x"
        spin-us = 20
    "#;

    #[test]
    fn the_file_gives_defaults_and_flags_win() {
        let cli = parse(FILE, &["ogive", "chunkserver"]).expect("complete");
        let Sub::Chunkserver(args) = cli.command else { panic!("another command") };
        assert_eq!((args.zone.as_str(), args.spin_us), ("z1", Some(20)));
        assert_eq!(args.mds.mds, ["a:1", "b:2"]);
        let cli = parse(FILE, &["ogive", "chunkserver", "--zone", "z2"]).expect("complete");
        let Sub::Chunkserver(args) = cli.command else { panic!("another command") };
        assert_eq!(args.zone, "z2");
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        let error = parse("[chunkserver]\nzones = 1", &["ogive", "version"]).expect_err("unknown");
        assert!(error.contains("chunkserver.zones"), "{error}");
        let error = parse("[chunkservers]\nzone = 1", &["ogive", "version"]).expect_err("unknown");
        assert!(error.contains("chunkservers"), "{error}");
        let bad = "[chunkserver]\nspin-us = \"soon\"\nzone=\"z\"\ndevice=\"d\"\nmds=\"m\"";
        let error = parse(bad, &["ogive", "chunkserver"]).expect_err("not a number");
        assert!(error.contains("--spin-us"), "{error}");
    }
}
