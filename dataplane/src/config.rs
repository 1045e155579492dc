//! The configuration: a TOML file on top of `configs/default.toml`, checked as a whole.
//!
//! The default file is compiled in and read by the same code as the user's. It is the only source of defaults
//! and of the list of keys, so a key that is not in its manual does not exist. Whatever is wrong with a file
//! is found in one go, each [`Problem`] with its place and its remedy.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use miette::{Diagnostic, NamedSource, SourceSpan};
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::flow::classifier::{Capacity, Policy, Rule};
use crate::lane::Lanes;
use crate::lane::mark::Mark;
use crate::xdp::{Attach, CopyMode, Settings as XdpSettings};

/// The manual and the source of every default.
pub const DEFAULTS: &str = include_str!("../../configs/default.toml");

/// Keys of `[ports]` that have no default, so the default file can only show them in a comment.
const PORT_KEYS: [&str; 2] = ["lan", "wan"];

/// One thing that is wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{message}")]
pub struct Problem {
    message: String,
    #[source_code]
    text: NamedSource<Arc<str>>,
    #[label("{label}")]
    span: SourceSpan,
    label: &'static str,
    #[help]
    remedy: String,
}

/// A file that cannot be used: everything that is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {cause}. Name an existing file with --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        cause: std::io::Error,
    },
    /// The file can be read, and says something that cannot be.
    #[error("{} wrong with the configuration", count(.0.len()))]
    Problems(Vec<Problem>),
}

fn count(problems: usize) -> String {
    match problems {
        1 => "1 thing is".to_owned(),
        many => format!("{many} things are"),
    }
}

/// How a worker waits for packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Poll {
    /// It does not: it looks again at once.
    Busy,
    /// It looks for a moment, then sleeps until a packet wakes it.
    Adaptive,
}

/// A value, and where the user's file says it.
#[derive(Debug, Clone)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    span: Range<usize>,
}

/// The two interfaces.
#[derive(Debug, Clone)]
pub struct Ports {
    /// Towards the datacenter.
    pub lan: Located<String>,
    /// Towards the WAN.
    pub wan: Located<String>,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The interfaces; a capture file needs none.
    pub ports: Option<Ports>,
    /// How packets get in and out.
    pub xdp: XdpSettings,
    /// Cores of the workers; empty for one per queue.
    pub cores: Located<Vec<usize>>,
    /// How workers wait.
    pub poll: Poll,
    /// How flows become classes.
    pub rule: Rule,
    /// How much state there may be.
    pub capacity: Capacity,
    /// Where classes go.
    pub lanes: Lanes,
    /// Where `lanesplitd status` asks.
    pub control_socket: PathBuf,
    /// Least severe messages that are logged.
    pub log_level: String,
    source: NamedSource<Arc<str>>,
}

impl Config {
    /// Reads a file and checks everything that can be checked without looking at the system.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })?;
        Config::parse(&path.display().to_string(), &text)
    }

    /// What the default file says.
    pub fn defaults() -> Config {
        Config::parse("configs/default.toml", DEFAULTS).expect("a test reads the default file")
    }

    /// Reads the text of a file; `name` is what messages call it.
    pub fn parse(name: &str, text: &str) -> Result<Config, ConfigError> {
        let (defaults, errors) = DeTable::parse_recoverable(DEFAULTS);
        assert!(errors.is_empty(), "the default file is not TOML: {errors:?}");
        let (user, errors) = DeTable::parse_recoverable(text);
        let mut reader = Reader {
            source: NamedSource::new(name, Arc::from(text)),
            defaults: defaults.get_ref(),
            user: user.get_ref(),
            problems: Vec::new(),
        };
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            reader.report(span, "here", format!("not TOML: {}", error.message()), TOML_REMEDY);
        }
        if reader.problems.is_empty() {
            reader.refuse_unknown_keys();
            let config = reader.read();
            if reader.problems.is_empty() {
                return Ok(config);
            }
        }
        Err(ConfigError::Problems(reader.problems))
    }

    /// The keys that `other` sets otherwise and that only a restart can change.
    pub fn differs_in_fixed_keys(&self, other: &Config) -> Vec<&'static str> {
        let name = |port: fn(&Ports) -> &Located<String>, config: &Config| {
            config.ports.as_ref().map(|ports| port(ports).value.clone())
        };
        let (one, two) = (&self.xdp, &other.xdp);
        let (has, wants) = (&self.capacity, &other.capacity);
        [
            ("ports.lan", name(|ports| &ports.lan, self) != name(|ports| &ports.lan, other)),
            ("ports.wan", name(|ports| &ports.wan, self) != name(|ports| &ports.wan, other)),
            ("ports.attach", one.attach != two.attach),
            ("ports.copy", one.copy != two.copy),
            ("ports.frame_bytes", one.frame_bytes != two.frame_bytes),
            ("ports.ring_entries", one.ring_entries != two.ring_entries),
            ("workers.cores", self.cores.value != other.cores.value),
            ("workers.poll", self.poll != other.poll),
            ("workers.busy_poll_budget", one.busy_poll_budget != two.busy_poll_budget),
            ("classifier.ipv4_flows_max", has.ipv4_flows_max != wants.ipv4_flows_max),
            ("classifier.ipv6_flows_max", has.ipv6_flows_max != wants.ipv6_flows_max),
            (
                "classifier.fragmented_datagrams_max",
                has.fragmented_datagrams_max != wants.fragmented_datagrams_max,
            ),
            ("control.socket", self.control_socket != other.control_socket),
            ("log.level", self.log_level != other.log_level),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }

    /// A problem with one of the values, found by somebody who looked at the system.
    pub fn problem<T>(&self, value: &Located<T>, message: String, remedy: &str) -> Problem {
        problem(&self.source, value.span.clone(), "this value", message, remedy)
    }

    /// The problem of a gateway without interfaces.
    pub fn missing_ports(&self) -> Problem {
        let remedy = "add both, each with the name of an interface (`ip link show`):\n\n[ports]\nlan = \
                      \"eth1\"\nwan = \"eth2\"";
        let message = "`ports.lan` and `ports.wan` are missing".to_owned();
        problem(&self.source, 0..0, "in this file", message, remedy)
    }
}

const TOML_REMEDY: &str = "see https://toml.io for the syntax and configs/default.toml for the keys";

fn problem(
    source: &NamedSource<Arc<str>>,
    span: Range<usize>,
    label: &'static str,
    message: String,
    remedy: &str,
) -> Problem {
    Problem { message, text: source.clone(), span: span.into(), label, remedy: remedy.to_owned() }
}

/// What is wrong with a value, and the remedy.
type Bad = (String, String);

struct Reader<'a> {
    source: NamedSource<Arc<str>>,
    defaults: &'a DeTable<'a>,
    user: &'a DeTable<'a>,
    problems: Vec<Problem>,
}

type Value<'a> = Spanned<DeValue<'a>>;

impl<'a> Reader<'a> {
    fn read(&mut self) -> Config {
        self.value("mode", |value| one_of(value, &[("inline", ())]));
        Config {
            ports: self.ports(),
            xdp: self.xdp(),
            cores: self.located("workers.cores", core_list),
            poll: self.value("workers.poll", |value| {
                one_of(value, &[("busy", Poll::Busy), ("adaptive", Poll::Adaptive)])
            }),
            rule: self.rule(),
            capacity: Capacity {
                ipv4_flows_max: self.number("classifier.ipv4_flows_max", 1, 1 << 26),
                ipv6_flows_max: self.number("classifier.ipv6_flows_max", 1, 1 << 26),
                fragmented_datagrams_max: self.number(
                    "classifier.fragmented_datagrams_max",
                    1,
                    1 << 24,
                ),
            },
            lanes: Lanes { short: self.lane("lanes.short"), long: self.lane("lanes.long") },
            control_socket: self.value("control.socket", |value| {
                let path = text(value)?;
                if path.is_empty() || path.len() > SOCKET_PATH_BYTES_MAX {
                    return Err(bad(
                        format!("a socket's path has 1 to {SOCKET_PATH_BYTES_MAX} bytes"),
                        "use a shorter path, like \"/run/lanesplit/control.sock\"",
                    ));
                }
                Ok(PathBuf::from(path))
            }),
            log_level: self.value("log.level", |value| {
                let levels = ["error", "warn", "info", "debug", "trace"];
                one_of(value, &levels.map(|level| (level, level.to_owned())))
            }),
            source: self.source.clone(),
        }
    }

    fn ports(&mut self) -> Option<Ports> {
        let [lan, wan] = PORT_KEYS.map(|key| self.interface(&format!("ports.{key}")));
        let (Some(lan), Some(wan)) = (&lan, &wan) else {
            if let Some(one) = lan.or(wan) {
                self.report(
                    one.span,
                    "only this one",
                    "a gateway has two ports, and only one of `ports.lan` and `ports.wan` is named"
                        .to_owned(),
                    "name the other interface too",
                );
            }
            return None;
        };
        if lan.value == wan.value {
            self.report(
                wan.span.clone(),
                "the same interface",
                format!("`ports.lan` and `ports.wan` are both {:?}", wan.value),
                "a gateway sits between two interfaces: name two different ones",
            );
        }
        Some(Ports { lan: lan.clone(), wan: wan.clone() })
    }

    fn interface(&mut self, path: &str) -> Option<Located<String>> {
        let value = find(self.user, path)?;
        let checked = text(value).and_then(|name| match name.len() {
            // IFNAMSIZ, 16, counts the terminating zero.
            1..=15 => Ok(name.to_owned()),
            _ => Err(bad(
                "an interface's name has 1 to 15 characters".to_owned(),
                "`ip link show` lists the interfaces",
            )),
        });
        let name = self.or_report(path, value, checked)?;
        Some(Located { value: name, span: value.span() })
    }

    fn xdp(&mut self) -> XdpSettings {
        XdpSettings {
            attach: self.value("ports.attach", |value| {
                let all = [
                    ("auto", Attach::Auto),
                    ("native", Attach::Native),
                    ("generic", Attach::Generic),
                ];
                one_of(value, &all)
            }),
            copy: self.value("ports.copy", |value| {
                let all = [
                    ("auto", CopyMode::Auto),
                    ("zero-copy", CopyMode::ZeroCopy),
                    ("copy", CopyMode::Copy),
                ];
                one_of(value, &all)
            }),
            frame_bytes: self.value("ports.frame_bytes", |value| {
                power_of_two(number::<u32>(value, 2048, 4096)?)
            }),
            ring_entries: self.value("ports.ring_entries", |value| {
                power_of_two(number::<u32>(value, 64, 32768)?)
            }),
            busy_poll_budget: self.number("workers.busy_poll_budget", 0, 65535),
        }
    }

    fn rule(&mut self) -> Rule {
        Rule {
            policy: self.value("classifier.policy", |value| {
                one_of(value, &[("split", Policy::Split), ("ecmp", Policy::Ecmp), ("none", Policy::None)])
            }),
            threshold_packets: self.number("classifier.threshold_packets", 1, u32::MAX.into()),
            idle_timeout_ns: self.value("classifier.idle_timeout", |value| {
                idle_timeout_ns(text(value).map_err(|_| idle_timeout_bad("not text"))?)
            }),
            restart_on_syn: self.value("classifier.restart_on_syn", |value| {
                match value.get_ref() {
                    DeValue::Boolean(on) => Ok(*on),
                    other => Err(wrong_type("true or false", other)),
                }
            }),
        }
    }

    /// A lane that the user names is the user's own: nothing is added to it from the defaults.
    fn lane(&mut self, path: &str) -> Mark {
        let dscp = format!("{path}.dscp");
        if let Some(lane) = find(self.user, path)
            && find(self.user, &dscp).is_none()
        {
            let (message, remedy) = match lane.get_ref() {
                DeValue::Table(_) => (
                    format!("the lane `{path}` has no mark"),
                    "give it one, for example: dscp = \"AF21\"".to_owned(),
                ),
                other => wrong_type("a table with a `dscp`", other),
            };
            self.report(lane.span(), "this lane", message, &remedy);
        }
        self.value(&dscp, dscp_mark)
    }

    fn number<T: TryFrom<u64>>(&mut self, path: &str, least: u64, most: u64) -> T {
        self.value(path, |value| number(value, least, most))
    }

    /// The user's value; the default's where there is none, or a bad one, which is reported.
    fn value<T>(&mut self, path: &str, parse: impl Fn(&Value) -> Result<T, Bad>) -> T {
        self.located(path, parse).value
    }

    fn located<T>(&mut self, path: &str, parse: impl Fn(&Value) -> Result<T, Bad>) -> Located<T> {
        if let Some(value) = find(self.user, path)
            && let Some(parsed) = self.or_report(path, value, parse(value))
        {
            return Located { value: parsed, span: value.span() };
        }
        let default = find(self.defaults, path)
            .unwrap_or_else(|| panic!("the default file has no `{path}`"));
        let parsed = parse(default)
            .unwrap_or_else(|(message, _)| panic!("the default file's `{path}`: {message}"));
        Located { value: parsed, span: 0..0 }
    }

    fn or_report<T>(&mut self, path: &str, value: &Value, parsed: Result<T, Bad>) -> Option<T> {
        parsed
            .map_err(|(message, remedy)| {
                self.report(value.span(), "this value", format!("`{path}`: {message}"), &remedy);
            })
            .ok()
    }

    fn report(&mut self, span: Range<usize>, label: &'static str, message: String, remedy: &str) {
        self.problems.push(problem(&self.source, span, label, message, remedy));
    }

    fn refuse_unknown_keys(&mut self) {
        let (user, defaults) = (self.user, self.defaults);
        self.refuse_unknown_keys_of("", user, defaults);
    }

    fn refuse_unknown_keys_of(&mut self, prefix: &str, user: &DeTable, defaults: &DeTable) {
        for (key, value) in user {
            let name = key.get_ref().as_ref();
            let path = format!("{prefix}{name}");
            match (value.get_ref(), defaults.get(name).map(Spanned::get_ref)) {
                (DeValue::Table(user), Some(DeValue::Table(defaults))) => {
                    self.refuse_unknown_keys_of(&format!("{path}."), user, defaults);
                }
                (other, Some(DeValue::Table(_))) if !path.starts_with("lanes.") => {
                    let (message, remedy) = wrong_type("a table", other);
                    self.report(value.span(), "this value", format!("`{path}`: {message}"), &remedy);
                }
                (_, Some(_)) => {}
                (_, None) if prefix == "ports." && PORT_KEYS.contains(&name) => {}
                (_, None) => {
                    let mut known: Vec<&str> =
                        defaults.keys().map(|key| key.get_ref().as_ref()).collect();
                    if prefix == "ports." {
                        known.extend(PORT_KEYS);
                    }
                    let remedy = unknown_key_remedy(name, &known);
                    self.report(key.span(), "this key", format!("unknown key `{path}`"), &remedy);
                }
            }
        }
    }
}

/// `sun_path` of a Unix socket's address, less its terminating zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The value at a dotted path.
fn find<'a>(table: &'a DeTable<'a>, path: &str) -> Option<&'a Value<'a>> {
    match path.split_once('.') {
        None => table.get(path),
        Some((section, rest)) => match table.get(section)?.get_ref() {
            DeValue::Table(table) => find(table, rest),
            _ => None,
        },
    }
}

fn unknown_key_remedy(name: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match nearest {
        Some((likeness, known)) if likeness > 0.75 => format!("did you mean `{known}`?"),
        _ => format!("the keys here are: {}", known.join(", ")),
    }
}

fn bad(message: String, remedy: impl Into<String>) -> Bad {
    (message, remedy.into())
}

fn wrong_type(expected: &str, found: &DeValue) -> Bad {
    bad(format!("expected {expected}, found {}", found.type_str()), format!("write {expected}"))
}

fn text<'a>(value: &'a Value) -> Result<&'a str, Bad> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text),
        other => Err(wrong_type("text in quotes", other)),
    }
}

fn one_of<T: Clone>(value: &Value, all: &[(&str, T)]) -> Result<T, Bad> {
    let found = text(value)?;
    let known = || all.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    all.iter()
        .find(|(name, _)| *name == found)
        .map(|(_, meaning)| meaning.clone())
        .ok_or_else(|| bad(format!("{found:?} is none of its values"), format!("use one of {}", known())))
}

fn number<T: TryFrom<u64>>(value: &Value, least: u64, most: u64) -> Result<T, Bad> {
    let range = format!("a whole number from {least} to {most}");
    let DeValue::Integer(integer) = value.get_ref() else {
        return Err(wrong_type(&range, value.get_ref()));
    };
    u64::from_str_radix(integer.as_str(), integer.radix())
        .ok()
        .filter(|number| (least..=most).contains(number))
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| bad(format!("{integer} is out of range"), format!("use {range}")))
}

fn power_of_two(number: u32) -> Result<u32, Bad> {
    if number.is_power_of_two() {
        return Ok(number);
    }
    let below = 1 << number.ilog2();
    Err(bad(format!("{number} is not a power of two"), format!("use {below} or {}", 2 * below)))
}

fn core_list(value: &Value) -> Result<Vec<usize>, Bad> {
    let DeValue::Array(array) = value.get_ref() else {
        return Err(wrong_type("a list of CPU cores, like [2, 3],", value.get_ref()));
    };
    let cores = array.iter().map(|core| number(core, 0, 65535)).collect::<Result<Vec<usize>, Bad>>()?;
    for (index, core) in cores.iter().enumerate() {
        if cores[..index].contains(core) {
            return Err(bad(
                format!("core {core} is named twice"),
                "give each worker a core of its own",
            ));
        }
    }
    Ok(cores)
}

/// An idle timeout as people write it, in nanoseconds: "30s", "500ms", "2min".
pub fn idle_timeout_ns(text: &str) -> Result<u64, Bad> {
    const LONGEST: Duration = Duration::from_secs(24 * 3600);
    let duration =
        humantime::parse_duration(text).map_err(|error| idle_timeout_bad(&error.to_string()))?;
    if duration.is_zero() || duration > LONGEST {
        return Err(idle_timeout_bad(&format!("{text:?} is out of range")));
    }
    Ok(duration.as_nanos() as u64)
}

fn idle_timeout_bad(why: &str) -> Bad {
    bad(why.to_owned(), "use a time with its unit, above 0 and up to 24h, like \"30s\" or \"500ms\"")
}

fn dscp_mark(value: &Value) -> Result<Mark, Bad> {
    let dscp = match value.get_ref() {
        DeValue::Integer(_) => return number::<u8>(value, 0, 63).map(|dscp| dscp_in_range(dscp)),
        DeValue::String(name) => dscp_by_name(name),
        other => return Err(wrong_type("a DSCP, like \"AF21\" or 18,", other)),
    };
    dscp.map(dscp_in_range).ok_or_else(|| {
        bad(
            "no such DSCP".to_owned(),
            "use CS0 to CS7, AF11 to AF43, EF, VA, LE, or a number from 0 to 63",
        )
    })
}

fn dscp_in_range(dscp: u8) -> Mark {
    Mark::new(dscp).expect("numbers up to 63 and names were checked")
}

/// The names of IANA's DSCP registry: RFC 2474 (CS), 2597 (AF), 3246 (EF), 5865 (VA), 8622 (LE).
fn dscp_by_name(name: &str) -> Option<u8> {
    let digit = |text: &str, most: u8| u8::from_str(text).ok().filter(|digit| *digit <= most);
    match name {
        "EF" => Some(46),
        "VA" => Some(44),
        "LE" => Some(1),
        _ if name.len() == 3 && name.starts_with("CS") => digit(&name[2..], 7).map(|class| 8 * class),
        _ if name.len() == 4 && name.starts_with("AF") && name.is_ascii() => {
            let class = digit(&name[2..3], 4).filter(|class| *class > 0)?;
            let precedence = digit(&name[3..4], 3).filter(|precedence| *precedence > 0)?;
            Some(8 * class + 2 * precedence)
        }
        _ => None,
    }
}

/// Shows problems on standard error, each with its file, line and column and its remedy.
pub fn show(problems: &[Problem]) {
    let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor());
    for problem in problems {
        let mut text = String::new();
        let rendered = handler.render_report(&mut text, problem);
        assert!(rendered.is_ok(), "writing to a string cannot fail");
        eprintln!("{text}");
    }
}
